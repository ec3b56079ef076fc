"""The options of a replay as one value, with its types, defaults and checks.

The command line and the keyword arguments of ``sgfast.replay`` create it. ``diff`` and ``suggest`` use some of its
options, too. Those of reading are a value of their own (``sgfast.traffic.read_options``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from sgfast.base.errors import ArgumentError, ArgumentTypeError
from sgfast.base.evidence import EvidenceCode, known_codes
from sgfast.engine import CAPTURED, Midstream, Mode, check_jobs, check_modes
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.vpc_mapping import is_mapped

if TYPE_CHECKING:
    from sgfast.base.output import Output
    from sgfast.policy.change_file import ChangeFile, ChangesSource
    from sgfast.policy.model import Policy

#: The names of tables that are kept only on request; they have a row for each packet or connection.
Kept = Literal["connections", "packets"]

#: The maximum number of parts into which a cluster divides packets.
MOST_SHARDS = 4096


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
    reading: ReadOptions = field(default_factory=ReadOptions)
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
        return is_mapped(policy, self.vpc)

    def change_file(self) -> ChangeFile | None:
        """Return ``changes`` as a change file, after reading it if necessary. Raises PolicyError if it is unusable."""
        if self.changes is None:
            return None
        from sgfast.policy.change_file import changes_of

        return changes_of(self.changes)
