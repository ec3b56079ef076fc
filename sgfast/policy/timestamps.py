"""Times as people write them, and how far the data plane's clock reaches."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

NANOSECONDS = 10**9
#: The data plane's clock reaches this far from 1970, either way.
MAX_TIME_NS = 2**62
#: From the first packet, whenever that is.
MAX_SECONDS = 2 * MAX_TIME_NS // NANOSECONDS
OUT_OF_RANGE = "is out of range: the clock reaches from 1823-11-12T00:06:22Z to 2116-02-20T23:53:38Z"
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)")


def instant_ns(text: str) -> int | None:
    """An ISO 8601 instant as nanoseconds since the Unix epoch; None: it is not written like one.

    ValueError for one that cannot be, in words that go on after the text.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    try:
        instant = datetime.fromisoformat(match[1] + match[3])
    except ValueError as error:
        raise ValueError(f"is no instant: {error}") from None
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    at = since // timedelta(seconds=1) * NANOSECONDS + int((match[2] or "0").ljust(9, "0"))
    if abs(at) > MAX_TIME_NS:
        raise ValueError(OUT_OF_RANGE)
    return at


def zone_hint(text: str) -> str:
    """What to add to a message where an instant only lacks its zone."""
    return ": say which zone, Z for UTC" if _INSTANT.fullmatch(text + "Z") else ""
