"""What a policy is, as frozen values (SPEC 2). Checks that need a document's lines live in
``document``; here is only what every reader of a policy agrees on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from operator import is_
from typing import Literal, TypeVar

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

#: Most groups of a kind that ``mixed_groups`` names.
_LISTED_GROUPS = 5

Value = TypeVar("Value")


def differing(before: Sequence[Value], after: Sequence[Value]) -> list[int]:
    """Where two sequences hold different objects, as far as both go. Values that a change leaves alone are the same."""
    same = bytes(map(is_, before, after))
    found = []
    n = same.find(0)
    while n >= 0:
        found.append(n)
        n = same.find(0, n + 1)
    return found


@dataclass(frozen=True, slots=True)
class GroupPeer:
    """A rule's peer: whoever is in this security group now (SPEC 4.11)."""

    name: str


@dataclass(frozen=True, slots=True)
class AddressGroupPeer:
    """A rule's peer: the addresses of this address group, of the rule's ethertype."""

    name: str


#: What a rule's value does not show of how it was written: without ethertype, with 0.0.0.0/0 or ::/0 rather than no
#: peer, with ``icmp`` in an IPv6 rule.
Wording = Literal["no-ethertype", "any-address", "icmp"]

Peer = Network | GroupPeer | AddressGroupPeer | None
"""A rule's source (inbound) or destination (outbound); None is any address of the ethertype."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, normalised (SPEC 2.1-2.5): every default is filled in."""

    id: str
    direction: Direction
    ethertype: Literal[4, 6]
    #: IP protocol number as it stands in a packet of the ethertype (an IPv6 ``icmp`` is 58); None is all.
    protocol: int | None = None
    #: Inclusive destination port ranges, each within 1-65535, sorted and disjoint; None is all ports, 0 included.
    ports: tuple[tuple[int, int], ...] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    peer: Peer = None
    action: Action = "allow"
    #: 1 is looked at first, 100 last (SPEC 4.10).
    priority: int = 1
    description: str = ""
    #: ``modify_rule`` merges what was written (SPEC 9.5); to everyone else rules are the same whatever it was.
    wording: frozenset[Wording] = field(default=frozenset(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A group and all its rules: those of its template, then fast-add, then its own (SPEC 2.5)."""

    name: str
    rules: tuple[Rule, ...] = ()
    description: str = ""
    #: How many inbound and outbound rules it has ever had, for the ids of later ones; None: those it has.
    numbered: tuple[int, int] | None = None
    #: Ids that rules it has no longer were written with, and that later ones would be given.
    gone: frozenset[str] = frozenset()
    #: False, a stateless group as Neutron has them: filters of its members remember no connections, every packet meets
    #: the rules of its direction, replies too. An instance's groups are all of one kind.
    stateful: bool = True

    @property
    def numbers(self) -> dict[Direction, int]:
        """By direction, the highest number a rule's id may have been given (SPEC 2.5)."""
        inbound = sum(rule.direction == "inbound" for rule in self.rules)
        ever = self.numbered or (inbound, len(self.rules) - inbound)
        return {"inbound": ever[0], "outbound": ever[1]}


@dataclass(frozen=True, slots=True)
class AddressGroup:
    name: str
    addresses: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Vpc:
    name: str
    #: VPCs without a region share one, the empty word (SPEC 2).
    region: str = ""
    #: What marks its packets in captures (SPEC 7.1): network identifiers of VXLAN and Geneve, VLANs, interfaces by
    #: their names, or numbers within a pcapng section, and patterns that the names of captures match. No two VPCs have
    #: one in common.
    vnis: tuple[int, ...] = ()
    vlans: tuple[int, ...] = ()
    interfaces: tuple[str | int, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def is_mapped(self) -> bool:
        return bool(self.vnis or self.vlans or self.interfaces or self.files)


@dataclass(frozen=True, slots=True)
class Instance:
    """One network interface (SPEC 1). Its addresses are prefixes; a single address is a /32 or /128 (SPEC 2.6)."""

    name: str
    vpc: str
    addresses: tuple[Network, ...]
    security_groups: tuple[str, ...]


def mixed_groups(instance: Instance, groups: Mapping[str, SecurityGroup]) -> str:
    """What to say of an instance that is in stateful and in stateless groups, as none can be; empty if it is not."""
    kinds: tuple[list[str], list[str]] = ([], [])
    for name in instance.security_groups:
        kinds[groups[name].stateful].append(name)
    stateless, stateful = (", ".join(repr(name) for name in sorted(names)[:_LISTED_GROUPS]) for names in kinds)
    if not stateless or not stateful:
        return ""
    return f"instance {instance.name!r} cannot be in stateful groups ({stateful}) and stateless ones ({stateless})"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without an allowed packet after which a connection is over (SPEC 5.2)."""

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
    on_change: Literal["cut-inbound", "cut-unmatched", "keep"] = "cut-inbound"
    max_connections: int = 4_000_000
    infrastructure: Literal["exempt", "filtered"] = "exempt"


@dataclass(frozen=True, slots=True)
class Quotas:
    security_groups: int = 100
    rules_per_group: int = 50


@dataclass(frozen=True)
class Policy:
    """One account's document (SPEC 2). Group order is document order; a created ``default`` group comes last."""

    vpcs: tuple[Vpc, ...] = (Vpc(DEFAULT_VPC),)
    #: Pairs of VPC names, either order; peering is symmetric and not transitive (SPEC 7.2).
    peerings: frozenset[frozenset[str]] = frozenset()
    address_groups: tuple[AddressGroup, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    instances: tuple[Instance, ...] = ()
    settings: Settings = field(default_factory=Settings)
    quotas: Quotas = field(default_factory=Quotas)
    #: Where the policy came from, for messages; a path or "-".
    origin: str = "<policy>"
    #: What the reader of the document should know though it is no error (SPEC 8.1); whole sentences.
    warnings: tuple[str, ...] = ()

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
    def instance_by_name(self) -> dict[str, Instance]:
        return {instance.name: instance for instance in self.instances}

    @cached_property
    def instance_place(self) -> dict[str, int]:
        """By name: which one it is in ``instances``."""
        return {instance.name: n for n, instance in enumerate(self.instances)}

    def with_instance(self, instance: Instance) -> Policy:
        """The policy in which the instance of that name is this one. What is known of all others is not found anew."""
        n = self.instance_place[instance.name]
        after = replace(self, instances=(*self.instances[:n], instance, *self.instances[n + 1 :]))
        by_name = self.instance_by_name.copy()
        by_name[instance.name] = instance
        after.__dict__.update(instance_place=self.instance_place, instance_by_name=by_name)
        return after

    @property
    def is_mapped(self) -> bool:
        """Whether the policy says of packets which VPC they belong to."""
        return any(vpc.is_mapped for vpc in self.vpcs)

    def connected(self, vpc_a: str, vpc_b: str) -> bool:
        """Whether packets may pass between two VPCs: the same one, or peered (SPEC 3.6, 7.2)."""
        return vpc_a == vpc_b or frozenset((vpc_a, vpc_b)) in self.peerings
