"""Run simulated worlds: ``PYTHONPATH=tests/support python -m simulated_worlds --worlds 1000 --seed 1 --jobs 2``."""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from simulated_worlds.judging import Outcome, judge
from simulated_worlds.worlds import LABELS, VERSIONS, draw


def one(seed: int, *, version: str = "", plain: bool | None = None, keep: str = "") -> Outcome:
    """Judge a world. Keep its folder, if it has faults and a place for it is named."""
    world = draw(seed, version=version, plain=plain)
    folder = Path(tempfile.mkdtemp(prefix=f"world-{seed}-"))
    try:
        outcome = judge(world, folder)
        if keep and outcome.faults:
            shutil.copytree(folder, Path(keep) / f"world-{seed}", dirs_exist_ok=True)
    finally:
        shutil.rmtree(folder)
    return outcome


def summary(outcomes: list[Outcome]) -> str:
    lines = [f"{len(outcomes)} worlds, {sum(o.connections for o in outcomes):,} connections"]
    for label in LABELS:
        for version in VERSIONS:
            some = [o for o in outcomes if o.version == version and o.label == label and o.conclusive]
            doubted = [o for o in some if o.conclusive != "yes"]
            codes = Counter(code for o in doubted for code in o.reasons)
            if some:
                lines.append(f"  {label}, {version}: {len(doubted)} of {len(some)} not certain {dict(codes)}")
    faults: dict[tuple[str, str], list[int]] = defaultdict(list)
    for o in outcomes:
        for fault in o.faults:
            faults[fault.check, fault.about].append(o.seed)
    for check in sorted({check for check, _ in faults}):
        worlds = {seed for (other, _), seeds in faults.items() if other == check for seed in seeds}
        lines.append(f"{check}: {len(worlds)} worlds")
        for (other, about), seeds in sorted(faults.items(), key=lambda item: -len(item[1])):
            if other == check:
                lines.append(f"  {len(seeds):5} {about}: seeds {sorted(set(seeds))[:6]}")
    removals = Counter(o.removals for o in outcomes if o.removals)
    return "\n".join([*lines, f"removals by evidence: {dict(removals)}"])


def main() -> int:
    asked = argparse.ArgumentParser(prog="simulated_worlds", description=__doc__)
    asked.add_argument("--worlds", type=int, default=100, help="how many worlds, of consecutive seeds")
    asked.add_argument("--seed", type=int, default=1, help="the seed of the first world")
    asked.add_argument("--jobs", type=int, default=1, help="processes")
    asked.add_argument("--version", default="", choices=("", *VERSIONS), help="make all logs of this version")
    asked.add_argument("--plain", action="store_true", default=None, help="make plain worlds only")
    asked.add_argument("--keep", default="", metavar="FOLDER", help="keep the folders of failing worlds")
    options = asked.parse_args()
    run = partial(one, version=options.version, plain=options.plain, keep=options.keep)
    outcomes = []
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for o in pool.imap_unordered(run, range(options.seed, options.seed + options.worlds)):
            outcomes.append(o)
            for fault in o.faults[:3]:
                print(f"seed {o.seed} {o.version}: {fault.check} {fault.about}: {fault.text}", flush=True)
    print(summary(outcomes))
    return 1 if any(o.faults for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
