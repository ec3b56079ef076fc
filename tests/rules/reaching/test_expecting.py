"""``replay --expect`` (SPEC 10.25): what is meant to be denied does not break, and what contradicts is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import SERVER, process, sgfast, valid, write_capture, write_policy
from frames import ethernet, ip, tcp, udp

from sgfast import replay
from sgfast.clouds.loading import parse_policy
from sgfast.policy.expectations import parse_expectations
from sgfast.questions.replaying.expected_verdicts import hold_against
from sgfast.rules.reaching.proving import Expectations

Capsys = pytest.CaptureFixture[str]

POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {id: http, direction: inbound, protocol: tcp, ports: 80}
      - {id: out, direction: outbound, protocol: all}
instances:
  - {name: web-1, addresses: [203.0.113.5], security_groups: [web]}
"""
CLIENT = "8.8.8.8"


def answered(client_port: int, server_port: int) -> list[bytes]:
    there = ethernet(ip(CLIENT, SERVER, tcp(client_port, server_port, "S")))
    back = ethernet(ip(SERVER, CLIENT, tcp(server_port, client_port, "SA")))
    return [there, back]


def replayed(capsys: Capsys, tmp_path: Path, expectations: str, *options: str) -> dict[str, object]:
    policy = write_policy(tmp_path, POLICY.replace("203.0.113.5", SERVER))
    frames = [*answered(1000, 80), *answered(1001, 22), *answered(1002, 22), *answered(1003, 443)]
    capture = write_capture(tmp_path, *frames, ethernet(ip(CLIENT, SERVER, udp(1, 514))))
    meant = tmp_path / "meant.yaml"
    meant.write_text(expectations)
    outcome = sgfast(capsys, "replay", policy, capture, "--expect", meant, "--json", *options)
    assert outcome.status in (0, 1), outcome.err
    return {**valid("summary", json.loads(outcome.out)), "status": outcome.status}


def test_what_is_meant_to_be_denied_would_not_break(capsys: Capsys, tmp_path: Path) -> None:
    found = replayed(capsys, tmp_path, "expect: [{from: internet, to: web, service: tcp/22, verdict: deny}]")
    assert [row["service"] for row in found["would_break"]] == ["tcp/443"]
    assert found["expected"]["meant"] == 2 and found["expected"]["contradicted"] == []
    # They are denied all the same.
    assert found["connections"]["denied"] == 4 and sum(row["packets"] for row in found["denied"]) == 4


def test_nothing_breaks_where_all_is_meant(capsys: Capsys, tmp_path: Path) -> None:
    document = "expect: [{from: any, to: web, service: 'tcp/22,443', verdict: deny}]"
    assert replayed(capsys, tmp_path, document, "--fail-on", "would-break")["status"] == 0
    other = "expect: [{from: any, to: web, service: tcp/22, verdict: deny}]"
    assert replayed(capsys, tmp_path, other, "--fail-on", "would-break")["status"] == 1


def test_traffic_against_an_expectation_is_named_with_its_line(capsys: Capsys, tmp_path: Path) -> None:
    document = """
expect:
  - {from: any, to: web, service: tcp/80, verdict: deny}
  - {from: any, to: web-1, service: "tcp/22,443", verdict: allow}
  - {from: any, to: web, service: udp/514, verdict: deny}
"""
    found = replayed(capsys, tmp_path, document)
    told = [(each["line"], each["verdict"], each["connections"]) for each in found["expected"]["contradicted"]]
    assert told == [(3, "deny", 1), (4, "allow", 3)]
    # Nobody answered it, so it was not going to break.
    assert found["expected"]["meant"] == 0
    policy, capture, meant = tmp_path / "policy.yaml", tmp_path / "some.pcap", tmp_path / "meant.yaml"
    text = " ".join(sgfast(capsys, "replay", policy, capture, "--expect", meant).out.split())
    assert "1 connection was allowed, though line 3 says: any to web: tcp/80 should be denied" in text
    assert "3 connections were denied, though line 4 says: any to web-1: tcp/22,443 should be allowed" in text


def test_a_name_that_is_nobody_ends_before_a_packet_is_read(tmp_path: Path) -> None:
    policy, meant = write_policy(tmp_path, POLICY), tmp_path / "meant.yaml"
    meant.write_text("expect: [{from: any, to: wbe, service: tcp/22, verdict: deny}]")
    done = process("replay", policy, write_capture(tmp_path), "--expect", meant)
    assert done.status == 2 and done.out == ""
    assert "meant.yaml:1: expect[0].to" in done.one_line() and "did you mean 'web'?" in done.one_line()


def test_a_result_that_was_looked_at_before_says_what_is_meant_afterwards(tmp_path: Path) -> None:
    policy = parse_policy(POLICY.replace("203.0.113.5", SERVER))
    result = replay(policy, [write_capture(tmp_path, *answered(1001, 22), *answered(1003, 443))])
    assert len(result.broken) == 2 and result.evidence.conclusive == "yes"
    denied = "{from: internet, to: web, service: tcp/22, verdict: deny}"
    strangers = "{from: 192.0.2.0/24, to: 198.51.100.9, service: all, verdict: allow}"
    meant = parse_expectations(f"expect: [{denied}, {strangers}]")
    before = result.kinds
    hold_against(result, Expectations(policy, meant))
    assert [kind.service.port for kind in result.broken] == [443]
    assert [each.code for each in result.evidence.reasons] == ["about-nobody"]
    # The kinds from before the call have not changed.
    assert int(before.rows["broken"].sum()) == 2


def test_expectations_about_nobody_do_not_pass_as_covered(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 10.27: traffic contradicts no expectation of another network's."""
    covered = "{from: any, to: web, service: 'tcp/22,443', verdict: deny}"
    strangers = "{from: 192.0.2.0/24, to: 198.51.100.9, service: all, verdict: allow}"
    option = ("--fail-on", "would-break")
    found = replayed(capsys, tmp_path, f"expect: [{covered}, {strangers}]", *option)
    assert found["status"] == 1 and found["evidence"]["conclusive"] == "partly"
    (reason,) = found["evidence"]["reasons"]
    assert (reason["code"], reason["level"], reason["packets"], reason["share"]) == ("about-nobody", "partly", 1, 0.5)
    option = (*option, "--accept-evidence", "about-nobody")
    accepted = replayed(capsys, tmp_path, f"expect: [{covered}, {strangers}]", *option)
    assert accepted["status"] == 0 and accepted["evidence"]["conclusive"] == "yes"
    # An instance is a member of each of these ends.
    sound = f"expect: [{covered}, {{from: 192.0.2.0/24, to: {SERVER}/16, service: all, verdict: allow}}]"
    assert replayed(capsys, tmp_path, sound.replace(f"{SERVER}/16", "10.0.0.0/16"))["evidence"]["conclusive"] == "yes"
