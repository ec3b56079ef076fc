"""Read an exported object key by key. Errors name the object. Keys that were not read can be reported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from sgfast.base.errors import PolicyError
from sgfast.base.spelling import did_you_mean
from sgfast.clouds.importing.object_location import Location, one_line
from sgfast.policy.yaml_nodes import show

T = TypeVar("T")

#: The limit for the digits of a number written as text. No meaningful number has as many.
_DIGITS = 20


class JsonObject:
    """A mapping of an export. A key whose value is null counts as missing. A PolicyError names ``location`` and key."""

    def __init__(self, value: object, location: Location) -> None:
        if not isinstance(value, dict):
            raise location.error(f"must be a mapping, not {_kind(value)}")
        self._values = value
        self._read: set[str] = set()
        self.location = location

    def get(self, *keys: str) -> object:
        """Return the value of the first of ``keys`` that is present, or None. All of them count as read."""
        if len(keys) == 1:  # A faster way, because most calls have a single key.
            self._read.add(keys[0])
            return self._values.get(keys[0])
        self._read.update(keys)
        return next((value for key in keys if (value := self._values.get(key)) is not None), None)

    def has(self, *keys: str) -> bool:
        return self.get(*keys) is not None

    def text(self, *keys: str) -> str:
        """Return a string, or "" if it is missing."""
        value = self.get(*keys)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(keys, "a string", value)
        return value

    def required(self, *keys: str) -> str:
        text = self.text(*keys)
        if not text:
            raise self.location.error(f"{keys[0]} is missing")
        return text

    def number(self, *keys: str) -> int | None:
        """Return an integer, which may be written as a string, or None if it is missing or empty."""
        value = self.get(*keys)
        if value is None or value == "":
            return None
        if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) <= _DIGITS:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._wrong(keys, "a whole number", value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong((key,), "true or false", value)
        return value

    def choice(self, key: str, table: Mapping[str, T], default: T | None = None) -> T:
        """Return the table's value for a word, ignoring case."""
        word = self.text(key)
        if not word and default is not None:
            return default
        if word.lower() not in table:
            raise self.location.error(f"{key} {show(word)}: must be one of {', '.join(table)}")
        return table[word.lower()]

    def items(self, *keys: str) -> list[object]:
        value = self.get(*keys)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(keys, "a list", value)
        return value

    def texts(self, *keys: str) -> list[str]:
        texts = []
        for value in self.items(*keys):
            if not isinstance(value, str):
                raise self._wrong(keys, "a list of strings", [value])
            texts.append(value)
        return texts

    def known_texts(self, key: str) -> list[str]:
        """Return a list of strings without nulls, which Terraform writes for values that it does not know yet."""
        return JsonObject({key: [text for text in self.items(key) if text is not None]}, self.location).texts(key)

    def texts_in(self, key: str, inner: str, part: str = "") -> list[str]:
        """Return the text under ``inner`` of each mapping in a list, which messages call ``part``. No text may be
        missing.
        """
        location = self.location.part(part or key)
        return [JsonObject(item, location).required(inner) for item in self.items(key)]

    def nested(self, key: str) -> JsonObject:
        """Return a nested object, or an empty one if it is missing."""
        value = self.get(key)
        return JsonObject({} if value is None else value, self.location.part(key))

    def objects(self, key: str) -> Iterator[JsonObject]:
        """Yield the mappings in a list. Messages name them by number."""
        for n, value in enumerate(self.items(key)):
            yield JsonObject(value, self.location.part(f"{key}[{n}]"))

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a nested object as a plain dict, which is empty if the object is missing."""
        return self.nested(key)._values

    def at(self, location: Location) -> JsonObject:
        """Return an object with the same fields, under another location, none of them read."""
        return JsonObject(self._values, location)

    def error(self, key: str, message: str) -> PolicyError:
        return self.location.error(f"{key} {message}")

    def unread(self, ignored: Collection[str]) -> list[str]:
        """Return the keys with a value that were never read, except ``ignored`` keys. ``prefix:`` in ``ignored`` means
        all keys with this prefix.
        """
        return [
            key
            for key, value in self._values.items()
            if value not in (None, "", False, [], {})
            and not (key in self._read or key in ignored or (":" in key and key.partition(":")[0] + ":" in ignored))
        ]

    def refuse_unread(self, ignored: Collection[str]) -> None:
        """Raise PolicyError if any key was not read, because the key may change the meaning of the object."""
        for key in self.unread(ignored):
            hint = did_you_mean(key, [*self._read, *ignored])
            raise self.location.error(f"unknown key {show(key)}{hint}: its effect on the policy is unknown")

    def _wrong(self, keys: tuple[str, ...], expected: str, value: object) -> PolicyError:
        key = next((key for key in keys if self._values.get(key) is not None), keys[0])
        return self.error(key, f"must be {expected}, not {_kind(value)}")


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if not value else f"a list of {_kind(value[0])}"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {show(value)}"
    if isinstance(value, int) and abs(value) >= 10**_DIGITS:
        return "a number that large"
    return one_line(str(value).lower() if isinstance(value, bool) else str(value))
