"""Find instances whose prefixes make other instances members of their groups (SPEC 4.14)."""

from __future__ import annotations

from sgfast.base.names import listed
from sgfast.policy.model import Network, called
from sgfast.policy.networks import network_key
from sgfast.questions.checking.codes import WIDE_MEMBER, Finding
from sgfast.questions.checking.policy_index import Budget, PolicyIndex

#: The most pairs of a prefix and a prefix within it. Each pair takes a few microseconds and a hundred bytes.
MAX_PAIRS = 500_000


def wide_members(index: PolicyIndex) -> tuple[list[Finding], int]:
    """Return one finding for each prefix, and the number of prefixes that were not examined as too much work.

    Only groups that a rule names count, and only for instances that are not in the group themselves.
    """
    policy = index.policy
    if policy.settings.group_members == "by-owner":
        return [], 0
    budget, skipped = Budget(MAX_PAIRS), 0
    #: By holder and prefix: the prefix, the other instances within it, and the groups that they become members of.
    wide_prefixes: dict[tuple[str, bytes], tuple[Network, dict[str, None], set[str]]] = {}
    for instance in policy.instances:
        for network in instance.addresses:
            holders = policy._holders(instance.vpc, network)
            if not budget.take(len(holders) - 1):
                skipped += 1
                continue
            for holder in holders:
                groups = index.named_groups.intersection(holder.security_groups).difference(instance.security_groups)
                if not groups:
                    continue
                around = max(
                    (
                        prefix
                        for prefix in holder.addresses
                        if prefix.version == network.version and _has(prefix, network)
                    ),
                    key=lambda prefix: prefix.prefixlen,
                )
                names = wide_prefixes.setdefault((holder.name, network_key(around)), (around, {}, set()))
                names[1][instance.name] = None
                names[2].update(groups)
    findings = []
    for (holder_name, _), (within, other_names, member_of) in wide_prefixes.items():
        instances = listed([called(policy.instance_by_name[name]) for name in other_names])
        named = listed([called(policy.group_by_name[name]) for name in sorted(member_of)])
        noun, pronoun = ("instance", "it") if len(other_names) == 1 else ("instances", "them")
        message = (
            f"its prefix {within} contains addresses of {len(other_names):,} other {noun} ({instances}), so rules that "
            f"name {named} match {pronoun}, too"
        )
        findings.append(Finding(WIDE_MEMBER, message, instances=(holder_name,), instance_count=1))
    return findings, skipped


def _has(outer: Network, inner: Network) -> bool:
    return outer.prefixlen <= inner.prefixlen and inner.network_address in outer
