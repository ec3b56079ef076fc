"""Captures that are written: the packets as they came, each with its verdict (SPEC 10.9).

That Wireshark's tools read them is tested with the command, in ``tests/cli/test_cli_outputs.py``.
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
from wireshark import comment_of

from sgfast.base.errors import OutputError
from sgfast.core.base.frames import FrameBatch
from sgfast.engine import VERDICTS
from sgfast.questions.replaying import Names
from sgfast.report.captures import PcapngWriter, PcapWriter
from sgfast.report.lines import VerdictLines


def comments_in(data: bytes) -> list[str | None]:
    """Return the comments on the packets of a little-endian pcapng, block by block."""
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


def test_the_section_says_who_wrote_it() -> None:
    written: list[bytes] = []
    PcapngWriter(written.append).close()
    assert b"".join(written) == section(options=option(4, b"sgfast") + option(0, b""))
    batch = FrameBatch.from_frames([b"x"], [7])
    write(PcapngWriter(written.append), [batch], [random_packets(1, 1)])
    described = interface(options=option(9, b"\x09") + option(0, b""))
    assert b"".join(written).endswith(described + enhanced(b"x", ticks=7))
