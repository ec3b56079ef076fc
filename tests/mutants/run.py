"""Applies the mutants of ``mutants.toml`` one at a time and sees that a test fails: see README.md beside this file."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NEEDED = (
    "sgfast", "tests", "pcaps", "benchmarks", "setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "MANIFEST.in",
)  # fmt: skip

#: A test that takes longer than this on a mutant has not caught it.
TIMEOUT_SECONDS = 300
TIMEOUT_ALL_SECONDS = 3600

#: Everything but what needs the kernel, and the test that asks whether the sources are what they should be: it would
#: catch every mutant.
WHOLE_SUITE = ("tests", "--ignore=tests/kernel", "--ignore=tests/mutants", "--ignore=tests/test_mutants.py")

#: What changes in the copy's setup.py. Of several -O the last wins, and setup.py's comes after that of CFLAGS. Without
#: optimisation building is quicker; without SGFAST_DEBUG the engine has no bounds checks, just like the real one.
SETUP_CHANGES = (('["-O3"]', '["-O0"]'), ("os.cpu_count() or 1", "{jobs}"))


class Failure(Exception):
    """The mutants cannot be run, or one of them is none; the message is for whoever started this."""


@dataclass(frozen=True)
class Mutant:
    """One small wrong engine: ``old`` in ``file`` replaced by ``new``."""

    #: What it does wrong, as a slug.
    name: str
    #: The clause of the specification it breaks.
    clause: str
    #: From the repository's root.
    file: str
    old: str
    new: str
    #: Which test catches it, as pytest names it.
    test: str

    @property
    def compiled(self) -> bool:
        return self.file.endswith((".pyx", ".pxd"))

    def applied(self, text: str) -> str:
        found = text.count(self.old)
        if found != 1:
            raise Failure(f"{self.name} does not apply: its text occurs {found} times in {self.file}, not once")
        return text.replace(self.old, self.new)


def load_mutants() -> list[Mutant]:
    with open(HERE / "mutants.toml", "rb") as file:
        return [Mutant(**row) for row in tomllib.load(file)["mutant"]]


def table(mutants: Sequence[Mutant]) -> str:
    """The list as it stands in README.md."""
    lines = ["| mutant | clause | caught by |", "|---|---|---|"]
    for mutant in mutants:
        path, _, test = mutant.test.partition("::")
        lines.append(f"| {mutant.name} | {mutant.clause} | `{path.removeprefix('tests/')}::{test}` |")
    return "\n".join(lines) + "\n"


class Workshop:
    """A built copy of the repository in which one mutant after the other is tried."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.tree = folder / "tree"
        self._pristine = folder / "pristine"
        self._scratch = folder / "scratch"
        self._jobs = jobs
        #: Of the last run of tests.
        self.output = ""
        self._environment = {
            **os.environ,
            # The copy, wherever a test changes to; another sgfast may be installed.
            "PYTHONPATH": str(self.tree),
            # Bytecode is told from stale bytecode by whole seconds, and mutants change faster than that.
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder),
        }
        self._copy()
        self.build()
        where = self._call([sys.executable, "-c", "import sgfast; print(sgfast.__file__)"], 60)[1].strip()
        if Path(where).parent != self.tree / "sgfast":
            raise Failure(f"the tests would see {where} instead of the copy in {self.tree}")
        shutil.copytree(self.tree / "sgfast", self._pristine / "sgfast")
        shutil.copytree(self.tree / "build", self._pristine / "build")

    def _copy(self) -> None:
        self.tree.mkdir()
        for name in NEEDED:
            if (ROOT / name).is_dir():
                built = ("*.so", "*.c", "*.html") if name == "sgfast" else ()
                shutil.copytree(
                    ROOT / name, self.tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*", *built)
                )
            elif (ROOT / name).exists():
                shutil.copy2(ROOT / name, self.tree / name)
        setup = self.tree / "setup.py"
        text = setup.read_text()
        for old, new in SETUP_CHANGES:
            if text.count(old) != 1:
                raise Failure(f"setup.py has no {old!r} any more (or several): change SETUP_CHANGES in {__file__}")
            text = text.replace(old, new.format(jobs=self._jobs))
        setup.write_text(text)

    def build(self) -> None:
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", f"--parallel={self._jobs}"]
        status, output = self._call(command, TIMEOUT_SECONDS)
        if status:
            raise Failure(f"it does not build:\n{output}")

    def modules(self) -> dict[str, str]:
        """The extension modules and a digest of each."""
        return {
            str(path.relative_to(self.tree)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self.tree / "sgfast").rglob("*.so")
        }

    def passes(self, tests: Sequence[str], timeout: float) -> bool | None:
        """Whether all the tests pass; None if they take too long. Only a failed test is a failed test."""
        command = [
            sys.executable, "-m", "pytest", "-q", "-x", "-rfE", "--tb=short", "-p", "no:cacheprovider",
            f"--basetemp={self._scratch}", *tests,
        ]  # fmt: skip
        try:
            status, output = self._call(command, timeout)
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

    @contextlib.contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        source = self.tree / mutant.file
        before = self.modules()
        source.write_text(mutant.applied(source.read_text()))
        try:
            if mutant.compiled:
                self.build()
                if self.modules() == before:
                    raise Failure("no extension module came out different: it changes nothing")
            yield
        finally:
            self._restore()
        assert self.modules() == before

    def _restore(self) -> None:
        # What Hypothesis remembers of this mutant must not help with the next one.
        shutil.rmtree(self.tree / ".hypothesis", ignore_errors=True)
        # With their times, so that the next build sees nothing to do but the next mutant.
        for original in self._pristine.rglob("*"):
            if original.is_file():
                copy = self.tree / original.relative_to(self._pristine)
                ours, theirs = original.stat(), copy.stat()
                if (ours.st_mtime_ns, ours.st_size) != (theirs.st_mtime_ns, theirs.st_size):
                    shutil.copy2(original, copy)

    def _call(self, command: Sequence[str], timeout: float) -> tuple[int, str]:
        # In a session of its own, so that whatever it starts can be ended with it: nothing may go on writing into a
        # folder that is being removed.
        with subprocess.Popen(
            command, cwd=self.tree, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            try:
                output, _ = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, output


def chosen(mutants: Sequence[Mutant], names: Sequence[str]) -> list[Mutant]:
    unknown = set(names) - {mutant.name for mutant in mutants}
    if unknown:
        raise Failure(f"no such mutant: {', '.join(sorted(unknown))}")
    return [mutant for mutant in mutants if not names or mutant.name in names]


def try_all(mutants: Sequence[Mutant], jobs: int, whole_suite: bool) -> bool:
    """Whether every mutant was caught. Prints a line for each."""
    # Before anything is built: a list that does not fit the sources any more is found at once.
    for mutant in mutants:
        mutant.applied((ROOT / mutant.file).read_text())
    timeout = TIMEOUT_ALL_SECONDS if whole_suite else TIMEOUT_SECONDS
    began = time.monotonic()
    caught = 0
    with tempfile.TemporaryDirectory(prefix="sgfast-mutants-") as folder:
        workshop = Workshop(Path(folder).resolve(), jobs)
        print(f"built in {time.monotonic() - began:.0f} s", flush=True)
        tests = WHOLE_SUITE if whole_suite else sorted({mutant.test for mutant in mutants})
        before = time.monotonic()
        if not workshop.passes(tests, TIMEOUT_ALL_SECONDS):
            raise Failure(f"a test fails without any mutant, or takes too long:\n{workshop.output[-4000:]}")
        print(f"without a mutant the tests pass in {time.monotonic() - before:.0f} s", flush=True)
        for number, mutant in enumerate(mutants, 1):
            before = time.monotonic()
            try:
                with workshop.mutated(mutant):
                    passed = workshop.passes(WHOLE_SUITE if whole_suite else (mutant.test,), timeout)
            except Failure as failure:
                said = f"NO MUTANT: {failure}"
            else:
                if passed is None:
                    said = f"NOT CAUGHT: the test takes longer than {timeout} s"
                elif passed:
                    said = "SURVIVED"
                else:
                    caught += 1
                    said = f"caught by {workshop.failed() or mutant.test}"
            seconds = time.monotonic() - before
            print(f"{number:3} of {len(mutants)}  {mutant.name}: {said} ({seconds:.1f} s)", flush=True)
    print(f"{caught} of {len(mutants)} mutants caught, {time.monotonic() - began:.0f} s")
    return caught == len(mutants)


def _stop(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    parser = argparse.ArgumentParser(description="Try wrong engines: a test must fail on every one of them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutants")
    parser.add_argument("--all", action="store_true", help="run the whole suite on each, not the test it names")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at a time")
    parser.add_argument("--table", action="store_true", help="only print the table of README.md")
    arguments = parser.parse_args()
    # The temporary folder goes whoever ends this.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    try:
        mutants = chosen(load_mutants(), arguments.names)
        if arguments.table:
            print(table(mutants), end="")
            return 0
        return 0 if try_all(mutants, max(1, arguments.jobs), arguments.all) else 1
    except Failure as failure:
        print(f"run.py: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run.py: interrupted; nothing is left behind", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
