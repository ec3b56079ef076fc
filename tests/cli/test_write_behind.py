"""Large outputs are written in a thread of their own: nothing is lost, swapped or written twice, and errors come."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import struct
import termios
import threading
from pathlib import Path
from typing import Any

import pytest
from command import DEADLINE_SECONDS, wait_for, write_capture, write_policy
from effort import some
from frames import ethernet, ip, udp

from sgfast import replay
from sgfast.base import output as output_module
from sgfast.base import write_behind
from sgfast.base.errors import OutputError
from sgfast.base.output import open_output
from sgfast.base.write_behind import WriteBehind
from sgfast.report.lines import VerdictCsv, VerdictLines


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every output gets a thread."""
    monkeypatch.setattr(output_module, "BEHIND_FROM", 1)
    monkeypatch.setattr(output_module, "usable_processors", lambda: 2)


def ended(writer: WriteBehind) -> bool:
    writer._thread.join(DEADLINE_SECONDS)
    return not writer._thread.is_alive()


class Reader(threading.Thread):
    """Reads a pipe in pieces of random size, up to its end."""

    def __init__(self, descriptor: int, seed: int) -> None:
        super().__init__()
        self._descriptor, self._rng = descriptor, random.Random(seed)
        self.received = bytearray()

    def run(self) -> None:
        while data := os.read(self._descriptor, self._rng.choice((1, 100, 70_000))):
            self.received += data


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size_arrive_whole_and_in_order(
    seed: int, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "WAITING", 10_000)
    rng = random.Random(seed)
    pieces = [rng.randbytes(rng.choice((0, 1, 10, 5_000, 200_000))) for _ in range(60)]
    reading, writing = os.pipe()
    os.set_blocking(writing, blocks)
    reader = Reader(reading, seed)
    reader.start()
    writer = WriteBehind(writing)
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    os.close(writing)
    reader.join()
    os.close(reading)
    assert reader.received == b"".join(pieces), f"seed {seed}"
    assert ended(writer)


def test_what_waits_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "WAITING", 300_000)
    reading, writing = os.pipe()
    writer = WriteBehind(writing)
    waiting = []

    def write() -> None:
        for _ in range(20):
            writer.write(bytes(100_000))
            waiting.append(writer._waiting)
        writer.finish()

    caller = threading.Thread(target=write)
    caller.start()
    # Nobody reads yet, and the pipe holds 64 KiB.
    wait_for(lambda: writer._waiting >= 300_000)
    assert caller.is_alive()
    os.close(writing)
    reader = Reader(reading, 1)
    reader.start()
    caller.join()
    reader.join()
    os.close(reading)
    assert reader.received == bytes(2_000_000)
    assert 300_000 <= max(waiting) < 400_000


def test_whatever_ends_the_thread_is_raised_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(descriptor: int, pieces: object) -> int:
        raise MemoryError("for this test")

    monkeypatch.setattr(write_behind, "WAITING", 10)
    monkeypatch.setattr(write_behind.os, "writev", no_memory)
    writer = WriteBehind(1)
    with pytest.raises(MemoryError):
        for _ in range(3):
            writer.write(bytes(100))
    for again in (lambda: writer.write(b"x"), writer.finish):
        with pytest.raises(MemoryError):
            again()
    assert ended(writer)


@pytest.mark.parametrize("then", ["write", "close"])
@pytest.mark.usefixtures("behind")
def test_a_reader_that_is_gone_ends_a_large_output(then: str) -> None:
    reading, writing = os.pipe()
    with open_output(f"/dev/fd/{writing}") as output:
        output.write(b"begins a thread")
        assert output._behind is not None
        os.close(reading)
        output.write(b"x")
        with pytest.raises(BrokenPipeError):
            if then == "close":
                output.close()
            wait_for(lambda: output.write(b"x"))
    os.close(writing)


@pytest.mark.usefixtures("behind")
def test_what_could_not_be_closed_is_not_published_and_the_error_names_the_file(tmp_path: Path) -> None:
    with open_output(str(tmp_path / "rows")) as output:
        output.write(b"begins a thread")
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), output._behind._descriptor)  # type: ignore[union-attr]
        output.write(b"x")
        for end in (output.close, output.publish):
            with pytest.raises(OutputError, match="rows: cannot be written: No space left on device"):
                end()
    assert list(tmp_path.iterdir()) == []


def open_in(folder: Path) -> list[str]:
    """The files of the folder that this process has open, those without a name too."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):        # the one that lists
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [name for name in names if name.startswith(str(folder))]


@pytest.mark.parametrize("end", ["publish", "discard", "no thread"])
@pytest.mark.usefixtures("behind")
def test_no_thread_and_no_descriptor_is_left(end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with open_output(str(tmp_path / "rows")) as output:
        with monkeypatch.context() as patched:
            if end == "no thread":
                patched.setattr(threading.Thread, "start", refuse)
            output.write(b"x")
        assert (output._behind is None) == (end == "no thread")
        assert open_in(tmp_path)
        if end == "publish":
            output.publish()
    # Threads of tests before this one may end meanwhile.
    wait_for(lambda: set(threading.enumerate()) <= before)
    assert open_in(tmp_path) == []


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.usefixtures("behind")
@pytest.mark.parametrize(("processors", "name"), [(1, "rows"), (2, "/dev/null")])
def test_one_processor_and_a_device_need_no_thread(
    processors: int, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(output_module, "usable_processors", lambda: processors)
    with open_output(str(tmp_path / name)) as output:
        output.write(b"x")
        assert output._behind is None


def test_an_abandoned_output_writes_into_no_other_file(tmp_path: Path) -> None:
    """The number of a descriptor that was closed belongs to the next file that is opened."""
    reading, writing = os.pipe()
    writer = WriteBehind(writing)
    writer.write(bytes(200_000))            # more than the pipe takes, so the thread is in the middle of it
    wait_for(lambda: struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, bytes(4)))[0])
    writer.abandon()
    os.close(writing)
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    assert other == writing
    reader = Reader(reading, 1)
    reader.start()
    assert ended(writer)
    reader.join()
    os.close(reading)
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b""


@pytest.mark.parametrize("rows", [VerdictLines, VerdictCsv])
def test_a_large_output_is_the_same_with_and_without_a_thread(
    rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [ethernet(ip("198.51.100.7", "10.0.0.5", udp(port, 53))) for port in range(1024, 11_024)]
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *frames)
    monkeypatch.setattr(output_module, "usable_processors", lambda: 2)
    written = []
    for least in (1, 1 << 60):
        monkeypatch.setattr(output_module, "BEHIND_FROM", least)
        with open_output(str(tmp_path / "rows")) as output:
            replay(policy, capture, packets=rows(output.write))
            assert (output._behind is not None) == (least == 1)
            output.publish()
        written.append((tmp_path / "rows").read_bytes())
    assert written[0] == written[1] and written[0].count(b"\n") >= len(frames)


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("seed", range(2))
def test_an_interrupt_at_any_time_ends_writing_and_the_thread(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may raise between any two steps of the interpreter. Ctrl-C must not leave a lock held."""
    monkeypatch.setattr(write_behind, "WAITING", 20_000)
    rng = random.Random(seed)

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        for _ in range(some(150, 5_000)):
            writer = WriteBehind(null)
            with pytest.raises(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.002))
                while True:
                    writer.write(bytes(7_000))
            writer.abandon()
            assert ended(writer), f"seed {seed}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(null)


def test_ctrl_c_reaches_a_replay_that_waits_for_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "WAITING", 100_000)
    reading, writing = os.pipe()
    writer = WriteBehind(writing)

    def interrupt() -> None:
        wait_for(lambda: writer._waiting >= 100_000)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            writer.write(bytes(50_000))
    interrupter.join()
    writer.abandon()
    os.close(writing)
    os.close(reading)       # what the thread was writing fails, and it ends
    assert ended(writer)
