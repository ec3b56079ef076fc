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

from sgfast.clouds.loading import load_policy

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


def _aws_capture(folder: Path) -> Path:
    calls = [("198.51.100.7", "10.0.0.5", 443), ("198.51.100.7", "10.0.0.5", 80), ("198.51.100.7", "10.0.0.6", 5432),
             ("10.0.0.6", "10.0.0.5", 22)]  # fmt: skip
    frames = []
    for client, server, port in calls:
        frames.append(ethernet(ip(client, server, tcp(2000, port, "S"))))
        frames.append(ethernet(ip(server, client, tcp(port, 2000, "SA"))))
    return write_capture(folder, *frames)


def _aws_change(folder: Path, policy: Path) -> Path:
    """Another policy, with one more rule for each of two groups. The second one makes another rule useless."""
    export = json.loads(policy.read_text(encoding="utf-8"))
    https, orders = export["SecurityGroupRules"]
    export["SecurityGroupRules"] += [
        {**https, "SecurityGroupRuleId": "sgr-3", "FromPort": 80, "ToPort": 80, "Description": "HTTP for all"},
        {**orders, "SecurityGroupRuleId": "sgr-4", "ToPort": 5433, "Description": "again"},
    ]
    changed = folder / "changed.json"
    changed.write_text(json.dumps(export), encoding="utf-8")
    return changed


_REPLAYED = [
    "1 198.51.100.7 -> ELB app/front/50dc (eni-1): tcp/80 (no-rule)",
    'nearest is "HTTPS for all", inbound tcp/443 from 0.0.0.0/0 (sgr-1 in web prod): its port is 443',
    "its source is group web prod (sg-1), and 198.51.100.7 is not in that group",
    "Never hit: inbound tcp/5432 from group web prod (sg-1) (sgr-2 in web prod)",
    "add to web prod (sg-1): - {direction: inbound, protocol: tcp, ports: 80, source: 198.51.100.7}",
]
_OPENED = 'opens tcp/80 of web prod (sg-1) to 0.0.0.0/0: "HTTP for all", inbound tcp/80 from 0.0.0.0/0 (sgr-3'
_EXPLAIN = ("explain", "POLICY", "--from", "198.51.100.7", "--protocol", "tcp")


@pytest.mark.parametrize(("command", "told"), [
    (("replay", "POLICY", "CAPTURE", "--show-rules"), _REPLAYED),
    ((*_EXPLAIN, "--to", "eni-1", "--port", "443"), [
        "to 10.0.0.5 (ELB app/front/50dc (eni-1)): allowed", "Into ELB app/front/50dc (eni-1), group web prod (sg-1)",
        'wins: "HTTPS for all", inbound tcp/443 from 0.0.0.0/0 (sgr-1 in web prod)',
    ]),
    ((*_EXPLAIN, "--to", "eni-2", "--port", "5432"), ["source: wants group web prod (sg-1), the packet has 198.51"]),
    (("suggest", "--policy", "POLICY", "CAPTURE", "--keep"), [
        "web prod (sg-1): tcp/80 from 198.51.100.7", "web prod (sg-1): tcp/22 from web prod (sg-2) (IPv4)",
    ]),
    (("diff", "POLICY", "CHANGED"), [_OPENED]),
    (("diff", "POLICY", "CHANGED", "CAPTURE"), [_OPENED, "NEW allow: \"HTTP for all\", inbound tcp/80"]),
    (("reach", "CHANGED"), ["0.0.0.0/0 web prod (sg-1) tcp/80,443"]),
    (("check", "CHANGED"), [
        "no rule of the group web prod (sg-1) lets anything out",
        'without it "again", inbound tcp/5432-5433 from group web prod (sg-1) (sgr-4 in web',
    ]),
], ids=lambda value: value[0] if isinstance(value, tuple) else "")  # fmt: skip
def test_no_report_names_an_object_by_a_bare_id(
    capsys: Capsys, tmp_path: Path, command: tuple[str, ...], told: list[str]
) -> None:
    policy = _aws_account(tmp_path)
    files = {"POLICY": policy, "CHANGED": _aws_change(tmp_path, policy), "CAPTURE": _aws_capture(tmp_path)}
    words = sgfast(capsys, *(files.get(word, word) for word in command)).out
    text = " ".join(words.split())
    assert [each for each in told if each not in text] == []
    # The words of a rule stand beside its id in findings, and below it in a list of rules that differ.
    bare = re.compile(r"(?<!\()\b(?:sg|eni|sgr)-\d(?! in web prod)")
    assert not bare.search("\n".join(line for line in words.split("\n") if "{direction:" not in line))


def test_page_markdown_and_json_have_the_same_names(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture, page = _aws_account(tmp_path), _aws_capture(tmp_path), tmp_path / "page.html"
    command = ("replay", policy, capture)
    assert sgfast(capsys, *command, "--report", page).status == 0
    markdown = sgfast(capsys, *command, "--format", "markdown").out
    text = page.read_text(encoding="utf-8")
    shown = re.sub(r"<template.*?</template>|<[^>]+>", "", text, flags=re.S)
    assert "ELB app/front/50dc (eni-1)" in shown and "No inbound rule of web prod (sg-2) matches." in shown
    assert "inbound tcp 5432 from group web prod (sg-1)" in shown
    assert re.search(r">[^<]*HTTPS for all[^<]*, inbound tcp/443 from [^<]*\(sgr-1 in web prod\)</span></td>", text)
    assert not re.search(r"(?<!\()\b(?:sg|eni|sgr)-\d", markdown.replace("\\", ""))
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
