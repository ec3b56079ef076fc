"""Find out what a policy denies by its rules alone, so that suggested rules do not allow it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from sgfast.policy.model import AddressGroupPeer, Network, Policy
from sgfast.questions.suggesting.needs import Need, NeededService, Winners

#: An end of a connection, as far as rules tell ends apart: the prefixes of rules that its address is in, and an
#: instance's groups and VPC.
_End = Hashable


class Denials:
    """The connections that a policy denies although rules could allow them.

    ``adds_only``: the suggested rules are added to the policy, which denies everybody what they are for. Then another
    instance with the same groups counts as one of the same machines, and not as denied.
    """

    def __init__(self, policy: Policy, winners: Winners | None = None, *, adds_only: bool = False) -> None:
        self.adds_only = adds_only
        self._policy = policy
        self._winners = winners or Winners(policy)
        #: The prefixes of rules, by address length in bits and prefix length.
        self._prefixes: dict[tuple[int, int], set[int]] = {}
        for network in _networks_of(policy):
            host_bits = network.max_prefixlen - network.prefixlen
            numbers = self._prefixes.setdefault((network.max_prefixlen, host_bits), set())
            numbers.add(int(network.network_address) >> host_bits)
        self._ends: dict[tuple[bytes, str | None], _End] = {}

    def of_peers(self, rule_needs: Iterable[Need]) -> Callable[[str], bool]:
        """Return a function of an instance's name: whether one of these connections is denied with that peer."""
        rule_needs = [*rule_needs]
        stays = [(need, self._own_end(need), need.instance) for need in rule_needs]
        return self._is_denied(
            stays, self._alike(need.peer_instance for need in rule_needs),
            lambda need, name, address: need._replace(peer=address, peer_instance=name),
        )  # fmt: skip

    def of_instances(self, rule_needs: Iterable[Need]) -> Callable[[str], bool]:
        """Return a function of an instance's name: whether one of these connections is denied at that instance."""
        rule_needs = [*rule_needs]
        stays = [(need, self._end(need.peer, need.peer_instance), need.peer_instance) for need in rule_needs]
        return self._is_denied(
            stays, self._alike(need.instance for need in rule_needs),
            lambda need, name, address: need._replace(instance=name),
        )  # fmt: skip

    def _is_denied(
        self, stays: Sequence[tuple[Need, _End, str | None]], alike: set[_End],
        with_instance: Callable[[Need, str, bytes], Need],
    ) -> Callable[[str], bool]:  # fmt: skip
        """Return the function. ``stays``: the needs, each with the end that stays and its instance. ``with_instance``:
        the need with another instance, which has this address, at the other end.
        """
        # One need stands for all with the same end. An instance sends nothing to itself: then a second one does.
        alternatives: dict[tuple[NeededService, _End], dict[str | None, Need]] = {}
        for need, end, instance in stays:
            choices = alternatives.setdefault((need.service, end), {})
            if len(choices) < 2:
                choices.setdefault(instance, need)
        family = stays[0][0].service.family if stays else 4
        staying = {instance for _, _, instance in stays}
        denied_ends: dict[_End, bool] = {}

        def is_denied(name: str) -> bool:
            address = self._address_of(name, family)
            if address is None or self._context(name) in alike:
                return False
            end = self._end(address, name)
            if name not in staying and end in denied_ends:
                return denied_ends[end]
            different = (
                next((need for instance, need in choices.items() if instance != name), None)
                for choices in alternatives.values()
            )
            denied = any(need is not None and self._denies(with_instance(need, name, address)) for need in different)
            if name not in staying:
                denied_ends[end] = denied
            return denied

        return is_denied

    def _context(self, name: str) -> tuple[tuple[str, ...], str]:
        instance = self._policy.instance_by_name[name]
        return instance.security_groups, instance.vpc

    def _alike(self, names: Iterable[str | None]) -> set[_End]:
        return {self._context(name) for name in names if name is not None} if self.adds_only else set()

    def _end(self, address: bytes, name: str | None) -> _End:
        key = address, name
        if key not in self._ends:
            bits, number = 8 * len(address), int.from_bytes(address)
            prefixes = [
                host_bits for (length, host_bits), numbers in self._prefixes.items()
                if length == bits and number >> host_bits in numbers
            ]  # fmt: skip
            # With these, addresses tell what groups an end is in (SPEC 4.14).
            own_address = address if self._policy.settings.group_members == "by-address" else b""
            numbers_of = tuple((host_bits, number >> host_bits) for host_bits in prefixes)
            self._ends[key] = numbers_of, own_address, None if name is None else self._context(name)
        return self._ends[key]

    def _own_end(self, need: Need) -> _End:
        return self._end(self._address_of(need.instance, need.service.family) or b"", need.instance)

    def _denies(self, need: Need) -> bool:
        """Return whether the filter at the need's instance denies the connection. The rules of the other end have
        their own needs. Between VPCs that are not peered, no rule could allow it.
        """
        rule = self._winners.of(need)
        is_allowed = rule is not None and rule.action == "allow"
        return not is_allowed and self._winners.are_connected(need.instance, need.peer_instance)

    def _address_of(self, name: str, family: int) -> bytes | None:
        """Return an instance's first address of an IP version; None without any."""
        networks = self._policy.instance_by_name[name].addresses
        return next((network.network_address.packed for network in networks if network.version == family), None)


def _networks_of(policy: Policy) -> Iterable[Network]:
    """Yield the networks that the peers of rules name."""
    for group in policy.security_groups:
        for rule in group.rules:
            if isinstance(rule.peer, AddressGroupPeer):
                yield from policy.address_group_by_name[rule.peer.name].addresses
            elif isinstance(rule.peer, Network):
                yield rule.peer
