"""Identify an object of an export in messages."""

from __future__ import annotations

from dataclasses import dataclass

from sgfast.errors import PolicyError
from sgfast.policy.yaml_nodes import show, shown_origin


@dataclass(frozen=True, slots=True)
class Location:
    """An object of an export: its file, its kind, its id at the provider, and its name if any."""

    file: str
    kind: str
    id: str
    name: str = ""
    #: The part of the object, set by ``part()``.
    of: str = ""

    def part(self, words: str) -> Location:
        """A part of this object, such as "rule 3c0e…". It keeps the object's id and name."""
        return Location(self.file, self.kind, self.id, self.name, f"{self.of}, {words}" if self.of else words)

    @property
    def called(self) -> str:
        """``security group 'web' (85cc…)``, shortened to one line."""
        # The type of a resource that sgfast does not read is whatever the file says.
        kind, identity = one_line(self.kind), one_line(self.id)
        if self.name and self.name != self.id:
            shown = f"{kind} {show(self.name)}" + (f" ({identity})" if identity else "")
        else:
            shown = f"{kind} {identity}".rstrip()
        return f"{shown}, {self.of}" if self.of else shown

    def __str__(self) -> str:
        return f"{shown_origin(self.file)}: {self.called}"

    def error(self, message: str) -> PolicyError:
        """The error to raise: ``sg.json: security group 'web' (85cc…), rule 3c0e…: unknown …``."""
        return PolicyError(f"{self}: {message}")

    def differs_from(self, other: Location) -> PolicyError:
        """The error to raise if two files have different entries for one object."""
        return self.error(f"differs from its entry in {shown_origin(other.file)}: export both at the same time")


def one_line(text: str, characters: int = 80) -> str:
    text = text if len(text) <= characters else text[:characters] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
