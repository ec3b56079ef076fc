"""Read export files, JSON or YAML, into plain values, within the limits of documents (SPEC 11)."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.policy.export_files import files_of, refuse_table, refuse_terraform_input
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.yaml_nodes import (
    MAP,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    SEQ,
    STR,
    compose,
    decoded,
    read_document,
    show,
    shown_origin,
)

#: The longest accepted JSON number; Python refuses 4,300 digits.
_NUMBER_CHARACTERS = 100
#: A JSON string. A string without its closing quote matches up to the end of the data, so that each byte is searched
#: only once.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BLANK = re.compile(r"[ \t\r\n]*")
#: CloudFormation's YAML tags, with the functions that they abbreviate: ``!Sub x`` means ``{"Fn::Sub": x}``.
_FUNCTION_TAGS = {"!Ref": "Ref", "!Condition": "Condition"} | {
    f"!{name}": f"Fn::{name}"
    for name in (
        "And", "Base64", "Cidr", "Contains", "EachMemberEquals", "EachMemberIn", "Equals", "FindInMap", "GetAtt",
        "GetAZs", "If", "ImportValue", "Join", "Length", "Not", "Or", "RefAll", "Select", "Split", "Sub",
        "ToJsonString", "Transform", "ValueOf", "ValueOfAll",
    )
}  # fmt: skip


#: A function to call after each answer of a cloud's API, with the name of the listing and the number of objects so far.
Progress = Callable[[str, int], None]


class Source(NamedTuple):
    """A file of an export: its name for messages, and its content (mappings, lists, strings, numbers, …)."""

    file: str
    value: object
    #: Whether the file was found in a directory, rather than named by the user. It may then be no part of the export.
    is_found: bool = False
    #: Whether another page of the same listing follows in the file.
    is_continued: bool = False

    def location(self, kind: str, identity: str, name: str = "") -> Location:
        return Location(self.file, kind, identity, name)

    def identified(self, kind: str, value: object) -> JsonObject:
        """Return the fields of an object that has an id and perhaps a name. Messages use both."""
        fields = JsonObject(value, self.location(kind, ""))
        fields.location = self.location(kind, fields.required("id"), fields.text("name"))
        return fields

    def error(self, message: str) -> PolicyError:
        return PolicyError(f"{shown_origin(self.file)}: {message}")


class Account(NamedTuple):
    """An account that was read through its cloud's API (SPEC 10.17)."""

    #: A name for people: ``AWS (eu-central-1, us-east-1)``.
    called: str
    sources: list[Source]


def read_sources(path: str | os.PathLike[str]) -> list[Source]:
    """Read a file, or the files in a directory. A PolicyError names the malformed file and line."""
    files = files_of(path)
    if files == [os.fsdecode(path)]:
        data, name = read_document(path)
        refuse_terraform_input(data, name)
        refuse_table(data, name)
        return [source_of(data, name)]
    documents = []
    size = 0
    for file in files:
        documents.append(read_document(file))
        size += len(documents[-1][0])
        if size > MAX_BYTES:
            raise _together_too_large(path, f"{MAX_BYTES >> 20} MiB")
    # An upper bound of the number of values is fast. JSON's values are only counted if the bound exceeds the limit.
    values = sum(_most_values(data) for data, _ in documents)
    if values > MAX_NODES and sum(_values(data) for data, _ in documents) > MAX_NODES:
        raise _together_too_large(path, f"{MAX_NODES:,} values")
    sources = []
    for data, origin in documents:
        # Some tools write an empty file if a call returns nothing.
        value = source_of(data, origin).value if data.strip() else None
        sources.append(Source(origin, value, is_found=True))
    return sources


def _together_too_large(path: str | os.PathLike[str], limit: str) -> PolicyError:
    return PolicyError(
        f"{shown_origin(os.fsdecode(path))}: its files together have more than {limit}: import parts of it"
    )


def _most_values(data: bytes) -> int:
    """Return an upper bound of the number of values in a file of JSON or YAML."""
    return 1 + sum(map(data.count, (b",", b"[", b"{", b"\n")))


def _values(data: bytes) -> int:
    return _most_values(data) if _is_yaml(data) else json_values(data)


def source_of(data: bytes, origin: str) -> Source:
    """Parse a file's content. Several JSON values in a row, such as pages or one object per line, become one list.

    A PolicyError names the line that is malformed.
    """
    if not _is_yaml(data):
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


def _is_yaml(data: bytes) -> bool:
    """Return whether the data does not start like JSON."""
    return data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1] not in (b"{", b"[")


def json_value(data: bytes, origin: str) -> object:
    """Parse JSON. Several values in a row become a list. Several lists in a row become one list of all their items.

    Raises ValueError if the data is not JSON, PolicyError if it exceeds a limit.
    """
    shown = shown_origin(origin)
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{shown}: larger than {MAX_BYTES >> 20} MiB")
    # A value of two bytes may take a hundred bytes in memory, so too many values are refused before parsing.
    if data.count(b",") + data.count(b"[") + data.count(b"{") >= MAX_NODES and json_values(data) > MAX_NODES:
        raise PolicyError(f"{shown}: too large: more than {MAX_NODES:,} values")

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        by_key = dict(pairs)
        if len(by_key) < len(pairs):
            double = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
            raise PolicyError(f"{shown}: an object has the key {show(double)} twice")
        return by_key

    def number(text: str) -> int:
        if len(text) > _NUMBER_CHARACTERS:
            raise PolicyError(f"{shown}: contains a number of {len(text)} digits")
        return int(text)

    def constant(text: str) -> NoReturn:
        raise PolicyError(f"{shown}: not JSON: {text}")

    text = decoded(data, origin)
    try:
        decoder = json.JSONDecoder(object_pairs_hook=mapping, parse_int=number, parse_constant=constant)
        values = []
        for value in _values_in(text, decoder):
            values.append(value)
            if len(values) > MAX_NODES:
                raise PolicyError(f"{shown}: too large: more than {MAX_NODES:,} values")
    except RecursionError:
        raise PolicyError(f"{shown}: nested more than {MAX_DEPTH} levels deep") from None
    value = values[0]
    if len(values) > 1:
        lists = all(isinstance(page, list) for page in values)
        value = [item for page in values for item in page] if lists else values
    _check_depth(value, shown)
    return value


def _values_in(text: str, decoder: json.JSONDecoder) -> Iterator[Any]:
    """Yield the JSON values of a text, which must have at least one."""
    end = _BLANK.match(text).end()  # type: ignore[union-attr]  # The pattern also matches an empty text.
    while True:
        value, end = decoder.raw_decode(text, end)
        yield value
        end = _BLANK.match(text, end).end()  # type: ignore[union-attr]
        if end == len(text):
            return


def json_values(data: bytes) -> int:
    """Count the values of JSON data: the whole, one after each comma, and the first in each list and object."""
    bare = _STRING.sub(b"0", data).translate(None, b" \t\r\n")
    containers = bare.count(b"[") + bare.count(b"{") - bare.count(b"[]") - bare.count(b"{}")
    return 1 + bare.count(b",") + containers


def _check_depth(value: object, shown: str) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise PolicyError(f"{shown}: nested more than {MAX_DEPTH} levels deep")


def _yaml(data: bytes, origin: str) -> Source:
    return plain_source(compose(data, origin), origin)


def plain_source(root: Node, origin: str) -> Source:
    """Convert a YAML document into plain values."""
    return Source(origin, _plain(root, "", NodeReader(origin), MAX_DEPTH))


def _plain(node: Node, path: str, reader: NodeReader, depth: int) -> object:
    if (function := _FUNCTION_TAGS.get(node.tag)) is not None:
        tag = STR if type(node) is ScalarNode else MAP if type(node) is MappingNode else SEQ
        untagged = type(node)(tag, node.value, node.start_mark, node.end_mark)
        return {function: _plain(untagged, path, reader, depth)}
    if type(node) is ScalarNode:
        return reader.scalar(node, path, "a value")
    if not depth:  # Aliases may make a node contain itself.
        raise reader.error(node, path, f"nested more than {MAX_DEPTH} levels deep")
    if type(node) is not MappingNode:
        return [_plain(item, f"{path}[{n}]", reader, depth - 1) for n, item in enumerate(reader.items(node, path))]
    keys = {key.value for key, _ in node.value if type(key) is ScalarNode}
    fields = reader.fields(node, path, keys)
    return {key: _plain(value, f"{path}.{key}" if path else key, reader, depth - 1) for key, value in fields.items()}
