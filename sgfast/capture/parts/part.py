"""Definitions that the modules for the formats share: parts, where the reader cuts, and limits."""

from __future__ import annotations

from typing import NamedTuple

#: Most bytes that a block or a frame may become, and the largest window that it may want.
MOST_OUTPUT = 64 * 1024 * 1024
#: A part is as many members or frames as make this many bytes when they are decompressed.
PART = 1024 * 1024
#: The search ends when it has found more small blocks, members or frames than this. Each of them takes a decompressor
#: of its own. In most files, only the last one is small.
MOST_SMALL = 100


class Part(NamedTuple):
    """A block and what ends its stream if it is the last one; or some members or frames."""

    start: int
    #: The end of each stream in it: of the block, of the members, or of the frames that hold data.
    ends: tuple[int, ...]
    end: int
    #: The most bytes that it becomes.
    output: int
    #: Bytes of its window.
    window: int
    #: Whether it ends its stream: another member may begin behind it.
    ends_member: bool
    #: The bytes before and after a block that make it a stream.
    before: bytes = b""
    after: bytes = b""

    @property
    def memory(self) -> int:
        """Bytes that it takes while it is decompressed: output, window, and what is read and copied."""
        return self.output + self.window + 2 * (self.end - self.start)


class Chunks(NamedTuple):
    """The chunks in which the reader reads a file: ``size`` bytes each. One ends where the first ``head`` bytes end."""

    size: int
    head: int

    def end(self, at: int) -> int:
        """End of the chunk that ``at`` is in."""
        if at < self.head:
            return min(self.head, at - at % self.size + self.size)
        return at - (at - self.head) % self.size + self.size
