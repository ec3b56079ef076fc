"""Names of an export's objects in messages."""

from __future__ import annotations

from dataclasses import dataclass

from sgfast.base.errors import PolicyError
from sgfast.policy.yaml_nodes import show, shown_origin


@dataclass(frozen=True, slots=True)
class Location:
    """The identity of an object of an export: file, kind, the provider's id, and the name or ""."""

    file: str
    kind: str
    id: str
    name: str = ""
    #: The part of the object that is meant, set by ``part()``; "": the whole object.
    of: str = ""

    def part(self, words: str) -> Location:
        """Return the location of a part of this object, such as "rule 3c0e…". It has the object's id and name."""
        return Location(self.file, self.kind, self.id, self.name, f"{self.of}, {words}" if self.of else words)

    @property
    def called(self) -> str:
        """The object's name in messages, shortened to one line: ``security group 'web' (85cc…)``."""
        # The kind of an unsupported resource comes from the file, so it may be long or unprintable.
        kind, identity = one_line(self.kind), one_line(self.id)
        if self.name and self.name != self.id:
            shown = f"{kind} {show(self.name)}" + (f" ({identity})" if identity else "")
        else:
            shown = f"{kind} {identity}".rstrip()
        return f"{shown}, {self.of}" if self.of else shown

    def __str__(self) -> str:
        return f"{shown_origin(self.file)}: {self.called}"

    def error(self, message: str) -> PolicyError:
        """Make an error about this object: ``sg.json: security group 'web' (85cc…), rule 3c0e…: unknown …``."""
        return PolicyError(f"{self}: {message}")

    def differs_from(self, other: Location) -> PolicyError:
        """Make the error that two files have different entries for one object."""
        return self.error(f"differs from its entry in {shown_origin(other.file)}: export both at the same time")


def one_line(text: str, characters: int = 80) -> str:
    text = text if len(text) <= characters else text[:characters] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
