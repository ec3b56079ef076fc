"""Interrupts while captures are read: the report of what was judged, marked as partial (SPEC 10.5, 10.27)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from struct import unpack
from termios import FIONREAD
from typing import Any

import pytest
from captures import pcap_head, pcap_record
from command import DEADLINE_SECONDS, SHOP, handshake, is_asleep, sgfast, start, valid, wait_for, write_policy

import sgfast as library

Capsys = pytest.CaptureFixture[str]

TOLD = "sgfast: interrupted; the report is about what was judged"
FRAMES = handshake(1000, 80) + handshake(1001, 8080)
BEGINNING = pcap_head() + b"".join(pcap_record(frame, time=(1000 + n, 0)) for n, frame in enumerate(FRAMES))


@contextmanager
def waiting(*arguments: object, given: bytes = BEGINNING) -> Iterator[Any]:
    """The command, with a beginning of a capture as standard input; it has judged this and waits for the rest."""
    with start(*arguments, stdin=subprocess.PIPE, bufsize=0, text=False) as child:
        child.stdin.write(given)
        wait_for(lambda: _in_pipe(child.stdin) == 0 and is_asleep(child))
        yield child


@contextmanager
def blocked() -> Iterator[Any]:
    """The command, which judges a batch and waits until somebody takes its rows."""
    records = BEGINNING[:24] + 6 * BEGINNING[24:]
    with start(
        "replay", SHOP[0], "-", "--verdicts", "-", stdin=subprocess.PIPE, bufsize=0, text=False, pipesize=4096
    ) as child:
        assert child.stdin.write(records) < 4096
        wait_for(lambda: _in_pipe(child.stdout) > 0 and is_asleep(child))
        child.send_signal(signal.SIGINT)
        wait_for(lambda: not _catches(child, signal.SIGINT))
        yield child


def _in_pipe(pipe: Any) -> int:
    return int(unpack("i", ioctl(pipe.fileno(), FIONREAD, b"\0" * 4))[0])


def _catches(child: Any, number: int) -> bool:
    """Return whether the process has a handler for a signal (proc_pid_status(5))."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> number - 1 & 1)


def interrupted(*arguments: object, given: bytes = BEGINNING) -> tuple[int, str, str]:
    with waiting(*arguments, given=given) as child:
        child.send_signal(signal.SIGINT)
        status = child.wait(DEADLINE_SECONDS)
        return status, child.stdout.read().decode(), child.stderr.read().decode()


def reasons(found: dict[str, Any]) -> dict[str, Any]:
    assert found["evidence"]["conclusive"] != "yes"
    return {each["code"]: each for each in found["evidence"]["reasons"]}


@pytest.mark.parametrize("options", [(), ("--jobs", 3), ("--engine", "reference")], ids=["one", "jobs", "reference"])
def test_an_interrupt_reports_what_was_judged_as_a_part(
    capsys: Capsys, tmp_path: Path, options: tuple[object, ...]
) -> None:
    policy, capture = write_policy(tmp_path), tmp_path / "beginning.pcap"
    capture.write_bytes(BEGINNING)
    status, out, err = interrupted("replay", policy, "-", "--json", "--fail-on", "denied", *options)
    assert (status, err) == (130, f"{TOLD}\n")
    part, whole = valid("summary", json.loads(out)), json.loads(sgfast(capsys, "replay", policy, capture, "--json").out)
    for name in ("packets", "verdicts", "connections", "rules"):
        assert part[name] == whole[name]
    reason = reasons(part)["interrupted"]
    assert reason["level"] == "partly" and "after packet 6, at 1970-01-01T00:16:45" in reason["sentence"]
    # The command that mends it gives an answer about the time before.
    end = reason["command"].partition("--end ")[2].split()[0]
    mended = json.loads(sgfast(capsys, "replay", policy, capture, "--end", end, "--json").out)
    assert mended["packets"] == 5 and mended["evidence"]["conclusive"] == "yes"


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_an_interrupted_report_says_that_it_is_a_part(tmp_path: Path, form: str) -> None:
    status, out, _ = interrupted("replay", write_policy(tmp_path), "-", "--format", form)
    assert status == 130 and "an interrupt ended the reading after packet 6" in " ".join(out.split())


def test_an_interrupted_comparison_is_no_proof_that_nothing_changes(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    page = tmp_path / "out" / "page.html"
    page.parent.mkdir()
    status, out, err = interrupted("diff", policy, policy, "-", "--json", "--report", page)
    assert (status, err) == (130, f"{TOLD}, and no file was written\n") and not [*page.parent.iterdir()]
    found = valid("diff", json.loads(out))
    assert found["packets"] == 6 and "interrupted" in reasons(found)


def test_changes_of_an_interrupted_comparison_reach_nobody(tmp_path: Path) -> None:
    """Standard output may be a pipe into a shell."""
    policy = write_policy(tmp_path)
    status, out, err = interrupted("diff", policy, SHOP[0], "-", "--to", "nftables", "--instance", "web-1")
    assert (status, out) == (130, "") and err.endswith(f"{TOLD}, and no file was written\n")


def test_an_interrupted_check_reports_what_it_found() -> None:
    status, out, err = interrupted("check", SHOP[0], "--traffic", "-", given=Path(SHOP[1]).read_bytes())
    assert (status, err) == (130, f"{TOLD}\n") and "With -: 261 packets" in out


def test_no_file_of_an_interrupted_replay_appears(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    files = {"--verdicts": "rows.csv", "--connections": "flows.jsonl", "--report": "page.html", "--snapshot": "state"}
    given = [word for option, name in files.items() for word in (option, folder / name)]
    status, out, err = interrupted("replay", write_policy(tmp_path), "-", "--json", *given)
    assert (status, err) == (130, f"{TOLD}, and no file was written\n")
    assert json.loads(out)["packets"] == 6 and not [*folder.iterdir()]


def test_an_interrupt_before_the_first_packet_has_nothing_to_report() -> None:
    assert interrupted("replay", *SHOP[:1], "-", given=pcap_head()) == (130, "", "sgfast: interrupted\n")


def test_a_second_interrupt_ends_at_once() -> None:
    """The first one waits for the end of the batch, whose rows nobody takes."""
    with blocked() as child:
        child.send_signal(signal.SIGINT)
        assert child.wait(DEADLINE_SECONDS) == -signal.SIGINT


def test_termination_after_an_interrupt_ends_without_a_report() -> None:
    with blocked() as child:
        child.send_signal(signal.SIGTERM)
        assert (child.wait(DEADLINE_SECONDS), child.stderr.read()) == (143, b"sgfast: terminated\n")


def test_programs_get_the_interrupt_itself(capsys: Capsys) -> None:
    """Even after a command in the same process, which leaves nothing behind."""
    assert sgfast(capsys, "replay", *SHOP).status == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            library.replay(*SHOP, progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_command_after_an_interrupted_one_is_whole(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same process, as tests and programs run them. The interrupt comes while packets are judged."""
    from sgfast.questions.replaying.schedule import Schedule

    process = Schedule.process

    def interrupts(*arguments: Any) -> None:
        process(*arguments)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Schedule, "process", interrupts)
            stopped = sgfast(capsys, "replay", *SHOP, "--json")
        assert stopped.status == 130 and "interrupted" in reasons(json.loads(stopped.out))
        after = sgfast(capsys, "replay", *SHOP, "--json")
        assert after.status == 0 and json.loads(after.out)["evidence"]["conclusive"] == "yes"
    finally:
        signal.signal(signal.SIGINT, before)
