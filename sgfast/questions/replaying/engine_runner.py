"""Run a replay with one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sgfast.core.accounting import AccountingPlane
from sgfast.core.base.file_reads import FileReads
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import PENDING, REASONS, VERDICTS, Engine
from sgfast.policy.model import ICMP, ICMPV6, Policy
from sgfast.questions.replaying.evidence import elsewhere_of, isolated_by, observed_by
from sgfast.questions.replaying.kinds import kinds_of
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.reorder_buffer import ReorderBuffer
from sgfast.questions.replaying.results import (
    LISTED_CUTS,
    ChangeDone,
    CutConnection,
    Names,
    Oddities,
    ReplayResult,
    Rows,
    RuleHits,
    Sinks,
)
from sgfast.rules.compiler import Compiler

if TYPE_CHECKING:
    from sgfast.policy.change_file import TimedChange

#: The number of connections reported at once when connections are still open at the end.
FLOWS_AT_ONCE = 1 << 16

#: The words for ``fate`` numbers in rows, in the order of CutFate (``core/tallies/disconnects.pxd``).
_OUTCOMES: tuple[Literal["never", "back", "denied"], ...] = ("never", "back", "denied")


def make_engine(
    policy: Policy, options: ReplayOptions, vpc: str | None, *, keep_flows: bool = False, jobs: int = 1,
    compiler: Compiler | None = None, hash_key: Sequence[int] | None = None,
) -> Engine:  # fmt: skip
    """Make an engine for a replay with ``options``. Its VPC may differ from that of the options."""
    engine = Engine(
        policy, mode=options.mode, midstream=options.midstream, vpc=vpc, _keep_flows=keep_flows, _reporting=True,
        _hash_key=hash_key, _compiler=compiler, jobs=jobs,
    )  # fmt: skip
    if options.is_of_logs:
        engine.dataplane.weigh()
    return engine


@dataclass(slots=True)
class _Unwritten:
    """Packets not written to sinks yet: the frames of ``batch`` from ``first`` on, with packet numbers from ``number``
    on."""

    number: int
    batch: FrameBatch
    first: int
    headers: Rows
    results: Rows


class EngineRunner:
    """A ``Runner`` with one engine.

    With several jobs and lasting batches, sinks get the packets of one call of ``process`` during the next call, so
    that other threads judge while this thread writes.
    """

    #: The division of packets among engines (``VpcRunner.dealt``); None because there is only one engine.
    dealt = None

    def __init__(self, engine: Engine, sinks: Sinks) -> None:
        """``engine`` must be made with ``reporting``, and with ``keep_flows`` if there are sinks for flows."""
        self.engine = engine
        self.sinks = sinks
        #: Buffers for headers and results. If packets are written during the next ``process``, two buffers are needed.
        self._rows: list[tuple[Rows, Rows] | None] = [None] * min(engine.dataplane.jobs, 2)
        self._unwritten: _Unwritten | None = None
        self._reordered = ReorderBuffer(sinks)
        self._next = self.packets_judged + 1
        self._begin_sinks()

    def _begin_sinks(self) -> None:
        if not (self.sinks.want_packets or self.sinks.flows):
            return
        engine = self.engine
        packets = self.packets_judged - self._reordered.waiting
        self.sinks.begin(Names.of(engine.policy, engine.vpc, engine.compiled.numbering, packets))

    @property
    def engines(self) -> list[Engine]:
        return [self.engine]

    @property
    def file_reads(self) -> FileReads | None:
        return self.engine.dataplane.file_reads

    @property
    def packets_judged(self) -> int:
        judged: int = self.engine.dataplane.counters["packets"]
        return judged

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        return self.engine.dataplane.frames_before(batch, first, at_ns)

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        plane = self.engine.dataplane
        if not self.sinks.want_packets:
            plane.process_frames(batch, first=first, number=number)
        else:
            headers, results = self._rows_for(batch)
            before = self._take_unwritten()
            later = plane.jobs > 1 and batch.lasting
            plane.process_frames(batch, results, headers, first, number, later=later)
            self._unwritten = _Unwritten(self._next, batch, first, headers[:number], results[:number])
            self._next += number
            if before is not None:
                self._write(*before)
            if not later:
                self._write_packets()

    def _rows_for(self, batch: FrameBatch) -> tuple[Rows, Rows]:
        self._rows.reverse()
        rows = self._rows[0]
        if rows is None or len(rows[0]) < len(batch):
            rows = np.zeros(batch.capacity, dtype=HEADER_DTYPE), np.zeros(batch.capacity, dtype=RESULT_DTYPE)
            self._rows[0] = rows
        return rows

    def _write_packets(self) -> None:
        before = self._take_unwritten()
        if before is not None:
            self._write(*before)

    def _take_unwritten(self) -> tuple[_Unwritten, Rows] | None:
        """Take packets not written yet, and results of pending packets. Waits until all packets are judged."""
        if self._unwritten is None:
            return None
        unwritten = self._unwritten, self.engine.dataplane.take_resolved()
        self._unwritten = None
        return unwritten

    def _write(self, packets: _Unwritten, resolved: Rows) -> None:
        self._reordered.write(
            packets.number, packets.batch, packets.first, packets.headers, packets.results, resolved
        )

    def flush(self) -> None:
        self._write_packets()
        if self.sinks.flows:
            self.sinks.write_flows(self.engine.dataplane.take_flows())

    def apply(self, change: TimedChange) -> ChangeDone:
        # Write first the connections that ended before the change, then those that the change ends. Both use the names
        # from before the change.
        self.flush()
        number = self.engine.dataplane.counters["changes"]
        applied = self.engine.apply(change.change, change.time_ns)
        change_done = ChangeDone(
            change.time_ns, change.text, applied.disconnected, 0, 0, 0, number=number if applied.disconnected else -1,
            finished=0,
        )  # fmt: skip
        self.flush()
        self._begin_sinks()
        return change_done

    def finish(self, *, goes_on: bool) -> None:
        self._reordered.resolve(self.engine.dataplane.take_resolved(everything=True))
        finish_flows(self.engine.dataplane, self.sinks, goes_on=goes_on)

    def fill(self, result: ReplayResult) -> None:
        engine, plane = self.engine, self.engine.dataplane
        counters = plane.counters
        numbering = engine.compiled.numbering
        # A frame of a flow log stands for several packets, or for none.
        result.packets, result.bytes = sum(counters["verdicts"]), counters["bytes"]
        result.verdicts = dict(zip(VERDICTS[:PENDING], counters["verdicts"], strict=False))
        result.reasons = {
            word: n for word, n in zip(REASONS, counters["reasons"], strict=True) if n and word is not None
        }
        result.connections = {
            "opened": counters["opened"], "denied": counters["denied"],
            "disconnected": counters["disconnected"], "inferred": counters["inferred"],
        }  # fmt: skip
        result.rules = [
            RuleHits(rule, group, int(count["connections"]), int(count["packets"]), int(count["bytes"]))
            for rule, group, count in zip(numbering.rules, numbering.rule_groups, plane.rule_counts, strict=True)
        ]
        result.first_time_ns, result.last_time_ns = counters["first_ns"], counters["last_ns"]
        result.kinds = kinds_of(engine)
        result.observed = replace(
            observed_by(plane), elsewhere=elsewhere_of(engine), isolated=isolated_by(engine)
        )  # fmt: skip
        result.oddities = Oddities(
            counters["late"], counters["most_late_ns"], counters["restarts"], counters["fragments_denied"],
            counters["evicted"], counters["moot_evicted"], counters["lost_flows"], self._follow_cuts(result),
        )  # fmt: skip

    def _follow_cuts(self, result: ReplayResult) -> int:
        """Add to each change the later packets of the connections it cut. Return how many cuts could not be
        followed."""
        rows, not_followed = self.engine.dataplane.cuts
        for change in result.changes:
            if change.number < 0:
                continue
            cut_rows = rows[rows["change"] == change.number]
            change.came_back = int((cut_rows["fate"] == _OUTCOMES.index("back")).sum())
            change.denied_again = int((cut_rows["fate"] == _OUTCOMES.index("denied")).sum())
            change.packets_after = int(cut_rows["packets"].sum())
            change.finished = int(cut_rows["finished"].sum())
            change.connections = tuple(self._cut_connection(row) for row in _listed(cut_rows))
        return int(not_followed)

    def _cut_connection(self, row: Any) -> CutConnection:
        length = 16 if row["family"] == 6 else 4
        initiator, responder = (str(ip_address(row[end][:length].tobytes())) for end in ("initiator", "responder"))
        ports, icmp = int(row["ports"]), int(row["icmp"])
        has_ports = bool(row["has_ports"])
        is_icmp = row["protocol"] == (ICMPV6 if row["family"] == 6 else ICMP)
        outcome = _OUTCOMES[row["fate"]]
        rules = [self.engine.rules[n].id if n >= 0 else None for n in row["rule"].tolist()]
        return CutConnection(
            int(row["protocol"]), initiator, responder,
            ports >> 16 if has_ports else None, ports & 0xFFFF if has_ports else None,
            icmp >> 8 if is_icmp else None, icmp & 255 if is_icmp else None,
            bool(row["finished"]), int(row["packets"]), outcome,
            None if outcome == "never" else int(row["again_ns"]), bool(row["turned"]), *rules,
        )  # fmt: skip


def finish_flows(plane: AccountingPlane, sinks: Sinks, *, goes_on: bool) -> None:
    """End the open connections, in portions. Write them, unless the replay ``goes_on``: then a later replay does so."""
    is_finished = False
    while not is_finished:
        is_finished = plane.finish(most=FLOWS_AT_ONCE)
        if sinks.flows:
            flows = plane.take_flows()
            if not goes_on:
                sinks.write_flows(flows)


def _listed(cuts: Rows) -> Rows:
    """Return the cuts to list, sorted: most packets first, then unfinished ones, then lower addresses."""
    packets = cuts["packets"].astype(np.int64)
    if len(cuts) > LISTED_CUTS:
        enough = packets >= np.partition(packets, -LISTED_CUTS)[-LISTED_CUTS]
        cuts, packets = cuts[enough], packets[enough]
    ends = [np.ascontiguousarray(cuts[end]).view(">u8") for end in ("responder", "initiator")]
    words = [end[:, word] for end in ends for word in (1, 0)]
    kinds = [cuts[name] for name in ("icmp", "ports", "protocol", "family")]
    listed: Rows = cuts[np.lexsort((*kinds, *words, cuts["finished"], -packets))][:LISTED_CUTS]
    return listed
