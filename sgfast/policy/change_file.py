"""Read the change file of a replay (SPEC 9.5). Every error names file, line and change."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, Literal

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.errors import ArgumentTypeError, PolicyError
from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    AddPeering,
    AddRule,
    Change,
    Changed,
    ModifyRule,
    RemoveAddress,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
    RemovePeering,
    RemoveRule,
    SetAddressGroup,
    apply_change,
    unchanged,
)
from sgfast.policy.document_reader import DocumentReader, Entry, check_version
from sgfast.policy.keys import CHANGE_FIELDS, CHANGES_FIELDS, GROUP_FIELDS, INSTANCE_FIELDS, RULE_FIELDS
from sgfast.policy.lookup import Kind, find
from sgfast.policy.made_values import check_fields
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Network,
    Policy,
    Rule,
    count_addresses,
    count_rules,
)
from sgfast.policy.networks import without_duplicates
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.plain_values import compose_values, path_in
from sgfast.policy.profiles import PROFILES
from sgfast.policy.protocols import protocol_name
from sgfast.policy.rules import RuleReader
from sgfast.policy.timestamps import MAX_SECONDS, MAX_TIME_NS, NANOSECONDS, OUT_OF_RANGE, instant_ns, zone_hint
from sgfast.policy.yaml_nodes import compose, garbage_collection_paused, plain, read_document, show

#: The most work that all changes of a file together may take, in the steps that ``_steps`` estimates. Each change is
#: made to the whole policy, so thousands of changes of a huge policy would take hours. At the limit it is minutes.
MAX_CHANGE_STEPS = 50_000_000

#: The name that messages give to changes that are not in a file.
_ORIGIN = "<changes>"

_TIME_WANTED = "seconds from the first packet, or an instant like 2026-01-31T12:00:00Z"
_KINDS: dict[str, Kind] = {
    "an instance": "instance",
    "a security group": "security group",
    "an address group": "address group",
    "a VPC": "VPC",
}


@dataclass(frozen=True, slots=True)
class TimedChange:
    """A change from a change file, scheduled at a time on the replay's clock."""

    at_ns: int
    change: Change
    #: The operation and its target, for reports.
    text: str
    #: ``file:line``.
    place: str


@dataclass(frozen=True, slots=True)
class _Item:
    at: Decimal | int        # seconds after the first packet, or nanoseconds since the epoch
    at_node: Node
    operation: str
    node: Node
    path: str
    #: The change as a program passed it; None: ``node`` describes it.
    change: Change | None = None


class ChangeFile:
    """A parsed change file. Its changes are only resolved once the policy and the first packet's time are known.

    ``given``: by the number of an item that has only a time, its change.
    """

    def __init__(self, root: Node, origin: str, given: Mapping[int, Change] | None = None) -> None:
        self.origin = origin
        reader = NodeReader(origin)
        if reader.is_null(root):
            raise reader.error(root, "", "the document is empty")
        fields = reader.fields(root, "", CHANGES_FIELDS)
        if "version" in fields:
            check_version(reader, fields["version"])
        self._items: list[_Item] = []
        for index, node in enumerate(reader.items(reader.required(fields, "changes", root, ""), "changes")):
            path = f"changes[{index}]"
            item = reader.fields(node, path, ("at", *_OPERATIONS))
            at = _time(reader, reader.required(item, "at", node, path), f"{path}.at")
            if given is not None and (change := given.get(index)) is not None:
                self._items.append(_Item(at, item["at"], _operation_of(change), node, path, change))
                continue
            operation = _one_operation(reader, [key for key in item if key != "at"], node, path)
            self._items.append(_Item(at, item["at"], operation, item[operation], path))

    def resolve(self, policy: Policy, first_ns: int) -> list[TimedChange]:
        """Resolve the changes in the order they take effect, each against the policy left by the previous ones.

        ``first_ns`` is the time of the first packet. Raises PolicyError, naming file, line and change, for the first
        change that cannot be applied.
        """
        # One reader for the whole file, because its limit on aliases covers all changes together.
        reader = NodeReader(self.origin)
        networks: dict[int, Network] = {}
        timed = []
        for item in self._items:
            at = item.at if isinstance(item.at, int) else first_ns + int((item.at * NANOSECONDS).to_integral_value())
            if abs(at) > MAX_TIME_NS:
                raise _beyond_the_clock(reader, item.at_node, f"{item.path}.at")
            timed.append((at, item))
        result: list[TimedChange] = []
        steps = 0
        for at, item in sorted(timed, key=lambda pair: pair[0]):
            path = f"{item.path}.{item.operation}"
            of_this = _steps(policy)
            if steps + (len(timed) - len(result)) * of_this > MAX_CHANGE_STEPS:
                raise reader.error(item.node, path, _too_much_work(len(timed), policy))
            steps += of_this
            with garbage_collection_paused():
                changes = _ChangeReader(reader, self.origin, policy, networks)
                change = item.change or _OPERATIONS[item.operation](changes, item.node, path)
            try:
                after = apply_change(policy, change).policy
            except PolicyError as error:
                raise reader.error(item.node, path, str(error)) from None
            text = f"{item.operation} {_target(change, after)}"
            result.append(TimedChange(at, change, text, reader.location(item.node, path)))
            policy = after
        return result


def _one_operation(reader: NodeReader, operations: Sequence[str], node: Node, path: str) -> str:
    if len(operations) != 1:
        message = f"has {len(operations)} operations: write exactly one of {', '.join(_OPERATIONS)}"
        raise reader.error(node, path, message)
    return operations[0]


def _operation_of(change: Change) -> str:
    """``add_rule`` for ``AddRule``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(change).__name__).lower()


def _steps(policy: Policy) -> int:
    """An estimate of the work of one change: 250 steps for any change, one for each address, and four for each rule,
    which takes longer. With many groups, there are many rule tables to look through as well.
    """
    return 250 + (4 * count_rules(policy) + count_addresses(policy)) * (1 + len(policy.security_groups) // 256)


def _too_much_work(changes: int, policy: Policy) -> str:
    return (
        f"{changes:,} changes of a policy with {count_rules(policy):,} rules and {count_addresses(policy):,} addresses "
        "are too much work: use fewer changes, or leave rules and instances out that the capture does not need"
    )


def _time(reader: NodeReader, node: Node, path: str) -> Decimal | int:
    value = reader.scalar(node, path, _TIME_WANTED)
    if type(value) is int or type(value) is float:
        # Parsed from the text, because a float would lose nanoseconds.
        try:
            seconds = Decimal(node.value.replace("_", ""))
        except ArithmeticError:
            seconds = Decimal(value)
        if not seconds.is_finite():
            raise reader.error(node, path, f"must be {_TIME_WANTED}, not {show(node.value)}")
        # Check the exponent first: Decimal can hold 1e999999999 but overflows when comparing or multiplying it.
        if (seconds and seconds.adjusted() > 10) or abs(seconds) > MAX_SECONDS:
            raise _beyond_the_clock(reader, node, path)
        return seconds
    try:
        at = instant_ns(value) if type(value) is str else None
    except ValueError as error:
        raise reader.error(node, path, f"{show(node.value)} {error}") from None
    if at is None:
        zone = zone_hint(value) if type(value) is str else ""
        raise reader.error(node, path, f"must be {_TIME_WANTED}, not {show(node.value)}{zone}")
    return at


def _beyond_the_clock(reader: NodeReader, node: Node, path: str) -> PolicyError:
    return reader.error(node, path, f"{show(node.value)} {OUT_OF_RANGE}")


#: Values that a program may pass as a change file.
ChangesSource = (
    ChangeFile | str | bytes | os.PathLike[str] | Mapping[str, Any]
    | Sequence[Mapping[str, Any] | tuple[float | str | datetime, Change | Mapping[str, Any]]]
)  # fmt: skip


def load_changes(path: str | os.PathLike[str]) -> ChangeFile:
    """Read a change file; ``-`` is standard input. A PolicyError is one line naming file, line and field."""
    data, origin = read_document(path)
    return parse_changes(data, origin)


def parse_changes(text: str | bytes, origin: str = _ORIGIN) -> ChangeFile:
    """Parse a change file's text. Messages call it ``origin``."""
    with garbage_collection_paused():
        return ChangeFile(compose(text, origin), origin)


def changes_of(source: ChangesSource) -> ChangeFile:
    """Timed changes from a path, a text, or plain values: what a change file holds, or the list of its ``changes``, in
    which there may be pairs ``(at, change)`` with a value of ``sgfast.policy.changes`` or a mapping (SPEC 14.6).

    Raises PolicyError as ``load_changes`` does; ArgumentTypeError and ArgumentError for something else.
    """
    if isinstance(source, ChangeFile):
        return source
    if (path := path_in(source)) is not None:
        return load_changes(path)
    if isinstance(source, str | bytes):
        return parse_changes(source)
    if isinstance(source, Mapping):
        return ChangeFile(compose_values(source, _ORIGIN), _ORIGIN)
    if not isinstance(source, list | tuple):
        raise ArgumentTypeError(f"changes must be a change file, its path, its text or a list, not {source!r:.80}")
    given: dict[int, Change] = {}
    items: list[object] = []
    for n, item in enumerate(source):
        path = f"changes[{n}]"
        if isinstance(item, Mapping):
            items.append(item)
            continue
        if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[1], Change | Mapping):
            raise ArgumentTypeError(f"{path}: write a pair (at, change), or a mapping with its time, not {item!r:.80}")
        at, change = item
        if isinstance(change, Mapping):
            if "at" in change:
                raise PolicyError(f"{_ORIGIN}: {path}.at: the pair says when: leave it out")
            items.append({"at": at, **change})
        else:
            check_fields(change, f"{path}.{_operation_of(change)}")
            given[n] = change
            items.append({"at": at})
    return ChangeFile(compose_values({"changes": items}, _ORIGIN), _ORIGIN, given)


def apply_given(policy: Policy, given: Iterable[Change | Mapping[str, Any]]) -> tuple[Changed, list[Change]]:
    """Apply changes that a program gives, as one: all of them, or none and an error. A mapping is an entry of a change
    file without its time, and is read against the policy that the changes before it leave (SPEC 14.6). The list has all
    of them as values.

    Raises PolicyError, naming the change; ArgumentTypeError for anything that is neither a mapping nor a change, and as
    ``check_fields`` does.
    """
    reader = NodeReader(_ORIGIN)
    changed = unchanged(policy)
    changes: list[Change] = []
    for n, each in enumerate(given):
        path = f"changes[{n}]"
        if isinstance(each, Change):
            change = each
            check_fields(change, f"{path}.{_operation_of(change)}")
        elif isinstance(each, Mapping):
            change = _read_given(reader, changed.policy, each, path)
        else:
            raise ArgumentTypeError(f"a change must be a mapping or a value of sgfast.policy.changes, not {each!r:.80}")
        try:
            changed = changed.then(change)
        except PolicyError as error:
            raise PolicyError(f"{_ORIGIN}: {path}.{_operation_of(change)}: {error}") from None
        changes.append(change)
    return changed, changes


def _read_given(reader: NodeReader, policy: Policy, given: Mapping[str, Any], path: str) -> Change:
    if "at" in given:
        raise PolicyError(f"{_ORIGIN}: {path}.at: now_ns says when: leave it out")
    node = compose_values(given, _ORIGIN)
    item = reader.fields(node, path, tuple(_OPERATIONS))
    operation = _one_operation(reader, [*item], node, path)
    return _OPERATIONS[operation](_ChangeReader(reader, _ORIGIN, policy, {}), item[operation], f"{path}.{operation}")


def _target(change: Change, after: Policy) -> str:
    match change:
        case AddRule(group):
            return after.group_by_name[group].rules[-1].id
        case RemoveRule(_, rule) | ModifyRule(_, rule):
            return rule
        case AddMember(group, instance) | RemoveMember(group, instance):
            return f"{group} {instance}"
        case AddInstance(instance):
            return instance.name
        case RemoveInstance(instance):
            return instance
        case AddAddress(instance, address) | RemoveAddress(instance, address):
            return f"{instance} {address}"
        case AddGroup(group):
            return group.name
        case RemoveGroup(group):
            return group
        case AddPeering(a, b) | RemovePeering(a, b):
            return f"{a} {b}"
        case SetAddressGroup(name):
            return name


# Operations -----------------------------------------------------------------------------------------------------------


class _ChangeReader(DocumentReader):
    """Read the fields of one change, with the field syntax of a policy document."""

    _remedy = ""    # the policy is what it is
    def __init__(self, reader: NodeReader, origin: str, policy: Policy, networks: dict[int, Network]) -> None:
        super().__init__(ScalarNode("", ""), origin, reader)
        self.present = policy
        self._networks = networks

    def _address(self, node: Node, path: str) -> Network:
        # Aliases of one node share its value, so resolved changes take no more memory than the text.
        found = self._networks.get(id(node))
        if found is None:
            found = self._networks[id(node)] = super()._address(node, path)
        return found

    def fields(self, node: Node, path: str, operation: str) -> dict[str, Node]:
        """Read exactly the fields of this operation, all of them required. ``a|b`` is called ``a`` then."""
        _, names = CHANGE_FIELDS[operation]
        known = [name for spelled in names for name in spelled.split("|")]
        found = self._reader.fields(node, path, known)
        fields = {}
        for spelled in names:
            first, *others = spelled.split("|")
            used = [name for name in (first, *others) if name in found]
            if len(used) > 1:
                message = f"has both {' and '.join(used)}, which mean the same: keep one of them"
                raise self._reader.error(node, path, message)
            fields[first] = self._reader.required(found, used[0] if used else first, node, path)
        return fields

    def _known_name(self, node: Node, path: str, kind: str, known: Collection[str]) -> str:
        """Read a name as in a document; the provider's words are known, too (SPEC 2.12)."""
        if kind in _KINDS:
            word = self._reader.string(node, path, f"the name of {kind}")
            name = _meant(self._reader, self.present, _KINDS[kind], word, node, path)
            if name is not None:
                return name
            known = [*known, *self.present.also_called[_KINDS[kind]]]  # for the suggestion in the error
        return super()._known_name(node, path, kind, known)

    def rule_reader(self, *new_groups: str) -> RuleReader:
        return _ChangedRuleReader(self._reader, self.present, new_groups)

    def add_rule(self, node: Node, path: str) -> Change:
        fields = self.fields(node, path, "add_rule")
        group = self._known_name(fields["group"], f"{path}.group", "a security group", self.present.group_by_name)
        return AddRule(group, self.rule_reader().rule(fields["rule"], f"{path}.rule", _id_as_given))

    def remove_rule(self, node: Node, path: str) -> Change:
        fields = self.fields(node, path, "remove_rule")
        return RemoveRule(*self._group_and_rule(fields, path))

    def modify_rule(self, node: Node, path: str) -> Change:
        fields = self.fields(node, path, "modify_rule")
        group, rule_id = self._group_and_rule(fields, path)
        rule = next(rule for rule in self.present.group_by_name[group].rules if rule.id == rule_id)
        news = self._reader.fields(fields["set"], f"{path}.set", tuple(f for f in RULE_FIELDS if f != "id"))
        merged = {**_rule_nodes(rule, fields["set"]), **news}
        pairs = [(plain(key, fields["set"]), value) for key, value in merged.items() if not self._reader.is_null(value)]
        whole = MappingNode("tag:yaml.org,2002:map", pairs, fields["set"].start_mark, fields["set"].end_mark)
        new = self.rule_reader().rule(whole, f"{path}.set", _id_as_given)
        return ModifyRule(group, rule_id, new if "ports" in news else replace(new, ports=rule.ports))

    def _group_and_rule(self, fields: Mapping[str, Node], path: str) -> tuple[str, str]:
        group = self._known_name(fields["group"], f"{path}.group", "a security group", self.present.group_by_name)
        ids = [rule.id for rule in self.present.group_by_name[group].rules]
        rule = self._reader.string(fields["rule"], f"{path}.rule", "the name of a rule")
        if rule not in ids:
            message = f"security group {group!r} has no rule {show(rule)}"
            raise self._reader.unknown_name(fields["rule"], f"{path}.rule", message, rule, ids)
        return group, rule

    def member(self, node: Node, path: str, operation: str) -> tuple[str, str]:
        fields = self.fields(node, path, operation)
        return (
            self._known_name(fields["group"], f"{path}.group", "a security group", self.present.group_by_name),
            self._instance_name(fields["instance"], f"{path}.instance"),
        )

    def _instance_name(self, node: Node, path: str) -> str:
        return self._known_name(node, path, "an instance", self.present.instance_index)

    def add_instance(self, node: Node, path: str) -> Change:
        fields = self._reader.fields(node, path, INSTANCE_FIELDS)
        name = self._name(self._reader.required(fields, "name", node, path), f"{path}.name")
        entries = {name: Entry(node, path, fields, self._words(fields, path))}
        made = self._instances(entries, self.present.vpc_by_name, set(self.present.group_by_name))[0]
        if not self._reader.items(fields.get("security_groups"), f"{path}.security_groups"):
            made = replace(made, security_groups=())
        return AddInstance(made)

    def remove_instance(self, node: Node, path: str) -> Change:
        fields = self.fields(node, path, "remove_instance")
        return RemoveInstance(self._instance_name(fields["instance"], f"{path}.instance"))

    def instance_and_address(self, node: Node, path: str, operation: str) -> tuple[str, Node, str]:
        fields = self.fields(node, path, operation)
        return self._instance_name(fields["instance"], f"{path}.instance"), fields["address"], f"{path}.address"

    def add_address(self, node: Node, path: str) -> Change:
        name, address, address_path = self.instance_and_address(node, path, "add_address")
        return AddAddress(name, self._address(address, address_path))

    def remove_address(self, node: Node, path: str) -> Change:
        name, address, address_path = self.instance_and_address(node, path, "remove_address")
        return RemoveAddress(name, self._address(address, address_path))

    def add_group(self, node: Node, path: str) -> Change:
        fields = self._reader.fields(node, path, GROUP_FIELDS)
        name = self._name(self._reader.required(fields, "name", node, path), f"{path}.name")
        entry = Entry(node, path, fields, self._words(fields, path))
        return AddGroup(self._security_group(name, entry, self.rule_reader(name), self.present.quotas))

    def remove_group(self, node: Node, path: str) -> Change:
        fields = self.fields(node, path, "remove_group")
        return RemoveGroup(
            self._known_name(fields["group"], f"{path}.group", "a security group", self.present.group_by_name)
        )

    def pair(self, node: Node, path: str) -> tuple[str, str]:
        ends = self._reader.items(node, path)
        if len(ends) != 2:
            raise self._reader.error(node, path, f"must be a pair of VPC names, not a list of {len(ends)}")
        a, b = (
            self._known_name(end, f"{path}[{i}]", "a VPC", self.present.vpc_by_name) for i, end in enumerate(ends)
        )
        return a, b

    def set_address_group(self, node: Node, path: str) -> Change:
        fields = self.fields(node, path, "set_address_group")
        known = self.present.address_group_by_name
        name = self._known_name(fields["name"], f"{path}.name", "an address group", known)
        nodes = self._reader.items(fields["addresses"], f"{path}.addresses")
        addresses = [self._address(each, f"{path}.addresses[{i}]") for i, each in enumerate(nodes)]
        return SetAddressGroup(name, without_duplicates(addresses))


class _ChangedRuleReader(RuleReader):
    """Read a rule of a change, in which the provider's words are known, too (SPEC 2.12)."""

    def __init__(self, reader: NodeReader, present: Policy, new_groups: Collection[str]) -> None:
        # A rule that matches nothing, or less than it seems to say, is worth a warning in a document, but may be
        # deliberate in a change.
        groups = present.group_by_name.keys()
        super().__init__(
            reader, groups | set(new_groups) if new_groups else groups, present.address_group_by_name, [],
            PROFILES[present.settings.profile].first_port,
        )  # fmt: skip
        self._present = present

    def known(self, kind: Literal["security group", "address group"], text: str, node: Node, path: str) -> str | None:
        return super().known(kind, text, node, path) or _meant(self._reader, self._present, kind, text, node, path)


def _meant(reader: NodeReader, policy: Policy, kind: Kind, word: str, node: Node, path: str) -> str | None:
    try:
        return find(policy, kind, word)
    except PolicyError as error:
        raise reader.error(node, path, str(error)) from None


_OPERATIONS: dict[str, Callable[[_ChangeReader, Node, str], Change]] = {
    "add_rule": _ChangeReader.add_rule,
    "remove_rule": _ChangeReader.remove_rule,
    "modify_rule": _ChangeReader.modify_rule,
    "add_member": lambda reader, node, path: AddMember(*reader.member(node, path, "add_member")),
    "remove_member": lambda reader, node, path: RemoveMember(*reader.member(node, path, "remove_member")),
    "add_instance": _ChangeReader.add_instance,
    "remove_instance": _ChangeReader.remove_instance,
    "add_address": _ChangeReader.add_address,
    "remove_address": _ChangeReader.remove_address,
    "add_group": _ChangeReader.add_group,
    "remove_group": _ChangeReader.remove_group,
    "add_peering": lambda reader, node, path: AddPeering(*reader.pair(node, path)),
    "remove_peering": lambda reader, node, path: RemovePeering(*reader.pair(node, path)),
    "set_address_group": _ChangeReader.set_address_group,
}


def _id_as_given(_: Direction, given: str) -> str:
    return given


def _rule_nodes(rule: Rule, where: Node) -> dict[str, Node]:
    """The rule's fields as its document wrote them, with the position of ``where``. The value of ``ports`` is a
    placeholder.
    """
    protocol = ICMP if "icmp" in rule.wording and rule.protocol == ICMPV6 else rule.protocol
    peer = rule.peer
    if peer is None and "any-address" in rule.wording:
        peer = ip_network("0.0.0.0/0" if rule.ethertype == 4 else "::/0")
    words: dict[str, str] = {
        "direction": rule.direction,
        "protocol": "all" if protocol is None else protocol_name(protocol) or str(protocol),
        "action": rule.action,
        "priority": str(rule.priority),
    }
    follows = peer.version if isinstance(peer, Network) else 6 if protocol == ICMPV6 else 4
    # The ethertype may have been changed through the API since.
    if "no-ethertype" not in rule.wording or follows != rule.ethertype:
        words["ethertype"] = f"IPv{rule.ethertype}"
    if rule.ports is not None:
        words["ports"] = "1"
    if rule.icmp_type is not None:
        words["icmp_type"] = str(rule.icmp_type)
    if rule.icmp_code is not None:
        words["icmp_code"] = str(rule.icmp_code)
    nodes: dict[str, Node] = {key: plain(word, where) for key, word in words.items()}
    if rule.description:
        nodes["description"] = plain(rule.description, where, quoted=True)
    if peer is not None:
        kind = {GroupPeer: "group", AddressGroupPeer: "address_group"}.get(type(peer), "cidr")
        name = peer.name if isinstance(peer, GroupPeer | AddressGroupPeer) else str(peer)
        pair = (plain(kind, where), plain(name, where, quoted=True))
        mapping = MappingNode("tag:yaml.org,2002:map", [pair], where.start_mark, where.end_mark)
        nodes["source" if rule.direction == "inbound" else "destination"] = mapping
    return nodes
