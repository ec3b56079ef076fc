"""Targets of fuzzing hold for every input that it begins with, and for some thousand changed ones; and findings.

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
MUTATIONS = {"captures": 1000, "frames": 3000, "documents": 200, "logs": 30, "sequences": 40}
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


#: In zstd: a capture's header, and a block that is damaged.
DAMAGED_BLOCK = bytes.fromhex(
    "28b52ffdd4004500002800070000400600d4c3b2a10200000000000000002300ffffffff00000000a104b2a10200d400000050000000000000"
    "0084007f00000000000032060000060a805f5f7068656c6c6f5f5f2e0173796e00fffe0000000000000000000000000000000000000000ffff"
    "0000fffffffffffffffa000000000000000000000000000000000000000000000000000000000000000000000a0d0d0a0028000000ffffffff"
    "ffffffffff0000ffffff4500ffffffffffffff00000000eb000700ffff00f7000000015002ff370000000000ff02ff0000"
)


def test_damage_that_a_decompressor_finds_with_less_or_more_before_it_is_no_difference() -> None:
    run("captures", DAMAGED_BLOCK)
