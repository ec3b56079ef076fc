"""Format the counts of packets that were left out before judging, as text."""

from __future__ import annotations

from sgfast.replaying.cutting import PacketsLeftOut
from sgfast.report.amounts import grouped


def left_out_counts(left_out: PacketsLeftOut | None) -> list[tuple[int, str]]:
    """Return (count, reason) pairs for the options that were given."""
    if left_out is None:
        return []
    counts = (
        (left_out.before_start, "before --start"),
        (left_out.after_end, "at --end or later"),
        (left_out.filter, "by --filter"),
        (left_out.duplicates, "duplicate" if left_out.duplicates == 1 else "duplicates"),
    )
    return [(number, why) for number, why in counts if number is not None]


def left_out_words(left_out: PacketsLeftOut) -> str:
    """``12 before --start, 3 duplicates``, or ``nothing``."""
    return ", ".join(f"{grouped(number)} {why}" for number, why in left_out_counts(left_out) if number) or "nothing"
