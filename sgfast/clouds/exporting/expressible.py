"""Rewrite the rules of a policy into rules that a target can express and that have the same effect (SPEC 13.3)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import Literal

from sgfast.base.errors import ExportError
from sgfast.clouds.linux.address_sets import VpcView, views
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Peer,
    Policy,
    Rule,
    SecurityGroup,
    Settings,
)
from sgfast.policy.profile_data import ProfileName
from sgfast.policy.profiles import PROFILES
from sgfast.policy.ranges import ALL_PORTS, Ranges, difference
from sgfast.policy.rule_text import rule_text
from sgfast.policy.yaml_nodes import shown_origin
from sgfast.rules.addresses import ANYWHERE, networks_of

#: The limit for the rules that one rule may become. No group of a cloud may have more rules.
_MOST_PARTS = 1_000
#: The limit for the rules of all groups together. Their calls as JSON take a gigabyte of memory.
_MOST_RULES = 200_000
#: The limit for comparisons of rules with deny rules and address groups, and of the groups of one instance with each
#: other. All comparisons together take about ten seconds.
_MOST_COMPARISONS = 4_000_000

#: The number of groups that a warning names at most.
_LISTED_GROUPS = 5


@dataclass(frozen=True)
class Target:
    """The abilities of a target of exports."""

    title: str
    #: The profile whose settings are the target's own (SPEC 6.7).
    profile: ProfileName
    #: Whether rules have an action and a priority.
    has_denies: bool = False
    #: Whether a rule can have several ranges of ports.
    has_port_lists: bool = False
    has_address_groups: bool = False
    #: The pattern of ids of address groups that exist at the target. Without ``has_address_groups``, rules name the
    #: CIDRs of all other address groups.
    address_group_id: re.Pattern[str] | None = None
    has_stateless_groups: bool = False
    #: Whether a rule whose peer is a group always applies to both IPv4 and IPv6.
    has_groups_of_both: bool = False
    #: The protocols whose rules can have ports.
    port_protocols: frozenset[int] = PORT_PROTOCOLS

    @property
    def first_port(self) -> int:
        return PROFILES[self.profile].first_port

    def has_address_group(self, group: AddressGroup) -> bool:
        pattern = self.address_group_id
        return self.has_address_groups or (
            pattern is not None and any(map(pattern.fullmatch, (group.id, group.name)))
        )


class _Inexpressible(Exception):
    """The error that a target cannot express a rule. Its argument is the reason."""


def expressible(policy: Policy, target: Target) -> Policy:
    """Return a policy with the same verdict for every packet, but only with rules that the target supports. Its
    warnings are for the readers of the export.

    Raises ExportError with a line for each rule, group or setting that the target cannot express.
    """
    problems = [*_setting_errors(policy.settings, target)]
    if not target.has_stateless_groups:
        problems += [
            f"security group {group.name!r}: is stateless, which {target.title} does not have"
            for group in policy.security_groups if not group.stateful
        ]  # fmt: skip
    rewriter = _Rewriter(policy, target)
    groups = [rewriter.group(group) for group in policy.security_groups]
    if problems := [*problems, *rewriter.problems]:
        raise ExportError(shown_origin(policy.origin), *problems)
    return replace(
        policy,
        security_groups=tuple(groups),
        address_groups=tuple(group for group in policy.address_groups if target.has_address_group(group)),
        warnings=tuple(rewriter.warnings()),
    )


def _setting_errors(settings: Settings, target: Target) -> Iterator[str]:
    profile = PROFILES[target.profile]
    of_target, stated, defaults = (_flat(part_settings) for part_settings in (profile.settings, settings, Settings()))
    of_some = {f"timeouts.{name}": value for name, value in profile.timeouts_of_some.items()}
    of_profile = _flat(PROFILES[settings.profile].settings)
    # A default of SPEC 2 is accepted if the profile has the same value, because the document need not have stated it.
    wrong = {
        name: value for name, value in stated.items()
        if value not in (of_target[name], of_some.get(name)) and not (value == defaults[name] == of_profile[name])
    }  # fmt: skip
    if any(value == of_profile[name] for name, value in wrong.items()):
        yield (
            f"settings.profile: {target.title} does not have {settings.profile}; leave it out, or write "
            f"{target.profile}"
        )
    for name, value in wrong.items():
        if value != of_profile[name]:
            yield f"settings.{name}: {target.title} does not have {value}; leave it out, or write {of_target[name]}"


def _flat(settings: Settings) -> dict[str, object]:
    """Return the settings by name, except ``max_connections``, which is no cloud's (SPEC 6.8), and ``profile``, which
    only selects defaults.
    """
    values = asdict(settings)
    del values["max_connections"], values["profile"]
    timeouts = values.pop("timeouts")
    return values | {f"timeouts.{name}": value for name, value in timeouts.items()}


class _Rewriter:
    def __init__(self, policy: Policy, target: Target) -> None:
        self._policy = policy
        self._target = target
        self.problems: list[str] = []
        self._rules = 0
        self._comparisons = 0
        #: The IP versions of the addresses of each group's members.
        self._versions: dict[str, set[int]] = defaultdict(set)
        #: The VPC of each group's instances. It is only used for targets whose groups are in one VPC each.
        self._vpc: dict[str, str] = {}
        for instance in policy.instances:
            for name in instance.security_groups:
                self._versions[name] |= {address.version for address in instance.addresses}
                self._vpc[name] = instance.vpc
        #: By VPC: the addresses of members as this VPC sees them, by group and IP version.
        self._member_ranges: dict[str, Mapping[tuple[str, int], Ranges]] = {}
        #: The groups as peers that were replaced by the addresses of their members.
        self._by_address: set[str] = set()
        self._members: Counter[str] = Counter()
        self._denying: dict[str, list[Rule]] = {}
        #: By group: the groups with deny rules that share instances with it, and the number of shared instances.
        self._sharing_denies: dict[str, Counter[str]] = defaultdict(Counter)
        if not target.has_denies:
            self._read_denies()

    def _read_denies(self) -> None:
        for group in self._policy.security_groups:
            if denies := [part for rule in group.rules if rule.action == "deny" for part in self._in_cidrs(rule)]:
                self._denying[group.name] = denies
                self._sharing_denies[group.name][group.name] = 0
        for instance in self._policy.instances if self._denying else ():
            denying = [name for name in instance.security_groups if name in self._denying]
            self._count(len(denying) * len(instance.security_groups))
            self._members.update(instance.security_groups)
            for name in instance.security_groups:
                self._sharing_denies[name].update(denying)

    def group(self, group: SecurityGroup) -> SecurityGroup:
        """Return the group with rewritten rules. For each rule that cannot be expressed, add a line to ``problems``."""
        parts_of_rules: list[tuple[Rule, list[Rule]]] = []
        for rule in group.rules:
            if rule.action == "allow" or self._target.has_denies:
                try:
                    parts_of_rules.append((rule, [*self._parts(group, rule)]))
                except _Inexpressible as reason:
                    self._problem(group, rule, reason)
                else:
                    self._add(len(parts_of_rules[-1][1]))
        if self._target.has_groups_of_both:
            return replace(group, rules=tuple(self._rules_for_both_versions(group, parts_of_rules)))
        return replace(group, rules=tuple(part for _, parts in parts_of_rules for part in parts))

    def _add(self, rules: int) -> None:
        """Count the rules that are made. Raises ExportError if they are too many."""
        self._rules += rules
        if self._rules > _MOST_RULES:
            message = f"{self._target.title} would need more than {_MOST_RULES:,} rules; export fewer groups"
            raise ExportError(shown_origin(self._policy.origin), message)

    def _problem(self, group: SecurityGroup, rule: Rule, reason: object) -> None:
        self.problems.append(f"security group {group.name!r}, rule {rule.id} ({rule_text(rule)}): {reason}")

    def _parts(self, group: SecurityGroup, rule: Rule) -> Iterator[Rule]:
        target = self._target
        parts = [rule]
        if not target.has_denies:
            parts = [replace(part, priority=1) for part in self._without_denied(group, rule)]
        parts = [expanded for part in parts for expanded in self._with_address_group(part)]
        if not target.has_port_lists:
            of_one_range = (ranged for part in parts for ranged in self._rules_of_one_range(part))
            parts = [*islice(of_one_range, _MOST_PARTS + 1)]
        if len(parts) > _MOST_PARTS:
            raise _Inexpressible(f"{target.title} would need more than {_MOST_PARTS:,} rules for it")
        for number, part in enumerate(parts, 1):
            ports = part.ports
            if ports is not None and part.protocol not in target.port_protocols:
                raise _Inexpressible(f"{target.title} has no ports for this protocol")
            if ports is not None and ports[0][0] < target.first_port:
                raise _Inexpressible(f"{target.title} has no port 0; begin with port {target.first_port}")
            yield replace(part, id=f"{rule.id}/{number}" if number > 1 else rule.id)

    def _rules_of_one_range(self, rule: Rule) -> list[Rule]:
        ports = rule.ports
        if ports is None:
            return [rule]
        if self._target.first_port == 1 and ports == ((1, 65535),):
            # These are all ports except 0. A target without port 0 would read the range as all ports of the protocol.
            ports = ((1, 32767), (32768, 65535))
        return [replace(rule, ports=(port_range,)) for port_range in ports]

    def _with_address_group(self, rule: Rule) -> list[Rule]:
        """Replace the rule's address group by its CIDRs, unless the target has the address group."""
        if not isinstance(rule.peer, AddressGroupPeer):
            return [rule]
        group = self._policy.address_group_by_name[rule.peer.name]
        return [rule] if self._target.has_address_group(group) else self._in_cidrs(rule)

    def _in_cidrs(self, rule: Rule) -> list[Rule]:
        """Replace the rule's address group by its CIDRs: one rule for each."""
        if not isinstance(rule.peer, AddressGroupPeer):
            return [rule]
        addresses = self._policy.address_group_by_name[rule.peer.name].addresses
        self._count(len(addresses))
        peers = [address for address in addresses if address.version == rule.ethertype]
        return [replace(rule, peer=peer) for peer in peers]

    def _rules_for_both_versions(
        self, group: SecurityGroup, rewritten: Sequence[tuple[Rule, list[Rule]]]
    ) -> list[Rule]:
        """Rewrite rules for a target whose rules with a group as peer always apply to both IP versions.

        A rule for one version gets a rule for the other version if that changes no verdict. Otherwise it names the
        addresses of the group's members. ``rewritten``: rules of the policy, each with the rules that it became.
        """
        existing = {part.without_words() for _, parts in rewritten for part in parts}
        expanded_rules: list[Rule] = []
        twins: dict[Rule, Rule] = {}
        for rule, parts in rewritten:
            becomes: list[Rule] = []
            for part in parts:
                version: Literal[4, 6] = 6 if part.ethertype == 4 else 4
                twin = replace(part, id=f"{part.id}/ipv{version}", ethertype=version)
                wordless = twin.without_words()
                if not isinstance(part.peer, GroupPeer) or part.protocol in (ICMP, ICMPV6) or wordless in existing:
                    becomes.append(part)
                elif version in self._versions[group.name] and version in self._versions[part.peer.name]:
                    becomes += self._with_addresses(group, part, part.peer.name)
                else:
                    # The rule of the other version matches no packet: one of the groups has no address of this version.
                    becomes.append(part)
                    twins[wordless] = twin
                if len(becomes) > _MOST_PARTS:
                    reason = (
                        f"{self._target.title} has no rule with a group for IPv{part.ethertype} alone, and with the "
                        f"CIDRs of the members it becomes more than {_MOST_PARTS:,} rules; add the same rule for the "
                        "other IP version"
                    )
                    self._problem(group, rule, reason)
                    break
            self._add(len(becomes) - len(parts))
            expanded_rules += becomes
        self._add(len(twins))
        return [*expanded_rules, *twins.values()]

    def _with_addresses(self, group: SecurityGroup, rule: Rule, peer: str) -> list[Rule]:
        """Replace the group ``peer`` in a rule by the CIDRs of its members: one rule for each. If they are too many,
        return one rule more than the limit.
        """
        vpc = self._vpc[group.name]
        if vpc not in self._member_ranges:
            self._member_ranges[vpc] = self._views[vpc].members(self._versions)
        members = networks_of(rule.ethertype, self._member_ranges[vpc].get((peer, rule.ethertype), ()))
        self._by_address.add(peer)
        return [
            replace(rule, id=f"{rule.id}/{n}" if n > 1 else rule.id, peer=network)
            for n, network in enumerate(islice(members, _MOST_PARTS + 1), 1)
        ]

    @cached_property
    def _views(self) -> Mapping[str, VpcView]:
        """The view of each VPC."""
        return views(self._policy, self._vpc.values())

    def warnings(self) -> Iterator[str]:
        if names := sorted(self._by_address):
            listed = ", ".join(names[:_LISTED_GROUPS])
            rest_text = f" and {len(names) - _LISTED_GROUPS:,} others" if len(names) > _LISTED_GROUPS else ""
            yield f"In {self._target.title} a rule with a group is for both IPv4 and IPv6."
            yield (
                f"So rules for one of them name the addresses of the members of {listed}{rest_text}. Export again when "
                "the members change, or add the same rules for the other version, which opens more: they then name the "
                "group."
            )

    def _without_denied(self, group: SecurityGroup, rule: Rule) -> list[Rule]:
        """Return rules for the part of an allow rule that no deny rule with precedence denies (SPEC 4.10)."""
        if not (sharing := self._sharing_denies.get(group.name)):
            return [rule]
        whole = parts = self._in_cidrs(rule)
        for denying, shared in sharing.items():
            for deny in self._denying[denying]:
                self._count(len(parts) + 1)
                if deny.priority > rule.priority or deny.direction != rule.direction:
                    continue
                remaining = [allowed for part in parts for allowed in _minus(part, deny)]
                if len(remaining) > _MOST_PARTS:
                    raise _Inexpressible(f"without what {deny.id} denies it becomes more than {_MOST_PARTS:,} rules")
                if remaining != parts and denying != group.name and shared < self._members[group.name]:
                    raise _Inexpressible(
                        f"{deny.id} denies part of it, but only for those instances that are also in {denying!r}"
                    )
                parts = remaining
        return [rule] if parts == whole else parts

    def _count(self, steps: int) -> None:
        self._comparisons += steps
        if self._comparisons > _MOST_COMPARISONS:
            raise ExportError(
                shown_origin(self._policy.origin),
                f"to rewrite the rules for {self._target.title} takes more than {_MOST_COMPARISONS:,} comparisons with "
                "deny rules and with address groups; export fewer groups",
            )


def _minus(allow: Rule, deny: Rule) -> list[Rule]:
    """Return rules for the packets that ``allow`` matches and ``deny`` does not. Raises _Inexpressible if they would be
    too many.
    """
    if allow.ethertype != deny.ethertype or _are_apart(allow.protocol, deny.protocol):
        return [allow]
    if _are_apart(allow.icmp_type, deny.icmp_type) or _are_apart(allow.icmp_code, deny.icmp_code):
        return [allow]
    ports = difference(allow.ports or ALL_PORTS, deny.ports or ALL_PORTS)
    if ports == (allow.ports or ALL_PORTS):
        return [allow]
    peers = _peers_beside(allow, deny)
    if peers is None:
        return [allow]
    common, remaining = peers
    allowed = [replace(allow, peer=peer) for peer in remaining]
    for name in ("protocol", "icmp_type", "icmp_code"):
        if getattr(allow, name) is None and getattr(deny, name) is not None:
            raise _Inexpressible(f"{deny.id} denies part of it, and what is left is not a few rules")
    if ports:
        allowed.append(replace(allow, peer=common, ports=ports))
    return allowed


def _are_apart(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and a != b


def _peers_beside(allow: Rule, deny: Rule) -> tuple[Peer, list[Peer]] | None:
    """Return the peer that both rules match, and the peers that only ``allow`` matches. None: no common addresses."""
    if deny.peer is None or deny.peer == allow.peer:
        return allow.peer, []
    whole = allow.peer or ANYWHERE[allow.ethertype]
    if not isinstance(whole, IPv4Network | IPv6Network) or not isinstance(deny.peer, IPv4Network | IPv6Network):
        raise _Inexpressible(f"{deny.id} denies part of it; only of CIDRs can a part be taken out")
    if whole.version != deny.peer.version or not whole.overlaps(deny.peer):
        return None
    if whole.prefixlen >= deny.peer.prefixlen:
        return allow.peer, []
    return deny.peer, list(whole.address_exclude(deny.peer))  # type: ignore[arg-type]
