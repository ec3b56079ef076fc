"""Convert documents that a program gives as plain values into nodes (SPEC 14.2)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import date
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sgfast.base.errors import ArgumentError
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.yaml_nodes import MAP, MAX_DEPTH, PLAIN, SEQ, plain, show

#: The position of a node that was not read from a text.
_NOWHERE = yaml.Mark("", 0, -1, 0, None, 0)


def path_in(source: object, instead: str = "give what yaml.safe_load makes of it") -> str | os.PathLike[str] | None:
    """Return the path if the source of a document is a path object or a ``str`` (SPEC 14.2). Otherwise return None.

    Raises ArgumentError for a ``str`` or ``bytes`` with the text of a document. ``instead``: the remedy in its message.
    """
    if isinstance(source, bytes) or (isinstance(source, str) and _is_text(source)):
        raise ArgumentError(f"{source!r:.80} is a text, and not a path: {instead}")
    return source if isinstance(source, str | os.PathLike) else None


def _is_text(source: str) -> bool:
    """Return whether a ``str`` has several lines, begins like JSON, or looks like a line of YAML and names no file."""
    is_line = ": " in source and not os.path.exists(source)
    return "\n" in source or source.lstrip().startswith(("{", "[{")) or is_line


def compose_values(value: object, origin: str, place_node: Node | None = None) -> Node:
    """Convert a document of plain values into nodes.

    Plain values are mappings, lists, texts, numbers, booleans and None, and the addresses, networks and times of
    Python's standard library. All nodes have the position of ``place_node``. Without it, messages name no line.

    Raises PolicyError for a value of another type, or for a document that is too large or nested too deeply.
    """
    return _Values(origin, place_node or ScalarNode(PLAIN, "", _NOWHERE, _NOWHERE)).node(value, "", MAX_DEPTH)


class _Values:
    def __init__(self, origin: str, place_node: Node) -> None:
        self._reader = NodeReader(origin)
        self._place_node = place_node
        self._marks = place_node.start_mark, place_node.end_mark

    def node(self, value: object, path: str, depth: int) -> Node:
        here = self._place_node
        if not depth:
            raise self._reader.error(here, path, f"nested more than {MAX_DEPTH} levels deep")
        self._reader.visit(1, here, path)
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._reader.error(here, path, f"{show(value)} is no text that UTF-8 has") from None
            return plain(value, here, quoted=True)
        if isinstance(value, Mapping):
            pairs = [
                (self._key(key, path), self.node(item, f"{path}.{key}" if path else str(key), depth - 1))
                for key, item in value.items()
            ]
            return MappingNode(MAP, pairs, *self._marks)
        if isinstance(value, list | tuple):
            items = [self.node(item, f"{path}[{n}]", depth - 1) for n, item in enumerate(value)]
            return SequenceNode(SEQ, items, *self._marks)
        if value is None or isinstance(value, bool):
            return plain("null" if value is None else str(value).lower(), here)
        if isinstance(value, int):
            return plain(str(int(value)), here)
        if isinstance(value, float):
            words = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
            return plain(repr(float(value)) if math.isfinite(value) else words, here)
        if isinstance(value, date):
            return plain(value.isoformat(), here, quoted=True)
        if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
            return plain(str(value), here, quoted=True)
        kind = type(value).__name__
        raise self._reader.error(here, path, f"a document cannot hold a value of the type {kind}: give plain values")

    def _key(self, key: object, path: str) -> Node:
        if not isinstance(key, str):
            raise self._reader.error(self._place_node, path, f"the key {key!r:.80} must be a text")
        return plain(key, self._place_node, quoted=True)
