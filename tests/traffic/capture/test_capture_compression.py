"""Compressed captures: every format, in pieces, several members, damage, bombs (SPEC 9.6)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from captures import Dribble, Outcome, count, pcap_head, pcap_record, read, zstd
from command import SHOP, handshake, process, sgfast, write_capture, write_policy
from effort import some
from growth import memory, operations
from packed import zstd_raw_frame

from sgfast.base.errors import pip_install
from sgfast.base.streams import compression
from sgfast.traffic.capture import CaptureReader

Capsys = pytest.CaptureFixture[str]
Compress = Callable[[bytes], bytes]


def lz4(data: bytes) -> bytes:
    return pytest.importorskip("lz4.frame").compress(data, content_checksum=True)


FORMATS: dict[str, Compress] = {
    "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd, "lz4": lz4,
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", FORMATS)

SEED = 20261125


def capture(packets: int = 300, seed: int = SEED) -> bytes:
    """Packets of 50 to 150 bytes, half of which compress."""
    draw = random.Random(seed)
    records = [
        pcap_record(draw.randbytes(draw.randrange(25, 75)) + bytes(draw.randrange(25, 75)), time=(n, n))
        for n in range(packets)
    ]
    return pcap_head() + b"".join(records)


PLAIN = capture()
WHOLE = read(PLAIN)


def damaged(outcome: Outcome) -> str:
    """The cause, of an outcome with the first packets and damage after them."""
    assert outcome.error is None and outcome.damage is not None
    assert outcome.packets == WHOLE.packets[: len(outcome.packets)]
    assert (outcome.damage.packet, outcome.damage.decompressed) == (len(outcome.packets) + 1, True)
    assert outcome.damage.cause.isprintable() and "once decompressed" in str(outcome.damage)
    return outcome.damage.cause


def packets_and_memory(data: bytes) -> tuple[int, int]:
    """Count the packets of a capture, and the most bytes of memory that reading it took."""
    with memory() as peak:
        reader = CaptureReader(io.BytesIO(data), "name")
        count(reader)
    return reader.packets, peak()


# Whole files


@EVERY
@pytest.mark.parametrize("sizes", [(1 << 30,), (1,), (7, 1, 3000)])
def test_the_same_packets_as_uncompressed(name: str, sizes: tuple[int, ...]) -> None:
    assert read(Dribble(FORMATS[name](PLAIN), sizes)) == WHOLE


def test_large_captures_go_through_in_little_memory() -> None:
    data = gzip.compress(pcap_head() + pcap_record(bytes(1000)) * 40_000, 1)
    packets, peak = packets_and_memory(data)
    assert packets == 40_000 and peak < 3_000_000


# Data behind the last member


@pytest.mark.parametrize("name", ["gzip", "bzip2"])
@pytest.mark.parametrize("rest", [b"x", b"\x1f\x8b", b"garbage that goes on" * 5000])
def test_what_follows_is_left_alone_where_the_command_does_so_and_remarked(name: str, rest: bytes) -> None:
    data = FORMATS[name](PLAIN) + rest
    assert read(data) == WHOLE
    reader = CaptureReader(io.BytesIO(data), "a\nb")
    count(reader)
    assert reader.remarks == [f"a\\nb: other data follows the {name} data and is ignored"]


@pytest.mark.parametrize("name", ["xz", "zstd", "lz4"])
@pytest.mark.parametrize("rest", [b"x", b"garbage that goes on" * 5000])
def test_what_follows_is_damage_where_the_command_says_so(name: str, rest: bytes) -> None:
    outcome = read(FORMATS[name](PLAIN) + rest)
    assert "other data follows it" in damaged(outcome) and len(outcome.packets) == 300


# Damage


@EVERY
def test_little_is_lost_before_damage_late_in_a_file(name: str) -> None:
    plain = capture(20_000)
    data = bytearray(FORMATS[name](plain))
    for at in range(len(data) * 9 // 10, len(data) * 9 // 10 + 300):
        data[at] ^= 0xFF
    packets, damage, error = read(bytes(data))
    assert error is None and damage is not None
    # lz4 and zstd compress 64 to 128 KiB at a time, bzip2 900 kB.
    enough = 20_000 * 9 // 10 - (9000 if name == "bzip2" else 2500)
    assert enough < len(packets) < 20_000
    if name != "lz4":       # whose blocks carry no checksum
        assert packets[:enough] == read(plain).packets[:enough]


@EVERY
def test_nothing_to_decompress_is_no_capture(name: str) -> None:
    head = FORMATS[name](PLAIN)[:8]
    for data in (head, head + b"\xff" * 100):
        error = read(data).error
        assert error is not None and f"cannot be read: the {name} data " in error


@EVERY
def test_compressed_twice_is_told(name: str) -> None:
    error = read(FORMATS[name](gzip.compress(PLAIN))).error
    assert error is not None and f"is gzip-compressed, and {name}-compressed once more: decompress it first" in error
    for inside, words in ((b"", "is empty"), (b"just text\n", "is text"), (b"ab", "is too short")):
        assert f"decompressed, it {words}" in (read(FORMATS[name](inside)).error or "")


@pytest.mark.parametrize(("name", "package"), [("zstd", "backports.zstd"), ("lz4", "lz4")])
def test_a_package_that_is_missing_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FORMATS[name](PLAIN)
    for module in ("compression.zstd", "backports.zstd", "lz4", "lz4.frame"):
        monkeypatch.setitem(sys.modules, module, None)
    error = read(data).error
    assert error is not None and f"is {name}-compressed, which takes the Python package {package}" in error
    assert pip_install("compressed") in error and "\n" not in error


# Bombs


def test_a_bomb_is_damage_once_it_is_large_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 50_000_000)
    data = gzip.compress(pcap_head() + bytes(100_000_000), 9)
    reader = CaptureReader(Dribble(data, (1000,)), "name")
    assert reader.next_batch() is None and reader.packets == 0
    # The damage is where the zeros begin.
    assert reader.damage is not None and "becomes more than 1000 times as large" in reader.damage.cause
    assert reader.damage.offset == len(pcap_head())
    assert 50_000_000 <= reader.bytes_read / len(data) * 100_000_000 < 53_000_000


@pytest.mark.parametrize(("window_log", "is_read"), [(26, True), (27, True), (28, False), (31, False)])
def test_zstd_window_at_below_and_above_the_limit(window_log: int, is_read: bool) -> None:
    zstd(b"")
    assert compression.MOST_WINDOW == 1 << 27
    # A small frame that says its size and comes whole would need no window. It is refused all the same.
    small = capture(100)
    for plain in (PLAIN, small):
        frame = zstd_raw_frame([plain], window_log=window_log, has_size=plain == small)
        for data in (frame, Dribble(frame, (1, 2, 3, 7)), Dribble(frame, (1000,))):
            outcome = read(data)
            assert (outcome == read(plain)) == is_read
            if not is_read:
                assert "the zstd data cannot be decompressed" in (outcome.error or "")


def test_xz_memory_at_below_and_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = lzma.compress(PLAIN, preset=0)
    low, high = 0, 1 << 27
    while high - low > 1:       # what liblzma wants for it
        middle = (low + high) // 2
        try:
            lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=middle).decompress(data)
            high = middle
        except lzma.LZMAError:
            low = middle
    for limit, is_read in ((high - 1, False), (high, True), (high + 1, True)):
        monkeypatch.setattr(compression, "MOST_WINDOW", limit)
        outcome = read(data)
        assert (outcome == WHOLE) == is_read
        if not is_read:
            assert "the xz data cannot be decompressed: Memory usage limit" in (outcome.error or "")
    monkeypatch.undo()
    assert read(lzma.compress(PLAIN, preset=9)) == WHOLE


@EVERY
def test_a_block_that_swells_takes_little_memory(name: str) -> None:
    for end, expected in ((b"", 0), (pcap_record(b"x"), 4_000_001)):       # zeros are packets if something follows
        packets, peak = packets_and_memory(FORMATS[name](pcap_head() + bytes(64_000_000) + end))
        assert packets == expected and peak < 50_000_000


@EVERY
def test_any_number_of_tiny_members_takes_work_in_proportion(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MOST_EMPTY", 0)
    members = [FORMATS[name](PLAIN[n : n + 1]) for n in range(400)]
    one, two = (operations(lambda n=n: read(b"".join(members[:n]))) for n in (200, 400))
    assert 200 < one < two <= 2.5 * one


# The command


@pytest.mark.parametrize("name", list(FORMATS)[:: some(3, 1)])
def test_command_reads_them_from_a_file_and_from_standard_input(name: str, tmp_path: Path) -> None:
    plain = Path(SHOP[1]).read_bytes()
    path = tmp_path / "shop.pcap"
    path.write_bytes(FORMATS[name](plain))
    expected = process("replay", *SHOP, "--verdicts", "-", "--quiet").out
    assert process("replay", SHOP[0], path, "--verdicts", "-", "--quiet").out == expected
    with open(path) as given:
        assert process("replay", SHOP[0], "-", "--verdicts", "-", "--quiet", stdin=given).out == expected


def test_exit_statuses(capsys: Capsys, tmp_path: Path) -> None:
    policy, path = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    data = gzip.compress(path.read_bytes())
    path.write_bytes(data + b"rest")
    outcome = sgfast(capsys, "replay", policy, path)
    assert outcome.status == 0 and "\n  3 packets, " in outcome.out
    assert outcome.one_line() == f"sgfast: warning: {path}: other data follows the gzip data and is ignored"
    path.write_bytes(data[:-3])
    outcome = sgfast(capsys, "replay", policy, path)
    assert outcome.status == 3 and "\n  3 packets, " in outcome.out and "is cut short" in outcome.one_line()
    path.write_bytes(data[:12])
    outcome = sgfast(capsys, "replay", policy, path)
    assert outcome.status == 2 and outcome.out == ""
    assert "cannot be read: the gzip data is cut short" in outcome.one_line()
