"""A log that is about nobody passes no check: what ``sgfast flowlog`` says of its evidence (SPEC 10.16, 10.27)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import PCAPS, sgfast, valid, write_policy
from flow_logs import DB, GOOD, POLICY, WEB, record

from sgfast.flow_logs import checking

Capsys = pytest.CaptureFixture[str]

STRANGE = [record("172.30.0.5", f"192.168.{n}.9", 50000, 443) for n in range(12)]


def checked(capsys: Capsys, folder: Path, *lines: str, options: tuple[str, ...] = ()) -> tuple[int, Any, str]:
    """The status with ``--fail-on disagreement``, the evidence, and the text in one line."""
    policy, log = write_policy(folder, POLICY), folder / "flow.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    command = ("flowlog", policy, log, "--fail-on", "disagreement", *options)
    found = valid("flowlog", json.loads(sgfast(capsys, *command, "--json").out))
    text = sgfast(capsys, *command)
    return text.status, found["evidence"], " ".join(text.out.split())


def codes(evidence: Any) -> list[tuple[str, str, int]]:
    return [(each["code"], each["level"], each["packets"]) for each in evidence["reasons"]]


@pytest.mark.parametrize("lines", [(), ("2 1 eni-1 - - - - - - - 1000 1600 - NODATA",)])
def test_a_log_without_records_does_not_pass(capsys: Capsys, tmp_path: Path, lines: tuple[str, ...]) -> None:
    status, evidence, text = checked(capsys, tmp_path, *lines)
    assert (status, evidence["conclusive"], codes(evidence)) == (1, "no", [("no-packets", "no", 0)])
    assert text.startswith("Cannot tell: the logs have no record of any packet")


def test_a_log_of_another_network_does_not_pass_and_its_networks_are_named(capsys: Capsys, tmp_path: Path) -> None:
    busy = record("172.30.0.6", "192.168.3.1", 1, 2).replace(" 3 180 ", " 30 1800 ")
    status, evidence, text = checked(capsys, tmp_path, *STRANGE, busy)
    assert (status, evidence["conclusive"], codes(evidence)) == (1, "no", [("no-instance", "no", 13)])
    networks = evidence["reasons"][0]["networks"]
    assert len(networks) == 10
    assert networks[:2] == [{"network": "172.30.0.0/24", "packets": 66}, {"network": "192.168.3.0/24", "packets": 33}]
    assert text.startswith("Cannot tell: no record is about an instance of the policy: is this the right policy")
    assert "172.30.0.0/24 66 packets" in text and "13 flow log records against" in text
    accepted, evidence, text = checked(capsys, tmp_path, *STRANGE, options=("--accept-evidence", "no-instance"))
    assert (accepted, evidence["conclusive"]) == (0, "yes") and not text.startswith("Cannot tell")


def test_networks_of_ipv6_are_those_of_64_bits(capsys: Capsys, tmp_path: Path) -> None:
    _, evidence, _ = checked(capsys, tmp_path, record("2001:db8:7::1", "2001:db8:7::2", 1, 2))
    assert evidence["reasons"][0]["networks"] == [{"network": "2001:db8:7::/64", "packets": 3}]


@pytest.mark.parametrize(("strange", "is_sound"), [(11, True), (12, False)])
def test_half_of_the_records_of_another_network_are_said_and_fail(
    capsys: Capsys, tmp_path: Path, strange: int, is_sound: bool
) -> None:
    status, evidence, text = checked(capsys, tmp_path, *[GOOD] * 12, *STRANGE[:strange])
    assert (status, evidence["conclusive"]) == ((0, "yes") if is_sound else (1, "partly"))
    assert codes(evidence) == ([] if is_sound else [("out-of-scope", "partly", 12)])
    assert text.startswith(f"{12 + strange} flow log records against")
    assert is_sound or "50 % of the records are about no instance of the policy" in text


@pytest.mark.parametrize(
    ("good", "conclusive", "found"),
    [(0, "no", [("undecided", "no", 4)]), (4, "partly", [("undecided", "partly", 4)]), (5, "yes", [])],
)
def test_records_that_do_not_tell_enough_do_not_pass_as_agreeing(
    capsys: Capsys, tmp_path: Path, good: int, conclusive: str, found: list[tuple[str, str, int]]
) -> None:
    unknown = record(WEB, DB, 50000, 5432, interface="eni-9")
    status, evidence, _ = checked(capsys, tmp_path, *[GOOD] * good, *[unknown] * 4)
    assert (status, evidence["conclusive"], codes(evidence)) == (int(bool(found)), conclusive, found)


def test_dhcp_is_not_out_of_scope(capsys: Capsys, tmp_path: Path) -> None:
    """The policy knows the instances: exempt packets are nobody's fault."""
    dhcp = record(WEB, "10.0.0.1", 68, 67, protocol=17)
    status, evidence, _ = checked(capsys, tmp_path, GOOD, dhcp, dhcp)
    assert (status, evidence["conclusive"]) == (0, "yes")


def test_networks_that_are_remembered_are_bounded(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "MOST_NETWORKS", 2)
    _, evidence, _ = checked(capsys, tmp_path, *STRANGE)
    assert [each["packets"] for each in evidence["reasons"][0]["networks"]] == [36, 3]


def test_the_log_of_a_replay_is_sound_evidence(capsys: Capsys) -> None:
    log = sgfast(capsys, "flowlog", PCAPS / "shop.yaml", PCAPS / "shop.flow.log", "--json")
    assert json.loads(log.out)["evidence"] == {"conclusive": "yes", "reasons": []}
