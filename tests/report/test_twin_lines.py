"""Reports list a rule of AWS that is for both IP versions once, with the numbers of both added up (SPEC 2.16)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from aws_account import LB, LB_IPV4, LB_IPV6, WEB_IPV4, WEB_IPV6, account, permission
from command import handshake, sgfast, valid, write_capture

BOTH = ((LB_IPV4, WEB_IPV4), (LB_IPV6, WEB_IPV6))


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """One connection over IPv4 and two over IPv6."""
    frames = [frame for port, ends in ((4000, BOTH[0]), (4001, BOTH[1]), (4002, BOTH[1]))
              for frame in handshake(port, 80, *ends)]  # fmt: skip
    return write_capture(tmp_path, *frames)


def written(folder: Path, document: dict[str, Any], name: str = "account.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def test_hits_of_both_ip_versions_are_one_line_of_text_markdown_and_page_but_two_rules_in_json(
    tmp_path: Path, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = written(tmp_path, account([permission(80, LB), permission(81, LB)]))
    page = tmp_path / "page.html"
    text = sgfast(capsys, "replay", policy, capture, "--report", page).out
    assert "Rules: 2 of 3 were hit" in text
    assert re.findall(r"^ *(\d+) .*(lb/outbound/\d|web/inbound/\d)$", text, re.M) == [
        ("3", "lb/outbound/1"), ("3", "web/inbound/1")
    ] and "Never hit: web/inbound/3\n" in text  # fmt: skip
    markdown = sgfast(capsys, "replay", policy, capture, "--format", "markdown").out
    assert len(re.findall(r"^\| 3 \| 9 \|.*(?:lb/outbound/1|web/inbound/1)", markdown, re.M)) == 2
    by_rule = sgfast(capsys, "replay", policy, capture, "--by", "rule").out
    assert "/2" not in text + markdown + by_rule
    hits = page.read_text()
    hits = hits[hits.index('data-table="rules"') : hits.index('data-table="verdicts"')]
    assert "web/inbound/1" in hits and "web/inbound/2" not in hits and "web/inbound/4" not in hits
    rules = valid("summary", json.loads(sgfast(capsys, "replay", policy, capture, "--json").out))["rules"]
    assert [(each["rule"], each["connections"]) for each in rules if each["group"] == "web"] == [
        ("web/inbound/1", 1), ("web/inbound/2", 2), ("web/inbound/3", 0), ("web/inbound/4", 0)
    ]  # fmt: skip


def test_rules_that_differ_are_listed_once_with_the_connections_of_both_ip_versions(
    tmp_path: Path, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = written(tmp_path, account([permission(80, LB), permission(81, LB)]), "old.json")
    new = written(tmp_path, account([permission(81, LB)]), "new.json")
    text = sgfast(capsys, "diff", old, new, capture).out
    made = text[text.index("Rules that make the difference") :]
    assert re.findall(r"web/inbound/\d in web, \w+: .*|OLD .*", made)[:2] == [
        "web/inbound/1 in web, removed: 3 newly denied", "OLD allow inbound tcp 80 from group lb"
    ]  # fmt: skip
    assert "web/inbound/2" not in sgfast(capsys, "diff", old, new).out


def test_explain_shows_the_rule_without_a_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(policy: Path, client: str, server: str, port: int) -> str:
        ends = ("--from", client, "--to", server, "--protocol", "tcp", "--port", port)
        return sgfast(capsys, "explain", policy, *ends).out

    policy = written(tmp_path, account([permission(80, LB)]))
    for client, server in BOTH:
        text = asked(policy, client, server, 80)
        assert "web/inbound/1  tcp/80 from group lb\n" in text and "lb/outbound/1  tcp/80 to group web\n" in text
        assert "web/inbound/1  tcp/80 from group lb\n" in asked(policy, client, server, 81)
