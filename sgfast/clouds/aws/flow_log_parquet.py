"""AWS flow logs as Parquet, which S3 gets in one layout of folders or the other; the files are the same. Takes pyarrow.

The columns have the names of the fields, with ``_`` for ``-``. Numbers are INT32 or INT64, all other fields strings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import CaptureError, FlowLogError, SgfastError, pip_install
from sgfast.base.names import printable
from sgfast.base.streams.urls import is_url, open_url
from sgfast.clouds.aws.flow_log import LineReader, header
from sgfast.clouds.logs.columns import NS_PER_SECOND
from sgfast.clouds.logs.log import LONGEST_LINE, TOO_LONG, Log
from sgfast.clouds.logs.tokenizer import HANDLERS

#: Rows taken from Parquet at a time.
ROWS = 1 << 15
#: Bytes of text that rows become at a time.
TEXT_BYTES = 1 << 23
#: Bytes at the end of a file that have the names of its columns.
TAIL = 1 << 16


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
        with ParquetFile(source) as parquet:
            metadata, types = parquet.metadata, {field.name: field.type for field in parquet.schema_arrow}
        fields = {name.replace("_", "-"): name for name in types}
        header(log, "the file", list(fields))
        read_fields = [name for name in fields if name in HANDLERS or name == "tgw-attachment-id"]
        names = [fields[name] for name in read_fields]
        for name in names:
            if pa.types.is_nested(types[name]) or pa.types.is_fixed_size_binary(types[name]):
                raise FlowLogError(f"{log.name}: its column {printable(name)} has neither numbers nor texts")
        # pyarrow keeps equal texts of a column in memory only once if it reads the column as a dictionary.
        file = ParquetFile(source, metadata=metadata, read_dictionary=names)
    except CaptureError as error:
        raise FlowLogError(str(error)) from error
    except errors as error:
        raise FlowLogError(f"{log.name}: cannot be read as Parquet: {_cause(error)}") from error
    with file:
        reader = LineReader(log, read_fields, "row")
        row = 1
        size = 0 if is_url(log.path) else os.stat(log.path).st_size
        try:
            for batch in file.iter_batches(ROWS, columns=names):
                # The columns of a batch are in the order of the file, which is that of `wanted`.
                for begin, end, is_long in _pieces(batch.columns):
                    if is_long:
                        log.complain(row + begin, TOO_LONG, "row")
                        continue
                    piece = [column.slice(begin, end - begin).cast(pa.string()) for column in batch.columns]
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


def has_columns(file: Any) -> bool:
    """Return whether a Parquet file has the columns of a flow log. A damaged file counts as one, to be reported."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - TAIL, 0))
    tail = file.read(TAIL)
    return not tail.endswith(b"PAR1") or (b"srcaddr" in tail and b"dstaddr" in tail)


def first_start_ns(path: str, head: bytes) -> int | None:
    """Return the earliest start of a record from the file's statistics, or None if they lack it."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError:
        return None     # reported when the file is read
    if path == "-":
        return None
    with suppress(pa.ArrowException, OSError, ValueError, SgfastError), ExitStack() as stack:
        source: Any = path
        if is_url(path):
            source = open_url(path, at_any_place=True)
            stack.callback(source.close)
        metadata = stack.enter_context(ParquetFile(source)).metadata
        starts = []
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema == "start" and column.is_stats_set and column.statistics.has_min_max:
                    starts.append(column.statistics.min)
        if starts and all(isinstance(start, int) for start in starts):
            return int(min(starts)) * NS_PER_SECOND
    return None


def _pieces(columns: Sequence[Any]) -> Iterator[tuple[int, int, bool]]:
    """Yield the bounds of rows that become about TEXT_BYTES of text together. The third value is true for a single row
    that is too long.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    row_count = len(columns[0])
    columns = [column for column in columns if pa.types.is_dictionary(column.type)]
    text_lengths = [pc.fill_null(pc.binary_length(column.dictionary), 0) for column in columns]
    if row_count * sum(pc.max(lengths).as_py() or 0 for lengths in text_lengths) <= TEXT_BYTES:
        yield 0, row_count, False
        return
    value_lengths = [lengths.take(column.indices) for lengths, column in zip(text_lengths, columns, strict=True)]
    row_lengths = np.sum([np.asarray(pc.fill_null(lengths, 0), np.int64) for lengths in value_lengths], axis=0)
    is_long = row_lengths >= LONGEST_LINE
    # pyarrow reserves the mean length of a dictionary's texts for each row.
    reserved = sum(pc.sum(lengths).as_py() // len(lengths) for lengths in text_lengths if len(lengths))
    piece_of_row = np.cumsum(np.where(is_long, 0, np.maximum(row_lengths, reserved))) // TEXT_BYTES
    begins = np.flatnonzero((piece_of_row[1:] != piece_of_row[:-1]) | is_long[1:] | is_long[:-1]) + 1
    for begin, end in pairwise([0, *begins.tolist(), row_count]):
        yield begin, end, bool(is_long[begin])


def _cause(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])
