"""Terraform's resources of openstack, opentelekomcloud and huaweicloud."""

from __future__ import annotations

from typing import Any

import pytest
from exports import imported_files, means, warnings_of
from terraform import LATER, Resource, block, plan, policy_of, refs, resource, state

from sgfast.base.errors import PolicyError
from sgfast.engine import Engine
from sgfast.policy.model import Rule


def rule(address: str, group: Any, direction: str = "ingress", protocol: str = "", first: Any = 0, last: Any = 0,
         **more: Any) -> Resource:  # fmt: skip
    return resource(
        address, **{
            "id": address, "security_group_id": group, "direction": direction, "ethertype": "IPv4",
            "protocol": protocol, "port_range_min": first, "port_range_max": last, "remote_group_id": "",
            "remote_ip_prefix": "", "description": "", "region": "r", "tenant_id": "t", "timeouts": None,
        } | more,
    )  # fmt: skip


def otc() -> list[Resource]:
    group, port = "opentelekomcloud_networking_secgroup_v2", "opentelekomcloud_networking_port_v2"
    server, one = "opentelekomcloud_compute_instance_v2", "opentelekomcloud_networking_secgroup_rule_v2"
    return [
        resource("opentelekomcloud_vpc_v1.a", id="vpc-a", name="main"),
        resource("data.opentelekomcloud_vpc_v1.b", data=True, id="vpc-b", name="far"),
        resource("opentelekomcloud_vpc_subnet_v1.a", id="net-a", network_id="net-a", subnet_id="s", vpc_id="vpc-a"),
        resource("opentelekomcloud_vpc_subnet_v1.b", id="net-b", vpc_id="vpc-b"),
        resource(f"{group}.web", id="g-web", name="web", description="Web", delete_default_rules=True),
        resource(f"{group}.db", id="g-db", name="db", description="", delete_default_rules=False),
        rule(f"{one}.http", "g-web", protocol="tcp", first=80, last=81, remote_ip_prefix="0.0.0.0/0"),
        rule(f"{one}.echo", "g-web", protocol="icmp", first=8, last=0, remote_ip_prefix="0.0.0.0/0"),
        rule(f"{one}.out", "g-web", "egress"),
        rule(f"{one}.db", "g-db", protocol="tcp", remote_group_id="g-web"),
        rule(f"{one}.ping", "g-db", protocol="icmp", first=0, last=255, remote_group_id="g-web"),
        resource(
            "opentelekomcloud_vpc_secgroup_rule_v3.x", id="r-3", security_group_id="g-db", direction="ingress",
            ether_type="IPv4", protocol="udp", multi_port="53,100-200", action="deny", priority=2,
            remote_ip_prefix="10.0.0.0/8", remote_group_id=None, remote_address_group_id=None, created_at="x",
        ),
        rule(f"{one}.udp", "g-db", protocol="udp", first=50, last=60, remote_ip_prefix="10.0.0.0/8"),
        resource(f"{server}.web", id="i-1", name="web-1", security_groups=["web"], network=[
            {"uuid": "net-a", "port": "", "fixed_ip_v4": "10.0.0.5", "fixed_ip_v6": "[2001:db8::5]"},
            {"uuid": "net-b", "port": "", "fixed_ip_v4": "10.1.0.5", "fixed_ip_v6": ""},
        ]),
        resource(f"{server}.db", id="i-2", name="db-1", security_groups=["db"], network=[{"port": "p-1"}]),
        resource(
            f"{port}.db", id="p-1", name="db-port", network_id="net-a", security_group_ids=["g-db"],
            all_fixed_ips=["10.0.0.6"], fixed_ip=[], allowed_address_pairs=[{"ip_address": "10.0.0.100"}],
        ),
        resource("opentelekomcloud_ecs_instance_v1.e", id="i-3", name="ecs", vpc_id="vpc-a", security_groups=["g-db"],
                 nics=[{"network_id": "net-a", "ip_address": "10.0.0.7", "port_id": "p-9"}]),
    ]  # fmt: skip


MEANING = [
    ("192.0.2.1", "10.0.0.5", "tcp", 81, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 82, "no-rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (8, 0), "rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (13, 0), "no-rule"),
    ("10.0.0.5", "10.0.0.6", "tcp", 5432, "rule"),
    ("10.0.0.5", "10.0.0.100", "tcp", 5432, "rule"),  # an address pair that no other port has
    ("10.0.0.5", "10.0.0.7", "icmp", (13, 0), "rule"),
    ("10.1.0.5", "10.0.0.6", "tcp", 5432, "vpc-isolated"),
    ("10.9.0.5", "10.0.0.6", "udp", 55, "rule"),
    ("10.9.0.5", "10.0.0.6", "udp", 53, "rule"),  # priority 1 precedes the deny rule of priority 2
    ("10.9.0.5", "10.0.0.6", "udp", 150, "deny-rule"),
    ("10.0.0.6", "192.0.2.1", "tcp", 443, "rule"),  # a rule created by the cloud
]


def test_a_state_of_otc_means_what_its_resources_say() -> None:
    export = imported_files(("tf.json", state(*otc())))
    policy = export.policy()
    means(export, MEANING)
    assert [(each.name, each.vpc) for each in policy.instances] == [
        ("web-1", "main"), ("web-1-2", "far"), ("ecs", "main"), ("db-1", "main"),
    ]  # fmt: skip
    assert policy.settings.profile == "otc"
    assert warnings_of(policy) == (
        "Added the rules that the cloud creates with each new group, because Terraform does not know them "
        "(delete_default_rules is not set): security group 'db' (g-db), opentelekomcloud_networking_secgroup_v2.db.",
    )


def rules_of(*resources: Resource, group: Resource | None = None) -> tuple[Rule, ...]:
    policy = policy_of(state(group or resource("openstack_networking_secgroup_v2.g", id="g", name="g",
                                               delete_default_rules=True), *resources))  # fmt: skip
    return policy.security_groups[0].rules


def test_zero_is_no_port_and_no_icmp_type_on_openstack() -> None:
    one = "openstack_networking_secgroup_rule_v2"
    rules = rules_of(
        rule(f"{one}.a", "g", protocol="tcp"),
        rule(f"{one}.b", "g", protocol="icmp"),
        rule(f"{one}.c", "g", protocol="icmp", first=8, last=0),
        rule(f"{one}.d", "g", protocol="icmp", first=3, last=4),
        rule(f"{one}.e", "g", protocol="ipv6-icmp", first=128, last=0, ethertype="IPv6"),
        rule(f"{one}.f", "g", protocol="ipv6-encap"),
        rule(f"{one}.g", "g", protocol="112"),
    )
    assert [(each.protocol, each.ports, each.icmp_type, each.icmp_code) for each in rules] == [
        (6, None, None, None), (1, None, None, None), (1, None, 8, None), (1, None, 3, 4), (58, None, 128, None),
        (41, None, None, None), (112, None, None, None),
    ]  # fmt: skip


@pytest.mark.parametrize("cloud", ["openstack", "huaweicloud"])
def test_icmp_0_0_is_all_types_and_said_to_be_doubtful(cloud: str) -> None:
    one = f"{cloud}_networking_secgroup_rule_v2"
    kind = "huaweicloud_networking_secgroup" if cloud == "huaweicloud" else "openstack_networking_secgroup_v2"
    group = resource(f"{kind}.g", id="g", name="g", delete_default_rules=True)
    rules = [
        rule(f"{one}.zero", "g", protocol="icmp"),
        rule(f"{one}.none", "g", protocol="icmp", first=None, last=None),
        rule(f"{one}.six", "g", protocol="ipv6-icmp", ethertype="IPv6"),
        rule(f"{one}.tcp", "g", protocol="tcp"),
        rule(f"{one}.echo", "g", protocol="icmp", first=8, last=0),
    ]
    doubtful = "Imported as all ICMP types, which Terraform writes like type 0, code 0 (echo replies)"
    policy = policy_of(state(group, *rules))
    assert [each.icmp_type for each in policy.security_groups[0].rules] == [None, None, None, None, 8]
    assert warnings_of(policy) == (f"{doubtful}: security group rule {one}.zero.",)
    # A plan's configuration shows whether it was set.
    shown = [block(each["address"], protocol={"constant_value": "icmp"}) for each in rules]
    assert warnings_of(policy_of(plan([group, *rules], [group, *rules], *shown))) == ()
    shown[0]["expressions"] |= {"port_range_min": {"constant_value": 0}, "port_range_max": {"constant_value": 0}}
    assert warnings_of(policy_of(plan([group, *rules], [group, *rules], *shown))) == warnings_of(policy)


def test_icmp_0_0_is_an_echo_reply_on_otc_and_0_255_is_all() -> None:
    one = "opentelekomcloud_networking_secgroup_rule_v2"
    group = resource("opentelekomcloud_networking_secgroup_v2.g", id="g", name="g", delete_default_rules=True)
    rules = rules_of(
        rule(f"{one}.a", "g", protocol="icmp", first=0, last=0),
        rule(f"{one}.b", "g", protocol="icmp", first=0, last=255),
        rule(f"{one}.c", "g", protocol="icmp", first=8, last=0),
        group=group,
    )
    assert [(each.icmp_type, each.icmp_code) for each in rules] == [(0, 0), (None, None), (8, 0)]


def test_a_remote_group_wins_over_the_any_address_beside_it() -> None:
    both = {"remote_group_id": "g", "remote_ip_prefix": "0.0.0.0/0"}
    (only,) = rules_of(rule("openstack_networking_secgroup_rule_v2.a", "g", **both))
    assert str(only.peer) == "GroupPeer(name='g')"


def test_the_rules_a_cloud_makes_with_a_group_are_its_own() -> None:
    made = {}
    for kind in ("openstack_networking_secgroup_v2", "huaweicloud_networking_secgroup"):
        rules = rules_of(group=resource(f"{kind}.g", id="g", name="g", delete_default_rules=False))
        made[kind] = [(each.direction, each.ethertype, each.peer is not None, each.priority) for each in rules]
    assert made["openstack_networking_secgroup_v2"] == [("outbound", 4, False, 1), ("outbound", 6, False, 1)]
    assert made["huaweicloud_networking_secgroup"] == [
        ("outbound", 4, False, 100), ("inbound", 4, True, 100), ("outbound", 6, False, 100), ("inbound", 6, True, 100),
    ]  # fmt: skip


def test_a_group_that_lists_its_rules_has_them_and_those_planned() -> None:
    listed = [
        {"id": "r-0", "direction": "egress", "ethertype": "IPv4", "protocol": "", "ports": "", "priority": 100,
         "action": "allow", "remote_ip_prefix": "", "remote_group_id": "", "remote_address_group_id": ""},
        {"id": "r-1", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "ports": "22", "priority": 1,
         "action": "allow", "port_range_min": 22, "port_range_max": 22},
    ]  # fmt: skip
    group = resource("huaweicloud_networking_secgroup.g", id="g", name="g", delete_default_rules=False, rules=listed)
    one = "huaweicloud_networking_secgroup_rule.a"
    before, after = (rule(one, "g", protocol="tcp", ports=port, id=own) for port, own in (("22", "r-1"), ("23", LATER)))
    assert [each.ports for each in policy_of(state(group, before)).security_groups[0].rules] == [None, ((22, 22),)]
    planned = policy_of(plan([group, before], [group, after])).security_groups[0].rules
    assert [each.ports for each in planned] == [None, ((23, 23),)]


def huawei() -> list[Resource]:
    return [
        resource("huaweicloud_networking_secgroup.web", id="g-web", name="web", delete_default_rules=True, rules=[]),
        resource("huaweicloud_vpc_address_group.o", id="ag", name="offices", addresses=["192.0.2.10-192.0.2.12"],
                 ip_extra_set=[{"ip": "198.51.100.0/24", "remarks": ""}]),
        rule("huaweicloud_networking_secgroup_rule.a", "g-web", protocol="tcp", ports="80,500,600-800", action="allow",
             priority=5, remote_address_group_id="ag"),
        rule("huaweicloud_networking_secgroup_rule.b", "g-web", protocol="tcp", ports="700", action="deny", priority=1),
        resource("huaweicloud_compute_instance.web", id="i-1", name="web-1", security_group_ids=["g-web"],
                 security_groups=["web"], network=[{"uuid": "n", "port": "p-1", "fixed_ip_v4": "10.0.0.5"}]),
    ]  # fmt: skip


def test_address_groups_priorities_and_lists_of_ports_of_huawei() -> None:
    export = imported_files(("tf.json", state(*huawei())))
    meaning = [
        ("192.0.2.11", "10.0.0.5", "tcp", 500, "rule"),
        ("192.0.2.13", "10.0.0.5", "tcp", 500, "no-rule"),
        ("198.51.100.9", "10.0.0.5", "tcp", 601, "rule"),
        ("198.51.100.9", "10.0.0.5", "tcp", 700, "deny-rule"),
    ]
    means(export, meaning)


def openstack_ports() -> list[Resource]:
    port = "openstack_networking_port_v2"
    return [
        resource("openstack_networking_secgroup_v2.g", id="g", name="g", delete_default_rules=True, stateful=False),
        resource("openstack_networking_address_group_v2.a", id="ag", name="ag", addresses=["192.0.2.0/24"]),
        rule("openstack_networking_secgroup_rule_v2.a", "g", remote_address_group_id="ag"),
        resource(f"{port}.a", id="p-1", name="a", all_fixed_ips=["10.0.0.1"], all_security_group_ids=["g"],
                 security_group_ids=[], allowed_address_pairs=[{"ip_address": "10.0.0.9"}]),
        resource(f"{port}.b", id="p-2", name="b", all_fixed_ips=["10.0.0.2"], security_group_ids=["g"],
                 allowed_address_pairs=[{"ip_address": "10.0.0.9"}]),
        resource(f"{port}.open", id="p-3", name="open", all_fixed_ips=["10.0.0.3"], port_security_enabled=False),
        resource(f"{port}.none", id="p-4", name="none", all_fixed_ips=["10.0.0.4"], no_security_groups=True),
        resource("openstack_compute_instance_v2.d", id="i-1", name="d", security_groups=["default"],
                 network=[{"uuid": "n", "port": None, "fixed_ip_v4": "10.0.0.7"}]),
    ]  # fmt: skip


def test_ports_share_addresses_and_may_be_without_filter_or_group() -> None:
    policy = policy_of(state(*openstack_ports()))
    assert policy.settings.profile == "neutron"
    assert {each.name: each.security_groups for each in policy.instances} == {
        "a": ("g",), "b": ("g",), "none": ("no-security-group",), "d": ("default",), "shared-10.0.0.9": ("g",),
    }  # fmt: skip
    assert not policy.group_by_name["g"].stateful
    assert any("port security is off" in warning for warning in policy.warnings)
    assert any("default group is not in the file" in warning for warning in policy.warnings)
    engine = Engine(policy)
    assert engine.check("192.0.2.1", "10.0.0.9", "tcp", dport=1).verdict == "allow"
    assert engine.check("192.0.2.1", "10.0.0.4", "tcp", dport=1).verdict == "deny"


def associated(port: Any, groups: Any, enforce: bool | None = None, name: str = "x") -> Resource:
    address = f"openstack_networking_port_secgroup_associate_v2.{name}"
    return resource(address, id=port, port_id=port, security_group_ids=groups, enforce=enforce,
                    all_security_group_ids=["g", "more"], region="r")  # fmt: skip


@pytest.mark.parametrize(("force", "groups"), [(None, ("db", "web")), (True, ("web",))])
def test_a_port_that_terraform_did_not_make_has_the_groups_it_is_given(
    force: bool | None, groups: tuple[str, ...]
) -> None:
    port = resource(
        "data.opentelekomcloud_networking_port_v2.p", data=True, id="p-7", name="nas", fixed_ip="10.0.0.70",
        network_id="net-a", all_fixed_ips=["10.0.0.70"], all_security_group_ids=["g-db"], security_group_ids=["g-x"],
    )  # fmt: skip
    other = resource("data.opentelekomcloud_networking_port_v2.q", data=True, id="p-8", all_fixed_ips=["10.0.0.80"])
    more = resource("opentelekomcloud_networking_port_secgroup_associate_v2.x", id="p-7", port_id="p-7",
                    security_group_ids=["g-web"], force=force)  # fmt: skip
    policy = policy_of(state(*otc(), port, other, more))
    nas = policy.instance_by_name["nas"]
    assert (nas.security_groups, nas.vpc, len(policy.instances)) == (groups, "main", 5)


def with_more(*resources: Resource) -> list[Resource]:
    more = resource("openstack_networking_secgroup_v2.more", id="more", name="more", delete_default_rules=True,
                    stateful=False)  # fmt: skip
    ssh = rule("openstack_networking_secgroup_rule_v2.ssh", "more", protocol="tcp", first=22, last=22)
    network = [{"uuid": "n", "port": "p-9", "fixed_ip_v4": "10.0.0.8"}]
    server = resource("openstack_compute_instance_v2.e", id="i-9", name="e", security_groups=["g"], network=network)
    return [*openstack_ports(), more, ssh, server, *resources]


@pytest.mark.parametrize(("enforce", "groups"), [(None, ("g", "more")), (False, ("g", "more")), (True, ("more",))])
def test_groups_associated_with_a_port_are_added_or_take_the_place_of_its_own(
    enforce: bool | None, groups: tuple[str, ...]
) -> None:
    associations = [associated("p-1", ["more"], enforce), associated("p-9", ["more"], enforce, "server")]
    resources = with_more(*associations)
    resources[4]["values"]["allowed_address_pairs"] = []  # else two ports share an address, in different groups
    policy = policy_of(state(*resources))
    assert [policy.instance_by_name[name].security_groups for name in ("a", "e", "b")] == [groups, groups, ("g",)]
    for address, verdict in (("10.0.0.1", "allow"), ("10.0.0.8", "allow"), ("10.0.0.2", "deny")):
        assert Engine(policy).check("198.51.100.7", address, "tcp", dport=22).verdict == verdict


def test_an_association_that_the_plan_removes_is_gone_though_the_port_still_shows_it() -> None:
    def ports(*associations: Resource) -> list[Resource]:
        resources = with_more(*associations)
        resources[3]["values"] |= {"all_security_group_ids": ["g", "more"], "allowed_address_pairs": []}
        return resources

    before = ports(associated("p-1", ["more"]))
    assert policy_of(plan(before, before)).instance_by_name["a"].security_groups == ("g", "more")
    assert policy_of(plan(before, ports())).instance_by_name["a"].security_groups == ("g",)


def test_an_association_finds_a_port_and_a_group_without_ids() -> None:
    port, group = "openstack_networking_port_v2.p", "openstack_networking_secgroup_v2.new"
    resources = with_more(
        resource(port, id=LATER, name="p", network_id="n", all_fixed_ips=LATER, fixed_ip=[{"ip_address": "10.0.0.66"}],
                 security_group_ids=LATER, all_security_group_ids=LATER),
        resource(group, id=LATER, name="new", delete_default_rules=True),
        associated(LATER, [LATER], True), associated("p-77", ["g"], name="far"),
    )  # fmt: skip
    shown = [
        block(port), block(group),
        block("openstack_networking_port_secgroup_associate_v2.x", port_id=refs(f"{port}.id"),
              security_group_ids=refs(f"{group}.id")),
    ]  # fmt: skip
    policy = policy_of(plan([], resources, *shown))
    assert policy.instance_by_name["p"].security_groups == ("new",)
    name = "openstack_networking_port_secgroup_associate_v2.far"
    assert f"Not applied because its port is not in the file: resource {name}." in policy.warnings


def test_an_interface_that_is_attached_without_a_port_of_its_own_is_named() -> None:
    attach = "openstack_compute_interface_attach_v2"
    known = resource(f"{attach}.known", id="x", instance_id="i-1", port_id="p-1")
    new = resource(f"{attach}.new", id="y", instance_id="i-1", port_id="p-55", network_id="n", fixed_ip="10.0.0.55")
    warnings = policy_of(state(*openstack_ports(), known, new)).warnings
    assert [each for each in warnings if attach in each] == [
        f"Left out because the port that it attaches is not in the file: resource {attach}.new.",
    ]  # fmt: skip


def test_a_port_whose_network_is_not_known_is_left_out_where_there_are_vpcs() -> None:
    port = "opentelekomcloud_networking_port_v2.new"
    resources = [*otc(), resource(port, id=LATER, name="new", network_id=LATER, all_fixed_ips=["10.0.0.9"],
                                  security_group_ids=["g-db"])]  # fmt: skip
    shown = block(port, network_id=refs("local.network"), security_group_ids={"constant_value": ["g-db"]})
    warnings = policy_of(plan([], resources, shown)).warnings
    assert f"Left out because its network is known only after apply: port 'new' ({port}), {port}." in warnings


def nova_rule(protocol: str, first: int, last: int, **peer: Any) -> dict[str, Any]:
    ports = {"ip_protocol": protocol, "from_port": first, "to_port": last}
    return {"id": "x", "cidr": "", "from_group_id": "", "self": False} | ports | peer


@pytest.mark.parametrize("cloud", ["openstack", "opentelekomcloud"])
def test_groups_of_novas_api_hold_their_rules(cloud: str) -> None:
    rules = [
        nova_rule("tcp", 22, 23, cidr="192.0.2.0/24"), nova_rule("icmp", -1, -1, cidr="0.0.0.0/0"),
        nova_rule("icmp", 3, 4, cidr="::/0"), nova_rule("udp", 53, 53, self=True),
        nova_rule("tcp", 80, 80, from_group_id="g-2"),
    ]  # fmt: skip
    groups = [
        resource(f"{cloud}_compute_secgroup_v2.{name}", id=own, name=name, description="", region="r", rule=held)
        for name, own, held in (("web", "g-1", rules), ("lb", "g-2", []))
    ]
    server = resource(f"{cloud}_compute_instance_v2.web", id="i-1", name="web-1", security_groups=["web"],
                      network=[{"uuid": "n", "port": "p", "fixed_ip_v4": "10.0.0.5"}])  # fmt: skip
    balancer = resource(f"{cloud}_compute_instance_v2.lb", id="i-2", name="lb-1", security_groups=["lb"],
                        network=[{"uuid": "n", "port": "p-2", "fixed_ip_v4": "10.0.0.6"}])  # fmt: skip
    export = imported_files(("tf.json", state(*groups, server, balancer)))
    meaning = [
        ("192.0.2.1", "10.0.0.5", "tcp", 23, "rule"),
        ("192.0.2.1", "10.0.0.5", "tcp", 24, "no-rule"),
        ("203.0.113.1", "10.0.0.5", "icmp", (13, 0), "rule"),
        ("10.0.0.6", "10.0.0.5", "tcp", 80, "rule"),
        ("10.0.0.6", "10.0.0.5", "udp", 53, "no-rule"),
        ("10.0.0.5", "203.0.113.1", "tcp", 443, "rule"),  # a rule that every new group of Neutron has
    ]
    means(export, meaning)
    rules[4]["from_group_id"] = LATER
    shown = [block(each["address"]) for each in groups]
    with pytest.raises(PolicyError, match=r"'web' \(g-1\), .*, rule\[4\]: from_group_id is known only after apply"):
        policy_of(plan([], [*groups, server], *shown))


def unborn() -> dict[str, Any]:
    """A plan that creates everything."""
    group, one = "opentelekomcloud_networking_secgroup_v2", "opentelekomcloud_networking_secgroup_rule_v2"
    later = {"id": LATER, "remote_group_id": LATER, "remote_ip_prefix": LATER, "port_range_max": LATER}
    resources = [
        resource(f"{group}.web", id=LATER, name="web", delete_default_rules=True),
        resource(f"{group}.db", id=LATER, name="db", delete_default_rules=True),
        rule(f"{one}.in", LATER, protocol="tcp", first=5432, last=5432, **(later | {"port_range_max": 5432})),
        rule(f"{one}.ping", LATER, protocol="icmp",
             **later | {"port_range_min": LATER, "remote_ip_prefix": "0.0.0.0/0"}),
        rule(f"{one}.out", LATER, "egress", **later),
        resource("opentelekomcloud_networking_port_v2.db", id=LATER, name="port", network_id="n", all_fixed_ips=LATER,
                 fixed_ip=[{"ip_address": "10.0.0.6", "subnet_id": "s"}], security_group_ids=LATER),
        resource("opentelekomcloud_compute_instance_v2.db", id=LATER, name="db-1", security_groups=LATER,
                 network=[{"port": LATER, "uuid": LATER}]),
        resource("opentelekomcloud_compute_instance_v2.web", id=LATER, name="web-1", security_groups=["web"],
                 network=[{"port": LATER, "uuid": "n", "fixed_ip_v4": "10.0.0.5"}]),
        resource("opentelekomcloud_compute_instance_v2.dhcp", id=LATER, name="dhcp", security_groups=["web"],
                 network=[{"port": LATER, "uuid": "n", "fixed_ip_v4": LATER}]),
    ]  # fmt: skip
    web, database = refs(f"{group}.web.id"), refs(f"{group}.db.id")
    return plan(
        [], resources,
        block(f"{group}.web"), block(f"{group}.db"),
        block(f"{one}.in", security_group_id=database, remote_group_id=web),
        block(f"{one}.ping", security_group_id=database, remote_ip_prefix={"constant_value": "0.0.0.0/0"}),
        block(f"{one}.out", security_group_id=web),
        block("opentelekomcloud_networking_port_v2.db", security_group_ids=database),
        block("opentelekomcloud_compute_instance_v2.db",
              network=[{"port": refs("opentelekomcloud_networking_port_v2.db.id")}]),
        block("opentelekomcloud_compute_instance_v2.web", network=[{"uuid": {"constant_value": "n"}}]),
        block("opentelekomcloud_compute_instance_v2.dhcp", network=[{"uuid": {"constant_value": "n"}}]),
    )  # fmt: skip


def test_groups_and_ports_without_ids_are_found_through_references() -> None:
    export = imported_files(("tf.json", unborn()))
    policy = export.policy()
    meaning = [
        ("10.0.0.5", "10.0.0.6", "tcp", 5432, "rule"),
        ("10.0.0.9", "10.0.0.6", "tcp", 5432, "no-rule"),
        ("10.0.0.9", "10.0.0.6", "icmp", (8, 0), "no-rule"),  # the provider creates a rule for echo replies
        ("10.0.0.5", "192.0.2.1", "tcp", 1, "rule"),
        ("10.0.0.6", "192.0.2.1", "tcp", 1, "no-rule"),
    ]
    means(export, meaning)
    assert [each.name for each in policy.instances] == ["web-1", "db-1"]
    assert any("'dhcp'" in warning and "only after apply" in warning for warning in policy.warnings)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (rule("openstack_networking_secgroup_rule_v2.x", "g", "sideways"), "direction must be one of ingress, egress"),
        (rule("openstack_networking_secgroup_rule_v2.x", "g", ethertype="IPv5"), "ethertype must be one of ipv4, ipv6"),
        (rule("openstack_networking_secgroup_rule_v2.x", "g", protocol="tpc"), "protocol is unknown: 'tpc'"),
        (rule("openstack_networking_secgroup_rule_v2.x", "g", first=1, last=2), "names ports, but all protocols"),
        (rule("openstack_networking_secgroup_rule_v2.x", "g", remote_group_id="g2"), r"group 'g2' \(see tf.json"),
        (rule("openstack_networking_secgroup_rule_v2.x", "g9"), r"security group 'g9' \(see tf.json: "),
        (rule("openstack_networking_secgroup_rule_v2.x", ""), "security_group_id is missing"),
        (rule("openstack_networking_secgroup_rule_v2.x", "g", remote_zone="z"), "unknown key 'remote_zone'"),
        (resource("openstack_compute_instance_v2.x", id="i", name="i", security_groups=["nobody"],
                  network=[{"fixed_ip_v4": "10.9.0.1"}]), r"security group 'nobody' \(see tf.json: instance i"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_by_address(broken: Resource, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        policy_of(state(*openstack_ports(), broken))
    assert broken["address"] in str(caught.value) and str(caught.value).isprintable()


def test_networks_without_ids_say_nothing_where_there_are_no_vpcs() -> None:
    server = resource("openstack_compute_instance_v2.x", id=LATER, name="x", security_groups=["g"],
                      network=[{"uuid": LATER, "port": LATER, "fixed_ip_v4": "10.9.0.1"}])  # fmt: skip
    network = resource("openstack_networking_network_v2.n", id=LATER, name="n")
    shown = block("openstack_compute_instance_v2.x", network=[{"uuid": refs("openstack_networking_network_v2.n.id")}])
    policy = policy_of(plan([], [*openstack_ports(), network, server], shown))
    assert policy.instance_by_name["x"].vpc == "default"


def test_a_network_in_no_vpc_of_the_file_is_an_error_where_others_are() -> None:
    resources = otc()
    resources[13]["values"]["network"][0]["uuid"] = "net-x"
    with pytest.raises(PolicyError, match=r"_compute_instance_v2\.web: its network 'net-x' is in no VPC"):
        policy_of(state(*resources))
