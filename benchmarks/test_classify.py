"""Benchmarks of stateless matching: find the instance and the winning rule of openers, without connections."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick, timed
from numpy.typing import NDArray
from workload import FIRST_INSTANCE, draw_flows, header_rows
from yardsticks import Loops, Missing
from yardsticks.dpdk import Classifier, Dpdk

from sgfast import Engine, Policy

#: The numbers of rules and of groups that contain them.
SIZES = [(50, 5), (1_000, 100), (5_000, 100)]


@pytest.mark.parametrize(("rules", "groups"), SIZES, ids=[f"{rules}-rules" for rules, _ in SIZES])
def test_classify(
    benchmark: Any, rules: int, groups: int, maker: Maker, loops: Loops, dpdk: Dpdk | None, results: Results,
    measure: Measure,
) -> None:  # fmt: skip
    policy = maker.policy(rules, groups)
    title = f"stateless match, {rules:,} rules in {groups} groups, {maker.option.instances:,} instances"
    section = Section(title, "lookup")
    matched = match(measure, policy, section, "Classifier.match", maker, loops, dpdk, results)
    benchmark.extra_info.update(rules=rules, groups=groups, matched=matched)


def match(
    measure: Measure, policy: Policy, section: Section, title: str, maker: Maker, loops: Loops, dpdk: Dpdk | None,
    results: Results, x: int | None = None,
) -> float:  # fmt: skip
    """Measure matching, and return the share of openers that a rule matches."""
    lookups = min(maker.option.packets, maker.option.lookups)
    # Half of the openers match a rule of any group, and mostly no rule of the instance's own group.
    headers = header_rows(draw_flows(policy, lookups, foreign=0.5, seed=maker.option.seed))
    classifier = Engine(policy).compiled.classifier
    scanner = loops.scanner(policy, FIRST_INSTANCE[4])
    winners = np.empty((lookups, 2), dtype=np.int32)
    scanned = np.empty(lookups, dtype=np.int32)
    yardsticks = {"scan": Yardstick("C, rules one by one", lookups, timed(lambda: scanner.match(headers, scanned)))}
    with ExitStack() as stack:
        if dpdk is not None:
            try:
                acl = stack.enter_context(dpdk.classifier(policy, headers))
            except Missing as error:
                results.missing["rte_acl"] = str(error)
            else:
                scanner.match(headers, scanned)
                yardsticks |= {variant: rte_acl(acl, variant, scanned) for variant in acl.variants}
        measure(
            section, title, timed(lambda: classifier.match(headers, winners)), x=x, items=lookups,
            yardsticks=yardsticks,
        )  # fmt: skip
    matched = float((scanned >= 0).mean())
    assert (winners[:, 0] == -2).all()  # the clients are outside
    assert (winners[:, 1] == scanned).all()
    assert 0.5 <= matched < 1
    return matched


def rte_acl(acl: Classifier, variant: str, expected: NDArray[np.int32]) -> Yardstick:
    def run() -> float:
        seconds = acl.match(variant)
        assert (acl.winners() == expected).all()
        return seconds

    return Yardstick("DPDK rte_acl", len(expected), run, variant_of="rte_acl")
