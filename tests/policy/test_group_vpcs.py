"""The VPC of a security group: what says it, and who needs it (SPEC 2.17, 7.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from exports import policy_of
from terraform import LATER, block, plan, refs, resource, state

from sgfast import AddGroup, SecurityGroup
from sgfast.base.errors import ExportError, PolicyError
from sgfast.clouds.aws import export as aws
from sgfast.clouds.loading import parse_policy
from sgfast.clouds.terraform import export as terraform
from sgfast.policy.changed_policy import apply_change
from sgfast.policy.model import Policy
from sgfast.policy.renamed_vpcs import with_vpc_names_of
from sgfast.policy.value_checks import check_made_policy
from sgfast.questions.checking import check_policy
from sgfast.questions.suggesting.document import document

TEXT = """
version: 1
vpcs: [{name: v}, {name: w}, {name: x}]
peerings: [[w, x]]
security_groups:
  - {name: plain, vpc: v, rules: [{id: four, direction: inbound, protocol: tcp, ports: 80, source: there}]}
  - {name: there}
instances:
  - {name: j, vpc: w, addresses: [10.0.0.2], security_groups: [there]}
"""


def policy(**changes: str) -> Policy:
    text = TEXT
    for old, new in changes.items():
        text = text.replace({"vpc": "vpc: v, ", "groups": "[there]}\n"}[old], new)
    return parse_policy(text, "p.yaml")


def vpcs_of(made: Policy) -> dict[str, str]:
    return {group.name: group.vpc for group in made.security_groups}


def test_a_document_says_the_vpc_of_a_group() -> None:
    assert vpcs_of(policy()) == {"plain": "v", "there": ""}
    # An instance of another VPC may be in the group: AWS lets an account associate a group with several VPCs.
    assert policy(groups="[there, plain]}\n").instances[0].security_groups == ("there", "plain")
    with pytest.raises(PolicyError, match=r"^p.yaml:6: security_groups\[0\].vpc: unknown VPC 'vv': define it"):
        policy(vpc="vpc: vv, ")
    assert vpcs_of(parse_policy(document(policy(), (), "")))["plain"] == "v"


def test_a_program_cannot_name_a_vpc_that_is_not_there() -> None:
    made = replace(policy(), security_groups=(SecurityGroup("g", vpc="nowhere"), *policy().security_groups[1:]))
    with pytest.raises(PolicyError, match=r"^policy.security_groups\[0\].vpc: unknown VPC 'nowhere'"):
        check_made_policy(made)


def test_an_added_group_says_its_vpc() -> None:
    after = apply_change(policy(), AddGroup(SecurityGroup("new", vpc="w"))).policy
    assert after.group_by_name["new"].vpc == "w"
    with pytest.raises(PolicyError, match=r"^unknown VPC 'ww'"):
        apply_change(policy(), AddGroup(SecurityGroup("new", vpc="ww")))


def test_a_vpc_that_was_renamed_is_that_of_its_groups() -> None:
    new = parse_policy(
        TEXT.replace("name: v}", "name: main, id: vpc-1}").replace("vpc: v,", "vpc: main,"), "new.yaml"
    )
    old = parse_policy(TEXT.replace("name: v}", "name: v, id: vpc-1}"), "old.yaml")
    assert vpcs_of(with_vpc_names_of(new, old)) == {"plain": "main", "there": ""}


@pytest.mark.parametrize(("vpc", "found"), [
    ("vpc: v, ", ["four"]), ("vpc: w, ", []), ("vpc: x, ", []),
    ("", []),       # Nobody knows whether the group's VPC is that of the instance.
])  # fmt: skip
def test_a_group_without_instances_is_judged_in_its_own_vpc(vpc: str, found: list[str]) -> None:
    """SPEC 10.12: the first VPC is not that of each such group."""
    findings = check_policy(policy(vpc=vpc)).findings
    assert [each.rule for each in findings if each.code == "SG007"] == found
    assert all("not peered" in each.message for each in findings if each.code == "SG007")


def test_nobody_is_nobody_in_every_vpc() -> None:
    for text, words in (
        (TEXT.replace("[there]}", "[other]}") + "", "no instance is in there"),
        (TEXT.replace("10.0.0.2", '"2001:db8::1"'), "no instance in there has an IPv4 address"),
    ):
        text = text.replace("vpc: v, ", "").replace("  - {name: there}", "  - {name: there}\n  - {name: other}")
        found = [each for each in check_policy(parse_policy(text)).findings if each.code == "SG007"]
        assert [each.rule for each in found] == ["four"] and words in found[0].message


def group(group_id: str, vpc: str) -> dict[str, object]:
    return {"GroupId": group_id, "GroupName": group_id[3:], "Description": "", "VpcId": vpc, "IpPermissions": [],
            "IpPermissionsEgress": []}  # fmt: skip


def test_imports_write_the_vpcs_of_groups() -> None:
    exported = {"SecurityGroups": [group("sg-a", "vpc-1"), group("sg-b", "vpc-2")]}
    assert vpcs_of(policy_of(exported)) == {"a": "vpc-1", "b": "vpc-2"}
    # In an account with one VPC there is nothing to say.
    assert vpcs_of(policy_of({"SecurityGroups": [group("sg-a", "vpc-1")]})) == {"a": ""}
    groups = [
        resource(f"aws_security_group.{name}", id=f"sg-{name}", name=name, vpc_id=vpc, ingress=[], egress=[])
        for name, vpc in (("a", "vpc-1"), ("b", "vpc-2"))
    ]
    assert vpcs_of(policy_of(state(*groups))) == {"a": "vpc-1", "b": "vpc-2"}
    template = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {
        name: {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "g", "VpcId": {"Ref": vpc}}}
        for name, vpc in (("a", "One"), ("b", "Two"))
    } | {vpc: {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}} for vpc in ("One", "Two")}}
    assert vpcs_of(policy_of(template)) == {"a": "One", "b": "Two"}


def test_a_plan_places_a_group_in_the_vpc_that_it_will_make() -> None:
    groups = [
        resource(f"aws_security_group.{name}", id=LATER, name=name, vpc_id=vpc, ingress=[], egress=[])
        for name, vpc in (("a", "vpc-1"), ("b", LATER))
    ]
    made = plan(
        [], [resource("aws_vpc.made", id=LATER, tags={"Name": "made"}), *groups],
        block("aws_security_group.b", vpc_id=refs("aws_vpc.made.id")),
    )  # fmt: skip
    assert vpcs_of(policy_of(made)) == {"a": "vpc-1", "b": "made"}


AWS = TEXT.replace("version: 1", "version: 1\nsettings: {profile: aws}").replace("[[w, x]]", "[[w, x], [v, w]]")


def test_exports_make_a_group_without_instances_in_its_vpc() -> None:
    made = aws.export(None, parse_policy(AWS))
    calls = [call.request for call in made.calls if call.request.get("action") == "CreateSecurityGroup"]
    where = {call["parameters"]["GroupName"]: call["parameters"]["VpcId"] for call in calls}
    assert where == {"plain": "${vpc_v}", "there": "${vpc_w}"}
    assert "vpc_v" in terraform.export(None, parse_policy(AWS), "aws", "0")
    with pytest.raises(ExportError, match=r"'plain': has no instances, .* give it its vpc"):
        aws.export(None, parse_policy(AWS.replace("vpc: v, ", "")))
    with pytest.raises(ExportError, match="'plain': it and its instances are in several VPCs"):
        aws.export(None, parse_policy(AWS.replace("[there]}\n", "[there, plain]}\n")))


def test_an_export_moves_no_group_to_another_vpc() -> None:
    old = parse_policy(AWS)
    assert aws.export(old, parse_policy(AWS.replace("ports: 80", "ports: 81"))).calls
    with pytest.raises(ExportError, match="security group 'plain': is in another VPC in the old policy"):
        aws.export(old, parse_policy(AWS.replace("vpc: v, ", "vpc: w, ")))
