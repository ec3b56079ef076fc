"""Output files: written completely or not at all; devices and pipes are written directly (SPEC 11.2)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from command import DEADLINE_SECONDS, SHOP, environment
from effort import some

from sgfast.base import pending_file
from sgfast.base.errors import OutputError
from sgfast.base.output import descriptor_named, open_output, publish, refuse_shared

IS_ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True, params=["nameless", "named"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Files get their name when they are complete, or have a temporary one from the beginning."""
    if request.param == "named":
        monkeypatch.setattr(pending_file, "_TMPFILE", None)
    return str(request.param)


def test_a_file_appears_only_when_published(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with open_output(str(target)) as output:
        output.write(b"one")
        assert not target.exists()
        output.write(b"two")
        output.publish()
        assert target.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_is_not_published_leaves_no_trace(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(error), open_output(str(target)) as output:
        output.write(b"new")
        output.close()
        raise error
    assert list(tmp_path.iterdir()) == [target] and target.read_bytes() == b"old"


def test_a_folder_that_vanishes_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = open_output(str(folder / "file"))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(OutputError, match="cannot be written"), output:
        output.publish()


def test_a_dangling_link_is_followed(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    with open_output(str(link)) as output:
        output.write(b"x")
        output.publish()
    assert link.is_symlink() and target.read_bytes() == b"x"


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 127)
    with open_output(str(target)) as output:
        output.publish()
    assert target.exists()


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received = bytearray()

    def read() -> None:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            while data := stream.read(1000):
                received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with open_output(f"/dev/fd/{writing}") as output:
        output.write(b"x" * 300_000)
        output.publish()
    os.close(writing)
    reader.join()
    assert received == b"x" * 300_000


def test_a_pipe_nobody_reads_is_told_apart_from_a_failure(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError), open_output(f"/proc/self/fd/{writing}") as output:
        output.write(b"x")
    os.close(writing)


def test_the_message_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        open_output(f"{tmp_path}/no\nsuch/file")
    assert str(caught.value).isprintable()
    for name in ("nul\0byte", "\udcff/x"):
        with pytest.raises(OutputError) as caught:
            open_output(name)
        assert str(caught.value).isprintable()


def test_paths_that_mean_a_descriptor_of_ours() -> None:
    for path, number in (
        ("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/63", 63), ("/proc/self/fd/1", 1), ("/dev/fd/out", None),
        ("/dev/fd/99999999999999999999", None), ("/dev/null", None), ("/dev/stdout/x", None), ("/dev/std1", None),
    ):  # fmt: skip
        assert descriptor_named(path) == number, path


# --- An output replaces nothing but what it was meant to replace


def test_a_folder_that_does_not_exist_leads_nowhere_even_with_two_dots(tmp_path: Path) -> None:
    capture, pipe = tmp_path / "shop.pcap", tmp_path / "pipe"
    capture.write_bytes(b"captured")
    capture.chmod(0o444)
    os.mkfifo(pipe)
    for name in ("shop.pcap", "pipe", "new"):
        with pytest.raises(OutputError, match="its directory does not exist"):
            open_output(f"{tmp_path}/nope/../{name}")
    for name in ("shop.pcap", "pipe"):
        with pytest.raises(OutputError, match="Not a directory"):
            open_output(f"{capture}/../{name}")
    assert capture.read_bytes() == b"captured" and pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "shop.pcap"]


def test_a_link_into_a_folder_that_does_not_exist_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nope/file")
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(OutputError, match="its directory does not exist"):
        open_output(f"{tmp_path}/link")
    assert set(os.listdir("/proc/self/fd")) <= set(descriptors)      # other tests may leave some that close now


def test_two_ways_to_one_new_file_are_one_place(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "folder" / "other").symlink_to("new")
    for other in (f"{tmp_path}/link/new", f"{tmp_path}/folder/../folder/new", f"{tmp_path}/link/other"):
        with pytest.raises(OutputError, match="two outputs have the same destination"):
            refuse_shared([f"{tmp_path}/folder/new", other], [])


def test_a_file_that_nobody_may_write_is_not_replaced_even_by_root(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(OutputError, match="file: cannot be written: Permission denied"):
        open_output(str(target))
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("before", [None, b"old"])
def test_what_appears_at_the_place_meanwhile_is_kept_and_no_output_appears(
    tmp_path: Path, before: bytes | None
) -> None:
    places = [tmp_path / name for name in ("first", "second", "third")]
    if before is not None:
        for place in places:
            place.write_bytes(before)
    outputs = [open_output(str(place)) for place in places]
    for output in outputs:
        output.write(b"new")
    capture = tmp_path / "capture"
    capture.write_bytes(b"captured")
    capture.rename(places[1])
    with pytest.raises(OutputError, match="second: another file appeared there meanwhile; it was not replaced"):
        publish(outputs)
    for output in outputs:
        output.discard()
    assert [place.read_bytes() if place.exists() else None for place in places] == [before, b"captured", before]
    assert all(path in places for path in tmp_path.iterdir())


def test_a_folder_moved_away_takes_its_output_along(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with open_output(f"{tmp_path}/folder/file") as output:
        output.write(b"new")
        (tmp_path / "folder").rename(tmp_path / "moved")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_bytes(b"somebody else's")
        output.publish()
    assert (tmp_path / "moved" / "file").read_bytes() == b"new"
    assert (tmp_path / "folder" / "file").read_bytes() == b"somebody else's"


def test_permissions_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    for mode in (0o600, 0o640, 0o666, 0o755):
        target.chmod(mode)
        with open_output(str(target)) as output:
            output.publish()
        assert target.stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
def test_the_owner_is_kept_or_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    os.chown(target, 1234, 4321)
    with open_output(str(target)) as output:
        output.publish()
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 4321)

    def refused(descriptor: int, user: int, group: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OutputError, match="file: has another owner or group, which cannot be kept"):
        open_output(str(target))
    assert list(tmp_path.iterdir()) == [target] and len(os.listdir("/proc/self/fd")) <= descriptors


def test_what_a_killed_run_left_is_removed_and_said_but_not_what_a_run_still_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    left = tmp_path / ".file.sgfast-0123abcd.part"
    left.write_bytes(b"half")
    monkeypatch.setattr(pending_file, "_TMPFILE", None)
    with open_output(str(target)) as first:
        told = "an earlier run was killed before this output appeared; what it left was removed"
        assert first.warning == f"{target}: {told}"
        assert not left.exists() and len(list(tmp_path.iterdir())) == 1
        with open_output(str(target)) as second, open_output(f"{target}.2") as third:
            assert second.warning == third.warning == "" and len(list(tmp_path.iterdir())) == 3
        first.publish()
    assert list(tmp_path.iterdir()) == [target]


# --- Killed while outputs appear

PUBLISHING = """
import os, sys
from sgfast.base import pending_file
from sgfast.__main__ import run

kind, told, awaited = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if kind == "named":
    pending_file._TMPFILE = None

def reported(function):
    def call(*arguments, **options):
        os.write(told, b".")
        os.read(awaited, 1)
        return function(*arguments, **options)
    return call

for name in ("link", "replace", "fsync"):
    setattr(os, name, reported(getattr(os, name)))
sys.exit(run(sys.argv[4:]))
"""
#: The outputs of a replay, by their options.
OUTPUTS = {"--verdicts": "rows.jsonl", "--write-denied": "denied.pcapng", "--flow-log": "flow.log"}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name)
def test_a_signal_at_any_step_of_publishing_leaves_no_mixture_without_a_word(
    tmp_path: Path, sent: signal.Signals, kind: str
) -> None:
    if kind == "named" and sent in (signal.SIGINT, signal.SIGHUP):
        return      # as with SIGTERM
    captured, steps, seen = Path(SHOP[1]).read_bytes(), 0, set()
    while True:
        folder = tmp_path / str(steps)
        folder.mkdir()
        outputs = {option: folder / name for option, name in OUTPUTS.items()}
        for path in outputs.values():
            path.write_bytes(b"old")
        capture = folder / "shop.pcap"
        capture.write_bytes(captured)
        words = [str(word) for pair in outputs.items() for word in pair]
        told, tell = os.pipe()
        awaited, go_on = os.pipe()
        with subprocess.Popen(
            [sys.executable, "-c", PUBLISHING, kind, str(tell), str(awaited), "replay", SHOP[0], str(capture), *words],
            env=environment(), pass_fds=(tell, awaited), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            os.close(tell)
            os.close(awaited)
            for _ in range(steps):
                if os.read(told, 1):    # else it has ended
                    os.write(go_on, b".")
            at_a_step = os.read(told, 1)
            if at_a_step:
                child.send_signal(sent)
                if sent != signal.SIGKILL:
                    with suppress(BrokenPipeError):     # it may have ended already
                        os.write(go_on, b"." * 100)
            _, err = child.communicate(timeout=DEADLINE_SECONDS)
            os.close(told)
            os.close(go_on)
        contents = {path.name: path.read_bytes() for path in outputs.values()}
        old = {name for name, data in contents.items() if data == b"old"}
        assert capture.read_bytes() == captured
        remains = {path.name[1:].partition(".sgfast-")[0] for path in folder.glob(".*.part")}
        seen.add((0 < len(old) < len(contents), bool(remains)))
        if not at_a_step:
            assert child.returncode == 0 and not old
            break
        if sent == signal.SIGKILL:
            # A new output warns of an earlier one that was not published if a temporary file remains of it.
            assert child.returncode == -signal.SIGKILL
            assert not 0 < len(old) < len(contents) or remains == old
            made = [open_output(str(path)) for path in outputs.values()]
            assert {path.name for path, each in zip(outputs.values(), made, strict=True) if each.warning} == remains
            publish(made)
        else:
            assert child.returncode == 128 + sent and not remains
            ended = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGHUP: "hung up"}[sent]
            complete = "" if old else "; the outputs are complete"
            assert err == f"sgfast: {ended}{complete}\n" and len(old) in (0, len(contents))
        assert {path.name for path in folder.iterdir()} == {*OUTPUTS.values(), "shop.pcap"}
        # An interrupt and a hang-up are handled where SIGTERM is.
        steps += some(6, 1) if sent in (signal.SIGINT, signal.SIGHUP) else some(2, 1)
    assert steps >= 9
    assert ((True, True) in seen) == (sent == signal.SIGKILL)
