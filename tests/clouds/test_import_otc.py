"""Exports of Open Telekom Cloud and Huawei Cloud: VPC API v3 and v1, ports, virtual addresses, servers."""

from __future__ import annotations

from typing import Any

import pytest
from exports import OUTSIDE, allowed, error_of, policy_of

WEB, DB = "69c999ad-0001", "69c999ad-0002"


def rule(group: str, id: str, direction: str = "ingress", **more: Any) -> dict[str, Any]:
    """A rule in the form of API v3."""
    return {
        "id": id,
        "project_id": "x",
        "security_group_id": group,
        "remote_group_id": None,
        "direction": direction,
        "protocol": None,
        "description": "",
        "ethertype": "IPv4",
        "remote_ip_prefix": None,
        "multiport": None,
        "remote_address_group_id": None,
        "action": "allow",
        "priority": 1,
        "enabled": True,
    } | more


def groups(**rules: list[dict[str, Any]]) -> dict[str, Any]:
    ids = {"web": WEB, "db": DB}
    return {
        "request_id": "r",
        "security_groups": [
            {
                "id": ids[name],
                "name": name,
                "description": "",
                "enterprise_project_id": "0",
                "security_group_rules": made,
            }
            for name, made in rules.items()
        ],
        "page_info": {"current_count": len(rules)},
    }


def port(id: str, name: str, address: str, *in_groups: str, **more: Any) -> dict[str, Any]:
    """A rule in the form of API v1."""
    return {
        "id": id,
        "name": name,
        "network_id": "subnet-1",
        "device_owner": "compute:eu-de-01",
        "device_id": f"server-of-{id}",
        "fixed_ips": [{"subnet_id": "s", "ip_address": address}],
        "security_groups": list(in_groups),
        "allowed_address_pairs": [],
    } | more


WEB_1, DB_1 = port("p1", "web-1", "10.0.0.5", WEB), port("p2", "db-1", "10.0.1.9", DB)


def test_multiport_action_and_priority() -> None:
    policy = policy_of(
        groups(
            web=[
                rule(WEB, "a", protocol="tcp", multiport="22,3389,8000-8080", priority=10),
                rule(WEB, "b", protocol="tcp", multiport=443),
                rule(
                    WEB,
                    "c",
                    protocol="tcp",
                    multiport="8001",
                    action="deny",
                    priority=5,
                    remote_ip_prefix="198.51.100.0/24",
                ),
                rule(WEB, "d", protocol="tcp", multiport="22", action="deny", priority=20),
            ]
        ),
        {"ports": [WEB_1]},
    )
    assert policy.settings.profile == "otc" and policy.settings.on_change == "cut-inbound"
    assert [allowed(policy, OUTSIDE, "10.0.0.5", "tcp", n) for n in (22, 23, 443, 3389, 8000, 8001, 8080, 8081)] == [
        True, False, True, True, True, False, True, False,
    ]  # fmt: skip
    assert allowed(policy, "192.0.2.9", "10.0.0.5", "tcp", 8001)


def test_v1_says_the_same_in_other_fields() -> None:
    def v1(**fields: Any) -> dict[str, Any]:
        made = rule(WEB, **fields)
        for key in ("multiport", "action", "priority", "enabled"):
            del made[key]
        return made

    old = groups(
        web=[
            v1(id="a", protocol="tcp", port_range_min=8000, port_range_max=8080),
            v1(id="b", protocol="icmp", port_range_min=8, port_range_max=0),
            v1(id="c", direction="egress"),
        ]
    )
    new = groups(
        web=[
            rule(WEB, "a", protocol="tcp", multiport="8000-8080"),
            rule(WEB, "b", protocol="icmp", multiport="8-0"),
            rule(WEB, "c", "egress"),
        ]
    )
    first, second = (policy_of(each, {"ports": [WEB_1]}) for each in (old, new))
    assert first.security_groups == second.security_groups


def test_address_groups_are_addresses_ranges_and_remarks() -> None:
    policy = policy_of(
        groups(web=[rule(WEB, "a", protocol="tcp", multiport="22", remote_address_group_id="ag")]),
        {
            "address_groups": [
                {
                    "id": "ag", "name": "offices", "ip_version": 4, "ip_set": ["203.0.113.4", "192.0.2.1-192.0.2.6"],
                    "ip_extra_set": [{"ip": "203.0.113.128/25", "remarks": "Bonn"}],
                }
            ]
        },
        {"ports": [WEB_1]},
    )  # fmt: skip
    sources = ("203.0.113.4", "203.0.113.5", "192.0.2.1", "192.0.2.6", "192.0.2.7", "203.0.113.200")
    assert [allowed(policy, each, "10.0.0.5", "tcp", 22) for each in sources] == [True, False, True, True, False, True]


def virtual(*bound: str) -> dict[str, Any]:
    pairs = [{"ip_address": address, "mac_address": "fa:16:3e:00:00:01"} for address in bound]
    return port(
        "v", "vip", "10.0.0.9", DB, device_owner="neutron:VIP_PORT", device_id="", allowed_address_pairs=pairs
    )


def test_a_virtual_address_bound_to_ports_of_the_same_groups_it_is_an_instance_of_theirs() -> None:
    unchecked = {"allowed_address_pairs": [{"ip_address": "1.1.1.1/0", "mac_address": ""}]}
    two = [port(f"p{n}", f"web-{n}", f"10.0.0.{n}", WEB, **unchecked) for n in (5, 6)]
    free = [rule(WEB, "a", protocol="tcp", multiport="80")]
    policy = policy_of(groups(web=free, db=[]), {"ports": [*two, virtual("10.0.0.5", "10.0.0.6")]})
    assert [(i.name, i.security_groups) for i in policy.instances][2:] == [("shared-10.0.0.9", ("web",))]
    assert allowed(policy, OUTSIDE, "10.0.0.9", "tcp", 80)
    assert any("source check is off" in warning and "web-5" in warning for warning in policy.warnings)


def test_a_virtual_address_bound_to_nothing_known() -> None:
    assert "'vip' (v): is bound to '10.0.0.77'" in error_of(
        groups(web=[], db=[]), {"ports": [virtual("10.0.0.77")]}
    )
    loose = policy_of(groups(web=[], db=[]), {"ports": [virtual()]})
    assert loose.instances == () and "'vip' (v)" in loose.warnings[0]


VPCS = {"vpcs": [{"id": "v1", "name": "one", "cidr": "10.0.0.0/16"}, {"id": "v2", "name": "two"}]}
SUBNETS = {
    "subnets": [{"id": "subnet-1", "name": "a", "vpc_id": "v1"}, {"id": "subnet-2", "name": "b", "vpc_id": "v2"}]
}
FREE = groups(web=[rule(WEB, "a", remote_group_id=WEB), rule(WEB, "b", "egress")])
PORTS = {
    "ports": [port("p1", "a", "10.0.0.5", WEB), port("p2", "b", "10.1.0.5", WEB, network_id="subnet-2")]
}


def test_subnets_say_in_which_vpc_a_port_is() -> None:
    policy = policy_of(FREE, VPCS, SUBNETS, PORTS)
    assert [(i.name, i.vpc) for i in policy.instances] == [("a", "one"), ("b", "two")]
    assert not allowed(policy, "10.0.0.5", "10.1.0.5", "tcp", 80)


@pytest.mark.parametrize(("status", "open"), [("ACTIVE", True), ("PENDING_ACCEPTANCE", False)])
def test_peerings_join_vpcs_once_they_are_active(status: str, open: bool) -> None:
    peering = {
        "id": "pc", "name": "p", "status": status, "request_vpc_info": {"vpc_id": "v1", "tenant_id": "t"},
        "accept_vpc_info": {"vpc_id": "v2", "tenant_id": "t"},
    }  # fmt: skip
    policy = policy_of(FREE, VPCS, SUBNETS, PORTS, {"peerings": [peering]})
    assert allowed(policy, "10.0.0.5", "10.1.0.5", "tcp", 80) is open


def test_a_port_that_says_so_itself_tells_of_its_subnet() -> None:
    alone = port("p1", "a", "10.0.0.5", WEB, vpc_id="v1")
    same, other = port("p2", "b", "10.0.0.6", WEB), port("p3", "c", "10.1.0.5", WEB, network_id="subnet-2")
    assert [i.vpc for i in policy_of(FREE, {"ports": [same, alone, other]}).instances] == ["v1"] * 3
    apart = {"ports": [same, alone, other | {"vpc_id": "v2"}]}
    assert [i.vpc for i in policy_of(FREE, apart).instances] == ["v1", "v1", "v2"]
    wrong = {"ports": [alone | {"vpc_id": "v2"}]}
    assert "port 'a' (p1): is in the VPC 'v2'" in error_of(FREE, SUBNETS, wrong)
    lost = {"ports": [alone, other | {"vpc_id": "v2"}, port("p4", "d", "10.2.0.5", WEB, network_id="subnet-3")]}
    assert "port 'd' (p4): there are 2 VPCs" in error_of(FREE, lost)


def test_several_vpcs_and_no_subnets_are_an_error() -> None:
    assert "port 'a' (p1): there are 2 VPCs" in error_of(FREE, VPCS, PORTS)


def test_a_subnet_that_is_not_there_is_an_error() -> None:
    lost = {"ports": [port("p1", "a", "10.0.0.5", WEB, network_id="subnet-9")]}
    assert "port 'a' (p1): is in the subnet 'subnet-9'" in error_of(FREE, VPCS, SUBNETS, lost)


def server(*ports: tuple[str, str], names: tuple[str, ...] = ("web",)) -> dict[str, Any]:
    entries = [
        {"version": "4", "addr": address, "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS:port_id": id}
        for address, id in ports
    ]
    entries.append(
        {"version": "4", "addr": "80.158.0.1", "OS-EXT-IPS:type": "floating", "OS-EXT-IPS:port_id": ports[0][1]}
    )
    return {
        "servers": [
            {"id": "s1", "name": "web-1", "addresses": {"vpc-1": entries},
             "security_groups": [{"name": name} for name in names]}
        ]
    }  # fmt: skip


def test_a_server_names_its_groups() -> None:
    policy = policy_of(
        groups(web=[rule(WEB, "a", protocol="tcp", multiport="80")]), server(("10.0.0.5", "p1"))
    )
    assert [(i.name, [str(a) for a in i.addresses]) for i in policy.instances] == [("web-1", ["10.0.0.5/32"])]
    assert allowed(policy, OUTSIDE, "10.0.0.5", "tcp", 80)


def test_a_server_of_several_ports_and_groups_needs_the_listing_of_ports() -> None:
    several = server(("10.0.0.5", "p1"), ("10.0.1.5", "p2"), names=("web", "db"))
    assert "server 'web-1' (s1): has 2 ports and 2 security groups" in error_of(groups(web=[], db=[]), several)
    one = server(("10.0.0.5", "p1"), ("10.0.1.5", "p2"))
    assert [i.name for i in policy_of(groups(web=[]), one).instances] == ["web-1-10.0.0.5", "web-1-10.0.1.5"]


def test_a_server_of_a_group_that_is_not_there_is_an_error() -> None:
    assert "server 'web-1' (s1)" in error_of(groups(db=[]), server(("10.0.0.5", "p1")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"multiport": "22,,80", "protocol": "tcp"}, "multiport '22,,80': '' is neither a port nor a range"),
        ({"multiport": "http", "protocol": "tcp"}, "'http' is neither"),
        ({"multiport": "22"}, "names ports, but all protocols has none"),
        ({"multiport": "22", "protocol": "tcp", "port_range_min": 22}, "has both multiport and port_range_min"),
        ({"multiport": True, "protocol": "tcp"}, "multiport must be a whole number, not true"),
        ({"multiport": [22], "protocol": "tcp"}, "multiport must be a string"),
        ({"multiport": "80-22", "protocol": "tcp"}, "80-22 is not a range of ports"),
        ({"multiport": "1,2", "protocol": "icmp"}, "for ICMP it must be a type"),
        ({"action": "reject"}, "action 'reject': must be one of allow, deny"),
        ({"priority": 0}, "priority: must be a whole number from 1 to 100, not 0"),
        ({"priority": 101}, "priority: must be a whole number from 1 to 100, not 101"),
        ({"priority": "high"}, "priority must be a whole number"),
        ({"schedule": "nights"}, "unknown key 'schedule'"),
    ],
)  # fmt: skip
def test_what_a_rule_cannot_be_is_said_of_the_rule(change: dict[str, Any], said: str) -> None:
    message = error_of(groups(web=[rule(WEB, "rule-x", **change)]))
    assert message.startswith(f"a.json: security group 'web' ({WEB}), rule rule-x: ") and said in message
