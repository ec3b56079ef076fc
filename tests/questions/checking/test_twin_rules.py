"""A rule of AWS that the import made one rule for IPv4 and one for IPv6 is one rule to ``sgfast check`` (SPEC 2.16)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import corpus
import pytest
from aws_account import LB, LB_IPV4, LB_IPV6, NOBODY, WEB_IPV4, WEB_IPV6, account, permission
from command import handshake, write_capture
from effort import some
from exported import random_policy, seeds
from exports import policy_of

import sgfast
from sgfast import Policy
from sgfast.clouds.loading import load_policy
from sgfast.policy.model import ICMP, ICMPV6, GroupPeer, Rule, SecurityGroup
from sgfast.questions.checking import check_policy
from sgfast.rules.reaching.difference import difference

CIDR = permission(80, IpRanges=[{"CidrIp": "10.0.0.0/8"}])
CIDR6 = permission(80, Ipv6Ranges=[{"CidrIpv6": "2001:db8::/32"}])


def found(policy: Policy, *codes: str, captures: tuple[Path, ...] = ()) -> list[tuple[str, str | None, str]]:
    checked = sgfast.load(policy).check(captures=captures)
    return [(each.code, each.rule, each.message) for each in checked.findings if each.code in codes]


def test_no_finding_says_that_nobody_uses_a_rule_over_the_ip_version_that_the_account_does_not_have() -> None:
    policy = policy_of(account([permission(80, LB)], dual_stack=False))
    assert len(policy.group_by_name["web"].rules) == 2
    codes = ("SG001", "SG002", "SG003", "SG007", "SG013")
    assert found(policy, *codes) == []
    # In another cloud they are two rules, and the one for IPv6 matches nothing.
    other = replace(policy, settings=replace(policy.settings, profile="neutron"))
    assert [code for code, *_ in found(other, *codes)] == ["SG007", "SG007"]


def test_a_rule_for_a_group_without_members_is_one_finding() -> None:
    for dual_stack in (False, True):
        policy = policy_of(account([permission(80, NOBODY)], dual_stack=dual_stack))
        message = "tcp/80 from group nobody: no instance is in nobody"
        assert found(policy, "SG007") == [("SG007", "web/inbound/1", message)]
        assert "it: web/inbound/1" in found(policy, "SG005")[0][2]


@pytest.mark.parametrize(
    ("wider", "dual_stack", "is_redundant"), [([CIDR], False, True), ([CIDR], True, False), ([CIDR, CIDR6], True, True)]
)
def test_a_rule_is_redundant_once_and_only_if_it_is_over_both_ip_versions(
    wider: list[dict[str, Any]], dual_stack: bool, is_redundant: bool
) -> None:
    policy = policy_of(account([permission(80, LB), *wider], dual_stack=dual_stack))
    ids = [rule for code, rule, _ in found(policy, "SG001", "SG002", "SG003")]
    assert ids[:1] == (["web/inbound/1"] if is_redundant else [])
    texts = " ".join(message for *_, message in found(policy, "SG002", "SG003"))
    assert "IPv" not in texts and "web/inbound/2" not in texts


def test_a_rule_that_packets_used_over_one_ip_version_was_hit(tmp_path: Path) -> None:
    policy = policy_of(account([permission(80, LB), permission(81, LB)]))
    for client, server in ((LB_IPV4, WEB_IPV4), (LB_IPV6, WEB_IPV6)):
        capture = write_capture(tmp_path, *handshake(4000, 80, client, server))
        message = "tcp/81 from group lb: none of 3 packets used it"
        assert found(policy, "SG012", captures=(capture,)) == [("SG012", "web/inbound/3", message)]


def test_a_rule_much_wider_than_its_uses_over_both_ip_versions_is_one_finding(tmp_path: Path) -> None:
    wide = {**permission(1, LB), "ToPort": 60000}
    policy = policy_of(account([wide]))
    frames = [
        frame for port in range(4000, 4008) for client, server in ((LB_IPV4, WEB_IPV4), (LB_IPV6, WEB_IPV6))
        for frame in handshake(port, 80, client, server)
    ]  # fmt: skip
    message = "tcp/1-60000 from group lb: 16 connections used it, for which tcp/80 from group lb would do"
    capture = write_capture(tmp_path, *frames)
    assert found(policy, "SG015", captures=(capture,)) == [("SG015", "web/inbound/1", message)]


def test_twins_with_a_finding_can_be_taken_out_of_the_policy_and_nothing_changes() -> None:
    taken_out = 0
    for pick in seeds(some(40, 2000), 2016):
        policy = random_policy(pick)
        groups = tuple(replace(group, rules=with_twins(group.rules)) for group in policy.security_groups)
        policy = replace(policy, security_groups=groups, settings=replace(policy.settings, profile="aws"))
        for rule in [each.rule for each in check_policy(policy).findings if each.code in ("SG001", "SG002", "SG007")]:
            if rule in policy.twins:
                taken_out += 1
                rest = [without(group, rule or "", policy.twins[rule or ""].id) for group in groups]
                change = difference(policy, replace(policy, security_groups=tuple(rest)))
                assert not change.opened and not change.closed, rule
    assert taken_out


def with_twins(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules whose peer is no group, and the others for both IP versions, as an import has them."""
    made: list[Rule] = []
    for rule in rules:
        is_group = isinstance(rule.peer, GroupPeer) and rule.protocol not in (ICMP, ICMPV6)
        made += [replace(rule, ethertype=4), replace(rule, id=f"{rule.id}/2", ethertype=6)] if is_group else [rule]
    return tuple(made)


def without(group: SecurityGroup, *ids: str) -> SecurityGroup:
    return replace(group, rules=tuple(rule for rule in group.rules if rule.id not in ids))


@pytest.mark.skipif(not (corpus.ROOT / "rules").is_dir(), reason="needs the corpus")
def test_findings_about_accounts_of_others_never_name_one_twin_and_then_the_other() -> None:
    accounts = 0
    for path in sorted((corpus.ROOT / "rules").rglob("*.json")):
        try:
            policy = load_policy(str(path))
        except sgfast.SgfastError:
            continue
        if policy.twins:
            accounts += 1
            named = [(each.code, each.rule) for each in policy.check().findings if each.rule in policy.twins]
            assert not {(code, policy.twins[rule or ""].id) for code, rule in named} & {*named}, path
    assert accounts
