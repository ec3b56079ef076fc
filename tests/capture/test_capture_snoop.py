"""The snoop reader."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from captures import MOST, Dribble, Packet, read
from captures import SNOOP_HEAD as HEAD
from captures import snoop_record as record
from wireshark import needs_tshark


def test_times_lengths_and_bytes() -> None:
    data = HEAD + record(b"abc", (1_700_000_000, 999_999), 1500) + record(b"", (1, 2), 60) + record(b"abcd", wire=1)
    assert read(data).packets == [
        Packet(1_700_000_000_999_999_000, b"abc", 1500, 1), Packet(1_000_002_000, b"", 60, 1), Packet(0, b"abcd", 4, 1),
    ]  # fmt: skip
    assert read(HEAD) == ([], None, None)


def test_cut_at_every_byte() -> None:
    records = [record(bytes([n]) * n, (n, n)) for n in (1, 0, 13, 4)]
    data = HEAD + b"".join(records)
    boundaries = [len(HEAD) + sum(map(len, records[:n])) for n in range(len(records) + 1)]
    whole = read(data).packets
    for cut in range(len(data)):
        for sizes in ((cut + 1,), (1,)):
            packets, damage, error = read(Dribble(data[:cut], sizes))
            if cut < len(HEAD):
                assert error is not None
                continue
            complete = sum(boundary <= cut for boundary in boundaries) - 1
            assert packets == whole[:complete] and (damage is None) == (cut in boundaries)
            if damage is not None:
                assert (damage.offset, damage.packet) == (boundaries[complete], complete + 1)


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (record(b"abc", total=26), "a captured length of 3 bytes in a record of 26"),
        (record(b"", total=23), "in a record of 23"),
        (record(b"", total=0), "in a record of 0"),     # zeros
        (record(b"abc", captured=0xFFFFFFFF), "a captured length of 4294967295 bytes"),
        (record(b"abc", total=MOST + 1), f"a record length of {MOST + 1} bytes, more than {MOST}"),
        (record(b"abc", total=MOST), "the file ends in the middle of a record"),
    ],
)
def test_lengths_that_cannot_be_are_damage(bad: bytes, cause: str) -> None:
    outcome = read(HEAD + record(b"ok") + bad)
    assert len(outcome.packets) == 1 and outcome.damage is not None and cause in outcome.damage.cause
    assert outcome.damage.offset == len(HEAD) + 28


def test_longer_padding_is_skipped() -> None:
    data = HEAD + (record(b"abc", total=24 + 40) + bytes(36)) * 2
    assert [packet.data for packet in read(data).packets] == [b"abc", b"abc"]


def test_other_versions_and_links_are_refused() -> None:
    for version, link, words in ((1, 4, "snoop version 1 is not"), (3, 4, "version 3"), (2, 8, "data link type 8 is")):
        error = read(b"snoop\0\0\0" + struct.pack(">II", version, link)).error
        assert error is not None and words in error
    assert len(read(b"snoop\0\0\0" + struct.pack(">II", 2, 0) + record(b"x")).packets) == 1


def test_more_than_a_batch_and_records_larger_than_the_buffer() -> None:
    sizes = [100, 3_000_000, 5, 700_000, 0] + [60] * 20_000
    data = HEAD + b"".join(record(bytes([n & 255]) * size) for n, size in enumerate(sizes))
    assert [len(packet.data) for packet in read(Dribble(data, (70_000, 1, 300_001))).packets] == sizes


@needs_tshark
def test_tshark_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.snoop"
    path.write_bytes(HEAD + record(bytes(64), (1000, 5), 90) + record(bytes(61), (1001, 6)))
    fields = [argument for name in ("time_epoch", "len", "cap_len") for argument in ("-e", f"frame.{name}")]
    run = subprocess.run(["tshark", "-r", path, "-T", "fields", *fields], capture_output=True, text=True, check=True)
    told = [line.split() for line in run.stdout.splitlines()]
    assert [(float(time), int(wire), int(captured)) for time, wire, captured in told] == [
        (packet.time_ns / 10**9, packet.wire, len(packet.data)) for packet in read(path.read_bytes()).packets
    ]
