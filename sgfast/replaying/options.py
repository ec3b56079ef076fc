"""The options of a replay, as values: each with its type, its default and what it has to be.

The command line and the keywords of ``sgfast.replay`` make them, and whoever judges or reads takes them whole. A diff
and a suggestion are replays with some of these options.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from sgfast.engine import Midstream, Mode, check_jobs, check_modes
from sgfast.errors import ArgumentError, ArgumentTypeError
from sgfast.output import Output
from sgfast.policy.change_file import ChangeFile, load_changes
from sgfast.policy.model import Policy
from sgfast.preprocess.decap import KINDS
from sgfast.preprocess.filter_text import parse_filter
from sgfast.replaying.time_window import parse_window

#: Parts that a cluster deals packets out to.
MOST_SHARDS = 4096


@dataclass(frozen=True, slots=True)
class Reading:
    """How captures are read, by all who read them. ``sgfast.cli.options.replay_options`` are the same as options.

    Making one raises ReadingError for times or a filter that cannot be understood, ArgumentError for what does not go
    together or is no kind of tunnel.
    """

    #: Packets of all captures in the order of their times, not capture after capture.
    merge: bool = False
    #: The last capture is a file that grows: it is read on until the first interrupt (SIGINT), which ends it there.
    follow: bool = False
    #: Only packets of [start, end), by their own timestamps: seconds from the first packet of all captures ("12.5",
    #: "1h30m"), or ISO 8601 instants.
    start: str | None = None
    end: str | None = None
    #: Only packets that match: an expression like tcpdump's.
    filter: str | None = None
    #: Only the first of packets that are there more than once, as captures of several interfaces have them.
    dedup: bool = False
    #: Kinds of tunnels (``sgfast.preprocess.decap.KINDS``) that are taken off: what is inside is judged.
    decap: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.merge and self.follow:
            raise ArgumentError("merge and follow do not go together: what comes next is not known while a file grows")
        for kind in self.decap:
            if kind not in KINDS:
                raise ArgumentError(f"{kind!r:.80} is no kind of tunnel: one of {', '.join(KINDS)}")
        parse_window(self.start, self.end)
        if self.filter is not None:
            parse_filter(self.filter)

    @property
    def is_plain(self) -> bool:
        """Whether captures are read as they are: every option is left alone."""
        return self == Reading()

    @property
    def leaves_out(self) -> bool:
        """Whether packets are to be left out."""
        return self.start is not None or self.end is not None or self.filter is not None or self.dedup


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How captures are judged. ``sgfast.replay`` says what each option does.

    Making one raises an ArgumentError for a value that does not exist; ``check`` says what does not go together.
    """

    mode: Mode = "causal"
    midstream: Midstream = "infer"
    vpc: str | None = None
    engine: Literal["fast", "reference"] = "fast"
    jobs: int = 1
    reading: Reading = Reading()
    changes: ChangeFile | str | os.PathLike[str] | None = None
    resume: str | os.PathLike[str] | None = None
    snapshot: Output | str | os.PathLike[str] | None = None
    #: A ``distributed.Client``.
    client: Any = None
    shards: int | None = None

    def __post_init__(self) -> None:
        check_modes(self.mode, self.midstream)
        check_jobs(self.jobs)
        if self.engine not in ("fast", "reference"):
            raise ArgumentError(f"engine is 'fast' or 'reference', not {self.engine!r:.80}")
        if not (self.changes is None or isinstance(self.changes, ChangeFile | str | os.PathLike)):
            raise ArgumentTypeError(f"changes is a change file or its path, not {self.changes!r:.80}")

    def check(self, captures: tuple[str, ...], *, reports_connections: bool) -> None:
        """ArgumentError for options that do not go together, or not with these captures or a sink for connections."""
        if self.client is not None:
            reads_once = self.reading.follow or "-" in captures
            if self.engine != "fast" or self.snapshot is not None or self.jobs != 1 or reads_once:
                raise ArgumentError(
                    "a cluster neither takes snapshots, jobs, another engine, nor what can be read only once"
                )
            if self.shards is not None and not 1 <= self.shards <= MOST_SHARDS:
                raise ArgumentError(f"shards is 1 to {MOST_SHARDS}, not {self.shards!r:.80}")
        if self.engine == "reference":
            if reports_connections:
                raise ArgumentError("the reference model makes no connection report: use the fast engine")
            if self.resume is not None or self.snapshot is not None:
                raise ArgumentError("the reference model has no snapshots: use the fast engine")
            if self.jobs != 1:
                raise ArgumentError("the reference model judges alone: use the fast engine for jobs")

    def is_mapped(self, policy: Policy) -> bool:
        """Whether packets belong to several VPCs, as the policy maps them (SPEC 7.1)."""
        return policy.is_mapped and self.vpc is None

    def change_file(self) -> ChangeFile | None:
        """What ``changes`` says; PolicyError for a file that cannot be used."""
        if self.changes is None or isinstance(self.changes, ChangeFile):
            return self.changes
        return load_changes(self.changes)
