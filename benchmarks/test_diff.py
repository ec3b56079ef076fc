"""Compare ``sgfast diff``, two policies in one pass, with one replay. It should take at most 1.9 times as long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import Maker, Measure
from measure import Section, Yardstick
from workload import WORKLOADS

from sgfast import Policy
from sgfast import replay as run_replay
from sgfast.questions.comparing import run_diff
from sgfast.questions.replaying.options import ReplayOptions

KINDS = {
    "one-side-10k": WORKLOADS["one-side-10k"],
    "two-sides-10k": WORKLOADS["two-sides-10k"],
    "one-side-200k": replace(WORKLOADS["one-side-1m"], name="one-side-200k", title="200,000 flows", flows=200_000),
}


def without_some(policy: Policy) -> Policy:
    """Return the policy without half of one group's rules."""
    first, *others = policy.security_groups
    return replace(policy, security_groups=(replace(first, rules=first.rules[::2]), *others))


@pytest.mark.parametrize("changed", ["same", "changed"])
@pytest.mark.parametrize("name", KINDS)
def test_diff(name: str, changed: str, maker: Maker, measure: Measure) -> None:
    workload = KINDS[name]
    old = maker.policy_for(workload)
    new = without_some(old) if changed == "changed" else old
    with maker.capture(workload, old, maker.option.packets) as made:
        opened = {policy is old: run_replay(policy, made.path).connections["opened"] for policy in (old, new)}

        def run() -> float:
            result = run_diff(old, new, made.path, ReplayOptions())
            assert result.packets == made.packets
            assert result.total("newly-denied").connections == opened[True] - opened[new is old]
            assert result.total("newly-allowed").connections == 0
            return result.elapsed_seconds

        def replay() -> float:
            return run_replay(old, made.path).elapsed_seconds

        measure(
            Section("two policies, causal, infer", "packet"), f"{name}, {changed}", run, items=made.packets,
            yardsticks={"replay": Yardstick("one replay", made.packets, replay)},
        )  # fmt: skip
