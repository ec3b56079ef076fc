"""The log of a replay agrees with the policy it used; what logs are refused or answered with (SPEC 10.11, 10.31)."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from command import PCAPS, handshake, sgfast, valid, write_capture, write_policy
from flow_logs import CLIENT, WEB, log_of
from frames import ethernet, icmp, ip
from shop_log import logs

from sgfast import replay
from sgfast.clouds.loading import load_policy
from sgfast.report.flow_log_lines import FORMATS

PROGRAMS = PCAPS / "programs"
RECORDINGS = [
    (PCAPS / "shop.yaml", PCAPS / "shop.pcap"),
    (PCAPS / "changes" / "policy.yaml", PCAPS / "changes" / "network.pcap"),
    *((path, PROGRAMS / "network.pcap") for path in sorted(PROGRAMS.glob("*.yaml"))),
]


def shuffle(path: Path, seed: int) -> None:
    """Clouds do not keep records in order within an interval."""
    print(f"seed {seed}")
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if not line.endswith(b"NODATA\n")]
    random.Random(seed).shuffle(lines)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("interval", [1, 600])
@pytest.mark.parametrize(("policy", "capture"), RECORDINGS, ids=lambda path: path.stem)
def test_a_replays_log_agrees_with_its_policy(
    policy: Path, capture: Path, form: str, interval: int, tmp_path: Path
) -> None:
    loaded = load_policy(policy)
    path, _ = log_of(loaded, capture, tmp_path / "flow.log", form, interval)
    for seed in (None, 7):
        if seed is not None:
            shuffle(path, seed)
        found = replay(loaded, path, compare_actions=True)
        assert found.actions is not None and found.records is not None
        assert found.actions.agreeing > 10 and found.actions.disagreeing == 0
        assert sum(found.records.undecided.values()) <= 6


def test_written_and_read_back_by_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path), tmp_path / "flow.log"
    pings = [ethernet(ip(WEB, CLIENT, icmp(8, 0, 1))), ethernet(ip(CLIENT, WEB, icmp(0, 0, 1)))]
    capture = write_capture(tmp_path, *handshake(40000, 80), *handshake(40001, 8080), *pings)
    assert sgfast(capsys, "replay", policy, capture, "--flow-log", log).status == 0
    assert len(log.read_text().splitlines()) == 4
    compared = ("replay", policy, log, "--compare-actions", "--json", "-q")
    assert json.loads(sgfast(capsys, *compared).out)["actions"]["accepted_denied"] == 0
    policy.write_text(policy.read_text() + "  - {name: idle, addresses: [10.0.0.6], security_groups: [web]}\n")
    assert sgfast(capsys, "replay", policy, capture, "--flow-log", log).status == 0
    records = json.loads(sgfast(capsys, *compared).out)["records"]
    assert (records["read"], records["left_out"]["no-data"]) == (5, 1)


def test_the_logs_of_the_guides_are_what_the_writers_write() -> None:
    written = logs()
    assert (PCAPS / "shop.aws.log").read_bytes() == written["shop.aws.log"]
    assert gzip.decompress((PCAPS / "shop.month.log.gz").read_bytes()) == written["shop.month.log"]


@pytest.mark.parametrize(
    "command", ["replay POLICY LOG", "diff POLICY POLICY LOG", "check POLICY --traffic LOG",
                "suggest LOG --policy POLICY --keep"],
)  # fmt: skip
@pytest.mark.parametrize("what", ["a broken line", "a cut file"])
def test_a_log_that_could_not_be_read_whole_makes_the_status_three(
    command: str, what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """SPEC 10.5, 10.29."""
    log = tmp_path / "flow.log"
    log.write_bytes((PCAPS / "shop.aws.log").read_bytes() + b"broken line\n")
    if what == "a cut file":
        log.write_bytes((PCAPS / "shop.month.log.gz").read_bytes()[:5000])
    words = {"POLICY": str(PCAPS / "shop.yaml"), "LOG": str(log)}
    outcome = sgfast(capsys, *(words.get(word, word) for word in command.split()))
    assert outcome.status == 3 and "flow.log: line" in outcome.err and outcome.out


def test_rules_are_not_taken_away_for_a_log_that_could_not_be_read_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log, written = tmp_path / "flow.log", tmp_path / "policy.yaml"
    text = gzip.decompress((PCAPS / "shop.month.log.gz").read_bytes())
    for more, status in ((b"", 0), (b"broken line\n", 3)):
        log.write_bytes(text + more)
        outcome = sgfast(capsys, "suggest", log, "--policy", PCAPS / "shop.yaml", "--remove", "30d", "-o", written)
        assert (outcome.status, written.exists()) == (status, status == 0)
        written.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dedup",), "dedup and decap are for packets"),
        (("--decap", "auto"), "dedup and decap are for packets"),
        (("--engine", "reference"), "flow logs need the fast engine"),
        (("--verdicts", "FILE"), "flow logs have no packets to write"),
        (("--write", "FILE.pcapng"), "flow logs have no packets to write"),
        (("--flow-log", "FILE"), "flow logs have no packets to write"),
        (("--snapshot", "FILE"), "resume and snapshot"),
        ((str(PCAPS / "shop.pcap"),), "give only flow logs, or only captures"),
    ],
)
def test_what_needs_packets_is_refused_for_flow_logs(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """SPEC 10.31."""
    given = [option.replace("FILE", str(tmp_path / "file")) for option in options]
    outcome = sgfast(capsys, "replay", PCAPS / "shop.yaml", PCAPS / "shop.aws.log", *given)
    assert outcome.status == 2 and said in outcome.one_line()


def test_what_the_cloud_rejected_is_apart_and_compared_with_its_actions(capsys: pytest.CaptureFixture[str]) -> None:
    """SPEC 10.31."""
    arguments = ("replay", PCAPS / "shop.yaml", PCAPS / "shop.aws.log", "--compare-actions", "--json", "-q")
    found = valid("summary", json.loads(sgfast(capsys, *arguments).out))
    records = found["records"]
    others = sum(records["undecided"].values()) + sum(records["left_out"].values())
    assert records["read"] == 72 == records["judged"] + records["rejected"] + others
    assert [row["service"] for row in found["rejected"]["would_open"]] == ["tcp/81"]
    assert found["actions"]["accepted_denied"] == found["actions"]["rejected_allowed"] == 2
    assert sgfast(capsys, *arguments, "--fail-on", "disagreement").status == 1


def test_a_replay_counts_the_packets_and_bytes_of_records() -> None:
    """SPEC 10.30."""
    log = PCAPS / "shop.aws.log"
    found = replay(PCAPS / "shop.yaml", log, tables="connections").tables.connections
    lines = [line.split() for line in log.read_text().splitlines()]
    for port in ("80", "8080"):
        counted = [line for line in lines if line[2] == "web-1" and port in line[5:7]]
        connections = [row for row in found if row["responder_port"] == int(port) and row["responder"] != "10.0.0.6"]
        assert len(counted) == 2 * len(connections) > 0
        for what, place in (("packets", 8), ("bytes", 9)):
            sums = [row[f"{what}_from_initiator"] + row[f"{what}_from_responder"] for row in connections]
            assert sum(sums) == sum(int(line[place]) for line in counted)
