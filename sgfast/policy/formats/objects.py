"""An object of an export as its fields, each checked when it is asked for: anything may stand in a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sgfast.errors import PolicyError
from sgfast.policy.formats.place import Place
from sgfast.policy.yaml_nodes import show


class JsonObject:
    """A JSON object. A field that is null is as if it were not there, for clouds write either."""

    __slots__ = ("_path", "_values", "place")

    def __init__(self, values: Any, place: Place, path: str = "") -> None:
        """``place`` and ``path`` are what messages call it."""
        self.place = place
        self._path = path
        if not isinstance(values, dict):
            raise place.error(f"{path or 'it'} must be an object, not {found(values)}")
        self._values: dict[str, Any] = values

    def at(self, place: Place) -> JsonObject:
        """The same fields, called by another name."""
        return JsonObject(self._values, place)

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def error(self, key: str, message: str) -> PolicyError:
        return self.place.error(f"{self._named(key)} {message}")

    def only(self, known: Collection[str]) -> None:
        """An error where there is a field beside the known ones: it could change what the others mean."""
        for key, value in self._values.items():
            if key not in known and value not in (None, "", [], {}, False):
                raise self.place.error(f"{self._path + ': ' if self._path else ''}unknown field {show(key)}")

    def text(self, key: str, default: str = "") -> str:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def needed(self, key: str) -> str:
        """A text that must be there."""
        value = self.text(key)
        if not value:
            raise self.error(key, "is missing")
        return value

    def number(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self._wrong(key, "a whole number", value)
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def object(self, key: str) -> JsonObject:
        """An object that may be missing: then it is empty."""
        value = self._values.get(key)
        return JsonObject({} if value is None else value, self.place, self._named(key))

    def mapping(self, key: str) -> dict[str, Any]:
        """An object as it is; one that is missing is empty."""
        return self.object(key)._values

    def key(self, key: str) -> str | int | None:
        """A text or a whole number."""
        return self.text(key) if isinstance(self._values.get(key), str) else self.number(key)

    def items(self, key: str) -> list[Any]:
        """A list's items as they are."""
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(key, "a list", value)
        return value

    def objects(self, key: str) -> Iterator[JsonObject]:
        for n, value in enumerate(self.items(key)):
            yield JsonObject(value, self.place, f"{self._named(key)}[{n}]")

    def texts(self, key: str) -> list[str]:
        for n, value in enumerate(self.items(key)):
            if not isinstance(value, str):
                raise self._wrong(f"{key}[{n}]", "a string", value)
        return self.items(key)

    def known_texts(self, key: str) -> list[str]:
        """Likewise, but with null among them, which is what Terraform writes for what it does not know yet."""
        known = [value for value in self.items(key) if value is not None]
        for value in known:
            if not isinstance(value, str):
                raise self._wrong(key, "a list of strings", value)
        return known

    def _named(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _wrong(self, key: str, wanted: str, value: Any) -> PolicyError:
        return self.error(key, f"must be {wanted}, not {found(value)}")


def found(value: Any) -> str:
    """What stands in a file instead, for messages."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the text {show(value)}"
    if value is None:
        return "nothing (null)"
    return show(str(value))[1:-1]
