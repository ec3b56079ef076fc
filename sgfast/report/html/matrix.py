"""Draw a matrix with a row for each group of initiators, and a column for each group of responders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np

from sgfast.report.amounts import grouped
from sgfast.report.html.columns import Numbers, packed_text
from sgfast.report.html.markup import Markup, joined, tag

#: The most rows and columns, which fit on a screen. Further groups share one.
SIDE = 15
#: The most small groups that are named because some of their connections would break.
MOST_BREAKING = 10
#: The most groups of a side that the matrix unfolds to. A browser is slow with more cells.
MOST_UNFOLDED = 100
#: Name of the shared row or column in the page's address.
OTHERS = "*"
#: The most columns whose headings are level; with more columns, headings are turned.
_FEW = 7

# Pixels: a cell, and the smallest square in it. Then the least height of a band, as a share of its square.
_CELL, _LEAST, _BAND = 36, 7, 0.14


@dataclass(frozen=True, slots=True)
class LegendEntry:
    words: str
    #: Suffix of the entry's colour class in the style sheet.
    style: str
    #: A mark before the words in the legend, for readers who cannot distinguish the colours.
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Square:
    #: By outcome: its amount, which gives its share of the square.
    sizes: list[int]
    #: The side of the square, as a share of the largest square's.
    share: float
    #: The description that a pointer shows and screen readers read.
    words: str
    #: Text below the square.
    short: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """The rows, or the columns. Groups beyond a number of them share the last one."""

    labels: list[str]
    #: Number of rows that belong to one group. A further row is shared.
    own: int
    #: By group: the number of its row or column.
    place: Numbers

    @property
    def keys(self) -> list[str]:
        """Names of the rows in the page's address."""
        return [label if n < self.own else OTHERS for n, label in enumerate(self.labels)]


@dataclass(frozen=True, slots=True)
class Matrix:
    outcomes: Sequence[LegendEntry]
    rows: Axis
    columns: Axis
    #: By row and column: the square; cells without traffic have none.
    cells: Mapping[tuple[int, int], Square]

    @property
    def has_others(self) -> bool:
        return any(len(matrix_axis.labels) > matrix_axis.own for matrix_axis in (self.rows, self.columns))


def axis(groups: Sequence[str], sizes: Numbers, breaks: Numbers, there: Iterable[int], side: int) -> Axis:
    """Return an axis. ``sizes``, ``breaks``: by group; the largest come first. ``there``: the groups that have a row.
    If they are more than ``side`` and one, the smallest share a row, except those with most breaks.
    """
    ranked = sorted(there, key=lambda group: (-int(sizes[group]), groups[group]))
    own_groups = ranked
    if len(ranked) > side + 1:
        breaking = sorted((group for group in ranked[side:] if breaks[group]), key=lambda group: -int(breaks[group]))
        own_groups = ranked[:side] + breaking[:MOST_BREAKING]
    place = np.full(len(groups), len(own_groups))
    place[own_groups] = np.arange(len(own_groups))
    labels = [groups[group] for group in own_groups]
    if len(own_groups) < len(ranked):
        labels.append(f"{grouped(len(ranked) - len(own_groups))} others")
    return Axis(labels, len(own_groups), place)


def matrix_table(folded: Matrix, whole: Matrix, caption: str) -> Markup:
    """Return a matrix. ``whole``: the one that a button of the page's script shows if ``folded`` has others. If it has
    others, too, the page does without it.
    """
    place = tag(
        "div", _table(folded, caption), class_="scroll", tabindex=0, role="region", aria_label="Matrix of groups"
    )
    if whole.has_others or not folded.has_others:
        return place
    return joined(place, tag("template", Markup(packed_text(_table(whole, caption))), id="whole-matrix"))


def _table(matrix: Matrix, caption: str) -> Markup:
    to_keys = matrix.columns.keys
    width = "few" if len(to_keys) <= _FEW else "wide" if len(to_keys) > SIDE + 1 else ""
    heads = [
        tag("th", tag("a", name, href=_link(to=key), title=f"all to {name}"), scope="col")
        for name, key in zip(matrix.columns.labels, to_keys, strict=True)
    ]
    rows = []
    for n, (name, key) in enumerate(zip(matrix.rows.labels, matrix.rows.keys, strict=True)):
        cells = [_cell(matrix.outcomes, matrix.cells.get((n, m)), _link(key, to)) for m, to in enumerate(to_keys)]
        head = tag("th", tag("a", name, href=_link(key), title=f"all from {name}"), scope="row")
        rows.append(tag("tr", head, *cells))
    return tag(
        "table", tag("caption", caption),
        tag("thead", tag("tr", tag("th", "from ↓ to →", class_="corner", scope="col"), *heads)),
        tag("tbody", *rows), class_=f"matrix {width}".strip(),
    )  # fmt: skip


def _link(source: str = "", to: str = "") -> str:
    return "#matrix?" + urlencode({key: name for key, name in (("from", source), ("to", to)) if name})


def _cell(outcomes: Sequence[LegendEntry], cell: Square | None, link: str) -> Markup:
    if cell is None:
        return tag("td")
    number = tag("span", cell.short, class_="breaks" if cell.is_bad else None, aria_hidden="true")
    return tag("td", tag("a", _square(cell, outcomes), number, href=link, title=cell.words))


def _square(cell: Square, outcomes: Sequence[LegendEntry]) -> Markup:
    """Return a square that is divided into bands by outcome."""
    side = round(max(_LEAST, cell.share * (_CELL - 2)))
    heights = [max(_BAND, size / sum(cell.sizes)) if size else 0.0 for size in cell.sizes]
    ends = [5 * round(20 * sum(heights[: n + 1]) / sum(heights)) for n in range(len(heights))]
    bands = [
        tag("rect", class_=f"fill-{outcome.style}", y=f"{start}%", width="100%", height=f"{end - start}%")
        for start, end, outcome in zip([0, *ends], ends, outcomes, strict=False) if end > start
    ]  # fmt: skip
    return tag("svg", *bands, width=side, height=side, aria_hidden="true")


def legend(outcomes: Sequence[LegendEntry]) -> Markup:
    keys = (joined(tag("span", class_=f"dot {entry.style}"), entry.mark, entry.words)
            for entry in outcomes)  # fmt: skip
    return tag("p", *(tag("span", key, class_="key") for key in keys), class_="legend")
