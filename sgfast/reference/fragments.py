"""Fragmented datagrams and the fragments known of them (SPEC 9.4).

A datagram is known from its first captured fragment until all fragments have arrived, until ``FRAGMENT_SECONDS`` have
passed, or until too many datagrams are known. Times are in nanoseconds, offsets and lengths in bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FRAGMENT_SECONDS = 30
FRAGMENT_DATAGRAMS = 4096
FRAGMENT_RANGES = 65536
#: The maximum number of packets during which a fragment stays pending.
FRAGMENT_PACKETS = 65536
#: The maximum length of a datagram: in IPv4 with its header, in IPv6 without.
MOST_BYTES = 65535

P = TypeVar("P")
"""The type of a pending packet."""
V = TypeVar("V")
"""The type of a first fragment's verdict."""


@dataclass(frozen=True)
class Fragment:
    """Part of a datagram. Fragments with equal fields are duplicates."""

    #: IP version, source, destination and identification; in IPv4 also the protocol.
    datagram: Hashable
    offset: int
    length: int
    #: Whether more fragments follow this one.
    more: bool
    #: The length of the IPv4 header; 0 in IPv6. Duplicates may differ in it.
    header_length: int = field(default=0, compare=False)

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def is_impossible(self) -> bool:
        """Whether no valid datagram can have such a fragment."""
        uneven = self.more and self.length % 8 != 0
        return self.length == 0 or uneven or self.header_length + self.end > MOST_BYTES

    def contradicts(self, other: Fragment) -> bool:
        """Return whether two different fragments of a datagram overlap, or one lies behind the datagram's end."""
        overlap = self.offset < other.end and other.offset < self.end
        behind_last = (not self.more and other.end > self.end) or (not other.more and self.end > other.end)
        return overlap or behind_last


@dataclass
class Datagram(Generic[P, V]):
    """The state of one datagram."""

    began: int
    #: The fragments that arrived, without duplicates.
    fragments: set[Fragment] = field(default_factory=set)
    #: The verdict of the first fragment; None until it arrives.
    verdict: V | None = None
    #: Packet numbers and fragments, including duplicates, that arrived before the first fragment.
    pending: list[tuple[int, P]] = field(default_factory=list)
    #: Whether two fragments contradict each other. If so, ``fragments`` is empty.
    spoiled: bool = False

    @property
    def held(self) -> int:
        """The number of kept fragments. Until the first fragment arrives, all kept fragments are also pending."""
        return max(len(self.pending), len(self.fragments))

    @property
    def is_whole(self) -> bool:
        """Whether all fragments arrived. As they never overlap, their lengths then add up to the end of the last
        one."""
        ends = [fragment.end for fragment in self.fragments if not fragment.more]
        return bool(ends) and sum(fragment.length for fragment in self.fragments) == ends[0]

    def is_contradicted_by(self, new: Fragment) -> bool:
        return new not in self.fragments and any(new.contradicts(old) for old in self.fragments)

    def take_pending(self) -> list[tuple[int, P]]:
        due_packets, self.pending = self.pending, []
        return due_packets


class Datagrams(Generic[P, V]):
    """All known datagrams, in the order in which they began."""

    def __init__(self) -> None:
        self._datagrams: dict[Hashable, Datagram[P, V]] = {}
        #: An upper bound of the number of kept fragments. An exact count takes long, so it is only made at the limit.
        self._held_at_most = 0

    def find(self, fragment: Fragment) -> Datagram[P, V] | None:
        return self._datagrams.get(fragment.datagram)

    def remember(self, fragment: Fragment, now: int) -> Datagram[P, V]:
        """Add the fragment to its datagram. If the datagram is not known yet, it begins now."""
        datagram = self._datagrams.setdefault(fragment.datagram, Datagram(now))
        datagram.fragments.add(fragment)
        self._held_at_most += 1
        return datagram

    def has_room(self, fragment: Fragment) -> bool:
        """Return whether the limits allow another fragment to be remembered."""
        if fragment.datagram not in self._datagrams and len(self._datagrams) >= FRAGMENT_DATAGRAMS:
            return False
        if self._held_at_most >= FRAGMENT_RANGES:
            self._held_at_most = sum(datagram.held for datagram in self._datagrams.values())
        return self._held_at_most < FRAGMENT_RANGES

    def forget(self, fragment: Fragment) -> None:
        del self._datagrams[fragment.datagram]

    def take_oldest(self) -> Datagram[P, V]:
        return self._datagrams.pop(next(iter(self._datagrams)))

    def take_over(self, now: int, packet: int) -> list[Datagram[P, V]]:
        """Remove and return the datagrams whose time is over before packet number ``packet``."""
        over = []
        for key, datagram in list(self._datagrams.items()):
            if not datagram.pending or packet - datagram.pending[0][0] <= FRAGMENT_PACKETS:
                continue
            over.append(self._datagrams.pop(key))
        while self._datagrams and now >= next(iter(self._datagrams.values())).began + FRAGMENT_SECONDS * 10**9:
            over.append(self.take_oldest())
        return over

    def take_waiting(self) -> list[Datagram[P, V]]:
        """Remove and return the datagrams with fragments that still wait for the first fragment."""
        keys = [key for key, datagram in self._datagrams.items() if datagram.pending]
        return [self._datagrams.pop(key) for key in keys]
