"""The matrix of kinds of traffic: who talks to whom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgfast.report.amounts import grouped, plural
from sgfast.report.html.columns import Columns, Numbers, sums
from sgfast.report.html.matrix import Axis, LegendEntry, Matrix, Square, axis


def outcomes(*, answers_unknown: bool) -> tuple[LegendEntry, ...]:
    """Return the outcomes. ``answers_unknown``: the captures cannot tell which connections nobody answered."""
    denied, silent = ("denied, perhaps answered", "not served, or not seen") if answers_unknown else (
        "denied and not answered", "not served"
    )  # fmt: skip
    return (
        LegendEntry("would break", "deny", "✕ "), LegendEntry(denied, "denied"), LegendEntry(silent, "other"),
        LegendEntry("allowed", "allow"),
    )  # fmt: skip


def matrix_of(columns: Columns, legend: Sequence[LegendEntry], side: int) -> Matrix:
    """Return the matrix. It counts connections, or attempts if they were denied and not answered. ``legend``: the
    outcomes. ``side``: the most rows, and columns, of one group.
    """
    kinds = columns.kinds
    unbroken = kinds["breaks"] == 0
    packets = np.where(unbroken, kinds["packets"], 0)
    # A denied packet that opens nothing is no attempt. Its kind counts as one attempt, so that the matrix shows it.
    attempts = np.where(unbroken, np.maximum(kinds["attempts"], packets > 0), 0)
    sizes = np.stack([kinds["breaks"], attempts, kinds["refused"] + kinds["silent"], kinds["allowed"]])
    rows, heads = (_axis_of(columns, end, sizes.sum(axis=0), side) for end in ("source", "destination"))
    numbers = (columns.group[kinds[end]] for end in ("source", "destination"))
    row, column = (axis.place[groups] for axis, groups in zip((rows, heads), numbers, strict=True))
    number = len(rows.labels) * len(heads.labels)
    cells = [sums(row * len(heads.labels) + column, counts, number) for counts in (*sizes, packets)]
    totals = np.sum(cells[:-1], axis=0)
    most = int(totals.max(initial=1))
    squares = {}
    for place in np.flatnonzero(totals).tolist():
        n, m = divmod(place, len(heads.labels))
        *counts, denied = (int(cell_counts[place]) for cell_counts in cells)
        words = f"{rows.labels[n]} → {heads.labels[m]}: {cell_words(counts, denied, legend)}"
        short = f"✕ {_short(counts[0])}" if counts[0] else _short(sum(counts))
        # Most cells are small beside the largest, and would all look alike if areas showed their sizes.
        squares[n, m] = Square(counts, (sum(counts) / most) ** 0.25, words, short, counts[0] > 0)
    return Matrix(legend, rows, heads, squares)


def _axis_of(columns: Columns, end: str, sizes: Numbers, side: int) -> Axis:
    groups = columns.group[columns.kinds[end]]
    size, breaks = (sums(groups, end_counts, len(columns.groups)) for end_counts in (sizes, columns.kinds["breaks"]))
    return axis(columns.groups, size, breaks, np.unique(groups).tolist(), side)


def cell_words(sizes: list[int], packets: int, legend: Sequence[LegendEntry]) -> str:
    """Return ``12 would break, 9 packets denied and not answered, 100 allowed``."""
    counts = [grouped(size) for size in sizes]
    counts[1] = plural(packets, "packet")
    shown = zip(counts, legend, sizes, strict=True)
    return ", ".join(f"{count} {outcome.words}" for count, outcome, size in shown if size)


def _short(number: int) -> str:
    """Return ``999``, ``1.2k``, ``35k``, ``4.1M``."""
    size = float(number)
    for unit in ("", "k", "M", "G"):
        if size < 999.5 or unit == "G":
            break
        size /= 1000
    return f"{size:.1f}{unit}" if unit and size < 9.95 else f"{size:.0f}{unit}"
