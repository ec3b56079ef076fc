"""Convert JSON lines to rows of a table (SPEC 10.8)."""

from __future__ import annotations

from typing import Any


def flattened(line: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Convert a JSON line's object to the columns of a table. A null value, or a value in a null side, becomes None."""
    flat: dict[str, Any] = {}
    for name in fields:
        outer, _, inner = name.partition(".")
        value = line[outer]
        flat[name] = value[inner] if inner and value is not None else value
    assert {name.partition(".")[0] for name in fields} == set(line)
    return flat


def texts(flat: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in flat.items()}


TIMES = ("time", "first_time", "last_time")


def typed(line: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Convert a JSON line's object to a table's row: times as nanoseconds, a protocol always as a word."""
    row = flattened(line, fields)
    for name in TIMES:
        if name in row:
            seconds, decimals = row[name].split(".")
            row[name] = int(seconds) * 10**9 + int(decimals) * (-1 if seconds.startswith("-") else 1)
    row["protocol"] = None if row["protocol"] is None else str(row["protocol"])
    return row


def rows_of(file: Any) -> list[dict[str, Any]]:
    """Return a Parquet file's rows, with times as nanoseconds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    for n, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            assert field.type == pa.timestamp("ns")
            table = table.set_column(n, field.name, table.column(n).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
