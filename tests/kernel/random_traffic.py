"""Engine = kernel on random policies and traffic.

As a program, as root: ``PYTHONPATH=tests/support python tests/kernel/random_traffic.py PACKETS [SEED]``; with
``PACKETS SEED changing`` the policies change while the traffic flows.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from comparing import RAW, Comparison
from conversations import Conversations, Step
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from long_run import long_run
from oracle import Kernel, missing
from policy_changes import Changer
from traffic import policies

from sgfast.policy.model import Policy, Settings
from sgfast.reference.packets import Packet, parse_frame

PER_POLICY = 5000
#: Settings ``on_change`` (SPEC 6.7).
ON_CHANGE: tuple[Any, ...] = ("cut-inbound", "cut-unmatched", "cut-inbound", "forget-unmatched", "keep")


def random_traffic(
    packets: int, seed_value: int, silence_every: int = 400, *, per_policy: int = PER_POLICY, changing: bool = False,
    stateless: bool = False, kernel: type[Kernel] = Kernel, comparison: type[Comparison] = Comparison,
    changer: type[Changer] = Changer,
) -> tuple[Counter[Hashable], Counter[str]]:
    """Compares about ``packets`` packets. Returns what was seen, and how many packets each difference excused.

    ``changing``: between two silences the policy changes. ``stateless``: all groups are, not none. Then no packet
    contradicts itself (SPEC 3.4): to the kernel that is connection tracking's business, which nothing asks.
    """
    seen: Counter[Hashable] = Counter()
    hits: Counter[str] = Counter()

    @seed(seed_value)
    @settings(
        max_examples=max(1, packets // per_policy), database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(policies(), st.integers(0, 2**32 - 1))
    def run(drawn: Policy, case_seed: int) -> None:
        # Timeouts are the kernel's to measure, and its table has no limit worth reaching.
        on_change = ON_CHANGE[case_seed % len(ON_CHANGE)]
        groups = tuple(replace(group, stateful=not stateless) for group in drawn.security_groups)
        by_kernel = Settings(drawn.settings.profile, infrastructure="filtered", on_change=on_change)
        policy = replace(drawn, security_groups=groups, settings=by_kernel)
        compared = comparison(policy)
        rng = np.random.default_rng(case_seed)
        turning = changer(rng) if changing else None
        steps = list(Conversations(policy, rng).steps(per_policy, silence_every, turning))
        if stateless:
            steps = [step for step in steps if not isinstance(step, Step) or _is_sound(step.packet)]
        with kernel(policy) as judge:
            compared.run(steps, judge)
            seen["refreshed though cut"] += judge.refreshed
        if changing:
            seen[on_change, "policies"] += 1
            seen[on_change, "disconnected"] += compared.seen["disconnected"]
        seen["packets"] += compared.packets
        seen["policies"] += 1
        seen.update(compared.seen)
        hits.update(compared.hits)

    run()
    return seen, hits


def _is_sound(frame: bytes) -> bool:
    packet = parse_frame(frame, len(frame), RAW)
    return isinstance(packet, Packet) and packet.problem is None


def main() -> None:
    changing = "changing" in sys.argv
    every = 500 if changing else 1000
    long_run(
        "random_traffic.py", missing(),
        lambda left, seed, _: random_traffic(min(left, 500_000), seed, every, changing=changing),
    )  # fmt: skip


if __name__ == "__main__":
    main()
