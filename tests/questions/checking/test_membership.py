"""``SG016``: prefixes that make other instances members of a group; and members by address in the other findings (SPEC
4.14, 10.12).
"""

from __future__ import annotations

import pytest

from sgfast.clouds.loading import parse_policy
from sgfast.questions.checking import Finding, check_policy, membership

# Rules name g and own, but not unnamed.
POLICY = """
version: 1
settings: {group_members: by-address}
vpcs: [{name: v}, {name: w}]
security_groups:
  - {name: g, rules: []}
  - {name: unnamed, rules: []}
  - name: own
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: g}
      - {direction: inbound, protocol: tcp, ports: 81, source: own}
instances:
  - {name: router, vpc: v, addresses: [ADDRESSES], security_groups: [GROUPS]}
  - {name: in-both, vpc: v, addresses: [10.0.0.1], security_groups: [g, own]}
  - {name: in-own, vpc: v, addresses: [10.0.0.2, "2001:db8::2"], security_groups: [own]}
  - {name: subnet, vpc: v, addresses: [10.1.0.0/24], security_groups: [unnamed]}
  - {name: elsewhere, vpc: w, addresses: [10.0.0.3], security_groups: [own]}
"""


def found(addresses: str, groups: str, text: str = POLICY) -> list[Finding]:
    policy = parse_policy(text.replace("ADDRESSES", addresses).replace("GROUPS", groups))
    return [finding for finding in check_policy(policy).findings if finding.code == "SG016"]


def test_a_prefix_that_makes_members_of_a_named_group_is_told_with_those_that_are_not_in_it() -> None:
    (told,) = found("10.0.0.0/8", "g")
    assert (told.instances, told.instance_count, told.severity) == (("router",), 1, "warning")
    assert told.message == (
        "its prefix 10.0.0.0/8 contains addresses of 2 other instances (in-own and subnet), so rules that name g match "
        "them, too"
    )
    (told,) = found('10.0.0.0/24, "2001:db8::/64"', "own, g")[1:]
    assert told.message == (
        "its prefix 2001:db8::/64 contains addresses of 1 other instance (in-own), so rules that name g match it, too"
    )


@pytest.mark.parametrize(
    ("addresses", "groups", "text"),
    [
        ("10.0.0.0/8", "unnamed", POLICY),                                              # no rule names the group
        ("10.0.0.0/31, 10.0.0.4/30, 10.1.0.0/25", "g", POLICY),                         # who is in it is in g already
        ("10.0.0.0/8", "g", POLICY.replace("by-address", "by-owner")),
        ("10.0.0.0/8", "g", POLICY.replace("settings: {group_members: by-address}", "settings: {profile: aws}")),
    ],
)  # fmt: skip
def test_prefixes_that_make_nobody_a_member_are_no_finding(addresses: str, groups: str, text: str) -> None:
    assert found(addresses, groups, text) == []


def test_the_profile_neutron_has_the_finding() -> None:
    assert found("10.0.0.0/8", "g", POLICY.replace("group_members: by-address", "profile: neutron"))


def test_what_takes_too_long_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = parse_policy(POLICY.replace("ADDRESSES", "10.0.0.0/8").replace("GROUPS", "g"))
    left_out = []
    for most in (2, 3):
        monkeypatch.setattr(membership, "MAX_PAIRS", most)
        left_out.append(check_policy(policy).left_out)
    assert left_out == [("1 prefixes were not checked for wider ones of other instances.",), ()]


def test_members_that_reach_each_other_only_by_a_prefix_are_not_separated() -> None:
    """``SG010``: web lets in g, and what lies in g's prefix is in g."""
    text = """
version: 1
settings: {group_members: BY}
security_groups:
  - {name: g, rules: []}
  - {name: web, rules: [{direction: inbound, protocol: tcp, source: g}]}
instances:
  - {name: a, addresses: [10.0.0.1], security_groups: [web]}
  - {name: b, addresses: [10.0.0.2], security_groups: [web]}
  - {name: router, addresses: [10.0.0.0/24], security_groups: [g]}
"""
    codes = {
        by: {finding.code for finding in check_policy(parse_policy(text.replace("BY", by))).findings}
        for by in ("by-owner", "by-address")
    }
    assert "SG010" in codes["by-owner"] and "SG010" not in codes["by-address"]
