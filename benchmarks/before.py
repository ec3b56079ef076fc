"""Run the same benchmarks with an earlier commit of sgfast, in another process that takes turns with this one.

The other process is pytest with the same arguments. At each benchmark it waits, and runs one round for each command
``round``. Both builds thus run under the same load of the machine, so the ratio of their times is more reliable than
each time alone.

    this process        the other process
    begin(name)   <--   ready NAME
    round()       -->   round
                  <--   seconds
    end()         -->   next
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from instructions import OtherTree, git

#: An environment variable of the other process, with the descriptors of the two pipes for reading and writing.
ANSWERING = "SGFAST_BENCH_ANSWERING"


class Before:
    """The benchmarks with ``commit``, which is built first. ``arguments`` are those of pytest."""

    def __init__(self, commit: str, arguments: Sequence[str]) -> None:
        self.commit = git("rev-parse", "--short=9", commit).strip()
        self._folder = tempfile.TemporaryDirectory(prefix="sgfast-before-")
        tree = OtherTree(Path(self._folder.name)).go(self.commit)
        command_reader, command_writer = os.pipe()
        reply_reader, reply_writer = os.pipe()
        environment = os.environ | {"PYTHONPATH": str(tree), ANSWERING: f"{command_reader} {reply_writer}"}
        # Option -P keeps Python from importing sgfast from the working directory.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest", *arguments], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, pass_fds=(command_reader, reply_writer),
        )  # fmt: skip
        os.close(command_reader)
        os.close(reply_writer)
        self._commands, self._replies = os.fdopen(command_writer, "w", buffering=1), os.fdopen(reply_reader)
        self._at = ""
        self._over: set[str] = set()
        #: Whether the benchmark has failed in the other process, and the process's next line after the failure.
        self._failed, self._next = False, ""

    def begin(self, name: str) -> bool:
        """Wait until the other process reaches this benchmark. Return False if it lacks the benchmark or has ended."""
        while not self._at or self._at in self._over:
            if self._at and not self._failed:
                self._send("next")
            line = self._next if self._failed else self._replies.readline()
            self._failed = False
            self._at = line.removeprefix("ready ").strip()
            if not self._at:
                return False
        return self._at == name

    def round(self) -> float:
        """Return the seconds of one round, or NaN if the benchmark has failed in the other process."""
        if self._failed:
            return math.nan
        self._send("round")
        line = self._replies.readline()
        try:
            return float(line)
        except ValueError:      # the process is at the next benchmark, or has ended
            self._failed = True
            self._next = line
            return math.nan

    def end(self, name: str) -> None:
        self._over.add(name)

    def close(self) -> None:
        for file in (self._commands, self._replies):
            file.close()
        self._process.wait()
        self._folder.cleanup()

    def _send(self, word: str) -> None:
        with suppress(BrokenPipeError):     # the process has ended
            print(word, file=self._commands)


def answer(name: str, run: Callable[[], float]) -> bool:
    """Run rounds of a benchmark on command, in the other process. Return False in the first process."""
    if ANSWERING not in os.environ:
        return False
    command_reader, reply_writer = map(int, os.environ[ANSWERING].split())
    os.write(reply_writer, f"ready {name}\n".encode())
    with open(command_reader, closefd=False) as commands:
        while commands.readline() == "round\n":
            os.write(reply_writer, f"{run()!r}\n".encode())
    return True
