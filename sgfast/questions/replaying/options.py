"""The options of a replay as values, with their types, defaults and checks.

The command line and the keyword arguments of ``sgfast.replay`` create these values. All code that reads or judges takes
them as one value. ``diff`` and ``suggest`` use some of them, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from sgfast.base.errors import ArgumentError, ArgumentTypeError, ReadingError
from sgfast.base.evidence import EvidenceCode, known_codes
from sgfast.engine import CAPTURED, Midstream, Mode, check_jobs, check_modes
from sgfast.policy.timestamps import MAX_SECONDS
from sgfast.questions.replaying.time_window import parse_window
from sgfast.traffic.preprocess import TunnelKind
from sgfast.traffic.preprocess.decap import KINDS

if TYPE_CHECKING:
    from sgfast.base.output import Output
    from sgfast.policy.change_file import ChangeFile, ChangesSource
    from sgfast.policy.model import Policy

#: The names of tables that are kept only on request; they have a row for each packet or connection.
Kept = Literal["connections", "packets"]

#: The maximum number of parts into which a cluster divides packets.
MOST_SHARDS = 4096


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


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Options for judging captures. The docstring of ``sgfast.replay`` describes each option.

    Creating one raises ArgumentError for an invalid value; ``check`` finds options that cannot be combined.
    """

    mode: Mode = CAPTURED[0]
    midstream: Midstream = CAPTURED[1]
    vpc: str | None = None
    engine: Literal["fast", "reference"] = "fast"
    jobs: int = 1
    reading: ReadOptions = ReadOptions()
    changes: ChangesSource | None = None
    resume: str | os.PathLike[str] | None = None
    snapshot: Output | str | os.PathLike[str] | None = None
    #: A ``distributed.Client``.
    client: Any = None
    shards: int | None = None
    tables: tuple[Kept, ...] = ()
    #: Codes of reasons in spite of which the answer is accepted (SPEC 10.27).
    accept_evidence: Sequence[EvidenceCode] = ()
    #: Whether to compare the actions of flow logs with the policy's verdicts.
    compare_actions: bool = False
    #: Whether the captures are flow logs, whose frames stand for several packets each. The replay finds it out.
    is_of_logs: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "accept_evidence", known_codes(self.accept_evidence))
        check_modes(self.mode, self.midstream)
        check_jobs(self.jobs)
        if not isinstance(self.reading, ReadOptions):
            raise ArgumentTypeError(f"reading must be a sgfast.ReadOptions, not {self.reading!r:.80}")
        if self.engine not in ("fast", "reference"):
            raise ArgumentError(f"engine must be 'fast' or 'reference', not {self.engine!r:.80}")
        for name in self.tables:
            if name not in get_args(Kept):
                raise ArgumentError(
                    f"tables must be some of {', '.join(get_args(Kept))}, not {name!r:.80}; "
                    "other tables are always there"
                )

    def check(self, captures: tuple[str, ...], *, reports_connections: bool) -> None:
        """Raise ArgumentError for options that exclude each other, these captures, or sinks for connections."""
        if self.client is not None:
            reads_once = self.reading.follow or "-" in captures
            if self.engine != "fast" or self.snapshot is not None or self.jobs != 1 or reads_once:
                raise ArgumentError(
                    "a cluster supports neither snapshot, jobs, the reference model, follow, nor standard input"
                )
            if self.shards is not None and not 1 <= self.shards <= MOST_SHARDS:
                raise ArgumentError(f"shards must be 1 to {MOST_SHARDS}, not {self.shards!r:.80}")
        if self.engine == "reference":
            if reports_connections:
                raise ArgumentError("the reference model has no connection report: use the fast engine")
            if self.resume is not None or self.snapshot is not None:
                raise ArgumentError("the reference model has no snapshots: use the fast engine")
            if self.jobs != 1:
                raise ArgumentError("the reference model uses one thread: use the fast engine for jobs")

    def is_mapped(self, policy: Policy) -> bool:
        """Return whether marks or addresses map packets to VPCs (SPEC 7.4), and ``vpc`` does not override this."""
        return self.vpc is None and (policy.is_mapped or policy._shares_addresses)

    def change_file(self) -> ChangeFile | None:
        """Return ``changes`` as a change file, after reading it if necessary. Raises PolicyError if it is unusable."""
        if self.changes is None:
            return None
        from sgfast.policy.change_file import changes_of

        return changes_of(self.changes)
