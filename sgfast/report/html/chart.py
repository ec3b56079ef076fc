"""Draw the timeline: one lane of bars for each outcome of packets, and a line for each change of the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgfast.questions.replaying import ChangeDone
from sgfast.report.amounts import NS_PER_SECOND, grouped, human_seconds, instant, plural
from sgfast.report.html.markup import Markup, tag, text
from sgfast.report.html.timeline import KINDS, Timeline


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    #: Suffix of the lane's colour class in the style sheet.
    style: str
    kinds: tuple[str, ...]


LANES = (
    Lane("Allowed", "allow", ("allow",)),
    Lane("Denied", "deny", ("deny",)),
    Lane("Denied after a cut", "cut", ("disconnected",)),
    Lane("Moot", "moot", ("moot",)),
    Lane("Not judged", "other", ("out-of-scope", "local", "exempt", "not-ip")),
)

# Pixels.
_FLAGS_HEIGHT, _LABEL_HEIGHT, _BARS_HEIGHT, _GAP, _AXIS_HEIGHT = 26, 20, 46, 10, 24
#: Minimum height of a bar, as a fraction of the lane, so that even a single packet is visible.
_MIN_BAR = 0.05
#: Changes closer together than this fraction of the width share a flag.
_FLAG_WIDTH = 0.06
_MAX_TICKS = 6

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_STEPS = (
    *(digit * 10.0**power for power in range(-9, 1) for digit in (1, 2, 5)),
    10.0, 20.0, 30.0, *(m * _MINUTE for m in (1, 2, 5, 10, 20, 30)), *(h * _HOUR for h in (1, 2, 3, 6, 12)),
)  # fmt: skip


def lanes_of(timeline: Timeline) -> list[tuple[Lane, NDArray[np.int64]]]:
    """Return the lanes with their counts by interval. Empty lanes are left out, except allowed and denied."""
    counts = timeline.counts
    lanes = [(lane, counts[:, [KINDS.index(kind) for kind in lane.kinds]].sum(axis=1)) for lane in LANES]
    return [(lane, count) for n, (lane, count) in enumerate(lanes) if n < 2 or count.any()]


def chart(timeline: Timeline, changes: Sequence[ChangeDone]) -> Markup:
    """Return an ``svg`` element of full width. ``changes``: all changes, in order."""
    lanes = lanes_of(timeline)
    assert timeline.first_time_ns is not None
    length_ns = len(timeline.counts) * timeline.interval_ns
    marked = [
        (number, (change.time_ns - timeline.first_time_ns) / length_ns)
        for number, change in enumerate(changes, 1)
        if timeline.first_time_ns <= change.time_ns <= timeline.first_time_ns + length_ns
    ]
    top = _FLAGS_HEIGHT if marked else 0
    height = _LABEL_HEIGHT + _BARS_HEIGHT + _GAP
    bottom = top + len(lanes) * height - _GAP
    # Lines are drawn first, so that text covers them.
    parts = _flags(marked, bottom)
    for n, (lane, counts) in enumerate(lanes):
        parts += _lane(lane, counts, top + n * height)
    parts += _axis(length_ns, bottom)
    described = f"Packets over time, from {instant(timeline.first_time_ns)} UTC, by what became of them"
    if marked:
        described += f", and {plural(len(marked), 'change')} of the policy"
    return tag(
        "svg", *parts, class_="chart", role="img", aria_label=described, width="100%", height=bottom + _AXIS_HEIGHT
    )


def _lane(lane: Lane, counts: NDArray[np.int64], top: int) -> list[Markup]:
    most = int(counts.max(initial=0))
    width = len(counts)
    path = []
    for n in np.flatnonzero(counts).tolist():
        height = max(_MIN_BAR, int(counts[n]) / most) * 100
        path.append(f"M{n} 100V{100 - height:.4g}h{0.85 if width > 1 else 1}V100z")
    floor = top + _LABEL_HEIGHT + _BARS_HEIGHT
    scale = f"{grouped(int(counts.sum()))}, at most {grouped(most)} a bar" if most else "none"
    return [
        tag("rect", class_=f"fill-{lane.style}", x=0, y=top + 5, width=9, height=9, rx=2),
        tag("text", lane.name, class_="lane", x=15, y=top + 14),
        tag("text", scale, class_="scale", x="100%", y=top + 14, text_anchor="end"),
        tag(
            "svg", tag("path", class_=f"fill-{lane.style}", d=Markup("".join(path))), x=0, y=top + _LABEL_HEIGHT,
            width="100%", height=_BARS_HEIGHT, viewBox=f"0 0 {width} 100", preserveAspectRatio="none",
        ),
        tag("line", class_="floor", x1=0, x2="100%", y1=floor, y2=floor),
    ]  # fmt: skip


def _flags(marked: Sequence[tuple[int, float]], bottom: int) -> list[Markup]:
    """Return a line for each change, and a flag with the changes' numbers for each group of close changes."""
    lines = {_percent(place) for _, place in marked}
    parts = [tag("line", class_="change", x1=at, x2=at, y1=20, y2=bottom) for at in sorted(lines, key=_from_percent)]
    flag_groups: list[list[tuple[int, float]]] = []
    for number, place in marked:
        if flag_groups and place - flag_groups[-1][0][1] < _FLAG_WIDTH:
            flag_groups[-1].append((number, place))
        else:
            flag_groups.append([(number, place)])
    for flags in flag_groups:
        first, last, place = flags[0][0], flags[-1][0], flags[0][1]
        words = str(first) if first == last else f"{first}-{last}"
        anchor = "start" if place < 0.03 else "end" if place > 0.97 else "middle"
        parts.append(tag("text", f"▾ {words}", class_="flag", x=_percent(place), y=14, text_anchor=anchor))
    return parts


def _axis(length_ns: int, top: int) -> list[Markup]:
    length = length_ns / 1e9
    step = next((step for step in _STEPS if length / step <= _MAX_TICKS), None)
    if step is None:
        step = _DAY
        while length / step > _MAX_TICKS:
            step *= 2
    parts = []
    for n in range(int(length / step) + 1):
        place = n * step / length
        if n > 0 and place > 0.96:
            continue
        at = _percent(place)
        words = _time_words(n * step, step)
        parts.append(tag("line", class_="tick", x1=at, x2=at, y1=top, y2=top + 5))
        parts.append(tag("text", words, class_="tick", x=at, y=top + 19, text_anchor="middle" if n else "start"))
    return parts


def _time_words(seconds: float, step: float) -> str:
    if step < 1e-6:
        return f"{seconds * 1e9:.6g} ns"
    if step < 1e-3:
        return f"{seconds * 1e6:.6g} µs"
    if step < 1:
        return f"{seconds * 1e3:.6g} ms" if seconds < 1 else f"{seconds:.6g} s"
    if step < _MINUTE:
        return f"{seconds:.0f} s"
    if step < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if step < _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:,.0f} d"


def _length_words(interval_ns: int) -> str:
    if interval_ns < 1000:
        return f"{interval_ns} ns"
    return f"{interval_ns / 1000:.3g} µs" if interval_ns < 10**6 else human_seconds(interval_ns / 1e9)


def _percent(place: float) -> str:
    return f"{100 * place:.3f}%"


def _from_percent(words: str) -> float:
    return float(words[:-1])


def numbers(timeline: Timeline) -> Markup:
    """Return the chart's numbers as a table, for screen readers and for the page's script."""
    lanes = lanes_of(timeline)
    head = tag("tr", tag("th", "from (UTC)", scope="col"), *(tag("th", lane.name, scope="col") for lane, _ in lanes))
    rows = []
    for n in np.flatnonzero(timeline.counts.any(axis=1)).tolist():
        at = _beginning(timeline, n)
        cells = (tag("td", grouped(int(counts[n]))) for _, counts in lanes)
        rows.append(tag("tr", tag("th", at, scope="row", data_n=n), *cells))
    intervals = plural(len(timeline.counts), "interval")
    return tag(
        "details",
        tag("summary", "The numbers as a table"),
        tag(
            "div",
            tag("table", tag("thead", head), tag("tbody", *rows), id="numbers", data_intervals=len(timeline.counts)),
            class_="scroll", tabindex=0, role="region", aria_label="Packets over time in numbers",
        ),
        tag("p", f"{intervals} of {_length_words(timeline.interval_ns)} each.", class_="note"),
    )  # fmt: skip


def _beginning(timeline: Timeline, interval: int) -> str:
    """Return the time at which an interval begins, with no more decimals than tell it from the next one's."""
    assert timeline.first_time_ns is not None
    decimals = next((digits for digits in (0, 3, 6) if timeline.interval_ns * 10**digits >= NS_PER_SECOND), 9)
    return instant(timeline.first_time_ns + interval * timeline.interval_ns, decimals)


def caption(timeline: Timeline) -> Markup:
    return text(
        f"Each bar covers {_length_words(timeline.interval_ns)}. Each lane has a scale of its own. The time below them "
        f"counts from {_beginning(timeline, 0)} UTC."
    )
