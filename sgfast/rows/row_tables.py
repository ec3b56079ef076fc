"""Make tables of the packets and connections that engines and replays keep as arrays (SPEC 14.9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgfast.rows.arrow import Array
from sgfast.rows.arrow_table import BATCH_ROWS, Table
from sgfast.rows.columns import (
    Rows,
    Words,
    connection_columns,
    group_words,
    numbers,
    packet_columns,
    remembered_columns,
)
from sgfast.rows.row_schema import CONNECTION_TABLE, PACKET_TABLE, REMEMBERED_TABLE


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


def connection_table(
    chunks: Sequence[Rows], instances: Sequence[str], groups: Sequence[Sequence[str]], rules: Sequence[str]
) -> Table:
    """Return a table of the connections of all chunks (FLOW_DTYPE). A chunk has at most about ``BATCH_ROWS`` rows.
    ``groups``: those of each instance.
    """

    def batches() -> Iterator[list[Array]]:
        of_instances, of_groups, of_rules = Words(instances), group_words(instances, groups), Words(rules)
        for flows in chunks:
            first = flows["number"].astype(np.int64)
            yield [*connection_columns(flows, of_instances, of_groups, of_rules), numbers(first, first > 0)]

    return Table(CONNECTION_TABLE.columns, sum(map(len, chunks)), batches)


def remembered_table(rows: Rows, instances: Sequence[str], rules: Sequence[str]) -> Table:
    """Return a table of the connections that an engine remembers (REMEMBERED_DTYPE)."""

    def batches() -> Iterator[list[Array]]:
        of_instances, of_rules = Words(instances), Words(rules)
        for at in range(0, len(rows), BATCH_ROWS):
            yield remembered_columns(rows[at : at + BATCH_ROWS], of_instances, of_rules)

    return Table(REMEMBERED_TABLE.columns, len(rows), batches)
