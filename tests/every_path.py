"""Runs the engine's tests on every path through its code that this machine has.

    python tests/every_path.py              each of them, in turn
    python tests/every_path.py portable     or some
    python tests/every_path.py --short      a few tests of each, as CI does

What plain ``pytest`` runs is one thread with the processor's vector instructions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from workshop import ROOT, Edit, Workshop, status_of

TIMEOUT_SECONDS = 1800

#: A file's tests stay in one process: some share what took long to make.
PYTEST = (sys.executable, "-m", "pytest", "-n", "auto", "--dist", "loadfile")

#: What judges packets, and what is told of them.
ENGINE_TESTS = (
    "test_changes", "test_changes_metamorphic", "test_diff", "test_differential", "test_engine_check",
    "test_engine_inputs", "test_engine_invariants", "test_engine_state", "test_examples_classic", "test_examples_seed",
    "test_fragments",
    "test_recorded_changes", "test_recordings", "test_replay_changes", "test_replay_cuts", "test_replay_pieces",
    "test_report_answers", "test_seed_clauses", "test_short_way", "test_snapshot", "test_stateless",
)  # fmt: skip

#: Those that go through most of it in the shortest time.
SHORT = ("test_differential", "test_fragments", "test_recordings", "test_short_way", "test_snapshot", "test_stateless")

PORTABLE = Edit(
    "sgfast/core/intrinsics.pxd", "#if defined(__SSE2__)\n        __m128i tags", "#if 0\n        __m128i tags"
)


def several(tests: Sequence[str], jobs: int) -> int:
    """More threads than most machines that run this have processors."""
    command = [*PYTEST, "--workers", "3", *files(ROOT, tests)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def portable(tests: Sequence[str], jobs: int) -> int:
    """The plain C that other processors get."""
    with tempfile.TemporaryDirectory(prefix="sgfast-path-") as folder:
        workshop = Workshop(Path(folder), jobs, as_built=True)
        with workshop.changed([PORTABLE]):
            status, output = workshop.call([*PYTEST, *files(workshop.tree, tests)], TIMEOUT_SECONDS)
    print(output, end="")
    return status


PATHS = {"several": several, "portable": portable}


def files(root: Path, tests: Sequence[str]) -> list[str]:
    return [str(root / "tests" / f"{name}.py") for name in tests]


def run(names: Sequence[str], tests: Sequence[str], jobs: int) -> int:
    for name in names:
        print(f"== the engine's tests: {name}", flush=True)
        status = PATHS[name](tests, jobs)
        if status:
            return status
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the engine's tests on every path through its code.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"of {', '.join(PATHS)}; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    parser.add_argument("--short", action="store_true", help="a few of the tests")
    options = parser.parse_args()
    for name in options.paths:
        if name not in PATHS:
            parser.error(f"no such path: {name}; there are {', '.join(PATHS)}")
    tests = SHORT if options.short else ENGINE_TESTS
    return status_of(lambda: run(options.paths or list(PATHS), tests, options.jobs))


if __name__ == "__main__":
    sys.exit(main())
