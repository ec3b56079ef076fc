"""Decompression by several threads gives the same as by one (SPEC 9.6).

Files of gzip are read by zlib-ng's reader, those of other formats in parts.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from captures import count, pcap_head, pcap_record, zstd
from effort import some
from parted import (
    CHECKS,
    Seen,
    Sizes,
    bgzip_file,
    bgzip_member,
    cut,
    found_in,
    gzip_file,
    noise,
    same,
    small_sizes,
    xz_block,
    xz_stream,
    zstd_file,
    zstd_raw_frame,
    zstd_skipped,
)

from sgfast.capture import compression, decompressed, gzip_files, open_capture
from sgfast.capture.compression import MAGIC_LENGTH, compression_of

SEED = 20261128
PLAIN = noise(random.Random(SEED), 100_000)

def lz4(data: bytes) -> bytes:
    packed: bytes = pytest.importorskip("lz4.frame").compress(data, content_checksum=True)
    return packed


def joined(compress: Callable[[bytes], bytes], between: bytes = b"") -> Callable[[list[bytes]], bytes]:
    return lambda pieces: b"".join(compress(piece) + between for piece in pieces)


#: How a file is made of pieces, and of all data at once.
FILES: dict[str, tuple[Callable[[list[bytes]], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (gzip_file, gzip.compress), "bgzip": (bgzip_file, gzip.compress), "xz": (xz_stream, lzma.compress),
    "zstd": (zstd_file, zstd), "bzip2": (joined(bz2.compress), bz2.compress),
    "lz4": (joined(lz4, zstd_skipped(b"nothing")), lz4),
}  # fmt: skip
of_each_form = pytest.mark.parametrize("form", FILES)


@of_each_form
def test_files_of_any_pieces_one_after_another_padded_and_followed(form: str, seen: Seen) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    made, whole = FILES[form]
    for n in range(some(200, 5000)):
        plain = noise(draw, draw.randrange(2000))
        data = made(cut(draw, plain, draw.choice((50, 300, 2000))))
        is_sound = True
        for _ in range(draw.choice((0, 0, 1, 4))):
            more = noise(draw, draw.randrange(1000))
            pieces, zeros = cut(draw, more, 300), draw.choice((0, 0, 0, 4, draw.randrange(300)))
            plain += more
            data += draw.choice((made(pieces), made(pieces), whole(more))) + bytes(zeros)
            # zstd and lz4 have no padding, and that of xz has a multiple of 4 bytes.
            is_sound &= zeros == 0 or (form not in ("zstd", "lz4") and zeros % 4 == 0)
        rest = draw.choice((b"", b"", b"\x1f", b"other data", data[:6], data[:30]))
        if not data:
            continue
        told = same(data + rest, small_sizes(draw), f"case {n}")
        if is_sound and not rest:
            assert told[:3] == (plain, "", False)
    assert seen.parts + seen.begun > 150 or form in ("bzip2", "lz4")
    assert seen.whole > 50 or form != "gzip"


@of_each_form
def test_damage_at_every_byte(form: str, seen: Seen) -> None:
    """A bit flips, a byte is missing or comes twice, or the file ends, with what ends a stream of xz or without."""
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    pieces = [noise(draw, length) for length in (90, 0, 150, 40, 200, 10)]
    made, _ = FILES[form]
    whole = made(pieces[:4]) + made(pieces[4:])
    failures = 0
    for at in range(MAGIC_LENGTH - 1, len(whole)):
        flips = [whole[at] ^ 1 << bit for bit in some([draw.randrange(8)], range(8))]
        damaged = [whole[:at] + bytes([flipped]) + whole[at + 1 :] for flipped in flips]
        others = [whole[:at] + whole[at + 1 :], whole[:at] + whole[at - 1 :], whole[:at] + b"YZ"]
        for data in damaged + some([draw.choice(others)], others):
            if compression_of(data[:MAGIC_LENGTH]) is not None:
                failures += same(data, small_sizes(draw), f"byte {at}").failure != ""
        if at >= MAGIC_LENGTH:
            told = same(whole[:at], small_sizes(draw), f"length {at}")
            assert b"".join(pieces).startswith(told.output)
            # A file may also end between members, or so soon behind one that the rest could be anything.
            assert not told.failure or f"cut short, near byte {at} of the file" in told.failure or (
                "other data follows it" in told.failure
            )
    assert failures > 200
    assert seen.parts + seen.begun > 200 or form in ("bzip2", "lz4")
    assert seen.whole > 20 or form != "gzip"


@pytest.mark.parametrize("check", CHECKS)
def test_xz_with_each_check_and_blocks_without_sizes(check: int, seen: Seen) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    for n in range(40):
        pieces = [piece for piece in cut(draw, noise(draw, 1500), 300) if piece]
        without = draw.choice((set(), {len(pieces) - 1}, {draw.randrange(len(pieces))}))
        data = xz_stream(pieces, check, sizes=lambda n, without=without: n not in without)
        assert same(data, small_sizes(draw), f"case {n}").output == b"".join(pieces)
        broken = bytearray(data)
        broken[draw.randrange(MAGIC_LENGTH, len(data))] ^= 1 << draw.randrange(8)
        same(bytes(broken), small_sizes(draw), f"case {n}")
    assert seen.parts > 100


def test_xz_output_before_damage_is_that_of_one_decompressor(seen: Seen) -> None:
    # It loses what a call had made, also of the block before the damaged one.
    draw = random.Random(SEED)
    blocks = [xz_block(noise(draw, 300), 1)[0] for _ in range(4)]
    data = xz_stream([])[:12] + b"".join(blocks[:3]) + b"\x03" + blocks[3] + b"YZ"
    alone = same(data, Sizes(step=200), "damaged")
    assert 700 <= len(alone.output) < 900 and seen.parts == 3


def test_a_zstd_frame_that_copies_from_before_its_window(seen: Seen) -> None:
    # What it copies depends on how the input is cut: what does not compress is taken as it comes.
    draw = random.Random(SEED)
    plain = draw.randbytes(3 << 17)
    for _ in range(20):
        begin = max(len(plain) - draw.randrange(240 << 10, 400 << 10), 0)
        plain += draw.randbytes(50) + plain[begin : begin + 5000]
    frame = bytearray(zstd(plain, has_size=False, has_checksum=False))
    assert frame[5] > 0x3F
    frame[5] = 0x3F         # 240 KiB
    data = bytes(frame) + zstd(b"some")
    outputs = {same(data, sizes, "copies").output for sizes in (Sizes(), Sizes(head=4), Sizes(chunk=1000, head=4))}
    assert len(outputs) == 3 and seen.parts == 6


def test_a_reader_that_stops_early_does_not_end_a_part_of_bgzip(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    class Short:
        """A reader that fills half of the room."""

        def __init__(self, members: bytes) -> None:
            self.reader = original(members)

        def readinto(self, room: memoryview) -> int:
            return int(self.reader.readinto(room[: -(-len(room) // 2)]))

    original = gzip_files._reader_of
    monkeypatch.setattr(gzip_files, "_reader_of", Short)
    assert same(bgzip_file([PLAIN[:300]] * 4), Sizes(), "short").output == PLAIN[:300] * 4
    assert seen.parts > 0


# What files may claim


def lying(member: bytes, size: int) -> bytes:
    """A member of bgzip that says it has so many bytes."""
    return member[:16] + (size - 1 & 0xFFFF).to_bytes(2, "little") + member[18:]


@pytest.mark.parametrize("size", [1, 18, 65_536])
def test_a_member_that_lies_about_its_size(size: int) -> None:
    member = bgzip_member(PLAIN[:60_000])
    data = member * 20 + lying(member, size) + member * 19
    found, _ = found_in(data)
    assert (len(found), found[-1].end) == (2, 20 * len(member))
    assert same(data, Sizes(), "lying").output == PLAIN[:60_000] * 40


def test_a_member_that_says_it_is_as_long_as_two() -> None:
    members = [bgzip_member(PLAIN[n : n + 300]) for n in range(0, 3000, 300)]
    members[5] = lying(members[5], len(members[5] + members[6]))
    assert same(b"".join(members), Sizes(), "as long as two").output == PLAIN[:3000]


def test_members_without_content_within_what_claims_to_be_one(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(compression, "MOST_EMPTY", 200)
    usual, empty = bgzip_member(PLAIN[:300]), bgzip_member(b"")
    for number in (2, 150, 250):
        before = seen.parts
        hiding = empty + gzip.compress(b"") * number + gzip.compress(PLAIN[:300])
        data = usual + lying(hiding, len(hiding)) + usual
        assert (same(data, Sizes(), f"{number}").failure != "") == (number == 250)
        assert seen.parts > before
    # Nothing comes out of this one, which claims to be something.
    same((usual + lying(empty, len(empty) + 4) + b"\1\0\0\0") * 3, Sizes(), "lying")


# Limits, which only a decompressor knows


#: A member, or a frame, or a stream of a single part.
MEMBERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lambda data: xz_stream([data]),
    "zstd": lambda data: zstd_raw_frame([data]), "lz4": lz4,
}  # fmt: skip


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("form", MEMBERS)
def test_empty_members_in_a_row_below_at_and_above_the_limit(
    form: str, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compression.MOST_EMPTY == 10_000
    monkeypatch.setattr(compression, "MOST_EMPTY", 20)
    monkeypatch.setattr(gzip_files, "MOST_MEMBERS", 10)
    one, nothing = MEMBERS[form](b"some"), MEMBERS[form](b"")
    # A member with content begins a new row.
    told = same(one * 3 + nothing * 19 + one * 2 + nothing * (20 + more), Sizes(), f"{more} more")
    assert ("more than 20 empty members follow each other" in told.failure) == (more == 1)
    assert told.output == b"some" * 5


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("form", ["gzip", "xz"])
def test_size_that_is_free_and_ratio_below_at_and_above_the_limit(
    form: str, more: int, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    plain = PLAIN[:3000]
    pieces = [plain[n : n + 300] for n in range(0, 3000, 300)]
    data = gzip.compress(plain) if form == "gzip" else xz_stream(pieces)
    monkeypatch.setattr(compression, "FREE_BYTES", len(plain) + more)
    monkeypatch.setattr(compression, "MOST_RATIO", 1)
    for head in (100, 1 << 18):
        told = same(data, Sizes(head=head, chunk=100, step=100), "free")
        assert ("becomes more than 1 times as large" in told.failure) == (more == -1)
    monkeypatch.setattr(compression, "FREE_BYTES", 1000)
    monkeypatch.setattr(compression, "MOST_RATIO", len(plain) / len(data) + more / len(data))
    assert (same(data, Sizes(), "ratio").failure != "") == (more == -1)
    assert seen.begun == 3 if form == "gzip" else seen.parts > 5


# Captures


PROGRAMS = {
    "gzip": ["gzip", "-c"], "bzip2": ["bzip2", "-c", "-1"], "xz": ["xz", "-c", "-1"], "zstd": ["zstd", "-q", "-c"],
    "lz4": ["lz4", "-q", "-c", "-B4"], "xz with blocks": ["xz", "-c", "-1", "-T2", "--block-size=300KiB"],
    "bgzip": ["bgzip", "-c"], "pzstd": ["pzstd", "-q", "-1", "-p3", "-c"],
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_programs_write_and_damage_in_it(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    print(f"seed {SEED}")
    command = PROGRAMS[program]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    MEMBERS.get(program, zstd)(b"")
    draw = random.Random(SEED)
    data = (draw.randbytes(draw.randrange(25, 75)) + bytes(draw.randrange(25, 75)) for _ in range(20_000))
    plain = pcap_head() + b"".join(pcap_record(each, time=(n, n)) for n, each in enumerate(data))
    packed = subprocess.run(command, input=plain, capture_output=True, check=True).stdout
    path = tmp_path / "capture"
    damages = 0
    for n in range(some(8, 200)):
        broken = bytearray(packed)
        at = draw.randrange(len(packed) // 2, len(packed))
        if n % 3 == 1:
            del broken[at:]
        elif n % 3 == 2:
            broken[at] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        told: list[Any] = []
        for left in (0, 2):
            monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(left))
            with open_capture(path) as reader:
                count(reader)
                # If a packet is damaged, a part is counted as read whole. Other data is counted up to the damage.
                read = reader.bytes_read if reader.damage is None else 0
                told.append((reader.packets, reader.damage, reader.remarks, reader.offset, read))
        assert told[0] == told[1], f"case {n}"
        assert n % 3 or told[0] == (20_000, None, [], len(plain), len(packed))
        damages += told[0][1] is not None
    assert damages > 2
    if program in ("xz with blocks", "bgzip", "pzstd"):
        assert seen.parts > 5 and len(seen.threads) > 1
