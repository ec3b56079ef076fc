"""The same rule in other words is no change, so it cuts nothing (SPEC 6.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scenario import run

import sgfast
from sgfast.base.errors import ArgumentError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.changed_policy import apply_change
from sgfast.policy.changes import AddRule, ModifyRule
from sgfast.policy.model import Rule

POLICY = """
security_groups:
  - name: w
    rules:
      - {id: r, direction: inbound, %s}
instances:
  - {name: web, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [w]}
"""

#: Rules that mean the same, and a packet that they allow.
SAME: dict[str, tuple[tuple[str, ...], str]] = {
    "all ports": (
        ("protocol: tcp", "protocol: tcp, ports: 0-65535", 'protocol: tcp, ports: "0-100,101-65535"',
         "protocol: tcp, ports: [101-65535, 0-100]", "protocol: 6, source: 0.0.0.0/0, priority: 1, action: allow"),
        "tcp client:999 > web:22",
    ),
    "one port": (
        ("protocol: tcp, ports: 22", "protocol: TCP, ports: 22-22", 'protocol: "6", ports: "22"',
         "protocol: tcp, ports: [22, 22]", "protocol: tcp, ports: 0x16"),
        "tcp client:999 > web:22",
    ),
    "a list": (
        ("protocol: udp, ports: [80, 443]", 'protocol: udp, ports: "443,80"', 'protocol: 17, ports: "80-80, 443-443"'),
        "udp client:999 > web:80",
    ),
    "ranges that touch": (
        ("protocol: udp, ports: 1-9", 'protocol: udp, ports: "5-9,1-4"', 'protocol: udp, ports: "1-6,3-9,2"'),
        "udp client:999 > web:5",
    ),
    "a peer": (
        ("protocol: udp, source: 203.0.113.9", "protocol: udp, source: {cidr: 203.0.113.9/32}, ethertype: IPv4"),
        "udp client:999 > web:5",
    ),
    "ICMP": (
        ("protocol: icmp, icmp_type: 8, icmp_code: 0", "protocol: 1, icmp_type: 0x8, icmp_code: 0, source: 0.0.0.0/0"),
        "ping client > web",
    ),
    "ICMPv6": (
        ("protocol: icmp, ethertype: IPv6", "protocol: icmpv6", "protocol: ipv6-icmp, source: '::/0'",
         "protocol: 58, ethertype: IPv6", "protocol: icmp, source: '::/0'"),
        "ping client > [2001:db8::5]",
    ),
}  # fmt: skip
PAIRS = [(name, *pair) for name, (rules, _) in SAME.items() for pair in permutations(rules, 2)]


def rule_of(text: str) -> Rule:
    return parse_policy("version: 1" + POLICY % text).security_groups[0].rules[0]


@pytest.mark.parametrize(("name", "before", "after"), PAIRS)
def test_to_write_a_rule_in_other_words_cuts_nothing(name: str, before: str, after: str) -> None:
    packet = SAME[name][1]
    run(POLICY % before, f"""
        @0 {packet}   -> allow rule r
        @1 apply same -> 0 disconnected
        @2 {packet}   -> allow
    """, changes={"same": ModifyRule("w", "r", rule_of(after))})  # fmt: skip


@pytest.mark.parametrize(("fields", "text"), [
    ({"ports": ((0, 65535),)}, "protocol: tcp"),
    ({"ports": ((0, 100), (101, 65535))}, "protocol: tcp"),
    ({"ports": ((1, 5), (6, 9))}, "protocol: tcp, ports: 1-9"),
    ({"ports": ((1, 5), (5, 9))}, "protocol: tcp, ports: 1-9"),
    ({"ports": ((1, 9), (2, 3), (4, 4), (8, 8))}, "protocol: tcp, ports: 1-9"),
    ({"ports": ((443, 443), (80, 80))}, 'protocol: tcp, ports: "80,443"'),
    ({"ports": ((np.int64(5), np.int64(6)), (np.int64(7), np.int64(7)))}, "protocol: tcp, ports: 5-7"),
    ({"peer": ip_network("0.0.0.0/0")}, "protocol: tcp"),
    ({"peer": ip_network("::/0"), "ethertype": 6}, "protocol: tcp, source: '::/0'"),
])  # fmt: skip
def test_a_rule_that_a_program_makes_is_the_rule_that_a_document_says(fields: dict[str, Any], text: str) -> None:
    usual: dict[str, Any] = {"ethertype": 4, "protocol": 6}
    made = Rule("r", "inbound", **(usual | fields))
    read = rule_of(text)
    assert made == read
    policy = parse_policy("version: 1" + POLICY % text)
    engine = sgfast.Engine(policy)
    applied = engine.apply(ModifyRule("w", "r", made), now_ns=0)
    assert applied.disconnected == 0
    assert apply_change(policy, ModifyRule("w", "r", replace(made, priority=2))).groups == {"w"}


@pytest.mark.parametrize("ports", [((9, 1),), ((1, 9), (5, 3)), (), ((-1, 2), (3, 4)), ((1, 70000), (2, 3))])
def test_what_is_no_range_stays_and_is_refused(ports: tuple[tuple[int, int], ...]) -> None:
    engine = sgfast.Engine(parse_policy("version: 1" + POLICY % "protocol: tcp"))
    with pytest.raises(ArgumentError, match=r"^changes\[0\].add_rule.rule.ports must be ranges from 0 to 65535"):
        engine.apply(AddRule("w", Rule("", "inbound", 4, 6, ports)), now_ns=0)


def test_a_change_file_that_says_the_same_changes_nothing() -> None:
    policy = parse_policy("version: 1" + POLICY % "protocol: tcp, ports: 0-65535")
    engine = sgfast.Engine(policy)
    for said in ({"ports": None}, {"ports": "0-65535"}, {"source": "0.0.0.0/0"}, {"protocol": "6"}):
        engine.apply({"modify_rule": {"group": "w", "rule": "r", "set": said}}, now_ns=0)
        assert engine.policy.security_groups == policy.security_groups, said
