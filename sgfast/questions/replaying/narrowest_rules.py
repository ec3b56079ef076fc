"""Replay captures so that, of the rules that let a packet through, the narrowest one counts as used (SPEC 10.12).

By default the first one in the document does. Clouds do not keep rules in an order, so that an import may list them in
any.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from sgfast.policy.loaded_policy import having
from sgfast.policy.matching import precedence
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.policy.ranges import union
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.results import ReplayResult, Sinks
from sgfast.questions.replaying.run import run_replay
from sgfast.rules.services import KEYS, key_ranges


class RuleSizes:
    """The number of combinations of a peer's address and a service that each rule of a policy matches."""

    def __init__(self, policy: Policy) -> None:
        #: By name of a group and IP version.
        self._member_addresses: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._listed_addresses: defaultdict[tuple[str, int], int] = defaultdict(int)
        for instance in policy.instances:
            for group in instance.security_groups:
                for network in instance.addresses:
                    self._member_addresses[group, network.version] += network.num_addresses
        for address_group in policy.address_groups:
            for version in (4, 6):
                networks = [network for network in address_group.addresses if network.version == version]
                ranges = union((int(network.network_address), int(network.broadcast_address)) for network in networks)
                self._listed_addresses[address_group.name, version] = sum(last - first + 1 for first, last in ranges)

    def of(self, rule: Rule) -> int:
        """Return the size of a rule."""
        if isinstance(rule.peer, GroupPeer):
            addresses = self._member_addresses[rule.peer.name, rule.ethertype]
        elif isinstance(rule.peer, AddressGroupPeer):
            addresses = self._listed_addresses[rule.peer.name, rule.ethertype]
        elif rule.peer is None:
            addresses = 1 << (32 if rule.ethertype == 4 else 128)
        else:
            addresses = rule.peer.num_addresses
        if rule.protocol is None:
            return addresses * 256 * KEYS
        ranges = key_ranges(rule)
        return addresses * (KEYS if ranges is None else sum(last - first + 1 for first, last in ranges))


def replay_narrowest_first(
    policy: Policy, captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], options: ReplayOptions,
    sinks: Sinks, progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:  # fmt: skip
    """Replay captures as ``run_replay`` does. Of rules with equal precedence that match a packet, the narrowest counts
    as used; of equally narrow ones, the first in the document. Verdicts are the same.
    """
    result = run_replay(_narrowest_first(policy), captures, options, sinks, progress)
    written = {rule.id: rule for group in policy.security_groups for rule in group.rules}
    for part in (result, result.rejected):
        if part is not None:
            part.policy = policy
            part.rules = [replace(hits, rule=written[hits.rule.id]) for hits in part.rules]
    return result


def _narrowest_first(policy: Policy) -> Policy:
    """Return a policy whose priorities put narrow rules before wide ones, as far as the policy leaves that open."""
    sizes = RuleSizes(policy)
    order = {
        rule.id: (precedence(rule), sizes.of(rule)) for group in policy.security_groups for rule in group.rules
    }
    priority = {place: n for n, place in enumerate(sorted({*order.values()}), start=1)}
    return having(
        policy,
        security_groups=tuple(
            replace(group, rules=tuple(replace(rule, priority=priority[order[rule.id]]) for rule in group.rules))
            for group in policy.security_groups
        ),
    )
