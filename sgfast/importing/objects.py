"""Nested objects of an export. Messages name them by their path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sgfast.errors import PolicyError
from sgfast.importing.fields import Fields
from sgfast.importing.location import Location


class JsonObject(Fields):
    """A mapping whose fields may be mappings or lists of mappings."""

    def at(self, location: Location) -> JsonObject:
        """The same fields under another location."""
        return JsonObject(self._values, location)

    def error(self, key: str, message: str) -> PolicyError:
        return self.location.error(f"{key} {message}")

    def object(self, key: str) -> JsonObject:
        """A nested object; empty if it is missing."""
        value = self.get(key)
        return JsonObject({} if value is None else value, self.location.part(key))

    def objects(self, key: str) -> Iterator[JsonObject]:
        for n, value in enumerate(self.items(key)):
            yield JsonObject(value, self.location.part(f"{key}[{n}]"))

    def mapping(self, key: str) -> dict[str, Any]:
        """A nested object as a plain dict; empty if it is missing."""
        return self.object(key)._values

    def known_texts(self, key: str) -> list[str]:
        """A list of strings, without the nulls that Terraform writes for values it does not know yet."""
        return JsonObject({key: [text for text in self.items(key) if text is not None]}, self.location).texts(key)
