"""AWS flow logs as Parquet, which S3 gets in one layout of folders or the other; the files are the same. Takes pyarrow.

The columns have the names of the fields, with ``_`` for ``-``. Numbers are INT32 or INT64, all other fields strings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.capture.urls import is_url, open_url
from sgfast.errors import CaptureError, FlowLogError, pip_install
from sgfast.flow_logs.formats.aws import LineReader, header
from sgfast.flow_logs.formats.log import LONGEST_LINE, TOO_LONG, Log
from sgfast.flow_logs.formats.tokenizer import HANDLERS
from sgfast.system.names import printable

#: Rows taken from Parquet at a time.
ROWS = 1 << 15
#: Bytes of text that rows become at a time.
TEXT = 1 << 23


def read(log: Log) -> Iterator[NDArray[Any]]:
    """Read the file. Each row becomes a line of text, so that a record means the same in both forms."""
    if log.path == "-":
        raise FlowLogError(f"{log.name}: is Parquet, which cannot be read from a pipe: name the file instead of -")
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise FlowLogError(
            f"{log.name}: is Parquet, which takes the Python package pyarrow: {pip_install('arrow')}"
        ) from None
    # pyarrow decodes names as it needs them, so a damaged file may raise UnicodeDecodeError, too.
    errors = (pa.ArrowException, OSError, UnicodeDecodeError, ValueError)
    try:
        source = open_url(log.path, at_any_place=True) if is_url(log.path) else log.path
        with ParquetFile(source) as seen:
            metadata, types = seen.metadata, {field.name: field.type for field in seen.schema_arrow}
        fields = {name.replace("_", "-"): name for name in types}
        header(log, "the file", list(fields))
        wanted = [name for name in fields if name in HANDLERS or name == "tgw-attachment-id"]
        names = [fields[name] for name in wanted]
        for name in names:
            if pa.types.is_nested(types[name]) or pa.types.is_fixed_size_binary(types[name]):
                raise FlowLogError(f"{log.name}: its column {printable(name)} has neither numbers nor texts")
        # A text that stands in many rows is in memory once.
        file = ParquetFile(source, metadata=metadata, read_dictionary=names)
    except CaptureError as error:
        raise FlowLogError(str(error)) from error
    except errors as error:
        raise FlowLogError(f"{log.name}: cannot be read as Parquet: {_cause(error)}") from error
    with file:
        reader = LineReader(log, wanted, "row")
        row = 1
        size = 0 if is_url(log.path) else os.stat(log.path).st_size
        try:
            for batch in file.iter_batches(ROWS, columns=names):
                # The columns of a batch are in the order of the file, which is that of `wanted`.
                columns = [_without_long_texts(column) for column in batch.columns]
                lengths = np.sum([length for _, length, _ in columns], axis=0) + len(columns)
                for begin, end in _pieces(lengths, sum(room for _, _, room in columns)):
                    if lengths[begin] >= LONGEST_LINE:
                        log.complain(row + begin, TOO_LONG, "row")
                        continue
                    piece = [column.slice(begin, end - begin).cast(pa.string()) for column, _, _ in columns]
                    piece = [pc.fill_null(text, "-") if text.null_count else text for text in piece]
                    lines = pc.binary_join_element_wise(*piece, "\n", " ")
                    # A new array: its text begins with the first row and ends with the last one.
                    yield from reader.take(row + begin, memoryview(lines.buffers()[2]).cast("B"))
                row += len(batch)
                # The file may have more rows than it says.
                log.bytes_read = size * (row - 1) // max(metadata.num_rows, row - 1)
        except errors as error:
            log.damage = f"{log.name}: row {row}: cannot be read as Parquet: {_cause(error)}"
        yield from reader.rest()


def _without_long_texts(column: Any) -> tuple[Any, NDArray[np.int64], int]:
    """Return a column, the bytes that each value has as text, and those that pyarrow reserves for each.

    A missing value is the text ``-``. Texts that make their row too long by themselves are empty in the column.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
        return column, _filled(pc.binary_length(column)), 0
    lengths = pc.binary_length(column.dictionary)
    texts = pc.if_else(pc.less(lengths, LONGEST_LINE), column.dictionary, "")
    room = int(pc.sum(pc.binary_length(texts)).as_py() or 0) // max(len(texts), 1)
    return pa.DictionaryArray.from_arrays(column.indices, texts), _filled(lengths.take(column.indices)), room


def _filled(lengths: Any) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(lengths, 1), np.int64)


def _pieces(lengths: NDArray[np.int64], room: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of rows that take about TEXT bytes together. A row that is too long is alone.

    ``room``: the bytes that are reserved for a row, however long it is.
    """
    is_long = lengths >= LONGEST_LINE
    turns = np.cumsum(np.where(is_long, 0, np.maximum(lengths, room))) // TEXT
    begins = np.flatnonzero((turns[1:] != turns[:-1]) | is_long[1:] | is_long[:-1]) + 1
    yield from pairwise([0, *begins.tolist(), len(lengths)])


def _cause(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])
