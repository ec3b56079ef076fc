"""Benchmarks of stateless matching with ClassBench's rules, translated to security groups (``classbench``)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classbench import FOLDER, NAMES, draw_headers, read
from conftest import Maker, Measure
from measure import Results, Section, Yardstick, timed
from test_classify import rte_acl
from yardsticks import Loops, Missing
from yardsticks.dpdk import Dpdk

from sgfast import Engine

#: The maximum number of comparisons of a row with a rule in the scan. With more rules it gets fewer rows.
SCANNED = 100_000_000
#: Rule sets with the number of their copies. ClassBench's largest sets have 10,000 rules, so larger ones are copies.
COPIES = [(name, 1) for name in NAMES] + [(name, 10) for name in NAMES if name.endswith("_10k")]


@pytest.mark.parametrize(("name", "copies"), COPIES, ids=[f"{name}-{copies}" for name, copies in COPIES])
def test_classbench(
    benchmark: Any, name: str, copies: int, maker: Maker, loops: Loops, dpdk: Dpdk | None, corpus: Path,
    results: Results, measure: Measure,
) -> None:  # fmt: skip
    path = corpus / FOLDER / name
    called = f"ClassBench {name}" if copies == 1 else f"ClassBench {name}, {copies} times"
    if not path.exists():
        results.missing[called] = f"no {FOLDER / name} in the corpus (--corpus, SGFAST_CORPUS)"
        pytest.skip(f"{path} does not exist: set SGFAST_CORPUS or --corpus")
    rule_set = read(path, copies)
    policy, rules = rule_set.policy, rule_set.rules
    lookups = min(maker.option.packets, maker.option.lookups)
    headers = draw_headers(rule_set, lookups, seed=maker.option.seed)
    began = time.perf_counter()
    classifier = Engine(policy).compiled.classifier
    compiled = f"compiled in {time.perf_counter() - began:.1f} s to {classifier.nbytes / 1e6:,.0f} MB"
    winners = np.empty((lookups, 2), dtype=np.int32)
    few = headers[: max(SCANNED // len(rules), 1)]
    scanned = np.empty(len(few), dtype=np.int32)
    loops.first_match(few, rules, scanned)
    classifier.match(headers, winners)
    assert (winners[: len(few), 1] == scanned).all()
    expected = winners[:, 1].copy()
    assert (expected >= -1).all()  # all destinations are instances
    scan = timed(lambda: loops.first_match(few, rules, scanned))
    yardsticks = {"scan": Yardstick("C, rules one by one", len(few), scan)}
    with ExitStack() as stack:
        if dpdk is not None:
            began = time.perf_counter()
            try:
                acl = stack.enter_context(dpdk.prefix_classifier(rules, headers))
                compiled += f", rte_acl's in {time.perf_counter() - began:.1f} s"
            except Missing as error:
                results.missing["rte_acl"] = str(error)
            else:
                yardsticks |= {variant: rte_acl(acl, variant, expected) for variant in acl.variants}
        title = f"stateless match, {called}: {len(rules):,} rules, {len(policy.instances):,} instances"
        measure(
            Section(title, "lookup"), "Classifier.match", timed(lambda: classifier.match(headers, winners)),
            items=lookups, yardsticks=yardsticks,
        )  # fmt: skip
    assert (winners[:, 1] == expected).all()
    matched = float((expected >= 0).mean())
    assert 0.45 <= matched <= 1
    results.notes[called] = f"{rule_set.note()}; {compiled}"
    benchmark.extra_info.update(rules=len(rules), matched=matched, left_out=dict(rule_set.left_out))
