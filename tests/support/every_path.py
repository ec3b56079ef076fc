"""Run the engine's tests on every path through its code that this machine supports, and with run-time checks.

    python tests/support/every_path.py                          all paths, one after another
    python tests/support/every_path.py portable                 selected paths
    python tests/support/every_path.py --short                  a few tests of each path, as CI does
    python tests/support/every_path.py sanitized --whole        the whole suite
    python tests/support/every_path.py sanitized -- -x tests/reference      other arguments for pytest

Plain ``pytest`` runs one thread with the processor's vector instructions. ``sanitized`` makes the compiler check every
memory access and all undefined behaviour of C, ``races`` every access by two threads, and ``bounds`` makes Cython check
every index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from workshop import ROOT, Failure, Workshop, is_translated, status_of

#: Time limits: the whole suite takes about an hour with sanitizers, and some files take a few minutes.
WHOLE_TIMEOUT_SECONDS, TIMEOUT_SECONDS = 4 * 3600, 1800

#: The pytest command. Tests of a file run in one process, because some share data that takes long to make.
PYTEST = (sys.executable, "-m", "pytest", "-n", "auto", "--dist", "loadfile")

#: Tests of verdicts and of reports about them.
ENGINE_TESTS = (
    "questions/comparing/test_diff", "core/test_fast_path", "engine", "reference",
    "questions/replaying/test_recorded_changes", "questions/replaying/test_recordings",
    "questions/replaying/test_replay_changes", "questions/replaying/test_replay_cuts",
    "questions/replaying/test_snapshot", "questions/replaying/test_split_captures", "report/test_report_answers",
    "rows/test_arrow", "rows/test_tables",
)  # fmt: skip

#: Tests that cover most of the engine in the shortest time.
SHORT = (
    "core/test_fast_path", "engine/test_differential", "engine/test_fragments", "engine/test_many_fragments",
    "engine/test_stateless", "questions/replaying/test_recordings",
)  # fmt: skip

#: Tests of parsers of external bytes and a few others. There are few, because checks make tests several times slower.
SHORT_CHECKED = (
    "traffic/capture/test_capture_ahead", "traffic/capture/test_capture_streams",
    "traffic/capture/test_capture_formats", "core/test_fast_path", "core/test_records", "engine/test_errors",
    "engine/test_stateless", "fuzz/test_fuzz_targets", "questions/replaying/test_soak", "rows/test_arrow",
)  # fmt: skip

#: All tests but those that build sources in other ways, and the one that compares times with a plain build.
WHOLE = (
    "tests", "--ignore=tests/project/test_ablations.py", "--ignore=tests/project/test_mutants.py",
    "--deselect=tests/project/test_benchmarks.py::test_no_ratio_to_the_floor_has_doubled",
)  # fmt: skip

#: Tests in which several threads judge, or one thread judges while others query.
THREADED = ("engine/test_engine_check", "questions/replaying/test_jobs", "questions/replaying/test_jobs_reading")

#: Options for more threads than most test machines have processors.
SEVERAL = ("--workers", "3")

GCC = os.environ.get("CC", "gcc").split()[0]
#: Compiler flags. Without optimisation, compiling takes a third of the time, and all memory accesses are checked.
#: Python's own flags make signed integers wrap around; these flags report an overflow instead.
SANITIZERS = "-O0 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-wrapv"


def several(tests: Sequence[str], jobs: int) -> int:
    """Test with several threads."""
    return subprocess.run([*PYTEST, *SEVERAL, *tests], cwd=ROOT, check=False).returncode


def portable(tests: Sequence[str], jobs: int) -> int:
    """Test the portable C code that is used on other processors."""
    with tempfile.TemporaryDirectory(prefix="sgfast-path-") as folder:
        # The code path is tested, not its optimisation. Without optimisation, compiling takes a third of the time.
        workshop = Workshop(Path(folder), jobs, flags="-O0 -g0 -DSGFAST_PORTABLE", translated=is_translated())
        return tested(workshop, tests)


def sanitized(tests: Sequence[str], jobs: int) -> int:
    """Test with the address and undefined behaviour sanitizers. The first finding ends the process."""
    running = {
        # Python is built without sanitizers, so their libraries must be loaded in every process that it starts.
        "LD_PRELOAD": f"{gccs_own('libasan.so')} {gccs_own('libubsan.so')}",
        # Python deliberately leaves memory allocated when it ends, and some tests request more memory than exists.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # Give each object its own allocation. Otherwise reading past its end would not be noticed.
        "PYTHONMALLOC": "malloc",
    }
    with tempfile.TemporaryDirectory(prefix="sgfast-path-") as folder:
        building = {"CC": GCC, "LDSHARED": f"{GCC} -shared"}
        workshop = Workshop(
            Path(folder), jobs, flags=SANITIZERS, translated=is_translated(), building=building, running=running
        )
        return tested(workshop, tests)


def races(tests: Sequence[str], jobs: int) -> int:
    """Test with the thread sanitizer. The first race between two threads ends the process."""
    running = {
        "LD_PRELOAD": gccs_own("libtsan.so"),
        # Some tests fork. Python is built without the sanitizer, so findings about its own locks and threads are
        # ignored.
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:die_after_fork=0:report_mutex_bugs=0:report_thread_leaks=0",
        "OPENBLAS_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory(prefix="sgfast-path-") as folder:
        building = {"CC": GCC, "LDSHARED": f"{GCC} -shared"}
        flags = "-O1 -g1 -fno-omit-frame-pointer -fsanitize=thread"
        workshop = Workshop(
            Path(folder), jobs, flags=flags, translated=is_translated(), building=building, running=running
        )
        return tested(workshop, tests)


def bounds(tests: Sequence[str], jobs: int) -> int:
    """Test with Cython's checks of indices and unset buffers, which are enabled by ``SGFAST_DEBUG=1``."""
    with tempfile.TemporaryDirectory(prefix="sgfast-path-") as folder:
        return tested(Workshop(Path(folder), jobs, building={"SGFAST_DEBUG": "1"}), tests)


PATHS = {
    "several": several, "portable": portable, "sanitized": sanitized, "races": races, "bounds": bounds,
}
CHECKED = ("sanitized", "bounds")


def gccs_own(library: str) -> str:
    """Return the path of a library of GCC. Raises Failure if it is missing."""
    try:
        found = subprocess.run([GCC, f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"{GCC}: cannot be asked for {library} ({error}): install gcc, or name it in CC") from None
    if not os.path.isabs(found.stdout.strip()):
        raise Failure(f"{GCC}: has no {library}: install gcc's sanitizers, or name a gcc that has them in CC")
    return os.path.realpath(found.stdout.strip())


def tested(workshop: Workshop, tests: Sequence[str]) -> int:
    seconds = WHOLE_TIMEOUT_SECONDS if WHOLE[0] in tests else TIMEOUT_SECONDS
    # One process for each processor: each takes long to start, and there is nothing to wait for.
    status, output = workshop.call([*PYTEST, "-n", str(os.cpu_count() or 1), *tests], seconds)
    print(output, end="")
    return status


def files(names: Sequence[str]) -> list[str]:
    return [f"tests/{name}.py" if "/" in name else f"tests/{name}" for name in names]


def run(names: Sequence[str], tests: Sequence[str], *, short: bool, jobs: int) -> int:
    """Run the tests on the named paths. ``tests`` are pytest's arguments in place of each path's own tests."""
    for name in names:
        print(f"== the engine's tests: {name}", flush=True)
        own = ENGINE_TESTS if not short else SHORT_CHECKED if name in CHECKED else SHORT
        own = THREADED if name == "races" else own
        status = PATHS[name](tests or files(own), jobs)
        if status:
            return status
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the engine's tests on every path through its code.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"paths, among {', '.join(PATHS)}; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--short", action="store_true", help="a few of the tests")
    extent.add_argument("--whole", action="store_true", help="the whole suite")
    arguments, given = sys.argv[1:], []
    if "--" in arguments:
        separator = arguments.index("--")
        arguments, given = arguments[:separator], arguments[separator + 1 :]
    options = parser.parse_args(arguments)
    for name in options.paths:
        if name not in PATHS:
            parser.error(f"no such path: {name}; there are {', '.join(PATHS)}")
    if options.whole:
        given = [*WHOLE, *given]
    return status_of(lambda: run(options.paths or list(PATHS), given, short=options.short, jobs=options.jobs))


if __name__ == "__main__":
    sys.exit(main())
