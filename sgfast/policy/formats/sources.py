"""Reads export files, JSON or YAML, into plain values, within the limits of documents (SPEC 11)."""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple, NoReturn

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.errors import PolicyError
from sgfast.policy.formats.location import Location
from sgfast.policy.yaml_nodes import (
    MAP,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    SEQ,
    STR,
    NodeReader,
    compose,
    read_document,
    show,
    shown_origin,
)

#: The longest accepted JSON number; Python refuses 4,300 digits.
_NUMBER_CHARACTERS = 100
#: The most files in one directory.
_MAX_FILES = 1000
#: Matches a string. One that does not end matches up to the end of the data, so that each byte is searched once.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_EXTENSIONS = (".json", ".yaml", ".yml")
#: CloudFormation's short tags: ``!Sub x`` means ``{"Fn::Sub": x}``.
_FUNCTION_TAGS = {"!Ref": "Ref", "!Condition": "Condition"} | {
    f"!{name}": f"Fn::{name}"
    for name in (
        "And", "Base64", "Cidr", "Contains", "EachMemberEquals", "EachMemberIn", "Equals", "FindInMap", "GetAtt",
        "GetAZs", "If", "ImportValue", "Join", "Length", "Not", "Or", "RefAll", "Select", "Split", "Sub",
        "ToJsonString", "Transform", "ValueOf", "ValueOfAll",
    )
}  # fmt: skip


class Source(NamedTuple):
    """One file of an export: its name for messages, and its content (mappings, lists, strings, numbers, …)."""

    file: str
    value: object

    def location(self, kind: str, identity: str, name: str = "") -> Location:
        return Location(self.file, kind, identity, name)

    def error(self, message: str) -> PolicyError:
        return PolicyError(f"{shown_origin(self.file)}: {message}")


def files_of(path: str | os.PathLike[str]) -> list[str]:
    """The file itself, or the JSON and YAML files of a directory in name order."""
    origin = os.fsdecode(path)
    if origin == "-" or not os.path.isdir(origin):
        return [origin]
    try:
        names = sorted(name for name in os.listdir(origin) if name.lower().endswith(_EXTENSIONS) and name[0] != ".")
    except OSError as error:
        raise PolicyError(f"{shown_origin(origin)}: cannot be read: {error.strerror or error}") from None
    if not names:
        message = f"is a directory without files that end in {', '.join(_EXTENSIONS)}"
        raise PolicyError(f"{shown_origin(origin)}: {message}")
    if len(names) > _MAX_FILES:
        raise PolicyError(f"{shown_origin(origin)}: more than {_MAX_FILES} files")
    return [os.path.join(origin, name) for name in names]


def read_source(path: str) -> Source:
    data, origin = read_document(path)
    return source_of(data, origin)


def source_of(data: bytes, origin: str) -> Source:
    """Parse a file's content. PolicyError says where it is broken."""
    if data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1] in (b"{", b"["):
        try:
            return Source(origin, json_value(data, origin))
        except json.JSONDecodeError as error:
            # YAML's flow style starts like JSON.
            try:
                return _yaml(data, origin)
            except PolicyError:
                message = f"not JSON: {error.msg} at column {error.colno}"
                raise PolicyError(f"{shown_origin(origin)}:{error.lineno}: {message}") from None
    return _yaml(data, origin)


def json_value(data: bytes, origin: str) -> object:
    """Parse JSON. Raises ValueError if it is not JSON, PolicyError if it exceeds a limit."""
    shown = shown_origin(origin)
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{shown}: larger than {MAX_BYTES >> 20} MiB")
    # A value of two bytes takes a hundred in memory: refuse too many before any is made.
    if data.count(b",") + data.count(b"[") + data.count(b"{") >= MAX_NODES and json_values(data) > MAX_NODES:
        raise PolicyError(f"{shown}: too large: more than {MAX_NODES:,} values")

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise PolicyError(f"{shown}: an object has the key {show(double)} twice")
        return made

    def number(text: str) -> int:
        if len(text) > _NUMBER_CHARACTERS:
            raise PolicyError(f"{shown}: contains a number of {len(text)} digits")
        return int(text)

    def constant(text: str) -> NoReturn:
        raise PolicyError(f"{shown}: not JSON: {text}")

    try:
        text = data.decode("utf-8-sig")
        value: object = json.loads(text, object_pairs_hook=mapping, parse_int=number, parse_constant=constant)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{shown}:{line}: not UTF-8 text (byte 0x{data[error.start]:02x})") from None
    except RecursionError:
        raise PolicyError(f"{shown}: nested more than {MAX_DEPTH} levels deep") from None
    _check_depth(value, shown)
    return value


def json_values(data: bytes) -> int:
    """How many values JSON has: one, one after each comma, and the first in each object and list that is not empty."""
    bare = _STRING.sub(b"0", data).translate(None, b" \t\r\n")
    containers = bare.count(b"[") + bare.count(b"{") - bare.count(b"[]") - bare.count(b"{}")
    return 1 + bare.count(b",") + containers


def _check_depth(value: object, shown: str) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise PolicyError(f"{shown}: nested more than {MAX_DEPTH} levels deep")


def _yaml(data: bytes, origin: str) -> Source:
    return plain_source(compose(data, origin), origin)


def plain_source(root: Node, origin: str) -> Source:
    """The plain values of a YAML document."""
    return Source(origin, _plain(root, "", NodeReader(origin), MAX_DEPTH))


def _plain(node: Node, path: str, reader: NodeReader, depth: int) -> object:
    if (function := _FUNCTION_TAGS.get(node.tag)) is not None:
        tag = STR if type(node) is ScalarNode else MAP if type(node) is MappingNode else SEQ
        untagged = type(node)(tag, node.value, node.start_mark, node.end_mark)
        return {function: _plain(untagged, path, reader, depth)}
    if type(node) is ScalarNode:
        return reader.scalar(node, path, "a value")
    if not depth:  # through aliases, a node may contain itself
        raise reader.error(node, path, f"nested more than {MAX_DEPTH} levels deep")
    if type(node) is not MappingNode:
        return [_plain(item, f"{path}[{n}]", reader, depth - 1) for n, item in enumerate(reader.items(node, path))]
    keys = {key.value for key, _ in node.value if type(key) is ScalarNode}
    fields = reader.fields(node, path, keys)
    return {key: _plain(value, f"{path}.{key}" if path else key, reader, depth - 1) for key, value in fields.items()}
