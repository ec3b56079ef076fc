"""Logs that are written from packets are what clouds and Zeek would have written, and are read back (SPEC 10.29)."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import frames as f
import numpy as np
import pytest
from captures import plain_read
from corpus import ROOT
from effort import some
from flow_log_writer import (
    AWS_V2,
    AWS_V5,
    Logged,
    write_aws,
    write_cloudwatch,
    write_firehose,
    write_neutron,
    write_otc,
    write_parquet,
)
from logged_packets import Packet, RawPacket, parsed
from traffic import Crowd, drawn
from zeek_log_writer import write_zeek_json, write_zeek_tsv

from sgfast.clouds.logs import columns as c
from sgfast.clouds.logs.columns import RECORD_DTYPE
from sgfast.clouds.logs.detection import open_log
from sgfast.clouds.logs.log import Log
from sgfast.clouds.zeek.conn_log import CONN_STATES
from sgfast.policy.model import Policy

SECOND = 10**9
START = 1_700_000_000 * SECOND
INTERFACES = {
    "web": ["10.0.0.5", "10.0.0.50", "2001:db8::5"], "db": ["10.0.1.9", "2001:db8::9"], "idle": ["10.0.1.77"],
}  # fmt: skip
ADDRESSES = {address: name for name, addresses in INTERFACES.items() for address in addresses}
PRIMARY = {name: addresses[0] for name, addresses in INTERFACES.items()}
ZEEK_PAIR = [ROOT / "flow-logs/zeek" / name for name in ("vast.example.pcap.gz", "vast.example-pcap.conn.log.gz")]
COUNTERS = ("packets", "bytes", "packets_back", "bytes_back")


class Sent(NamedTuple):
    """A packet as its sender knows it."""

    time_ns: int
    src: str
    dst: str
    layer: f.Layer

    @property
    def size(self) -> int:
        return (40 if ":" in self.src else 20) + len(self.layer)


def raw(sent: Iterable[Sent]) -> list[RawPacket]:
    return [(p.time_ns, f.ethernet(f.ip(p.src, p.dst, p.layer), padding=4), f.LINK_ETHERNET) for p in sent]


def crowd(seed: int) -> list[Sent]:
    """Draw conversations of TCP, UDP and ICMP during half an hour, in the order of time."""
    print(f"seed {seed}")
    draw, sent = random.Random(seed), []
    for _ in range(60):
        family = draw.choice("446")
        outside, inside = ("198.51.100.7", [a for a in ADDRESSES if ":" not in a]) if family == "4" else (
            "2001:db8:9::7", ["2001:db8::5", "2001:db8::9"])  # fmt: skip
        client = draw.choice([outside, *inside[:2]])
        server = draw.choice([a for a in inside[:3] if ADDRESSES.get(a) != ADDRESSES.get(client)])
        port, service, now = draw.randrange(40000, 60000), draw.choice((443, 5432, 9999)), draw.randrange(1800 * SECOND)
        ping, pong = (f.icmp(8, 0, port), f.icmp(0, 0, port)) if family == "4" else (
            f.icmpv6(128, 0, port), f.icmpv6(129, 0, port))  # fmt: skip
        script: list[tuple[bool, f.Layer]]
        kind = draw.randrange(3)
        if kind == 0:
            script = [(way == ">", f.tcp(*((port, service) if way == ">" else (service, port)), flags, bytes(size)))
                      for way, flags, size in (
                          (">", "S", 0), ("<", "SA", 0), (">", "A", 0),
                          *((draw.choice("<>"), "PA", draw.randrange(1, 900)) for _ in range(draw.randrange(20))),
                          (">", "FA", 0), ("<", "FA", 0), (">", "A", 0))]  # fmt: skip
        elif kind == 1:
            query = f.udp(port, service, bytes(draw.randrange(900)))
            script = [(True, query), (False, f.udp(service, port, b"yes"))] * draw.randrange(1, 4)
        else:
            script = [(True, ping), (False, pong)] * draw.randrange(1, 9)
        for is_first, layer in script:
            ends = (client, server) if is_first else (server, client)
            sent.append(Sent(START + now, *ends, layer))
            now += draw.choice((1_000_000, SECOND, 20 * SECOND))
    return sorted(sent, key=lambda p: p.time_ns)


def read(folder: Path, content: bytes | Path) -> tuple[Log, np.ndarray[Any, Any]]:
    """Read a log, in which no line may be broken."""
    path = content if isinstance(content, Path) else folder / "flow.log"
    if isinstance(content, bytes):
        path.write_bytes(content)
    log = open_log(str(path))
    rows = np.concatenate([np.empty(0, RECORD_DTYPE), *(rows.copy() for rows in log)])
    assert (log.broken_lines, log.damage, log.complaints) == (0, None, [])
    return log, rows


def end(row: Any, name: str) -> str:
    return str(ip_address(row[name].tobytes()[: 4 if row["family"] == 4 else 16]))


def flow(row: Any) -> tuple[Any, ...]:
    return (end(row, "src"), end(row, "dst"), int(row["protocol"]), int(row["sport"]), int(row["dport"]))


def counted(log: Log, rows: Any, logged: Logged) -> Counter[tuple[Any, ...]]:
    """Return packets and bytes of each interface and flow."""
    found: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        for name in ("packets", "bytes"):
            found[log.words[row["interface"]], *flow(row), name] += int(row[name]) // logged.sampled
    return found


def expected(sent: Iterable[Sent], shown: Callable[[str, str], str]) -> Counter[tuple[Any, ...]]:
    """Return the same from the packets. ``shown`` says which address an interface shows for one of a packet."""
    found: Counter[tuple[Any, ...]] = Counter()
    for p in sent:
        ports = (0, 0) if p.layer.protocol in (1, 58) else tuple(int.from_bytes(p.layer[n : n + 2]) for n in (0, 2))
        for owned in (p.src, p.dst):
            if interface := ADDRESSES.get(owned):
                key = (interface, shown(interface, p.src), shown(interface, p.dst), p.layer.protocol, *ports)
                found[*key, "packets"] += 1
                found[*key, "bytes"] += p.size
    return found


def primary(interface: str, address: str) -> str:
    """AWS shows an interface's own IPv4 address as the primary one."""
    return PRIMARY[interface] if ADDRESSES.get(address) == interface and ":" not in address else address


def test_logs_of_clouds_are_read_back_with_the_packets_and_bytes_that_were_sent(tmp_path: Path) -> None:
    for seed in range(some(4, 100)):
        sent = crowd(seed)
        for interval in (60, 600):
            logged = Logged(interval, seed)
            by_aws, by_otc = expected(sent, primary), expected(sent, lambda interface, address: address)
            texts = {
                "header": write_aws(raw(sent), INTERFACES, logged),
                "no header": write_aws(raw(sent), INTERFACES, logged, header=False),
                "version 5": write_aws(raw(sent), INTERFACES, logged, fields=AWS_V5),
                "cloudwatch": write_cloudwatch(raw(sent), INTERFACES, logged),
                "firehose": write_firehose(raw(sent), INTERFACES, logged),
            }
            first, rows = read(tmp_path, texts["header"])
            assert counted(first, rows, logged) == by_aws and first.nodata > 0
            for form, text in texts.items():
                log, others = read(tmp_path, text)
                assert (log.records, log.nodata) == (first.records, first.nodata), form
                for name in ("src", "dst", "sport", "dport", "start_ns", "end_ns", "packets", "bytes", "action"):
                    # Streams of CloudWatch put the records in another order.
                    assert sorted(rows[name].tolist()) == sorted(others[name].tolist()), (form, name)
                assert (others["tcp_flags"] != c.UNKNOWN).all() == (form == "version 5")
            log, rows = read(tmp_path, write_otc(raw(sent), INTERFACES, logged))
            assert counted(log, rows, logged) == by_otc
            assert ((rows["end_ns"] - rows["start_ns"]) == interval * SECOND).all()
            assert "OTC" in str(log.format)


def test_parquet_has_the_records_of_the_text(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    sent = crowd(7)
    for fields in (AWS_V2, AWS_V5):
        write_parquet(tmp_path / "x.parquet", raw(sent), INTERFACES, fields=fields)
        log, rows = read(tmp_path, tmp_path / "x.parquet")
        text, lines = read(tmp_path, write_aws(raw(sent), INTERFACES, fields=fields))
        assert (log.records, log.nodata) == (text.records, text.nodata)
        lines["line"] -= 1
        assert rows.tobytes() == lines.tobytes()


def test_sampled_counters_are_scaled_up(tmp_path: Path) -> None:
    sent = crowd(11)
    for sampled in (2, 10):
        _, rows = read(tmp_path, write_aws(raw(sent), INTERFACES, Logged(sampled=sampled)))
        _, whole = read(tmp_path, write_aws(raw(sent), INTERFACES))
        assert not (rows["packets"] % sampled).any() and not (rows["bytes"] % sampled).any()
        assert 0 < len(rows) < len(whole)
        assert 0.5 < rows["packets"].sum() / whole["packets"].sum() < 1.5


def test_records_appear_after_their_interval_and_out_of_order(tmp_path: Path) -> None:
    sent = crowd(3)
    text = write_aws(raw(sent), INTERFACES, Logged(seed=5))
    assert text == write_aws(raw(sent), INTERFACES, Logged(seed=5)) != write_aws(raw(sent), INTERFACES, Logged(seed=6))
    _, rows = read(tmp_path, text)
    starts = rows["start_ns"].tolist()
    assert starts != sorted(starts)
    # Nothing appears more than an interval and a minute after what came later.
    latest = np.maximum.accumulate(rows["start_ns"])
    assert (latest - rows["start_ns"]).max() <= 120 * SECOND


def test_each_interval_of_an_interface_has_traffic_or_a_line_that_says_nodata() -> None:
    windows: dict[str, set[int]] = {}
    lines = [line.split() for line in write_aws(raw(crowd(4)), INTERFACES, header=False).decode().splitlines()]
    for interface in INTERFACES:
        begun = {int(line[10]) for line in lines if line[2] == interface and line[13] == "NODATA"}
        offset = {second % 60 for second in begun}
        assert len(offset) == 1 and all(line[3:10] == ["-"] * 7 for line in lines if line[13] == "NODATA")
        busy = {(int(line[10]) - min(offset)) // 60 for line in lines if line[2] == interface and line[13] == "OK"}
        idle = {(second - min(offset)) // 60 for second in begun}
        windows[interface] = busy | idle
        # A packet of the second in which an interval begins may count for the one before.
        assert len(windows[interface]) == max(windows[interface]) - min(windows[interface]) + 1
    assert len(set(map(len, windows.values()))) <= 2


def test_captures_from_the_beginning_of_time_make_no_broken_line(tmp_path: Path) -> None:
    sent = raw([Sent(0, "10.0.0.5", "10.0.1.9", f.udp(40000, 5432))])
    for write in (write_aws, write_otc, write_neutron):
        for seed in range(5):
            assert len(read(tmp_path, write(sent, INTERFACES, Logged(seed=seed)))[1]) == 2
    for write_zeek in (write_zeek_tsv, write_zeek_json):
        assert len(read(tmp_path, write_zeek(sent))[1]) == 1


def test_what_one_end_blocks_never_reaches_the_other_end(tmp_path: Path) -> None:
    packets = raw([Sent(START, "10.0.0.5", "10.0.1.9", f.udp(40000, 5432)),
                   Sent(START + 1, "198.51.100.7", "10.0.1.9", f.udp(40000, 53))])  # fmt: skip

    def blocks(at: str) -> Logged:
        def blocked(packet: Packet, interface: str, direction: str) -> bool:
            return (interface, direction) == tuple(at.split())

        return Logged(blocked=blocked)

    for at, seen in (
        ("web egress", {("web", 5432, "REJECT"), ("db", 53, "ACCEPT")}),
        ("db ingress", {("web", 5432, "ACCEPT"), ("db", 5432, "REJECT"), ("db", 53, "REJECT")}),
        ("nobody", {("web", 5432, "ACCEPT"), ("db", 5432, "ACCEPT"), ("db", 53, "ACCEPT")}),
    ):
        for write in (write_aws, write_otc, write_neutron):
            log, rows = read(tmp_path, write(packets, INTERFACES, blocks(at)))
            words = {c.ACTION_ACCEPTED: "ACCEPT", c.ACTION_REJECTED: "REJECT"}
            assert {(log.words[r["interface"]], int(r["dport"]), words[int(r["action"])]) for r in rows} == seen, at


def test_aws_shows_the_primary_address_and_the_packets_own_one(tmp_path: Path) -> None:
    sent = [Sent(START, "198.51.100.7", "10.0.0.50", f.tcp(40000, 443, "S")),
            Sent(START, "10.0.0.50", "198.51.100.7", f.tcp(443, 40000, "SA"))]  # fmt: skip
    _, rows = read(tmp_path, write_aws(raw(sent), INTERFACES, fields=AWS_V5))
    found = {(end(r, "src"), end(r, "dst"), end(r, "pkt_src"), end(r, "pkt_dst"), int(r["direction"])) for r in rows}
    assert found == {
        ("198.51.100.7", "10.0.0.5", "198.51.100.7", "10.0.0.50", c.DIRECTION_INGRESS),
        ("10.0.0.5", "198.51.100.7", "10.0.0.50", "198.51.100.7", c.DIRECTION_EGRESS),
    }


def test_tcp_flags_of_an_interval_are_combined_as_aws_does(tmp_path: Path) -> None:
    def flags(*sent: tuple[float, str]) -> list[int]:
        packets = [Sent(START + int(at * SECOND), "198.51.100.7", "10.0.0.5", f.tcp(4000, 443, letters))
                   for at, letters in sent]  # fmt: skip
        _, rows = read(tmp_path, write_aws(raw(packets), {"web": ["10.0.0.5"]}, fields=AWS_V5))
        return [int(row["tcp_flags"]) for row in sorted(rows, key=lambda row: int(row["start_ns"]))]

    assert flags((0, "S"), (0, "A"), (0, "PA"), (0, "FA")) == [3]
    assert flags((0, "SA"), (0, "A"), (0, "FA")) == [19]
    assert flags((0, "S"), (200, "PA"), (400, "R")) == [2, 0, 4]


def test_what_aws_never_logs_is_in_no_log_of_aws(tmp_path: Path) -> None:
    web = "10.0.0.5"
    unlogged = [
        (web, "10.0.0.2", f.udp(40000, 53)), ("10.0.0.2", web, f.udp(53, 40000)),
        (web, "10.0.0.2", f.tcp(4000, 53, "S")), (web, "169.254.169.253", f.udp(40000, 53)),
        (web, "255.255.255.255", f.udp(68, 67)), ("10.0.0.1", web, f.udp(67, 68)),
        (web, "169.254.169.254", f.tcp(4000, 80, "S")), (web, "169.254.169.123", f.udp(123, 123)),
        ("2001:db8::5", "fe80::2", f.udp(546, 547)),
    ]  # fmt: skip
    logged = [(web, "10.0.0.2", f.tcp(4000, 22, "S")), (web, "8.8.8.8", f.udp(40000, 53))]
    for packets, records in ((unlogged, 0), (logged, 2)):
        sent = raw(Sent(START, *ends) for ends in packets)
        log, _ = read(tmp_path, write_aws(sent, INTERFACES))
        # One of three interfaces has traffic.
        assert (log.records, log.nodata) == (records, 2 if records else 3)
    log, _ = read(tmp_path, write_otc(raw(Sent(START, *ends) for ends in unlogged), INTERFACES))
    assert log.records == len(unlogged)


def test_neutron_logs_the_first_packet_of_a_session_at_each_end_and_every_drop(tmp_path: Path) -> None:
    web, db, out = "10.0.0.5", "10.0.1.9", "198.51.100.7"

    def tcp(at: float, way: str, flags: str) -> Sent:
        ends, ports = ((web, db), (4000, 5432)) if way == ">" else ((db, web), (5432, 4000))
        return Sent(START + int(at * SECOND), *ends, f.tcp(*ports, flags))

    opened = [tcp(0, ">", "S"), tcp(1, ">", "S"), tcp(2, "<", "SA"), tcp(3, ">", "A")]
    closed = [tcp(4, ">", "FA"), tcp(5, "<", "FA"), tcp(6, ">", "A")]
    again = [tcp(9, ">", "S"), tcp(9, "<", "SA")]
    ping = [Sent(START + at * SECOND, *ends, f.icmp(kind, 0, number)) for at, ends, kind, number in (
        (0, (out, web), 8, 1), (1, (web, out), 0, 1), (2, (out, web), 8, 1), (3, (out, web), 8, 2),
        (40, (out, web), 8, 1),
    )]  # fmt: skip
    dns = [Sent(START + at * SECOND, out, web, f.udp(4000, 53)) for at in (0, 29, 58, 88)]
    for sent, accepted in (
        (opened, 2), (opened + closed, 2), ([*opened, *closed, *again], 4), (opened + again, 2),
        ([tcp(0, ">", "A"), tcp(1, "<", "PA")], 0), (ping, 3), (dns, 2),
        ([Sent(START, out, web, f.icmp_error(3, 1, f.ipv4(web, out, f.udp(1, 2))))], 0),
    ):  # fmt: skip
        for dated in (True, False):
            text = write_neutron(raw(sent), INTERFACES, dated=dated)
            assert text.count(b"action=ACCEPT") == accepted and text.count(b"\n") == accepted, sent
            if accepted:
                _, rows = read(tmp_path, text)
                assert (rows["opener"] == c.OPENER_SOURCE).all() and flow(rows[0])[:2] == (sent[0].src, sent[0].dst)
                assert (int(rows[0]["start_ns"]) == START) == dated
    drops = Logged(blocked=lambda packet, interface, direction: direction == "ingress")
    log, rows = read(tmp_path, write_neutron(raw(opened), INTERFACES, drops))
    accepts, rejects = c.ACTION_ACCEPTED, c.ACTION_REJECTED
    # The SYN leaves twice, of which the second one is of the same session, and never arrives.
    assert [(log.words[row["interface"]], int(row["action"])) for row in rows] == [
        ("web", accepts), ("db", rejects), ("db", rejects), ("web", rejects), ("db", rejects),
    ]  # fmt: skip


def zeek_rows(text: bytes) -> list[dict[str, str]]:
    fields: Sequence[str] = ()
    found = []
    for line in text.decode().splitlines():
        if line.startswith("#fields\t"):
            fields = line.split("\t")[1:]
        elif not line.startswith("#"):
            found.append(dict(zip(fields, line.split("\t"), strict=True)))
    return found


#: conn_state and history by the packets of a connection to port 9999: way, flags, bytes of payload, seconds later.
ZEEK: Mapping[str, tuple[str, str]] = {
    ">S >S": ("S0", "S"),
    ">S <RA": ("REJ", "Sr"),
    ">S <SA >A": ("S1", "ShA"),
    ">S <SA >A >PA9 <PA9 >FA <FA >A": ("SF", "ShADdFf"),
    ">S <SA >A >FA <A": ("S2", "ShAFa"),
    ">S <SA >A <FA >A": ("S3", "ShAf"),
    ">S <SA >A >PA9 >R": ("RSTO", "ShADR"),
    ">S <SA >A >PA9 <R": ("RSTR", "ShADr"),
    ">S >R": ("RSTOS0", "SR"),
    ">S >FA": ("SH", "SF"),
    "<SA <FA": ("SH", "HF"),
    ">A <PA9": ("OTH", "Ad"),
    ">PA9 <A": ("OTH", "Da"),
}


@pytest.mark.parametrize("spelled", ZEEK)
def test_state_and_history_of_zeek_tell_how_a_connection_went(tmp_path: Path, spelled: str) -> None:
    sent = []
    for n, word in enumerate(spelled.split()):
        ends, ports = (("198.51.100.7", "10.0.0.5"), (40000, 9999)) if word[0] == ">" else (
            ("10.0.0.5", "198.51.100.7"), (9999, 40000))  # fmt: skip
        letters = word[1:].rstrip("9")
        sent.append(Sent(START + n * SECOND // 10, *ends, f.tcp(*ports, letters, bytes(9 * word.count("9")))))
    (row,) = zeek_rows(write_zeek_tsv(raw(sent)))
    assert (row["conn_state"], row["history"]) == ZEEK[spelled]
    ways = Counter(word[0] == spelled[0] for word in spelled.split())
    assert (int(row["orig_pkts"]), int(row["resp_pkts"])) == (ways[True], ways[False])
    for text in (write_zeek_tsv(raw(sent)), write_zeek_json(raw(sent))):
        log, (found,) = read(tmp_path, text)
        assert CONN_STATES[found["conn_state"]] == ZEEK[spelled][0] and "Zeek" in str(log.format)


def test_zeek_writes_a_connection_when_it_ends_and_splits_it_after_silence(tmp_path: Path) -> None:
    web, out = "10.0.0.5", "198.51.100.7"

    def udp(at: int) -> Sent:
        return Sent(START + at * SECOND, out, web, f.udp(40000, 9999))

    def tcp(at: int, port: int, flags: str, way: int = 0) -> Sent:
        ends, ports = ((out, web), (40000, port)) if not way else ((web, out), (port, 40000))
        return Sent(START + at * SECOND, *ends, f.tcp(*ports, flags))

    handshakes = [tcp(0, port, flags, way) for port in (22, 443) for flags, way in (("S", 0), ("SA", 1), ("A", 0))]
    sent = [
        *handshakes, tcp(1, 5432, "S"), udp(1), udp(60), tcp(60, 443, "PA"), tcp(100, 5432, "S"), udp(121),
        tcp(361, 443, "PA"), tcp(3000, 22, "PA"), tcp(6599, 22, "PA"),
    ]  # fmt: skip
    rows = zeek_rows(write_zeek_tsv(raw(sent)))
    ended = [(int(float(row["ts"])) - START // SECOND, row["id.resp_p"], int(row["orig_pkts"])) for row in rows]
    assert ended[:-1] == [
        (1, "5432", 1), (100, "5432", 1), (1, "9999", 2), (121, "9999", 1), (0, "443", 3), (361, "443", 1),
    ]  # fmt: skip
    assert ended[-1] == (0, "22", 4)


def test_zeek_turns_a_connection_to_whoever_has_the_port_of_a_server() -> None:
    web, out = "10.0.0.5", "198.51.100.7"
    for layers, state, history in (
        ([f.tcp(443, 40000, "A")], "OTH", "^a"), ([f.tcp(443, 40000, "SA"), f.tcp(443, 40000, "FA")], "SHR", "^hf"),
        ([f.tcp(443, 40000, "SA"), f.tcp(443, 40000, "R")], "RSTRH", "^hr"), ([f.udp(53, 40000)], "SHR", "^d"),
    ):  # fmt: skip
        (row,) = zeek_rows(write_zeek_tsv(raw(Sent(START, web, out, layer) for layer in layers)))
        assert (row["id.orig_h"], row["conn_state"], row["history"]) == (out, state, history)


def test_icmp_is_a_connection_between_a_type_and_the_type_of_its_answer(tmp_path: Path) -> None:
    web, out, six = "10.0.0.5", "198.51.100.7", "2001:db8::5"
    error = f.icmp_error(3, 1, f.ipv4(web, out, f.udp(1, 2)))
    sent = [
        Sent(START, out, web, f.icmp(8, 0, 1)), Sent(START + SECOND, web, out, f.icmp(0, 0, 1)),
        Sent(START + SECOND, out, web, error), Sent(START + SECOND, six, "2001:db8::9", f.icmpv6(128, 0, 1)),
        Sent(START + 2 * SECOND, "2001:db8::9", six, f.icmpv6(129, 0, 1)),
    ]  # fmt: skip
    rows = {(row["id.orig_h"], row["id.orig_p"], row["id.resp_p"], row["orig_pkts"], row["resp_pkts"])
            for row in zeek_rows(write_zeek_tsv(raw(sent)))}  # fmt: skip
    assert rows == {(out, "8", "0", "1", "1"), (out, "3", "1", "1", "0"), (six, "128", "129", "1", "1")}


def test_logs_of_zeek_are_read_back_with_the_packets_and_bytes_that_were_sent(tmp_path: Path) -> None:
    for seed in range(some(4, 100)):
        sent = crowd(seed)
        tables = [read(tmp_path, write(raw(sent)))[1] for write in (write_zeek_tsv, write_zeek_json)]
        for rows in tables:
            assert rows["packets"].sum() + rows["packets_back"].sum() == len(sent)
            assert rows["bytes"].sum() + rows["bytes_back"].sum() == sum(p.size for p in sent)
            found = {frozenset(flow(row)[:2]) for row in rows}
            assert found == {frozenset((p.src, p.dst)) for p in sent}
            starts = rows["start_ns"].tolist()
            assert starts != sorted(starts)
        assert tables[0]["packets"].tolist() == tables[1]["packets"].tolist()


@pytest.mark.skipif(not all(path.exists() for path in ZEEK_PAIR), reason="no corpus here (set SGFAST_CORPUS)")
def test_zeek_itself_wrote_the_same_log_from_the_capture_of_the_corpus(tmp_path: Path) -> None:
    capture, log = (gzip.decompress(path.read_bytes()) for path in ZEEK_PAIR)
    text = write_zeek_tsv([(p.time_ns, p.data, p.link_type) for p in plain_read(capture).packets])
    # Zeek also names services, and its identifiers are random.
    differing = {"uid", "service", "community_id"}
    own, original = ([{name: word for name, word in row.items() if name not in differing} for row in zeek_rows(content)]
                     for content in (text, log))  # fmt: skip
    # The four that are open at the end of the capture come in the order of a hash table.
    assert own[:-4] == original[:-4] and len(own) == 23
    by_opener = [{row["id.orig_h"] + row["id.orig_p"]: row for row in rows[-4:]} for rows in (own, original)]
    assert by_opener[0] == by_opener[1]


def test_odd_packets_make_no_broken_line(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @drawn(20261201, some(6, 300))
    def check(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        traffic = Crowd(policy, rng, fragments=True).draw(500)
        packets = [(at, frame, f.LINK_ETHERNET) for at, frame in zip(traffic.times_ns, traffic.frames, strict=True)]
        interfaces = {instance.name: instance.addresses for instance in policy.instances}
        draw = random.Random(case_seed)
        logged = Logged(600, case_seed, blocked=lambda packet, interface, direction: draw.random() < 0.3)
        accepted = replace(logged, blocked=lambda packet, interface, direction: False)
        texts = {
            "aws": write_aws(packets, interfaces, logged, fields=AWS_V5), "otc": write_otc(packets, interfaces, logged),
            "neutron": write_neutron(packets, interfaces, logged), "tsv": write_zeek_tsv(packets),
            "json": write_zeek_json(packets), "accepted": write_aws(packets, interfaces, accepted),
        }  # fmt: skip
        for form, text in texts.items():
            if text:
                _, rows = read(tmp_path, text)
                seen[form] += len(rows)
                assert form != "accepted" or (rows["action"] == c.ACTION_ACCEPTED).all()
                for name in COUNTERS if form in ("tsv", "json") else COUNTERS[:2] if form != "neutron" else ():
                    assert (rows[name] >= 0).all(), (form, name)
        logged_by_zeek = [p for p in parsed(packets) if p.protocol in (1, 6, 17, 58) and not p.is_later_fragment]
        _, rows = read(tmp_path, texts["tsv"])
        assert rows["packets"].sum() + rows["packets_back"].sum() == len(logged_by_zeek)
        assert rows["bytes"].sum() + rows["bytes_back"].sum() == sum(p.size for p in logged_by_zeek)

    check()
    print(seen)
    assert min(seen[form] for form in ("aws", "otc", "neutron", "tsv", "json", "accepted")) > 100
