"""Say how much each VPC sees: which of them a question is about, and how much work that is (SPEC 11.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property

from sgfast.policy.model import Policy
from sgfast.reaching.ends import End
from sgfast.space import NamedNetworks, contexts_of

#: The steps for each VPC whatever it sees, and for each set of groups whose instances it sees. An address is one step.
VPC_STEPS, CONTEXT_STEPS = 200, 10


class Views:
    """Views that the VPCs of a policy have."""

    def __init__(self, policy: Policy, contexts: Iterable[tuple[tuple[int, ...], str]] | None = None) -> None:
        """``contexts``: those of the policy, if they are known."""
        self._policy = policy
        #: The number of addresses and prefixes that the instances of each VPC have, by family.
        self._prefixes: dict[int, Counter[str]] = {4: Counter(), 6: Counter()}
        for instance in policy.instances:
            for network in instance.addresses:
                self._prefixes[network.version][instance.vpc] += 1
        self._contexts = Counter(vpc for _, vpc in (contexts_of(policy) if contexts is None else contexts))

    @cached_property
    def networks(self) -> dict[int, int]:
        """Number of networks that the rules name, by family."""
        return {family: len(NamedNetworks([self._policy], family).spans) for family in (4, 6)}

    def asked(self, family: int, sources: End, destinations: End) -> Iterator[tuple[str, int]]:
        """The VPCs that have to be looked at for packets between two ends, and the steps that each of them takes."""
        prefixes, connected = self._prefixes[family], self._policy.connected_vpcs
        senders, receivers = (self._named(end) for end in (sources, destinations))
        all_send, all_receive = (bool(end.networks) and end.owned for end in (sources, destinations))
        seen = self._contexts if destinations.networks else receivers
        for vpc in prefixes:
            is_asked = vpc in senders or vpc in receivers or (all_receive and bool(sources.networks))
            if not is_asked and all_send:
                is_asked = bool(destinations.networks) or any(peer in receivers for peer in connected[vpc])
            if is_asked:
                yield vpc, VPC_STEPS + sum(prefixes[peer] + CONTEXT_STEPS * seen[peer] for peer in connected[vpc])

    def _named(self, end: End) -> Counter[str]:
        """Number of different sets of groups, by VPC, among the instances that the end names."""
        known = self._policy.instance_by_name
        named = {(known[name].vpc, known[name].security_groups) for name in end.instances if name in known}
        return Counter(vpc for vpc, _ in named)
