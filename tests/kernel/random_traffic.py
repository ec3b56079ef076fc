"""Engine = kernel on random policies and traffic.

As a program: ``python tests/kernel/random_traffic.py PACKETS [SEED]``, as root.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace

import numpy as np
from comparing import Comparison
from conversations import Conversations
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from oracle import Kernel, missing
from traffic import policies

from sgfast.policy.model import Policy, Settings

PER_POLICY = 5000


def random_traffic(
    packets: int, seed_value: int, silence_every: int = 400
) -> tuple[Counter[Hashable], Counter[str]]:
    """Compares about ``packets`` packets. Returns what was seen, and how many packets each difference excused."""
    seen: Counter[Hashable] = Counter()
    hits: Counter[str] = Counter()

    @seed(seed_value)
    @settings(
        max_examples=max(1, packets // PER_POLICY), database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(policies(), st.integers(0, 2**32 - 1))
    def run(drawn: Policy, case_seed: int) -> None:
        # Timeouts are the kernel's to measure, and its table has no limit worth reaching.
        policy = replace(drawn, settings=Settings(infrastructure="filtered"))
        comparison = Comparison(policy)
        steps = list(Conversations(policy, np.random.default_rng(case_seed)).steps(PER_POLICY, silence_every))
        with Kernel(policy) as kernel:
            comparison.run(steps, kernel)
        seen["packets"] += comparison.packets
        seen["policies"] += 1
        seen.update(comparison.seen)
        hits.update(comparison.hits)

    run()
    return seen, hits


def main() -> None:
    reason = missing()
    if reason is not None:
        sys.exit(f"random_traffic.py: {reason}")
    total = int(sys.argv[1])
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    seen: Counter[Hashable] = Counter()
    hits: Counter[str] = Counter()
    began, step = time.time(), 0
    while seen["packets"] < total:
        more, excused = random_traffic(min(total, 500_000), first_seed + step, silence_every=1000)
        seen += more
        hits += excused
        step += 1
        print(
            f"seed {first_seed}+{step}: {seen['packets']:,} packets, {seen['policies']} policies, "
            f"{time.time() - began:.0f} s; excused {sum(hits.values())}: {dict(hits)}", flush=True,
        )  # fmt: skip
    for what, number in seen.most_common():
        print(f"{number:12,}  {what}")


if __name__ == "__main__":
    main()
