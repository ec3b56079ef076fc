"""gzip captures against zlib asked byte by byte, and the thread that decompresses ahead of the reader (SPEC 9.6)."""

from __future__ import annotations

import gc
import gzip
import io
import os
import random
import signal
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from captures import Dribble, pcap_head, pcap_record, read
from command import DEADLINE_SECONDS, start, write_policy
from effort import some

from sgfast import replay
from sgfast.capture import CaptureReader, compression, decompressed, gzip_files, open_capture
from sgfast.capture.compression import MAGIC_LENGTH, Decompressor, compression_of

SEED = 20261127


def capture(packets: int) -> bytes:
    draw = random.Random(SEED)
    return pcap_head() + b"".join(
        pcap_record(draw.randbytes(draw.randrange(5, 20)) + bytes(draw.randrange(5, 20)), time=(n, n))
        for n in range(packets)
    )


@pytest.fixture(params=[True, False], ids=["ahead", "as read"])
def is_ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With a thread from the first byte on, or without one."""
    ahead: bool = request.param
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(ahead))
    return ahead


# What zlib says


def bytewise(data: bytes) -> tuple[bytes, str]:
    """All that zlib can make of a gzip file, and what is wrong behind it."""
    made = b""
    while data := data.lstrip(b"\0"):
        if len(data) < MAGIC_LENGTH or data[:3] != b"\x1f\x8b\x08":
            return made, ""
        inflating = zlib.decompressobj(wbits=31)
        if not data[3] & 0x02:      # no checksum of the header, so that reserved flags can be taken away
            data = data[:3] + bytes([data[3] & 0x1F]) + data[4:]
        try:
            while not inflating.eof:
                if not data:
                    return made, "is cut short"
                piece = inflating.decompress(data[:1], 1)
                data = data[1:]
                while piece:
                    made += piece
                    piece = b"" if inflating.eof else inflating.decompress(inflating.unconsumed_tail, 1)
        except zlib.error as error:
            return made, f"cannot be decompressed: {error}"
        data = inflating.unused_data + data
    return made, ""


PLAIN = capture(3)
THIRD = len(PLAIN) // 3
FILES = {
    "one member": gzip.compress(PLAIN, mtime=0),
    "stored": gzip.compress(PLAIN, 0, mtime=0),
    "several members": b"".join(gzip.compress(PLAIN[n : n + THIRD], mtime=0) for n in range(0, len(PLAIN), THIRD)),
    "empty members": gzip.compress(b"") + gzip.compress(PLAIN) + gzip.compress(b"") * 2,
    "padding and other data": gzip.compress(PLAIN) + bytes(5) + b"\x1f\x8bother",
}


@pytest.mark.parametrize("name", FILES)
def test_every_cut_and_every_changed_byte_is_what_zlib_says_of_it(name: str, is_ahead: bool) -> None:
    whole = FILES[name]
    draw = random.Random(SEED)
    cuts = [whole[:cut] for cut in range(MAGIC_LENGTH, len(whole) + 1)]
    changed = []
    for at in range(3, len(whole)):
        for bit in some([draw.randrange(8)], list(range(8))):
            changed.append(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    damages = 0
    for data in cuts + changed:
        reader_says = read(data)
        made, cause = bytewise(data)
        plain = read(made)
        where = f"seed {SEED}, {data.hex()}"
        cause = cause and f"the gzip data {cause}, near byte {len(data)} of the file"
        if plain.error is not None:
            # There is no header, or not all of it.
            assert reader_says.packets == [] and reader_says.error is not None, where
            if cause and PLAIN.startswith(made):
                assert reader_says.error == f"file: cannot be read: {cause}", where
            continue
        assert (reader_says.packets, reader_says.error) == (plain.packets, None), where
        damage = reader_says.damage
        if plain.damage is None or (cause and plain.damage.cause.startswith("the file ends in the middle")):
            assert (damage is None) == (not cause), where
            if damage is not None:
                assert damage.cause == f"reading failed: {cause}", where
                offset = len(made) if plain.damage is None else plain.damage.offset
                assert (damage.offset, damage.packet) == (offset, len(plain.packets) + 1), where
                damages += 1
        else:
            assert damage is not None and damage.decompressed, where
            assert (damage.offset, damage.packet, damage.cause) == (
                plain.damage.offset, plain.damage.packet, plain.damage.cause
            ), where  # fmt: skip
    assert damages > 100


def test_without_a_global_lock_zlib_does_it_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = FILES["one member"][:-6] + b"xxxxxx"
    before = read(broken)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)      # it cannot be imported
    assert read(broken) == before
    assert read(FILES["several members"]) == read(PLAIN)


# The thread


MANY = capture(30_000)
PACKED = gzip.compress(MANY, 1, mtime=0)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture that is read in some 20 chunks."""
    path = tmp_path_factory.mktemp("large") / "large.gz"
    path.write_bytes(PACKED)
    return path


def drain(reader: CaptureReader) -> int:
    while reader.next_batch() is not None:
        pass
    return reader.packets


def test_a_large_capture_has_a_thread_until_it_ends_or_is_closed(
    large: Path, monkeypatch: pytest.MonkeyPatch, threads: Callable[[], list[threading.Thread]]
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(1))
    monkeypatch.setattr(gzip_files, "uses_zlib_ng", lambda: False)
    original = decompressed._Thread.begin
    monkeypatch.setattr(decompressed._Thread, "begin", lambda maker: begun.append(original(maker)) or begun[-1])
    with open_capture(large) as reader:
        assert not begun        # a look at the beginning
        assert drain(reader) == 30_000 and len(begun) == 1
        assert not threads() and decompressed._Thread.left.acquire(blocking=False)
        decompressed._Thread.left.release()
        assert (reader.damage, reader.bytes_read) == (None, len(PACKED))
    for _ in range(2):      # the place of the last one is free again
        begun.clear()
        with open_capture(large) as reader:
            while not begun:
                assert reader.next_batch() is not None
        assert begun[0] is not None and not threads()


def test_a_reader_that_is_forgotten_leaves_no_thread(
    is_ahead: bool, threads: Callable[[], list[threading.Thread]]
) -> None:
    reader: CaptureReader | None = CaptureReader(io.BytesIO(PACKED), "name")
    assert reader is not None and reader.next_batch() is not None
    begun = threads()
    assert len(begun) == is_ahead
    reader = None
    gc.collect()
    for thread in begun:
        thread.join(DEADLINE_SECONDS)
    assert decompressed._Thread.left.acquire(blocking=False) == is_ahead


def test_a_thread_makes_no_more_than_its_room() -> None:
    class Orders:
        """One chunk, and nobody asks for more."""

        def __init__(self, chunk: bytes) -> None:
            self.all: list[Any] = [(chunk, len(chunk)), None]

        def empty(self) -> bool:
            return len(self.all) == 1

        def get(self) -> Any:
            return self.all.pop(0)

    class Made(list[Any]):
        put = list.append

    packed = gzip.compress(bytes(10_000_000))
    form = compression_of(packed[:MAGIC_LENGTH])
    assert form is not None
    made = Made()
    decompressed._run(decompressed._Maker(Decompressor(form, "name")), Orders(packed), made)  # type: ignore[arg-type]
    size = sum(piece.size for piece in made)
    assert decompressed.AHEAD <= size < decompressed.AHEAD + decompressed.PIECE + compression.GZIP_STEP


def test_a_capture_that_finds_no_thread_is_read_without(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Semaphore(0)
    monkeypatch.setattr(decompressed._Thread, "left", left)
    with open_capture(large) as reader:
        assert drain(reader) == 30_000

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    left.release()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with open_capture(large) as reader:
        assert drain(reader) == 30_000
    assert left.acquire(blocking=False)


def test_damage_far_in_a_file_is_told_with_a_thread_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken.gz"
    draw = random.Random(SEED)
    half = len(MANY) // 2
    wholes = (PACKED, gzip.compress(MANY[:half], 1) + gzip.compress(b"") + gzip.compress(MANY[half:], 1) + b"other")
    damages = 0
    for n in range(some(10, 500)):
        data = bytearray(wholes[n % 2])
        at = draw.randrange(len(data))
        if n % 4 < 2:
            del data[at : at + (len(data) if n % 3 else 1)]
        else:
            data[at] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        said: list[Any] = []
        for left in (0, 1):
            monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(left))
            with open_capture(path) as reader:
                said.append((drain(reader), reader.damage, reader.remarks, reader.offset))
        assert said[0] == said[1], f"seed {SEED}, case {n}, byte {at}"
        damages += said[0][1] is not None
    assert damages > 5


class Source(Dribble):
    """A stream that can be waited for, and always has something: then an error."""

    def __init__(self, data: bytes, error: BaseException, at: int) -> None:
        super().__init__(data, (1 << 20,))
        self.errors = {at: error}
        self.nowhere = io.FileIO(os.devnull)

    def fileno(self) -> int:
        return self.nowhere.fileno()

    def close(self) -> None:
        self.nowhere.close()

    def readinto(self, buffer: Any) -> int:
        for at in [at for at in self.errors if self.at >= at]:
            raise self.errors.pop(at)
        return super().readinto(buffer)


def test_an_error_while_reading_ahead_loses_no_packet_before_it(is_ahead: bool) -> None:
    at = 540_000
    with CaptureReader(Source(PACKED, OSError("the disk is gone"), at), "name", owns_stream=True) as reader:
        packets = drain(reader)
        assert reader.damage is not None and reader.damage.cause == "reading failed: the disk is gone"
        # Chunks end where those of a whole file do.
        taken = 512 * 1024 + -(-(at - 512 * 1024) // decompressed.CHUNK) * decompressed.CHUNK
        whole = CaptureReader(io.BytesIO(PACKED[:taken]), "name")
        assert packets == drain(whole) and reader.bytes_read == taken


def test_an_interrupt_while_reading_ahead_is_not_the_end(is_ahead: bool) -> None:
    with CaptureReader(Source(PACKED, KeyboardInterrupt(), 540_000), "name", owns_stream=True) as reader:
        with pytest.raises(KeyboardInterrupt):
            drain(reader)
        assert drain(reader) == 30_000 and reader.damage is None


def test_an_interrupt_while_waiting_for_the_thread_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with CaptureReader(io.BytesIO(PACKED), "name") as reader:
        assert reader.next_batch() is not None

        def interrupt(*arguments: Any, **options: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(decompressed._Thread, "take", interrupt)
        monkeypatch.setattr(decompressed._Maker, "make", interrupt)
        with pytest.raises(KeyboardInterrupt):
            drain(reader)
        monkeypatch.undo()
        drain(reader)
        assert reader.damage is not None and "decompressing was interrupted" in reader.damage.cause


def test_what_a_decompressor_raises_in_the_thread_is_damage(
    is_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = compression._Gzip.decompress
    calls = iter(range(1000))

    def fail(self: Any, data: bytes, most: int) -> bytes:
        if next(calls) == 7:
            raise MemoryError("no memory left")
        return original(self, data, most)

    monkeypatch.setattr(compression._Gzip, "decompress", fail)
    with CaptureReader(io.BytesIO(PACKED), "name") as reader:
        assert 0 < drain(reader) < 30_000
        assert reader.damage is not None and reader.damage.cause == "reading failed: no memory left"


def test_a_pipe_hands_out_what_is_complete(is_ahead: bool) -> None:
    deflating = zlib.compressobj(wbits=31)
    receive, send = os.pipe()
    ends = [24 + at for at in range(0, len(PLAIN), THIRD)]
    with open(receive, "rb", buffering=0) as stream:
        os.write(send, deflating.compress(PLAIN[: ends[1]]) + deflating.flush(zlib.Z_SYNC_FLUSH))
        with CaptureReader(stream, "pipe") as reader:
            assert reader.next_batch() is not None       # does not wait for more
            os.write(send, deflating.compress(PLAIN[ends[1] :]) + deflating.flush())
            os.close(send)
            assert drain(reader) == 3 and reader.damage is None


def test_a_thread_that_has_not_got_to_its_last_chunk_is_asked_before_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Behind(decompressed._Thread):
        """It says that it needs input, and does not know yet that there is some."""

        def __init__(self) -> None:
            late = decompressed._Piece(chunks_used=1, needs_input=True)
            self.pieces = [late, late._replace(outputs=(b"x",), size=1, chunks_used=2)]

        def give(self, chunk: tuple[bytes, int]) -> None:
            pass

        def take(self, *, wait: bool) -> decompressed._Piece | None:
            return self.pieces.pop(0) if self.pieces else None

        def end(self, *, wait: bool) -> None:
            pass

    class Pipe(Source):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(buffer) or None     # type: ignore[return-value]

    form = compression_of(PACKED[:MAGIC_LENGTH])
    assert form is not None
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    monkeypatch.setattr(decompressed._Thread, "begin", lambda maker: Behind())
    source = Pipe(PACKED[: 2 * decompressed.CHUNK], KeyboardInterrupt(), 1 << 30)
    stream = decompressed.DecompressedStream(source, form, b"", "name")
    assert stream.readinto(memoryview(bytearray(10))) == 1
    stream.close()


def test_an_interrupted_command_ends_although_its_thread_waits(tmp_path: Path) -> None:
    receive, send = os.pipe()
    with start("replay", write_policy(tmp_path), "-", stdin=receive) as child:
        os.close(receive)
        with open(send, "wb", buffering=0) as pipe:
            # The rest of what was written fits into the pipe: the command has read hundreds of kilobytes.
            for n in range(0, len(PACKED) - 5000, 4096):
                pipe.write(PACKED[n : n + 4096])
            child.send_signal(signal.SIGINT)
            out, said = child.communicate(timeout=DEADLINE_SECONDS)
    assert (child.returncode, out, said) == (130, "", "sgfast: interrupted\n")


@pytest.mark.parametrize("jobs", [1, 2])
def test_several_captures_and_jobs_give_the_same_report(jobs: int, large: Path, tmp_path: Path) -> None:
    plain, policy = tmp_path / "plain.pcap", write_policy(tmp_path)
    plain.write_bytes(MANY)
    packed, unpacked = (replay(policy, [path] * 2, jobs=jobs) for path in (large, plain))
    assert packed.packets == unpacked.packets == 60_000
    assert packed.verdicts == unpacked.verdicts and packed.damaged is None
