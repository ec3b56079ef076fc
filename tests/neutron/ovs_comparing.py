"""Engine against Neutron's firewall on Open vSwitch, packet by packet, and the list of where the two differ.

A packet may be judged differently only if a predicate of ``DIFFERENCES`` names it, or named an earlier one of its key.
Everything else fails. Senders use their own addresses: what Neutron does against spoofing is not sgfast's business.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cloud_documents import Account
from cloud_traffic import Sent
from ovs_cloud import Cloud

from sgfast.clouds.importing.reading import import_sources
from sgfast.clouds.importing.sources import Source
from sgfast.engine import Engine
from sgfast.policy.changes import (
    AddGroup,
    AddInstance,
    AddMember,
    AddRule,
    Change,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
    RemoveRule,
    SetAddressGroup,
)
from sgfast.policy.model import Policy
from sgfast.reference.flows import flow_of, quoted_flow
from sgfast.reference.packets import Packet, parse_frame
from sgfast.rows.verdicts import Side, Verdict

RAW = 101
NOW = 1_700_000_000 * 10**9
SYN, ACK = 2, 16
QUERIES = {4: (0, 8, 13, 14), 6: (128, 129)}
ERRORS = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4)}
#: DCCP and UDP-Lite.
WITHOUT_PORTS = (33, 136)
#: Verdicts of packets that no filter stops.
PASSES = ("allow", "exempt", "out-of-scope", "local")


@dataclass(frozen=True)
class Case:
    """A packet that was judged."""

    sent: Sent
    packet: Packet
    judged: Verdict
    passed: bool


@dataclass
class History:
    """The history of a key."""

    #: By instance and connection: the packet with which the connection of its side began. To Open vSwitch, connections
    #: that only differ in ports it does not know are one.
    openers: dict[tuple[str, Hashable], bytes] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    #: Names of differences that had their cause earlier.
    apart: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Difference:
    why: str
    here: Callable[[Case], bool]


def _same_node(case: Case) -> bool:
    here, there = case.sent.source, case.sent.destination
    return here.port is not None and there.port is not None and here.device[0] == there.device[0]


def _begins_midstream(case: Case) -> bool:
    # The sender's side may have begun a connection even if the receiver's side drops the packet.
    sender = case.judged.egress
    begun = sender is not None and sender.reason == "midstream" and case.sent.destination.port is not None
    return case.judged.reason == "midstream" and (case.passed or begun)


def _syn_of_known(case: Case) -> bool:
    is_syn = case.packet.protocol == 6 and case.packet.tcp_flags & (SYN | ACK) == SYN
    return is_syn and not case.passed and any(side.reason == "established" for side in sides(case.judged))


def _quotes_fragment(case: Case) -> bool:
    four = case.packet.version == 4
    quoted = case.sent.packets[0][28 if four else 48 :]
    is_error = case.packet.is_icmp and case.packet.icmp_type in ERRORS[case.packet.version]
    return is_error and len(quoted) > 6 and bool(quoted[6] & 0x20 if four else quoted[6] == 44)


DIFFERENCES = {
    "midstream": Difference(
        "SPEC 4.7: a packet in the middle of an unknown connection is denied; connection tracking begins one with it, "
        "if the rules allow its sender to open one. So does Linux, unless nf_conntrack_tcp_loose is 0",
        _begins_midstream,
    ),
    "TCP states of Open vSwitch": Difference(
        "SPEC 4.5, 5.4: the states are those of Linux. The user-space datapath has those of FreeBSD's pf, which only "
        "looks at flags that no packet may have and at sequence numbers",
        lambda case: case.packet.protocol == 6 and case.judged.reason == "invalid" and case.passed,
    ),
    "SYN of a known connection": Difference(
        "SPEC 5.4: it belongs to its connection. To Open vSwitch a SYN opens one anew, from either end, if that end is "
        "not established yet or the connection is over: the rules of its direction are asked", _syn_of_known,
    ),
    "ICMP code of a query": Difference(
        "SPEC 5.1: no part of the key; Open vSwitch takes a query with another code than 0 for invalid",
        lambda case: case.packet.icmp_type in QUERIES[case.packet.version] and bool(case.packet.icmp_code),
    ),
    "other ICMP": Difference(
        "SPEC 5.6: ICMP types that are neither query nor error open a one-way connection; to Open vSwitch, as to "
        "Linux, they are invalid",
        lambda case: case.packet.is_icmp
        and case.packet.icmp_type not in (*QUERIES[case.packet.version], *ERRORS[case.packet.version]),
    ),
    "error about a fragment": Difference(
        "SPEC 4.6: an ICMP error belongs to the connection that it quotes; to Open vSwitch, not to Linux, it is "
        "invalid if it quotes the first fragment of a datagram", _quotes_fragment,
    ),
    "ports of fragments": Difference(
        "SPEC 9.4: a datagram is judged by its first fragment. Open vSwitch hides the ports of all fragments from "
        "flows, if it is not told otherwise, and of later ones over IPv6 the protocol: no rule with ports matches",
        lambda case: len(case.sent.packets) > 1 and not case.passed,
    ),
    "ports of DCCP and UDP-Lite": Difference(
        "SPEC 2.2: rules have ports. Neutron's driver knows ports of TCP, UDP and SCTP only, and allows all of the "
        "others; nor does Open vSwitch tell their connections apart by ports",
        lambda case: key_of(case.packet)[0] == "without ports" and case.passed,
    ),
    "one node, one connection": Difference(
        "SPEC 3.7: the sender's side remembers what the receiver's side denied. Two ports of one node share one "
        "connection, which Neutron only commits when both sides allow it",
        lambda case: _same_node(case) and not case.passed,
    ),
}  # fmt: skip

#: A word for keys whose opener the rules no longer allow after a change; that is not read off a packet.
RULE_GONE = "the rule is gone"
AFTER_CHANGES = {
    RULE_GONE: "SPEC 6.7: a change decides about live connections at once. Neutron asks the rules about each packet of "
    "the opener's direction; the first one that no rule allows marks its connection, and what is marked passes in "
    "neither direction, until the next change about its port deletes it. Until then replies pass",
}


class Comparison:
    """One account's packets, judged by its nodes and by the engine.

    ``hits``: by name of difference how many packets it excused. ``seen``: verdicts and reasons of the engine.
    """

    def __init__(self, cloud: Cloud, account: Account) -> None:
        self.cloud = cloud
        self.hits: Counter[str] = Counter()
        self.seen: Counter[Hashable] = Counter()
        self.packets = 0
        self._history: dict[Hashable, History] = defaultdict(History)
        self.policy = policy_of(account)
        self.engine = Engine(self.policy)
        cloud.begin(account.documents, account.devices)

    def change(self, account: Account) -> None:
        """The account becomes this one, for the nodes and for the engine."""
        policy = policy_of(account)
        self.cloud.program(account.documents, account.devices)
        changes = changes_between(self.policy, policy)
        self.engine.apply(changes, NOW)
        self.policy = policy
        self.seen.update(("change", type(change).__name__) for change in changes)
        opened = [
            (past, instance, opener)
            for past in self._history.values() for (instance, _), opener in past.openers.items()
        ]
        verdicts = judged_by(Engine(policy), [opener for _, _, opener in opened])
        for (past, instance, _), verdict in zip(opened, verdicts, strict=True):
            if not any(side.instance == instance and side.verdict == "allow" for side in sides(verdict)):
                past.apart.add(RULE_GONE)

    def judge(self, batch: Sequence[Sent]) -> list[bool]:
        """Send packets whose keys are all different; whether each one arrived. AssertionError says what differs."""
        frames = [sent.frames() for sent in batch]
        came = self.cloud.exchange(
            [(sent.source.device, frame) for sent, made in zip(batch, frames, strict=True) for frame in made]
        )
        out = {device: set(received) for device, received in came.items()}
        verdicts = iter(judged_by(self.engine, [packet for sent in batch for packet in sent.packets]))
        arrived = []
        for sent, made in zip(batch, frames, strict=True):
            judged = [next(verdicts) for _ in sent.packets]
            # A datagram of which a part is missing has not arrived.
            passed = out.get(sent.destination.device, set()).issuperset(made)
            self.packets += len(judged)
            assert len({verdict.verdict for verdict in judged}) == 1, f"the engine divides a datagram: {judged}"
            packet = parse_frame(sent.packets[0], len(sent.packets[0]), RAW)
            assert isinstance(packet, Packet)
            arrived.append(self._compare(Case(sent, packet, judged[0], passed)))
        return arrived

    def _compare(self, case: Case) -> bool:
        """Whether the packet arrived, now or when it was sent again."""
        past = self._history[key_of(case.packet)]
        self.seen[case.judged.verdict, case.judged.reason] += 1
        self.seen["both sides"] += case.judged.egress is not None and case.judged.ingress is not None
        past.cases.append(case)
        allowed, egress = case.judged.verdict in PASSES, case.judged.egress
        # Neutron may drop it at the sender, the engine at the receiver: then only the engine's sender knows it.
        begun = not allowed and egress is not None and egress.verdict == "allow"
        names: list[str] = []
        if begun or case.passed != allowed:
            names = [name for name, difference in DIFFERENCES.items() if difference.here(case)]
        if begun:
            past.apart.update(names)
        if case.passed != allowed:
            excuses = [*names, *sorted(past.apart)]
            if excuses:
                self.hits[excuses[0]] += 1
                past.apart.update(names)
            elif not case.passed and self._arrives(case.sent):
                # On a busy machine the queue of a device may lose a frame. Nothing else of the batch has its key.
                self.seen["lost"] += 1
                case = replace(case, passed=True)
            else:
                raise AssertionError(self._account(past, case))
        for side in sides(case.judged):
            if side.verdict == "allow" and side.reason == "rule":
                flow = flow_of(case.packet)
                past.openers[side.instance, flow and flow.key] = case.sent.packets[0]
        return case.passed

    def _arrives(self, sent: Sent) -> bool:
        came = self.cloud.exchange([(sent.source.device, frame) for frame in sent.frames()])
        return all(frame in came.get(sent.destination.device, ()) for frame in sent.frames())

    def _account(self, past: History, case: Case) -> str:
        """The last packets of the key, and Open vSwitch's way for the last one, without its connection."""
        source = case.sent.source
        bridge = "wire" if source.port is None else f"int{'ab'.index(source.device[0])}"
        frame = case.sent.frames()[0].hex()
        trace = self.cloud.ask("ofproto/trace", bridge, f"in_port={source.device}", frame)
        return "\n".join([f"engine: {case.judged}", *map(_told, past.cases[-20:]), frame, trace])


def policy_of(account: Account) -> Policy:
    return import_sources([Source("account.json", account.documents)], "neutron").policy()


def judged_by(engine: Engine, packets: Sequence[bytes]) -> list[Verdict]:
    """Time stands still, for Open vSwitch too."""
    return list(map(engine.verdict, engine.process_frames(packets, [NOW] * len(packets), link_type=RAW)))


def key_of(packet: Packet) -> tuple[Any, ...]:
    """The packet's connection in Open vSwitch's words; for an ICMP error, the one that it quotes."""
    flow = flow_of(packet) or quoted_flow(packet)
    if flow is None:
        return packet.src, packet.dst, packet.protocol
    key = flow.key
    assert isinstance(key, tuple)
    if key[0] == "two-way" and key[1] in WITHOUT_PORTS:
        return "without ports", key[1], frozenset(address for address, _ in key[2])
    return key


def sides(verdict: Verdict) -> list[Side]:
    return [side for side in (verdict.egress, verdict.ingress) if side is not None]


def _told(case: Case) -> str:
    packet = case.packet
    return (
        f"{packet.src} {packet.sport} > {packet.dst} {packet.dport} protocol {packet.protocol} "
        f"flags {packet.tcp_flags:02x} type {packet.icmp_type}: {case.judged.verdict} {case.judged.reason}; "
        f"Neutron {'passed' if case.passed else 'dropped'}"
    )


def changes_between(before: Policy, after: Policy) -> list[Change]:
    """Changes that make one policy of the other, as accounts make them: rules, members, instances, address groups."""
    changes: list[Change] = [
        AddGroup(group) for group in after.security_groups if group.name not in before.group_by_name
    ]
    gone = [group.name for group in before.security_groups if group.name not in after.group_by_name]
    for group in before.security_groups:
        if group.name in gone:
            continue
        new = after.group_by_name[group.name]
        changes += [RemoveRule(group.name, rule.id) for rule in group.rules if rule not in new.rules]
        changes += [AddRule(group.name, rule) for rule in new.rules if rule not in group.rules]
    for instance in before.instances:
        if instance.name not in after.instance_by_name:
            changes.append(RemoveInstance(instance.name))
            continue
        was, is_ = set(instance.security_groups), set(after.instance_by_name[instance.name].security_groups)
        changes += [AddMember(group, instance.name) for group in sorted(is_ - was)]
        changes += [RemoveMember(group, instance.name) for group in sorted(was - is_)]
    changes += [AddInstance(new) for new in after.instances if new.name not in before.instance_by_name]
    for addresses in after.address_groups:
        if before.address_group_by_name[addresses.name] != addresses:
            changes.append(SetAddressGroup(addresses.name, addresses.addresses))
    return [*changes, *map(RemoveGroup, gone)]
