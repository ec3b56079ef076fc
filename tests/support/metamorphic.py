"""Random runs with policy changes, for tests that compare such runs with each other.

Hypothesis draws policies and a seed for traffic and changes; every run draws the same, and failures are printed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import numpy as np
from differential import spell
from effort import some
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from traffic import Crowd, Traffic, policies

from sgfast.engine import MIDSTREAMS, MODES, Engine, FrameBatch
from sgfast.policy.model import Policy, Timeouts
from sgfast.reference.flows import Flow, flow_of, quoted_flow
from sgfast.reference.packets import parse_frame

SEED = int(os.environ.get("SGFAST_METAMORPHIC_SEED", "2024"))
#: A factor on the number of policies that are drawn.
EFFORT = float(os.environ.get("SGFAST_METAMORPHIC_EFFORT") or some(0.4, 1))

#: An address that no packet uses and no prefix contains.
ELSEWHERE = ip_network("192.168.77.7/32")
#: Reasons of denials that come before section 4 applies (SPEC 3.4, 3.6).
BEFORE_SECTION_4 = ("malformed", "truncated", "fragment", "vpc-isolated")

Spelled = tuple[Any, ...]
Sides = dict[Hashable, dict[str, int]]


def drawn(number: int, rounds: int, test: Callable[[Policy, np.random.Generator], None]) -> None:
    """Run ``test`` for this many policies, this many times each."""
    print(f"seed {SEED}")

    @seed(SEED)
    @settings(
        max_examples=max(1, round(number * EFFORT)), database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(policies(), st.integers(0, 2**32 - 1))
    def run(policy: Policy, case_seed: int) -> None:
        for n in range(rounds):
            try:
                test(policy, np.random.default_rng((case_seed, n)))
            except AssertionError as error:
                raise AssertionError(f"SGFAST_METAMORPHIC_SEED={SEED}, case {case_seed}, {n}: {error}") from error

    run()


def assert_at_least(minimum: dict[Any, int], seen: Counter[Any]) -> None:
    """Counts events that must occur, or the comparison proves little."""
    assert {what: seen[what] for what, least in minimum.items() if seen[what] < round(least * min(EFFORT, 1))} == {}


class Pace(Crowd):
    """Traffic whose clock never goes back, so that a part of it is judged at its own times."""

    def _jitter(self) -> int:
        return 0


def with_settings(policy: Policy, rng: np.random.Generator, on_change: Any = "cut-inbound", **more: Any) -> Policy:
    """Half of the policies use the default timeouts; shorter ones would leave little to cut."""
    timeouts = policy.settings.timeouts if rng.integers(2) else Timeouts()
    return replace(policy, settings=replace(policy.settings, on_change=on_change, timeouts=timeouts, **more))


def roomy(policy: Policy, rng: np.random.Generator, on_change: Any = "cut-inbound") -> Policy:
    """Keys are independent of each other as long as the table has room for all of them (SPEC 5.8)."""
    return with_settings(policy, rng, on_change, max_connections=1_000_000)


def without_codes(policy: Policy) -> Policy:
    """The table does not store the code of a query and asks the current rules for code 0. A query allowed with another
    code may therefore be cut by any change under cut-unmatched.
    """
    return replace(policy, security_groups=tuple(
        replace(group, rules=tuple(replace(rule, icmp_code=None) for rule in group.rules))
        for group in policy.security_groups
    ))  # fmt: skip


def way(rng: np.random.Generator, *, midstreams: Sequence[Any] = MIDSTREAMS, vpcs: Any = (None, None, "red")) -> Any:
    return {
        "mode": MODES[rng.integers(len(MODES))], "midstream": midstreams[rng.integers(len(midstreams))],
        "vpc": vpcs[rng.integers(len(vpcs))],
    }  # fmt: skip


def batch_of(traffic: Traffic, part: slice) -> FrameBatch:
    return FrameBatch.from_frames(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part])


def judge(engine: Engine, traffic: Traffic, part: slice) -> list[Spelled]:
    return [spell(engine, row) for row in engine.process(batch_of(traffic, part))]


def keys_of(traffic: Traffic, start: int) -> list[tuple[Flow | None, bool]]:
    """From packet ``start`` on: the key each packet belongs to, and whether it only quotes the key."""
    keys: list[tuple[Flow | None, bool]] = []
    for frame, length in zip(traffic.frames[start:], traffic.wire_lengths[start:], strict=True):
        packet = parse_frame(frame, length, 1)
        if isinstance(packet, str) or packet.problem is not None:
            keys.append((None, False))
            continue
        flow = flow_of(packet)
        keys.append((flow, False) if flow else (quoted_flow(packet), True))
    return keys
