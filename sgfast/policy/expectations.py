"""Read an expectations file: the connections that a policy has to allow, and those it has to deny (SPEC 2.14)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from yaml.nodes import Node

from sgfast.errors import ArgumentTypeError, Place
from sgfast.policy.field_kinds import Written
from sgfast.policy.fields import EXPECTATION, EXPECTATIONS
from sgfast.policy.model import Action
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.plain_values import compose_values, path_in
from sgfast.policy.yaml_nodes import at_line, compose, garbage_collection_paused, line_of, read_document, show


class Word(NamedTuple):
    """A word that the file uses as a name. ``place`` is ``file:line: field``, for messages."""

    text: str
    place: str
    position: Place | None = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """Every packet that opens a connection from one of the sources to one of the destinations, for one of the services,
    is expected to get this verdict.
    """

    sources: tuple[Word, ...]
    destinations: tuple[Word, ...]
    services: tuple[Word, ...]
    verdict: Action
    name: str
    why: str
    #: 0 if it was never in a text.
    line: int
    #: ``file:line: expect[n]``
    place: str

    @property
    def text(self) -> str:
        """``web to db: tcp/5432``"""
        ends = (", ".join(word.text for word in words) for words in (self.sources, self.destinations, self.services))
        return "{} to {}: {}".format(*ends)


@dataclass(frozen=True, slots=True)
class ExpectationsFile:
    """The expectations of one file, in its order."""

    origin: str
    expectations: tuple[Expectation, ...]


#: Values that a program may pass as a file of expectations.
ExpectationsSource = (
    ExpectationsFile | str | bytes | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
)


def load_expectations(path: str | os.PathLike[str]) -> ExpectationsFile:
    """Read an expectations file, YAML or JSON; ``-`` is standard input. The names in it are not looked up yet.

    A PolicyError has a line for each error, which names file, line and field.
    """
    return parse_expectations(*read_document(path))


def parse_expectations(text: str | bytes, origin: str = "<expectations>") -> ExpectationsFile:
    """Parse an expectations file's text. Messages call it ``origin``."""
    with garbage_collection_paused():
        return _read(compose(text, origin), origin)


def expectations_of(source: ExpectationsSource) -> ExpectationsFile:
    """Expectations from a path, a text, or plain values: what a file holds, or the list of its ``expect`` (SPEC 14.4).

    Raises PolicyError as ``load_expectations`` does; ArgumentTypeError for something else.
    """
    if isinstance(source, ExpectationsFile):
        return source
    if (path := path_in(source)) is not None:
        return load_expectations(path)
    if isinstance(source, str | bytes):
        return parse_expectations(source)
    if not isinstance(source, Mapping | list | tuple):
        raise ArgumentTypeError(f"expectations must be a path, a text, a mapping or a list, not {source!r:.80}")
    origin = "<expectations>"
    whole = source if isinstance(source, Mapping) else {"expect": source}
    return _read(compose_values(whole, origin), origin)


def _read(root: Node, origin: str) -> ExpectationsFile:
    with garbage_collection_paused():
        reader = NodeReader(origin, keeps_errors=True)
        document = EXPECTATIONS.read(reader, root, "")
        if "version" in document.nodes:
            with reader.errors:
                document.read("version")
        items = document.items("expect")
        if not items:
            raise document.error("expect", "is empty: write what the policy is meant to allow and deny")
        lines: dict[str, int] = {}
        found = []
        for node, path in items:
            with reader.errors:
                found.append(_expectation(reader, node, path, lines))
        reader.errors.raise_all()
        return ExpectationsFile(origin, tuple(found))


def _expectation(reader: NodeReader, node: Node, path: str, lines: dict[str, int]) -> Expectation:
    """``lines``: where each name was used first. A new one is added."""
    written = EXPECTATION.read(reader, node, path)
    sources, destinations, services = (_words(reader, written, key) for key in ("from", "to", "service"))
    verdict, name, why = written.read("verdict"), written.read("name"), written.read("why")
    if name in lines:
        raise written.error("name", f"duplicate name {show(name)}{at_line(lines[name], ', first used')}")
    if name:
        lines[name] = line_of(node)
    location = reader.location(node, path)
    return Expectation(sources, destinations, services, verdict, name, why, line_of(node), location)


def _words(reader: NodeReader, written: Written, key: str) -> tuple[Word, ...]:
    """One word, or a list of them."""
    words = [Word(word, reader.location(item, path), reader.place(item)) for word, item, path in written.values(key)]
    if not words:
        wanted = EXPECTATION.known[key].kind.item.wanted
        raise written.error(key, f"is an empty list: must be {wanted}, or a list of these")
    return tuple(words)
