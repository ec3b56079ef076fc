"""Applies the mutants of ``mutants.toml`` one at a time and sees that a test fails: see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

from workshop import Edit, Failure, Workshop, all_applied, status_of  # noqa: E402

#: A test that takes longer than this on a mutant has not caught it.
TIMEOUT_SECONDS = 300
TIMEOUT_ALL_SECONDS = 3600

#: Everything but what needs the kernel, and the tests that ask whether the sources are what they should be: they would
#: catch every mutant.
WHOLE_SUITE = (
    "tests", "--ignore=tests/kernel", "--ignore=tests/mutants", "--ignore=tests/project/test_mutants.py",
    "--ignore=tests/project/test_ablations.py",
)  # fmt: skip

#: Building is quicker without optimisation. Without SGFAST_DEBUG the engine has no bounds checks, just like the real
#: one.
FLAGS = "-O0"


@dataclass(frozen=True)
class Mutant(Edit):
    """One small wrong engine: ``old`` in ``file`` replaced by ``new``."""

    #: Its fault, as a slug.
    name: str
    #: The clause of the specification it breaks.
    clause: str
    #: The test that catches it, as pytest names it.
    test: str


def load_mutants() -> list[Mutant]:
    with open(HERE / "mutants.toml", "rb") as file:
        return [Mutant(**row) for row in tomllib.load(file)["mutant"]]


class Suite:
    """Runs tests in a workshop's tree."""

    def __init__(self, workshop: Workshop, scratch: Path) -> None:
        self._workshop = workshop
        self._scratch = scratch
        #: The last run's output.
        self.output = ""

    def passes(self, tests: Sequence[str], timeout: float) -> bool | None:
        """Whether all the tests pass; None if they take too long. Only a failed test is a failed test."""
        command = [
            sys.executable, "-m", "pytest", "-q", "-x", "-rfE", "--tb=short", "-p", "no:cacheprovider",
            f"--basetemp={self._scratch}", *tests,
        ]  # fmt: skip
        try:
            status, output = self._workshop.call(command, timeout)
        except subprocess.TimeoutExpired:
            self.output = ""
            return None
        if status not in (0, 1):
            raise Failure(f"pytest ended with {status}, which is neither passed nor failed:\n{output[-4000:]}")
        self.output = output
        return status == 0

    def failed(self) -> str:
        """The test that failed in the last run."""
        found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", self.output, flags=re.M)
        return found[1] if found else ""


def chosen(mutants: Sequence[Mutant], names: Sequence[str]) -> list[Mutant]:
    unknown = set(names) - {mutant.name for mutant in mutants}
    if unknown:
        raise Failure(f"no such mutant: {', '.join(sorted(unknown))}")
    return [mutant for mutant in mutants if not names or mutant.name in names]


def try_all(mutants: Sequence[Mutant], jobs: int, whole_suite: bool) -> bool:
    """Whether every mutant was caught. Prints a line for each."""
    # Before anything is built: a list that does not fit the sources any more is found at once.
    for mutant in mutants:
        all_applied([mutant])
    timeout = TIMEOUT_ALL_SECONDS if whole_suite else TIMEOUT_SECONDS
    began = time.monotonic()
    caught = 0
    with tempfile.TemporaryDirectory(prefix="sgfast-mutants-") as folder:
        workshop = Workshop(Path(folder).resolve(), jobs, flags=FLAGS)
        suite = Suite(workshop, Path(folder).resolve() / "scratch")
        print(f"built in {time.monotonic() - began:.0f} s", flush=True)
        tests = WHOLE_SUITE if whole_suite else sorted({mutant.test for mutant in mutants})
        before = time.monotonic()
        if not suite.passes(tests, TIMEOUT_ALL_SECONDS):
            raise Failure(f"a test fails without any mutant, or takes too long:\n{suite.output[-4000:]}")
        print(f"without a mutant the tests pass in {time.monotonic() - before:.0f} s", flush=True)
        for number, mutant in enumerate(mutants, 1):
            before = time.monotonic()
            try:
                with workshop.changed([mutant]):
                    passed = suite.passes(WHOLE_SUITE if whole_suite else (mutant.test,), timeout)
            except Failure as failure:
                said = f"NO MUTANT: {failure}"
            else:
                if passed is None:
                    said = f"NOT CAUGHT: the test takes longer than {timeout} s"
                elif passed:
                    said = "SURVIVED"
                else:
                    caught += 1
                    said = f"caught by {suite.failed() or mutant.test}"
            seconds = time.monotonic() - before
            print(f"{number:3} of {len(mutants)}  {mutant.name}: {said} ({seconds:.1f} s)", flush=True)
    print(f"{caught} of {len(mutants)} mutants caught, {time.monotonic() - began:.0f} s")
    return caught == len(mutants)


def main() -> int:
    parser = argparse.ArgumentParser(description="Try wrong engines: a test must fail on every one of them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutants")
    parser.add_argument("--all", action="store_true", help="run the whole suite on each, not the test it names")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at a time")
    arguments = parser.parse_args()
    mutants = chosen(load_mutants(), arguments.names)
    return 0 if try_all(mutants, max(1, arguments.jobs), arguments.all) else 1


if __name__ == "__main__":
    sys.exit(status_of(main))
