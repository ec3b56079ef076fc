"""Stateless matching with ClassBench's rules, translated to security groups (``classbench``)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classbench import FOLDER, NAMES, draw_headers, read
from conftest import Maker
from measure import Results, Section, Yardstick, clock, timed
from test_classify import rte_acl
from yardsticks import Loops, Missing
from yardsticks.dpdk import Dpdk

from sgfast import Engine

#: The scan gets fewer rows, because it needs microseconds for each to go through all rules.
SCANNED = 10_000


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("name", NAMES)
def test_classbench(
    benchmark: Any,
    name: str,
    maker: Maker,
    loops: Loops,
    dpdk: Dpdk | None,
    corpus: Path,
    results: Results,
    rounds: int,
) -> None:
    path = corpus / FOLDER / name
    if not path.exists():
        results.missing[f"ClassBench {name}"] = f"no {FOLDER / name} in the corpus (--corpus, SGFAST_CORPUS)"
        pytest.skip(f"{path} does not exist: set SGFAST_CORPUS or --corpus")
    rule_set = read(path)
    policy, rules = rule_set.policy, rule_set.rules
    lookups = min(maker.option.packets, maker.option.lookups)
    headers = draw_headers(rule_set, lookups, seed=maker.option.seed)
    classifier = Engine(policy).compiled.classifier
    winners = np.empty((lookups, 2), dtype=np.int32)
    few = headers[:SCANNED]
    scanned = np.empty(len(few), dtype=np.int32)
    loops.first_match(few, rules, scanned)
    classifier.match(headers, winners)
    assert (winners[: len(few), 1] == scanned).all()
    expected = winners[:, 1].copy()
    assert (expected >= -1).all()  # all go to instances
    scan = timed(lambda: loops.first_match(few, rules, scanned))
    yardsticks = {"scan": Yardstick("C, rules one by one", len(few), scan)}
    with ExitStack() as stack:
        if dpdk is not None:
            try:
                acl = stack.enter_context(dpdk.prefix_classifier(rules, headers))
            except Missing as error:
                results.missing["rte_acl"] = str(error)
            else:
                yardsticks |= {variant: rte_acl(acl, variant, expected) for variant in acl.variants}
        title = f"stateless match, ClassBench {name}: {len(rules):,} rules, {len(policy.instances):,} instances"
        results.measure(
            benchmark,
            Section(title, "lookup"),
            "Classifier.match",
            timed(lambda: classifier.match(headers, winners)),
            items=lookups,
            yardsticks=yardsticks,
            rounds=rounds,
        )
    assert (winners[:, 1] == expected).all()
    matched = float((expected >= 0).mean())
    assert 0.45 <= matched <= 1
    results.notes[f"ClassBench {name}"] = rule_set.note()
    benchmark.extra_info.update(rules=len(rules), matched=matched, left_out=dict(rule_set.left_out))
