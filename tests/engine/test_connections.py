"""The life of connections, the packets of one, and ICMP errors about one (SPEC 4.1, 4.6, 5.1, 5.2, 3.7).

``scenario`` says how to read a table.
"""

from __future__ import annotations

from dataclasses import replace

import frames as f
import pytest
from peers_and_filter import (
    FILTER,
    PEERS,
    either_setting,
    tcp,
    timeouts,
)
from scenario import (
    SECOND,
    START_NS,
    from_engine,
    from_reference,
    policy_of,
    run,
    run_both_families,
    spelled,
)

from sgfast.engine import Engine
from sgfast.policy.changes import RemoveInstance, RemoveRule
from sgfast.reference.engine import ReferenceEngine

# --- SPEC 4.1, 5.2: deadlines


# Ways to each state, how long it lasts, and a packet that tells whether it lives without prolonging it: what
# Linux ignores, or a retransmitted SYN.
STATES = {
    "SYN sent": (["> S"], "tcp_other", "> S"),
    "SYN received": (["> S", "< SA"], "tcp_other", "< SA"),
    "established": (["> S", "< SA", "> A"], "tcp_established", "> S"),
    "FIN wait": (["> S", "< SA", "> A", "> FA"], "tcp_fin_wait", "> S"),
    "FIN wait, closed by web": (["> S", "< SA", "> A", "< FA"], "tcp_fin_wait", "> S"),
    "close wait": (["> S", "< SA", "> A", "> FA", "< A"], "tcp_other", "> S"),
    "last ACK": (["> S", "< SA", "> A", "> FA", "< FA"], "tcp_other", "> S"),
    "time wait": (["> S", "< SA", "> A", "> FA", "< FA", "> A"], "tcp_other", "< SA"),
    "closed": (["> S", "< SA", "< RA"], "tcp_other", "< SA"),
    "SYN sent by both": (["> S", "< S", "> S"], "tcp_other", "< A"),
    "SYN sent by both and received": (["> S", "< S", "< SA"], "tcp_other", "< SA"),
}


@either_setting
@pytest.mark.parametrize("state", STATES)
def test_tcp_state_lives_until_its_deadline_and_not_at_it(state: str, seconds: dict[str, float]) -> None:
    steps, name, probe = STATES[state]
    end = 5 + seconds[name]
    dead = "allow rule" if probe == "> S" else "deny midstream"
    policy = PEERS + timeouts(**seconds)
    run_both_families(policy, tcp(*(f"@5 {step}" for step in steps), f"@{end}-1ns {probe} -> allow established",
                                  f"@{end} {probe} -> {dead}"))  # fmt: skip


def test_syn_and_syn_ack_on_established_prolong_nothing() -> None:
    run_both_families(PEERS, tcp(
        "@0 > S", "@0 < SA", "@0 > A",
        "@599 > S -> allow established",
        "@599 < SA -> allow established",
        "@599 > SA -> deny invalid",
        "@599 < S -> deny invalid",
        "@600-1ns > S -> allow established",
        "@600 < A -> deny midstream",
    ))  # fmt: skip


def test_retransmitted_syn_leaves_the_deadline_and_the_answer_moves_it() -> None:
    run_both_families(PEERS, tcp(
        "@0 > S -> allow rule",
        "@29 > S -> allow established",
        "@30-1ns > S -> allow established",
        "@30 > S -> allow rule",
        "@31 > S -> allow established",
        "@59 < SA -> allow established",
        "@89-1ns < SA -> allow established",
        "@89 < SA -> deny midstream",
    ))  # fmt: skip


def test_denied_packets_prolong_nothing_and_change_nothing() -> None:
    """SPEC 4.5, 5.3."""
    run_both_families(PEERS, tcp(
        "@0 > S", "@0 < SA", "@0 > A",
        "@599 > SF -> deny invalid",
        "@599 > none -> deny invalid",
        "@599 > F -> deny invalid",
        "@599 < SR -> deny invalid",
        "@599 < FSRPAU -> deny invalid",
        "@599 < S -> deny invalid",
        "@600 > A -> deny midstream",
    ))  # fmt: skip


@either_setting
@pytest.mark.parametrize("protocol", ["udp", "udplite", "sctp", "dccp", "gre", "esp", "253"])
def test_other_protocols_live_longer_once_both_ends_spoke(protocol: str, seconds: dict[str, float]) -> None:
    """SPEC 4.12, 5.7."""
    one_way, both_ways = seconds["unidirectional"], seconds["bidirectional"]
    ports = protocol in ("udp", "udplite", "sctp", "dccp")
    there = f"{protocol} client:4000 > web:80" if ports else f"{protocol} client > web"
    back = f"{protocol} web:80 > client:4000" if ports else f"{protocol} web > client"
    run_both_families(PEERS + timeouts(**seconds), f"""
        @0                            {there} -> allow rule
        @{one_way}-1ns                {there} -> allow established
        @{2 * one_way}-1ns            {there} -> allow rule
        @{2 * one_way}                {there} -> allow established
        @{3 * one_way}-1ns            {back}  -> allow established
        @{3 * one_way + both_ways}-2ns {there} -> allow established
        # one end alone keeps it going now
        @{3 * one_way + 2 * both_ways}-3ns {there} -> allow established
        @{3 * one_way + 3 * both_ways}-3ns {there} -> allow rule
        # a new one: nobody answered it yet
        @{4 * one_way + 3 * both_ways}-3ns {back} -> deny no-rule
    """)  # fmt: skip


@either_setting
def test_icmp_query_and_one_way_icmp_deadlines(seconds: dict[str, float]) -> None:
    end = seconds["icmp"]
    run_both_families(PEERS + timeouts(**seconds), f"""
        @0                ping client > web      -> allow rule
        @{end}-1ns        pong web > client      -> allow established
        @{2 * end}-2ns    pong web > client      -> allow established
        @{3 * end}-2ns    pong web > client      -> deny invalid
        @{3 * end}-2ns    ping client > web      -> allow rule
    """)  # fmt: skip
    run(PEERS + timeouts(**seconds), f"""
        @0                icmp client > web 9/0  -> allow rule
        @{end}-1ns        icmp client > web 9/0  -> allow established
        # another code is another connection, and the way back a third, which no rule allows
        @{end}-1ns        icmp client > web 9/16 -> allow rule
        @{end}-1ns        icmp web > client 9/0  -> deny no-rule
        @{2 * end}-1ns    icmp client > web 9/0  -> allow rule
    """)  # fmt: skip


# --- SPEC 5.1: keys


def test_ports_protocols_and_families_keep_connections_apart() -> None:
    run(FILTER, """
        udp client:4000 > web:80            -> allow rule
        udp web:80 > client:4000            -> allow established
        udp web:80 > client:4001            -> deny no-rule
        udp web:443 > client:4000           -> deny no-rule
        udp web:80 > other:4000             -> deny no-rule
        tcp web:80 > client:4000 SA         -> deny midstream
        udplite web:80 > client:4000        -> deny no-rule
        udp web:4000 > client:80            -> deny no-rule
        udp web:80 > [2001:db8:ff::9]:4000  -> deny no-rule
    """)  # fmt: skip


@pytest.mark.parametrize(("query", "reply"), [(8, 0), (13, 14), (15, 16), (17, 18)])
def test_icmp_query_and_reply_by_kind_and_identifier(query: int, reply: int) -> None:
    others = [kind for kind in (0, 14, 16, 18) if kind != reply]
    run(PEERS, f"""
        icmp web > client {reply}/0 id=5        -> deny invalid
        icmp client > web {query}/0 id=5        -> allow rule
        icmp web > client {reply}/0 id=5        -> allow established
        icmp web > client {reply}/0 id=6        -> deny invalid
        icmp client > web {reply}/0 id=5        -> deny invalid
        icmp web > other {reply}/0 id=5         -> deny invalid
        icmp web > client {others[0]}/0 id=5    -> deny invalid
        icmp web > client {others[1]}/0 id=5    -> deny invalid
        icmp web > client {others[2]}/0 id=5    -> deny invalid
    """)  # fmt: skip


# --- SPEC 14.12: how many are open


@pytest.mark.parametrize("jobs", [1, 2])
def test_open_are_connections_that_neither_ended_nor_timed_out_nor_were_cut(jobs: int) -> None:
    engine = Engine(policy_of(PEERS), mode="causal", jobs=jobs)

    def dialogue(steps: str, there: str = "10.0.0.5", at: int = 0) -> int:
        here = "203.0.113.9"
        for step in steps.split():
            ends = (here, there) if step[0] == ">" else (there, here)
            ports = {"sport": 40000, "dport": 80} if step[0] == ">" else {"sport": 80, "dport": 40000}
            assert engine.check(*ends, "tcp", **ports, flags=step[1:], time_ns=at).allowed
        return engine.open_connections

    assert engine.open_connections == 0
    assert dialogue(">S") == dialogue("<SA >A") == 1
    assert dialogue(">FA") == 1 and dialogue("<FA >A") == 0         # TIME-WAIT is over
    assert dialogue(">S <SA >A", "10.0.0.6") == 1 and dialogue("<RA", "10.0.0.6") == 0
    assert engine.dataplane.connections == 2                        # both are still remembered
    # The filters of both ends remember this connection, and it counts once. What is denied after it does not count.
    assert engine.check("10.0.0.6", "10.0.0.5", "udp", sport=1, dport=2).allowed and engine.open_connections == 1
    assert not engine.check("10.0.0.5", "203.0.113.9", "udp", sport=1, dport=2).allowed
    assert engine.open_connections == 1
    engine.apply({"remove_rule": {"group": "w", "rule": "w/inbound/1"}}, 0)
    assert engine.open_connections == 0                             # web's filter denies it now, db's would not
    assert dialogue(">S", "10.0.0.6", at=29 * SECOND) == 1
    assert engine.check("203.0.113.9", "10.0.0.6", "tcp", sport=40000, dport=80, time_ns=59 * SECOND - 1).allowed
    assert engine.open_connections == 1
    engine.check("203.0.113.9", "198.51.100.10", "udp", sport=1, dport=2, time_ns=59 * SECOND)
    assert engine.open_connections == 0


def test_what_one_filter_forgets_is_open_while_the_other_remembers_it() -> None:
    policy = policy_of(PEERS)
    engine = Engine(replace(policy, settings=replace(policy.settings, on_change="forget-unmatched")))
    assert engine.check("10.0.0.6", "10.0.0.5", "udp", sport=1, dport=2).allowed
    assert engine.apply(RemoveRule("w", "w/inbound/1"), 0).disconnected == 1 and engine.open_connections == 1
    engine.apply(RemoveInstance("db"), 0)
    assert engine.open_connections == 0


def test_a_change_tells_those_that_had_ended_from_the_others_that_it_cuts() -> None:
    """SPEC 6.12."""
    opened = ("@0 > S", "@0 < SA", "@0 > A")
    talks = (opened, (*opened, "@0 < RA"), (*opened, "@0 > FA", "@0 < FA", "@0 > A"))
    lines = [tcp(*talk, port=40000 + n) for n, talk in enumerate(talks)]
    end = "@1 apply less -> 3 disconnected, 2 finished"
    run_both_families(PEERS, "\n".join([*lines, end]), changes={"less": RemoveRule("w", "w/inbound/1")})


# --- SPEC 4.6: ICMP errors


def test_error_about_a_live_connection_is_related_in_both_directions() -> None:
    run_both_families(FILTER, """
        udp client:4000 > web:80                                     -> allow rule
        # web says its port is shut; a router says the answer did not arrive
        error web > client about udp client:4000 > web:80            -> allow related
        error router > web about udp web:80 > client:4000            -> allow related
        error router > client about udp client:4000 > web:80         -> out-of-scope
        # not to the one who sent the quoted packet
        error router > web about udp client:4000 > web:80            -> deny invalid
        error web > other about udp client:4000 > web:80             -> deny invalid
        # of another connection
        error router > web about udp web:80 > client:4001            -> deny invalid
        error router > web about tcp web:80 > client:4000 A          -> deny invalid
    """)  # fmt: skip


@pytest.mark.parametrize("kind", ["3/0", "3/1", "3/4", "4/0", "5/1", "11/0", "12/0"])
def test_every_icmpv4_error_type(kind: str) -> None:
    run(FILTER, f"""
        icmp router > web {kind} about udp web:80 > client:4000   -> deny invalid
        udp client:4000 > web:80                                  -> allow rule
        icmp router > web {kind} about udp web:80 > client:4000   -> allow related
    """)  # fmt: skip


@pytest.mark.parametrize("kind", ["1/4", "2/0", "3/0", "4/1", "100/0", "127/0"])
def test_every_icmpv6_error_type(kind: str) -> None:
    run(FILTER, f"""
        icmpv6 router > web {kind} about udp web:80 > client:4000 -> deny invalid
        udp client:4000 > web:80                                  -> allow rule
        icmpv6 router > web {kind} about udp web:80 > client:4000 -> allow related
    """, family=6)  # fmt: skip


def test_error_names_the_connections_rule_and_refreshes_nothing() -> None:
    run(FILTER, """
        @0       udp client:4000 > web:80                           -> allow rule w/inbound/2
        @29      error router > web about udp web:80 > client:4000  -> allow related w/inbound/2
        @30-1ns  error router > web about udp web:80 > client:4000  -> allow related
        @30      error router > web about udp web:80 > client:4000  -> deny invalid
        @30      udp client:4000 > web:80                           -> allow rule
        # an error is no answer: 30 s, not 180
        @31      error web > client about udp client:4000 > web:80  -> allow related
        @60      udp client:4000 > web:80                           -> allow rule
    """)  # fmt: skip


def test_error_about_an_error_or_about_nothing_is_invalid_even_where_all_is_allowed() -> None:
    run_both_families(PEERS, """
        ping client > web id=3                            -> allow rule
        error router > web about pong web > client id=3   -> allow related
        error web > client about ping client > web id=3   -> allow related
        error router > web about pong web > client id=4   -> deny invalid
        error router > web about error web > client       -> deny invalid
        error router > web                                -> deny invalid
        error db > router                                 -> deny invalid
    """)  # fmt: skip


@pytest.mark.parametrize("size", [0, 19, 20, 23, 24, 28])
def test_quote_must_hold_the_ports(size: int) -> None:
    said = "allow related" if size >= 24 else "deny invalid"
    quote(f.icmp_error(3, 3, f.ipv4("10.0.0.6", "203.0.113.9", f.udp(4000, 53)), quoted_bytes=size), said)


@pytest.mark.parametrize("size", [0, 39, 40, 43, 44, 48])
def test_ipv6_quote_must_hold_the_ports(size: int) -> None:
    said = "allow related" if size >= 44 else "deny invalid"
    quote(f.icmpv6_error(1, 4, f.ipv6("2001:db8::6", "2001:db8:ff::9", f.udp(4000, 53)), quoted_bytes=size), said)


@pytest.mark.parametrize(("size", "said"), [(27, "deny invalid"), (28, "allow related")])
def test_quote_of_a_ping_must_hold_its_identifier(size: int, said: str) -> None:
    quote(f.icmp_error(3, 1, f.ipv4("10.0.0.6", "203.0.113.9", f.icmp(8, 0, 7)), quoted_bytes=size), said)


@pytest.mark.parametrize(("options", "said"), [
    ({"fragment_offset": 1}, "deny invalid"),
    ({"more_fragments": True}, "allow related"),
    ({"header_words": 4}, "deny invalid"),
    ({"total_length": 9999}, "allow related"),
    ({"options": bytes(8)}, "allow related"),
])  # fmt: skip
def test_quoted_ipv4_header(options: dict, said: str) -> None:
    quoted = f.ipv4("10.0.0.6", "203.0.113.9", f.udp(4000, 53), **options)
    quote(f.icmp_error(3, 3, quoted, quoted_bytes=64), said)


@pytest.mark.parametrize(("size", "said"), [
    (20, "deny invalid"), (27, "deny invalid"), (28, "allow related"), (64, "allow related"),
])  # fmt: skip
def test_quoted_ipv4_header_is_whole_with_its_options_even_if_nothing_behind_it_is_needed(size: int, said: str) -> None:
    quoted = f.ipv4("10.0.0.6", "203.0.113.9", f.other(47), options=bytes(8))
    quote(f.icmp_error(3, 2, quoted, quoted_bytes=size), said)


@pytest.mark.parametrize(("extensions", "said"), [
    ([f.extension(0), f.extension(60, 16)], "allow related"),
    ([f.jumbo(5)], "allow related"),
    ([f.fragment(0, True)], "allow related"),
    ([f.fragment(1, False)], "deny invalid"),
])  # fmt: skip
def test_quoted_ipv6_extension_headers(extensions: list, said: str) -> None:
    quoted = f.ipv6("2001:db8::6", "2001:db8:ff::9", f.udp(4000, 53), extensions=extensions)
    quote(f.icmpv6_error(1, 4, quoted), said)


@pytest.mark.parametrize("inside", [f.ipv6("2001:db8::6", "2001:db8:ff::9", f.udp(4000, 53)), b"\x00" * 48])
def test_quote_of_another_version_is_invalid(inside: bytes) -> None:
    quote(f.icmp_error(3, 3, inside, quoted_bytes=64), "deny invalid")


def quote(error: f.Layer, said: str) -> None:
    """Whether an error to db is related, after db called out to port 53, pinged and sent GRE."""
    policy = policy_of(PEERS)
    engine, reference = Engine(policy), ReferenceEngine(policy)
    sent = [
        f.ipv4("10.0.0.6", "203.0.113.9", f.udp(4000, 53)),
        f.ipv4("10.0.0.6", "203.0.113.9", f.icmp(8, 0, 7)),
        f.ipv4("10.0.0.6", "203.0.113.9", f.other(47)),
        f.ipv6("2001:db8::6", "2001:db8:ff::9", f.udp(4000, 53)),
    ]
    ends = ("192.0.2.1", "10.0.0.6") if error.protocol == 1 else ("2001:db8:ff::1", "2001:db8::6")
    for packet, words in [*((packet, "allow rule") for packet in sent), (f.ip(*ends, error), said)]:
        frame = f.ethernet(packet)
        judged = spelled(from_engine(engine, engine.process_frames([frame], [START_NS])[0]))
        assert judged == spelled(from_reference(reference.process_frame(START_NS, frame)))
        assert judged.startswith(words)


def test_router_that_is_an_instance_must_own_an_end_to_send_an_error() -> None:
    run_both_families(PEERS, """
        udp client:4000 > web:80                                  -> allow rule
        # db is no end of that connection, web is
        error db > client about udp client:4000 > web:80          -> deny invalid; egress deny invalid; ingress -
        error db > web about udp web:80 > client:4000             -> deny invalid; egress deny invalid; ingress -
        error router > web about udp web:80 > client:4000         -> allow related; egress -
    """)  # fmt: skip


# --- SPEC 3.7: two sides


def test_egress_side_that_denies_hides_the_packet_from_the_ingress_side() -> None:
    run_both_families(PEERS, """
        tcp web:40000 > db:80 S   -> deny no-rule; egress deny no-rule; ingress -
        # db has seen nothing, so web's answer to nothing is no answer
        tcp db:80 > web:40000 SA  -> deny midstream; egress deny midstream; ingress -
    """)  # fmt: skip


def test_egress_side_keeps_what_the_ingress_side_denied() -> None:
    run_both_families(FILTER, """
        @0       udp db:4000 > web:99  -> deny no-rule; egress allow rule; ingress deny no-rule
        @30-1ns  udp db:4000 > web:99  -> deny no-rule; egress allow established; ingress deny no-rule
        # that packet refreshed db's side, though it never arrived
        @60-2ns  udp db:4000 > web:99  -> deny no-rule; egress allow established; ingress deny no-rule
        # web may not speak up, though db would listen
        @60-2ns  udp web:99 > db:4000  -> deny no-rule; egress deny no-rule; ingress -
        @90-2ns  udp db:4000 > web:99  -> deny no-rule; egress allow rule; ingress deny no-rule
    """)  # fmt: skip
