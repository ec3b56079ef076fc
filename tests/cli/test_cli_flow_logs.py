"""Flow logs in place of captures on the command line: what is refused, what is damaged, and interrupts (SPEC 10.30)."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from command import DEADLINE_SECONDS, SHOP, is_asleep, process, sgfast, shell, start, wait_for
from flow_logs import BEFORE, FIELDS, OPEN, flow, refused

Capsys = pytest.CaptureFixture[str]

CS, SC = "10.0.0.5:50000 > 192.0.2.9:53", "192.0.2.9:53 > 10.0.0.5:50000"
GOOD = [FIELDS, BEFORE, flow(CS), flow(SC)]


def written(folder: Path, *lines: str, name: str = "flows.log") -> tuple[Path, Path]:
    """Return a policy and a log."""
    policy, log = folder / "policy.yaml", folder / name
    policy.write_text(OPEN)
    log.write_text("".join(f"{line}\n" for line in lines))
    return policy, log


@pytest.mark.parametrize("options", [
    ["--dedup"], ["--decap", "vxlan"], ["--follow"], ["--snapshot", "state"], ["--resume", "state"],
    ["--engine", "reference"], ["--verdicts", "rows.csv"], ["--write", "out.pcapng"],
    ["--write-denied", "out.pcap"], ["--flow-log", "out.log"],
], ids=lambda options: options[0])  # fmt: skip
def test_options_for_packets_are_refused(
    options: list[str], capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy, log = written(tmp_path, *GOOD)
    outcome = sgfast(capsys, "replay", policy, log, *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.one_line()
    assert {path.name for path in tmp_path.iterdir()} == {"policy.yaml", "flows.log"}


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("command", ["replay", "diff"])
def test_a_log_and_a_capture_are_not_mixed(command: str, turn: int, capsys: Capsys, tmp_path: Path) -> None:
    policy, log = written(tmp_path, *GOOD)
    policies = [policy] if command == "replay" else [policy, policy]
    outcome = sgfast(capsys, command, *policies, *[log, SHOP[1]][::turn])
    assert (outcome.status, outcome.out) == (2, "")
    assert "give only flow logs, or only captures" in outcome.one_line()


def test_broken_lines_are_told_and_the_others_judged(capsys: Capsys, tmp_path: Path) -> None:
    policy, log = written(tmp_path, *GOOD, "10.0.0.5 192.0.2.9", flow("10.0.0.5:50001 > 192.0.2.9:53"))
    outcome = sgfast(capsys, "replay", policy, log, "--json")
    found = json.loads(outcome.out)
    assert outcome.status == 3 and "line 5: has 2 fields" in outcome.err
    assert (found["records"]["judged"], found["records"]["left_out"]) == (4, {"broken": 1})


def test_a_log_without_records_tells_nothing(capsys: Capsys, tmp_path: Path) -> None:
    policy, log = written(tmp_path, FIELDS)
    outcome = sgfast(capsys, "replay", policy, log, "--json")
    assert outcome.status == 0 and json.loads(outcome.out)["evidence"]["conclusive"] == "no"
    policy, log = written(tmp_path)
    outcome = sgfast(capsys, "replay", policy, log)
    assert outcome.status == 2 and "is empty" in outcome.one_line()


def test_standard_input_is_recognised(capsys: Capsys, tmp_path: Path) -> None:
    policy, log = written(tmp_path, *GOOD)
    piped = process("replay", policy, "-", "--json", input=log.read_text())
    named = json.loads(sgfast(capsys, "replay", policy, log, "--json").out)
    found = json.loads(piped.out)
    assert piped.status == 0
    assert all(found[name] == named[name] for name in ("packets", "verdicts", "connections", "records", "rules"))


def test_nobody_takes_the_report(tmp_path: Path) -> None:
    policy, log = written(tmp_path, *GOOD)
    outcome = shell("$sgfast replay $policy $log --top 1000 | head -1 > /dev/null; exit ${PIPESTATUS[0]}",
                    policy=policy, log=log)  # fmt: skip
    assert outcome.status in (0, 141) and "Traceback" not in outcome.err


def test_an_interrupt_reports_the_records_so_far(tmp_path: Path) -> None:
    policy, log = written(tmp_path, *GOOD)
    # As many records as the reader takes at once, over more than the time for which records wait.
    more = "".join(f"{flow(CS, 200 * n)}\n{flow(SC, 200 * n)}\n" for n in range(20_000))
    with start("replay", policy, "-", "--json", stdin=subprocess.PIPE, bufsize=0, text=False) as child:
        child.stdin.write(log.read_bytes() + more.encode())
        wait_for(lambda: is_asleep(child))
        child.send_signal(signal.SIGINT)
        assert child.wait(DEADLINE_SECONDS) == 130
        found = json.loads(child.stdout.read())
    assert "interrupted" in [each["code"] for each in found["evidence"]["reasons"]]
    records = found["records"]
    assert records["judged"] > 8000 and records["read"] == records["judged"] + sum(records["undecided"].values()) + sum(
        records["left_out"].values()
    )


@pytest.mark.parametrize(("line", "actions", "status"), [
    (flow(SC), (1, 0, 0, 0), 0),
    (refused(flow("192.0.2.9:4000 > 10.0.0.9:53")), (1, 0, 0, 0), 0),
    (refused(flow("192.0.2.9:40000 > 10.0.0.5:53")), (1, 0, 0, 1), 1),
])  # fmt: skip
def test_the_log_and_the_policy_disagree(
    line: str, actions: tuple[int, ...], status: int, capsys: Capsys, tmp_path: Path
) -> None:
    policy, log = written(tmp_path, *GOOD, line)
    outcome = sgfast(capsys, "replay", policy, log, "--compare-actions", "--fail-on", "disagreement", "--json")
    found = json.loads(outcome.out)["actions"]
    names = ("accepted_allowed", "accepted_denied", "rejected_denied", "rejected_allowed")
    assert (tuple(found[name] for name in names), outcome.status) == (actions, status)


@pytest.mark.parametrize("pattern", ["**", "**/*.log"])
def test_a_pattern_that_leads_deeper_than_python_can_follow_is_one_line(
    pattern: str, tmp_path: Path, capsys: Capsys
) -> None:
    """SPEC 11. The folders go again: what removes temporary ones cannot follow either."""
    deep = [tmp_path / "F"]
    for _ in range(1200):
        deep.append(deep[-1] / "d")
    for folder in deep:
        folder.mkdir()
    try:
        outcome = sgfast(capsys, "replay", SHOP[0], f"{tmp_path}/F/{pattern}")
    finally:
        for folder in reversed(deep):
            folder.rmdir()
    assert outcome.status == 2
    assert f"F/{pattern}: is a pattern for too many folders in each other" in outcome.one_line()
