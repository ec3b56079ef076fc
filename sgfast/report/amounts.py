"""Amounts and times in words, and times in JSON."""

from __future__ import annotations

from datetime import datetime, timedelta

NS_PER_SECOND = 10**9


def grouped(number: int) -> str:
    return f"{number:,}"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def human_bytes(number: float) -> str:
    """Format with a decimal unit and one decimal."""
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
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02}:{rest:02} h"


def instant(time_ns: int) -> str:
    """Format a time in UTC with microseconds."""
    return (datetime(1970, 1, 1) + timedelta(microseconds=time_ns // 1000)).isoformat(" ", "microseconds")


def time_text(time_ns: int) -> str:
    """Seconds with nine decimals (SPEC 10.3)."""
    seconds, nanoseconds = divmod(abs(time_ns), NS_PER_SECOND)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{nanoseconds:09d}"
