"""Output files: written completely or not at all; devices and pipes are written directly (SPEC 11.2)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from command import DEADLINE_SECONDS, SHOP, environment, has_written, process, start, wait_for
from effort import some

from sgfast import pending_file
from sgfast.errors import OutputError
from sgfast.output import descriptor_named, open_output, publish, refuse_shared

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
    assert os.listdir("/proc/self/fd") == descriptors


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
    assert list(tmp_path.iterdir()) == [target] and len(os.listdir("/proc/self/fd")) == descriptors


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


# --- Killed while five outputs appear

PUBLISHING = """
import os, signal, sys
from sgfast import pending_file
from sgfast.output import open_output, publish
from sgfast.signals import ending_signals
from sgfast.__main__ import _outcome

folder, kind, told, awaited = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if kind == "named":
    pending_file._TMPFILE = None

def reported(function):
    def call(*arguments, **options):
        os.write(told, b".")
        os.read(awaited, 1)
        return function(*arguments, **options)
    return call

with ending_signals():
    try:
        outputs = [open_output(f"{folder}/{n}") for n in range(5)]
        try:
            for output in outputs:
                output.write(b"new")
            for name in ("link", "replace", "fsync"):
                setattr(os, name, reported(getattr(os, name)))
            publish(outputs)
        finally:
            for output in outputs:
                output.discard()
    except BaseException as error:
        status, message = _outcome(error)
        print(message)
        sys.exit(status)
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name)
def test_a_signal_at_any_step_of_publishing_leaves_no_mixture_without_a_word(
    tmp_path: Path, sent: signal.Signals, kind: str
) -> None:
    if kind == "named" and sent in (signal.SIGINT, signal.SIGHUP):
        return      # as with SIGTERM
    steps, seen = 0, set()
    while True:
        folder = tmp_path / str(steps)
        folder.mkdir()
        for n in range(5):
            (folder / str(n)).write_bytes(b"old")
        (folder / "capture").write_bytes(b"captured")
        told, tell = os.pipe()
        awaited, go_on = os.pipe()
        with subprocess.Popen(
            [sys.executable, "-c", PUBLISHING, str(folder), kind, str(tell), str(awaited)], env=environment(),
            pass_fds=(tell, awaited), stdout=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            os.close(tell)
            os.close(awaited)
            for _ in range(steps):
                os.read(told, 1)
                os.write(go_on, b".")
            at_a_step = os.read(told, 1)
            if at_a_step:
                child.send_signal(sent)
                if sent != signal.SIGKILL:
                    with suppress(BrokenPipeError):     # it may have ended already
                        os.write(go_on, b"." * 100)
            out, _ = child.communicate(timeout=DEADLINE_SECONDS)
            os.close(told)
            os.close(go_on)
        contents = [(folder / str(n)).read_bytes() for n in range(5)]
        assert (folder / "capture").read_bytes() == b"captured"
        remains = {path.name.split(".")[1] for path in folder.glob(".*.part")}
        seen.add((len(set(contents)), bool(remains)))
        if not at_a_step:
            assert child.returncode == 0 and contents == [b"new"] * 5
            break
        if sent == signal.SIGKILL:
            # Those that did not appear are told by what is left of them.
            assert child.returncode == -signal.SIGKILL
            if set(contents) == {b"old", b"new"}:
                assert remains == {str(n) for n in range(5) if contents[n] == b"old"}
            outputs = [open_output(f"{folder}/{n}") for n in range(5)]
            assert {str(n) for n in range(5) if outputs[n].warning} == remains
            publish(outputs)
        else:
            assert child.returncode == 128 + sent and not remains
            ended = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGHUP: "hung up"}[sent]
            complete = "; the outputs are complete" if contents == [b"new"] * 5 else ""
            assert out == ended + complete + "\n" and len(set(contents)) == 1
        assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "2", "3", "4", "capture"]
        # An interrupt and a hang-up are handled where SIGTERM is.
        steps += 1 if sent in (signal.SIGTERM, signal.SIGKILL) else some(4, 1)
    assert steps >= 15
    assert ((2, True) in seen) == (sent == signal.SIGKILL)


KILLS = some(2, 500)


def test_a_replay_killed_at_random_leaves_the_old_files_or_the_new_ones_or_says_so(tmp_path: Path, kind: str) -> None:
    if kind == "named":
        pytest.skip("the command itself decides")
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    names = ("rows.jsonl", "connections.csv", "report.html", "denied.pcapng", "log.txt")
    capture, inputs = tmp_path / "shop.pcap", Path(SHOP[1]).read_bytes()
    capture.write_bytes(inputs)
    options = zip(("--verdicts", "--connections", "--report", "--write-denied", "--flow-log"), names, strict=True)
    command = ["replay", SHOP[0], capture, *(word for option, name in options for word in (option, tmp_path / name))]

    def contents() -> list[bytes]:
        return [(tmp_path / name).read_bytes() for name in names]

    def age() -> None:
        for name in names:
            (tmp_path / name).write_bytes(b"old")

    whole = process(*command)
    assert whole.status == 0, whole.err
    new, seen = contents(), Counter[str]()
    for _ in range(KILLS):
        age()
        sent = rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL))
        with start(*command) as child:
            wait_for(lambda child=child: has_written(child, tmp_path) or child.poll() is not None)
            # What is left to do takes some ten milliseconds.
            with suppress(subprocess.TimeoutExpired):
                child.wait(rng.random() * 0.03)
            child.send_signal(sent)
            _, err = child.communicate(timeout=DEADLINE_SECONDS)
        found = contents()
        # The report names the moment it was made.
        states = {"old" if data == b"old" else "new" for data in found}
        assert all(a in (b"old", b) or name == "report.html" for a, b, name in zip(found, new, names, strict=True))
        remains = list(tmp_path.glob(".*.part"))
        assert capture.read_bytes() == inputs
        # Other signals wait while outputs appear. What a killed run left tells of those that did not.
        assert len(states) == 1 or (sent == signal.SIGKILL and remains), (sent, err)
        seen[f"{sent.name} {'+'.join(sorted(states))}"] += 1
        again = process(*command)
        assert again.status == 0, again.err
        assert {path.name for path in tmp_path.iterdir()} == {*names, "shop.pcap"}
        assert not remains or "an earlier run was killed" in again.err
    print(seen)
