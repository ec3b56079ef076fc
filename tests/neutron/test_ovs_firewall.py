"""Single packets in Neutron's firewall, and the engine's verdicts on them under the profile ``neutron``.

Each table is what Open vSwitch did. Where the engine says something else, the table says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import frames as f
import pytest
from cloud_documents import Account
from cloud_traffic import FRAGMENT, Place, Sent, Traffic, summed
from datagrams import Datagram, cut
from neutron import group, port, rule
from ovs_cloud import DEVICES, OUTSIDE, ROUTER, Cloud, missing
from ovs_comparing import NOW, PASSES, RULE_GONE, Comparison, changes_between, judged_by, policy_of

from sgfast.engine import Engine

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"Neutron's firewall: {REASON}")

STRANGER = {4: "198.51.100.7", 6: "2001:db8:9::7"}
ALL = [("ingress", "IPv4"), ("ingress", "IPv6"), ("egress", "IPv4"), ("egress", "IPv6")]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as made:
        yield made


def full(made: dict[str, Any]) -> dict[str, Any]:
    return {"remote_address_group_id": None} | made


Objects = list[dict[str, Any]]


def account(
    groups: Objects, ports: dict[str, tuple[str, ...]], addresses: dict[str, list[str]],
    pairs: Mapping[str, str] | None = None,
) -> Account:  # fmt: skip
    """``ports``: by device the groups of its port, whose addresses are 10.0.0.N and 2001:db8::N for the N-th device.
    ``pairs``: by device an allowed address pair of its port.
    """
    made = []
    for device, names in ports.items():
        n = list(DEVICES).index(device) + 1
        made.append(port(f"port-{device}", f"port-{device}", f"10.0.0.{n}", f"2001:db8::{n}", groups=names,
                         mac_address=DEVICES[device]))  # fmt: skip
        if pairs and device in pairs:
            made[-1]["allowed_address_pairs"] = [{"ip_address": pairs[device], "mac_address": DEVICES[device]}]
    address_groups = [{"id": name, "name": name, "addresses": prefixes} for name, prefixes in addresses.items()]
    documents = {"security_groups": groups, "ports": made, "address_groups": address_groups}
    return Account(documents, {f"port-{device}": device for device in ports})


class Scene:
    """An account that changes, on the nodes and in the engine, and packets through both."""

    def __init__(
        self, cloud: Cloud, groups: Objects, ports: dict[str, tuple[str, ...]],
        addresses: dict[str, list[str]] | None = None, pairs: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.cloud = cloud
        self.parts = groups, ports, addresses or {}, pairs
        self.account = account(*self.parts)
        self.policy = policy_of(self.account)
        self.engine = Engine(self.policy)
        cloud.begin(self.account.documents, self.account.devices)

    def change(self, *parts: Any) -> None:
        self.account = account(*parts)
        before, self.policy = self.policy, policy_of(self.account)
        self.cloud.program(self.account.documents, self.account.devices)
        self.engine.apply(changes_between(before, self.policy), NOW)

    def send(self, source: str, destination: str, layer: f.Layer, **options: Any) -> tuple[bool, bool]:
        """Whether Neutron let the packet pass, and whether the engine did."""
        sent = sent_in(self.account, source, destination, layer, **options)
        (frame,) = sent.frames()
        came = self.cloud.exchange([(sent.source.device, frame)])
        (verdict,) = judged_by(self.engine, sent.packets)
        return frame in came.get(sent.destination.device, []), verdict.verdict in PASSES


def sent_in(account: Account, source: str, destination: str, layer: f.Layer, **options: Any) -> Sent:
    places = Traffic.places_of(account)
    outside = Place(OUTSIDE, ROUTER, None)
    packet = f.with_checksum(f.ip(source, destination, summed(source, destination, layer), **options))
    return Sent([packet], places.get(source, outside), places.get(destination, outside))


def open_groups(stateful: bool = True) -> Objects:
    """One group that allows everything, and one that allows nothing."""
    return [
        group("open", "open", *(full(rule("open", direction, family)) for direction, family in ALL), stateful=stateful),
        group("closed", "closed", stateful=stateful),
    ]  # fmt: skip


#: By ICMPv6 type: whether it leaves an instance of the closed group, and of the open one; whether it arrives at one.
NEIGHBOUR_DISCOVERY = {
    128: (False, True, False, True),
    130: (True, True, True, True),
    131: (False, False, False, False),
    132: (False, False, False, False),
    133: (True, True, False, False),
    134: (False, False, True, True),
    135: (True, True, True, True),
    136: (True, True, True, True),
    137: (False, False, False, False),
    143: (False, False, False, False),
}
#: Types that rules allow, and Open vSwitch drops: its connection tracking calls them invalid.
INVALID_TO_OVS = {131, 132, 133, 137, 143}


def test_which_neighbour_discovery_passes_whatever_the_rules_say(cloud: Cloud) -> None:
    scene = Scene(cloud, open_groups(), {"a0": ("closed",), "a1": ("open",)})
    seen: dict[int, tuple[bool, ...]] = {}
    differs = set()
    for kind in NEIGHBOUR_DISCOVERY:
        told = []
        for source, destination in (
            ("2001:db8::1", STRANGER[6]), ("2001:db8::2", STRANGER[6]),
            (STRANGER[6], "2001:db8::1"), (STRANGER[6], "2001:db8::2"),
        ):  # fmt: skip
            target = f.packed(source)
            content = f.Layer(bytes((kind, 0, 0, 0, 0, 0, 0, 0)) + target, 58)
            neutron, engine = scene.send(source, destination, content, hop_limit=255)
            told.append(neutron)
            assert engine or not neutron, f"type {kind}: the engine denies what Neutron lets pass"
            if neutron != engine:
                differs.add(kind)
        seen[kind] = tuple(told)
    assert seen == NEIGHBOUR_DISCOVERY
    assert differs == INVALID_TO_OVS


#: By ports: the same four.
DHCP = {
    (4, 68, 67): (True, True, False, True),
    (4, 67, 68): (False, False, True, True),
    (6, 546, 547): (True, True, False, True),
    (6, 547, 546): (False, False, True, True),
    (4, 67, 67): (False, True, False, True),
}


@pytest.mark.parametrize("ports", DHCP)
def test_which_dhcp_passes_whatever_the_rules_say(cloud: Cloud, ports: tuple[int, int, int]) -> None:
    family, sport, dport = ports
    closed, opened = ("10.0.0.1", "10.0.0.2") if family == 4 else ("2001:db8::1", "2001:db8::2")
    scene = Scene(cloud, open_groups(), {"a0": ("closed",), "a1": ("open",)})
    ends = [(closed, STRANGER[family]), (opened, STRANGER[family]), (STRANGER[family], closed),
            (STRANGER[family], opened)]  # fmt: skip
    told = [scene.send(source, destination, f.udp(sport, dport)) for source, destination in ends]
    assert told == [(passes, passes) for passes in DHCP[ports]]


def test_ipip_is_protocol_4_and_not_iana_s_94(cloud: Cloud) -> None:
    scene = Scene(cloud, web(rule("w", protocol="ipip")), {"a0": ("w",)})
    assert scene.send(STRANGER[4], "10.0.0.1", f.other(4, bytes(20))) == (True, True)
    assert scene.send(STRANGER[4], "10.0.0.1", f.other(94, bytes(20))) == (False, False)


def test_stateless_groups_are_stateful_to_this_driver(cloud: Cloud) -> None:
    """Neutron's drivers for iptables and OVN obey ``stateful: false``, this one does not look at it."""
    groups = [group("s", "s", full(rule("s", "egress", "IPv4")), stateful=False)]
    scene = Scene(cloud, groups, {"a0": ("s",)})
    assert scene.send("10.0.0.1", STRANGER[4], f.udp(1024, 53)) == (True, True)
    assert scene.send(STRANGER[4], "10.0.0.1", f.udp(53, 1024)) == (True, False)


def test_port_security_off_is_no_filter_at_all(cloud: Cloud) -> None:
    scene = Scene(cloud, open_groups(), {"a0": ()})
    (made,) = scene.account.documents["ports"]
    made["port_security_enabled"] = False
    cloud.program(scene.account.documents, scene.account.devices)
    scene.engine = Engine(policy_of(scene.account))
    assert scene.send(STRANGER[4], "10.0.0.1", f.tcp(1024, 22, "A")) == (True, True)
    assert scene.send("10.0.0.1", STRANGER[4], f.tcp(22, 1024, "SA")) == (True, True)


def test_nothing_of_an_account_is_left_when_another_one_begins(cloud: Cloud) -> None:
    """An agent that knew both would keep the flow of the prefix for w's rule, and give its conjunction to x's."""
    strangers = rule("v", remote_address_group_id="a")
    members = full(rule("w", protocol="tcp", remote_group_id="v"))
    more = rule("w", protocol="tcp", remote_address_group_id="a")
    Scene(cloud, [group("v", "v", strangers), group("w", "w", members, more)], {"a0": ("v",), "a1": ("w",)},
          {"a": ["198.51.100.0/24"]})  # fmt: skip
    rules = [full(rule("x", protocol="udp", remote_group_id=remote)) for remote in ("y", "z")]
    clients = [group(name, name, full(rule(name, "egress"))) for name in ("y", "z")]
    scene = Scene(cloud, [group("x", "x", *rules), *clients], {"a2": ("x",), "b0": ("y", "z")})
    assert scene.send("10.0.0.5", "10.0.0.3", f.udp(1024, 53)) == (True, True)
    assert scene.send(STRANGER[4], "10.0.0.3", f.udp(1024, 53)) == (False, False)


def test_what_only_the_engine_s_sender_begins_explains_the_answer(cloud: Cloud) -> None:
    """Neutron drops the fragments at the sender, as a rule with ports does not match them; nobody lets them in."""
    groups = [
        group("w", "w", full(rule("w", "egress", protocol="udp", port_range_min=1, port_range_max=65535))),
        group("o", "o", full(rule("o", "egress"))),
    ]
    made = account(groups, {"a0": ("w",), "b0": ("o",)}, {})
    comparison = Comparison(cloud, made)
    here, there = "10.0.0.1", "10.0.0.5"
    layer = summed(here, there, f.udp(1024, 53, bytes(FRAGMENT + 40)))
    pieces = [f.with_checksum(Datagram(here, there, layer).piece(piece)) for piece in cut(len(layer), FRAGMENT)]
    answer = sent_in(made, there, here, f.udp(53, 1024))
    assert comparison.judge([Sent(pieces, answer.destination, answer.source)]) == [False]
    assert comparison.hits == {}
    assert comparison.judge([answer]) == [False]
    assert comparison.hits == {"ports of fragments": 1}


# --- What becomes of live connections


def web(*rules: dict[str, Any]) -> Objects:
    return [group("w", "w", *map(full, rules))]


def test_a_removed_rule_cuts_when_the_opener_s_end_speaks_again_and_not_before(cloud: Cloud) -> None:
    ssh = rule("w", protocol="tcp", port_range_min=22, port_range_max=22)
    there, back = f.tcp(1024, 22, "A"), f.tcp(22, 1024, "A")
    scene = Scene(cloud, web(ssh), {"a0": ("w",)})
    assert scene.send(STRANGER[4], "10.0.0.1", f.tcp(1024, 22, "S")) == (True, True)
    assert scene.send("10.0.0.1", STRANGER[4], f.tcp(22, 1024, "SA")) == (True, True)
    assert scene.send(STRANGER[4], "10.0.0.1", there) == (True, True)
    scene.change(web(), {"a0": ("w",)}, {})
    # Replies pass as long as nobody asked the rules.
    assert scene.send("10.0.0.1", STRANGER[4], back)[0]
    assert scene.send(STRANGER[4], "10.0.0.1", there) == (False, False)
    assert scene.send("10.0.0.1", STRANGER[4], back) == (False, False)
    # With the rule again the change forgets what was cut, and the next packet opens, whoever sends it.
    scene.change(web(ssh), {"a0": ("w",)}, {})
    assert scene.send("10.0.0.1", STRANGER[4], back)[0] is False
    assert scene.send(STRANGER[4], "10.0.0.1", there)[0]
    assert scene.send("10.0.0.1", STRANGER[4], back)[0]


def test_a_connection_persists_if_another_rule_allows_its_opener(cloud: Cloud) -> None:
    ssh = rule("w", protocol="tcp", port_range_min=22, port_range_max=22)
    scene = Scene(cloud, web(ssh), {"a0": ("w",)})
    assert scene.send(STRANGER[4], "10.0.0.1", f.udp(1, 22)) == (False, False)
    assert scene.send(STRANGER[4], "10.0.0.1", f.tcp(1024, 22, "S")) == (True, True)
    assert scene.send("10.0.0.1", STRANGER[4], f.tcp(22, 1024, "SA")) == (True, True)
    scene.change(web(rule("w", protocol="tcp")), {"a0": ("w",)}, {})
    assert scene.send(STRANGER[4], "10.0.0.1", f.tcp(1024, 22, "A")) == (True, True)
    assert scene.send("10.0.0.1", STRANGER[4], f.tcp(22, 1024, "A")) == (True, True)


def test_a_removed_rule_also_cuts_another_connection_of_the_same_ends_if_neutron_does_not_know_its_ports(
    cloud: Cloud,
) -> None:
    egress = rule("w", "egress")
    before, after = (
        account(web(*rules), {"a0": ("w",)}, {}) for rules in ([egress, rule("w", protocol="dccp")], [egress])
    )
    comparison = Comparison(cloud, before)
    here, there = "10.0.0.1", STRANGER[4]
    assert comparison.judge([sent_in(before, there, here, f.dccp(1024, 80))]) == [True]
    assert comparison.judge([sent_in(before, here, there, f.dccp(1025, 22))]) == [True]
    comparison.change(after)
    assert comparison.judge([sent_in(before, there, here, f.dccp(22, 1025))]) == [False]
    assert comparison.hits == {RULE_GONE: 1}


def test_a_member_that_leaves_is_cut_like_by_a_removed_rule(cloud: Cloud) -> None:
    groups = [
        group("w", "w", full(rule("w", protocol="udp", remote_group_id="c")), full(rule("w", "egress"))),
        group("c", "c", full(rule("c", "egress"))),
        group("other", "other", full(rule("other", "egress"))),
    ]
    scene = Scene(cloud, groups, {"a0": ("w",), "b0": ("c",)})
    query, answer = f.udp(1024, 53), f.udp(53, 1024)
    assert scene.send("10.0.0.5", "10.0.0.1", query) == (True, True)
    assert scene.send("10.0.0.1", "10.0.0.5", answer) == (True, True)
    scene.change(groups, {"a0": ("w",), "b0": ("other",)}, {})
    # The server may send, so its answer passes. To sgfast it opens a connection, as it does where conntrack entries are
    # deleted at once (SPEC 6.13). This driver keeps the entry until the client's next packet, which it refuses.
    assert scene.send("10.0.0.1", "10.0.0.5", answer) == (True, True)
    assert scene.send("10.0.0.5", "10.0.0.1", query) == (False, True)
    assert scene.send("10.0.0.1", "10.0.0.5", answer) == (False, True)


@pytest.mark.parametrize(
    ("pair", "passes"), [("10.0.0.0/24", True), ("10.0.0.4/30", True), ("10.0.0.4/31", False), ("10.9.0.0/16", False)]
)
def test_address_of_another_port_in_an_allowed_address_pair_is_in_the_group(
    cloud: Cloud, pair: str, passes: bool
) -> None:
    """SPEC 4.14: rules name c, which only the port of b0 is in. The port of b1 has 10.0.0.6 and is in o."""
    groups = [
        group("w", "w", full(rule("w", remote_group_id="c")), full(rule("w", "egress", remote_group_id="c"))),
        group("c", "c", full(rule("c", "egress"))),
        group("o", "o", full(rule("o")), full(rule("o", "egress"))),
    ]
    ports = {"a0": ("w",), "b0": ("c",), "b1": ("o",)}
    scene = Scene(cloud, groups, ports, pairs={"b0": pair})
    assert scene.send("10.0.0.6", "10.0.0.1", f.udp(1024, 53)) == (passes, passes)
    assert scene.send("10.0.0.1", "10.0.0.6", f.udp(1025, 53)) == (passes, passes)


# --- Faults of Neutron's agent, which sgfast does not have


def test_neutron_loses_a_rule_of_udp_lite_with_a_remote_group_if_another_one_has_other_ports(cloud: Cloud) -> None:
    """The driver makes a flow for each range of ports, but leaves the ports out: the last one replaces the others."""
    udplite = [
        full(rule("w", protocol="udplite", remote_group_id="c")),
        full(rule("w", protocol="udplite", port_range_min=80, port_range_max=80, remote_group_id="d")),
    ]
    clients = [group(name, name, full(rule(name, "egress"))) for name in ("c", "d")]
    ports = {"a0": ("w",), "b0": ("c",)}
    scene = Scene(cloud, [group("w", "w", udplite[0]), *clients], ports)
    assert scene.send("10.0.0.5", "10.0.0.1", f.udplite(1024, 80, coverage=8)) == (True, True)
    scene = Scene(cloud, [group("w", "w", *udplite), *clients], ports)
    assert scene.send("10.0.0.5", "10.0.0.1", f.udplite(1024, 80, coverage=8)) == (False, True)


def test_neutron_loses_members_within_a_prefix_that_leaves_an_address_group(cloud: Cloud) -> None:
    rules = [
        full(rule("w", protocol="udp", port_range_min=53, port_range_max=53, remote_group_id="c")),
        rule("w", protocol="tcp", remote_address_group_id="a"),
    ]
    groups = [group("w", "w", *rules), group("c", "c", full(rule("c", "egress")))]
    ports = {"a0": ("w",), "b0": ("c",)}
    scene = Scene(cloud, groups, ports, {"a": ["10.0.0.0/24"]})
    assert scene.send("10.0.0.5", "10.0.0.1", f.udp(1024, 53)) == (True, True)
    scene.change(groups, ports, {"a": ["192.0.2.0/24"]})
    assert scene.send("10.0.0.5", "10.0.0.1", f.udp(1025, 53)) == (False, True)


def test_neutron_forgets_members_of_the_ip_version_that_a_refreshed_port_does_not_ask_for(cloud: Cloud) -> None:
    six = group("w", "w", full(rule("w", ethertype="IPv6", protocol="udp", remote_group_id="c")))
    four = full(rule("v", protocol="udp", remote_group_id="c"))
    clients = group("c", "c", full(rule("c", "egress", "IPv6")))
    ports = {"a0": ("w",), "a1": ("v",), "b0": ("c",)}
    scene = Scene(cloud, [six, group("v", "v", four), clients], ports)
    assert scene.send("2001:db8::5", "2001:db8::1", f.udp(1024, 53)) == (True, True)
    scene.change([six, group("v", "v", four, full(rule("v", protocol="tcp"))), clients], ports, {})
    assert scene.send("2001:db8::5", "2001:db8::1", f.udp(1025, 53)) == (False, True)


def test_neutron_lets_in_who_left_a_remote_group_but_not_another_one_of_another_kind_of_rule(cloud: Cloud) -> None:
    groups = [
        group("w", "w", full(rule("w", remote_group_id="c")),
              full(rule("w", protocol="tcp", port_range_min=80, port_range_max=80, remote_group_id="d"))),
        group("c", "c", full(rule("c", "egress"))),
        group("d", "d", full(rule("d", "egress"))),
    ]  # fmt: skip
    scene = Scene(cloud, groups, {"a0": ("w",), "b0": ("c", "d")})
    assert scene.send("10.0.0.5", "10.0.0.1", f.udp(1024, 53)) == (True, True)
    scene.change(groups, {"a0": ("w",), "b0": ("d",)}, {})
    assert scene.send("10.0.0.5", "10.0.0.1", f.udp(1025, 53)) == (True, False)
