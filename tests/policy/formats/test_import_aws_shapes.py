"""The shapes in which AWS tools print the same objects: bare lists, single rules, Ansible's results (SPEC 10.17)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from exports import imported_files, means
from test_import_aws import (
    ENTRIES,
    FILES,
    MEANING,
    NAMED_ENTRIES,
    account,
    cidr,
    group,
    interface,
    pair,
    permission,
    policy_of,
)

from sgfast.errors import PolicyError
from sgfast.policy.formats.aws_shapes import documents


def single(rule_id: str, group_id: str, ports: tuple[int, int], *, egress: bool = False, **peer: Any) -> dict[str, Any]:
    """A rule as ``aws ec2 describe-security-group-rules`` prints it."""
    return {
        "SecurityGroupRuleId": rule_id, "GroupId": group_id, "GroupOwnerId": "111122223333", "IsEgress": egress,
        "IpProtocol": "tcp", "FromPort": ports[0], "ToPort": ports[1], "Tags": [],
        "SecurityGroupRuleArn": f"arn:aws:ec2:eu-west-1:111122223333:security-group-rule/{rule_id}",
    } | peer  # fmt: skip


RULES = {
    "SecurityGroupRules": [
        single("sgr-1", "sg-web", (80, 80), CidrIpv4="0.0.0.0/0", Description="everybody"),
        single("sgr-2", "sg-web", (80, 80), CidrIpv6="::/0"),
        single("sgr-3", "sg-web", (0, 65535), CidrIpv4="0.0.0.0/0", egress=True),
        single("sgr-4", "sg-db", (5432, 5432), ReferencedGroupInfo={"GroupId": "sg-web", "UserId": "111122223333"}),
        single("sgr-5", "sg-db", (22, 22), PrefixListId="pl-0123456789abcdef0"),
    ]
}
HOSTS = {
    "NetworkInterfaces": [
        interface("eni-1", "web-1", ["10.0.0.5", "2001:db8::5"], ["sg-web"]),
        interface("eni-2", "db-1", ["10.0.0.6"], ["sg-db"]),
    ]
}
RULES_MEANING = [
    ("192.0.2.1", "10.0.0.5", "tcp", 80, "rule"),
    ("2001:db8:1::1", "2001:db8::5", "tcp", 80, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 22, "no-rule"),
    ("10.0.0.5", "10.0.0.6", "tcp", 5432, "rule"),
    ("192.0.2.17", "10.0.0.6", "tcp", 22, "rule"),
    ("192.0.2.33", "10.0.0.6", "tcp", 22, "no-rule"),
    ("10.0.0.6", "10.0.0.5", "tcp", 80, "no-rule"),
]


def described() -> dict[str, Any]:
    """The groups of ``RULES`` as ``describe-security-groups`` prints them."""
    database = [
        permission("tcp", 5432, 5432, **pair("sg-web")),
        permission("tcp", 22, 22, PrefixListIds=[{"PrefixListId": "pl-0123456789abcdef0"}]),
    ]
    everywhere = [permission("tcp", 0, 65535, **cidr("0.0.0.0/0"))]
    web = [permission("tcp", 80, 80, **cidr("0.0.0.0/0", "::/0"))]
    return {"SecurityGroups": [group("sg-web", "web", web, everywhere), group("sg-db", "db", database, [])]}


def test_lists_without_their_section_are_recognised_by_their_objects() -> None:
    document = account()
    sections = ("SecurityGroups", "NetworkInterfaces", "VpcPeeringConnections", "PrefixLists")
    assert document.keys() == set(sections)
    bare = [(f"{section}.json", document[section]) for section in sections]
    means(imported_files(*bare, FILES[1]), MEANING)
    everything = [each for section in sections for each in document[section]]
    means(imported_files(("all.json", everything), FILES[1]), MEANING)
    one_by_one = [(f"{n}.json", each) for n, each in enumerate(everything)]
    means(imported_files(*one_by_one, FILES[1]), MEANING)


def test_instances_may_be_lists_in_lists() -> None:
    """``--query 'Reservations[].Instances'`` and ``'Reservations[].Instances[]'``."""
    found = [
        {
            "InstanceId": f"i-{n}", "ImageId": "ami-1", "VpcId": "vpc-a",
            "Tags": [{"Key": "Name", "Value": f"host-{n}"}],
            "NetworkInterfaces": [interface(f"eni-{n}", "", [f"10.0.0.{n}"], ["sg-1"])],
        }
        for n in (1, 2)
    ]  # fmt: skip
    groups = ("groups.json", [group("sg-1", "one", [])])
    shapes: tuple[Any, ...] = ([found[:1], found[1:]], found, {"Instances": found}, [{"Instances": found}])
    for shape in shapes:
        policy = policy_of(groups, ("instances.json", shape))
        assert [each.name for each in policy.instances] == ["host-1", "host-2"]


def test_an_object_in_a_list_of_groups_that_is_no_group_is_not_passed_over() -> None:
    groups: list[Any] = [group("sg-1", "one", []), {"GroupName": "two"}]
    with pytest.raises(PolicyError, match=r"a: AWS output, SecurityGroups\[1\]: GroupId is missing"):
        policy_of(("a", groups))
    with pytest.raises(PolicyError, match="GroupId is missing"):
        policy_of(("a", [{"SecurityGroups": groups[:1]}, {"SecurityGroups": groups[1:]}]))
    with pytest.raises(PolicyError, match=r"SecurityGroups\[1\]: must be a mapping, not the text 'x'"):
        policy_of(("a", [groups[0], "x"]))


def test_rules_that_are_listed_one_by_one_are_those_of_their_groups() -> None:
    lists = ("pl-0123456789abcdef0.json", ENTRIES)
    alone = imported_files(("rules.json", RULES), ("hosts.json", HOSTS), lists)
    means(alone, RULES_MEANING)
    ids = [[rule.id for rule in each.rules] for each in alone.policy().security_groups]
    # A group stands for a rule of each IP version, which have ids of their own.
    assert ids == [["sgr-1", "sgr-2", "sgr-3"], ["sgr-4", "sgr-4/2", "sgr-5"]]
    both = imported_files(("rules.json", RULES), ("groups.json", described()), ("hosts.json", HOSTS), lists)
    means(both, RULES_MEANING)
    assert [len(each.rules) for each in both.policy().security_groups] == [3, 3]
    found = {rule.id: rule.description for each in both.policy().security_groups for rule in each.rules}
    assert {"sgr-1", "sgr-2", "sgr-3", "sgr-4", "sgr-5"} < found.keys()
    # Twice, as a list, and only some of them.
    again = imported_files(*[("rules.json", RULES)] * 2, ("list.json", RULES["SecurityGroupRules"]), lists)
    assert [len(each.rules) for each in again.policy().security_groups] == [3, 3]
    some = {"SecurityGroupRules": RULES["SecurityGroupRules"][:1]}
    fewer = imported_files(("rules.json", some), ("groups.json", described()), lists)
    assert [len(each.rules) for each in fewer.policy().security_groups] == [3, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CidrIpv4": "10.0.0.0/8"}, r"rule sgr-1: is not among the permissions of security group 'sg-web'"),
        ({"IsEgress": None}, r"rule sgr-1: IsEgress is missing"),
        ({"CidrIpv4": None}, r"rule sgr-1: has no peer"),
        ({"OnlyOnMondays": True}, r"rule sgr-1: unknown key 'OnlyOnMondays'"),
        ({"GroupId": None}, r"rule sgr-1: GroupId is missing"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error_by_its_id(change: dict[str, Any], message: str) -> None:
    listed = copy.deepcopy(RULES)
    listed["SecurityGroupRules"][0] |= change
    with pytest.raises(PolicyError, match=message):
        policy_of(("rules.json", listed), ("lists.json", NAMED_ENTRIES), ("groups.json", described()))


#: What the tasks ec2_security_group_info, ec2_eni_info, ec2_instance_info, ec2_vpc_net_info and ec2_vpc_subnet_info
#: register, and the last one in a loop.
ANSIBLE: dict[str, Any] = {
    "groups": {
        "changed": False,
        "failed": False,
        "security_groups": [
            {
                "group_id": "sg-web", "group_name": "web", "description": "web group", "vpc_id": "vpc-a",
                "owner_id": "111122223333", "tags": {"Name": "web", "some_tag": "x"},
                "ip_permissions": [
                    {
                        "ip_protocol": "tcp", "from_port": 80, "to_port": 80, "prefix_list_ids": [],
                        "ip_ranges": [{"cidr_ip": "0.0.0.0/0"}], "ipv6_ranges": [{"cidr_ipv6": "::/0"}],
                        "user_id_group_pairs": [],
                    }
                ],
                "ip_permissions_egress": [{"ip_protocol": "-1", "ip_ranges": [{"cidr_ip": "0.0.0.0/0"}]}],
            },
            {
                "group_id": "sg-db", "group_name": "db", "description": "db group", "vpc_id": "vpc-a", "tags": {},
                "ip_permissions": [
                    {
                        "ip_protocol": "tcp", "from_port": 5432, "to_port": 5432,
                        "user_id_group_pairs": [{"group_id": "sg-web", "user_id": "111122223333"}],
                    }
                ],
                "ip_permissions_egress": [],
            },
        ],
    },
    "interfaces": {
        "changed": False,
        "network_interfaces": [
            {
                "id": "eni-1", "network_interface_id": "eni-1", "vpc_id": "vpc-a", "subnet_id": "subnet-1",
                "groups": [{"group_id": "sg-web", "group_name": "web"}], "name": "web-1",
                "private_ip_addresses": [{"primary": True, "private_ip_address": "10.0.0.5"}],
                "ipv6_addresses": [{"ipv6_address": "2001:db8::5"}], "tags": {"Name": "web-1"},
                "tag_set": {"Name": "web-1"},
            }
        ],
    },
    "instances": {
        "changed": False,
        "instances": [
            {
                "instance_id": "i-2", "image_id": "ami-1", "vpc_id": "vpc-a", "tags": {"Name": "db-1"},
                "private_ip_address": "10.0.0.6", "security_groups": [{"group_id": "sg-db", "group_name": "db"}],
                "network_interfaces": [],
            }
        ],
    },
    "vpcs": {
        "changed": False,
        "vpcs": [{"id": "vpc-a", "vpc_id": "vpc-a", "cidr_block": "10.0.0.0/16", "tags": {"Name": "Prod"}}],
    },
    "subnets": {
        "changed": False,
        "results": [
            {
                "ansible_loop_var": "item", "item": "vpc-a", "changed": False, "failed": False,
                "subnets": [
                    {
                        "id": "subnet-1", "subnet_id": "subnet-1", "vpc_id": "vpc-a", "cidr_block": "10.0.0.0/24",
                        "availability_zone": "eu-west-1a", "tags": {},
                    }
                ],
            }
        ],
    },
}  # fmt: skip
ANSIBLE_MEANING = [
    ("192.0.2.1", "10.0.0.5", "tcp", 80, "rule"),
    ("2001:db8:1::1", "2001:db8::5", "tcp", 80, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 22, "no-rule"),
    ("10.0.0.5", "10.0.0.6", "tcp", 5432, "rule"),
    ("192.0.2.1", "10.0.0.6", "tcp", 5432, "no-rule"),
    ("10.0.0.6", "10.0.0.5", "tcp", 80, "no-rule"),
]


def test_ansible_writes_the_same_in_snake_case() -> None:
    for files in ([("registered.json", ANSIBLE)], [(f"{key}.json", value) for key, value in ANSIBLE.items()]):
        export = imported_files(*files)
        means(export, ANSIBLE_MEANING)
        policy = export.policy()
        assert (export.format.name, policy.warnings) == ("aws", ())
        assert [each.name for each in policy.security_groups] == ["web", "db"]
        assert [each.name for each in policy.instances] == ["db-1", "web-1"]
        assert [each.name for each in policy.vpcs] == ["Prod"]


def test_rows_of_a_table_and_plain_lists_in_snake_case_are_read() -> None:
    plain = [ANSIBLE["groups"]["security_groups"], ANSIBLE["interfaces"]["network_interfaces"]]
    result = [{"changed": False, "result": each} for each in plain]
    for files in (plain, [{"rows": each} for each in plain], result):
        export = imported_files(*((f"{n}.json", value) for n, value in enumerate([*files, ANSIBLE["instances"]])))
        means(export, ANSIBLE_MEANING)


def test_interfaces_that_lack_what_usually_tells_them_are_not_lost() -> None:
    fewer = copy.deepcopy(ANSIBLE)
    (interface,) = fewer["interfaces"]["network_interfaces"]
    del interface["private_ip_addresses"]
    interface["private_ip_address"] = "10.0.0.5"
    means(imported_files(("registered.json", fewer)), ANSIBLE_MEANING)


def test_a_list_of_a_loop_in_loops_is_not_lost_however_deep_it_is() -> None:
    for depth in (6, 40):
        deep: Any = ANSIBLE["interfaces"]
        for n in range(depth):
            deep = [deep] if n % 2 else {"changed": False, "results": [deep]}
        registered = ANSIBLE | {"interfaces": {"changed": False, "results": [deep]}}
        means(imported_files(("a.json", registered)), ANSIBLE_MEANING)


def test_a_failed_task_leaves_no_part_of_the_account_out() -> None:
    failed = {"ansible_loop_var": "item", "changed": False, "failed": True, "msg": "UnauthorizedOperation"}
    broken = copy.deepcopy(ANSIBLE)
    broken["subnets"]["results"].append(failed)
    with pytest.raises(PolicyError, match="a: AWS output: failed is true, so this result of Ansible is incomplete"):
        policy_of(("a", broken))


def test_botos_metadata_is_no_section() -> None:
    document = account() | {"ResponseMetadata": {"HTTPStatusCode": 200, "RequestId": "x", "RetryAttempts": 0}}
    means(imported_files(("a", document), FILES[1]), MEANING)


@pytest.mark.parametrize(
    "value",
    [
        {"changed": False, "security_groups": [{"id": "x", "name": "web", "security_group_rules": []}]},
        {"vpcs": [{"id": "x", "name": "a", "cidr": "10.0.0.0/8"}], "subnets": [{"id": "y", "vpc_id": "x", "cidr": ""}]},
        {"security_groups": [{"name": "web", "rules": []}], "instances": [{"name": "a", "addresses": ["10.0.0.1"]}]},
        [{"ID": "x", "Name": "web", "Project": "p"}],
        {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"G": {"Type": "AWS::EC2::SecurityGroup"}}},
        {"format_version": "1.0", "values": {"root_module": {"resources": []}}},
    ],
)  # fmt: skip
def test_sections_of_other_clouds_are_not_taken_for_those_of_aws(value: Any) -> None:
    assert documents(value) == []
