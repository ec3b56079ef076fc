"""Five programs as users write them from the documentation.

A test of a policy, a simulator, an analysis, a notebook and a test with moto.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sgfast
from sgfast.testing import assert_allows, assert_denies

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "pcaps" / "shop.yaml"
PROPOSED = ROOT / "pcaps" / "shop.proposed.yaml"
CAPTURE = ROOT / "pcaps" / "shop.pcap"

pytest_plugins = ["pytester"]


# A test of a policy

EXPECTATIONS = """\
expect:
  - {from: internet, to: web, service: tcp/80, verdict: allow}
  - {from: db, to: any, service: tcp, verdict: deny, name: databases open no connections}
  - {from: web, to: db, service: tcp/5432, verdict: allow, name: orders}
"""


def test_a_policy_has_assertions(sgfast_load: Any) -> None:
    shop = sgfast_load("../../pcaps/shop.yaml")
    assert_allows(shop, "internet", "web", ["tcp/80-81", "icmp"])
    assert_denies(shop, "internet", "db", "all")
    assert_allows(shop, ["10.0.0.5", "10.0.0.6"], "db-1", "tcp/5432,6379")
    with pytest.raises(AssertionError, match=r"2001:db8:ad::1 to 2001:db8::5 \(web-1\) is denied"):
        assert_allows(shop, "administrators", "web", "tcp/22")


def test_a_policy_has_an_expectations_file(pytester: pytest.Pytester) -> None:
    pytester.makefile(".expect.yaml", network=EXPECTATIONS)
    pytester.makeini("[pytest]\nsgfast_policy = shop.yaml\n")
    (pytester.path / "shop.yaml").write_text(SHOP.read_text())
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-v")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*::databases open no connections PASSED*", "*::orders FAILED*", "*shop.yaml:27: db/inbound/1*wants IPv4*"]
    )


# A simulator

FIN, SYN, ACK = 1, 2, 16
SECOND = 10**9


class Simulator:
    """Clients open connections to the shop's web servers, talk, and end some of them."""

    def __init__(self, number: int) -> None:
        random = np.random.default_rng(1)
        self.engine = sgfast.Engine(SHOP)
        self.random = random
        self.clients = np.column_stack(
            [np.full(number, 198), np.full(number, 18), random.integers(0, 256, (number, 2))]
        )
        self.servers = np.array([[10, 0, 0, 5], [10, 0, 0, 6]])[random.integers(0, 2, number)]
        self.ports = 1024 + np.arange(number)
        self.services = random.choice([80, 443, 22], number, p=[0.6, 0.3, 0.1])
        self.alive = np.zeros(number, bool)
        self.denied: Counter[tuple[str, int, str]] = Counter()
        self.packets = 0

    def rows(self, which: NDArray[Any], flags: int, time_ns: int, answer: bool) -> NDArray[Any]:
        rows = np.repeat(sgfast.header("198.18.0.1", "10.0.0.5", "tcp"), len(which))
        client, server, port, service = ("dst", "src", "dport", "sport") if answer else ("src", "dst", "sport", "dport")
        rows[client][:, :4] = self.clients[which]
        rows[server][:, :4] = self.servers[which]
        rows[port] = self.ports[which]
        rows[service] = self.services[which]
        rows["tcp_flags"] = flags
        rows["time_ns"] = time_ns
        return rows

    def send(self, which: NDArray[Any], flags: int, time_ns: int, answer: bool = False) -> NDArray[Any]:
        """Judges a packet of each of these connections; returns those whose packet passed."""
        results = self.engine.process(self.rows(which, flags, time_ns, answer))
        self.packets += len(results)
        passed = results["verdict"] == sgfast.VERDICTS.index("allow")
        side = "egress" if answer else "ingress"
        for connection, row in zip(which[~passed], results[~passed], strict=True):
            instance = self.engine.instances[row[side]["instance"]].name
            self.denied[instance, int(self.services[connection]), str(sgfast.REASONS[row["reason"]])] += 1
        return which[passed]

    def step(self, new: NDArray[Any], time_ns: int) -> None:
        passed = self.send(new, SYN, time_ns)
        passed = self.send(passed, SYN | ACK, time_ns, answer=True)
        self.alive[self.send(passed, ACK, time_ns)] = True
        talking = self.random.permutation(np.flatnonzero(self.alive))[: len(new)]
        for answer in (False, True):
            assert len(self.send(talking, ACK, time_ns, answer)) == len(talking)
        ending = talking[: len(talking) // 3]
        for flags, answer in ((FIN | ACK, False), (FIN | ACK, True), (ACK, False)):
            self.send(ending, flags, time_ns, answer)
        self.alive[ending] = False

    def change(self, changes: Any, time_ns: int) -> int:
        """Changes the policy. Everything from outside into the group ``web`` is cut."""
        cut = np.flatnonzero(self.alive)
        done = self.engine.apply(changes, now_ns=time_ns)
        assert done.disconnected - done.finished == len(cut) and done.finished > 0
        assert self.engine.open_connections == 0
        assert len(self.send(cut, ACK, time_ns)) == 0
        self.alive[:] = False
        return len(cut)

    def still_open(self, which: NDArray[Any], time_ns: int, folder: Path) -> NDArray[Any]:
        """Connections that a copy of the engine knows, so that the engine learns nothing of the question."""
        sgfast.save_snapshot(self.engine, folder / "state")
        results = sgfast.load_snapshot(folder / "state").process(self.rows(which, ACK, time_ns, answer=False))
        return which[results["reason"] == sgfast.REASONS.index("established")]


def test_a_simulator_changes_the_policy(tmp_path: Path) -> None:
    shop = Simulator(2000)
    cut = 0
    for second, new in enumerate(np.array_split(np.arange(2000), 20)):
        now = second * SECOND
        if second == 8:
            cut += shop.change(
                [
                    {"add_group": {"name": "quarantine", "rules": []}},
                    {"add_member": {"group": "quarantine", "instance": "web-2"}},
                    {"remove_member": {"group": "web", "instance": "web-2"}},
                ],
                now,
            )
        if second == 14:
            https = {"direction": "inbound", "protocol": "tcp", "ports": 443, "source": "0.0.0.0/0"}
            cut += shop.change({"add_rule": {"group": "web", "rule": https}}, now)
        shop.step(new, now)

    order = np.arange(2000)
    on_web_1 = shop.servers[:, 3] == 5
    phase = order // 100
    allowed = ((shop.services == 80) & (on_web_1 | (phase < 8))) | ((shop.services == 443) & on_web_1 & (phase >= 14))
    expected: Counter[tuple[str, int, str]] = Counter()
    for connection in np.flatnonzero(~allowed):
        expected["web-1" if on_web_1[connection] else "web-2", int(shop.services[connection]), "no-rule"] += 1
    assert {key: count for key, count in shop.denied.items() if key[2] == "no-rule"} == expected
    assert {key[2] for key in shop.denied} == {"no-rule", "disconnected"}
    assert sum(count for key, count in shop.denied.items() if key[2] == "disconnected") == cut > 0

    alive = np.flatnonzero(shop.alive)
    assert shop.engine.open_connections == len(alive)
    assert len(alive) > 0 and np.array_equal(shop.still_open(alive, 21 * SECOND, tmp_path), alive)
    assert len(shop.still_open(order[~allowed], 21 * SECOND, tmp_path)) == 0
    assert len(shop.still_open(alive, 700 * SECOND, tmp_path)) == 0


def test_the_only_group_of_an_instance_stays() -> None:
    engine = sgfast.Engine(SHOP)
    before = engine.policy
    with pytest.raises(sgfast.PolicyError, match="'web-2' would be left without a security group"):
        engine.apply({"remove_member": {"group": "web", "instance": "web-2"}}, now_ns=0)
    assert engine.policy is before


# An analysis: the same answers from each library

DENIED = {
    ("db-1", "icmp", None, 4),
    ("db-1", "icmpv6", None, 2),
    ("db-1", "tcp", 6379, 3),
    ("web-1", "icmp", None, 1),
    ("web-1", "tcp", 22, 1),
    ("web-1", "tcp", 8080, 2),
    ("web-1", "udp", 53, 1),
    ("198.51.100.53", "tcp", 53, 1),
    ("198.51.100.7", "tcp", 443, 1),
}


@pytest.fixture(scope="module")
def replayed() -> sgfast.ReplayResult:
    return sgfast.replay(SHOP, CAPTURE, tables=("packets", "connections"))


def test_an_analysis_without_a_library(replayed: sgfast.ReplayResult) -> None:
    packets: Counter[tuple[str, str, int | None]] = Counter()
    for row in replayed.tables.denied:
        packets[row["destination"], row["protocol"], row["port"]] += row["packets"]
    assert {(*service, count) for service, count in packets.items()} == DENIED
    minutes: Counter[str] = Counter()
    for row in replayed.tables.packets:
        minutes[str(row["time"].astype("datetime64[m]"))] += row["wire_length"]
    assert minutes == {"2026-11-25T00:32": replayed.bytes}


def test_an_analysis_with_duckdb(replayed: sgfast.ReplayResult) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.register("denied", replayed.tables.denied)
        connection.register("packets", replayed.tables.packets)
        services = connection.sql(
            "select destination, protocol, port, sum(packets) from denied group by all"
        ).fetchall()
        assert set(services) == DENIED
        sources = connection.sql("select distinct source from denied where destination = 'db-1' and port = 6379")
        assert {source for (source,) in sources.fetchall()} == {"web-1", "198.51.100.7", "2001:db8:100::7"}
        minutes = connection.sql(
            "select strftime(time, '%H:%M') as minute, sum(wire_length) from packets group by all"
        )
        assert minutes.fetchall() == [("00:32", replayed.bytes)]


def test_an_analysis_with_pandas(replayed: sgfast.ReplayResult) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    denied = replayed.tables.denied.to_pandas()
    counts = denied.groupby(["destination", "protocol", "port"], dropna=False, observed=True)["packets"].sum()
    services = {(d, p, None if pandas.isna(port) else int(port), int(n)) for (d, p, port), n in counts.items()}
    assert services == DENIED
    packets = replayed.tables.packets.to_pandas()
    minutes = packets.groupby(packets["time"].dt.floor("min"))["wire_length"].sum()
    assert minutes.tolist() == [replayed.bytes]


def test_an_analysis_with_polars(replayed: sgfast.ReplayResult) -> None:
    polars = pytest.importorskip("polars")
    denied = replayed.tables.denied.to_polars()
    counts = denied.group_by("destination", "protocol", "port").agg(polars.col("packets").sum())
    assert set(counts.rows()) == DENIED
    packets = polars.DataFrame(replayed.tables.packets)
    minutes = packets.group_by(polars.col("time").dt.truncate("1m")).agg(polars.col("wire_length").sum())
    assert minutes["wire_length"].to_list() == [replayed.bytes]


# A notebook


def test_a_notebook_of_policy_replay_reach_and_diff(replayed: sgfast.ReplayResult) -> None:
    policy = sgfast.load(SHOP)
    assert repr(policy).endswith("2 security groups, 9 rules, 3 instances>")
    assert replayed.verdicts["deny"] == 16 and replayed.connections["opened"] == 22
    assert len(replayed.broken) == len(replayed.tables.would_break) == 11
    unused = [row["rule"] for row in replayed.tables.rules if row["connections"] == 0]
    assert unused == ["web-ssh"]

    reach = policy.reach(destination="db", rules=True)
    (row,) = reach.rows
    assert ([part.name for part in row.sources], row.services, row.families) == (["web"], "tcp/5432,6379", (4,))
    assert [decider.rule.id for decider in row.rules] == ["db/inbound/1", "web-out-4"]

    change = policy.diff(PROPOSED, CAPTURE)
    assert [row.services for row in change.opened] == ["tcp/8080"]
    assert [row.services for row in change.closed] == ["tcp/81", "tcp/6379"]
    assert change.traffic is not None
    changed = Counter((row["change"], row["destination"], row["port"]) for row in change.traffic.tables.changed)
    assert changed == {
        ("newly-denied", "db-1", 6379): 1,
        ("newly-denied", "web-1", 81): 1,
        ("newly-allowed", "web-1", 8080): 1,
    }
    for answer in (policy, replayed, replayed.tables.denied, reach, change.traffic):
        assert answer._repr_html_().startswith("<")


# A test with moto


def deploy(ec2: Any) -> dict[str, str]:
    """The application: two security groups, and nothing that is in them."""
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    web, db = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"] for name in ("web", "db")
    )
    tcp = {"IpProtocol": "tcp"}
    internet = tcp | {"FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[internet])
    from_web = tcp | {"FromPort": 5432, "ToPort": 5432, "UserIdGroupPairs": [{"GroupId": web}]}
    ec2.authorize_security_group_ingress(GroupId=db, IpPermissions=[from_web])
    return {"vpc": vpc, "web": web, "db": db}


@pytest.fixture
def light_moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moto loads much: to look for garbage meanwhile takes longer than to load it."""
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    enabled = gc.isenabled()
    gc.disable()
    yield
    if enabled:
        gc.enable()


@pytest.mark.usefixtures("light_moto")
def test_an_application_makes_groups_with_boto3() -> None:
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto")
    with moto.mock_aws():
        ec2 = boto3.client("ec2", region_name="eu-central-1")
        made = deploy(ec2)
        with pytest.raises(AssertionError, match="no instance or address is in web"):
            assert_allows(sgfast.policy_from_boto3(ec2), "web", "db", "tcp/5432")
        subnet = ec2.create_subnet(VpcId=made["vpc"], CidrBlock="10.8.0.0/24")["Subnet"]["SubnetId"]
        # Without an address moto draws one at random, and may draw the same one twice.
        for name, address in (("web", "10.8.0.5"), ("db", "10.8.0.6")):
            ec2.create_network_interface(SubnetId=subnet, Groups=[made[name]], PrivateIpAddress=address)
        policy = sgfast.policy_from_boto3(ec2)
        assert_allows(policy, "web", "db", "tcp/5432")
        assert_allows(policy, made["web"], made["db"], "tcp/5432")
        assert_allows(policy, "internet", "web", "tcp/443")
        assert_denies(policy, "internet", "db", "all")
