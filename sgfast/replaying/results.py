"""What a replay finds, and what takes the rest of it row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from sgfast.capture import Damage
from sgfast.compiler import Numbering, visible_instances
from sgfast.core.base.frames import FrameBatch
from sgfast.engine import Midstream, Mode
from sgfast.policy.model import Policy, Rule
from sgfast.policy.timestamps import MAX_TIME_NS, OUT_OF_RANGE
from sgfast.replaying.cutting import PacketsLeftOut

Rows = NDArray[Any]

#: Connections of one change that are told of one by one.
LISTED_CUTS = 1000


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in rows mean."""

    #: By instance number.
    instances: Sequence[str]
    #: By rule number.
    rules: Sequence[str]
    #: How many packets came before.
    packets: int
    #: Numbers of the instances that are there now, and in sight (SPEC 7.1).
    present: Sequence[int] = ()


class PacketSink(Protocol):
    """Takes every packet's headers (HEADER_DTYPE) and result (RESULT_DTYPE), in order.

    ``begin`` comes before the first packet, and again when the policy has changed; numbers keep their meaning. Arrays
    are only good until ``write`` returns.
    """

    def begin(self, names: Names) -> None: ...

    def write(self, headers: Rows, results: Rows) -> None: ...


class FrameSink(Protocol):
    """Takes what a ``PacketSink`` does, and the packets: frames of ``batch`` from ``first`` on, one for each row."""

    def begin(self, names: Names) -> None: ...

    def write(self, batch: FrameBatch, first: int, headers: Rows, results: Rows) -> None: ...


class FlowSink(Protocol):
    """Takes every connection and denied attempt once it ended (FLOW_DTYPE)."""

    def begin(self, names: Names) -> None: ...

    def write(self, flows: Rows) -> None: ...


@dataclass(frozen=True, slots=True)
class Sinks:
    """Who wants to know what of a replay; all of them are told in the order given."""

    packets: tuple[PacketSink, ...] = ()
    frames: tuple[FrameSink, ...] = ()
    flows: tuple[FlowSink, ...] = ()

    @property
    def want_packets(self) -> bool:
        return bool(self.packets or self.frames)

    def begin(self, names: Names) -> None:
        sinks: list[PacketSink | FrameSink | FlowSink] = [*self.packets, *self.frames, *self.flows]
        for sink in sinks:
            sink.begin(names)

    def write_packets(self, batch: FrameBatch, first: int, headers: Rows, results: Rows) -> None:
        for sink in self.packets:
            sink.write(headers, results)
        for frame_sink in self.frames:
            frame_sink.write(batch, first, headers, results)

    def write_flows(self, flows: Rows) -> None:
        for sink in self.flows:
            sink.write(flows)


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
class CutConnection:
    """A connection that a change disconnected, and what became of it (SPEC 6.3, 6.4)."""

    protocol: int
    initiator: str
    responder: str
    initiator_port: int | None
    responder_port: int | None
    icmp_type: int | None
    icmp_code: int | None
    #: It was closed or reset when it was cut, only not yet forgotten: nothing was lost.
    finished: bool
    #: Its packets that came after the cut and open nothing: in the changed world retransmissions at most.
    packets_after: int
    #: ``back``: an opener of the same addresses and ports was allowed; ``denied``: one came and was not; ``never``.
    outcome: Literal["back", "denied", "never"]
    #: When it came back, or first tried to.
    again_ns: int | None
    #: What came back was opened by the other end.
    turned: bool
    #: The rules it came back under, of the egress and the ingress side.
    egress_rule: str | None
    ingress_rule: str | None


@dataclass(slots=True)
class ChangeDone:
    """A change of the policy during the replay (SPEC 6)."""

    #: On the replay's clock (SPEC 9.1).
    at_ns: int
    #: The operation and whom it concerns.
    text: str
    #: Connections it disconnected; one between two instances counts once.
    disconnected: int
    #: How many of them came back, how many tried and were denied, their packets after the cut; None: not followed.
    came_back: int | None = None
    denied_again: int | None = None
    packets_after: int | None = None
    #: Most packets after the cut first; at most ``LISTED_CUTS``.
    connections: tuple[CutConnection, ...] = ()
    #: Which of the engine's changes it was, if it disconnected something.
    number: int = -1


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a replay on a cluster."""

    name: Literal["index", "read", "judge", "gather"]
    tasks: int
    #: From its beginning to its end, and of all its tasks together.
    elapsed_seconds: float
    task_seconds: float
    packets: int
    #: Written to storage or read from it, but for the captures.
    bytes_moved: int


@dataclass(frozen=True, slots=True)
class ClusterUsed:
    """Where a replay on a cluster ran, and how long what took."""

    scheduler: str
    workers: int
    shards: int
    stages: tuple[Stage, ...]
    #: Segments that an earlier replay had read.
    segments_found: int


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
    #: Of them, those of the replay this one goes on from.
    earlier_packets: int = 0
    #: Packets of the captures that are not among ``packets``; None: all of them were to be judged.
    left_out: PacketsLeftOut | None = None
    #: Reading and judging, not start-up; of this replay alone.
    elapsed_seconds: float = 0.0
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)
    #: Most packets first; at most ``core.tally``'s number of kinds, the rest is in ``denied_others``.
    denied: list[Denied] = field(default_factory=list)
    denied_others: int = 0
    broken: list[Broken] = field(default_factory=list)
    unanswered: list[Unanswered] = field(default_factory=list)
    #: In the order in which they took effect. Changes after the last packet took none.
    changes: list[ChangeDone] = field(default_factory=list)
    #: Changes that the captures ended before.
    changes_left: int = 0
    #: None: one process did it.
    cluster: ClusterUsed | None = None
    oddities: Oddities = field(default_factory=lambda: Oddities())
    #: Tunnels that this replay took off packets, by kind; None if it was to take off none.
    decapsulated: dict[str, int] | None = None

    def empty_part(self, vpc: str | None) -> ReplayResult:
        """The result of a part of this replay, of which nothing is known yet: what is seen from ``vpc``."""
        return ReplayResult(self.policy, self.mode, self.midstream, vpc, self.captures)

    @property
    def packets_per_second(self) -> float:
        return (self.packets - self.earlier_packets) / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0


def present_instances(policy: Policy, vpc: str | None, numbering: Numbering) -> list[int]:
    """``Names.present``, of the policy as it is now."""
    return numbering.of_names(policy.instances[n].name for n in visible_instances(policy, vpc))


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, slots=True)
class Oddities:
    """What people should know of a replay, though it is no error. Those of several parts of one add up."""

    #: Packets whose times ran backwards: a little, or more (SPEC 9.1).
    late: int = 0
    restarts: int = 0
    #: With the reason ``fragment`` (SPEC 9.4).
    fragments_denied: int = 0
    #: Tuples that made room for others (SPEC 5.8): never answered ones, and moot ones.
    evicted: int = 0
    moot_evicted: int = 0
    #: Connections that there was no memory to report.
    lost_flows: int = 0
    #: Disconnected connections that nobody followed.
    cuts_untold: int = 0

    def __add__(self, other: Oddities) -> Oddities:
        return Oddities(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def warn(self, result: ReplayResult) -> None:
        """Adds to the warnings of a result whose times and policy are known."""
        warnings = result.warnings
        if self.cuts_untold:
            warnings.append(f"what became of {count(self.cuts_untold, 'disconnected connection')} was not followed")
        warn_of_time(warnings, self.late, self.restarts, result.first_time_ns, result.last_time_ns)
        warn_of_fragments(warnings, self.fragments_denied)
        warn_of_room(warnings, self.evicted, self.moot_evicted, result.policy.settings.max_connections)
        if self.lost_flows:
            warnings.append(f"no memory to report {self.lost_flows} connections")


def warn_of_time(
    warnings: list[str], late: int, restarts: int, first_ns: int | None, last_ns: int | None
) -> None:  # fmt: skip
    """``first_ns``, ``last_ns``: of the packets' own times the earliest and the latest."""
    if first_ns is not None and last_ns is not None and max(-first_ns, last_ns) >= MAX_TIME_NS - 1:
        warnings.append(f"a timestamp {OUT_OF_RANGE}: taken as its end")
    if late:
        warnings.append(
            f"timestamps of {count(late, 'packet')} up to 60 s before the one before: taken as simultaneous"
        )
    if restarts:
        warnings.append(
            f"timestamps of {count(restarts, 'packet')} more than 60 s before the one before: time went on from there "
            "without a gap"
        )


def warn_of_fragments(warnings: list[str], denied: int) -> None:
    """``denied``: with the reason ``fragment`` (SPEC 9.4)."""
    if denied:
        warnings.append(
            f"{count(denied, 'fragment')} denied as such: the first of the datagram did not come soon enough (within "
            "30 s, 65,536 packets and 4,096 datagrams), or its fragments overlap"
        )


def warn_of_room(warnings: list[str], evicted: int, moot_evicted: int, most: int) -> None:
    """``most``: settings.max_connections."""
    if evicted or moot_evicted:
        warnings.append(
            f"the connection table was full: {count(evicted, 'unanswered connection')} and "
            f"{count(moot_evicted, 'denied attempt')} were forgotten early (settings.max_connections is {most})"
        )
