"""Objects of an export in which other objects stand, named in messages by the way to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sgfast.errors import PolicyError
from sgfast.policy.formats.fields import Fields
from sgfast.policy.formats.location import Location


class JsonObject(Fields):
    """A mapping whose fields may be mappings, or lists of them."""

    def at(self, location: Location) -> JsonObject:
        """The same fields, called by another name."""
        return JsonObject(self._values, location)

    def error(self, key: str, message: str) -> PolicyError:
        return self.location.error(f"{key} {message}")

    def object(self, key: str) -> JsonObject:
        """An object that may be missing: then it is empty."""
        value = self.get(key)
        return JsonObject({} if value is None else value, self.location.part(key))

    def objects(self, key: str) -> Iterator[JsonObject]:
        for n, value in enumerate(self.items(key)):
            yield JsonObject(value, self.location.part(f"{key}[{n}]"))

    def mapping(self, key: str) -> dict[str, Any]:
        """An object as it is; one that is missing is empty."""
        return self.object(key)._values

    def known_texts(self, key: str) -> list[str]:
        """A list of texts, without the null that Terraform writes for what it does not know yet."""
        return JsonObject({key: [text for text in self.items(key) if text is not None]}, self.location).texts(key)
