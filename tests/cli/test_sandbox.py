"""``--sandbox``: what a file that takes the process over can reach, and that reports stay the same (SPEC 11.4)."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import break_out
import pytest
from captures import zstd
from command import (
    PCAPS,
    SHOP,
    Outcome,
    environment,
    has_written,
    process,
    sgfast,
    shell,
    start,
    wait_for,
    write_policy,
)

from sgfast.base import sandbox
from sgfast.base.errors import SandboxError
from sgfast.cli import main
from sgfast.cli.options import FileName

Capsys = pytest.CaptureFixture[str]

#: The version of Landlock here, negative where there is none.
VERSION = sandbox._syscall(444, None, 0, 1) if sys.platform == "linux" else -1
needs_landlock = pytest.mark.skipif(VERSION < 3, reason="this kernel has no Landlock of version 3 or later")

POLICY, CAPTURE = SHOP


def steady(text: str) -> str:
    return re.sub(r'"(elapsed_seconds|packets_per_second)": [^,\n]+', r'"\1": 0', text)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Python finds the package, but nothing else of the project, which holds captures and policies, too."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "sgfast").symlink_to(Path(sandbox.__file__).parents[1])
    return folder


@pytest.fixture
def alike(capsys: Capsys, library: Path) -> Callable[..., Outcome]:
    """A function that returns what a command says, which is the same with ``--sandbox`` and without."""

    def run(*arguments: object) -> Outcome:
        free = sgfast(capsys, *arguments)
        confined = process(*arguments, "--sandbox", env=environment(PYTHONPATH=str(library)))
        assert (confined.status, steady(confined.out), confined.err) == (free.status, steady(free.out), free.err)
        return confined

    return run


# Actions that stay possible -------------------------------------------------------------------------------------------


@needs_landlock
def test_the_place_of_an_error_is_shown(tmp_path: Path) -> None:
    """The document is read once more, which the sandbox allows (SPEC 11.8)."""
    outcome = process("check", write_policy(tmp_path, "version: 1\nvpcs: [{name: 'a b'}]\n"), "--sandbox")
    assert outcome.status == 2 and outcome.one_line() and "  2 | vpcs: [{name: 'a b'}]\n" in outcome.err


@needs_landlock
@pytest.mark.parametrize(
    "arguments",
    [
        ("diff", POLICY, PCAPS / "shop.proposed.yaml", CAPTURE, "--json", "--jobs", "2"),
        ("check", POLICY, "--traffic", CAPTURE, "--json"),
        ("explain", POLICY, "--from", "198.51.100.7", "--to", "web-1", "--protocol", "tcp", "--port", "443"),
        ("test", POLICY, PCAPS / "shop.expect.yaml", "--json"),
        ("replay", POLICY, PCAPS / "shop.aws.log", "--compare-actions", "--json"),
        ("reach", POLICY, "--to", "db-1"),
        ("reach", POLICY, "--report", "-"),
        ("import", "auto", PCAPS / "export"),
        ("replay", PCAPS / "export", PCAPS / "programs", "--json", "--engine", "reference"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_sandbox_changes_no_report(alike: Callable[..., Outcome], arguments: tuple[object, ...]) -> None:
    assert alike(*arguments).out


@needs_landlock
def test_all_outputs_of_a_replay_appear_and_are_the_same_and_it_resumes(
    capsys: Capsys, alike: Callable[..., Outcome], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    # Its decompressor is imported when the file has been opened.
    capture = tmp_path / "shop.pcap.zst"
    capture.write_bytes(zstd(Path(CAPTURE).read_bytes()))
    names = {
        "verdicts": "v.parquet", "connections": "c.csv", "write": "w.pcapng", "write-denied": "d.pcap",
        "write-allowed": "a.pcapng", "flow-log": "f.log", "snapshot": "state", "report": "page.html",
    }  # fmt: skip
    contents = []
    for confined in (False, True):
        folder = tmp_path / str(confined)
        folder.mkdir()
        # One of them replaces a file.
        (folder / "c.csv").write_text("old")
        options = [word for option, name in names.items() for word in (f"--{option}", folder / name)]
        arguments = ("replay", POLICY, capture, "--changes", PCAPS / "shop.changes.yaml", "--jobs", "2", *options)
        done = process(*arguments, "--sandbox") if confined else sgfast(capsys, *arguments)
        assert done.status == 0, done.err
        assert sorted(path.name for path in folder.iterdir()) == sorted(names.values())
        # The page says how long the replay took, and the snapshot holds keys of hashes, which are random.
        contents.append([(folder / name).read_bytes() for name in names.values() if name not in ("page.html", "state")])
    assert contents[0] == contents[1]
    alike(*arguments[:5], "--resume", folder / "state", "--json")


@needs_landlock
def test_suggested_policy_is_written(alike: Callable[..., Outcome], tmp_path: Path) -> None:
    suggested = tmp_path / "suggested.yaml"
    alike("suggest", CAPTURE, "--policy", POLICY, "-o", suggested)
    assert "security_groups" in suggested.read_text()


@needs_landlock
def test_files_that_links_in_a_directory_or_pattern_lead_to_are_read(
    alike: Callable[..., Outcome], tmp_path: Path
) -> None:
    elsewhere, day = tmp_path / "elsewhere", tmp_path / "day"
    elsewhere.mkdir()
    day.mkdir()
    (elsewhere / "one.pcap").write_bytes(Path(CAPTURE).read_bytes())
    (day / "two.pcap").symlink_to(elsewhere / "one.pcap")
    (day / "linked").symlink_to(elsewhere)
    exports = tmp_path / "exports"
    exports.mkdir()
    for export in (PCAPS / "export").iterdir():
        (exports / export.name).symlink_to(export)
    found = alike("replay", exports, day, str(day / "*" / "*.pcap"), "--json")
    assert json.loads(found.out)["packets"] == 2 * 261


@needs_landlock
def test_standard_input_and_output_and_pipes_work(capsys: Capsys, library: Path) -> None:
    confined = shell(
        '$sgfast replay <(cat "$policy") - --verdicts - --sandbox -q <"$capture"',
        policy=POLICY, capture=CAPTURE, PYTHONPATH=library,
    )  # fmt: skip
    assert confined.out == sgfast(capsys, "replay", POLICY, CAPTURE, "--verdicts", "-", "-q").out


@needs_landlock
def test_growing_capture_is_followed(tmp_path: Path) -> None:
    data = Path(CAPTURE).read_bytes()
    growing, verdicts = tmp_path / "growing.pcap", tmp_path / "out" / "verdicts"
    verdicts.parent.mkdir()
    growing.write_bytes(data[:24])
    with start("replay", POLICY, growing, "--follow", "--sandbox", "--verdicts", verdicts, "--json") as child:
        with growing.open("ab") as file:
            file.write(data[24:])
        wait_for(lambda: has_written(child, verdicts.parent))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert child.returncode == 0, err
    assert json.loads(out)["packets"] == len(verdicts.read_text().splitlines()) > 0


# Actions that are prevented -------------------------------------------------------------------------------------------

#: Attempts of ``break_out.py`` that have to succeed, and the error number that all others end with.
POSSIBLE = {
    "read an input", "read an input in a thread", "read in an input directory", "list an input directory",
    "import a module", "write to an open output", "give an output its name", "write to the null device",
    "signal itself",
}  # fmt: skip
REFUSED = {
    errno.EACCES: {
        "read another file", "read another file in a thread", "read the users of the machine", "list another folder",
        "read the environment of a process", "make a file beside an input", "write into a file beside an output",
        "write into a new file beside an output", "make a link beside an output", "write into an input",
        "write into an input directory", "empty an input while it is opened for reading", "empty an input",
        "remove an input",
    },
    errno.EPERM: {
        "change the permissions of an input", "change the permissions of an open file", "change the times of an input",
        "connect over TCP", "connect a socket that was there before", "make a UDP socket", "make a Unix socket",
        "fork", "run a program", "signal another process", "be traced", "leave what it shares with its threads",
        "set up io_uring", "let a pipe signal another process", "let a pipe signal a group of processes",
        "choose the signal of a pipe", "turn on the signals of a pipe", "turn on the signals of a terminal",
        "let a socket signal another process", "let a socket signal a group of processes",
        "change the size of a terminal", "signal those at a terminal",
    },
}  # fmt: skip
WANTED = dict.fromkeys(POSSIBLE, 0) | {name: number for number, names in REFUSED.items() for name in names}


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """The error numbers of all attempts, of a process in a sandbox and of a free one."""
    found = {}
    for mode in ("free", "confined"):
        folder = tmp_path_factory.mktemp(mode)
        break_out.prepare(folder)
        # Python puts the program's folder on the module path, and here that is the folder which is attacked.
        program = shutil.copy(break_out.__file__, folder)
        ran = subprocess.run(
            [sys.executable, program, mode, folder],
            env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        found[mode] = json.loads(ran.stdout)
    assert found["free"].keys() == found["confined"].keys() == WANTED.keys()
    return found


@needs_landlock
@pytest.mark.parametrize("attempt", sorted(WANTED))
def test_process_that_a_file_took_over_reaches_nothing_else(attempts: dict[str, dict[str, int]], attempt: str) -> None:
    if attempts["free"][attempt]:
        pytest.skip("cannot be done outside of a sandbox here either")
    assert attempts["confined"][attempt] == WANTED[attempt]


def judged(machine: str, number: int, arguments: tuple[int, ...] = (), architecture: int | None = None) -> int:
    """Run the filter of process 1234 on a system call: 0 if the call is allowed, or an error number."""
    data = {0: number, 4: sandbox.MACHINES[machine][0] if architecture is None else architecture}
    data |= {16 + 8 * n: value & 0xFFFFFFFF for n, value in enumerate(arguments)}
    instructions, place, value = sandbox.program(machine, 1234), 0, 0
    while True:
        code, if_true, if_false, operand = instructions[place]
        place += 1
        match code:
            case 0x20:
                value = data.get(operand, 0)
            case 0x54:
                value &= operand
            case 0x15:
                place += if_true if value == operand else if_false
            case 0x35:
                place += if_true if value >= operand else if_false
            case 0x06:
                assert operand == 0x7FFF0000 or operand >> 16 == 5, hex(operand)
                return 0 if operand == 0x7FFF0000 else operand & 0xFFFF
            case _:
                raise AssertionError(hex(code))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_that_is_dangerous_only_with_some_arguments_is_not_allowed_with_them(machine: str) -> None:
    column = sandbox.MACHINES[machine][1]
    clone, kill, tgkill, limit, place, control = (
        call[column]
        for call in (
            sandbox.CLONE, sandbox.KILL, sandbox.TGKILL, sandbox.PRLIMIT, sandbox.SCHED_SETAFFINITY, sandbox.IOCTL,
        )
    )  # fmt: skip
    thread, new_user, new_network = 0x3D0F00, 0x10000000, 0x40000000
    assert judged(machine, clone, (thread,)) == 0
    for flags in (17, 0x4111, thread | new_user, thread | new_network):
        assert judged(machine, clone, (flags,)) == errno.EPERM
    for call in (kill, tgkill):
        assert judged(machine, call, (1234, 9)) == 0
        for process_number in (1, 0, -1, -1234, 1235):
            assert judged(machine, call, (process_number, 9)) == errno.EPERM
    for call in (limit, place):
        assert (judged(machine, call, (0, 7)), judged(machine, call, (1235, 7))) == (0, errno.EPERM)
    assert judged(machine, control, (1, 0x5413)) == 0
    for put_into_terminal in (0x5412, 0x541C):
        assert judged(machine, control, (0, put_into_terminal)) == errno.EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_that_would_signal_others_when_a_file_is_ready_is_refused(machine: str) -> None:
    """Landlock forbids these signals from its version 6 on only. The filter is asked here, whatever the kernel is."""
    column = sandbox.MACHINES[machine][1]
    command, control = sandbox.FCNTL[column], sandbox.IOCTL[column]
    duplicate, get_flags, set_flags, set_lock, get_owner = 0, 3, 4, 6, 9
    set_owner, set_signal, set_owner_ex = 8, 10, 15
    append, nonblocking, signals = 0x400, 0x800, 0x2000
    for request, value in ((set_owner, 1), (set_owner_ex, 0), (set_signal, 9), (set_flags, signals | nonblocking)):
        assert judged(machine, command, (0, request, value)) == errno.EPERM
    for request in (0x8901, 0x8902, 0x5452):     # FIOSETOWN, SIOCSPGRP, FIOASYNC
        assert judged(machine, control, (0, request)) == errno.EPERM
    assert judged(machine, command, (0, set_flags, append | nonblocking)) == 0
    # The numbers of what is refused may be other arguments of other requests.
    for request in (duplicate, get_flags, set_lock, get_owner):
        assert judged(machine, command, (set_owner, request, signals | set_signal)) == 0


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_that_would_signal_others_at_the_terminal_is_refused(machine: str) -> None:
    control = sandbox.IOCTL[sandbox.MACHINES[machine][1]]
    # TIOCSCTTY, TIOCSPGRP, TIOCSWINSZ, TIOCNOTTY, TIOCVHANGUP, TIOCSIG
    for request in (0x540E, 0x5410, 0x5414, 0x5422, 0x5437, 0x40045436):
        assert judged(machine, control, (0, request)) == errno.EPERM, hex(request)
    # TCGETS, TIOCGPGRP, TIOCGWINSZ, FIONBIO
    for request in (0x5401, 0x540F, 0x5413, 0x5421):
        assert judged(machine, control, (0, request)) == 0, hex(request)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_refused_calls_are_refused_by_number_and_all_others_are_allowed(machine: str) -> None:
    column = sandbox.MACHINES[machine][1]
    refused = {numbers[column] for numbers in sandbox.REFUSED.values()}
    calls = (
        sandbox.CLONE, sandbox.KILL, sandbox.TGKILL, sandbox.PRLIMIT, sandbox.SCHED_SETAFFINITY, sandbox.IOCTL,
        sandbox.FCNTL,
    )  # fmt: skip
    special = {call[column] for call in calls}
    assert not special & refused and sandbox.CLONE3 not in refused
    for number in range(sandbox.FIRST_UNKNOWN):
        if number not in special | {sandbox.CLONE3}:
            assert judged(machine, number) == (errno.EPERM if number in refused else 0), number


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_by_another_interface_of_the_kernel_or_a_newer_one_is_not_made(machine: str) -> None:
    for architecture in (0x40000003, 0x40000028, 0):     # i386, 32-bit ARM
        assert judged(machine, 3, architecture=architecture) == errno.EPERM
    x32 = 0x40000000
    for number in (sandbox.CLONE3, sandbox.FIRST_UNKNOWN, 1000, x32 | 41, x32 | 520, 0xFFFFFFFF):
        assert judged(machine, number) == errno.ENOSYS


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
)
def test_refused_calls_have_the_numbers_of_the_kernels_headers(column: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed here")
    known = {
        name.removeprefix("3264_").removeprefix("_"): int(number)
        for name, number in re.findall(r"#define __NR3?2?6?4?_(\w+)\s+(\d+)", Path(header).read_text())
    }
    special = {
        name.lower(): getattr(sandbox, name)
        for name in ("CLONE", "KILL", "TGKILL", "SCHED_SETAFFINITY", "IOCTL", "FCNTL")
    } | {"prlimit64": sandbox.PRLIMIT, "clone3": (sandbox.CLONE3,) * 2}  # fmt: skip
    for name, numbers in (sandbox.REFUSED | special).items():
        assert numbers[column] == known.get(name), name


# When it begins ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "replay BAD BAD --changes BAD --verdicts OUT",
        "diff BAD BAD BAD",
        "diff --plan BAD BAD",
        "check BAD --traffic BAD",
        "check BAD --expect BAD",
        "test BAD BAD",
        "test --init BAD BAD -o OUT",
        "explain BAD --from a --to b --protocol tcp",
        "reach BAD",
        "suggest BAD --policy BAD -o OUT",
        "suggest BAD --instances BAD",
        "import auto BAD -o OUT",
    ],
)
def test_nothing_is_read_before_the_sandbox_begins(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    bad, out = tmp_path / "bad", tmp_path / "out" / "new"
    out.parent.mkdir()
    bad.write_text("{")
    told: list[tuple[set[str], list[int]]] = []

    def confine(inputs: Iterable[str], searched: Iterable[str], output_folders: Iterable[int]) -> None:
        told.append((set(inputs), [os.fstat(folder).st_ino for folder in output_folders]))
        raise SandboxError("the sandbox ends here")

    monkeypatch.setattr(sandbox, "confine", confine)
    arguments = [{"BAD": str(bad), "OUT": str(out)}.get(word, word) for word in words.split()]
    assert sgfast(capsys, *arguments, "--sandbox").one_line() == "sgfast: the sandbox ends here"
    assert told == [({str(bad)}, [out.parent.stat().st_ino] if "OUT" in words else [])]
    # Without the option the file is read, and is found to be bad.
    assert str(bad) in sgfast(capsys, *arguments).one_line()


def test_every_command_that_reads_files_has_a_sandbox() -> None:
    reading, confined = (
        {name for name, command in main.commands.items() if any(map(has, command.params))}
        for has in (lambda option: isinstance(option.type, FileName), lambda option: option.name == "sandbox")
    )
    assert reading == confined and "replay" in reading


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A kernel that is not asked for anything: a test process must not be confined by accident."""
    monkeypatch.setattr(sandbox, "_refuse_threads", lambda: None)
    monkeypatch.setattr(sandbox, "_begin_landlock", lambda *arguments: None)
    monkeypatch.setattr(sandbox, "refuse_calls", lambda *arguments: None)
    monkeypatch.setattr(sandbox, "_syscall", lambda *arguments: 7)
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "x86_64")
    return monkeypatch


def refused(capsys: Capsys) -> str:
    done = sgfast(capsys, "explain", POLICY, "--from", "web-1", "--to", "db-1", "--protocol", "icmp", "--sandbox")
    assert (done.status, done.out) == (2, "")
    line = done.one_line()
    assert line.startswith("sgfast: the sandbox cannot start: ") and "leave --sandbox out" in line
    return line


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        (-errno.ENOSYS, "no Landlock (Function not implemented)"),
        (-errno.EOPNOTSUPP, "no Landlock (Operation not supported)"),
        (2, "version 2 of Landlock"),
    ],
)
def test_kernel_without_landlock_or_with_an_old_one_is_refused(
    capsys: Capsys, kernel: pytest.MonkeyPatch, result: int, cause: str
) -> None:
    kernel.setattr(sandbox, "_syscall", lambda *arguments: result)
    line = refused(capsys)
    assert cause in line and "Linux 6.2" in line


@pytest.mark.parametrize(("step", "cause"), [("_begin_landlock", "refuses Landlock"), ("refuse_calls", "seccomp")])
def test_kernel_that_refuses_at_the_last_step_is_refused(
    capsys: Capsys, kernel: pytest.MonkeyPatch, step: str, cause: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    kernel.setattr(sandbox, step, fail)
    line = refused(capsys)
    assert cause in line and "Invalid argument" in line


def test_processor_whose_calls_are_not_known_is_refused(capsys: Capsys, kernel: pytest.MonkeyPatch) -> None:
    kernel.setattr(sandbox.platform, "machine", lambda: "riscv64")
    assert "x86_64 or aarch64" in refused(capsys)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_thread_that_would_stay_outside_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that this process is not confined if the check is broken.
    monkeypatch.setattr(sandbox, "_syscall", lambda *arguments: -errno.ENOSYS)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(SandboxError, match="started threads"):
            sandbox.confine([], [], [])
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("replay", POLICY, "s3://bucket/monday.pcap"), "s3://bucket/monday.pcap: a sandbox has no network"),
        (("check", POLICY, "--traffic", "https://me:secret@host/a.pcap"), "https://…@host/a.pcap: a sandbox has no"),
        (("replay", POLICY, CAPTURE, "--dask", "local"), "--dask and --sandbox cannot be combined"),
    ],
)
def test_input_from_the_network_is_refused_before_it_is_asked_for(
    capsys: Capsys, kernel: pytest.MonkeyPatch, arguments: tuple[object, ...], cause: str
) -> None:
    done = sgfast(capsys, *arguments, "--sandbox")
    assert done.status == 2 and cause in done.one_line() and "secret" not in done.err


def test_directory_of_captures_does_not_open_the_folders_below_it(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights to a directory are rights to all below it."""
    shutil.copy(CAPTURE, tmp_path / "a.pcap")
    (tmp_path / "private").mkdir()
    readable: list[str] = []
    monkeypatch.setattr(sandbox, "confine", lambda inputs, searched, folders: readable.extend(inputs))
    assert sgfast(capsys, "replay", POLICY, tmp_path, "--sandbox").status == 0
    assert set(readable) == {str(tmp_path / "a.pcap"), POLICY}


@needs_landlock
def test_input_that_is_not_there_gets_its_usual_error(alike: Callable[..., Outcome], tmp_path: Path) -> None:
    assert "No such file" in alike("import", "auto", tmp_path / "no.json").one_line()
