"""Findings that a baseline has, too, or that a file accepts, do not fail a check, and new ones do (SPEC 10.12)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import SHOP, Outcome, sgfast, valid
from terraform import block, plan, resource

import sgfast as package
from sgfast.base.errors import PolicyError

Capsys = pytest.CaptureFixture[str]

SSH = {"direction": "inbound", "protocol": "tcp", "ports": 22, "source": "0.0.0.0/0"}
RDP = SSH | {"ports": 3389}
OUT = {"direction": "outbound", "protocol": "all", "destination": "0.0.0.0/0"}
HTTP = SSH | {"ports": 80}


def document(*rules: dict[str, Any], **group: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "security_groups": [{"name": "web", "rules": [*rules, OUT], **group}],
        "instances": [{"name": "web-1", "addresses": ["10.0.0.1"], "security_groups": ["web"]}],
    }


def written(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def checked(capsys: Capsys, *arguments: str, status: int = 0) -> Outcome:
    done = sgfast(capsys, *arguments)
    assert done.status == status, done.err
    return done


def test_a_change_of_nothing_does_not_fail_for_old_findings(tmp_path: Path, capsys: Capsys) -> None:
    old = written(tmp_path / "old.yaml", document(SSH))
    # The rule has another id, and stands in another line.
    new = written(tmp_path / "new.yaml", document(HTTP, SSH | {"id": "anywhere"}))
    assert checked(capsys, "check", new, "--fail-on", "error", status=1).err == (
        "sgfast: status 1, because of --fail-on error: 1 SG004 (open-to-everyone)\n"
    )
    done = checked(capsys, "check", new, "--baseline", old, "--fail-on", "error")
    assert "findings: none is new" in done.out and "SG004" not in done.out
    assert "Not listed: 1 finding that the baseline has, too (--json has all)" in " ".join(done.out.split())


def test_a_new_finding_fails_and_is_the_one_that_is_listed(tmp_path: Path, capsys: Capsys) -> None:
    old = written(tmp_path / "old.yaml", document(SSH))
    new = written(tmp_path / "new.yaml", document(SSH, RDP))
    done = checked(capsys, "check", new, "--baseline", old, "--fail-on", "error", status=1)
    assert "findings: 1 new error" in done.out and "tcp/3389" in done.out and "tcp/22" not in done.out
    assert done.err.endswith("sgfast: status 1, because of --fail-on error: 1 SG004 (open-to-everyone)\n")
    findings = valid("check", json.loads(sgfast(capsys, "check", new, "--baseline", old, "--json").out))["findings"]
    known = {each["message"].split()[0]: each["in_baseline"] for each in findings if each["code"] == "SG004"}
    assert known == {"tcp/22": True, "tcp/3389": False}
    (run,) = json.loads(sgfast(capsys, "check", new, "--baseline", old, "--format", "sarif").out)["runs"]
    assert sorted(each["baselineState"] for each in run["results"] if each["ruleId"] == "SG004") == ["new", "unchanged"]


def test_the_same_finding_in_another_group_is_new_and_one_is_not_two() -> None:
    old = document(SSH)
    other = document(SSH)
    other["security_groups"].insert(0, {"name": "db", "rules": [SSH]})
    other["instances"].append({"name": "db-1", "addresses": ["10.0.0.2"], "security_groups": ["db"]})
    found = package.load(other).check(baseline=old)
    exposed = {each.group: each.counts for each in found.matching("SG004")}
    assert exposed == {"web": False, "db": True} and found.fails("error")
    # A copy of a rule is one more finding.
    twice = package.load(document(SSH, SSH | {"description": "again"})).check(baseline=old)
    assert [each.counts for each in twice.matching("SG004")] == [False, True]


def test_unused_rules_of_the_baseline_are_found_in_the_same_captures(capsys: Capsys) -> None:
    policy, capture = SHOP
    found = package.load(policy).check(captures=capture, baseline=policy)
    assert found.matching("SG012") and not any(each.counts for each in found.findings)
    assert not found.fails("note") and package.load(policy).check(captures=capture).fails("note")


def test_of_a_plan_the_baseline_is_the_state_before(tmp_path: Path, capsys: Capsys) -> None:
    def group(*ports: int) -> Any:
        rules = [
            {"from_port": port, "to_port": port, "protocol": "tcp", "cidr_blocks": ["0.0.0.0/0"], "self": False}
            for port in ports
        ]
        name = "aws_security_group.web"
        return resource(name, id="sg-1", name="web", vpc_id="vpc-1", ingress=rules, egress=[])

    made = plan([group(22)], [group(22, 3389)], block("aws_security_group.web"))
    path = written(tmp_path / "plan.json", made)
    done = checked(capsys, "check", path, "--baseline", path, "--fail-on", "error", status=1)
    assert done.err.endswith("sgfast: status 1, because of --fail-on error: 1 SG004 (open-to-everyone)\n")
    assert "tcp/3389" in done.out and "tcp/22" not in done.out


ACCEPTED = {"code": "SG004", "group": "web", "reason": "The VPN comes later."}


@pytest.mark.parametrize(
    "entry",
    [
        {}, {"rule": "web/inbound/1"}, {"rule": "inbound tcp/22 from 0.0.0.0/0"}, {"until": "2999-12-31"},
        {"group": "sg-1"}, {"group": "Front ends"},
    ],
    ids=str,
)  # fmt: skip
def test_an_accepted_finding_does_not_fail(entry: dict[str, str], tmp_path: Path, capsys: Capsys) -> None:
    policy = written(tmp_path / "policy.yaml", document(SSH, id="sg-1", label="Front ends"))
    accepted = written(tmp_path / "accepted.yaml", {"accepted": [ACCEPTED | entry]})
    done = checked(capsys, "check", policy, "--accepted", accepted, "--fail-on", "error")
    assert "Not listed: 1 accepted finding (--json has all)" in done.out and not done.err
    (finding,) = package.load(policy).check(accepted=accepted).matching("SG004")
    assert finding.acceptance is not None and finding.acceptance.reason == "The VPN comes later."
    (run,) = json.loads(sgfast(capsys, "check", policy, "--accepted", accepted, "--format", "sarif").out)["runs"]
    (suppressed,) = [each["suppressions"] for each in run["results"] if "suppressions" in each]
    assert suppressed == [{"kind": "external", "status": "accepted", "justification": "The VPN comes later."}]


@pytest.mark.parametrize("entry", [{"group": "db"}, {"rule": "web/inbound/2"}, {"code": "SG001"}], ids=str)
def test_an_entry_about_something_else_accepts_nothing_and_says_so(
    entry: dict[str, str], tmp_path: Path, capsys: Capsys
) -> None:
    policy = written(tmp_path / "policy.yaml", document(SSH))
    accepted = written(tmp_path / "accepted.json", [ACCEPTED | entry])
    found = package.load(policy).check(accepted=[ACCEPTED | entry])
    assert found.fails("error") and "accepts no finding: remove the entry" in "".join(found.warnings)
    with pytest.raises(PolicyError, match="must be a mapping"):
        package.load(policy).check(accepted=accepted)


def test_past_its_day_a_finding_counts_again_with_a_warning(tmp_path: Path, capsys: Capsys) -> None:
    policy = written(tmp_path / "policy.yaml", document(SSH))
    accepted = tmp_path / "accepted.yaml"
    accepted.write_text("accepted:\n- {code: SG004, group: web, reason: For the move., until: 2020-02-29}\n")
    done = checked(capsys, "check", policy, "--accepted", str(accepted), "--fail-on", "error", status=1)
    assert "1 error" in done.out
    assert done.err.splitlines() == [
        f"sgfast: warning: {accepted}:2: accepted[0]: SG004 counts again, as it was accepted until 2020-02-29",
        "sgfast: status 1, because of --fail-on error: 1 SG004 (open-to-everyone)",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{code: SG099, group: web, reason: r}", "accepted[0].code: unknown code 'SG099'"),
        ("{code: ssh, group: web, reason: r}", "accepted[0].code: must be a code of findings such as SG004, not 'ssh'"),
        ("{code: SG004, group: web}", "accepted[0].reason: is missing: say why the finding is accepted"),
        ("{code: SG004, reason: r}", "names nothing that it is about: add one of group, rule, address_group, instance"),
        ("{code: SG004, group: a, reason: r, until: 2026-02-30}", "must be a date like 2026-01-31, not '2026-02-30'"),
        ("{code: SG004, group: a, reason: r, until: 20260228}", "must be a date like 2026-01-31, not '20260228'"),
        ("{code: SG004, groups: web, reason: r}", "unknown key 'groups' (did you mean 'group'?)"),
    ],
)
def test_an_entry_that_cannot_be_understood_is_named(entry: str, message: str, tmp_path: Path, capsys: Capsys) -> None:
    policy = written(tmp_path / "policy.yaml", document(SSH))
    accepted = tmp_path / "accepted.yaml"
    accepted.write_text(f"accepted:\n- {entry}\n")
    done = checked(capsys, "check", policy, "--accepted", str(accepted), status=2)
    assert done.err.startswith(f"sgfast: {accepted}:2: ") and message in done.err, done.err
