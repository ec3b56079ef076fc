"""``sgfast import openstack --live`` and ``otc --live``, against a small cloud with faults (SPEC 10.17).

``tests/neutron`` reads Neutron's own API server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import neutron
import pytest
from command import sgfast
from exports import imported_files, reasons_of
from openstack_cloud import PASSWORD, PROJECT, TOKEN, Cloud, openstack_cloud

from sgfast import Engine
from sgfast.clouds.importing.reading import import_sources
from sgfast.clouds.loading import load_policy
from sgfast.clouds.openstack import live as live_openstack

pytest.importorskip("openstack")
requests = pytest.importorskip("requests")

Capsys = pytest.CaptureFixture[str]
LIVE = ("--live", "--os-cloud", "mine")
SERVERS = f"/v2.1/{PROJECT}/servers"
CLOUDS = """
clouds:
  mine:
    auth: {{auth_url: "{url}/v3", username: u, password: "{password}", project_name: p, user_domain_name: d,
            project_domain_name: d}}
    region_name: eu-de
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Cloud]:
    with openstack_cloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(server: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    url = server.url
    server.__init__()  # type: ignore[misc]
    server.url = url
    monkeypatch.delenv("OS_CLOUD", raising=False)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.chdir(tmp_path)
    describe(url)
    return server


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not waited for."""
    made: list[float] = []
    monkeypatch.setattr("keystoneauth1.session.time.sleep", made.append)
    return made


def describe(url: str, password: str = PASSWORD) -> None:
    Path("clouds.yaml").write_text(CLOUDS.format(url=url, password=password))


def fill_with_neutron(cloud: Cloud) -> None:
    web = neutron.group(neutron.WEB, "web", neutron.rule(neutron.WEB, **neutron.tcp(80)))
    named = neutron.port("p3", "", "10.0.0.7", device_id="s1")
    cloud.lists = {
        "/v2.0/security-groups": [web, neutron.group(neutron.DB, "db"), neutron.group("sg-3", "third")],
        "/v2.0/address-groups": [],
        "/v2.0/networks": [{"id": "net-1", "name": "front"}],
        "/v2.0/subnets": [],
        "/v2.0/routers": [],
        "/v2.0/ports": [neutron.WEB_1, neutron.DB_1, named],
        SERVERS: [{"id": "s1", "name": "cache", "links": []}],
    }


def fill_with_otc(cloud: Cloud) -> None:
    v1, v3 = f"/v1/{PROJECT}", f"/v3/{PROJECT}/vpc"

    def rule(id: str, group: str, **more: Any) -> dict[str, Any]:
        made = {"id": id, "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
        return made | {"action": "allow", "priority": 10, "enabled": True} | more

    def port(id: str, network: str, address: str, group: str, **more: Any) -> dict[str, Any]:
        more |= {"network_id": network, "device_owner": "compute:eu-de-01"}
        return neutron.port(id, "", address, groups=(group,), **more)

    cloud.lists = {
        f"{v3}/security-groups": [{"id": id, "name": id, "description": ""} for id in ("web", "db", "third")],
        f"{v3}/security-group-rules": [
            rule("r1", "web", multiport="80,443", remote_ip_prefix="0.0.0.0/0"),
            rule("r2", "web", action="deny", priority=1, remote_address_group_id="ag"),
            rule("r3", "db", multiport="5432", remote_ip_prefix="10.0.0.0/8"),
            rule("r4", "db", direction="egress", protocol=None),
            rule("r5", "web", direction="egress", protocol=None),
        ],
        f"{v3}/address-groups": [{"id": "ag", "name": "bad", "ip_set": ["198.51.100.0/24"], "ip_version": 4}],
        f"{v1}/vpcs": [{"id": f"vpc-{n}", "name": f"vpc-{n}", "cidr": f"10.{n}.0.0/16"} for n in range(3)],
        f"{v1}/subnets": [{"id": f"net-{n}", "name": f"net-{n}", "vpc_id": f"vpc-{n}"} for n in range(3)],
        f"{v1}/ports": [
            port("p0", "net-0", "10.0.0.5", "web", device_id="s1"),
            port("p1", "net-1", "10.1.0.5", "db"),
            port("p2", "net-2", "10.2.0.5", "db"),
        ],
        "/v2.0/vpc/peerings": [
            {"id": "peer", "name": "peer", "status": "ACTIVE", "request_vpc_info": {"vpc_id": "vpc-0"},
             "accept_vpc_info": {"vpc_id": "vpc-1"}}
        ],
        SERVERS: [{"id": "s1", "name": "shop"}],
    }  # fmt: skip


def documents(cloud: Cloud) -> list[tuple[str, Any]]:
    """Make files of the API's answers from everything that the cloud holds."""
    sections = {path: path.rsplit("/", 1)[1].replace("-", "_") for path in cloud.lists}
    return [(f"{section}.json", {section: cloud.lists[path]}) for path, section in sections.items()]


def one_line(capsys: Capsys, *arguments: object) -> str:
    done = sgfast(capsys, "import", *(arguments or ("openstack", *LIVE)))
    assert done.status == 2 and done.out == ""
    assert TOKEN not in done.err and PASSWORD not in done.err
    return done.one_line().removeprefix("sgfast: ")


@pytest.mark.parametrize(
    ("form", "read", "fill"),
    [("neutron", live_openstack.read_neutron, fill_with_neutron), ("otc", live_openstack.read_otc, fill_with_otc)],
)
@pytest.mark.parametrize("page", [1, 2, 3, 500])
def test_every_page_is_read_and_means_what_the_documents_mean(
    cloud: Cloud, form: str, read: Any, fill: Any, page: int
) -> None:
    """Three objects: the last page is full, not full, or the only one."""
    fill(cloud)
    cloud.page = page
    account = read("mine", lambda *_: None)
    live, files = import_sources(account.sources, form), imported_files(*documents(cloud), form=form)
    assert live.draft.document() == files.draft.document()
    assert len(live.policy().security_groups) == 3 and len(live.policy().instances) == 3
    order = [[path.rsplit("/", 1)[-1] for path in cloud.calls].index(kind) for kind in ("ports", "security-groups")]
    assert order == sorted(order), "a group that is made meanwhile, and its port, would be half there"


def test_a_list_that_never_gets_to_its_next_page_is_not_cut(cloud: Cloud, capsys: Capsys) -> None:
    fill_with_neutron(cloud)
    path = "/v2.0/security-groups"
    cloud.lists[path] += [neutron.group(f"sg-{n}", f"g{n}") for n in range(4, 501)]
    cloud.page, cloud.without_pages = 1000, {path}
    assert one_line(capsys) == (
        "security groups of the cloud 'mine': the cloud answers with the same 500 objects again, so the others "
        "cannot be read; export the list with another tool, and import it"
    )
    # Without its last object the list is complete.
    cloud.lists[path].pop()
    assert "# 499 security groups" in sgfast(capsys, "import", "openstack", *LIVE).out


def test_rules_that_deny_and_peerings_are_read_from_otc(cloud: Cloud, capsys: Capsys, tmp_path: Path) -> None:
    fill_with_otc(cloud)
    out = tmp_path / "policy.yaml"
    done = sgfast(capsys, "import", "otc", *LIVE, "-o", out)
    warning = "sgfast: warning: Has no rules, so that it allows nothing: security group third.\n"
    assert (done.status, done.out, done.err) == (0, "", warning)
    text = out.read_text()
    assert "\n# from the cloud 'mine' (Open Telekom Cloud or Huawei Cloud VPC API)\n" in text
    assert TOKEN not in text and PASSWORD not in text and "{name: shop," in text
    meaning = [
        ("192.0.2.7", "10.0.0.5", "tcp", 443, "rule"),
        ("198.51.100.7", "10.0.0.5", "tcp", 443, "deny-rule"),
        ("10.0.0.5", "10.1.0.5", "tcp", 5432, "rule"),
        ("10.0.0.5", "10.2.0.5", "tcp", 5432, "vpc-isolated"),
    ]
    assert reasons_of(Engine(load_policy(out)), meaning) == [reason for *_, reason in meaning]


def test_a_cloud_that_asks_to_wait_is_waited_for(cloud: Cloud, capsys: Capsys, pauses: list[float]) -> None:
    fill_with_neutron(cloud)
    cloud.answers["/v2.0/ports"] = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "9"}), (503, {})]
    assert sgfast(capsys, "import", "openstack", *LIVE).status == 0
    assert pauses[:2] == [7, 9] and len(pauses) == 3
    cloud.answers["/v2.0/ports"] = [(429, {"Retry-After": "1"})] * 6
    assert one_line(capsys) == (
        "ports of the cloud 'mine': the cloud is still busy after 6 attempts (HTTP status 429); try again later"
    )


def test_no_request_waits_for_ever(cloud: Cloud, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []
    request = requests.Session.request

    def noted(session: Any, *arguments: Any, **options: Any) -> Any:
        limits.append(options.get("timeout"))
        return request(session, *arguments, **options)

    monkeypatch.setattr(requests.Session, "request", noted)
    fill_with_neutron(cloud)
    assert sgfast(capsys, "import", "openstack", *LIVE).status == 0
    assert len(limits) == len(cloud.calls) + 1 and set(limits) == {60}


def test_one_listing_that_is_denied_or_missing_is_no_policy(cloud: Cloud, capsys: Capsys, tmp_path: Path) -> None:
    out = tmp_path / "policy.yaml"
    fill_with_otc(cloud)
    path = f"/v3/{PROJECT}/vpc/security-group-rules"
    cloud.answers[path] = [(200, {}), (403, {})]
    assert one_line(capsys, "otc", *LIVE, "-o", out) == (
        "security group rules of the cloud 'mine': the answer has no list security_group_rules; "
        "check the address of the service"
    )
    assert one_line(capsys, "otc", *LIVE, "-o", out) == (
        "security group rules of the cloud 'mine': the credentials lack the permission vpc:securityGroupRules:list; "
        "ask your administrator for it"
    )
    del cloud.lists[path]
    assert "answers with HTTP status 404; check the address" in one_line(capsys, "otc", *LIVE, "-o", out)
    assert not out.exists()


def test_a_cloud_has_not_every_kind_of_object(cloud: Cloud, capsys: Capsys) -> None:
    fill_with_neutron(cloud)
    for path in ("/v2.0/address-groups", "/v2.0/routers"):
        del cloud.lists[path]
    cloud.has_compute = False
    done = sgfast(capsys, "import", "openstack", *LIVE)
    assert done.status == 0 and "# 3 security groups with 1 rule, 3 instances, 1 VPC" in done.out
    assert SERVERS not in cloud.calls
    cloud.has_network = False
    assert one_line(capsys).startswith("ports of the cloud 'mine': the cloud has no such service in its cata")
    assert one_line(capsys, "otc", *LIVE).startswith("the cloud 'mine': the cloud has no such service in its catalog")


def test_credentials_that_the_cloud_refuses_are_said_and_not_shown(cloud: Cloud, capsys: Capsys) -> None:
    refused = "the cloud does not accept the credentials, or they have expired; log in again"
    describe(cloud.url, "hidden-password-2")
    assert one_line(capsys) == f"ports of the cloud 'mine': {refused}"
    describe(cloud.url)
    # The token expires, and the new one is refused, too.
    cloud.answers["/v2.0/ports"] = [(401, {})] * 2
    assert one_line(capsys) == f"ports of the cloud 'mine': {refused}"


def test_a_cloud_that_is_not_described_or_not_there_is_one_line(cloud: Cloud, capsys: Capsys) -> None:
    assert one_line(capsys, "openstack", "--live", "--os-cloud", "other").startswith(
        "the cloud 'other': openstacksdk finds no description of it that it can read; it looks for"
    )
    describe("http://hidden-password:hidden-token@127.0.0.1:1")
    assert one_line(capsys).startswith("ports of the cloud 'mine': 127.0.0.1 cannot be reached; check the")
    Path("clouds.yaml").write_text(f"clouds: {{mine: [{PASSWORD}")
    assert one_line(capsys).startswith("the cloud 'mine': openstacksdk finds no description of it that it can read;")
    Path("clouds.yaml").unlink()
    assert one_line(capsys, "openstack", "--live").startswith(
        "the cloud of the variables OS_...: the credentials are not complete: auth_url is missing; add it to"
    )
