"""``--verdicts`` and ``--connections`` as Parquet, with the columns and types of ``row_schema``.

Rows are buffered until they fill a row group, so memory does not grow with the capture. If there is more than one
processor, a thread encodes a group while the next one is buffered. No Python object is created per packet.
This module needs pyarrow (``sgfast[arrow]``); importing it without pyarrow raises ImportError.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgfast.base import usable_processors
from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.questions.replaying import Names
from sgfast.rows import Table
from sgfast.rows.arrow import Array
from sgfast.rows.columns import Rows, Words, connection_columns, group_words, packet_columns
from sgfast.rows.row_schema import CONNECTION_ROWS, PACKET_ROWS, RowKind

Write = Callable[[bytes], object]

#: Rows per row group. A group takes 12 MB while it is buffered, and several times as much while it is encoded. The next
#: group is then buffered already.
GROUP_ROWS = 1 << 17


class _Stream(io.RawIOBase):
    """The file object that pyarrow writes to. It keeps bytes that are written within ``with``, until they are taken.

    A Parquet writer that is dropped before it is closed writes once more; these bytes must not reach the file.
    """

    def __init__(self) -> None:
        #: Bytes that were written and not yet taken.
        self.pieces: list[bytes] = []
        self._at = 0
        self._is_live = False

    def __enter__(self) -> Self:
        self._is_live = True
        return self

    def __exit__(self, *error: object) -> None:
        self._is_live = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._is_live:
            self.pieces.append(bytes(data))
            self._at += size
        return size

    def take(self) -> bytes:
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)


class _Table(ABC):
    """Buffer rows and write them to a file. ``dtypes``: dtypes of the parallel arrays that hold the rows."""

    def __init__(self, write: Write, kind: RowKind, dtypes: Sequence[np.dtype[Any]]) -> None:
        self._write = write
        self._stream = _Stream()
        self._kind = kind
        self._writer: Any = None
        self._thread = ThreadPoolExecutor(1) if usable_processors() > 1 else None
        #: The encoding of the last row group given to the thread. None after the group was written.
        self._encoding: Future[bytes] | None = None
        self._buffers = [np.zeros(GROUP_ROWS, dtype) for dtype in dtypes]
        self._count = 0
        self._before = 0        # number of packets before the buffered ones
        self._names = Names((), (), 0)
        self._words: tuple[Words, Words] | None = None

    def begin(self, names: Names) -> None:
        # Numbers in buffered rows keep their meaning (PacketSink).
        self._names = names
        self._words = None
        self._before = names.packets - self._count

    def close(self) -> None:
        """Write the buffered rows and the end of the Parquet file."""
        self._write_group()
        self._write_encoded()
        if self._thread is not None:
            self._thread.shutdown()
        with self._stream:
            self._writer.close()
        self._write(self._stream.take())

    def _keep(self, *arrays: Rows) -> None:
        for array, buffer in zip(arrays, self._buffers, strict=True):
            if array.dtype != buffer.dtype or array.shape != (len(arrays[0]),):
                raise ValueError("rows must be one-dimensional arrays of equal length, with the dtypes of rows")
        written = 0
        while written < len(arrays[0]):
            fit = min(GROUP_ROWS - self._count, len(arrays[0]) - written)
            for array, buffer in zip(arrays, self._buffers, strict=True):
                # Rows are copied as bytes, because NumPy would copy them field by field.
                rows = np.ascontiguousarray(array[written : written + fit])
                buffer[self._count : self._count + fit].view(np.uint8)[:] = rows.view(np.uint8)
            self._count += fit
            written += fit
            if self._count == GROUP_ROWS:
                self._write_group()

    def _write_group(self) -> None:
        batches = []
        if self._count:
            if self._words is None:
                self._words = Words(self._names.instances), Words(self._names.rules)
            batches.append(self._columns(*self._words, *(buffer[: self._count] for buffer in self._buffers)))
        table = pa.table(Table(self._kind.flat, self._count, lambda: batches))
        self._before += self._count
        self._count = 0
        self._write_encoded()
        if self._thread is not None:
            try:
                self._encoding = self._thread.submit(self._encode, table)
                return
            except RuntimeError:        # the system refuses a thread
                self._thread = None
        self._write(self._encode(table))

    def _write_encoded(self) -> None:
        # The thread only encodes. If it wrote to a pipe that nobody reads, an interrupt could not stop it.
        encoding, self._encoding = self._encoding, None
        if encoding is not None:
            self._write(encoding.result())

    def _encode(self, table: Any) -> bytes:
        with self._stream:
            if self._writer is None:
                # Times and counts rarely repeat, so they need no dictionary. Only these columns have statistics, the
                # least and the largest value of each row group. For texts and ports, statistics would take two fifths
                # of the encoding time, and be the same in nearly all groups.
                counted = (pa.timestamp("ns"), pa.int64())
                plain = [field.name for field in table.schema if field.type in counted]
                encoded = [field.name for field in table.schema if field.type not in counted]
                self._writer = pq.ParquetWriter(
                    self._stream, table.schema, use_dictionary=encoded, write_statistics=plain
                )
            if len(table):
                self._writer.write_table(table, row_group_size=GROUP_ROWS)
        return self._stream.take()

    @abstractmethod
    def _columns(self, instances: Words, rules: Words, *rows: Rows) -> list[Array]:
        """Return the columns of the rows in the order of the schema."""


class VerdictParquet(_Table):
    """A ``PacketSink`` that calls ``write`` with parts of a Parquet file, which ``close`` completes.

    Raises ValueError for arrays of another dtype or length and IndexError for numbers out of range.
    """

    def __init__(self, write: Write) -> None:
        super().__init__(write, PACKET_ROWS, (HEADER_DTYPE, RESULT_DTYPE))

    def write(self, headers: Rows, results: Rows) -> None:
        self._keep(headers, results)

    def _columns(self, instances: Words, rules: Words, *rows: Rows) -> list[Array]:
        headers, results = rows
        return packet_columns(headers, results, self._before + 1, instances, rules)


class ConnectionParquet(_Table):
    """A ``FlowSink`` that calls ``write`` with parts of a Parquet file, which ``close`` completes.

    Raises ValueError for an array of another dtype and IndexError for numbers out of range.
    """

    def __init__(self, write: Write) -> None:
        super().__init__(write, CONNECTION_ROWS, (FLOW_DTYPE,))
        self._groups: Words | None = None

    def begin(self, names: Names) -> None:
        super().begin(names)
        self._groups = None

    def write(self, flows: Rows) -> None:
        self._keep(flows)

    def _columns(self, instances: Words, rules: Words, *rows: Rows) -> list[Array]:
        (flows,) = rows
        if self._groups is None:
            self._groups = group_words(self._names.instances, self._names.groups)
        return connection_columns(flows, instances, self._groups, rules)
