"""Comparisons in which nobody knows who is in a group: unknown members are never nobody (SPEC 12.8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import terraform
from command import SERVER, handshake, sgfast, valid, write_capture

import sgfast as package
from sgfast.clouds.loading import load_policy

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


class TestAddresses:
    """``--unresolved GROUP=ADDRESSES`` says who is in a group that no file holds."""

    def test_given_addresses_are_members(self, capsys: Capsys, tmp_path: Path) -> None:
        given = plan(tmp_path, [group("db", FROM_ELSEWHERE), host()], [group("db"), host()])
        members = ("--unresolved", f"{ELSEWHERE}=10.0.3.0/24,2001:db8::7")
        found = answer(capsys, *given, *members)
        assert rows(found, "closed") == [(ELSEWHERE, "db", "tcp/5432")]
        assert "members" not in found["closed"][0]["from"][0] and found["evidence"]["reasons"] == []
        with_capture = write_capture(tmp_path, *handshake(40000, 5432, client="10.0.3.9"))
        found = answer(capsys, *given, with_capture, *members)
        assert found["newly_denied"]["answered"] == 1

    def test_other_groups_stay_unresolved(self, capsys: Capsys, tmp_path: Path) -> None:
        both = rule(443, security_groups=["sg-other"])
        given = plan(tmp_path, [group("db", FROM_ELSEWHERE, both), host()], [group("db"), host()])
        members = ("--unresolved", f"{ELSEWHERE}=10.0.3.7")
        assert "'sg-other'" in sgfast(capsys, "diff", *given, *members).one_line()
        found = answer(capsys, *given, *members, *EMPTY)
        assert [part.get("members") for row in found["closed"] for part in row["from"]] == [None, "unknown"]

    @pytest.mark.parametrize("text", ["=10.0.0.1", "sg-1=", "sg-1=10.0.0.1,,", "emtpy"])
    def test_wrong_words_are_refused(self, capsys: Capsys, tmp_path: Path, text: str) -> None:
        done = sgfast(capsys, "diff", *plan(tmp_path, [group("db")], [group("db")]), "--unresolved", text)
        assert done.status == 2 and "--unresolved" in done.err

    def test_a_program_says_it_as_a_mapping(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        path.write_text(json.dumps(terraform.state(group("db", FROM_ELSEWHERE), host())))
        for members in ("10.0.3.7", ["10.0.3.7"]):
            policy = package.load(path, unresolved={ELSEWHERE: members})
            assert policy.explain("10.0.3.7", "instance:db", "tcp/5432").verdict == "allow"
        with pytest.raises(package.PolicyError, match=ELSEWHERE):
            package.load(path, unresolved={"sg-2": "10.0.3.7"})
        assert package.load(path, unresolved={"sg-2": "10.0.3.7", "*": "empty"}).gaps.unresolved == {ELSEWHERE}


TODAY = f"""
version: 1
settings: {{profile: aws}}
vpcs: [{{name: main, id: vpc-1}}]
address_groups: [{{name: pl-1, addresses: [198.51.100.0/24]}}]
security_groups:
  - name: clients
    id: {ELSEWHERE}
    rules:
      - {{direction: outbound, protocol: all, destination: 0.0.0.0/0, id: sgr-9}}
      - {{direction: inbound, protocol: tcp, ports: 22, source: 0.0.0.0/0, id: sgr-1}}
  - {{name: db, id: sg-db, rules: []}}
instances:
  - {{name: c-1, id: eni-c1, vpc: main, addresses: [10.0.3.7], security_groups: [clients]}}
  - {{name: db-2, id: eni-d2, vpc: main, addresses: [10.0.8.8], security_groups: [db]}}
  - {{name: db-1, id: eni-d1, vpc: main, addresses: [{SERVER}], security_groups: [db]}}
"""


class TestOn:
    """``--on`` says what is in the account beside the plan."""

    def on(self, folder: Path, document: str = TODAY) -> tuple[str, Path]:
        path = folder / "today.yaml"
        path.write_text(document)
        return "--on", path

    def test_members_of_a_group_of_another_state_are_known(self, capsys: Capsys, tmp_path: Path) -> None:
        given = plan(tmp_path, [group("db", FROM_ELSEWHERE), host()], [group("db"), host()])
        found = answer(capsys, *given, *self.on(tmp_path))
        # Instances of the account are in the group of the plan, too: db-2 loses the rule as well.
        assert rows(found, "closed") == [("clients", "db", "tcp/5432")]
        assert found["evidence"]["reasons"] == [] and found["opened"] == []
        capture = write_capture(
            tmp_path, *handshake(40000, 5432, client="10.0.3.7"),
            *handshake(40001, 5432, client="10.0.3.7", server="10.0.8.8"),
        )  # fmt: skip
        found = answer(capsys, *given, capture, *self.on(tmp_path))
        assert found["newly_denied"]["answered"] == 2

    def test_what_the_plan_takes_away_does_not_come_back(self, capsys: Capsys, tmp_path: Path) -> None:
        """A group, an instance and a rule of a foreign group that the plan deletes are in the account today."""
        own = terraform.resource(
            "aws_security_group_rule.ssh", id="sgrule-1", security_group_rule_id="sgr-1", type="ingress",
            security_group_id=ELSEWHERE, **rule(22), cidr_blocks=["0.0.0.0/0"],
        )  # fmt: skip
        before = [group("db", FROM_ELSEWHERE), host(), own]
        found = answer(capsys, *plan(tmp_path, before, []), *self.on(tmp_path))
        closed = rows(found, "closed")
        # Nobody has the address of the plan's instance under NEW, so that no filter is there.
        assert ("clients", "db-2", "tcp/5432") in closed
        assert {to for _, to, _ in rows(found, "opened")} == {f"{SERVER}/32"}
        assert any(to == "clients" and service == "tcp/22" for _, to, service in closed)
        assert found["evidence"]["reasons"] == []

    def test_what_stays_is_the_same(self, capsys: Capsys, tmp_path: Path) -> None:
        both = [group("db", FROM_ELSEWHERE, rule(443, prefix_list_ids=["pl-1"])), host()]
        found = answer(capsys, *plan(tmp_path, both, both), *self.on(tmp_path))
        assert found["opened"] == found["closed"] == [] and found["evidence"]["reasons"] == []

    def test_it_is_only_for_plans(self, capsys: Capsys, tmp_path: Path) -> None:
        today = self.on(tmp_path)
        done = sgfast(capsys, "diff", today[1], today[1], *today)
        assert done.status == 2 and "--on is for --plan" in done.err
