"""Facts about files for nftables that random traffic does not show: loading, timeouts, and traffic that is rare.

SPEC 13.10 to 13.12.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import frames as f
import numpy as np
import pytest
from comparing import RAW, START
from effort import some
from exported_host import Host, Machine, Machines, OneChange, received
from oracle import _in_namespace, _new_namespace, _read_all, _run, missing
from talks import INSTANCE, PATHS, STRANGER, open_policy, tcp_packets
from traffic import drawn

from sgfast import Policy
from sgfast.base.errors import AmbiguousAddress, ExportError
from sgfast.clouds.linux.nftables import Interfaces, ruleset, update
from sgfast.clouds.loading import parse_policy
from sgfast.engine import Engine
from sgfast.policy.changed_policy import apply_changes
from sgfast.policy.model import GroupPeer, Instance, Rule, SecurityGroup, Settings, Timeouts
from sgfast.version import __version__

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"kernel oracle: {REASON}")


SECONDS = Timeouts(tcp_established=1000, tcp_fin_wait=50, tcp_other=25, bidirectional=75, unidirectional=35)


def listed(*texts: str) -> list[Any]:
    """The table that the kernel has after these files, in an order of its own, without the order of elements."""
    with _new_namespace():
        for text in texts:
            _run("nft", "-f", "-", text=text)
        said = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, check=True).stdout
    found: dict[str, Any] = {}
    for each in json.loads(said)["nftables"]:
        for kind, value in each.items():
            if kind == "metainfo":
                continue
            value.pop("handle", None)
            if "elem" in value:
                value["elem"] = sorted(map(json.dumps, value["elem"]))
            key = f"{kind} {value.get('name', value.get('chain'))}"
            found.setdefault(key, []).append(value)
    return sorted(found.items())


@drawn(5, some(8, 200))
def test_a_second_file_makes_the_table_that_the_whole_file_makes(policy: Policy, case_seed: int) -> None:
    changer = OneChange(np.random.default_rng(case_seed))
    policy = replace(policy, settings=Settings(infrastructure=policy.settings.infrastructure))
    after = policy
    for _ in range(4):
        after = apply_changes(after, changer.changes(after)).policy
    if case_seed % 2:
        after = replace(after, settings=Settings(timeouts=SECONDS, on_change="keep", infrastructure="by-role"))
    names = sorted({*policy.instance_by_name, *after.instance_by_name})
    devices: Interfaces = {name: f"tap{n}" for n, name in enumerate(names)}
    try:
        files = ruleset(policy, devices, "1"), update(policy, after, devices, "1")
        whole = ruleset(after, devices, "1")
    except (AmbiguousAddress, ExportError):
        return      # the changes gave two VPCs the same address
    assert listed(*files) == listed(whole)


def test_chains_that_jump_to_each_other_go_and_come_together() -> None:
    groups = tuple(SecurityGroup(name, (Rule(f"{name}/1", "inbound", 4),)) for name in "ab")
    members = tuple(Instance(f"i{n}", "default", (ip_network(f"10.0.0.{n}"),), (name,)) for n, name in enumerate("ab"))
    both = Policy(security_groups=groups, instances=members)
    one = replace(both, instances=members[:1])
    devices: Interfaces = {"i0": "tap0", "i1": "tap1"}
    first, second = ruleset(both, devices, "1"), update(both, one, devices, "1")
    assert listed(first, second) == listed(ruleset(one, {"i0": "tap0"}, "1"))
    assert listed(first, second, update(one, both, devices, "1")) == listed(first)


def test_names_of_any_length_load() -> None:
    long = "9-" + "x" * 60 + ".-"
    text = f"""
version: 1
vpcs: [{{name: {long}}}]
address_groups: [{{name: {long}, addresses: [0.0.0.0/0, "::/0"]}}]
security_groups:
  - name: {long}
    rules:
      - {{direction: outbound, protocol: all, destination: {{group: {long}}}, priority: 100, action: deny}}
      - {{direction: inbound, protocol: udplite, ports: "0-65535", source: {{address_group: {long}}}}}
      - {{direction: inbound, protocol: dccp, ports: [1, 2, 5-7], source: 0.0.0.0/0}}
      - {{direction: inbound, protocol: icmpv6, icmp_type: 130, icmp_code: 255}}
instances: [{{name: {long}, addresses: [0.0.0.0/0, "::/0"], security_groups: [{long}]}}]
"""
    for device in (None, "a.b:c@d-e_f"):
        assert listed(ruleset(parse_policy(text), {long: device}, "1"))


def large_policy(groups: int, rules: int, instances: int) -> Policy:
    made = []
    for g in range(groups):
        peers = [GroupPeer(f"g{n % groups}") if n % 2 else ip_network(f"10.{g}.{n}.0/24") for n in range(rules)]
        listed = (Rule(f"g{g}/{n}", "inbound", 4, 6, ((n, n + 5),), peer=peer) for n, peer in enumerate(peers))
        made.append(SecurityGroup(f"g{g}", tuple(listed)))
    members = tuple(
        Instance(f"i{n}", "default", (ip_network(f"172.16.{n >> 8}.{n & 255}"),), (f"g{n % groups}",))
        for n in range(instances)
    )
    return Policy(security_groups=tuple(made), instances=members)


def test_a_hundred_groups_of_fifty_rules_are_exported_and_loaded() -> None:
    policy = large_policy(100, 50, 100)
    began = time.process_time()
    text = ruleset(policy, {each.name: f"tap{n}" for n, each in enumerate(policy.instances)}, "1")
    exported = time.process_time() - began
    began = time.monotonic()
    with _new_namespace():
        _run("nft", "-f", "-", text=text)
    print(f"{text.count(chr(10)):,} lines: exported in {exported:.2f} s, loaded in {time.monotonic() - began:.2f} s")
    assert text.count("goto open comment") == 5000


def test_a_packet_that_would_pass_both_filters_at_once_is_dropped_and_counted() -> None:
    policy = replace(
        open_policy(),
        instances=tuple(Instance(f"i{n}", "default", (ip_network(f"10.0.0.{n}"),), ("open",)) for n in (1, 2)),
    )
    packet = f.with_checksum(f.ip("10.0.0.1", "10.0.0.2", f.udp(1, 2)))
    with Host(policy) as host:
        assert host.judge(packet) == (True, None)
        sender, receiver = host.sides
        host.run("ip", "rule", "del", "iif", "tap0", "lookup", "100")      # no detour by the network
        seen_outside = sender.forward(packet, leaving=True)
        # The kernel's own reports of multicast listeners come out there, too.
        assert not any(seen.endswith(packet[-8:]) for seen in (*seen_outside, *_read_all(receiver._inside)))
        assert re.search(r"counter packets 1 .* drop comment \"one_pass\"", host.run("nft", "list", "ruleset"))


def test_the_detour_of_the_documentation_makes_packets_between_instances_pass_twice() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/linux-host.md").read_text()
    (commands,) = re.findall(r"^```sh\n(ip link add detour0.*?)^```", page, re.M | re.S)
    addresses = [(ip_network(f"10.0.0.{n}"), ip_network(f"2001:db8::{n}")) for n in (1, 2)]
    policy = replace(
        open_policy(), instances=tuple(Instance(f"i{n}", "default", own, ("open",)) for n, own in enumerate(addresses))
    )
    with Host(policy) as host:
        sender, receiver = host.sides
        for family in ("-4", "-6"):
            for tap in ("tap0", "tap1"):
                host.run("ip", family, "rule", "del", "iif", tap, "lookup", "100")
            host.run("ip", family, "route", "flush", "table", "100")
        # New interfaces have link-local addresses, as everywhere but behind the oracle's taps.
        host.run("sysctl", "-w", "net.ipv6.conf.default.addr_gen_mode=0")
        host.run("sh", "-e", text=commands)
        for one, other in zip(*(map(str, (own.network_address for own in each)) for each in addresses), strict=True):
            packet = f.with_checksum(f.ip(one, other, f.udp(1, 2)))
            # The kernel's own packets about groups of multicast may come, too.
            assert not any(seen.endswith(packet[-8:]) for seen in sender.forward(packet, leaving=True))
            assert any(seen.endswith(packet[-8:]) for seen in _read_all(receiver._inside)), one
        tracked = {side.instance.name: len(side.table.entries()) for side in host.sides}
        assert tracked == {"i0": 2, "i1": 2}


def test_what_was_begun_before_the_file_was_loaded_does_not_pass_for_allowed() -> None:
    # To the kernel a query without an answer is new, and so is the same query again.
    policy = open_policy("outbound")
    packet = f.with_checksum(f.ip(STRANGER[4], INSTANCE[4], f.udp(1024, 53)))
    with Machines(policy) as machines:
        (machine,) = machines.sides
        with _in_namespace(machine._namespace):
            loaded = ruleset(policy, {"instance": None}, __version__)
            _run("nft", "delete", "table", "inet", "sgfast")
            tracking = "table inet track { chain in { type filter hook input priority 0; ct state new; }; }"
            _run("nft", "-f", "-", text=tracking)
            assert machine.arrives(packet)
            _run("nft", "-f", "-", text=loaded)
        assert not machine.arrives(packet)
        assert not machine.arrives(packet)


def test_a_connection_without_an_answer_outlives_its_rule() -> None:
    # The kernel calls packets of a connection new until the other end answers.
    keep = Settings(on_change="keep")
    before, after = (replace(each, settings=keep) for each in (open_policy(), open_policy("outbound")))
    packet, other = (f.with_checksum(f.ip(STRANGER[4], INSTANCE[4], f.udp(port, 53))) for port in (1024, 1025))
    with Host(before) as host:
        assert host.judge(packet)[0]
        host.load(after)
        assert host.judge(packet)[0] and not host.judge(other)[0]


def test_icmp_that_no_connection_is_about_meets_the_rules() -> None:
    kinds = (1, 2, 6, 9, 10, 19, 42, 43, 255)
    packets = [f.with_checksum(f.ip(STRANGER[4], INSTANCE[4], f.icmp(kind))) for kind in kinds]
    packets += [f.ip(STRANGER[6], INSTANCE[6], f.icmpv6(kind)) for kind in (139, 140, 144, 160, 255)]
    for policy in (open_policy("inbound"), open_policy("outbound")):
        engine = Engine(policy)
        records = engine.process_frames(packets, [START] * len(packets), link_type=RAW)
        said = [engine.verdict(record).allowed for record in records]
        with Host(policy) as host:
            assert [host.judge(packet)[0] for packet in packets] == said
        assert len(set(said)) == 1


def test_what_comes_to_all_hosts_is_not_judged() -> None:
    closed = replace(open_policy(), security_groups=(SecurityGroup("open"),))
    with Machines(closed) as machines:
        for destination in ("224.0.0.1", "255.255.255.255", "ff02::1"):
            source = STRANGER[6 if ":" in destination else 4]
            assert machines.sides[0].arrives(f.with_checksum(f.ip(source, destination, f.other(253, bytes(8)))))
        assert not machines.sides[0].arrives(f.with_checksum(f.ip(STRANGER[4], INSTANCE[4], f.other(253, bytes(8)))))


def test_the_kernel_gives_connections_the_times_of_the_policy() -> None:
    policy = replace(open_policy(), settings=Settings(timeouts=SECONDS))
    device: Interfaces = {"instance": "tap0"}
    with Host(policy) as host:
        host.run("nft", "-f", "-", text=ruleset(policy, device, "1"))
        # After both ends sent a SYN, the next one sets the time anew.
        for port, path in enumerate((*PATHS.values(), ((0, "S"), (1, "S"), (0, "S"))), 1024):
            for packet in tcp_packets(4, True, port, path):
                host.judge(packet)
        host.judge(f.with_checksum(f.ip(STRANGER[4], INSTANCE[4], f.udp(1024, 53))))
        told = {
            (words[5] if words[2] == "tcp" else words[2], -(-int(words[4]) // 5) * 5)
            for words in map(str.split, host.run("conntrack", "-L", "-o", "extended").splitlines())
        }
    others = ("SYN_SENT", "SYN_SENT2", "SYN_RECV", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE")
    assert told == {("ESTABLISHED", 1000), ("FIN_WAIT", 50), ("udp", 35), *((state, 25) for state in others)}


def helpers(family: int) -> dict[str, tuple[Any, int]]:
    """Layers, and the hop limit that they come with."""
    if family == 4:
        return {"to a DHCP server": (f.udp(68, 67), 64), "from a DHCP server": (f.udp(67, 68), 64),
                "DHCPv6 over IPv4": (f.udp(546, 547), 64), "UDP": (f.udp(67, 67), 64)}  # fmt: skip
    found = {"to a DHCP server": (f.udp(546, 547), 64), "from a DHCP server": (f.udp(547, 546), 64),
             "DHCP over IPv6": (f.udp(68, 67), 64)}  # fmt: skip
    for kind in (130, 131, 132, 133, 134, 135, 136, 137, 138, 143):
        found |= {f"ICMPv6 {kind}, hop limit {limit}": (f.icmpv6(kind, 0, 0, bytes(24)), limit) for limit in (255, 64)}
    return found


@pytest.mark.parametrize("infrastructure", ["exempt", "by-role", "filtered"])
def test_what_an_instance_needs_passes_as_the_setting_says(infrastructure: Any) -> None:
    policy = replace(open_policy(), settings=Settings(infrastructure=infrastructure))
    closed = replace(policy, security_groups=(SecurityGroup("open"),))
    seen = set()
    for rules in (policy, closed):
        with Machines(rules) as machines:
            machine = machines.sides[0]
            assert isinstance(machine, Machine)
            for family in (4, 6):
                for name, (layer, limit) in helpers(family).items():
                    for inbound in (True, False):
                        ends = (STRANGER[family], INSTANCE[family])[:: 1 if inbound else -1]
                        option = {"hop_limit" if family == 6 else "ttl": limit}
                        packet = f.with_checksum(f.ip(*ends, layer, **option))
                        engine = Engine(rules)
                        said = engine.verdict(engine.process_frames([packet], [START], link_type=RAW)[0]).verdict
                        passed = machine.arrives(packet) if inbound else machine.leaves(packet)
                        assert passed == (said in ("allow", "exempt")), (name, inbound, said)
                        seen.add((said, passed))
    assert len(seen) == (2 if infrastructure == "filtered" else 3), seen


def test_fragments_to_a_stateless_group_get_the_verdict_of_their_datagram() -> None:
    rule = Rule("r", "inbound", 4, 17, ((53, 53),))
    base = open_policy()
    policy = replace(base, security_groups=(SecurityGroup("open", (rule,), stateful=False),))
    with Machines(policy) as machines:
        machine = machines.sides[0]
        assert isinstance(machine, Machine)
        for port, passes in ((53, True), (54, False)):
            datagram = bytes(f.udp(1024, port, bytes(24)))
            for part, more in ((0, True), (2, False)):
                body = f.Layer(datagram[part * 8 : None if part else 16], 17)
                where = {"fragment_offset": part, "more_fragments": more, "identification": port}
                os.write(machine._outside, f.with_checksum(f.ip(STRANGER[4], INSTANCE[4], body, **where)))
            assert [whole[20:] for whole in received(machine.receivers[4, 17])] == ([datagram] if passes else [])
        # A stateless group's packets take no room in the kernel's table.
        assert machine.entries() == []


def test_icmp_in_ipv6_is_denied() -> None:
    packet = f.ipv6(STRANGER[6], INSTANCE[6], f.icmp(8, 0, 1), protocol=1)
    with Host(open_policy()) as host:
        assert not host.judge(packet)[0]
