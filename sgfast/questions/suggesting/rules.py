"""Find the fewest rules that allow given connections, and that exceed these no further than the limits permit.

A connection needs a rule at each end that is an instance, in one of that instance's groups. For each service, groups
are chosen that cover all instances that need it (``covers.py``). Within a group, direction, address family and
protocol, a rule is a peer with a list of ports, so the fewest rules are those with the fewest peers:

- Peers that are instances are replaced by groups that cover all of them (``covers.py``). A rule lists only ports seen
  with members of its group.
- Other addresses become one prefix for each block of ``max_prefix``: the longest that holds all addresses seen in the
  block. With the default, /32 and /128, these are the addresses themselves.
- If a service has more than ``any_above`` public peers, any address becomes the peer instead.

Finally, ports that other rules already allow are removed from rules, so that every remaining port is needed. Each ICMP
rule has one type and any code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from sgfast.base.errors import ArgumentError, SgfastError
from sgfast.base.names import listed
from sgfast.policy.matching import Kind, groups_of
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    Direction,
    GroupPeer,
    Network,
    Policy,
    Rule,
    SecurityGroup,
)
from sgfast.policy.networks import is_multicast, peer_key
from sgfast.policy.ranges import union
from sgfast.policy.templates import RuleNumbers
from sgfast.questions.suggesting.covers import Choices, Covers
from sgfast.questions.suggesting.denials import Denials
from sgfast.questions.suggesting.needs import Need, NeededService, needs_of
from sgfast.questions.suggesting.observing import TrafficTotals

#: The maximum number of rules in one group. More rules are no usable policy, and take minutes to compile.
MOST_RULES = 10_000

Term = Network | GroupPeer | None
#: Group, direction, address family and protocol of a rule.
_Part = tuple[str, Direction, Literal[4, 6], int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on how far rules may go beyond the observed traffic.

    ``max_prefix``: the shortest allowed prefix lengths of peers, for IPv4 and IPv6.
    ``any_above``: a service with more public peers than this is opened to any address; None: never.
    ``min_connections``: the number of connections that a rule's port must serve; ports with fewer are left out.
    ``both_versions``: whether rules whose peer is a group are for both IP versions, if both groups have members with
    addresses of both (SPEC 10.15). AWS has no others.

    For example:

        from sgfast.types import Limits

        suggestion = sgfast.suggest("pcaps/shop.pcap", instances=policy, limits=Limits(min_connections=2))
    """

    max_prefix: tuple[int, int] = (32, 128)
    any_above: int | None = None
    min_connections: int = 1
    both_versions: bool = False

    def __post_init__(self) -> None:
        four, six = self.max_prefix
        if not (0 <= four <= 32 and 0 <= six <= 128):
            raise ArgumentError(f"max_prefix must be prefix lengths for IPv4 and IPv6, not {self.max_prefix!r:.80}")
        if self.any_above is not None and self.any_above < 0:
            raise ArgumentError(f"any_above must be at least 0, not {self.any_above!r:.80}")
        if self.min_connections < 1:
            raise ArgumentError(f"min_connections must be at least 1, not {self.min_connections!r:.80}")

    @property
    def too_few(self) -> str:
        """The reason for leaving out what ``min_connections`` leaves out."""
        return f"fewer than {self.min_connections} of one service and peer"


@dataclass(slots=True)
class _Draft:
    """An unfinished rule, with the evidence for each of its ports."""

    group: str
    direction: Direction
    family: Literal[4, 6]
    protocol: int
    peer: Term
    ports: dict[int | None, TrafficTotals] = field(default_factory=dict)
    note: str = ""
    denied_members: tuple[str, ...] = ()

    @property
    def part(self) -> _Part:
        return self.group, self.direction, self.family, self.protocol


@dataclass(frozen=True, slots=True)
class SuggestedRule:
    """A suggested rule, and the traffic that needs it.

    ``rule``: the rule.
    ``group``: the name of the rule's security group.
    ``evidence``: the traffic that needs the rule.
    ``note``: why its peer is an address although the peer is an instance; empty if nothing is to be said.
    ``denied_members``: the names of instances that the rule lets in, or lets out, by their groups, although the given
    policy denies them this, and no connection needs it.
    """

    rule: Rule
    group: str
    evidence: TrafficTotals
    note: str = ""
    denied_members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suggested:
    groups: tuple[SecurityGroup, ...]
    rules: tuple[SuggestedRule, ...]
    #: Kinds with too few connections (``Limits.min_connections``).
    too_few: frozenset[Kind]


def suggest_rules(
    policy: Policy, kinds: Mapping[Kind, TrafficTotals], limits: Limits,
    needs: Callable[[Kind], list[Need]] = needs_of, denials: Denials | None = None,
) -> Suggested:  # fmt: skip
    """Return rules for the groups of ``policy``, which every instance must be in. Existing rules are ignored.

    ``needs``: the needs of a kind that rules are suggested for. ``denials``: what a policy denies, which rules should
    not allow.
    """
    remaining = dict(kinds)
    too_few: set[Kind] = set()
    while True:
        drafts = Drafter(policy, limits, denials).draft(remaining, needs)
        weak = {
            (*draft.part, port, peer_key(draft.peer))
            for draft in drafts for port, evidence in draft.ports.items()
            if evidence.connections < limits.min_connections
        }  # fmt: skip
        if not weak:
            break
        # Without a rule at one end the connection is denied, so it needs no rule at the other end either.
        matcher = _Matcher(policy, drafts)
        dropped = set()
        for kind in remaining:
            for need in needs(kind):
                draft = matcher.matching(need)[0]
                if (*draft.part, need.service.port, peer_key(draft.peer)) in weak:
                    dropped.add(kind)
        too_few |= dropped
        remaining = {kind: evidence for kind, evidence in remaining.items() if kind not in dropped}
    if limits.both_versions:
        drafts += _for_other_version(policy, drafts)
    return _finished(policy, drafts, frozenset(too_few))


class Drafter:
    """Turn the needs of connections into few peers, each with its ports."""

    def __init__(self, policy: Policy, limits: Limits, denials: Denials | None = None) -> None:
        self._policy = policy
        self._limits = limits
        self._adds_only = denials is not None and denials.adds_only
        self._denied_peers = _nobody if denials is None else denials.of_peers
        self._denied_instances = _nobody if denials is None else denials.of_instances
        self._covers = Covers(policy)
        self._members = self._covers.members
        #: Names of the groups that each instance is in.
        self._groups = {instance.name: instance.security_groups for instance in policy.instances}
        #: The lowest and the highest address of a group's members, by group and IP version.
        self._spans: dict[tuple[str, int], tuple[int, int]] = {}
        for instance in policy.instances:
            for network in instance.addresses:
                span = int(network.network_address), int(network.broadcast_address)
                for group in instance.security_groups:
                    key = group, network.version
                    low, high = self._spans.get(key, span)
                    self._spans[key] = min(low, span[0]), max(high, span[1])

    def draft(
        self, kinds: Mapping[Kind, TrafficTotals], needs_of_kind: Callable[[Kind], list[Need]]
    ) -> list[_Draft]:
        evidence_of_need: dict[Need, TrafficTotals] = {}
        for kind, evidence in kinds.items():
            for need in needs_of_kind(kind):
                evidence_of_need.setdefault(need, TrafficTotals()).add(evidence)
        by_service: defaultdict[NeededService, list[Need]] = defaultdict(list)
        for need in evidence_of_need:
            by_service[need.service].append(need)
        chosen = {service: self._groups_for(asking) for service, asking in by_service.items()}
        parts: defaultdict[_Part, list[Need]] = defaultdict(list)
        for need in evidence_of_need:
            service = need.service
            group = chosen[service][need.instance]
            parts[group, service.direction, service.family, service.protocol].append(need)
        drafts = [draft for part, members in parts.items() for draft in self._part(part, members)]
        for group, number in Counter(draft.group for draft in drafts).most_common(1):
            if number > MOST_RULES:
                enough = _enough_any_above([members for part, members in parts.items() if part[0] == group])
                any_above = "" if enough is None else f", for example with --any-above {enough}"
                raise SgfastError(
                    f"the group {group!r} would need {number} rules, more than {MOST_RULES}: merge addresses "
                    f"(--max-prefix, --any-above){any_above}, or leave out rare connections (--min-connections)"
                )
        drafts = _pruned(self._policy, drafts, evidence_of_need)
        if not self._adds_only:
            self._note_denied_members(drafts, evidence_of_need)
        return drafts

    def _note_denied_members(self, drafts: list[_Draft], rule_needs: Iterable[Need]) -> None:
        """Note the members of groups to whom a draft allows what the policy denies them, and what nobody needs."""
        matcher = _Matcher(self._policy, drafts)
        draft_needs: defaultdict[int, list[Need]] = defaultdict(list)
        for need in rule_needs:
            for draft in matcher.matching(need):
                draft_needs[id(draft)].append(need)
        for draft in drafts:
            served = draft_needs[id(draft)]
            other_members = self._members[draft.group] - {need.instance for need in served}
            denied_names = {*filter(self._denied_instances(served), other_members)}
            if isinstance(draft.peer, GroupPeer):
                denied_names |= {*self._denied_members(draft.peer.name, served)}
            draft.denied_members = tuple(sorted(denied_names))

    def _groups_for(self, rule_needs: list[Need]) -> dict[str, str]:
        """Choose for each instance the group that gets its rule. The needs are of one service."""
        instances = {need.instance for need in rule_needs}
        group_of: dict[str, str] = {}
        for group in self._covers.best(instances, self._groups, self._denied_instances(rule_needs)):
            for name in instances & self._members[group]:
                group_of.setdefault(name, group)
        return group_of

    def _part(self, part: _Part, rule_needs: list[Need]) -> list[_Draft]:
        notes: dict[object, str] = {}
        return [
            _Draft(*part, peer, {port: TrafficTotals() for port in ports}, notes.get(peer_key(peer), ""))
            for peer, ports in self.terms(rule_needs, notes=notes)
        ]

    def terms(
        self, rule_needs: list[Need], within: Network | None = None, *, notes: dict[object, str] | None = None
    ) -> list[tuple[Term, set[int | None]]]:
        """Return the peers, with the ports of each, for needs that differ only in port and peer.

        ``within`` is a network that contains all these peers. A group with addresses outside it cannot be a peer.
        ``notes`` gets a sentence on each peer, by its ``peer_key``, that is an address in the place of a group.
        """
        terms: dict[object, tuple[Term, set[int | None]]] = {}
        peers: defaultdict[int | None, set[bytes]] = defaultdict(set)
        for need in rule_needs:
            if need.peer_instance is None and ip_address(need.peer).is_global:
                peers[need.service.port].add(need.peer)
        above = self._limits.any_above
        to_all = {port for port, peers_of_port in peers.items() if above is not None and len(peers_of_port) > above}
        if to_all:
            terms[None] = None, to_all
        rule_needs = [need for need in rule_needs if need.service.port not in to_all]
        choices = self._choices({need.peer_instance for need in rule_needs if need.peer_instance is not None}, within)
        grouped: list[Need] = []
        single_needs: list[Need] = []
        for need in rule_needs:
            has_group = self._can_be_grouped(need) and choices[str(need.peer_instance)]
            (grouped if has_group else single_needs).append(need)
        for group, served in self._group_terms(grouped, choices):
            denied_names = self._denied_members(group, served) if self._adds_only else []
            if denied_names:
                single_needs += served
                if notes is not None:
                    note = f"The group {group} would also let in {listed(denied_names)}."
                    notes |= {peer_key(ip_network(need.peer)): note for need in served}
            else:
                terms[group] = GroupPeer(group), {need.service.port for need in served}
        addresses: defaultdict[bytes, set[int | None]] = defaultdict(set)
        for need in single_needs:
            addresses[need.peer].add(need.service.port)
        terms.update(self._address_terms(addresses))
        return [*terms.values()]

    def _choices(self, instances: set[str], within: Network | None) -> Choices:
        """Return the groups that can replace each instance as a peer."""
        if within is None:
            return self._groups
        first, last = int(within.network_address), int(within.broadcast_address)

        def fits(group: str) -> bool:
            lowest, highest = self._spans[group, within.version]
            return first <= lowest and highest <= last

        return {name: tuple(filter(fits, self._groups[name])) for name in instances}

    def _can_be_grouped(self, need: Need) -> bool:
        """Return whether a group can be the peer. A group as peer matches its members in the same region, but no
        multicast address (SPEC 4.11)."""
        if need.peer_instance is None or is_multicast(ip_network(need.peer)):
            return False
        vpcs, instances = self._policy.vpc_by_name, self._policy.instance_by_name
        own_vpc, peer_vpc = instances[need.instance].vpc, instances[need.peer_instance].vpc
        return vpcs[own_vpc].region == vpcs[peer_vpc].region

    def _group_terms(self, rule_needs: list[Need], choices: Choices) -> list[tuple[str, list[Need]]]:
        """Return groups that may stand for the peers, each with the needs of its members."""
        if not rule_needs:
            return []
        peers = {str(need.peer_instance) for need in rule_needs}
        return [
            (group, [need for need in rule_needs if need.peer_instance in self._members[group]])
            for group in self._covers.best(peers, choices, self._denied_peers(rule_needs))
        ]

    def _denied_members(self, group: str, rule_needs: list[Need]) -> list[str]:
        """Return the members of a group that are no peer of these needs, and to whom the policy denies one of them."""
        other_members = self._members[group] - {need.peer_instance for need in rule_needs}
        return sorted(filter(self._denied_peers(rule_needs), other_members))

    def _address_terms(
        self, addresses: Mapping[bytes, set[int | None]]
    ) -> dict[object, tuple[Term, set[int | None]]]:
        blocks: defaultdict[tuple[int, int], list[tuple[int, set[int | None]]]] = defaultdict(list)
        for packed, ports in addresses.items():
            bits = 8 * len(packed)
            shift = bits - self._limits.max_prefix[bits == 128]
            number = int.from_bytes(packed)
            blocks[bits, number >> shift].append((number, ports))
        terms: dict[object, tuple[Term, set[int | None]]] = {}
        for (bits, _), members in sorted(blocks.items()):
            lowest, highest = min(members)[0], max(members, key=lambda member: member[0])[0]
            host_bits = (lowest ^ highest).bit_length()
            base, length = lowest >> host_bits << host_bits, bits - host_bits
            network: Term = IPv4Network((base, length)) if bits == 32 else IPv6Network((base, length))
            # In rules, "any address" is always None (SPEC 2.3).
            term = network if length else None
            terms.setdefault(peer_key(term), (term, set()))[1].update(*(ports for _, ports in members))
        return terms


def _nobody(rule_needs: Iterable[Need]) -> Callable[[str], bool]:
    """Return a function that calls no instance denied, in the place of one of ``Denials``."""
    return lambda name: False


def _enough_any_above(parts: Iterable[list[Need]]) -> int | None:
    """Return the largest ``any_above`` with which one group has at most MOST_RULES rules; None if there is none.
    ``parts``: the needs by direction, address family and protocol.
    """
    public: list[dict[int | None, set[bytes]]] = []
    other_rules = 0
    for needs_of_part in parts:
        addresses: defaultdict[int | None, set[bytes]] = defaultdict(set)
        for need in needs_of_part:
            if need.peer_instance is None and ip_address(need.peer).is_global:
                addresses[need.service.port].add(need.peer)
        public.append(addresses)
        other_rules += len({need.peer for need in needs_of_part} - set().union(*addresses.values()))
    numbers = {len(peers) for addresses in public for peers in addresses.values()}
    for any_above in sorted((number - 1 for number in numbers), reverse=True):
        rules = other_rules
        for by_port in public:
            # One more rule is for any address.
            rules += 1 + len(set().union(*(peers for peers in by_port.values() if len(peers) <= any_above)))
        if rules <= MOST_RULES:
            return any_above
    return None


class _Matcher:
    """Find the rules that match a need, among those of all the instance's groups (SPEC 4.9, 4.11)."""

    def __init__(self, policy: Policy, drafts: Iterable[_Draft]) -> None:
        self._policy = policy
        self._instances = policy.instance_by_name
        self._regions = {vpc.name: vpc.region for vpc in policy.vpcs}
        #: Drafts by group, direction, family and protocol, then by peer: any address, a group's name, or a prefix's
        #: bits.
        self._any: dict[_Part, _Draft] = {}
        self._named: dict[tuple[_Part, str], _Draft] = {}
        self._prefixes: defaultdict[_Part, dict[tuple[int, int], _Draft]] = defaultdict(dict)
        for draft in drafts:
            if isinstance(draft.peer, IPv4Network | IPv6Network):
                network = draft.peer
                host_bits = network.max_prefixlen - network.prefixlen
                self._prefixes[draft.part][host_bits, int(network.network_address) >> host_bits] = draft
            elif isinstance(draft.peer, GroupPeer):
                self._named[draft.part, draft.peer.name] = draft
            else:
                self._any[draft.part] = draft
        self._lengths = {
            part: sorted({bits for bits, _ in prefixes_of_part}) for part, prefixes_of_part in self._prefixes.items()
        }

    def matching(self, need: Need) -> list[_Draft]:
        service, here = need.service, self._instances[need.instance]
        number = int.from_bytes(need.peer)
        drafts: list[_Draft | None] = []
        peer_groups = sorted(self._peer_groups(need))
        for group in here.security_groups:
            part = group, service.direction, service.family, service.protocol
            drafts.append(self._any.get(part))
            drafts += [self._named.get((part, name)) for name in peer_groups]
            prefixes = self._prefixes.get(part, {})
            drafts += [prefixes.get((bits, number >> bits)) for bits in self._lengths.get(part, ())]
        return [draft for draft in drafts if draft is not None and service.port in draft.ports]

    def _peer_groups(self, need: Need) -> frozenset[str]:
        """Return the peer's groups that rules can name. Groups match no peer in another region or in an unpeered
        VPC."""
        if need.peer_instance is None:
            return frozenset()
        instance, peer = self._instances[need.instance], self._instances[need.peer_instance]
        if self._regions[instance.vpc] != self._regions[peer.vpc]:
            return frozenset()
        return groups_of(self._policy, peer, ip_network(need.peer))


def _pruned(policy: Policy, drafts: list[_Draft], evidence_of_need: Mapping[Need, TrafficTotals]) -> list[_Draft]:
    """Remove ports that no need depends on. Add the evidence of each need to the rule that serves it."""
    matcher = _Matcher(policy, drafts)
    asking: defaultdict[tuple[int, int | None], list[Need]] = defaultdict(list)
    matching: dict[Need, list[_Draft]] = {}
    for need in evidence_of_need:
        matching[need] = matcher.matching(need)
        for draft in matching[need]:
            asking[id(draft), need.service.port].append(need)
    pairs = [(draft, port) for draft in drafts for port in draft.ports]
    pairs.sort(key=lambda pair: len(asking[id(pair[0]), pair[1]]))
    for draft, port in pairs:
        needs_of_port = asking[id(draft), port]
        if all(len(matching[need]) > 1 for need in needs_of_port):
            del draft.ports[port]
            for need in needs_of_port:
                matching[need] = [other_draft for other_draft in matching[need] if other_draft is not draft]
    for need, evidence in evidence_of_need.items():
        matching[need][0].ports[need.service.port].add(evidence)
    return [draft for draft in drafts if draft.ports]


def _for_other_version(policy: Policy, drafts: Iterable[_Draft]) -> list[_Draft]:
    """Return the drafts without evidence that make rules whose peer is a group apply to both IP versions, and give
    existing drafts the ports that they lack.
    """
    versions = {
        (group, network.version)
        for instance in policy.instances for network in instance.addresses for group in instance.security_groups
    }  # fmt: skip
    named = {
        (*draft.part, draft.peer): draft for draft in drafts
        if isinstance(draft.peer, GroupPeer) and draft.protocol not in (ICMP, ICMPV6)
    }  # fmt: skip
    twins: list[_Draft] = []
    for (group, direction, family, protocol, peer), draft in named.items():
        other_version: Literal[4, 6] = 6 if family == 4 else 4
        if (group, other_version) in versions and (peer.name, other_version) in versions:
            twin = named.get((group, direction, other_version, protocol, peer))
            if twin is None:
                twin = _Draft(group, direction, other_version, protocol, peer)
                twins.append(twin)
            for port in draft.ports:
                twin.ports.setdefault(port, TrafficTotals())
    return twins


def _finished(policy: Policy, drafts: list[_Draft], too_few: frozenset[Kind]) -> Suggested:
    groups, suggested = [], []
    by_group: defaultdict[str, list[_Draft]] = defaultdict(list)
    for draft in drafts:
        by_group[draft.group].append(draft)
    for group in policy.security_groups:
        numbers = RuleNumbers(group.name)
        rules = []
        for draft in sorted(by_group[group.name], key=_order):
            for ports in _port_lists(draft):
                evidence = TrafficTotals()
                for port in ports:
                    evidence.add(draft.ports[port])
                rule = _rule(draft, ports, numbers.id_of(draft.direction))
                rules.append(rule)
                suggested.append(SuggestedRule(rule, group.name, evidence, draft.note, draft.denied_members))
        group_with_rules = SecurityGroup(group.name, tuple(rules), group.description, id=group.id, label=group.label)
        groups.append(group_with_rules)
    return Suggested(tuple(groups), tuple(suggested), too_few)


def _order(draft: _Draft) -> tuple[object, ...]:
    if isinstance(draft.peer, GroupPeer):
        peer: tuple[object, ...] = (1, draft.peer.name)
    else:
        peer = (0,) if draft.peer is None else (2, int(draft.peer.network_address), draft.peer.prefixlen)
    ports = sorted(-1 if port is None else port for port in draft.ports)
    return draft.direction, draft.family, draft.protocol, ports, peer


def _port_lists(draft: _Draft) -> list[list[int | None]]:
    ports = sorted(draft.ports, key=lambda port: -1 if port is None else port)
    return [[port] for port in ports] if draft.protocol in (ICMP, ICMPV6) else [ports]


def _rule(draft: _Draft, ports: list[int | None], rule_id: str) -> Rule:
    numbers = [port for port in ports if port is not None]
    is_icmp = draft.protocol == (ICMP if draft.family == 4 else ICMPV6)
    return Rule(
        rule_id, draft.direction, draft.family, draft.protocol,
        ports=union((port, port) for port in numbers) if numbers and not is_icmp else None,
        icmp_type=numbers[0] if is_icmp else None, peer=draft.peer,
    )  # fmt: skip
