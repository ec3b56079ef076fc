"""Members of gzip that give their sizes, as ``bgzip`` writes them.

Section 4.1 of https://samtools.github.io/hts-specs/SAMv1.pdf describes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sgfast.capture.file_bytes import FileBytes
from sgfast.capture.gzip_files import inflate
from sgfast.capture.parts.part import MOST_SMALL, PART, Part

#: The beginning of a member. The next two bytes are the size of the whole member, less one.
_HEADER = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"
#: The largest size of a decompressed member, in bytes. bgzip itself makes members of 65,280 bytes.
_MEMBER = 64 * 1024
_SMALL_MEMBER = 32 * 1024
#: The most bytes that a member takes in a file.
MOST_BYTES = 1 << 16
#: The beginning of a member, whichever program wrote it.
_ANY_HEADER = re.compile(rb"\x1f\x8b\x08\x04.{6}\x06\0BC\x02\0(..)", re.DOTALL)


def find_members(file: FileBytes) -> Iterator[Part]:
    # bgzip writes an empty member at the end of a file. The search ends there. A Decompressor counts empty members.
    at = output = small = 0
    start, ends = 0, list[int]()
    while True:
        header = file.read(at, len(_HEADER) + 2)
        end = at + int.from_bytes(header[-2:], "little") + 1
        size = int.from_bytes(file.read(end - 4, 4), "little") if header[:-2] == _HEADER else 0
        small += size < _SMALL_MEMBER
        is_member = 0 < size <= _MEMBER and small <= MOST_SMALL and end - at > len(header)
        if ends and (not is_member or output >= PART):
            yield Part(start, tuple(ends), at, output, 0, ends_member=True)
            start, ends, output = at, [], 0
        if not is_member:
            return
        ends.append(end)
        output += size
        at = end


def decompress(part: Part, file: FileBytes) -> list[memoryview] | None:
    """Return the output of a part, or None if it is not what it claims."""
    output = inflate(file.read(part.start, part.end - part.start), len(part.ends), part.output)
    return None if output is None else [output]


def lacks_end(last: bytes) -> bool:
    """Whether a gzip file with these last bytes ends with such a member that is not empty.

    An empty one ends a whole file. ``last``: MOST_BYTES of them, or all.
    """
    sizes = ((found.start(), int.from_bytes(found[1], "little") + 1) for found in _ANY_HEADER.finditer(last))
    return any(start + size == len(last) for start, size in sizes) and any(last[-4:])
