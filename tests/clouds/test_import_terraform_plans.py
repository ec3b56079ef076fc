"""A Terraform plan leaves things open: attributes that the provider chooses, resources that are only adopted."""

from __future__ import annotations

from typing import Any

import pytest
from exports import imported_files, means, warnings_of
from terraform import LATER, Resource, block, plan, policy_of, refs, resource, state
from test_import_terraform_aws import inline

from sgfast.base.errors import PolicyError
from sgfast.policy.model import Policy


def error_of(document: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        policy_of(document)
    return str(caught.value)


# Attributes that the configuration does not set -----------------------------------------------------------------------

WEB = "aws_security_group.web"


def web(**values: Any) -> Resource:
    return resource(WEB, **{"id": LATER, "name": "web", "vpc_id": LATER, "ingress": LATER, "egress": LATER} | values)


def aws_rule(address: str, port: int, **peers: Any) -> Resource:
    return resource(
        address, id=LATER, security_group_id=LATER, type="ingress", protocol="tcp", from_port=port, to_port=port,
        security_group_rule_id=LATER, **{"source_security_group_id": LATER, "self": False} | peers,
    )  # fmt: skip


def host(**values: Any) -> Resource:
    return resource("aws_instance.host", **{"id": LATER, "private_ip": "10.0.0.5", "tags": None} | values)


def test_a_rule_without_a_source_group_has_none_though_the_provider_computes_it() -> None:
    document = plan(
        [], [
            web(), resource("aws_security_group.other", id=LATER, name="other", vpc_id=LATER, ingress=[], egress=[]),
            aws_rule("aws_security_group_rule.http", 80, cidr_blocks=["192.0.2.0/24"], prefix_list_ids=None),
            aws_rule("aws_security_group_rule.from", 81, self=None),
            aws_rule("aws_security_group_rule.own", 82, self=True),
            host(vpc_security_group_ids=LATER, subnet_id=LATER, security_groups=LATER),
        ],
        block(WEB), block("aws_security_group.other"),
        block("aws_instance.host", vpc_security_group_ids=refs(f"{WEB}.id")),
        block("aws_security_group_rule.http", security_group_id=refs(f"{WEB}.id"),
              source_security_group_id=refs("local.group")),  # nothing, since the provider allows no group beside
        block("aws_security_group_rule.from", security_group_id=refs(f"{WEB}.id"),
              source_security_group_id=refs(f"{WEB}.id")),
        block("aws_security_group_rule.own", security_group_id=refs(f"{WEB}.id"),
              source_security_group_id=refs("local.group")),  # addresses or "self"
    )  # fmt: skip
    export = imported_files(("tf.json", document))
    meaning = [
        ("192.0.2.1", "10.0.0.5", "tcp", 80, "rule"),
        ("198.51.100.1", "10.0.0.5", "tcp", 80, "no-rule"),
        ("192.0.2.1", "10.0.0.5", "tcp", 81, "no-rule"),
    ]
    means(export, meaning)
    assert [len(group.rules) for group in export.policy().security_groups] == [5, 0]  # http, and 2 each from a group


def with_peer(expression: dict[str, Any], for_each: Any = None, *more: Resource) -> dict[str, Any]:
    """A plan with a rule from a prefix list and perhaps from the group that ``expression`` says."""
    rule = "aws_security_group_rule.a"
    resources = [
        resource("aws_ec2_managed_prefix_list.l", id="pl-1", name="l", entry=[{"cidr": "192.0.2.0/24"}]),
        web(), aws_rule(rule, 80, prefix_list_ids=["pl-1"]), *more,
    ]  # fmt: skip
    shown = block(rule, for_each, security_group_id=refs(f"{WEB}.id"), **expression)
    return plan([], resources, block(WEB), shown)


@pytest.mark.parametrize(
    ("expression", "for_each", "more"),
    [
        ({}, None, []),
        ({"source_security_group_id": {"constant_value": None}}, None, []),
        ({"source_security_group_id": {"constant_value": ""}}, None, []),
        ({"source_security_group_id": refs("var.group")}, None, []),
        ({"source_security_group_id": {"references": ["each.value.group", "each.value"]}}, refs("var.rules"), []),
        ({"source_security_group_id": {"references": ["each.value"]}}, {"constant_value": {"a": None}}, []),
        ({"source_security_group_id": refs("aws_security_group.old[0].id", "var.create")}, None, []),
        ({"source_security_group_id": {"references": ["data.aws_vpc.v.tags", "data.aws_vpc.v"]}}, None,
         [resource("data.aws_vpc.v", data=True, id="vpc-a", tags={"peer": None})]),
        ({"source_security_group_id": {"references": ["aws_vpc.v.tags", "aws_vpc.v"]}}, None,
         [resource("aws_vpc.v", id=LATER, tags={"peer": None})]),
    ],
)  # fmt: skip
def test_what_can_only_be_null_is_not_set(
    expression: dict[str, Any], for_each: Any, more: list[Resource]
) -> None:
    (rule,) = policy_of(with_peer(expression, for_each, *more)).group_by_name["web"].rules
    assert str(rule.peer) == "AddressGroupPeer(name='l')"


@pytest.mark.parametrize(
    ("expression", "for_each", "more", "said"),
    [
        (refs("random_id.x.hex"), None, [resource("random_id.x", id=LATER, hex=LATER)], "'random_id.x.hex', which is"),
        ({"references": ["each.value.group", "each.value"]}, refs("local.rules"), [], "'local.rules', whose value"),
        ({"references": ["module.x"]}, None, [], "the whole of 'module.x'"),
        ({}, None, [], "does not show what it refers to"),  # of functions alone, such as uuid()
        (refs("aws_vpc.v"), None, [resource("aws_vpc.v", id=LATER, tags=None)], "'aws_vpc.v', which is not a resource"),
    ],
)
def test_what_may_be_set_is_an_error_that_names_it(
    expression: dict[str, Any], for_each: Any, more: list[Resource], said: str
) -> None:
    others = [resource("aws_security_group.other", id=LATER, name="o", vpc_id="vpc-a"), *more]
    message = error_of(with_peer({"source_security_group_id": expression}, for_each, *others))
    start = "tf.json: resource aws_security_group_rule.a: source_security_group_id is known only after apply"
    assert message.startswith(start) and said in message


def test_a_data_source_that_is_read_again_during_apply_is_not_known() -> None:
    vpc = resource("data.aws_vpc.v", data=True, id="vpc-a", tags={"peer": "sg-1"})
    mentioned = {"source_security_group_id": {"references": ["data.aws_vpc.v.tags", "data.aws_vpc.v"]}}
    document = with_peer(mentioned, None, vpc)
    assert len(policy_of(document).security_groups[0].rules) == 1
    document["planned_values"]["root_module"]["resources"].append(vpc | {"values": {"id": "vpc-a"}})
    document["resource_changes"].append({"address": vpc["address"], "change": {"after_unknown": {"tags": True}}})
    message = error_of(document)
    assert "source_security_group_id is known only after apply: it refers to 'data.aws_vpc.v.tags'" in message


def test_a_value_of_a_module_is_followed_to_what_sets_it() -> None:
    rule = "module.m.aws_security_group_rule.a"
    peers = {"cidr_blocks": None, "prefix_list_ids": ["pl-1"]}
    resources = [
        resource("aws_ec2_managed_prefix_list.l", id="pl-1", name="l", entry=[{"cidr": "192.0.2.0/24"}]),
        web(), aws_rule(rule, 80, **peers),
    ]  # fmt: skip
    own = block("aws_security_group_rule.a", security_group_id=refs("var.group"),
                source_security_group_id=refs("var.peer"))  # fmt: skip

    def with_call(**expressions: Any) -> Policy:
        inner = {"resources": [own], "variables": {"peer": {"default": None}}}
        calls = {"m": {"expressions": {"group": refs(f"{WEB}.id"), **expressions}, "module": inner}}
        return policy_of(plan([], resources, block(WEB), calls=calls))

    for known in ({}, {"peer": {"constant_value": None}}, {"peer": refs("var.peer")}):
        assert len(with_call(**known).group_by_name["web"].rules) == 1
    rules = with_call(peer=refs(f"{WEB}.id")).group_by_name["web"].rules
    assert [str(each.peer) for each in rules] == ["GroupPeer(name='web')"] * 2 + ["AddressGroupPeer(name='l')"]


@pytest.mark.parametrize("names", [["each.value.group", "each.value"], ["var.rules", "each.key"]])
def test_a_peer_that_may_be_that_of_another_instance_is_said_to_be_assumed(names: list[str]) -> None:
    """The values hold one group, but not necessarily for both rules."""
    peers = {"cidr_blocks": None, "prefix_list_ids": ["pl-1"]}
    prefix_list = resource("aws_ec2_managed_prefix_list.l", id="pl-1", name="l", entry=[{"cidr": "192.0.2.0/24"}])
    resources = [prefix_list, web()]
    resources += [aws_rule(f'module.m.aws_security_group_rule.r["{key}"]', 80, **peers) for key in "ab"]
    own = block("aws_security_group_rule.r", refs("var.rules"), security_group_id=refs("var.group"),
                source_security_group_id={"references": names})  # fmt: skip
    group = refs(f"{WEB}.id")
    calls = {"m": {"expressions": {"group": group, "rules": group}, "module": {"resources": [own]}}}
    policy = policy_of(plan([], resources, block(WEB), calls=calls))
    assert warnings_of(policy) == (
        "A plan does not show local values, nor those of for_each: assumed the only resource it can be: "
        f'resource module.m.aws_security_group_rule.r["a"], source_security_group_id: {WEB}, '
        f'resource module.m.aws_security_group_rule.r["b"], source_security_group_id: {WEB}.',
    )


def test_without_a_configuration_everything_unknown_may_be_set() -> None:
    document = with_peer({})
    del document["configuration"]
    assert "aws_security_group.web: vpc_id is known only after apply" in error_of(document)
    document = plan([], [web(vpc_id="vpc-a")])
    assert "aws_security_group.web: ingress is known only after apply" in error_of(document)


def test_a_peer_within_a_dynamic_block_does_not_get_lost() -> None:
    for later in (LATER, [LATER]):
        group = web(vpc_id="vpc-a", ingress=[inline("tcp", 80, 80, security_groups=later)], egress=[])
        message = error_of(plan([], [group], block(WEB, name={"constant_value": "web"})))
        assert "aws_security_group.web: ingress is known only after apply: the plan's configuration does not" in message


@pytest.mark.parametrize("shown", [{"constant_value": [{"from_port": 22}]}, refs("var.offices")])
def test_rules_of_dynamic_blocks_do_not_get_lost_beside_others(shown: dict[str, Any]) -> None:
    """It is unknown how many dynamic blocks there will be, and so is the whole attribute."""
    group = web(vpc_id="vpc-a", egress=[])
    message = error_of(plan([], [group], block(WEB, ingress=shown)))
    assert f"{WEB}: ingress is known only after apply: define its rules as separate resources" in message
    assert not policy_of(plan([], [group], block(WEB, ingress={"constant_value": None}))).security_groups[0].rules


NEUTRON = {
    "openstack": ("openstack_networking_secgroup_v2", "openstack_networking_secgroup_rule_v2"),
    "opentelekomcloud": ("opentelekomcloud_networking_secgroup_v2", "opentelekomcloud_networking_secgroup_rule_v2"),
    "huaweicloud": ("huaweicloud_networking_secgroup", "huaweicloud_networking_secgroup_rule"),
}


@pytest.mark.parametrize("cloud", NEUTRON)
def test_neutron_rules_leave_to_the_cloud_what_they_do_not_set(cloud: str) -> None:
    group, rule = NEUTRON[cloud]
    open_fields = dict.fromkeys(
        ("id", "remote_group_id", "remote_ip_prefix", "port_range_min", "port_range_max", "protocol", "ports",
         "remote_address_group_id", "priority", "action", "description", "region", "tenant_id"), LATER,
    )  # fmt: skip
    common = open_fields | {"security_group_id": LATER, "direction": "ingress", "ethertype": "IPv4"}
    document = plan(
        [], [
            resource(f"{group}.g", id=LATER, name="g", delete_default_rules=True),
            resource(f"{rule}.all", **common),
            resource(f"{rule}.net", **common | {"remote_ip_prefix": "192.0.2.0/24", "protocol": "tcp"}),
            resource(f"{rule}.own", **common | {"protocol": "udp"}),
        ],
        block(f"{group}.g"), block(f"{rule}.all", security_group_id=refs(f"{group}.g.id")),
        # The same expressions for all rules, as in modules: what is null is left to the cloud.
        *(block(f"{rule}.{name}", {"constant_value": {}}, security_group_id=refs(f"{group}.g.id"),
                protocol=refs("var.protocol"), remote_ip_prefix=refs("var.net"), remote_group_id=refs(f"{group}.g.id"))
          for name in ("net", "own")),
    )  # fmt: skip
    rules = policy_of(document).security_groups[0].rules
    peers = ["192.0.2.0/24", "GroupPeer(name='g')"]
    assert [each.protocol for each in rules] == [None, 6, 17]
    assert rules[0].peer is None and [str(each.peer) for each in rules[1:]] == peers


def test_blocks_of_which_some_are_dynamic_are_not_mixed_up() -> None:
    """The configuration shows one network of two, and not which one it is; or two ports, and not which of them."""
    server = resource("openstack_compute_instance_v2.s", id=LATER, name="s", security_groups=LATER, network=[
        {"uuid": "n", "port": LATER, "fixed_ip_v4": "10.0.0.5"}, {"uuid": "m", "port": LATER, "fixed_ip_v4": LATER},
    ])  # fmt: skip
    port = resource("openstack_networking_port_v2.p", id=LATER, name="p", network_id="m", all_fixed_ips=LATER,
                    fixed_ip=[{"ip_address": "10.0.0.6"}], security_group_ids=LATER)  # fmt: skip
    either = resource("openstack_compute_instance_v2.e", id=LATER, name="e", security_groups=LATER,
                      network=[{"uuid": "n", "port": LATER, "fixed_ip_v4": "10.0.0.7"}])  # fmt: skip
    spare = resource("openstack_networking_port_v2.q", id=LATER, name="q", network_id="m", all_fixed_ips=LATER)
    group = resource("openstack_networking_secgroup_v2.g", id=LATER, name="g", delete_default_rules=True)
    names = refs("openstack_networking_secgroup_v2.g.name")
    ids = {"security_group_ids": refs("openstack_networking_secgroup_v2.g.id")}
    policy = policy_of(plan(
        [], [group, port, spare, server, either], block("openstack_networking_secgroup_v2.g"),
        block("openstack_networking_port_v2.p", **ids), block("openstack_networking_port_v2.q"),
        block("openstack_compute_instance_v2.s", security_groups=names,
              network=[{"port": refs("openstack_networking_port_v2.p.id")}]),
        block("openstack_compute_instance_v2.e", security_groups=names,
              network=[{"port": refs("openstack_networking_port_v2.p.id", "openstack_networking_port_v2.q.id")}]),
    ))  # fmt: skip
    assert {each.name: [str(a) for a in each.addresses] for each in policy.instances} == {
        "s": ["10.0.0.5/32"], "e": ["10.0.0.7/32"], "p": ["10.0.0.6/32"],
    }  # fmt: skip


# Instances -----------------------------------------------------------------------------------------------------------


def test_a_new_instance_of_which_the_group_or_subnet_is_not_known_is_left_out() -> None:
    subnets = [resource(f"aws_subnet.{name}", id=LATER, vpc_id=LATER) for name in "ab"]
    vpcs = [resource(f"aws_vpc.{name}", id=LATER, tags=None) for name in "ab"]
    document = plan(
        [], [
            web(vpc_id="vpc-a", ingress=[], egress=[]), *subnets, *vpcs,
            host(vpc_security_group_ids=LATER, subnet_id=LATER),
            resource("aws_instance.bare", id=LATER, private_ip=LATER, vpc_security_group_ids=LATER, subnet_id=LATER),
            resource("aws_network_interface.i", id=LATER, private_ips=["10.0.0.7"], security_groups=[],
                     subnet_id=LATER),
            resource("aws_instance.web", id=LATER, private_ip="10.0.0.8", vpc_security_group_ids=LATER,
                     subnet_id=LATER, tags=None),
        ],
        *(block(f"aws_subnet.{name}", vpc_id=refs(f"aws_vpc.{name}.id")) for name in "ab"),
        block("aws_instance.host", subnet_id=refs("aws_subnet.a.id")),
        block("aws_instance.bare", subnet_id=refs("local.subnets")),
        block("aws_network_interface.i", subnet_id=refs("aws_subnet.a.id", "aws_subnet.b.id")),
        block("aws_instance.web", subnet_id=refs("local.subnet"), vpc_security_group_ids=refs(f"{WEB}.id")),
    )  # fmt: skip
    policy = policy_of(document)
    assert {each.name: each.vpc for each in policy.instances} == {"aws_instance.web": "vpc-a"}
    assert warnings_of(policy) == (
        "Left out because it is in the default security group of its VPC, which is not in the file: "
        "instance aws_instance.host, aws_instance.host.",
        "Left out because its address is known only after apply: instance aws_instance.bare, aws_instance.bare.",
        "Left out because its subnet is known only after apply: "
        "network interface aws_network_interface.i, aws_network_interface.i.",
    )


def test_subnets_of_one_vpc_are_as_good_as_one_subnet() -> None:
    subnets = [resource(f"aws_subnet.s[{n}]", id=LATER, vpc_id="vpc-a") for n in (0, 1)]
    default = resource("aws_default_security_group.d", id=LATER, vpc_id="vpc-a", ingress=LATER, egress=LATER)
    shown = [block("aws_instance.host", subnet_id=refs("aws_subnet.s")), block("aws_default_security_group.d")]
    policy = policy_of(plan([], [*subnets, default, host(vpc_security_group_ids=LATER, subnet_id=LATER)], *shown))
    assert policy.instances[0].security_groups == ("default",)


def test_what_terraform_adopts_has_only_what_is_configured() -> None:
    everyone = inline("tcp", 22, 22, cidr_blocks=["0.0.0.0/0"])
    document = plan(
        [], [
            resource("aws_default_vpc.v", id=LATER, tags={"Name": "home"}, arn=LATER),
            resource("aws_default_subnet.s", id=LATER, vpc_id=LATER, availability_zone="eu-west-1a", tags=None),
            resource("aws_default_security_group.d", id=LATER, name=LATER, description=LATER, vpc_id=LATER,
                     ingress=[everyone], egress=LATER),
            host(vpc_security_group_ids=LATER, subnet_id=LATER, security_groups=LATER),
            web(ingress=[], egress=[]),
        ],
        block("aws_default_vpc.v"), block("aws_default_subnet.s"), block(WEB),
        block("aws_default_security_group.d", ingress={"constant_value": [{}]}),
        block("aws_instance.host", subnet_id=refs("aws_default_subnet.s.id")),
    )  # fmt: skip
    export = imported_files(("tf.json", document))
    meaning = [
        ("192.0.2.1", "10.0.0.5", "tcp", 22, "rule"),
        ("192.0.2.1", "10.0.0.5", "tcp", 80, "no-rule"),
        ("10.0.0.5", "192.0.2.1", "tcp", 80, "no-rule"),  # the rule that lets everything out is gone
    ]
    means(export, meaning)
    policy = export.policy()
    assert [vpc.name for vpc in policy.vpcs] == ["home"] and warnings_of(policy) == ()


def test_an_instance_of_which_the_vpc_is_in_no_file_is_in_a_vpc_default() -> None:
    resources = [
        resource("data.aws_network_interface.n", data=True, id="eni-1", vpc_id="vpc-a"),
        resource("data.aws_security_group.d", data=True, id="sg-d", vpc_id="vpc-b"),
        resource("aws_instance.a", id="i-1", private_ip="10.0.0.5", vpc_security_group_ids=[], subnet_id="subnet-1",
                 primary_network_interface_id="eni-9", tags=None),
        resource("aws_instance.b", id="i-2", private_ip="10.0.0.6", vpc_security_group_ids=[], subnet_id="subnet-1",
                 primary_network_interface_id="eni-1", tags=None),
    ]  # fmt: skip
    policy = policy_of(state(*resources))
    assert {each.name: each.vpc for each in policy.instances} == {"eni-9": "default", "eni-1": "vpc-a"}
    assert warnings_of(policy) == (
        'In the VPC "default" because neither its security groups nor its subnet are in the file: '
        "instance eni-9, aws_instance.a.",
    )
    unknown = resource("aws_instance.c", id="i", private_ip="10.0.0.7", vpc_security_group_ids=["sg-d"], tags=None)
    assert "security group 'sg-d' (see tf.json: instance i" in error_of(state(*resources, unknown))
