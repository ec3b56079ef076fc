"""A policy becomes the flat tables the data plane reads.

    policy.instances  --prefixes-->  address trie: number -> owner, address class
    policy rules      --ports----->  port map: protocol, port -> port class
                      --peers----->  for each set of groups and direction a rule table

Two addresses are of one *address class* when no rule of any group tells them apart; two ports are of one *port class*
for the same reason. What is different for each set of groups is only which classes its own rules tell apart, and which
rule wins where (``core/classifier.pxd`` draws it).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np
from numpy.typing import NDArray

from sgfast.core.cidr_trie import CidrTrie
from sgfast.core.classifier import Classifier
from sgfast.errors import AmbiguousAddress, PolicyError
from sgfast.policy.model import (
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Network,
    Policy,
    Rule,
    SecurityGroup,
)

Indices = NDArray[np.int64]

#: A rule table of more cells than this is kept as bit vectors instead (4 MiB as a table).
MAX_TABLE_CELLS = 1 << 20

ANYWHERE: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

#: What the rule tables of one policy may take together. Beyond it the policy is refused, for it would take the machine.
MAX_TABLE_BYTES = 2 << 30

# A set of groups in one VPC. An instance's *profile* is all its groups: what its rule tables depend on. Its
# *membership* is those of them that rules name as peers: what others' rules can know of it.
Profile = tuple[tuple[int, ...], int]


@dataclass
class CompiledPolicy:
    """What a policy compiled to, and what the numbers in it mean."""

    policy: Policy
    classifier: Classifier
    #: By rule number: the rule, and the group it stands in.
    rules: list[Rule]
    rule_groups: list[SecurityGroup]
    #: By instance number.
    instances: list[Instance]
    address_classes: int
    port_classes: int
    rule_tables: int
    #: How many rule tables are bit vectors because the table would have been too large.
    bit_vector_tables: int
    nbytes: int

    def differences(
        self, rule: Rule, instance: int, peer: IPv4Address | IPv6Address, protocol: int, port_key: int
    ) -> list[str]:
        """What keeps a rule of the peer's ethertype from matching an opener, in words; empty where it matches."""
        differs = []
        if rule.protocol not in (None, protocol):
            differs.append("protocol")
        else:
            ranges = _key_ranges(rule)
            if ranges is not None and not any(first <= port_key <= last for first, last in ranges):
                differs.append("port" if rule.ports else "icmp type")
        if not self._peer_matches(rule, self.instances[instance], peer):
            differs.append("peer")
        return differs

    def _peer_matches(self, rule: Rule, here: Instance, peer: IPv4Address | IPv6Address) -> bool:
        if not isinstance(rule.peer, GroupPeer):
            return any(peer in network for network in _named_networks(self.policy, rule))
        owner = self.classifier.owner_of(peer.packed)
        if owner < 0 or rule.peer.name not in self.instances[owner].security_groups:
            return False
        there = self.instances[owner].vpc
        regions = self.policy.vpc_by_name
        return self.policy.connected(here.vpc, there) and regions[here.vpc].region == regions[there].region


@dataclass
class _Addresses:
    """Every prefix that matters to an address, in one family."""

    family: int
    owner: dict[Network, int] = field(default_factory=dict)
    named: set[Network] = field(default_factory=set)


def visible_instances(policy: Policy, vpc: str | None) -> list[int]:
    """Numbers of the instances whose addresses a capture may show (SPEC 7.1). PolicyError for an unknown VPC."""
    if vpc is None:
        return list(range(len(policy.instances)))
    if vpc not in policy.vpc_by_name:
        known = ", ".join(v.name for v in policy.vpcs)
        raise PolicyError(f"{policy.origin}: no VPC {vpc!r}: the document has {known}")
    return [n for n, instance in enumerate(policy.instances) if policy.connected(instance.vpc, vpc)]


def compile_policy(policy: Policy, vpc: str | None = None) -> CompiledPolicy:
    """Compiles ``policy`` as seen from ``vpc``, or from every VPC.

    Raises AmbiguousAddress when an address is owned in two of the VPCs seen (SPEC 7.1).
    """
    rules: list[Rule] = []
    rule_groups: list[SecurityGroup] = []
    rules_of_group: list[list[int]] = []
    for group in policy.security_groups:
        rules_of_group.append(list(range(len(rules), len(rules) + len(group.rules))))
        rules.extend(group.rules)
        rule_groups.extend([group] * len(group.rules))
    group_number = {group.name: n for n, group in enumerate(policy.security_groups)}
    vpc_number = {v.name: n for n, v in enumerate(policy.vpcs)}

    profiles: dict[Profile, int] = {}
    profile_of_instance = [
        profiles.setdefault(
            (tuple(sorted({group_number[name] for name in instance.security_groups})), vpc_number[instance.vpc]),
            len(profiles),
        )
        for instance in policy.instances
    ]

    named = {group_number[rule.peer.name] for rule in rules if isinstance(rule.peer, GroupPeer)}
    memberships: dict[Profile, int] = {}
    membership_of_instance = []
    for instance in policy.instances:
        groups = tuple(sorted({group_number[name] for name in instance.security_groups} & named))
        membership = (groups, vpc_number[instance.vpc])
        membership_of_instance.append(memberships.setdefault(membership, len(memberships)) if groups else -1)

    families = {family: _Addresses(family) for family in (4, 6)}
    _add_owners(policy, vpc, families)
    for rule in rules:
        for network in _named_networks(policy, rule):
            families[rule.ethertype].named.add(network)

    address_classes = _AddressClasses(policy, list(memberships), families, membership_of_instance)
    port_classes = _PortClasses(rules, policy.origin)
    tables, rule_table, bit_vectors = _rule_tables(
        policy, rules, rules_of_group, list(profiles), address_classes, port_classes
    )

    peers = [
        sorted(vpc_number[other] for pair in policy.peerings if name in pair for other in pair if other != name)
        for name in vpc_number
    ]
    classifier = Classifier(
        address_classes.tries[4],
        address_classes.tries[6],
        address_classes.owner,
        address_classes.class_of_address,
        port_classes.whole,
        port_classes.by_port,
        np.array([rule_table[2 * p + d] for p in profile_of_instance for d in (0, 1)], dtype=np.uint32),
        tables,
        np.array([rule.action == "deny" for rule in rules], dtype=np.uint8),
        np.array([vpc_number[instance.vpc] for instance in policy.instances], dtype=np.int32),
        np.cumsum([0] + [len(p) for p in peers]),
        np.array([peer for p in peers for peer in p], dtype=np.int32),
    )
    return CompiledPolicy(
        policy=policy,
        classifier=classifier,
        rules=rules,
        rule_groups=rule_groups,
        instances=list(policy.instances),
        address_classes=address_classes.count,
        port_classes=port_classes.count,
        rule_tables=len(tables),
        bit_vector_tables=bit_vectors,
        nbytes=classifier.nbytes,
    )


def _named_networks(policy: Policy, rule: Rule) -> Iterable[Network]:
    match rule.peer:
        case GroupPeer():
            return ()
        case AddressGroupPeer(name):
            return [n for n in policy.address_group_by_name[name].addresses if n.version == rule.ethertype]
        case None:
            return (ANYWHERE[rule.ethertype],)
        case network:
            return (network,)


# Addresses -----------------------------------------------------------------------------------------------------------


def _add_owners(policy: Policy, vpc: str | None, families: dict[int, _Addresses]) -> None:
    """Fills in who owns what, refusing addresses that two visible VPCs own (SPEC 7.1)."""
    # With a VPC named, its own instances come first; what they cover of a peer's addresses is out of sight.
    visible = sorted(visible_instances(policy, vpc), key=lambda n: policy.instances[n].vpc != vpc)
    owned: dict[int, list[tuple[int, int, Network, int]]] = {4: [], 6: []}
    own: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for n in visible:
        for network in policy.instances[n].addresses:
            first, last = int(network.network_address), int(network.broadcast_address)
            owned[network.version].append((first, -last, network, n))
            if policy.instances[n].vpc == vpc:
                own[network.version].append((first, last))
    for family, rows in owned.items():
        shadow = _merge(own[family])
        rows.sort(key=lambda row: row[:2])
        # Prefixes are nested or disjoint, so it is enough to look at the ones that cover the present one.
        cover: list[tuple[int, Network, int]] = []
        at = 0
        for first, minus_last, network, n in rows:
            last = -minus_last
            mine = policy.instances[n].vpc == vpc
            if not mine:
                while at < len(shadow) and shadow[at][1] < first:
                    at += 1
                if at < len(shadow) and shadow[at][0] <= first and last <= shadow[at][1]:
                    continue
            while cover and cover[-1][0] < first:
                cover.pop()
            for _, other_network, m in cover:
                other = policy.instances[m]
                if other.vpc != policy.instances[n].vpc and vpc not in (other.vpc, policy.instances[n].vpc):
                    advice = (
                        "name the VPC the capture was taken in (--vpc)" if vpc is None
                        else f"VPC {vpc!r} cannot tell two peers of it apart"
                    )
                    raise AmbiguousAddress(
                        f"{policy.origin}: {network} of instance {policy.instances[n].name!r} (VPC "
                        f"{policy.instances[n].vpc!r}) and {other_network} of instance {other.name!r} (VPC "
                        f"{other.vpc!r}) are the same addresses: {advice}"
                    )
            cover.append((last, network, n))
            families[family].owner[network] = n


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


class _AddressClasses:
    """Numbers every prefix, and tells for each number the owner and the class.

    A class is what rules can know of an address: the prefixes named in rules that hold it, and the membership of its
    owner.
    """

    def __init__(
        self,
        policy: Policy,
        memberships: Sequence[Profile],
        families: dict[int, _Addresses],
        membership_of_instance: Sequence[int],
    ) -> None:
        self.policy = policy
        #: By group: (membership, VPC) of those in it.
        self._memberships_of_group: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for n, (groups, vpc) in enumerate(memberships):
            for group in groups:
                self._memberships_of_group[policy.security_groups[group].name].append((n, vpc))
        self.tries: dict[int, CidrTrie] = {}
        classes: dict[tuple[int, int, int], int] = {}
        self._classes_of_family: dict[int, list[int]] = {4: [], 6: []}
        self._classes_of_membership: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._classes_of_prefix: dict[Network, list[int]] = defaultdict(list)
        owners: list[int] = []
        class_of_address: list[int] = []

        def class_number(family: int, inside: int, membership: int, chain: tuple[Network, ...]) -> int:
            key = (family, inside, membership)
            number = classes.get(key)
            if number is None:
                number = classes[key] = len(classes)
                self._classes_of_family[family].append(number)
                if membership >= 0:
                    self._classes_of_membership[family, membership].append(number)
                for network in chain:
                    self._classes_of_prefix[network].append(number)
            return number

        for family, addresses in families.items():
            # "Inside" numbers a chain of nested named prefixes by its innermost one.
            background = len(owners)
            owners.append(-1)
            class_of_address.append(class_number(family, -1, -1, ()))
            networks = sorted(addresses.owner.keys() | addresses.named)
            prefixes = np.zeros((len(networks), 16), dtype=np.uint8)
            packed = b"".join(n.network_address.packed for n in networks)
            width = 4 if family == 4 else 16
            prefixes[:, :width] = np.frombuffer(packed, dtype=np.uint8).reshape(-1, width)
            stack: list[tuple[int, int, int, tuple[Network, ...]]] = []
            for n, network in enumerate(networks):
                first = int(network.network_address)
                while stack and stack[-1][0] < first:
                    stack.pop()
                _, inside, owner, chain = stack[-1] if stack else (0, -1, -1, ())
                owner = addresses.owner.get(network, owner)
                if network in addresses.named:
                    inside, chain = n, (*chain, network)
                stack.append((int(network.broadcast_address), inside, owner, chain))
                owners.append(owner)
                class_of_address.append(
                    class_number(family, inside, membership_of_instance[owner] if owner >= 0 else -1, chain)
                )
            self.tries[family] = CidrTrie(
                family == 6,
                prefixes,
                np.array([n.prefixlen for n in networks], dtype=np.uint8),
                np.arange(background + 1, background + 1 + len(networks), dtype=np.uint32),
                background,
            )
        self.count = len(classes)
        self.owner = np.array(owners, dtype=np.int32)
        self.class_of_address = np.array(class_of_address, dtype=np.uint32)
        self._matching: dict[tuple[object, ...], Indices] = {}

    def matching(self, rule: Rule, vpc: int) -> tuple[tuple[object, ...], Indices]:
        """The classes of the addresses a rule's peer matches, seen from a VPC (SPEC 4.11), and a key for them."""
        family = rule.ethertype
        key: tuple[object, ...]
        match rule.peer:
            case GroupPeer(name):
                key = ("group", family, name, vpc)
            case AddressGroupPeer(name):
                key = ("address group", family, name)
            case peer:
                key = ("prefix", peer or ANYWHERE[family])
        found = self._matching.get(key)
        if found is None:
            if isinstance(rule.peer, GroupPeer):
                numbers = self._classes_of_group(rule.peer.name, family, vpc)
            else:
                networks = _named_networks(self.policy, rule)
                numbers = {n for network in networks for n in self._classes_of_prefix[network]}
            found = self._matching[key] = np.array(sorted(numbers), dtype=np.int64)
        return key, found

    def _classes_of_group(self, name: str, family: int, vpc: int) -> set[int]:
        here = self.policy.vpcs[vpc]
        numbers: set[int] = set()
        for membership, other in self._memberships_of_group[name]:
            there = self.policy.vpcs[other]
            if here.region == there.region and self.policy.connected(here.name, there.name):
                numbers.update(self._classes_of_membership.get((family, membership), ()))
        return numbers


# Ports ---------------------------------------------------------------------------------------------------------------


def _key_ranges(rule: Rule) -> tuple[tuple[int, int], ...] | None:
    """The destination ports, or ICMP type * 256 + code, a rule allows; None: all of its protocol."""
    if rule.icmp_type is not None:
        if rule.icmp_code is not None:
            return ((rule.icmp_type << 8 | rule.icmp_code,) * 2,)
        return ((rule.icmp_type << 8, rule.icmp_type << 8 | 255),)
    return rule.ports


class _PortClasses:
    """Cuts protocols and their ports into classes no rule tells apart inside."""

    def __init__(self, rules: Sequence[Rule], origin: str) -> None:
        ranges_of: dict[int, set[tuple[tuple[int, int], ...]]] = defaultdict(set)
        named: set[int] = set()
        for rule in rules:
            if rule.protocol is not None:
                named.add(rule.protocol)
                ranges = _key_ranges(rule)
                if ranges is not None:
                    ranges_of[rule.protocol].add(ranges)
        # Class 0: protocols no rule names.
        self.whole = np.zeros(256, dtype=np.uint32)
        self.by_port: dict[int, NDArray[np.uint32]] = {}
        self._of_protocol: dict[int, list[int]] = {}
        self._of_ranges: dict[tuple[int, tuple[tuple[int, int], ...]], list[int]] = defaultdict(list)
        count = 1
        for protocol in sorted(named):
            selectors = sorted(ranges_of[protocol])
            if not selectors:
                self.whole[protocol] = count
                self._of_protocol[protocol] = [count]
                count += 1
                continue
            # Between two neighbouring cuts nothing changes: each stretch is looked at once.
            cuts = sorted({0} | {edge for ranges in selectors for first, last in ranges for edge in (first, last + 1)})
            cuts = [cut for cut in cuts if cut < 65536]
            if len(cuts) * len(selectors) > MAX_TABLE_BYTES:
                raise PolicyError(
                    f"{origin}: {len(selectors)} different port lists of protocol {protocol} would need more than "
                    f"{MAX_TABLE_BYTES >> 30} GiB to compare: use fewer or wider ones"
                )
            starts = np.array(cuts)
            inside = np.zeros((len(cuts), len(selectors)), dtype=bool)
            for column, ranges in enumerate(selectors):
                for first, last in ranges:
                    inside[np.searchsorted(starts, first) : np.searchsorted(starts, last + 1), column] = True
            numbers: dict[bytes, int] = {}
            class_of_cut = np.array(
                [numbers.setdefault(row.tobytes(), len(numbers)) for row in np.packbits(inside, axis=1)]
            )
            patterns = np.zeros((len(numbers), len(selectors)), dtype=bool)
            patterns[class_of_cut] = inside
            self.by_port[protocol] = np.repeat(
                (class_of_cut + count).astype(np.uint32), np.diff(np.append(starts, 65536))
            )
            self._of_protocol[protocol] = list(range(count, count + len(patterns)))
            for column, ranges in enumerate(selectors):
                self._of_ranges[protocol, ranges] = [count + int(p) for p in np.flatnonzero(patterns[:, column])]
            count += len(patterns)
        self.count = count
        self._all = np.arange(count)

    def matching(self, rule: Rule) -> tuple[tuple[object, ...], Indices]:
        """The port classes a rule's protocol and ports match, and a key for them."""
        if rule.protocol is None:
            return ("all",), self._all
        ranges = _key_ranges(rule)
        key = (rule.protocol, ranges)
        if ranges is None:
            return key, np.array(self._of_protocol[rule.protocol], dtype=np.int64)
        return key, np.array(self._of_ranges[rule.protocol, ranges], dtype=np.int64)


# Rule tables ---------------------------------------------------------------------------------------------------------


class _Budget:
    """Memory that compiling may take; asked before it is taken, so that no policy exhausts the machine (SPEC 11)."""

    def __init__(self, refusal: str) -> None:
        self._left = MAX_TABLE_BYTES
        self._refusal = refusal

    def take(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            raise PolicyError(self._refusal)


class _Dimension:
    """Joins the classes that one profile's rules do not tell apart."""

    def __init__(self, count: int, selectors: Sequence[Indices], budget: _Budget) -> None:
        budget.take(4 * count)
        code = np.zeros(count, dtype=np.int64)
        groups = 1
        for start in range(0, len(selectors), 32):
            bits = np.zeros(count, dtype=np.int64)
            for bit, classes in enumerate(selectors[start : start + 32]):
                bits[classes] |= 1 << bit
            _, code = np.unique(code << 32 | bits, return_inverse=True)
            code = code.reshape(-1)
            groups = int(code.max()) + 1 if count else 1
        self.of_class = code.astype(np.uint32)
        self.count = groups
        budget.take(len(selectors) * groups)
        #: [selector][joined class]: whether it matches.
        self.matches = np.zeros((len(selectors), groups), dtype=bool)
        for row, classes in enumerate(selectors):
            self.matches[row, code[classes]] = True


def _rule_tables(
    policy: Policy,
    rules: Sequence[Rule],
    rules_of_group: Sequence[Sequence[int]],
    profiles: Sequence[Profile],
    addresses: _AddressClasses,
    ports: _PortClasses,
) -> tuple[list[tuple[object, ...]], list[int], int]:
    """The rule tables; for each profile and direction (outbound, inbound) which; how many are bit vectors."""
    tables: list[tuple[object, ...]] = []
    number_of: dict[tuple[tuple[int, ...], tuple[object, ...]], int] = {}
    dimensions: dict[tuple[object, ...], _Dimension] = {}
    which: list[int] = []
    bit_vectors = 0
    budget = _Budget(
        f"{policy.origin}: the tables would need more than {MAX_TABLE_BYTES >> 30} GiB: instances are in "
        f"{len(profiles)} different sets of security groups, whose rules tell {addresses.count} kinds of address and "
        f"{ports.count} kinds of port apart; use fewer sets, or fewer and wider rules"
    )
    for groups, vpc in profiles:
        for direction in ("outbound", "inbound"):
            # By precedence (SPEC 4.10): priority, deny before allow, document order.
            order = sorted(
                (r for g in groups for r in rules_of_group[g] if rules[r].direction == direction),
                key=lambda r: (rules[r].priority, rules[r].action != "deny", r),
            )
            peers: dict[tuple[object, ...], tuple[int, Indices]] = {}
            services: dict[tuple[object, ...], tuple[int, Indices]] = {}
            pairs: list[tuple[int, int]] = []
            for r in order:
                peer_key, peer_classes = addresses.matching(rules[r], vpc)
                service_key, service_classes = ports.matching(rules[r])
                pairs.append(
                    (
                        peers.setdefault(peer_key, (len(peers), peer_classes))[0],
                        services.setdefault(service_key, (len(services), service_classes))[0],
                    )
                )
            identity = (tuple(order), tuple(peers))
            if identity not in number_of:
                number_of[identity] = len(tables)
                peer = _dimension(dimensions, "peer", addresses.count, peers, budget)
                service = _dimension(dimensions, "service", ports.count, services, budget)
                budget.take(4 * min(peer.count * service.count, MAX_TABLE_CELLS))
                if peer.count * service.count <= MAX_TABLE_CELLS:
                    tables.append(_winner_table(order, pairs, peer, service))
                else:
                    bit_vectors += 1
                    budget.take((peer.count + service.count) * len(order))
                    tables.append(_bit_vector_table(order, pairs, peer, service))
            which.append(number_of[identity])
    return tables, which, bit_vectors


def _dimension(
    known: dict[tuple[object, ...], _Dimension],
    kind: str,
    count: int,
    selectors: dict[tuple[object, ...], tuple[int, Indices]],
    budget: _Budget,
) -> _Dimension:
    key = (kind, tuple(selectors))
    if key not in known:
        known[key] = _Dimension(count, [classes for _, classes in selectors.values()], budget)
    return known[key]


def _winner_table(
    order: Sequence[int], pairs: Sequence[tuple[int, int]], peer: _Dimension, service: _Dimension
) -> tuple[object, ...]:
    winner = np.full((peer.count, service.count), -1, dtype=np.int32)
    for r, (p, s) in zip(reversed(order), reversed(pairs), strict=True):
        winner[np.ix_(peer.matches[p], service.matches[s])] = r
    return peer.of_class, service.of_class, service.count, winner


def _bit_vector_table(
    order: Sequence[int], pairs: Sequence[tuple[int, int]], peer: _Dimension, service: _Dimension
) -> tuple[object, ...]:
    def vectors(dimension: _Dimension, selector_of_rule: list[int]) -> NDArray[np.uint64]:
        words = (len(order) + 63) // 64
        bits = np.zeros((dimension.count, words * 64), dtype=np.uint8)
        bits[:, : len(order)] = dimension.matches[selector_of_rule].T
        return np.packbits(bits, axis=1, bitorder="little").view("<u8")

    return (
        peer.of_class,
        service.of_class,
        service.count,
        vectors(peer, [p for p, _ in pairs]),
        vectors(service, [s for _, s in pairs]),
        np.array(order, dtype=np.int32),
    )

