"""Read a policy document (SPEC 2) from YAML nodes into a ``Policy``. Errors name line and field."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import replace
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.policy.field_kinds import Form, Written
from sgfast.policy.fields import (
    ADDRESS,
    ADDRESS_GROUP,
    INSTANCE,
    MAX_QUOTA,
    NAME,
    POLICY,
    SECURITY_GROUP,
    SETTINGS,
    VPC,
)
from sgfast.policy.loaded_policy import LoadedPolicy
from sgfast.policy.lookup import NamedKind
from sgfast.policy.model import (
    DEFAULT_GROUP,
    DEFAULT_VPC,
    AddressGroup,
    Instance,
    Network,
    Policy,
    Quotas,
    Rule,
    SecurityGroup,
    Settings,
    Vpc,
    mixed_groups,
)
from sgfast.policy.networks import network_key, without_duplicates
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.profiles import PROFILES, Profile
from sgfast.policy.rules import RuleReader
from sgfast.policy.templates import RuleNumbers, default_group, rules_in_group
from sgfast.policy.yaml_nodes import at_line, line_of, show

_NO_QUOTAS = Quotas(MAX_QUOTA, MAX_QUOTA)

#: The sections that define the objects to which instances and peerings refer by name.
_SECTIONS: dict[NamedKind, str] = {"VPC": "vpcs", "security group": "security_groups"}

#: The limit for the warnings about rules that are listed one by one.
_LISTED_WARNINGS = 100
_LISTED_NAMES = 5

#: Line numbers (from 1) of a document's items, by section and name, or by ``rules`` and rule id. The rules of a
#: template have the line of their group.
Lines = dict[tuple[str, str], int]

#: Values that no two objects may share. Each has the name of its object and the line of the value.
_Owners = dict[Any, tuple[str, int]]


def name_requirement(kind: NamedKind) -> str:
    return f"the name of {'an' if kind[0] in 'ai' else 'a'} {kind}"


class DocumentReader:
    """Reads the sections of one document. A section is read before the sections that refer to it.

    ``reader``: None: a reader that continues after an error.
    """

    #: The advice in messages about an unknown name.
    _remedy = ": define it"

    def __init__(self, root: Node, origin: str, reader: NodeReader | None = None) -> None:
        self._origin = origin
        self._root = root
        self._reader = reader or NodeReader(origin, keeps_errors=True)
        self._warnings: list[str] = []
        self._rule_lines: dict[str, int] = {}
        self._section_lines: Lines = {}
        # VPCs, groups and quotas are needed while later parts of the document are read.
        self._vpcs: Mapping[str, Vpc] = {}
        self._groups: Set[str] = frozenset()
        self._quotas = _NO_QUOTAS

    def lines(self) -> Lines:
        """Return the line numbers of all items that ``policy`` has read."""
        return self._section_lines | {("rules", rule): line for rule, line in self._rule_lines.items()}

    def policy(self) -> Policy:
        """Read the policy. Raises PolicyError with all errors of the document."""
        reader, errors = self._reader, self._reader.errors
        if reader.is_null(self._root):
            raise reader.error(self._root, "", "the document is empty")
        if type(self._root) is not MappingNode:
            raise reader.wrong_type(self._root, "the document", "a mapping")
        document = POLICY.read(reader, self._root, "", errors)
        has_unknown_keys = errors.count > 0
        sections = document.nodes
        read = sections.values()
        if any(type(value) is not ScalarNode and value not in read for _, value in self._root.value):
            # An unknown key may be the misspelled name of a missing section.
            errors.incomplete |= POLICY.by_key.keys() - sections
        self._vpcs = self._read_vpcs(document)
        address_groups = self._address_groups(document)
        group_entries, wrong_groups = self._named(document, "security_groups", SECURITY_GROUP)
        instance_entries, _ = self._named(document, "instances", INSTANCE)

        # If there are unknown keys, one of them may be a misspelled "version", so a missing version is no error then.
        if "version" in sections or not has_unknown_keys:
            with errors:
                document.read("version")
        # If the settings have an error, the profile is unknown, and with it the default quotas and the first port. Then
        # nothing is checked against these.
        settings, first_port = Settings(), 0
        with errors:
            profile, settings = self._settings(sections.get("settings"))
            first_port = profile.first_port
            quotas = document.read("quotas")
            self._quotas = replace(profile.quotas, **quotas.read_all()) if quotas else profile.quotas
        peerings = self._peerings(document)

        # Rules and instances may name the default group even if it is only created below.
        joining = {
            name: entry
            for name, entry in instance_entries.items()
            if (node := entry.nodes.get("security_groups")) is None or reader.is_null(node) or node.value == []
        }
        self._groups = {*group_entries, *wrong_groups, *([DEFAULT_GROUP] if joining else [])}
        create_default = bool(joining) and DEFAULT_GROUP not in {*group_entries, *wrong_groups}
        with errors:
            self._check_group_quota(group_entries, joining, create_default)

        owners: _Owners = {}
        instances = []
        for name, entry in instance_entries.items():
            with errors:
                instances.append(self._instance(name, entry, owners))
        groups = self._security_groups(group_entries, address_groups, first_port)
        if create_default:
            with errors:
                groups.append(self._created_default(next(iter(joining.values()))))
        errors.raise_all()
        self._reject_mixed_groups(instances, instance_entries, groups)
        if joining and group_entries:
            self._warn_of_default_group(joining)
        return LoadedPolicy._read(
            vpcs=tuple(self._vpcs.values()),
            peerings=peerings,
            address_groups=tuple(address_groups.values()),
            security_groups=tuple(groups),
            instances=tuple(instances),
            settings=settings,
            quotas=self._quotas,
            origin=self._origin,
            warnings=tuple(self._warnings),
        )

    # Settings

    def _settings(self, node: Node | None) -> tuple[Profile, Settings]:
        """Read the settings. Return the profile, and the settings with the profile's defaults (SPEC 6.7)."""
        if node is None:
            default = PROFILES[Settings().profile]
            return default, default.settings
        written = SETTINGS.read(self._reader, node, "settings").read_all(*SETTINGS.by_key)
        profile = PROFILES[written.get("profile", Settings().profile)]
        if "timeouts" in written:
            written["timeouts"] = replace(profile.settings.timeouts, **written["timeouts"])
        return profile, replace(profile.settings, **written)

    # Objects with names

    def _named(
        self, document: Written, section: str, item_form: Form
    ) -> tuple[dict[str, Written], set[str]]:
        """Return a section's items by their unique ``name`` (SPEC 2.7), and the names of items with an error.

        The document may also refer to items with an error, so that one error does not cause others.
        """
        errors = self._reader.errors
        entries: dict[str, Written] = {}
        wrong: set[str] = set()
        owners: dict[str, str] = {}
        for item, path in self._items(document, section):
            with errors:
                entry = item_form.read(self._reader, item, path)
                name = entry.read("name")
                if name in entries:
                    first = at_line(line_of(entries[name].node), ", first used")
                    raise entry.error("name", f"duplicate name {name!r}{first}")
                words = entry.words()
                if "id" in words and owners.setdefault(words["id"], name) != name:
                    message = f"duplicate id {show(words['id'])}, already that of {owners[words['id']]!r}"
                    raise entry.error("id", message)
                entries[name] = entry
                self._section_lines[section, name] = line_of(item)
                continue
            written = _value_of(item, "name")
            if type(written) is ScalarNode and NAME.fits(written.value):
                wrong.add(written.value)
            else:
                errors.incomplete.add(section)
        return entries, wrong

    def _items(self, document: Written, section: str) -> list[tuple[Node, str]]:
        """Return a section's items, each with the path of its field."""
        with self._reader.errors:
            return document.items(section)
        self._reader.errors.incomplete.add(section)
        return []

    def _known_name(self, node: Node, path: str, kind: NamedKind, known_names: Collection[str]) -> str:
        """Read the name of an object of this kind, which must be in ``known_names``."""
        name = self._reader.string(node, path, name_requirement(kind))
        if name not in known_names:
            message = f"unknown {kind} {show(name)}{self._remedy}"
            raise self._reader.unknown_name(node, path, message, name, known_names, _SECTIONS.get(kind, ""))
        return name

    # VPCs and peerings (SPEC 7)

    def _read_vpcs(self, document: Written) -> dict[str, Vpc]:
        owners: _Owners = {}
        entries, wrong = self._named(document, "vpcs", VPC)
        vpcs = {name: Vpc(name) for name in (*entries, *wrong)}
        for name, entry in entries.items():
            with self._reader.errors:
                region = entry.read("region")
                marks: dict[str, Any] = {
                    VPC.by_key[key].attribute: self._marks(name, entry, key, owners)
                    for key in ("vni", "vlan", "interface", "file")
                }
                vpcs[name] = Vpc(name, region, **marks, **entry.words())
        return vpcs or {DEFAULT_VPC: Vpc(DEFAULT_VPC)}

    def _marks(self, vpc: str, entry: Written, key: str, owners: _Owners) -> tuple[Any, ...]:
        """Read one value or a list of values that identify this VPC's packets, and add them to ``owners``. No two VPCs
        may have the same value.
        """
        mark_values = []
        for value, item, path in entry.values(key):
            if (key, value) in owners:
                owner, line = owners[key, value]
                raise self._reader.error(item, path, f"{value!r} is already used by VPC {owner!r}{at_line(line)}")
            owners[key, value] = vpc, line_of(item)
            mark_values.append(value)
        return tuple(mark_values)

    def _peerings(self, document: Written) -> frozenset[frozenset[str]]:
        reader = self._reader
        pairs: dict[frozenset[str], int] = {}
        for item, path in self._items(document, "peerings"):
            with reader.errors:
                a, b = self._pair(item, path)
                if a == b:
                    raise reader.error(item, path, f"the VPC {a!r} cannot be peered with itself")
                pair = frozenset((a, b))
                if pair in pairs:
                    raise reader.error(item, path, f"{a!r} and {b!r} are already peered{at_line(pairs[pair])}")
                pairs[pair] = line_of(item)
        return frozenset(pairs)

    def _pair(self, node: Node, path: str) -> tuple[str, str]:
        ends = self._reader.items(node, path)
        if len(ends) != 2:
            raise self._reader.error(node, path, f"must be a pair of VPC names, not a list of {len(ends)}")
        a, b = (self._known_name(end, f"{path}[{i}]", "VPC", self._vpcs) for i, end in enumerate(ends))
        return a, b

    # Address groups

    def _address_groups(self, document: Written) -> dict[str, AddressGroup]:
        entries, wrong = self._named(document, "address_groups", ADDRESS_GROUP)
        groups = {name: AddressGroup(name, ()) for name in (*entries, *wrong)}
        for name, entry in entries.items():
            with self._reader.errors:
                groups[name] = AddressGroup(name, self._distinct_addresses(entry), **entry.words())
        return groups

    def _distinct_addresses(self, entry: Written) -> tuple[Network, ...]:
        """Read the addresses of an address group without duplicates, which are no error there."""
        return without_duplicates([self._address(item, path) for item, path in entry.items("addresses")])

    def _address(self, node: Node, path: str) -> Network:
        address: Network = ADDRESS.read(self._reader, node, path)
        return address

    # Security groups (SPEC 2.1-2.5, 8)

    def _check_group_quota(
        self, groups: Mapping[str, Written], joining: Mapping[str, Written], create_default: bool
    ) -> None:
        limit = self._quotas.security_groups
        count = len(groups) + create_default
        if count <= limit:
            return
        message = f"{count} security groups exceed the quota of {limit}: raise quotas.security_groups"
        if len(groups) > limit:
            first_over = list(groups.values())[limit]
            raise self._reader.error(first_over.node, first_over.path, message)
        entry = next(iter(joining.values()))
        message = f"including the created default group, {message}"
        raise self._reader.error(entry.node, entry.at("security_groups"), message)

    def _created_default(self, joining: Written) -> SecurityGroup:
        """Create the default group for the instance ``joining`` (SPEC 8.1)."""
        group = default_group()
        path = joining.at("security_groups")
        self._check_rule_quota(len(group.rules), joining.node, path, "the created default group")
        for rule in group.rules:
            self._reserve_id(rule.id, joining.node, path)
        return group

    def _security_groups(
        self, groups: Mapping[str, Written], address_groups: Mapping[str, AddressGroup], first_port: int
    ) -> list[SecurityGroup]:
        warnings: list[str] = []
        rule_reader = RuleReader(self._reader, self._groups, address_groups, warnings, first_port)
        result = []
        for name, entry in groups.items():
            with self._reader.errors:
                result.append(self._security_group(name, entry, rule_reader))
        self._warnings += warnings[:_LISTED_WARNINGS]
        if len(warnings) > _LISTED_WARNINGS:
            self._warnings.append(f"{len(warnings) - _LISTED_WARNINGS} more warnings about rules are not listed.")
        return result

    def _security_group(self, name: str, entry: Written, rule_reader: RuleReader) -> SecurityGroup:
        reader, node = self._reader, entry.node
        numbers = RuleNumbers(name)
        rules = rules_in_group(entry.read("template"), name, numbers)
        rules += rules_in_group(self._fast_add(entry), name, numbers)
        items = entry.items("rules")
        self._check_rule_quota(len(rules) + len(items), node, entry.at("rules"), f"the group {name!r}")
        for rule in rules:
            self._reserve_id(rule.id, node, entry.at("rules"))
        for item, path in items:
            with reader.errors:
                rule = rule_reader.rule(item, path, numbers.id_of)
                self._reserve_id(rule.id, item, f"{path}.id")
                rules.append(rule)
        return SecurityGroup(
            name, tuple(rules), entry.read("description"), stateful=entry.read("stateful"),
            vpc=self._vpc_of(entry) if "vpc" in entry.nodes else "", **entry.words(),
        )  # fmt: skip

    def _fast_add(self, entry: Written) -> list[Rule]:
        rules: list[Rule] = []
        for rule, item, path in entry.values("fast_add"):
            if rule in rules:
                raise self._reader.error(item, path, f"duplicate: {item.value!r} is already in the list")
            rules.append(rule)
        return rules

    def _reserve_id(self, rule_id: str, node: Node, path: str) -> None:
        """Reserve a rule id, which may be written or generated. Raises PolicyError if it is not unique in the document
        (SPEC 2.5). ``path``: the path of a field of ``node``, for the error.
        """
        if rule_id in self._rule_lines:
            first = at_line(self._rule_lines[rule_id], ", already used by the rule")
            place_node = _value_of(node, path.rpartition(".")[2]) or node
            raise self._reader.error(place_node, path, f"duplicate rule id {rule_id!r}{first}")
        self._rule_lines[rule_id] = line_of(node)

    def _check_rule_quota(self, count: int, node: Node, path: str, group_text: str) -> None:
        limit = self._quotas.rules_per_group
        if count > limit:
            message = f"{group_text} has {count} rules (including template and fast_add), over the quota of {limit}"
            message += ": raise quotas.rules_per_group"
            raise self._reader.error(node, path, message)

    # Instances (SPEC 2.6, 8.1)

    def _instance(self, name: str, entry: Written, owners: _Owners) -> Instance:
        vpc = self._vpc_of(entry)
        addresses = self._instance_addresses(name, vpc, entry, owners)
        groups: dict[str, None] = {}  # an ordered set
        for item, path in entry.items("security_groups"):
            group = self._known_name(item, path, "security group", self._groups)
            if group in groups:
                raise self._reader.error(item, path, f"duplicate: {group!r} is already in the list")
            groups[group] = None
        return Instance(name, vpc, addresses, tuple(groups) or (DEFAULT_GROUP,), **entry.words())

    def _reject_mixed_groups(
        self, instances: Iterable[Instance], entries: Mapping[str, Written], groups: Iterable[SecurityGroup]
    ) -> None:
        by_name = {group.name: group for group in groups}
        for instance in instances:
            mixed = mixed_groups(instance, by_name)
            if mixed:
                with self._reader.errors:
                    raise entries[instance.name].error("security_groups", mixed)
        self._reader.errors.raise_all()

    def _vpc_of(self, entry: Written) -> str:
        if "vpc" in entry.nodes:
            return self._known_name(entry.nodes["vpc"], entry.at("vpc"), "VPC", self._vpcs)
        if len(self._vpcs) > 1:
            raise entry.error("vpc", f"is missing, but there are {len(self._vpcs)} VPCs: name one of them")
        return next(iter(self._vpcs))

    def _instance_addresses(self, name: str, vpc: str, entry: Written, owners: _Owners) -> tuple[Network, ...]:
        """Read an instance's prefixes, and add them to ``owners``. Prefixes may overlap: the longest one counts."""
        reader = self._reader
        items = entry.items("addresses")
        if not items:
            raise reader.error(entry.node, entry.at("addresses"), "must list at least one address")
        addresses = []
        for item, path in items:
            address = self._address(item, path)
            key = vpc, network_key(address)
            if key in owners:
                owner, line = owners[key]
                if owner == name:
                    raise reader.error(item, path, f"duplicate: {address} is already in the list")
                message = f"{address} of {name!r} already belongs to {owner!r}{at_line(line)}, in the same VPC {vpc!r}"
                raise reader.error(item, path, message)
            owners[key] = name, line_of(item)
            addresses.append(address)
        return tuple(addresses)

    def _warn_of_default_group(self, joining: Mapping[str, Written]) -> None:
        names = ", ".join(repr(name) for name in list(joining)[:_LISTED_NAMES])
        if len(joining) > _LISTED_NAMES:
            names += f" and {len(joining) - _LISTED_NAMES} more"
        subject = f"the instance {names} names" if len(joining) == 1 else f"the instances {names} name"
        verb = "joins" if len(joining) == 1 else "join"
        first = next(iter(joining.values()))
        location = self._reader.location(first.node, first.path)
        self._warnings.append(f"{location}: {subject} no security group and so {verb} {DEFAULT_GROUP!r}.")


def _value_of(node: Node, key: str) -> Node | None:
    """Return the value of a mapping's key, even if the mapping has errors. None: no such key, or not a mapping."""
    pairs = node.value if type(node) is MappingNode else ()
    return next((value for written, value in pairs if written.value == key), None)
