"""A policy that is exported to AWS and run there comes back as the same policy (SPEC 13.2 to 13.5)."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ec2
import pytest
from command import PCAPS, sgfast
from effort import some
from exported import (
    BLOCKS,
    assert_kept_policies_only_add,
    assert_policies_and_their_changes_come_back,
    assert_same,
    renamed,
    run,
    seeds,
)
from provider_commands import executed, provider_command

from sgfast.base.errors import ExportError
from sgfast.clouds.aws import export as aws
from sgfast.clouds.aws.live import policy_from_boto3
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy.model import AddressGroupPeer, Policy, SecurityGroup

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")

REGION = "eu-central-1"
POLICIES = int(os.environ.get("SGFAST_EXPORT_POLICIES") or some(1, 200))


@pytest.fixture(scope="module")
def account() -> Iterator[dict[str, str]]:
    """The environment in which an empty account is found."""
    with pytest.MonkeyPatch.context() as patch, ec2.ec2() as (url, _):
        # Without the last one, a new account would read a thousand images.
        ec2.set_up(patch, url, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_REGION=REGION,
                   AWS_DEFAULT_REGION=REGION, MOTO_EC2_LOAD_DEFAULT_AMIS="false")  # fmt: skip
        yield {**os.environ}


@pytest.fixture(scope="module")
def connected(account: dict[str, str]) -> Any:
    return boto3.client("ec2", region_name=REGION)


@pytest.fixture
def client(connected: Any) -> Any:
    ec2.backend(REGION).reset()
    return connected


def place(client: Any, policy: Policy, block: str = BLOCKS[4]) -> dict[str, str]:
    """Make the policy's VPC and interfaces; what the export needs to be told."""
    vpc = client.create_vpc(CidrBlock=block, AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]
    client.create_tags(Resources=[vpc], Tags=[{"Key": "Name", "Value": policy.vpcs[0].name}])
    subnet = client.create_subnet(VpcId=vpc, CidrBlock=block, Ipv6CidrBlock=BLOCKS[6])["Subnet"]["SubnetId"]
    for instance in policy.instances:
        four, *six = (str(address.network_address) for address in instance.addresses)
        client.create_network_interface(
            SubnetId=subnet, PrivateIpAddress=four, Ipv6Addresses=[{"Ipv6Address": each} for each in six]
        )
    return {"vpc_default": vpc}


def call(client: Any, request: dict[str, Any]) -> Any:
    operation = re.sub(r"(?<!^)([A-Z])", r"_\1", request["action"]).lower()
    return getattr(client, operation)(**request["parameters"])


def apply(client: Any, old: Policy | None, new: Policy, needed: dict[str, str]) -> Policy:
    """Make the calls that lead to ``new``; what is there then."""
    document = aws.export(old, new).document("0")
    run(document, needed if document["needs"] else {}, lambda request: call(client, request))
    return policy_from_boto3(client)


def test_random_policies_and_their_changes_come_back_from_the_calls(client: Any) -> None:
    def changed(old: Policy | None, new: Policy) -> Policy:
        if old is None:
            ec2.backend(REGION).reset()
        return apply(client, old, new, {} if old else place(client, new))

    assert_policies_and_their_changes_come_back(
        seeds(POLICIES, 2101), aws.TARGET, changed, lambda old, new: aws.export(old, new).calls
    )


def test_kept_policy_only_adds_to_the_account(client: Any, tmp_path: Path) -> None:
    def changed(old: Policy | None, new: Policy) -> Policy:
        if old is None:
            ec2.backend(REGION).reset()
        return apply(client, old, new, {} if old else place(client, new))

    assert_kept_policies_only_add(seeds(POLICIES, 2102), aws.TARGET, tmp_path, changed)


SHOP = """
version: 1
security_groups:
  - name: web
    description: The "shop's" $(web) servers
    rules:
      - {direction: inbound, protocol: tcp, ports: "80,443", source: 0.0.0.0/0, description: "it's `here`"}
      - {direction: outbound, protocol: all}
  - name: db
    description: "file:///etc/passwd"
    rules: [{direction: inbound, protocol: icmp, source: web}, {direction: inbound, protocol: tcp, source: db}]
instances:
  - {name: web-1, addresses: [10.1.0.16], security_groups: [web]}
  - {name: db-1, addresses: [10.1.0.17], security_groups: [db, web]}
"""


@pytest.fixture(scope="module")
def shell(account: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a shell that has ``aws``."""
    pytest.importorskip("awscli")
    with provider_command("aws", tmp_path_factory.mktemp("aws"), [sys.executable], account) as path:
        yield account | {"PATH": path}


def test_the_script_does_what_the_calls_do_and_may_be_run_again(
    client: Any, shell: dict[str, str], tmp_path: Path
) -> None:
    first = parse_policy(SHOP)
    needed = place(client, first)
    script = aws.export(None, first).script("0", aws.FUNCTIONS)
    done = executed(script, tmp_path, shell)
    assert done.returncode == 2 and "vpc_default: must be the id of the VPC default" in done.stderr
    done = executed(script, tmp_path, shell | needed)
    assert (done.returncode, done.stderr) == (0, ""), done
    back = policy_from_boto3(client)
    assert_same(first, back, aws.TARGET)
    descriptions = {group.description for group in back.security_groups}
    assert descriptions >= {"The _shop_s_ _(web) servers", "file:///etc/passwd"}
    # As after an interrupted run: one group has too few rules. What is there is found and used.
    web = back.group_by_name["web"].id
    few = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    client.revoke_security_group_ingress(GroupId=web, IpPermissions=few)
    done = executed(script, tmp_path, shell | needed)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert_same(first, policy_from_boto3(client), aws.TARGET)
    # Rules that nobody exported are not taken for an earlier run's.
    few[0]["FromPort"] = 442
    client.authorize_security_group_ingress(GroupId=web, IpPermissions=few)
    done = executed(script, tmp_path, shell | needed)
    assert done.returncode == 1 and f"security group {web}: was there already, and has other rules" in done.stderr
    client.revoke_security_group_ingress(GroupId=web, IpPermissions=few)

    # OLD is the document, so groups and interfaces have to be found by their names and addresses.
    text = SHOP.replace("protocol: icmp, source: web", "protocol: udp, source: web").replace("[db, web]", "[db]")
    second = parse_policy(text.replace('"80,443"', '"80,8080"'))
    script = aws.export(first, second).script("0", aws.FUNCTIONS)
    for _ in range(some(1, 2)):
        done = executed(script, tmp_path, shell | needed)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert_same(second, policy_from_boto3(client), aws.TARGET)


def test_a_prefix_list_stays_the_prefix_list_that_it_is(client: Any) -> None:
    vpc = client.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    offices = client.create_managed_prefix_list(
        PrefixListName="offices", MaxEntries=5, AddressFamily="IPv4", Entries=[{"Cidr": "192.0.2.0/24"}]
    )["PrefixList"]["PrefixListId"]  # fmt: skip
    group = client.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    peer = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "PrefixListIds": [{"PrefixListId": offices}]}
    client.authorize_security_group_ingress(GroupId=group, IpPermissions=[peer])
    old = policy_from_boto3(client)
    g = old.group_by_name["g"]
    moved = tuple(replace(rule, ports=((2, 2),)) if rule.direction == "inbound" else rule for rule in g.rules)
    groups = tuple(replace(each, rules=moved) if each is g else each for each in old.security_groups)
    back = apply(client, old, replace(old, security_groups=groups), {})
    assert [(rule.ports, rule.peer) for rule in back.group_by_name["g"].rules if rule.direction == "inbound"] == [
        (((2, 2),), AddressGroupPeer("offices"))
    ]
    lists = replace(old.address_groups[0], addresses=())
    with pytest.raises(ExportError, match="address group 'offices': is a prefix list of AWS; change it there first"):
        aws.export(old, replace(old, address_groups=(lists,)))


def test_a_group_has_another_name_here_but_not_in_the_account(client: Any) -> None:
    first = parse_policy(SHOP)
    back = apply(client, None, first, place(client, first))
    names = {name: f"new-{name}" if name in ("web", "db") else name for name in back.group_by_name}
    second = renamed(back, names)
    assert aws.export(back, second).calls == []
    fewer = [replace(each, rules=()) if each.name == "new-db" else each for each in second.security_groups]
    back = apply(client, back, replace(second, security_groups=tuple(fewer)), {})
    assert back.group_by_name["db"].rules == () and len(back.group_by_name["web"].rules) == 3


def test_what_traffic_needs_is_in_the_account_after_export(
    client: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The documentation's way: suggest, export, apply, import, compare."""
    wanted, calls, then = (tmp_path / name for name in ("wanted.yaml", "calls.json", "then.yaml"))
    assert sgfast(capsys, "suggest", PCAPS / "shop.pcap", "-o", wanted).status == 0
    assert sgfast(capsys, "export", wanted, "--to", "aws", "--format", "json", "-o", calls).status == 0
    policy = load_policy(wanted)
    run(json.loads(calls.read_text()), place(client, policy, "10.0.0.0/16"), lambda request: call(client, request))
    assert sgfast(capsys, "import", "aws", "--live", "--region", REGION, "-o", then, "-q").status == 0
    done = sgfast(capsys, "diff", wanted, then, "--fail-on", "opened,closed")
    assert (done.status, done.out) == (0, "By the rules alone: NEW opens nothing and closes nothing\n")
    # One rule less, and it is told.
    wanted.write_text(re.sub(r"\n.*protocol: udp, ports: 53.*", "", wanted.read_text(), count=1))
    assert sgfast(capsys, "diff", wanted, then, "--fail-on", "opened,closed").status == 1


def test_three_commands_lead_from_a_capture_to_an_account_that_breaks_nothing_and_lost_nothing(
    client: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The guide's way: import, suggest, apply. The account is that of the README, with fewer rules."""
    account = load_policy(PCAPS / "shop.proposed.yaml")
    apply(client, None, account, place(client, account, "10.0.0.0/16"))
    today, calls, then = (tmp_path / name for name in ("today.yaml", "calls.json", "then.yaml"))
    live = ("import", "aws", "--live", "--region", REGION, "-q", "-o")
    assert sgfast(capsys, *live, today).status == 0
    assert sgfast(capsys, "replay", today, PCAPS / "shop.pcap", "--fail-on", "would-break").status == 1
    target = ("--to", "aws", "--to-format", "json", "-o", calls)
    assert sgfast(capsys, "suggest", PCAPS / "shop.pcap", "--policy", today, "--keep", *target).status == 0
    run(json.loads(calls.read_text()), {}, lambda request: call(client, request))
    assert sgfast(capsys, *live, then).status == 0
    assert sgfast(capsys, "replay", then, PCAPS / "shop.pcap", "--fail-on", "would-break").status == 0
    assert sgfast(capsys, "diff", today, then, "--fail-on", "closed").status == 0
    was, now = (load_policy(each).group_of_rule.keys() for each in (today, then))
    assert was < now


def test_the_undo_leads_back_to_the_account_as_it_was(client: Any) -> None:
    """SPEC 13.1: the same policies, exchanged. The change makes a group that has no id, and deletes another one."""
    first = parse_policy(SHOP)
    needed = place(client, first)
    before = apply(client, None, first, needed)
    cache = SecurityGroup("cache", before.group_by_name["web"].rules[:1], vpc=before.group_by_name["web"].vpc)
    groups = tuple(cache if each.name == "db" else each for each in before.security_groups)
    instances = tuple(
        replace(each, security_groups=("cache",)) if "db" in each.security_groups else each for each in before.instances
    )
    edited = replace(before, security_groups=groups, instances=instances)
    then = apply(client, before, edited, needed)
    assert {"cache"} == then.group_by_name.keys() - before.group_by_name.keys()
    assert_same(before, apply(client, edited, before, needed), aws.TARGET)


def test_the_policy_of_readme_comes_back_though_a_rule_with_a_group_is_for_ipv4_alone(client: Any) -> None:
    policy = load_policy(PCAPS / "shop.yaml")
    assert_same(policy, apply(client, None, policy, place(client, policy, "10.0.0.0/16")), aws.TARGET)


def test_a_script_stops_where_aws_knows_none(client: Any, shell: dict[str, str], tmp_path: Path) -> None:
    # OLD knows the group, so only the interface has to be found.
    first = replace(parse_policy(SHOP), instances=())
    known = (replace(each, id=f"sg-0000000{n}") for n, each in enumerate(first.security_groups))
    first = replace(first, security_groups=tuple(known))
    second = replace(first, instances=parse_policy(SHOP).instances[:1])
    script = aws.export(first, second).script("0", aws.FUNCTIONS)
    done = executed(script, tmp_path, shell | place(client, first))
    assert done.returncode == 1 and done.stderr == "network interface of web-1: AWS knows none\n"


TWO_VPCS = """
version: 1
vpcs: [{{name: v, id: vpc-01234567, region: {v}}}, {{name: w, region: {w}}}]
peerings: [{peerings}]
security_groups:
  - {{name: {name}, rules: [{{direction: inbound, protocol: tcp, source: db}}]}}
  - {{name: db}}
  - {{name: unused}}
instances:
  - {{name: i, vpc: v, addresses: [10.1.0.4{more}], security_groups: [{name}]}}
  - {{name: j, vpc: w, addresses: [10.2.0.4], security_groups: [db{other}]}}
"""
PLAIN = {"v": "eu-1", "w": "eu-1", "peerings": "[v, w]", "name": "web", "more": "", "other": ", unused"}


def test_each_call_goes_to_the_region_of_its_vpc() -> None:
    rules = "rules: [{direction: inbound, protocol: tcp, source: db}]"
    policy = parse_policy(TWO_VPCS.format(**PLAIN | {"w": "eu-2"}).replace(rules, "rules: []"))
    made = aws.export(None, policy)
    assert made.needs == {"vpc_w": "the id of the VPC w"}
    calls = [call.request for call in made.calls if call.request.get("action") == "CreateSecurityGroup"]
    assert [(call["region"], call["parameters"]["VpcId"]) for call in calls] == [
        ("eu-1", "vpc-01234567"), ("eu-2", "${vpc_w}"), ("eu-2", "${vpc_w}")
    ]  # fmt: skip
    script = made.script("0", aws.FUNCTIONS)
    regions = re.findall(r"^export AWS_REGION=(\S+) AWS_DEFAULT_REGION=\1$", script, re.M)
    # Two groups, their check, the interface of each instance, and its groups.
    assert regions == ["eu-1", "eu-2"] * 4


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, ""),
        ({"w": "eu-2"}, r"security group 'web', rule web/inbound/1: AWS takes no group in another region; write its"),
        ({"peerings": ""}, "rule web/inbound/1: AWS takes no group in VPC 'w', which is not peered"),
        ({"other": ", unused, web"}, r"security group 'web': it and its instances are in several VPCs \('v', 'w'\)"),
        ({"other": ""}, "security group 'unused': has no instances, which would say in which VPC AWS has to make it"),
        ({"name": "sg-web"}, "security group 'sg-web': AWS takes no name that begins with sg-"),
        ({"name": "default"}, "security group 'default': every VPC has it already"),
    ],
)
def test_what_aws_cannot_be_told_is_an_error(change: dict[str, str], error: str) -> None:
    policy = parse_policy(TWO_VPCS.format(**PLAIN | change))
    if not error:
        aws.export(None, policy)
        return
    with pytest.raises(ExportError, match=error):
        aws.export(None, policy)


@pytest.mark.parametrize(
    "region",
    [
        "eu-central-1", "us-gov-west-1", "us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "eusc-de-east-1",
        "cn-north-1", "ap-southeast-7", "mx-central-1",
    ],
)  # fmt: skip
def test_the_script_goes_to_any_region_that_aws_has(region: str) -> None:
    made = aws.export(None, parse_policy(TWO_VPCS.format(**PLAIN | {"v": region, "w": region})))
    assert f"\nexport AWS_REGION={region} AWS_DEFAULT_REGION={region}\n" in made.script("0", aws.FUNCTIONS)
    assert {call["region"] for call in made.document("0")["calls"]} == {region}


@pytest.mark.parametrize(
    "region",
    ["${AWS_ACCESS_KEY_ID}", "x.${AWS_SECRET_ACCESS_KEY}.evil", "evil.example", "eu-central-1.evil.example", "$(id)",
     "eu_central-1", "EU-CENTRAL-1", "-x", "eu-", "eu--1", "1", "eu/central", "é-1"],
)  # fmt: skip
def test_a_region_that_could_be_a_variable_or_another_host_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, region: str
) -> None:
    """With such a region, the host that the script calls would have the user's key in its name, or be another one."""
    text = TWO_VPCS.format(**PLAIN | {"w": json.dumps(region)}).replace("source: db", "source: 10.0.0.0/8")
    (tmp_path / "policy.yaml").write_text(text)
    (tmp_path / "old.yaml").write_text(text.replace("tcp", "udp"))
    new, old = tmp_path / "policy.yaml", tmp_path / "old.yaml"
    for command in (
        ("export", new, "--to", "aws"),
        ("export", new, "--to", "aws", "--format", "json"),
        ("export", new, "--since", old, "--to", "aws"),
        ("diff", old, new, "--to", "aws"),
        ("suggest", PCAPS / "shop.pcap", "--policy", new, "--keep", "--to", "aws"),
    ):
        done = sgfast(capsys, *command)
        assert done.status == 2 and done.out == "", command
        assert f"VPC 'w': AWS has no region {region!r}; name it in lower-case letters, digits" in done.one_line()
    # It stays a region of a policy, and Terraform is not told about it.
    assert sgfast(capsys, "check", new).status == 0


def test_an_instance_that_cannot_be_found_is_an_error() -> None:
    policy = parse_policy(TWO_VPCS.format(**PLAIN).replace("10.2.0.4", "10.2.0.0/24"))
    with pytest.raises(ExportError, match="instance 'j': has neither AWS's id nor a single address; give it its id"):
        aws.export(None, policy)
