"""Captures that are written: the packets as they came, each with its verdict; Wireshark's tools read them
(SPEC 10.9).
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest
from captures import FURTHEST_NS, Packet, enhanced, interface, option, plain_read, section
from effort import some
from test_report_lines import NAMES, peak_bytes, random_packets
from wireshark import capinfos, comment_of, needs_capinfos, needs_tshark, tshark

from sgfast.core.base.frames import FrameBatch
from sgfast.engine import NO_SIDE, VERDICTS
from sgfast.errors import OutputError
from sgfast.replaying import Names
from sgfast.report.captures import PcapngWriter, PcapWriter
from sgfast.report.lines import VerdictLines


def comments_in(data: bytes) -> list[str | None]:
    """Of the packets of a little-endian pcapng, block by block."""
    found: list[str | None] = []
    at = 0
    while at < len(data):
        kind, total = (int.from_bytes(data[at + n : at + n + 4], "little") for n in (0, 4))
        if kind == 6:
            captured = int.from_bytes(data[at + 20 : at + 24], "little")
            options = data[at + 28 + captured + -captured % 4 : at + total - 4]
            comment = None
            if options:
                code, length = (int.from_bytes(options[n : n + 2], "little") for n in (0, 2))
                assert code == 1 and options[4 + length :] == bytes(-length % 4) + bytes(4)
                comment = options[4 : 4 + length].decode("utf-8")
            found.append(comment)
        at += total
    return found


def random_frames(rng: np.random.Generator, n: int, link_type: int = 1) -> FrameBatch:
    data = [rng.bytes(int(size)) for size in rng.integers(0, 100, n)]
    wires = [len(frame) + int(more) for frame, more in zip(data, rng.choice([0, 0, 1, 60_000], n), strict=True)]
    times = [int(t) for t in rng.integers(0, 2**32 * 10**9, n)]
    return FrameBatch.from_frames(data, times, wires, link_type)


def packets_of(batches: Collection[FrameBatch]) -> list[Packet]:
    return [Packet(*frame) for batch in batches for frame in batch]


def write(sink: Any, batches: Collection[FrameBatch], rows: Collection[Any], names: Names = NAMES) -> None:
    sink.begin(names)
    for batch, (headers, results) in zip(batches, rows, strict=True):
        sink.write(batch, 0, headers, results)
    sink.close()


@pytest.mark.parametrize("seed", range(some(4, 10)))
def test_packets_are_written_as_they_came(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    sizes = (1, 200, 0, 77)
    rows = [random_packets(seed * 1000 + n, n) for n in sizes]
    mixed = [random_frames(rng, n, link) for n, link in zip(sizes, (1, 101, 276, 1), strict=True)]
    plain = [random_frames(rng, n) for n in sizes]
    verdicts = [VERDICTS[n] for _, results in rows for n in results["verdict"]]
    for chosen in (VERDICTS, ("deny",), ("allow", "not-ip"), ()):
        for batches, kind in ((mixed, PcapngWriter), (plain, PcapWriter)):
            written: list[bytes] = []
            arguments = ("name",) if kind is PcapWriter else ()
            write(kind(written.append, *arguments, chosen), batches, rows)
            outcome = plain_read(b"".join(written))
            assert outcome.end == "clean"
            expected = [p for p, verdict in zip(packets_of(batches), verdicts, strict=True) if verdict in chosen]
            assert outcome.packets == expected


@pytest.mark.parametrize("seed", range(some(4, 10)))
def test_comments_say_what_the_lines_say(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    rows = [random_packets(seed * 1000 + n, n) for n in (1, 100, 0, 200)]
    names = Names(("web-1", "web-2", "db-1"), ("web/inbound/1", "web-ssh", "x"), 0)
    written: list[bytes] = []
    lines: list[bytes] = []
    write(PcapngWriter(written.append, comments=True), [random_frames(rng, len(h)) for h, _ in rows], rows, names)
    sink = VerdictLines(lines.append)
    sink.begin(names)
    for headers, results in rows:
        sink.write(headers, results)
    assert comments_in(b"".join(written)) == [comment_of(json.loads(line)) for line in b"".join(lines).splitlines()]


def test_dpkt_reads_them() -> None:
    batch = FrameBatch.from_frames([b"one", b"three"], [5_000_000_007, 6_000_000_008])
    rows = random_packets(1, 2)
    for kind, arguments, reader in (
        (PcapngWriter, (), dpkt.pcapng.Reader),
        (PcapWriter, ("name",), dpkt.pcap.Reader),
    ):
        written: list[bytes] = []
        write(kind(written.append, *arguments), [batch], [rows])
        theirs = list(reader(io.BytesIO(b"".join(written))))
        assert [frame for _, frame in theirs] == [b"one", b"three"]
        assert [round(float(time) * 1e9) for time, _ in theirs] == [5_000_000_007, 6_000_000_008]


def test_a_part_of_a_batch() -> None:
    batch = FrameBatch.from_frames([b"a", b"bb", b"ccc", b"dddd"], [1, 2, 3, 4])
    headers, results = random_packets(1, 2)
    written: list[bytes] = []
    sink = PcapngWriter(written.append)
    sink.begin(NAMES)
    sink.write(batch, 1, headers, results)
    assert [packet.data for packet in plain_read(b"".join(written)).packets] == [b"bb", b"ccc"]
    for first in (-1, 3, 4, 2**62):
        with pytest.raises(ValueError, match="not have that many frames"):
            sink.write(batch, first, headers, results)
    for wrong in ((headers, results[:1]), (results, results)):
        with pytest.raises(ValueError, match=r"(rows|results) must"):
            sink.write(batch, 0, *wrong)


def test_times_of_every_year(tmp_path: Path) -> None:
    # Ticks are no negative number: what is older than 1970 has an interface of its own, with an offset.
    times = [0, 1, -1, -(10**9) - 1, 2**32 * 10**9, FURTHEST_NS, -4_611_686_017_999_999_999, 999_999_999]
    batch = FrameBatch.from_frames([b"x" * 20] * len(times), times)
    written: list[bytes] = []
    write(PcapngWriter(written.append), [batch], [random_packets(1, len(times))])
    assert [packet.time_ns for packet in plain_read(b"".join(written)).packets] == times
    for time_ns in (-(2**62), -(2**63)):
        earliest: list[bytes] = []
        write(PcapngWriter(earliest.append), [FrameBatch.from_frames([b"x"], [time_ns])], [random_packets(1, 1)])
        assert [p.time_ns for p in plain_read(b"".join(earliest)).packets] == [-4_611_686_018 * 10**9]
    for time_ns in (-1, 2**32 * 10**9):
        with pytest.raises(OutputError, match="1970 or after 2106, as packet 1 has"):
            write(
                PcapWriter(written.append, "x.pcap"), [FrameBatch.from_frames([b"x"], [time_ns])],
                [random_packets(1, 1)],
            )  # fmt: skip
    latest: list[bytes] = []
    last = FrameBatch.from_frames([b"x"], [2**32 * 10**9 - 1])
    write(PcapWriter(latest.append, "x"), [last], [random_packets(1, 1)])
    assert [p.time_ns for p in plain_read(b"".join(latest)).packets] == [2**32 * 10**9 - 1]


def test_pcap_holds_one_link_type() -> None:
    headers, results = random_packets(1, 1)
    results["verdict"] = VERDICTS.index("deny")
    others = results.copy()
    others["verdict"] = VERDICTS.index("allow")
    cooked, ethernet = (FrameBatch.from_frames([b"x"], [1], None, link) for link in (113, 1))
    written: list[bytes] = []
    # Packets that are not written may be of any.
    batches, rows = [ethernet, cooked, ethernet], [(headers, others), (headers, results), (headers, others)]
    write(PcapWriter(written.append, "x", ("deny",)), batches, rows)
    assert [packet.link_type for packet in plain_read(b"".join(written)).packets] == [113]
    with pytest.raises(OutputError, match=r"x\.pcap: .*LINUX_SLL.*packet 2 is .*ETHERNET.*\.pcapng"):
        write(PcapWriter(written.append, "x.pcap", ("deny",)), [cooked, ethernet], [(headers, results)] * 2)


def test_link_types_nobody_reads_are_refused() -> None:
    rows = random_packets(1, 1)
    sink = PcapngWriter(lambda data: None)
    sink.begin(NAMES)
    for link_type in range(64):
        sink.write(FrameBatch.from_frames([b"x"], [1], None, link_type), 0, *rows)
    for link_type in (64, 2**16, 2**32 - 1):
        with pytest.raises(ValueError, match="link type"):
            sink.write(FrameBatch.from_frames([b"x"], [1], None, link_type), 0, *rows)


def test_names_of_any_length_and_kind_leave_a_file_that_is_one() -> None:
    names = Names(("ü" * 100_000, "b\n"), ("\0" * 300_000, "\udcff"), 0)
    headers, results = random_packets(1, 4)
    for side in ("egress", "ingress"):
        results[side]["verdict"] = 0
        results[side]["instance"], results[side]["rule"] = [0, 1, 0, 1], [0, 1, 1, 0]
    written: list[bytes] = []
    batch = FrameBatch.from_frames([b"a", b"", b"ccc", b"dddd"], [1, 2, 3, 4])
    write(PcapngWriter(written.append, comments=True), [batch], [(headers, results)], names)
    data = b"".join(written)
    assert plain_read(data).end == "clean" and plain_read(data).packets == packets_of([batch])
    comments = comments_in(data)
    assert all(comment is not None and comment.isprintable() for comment in comments)
    assert "egress b\\n: allow" in str(comments[1]) and "by \\udcff" in str(comments[1])


def test_without_packets_it_is_a_capture() -> None:
    for sink_of in (
        lambda write: PcapngWriter(write, comments=True),
        lambda write: PcapngWriter(write, ("deny",)),
        lambda write: PcapWriter(write, "x"),
    ):
        written: list[bytes] = []
        sink = sink_of(written.append)
        sink.begin(NAMES)
        assert not written
        sink.close()
        outcome = plain_read(b"".join(written))
        assert outcome.end == "clean" and outcome.packets == []


def test_a_number_that_stands_for_nothing_is_an_error() -> None:
    batch = FrameBatch.from_frames([b"x"] * 3, [1, 2, 3])
    headers, results = random_packets(1, 3)
    results["egress"] = results["ingress"] = (0, 0, 0, 1, 0)
    for side, name in (("", "verdict"), ("", "reason"), ("egress", "instance"), ("ingress", "rule")):
        wrong = results.copy()
        (wrong[side] if side else wrong)[name][1] = 200
        sink = PcapngWriter(lambda data: None, comments=True)
        sink.begin(NAMES)
        with pytest.raises(IndexError):
            sink.write(batch, 0, headers, wrong)


def test_an_error_of_what_they_are_written_to_passes() -> None:
    def full(data: bytes) -> None:
        raise BrokenPipeError

    for sink in (PcapngWriter(full), PcapWriter(full, "x")):
        with pytest.raises(BrokenPipeError):
            write(sink, [FrameBatch.from_frames([b"x"], [1])], [random_packets(1, 1)])


def test_many_packets_are_written_piece_by_piece() -> None:
    pieces: list[bytes] = []
    batch = FrameBatch.from_frames([bytes(1500)] * 2000, range(2000))
    write(PcapngWriter(pieces.append, comments=True), [batch], [random_packets(1, 2000)])
    assert len(pieces) > 5 and max(map(len, pieces)) < 300_000
    assert plain_read(b"".join(pieces)).packets == packets_of([batch])


def test_a_packet_longer_than_what_is_written_at_a_time() -> None:
    batch = FrameBatch.from_frames([b"a", bytes(3_000_001), b"", b"b"], [1, 2, 3, 4])
    rows = random_packets(1, 4)
    for kind, arguments in ((PcapngWriter, ()), (PcapWriter, ("x",))):
        written: list[bytes] = []
        write(kind(written.append, *arguments), [batch], [rows])
        assert plain_read(b"".join(written)).packets == packets_of([batch])


def test_packets_take_no_memory_each() -> None:
    batch = FrameBatch.from_frames([bytes(100)] * 50_000, range(50_000))
    headers, results = random_packets(1, 50_000)
    sink = PcapngWriter(lambda data: None, comments=True)
    sink.begin(NAMES)
    sink.write(batch, 0, headers, results)
    few = peak_bytes(lambda: sink.write(batch, 0, headers[:5000], results[:5000]))
    assert peak_bytes(lambda: sink.write(batch, 0, headers, results)) < few + 100_000


# Wireshark's tools


def numbered(n: int) -> tuple[Any, Any]:
    headers, results = random_packets(1, n)
    results["verdict"], results["reason"] = np.arange(n) % 2, np.where(np.arange(n) % 2, 5, 2)
    results["egress"] = (-1, -1, NO_SIDE, 0, 0)
    results["ingress"] = (1, 1, 0, 1, 0)
    return headers, results


@needs_tshark
def test_tshark_shows_packets_times_and_comments(tmp_path: Path) -> None:
    frames = [bytes(60) for _ in range(6)]
    times = [1_700_000_000_123_456_789 + n for n in range(4)] + [5, 2**32 * 10**9 + 1]
    wires = [60, 1500, 60, 60, 60, 9000]
    path = tmp_path / "x.pcapng"
    with path.open("wb") as file:
        batch = FrameBatch.from_frames(frames, times, wires)
        names = Names(("web-1", "ünï, \"x\""), ("r", "web/inbound/1"), 0)
        write(PcapngWriter(file.write, comments=True), [batch], [numbered(6)], names)
    rows = tshark(path, "frame.time_epoch", "frame.len", "frame.cap_len", "frame.comment")
    assert [row[0] for row in rows] == [f"{t // 10**9}.{t % 10**9:09d}" for t in times]
    assert [(int(row[1]), int(row[2])) for row in rows] == [(wire, 60) for wire in wires]
    outcomes = ["allow (established)", "deny (no-rule)"]
    told = [row[3].replace('\\"', '"') for row in rows]
    assert told == [f'{outcomes[n % 2]}; ingress ünï, "x": allow (rule) by web/inbound/1' for n in range(6)]


@needs_capinfos
def test_capinfos_agrees(tmp_path: Path) -> None:
    batches = [
        FrameBatch.from_frames([bytes(60)] * 3, [10**18 + n for n in range(3)], [60, 70, 80], link) for link in (1, 113)
    ]
    for suffix, chosen in (("pcapng", batches), ("pcap", batches[:1])):
        path = tmp_path / f"x.{suffix}"
        with path.open("wb") as file:
            sink: Any = PcapngWriter(file.write) if suffix == "pcapng" else PcapWriter(file.write, "x")
            write(sink, chosen, [numbered(3)] * len(chosen))
        told = capinfos(path)
        n = 3 * len(chosen)
        assert int(told["Number of packets"]) == n
        assert told["File time precision"] == "nanoseconds"
        assert told["File encapsulation"] == ("per-packet" if len(chosen) == 2 else "ether")
        assert int(told["Data size (bytes)"]) == 210 * len(chosen)
        assert (told["Start time"], told["End time"]) == ("1000000000.000000000", "1000000000.000000002")


def test_the_section_says_who_wrote_it() -> None:
    written: list[bytes] = []
    PcapngWriter(written.append).close()
    assert b"".join(written) == section(options=option(4, b"sgfast") + option(0, b""))
    batch = FrameBatch.from_frames([b"x"], [7])
    write(PcapngWriter(written.append), [batch], [random_packets(1, 1)])
    described = interface(options=option(9, b"\x09") + option(0, b""))
    assert b"".join(written).endswith(described + enhanced(b"x", ticks=7))
