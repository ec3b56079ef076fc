"""``--verdicts`` and ``--connections`` as Parquet, with the columns and types of ``row_schema``.

Rows are buffered until they fill a row group, so memory does not grow with the capture. No Python object is created per
packet. This module needs pyarrow (``sgfast[arrow]``); importing it without raises ImportError.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import NO_SIDE, REASONS, VERDICTS
from sgfast.policy.model import ICMP, ICMPV6
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import Names
from sgfast.report.row_schema import CONNECTION_ROWS, PACKET_ROWS, RowKind
from sgfast.report.rows import ANSWERS, ENDS, address_texts, dictionary_codes

Rows = NDArray[Any]
Where = NDArray[np.bool_]
Write = Callable[[bytes], object]

#: Rows per row group. They take 12 MB while they are buffered, and several times that while they are written.
GROUP_ROWS = 1 << 17

_TIME = pa.timestamp("ns", tz="UTC")
_ADDRESS = pa.string()
#: Arrow types by ``Type.parquet``.
_TYPES = {
    "timestamp, nanoseconds, UTC": _TIME,
    "string": _ADDRESS,
    "string, dictionary encoded": pa.dictionary(pa.int32(), pa.string()),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "int64": pa.int64(),
}


class _Words:
    """Maps the numbers in a column to words."""

    def __init__(self, words: Sequence[str | None]) -> None:
        # Two numbers may stand for the same word, such as a rule id used in two groups. The dictionary holds it once.
        places = {word: n for n, word in enumerate(dict.fromkeys(w for w in words if w is not None))}
        self._places = np.array([-1 if word is None else places[word] for word in words], np.int32)
        self._words = pa.array([w.encode("utf-8", "backslashreplace").decode() for w in places], pa.string())

    def column(self, numbers: Rows, there: Where | None = None) -> pa.Array:
        """Return a column that is null where a number is negative or stands for None, or ``there`` is false.

        Raises IndexError for a number out of range.
        """
        if there is None:
            there = np.ones(len(numbers), np.bool_)
        codes, valid, kept = dictionary_codes(
            numbers.astype(np.int32), there.view(np.uint8), self._places, len(self._words)
        )
        buffers = [pa.py_buffer(valid), pa.py_buffer(codes)]
        indices = pa.Array.from_buffers(pa.int32(), len(numbers), buffers)
        return pa.DictionaryArray.from_arrays(indices, self._words.take(pa.array(kept)))


_VERDICTS, _REASONS, _ANSWERS, _ENDS = map(_Words, (VERDICTS, REASONS, ANSWERS, ENDS))
_PROTOCOLS = _Words([protocol_name(number) or str(number) for number in range(256)])


def _numbers(values: Rows, there: Where | None = None) -> pa.Array:
    return pa.array(np.ascontiguousarray(values), mask=None if there is None else ~there)


def _times(values: Rows) -> pa.Array:
    return pa.Array.from_buffers(_TIME, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _addresses(values: Rows, families: Rows) -> pa.Array:
    families = np.ascontiguousarray(families)
    offsets, text = address_texts(np.ascontiguousarray(values), families)
    there = np.packbits(families > 0, bitorder="little")
    buffers = [pa.py_buffer(there), pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(_ADDRESS, len(values), buffers)


class _Stream(io.RawIOBase):
    """The file object that pyarrow writes to. It discards what is written outside of ``with``.

    A Parquet writer that is dropped before it is closed writes once more; that must not reach the file.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
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
            self._write(bytes(data))
            self._at += size
        return size


class _Table(ABC):
    """Buffers rows and writes them to a file. ``dtypes``: dtypes of the parallel arrays that hold the rows."""

    def __init__(self, write: Write, kind: RowKind, dtypes: Sequence[np.dtype[Any]]) -> None:
        self._stream = _Stream(write)
        self._schema = pa.schema([(column.name, _TYPES[column.type.parquet]) for column in kind.flat])
        self._writer: Any = None
        self._kept = [np.zeros(GROUP_ROWS, dtype) for dtype in dtypes]
        self._count = 0
        self._before = 0        # number of packets before the buffered ones
        self._names = Names((), (), 0)
        self._words: tuple[_Words, _Words] | None = None

    def begin(self, names: Names) -> None:
        # The numbers in buffered rows keep their meaning (PacketSink).
        self._names = names
        self._words = None
        self._before = names.packets - self._count

    def close(self) -> None:
        """Write the buffered rows and the end of the Parquet file."""
        self._write_group()
        with self._stream:
            self._writer.close()

    def _keep(self, *arrays: Rows) -> None:
        for array, kept in zip(arrays, self._kept, strict=True):
            if array.dtype != kept.dtype or array.shape != (len(arrays[0]),):
                raise ValueError("rows must be one-dimensional arrays of equal length, with the dtypes of rows")
        done = 0
        while done < len(arrays[0]):
            fit = min(GROUP_ROWS - self._count, len(arrays[0]) - done)
            for array, kept in zip(arrays, self._kept, strict=True):
                kept[self._count : self._count + fit] = array[done : done + fit]
            self._count += fit
            done += fit
            if self._count == GROUP_ROWS:
                self._write_group()

    def _write_group(self) -> None:
        table = None
        if self._count:
            if self._words is None:
                self._words = _Words(self._names.instances), _Words(self._names.rules)
            columns = self._columns(*self._words, *(kept[: self._count] for kept in self._kept))
            table = pa.Table.from_arrays(columns, schema=self._schema)
        with self._stream:
            if self._writer is None:
                # A dictionary does not help columns whose values rarely repeat.
                encoded = [field.name for field in self._schema if field.type not in (_TIME, pa.int64())]
                self._writer = pq.ParquetWriter(self._stream, self._schema, use_dictionary=encoded)
            if table is not None:
                self._writer.write_table(table, row_group_size=GROUP_ROWS)
        self._before += self._count
        self._count = 0

    @abstractmethod
    def _columns(self, instances: _Words, rules: _Words, *rows: Rows) -> list[pa.Array]:
        """Return the columns of the rows in the order of the schema."""


class VerdictParquet(_Table):
    """A ``PacketSink`` that calls ``write`` with parts of a Parquet file, which ``close`` completes.

    Raises ValueError for arrays of another dtype or length and IndexError for numbers out of range.
    """

    def __init__(self, write: Write) -> None:
        super().__init__(write, PACKET_ROWS, (HEADER_DTYPE, RESULT_DTYPE))

    def write(self, headers: Rows, results: Rows) -> None:
        self._keep(headers, results)

    def _columns(self, instances: _Words, rules: _Words, *rows: Rows) -> list[pa.Array]:
        headers, results = rows
        ports, icmp = headers["has_ports"] != 0, headers["has_icmp"] != 0
        columns = [
            _numbers(np.arange(self._before + 1, self._before + 1 + len(headers), dtype=np.int64)),
            _times(headers["time_ns"]),
            _addresses(headers["src"], headers["family"]),
            _addresses(headers["dst"], headers["family"]),
            _PROTOCOLS.column(headers["protocol"], headers["family"] != 0),
            _numbers(headers["sport"], ports),
            _numbers(headers["dport"], ports),
            _numbers(headers["icmp_type"], icmp),
            _numbers(headers["icmp_code"], icmp),
            _VERDICTS.column(results["verdict"]),
            _REASONS.column(results["reason"]),
        ]
        for side in (results["egress"], results["ingress"]):
            there = side["verdict"] != NO_SIDE
            columns += [
                instances.column(side["instance"], there), _VERDICTS.column(side["verdict"], there),
                _REASONS.column(side["reason"], there), rules.column(side["rule"], there),
            ]  # fmt: skip
        return columns


class ConnectionParquet(_Table):
    """A ``FlowSink`` that calls ``write`` with parts of a Parquet file, which ``close`` completes.

    Raises ValueError for an array of another dtype and IndexError for numbers out of range.
    """

    def __init__(self, write: Write) -> None:
        super().__init__(write, CONNECTION_ROWS, (FLOW_DTYPE,))

    def write(self, flows: Rows) -> None:
        self._keep(flows)

    def _columns(self, instances: _Words, rules: _Words, *rows: Rows) -> list[pa.Array]:
        (flows,) = rows
        ports = flows["has_ports"] != 0
        icmp = flows["protocol"] == np.where(flows["family"] == 4, ICMP, ICMPV6)
        columns = [
            _PROTOCOLS.column(flows["protocol"]),
            _addresses(flows["initiator"], flows["family"]),
            _numbers((flows["ports"] >> 16).astype(np.uint16), ports),
            _addresses(flows["responder"], flows["family"]),
            _numbers((flows["ports"] & 0xFFFF).astype(np.uint16), ports),
            _numbers((flows["icmp"] >> 8).astype(np.uint8), icmp),
            _numbers((flows["icmp"] & 0xFF).astype(np.uint8), icmp),
            _times(flows["first_ns"]),
            _times(flows["last_ns"]),
            *(_numbers(flows[name][:, end].astype(np.int64)) for name in ("packets", "bytes") for end in (0, 1)),
            _VERDICTS.column(flows["verdict"]),
            _REASONS.column(flows["reason"]),
            _ANSWERS.column(flows["answer"]),
        ]
        for end in (0, 1):
            there = flows["side_end"][:, end] != 0
            columns += [
                instances.column(flows["instance"][:, end], there), rules.column(flows["rule"][:, end], there),
                _ENDS.column(flows["side_end"][:, end], there),
            ]  # fmt: skip
        return columns
