"""Either end may have opened a connection of a flow log: the policy is asked about both readings (SPEC 10.30)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import sgfast, valid
from flow_logs import BEFORE, FIELDS, NOON, flow

from sgfast import diff, replay, suggest
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Rule
from sgfast.questions.checking import check_policy
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.removal import unseen_rules
from sgfast.report.html.replay import html_report
from sgfast.traffic.flow_logs.log_records import LogRecords
from sgfast.traffic.flow_logs.unlogged import unseen_rule
from sgfast.traffic.flow_logs.unsure_openers import UnsureOpeners

#: 7777 tells nothing about who serves. web-1 is asked by the office, and asks nobody.
POLICY = """
version: 1
settings: {profile: aws, on_change: cut-unmatched}
security_groups:
  - name: web
    rules:
      - {id: admin, direction: inbound, protocol: tcp, ports: 7777, source: 192.0.2.0/24}
      - {id: https, direction: inbound, protocol: tcp, ports: 443}
  - name: gossip
    rules:
      - {id: in, direction: inbound, protocol: udp, ports: 7777, source: gossip}
      - {id: out, direction: outbound, protocol: all}
  - {name: closed, rules: []}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: g-1, addresses: [10.0.1.1], security_groups: [gossip]}
  - {name: g-2, addresses: [10.0.1.2], security_groups: [gossip]}
  - {name: x-1, addresses: [10.0.2.1], security_groups: [closed]}
"""
THERE, BACK = "192.0.2.9:45000 > 10.0.0.5:7777", "10.0.0.5:7777 > 192.0.2.9:45000"
#: Records of a sure connection, so that the log has both directions.
SURE = [flow(ends, protocol=6) for ends in ("192.0.2.7:50000 > 10.0.0.5:443", "10.0.0.5:443 > 192.0.2.7:50000")]


def written(folder: Path, *lines: str, name: str = "flows.log") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in (FIELDS, BEFORE.replace("eni-1", "eni-0"), *lines)))
    return path


def of_logs(folder: Path, *lines: str, policy: str = POLICY, **options: Any) -> ReplayResult:
    return replay(parse_policy(policy), written(folder, *SURE, *lines), **options)


def both(*ends: str, protocol: int = 6, at: int = 0, until: int = 30) -> list[str]:
    return [flow(each, at, until, protocol=protocol) for each in ends]


def test_a_verdict_that_depends_on_the_opener_is_in_no_list_but_cannot_tell(tmp_path: Path) -> None:
    result = of_logs(tmp_path, *both(THERE, BACK))
    assert result.records.undecided == {"readings-differ": 2}
    assert result.verdicts["allow"] == 4 and result.connections["denied"] == 0 and not result.broken
    assert [(each.code, each.level) for each in result.evidence.reasons] == [("unsure-openers", "partly")]
    answer = valid("summary", result.to_dict())
    (row,) = answer["cannot_tell"]
    assert (row["service"], row["connections"], row["packets"], row["reason"]) == ("tcp/7777", 1, 4, "readings-differ")
    likelier, other = row["readings"]
    assert (likelier["from"]["name"], likelier["to"]["name"], likelier["service"]) == ("192.0.2.9", "web-1", "tcp/7777")
    assert (likelier["verdict"], likelier["reason"], likelier["rule"]) == ("allow", "rule", "admin")
    assert (other["from"]["name"], other["to"]["name"], other["service"]) == ("web-1", "192.0.2.9", "tcp/45000")
    assert (other["verdict"], other["reason"], other["rule"]) == ("deny", "no-rule", None)
    assert "cannot tell who opened 1 connection" in str(result) and "If the other end did" in html_report(result)
    assert "nothing that was judged would break, cannot tell who opened 1 connection" in html_report(result)


def test_a_verdict_that_does_not_depend_on_the_opener_is_no_doubt(tmp_path: Path) -> None:
    gossip = both("10.0.1.1:7777 > 10.0.1.2:7777", "10.0.1.2:7777 > 10.0.1.1:7777", protocol=17)
    denied = both("192.0.2.9:45000 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:45000")
    result = of_logs(tmp_path, *gossip, *denied)
    assert result.evidence.conclusive == "yes" and result.records.unsure_connections == 2
    answer = result.to_dict()
    (row,) = answer["would_break"]
    assert (row["to"]["name"], row["opener"]) == ("x-1", "unknown")
    openers = {row["service"]: row.get("opener") for row in answer["allowed"]}
    assert openers == {"udp/7777": "unknown", "tcp/443": None}


def test_a_row_says_that_its_opener_is_unknown_only_if_no_connection_tells(tmp_path: Path) -> None:
    sure = both("192.0.2.9:50001 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:50001")
    sure = [line.replace(" ACCEPT - ", " ACCEPT 2 " if "50001 7777" in line else " ACCEPT 18 ") for line in sure]
    result = of_logs(tmp_path, *sure, *both("192.0.2.9:45000 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:45000"))
    (row,) = result.to_dict()["would_break"]
    assert row["connections"] == 2 and "opener" not in row


def test_attempts_of_a_connection_that_either_end_may_have_opened_are_all_of_an_unknown_opener(tmp_path: Path) -> None:
    """Denied packets that lie so far apart are two attempts, where allowed ones are one connection."""
    ends = ("192.0.2.9:7777 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:7777")
    result = of_logs(tmp_path, *(flow(each, *times) for each in ends for times in ((0, 5), (83, 581))))
    (row,) = result.to_dict()["would_break"]
    assert result.records.unsure_connections == 1 < row["connections"] and row["opener"] == "unknown"


def test_an_unanswered_connection_that_either_end_may_have_opened_is_no_doubt(tmp_path: Path) -> None:
    # A single small packet of TCP shows no answer.
    stray = flow("10.0.0.5:7777 > 192.0.2.9:7777", -700, protocol=6, packets=1, octets=40)
    result = of_logs(tmp_path, stray)
    assert result.records.undecided in ({}, {"readings-differ": 1})
    assert result.evidence.conclusive == "yes"


@pytest.mark.parametrize(("change", "differs"), [
    ("remove_rule: {group: gossip, rule: in}", False),
    ("modify_rule: {group: gossip, rule: in, set: {source: 10.0.1.1/32}}", True),
])  # fmt: skip
def test_a_change_that_cuts_one_reading_only_is_a_doubt(change: str, differs: bool, tmp_path: Path) -> None:
    ends = "10.0.1.1:7777 > 10.0.1.2:7777", "10.0.1.2:7777 > 10.0.1.1:7777"
    changes = tmp_path / "changes.yaml"
    at = f"2023-11-14T22:{13 + 22}:20Z"
    changes.write_text(f"changes:\n  - {{at: {at}, {change}}}\n")
    lines = [line for at in range(0, 2400, 60) for line in both(*ends, protocol=17, at=at, until=at + 59)]
    result = of_logs(tmp_path, *lines, *both("192.0.2.7:50001 > 10.0.0.5:443", at=2400, until=2430), changes=changes)
    assert NOON == 1_700_000_000 and len(result.changes) == 1
    assert bool(result.records.undecided) == differs, result.records
    assert (result.records.unsure_connections > 0) != differs


def test_in_a_comparison_a_reading_that_old_denies_did_not_happen(tmp_path: Path) -> None:
    old = parse_policy(POLICY)
    log = written(tmp_path, *SURE, *both(THERE, BACK))
    without = parse_policy(POLICY.replace("ports: 7777, source: 192.0.2.0/24", "ports: 7778"))
    found = diff(old, without, log)
    assert len(found.newly_denied) == 1 and found.evidence.conclusive == "yes"
    # NEW allows only the reading that did not happen.
    turned = POLICY.replace("ports: 7777, source: 192.0.2.0/24", "ports: 7778").replace(
        "- {id: https", "- {direction: outbound, protocol: all}\n      - {id: https"
    )
    found = diff(old, parse_policy(turned), log)
    assert len(found.newly_denied) == 1 and found.evidence.conclusive == "yes"
    # OLD allows both readings, and NEW one of them.
    both_ways = POLICY.replace("- {id: https", "- {direction: outbound, protocol: all}\n      - {id: https")
    found = diff(parse_policy(both_ways), without, log)
    assert len(found.newly_denied) == 1 and found.evidence.conclusive == "yes"
    found = diff(parse_policy(both_ways), old, log)
    assert not found.newly_denied
    assert [each.code for each in found.evidence.reasons] == ["unsure-openers"]
    (row,) = found.to_dict()["cannot_tell"]
    assert [each["verdict"] for each in row["readings"]] == ["allow", "deny"]


def test_with_the_clouds_actions_the_policy_was_in_force(tmp_path: Path) -> None:
    result = of_logs(tmp_path, *both(THERE, BACK), compare_actions=True)
    assert result.evidence.conclusive == "yes" and result.records.undecided == {}
    assert result.actions is not None and (result.actions.agreeing, result.actions.disagreeing) == (2, 0)


def test_no_rule_is_made_for_a_connection_that_either_end_may_have_opened(tmp_path: Path) -> None:
    policy = parse_policy(POLICY)
    log = written(tmp_path, *SURE, *both("192.0.2.9:45000 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:45000"))
    found = suggest(log, policy=policy, keep=True)
    assert found.rules == () and found.check.matches
    reasons = {each.reason: [kind.text() for kind in each.kinds] for each in found.left_out}
    (likelier,), (other,) = (reasons[each] for each in reasons if each.startswith("nobody can tell who opened"))
    assert {likelier, other} == {"192.0.2.9 to 10.0.2.1 tcp/7777", "10.0.2.1 to 192.0.2.9 tcp/45000"}
    # Without a policy, the suggested one allows neither.
    made = suggest(log, instances=policy)
    assert "tcp/7777" not in made.text.replace("# ", "") or made.evidence.conclusive == "partly"
    assert "unsure-openers" in [each.code for each in made.evidence.reasons]


def test_only_rules_of_the_ends_of_a_record_may_be_needed(tmp_path: Path) -> None:
    wide = POLICY.replace("rules: []", "rules: [{id: other, direction: inbound, protocol: tcp, ports: 7777}]")
    logged = [flow("192.0.2.7:50000 > 10.0.2.1:443", protocol=6, eni="eni-2", packets=1, octets=40)]
    result = of_logs(tmp_path, *both(THERE, BACK), *logged, policy=wide)
    found = check_policy(result.policy, traffic=result)
    assert {each.rule for each in found.findings if each.code == "SG012"} >= {"other"}
    assert not any(each.rule == "admin" for each in found.findings if each.code == "SG012")
    said = "inbound tcp/7777 from 192.0.2.0/24 (admin in web) (perhaps used by 192.0.2.9 -> 10.0.0.5 at 2023-11-14T22:1"
    assert said in " ".join(found.left_out)
    # The replay says so, too.
    text = " ".join(str(result).split())
    assert "(admin in web) (perhaps used by" in text
    assert "admin" not in text[text.index("Never hit"):].split(" Connections ")[0]


def test_records_of_one_direction_are_a_doubt_even_beside_some_of_both(tmp_path: Path) -> None:
    """SPEC 10.27: the answers were not logged."""
    two_way = [line for n in range(10) for line in both(f"192.0.2.7:{50000 + n} > 10.0.0.5:443",
                                                        f"10.0.0.5:443 > 192.0.2.7:{50000 + n}")]  # fmt: skip
    one_way = [
        flow(f"192.0.2.8:{50000 + n} > 10.0.0.5:8443", 0, 60, protocol=6, packets=5000, octets=5_000_000)
        for n in range(30)
    ]
    result = replay(parse_policy(POLICY), written(tmp_path, *two_way, *one_way))
    assert [(each.code, each.level, round(each.share, 2)) for each in result.evidence.reasons] == [
        ("one-direction", "no", 0.75)
    ]
    assert sum(each.connections for each in result.broken) == 30
    scans = [flow(f"192.0.2.8:{50000 + n} > 10.0.0.5:8443", protocol=6, packets=1, octets=40) for n in range(30)]
    result = replay(parse_policy(POLICY), written(tmp_path, *two_way, *scans))
    assert result.evidence.conclusive == "yes" and result.broken == []


def test_the_command_fails_where_the_verdict_depends_on_the_opener(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    command = ("replay", policy, written(tmp_path, *SURE, *both(THERE, BACK)), "--fail-on", "would-break", "-q")
    assert sgfast(capsys, *command).status == 1
    assert sgfast(capsys, *command, "--accept-evidence", "unsure-openers").status == 0


#: One end has no connections, and packets of both directions need a rule there.
STATELESS = """
version: 1
settings: {profile: aws}
security_groups:
  - {name: clients, rules: [{id: ask, direction: outbound, protocol: tcp}]}
  - name: loose
    stateful: false
    rules:
      - {id: asked, direction: inbound, protocol: tcp, ports: 7777}
      - {id: answers, direction: outbound, protocol: tcp, ports: 32768-65535}
instances:
  - {name: c-1, addresses: [10.0.0.5], security_groups: [clients]}
  - {name: s-1, addresses: [10.0.1.1], security_groups: [loose]}
"""


def test_rules_of_the_first_reply_may_be_needed_too(tmp_path: Path) -> None:
    """SPEC 10.12: a stateless group needs a rule for each direction."""
    lines = both("10.0.0.5:45000 > 10.0.1.1:7777", "10.0.1.1:7777 > 10.0.0.5:45000")
    result = replay(parse_policy(STATELESS), written(tmp_path, *lines))
    assert result.openers is not None and result.records.undecided == {"readings-differ": 2}
    assert {*result.openers.possible_uses} == {"ask", "asked", "answers"}
    (row,) = result.to_dict()["cannot_tell"]
    assert [(each["verdict"], each["rule"]) for each in row["readings"]] == [("allow", "asked"), ("deny", None)]


def test_a_rule_of_a_reply_that_no_opener_needs_may_be_needed(tmp_path: Path) -> None:
    # The stateless end asks. The other one may ask nobody, so that the rule for its answers has no opener.
    policy = STATELESS.replace("[{id: ask, direction: outbound, protocol: tcp}]", "[]").replace(
        "id: asked, direction: inbound, protocol: tcp, ports: 7777", "id: answers-in, direction: inbound, protocol: tcp"
    ).replace("clients, rules: []", "clients, rules: [{id: serve, direction: inbound, protocol: tcp}]")
    lines = both("10.0.0.5:7777 > 10.0.1.1:45000", "10.0.1.1:45000 > 10.0.0.5:7777")
    result = replay(parse_policy(policy.replace("32768-65535", "7777")), written(tmp_path, *lines))
    assert result.openers is not None and result.records.undecided == {"readings-differ": 2}
    assert {*result.openers.possible_uses} == {"answers", "serve", "answers-in"}


def test_a_reply_that_is_denied_breaks_a_reading(tmp_path: Path) -> None:
    policy = STATELESS.replace("32768-65535", "80")
    lines = both("10.0.0.5:45000 > 10.0.1.1:7777", "10.0.1.1:7777 > 10.0.0.5:45000")
    result = replay(parse_policy(policy), written(tmp_path, *lines))
    (row,) = result.to_dict()["would_break"]
    assert (row["reason"], row["opener"]) == ("reply-denied", "unknown")


def test_a_connection_between_separate_vpcs_has_an_unknown_opener(tmp_path: Path) -> None:
    policy = POLICY.replace("security_groups: [", "vpc: near, security_groups: [")
    policy = policy.replace("10.0.1.2], vpc: near", "10.0.1.2], vpc: far")
    gossip = both("10.0.1.1:7777 > 10.0.1.2:7777", "10.0.1.2:7777 > 10.0.1.1:7777", protocol=17)
    result = of_logs(tmp_path, *gossip, policy=policy + "vpcs: [{name: near}, {name: far}]\n")
    (row,) = result.to_dict()["would_break"]
    assert (row["reason"], row["opener"]) == ("vpc-isolated", "unknown")


def test_in_a_comparison_the_other_reading_may_be_the_one_that_happened(tmp_path: Path) -> None:
    # The lower port seems to serve, but only web-1 may ask.
    old = POLICY.replace("- {id: admin, direction: inbound, protocol: tcp, ports: 7777, source: 192.0.2.0/24}",
                         "- {id: admin, direction: outbound, protocol: tcp, ports: 45000}")  # fmt: skip
    result = of_logs(tmp_path, *both(THERE, BACK), policy=old, compare_actions=True)
    assert result.evidence.conclusive == "yes" and result.actions is not None
    assert (result.actions.agreeing, result.actions.disagreeing) == (2, 0)
    found = diff(parse_policy(old), parse_policy(POLICY), written(tmp_path, *SURE, *both(THERE, BACK)))
    (row,) = found.to_dict()["newly_denied"]["rows"]
    assert (row["from"]["name"], row["service"]) == ("web-1", "tcp/45000")


def test_icmp_without_a_type_may_need_the_rules_of_its_ends(tmp_path: Path) -> None:
    policy = POLICY.replace("rules: []", "rules: [{id: ping, direction: inbound, protocol: icmp}]")
    pinged = flow("192.0.2.9:0 > 10.0.2.1:0", protocol=1)
    elsewhere = flow("192.0.2.9:0 > 10.0.0.5:0", protocol=1)
    logged = flow("192.0.2.7:50000 > 10.0.2.1:443", protocol=6, eni="eni-2", packets=1, octets=40)
    two_way = [line for n in range(5) for line in both(f"192.0.2.7:{50001 + n} > 10.0.0.5:443",
                                                       f"10.0.0.5:443 > 192.0.2.7:{50001 + n}")]  # fmt: skip
    for line, groups in ((pinged, {"closed"}), (elsewhere, {"web"})):
        result = of_logs(tmp_path, line, logged, *two_way, policy=policy)
        assert result.openers is not None and {*result.openers.icmp_groups} == groups
        assert result.records.undecided == {"icmp-type": 1}
        assert not (result.openers.differing or result.openers.same)
        text = " ".join(check_policy(result.policy, traffic=result).left_out)
        assert ("(ping in closed) (perhaps used by 192.0.2.9 -> 10.0.2.1" in text) == (line is pinged)


def changed(folder: Path, seconds: int, change: str) -> Path:
    path = folder / "changes.yaml"
    at = np.datetime64(NOON + seconds, "s")
    path.write_text(f'changes:\n  - {{at: "{at}Z", {change}}}\n')
    return path


def test_a_question_is_about_the_policy_of_its_time(tmp_path: Path) -> None:
    # The rule goes after one end's first record began, and before the other's did.
    lines = [flow(THERE, 0, 10, protocol=6), flow(BACK, 20, 30, protocol=6)]
    for at, undecided in ((-1, False), (0, False), (1, True), (15, True), (25, True), (31, True)):
        changes = changed(tmp_path, at, "remove_rule: {group: web, rule: admin}")
        result = of_logs(tmp_path, *lines, changes=changes)
        assert bool(result.records.undecided) == undecided, at


@pytest.mark.parametrize(("on_change", "differs"), [("keep", False), ("cut-inbound", True), ("cut-unmatched", True)])
def test_whether_a_change_cuts_depends_on_the_settings(on_change: str, differs: bool, tmp_path: Path) -> None:
    """SPEC 6.7: cut-inbound cuts what came in at an instance of the changed group."""
    policy = POLICY.replace("cut-unmatched", on_change).replace("source: gossip", "source: 10.0.1.0/24")
    policy += "  - {name: h-1, addresses: [10.0.1.9], security_groups: [peers]}\n"
    policy = policy.replace("  - {name: closed, rules: []}", """  - name: peers
    rules: [{id: all-in, direction: inbound, protocol: all}, {id: all-out, direction: outbound, protocol: all}]
  - {name: closed, rules: []}""")
    ends = "10.0.1.1:7777 > 10.0.1.9:7777", "10.0.1.9:7777 > 10.0.1.1:7777"
    lines = [line for at in range(0, 600, 60) for line in both(*ends, protocol=17, at=at, until=at + 59)]
    change = changed(tmp_path, 300, "remove_rule: {group: gossip, rule: in}")
    result = of_logs(tmp_path, *lines, policy=policy, changes=change)
    assert bool(result.records.undecided) == differs, result.records
    # It ended before the change, or began after it and has one verdict.
    for at in (-1, 700):
        change = changed(tmp_path, at, "modify_rule: {group: gossip, rule: in, set: {source: 10.0.0.0/16}}")
        result = of_logs(tmp_path, *lines, policy=policy, changes=change)
        assert not result.records.undecided


def test_a_connection_that_each_end_opened_at_one_filter_is_a_doubt(tmp_path: Path) -> None:
    ends = "10.0.1.1:0 > 10.0.1.2:0", "10.0.1.2:0 > 10.0.1.1:0"
    policy = POLICY.replace("protocol: udp, ports: 7777, source: gossip", "protocol: all")
    rejected = flow(ends[0], protocol=47, action="REJECT")
    for extra, undecided in (([], False), ([rejected], True)):
        result = of_logs(tmp_path, *extra, *both(*ends, protocol=47), policy=policy)
        assert ("readings-differ" in result.records.undecided) == undecided
        assert result.openers is not None and len(result.openers.differing) == undecided


def test_packets_of_one_end_that_either_end_may_have_opened_break_in_one_case_only(tmp_path: Path) -> None:
    # Denied either way. If the other end answered, they are answers, and would break.
    stray = flow("192.0.2.9:7777 > 10.0.2.1:7777", -700, -690)
    result = of_logs(tmp_path, stray)
    assert result.records.undecided == {"readings-differ": 1} and not result.broken


def test_an_unknown_opener_makes_a_rule_for_nothing_that_is_sure(tmp_path: Path) -> None:
    """SPEC 10.15: a kind with connections of both sorts gets its rule."""
    unsure = both("192.0.2.9:45000 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:45000")
    sure = [
        flow("192.0.2.9:50001 > 10.0.2.1:7777", 0, 30, protocol=6, flags=2),
        flow("10.0.2.1:7777 > 192.0.2.9:50001", 0, 30, protocol=6, flags=18),
    ]
    policy = parse_policy(POLICY)
    found = suggest(written(tmp_path, *SURE, *unsure, *sure), policy=policy, keep=True)
    (rule,) = found.rules
    assert (rule.group, rule.evidence.connections) == ("closed", 2)


def test_icmp_with_a_code_and_an_unknown_opener_makes_no_rule(tmp_path: Path) -> None:
    policy = parse_policy(POLICY)
    ping = both("192.0.2.9:0 > 10.0.2.1:0", "10.0.2.1:0 > 192.0.2.9:0", protocol=1)
    log = written(tmp_path, *SURE, *ping)
    for found in (suggest(log, policy=policy, keep=True), suggest(log, instances=policy)):
        assert not any(each.rule.protocol == 1 for each in found.rules)
        assert [each.reason.split(":")[0] for each in found.left_out] == 2 * ["nobody can tell who opened them"]


def test_a_suggestion_is_not_certain_where_it_denies_a_reading(tmp_path: Path) -> None:
    """Without --policy, the suggested policy is asked."""
    policy = parse_policy(POLICY)
    denied = both("192.0.2.9:45000 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:45000")
    made = suggest(written(tmp_path, *SURE, *denied), instances=policy)
    (reason,) = (each for each in made.evidence.reasons if each.code == "unsure-openers")
    assert (reason.level, reason.packets) == ("partly", 1)
    made = suggest(written(tmp_path, *SURE), instances=policy)
    assert not any(each.code == "unsure-openers" for each in made.evidence.reasons)


def test_a_rule_that_something_used_is_not_among_those_that_may_be_needed(tmp_path: Path) -> None:
    used = [
        flow("192.0.2.8:50001 > 10.0.0.5:7777", 0, 30, protocol=6, flags=2),
        flow("10.0.0.5:7777 > 192.0.2.8:50001", 0, 30, protocol=6, flags=18),
    ]
    assert [each.rule.id for each in unseen_rules(of_logs(tmp_path, *both(THERE, BACK)))] == ["admin"]
    assert unseen_rules(of_logs(tmp_path, *both(THERE, BACK), *used)) == []


def test_a_rule_of_a_group_that_was_not_wholly_logged_is_another_matter(tmp_path: Path) -> None:
    policy = POLICY + "  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}\n"
    assert unseen_rules(of_logs(tmp_path, *both(THERE, BACK), policy=policy)) == []


def test_the_second_half_of_a_twin_is_not_named(tmp_path: Path) -> None:
    """SPEC 2.16."""
    first = "{id: four, direction: inbound, protocol: tcp, ports: 7777, source: gossip}"
    second = first.replace("four", "six").replace("}", ", ethertype: IPv6}")
    policy = POLICY.replace("rules: []", f"rules: [{first}, {second}]").replace(
        "addresses: [10.0.1.1]", 'addresses: [10.0.1.1, "2001:db8::1"]'
    ).replace("addresses: [10.0.2.1]", 'addresses: [10.0.2.1, "2001:db8::2"]')
    out = "- {id: out, direction: outbound, protocol: all}"
    policy = policy.replace(out, f"{out}\n      {out.replace('out,', 'out-six, ethertype: IPv6,')}")
    ends = "[2001:db8::1]:45000 > [2001:db8::2]:7777", "[2001:db8::2]:7777 > [2001:db8::1]:45000"
    lines = [line.replace("[", "").replace("]", "").replace("eni-1", "eni-2") for line in both(*ends)]
    result = of_logs(tmp_path, *lines, policy=policy)
    assert result.openers is not None and "six" in result.openers.possible_uses and result.policy.twins
    logged = replace(result, records=replace(result.records, unlogged=()))
    assert "six" not in {each.rule.id for each in unseen_rules(logged)}
    assert "four" in {each.rule.id for each in unseen_rules(logged)}


def test_rules_that_may_be_needed_are_whole_in_json_and_with_top(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """SPEC 10.12, 10.15."""
    policy = tmp_path / "policy.yaml"
    ports = range(7001, 7013)
    rules = "".join(f"\n      - {{id: r{port}, direction: inbound, protocol: tcp, ports: {port}}}" for port in ports)
    typed = "\n      - {id: ping, direction: outbound, protocol: icmp}"
    asks = "\n      - {id: dns, direction: outbound, protocol: udp, ports: 53}"
    policy.write_text(POLICY.replace("\n      - {id: https", f"{rules}{typed}{asks}\n      - {{id: https"))
    lines = [line for port in ports for line in both(f"192.0.2.9:45000 > 10.0.0.5:{port}",
                                                     f"10.0.0.5:{port} > 192.0.2.9:45000")]  # fmt: skip
    pinged = flow("192.0.2.9:0 > 10.0.0.5:0", protocol=1)
    log = written(tmp_path, *SURE, *lines, pinged)
    checked = ("check", policy, "--traffic", log)
    removing = ("suggest", log, "--policy", policy, "--remove", "30d")
    for command, schema in ((checked, "check"), (removing, "suggestion")):
        answer = valid(schema, json.loads(sgfast(capsys, *command, "--format", "json").out))
        found = (answer["traffic"] if schema == "check" else answer)["unseen_rules"]
        assert [each["rule"] for each in found] == [*(f"r{port}" for port in ports), "ping", "dns"]
        assert found[0] == {
            "group": "web", "rule": "r7001", "why": "either-opener", "connections": 1, "example": {
                "time": f"{NOON}.000000000", "from": "192.0.2.9", "to": "10.0.0.5", "protocol": "tcp", "port": 7001,
            },
        }  # fmt: skip
        assert (found[-2]["why"], found[-2]["connections"]) == ("icmp-type", 1)
        assert (found[-2]["example"]["protocol"], found[-2]["example"]["port"]) == ("icmp", None)
        assert found[-1] == {
            "group": "web", "rule": "dns", "why": "not-logged-service", "connections": None, "example": None
        }
        text = " ".join(sgfast(capsys, *command).out.split())
        assert "(r7010 in web) (perhaps used by" in text and "r7011" not in text and "and 4 more" in text
        text = " ".join(sgfast(capsys, *command, "--top", "14").out.split())
        assert "(r7012 in web) (perhaps used by" in text and "dns" in text
        assert "more" not in text.partition("no record shows")[2]
    # Without --remove, nothing is taken away that might be needed.
    answer = json.loads(sgfast(capsys, "suggest", log, "--policy", policy, "--keep", "--format", "json").out)
    assert "unseen_rules" not in answer
    result = replay(parse_policy(policy.read_text()), log)
    assert "r7010" in str(result) and "r7012 (perhaps" not in " ".join(str(result).split())


def test_protocols_that_zeek_never_logs_are_a_reason_of_their_own() -> None:
    records, rule = LogRecords(lacks_protocols=True), Rule("gre", "inbound", 4, 47)
    unseen = unseen_rule("g", rule, records, UnsureOpeners())
    assert unseen is not None and (unseen.why, unseen.use) == ("not-logged-protocol", None)
    assert unseen_rule("g", rule, LogRecords(), UnsureOpeners()) is None
    # A rule of all protocols may be there for one of these.
    for protocol, why in ((None, "not-logged-protocol"), (6, None), (17, None), (1, None), (58, None)):
        unseen = unseen_rule("g", Rule("r", "inbound", 4, protocol), records, UnsureOpeners())
        assert (unseen and unseen.why) == why


#: Two groups that may call each other; a change of one cuts what came in there.
CALLING = POLICY.replace("cut-unmatched", "cut-inbound").replace(", source: gossip}", "}").replace(
    "  - {name: closed, rules: []}", """  - name: peers
    rules: [{direction: inbound, protocol: all}, {direction: outbound, protocol: all}]
  - {name: closed, rules: []}"""
) + "  - {name: h-1, addresses: [10.0.1.9], security_groups: [peers]}\n"
MORE = "add_rule: {{group: {}, rule: {{id: more, direction: inbound, protocol: tcp, ports: 9999}}}}"


@pytest.mark.parametrize(("at", "differs"), [(-1, False), (0, False), (1, True), (659, True), (660, False)])
def test_a_change_cuts_what_came_in_and_is_alive(at: int, differs: bool, tmp_path: Path) -> None:
    ends = "10.0.1.1:7777 > 10.0.1.9:7777", "10.0.1.9:7777 > 10.0.1.1:7777"
    lines = [line for at in range(0, 660, 60) for line in both(*ends, protocol=17, at=at, until=at + 59)]
    changes = changed(tmp_path, at, MORE.format("gossip"))
    lines += both("192.0.2.7:50001 > 10.0.0.5:443", at=900, until=930)
    result = of_logs(tmp_path, *lines, policy=CALLING, changes=changes)
    assert len(result.changes) == 1 and bool(result.records.undecided) == differs


def test_a_change_cuts_nothing_that_was_denied(tmp_path: Path) -> None:
    denied = both("192.0.2.9:45000 > 10.0.2.1:7777", "10.0.2.1:7777 > 192.0.2.9:45000")
    result = of_logs(tmp_path, *denied, policy=CALLING, changes=changed(tmp_path, 15, MORE.format("closed")))
    assert not result.records.undecided and sum(each.connections for each in result.broken) == 1


def test_connections_of_one_service_are_one_row(tmp_path: Path) -> None:
    # They are far apart, so that they are asked about at different times.
    lines = [
        line for at, port in ((0, 45000), (20_000, 45001))
        for line in both(*(each.replace("45000", str(port)) for each in (THERE, BACK)), at=at, until=at + 9)
    ]
    result = of_logs(tmp_path, *lines)
    assert result.openers is not None
    (found,) = result.openers.differing
    assert (found.connections, found.other_ports) == (2, {45000, 45001})


def test_readings_that_nobody_answered_are_no_candidates(tmp_path: Path) -> None:
    stray = flow("192.0.2.9:7777 > 10.0.2.1:7777", -700, -690)
    found = suggest(written(tmp_path, *SURE, stray), policy=parse_policy(POLICY), keep=True)
    assert not any("nobody can tell" in each.reason for each in found.left_out) and found.rules == ()


def test_a_suggestion_that_allows_both_readings_is_certain(tmp_path: Path) -> None:
    sure = [
        line for one, other in (("10.0.1.1", "10.0.1.2"), ("10.0.1.2", "10.0.1.1")) for line in (
            flow(f"{one}:50000 > {other}:7777", 0, 30, protocol=6, flags=2),
            flow(f"{other}:7777 > {one}:50000", 0, 30, protocol=6, flags=18),
        )
    ]  # fmt: skip
    unsure = both("10.0.1.1:7777 > 10.0.1.2:7777", "10.0.1.2:7777 > 10.0.1.1:7777")
    made = suggest(written(tmp_path, *sure, *unsure), instances=parse_policy(POLICY))
    assert made.rules and "unsure-openers" not in [each.code for each in made.evidence.reasons]


def test_a_denied_question_between_equal_ports_was_answered(tmp_path: Path) -> None:
    """SPEC 9.2, 10.30: the log says who opened it, though the other end's rules would let its answer out."""
    policy = POLICY.replace("- {id: in, direction: inbound, protocol: udp, ports: 7777, source: gossip}\n      ", "")
    gossip = both("10.0.1.1:7777 > 10.0.1.2:7777", "10.0.1.2:7777 > 10.0.1.1:7777", protocol=17)
    result = of_logs(tmp_path, *gossip, policy=policy)
    assert [each.connections for each in result.broken] == [1] and result.evidence.conclusive == "yes"


def test_an_end_that_may_have_refused_is_no_sure_answer(tmp_path: Path) -> None:
    """SPEC 10.30: a scan of a closed port without flags. Its packets have neither data nor options."""
    scan = [
        flow(ends, -700, -700, protocol=6, packets=1, octets=40)
        for ends in ("192.0.2.9:7777 > 10.0.2.1:7778", "10.0.2.1:7778 > 192.0.2.9:7777")
    ]
    result = of_logs(tmp_path, *scan)
    assert result.records.undecided == {"readings-differ": 2} and not result.broken
    assert result.evidence.conclusive == "yes"
