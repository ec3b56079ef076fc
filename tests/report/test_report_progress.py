"""The progress bar: for those who wait at a terminal, and for nobody else (SPEC 10.19)."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path

import pytest
from command import PCAPS, SHOP, process, sgfast

from sgfast.__main__ import run
from sgfast.report import progress
from sgfast.report.progress import Bar, ProgressBar, total_bytes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_instead(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    # Called by tests, no fixture: pytest puts its own stream in place when a test begins.
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_a_short_replay_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_instead(monkeypatch)
    bar = ProgressBar([SHOP[1]])
    bar(262, 1000)
    bar.close()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("captures", [[SHOP[1]], ["/dev/zero"]])
def test_a_long_replay_shows_a_bar_and_takes_it_away(monkeypatch: pytest.MonkeyPatch, captures: list[str]) -> None:
    terminal = terminal_instead(monkeypatch)
    # Each look at the clock is ten seconds later.
    seconds = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    bar = ProgressBar(captures)
    for packets in (1000, 2000, 1234567):
        bar(packets, packets * 10)
    bar.close()
    bar.close()
    written = terminal.getvalue()
    assert "1,234,567 packets" in written
    # Its line is erased and the cursor is visible again.
    assert "\x1b[2K" in written and written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_the_bar_of_logs_in_nested_folders_has_their_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bars: list[ProgressBar] = []
    monkeypatch.setattr(ProgressBar, "close", lambda bar: bars.append(bar))
    (tmp_path / "2026/11").mkdir(parents=True)
    for n in range(2):
        shutil.copy(PCAPS / "shop.month.log.gz", tmp_path / f"2026/11/{n}.log.gz")
    terminal = terminal_instead(monkeypatch)
    seconds = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    run(["replay", str(SHOP[0]), str(tmp_path)])
    Bar.close(bars[0])
    assert bars[0]._total == 2 * (PCAPS / "shop.month.log.gz").stat().st_size
    assert "records" in terminal.getvalue() and "packets" not in terminal.getvalue()


def test_a_bar_without_bytes_shows_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_instead(monkeypatch)
    seconds = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    bar = Bar()
    for objects in (500, 1000):
        bar.show(f"{objects:,} ports")
    bar.close()
    assert "1,000 ports" in terminal.getvalue() and "/s" not in terminal.getvalue()


def test_a_bar_begins_anew_where_captures_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_instead(monkeypatch)
    seconds = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    bar = ProgressBar([SHOP[1]])
    for nbytes in (1000, 9000, 2000, 3000):
        bar(nbytes // 10, nbytes)
    assert bar._bar is not None
    (task,) = bar._bar.tasks
    assert task.completed == 3000
    bar.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", *SHOP), ("diff", SHOP[0], *SHOP), ("check", SHOP[0], "--traffic", SHOP[1]),
        ("suggest", SHOP[1], "--instances", SHOP[0]),
    ],
)  # fmt: skip
def test_commands_that_read_captures_show_a_bar_at_a_terminal(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_instead(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    assert run(arguments) == 0
    assert " packets" in terminal.getvalue() and "\x1b[2K" in terminal.getvalue()
    if arguments[0] != "check":
        terminal = terminal_instead(monkeypatch)
        assert run([*arguments, "--quiet"]) == 0
        assert terminal.getvalue() == ""


def test_redirected_standard_error_gets_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    assert sgfast(capsys, "replay", *SHOP).err == ""


def test_the_size_of_what_is_not_a_file_is_unknown(tmp_path: Path) -> None:
    size = Path(SHOP[1]).stat().st_size
    assert total_bytes([SHOP[1], SHOP[1]]) == 2 * size
    (tmp_path / "one").write_bytes(bytes(10))
    (tmp_path / "other").write_bytes(bytes(20))
    assert total_bytes([SHOP[1], str(tmp_path)]) == size + 30
    for other in ("/dev/null", str(tmp_path / "missing"), "nul\0byte"):
        assert total_bytes([SHOP[1], other]) is None
    with open(SHOP[1]) as given:
        assert process("replay", SHOP[0], "-", stdin=given).status == 0
