"""Times in JSON."""

from __future__ import annotations

NS_PER_SECOND = 10**9


def time_text(time_ns: int) -> str:
    """Seconds with nine decimals (SPEC 10.3)."""
    seconds, nanoseconds = divmod(abs(time_ns), NS_PER_SECOND)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{nanoseconds:09d}"
