"""``--verdicts`` and ``--connections``: every line is what ``json.dumps`` makes of the row, whatever is in the row."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from command import valid
from numpy.typing import NDArray

from sgfast.core.dataplane import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import NO_SIDE, REASONS, VERDICTS
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import Names
from sgfast.report import connections, fragments
from sgfast.report.connections import ANSWERS, ENDS, ConnectionLines
from sgfast.report.verdicts import VerdictLines

INSTANCES = ("web-1", "quote\"back\\slash", "ünïcode\n")
RULES = ("web/inbound/1", "}{[bold]", "\u2028")
NAMES = Names(INSTANCES, RULES, 0)


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
    results["verdict"], results["reason"] = rng.integers(0, len(VERDICTS), n), rng.integers(0, len(REASONS), n)
    for name in ("egress", "ingress"):
        side = results[name]
        side["verdict"] = rng.choice([0, 1, NO_SIDE], n)
        side["reason"] = rng.integers(1, len(REASONS) - 1, n)
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


@pytest.mark.parametrize("most_fragments", [fragments.MAX_FRAGMENTS, 3])
def test_verdict_lines_are_what_json_dumps_would_give(monkeypatch: pytest.MonkeyPatch, most_fragments: int) -> None:
    monkeypatch.setattr(fragments, "MAX_FRAGMENTS", most_fragments)
    written: list[bytes] = []
    sink = VerdictLines(written.append)
    sink.begin(NAMES)
    expected: list[dict[str, Any]] = []
    for seed, n in ((1, 1), (2, 300), (3, 0), (2, 300), (4, 500)):
        headers, results = random_packets(seed, n)
        expected += [
            expected_packet(len(expected) + 1 + k, header, result)
            for k, (header, result) in enumerate(zip(headers, results, strict=True))
        ]
        sink.write(headers, results)
    lines = b"".join(written).decode("ascii").splitlines(keepends=True)
    assert lines == [json.dumps(packet) + "\n" for packet in expected]
    for packet in expected[:200]:
        valid("verdict", packet)


def test_packets_that_differ_only_in_what_is_not_shown_share_a_fragment() -> None:
    headers, results = random_packets(1, 1)
    headers = np.repeat(headers, 500)
    for name in ("time_ns", "wire", "tcp_flags", "icmp_id"):
        headers[name] = np.arange(500) % 251
    before = headers.copy()
    sink = VerdictLines(lambda data: None)
    sink.begin(NAMES)
    sink.write(headers, np.repeat(results, 500))
    assert len(sink._headers) == len(sink._results) == 1
    assert (headers == before).all()


def test_memory_stays_bounded_whatever_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "MAX_FRAGMENTS", 100)
    sink = VerdictLines(lambda data: None)
    sink.begin(NAMES)
    for seed in range(20):
        sink.write(*random_packets(seed, 50))
        assert all(len(cache) <= 200 for cache in (sink._headers, sink._results, sink._addresses, sink._sides))


# Connections


def random_flows(seed: int, n: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    flows = random_rows(rng, FLOW_DTYPE, n)
    flows["first_ns"] >>= rng.integers(0, 40, n)
    flows["family"] = rng.choice([4, 6], n)
    flows["protocol"] = rng.choice([1, 6, 17, 58, 47, 200], n)
    flows["has_ports"] = np.isin(flows["protocol"], (6, 17))
    flows["verdict"], flows["reason"] = rng.integers(0, 2, n), rng.integers(1, len(REASONS) - 1, n)
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


@pytest.mark.parametrize("chunk", [connections.CHUNK_ROWS, 7])
def test_connection_lines_are_what_json_dumps_would_give(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(connections, "CHUNK_ROWS", chunk)
    written: list[bytes] = []
    sink = ConnectionLines(written.append)
    sink.begin(NAMES)
    expected: list[dict[str, Any]] = []
    for seed, n in ((1, 1), (2, 300), (3, 0), (4, 64)):
        flows = random_flows(seed, n)
        expected += [expected_connection(row) for row in flows]
        sink.write(flows)
    lines = b"".join(written).decode("ascii").splitlines(keepends=True)
    assert lines == [json.dumps(flow) + "\n" for flow in expected]
    for flow in expected[:200]:
        valid("connection", flow)


def test_millions_of_connections_at_once_are_written_piece_by_piece() -> None:
    pieces: list[int] = []
    sink = ConnectionLines(lambda data: pieces.append(data.count(b"\n")))
    sink.begin(NAMES)
    sink.write(np.repeat(random_flows(1, 1), connections.CHUNK_ROWS * 3 + 1))
    assert pieces == [connections.CHUNK_ROWS] * 3 + [1]


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::5", "::ffff:1.2.3.4", "1::1:0:0:1"]
)
def test_addresses_are_written_as_python_reads_them(text: str) -> None:
    assert json.loads(fragments.address_json(ip_address(text).packed)) == str(ip_address(text))
