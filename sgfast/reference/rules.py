"""Find the rule that decides about an opener (SPEC 4.9 to 4.11)."""

from __future__ import annotations

from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.reference.addresses import is_multicast_or_broadcast
from sgfast.reference.table import GroupRule, Opener, Side


def winning_rule(policy: Policy, side: Side, opener: Opener) -> GroupRule | None:
    groups = [group for group in policy.security_groups if group.name in side.instance.security_groups]
    matching = [
        GroupRule(group.name, rule) for group in groups for rule in group.rules if matches(policy, rule, side, opener)
    ]
    # Precedence by SPEC 4.10. In a tie, ``min`` returns the first rule.
    return min(matching, key=lambda named: (named.rule.priority, named.rule.action != "deny"), default=None)


def matches(policy: Policy, rule: Rule, side: Side, opener: Opener) -> bool:
    dport = opener.responder[1] or 0
    return (
        rule.direction == ("outbound" if opener.outbound else "inbound")
        and rule.ethertype == opener.version
        and rule.protocol in (None, opener.protocol)
        and (rule.ports is None or any(first <= dport <= last for first, last in rule.ports))
        and rule.icmp_type in (None, opener.icmp_type)
        and rule.icmp_code in (None, opener.icmp_code)
        and _peer_matches(policy, rule, side)
    )


def _peer_matches(policy: Policy, rule: Rule, side: Side) -> bool:
    if rule.peer is None:
        return True
    if isinstance(rule.peer, GroupPeer):
        return _is_in_group(policy, rule.peer.name, side)
    if isinstance(rule.peer, AddressGroupPeer):
        return any(side.peer in network for network in policy.address_group_by_name[rule.peer.name].addresses)
    return side.peer in rule.peer


def _is_in_group(policy: Policy, group: str, side: Side) -> bool:
    """Return whether the peer's address is in the group, its region and an accessible VPC (SPEC 4.11, 4.14)."""
    owner = side.peer_instance
    if owner is None or is_multicast_or_broadcast(side.peer):
        return False
    members = [owner]
    if policy.settings.group_members == "by-address":
        members = [
            member for member in policy.instances
            if member.vpc == owner.vpc and any(side.peer in prefix for prefix in member.addresses)
        ]  # fmt: skip
    if not any(group in member.security_groups for member in members):
        return False
    vpcs = policy.vpc_by_name
    same_region = vpcs[owner.vpc].region == vpcs[side.instance.vpc].region
    return same_region and policy.connected(owner.vpc, side.instance.vpc)
