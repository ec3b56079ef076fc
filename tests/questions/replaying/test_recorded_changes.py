"""The recording of ``pcaps/changes`` against a policy that changes meanwhile, and what was decided by hand.

``SGFAST_CHANGES_RECORDING`` names the directory of another recording, which must get the same verdicts.
"""

from __future__ import annotations

import csv
import os
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from recordings import PROGRAMS, Key, Line, Packets, connections, time_ns, verdict_lines

from sgfast.clouds.loading import load_policy
from sgfast.questions.replaying import ReplayResult

CHANGES = PROGRAMS.parent / "changes"
RECORDING = Path(os.environ.get("SGFAST_CHANGES_RECORDING", CHANGES)) / "network.pcap"
#: Number of connections that each time's changes disconnect; the table names them.
DISCONNECTED = {"6.1": 7, "12.65": 0, "17.05": 3, "23.65": 2, "29.15": 1}

both_engines = pytest.mark.parametrize("engine", ["fast", "reference"])
both_modes = pytest.mark.parametrize("mode", ["causal", "verbatim"])


class Row(NamedTuple):
    connection: str
    from_: str
    to: str
    way: str
    mode: str
    verdict: str
    reason: str
    rule: str
    because: str

    def holds(self, way: str, line: Line, first_ns: int) -> bool:
        at = Decimal(time_ns(line) - first_ns) / 10**9
        until = Decimal("Infinity") if self.to == "end" else Decimal(self.to)
        return self.way in ("both", way) and Decimal(self.from_) <= at < until

    def expected(self, packets: int) -> list[tuple[str, ...]]:
        """Verdict, reason and rule of each packet: ``a, b`` is one of the first, the other of those after it."""
        columns = [column.split(", ") for column in (self.verdict, self.reason, self.rule)]
        first, later = (tuple(column[end] for column in columns) for end in (0, -1))
        return [first, *[later] * (packets - 1)]


def table(mode: str) -> list[Row]:
    with open(CHANGES / "expected.tsv", newline="") as file:
        rows = [Row(*fields) for fields in csv.reader(file, delimiter="\t")][1:]
    assert {row.mode for row in rows} == {"any", "causal", "verbatim"}
    return [row for row in rows if row.mode in ("any", mode)]


@cache
def replayed(engine: str, mode: str) -> tuple[ReplayResult, list[Line]]:
    options: dict[str, Any] = {"engine": engine, "mode": mode, "changes": CHANGES / "changes.yaml"}
    return verdict_lines(load_policy(CHANGES / "policy.yaml"), RECORDING, **options)


def name(key: Key) -> str:
    return f"{key.protocol} {key.initiator} > {key.responder} {key.service}"


def ways(packets: Packets) -> list[tuple[str, Line]]:
    """A connection's packets in order, each with its way."""
    pairs = [("origin", line) for line in packets.origin] + [("reply", line) for line in packets.reply]
    return sorted(pairs, key=lambda pair: pair[1]["packet"])


def judgement(line: Line) -> tuple[str, str, str]:
    """Verdict, reason, and the rule of the side that decided."""
    sides = [side for side in (line["egress"], line["ingress"]) if side is not None]
    denying = [side for side in sides if side["verdict"] == "deny"]
    decided = (denying or sides)[-1] if sides else {"rule": None}
    return line["verdict"], line["reason"], decided["rule"] or "-"


@both_engines
@both_modes
def test_verdicts_over_time_are_those_decided_by_hand(engine: str, mode: str) -> None:
    _, lines = replayed(engine, mode)
    first_ns, found, rows = time_ns(lines[0]), connections(lines), table(mode)
    assert {name(key) for key in found} == {row.connection for row in rows}
    judged = 0
    for key, packets in found.items():
        for row in rows:
            if row.connection == name(key):
                got = [judgement(line) for way, line in ways(packets) if row.holds(way, line, first_ns)]
                assert got, f"no packet to judge: {row}"
                assert got == row.expected(len(got)), row
                judged += len(got)
    # No packet is missing from the table, or in two of its rows.
    assert judged == len(lines)


@both_engines
@both_modes
def test_each_change_disconnects_what_the_table_says(engine: str, mode: str) -> None:
    result, lines = replayed(engine, mode)
    cut = {(row.connection, row.from_) for row in table(mode) if row.reason == "disconnected"}
    assert {at: sum(since == at for _, since in cut) for at in DISCONNECTED} == DISCONNECTED
    by_time = dict.fromkeys(DISCONNECTED, 0)
    for change in result.changes:
        by_time[f"{Decimal(change.time_ns - time_ns(lines[0])) / 10**9}"] += change.disconnected
    assert by_time == DISCONNECTED
    assert result.connections["disconnected"] == len(cut) == 13
    assert len(result.changes) == 12 and result.changes_left == 0


def test_no_boundary_is_a_close_call() -> None:
    """A packet a little later, in another recording, falls on the same side of every change and deadline."""
    _, lines = replayed("fast", "causal")
    first_ns, rows = time_ns(lines[0]), table("causal")
    for key, packets in connections(lines).items():
        boundaries = {Decimal(row.from_) for row in rows if row.connection == name(key)} - {Decimal(0)}
        for _, line in ways(packets):
            at = Decimal(time_ns(line) - first_ns) / 10**9
            assert all(abs(at - boundary) > Decimal("0.2") for boundary in boundaries), (key, at)


@both_modes
def test_without_changes_nothing_is_denied(mode: str) -> None:
    """Only the changes deny what the table says is denied, and nothing else in the recording is denied."""
    result, _ = verdict_lines(load_policy(CHANGES / "policy.yaml"), RECORDING, mode=mode)
    assert result.verdicts["allow"] == result.packets > 1000
