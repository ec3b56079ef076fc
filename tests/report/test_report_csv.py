"""CSV rows say what the JSON lines say, whatever is in the row (SPEC 10.8)."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from effort import some
from tables import flattened, texts
from test_report_lines import (
    INSTANCES,
    NAMES,
    RULES,
    longest,
    peak_bytes,
    places,
    protocol,
    random_flows,
    random_packets,
)

from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import NO_SIDE, REASONS, VERDICTS
from sgfast.questions.replaying import Names
from sgfast.report.lines import ConnectionCsv, ConnectionLines, VerdictCsv, VerdictLines
from sgfast.report.rows import ROOM_FOR_A_ROW
from sgfast.rows.row_schema import ANSWERS, CONNECTION_ROWS, ENDS, PACKET_ROWS

#: Names that CSV cannot hold as they are.
AWKWARD = Names(
    ("plain", 'say "x"', "a,b", "line\nfeed", "carriage\rreturn", "ünïcode \u2028", " space ", "'"),
    ("", '"', ",", "\n", "\r\n", '""', "x"),
    0,
    groups=(("plain",), ("a", "b"), ('"', ","), ("line\nfeed",), ("carriage\rreturn", "ünïcode \u2028"), ("'",)),
)


def read(written: list[bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(written).decode("utf-8"), newline=""), strict=True))


def both(kind: type, other: type, names: Names, *pieces: tuple[Any, ...]) -> tuple[list[bytes], list[Any]]:
    """Write the same as CSV and as JSON lines, and return the rows and the objects."""
    rows: list[bytes] = []
    lines: list[bytes] = []
    for sink in (table := kind(rows.append), other(lines.append)):
        sink.begin(names)
        for piece in pieces:
            sink.write(*piece)
    table.close()
    return rows, [json.loads(line) for line in b"".join(lines).splitlines()]


@pytest.mark.parametrize("seed", range(some(6, 20)))
def test_csv_says_what_json_says(seed: int) -> None:
    print(f"seed {seed}")
    packets = [random_packets(seed * 1000 + n, n) for n in (1, 300, 0, 500)]
    flows = [(random_flows(seed * 1000 + n, n),) for n in (1, 300, 0, 64)]
    for kind, other, fields, pieces in (
        (VerdictCsv, VerdictLines, PACKET_ROWS.names, packets),
        (ConnectionCsv, ConnectionLines, CONNECTION_ROWS.names, flows),
    ):
        rows, lines = both(kind, other, NAMES, *pieces)
        assert read(rows) == [texts(flattened(line, fields)) for line in lines]


def test_ports_and_octets_of_every_length() -> None:
    numbers = np.arange(1 << 16)
    headers = np.zeros(len(numbers), HEADER_DTYPE)
    headers["family"], headers["protocol"], headers["has_ports"] = 4, 253, 1
    headers["sport"], headers["dport"] = numbers, numbers[::-1]
    headers["src"][:, [0, 3]] = np.stack([numbers >> 8, numbers & 255], axis=1)
    headers["dst"][:, [1, 2]] = headers["src"][:, [3, 0]]
    results = np.zeros(len(numbers), RESULT_DTYPE)
    results["egress"]["verdict"] = results["ingress"]["verdict"] = NO_SIDE
    written: list[bytes] = []
    sink = VerdictCsv(written.append)
    sink.begin(NAMES)
    sink.write(headers, results)
    lines = b"".join(written).decode().splitlines()[1:]
    assert [line.split(",")[2:7] for line in lines] == [
        [f"{n >> 8}.0.0.{n & 255}", f"0.{n & 255}.{n >> 8}.0", "253", f"{n}", f"{65535 - n}"] for n in range(1 << 16)
    ]


def test_names_that_need_quotes() -> None:
    flows = np.repeat(random_flows(1, 1), len(AWKWARD.instances) * len(AWKWARD.rules))
    numbers = np.arange(len(flows))
    flows["instance"] = (numbers % len(AWKWARD.instances))[:, None]
    flows["rule"] = (numbers // len(AWKWARD.instances))[:, None]
    flows["side_end"] = 1
    rows, lines = both(ConnectionCsv, ConnectionLines, AWKWARD, (flows,))
    assert read(rows) == [texts(flattened(line, CONNECTION_ROWS.names)) for line in lines]


def test_undecodable_names_are_escaped() -> None:
    headers, results = random_packets(1, 1)
    results["egress"] = (0, 0, 0, 1, 0)
    written: list[bytes] = []
    sink = VerdictCsv(written.append)
    sink.begin(Names(("\udcff",), ("a\udc80",), 0))
    sink.write(headers, results)
    (row,) = read(written)
    assert (row["egress.instance"], row["egress.rule"]) == ("\\udcff", "a\\udc80")


def test_without_rows_there_is_a_line_of_names() -> None:
    for kind, fields in ((VerdictCsv, PACKET_ROWS.names), (ConnectionCsv, CONNECTION_ROWS.names)):
        written: list[bytes] = []
        sink = kind(written.append)
        sink.begin(NAMES)
        assert not written
        sink.close()
        sink.close()
        assert b"".join(written).decode() == ",".join(fields) + "\n"


def test_the_line_of_names_comes_once_though_the_policy_changes() -> None:
    written: list[bytes] = []
    sink = VerdictCsv(written.append)
    for names in (Names(INSTANCES, RULES, 0), Names(INSTANCES, RULES, 3)):
        sink.begin(names)
        sink.write(*random_packets(1, 3))
    sink.close()
    assert [row["packet"] for row in read(written)] == ["1", "2", "3", "4", "5", "6"]


def test_the_longest_row_has_room() -> None:
    names = Names(("",), ("",), 2**64 - 2)
    flows, headers, results = (
        np.frombuffer(b"\xff" * dtype.itemsize, dtype).copy() for dtype in (FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE)
    )
    for rows in (flows, headers):
        rows["family"], rows["protocol"] = 6, longest([protocol(n) for n in range(256)])
    flows["first_ns"] = flows["last_ns"] = headers["time_ns"] = -(2**63)
    for row in (flows, results, results["egress"], results["ingress"]):
        row["verdict"], row["reason"] = longest(VERDICTS), longest(REASONS)
    for side in (results["egress"], results["ingress"], flows):
        side["instance"] = side["rule"] = 0
    flows["answer"], flows["side_end"] = longest(ANSWERS), longest(ENDS)
    for kind, rows in ((VerdictCsv, (headers, results)), (ConnectionCsv, (flows,))):
        written: list[bytes] = []
        sink = kind(written.append)
        sink.begin(names)
        sink.write(*rows)
        assert max(map(len, written)) < ROOM_FOR_A_ROW and len(read(written)) == 1


def test_a_number_that_stands_for_nothing_is_an_error_and_the_next_rows_are_not() -> None:
    headers, results = random_packets(1, 3)
    flows = random_flows(1, 3)
    results["egress"] = results["ingress"] = (0, 0, 0, 1, 0)
    for rows, before, kind in ((results, (headers,), VerdictCsv), (flows, (), ConnectionCsv)):
        for n in range(len(list(places(rows)))):
            written: list[bytes] = []
            sink = kind(written.append)
            sink.begin(NAMES)
            wrong = rows.copy()
            field, name = list(places(wrong))[n]
            field[name][1] = 200
            with pytest.raises(IndexError):
                sink.write(*before, wrong)
            assert not written
            sink.write(*before, rows)
            assert len(read(written)) == 3


def test_rows_take_no_memory_for_each_packet() -> None:
    few, many = (random_packets(n, n) for n in (5_000, 50_000))
    sink = VerdictCsv(lambda data: None)
    sink.begin(NAMES)
    sink.write(*few)
    assert peak_bytes(lambda: sink.write(*many)) < peak_bytes(lambda: sink.write(*few)) + 100_000
