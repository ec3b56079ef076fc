"""``--verdicts`` and ``--connections``: every line is what ``json.dumps`` makes of the row, whatever is in the row."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from command import valid
from numpy.typing import NDArray

from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import NO_SIDE, PENDING, REASONS, VERDICTS
from sgfast.policy.protocols import protocol_name
from sgfast.questions.replaying import Names
from sgfast.report.lines import ConnectionLines, VerdictLines
from sgfast.report.rows import ROOM_FOR_A_ROW
from sgfast.rows.row_schema import ANSWERS, ENDS

INSTANCES = ("web-1", "quote\"back\\slash", "ünïcode\n")
RULES = ("web/inbound/1", "}{[bold]", "\u2028")
GROUPS = (("web",), ("a\"b", "ünïcode", "a\"b"), ("plain", "x" * 60))
NAMES = Names(INSTANCES, RULES, 0, groups=GROUPS)
#: The numbers of the reasons that a side can have.
SIDE_REASONS = [n for n, reason in enumerate(REASONS) if reason not in (None, "opener-denied")]


def address(sixteen: NDArray[Any], family: int) -> str:
    return str(ip_address(sixteen[: 4 if family == 4 else 16].tobytes()))


def time_text(time_ns: int) -> str:
    return f"{'-' * (time_ns < 0)}{abs(time_ns) // 10**9}.{abs(time_ns) % 10**9:09d}"


def protocol(number: int) -> str | int:
    return protocol_name(number) or number


def random_rows(rng: np.random.Generator, dtype: np.dtype[Any], n: int) -> NDArray[Any]:
    """Rows of random bytes; zeros are common."""
    noise = rng.integers(0, 256, (n, dtype.itemsize), dtype=np.uint8)
    noise[rng.random(noise.shape) < 0.3] = 0
    return noise.reshape(-1).view(dtype)


# Packets


def random_packets(seed: int, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    headers, results = random_rows(rng, HEADER_DTYPE, n), random_rows(rng, RESULT_DTYPE, n)
    headers["time_ns"] >>= rng.integers(0, 40, n)
    headers["family"] = rng.choice([0, 4, 6], n)
    headers["has_ports"], headers["has_icmp"] = rng.integers(0, 2, n), rng.integers(0, 2, n)
    results["verdict"], results["reason"] = rng.integers(0, PENDING, n), rng.integers(0, len(REASONS), n)
    for name in ("egress", "ingress"):
        side = results[name]
        side["verdict"] = rng.choice([0, 1, NO_SIDE], n)
        side["reason"] = rng.choice(SIDE_REASONS, n)
        side["instance"], side["rule"] = rng.integers(0, len(INSTANCES), n), rng.integers(-1, len(RULES), n)
    return headers, results


def expected_packet(number: int, header: Any, result: Any) -> dict[str, Any]:
    def side(row: Any) -> dict[str, Any] | None:
        if row["verdict"] == NO_SIDE:
            return None
        return {
            "instance": INSTANCES[row["instance"]],
            "verdict": VERDICTS[row["verdict"]],
            "reason": REASONS[row["reason"]],
            "rule": RULES[row["rule"]] if row["rule"] >= 0 else None,
        }

    family = int(header["family"])
    return {
        "packet": number,
        "time": time_text(int(header["time_ns"])),
        "src": address(header["src"], family) if family else None,
        "dst": address(header["dst"], family) if family else None,
        "protocol": protocol(int(header["protocol"])) if family else None,
        "sport": int(header["sport"]) if header["has_ports"] else None,
        "dport": int(header["dport"]) if header["has_ports"] else None,
        "icmp_type": int(header["icmp_type"]) if header["has_icmp"] else None,
        "icmp_code": int(header["icmp_code"]) if header["has_icmp"] else None,
        "verdict": VERDICTS[result["verdict"]],
        "reason": REASONS[result["reason"]],
        "egress": side(result["egress"]),
        "ingress": side(result["ingress"]),
    }


def test_numbers_go_on_where_begin_says() -> None:
    headers, results = random_packets(1, 3)
    for before in (0, 9, 99, 9_999, 10**12 - 2, 2**63):
        written: list[bytes] = []
        sink = VerdictLines(written.append)
        sink.begin(Names(INSTANCES, RULES, before))
        sink.write(headers, results)
        assert [json.loads(line)["packet"] for line in b"".join(written).splitlines()] == [
            before + 1, before + 2, before + 3
        ]  # fmt: skip


def test_names_are_those_of_the_last_begin() -> None:
    headers, results = random_packets(1, 1)
    results["egress"] = results["ingress"] = (0, 0, 0, 1, 0)
    written: list[bytes] = []
    sink = VerdictLines(written.append)
    for names in (Names(("a",), ("b",), 0), Names(("c",), ("d",), 7)):
        sink.begin(names)
        sink.write(headers, results)
    first, second = (json.loads(line) for line in written)
    assert (first["egress"]["instance"], first["egress"]["rule"]) == ("a", "b")
    assert (second["egress"]["instance"], second["egress"]["rule"], second["packet"]) == ("c", "d", 8)


# Connections


def random_flows(seed: int, n: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    flows = random_rows(rng, FLOW_DTYPE, n)
    flows["first_ns"] >>= rng.integers(0, 40, n)
    flows["family"] = rng.choice([4, 6], n)
    flows["protocol"] = rng.choice([1, 6, 17, 58, 47, 200], n)
    flows["has_ports"] = np.isin(flows["protocol"], (6, 17))
    flows["verdict"], flows["reason"] = rng.integers(0, 2, n), rng.choice(SIDE_REASONS, n)
    flows["answer"] = rng.integers(0, len(ANSWERS), n)
    flows["instance"] = rng.integers(-1, len(INSTANCES), (n, 2))
    flows["rule"], flows["side_end"] = rng.integers(-1, len(RULES), (n, 2)), rng.integers(0, len(ENDS), (n, 2))
    return flows


def expected_connection(row: Any) -> dict[str, Any]:
    family, number = int(row["family"]), int(row["protocol"])
    ports, icmp = bool(row["has_ports"]), number == {4: 1, 6: 58}[family]

    def side(role: int) -> dict[str, Any] | None:
        if not row["side_end"][role]:
            return None
        owner = row["instance"][role]
        return {
            "instance": INSTANCES[owner] if owner >= 0 else None,
            "groups": ("web", 'a"b, ünïcode', "plain, " + "x" * 60)[owner] if owner >= 0 else None,
            "rule": RULES[row["rule"][role]] if row["rule"][role] >= 0 else None,
            "ended": ENDS[row["side_end"][role]],
        }

    return {
        "protocol": protocol(number),
        "initiator": address(row["initiator"], family),
        "initiator_port": int(row["ports"]) >> 16 if ports else None,
        "responder": address(row["responder"], family),
        "responder_port": int(row["ports"]) & 0xFFFF if ports else None,
        "icmp_type": int(row["icmp"]) >> 8 if icmp else None,
        "icmp_code": int(row["icmp"]) & 0xFF if icmp else None,
        "first_time": time_text(int(row["first_ns"])),
        "last_time": time_text(int(row["last_ns"])),
        "packets_from_initiator": int(row["packets"][0]),
        "packets_from_responder": int(row["packets"][1]),
        "bytes_from_initiator": int(row["bytes"][0]),
        "bytes_from_responder": int(row["bytes"][1]),
        "verdict": VERDICTS[row["verdict"]],
        "reason": REASONS[row["reason"]],
        "answer": ANSWERS[row["answer"]],
        "egress": side(0),
        "ingress": side(1),
    }


# Both


@pytest.mark.parametrize("seed", range(20))
def test_lines_are_what_json_dumps_would_give(seed: int) -> None:
    print(f"seed {seed}")
    written: tuple[list[bytes], list[bytes]] = ([], [])
    expected: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    packets, connections = VerdictLines(written[0].append), ConnectionLines(written[1].append)
    for sink in (packets, connections):
        sink.begin(NAMES)
    for n in (1, 300, 0, 500):
        headers, results = random_packets(seed * 1000 + n, n)
        first = len(expected[0]) + 1
        expected[0].extend(map(expected_packet, range(first, first + n), headers, results))
        packets.write(headers, results)
        flows = random_flows(seed * 1000 + n, n // 2)
        expected[1].extend(map(expected_connection, flows))
        connections.write(flows)
    for schema, pieces, rows in zip(("verdict", "connection"), written, expected, strict=True):
        lines = b"".join(pieces).decode("ascii").splitlines(keepends=True)
        assert lines == [json.dumps(row) + "\n" for row in rows]
        for row in rows[:50]:
            valid(schema, row)


# Both


def lines_of(flows: NDArray[Any], names: Names = NAMES) -> list[dict[str, Any]]:
    written: list[bytes] = []
    sink = ConnectionLines(written.append)
    sink.begin(names)
    sink.write(flows)
    return [json.loads(line) for line in b"".join(written).splitlines()]


def test_ipv6_addresses_are_written_as_python_writes_them() -> None:
    # Every pattern of zero groups, with groups of every length; and what has an IPv4 address at its end.
    patterns = np.array([[n >> bit & 1 for bit in range(8)] for n in range(256)])
    groups = np.concatenate([patterns * value for value in (1, 0xA, 0x10, 0xABC, 0xFFFF)])
    mapped = ["::ffff:1.2.3.4", "::ffff:0.0.0.0", "::ffff:255.255.255.255"]
    texts = [*mapped, "::1.2.3.4", "::fffe:1.2.3.4", "1::ffff:1.2.3.4"]
    packed = [*groups.astype(">u2").view("u1").reshape(-1, 16).tolist(), *(list(ip_address(t).packed) for t in texts)]
    flows = np.repeat(random_flows(1, 1), len(packed))
    flows["family"] = 6
    flows["initiator"], flows["responder"] = packed, packed[::-1]
    for row, line in zip(flows, lines_of(flows), strict=True):
        assert line["initiator"] == address(row["initiator"], 6)
        assert line["responder"] == address(row["responder"], 6)


def test_numbers_and_times_of_every_length() -> None:
    near = sorted({min(max(10**e + d, 0), 2**64 - 1) for e in range(21) for d in (-1, 0, 1)})
    flows = np.repeat(random_flows(1, 1), len(near))
    flows["packets"][:, 0] = flows["bytes"][:, 1] = near
    times = [min(n, 2**63 - 1) for n in near]
    flows["first_ns"], flows["last_ns"] = times, [-n for n in times]
    flows["last_ns"][-1] = -(2**63)
    lines = lines_of(flows)
    assert [line["packets_from_initiator"] for line in lines] == near
    assert [line["bytes_from_responder"] for line in lines] == near
    assert [line["first_time"] for line in lines] == [time_text(n) for n in times]
    assert [line["last_time"] for line in lines] == [time_text(n) for n in flows["last_ns"].tolist()]
    assert lines[-1]["last_time"] == "-9223372036.854775808"


def longest(words: Sequence[Any]) -> int:
    return max(range(len(words)), key=lambda n: len(json.dumps(words[n])))


def test_the_longest_line_has_room() -> None:
    names = Names(("",), ("",), 2**64 - 2)
    flows, headers, results = (
        np.frombuffer(b"\xff" * dtype.itemsize, dtype).copy() for dtype in (FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE)
    )
    for rows in (flows, headers):
        rows["family"], rows["protocol"] = 6, longest([protocol(n) for n in range(256)])
    flows["first_ns"] = flows["last_ns"] = headers["time_ns"] = -(2**63)
    for row in (flows, results, results["egress"], results["ingress"]):
        row["verdict"], row["reason"] = longest(VERDICTS), longest(REASONS)
        row["instance" if row.dtype != RESULT_DTYPE else "spare"] = 0
        row["rule" if row.dtype != RESULT_DTYPE else "spare"] = 0
    flows["answer"], flows["side_end"] = longest(ANSWERS), longest(ENDS)
    written: list[bytes] = []
    for sink, rows in ((VerdictLines(written.append), (headers, results)), (ConnectionLines(written.append), (flows,))):
        sink.begin(names)
        sink.write(*rows)
    packet, flow = (json.loads(line) for line in written)
    assert packet["packet"] == 2**64 - 1 and flow["bytes_from_responder"] == 2**64 - 1
    assert max(map(len, written)) < ROOM_FOR_A_ROW


def test_names_of_any_length_fit() -> None:
    # The last instance's groups are not known.
    names = Names(("ü" * 1_000_000, "b"), ("\0" * 300_000, "d"), 0, groups=(("ü" * 1_000_000,),))
    flows = np.repeat(random_flows(1, 1), 4)
    flows["instance"] = flows["rule"] = [[0, 1], [1, 0], [0, 0], [1, 1]]
    flows["side_end"] = 1
    for row, line in zip(flows, lines_of(flows, names), strict=True):
        for role, side in enumerate(("egress", "ingress")):
            assert line[side]["instance"] == names.instances[row["instance"][role]]
            assert line[side]["rule"] == names.rules[row["rule"][role]]
            assert line[side]["groups"] == (None if row["instance"][role] else "ü" * 1_000_000)


def test_a_writer_that_is_already_writing_refuses_more() -> None:
    """Rows are composed without Python's global lock, so two threads would share its buffer."""
    flows = np.repeat(random_flows(1, 1), 10_000)
    refused: list[str] = []

    def sink(data: bytes) -> None:
        with pytest.raises(RuntimeError, match="two threads") as caught:
            writer.write(flows)
        refused.append(str(caught.value))

    writer = ConnectionLines(sink)
    writer.begin(NAMES)
    writer.write(flows)
    pieces = len(refused)
    assert pieces > 5
    writer.write(flows)         # it is free again
    assert len(refused) == 2 * pieces


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_do_not_lie_side_by_side(seed: int) -> None:
    print(f"seed {seed}")
    headers, results = random_packets(seed, 100)
    flows = random_flows(seed, 100)
    headers.flags.writeable = False
    found: list[list[bytes]] = []
    for part in (lambda rows: rows[::-3], lambda rows: rows[::-3].copy()):
        written: list[bytes] = []
        for sink, rows in (
            (VerdictLines(written.append), (part(headers), part(results))),
            (ConnectionLines(written.append), (part(flows),)),
        ):
            sink.begin(NAMES)
            sink.write(*rows)
        found.append(written)
    assert found[0] == found[1]


def test_what_are_no_rows_is_refused() -> None:
    headers, results = random_packets(1, 4)
    packets, flows = VerdictLines(lambda data: None), ConnectionLines(lambda data: None)
    for wrong in ((headers, results[:3]), (results, results), (headers, headers), (headers.reshape(2, 2), results)):
        with pytest.raises(ValueError, match=r"(rows|results) must"):
            packets.write(*wrong)
    for rows in (headers, np.zeros(0), random_flows(1, 4).reshape(2, 2)):
        with pytest.raises(ValueError, match="rows must"):
            flows.write(rows)


def places(rows: NDArray[Any]) -> Iterator[tuple[NDArray[Any], str]]:
    """Where a row holds a number that stands for a word or name."""
    if rows.dtype == FLOW_DTYPE:
        yield from ((rows, name) for name in ("verdict", "reason", "answer", "side_end", "instance", "rule"))
    else:
        yield from ((rows, name) for name in ("verdict", "reason"))
        for side in (rows["egress"], rows["ingress"]):
            yield from ((side, name) for name in ("verdict", "reason", "instance", "rule"))


def test_a_number_that_stands_for_nothing_is_an_error_and_the_next_rows_are_not() -> None:
    headers, results = random_packets(1, 3)
    flows = random_flows(1, 3)
    results["egress"] = results["ingress"] = (0, 0, 0, 1, 0)
    tried = 0
    for rows in (results, flows):
        for n in range(len(list(places(rows)))):
            written: list[bytes] = []
            sink = VerdictLines(written.append) if rows is results else ConnectionLines(written.append)
            sink.begin(NAMES)
            wrong = rows.copy()
            field, name = list(places(wrong))[n]
            field[name][1] = 200
            before = (headers,) if rows is results else ()
            with pytest.raises(IndexError):
                sink.write(*before, wrong)
            assert not written
            sink.write(*before, rows)
            assert b"".join(written).count(b"\n") == 3
            tried += 1
    assert tried == 16


def peak_bytes(work: Callable[[], object]) -> int:
    """Measure the most bytes that Python had allocated during ``work``, arrays included."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lines_take_no_memory_for_each_packet_or_address() -> None:
    few, many = (random_packets(n, n) for n in (5_000, 50_000))
    flows = random_flows(1, 50_000)
    sink, other = VerdictLines(lambda data: None), ConnectionLines(lambda data: None)
    sink.begin(NAMES)
    other.begin(NAMES)
    sink.write(*few)
    # They are written piece by piece.
    assert peak_bytes(lambda: sink.write(*many)) < peak_bytes(lambda: sink.write(*few)) + 100_000
    assert peak_bytes(lambda: other.write(flows)) < peak_bytes(lambda: other.write(flows[:5_000])) + 100_000
