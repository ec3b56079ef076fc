"""Measure what each optimisation in ``ablations.toml`` is worth, by comparing the engine with and without it.

        python benchmarks/ablations/run.py                                all ablations, 10 million packets per capture
        python benchmarks/ablations/run.py --packets 1e6 fast-path tags   two ablations, on shorter captures

See README.md in the folder above.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "tests" / "support")]

from measure import Spread, command_line, load_average, machine, number, software  # noqa: E402
from workload import WORKLOADS, Capture, make_capture, make_policy  # noqa: E402
from workshop import Edit, Failure, Workshop, all_applied, status_of  # noqa: E402

#: The time limit of one replay, which usually takes seconds with its start-up.
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Ablation:
    """One optimisation and how to remove it."""

    #: A short name of the removed optimisation.
    name: str
    #: The effect of its absence.
    without: str
    #: The captures on which it is measured: names in WORKLOADS.
    captures: tuple[str, ...]
    edits: tuple[Edit, ...]


def load_ablations(path: Path = HERE / "ablations.toml") -> list[Ablation]:
    with path.open("rb") as file:
        return [
            Ablation(row["name"], row["without"], tuple(row["captures"]), tuple(Edit(**edit) for edit in row["edit"]))
            for row in tomllib.load(file)["ablation"]
        ]


def chosen(ablations: Sequence[Ablation], names: Sequence[str]) -> list[Ablation]:
    unknown = set(names) - {ablation.name for ablation in ablations}
    if unknown:
        raise Failure(f"no such ablation: {', '.join(sorted(unknown))}; see --list")
    return [ablation for ablation in ablations if not names or ablation.name in names]


# Measuring -----------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """An ablation measured on a capture: processor time per packet in ns with and without the optimisation, by
    round."""

    ablation: Ablation
    capture: str
    packets: int
    flows: int
    base: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [slow / fast for slow, fast in zip(self.without, self.base, strict=True)]

    @property
    def says(self) -> str:
        """``pays`` or ``costs`` if all rounds agree and the median ratio differs from 1 by at least 2 %."""
        ratio = Spread.of(self.ratios)
        if ratio.low > 1 and ratio.median >= 1.02:
            return "pays"
        return "costs" if ratio.high < 1 and ratio.median <= 0.98 else "no difference"


class Bench:
    """Replay captures with both packages of a workshop."""

    def __init__(self, workshop: Workshop, folder: Path, options: argparse.Namespace) -> None:
        self._workshop = workshop
        self._folder = folder
        self._options = options
        self._captures: dict[str, Capture] = {}
        self._expected: dict[str, Any] = {}

    def measure(self, ablation: Ablation, name: str) -> Measured:
        """Measure rounds with both packages, each replay in a new process. Raises Failure if their results differ."""
        capture = self._capture(name)
        measured = Measured(ablation, name, capture.packets, capture.flows)
        for n in range(self._options.rounds):
            # Alternate which package is measured first.
            for base in (True, False) if n % 2 == 0 else (False, True):
                seconds = self._replay(capture, base=base)
                (measured.base if base else measured.without).append(seconds / capture.packets * 1e9)
        return measured

    def _capture(self, name: str) -> Capture:
        if name not in self._captures:
            workload = WORKLOADS[name]
            options = self._options
            self._captures[name] = make_capture(
                workload, make_policy(instances=options.instances, family=workload.family, seed=options.seed),
                self._folder, packets=workload.packets_of(options.packets), seed=options.seed,
            )  # fmt: skip
        capture = self._captures[name]
        with capture.path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 20)
            while file.readinto(buffer):
                pass
        return capture

    def _replay(self, capture: Capture, *, base: bool) -> float:
        name, options = capture.workload.name, self._options
        command = [sys.executable, HERE / "sample.py", capture.path, name, options.instances, options.seed]
        if options.core >= 0:
            command.append(options.core)
        try:
            status, output = self._workshop.call(list(map(str, command)), TIMEOUT_SECONDS, base=base, path=[BENCHMARKS])
        except subprocess.TimeoutExpired:
            raise Failure(f"a replay of {name} takes longer than {TIMEOUT_SECONDS} s") from None
        if status:
            raise Failure(f"a replay of {name} ended with {status}:\n{output[-4000:]}")
        sample = json.loads(output)
        package = (self._workshop.base if base else self._workshop.tree) / "sgfast"
        if Path(sample["package"]).parent != package:
            raise Failure(f"a replay saw {sample['package']} instead of {package}")
        self._check(capture, sample["outcome"])
        return float(sample["seconds"])

    def _check(self, capture: Capture, outcome: dict[str, Any]) -> None:
        name = capture.workload.name
        if name not in self._expected:
            found = {each: outcome["verdicts"][each] for each in ("allow", "deny")}
            found["opened"] = outcome["connections"]["opened"]
            if found != capture.expected or outcome["packets"] != capture.packets:
                raise Failure(f"{name}: {found} came of it, not {capture.expected}")
            self._expected[name] = outcome
        for field_name, expected in self._expected[name].items():
            got = outcome[field_name]
            if got != expected:
                raise Failure(f"it changes the results of {name}: {field_name} {got!s:.200}, not {expected!s:.200}")


def measure_all(ablations: Sequence[Ablation], options: argparse.Namespace) -> Iterator[Measured | tuple[str, Failure]]:
    """Measure each ablation on each of its captures. Yields the name and the failure of one that cannot be measured."""
    # Check all edits before building, so that edits that do not match the sources are found at once.
    for ablation in ablations:
        all_applied(ablation.edits)
    with tempfile.TemporaryDirectory(prefix="sgfast-ablations-") as name:
        folder = Path(name).resolve()
        captures: Path = options.capture_dir.resolve() if options.capture_dir else folder / "captures"
        captures.mkdir(parents=True, exist_ok=True)
        workshop = Workshop(folder, options.jobs, as_built=options.as_built)
        bench = Bench(workshop, captures, options)
        for ablation in ablations:
            try:
                with workshop.changed(ablation.edits):
                    for capture in ablation.captures:
                        yield bench.measure(ablation, capture)
            except Failure as failure:
                yield ablation.name, failure


# Results -------------------------------------------------------------------------------------------------------------


def cells(measured: Measured) -> tuple[str, ...]:
    base, without, ratio = (Spread.of(each) for each in (measured.base, measured.without, measured.ratios))
    return (
        measured.capture, number(base.median), number(without.median), f"{ratio.median:.2f}",
        f"{ratio.low:.2f} - {ratio.high:.2f}", measured.says,
    )  # fmt: skip


HEAD = ("capture", "ns", "without", "ratio", "low - high", "")


def line(row: Sequence[str]) -> str:
    capture, base, without, ratio, extent, says = row
    return f"  {capture:<15}{base:>9}{without:>9}{ratio:>7}{extent:>15}  {says}".rstrip()


def facts(options: argparse.Namespace, load: float, seconds: float) -> dict[str, Any]:
    return {
        "machine": machine(),
        "software": software(),
        "load_average": [load, load_average()],
        "seconds": seconds,
        "command": command_line("python benchmarks/ablations/run.py", sys.argv[1:]),
        "options": {name: getattr(options, name) for name in ("packets", "instances", "rounds", "seed", "as_built")},
    }


def write(results: Sequence[Measured], folder: Path, known: dict[str, Any]) -> None:
    """Write ABLATIONS.md and ablations.json."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "ablation": one.ablation.name, "without": one.ablation.without, "capture": one.capture,
            "packets": one.packets, "flows": one.flows, "base_ns": one.base, "without_ns": one.without,
            "ratio": asdict(Spread.of(one.ratios)), "says": one.says,
        }
        for one in results
    ]  # fmt: skip
    (folder / "ablations.json").write_text(json.dumps(known | {"rows": rows}, indent=1) + "\n")
    options, load = known["options"], known["load_average"]
    lines = [
        "# What each optimisation is worth",
        "",
        "How to read it: [README.md](README.md).",
        "",
        f"- {known['machine']}",
        f"- {known['software']}; load average {load[0]:.1f} before, {load[1]:.1f} after; {known['seconds']:.0f} s",
        f"- {known['command']}",
        f"- {options['packets']:,} packets, {options['instances']:,} instances, seed {options['seed']}; median of "
        f"{options['rounds']} rounds; ns of the processor's time; ratio: without it over as it is, of the same round",
        "",
        "| optimisation | without it | capture | ns a packet | without | ratio | lowest - highest | it |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    before = None
    for one in results:
        first = one.ablation is not before
        names = (one.ablation.name, one.ablation.without) if first else ("", "")
        lines.append(f"| {' | '.join((*names, *cells(one)))} |")
        before = one.ablation
    (folder / "ABLATIONS.md").write_text("\n".join(lines) + "\n")


def run(ablations: Sequence[Ablation], options: argparse.Namespace) -> bool:
    """Measure the ablations and print each result. Return whether all could be measured."""
    began, load = time.monotonic(), load_average()
    print(f"{machine()}\n{software()}; load average {load:.1f}", flush=True)
    print(line(HEAD), flush=True)
    results: list[Measured] = []
    good = True
    for one in measure_all(ablations, options):
        if isinstance(one, tuple):
            good = False
            print(f"{one[0]}: NOT MEASURED: {one[1]}", flush=True)
            continue
        if not results or results[-1].ablation is not one.ablation:
            print(f"{one.ablation.name}: {one.ablation.without}")
        print(line(cells(one)), flush=True)
        results.append(one)
        if options.results is not None:
            # Write after each result, so that an interrupt loses nothing.
            write(results, options.results, facts(options, load, time.monotonic() - began))
    return good


def amount(text: str) -> int:
    """Read a number like ``10_000_000`` or ``10e6``."""
    value = int(float(text.replace("_", "")))
    if value < 1:
        raise ValueError(f"{text} is less than 1")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the engine without each of its optimisations in turn.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure only these ablations")
    parser.add_argument("--list", action="store_true", help="only list the ablations")
    parser.add_argument("--packets", type=amount, default=10_000_000, help="packets in a capture (default: 10,000,000)")
    parser.add_argument("--instances", type=amount, default=10_000, help="instances in a policy (default: 10,000)")
    parser.add_argument("--rounds", type=amount, default=5, help="rounds of each (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="seed for policies and captures (default: 1)")
    parser.add_argument("--capture-dir", type=Path, metavar="DIR", help="keep captures in DIR and reuse them")
    parser.add_argument("--results", type=Path, metavar="DIR", help="write ABLATIONS.md and ablations.json to DIR")
    parser.add_argument("--jobs", type=amount, default=os.cpu_count() or 1, help="compilers to run at a time")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [-1]
    parser.add_argument(
        "--core", type=int, choices=[*cores, -1], default=cores[-1], metavar="N",
        help="the core that replays run on (default: the last; -1: any)",
    )  # fmt: skip
    parser.add_argument(
        "--as-built", action="store_true",
        help="start with the existing extension modules, which must be up to date, instead of building them",
    )  # fmt: skip
    options = parser.parse_args()
    ablations = chosen(load_ablations(), options.names)
    if options.list:
        for ablation in ablations:
            print(f"{ablation.name}: {ablation.without} ({', '.join(ablation.captures)})")
        return 0
    return 0 if run(ablations, options) else 1


if __name__ == "__main__":
    sys.exit(status_of(main))
