"""Parse times written by people, and define the range of the data plane's clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

NANOSECONDS = 10**9
#: The range of the data plane's clock, in nanoseconds before and after 1970.
MAX_TIME_NS = 2**62
#: The limit for seconds after the first packet, whose time may be anywhere in the clock's range.
MAX_SECONDS = 2 * MAX_TIME_NS // NANOSECONDS
OUT_OF_RANGE = "is out of range: the clock reaches from 1823-11-12T00:06:22Z to 2116-02-20T23:53:38Z"
INSTANT = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d(?::\d\d)?)")


def instant_ns(text: str) -> int | None:
    """Parse an ISO 8601 timestamp as nanoseconds since the Unix epoch. Return None if the text does not look like one.

    Raises ValueError for an impossible time. Callers write the quoted text before the error's message.
    """
    match = INSTANT.fullmatch(text)
    if match is None:
        return None
    try:
        instant = datetime.fromisoformat(match[1] + match[3])
    except ValueError as error:
        raise ValueError(f"is not a valid time: {error}") from None
    duration = instant - datetime(1970, 1, 1, tzinfo=UTC)
    at = duration // timedelta(seconds=1) * NANOSECONDS + int((match[2] or "0").ljust(9, "0"))
    if abs(at) > MAX_TIME_NS:
        raise ValueError(OUT_OF_RANGE)
    return at


def zone_hint(text: str) -> str:
    """Return a hint to append to an error message if the timestamp only lacks its time zone, or its time of day, else
    "".
    """
    if INSTANT.fullmatch(text + "T00:00:00Z"):
        return f": say the time of day, too: {text}T00:00:00Z"
    return ": say which zone, Z for UTC" if INSTANT.fullmatch(text + "Z") else ""
