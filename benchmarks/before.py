"""Runs the same benchmarks with an earlier commit of sgfast, in a process of its own and in turns with this one.

The other process is pytest with the same arguments. At each benchmark it waits, and runs one round whenever it is told
to. So both builds meet the same load of the machine, and the ratio of their times is worth more than either of them.

    this process        the other one
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

#: This variable is set only in the other process. It holds the descriptors of the two pipes, for reading and writing.
ANSWERING = "SGFAST_BENCH_ANSWERING"


class Before:
    """The benchmarks with ``commit``, which is built first. ``arguments``: those of pytest."""

    def __init__(self, commit: str, arguments: Sequence[str]) -> None:
        self.commit = git("rev-parse", "--short=9", commit).strip()
        self._folder = tempfile.TemporaryDirectory(prefix="sgfast-before-")
        tree = OtherTree(Path(self._folder.name)).go(self.commit)
        asked, ask = os.pipe()
        answered, answer = os.pipe()
        environment = os.environ | {"PYTHONPATH": str(tree), ANSWERING: f"{asked} {answer}"}
        # With -P, Python does not look for sgfast in the working directory.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest", *arguments], env=environment, pass_fds=(asked, answer),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(asked)
        os.close(answer)
        self._ask, self._answers = os.fdopen(ask, "w", buffering=1), os.fdopen(answered)
        self._at = ""
        self._over: set[str] = set()
        #: Whether the benchmark has failed there, and what the process said then.
        self._failed, self._next = False, ""

    def begin(self, name: str) -> bool:
        """Waits until the other process is at this benchmark. False if it has none of this name, or has failed."""
        while not self._at or self._at in self._over:
            if self._at and not self._failed:
                self._say("next")
            said = self._next if self._failed else self._answers.readline()
            self._failed = False
            self._at = said.removeprefix("ready ").strip()
            if not self._at:
                return False
        return self._at == name

    def round(self) -> float:
        """The seconds of one round; NaN if the benchmark has failed there."""
        if self._failed:
            return math.nan
        self._say("round")
        said = self._answers.readline()
        try:
            return float(said)
        except ValueError:      # it is at the next benchmark, or has ended
            self._failed = True
            self._next = said
            return math.nan

    def end(self, name: str) -> None:
        self._over.add(name)

    def close(self) -> None:
        for file in (self._ask, self._answers):
            file.close()
        self._process.wait()
        self._folder.cleanup()

    def _say(self, word: str) -> None:
        with suppress(BrokenPipeError):     # it has ended
            print(word, file=self._ask)


def answer(name: str, run: Callable[[], float]) -> bool:
    """Runs rounds of a benchmark as they are asked for. False if this is not the other process."""
    if ANSWERING not in os.environ:
        return False
    asked, told = map(int, os.environ[ANSWERING].split())
    os.write(told, f"ready {name}\n".encode())
    with open(asked, closefd=False) as questions:
        while questions.readline() == "round\n":
            os.write(told, f"{run()!r}\n".encode())
    return True
