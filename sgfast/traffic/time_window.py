"""The time window of a replay (``--start``, ``--end``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from sgfast.base.errors import ReadingError
from sgfast.base.names import printable
from sgfast.policy.timestamps import MAX_SECONDS, NANOSECONDS, OUT_OF_RANGE, instant_ns, zone_hint

_WANTED = "a time after the first packet (12.5, 2m, 1h30m, 1d) or an instant like 2026-01-31T12:00:00Z"
_AFTER_FIRST = re.compile(
    r"\+?(?:(\d{1,12})d)?(?:(\d{1,12})h)?(?:(\d{1,12})m)?(?:(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})s?)?", re.ASCII
)
_SECONDS = (86400, 3600, 60, 1)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time measured from the first packet, or an instant."""

    #: Nanoseconds from the first packet if ``is_relative``, else from the Unix epoch.
    ns: int
    is_relative: bool

    def at(self, first_ns: int) -> int:
        return first_ns + self.ns if self.is_relative else self.ns


def parse_moment(text: str, option: str) -> Moment:
    """Parse ``12.5``, ``+90``, ``2m``, ``1h30m`` or ``2026-01-31T12:00:00Z``. Raises ReadingError, naming
    ``option``."""
    name = printable(text[:60])
    match = _AFTER_FIRST.fullmatch(text)
    if match is not None and any(match.groups()):
        parts = zip(match.groups(), _SECONDS, strict=True)
        seconds = sum((Decimal(part or 0) * unit for part, unit in parts), Decimal(0))
        if seconds > MAX_SECONDS:
            raise ReadingError(f"{option}: {name} {OUT_OF_RANGE}")
        return Moment(int((seconds * NANOSECONDS).to_integral_value()), True)
    try:
        at = instant_ns(text)
    except ValueError as error:
        raise ReadingError(f"{option}: {name} {error}") from None
    if at is None:
        raise ReadingError(f"{option}: must be {_WANTED}, not {name}{zone_hint(text)}")
    return Moment(at, False)


def parse_duration(text: str, option: str) -> float:
    """Parse a time with its unit, like ``30d`` or ``1h30m``, as seconds. Raises ReadingError, naming ``option``."""
    has_unit = text[-1:].isalpha() and _AFTER_FIRST.fullmatch(text) is not None
    if not has_unit or not (moment := parse_moment(text, option)).ns:
        raise ReadingError(
            f"{option}: must be a time with its unit (d, h, m or s), like 30d or 12h, not {printable(text[:60])}"
        )
    return moment.ns / NANOSECONDS


def parse_window(start: object, end: object) -> tuple[Moment | None, Moment | None]:
    """Parse both ends of the window: texts, or None for no such end.

    Raises ReadingError for an invalid end, or if it is already certain, before the first packet, that the window is
    empty.
    """
    first = None if start is None else parse_moment(str(start), "--start")
    last = None if end is None else parse_moment(str(end), "--end")
    if first is not None and last is not None and first.is_relative == last.is_relative:
        refuse_backwards(first, last, 0)
    return first, last


def refuse_backwards(start: Moment, end: Moment, first_ns: int) -> None:
    """Raise ReadingError for an empty window. ``first_ns`` is the first packet's time."""
    if end.at(first_ns) <= start.at(first_ns):
        raise ReadingError("--end: must be after --start")
