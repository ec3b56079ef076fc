"""A built copy of the repository, to try the effects of small changes of its sources.

    with TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder), jobs=2)
        with workshop.changed([Edit("sgfast/core/wire/ip.pxd", old, new)]):
            workshop.call([sys.executable, "-m", "pytest"], timeout_seconds)

The repository itself is never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
NEEDED = (
    "sgfast", "tests", "pcaps", "benchmarks", "docs", "setup.py", "pyproject.toml", "README.md", "CHANGELOG.md",
    "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "LICENSE", "MANIFEST.in", ".ci", "action.yml", ".github",
    ".pre-commit-hooks.yaml", "Dockerfile", ".dockerignore",
)  # fmt: skip

#: The time limit for building one change. A complete build takes a few minutes on one core.
BUILD_TIMEOUT_SECONDS = 900


class Failure(Exception):
    """Report to the user that something cannot be tried."""


@dataclass(frozen=True)
class Edit:
    """The replacement of ``old``, which must occur exactly once in ``file``, by ``new``."""

    #: The path relative to the repository's root.
    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        found = text.count(self.old)
        if found != 1:
            raise Failure(f"{self.file}: {self.old!r} occurs {found} times, not once: write it anew")
        return text.replace(self.old, self.new)


def all_applied(edits: Sequence[Edit]) -> dict[str, str]:
    """Return the text of each changed file of the repository after the edits. Raises Failure if an edit does not
    apply."""
    texts: dict[str, str] = {}
    for edit in edits:
        texts[edit.file] = edit.applied(texts.get(edit.file) or (ROOT / edit.file).read_text())
    return texts


def is_translated() -> bool:
    """Return whether the repository has C files for all Cython sources, and all of these are newer than every
    source."""
    sources = [*(ROOT / "sgfast").rglob("*.pyx"), *(ROOT / "sgfast").rglob("*.pxd")]
    made = [path.with_suffix(".c") for path in sources if path.suffix == ".pyx"]
    if not all(path.exists() for path in made):
        return False
    return min(path.stat().st_mtime_ns for path in made) >= max(path.stat().st_mtime_ns for path in sources)


def version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


class Workshop:
    """``tree`` is a built copy that can be changed; ``base`` has its unchanged package, built and importable."""

    def __init__(
        self, folder: Path, jobs: int, *, flags: str | None = None, as_built: bool = False, translated: bool = False,
        building: Mapping[str, str] | None = None, running: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``flags``: compiler flags in place of those in setup.py. ``as_built``: start with the repository's extension
        modules, which must be up to date, whatever flags they were built with. ``translated``: start only with the C
        files that Cython made. ``building``, ``running``: additional environment variables for builds, and for programs
        that are run.
        """
        # The names have equal lengths: a longer environment moves the stack, which can be enough to slow a process
        # down.
        self.tree = folder / "tree"
        self.base = folder / "base"
        self._jobs = jobs
        self._environment = {
            **os.environ,
            # Python detects stale bytecode by times in whole seconds, and changes may be faster than that.
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder),
        }
        self._building = building or {}
        self._running = running or {}
        self._copy(flags, () if as_built else ("*.so",) if translated else ("*.so", "*.c"))
        self.build()
        package_file = self.call([sys.executable, "-c", "import sgfast; print(sgfast.__file__)"], 60)[1].strip()
        if Path(package_file).parent != self.tree / "sgfast":
            raise Failure(f"whatever is run would see {package_file} instead of the copy in {self.tree}")
        for name in ("sgfast", "build"):
            shutil.copytree(self.tree / name, self.base / name)
        shutil.copy2(self.tree / "setup.py", self.base)

    def _copy(self, flags: str | None, left_out: Sequence[str]) -> None:
        self.tree.mkdir()
        for name in NEEDED:
            if (ROOT / name).is_dir():
                made = left_out if name == "sgfast" else ()
                shutil.copytree(
                    ROOT / name, self.tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*", *made)
                )
            elif (ROOT / name).exists():
                shutil.copy2(ROOT / name, self.tree / name)
        if (ROOT / "build" / "made-with").exists():
            # Without this file, building would translate the repository's C files again.
            (self.tree / "build").mkdir()
            shutil.copy2(ROOT / "build" / "made-with", self.tree / "build")
        self._take_as_built()
        setup = self.tree / "setup.py"
        text = Edit("setup.py", "os.cpu_count() or 1", str(self._jobs)).applied(setup.read_text())
        if flags is not None:
            text = Edit("setup.py", '["-O3" if module in HOT else "-O2", "-g0"]', repr(flags.split())).applied(text)
        setup.write_text(text)

    def _take_as_built(self) -> None:
        # Make the files newer than everything they are made from, including Cython's own files, and copy them to the
        # place where building expects them.
        now = time.time_ns()
        for kind in ("*.c", "*.so"):
            for made in (self.tree / "sgfast").rglob(kind):
                os.utime(made, ns=(now, now))
                if kind == "*.so":
                    expected = self.tree / "build" / "lib" / made.relative_to(self.tree)
                    expected.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(made, expected)

    def build(self, *, everything: bool = False) -> None:
        """Build what is not up to date, or ``everything``, which is needed if compiler flags changed."""
        command = [
            sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--build-lib=build/lib",
            f"--parallel={self._jobs}", *(("--force",) if everything else ()),
        ]  # fmt: skip
        try:
            status, output = self._call(command, BUILD_TIMEOUT_SECONDS, [self.tree], self._building)
        except subprocess.TimeoutExpired:
            raise Failure(f"it does not build within {BUILD_TIMEOUT_SECONDS} s") from None
        if status:
            raise Failure(f"it does not build:\n{output}")

    def modules(self) -> dict[str, str]:
        """Return the extension modules with a digest of each."""
        return {
            str(path.relative_to(self.tree)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self.tree / "sgfast").rglob("*.so")
        }

    @contextlib.contextmanager
    def changed(self, edits: Sequence[Edit]) -> Iterator[None]:
        """Apply the edits to ``tree`` and build it, then restore it. Raises Failure if no extension module changes."""
        before = self.modules()
        try:
            for edit in edits:
                source = self.tree / edit.file
                source.write_text(edit.applied(source.read_text()))
            flags = any(edit.file == "setup.py" for edit in edits)
            if flags or any(edit.file.endswith((".pyx", ".pxd")) for edit in edits):
                self.build(everything=flags)
                if self.modules() == before:
                    raise Failure("no extension module came out different: it changes nothing")
            yield
        finally:
            self._restore()
        assert self.modules() == before

    def _restore(self) -> None:
        # Examples that Hypothesis saved for this change must not help with the next one.
        shutil.rmtree(self.tree / ".hypothesis", ignore_errors=True)
        # Restore files with their times, so that the next build only compiles the next change.
        for original in self.base.rglob("*"):
            if original.is_file():
                copy = self.tree / original.relative_to(self.base)
                if not copy.exists() or version(copy) != version(original):
                    shutil.copy2(original, copy)

    def call(
        self, command: Sequence[str], timeout: float, *, base: bool = False, path: Sequence[Path] = ()
    ) -> tuple[int, str]:
        """Run a command in ``tree`` with its package, or with ``base``'s. Return the exit status and the output.

        ``path`` lists more folders to import from. Raises TimeoutExpired after ``timeout`` seconds.
        """
        return self._call(command, timeout, [self.base if base else self.tree, *path], self._running)

    def _call(
        self, command: Sequence[str], timeout: float, path: Sequence[Path], variables: Mapping[str, str]
    ) -> tuple[int, str]:
        # Absolute paths, because a test may change directories and another sgfast may be installed.
        environment = {**self._environment, **variables, "PYTHONPATH": os.pathsep.join(map(str, path))}
        # The process gets a session of its own so that all its children can be killed with it. None of them may write
        # into a folder that is being removed.
        with subprocess.Popen(
            command, cwd=self.tree, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            try:
                output, _ = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, output


def status_of(work: Callable[[], int]) -> int:
    """Run a command's work and return its exit status. Print failures, and make sure that temporary folders are removed
    if the command is interrupted or terminated.
    """
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    name = Path(sys.argv[0]).name
    try:
        return work()
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing is left behind", file=sys.stderr)
        return 130


def _stop(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)
