"""Write the results of a run (--results): RESULTS.md, results.json and plots, and separate files for curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measure import Results, Row, Spread, table


def write(results: Results, folder: Path, head: Sequence[str], facts: dict[str, Any]) -> None:
    """Write RESULTS.md, results.json and results.svg, and for curves CURVES.md, curves.json and curves.svg.

    ``head`` lists the machine, versions and the command for people; ``facts`` contains them for programs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for curves, name, title, draw in ((False, "results", "Results", plot), (True, "curves", "Growth", plot_curves)):
        part = results.part(curves)
        if part.sections:
            _write(part, folder, name, title, head, facts, draw)


def _write(
    results: Results,
    folder: Path,
    name: str,
    title: str,
    head: Sequence[str],
    facts: dict[str, Any],
    draw: Callable[[Results, Path], None],
) -> None:
    (folder / f"{name}.json").write_text(json.dumps(facts | as_json(results), indent=1) + "\n")
    drawn = folder / f"{name}.svg"
    try:
        draw(results, drawn)
        picture = f"![Times: median, lowest and highest]({drawn.name})"
    except ImportError:
        drawn.unlink(missing_ok=True)  # an earlier plot would not match these results
        picture = "No plot: matplotlib is not installed."
    text = [f"# {title}", "", "How to read them: [README.md](README.md).", "", *(f"- {line}" for line in head), ""]
    lines = [*text, picture, "", "```", *list(table(results))[1:], "```", ""]
    (folder / f"{name.upper()}.md").write_text("\n".join(lines))


def as_json(results: Results) -> dict[str, Any]:
    """Return medians, spreads and samples as JSON values. Times are for one item, in the unit of the section."""
    return {
        "missing": results.missing,
        "notes": results.notes,
        "sections": [
            {
                "title": section.title,
                "item": section.per,
                "unit": section.unit,
                "axis": section.axis,
                "rows": [
                    {
                        "test": row.name,
                        "title": row.title,
                        "x": row.x,
                        "items": row.items,
                        "time": _spread(row.samples),
                        "yardsticks": {name: _spread(values) for name, values in row.yardstick_samples.items()},
                        # sgfast's time divided by the yardstick's
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
    """Plot nanoseconds per packet on a logarithmic axis, with a group of bars for the first row of each capture.

    Raises ImportError without matplotlib.
    """
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


def plot_curves(results: Results, path: Path) -> None:
    """Plot a curve for sgfast and for each yardstick on logarithmic axes. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    sections = list(results.sections.values())
    rows = (len(sections) + 1) // 2
    figure = Figure(figsize=(10, 3.2 * rows), layout="constrained")
    FigureCanvasSVG(figure)
    for place, section in enumerate(sections, 1):
        axes = figure.add_subplot(rows, 2, place)
        for name in ["sgfast", *(name for name, each in section.yardsticks.items() if not each.variant_of)]:
            points = [
                (row.x or 0, Spread.of(samples))
                for row in section.rows
                if (samples := row.samples if name == "sgfast" else row.yardstick_samples.get(name))
            ]
            medians = [spread.median for _, spread in points]
            extents = [[s.median - s.low for _, s in points], [s.high - s.median for _, s in points]]
            axes.errorbar([x for x, _ in points], medians, yerr=extents, marker=".", label=name, elinewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(section.title, fontsize="small")
        axes.set_xlabel(section.axis)
        axes.set_ylabel(f"{section.unit} for a {section.per}")
        axes.legend(fontsize="small")
    figure.savefig(path)
