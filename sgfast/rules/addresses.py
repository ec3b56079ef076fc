"""Networks that rules name, and the owners of addresses as one VPC sees them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range
from itertools import chain
from types import MappingProxyType

from sgfast.base.errors import AmbiguousAddress, PolicyError
from sgfast.policy.lookup import similar
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Policy, Rule
from sgfast.policy.networks import NEVER_AN_INSTANCE, peer_key, without_duplicates
from sgfast.policy.ranges import Range, Ranges, covers, difference, union

ADDRESS: dict[int, type[IPv4Address] | type[IPv6Address]] = {4: IPv4Address, 6: IPv6Address}
ANYWHERE: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

#: The owned prefixes of each family. Each has the position in the policy of the instance that owns it.
Owned = dict[int, list[tuple[Network, int]]]
#: The first address and the negated last address of a prefix. Negated, so that outer prefixes sort before inner ones.
Span = tuple[int, int]

#: The owner number of addresses that no instance owns.
NOBODY = 0


def range_of(network: Network) -> Range:
    return int(network.network_address), int(network.broadcast_address)


def span_of(network: Network) -> Span:
    return int(network.network_address), -int(network.broadcast_address)


def addresses_of(networks: Iterable[Network], family: int) -> Ranges:
    """Return the addresses of the networks of one family as ranges."""
    return union(range_of(network) for network in networks if network.version == family)


def networks_of(family: int, ranges: Iterable[Range]) -> Iterator[Network]:
    """Convert ranges of addresses into CIDRs."""
    for first, last in ranges:
        yield from summarize_address_range(ADDRESS[family](first), ADDRESS[family](last))


def without_multicast(family: int, ranges: Ranges) -> Ranges:
    """Remove multicast and broadcast addresses, which no instance owns and no group contains (SPEC 3.3, 4.11)."""
    return difference(ranges, addresses_of(NEVER_AN_INSTANCE, family))


# Networks that rules name ---------------------------------------------------------------------------------------------


def named_networks(policy: Policy, rule: Rule) -> Iterable[Network]:
    match rule.peer:
        case GroupPeer():
            return ()
        case AddressGroupPeer(name):
            return [n for n in policy.address_group_by_name[name].addresses if n.version == rule.ethertype]
        case None:
            return (ANYWHERE[rule.ethertype],)
        case network:
            return (network,)


def peer_key_of(rule: Rule) -> tuple[object, ...]:
    """Return a key that is equal for rules with equal peers."""
    return rule.ethertype, peer_key(rule.peer)


class NamedNetworks:
    """The networks of one family that rules name, in address order. An outer network comes before the inner ones."""

    def __init__(self, policies: Sequence[Policy], family: int, extra: Iterable[Network] = ()) -> None:
        """Collect the networks from all rules. ``extra``: other networks of the family to include."""
        named = [*extra]
        for policy in policies:
            # An address group that many rules name is expanded only once.
            one_of_each = {
                peer_key_of(rule): rule
                for group in policy.security_groups for rule in group.rules if rule.ethertype == family
            }  # fmt: skip
            named += [network for rule in one_of_each.values() for network in named_networks(policy, rule)]
        networks = without_duplicates(named)
        self.spans = sorted(map(span_of, networks))
        self.number = {span: n for n, span in enumerate(self.spans)}
        firsts = [first for first, _ in self.spans]
        #: For each network: the position after the last network inside it.
        self.end = [bisect_right(firsts, -minus_last) for _, minus_last in self.spans]

    def within(self, networks: Iterable[Network]) -> Iterator[tuple[int, int]]:
        """Yield the range of positions of each of these networks and all networks inside it, the end excluded. The
        networks must be named.
        """
        for network in networks:
            n = self.number[span_of(network)]
            yield n, self.end[n]


# Owners --------------------------------------------------------------------------------------------------------------


def visible_instances(policy: Policy, vpc: str | None) -> list[int]:
    """Return the positions of the instances that a capture in a VPC may show (SPEC 7.1). None: in any VPC.

    Raises PolicyError for an unknown VPC.
    """
    if vpc is None:
        return list(range(len(policy.instances)))
    if vpc not in policy.vpc_by_name:
        vpc_names = ", ".join(v.name for v in policy.vpcs)
        hint = similar(policy, "VPC", vpc)
        raise PolicyError(f"{policy.origin}: unknown VPC {vpc!r}: the policy has {vpc_names}{hint}")
    return sorted(chain.from_iterable(policy._places_by_vpc.get(name, ()) for name in policy._connected_vpcs[vpc]))


def owned_prefixes(policy: Policy, vpc: str | None, *, asked: Callable[[str, Network], bool] | None = None) -> Owned:
    """Return the owned prefixes that a capture in a VPC may show (SPEC 7.1).

    ``asked``: whether it matters that an instance, by its name, owns a prefix. Of two owners, the only one that matters
    keeps it, and any if none does. Without it, both matter. Raises AmbiguousAddress if two visible VPCs own the same
    address.
    """
    visible = visible_instances(policy, vpc)
    if len({policy.instances[n].vpc for n in visible}) > 1:
        return _owned_in_several_vpcs(policy, vpc, visible, asked)
    owned: Owned = {4: [], 6: []}
    for n in visible:
        for network in policy.instances[n].addresses:
            owned[network.version].append((network, n))
    return owned


def _owned_in_several_vpcs(
    policy: Policy, vpc: str | None, visible: list[int], is_asked: Callable[[str, Network], bool] | None
) -> Owned:
    instances = policy.instances
    distinct_prefixes: Owned = {4: [], 6: []}
    owned: Owned = {4: [], 6: []}
    for n in visible:
        for network in instances[n].addresses:
            owned[network.version].append((network, n))
    for family, rows in owned.items():
        # The named VPC's own instances take precedence. A peered VPC's prefix is hidden if they own all of it.
        own_addresses = addresses_of((network for network, n in rows if instances[n].vpc == vpc), family)
        # Prefixes are nested or disjoint, so only the prefixes around the current prefix can overlap it.
        around: list[tuple[int, Network, int]] = []
        for network, n in sorted(rows, key=lambda row: span_of(row[0])):
            first, last = range_of(network)
            here = instances[n]
            if here.vpc != vpc and covers(own_addresses, first, last):
                continue
            while around and around[-1][0] < first:
                around.pop()
            for _, other_network, m in around:
                other_instance = instances[m]
                if other_instance.vpc == here.vpc or vpc in (other_instance.vpc, here.vpc):
                    continue
                matter = [is_asked is None or is_asked(instance.name, network) for instance in (here, other_instance)]
                if all(matter):
                    advice = (
                        "name the VPC the capture was taken in (--vpc)" if vpc is None
                        else f"from VPC {vpc!r} these two peers cannot be distinguished"
                    )
                    raise AmbiguousAddress(
                        f"{policy.origin}: {network} of instance {here.name!r} (VPC {here.vpc!r}) and {other_network} "
                        f"of instance {other_instance.name!r} (VPC {other_instance.vpc!r}) overlap: {advice}"
                    )
                if matter[1]:
                    break
            else:
                around.append((last, network, n))
                distinct_prefixes[family].append((network, n))
    return distinct_prefixes


def with_multicast(
    owned: dict[Span, tuple[int, bool]], family: int, owner_there: Callable[[int], int]
) -> dict[Span, tuple[int, bool]]:
    """Return the argument ``owned`` of ``pieces`` with a separate owner for multicast and broadcast addresses (SPEC
    3.3, 4.11). ``owner_there``: a function from the owner of a prefix to the owner of multicast addresses in it.
    """
    changed = owned.copy()
    for network in NEVER_AN_INSTANCE:
        first, minus_last = span_of(network)
        if network.version != family:
            continue
        around = [span for span in owned if span[0] <= first and span[1] <= minus_last]
        if around:
            changed[first, minus_last] = owner_there(owned[max(around)][0]), True
        for span in owned:
            if first <= span[0] and minus_last <= span[1]:
                changed[span] = owner_there(owned[span][0]), True
    return changed


def pieces(
    owned: Mapping[Span, tuple[int, bool]], family: int, named: Mapping[Span, int] = MappingProxyType({})
) -> Iterator[tuple[int, int, int, int]]:
    """Cut a family's addresses into pieces with one owner and one innermost named network. Yield each piece, in order:
    first address, last address, number of the innermost named network (-1: none), owner.

    ``owned``: for each span, its owner, and whether this owner has precedence: such an owner also owns longer prefixes
    of owners without precedence. ``NOBODY`` owns all other addresses. ``named``: the number of each named network.
    """
    at = 0
    # Prefixes are nested or disjoint, so all networks on the stack contain the current address.
    stack = [((1 << (32 if family == 4 else 128)) - 1, -1, NOBODY, False)]
    for span in sorted(owned.keys() | named.keys()):
        first = span[0]
        while stack[-1][0] < first:
            last, inside, owner, _ = stack.pop()
            if at <= last:
                yield at, last, inside, owner
                at = last + 1
        _, inside, owner, is_owners_own = stack[-1]
        if at < first:
            yield at, first - 1, inside, owner
            at = first
        new_owner, owners_own = owned.get(span, (NOBODY, False))
        if span in owned and (owners_own or not is_owners_own):
            owner, is_owners_own = new_owner, owners_own
        stack.append((-span[1], named.get(span, inside), owner, is_owners_own))
    while stack:
        last, inside, owner, _ = stack.pop()
        if at <= last:
            yield at, last, inside, owner
            at = last + 1


def contexts_of(policy: Policy) -> dict[tuple[tuple[int, ...], str], list[int]]:
    """Return the positions of the instances by their set of groups and their VPC. The groups of a set are sorted
    positions. An instance is subject to the rules of all its groups (SPEC 1).
    """
    number = {group.name: n for n, group in enumerate(policy.security_groups)}
    places_of_context: dict[tuple[tuple[int, ...], str], list[int]] = {}
    for place, instance in enumerate(policy.instances):
        key = (tuple(sorted({number[name] for name in instance.security_groups})), instance.vpc)
        places_of_context.setdefault(key, []).append(place)
    return places_of_context
