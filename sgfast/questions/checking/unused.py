"""Find unused parts of a policy: groups without instances, address groups that no rule names, rules whose peer is
nobody, and rules that no packet of some captures used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sgfast.base.names import listed
from sgfast.policy.model import DEFAULT_GROUP, AddressGroupPeer, GroupPeer, Rule, called
from sgfast.policy.rule_text import rule_name, rule_text
from sgfast.questions.checking.codes import EMPTY_SOURCE, NEVER_HIT, UNUSED_ADDRESS_GROUP, UNUSED_GROUP, Finding
from sgfast.questions.checking.policy_index import PolicyIndex
from sgfast.questions.replaying.removal import unseen_rules
from sgfast.traffic.flow_logs.unlogged import UnseenRule, unlogged_groups

if TYPE_CHECKING:
    from sgfast.questions.replaying import ReplayResult


def unused(index: PolicyIndex) -> list[Finding]:
    """Return findings for unused groups and address groups, except ``default``: it cannot be deleted (SPEC 8.1)."""
    policy = index.policy
    naming: dict[tuple[type, str], dict[str, None]] = defaultdict(dict)
    for group in policy.security_groups:
        for rule in group.rules:
            if isinstance(rule.peer, GroupPeer | AddressGroupPeer) and rule.peer != GroupPeer(group.name):
                first = policy._first_twin(rule)
                naming[type(rule.peer), rule.peer.name][rule_name(policy, first, group.name)] = None
    findings = []
    for group in policy.security_groups:
        if not index.members[group.name] and DEFAULT_GROUP not in (group.name, group.label):
            rules = [*naming[GroupPeer, group.name]]
            named = f"only the rules of other groups name it: {listed(rules)}" if rules else "no other group names it"
            findings.append(Finding(UNUSED_GROUP, f"no instance is in it, and {named}", group=group.name))
    for address_group in policy.address_groups:
        if not naming[AddressGroupPeer, address_group.name]:
            findings.append(Finding(UNUSED_ADDRESS_GROUP, "no rule names it", address_group=address_group.name))
    return findings


def empty_sources(index: PolicyIndex) -> tuple[list[Finding], int]:
    """Return findings for rules whose peer is nobody in all VPCs, and the number of rules skipped as too much work.

    Rules that name their own group are not reported: the usual rules between members have no effect until there is a
    second member, or an IPv6 address.
    """
    vpcs: list[dict[str, None]] = [{} for _ in index.policy.security_groups]
    for context in index.contexts:
        for g in context.groups:
            vpcs[g][context.vpc] = None
    is_one_vpc = len(index.policy.vpcs) == 1
    findings = []
    skipped = 0
    for g, group in enumerate(index.policy.security_groups):
        for rule in group.rules:
            if rule.peer == GroupPeer(group.name):
                continue
            if index.policy._first_twin(rule) is not rule:
                continue
            twin = index.policy.twins.get(rule.id, rule)
            if isinstance(rule.peer, GroupPeer) and not (is_one_vpc or group.vpc or index.members[group.name]):
                # Nobody knows the group's VPC, so that it may be that of any member of the peer.
                members = index.members_by_family
                means_nobody: set[bool | None] = {
                    not members.get((rule.peer.name, version_rule.ethertype)) for version_rule in (rule, twin)
                }
            else:
                means_nobody = {
                    index.is_nobody(version_rule, vpc, index.only_member.get((g, vpc)))
                    for version_rule in (rule, twin) for vpc in vpcs[g]
                }
            if None in means_nobody and False not in means_nobody:
                skipped += 1
            elif means_nobody == {True}:
                message = f"{rule_text(rule, index.policy)}: {_why(index, rule, twin, vpcs[g])}"
                findings.append(Finding(EMPTY_SOURCE, message, group=group.name, rule=rule.id))
    return findings, skipped


def _why(index: PolicyIndex, rule: Rule, twin: Rule, vpcs: Iterable[str]) -> str:
    """``twin``: the rule itself if it has no twin (SPEC 2.16)."""
    versions, word = {rule.ethertype, twin.ethertype}, f"IPv{rule.ethertype} " if twin is rule else ""
    if any(index.is_nobody(version_rule, vpc) is False for version_rule in (rule, twin) for vpc in vpcs):
        return "that is the instance itself, and what it sends to itself meets no rule"
    if isinstance(rule.peer, AddressGroupPeer):
        return f"{called(index.policy.address_group_by_name[rule.peer.name])} has no {word}address"
    assert isinstance(rule.peer, GroupPeer)
    members, peer = index.members[rule.peer.name], called(index.policy.group_by_name[rule.peer.name])
    if not members:
        return f"no instance is in {peer}"
    instances = index.policy.instances
    if not any(network.version in versions for n in members for network in instances[n].addresses):
        return f"no instance in {peer} has an {word}address"
    return f"the instances in {peer} are in VPCs that are not peered with the rule's VPC, or in other regions"


def never_hit(result: ReplayResult) -> tuple[list[Finding], list[UnseenRule]]:
    """Return findings for rules that a causal replay never used, and the unused rules about which flow logs cannot
    tell. Packets after a denied opener use none (SPEC 9.2). Rules of groups that were not wholly logged count as used.
    """
    packets = f"{result.packets:,} packet{'' if result.packets == 1 else 's'}"
    policy = result.policy
    unlogged = unlogged_groups(policy, result.records)
    used = {policy._first_twin(hits.rule).id for hits in result.rules if hits.packets or hits.connections}
    unused_rules = [
        (group, rule) for group in policy.security_groups for rule in group.rules
        if rule.id not in used and policy._first_twin(rule) is rule and group.name not in unlogged
    ]  # fmt: skip
    unseen_by_rule = {unseen_rule.rule.id: unseen_rule for unseen_rule in unseen_rules(result)}
    findings = [
        Finding(NEVER_HIT, f"{rule_text(rule, policy)}: none of {packets} used it", group=group.name, rule=rule.id)
        for group, rule in unused_rules
        if rule.id not in unseen_by_rule
    ]
    return findings, [*unseen_by_rule.values()]
