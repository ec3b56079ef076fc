"""Read the change file of a replay (SPEC 9.5). Every error message names file, line and change."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, get_args

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.base.errors import ArgumentTypeError, PolicyError
from sgfast.policy.changed_policy import Changed, apply_change, unchanged
from sgfast.policy.changes import AddGroup, AddInstance, AddRule, Change, ModifyRule, RemoveRule, SetAddressGroup
from sgfast.policy.document_reader import DocumentReader, name_requirement
from sgfast.policy.field_kinds import Form, Known, Written, beyond_the_clock
from sgfast.policy.fields import CHANGE, CHANGES, INSTANCE, SECURITY_GROUP, SET
from sgfast.policy.lookup import NamedKind, by_name, find
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Instance,
    Network,
    Policy,
    Rule,
    SecurityGroup,
    count_addresses,
    count_rules,
)
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.plain_values import compose_values, path_in
from sgfast.policy.profiles import PROFILES
from sgfast.policy.protocols import protocol_name
from sgfast.policy.rules import GroupKind, RuleReader
from sgfast.policy.timestamps import MAX_TIME_NS, NANOSECONDS
from sgfast.policy.value_checks import check_fields
from sgfast.policy.yaml_nodes import MAP, compose, garbage_collection_paused, plain, read_document, show

#: The limit for the work of all changes of a file, in the steps that ``_steps`` estimates; some minutes. Each change is
#: made to the whole policy, so thousands of changes of a huge policy would take hours.
MAX_CHANGE_STEPS = 50_000_000

#: The origin in messages about changes that are not in a file.
_ORIGIN = "<changes>"


@dataclass(frozen=True, slots=True)
class TimedChange:
    """A change from a change file, scheduled at a time on the replay's clock."""

    time_ns: int
    change: Change
    #: The operation and its target, for reports.
    text: str
    #: ``file:line``.
    place: str


@dataclass(frozen=True, slots=True)
class _Item:
    #: Seconds after the first packet (Decimal), or nanoseconds since the epoch (int).
    at: Decimal | int
    at_node: Node
    operation: str
    node: Node
    path: str
    #: The change as a program passed it. None: the change is in ``node``.
    change: Change | None = None


class ChangeFile:
    """A parsed change file. Its changes are resolved later, when the policy and the first packet's time are known.

    ``given``: changes that a program passed as values, by the number of their item in the file. These items only have a
    time.
    """

    def __init__(self, root: Node, origin: str, given: Mapping[int, Change] | None = None) -> None:
        self.origin = origin
        reader = NodeReader(origin)
        if reader.is_null(root):
            raise reader.error(root, "", "the document is empty")
        document = CHANGES.read(reader, root, "")
        if "version" in document.nodes:
            document.read("version")
        self._items: list[_Item] = []
        for index, (node, path) in enumerate(document.items("changes")):
            item = CHANGE.read(reader, node, path)
            at, at_node = item.read("at"), item.nodes["at"]
            change = None if given is None else given.get(index)
            if change is None:
                operation = _one_operation(item)
                self._items.append(_Item(at, at_node, operation, item.nodes[operation], path))
            else:
                self._items.append(_Item(at, at_node, _operation_name(type(change)), node, path, change))

    def resolve(self, policy: Policy, first_ns: int) -> list[TimedChange]:
        """Resolve the changes in the order of their times, each against the policy that the earlier changes result in.

        ``first_ns``: the time of the first packet. Raises PolicyError, which names file, line and change, for the first
        change that cannot be applied.
        """
        # The reader's limit on aliases applies to all changes together, so they share one reader.
        reader = NodeReader(self.origin)
        networks: dict[int, Network] = {}
        timed = []
        for item in self._items:
            at = item.at if isinstance(item.at, int) else first_ns + int((item.at * NANOSECONDS).to_integral_value())
            if abs(at) > MAX_TIME_NS:
                raise beyond_the_clock(reader, item.at_node, f"{item.path}.at")
            timed.append((at, item))
        result: list[TimedChange] = []
        steps = 0
        for at, item in sorted(timed, key=lambda pair: pair[0]):
            path = f"{item.path}.{item.operation}"
            of_change = _steps(policy)
            if steps + (len(timed) - len(result)) * of_change > MAX_CHANGE_STEPS:
                raise reader.error(item.node, path, _too_much_work(len(timed), policy))
            steps += of_change
            with garbage_collection_paused():
                changes = _ChangeReader(reader, self.origin, policy, networks)
                change = item.change or changes.change(item.operation, item.node, path)
            try:
                after = apply_change(policy, change).policy
            except PolicyError as error:
                raise reader.error(item.node, path, str(error)) from None
            text = f"{item.operation} {_target(change, after)}"
            result.append(TimedChange(at, change, text, reader.location(item.node, path)))
            policy = after
        return result


def _one_operation(item: Written) -> str:
    """Return the only operation of an entry in a change file."""
    operations = [key for key in item.nodes if key != "at"]
    if len(operations) != 1:
        message = f"has {len(operations)} operations: write exactly one of {', '.join(_OPERATIONS)}"
        raise item.reader.error(item.node, item.path, message)
    return operations[0]


def _operation_name(change_class: type[Change]) -> str:
    """Return the name of a class's operation in a change file: ``add_rule`` for ``AddRule``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", change_class.__name__).lower()


def _steps(policy: Policy) -> int:
    """Estimate the work of one change: 250 steps, one step for each address, and four steps for each rule, which takes
    longer. The steps are multiplied for many groups, because they have many rule tables.
    """
    return 250 + (4 * count_rules(policy) + count_addresses(policy)) * (1 + len(policy.security_groups) // 256)


def _too_much_work(changes: int, policy: Policy) -> str:
    return (
        f"{changes:,} changes of a policy with {count_rules(policy):,} rules and {count_addresses(policy):,} addresses "
        "are too much work: use fewer changes, or leave rules and instances out that the capture does not need"
    )


#: Values that a program may pass as a change file.
ChangesSource = (
    ChangeFile | str | os.PathLike[str] | Mapping[str, Any]
    | Sequence[Mapping[str, Any] | tuple[float | str | datetime, Change | Mapping[str, Any]]]
)  # fmt: skip


def load_changes(path: str | os.PathLike[str]) -> ChangeFile:
    """Read a change file; ``-`` is standard input. A PolicyError is one line that names file, line and field."""
    data, origin = read_document(path)
    return parse_changes(data, origin)


def parse_changes(text: str | bytes, origin: str = _ORIGIN) -> ChangeFile:
    """Parse the text of a change file. ``origin``: its name in messages."""
    with garbage_collection_paused():
        return ChangeFile(compose(text, origin), origin)


def changes_of(source: ChangesSource) -> ChangeFile:
    """Read timed changes from a path or plain values.

    Plain values have the content of a change file, or only its list of ``changes``. The list may contain pairs
    ``(at, change)`` with a value of ``sgfast.policy.changes`` or a mapping (SPEC 14.6).

    Raises PolicyError like ``load_changes``; ArgumentTypeError and ArgumentError for other values.
    """
    if isinstance(source, ChangeFile):
        return source
    if (path := path_in(source)) is not None:
        return load_changes(path)
    if isinstance(source, Mapping):
        return ChangeFile(compose_values(source, _ORIGIN), _ORIGIN)
    if not isinstance(source, list | tuple):
        raise ArgumentTypeError(f"changes must be the path of a change file, a mapping or a list, not {source!r:.80}")
    changes_by_line: dict[int, Change] = {}
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
            check_fields(change, f"{path}.{_operation_name(type(change))}")
            changes_by_line[n] = change
            items.append({"at": at})
    return ChangeFile(compose_values({"changes": items}, _ORIGIN), _ORIGIN, changes_by_line)


def apply_new_changes(policy: Policy, items: Iterable[Change | Mapping[str, Any]]) -> tuple[Changed, list[Change]]:
    """Apply all changes that a program gives, or none if any of them is rejected. Return them as values, too.

    A mapping has the content of an entry in a change file, without its time. It is read against the policy that the
    earlier changes result in (SPEC 14.6).

    Raises PolicyError, which names the change; ArgumentTypeError for a value that is neither a mapping nor a change;
    and the errors of ``check_fields``.
    """
    reader = NodeReader(_ORIGIN)
    changed = unchanged(policy)
    changes: list[Change] = []
    for n, item in enumerate(items):
        path = f"changes[{n}]"
        if isinstance(item, Change):
            change = item
            check_fields(change, f"{path}.{_operation_name(type(change))}")
        elif isinstance(item, Mapping):
            change = _read_change(reader, changed.policy, item, path)
        else:
            raise ArgumentTypeError(f"a change must be a mapping or a value of sgfast.policy.changes, not {item!r:.80}")
        try:
            changed = changed.then(change)
        except PolicyError as error:
            raise PolicyError(f"{_ORIGIN}: {path}.{_operation_name(type(change))}: {error}") from None
        changes.append(change)
    return changed, changes


def _read_change(reader: NodeReader, policy: Policy, change_fields: Mapping[str, Any], path: str) -> Change:
    if "at" in change_fields:
        raise PolicyError(f"{_ORIGIN}: {path}.at: now_ns says when: leave it out")
    node = compose_values(change_fields, _ORIGIN)
    item = Form({operation: CHANGE.by_key[operation] for operation in _OPERATIONS}).read(reader, node, path)
    operation = _one_operation(item)
    return _ChangeReader(reader, _ORIGIN, policy, {}).change(operation, item.nodes[operation], item.at(operation))


def _target(change: Change, after: Policy) -> str:
    match change:
        case AddRule(group):
            return after.group_by_name[group].rules[-1].id
        case RemoveRule(_, rule) | ModifyRule(_, rule):
            return rule
        case AddInstance(named) | AddGroup(named):
            return named.name
        case SetAddressGroup(name):
            return name
    return " ".join(str(getattr(change, field.name)) for field in fields(change))


# Operations -----------------------------------------------------------------------------------------------------------


class _ChangeReader(DocumentReader):
    """Reads the fields of a change, which have the syntax of a policy document."""

    _remedy = ""    # The advice to define an unknown name does not apply, because the policy is given.
    def __init__(self, reader: NodeReader, origin: str, policy: Policy, networks: dict[int, Network]) -> None:
        super().__init__(ScalarNode("", ""), origin, reader)
        self._vpcs, self._groups, self._quotas = policy.vpc_by_name, policy.group_by_name.keys(), policy.quotas
        self.present = policy
        self._networks = networks

    def _address(self, node: Node, path: str) -> Network:
        # Aliases of one node share its value, so that changes do not take more memory than the text.
        network = self._networks.get(id(node))
        if network is None:
            network = self._networks[id(node)] = super()._address(node, path)
        return network

    def change(self, operation: str, node: Node, path: str) -> Change:
        """Read the change in ``node``."""
        values: list[Any] = []
        match operation:
            case "add_instance":
                values.append(self._new_instance(node, path))
            case "add_group":
                values.append(self._new_group(node, path))
            case "add_peering" | "remove_peering":
                values += self._pair(node, path)
            case _:
                written = CHANGE.by_key[operation].kind.read(self._reader, node, path)
                for field in written.nodes:
                    values.append(self._value(operation, written, field, values))
        change: Change = _OPERATIONS[operation](*values)
        return change

    def _value(self, operation: str, written: Written, field: str, before: Sequence[Any]) -> Any:
        """Read the value of a field. ``before``: the values of the fields before it."""
        node, path, kind = written.nodes[field], written.at(field), written.by_key[field].kind
        if isinstance(kind, Known):
            return self._known_name(node, path, kind.object_kind, by_name(self.present, kind.object_kind))
        match field:
            case "address":
                return self._address(node, path)
            case "addresses":
                return self._distinct_addresses(written)
            case "rule" if operation == "add_rule":
                return self._rule_reader().rule(node, path, _id_as_written)
            case "rule":
                return self._rule_id(node, path, *before)
            case _:
                return self._changed_rule(node, path, *before)

    def _known_name(self, node: Node, path: str, kind: NamedKind, known_names: Collection[str]) -> str:
        """Read the name of an object of the policy, or the provider's id or label for the object (SPEC 2.12)."""
        word = self._reader.string(node, path, name_requirement(kind))
        name = _found_name(self._reader, self.present, kind, word, node, path)
        # The provider's ids and labels are passed on for the suggestion in the error message.
        return name or super()._known_name(node, path, kind, [*known_names, *self.present.also_called[kind]])

    def _rule_reader(self, *new_groups: str) -> RuleReader:
        return _ChangedRuleReader(self._reader, self.present, new_groups)

    def _rule_id(self, node: Node, path: str, group: str) -> str:
        ids = [rule.id for rule in self.present.group_by_name[group].rules]
        rule = self._reader.string(node, path, "the name of a rule")
        if rule not in ids:
            message = f"security group {group!r} has no rule {show(rule)}"
            raise self._reader.unknown_name(node, path, message, rule, ids)
        return rule

    def _changed_rule(self, node: Node, path: str, group: str, rule_id: str) -> Rule:
        rule = next(rule for rule in self.present.group_by_name[group].rules if rule.id == rule_id)
        changed = SET.read(self._reader, node, path).nodes
        old = {key.value: value for key, value in compose_values(_written(rule), self._origin, node).value}
        pairs = [(plain(key, node), value) for key, value in (old | changed).items() if not self._reader.is_null(value)]
        whole = MappingNode(MAP, pairs, node.start_mark, node.end_mark)
        new = self._rule_reader().rule(whole, path, _id_as_written)
        return new if "ports" in changed else replace(new, ports=rule.ports)

    def _new_instance(self, node: Node, path: str) -> Instance:
        entry = INSTANCE.read(self._reader, node, path)
        name, _ = entry.read("name"), entry.words()
        instance = self._instance(name, entry, {})
        return instance if entry.items("security_groups") else replace(instance, security_groups=())

    def _new_group(self, node: Node, path: str) -> SecurityGroup:
        entry = SECURITY_GROUP.read(self._reader, node, path)
        name, _ = entry.read("name"), entry.words()
        return self._security_group(name, entry, self._rule_reader(name))


class _ChangedRuleReader(RuleReader):
    """Reads a rule of a change. The rule may also name groups by the provider's ids and labels (SPEC 2.12)."""

    def __init__(self, reader: NodeReader, present: Policy, new_groups: Collection[str]) -> None:
        # A document gets a warning for a rule that matches nothing, or less than its text says. In a change, such a
        # rule may be deliberate, so the warnings go into a list that nobody reads.
        groups = present.group_by_name.keys()
        super().__init__(
            reader, groups | set(new_groups) if new_groups else groups, present.address_group_by_name, [],
            PROFILES[present.settings.profile].first_port,
        )  # fmt: skip
        self._present = present

    def find_group(self, kind: GroupKind, text: str, node: Node, path: str) -> str | None:
        name = super().find_group(kind, text, node, path)
        return name or _found_name(self._reader, self._present, kind, text, node, path)


def _found_name(reader: NodeReader, policy: Policy, kind: NamedKind, word: str, node: Node, path: str) -> str | None:
    try:
        return find(policy, kind, word)
    except PolicyError as error:
        raise reader.error(node, path, str(error)) from None


#: The class of each operation, by the operation's name in a change file.
_OPERATIONS: dict[str, Any] = {_operation_name(kind): kind for kind in get_args(Change)}


def _id_as_written(_: Direction, written_id: str) -> str:
    return written_id


def _written(rule: Rule) -> dict[str, Any]:
    """Return a rule's fields as written in its document. The value of ``ports`` is a placeholder."""
    protocol = ICMP if "icmp" in rule.wording and rule.protocol == ICMPV6 else rule.protocol
    peer = rule.peer
    if peer is None and "any-address" in rule.wording:
        peer = ip_network("0.0.0.0/0" if rule.ethertype == 4 else "::/0")
    follows = peer.version if isinstance(peer, Network) else 6 if protocol == ICMPV6 else 4
    match peer:
        case GroupPeer(name):
            form = {"group": name}
        case AddressGroupPeer(name):
            form = {"address_group": name}
        case _:
            form = {"cidr": str(peer)}
    return {
        "direction": rule.direction,
        "protocol": "all" if protocol is None else protocol_name(protocol) or protocol,
        # A change may have set another ethertype after the document left it out.
        "ethertype": None if "no-ethertype" in rule.wording and follows == rule.ethertype else f"IPv{rule.ethertype}",
        "ports": None if rule.ports is None else 1,
        "icmp_type": rule.icmp_type,
        "icmp_code": rule.icmp_code,
        "source" if rule.direction == "inbound" else "destination": None if peer is None else form,
        "action": rule.action,
        "priority": rule.priority,
        "description": rule.description,
    }
