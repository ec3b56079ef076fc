"""Captures through an engine: the main job. Files in, totals out; what to write of it is up to ``report``.

    capture.open_capture --FrameBatch--> engine --arrays--> sinks (one row a packet, one row a connection)
                                           \\--counters--> ReplayResult
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sgfast.capture import Damage, open_capture
from sgfast.compiler import Numbering
from sgfast.core.dataplane import HEADER_DTYPE, RESULT_DTYPE
from sgfast.core.frames import FrameBatch
from sgfast.engine import NO_SIDE, REASONS, VERDICTS, Engine, Midstream, Mode
from sgfast.policy.change_file import ChangeFile, TimedChange, load_changes
from sgfast.policy.document import load_policy
from sgfast.policy.model import Policy, Rule
from sgfast.reference import PacketVerdict, ReferenceEngine, SideVerdict

Rows = NDArray[Any]

#: How many of the connections still open at the end are reported in one go.
FLOWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in rows mean."""

    #: By instance number.
    instances: Sequence[str]
    #: By rule number.
    rules: Sequence[str]
    #: Packed address (4 or 16 bytes) to instance number, or -1.
    owner_of: Callable[[bytes], int]


class PacketSink(Protocol):
    """Takes every packet's headers (HEADER_DTYPE) and result (RESULT_DTYPE), in order.

    ``begin`` comes before the first packet, and again when the policy has changed; numbers keep their meaning. Arrays
    are only good until ``write`` returns.
    """

    def begin(self, names: Names) -> None: ...

    def write(self, headers: Rows, results: Rows) -> None: ...


class FlowSink(Protocol):
    """Takes every connection and denied attempt once it ended (FLOW_DTYPE)."""

    def begin(self, names: Names) -> None: ...

    def write(self, flows: Rows) -> None: ...


@dataclass(frozen=True, slots=True)
class RuleHits:
    """What one rule did. ``packets``: those judged by it, replies included (SPEC 10.2)."""

    rule: Rule
    group: str
    connections: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Service:
    """A protocol and its port or ICMP type, at one instance."""

    instance: str
    protocol: int
    port: int | None
    icmp_type: int | None
    icmp_code: int | None


@dataclass(frozen=True, slots=True)
class Denied:
    """Denied packets of one kind: which instance's filter, which way, which service, which peer, why."""

    service: Service
    direction: Literal["inbound", "outbound"]
    peer: str
    #: The instance that owns the peer's address, or None.
    peer_name: str | None
    reason: str
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Broken:
    """Connections the groups deny though the other end answered them in the capture: what would break."""

    service: Service
    direction: Literal["inbound", "outbound"]
    peer: str
    peer_name: str | None
    reason: str
    connections: int


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Connections the groups allow that an instance refused, or never answered (SPEC 10.4)."""

    service: Service
    answer: Literal["refused", "silent"]
    connections: int


@dataclass(frozen=True, slots=True)
class ChangeDone:
    """A change of the policy during the replay (SPEC 6)."""

    #: On the replay's clock (SPEC 9.1).
    at_ns: int
    #: The operation and whom it concerns.
    text: str
    #: Connections it disconnected; one between two instances counts once.
    disconnected: int


@dataclass
class ReplayResult:
    """What a replay found. Times are nanoseconds since the Unix epoch, None where there was no packet."""

    policy: Policy
    mode: Mode
    midstream: Midstream
    vpc: str | None
    captures: tuple[str, ...]
    engine: Literal["fast", "reference"] = "fast"
    packets: int = 0
    #: On the wire.
    bytes: int = 0
    #: By SPEC's words, every verdict present.
    verdicts: dict[str, int] = field(default_factory=dict)
    #: By SPEC's words, only those that came up.
    reasons: dict[str, int] = field(default_factory=dict)
    #: opened, denied, disconnected, inferred; one between two instances counts once.
    connections: dict[str, int] = field(default_factory=dict)
    rules: list[RuleHits] = field(default_factory=list)
    #: Of the packets' own times; the replay's clock (SPEC 9.1) never runs backwards, they may.
    first_time_ns: int | None = None
    last_time_ns: int | None = None
    #: Reading and judging, not start-up.
    elapsed_seconds: float = 0.0
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)
    #: Most packets first; at most ``core.tally``'s number of kinds, the rest is in ``denied_others``.
    denied: list[Denied] = field(default_factory=list)
    denied_others: int = 0
    broken: list[Broken] = field(default_factory=list)
    unanswered: list[Unanswered] = field(default_factory=list)
    #: In the order they took effect; those of the last packet's time and later are not there.
    changes: list[ChangeDone] = field(default_factory=list)
    #: Changes that the captures ended before.
    changes_left: int = 0

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0


def replay(
    policy: Policy | str | os.PathLike[str],
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    mode: Mode = "causal",
    midstream: Midstream = "infer",
    vpc: str | None = None,
    engine: Literal["fast", "reference"] = "fast",
    packets: PacketSink | None = None,
    flows: FlowSink | None = None,
    progress: Callable[[int, int], None] | None = None,
    changes: ChangeFile | str | os.PathLike[str] | None = None,
) -> ReplayResult:
    """Judges every packet of ``captures`` (a path, or several), one replay in the order given; ``-`` is standard input.

    ``engine="reference"`` runs the slow model instead, which knows no connection report. ``progress`` is called with
    (packets, bytes read) so far, all captures together, now and then. Damage part way ends the replay there: what came
    before is in the result. ``changes``: a change file (SPEC 9.5), or its path; it is checked whole before any packet
    is judged.

    Raises PolicyError, CaptureError; ValueError for an unknown option.
    """
    if isinstance(policy, str | os.PathLike):
        policy = load_policy(policy)
    if isinstance(captures, str | os.PathLike | bytes):
        captures = [captures]
    if isinstance(changes, str | os.PathLike):
        changes = load_changes(changes)
    paths = tuple(os.fsdecode(path) for path in captures)
    runner: _FastRunner | _ReferenceRunner
    if engine == "fast":
        runner = _FastRunner(policy, mode, midstream, vpc, packets, flows)
    elif engine == "reference":
        if flows is not None:
            raise ValueError("the reference model makes no connection report: use the fast engine")
        runner = _ReferenceRunner(policy, mode, midstream, vpc, packets)
    else:
        raise ValueError(f"engine is 'fast' or 'reference', not {engine!r}")

    timeline = _Timeline(policy, changes, runner)
    result = ReplayResult(policy, mode, midstream, vpc, paths, engine, warnings=list(policy.warnings))
    for path in paths:
        # What is wrong with a file is told before anything is judged. A pipe can be opened only once.
        if os.path.isfile(path):
            open_capture(path).close()
    packets_before = bytes_before = 0
    began = time.perf_counter()
    for path in paths:
        with open_capture(path) as reader:
            while (batch := reader.next_batch()) is not None:
                timeline.process(batch)
                if progress is not None:
                    progress(packets_before + reader.packets, bytes_before + reader.bytes_read)
            packets_before += reader.packets
            bytes_before += reader.bytes_read
            if reader.damage is not None:
                result.damaged = reader.damage
                break
    timeline.finish()
    runner.finish()
    result.elapsed_seconds = time.perf_counter() - began
    runner.fill(result)
    result.changes, result.changes_left = timeline.done, len(timeline.pending)
    return result


class _Timeline:
    """Hands batches to a runner, cut where a change of the policy comes between two packets (SPEC 6.1)."""

    def __init__(self, policy: Policy, changes: ChangeFile | None, runner: _FastRunner | _ReferenceRunner) -> None:
        self._policy = policy
        self._file = changes
        self._runner = runner
        self.pending: deque[TimedChange] = deque()
        self.done: list[ChangeDone] = []

    def process(self, batch: FrameBatch) -> None:
        if self._file is not None:
            self._resolve(next(iter(batch))[0])
        first = 0
        while self.pending:
            change = self.pending[0]
            number = self._runner.frames_before(batch, first, change.at_ns)
            if number == len(batch) - first:
                break
            self._runner.process(batch, first, number)
            first += number
            disconnected = self._runner.apply(change)
            self.done.append(ChangeDone(change.at_ns, change.text, disconnected))
            self.pending.popleft()
        self._runner.process(batch, first, len(batch) - first)

    def finish(self) -> None:
        if self._file is not None:
            self._resolve(0)        # no packet came; still the file must be right

    def _resolve(self, first_ns: int) -> None:
        assert self._file is not None
        self.pending.extend(self._file.resolve(self._policy, first_ns))
        self._file = None


class _FastRunner:
    def __init__(
        self,
        policy: Policy,
        mode: Mode,
        midstream: Midstream,
        vpc: str | None,
        packets: PacketSink | None,
        flows: FlowSink | None,
    ) -> None:
        self.engine = Engine(
            policy, mode=mode, midstream=midstream, vpc=vpc, keep_flows=flows is not None, reporting=True
        )
        self.packets = packets
        self.flows = flows
        self.headers: Rows | None = None
        self.results: Rows | None = None
        self._begin_sinks()

    def _begin_sinks(self) -> None:
        compiled = self.engine.compiled
        names = Names(
            [instance.name for instance in compiled.instances],
            [rule.id for rule in compiled.rules],
            compiled.classifier.owner_of,
        )
        for sink in (self.packets, self.flows):
            if sink is not None:
                sink.begin(names)

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        return self.engine.dataplane.frames_before(batch, first, at_ns)

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        plane = self.engine.dataplane
        if self.packets is None:
            plane.process_frames(batch, first=first, number=number)
        else:
            if self.headers is None or self.results is None or len(self.headers) < len(batch):
                self.headers = np.zeros(batch.capacity, dtype=HEADER_DTYPE)
                self.results = np.zeros(batch.capacity, dtype=RESULT_DTYPE)
            plane.process_frames(batch, self.results, self.headers, first, number)
            self.packets.write(self.headers[:number], self.results[:number])
        if self.flows is not None:
            self.flows.write(plane.take_flows())

    def apply(self, change: TimedChange) -> int:
        disconnected = self.engine.apply(change.change, change.at_ns).disconnected
        if self.flows is not None:
            # What ended with the change still bears the names from before it.
            self.flows.write(self.engine.dataplane.take_flows())
        self._begin_sinks()
        return disconnected

    def finish(self) -> None:
        plane = self.engine.dataplane
        done = False
        while not done:
            done = plane.finish(most=FLOWS_AT_ONCE)
            if self.flows is not None:
                self.flows.write(plane.take_flows())

    def fill(self, result: ReplayResult) -> None:
        engine, plane = self.engine, self.engine.dataplane
        counters = plane.counters
        numbering = engine.compiled.numbering
        result.packets, result.bytes = counters["packets"], counters["bytes"]
        result.verdicts = dict(zip(VERDICTS, counters["verdicts"], strict=True))
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
        rows, result.denied_others = plane.denials
        result.denied = sorted(
            (self._denied(row) for row in rows),
            key=lambda d: (-d.packets, *_order(d.service, d.peer, d.direction, d.reason)),
        )
        result.broken = sorted(
            (self._broken(row) for row in plane.broken[0]),
            key=lambda b: (-b.connections, *_order(b.service, b.peer, b.direction, b.reason)),
        )
        unanswered: tuple[tuple[Literal["refused", "silent"], Rows], ...] = (
            ("refused", plane.refused[0]),
            ("silent", plane.unanswered[0]),
        )
        for answer, rows in unanswered:
            result.unanswered += [Unanswered(self._service(row), answer, int(row["packets"])) for row in rows]
        result.unanswered.sort(key=lambda u: (-u.connections, *_order(u.service, u.answer)))
        _warn_of_time(result, counters["late"], counters["restarts"])
        _warn_of_fragments(result, counters["later_fragments"])
        if counters["evicted"] or counters["moot_evicted"]:
            result.warnings.append(
                f"the connection table was full: {_count(counters['evicted'], 'unanswered connection')} and "
                f"{_count(counters['moot_evicted'], 'denied attempt')} were forgotten early "
                f"(settings.max_connections is {result.policy.settings.max_connections})"
            )
        if counters["lost_flows"]:
            result.warnings.append(f"no memory to report {counters['lost_flows']} connections")

    def _service(self, row: Any) -> Service:
        key = int(row["port_key"])
        icmp = bool(row["has_icmp"])
        return Service(
            self.engine.instances[row["instance"]].name,
            int(row["protocol"]),
            key if row["has_ports"] else None,
            key >> 8 if icmp else None,
            key & 255 if icmp else None,
        )

    def _peer(self, row: Any) -> tuple[str, str | None]:
        packed = row["peer"][: 16 if row["family"] == 6 else 4].tobytes()
        owner = self.engine.compiled.classifier.owner_of(packed)
        return str(ip_address(packed)), self.engine.instances[owner].name if owner >= 0 else None

    def _denied(self, row: Any) -> Denied:
        direction: Literal["inbound", "outbound"] = "inbound" if row["inbound"] else "outbound"
        reason = REASONS[row["reason"]] or ""
        return Denied(
            self._service(row), direction, *self._peer(row), reason, int(row["packets"]), int(row["bytes"])
        )

    def _broken(self, row: Any) -> Broken:
        direction: Literal["inbound", "outbound"] = "inbound" if row["inbound"] else "outbound"
        reason = REASONS[row["reason"]] or ""
        return Broken(self._service(row), direction, *self._peer(row), reason, int(row["packets"]))


class _ReferenceRunner:
    """The reference model behind the same arrays. Slow; it counts totals and rules, but makes no lists."""

    def __init__(
        self, policy: Policy, mode: Mode, midstream: Midstream, vpc: str | None, packets: PacketSink | None
    ) -> None:
        self.engine = ReferenceEngine(policy, mode=mode, midstream=midstream, vpc=vpc)
        self.policy = policy
        self.packets = packets
        self.total_bytes = 0
        #: The earliest and the latest so far.
        self.times: list[int] = []
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.began: Counter[str] = Counter()
        self.created: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.hit_bytes: Counter[str] = Counter()
        self.disconnected = 0
        self._number(Numbering().after(policy))

    def _number(self, numbering: Numbering) -> None:
        self.numbering = numbering
        self.rule_number = {rule.id: n for n, rule in enumerate(numbering.rules)}
        self.instance_number = {instance.name: n for n, instance in enumerate(numbering.instances)}
        if self.packets is not None:
            self.packets.begin(Names(list(self.instance_number), list(self.rule_number), lambda packed: -1))

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        probe = copy(self.engine)       # its clock moves, the engine's does not
        for n, (time_ns, *_) in enumerate(islice(batch, first, None)):
            if probe._advance_clock(time_ns) >= at_ns:
                return n
        return len(batch) - first

    def apply(self, change: TimedChange) -> int:
        disconnected = self.engine.apply(change.change, change.at_ns).disconnected
        self.disconnected += disconnected
        # Like the engine's, apart from an instance that is deleted and comes back: to the reference that is one name.
        self._number(self.numbering.after(self.engine.policy))
        return disconnected

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        headers = np.zeros(number, dtype=HEADER_DTYPE)
        results = np.zeros(number, dtype=RESULT_DTYPE)
        for n, (time_ns, data, wire, link_type) in enumerate(islice(batch, first, first + number)):
            verdict = self.engine.process_frame(time_ns, data, wire_length=wire, link_type=link_type)
            self._count(verdict, wire)
            self.times = [min([time_ns, *self.times]), max([time_ns, *self.times])]
            if self.packets is not None:
                self._spell(verdict, time_ns, wire, headers[n], results[n])
        if self.packets is not None:
            self.packets.write(headers, results)

    def finish(self) -> None:
        pass

    def _count(self, verdict: PacketVerdict, wire: int) -> None:
        self.total_bytes += wire
        self.verdicts[verdict.verdict] += 1
        if verdict.reason is not None:
            self.reasons[verdict.reason] += 1
        if verdict.began is not None:
            self.began[verdict.began] += 1
        self.created.update(verdict.created)
        for side in (verdict.egress, verdict.ingress):
            if side is not None and side.rule is not None:
                self.hits[side.rule] += 1
                self.hit_bytes[side.rule] += wire

    def _spell(self, verdict: PacketVerdict, time_ns: int, wire: int, header: Any, result: Any) -> None:
        header["time_ns"], header["wire"] = time_ns, wire
        if verdict.src is not None and verdict.dst is not None:
            for name, text in (("src", verdict.src), ("dst", verdict.dst)):
                packed = ip_address(text).packed
                header[name][: len(packed)] = np.frombuffer(packed, dtype=np.uint8)
                header["family"] = 4 if len(packed) == 4 else 6
        header["protocol"] = verdict.protocol or 0
        if verdict.sport is not None:
            header["has_ports"], header["sport"], header["dport"] = 1, verdict.sport, verdict.dport
        if verdict.icmp_type is not None:
            header["has_icmp"], header["icmp_type"], header["icmp_code"] = 1, verdict.icmp_type, verdict.icmp_code
        result["verdict"] = VERDICTS.index(verdict.verdict)
        result["reason"] = REASONS.index(verdict.reason)
        for name, side in (("egress", verdict.egress), ("ingress", verdict.ingress)):
            result[name] = self._side(side)

    def _side(self, side: SideVerdict | None) -> tuple[int, int, int, int, int]:
        if side is None:
            return -1, -1, NO_SIDE, 0, 0
        rule = self.rule_number[side.rule] if side.rule is not None else -1
        return (
            self.instance_number[side.instance], rule, VERDICTS.index(side.verdict), REASONS.index(side.reason), 0
        )  # fmt: skip

    def fill(self, result: ReplayResult) -> None:
        result.packets, result.bytes = sum(self.verdicts.values()), self.total_bytes
        result.verdicts = {word: self.verdicts[word] for word in VERDICTS}
        result.reasons = {word: self.reasons[word] for word in REASONS if word is not None and self.reasons[word]}
        result.connections = {
            "opened": self.began["opened"], "denied": self.began["denied"], "disconnected": self.disconnected,
            "inferred": self.began["inferred"],
        }  # fmt: skip
        result.rules = [
            RuleHits(rule, group, self.created[rule.id], self.hits[rule.id], self.hit_bytes[rule.id])
            for rule, group in zip(self.numbering.rules, self.numbering.rule_groups, strict=True)
        ]
        result.first_time_ns = min(self.times, default=None)
        result.last_time_ns = max(self.times, default=None)
        _warn_of_time(result, self.engine.late, self.engine.restarts)
        _warn_of_fragments(result, self.reasons["fragment"])


def _order(service: Service, *words: str) -> tuple[Any, ...]:
    """Rows with equal counts come in the same order every time; the hash table they come from has none."""
    numbers = (service.protocol, service.port, service.icmp_type, service.icmp_code)
    return service.instance, *(-1 if number is None else number for number in numbers), *words


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _warn_of_time(result: ReplayResult, late: int, restarts: int) -> None:
    if late:
        result.warnings.append(
            f"timestamps of {_count(late, 'packet')} up to 60 s before the one before: taken as simultaneous"
        )
    if restarts:
        result.warnings.append(
            f"timestamps of {_count(restarts, 'packet')} more than 60 s before the one before: time went on from there "
            "without a gap"
        )


def _warn_of_fragments(result: ReplayResult, later_fragments: int) -> None:
    if later_fragments:
        result.warnings.append(
            f"{_count(later_fragments, 'later fragment')} denied: fragments are not joined yet, only first ones are "
            "judged"
        )
