"""Whatever goes wrong: one line that says where, the right exit status, nothing half written (SPEC 10.5, 11)."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from captures import enhanced, interface, pcap_head, section
from command import (
    COMMAND,
    DEADLINE_SECONDS,
    SHOP,
    environment,
    handshake,
    has_written,
    is_asleep,
    process,
    sgfast,
    shell,
    start,
    wait_for,
    write_capture,
    write_policy,
)

from sgfast.__main__ import TRACEBACK_VARIABLE
from sgfast.clouds.providers import FORMATS

Capsys = pytest.CaptureFixture[str]
Signal = signal.Signals


def test_usage_errors_are_one_line(capsys: Capsys) -> None:
    for arguments, words in (
        (("frobnicate",), "frobnicate"),
        (("replay", SHOP[0]), "CAPTURE"),
        (("replay", *SHOP, "--changes", "x"), "x: cannot be read"),
        (("replay", *SHOP, "--jobs", "0"), "--jobs"),
        (("replay", *SHOP, "--threads", "2"), "--threads"),
        (("replay", *SHOP, "--mode", "wrong"), "wrong"),
        (("replay", *SHOP, "--fail-on", "moot"), "moot"),
        (("replay", *SHOP, "--engine", "reference", "--connections", "x"), "--connections"),
        (("replay", "-", "-"), "only once"),
        (("replay", SHOP[0], "-", SHOP[1], "-"), "only once"),
        (("check",), "POLICY"),
    ):
        outcome = sgfast(capsys, *arguments)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == "", arguments


def test_no_command_is_an_error_that_helps(capsys: Capsys) -> None:
    outcome = sgfast(capsys)
    assert outcome.status == 2 and "replay" in outcome.err and outcome.out == ""


# Inputs


def test_captures_that_cannot_be_read(capsys: Capsys, tmp_path: Path) -> None:
    empty, text, packed, folder = (tmp_path / name for name in ("empty", "text", "packed", "folder"))
    folder.mkdir()
    empty.touch()
    text.write_text("no capture at all\n")
    packed.write_bytes(gzip.compress(b"no capture either\n"))
    radio, later = tmp_path / "radio", tmp_path / "later"
    radio.write_bytes(pcap_head(link_type=169))
    later.write_bytes(section() + interface(link_type=169) + enhanced(b"x"))
    bus, buses = tmp_path / "bus", tmp_path / "buses"
    bus.write_bytes(pcap_head(link_type=189))
    buses.write_bytes(section() + interface(link_type=189) + interface() + enhanced(b"x"))
    for path, words in (
        (folder, "is a directory that holds no captures"),
        (tmp_path / "missing", "does not exist"),
        (empty, "is empty"),
        (text, "is text"),
        (packed, "decompressed, it is text"),
        (radio, "LINKTYPE_GPRS_LLC (169) is not supported"),
        (later, "LINKTYPE_GPRS_LLC (169) is not supported"),
        (bus, "LINKTYPE_USB_LINUX (189) carries no IP"),
        (buses, "LINKTYPE_USB_LINUX (189) carries no IP"),
        (tmp_path / "new\nline", "new\\nline"),
    ):
        target = tmp_path / "verdicts"
        outcome = sgfast(capsys, "replay", SHOP[0], SHOP[1], path, "--verdicts", target)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == ""
        assert not target.exists() and not list(tmp_path.glob(".*"))


def test_capture_that_is_not_there_is_told_before_a_damaged_one_is_judged(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damaged, text = write_capture(tmp_path, *handshake(1000, 80)), tmp_path / "text"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    text.write_text("no capture at all\n")
    monkeypatch.chdir(tmp_path)     # a socket's path is short
    socket.socket(socket.AF_UNIX).bind("socket")
    policy = write_policy(tmp_path)
    assert sgfast(capsys, "replay", policy, damaged).status == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (tmp_path / "missing", tmp_path / "missing" / "deeper", empty, text, "socket", damaged / "under"):
        for engine in ("fast", "reference"):
            target = tmp_path / "verdicts"
            outcome = sgfast(capsys, "replay", policy, damaged, path, "--engine", engine, "--verdicts", target)
            assert outcome.status == 2 and str(path) in outcome.one_line() and outcome.out == ""
            assert not target.exists()


def test_pipes_among_captures_are_opened_once(tmp_path: Path) -> None:
    capture, policy = write_capture(tmp_path, *handshake(1000, 80)), write_policy(tmp_path)
    outcome = shell(
        'mkfifo "$folder/fifo"; cat "$capture" >"$folder/fifo" & '
        '$sgfast replay "$policy" "$capture" "$folder/fifo" <(cat "$capture") - --format json <"$capture"',
        folder=tmp_path, capture=capture, policy=policy,
    )  # fmt: skip
    assert outcome.status == 0 and json.loads(outcome.out)["packets"] == 4 * 3


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_capture_in_the_place_of_the_policy_is_called_one(capsys: Capsys, tmp_path: Path, form: str) -> None:
    capture = Path(SHOP[1])
    if form == "pcapng":
        capture = tmp_path / "some.pcapng"
        capture.write_bytes(section() + interface() + enhanced(b"x"))
    for arguments in (("replay", capture, SHOP[0]), ("diff", SHOP[0], capture, SHOP[0]), ("check", capture)):
        outcome = sgfast(capsys, *arguments)
        assert outcome.status == 2 and "holds captures, not a policy; policies stand before" in outcome.one_line()


def test_policies_that_cannot_be_used(capsys: Capsys, tmp_path: Path) -> None:
    host_bits = "version: 1\nsecurity_groups:\n  - name: g\n    rules: [{direction: inbound, source: 10.0.0.1/8}]\n"
    for text, words in (
        ("version: 1\nsecurity_group: []\n", ":2: "),
        (host_bits, ":4: "),
        ("{", ":1"),
        ("", ""),
        ("version: 1\ninstances: [{name: a, addresses: [10.0.0.1], security_groups: [none]}]", "'none'"),
    ):
        policy = write_policy(tmp_path, text)
        for arguments in (("check", policy), ("replay", policy, SHOP[1])):
            outcome = sgfast(capsys, *arguments)
            assert outcome.status == 2 and outcome.out == ""
            assert str(policy) in outcome.one_line() and words in outcome.one_line()
    for path in (tmp_path, tmp_path / "missing", SHOP[1]):
        assert str(path) in sgfast(capsys, "check", path).one_line()


ODD_FILES = {
    "empty": b"", "binary": bytes(range(256)) * 64, "gzip": b"\x1f\x8b\x08\0" + bytes(50), "line": b"x" * 200_000,
    "deep.json": b'{"a":' * 100_000, "deep.yaml": b"a: " + b"[" * 100_000,
    "holds-itself.yaml": b"version: 1\nsecurity_groups: &a [*a]\n",
    "nan.json": b'{"security_groups": [{"id": NaN}]}', "half.json": b'{"security_groups": [{"id": ["\\ud800"]}]}',
    "e\x1b[31m\n": b"!!python/object/apply:os.system [exit]\n",
}  # fmt: skip


@pytest.mark.parametrize("name", [*ODD_FILES, "directory", "missing", "nul\0", "/dev/null"])
def test_every_command_says_of_an_odd_file_in_one_line_what_is_wrong(capsys: Capsys, tmp_path: Path, name: str) -> None:
    path = name if "\0" in name or name == "/dev/null" else str(tmp_path / name)
    if name in ODD_FILES:
        Path(path).write_bytes(ODD_FILES[name])
    elif name == "directory":
        Path(path).mkdir()
    policy, capture = SHOP
    packet = ("--from", "web-1", "--to", "db-1", "--protocol", "gre")
    for arguments in (
        ("replay", path, capture), ("replay", policy, path), ("replay", policy, capture, "--changes", path),
        ("replay", policy, capture, "--resume", path), ("check", path, "--format", "sarif"),
        ("check", policy, "--traffic", path), ("diff", path, *SHOP), ("diff", policy, path, capture),
        ("diff", "--plan", path, capture), ("explain", path, *packet), ("reach", path),
        ("suggest", path), ("check", policy, "--expect", path), ("test", path, path), ("test", policy, path),
        ("test", "--init", policy, path),
        ("suggest", capture, "--instances", path), ("suggest", capture, "--policy", path),
        ("template", path), ("completion", path),
        *(("import", form, path) for form in ("auto", *FORMATS)),
    ):  # fmt: skip
        outcome = sgfast(capsys, *arguments)
        assert outcome.status == 2 and outcome.messages() and outcome.out == "", arguments


def test_an_input_nobody_may_read(tmp_path: Path) -> None:
    secret = write_policy(tmp_path)
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        pytest.skip("root reads everything")
    assert process("check", secret).status == 2


# Outputs


def test_outputs_that_cannot_be_written(capsys: Capsys, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, words in (
        (tmp_path / "missing" / "file", "directory does not exist"),
        (tmp_path, "is a directory"),
        (f"{tmp_path}/name/", ""),
        (Path(SHOP[1]) / "file", "Not a directory"),
        (loop, "symbolic links"),
        ("/dev/full", "No space left"),
        ("/dev/fd/987", "Bad file descriptor"),
        ("", "cannot be written"),
    ):
        for option in ("--verdicts", "--connections"):
            outcome = sgfast(capsys, "replay", *SHOP, option, path)
            assert outcome.status == 2 and words in outcome.one_line() and outcome.out == "", path
    assert list(tmp_path.iterdir()) == [loop]


def test_a_file_that_is_protected_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "verdicts"
    target.write_text("old")
    target.chmod(0o444)
    if os.access(target, os.W_OK):
        pytest.skip("root writes everything")
    assert process("replay", *SHOP, "--verdicts", target).status == 2
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    "arguments",
    [("replay", *SHOP), ("replay", *SHOP, "--format", "json"), ("replay", *SHOP, "--verdicts", "-"), ("check", SHOP[0]),
     ("template", "default"), ("--help",), ("replay", "--help"), ("--version",)],
)  # fmt: skip
def test_a_full_disk_behind_standard_output(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        outcome = process(*arguments, stdout=full)
    assert outcome.status == 2 and "No space left on device" in outcome.one_line()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    # A limit on file sizes stands for the disk: the write fails the same way.
    policy, target = write_policy(tmp_path), tmp_path / "verdicts"
    capture = write_capture(tmp_path, *handshake(1000, 80) * 500)
    target.write_text("old")
    outcome = shell(
        'ulimit -f 8; trap "" XFSZ; $sgfast replay "$policy" "$capture" --verdicts "$target"',
        policy=policy, capture=capture, target=target,
    )  # fmt: skip
    assert outcome.status == 2 and "File too large" in outcome.one_line()
    assert target.read_text() == "old" and not list(tmp_path.glob(".*"))


def test_closed_standard_streams() -> None:
    policy, capture = SHOP
    for script, status in (
        ('$sgfast replay "$policy" "$capture" >&-', 2),
        ('$sgfast replay "$policy" "$capture" --verdicts - >&-', 2),
        ('$sgfast replay "$policy" - <&-', 2),
        ('$sgfast check - <&-', 2),
        ('$sgfast --help >&- 2>&-', 0),
    ):
        outcome = shell(script, policy=policy, capture=capture)
        assert outcome.status == status, (script, outcome.err)
        if status:
            outcome.one_line()
    for script in ('$sgfast replay "$policy" "$capture" 2>&-', '$sgfast replay "$policy" "$capture" 2>/dev/full'):
        outcome = shell(script, policy=policy, capture=capture)
        assert outcome.status == 0 and "packets" in outcome.out
    assert shell('$sgfast replay "$policy" missing 2>/dev/full', policy=policy).status == 2


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80) * 2000)
    kept = tmp_path / "connections"
    outcome = shell(
        '$sgfast replay "$policy" "$capture" --verdicts - --connections "$kept" | head -1; exit ${PIPESTATUS[0]}',
        policy=policy, capture=capture, kept=kept,
    )  # fmt: skip
    assert outcome.status == 141 and outcome.err == "" and outcome.out.count("\n") == 1
    assert not kept.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("arguments", [("replay", *SHOP), ("replay", *SHOP, "--format", "json"), ("--help",)])
def test_a_report_nobody_reads_is_quiet(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        outcome = process(*arguments, stdout=nobody)
    assert outcome.status == 141 and outcome.err == ""


# The same file twice


def test_outputs_do_not_overwrite_inputs(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 11.2."""
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    hard, soft = tmp_path / "hard", tmp_path / "soft"
    hard.hardlink_to(capture)
    soft.symlink_to(policy)
    before = {path: path.read_bytes() for path in (policy, capture)}
    for path in (policy, capture, hard, soft, f"{tmp_path}/./policy.yaml"):
        for option in ("--verdicts", "--connections"):
            outcome = sgfast(capsys, "replay", policy, capture, option, path)
            assert outcome.status == 2 and "is also an input" in outcome.one_line()
    assert {path: path.read_bytes() for path in (policy, capture)} == before


def test_redirections_do_not_overwrite_inputs(tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    size = capture.stat().st_size
    for script in (
        '$sgfast replay "$policy" "$capture" >>"$capture"',
        '$sgfast replay "$policy" - <"$capture" --verdicts "$capture"',
        '$sgfast replay "$policy" - <"$capture" --verdicts - >>"$capture"',
    ):
        outcome = shell(script, policy=policy, capture=capture)
        assert outcome.status == 2 and "is also an input" in outcome.one_line()
        assert capture.stat().st_size == size


def test_two_outputs_do_not_share_a_place(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 11.2."""
    new, old, link = tmp_path / "new", tmp_path / "old", tmp_path / "link"
    old.touch()
    link.symlink_to(old)
    for one, other in ((new, new), (old, link), ("-", "-"), ("-", "/dev/stdout"), (new, f"{tmp_path}/./new")):
        outcome = sgfast(capsys, "replay", *SHOP, "--verdicts", one, "--connections", other)
        assert outcome.status == 2 and "two outputs" in outcome.one_line() and outcome.out == ""
    assert not new.exists()


# Interrupts


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (Signal.SIGINT, "interrupted; the report is about what was judged, and no file was written"),
        (Signal.SIGTERM, "terminated"), (Signal.SIGHUP, "hung up"),
    ],
)  # fmt: skip
def test_an_interrupt_while_reading_leaves_nothing(tmp_path: Path, number: Signal, word: str) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "verdicts"
    with start("replay", policy, "-", "--verdicts", target, stdin=subprocess.PIPE, text=False) as child:
        assert child.stdin is not None and child.stderr is not None
        child.stdin.write(capture.read_bytes())
        child.stdin.flush()
        # It has begun to write, and waits for the rest of the capture. Python notices a signal that comes between its
        # last look for signals and its read only after the read.
        wait_for(lambda: has_written(child, folder) and is_asleep(child))
        child.send_signal(number)
        assert child.wait(DEADLINE_SECONDS) == 128 + number
        err = child.stderr.read().decode()
    assert err == f"sgfast: {word}\n"
    assert list(folder.iterdir()) == []


def test_an_interrupt_while_the_policy_is_awaited(tmp_path: Path) -> None:
    fifo = tmp_path / "policy"
    os.mkfifo(fifo)
    target = tmp_path / "verdicts"
    # Opening the pipe for writing waits until the command has opened it for reading.
    with start("replay", fifo, SHOP[1], "--verdicts", target) as child, open(fifo, "wb"):
        # Python notices a signal between its last look for signals and its read only after the read.
        wait_for(lambda: is_asleep(child))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=DEADLINE_SECONDS)
    assert (child.returncode, out, err) == (130, "", "sgfast: interrupted\n")
    assert sorted(tmp_path.iterdir()) == [fifo]


def test_an_interrupt_while_importing(tmp_path: Path) -> None:
    # A module that is imported on the way stands for all of them.
    (tmp_path / "yaml.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    outcome = process("check", SHOP[0], env={**os.environ, "PYTHONPATH": f"{tmp_path}:{here}"})
    assert outcome.status == 130 and outcome.one_line() == "sgfast: interrupted"


@pytest.mark.parametrize("module", ["sgfast.base.signals", "click", "sgfast.cli", "sgfast.engine"])
@pytest.mark.parametrize("way", ["module", "script"])
def test_an_interrupt_while_starting_is_one_line(tmp_path: Path, module: str, way: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os, signal, importlib.abc\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = tmp_path / "script"
    script.write_text("import sys\nfrom sgfast.__main__ import main\nsys.exit(main())\n")
    command = list(COMMAND) if way == "module" else [COMMAND[0], str(script)]
    told = subprocess.run(
        [*command, "check", SHOP[0]], env={**os.environ, "PYTHONPATH": f"{tmp_path}:{here}"}, capture_output=True
    )
    assert (told.returncode, told.stdout, told.stderr) == (130, b"", b"sgfast: interrupted\n")


def test_little_is_imported_before_interrupts_are_seen_to() -> None:
    code = (
        "import sys, os, signal, contextlib, __future__\n"
        "old = set(sys.modules)\nimport sgfast.__main__\nprint(*sorted(set(sys.modules) - old))"
    )
    told = subprocess.run([COMMAND[0], "-S", "-c", code], env=environment(), capture_output=True, check=True, text=True)
    assert told.stdout.split() == ["sgfast", "sgfast.__main__", "sgfast.base", "sgfast.base.lazy", "sgfast.version"]


@pytest.mark.parametrize(
    "loses_it",
    ["class Last:\n    def __del__(self): os.kill(os.getpid(), signal.SIGINT); sum(range(10))\nLast()",
     "try: os.kill(os.getpid(), signal.SIGINT); sum(range(10))\nexcept BaseException: raise RuntimeError('wrapped')"],
    ids=["swallowed", "wrapped"],
)  # fmt: skip
def test_an_interrupt_that_an_import_loses_still_ends_the_command(tmp_path: Path, loses_it: str) -> None:
    # A module that is imported on the way; replay must not go on to publish its output.
    (tmp_path / "dummy.py").write_text(f"import os, signal\n{loses_it}\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, importlib.abc\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'sgfast.questions.replaying':\n"
        "            import dummy\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    target = tmp_path / "out" / "verdicts"
    target.parent.mkdir()
    outcome = process(
        "replay", *SHOP, "--verdicts", target, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{here}"}
    )
    assert outcome.status == 130 and outcome.out == "" and list(target.parent.iterdir()) == []
    assert outcome.err.endswith("sgfast: interrupted\n")


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    """SPEC 11.3."""
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    target = tmp_path / "verdicts"
    script = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash"]
    with subprocess.Popen(
        [*script, *COMMAND, "replay", str(policy), "-", "--verdicts", str(target)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        child.stdin.write(capture.read_bytes())
        child.stdin.flush()
        wait_for(lambda: has_written(child, tmp_path))
        child.send_signal(signal.SIGHUP)
        _, err = child.communicate()
        assert child.returncode == 0 and err == b""
    assert target.read_text().count("\n") == 3


# Errors of the program itself


def test_an_internal_error_is_one_line_unless_asked(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SPEC 11.3."""
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("sgfast.questions.replaying.run_replay", fail)
    target = tmp_path / "verdicts"
    outcome = sgfast(capsys, "replay", *SHOP, "--verdicts", target)
    assert outcome.status == 2 and "RuntimeError: two lines" in outcome.one_line()
    assert TRACEBACK_VARIABLE in outcome.err and list(tmp_path.iterdir()) == []
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    assert "Traceback" in sgfast(capsys, "replay", *SHOP).err


def test_running_out_of_memory_is_one_line(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 11.3."""
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sgfast.questions.replaying.run_replay", fail)
    outcome = sgfast(capsys, "replay", *SHOP)
    assert outcome.status == 2 and outcome.one_line() == "sgfast: out of memory"


def test_a_device_is_never_made_a_file(tmp_path: Path) -> None:
    assert process("replay", *SHOP, "--verdicts", "/dev/null").status == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_folder_of_captures_in_the_place_of_the_policy_is_called_one(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "some.pcap").write_bytes(Path(SHOP[1]).read_bytes())
    for command in ("check", "replay"):
        outcome = sgfast(capsys, command, tmp_path, *([SHOP[0]] if command == "replay" else []))
        assert outcome.status == 2
        assert f"{tmp_path}: holds captures, not a policy" in outcome.one_line()
