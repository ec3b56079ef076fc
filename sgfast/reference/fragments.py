"""Fragmented datagrams: what is known of their fragments, and for how long (SPEC 9.4).

A datagram is known from its earliest fragment in the capture on: until all of it came, for ``FRAGMENT_SECONDS``, or
until too many datagrams are known. Times are in nanoseconds, offsets and lengths in bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FRAGMENT_SECONDS = 30
FRAGMENT_DATAGRAMS = 4096
FRAGMENT_RANGES = 65536
#: The most packets that a fragment waits for.
FRAGMENT_PACKETS = 65536
#: The longest datagram: in IPv4 with its header, in IPv6 without.
MOST_BYTES = 65535

P = TypeVar("P")
"""A packet that is held back."""
V = TypeVar("V")
"""The verdict of a first fragment."""


@dataclass(frozen=True)
class Fragment:
    """Part of a datagram. A fragment with equal fields is an exact duplicate."""

    #: Family, source, destination and identification; in IPv4 the protocol, too.
    datagram: Hashable
    offset: int
    length: int
    #: More fragments: this is not the last one.
    more: bool
    #: 0 in IPv6. Duplicates may differ in it.
    header_length: int = field(default=0, compare=False)

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def is_impossible(self) -> bool:
        """No datagram can have such a fragment."""
        uneven = self.more and self.length % 8 != 0
        return self.length == 0 or uneven or self.header_length + self.end > MOST_BYTES

    def contradicts(self, other: Fragment) -> bool:
        """They overlap, or one lies behind the last one. Both are of one datagram, and not equal."""
        overlap = self.offset < other.end and other.offset < self.end
        behind_last = (not self.more and other.end > self.end) or (not other.more and self.end > other.end)
        return overlap or behind_last


@dataclass
class Datagram(Generic[P, V]):
    """State of one datagram."""

    began: int
    #: Fragments without duplicates.
    fragments: set[Fragment] = field(default_factory=set)
    #: The verdict of the first fragment, once it came.
    verdict: V | None = None
    #: Packet numbers and fragments, duplicates included, that came before the first fragment.
    pending: list[tuple[int, P]] = field(default_factory=list)
    #: Two of its fragments contradict each other. The fragments themselves are forgotten.
    spoiled: bool = False

    @property
    def held(self) -> int:
        """Number of kept fragments. Before the first fragment comes, all that are remembered are pending, too."""
        return max(len(self.pending), len(self.fragments))

    @property
    def is_whole(self) -> bool:
        """Fragments do not overlap, so their lengths add up to the end of the last one only if none is missing."""
        ends = [fragment.end for fragment in self.fragments if not fragment.more]
        return bool(ends) and sum(fragment.length for fragment in self.fragments) == ends[0]

    def is_contradicted_by(self, new: Fragment) -> bool:
        return new not in self.fragments and any(new.contradicts(old) for old in self.fragments)

    def take_pending(self) -> list[tuple[int, P]]:
        taken, self.pending = self.pending, []
        return taken


class Datagrams(Generic[P, V]):
    """All that are known, in the order in which they began, as time never runs backwards."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Datagram[P, V]] = {}
        #: An upper bound of the kept fragments. Counting takes long, so it is made exact only at the limit.
        self._held_at_most = 0

    def find(self, fragment: Fragment) -> Datagram[P, V] | None:
        return self._known.get(fragment.datagram)

    def remember(self, fragment: Fragment, now: int) -> Datagram[P, V]:
        """Add the fragment to its datagram, which begins with it if it is not known yet."""
        datagram = self._known.setdefault(fragment.datagram, Datagram(now))
        datagram.fragments.add(fragment)
        self._held_at_most += 1
        return datagram

    def has_room(self, fragment: Fragment) -> bool:
        """Whether this fragment can be remembered within the bounds."""
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
        """Remove and return the datagrams whose time is over before packet number ``packet``."""
        over = []
        for key, datagram in list(self._known.items()):
            if not datagram.pending or packet - datagram.pending[0][0] <= FRAGMENT_PACKETS:
                continue
            over.append(self._known.pop(key))
        while self._known and now >= next(iter(self._known.values())).began + FRAGMENT_SECONDS * 10**9:
            over.append(self.take_oldest())
        return over

    def take_waiting(self) -> list[Datagram[P, V]]:
        """Remove and return the datagrams with fragments that wait for the first one."""
        keys = [key for key, datagram in self._known.items() if datagram.pending]
        return [self._known.pop(key) for key in keys]
