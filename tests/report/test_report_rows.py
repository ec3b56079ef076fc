"""The columns of packet and connection rows: what is written, the schemas and the documents agree with one list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from test_report_lines import NAMES, random_flows, random_packets
from workshop import ROOT

from sgfast.report import schema
from sgfast.report.lines import ConnectionCsv, ConnectionLines, VerdictCsv, VerdictLines
from sgfast.report.row_documents import documents
from sgfast.rows.row_schema import CONNECTION_ROWS, PACKET_ROWS, SIDES, TYPES, Column, RowKind

ROW_KINDS = {"packets": PACKET_ROWS, "connections": CONNECTION_ROWS}
by_kind = pytest.mark.parametrize("kind", ROW_KINDS.values(), ids=ROW_KINDS)


def written(kind: RowKind, *writers: type) -> bytes:
    """By the writer of packets or of connections: rows in which everything comes up that can."""
    pieces: list[bytes] = []
    sink = writers[kind is CONNECTION_ROWS](pieces.append)
    sink.begin(NAMES)
    sink.write(*(random_packets(1, 2000) if kind is PACKET_ROWS else (random_flows(1, 2000),)))
    sink.close()
    return b"".join(pieces)


@cache
def lines_of(kind: RowKind) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in written(kind, VerdictLines, ConnectionLines).splitlines())


def values_of(kind: RowKind) -> Iterator[tuple[str, Column, list[Any]]]:
    """Each column of the lines, those of a side where there is one: a name, the column and its values."""
    lines = lines_of(kind)
    for column in kind.columns:
        yield column.name, column, [line[column.name] for line in lines]
    for side in SIDES:
        for column in kind.side:
            values = [line[side][column.name] for line in lines if line[side] is not None]
            yield f"{side}.{column.name}", column, values


# Written rows ---------------------------------------------------------------------------------------------------------


@by_kind
def test_json_lines_have_the_columns_in_order(kind: RowKind) -> None:
    for line in lines_of(kind):
        assert list(line) == [*(column.name for column in kind.columns), *SIDES]
        for side in SIDES:
            assert line[side] is None or list(line[side]) == [column.name for column in kind.side]


@by_kind
def test_csv_and_parquet_names_are_those_of_json_lines(kind: RowKind) -> None:
    head = written(kind, VerdictCsv, ConnectionCsv).splitlines()[0].decode()
    assert head.split(",") == list(kind.names) == [name for name, _, _ in values_of(kind)]


@by_kind
def test_values_are_null_and_words_are_where_the_schema_says_and_nowhere_else(kind: RowKind) -> None:
    for name, column, values in values_of(kind):
        assert (name, None in values) == (name, bool(column.null))
        if column.words:
            assert (name, {*values} - {None}) == (name, {*column.words})
    for side in SIDES:
        assert None in [line[side] for line in lines_of(kind)]


@by_kind
def test_names_are_there_once_and_every_column_says_what_it_means(kind: RowKind) -> None:
    assert len({*kind.names}) == len(kind.names)
    for column in kind.flat:
        assert column.type in TYPES
        assert column.meaning.endswith(".") and not column.null.endswith(".")
        assert bool(column.words) == (column.type.name == "word")


# The JSON Schemas ----------------------------------------------------------------------------------------------------


def is_valid(kind: RowKind, line: Any) -> bool:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema(kind.schema)).is_valid(line)


def full_line(kind: RowKind) -> dict[str, Any]:
    """One in which nothing is null that is not null for good reason: both sides are there."""
    return deepcopy(next(line for line in lines_of(kind) if all(line[side] for side in SIDES)))


def places(kind: RowKind, line: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Column]]:
    """Each column with the object that holds it."""
    yield from ((line, column) for column in kind.columns)
    for side in SIDES:
        yield from ((line[side], column) for column in kind.side)


@by_kind
def test_every_line_is_by_its_schema(kind: RowKind) -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema(kind.schema))
    assert all(validator.is_valid(line) for line in lines_of(kind)[:300])


@by_kind
def test_schema_takes_what_a_column_says_and_nothing_else(kind: RowKind) -> None:
    wrong: dict[str, list[Any]] = {
        "time": [1.5, "1.5", "1700000000"], "address": [1], "protocol": [256, -1, ""], "word": ["other", 1],
        "name": ["", 1], "rule": [1], "port": [65536, -1, "80"], "byte": [256, -1, "8"], "number": [0, "1"],
        "count": [-1, "1"], "text": [1],
    }  # fmt: skip
    line = full_line(kind)
    for where, column in places(kind, line):
        value = where.pop(column.name)
        assert not is_valid(kind, line), column.name
        where[column.name] = None
        assert (column.name, is_valid(kind, line)) == (column.name, bool(column.null))
        for other in wrong[column.type.name]:
            where[column.name] = other
            assert not is_valid(kind, line), (column.name, other)
        where[column.name] = value
    for side in SIDES:
        assert is_valid(kind, line | {side: None})
    for where in (line, *(line[side] for side in SIDES)):
        where["other"] = 1
        assert not is_valid(kind, line)
        del where["other"]
    assert is_valid(kind, line)


# Documents made from the columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", documents(), ids=str)
def test_document_is_up_to_date(path: Path) -> None:
    if not (ROOT / path).parent.is_dir():
        pytest.skip(f"no {path.parent} here")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text == documents()[path], "write it with `python -m sgfast.report.row_documents`"
