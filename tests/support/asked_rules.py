"""Find the rule that decides about each packet of a small universe: run frames through the reference model, and record
each time it evaluates rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import frames as f
import pytest
from checked_policies import BLOCKS, GRE, TCP, UDP

from sgfast.policy.model import GroupPeer, Instance, Policy, Rule
from sgfast.reference import engine as reference
from sgfast.reference.addresses import is_multicast_or_broadcast
from sgfast.reference.rules import _peer_matches, matches
from sgfast.reference.table import GroupRule, Opener, Side

Address = IPv4Address | IPv6Address
#: A rule, as the group's name and the rule's id.
Key = tuple[str, str]
#: A service: protocol, port or ICMP type, ICMP code.
Service = tuple[int, int, int]

ELSEWHERE = {4: ip_address("203.0.113.1"), 6: ip_address("2a00::1")}
#: An address for an instance that has none of an IP version. No rule of ``checked_policies`` contains it.
FRESH = {4: ip_address("198.18.0.1"), 6: ip_address("2001:db8:ffff::1")}
PEERS = {family: (*BLOCKS[family], ELSEWHERE[family]) for family in (4, 6)}
_PORTED: tuple[Service, ...] = tuple((protocol, port, 0) for protocol in (TCP, UDP) for port in (0, 1, 2, 3, 10))
#: ICMP types: queries, replies, errors, infrastructure of each kind, and others.
TYPES = {4: (0, 3, 8, 9), 6: (1, 8, 9, 128, 129, 130, 133, 134, 135, 137, 143, 200)}
SERVICES: dict[int, tuple[Service, ...]] = {
    4: (*_PORTED, (GRE, 0, 0), *((1, kind, code) for kind in TYPES[4] for code in (0, 1))),
    6: (*_PORTED, (GRE, 0, 0), *((58, kind, code) for kind in TYPES[6] for code in (0, 1))),
}
_DAY_NS = 10**9 * 86_400 * 365


@dataclass
class Truth:
    """Facts about rules, identified by group and id, established by trying every packet."""

    #: Rules whose source or destination contains an address of the universe.
    somebody: set[Key] = field(default_factory=set)
    wins: set[Key] = field(default_factory=set)
    #: Rules whose removal changes the verdict of some packet.
    needed: set[Key] = field(default_factory=set)
    #: Instances for which some packet is allowed, by direction.
    open: set[tuple[str, str]] = field(default_factory=set)
    #: The packets that each rule matches, each with its instance.
    packets: dict[Key, set[Any]] = field(default_factory=lambda: defaultdict(set))
    #: The packets that each rule matches, including those between addresses of one instance.
    with_own: dict[Key, set[Any]] = field(default_factory=lambda: defaultdict(set))


class _Recorder:
    """Run frames through the reference model so that both filters judge each of them."""

    def __init__(self, policy: Policy, vpc: str) -> None:
        self.engine = reference.ReferenceEngine(policy, vpc=vpc)
        self._now = 0
        self._evaluations: list[tuple[Side, Opener]] = []

    def evaluations(self, source: Address, destination: Address, service: Service) -> list[tuple[Side, Opener]]:
        """Return the filters whose rules are evaluated for a packet."""
        self._evaluations.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "winning_rule", self._winning_rule)
            patch.setattr(reference, "both_sides", _both_sides)
            self._now += _DAY_NS    # all earlier connections have timed out
            self.engine.process_frame(self._now, _frame(source, destination, service))
        return list(self._evaluations)

    def _winning_rule(self, policy: Policy, side: Side, opener: Opener) -> GroupRule | None:
        self._evaluations.append((side, opener))
        return None


def _both_sides(egress: Side | None, ingress: Side | None, judge: Any) -> Any:
    """Let both filters judge. In the model the second filter does not judge packets that the first one denies."""
    verdicts = [side and judge(side) for side in (egress, ingress)]
    return reference.PacketVerdict("deny", "no-rule", *verdicts)


def _frame(source: Address, destination: Address, service: Service) -> bytes:
    protocol, first, code = service
    if protocol == TCP:
        layer = f.tcp(40000, first, "S")
    elif protocol == UDP:
        layer = f.udp(40000, first)
    elif protocol in (1, 58):
        layer = (f.icmp if protocol == 1 else f.icmpv6)(first, code)
    else:
        layer = f.other(protocol, bytes(8))
    return f.ethernet(f.ip(str(source), str(destination), layer))


def evaluate(policy: Policy) -> Truth:
    truth = Truth()
    used = {name for instance in policy.instances for name in instance.security_groups}
    for instance in policy.instances:
        _look(policy, instance, truth)
    for group in policy.security_groups:
        if group.name not in used:
            _look(policy, Instance("as if", policy.vpcs[0].name, (), (group.name,)), truth)
    return truth


def _look(policy: Policy, instance: Instance, truth: Truth) -> None:
    families = {network.version for network in instance.addresses}
    view = reference.ReferenceEngine(policy, vpc=instance.vpc)
    for family in (4, 6):
        own = [address for address in PEERS[family] if _is(view._owner(address), instance)]
        address, seen_by = FRESH[family], instance
        seen = policy
        if own:
            address = own[0]
        else:
            seen_by = replace(instance, addresses=(*instance.addresses, ip_network(address)))
            others = tuple(seen_by if each is instance else each for each in policy.instances)
            seen = replace(policy, instances=others if instance in policy.instances else (*others, seen_by))
        recorder = _Recorder(seen, instance.vpc)
        for leaving in (False, True):
            judged_services: set[Service] = set()
            for peer in PEERS[family]:
                if peer in own:
                    continue
                ends = (address, peer) if leaving else (peer, address)
                side = Side(seen_by, leaving, peer, recorder.engine._owner(peer))
                truth.somebody |= set(_with_peer(policy, seen, side, family))
                for service in SERVICES[family]:
                    for found, opener in recorder.evaluations(*ends, service):
                        if found.instance is seen_by and found.leaving == leaving:
                            judged_services.add(service)
                            note = (instance.name, leaving, peer, service)
                            is_open = family in families
                            _note(truth, seen, found, opener, note, is_open=is_open)
            # For a rule that names its own group, another member could have the instance's address.
            for peer in own:
                side = Side(instance, leaving, peer, instance)
                truth.somebody |= {key for key, rule in _rules(policy, side, family) if rule.peer == GroupPeer(key[0])}
                for service in judged_services:
                    opener = _opener(family, leaving, peer, service)
                    note = (instance.name, leaving, peer, service)
                    _note(truth, policy, side, opener, note, own_group=True)


def _is(owner: Instance | None, instance: Instance) -> bool:
    return owner is not None and owner.name == instance.name


def _opener(family: int, leaving: bool, peer: Address, service: Service) -> Opener:
    protocol, first, code = service
    kind = (first, code) if protocol in (1, 58) else (None, None)
    port = first if protocol in (TCP, UDP) else None
    ends = ((ELSEWHERE[family], 40000), (peer, port)) if leaving else ((peer, 40000), (ELSEWHERE[family], port))
    return Opener(family, protocol, *ends, leaving, *kind, "", False)


def _rules(policy: Policy, side: Side, family: int) -> Iterator[tuple[Key, Rule]]:
    """Yield the rules of an instance's filter for one direction and IP version."""
    for group in policy.security_groups:
        for rule in group.rules if group.name in side.instance.security_groups else ():
            if rule.ethertype == family and (rule.direction == "outbound") == side.leaving:
                yield (group.name, rule.id), rule


def _with_peer(policy: Policy, seen: Policy, side: Side, family: int) -> Iterable[Key]:
    assert not is_multicast_or_broadcast(side.peer)
    return [key for key, rule in _rules(policy, side, family) if _peer_matches(seen, rule, side)]


def _note(
    truth: Truth, policy: Policy, side: Side, opener: Opener, packet: object, *, own_group: bool = False,
    is_open: bool = False,
) -> None:  # fmt: skip
    """Record the rules that match an opener. ``own_group``: record only rules that name their own group."""
    found = [
        (key, rule) for key, rule in _rules(policy, side, opener.version) if matches(policy, rule, side, opener)
    ]
    found.sort(key=lambda each: (each[1].priority, each[1].action != "deny"))
    for key, each in found:
        truth.with_own[key].add(packet)
        if not own_group or each.peer == GroupPeer(key[0]):
            truth.packets[key].add(packet)
    if not found:
        return
    (winner, rule), *beneath = found
    if is_open and rule.action == "allow":
        truth.open.add((side.instance.name, "outbound" if side.leaving else "inbound"))
    if own_group and rule.peer != GroupPeer(winner[0]):
        return
    truth.wins.add(winner)
    if (rule.action == "allow") != bool(beneath and beneath[0][1].action == "allow"):
        truth.needed.add(winner)
