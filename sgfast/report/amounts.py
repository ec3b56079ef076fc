"""Amounts and times in words, and times in JSON."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgfast.traffic.packet_selection import PacketsLeftOut

NS_PER_SECOND = 10**9


def grouped(number: int) -> str:
    return f"{number:,}"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def human_bytes(number: float) -> str:
    """Format a number of bytes with a decimal unit and one decimal."""
    if number < 1000:
        return f"{number:.0f} B"
    units = ["kB", "MB", "GB", "TB", "PB", "EB"]
    number /= 1000
    while number >= 999.95 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.1f} {units[0]}"


def human_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, odd_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02}:{odd_seconds:02} h"


def instant(time_ns: int, decimals: int = 6) -> str:
    """Format a time in UTC, cut to a number of decimals of a second, at most 9."""
    seconds, fraction = divmod(time_ns, NS_PER_SECOND)
    whole = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat(" ")
    return f"{whole}.{fraction:09d}"[: len(whole) + 1 + decimals] if decimals else whole


def time_text(time_ns: int) -> str:
    """Format a time as seconds with nine decimals (SPEC 10.3)."""
    seconds, nanoseconds = divmod(abs(time_ns), NS_PER_SECOND)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{nanoseconds:09d}"


def left_out_counts(left_out: PacketsLeftOut | None) -> list[tuple[int, str]]:
    """Return (count, reason) pairs of packets left out before judging, for the options that were given."""
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
    """Return ``12 before --start, 3 duplicates``, or ``nothing``."""
    return ", ".join(f"{grouped(number)} {why}" for number, why in left_out_counts(left_out) if number) or "nothing"
