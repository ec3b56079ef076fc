"""The content of frames, and packets that need no filter (SPEC 3.1 to 3.4). ``scenario`` says how to read a table."""

from __future__ import annotations

import frames as f
import pytest
from peers_and_filter import (
    INSTANCES,
    PEERS,
)
from scenario import (
    START_NS,
    fits,
    from_engine,
    from_reference,
    openers,
    policy_of,
    read_expected,
    run,
    spelled,
)

from sgfast.engine import Engine
from sgfast.reference.engine import ReferenceEngine

# --- SPEC 3.1, 3.3, 3.4: what a frame holds


TO_WEB = ("203.0.113.9", "10.0.0.5")
TO_WEB6 = ("2001:db8:ff::9", "2001:db8::5")
SYN = f.ipv4(*TO_WEB, f.tcp(40000, 80, "S"))
SYN6 = f.ipv6(*TO_WEB6, f.tcp(40000, 80, "S"))
# Frame, what is said of it, and how much of it was captured, if not all.
FRAMES: dict[str, tuple] = {
    "plain": (f.ethernet(SYN), "allow rule"),
    "VLAN": (f.ethernet(f.vlan(SYN)), "allow rule"),
    "QinQ": (f.ethernet(f.vlan(f.vlan(SYN6), tpid=0x88A8)), "allow rule"),
    "MPLS": (f.ethernet(f.mpls(SYN6, labels=3)), "allow rule"),
    "PPPoE": (f.ethernet(f.vlan(f.pppoe(SYN))), "allow rule"),
    "ARP": (f.ethernet(bytes(28), 0x0806), "not-ip"),
    "link header cut": (f.ethernet(SYN), "deny malformed; egress -; ingress -", 13),
    "IP header cut": (f.ethernet(SYN), "deny malformed; egress -; ingress -", 33),
    "IPv6 header cut": (f.ethernet(SYN6), "deny malformed; egress -; ingress -", 53),
    "IPv6 announced, IPv4 inside": (f.ethernet(SYN, 0x86DD), "deny malformed; egress -; ingress -"),
    "padded": (f.ethernet(SYN, padding=20), "allow rule"),
    "segmentation offload": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80, "S"), total_length=0)), "allow rule"),
    "IPv6 segmentation offload": (f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80, "S"), payload_length=0)), "allow rule"),
    "header of 4 words": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80), header_words=4)), "deny malformed; egress -"),
    "total length below header": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80), total_length=19)), "deny malformed"),
    "total length beyond frame": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80), total_length=41)), "deny malformed"),
    "IPv6 payload beyond frame": (f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80), payload_length=21)), "deny malformed"),
    "TCP data offset 4": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80, "S", data_offset=4))), "deny malformed"),
    "TCP options beyond segment": (
        f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80, "S", data_offset=15), total_length=79)), "deny malformed"),
    "TCP shorter than its header": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80), total_length=39)), "deny malformed"),
    "TCP header cut": (f.ethernet(SYN), "deny truncated; egress -", -1),
    "TCP payload cut": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80, "S", bytes(9)))), "allow rule", -9),
    "IPv6 TCP data offset 4": (f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80, "S", data_offset=4))), "deny malformed"),
    "IPv6 TCP options beyond segment": (
        f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80, "S", data_offset=15), payload_length=59)), "deny malformed"),
    "IPv6 TCP header cut": (f.ethernet(SYN6), "deny truncated; egress -", -1),
    "IPv6 TCP payload cut": (f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80, "S", bytes(9)))), "allow rule", -9),
    "UDP of 7 bytes": (f.ethernet(f.ipv4(*TO_WEB, f.udp(4, 80, length=7))), "deny malformed"),
    "UDP of no length": (f.ethernet(f.ipv6(*TO_WEB6, f.udp(4, 80, length=0))), "deny malformed"),
    "UDP beyond payload": (f.ethernet(f.ipv4(*TO_WEB, f.udp(4, 80, length=9))), "deny malformed"),
    "UDP shorter than payload": (f.ethernet(f.ipv4(*TO_WEB, f.udp(4, 80, bytes(9), length=8))), "allow rule"),
    "UDP header cut": (f.ethernet(f.ipv4(*TO_WEB, f.udp(4, 80))), "deny truncated", -1),
    "UDP-Lite coverage is no length": (f.ethernet(f.ipv4(*TO_WEB, f.udplite(4, 80, coverage=9))), "allow rule"),
    "SCTP header cut": (f.ethernet(f.ipv4(*TO_WEB, f.sctp(4, 80))), "deny truncated", -1),
    "ICMP of 7 bytes": (f.ethernet(f.ipv4(*TO_WEB, f.icmp(8), total_length=27)), "deny malformed"),
    "GRE without a byte": (f.ethernet(f.ipv4(*TO_WEB, f.other(47))), "allow rule"),
    "IPv4 options": (f.ethernet(f.ipv4(*TO_WEB, f.tcp(4, 80, "S"), options=bytes(40))), "allow rule"),
    "extension headers": (
        f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80, "S"), extensions=[f.extension(0), f.extension(43, 24),
                                                                  f.extension(60)])), "allow rule"),
    "extension header overruns": (
        f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80), extensions=[f.extension(60, 8, claimed_size=800)])),
        "deny malformed"),
    "extension header cut": (
        f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80), extensions=[f.extension(60, 64)])), "deny truncated", 100),
    "atomic fragment": (f.ethernet(f.ipv6(*TO_WEB6, f.tcp(4, 80, "S"), extensions=[f.fragment()])), "allow rule"),
    "first fragment of a long UDP datagram": (
        f.ethernet(f.ipv4(*TO_WEB, f.udp(4, 80, bytes(16), length=4000), more_fragments=True)), "allow rule"),
    "later fragment": (f.ethernet(f.ipv4(*TO_WEB, f.udp(4, 80), fragment_offset=1)), "pending"),
    "later fragment, 32 KiB on": (
        f.ethernet(f.ipv4(*TO_WEB, f.udp(4, 80), fragment_offset=4096)), "pending"),
    "to nobody, malformed": (
        f.ethernet(f.ipv4("192.0.2.1", "192.0.2.2", f.tcp(4, 80), total_length=9)), "out-of-scope"),
    "to oneself, malformed": (f.ethernet(f.ipv4("10.0.0.5", "10.0.0.5", f.tcp(4, 80), total_length=9)), "local"),
    "from an instance, malformed": (
        f.ethernet(f.ipv4("10.0.0.5", "10.0.0.6", f.tcp(4, 80), total_length=9)), "deny malformed; ingress -"),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_what_a_frame_holds(name: str) -> None:
    frame, words, *kept = FRAMES[name]
    captured = frame[: kept[0]] if kept else frame
    policy = policy_of(PEERS)
    engine, reference = Engine(policy), ReferenceEngine(policy)
    said = from_engine(engine, engine.process_frames([captured], [START_NS], wire_lengths=[len(frame)])[0])
    assert said == from_reference(reference.process_frame(START_NS, captured, wire_length=len(frame)))
    assert fits(said, read_expected(words)), spelled(said)
    if not words.startswith("allow"):
        assert engine.dataplane.counters["live_tuples"] == 0


def test_broken_packets_touch_no_connection() -> None:
    policy = policy_of(PEERS)
    engine = Engine(policy)
    steps = [(0, "S", {}, "rule"), (29, "S", {"total_length": 9}, "malformed"), (30, "A", {}, "midstream")]
    for time, flags, options, reason in steps:
        frame = f.ethernet(f.ipv4(*TO_WEB, f.tcp(40000, 80, flags), **options))
        row = engine.process_frames([frame], [time * 10**9])[0]
        assert from_engine(engine, row)[""][1] == reason


# --- SPEC 3.2: infrastructure


INFRASTRUCTURE = """
        udp 10.0.0.5:68 > 255.255.255.255:67            -> {0}
        udp 10.0.0.5:68 > 192.0.2.1:67                  -> {0}
        udp 192.0.2.1:67 > 10.0.0.5:68                  -> {0}
        udp [2001:db8::5]:546 > [ff02::1:2]:547         -> {0}
        udp [2001:db8:ff::1]:547 > [2001:db8::5]:546    -> {0}
        icmpv6 2001:db8::5 > ff02::16 143/0             -> {0}
        icmpv6 2001:db8:ff::1 > 2001:db8::5 130/0       -> {0}
        icmpv6 2001:db8:ff::1 > 2001:db8::5 131/0       -> {0}
        icmpv6 2001:db8:ff::1 > 2001:db8::5 132/0       -> {0}
"""
NOT_INFRASTRUCTURE = """
        # ND from afar: hop limit 64
        icmpv6 2001:db8:ff::1 > 2001:db8::5 135/0       -> deny no-rule
        udp 10.0.0.5:67 > 192.0.2.1:67                  -> deny no-rule
        udp 10.0.0.5:68 > 192.0.2.1:68                  -> deny no-rule
        tcp 10.0.0.5:68 > 192.0.2.1:67                  -> deny no-rule
        udp 10.0.0.5:546 > 192.0.2.1:547                -> deny no-rule
        udp [2001:db8::5]:68 > [2001:db8:ff::1]:67      -> deny no-rule
        icmpv6 2001:db8:ff::1 > 2001:db8::5 138/0       -> deny no-rule
        icmpv6 2001:db8:ff::1 > 2001:db8::5 144/0       -> deny no-rule
"""
NO_RULES = "security_groups: [{name: w}, {name: d}]" + INSTANCES


def test_infrastructure_is_exempt_and_never_tracked() -> None:
    engine = run(NO_RULES, INFRASTRUCTURE.format("exempt; egress -; ingress -"))
    assert engine.dataplane.counters["live_tuples"] == 0
    openers(NO_RULES, NOT_INFRASTRUCTURE)


def test_infrastructure_is_exempt_even_where_it_is_in_no_scope() -> None:
    openers(NO_RULES, """
        udp 0.0.0.0:68 > 255.255.255.255:67     -> exempt
        icmpv6 fe80::1 > ff02::1 130/0          -> exempt
    """)  # fmt: skip


def test_infrastructure_can_be_filtered() -> None:
    openers(NO_RULES + "settings: {infrastructure: filtered}\n", INFRASTRUCTURE.format("deny no-rule"))
    openers(PEERS + "settings: {infrastructure: filtered}\n", """
        udp 192.0.2.1:67 > 10.0.0.5:68      -> allow rule w/inbound/1
        icmpv6 2001:db8:ff::1 > 2001:db8::5 130/0 -> allow rule w/inbound/2
    """)  # fmt: skip


@pytest.mark.parametrize("kind", range(133, 138))
@pytest.mark.parametrize(("hop_limit", "said"), [(255, "exempt"), (254, "deny no-rule"), (1, "deny no-rule")])
def test_neighbour_discovery_is_exempt_with_hop_limit_255_only(kind: int, hop_limit: int, said: str) -> None:
    policy = policy_of(NO_RULES)
    frame = f.ethernet(f.ipv6("2001:db8:ff::1", "2001:db8::5", f.icmpv6(kind), hop_limit=hop_limit))
    engine = Engine(policy)
    assert spelled(from_engine(engine, engine.process_frames([frame], [0])[0])).startswith(said)
    assert spelled(from_reference(ReferenceEngine(policy).process_frame(0, frame))).startswith(said)


@pytest.mark.parametrize("kind", [138, 142, 144])
def test_types_beside_infrastructure_are_filtered_even_with_hop_limit_255(kind: int) -> None:
    policy = policy_of(NO_RULES)
    frame = f.ethernet(f.ipv6("2001:db8:ff::1", "2001:db8::5", f.icmpv6(kind), hop_limit=255))
    engine = Engine(policy)
    assert spelled(from_engine(engine, engine.process_frames([frame], [0])[0])).startswith("deny no-rule")
    assert spelled(from_reference(ReferenceEngine(policy).process_frame(0, frame))).startswith("deny no-rule")
