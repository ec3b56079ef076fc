"""Either end may have opened a connection of a flow log: the policy is asked about both readings (SPEC 10.30)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import sgfast, valid
from flow_logs import BEFORE, FIELDS, NOON, flow

from sgfast import diff, replay, suggest
from sgfast.checking import check_policy
from sgfast.loading import parse_policy
from sgfast.replaying import ReplayResult
from sgfast.report.html.replay import html_report

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
#: Which records are sure, so that the log has both directions.
SURE = [flow(ends, protocol=6) for ends in ("192.0.2.7:50000 > 10.0.0.5:443", "10.0.0.5:443 > 192.0.2.7:50000")]


def written(folder: Path, *lines: str, name: str = "flows.log") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in (FIELDS, BEFORE, *lines)))
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


def test_an_unanswered_connection_that_either_end_may_have_opened_is_no_doubt(tmp_path: Path) -> None:
    # Of TCP, a single small packet shows no answer.
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
    idle = f"x-1 - - - - - - - {NOON} {NOON} - - NODATA - -"
    result = of_logs(tmp_path, *both(THERE, BACK), idle, policy=wide)
    found = check_policy(result.policy, traffic=result)
    assert {each.rule for each in found.findings if each.code == "SG012"} >= {"other"}
    assert not any(each.rule == "admin" for each in found.findings if each.code == "SG012")
    assert "admin (perhaps used by 192.0.2.9 -> 10.0.0.5 at 2023-11-14T22:13:20Z)" in " ".join(found.left_out)
    # The replay says so, too.
    text = " ".join(str(result).split())
    assert "admin (perhaps used by" in text
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
