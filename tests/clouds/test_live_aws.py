"""``sgfast import aws --live``: what is read, and what is said if it cannot be read (SPEC 10.17)."""

from __future__ import annotations

import json
import re
import signal
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ec2
import pytest
from command import environment, sgfast, start
from exports import imported_files, reasons_of

from sgfast import Engine, policy_from_boto3
from sgfast.base.errors import ArgumentError, ArgumentTypeError, LiveError
from sgfast.clouds.aws import live as live_aws
from sgfast.clouds.importing.reading import Imported, import_sources
from sgfast.clouds.loading import load_policy
from sgfast.testing import assert_allows, assert_denies

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")

Capsys = pytest.CaptureFixture[str]
HERE, THERE = "eu-central-1", "us-east-1"
BOTH = ("--region", HERE, "--region", THERE)
GROUPS = 100
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAHIDDENHIDDEN0001",
    "AWS_SECRET_ACCESS_KEY": "hidden+secret/1",
    "AWS_SESSION_TOKEN": "hidden2",
}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, ec2.Front]]:
    with pytest.MonkeyPatch.context() as patch, ec2.ec2() as (url, front):
        ec2.set_up(patch, url, **SECRETS)
        for region in (HERE, THERE):
            ec2.backend(region).reset()     # tests of other files may have made something in this process
        make_account()
        yield url, front


@pytest.fixture
def front(server: tuple[str, ec2.Front], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ec2.Front:
    url, front = server
    front.forget()
    ec2.set_up(monkeypatch, url, **SECRETS)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no" / name))
    return front


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not waited for."""
    made: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", types.SimpleNamespace(sleep=made.append, time=lambda: 0.0))
    return made


def make_account() -> None:
    """A web server here and a database there in peered VPCs, and a hundred other groups."""
    one, two = (boto3.client("ec2", region_name=region) for region in (HERE, THERE))
    vpcs, subnets = [], []
    for client, cidr in ((one, "10.1.0.0/16"), (two, "10.2.0.0/16"), (two, "10.3.0.0/16")):
        vpcs.append(client.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"])
        subnets.append(client.create_subnet(VpcId=vpcs[-1], CidrBlock=cidr.replace("/16", "/24"))["Subnet"]["SubnetId"])
    peering = one.create_vpc_peering_connection(VpcId=vpcs[0], PeerVpcId=vpcs[1], PeerRegion=THERE)
    two.accept_vpc_peering_connection(VpcPeeringConnectionId=peering["VpcPeeringConnection"]["VpcPeeringConnectionId"])
    offices = one.create_managed_prefix_list(
        PrefixListName="offices", MaxEntries=20, AddressFamily="IPv4",
        Entries=[{"Cidr": f"192.0.2.{n}/32"} for n in range(1, 8)],
    )["PrefixList"]["PrefixListId"]  # fmt: skip

    def group(client: Any, vpc: str, name: str, port: int, **peer: Any) -> str:
        made = client.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peer}
        client.authorize_security_group_ingress(GroupId=made, IpPermissions=[permission])
        return str(made)

    web = group(one, vpcs[0], "web", 443, PrefixListIds=[{"PrefixListId": offices}])
    group(one, vpcs[0], "api", 8000, UserIdGroupPairs=[{"GroupId": web}])
    for n in range(GROUPS):
        # Not through the server, because that takes ten times as long.
        ec2.backend(HERE).create_security_group(f"app-{n}", "one of many", vpcs[0])
    db = group(two, vpcs[1], "db", 5432, IpRanges=[{"CidrIp": "10.1.0.0/16"}])
    far = group(two, vpcs[2], "far", 5432, IpRanges=[{"CidrIp": "10.0.0.0/8"}])
    launched = one.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, SubnetId=subnets[0], SecurityGroupIds=[web])
    tags = [{"Key": "Name", "Value": "web-1"}]
    one.create_tags(Resources=[launched["Instances"][0]["InstanceId"]], Tags=tags)
    for address in ("10.1.0.20", "10.1.0.21"):
        one.create_network_interface(SubnetId=subnets[0], Groups=[web], PrivateIpAddress=address)
    two.create_network_interface(SubnetId=subnets[1], Groups=[db], PrivateIpAddress="10.2.0.9")
    two.create_network_interface(SubnetId=subnets[2], Groups=[far], PrivateIpAddress="10.3.0.9")


def dumped(client: Any, operation: str, **arguments: str) -> tuple[str, Any]:
    """Call an operation, and save the answer as ``aws ec2`` prints it."""
    whole = client.get_paginator(operation).paginate(**arguments).build_full_result()
    name = "-".join((client.meta.region_name, operation, *arguments.values()))
    return f"{name}.json", json.loads(json.dumps(whole, default=str))


def in_order_of_ids(made: Imported) -> dict[str, Any]:
    groups = [
        each | {"rules": sorted(each["rules"], key=lambda rule: str(rule["id"]))}
        for each in made.draft.document()["security_groups"]
    ]
    return made.draft.document() | {"security_groups": groups}


def refuses_secrets(text: str) -> None:
    assert not [secret for secret in SECRETS.values() if secret in text]


def test_an_account_is_what_its_documents_are_and_no_page_is_missing(front: ec2.Front) -> None:
    front.page = 25
    told: dict[str, int] = {}
    account = live_aws.read_account(None, (HERE, THERE, HERE), told.__setitem__)
    live = import_sources(account.sources, "aws")

    counted = Counter(front.calls)
    # The groups of moto's default VPC and of ours are "default".
    assert counted["DescribeSecurityGroups", HERE] == (GROUPS + 4) // 25 + 1
    assert counted["DescribeSecurityGroups", THERE] == 1
    assert told[f"describe-security-groups ({HERE})"] == GROUPS + 4
    assert ("DescribeManagedPrefixLists", THERE) not in counted, "no rule there refers to one"
    order = [front.calls.index((f"Describe{kind}", HERE)) for kind in ("NetworkInterfaces", "SecurityGroups", "Vpcs")]
    assert order == sorted(order), "a group that is made meanwhile, and its interface, would be half there"
    # The list of instances has its interfaces left out: it may be older than the list of interfaces, and contradict it.
    (instances,) = (source.value["Reservations"] for source in account.sources if f"instances ({HERE}" in source.file)
    assert {key for each in instances for instance in each["Instances"] for key in instance} == {"InstanceId", "Tags"}

    front.page = 1000
    clients = [boto3.client("ec2", region_name=region) for region in (HERE, THERE)]
    files = [dumped(client, call) for client in clients for call in live_aws._CALLS.values()]
    (offices,) = (each["PrefixListId"] for source in account.sources for each in source.value.get("PrefixLists", ()))
    _, lists = dumped(clients[0], "describe_managed_prefix_lists")
    files += [
        ("lists.json", {"PrefixLists": [each for each in lists["PrefixLists"] if each["PrefixListId"] == offices]}),
        dumped(clients[0], "get_managed_prefix_list_entries", PrefixListId=offices),
    ]
    # Live rules come in the order of describe-security-group-rules, those of files in the order of the groups.
    assert in_order_of_ids(live) == in_order_of_ids(imported_files(*files, form="aws"))
    assert len(live.policy().address_groups[0].addresses) == 7


def test_a_rule_that_is_made_or_deleted_between_two_calls_makes_no_error(front: ec2.Front) -> None:
    client = boto3.client("ec2", region_name=THERE)
    (db,) = client.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["db"]}])["SecurityGroups"]
    (old,), new = db["IpPermissions"], {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1}
    new |= {"IpRanges": [{"CidrIp": "192.0.2.0/24"}]}

    def replace_rule(name: str, _: int) -> None:
        if name == f"describe-security-groups ({THERE})":
            client.authorize_security_group_ingress(GroupId=db["GroupId"], IpPermissions=[new])
            client.revoke_security_group_ingress(GroupId=db["GroupId"], IpPermissions=[old])

    try:
        policy = import_sources(live_aws.read_account(None, [THERE], replace_rule).sources, "aws").policy()
    finally:
        client.authorize_security_group_ingress(GroupId=db["GroupId"], IpPermissions=[old])
        client.revoke_security_group_ingress(GroupId=db["GroupId"], IpPermissions=[new])
    assert [rule.ports for rule in policy.group_by_name["db"].rules if rule.direction == "inbound"] == [((1, 1),)]


def test_regions_are_one_policy_in_which_peered_vpcs_reach_each_other(
    front: ec2.Front, capsys: Capsys, tmp_path: Path
) -> None:
    out = tmp_path / "policy.yaml"
    done = sgfast(capsys, "import", "aws", "--live", *BOTH, "-o", out, "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    text = out.read_text()
    assert f"\n# from AWS ({HERE}, {THERE}) (aws ec2 describe-...)\n" in text
    refuses_secrets(text)
    policy = load_policy(out)
    assert len(policy.security_groups) == GROUPS + 9 and len(policy.peerings) == 1
    assert {vpc.region for vpc in policy.vpcs} == {HERE, THERE}
    (web,) = (each for each in policy.instances if each.name == "web-1")
    address = str(web.addresses[0].network_address)
    meaning = [
        ("192.0.2.7", address, "tcp", 443, "rule"),
        ("192.0.2.8", address, "tcp", 443, "no-rule"),
        (address, "10.2.0.9", "tcp", 5432, "rule"),
        (address, "10.2.0.9", "tcp", 22, "no-rule"),
        (address, "10.3.0.9", "tcp", 5432, "vpc-isolated"),
    ]
    assert reasons_of(Engine(policy), meaning) == [reason for *_, reason in meaning]


def test_throttling_costs_time_and_nothing_else(front: ec2.Front, capsys: Capsys, pauses: list[float]) -> None:
    calm = sgfast(capsys, "import", "aws", "--live", "--region", THERE)
    front.calls.clear()
    front.errors["DescribeSubnets", THERE] = ["RequestLimitExceeded"] * 5
    throttled = sgfast(capsys, "import", "aws", "--live", "--region", THERE)
    assert calm.status == throttled.status == 0 and calm.out == throttled.out
    assert front.calls.count(("DescribeSubnets", THERE)) == 6 and len(pauses) == 5
    front.errors["DescribeSubnets", THERE] = ["RequestLimitExceeded"] * 6
    assert sgfast(capsys, "import", "aws", "--live", "--region", THERE).one_line() == (
        f"sgfast: describe-subnets ({THERE}): AWS still throttles the account after 6 attempts; try again later"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("UnauthorizedOperation", "the credentials lack the permission ec2:DescribeNetworkInterfaces; ask your"),
        ("RequestExpired", "the credentials have expired; log in again"),
        ("AuthFailure", "AWS does not accept the credentials; check them, and whether the account may use this region"),
        ("SignatureDoesNotMatch", "AWS does not accept the credentials; check them, and whether"),
        ("InvalidSomething", "AWS answers InvalidSomething; look it up in the documentation of EC2"),
    ],
)
def test_what_aws_refuses_is_said_without_its_message_and_one_refused_listing_is_no_policy(
    front: ec2.Front, capsys: Capsys, tmp_path: Path, code: str, said: str
) -> None:
    """The message of AWS may quote the request, and with it the token."""
    out = tmp_path / "policy.yaml"
    out.write_text("old")
    front.errors["DescribeNetworkInterfaces", THERE] = [code]
    done = sgfast(capsys, "import", "aws", "--live", *BOTH, "-o", out)
    assert done.status == 2 and done.out == ""
    assert done.one_line().startswith(f"sgfast: describe-network-interfaces ({THERE}): {said}")
    refuses_secrets(done.err)
    assert out.read_text() == "old" and list(tmp_path.iterdir()) == [out]


def test_what_is_wrong_with_the_configuration_is_one_line(
    front: ec2.Front, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, pauses: list[float], tmp_path: Path
) -> None:
    def said(*arguments: object) -> str:
        done = sgfast(capsys, "import", "aws", "--live", *arguments)
        assert done.status == 2 and done.out == "" and not front.calls
        refuses_secrets(done.err)
        return done.one_line().removeprefix("sgfast: ")

    assert said() == "no region is configured; name the regions to read, like --region eu-central-1"
    assert said("--region", "eu central") == "'eu central' is no name of a region; write it like eu-central-1"
    assert said("--aws-profile", "work").startswith("the profile 'work' is in no AWS configuration file; aws configure")
    with monkeypatch.context() as patch:
        for name in SECRETS:
            patch.delenv(name)
        assert said(*BOTH).startswith(
            f"describe-network-interfaces ({HERE}): there are no complete credentials; log in, or"
        )
        # A program that hands credentials out, and fails with a secret in its message.
        config = tmp_path / "config"
        program = f"""{sys.executable} -c "import sys; sys.exit('{SECRETS["AWS_SESSION_TOKEN"]}')" """
        config.write_text(f"[default]\ncredential_process = {program}\n")
        patch.setenv("AWS_CONFIG_FILE", str(config))
        assert said(*BOTH).startswith(f"AWS ({HERE}): 'custom-process' hands out no credentials; check it")
        config.write_text("no section")
        assert "boto3 reports ConfigParseError; check the AWS configuration files" in said(*BOTH)
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://hidden:hidden2@127.0.0.1:1")
    assert said(*BOTH).startswith(
        f"describe-network-interfaces ({HERE}): 127.0.0.1 cannot be reached; check the network"
    )
    assert len(pauses) == 5


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            lambda known: known.ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole"),
            "permission sts:AssumeRole;",
        ),
        (
            lambda known: known.SSOTokenLoadError(error_msg="hidden2"),
            "the login has expired or is missing; log in with",
        ),
        (
            lambda known: known.UnauthorizedSSOTokenError(),
            "the login has expired or is missing; log in with aws sso login",
        ),
        (lambda known: known.LoginRefreshRequired(), "the login has expired or is missing; log in with aws sso login"),
        (
            lambda known: known.PartialCredentialsError(provider="env", cred_var="x"),
            "there are no complete credentials",
        ),
        (lambda known: known.ProxyConnectionError(proxy_url="http://a:hidden2@proxy:1"), "proxy cannot be reached;"),
    ],
)
def test_what_keeps_boto3_from_asking_is_one_line_without_secrets(error: Any, said: str) -> None:
    known = pytest.importorskip("botocore.exceptions")
    with pytest.raises(LiveError) as caught, live_aws._errors_of("AWS", HERE):
        raise error(known)
    assert said in str(caught.value) and str(caught.value).isprintable()
    refuses_secrets(str(caught.value))


def test_another_server_in_place_of_aws_is_no_empty_account(front: ec2.Front, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (b"<html><body>Log in</body></html>", b"Welcome"):

        def portal(environ: Any, start_response: Any, answer: bytes = answer) -> list[bytes]:
            start_response("200 OK", [])
            return [answer]

        monkeypatch.setattr(front, "_behind", portal)
        monkeypatch.setattr(ec2, "_page", lambda answer, *_: answer)
        with pytest.raises(LiveError, match=rf"^describe-network-interfaces \({HERE}\): the answer "):
            live_aws.read_account(None, [HERE], lambda *_: None)


def test_an_interrupt_ends_a_call_without_an_answer(front: ec2.Front, tmp_path: Path) -> None:
    front.silent = "DescribeSecurityGroups"
    out = tmp_path / "policy.yaml"
    with start("import", "aws", "--live", *BOTH, "-o", out, env=environment()) as running:
        assert front.has_come.wait(60)
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=60) == ("", "sgfast: interrupted\n")
    assert running.returncode == 130 and not list(tmp_path.iterdir())


def test_a_client_a_resource_and_a_session_give_the_policy_of_the_account(front: ec2.Front) -> None:
    """SPEC 15.4."""
    client = boto3.client("ec2", region_name=THERE)
    policy = policy_from_boto3(client)
    assert policy.origin == f"AWS ({THERE})"
    (db,) = client.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["db"]}])["SecurityGroups"]
    assert_allows(policy, "10.1.0.0/24", db["GroupId"], "tcp/5432")
    assert_denies(policy, "internet", "db", "all")
    with pytest.raises(AssertionError, match=r"tcp/5432 from 10\.1\.\S+ to 10.2.0.9 \(\S+\) is allowed by "):
        assert_denies(policy, "any", "db", "tcp/5432")
    resource, session = boto3.resource("ec2", region_name=THERE), boto3.Session(region_name=HERE)
    assert policy_from_boto3(resource) == policy
    assert policy_from_boto3(session, region=THERE) == policy
    assert "db" not in policy_from_boto3(session).group_by_name


def test_the_client_of_a_session_is_as_patient_as_import(front: ec2.Front, pauses: list[float]) -> None:
    """SPEC 15.4."""
    front.errors["DescribeSubnets", THERE] = ["RequestLimitExceeded"] * 5
    assert "db" in policy_from_boto3(boto3.Session(region_name=THERE)).group_by_name
    assert front.calls.count(("DescribeSubnets", THERE)) == 6 and len(pauses) == 5


def test_what_is_no_client_of_ec2_is_refused_in_one_line(front: ec2.Front) -> None:
    """SPEC 15.4."""
    for other in (boto3.client("sts", region_name=HERE), "ec2", None):
        with pytest.raises(ArgumentTypeError, match="needs a session of boto3, or its client or resource of EC2"):
            policy_from_boto3(other)
    with pytest.raises(ArgumentError, match=f"of the region '{HERE}', not '{THERE}': leave region out"):
        policy_from_boto3(boto3.client("ec2", region_name=HERE), region=THERE)
    with pytest.raises(LiveError, match="no region is configured"):
        policy_from_boto3(boto3.Session())


def test_the_example_of_an_application_works(front: ec2.Front) -> None:
    """That of docs/testing.md, without moto's decorator, because the server is moto already (SPEC 15.4)."""
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    (example,) = re.findall(r"^```python\n(# test_deployment.py\n.*?)^```", page, flags=re.M | re.S)
    known: dict[str, Any] = {}
    exec(compile(example, "docs/testing.md", "exec"), known)
    known["test_the_application_works_and_the_database_is_closed"].__wrapped__()
