"""The shapes in which AWS tools print the same objects: bare lists, single rules, Ansible's results (SPEC 10.17)."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from exports import imported_files, means
from test_import_aws import FILES, MEANING, NAMED_ENTRIES, account, group, interface, policy_of

from sgfast.base.errors import PolicyError
from sgfast.clouds.aws.output_formats import documents
from sgfast.clouds.importing.reading import Imported


def single_rules() -> list[dict[str, Any]]:
    """The rules of the account's groups as ``aws ec2 describe-security-group-rules`` prints them, one by one."""
    found: list[dict[str, Any]] = []
    for of in account()["SecurityGroups"]:
        for egress, section in ((False, "IpPermissions"), (True, "IpPermissionsEgress")):
            for permission in of[section]:
                peers: list[dict[str, Any]] = [{"CidrIpv4": each["CidrIp"]} for each in permission["IpRanges"]]
                peers += [{"CidrIpv6": each["CidrIpv6"]} for each in permission["Ipv6Ranges"]]
                peers += [{"PrefixListId": each["PrefixListId"]} for each in permission["PrefixListIds"]]
                peers += [{"ReferencedGroupInfo": each} for each in permission["UserIdGroupPairs"]]
                for peer in peers:
                    rule_id = f"sgr-{len(found) + 1}"
                    found.append({
                        "SecurityGroupRuleId": rule_id, "GroupId": of["GroupId"], "GroupOwnerId": of["OwnerId"],
                        "IsEgress": egress, "IpProtocol": permission["IpProtocol"], "Tags": [],
                        "FromPort": permission.get("FromPort", -1), "ToPort": permission.get("ToPort", -1),
                        "SecurityGroupRuleArn": f"arn:aws:ec2:eu-west-1:111122223333:security-group-rule/{rule_id}",
                    } | peer)  # fmt: skip
    return found


RULES = {"SecurityGroupRules": single_rules()}
HOSTS = {key: value for key, value in account().items() if key != "SecurityGroups"}


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
    def rules_in(export: Imported) -> list[int]:
        return [len(each.rules) for each in export.policy().security_groups]

    rules, groups = ("rules.json", RULES), ("groups.json", account())
    alone, whole = imported_files(rules, ("hosts.json", HOSTS), FILES[1]), imported_files(*FILES)
    means(alone, MEANING)
    both = imported_files(rules, groups, FILES[1])
    means(both, MEANING)
    # Twice, as a list, and only some of them.
    again = imported_files(rules, rules, ("list.json", RULES["SecurityGroupRules"]), ("hosts.json", HOSTS), FILES[1])
    fewer = imported_files(("rules.json", {"SecurityGroupRules": RULES["SecurityGroupRules"][:1]}), groups, FILES[1])
    assert rules_in(alone) == rules_in(both) == rules_in(again) == rules_in(fewer) == rules_in(whole)
    for export in (alone, both):
        ids = {rule.id for each in export.policy().security_groups for rule in each.rules}
        assert ids >= {each["SecurityGroupRuleId"] for each in RULES["SecurityGroupRules"]}
        # A group stands for a rule of each IP version, which have ids of their own.
        assert {"sgr-12", "sgr-12/2"} <= ids


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
        policy_of(("rules.json", listed), ("lists.json", NAMED_ENTRIES), ("groups.json", account()))


def snake(value: Any) -> Any:
    """As Ansible writes what AWS says: keys in snake case, and tags as a mapping."""
    if isinstance(value, list):
        return [snake(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower(): snake(each) for key, each in value.items()}
    for key in {"tags", "tag_set"} & made.keys():
        made["tags"] = {each["key"]: each["value"] for each in made[key]}
    return made


#: Results that Ansible registers for ec2_security_group_info, ec2_eni_info, ec2_instance_info, ec2_vpc_net_info and
#: ec2_vpc_subnet_info. The last task runs in a loop. Only ec2_instance_info lists the instance.
ANSIBLE: dict[str, Any] = {
    "groups": {"changed": False, "failed": False, "security_groups": snake(account()["SecurityGroups"])},
    "interfaces": {
        "changed": False,
        "network_interfaces": [
            each | {"id": each["network_interface_id"], "name": each["tags"]["Name"]}
            for each in snake(account()["NetworkInterfaces"])
        ],
    },
    "instances": {
        "changed": False,
        "instances": [
            {
                "instance_id": "i-2", "image_id": "ami-1", "vpc_id": "vpc-a", "tags": {"Name": "db-2"},
                "private_ip_address": "10.0.0.20", "security_groups": [{"group_id": "sg-db", "group_name": "db"}],
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
                "subnets": [{"id": "subnet-1", "subnet_id": "subnet-1", "vpc_id": "vpc-a", "tags": {}}],
            }
        ],
    },
}  # fmt: skip
#: Objects that Ansible has no tasks for.
OTHERS = {key: account()[key] for key in ("VpcPeeringConnections", "PrefixLists")}
ANSIBLE_MEANING = [*MEANING, ("10.0.0.5", "10.0.0.20", "tcp", 5432, "rule")]


def by_ansible(*registered: Any) -> Imported:
    files = [(f"{n}.json", each) for n, each in enumerate(registered)]
    return imported_files(*files, ("others.json", OTHERS), FILES[1])


def test_ansible_writes_the_same_in_snake_case() -> None:
    for files in ([ANSIBLE], ANSIBLE.values()):
        export = by_ansible(*files)
        means(export, ANSIBLE_MEANING)
        policy = export.policy()
        assert [each.name for each in policy.security_groups] == ["web", "db", "run"]
        assert [each.name for each in policy.instances] == ["db-2", "web-1", "db-1", "run-1", "eni-4"]
        assert [each.name for each in policy.vpcs] == ["Prod", "vpc-b", "vpc-c"]


def test_rows_of_a_table_and_plain_lists_in_snake_case_are_read() -> None:
    plain = [ANSIBLE["groups"]["security_groups"], ANSIBLE["interfaces"]["network_interfaces"]]
    result = [{"changed": False, "result": each} for each in plain]
    for files in (plain, [{"rows": each} for each in plain], result):
        means(by_ansible(*files, ANSIBLE["instances"]), ANSIBLE_MEANING)


def test_interfaces_that_lack_what_usually_tells_them_are_not_lost() -> None:
    fewer = copy.deepcopy(ANSIBLE)
    interface = fewer["interfaces"]["network_interfaces"][0]
    del interface["private_ip_addresses"]
    interface["private_ip_address"] = "10.0.0.5"
    means(by_ansible(fewer), ANSIBLE_MEANING)


def test_a_list_of_a_loop_in_loops_is_not_lost_however_deep_it_is() -> None:
    for depth in (6, 40):
        deep: Any = ANSIBLE["interfaces"]
        for n in range(depth):
            deep = [deep] if n % 2 else {"changed": False, "results": [deep]}
        means(by_ansible(ANSIBLE | {"interfaces": {"changed": False, "results": [deep]}}), ANSIBLE_MEANING)


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
