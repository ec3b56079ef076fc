"""gzip captures against zlib asked byte by byte, and threads that decompress ahead of the reader (SPEC 9.6)."""

from __future__ import annotations

import bz2
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
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from captures import Dribble, count, pcap_head, pcap_record, read
from command import DEADLINE_SECONDS, start, write_policy
from effort import some
from packed import Seen, file_of, form_of, noise

from sgfast.base.streams import compression, decompressed
from sgfast.base.streams.compression import MAGIC_LENGTH, Decompressor
from sgfast.base.streams.decompressed import DecompressedStream
from sgfast.traffic.capture import CaptureReader

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
    monkeypatch.setattr(decompressed._Thread, "available", threading.Semaphore(ahead))
    return ahead


# zlib as the model


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


SMALL = capture(3)
THIRD = len(SMALL) // 3
FILES = {
    "one member": gzip.compress(SMALL, mtime=0),
    "stored": gzip.compress(SMALL, 0, mtime=0),
    "several members": b"".join(gzip.compress(SMALL[n : n + THIRD], mtime=0) for n in range(0, len(SMALL), THIRD)),
    "empty members": gzip.compress(b"") + gzip.compress(SMALL) + gzip.compress(b"") * 2,
    "padding and other data": gzip.compress(SMALL) + bytes(5) + b"\x1f\x8bother",
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
            if cause and SMALL.startswith(made):
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
    assert read(FILES["several members"]) == read(SMALL)


# Threads, whatever they decompress


PLAIN = noise(random.Random(SEED), 4_000_000)
#: The way in which a file is decompressed, and the file.
WAYS: dict[type, bytes] = {
    decompressed._Decompressing: bz2.compress(PLAIN, 1),
    decompressed._Inflating: gzip.compress(PLAIN, 1),
}
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def stream_of(data: bytes, left: int, monkeypatch: pytest.MonkeyPatch, before: int = 0) -> DecompressedStream:
    """A stream of a file, which may begin so many threads. So many other bytes of the file have been read before."""
    monkeypatch.setattr(decompressed._Thread, "available", threading.Semaphore(left))
    file = file_of(bytes(before) + data)
    file.seek(before)
    return DecompressedStream(file, form_of(data), file.read(1 << 18), "name")


def drain(stream: DecompressedStream) -> bytes:
    output, buffer = bytearray(), memoryview(bytearray(1 << 18))
    while got := stream.readinto(buffer):
        output += buffer[:got]
    return bytes(output)


def is_each_back(left: int) -> bool:
    """Whether all threads gave their places back, and none twice."""
    return [decompressed._Thread.available.acquire(blocking=False) for _ in range(left + 1)] == [True] * left + [False]


@each_way
def test_a_large_file_has_threads_until_its_end_also_from_its_middle_on(
    way: type, monkeypatch: pytest.MonkeyPatch, threads: Callable[[], list[threading.Thread]]
) -> None:
    # In its middle, as of standard input of which somebody has read the beginning.
    used: set[type] = set()
    original = way.take  # type: ignore[attr-defined]

    def take(self: object, *, wait: bool) -> Any:
        used.add(type(self))
        return original(self, wait=wait)

    monkeypatch.setattr(way, "take", take)
    for before in (0, 1234):
        used.clear()
        with closing(stream_of(WAYS[way], 2, monkeypatch, before)) as stream:
            assert stream.readinto(memoryview(bytearray(1000))) == 1000 and not threads()
            assert drain(stream) == PLAIN[1000:] and used == {way}
            assert not threads() and is_each_back(2)


@each_way
@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_stream_that_is_closed_or_forgotten_leaves_no_thread(
    way: type, is_forgotten: bool, monkeypatch: pytest.MonkeyPatch, threads: Callable[[], list[threading.Thread]]
) -> None:
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    holder = [stream_of(WAYS[way], 2, monkeypatch)]
    assert holder[0].readinto(memoryview(bytearray(1000)))
    begun, ahead = threads(), holder[0]._thread
    assert type(ahead) is way
    # A condition that such a thread checks now and then.
    stopped = getattr(ahead, "_input", None)
    del ahead
    if is_forgotten:
        holder.clear()
        gc.collect()
        for thread in begun:
            thread.join(DEADLINE_SECONDS)
    else:
        holder[0].close()
    assert (stopped is None or stopped.is_stopped) and not threads() and is_each_back(2)


@each_way
def test_a_file_that_finds_no_thread_is_read_without(way: type, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    with closing(stream_of(WAYS[way], 0, monkeypatch)) as stream:
        assert drain(stream) == PLAIN

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with closing(stream_of(WAYS[way], 2, monkeypatch)) as stream:
        assert drain(stream) == PLAIN and is_each_back(2)
    assert seen.begun == 0


def test_only_files_of_the_system_are_left_to_their_reader(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    monkeypatch.setattr(decompressed._Thread, "available", threading.Semaphore(2))
    data = gzip.compress(PLAIN[:30_000])
    receive, send = os.pipe()
    os.write(send, data)
    os.close(send)
    for source in (io.FileIO(receive), io.BytesIO(data)):
        with closing(DecompressedStream(source, form_of(data), b"", "name")) as stream:  # type: ignore[arg-type]
            assert drain(stream) == PLAIN[:30_000]
    assert seen.begun == 0


@each_way
def test_an_interrupt_while_waiting_for_a_thread_is_not_the_end(way: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with closing(stream_of(WAYS[way], 1, monkeypatch)) as stream:
        with monkeypatch.context() as patch:
            patch.setattr(way, "take", interrupt)
            with pytest.raises(KeyboardInterrupt):
                drain(stream)
        with pytest.raises(ValueError, match="decompressing was interrupted"):
            drain(stream)


# Captures


MANY = capture(30_000)
PACKED = gzip.compress(MANY, 1, mtime=0)


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
    made = Made()
    decompressed._run(decompressed._Maker(Decompressor(form_of(packed), "name")), Orders(packed), made)  # type: ignore[arg-type]
    size = sum(piece.size for piece in made)
    assert decompressed.AHEAD <= size < decompressed.AHEAD + decompressed.PIECE + compression.GZIP_STEP


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
        packets = count(reader)
        assert reader.damage is not None and reader.damage.cause == "reading failed: the disk is gone"
        # Chunks end where those of a whole file do.
        taken = 512 * 1024 + -(-(at - 512 * 1024) // decompressed.CHUNK) * decompressed.CHUNK
        whole = CaptureReader(io.BytesIO(PACKED[:taken]), "name")
        assert packets == count(whole) and reader.bytes_read == taken


def test_an_interrupt_while_reading_ahead_is_not_the_end(is_ahead: bool) -> None:
    with CaptureReader(Source(PACKED, KeyboardInterrupt(), 540_000), "name", owns_stream=True) as reader:
        with pytest.raises(KeyboardInterrupt):
            count(reader)
        count(reader)
        assert reader.packets == 30_000 and reader.damage is None


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
        assert 0 < count(reader) < 30_000
        assert reader.damage is not None and reader.damage.cause == "reading failed: no memory left"


def test_a_pipe_hands_out_what_is_complete(is_ahead: bool) -> None:
    deflating = zlib.compressobj(wbits=31)
    receive, send = os.pipe()
    ends = [24 + at for at in range(0, len(SMALL), THIRD)]
    with open(receive, "rb", buffering=0) as stream:
        os.write(send, deflating.compress(SMALL[: ends[1]]) + deflating.flush(zlib.Z_SYNC_FLUSH))
        with CaptureReader(stream, "pipe") as reader:
            assert reader.next_batch() is not None       # does not wait for more
            os.write(send, deflating.compress(SMALL[ends[1] :]) + deflating.flush())
            os.close(send)
            assert (count(reader), reader.packets, reader.damage) == (2, 3, None)


def test_a_thread_that_has_not_got_to_its_last_chunk_is_asked_before_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Behind(decompressed._Decompressing):
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

    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    monkeypatch.setattr(decompressed._Decompressing, "begin", lambda maker: Behind())
    source = Pipe(PACKED[: 2 * decompressed.CHUNK], KeyboardInterrupt(), 1 << 30)
    stream = decompressed.DecompressedStream(source, form_of(PACKED), b"", "name")
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
            _, said = child.communicate(timeout=DEADLINE_SECONDS)
    # It may have judged packets, and then reports them.
    assert child.returncode == 130 and said.startswith("sgfast: interrupted")
