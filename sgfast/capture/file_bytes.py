"""Files that threads read anywhere, while their position stays where it is."""

from __future__ import annotations

import io
import os

#: Decompressed bytes.
Output = bytes | memoryview


class FileBytes:
    """A file that can be read anywhere. ``base`` is where the compressed data begins in it."""

    def __init__(self, source: io.FileIO, base: int) -> None:
        # As long as a thread reads from it, it stays open.
        self._source = source
        self._base = base

    @classmethod
    def of(cls, source: object, bytes_read: int) -> FileBytes | None:
        """The file from which ``bytes_read`` compressed bytes have been read; None if it cannot be read anywhere."""
        if not isinstance(source, io.FileIO):
            return None
        try:
            return cls(source, source.tell() - bytes_read)
        except OSError:         # a pipe
            return None

    def read(self, at: int, length: int) -> bytes:
        """Return the bytes there, which are fewer at the end of the file."""
        return os.pread(self._source.fileno(), length, self._base + at)

    def ends_with(self, end: bytes) -> bool:
        size = os.fstat(self._source.fileno()).st_size - self._base
        return size >= len(end) and self.read(size - len(end), len(end)) == end
