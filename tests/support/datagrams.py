"""IP datagrams cut into fragments, for tests.

A piece is written as its range of bytes: "8-24+" means the bytes from 8 on and before 24. The plus means that more
fragments follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import frames as f

Extensions = Sequence[tuple[int, bytes]]


@dataclass(frozen=True)
class Datagram:
    """A datagram to cut. ``before``: IPv6 extension headers before the fragment header; ``behind``: those after it, in
    the first piece.
    """

    src: str
    dst: str
    layer: f.Layer
    identification: int = 7
    before: Extensions = ()
    behind: Extensions = ()

    @property
    def family(self) -> int:
        return 6 if ":" in self.src else 4

    @property
    def content(self) -> f.Layer:
        """Return the bytes that are cut."""
        if self.family == 4:
            return self.layer
        whole = f.ipv6(self.src, self.dst, self.layer, extensions=self.behind)
        return f.Layer(whole[40:], whole[6])

    def whole(self) -> f.Layer:
        """Return the datagram in one piece."""
        if self.family == 4:
            return f.ipv4(self.src, self.dst, self.layer, identification=self.identification)
        return f.ipv6(self.src, self.dst, self.layer, extensions=[*self.before, *self.behind])

    def piece(self, spelled: str, **options: Any) -> f.Layer:
        """Return a piece as an IP packet. Bytes after the content are zero. ``options`` are those of ``ipv4`` or
        ``ipv6``."""
        first, end = map(int, spelled.rstrip("+").split("-"))
        more = spelled.endswith("+")
        content = self.content
        assert first % 8 == 0
        part = f.Layer((content[first:end]).ljust(end - first, b"\0"), content.protocol)
        if self.family == 4:
            return f.ipv4(
                self.src, self.dst, part, fragment_offset=first // 8, more_fragments=more,
                identification=self.identification, **options,
            )  # fmt: skip
        header = f.fragment(first // 8, more, self.identification)
        return f.ipv6(self.src, self.dst, part, extensions=[*self.before, header], **options)

    def pieces(self, spelled: str) -> list[f.Layer]:
        return [self.piece(word) for word in spelled.split()]


def cut(size: int, *places: int) -> list[str]:
    """Cut ``size`` bytes at these places, and return the pieces."""
    ends = [0, *sorted(set(places) - {0, size}), size]
    return [f"{first}-{end}{'+' if end < size else ''}" for first, end in pairwise(ends)]

#: The words of verdicts, by letter.
ANSWERS = {"A": "allow rule", "E": "allow established", "P": "pending", "F": "deny fragment", "M": "deny malformed"}

#: For datagrams of 64 bytes: the pieces, each piece's immediate verdict, and each piece's final verdict.
HAZARDS = {
    "in order": ("0-24+ 24-48+ 48-64", "AAA", "AAA"),
    "reversed": ("48-64 24-48+ 0-24+", "PPA", "AAA"),
    "first in the middle": ("24-48+ 0-24+ 48-64", "PAA", "AAA"),
    "first comes last of three": ("24-48+ 48-64 0-24+", "PPA", "AAA"),
    "no first": ("24-48+ 48-64", "PP", "FF"),
    "no last": ("0-24+ 24-48+", "AA", "AA"),
    "hole in the middle": ("48-64 0-24+", "PA", "AA"),
    "duplicate of the first": ("0-24+ 0-24+ 24-64", "AAA", "AAA"),
    "duplicate of a pending one": ("24-64 24-64 0-24+", "PPA", "AAA"),
    "duplicate of a later one": ("0-24+ 24-48+ 24-48+ 48-64", "AAAA", "AAAA"),
    "duplicate after the end begins anew": ("0-24+ 24-64 24-64", "AAP", "AAF"),
    "datagram after datagram": ("0-24+ 24-64 24-64 0-24+", "AAPE", "AAEE"),
    "overlap": ("0-24+ 16-48+ 48-64", "AFF", "AFF"),
    "overlap of a single unit at the end": ("24-48+ 40-64 0-24+", "PFF", "FFF"),
    "overlap of a single byte": ("0-24+ 32-61 24-40+", "AAF", "AAF"),
    "first overlaps": ("16-64 0-24+", "PF", "FF"),
    "inside another": ("8-48+ 16-24+ 0-8+ 48-64", "PFFF", "FFFF"),
    "around another": ("16-24+ 8-48+", "PF", "FF"),
    "same beginning, shorter": ("0-24+ 0-16+ 16-64", "AFF", "AFF"),
    "same part, but the last": ("24-48+ 24-48 0-24+", "PFF", "FFF"),
    "same part, but not the last": ("24-48 24-48+ 0-24+", "PFF", "FFF"),
    "neighbours are no overlap": ("16-24+ 8-16+ 24-64 0-8+", "PPPA", "AAAA"),
    "behind an odd end, in the same unit": ("24-61 24-64+ 0-24+", "PFF", "FFF"),
    "last one ends before another's end": ("0-24+ 48-56+ 24-32", "AAF", "AAF"),
    "another one behind the last": ("0-16+ 24-32 40-48+", "AAF", "AAF"),
    "two last ones": ("0-16+ 24-32 40-48", "AAF", "AAF"),
    "spoiled even for what fits": ("0-24+ 16-40+ 24-64 0-24+ 48-64", "AFFFF", "AFFFF"),
    "last one alone": ("56-64", "P", "F"),
    "last one of odd length": ("0-24+ 24-61", "AA", "AA"),
    "odd length and more to come": ("0-24+ 24-43+ 24-64", "AMA", "AMA"),
    "malformed ones are no part": ("24-31+ 0-24+ 24-64", "MAA", "MAA"),
    "first of odd length": ("24-64 0-20+ 0-24+", "PMA", "AMA"),
    "empty": ("0-24+ 24-24+ 24-64", "AMA", "AMA"),
    "empty last one": ("0-24+ 24-24 24-64", "AMA", "AMA"),
    "empty first one": ("0-0+ 24-64 0-24+", "MPA", "MAA"),
}  # fmt: skip
