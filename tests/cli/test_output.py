"""Output files: written completely or not at all; devices and pipes are written directly (SPEC 11.2)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sgfast.errors import OutputError
from sgfast.output import descriptor_named, open_output


def test_a_file_appears_only_when_published(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with open_output(str(target)) as output:
        output.write(b"one")
        assert not target.exists() and len(list(tmp_path.iterdir())) == 1
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
