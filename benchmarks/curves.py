"""Growth curves.

They show how the time for a packet grows with flows, rules, members of a source group and bytes of a frame, and how
the time to compile a policy grows with rules and members. ``pytest benchmarks`` skips this file, so name it:

    pytest benchmarks/curves.py --results benchmarks          writes CURVES.md, curves.json and, with matplotlib, plots
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick, timed
from test_classify import match
from test_compile import compose
from test_replay import SETTINGS, check, count, walk
from workload import Workload, policy_text
from yardsticks import Loops
from yardsticks.dpdk import Dpdk

from sgfast import Policy, ReplayResult, replay
from sgfast.rules.compiler import CompiledPolicy, compile_policy

FLOWS = (100, 1_000, 10_000, 100_000, 1_000_000, 5_000_000)
#: Numbers of rules, and the number of groups that contain them. The largest exceed the quota, which documents may
#: raise.
RULES, GROUPS = (50, 100, 500, 1_000, 5_000, 20_000), 10
MEMBERS = (10, 100, 1_000, 10_000)
#: Bytes of Ethernet frames, without the frame check sequence.
FRAMES = (64, 128, 256, 512, 1_024, 1_514)

#: A workload with packets of known connections, and one in which each packet opens a connection.
CONNECTIONS = Workload("connections", "10,000 flows", 10_000, scale=0.2)
OPENERS = Workload("openers", "each packet opens a connection", 0, traffic="openers", scale=0.1)
BOTH = [pytest.param(CONNECTIONS, id="connections"), pytest.param(OPENERS, id="openers")]


class Curves:
    """The fixtures that all curves use for measuring."""

    def __init__(self, maker: Maker, loops: Loops, measure: Measure) -> None:
        self.maker, self.loops, self.measure = maker, loops, measure

    def replay(self, title: str, axis: str, x: int | None, workload: Workload, policy: Policy) -> None:
        """Measure a point of a replay curve. ``x`` is its position; None: the number of flows in the capture."""
        packets = workload.packets_of(self.maker.option.packets)
        judged: list[ReplayResult] = []
        with self.maker.capture(workload, policy, packets) as capture:
            x = capture.flows if x is None else x
            loops = {"walk": Yardstick("C, headers only", packets, timed(lambda: walk(self.loops, capture)))}
            if workload.traffic != "openers":
                table = timed(lambda: count(self.loops, capture))
                loops["hash"] = Yardstick("C, bare flow table", packets, table)

            def run() -> float:
                judged.append(replay(policy, [capture.path], **SETTINGS["verbatim"][0]))
                return judged[-1].elapsed_seconds

            self.measure(
                Section(f"{title}, by {axis}", "packet", axis=axis), f"{x:,} {axis}", run, x=x, items=packets,
                yardsticks=loops,
            )  # fmt: skip
        for result in judged:
            check(result, capture)

    def compile(self, axis: str, x: int, policy: Policy) -> None:
        text = policy_text(policy).encode()
        made: list[CompiledPolicy] = []
        self.measure(
            Section(f"compiling, by {axis}", "run", "ms", axis=axis), f"{x:,} {axis}",
            timed(lambda: made.append(compile_policy(policy))), x=x, items=1,
            yardsticks={"compose": Yardstick("PyYAML, nodes only", 1, timed(lambda: compose(text)))},
        )  # fmt: skip
        assert len(made[-1].instances) == self.maker.option.instances


@pytest.fixture
def curves(maker: Maker, loops: Loops, measure: Measure) -> Curves:
    return Curves(maker, loops, measure)


@pytest.mark.parametrize("flows", FLOWS)
def test_flows(flows: int, curves: Curves) -> None:
    """Measure by the number of flows. Above a million flows, the number of packets per flow stays the same."""
    workload = Workload("flows", "", flows, scale=max(1, flows / 1_000_000))
    curves.replay("a packet of a connection", "flows", None, workload, curves.maker.policy_for(workload))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("workload", BOTH)
def test_rules(workload: Workload, rules: int, curves: Curves) -> None:
    policy = curves.maker.policy_for(workload, rules, GROUPS)
    curves.replay(f"{workload.title}, {GROUPS} groups", "rules", rules, workload, policy)


@pytest.mark.parametrize("rules", RULES)
def test_rules_of_the_stateless_match(rules: int, curves: Curves, dpdk: Dpdk | None, results: Results) -> None:
    section = Section(f"stateless match, {GROUPS} groups, by rules", "lookup", axis="rules")
    match(
        curves.measure, curves.maker.policy(rules, GROUPS), section, f"{rules:,} rules", curves.maker, curves.loops,
        dpdk, results, x=rules,
    )  # fmt: skip


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("workload", BOTH)
def test_members(workload: Workload, members: int, curves: Curves) -> None:
    kind = replace(workload, two_sides=True, members=members)
    members_drawn = min(members, curves.maker.option.instances)
    curves.replay(f"{kind.title}, both ends instances", "members", members_drawn, kind, curves.maker.policy_for(kind))


@pytest.mark.parametrize("size", FRAMES)
def test_frames(size: int, curves: Curves) -> None:
    workload = Workload("frames", "", 10_000, sizes=((size, 1.0),), scale=0.1)
    curves.replay("10,000 flows", "bytes of a frame", size, workload, curves.maker.policy_for(workload))


@pytest.mark.parametrize("rules", RULES)
def test_compiling_rules(rules: int, curves: Curves) -> None:
    curves.compile("rules", rules, curves.maker.policy(rules, GROUPS))


@pytest.mark.parametrize("members", MEMBERS)
def test_compiling_members(members: int, curves: Curves) -> None:
    members_drawn = min(members, curves.maker.option.instances)
    curves.compile("members", members_drawn, curves.maker.policy(members=members))
