"""Find instances whose prefixes make other instances members of their groups (SPEC 4.14)."""

from __future__ import annotations

from sgfast.checking.codes import WIDE_MEMBER, Finding, listed
from sgfast.checking.policy_index import Budget, PolicyIndex
from sgfast.policy.model import Network
from sgfast.policy.networks import network_key

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
    made: dict[tuple[str, bytes], tuple[Network, dict[str, None], set[str]]] = {}
    for instance in policy.instances:
        for network in instance.addresses:
            holders = policy.holders(instance.vpc, network)
            if not budget.take(len(holders) - 1):
                skipped += 1
                continue
            for holder in holders:
                groups = index.named_groups.intersection(holder.security_groups).difference(instance.security_groups)
                if not groups:
                    continue
                around = max(
                    (each for each in holder.addresses if each.version == network.version and _has(each, network)),
                    key=lambda each: each.prefixlen,
                )
                names = made.setdefault((holder.name, network_key(around)), (around, {}, set()))
                names[1][instance.name] = None
                names[2].update(groups)
    found = [
        Finding(
            WIDE_MEMBER,
            f"its prefix {around} contains addresses of {len(names):,} other "
            f"{'instance' if len(names) == 1 else 'instances'} ({listed(list(names))}), so rules that name "
            f"{listed(sorted(groups))} match {'it' if len(names) == 1 else 'them'}, too",
            instances=(holder,), instance_count=1,
        )
        for (holder, _), (around, names, groups) in made.items()
    ]  # fmt: skip
    return found, skipped


def _has(outer: Network, inner: Network) -> bool:
    return outer.prefixlen <= inner.prefixlen and inner.network_address in outer
