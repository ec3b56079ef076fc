"""What is fuzzed holds for every input that fuzzing begins with, and for some thousand changed ones; and findings.

The fuzzers themselves, steered by coverage and with sanitizers, are ``python tests/fuzz/run.py TARGET``.
"""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from fuzz.run import HERE, LONGEST
from fuzz.seeds import seeds
from fuzz.targets import TARGETS
from mutation import mutated

by_target = pytest.mark.parametrize("target", TARGETS)

#: Mutated inputs of each target: about a second's worth.
MUTATIONS = {"captures": 1500, "frames": 3000, "documents": 300, "sequences": 40}
SEED = 2026


def run(target: str, data: bytes) -> None:
    try:
        TARGETS[target](data)
    except BaseException:
        print(f"{target}: {data.hex()}")
        raise


def test_every_target_has_its_bounds_and_a_dictionary() -> None:
    assert set(TARGETS) == set(LONGEST)
    assert {path.stem for path in (HERE / "dictionaries").glob("*.dict")} == set(TARGETS)


def test_the_fuzzer_starts_outside_of_pytest() -> None:
    run = subprocess.run([sys.executable, HERE / "run.py", "--help"], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "captures" in run.stdout, run.stderr


@by_target
def test_seeds_pass(target: str) -> None:
    given = list(seeds(target))
    assert len(given) > 15
    for data in [b"", *given]:
        run(target, data)


@by_target
def test_mutated_seeds_pass(target: str) -> None:
    print(f"seed {SEED}")
    rng = random.Random(f"{SEED} {target}")
    given = [data for data in seeds(target) if len(data) <= LONGEST[target]]
    for _ in range(MUTATIONS[target]):
        run(target, mutated(rng, rng.choice(given), rng.choice(given)))
