"""Limits of lists: what matters least is cut, its sum is reported, and no option takes other rows away."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from command import PCAPS, SHOP, sgfast
from diffs import traffic_diff as diff
from reports import diff_text, text_report

from sgfast import replay
from sgfast.cli import printing
from sgfast.clouds.loading import load_policy
from sgfast.policy.model import Rule
from sgfast.questions.comparing import MovedTraffic
from sgfast.questions.replaying import RuleHits
from sgfast.rules.reaching.difference import difference

Capsys = pytest.CaptureFixture[str]
SUGGEST = ("suggest", SHOP[1], "--instances", SHOP[0])


def amounts(text: str) -> list[int]:
    """The connections of the suggested rules."""
    return [int(number) for number in re.findall(r"^ +(\d+) +[\d.]+ k?B  ", text, re.M)]


def test_the_suggested_rules_that_are_listed_have_most_connections(capsys: Capsys) -> None:
    """SPEC 10.15."""
    every = amounts(sgfast(capsys, *SUGGEST).out)
    text = sgfast(capsys, *SUGGEST, "--top", "3").out
    assert sorted(amounts(text)) == sorted(every)[-3:]
    left = sum(every) - sum(amounts(text))
    assert f"and {len(every) - 3} more rules ({left} connections): --top {len(every)} lists all" in text


def test_the_option_for_what_is_left_out_takes_no_suggested_rule_away(capsys: Capsys) -> None:
    """SPEC 10.15."""
    text = sgfast(capsys, *SUGGEST).out
    options = re.findall(r"more pairs? \(.*\): --top (\d+) lists all", text)
    assert options
    for option in options:
        assert amounts(sgfast(capsys, *SUGGEST, "--top", option).out) == amounts(text)


def test_pairs_of_rules_that_are_not_listed_are_added_up() -> None:
    """SPEC 10.14."""
    old, new = load_policy(SHOP[0]), load_policy(PCAPS / "shop.proposed.yaml")
    moves = [MovedTraffic(f"old-{n}", "web", f"new-{n}", "web", 100 - n) for n in range(13)]
    result = replace(diff(old, new, SHOP[1]), moved=moves, moved_others=7)
    text = diff_text(difference(old, new), result)
    assert "and 3 more pairs (267 connections): --top 13 lists all" in text
    assert "Pairs that were not counted apart have 7 connections" in text


def test_long_names_of_groups_do_not_break_the_table_of_rules() -> None:
    found = replay(*SHOP[:1], SHOP[1:])
    group = "a-group-with-a-rather-long-name-of-nearly-sixty-characters"
    found.rules = [RuleHits(Rule(f"{group}/inbound/{n}", "inbound", 4), group, 1, 2, 300) for n in range(5)]
    text = text_report(found)
    table = text[text.index("Rules: 5 of 5 were hit") :].partition("\n\n")[0].splitlines()[2:]
    assert len(table) == 10 and all("1        2  300 B" in line for line in table[::2]), table


@pytest.mark.parametrize("name", ["check", "suggest"])
def test_a_terminal_that_shows_both_streams_is_told_of_damage_once(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damaged = tmp_path / "cut.pcap"
    damaged.write_bytes(Path(SHOP[1]).read_bytes()[:-10])
    command = {"check": ("check", SHOP[0], "--traffic", damaged), "suggest": ("suggest", damaged)}[name]
    for is_terminal, times in ((False, 2), (True, 1)):
        monkeypatch.setattr(printing, "is_terminal", lambda stream, says=is_terminal: says)
        done = sgfast(capsys, *command)
        assert done.status == 3 and " ".join((done.out + done.err).split()).count("damaged at byte") == times
