"""Files of rows that shards write, each row with a packet's ``number``, and the merging of these files by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sgfast.base.errors import ClusterError
from sgfast.questions.replaying.cluster.storage import Folder, checksum
from sgfast.questions.replaying.results import Rows

#: The number of rows sorted at a time, and the number of rows read at a time.
RUN_ROWS = 1 << 20
BLOCK_ROWS = 4096

#: A block of a file: its run, the number of its rows, their position in bytes, and their checksum.
_BLOCK_DTYPE = np.dtype([("run", "<u4"), ("count", "<u4"), ("offset", "<u8"), ("checksum", "<u4")])


@dataclass(frozen=True, slots=True)
class RowsFile:
    """A file with rows of one shard, in one or several runs. The rows of each run are sorted by number."""

    name: str
    dtype: np.dtype[Any]
    blocks: Rows


class RowsWriter:
    """Write a file of rows, either with ``write``, for rows in order, or with ``add``, which sorts rows.

    A context manager that removes the file unless ``close`` was called.
    """

    def __init__(self, folder: Folder, name: str, dtype: np.dtype[Any]) -> None:
        self._name, self._dtype = name, dtype
        self._writer = folder.writer(name)
        self._closed = False
        self._blocks: list[tuple[int, int, int, int]] = []
        self._unsorted: list[Rows] = []
        self._count = self._run = 0

    def write(self, rows: Rows) -> None:
        for at in range(0, len(rows), BLOCK_ROWS):
            block = rows[at : at + BLOCK_ROWS]
            data = as_bytes([block])
            self._blocks.append((self._run, len(block), self._writer.write(data), checksum(data)))

    def add(self, rows: Rows) -> None:
        if len(rows):
            self._unsorted.append(rows)
            self._count += len(rows)
        if self._count >= RUN_ROWS:
            self._end_run()

    def _end_run(self) -> None:
        if self._unsorted:
            rows = np.concatenate(self._unsorted)
            self.write(rows[np.argsort(rows["number"], kind="stable")])
            self._unsorted, self._count = [], 0
            self._run += 1

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if not self._closed:
            self._closed = True
            self._writer.discard()

    def close(self) -> RowsFile:
        self._end_run()
        self._closed = True
        self._writer.publish()
        return RowsFile(self._name, self._dtype, np.array(self._blocks, dtype=_BLOCK_DTYPE))


class MergedRows:
    """Read the rows of several files, sorted by their numbers."""

    def __init__(self, folder: Folder, files: Sequence[RowsFile]) -> None:
        self._cursors = [
            _Cursor(folder, file, run) for file in files for run in np.unique(file.blocks["run"]).tolist()
        ]

    def until(self, number: int) -> list[Rows]:
        """Take the rows not read yet with numbers below ``number``, from each run."""
        return [rows for cursor in self._cursors for rows in cursor.until(number)]

    def all(self, at_once: int) -> Iterator[Rows]:
        """Take all rows in order, in portions that cover ``at_once`` numbers each."""
        while firsts := [number for cursor in self._cursors if (number := cursor.next) is not None]:
            rows = np.concatenate(self.until(min(firsts) + at_once))
            yield rows[np.argsort(rows["number"], kind="stable")]


class _Cursor:
    """Read the rows of one run."""

    def __init__(self, folder: Folder, file: RowsFile, run: int) -> None:
        self._folder, self._file = folder, file
        self._blocks = file.blocks[file.blocks["run"] == run]
        self._at = 0
        self._rows = np.empty(0, dtype=file.dtype)

    @property
    def next(self) -> int | None:
        """The number of the next row; None at the end."""
        if not len(self._rows):
            self._load()
        return int(self._rows["number"][0]) if len(self._rows) else None

    def until(self, number: int) -> Iterator[Rows]:
        while (first := self.next) is not None and first < number:
            end = int(np.searchsorted(self._rows["number"], number))
            rows, self._rows = self._rows[:end], self._rows[end:]
            yield rows

    def _load(self) -> None:
        if self._at == len(self._blocks):
            return
        block = self._blocks[self._at]
        self._at += 1
        size = int(block["count"]) * self._file.dtype.itemsize
        data = self._folder.read(self._file.name, int(block["offset"]), size)
        if checksum(data) != block["checksum"]:
            raise ClusterError(f"{self._folder.damaged(self._file.name)}; run the replay again")
        self._rows = np.frombuffer(data, dtype=self._file.dtype)


def as_bytes(rows: Sequence[Rows]) -> bytes:
    return b"".join(np.ascontiguousarray(block).tobytes() for block in rows)
