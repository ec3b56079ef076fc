"""Answers that rest on what is not in captures: findings, suggestions and first expectations (SPEC 10.12, 10.15, 10.23,
10.27).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from captures import pcap_head, pcap_record, plain_pcap
from command import PCAPS, SHOP, Outcome, handshake, sgfast, valid, write_policy
from frames import ethernet, ip, tcp, udp

import sgfast as package
from sgfast.questions.checking.codes import TRAFFIC_CODES

Capsys = pytest.CaptureFixture[str]

DAY = 24 * 3600
OFFICE, WEB = "192.0.2.9", "10.0.0.5"
#: Connections that use each rule of ``command.POLICY``.
ALL_RULES = [*handshake(1000, 80), *handshake(1001, 22, OFFICE, WEB)]


def capture(folder: Path, *frames: bytes, lasting: float = 0, name: str = "x.pcap") -> Path:
    """The frames, of which the last one comes this many seconds after the first one."""
    times = [1000 * n for n in range(len(frames))]
    times[-1] += round(lasting * 10**6)
    records = [pcap_record(each, time=(1000 + at // 10**6, at % 10**6)) for each, at in zip(frames, times, strict=True)]
    path = folder / name
    path.write_bytes(pcap_head() + b"".join(records))
    return path


def cut_shop(folder: Path) -> Path:
    """The shop's packets without their ports, as ``editcap -s 34`` leaves them."""
    packets: list[Any] = []
    [*_] = plain_pcap((PCAPS / "shop.pcap").read_bytes(), packets)
    records = [
        pcap_record(data[:34], time=divmod(time_ns // 1000, 10**6), wire=wire) for time_ns, data, wire, _ in packets
    ]
    path = folder / "cut.pcap"
    path.write_bytes(pcap_head() + b"".join(records))
    return path


def mostly_strangers(folder: Path) -> Path:
    """Each rule is used, but most packets are between addresses that no instance has."""
    strangers = [ethernet(ip("203.0.113.1", "203.0.113.2", udp(1, 2)))] * 20
    return capture(folder, *ALL_RULES, *strangers, lasting=7 * DAY, name="strangers.pcap")


def only_openers(folder: Path) -> Path:
    """An answered connection beside many openers, of which the answer was seen for one in ten only."""
    frames = [*handshake(1000, 80)]
    frames += [
        ethernet(ip("198.51.100.7", WEB, tcp(2000 + n, 80, flags))) for n in range(10) for flags in ("S", "A", "PA")
    ]
    return capture(folder, *frames, ethernet(ip("198.51.100.7", WEB, udp(9, 514))), name="one-way.pcap")


def checked(capsys: Capsys, *arguments: object, status: int = 0) -> Any:
    outcome = sgfast(capsys, "check", *arguments, "--json")
    assert outcome.status == status, outcome.err
    return valid("check", json.loads(outcome.out))


def of_traffic(found: Any) -> list[Any]:
    return [each for each in found["findings"] if each["code"] in TRAFFIC_CODES]


def codes(found: Any) -> list[tuple[str, str]]:
    return [(each["code"], each["level"]) for each in found["evidence"]["reasons"]]


def said(outcome: Outcome) -> str:
    return " ".join(outcome.out.split())


# sgfast check ---------------------------------------------------------------------------------------------------------


def test_cut_packets_do_not_show_which_rules_may_be_removed(capsys: Capsys, tmp_path: Path) -> None:
    command = (SHOP[0], "--traffic", cut_shop(tmp_path))
    found = checked(capsys, *command)
    assert found["evidence"]["conclusive"] == "no" and codes(found)[0] == ("truncated", "no")
    assert not of_traffic(found) and [each["code"] for each in found["findings"]] == ["SG013"] * 2
    (withheld,) = found["left_out"]
    assert "SG012" in withheld and "SG015" in withheld and found["evidence"]["reasons"][0]["sentence"] in withheld
    for word, status in (("SG012", 1), ("SG015", 1), ("note", 1), ("SG001", 0), ("error", 0)):
        checked(capsys, *command, "--fail-on", word, status=status)
    assert said(sgfast(capsys, "check", *command)).startswith("Cannot tell: the capture cut 246 packets")
    assert sgfast(capsys, "check", *command, "--format", "markdown").out.startswith("### Cannot tell: the capture cut")
    (run,) = json.loads(sgfast(capsys, "check", *command, "--format", "sarif").out)["runs"]
    assert {each["ruleId"] for each in run["results"]} == {"SG013"}
    assert run["properties"]["evidence"]["conclusive"] == "no"
    told = [each["message"]["text"] for each in run["invocations"][0]["toolExecutionNotifications"]]
    assert any(each.startswith("Cannot tell: the capture cut") for each in told)
    found = checked(capsys, *command, "--accept-evidence", "truncated")
    assert len(of_traffic(found)) == 9 and found["evidence"]["conclusive"] == "partly" and not found["left_out"]


def test_a_capture_of_seconds_only_perhaps_shows_which_rules_may_be_removed(capsys: Capsys) -> None:
    command = (SHOP[0], "--traffic", SHOP[1])
    found = checked(capsys, *command)
    (reason,) = found["evidence"]["reasons"]
    assert (reason["code"], reason["level"], reason["packets"]) == ("short-window", "partly", 261)
    assert reason["share"] == pytest.approx(13 / (7 * DAY), rel=0.01) and "last 13 s" in reason["sentence"]
    certain = {each["code"]: each["certain"] for each in found["findings"]}
    assert certain == {"SG012": False, "SG013": True, "SG015": False}
    for form in ("text", "markdown"):
        told = said(sgfast(capsys, "check", *command, "--format", form))
        assert len(re.findall("Perhaps: ", told)) == 2 and told.index("short-window") < told.index("Perhaps: ")
    (run,) = json.loads(sgfast(capsys, "check", *command, "--format", "sarif").out)["runs"]
    for result in run["results"]:
        assert result["properties"]["certain"] == certain[result["ruleId"]]
        assert result["message"]["text"].startswith("Perhaps: ") != certain[result["ruleId"]]
    accepting = (*command, "--accept-evidence", "short-window")
    assert all(each["certain"] for each in checked(capsys, *accepting)["findings"])
    assert "Perhaps" not in sgfast(capsys, "check", *accepting).out


@pytest.mark.parametrize(("days", "is_long"), [(7, True), (7 - 1 / 48, True), (6.9, False)])
def test_captures_of_a_week_show_which_rules_may_be_removed(tmp_path: Path, days: float, is_long: bool) -> None:
    path = capture(tmp_path, *handshake(1000, 80), lasting=days * DAY)
    found = package.load(write_policy(tmp_path)).check(captures=path)
    (never,) = found.matching("SG012")
    assert never.certain == is_long
    assert [each.sentence[:23] for each in found.evidence.reasons] == ([] if is_long else ["the captures last 6 d a"])


def test_captures_of_which_a_part_is_missing_do_not_pass_because_nothing_was_found(
    capsys: Capsys, tmp_path: Path
) -> None:
    """Only more time would never show more, so a job of CI with short captures passes."""
    policy = write_policy(tmp_path)
    found = checked(capsys, policy, "--traffic", capture(tmp_path, *ALL_RULES), "--fail-on", "SG012")
    assert codes(found) == [("short-window", "partly")] and not of_traffic(found)
    command = (policy, "--traffic", mostly_strangers(tmp_path), "--fail-on")
    found = checked(capsys, *command, "SG012", status=1)
    assert codes(found) == [("out-of-scope", "partly")] and not of_traffic(found)
    checked(capsys, *command, "warning")
    checked(capsys, *command, "SG012", "--accept-evidence", "out-of-scope")


def test_expectations_about_nobody_do_not_pass_a_check(capsys: Capsys, tmp_path: Path) -> None:
    policy, expected = write_policy(tmp_path), tmp_path / "expectations.yaml"
    policy.write_text(policy.read_text().replace("instances:", "  - {name: nobody}\ninstances:"))
    expected.write_text("expect: [{from: internet, to: nobody, service: tcp/22, verdict: deny}]\n")
    command = (policy, "--expect", expected)
    # Other findings do not rest on the expectations.
    found = checked(capsys, *command, "--fail-on", "SG012", "--fail-on", "SG001")
    assert codes(found) == [("about-nobody", "partly")] and not found["left_out"]
    assert "about-nobody" in said(sgfast(capsys, "check", *command))
    for word in ("SG014", "error", "warning"):
        checked(capsys, *command, "--fail-on", word, status=1)
    checked(capsys, *command, "--fail-on", "SG014", "--accept-evidence", "about-nobody")
    week = capture(tmp_path, *handshake(1000, 80), lasting=7 * DAY)
    assert [each["certain"] for each in of_traffic(checked(capsys, *command, "--traffic", week))] == [True]


def test_a_policy_alone_leaves_no_doubt(capsys: Capsys) -> None:
    found = checked(capsys, SHOP[0])
    assert found["evidence"] == {"conclusive": "yes", "reasons": []} and found["traffic"] is None
    assert all(each["certain"] for each in found["findings"])


# sgfast suggest, sgfast test --init -----------------------------------------------------------------------------------


def test_rules_from_cut_packets_say_that_nobody_can_rely_on_them(capsys: Capsys, tmp_path: Path) -> None:
    command = ("suggest", cut_shop(tmp_path), "--instances", SHOP[0])
    outcome = sgfast(capsys, *command, "-o", tmp_path / "suggested.yaml")
    assert outcome.status == 1 and "nobody can rely on" in outcome.err
    assert said(outcome).startswith("Cannot tell: the capture cut 246 packets")
    first, second, *_ = (tmp_path / "suggested.yaml").read_text().splitlines()
    assert first.startswith("# Nobody can rely on") and second.startswith("# Cannot tell: the capture cut 246 packets")
    outcome = sgfast(capsys, *command, "--json")
    found = valid("suggestion", json.loads(outcome.out))
    assert outcome.status == 1 and codes(found) == [("truncated", "no"), ("short-window", "partly")]
    assert sgfast(capsys, *command, "--format", "markdown").out.startswith("### Cannot tell: the capture cut")
    script = sgfast(capsys, *command, "--to", "aws").out.splitlines()
    assert script[0] == "#!/bin/sh" and script[1:3] == [first, second]
    assert sgfast(capsys, *command, "--accept-evidence", "truncated").status == 0


def test_rules_from_a_sound_capture_are_only_short_of_time(capsys: Capsys) -> None:
    outcome = sgfast(capsys, "suggest", SHOP[1], "--instances", SHOP[0], "--json")
    found = valid("suggestion", json.loads(outcome.out))
    assert outcome.status == 0 and codes(found) == [("short-window", "partly")]
    assert "\n# Left out: 2 connections, unanswered\n" in found["policy"] and "rely" not in found["policy"]


def test_connections_whose_answer_was_not_captured_are_not_called_unanswered(capsys: Capsys, tmp_path: Path) -> None:
    policy, path = write_policy(tmp_path), only_openers(tmp_path)
    found = package.suggest(path, instances=package.load(policy))
    (left,) = found.left_out
    assert left.evidence.connections == 1 and "an answer might not be in the captures" in left.reason
    assert "1 connection: perhaps answered" in said(sgfast(capsys, "suggest", path, "--instances", policy))


def test_first_expectations_from_one_direction_say_so(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    outcome = sgfast(capsys, "test", "--init", policy, only_openers(tmp_path))
    assert outcome.status == 0 and "warning: Cannot tell: 91 % of the connections" in outcome.err
    assert outcome.out.startswith("# Cannot tell: 91 % of the connections") and "perhaps answered" in outcome.out
    outcome = sgfast(capsys, "test", "--init", policy, capture(tmp_path, *ALL_RULES))
    assert outcome.status == 0 and outcome.out.startswith("# What worked in 6 packets") and not outcome.err


# Notebooks ------------------------------------------------------------------------------------------------------------


def test_a_notebook_says_first_why_an_answer_is_not_conclusive(tmp_path: Path) -> None:
    policy, path = package.load(SHOP[0]), cut_shop(tmp_path)
    changed = policy.diff(PCAPS / "shop.proposed.yaml", path).traffic
    answers = (policy.replay(path), changed, policy.check(captures=path), package.suggest(path, instances=policy))
    for answer in answers:
        assert answer is not None and answer._repr_html_().startswith("<p>Cannot tell: the capture cut "), answer


def test_a_notebook_does_not_say_that_nothing_would_break_if_answers_are_missing(tmp_path: Path) -> None:
    nothing = "No connection that was answered in the captures would break."
    policy = package.load(write_policy(tmp_path))
    assert nothing not in policy.replay(only_openers(tmp_path))._repr_html_()
    sound = capture(tmp_path, *ALL_RULES)
    assert nothing in policy.replay(sound)._repr_html_() and "<p>Cannot" not in policy.replay(sound)._repr_html_()
    # The reference engine does not follow what would break.
    assert nothing not in policy.replay(sound, engine="reference")._repr_html_()
