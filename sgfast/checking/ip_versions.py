"""Finds services that a group opens over one IP version only, though its instances have addresses of both.

A rule for IPv4 that somebody forgot to write once more for IPv6 is seen by nobody but a client that tries IPv6 first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Literal

from sgfast.checking.codes import LISTED, ONE_VERSION, Finding, listed
from sgfast.checking.policy_index import Budget, Context, PolicyIndex
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Rule,
    SecurityGroup,
)
from sgfast.policy.rule_text import ports_text, protocol_text, rule_text
from sgfast.policy.rules import merged

#: The most questions whether a group has a rule about a service, each a microsecond or two.
MAX_LOOKS = 1_000_000

Service = tuple[int | None, int, int]
"""A protocol, and a range of its ports. ICMP is one service for both versions, whatever the types."""
_ANYTHING: Service = (None, 0, 0)
_PORTS = ((0, 65535),)

Key = tuple[int, int]
"""A rule: the position of its group, and its position in the group."""


def one_version_only(
    index: PolicyIndex, shadowed: Collection[tuple[str | None, str | None]]
) -> tuple[list[Finding], int]:
    """The findings, and how many sets of groups were skipped as too much work.

    ``shadowed``: the groups and ids of rules that never win, and so open nothing.
    """
    instances = index.policy.instances
    if not any(network.version == 6 for instance in instances for network in instance.addresses):
        return [], 0
    groups = index.policy.security_groups
    about = [_About(group) for group in groups]
    # What no rule of the same group is about over the other version. The other groups of an instance may have some.
    lonely = [
        [(n, rule, left) for n, rule in enumerate(group.rules)
         if (group.name, rule.id) not in shadowed and (left := _left(rule, group.name, [about[g]]))]
        for g, group in enumerate(groups)
    ]  # fmt: skip
    members = {
        (g, version): sum(
            any(network.version == version for network in instances[n].addresses) for n in index.members[group.name]
        )
        for g, group in enumerate(groups) for version in (4, 6)
    }  # fmt: skip
    budget = Budget(MAX_LOOKS)
    skipped = 0
    found: dict[Key, tuple[dict[Service, None], dict[str, None]]] = {}
    for context in index.contexts:
        looks = len(context.groups) * sum(len(left) for g in context.groups for *_, left in lonely[g])
        if not looks:
            continue
        if not budget.take(looks + len(context.instances)):
            skipped += 1
            continue
        names = _with_both(index, context)
        beside = [about[g] for g in context.groups]
        for g in context.groups:
            for n, rule, _ in lonely[g]:
                left = _left(rule, groups[g].name, beside)
                other = _other(rule)
                if not left or not names[other]:
                    continue
                if rule.peer == GroupPeer(groups[g].name) and members[g, other] < 2:
                    continue  # a member needs another one
                nobody = index.is_nobody(replace(rule, ethertype=other), context.vpc)
                skipped += nobody is None
                if nobody is False:
                    services, reached = found.setdefault((g, n), ({}, {}))
                    services.update(dict.fromkeys(left))
                    reached.update(dict.fromkeys(names[other]))
    return [*_findings(index, found)], skipped


def _findings(
    index: PolicyIndex, found: dict[Key, tuple[dict[Service, None], dict[str, None]]]
) -> Iterable[Finding]:
    """One finding for each rule. A service that several rules of a group open is told with the first of them."""
    told: set[tuple[int, Direction, int, Service]] = set()
    for (g, n), (services, reached) in sorted(found.items()):
        group = index.policy.security_groups[g]
        rule = group.rules[n]
        new = [each for each in services if (g, rule.direction, rule.ethertype, each) not in told]
        told.update((g, rule.direction, rule.ethertype, each) for each in new)
        if new:
            names = [*reached]
            version, verb = f"IPv{_other(rule)}", "has" if len(names) == 1 else "have"
            what = listed([_service_text(each) for each in new])
            message = (
                f"{rule_text(rule)}: no {rule.direction} rule is about {what} over {version}, though {listed(names)} "
                f"{verb} {version} addresses"
            )
            yield Finding(
                ONE_VERSION, message, group=group.name, rule=rule.id, instances=tuple(names[:LISTED]),
                instance_count=len(names),
            )  # fmt: skip


def _other(rule: Rule) -> Literal[4, 6]:
    return 6 if rule.ethertype == 4 else 4


class _About:
    """What the rules of a group are about, whether they allow or deny it: whoever wrote one has thought of it."""

    def __init__(self, group: SecurityGroup) -> None:
        ranges: defaultdict[tuple[Direction, int, bool], defaultdict[int | None, list[tuple[int, int]]]]
        ranges = defaultdict(lambda: defaultdict(list))
        for rule in group.rules:
            among_members = rule.action == "allow" and rule.peer == GroupPeer(group.name)
            for protocol, first, last in _services(rule):
                ranges[rule.direction, rule.ethertype, among_members][protocol].append((first, last))
        self._ranges = {
            key: {protocol: merged(each) for protocol, each in found.items()} for key, found in ranges.items()
        }

    def has(self, direction: Direction, version: int, service: Service, *, among_members: bool) -> bool:
        """Whether a rule is about a part of the service. Rules for members only count ``among_members``."""
        protocol, first, last = service
        for key in ((direction, version, False), (direction, version, True))[: 1 + among_members]:
            found = self._ranges.get(key, {})
            if found and (protocol is None or None in found):
                return True
            ranges = found.get(protocol, ())
            at = bisect_left(ranges, first, key=lambda each: each[1])
            if at < len(ranges) and ranges[at][0] <= last:
                return True
        return False


def _services(rule: Rule) -> list[Service]:
    if rule.protocol == (ICMP if rule.ethertype == 4 else ICMPV6):
        return [(ICMP, *_PORTS[0])]
    return [(rule.protocol, first, last) for first, last in rule.ports or _PORTS]


def _left(rule: Rule, group: str, about: Iterable[_About]) -> list[Service]:
    """What the rule opens and no rule is about over the other version.

    A rule for a CIDR opens nothing of the kind, since nothing tells the same place over the other version. Of outbound
    rules only those to any address count, and only where nothing at all gets out over the other version: who opens a
    connection can take the version that works.
    """
    if rule.action == "deny" or not (rule.peer is None or isinstance(rule.peer, GroupPeer | AddressGroupPeer)):
        return []
    if rule.direction == "outbound" and rule.peer is not None:
        return []
    services = [_ANYTHING] if rule.direction == "outbound" else _services(rule)
    is_own = rule.peer == GroupPeer(group)
    return [
        service for service in services
        if not any(each.has(rule.direction, _other(rule), service, among_members=is_own) for each in about)
    ]  # fmt: skip


def _with_both(index: PolicyIndex, context: Context) -> dict[int, list[str]]:
    """By the version that a rule lacks: the instances with addresses of it and, in any case, of IPv6."""
    names: dict[int, list[str]] = {4: [], 6: []}
    for n in context.instances:
        instance = index.policy.instances[n]
        versions = {network.version for network in instance.addresses}
        for version, those in names.items():
            if {6, version} <= versions:
                those.append(instance.name)
    return names


def _service_text(service: Service) -> str:
    protocol, first, last = service
    if protocol is None:
        return "anything"
    has_ports = protocol in PORT_PROTOCOLS and (first, last) != _PORTS[0]
    return protocol_text(protocol) + (f"/{ports_text(((first, last),))}" if has_ports else "")
