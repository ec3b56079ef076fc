"""A table of rows that other libraries read by Arrow's PyCapsule interface (SPEC 14.9)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import TableError
from sgfast.base.notebook import SHOWN_ROWS, html_table
from sgfast.rows.arrow import Array, Field, schema_capsule, stream_capsule
from sgfast.rows.row_schema import TIME, Column

#: Number of rows that are converted to columns at once.
BATCH_ROWS = 1 << 17

_TIME, _TEXT, _BOOLEAN = b"tsn:", b"u", b"b"
#: By ``Type.parquet``: Arrow's format of the values, and whether they are dictionary encoded.
_FORMATS = {
    TIME.parquet: (_TIME, False),
    "boolean": (_BOOLEAN, False),
    "string": (_TEXT, False),
    "string, dictionary encoded": (_TEXT, True),
    "uint8": (b"C", False),
    "uint16": (b"S", False),
    "int64": (b"l", False),
}
_DTYPES = {_TIME: "datetime64[ns]", b"C": "u1", b"S": "<u2", b"l": "<i8"}

Batches = Callable[[], Iterable[Sequence[Array]]]


class Table:
    """Rows in columns. Give it to ``polars.DataFrame``, ``pyarrow.table`` or a DuckDB query, or call ``to_pandas``.

    Iterating over the table yields a dictionary for each row, which suits small tables. A time is a
    ``numpy.datetime64``, in UTC. ``len`` is the number of rows.

    ``columns``: the names of the columns.

    For example:

        denied = sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap").tables.denied
        print(len(denied), denied.columns)
        for row in denied:
            print(row["source"], row["destination"], row["packets"])
    """

    def __init__(self, columns: Sequence[Column], length: int, batches: Batches) -> None:
        """``batches``: each call returns the columns of all rows, some rows at a time."""
        self.columns: tuple[str, ...] = tuple(column.name for column in columns)
        self._fields = [Field(column.name, *_FORMATS[column.type.parquet]) for column in columns]
        self._length = length
        self._batches = batches

    def __len__(self) -> int:
        return self._length

    def __arrow_c_schema__(self) -> object:
        """Return the schema as a capsule named ``arrow_schema``."""
        return schema_capsule(self._fields)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as a capsule named ``arrow_array_stream``. Consumers convert types themselves."""
        return stream_capsule(self._fields, self._batches())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self._rows())

    def _rows(self, most: int = sys.maxsize) -> Iterator[tuple[Any, ...]]:
        """Yield the rows, at most ``most`` of each batch."""
        for batch in self._batches():
            columns = [_values(field, array, most) for field, array in zip(self._fields, batch, strict=True)]
            yield from zip(*columns, strict=True)

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``. Columns of integers keep their type if values are missing (``UInt16``, ...).

        Raises TableError without pandas and pyarrow.
        """
        try:
            import pandas
            import pyarrow
        except ImportError:
            raise TableError("to_pandas needs pandas and pyarrow: pip install pandas pyarrow") from None
        kinds = {
            pyarrow.uint8(): pandas.UInt8Dtype(), pyarrow.uint16(): pandas.UInt16Dtype(),
            pyarrow.int64(): pandas.Int64Dtype(),
        }  # fmt: skip
        return pyarrow.table(self).to_pandas(types_mapper=kinds.get)

    def to_polars(self) -> Any:
        """Return a ``polars.DataFrame``. Raises TableError without polars."""
        try:
            import polars
        except ImportError:
            raise TableError("to_polars needs polars: pip install polars") from None
        return polars.DataFrame(self)

    def __repr__(self) -> str:
        rows = "1 row" if self._length == 1 else f"{self._length:,} rows"
        return f"<Table of {rows}: {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        return html_table(self.columns, islice(self._rows(SHOWN_ROWS), SHOWN_ROWS), self._length)


def _values(field: Field, array: Array, most: int) -> list[Any]:
    valid_bits, *buffers = array.buffers
    count = min(array.length, most)
    if field.encoded:
        assert array.dictionary is not None
        words = _values(Field("", field.format, False), array.dictionary, array.dictionary.length)
        values = [words[code] if words else None for code in np.frombuffer(buffers[0], np.int32)[:count].tolist()]
    elif field.format == _TEXT:
        ends = np.frombuffer(buffers[0], np.int32)[: count + 1].tolist()
        text = bytes(buffers[1][: ends[-1]])
        values = [text[start:end].decode() for start, end in pairwise(ends)]
    elif field.format == _BOOLEAN:
        values = _bits(buffers[0], count).astype(bool).tolist()
    else:
        numbers = np.frombuffer(buffers[0], _DTYPES[field.format])[:count]
        values = [*numbers] if field.format == _TIME else numbers.tolist()
    if valid_bits is not None:
        values = [value if bit else None for value, bit in zip(values, _bits(valid_bits, count).tolist(), strict=True)]
    return values


def _bits(bitmap: Any, count: int) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=count, bitorder="little")
