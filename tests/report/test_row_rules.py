"""Rules that would let a row of "would break" through, as people paste them (SPEC 10.24)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import PCAPS, handshake, sgfast, valid, write_capture, write_policy
from frames import Layer, ethernet, ipv4

from sgfast import replay
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy.model import Policy
from sgfast.questions.replaying.listed_kinds import Broken, listed_broken

Capsys = pytest.CaptureFixture[str]

POLICY = """
version: 1
vpcs: [{name: one}, {name: two}]
security_groups:
  - name: web
    rules: [{direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0}]
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 22, source: 192.0.2.0/24}
      - {direction: outbound, protocol: all}
instances:
  - {name: web-1, vpc: one, addresses: [10.0.0.1, 10.0.0.2], security_groups: [web]}
  - {name: db-1, vpc: one, addresses: [10.0.1.1], security_groups: [db]}
  - {name: far, vpc: two, addresses: [10.9.0.1], security_groups: [db]}
"""
CLIENT = "198.51.100.7"
PING = {"protocol": 1}


def rows(capsys: Capsys, policy: Path | str, capture: Path, *more: str) -> list[dict[str, Any]]:
    run = sgfast(capsys, "replay", policy, capture, "--json", "--show-rules", *more)
    found: list[dict[str, Any]] = valid("summary", json.loads(run.out))["would_break"]
    return found


def broken(policy: Policy, capture: Path) -> list[Broken]:
    return listed_broken(replay(policy, capture).kinds)


def pasted(text: str, added: list[dict[str, str]]) -> Policy:
    """Return the policy with lines pasted at the top of their groups' rules, as people do."""
    for each in added:
        head, group, rest = text.partition(f"name: {each['group']}\n")
        assert group
        before, mark, after = rest.partition("rules:")
        after = f" [{each['rule']},{after.lstrip()[1:]}" if after.lstrip().startswith("[") else (
            f"\n      - {each['rule']}{after}"
        )
        text = head + group + before + mark + after
    return parse_policy(text)


def test_a_pasted_rule_lets_its_row_through_and_all_of_them_everything(capsys: Capsys, tmp_path: Path) -> None:
    """The sender or the receiver lacks a rule, or both do."""
    capture = write_capture(
        tmp_path, *handshake(50000, 5432, "10.0.0.2", "10.0.1.1"), *handshake(50001, 80, CLIENT, "10.0.0.1"),
        *handshake(50002, 25, "10.0.0.1", CLIENT), *handshake(50003, 8080, "10.0.1.1", "10.0.0.1"),
        *handshake(50004, 443, CLIENT, "10.0.0.1"),
    )  # fmt: skip
    found = rows(capsys, write_policy(tmp_path, POLICY), capture)
    lines = {row["service"]: [(each["group"], each["rule"]) for each in row["rules"]["added"]] for row in found}
    assert lines == {
        "tcp/5432": [
            ("web", "{direction: outbound, ethertype: IPv4, protocol: tcp, ports: 5432, destination: db}"),
            ("db", "{direction: inbound, ethertype: IPv4, protocol: tcp, ports: 5432, source: web}"),
        ],
        "tcp/80": [("web", f"{{direction: inbound, protocol: tcp, ports: 80, source: {CLIENT}}}")],
        "tcp/25": [("web", f"{{direction: outbound, protocol: tcp, ports: 25, destination: {CLIENT}}}")],
        "tcp/8080": [("web", "{direction: inbound, ethertype: IPv4, protocol: tcp, ports: 8080, source: db}")],
    }
    before = {row["service"] for row in found}
    for row in found:
        mended = pasted(POLICY, row["rules"]["added"])
        assert {f"tcp/{each.service.port}" for each in broken(mended, capture)} == before - {row["service"]}
    whole = pasted(POLICY, [each for row in found for each in row["rules"]["added"]])
    assert not broken(whole, capture)


def test_what_no_rule_mends_says_why_instead(capsys: Capsys, tmp_path: Path) -> None:
    document = POLICY + "      # no more\n"
    denied = document.replace("ports: 22, source", "ports: 22, action: deny, source")
    capture = write_capture(
        tmp_path, *handshake(50000, 5432, "10.0.1.1", "10.9.0.1"), *handshake(50001, 22, "192.0.2.1", "10.0.1.1")
    )
    found = rows(capsys, write_policy(tmp_path, denied), capture)
    assert {row["service"]: (row["rules"]["added"], row["rules"]["left_out"]) for row in found} == {
        "tcp/5432": ([], ["denied whatever the rules: vpc-isolated"]),
        "tcp/22": ([], ["a deny rule is for these, and no added rule may overrule it"]),
    }


def test_an_instance_that_a_change_brought_has_no_rule_in_this_policy(capsys: Capsys, tmp_path: Path) -> None:
    changes = tmp_path / "changes.yaml"
    changes.write_text(
        "changes: [{at: 0, add_instance: {name: new, vpc: one, addresses: [10.0.1.9], security_groups: [db]}}]\n"
    )
    capture = write_capture(tmp_path, *handshake(50000, 80, CLIENT, "10.0.1.9"))
    (row,) = rows(capsys, write_policy(tmp_path, POLICY), capture, "--changes", str(changes))
    assert row["rules"] == {"added": [], "left_out": ["no rule, as the address or the instance is not known"]}


def test_text_and_markdown_show_whole_lines_and_only_if_they_are_asked_for(capsys: Capsys, tmp_path: Path) -> None:
    frames = [frame for n in range(15) for frame in handshake(50000, 8443, f"203.0.113.{n}", "10.0.0.1")]
    capture, policy = write_capture(tmp_path, *frames), write_policy(tmp_path, POLICY)
    text = sgfast(capsys, "replay", policy, capture, "--show-rules").out
    line = "- {direction: inbound, protocol: tcp, ports: 8443, source: 203.0.113.4}\n"
    assert "add to web:\n" in text and line in text and "source: 203.0.113.5" not in text
    assert "and 10 more rules, which sgfast suggest --keep writes" in text
    marked = sgfast(capsys, "replay", policy, capture, "--show-rules", "--format", "markdown")
    assert f"`  {line.strip()}`" in marked.out
    assert "add to" not in sgfast(capsys, "replay", policy, capture).out
    assert "rules" not in json.loads(sgfast(capsys, "replay", policy, capture, "--json").out)["would_break"][0]


def test_each_row_of_a_recording_can_be_mended(capsys: Capsys) -> None:
    policy, capture = PCAPS / "shop.yaml", PCAPS / "shop.pcap"
    found = rows(capsys, policy, capture)
    text = policy.read_text()
    added = [each for row in found for each in row["rules"]["added"]]
    assert found and added and not any(row["rules"]["left_out"] for row in found)
    assert broken(load_policy(policy), capture) and not broken(pasted(text, added), capture)


def test_more_traffic_than_is_compared_is_said(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgfast.report.row_rules.MOST_COMPARED", 4)
    calls = [(50000, port, f"203.0.113.{n}", "10.0.0.1") for n in range(3) for port in (80, 8443)]
    frames = [frame for call in calls for frame in handshake(*call)]
    first, second = rows(capsys, write_policy(tmp_path, POLICY), write_capture(tmp_path, *frames))
    assert len(first["rules"]["added"]) == 3 and first["rules"]["left_out"] == []
    assert len(second["rules"]["added"]) == 1
    assert second["rules"]["left_out"] == ["the rest was not compared with the rules, as there is too much traffic"]


REGIONS = """
version: 1
vpcs: [{name: one, region: eu}, {name: two, region: us}]
peerings: [[one, two]]
security_groups: [{name: app, rules: []}, {name: db, rules: []}]
instances:
  - {name: app-1, vpc: one, addresses: [10.0.1.4, 10.0.1.7], security_groups: [app]}
  - {name: db-1, vpc: two, addresses: [10.9.0.5], security_groups: [db]}
"""


def test_a_rule_for_another_address_of_the_sender_is_not_shown(capsys: Capsys, tmp_path: Path) -> None:
    """Between regions no group can be the peer, and a row does not know which address of an instance sent."""
    capture = write_capture(tmp_path, *handshake(50000, 5432, "10.0.1.7", "10.9.0.5"))
    (row,) = rows(capsys, write_policy(tmp_path, REGIONS), capture)
    assert [each["group"] for each in row["rules"]["added"]] == ["app"]
    assert row["rules"]["left_out"] == [
        "the receiver may lack a rule for the sender's address, which sgfast suggest --keep finds"
    ]


def test_no_line_is_shown_that_a_policy_cannot_have(capsys: Capsys, tmp_path: Path) -> None:
    echo = ethernet(ipv4(CLIENT, "10.0.0.1", Layer(bytes([128, 0]) + bytes(6), 58)))
    answer = ethernet(ipv4("10.0.0.1", CLIENT, Layer(bytes([129, 0]) + bytes(6), 58)))
    capture = write_capture(tmp_path, *handshake(50000, 0, CLIENT, "10.0.0.1"), echo, answer)
    found = rows(capsys, write_policy(tmp_path, POLICY), capture)
    assert found and all(row["rules"]["added"] == [] and row["rules"]["left_out"] for row in found)


def test_a_group_that_has_the_name_of_an_address_group_is_called_a_group(capsys: Capsys, tmp_path: Path) -> None:
    document = POLICY.replace("security_groups:\n", "address_groups: [{name: web, addresses: [192.0.2.0/24]}]\n"
                              "security_groups:\n", 1)  # fmt: skip
    capture = write_capture(tmp_path, *handshake(50000, 5432, "10.0.0.1", "10.0.1.1"))
    (row,) = rows(capsys, write_policy(tmp_path, document), capture)
    assert "source: {group: web}}" in row["rules"]["added"][1]["rule"]
    assert not broken(pasted(document, row["rules"]["added"]), capture)


def test_a_line_is_not_shown_for_a_group_that_the_document_does_not_have(capsys: Capsys, tmp_path: Path) -> None:
    """Pasted into a new group, it would be the only rule of the group that 8.1 makes."""
    document = "version: 1\nsecurity_groups: []\ninstances: [{name: lone, addresses: [10.0.0.1]}]\n"
    capture = write_capture(tmp_path, *handshake(50000, 443, CLIENT, "10.0.0.1"))
    (row,) = rows(capsys, write_policy(tmp_path, document), capture)
    assert row["rules"]["added"] == [] and "has no group default" in row["rules"]["left_out"][0]
