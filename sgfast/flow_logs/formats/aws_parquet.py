"""AWS flow logs as Parquet, which S3 gets in one layout of folders or the other; the files are the same. Takes pyarrow.

The columns have the names of the fields, with ``_`` for ``-``. Numbers are INT32 or INT64, all other fields strings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from sgfast.capture.urls import is_url, open_url
from sgfast.errors import CaptureError, FlowLogError, pip_install
from sgfast.flow_logs.formats.aws import LineReader, header
from sgfast.flow_logs.formats.log import Log
from sgfast.flow_logs.formats.tokenizer import HANDLERS
from sgfast.system.names import printable

#: Rows taken from Parquet at a time.
ROWS = 1 << 15


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
        file = ParquetFile(source)
    except CaptureError as error:
        raise FlowLogError(str(error)) from error
    except errors as error:
        raise FlowLogError(f"{log.name}: cannot be read as Parquet: {_cause(error)}") from error
    with file:
        fields = {name.replace("_", "-"): name for name in file.schema_arrow.names}
        header(log, "the file", list(fields))
        wanted = [name for name in fields if name in HANDLERS or name == "tgw-attachment-id"]
        reader = LineReader(log, wanted, "row")
        row = 1
        size = 0 if is_url(log.path) else os.stat(log.path).st_size
        try:
            for batch in file.iter_batches(ROWS, columns=[fields[name] for name in wanted]):
                # The columns of a batch are in the order of the file, which is that of `wanted`.
                texts = [column.cast(pa.string()) for column in batch.columns]
                texts = [pc.fill_null(text, "-") if text.null_count else text for text in texts]
                lines = pc.binary_join_element_wise(*texts, "\n", " ")
                # A new array: its text begins with the first row and ends with the last one.
                yield from reader.take(row, memoryview(lines.buffers()[2]).cast("B"))
                row += len(batch)
                log.bytes_read = size * (row - 1) // file.metadata.num_rows
        except errors as error:
            log.damage = f"{log.name}: row {row}: cannot be read as Parquet: {_cause(error)}"
        yield from reader.rest()


def _cause(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])
