"""The rules that a policy lacks for given connections: only those, and never against a deny rule (SPEC 10.15)."""

from __future__ import annotations

from ipaddress import ip_address

from sgfast.clouds.loading import parse_policy
from sgfast.policy.matching import Kind
from sgfast.policy.model import Policy
from sgfast.policy.rule_text import rule_text
from sgfast.questions.suggesting.missing import DENY_RULE, NOT_PEERED, NOTHING_MISSING, Missing, missing_rules
from sgfast.questions.suggesting.observing import TrafficTotals

TODAY = """
version: 1
vpcs: [{name: one}, {name: two}]
security_groups:
  - name: web
    rules:
      - {id: web/inbound/2, direction: inbound, protocol: tcp, ports: 22, source: 192.0.2.0/24}
      - {direction: outbound, protocol: tcp, ports: 5432, destination: db}
      - {id: shut, direction: inbound, protocol: tcp, ports: 23, action: deny, priority: 7}
      - {direction: inbound, protocol: icmp, icmp_type: 3, icmp_code: 4}
  - {name: db, rules: [{direction: inbound, protocol: tcp, ports: 1-1024, source: web}]}
instances:
  - {name: web-1, vpc: one, addresses: [10.0.0.1], security_groups: [web]}
  - {name: web-2, vpc: one, addresses: [10.0.0.2], security_groups: [web]}
  - {name: db-1, vpc: one, addresses: [10.0.1.1], security_groups: [db]}
  - {name: far, vpc: two, addresses: [10.9.0.1], security_groups: [web]}
"""


def kind(policy: Policy, initiator: str, responder: str, port: int, protocol: int = 6, code: int | None = None) -> Kind:
    owner = {str(each.addresses[0].network_address): each.name for each in policy.instances}
    ends = (ip_address(end).packed for end in (initiator, responder))
    return Kind(*ends, owner.get(initiator), owner.get(responder), protocol, port, code=code)


def missing(*wanted: tuple[object, ...]) -> tuple[Missing, list[tuple[str, str]]]:
    policy = parse_policy(TODAY)
    found = missing_rules(policy, {kind(policy, *each): TrafficTotals(2) for each in wanted})  # type: ignore[arg-type]
    assert all(each.rule.priority == 7 for each in found.rules)
    return found, [(each.rule.id, rule_text(each.rule)) for each in found.rules]


def test_only_the_end_without_a_matching_rule_gets_one_and_ids_are_new() -> None:
    _, rules = missing(("10.0.0.1", "10.0.1.1", 5432))
    assert rules == [("db/inbound/2", "tcp/5432 from group web, IPv4")]
    _, rules = missing(("10.0.0.1", "10.0.1.1", 22))
    assert rules == [("web/outbound/2", "tcp/22 to group db, IPv4")]
    _, rules = missing(("10.0.0.1", "10.0.0.2", 80), ("198.51.100.1", "10.0.0.2", 443))
    assert rules == [
        ("web/inbound/4", "tcp/80 from group web, IPv4"), ("web/inbound/5", "tcp/443 from 198.51.100.1/32"),
        ("web/outbound/2", "tcp/80 to group web, IPv4"),
    ]  # fmt: skip


def test_what_no_rule_mends_is_left_out_with_its_reason() -> None:
    found, rules = missing(
        ("198.51.100.1", "10.0.0.1", 23), ("10.0.0.1", "10.9.0.1", 80), ("192.0.2.1", "10.0.0.1", 22),
        ("198.51.100.1", "10.0.0.1", 3, 1, 4),
    )  # fmt: skip
    assert rules == []
    assert {reason: len(kinds) for reason, kinds in found.left_out.items()} == {
        DENY_RULE: 1, NOT_PEERED: 1, NOTHING_MISSING: 2,
    }  # fmt: skip


def test_icmp_of_another_code_lacks_a_rule() -> None:
    _, rules = missing(("198.51.100.1", "10.0.0.1", 3, 1, 0))
    assert rules == [("web/inbound/4", "icmp type 3 from 198.51.100.1/32")]
