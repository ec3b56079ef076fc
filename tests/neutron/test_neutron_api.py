"""A live import from Neutron's own API server, beside what OpenStack's command line prints of it (SPEC 10.17)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command import sgfast
from exports import imported_files, reasons_of
from neutron_environment import neutron_python
from running_neutron import command, environment, running_neutron

from sgfast import Engine
from sgfast.clouds.importing.reading import Imported, import_sources
from sgfast.clouds.loading import load_policy
from sgfast.clouds.openstack.live import read_neutron

if neutron_python() is None:
    pytest.skip("no Neutron here: python tests/neutron/neutron_environment.py", allow_module_level=True)
openstack = pytest.importorskip("openstack")

#: Warnings of openstacksdk about itself.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
#: Runs commands of OpenStack's client, all in one process, each into a file.
CLIENT = """
import contextlib, json, sys
from openstackclient import shell
for name, command in json.load(sys.stdin):
    with open(name, "w") as out, contextlib.redirect_stdout(out):
        if status := shell.main([*command, "-f", "json"]):
            sys.exit(status)
"""
#: Fields that are read from the cloud and from its printed lists alike.
PARTS = ("address_groups", "security_groups", "instances")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a Neutron with a shop in it; its clouds.yaml leads to it, its neutron.log says what went wrong."""
    folder = tmp_path_factory.mktemp("neutron")
    with running_neutron(folder):
        make_shop(openstack.connect(cloud="neutron").network)
        yield folder


def make_shop(network: Any) -> None:
    mine = {"project_id": "shop"}
    admins = network.create_address_group(name="admins", addresses=["203.0.113.0/28", "2001:db8:ad::/64"], **mine)
    web, db = (network.create_security_group(name=name, description=f"of {name}", **mine) for name in ("web", "db"))
    plain = network.create_security_group(name="plain", stateful=False, **mine)

    def rule(group: Any, direction: str = "ingress", ethertype: str = "IPv4", **more: Any) -> None:
        network.create_security_group_rule(
            security_group_id=group.id, direction=direction, ether_type=ethertype, **mine, **more
        )

    for group in (web, plain):
        with suppress(openstack.exceptions.ConflictException):  # a cloud may give it to new groups
            rule(group, "egress")
    rule(web, protocol="tcp", port_range_min=80, port_range_max=81, remote_ip_prefix="0.0.0.0/0")
    rule(web, ethertype="IPv6", protocol="tcp", port_range_min=443, port_range_max=443)
    rule(web, protocol="icmp", port_range_min=8, port_range_max=0, description="echo")
    rule(web, protocol="icmp", port_range_min=0, description="type 0, any code")
    rule(web, ethertype="IPv6", protocol="ipv6-icmp", port_range_min=128)
    for ethertype in ("IPv4", "IPv6"):
        rule(web, ethertype=ethertype, protocol="tcp", port_range_min=22, port_range_max=22,
             remote_address_group_id=admins.id)  # fmt: skip
    rule(db, protocol="tcp", port_range_min=5432, port_range_max=5432, remote_group_id=web.id)
    rule(db, protocol="udp", port_range_min=1000, port_range_max=2000, remote_ip_prefix="10.0.0.0/24")
    rule(db, protocol="47", remote_group_id=db.id)
    rule(db, protocol="vrrp")
    rule(db, "egress", protocol="udp", port_range_min=53, port_range_max=53, remote_ip_prefix="198.51.100.53/32")
    rule(plain, protocol="tcp", port_range_min=80, port_range_max=80)

    networks = {}
    for name, cidr in (("front", "10.0.0.0/24"), ("back", "10.0.1.0/24"), ("apart", "10.0.2.0/24")):
        networks[name] = network.create_network(name=name, **mine)
        network.create_subnet(network_id=networks[name].id, ip_version=4, cidr=cidr, enable_dhcp=False, **mine)
    network.create_subnet(
        network_id=networks["front"].id, ip_version=6, cidr="2001:db8::/64", gateway_ip=None, enable_dhcp=False, **mine
    )
    router = network.create_router(name="between", **mine)
    for subnet in [*network.subnets()]:
        if subnet.ip_version == 4 and subnet.network_id != networks["apart"].id:
            # The name of this argument differs between the versions of openstacksdk.
            network.put(f"/routers/{router.id}/add_router_interface", json={"subnet_id": subnet.id})

    def port(name: str, where: str, *addresses: str, groups: tuple[Any, ...] = (), **more: Any) -> None:
        network.create_port(
            name=name, network_id=networks[where].id, fixed_ips=[{"ip_address": address} for address in addresses],
            security_group_ids=[group.id for group in groups], device_owner="compute:nova", **mine, **more,
        )  # fmt: skip

    shared = {"allowed_address_pairs": [{"ip_address": "10.0.0.100"}]}
    port("web-1", "front", "10.0.0.5", "2001:db8::5", groups=(web,), **shared)
    port("web-2", "front", "10.0.0.6", "2001:db8::6", groups=(web,), **shared)
    port("db-1", "back", "10.0.1.9", groups=(db,), allowed_address_pairs=[{"ip_address": "10.0.9.0/24"}])
    port("db-2", "back", "10.0.1.10", groups=(db,))
    port("plain-1", "front", "10.0.0.7", groups=(plain,))
    port("lone", "apart", "10.0.2.5", groups=(web,))
    port("closed", "front", "10.0.0.8")
    port("open", "front", "10.0.0.9", port_security_enabled=False)


def printed(folder: Path, *commands: str) -> list[tuple[str, Any]]:
    """The output of ``openstack … -f json``, as files."""
    files = [(f"{command.replace(' ', '-')}.json", command.split()) for command in commands]
    subprocess.run(
        [*command(), "-c", CLIENT], env=environment(), cwd=folder, check=True, text=True, timeout=300,
        input=json.dumps([(name, ["--os-cloud", "neutron", *words]) for name, words in files]),
    )  # fmt: skip
    return [(name, json.loads((folder / name).read_text())) for name, _ in files]


def parts(export: Imported) -> dict[str, Any]:
    document = export.draft.document()
    for instance in document["instances"]:
        instance.pop("vpc", None)  # the command line prints no routers
    return {part: sorted(document[part], key=lambda each: each["name"]) for part in PARTS}


def test_a_live_neutron_means_what_its_ports_routers_and_groups_say(
    cloud: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "policy.yaml"
    done = sgfast(capsys, "import", "openstack", "--live", "--os-cloud", "neutron", "-o", out)
    assert done.status == 0 and done.out == ""
    policy = load_policy(out)
    print(out.read_text())
    assert {each.name for each in policy.instances} == {
        "web-1", "web-2", "db-1", "db-2", "plain-1", "lone", "closed", "shared-10.0.0.100"
    }  # fmt: skip
    meaning = [
        ("192.0.2.7", "10.0.0.5", "tcp", 80, "rule"),
        ("192.0.2.7", "10.0.0.5", "tcp", 82, "no-rule"),
        ("2001:db8:1::7", "2001:db8::5", "tcp", 443, "rule"),
        ("192.0.2.7", "10.0.0.5", "tcp", 443, "no-rule"),
        ("203.0.113.9", "10.0.0.6", "tcp", 22, "rule"),
        ("203.0.113.16", "10.0.0.6", "tcp", 22, "no-rule"),
        ("2001:db8:ad::1", "2001:db8::6", "tcp", 22, "rule"),
        ("192.0.2.7", "10.0.0.5", "icmp", (8, 0), "rule"),
        ("192.0.2.7", "10.0.0.5", "icmp", (8, 1), "no-rule"),
        ("192.0.2.7", "10.0.0.5", "icmp", (13, 0), "no-rule"),
        ("10.0.0.5", "10.0.1.9", "tcp", 5432, "rule"),
        ("10.0.0.100", "10.0.1.9", "tcp", 5432, "rule"),
        ("10.0.0.5", "10.0.9.7", "tcp", 5432, "rule"),
        ("10.0.0.7", "10.0.1.9", "tcp", 5432, "no-rule"),
        ("10.0.0.7", "10.0.1.9", "udp", 1000, "rule"),
        ("10.0.0.7", "10.0.1.9", "udp", 2001, "no-rule"),
        ("192.0.2.7", "10.0.1.9", "vrrp", 0, "rule"),
        ("192.0.2.7", "10.0.1.9", "gre", 0, "no-rule"),
        ("10.0.1.9", "198.51.100.53", "udp", 53, "rule"),
        ("10.0.1.9", "198.51.100.53", "tcp", 53, "no-rule"),
        ("192.0.2.7", "10.0.0.7", "tcp", 80, "rule"),
        ("192.0.2.7", "10.0.0.8", "tcp", 80, "no-rule"),
        ("10.0.2.5", "10.0.0.5", "tcp", 80, "vpc-isolated"),
        ("192.0.2.7", "10.0.2.5", "tcp", 80, "rule"),
    ]
    assert reasons_of(Engine(policy), meaning) == [reason for *_, reason in meaning]


def test_a_live_neutron_is_what_its_command_line_prints(cloud: Path) -> None:
    told: list[tuple[str, int]] = []
    account = read_neutron("neutron", lambda *progress: told.append(progress))
    assert ("ports of the cloud 'neutron'", 3) in told and ("ports of the cloud 'neutron'", 6) in told, "in pages"
    everything: dict[str, Any] = {}
    for source in account.sources:
        assert isinstance(source.value, dict)
        everything |= source.value
    shown = printed(
        cloud, "address group list", "network list",
        *(f"security group show {each['id']}" for each in everything["security_groups"]),
        *(f"port show {each['id']}" for each in everything["ports"]),
    )  # fmt: skip
    live = parts(import_sources(account.sources, "neutron"))
    assert live == parts(imported_files(*shown, form="neutron"))

    # The command that lists rules prints no descriptions. It prints no ICMP type 0 and no code 0 either.
    lists = "address group list", "security group list", "security group rule list --long", "port list --long"
    listed = parts(imported_files(*printed(cloud, *lists), form="neutron"))
    assert listed_rules(live) == listed_rules(listed)


def listed_rules(found: dict[str, Any]) -> dict[str, Any]:
    """The fields of each rule in a list of rules, by group and id."""
    return {
        group["name"]: {
            rule["id"]: {key: value for key, value in rule.items() if key != "description" and value != 0}
            for rule in group["rules"]
        }
        for group in found["security_groups"]
    }
