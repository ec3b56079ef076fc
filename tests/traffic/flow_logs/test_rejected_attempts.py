"""Attempts that the cloud rejected have rows in every form of the report, whatever the policy says of them
(SPEC 10.31)."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from command import sgfast
from flow_logs import BEFORE, FIELDS, flow, refused

from sgfast import replay, suggest
from sgfast.questions.replaying import ReplayResult

POLICY = """
version: 1
security_groups:
  - {name: web, rules: [{direction: inbound, protocol: tcp, ports: 443}, {direction: outbound, protocol: all}]}
  - {name: db, rules: [{direction: inbound, protocol: tcp, ports: 5432, source: web}]}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: db-1, addresses: [10.0.1.9], security_groups: [db]}
"""
TCP = {"protocol": 6, "packets": 1, "octets": 60}
SERVED = [
    flow("192.0.2.9:50000 > 10.0.0.5:443", 1, 9, protocol=6, flags=3, packets=5),
    flow("10.0.0.5:443 > 192.0.2.9:50000", 1, 9, protocol=6, flags=19, packets=5),
]
#: 20 attempts of which the policy denies 12, at several services, and allows 8.
OPENING = [refused(flow(f"10.0.0.5:{40000 + n} > 10.0.1.9:5432", 10 + n, flags=2, **TCP)) for n in range(8)]
STAYING = [
    refused(flow(f"192.0.2.{20 + n % 3}:{41000 + n} > 10.0.1.9:{22 + n % 4}", 30 + n, flags=2, **TCP))
    for n in range(12)
]


def written(folder: Path, *lines: str, policy: str = POLICY) -> tuple[Path, Path]:
    path, log = folder / "policy.yaml", folder / "flows.log"
    path.write_text(policy)
    log.write_text("".join(f"{line}\n" for line in (FIELDS, BEFORE, *SERVED, *lines)))
    return path, log


def answered(folder: Path, *lines: str, **options: Any) -> ReplayResult:
    return replay(*written(folder, *lines), **options)


def test_a_log_full_of_rejections_is_not_a_log_without_denials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, log = written(tmp_path, *STAYING)
    page = tmp_path / "page.html"
    outcome = sgfast(capsys, "replay", policy, log, "-q", "--report", page)
    text = " ".join(outcome.out.split())
    assert text.startswith("No connection that was answered would break, 12 rejected attempts denied here, too ")
    assert "Nothing that the cloud accepted was denied" in text and "Nothing was denied" not in text
    assert "The cloud rejected these attempts, and these groups deny them, too" in text
    assert "3 public addresses -> db-1: tcp (4 ports) (no-rule)" in text or "tcp/22 (no-rule)" in text
    html = page.read_text()
    assert "Nothing is denied" not in html and "<h1" in html and "Nothing that worked would break</h1>" in html
    assert "12 rejected attempts denied here, too." in html and 'id="rejected-denied"' in html
    assert 'id="rejected"' not in html


def test_without_rejections_nothing_is_said_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, log = written(tmp_path)
    page = tmp_path / "page.html"
    outcome = sgfast(capsys, "replay", policy, log, "-q", "--report", page)
    assert "Nothing was denied" in outcome.out and "rejected" not in outcome.out
    assert "Nothing is denied" in page.read_text()


@pytest.mark.parametrize(("lines", "words"), [
    ((), ""), (OPENING, ", 8 rejected attempts would open"), (STAYING[:1], ", 1 rejected attempt denied here, too"),
    (OPENING + STAYING, ", 8 of 20 rejected attempts would open"),
])  # fmt: skip
def test_the_headline_has_the_number_of_rejected_attempts(lines: list[str], words: str, tmp_path: Path) -> None:
    told = str(answered(tmp_path, *lines)).replace("\n", " ")
    assert told.startswith(f"No connection that was answered would break{words} ")


def test_rejected_attempts_are_rows_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("replay", *written(tmp_path, *OPENING, *STAYING), "-q", "--json", "--by", "address")
    found = json.loads(sgfast(capsys, *arguments).out)["rejected"]
    assert (found["attempts"], found["allowed"], found["denied"]) == (20, 8, 12)
    rows = {name: [
        (row["from"]["name"], row["to"]["name"], row["service"], row["connections"], row["reason"])
        for row in found[name]
    ] for name in ("would_open", "also_denied")}  # fmt: skip
    assert rows["would_open"] == [("web-1", "db-1", "tcp/5432", 8, "rule")]
    assert len(rows["also_denied"]) == 12 and {row[1::2] for row in rows["also_denied"]} == {("db-1", 1)}
    assert {row[4] for row in rows["also_denied"]} == {"no-rule"}
    assert found["also_denied"][0]["nearest"][0]["rule"] == "db/inbound/1"
    top = json.loads(sgfast(capsys, *arguments, "--top", "5").out)["rejected"]
    assert len(top["also_denied"]) == 5 and top["not_listed"]["also_denied"]["connections"] == 7
    assert top["not_listed"]["would_open"]["rows"] == 0


def test_the_ten_largest_are_shown_and_the_others_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # One attempt of many packets is not larger than several of one packet.
    long = refused(flow("192.0.2.77:42000 > 10.0.1.9:9999", 60, protocol=6, flags=2, packets=6, octets=360))
    rows = [refused(flow(f"192.0.2.20:{43000 + n} > 10.0.1.9:22", 70 + n, flags=2, **TCP)) for n in range(3)]
    arguments = ("replay", *written(tmp_path, *STAYING, long, *rows), "-q", "--by", "instance")
    text = sgfast(capsys, *arguments).out
    assert "and 3 more pairs (3 attempts)" in " ".join(text.split())
    listed = text[text.index("deny them, too") :].splitlines()[1:]
    assert listed[0].split() == ["4", "192.0.2.20", "->", "db-1:", "tcp/22", "(no-rule)"]
    assert "more pairs" not in sgfast(capsys, *arguments, "--top", "13").out
    markdown = sgfast(capsys, *arguments, "--format", "markdown").out
    assert markdown.count("| no-rule |") == 13 and "The cloud rejected these attempts" in markdown


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_rejected_attempts_are_in_the_list_of_connections(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"connections.{ending}"
    arguments = ("replay", *written(tmp_path, *OPENING, *STAYING), "-q", "--connections", path)
    assert sgfast(capsys, *arguments).status == 0
    lines = path.read_text().splitlines()
    rows = list(csv.DictReader(lines)) if ending == "csv" else [json.loads(line) for line in lines]
    rejected = [row for row in rows if row["answer"] == "rejected"]
    assert len(rows) == 21 and len(rejected) == 20
    assert [row["verdict"] for row in rejected].count("allow") == 8
    assert {row["initiator"] for row in rejected if row["verdict"] == "allow"} == {"10.0.0.5"}
    table = [*answered(tmp_path, *OPENING, *STAYING, tables="connections").tables.connections]
    assert [row["answer"] for row in table].count("rejected") == 20
    assert [row["first_packet"] for row in table].count(None) == 20


@pytest.mark.parametrize("late", [True, False])
def test_names_of_rejected_attempts_outlive_changes(late: bool, tmp_path: Path) -> None:
    """Accepted traffic and attempts are judged apart, and each may meet a change before the other does."""
    changes = [{"at": at, "add_rule": {"group": "db", "rule": {
        "direction": "inbound", "protocol": "tcp", "ports": port, "id": f"new-{port}",
    }}} for at, port in ((820, 22), (1420, 23), (2020, 24))]  # fmt: skip
    attempts = [
        refused(flow(f"192.0.2.20:{43000 + n} > 10.0.1.9:{22 + n}", 900 + 600 * n, flags=2, **TCP)) for n in range(3)
    ]
    both = [
        line for n in range(3) for line in (
            flow(f"192.0.2.30:{44000 + n} > 10.0.1.9:{22 + n}", 900 + 600 * n, 905 + 600 * n, protocol=6, flags=3),
            flow(f"10.0.1.9:{22 + n} > 192.0.2.30:{44000 + n}", 900 + 600 * n, 905 + 600 * n, protocol=6, flags=19),
        )
    ]  # fmt: skip
    lines = both + attempts[:1] if late else both[:2] + attempts
    rows = [*answered(tmp_path, *lines, changes=changes, tables="connections").tables.connections]
    rules = sorted(row["ingress_rule"] for row in rows if str(row["ingress_rule"]).startswith("new"))
    assert rules == ["new-22", "new-22", "new-23", "new-24"]


def test_other_commands_leave_rejected_attempts_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_attempts, without = tmp_path / "with", tmp_path / "without"
    for folder in (with_attempts, without):
        folder.mkdir()
    policy, log = written(with_attempts, *OPENING, *STAYING)
    _, accepted = written(without)
    suggested = [suggest(path, policy=policy) for path in (log, accepted)]
    assert [str(rule) for rule in suggested[0].rules] == [str(rule) for rule in suggested[1].rules] != []
    assert [left.connections for left in suggested[0].left_out] == [left.connections for left in suggested[1].left_out]
    used = [
        json.loads(sgfast(capsys, "check", policy, "--traffic", path, "--json").out) for path in (log, accepted)
    ]
    assert used[0]["traffic"]["rules"] == used[1]["traffic"]["rules"] != []
