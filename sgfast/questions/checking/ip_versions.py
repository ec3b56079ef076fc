"""Find services that a group opens over one IP version only, though its instances have addresses of both.

If an author forgot to repeat a rule for the other version, only clients that use this version notice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from sgfast.base.names import LISTED, listed
from sgfast.policy.model import (
    ICMP,
    PORT_PROTOCOLS,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Peer,
    Rule,
    SecurityGroup,
    called,
)
from sgfast.policy.ranges import ALL_PORTS, Range, Ranges, lowest, union
from sgfast.policy.rule_text import ports_text, protocol_text, rule_text
from sgfast.questions.checking.codes import ONE_VERSION, Finding
from sgfast.questions.checking.policy_index import Budget, Context, PolicyIndex
from sgfast.rules.services import EVERY_SERVICE, ICMP_OF, KEYS, whole

#: Steps for all rules together, of roughly a tenth of a microsecond each.
MAX_STEPS = 30_000_000
#: Steps for the question whether a group has a rule about a service.
LOOK_STEPS = 20
#: Steps for a rule in a set of groups.
ASKING_STEPS = 20

RuleKey = tuple[int, int]
"""A rule: the position of its group, and its position in the group."""


def one_version_only(
    index: PolicyIndex, shadowed: Collection[tuple[str | None, str | None]]
) -> tuple[list[Finding], int]:
    """Return the findings, and the number of rules that were not checked in every context, as too much work.

    ``shadowed``: the groups and ids of rules that never win, and so open nothing.
    """
    instances = index.policy.instances
    if not any(network.version == 6 for instance in instances for network in instance.addresses):
        return [], 0
    groups = index.policy.security_groups
    budget = Budget(MAX_STEPS)
    skipped: set[RuleKey] = set()
    without_counterpart = _rules_without_counterpart(groups, shadowed, budget, skipped)
    members = {
        (g, version): sum(
            any(network.version == version for network in instances[n].addresses) for n in index.members[group.name]
        )
        for g, group in enumerate(groups) for version in (4, 6)
    }  # fmt: skip
    findings: dict[RuleKey, _Found] = {}
    nobody: dict[tuple[Peer, int, str], bool | None] = {}
    for context in index.contexts:
        candidates = [(g, *candidate) for g in context.groups for candidate in without_counterpart[g]]
        if not candidates:
            continue
        if not budget.take(ASKING_STEPS * len(candidates) + len(context.instances)):
            skipped.update((g, n) for g, n, *_ in candidates)
            continue
        names = _dual_stack_instances(index, context)
        beside = sum(1 << g for g in context.groups)
        for g, n, rule, open_services in candidates:
            services = [service for service, answer in open_services if not answer & beside]
            other_version = _other_ip_version(rule)
            if not services or not names[other_version]:
                continue
            if rule.peer == GroupPeer(groups[g].name) and members[g, other_version] < 2:
                continue  # a member has no other member as its peer
            peer = rule.peer, other_version, context.vpc
            if peer not in nobody:
                nobody[peer] = index.is_nobody(replace(rule, ethertype=other_version), context.vpc)
            if nobody[peer] is None:
                skipped.add((g, n))
            elif not nobody[peer]:
                finding = findings.setdefault((g, n), _Found({}, []))
                finding.services.update(dict.fromkeys(services))
                finding.names.append(names[other_version])
    return [*_findings(index, findings)], len(skipped)


def _rules_without_counterpart(
    groups: Sequence[SecurityGroup], shadowed: Collection[tuple[str | None, str | None]], budget: Budget,
    skipped: set[RuleKey],
) -> list[list[tuple[int, Rule, list[tuple[Range, int]]]]]:  # fmt: skip
    """Return the rules of each group with the services that no rule of the group is about over the other version. Each
    service comes with the groups that are about it, as bits: an instance may be in one of these groups, too.
    """
    by_service = _GroupsByService(groups, budget)
    without_counterpart: list[list[tuple[int, Rule, list[tuple[Range, int]]]]] = [[] for _ in groups]
    for g, group in enumerate(groups):
        for n, rule in enumerate(group.rules):
            if (group.name, rule.id) in shadowed:
                continue
            answers = [(service, by_service.groups(rule, group.name, service)) for service in _opened(rule)]
            if any(answer is None for _, answer in answers):
                skipped.add((g, n))
            open_services = [
                (service, answer) for service, answer in answers if answer is not None and not answer >> g & 1
            ]
            if open_services:
                without_counterpart[g].append((n, rule, open_services))
    return without_counterpart


class _Found(NamedTuple):
    """Services that a rule opens over one version only, and the names of its instances, by context."""

    services: dict[Range, None]
    names: list[list[str]]


def _findings(index: PolicyIndex, findings: dict[RuleKey, _Found]) -> Iterable[Finding]:
    """Yield one finding for each rule. A service that several rules of a group open is reported with the first rule."""
    reported: set[tuple[int, Direction, int, Range]] = set()
    for (g, n), (services, by_context) in sorted(findings.items()):
        group = index.policy.security_groups[g]
        rule = group.rules[n]
        new = [service for service in services if (g, rule.direction, rule.ethertype, service) not in reported]
        reported.update((g, rule.direction, rule.ethertype, service) for service in new)
        if new:
            names = [name for names in by_context for name in names]
            version_name, verb = f"IPv{_other_ip_version(rule)}", "has" if len(names) == 1 else "have"
            policy = index.policy
            instances = [called(policy.instance_by_name[name]) for name in names]
            lacking_services = listed([_service_text(service) for service in new])
            message = (
                f"{rule_text(rule, policy)}: no {rule.direction} rule is about {lacking_services} over {version_name}, "
                f"though {listed(instances)} {verb} {version_name} addresses"
            )
            yield Finding(
                ONE_VERSION, message, group=group.name, rule=rule.id, instances=tuple(names[:LISTED]),
                instance_count=len(names),
            )  # fmt: skip


def _other_ip_version(rule: Rule) -> Literal[4, 6]:
    return 6 if rule.ethertype == 4 else 4


def _services(rule: Rule) -> list[Range]:
    """Return the services that the rule is about. ICMP is one service for both versions, whatever the types."""
    if rule.protocol is None:
        return [*EVERY_SERVICE]
    if rule.protocol == ICMP_OF[rule.ethertype]:
        return [whole(ICMP)]
    base = rule.protocol * KEYS
    return [(base + first, base + last) for first, last in rule.ports or ALL_PORTS]


def _opened(rule: Rule) -> list[Range]:
    """Return the services that the rule opens, if they could be open over the other version, too.

    A rule for a CIDR has no services here, since nothing names the same hosts over the other version. Of outbound rules
    only rules for any address count, and only if nothing else is allowed out over the other version: a client can use
    the version that works.
    """
    if rule.action == "deny" or not (rule.peer is None or isinstance(rule.peer, GroupPeer | AddressGroupPeer)):
        return []
    if rule.direction == "outbound":
        return [*EVERY_SERVICE] if rule.peer is None else []
    return _services(rule)


class _GroupsByService:
    """The groups that have a rule about a service. Even a deny rule shows that its author considered it."""

    def __init__(self, groups: Sequence[SecurityGroup], budget: Budget) -> None:
        #: Services by group, and by direction, version, and whether only members may use them.
        self._services_of_group = [defaultdict[tuple[Direction, int, bool], Ranges](tuple) for _ in groups]
        for of_group, group in zip(self._services_of_group, groups, strict=True):
            ranges_of_kind: defaultdict[tuple[Direction, int, bool], list[Range]] = defaultdict(list)
            for rule in group.rules:
                among_members = rule.action == "allow" and rule.peer == GroupPeer(group.name)
                ranges_of_kind[rule.direction, rule.ethertype, among_members] += _services(rule)
            of_group.update((key, union(services)) for key, services in ranges_of_kind.items())
        self._budget = budget
        self._rule_of_range: dict[tuple[Direction, int, bool, Range], int | None] = {}

    def groups(self, rule: Rule, group: str, service: Range) -> int | None:
        """Return the groups that are about a part of the service over the other version, as bits by position; None
        if that is too much work. Rules between members only count for services between members.
        """
        is_own = rule.peer == GroupPeer(group)
        key = rule.direction, _other_ip_version(rule), is_own, service
        if key not in self._rule_of_range:
            self._rule_of_range[key] = None
            if self._budget.take(LOOK_STEPS * len(self._services_of_group)):
                self._rule_of_range[key] = sum(
                    1 << g for g, of_group in enumerate(self._services_of_group)
                    if any(
                        lowest(of_group[rule.direction, _other_ip_version(rule), among_members], *service) is not None
                        for among_members in {False, is_own}
                    )
                )  # fmt: skip
        return self._rule_of_range[key]


def _dual_stack_instances(index: PolicyIndex, context: Context) -> dict[int, list[str]]:
    """Return, by IP version, the names of the instances that have addresses of this version and of IPv6."""
    names: dict[int, list[str]] = {4: [], 6: []}
    for n in context.instances:
        instance = index.policy.instances[n]
        versions = {network.version for network in instance.addresses}
        for version, of_version in names.items():
            if {6, version} <= versions:
                of_version.append(instance.name)
    return names


def _service_text(service: Range) -> str:
    if (service,) == EVERY_SERVICE:
        return "anything"
    protocol, first = divmod(service[0], KEYS)
    ports = first, service[1] % KEYS
    has_ports = protocol in PORT_PROTOCOLS and ports != ALL_PORTS[0]
    return protocol_text(protocol) + (f"/{ports_text((ports,))}" if has_ports else "")
