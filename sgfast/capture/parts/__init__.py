"""Find parts of a compressed file that can be decompressed each by itself, without decompressing them.

- ``xz``: blocks that give their sizes, as ``xz -T0`` and ``pixz`` write them. Each is a part.
- ``bgzip``: members of gzip that give their sizes. Some of them together are a part.
- ``zstd``: frames, as ``pzstd`` writes several. Small ones together are a part.

All sizes are claims. They are bounded, and ``decompress`` says whether a part was what they claim. The search ends
where something begins that is no part, or a part that is too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sgfast.capture.compression import Compression, uses_zlib_ng
from sgfast.capture.file_bytes import FileBytes, Output
from sgfast.capture.parts import bgzip, xz, zstd
from sgfast.capture.parts.part import Chunks, Part

__all__ = ["Chunks", "Part", "decompress", "find_parts"]


def find_parts(compression: Compression, file: FileBytes) -> Iterator[Part]:
    """The parts from the beginning of the file on, one behind the other."""
    if compression.name == "xz":
        return xz.find_blocks(file)
    if compression.name == "gzip" and uses_zlib_ng():
        return bgzip.find_members(file)
    if compression.name == "zstd":
        return zstd.find_frames(file)
    return iter(())


def decompress(
    part: Part, form: Compression, file: FileBytes, chunks: Chunks, is_stopped: Callable[[], bool]
) -> Sequence[Output] | None:
    """Return the output, or None if the part is not what it claims. Raises what decompressors raise."""
    if form.name == "gzip":
        return bgzip.decompress(part, file)
    make, _ = form.load()
    if form.name == "zstd":
        return zstd.decompress(part, make, form.step, file, chunks, is_stopped)
    return xz.decompress(part, make, file, is_stopped)
