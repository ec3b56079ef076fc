"""Parts of compressed captures that several threads decompress: nothing differs but the threads (SPEC 9.6)."""

from __future__ import annotations

import gc
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from captures import pcap_head, pcap_record, zstd
from command import DEADLINE_SECONDS
from effort import some
from parted import (
    CHECKS,
    Said,
    Sizes,
    bgzip_file,
    bgzip_member,
    cut,
    file_of,
    found_in,
    noise,
    said,
    small_sizes,
    xz_block,
    xz_stream,
    zstd_file,
    zstd_raw_frame,
)

from sgfast.capture import compression, decompressed, gzip_files, open_capture, parallel, parts
from sgfast.capture.compression import MAGIC_LENGTH, compression_of

SEED = 20261128


class Seen:
    """The parts that were decompressed, and by which threads."""

    def __init__(self) -> None:
        self.parts = 0
        self.threads: set[threading.Thread] = set()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    original = parts.decompress

    def decompress(*arguments: Any) -> Any:
        found.parts += 1
        found.threads.add(threading.current_thread())
        return original(*arguments)

    monkeypatch.setattr(parallel, "decompress", decompress)
    return found


# The same with threads and without

FILES: dict[str, Callable[[list[bytes]], bytes]] = {"xz": xz_stream, "bgzip": bgzip_file, "zstd": zstd_file}
of_each_form = pytest.mark.parametrize("form", FILES)


def same(data: bytes, sizes: Sizes, where: str) -> Said:
    alone, several = said(data, 0, sizes), said(data, 2, sizes)
    assert several == alone, f"seed {SEED}, {where}, {sizes}, {data.hex()}"
    return alone


@of_each_form
def test_any_data_in_any_parts(form: str, seen: Seen) -> None:
    draw = random.Random(SEED)
    for n in range(some(100, 5000)):
        plain = noise(draw, draw.randrange(2000))
        data = FILES[form](cut(draw, plain, draw.choice((50, 300, 2000))))
        assert same(data, small_sizes(draw), f"case {n}")[:3] == (plain, "", False)
    assert seen.parts > 200


@of_each_form
def test_files_one_after_another_with_and_without_parts_padded_and_followed(form: str, seen: Seen) -> None:
    draw = random.Random(SEED)
    for n in range(some(150, 5000)):
        made, whole = FILES[form], {"xz": lzma.compress, "bgzip": gzip.compress, "zstd": zstd}[form]
        data = made(cut(draw, noise(draw, 1000), 300))
        for _ in range(draw.randrange(5)):
            pieces = cut(draw, noise(draw, draw.randrange(1000)), 300)
            data += draw.choice((made(pieces), made(pieces), whole(b"".join(pieces))))
            data += draw.choice((b"", b"", b"", bytes(4), bytes(draw.randrange(300))))
        data += draw.choice((b"", b"", b"\x1f", b"other data", data[:6], data[:30]))
        same(data, small_sizes(draw), f"case {n}")
    assert seen.parts > 200


def small_file(draw: random.Random, form: str) -> bytes:
    pieces = [noise(draw, length) for length in (90, 0, 150, 40, 200, 10)]
    return FILES[form](pieces[:4]) + FILES[form](pieces[4:])


@of_each_form
def test_every_cut(form: str, seen: Seen) -> None:
    draw = random.Random(SEED)
    whole = small_file(draw, form)
    failures = 0
    for length in range(MAGIC_LENGTH, len(whole), some(2, 1)):
        for end in (b"", b"YZ"):        # which ends a stream of xz
            failures += same(whole[:length] + end, small_sizes(draw), f"length {length}").failure != ""
    assert failures > 100 and seen.parts > 200


@of_each_form
def test_every_damaged_byte(form: str, seen: Seen) -> None:
    draw = random.Random(SEED)
    whole = small_file(draw, form)
    failures = 0
    for at in range(len(whole)):
        for bit in some([draw.randrange(8)], list(range(8))):
            data = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            if compression_of(data[:MAGIC_LENGTH]) is not None:
                failures += same(data, small_sizes(draw), f"byte {at}, bit {bit}").failure != ""
    assert failures > 100 and seen.parts > 200


@of_each_form
def test_a_byte_that_is_missing_or_comes_twice(form: str, seen: Seen) -> None:
    draw = random.Random(SEED)
    whole = small_file(draw, form)
    for at in range(MAGIC_LENGTH, len(whole), some(3, 1)):
        same(whole[:at] + whole[at + 1 :], small_sizes(draw), f"without byte {at}")
        same(whole[:at] + whole[at - 1 :], small_sizes(draw), f"byte {at - 1} twice")
    assert seen.parts > 200


@pytest.mark.parametrize("check", CHECKS)
def test_xz_with_each_check_and_blocks_without_sizes(check: int, seen: Seen) -> None:
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


def test_members_without_content_within_what_claims_to_be_one(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(compression, "MOST_EMPTY", 200)
    nothing = gzip.compress(b"")
    some_data = PLAIN[:300]
    for number in (2, 150, 250):
        before = seen.parts
        hiding = bytearray(bgzip_member(b"") + nothing * number + gzip.compress(some_data))
        hiding[16:18] = (len(hiding) - 1).to_bytes(2, "little")
        data = bgzip_member(some_data) + bytes(hiding) + bgzip_member(some_data)
        assert (same(data, Sizes(), f"{number}").failure != "") == (number == 250)
        assert seen.parts > before
    # Nothing comes out of this one, which claims to be something.
    lying = bytearray(bgzip_member(b""))
    lying[16:18] = (len(lying) + 3).to_bytes(2, "little")
    data = (bgzip_member(some_data) + bytes(lying) + b"\1\0\0\0") * 3
    same(data, Sizes(), "lying")


def test_a_reader_that_stops_early_does_not_end_a_part_of_bgzip(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    class Short:
        """A reader that fills half of the room."""

        def __init__(self, members: bytes) -> None:
            self.reader = original(members)

        def readinto(self, room: memoryview) -> int:
            return int(self.reader.readinto(room[: -(-len(room) // 2)]))

    original = gzip_files._reader_of
    data = bgzip_file([PLAIN[:300]] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(gzip_files, "_reader_of", Short)
        assert same(data, Sizes(), "short").output == PLAIN[:300] * 4
    assert seen.parts > 0


# Limits


EMPTY = {"xz": xz_stream([]), "zstd": zstd_raw_frame([b""])}


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("form", EMPTY)
def test_empty_members_in_a_row(form: str, more: int, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(compression, "MOST_EMPTY", 20)
    one, nothing = FILES[form]([b"some"]), EMPTY[form]
    data = one * 3 + nothing * 19 + one * 2 + nothing * (20 + more)
    assert (same(data, Sizes(), f"{more} more").failure != "") == (more == 1)
    assert seen.parts > 2


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_size_that_is_free_and_ratio(more: int, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    plain = noise(random.Random(SEED), 3000)
    data = xz_stream([plain[n : n + 300] for n in range(0, 3000, 300)])
    monkeypatch.setattr(compression, "FREE_BYTES", len(plain) + more)
    monkeypatch.setattr(compression, "MOST_RATIO", 1)
    for head in (100, 1 << 18):
        assert (same(data, Sizes(head=head, chunk=100, step=100), "free").failure != "") == (more == -1)
    monkeypatch.setattr(compression, "FREE_BYTES", 1000)
    monkeypatch.setattr(compression, "MOST_RATIO", len(plain) / len(data) + more / len(data))
    assert (same(data, Sizes(), "ratio").failure != "") == (more == -1)
    assert seen.parts > 5


def test_parts_ahead_take_no_more_memory_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    monkeypatch.setattr(parallel, "usable_processors", lambda: 50)
    monkeypatch.setattr(parallel, "ROOM", 2_000_000)
    plain = bytes(30_000_000)
    taken: list[int] = []
    original = parallel.ParallelParts.take

    def take(self: Any, *, wait: bool) -> Any:
        output = original(self, wait=wait)
        taken.append(sum(job.part.memory for job in self._ahead))
        return output

    monkeypatch.setattr(parallel.ParallelParts, "take", take)
    with closing(stream_of(xz_stream(plain[:100_000] for _ in range(300)), 2, monkeypatch)) as stream:
        assert drain(stream) == plain
    assert 1_500_000 < max(taken) <= 2_000_000


# What files may claim


@pytest.mark.parametrize("size", [0, 17, 65_535])
def test_a_member_that_lies_about_its_size(size: int) -> None:
    whole = bgzip_file([PLAIN[:60_000]] * 40)
    length = len(bgzip_member(PLAIN[:60_000]))
    lying = bytearray(whole)
    lying[20 * length + 16 : 20 * length + 18] = size.to_bytes(2, "little")
    found, _ = found_in(bytes(lying))
    assert (len(found), found[-1].end) == (2, 20 * length)
    same(bytes(lying), Sizes(), "lying")


def test_a_member_that_says_it_is_as_long_as_two() -> None:
    members = [bytearray(bgzip_member(PLAIN[n : n + 300])) for n in range(0, 3000, 300)]
    members[5][16:18] = (len(members[5]) + len(members[6]) - 1).to_bytes(2, "little")
    assert same(b"".join(members), Sizes(), "as long as two").output == PLAIN[:3000]


# Threads


def drain(stream: decompressed.DecompressedStream) -> bytes:
    output, buffer = bytearray(), memoryview(bytearray(1 << 18))
    while got := stream.readinto(buffer):
        output += buffer[:got]
    return bytes(output)


def stream_of(data: bytes, left: int, monkeypatch: pytest.MonkeyPatch) -> decompressed.DecompressedStream:
    """A stream of a file's bytes, which may begin so many threads."""
    monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(left))
    form = compression_of(data[:MAGIC_LENGTH])
    assert form is not None
    file = file_of(data)
    return decompressed.DecompressedStream(file, form, file.read(1 << 18), "name")


PLAIN = noise(random.Random(SEED), 4_000_000)
LARGE = xz_stream(PLAIN[n : n + 300_000] for n in range(0, len(PLAIN), 300_000))


@pytest.mark.parametrize("left", [1, 2, 5])
def test_threads_and_the_reader_decompress_parts_at_the_same_time(
    left: int, monkeypatch: pytest.MonkeyPatch, threads: Callable[[], list[threading.Thread]]
) -> None:
    several = threading.Barrier(min(left, 3) + 1)
    together: list[threading.Thread] = []
    original = parts.decompress

    def decompress(*arguments: Any) -> Any:
        # The first parts wait for each other.
        if len(together) < several.parties:
            together.append(threading.current_thread())
            several.wait(DEADLINE_SECONDS)
        return original(*arguments)

    monkeypatch.setattr(parallel, "decompress", decompress)
    monkeypatch.setattr(parallel, "usable_processors", lambda: left + 1)
    with closing(stream_of(LARGE, left, monkeypatch)) as stream:
        assert drain(stream) == PLAIN
        assert len(set(together)) == several.parties and not several.broken
        assert not threads()
        for _ in range(left):
            assert decompressed._Thread.left.acquire(blocking=False)
        assert not decompressed._Thread.left.acquire(blocking=False)


def test_without_a_thread_left_or_with_one_part_there_are_no_parts(
    monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    with closing(stream_of(LARGE, 0, monkeypatch)) as stream:
        assert drain(stream) == PLAIN and seen.parts == 0
    with closing(stream_of(lzma.compress(PLAIN), 2, monkeypatch)) as stream:
        assert drain(stream) == PLAIN and seen.parts == 0

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with closing(stream_of(LARGE, 2, monkeypatch)) as stream:
        assert drain(stream) == PLAIN and seen.parts == 0
        for _ in range(2):
            assert decompressed._Thread.left.acquire(blocking=False)


def test_pipes_and_what_is_no_file_of_the_system_have_no_parts(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(2))
    data = xz_stream(PLAIN[n : n + 1000] for n in range(0, 30_000, 1000))
    form = compression_of(data[:MAGIC_LENGTH])
    assert form is not None
    receive, send = os.pipe()
    os.write(send, data)
    os.close(send)
    for source in (io.FileIO(receive), io.BytesIO(data)):
        stream = decompressed.DecompressedStream(source, form, b"", "name")     # type: ignore[arg-type]
        assert drain(stream) == PLAIN[:30_000]
        stream.close()
    assert seen.parts == 0


def test_a_file_that_is_read_from_its_middle_on(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    # As standard input, of which somebody has read the beginning.
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(2))
    data = LARGE
    form = compression_of(data[:MAGIC_LENGTH])
    assert form is not None
    file = file_of(bytes(1234) + data)
    file.seek(1234)
    stream = decompressed.DecompressedStream(file, form, file.read(5000), "name")
    assert drain(stream) == PLAIN and seen.parts > 3
    stream.close()


def test_a_stream_that_is_closed_or_forgotten_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch, threads: Callable[[], list[threading.Thread]]
) -> None:
    stops: list[Callable[[], bool]] = []
    original = parts.decompress

    def decompress(*arguments: Any) -> Any:
        stops.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(parallel, "decompress", decompress)
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    for is_forgotten in (False, True):
        holder: list[Any] = [stream_of(LARGE, 2, monkeypatch)]
        assert holder[0].readinto(memoryview(bytearray(1000)))
        begun = threads()
        if is_forgotten:
            holder.clear()
            gc.collect()
            for thread in begun:
                thread.join(DEADLINE_SECONDS)
        else:
            holder[0].close()
        assert not threads() and stops and all(is_stopped() for is_stopped in stops)
        for _ in range(2):
            assert decompressed._Thread.left.acquire(blocking=False)


def test_what_a_part_raises_is_left_to_the_decompressor(
    monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    original = parallel.decompress

    def decompress(part: parts.Part, *arguments: Any) -> Any:
        if part.start > 1_000_000:
            raise MemoryError("no memory left")
        return original(part, *arguments)

    monkeypatch.setattr(parallel, "decompress", decompress)
    with closing(stream_of(LARGE, 2, monkeypatch)) as stream:
        assert drain(stream) == PLAIN and seen.parts > 1


def test_a_file_that_cannot_be_read_any_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise OSError("the disk is gone")

    with closing(stream_of(LARGE, 2, monkeypatch)) as stream:
        buffer = memoryview(bytearray(1 << 18))
        while stream._parts is None:
            assert stream.readinto(buffer)
        monkeypatch.setattr(os, "pread", fail)
        drain(stream)       # without the parts, as the file itself is still there


def test_an_interrupt_while_the_reader_decompresses_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    original = parallel.decompress

    def decompress(*arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        waits.wait(DEADLINE_SECONDS)
        return original(*arguments)

    waits = threading.Event()
    monkeypatch.setattr(parallel, "decompress", decompress)
    with closing(stream_of(LARGE, 1, monkeypatch)) as stream:
        with pytest.raises(KeyboardInterrupt):
            drain(stream)
        waits.set()
        with pytest.raises(ValueError, match="decompressing was interrupted"):
            drain(stream)


# Captures


def capture(packets: int) -> bytes:
    draw = random.Random(SEED)
    return pcap_head() + b"".join(
        pcap_record(draw.randbytes(draw.randrange(25, 75)) + bytes(draw.randrange(25, 75)), time=(n, n))
        for n in range(packets)
    )


PROGRAMS = {
    "xz": ["xz", "-c", "-1", "-T2", "--block-size=300KiB"],
    "bgzip": ["bgzip", "-c"],
    "pzstd": ["pzstd", "-q", "-1", "-p3", "-c"],
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_programs_write_and_damage_in_it(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    plain = capture(30_000)
    packed = subprocess.run(PROGRAMS[program], input=plain, capture_output=True, check=True).stdout
    path = tmp_path / "capture"
    draw = random.Random(SEED)
    damages = 0
    for n in range(some(8, 200)):
        data = bytearray(packed)
        if n % 3 == 1:
            del data[draw.randrange(len(data) // 2, len(data)) :]
        elif n % 3 == 2:
            data[draw.randrange(len(data) // 2, len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        told: list[Any] = []
        for left in (0, 2):
            monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(left))
            with open_capture(path) as reader:
                while reader.next_batch() is not None:
                    pass
                # If a packet is damaged, a part is counted as read whole. Other data is counted up to the damage.
                read = reader.bytes_read if reader.damage is None else 0
                told.append((reader.packets, reader.damage, reader.remarks, reader.offset, read))
        assert told[0] == told[1], f"seed {SEED}, case {n}"
        damages += told[0][1] is not None
    assert damages > 2 and seen.parts > 5 and len(seen.threads) > 1
