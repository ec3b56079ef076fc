"""The narrowest of several rules that let a packet through counts as used (SPEC 10.12), whatever their order is."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frames import ethernet, ip, tcp
from slow_diff import write_pcap
from traffic import Traffic

import sgfast
from sgfast.base import evidence

SECOND = 10**9
ALL_EVIDENCE = tuple(evidence.CODES)
NARROW = {"id": "narrow", "direction": "inbound", "protocol": "tcp", "ports": 5432, "source": "10.1.0.0/16"}
WIDE = {"id": "wide", "direction": "inbound", "protocol": "tcp", "ports": 5432, "source": "10.0.0.0/8"}
OUT = {"id": "out", "direction": "outbound", "protocol": "all"}
SEEDS = range(12)


def policy_of(*groups: list[dict[str, Any]]) -> sgfast.Policy:
    names = [f"g{n}" for n in range(len(groups))]
    return sgfast.load({
        "version": 1,
        "security_groups": [{"name": name, "rules": rules} for name, rules in zip(names, groups, strict=True)],
        "instances": [{"name": "db", "addresses": ["10.1.0.5"], "security_groups": names}],
    })  # fmt: skip


def captured(path: Path, openers: list[tuple[str, int]]) -> Path:
    """A capture of answered connections to ``db``."""
    frames = []
    for n, (client, port) in enumerate(openers):
        frames.append(ethernet(ip(client, "10.1.0.5", tcp(40000 + n, port, "S"))))
        frames.append(ethernet(ip("10.1.0.5", client, tcp(port, 40000 + n, "SA"))))
    return write_pcap(path, Traffic(frames, [n * SECOND // 1000 for n in range(len(frames))], [*map(len, frames)]))


def checked(policy: sgfast.Policy, capture: Path) -> sgfast.types.CheckResult:
    return policy.check(captures=capture, accept_evidence=ALL_EVIDENCE)


def used(policy: sgfast.Policy, capture: Path) -> dict[str, int]:
    return {use.rule.id: use.connections for use in checked(policy, capture).rule_uses}


def codes(found: sgfast.types.CheckResult) -> set[tuple[str, str | None]]:
    return {(each.code, each.rule) for each in found.findings if each.code in ("SG001", "SG002", "SG012")}


@pytest.mark.parametrize("order", [[NARROW, WIDE], [WIDE, NARROW]])
@pytest.mark.parametrize("is_one_group", [True, False])
def test_a_wide_rule_is_unused_where_a_narrow_one_would_do_whichever_was_written_first(
    order: list[dict[str, Any]], is_one_group: bool, tmp_path: Path
) -> None:
    policy = policy_of([*order, OUT]) if is_one_group else policy_of([order[0]], [order[1], OUT])
    capture = captured(tmp_path / "x.pcap", [("10.1.0.7", 5432), ("10.1.9.9", 5432)])
    found = checked(policy, capture)
    # ``narrow`` changes no verdict, but only because of ``wide``. Whoever removed both would break what works.
    assert codes(found) == {("SG012", "wide"), ("SG012", "out")}
    assert used(policy, capture) == {"narrow": 2}
    assert found.policy is policy and {each.rule.priority for each in found.rule_uses} == {1}
    removed = sgfast.suggest(capture, policy=policy, remove="1s", accept_evidence=ALL_EVIDENCE)
    assert [each.rule for each in removed.removed] == [
        rule for group in policy.security_groups for rule in group.rules if rule.id in ("wide", "out")
    ]
    # A client that only the wide rule lets in makes both of them used, and then ``narrow`` is not needed.
    capture = captured(tmp_path / "y.pcap", [("10.1.0.7", 5432), ("10.2.0.1", 5432)])
    assert used(policy, capture) == {"narrow": 1, "wide": 1}
    assert {rule for code, rule in codes(checked(policy, capture)) if code in ("SG001", "SG002")} == {"narrow"}


def test_priorities_decide_first_and_deny_rules_before_allow_rules(tmp_path: Path) -> None:
    policy = policy_of([NARROW | {"priority": 2}, WIDE, OUT])
    capture = captured(tmp_path / "x.pcap", [("10.1.0.7", 5432)])
    assert used(policy, capture) == {"wide": 1}
    denial = WIDE | {"id": "no", "action": "deny"}
    assert used(policy_of([NARROW, denial, OUT]), capture) == {"no": 1}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_order_of_rules_changes_what_counts_as_used_and_advice_can_be_followed(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    print("seed", seed)
    rules = []
    for n in range(10):
        # Odd numbers of ports make all rules differ in width, so that the order of the document never decides.
        low, length = int(rng.integers(1, 12)), int(rng.choice([8, 16, 17, 24, 27]))
        source = ip_network(f"10.{rng.integers(0, 3)}.0.0/{length}", strict=False)
        allowed = {"direction": "inbound", "protocol": "tcp", "ports": f"{low}-{low + 2 * n}", "source": str(source)}
        rules.append({"id": f"r{n}"} | allowed)
    openers = [
        (f"10.{rng.integers(0, 3)}.{rng.integers(0, 2)}.{rng.integers(1, 60)}", int(rng.integers(1, 32)))
        for _ in range(int(rng.integers(3, 40)))
    ]
    capture = captured(tmp_path / "x.pcap", sorted({*openers} - {("10.1.0.5", port) for port in range(70)}))
    policy = policy_of([*rules[:5], OUT], rules[5:])
    found, uses = checked(policy, capture), used(policy, capture)
    for _ in range(3):
        shuffled = [rules[n] for n in rng.permutation(len(rules))]
        assert used(policy_of(shuffled[:5], [*shuffled[5:], OUT]), capture) == uses
    before = policy.replay(capture).verdicts["allow"]
    unused = {each.rule for each in found.matching("SG012")}
    useless = [each.rule for code in ("SG001", "SG002") for each in found.matching(code)]
    for rule in (None, *useless):
        kept = [each for each in [*rules, OUT] if each["id"] not in {*unused, rule}]
        assert policy_of(kept).replay(capture).verdicts["allow"] == before, rule
