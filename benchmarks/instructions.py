"""Count the instructions that sgfast executes per packet or connection, with valgrind's callgrind.

    python benchmarks/instructions.py              # counts for this tree, beside the recorded counts
    python benchmarks/instructions.py --record     # write the counts into instructions.toml
    python benchmarks/instructions.py --record --why opener "it also ..."
    python benchmarks/instructions.py --check      # fail if a count grew by more than 2 % without a recorded reason
    python benchmarks/instructions.py --last 10    # counts for each of the last ten commits
    python benchmarks/instructions.py --commits v1.0 HEAD

Other processes change how long sgfast takes, but not how many instructions it executes. Each scenario is a command that
is run for N packets and for 2 N, and the difference is divided by N. This excludes start-up, loading the policy and the
constant part of a report. Another compiler, Python, NumPy or processor gives other figures. In that case ``--check``
builds the commit that recorded the figures and measures both trees. The program needs valgrind, a C compiler and the
packages needed to build sgfast.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from workload import (
    ACK,
    FILE_HEADER,
    OUTSIDE,
    SYN,
    SYN_ACK,
    Family,
    Flows,
    draw_flows,
    make_policy,
    policy_text,
    records,
)
from yardsticks import FLAGS, Missing, compiled

from sgfast import Policy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FIGURES = HERE / "instructions.toml"
IN_GIT = "benchmarks/instructions.toml"

#: The factor by which a figure may grow without a recorded reason.
TOLERATED = 1.02

#: The number of packets in the shorter capture of a scenario. The longer one has twice as many.
PACKETS = 100_000
#: The number of kinds of traffic to create. A report holds at most 65,536.
KINDS = 32_000
#: The number of different peers and services of openers, in scenarios that do not measure the effect of this number.
FEW_FLOWS = 1_000

Rows = Any
#: Instructions per unit, by scenario and stage.
Figures = dict[str, dict[str, float]]


# Scenarios -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A measured command. ``title`` names the unit that is counted. ``capture`` makes the records of N units."""

    title: str
    capture: Callable[[int], Rows]
    units: int = PACKETS
    options: tuple[str, ...] = ()
    family: Family = 4


def _policy(family: Family) -> Policy:
    """Return a small policy, because the time to load it is not measured."""
    return make_policy(rules=100, groups=10, instances=40, family=family)


def _flows(wanted: int, *, family: Family = 4, denied: bool = False) -> Flows:
    return draw_flows(_policy(family), wanted, family=family, denied=denied)


def _few(wanted: int, *, denied: bool = False) -> Flows:
    """Draw connections between few peers, with increasing client ports."""
    flows = _flows(FEW_FLOWS, denied=denied)
    services = np.hstack([flows.client, flows.server, flows.server_port[:, None]])
    _, different = np.unique(services, axis=0, return_index=True)
    row = different[np.arange(wanted) % len(different)]
    port = 1024 + np.arange(wanted) // len(different)
    return Flows(flows.client[row], flows.server[row], port.astype(np.uint16), flows.server_port[row])


def _handshakes(flows: Flows) -> tuple[Rows, Rows, Rows]:
    """Return the flow, the sender and the flags of each packet of the flows' handshakes."""
    steps = np.tile([SYN, SYN_ACK, ACK], len(flows))
    return np.repeat(np.arange(len(flows)), 3), steps != SYN_ACK, steps


def _established(n: int, family: Family = 4) -> Rows:
    flows = _flows(FEW_FLOWS, family=family)
    rng = np.random.default_rng(1)
    flow, from_client, flags = (
        np.concatenate([opening, more])
        for opening, more in zip(
            _handshakes(flows), (rng.integers(0, len(flows), n), rng.random(n) < 0.5, np.full(n, ACK)), strict=True
        )
    )
    return records(flows, flow, from_client, flags, np.arange(len(flow)))


def _peers(n: int) -> Flows:
    """Draw a connection of each of ``n`` clients to one of a few servers, whose port 443 is open to all."""
    rng = np.random.default_rng(2)
    drawn = _flows(n)
    numbers = int(OUTSIDE[4][0]) + rng.choice(OUTSIDE[4].num_addresses, n, replace=False)
    clients = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
    return Flows(clients, drawn.server[rng.integers(0, 10, n)], drawn.client_port, np.full(n, 443, dtype=np.uint16))


def _openers(flows: Flows, interval_us: int = 1) -> Rows:
    n = len(flows)
    return records(flows, np.arange(n), np.full(n, True), np.full(n, SYN), np.arange(n) * interval_us)


def _connections(n: int) -> Rows:
    flows = _few(n)
    return records(flows, *_handshakes(flows), np.arange(3 * n))


SCENARIOS = {
    "established": Scenario("a packet of an established connection", _established),
    "IPv6": Scenario("the same with IPv6", lambda n: _established(n, 6), family=6),
    "opener": Scenario("a SYN that opens a connection", lambda n: _openers(_few(n))),
    "handshake": Scenario("SYN, SYN/ACK, ACK", _connections, PACKETS // 2),
    "denied": Scenario("a SYN that is denied", lambda n: _openers(_few(n, denied=True))),
    "expiry": Scenario("a SYN, and a connection times out", lambda n: _openers(_few(n), interval_us=1_000)),
    "verdicts": Scenario("established, with --verdicts", _established, options=("--verdicts", "-")),
    "connections": Scenario("opener, with --connections", lambda n: _openers(_few(n)), options=("--connections", "-")),
    "peers": Scenario("opener of a new peer, with its part of the report", lambda n: _openers(_peers(n)), KINDS),
    "kinds": Scenario("the same, to various instances and ports", lambda n: _openers(_flows(n)), KINDS),
}

#: Parts of a figure. A function counts for the first stage whose text its name contains.
STAGES = {
    "capture": "sgfast_7capture",
    "headers, clock": "4core_9dataplane",
    "look-up": "_guess_batch",
    "judging": "sgfast_4core",
    "the rest": "",
}


def _write_commands(folder: Path) -> Path:
    """Write the policies, the captures, and the file of commands that ``counted.py`` reads."""
    policies: dict[Family, Path] = {4: folder / "4.yaml", 6: folder / "6.yaml"}
    for family, path in policies.items():
        path.write_text(policy_text(_policy(family)))
    first: list[list[str]] = []
    counted: dict[str, list[str]] = {}
    for name, scenario in SCENARIOS.items():
        for times in (0, 1, 2):
            path = folder / f"{name}-{times}.pcap"
            path.write_bytes(FILE_HEADER + scenario.capture(times * scenario.units or 100).tobytes())
            arguments = ["replay", str(policies[scenario.family]), str(path), *scenario.options]
            if times == 0:
                first.append(arguments)
            else:
                counted[f"{name}-{times}"] = arguments
    commands = folder / "commands.json"
    commands.write_text(json.dumps({"first": first, "counted": counted}))
    return commands


# Counting ------------------------------------------------------------------------------------------------------------


class Failure(Exception):
    """Report, in a one-line message, that nothing could be measured or that a figure has grown."""


def measure(tree: Path, folder: Path) -> Figures:
    """Count the instructions per unit of each scenario by stage, for the built package in ``tree``.

    ``folder`` must not exist yet.
    """
    folder.mkdir()
    try:
        library = compiled(HERE / "counting.c", folder / "counting.so", FLAGS)
    except Missing as error:
        raise Failure(str(error)) from None
    command = [
        "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder / 'counts'}",
        sys.executable, str(HERE / "counted.py"), str(library), str(_write_commands(folder)),
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    run = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if run.returncode:
        raise Failure(f"{tree}: the command under valgrind ended with {run.returncode}:\n{run.stderr[-2000:]}")
    counts = {name: counted for path in folder.glob("counts.*") for name, counted in _counts(path)}
    return {name: _per_unit(counts, name, scenario.units) for name, scenario in SCENARIOS.items()}


def _counts(path: Path) -> Iterator[tuple[str, Counter[str]]]:
    """Yield the name of a dump and its instructions by stage. Yield nothing for the dump written when callgrind
    ends."""
    text = path.read_text()
    named = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.M)
    if named is None:
        return
    stages: Counter[str] = Counter()
    names: dict[str, str] = {}
    stage = ""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("fn="):
            number, _, function = line[3:].partition(" ")
            names.setdefault(number, function)
            stage = next(stage for stage, part in STAGES.items() if part in names[number])
        elif line.startswith("cfn="):
            number, _, function = line[4:].partition(" ")
            if function:
                names.setdefault(number, function)
        elif line.startswith("calls="):
            next(lines)     # skip the callee's instructions: the callee has its own lines
        elif line and line[0] in "0123456789+-*":
            stages[stage] += int(line.split()[1])
    yield named[1], stages


def _per_unit(counts: dict[str, Counter[str]], name: str, units: int) -> dict[str, float]:
    once, twice = counts[f"{name}-1"], counts[f"{name}-2"]
    stages = {stage: round((twice[stage] - once[stage]) / units, 1) for stage in STAGES}
    return {"all": round((twice.total() - once.total()) / units, 1), **stages}


def made_with() -> dict[str, str]:
    """Return the versions of the programs that the figures depend on, and the processor."""
    compiler = os.environ.get("CC", "cc").split()
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True).stdout.strip()
    return {
        "compiler": version,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "numpy": metadata.version("numpy"),
        "cython": metadata.version("cython"),
        "valgrind": valgrind,
        "processor": f"{platform.machine()}, {_processor_path()}",
    }


def _processor_path() -> str:
    """Return the vector instructions that libraries use under valgrind, which does not support AVX-512."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    return "AVX2" if re.search(r"^flags.*\bavx2\b", flags, re.M) else "no AVX2"


# Recorded figures ----------------------------------------------------------------------------------------------------

_HEADER = """\
# Instructions for a unit of each scenario in benchmarks/instructions.py, by stage. Written by its option --record.
# Where a figure has grown by more than 2 % since they were last recorded, [why] must have a line for its scenario.
"""


def document(figures: Figures, why: dict[str, str]) -> str:
    """Return the text of the file of recorded figures."""
    lines = [_HEADER, "[made_with]", *(f"{name} = {json.dumps(value)}" for name, value in made_with().items())]
    lines += ["", "[why]", *(f"{json.dumps(name)} = {json.dumps(reason)}" for name, reason in why.items())]
    lines += ["", "[figures]"]
    lines += [
        f"{json.dumps(name)} = {{ {', '.join(f'{json.dumps(stage)} = {n}' for stage, n in stages.items())} }}"
        for name, stages in figures.items()
    ]
    return "\n".join(lines) + "\n"


def grown(before: Figures, after: Figures) -> list[str]:
    """Return the scenarios whose figure has grown by more than the tolerated factor."""
    return [name for name in after if name in before and after[name]["all"] > before[name]["all"] * TOLERATED]


# Other commits -------------------------------------------------------------------------------------------------------

#: The number of instructions depends on these files and folders.
SOURCES = ("sgfast", "setup.py", "pyproject.toml")


def git(*arguments: str) -> str:
    # Git refuses to read a repository that belongs to another user, unless this is set.
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise Failure(f"git {' '.join(arguments)}: {run.stderr.strip()}")
    return run.stdout


class OtherTree:
    """A built copy of this tree for several commits in turn. Only files that differ between commits are rebuilt."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tree"
        self.path.mkdir()
        for name in (*SOURCES, "README.md", "build/made-with"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.path / name)
            elif (ROOT / name).exists():
                (self.path / name).parent.mkdir(exist_ok=True)
                shutil.copy2(ROOT / name, self.path / name)
        # Uncommitted changes were copied too. Restore their files from HEAD.
        self._at = "HEAD"
        self._take(line for line in git("status", "--porcelain", "--no-renames", "--", *SOURCES).splitlines())

    def go(self, commit: str) -> Path:
        """Check out a commit in the copy and build it."""
        self._take(git("diff", "--name-status", "--no-renames", self._at, commit, "--", *SOURCES).splitlines(), commit)
        self._at = commit
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        run = subprocess.run(command, cwd=self.path, capture_output=True, text=True)
        if run.returncode:
            raise Failure(f"{commit} does not build:\n{run.stderr[-2000:]}")
        return self.path

    def _take(self, lines: Iterable[str], commit: str = "HEAD") -> None:
        for line in lines:
            path = self.path / line.split()[-1]
            try:
                text = git("show", f"{commit}:{line.split()[-1]}")
            except Failure:
                for made in (path, path.with_suffix(".c"), *path.parent.glob(path.stem + ".*.so")):
                    made.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)


def measured(tree: Path) -> Figures:
    with tempfile.TemporaryDirectory(prefix="sgfast-instructions-") as folder:
        return measure(tree, Path(folder) / "run")


def base() -> tuple[str, dict[str, Any] | None]:
    """Return the commit to compare with, and the figures that it recorded.

    This is the commit that recorded the current figures, so that several small increases cannot add up unnoticed. If
    that commit is HEAD, it is HEAD's parent. If the recorded figures are not committed yet, it is HEAD.
    """
    commit = "HEAD"
    if git("show", f"HEAD:{IN_GIT}") == FIGURES.read_text():
        commit = git("log", "-1", "--format=%H", "--", IN_GIT).strip()
        if commit == git("rev-parse", "HEAD").strip():
            commit = git("rev-parse", "HEAD^").strip()
    try:
        return commit, tomllib.loads(git("show", f"{commit}:{IN_GIT}"))
    except Failure:
        return commit, None


# Commands ------------------------------------------------------------------------------------------------------------


def check() -> int:
    """Compare this tree with the recorded figures. Return 1 if a figure has grown without a recorded reason, else 0."""
    now = tomllib.loads(FIGURES.read_text())
    try:
        commit, before = base()
    except Failure as failure:
        print(f"nothing to compare with: {failure}")
        return 0
    explained = set(now["why"].items()) - set((before or {"why": {}})["why"].items())
    if made_with() == now["made_with"]:
        found = measured(ROOT)
        print(table({"recorded": now["figures"], "this tree": found}))
        failed = grown(now["figures"], found)
        if before is not None and before["made_with"] == now["made_with"]:
            failed += [name for name in grown(before["figures"], now["figures"]) if name not in dict(explained)]
    elif git("diff", "--name-only", commit, "--", *SOURCES):
        print(f"the recorded figures are of another compiler or processor: {commit[:9]} is built")
        with tempfile.TemporaryDirectory(prefix="sgfast-commit-") as folder, ThreadPoolExecutor() as threads:
            found, old = threads.map(measured, (ROOT, OtherTree(Path(folder)).go(commit)))
        print(table({commit[:9]: old, "this tree": found}))
        failed = [name for name in grown(old, found) if name not in dict(explained)]
    else:
        print(f"nothing differs from {commit[:9]}")
        return 0
    for name in failed:
        print(
            f"{name}: grown by more than {TOLERATED - 1:.0%}. Make it cheaper, or record it and say why: "
            f"python benchmarks/instructions.py --record --why {name} REASON"
        )
    return 1 if failed else 0


def record(why: dict[str, str]) -> int:
    found = measured(ROOT)
    FIGURES.write_text(document(found, why))
    print(table({"this tree": found}))
    return 0


def compare(commits: Sequence[str]) -> int:
    """Measure each commit, and print a table with a column for each."""
    columns: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="sgfast-commit-") as folder:
        tree = OtherTree(Path(folder))
        for commit in commits:
            name = git("rev-parse", "--short=9", commit).strip()
            columns[name] = measured(tree.go(commit))
            print(f"{name} {git('log', '-1', '--format=%s', commit).strip()}", flush=True)
    print(table(columns))
    return 0


def table(columns: dict[str, Figures]) -> str:
    """Return the figures as Markdown: a line for each scenario, with the last column's stages and its ratio to the
    first."""
    names = [*columns]
    first, last = columns[names[0]], columns[names[-1]]
    heads = ["scenario", *names, "ratio", *STAGES]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, scenario in SCENARIOS.items():
        totals = [f"{column[name]['all']:,.0f}" if name in column else "" for column in columns.values()]
        ratio = f"{last[name]['all'] / first[name]['all']:.3f}" if name in first and name in last else ""
        stages = [f"{last[name][stage]:,.0f}" for stage in STAGES] if name in last else []
        lines.append(f"| {name}: {scenario.title} | {' | '.join([*totals, ratio, *stages])} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the instructions that a packet or a connection takes.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--record", action="store_true", help=f"write the figures into {FIGURES.name}")
    choice.add_argument("--check", action="store_true", help="fail if a figure grew by over 2 %% without a reason")
    choice.add_argument("--last", type=int, metavar="N", help="measure the last N commits")
    choice.add_argument("--commits", nargs="+", metavar="COMMIT", help="measure these commits")
    parser.add_argument(
        "--why", nargs=2, action="append", default=[], metavar=("SCENARIO", "REASON"),
        help="with --record: why a figure has grown",
    )  # fmt: skip
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("instructions.py: nothing is counted, as valgrind is missing: install it", file=sys.stderr)
        return 0 if arguments.check else 2
    try:
        if arguments.check:
            return check()
        if arguments.record:
            return record(dict(arguments.why))
        if arguments.last:
            return compare(git("rev-list", f"--max-count={arguments.last}", "--reverse", "HEAD").split())
        if arguments.commits:
            return compare(arguments.commits)
        columns = {"recorded": tomllib.loads(FIGURES.read_text())["figures"]} if FIGURES.exists() else {}
        print(table({**columns, "this tree": measured(ROOT)}))
    except Failure as failure:
        print(f"instructions.py: {failure}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
