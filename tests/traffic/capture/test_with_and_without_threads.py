"""Decompression in a thread gives the same as without one (SPEC 9.6)."""

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
from packed import Seen, Sizes, bgzip_file, cut, gzip_file, noise, same, small_sizes, zstd_skipped

from sgfast.base.streams import compression, decompressed, gzip_files
from sgfast.base.streams.compression import MAGIC_LENGTH, compression_of
from sgfast.traffic.capture import open_capture

SEED = 20261128
PLAIN = noise(random.Random(SEED), 100_000)

def lz4(data: bytes) -> bytes:
    packed: bytes = pytest.importorskip("lz4.frame").compress(data, content_checksum=True)
    return packed


def joined(compress: Callable[[bytes], bytes], between: bytes = b"") -> Callable[[list[bytes]], bytes]:
    return lambda pieces: b"".join(compress(piece) + between for piece in pieces)


#: Functions that make a file: one from a list of pieces, and one from all data at once.
FILES: dict[str, tuple[Callable[[list[bytes]], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (gzip_file, gzip.compress), "bgzip": (bgzip_file, gzip.compress),
    "xz": (joined(lzma.compress), lzma.compress), "zstd": (joined(zstd, zstd_skipped(b"nothing")), zstd),
    "bzip2": (joined(bz2.compress), bz2.compress),
    "lz4": (joined(lz4, zstd_skipped(b"nothing")), lz4),
}  # fmt: skip
of_each_form = pytest.mark.parametrize("form", FILES)


@of_each_form
def test_files_of_any_pieces_one_after_another_padded_and_followed(form: str, seen: Seen) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    made, whole = FILES[form]
    for n in range(some(80, 5000)):
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
    assert (seen.begun > 50 and seen.whole > 20) or "gzip" not in form


@of_each_form
def test_damage_at_every_byte(form: str, seen: Seen) -> None:
    """A bit flips, a byte is missing or comes twice, or the file ends, with what ends a stream of xz or without. As
    a rule at every ninth byte.
    """
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    pieces = [noise(draw, length) for length in (90, 0, 150, 40, 200, 10)]
    made, _ = FILES[form]
    whole = made(pieces[:4]) + made(pieces[4:])
    failures = 0
    for at in range(MAGIC_LENGTH - 1 + some(draw.randrange(9), 0), len(whole), some(9, 1)):
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
    assert failures > some(23, 200)
    assert (seen.begun > some(23, 200) and seen.whole > some(2, 20)) or "gzip" not in form


# Limits, which only a decompressor knows


#: A member, or a frame, or a stream of a single part.
MEMBERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd, "lz4": lz4,
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
    data = MEMBERS[form](plain)
    monkeypatch.setattr(compression, "FREE_BYTES", len(plain) + more)
    monkeypatch.setattr(compression, "MOST_RATIO", 1)
    for head in (100, 1 << 18):
        told = same(data, Sizes(head=head, chunk=100, step=100), "free")
        assert ("becomes more than 1 times as large" in told.failure) == (more == -1)
    monkeypatch.setattr(compression, "FREE_BYTES", 1000)
    monkeypatch.setattr(compression, "MOST_RATIO", len(plain) / len(data) + more / len(data))
    assert (same(data, Sizes(), "ratio").failure != "") == (more == -1)
    assert seen.begun == 3 or form != "gzip"


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
            monkeypatch.setattr(decompressed._Thread, "available", threading.Semaphore(left))
            with open_capture(path) as reader:
                count(reader)
                # If a packet is damaged, a part is counted as read whole. Other data is counted up to the damage.
                read = reader.bytes_read if reader.damage is None else 0
                told.append((reader.packets, reader.damage, reader.remarks, reader.offset, read))
        assert told[0] == told[1], f"case {n}"
        assert n % 3 or told[0] == (20_000, None, [], len(plain), len(packed))
        damages += told[0][1] is not None
    assert damages > 2
    assert seen.begun or "gzip" not in program
