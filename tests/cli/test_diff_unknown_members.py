"""Comparisons in which nobody knows who is in a group: unknown members are never nobody (SPEC 12.8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import terraform
from command import SERVER, handshake, sgfast, valid, write_capture

import sgfast as package
from sgfast.loading import load_policy

Capsys = pytest.CaptureFixture[str]
ELSEWHERE = "sg-0abc"
EMPTY = ("--unresolved", "empty")


def rule(port: int, **peer: Any) -> dict[str, Any]:
    return {"protocol": "tcp", "from_port": port, "to_port": port, "self": False} | peer


def group(name: str, *inbound: dict[str, Any], number: str = "") -> terraform.Resource:
    everything = {"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"], "self": False}
    return terraform.resource(
        f"aws_security_group.{name}", id=number or f"sg-{name}", name=name, ingress=[*inbound], egress=[everything],
        vpc_id="vpc-1",
    )  # fmt: skip


def host(name: str = "db", address: str = SERVER, group: str = "sg-db") -> terraform.Resource:
    return terraform.resource(
        f"aws_instance.{name}", id=f"i-{name}", tags={"Name": name}, private_ip=address, network_interface=[],
        vpc_security_group_ids=[group],
    )  # fmt: skip


FROM_ELSEWHERE = rule(5432, security_groups=[ELSEWHERE])


def plan(folder: Path, old: list[terraform.Resource], new: list[terraform.Resource]) -> tuple[str, Path]:
    path = folder / "plan.json"
    path.write_text(json.dumps(terraform.plan(old, new)))
    return "--plan", path


def rows(found: dict[str, Any], word: str) -> list[tuple[str, str, str]]:
    return [
        (", ".join(part["name"] or part["kind"] for part in row["from"]),
         ", ".join(part["name"] or part["kind"] for part in row["to"]), "; ".join(row["services"]))
        for row in found[word]
    ]  # fmt: skip


def answer(capsys: Capsys, *arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = valid("diff", json.loads(sgfast(capsys, "diff", *arguments, "--json").out))
    return found


def test_a_rule_whose_peers_are_in_another_state_closes_something_in_every_form(capsys: Capsys, tmp_path: Path) -> None:
    given = plan(tmp_path, [group("db", FROM_ELSEWHERE), host()], [group("db"), host()])
    found = answer(capsys, *given, *EMPTY)
    assert rows(found, "closed") == [(ELSEWHERE, "db", "tcp/5432")] and found["opened"] == []
    assert found["closed"][0]["from"][0]["members"] == "unknown"
    assert [each["code"] for each in found["evidence"]["reasons"]] == ["unknown-members"]
    page = tmp_path / "page.html"
    for form in ("text", "markdown"):
        told = " ".join(sgfast(capsys, "diff", *given, *EMPTY, "--format", form).out.split())
        assert "closes" in told and f"{ELSEWHERE} (members unknown)" in told and "closes nothing" not in told
    assert sgfast(capsys, "diff", *given, *EMPTY, "--report", page).status == 0
    assert f"{ELSEWHERE} (members unknown)" in page.read_text()
    for word, status in {"closed": 1, "opened": 0}.items():
        assert sgfast(capsys, "diff", *given, *EMPTY, "--fail-on", word).status == status


def test_captures_cannot_say_that_nothing_is_denied_to_unknown_members(capsys: Capsys, tmp_path: Path) -> None:
    given = plan(tmp_path, [group("db", FROM_ELSEWHERE), host()], [group("db"), host()])
    capture = write_capture(tmp_path, *handshake(40000, 5432))
    for word, status in {"newly-denied": 1, "newly-allowed": 0}.items():
        assert sgfast(capsys, "diff", *given, capture, *EMPTY, "--fail-on", word).status == status
    accepted = ("--accept-evidence", "unknown-members")
    assert sgfast(capsys, "diff", *given, capture, *EMPTY, "--fail-on", "newly-denied", *accepted).status == 0


def test_a_rule_that_comes_opens_something_for_unknown_members(capsys: Capsys, tmp_path: Path) -> None:
    given = plan(tmp_path, [group("db"), host()], [group("db", FROM_ELSEWHERE), host()])
    found = answer(capsys, *given, *EMPTY)
    assert rows(found, "opened") == [(ELSEWHERE, "db", "tcp/5432")] and found["closed"] == []
    assert sgfast(capsys, "diff", *given, *EMPTY, "--fail-on", "opened").status == 1


def test_a_rule_that_stays_says_nothing(capsys: Capsys, tmp_path: Path) -> None:
    both = [group("db", FROM_ELSEWHERE, rule(22, cidr_blocks=["0.0.0.0/0"])), host()]
    given = plan(tmp_path, both, both)
    found = answer(capsys, *given, *EMPTY)
    assert found["opened"] == found["closed"] == found["evidence"]["reasons"] == []


def test_what_another_rule_allows_to_anybody_is_not_closed_to_unknown_members(capsys: Capsys, tmp_path: Path) -> None:
    anybody = rule(5432, cidr_blocks=["0.0.0.0/0"], ipv6_cidr_blocks=["::/0"])
    given = plan(tmp_path, [group("db", FROM_ELSEWHERE, anybody), host()], [group("db", anybody), host()])
    found = answer(capsys, *given, *EMPTY)
    assert found["opened"] == found["closed"] == []


def test_a_rule_of_a_group_of_another_state_is_not_lost(capsys: Capsys, tmp_path: Path) -> None:
    """The plan has a rule of the group alone: its members and its other rules are elsewhere."""
    own = terraform.resource(
        "aws_security_group_rule.ssh", id="sgr-1", security_group_id=ELSEWHERE, type="ingress", **rule(22),
        cidr_blocks=["0.0.0.0/0"],
    )  # fmt: skip
    found = answer(capsys, *plan(tmp_path, [group("db"), host()], [group("db"), host(), own]), *EMPTY)
    assert ("any", ELSEWHERE, "tcp/22") in rows(found, "opened")
    assert all(service == "tcp/22" for _, _, service in rows(found, "opened")) and found["closed"] == []


def test_a_group_of_a_plan_without_an_instance_has_members_elsewhere(capsys: Capsys, tmp_path: Path) -> None:
    """Machines of an autoscaling group, containers and load balancers are in no plan."""
    ssh = rule(22, cidr_blocks=["0.0.0.0/0"])
    found = answer(capsys, *plan(tmp_path, [group("db")], [group("db", ssh)]))
    assert rows(found, "opened") == [("any", "db", "tcp/22")] and found["closed"] == []
    assert found["opened"][0]["to"][0]["members"] == "unknown"
    # A group that is new opens what it allows, and closes nothing to the address of the machine that stands for it.
    found = answer(capsys, *plan(tmp_path, [group("db"), host()], [group("db"), host(), group("new", ssh)]))
    assert ("any", "new", "tcp/22") in rows(found, "opened") and found["closed"] == []


def test_a_list_of_the_cloud_is_no_empty_list(capsys: Capsys, tmp_path: Path) -> None:
    listed = rule(443, prefix_list_ids=["pl-1"])
    found = answer(capsys, *plan(tmp_path, [group("db", listed), host()], [group("db"), host()]), *EMPTY)
    assert rows(found, "closed") == [("pl-1", "db", "tcp/443")]
    assert found["closed"][0]["from"][0]["members"] == "unknown"


def test_several_vpcs_and_known_members_of_a_foreign_group(capsys: Capsys, tmp_path: Path) -> None:
    """An instance of the plan is in the group, whose rules no file has: they may allow what it sends."""
    web = host("web", "10.0.9.9", ELSEWHERE)
    given = plan(tmp_path, [group("db", FROM_ELSEWHERE), host(), web], [group("db"), host(), web])
    found = answer(capsys, *given, *EMPTY)
    assert (ELSEWHERE, "db", "tcp/5432") in rows(found, "closed")


def test_a_document_says_who_is_there(tmp_path: Path) -> None:
    document = "version: 1\nsecurity_groups:\n  - {name: web, rules: [%s]}\n"
    old, new = (package.load(text=document % rules) for rules in (
        "", "{direction: inbound, protocol: tcp, ports: 22, source: 0.0.0.0/0}"))  # fmt: skip
    assert package.diff(old, new).opened == ()


def test_an_export_with_all_interfaces_says_who_is_there_and_one_without_any_does_not(tmp_path: Path) -> None:
    def export(*ports: int, with_interface: bool) -> Path:
        permissions = [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
                       for port in ports]  # fmt: skip
        groups = [{"GroupId": f"sg-{name}", "GroupName": name, "VpcId": "vpc-1", "IpPermissions": said}
                  for name, said in (("web", permissions), ("db", []))]  # fmt: skip
        interface = {"NetworkInterfaceId": "eni-1", "VpcId": "vpc-1", "PrivateIpAddress": SERVER,
                     "Groups": [{"GroupId": "sg-db"}]}  # fmt: skip
        path = tmp_path / f"{len(ports)}{with_interface}.json"
        interfaces = {"NetworkInterfaces": [interface]} if with_interface else {}
        path.write_text(json.dumps({"SecurityGroups": groups, **interfaces}))
        return path

    for with_interface, opened in ((True, 0), (False, 1)):
        old, new = export(with_interface=with_interface), export(22, with_interface=with_interface)
        assert len(package.diff(load_policy(old), load_policy(new)).opened) == opened
