"""Rules whose peer is a group go to AWS as such, because the addresses of members change with the next scaling (SPEC
10.15, 13.3).
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aws_account import LB, LB_IPV4, LB_IPV6, WEB, WEB_IPV4, WEB_IPV6, account, permission
from command import handshake, sgfast, write_capture
from exports import policy_of

from sgfast import Policy
from sgfast.clouds.aws import export as aws
from sgfast.clouds.loading import load_policy
from sgfast.clouds.terraform import export as terraform
from sgfast.policy.model import Rule


def sent(policy: Policy, old: Policy | None = None) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the action, the group and each permission of the calls that change rules."""
    calls = aws.export(old, policy).document("0")["calls"]
    return [
        (each["action"], each["parameters"]["GroupId"], permission)
        for each in calls for permission in each["parameters"].get("IpPermissions", ())
    ]  # fmt: skip


@pytest.mark.parametrize("start", ["an account", "a policy without a provider"])
@pytest.mark.parametrize("ends", [[(LB_IPV4, WEB_IPV4)], [(LB_IPV6, WEB_IPV6)]])
def test_rules_suggested_from_traffic_of_one_ip_version_name_the_group(
    start: str, ends: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "today.json"
    path.write_text(json.dumps(account([], [])))
    if start != "an account":
        text = sgfast(capsys, "import", "aws", path, "-q").out.replace("settings: {profile: aws}", "")
        path = tmp_path / "today.yaml"
        path.write_text(re.sub(r"settings:\n  profile: aws\n", "", text))
        assert load_policy(str(path)).settings.profile == "otc"
    frames = [frame for pair in ends for port in (80, 443) for frame in handshake(4000 + port, port, *pair)]
    capture = write_capture(tmp_path, *frames)
    for target in (("aws", "--to-format", "json"), ("terraform", "--provider", "aws")):
        outcome = sgfast(capsys, "suggest", capture, "--policy", path, "--keep", "--to", *target)
        assert outcome.status == 0, outcome.err
        assert not re.search(r"Cidr|cidr|/32|/128", outcome.out)
        assert len(re.findall("UserIdGroupPairs|referenced_security_group_id", outcome.out)) == 4
        assert "adds 4 rules" in outcome.out


def test_a_suggestion_for_one_account_is_one_line_and_says_that_nobody_used_the_other_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, made = tmp_path / "today.json", tmp_path / "suggested.yaml"
    path.write_text(json.dumps(account([], [])))
    capture = write_capture(tmp_path, *handshake(4000, 80, LB_IPV4, WEB_IPV4))
    report = sgfast(capsys, "suggest", capture, "--policy", path, "--from", "all", "-o", made).out
    assert "2 rules in 3 groups" in report and re.search(r"1 +\S+ \S+ +web: tcp/80 from lb\n", report)
    rules = load_policy(str(made)).group_by_name["web"].rules
    assert [rule.ethertype for rule in rules] == [4, 6]
    assert "# No connection was seen. In AWS a rule whose peer is a group is for both IP versions." in made.read_text()


def test_members_of_one_ip_version_need_no_rule_for_the_other_one_in_the_suggestion(tmp_path: Path) -> None:
    from sgfast import suggest

    policy = policy_of(account([], [], dual_stack=False))
    found = suggest(write_capture(tmp_path, *handshake(4000, 80, LB_IPV4, WEB_IPV4)), policy=policy, allowed_only=False)
    assert [each.rule.ethertype for each in found.rules] == [4, 4]
    assert [permission["UserIdGroupPairs"] for *_, permission in sent(found.policy, policy)] == [
        [{"GroupId": LB}], [{"GroupId": WEB}]
    ][::-1]  # fmt: skip


def test_a_rule_of_one_ip_version_alone_does_not_open_the_other_one() -> None:
    policy = policy_of(account([permission(80, LB)]))
    web = policy.group_by_name["web"]
    one = replace(web, rules=web.rules[:1])
    only = replace(policy, security_groups=tuple(one if each is web else each for each in policy.security_groups))
    assert [each["IpRanges"] for *_, each in sent(only) if "IpRanges" in each] == [[{"CidrIp": f"{LB_IPV4}/32"}]]
    about = aws.export(None, only).document("0")["about"]
    assert "add the same rules for the other version, which opens more: they then name the group." in about
    assert "add the same rules" not in aws.export(None, policy).document("0")["about"]


def rules_of(policy: Policy) -> dict[str, set[Rule]]:
    return {group.name: {rule.without_words() for rule in group.rules} for group in policy.security_groups}


LIST = {"PrefixLists": [{"PrefixListId": "pl-0000000a", "PrefixListName": "offices"}]}


def test_an_account_comes_back_from_its_export_with_one_rule_for_each_of_its_rules() -> None:
    """Prefix lists whose addresses nobody knows are for both versions, too."""
    addresses = {"addresses": {"pl-0000000a": ["192.0.2.0/24", "2001:db8:1::/48"]}}
    pair = [{"PrefixListId": "pl-0000000a", "Description": "offices"}]
    inbound = [permission(80, LB), permission(22, PrefixListIds=pair), permission(81, WEB),
               permission(90, IpRanges=[{"CidrIp": "0.0.0.0/0"}], Ipv6Ranges=[{"CidrIpv6": "::/0"}]),
               {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "UserIdGroupPairs": [{"GroupId": LB}]},
               {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": LB}]}]  # fmt: skip
    document = account(inbound)
    policy = policy_of(document, addresses)
    calls = sent(policy, replace(policy, security_groups=tuple(replace(e, rules=()) for e in policy.security_groups)))
    back = account([each for action, group, each in calls if action.endswith("Ingress") and group == WEB],
                   [each for action, group, each in calls if action.endswith("Egress")])  # fmt: skip
    assert len(calls) == 8, "the permission with two CIDRs is two rules, and all others one"
    assert rules_of(policy_of(back, addresses)) == rules_of(policy)


def test_terraform_imports_each_rule_of_the_account_once() -> None:
    ids = [f"sgr-0000000{n}" for n in range(3)]
    rules = [
        {"SecurityGroupRuleId": id, "GroupId": WEB, "IsEgress": False, "IpProtocol": "tcp", "FromPort": port,
         "ToPort": port, **peer}
        for id, port, peer in (
            (ids[0], 80, {"ReferencedGroupInfo": {"GroupId": LB}}), (ids[1], 22, {"PrefixListId": "pl-0000000a"}),
            (ids[2], 90, {"CidrIpv4": "0.0.0.0/0"}),
        )
    ]  # fmt: skip
    document = account([], [])
    for group in document["SecurityGroups"]:
        del group["IpPermissions"], group["IpPermissionsEgress"]
    addresses = {"addresses": {"pl-0000000a": ["192.0.2.0/24", "2001:db8:1::/48"]}}
    policy = policy_of({**document, "SecurityGroupRules": rules}, addresses)
    text = terraform.export(None, policy, "aws", "0")
    assert re.findall(r'id = "(sgr-.*)"', text) == ids
    assert "adds 3 rules" in text and text.count('resource "aws_vpc_security_group_ingress_rule"') == 3
