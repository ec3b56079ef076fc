"""Who talks to whom: a row for each group that traffic comes from, a column for each that it goes to."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np

from sgfast.report.html.columns import Columns, Numbers, sums
from sgfast.report.html.markup import Markup, joined, tag
from sgfast.report.page import grouped, plural

#: How many groups have a row, or a column. The others share one: more do not fit on a screen.
SIDE = 15
#: What the others are called in the page's address.
OTHERS = "*"
#: Up to this many columns have level headings.
_FEW = 7

# Pixels: a cell, and the smallest square in it. The least height of a band, as a share of its square.
_CELL, _LEAST, _BAND = 36, 7, 0.14


@dataclass(frozen=True, slots=True)
class Outcome:
    words: str
    #: Suffix of its colour class in the style sheet.
    style: str


OUTCOMES = (
    Outcome("would break", "deny"),
    Outcome("denied and not answered", "denied"),
    Outcome("not served", "other"),
    Outcome("allowed", "allow"),
)


@dataclass(frozen=True, slots=True)
class Matrix:
    """``sizes`` by row, column and outcome: connections, and of what was denied the attempts. ``packets``: those that
    were denied and not answered.
    """

    #: Places of the groups that have a row and a column of their own.
    sources: list[int]
    destinations: list[int]
    rows: list[str]
    columns: list[str]
    sizes: Numbers
    packets: Numbers


def matrix_of(columns: Columns) -> Matrix:
    kinds = columns.kinds
    unbroken = kinds["breaks"] == 0
    packets = np.where(unbroken, kinds["packets"], 0)
    # A denied packet that opens nothing is no attempt. Its kind is as large as one, so that it is seen.
    attempts = np.where(unbroken, np.maximum(kinds["attempts"], packets > 0), 0)
    sizes = np.stack([kinds["breaks"], attempts, kinds["refused"] + kinds["silent"], kinds["allowed"]])
    rows, sources, row = _ranked(columns, "source", sizes.sum(axis=0))
    heads, destinations, column = _ranked(columns, "destination", sizes.sum(axis=0))
    shape = len(rows), len(heads)
    cell = row * len(heads) + column
    cells = [sums(cell, counts, len(rows) * len(heads)).reshape(shape) for counts in (*sizes, packets)]
    return Matrix(sources, destinations, rows, heads, np.stack(cells[:-1], axis=2), cells[-1])


def _ranked(columns: Columns, end: str, sizes: Numbers) -> tuple[list[str], list[int], Numbers]:
    """Labels of rows or columns, largest first, the groups of all but the last if that is others, and the number of
    each kind's.
    """
    groups = columns.group[columns.kinds[end]]
    total = sums(groups, sizes, len(columns.groups))
    there = np.unique(groups).tolist()
    there.sort(key=lambda group: (-int(total[group]), columns.groups[group]))
    own = there if len(there) <= SIDE + 1 else there[:SIDE]
    numbers = np.full(len(columns.groups), len(own))
    numbers[own] = np.arange(len(own))
    labels = [columns.groups[group] for group in own]
    if len(own) < len(there):
        labels.append(f"{grouped(len(there) - len(own))} others")
    return labels, own, numbers[groups]


def matrix_table(matrix: Matrix) -> Markup:
    most = int(matrix.sizes.sum(axis=2).max(initial=1))
    from_keys = _keys(matrix.rows, len(matrix.sources))
    to_keys = _keys(matrix.columns, len(matrix.destinations))
    heads = [
        tag("th", tag("a", name, href=_link(to=key), title=f"all to {name}"), scope="col")
        for name, key in zip(matrix.columns, to_keys, strict=True)
    ]
    rows = []
    for n, (name, key) in enumerate(zip(matrix.rows, from_keys, strict=True)):
        cells = [
            _cell(matrix, n, m, most, _link(key, to)) if matrix.sizes[n, m].any() else tag("td")
            for m, to in enumerate(to_keys)
        ]
        head = tag("th", tag("a", name, href=_link(key), title=f"all from {name}"), scope="row")
        rows.append(tag("tr", head, *cells))
    return tag(
        "div",
        tag(
            "table", tag("caption", "Connections by the groups they come from and go to"),
            tag("thead", tag("tr", tag("th", "from ↓ to →", class_="corner", scope="col"), *heads)),
            tag("tbody", *rows), class_="matrix few" if len(matrix.columns) <= _FEW else "matrix",
        ),
        class_="scroll", tabindex=0, role="region", aria_label="Matrix of groups",
    )  # fmt: skip


def _keys(names: list[str], own: int) -> list[str]:
    return [name if n < own else OTHERS for n, name in enumerate(names)]


def _link(source: str = "", to: str = "") -> str:
    return "#matrix?" + urlencode({key: name for key, name in (("from", source), ("to", to)) if name})


def _cell(matrix: Matrix, n: int, m: int, most: int, link: str) -> Markup:
    sizes = matrix.sizes[n, m].tolist()
    total = sum(sizes)
    words = f"{matrix.rows[n]} → {matrix.columns[m]}: {cell_words(sizes, int(matrix.packets[n, m]))}"
    short = f"✕ {_short(sizes[0])}" if sizes[0] else _short(total)
    number = tag("span", short, class_="breaks" if sizes[0] else None, aria_hidden="true")
    # Most cells are small beside the largest: by area they would all look alike.
    square = _square(sizes, (total / most) ** 0.25)
    return tag("td", tag("a", square, number, tag("span", words, class_="words"), href=link, title=words))


def cell_words(sizes: list[int], packets: int) -> str:
    """``12 would break, 9 packets denied and not answered, 100 allowed``"""
    counts = [grouped(size) for size in sizes]
    counts[1] = plural(packets, "packet")
    shown = zip(counts, OUTCOMES, sizes, strict=True)
    return ", ".join(f"{count} {outcome.words}" for count, outcome, size in shown if size)


def _square(sizes: list[int], share: float) -> Markup:
    """A square whose side is ``share`` of the largest, in bands by what happens."""
    side = max(_LEAST, share * (_CELL - 2))
    heights = [max(_BAND, size / sum(sizes)) if size else 0.0 for size in sizes]
    start = (_CELL - side) / 2
    top = start
    bands = []
    for height, outcome in zip(heights, OUTCOMES, strict=True):
        if height:
            part = side * height / sum(heights)
            bands.append(tag("rect", class_=f"fill-{outcome.style}", x=f"{start:.1f}", y=f"{top:.1f}",
                             width=f"{side:.1f}", height=f"{part:.1f}"))  # fmt: skip
            top += part
    return tag("svg", *bands, width=_CELL, height=_CELL, aria_hidden="true")


def _short(number: int) -> str:
    """``999``, ``1.2k``, ``35k``, ``4.1M``"""
    size = float(number)
    for unit in ("", "k", "M", "G"):
        if size < 999.5 or unit == "G":
            break
        size /= 1000
    return f"{size:.1f}{unit}" if unit and size < 9.95 else f"{size:.0f}{unit}"


def legend() -> Markup:
    keys = (joined(tag("span", class_=f"dot {each.style}"), "" if n else "✕ ", each.words)
            for n, each in enumerate(OUTCOMES))  # fmt: skip
    return tag("p", *(tag("span", key, class_="key") for key in keys), class_="legend")
