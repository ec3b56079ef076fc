"""Read a file at any position, without moving the position at which others read it."""

from __future__ import annotations

import io
import os

#: Decompressed bytes.
Output = bytes | memoryview


class FileBytes:
    """A file that can be read at any position. The compressed data begins at ``base``."""

    def __init__(self, source: io.FileIO, base: int) -> None:
        # This reference keeps the file open until no thread uses this object any more.
        self._source = source
        self._base = base

    @classmethod
    def of(cls, source: object, bytes_read: int) -> FileBytes | None:
        """A file of which ``bytes_read`` compressed bytes have been read; None for what has no positions, as a pipe."""
        if not isinstance(source, io.FileIO):
            return None
        try:
            return cls(source, source.tell() - bytes_read)
        except OSError:         # a pipe
            return None

    def read(self, at: int, length: int) -> bytes:
        """Return the bytes there, which are fewer at the end of the file."""
        return os.pread(self._source.fileno(), length, self._base + at)

    def last(self, length: int) -> bytes:
        """Return the last bytes, which are fewer if the file is shorter."""
        start = max(os.fstat(self._source.fileno()).st_size - self._base - length, 0)
        return self.read(start, length)

    def ends_with(self, end: bytes) -> bool:
        return self.last(len(end)) == end
