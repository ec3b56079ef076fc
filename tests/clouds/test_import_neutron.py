"""OpenStack exports mean what Neutron would do: API documents, and the output of the openstack command."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exports import OUTSIDE, allowed, error_of, policy_of, same_meaning
from neutron import DB, DB_1, WEB, WEB_1, group, groups, pair, port, ports, rule, tcp

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.reading import load
from sgfast.clouds.loading import load_policy

ROOT = Path(__file__).parents[2]
SAMPLES = Path(os.environ.get("SGFAST_CORPUS") or ROOT / ".." / "shared" / "corpus").resolve() / "rules" / "neutron-lib"
@pytest.mark.parametrize(("word", "number"), [("ipip", 4), ("ipv6-encap", 41), ("hopopt", 0), ("ip", 0), ("vrrp", 112)])
def test_protocols_have_neutron_s_names_not_iana_s(word: str, number: int) -> None:
    """SPEC 10.17"""
    policy = policy_of(groups(group(WEB, "web", rule(WEB, protocol=word))), ports(WEB_1))
    (made,) = policy.security_groups[0].rules
    assert made.protocol == number


def test_ports_nothing_filters_are_no_instances_and_are_told_of() -> None:
    policy = policy_of(
        groups(group(WEB, "web")),
        ports(
            port("p1", "web-1", "10.0.0.5"),
            port("p2", "free", "10.0.0.6", groups=(), port_security_enabled=False),
            port("p3", "", "10.0.0.1", groups=(), device_owner="network:router_interface"),
            port("p4", "bare"),
        ),
    )
    assert [instance.name for instance in policy.instances] == ["web-1"]
    text = " ".join(policy.warnings)
    assert "'free' (p2)" in text and "port p3" in text and "'bare' (p4)" in text


def test_names_that_clash_or_are_not_allowed_become_ids() -> None:
    policy = policy_of(
        groups(
            group("g-1", "default", rule("g-1", remote_group_id="g-2")),
            group("g-2", "default", description="Old <b>"),
            group("g-3", "für alle\n"),
            group("g-4", "g-3"),
            group("g-5", "fine"),
        ),
        ports(port("p-1", "same", "10.0.0.5", groups=("g-1",)), port("p-2", "same", "10.0.0.6", groups=("g-2",))),
    )
    assert [made.name for made in policy.security_groups] == ["g-1", "g-2", "g-3", "g-4", "fine"]
    assert [(made.label, made.description) for made in policy.security_groups][:4] == [
        ("default", ""), ("default", r"Old \x3cb\x3e"), (r"für alle\n", ""), ("g-3", ""),
    ]  # fmt: skip
    assert [(made.label, made.id) for made in policy.instances] == [("same", ""), ("same", "")]
    assert [instance.name for instance in policy.instances] == ["p-1", "p-2"]


def test_quotas_follow_what_is_imported() -> None:
    many = [group(f"g-{n}", f"name-{n}") for n in range(150)]
    many.append(group("big", "big", *(rule("big", **tcp(n + 1)) for n in range(177))))
    policy = policy_of(groups(*many))
    assert (policy.quotas.security_groups, policy.quotas.rules_per_group) == (151, 177)


def test_an_address_that_ports_of_the_same_groups_share_is_an_instance() -> None:
    sharing = [port(f"p{n}", f"web-{n}", f"10.0.0.{n}", **pair("10.0.0.9", "2001:db8::9")) for n in (5, 6)]
    policy = policy_of(groups(group(WEB, "web", rule(WEB, **tcp(80)))), ports(*sharing))
    assert [i.name for i in policy.instances] == ["web-5", "web-6", "shared-10.0.0.9", "shared-2001-db8--9"]
    assert allowed(policy, OUTSIDE, "10.0.0.9", "tcp", 80) and not allowed(policy, OUTSIDE, "10.0.0.9", "tcp", 81)


def test_ports_of_different_groups_that_share_an_address_are_named() -> None:
    message = error_of(
        groups(group(WEB, "web"), group(DB, "db")),
        ports(
            port("p1", "a", "10.0.0.5", **pair("10.0.0.9")),
            port("p2", "b", "10.0.0.6", groups=(DB,), **pair("10.0.0.9")),
        ),
    )
    assert message.startswith("b.json: port 'b' (p2): shares 10.0.0.9")
    assert "'a' (p1) in 'web'" in message and "'b' (p2) in 'db'" in message


def test_a_pair_that_is_another_ports_own_stays_there() -> None:
    policy = policy_of(
        groups(group(WEB, "web")),
        ports(port("p1", "vip", "10.0.0.9"), port("p2", "b", "10.0.0.6", **pair("10.0.0.9"))),
    )
    assert {i.name: [str(a) for a in i.addresses] for i in policy.instances} == {
        "vip": ["10.0.0.9/32"],
        "b": ["10.0.0.6/32"],
    }


def test_a_pair_of_every_address_is_an_error() -> None:
    message = error_of(groups(group(WEB, "web")), ports(port("p1", "nat", "10.0.0.5", **pair("0.0.0.0/0"))))
    assert "port 'nat' (p1)" in message and "0.0.0.0/0" in message


def routed(*more: dict[str, Any]) -> list[Any]:
    interfaces = [
        port(
            f"r{n}",
            "",
            f"10.0.{n}.1",
            groups=(),
            network_id=f"net-{n}",
            device_owner="network:router_interface",
            device_id=r,
        )
        for n, r in ((1, "ra"), (2, "ra"), (3, "rb"))
    ]
    free = rule(WEB), rule(WEB, "egress")
    hosts = [port(f"p{n}", f"host-{n}", f"10.0.{n}.5", network_id=f"net-{n}") for n in (1, 2, 3, 4)]
    return [groups(group(WEB, "web", *free)), ports(*interfaces, *hosts, *more)]


def test_without_routers_all_are_one_vpc() -> None:
    policy = policy_of(*routed())
    assert len(policy.vpcs) == 1 and allowed(policy, "10.0.1.5", "10.0.3.5", "tcp", 80)


def test_routers_join_networks() -> None:
    routers = {"routers": [{"id": "ra", "name": "a"}, {"id": "rb", "name": "b"}]}
    policy = policy_of(*routed(port("p9", "twin", "10.0.1.5", network_id="net-4")), routers)
    assert len(policy.vpcs) == 3
    vpcs = {instance.name: instance.vpc for instance in policy.instances}
    assert vpcs["host-1"] == vpcs["host-2"] != vpcs["host-3"] != vpcs["host-4"] == vpcs["twin"]


def test_stateless_groups_stay_stateless() -> None:
    policy = policy_of(groups(group(WEB, "web", stateful=False)), ports(WEB_1))
    assert not policy.security_groups[0].stateful
    mixed = error_of(
        groups(group(WEB, "web", stateful=False), group(DB, "db")), ports(port("p", "n", "10.0.0.1", groups=(WEB, DB)))
    )
    assert "b.json: port 'n' (p)" in mixed and "stateless" in mixed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"direction": "sideways"}, "direction 'sideways': must be one of ingress, egress"),
        ({"direction": None}, "direction '': must be one of"),
        ({"ethertype": "IPX"}, "ethertype 'IPX'"),
        ({"protocol": "tpc"}, "unknown protocol 'tpc'"),
        ({"protocol": 256}, "unknown protocol"),
        ({"protocol": []}, "protocol must be a string, not a list"),
        ({"port_range_min": 80, "port_range_max": 80}, "names ports, but all protocols has none"),
        (tcp(80, 70), "80-70 is not a range of ports"),
        (tcp(80, 10**400), "is not a range of ports"),
        ({"protocol": "icmp", "port_range_max": 3}, "has an ICMP code without a type"),
        ({"protocol": "icmp", "port_range_min": 256}, "must be a whole number from 0 to 255"),
        ({"protocol": "icmpv6"}, "icmpv6 in an IPv4 rule"),
        ({"remote_ip_prefix": "2001:db8::/32"}, "is an IPv4 rule, but 2001:db8::/32 is IPv6"),
        ({"remote_ip_prefix": "10.0.0.0/33"}, "'10.0.0.0/33': the prefix length"),
        ({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": WEB}, "names more than one of"),
        ({"remote_zone": "dmz"}, "unknown key 'remote_zone'"),
        ({"action": "deny"}, "unknown key 'action'"),
        ({"security_group_id": DB}, "belongs to another group, 'sg-db'"),
    ],
)
def test_what_a_rule_cannot_be_is_said_of_the_rule(change: dict[str, Any], said: str) -> None:
    message = error_of(groups(group(WEB, "web", rule(WEB, id="rule-x", **change))), form="neutron")
    assert message.startswith("a.json: security group 'web' (sg-web), rule rule-x: ") and said in message


def test_one_object_in_two_files_is_one_unless_they_differ() -> None:
    first = rule(WEB, id="r1", **tcp(80))
    policy = policy_of(groups(group(WEB, "web", first)), {"security_group_rules": [first]}, ports(WEB_1), ports(WEB_1))
    assert [made.id for made in policy.security_groups[0].rules] == ["r1"] and len(policy.instances) == 1
    other = {"security_group_rules": [first | {"port_range_max": 90}]}
    assert "rule r1: differs from its entry in a.json" in error_of(groups(group(WEB, "web", first)), other)
    moved = ports(WEB_1 | {"security_groups": []})
    assert "port 'web-1' (p1): differs from its entry" in error_of(groups(group(WEB, "web")), ports(WEB_1), moved)


def test_default_rules_are_no_policy() -> None:
    assert "export the security groups" in error_of({"default_security_group_rules": [rule(WEB)]})


def test_servers_give_ports_without_a_name_theirs() -> None:
    servers = {"servers": [{"id": "s1", "name": "web-1", "addresses": {"net": [{"addr": "10.0.0.5"}]}}]}
    policy = policy_of(groups(group(WEB, "web")), ports(port("p1", "", "10.0.0.5", device_id="s1")), servers)
    assert policy.instances[0].name == "web-1"
    lost = {"servers": [{"id": "s2", "name": "lost", "addresses": {"net": [{"addr": "10.0.0.77"}]}}]}
    assert "server 'lost' (s2): has the address '10.0.0.77'" in error_of(groups(group(WEB, "web")), ports(WEB_1), lost)


# The output of ``openstack … -f json``.


CLI_GROUPS = [
    {"ID": WEB, "Name": "web", "Description": "Web", "Project": "x", "Tags": []},
    {"ID": DB, "Name": "db", "Description": "", "Project": "x", "Tags": []},
]
CLI_PORTS = [
    {"ID": "p1", "Name": "web-1", "MAC Address": "fa:16:3e:00:00:01", "Status": "ACTIVE", "Security Groups": [WEB],
     "Fixed IP Addresses": [{"subnet_id": "s", "ip_address": "10.0.0.5"}], "Device Owner": "compute:nova", "Tags": []},
    {"ID": "p2", "Name": "db-1", "MAC Address": "fa:16:3e:00:00:02", "Status": "ACTIVE", "Security Groups": DB,
     "Fixed IP Addresses": "ip_address='10.0.1.9', subnet_id='s'", "Device Owner": "compute:nova", "Tags": ""},
]  # fmt: skip


def row(id: str, group: str, protocol: str | None, ports: str, **more: Any) -> dict[str, Any]:
    return {
        "ID": id,
        "IP Protocol": protocol,
        "Ethertype": "IPv4",
        "IP Range": "0.0.0.0/0",
        "Port Range": ports,
        "Direction": "ingress",
        "Remote Security Group": None,
        "Remote Address Group": None,
        "Security Group": group,
    } | more


def test_another_address_beside_a_remote_group_is_an_error() -> None:
    rules = [row("r2", DB, "tcp", "1:2", **{"Remote Security Group": WEB, "IP Range": "10.0.0.0/8"})]
    assert "rule r2: names more than one of" in error_of(rules, CLI_GROUPS)


def test_icmp_types_and_codes() -> None:
    rows = [
        row("r1", WEB, "icmp", "type=8"),
        row("r2", WEB, "icmp", "type=3:code=4"),
        row("r3", WEB, "icmp", ":code=4"),
    ]
    policy = policy_of(rows, CLI_GROUPS)
    assert [(r.icmp_type, r.icmp_code) for r in policy.security_groups[0].rules] == [(8, None), (3, 4), (0, 4)]
    assert "type 0" in policy.warnings[0]


def test_older_versions_of_openstack_print_less() -> None:
    listed = row("r1", WEB, "tcp", "80:80")
    without = {key: value for key, value in listed.items() if key != "Direction"}
    assert "r1: this list has no Direction column: print it with --long" in error_of([without])
    del listed["Ethertype"]
    assert policy_of([listed]).security_groups[0].rules[0].ethertype == 4
    assert "print it with --long" in error_of([listed | {"IP Range": None}])
    del listed["Security Group"]
    assert "print it without naming a group" in error_of([listed])
    short = [{key: value for key, value in CLI_PORTS[0].items() if key != "Security Groups"}]
    assert "port p1: this list has no Security Groups" in error_of(short)


def test_a_port_range_that_is_none_is_an_error() -> None:
    assert "Port Range '80-90' is neither" in error_of([row("r1", WEB, "tcp", "80-90")])


def test_openstack_show_prints_one_object() -> None:
    shown = {
        "id": WEB,
        "name": "web",
        "description": "",
        "stateful": True,
        "tags": [],
        "rules": [rule(WEB, ether_type="IPv4", ethertype=None, **tcp(80))],
    }
    old = {
        "id": DB,
        "name": "db",
        "rules": "direction='ingress', ethertype='IPv4', id='r9', port_range_max='22', "
        "port_range_min='22', protocol='tcp', remote_ip_prefix='0.0.0.0/0'\n"
        "direction='egress', ethertype='IPv6', id='r10'",
    }
    port_shown = {
        "id": "p1",
        "name": "web-1",
        "fixed_ips": "ip_address='10.0.0.5', subnet_id='s'",
        "allowed_address_pairs": "",
        "security_group_ids": f"{WEB}, {DB}",
        "port_security_enabled": True,
        "network_id": "n",
    }
    policy = policy_of(shown, old, port_shown)
    assert allowed(policy, OUTSIDE, "10.0.0.5", "tcp", 80) and allowed(policy, OUTSIDE, "10.0.0.5", "tcp", 22)
    assert not allowed(policy, OUTSIDE, "10.0.0.5", "tcp", 23)


def test_the_api_and_the_command_say_the_same() -> None:
    rows = [
        row("r1", WEB, "tcp", "22:8001"),
        row("r2", DB, "udp", "53:53", **{"Remote Security Group": WEB}),
        row("r3", WEB, None, "", Direction="egress", Ethertype="IPv6", **{"IP Range": "::/0"}),
        row("r4", WEB, None, "", Direction="egress"),
        row("r5", DB, "icmp", "type=8"),
    ]
    api = groups(
        group(
            WEB,
            "web",
            rule(WEB, id="r1", **tcp(22, 8001)),
            rule(WEB, "egress", "IPv6", id="r3"),
            rule(WEB, "egress", id="r4"),
        ),
        group(
            DB,
            "db",
            rule(DB, id="r2", protocol="udp", port_range_min=53, port_range_max=53, remote_group_id=WEB),
            rule(DB, id="r5", protocol="icmp", port_range_min=8),
        ),
    )
    same_meaning(policy_of(rows, CLI_GROUPS, CLI_PORTS), policy_of(api, ports(WEB_1, DB_1)))


def test_the_example_export_is_the_shop() -> None:
    exported, written = load_policy(ROOT / "pcaps" / "export"), load_policy(ROOT / "pcaps" / "shop.yaml")
    assert [replace(instance, id="", device="") for instance in exported.instances] == list(written.instances)
    same_meaning(exported, written)


@pytest.mark.skipif(not SAMPLES.exists(), reason="no corpus here (set SGFAST_CORPUS)")
def test_the_samples_of_the_api_reference() -> None:
    """All samples of lists and objects are read; requests and contradictory samples are listed by name and rejected."""
    read, refused = {}, {}
    for path in sorted(SAMPLES.rglob("*.json")):
        try:
            read[path.stem] = load([path], "neutron").policy()
        except PolicyError as error:
            refused[path.stem] = str(error)
    print(json.dumps(refused, indent=1))
    listed = read["security-groups-list-response"]
    assert [(g.name, len(g.rules)) for g in listed.security_groups] == [("default", 4)]
    assert [str(a) for a in read["address-group-add-addresses-response"].address_groups[0].addresses] == [
        "10.0.1.34/32",
        "10.0.2.100/32",
        "192.168.100.0/24",
    ]
    for name in ("security-group-show-response", "security-group-rules-list-response"):
        (made,) = read[name].security_groups
        assert [r.id for r in made.rules] == [r.id for r in listed.security_groups[0].rules]
    assert read["security-group-create-response"].security_groups[0].name == "new-webservers"
    for name in ("security-group-rule-create-response", "security-group-rule-bulk-create-response"):
        assert "security group '85cc3048" in refused[name]
    assert all(word not in read for word in refused)
    assert [name for name in refused if "response" in name and "default" not in name] == [
        "security-group-rule-bulk-create-response",
        "security-group-rule-create-response",
    ]
