"""The log of random traffic never disagrees with the policy that it was judged by; with another policy it does
(SPEC 10.16).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from effort import some
from flow_logs import assert_adds_up, log_of, without
from traffic import Crowd, as_capture, drawn

from sgfast.engine import MODES
from sgfast.flow_logs import check_logs
from sgfast.policy.model import Policy
from sgfast.report.flow_log_lines import FORMATS

#: What no cloud does is left out: to allow packets of unknown connections at any time (``--midstream allow``).
MIDSTREAMS = ("infer", "deny")


def opened(policy: Policy) -> Policy:
    """What deny rules denied is allowed."""
    groups = [
        replace(group, rules=tuple(replace(rule, action="allow") for rule in group.rules))
        for group in policy.security_groups
    ]
    return replace(policy, security_groups=tuple(groups))


def test_no_record_disagrees_with_the_policy_that_made_it(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @drawn(20261127, some(4, 200))
    def check(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        capture = as_capture(tmp_path, Crowd(policy, rng, fragments=True).draw(1000))
        for mode in MODES:
            for midstream in MIDSTREAMS:
                form, interval = FORMATS[rng.integers(2)], (1, 60, 600)[rng.integers(3)]
                path, connections = log_of(
                    policy, capture, tmp_path / "flow.log", form, interval, mode=mode, midstream=midstream
                )

                same = check_logs(policy, [str(path)])
                assert_adds_up(same)
                assert same.disagreements == [], f"{mode}, midstream {midstream}, {form}, every {interval} s"
                seen["records"] += same.records
                seen["undecided"] += same.undecided.total()
                used = {side["rule"] for c in connections for side in (c["egress"], c["ingress"]) if side}
                rules = [rule for group in policy.security_groups for rule in group.rules if rule.id in used]
                if rules:
                    gone = rules[rng.integers(len(rules))]
                    seen["rules removed"] += 1
                    seen["removals found"] += check_logs(without(policy, gone), [str(path)]).disagreeing > 0
                seen["openings found"] += check_logs(opened(policy), [str(path)]).disagreeing > 0

    check()
    print(seen)
    assert seen["records"] > some(4500, 200_000)
    assert seen["undecided"] < seen["records"] * 0.09
    # The other removed rules were not needed, as another rule allows the same.
    assert seen["removals found"] > seen["rules removed"] / 2
    assert seen["openings found"] > some(3, 40)
