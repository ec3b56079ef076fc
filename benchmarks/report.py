"""What a run leaves behind with --results: RESULTS.md to read, results.json to compute with, a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import Results, Row, Spread

PLOT = "results.svg"


def write(results: Results, folder: Path, head: Sequence[str], table: Sequence[str], facts: dict[str, Any]) -> None:
    """``head``: machine, versions, command, one line each; ``facts``: the same for programs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(facts | as_json(results), indent=1) + "\n")
    try:
        plot(results, folder / PLOT)
        picture = f"![Time for a packet, by capture]({PLOT})"
    except ImportError:
        (folder / PLOT).unlink(missing_ok=True)  # an earlier run's would be taken for this one's
        picture = "No plot: matplotlib is not installed."
    text = ["# Results", "", "How to read them: [README.md](README.md).", "", *(f"- {line}" for line in head), ""]
    (folder / "RESULTS.md").write_text("\n".join([*text, picture, "", "```", *table, "```", ""]))


def as_json(results: Results) -> dict[str, Any]:
    """Medians, spread and samples; times in the unit of their section for one item."""
    return {
        "missing": results.missing,
        "notes": results.notes,
        "sections": [
            {
                "title": section.title,
                "item": section.per,
                "unit": section.unit,
                "rows": [
                    {
                        "test": row.name,
                        "title": row.title,
                        "items": row.items,
                        "time": _spread(row.samples),
                        "yardsticks": {name: _spread(values) for name, values in row.yardstick_samples.items()},
                        # sgfast's time over the yardstick's
                        "ratios": {name: _spread(values) for name, values in row.ratios.items()},
                    }
                    for row in section.rows
                ],
            }
            for section in results.sections.values()
            if section.rows
        ],
    }


def _spread(samples: list[float]) -> dict[str, Any]:
    return {**Spread.of(samples).json(), "samples": samples}


def plot(results: Results, path: Path) -> None:
    """Nanoseconds for a packet, logarithmic, a group of bars for each capture: its first row. Raises ImportError."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows: dict[str, Row] = {}
    for section in results.sections.values():
        if section.per == "packet" and section.rows:
            rows[section.title.split(":")[0]] = section.rows[0]
    names = list(dict.fromkeys(name for row in rows.values() for name in row.yardstick_samples))
    figure = Figure(figsize=(9, 1.2 + 0.16 * len(rows) * (len(names) + 2)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for place, name in enumerate(["sgfast", *names]):
        bars: list[tuple[float, Spread]] = []
        for group, row in enumerate(rows.values()):
            samples = row.samples if name == "sgfast" else row.yardstick_samples.get(name)
            if samples:
                bars.append((group * (len(names) + 2) + place, Spread.of(samples)))
        heights = [spread.median for _, spread in bars]
        extents = [[s.median - s.low for _, s in bars], [s.high - s.median for _, s in bars]]
        axes.barh([at for at, _ in bars], heights, xerr=extents, height=0.9, label=name, error_kw={"elinewidth": 0.8})
    places = [group * (len(names) + 2) + len(names) / 2 for group in range(len(rows))]
    axes.set_yticks(places, list(rows))
    axes.invert_yaxis()
    if rows:
        axes.set_xscale("log")
        axes.legend(fontsize="small")
    axes.set_xlabel("ns for a packet: median, lowest and highest")
    figure.savefig(path)
