"""Read checked values from YAML nodes. Every error names file, line and field (SPEC 2, 11). All errors of a document
are reported together (SPEC 11.8).
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sgfast.base.errors import Place, PolicyError
from sgfast.base.spelling import Suggestions
from sgfast.policy import yaml_nodes
from sgfast.policy.yaml_nodes import (
    MAP,
    NULLS,
    PLAIN,
    SEQ,
    STR,
    at_line,
    line_of,
    place_of,
    plain_value,
    show,
    shown_origin,
)

#: The limit for the characters of a field's path in a message.
_PATH_CHARACTERS = 200
#: The limit for the errors of a document that are listed.
MAX_ERRORS = 20

_NULL_TAGS = frozenset((PLAIN, "tag:yaml.org,2002:null"))
_EXPLICIT_TAGS: dict[str, type] = {
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
}


class _Consequence(PolicyError):
    """An error that may be the consequence of another error in the document, and is therefore not reported."""


class _TooLarge(PolicyError):
    """The error for a document that is too large, after which the document is not read any further."""


class DocumentErrors:
    """The errors of one document (SPEC 11.8). ``with errors:`` encloses the reading of an independent part. An error
    that is raised inside is kept, and the reader continues after the block.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._first: list[PolicyError] = []
        self.count = 0
        #: Sections in which not all names could be read. References to unknown names of such a section are not
        #: reported, because the names may exist.
        self.incomplete: set[str] = set()

    def keep(self, error: BaseException | None) -> bool:
        """Keep an error of the document. Return False for any other exception, which must be raised."""
        if not isinstance(error, PolicyError) or isinstance(error, _TooLarge):
            return False
        if not isinstance(error, _Consequence):
            self.count += 1
            insort(self._first, error.with_traceback(None), key=_line_in_document)
            del self._first[MAX_ERRORS:]
        return True

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return self.keep(error)

    def raise_all(self) -> None:
        """Raise PolicyError if there were any errors."""
        if not self._first:
            return
        if self.count == 1:
            raise self._first[0]
        lines = [str(error) for error in self._first]
        if unlisted := self.count - len(lines):
            lines.append(f"{shown_origin(self._origin)}: and {unlisted:,} more error{'s' if unlisted > 1 else ''}")
        raise PolicyError("\n".join(lines), errors=self._first)


class _FirstError(DocumentErrors):
    """Keeps no errors, so that the first error ends the reading."""

    def keep(self, error: BaseException | None) -> Literal[False]:
        return False


def _line_in_document(error: PolicyError) -> int:
    return error.place.line if error.place is not None else 0


class NodeReader:
    """Reads values from the nodes of one document. ``path`` is always the field's full path, for messages.

    ``keeps_errors``: whether ``with reader.errors:`` keeps errors, rather than having no effect.
    """

    def __init__(self, origin: str, *, keeps_errors: bool = False) -> None:
        self._origin = origin
        self._shown_origin = shown_origin(origin)
        self._visits_left = yaml_nodes.MAX_NODES
        self.did_you_mean = Suggestions().did_you_mean
        self.errors = (DocumentErrors if keeps_errors else _FirstError)(origin)

    def error(self, node: Node, path: str, message: str, kind: type[PolicyError] = PolicyError) -> PolicyError:
        """Make an error about a node: ``policy.yaml:14: security_groups[0].rules[2].source: unknown …``."""
        field = _shown_path(path) if path else None
        text = message if field is None else f"{field}: {message}"
        return kind(f"{self._place(line_of(node))}: {text}", self.place(node), field=field, cause=message)

    def unknown_name(
        self, node: Node, path: str, message: str, name: str, known_names: Iterable[str], *sections: str
    ) -> PolicyError:
        """Make the error for a name that is not in ``known_names``, with a similar name. ``sections``: those that
        could define the name.
        """
        is_sure = self.errors.incomplete.isdisjoint(sections)
        message += self.did_you_mean(name, known_names)
        return self.error(node, path, message, PolicyError if is_sure else _Consequence)

    def place(self, node: Node) -> Place | None:
        return place_of(node, self._origin) if line_of(node) else None

    def location(self, node: Node, path: str) -> str:
        """Return the place of a node for warnings: ``policy.yaml:14: field``."""
        return f"{self._place(line_of(node))}: {_shown_path(path)}"

    def _place(self, line: int) -> str:
        return f"{self._shown_origin}:{line}" if line else self._shown_origin

    # Lists and mappings. Every value that is read is counted, because a few aliases could expand to billions of values.

    def visit(self, count: int, node: Node, path: str) -> None:
        """Add ``count`` values of ``node`` to the number of values read. Raises PolicyError if the total is too large.
        """
        self._visits_left -= count
        if self._visits_left < 0:
            message = f"too large: more than {yaml_nodes.MAX_NODES:,} values with aliases expanded"
            raise self.error(node, path, message, _TooLarge)

    def fields(
        self, node: Node, path: str, known_keys: Collection[str], errors: DocumentErrors | None = None
    ) -> dict[str, Node]:
        """Return the values of a mapping by key. Null counts as an empty mapping.

        Raises PolicyError for unknown and duplicate keys, unless ``errors`` is given and keeps the error.
        """
        if type(node) is not MappingNode or node.tag != MAP:
            if self.is_null(node):
                return {}
            raise self.wrong_type(node, path, "a mapping")
        self.visit(len(node.value) + 1, node, path)
        fields: dict[str, Node] = {}
        for key_node, value in node.value:
            key = key_node.value
            if type(key) is str and key in known_keys and key not in fields and key_node.tag in (PLAIN, STR):
                fields[key] = value
            else:
                error = self._bad_key(key_node, value, path, known_keys, fields)
                if errors is None or not errors.keep(error):
                    raise error
        return fields

    def items(self, node: Node | None, path: str) -> list[Node]:
        """Return the values of a list. Null and a missing field (None) count as an empty list."""
        if node is None or self.is_null(node):
            return []
        if type(node) is not SequenceNode or node.tag != SEQ:
            raise self.wrong_type(node, path, "a list")
        self.visit(len(node.value) + 1, node, path)
        values: list[Node] = node.value
        return values

    def _bad_key(
        self, key_node: Node, value: Node, path: str, known_keys: Collection[str], earlier_fields: Mapping[str, Node]
    ) -> PolicyError:
        key = key_node.value
        if type(key) is not str or key_node.tag not in (PLAIN, STR):
            return self.error(key_node, path, "keys must be plain words")
        field = f"{path}.{key}" if path else key
        if key in earlier_fields:
            first = at_line(line_of(earlier_fields[key]), ", first used")
            return self.error(key_node, field, f"duplicate key{first}")
        if self.is_null(value) and re.fullmatch(r"\s*\d{1,9}(\s*-\s*\d{1,9})?\s*", key):
            for cut, example in (("ports", "22,80"), ("service", "tcp/22,80")):
                if cut in earlier_fields:
                    message = f"inside {{}} a comma ends the value, so {show(key)} is read as the next key"
                    return self.error(key_node, f"{path}.{cut}", f'{message}: quote the list: {cut}: "{example}"')
        hint = self.did_you_mean(key, known_keys) or f": allowed here are {', '.join(known_keys)}"
        return self.error(key_node, path, f"unknown key {show(key)}{hint}")

    # Scalars.

    def is_null(self, node: Node) -> bool:
        return type(node) is ScalarNode and node.tag in _NULL_TAGS and node.value in NULLS

    def scalar(self, node: Node, path: str, requirement: str) -> object:
        """Read a scalar as None, bool, int, float or str. ``requirement``: the expected value, for messages."""
        if type(node) is not ScalarNode:
            raise self.wrong_type(node, path, requirement)
        if node.tag == STR:
            return node.value
        value = plain_value(node.value)
        if node.tag != PLAIN:
            explicit = _EXPLICIT_TAGS.get(node.tag)
            if explicit is float and type(value) is int:
                value = float(value)
            if explicit is None or type(value) is not explicit:
                raise self.error(node, path, f"the tag {show(node.tag)} is not allowed here: must be {requirement}")
        return value

    def string(self, node: Node, path: str, requirement: str = "a string", hint: str = ": quote it") -> str:
        value = self.scalar(node, path, requirement)
        if type(value) is not str:
            raise self.wrong_type(node, path, requirement, hint)
        return value

    def wrong_type(self, node: Node, path: str, requirement: str, number_hint: str = "") -> PolicyError:
        """Make the error for a value of the wrong type. ``number_hint``: a text to append if the value is a number or
        boolean.
        """
        tag = node.tag
        if tag in (MAP, SEQ):
            actual_text = "a mapping" if tag == MAP else "a list"
        elif type(node) is not ScalarNode or tag not in (PLAIN, STR):
            actual_text = f"a value with the tag {show(tag)}"
        elif tag == STR:
            actual_text = f"the text {show(node.value)}"
        elif self.is_null(node):
            actual_text = "nothing (null)"
        else:
            value = plain_value(node.value)
            if isinstance(value, str):
                actual_text = f"the text {show(node.value)}"
            else:
                kind = "" if isinstance(value, bool) else "the number "
                actual_text = f"{kind}{show(node.value)[1:-1]}{number_hint}"
        return self.error(node, path, f"must be {requirement}, not {actual_text}")


def _shown_path(path: str) -> str:
    """Return a field's path on one line, with unprintable characters escaped. A long path is cut at its beginning."""
    path = path if len(path) <= _PATH_CHARACTERS else "…" + path[-_PATH_CHARACTERS:]
    return path if path.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)
