"""Explain in a sentence why packets were denied, and find the rules that came nearest to allowing them.

Only the rules at the start of the replay are used. Later changes of the policy are in a table of their own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network

from sgfast.base.names import printable
from sgfast.core.base.reasons import REASON_OF
from sgfast.policy.matching import Address, End, Packet, RuleField, RuleInGroup, compare, groups_of, rules_of
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Instance,
    Network,
    Peer,
    Policy,
    Rule,
    called,
)
from sgfast.policy.networks import peer_key
from sgfast.policy.rule_text import peer_text, rule_name, rule_of_id
from sgfast.questions.replaying import Broken, Denied
from sgfast.report.amounts import grouped
from sgfast.report.names import icmp_name, protocol_word

#: The most rules, and networks of their peers, that are compared for all rows together: a few seconds. Rows after that
#: have no nearest rule.
MAX_COMPARED = 500_000
#: A rule that fails on more fields is not considered near.
MAX_FIELDS = 2

_REPLIES = {ICMP: (0, 14, 16, 18), ICMPV6: (129,)}
_ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMPV6: tuple(range(128))}

#: Order of fields to choose among rules that fail on equally many fields, best first. A rule for the right service and
#: another peer is more helpful than a rule for another service.
_EASIEST: tuple[RuleField, ...] = (
    "source", "destination", "ethertype", "ports", "icmp_code", "icmp_type", "protocol",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """Why traffic is denied, in words that fit all kinds of traffic that the policy's rules do not distinguish."""

    reason: str
    why: str
    #: A sentence that compares the packet with the first of the nearest rules. Empty if no rule is near.
    nearest: str
    #: The nearest rules.
    rules: tuple[RuleInGroup, ...]


_Compared = tuple[list[RuleInGroup], list[tuple[RuleInGroup, tuple[RuleField, ...]]]]


class Reasons:
    """Relate denials to the rules of a policy. Names that the policy does not know are no error."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._comparisons_left = MAX_COMPARED
        #: Whether the limit was reached, so that some packets were not compared with rules.
        self.is_exhausted = False
        self._comparisons: dict[Hashable, _Compared] = {}
        self._causes: dict[Hashable, Cause] = {}
        self._rules: dict[tuple[tuple[str, ...], Direction], tuple[list[RuleInGroup], int]] = {}

    def cause(self, kind: Denied | Broken) -> Cause:
        """Explain a denial. Kinds that the rules do not distinguish get the same object."""
        question = (kind.reason, self._question(kind))
        cause = self._causes.get(question)
        if cause is None:
            rules = tuple(rule for rule, _ in self._near(kind))
            cause = self._causes[question] = Cause(kind.reason, self._why(kind), self._nearest(kind), rules)
        return cause

    def rule_words(self, rule: str) -> str:
        """Return a rule in words, by its id (SPEC 10.28)."""
        return printable(rule_of_id(self.policy, rule))

    def _why(self, kind: Denied | Broken) -> str:
        here, service = self.policy.instance_by_name.get(kind.service.instance), kind.service
        match kind.reason:
            case "no-rule":
                groups = ""
                if here is not None:
                    names = [called(self.policy.group_by_name[name]) for name in here.security_groups]
                    groups = f"of {_listed(names)} "
                return f"No {kind.direction} rule {groups}matches."
            case "deny-rule":
                matching, _ = self._compared(kind)
                by = f": {matching[0].rule.id}, priority {matching[0].rule.priority}" if matching else ""
                return f"A deny rule wins{by}."
            case "vpc-isolated":
                peer = self.policy.instance_by_name.get(kind.peer_name or "")
                if here is None or peer is None:
                    return "The two VPCs are not peered."
                vpcs = [called(self.policy.vpc_by_name[instance.vpc]) for instance in (here, peer)]
                return f"VPC {vpcs[0]} and VPC {vpcs[1]} are not peered."
            case "table-full":
                most = grouped(self.policy.settings.max_connections)
                return f"The connection table is full: settings.max_connections is {most}."
            case "invalid" if service.icmp_type in _REPLIES.get(service.protocol, ()):
                return "A reply whose request was denied or never seen."
            case "invalid" if service.icmp_type in _ERRORS.get(service.protocol, ()):
                return "An ICMP error that belongs to no live connection."
        return REASON_OF[kind.reason].sentence

    def _nearest(self, kind: Denied | Broken) -> str:
        """Say which rule is nearest and why it does not match. Empty: no rule is near, or the reason is another one."""
        if kind.reason == "no-rule":
            for nearest in self._compared(kind)[0]:
                if nearest.rule.action == "allow":
                    return f"{nearest.rule.id} allowed it when the replay began; a change took that away."
        for nearest, fields in self._near(kind):
            differences = (self._difference(nearest.rule, field, kind, named=False) for field in fields)
            return f"Nearest: {rule_name(self.policy, nearest.rule, nearest.group)}, but {' and '.join(differences)}."
        return ""

    def nearest_rules(self, kind: Denied | Broken) -> list[tuple[str, list[str]]]:
        """Return the ids of the equally near rules in document order, each with the reasons why it does not match."""
        return [
            (near.rule.id, [self._difference(near.rule, field, kind, named=True) for field in fields])
            for near, fields in self._near(kind)
        ]

    def _near(self, kind: Denied | Broken) -> list[tuple[RuleInGroup, tuple[RuleField, ...]]]:
        """Return the nearest rules; none if the packet was not denied for lack of a rule."""
        if kind.reason != "no-rule":
            return []
        near = [
            (RuleInGroup(near.group, self.policy._first_twin(near.rule)), fields)
            for near, fields in self._compared(kind)[1] if len(fields) <= MAX_FIELDS
        ]  # fmt: skip
        ranks = [sum(map(_EASIEST.index, fields)) for _, fields in near]
        return [pair for pair, rank in zip(near, ranks, strict=True) if rank == min(ranks)]

    def _compared(self, kind: Denied | Broken) -> _Compared:
        """Compare the packet with the rules of the filter that denied it."""
        here = self.policy.instance_by_name.get(kind.service.instance)
        if here is None:
            return [], []
        question = self._question(kind)
        if question not in self._comparisons:
            service, peer = kind.service, ip_address(kind.peer)
            peer_end = End(peer, self.policy.instance_by_name.get(kind.peer_name or ""))
            packet = Packet(peer.version, service.protocol, service.port, service.icmp_type, service.icmp_code)
            rules = self._rules_of(here, kind.direction)
            self._comparisons[question] = compare(self.policy, rules, here, peer_end, packet)
        return self._comparisons[question]

    def _rules_of(self, here: Instance, direction: Direction) -> list[RuleInGroup]:
        """Return the rules to compare; none if the limit is exceeded."""
        key = here.security_groups, direction
        if key not in self._rules:
            rules = [*rules_of(self.policy, here, direction)]
            self._rules[key] = rules, sum(1 + len(self._networks_of(group_rule.rule.peer)) for group_rule in rules)
        rules, cost = self._rules[key]
        if cost > self._comparisons_left:
            self.is_exhausted = True
            return []
        self._comparisons_left -= cost
        return rules

    def _question(self, kind: Denied | Broken) -> Hashable:
        """Return all values that the answer depends on: equal questions have equal answers."""
        service, address = kind.service, ip_address(kind.peer)
        here, peer = map(self.policy.instance_by_name.get, (service.instance, kind.peer_name or ""))
        ends = (
            here and (here.security_groups, here.vpc),
            peer and (groups_of(self.policy, peer, ip_network(kind.peer)), peer.vpc),
        )
        port = None if service.port is None else bisect_right(self._ports, service.port)
        service_fields = service.protocol, port, service.icmp_type, service.icmp_code
        return kind.direction, *ends, self._network(address), *service_fields

    @cached_property
    def _ports(self) -> list[int]:
        """The ports at which ranges of rules begin, and the ports behind the ranges."""
        rules = (rule for group in self.policy.security_groups for rule in group.rules)
        return sorted({port for rule in rules for first, last in rule.ports or () for port in (first, last + 1)})

    @cached_property
    def _named(self) -> dict[int, dict[int, set[int]]]:
        """The networks that rules name, by IP version and prefix length, longest first, as the bits of the prefix."""
        named_bits: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        # By key, because networks are slow to hash.
        peers = {peer_key(rule.peer): rule.peer for group in self.policy.security_groups for rule in group.rules}
        for peer in peers.values():
            for network in self._networks_of(peer):
                bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                named_bits[network.version].setdefault(network.prefixlen, set()).add(bits)
        return {version: dict(sorted(lengths.items(), reverse=True)) for version, lengths in named_bits.items()}

    def _networks_of(self, peer: Peer) -> Sequence[Network]:
        match peer:
            case None | GroupPeer():
                return ()
            case AddressGroupPeer(name):
                return self.policy.address_group_by_name[name].addresses
            case network:
                return (network,)

    def _network(self, address: Address) -> tuple[int, int, int]:
        """Return the innermost network in rules that contains the address. All others that do contain this network."""
        for length, prefixes in self._named[address.version].items():
            bits = int(address) >> (address.max_prefixlen - length)
            if bits in prefixes:
                return address.version, length, bits
        return address.version, -1, 0

    def _difference(self, rule: Rule, field: RuleField, kind: Denied | Broken, *, named: bool) -> str:
        """Say how a rule's field differs from the packet. ``named``: name the other end; otherwise use words that fit
        all kinds with the same answer.
        """
        match field:
            case "ethertype":
                return f"it is an IPv{rule.ethertype} rule"
            case "protocol":
                return f"it is for {protocol_words(rule)}"
            case "ports":
                return f"its {'port is' if _is_single_port(rule) else 'ports are'} {port_words(rule)}"
            case "icmp_type":
                return f"its ICMP type is {port_words(rule)}"
            case "icmp_code":
                return f"its ICMP code is {rule.icmp_code}"
        words = f"its {field} is {peer_words(rule, self.policy)}"
        if isinstance(rule.peer, GroupPeer):
            peer = self.policy.instance_by_name.get(kind.peer_name or "")
            member = peer is not None and rule.peer.name in groups_of(self.policy, peer, ip_network(kind.peer))
            # Group membership does not count across regions (SPEC 4.11).
            if named or member:
                peer_text = kind.peer if peer is None else called(peer)
                name = peer_text if named else "the other end"
                words += f", and {name} is {'in another region' if member else 'not in that group'}"
        return words


# Wording of rules ----------------------------------------------------------------------------------------------------


def protocol_words(rule: Rule) -> str:
    return "all protocols" if rule.protocol is None else protocol_word(rule.protocol)


def port_words(rule: Rule) -> str:
    """Return ``80-81, 443``, an ICMP type, or nothing if the rule matches all."""
    if rule.icmp_type is not None:
        assert rule.protocol is not None
        return icmp_name(rule.protocol, rule.icmp_type) + (f"/{rule.icmp_code}" if rule.icmp_code is not None else "")
    if rule.ports is None:
        return ""
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in rule.ports[:8]]
    if len(rule.ports) > 8:
        shown.append(f"{len(rule.ports) - 8} more")
    return ", ".join(shown)


def peer_words(rule: Rule, policy: Policy | None = None) -> str:
    match rule.peer:
        case None:
            return f"any IPv{rule.ethertype} address"
        case GroupPeer() | AddressGroupPeer():
            return peer_text(rule, policy)
        case network:
            whole = network.prefixlen == network.max_prefixlen
            return str(network.network_address) if whole else str(network)


def _is_single_port(rule: Rule) -> bool:
    return rule.ports is not None and len(rule.ports) == 1 and rule.ports[0][0] == rule.ports[0][1]


def _listed(names: Sequence[str]) -> str:
    shown = names if len(names) <= 3 else (*names[:2], f"{len(names) - 2} more groups")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
