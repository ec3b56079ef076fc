"""Parses YAML into nodes and reads checked values from them. Every error names file, line and field (SPEC 2, 11).

PyYAML's resolver implements YAML 1.1 (``22:24`` is 1344, ``no`` is false). Scalars are therefore resolved here, by the
YAML 1.2 core schema and only when a value is read. Parsing uses libyaml's C parser where it is available.
"""

from __future__ import annotations

import gc
import io
import math
import os
import re
import sys
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from typing import Any, Literal, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sgfast.errors import Place, PolicyError
from sgfast.spelling import did_you_mean

MAX_BYTES = 256 << 20
#: A document needs four levels. libyaml's composer recurses on the C stack without a limit.
MAX_DEPTH = 50
#: Limits both the nodes in the text and the nodes visited when aliases are followed. A node takes about 400 bytes; an
#: instance has about ten nodes.
MAX_NODES = 3_000_000
#: libyaml compares each %TAG line with all earlier ones.
MAX_TAG_DIRECTIVES = 100

#: Magic numbers of pcap and pcapng files, to recognise swapped arguments: a capture given as the policy.
_CAPTURE_MAGICS = (
    b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\n\r\r\n",
)  # fmt: skip
_COMPRESSED_CAPTURE = re.compile(r"\.(?:pcap|pcapng|cap)\.(?:gz|bz2|xz|zst|lz4)$", re.IGNORECASE)
#: The longest piece of the document that a message quotes.
_SHOWN_CHARACTERS = 80
#: A message shows this many characters of a field's path at most.
_PATH_CHARACTERS = 200
#: How many errors of a document are listed.
MAX_ERRORS = 20
#: How many names are compared with unknown ones, for all errors of a document.
_COMPARED_NAMES = 20_000

STR = "tag:yaml.org,2002:str"
MAP = "tag:yaml.org,2002:map"
SEQ = "tag:yaml.org,2002:seq"
#: Tag of plain scalars without an explicit tag. Their type is decided by their text when they are read.
_PLAIN = "?"
_NULL_TAGS = frozenset((_PLAIN, "tag:yaml.org,2002:null"))
_EXPLICIT_TAGS: dict[str, type] = {
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
}

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(_NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
#: The first characters that any non-string can have. Most strings in a policy are recognised by this test alone.
_NOT_STRING_STARTS = frozenset("0123456789+-.~nNtTfF")
#: The longest number that is converted (Python refuses more than 4,300 digits). Longer ones exceed every allowed range.
_NUMBER_CHARACTERS = 100

#: An IPv6 address where a plain scalar may stand, not within a word or quoted text.
_IPV6 = re.compile(r"(?<![\w:.\"'])[0-9a-fA-F:]{0,39}::[0-9a-fA-F:.]{0,39}(?:/[0-9]{1,3})?(?![\w\"'])")

T = TypeVar("T")


def plain_value(text: str) -> object:
    """The value of a plain scalar in the YAML 1.2 core schema: None, bool, int, float or the string itself."""
    if text and text[0] not in _NOT_STRING_STARTS:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        return int(text) if len(text) <= _NUMBER_CHARACTERS else float(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0) if len(text) <= _NUMBER_CHARACTERS else float("inf")
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def show(text: str) -> str:
    """A piece of the document as messages quote it: in quotes, control characters escaped, shortened."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def line_of(node: Node) -> int:
    """The 1-based line at which a node starts; for an alias, the line of its anchor. 0: it was never in a text."""
    line: int = node.start_mark.line
    return line + 1


def _place_of(node: Node, origin: str) -> Place:
    start, end = node.start_mark, node.end_mark
    is_on_one_line = end is not None and end.line == start.line
    return Place(origin, start.line + 1, start.column + 1, end.column + 1 if is_on_one_line else start.column + 2)


def at_line(line: int, before: str = "") -> str:
    """`` at line 14``, with the words that go before it; nothing for line 0."""
    return f"{before} at line {line}" if line else ""


# ---------------------------------------------------------------------------------------------------------------------
# From bytes to nodes


class _TooMuch(Exception):
    """A limit of this module was exceeded. The arguments are the node and the message."""


class _Hooks:
    """The resolver methods that PyYAML's C and Python composers call."""

    _depth = 0
    _nodes = 0

    def resolve(self, kind: type, value: object, implicit: tuple[bool, bool]) -> str:
        if kind is ScalarNode:
            return _PLAIN if implicit[0] else STR
        return MAP if kind is MappingNode else SEQ

    def descend_resolver(self, parent: Any, index: object) -> None:
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH:
            raise _TooMuch(parent, f"nested more than {MAX_DEPTH} levels deep")
        if self._nodes > MAX_NODES:
            raise _TooMuch(parent, f"too large: more than {MAX_NODES:,} values")

    def ascend_resolver(self) -> None:
        self._depth -= 1


class _Loader(_Hooks, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


def shown_origin(origin: str) -> str:
    """A document's name for messages, on one line whatever the file is called."""
    if origin == "-":
        return "<stdin>"
    return origin if origin and origin.isprintable() else repr(origin)[1:-1] or "''"


def path_in(source: object) -> str | os.PathLike[str] | None:
    """The path if a program gave one as a document's source: a path object, or a ``str`` of one line that does not
    begin like JSON (SPEC 14.2).
    """
    if isinstance(source, str):
        return None if "\n" in source or source.lstrip().startswith(("{", "[{")) else source
    return source if isinstance(source, os.PathLike) else None


def read_document(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """Read a document; return its bytes and its name. ``-`` is standard input."""
    origin = os.fsdecode(path)
    try:
        if origin == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(origin, "rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"{shown_origin(origin)}: cannot be read: {error.strerror or error}") from None
    except (ValueError, AttributeError):  # a NUL in the path; or standard input missing or closed
        cause = "standard input is closed" if origin == "-" else "no such file"
        raise PolicyError(f"{shown_origin(origin)}: cannot be read: {cause}") from None
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{shown_origin(origin)}: cannot be read: larger than {MAX_BYTES >> 20} MiB")
    return data, origin


def _capture_hint(data: bytes, origin: str) -> str:
    is_capture = data[:4] in _CAPTURE_MAGICS or _COMPRESSED_CAPTURE.search(origin) is not None
    return ": this is a capture file; give the policy before the captures" if is_capture else ""


def compose(text: str | bytes, origin: str) -> Node:
    """Parse ``text``, which must hold one YAML document, and return its root node."""
    shown = shown_origin(origin)
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{shown}: larger than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        cause = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
        raise PolicyError(f"{shown}:{line}: {cause}{_capture_hint(data, origin)}") from None
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, unprintable.start()) + 1
        cause = f"not YAML: contains the control character {unprintable.group()!a}"
        hint = _capture_hint(data, origin)
        column = unprintable.start() - text.rfind("\n", 0, unprintable.start())
        raise PolicyError(f"{shown}:{line}: {cause}{hint}", None if hint else Place(origin, line, column, column + 1))
    if data.startswith(b"%TAG") + data.count(b"\n%TAG") > MAX_TAG_DIRECTIVES:
        raise PolicyError(f"{shown}: more than {MAX_TAG_DIRECTIVES} %TAG directives")
    try:
        root = _Loader(text).get_single_node()
    except _TooMuch as error:
        node, message = error.args
        place = _place_of(node, origin) if node is not None else None
        raise PolicyError(f"{shown}:{place.line if place is not None else 1}: {message}", place) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last_line = text.rstrip("\n").count("\n") + 1
        place = None
        if mark is not None:
            place = Place(origin, min(mark.line + 1, last_line), mark.column + 1, mark.column + 2)
        where = shown if place is None else f"{shown}:{place.line}"
        context = f" ({_one_line(error.context)})" if error.context else ""
        problem = _one_line(error.problem or "syntax error")
        if "another document" in problem:
            cause = "more than one YAML document: a policy must be a single document"
            raise PolicyError(f"{where}: {cause}", place) from None
        hint = "" if mark is None else _address_hint(text, mark)
        raise PolicyError(f"{where}: not YAML: {problem}{context}{hint}", place) from None
    except yaml.YAMLError as error:
        raise PolicyError(f"{shown}: not YAML: {_one_line(str(error))}") from None
    if root is None:
        raise PolicyError(f"{shown}:1: the document is empty")
    return root  # type: ignore[no-any-return]  # the loader's base is chosen at run time


#: The position of a node that was never in a text.
_NOWHERE = yaml.Mark("", 0, -1, 0, None, 0)


def compose_values(value: object, origin: str) -> Node:
    """The nodes of a document that is given as plain values: mappings, lists, texts, numbers, booleans and None, and
    the addresses, networks and times of Python's standard library. Messages name the field, as there are no lines.

    PolicyError for a value of another type, or one that is nested too deeply or too large.
    """
    return _Values(origin).node(value, "", MAX_DEPTH)


class _Values:
    def __init__(self, origin: str) -> None:
        self._reader = NodeReader(origin)

    def node(self, value: object, path: str, depth: int) -> Node:
        here = _scalar("null")
        if not depth:
            raise self._reader.error(here, path, f"nested more than {MAX_DEPTH} levels deep")
        self._reader.visit(1, here, path)
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._reader.error(here, path, f"{show(value)} is no text that UTF-8 has") from None
            return _scalar(value, STR)
        if isinstance(value, Mapping):
            pairs = [
                (self._key(key, path), self.node(item, f"{path}.{key}" if path else str(key), depth - 1))
                for key, item in value.items()
            ]
            return MappingNode(MAP, pairs, _NOWHERE, _NOWHERE)
        if isinstance(value, list | tuple):
            items = [self.node(item, f"{path}[{n}]", depth - 1) for n, item in enumerate(value)]
            return SequenceNode(SEQ, items, _NOWHERE, _NOWHERE)
        if value is None or isinstance(value, bool):
            return _scalar("null" if value is None else str(value).lower())
        if isinstance(value, int):
            return _scalar(str(int(value)))
        if isinstance(value, float):
            words = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
            return _scalar(repr(float(value)) if math.isfinite(value) else words)
        if isinstance(value, date):
            return _scalar(value.isoformat(), STR)
        if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
            return _scalar(str(value), STR)
        kind = type(value).__name__
        raise self._reader.error(here, path, f"a document cannot hold a value of the type {kind}: give plain values")

    def _key(self, key: object, path: str) -> Node:
        if not isinstance(key, str):
            raise self._reader.error(_scalar("null"), path, f"the key {key!r:.80} must be a text")
        return _scalar(key, STR)


def _scalar(text: str, tag: str = _PLAIN) -> ScalarNode:
    return ScalarNode(tag, text, _NOWHERE, _NOWHERE)


def _address_hint(text: str, mark: yaml.Mark) -> str:
    """A hint if the parser failed inside an IPv6 address, whose leading or trailing colon has a meaning in YAML."""
    line = next(islice(io.StringIO(text), mark.line, None), "")
    before = min(mark.column, _SHOWN_CHARACTERS)
    for word in _IPV6.finditer(line[mark.column - before : mark.column + _SHOWN_CHARACTERS]):
        with suppress(ValueError):
            IPv6Address(word[0].partition("/")[0])
            if word.start() <= before <= word.end():
                return f': quote the address: "{word[0]}"'
    return ""


def _one_line(text: str) -> str:
    return repr(text[:200])[1:-1]


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause garbage collection while a document is read. Everything allocated is kept, so collecting finds nothing and
    takes half the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def plain(text: str, where: Node, *, quoted: bool = False) -> ScalarNode:
    """A scalar with the position of ``where``."""
    return ScalarNode(STR if quoted else _PLAIN, text, where.start_mark, where.end_mark)


# ---------------------------------------------------------------------------------------------------------------------
# From nodes to values


class _UnknownName(PolicyError):
    """A reference to nothing. It may follow from an error where the thing is defined."""


class _TooLarge(PolicyError):
    """A document that is not read any further."""


class DocumentErrors:
    """The errors of one document (SPEC 11.8). ``with errors:`` stands around what can be read without the rest: an
    error that is raised inside is kept, and reading goes on behind it.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._first: list[PolicyError] = []
        self.count = 0
        #: Whether names may be unknown only because of the errors so far. Unknown names are then no errors.
        self.lack_names = False

    @property
    def are_listed(self) -> bool:
        """Whether any other error would only be counted."""
        return self.count >= MAX_ERRORS

    def keep(self, error: BaseException | None) -> bool:
        """Whether ``error`` is one of the document, after which the rest can be read."""
        if not isinstance(error, PolicyError) or isinstance(error, _TooLarge):
            return False
        if not (self.lack_names and isinstance(error, _UnknownName)):
            self.count += 1
            insort(self._first, error.with_traceback(None), key=_line_in_document)
            del self._first[MAX_ERRORS:]
        return True

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return self.keep(error)

    def raise_all(self) -> None:
        """Raises PolicyError if there were any errors."""
        if not self._first:
            return
        if self.count == 1:
            raise self._first[0]
        lines = [str(error) for error in self._first]
        if more := self.count - len(lines):
            lines.append(f"{shown_origin(self._origin)}: and {more:,} more error{'s' if more > 1 else ''}")
        raise PolicyError("\n".join(lines), errors=self._first)


class _FirstError(DocumentErrors):
    """Keeps nothing: the first error ends the reading."""

    def keep(self, error: BaseException | None) -> Literal[False]:
        return False


def _line_in_document(error: PolicyError) -> int:
    return error.place.line if error.place is not None else 0


class NodeReader:
    """Reads values from the nodes of one document. ``path`` is always the field's full path, for messages.

    ``keeps_errors``: ``with reader.errors:`` keeps errors. Otherwise it does nothing.
    """

    def __init__(self, origin: str, *, keeps_errors: bool = False) -> None:
        self._origin = origin
        self._shown_origin = shown_origin(origin)
        self._visits_left = MAX_NODES
        self._names_to_compare = _COMPARED_NAMES
        self.errors = (DocumentErrors if keeps_errors else _FirstError)(origin)

    def error(self, where: Node, path: str, message: str, kind: type[PolicyError] = PolicyError) -> PolicyError:
        """The error to raise: ``policy.yaml:14: security_groups[0].rules[2].source: unknown …``."""
        path = _shown_path(path) + ": " if path else ""
        return kind(f"{self._place(line_of(where))}: {path}{message}", self.place(where))

    def unknown_name(self, where: Node, path: str, message: str, name: str, known: Iterable[str]) -> PolicyError:
        """The error for a name that is not one of ``known``, with the names that were perhaps meant."""
        return self.error(where, path, message + self.did_you_mean(name, known), _UnknownName)

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        """As the function. It looks at a limited number of names for all errors together."""
        compared = list(islice(known, self._names_to_compare))
        self._names_to_compare -= len(compared)
        return did_you_mean(word, compared)

    def place(self, where: Node) -> Place | None:
        return _place_of(where, self._origin) if line_of(where) else None

    def location(self, where: Node, path: str) -> str:
        """``policy.yaml:14: field``, for warnings."""
        return f"{self._place(line_of(where))}: {_shown_path(path)}"

    def _place(self, line: int) -> str:
        return f"{self._shown_origin}:{line}" if line else self._shown_origin

    # Collections. Visits are counted, so that a few aliases cannot expand to billions of values.

    def visit(self, count: int, node: Node, path: str) -> None:
        """Count ``count`` values read in ``node``, and raise PolicyError if the total is too large."""
        self._visits_left -= count
        if self._visits_left < 0:
            raise self.error(node, path, f"too large: more than {MAX_NODES:,} values with aliases expanded", _TooLarge)

    def fields(
        self, node: Node, path: str, known: Collection[str], errors: DocumentErrors | None = None
    ) -> dict[str, Node]:
        """The values of a mapping by key. Unknown and duplicate keys are errors, which ``errors`` may keep one by one.
        Null is an empty mapping.
        """
        if type(node) is not MappingNode or node.tag != MAP:
            if self.is_null(node):
                return {}
            raise self.wrong_type(node, path, "a mapping")
        self.visit(len(node.value) + 1, node, path)
        found: dict[str, Node] = {}
        for key_node, value in node.value:
            key = key_node.value
            if type(key) is str and key in known and key not in found and key_node.tag in (_PLAIN, STR):
                found[key] = value
            else:
                error = self._bad_key(key_node, value, path, known, found)
                if errors is None or not errors.keep(error):
                    raise error
        return found

    def items(self, node: Node | None, path: str) -> list[Node]:
        """The values of a list. Null and a missing field are an empty list."""
        if node is None or self.is_null(node):
            return []
        if type(node) is not SequenceNode or node.tag != SEQ:
            raise self.wrong_type(node, path, "a list")
        self.visit(len(node.value) + 1, node, path)
        values: list[Node] = node.value
        return values

    def one_or_several(self, node: Node | None, path: str) -> list[tuple[Node, str]]:
        """The values of a field that takes one value or a list, each with its field path."""
        if node is None:
            return []
        if type(node) is not SequenceNode:
            return [(node, path)]
        return [(item, f"{path}[{n}]") for n, item in enumerate(self.items(node, path))]

    def required(self, fields: Mapping[str, Node], key: str, node: Node, path: str, hint: str = "") -> Node:
        value = fields.get(key)
        if value is None:
            raise self.error(node, f"{path}.{key}" if path else key, f"is missing{hint}")
        return value

    def _bad_key(
        self, key_node: Node, value: Node, path: str, known: Collection[str], found: Mapping[str, Node]
    ) -> PolicyError:
        key = key_node.value
        if type(key) is not str or key_node.tag not in (_PLAIN, STR):
            return self.error(key_node, path, "keys must be plain words")
        field = f"{path}.{key}" if path else key
        if key in found:
            first = at_line(line_of(found[key]), ", first used")
            return self.error(key_node, field, f"duplicate key{first}")
        if self.is_null(value) and re.fullmatch(r"\s*\d{1,9}(\s*-\s*\d{1,9})?\s*", key):
            for cut, example in (("ports", "22,80"), ("service", "tcp/22,80")):
                if cut in found:
                    message = f"inside {{}} a comma ends the value, so {show(key)} is read as the next key"
                    return self.error(key_node, f"{path}.{cut}", f'{message}: quote the list: {cut}: "{example}"')
        hint = self.did_you_mean(key, known) or f": allowed here are {', '.join(known)}"
        return self.error(key_node, path, f"unknown key {show(key)}{hint}")

    # Scalars.

    def is_null(self, node: Node) -> bool:
        return type(node) is ScalarNode and node.tag in _NULL_TAGS and node.value in _NULLS

    def scalar(self, node: Node, path: str, wanted: str) -> object:
        """A scalar as None, bool, int, float or str. ``wanted`` describes the expected value for messages."""
        if type(node) is not ScalarNode:
            raise self.wrong_type(node, path, wanted)
        if node.tag == STR:
            return node.value
        value = plain_value(node.value)
        if node.tag != _PLAIN:
            explicit = _EXPLICIT_TAGS.get(node.tag)
            if explicit is float and type(value) is int:
                value = float(value)
            if explicit is None or type(value) is not explicit:
                raise self.error(node, path, f"the tag {show(node.tag)} is not allowed here: must be {wanted}")
        return value

    def string(self, node: Node, path: str, wanted: str = "a string", hint: str = ": quote it") -> str:
        value = self.scalar(node, path, wanted)
        if type(value) is not str:
            raise self.wrong_type(node, path, wanted, hint)
        return value

    def integer(self, node: Node, path: str, low: int, high: int) -> int:
        wanted = f"a whole number from {low} to {high}"
        value = self.scalar(node, path, wanted)
        if type(value) is not int:
            raise self.wrong_type(node, path, wanted)
        if not low <= value <= high:
            raise self.error(node, path, f"must be {wanted}, not {_shorten(node.value)}")
        return value

    def boolean(self, node: Node, path: str) -> bool:
        value = self.scalar(node, path, "true or false")
        if type(value) is not bool:
            raise self.wrong_type(node, path, "true or false")
        return value

    def positive_number(self, node: Node, path: str, high: float) -> float:
        wanted = f"a number above 0, at most {high:g}"
        value = self.scalar(node, path, wanted)
        if not (type(value) is int or type(value) is float):
            raise self.wrong_type(node, path, wanted)
        if not 0 < value <= high:  # false for NaN too
            raise self.error(node, path, f"must be {wanted}, not {_shorten(node.value)}")
        return value

    def choice(self, node: Node, path: str, table: Mapping[str, T]) -> T:
        """The table's value for the word."""
        wanted = f"one of {', '.join(table)}"
        word = self.string(node, path, wanted, hint="")
        if word not in table:
            raise self.error(node, path, f"must be {wanted}, not {show(word)}{self.did_you_mean(word, table)}")
        return table[word]

    def matching(self, node: Node, path: str, fits: Callable[[str], object], wanted: str) -> str:
        """A string for which ``fits`` is true."""
        text = self.string(node, path, wanted)
        if not fits(text):
            raise self.error(node, path, f"must be {wanted}, not {show(text)}")
        return text

    def wrong_type(self, node: Node, path: str, wanted: str, number_hint: str = "") -> PolicyError:
        """The error for a value of the wrong type. ``number_hint`` is appended if the value is a number or boolean."""
        tag = node.tag
        if tag in (MAP, SEQ):
            found = "a mapping" if tag == MAP else "a list"
        elif type(node) is not ScalarNode or tag not in (_PLAIN, STR):
            found = f"a value with the tag {show(tag)}"
        elif tag == STR:
            found = f"the text {show(node.value)}"
        elif self.is_null(node):
            found = "nothing (null)"
        else:
            value = plain_value(node.value)
            if isinstance(value, str):
                found = f"the text {show(node.value)}"
            else:
                kind = "" if isinstance(value, bool) else "the number "
                found = f"{kind}{_shorten(node.value)}{number_hint}"
        return self.error(node, path, f"must be {wanted}, not {found}")


def _shown_path(path: str) -> str:
    """A field's path on one line, whatever its keys are; of a long one, the end."""
    path = path if len(path) <= _PATH_CHARACTERS else "…" + path[-_PATH_CHARACTERS:]
    return path if path.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)


def _shorten(text: str) -> str:
    return show(text)[1:-1]
