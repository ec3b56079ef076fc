"""Convert a draft's document to a ``Policy`` or to readable YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.draft import Made
from sgfast.clouds.importing.object_location import one_line
from sgfast.policy.document_reader import DocumentReader
from sgfast.policy.loaded_policy import having
from sgfast.policy.model import Policy
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.yaml_nodes import MAP, SEQ, STR, garbage_collection_paused, plain, plain_value

_ITEM = re.compile(r"(\w+)\[([0-9]+)\](?:\.rules\[([0-9]+)\])?\.?")
_MARK = yaml.Mark("", 0, 0, 0, None, 0)
_ROOT = ScalarNode(STR, "", _MARK, _MARK)
#: Words that need no quotes inside {} and [], because they have no characters that are special in YAML.
_BARE = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./\-]*(?: [A-Za-z0-9_./(][A-Za-z0-9_./()\-]*)*")


# To a Policy ---------------------------------------------------------------------------------------------------------


def policy_of(made: Made, origin: str) -> Policy:
    """Build the policy with all checks that apply to documents. A PolicyError names the object of the export."""
    with garbage_collection_paused():
        reader = _ObjectReader(origin, made)
        policy = DocumentReader(_node(made.document), origin, reader).policy()
    return having(policy, warnings=(*made.notes, *policy.warnings), gaps=made.gaps)


class _ObjectReader(NodeReader):
    """Reader whose errors name the object of the export, because there are no line numbers."""

    def __init__(self, origin: str, conversion: Made) -> None:
        super().__init__(origin)
        self._conversion = conversion

    def error(self, node: Node, path: str, message: str, kind: type[PolicyError] = PolicyError) -> PolicyError:
        return kind(f"{self._location(path)}: {message}")

    def location(self, node: Node, path: str) -> str:
        return self._location(path)

    def _location(self, path: str) -> str:
        match = _ITEM.match(path)
        if match is None or match[1] not in self._conversion.locations:
            return f"{self._shown_origin}: {path}"
        at = int(match[2])
        of_rule = match[3] is not None
        conversion = self._conversion
        location = conversion.rule_locations[at][int(match[3])] if of_rule else conversion.locations[match[1]][at]
        field = path[match.end() :]
        return f"{location}: {field}" if field else str(location)


def _node(value: Any) -> Node:
    if isinstance(value, dict):
        pairs = [(ScalarNode(STR, key, _MARK, _MARK), _node(item)) for key, item in value.items()]
        return MappingNode(MAP, pairs, _MARK, _MARK)
    if isinstance(value, list):
        return SequenceNode(SEQ, [_node(item) for item in value], _MARK, _MARK)
    if isinstance(value, str):
        return ScalarNode(STR, value, _MARK, _MARK)
    return plain(_scalar(value), _ROOT)


# To YAML -------------------------------------------------------------------------------------------------------------


def yaml_of(made: Made, head: Sequence[str]) -> str:
    """Write the document as YAML, after ``head`` and the notes as comments. Its policy is equal to ``policy_of``'s."""
    lines = [f"# {one_line(line, 1000)}" for line in (*head, *made.notes)]
    for key, value in made.document.items():
        if not isinstance(value, list):
            lines.append(f"{key}: {_flow(value)}")
        elif not value:
            lines.append(f"{key}: []")
        elif key == "security_groups":
            lines.append(f"{key}:")
            for group in value:
                lines += _group_lines(group)
        else:
            lines.append(f"{key}:")
            lines += [f"  - {_flow(item)}" for item in value]
    return "\n".join(lines) + "\n"


def _group_lines(group: dict[str, Any]) -> Iterator[str]:
    dash = "- "
    for key, value in group.items():
        if key != "rules":
            yield f"  {dash}{key}: {_flow(value)}"
            dash = "  "
    if group["rules"]:
        yield "    rules:"
        for rule in group["rules"]:
            yield f"      - {_flow(rule)}"
    else:
        yield "    rules: []"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, str):
        if _BARE.fullmatch(value) and plain_value(value) == value:
            return value
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)
