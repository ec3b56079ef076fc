"""Comparisons of exports that hold filters which sgfast does not read: no answer may say that nothing changes (SPEC
12.7).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import terraform
from command import SERVER, Outcome, handshake, sgfast, valid, write_capture
from corpus import ROOT

import sgfast as package

Capsys = pytest.CaptureFixture[str]
FORMS = ("text", "markdown", "json", "html")


def nsg_rule(port: str, **more: Any) -> terraform.Resource:
    said = {"priority": 100, "access": "Allow", "source_address_prefix": "*", "destination_port_range": port} | more
    return terraform.resource("azurerm_network_security_rule.admin", **said)


def firewall(*ports: str) -> terraform.Resource:
    allow = [{"protocol": "tcp", "ports": [*ports]}]
    return terraform.resource(
        "google_compute_firewall.web", name="web", allow=allow, source_ranges=["0.0.0.0/0"], self_link=terraform.LATER
    )


def aws(port: int = 443) -> list[terraform.Resource]:
    rule = {"protocol": "tcp", "from_port": port, "to_port": port, "cidr_blocks": ["0.0.0.0/0"], "self": False}
    group = terraform.resource("aws_security_group.web", id="sg-1", name="web", ingress=[rule], egress=[])
    host = terraform.resource(
        "aws_instance.web", id="i-1", tags={"Name": "web-1"}, private_ip=SERVER, vpc_security_group_ids=["sg-1"],
        network_interface=[],
    )  # fmt: skip
    return [group, host]


Compared = Sequence[terraform.Resource]


class Answers:
    """The answers of ``sgfast diff`` in every form, which all end with the same status."""

    def __init__(self, capsys: Capsys, folder: Path, *arguments: str | Path) -> None:
        self.status = -1
        self.of: dict[str, str] = {}
        for form in FORMS:
            page = folder / "page.html"
            extra = ("--report", page) if form == "html" else ("--format", form)
            done: Outcome = sgfast(capsys, "diff", *arguments, "-q", *extra)
            assert self.status in (-1, done.status)
            self.status = done.status
            self.of[form] = page.read_text() if form == "html" else " ".join(done.out.split())
        self.json = valid("diff", json.loads(self.of["json"]))

    def codes(self) -> list[tuple[str, str]]:
        return [(each["code"], each["level"]) for each in self.json["evidence"]["reasons"]]

    def changes(self) -> list[tuple[str, str]]:
        return [(each["name"], each["change"]) for each in self.json["unread_filters"]]

    def headline(self, form: str) -> str:
        text = self.of[form]
        if form == "html":
            return text.split("<h1", 1)[1].split("</h1>")[0].split(">", 1)[1]
        return text[:200]


def files(folder: Path, old: Compared, new: Compared) -> tuple[Path, Path]:
    paths = folder / "old.json", folder / "new.json"
    for path, resources in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(terraform.plan([], resources)))
    return paths


def one_plan(folder: Path, old: Compared, new: Compared) -> tuple[str, Path]:
    path = folder / "plan.json"
    path.write_text(json.dumps(terraform.plan(old, new)))
    return "--plan", path


@pytest.mark.parametrize("given", [files, one_plan])
@pytest.mark.parametrize(
    ("old", "new"), [(nsg_rule("443"), nsg_rule("3389")), (firewall("443"), firewall("443", "3389"))]
)
def test_plans_without_a_single_group_are_not_compared(
    capsys: Capsys, tmp_path: Path, given: Any, old: terraform.Resource, new: terraform.Resource
) -> None:
    found = Answers(capsys, tmp_path, *given(tmp_path, [old], [new]))
    assert found.status == 1
    for form in ("text", "markdown", "html"):
        assert "Cannot tell" in found.headline(form) and "opens nothing" not in found.of[form], form
        assert old["address"] in found.of[form]
    assert found.json["evidence"]["conclusive"] == "no"
    assert found.codes() == [("no-group", "no"), ("unread-filters", "partly")]
    assert found.changes() == [(old["address"], "changed")]


@pytest.mark.parametrize("given", [files, one_plan])
@pytest.mark.parametrize(
    ("old", "new", "change"),
    [([], [nsg_rule("3389")], "added"), ([nsg_rule("22")], [nsg_rule("3389")], "changed"),
     ([nsg_rule("22")], [], "removed")],
)  # fmt: skip
def test_a_filter_of_azure_beside_aws_is_in_the_headline(
    capsys: Capsys, tmp_path: Path, given: Any, old: Compared, new: Compared, change: str
) -> None:
    found = Answers(capsys, tmp_path, *given(tmp_path, [*aws(), *old], [*aws(), *new]))
    assert found.status == 1
    assert f"NEW opens nothing and closes nothing of what is read; not read: 1 filter, 1 {change}" in (
        found.headline("text")
    )
    assert f"not read: 1 filter, 1 {change}" in found.headline("markdown")
    assert "filters that are not read change, too" in found.headline("html")
    assert found.codes() == [("unread-filters", "partly")]
    assert found.changes() == [("azurerm_network_security_rule.admin", change)]


@pytest.mark.parametrize("given", [files, one_plan])
def test_a_filter_that_stays_the_same_is_named_without_an_alarm(capsys: Capsys, tmp_path: Path, given: Any) -> None:
    old, new = nsg_rule("22", tags={"a": "1"}), nsg_rule("22", tags={"a": "2"})
    found = Answers(capsys, tmp_path, *given(tmp_path, [*aws(), old], [*aws(), new]))
    assert found.status == 0 and found.codes() == []
    assert "of what is read; not read: 1 filter, the same in both" in found.headline("text")
    assert found.changes() == [("azurerm_network_security_rule.admin", "same")]


def test_what_the_provider_chooses_is_no_change_and_what_a_variable_says_is(capsys: Capsys, tmp_path: Path) -> None:
    """Only after apply is known what a plan's reference says: that may be anything."""
    def planned(link: Any, ranges: Any) -> dict[str, Any]:
        web = terraform.resource("google_compute_firewall.web", name="web", self_link=link, source_ranges=ranges)
        shown = terraform.block("google_compute_firewall.web", source_ranges=terraform.refs("var.offices"))
        return terraform.plan([], [*aws(), web], shown)

    paths = tmp_path / "old.json", tmp_path / "new.json"
    paths[0].write_text(json.dumps(planned("https://a", ["10.0.0.0/8"])))
    paths[1].write_text(json.dumps(planned(terraform.LATER, ["10.0.0.0/8"])))
    assert sgfast(capsys, "diff", *paths).status == 0
    later = terraform.resource("google_compute_firewall.web", name="web", self_link="https://a",
                               source_ranges=terraform.LATER)  # fmt: skip
    paths[1].write_text(json.dumps(terraform.plan([], [*aws(), later])))
    assert sgfast(capsys, "diff", *paths).status == 1


@pytest.mark.parametrize(
    "filter_of",
    [
        lambda n: terraform.resource("aws_network_acl_rule.a", rule_number=n),
        lambda n: terraform.resource("aws_default_network_acl.a", ingress=[{"rule_no": n}]),
        lambda n: terraform.resource("aws_networkfirewall_rule_group.a", rules=str(n)),
        lambda n: terraform.resource("oci_core_security_list.a", egress_security_rules=[n]),
        lambda n: terraform.resource("kubernetes_network_policy.a", spec=[n]),
        lambda n: terraform.resource(
            "azapi_resource.a", type="Microsoft.Network/networkSecurityGroups@2023-09-01", body={"n": n}),
    ],
)  # fmt: skip
def test_each_kind_of_filter_counts(capsys: Capsys, tmp_path: Path, filter_of: Any) -> None:
    found = Answers(capsys, tmp_path, *files(tmp_path, [*aws(), filter_of(1)], [*aws(), filter_of(2)]))
    assert found.status == 1 and found.codes() == [("unread-filters", "partly")]


def test_a_bucket_is_no_filter(capsys: Capsys, tmp_path: Path) -> None:
    bucket = terraform.resource("azurerm_storage_account.a", name="a")
    found = Answers(capsys, tmp_path, *files(tmp_path, aws(), [*aws(), bucket]))
    assert found.status == 0 and found.codes() == [] and found.changes() == []
    assert "NEW opens nothing and closes nothing" in found.headline("text")


def test_a_template_whose_network_acl_changes(capsys: Capsys, tmp_path: Path) -> None:
    def template(port: int, tag: str) -> dict[str, Any]:
        entry = {"Protocol": 6, "PortRange": {"From": port, "To": port}, "Tags": [{"Key": tag, "Value": "x"}]}
        web = {"GroupDescription": "web", "VpcId": "vpc-1"}
        return {"Resources": {
            "Web": {"Type": "AWS::EC2::SecurityGroup", "Properties": web},
            "Open": {"Type": "AWS::EC2::NetworkAclEntry", "Properties": entry},
        }}  # fmt: skip

    paths = tmp_path / "old.json", tmp_path / "new.json"
    for (port, tag), same in {(3389, "a"): False, (443, "b"): True}.items():
        paths[0].write_text(json.dumps(template(443, "a")))
        paths[1].write_text(json.dumps(template(port, tag)))
        found = Answers(capsys, tmp_path, *paths)
        assert found.changes() == [("Open", "same" if same else "changed")]
        assert found.status == int(not same)


def test_a_network_acl_of_an_export_changes(capsys: Capsys, tmp_path: Path) -> None:
    def export(port: int) -> dict[str, Any]:
        entry = {"RuleNumber": 100, "Protocol": "6", "RuleAction": "allow", "Egress": False, "CidrBlock": "0.0.0.0/0",
                 "PortRange": {"From": port, "To": port}}  # fmt: skip
        acl = {"NetworkAclId": "acl-1", "Entries": [entry], "Associations": [{"SubnetId": "subnet-1"}]}
        group = {"GroupId": "sg-1", "GroupName": "web", "VpcId": "vpc-1", "IpPermissions": []}
        return {"SecurityGroups": [group], "NetworkAcls": [acl]}

    paths = tmp_path / "old.json", tmp_path / "new.json"
    for path, port in zip(paths, (443, 3389), strict=True):
        path.write_text(json.dumps(export(port)))
    found = Answers(capsys, tmp_path, *paths)
    assert found.status == 1 and found.changes() == [("acl-1", "changed")]


def test_a_user_may_accept_what_is_not_read(capsys: Capsys, tmp_path: Path) -> None:
    paths = files(tmp_path, [*aws(), nsg_rule("22")], [*aws(), nsg_rule("3389")])
    assert sgfast(capsys, "diff", *paths, "--fail-on", "opened").status == 1
    accepted = sgfast(capsys, "diff", *paths, "--fail-on", "opened", "--accept-evidence", "unread-filters")
    assert accepted.status == 0 and "unread-filters" in accepted.out and "(accepted)" in accepted.out


def test_words_that_rest_on_rules_fail_where_nothing_was_compared(capsys: Capsys, tmp_path: Path) -> None:
    """The filters are the same, but not a single group is there: a check that holds for nothing must not pass."""
    paths = files(tmp_path, [nsg_rule("22")], [nsg_rule("22")])
    assert sgfast(capsys, "diff", *paths).status == 0
    for word in ("opened", "closed"):
        assert sgfast(capsys, "diff", *paths, "--fail-on", word).status == 1
    assert sgfast(capsys, "diff", *paths, "--fail-on", "opened", "--accept-evidence", "no-group").status == 0


def test_traffic_says_nothing_about_filters_that_are_not_read(capsys: Capsys, tmp_path: Path) -> None:
    capture = write_capture(tmp_path, *handshake(40000, 443))
    paths = files(tmp_path, [*aws(), nsg_rule("22")], [*aws(), nsg_rule("3389")])
    for word in ("newly-denied", "newly-allowed"):
        assert sgfast(capsys, "diff", *paths, capture, "--fail-on", word).status == 1
    found = Answers(capsys, tmp_path, *paths, capture)
    assert ("unread-filters", "partly") in found.codes()
    for form in ("text", "markdown", "html"):
        assert found.of[form].count("among the changes is a filter") + (
            found.of[form].count("Among the changes is a filter")) == 1


def test_a_program_sees_it_too(tmp_path: Path) -> None:
    old, new = files(tmp_path, [*aws(), nsg_rule("22")], [*aws(), nsg_rule("3389")])
    result = package.diff(old, new)
    assert result.evidence.conclusive == "partly"
    assert [(each.kind, each.change) for each in result.by_rules.unread_filters] == [
        ("azurerm_network_security_rule", "changed")
    ]
    assert "conclusive: partly" in repr(result) and "among the changes is a filter" in result._repr_html_()
    assert str(result).count("among the changes is a filter") == 1
    accepted = package.diff(old, new, accept_evidence=["unread-filters"])
    assert accepted.evidence.conclusive == "yes"


@pytest.mark.skipif(not (ROOT / "azure-gcp").is_dir(), reason="the corpus is not here")
def test_plans_of_others_that_open_remote_desktop(capsys: Capsys, tmp_path: Path) -> None:
    plans = [ROOT / f"azure-gcp/azure/regula-tf-{port}/plan.json" for port in (22, 3389)]
    found = Answers(capsys, tmp_path, *plans)
    assert found.status == 1 and found.json["evidence"]["conclusive"] == "no"
    assert {change for _, change in found.changes()} == {"changed", "same"}
    for path in (ROOT / "azure-gcp").rglob("*plan.json"):
        if "planned_values" in path.read_text():
            assert sgfast(capsys, "diff", "--plan", path).status == 1, path
