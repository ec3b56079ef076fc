"""Find the rules that a policy lacks for given connections (SPEC 10.15)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from sgfast.policy.loaded_policy import having
from sgfast.policy.matching import End, Kind, Packet, RuleInGroup, groups_of, misfit_fields, precedence, rules_of
from sgfast.policy.model import ICMP, ICMPV6, AddressGroupPeer, Direction, GroupPeer, Network, Policy, Rule
from sgfast.policy.templates import next_rule_id
from sgfast.suggesting.observing import TrafficTotals
from sgfast.suggesting.rules import Limits, Need, SuggestedRule, needs_of, suggest_rules

#: Reasons for which no rule is added.
DENY_RULE = "a deny rule is for these, and no added rule may overrule it"
NOT_PEERED = "denied whatever the rules: vpc-isolated"
NOTHING_MISSING = "denied for another reason than a missing rule"


@dataclass(frozen=True, slots=True)
class Missing:
    """Rules to add to a policy, and the connections for which there are none."""

    #: The rules, by group and direction. Their ids are those that the groups' next rules get (SPEC 2.5).
    rules: tuple[SuggestedRule, ...] = ()
    #: The connections that no added rule lets through, by reason and kind.
    left_out: Mapping[str, dict[Kind, TrafficTotals]] = field(default_factory=dict)

    def added_to(self, policy: Policy) -> Policy:
        """Return the policy with the rules behind those of their groups, whatever the quotas."""
        added: defaultdict[str, list[Rule]] = defaultdict(list)
        for each in self.rules:
            added[each.group].append(each.rule)
        return having(
            policy,
            security_groups=tuple(
                replace(group, rules=(*group.rules, *added[group.name])) if group.name in added else group
                for group in policy.security_groups
            ),
        )


def missing_rules(
    policy: Policy, kinds: Mapping[Kind, TrafficTotals], limits: Limits | None = None, winners: Winners | None = None
) -> Missing:
    """Return the fewest rules that ``policy`` lacks to let connections of these kinds through.

    ``kinds``: connections that the policy denies, with their evidence, which the rules get. The instances of a kind are
    those of the policy. ``limits``: how far rules may exceed these connections. ``winners``: what an earlier call found
    out about the same policy.

    Only an end without a matching rule gets one: the sender, the receiver, or both. An added rule never overrules a
    deny rule, because it has the priority of the policy's last deny rule, where denials come first (SPEC 4.10). A kind
    that a deny rule is for, or that no rule mends, is in ``left_out`` with its reason.
    """
    limits = limits or Limits()
    if policy.settings.profile == "aws":
        limits = replace(limits, both_versions=True)
    winners = winners or Winners(policy)
    left_out: defaultdict[str, dict[Kind, TrafficTotals]] = defaultdict(dict)
    needs: dict[Kind, list[Need]] = {}
    for kind, evidence in kinds.items():
        found = {need: winners.of(kind, need) for need in needs_of(kind)}
        unmet = [need for need, rule in found.items() if rule is None]
        if not winners.are_connected(kind):
            left_out[NOT_PEERED][kind] = evidence
        elif any(rule is not None and rule.action == "deny" for rule in found.values()):
            left_out[DENY_RULE][kind] = evidence
        elif not unmet:
            left_out[NOTHING_MISSING][kind] = evidence
        else:
            needs[kind] = unmet
    suggested = suggest_rules(policy, {kind: kinds[kind] for kind in needs}, limits, needs.__getitem__)
    for kind in needs:
        if kind in suggested.too_few:
            left_out[limits.too_few][kind] = kinds[kind]
    return Missing(tuple(_for_policy(policy, suggested.rules)), dict(left_out))


def _for_policy(policy: Policy, rules: Iterable[SuggestedRule]) -> Iterable[SuggestedRule]:
    """Yield the rules with ids that the policy does not have yet, and behind all its deny rules."""
    numbers = {group.name: dict(group.numbers) for group in policy.security_groups}
    denials = (rule for group in policy.security_groups for rule in group.rules if rule.action == "deny")
    priority = max((rule.priority for rule in denials), default=1)
    for each in rules:
        group, direction = policy.group_by_name[each.group], each.rule.direction
        rule_id = next_rule_id(group, direction, numbers[group.name], policy.group_of_rule)
        yield replace(each, rule=replace(each.rule, id=rule_id, priority=priority))


class Winners:
    """Find the rule that wins for one end of a connection (SPEC 4.10)."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known: dict[tuple[tuple[str, ...], Direction, Packet], _ByPeer] = {}

    def are_connected(self, kind: Kind) -> bool:
        """Return whether packets may pass between the VPCs of both ends."""
        ends = [self._policy.instance_by_name[name].vpc for name in (kind.egress, kind.ingress) if name is not None]
        return len(ends) < 2 or self._policy.connected(*ends)

    def of(self, kind: Kind, need: Need) -> Rule | None:
        """Return the rule that wins at the need's end; None if no rule matches."""
        instances, version = self._policy.instance_by_name, need.service.family
        here = instances[need.instance]
        peer = End(ip_address(need.peer), None if need.peer_instance is None else instances[need.peer_instance])
        is_icmp = kind.protocol == (ICMP if version == 4 else ICMPV6)
        packet = Packet(
            version, kind.protocol, None if is_icmp else kind.port, kind.port if is_icmp else None, kind.code
        )
        key = here.security_groups, need.service.direction, packet
        if key not in self._known:
            fitting = [
                each for each in rules_of(self._policy, here, need.service.direction)
                if {*misfit_fields(self._policy, each.rule, here, peer, packet)} <= {"source", "destination"}
            ]  # fmt: skip
            self._known[key] = _ByPeer(self._policy, sorted(fitting, key=lambda each: precedence(each.rule)))
        for each in self._known[key].near(peer):
            if not any(misfit_fields(self._policy, each.rule, here, peer, packet)):
                return each.rule
        return None


class _ByPeer:
    """Rules that match a service, by their peers. Many connections differ in their peer only."""

    def __init__(self, policy: Policy, rules: Sequence[RuleInGroup]) -> None:
        """``rules``: in order of precedence."""
        self._policy, self._rules = policy, rules
        self._any: list[int] = []
        self._named: defaultdict[str, list[int]] = defaultdict(list)
        #: By the number of host bits: the places of rules by the bits of their prefix.
        self._prefixes: defaultdict[int, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for place, each in enumerate(rules):
            match each.rule.peer:
                case None:
                    self._any.append(place)
                case GroupPeer(name):
                    self._named[name].append(place)
                case AddressGroupPeer(name):
                    for network in policy.address_group_by_name[name].addresses:
                        self._add(network, place)
                case network:
                    self._add(network, place)

    def _add(self, network: Network, place: int) -> None:
        host_bits = network.max_prefixlen - network.prefixlen
        self._prefixes[host_bits][int(network.network_address) >> host_bits].append(place)

    def near(self, peer: End) -> Iterator[RuleInGroup]:
        """Yield the rules that may match a peer, in order of precedence."""
        number = int(peer.address)
        places = [*self._any]
        if peer.instance is not None and self._named:
            for group in groups_of(self._policy, peer.instance, ip_network(peer.address.packed)):
                places += self._named.get(group, ())
        for host_bits, by_bits in self._prefixes.items():
            places += by_bits.get(number >> host_bits, ())
        yield from (self._rules[place] for place in sorted(places))
