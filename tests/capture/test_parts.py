"""Where parts of compressed captures are, and what each becomes (SPEC 9.6)."""

from __future__ import annotations

import random

from captures import zstd
from growth import memory
from parted import (
    Counted,
    bgzip_file,
    bgzip_member,
    form_of,
    found_in,
    noise,
    xz_stream,
    zstd_file,
    zstd_raw_frame,
    zstd_skipped,
)

from sgfast.capture import parts

PLAIN = noise(random.Random(20261129), 3_000_000)


def test_a_part_is_left_when_it_is_stopped() -> None:
    data = xz_stream([PLAIN[:3_000_000]])
    calls = iter((False, True))
    (part, *_), _ = found_in(data)
    assert parts.decompress(part, form_of(data), Counted(data), parts.Chunks(1 << 15, 0), lambda: next(calls)) is None


def test_small_members_and_frames_together_are_a_part() -> None:
    members, frames = bgzip_file([PLAIN[:60_000]] * 50), zstd(PLAIN[:60_000]) * 50
    found, _ = found_in(members)
    assert [part.output for part in found] == [1_080_000, 1_080_000, 840_000]
    assert found[-1].end == len(members) - len(bgzip_member(b""))
    found, _ = found_in(frames)
    assert [len(part.ends) for part in found] == [8, 8, 8, 8, 8, 8, 2] and found[-1].end == len(frames)


def test_what_a_frame_takes_is_bounded_by_its_blocks_and_its_window() -> None:
    found, _ = found_in(zstd_raw_frame([bytes(1000)] * 512))
    assert [(part.output, part.window) for part in found] == [(1 << 26, 1 << 20)]
    assert len(found_in(zstd_raw_frame([bytes(1000)], window_log=26))[0]) == 1
    assert len(found_in(zstd_raw_frame([bytes(1 << 17)]))[0]) == 1
    whole = zstd(PLAIN[:3000])      # which says its size in two bytes, less 256
    assert found_in(whole)[0][0].window == 3000

    assert found_in(zstd_raw_frame([bytes(1000)], window_log=27)) == ([], 3)
    assert found_in(zstd_raw_frame([bytes((1 << 17) + 1)]))[0] == []
    found, reads = found_in(zstd_raw_frame([bytes(1000)] * 5000))
    assert not found and reads < 520
    assert found_in(zstd_skipped(bytes(5000)) + whole) == ([], 1)


def test_a_file_that_changes_after_its_frames_were_found() -> None:
    data = zstd(PLAIN[:60_000])
    form = form_of(data)
    (part,), _ = found_in(data)
    chunks = parts.Chunks(1 << 15, 0)
    calls: list[bool] = []
    made = parts.decompress(part, form, Counted(data), chunks, lambda: False)
    assert made is not None and b"".join(made) == PLAIN[:60_000]
    for other in (data[:-1], zstd(PLAIN[:60_100]), zstd(bytes(30_000_000))):
        assert parts.decompress(part, form, Counted(other), chunks, lambda: bool(calls.append(False))) is None
        assert len(calls) < 10
        calls.clear()


def test_many_tiny_blocks_members_and_frames_are_not_walked() -> None:
    found, reads = found_in(xz_stream([b"x"] * 3000))
    assert len(found) < 110 and reads < 200
    found, reads = found_in(bgzip_file([b"x"] * 3000))
    assert sum(len(part.ends) for part in found) == 100 and reads < 210
    found, reads = found_in(zstd_file([b"some"] * 3000))
    assert sum(len(part.ends) for part in found) == 100 and reads < 510


def test_a_member_that_becomes_more_than_it_says_is_left_soon() -> None:
    bomb = bytearray(bgzip_member(bytes(30_000_000)))
    bomb[-4:] = (40_000).to_bytes(4, "little")
    data = bytes(bomb) + bgzip_member(PLAIN[:60_000])
    (part,), _ = found_in(data)
    assert part.output == 100_000
    with memory() as peak:
        assert parts.decompress(part, form_of(data), Counted(data), parts.Chunks(1 << 15, 0), lambda: False) is None
    assert peak() < 1_000_000
