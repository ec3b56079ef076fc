"""The objects of an export before they become a policy. They refer to each other by provider ids.

    export --a format--> Draft --document()--> plain document (SPEC 2) --conversion.policy_of()--> Policy

How a format fills a draft::

    draft = Draft("neutron")                                  # settings.profile
    group = Location("sg.json", "security group", "85cc…", "web")   # how messages name the object
    draft.group(group, description="…", stateful=True, vpc="vpc-1a…")
    draft.rule("85cc…", DraftRule(group.part("rule 3c0e…"), "inbound", 4, "tcp", ports=[(22, 22)], cidr="10.0.0.0/8"))
    port = Location("ports.json", "port", "0a1b…", "web-1")
    draft.instance(DraftInstance(port, addresses=["10.0.0.5"], groups=["85cc…"]))

- Objects refer to each other by ``Location.id``. ``Location.name`` is only for people and may be empty. Objects may be
  added in any order, because references are resolved at the end (``unresolved``).
- Overlapping listings may have the same object twice; it counts once. Different objects with one id are an error.
- The document keeps the provider's ids as ``id``, and names that are not valid in a policy as ``label`` (SPEC 2.12). A
  format that makes up an id to connect objects announces the id with ``made_up()``.
- A format translates its own values (``ingress``, ``-1``) and raises ``location.error("…")`` for unknown values. This
  module and the document reader check ports, protocols, CIDRs and priorities.
- ``note()`` records a fact that is worth knowing but no error (an unfiltered port is no instance). The note becomes a
  warning of the policy and a comment in the document.
- A VPC without a name and region needs no call of ``vpc()``; an instance's ``vpc`` is enough. An instance with an empty
  ``vpc`` is in the only VPC, "default".
- An address that several instances may use goes into ``shared_addresses`` of each, because SPEC 2.6 allows one owner.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.values import (
    address_text,
    assign_names,
    free_name,
    networks_of,
    one_network,
    shared_name,
    valid_description,
    valid_id,
    valid_label,
)
from sgfast.policy.gaps import Gaps, UnreadFilter
from sgfast.policy.model import (
    DEFAULT_VPC,
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    Action,
    Direction,
    Network,
    Settings,
)
from sgfast.policy.networks import network_key, without_duplicates
from sgfast.policy.profile_data import ProfileName, profile_data
from sgfast.policy.profiles import PROFILES
from sgfast.policy.protocols import PROTOCOL_NUMBERS, protocol_name
from sgfast.policy.ranges import ALL_PORTS, LAST_PORT, union
from sgfast.policy.yaml_nodes import show

__all__ = ["Draft", "DraftInstance", "DraftRule", "Location", "Made"]

#: The IP versions of the draft rules for a provider's rule whose peer may have addresses of either version.
BOTH_VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)
_RULE_ID = re.compile(r"[A-Za-z0-9_.\-/]{1,100}")
_LISTED_NAMES = 5
#: Values of attributes that say as little as an attribute that is left out.
_EMPTY = ('""', "[]", "{}")


@dataclass(slots=True)
class DraftRule:
    """A rule of a policy. A provider's rule becomes one or several of them. Rules with the same meaning are equal."""

    location: Location = field(compare=False)
    direction: Direction
    ethertype: Literal[4, 6]
    #: A name or number that protocols.py knows. None means every protocol.
    protocol: str | int | None = None
    #: Inclusive ranges, each within 0-65535. None means all ports.
    ports: Sequence[tuple[int, int]] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    #: The peer: at most one of these three is set. If all are empty, the peer is any address of the ethertype.
    cidr: str = ""
    group: str = ""
    address_group: str = ""
    action: Action = "allow"
    priority: int = 1
    description: str = field(default="", compare=False)
    #: The provider's id of the rule, or "". ``numbered`` gives ids to several rules that come from one.
    id: str = field(default="", compare=False)


def numbered(rules: Sequence[DraftRule], rule_id: str) -> Sequence[DraftRule]:
    """Derive the ids of draft rules from the id of their provider's rule: ``sgr-1``, ``sgr-1/2``, ``sgr-1/3`` …"""
    for n, rule in enumerate(rules if rule_id else (), 1):
        rule.id = rule_id if n == 1 else f"{rule_id}/{n}"
    return rules


@dataclass(slots=True)
class DraftInstance:
    """A port or network interface."""

    location: Location
    vpc: str = ""
    #: Addresses or CIDRs that the instance owns.
    addresses: Sequence[str] = ()
    #: Ids of the instance's groups. An empty list means that nothing is allowed, not SPEC 8.1's default group.
    groups: Sequence[str] = ()
    #: Virtual addresses and allowed address pairs. If only one instance lists an address, the instance owns it. If
    #: several instances list it, it becomes an instance of its own, provided they are all in the same groups.
    shared_addresses: Sequence[str] = ()
    #: The provider's id of the machine that the instance belongs to, or "".
    device: str = ""
    #: Words for an instance without a name, which become its label.
    description: str = ""


@dataclass(slots=True)
class _Group:
    location: Location
    description: str
    stateful: bool
    #: The id of its VPC, or "".
    vpc: str = ""
    rules: list[DraftRule] = field(default_factory=list)


@dataclass(slots=True)
class _AddressGroup:
    location: Location
    addresses: tuple[Network, ...]


@dataclass(slots=True)
class _Vpc:
    location: Location
    region: str


@dataclass(slots=True)
class _ResolvedInstance:
    """An instance with resolved references and the addresses that it claims."""

    location: Location
    vpc: str
    groups: tuple[str, ...]
    #: The addresses that the instance owns, by ``network_key``, in the order of the export.
    addresses: dict[bytes, Network]
    #: The addresses that other instances may use, too.
    shared: dict[bytes, Network]
    device: str = ""
    description: str = ""


#: The limit for the prefixes of all address groups of an export. A prefix takes 200 bytes, and one range of IPv6
#: addresses may need 254 prefixes.
MAX_PREFIXES = 500_000


class Made(NamedTuple):
    """A document, and the export's objects from which it was made, for messages and comments."""

    document: dict[str, Any]
    #: For each section of the document, the object from which each item was made.
    locations: dict[str, list[Location]]
    #: For each security group, the object from which each rule was made.
    rule_locations: list[list[Location]]
    notes: list[str]
    gaps: Gaps


class Draft:
    """Collects the objects of an export; ``document()`` and ``made`` have the result. A PolicyError names file and
    object.
    """

    def __init__(self, profile: ProfileName) -> None:
        self._profile = profile
        self._vpcs: dict[str, _Vpc] = {}
        self._peerings: list[tuple[Location, str, str]] = []
        self._address_groups: dict[str, _AddressGroup] = {}
        self._groups: dict[str, _Group] = {}
        self._rules: dict[str, tuple[str, DraftRule]] = {}
        #: All rules so far, with the ids of their groups.
        self.rules: list[tuple[str, DraftRule]] = []
        self._instances: dict[str, DraftInstance] = {}
        #: By id of a group in another account: how messages name the owner, such as ``account 'amazon-elb'``.
        self.foreign: dict[str, str] = {}
        #: The cloud's term for an address group.
        self.list_word: str = profile_data(profile).get("address_group_word", "address group")
        self._notes: dict[str, list[str]] = {}
        self._listed_whole: set[str] = set()
        self._made_up: set[str] = set()
        self._prefixes = 0
        #: Whether the files are a part of an account by their nature, so that a group may have members elsewhere.
        self.is_partial = False
        #: The ids of groups of which all members are in the files, though the files are a part of an account.
        self.whole_groups: set[str] = set()
        #: The ids of groups and lists that are in none of the files.
        self.unresolved: set[str] = set()
        self._filters: dict[tuple[str, str], UnreadFilter] = {}

    # Input from the formats

    def note(self, message: str, location: Location | None = None, *, whole: bool = False) -> None:
        """Record a fact that is worth knowing but no error. If many objects share a message, only the first few are
        named. ``whole``: name all of them.
        """
        names = self._notes.setdefault(message, [])
        if whole:
            self._listed_whole.add(message)
        if location is not None:
            names.append(location.called)

    def unread_filter(self, kind: str, location: Location, content: Mapping[str, Any]) -> None:
        """Record a filter that a policy cannot express. ``content``: what it says, as plain values; None for an
        attribute that the provider will choose. Empty values count as left out.
        """
        name = location.id
        if (kind, name) in self._filters:
            name = f"{name} of {os.path.basename(location.file)}"
        texts = {key: value if value is None else _text_of(value) for key, value in content.items()}
        texts = {key: text for key, text in texts.items() if text not in _EMPTY}
        self._filters[kind, name] = UnreadFilter(kind, name, texts)

    def made_up(self, *ids: str) -> None:
        """Mark ids that a format made up, so that the document does not keep them."""
        self._made_up.update(ids)

    def vpc(self, location: Location, region: str = "") -> None:
        first_vpc = self._vpcs.get(location.id)
        if first_vpc is not None and (first_vpc.location.name, first_vpc.region) != (location.name, region):
            raise location.differs_from(first_vpc.location)
        self._vpcs.setdefault(location.id, _Vpc(location, region))

    def peering(self, location: Location, vpc_a: str, vpc_b: str) -> None:
        """Add a peering of two VPCs, given by id (SPEC 7.2)."""
        self._peerings.append((location, vpc_a, vpc_b))

    def address_group(self, location: Location, addresses: Iterable[str]) -> None:
        """Add an address group. ``addresses``: addresses, CIDRs or ranges ("10.0.0.1-10.0.0.9")."""
        group = _AddressGroup(location, without_duplicates(self._networks(location, addresses)))
        first_group = self._address_groups.get(location.id)
        if first_group is not None and _facts_of_addresses(first_group) != _facts_of_addresses(group):
            raise location.differs_from(first_group.location)
        self._address_groups.setdefault(location.id, group)

    def _networks(self, location: Location, addresses: Iterable[str]) -> Iterator[Network]:
        for text in addresses:
            for network in networks_of(location, text):
                self._prefixes += 1
                if self._prefixes > MAX_PREFIXES:
                    raise location.error(
                        f"the address groups need more than {MAX_PREFIXES:,} prefixes, to which ranges of addresses "
                        "are turned: use prefixes, or wider ranges"
                    )
                yield network

    def group(self, location: Location, description: str = "", *, stateful: bool = True, vpc: str = "") -> None:
        """Add a group. ``vpc``: the id of its VPC, or ""; all VPCs of groups must be added with ``vpc()``."""
        first_group = self._groups.get(location.id)
        if first_group is None:
            self._groups[location.id] = _Group(location, description, stateful, vpc)
        elif (first_group.location.name, first_group.stateful) != (location.name, stateful):
            raise location.differs_from(first_group.location)

    @property
    def has_groups(self) -> bool:
        """Whether there is a security group or a rule of one."""
        return bool(self._groups or self.rules)

    def has_group(self, group_id: str) -> bool:
        return group_id in self._groups

    def has_address_group(self, group_id: str) -> bool:
        return group_id in self._address_groups

    @property
    def group_locations(self) -> Iterable[Location]:
        return [group.location for group in self._groups.values()]

    @property
    def address_group_locations(self) -> Iterable[Location]:
        return [group.location for group in self._address_groups.values()]

    @property
    def vpc_locations(self) -> Iterable[Location]:
        return [vpc.location for vpc in self._vpcs.values()]

    @property
    def peering_pairs(self) -> Iterable[tuple[str, str]]:
        return [(a, b) for _, a, b in self._peerings]

    @property
    def instances(self) -> Iterable[DraftInstance]:
        return self._instances.values()

    def rule(self, group_id: str, rule: DraftRule) -> None:
        """Add a rule to the group with this id. The group may be added later."""
        rule.id = rule.id if _RULE_ID.fullmatch(rule.id) else ""
        if rule.id in self._rules:
            other_group, first_rule = self._rules[rule.id]
            if group_id != other_group or rule != first_rule:
                raise rule.location.differs_from(first_rule.location)
            return
        if rule.id:
            self._rules[rule.id] = group_id, rule
        self.rules.append((group_id, rule))

    def instance(self, instance: DraftInstance) -> None:
        first_instance = self._instances.setdefault(instance.location.id, instance)
        if first_instance is not instance and _facts(first_instance) != _facts(instance):
            raise instance.location.differs_from(first_instance.location)

    # The result, once all references are resolved

    def document(self) -> dict[str, Any]:
        """Return the document as mappings, lists, strings and numbers, like a YAML parser does."""
        return self.made.document

    @cached_property
    def made(self) -> Made:
        for group_id, rule in self.rules:
            if self._has_ports(rule):
                self._groups[group_id].rules.append(rule)
        self.rules = []
        locations: dict[str, list[Location]] = {}
        document: dict[str, Any] = {"version": 1}
        if quotas := self._quotas():
            document["quotas"] = quotas
        if self._profile != Settings().profile:
            document["settings"] = {"profile": self._profile}
        instances = self._settled_instances()

        vpcs = self._all_vpcs(instances)
        vpc_names = assign_names([vpc.location for vpc in vpcs.values()])
        if [*vpc_names.values()] != [DEFAULT_VPC] or any(vpc.region for vpc in vpcs.values()):
            document["vpcs"] = [
                self._called(vpc_names[i], vpc.location) | ({"region": vpc.region} if vpc.region else {})
                for i, vpc in vpcs.items()
            ]
        if pairs := self._peering_pairs(vpc_names):
            document["peerings"] = [list(pair) for pair in pairs]
            locations["peerings"] = list(pairs.values())

        address_group_names = assign_names([group.location for group in self._address_groups.values()])
        if self._address_groups:
            document["address_groups"] = [
                self._called(address_group_names[i], group.location)
                | {"addresses": [address_text(address) for address in group.addresses]}
                for i, group in self._address_groups.items()
            ]

        groups = dict(self._groups)
        if any(not instance.groups for instance in instances):
            # Every instance must be in a group (SPEC 8.2). A group without rules allows nothing, like being in none.
            location = Location("", "security group", free_name("no-security-group", groups))
            groups[location.id] = _Group(location, "Instances that are in no security group", True)
            for instance in instances:
                instance.groups = instance.groups or (location.id,)
        group_names = assign_names([group.location for group in groups.values()])
        peers = _Peers(group_names, address_group_names)
        document["security_groups"] = [
            self._group_document(group, group_names[i], peers)
            | ({"vpc": vpc_names[group.vpc]} if group.vpc and len(vpcs) > 1 else {})
            for i, group in groups.items()
        ]

        instance_names = assign_names([instance.location for instance in instances])
        document["instances"] = [
            self._called(
                instance_names[instance.location.id], instance.location, instance.device, instance.description
            )
            | ({"vpc": vpc_names[instance.vpc]} if len(vpcs) > 1 else {})
            | {
                "addresses": [address_text(address) for address in instance.addresses.values()],
                "security_groups": [group_names[i] for i in instance.groups],
            }
            for instance in instances
        ]
        for section, items in (
            ("vpcs", vpcs.values()), ("address_groups", self._address_groups.values()),
            ("security_groups", groups.values()), ("instances", instances),
        ):  # fmt: skip
            locations[section] = [item.location for item in items]
        rule_locations = [[rule.location for rule in group.rules] for group in groups.values()]
        self._note_what_is_empty(instances)
        gaps = self._gaps(instances, group_names, address_group_names)
        return Made(document, locations, rule_locations, self._note_texts(), gaps)

    def _gaps(
        self, instances: Sequence[_ResolvedInstance], group_names: dict[str, str], list_names: dict[str, str]
    ) -> Gaps:
        joined = {group for instance in instances for group in instance.groups}
        unjoined = set(self._groups) - joined - self.unresolved if self.is_partial or not instances else set()
        unjoined -= self.whole_groups
        return Gaps(
            tuple(self._filters.values()), frozenset(name for i, name in group_names.items() if i in self.unresolved),
            frozenset(name for i, name in list_names.items() if i in self.unresolved),
            frozenset(group_names[i] for i in unjoined),
        )  # fmt: skip


    def _note_what_is_empty(self, instances: Sequence[_ResolvedInstance]) -> None:
        """Note missing groups, rules and instances: an incomplete export looks like an export of an empty account."""
        if not self._groups:
            self.note("No file holds a security group, so that nothing is allowed")
        for group in self._groups.values():
            if not group.rules:
                self.note("Has no rules, so that it allows nothing", group.location)
        if not instances:
            self.note("No file holds an instance with an address, so that nothing is filtered")

    def _called(self, name: str, location: Location, device: str = "", description: str = "") -> dict[str, Any]:
        """Return an object's ``name``, with the provider's ``id``, ``device`` and ``label`` if they differ (SPEC 2.12).
        """
        entry: dict[str, Any] = {"name": name}
        for key, word in (("id", location.id), ("device", "" if device == location.id else device)):
            if word != name and word not in self._made_up and valid_id(word):
                entry[key] = word
        label = location.name or description
        if label not in ("", name):
            entry["label"] = valid_label(label)
        return entry

    def _note_texts(self) -> list[str]:
        notes = []
        for message, names in self._notes.items():
            most = len(names) if message in self._listed_whole else _LISTED_NAMES
            hidden_count = len(names) - most
            listed = ", ".join(names[:most]) + (f" and {hidden_count} more" if hidden_count > 0 else "")
            notes.append(f"{message}: {listed}." if names else f"{message}.")
        return notes

    def _quotas(self) -> dict[str, int]:
        defaults = PROFILES[self._profile].quotas
        most_rules = max((len(group.rules) for group in self._groups.values()), default=0)
        has_ungrouped = any(not instance.groups for instance in self._instances.values())
        needed = {"security_groups": len(self._groups) + has_ungrouped, "rules_per_group": most_rules}
        return {key: count for key, count in needed.items() if count > getattr(defaults, key)}

    # VPCs

    def _all_vpcs(self, instances: Sequence[_ResolvedInstance]) -> dict[str, _Vpc]:
        vpcs = dict(self._vpcs)
        for instance in instances:
            if instance.vpc not in vpcs:
                name = "" if instance.vpc else DEFAULT_VPC
                vpcs[instance.vpc] = _Vpc(Location(instance.location.file, "VPC", instance.vpc, name), "")
        return vpcs or {"": _Vpc(Location("", "VPC", "", DEFAULT_VPC), "")}

    def _peering_pairs(self, names: dict[str, str]) -> dict[tuple[str, ...], Location]:
        pairs: dict[tuple[str, ...], Location] = {}
        for location, a, b in self._peerings:
            if a == b:
                raise location.error(f"peers the VPC {show(a)} with itself")
            if a not in names or b not in names:
                self.note("Peers nothing because one of its VPCs is in none of the files", location)
                continue
            pairs.setdefault(tuple(sorted((names[a], names[b]))), location)
        return pairs

    # Groups and rules

    def _has_ports(self, rule: DraftRule) -> bool:
        """Remove port 0 from the rule if the cloud does not know it. Return False if the rule has no other port."""
        ranges, first_port = rule.ports, PROFILES[self._profile].first_port
        if ranges is None or all(first >= first_port for first, _ in ranges) or protocol_of(rule) not in PORT_PROTOCOLS:
            return True
        if any(not 0 <= first <= last for first, last in ranges):
            return True     # ``_written_ports`` raises the error.
        if union(ranges) == ALL_PORTS:
            rule.ports = None
            return True
        rule.ports = [(max(first, first_port), last) for first, last in ranges if last >= first_port]
        effect = "from port 0 on counts from port 1 on" if rule.ports else "is for port 0 alone, so it is left out"
        self.note(f"The cloud has no port 0: a rule {effect}", rule.location)
        return bool(rule.ports)

    def _group_document(self, group: _Group, name: str, peers: _Peers) -> dict[str, Any]:
        document = self._called(name, group.location)
        if group.description:
            document["description"] = valid_description(group.description)
        if not group.stateful:
            document["stateful"] = False
        document["rules"] = [self._rule_document(rule, peers) for rule in group.rules]
        return document

    def _rule_document(self, rule: DraftRule, peers: _Peers) -> dict[str, Any]:
        protocol = protocol_of(rule)
        document: dict[str, Any] = {"direction": rule.direction}
        # Write the ethertype only where it differs from the default (SPEC 2.4).
        if (rule.group or rule.address_group) and rule.ethertype != (6 if protocol == ICMPV6 else 4):
            document["ethertype"] = f"IPv{rule.ethertype}"
        document["protocol"] = "all" if protocol is None else protocol_name(protocol) or protocol
        if rule.ports is not None:
            document["ports"] = _written_ports(rule, protocol)
        for key, value in (("icmp_type", rule.icmp_type), ("icmp_code", rule.icmp_code)):
            if value is not None:
                if protocol not in (ICMP, ICMPV6):
                    raise rule.location.error(f"has an ICMP {key[5:]}, but its protocol is not ICMP")
                document[key] = value
        if rule.icmp_code is not None and rule.icmp_type is None:
            raise rule.location.error("has an ICMP code without a type")
        document["source" if rule.direction == "inbound" else "destination"] = peers.written(rule)
        if rule.action != "allow":
            document["action"] = rule.action
        if rule.priority != 1:
            document["priority"] = rule.priority
        if rule.description:
            document["description"] = valid_description(rule.description)
        if rule.id:
            document["id"] = rule.id
        return document

    # Instances

    def _settled_instances(self) -> list[_ResolvedInstance]:
        settled = [self._settled(instance) for instance in self._instances.values()]
        claims: dict[tuple[str, bytes], tuple[Network, list[_ResolvedInstance]]] = {}
        for instance in settled:
            for key, address in (*instance.addresses.items(), *instance.shared.items()):
                claims.setdefault((instance.vpc, key), (address, []))[1].append(instance)
        of_addresses: list[_ResolvedInstance] = []
        for (vpc, key), (address, claimants) in claims.items():
            owners = [claimant for claimant in claimants if key in claimant.addresses]
            if len(owners) > 1:
                names = " and ".join(owner.location.called for owner in owners[:2])
                raise owners[1].location.error(f"{address_text(address)} is an address of both {names} in the same VPC")
            if len(claimants) == 1:
                claimants[0].addresses[key] = address
                continue
            self._check_sharers(address, claimants)
            if not owners:
                location = Location(claimants[0].location.file, "shared address", shared_name(address))
                of_addresses.append(_ResolvedInstance(location, vpc, claimants[0].groups, {key: address}, {}))
        taken_ids = {instance.location.id for instance in settled}
        for instance in of_addresses:  # Instances of two VPCs may share an equal address, so the ids are made unique.
            instance.location = replace(instance.location, id=free_name(instance.location.id, taken_ids))
            taken_ids.add(instance.location.id)
            self.note("An address that several instances share becomes an instance of its own", instance.location)
        for instance in settled:
            if not instance.addresses:
                self.note("Left out because it has no address of its own", instance.location)
        return [instance for instance in (*settled, *of_addresses) if instance.addresses]

    def _settled(self, instance: DraftInstance) -> _ResolvedInstance:
        location = instance.location
        own_addresses = _networks_by_key(one_network(location, text) for text in instance.addresses)
        shared = _networks_by_key(one_network(location, text) for text in instance.shared_addresses)
        for address in shared.values():
            if not address.prefixlen:
                raise location.error(
                    f"the address pair {address} lets it use every address, which a policy cannot express: "
                    "list the networks it really forwards for, or remove the pair from the file"
                )
        shared = {key: address for key, address in shared.items() if key not in own_addresses}
        groups = tuple(dict.fromkeys(instance.groups))
        device, description = instance.device, instance.description
        return _ResolvedInstance(location, instance.vpc, groups, own_addresses, shared, device, description)

    def _check_sharers(self, address: Network, sharers: Sequence[_ResolvedInstance]) -> None:
        first = sharers[0]
        for other_sharer in sharers[1:]:
            if set(other_sharer.groups) != set(first.groups):
                memberships = "; ".join(
                    f"{sharer.location.called} in {', '.join(map(self._group_called, sharer.groups)) or 'none'}"
                    for sharer in (first, other_sharer)
                )
                shared = f"shares {address_text(address)}"
                message = f"{shared}, but the instances that share it are in different security groups: {memberships}"
                raise other_sharer.location.error(message)

    def _group_called(self, group: str) -> str:
        location = self._groups[group].location
        return show(location.name or location.id)


def _text_of(value: Any) -> str:
    """Return plain values as a text that is the same for the same values."""
    return json.dumps(value, sort_keys=True, default=repr)


# A rule's fields ----------------------------------------------------------------------------------------------------


def protocol_of(rule: DraftRule) -> int | None:
    """Return the number of the rule's protocol in packets of its ethertype; None for every protocol."""
    value = rule.protocol
    if value is None:
        return None
    if isinstance(value, str):
        word = value.lower()
        if word in PROTOCOL_NUMBERS:
            value = PROTOCOL_NUMBERS[word]
        elif re.fullmatch(r"[0-9]{1,3}", word):
            value = int(word)
        else:
            raise rule.location.error(f"unknown protocol {show(value)}")
    if not 0 <= value <= 255:
        raise rule.location.error(f"unknown protocol {str(value)[:20]}: protocol numbers are 0 to 255")
    if rule.ethertype == 6:
        return ICMPV6 if value == ICMP else value
    if value == ICMPV6:
        raise rule.location.error("icmpv6 in an IPv4 rule")
    return value


def _written_ports(rule: DraftRule, protocol: int | None) -> int | str:
    if protocol not in PORT_PROTOCOLS:
        name = "all protocols" if protocol is None else protocol_name(protocol) or f"protocol {protocol}"
        raise rule.location.error(f"names ports, but {name} has none")
    ranges = sorted(rule.ports or ())
    if not ranges:
        raise rule.location.error("has an empty list of ports")
    for first, last in ranges:
        if not 0 <= first <= last <= LAST_PORT:
            raise rule.location.error(f"{str(first)[:20]}-{str(last)[:20]} is not a range of ports")
    written = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    return int(written[0]) if len(written) == 1 and "-" not in written[0] else ",".join(written)


class _Peers:
    """Names of groups and address groups, with which the peers of rules are written."""

    def __init__(self, groups: dict[str, str], address_groups: dict[str, str]) -> None:
        """Store the names. Both arguments map ids to names."""
        self._groups = groups
        self._address_groups = address_groups
        self._ambiguous = set(groups.values()) & set(address_groups.values())

    def written(self, rule: DraftRule) -> str | dict[str, str]:
        """Return the rule's source or destination as the document has it."""
        if sum(map(bool, (rule.cidr, rule.group, rule.address_group))) > 1:
            raise rule.location.error("names more than one of an address, a security group and an address group")
        if rule.group:
            return self._named("group", self._groups[rule.group])
        if rule.address_group:
            return self._named("address_group", self._address_groups[rule.address_group])
        if not rule.cidr:
            return "0.0.0.0/0" if rule.ethertype == 4 else "::/0"
        network = one_network(rule.location, rule.cidr)
        if network.version != rule.ethertype:
            raise rule.location.error(f"is an IPv{rule.ethertype} rule, but {network} is IPv{network.version}")
        return address_text(network)

    def _named(self, form: str, name: str) -> str | dict[str, str]:
        # The mapping form is for a name that could be read as an address, or that a group and an address group share.
        return {form: name} if name in self._ambiguous or name.replace(".", "").isdigit() else name


# Duplicate objects ---------------------------------------------------------------------------------------------------


def _facts_of_addresses(group: _AddressGroup) -> tuple[str, set[bytes]]:
    return group.location.name, set(map(network_key, group.addresses))


def _networks_by_key(networks: Iterable[Network]) -> dict[bytes, Network]:
    return {network_key(network): network for network in networks}


def _facts(instance: DraftInstance) -> tuple[Any, ...]:
    return instance.vpc, set(instance.addresses), set(instance.groups), set(instance.shared_addresses)
