"""A policy that is exported to OpenStack and run there comes back as the same policy (SPEC 13.2 to 13.4, 13.6)."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from effort import some
from exported import (
    BLOCKS,
    assert_kept_policies_only_add,
    assert_policies_and_their_changes_come_back,
    assert_same,
    run,
    seeds,
)
from neutron_environment import neutron_python
from provider_commands import executed, provider_command
from running_neutron import command, environment, running_neutron

from sgfast.clouds.importing.reading import import_sources
from sgfast.clouds.loading import parse_policy
from sgfast.clouds.openstack import export as exporting
from sgfast.clouds.openstack.live import read_neutron
from sgfast.policy.model import Policy

if neutron_python() is None:
    pytest.skip("no Neutron here: python tests/neutron/neutron_environment.py", allow_module_level=True)
pytest.importorskip("openstack")
requests = pytest.importorskip("requests")

#: openstacksdk warns of its own code.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


class Cloud:
    """A project of Neutron, with one network."""

    def __init__(self, port: str, folder: Path, environment: dict[str, str]) -> None:
        self.url, self.environment = f"http://127.0.0.1:{port}", environment
        made = self.call({"method": "POST", "path": "/v2.0/networks", "body": {"network": {"name": "v"}}})
        self._network = made["network"]["id"]
        subnets = [
            {"network_id": self._network, "ip_version": version, "cidr": cidr, "gateway_ip": None, "enable_dhcp": False}
            for version, cidr in BLOCKS.items()
        ]
        self.call({"method": "POST", "path": "/v2.0/subnets", "body": {"subnets": subnets}})
        self._database, self._beginning = folder / "neutron.sqlite", folder / "beginning.sqlite"
        _copy(self._database, self._beginning)

    def call(self, request: dict[str, Any]) -> Any:
        path = self.url + request["path"]
        answer = requests.request(request["method"], path, json=request.get("body"), timeout=60)
        assert answer.ok, (request, answer.text)
        return answer.json() if answer.content else None

    def empty(self) -> None:
        """Have only the network again. Deleting the rest with calls would take as long as the export's own calls."""
        _copy(self._beginning, self._database)

    def place(self, policy: Policy) -> None:
        """Make the policy's ports."""
        ports = [
            {
                "name": instance.name, "network_id": self._network, "device_owner": "compute:nova",
                "fixed_ips": [{"ip_address": str(address.network_address)} for address in instance.addresses],
            }
            for instance in policy.instances
        ]  # fmt: skip
        self.call({"method": "POST", "path": "/v2.0/ports", "body": {"ports": ports}})

    def live(self) -> Policy:
        return import_sources(read_neutron("neutron", lambda *_: None).sources, "neutron").policy()


def _copy(source: Path, target: Path) -> None:
    """Copy a database that the server may have open."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("neutron")
    with running_neutron(folder, "shop") as port:
        more = {"OS_CLIENT_CONFIG_FILE": str(folder / "clouds.yaml"), "OS_CLOUD": "neutron"}
        yield Cloud(port, folder, environment() | more)


@pytest.fixture
def cloud(project: Cloud) -> Cloud:
    project.empty()
    return project


def apply(cloud: Cloud, old: Policy | None, new: Policy) -> Policy:
    """Make the calls that lead to ``new``; what is there then."""
    run(exporting.export(old, new, "json").document("0"), {}, cloud.call)
    return cloud.live()


def test_random_policies_and_their_changes_come_back_from_the_calls(project: Cloud) -> None:
    def changed(old: Policy | None, new: Policy) -> Policy:
        if old is None:
            project.empty()
            project.place(new)
        return apply(project, old, new)

    assert_policies_and_their_changes_come_back(
        seeds(some(6, 200), 2131), exporting.OPENSTACK, changed,
        lambda old, new: exporting.export(old, new, "json").calls, (47, 132),
    )  # fmt: skip


def test_kept_policy_only_adds_to_the_project(project: Cloud, tmp_path: Path) -> None:
    def changed(old: Policy | None, new: Policy) -> Policy:
        if old is None:
            project.empty()
            project.place(new)
        return apply(project, old, new)

    assert_kept_policies_only_add(seeds(some(4, 100), 2132), exporting.OPENSTACK, tmp_path, changed)


SHOP = """
version: 1
settings: {profile: neutron}
address_groups: [{name: offices, addresses: [192.0.2.0/24, "2001:db8:2::/48"]}]
security_groups:
  - name: web
    description: --The "shop's" $(web) servers
    rules:
      - {direction: inbound, protocol: tcp, ports: "80,443", source: offices, description: "it's `here` ${group_web}"}
      - {direction: outbound, protocol: all}
  - name: -db
    rules:
      - {direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0, source: web}
      - {direction: inbound, ethertype: IPv6, protocol: icmp, icmp_type: 128}
instances:
  - {name: web-1, addresses: [10.1.0.16], security_groups: [web]}
  - {name: db-1, addresses: [10.1.0.17], security_groups: [-db, web]}
"""


@pytest.fixture(scope="module")
def shell(project: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a shell that has ``openstack``."""
    with provider_command("openstack", tmp_path_factory.mktemp("cli"), command(), project.environment) as path:
        yield project.environment | {"PATH": path}


def test_the_script_does_what_the_calls_do_and_changes_may_be_made_again(
    cloud: Cloud, shell: dict[str, str], tmp_path: Path
) -> None:
    first = parse_policy(SHOP)
    cloud.place(first)
    script = exporting.export(None, first, "script").script("0", exporting.FUNCTIONS)
    done = executed(script, tmp_path, shell)
    assert (done.returncode, done.stderr) == (0, ""), done
    back = cloud.live()
    assert_same(first, back, exporting.OPENSTACK)
    assert {rule.description for rule in back.group_by_name["web"].rules} == {"", "it's `here` $ {group_web}"}
    assert back.group_by_name["web"].description == first.group_by_name["web"].description

    text = SHOP.replace("icmp_code: 0, source: web", "source: web").replace("[-db, web]", "[-db]")
    second = parse_policy(text.replace('"80,443"', '"80,8080"').replace("192.0.2.0/24", "192.0.3.0/24"))
    script = exporting.export(back, second, "script").script("0", exporting.FUNCTIONS)
    for _ in range(some(1, 2)):
        done = executed(script, tmp_path, shell)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert_same(second, cloud.live(), exporting.OPENSTACK)


def test_what_an_interrupted_run_has_made_is_found_and_used_and_nothing_else_is(
    project: Cloud, shell: dict[str, str], tmp_path: Path
) -> None:
    def ran(old: Policy | None, new: Policy) -> subprocess.CompletedProcess[str]:
        script = exporting.export(old, new, "script").script("0", exporting.FUNCTIONS)
        return executed(script, tmp_path, shell)

    none = parse_policy("version: 1")
    rules = "{direction: inbound, protocol: tcp, source: -x}, {direction: inbound, protocol: udp}"
    one = parse_policy(f"version: 1\nsecurity_groups: [{{name: -x, rules: [{rules}]}}]")
    done = ran(None, one)
    assert (done.returncode, done.stderr) == (0, ""), done
    first, _ = project.live().group_by_name["-x"].rules
    project.call({"method": "DELETE", "path": f"/v2.0/security-group-rules/{first.id}"})
    done = ran(None, one)
    assert (done.returncode, done.stderr) == (0, ""), done
    made = project.live().group_by_name["-x"]
    there, wanted = ({rule.without_words() for rule in group.rules} for group in (made, one.group_by_name["-x"]))
    assert there == wanted
    body = {"security_group_rule": {"security_group_id": made.id, "direction": "ingress", "protocol": "icmp"}}
    project.call({"method": "POST", "path": "/v2.0/security-group-rules", "body": body})
    done = ran(None, one)
    assert done.returncode == 1 and "was there already, and has other rules, too; delete these" in done.stderr
    # Objects to delete are found by their names.
    done = ran(one, none)
    assert (done.returncode, done.stderr) == (0, "") and "-x" not in project.live().group_by_name
    for address, status in (("192.0.2.1", 0), ("192.0.2.1", 0), ("192.0.2.2", 1)):
        lists = f"address_groups: [{{name: -a, addresses: ['2001:db8::/32', {address}]}}]"
        done = ran(None, parse_policy(f"version: 1\n{lists}"))
        assert done.returncode == status and ("is there already, with other addresses" in done.stderr) == status, done


def test_a_port_that_nothing_filters_gets_no_groups(project: Cloud) -> None:
    """Its port security is off. ``sgfast import`` leaves it out, and the cloud refuses what an export says of it."""
    groups = "security_groups: [{name: g}]"
    policy = parse_policy(
        f"version: 1\n{groups}\ninstances: [{{name: open, addresses: [10.1.0.99], security_groups: [g]}}]"
    )
    project.place(policy)
    (port,) = project.call({"method": "GET", "path": "/v2.0/ports?name=open"})["ports"]
    off = {"port_security_enabled": False, "security_groups": []}
    project.call({"method": "PUT", "path": f"/v2.0/ports/{port['id']}", "body": {"port": off}})
    assert any("port security is off" in warning for warning in project.live().warnings)
    with pytest.raises(AssertionError, match="Port security must be enabled"):
        apply(project, None, policy)
