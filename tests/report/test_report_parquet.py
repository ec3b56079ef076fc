"""Parquet tables say what the JSON lines say, with types of their own, and take no memory for each packet
(SPEC 10.8).
"""

from __future__ import annotations

import gc
import io
import json
import threading
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from effort import some
from tables import TIMES, rows_of, typed
from test_report_csv import AWKWARD
from test_report_lines import NAMES, peak_bytes, places, random_flows, random_packets

from sgfast.questions.replaying import Names
from sgfast.report.lines import ConnectionLines, VerdictLines
from sgfast.rows.row_schema import CONNECTION_ROWS, PACKET_ROWS, TIME, RowKind
from sgfast.rows.text_columns import address_texts, dictionary_codes

pa = pytest.importorskip("pyarrow", reason="no pyarrow here")
pq = pytest.importorskip("pyarrow.parquet", reason="no pyarrow here")

from sgfast.report import parquet  # noqa: E402
from sgfast.report.parquet import ConnectionParquet, VerdictParquet  # noqa: E402


def written(kind: type, names: Names, *pieces: tuple[Any, ...]) -> io.BytesIO:
    file = io.BytesIO()
    sink = kind(file.write)
    sink.begin(names)
    for piece in pieces:
        sink.write(*piece)
    sink.close()
    file.seek(0)
    return file


def lines_of(kind: type, names: Names, *pieces: tuple[Any, ...]) -> list[dict[str, Any]]:
    lines: list[bytes] = []
    sink = kind(lines.append)
    sink.begin(names)
    for piece in pieces:
        sink.write(*piece)
    return [json.loads(line) for line in b"".join(lines).splitlines()]


@pytest.mark.parametrize("seed", range(some(3, 10)))
@pytest.mark.parametrize("group", [1, 7, 1000])
def test_parquet_says_what_json_says(monkeypatch: pytest.MonkeyPatch, seed: int, group: int) -> None:
    print(f"seed {seed}")
    monkeypatch.setattr(parquet, "usable_processors", lambda: 1 + seed % 2)
    monkeypatch.setattr(parquet, "GROUP_ROWS", group)
    packets = [random_packets(seed * 1000 + n, n) for n in (1, 50, 0, 100)]
    flows = [(random_flows(seed * 1000 + n, n),) for n in (1, 50, 0, 64)]
    for (piece,) in flows:
        # Counters fit in 63 bits: no capture has more bytes.
        piece["bytes"] >>= 1
        piece["packets"] >>= 1
    for kind, other, fields, pieces in (
        (VerdictParquet, VerdictLines, PACKET_ROWS.names, packets),
        (ConnectionParquet, ConnectionLines, CONNECTION_ROWS.names, flows),
    ):
        file = written(kind, NAMES, *pieces)
        expected = [typed(line, fields) for line in lines_of(other, NAMES, *pieces)]
        assert rows_of(file) == expected
        assert pq.ParquetFile(file).num_row_groups == -(-len(expected) // group)


@pytest.mark.parametrize(
    ("kind", "rows", "written_as"),
    [
        (PACKET_ROWS, random_packets(1, 10), VerdictParquet),
        (CONNECTION_ROWS, (random_flows(1, 10),), ConnectionParquet),
    ],
    ids=["packets", "connections"],
)
def test_columns_have_the_types_of_the_schema(kind: RowKind, rows: tuple[Any, ...], written_as: type) -> None:
    names = {
        TIME.parquet: "timestamp[ns]",
        "string, dictionary encoded": "dictionary<values=string, indices=int32, ordered=0>",
    }
    expected = [(column.name, names.get(column.type.parquet, column.type.parquet)) for column in kind.flat]
    schema = pq.read_schema(written(written_as, NAMES, rows))
    assert [(field.name, str(field.type)) for field in schema] == expected


def test_duckdb_reads_it(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="no duckdb here")
    packets = random_packets(3, 500)
    path = tmp_path / "verdicts.parquet"
    path.write_bytes(written(VerdictParquet, NAMES, packets).getvalue())
    lines = [typed(line, PACKET_ROWS.names) for line in lines_of(VerdictLines, NAMES, packets)]
    columns = ", ".join(f'epoch_ns("{name}")' if name in TIMES else f'"{name}"' for name in PACKET_ROWS.names)
    database = duckdb.connect()
    found = database.execute(f"select {columns} from '{path}' order by packet").fetchall()
    assert found == [tuple(line.values()) for line in lines]
    denied = database.execute(f"select count(*) from '{path}' where verdict = 'deny'").fetchall()
    assert denied == [(sum(line["verdict"] == "deny" for line in lines),)]


@pytest.mark.parametrize(
    "names", [AWKWARD, Names(("a", "a", "b", "a"), ("r", "s", "r", "r"), 0)], ids=["awkward", "of one name"]
)
def test_names_are_kept_and_two_numbers_of_one_name_are_one_word(names: Names) -> None:
    # A rule id may be used again in another group; a dictionary that holds it twice misleads readers.
    count = min(len(names.instances), len(names.rules))
    flows = np.repeat(random_flows(1, 1), count)
    flows["instance"] = flows["rule"] = np.arange(count)[:, None]
    flows["side_end"], flows["bytes"], flows["packets"] = 1, 0, 0
    rows = rows_of(written(ConnectionParquet, names, (flows,)))
    assert [row["egress.instance"] for row in rows] == list(names.instances[:count])
    assert [row["ingress.rule"] for row in rows] == list(names.rules[:count])
    groups = [", ".join(own) for own in names.groups[:count]] or [None] * count
    assert [row["ingress.groups"] for row in rows] == groups + [None] * (count - len(groups))


def test_groups_are_those_of_the_last_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1)
    file = io.BytesIO()
    sink = ConnectionParquet(file.write)
    flows = random_flows(1, 1)
    flows["instance"], flows["side_end"], flows["bytes"], flows["packets"] = (0, 1), 1, 0, 0
    for groups in ((("web",),), (("web",), ("db", "late"))):
        sink.begin(Names(("a", "b"), NAMES.rules, 0, groups=groups))
        sink.write(flows)
    sink.close()
    assert [(row["egress.groups"], row["ingress.groups"]) for row in rows_of(file)] == [
        ("web", None), ("web", "db, late")
    ]  # fmt: skip


def test_numbers_go_on_though_names_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
    file = io.BytesIO()
    sink = VerdictParquet(file.write)
    for before in (10, 13, 16):
        sink.begin(Names(NAMES.instances, NAMES.rules, before))
        sink.write(*random_packets(1, 3))
    sink.close()
    assert [row["packet"] for row in rows_of(file)] == list(range(11, 20))


def test_without_rows_it_is_an_empty_table() -> None:
    for kind, fields in ((VerdictParquet, PACKET_ROWS.names), (ConnectionParquet, CONNECTION_ROWS.names)):
        table = pq.read_table(written(kind, NAMES))
        assert table.num_rows == 0 and tuple(table.schema.names) == fields


def test_times_are_exact() -> None:
    headers, results = random_packets(1, 4)
    times = [0, -1, 1_700_000_000_123_456_789, 2**62]
    headers["time_ns"] = times
    file = written(VerdictParquet, NAMES, (headers, results))
    assert [row["time"] for row in rows_of(file)] == times
    # Python's own datetime has microseconds.
    micro = pq.read_table(file).slice(2, 1).column("time").cast(pa.timestamp("us", "UTC"), safe=False)
    assert micro.to_pylist() == [datetime.fromtimestamp(1_700_000_000, UTC).replace(microsecond=123_456)]


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize(
    ("error", "fails_at"), list(product([OSError, BrokenPipeError, KeyboardInterrupt], [0, 1, 5]))[:: some(4, 1)]
)
def test_an_error_of_what_it_is_written_to_passes(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], fails_at: int, processors: int
) -> None:
    monkeypatch.setattr(parquet, "usable_processors", lambda: processors)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 100)
    unraised: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", unraised.append)
    calls: list[int] = []

    def write(data: bytes) -> None:
        calls.append(len(data))
        if len(calls) > fails_at:
            raise error("no room")

    def run() -> None:
        sink = VerdictParquet(write)
        sink.begin(NAMES)
        for _ in range(some(6, 10)):
            sink.write(*random_packets(1, 100))
        sink.close()

    before = set(threading.enumerate())
    with pytest.raises(error, match="no room"):
        run()
    told = len(calls)
    gc.collect()
    # pyarrow ends a file that is thrown away; nothing of it may go where nothing can be written.
    assert len(calls) == told == fails_at + 1 and not unraised
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert set(threading.enumerate()) <= before


def test_a_number_that_stands_for_nothing_is_an_error() -> None:
    headers, results = random_packets(1, 3)
    flows = random_flows(1, 3)
    results["egress"] = results["ingress"] = (0, 0, 0, 1, 0)
    for rows, before, kind in ((results, (headers,), VerdictParquet), (flows, (), ConnectionParquet)):
        for n in range(len(list(places(rows)))):
            sink = kind(lambda data: None)
            sink.begin(NAMES)
            wrong = rows.copy()
            field, name = list(places(wrong))[n]
            field[name][1] = 200
            if rows is flows and name != "side_end":
                wrong["side_end"] = 1       # of a side that is not there nothing is asked
            sink.write(*before, wrong)
            with pytest.raises(IndexError):
                sink.close()


def test_what_are_no_rows_is_refused() -> None:
    headers, results = random_packets(1, 4)
    for wrong in ((headers, results[:3]), (results, results), (headers, headers), (headers.reshape(2, 2), results)):
        with pytest.raises(ValueError, match="rows must"):
            VerdictParquet(lambda data: None).write(*wrong)
    with pytest.raises(ValueError, match="rows must"):
        ConnectionParquet(lambda data: None).write(headers)


def test_memory_does_not_grow_with_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2_000)
    piece = random_packets(1, 1_000)

    def write(pieces: int) -> None:
        before = pa.total_allocated_bytes()
        sink = VerdictParquet(lambda data: None)
        sink.begin(NAMES)
        for _ in range(pieces):
            sink.write(*piece)
            assert pa.total_allocated_bytes() - before < 10_000_000
        sink.close()

    write(10)
    few = peak_bytes(lambda: write(10))
    assert peak_bytes(lambda: write(100)) < few + 300_000


def test_addresses_of_the_wrong_shape_are_refused() -> None:
    families = np.full(3, 4, np.uint8)
    for addresses in (np.zeros((2, 16), np.uint8), np.zeros((3, 4), np.uint8)):
        with pytest.raises(ValueError, match="address"):
            address_texts(addresses, families)
    offsets, text = address_texts(np.zeros((0, 16), np.uint8), np.zeros(0, np.uint8))
    assert offsets.tolist() == [0] and len(text) == 0
    longest = np.full((3, 16), 255, np.uint8)
    offsets, text = address_texts(longest, np.array([6, 4, 0], np.uint8))
    assert text.tobytes() == b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" b"255.255.255.255"
    assert offsets.tolist() == [0, 39, 54, 54]


def test_codes_are_of_words_that_come_up() -> None:
    def codes_of(numbers: list[int], there: list[int], words: list[int], count: int) -> tuple[Any, ...]:
        codes, valid, kept = dictionary_codes(
            np.array(numbers, np.int32), np.array(there, np.uint8), np.array(words, np.int32), count
        )
        bits = np.unpackbits(valid, bitorder="little")[: len(numbers)]
        return codes.tolist(), "".join(map(str, bits)), kept.tolist()

    assert codes_of([], [], [], 0) == ([], "", [])
    assert codes_of([2, 0, 2, -1, 1, 3], [1, 1, 0, 1, 1, 1], [1, -1, 3, 1], 4) == ([0, 1, 0, 0, 0, 1], "110001", [3, 1])
    for numbers, there, words, count, error in (
        ([4], [1], [0, 0, 0, 0], 1, IndexError), ([0], [1], [1], 1, IndexError), ([0], [], [0], 1, ValueError),
        ([2**31 - 1], [1], [], 0, IndexError),
    ):  # fmt: skip
        with pytest.raises(error):
            codes_of(numbers, there, words, count)


def test_only_numbers_and_times_have_their_least_and_largest_value_in_each_group() -> None:
    # Who looks for a time skips the other groups. For texts and ports nearly all groups would say the same.
    flows = random_flows(1, 50)
    flows["bytes"] >>= 1
    flows["packets"] >>= 1
    counters = {f"{what}_from_{end}" for what in ("packets", "bytes") for end in ("initiator", "responder")}
    for kind, rows, expected in (
        (VerdictParquet, random_packets(1, 50), {"packet", "time"}),
        (ConnectionParquet, (flows,), {"first_time", "last_time"} | counters),
    ):
        group = pq.ParquetFile(written(kind, NAMES, rows)).metadata.row_group(0)
        columns = [group.column(n) for n in range(group.num_columns)]
        assert {
            column.path_in_schema
            for column in columns
            if column.statistics is not None and column.statistics.has_min_max
        } == expected


def test_an_error_of_the_encoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **more: Any) -> None:
        raise MemoryError("no room for a group")

    monkeypatch.setattr(parquet, "usable_processors", lambda: 2)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    sink = VerdictParquet(lambda data: None)
    sink.begin(NAMES)
    sink.write(*random_packets(1, 8))
    with pytest.raises(MemoryError, match="no room for a group"):
        sink.close()


def test_it_is_written_where_the_system_refuses_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parquet, "GROUP_ROWS", 8)
    pieces = [random_packets(n, 20) for n in range(3)]
    expected = rows_of(written(VerdictParquet, NAMES, *pieces))
    monkeypatch.setattr(parquet, "usable_processors", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert rows_of(written(VerdictParquet, NAMES, *pieces)) == expected
