"""Datagrams in pieces, for the reference model: what is known of their fragments, and for how long (SPEC 9.4).

A datagram is known from the first of its fragments that comes, whichever that is, until it is whole, or
``FRAGMENT_SECONDS`` later, or until there are too many. Times are nanoseconds, places and lengths bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FRAGMENT_SECONDS = 30
FRAGMENT_DATAGRAMS = 4096
FRAGMENT_RANGES = 65536
#: That may be judged while one waits.
FRAGMENT_PACKETS = 65536
#: Of a datagram, IPv4's header included and IPv6's not.
MOST_BYTES = 65535

P = TypeVar("P")
"""What is held back: a packet."""
V = TypeVar("V")
"""What is said of the first fragment: a verdict."""


@dataclass(frozen=True)
class Fragment:
    """Which datagram, and which part of it. One with equal fields is an exact duplicate."""

    #: Family, addresses and identification, IPv4's protocol too. Direction counts.
    datagram: Hashable
    offset: int
    length: int
    #: It is not the last.
    more: bool
    #: IPv4's, 0 in IPv6. No part of what makes a duplicate.
    header_length: int = field(default=0, compare=False)

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def is_impossible(self) -> bool:
        """No datagram has such a part."""
        uneven = self.more and self.length % 8 != 0
        return self.length == 0 or uneven or self.header_length + self.end > MOST_BYTES

    def contradicts(self, other: Fragment) -> bool:
        """Of one datagram, and not equal: they overlap, or one lies behind the last."""
        overlap = self.offset < other.end and other.offset < self.end
        behind_last = (not self.more and other.end > self.end) or (not other.more and self.end > other.end)
        return overlap or behind_last


@dataclass
class Datagram(Generic[P, V]):
    """What came of one so far."""

    began: int
    #: Without duplicates.
    fragments: set[Fragment] = field(default_factory=set)
    #: The first fragment's, once that came.
    verdict: V | None = None
    #: Fragments that came before the first, duplicates too, with their packet numbers.
    pending: list[tuple[int, P]] = field(default_factory=list)
    #: Two of its fragments contradict each other; nothing else is known any more.
    spoiled: bool = False

    @property
    def held(self) -> int:
        """Fragments pending or remembered: until the first comes all that are remembered are pending as well."""
        return max(len(self.pending), len(self.fragments))

    @property
    def is_whole(self) -> bool:
        """They do not overlap, so what there is adds up to the end of the last exactly if nothing is missing."""
        ends = [fragment.end for fragment in self.fragments if not fragment.more]
        return bool(ends) and sum(fragment.length for fragment in self.fragments) == ends[0]

    def is_contradicted_by(self, new: Fragment) -> bool:
        return new not in self.fragments and any(new.contradicts(old) for old in self.fragments)

    def take_pending(self) -> list[tuple[int, P]]:
        taken, self.pending = self.pending, []
        return taken


class Datagrams(Generic[P, V]):
    """All that are known; time never runs backwards, so they stand in the order in which they began."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Datagram[P, V]] = {}
        #: No less than are held in all: what is forgotten is taken off only when it matters, counting takes long.
        self._held_at_most = 0

    def find(self, fragment: Fragment) -> Datagram[P, V] | None:
        return self._known.get(fragment.datagram)

    def remember(self, fragment: Fragment, now: int) -> Datagram[P, V]:
        """The datagram it is part of, and maybe begins."""
        datagram = self._known.setdefault(fragment.datagram, Datagram(now))
        datagram.fragments.add(fragment)
        self._held_at_most += 1
        return datagram

    def has_room(self, fragment: Fragment) -> bool:
        """Whether one more that has to be remembered, this one, is not too much."""
        if fragment.datagram not in self._known and len(self._known) >= FRAGMENT_DATAGRAMS:
            return False
        if self._held_at_most >= FRAGMENT_RANGES:
            self._held_at_most = sum(datagram.held for datagram in self._known.values())
        return self._held_at_most < FRAGMENT_RANGES

    def forget(self, fragment: Fragment) -> None:
        del self._known[fragment.datagram]

    def take_oldest(self) -> Datagram[P, V]:
        return self._known.pop(next(iter(self._known)))

    def take_over(self, now: int, packet: int) -> list[Datagram[P, V]]:
        """Those whose time is over before packet number ``packet``; of some the first fragment did not come."""
        over = []
        for key, datagram in list(self._known.items()):
            if not datagram.pending or packet - datagram.pending[0][0] <= FRAGMENT_PACKETS:
                continue
            over.append(self._known.pop(key))
        while self._known and now >= next(iter(self._known.values())).began + FRAGMENT_SECONDS * 10**9:
            over.append(self.take_oldest())
        return over

    def take_waiting(self) -> list[Datagram[P, V]]:
        """Those whose first fragment did not come, though others did."""
        keys = [key for key, datagram in self._known.items() if datagram.pending]
        return [self._known.pop(key) for key in keys]
