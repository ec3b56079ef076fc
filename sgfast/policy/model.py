"""The policy model: frozen values (SPEC 2). It only has the properties of a policy that do not depend on its source.
``document_reader`` has the checks that need the lines of a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from sgfast.policy.gaps import Gaps
from sgfast.policy.profile_data import ProfileName, profile_data
from sgfast.policy.ranges import normal_form, union

if TYPE_CHECKING:
    from sgfast.api import Questions
else:
    # When the program runs, sgfast.api derives a class of policies that has the questions.
    Questions = object

#: An IPv4 or IPv6 network. An address is a /32 or a /128.
Network = IPv4Network | IPv6Network
#: Inclusive ranges of ports, sorted and without overlaps.
Ports = tuple[tuple[int, int], ...]
#: The direction of a rule, as the instance sees it.
Direction = Literal["inbound", "outbound"]
#: The decision of a rule or of one filter.
Action = Literal["allow", "deny"]
#: The treatment of DHCP and the like (SPEC 3.11).
Infrastructure = Literal["exempt", "by-role", "filtered"]

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

#: The limit for the groups of each kind that ``mixed_groups`` lists.
_LISTED_GROUPS = 5

@dataclass(frozen=True, slots=True)
class GroupPeer:
    """A security group as a rule's peer: the current members of the group (SPEC 4.11).

    ``name``: the name of the security group.

    For example:

        rule = sgfast.Rule("db-web", "inbound", 4, protocol=6, ports=((5432, 5432),), peer=sgfast.GroupPeer("web"))
    """

    name: str


@dataclass(frozen=True, slots=True)
class AddressGroupPeer:
    """An address group as a rule's peer: the addresses of the group that have the rule's ethertype.

    ``name``: the name of the address group.

    For example:

        offices = sgfast.AddressGroupPeer("offices")
        rule = sgfast.Rule("web-ssh", "inbound", 4, protocol=6, ports=((22, 22),), peer=offices)
    """

    name: str


#: A detail of a rule's spelling that its value does not show: no ethertype, 0.0.0.0/0 or ::/0 instead of no peer, or
#: ``icmp`` in an IPv6 rule.
Wording = Literal["no-ethertype", "any-address", "icmp"]

#: A rule's source (inbound) or destination (outbound). None means any address of the ethertype.
Peer = Network | GroupPeer | AddressGroupPeer | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a security group, normalised (SPEC 2.1-2.5): every default is filled in. Rules with the same meaning
    are equal, even if they were written differently (SPEC 6.3).

    ``id``: its id, which is unique in the policy; empty in a rule that is yet to get one.
    ``direction``: the direction of the connections that it is for, as the instance sees them.
    ``ethertype``: the IP version.
    ``protocol``: the IP protocol number in packets of the ethertype (``icmp`` in an IPv6 rule is 58). None means every
    protocol.
    ``ports``: inclusive ranges of destination ports within 0-65535, sorted, without overlaps. None means every port.
    ``icmp_type``: the ICMP type. None means every type.
    ``icmp_code``: the ICMP code. None means every code.
    ``peer``: the other end: a network, a ``GroupPeer`` or an ``AddressGroupPeer``. None means every address.
    ``action``: ``allow`` or ``deny``.
    ``priority``: from 1 to 100. The lowest number is evaluated first (SPEC 4.10).
    ``description``: words for people.
    ``wording``: the spelling of the rule, because ``modify_rule`` merges its fields with the written ones (SPEC 9.5).
    Rules with different spellings may be equal.

    For example:

        rule = sgfast.Rule("web-https", "inbound", 4, protocol=6, ports=((443, 443),), peer=ip_network("192.0.2.0/24"))
    """

    id: str
    direction: Direction
    ethertype: Literal[4, 6]
    protocol: int | None = None
    ports: Ports | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    peer: Peer = None
    action: Action = "allow"
    priority: int = 1
    description: str = ""
    wording: frozenset[Wording] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.ports is not None:
            object.__setattr__(self, "ports", normal_form(self.ports))
        if isinstance(self.peer, Network) and not self.peer.prefixlen and self.peer.version == self.ethertype:
            object.__setattr__(self, "peer", None)

    def without_words(self) -> Rule:
        """Return the rule without its id and description, which are different even in rules with the same effect."""
        return replace(self, id="", description="")


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A group and all its rules: first those of its template, then those of fast-add, then its own (SPEC 2.5).

    ``name``: its name, which is unique in the policy.
    ``rules``: its rules, in the order in which they were written.
    ``description``: words for people.
    ``numbered``: the numbers of inbound and of outbound rules that the group has ever had, for the ids of later rules.
    None: the numbers of rules that it has now.
    ``gone``: written ids of removed rules that look like generated ids. No later rule gets one of them.
    ``stateful``: whether the filters of the group's members track connections. If not (Neutron's stateless groups),
    every packet, replies too, must match a rule of its direction. An instance's groups are all stateful or all
    stateless.
    ``id``: the provider's id for the group (SPEC 2.12), or "".
    ``label``: the provider's name for the group (SPEC 2.12), or "".
    ``vpc``: the name of the VPC that it was made in (SPEC 7.2), or "". Its instances may be in other VPCs.

    For example:

        group = sgfast.SecurityGroup("web", (sgfast.Rule("web-ping", "inbound", 4, protocol=1),))
    """

    name: str
    rules: tuple[Rule, ...] = ()
    description: str = ""
    numbered: tuple[int, int] | None = None
    gone: frozenset[str] = frozenset()
    stateful: bool = True
    id: str = ""
    label: str = ""
    vpc: str = ""

    @property
    def numbers(self) -> dict[Direction, int]:
        """The highest number that the id of any rule may have got, by direction (SPEC 2.5)."""
        inbound = [rule.direction for rule in self.rules].count("inbound")
        ever = self.numbered or (inbound, len(self.rules) - inbound)
        return {"inbound": ever[0], "outbound": ever[1]}


def new_rules(before: Policy | None, group: SecurityGroup) -> Sequence[Rule]:
    """Return the rules of ``group`` that are not the same objects as rules of the group with its name in ``before``."""
    old = before.group_by_name.get(group.name) if before else None
    if old is group:
        return ()
    known_rules = set(map(id, old.rules)) if old else set()
    return [rule for rule in group.rules if id(rule) not in known_rules]


@dataclass(frozen=True, slots=True)
class AddressGroup:
    """A named list of addresses and networks that rules can have as peer.

    ``name``: its name, which is unique in the policy.
    ``addresses``: its addresses and networks, of both IP versions.
    ``id``: the provider's id (SPEC 2.12), or "".
    ``label``: the provider's name (SPEC 2.12), or "".

    For example:

        offices = sgfast.AddressGroup("offices", (ip_network("192.0.2.0/24"),))
    """

    name: str
    addresses: tuple[Network, ...] = ()
    id: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Vpc:
    """A VPC. Its marks are what its packets in captures are known by (SPEC 7.1); no two VPCs have the same mark.

    ``name``: its name, which is unique in the policy.
    ``region``: VPCs without a region share one region, the empty string (SPEC 2).
    ``vnis``: the VXLAN and Geneve network identifiers that mark the VPC's packets in captures (SPEC 7.1).
    ``vlans``: the VLANs that mark its packets.
    ``interfaces``: the names or numbers of capture interfaces on which its packets are.
    ``files``: patterns of the names of captures that have its packets.
    ``id``: the provider's id (SPEC 2.12), or "".
    ``label``: the provider's name (SPEC 2.12), or "".
    """

    name: str
    region: str = ""
    vnis: tuple[int, ...] = ()
    vlans: tuple[int, ...] = ()
    interfaces: tuple[str | int, ...] = ()
    files: tuple[str, ...] = ()
    id: str = ""
    label: str = ""

    @property
    def is_mapped(self) -> bool:
        """Whether the VPC has marks."""
        return bool(self.vnis or self.vlans or self.interfaces or self.files)


@dataclass(frozen=True, slots=True)
class Instance:
    """A protected network interface (SPEC 1). Its addresses are prefixes, such as a /32 or a /128 (SPEC 2.6).

    ``name``: its name, which is unique in the policy.
    ``vpc``: the name of its VPC.
    ``addresses``: its addresses and prefixes.
    ``security_groups``: the names of its security groups.
    ``id``: the provider's id of the network interface.
    ``label``: the provider's name (SPEC 2.12), or "".
    ``device``: the provider's id of the machine that the network interface belongs to. A machine may have several
    interfaces.

    For example:

        instance = sgfast.Instance("web-3", "default", (ip_network("10.0.0.8/32"),), ("web",))
    """

    name: str
    vpc: str
    addresses: tuple[Network, ...]
    security_groups: tuple[str, ...]
    id: str = ""
    label: str = ""
    device: str = ""


Named = SecurityGroup | AddressGroup | Vpc | Instance
"""An object of a policy that has a name, and may have an id and a label of its provider (SPEC 2.12)."""

#: The fields with the provider's words for an object, in order of precedence after the name (SPEC 2.12).
WORDS = ("id", "device", "label")


def called(item: Named) -> str:
    """Return how reports name an object: ``web prod (sg-0123)`` if it has a label, or its name alone (SPEC 10.28)."""
    return f"{item.label} ({item.name})" if item.label else item.name


def also_called(items: Iterable[Named]) -> dict[str, tuple[str, ...]]:
    """Return the names of the objects that each id, device or label means."""
    names_by_word: dict[str, tuple[str, ...]] = {}
    known_items = [*items]
    for field_name in reversed(WORDS):
        names: dict[str, list[str]] = {}
        for item in known_items:
            if word := getattr(item, field_name, ""):
                names.setdefault(word, []).append(item.name)
        names_by_word |= {word: tuple(of_word) for word, of_word in names.items()}
    return names_by_word


def mixed_groups(instance: Instance, groups: Mapping[str, SecurityGroup]) -> str:
    """Return an error message if an instance is in both stateful and stateless groups, which is not allowed, else "".
    """
    kinds: tuple[list[str], list[str]] = ([], [])
    for name in instance.security_groups:
        kinds[groups[name].stateful].append(name)
    stateless, stateful = (", ".join(repr(name) for name in sorted(names)[:_LISTED_GROUPS]) for names in kinds)
    if not stateless or not stateful:
        return ""
    return f"instance {instance.name!r} cannot be in stateful groups ({stateful}) and stateless groups ({stateless})"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The seconds without an allowed packet after which a connection expires (SPEC 5.2).

    ``tcp_established``: TCP connections that are established.
    ``tcp_fin_wait``: TCP connections that one end has closed.
    ``tcp_other``: TCP connections in any other state.
    ``icmp``: ICMP queries.
    ``bidirectional``: other protocols, if both ends have sent packets.
    ``unidirectional``: other protocols, if only one end has.
    """

    tcp_established: float = 600
    tcp_fin_wait: float = 30
    tcp_other: float = 30
    icmp: float = 30
    bidirectional: float = 180
    unidirectional: float = 30


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the account (SPEC 2).

    ``profile``: the cloud whose behaviour is assumed: ``otc``, ``neutron`` or ``aws`` (SPEC 6.8).
    ``timeouts``: the timeouts of connections.
    ``on_change``: the fate of connections that a change no longer allows (SPEC 6.7).
    ``max_connections``: the number of connections that the filters remember at most (SPEC 5.8).
    ``infrastructure``: the treatment of DHCP and the like (SPEC 3.11).
    ``group_members``: the addresses that a group as peer stands for (SPEC 4.11).
    """

    profile: ProfileName = "otc"
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_change: Literal["cut-inbound", "cut-unmatched", "forget-unmatched", "keep"] = "cut-inbound"
    max_connections: int = 4_000_000
    infrastructure: Infrastructure = "exempt"
    group_members: Literal["by-owner", "by-address"] = "by-owner"


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of an account on the size of its policy (SPEC 8.5).

    ``security_groups``: the number of security groups.
    ``rules_per_group``: the number of rules in one group.
    """

    security_groups: int = 100
    rules_per_group: int = 50


#: The names of the owners of prefixes: by VPC and IP version, then by prefix length, then by first address.
OwnersByLength = dict[tuple[str, int], dict[int, dict[bytes, str]]]


@dataclass(frozen=True)
class Policy(Questions):
    """One account's policy, made by ``sgfast.load``, with the questions that users can ask about it (SPEC 14.3, 14.4).

    An end (``source``, ``destination``) is an instance, a security group or an address group by its name, id or label;
    an address or a network, as a text or as a value of ``ipaddress``; ``internet``; or ``any``. If a word means several
    things, write ``instance:web``, ``group:web`` or ``address-group:web``.

    A service is ``tcp/443``, ``udp/1000-2000``, ``tcp``, ``icmp``, ``icmp/8``, ``gre``, ``all`` or the like.

    Each answer prints as the command of the same name prints it: ``print(policy.check())``.

    ``vpcs``: its VPCs.
    ``peerings``: pairs of VPC names in either order. Peering is symmetric and not transitive (SPEC 7.2).
    ``address_groups``: its address groups.
    ``security_groups``: its security groups.
    ``instances``: its instances.
    ``settings``: its settings.
    ``quotas``: the limits of its size. A policy beyond them is refused (SPEC 8.5).
    ``origin``: the source of the policy, for messages: a path, or "-". Equal policies may have different sources.
    ``warnings``: warnings for the author of the document (SPEC 8.1), as full sentences, which may name the source.
    ``gaps``: what the files of an export do not hold, such as filters that are not read (SPEC 12.7).

    The first ``explain`` compiles the policy, and the policy keeps the result for the next ones, for at most four VPCs.
    For 10,000 rules and 5,000 instances, this takes 0.3 seconds and 15 MB for each VPC; a further ``explain`` takes
    half a millisecond. Threads may share a policy. Copies of it have nothing compiled.
    """

    vpcs: tuple[Vpc, ...] = (Vpc(DEFAULT_VPC),)
    peerings: frozenset[frozenset[str]] = frozenset()
    address_groups: tuple[AddressGroup, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    instances: tuple[Instance, ...] = ()
    settings: Settings = field(default_factory=Settings)
    quotas: Quotas = field(default_factory=Quotas)
    origin: str = field(default="<policy>", compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    gaps: Gaps = field(default=Gaps(), compare=False)

    def __repr__(self) -> str:
        rules = sum(len(group.rules) for group in self.security_groups)
        counts = {"security group": len(self.security_groups), "rule": rules, "instance": len(self.instances)}
        parts = (f"{number} {word}{'s' * (number != 1)}" for word, number in counts.items())
        return f"<Policy {self.origin}: {', '.join(parts)}>"

    @cached_property
    def group_by_name(self) -> Mapping[str, SecurityGroup]:
        """The security groups by name."""
        return MappingProxyType({group.name: group for group in self.security_groups})

    @cached_property
    def address_group_by_name(self) -> Mapping[str, AddressGroup]:
        """The address groups by name."""
        return MappingProxyType({group.name: group for group in self.address_groups})

    @cached_property
    def vpc_by_name(self) -> Mapping[str, Vpc]:
        """The VPCs by name."""
        return MappingProxyType({vpc.name: vpc for vpc in self.vpcs})

    @cached_property
    def _connected_vpcs(self) -> dict[str, list[str]]:
        """By the name of a VPC: the names of the VPCs with which it can exchange packets, itself first."""
        neighbours = {vpc.name: [vpc.name] for vpc in self.vpcs}
        for pair in self.peerings:
            a, b = sorted(pair)
            neighbours[a].append(b)
            neighbours[b].append(a)
        return neighbours

    @cached_property
    def instance_by_name(self) -> Mapping[str, Instance]:
        """The instances by name."""
        return MappingProxyType({instance.name: instance for instance in self.instances})

    @cached_property
    def _instance_index(self) -> dict[str, int]:
        """The position of each instance in ``instances``, by name."""
        return {instance.name: n for n, instance in enumerate(self.instances)}

    @cached_property
    def _places_by_vpc(self) -> dict[str, list[int]]:
        """The positions in ``instances`` of the instances of each VPC. VPCs without instances are left out."""
        places: dict[str, list[int]] = {}
        for n, instance in enumerate(self.instances):
            places.setdefault(instance.vpc, []).append(n)
        return places

    def _holders(self, vpc: str, network: Network) -> list[Instance]:
        """Return the instances of a VPC with a prefix that contains the whole network."""
        width = network.max_prefixlen
        first, length = int(network.network_address), network.prefixlen
        holders: dict[str, Instance] = {}
        for outer, by_address in self.owners.get((vpc, network.version), {}).items():
            if outer <= length:
                address = (first >> (width - outer) << (width - outer)).to_bytes(width // 8)
                if (name := by_address.get(address)) is not None:
                    holders[name] = self.instances[self._instance_index[name]]
        return [*holders.values()]

    def _owner_of(self, vpc: str, network: Network) -> str | None:
        """Return the name of the instance of a VPC that has exactly this prefix, or None."""
        by_length = self.owners.get((vpc, network.version), {})
        return by_length.get(network.prefixlen, {}).get(network.network_address.packed)

    @cached_property
    def owners(self) -> OwnersByLength:
        """The names of the instances that own each prefix."""
        owners_by_length: OwnersByLength = {}
        for instance in self.instances:
            for network in instance.addresses:
                by_length = owners_by_length.setdefault((instance.vpc, network.version), {})
                by_length.setdefault(network.prefixlen, {})[network.network_address.packed] = instance.name
        return owners_by_length

    @cached_property
    def _owned_ranges(self) -> dict[int, Ports]:
        """Addresses that instances of any VPC own, by IP version. An instance with all addresses is a router, and does
        not count.
        """
        networks = [network for instance in self.instances for network in instance.addresses if network.prefixlen]
        return {
            version: union(
                (int(net.network_address), int(net.broadcast_address)) for net in networks if net.version == version
            )
            for version in (4, 6)
        }

    @cached_property
    def _shares_addresses(self) -> bool:
        """Whether instances of two VPCs own one address (SPEC 7.1)."""
        spans = sorted(
            (network.version, int(network.network_address), -int(network.broadcast_address), instance.vpc)
            for instance in self.instances for network in instance.addresses
        ) if len(self.vpcs) > 1 else ()  # fmt: skip
        # Prefixes are nested or disjoint, so only the widest prefix around the current one matters.
        widest = (0, 0, "")
        for version, first, minus_last, vpc in spans:
            if version > widest[0] or first > widest[1]:
                widest = version, -minus_last, vpc
            elif vpc != widest[2]:
                return True
        return False

    @cached_property
    def group_of_rule(self) -> dict[str, str]:
        """The name of each rule's group, by the rule's id."""
        return {rule.id: group.name for group in self.security_groups for rule in group.rules}

    @cached_property
    def twins(self) -> dict[str, Rule]:
        """The twin of each rule that has one, by the rule's id (SPEC 2.16). Both together are one rule in AWS."""
        twin_of: dict[str, Rule] = {}
        lists = {
            group.name for group in self.address_groups if group.id.startswith("pl-") or group.name.startswith("pl-")
        }
        unites_versions = profile_data(self.settings.profile).get("unites_versions", False)
        for group in self.security_groups if unites_versions else ():
            rules_by_family: dict[int, dict[Rule, Rule]] = {4: {}, 6: {}}
            for rule in group.rules:
                peer = rule.peer
                if isinstance(peer, GroupPeer) or (isinstance(peer, AddressGroupPeer) and peer.name in lists):
                    rules_by_family[rule.ethertype].setdefault(replace(rule.without_words(), ethertype=4), rule)
            for meaning in rules_by_family[4].keys() & rules_by_family[6].keys():
                four, six = rules_by_family[4][meaning], rules_by_family[6][meaning]
                twin_of[four.id], twin_of[six.id] = six, four
        return twin_of

    def _first_twin(self, rule: Rule) -> Rule:
        """Return the rule by which reports call a rule and its twin: the one for IPv4. Without a twin, the rule itself.
        """
        return rule if rule.ethertype == 4 else self.twins.get(rule.id, rule)

    @cached_property
    def also_called(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The names of the objects that the provider's words mean, by kind of object and word (SPEC 2.12)."""
        return {
            "instance": also_called(self.instances),
            "security group": also_called(self.security_groups),
            "address group": also_called(self.address_groups),
            "VPC": also_called(self.vpcs),
        }

    @property
    def is_mapped(self) -> bool:
        """Whether any VPC has marks by which its packets are known."""
        return any(vpc.is_mapped for vpc in self.vpcs)

    @property
    def is_stateful(self) -> bool:
        """Whether all groups are stateful."""
        return all(group.stateful for group in self.security_groups)

    def connected(self, vpc_a: str, vpc_b: str) -> bool:
        """Return whether packets may pass between two VPCs: they are the same VPC or peered (SPEC 3.6, 7.2)."""
        return vpc_a == vpc_b or frozenset((vpc_a, vpc_b)) in self.peerings


def count_rules(policy: Policy) -> int:
    return sum([len(group.rules) for group in policy.security_groups])


def count_addresses(policy: Policy) -> int:
    """Count the prefixes of instances and of address groups."""
    return sum([len(instance.addresses) for instance in policy.instances]) + sum(
        [len(group.addresses) for group in policy.address_groups]
    )
