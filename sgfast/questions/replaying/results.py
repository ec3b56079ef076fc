"""The result of a replay, and the interfaces of sinks, which receive its packets and connections as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from sgfast.base.evidence import Evidence, EvidenceReason
from sgfast.base.names import count
from sgfast.base.notebook import Shown, html_doubts, html_table, html_text
from sgfast.core.base.frames import FrameBatch
from sgfast.core.base.reasons import ReasonWord
from sgfast.policy.expectations import Expectation
from sgfast.policy.model import Policy, Rule
from sgfast.policy.timestamps import MAX_TIME_NS, OUT_OF_RANGE
from sgfast.questions.replaying.evidence import NOT_JUDGED
from sgfast.questions.replaying.judged_traffic import JudgedTraffic
from sgfast.questions.replaying.kinds import Kinds
from sgfast.questions.replaying.listed_kinds import (
    Broken,
    Denied,
    Unanswered,
    listed_broken,
    listed_denials,
    listed_unanswered,
    unlisted_denials,
)
from sgfast.questions.replaying.tables import KeptRows, ReplayTables
from sgfast.rows.verdicts import VerdictWord
from sgfast.rules.compiler import Numbering, visible_instances

Rows = NDArray[Any]
#: The fate of connections that a replay counts.
ConnectionWord = Literal["opened", "denied", "disconnected", "inferred"]

#: The maximum number of connections listed for one change.
LISTED_CUTS = 1000


@dataclass(frozen=True, slots=True)
class Names:
    """The names of instances and rules, by the numbers in rows.

    ``instances``: names by instance number.
    ``rules``: names by rule number.
    ``packets``: the number of packets judged before these names apply.
    ``present``: the numbers of the instances that currently exist and are visible (SPEC 7.1).
    ``groups``: by instance number, the security groups when the replay began, or when a change added the instance.
    """

    instances: Sequence[str]
    rules: Sequence[str]
    packets: int
    present: Sequence[int] = ()
    groups: Sequence[Sequence[str]] = ()

    @classmethod
    def of(cls, policy: Policy, vpc: str | None, numbering: Numbering, packets: int) -> Names:
        """Return the names of the rules and instances of a policy."""
        present = numbering.of_names(policy.instances[n].name for n in visible_instances(policy, vpc))
        instances = [instance.name for instance in numbering.instances]
        rules = [rule.id for rule in numbering.rules]
        return cls(instances, rules, packets, present, numbering.instance_groups)


@runtime_checkable
class PacketSink(Protocol):
    """Receive every packet's headers (``HEADER_DTYPE``) and result (``RESULT_DTYPE``), in order.

    ``begin`` is called before the first packet and after each change of the policy. The numbers in rows keep their
    meaning. The arrays are valid only until ``write`` returns.

    For example:

        class Denials:
            def begin(self, names):
                self.names = names

            def write(self, headers, results):
                for row in results[results["verdict"] == sgfast.VERDICTS.index("deny")]:
                    print(sgfast.REASONS[row["reason"]], self.names.instances[row["ingress"]["instance"]])

        sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", packets=Denials())
    """

    def begin(self, names: Names) -> None:
        """Take the names that the numbers in rows stand for."""

    def write(self, headers: Rows, results: Rows) -> None:
        """Take some packets."""


@runtime_checkable
class FrameSink(Protocol):
    """Receive packets like a ``PacketSink``, and their frames: those of ``batch`` from ``first`` on, one for each
    row."""

    def begin(self, names: Names) -> None:
        """Take the names that the numbers in rows stand for."""

    def write(self, batch: FrameBatch, first: int, headers: Rows, results: Rows) -> None:
        """Take some packets."""


@runtime_checkable
class FlowSink(Protocol):
    """Receive every connection and denied attempt once it has ended.

    Rows have the type ``sgfast.core.dtypes.FLOW_DTYPE``, which may change with any release. ``tables="connections"`` of
    ``replay`` gives the same as a table, whose columns stay.
    """

    def begin(self, names: Names) -> None:
        """Take the names that the numbers in rows stand for."""

    def write(self, flows: Rows) -> None:
        """Take some connections."""


@runtime_checkable
class _RecordSink(PacketSink, Protocol):
    """Receive packets of flow logs, and how many packets each stands for."""

    def write_records(self, headers: Rows, results: Rows, packets: Sequence[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Sinks:
    """The sinks of a replay. Sinks of one kind are called in the order given. ``with_rejections``: whether those for
    flows also receive the attempts that the cloud rejected, as flow logs tell.
    """

    packets: tuple[PacketSink, ...] = ()
    frames: tuple[FrameSink, ...] = ()
    flows: tuple[FlowSink, ...] = ()
    with_rejections: bool = False

    def and_kept(self, kept: KeptRows) -> Sinks:
        """Return these sinks together with those of ``kept``."""
        packets, frames, flows = kept.unplaced, kept.frames, kept.flows
        return Sinks(
            self.packets if packets is None else (*self.packets, packets),
            self.frames if frames is None else (*self.frames, frames),
            self.flows if flows is None else (*self.flows, flows),
            self.with_rejections,
        )

    @property
    def want_packets(self) -> bool:
        return bool(self.packets or self.frames)

    def begin(self, names: Names) -> None:
        sinks: list[PacketSink | FrameSink | FlowSink] = [*self.packets, *self.frames, *self.flows]
        for sink in sinks:
            sink.begin(names)

    def write_packets(self, batch: FrameBatch, first: int, headers: Rows, results: Rows) -> None:
        for sink in self.packets:
            if batch.is_of_records and isinstance(sink, _RecordSink):
                sink.write_records(headers, results, batch.packets(first, len(headers)))
            else:
                sink.write(headers, results)
        for frame_sink in self.frames:
            frame_sink.write(batch, first, headers, results)

    def write_flows(self, flows: Rows) -> None:
        for sink in self.flows:
            sink.write(flows)


@dataclass(frozen=True, slots=True)
class RuleHits:
    """Use of one rule. ``packets`` includes replies (SPEC 10.2).

    ``rule``: the rule.
    ``group``: the name of the security group.
    ``connections``: the number of connections that it allowed or denied.
    ``packets``: the number of packets that it decided, replies included.
    ``bytes``: their bytes on the wire.
    """

    rule: Rule
    group: str
    connections: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CutConnection:
    """A connection that a change cut, and its later packets (SPEC 6.3, 6.4, 6.13).

    ``protocol``: the IP protocol number.
    ``initiator``: the address that opened the connection.
    ``responder``: the address that the connection was opened to.
    ``initiator_port``: the port of the initiator; None if the protocol has no ports.
    ``responder_port``: the port of the responder; None if the protocol has no ports.
    ``icmp_type``: the ICMP type; None for other protocols.
    ``icmp_code``: the ICMP code; None for other protocols.
    ``finished``: whether the connection was already closed or reset, though not yet forgotten, so that the cut did no
    harm.
    ``packets_after``: the number of packets after the cut other than openers. If the change is real, they are at most
    retransmissions.
    ``outcome``: ``back``: after the cut, an opener with the same addresses and ports was allowed; ``denied``: such an
    opener was denied; ``never``: no such opener was sent.
    ``opener_time_ns``: the time of the allowed opener, or else of the first denied one.
    ``turned``: whether the allowed opener was sent by the other end.
    ``egress_rule``: the rule that allowed the new opener at the egress side; None if no rule did.
    ``ingress_rule``: the rule that allowed the new opener at the ingress side; None if no rule did.
    """

    protocol: int
    initiator: str
    responder: str
    initiator_port: int | None
    responder_port: int | None
    icmp_type: int | None
    icmp_code: int | None
    finished: bool
    packets_after: int
    outcome: Literal["back", "denied", "never"]
    opener_time_ns: int | None
    turned: bool
    egress_rule: str | None
    ingress_rule: str | None


@dataclass(slots=True)
class ChangeDone:
    """A change of the policy during the replay (SPEC 6).

    ``time_ns``: the time on the replay's clock (SPEC 9.1).
    ``text``: the operation and its object.
    ``disconnected``: the number of connections that the change disconnected or forgot. Connections between two
    instances count once.
    ``came_back``: the number of cut connections that came back. None: cut connections were not followed.
    ``denied_again``: the number of those whose new openers were all denied. None: not followed.
    ``packets_after``: the number of their packets after the cut. None: not followed.
    ``connections``: at most ``LISTED_CUTS`` cut connections; those with most packets after the cut come first.
    ``number``: the change's number among the engine's changes if it cut a connection, else -1.
    ``finished``: the number of cut connections that were already closed or reset, so that nothing was lost. None: not
    followed.
    """

    time_ns: int
    text: str
    disconnected: int
    came_back: int | None = None
    denied_again: int | None = None
    packets_after: int | None = None
    connections: tuple[CutConnection, ...] = ()
    number: int = -1
    finished: int | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a replay on a cluster.

    ``name``: the stage.
    ``tasks``: the number of its tasks.
    ``elapsed_seconds``: the seconds from start to end.
    ``task_seconds``: the sum of the seconds of all tasks.
    ``packets``: the number of packets.
    ``bytes_moved``: the bytes written to storage or read from it, except the captures.
    """

    name: Literal["index", "read", "judge", "gather"]
    tasks: int
    elapsed_seconds: float
    task_seconds: float
    packets: int
    bytes_moved: int


@dataclass(frozen=True, slots=True)
class ClusterUsed:
    """The cluster that a replay ran on, and the duration of the replay's stages.

    ``scheduler``: the address of the scheduler.
    ``workers``: the number of workers.
    ``shards``: the number of parts into which the packets were divided.
    ``stages``: the stages, in the order in which they ran.
    ``segments_found``: the number of segments reused from an earlier replay.
    """

    scheduler: str
    workers: int
    shards: int
    stages: tuple[Stage, ...]
    segments_found: int


@dataclass(frozen=True, slots=True)
class Contradicted:
    """An expectation, and the number of a replay's connections whose verdict is not the expected one.

    ``expectation``: the expectation.
    ``connections``: the number of connections with the other verdict.
    """

    expectation: Expectation
    connections: int


@dataclass(frozen=True, slots=True)
class Expected:
    """Comparison of a replay's connections with an expectations file (SPEC 10.25).

    ``origin``: the name of the expectations file, for messages.
    ``meant``: the number of connections that the other end answered, and that are denied as expected.
    ``contradicted``: contradicted expectations in the order of the file.
    ``doubts``: reasons why the file says less than its author may think (SPEC 10.27).
    """

    origin: str
    meant: int
    contradicted: tuple[Contradicted, ...]
    doubts: tuple[EvidenceReason, ...] = ()


@dataclass
class ReplayResult(JudgedTraffic, Shown):
    """Result of a replay. Times are nanoseconds since the Unix epoch; None if there was no packet.

    ``policy``: the policy that the answer is about.
    ``engine``: the engine that judged.
    ``verdicts``: the number of packets by verdict, in the words of SPEC 10.2; every verdict is present.
    ``reasons``: the number of packets by reason, in the words of SPEC 10.3; only reasons that occurred.
    ``connections``: the numbers of opened, denied, disconnected and inferred connections. Connections between two
    instances count once.
    ``rules``: the use of each rule.
    ``earlier_packets``: the number of packets judged by earlier replays, up to the snapshot that this replay began
    with.
    ``kinds``: allowed and denied traffic by its ends, which ``sgfast.report.rollup`` summarises; empty with the
    reference engine.
    ``expected``: the comparison with an expectations file; None if there is none.
    ``changes``: the changes in the order in which they took effect.
    ``changes_left``: the number of changes after the last packet, which had no effect.
    ``cluster``: the cluster that the replay ran on; None if it did not run on one.
    ``oddities``: facts that users should know although they are no errors.
    ``rejected``: the same policy's answer about the attempts that the cloud rejected, as flow logs tell of them: what
    it allows would open. None if there are none.
    ``kept``: packets and connections that the caller asked for with ``tables``.
    """

    policy: Policy
    engine: Literal["fast", "reference"] = "fast"
    verdicts: dict[VerdictWord, int] = field(default_factory=dict)
    reasons: dict[ReasonWord, int] = field(default_factory=dict)
    connections: dict[ConnectionWord, int] = field(default_factory=dict)
    rules: list[RuleHits] = field(default_factory=list)
    earlier_packets: int = 0
    kinds: Kinds = field(default_factory=Kinds)
    expected: Expected | None = None
    changes: list[ChangeDone] = field(default_factory=list)
    changes_left: int = 0
    cluster: ClusterUsed | None = None
    oddities: Oddities = field(default_factory=lambda: Oddities())
    rejected: ReplayResult | None = None
    kept: KeptRows | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {word}" for word, number in self.verdicts.items() if number)
        return f"<ReplayResult of {', '.join(self.captures)}: {count(self.packets, 'packet')}{counts and ', '}{counts}>"

    @property
    def evidence(self) -> Evidence:
        """Reasons to doubt the answer that the captured traffic gives (SPEC 10.27)."""
        # Computed at each access, as `hold_against` may change `expected` after the first one.
        judged = sum(packets for verdict, packets in self.verdicts.items() if verdict not in NOT_JUDGED)
        connections = sum(self.connections.get(word, 0) for word in ("opened", "denied", "inferred"))
        evidence = self._evidence_for(self.policy, lambda word: self.verdicts.get(word, 0), judged, connections)
        doubts = () if self.expected is None else self.expected.doubts
        return Evidence.of([*evidence.reasons, *doubts]).accepting(self.accepted_evidence)

    @property
    def tables(self) -> ReplayTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.9)."""
        hits = [
            (rule_hits.rule, rule_hits.group, rule_hits.connections, rule_hits.packets, rule_hits.bytes)
            for rule_hits in self.rules
        ]
        return ReplayTables(self.policy, self.kinds, hits, self.kept)

    @property
    def denied(self) -> list[Denied]:
        """Denials with most packets first. The number of kinds is limited; ``denied_others`` counts further packets."""
        return listed_denials(self.kinds)

    @property
    def denied_others(self) -> int:
        """The number of denied packets for which ``denied`` had no room."""
        return self.kinds.lost + unlisted_denials(self.kinds)

    @property
    def broken(self) -> list[Broken]:
        """Kinds of connections that would break, those with most connections first."""
        return listed_broken(self.kinds)

    @property
    def unanswered(self) -> list[Unanswered]:
        """Kinds of connections that nobody answered, those with most connections first."""
        return listed_unanswered(self.kinds)

    def _empty_part(self, vpc: str | None) -> ReplayResult:
        """Return an empty result for the part of this replay seen from ``vpc``."""
        return ReplayResult(
            self.policy, mode=self.mode, midstream=self.midstream, vpc=vpc, captures=self.captures
        )

    def _repr_html_(self) -> str:
        counts = [(f"packets: {verdict}", number) for verdict, number in self.verdicts.items() if number]
        counts += [(f"connections: {word}", number) for word, number in self.connections.items()]
        table = html_table(("of " + ", ".join(self.captures), "number"), [("packets", self.packets), *counts])
        html = html_doubts(self.evidence) + table
        breaks = self.tables.would_break
        if not len(breaks):
            if self.engine == "reference" or not self.evidence.carries("verdicts", "answers"):
                return html + html_text("Nobody can tell from these captures whether a connection would break.")
            return html + html_text("No connection that was answered in the captures would break.")
        return html + html_text("What would break:") + breaks._repr_html_()

    @property
    def packets_per_second(self) -> float:
        """The packets that this replay judged in a second; 0 if it took no time."""
        return (self.packets - self.earlier_packets) / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Oddities:
    """Facts that users should know although they are no errors. ``+`` adds the oddities of a replay's parts.

    ``late``: the number of packets whose timestamps ran backwards by up to 60 s (SPEC 9.1).
    ``most_late_ns``: the most nanoseconds that one of these timestamps ran backwards.
    ``restarts``: the number of packets whose timestamps ran backwards by more than 60 s.
    ``fragments_denied``: the number of packets denied with the reason ``fragment`` (SPEC 9.4).
    ``evicted``: the number of unanswered tuples evicted because the connection table was full (SPEC 5.8).
    ``moot_evicted``: the number of moot tuples evicted for the same reason.
    ``lost_flows``: the number of connections that could not be reported for lack of memory.
    ``cuts_not_followed``: the number of cut connections that could not be followed.
    """

    late: int = 0
    most_late_ns: int = 0
    restarts: int = 0
    fragments_denied: int = 0
    evicted: int = 0
    moot_evicted: int = 0
    lost_flows: int = 0
    cuts_not_followed: int = 0

    def __add__(self, other: Oddities) -> Oddities:
        total = Oddities(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
        return replace(total, most_late_ns=max(self.most_late_ns, other.most_late_ns))

    def warn(self, result: ReplayResult) -> None:
        """Add warnings to a result that already has its times and policy."""
        warnings = result.warnings
        if self.cuts_not_followed:
            warnings.append(f"{count(self.cuts_not_followed, 'cut connection')} could not be followed further")
        warn_of_time(warnings, self, result.first_time_ns, result.last_time_ns)
        warn_of_fragments(warnings, self.fragments_denied)
        warn_of_room(warnings, self.evicted, self.moot_evicted, result.policy.settings.max_connections)
        if self.lost_flows:
            warnings.append(f"{count(self.lost_flows, 'connection')} could not be reported for lack of memory")


def warn_of_time(warnings: list[str], oddities: Oddities, first_ns: int | None, last_ns: int | None) -> None:
    """Warn of odd timestamps. ``first_ns`` and ``last_ns`` are the packets' earliest and latest timestamp."""
    if first_ns is not None and last_ns is not None and max(-first_ns, last_ns) >= MAX_TIME_NS - 1:
        warnings.append(f"a timestamp {OUT_OF_RANGE}: the end of the range was used instead")
    if oddities.late:
        seconds = f"{Decimal(oddities.most_late_ns).scaleb(-9).normalize():f}"
        warnings.append(
            f"{count(oddities.late, 'packet')} with a timestamp up to {seconds} s before that of an earlier packet: "
            "treated as simultaneous with it"
        )
    if oddities.restarts:
        warnings.append(
            f"{count(oddities.restarts, 'packet')} with a timestamp more than 60 s before that of an earlier packet: "
            "time went on from there without a gap"
        )


def warn_of_fragments(warnings: list[str], denied: int) -> None:
    """Warn of denied fragments. ``denied`` is the number of packets denied with the reason ``fragment`` (SPEC 9.4)."""
    if denied:
        warnings.append(
            f"{count(denied, 'fragment')} denied: the datagram's first fragment did not come in time (within 30 s, "
            "65,536 packets and 4,096 datagrams), or its fragments overlap"
        )


def warn_of_room(warnings: list[str], evicted: int, moot_evicted: int, most: int) -> None:
    """Warn of evicted tuples. ``most`` is ``settings.max_connections``."""
    if evicted or moot_evicted:
        warnings.append(
            f"the connection table was full: {count(evicted, 'unanswered connection')} and "
            f"{count(moot_evicted, 'denied attempt')} were forgotten early (settings.max_connections is {most})"
        )
