"""Connections that ``sgfast suggest`` makes no rule for are folded, and nothing is lost (SPEC 10.15, 10.24)."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from command import SHOP, sgfast, valid
from effort import some
from traffic import Crowd, as_capture, drawn, stateful

from sgfast.base.evidence import CODES
from sgfast.clouds.loading import load_policy
from sgfast.policy.model import Policy
from sgfast.questions.suggesting import Limits, observing, suggest
from sgfast.report.json.suggestion import suggestion_answer
from sgfast.report.rollup import By
from sgfast.report.rollup.observed import ObservedRollup

BY: tuple[By, ...] = ("group", "instance", "address", "service")


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_every_way_of_folding_adds_up_to_what_was_left_out(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @drawn(20261130, some(3, 30))
    def check(policy: Policy, case_seed: int) -> None:
        policy = replace(stateful(policy), settings=replace(policy.settings, max_connections=1_000_000))
        capture = as_capture(tmp_path, Crowd(policy, np.random.default_rng(case_seed)).draw(1000))
        limits = Limits(min_connections=3)
        found = suggest([capture], instances=policy, limits=limits, accept_evidence=tuple(CODES))
        for left in found.left_out:
            seen[left.reason] += left.evidence.connections
            rollup = ObservedRollup(found.policy, left.kinds)
            for by, most in product(BY, (1, 3, 10**6)):
                folded = rollup.fold("observed", by=by, most=most)
                for name in ("connections", "packets"):
                    listed = sum(getattr(row, name) for row in folded.rows)
                    listed += getattr(folded, f"unlisted_{name}")
                    assert listed == getattr(left.evidence, name), (by, most)
                assert len(folded.rows) <= most and (folded.unlisted_rows == 0) == (folded.unlisted_connections == 0)
            ends: Counter[tuple[str, str]] = Counter()
            for kind, evidence in left.kinds.items():
                names = (kind.egress, kind.ingress)
                addresses = (str(ip_address(end)) for end in (kind.initiator, kind.responder))
                source, destination = (name or address for name, address in zip(names, addresses, strict=True))
                ends[source, destination] += evidence.connections
            told: Counter[tuple[str, str]] = Counter()
            for row in rollup.fold("observed", by="address", most=10**6).rows:
                told[row.source.text, row.destination.text] += row.connections
            assert told == ends
        valid("suggestion", json.loads(json.dumps(suggestion_answer(found, "instance", 2))))

    check()
    print(seen)
    assert seen["unanswered"] > 50 and seen["fewer than 3 of one service and peer"] > 50, seen


@pytest.mark.parametrize("by", BY)
def test_the_text_counts_the_rows_that_it_does_not_list(capsys: pytest.CaptureFixture[str], by: By) -> None:
    command = ("suggest", SHOP[1], "--instances", SHOP[0], "--min-connections", "2", "--by", by)
    text = sgfast(capsys, *command, "--top", "2").out
    parts = re.split(r"^Left out: ([\d,]+) connections?: ", text, flags=re.M)[1:]
    assert len(parts) == 6
    for total, part in zip(parts[::2], parts[1::2], strict=True):
        rows = re.findall(r"^ +([\d,]+)  ", part, re.M)
        left = re.findall(r"and [\d,]+ more (?:pair|row)s? \(([\d,]+) connections?\): --top (\d+)", part)
        assert sum(map(number, rows)) + sum(number(each[0]) for each in left) == number(total), part
        assert len(rows) <= 2
    options = [int(top) for top in re.findall(r"--top (\d+) lists", text[text.index("Left out") :])]
    assert options or by == "service"
    every = sgfast(capsys, *command, "--top", str(max(options, default=2))).out
    assert not re.search("more (row|pair)", every[every.index("Left out") :])


def test_connections_of_too_many_kinds_have_a_total_and_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "MOST_KINDS", 30)
    told = suggestion_answer(suggest([SHOP[1]], instances=load_policy(SHOP[0])))
    (left,) = [left for left in told["left_out"] if left["reason"] == "too many kinds of connections"]
    assert left["connections"] > 0 and left["rows"] == [] and left["not_listed"]["connections"] == 0
    valid("suggestion", json.loads(json.dumps(told)))
