"""The clock, causal mode and connections older than the capture (SPEC 9.1 to 9.3). ``scenario`` explains the tables."""

from __future__ import annotations

import pytest
from peers_and_filter import (
    FILTER,
    PEERS,
    either_setting,
    room_for,
    timeouts,
)
from scenario import (
    run,
    run_both_families,
)

from sgfast.engine import Engine

# --- SPEC 9.1: the clock


def test_late_packets_are_taken_to_be_on_time() -> None:
    engine = run_with_clock("""
        @0        udp client:1 > web:80  -> allow rule
        @20       udp client:2 > web:80  -> allow rule
        # 60 s too late is late
        @-40      udp client:3 > web:80  -> allow rule
        @20       udp client:1 > web:80  -> allow established
        # 3 began at 20, not at -40
        @50-1ns   udp client:3 > web:80  -> allow established
        @50       udp client:2 > web:80  -> allow rule
    """)  # fmt: skip
    counters = engine.dataplane.counters
    assert (counters["late"], counters["most_late_ns"], counters["restarts"]) == (1, 60 * 10**9, 0)


def test_clock_that_falls_back_further_goes_on_from_there() -> None:
    engine = run_with_clock("""
        @1000          udp client:1 > web:80  -> allow rule
        # a nanosecond more than 60 s: the clock restarts here, no time passed
        @940-1ns       udp client:2 > web:80  -> allow rule
        @970-2ns       udp client:1 > web:80  -> allow established
        @970-1ns       udp client:2 > web:80  -> allow rule
        # back where it was: that is 30 s on
        @1000-1ns      udp client:2 > web:80  -> allow rule
        # and once more, by years
        @-100000000    udp client:2 > web:80  -> allow established
        @-99999970-1ns udp client:2 > web:80  -> allow established
    """)  # fmt: skip
    assert (engine.dataplane.counters["late"], engine.dataplane.counters["restarts"]) == (0, 2)


def run_with_clock(script: str) -> Engine:
    run(PEERS, script, family=6)
    return run(PEERS, script)


# --- SPEC 9.2: causal mode


def test_what_follows_a_denied_opener_is_moot() -> None:
    """SPEC 3.5, 9.2."""
    run_both_families(FILTER, """
        @0   tcp client:40000 > web:22 S    -> deny no-rule
        @1   tcp web:22 > client:40000 SA   -> moot opener-denied; egress -; ingress -
        @2   tcp client:40000 > web:22 A    -> moot opener-denied
        @2   tcp client:40000 > web:22 PA   -> moot opener-denied
        @2   tcp client:40000 > web:22 R    -> moot opener-denied
        @2   tcp web:22 > client:40000 RA   -> moot opener-denied
        # a SYN of the other end too, and flags that contradict themselves
        @3   tcp web:22 > client:40000 S    -> moot opener-denied
        @3   tcp client:40000 > web:22 SF   -> moot opener-denied
        @3   tcp client:40000 > web:22 none -> moot opener-denied
        # errors that quote the key, either way round
        @4   error web > client about tcp client:40000 > web:22 S   -> moot opener-denied
        @4   error router > web about tcp web:22 > client:40000 SA  -> moot opener-denied
        # the initiator tries again
        @5   tcp client:40000 > web:22 S    -> deny no-rule
        @5   tcp web:22 > client:40000 SA   -> moot opener-denied
        # other keys are none of this
        @6   tcp client:40000 > web:80 S    -> allow rule
        @6   tcp client:40001 > web:22 A    -> deny midstream
    """, mode="causal")  # fmt: skip


def test_verbatim_mode_judges_what_follows() -> None:
    run_both_families(FILTER, """
        tcp client:40000 > web:22 S    -> deny no-rule
        tcp web:22 > client:40000 SA   -> deny midstream
        tcp client:40000 > web:22 A    -> deny midstream
        tcp web:22 > client:40000 S    -> deny no-rule
    """)  # fmt: skip


@either_setting
def test_moot_key_is_forgotten_after_silence_only(seconds: dict[str, float]) -> None:
    end = seconds["tcp_established"]
    run_both_families(FILTER + timeouts(**seconds), f"""
        @0              tcp client:40000 > web:22 S   -> deny no-rule
        @{end}-1ns      tcp web:22 > client:40000 SA  -> moot opener-denied
        @{2 * end}-2ns  tcp client:40000 > web:22 A   -> moot opener-denied
        # a judged packet keeps it moot as well
        @{3 * end}-3ns  tcp client:40000 > web:22 S   -> deny no-rule
        @{4 * end}-4ns  tcp client:40000 > web:22 A   -> moot opener-denied
        # an error does not
        @{5 * end}-5ns  error web > client about tcp client:40000 > web:22 S -> moot opener-denied
        @{5 * end}-4ns  tcp client:40000 > web:22 A   -> deny midstream
    """, mode="causal")  # fmt: skip


@either_setting
@pytest.mark.parametrize("protocol", ["udp", "udplite", "sctp", "dccp"])
def test_without_tcp_only_the_responder_is_moot(protocol: str, seconds: dict[str, float]) -> None:
    end = seconds["unidirectional"]
    run_both_families(PEERS + timeouts(**seconds), f"""
        @0             {protocol} web:4000 > client:53  -> deny no-rule
        # client may call web, but not as an answer
        @1             {protocol} client:53 > web:4000  -> moot opener-denied
        @1             {protocol} web:4000 > client:53  -> deny no-rule
        @{1 + end}-1ns {protocol} client:53 > web:4000  -> moot opener-denied
        @{1 + 2 * end}-2ns error router > web about {protocol} web:4000 > client:53 -> moot opener-denied
        @{1 + 2 * end}-1ns {protocol} client:53 > web:4000  -> allow rule
        @{1 + 2 * end}-1ns {protocol} web:4000 > client:53  -> allow established
    """, mode="causal")  # fmt: skip


# Packets that do not say which end calls, and the same from the other end.
EITHER_MAY_CALL = [
    ("udp web:123 > client:123", "udp client:123 > web:123"),
    ("udp web:51820 > client:51820", "udp client:51820 > web:51820"),
    ("sctp web:9 > client:9", "sctp client:9 > web:9"),
    ("udplite web:9 > client:9", "udplite client:9 > web:9"),
    ("dccp web:9 > client:9", "dccp client:9 > web:9"),
    ("gre web > client", "gre client > web"),
    ("esp web > client", "esp client > web"),
    ("112 web > client", "112 client > web"),
]


def test_peers_with_equal_ports_or_none_open_independently() -> None:
    for packet, back in EITHER_MAY_CALL:
        engines = [run(PEERS, f"""
            @0 {packet} -> deny no-rule
            @2 {back}   -> allow rule; egress -; ingress allow rule
            @2 {packet} -> allow established
        """, mode="causal", family=family) for family in (4, 6)]  # fmt: skip
        # The attempt is over, and the other end opened a connection.
        assert [{k: e.dataplane.counters[k] for k in ("denied", "opened")} for e in engines] == [
            {"denied": 1, "opened": 1}
        ] * 2


@either_setting
def test_peers_answer_to_a_denied_packet_is_moot_if_the_rules_deny_it(seconds: dict[str, float]) -> None:
    end = seconds["unidirectional"]
    for packet, back in EITHER_MAY_CALL:
        run_both_families(FILTER + timeouts(**seconds), f"""
            @0               {packet} -> deny no-rule
            @{end}-1ns       {back}   -> moot opener-denied; egress -; ingress -
            # a moot packet breaks the silence, and a new attempt does
            @{2 * end}-2ns   {packet} -> deny no-rule
            @{3 * end}-3ns   {back}   -> moot opener-denied
            # an error does not
            @{4 * end}-4ns   error client > web about {packet} -> moot opener-denied
            @{4 * end}-4ns   error web > client about {back}   -> moot opener-denied
            # after the silence, whoever comes first has called
            @{4 * end}-3ns   {back}   -> deny no-rule
            @{4 * end}-3ns   {packet} -> moot opener-denied
        """, mode="causal")  # fmt: skip
        run_both_families(FILTER, f"{packet} -> deny no-rule\n{back} -> deny no-rule")


def test_peer_between_two_filters_opens_only_if_both_allow_it() -> None:
    policy = FILTER + '''  - {name: twin, addresses: [10.0.0.7, "2001:db8::7"], security_groups: [d]}\n'''
    engine = run(policy, """
        # web's filter lets port 123 in no more than out; db's lets everything out
        @0 udp web:123 > db:123  -> deny no-rule; egress deny no-rule; ingress -
        @0 udp db:123 > web:123  -> moot opener-denied; egress -; ingress -
        @1 udp db:124 > web:124  -> deny no-rule; egress allow rule; ingress deny no-rule
        @1 udp web:124 > db:124  -> moot opener-denied; egress -; ingress -
        @1 udp db:124 > web:124  -> deny no-rule; egress allow established; ingress deny no-rule
    """, mode="causal")
    # A moot packet leaves no connection behind at the filter that would allow it, and hits no rule of that filter.
    counts = {rule.id: engine.dataplane.rule_counts[n] for n, rule in enumerate(engine.rules)}
    assert (counts["d/outbound/1"]["connections"], counts["d/outbound/1"]["packets"]) == (1, 2)
    run_both_families(policy, """
        @0 udp web:80 > db:80    -> deny no-rule; egress deny no-rule; ingress -
        @2 udp db:80 > web:80    -> allow rule; egress allow rule; ingress allow rule
        @2 udp web:80 > db:80    -> allow established; egress allow established; ingress allow established
        # the first packet got as far as the second filter, where the answer is a call
        @3 gre db > twin         -> deny no-rule; egress allow rule; ingress deny no-rule
        @3 gre twin > db         -> allow established; egress allow rule; ingress allow established
        @3 gre db > twin         -> allow established
    """, mode="causal")


@either_setting
def test_reply_to_a_denied_ping_is_moot(seconds: dict[str, float]) -> None:
    end = seconds["icmp"]
    run_both_families(FILTER + timeouts(**seconds), f"""
        @0              ping client > web id=4  -> deny no-rule
        @{end}-1ns      pong web > client id=4  -> moot opener-denied; egress -; ingress -
        @{2 * end}-2ns  ping client > web id=4  -> deny no-rule
        @{3 * end}-3ns  pong web > client id=4  -> moot opener-denied
        @{4 * end}-4ns  error web > client about ping client > web id=4 -> moot opener-denied
        @{4 * end}-4ns  pong web > client id=5  -> deny invalid
        @{4 * end}-3ns  pong web > client id=4  -> deny invalid
    """, mode="causal")  # fmt: skip
    run_both_families(PEERS, """
        @0 ping web > client id=4     -> deny no-rule
        # the other end's own ping is another key, whose reply is its own
        @0 ping client > web id=4     -> allow rule
        @0 pong web > client id=4     -> allow established
        @0 pong client > web id=4     -> moot opener-denied
        # both filters of a ping between instances
        @1 ping web > db id=4         -> deny no-rule; egress deny no-rule; ingress -
        @1 pong db > web id=4         -> moot opener-denied; egress -; ingress -
    """, mode="causal")
    run_both_families(FILTER, "ping client > web id=4 -> deny no-rule\npong web > client id=4 -> deny invalid")


def test_every_kind_of_icmp_query_has_its_own_moot_reply() -> None:
    run(FILTER, """
        icmp client > web 13/0 id=4 -> deny no-rule
        icmp web > client 14/0 id=4 -> moot opener-denied
        icmp web > client 16/0 id=4 -> deny invalid
        icmp client > web 17/0 id=4 -> deny no-rule
        icmp web > client 18/0 id=4 -> moot opener-denied
        # ICMP type 10 is no query: only an ICMP error can answer it
        icmp client > web 10/0      -> deny no-rule
        icmp web > client 10/0      -> deny no-rule
        error web > client about icmp client > web 10/0 -> moot opener-denied
        error web > client about icmp client > web 9/0  -> deny invalid
    """, mode="causal")  # fmt: skip


# --- SPEC 9.3: connections older than the capture


@pytest.mark.parametrize(("midstream", "inside", "outside"), [
    ("deny", "deny midstream", "deny midstream"),
    ("infer", "allow inferred", "deny midstream"),
    ("allow", "allow inferred", "allow inferred"),
])  # fmt: skip
@either_setting
def test_window_of_inference_is_open_at_its_end(
    midstream: str, inside: str, outside: str, seconds: dict[str, float]
) -> None:
    end = seconds["tcp_established"]
    run_both_families(FILTER + timeouts(**seconds), f"""
        # any packet of the capture begins the window
        @3                 udp other:1 > client:1       -> out-of-scope
        @{3 + end}-1ns     tcp client:40000 > web:80 A  -> {inside}
        @{3 + end}         tcp client:40001 > web:80 A  -> {outside}
        @{3 + 100 * end}   tcp client:40002 > web:80 A  -> {outside}
    """, midstream=midstream)  # fmt: skip


def test_inferred_state_is_that_of_the_packet() -> None:
    run_both_families(FILTER, """
        # data: established
        @0       tcp client:40000 > web:80 PA   -> allow inferred
        @600-1ns tcp client:40000 > web:80 S    -> allow established
        @600     tcp client:40000 > web:80 S    -> allow rule
        """, midstream="infer")  # fmt: skip
    run_both_families(FILTER, """
        # a FIN: FIN-WAIT
        @0       tcp client:40000 > web:80 FA   -> allow inferred
        @30-1ns  tcp client:40000 > web:80 S    -> allow established
        @30      tcp client:40000 > web:80 S    -> allow rule
        """, midstream="infer")  # fmt: skip
    run_both_families(FILTER, """
        # a SYN/ACK: SYN received
        @0       tcp web:80 > client:40000 SA   -> allow inferred
        @30-1ns  tcp web:80 > client:40000 SA   -> allow established
        @30-1ns  tcp client:40000 > web:80 A    -> allow established
        @630-2ns tcp web:80 > client:40000 PA   -> allow established
        """, midstream="infer")  # fmt: skip


def test_who_is_inferred_to_have_called() -> None:
    for packet, said in [
        ("tcp client:40000 > web:80 A", "allow inferred w/inbound/1"),
        ("tcp web:80 > client:40000 A", "allow inferred w/inbound/1"),
        # the higher port called, so web would have called 79
        ("tcp web:80 > client:79 A", "deny no-rule"),
        ("tcp client:79 > web:80 A", "deny no-rule"),
        ("tcp client:81 > web:80 A", "allow inferred w/inbound/1"),
        # a SYN/ACK goes to the caller, whatever the ports
        ("tcp web:80 > client:79 SA", "allow inferred w/inbound/1"),
        ("tcp client:40000 > web:80 SA", "deny no-rule"),
        # equal ports: the sender
        ("tcp client:80 > web:80 A", "allow inferred w/inbound/1"),
        ("tcp web:80 > client:80 A", "deny no-rule"),
        ("tcp client:443 > db:443 A", "deny no-rule"),
        ("tcp db:443 > client:443 A", "allow inferred d/outbound/1"),
        ("tcp client:443 > db:40000 A", "allow inferred d/outbound/1"),
        # a reset infers nothing
        ("tcp client:40000 > web:80 R", "deny midstream"),
        ("tcp client:40000 > web:80 RA", "deny midstream"),
    ]:
        for midstream in ("infer", "allow"):
            run(FILTER, f"{packet} -> {said}", midstream=midstream)


def test_nothing_is_inferred_where_the_opener_was_seen() -> None:
    for midstream in ("infer", "allow"):
        run_both_families(FILTER + timeouts(tcp_other=2), """
            # denied
            @0 tcp client:40000 > web:22 S   -> deny no-rule
            @1 tcp client:40000 > web:22 A   -> deny midstream
            # allowed, and long over
            @1 tcp client:40000 > web:80 S   -> allow rule
            @1 tcp web:80 > client:40000 SA  -> allow established
            @4 tcp client:40000 > web:80 A   -> deny midstream
            @4 tcp web:80 > client:40000 A   -> deny midstream
            # refused
            @5 tcp client:40001 > web:80 S   -> allow rule
            @5 tcp web:80 > client:40001 RA  -> allow established
            @5 tcp client:40001 > web:80 A   -> deny midstream
        """, midstream=midstream)  # fmt: skip


def test_denied_inference_has_the_rules_reason_and_makes_nothing_moot() -> None:
    run_both_families(FILTER, """
        @0   tcp client:40000 > web:22 A  -> deny no-rule
        @1   tcp web:22 > client:40000 A  -> deny no-rule
        @600 tcp client:40000 > web:22 A  -> deny midstream
    """, midstream="infer", mode="causal")  # fmt: skip


def test_inferred_connection_is_answered_and_never_evicted() -> None:
    run_both_families(FILTER + room_for(1), """
        @0 tcp client:40000 > web:80 A   -> allow inferred
        @1 udp client:1 > web:80         -> deny table-full
        @2 tcp web:80 > client:40000 A   -> allow established
    """, midstream="infer")  # fmt: skip
