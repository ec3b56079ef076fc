"""IP datagrams cut into fragments, for tests.

A piece is spelled by the bytes it has of what is cut, "8-24+" for those from 8 on and before 24; the plus says that
more are to come.
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
    """``before``, ``behind``: IPv6 extension headers before the fragment header, and behind it, in the first piece."""

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
        """What is cut."""
        if self.family == 4:
            return self.layer
        whole = f.ipv6(self.src, self.dst, self.layer, extensions=self.behind)
        return f.Layer(whole[40:], whole[6])

    def whole(self) -> f.Layer:
        """Not cut."""
        if self.family == 4:
            return f.ipv4(self.src, self.dst, self.layer, identification=self.identification)
        return f.ipv6(self.src, self.dst, self.layer, extensions=[*self.before, *self.behind])

    def piece(self, spelled: str, **options: Any) -> f.Layer:
        """As an IP packet. Beyond the end of the content are zeros. ``options`` are those of ``ipv4`` or ``ipv6``."""
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
    """All of ``size`` bytes, cut at these places."""
    ends = [0, *sorted(set(places) - {0, size}), size]
    return [f"{first}-{end}{'+' if end < size else ''}" for first, end in pairwise(ends)]
