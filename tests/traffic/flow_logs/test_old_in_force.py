"""The actions of the cloud tell whether OLD was in force when flow logs were written (SPEC 10.14)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import sgfast
from flow_logs import CLIENT, DB, POLICY, WEB, record

import sgfast as package
from sgfast import TrafficDiff
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS

NEW = POLICY.replace("ports: 443", "ports: 80")


def connections(port: int, number: int, first: int = 40000, action: str = "ACCEPT") -> list[str]:
    """Records of connections that were answered, or of attempts that the cloud rejected."""
    there = [record(CLIENT, WEB, first + n, port, action=action, start=1000 + n) for n in range(number)]
    back = [record(WEB, CLIENT, port, first + n, start=1000 + n) for n in range(number)]
    return [*there, *back] if action == "ACCEPT" else there


def log(folder: Path, *lines: str, fields: str = " ".join(DEFAULT_FIELDS)) -> Path:
    path = folder / "flow.log"
    path.write_text("\n".join((fields, *lines)) + "\n")
    return path


def compared(folder: Path, *lines: str, old: str = POLICY, new: str = NEW) -> TrafficDiff:
    traffic = package.diff(package.load(text=old), package.load(text=new), log(folder, *lines)).traffic
    assert traffic is not None
    return traffic


def codes(found: TrafficDiff) -> list[str]:
    return [each.code for each in found.evidence.reasons]


@pytest.mark.parametrize(("denied", "said"), [(0, "nothing"), (3, "named"), (4, "doubt"), (400, "doubt")])
def test_from_one_percent_on_old_was_not_in_force(tmp_path: Path, denied: int, said: str) -> None:
    """OLD allows 396 connections more: 4 of 400 are 1 %."""
    found = compared(tmp_path, *connections(443, 396), *connections(22, denied, 50000))
    assert ("old-not-in-force" in codes(found)) == (said == "doubt")
    named = [each for each in found.warnings if "that the cloud accepted" in each]
    assert named == (["OLD denies 3 of 399 connections that the cloud accepted (0.75 %)"] if said == "named" else [])
    assert found.actions is not None and found.actions.accepted_denied == denied


def test_what_the_cloud_rejected_too_is_no_sign(tmp_path: Path) -> None:
    """OLD denies 1,000 attempts as the cloud did: it was in force."""
    found = compared(tmp_path, *connections(443, 100), *connections(22, 1000, 45000, "REJECT"))
    assert codes(found) == [] and found.actions is not None
    assert (found.actions.accepted_allowed, found.actions.accepted_denied) == (100, 0)
    assert (found.actions.rejected_denied, found.actions.rejected_allowed) == (1000, 0)
    # Rejected attempts are in the comparison all the same.
    opening = compared(tmp_path, *connections(443, 100), *connections(22, 1000, 45000, "REJECT"),
                       new=POLICY.replace("ports: 443", 'ports: "22,443"'))  # fmt: skip
    total = opening.total("newly-allowed")
    assert (total.connections, total.answered) == (1000, 0) and opening.connections == 1100


def test_a_peer_in_another_state_breaks_although_nobody_knows_its_members(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A rule goes whose peers are in a group without known members: 899 connections that were answered break."""
    lines = [
        line for n in range(899)
        for line in (record("10.0.3.7", DB, 40000 + n, 5432, start=1000 + n),
                     record(DB, "10.0.3.7", 5432, 40000 + n, start=1000 + n))
    ]  # fmt: skip
    rule = "      - {direction: inbound, protocol: tcp, ports: 5432, source: elsewhere}\n"
    old = POLICY.replace("source: web}", "source: elsewhere}")
    old = old.replace("  - name: db\n", "  - {name: elsewhere, rules: []}\n  - name: db\n")
    paths = tmp_path / "old.yaml", tmp_path / "new.yaml"
    paths[0].write_text(old)
    paths[1].write_text(old.replace(rule, ""))
    for word in ("newly-denied", "newly-allowed"):
        done = sgfast(capsys, "diff", *paths, log(tmp_path, *connections(443, 50), *lines), "--fail-on", word)
        assert done.status == 1
        assert "OLD denies 899 of 949 connections that the cloud accepted (95 %)" in " ".join(done.out.split())
    found = json.loads(sgfast(capsys, "diff", *paths, tmp_path / "flow.log", "--json").out)
    assert [(each["code"], each["level"], each["packets"]) for each in found["evidence"]["reasons"]] == [
        ("old-not-in-force", "partly", 899)
    ]
    accepted = ("--accept-evidence", "old-not-in-force", "--fail-on", "newly-denied")
    assert sgfast(capsys, "diff", *paths, tmp_path / "flow.log", *accepted).status == 0


def test_records_without_an_action_say_nothing_of_what_was_in_force(tmp_path: Path) -> None:
    fields = [field for field in DEFAULT_FIELDS if field != "action"]
    place = DEFAULT_FIELDS.index("action")
    lines = [" ".join(word for n, word in enumerate(line.split()) if n != place) for line in connections(22, 50)]
    path = log(tmp_path, *lines, fields=" ".join(fields))
    traffic = package.diff(package.load(text=POLICY), package.load(text=NEW), path).traffic
    assert traffic is not None and "old-not-in-force" not in codes(traffic)


def test_captures_have_no_actions() -> None:
    shop = Path(__file__).parents[3] / "pcaps"
    traffic = package.diff(shop / "shop.yaml", shop / "shop.proposed.yaml", shop / "shop.pcap").traffic
    assert traffic is not None and traffic.actions is None and codes(traffic) == []
