"""Read a policy document (SPEC 2) from YAML nodes into a ``Policy``; errors name the line and field."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeVar

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.policy.keys import (
    ADDRESS_GROUP_FIELDS,
    DOCUMENT_FIELDS,
    GROUP_FIELDS,
    INSTANCE_FIELDS,
    QUOTA_FIELDS,
    SETTING_FIELDS,
    TIMEOUT_FIELDS,
    VPC_FIELDS,
)
from sgfast.policy.loaded import LoadedPolicy
from sgfast.policy.model import (
    DEFAULT_GROUP,
    DEFAULT_VPC,
    WORDS,
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
from sgfast.policy.network_keys import network_key, without_duplicates
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.profiles import OTC, PROFILES, Profile
from sgfast.policy.rules import RuleReader, description, network
from sgfast.policy.templates import FAST_ADD, TEMPLATES, RuleNumbers, default_group, rules_in_group
from sgfast.policy.yaml_nodes import at_line, line_of, show

_ON_CHANGE: dict[str, Literal["cut-inbound", "cut-unmatched", "forget-unmatched", "keep"]] = {
    "cut-inbound": "cut-inbound",
    "cut-unmatched": "cut-unmatched",
    "forget-unmatched": "forget-unmatched",
    "keep": "keep",
}
_INFRASTRUCTURE: dict[str, Literal["exempt", "by-role", "filtered"]] = {
    "exempt": "exempt",
    "by-role": "by-role",
    "filtered": "filtered",
}
_GROUP_MEMBERS: dict[str, Literal["by-owner", "by-address"]] = {"by-owner": "by-owner", "by-address": "by-address"}

MAX_TIMEOUT_SECONDS = 1e9
MAX_CONNECTIONS = 2**31 - 1
#: Higher than any document that fits into memory needs.
MAX_QUOTA = 1_000_000
_NO_QUOTAS = Quotas(MAX_QUOTA, MAX_QUOTA)

#: The sections that define what a document refers to by its name.
_SECTIONS = {"a VPC": "vpcs", "a security group": "security_groups"}

NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
NAME_WANTED = "a name of 1 to 64 letters, digits and _ - ."
#: A VNI has 24 bits. VLAN ids 0 and 4095 are reserved.
MAX_VNI, MAX_VLAN = (1 << 24) - 1, 4094
#: The most interfaces that a section of a pcapng file may have.
MAX_INTERFACE = (1 << 20) - 1
INTERFACE_WANTED = f"an interface's name, up to 255 characters, or its number from 0 to {MAX_INTERFACE}"
PATTERN_WANTED = "a capture's name or a pattern of names, up to 255 characters"
WORD_WANTED = "a printable text of 1 to 255 characters"
REGION_WANTED = "a word of 1 to 64 characters (a string)"
#: The most warnings of one kind that are listed one by one.
_LISTED_WARNINGS = 100
_LISTED_NAMES = 5

#: Line numbers (from 1) of a document's items, by section (or ``rules``) and name (or rule id). The rules of a template
#: have the line of their group.
Lines = dict[tuple[str, str], int]


def check_version(reader: NodeReader, node: Node) -> None:
    if reader.scalar(node, "version", "1") != 1 or node.value != "1":
        raise reader.wrong_type(node, "version", "1")


class Entry(NamedTuple):
    """One item of a section whose items have names."""

    node: Node
    path: str
    fields: dict[str, Node]
    #: The provider's words for it (SPEC 2.12), as far as they are written.
    words: dict[str, Any]


M = TypeVar("M", bound=int | str)


class DocumentReader:
    """Read the sections of one document. Sections that others refer to come first.

    ``reader``: by default one that reads on after an error.
    """

    #: Advice about an unknown name.
    _remedy = ": define it"

    def __init__(self, root: Node, origin: str, reader: NodeReader | None = None) -> None:
        self._origin = origin
        self._root = root
        self._reader = reader or NodeReader(origin, keeps_errors=True)
        self._warnings: list[str] = []
        self._rule_lines: dict[str, int] = {}
        self._section_lines: Lines = {}

    def lines(self) -> Lines:
        """The line numbers of everything that ``policy`` has read."""
        return self._section_lines | {("rules", rule): line for rule, line in self._rule_lines.items()}

    def policy(self) -> Policy:
        """Return the policy. Raises PolicyError with all errors of the document."""
        reader, errors = self._reader, self._reader.errors
        if reader.is_null(self._root):
            raise reader.error(self._root, "", "the document is empty")
        if type(self._root) is not MappingNode:
            raise reader.wrong_type(self._root, "the document", "a mapping")
        sections = reader.fields(self._root, "", DOCUMENT_FIELDS, errors)
        has_unknown_keys = errors.count > 0
        read = sections.values()
        if any(type(value) is not ScalarNode and value not in read for _, value in self._root.value):
            # It may be a misspelled name of a section that is missing.
            errors.incomplete |= DOCUMENT_FIELDS.keys() - sections
        vpcs = self._vpcs(sections.get("vpcs"))
        address_groups = self._address_groups(sections.get("address_groups"))
        group_entries, wrong_groups = self._named(sections.get("security_groups"), "security_groups", GROUP_FIELDS)
        instance_entries, _ = self._named(sections.get("instances"), "instances", INSTANCE_FIELDS)

        # One of the unknown keys may be a misspelled version.
        if "version" in sections or not has_unknown_keys:
            with errors:
                check_version(reader, reader.required(sections, "version", self._root, "", ": write version: 1"))
        # If the settings are wrong, it is not known which quotas and which ports they mean.
        settings, quotas, first_port = OTC.settings, _NO_QUOTAS, 0
        with errors:
            profile, settings = self._settings(sections.get("settings"))
            first_port = profile.first_port
            quotas = self._quotas(sections.get("quotas"), profile)
        peerings = self._peerings(sections.get("peerings"), vpcs)

        # Rules and instances may name a default group that is about to be created, so its name must be known here.
        joining = {
            name: entry
            for name, entry in instance_entries.items()
            if (node := entry.fields.get("security_groups")) is None or reader.is_null(node) or node.value == []
        }
        group_names = {*group_entries, *wrong_groups}
        create_default = bool(joining) and DEFAULT_GROUP not in group_names
        if joining:
            group_names.add(DEFAULT_GROUP)
        with errors:
            self._check_group_quota(group_entries, joining, create_default, quotas)

        instances = self._instances(instance_entries, vpcs, group_names)
        groups = self._security_groups(group_entries, group_names, address_groups, quotas, first_port)
        if create_default:
            with errors:
                groups.append(self._created_default(next(iter(joining.values())), quotas))
        errors.raise_all()
        self._reject_mixed_groups(instances, instance_entries, groups)
        if joining and group_entries:
            self._warn_of_default_group(joining)
        return LoadedPolicy.read(
            vpcs=tuple(vpcs.values()),
            peerings=peerings,
            address_groups=tuple(address_groups.values()),
            security_groups=tuple(groups),
            instances=instances,
            settings=settings,
            quotas=quotas,
            origin=self._origin,
            warnings=tuple(self._warnings),
        )

    # Quotas, settings

    def _quotas(self, node: Node | None, profile: Profile) -> Quotas:
        if node is None:
            return profile.quotas
        fields = self._reader.fields(node, "quotas", QUOTA_FIELDS)
        limits = {key: self._reader.integer(fields[key], f"quotas.{key}", 1, MAX_QUOTA) for key in fields}
        return replace(profile.quotas, **limits)

    def _settings(self, node: Node | None) -> tuple[Profile, Settings]:
        """The profile and the settings: what the document writes, with the profile's defaults for the rest (SPEC 6.7).
        """
        if node is None:
            return OTC, OTC.settings
        reader = self._reader
        fields = reader.fields(node, "settings", SETTING_FIELDS)
        profile = reader.choice(fields["profile"], "settings.profile", PROFILES) if "profile" in fields else OTC
        settings = profile.settings
        if "timeouts" in fields:
            path = "settings.timeouts"
            nodes = reader.fields(fields["timeouts"], path, TIMEOUT_FIELDS)
            seconds = {key: reader.positive_number(nodes[key], f"{path}.{key}", MAX_TIMEOUT_SECONDS) for key in nodes}
            settings = replace(settings, timeouts=replace(settings.timeouts, **seconds))
        if "on_change" in fields:
            on_change = reader.choice(fields["on_change"], "settings.on_change", _ON_CHANGE)
            settings = replace(settings, on_change=on_change)
        if "max_connections" in fields:
            node = fields["max_connections"]
            most = reader.integer(node, "settings.max_connections", 1, MAX_CONNECTIONS)
            settings = replace(settings, max_connections=most)
        if "infrastructure" in fields:
            infrastructure = reader.choice(fields["infrastructure"], "settings.infrastructure", _INFRASTRUCTURE)
            settings = replace(settings, infrastructure=infrastructure)
        if "group_members" in fields:
            group_members = reader.choice(fields["group_members"], "settings.group_members", _GROUP_MEMBERS)
            settings = replace(settings, group_members=group_members)
        return profile, settings

    # Named things

    def _name(self, node: Node, path: str) -> str:
        return self._reader.matching(node, path, NAME.fullmatch, NAME_WANTED)

    def _named(
        self, node: Node | None, section: str, known: Collection[str]
    ) -> tuple[dict[str, Entry], set[str]]:
        """A section's items by their unique ``name`` (SPEC 2.7), and the names of those that have an error: these can
        be referred to, too.
        """
        reader, errors = self._reader, self._reader.errors
        found: dict[str, Entry] = {}
        wrong: set[str] = set()
        owners: dict[str, str] = {}
        for item, path in self._items(node, section):
            with errors:
                fields = reader.fields(item, path, known)
                name_node = reader.required(fields, "name", item, path)
                name = self._name(name_node, f"{path}.name")
                if name in found:
                    first = at_line(line_of(found[name].node), ", first used")
                    raise reader.error(name_node, f"{path}.name", f"duplicate name {name!r}{first}")
                words = self._words(fields, path)
                if "id" in words and owners.setdefault(words["id"], name) != name:
                    message = f"duplicate id {show(words['id'])}, already that of {owners[words['id']]!r}"
                    raise reader.error(fields["id"], f"{path}.id", message)
                found[name] = Entry(item, path, fields, words)
                self._section_lines[section, name] = line_of(item)
                continue
            written = _value_of(item, "name")
            if type(written) is ScalarNode and NAME.fullmatch(written.value):
                wrong.add(written.value)
            else:
                errors.incomplete.add(section)
        return found, wrong

    def _items(self, node: Node | None, section: str) -> list[tuple[Node, str]]:
        """A section's items, each with its field path."""
        with self._reader.errors:
            return [(item, f"{section}[{index}]") for index, item in enumerate(self._reader.items(node, section))]
        self._reader.errors.incomplete.add(section)
        return []

    def _words(self, fields: Mapping[str, Node], path: str) -> dict[str, Any]:
        return {
            key: self._reader.matching(fields[key], f"{path}.{key}", is_line, WORD_WANTED)
            for key in WORDS
            if key in fields
        }

    def _known_name(self, node: Node, path: str, kind: str, known: Collection[str]) -> str:
        """Read a name that must be one of ``known``. ``kind`` is what it names, with its article ("a VPC")."""
        name = self._reader.string(node, path, f"the name of {kind}")
        if name not in known:
            message = f"unknown {kind.partition(' ')[2]} {show(name)}{self._remedy}"
            raise self._reader.unknown_name(node, path, message, name, known, _SECTIONS.get(kind, ""))
        return name

    # VPCs and peerings (SPEC 7)

    def _vpcs(self, node: Node | None) -> dict[str, Vpc]:
        reader = self._reader
        owners: dict[tuple[str, int | str], tuple[str, int]] = {}
        entries, wrong = self._named(node, "vpcs", VPC_FIELDS)
        vpcs = {name: Vpc(name) for name in (*entries, *wrong)}
        for name, entry in entries.items():
            with reader.errors:
                vpcs[name] = self._vpc(name, entry, owners)
        return vpcs or {DEFAULT_VPC: Vpc(DEFAULT_VPC)}

    def _vpc(self, name: str, entry: Entry, owners: dict[tuple[str, int | str], tuple[str, int]]) -> Vpc:
        reader = self._reader
        region = ""
        if "region" in entry.fields:
            region = reader.matching(entry.fields["region"], f"{entry.path}.region", is_word, REGION_WANTED)
        return Vpc(
            name, region,
            self._vpc_ids(name, entry, "vni", lambda item, path: reader.integer(item, path, 0, MAX_VNI), owners),
            self._vpc_ids(name, entry, "vlan", lambda item, path: reader.integer(item, path, 1, MAX_VLAN), owners),
            self._vpc_ids(name, entry, "interface", self._interface, owners),
            self._vpc_ids(
                name, entry, "file", lambda item, path: reader.matching(item, path, is_line, PATTERN_WANTED), owners
            ),
            **entry.words,
        )  # fmt: skip

    def _vpc_ids(
        self, vpc: str, entry: Entry, key: str, read: Callable[[Node, str], M],
        owners: dict[tuple[str, int | str], tuple[str, int]],
    ) -> tuple[M, ...]:  # fmt: skip
        """Read one value or a list of values that identify this VPC's packets. No other VPC may have one of them. They
        are added to ``owners``.
        """
        found = []
        for item, path in self._reader.one_or_several(entry.fields.get(key), f"{entry.path}.{key}"):
            value = read(item, path)
            if (key, value) in owners:
                owner, line = owners[key, value]
                raise self._reader.error(item, path, f"{value!r} is already used by VPC {owner!r}{at_line(line)}")
            owners[key, value] = vpc, line_of(item)
            found.append(value)
        return tuple(found)

    def _interface(self, node: Node, path: str) -> str | int:
        reader = self._reader
        value = reader.scalar(node, path, INTERFACE_WANTED)
        if type(value) is int:
            return reader.integer(node, path, 0, MAX_INTERFACE)
        return reader.matching(node, path, is_line, INTERFACE_WANTED)

    def _peerings(self, node: Node | None, vpcs: Mapping[str, Vpc]) -> frozenset[frozenset[str]]:
        reader = self._reader
        pairs: dict[frozenset[str], int] = {}
        for item, path in self._items(node, "peerings"):
            with reader.errors:
                ends = reader.items(item, path)
                if len(ends) != 2:
                    raise reader.error(item, path, f"must be a pair of VPC names, not a list of {len(ends)}")
                a, b = (self._known_name(end, f"{path}[{i}]", "a VPC", vpcs) for i, end in enumerate(ends))
                if a == b:
                    raise reader.error(item, path, f"the VPC {a!r} cannot be peered with itself")
                pair = frozenset((a, b))
                if pair in pairs:
                    raise reader.error(item, path, f"{a!r} and {b!r} are already peered{at_line(pairs[pair])}")
                pairs[pair] = line_of(item)
        return frozenset(pairs)

    # Address groups

    def _address_groups(self, node: Node | None) -> dict[str, AddressGroup]:
        reader = self._reader
        entries, wrong = self._named(node, "address_groups", ADDRESS_GROUP_FIELDS)
        groups = {name: AddressGroup(name, ()) for name in (*entries, *wrong)}
        for name, (item, path, fields, words) in entries.items():
            with reader.errors:
                listed = reader.required(fields, "addresses", item, path, ": write addresses: [] if there are none")
                nodes = reader.items(listed, f"{path}.addresses")
                addresses = [self._address(each, f"{path}.addresses[{i}]") for i, each in enumerate(nodes)]
                groups[name] = AddressGroup(name, without_duplicates(addresses), **words)  # duplicates are harmless
        return groups

    def _address(self, node: Node, path: str) -> Network:
        return network(self._reader, node, path, self._reader.string(node, path, "an address or CIDR (a string)"))

    # Security groups (SPEC 2.1-2.5, 8)

    def _check_group_quota(
        self,
        groups: Mapping[str, Entry],
        joining: Mapping[str, Entry],
        create_default: bool,
        quotas: Quotas,
    ) -> None:
        limit = quotas.security_groups
        count = len(groups) + create_default
        if count <= limit:
            return
        message = f"{count} security groups exceed the quota of {limit}: raise quotas.security_groups"
        if len(groups) > limit:
            first_over = list(groups.values())[limit]
            raise self._reader.error(first_over.node, first_over.path, message)
        entry = next(iter(joining.values()))
        message = f"including the created default group, {message}"
        raise self._reader.error(entry.node, f"{entry.path}.security_groups", message)

    def _created_default(self, joining: Entry, quotas: Quotas) -> SecurityGroup:
        """The default group, created for the instance ``joining`` (SPEC 8.1)."""
        group = default_group()
        path = f"{joining.path}.security_groups"
        self._check_rule_quota(len(group.rules), joining.node, path, quotas, "the created default group")
        for rule in group.rules:
            self._reserve_id(rule.id, joining.node, path)
        return group

    def _security_groups(
        self,
        groups: Mapping[str, Entry],
        group_names: set[str],
        address_groups: Mapping[str, AddressGroup],
        quotas: Quotas,
        first_port: int,
    ) -> list[SecurityGroup]:
        warnings: list[str] = []
        rule_reader = RuleReader(self._reader, group_names, address_groups, warnings, first_port)
        result = []
        for name, entry in groups.items():
            with self._reader.errors:
                result.append(self._security_group(name, entry, rule_reader, quotas))
        self._warnings += warnings[:_LISTED_WARNINGS]
        if len(warnings) > _LISTED_WARNINGS:
            self._warnings.append(f"{len(warnings) - _LISTED_WARNINGS} more warnings about rules are not listed.")
        return result

    def _security_group(self, name: str, entry: Entry, rule_reader: RuleReader, quotas: Quotas) -> SecurityGroup:
        reader = self._reader
        node, path, fields, words = entry
        numbers = RuleNumbers(name)
        rules: list[Rule] = []
        if "template" in fields:
            rules += rules_in_group(reader.choice(fields["template"], f"{path}.template", TEMPLATES), name, numbers)
        rules += rules_in_group(self._fast_add(fields.get("fast_add"), f"{path}.fast_add"), name, numbers)
        nodes = reader.items(fields.get("rules"), f"{path}.rules")
        self._check_rule_quota(len(rules) + len(nodes), node, f"{path}.rules", quotas, f"the group {name!r}")
        for rule in rules:
            self._reserve_id(rule.id, node, f"{path}.rules")
        for index, rule_node in enumerate(nodes):
            with reader.errors:
                rule_path = f"{path}.rules[{index}]"
                rule = rule_reader.rule(rule_node, rule_path, numbers.id_of)
                self._reserve_id(rule.id, rule_node, f"{rule_path}.id")
                rules.append(rule)
        stateful = "stateful" not in fields or reader.boolean(fields["stateful"], f"{path}.stateful")
        return SecurityGroup(name, tuple(rules), description(reader, fields, path), stateful=stateful, **words)

    def _fast_add(self, node: Node | None, path: str) -> list[Rule]:
        rules: list[Rule] = []
        for index, item in enumerate(self._reader.items(node, path)):
            rule = self._reader.choice(item, f"{path}[{index}]", FAST_ADD)
            if rule in rules:
                raise self._reader.error(item, f"{path}[{index}]", f"duplicate: {item.value!r} is already in the list")
            rules.append(rule)
        return rules

    def _reserve_id(self, rule_id: str, node: Node, path: str) -> None:
        """Reserve a rule id. Ids are unique in the document, whether written or generated (SPEC 2.5). ``path`` is that
        of a field of ``node``.
        """
        if rule_id in self._rule_lines:
            first = at_line(self._rule_lines[rule_id], ", already used by the rule")
            where = _value_of(node, path.rpartition(".")[2]) or node
            raise self._reader.error(where, path, f"duplicate rule id {rule_id!r}{first}")
        self._rule_lines[rule_id] = line_of(node)

    def _check_rule_quota(self, count: int, node: Node, path: str, quotas: Quotas, whose: str) -> None:
        if count > quotas.rules_per_group:
            message = (
                f"{whose} has {count} rules (including template and fast_add), over the quota of "
                f"{quotas.rules_per_group}: raise quotas.rules_per_group"
            )
            raise self._reader.error(node, path, message)

    # Instances (SPEC 2.6, 8.1)

    def _instances(
        self,
        instances: Mapping[str, Entry],
        vpcs: Mapping[str, Vpc],
        group_names: set[str],
    ) -> tuple[Instance, ...]:
        owners: dict[tuple[str, bytes], tuple[str, int]] = {}
        result = []
        for name, entry in instances.items():
            with self._reader.errors:
                result.append(self._instance(name, entry, vpcs, group_names, owners))
        return tuple(result)

    def _instance(
        self,
        name: str,
        entry: Entry,
        vpcs: Mapping[str, Vpc],
        group_names: set[str],
        owners: dict[tuple[str, bytes], tuple[str, int]],
    ) -> Instance:
        reader = self._reader
        node, path, fields, words = entry
        vpc = self._vpc_of(fields, node, path, vpcs)
        addresses = self._instance_addresses(name, vpc, entry, owners)
        groups: dict[str, None] = {}  # used as an ordered set
        groups_path = f"{path}.security_groups"
        for index, item in enumerate(reader.items(fields.get("security_groups"), groups_path)):
            group = self._known_name(item, f"{groups_path}[{index}]", "a security group", group_names)
            if group in groups:
                raise reader.error(item, f"{groups_path}[{index}]", f"duplicate: {group!r} is already in the list")
            groups[group] = None
        return Instance(name, vpc, addresses, tuple(groups) or (DEFAULT_GROUP,), **words)

    def _reject_mixed_groups(
        self, instances: Iterable[Instance], entries: Mapping[str, Entry], groups: Iterable[SecurityGroup]
    ) -> None:
        by_name = {group.name: group for group in groups}
        for instance in instances:
            mixed = mixed_groups(instance, by_name)
            if mixed:
                node, path, fields, _ = entries[instance.name]
                with self._reader.errors:
                    raise self._reader.error(fields.get("security_groups", node), f"{path}.security_groups", mixed)
        self._reader.errors.raise_all()

    def _vpc_of(self, fields: Mapping[str, Node], node: Node, path: str, vpcs: Mapping[str, Vpc]) -> str:
        if "vpc" in fields:
            return self._known_name(fields["vpc"], f"{path}.vpc", "a VPC", vpcs)
        if len(vpcs) > 1:
            message = f"is missing, but there are {len(vpcs)} VPCs: name one of them"
            raise self._reader.error(node, f"{path}.vpc", message)
        return next(iter(vpcs))

    def _instance_addresses(
        self, name: str, vpc: str, entry: Entry, owners: dict[tuple[str, bytes], tuple[str, int]]
    ) -> tuple[Network, ...]:
        """The instance's prefixes; adds them to ``owners``. Overlap is fine: the longest prefix owns an address."""
        reader = self._reader
        node, path, fields, _ = entry
        addresses_path = f"{path}.addresses"
        nodes = reader.items(reader.required(fields, "addresses", node, path), addresses_path)
        if not nodes:
            raise reader.error(node, addresses_path, "must list at least one address")
        addresses = []
        for index, item in enumerate(nodes):
            address_path = f"{addresses_path}[{index}]"
            address = self._address(item, address_path)
            key = vpc, network_key(address)
            if key in owners:
                owner, line = owners[key]
                if owner == name:
                    raise reader.error(item, address_path, f"duplicate: {address} is already in the list")
                message = f"{address} of {name!r} already belongs to {owner!r}{at_line(line)}, in the same VPC {vpc!r}"
                raise reader.error(item, address_path, message)
            owners[key] = name, line_of(item)
            addresses.append(address)
        return tuple(addresses)

    def _warn_of_default_group(self, joining: Mapping[str, Entry]) -> None:
        names = ", ".join(repr(name) for name in list(joining)[:_LISTED_NAMES])
        if len(joining) > _LISTED_NAMES:
            names += f" and {len(joining) - _LISTED_NAMES} more"
        subject = f"the instance {names} names" if len(joining) == 1 else f"the instances {names} name"
        verb = "joins" if len(joining) == 1 else "join"
        first = next(iter(joining.values()))
        location = self._reader.location(first.node, first.path)
        self._warnings.append(f"{location}: {subject} no security group and so {verb} {DEFAULT_GROUP!r}.")


def _value_of(node: Node, key: str) -> Node | None:
    """The value of a mapping's key, whatever is wrong with the rest; None: there is none, or it is no mapping."""
    pairs = node.value if type(node) is MappingNode else ()
    return next((value for written, value in pairs if written.value == key), None)


def is_line(text: str) -> bool:
    return 1 <= len(text) <= 255 and text.isprintable()


def is_word(text: str) -> bool:
    return 1 <= len(text) <= 64 and text.isprintable() and " " not in text
