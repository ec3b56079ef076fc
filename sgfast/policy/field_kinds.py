"""Kinds of fields in documents. Each kind reads its fields from a document, has a JSON Schema for editors (SPEC 15.5),
and checks values that a program made (SPEC 14.2). ``fields`` has the tables of fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from yaml.nodes import Node, SequenceNode

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.base.json_types import Schema
from sgfast.policy import lookup
from sgfast.policy.model import WORDS
from sgfast.policy.networks import parse_network
from sgfast.policy.node_reader import DocumentErrors, NodeReader
from sgfast.policy.protocols import PROTOCOL_NUMBERS, USUAL_PROTOCOLS
from sgfast.policy.ranges import LAST_PORT
from sgfast.policy.timestamps import INSTANT, MAX_SECONDS, OUT_OF_RANGE, instant_ns, zone_hint
from sgfast.policy.yaml_nodes import show

STRING: Schema = {"type": "string"}
PORT_RANGE = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?")


class FieldKind:
    """A kind of field. An object of this base class only has a schema, and the reader of its section reads the field.

    ``requirement``: the description of a valid value in messages. ``item``: the kind of a list's items.
    """

    def __init__(self, schema: Schema, requirement: str = "", item: FieldKind | None = None) -> None:
        self.schema = schema
        self.requirement = requirement
        self.item = item or self

    def read(self, reader: NodeReader, node: Node, path: str) -> Any:
        """Read the field. Raises PolicyError, which names ``path``, if it is not valid."""
        raise AssertionError(f"{path} has only a schema: the reader of its section reads it")

    def check(self, value: Any, place: str) -> None:
        """Check a value that a program made. Raises ArgumentError, which names ``place``, if it is not valid in a
        document.
        """


class Scalar(FieldKind):
    """A value of one of the ``types`` for which ``fits`` is true. ``for_code``: ``requirement`` for programs."""

    def __init__(
        self, schema: Schema, requirement: str, types: Collection[type], fits: Callable[[Any], object],
        for_code: str = "",
    ) -> None:
        super().__init__(schema, requirement)
        self.fits = fits
        self._types, self._for_code = types, for_code or requirement

    def read(self, reader: NodeReader, node: Node, path: str) -> Any:
        value = reader.scalar(node, path, self.requirement)
        if type(value) not in self._types:
            raise reader.wrong_type(node, path, self.requirement, ": quote it" if str in self._types else "")
        if not self.fits(value):
            shown = show(node.value)
            shown_value = shown if type(value) is str else shown[1:-1]
            raise reader.error(node, path, self.wrong(value, self.requirement, shown_value))
        return value

    def check(self, value: Any, place: str) -> None:
        if not self.fits(value):
            shown = f"{value!r:.80}" if isinstance(value, str) else str(value)
            raise ArgumentError(f"{place} {self.wrong(value, self._for_code, shown)}")

    def wrong(self, value: Any, requirement: str, shown: str) -> str:
        return f"must be {requirement}, not {shown}"


def whole(low: int, high: int) -> Scalar:
    """Return the kind of whole numbers from ``low`` to ``high``."""
    schema = {"type": "integer", "minimum": low, "maximum": high}
    requirement = f"a whole number from {low} to {high}"
    return Scalar(schema, requirement, [int], lambda value: low <= value <= high, f"{low} to {high}")


def text(fits: Callable[[str], object], requirement: str, **schema: Any) -> Scalar:
    """Return the kind of texts for which ``fits`` is true."""
    return Scalar({**STRING, **schema}, requirement, [str], fits)


FLAG = Scalar({"type": "boolean"}, "true or false", [bool], lambda _: True)


class Seconds(Scalar):
    """A number above 0."""

    def __init__(self, high: float) -> None:
        schema = {"type": "number", "exclusiveMinimum": 0, "maximum": high}
        requirement = f"a number above 0, at most {high:g}"     # This also excludes NaN.
        super().__init__(schema, requirement, [int, float], lambda value: 0 < value <= high, f"0 to {high}")

    def check(self, value: float, place: str) -> None:
        if not value:
            raise ArgumentError(f"{place} must be more than 0 seconds")
        super().check(value, place)


class Version(FieldKind):
    """The version of a document's format."""

    def __init__(self) -> None:
        super().__init__({"const": 1}, "1")

    def read(self, reader: NodeReader, node: Node, path: str) -> None:
        if reader.scalar(node, path, self.requirement) != 1 or node.value != "1":
            raise reader.wrong_type(node, path, self.requirement)


class OneOf(FieldKind):
    """One of several words. ``words``: a mapping from words to their values, or words that are their own values."""

    def __init__(self, words: Iterable[str]) -> None:
        self.meanings: Mapping[str, Any] = words if isinstance(words, Mapping) else {word: word for word in words}
        super().__init__({"enum": [*self.meanings]}, f"one of {', '.join(self.meanings)}")

    def read(self, reader: NodeReader, node: Node, path: str) -> Any:
        word = reader.string(node, path, self.requirement, hint="")
        if word not in self.meanings:
            hint = reader.did_you_mean(word, self.meanings)
            raise reader.error(node, path, f"must be {self.requirement}, not {show(word)}{hint}")
        return self.meanings[word]

    def check(self, value: Any, place: str) -> None:
        if value not in self.meanings.values():
            raise ArgumentError(f"{place} must be {self.requirement}, not {value!r:.80}")


class NumberOrText(FieldKind):
    """A number, or a name instead of it."""

    def __init__(self, number: Scalar, name: Scalar) -> None:
        super().__init__({"anyOf": [number.schema, name.schema]}, name.requirement)
        self._number, self._name = number, name

    def read(self, reader: NodeReader, node: Node, path: str) -> Any:
        is_number = type(reader.scalar(node, path, self.requirement)) is int
        return (self._number if is_number else self._name).read(reader, node, path)

    def check(self, value: int | str, place: str) -> None:
        (self._name if isinstance(value, str) else self._number).check(value, place)


class Description(Scalar):
    """The description of a rule or a group (SPEC 2.1)."""

    def __init__(self, most: int) -> None:
        schema = {**STRING, "maxLength": most, "pattern": "^[^<>]*$"}
        super().__init__(
            schema, "a string", [str], lambda text: len(text) <= most and "<" not in text and ">" not in text
        )
        self._most = most

    def wrong(self, value: str, requirement: str, shown: str) -> str:
        if len(value) > self._most:
            return f"has {len(value)} characters, but at most {self._most} are allowed"
        return "must contain neither < nor >"


class Address(FieldKind):
    """An address or a CIDR (SPEC 2.3)."""

    def __init__(self) -> None:
        schema = {**STRING, "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}
        super().__init__(schema, "an address or CIDR (a string)")

    def read(self, reader: NodeReader, node: Node, path: str) -> Any:
        text = reader.string(node, path, self.requirement)
        try:
            return parse_network(text)
        except ValueError as error:
            raise reader.error(node, path, f"{show(text)}: {error}") from None


class Protocol(FieldKind):
    """A protocol's name or number, or ``all``, which is None (SPEC 2.1)."""

    def __init__(self) -> None:
        self._number = whole(0, 255)
        super().__init__({"anyOf": [
            {"enum": [*dict.fromkeys((*USUAL_PROTOCOLS, *PROTOCOL_NUMBERS))]},
            self._number.schema,
            {**STRING, "pattern": "^(?:[0-9]{1,2}|[01][0-9]{2}|2[0-4][0-9]|25[0-5])$"},
            # Names may have capital letters.
            {**STRING, "pattern": "[A-Z]"},
        ]}, "a protocol's name, a number from 0 to 255, or all")  # fmt: skip

    def read(self, reader: NodeReader, node: Node, path: str) -> int | None:
        value = reader.scalar(node, path, self.requirement)
        if type(value) is str:
            word = value.lower()
            if word in PROTOCOL_NUMBERS:
                return PROTOCOL_NUMBERS[word]
            if word == "all":
                return None
            if not re.fullmatch(r"[0-9]{1,3}", word):
                hint = reader.did_you_mean(word, USUAL_PROTOCOLS) or reader.did_you_mean(word, PROTOCOL_NUMBERS)
                raise reader.error(node, path, f"unknown protocol {show(value)}{hint}: must be {self.requirement}")
            value = int(word)
        if type(value) is not int:
            raise reader.wrong_type(node, path, self.requirement)
        if not 0 <= value <= 255:
            raise reader.error(node, path, f"must be {self.requirement}, not {show(node.value)}")
        return value

    def check(self, value: int, place: str) -> None:
        self._number.check(value, place)


class Known(FieldKind):
    """The name of an object of the policy. The reader of the document checks that the object exists."""

    def __init__(self, object_kind: lookup.NamedKind) -> None:
        super().__init__(STRING)
        self.object_kind = object_kind


class ChangeTime(FieldKind):
    """A time: seconds after the first packet, or an instant as nanoseconds since the epoch (SPEC 9.5)."""

    def __init__(self) -> None:
        super().__init__({"anyOf": [
            {"type": "number", "minimum": -MAX_SECONDS, "maximum": MAX_SECONDS},
            {**STRING, "pattern": f"^{INSTANT.pattern}$"},
        ]}, "seconds from the first packet, or an instant like 2026-01-31T12:00:00Z")  # fmt: skip

    def read(self, reader: NodeReader, node: Node, path: str) -> Decimal | int:
        value = reader.scalar(node, path, self.requirement)
        if type(value) is int or type(value) is float:
            # The number is parsed from its text, because a float would lose nanoseconds.
            try:
                seconds = Decimal(node.value.replace("_", ""))
            except ArithmeticError:
                seconds = Decimal(value)
            if not seconds.is_finite():
                raise reader.error(node, path, f"must be {self.requirement}, not {show(node.value)}")
            # The exponent is checked first, because comparing or multiplying Decimal("1e999999999") overflows.
            if (seconds and seconds.adjusted() > 10) or abs(seconds) > MAX_SECONDS:
                raise beyond_the_clock(reader, node, path)
            return seconds
        try:
            at = instant_ns(value) if type(value) is str else None
        except ValueError as error:
            raise reader.error(node, path, f"{show(node.value)} {error}") from None
        if at is None:
            zone = zone_hint(value) if type(value) is str else ""
            raise reader.error(node, path, f"must be {self.requirement}, not {show(node.value)}{zone}")
        return at


class Day(FieldKind):
    """A date of the calendar."""

    def __init__(self) -> None:
        super().__init__({**STRING, "pattern": r"^\d{4}-\d{2}-\d{2}$"}, "a date like 2026-01-31")

    def read(self, reader: NodeReader, node: Node, path: str) -> date:
        written = reader.scalar(node, path, self.requirement)
        try:
            # Other forms of ISO 8601 are dates, too, but not for everybody.
            if type(written) is str and len(written) == len("2026-01-31"):
                return date.fromisoformat(written)
        except ValueError:
            pass
        raise reader.error(node, path, f"must be {self.requirement}, not {show(node.value)}")


def beyond_the_clock(reader: NodeReader, node: Node, path: str) -> PolicyError:
    return reader.error(node, path, f"{show(node.value)} {OUT_OF_RANGE}")


class ListOf(FieldKind):
    """A list. Null means an empty list."""

    def __init__(self, item: FieldKind, *, least: int = 0, **schema: Any) -> None:
        length = {"type": "array", "minItems": least} if least else {"type": ["array", "null"]}
        super().__init__({**length, "items": item.schema, **schema}, item=item)

    def check(self, value: Iterable[Any], place: str) -> None:
        for n, item in enumerate(value):
            self.item.check(item, f"{place}[{n}]")


class OneOrSeveral(ListOf):
    """A value, or a list of values."""

    def __init__(self, item: FieldKind, **schema: Any) -> None:
        super().__init__(item)
        self.schema = {"anyOf": [item.schema, {"type": "array", "items": item.schema, **schema}]}


class Ports(OneOrSeveral):
    """Ports and ranges of ports (SPEC 2.2). The profile of the document determines whether there is a port 0."""

    def __init__(self) -> None:
        written = {**STRING, "pattern": f"^{PORT_RANGE.pattern}(?:,{PORT_RANGE.pattern})*$"}
        either = [whole(0, LAST_PORT).schema, written]
        super().__init__(FieldKind({"anyOf": either}))
        self.schema = {"anyOf": [*either, {"type": "array", "minItems": 1, "items": {"anyOf": either}}]}


class Key(NamedTuple):
    """A field of a mapping."""

    kind: FieldKind
    #: The description that an editor shows.
    help: str
    #: The value of a field that is left out.
    default: Any = None
    #: None: the field may be left out. Otherwise the field is required, and this is the advice, or "", in the error.
    required: str | None = None
    #: The name of the attribute in the model, or "" if it is the field's name.
    attribute: str = ""


class Form(FieldKind):
    """A mapping with these fields and no others. Null means an empty mapping, if no field is required.

    ``fields``: the fields in the order in which messages list them. ``schema``: more keywords of the JSON Schema.
    """

    def __init__(self, fields: Mapping[str, Key], **schema: Any) -> None:
        needed = [key for key, field in fields.items() if field.required is not None]
        super().__init__({
            "type": "object" if needed else ["object", "null"],
            "additionalProperties": False,
            **({"required": needed} if needed else {}),
            "properties": {key: {"description": field.help, **field.kind.schema} for key, field in fields.items()},
            **schema,
        })  # fmt: skip
        self.by_key = fields

    def read(self, reader: NodeReader, node: Node, path: str, errors: DocumentErrors | None = None) -> Written:
        return Written(reader, self.by_key, node, path, reader.fields(node, path, self.by_key, errors))

    def check(self, value: object, place: str) -> None:
        for key, field in self.by_key.items():
            name = field.attribute or key
            field_value = getattr(value, name, None)
            if field_value is not None and (field_value != "" or field.required is not None):
                field.kind.check(field_value, f"{place}.{name}")


class Operation(Form):
    """The fields of a change, all of which are required. The key ``a|b`` is one field with two names."""

    def __init__(self, fields: Mapping[str, Key]) -> None:
        self._names = [spelled.split("|") for spelled in fields]
        by_name = {
            name: field._replace(required="" if len(names) == 1 else None)
            for names, field in zip(self._names, fields.values(), strict=True)
            for name in names
        }
        either = [{"oneOf": [{"required": [name]} for name in names]} for names in self._names if len(names) > 1]
        super().__init__(by_name, type="object", **({"allOf": either} if either else {}))

    def read(self, reader: NodeReader, node: Node, path: str, errors: DocumentErrors | None = None) -> Written:
        """Read the nodes of all fields. The result has a field ``a|b`` under the name ``a``, even if ``b`` is written.
        """
        all_nodes = reader.fields(node, path, self.by_key, errors)
        nodes = {}
        for names in self._names:
            used = [name for name in names if name in all_nodes]
            if len(used) > 1:
                raise reader.error(node, path, f"has both {' and '.join(used)}, which mean the same: keep one of them")
            if not used:
                raise reader.error(node, f"{path}.{names[0]}", "is missing")
            nodes[names[0]] = all_nodes[used[0]]
        return Written(reader, self.by_key, node, path, nodes)


@dataclass(slots=True)
class Written:
    """A mapping of a document. Callers read its fields one by one, in the order in which errors shall be found."""

    reader: NodeReader
    by_key: Mapping[str, Key]
    node: Node
    path: str
    nodes: dict[str, Node]

    def at(self, key: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def node_of(self, key: str) -> Node | None:
        """Return the node of a field, or None if it is left out. Raises PolicyError if a required field is left out."""
        node = self.nodes.get(key)
        if node is None and (advice := self.by_key[key].required) is not None:
            raise self.error(key, f"is missing{advice}")
        return node

    def read(self, key: str) -> Any:
        field = self.by_key[key]
        node = self.node_of(key)
        return field.default if node is None else field.kind.read(self.reader, node, self.at(key))

    def read_all(self, *keys: str) -> dict[str, Any]:
        """Read these fields, or all fields without arguments, and leave out fields that are not written. Mappings are
        read with all their fields.
        """
        return {
            key: value.read_all() if isinstance(value := self.read(key), Written) else value
            for key in keys or self.nodes
            if key in self.nodes
        }

    def items(self, key: str) -> list[tuple[Node, str]]:
        """Return the items of a list, each with its path. A single value counts as a list if the field may be either.
        """
        node, path = self.node_of(key), self.at(key)
        if node is not None and type(node) is not SequenceNode and isinstance(self.by_key[key].kind, OneOrSeveral):
            return [(node, path)]
        return [(item, f"{path}[{n}]") for n, item in enumerate(self.reader.items(node, path))]

    def values(self, key: str) -> Iterator[tuple[Any, Node, str]]:
        """Read the items of a list. Yield each value with its node and path."""
        for item, path in self.items(key):
            yield self.by_key[key].kind.item.read(self.reader, item, path), item, path

    def words(self) -> dict[str, Any]:
        """Read the provider's id, device and label of an object (SPEC 2.12), as far as they are written."""
        return self.read_all(*WORDS)

    def error(self, key: str, message: str) -> PolicyError:
        """Make an error about a field. Its place is the field's value, or the mapping if the field is left out."""
        return self.reader.error(self.nodes.get(key, self.node), self.at(key), message)
