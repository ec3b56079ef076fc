"""Parse YAML into nodes (SPEC 2, 11). ``node_reader`` reads checked values from the nodes.

PyYAML's resolver implements YAML 1.1 (``22:24`` is 1344, ``no`` is false). This module therefore resolves scalars
itself, by the YAML 1.2 core schema, and only when a value is read. The parser is libyaml's C parser if it is available.
"""

from __future__ import annotations

import gc
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address
from itertools import islice
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.base.errors import Place, PolicyError
from sgfast.base.names import without_credentials
from sgfast.base.spelling import missing_path_hint

MAX_BYTES = 256 << 20
#: The limit for nested levels. A document needs four, and libyaml's composer recurses on the C stack without a limit.
MAX_DEPTH = 50
#: The limit for the nodes in a text, and for the nodes that are read if aliases are followed. A node takes about 400
#: bytes; an instance has about ten nodes.
MAX_NODES = 3_000_000
#: The limit for %TAG lines, because libyaml compares each of them with all earlier ones.
MAX_TAG_DIRECTIVES = 100

#: Magic numbers of pcap and pcapng files, to detect swapped arguments, with a capture in place of the policy.
#: The first bytes of UTF-16 text, and what it is and what to do.
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF_16 = (
    "is UTF-16 text, as PowerShell's > writes it: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8 FILE > NEW, or in "
    "PowerShell: Get-Content FILE | Set-Content -Encoding utf8 NEW)"
)
_CAPTURE_MAGICS = (
    b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\n\r\r\n",
)  # fmt: skip
_COMPRESSED_CAPTURE = re.compile(r"\.(?:pcap|pcapng|cap)\.(?:gz|bz2|xz|zst|lz4)$", re.IGNORECASE)
#: The limit for the characters of a document that a message quotes.
_SHOWN_CHARACTERS = 80

STR = "tag:yaml.org,2002:str"
MAP = "tag:yaml.org,2002:map"
SEQ = "tag:yaml.org,2002:seq"
#: The tag of plain scalars without an explicit tag. The text of such a scalar determines its type when it is read.
PLAIN = "?"

NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
#: All first characters of scalars that are no strings. This test alone recognises most strings in a policy.
_NOT_STRING_STARTS = frozenset("0123456789+-.~nNtTfF")
#: The limit for the digits of a number that is converted exactly (Python refuses more than 4,300 digits). A longer
#: number is out of every allowed range.
_NUMBER_CHARACTERS = 100

#: An escape of half a surrogate pair. JSON escapes a character beyond 16 bits as such a pair, whose halves libyaml
#: refuses.
_HALF = re.compile(r"(\\u)([dD])([89a-fA-F][0-9a-fA-F]{2})")
#: The escape that libyaml reads in place of a half. It has ``e`` instead of ``d``, is valid, and has the same length.
_STAND_IN = re.compile(r"\\u[eE][89a-fA-F][0-9a-fA-F]{2}")

#: An IPv6 address that is not quoted and not a part of a word.
_IPV6 = re.compile(r"(?<![\w:.\"'])[0-9a-fA-F:]{0,39}::[0-9a-fA-F:.]{0,39}(?:/[0-9]{1,3})?(?![\w\"'])")


def plain_value(text: str) -> object:
    """Return the value of a plain scalar in the YAML 1.2 core schema: None, bool, int, float or the string itself."""
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
    """Quote a piece of a document for messages: shortened, in quotes, with control characters escaped."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def line_of(node: Node) -> int:
    """Return the line, from 1, at which a node starts; for an alias, the line of its anchor. 0: not from a text."""
    line: int = node.start_mark.line
    return line + 1


def place_of(node: Node, origin: str) -> Place:
    """Return the place of a node: the whole node if it is on one line, else its first character."""
    start, end = node.start_mark, node.end_mark
    is_on_one_line = end is not None and end.line == start.line
    return Place(origin, start.line + 1, start.column + 1, end.column + 1 if is_on_one_line else start.column + 2)


def at_line(line: int, before: str = "") -> str:
    """Return `` at line 14`` after the words ``before``; "" for line 0."""
    return f"{before} at line {line}" if line else ""


class _TooMuch(Exception):
    """The error that a limit of this module is exceeded. The arguments are the node and the message."""


class _Hooks:
    """The resolver methods that PyYAML's C and Python composers call."""

    _depth = 0
    _nodes = 0

    def resolve(self, kind: type, value: object, implicit: tuple[bool, bool]) -> str:
        if kind is ScalarNode:
            return PLAIN if implicit[0] else STR
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
    """Return a document's name for messages: on one line, with unprintable characters escaped, without credentials."""
    if origin == "-":
        return "<stdin>"
    shown = without_credentials(origin)
    return shown if shown and shown.isprintable() else repr(shown)[1:-1] or "''"


def read_document(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """Read a document. Return its bytes and its name. ``-`` means standard input."""
    origin = os.fsdecode(path)
    try:
        if origin == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(origin, "rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        is_url = "://" in origin
        cause = "only captures are read from URLs: download it" if is_url else error.strerror or error
        if isinstance(error, FileNotFoundError) and not is_url:
            cause = f"{cause}{missing_path_hint(origin)}"
        raise PolicyError(f"{shown_origin(origin)}: cannot be read: {cause}") from None
    except (ValueError, AttributeError):  # The path contains a NUL, or standard input is missing or closed.
        cause = "standard input is closed" if origin == "-" else "no such file"
        raise PolicyError(f"{shown_origin(origin)}: cannot be read: {cause}") from None
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{shown_origin(origin)}: cannot be read: larger than {MAX_BYTES >> 20} MiB")
    return data, origin


def _capture_hint(data: bytes, origin: str) -> str:
    is_capture = data[:4] in _CAPTURE_MAGICS or _COMPRESSED_CAPTURE.search(origin) is not None
    return ": this is a capture file" if is_capture else ""


def decoded(data: bytes, origin: str) -> str:
    """Return the text of a document. Raises PolicyError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(UTF_16_MARKS):
            raise PolicyError(f"{shown_origin(origin)}: {UTF_16}") from None
        line = data.count(b"\n", 0, error.start) + 1
        cause = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
        raise PolicyError(f"{shown_origin(origin)}:{line}: {cause}{_capture_hint(data, origin)}") from None


def compose(text: str | bytes, origin: str) -> Node:
    """Parse ``text``, which must hold one YAML document, and return its root node."""
    shown = shown_origin(origin)
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{shown}: larger than {MAX_BYTES >> 20} MiB")
    text = decoded(data, origin)
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, unprintable.start()) + 1
        cause = f"not YAML: contains the control character {unprintable.group()!a}"
        hint = _capture_hint(data, origin)
        column = unprintable.start() - text.rfind("\n", 0, unprintable.start())
        raise PolicyError(f"{shown}:{line}: {cause}{hint}", None if hint else Place(origin, line, column, column + 1))
    if data.startswith(b"%TAG") + data.count(b"\n%TAG") > MAX_TAG_DIRECTIVES:
        raise PolicyError(f"{shown}: more than {MAX_TAG_DIRECTIVES} %TAG directives")
    readable = _HALF.sub(lambda half: half[1] + chr(ord(half[2]) + 1) + half[3], text)
    try:
        root = _Loader(readable).get_single_node()
    except _TooMuch as error:
        node, message = error.args
        place = place_of(node, origin) if node is not None else None
        raise PolicyError(f"{shown}:{place.line if place is not None else 1}: {message}", place) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last_line = text.rstrip("\n").count("\n") + 1
        place = None
        if mark is not None:
            place = Place(origin, min(mark.line + 1, last_line), mark.column + 1, mark.column + 2)
        place_text = shown if place is None else f"{shown}:{place.line}"
        context = f" ({_one_line(error.context)})" if error.context else ""
        problem = _one_line(error.problem or "syntax error")
        if "another document" in problem:
            cause = "more than one YAML document: a policy must be a single document"
            raise PolicyError(f"{place_text}: {cause}", place) from None
        hint = "" if mark is None else _address_hint(text, mark)
        raise PolicyError(f"{place_text}: not YAML: {problem}{context}{hint}", place) from None
    except yaml.YAMLError as error:
        raise PolicyError(f"{shown}: not YAML: {_one_line(str(error))}") from None
    if root is None:
        raise PolicyError(f"{shown}:1: the document is empty")
    if readable != text:
        for node in _scalars(root):
            _put_halves_back(node, text, readable, origin)
    return root  # type: ignore[no-any-return]  # The base class of the loader is chosen at run time.


def _scalars(root: Node) -> Iterator[ScalarNode]:
    """Yield all scalars of a document in order, each only once."""
    pending, seen_nodes = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen_nodes:
            continue
        seen_nodes.add(id(node))
        if type(node) is ScalarNode:
            yield node
        elif type(node) is MappingNode:
            pending += [child for pair in reversed(node.value) for child in reversed(pair)]
        else:
            pending += reversed(node.value)


def _put_halves_back(node: ScalarNode, text: str, readable: str, origin: str) -> None:
    """Change the value of a scalar that was parsed from ``readable`` to its value in ``text``."""
    start, end = node.start_mark.index, node.end_mark.index
    written, read = text[start:end], readable[start:end]
    if written == read:
        return
    if node.style != '"':   # Only texts in double quotes have escapes. In other texts, the characters are put back.
        in_order = (written[match.start() : match.end()] for match in _STAND_IN.finditer(read))
        node.value = _STAND_IN.sub(lambda _: next(in_order), node.value)
        return
    # PyYAML's own parser is slow, but accepts halves. A tag or an anchor before the quotes is cut off.
    read_node: Any = yaml.SafeLoader(written[written.index('"') :]).get_single_node()
    try:
        node.value = read_node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        place = place_of(node, origin)
        cause = "an escape is one half of a surrogate pair, without the other half: write the character itself"
        raise PolicyError(f"{shown_origin(origin)}:{place.line}: not YAML: {cause}", place) from None


def _address_hint(text: str, mark: yaml.Mark) -> str:
    """Return a hint if the parser failed inside an IPv6 address, because a colon at its ends has a meaning in YAML."""
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
    """Pause garbage collection while a document is read. All allocated objects are kept, so a collection would find
    nothing, and collections take half the time otherwise.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def plain(text: str, place_node: Node, *, quoted: bool = False) -> ScalarNode:
    """Make a scalar with the position of ``place_node``."""
    return ScalarNode(STR if quoted else PLAIN, text, place_node.start_mark, place_node.end_mark)
