"""The policy model: frozen values (SPEC 2). Checks that need a document's lines are in ``document_reader``; this module
holds only what all readers of a policy share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from sgfast.policy.ranges import Ranges as Ports
from sgfast.policy.ranges import normal_form, union

Network = IPv4Network | IPv6Network
Direction = Literal["inbound", "outbound"]
Action = Literal["allow", "deny"]

ICMP = 1
TCP = 6
UDP = 17
GRE = 47
ESP = 50
AH = 51
ICMPV6 = 58
DCCP = 33
SCTP = 132
UDPLITE = 136

#: Protocols whose rules may name ports and whose connections have ports (SPEC 2.2, 5.1).
PORT_PROTOCOLS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})

DEFAULT_GROUP = "default"
DEFAULT_VPC = "default"

#: The most groups of each kind that ``mixed_groups`` lists.
_LISTED_GROUPS = 5

@dataclass(frozen=True, slots=True)
class GroupPeer:
    """A rule's peer: the current members of this security group (SPEC 4.11)."""

    name: str


@dataclass(frozen=True, slots=True)
class AddressGroupPeer:
    """A rule's peer: those addresses of this address group that are of the rule's ethertype."""

    name: str


#: The spelling of a rule, where its value does not show it: without an ethertype, with 0.0.0.0/0 or ::/0 instead of no
#: peer, or with ``icmp`` in an IPv6 rule.
Wording = Literal["no-ethertype", "any-address", "icmp"]

Peer = Network | GroupPeer | AddressGroupPeer | None
"""A rule's source (inbound) or destination (outbound). None is any address of the ethertype."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, normalised (SPEC 2.1-2.5): every default is filled in. Rules that say the same are equal, however they
    were written (SPEC 6.3).
    """

    id: str
    direction: Direction
    ethertype: Literal[4, 6]
    #: IP protocol number as it appears in packets of the ethertype (``icmp`` in an IPv6 rule is 58). None is every
    #: protocol.
    protocol: int | None = None
    #: Inclusive ranges of destination ports, each within 0-65535, sorted and apart. None is every port.
    ports: Ports | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    peer: Peer = None
    action: Action = "allow"
    #: 1 is evaluated first, 100 last (SPEC 4.10).
    priority: int = 1
    description: str = ""
    #: The spelling of the rule, for ``modify_rule``, which merges with that (SPEC 9.5). It does not count when rules
    #: are compared.
    wording: frozenset[Wording] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.ports is not None:
            object.__setattr__(self, "ports", normal_form(self.ports))
        if isinstance(self.peer, Network) and not self.peer.prefixlen and self.peer.version == self.ethertype:
            object.__setattr__(self, "peer", None)

    def without_words(self) -> Rule:
        """The rule without its id and description. Rules that say the same are equal then."""
        return replace(self, id="", description="")


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A group and all its rules: first its template's, then fast-add, then its own (SPEC 2.5)."""

    name: str
    rules: tuple[Rule, ...] = ()
    description: str = ""
    #: Number of inbound and outbound rules it has ever had, to number later ones. None: as many as it has now.
    numbered: tuple[int, int] | None = None
    #: Ids that were given explicitly to rules since removed, and that numbering would generate for later rules.
    gone: frozenset[str] = frozenset()
    #: False for a stateless group, as in Neutron. The filters of its members do not track connections: every packet,
    #: replies too, must match a rule of its direction. An instance's groups are all stateful or all stateless.
    stateful: bool = True
    #: The provider's id and name (SPEC 2.12), of groups as of all other things that have a name. Empty: none.
    id: str = ""
    label: str = ""

    @property
    def numbers(self) -> dict[Direction, int]:
        """The highest number that a rule's id may have been given, by direction (SPEC 2.5)."""
        inbound = [rule.direction for rule in self.rules].count("inbound")
        ever = self.numbered or (inbound, len(self.rules) - inbound)
        return {"inbound": ever[0], "outbound": ever[1]}


def new_rules(before: Policy | None, group: SecurityGroup) -> Sequence[Rule]:
    """Return the rules of ``group`` that are other objects than those in ``before``, whose group has the same name."""
    old = before.group_by_name.get(group.name) if before else None
    if old is group:
        return ()
    known = set(map(id, old.rules)) if old else set()
    return [rule for rule in group.rules if id(rule) not in known]


@dataclass(frozen=True, slots=True)
class AddressGroup:
    """A named list of addresses and networks that rules can have as peer."""

    name: str
    addresses: tuple[Network, ...] = ()
    id: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Vpc:
    name: str
    #: VPCs without a region share one region, the empty string (SPEC 2).
    region: str = ""
    #: Marks of the VPC's packets in captures (SPEC 7.1): VNIs of VXLAN and Geneve, VLAN ids, interfaces (by
    #: name, or by number within a pcapng section), and patterns that match the names of capture files. No two VPCs
    #: share one.
    vnis: tuple[int, ...] = ()
    vlans: tuple[int, ...] = ()
    interfaces: tuple[str | int, ...] = ()
    files: tuple[str, ...] = ()
    id: str = ""
    label: str = ""

    @property
    def is_mapped(self) -> bool:
        return bool(self.vnis or self.vlans or self.interfaces or self.files)


@dataclass(frozen=True, slots=True)
class Instance:
    """One network interface (SPEC 1). Its addresses are prefixes: a single address is a /32 or /128 (SPEC 2.6)."""

    name: str
    vpc: str
    addresses: tuple[Network, ...]
    security_groups: tuple[str, ...]
    #: The provider's id of the network interface.
    id: str = ""
    label: str = ""
    #: The provider's id of the machine that the network interface belongs to. A machine may have several interfaces.
    device: str = ""


Named = SecurityGroup | AddressGroup | Vpc | Instance
"""A named thing of a policy, which may have an id and a label of its provider (SPEC 2.12)."""

#: The provider's words for a thing, in the order in which they count (SPEC 2.12). A name comes before all of them.
WORDS = ("id", "device", "label")


def also_called(things: Iterable[Named]) -> dict[str, tuple[str, ...]]:
    """The names of the things that each id, device or label stands for."""
    found: dict[str, tuple[str, ...]] = {}
    known = [*things]
    for word in reversed(WORDS):
        names: dict[str, list[str]] = {}
        for thing in known:
            if called := getattr(thing, word, ""):
                names.setdefault(called, []).append(thing.name)
        found |= {called: tuple(those) for called, those in names.items()}
    return found


def mixed_groups(instance: Instance, groups: Mapping[str, SecurityGroup]) -> str:
    """The error message if the instance is in both stateful and stateless groups, which is not allowed; else empty."""
    kinds: tuple[list[str], list[str]] = ([], [])
    for name in instance.security_groups:
        kinds[groups[name].stateful].append(name)
    stateless, stateful = (", ".join(repr(name) for name in sorted(names)[:_LISTED_GROUPS]) for names in kinds)
    if not stateless or not stateful:
        return ""
    return f"instance {instance.name!r} cannot be in stateful groups ({stateful}) and stateless groups ({stateless})"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without an allowed packet after which a connection expires (SPEC 5.2)."""

    tcp_established: float = 600
    tcp_fin_wait: float = 30
    tcp_other: float = 30
    icmp: float = 30
    bidirectional: float = 180
    unidirectional: float = 30


@dataclass(frozen=True, slots=True)
class Settings:
    profile: str = "otc"
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_change: Literal["cut-inbound", "cut-unmatched", "forget-unmatched", "keep"] = "cut-inbound"
    max_connections: int = 4_000_000
    infrastructure: Literal["exempt", "by-role", "filtered"] = "exempt"
    group_members: Literal["by-owner", "by-address"] = "by-owner"


@dataclass(frozen=True, slots=True)
class Quotas:
    security_groups: int = 100
    rules_per_group: int = 50


#: By VPC and IP version, and by the length of a prefix: the names of owners by the prefix's first address.
OwnersByLength = dict[tuple[str, int], dict[int, dict[bytes, str]]]


@dataclass(frozen=True)
class Policy:
    """One account's policy (SPEC 2). Groups are in document order; a created ``default`` group comes last.

    Readers make a ``LoadedPolicy``, and ``sgfast.Policy`` adds the questions that users ask it.
    """

    vpcs: tuple[Vpc, ...] = (Vpc(DEFAULT_VPC),)
    #: Pairs of VPC names in either order. Peering is symmetric and not transitive (SPEC 7.2).
    peerings: frozenset[frozenset[str]] = frozenset()
    address_groups: tuple[AddressGroup, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    instances: tuple[Instance, ...] = ()
    settings: Settings = field(default_factory=Settings)
    quotas: Quotas = field(default_factory=Quotas)
    #: Where the policy came from, for messages: a path, or "-".
    origin: str = "<policy>"
    #: Warnings for the author of the document (SPEC 8.1), as full sentences.
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rules = sum(len(group.rules) for group in self.security_groups)
        counts = {"security group": len(self.security_groups), "rule": rules, "instance": len(self.instances)}
        parts = (f"{number} {word}{'s' * (number != 1)}" for word, number in counts.items())
        return f"<Policy {self.origin}: {', '.join(parts)}>"

    @cached_property
    def group_by_name(self) -> dict[str, SecurityGroup]:
        return {group.name: group for group in self.security_groups}

    @cached_property
    def address_group_by_name(self) -> dict[str, AddressGroup]:
        return {group.name: group for group in self.address_groups}

    @cached_property
    def vpc_by_name(self) -> dict[str, Vpc]:
        return {vpc.name: vpc for vpc in self.vpcs}

    @cached_property
    def connected_vpcs(self) -> dict[str, list[str]]:
        """By the name of each VPC: those whose packets may pass to it, itself first."""
        found = {vpc.name: [vpc.name] for vpc in self.vpcs}
        for pair in self.peerings:
            a, b = sorted(pair)
            found[a].append(b)
            found[b].append(a)
        return found

    @cached_property
    def instance_by_name(self) -> dict[str, Instance]:
        return {instance.name: instance for instance in self.instances}

    @cached_property
    def instance_index(self) -> dict[str, int]:
        """The position of each instance in ``instances``, by name."""
        return {instance.name: n for n, instance in enumerate(self.instances)}

    @cached_property
    def places_by_vpc(self) -> dict[str, list[int]]:
        """The positions in ``instances`` of the instances of each VPC that has any."""
        found: dict[str, list[int]] = {}
        for n, instance in enumerate(self.instances):
            found.setdefault(instance.vpc, []).append(n)
        return found

    def holders(self, vpc: str, network: Network) -> list[Instance]:
        """The instances of a VPC that have the whole network among their addresses."""
        width = network.max_prefixlen
        first, length = int(network.network_address), network.prefixlen
        found: dict[str, Instance] = {}
        for outer, by_address in self.owners.get((vpc, network.version), {}).items():
            if outer <= length:
                address = (first >> (width - outer) << (width - outer)).to_bytes(width // 8)
                if (name := by_address.get(address)) is not None:
                    found[name] = self.instances[self.instance_index[name]]
        return [*found.values()]

    def owner_of(self, vpc: str, network: Network) -> str | None:
        """The name of the instance of a VPC that has just this network among its addresses."""
        by_length = self.owners.get((vpc, network.version), {})
        return by_length.get(network.prefixlen, {}).get(network.network_address.packed)

    @cached_property
    def owners(self) -> OwnersByLength:
        """The names of the instances that own each prefix."""
        found: OwnersByLength = {}
        for instance in self.instances:
            for network in instance.addresses:
                by_length = found.setdefault((instance.vpc, network.version), {})
                by_length.setdefault(network.prefixlen, {})[network.network_address.packed] = instance.name
        return found

    @cached_property
    def owned_ranges(self) -> dict[int, Ports]:
        """Addresses that instances of any VPC own, by IP version. An instance with all addresses is a router, and does
        not count.
        """
        networks = [network for instance in self.instances for network in instance.addresses if network.prefixlen]
        return {
            version: union(
                (int(each.network_address), int(each.broadcast_address)) for each in networks if each.version == version
            )
            for version in (4, 6)
        }

    @cached_property
    def group_of_rule(self) -> dict[str, str]:
        """The name of each rule's group, by the rule's id."""
        return {rule.id: group.name for group in self.security_groups for rule in group.rules}

    @cached_property
    def also_called(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The names that other words than names stand for, by kind of thing and word (SPEC 2.12)."""
        return {
            "instance": also_called(self.instances),
            "security group": also_called(self.security_groups),
            "address group": also_called(self.address_groups),
            "VPC": also_called(self.vpcs),
        }

    @property
    def is_mapped(self) -> bool:
        """Whether the policy says which packets belong to which VPC."""
        return any(vpc.is_mapped for vpc in self.vpcs)

    def connected(self, vpc_a: str, vpc_b: str) -> bool:
        """Whether packets may pass between two VPCs: they are the same one or peered (SPEC 3.6, 7.2)."""
        return vpc_a == vpc_b or frozenset((vpc_a, vpc_b)) in self.peerings


def count_rules(policy: Policy) -> int:
    return sum([len(group.rules) for group in policy.security_groups])


def count_addresses(policy: Policy) -> int:
    """Count the addresses of instances and of address groups."""
    return sum([len(instance.addresses) for instance in policy.instances]) + sum(
        [len(group.addresses) for group in policy.address_groups]
    )
