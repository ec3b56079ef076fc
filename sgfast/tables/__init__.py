"""Tables of packets and connections in memory, for pandas, polars, DuckDB and pyarrow (SPEC 14.9).

    arrays of rows --columns--> columns of row_schema --Table--> Arrow's PyCapsule interface (arrow)

Rows are converted only when a library reads the table, and then ``BATCH_ROWS`` rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import Engine
from sgfast.errors import ArgumentError
from sgfast.tables.arrow import Array
from sgfast.tables.arrow_table import BATCH_ROWS, Table
from sgfast.tables.columns import Rows, Words, connection_columns, numbers, packet_columns
from sgfast.tables.row_schema import CONNECTION_TABLE, PACKET_TABLE

__all__ = ["BATCH_ROWS", "PacketChunk", "Table", "connection_table", "packet_table", "table"]


@dataclass(frozen=True, slots=True)
class PacketChunk:
    """At most about ``BATCH_ROWS`` packets. ``files``, ``numbers``: as ``FrameBatch.fill_positions``; None: unknown."""

    headers: Rows
    results: Rows
    files: NDArray[np.int64] | None = None
    numbers: NDArray[np.int64] | None = None


def packet_table(
    chunks: Sequence[PacketChunk], instances: Sequence[str], rules: Sequence[str], files: Sequence[str] = (),
    first: int = 1,
) -> Table:  # fmt: skip
    """Return a table of the packets of all chunks. ``first``: the number of the first packet."""

    def batches() -> Iterator[list[Array]]:
        of_instances, of_rules, of_files = Words(instances), Words(rules), Words(files)
        at = first
        for chunk in chunks:
            count = len(chunk.headers)
            nothing = np.zeros(count, np.int64)
            places = nothing if chunk.files is None else chunk.files
            within = nothing if chunk.numbers is None else chunk.numbers
            yield [
                *packet_columns(chunk.headers, chunk.results, at, of_instances, of_rules),
                numbers(chunk.headers["wire"].astype(np.int64)),
                of_files.column(places - 1),
                numbers(within, within > 0),
            ]
            at += count

    return Table(PACKET_TABLE.columns, sum(len(chunk.headers) for chunk in chunks), batches)


def connection_table(chunks: Sequence[Rows], instances: Sequence[str], rules: Sequence[str]) -> Table:
    """Return a table of the connections of all chunks (FLOW_DTYPE). A chunk has at most about ``BATCH_ROWS`` rows."""

    def batches() -> Iterator[list[Array]]:
        of_instances, of_rules = Words(instances), Words(rules)
        for flows in chunks:
            first = flows["number"].astype(np.int64)
            yield [*connection_columns(flows, of_instances, of_rules), numbers(first, first > 0)]

    return Table(CONNECTION_TABLE.columns, sum(map(len, chunks)), batches)


def table(headers: NDArray[Any], results: NDArray[Any], engine: Engine, *, first: int = 1) -> Table:
    """Return packets that ``engine`` judged as a table, like the table of a replay's packets (SPEC 14.10).

    ``headers``, ``results``: the argument and the result of :meth:`Engine.process`, of equal length. ``first``: the
    number of the first packet. The table refers to the arrays and changes with them. Raises ArgumentError for other
    arrays.

    For example:

        packets = sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000, dport=80)
        for row in sgfast.table(packets, engine.process(packets), engine):
            print(row["time"], row["verdict"], row["ingress_rule"])
    """
    for rows, dtype, name in ((headers, HEADER_DTYPE, "headers"), (results, RESULT_DTYPE, "results")):
        if not isinstance(rows, np.ndarray) or rows.dtype != dtype or rows.ndim != 1:
            raise ArgumentError(f"{name} must be an array of one dimension, of the dtype that Engine.process has")
    if len(headers) != len(results):
        raise ArgumentError(f"headers and results must have equal lengths, not {len(headers)} and {len(results)}")
    chunks = [
        PacketChunk(headers[at : at + BATCH_ROWS], results[at : at + BATCH_ROWS])
        for at in range(0, len(headers), BATCH_ROWS)
    ]
    instances = [instance.name for instance in engine.instances]
    return packet_table(chunks, instances, [rule.id for rule in engine.rules], first=first)
