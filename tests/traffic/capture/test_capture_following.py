"""Captures that grow while they are read: ``--follow``, and pipes written in pieces (SPEC 9.7)."""

from __future__ import annotations

import gzip
import json
import os
import select
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from captures import pcap_head, pcap_record
from command import DEADLINE_SECONDS, handshake, sgfast, start, write_capture, write_policy

import sgfast as library
from sgfast.base.streams import binary_stream as streams
from sgfast.traffic.capture import open_capture
from sgfast.traffic.capture.following import first_interrupt

Capsys = pytest.CaptureFixture[str]

HEAD = pcap_head()
FRAMES = handshake(1000, 80) + handshake(1001, 8080)
RECORDS = [pcap_record(frame, time=(1000 + n, 0)) for n, frame in enumerate(FRAMES)]


class Following:
    """The command that follows ``path``; verdicts come out of a pipe, line by line."""

    def __init__(self, policy: Path, path: object, *options: object, **more: Any) -> None:
        self.child = start("replay", policy, path, "--verdicts", "-", "--format", "json", *options, **more)

    def packet(self) -> int:
        """The number of the packet that comes next; waits for it."""
        number: int = json.loads(self.child.stdout.readline())["packet"]
        return number

    def end(self, *signals: int) -> tuple[int, str, str]:
        for number in signals:
            self.child.send_signal(number)
        out, err = self.child.communicate(timeout=DEADLINE_SECONDS)
        return self.child.returncode, out, err

    def report(self, *signals: int) -> tuple[int, dict[str, Any], str]:
        """Exit status, the report, and what was said besides."""
        status, out, err = self.end(*signals)
        assert out == ""
        at = err.index("{")
        decoder = json.JSONDecoder()
        found, length = decoder.raw_decode(err[at:])
        return status, found, err[:at] + err[at + length :].strip()


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """As in a program of its own: whoever runs the tests may have left something else."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path)


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


# Pipes


JOBS = pytest.mark.parametrize("jobs", [1, 3])


@contextmanager
def followed_pipe(policy: Path, *options: object) -> Iterator[tuple[Following, Callable[[bytes], object]]]:
    """The command that reads a pipe, and a function that writes into it."""
    receive, send = os.pipe()
    run = Following(policy, "-", *options, stdin=receive)
    os.close(receive)
    with open(send, "wb", buffering=0) as pipe:
        yield run, pipe.write


@JOBS
def test_verdicts_of_a_pipe_come_as_packets_arrive(policy: Path, jobs: int) -> None:
    with followed_pipe(policy, "--jobs", jobs) as (run, write):
        write(HEAD[:10])
        write(HEAD[10:] + RECORDS[0])
        assert run.packet() == 1
        write(RECORDS[1][:20])
        write(RECORDS[1][20:] + RECORDS[2] + RECORDS[3][:5])
        assert (run.packet(), run.packet()) == (2, 3)
        write(RECORDS[3][5:])
        assert run.packet() == 4
    status, found, _ = run.report()
    assert status == 0 and found["packets"] == 4


@JOBS
def test_connections_of_a_pipe_come_as_packets_arrive(policy: Path, jobs: int) -> None:
    receive, send = os.pipe()
    child = start("replay", policy, "-", "--connections", "-", "--jobs", jobs, stdin=receive)
    os.close(receive)
    with open(send, "wb", buffering=0) as pipe:
        # The last packet is 115 days later, so the connections before it have timed out.
        pipe.write(HEAD + b"".join(RECORDS) + pcap_record(FRAMES[0], time=(10**7, 0)))
        assert select.select([child.stdout], [], [], DEADLINE_SECONDS)[0]
        assert json.loads(child.stdout.readline())["first_time"]
    child.communicate(timeout=DEADLINE_SECONDS)
    assert child.returncode == 0


def test_verdicts_of_a_compressed_pipe_come_as_packets_arrive(policy: Path) -> None:
    deflating = zlib.compressobj(wbits=31)
    with followed_pipe(policy) as (run, write):
        for n, record in enumerate(RECORDS, 1):
            write(deflating.compress((HEAD if n == 1 else b"") + record) + deflating.flush(zlib.Z_SYNC_FLUSH))
            assert run.packet() == n
        write(deflating.flush())
    assert run.report()[0] == 0


# Following


@JOBS
def test_a_growing_file_is_read_on_until_the_first_interrupt_and_reported(
    policy: Path, tmp_path: Path, jobs: int
) -> None:
    path, connections = tmp_path / "growing", tmp_path / "connections"
    path.touch()
    run = Following(policy, path, "--follow", "--fail-on", "denied", "--jobs", jobs, "--connections", connections)
    append(path, HEAD[:7])
    append(path, HEAD[7:] + RECORDS[0])
    assert run.packet() == 1
    append(path, RECORDS[1] + RECORDS[2][:3])
    assert run.packet() == 2
    append(path, RECORDS[2][3:] + b"".join(RECORDS[3:-1]) + RECORDS[-1][:40])      # half a record is waited for
    assert [run.packet() for _ in range(3)] == [3, 4, 5]
    assert not connections.exists()
    status, found, said = run.report(signal.SIGINT)
    # The exit status is as usual, and outputs are whole.
    assert (status, found["packets"], found["damaged"]) == (1, 5, None)
    assert said == "sgfast: status 1, because of --fail-on denied"
    assert len(connections.read_text().splitlines()) == 2


def test_termination_interrupts_as_ever(policy: Path, tmp_path: Path) -> None:
    path, connections = tmp_path / "growing", tmp_path / "connections"
    path.write_bytes(HEAD + RECORDS[0])
    run = Following(policy, path, "--follow", "--connections", connections)
    assert run.packet() == 1
    status, out, err = run.end(signal.SIGTERM)
    assert (status, out, err) == (143, "", "sgfast: terminated\n") and not connections.exists()


@pytest.mark.parametrize("signals", [0, 1, 2])
def test_a_pipe_is_followed_to_its_end_or_the_second_interrupt(policy: Path, signals: int) -> None:
    with followed_pipe(policy, "--follow") as (run, write):
        write(HEAD + RECORDS[0])
        assert run.packet() == 1
        if signals:
            run.child.send_signal(signal.SIGINT)
        write(RECORDS[1])
        assert run.packet() == 2
        if signals == 2:
            assert run.end(signal.SIGINT) == (130, "", "sgfast: interrupted\n")
            return
    status, found, _ = run.report()
    assert (status, found["packets"]) == (0, 2)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("damaged", "a captured length of 4294967295 bytes"),
        ("truncated", "the file was truncated to 30 bytes while it was followed"),
        ("removed", "the file was removed while it was followed"),
        ("replaced", "another file took its place"),
    ],
)
def test_damage_and_a_file_that_goes_away_are_3_and_what_was_written_is_read(
    how: str, words: str, policy: Path, tmp_path: Path
) -> None:
    path, other = tmp_path / "growing", tmp_path / "other"
    path.write_bytes(HEAD + RECORDS[0] + RECORDS[1])
    other.write_bytes(HEAD)
    run, packets = Following(policy, path, "--follow"), 2
    assert (run.packet(), run.packet()) == (1, 2)
    match how:
        case "damaged":
            append(path, pcap_record(b"", captured=0xFFFFFFFF))
        case "truncated":
            os.truncate(path, 30)
        case "removed":
            path.unlink()
        case "replaced":
            # Written first: once the name is gone, what is not there by then does not come.
            append(path, RECORDS[2])
            other.replace(path)
            packets = run.packet()
    status, found, said = run.report()
    assert (status, found["packets"], said) == (3, packets, "")
    assert words in found["damaged"]["cause"] and found["damaged"]["packet"] == packets + 1


def test_captures_before_the_one_that_grows_are_read_to_their_ends(policy: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(HEAD + RECORDS[0])
    second.write_bytes(HEAD + RECORDS[1])
    run = Following(policy, first, "--follow", second)
    assert (run.packet(), run.packet()) == (1, 2)
    append(second, RECORDS[2])
    assert run.packet() == 3
    assert run.report(signal.SIGINT)[1]["reasons"] == {"rule": 1, "established": 2}


def test_a_compressed_file_grows(policy: Path, tmp_path: Path) -> None:
    path = tmp_path / "growing.gz"
    deflating = zlib.compressobj(wbits=31)
    path.write_bytes(deflating.compress(HEAD + RECORDS[0]) + deflating.flush(zlib.Z_SYNC_FLUSH))
    run = Following(policy, path, "--follow")
    assert run.packet() == 1
    append(path, deflating.compress(RECORDS[1]) + deflating.flush())
    assert run.packet() == 2
    append(path, gzip.compress(RECORDS[2]))
    assert run.packet() == 3
    append(path, gzip.compress(RECORDS[3])[:15])
    status, found, _ = run.report(signal.SIGINT)
    assert (status, found["packets"], found["damaged"]) == (0, 3, None)


def test_what_cannot_be_followed_is_told(capsys: Capsys, policy: Path, tmp_path: Path) -> None:
    outcome = sgfast(capsys, "replay", policy, tmp_path, "--follow")
    assert outcome.status == 2 and "is a directory; follow the growing file in it instead" in outcome.one_line()
    outcome = sgfast(capsys, "suggest", tmp_path / "x", "--follow")
    assert outcome.status == 2 and "leave out --follow" in outcome.one_line()
    outcome = sgfast(capsys, "replay", policy, tmp_path / "x", "--follow")
    assert outcome.status == 2 and "does not exist" in outcome.one_line()
    (tmp_path / "text").write_text("no capture\n")
    outcome = sgfast(capsys, "replay", policy, tmp_path / "text", "--follow")
    assert outcome.status == 2 and "is text" in outcome.one_line()


@pytest.mark.parametrize("captures", [1, 2])
def test_an_interrupt_ends_it_before_the_end_of_what_is_there(captures: int, policy: Path, tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(HEAD + RECORDS[0] * 40_000)
    batches: list[int] = []

    def interrupt(packets: int, nbytes: int) -> None:
        if not batches:
            os.kill(os.getpid(), signal.SIGINT)
        batches.append(packets)

    result = library.replay(policy, [path] * captures, reading=library.ReadOptions(follow=True), progress=interrupt)
    assert result.packets == batches[-1] < 40_000 and result.damaged is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupts_are_left_alone_afterwards_where_they_are_ignored_and_in_other_threads() -> None:
    with first_interrupt() as came:
        assert not came() and signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with first_interrupt() as came:
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not came()
    finally:
        signal.signal(signal.SIGINT, before)
    seen: list[bool] = []

    def other() -> None:
        with first_interrupt() as came:
            seen.append(came())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [False]


def test_following_asks_and_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_capture(tmp_path, *handshake(1000, 80))
    slept: list[float] = []
    monkeypatch.setattr(streams.time, "sleep", slept.append)

    answers = chain([False] * 10, repeat(True))
    with open_capture(path, until=lambda: next(answers)) as reader:
        while reader.next_batch() is not None:
            pass
        assert reader.packets == 3 and reader.damage is None
    # The first time there was something to read, and then the zeros at the end of the last packet.
    assert slept == [streams.POLL_SECONDS] * 8
