"""Read an expectations file, which lists connections that a policy has to allow or to deny (SPEC 2.14)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from yaml.nodes import Node

from sgfast.base.errors import Place
from sgfast.policy.field_kinds import Written
from sgfast.policy.fields import EXPECTATION, EXPECTATIONS
from sgfast.policy.model import Action
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.written_lists import compose_source, compose_text, read_items
from sgfast.policy.yaml_nodes import at_line, line_of, read_document, show


class Word(NamedTuple):
    """A word of the file that names a group, an instance, addresses or a service.

    ``text``: the word.
    ``place``: its place for messages, ``file:line: field``.
    ``position``: its place in the file; None if it was not read from a text.
    """

    text: str
    place: str
    position: Place | None = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """An expectation: every opener from any source to any destination, for any of the services, gets ``verdict``.

    ``sources``: the ends that send.
    ``destinations``: the ends that are sent to.
    ``services``: the services.
    ``verdict``: the verdict that is expected.
    ``name``: its name in reports; empty: none.
    ``why``: the reason that its author gives; empty: none.
    ``line``: the line of the expectation, from 1; 0 if it was not read from a text.
    ``place``: the place for messages: ``file:line: expect[n]``.
    """

    sources: tuple[Word, ...]
    destinations: tuple[Word, ...]
    services: tuple[Word, ...]
    verdict: Action
    name: str
    why: str
    line: int
    place: str

    @property
    def text(self) -> str:
        """The expectation's traffic for reports: ``web to db: tcp/5432``."""
        ends = (", ".join(word.text for word in words) for words in (self.sources, self.destinations, self.services))
        return "{} to {}: {}".format(*ends)


@dataclass(frozen=True, slots=True)
class ExpectationsFile:
    """The expectations of one file, in the order of the file."""

    origin: str
    expectations: tuple[Expectation, ...]


#: Values that a program may pass as a file of expectations.
ExpectationsSource = (
    ExpectationsFile | str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
)


def load_expectations(path: str | os.PathLike[str]) -> ExpectationsFile:
    """Read an expectations file, YAML or JSON; ``-`` is standard input. Names in the file are not looked up yet.

    A PolicyError has one line for each error, with file, line and field.
    """
    return parse_expectations(*read_document(path))


def parse_expectations(text: str | bytes, origin: str = "<expectations>") -> ExpectationsFile:
    """Parse the text of an expectations file. ``origin``: its name in messages."""
    return _read(*compose_text(text, origin))


def expectations_of(source: ExpectationsSource) -> ExpectationsFile:
    """Read expectations from a path or plain values: the content of a file, or only its list ``expect`` (SPEC
    14.4). Raises PolicyError like ``load_expectations``; ArgumentTypeError for other values.
    """
    return source if isinstance(source, ExpectationsFile) else _read(*compose_source(source, "expect", "expectations"))


def _read(root: Node, origin: str) -> ExpectationsFile:
    lines: dict[str, int] = {}
    expectations = read_items(
        root, origin, EXPECTATIONS, "expect", lambda reader, node, path: _expectation(reader, node, path, lines),
        "is empty: write what the policy is meant to allow and deny",
    )  # fmt: skip
    return ExpectationsFile(origin, expectations)


def _expectation(reader: NodeReader, node: Node, path: str, lines: dict[str, int]) -> Expectation:
    """Read one expectation. ``lines``: the line of each name so far, to which this one's is added."""
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
    """Read one word, or a list of words."""
    words = [Word(word, reader.location(item, path), reader.place(item)) for word, item, path in written.values(key)]
    if not words:
        requirement = EXPECTATION.by_key[key].kind.item.requirement
        raise written.error(key, f"is an empty list: must be {requirement}, or a list of these")
    return tuple(words)
