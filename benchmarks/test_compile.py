"""Benchmarks of the time before the first packet: importing sgfast, and loading and compiling a policy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Maker, Measure
from measure import Section, Yardstick, timed
from workload import policy_text

from sgfast import Policy
from sgfast.clouds.loading import load_policy
from sgfast.rules.compiler import CompiledPolicy, compile_policy

RULES, GROUPS = 5_000, 100

#: The arguments for Python, by title of the benchmark.
PROCESSES = {
    "import sgfast": ("-c", "import sgfast"),
    "import what a replay needs": ("-c", "from sgfast import Engine, load, replay"),
    "sgfast --help": ("-m", "sgfast", "--help"),
}


def section(maker: Maker) -> Section:
    title = f"policy of {GROUPS} groups x {RULES // GROUPS} rules, {maker.option.instances:,} instances"
    return Section(title, "run", "ms")


def test_load(maker: Maker, measure: Measure, tmp_path: Path) -> None:
    policy = maker.policy(RULES, GROUPS)
    path = tmp_path / "policy.yaml"
    path.write_text(policy_text(policy))
    text = path.read_bytes()
    loaded: list[Policy] = []
    measure(
        section(maker), "load", timed(lambda: loaded.append(load_policy(path))), items=1,
        yardsticks={"compose": Yardstick("PyYAML, nodes only", 1, timed(lambda: compose(text)))},
    )  # fmt: skip
    assert loaded[-1].security_groups == policy.security_groups
    assert loaded[-1].instances == policy.instances


def test_compile(benchmark: Any, maker: Maker, measure: Measure) -> None:
    policy = maker.policy(RULES, GROUPS)
    text = policy_text(policy).encode()
    made: list[CompiledPolicy] = []
    measure(
        section(maker), "compile", timed(lambda: made.append(compile_policy(policy))), items=1,
        yardsticks={"compose": Yardstick("PyYAML, nodes only", 1, timed(lambda: compose(text)))},
    )  # fmt: skip
    compiled = made[-1]
    assert (len(compiled.rules), len(compiled.instances)) == (RULES, maker.option.instances)
    benchmark.extra_info.update(
        nbytes=compiled.nbytes, address_classes=compiled.address_classes, port_classes=compiled.port_classes,
        rule_tables=compiled.rule_tables,
    )  # fmt: skip


def compose(text: bytes) -> None:
    assert yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) is not None


@pytest.mark.parametrize("title", PROCESSES)
def test_import(title: str, measure: Measure) -> None:
    """Measure whole processes, from start to end."""
    measure(
        Section("a new process", "run", "ms"), title, timed(lambda: python(*PROCESSES[title])), items=1,
        yardsticks={
            "python": Yardstick("python -c pass", 1, timed(lambda: python("-c", "pass"))),
            "numpy": Yardstick("import numpy", 1, timed(lambda: python("-c", "import numpy"))),
        },
    )  # fmt: skip


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
