"""Reports about a large account name the heaviest pairs of groups, and call everything by names (SPEC 10.24, 10.28)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from accounts import account
from command import sgfast, write_capture
from effort import some
from frames import ethernet, ip, tcp

from sgfast.loading import load_policy

Capsys = pytest.CaptureFixture[str]
Pair = tuple[int, str, str, str]
#: An end in text, Markdown, and the page: its name, and the number of instances.
_END = r"(\S+)(?: \(\d+ instances\))?"


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_all_forms_name_the_same_heaviest_pairs_and_their_sums_add_up(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = account(tmp_path, some(5_000, 200_000))
    page = tmp_path / "page.html"
    command = ("replay", policy, capture)
    text = sgfast(capsys, *command, "--report", page).out
    summary = json.loads(sgfast(capsys, *command, "--json", "--top", "10").out)
    rows = summary["would_break"]
    pairs = [(row["connections"], row["from"]["name"], row["to"]["name"], row["service"]) for row in rows]
    total = sum(row["connections"] for row in rows) + summary["not_listed"]["would_break"]["connections"]
    assert len(pairs) == 10 and pairs == sorted(pairs, key=lambda pair: -pair[0]) and total == _total(text)
    assert all(pair[1].startswith("team-") and pair[2].startswith("team-") for pair in pairs)
    # Rows that are as large as others come in the same order, whatever --top says.
    every = json.loads(sgfast(capsys, *command, "--json", "--top", "100000").out)
    assert every["would_break"][:10] == rows and sum(row["connections"] for row in every["would_break"]) == total

    listed = text[text.index("Would break: ") :].partition("\n\n")[0]
    assert _pairs(rf"^ +([\d,]+)  {_END} -> {_END}: (\S+) \(no-rule\)", listed) == pairs
    assert _left(listed) + sum(pair[0] for pair in pairs) == total

    markdown = sgfast(capsys, *command, "--format", "markdown").out
    listed = markdown[markdown.index("Would break: ") :].partition("####")[0].replace("`", "").replace("\\", "")
    shown = _pairs(rf"^\| ([\d,]+) \| {_END} \| {_END} \| (\S+) \|", listed)
    assert shown[:10] == pairs and len(shown) == 20 and _left(listed) + sum(pair[0] for pair in shown) == total

    (table,) = re.findall(r'<table [^>]*data-table="broken".*?</table>', page.read_text(encoding="utf-8"), re.S)
    words = re.sub(r"<[^>]+>", " ", re.sub(r"</t[dh]>", "|", table))
    (head, *cells) = (re.sub(r"\s+", " ", row) for row in re.findall(r"(.*?\|.*?\|.*?\|.*?\|.*?\|)", words, re.S))
    assert _pairs(rf"([\d,]+)\| {_END} *\| {_END} *\| (\S+) *\|", "\n".join(cells[:10])) == pairs, head


def _pairs(pattern: str, text: str) -> list[Pair]:
    found = re.findall(pattern, text, re.M)
    return [(number(count), source, destination, service) for count, source, destination, service in found]


def _total(text: str) -> int:
    (total,) = re.findall(r"^([\d,]+) connections would break", text)
    return number(total)


def _left(text: str) -> int:
    (left,) = re.findall(r"and [\d,]+ more pairs \(([\d,]+) connections\)", text)
    return number(left)


def _aws_account(folder: Path) -> Path:
    """Two groups of one name, so that their ids are their names, and interfaces without names."""
    groups = [("sg-1", "web prod"), ("sg-2", "web prod")]
    rules = [("sgr-1", "sg-1", 443, {"CidrIpv4": "0.0.0.0/0"}, "HTTPS for all"),
             ("sgr-2", "sg-2", 5432, {"ReferencedGroupInfo": {"GroupId": "sg-1"}}, "")]  # fmt: skip
    interfaces = [("eni-1", "10.0.0.5", "sg-1", "ELB app/front/50dc"), ("eni-2", "10.0.0.6", "sg-2", "RDS of orders")]
    export = {
        "SecurityGroups": [
            {"GroupId": group, "GroupName": name, "Description": "-", "VpcId": "vpc-1"} for group, name in groups
        ],
        "SecurityGroupRules": [
            {"SecurityGroupRuleId": rule, "GroupId": group, "IsEgress": False, "IpProtocol": "tcp", "FromPort": port,
             "ToPort": port, "Description": words, **peer}
            for rule, group, port, peer, words in rules
        ],
        "NetworkInterfaces": [
            {"NetworkInterfaceId": interface, "VpcId": "vpc-1", "Description": words, "RequesterId": "amazon-elb",
             "PrivateIpAddress": address, "Groups": [{"GroupId": group}], "Attachment": {"AttachmentId": "a-1"}}
            for interface, address, group, words in interfaces
        ],
    }  # fmt: skip
    path = folder / "account.json"
    path.write_text(json.dumps(export), encoding="utf-8")
    return path


def test_no_report_names_an_object_by_a_bare_id(capsys: Capsys, tmp_path: Path) -> None:
    policy, page = _aws_account(tmp_path), tmp_path / "page.html"
    calls = [("198.51.100.7", "10.0.0.5", 443), ("198.51.100.7", "10.0.0.5", 80), ("198.51.100.7", "10.0.0.6", 5432)]
    frames = []
    for client, server, port in calls:
        frames.append(ethernet(ip(client, server, tcp(2000, port, "S"))))
        frames.append(ethernet(ip(server, client, tcp(port, 2000, "SA"))))
    capture = write_capture(tmp_path, *frames)
    command = ("replay", policy, capture)
    text = " ".join(sgfast(capsys, *command, "--report", page).out.split())
    assert "1 198.51.100.7 -> ELB app/front/50dc (eni-1): tcp/80 (no-rule)" in text
    assert 'nearest is "HTTPS for all", inbound tcp/443 from 0.0.0.0/0 (sgr-1 in web prod): its port is 443' in text
    assert "its source is group web prod (sg-1), and 198.51.100.7 is not in that group" in text
    assert "Never hit: inbound tcp/5432 from group web prod (sg-1) (sgr-2 in web prod)" in text
    markdown = sgfast(capsys, *command, "--format", "markdown").out
    shown = re.sub(r"<template.*?</template>|<[^>]+>", "", page.read_text(encoding="utf-8"), flags=re.S)
    assert "ELB app/front/50dc (eni-1)" in shown and "No inbound rule of web prod (sg-2) matches." in shown
    bare = re.compile(r"(?<!\()\b(?:sg|eni|sgr)-\d")
    assert not bare.search(text) and not bare.search(markdown.replace("\\", ""))
    summary = json.loads(sgfast(capsys, *command, "--json").out)
    (row,) = (row for row in summary["would_break"] if row["service"] == "tcp/80")
    assert (row["to"]["name"], row["to"]["called"]) == ("eni-1", "ELB app/front/50dc (eni-1)")
    used = summary["rules"]
    assert ("sgr-1", "tcp/443 from 0.0.0.0/0", "HTTPS for all") in {
        (rule["rule"], rule["text"], rule["description"]) for rule in used
    }


def test_the_description_of_an_instances_own_interface_is_no_name(tmp_path: Path) -> None:
    path = _aws_account(tmp_path)
    export = json.loads(path.read_text(encoding="utf-8"))
    export["NetworkInterfaces"][0]["Attachment"]["InstanceId"] = "i-1"
    path.write_text(json.dumps(export), encoding="utf-8")
    instances = load_policy(path).instance_by_name
    assert [instances[name].label for name in ("eni-1", "eni-2")] == ["", "RDS of orders"]
