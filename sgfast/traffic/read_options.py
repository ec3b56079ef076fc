"""The options of reading traffic as one value, with its types, defaults and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from numbers import Real
from typing import Any

from sgfast.base.errors import ArgumentError, ArgumentTypeError, ReadingError
from sgfast.policy.timestamps import MAX_SECONDS
from sgfast.traffic.preprocess import TunnelKind
from sgfast.traffic.preprocess.decap import KINDS
from sgfast.traffic.time_window import parse_window


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading captures. ``sgfast.cli.options.replay_options`` adds the same options to a command.

    Creating one raises ReadingError for invalid times or an invalid filter, ArgumentError for options that cannot be
    combined, a negative number of seconds or an unknown kind of tunnel, and ArgumentTypeError for a value of another
    type.

    ``merge``: whether to read the packets of all captures in order of time instead of one capture after another.
    ``follow``: whether the last capture is a growing file, which is read until the first interrupt (SIGINT).
    ``start``: the beginning of the time window of packets to keep: a time after the first packet of all captures
    ("12.5", "1h30m", a number of seconds), or an instant: an ISO 8601 text or a ``datetime`` with a time zone. It is
    converted to a text.
    ``end``: the end of the time window, in the same form. A packet at that time is not kept.
    ``filter``: an expression in tcpdump's syntax that packets must match.
    ``dedup``: whether to leave out copies of packets, which captures of several interfaces contain.
    ``decap``: the kinds of tunnels (``sgfast.types.TunnelKind``) whose headers are removed, to judge the packets
    inside. A single kind may be given as a text.

    For example:

        reading = sgfast.ReadOptions(start="1", end="10", filter="tcp port 80", dedup=True)
        result = sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", reading=reading)
        assert result.packets + result.left_out.total == 261
    """

    merge: bool = False
    follow: bool = False
    start: str | float | datetime | None = None
    end: str | float | datetime | None = None
    filter: str | None = None
    dedup: bool = False
    decap: Sequence[TunnelKind] = ()

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            object.__setattr__(self, name, _time_text(getattr(self, name), name))
        for name in ("merge", "follow", "dedup"):
            if not isinstance(value := getattr(self, name), bool):
                raise ArgumentTypeError(f"{name} must be True or False, not {value!r:.80}")
        if not isinstance(self.filter, str | None):
            raise ArgumentTypeError(f"filter must be a text in tcpdump's syntax, not {self.filter!r:.80}")
        if not isinstance(self.decap, Sequence):
            raise ArgumentTypeError(f"decap must be kinds of tunnels, {', '.join(KINDS)}, not {self.decap!r:.80}")
        object.__setattr__(self, "decap", (self.decap,) if isinstance(self.decap, str) else tuple(self.decap))
        if self.merge and self.follow:
            raise ArgumentError(
                "merge and follow cannot be combined: a growing file may still receive earlier packets"
            )
        for kind in self.decap:
            if kind not in KINDS:
                raise ArgumentError(f"{kind!r:.80} is not a kind of tunnel: use {', '.join(KINDS)}")
        parse_window(self.start, self.end)
        if self.filter is not None:
            from sgfast.traffic.preprocess.filter_text import parse_filter

            parse_filter(self.filter)

    @property
    def is_plain(self) -> bool:
        """Whether all options have their defaults."""
        return self == ReadOptions()

    @property
    def leaves_out(self) -> bool:
        """Whether the options leave packets out."""
        return self.start is not None or self.end is not None or self.filter is not None or self.dedup


def _time_text(time: Any, name: str) -> str | None:
    if time is None or isinstance(time, str):
        return time
    if isinstance(time, datetime):
        if time.utcoffset() is None:
            raise ArgumentTypeError(f"{name}: {time} has no time zone; if it is in UTC, use time.replace(tzinfo=UTC)")
        return time.isoformat()
    is_number = isinstance(time, Real) and not isinstance(time, bool)
    if not is_number:
        raise ArgumentTypeError(f"{name} must be a text, a number of seconds or a datetime, not {time!r:.80}")
    if not 0 <= time <= MAX_SECONDS:    # refuses NaN, too
        raise ReadingError(f"{name} must be 0 to {MAX_SECONDS:,} seconds after the first packet, not {time!s:.80}")
    # Format with nine decimals, because ``str`` writes small numbers with an exponent, which times must not have.
    return f"{Decimal(str(float(time))):.9f}".rstrip("0").rstrip(".")
