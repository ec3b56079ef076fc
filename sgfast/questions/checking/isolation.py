"""Find members of one group that cannot reach each other, for the two usual causes:

    the inbound rule for traffic between members was deleted
    the members are in VPCs that are not peered, or in different regions, where group references do not work
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import combinations, islice

from sgfast.base.names import LISTED, listed
from sgfast.policy.model import GroupPeer, Network, Rule, called
from sgfast.questions.checking.codes import ISOLATED_MEMBERS, NO_SELF_RULE, Finding, FindingCode
from sgfast.questions.checking.policy_index import Budget, PolicyIndex
from sgfast.rules.addresses import named_networks

#: The most rules checked against members, for all groups together; each takes a few microseconds.
MAX_LOOKS = 500_000
#: The most pairs of VPCs examined for one group.
MAX_PAIRS = 10_000


def separated_members(index: PolicyIndex) -> tuple[list[Finding], int]:
    """Return the findings, and the number of groups that were skipped as too much work."""
    budget = Budget(MAX_LOOKS)
    receivers: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = [[] for _ in index.policy.security_groups]
    for context in index.contexts:
        for g in context.groups:
            receivers[g].append((context.groups, context.instances))
    findings: list[Finding] = []
    skipped = 0
    for g, group in enumerate(index.policy.security_groups):
        members = index.members[group.name]
        if len(members) < 2:
            continue
        messages: list[tuple[FindingCode, str]] = []
        cause = _isolated(index, members)
        if cause:
            messages.append((ISOLATED_MEMBERS, cause))
        meets = _Members(index, members, budget).let_in(receivers[g])
        skipped += meets is None
        if meets is False:
            cause = f"its {len(members):,} members cannot open a connection to each other: no inbound rule lets them in"
            messages.append((NO_SELF_RULE, cause))
        names = tuple(index.policy.instances[n].name for n in members[:LISTED])
        findings += [
            Finding(code, message, group=group.name, instances=names, instance_count=len(members))
            for code, message in messages
        ]
    return findings, skipped


def _isolated(index: PolicyIndex, members: list[int]) -> str:
    """Return a message on the VPCs or regions that separate members; empty if there are none (SPEC 7.2, 4.11)."""
    policy, vpc_of = index.policy, index.policy.vpc_by_name
    vpcs = list(dict.fromkeys(policy.instances[n].vpc for n in members))
    pairs = list(islice(combinations(vpcs, 2), MAX_PAIRS))
    vpc_pairs = [f"{called(vpc_of[a])} and {called(vpc_of[b])}" for a, b in pairs if not policy.connected(a, b)]
    if vpc_pairs:
        return f"its members are in VPCs that are not peered: {listed(vpc_pairs)}"
    foreign = [
        f"{called(vpc_of[a])} and {called(vpc_of[b])}" for a, b in pairs if vpc_of[a].region != vpc_of[b].region
    ]
    if foreign:
        return f"its members are in VPCs of different regions, which group references do not cross: {listed(foreign)}"
    return ""


class _Members:
    """The members of a group, indexed by their addresses."""

    def __init__(self, index: PolicyIndex, members: list[int], budget: Budget) -> None:
        self._index = index
        self._members = members
        self._budget = budget
        self._families = {
            family: [
                n for n in members
                if any(network.version == family for network in index.policy.instances[n].addresses)
            ]
            for family in (4, 6)
        }  # fmt: skip
        self._member_set = frozenset(members)
        self._owned = sorted(
            (network.version, int(network.network_address), network.prefixlen, n)
            for n in members
            for network in index.policy.instances[n].addresses
        )
        self._lengths = {(version, length) for version, _, length, _ in self._owned}

    def let_in(self, receivers: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> bool | None:
        """Return whether some rule allows packets from one member to another; None if that is too much work.

        ``receivers``: sets of groups, and the positions of the members that have them.
        """
        groups = self._index.policy.security_groups
        for in_groups, places in receivers:
            for g in in_groups:
                for rule in groups[g].rules:
                    if rule.direction != "inbound" or rule.action != "allow":
                        continue
                    if not self._budget.take(1 + len(self._members) // 100):
                        return None
                    senders = set(islice(self._senders(rule), 2))
                    # A single sender must have another member as its receiver.
                    if len(senders) > 1 or (senders and set(places) - senders):
                        return True
        return False

    def _senders(self, rule: Rule) -> Iterator[int]:
        """Yield the members that the rule's peer matches, in any VPC, each once. The caller needs only two."""
        if rule.peer is None:
            yield from self._families[rule.ethertype]
        elif isinstance(rule.peer, GroupPeer):
            yield from self._member_set & self._index.members_by_family[rule.peer.name, rule.ethertype]
        else:
            noted_senders: set[int] = set()
            for network in named_networks(self._index.policy, rule):
                for n in self._within(network):
                    if n not in noted_senders:
                        noted_senders.add(n)
                        yield n

    def _within(self, network: Network) -> Iterator[int]:
        """Yield the members with an address in a network."""
        version, first, last = network.version, int(network.network_address), int(network.broadcast_address)
        at = bisect_left(self._owned, (version, first, network.prefixlen, -1))
        while at < len(self._owned) and self._owned[at][0] == version and self._owned[at][1] <= last:
            yield self._owned[at][3]
            at += 1
        for version_, length in self._lengths:
            if version_ == version and length < network.prefixlen:
                around = int(network.supernet(new_prefix=length).network_address)
                at = bisect_left(self._owned, (version, around, length, -1))
                if at < len(self._owned) and self._owned[at][:3] == (version, around, length):
                    yield self._owned[at][3]
