"""terraform show -json of AWS resources: states, and plans with groups that have no ids yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from exports import imported_files, means, warnings_of
from terraform import LATER, Resource, block, plan, refs, resource, state

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.conversion import policy_of as policy_of_made
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.importing.unresolved import resolve
from sgfast.clouds.loading import load_policy
from sgfast.clouds.terraform import plan as terraform
from sgfast.policy.model import Policy


def inline(protocol: str, first: int, last: int, **peers: Any) -> dict[str, Any]:
    return {
        "cidr_blocks": [], "description": "", "from_port": first, "ipv6_cidr_blocks": [], "prefix_list_ids": [],
        "protocol": protocol, "security_groups": [], "self": False, "to_port": last,
    } | peers  # fmt: skip


EVERYWHERE = inline("-1", 0, 0, cidr_blocks=["0.0.0.0/0"], ipv6_cidr_blocks=["::/0"])


def infrastructure() -> list[Resource]:
    return [
        resource("aws_vpc.main", id="vpc-a", tags={"Name": "main"}, arn="arn:aws:ec2:eu-west-1:1:vpc/vpc-a"),
        resource("aws_vpc.other", id="vpc-b", tags=None),
        resource("aws_vpc_peering_connection.ab", id="x", vpc_id="vpc-a", peer_vpc_id="vpc-b", accept_status="active"),
        resource("aws_subnet.a", id="subnet-a", vpc_id="vpc-a"),
        resource("aws_ec2_managed_prefix_list.probes", id="pl-1", name="probes", entry=[{"cidr": "192.0.2.16/28"}]),
        resource("data.aws_prefix_list.s3", data=True, id="pl-2", name="s3", cidr_blocks=["203.0.113.0/24"]),
        resource(
            "aws_security_group.web", id="sg-web", name="web", description="Web servers", vpc_id="vpc-a",
            ingress=[
                inline("tcp", 80, 80, cidr_blocks=["0.0.0.0/0"], ipv6_cidr_blocks=["::/0"]),
                inline("tcp", 7000, 7001, self=True, security_groups=["sg-db"]),
                inline("tcp", 9100, 9100, prefix_list_ids=["pl-1"]),
                inline("icmp", 8, -1, cidr_blocks=["0.0.0.0/0"]),
            ],
            egress=[EVERYWHERE],
        ),
        # As the cloud returns it, including rules that are resources of their own.
        resource(
            "aws_security_group.db", id="sg-db", name="db", vpc_id="vpc-a",
            ingress=[inline("tcp", 5432, 5432, security_groups=["sg-web"], description="from the web")],
            egress=[inline("tcp", 443, 443, prefix_list_ids=["pl-2"])],
        ),
        resource(
            "aws_security_group_rule.db", id="sgrule-1", security_group_id="sg-db", type="ingress", protocol="tcp",
            from_port=5432, to_port=5432, source_security_group_id="sg-web", self=False, cidr_blocks=None,
        ),
        resource(
            "aws_vpc_security_group_egress_rule.db", id="sgr-1", security_group_rule_id="sgr-1",
            security_group_id="sg-db", ip_protocol="tcp", from_port=443, to_port=443, prefix_list_id="pl-2",
            cidr_ipv4=None, referenced_security_group_id=None,
        ),
        resource(
            "aws_default_security_group.main", id="sg-def", name="default", vpc_id="vpc-b",
            ingress=[inline("-1", 0, 0, self=True)], egress=[],
        ),
        resource(
            "aws_instance.web", id="i-1", tags={"Name": "web-1"}, private_ip="10.0.0.5", secondary_private_ips=[],
            ipv6_addresses=["2001:db8::5"], vpc_security_group_ids=["sg-web"], subnet_id="subnet-a",
            primary_network_interface_id="eni-1", network_interface=[],
        ),
        resource(
            "aws_network_interface.db", id="eni-2", private_ips=["10.0.0.6", "10.0.0.7"], private_ip="10.0.0.6",
            security_groups=["sg-db"], subnet_id="subnet-a", ipv4_prefixes=["10.0.9.0/28"], tags={},
        ),
        resource(
            "aws_instance.db", id="i-2", tags={"Name": "db-1"}, private_ip="10.0.0.6", vpc_security_group_ids=["sg-db"],
            network_interface=[{"device_index": 0, "network_interface_id": "eni-2"}],
        ),
        resource("aws_network_interface_sg_attachment.x", network_interface_id="eni-1", security_group_id="sg-web"),
        resource("aws_instance.far", id="i-3", private_ip="10.1.0.5", vpc_security_group_ids=["sg-def"], tags=None),
        resource("aws_lb.front", id="lb-1", security_groups=["sg-unheard-of"]),
    ]  # fmt: skip


MEANING = [
    ("192.0.2.1", "10.0.0.5", "tcp", 80, "rule"),
    ("2001:db8:1::1", "2001:db8::5", "tcp", 80, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 443, "no-rule"),
    ("192.0.2.17", "10.0.0.5", "tcp", 9100, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 9100, "no-rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (8, 3), "rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (13, 0), "no-rule"),
    ("10.0.0.5", "10.0.0.7", "tcp", 5432, "rule"),
    ("10.0.0.5", "10.0.9.1", "tcp", 5432, "rule"),
    ("10.1.0.5", "10.0.0.6", "tcp", 5432, "no-rule"),
    ("10.0.0.6", "203.0.113.9", "tcp", 443, "rule"),
    ("10.0.0.6", "10.0.0.5", "tcp", 7000, "no-rule"),  # it may only send to the prefix list
    ("192.0.2.1", "10.1.0.5", "tcp", 80, "no-rule"),
]


def policy_of(document: Any, *, planned: bool = True) -> Policy:
    draft = terraform.read([Source("tf.json", document)], planned=planned)
    resolve(draft, {}, "error", "tf.json")
    return policy_of_made(draft.made, "tf.json")


def test_a_state_means_what_its_resources_say() -> None:
    export = imported_files(("tf.json", state(*infrastructure())))
    policy = export.policy()
    means(export, MEANING)
    assert [instance.name for instance in policy.instances] == ["web-1", "i-3", "db-1"]
    assert [len(group.rules) for group in policy.security_groups] == [10, 3, 2]
    assert warnings_of(policy) == ()


def without(resources: list[Resource], *addresses: str) -> list[Resource]:
    return [each for each in resources if each["address"] not in addresses]


ENTRY = resource("aws_ec2_managed_prefix_list_entry.x", prefix_list_id="pl-1", cidr="192.0.2.16/28")


@pytest.mark.parametrize(
    ("deleted", "found", "before", "after"),
    [
        ("aws_security_group_rule.db", lambda policy: len(policy.group_by_name["db"].rules), 3, 1),
        ("aws_network_interface_sg_attachment.x", lambda policy: policy.instance_by_name["web-1"].security_groups,
         ("web",), ("no-security-group",)),
        (ENTRY["address"], lambda policy: len(policy.address_group_by_name["probes"].addresses), 1, 0),
    ],
    ids=["rule", "group of an interface", "entry of a list"],
)  # fmt: skip
def test_what_the_plan_deletes_is_gone_though_what_had_it_still_shows_it(
    deleted: str, found: Any, before: Any, after: Any
) -> None:
    old = [*infrastructure(), ENTRY]
    document = plan(old, without(old, deleted))
    assert (found(policy_of(document, planned=False)), found(policy_of(document))) == (before, after)
    assert found(policy_of(plan(old, old))) == before


def test_a_rule_that_the_plan_changes_has_its_new_ports_only() -> None:
    before = infrastructure()
    after = infrastructure()
    changed = next(each for each in after if each["address"] == "aws_security_group_rule.db")
    changed["values"] |= {"from_port": 5433, "to_port": 5433}
    rules = policy_of(plan(before, after)).group_by_name["db"].rules
    assert [rule.ports for rule in rules if rule.direction == "inbound"] == [((5433, 5433),)] * 2


def test_a_plan_is_two_policies(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan(infrastructure(), without(infrastructure(), "aws_security_group_rule.db"))))
    old, new = terraform.load_plan(path)
    assert [len(policy.group_by_name["db"].rules) for policy in (old, new)] == [3, 1]
    # Even if nothing exists yet, it is the same cloud.
    resources, blocks = new_groups()
    path.write_text(json.dumps(plan([], resources, *blocks)))
    old, new = terraform.load_plan(path)
    assert old.settings == new.settings and not old.security_groups and new.security_groups
    assert load_policy(path).security_groups == new.security_groups
    path.write_text(json.dumps(state(*infrastructure())))
    with pytest.raises(PolicyError, match=r"plan\.json: is not a plan"):
        terraform.load_plan(path)


def new_groups() -> tuple[list[Resource], list[dict[str, Any]]]:
    """Nothing exists yet, so nothing has an id."""
    resources = [
        resource("aws_vpc.main", id=LATER, tags={"Name": "main"}, arn=LATER),
        resource("aws_security_group.web", id=LATER, name="web", vpc_id=LATER, ingress=LATER, egress=[EVERYWHERE]),
        resource(
            "aws_security_group.db", id=LATER, name=LATER, vpc_id=LATER, egress=LATER,
            ingress=[inline("tcp", 5432, 5432, security_groups=LATER), inline("tcp", 1, 2, cidr_blocks=["10.0.0.0/8"])],
        ),
        resource("aws_vpc_security_group_ingress_rule.web", security_group_id=LATER, ip_protocol="tcp", from_port=80,
                 to_port=80, cidr_ipv4="0.0.0.0/0"),
        resource("aws_security_group_rule.self", security_group_id=LATER, type="ingress", protocol="udp", from_port=53,
                 to_port=53, source_security_group_id=LATER, self=None),
        resource("aws_instance.web", id=LATER, private_ip="10.0.0.5", vpc_security_group_ids=LATER, tags={"Name": "w"}),
        resource("aws_instance.db", id=LATER, private_ip="10.0.0.6", vpc_security_group_ids=LATER, tags={"Name": "d"}),
        resource("aws_instance.unborn", id=LATER, private_ip=LATER, vpc_security_group_ids=LATER, tags=None),
    ]  # fmt: skip
    blocks = [
        block("aws_security_group.web", vpc_id=refs("aws_vpc.main.id")),
        block("aws_security_group.db", vpc_id=refs("aws_vpc.main.id"), ingress=refs("aws_security_group.web.id")),
        block("aws_vpc_security_group_ingress_rule.web", security_group_id=refs("aws_security_group.web.id")),
        block("aws_security_group_rule.self", security_group_id=refs("aws_security_group.web.id"),
              source_security_group_id=refs("aws_security_group.db.id")),
        block("aws_instance.web", vpc_security_group_ids=refs("aws_security_group.web.id")),
        block("aws_instance.db", vpc_security_group_ids=refs("aws_security_group.db.id", "aws_vpc.main.id")),
        block("aws_instance.unborn", vpc_security_group_ids=refs("aws_security_group.db.id")),
    ]  # fmt: skip
    return resources, blocks


def test_groups_without_ids_are_found_through_references() -> None:
    resources, blocks = new_groups()
    export = imported_files(("tf.json", plan([], resources, *blocks)))
    policy = export.policy()
    assert [group.name for group in policy.security_groups] == ["web", "aws_security_group.db"]
    meaning = [
        ("192.0.2.1", "10.0.0.5", "tcp", 80, "rule"),
        ("10.0.0.5", "10.0.0.6", "tcp", 5432, "rule"),
        ("10.9.0.5", "10.0.0.6", "tcp", 5432, "no-rule"),
        ("10.9.0.5", "10.0.0.6", "tcp", 1, "rule"),
        ("10.0.0.6", "10.0.0.5", "udp", 53, "no-rule"),  # db may not send anything
        ("10.0.0.7", "10.0.0.5", "udp", 53, "no-rule"),
    ]
    means(export, meaning)
    assert "aws_instance.unborn" in policy.warnings[0] and "only after apply" in policy.warnings[0]
    assert policy_of(plan([], resources, *blocks), planned=False).security_groups == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "does not show what it refers to"),
        (["local.group"], "'local.group', whose value a plan does not show"),
        (["aws_vpc.main.id"], "'aws_vpc.main.id', which is not a resource of a fitting type"),
        (["aws_security_group.web.id", "aws_security_group.db.id"], "the plan does not show which of"),
        (["module.x"], "which is no resource|the whole of"),
        (["a b"], "which cannot be parsed"),
    ],
)
def test_what_references_do_not_tell_is_an_error_by_address(names: list[str], message: str) -> None:
    resources, blocks = new_groups()
    blocks[2]["expressions"]["security_group_id"] = {"references": names}
    with pytest.raises(PolicyError, match=message) as caught:
        policy_of(plan([], resources, *blocks))
    said = "tf.json: resource aws_vpc_security_group_ingress_rule.web: security_group_id is known only after apply"
    assert str(caught.value).startswith(said)


def test_a_group_that_is_gone_from_the_plan_but_not_from_its_configuration_is_missed() -> None:
    gone = refs("aws_security_group.gone.id")
    resources, blocks = new_groups()
    blocks[3]["expressions"]["source_security_group_id"] = gone
    assert any("names no addresses and no group" in each for each in policy_of(plan([], resources, *blocks)).warnings)
    blocks[3]["expressions"]["security_group_id"] = gone
    with pytest.raises(PolicyError, match=r"aws_security_group_rule\.self: security_group_id is missing"):
        policy_of(plan([], resources, *blocks))


def test_inline_rules_that_could_be_of_several_groups_are_an_error() -> None:
    resources, blocks = new_groups()
    resources[2]["values"]["ingress"][1]["security_groups"] = LATER
    blocks[1]["expressions"]["ingress"] = refs("aws_security_group.web.id", "aws_security_group.db.id")
    with pytest.raises(PolicyError, match=r"aws_security_group\.db: ingress is known only after apply"):
        policy_of(plan([], resources, *blocks))


def test_port_0_is_a_port_unless_the_protocol_has_none() -> None:
    ingress = [
        inline("tcp", 0, 0, cidr_blocks=["0.0.0.0/0"]), inline("udp", 0, 100, cidr_blocks=["0.0.0.0/0"]),
        inline("-1", 0, 0, cidr_blocks=["10.0.0.0/8"]), inline("tcp", 0, 65535, cidr_blocks=["10.0.0.0/8"]),
    ]  # fmt: skip
    [made] = policy_of(
        state(resource("aws_security_group.a", id="sg-a", name="a", vpc_id="vpc-a", ingress=ingress, egress=[]))
    ).security_groups
    assert [(rule.protocol, rule.ports) for rule in made.rules] == [
        (6, ((0, 0),)), (17, ((0, 100),)), (None, None), (6, None),
    ]  # fmt: skip


def several() -> tuple[list[Resource], list[dict[str, Any]]]:
    resources = [
        resource("aws_security_group.plain", id="sg-plain", name="plain", vpc_id="vpc-a", ingress=[], egress=[]),
    ]  # fmt: skip
    for key in ("a", "b"):
        resources += [
            resource(f'aws_security_group.each["{key}"]', id=LATER, name=f"each-{key}", vpc_id="vpc-a", ingress=LATER),
            resource(f'aws_security_group_rule.each["{key}"]', security_group_id=LATER, type="ingress", protocol="tcp",
                     from_port=1, to_port=1, cidr_blocks=["0.0.0.0/0"]),
            resource(f'aws_security_group_rule.value["{key}"]', security_group_id=LATER, type="ingress", protocol="tcp",
                     from_port=2, to_port=2, cidr_blocks=["0.0.0.0/0"]),
        ]  # fmt: skip
    for n in (0, 1):
        resources += [
            resource(f"aws_security_group.count[{n}]", id=LATER, name=f"count-{n}", vpc_id="vpc-a", ingress=LATER),
            resource(f"aws_security_group_rule.count[{n}]", security_group_id=LATER, type="ingress", protocol="tcp",
                     from_port=3, to_port=3, source_security_group_id=LATER),
        ]  # fmt: skip
    resources += [
        resource("aws_instance.all", id=LATER, private_ip="10.0.0.5", vpc_security_group_ids=LATER, tags=None),
        resource("aws_instance.some", id=LATER, private_ip="10.0.0.6", vpc_security_group_ids=["sg-plain", LATER]),
    ]
    blocks = [
        block("aws_security_group.each", name=refs("each.key")),
        block("aws_security_group.count", name=refs("count.index")),
        block("aws_security_group_rule.each", security_group_id=refs("aws_security_group.each", "each.key")),
        block("aws_security_group_rule.value", for_each=refs("aws_security_group.each"),
              security_group_id={"references": ["each.value.id", "each.value"]}),
        block("aws_security_group_rule.count", security_group_id=refs("aws_security_group.count", "count.index"),
              source_security_group_id=refs('aws_security_group.each["b"].id')),
        block("aws_instance.all", vpc_security_group_ids=refs("aws_security_group.count")),
        block("aws_instance.some",
              vpc_security_group_ids=refs("aws_security_group.plain.id", "aws_security_group.count[1].id")),
    ]  # fmt: skip
    return resources, blocks


def test_of_count_and_for_each_each_finds_its_own() -> None:
    resources, blocks = several()
    policy = policy_of(plan([], resources, *blocks))
    ports = {group.name: sorted({rule.ports for rule in group.rules}) for group in policy.security_groups}
    assert ports == {
        "plain": [], "each-a": [((1, 1),), ((2, 2),)], "each-b": [((1, 1),), ((2, 2),)],
        "count-0": [((3, 3),)], "count-1": [((3, 3),)],
    }  # fmt: skip
    assert {str(rule.peer) for rule in policy.group_by_name["count-0"].rules} == {"GroupPeer(name='each-b')"}
    assert {instance.name: instance.security_groups for instance in policy.instances} == {
        "aws_instance.all": ("count-0", "count-1"), "aws_instance.some": ("plain", "count-1"),
    }  # fmt: skip
    assert warnings_of(policy) == ()  # nothing had to be assumed


def nested() -> dict[str, Any]:
    """The root module passes one module's group to two instances of another module."""
    after = [resource("module.net.aws_security_group.shared", id=LATER, name="shared", vpc_id="vpc-a", ingress=LATER)]
    for key in ("x", "y"):
        where = f'module.app["{key}"]'
        after += [
            resource(f"{where}.aws_security_group.own", id=LATER, name=f"own-{key}", vpc_id="vpc-a", ingress=LATER),
            resource(f"{where}.aws_security_group_rule.in", security_group_id=LATER, type="ingress", protocol="tcp",
                     from_port=80, to_port=80, source_security_group_id=LATER),
        ]  # fmt: skip
    after.append(resource("aws_instance.x", id=LATER, private_ip="10.0.0.5", vpc_security_group_ids=LATER, tags=None))
    calls = {
        "net": {"module": {
            "outputs": {"group": {"expression": refs("aws_security_group.shared.id")}},
            "resources": [block("aws_security_group.shared")],
        }},
        "app": {
            "for_each_expression": {"constant_value": ["x", "y"]},
            "expressions": {"from": {"references": ["module.net.group", "module.net"]}},
            "module": {
                "outputs": {"own": {"expression": refs("aws_security_group.own.id")}},
                "resources": [block("aws_security_group.own"), block(
                    "aws_security_group_rule.in", security_group_id=refs("aws_security_group.own.id"),
                    source_security_group_id=refs("var.from"),
                )],
            },
        },
    }  # fmt: skip
    one = {"references": ['module.app["y"].own', 'module.app["y"]', "module.app"]}
    return plan([], after, block("aws_instance.x", vpc_security_group_ids=one), calls=calls)


def test_references_go_through_modules() -> None:
    policy = policy_of(nested())
    for key in ("x", "y"):
        assert {str(rule.peer) for rule in policy.group_by_name[f"own-{key}"].rules} == {"GroupPeer(name='shared')"}
    assert policy.instances[0].security_groups == ("own-y",)


def local(**handed: Any) -> dict[str, Any]:
    """A module that creates a group and refers to it by a local value, as the usual module for groups does."""
    after = [
        resource("aws_security_group.other", id=LATER, name="other", vpc_id="vpc-a", ingress=LATER),
        resource("module.sg.aws_security_group.this[0]", id=LATER, name="this", vpc_id="vpc-a", ingress=LATER),
        resource("module.sg.aws_security_group_rule.in[0]", security_group_id=LATER, type="ingress", protocol="tcp",
                 from_port=80, to_port=80, cidr_blocks=["0.0.0.0/0"]),
    ]  # fmt: skip
    shown = [block("aws_security_group.this"), block("aws_security_group_rule.in", security_group_id=refs("local.id"))]
    calls = {"sg": {"expressions": handed, "module": {"resources": shown}}}
    return plan([], after, block("aws_security_group.other"), calls=calls)


def test_a_local_value_is_the_only_thing_it_can_be_or_an_error() -> None:
    policy = policy_of(local(name={"constant_value": "this"}, tags=refs("local.tags")))
    assert [len(group.rules) for group in policy.security_groups] == [0, 1]
    assert "assumed the only resource it can be: resource module.sg.aws_security_group_rule.in[0]" in policy.warnings[0]
    with pytest.raises(PolicyError, match=r"module\.sg\.aws_security_group_rule\.in\[0\]: .* 'local.id', whose value"):
        policy_of(local(peers=refs("aws_security_group.other.id")))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["var.common"], "'var.common', and the plan does not show which values it takes"),
        (["local.common"], "'local.common', whose value"),
        (["each.value"], "also refers to 'each.value'"),
        (["data.aws_security_group.old.id", "data.aws_security_group.old"], r"security group 'sg-old' \(see tf.json: "),
    ],
)
def test_of_a_list_of_which_nothing_is_known_no_part_gets_lost(names: list[str], message: str) -> None:
    resources, blocks = new_groups()
    resources.append(resource("data.aws_security_group.old", data=True, id="sg-old", name="old"))
    blocks[4]["expressions"]["vpc_security_group_ids"]["references"] += names
    with pytest.raises(PolicyError, match=message):
        policy_of(plan([], resources, *blocks))


def test_an_instance_of_a_default_vpc_names_its_groups() -> None:
    resources, blocks = new_groups()
    resources[5]["values"]["security_groups"] = ["web"]
    blocks[4]["expressions"] = {"security_groups": refs("aws_security_group.web.name")}
    assert policy_of(plan([], resources, *blocks)).instance_by_name["w"].security_groups == ("web",)
    resources[5]["values"]["security_groups"] = ["nobody"]
    with pytest.raises(PolicyError, match=r"aws_instance\.web: the name 'nobody' fits 0 security groups in the file"):
        policy_of(plan([], resources, *blocks))


def test_modules_that_hand_a_value_round_in_a_circle_are_an_error() -> None:
    document = nested()
    calls = document["configuration"]["root_module"]["module_calls"]
    calls["net"]["module"]["outputs"]["group"]["expression"] = {"references": ["var.back"] * 3}
    calls["net"]["expressions"] = {"back": {"references": ["module.net.group"] * 3}}
    with pytest.raises(PolicyError, match="source_security_group_id is known only after apply"):
        policy_of(document)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (resource("aws_security_group_rule.x", security_group_id="sg-web", type="ingress", protocol="tcp", from_port=1,
                  to_port=1, cidr_blocks=["0.0.0.0/0"], ipv9_blocks=["x"]), r"unknown key 'ipv9_blocks'"),
        (resource("aws_security_group_rule.x", security_group_id="sg-none", type="ingress", protocol="tcp", from_port=1,
                  to_port=1, self=True), r"group 'sg-none' .see tf.json"),
        (resource("aws_security_group_rule.x", security_group_id="sg-web", type="sideways", protocol="-1"),
         r"type must be ingress or egress"),
        (resource("openstack_networking_secgroup_v2.x", id="x"), r"is in another cloud than 'aws_"),
        (resource("aws_instance.x", id="i", private_ip="10.5.0.1", vpc_security_group_ids=["sg-none"]),
         r"group 'sg-none' \(see tf.json: instance i, aws_instance\.x\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_by_address(broken: Resource, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        policy_of(state(*infrastructure(), broken))
    assert str(caught.value).startswith("tf.json: ") and str(caught.value).isprintable()


def test_a_peering_nobody_accepted_peers_nothing() -> None:
    resources = without(infrastructure(), "aws_vpc_peering_connection.ab")
    pending = resource(
        "aws_vpc_peering_connection.ab", id=LATER, vpc_id="vpc-a", peer_vpc_id="vpc-b", accept_status=LATER,
        auto_accept=False,
    )  # fmt: skip
    policy = policy_of(plan([], [*resources, pending]))
    assert not policy.peerings and "accepted" in policy.warnings[0]
    accepter = resource(
        "aws_vpc_peering_connection_accepter.ab", vpc_peering_connection_id=LATER, auto_accept=True, id=LATER
    )
    peering = refs("aws_vpc_peering_connection.ab.id")
    shown = block("aws_vpc_peering_connection_accepter.ab", vpc_peering_connection_id=peering)
    assert len(policy_of(plan([], [*resources, pending, accepter], shown)).peerings) == 1


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format_version": "2.0"}, "format_version is '2.0', but only 0.x and 1.x are supported"),
        ({"format_version": "1.2", "planned_values": {}, "errored": True}, "the plan is incomplete"),
    ],
)
def test_other_documents_are_told_what_is_wanted(document: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy_of(document)
