"""A multicast address that an instance's prefix contains is an instance as a source, and none as a destination (SPEC
3.3). So the two directions of one connection have different filters.
"""

from __future__ import annotations

from collections import Counter

import frames as f
import numpy as np
import pytest
from differential import compare
from scenario import run
from traffic import SECOND, Traffic

from sgfast.clouds.loading import parse_policy
from sgfast.engine import MODES
from sgfast.policy.changes import AddRule, RemoveInstance
from sgfast.policy.model import Rule

POLICY = """
security_groups:
  - {name: g, rules: [{direction: outbound, protocol: udp}, {direction: inbound, protocol: udp, ports: 7}]}
  - {name: RULES}
instances:
  - {name: router, addresses: [0.0.0.0/0], security_groups: [r]}
  - {name: web, addresses: [192.0.2.5], security_groups: [g]}
"""
SILENT = POLICY.replace("RULES", "r, rules: []")
OPEN = POLICY.replace("RULES", "r, rules: [{direction: outbound, protocol: udp}]")


@pytest.mark.parametrize("group", ["224.0.0.9", "255.255.255.255"])
def test_answer_from_a_multicast_address_meets_the_filter_of_its_owner(group: str) -> None:
    run(SILENT, f"""
        udp web:9 > {group}:10      -> allow rule; ingress -
        udp {group}:10 > web:9      -> deny no-rule; egress deny no-rule; ingress -
        udp web:9 > {group}:10      -> allow established; ingress -
        udp {group}:10 > web:9      -> deny no-rule
    """)  # fmt: skip
    run(OPEN, f"""
        udp web:9 > {group}:10      -> allow rule; ingress -
        udp {group}:10 > web:9      -> allow established; egress allow rule r/outbound/1
        udp {group}:10 > web:9      -> allow established; egress allow established
        udp web:9 > {group}:10      -> allow established; ingress -
        udp {group}:8 > web:7       -> allow rule; egress allow rule r/outbound/1
        udp web:7 > {group}:8       -> allow established; ingress -
    """)  # fmt: skip


def test_change_leaves_the_sides_that_a_multicast_source_opened() -> None:
    run(OPEN, """
        @0 udp 224.0.0.9:8 > web:7     -> allow rule; egress allow rule
        @1 apply rule                  -> 0 disconnected
        @2 udp 224.0.0.9:8 > web:7     -> allow established; egress allow established
        @3 udp web:7 > 224.0.0.9:8     -> allow established; ingress -
        @4 apply gone                  -> 0 disconnected
        @5 udp 224.0.0.9:8 > web:7     -> allow established; egress -
    """, changes={"rule": AddRule("r", Rule("", "inbound", 4)), "gone": RemoveInstance("router")})  # fmt: skip


MORE = {"rule": AddRule("g", Rule("", "outbound", 4, 17)), "gone": RemoveInstance("speaker")}


def test_change_keeps_a_connection_inferred_from_what_goes_to_a_multicast_address_in_the_same_prefix() -> None:
    """Packets that the group would send are local (3.3), packets that are sent to it are not (6.11)."""
    run(POLICY.replace("RULES", "r, rules: [{direction: inbound, protocol: tcp}]"), """
        @0 tcp router:1 > 224.0.0.9:1024 A     -> allow inferred; egress allow inferred r/inbound/1; ingress -
        @1 tcp router:1 > 224.0.0.9:1024 A     -> allow established; ingress -
        @2 apply rule                          -> 0 disconnected
        @3 tcp router:1 > 224.0.0.9:1024 A     -> allow established; egress allow established; ingress -
        @3 tcp 224.0.0.9:1024 > router:1 A     -> local
    """.replace("router", "198.51.100.1"), changes=MORE, midstream="infer")  # fmt: skip


@pytest.mark.parametrize("first", ["there", "back"])
def test_change_after_which_one_instance_has_a_multicast_address_and_who_sends_to_it(first: str) -> None:
    """The sender's filter keeps the connection, whoever began it, and that of the address forgets it."""
    speaker = "  - {name: speaker, addresses: [224.0.0.0/24], security_groups: [g]}\n"
    policy = OPEN.replace("protocol: udp}]}\n", "protocol: udp}, {direction: inbound, protocol: udp}]}\n") + speaker
    there, back = "udp router:9 > 224.0.0.9:7", "udp 224.0.0.9:7 > router:9"
    packets = [f"{there} -> allow; ingress -", f"{back} -> allow; egress allow; ingress allow"]
    run(policy, "\n".join([
        *(packets if first == "there" else reversed(packets)), f"{there} -> allow established; ingress -",
        "@1 apply gone -> 0 disconnected",
        f"@2 {back} -> local", f"@2 {there} -> allow established; egress allow established; ingress -",
    ]).replace("router", "198.51.100.1"), changes=MORE)  # fmt: skip


def test_error_is_about_the_connection_of_a_multicast_addresss_owner() -> None:
    run(OPEN, """
        udp 224.0.0.9:8 > web:7                                    -> allow rule
        error 198.51.100.1 > 224.0.0.9 about udp 224.0.0.9:8 > web:7   -> allow related r/outbound/1; ingress -
        error 198.51.100.1 > 224.0.0.9 about udp 224.0.0.9:9 > web:7   -> deny invalid
        error 198.51.100.1 > web about udp web:7 > 224.0.0.9:8         -> allow related; egress allow related
        udp 198.51.100.1:5 > 224.0.0.9:5                               -> allow rule
        error 198.51.100.2 > 198.51.100.1 about udp 198.51.100.1:5 > 224.0.0.9:5   -> local
        error 198.51.100.2 > 224.0.0.9 about udp 224.0.0.9:5 > 198.51.100.1:5      -> allow related; ingress -
    """)  # fmt: skip


def test_nothing_answers_what_a_multicast_address_sends_to_itself() -> None:
    run(SILENT.replace("rules: []", "rules: [{direction: outbound, protocol: udp, ports: 8}]"), """
        udp 224.0.0.9:7 > 224.0.0.9:8       -> allow rule; egress allow rule; ingress -
        udp 224.0.0.9:7 > 224.0.0.9:8       -> allow established; ingress -
        udp 224.0.0.9:8 > 224.0.0.9:7       -> deny no-rule; egress deny no-rule; ingress -
    """)  # fmt: skip


ITSELF = """
version: 1
security_groups:
  - name: r
    rules:
      - {direction: outbound, protocol: tcp}
      - {direction: outbound, protocol: udp, ports: 7-8}
      - {direction: outbound, protocol: udp, ports: 7-8, ethertype: IPv6}
      - {direction: outbound, protocol: icmp, icmp_type: 8}
      - {direction: outbound, protocol: sctp, ports: 9}
instances:
  - {name: router, addresses: [0.0.0.0/0, "::/0"], security_groups: [r]}
"""


def sent_to_itself(rng: np.random.Generator, address: str) -> list[bytes]:
    """A packet, or one in two fragments."""
    sport, dport = (int(port) for port in rng.integers(7, 10, 2))
    six = ":" in address
    match rng.integers(6):
        case 0:
            layer = f.tcp(sport, dport, str(rng.choice(["S", "SA", "A", "FA", "R"])))
        case 1:
            layer = f.sctp(sport, dport)
        case 2:
            layer = f.icmpv6(int(rng.choice([128, 129]))) if six else f.icmp(int(rng.choice([8, 0, 13, 14, 9])))
        case 3:
            quoted = f.ip(address, address, f.udp(sport, dport))
            layer = f.icmpv6_error(1, 4, quoted) if six else f.icmp_error(3, 3, quoted)
        case 4:
            layer = f.other(47, bytes(8))
        case _:
            layer = f.udp(sport, dport, bytes(8))
            if not six and rng.integers(2):
                number, rest = int(rng.integers(3)), f.other(17, layer[8:])
                first = f.ip(address, address, f.other(17, layer[:8]), more_fragments=True, identification=number)
                second = f.ip(address, address, rest, fragment_offset=1, identification=number)
                return [first, second] if rng.integers(2) else [second, first]
    return [f.ip(address, address, layer)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_what_a_multicast_address_sends_to_itself(seed: int, mode: str) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    packets = [
        packet for _ in range(1000)
        for packet in sent_to_itself(rng, str(rng.choice(["224.0.0.9", "255.255.255.255", "ff02::9"])))
    ]  # fmt: skip
    traffic = Traffic(
        [f.ethernet(packet) for packet in packets], [n * SECOND // 10 for n in range(len(packets))],
        [14 + len(packet) for packet in packets],
    )  # fmt: skip
    seen: Counter[object] = Counter()
    compare(parse_policy(ITSELF), traffic, (mode, "infer", None), 100, seen)
    assert seen["reason", "established"] > 100 and seen["reason", "related"] and seen["was pending", "allow", "rule"]
