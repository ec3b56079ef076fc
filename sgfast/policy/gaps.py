"""Gaps of an export: what it does not hold or no policy expresses, although it bears on what may be reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: The change of a filter from OLD to NEW.
FilterChange = Literal["added", "changed", "removed", "same"]


@dataclass(frozen=True, slots=True)
class UnreadFilter:
    """A filter that an export has and a policy cannot express: a network ACL, a firewall, a group of another cloud.

    ``kind``: its type, as the export calls it.
    ``name``: its name in the export, which is unique among those of its kind.
    ``content``: what it says, by attribute; None for an attribute that the provider will choose.
    """

    kind: str
    name: str
    content: Mapping[str, str | None] = field(default_factory=dict, repr=False)

    def says_the_same(self, other: UnreadFilter) -> bool:
        """Return whether two filters have the same content, as far as both are known."""
        keys = self.content.keys() | other.content.keys()
        pairs = [(self.content.get(key, ""), other.content.get(key, "")) for key in keys]
        return all(a is None or b is None or a == b for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps of an export: what its files do not hold, and what sgfast does not read of them.

    ``filters``: filters that are not read.
    ``unresolved``: security groups of which no file says more than that rules or instances refer to them.
    ``lists``: address groups of which no file says more than that.
    ``memberless``: security groups that files hold, without a member, where other files may have one.
    """

    filters: tuple[UnreadFilter, ...] = ()
    unresolved: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    memberless: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ComparedFilter:
    """A filter that is not read, and its change from one policy to another.

    ``kind``: its type, as the export calls it.
    ``name``: its name in the export.
    ``change``: its change.
    """

    kind: str
    name: str
    change: FilterChange


def compared_filters(old: Iterable[UnreadFilter], new: Iterable[UnreadFilter]) -> tuple[ComparedFilter, ...]:
    """Return the filters of both policies; those that change come first."""
    before, after = ({(item.kind, item.name): item for item in filters} for filters in (old, new))
    comparisons = []
    for key in before | after:
        was, now = before.get(key), after.get(key)
        change: FilterChange = "removed" if now is None else "added"
        if was is not None and now is not None:
            change = "same" if was.says_the_same(now) else "changed"
        comparisons.append(ComparedFilter(*key, change))
    order: list[Any] = ["added", "changed", "removed", "same"]
    return tuple(sorted(comparisons, key=lambda item: order.index(item.change)))
