"""``sgfast test`` and ``sgfast check --expect`` (SPEC 10.23): what they print, and how they end (SPEC 10.5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command import PCAPS, Outcome, handshake, sgfast, valid, write_capture, write_policy

from sgfast.rules.reaching.proving import Expectations

SHOP = PCAPS / "shop.yaml"
EXPECT = PCAPS / "shop.expect.yaml"
Capsys = pytest.CaptureFixture[str]

POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}
      - {id: closed, direction: inbound, protocol: tcp, ports: 81, action: deny}
  - {name: nobody}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
"""
HOLDS = "{from: internet, to: web, service: tcp/80, verdict: allow}"
FAILS = "{from: internet, to: web, service: tcp/80, verdict: deny, name: shut, why: Nobody sells anything.}"
EMPTY = "{from: nobody, to: web, service: all, verdict: deny}"
ACCEPTED = ("--accept-evidence", "about-nobody")


def write(folder: Path, *lines: str) -> Path:
    path = folder / "expect.yaml"
    path.write_text("expect:\n" + "".join(f"  - {line}\n" for line in lines))
    return path


def outcome_of(capsys: Capsys, folder: Path, *lines: str, options: tuple[str, ...] = ()) -> Outcome:
    return sgfast(capsys, "test", write_policy(folder, POLICY), write(folder, *lines), *options)


@pytest.mark.parametrize(
    ("lines", "status"), [((HOLDS,), 0), ((HOLDS, FAILS), 1), ((EMPTY, HOLDS), 1), ((EMPTY, FAILS, HOLDS), 1)]
)
@pytest.mark.parametrize("form", ["text", "json", "junit"])
def test_the_status_says_whether_all_expectations_are_proved(
    capsys: Capsys, tmp_path: Path, lines: tuple[str, ...], status: int, form: str
) -> None:
    assert outcome_of(capsys, tmp_path, *lines, options=("--format", form)).status == status


def test_text_shows_the_packet_and_the_rule_with_its_line(capsys: Capsys, tmp_path: Path) -> None:
    text = outcome_of(capsys, tmp_path, HOLDS, FAILS, EMPTY).out
    assert "1 of 3 expectations fails, 1 holds for all packets, 1 is about no packet" in " ".join(text.split())
    assert "FAILS  line 3: shut: internet to web: tcp/80 should be denied" in text
    assert "because: Nobody sells anything." in text
    assert "(web-1) is allowed by web/inbound/1" in " ".join(text.split())
    assert "web/inbound/1  tcp/80 from 0.0.0.0/0  line 6" in text
    assert "holds  line 2: internet to web: tcp/80 is allowed" in text
    assert "expect[2].from: no instance or address is in nobody" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80


def test_expectations_about_nobody_do_not_pass_as_proved(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 10.27: a group that has lost its last instance would make every expectation about it green."""
    strangers = "{from: 198.51.100.1, to: 198.51.100.2, service: all, verdict: deny}"
    text = outcome_of(capsys, tmp_path, EMPTY, strangers)
    assert text.status == 1
    assert text.out.startswith("Cannot tell: 2 of 2 expectations are about no packet, so they prove nothing")
    assert "sgfast test POLICY EXPECTATIONS with groups that have instances" in " ".join(text.out.split())
    for lines, conclusive, share in (
        ((EMPTY, strangers), "no", 1), ((EMPTY, HOLDS), "partly", 0.5), ((HOLDS,), "yes", 0),
    ):  # fmt: skip
        evidence = evidence_of(outcome_of(capsys, tmp_path, *lines, options=("--json",)).out)
        assert evidence["conclusive"] == conclusive
        found = [(each["code"], each["packets"], each["share"], each["accepted"]) for each in evidence["reasons"]]
        assert found == ([("about-nobody", len(lines) * share, share, False)] if share else [])


def test_a_user_who_accepts_expectations_about_nobody_is_told_all_the_same(capsys: Capsys, tmp_path: Path) -> None:
    accepted = outcome_of(capsys, tmp_path, EMPTY, HOLDS, options=ACCEPTED)
    assert accepted.status == 0 and "it proves nothing (accepted)" in " ".join(accepted.out.split())
    assert outcome_of(capsys, tmp_path, EMPTY, FAILS, options=ACCEPTED).status == 1
    evidence = evidence_of(outcome_of(capsys, tmp_path, EMPTY, options=(*ACCEPTED, "--json")).out)
    assert (evidence["conclusive"], evidence["reasons"][0]["accepted"]) == ("yes", True)


def evidence_of(text: str) -> Any:
    return valid("test", json.loads(text))["evidence"]


def test_a_long_list_is_cut_and_says_so(capsys: Capsys, tmp_path: Path) -> None:
    failing = [f"{{from: internet, to: web, service: tcp/80, verdict: deny, name: n{n}}}" for n in range(30)]
    lines = outcome_of(capsys, tmp_path, *failing, *[HOLDS] * 30, *[EMPTY] * 30).out.splitlines()
    assert len(lines) <= 60
    for word in ("and 25 more that fail", "and 25 more that hold", "and 25 more warnings"):
        assert any(word in line for line in lines), word


def test_json_has_the_counterexample_as_explain_shows_it(capsys: Capsys, tmp_path: Path) -> None:
    found = valid("test", json.loads(outcome_of(capsys, tmp_path, HOLDS, FAILS, EMPTY, options=("--json",)).out))
    assert [found[word] for word in ("holds", "fails", "empty")] == [1, 1, 1]
    held, failed, empty = found["results"]
    assert (held["outcome"], held["counterexample"], held["cause"]) == ("holds", None, None)
    assert (failed["outcome"], failed["name"], failed["line"]) == ("fails", "shut", 3)
    shown = failed["counterexample"]
    again = sgfast(
        capsys, "explain", tmp_path / "policy.yaml", "--from", shown["from"]["address"], "--to", "web-1",
        "--protocol", shown["protocol"], "--port", shown["port"], "--json",
    )  # fmt: skip
    assert {**json.loads(again.out), "vpc": None} == {**shown, "vpc": None}
    assert (empty["outcome"], empty["nobody"]) == ("empty", ["nobody"]) and len(found["warnings"]) == 1


# JUnit ----------------------------------------------------------------------------------------------------------------

#: Children that each element may have, and attributes that it must have, as the tools that read the format agree.
CHILDREN = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "skipped"}}
REQUIRED = {"testsuite": {"name", "tests", "failures", "errors", "skipped", "time"}, "testcase": {"name", "classname"}}


def junit(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)
    for parent in root.iter():
        assert {child.tag for child in parent} <= CHILDREN.get(parent.tag, set())
        assert REQUIRED.get(parent.tag, set()) <= parent.attrib.keys()
    for each in (root, *root):
        cases = [*each.iter("testcase")]
        for count, tag in (("failures", "failure"), ("skipped", "skipped")):
            assert int(each.attrib[count]) == sum(case.find(tag) is not None for case in cases)
        assert int(each.attrib["tests"]) == len(cases) and each.attrib["errors"] == "0"
    return root


def test_junit_has_a_case_for_each_expectation(capsys: Capsys, tmp_path: Path) -> None:
    root = junit(outcome_of(capsys, tmp_path, HOLDS, FAILS, EMPTY, options=("--format", "junit")).out)
    held, failed, empty = root.iter("testcase")
    assert len(held) == 0 and held.attrib["name"] == "1. internet to web: tcp/80 allow"
    failure = failed.find("failure")
    assert failure is not None and "is allowed by web/inbound/1" in failure.attrib["message"]
    assert failed.attrib["name"] == "shut" and "because: Nobody sells anything." in str(failure.text)
    unproved = empty.find("failure")
    assert unproved is not None and "no instance or address is in nobody" in unproved.attrib["message"]
    accepted = (*ACCEPTED, "--format", "junit")
    *_, empty = junit(outcome_of(capsys, tmp_path, HOLDS, EMPTY, options=accepted).out).iter("testcase")
    assert empty.find("failure") is None and empty.find("skipped") is not None


def test_what_xml_cannot_hold_is_escaped(capsys: Capsys, tmp_path: Path) -> None:
    policy = tmp_path / "a<&\">\x01\udcff\n.yaml"
    policy.write_text(POLICY)
    expect = write(tmp_path, '{from: any, to: web, service: all, verdict: deny, why: "<&>]]>\\" é", name: "☃ <x>"}')
    outcome = sgfast(capsys, "test", policy, expect, "--format", "junit")
    assert outcome.status == 1 and outcome.out.isascii()
    (case,) = junit(outcome.out).iter("testcase")
    assert case.attrib["name"] == "☃ <x>"


# Wrong usage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SHOP, EXPECT, EXPECT), "name one EXPECTATIONS file; captures need --init"),
        ((SHOP, EXPECT, "--dedup"), "--vpc and the options for reading captures need --init"),
        ((SHOP, EXPECT, "--vpc", "default"), "--vpc and the options for reading captures need --init"),
        ((SHOP, EXPECT, "-o", "x"), "--output needs --init"),
        (("--init", SHOP, PCAPS / "shop.pcap", "--json"), "leave it out with --init"),
        (("-", "-"), "standard input (-) can be read only once"),
        (("--init", "-", "-"), "standard input (-) can be read only once"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    capsys: Capsys, arguments: tuple[object, ...], message: str
) -> None:
    outcome = sgfast(capsys, "test", *arguments)
    assert outcome.status == 2 and message in outcome.err and outcome.out == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{from: wep, to: web, service: all, verdict: deny}", "expect.yaml:2: expect[0].from: 'wep' is no instance"),
        ("{from: any, to: [web, 10.0.0.1/8], service: all, verdict: deny}", "expect[0].to[1]: '10.0.0.1/8': host bits"),
        ("{from: any, to: web, service: tpc/80, verdict: deny}", "expect[0].service: 'tpc/80' is no service: write"),
        ("{from: any, to: web, service: [all, gre/1], verdict: deny}", "expect[0].service[1]: 'gre/1' is no service"),
    ],
)
def test_a_word_that_means_nothing_is_told_with_its_place(
    capsys: Capsys, tmp_path: Path, line: str, message: str
) -> None:
    """SPEC 2.14."""
    outcome = outcome_of(capsys, tmp_path, line)
    assert outcome.status == 2 and message in outcome.one_line()


# Captures -------------------------------------------------------------------------------------------------------------


def test_init_writes_a_file_that_says_which_lines_fail(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path, POLICY)
    capture = write_capture(tmp_path, *handshake(1000, 80), *handshake(1001, 8080), *handshake(1002, 80))
    written = tmp_path / "first.yaml"
    outcome = sgfast(capsys, "test", "--init", policy, capture, "-o", written, "-q")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert sgfast(capsys, "test", "--init", policy, capture).out == written.read_text()
    found: Any = json.loads(sgfast(capsys, "test", policy, written, "--json").out)
    assert [(each["service"], each["outcome"]) for each in found["results"]] == [
        (["tcp/80"], "holds"), (["tcp/8080"], "fails")
    ]  # fmt: skip
    assert written.read_text().count("The policy denies this") == 1


def test_init_of_a_damaged_capture_ends_as_a_replay_does(capsys: Capsys, tmp_path: Path) -> None:
    capture = write_capture(tmp_path, *handshake(1000, 80))
    capture.write_bytes(capture.read_bytes() + b"\0" * 7)
    outcome = sgfast(capsys, "test", "--init", write_policy(tmp_path, POLICY), capture)
    assert outcome.status == 3 and "tcp/80" in outcome.out


def test_init_without_anything_that_worked_is_an_error(capsys: Capsys, tmp_path: Path) -> None:
    capture = write_capture(tmp_path, *handshake(1000, 80)[:1])
    outcome = sgfast(capsys, "test", "--init", write_policy(tmp_path, POLICY), capture)
    assert outcome.status == 2 and "no connection of an instance was answered" in outcome.one_line()


# Findings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "about", "at"),
    [
        ("{from: internet, to: web, service: tcp/80, verdict: deny}", ("web", "web/inbound/1"), 6),
        ("{from: internet, to: web, service: tcp/81, verdict: allow}", ("web", "closed"), 7),
        ("{from: internet, to: web, service: gre, verdict: allow}", ("web", None), 4),
        ("{from: web, to: internet, service: gre, verdict: allow}", ("web", None), 4),
    ],
)
def test_check_finds_what_an_expectation_contradicts_where_it_is_decided(
    capsys: Capsys, tmp_path: Path, line: str, about: tuple[str, str | None], at: int
) -> None:
    policy, expect = write_policy(tmp_path, POLICY), write(tmp_path, line, HOLDS, EMPTY)
    outcome = sgfast(capsys, "check", policy, "--expect", expect, "--json", "--fail-on", "SG014")
    assert outcome.status == 1
    found = valid("check", json.loads(outcome.out))
    (finding,) = (each for each in found["findings"] if each["code"] == "SG014")
    assert (finding["group"], finding["rule"]) == about and (finding["severity"], finding["line"]) == ("error", at)
    assert "expect.yaml:2: expect[0]" in finding["message"] and ", but " in finding["message"]
    assert any("is in nobody" in warning for warning in found["warnings"])
    log = json.loads(sgfast(capsys, "check", policy, "--expect", expect, "--format", "sarif").out)
    (result,) = (each for each in log["runs"][0]["results"] if each["ruleId"] == "SG014")
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": at}


def test_check_without_failures_is_as_before(capsys: Capsys, tmp_path: Path) -> None:
    policy, expect = write_policy(tmp_path, POLICY), write(tmp_path, HOLDS)
    assert sgfast(capsys, "check", policy, "--expect", expect).out == sgfast(capsys, "check", policy).out


def test_the_engine_has_the_last_word(capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counterexample that the engine does not confirm would be a fault of sgfast, and is never shown."""
    found = Expectations._contradiction
    monkeypatch.setattr(
        Expectations, "_contradiction", lambda self, meant, wanted: found(self, meant, "deny")  # what it allows
    )
    outcome = outcome_of(capsys, tmp_path, HOLDS)
    assert outcome.status == 2 and "internal error" in outcome.one_line() and outcome.out == ""
