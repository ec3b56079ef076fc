"""What connections do, clause by clause (SPEC 3-5, 7, 9.1-9.3), with exact clocks; how to read a table: ``scenario``.

``web`` and ``db`` are instances, ``client``, ``other`` and ``router`` are outside. Most tables meet one of two
policies, ``PEERS`` and ``FILTER``.
"""

from __future__ import annotations

from itertools import product

import frames as f
import pytest
from scenario import (
    START_NS,
    fits,
    from_engine,
    from_reference,
    openers,
    policy_of,
    read_expected,
    run,
    run_both_families,
    spelled,
)

from sgfast.engine import Engine
from sgfast.errors import PolicyError
from sgfast.reference.engine import ReferenceEngine

OPEN_IN = "{direction: inbound, protocol: all}, {direction: inbound, ethertype: IPv6, protocol: all}"
OPEN_OUT = "{direction: outbound, protocol: all}, {direction: outbound, ethertype: IPv6, protocol: all}"
INSTANCES = """
instances:
  - {name: web, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [w]}
  - {name: db, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [d]}
"""
# Everything gets in to both; db may call out, web may not.
PEERS = f"""
security_groups:
  - {{name: w, rules: [{OPEN_IN}]}}
  - {{name: d, rules: [{OPEN_IN}, {OPEN_OUT}]}}
{INSTANCES}"""
# web lets in TCP and UDP to ports 80 and 443 and nothing out, db nothing in and everything out.
FILTER = f"""
security_groups:
  - name: w
    rules:
      - {{direction: inbound, protocol: tcp, ports: "80,443"}}
      - {{direction: inbound, protocol: udp, ports: "80,443"}}
      - {{direction: inbound, ethertype: IPv6, protocol: tcp, ports: "80,443"}}
      - {{direction: inbound, ethertype: IPv6, protocol: udp, ports: "80,443"}}
  - {{name: d, rules: [{OPEN_OUT}]}}
{INSTANCES}"""


def timeouts(**seconds: float) -> str:
    return f"settings: {{timeouts: {{{', '.join(f'{name}: {value}' for name, value in seconds.items())}}}}}\n"


def room_for(connections: int) -> str:
    return f"settings: {{max_connections: {connections}}}\n"


def tcp(*steps: str, port: int = 40000) -> str:
    """Lines for a dialogue of client and web's port 80: ``> S`` is the client's, ``< SA`` web's; rest as it stands."""
    lines = []
    for step in steps:
        time, arrow, rest = ("", *step.split(" ", 1)) if step[0] in "<>" else step.split(" ", 2)
        ends = f"client:{port} > web:80" if arrow == ">" else f"web:80 > client:{port}"
        if "->" not in rest:
            rest += " -> allow"
        lines.append(f"{time} tcp {ends} {rest}")
    return "\n".join(lines)


# --- SPEC 4.1, 5.2: deadlines

# How to come to each state, how long it lasts, and a packet that tells whether it lives without prolonging it: what
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
DEFAULTS = {
    "tcp_established": 600, "tcp_fin_wait": 30, "tcp_other": 30, "icmp": 30, "bidirectional": 180, "unidirectional": 30,
}  # fmt: skip
SHORT = {
    "tcp_established": 7, "tcp_fin_wait": 3, "tcp_other": 2.5, "icmp": 0.25, "bidirectional": 11, "unidirectional": 5,
}  # fmt: skip
either_setting = pytest.mark.parametrize("seconds", [DEFAULTS, SHORT], ids=["defaults", "short"])


@either_setting
@pytest.mark.parametrize("state", STATES)
def test_tcp_state_lives_until_its_deadline_and_not_at_it(state: str, seconds: dict[str, float]) -> None:
    steps, name, probe = STATES[state]
    end = 5 + seconds[name]
    dead = "allow rule" if probe == "> S" else "deny midstream"
    policy = PEERS + timeouts(**seconds)
    run_both_families(policy, tcp(*(f"@5 {step}" for step in steps), f"@{end}-1ns {probe} -> allow established",
                                  f"@{end} {probe} -> {dead}"))  # fmt: skip


@either_setting
@pytest.mark.parametrize("state", STATES)
def test_the_last_step_alone_sets_the_deadline(state: str, seconds: dict[str, float]) -> None:
    steps, name, probe = STATES[state]
    gap = 0.2
    end = gap * (len(steps) - 1) + seconds[name]
    dead = "allow rule" if probe == "> S" else "deny midstream"
    script = tcp(*(f"@{gap * n:.1f} {step}" for n, step in enumerate(steps)),
                 f"@{end:.2f}-1ns {probe} -> allow established", f"@{end:.2f} {probe} -> {dead}")  # fmt: skip
    run(PEERS + timeouts(**seconds), script)


def test_established_is_prolonged_by_every_ack_of_either_end() -> None:
    run_both_families(PEERS, tcp(
        "@0 > S", "@0 < SA", "@0 > A",
        "@600-1ns > PA -> allow established",
        "@1200-2ns < A -> allow established",
        "@1800-3ns < AU -> allow established",
        "@2400-3ns > A -> deny midstream",
    ))  # fmt: skip


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


# --- SPEC 5.4: the table of Linux, from every state

COLUMNS = ["NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2", "R2"]
# As Linux 6.18 has it, tried cell by cell (tests/kernel): the state a packet leads to. IV: invalid, IG: ignored.
TABLE = """
    > syn    SS   SS   IG   IG   IG   IG   IG   SS   SS   S2   SR
    > synack IV   IV   SR   IV   IV   IV   IV   IV   IV   R2   R2
    > fin    IV   IV   FW   FW   LA   LA   LA   TW   CL   IV   FW
    > ack    ES   IV   ES   ES   CW   CW   TW   TW   CL   IV   ES
    > rst    IV   CL   CL   CL   CL   CL   CL   CL   CL   CL   CL
    < syn    IV   S2   IV   IV   IV   IV   IV   SS   IV   S2   IV
    < synack IV   SR   IG   IG   IG   IG   IG   IG   IG   R2   IG
    < fin    IV   IV   FW   FW   LA   LA   LA   TW   CL   IV   FW
    < ack    IV   IG   SR   ES   CW   CW   TW   TW   CL   IG   ES
    < rst    IV   CL   CL   CL   CL   CL   CL   CL   CL   CL   CL
"""
NEXT = {
    (way, kind, column): state
    for way, kind, *states in map(str.split, TABLE.strip().splitlines())
    for column, state in zip(COLUMNS, states, strict=True)
}
FLAGS = {"syn": "S", "synack": "SA", "fin": "FA", "ack": "A", "rst": "R"}
REACHED_BY = {
    "SS": [("> ", "syn")],
    "SR": [("> ", "syn"), ("< ", "synack")],
    "ES": [("> ", "syn"), ("< ", "synack"), ("> ", "ack")],
    "FW": [("> ", "syn"), ("< ", "synack"), ("> ", "ack"), ("> ", "fin")],
    "CW": [("> ", "syn"), ("< ", "synack"), ("> ", "ack"), ("> ", "fin"), ("< ", "ack")],
    "LA": [("> ", "syn"), ("< ", "synack"), ("> ", "ack"), ("> ", "fin"), ("< ", "fin")],
    "TW": [("> ", "syn"), ("< ", "synack"), ("> ", "ack"), ("> ", "fin"), ("< ", "fin"), ("> ", "ack")],
    "CL": [("> ", "syn"), ("< ", "synack"), ("< ", "rst")],
    "S2": [("> ", "syn"), ("< ", "syn")],
    "R2": [("> ", "syn"), ("< ", "syn"), ("> ", "synack")],
}


class Expected:
    """A connection as SPEC 5.4 and 5.5 have it, where rules allow the client's SYN and deny web's."""

    def __init__(self) -> None:
        self.state = "NO"
        self.replied = False

    def say(self, way: str, kind: str) -> str:
        new = NEXT[way, kind, self.state]
        if self.state == "NO" or (kind == "syn" and self.state in ("TW", "CL") and new == "SS"):
            # No connection, or one that is forgotten for a new opener.
            self.state, self.replied = "NO", False
            if kind != "syn":
                return "deny midstream"
            if way == "<":
                return "deny no-rule"
            self.state = "SS"
            return "allow rule"
        if new == "IV":
            return "deny invalid"
        if kind == "rst" and not self.replied:
            self.state = "NO"
            return "allow established"
        self.replied |= way == "<"
        if new != "IG":
            self.state = new
        return "allow established"


@pytest.mark.parametrize("state", REACHED_BY)
def test_tcp_table_from_every_state_with_every_three_packets(state: str) -> None:
    """The state itself is not seen, but what it makes of any two packets that follow is (SPEC 5.4, 5.9)."""
    packets = [(way, kind) for way in "><" for kind in FLAGS]
    lines = []
    for port, follow in enumerate(product(packets, packets, packets), start=20000):
        connection = Expected()
        for way, kind in [*((way.strip(), kind) for way, kind in REACHED_BY[state]), *follow]:
            lines.append(f"{way} {FLAGS[kind]} -> {connection.say(way, kind)}")
            lines[-1] = tcp(lines[-1], port=port)
    run(FILTER, "\n".join(lines))


# --- SPEC 5.4, 5.5: resets, TIME-WAIT, simultaneous open


def test_refused_syn_leaves_nothing_behind() -> None:
    run_both_families(FILTER, tcp(
        "@0 > S -> allow rule",
        "@0 < RA -> allow established",
        "@0 < RA -> deny midstream",
        "@0 > A -> deny midstream",
        "@1 > S -> allow rule",
        # taken back by the client itself
        "@1 > R -> allow established",
        "@1 < SA -> deny midstream",
        "@1 > S -> allow rule",
    ))  # fmt: skip


def test_reset_after_an_ignored_answer_closes_and_does_not_forget() -> None:
    run_both_families(FILTER, tcp(
        "@0 > S -> allow rule",
        "@0 < A -> allow established",
        "@0 < R -> allow established",
        # closed, so still there: what Linux ignores is allowed, the server may not begin anew, the client may
        "@0 < SA -> allow established",
        "@0 < S -> deny invalid",
        "@30-1ns < SA -> allow established",
        "@30-1ns > S -> allow rule",
    ))  # fmt: skip


def test_reset_of_the_client_after_an_answer_closes_for_30_seconds() -> None:
    run_both_families(FILTER, tcp(
        "@0 > S", "@0 < SA", "@0 > A", "@0 > RA -> allow established",
        "@29 < A -> allow established",
        "@59-1ns > A -> allow established",
        "@89-1ns > A -> deny midstream",
    ))  # fmt: skip


def test_time_wait_is_reopened_by_the_rules_of_today() -> None:
    """SPEC 4.4, 5.5."""
    closed = ["@0 > S", "@0 < SA", "@0 > A", "@0 < FA", "@0 > FA", "@0 < A"]
    run_both_families(FILTER, tcp(
        *closed,
        "@1 > A -> allow established",
        "@2 > S -> allow rule",
        # a new connection: no data before the handshake
        "@2 > A -> deny invalid",
        "@2 < SA -> allow established",
    ))  # fmt: skip
    run_both_families(FILTER, tcp(
        *closed,
        # web may not call: the old connection is gone all the same
        "@2 < S -> deny no-rule",
        "@2 > A -> deny midstream",
        "@2 > S -> allow rule",
    ))  # fmt: skip


def test_time_wait_reopened_from_the_other_end_turns_the_connection_round() -> None:
    run_both_families(PEERS, """
        @0 tcp client:443 > db:40000 S  -> allow rule
        @0 tcp db:40000 > client:443 SA -> allow established
        @0 tcp client:443 > db:40000 A  -> allow established
        @0 tcp client:443 > db:40000 FA -> allow established
        @0 tcp db:40000 > client:443 FA -> allow established
        @0 tcp client:443 > db:40000 A  -> allow established
        @1 tcp db:40000 > client:443 S  -> allow rule; ingress -
        @1 tcp db:40000 > client:443 A  -> deny invalid
        @1 tcp client:443 > db:40000 SA -> allow established
        @1 tcp db:40000 > client:443 A  -> allow established
    """)  # fmt: skip


def test_closed_is_reopened_by_the_initiator_only() -> None:
    run_both_families(PEERS, tcp(
        "@0 > S", "@0 < SA", "@0 > A", "@0 < R",
        "@1 < S -> deny invalid",
        "@1 > A -> allow established",
        "@1 > S -> allow rule",
        "@1 < SA -> allow established",
    ))  # fmt: skip


def test_closed_inferred_connection_is_reopened_by_the_inferred_initiator() -> None:
    run_both_families(FILTER, """
        @0 tcp web:80 > client:40000 A  -> allow inferred
        @0 tcp web:80 > client:40000 R  -> allow established
        @1 tcp web:80 > client:40000 S  -> deny invalid
        @1 tcp client:40000 > web:80 S  -> allow rule
        @1 tcp client:40000 > web:80 A  -> deny invalid
    """, midstream="infer")  # fmt: skip


def test_simultaneous_open() -> None:
    run_both_families(FILTER, tcp(
        "@0 > S -> allow rule",
        "@10 < S -> allow established",
        "@20 > S -> allow established",
        "@45 > SA -> allow established",
        "@45 < SA -> allow established",
        "@45 > A -> allow established",
        "@645-1ns < PA -> allow established",
    ))  # fmt: skip


def test_first_syn_of_the_responder_prolongs_nothing() -> None:
    """SPEC 5.4: only after it there was a reply."""
    run_both_families(FILTER, tcp("@0 > S", "@20 < S", "@30-1ns < S", "@60-2ns < SA -> allow established"))
    run_both_families(FILTER, tcp("@0 > S", "@20 < S", "@30 < SA -> deny midstream"))


def test_after_a_simultaneous_open_the_responders_ack_establishes() -> None:
    opened = ["@0 > S", "@0 < S", "@0 > SA"]
    run_both_families(FILTER, tcp(*opened, "@0 < A", "@1 > SA -> deny invalid", "@600-1ns > A -> allow established"))
    # If the initiator sends a SYN in between, Linux forgets the simultaneous open. The deadline stays.
    run_both_families(FILTER, tcp(
        *opened, "@10 > S -> allow established", "@20 < A", "@30 > SA -> allow established",
    ))  # fmt: skip
    run_both_families(FILTER, tcp(*opened, "@10 > S -> allow established", "@30 < A -> deny midstream"))


@pytest.mark.parametrize("flags", ["S", "SU", "SP", "SE", "SC", "SEC", "SPECU"])
def test_flags_that_open(flags: str) -> None:
    run_both_families(FILTER, tcp(f"> {flags} -> allow rule"))


@pytest.mark.parametrize("flags", ["SA", "A", "AU", "PA", "FA", "FAU", "R", "RA", "RPA", "SAEC", "AE"])
def test_flags_that_do_not_open(flags: str) -> None:
    """SPEC 4.7."""
    run_both_families(FILTER, tcp(f"> {flags} -> deny midstream"))


@pytest.mark.parametrize("flags", ["none", "F", "P", "U", "E", "SF", "SR", "SFA", "SRA", "FR", "FRA", "SAU", "RU",
                                   "RAU", "FPU", "FU", "FSRPAUEC"])  # fmt: skip
@pytest.mark.parametrize("midstream", ["deny", "infer", "allow"])
def test_flags_that_linux_calls_invalid(flags: str, midstream: str) -> None:
    """SPEC 4.5, 4.7."""
    run_both_families(FILTER, tcp(f"> {flags} -> deny invalid", f"< {flags} -> deny invalid"), midstream=midstream)


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


def test_gre_and_its_likes_have_one_connection_a_pair() -> None:
    """SPEC 5.1, 5.7."""
    run_both_families(PEERS, """
        gre client > web -> allow rule
        gre web > client -> allow established
        gre web > other  -> deny no-rule
        esp web > client -> deny no-rule
        gre other > web  -> allow rule
    """)  # fmt: skip


def test_icmp_of_the_other_family_is_just_a_protocol() -> None:
    run(PEERS, """
        58 client > web                            -> allow rule
        58 web > client                            -> allow established
        1 2001:db8:ff::9 > 2001:db8::5             -> allow rule
        1 2001:db8::5 > 2001:db8:ff::9             -> allow established
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


def test_error_about_tcp_changes_no_state() -> None:
    run_both_families(FILTER, tcp("@0 > S -> allow rule") + """
        @0 error router > web about tcp web:80 > client:40000 SA     -> allow related
        @0 error web > client about tcp client:40000 > web:80 S      -> allow related
    """ + tcp(
        # it was no reply: a reset still makes the connection forgotten
        "@1 < RA -> allow established", "@1 < RA -> deny midstream",
    ))  # fmt: skip


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


def test_error_about_one_way_icmp_and_about_protocols_without_ports() -> None:
    run(PEERS, """
        icmp db > client 9/0                            -> allow rule
        error router > db about icmp db > client 9/0    -> allow related
        error router > db about icmp db > client 9/1    -> deny invalid
        gre db > client                                 -> allow rule
        error router > db about gre db > client         -> allow related
        error router > db about esp db > client         -> deny invalid
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
    """Whether an error to db is related, after db called out to port 53 and pinged."""
    policy = policy_of(PEERS)
    engine, reference = Engine(policy), ReferenceEngine(policy)
    sent = [
        f.ipv4("10.0.0.6", "203.0.113.9", f.udp(4000, 53)),
        f.ipv4("10.0.0.6", "203.0.113.9", f.icmp(8, 0, 7)),
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


def test_error_between_two_instances_passes_both_filters() -> None:
    run_both_families(PEERS, """
        udp db:4000 > web:80                        -> allow rule
        error web > db about udp db:4000 > web:80   -> allow related; egress allow related; ingress allow related
        error db > web about udp web:80 > db:4000   -> allow related; egress allow related; ingress allow related
        error web > db about udp db:4001 > web:80   -> deny invalid; egress deny invalid; ingress -
    """)  # fmt: skip


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


# Link types other than Ethernet: frame, link type, and what is said of it.
LINKS: dict[str, tuple[bytes, int, str]] = {
    "raw IPv4": (SYN, 101, "allow rule"),
    "raw IPv6": (SYN6, 101, "allow rule"),
    "raw, as BSD numbers it": (SYN6, 12, "allow rule"),
    "raw, as OpenBSD numbers it": (SYN, 14, "allow rule"),
    "raw, neither version": (b"\x50" + SYN[1:], 101, "deny malformed; egress -; ingress -"),
    "raw, nothing at all": (b"", 101, "deny malformed; egress -; ingress -"),
    "IPv4 only": (SYN, f.LINK_IPV4, "allow rule"),
    "IPv6 only": (SYN6, f.LINK_IPV6, "allow rule"),
    "IPv6 only, IPv4 inside": (SYN, f.LINK_IPV6, "deny malformed; egress -; ingress -"),
    "loopback of a little-endian host": (f.null(SYN, 2), f.LINK_NULL, "allow rule"),
    "loopback of a big-endian host": (f.null(SYN, 2, byteorder="big"), f.LINK_NULL, "allow rule"),
    "loopback, IPv6 of Linux": (f.null(SYN6, 10), f.LINK_NULL, "allow rule"),
    "loopback, IPv6 of NetBSD": (f.null(SYN6, 24), f.LINK_NULL, "allow rule"),
    "loopback, IPv6 of FreeBSD": (f.null(SYN6, 28), f.LINK_NULL, "allow rule"),
    "loopback, IPv6 of macOS": (f.null(SYN6, 30), f.LINK_NULL, "allow rule"),
    "loopback, another family": (f.null(SYN, 7), f.LINK_NULL, "not-ip"),
    "loopback, cut": (f.null(SYN, 2)[:3], f.LINK_NULL, "deny malformed; egress -; ingress -"),
    "OpenBSD loopback": (f.null(SYN6, 24, byteorder="big"), f.LINK_LOOP, "allow rule"),
    "OpenBSD loopback is in network byte order": (f.null(SYN, 2), f.LINK_LOOP, "not-ip"),
    "cooked": (f.sll(SYN), f.LINK_SLL, "allow rule"),
    "cooked, VLAN": (f.sll(f.vlan(SYN6)), f.LINK_SLL, "allow rule"),
    "cooked, ARP": (f.sll(bytes(28), 0x0806), f.LINK_SLL, "not-ip"),
    "cooked, cut": (f.sll(SYN)[:15], f.LINK_SLL, "deny malformed; egress -; ingress -"),
    "cooked, version 2": (f.sll2(SYN6), f.LINK_SLL2, "allow rule"),
    "cooked, version 2, cut": (f.sll2(SYN)[:19], f.LINK_SLL2, "deny malformed; egress -; ingress -"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_what_stands_below_ip(name: str) -> None:
    frame, link_type, words = LINKS[name]
    policy = policy_of(PEERS)
    engine, reference = Engine(policy), ReferenceEngine(policy)
    said = from_engine(engine, engine.process_frames([frame], [START_NS], link_type=link_type)[0])
    assert said == from_reference(reference.process_frame(START_NS, frame, link_type=link_type))
    assert fits(said, read_expected(words)), spelled(said)


def test_broken_packets_touch_no_connection() -> None:
    policy = policy_of(PEERS)
    engine = Engine(policy)
    steps = [(0, "S", {}, "rule"), (29, "S", {"total_length": 9}, "malformed"), (30, "A", {}, "midstream")]
    for time, flags, options, reason in steps:
        frame = f.ethernet(f.ipv4(*TO_WEB, f.tcp(40000, 80, flags), **options))
        row = engine.process_frames([frame], [time * 10**9])[0]
        assert from_engine(engine, row)[""][1] == reason


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


def test_tcp_state_of_the_two_sides_may_part() -> None:
    run_both_families(FILTER, """
        @0 tcp db:40000 > web:80 S   -> allow rule; egress allow rule; ingress allow rule
        @0 tcp web:80 > db:40000 SA  -> allow established; egress allow established; ingress allow established
        @0 tcp db:40000 > web:80 A   -> allow established; egress allow established; ingress allow established
        @1 tcp db:40000 > web:80 R   -> allow established; egress allow established; ingress allow established
        # closed on both: a SYN of db's is a new opener for both
        @2 tcp db:40000 > web:80 S   -> allow rule; egress allow rule; ingress allow rule
        # refused: both forget
        @3 tcp web:80 > db:40000 RA  -> allow established; egress allow established; ingress allow established
        @3 tcp web:80 > db:40000 RA  -> deny midstream; egress deny midstream; ingress -
    """)  # fmt: skip


# --- SPEC 5.8: a full table


def test_full_of_unanswered_the_oldest_makes_room() -> None:
    run_both_families(PEERS + room_for(3), """
        @0 udp client:1 > web:80   -> allow rule
        @1 udp client:2 > web:80   -> allow rule
        @2 udp client:3 > web:80   -> allow rule
        # being spoken to again does not make it younger
        @3 udp client:1 > web:80   -> allow established
        @4 udp client:4 > web:80   -> allow rule
        @4 udp web:80 > client:1   -> deny no-rule
        @4 udp web:80 > client:2   -> allow established
        @5 udp client:5 > web:80   -> allow rule
        # 2 was answered, so 3 went
        @5 udp web:80 > client:3   -> deny no-rule
        @5 udp web:80 > client:2   -> allow established
        @5 udp web:80 > client:4   -> allow established
        @5 udp web:80 > client:5   -> allow established
        # all are answered now
        @6 udp client:6 > web:80   -> deny table-full
        @6 tcp client:6 > web:80 S -> deny table-full
        @6 ping client > web       -> deny table-full
        # what the rules deny, they deny first
        @6 udp web:80 > client:6   -> deny no-rule
        # room again, at the very deadline
        @185-1ns udp client:6 > web:80 -> deny table-full
        @185     udp client:6 > web:80 -> allow rule
        @185     udp client:7 > web:80 -> allow rule
        @185     udp client:8 > web:80 -> allow rule
    """)  # fmt: skip


def test_full_table_says_no_rule_of_the_denied() -> None:
    run(PEERS + room_for(1), """
        udp client:1 > web:80 -> allow rule w/inbound/1
        udp web:80 > client:1 -> allow established
        udp client:2 > web:80 -> deny table-full
    """)  # fmt: skip
    engine = Engine(policy_of(PEERS + room_for(1)))
    engine.check("203.0.113.9", "10.0.0.5", "udp", sport=1, dport=80)
    engine.check("10.0.0.5", "203.0.113.9", "udp", sport=80, dport=1)
    side = engine.check("203.0.113.9", "10.0.0.5", "udp", sport=2, dport=80).ingress
    assert side is not None and (side.reason, side.rule) == ("table-full", None)


def test_connection_between_two_instances_takes_one_place() -> None:
    """SPEC 1.1."""
    run_both_families(PEERS + room_for(2), """
        udp db:1 > web:80   -> allow rule
        udp client:1 > db:80 -> allow rule
        udp web:80 > db:1   -> allow established
        udp db:80 > client:1 -> allow established
        udp client:2 > db:80 -> deny table-full; ingress deny table-full
        udp db:2 > web:80   -> deny table-full; egress deny table-full; ingress -
    """)  # fmt: skip


def test_answer_on_one_side_protects_the_tuple() -> None:
    policy = f"""
security_groups:
  - {{name: w, rules: [{OPEN_OUT}]}}
  - {{name: d, rules: [{OPEN_IN}, {OPEN_OUT}]}}
{INSTANCES}"""
    run_both_families(policy + room_for(1), """
        @0 udp db:1 > web:99    -> deny no-rule; egress allow rule; ingress deny no-rule
        # nobody answered: gone
        @1 udp db:2 > web:99    -> deny no-rule; egress allow rule; ingress deny no-rule
        @1 udp client:3 > db:80 -> allow rule
        @1 udp db:2 > web:99    -> deny no-rule; egress allow rule; ingress deny no-rule
        # web's side begins a connection that nobody answers; to db's it is the answer
        @2 udp web:99 > db:2    -> allow established; egress allow rule; ingress allow established
        @3 udp client:3 > db:80 -> deny table-full
    """)  # fmt: skip


def test_reopening_makes_a_connection_young_again_and_unanswered() -> None:
    run_both_families(PEERS + room_for(2), tcp("@0 > S", "@0 < SA", "@0 > R") + """
        @1 udp client:2 > web:80      -> allow rule
        @2 tcp client:40000 > web:80 S -> allow rule
        # now 2 is the oldest without an answer
        @3 udp client:3 > web:80      -> allow rule
        @3 udp web:80 > client:2      -> deny no-rule
        @3 tcp web:80 > client:40000 SA -> allow established
    """)  # fmt: skip
    run_both_families(PEERS + room_for(1), tcp("@0 > S", "@0 < SA", "@0 > R") + """
        @1 udp client:2 > web:80       -> deny table-full
        @2 tcp client:40000 > web:80 S -> allow rule
        # the answer was the old connection's
        @3 udp client:2 > web:80       -> allow rule
        @3 tcp web:80 > client:40000 SA -> deny midstream
    """)  # fmt: skip


def test_key_that_opens_again_at_its_deadline_is_a_new_connection() -> None:
    engine = run(PEERS + room_for(1), """
        @0       udp client:1 > web:80 -> allow rule
        @0       udp web:80 > client:1 -> allow established
        # so late that the timer wheel does not look again before the deadline
        @180-1ns udp web:80 > client:2 -> deny no-rule
        @180     udp client:1 > web:80 -> allow rule
        # nobody has answered this one yet
        @180     udp client:2 > web:80 -> allow rule
        @180     udp web:80 > client:1 -> deny no-rule
    """)  # fmt: skip
    assert engine.dataplane.counters["opened"] == 3


def test_refused_connection_gives_its_place_back_at_once() -> None:
    run_both_families(PEERS + room_for(1), tcp(
        "@0 > S -> allow rule", "@0 < RA -> allow established",
    ) + """
        @0 udp client:1 > web:80 -> allow rule
        @0 udp web:80 > client:1 -> allow established
    """ + tcp("@0 > S -> deny table-full"))  # fmt: skip


def test_full_table_in_causal_mode_makes_nothing_moot() -> None:
    run_both_families(PEERS + room_for(1), """
        @0 udp client:1 > web:80         -> allow rule
        @0 udp web:80 > client:1         -> allow established
        @0 tcp client:2 > web:80 S       -> deny table-full
        @0 tcp client:2 > web:80 A       -> deny midstream
        @0 tcp web:80 > client:2 SA      -> deny midstream
    """, mode="causal")  # fmt: skip


def test_moot_keys_take_places_and_give_them() -> None:
    run_both_families(FILTER + room_for(2), """
        @0 tcp client:1 > web:22 S       -> deny no-rule
        @1 tcp client:2 > web:22 S       -> deny no-rule
        @2 tcp client:1 > web:22 A       -> moot opener-denied
        # the older of the two goes, however lately it was refreshed
        @3 udp client:3 > web:80         -> allow rule
        @3 udp web:80 > client:3         -> allow established
        @4 tcp client:1 > web:22 A       -> deny midstream
        @4 tcp client:2 > web:22 A       -> moot opener-denied
        @5 udp client:4 > web:80         -> allow rule
        @5 udp web:80 > client:4         -> allow established
        @5 tcp client:2 > web:22 A       -> deny midstream
        # no room for a mark: denied, but not moot
        @6 tcp client:5 > web:22 S       -> deny no-rule
        @6 tcp web:22 > client:5 SA      -> deny midstream
    """, mode="causal")  # fmt: skip


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


# --- SPEC 3.6, 7: VPCs

RED, BLUE, GREEN = "10.1.0.5", "10.2.0.5", "10.3.0.5"


def vpcs(red: str = RED, blue: str = BLUE, green: str = GREEN, peerings: str = "[[red, blue], [blue, green]]") -> str:
    return f"""
vpcs: [{{name: red}}, {{name: blue}}, {{name: green}}]
peerings: {peerings}
security_groups:
  - {{name: g, rules: [{OPEN_IN}, {OPEN_OUT}]}}
instances:
  - {{name: r, vpc: red, addresses: [{red}], security_groups: [g]}}
  - {{name: b, vpc: blue, addresses: [{blue}], security_groups: [g]}}
  - {{name: n, vpc: green, addresses: [{green}], security_groups: [g]}}
"""


def test_unpeered_vpcs_are_isolated_before_any_rule_and_any_state() -> None:
    engine = run(vpcs(), """
        tcp r:40000 > n:22 S  -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        tcp n:22 > r:40000 SA -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        gre n > r             -> deny vpc-isolated
        icmp n > r 8/0        -> deny vpc-isolated
        error n > r about tcp r:40000 > n:22 S -> deny vpc-isolated
        tcp r:40000 > b:22 S  -> allow rule; egress allow rule; ingress allow rule
    """)  # fmt: skip
    assert engine.dataplane.counters["live_tuples"] == 1


def test_isolated_opener_makes_moot_in_causal_mode() -> None:
    run(vpcs(), """
        tcp r:40000 > n:22 S  -> deny vpc-isolated
        tcp n:22 > r:40000 SA -> moot opener-denied; egress -; ingress -
        tcp r:40000 > n:22 A  -> moot opener-denied
        tcp r:40000 > n:22 S  -> deny vpc-isolated
        # not an opener: nothing to be moot
        tcp n:40000 > r:23 A  -> deny vpc-isolated
        tcp r:23 > n:40000 A  -> deny vpc-isolated
        error n > r about tcp r:40000 > n:22 S -> moot opener-denied
    """, mode="causal", midstream="infer")  # fmt: skip


def test_named_vpc_sees_itself_and_its_peers() -> None:
    script = """
        tcp 10.1.0.5:4 > 10.2.0.5:22 -> {}
        tcp 10.2.0.5:4 > 10.3.0.5:22 -> {}
        tcp 10.1.0.5:4 > 10.3.0.5:22 -> {}
        tcp 10.1.0.5:4 > 10.9.0.5:22 -> {}
    """
    both, first, second, none = (
        "allow rule; egress allow rule; ingress allow rule", "allow rule; ingress -", "allow rule; egress -",
        "out-of-scope",
    )  # fmt: skip
    openers(vpcs(), script.format(both, both, "deny vpc-isolated", first))
    openers(vpcs(), script.format(both, both, "deny vpc-isolated", first), vpc="blue")
    # green is not red's peer: its address is somewhere outside
    openers(vpcs(), script.format(both, first, first, first), vpc="red")
    openers(vpcs(), script.format(second, both, second, none), vpc="green")


def test_address_owned_in_two_vpcs_needs_the_vpcs_name() -> None:
    policy = policy_of(vpcs(red=RED, green=RED))
    for make in (Engine, ReferenceEngine):
        with pytest.raises(PolicyError, match=r"(?s)'[rn]'.*'[rn]'.*--vpc"):
            make(policy)
    # green and red do not see each other
    openers(policy, f"tcp 10.2.0.5:4 > {RED}:22 -> allow rule; egress allow rule; ingress allow rule", vpc="red")
    openers(policy, f"tcp 203.0.113.9:4 > {RED}:22 -> allow rule; egress -", vpc="green")
    # blue sees both
    for make in (Engine, ReferenceEngine):
        with pytest.raises(PolicyError, match=r"(?s)'[rn]'.*'[rn]'"):
            make(policy, vpc="blue")


@pytest.mark.parametrize(("red", "green"), [
    ("10.1.0.0/16", "10.1.2.3"), ("10.1.2.3", "10.1.0.0/16"), ("10.1.0.0/16", "10.1.0.0/17"),
    ("0.0.0.0/0", "10.3.0.5"), ('"2001:db8::/32"', '"2001:db8:ffff::/48"'), ('"::/0"', '"ffff::/128"'),
])  # fmt: skip
def test_prefixes_that_overlap_in_two_vpcs_are_an_error(red: str, green: str) -> None:
    policy = policy_of(vpcs(red=red, green=green, blue='"fd00::1"' if ":" not in red else "10.2.0.5"))
    for make in (Engine, ReferenceEngine):
        with pytest.raises(PolicyError, match=r"'[rn]'"):
            make(policy)
        make(policy, vpc="red")
        make(policy, vpc="green")
        with pytest.raises(PolicyError, match=r"'[rn]'"):
            make(policy, vpc="blue")


def test_neighbouring_prefixes_of_two_vpcs_are_no_error() -> None:
    openers(vpcs(red="10.1.0.0/17", green="10.1.128.0/17"), """
        tcp 10.1.127.255:4 > 10.2.0.5:22 -> allow rule; egress allow rule; ingress allow rule
        tcp 10.1.128.0:4 > 10.2.0.5:22   -> allow rule
        tcp 10.1.127.255:4 > 10.1.128.0:22 -> deny vpc-isolated
    """)  # fmt: skip


def test_own_prefix_shadows_what_lies_inside_of_it() -> None:
    policy = vpcs(red="10.0.0.0/8", blue="10.2.0.5, 11.0.0.5")
    # 10.2.0.5 is one of red's own; 11.0.0.5 is blue's still
    openers(policy, """
        tcp 10.1.0.1:4 > 10.2.0.5:22    -> local
        tcp 10.1.0.1:4 > 11.0.0.5:22    -> allow rule; egress allow rule; ingress allow rule
        tcp 11.0.0.5:4 > 10.2.0.5:22    -> allow rule; egress allow rule; ingress allow rule
        tcp 203.0.113.9:4 > 10.2.0.5:22 -> allow rule; egress -
    """, vpc="red")  # fmt: skip
    # seen from blue it is blue's, and the rest of red's network is red's
    openers(policy.replace("10.3.0.5", "12.0.0.5"), """
        tcp 10.2.0.4:4 > 10.2.0.5:22    -> allow rule; egress allow rule; ingress allow rule
        tcp 10.2.0.5:4 > 11.0.0.5:22    -> local
    """, vpc="blue")  # fmt: skip


def test_own_prefix_shadows_only_what_lies_inside() -> None:
    # the peer's prefix is the larger one: red owns its address, blue the rest
    openers(vpcs(red="10.2.0.5", blue="10.2.0.0/16"), """
        tcp 10.2.0.4:4 > 10.2.0.5:22 -> allow rule; egress allow rule; ingress allow rule
        tcp 10.2.0.5:4 > 10.2.0.6:22 -> allow rule; egress allow rule; ingress allow rule
        tcp 10.2.0.4:4 > 10.2.0.6:22 -> local
    """, vpc="red")  # fmt: skip


def test_unknown_vpc_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(PolicyError, match=r"purple.*red, blue, green"):
        Engine(policy_of(vpcs()), vpc="purple")
    with pytest.raises(PolicyError, match="purple"):
        ReferenceEngine(policy_of(vpcs()), vpc="purple")


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


def test_peers_with_equal_ports_or_none_open_independently() -> None:
    for packet, back in [
        ("udp web:123 > client:123", "udp client:123 > web:123"),
        ("udp web:51820 > client:51820", "udp client:51820 > web:51820"),
        ("sctp web:9 > client:9", "sctp client:9 > web:9"),
        ("udplite web:9 > client:9", "udplite client:9 > web:9"),
        ("dccp web:9 > client:9", "dccp client:9 > web:9"),
        ("gre web > client", "gre client > web"),
        ("esp web > client", "esp client > web"),
    ]:
        run_both_families(PEERS, f"""
            {packet} -> deny no-rule
            {back}   -> allow rule
            {packet} -> allow established
        """, mode="causal")  # fmt: skip


def test_equal_tcp_ports_are_moot_all_the_same() -> None:
    run_both_families(PEERS, """
        tcp web:179 > client:179 S  -> deny no-rule
        tcp client:179 > web:179 S  -> moot opener-denied
        tcp client:179 > web:179 SA -> moot opener-denied
    """, mode="causal")  # fmt: skip


def test_icmp_is_never_moot() -> None:
    run_both_families(FILTER, """
        ping client > web id=4     -> deny no-rule
        pong web > client id=4     -> deny invalid
        ping client > web id=4     -> deny no-rule
    """, mode="causal")  # fmt: skip
    run_both_families(PEERS, """
        ping web > client id=4     -> deny no-rule
        ping client > web id=4     -> allow rule
        pong client > web id=4     -> deny invalid
    """, mode="causal")  # fmt: skip


def test_opener_denied_on_the_far_side_is_moot_on_the_near_one() -> None:
    run_both_families(FILTER, """
        @0 tcp db:40000 > web:22 S  -> deny no-rule; egress allow rule; ingress deny no-rule
        # db's side has a connection; moot packets do not touch it
        @1 tcp web:22 > db:40000 SA -> moot opener-denied
        @1 tcp db:40000 > web:22 A  -> moot opener-denied
        # the retransmitted SYN passes db's side as such, and moves no deadline there
        @29 tcp db:40000 > web:22 S -> deny no-rule; egress allow established; ingress deny no-rule
        @30 tcp db:40000 > web:22 S -> deny no-rule; egress allow rule; ingress deny no-rule
        @31 tcp web:22 > db:40000 RA -> moot opener-denied
    """, mode="causal")  # fmt: skip


def test_deny_rule_makes_moot_and_midstream_does_not() -> None:
    policy = FILTER.replace("{direction: inbound, protocol: udp", "{action: deny, direction: inbound, protocol: tcp", 1)
    run(policy, """
        tcp client:40000 > web:80 A  -> deny midstream
        tcp web:80 > client:40000 A  -> deny midstream
        tcp client:40000 > web:80 S  -> deny deny-rule w/inbound/2
        tcp web:80 > client:40000 SA -> moot opener-denied
    """, mode="causal")  # fmt: skip


def test_reopening_that_is_denied_makes_moot() -> None:
    run_both_families(FILTER, tcp("@0 > S", "@0 < SA", "@0 > A", "@0 > FA", "@0 < FA", "@0 > A",
        "@1 < S -> deny no-rule",
        # web is the initiator now: the client's packets are answers to nothing
        "@1 > A -> moot opener-denied",
        "@1 > S -> moot opener-denied",
        "@1 < A -> moot opener-denied",
        "@1 < S -> deny no-rule",
    ), mode="causal")  # fmt: skip


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


def test_syn_that_a_live_connection_denies_is_no_opener_that_was_seen() -> None:
    run_both_families(FILTER, """
        @0  tcp client:40000 > web:80 FA -> allow inferred
        @1  tcp web:80 > client:40000 S  -> deny invalid
        @29 tcp client:40000 > web:80 S  -> allow established
        @30 tcp client:40000 > web:80 A  -> allow inferred
    """, midstream="infer")  # fmt: skip


def test_inferring_is_no_opener() -> None:
    run_both_families(FILTER + timeouts(tcp_fin_wait=3), """
        @0 tcp client:40000 > web:80 FA  -> allow inferred
        @3 tcp web:80 > client:40000 A   -> allow inferred
        @3 tcp web:80 > client:40000 A   -> allow established
    """, midstream="infer")  # fmt: skip


def test_opener_that_met_a_full_table_was_seen() -> None:
    run_both_families(PEERS + room_for(1), """
        @0   udp client:1 > web:80         -> allow rule
        @0   udp web:80 > client:1         -> allow established
        @0   tcp client:40000 > web:80 S   -> deny table-full
        @180 tcp client:40000 > web:80 A   -> deny midstream
        @180 tcp client:40001 > web:80 A   -> allow inferred
        @180 tcp client:40002 > web:80 A   -> deny table-full
    """, midstream="infer")  # fmt: skip


def test_denied_inference_has_the_rules_reason_and_makes_nothing_moot() -> None:
    run_both_families(FILTER, """
        @0   tcp client:40000 > web:22 A  -> deny no-rule
        @1   tcp web:22 > client:40000 A  -> deny no-rule
        @600 tcp client:40000 > web:22 A  -> deny midstream
    """, midstream="infer", mode="causal")  # fmt: skip


def test_reset_of_an_inferred_connection_closes_it() -> None:
    run_both_families(FILTER, """
        @0      tcp client:40000 > web:80 A   -> allow inferred
        @1      tcp client:40000 > web:80 R   -> allow established
        @31-1ns tcp web:80 > client:40000 SA  -> allow established
        @31     tcp client:40000 > web:80 A   -> allow inferred
    """, midstream="infer")  # fmt: skip


def test_inferred_connection_is_answered_and_never_evicted() -> None:
    run_both_families(FILTER + room_for(1), """
        @0 tcp client:40000 > web:80 A   -> allow inferred
        @1 udp client:1 > web:80         -> deny table-full
        @2 tcp web:80 > client:40000 A   -> allow established
    """, midstream="infer")  # fmt: skip


def test_each_side_infers_for_itself() -> None:
    run_both_families(FILTER, """
        @0 tcp db:40000 > web:80 A   -> allow inferred; egress allow inferred; ingress allow inferred
        @1 tcp db:40000 > web:99 A   -> deny no-rule; egress allow inferred; ingress deny no-rule
        @2 tcp db:40000 > web:99 A   -> deny no-rule; egress allow established; ingress deny no-rule
        @3 tcp web:99 > db:40000 A   -> deny no-rule; egress deny no-rule; ingress -
    """, midstream="infer")  # fmt: skip


def test_moot_goes_before_inference() -> None:
    run_both_families(PEERS, """
        @0 tcp web:40000 > client:80 S   -> deny no-rule
        @1 tcp client:80 > web:40000 A   -> moot opener-denied
        @1 tcp web:40000 > client:80 A   -> moot opener-denied
        # forgotten as a moot key, remembered as a key whose opener was seen
        @601 tcp client:80 > web:40000 A -> deny midstream
    """, mode="causal", midstream="allow")  # fmt: skip


def test_isolated_opener_was_seen() -> None:
    run(vpcs(), """
        tcp r:40000 > n:22 A -> deny vpc-isolated
        tcp r:40000 > n:22 S -> deny vpc-isolated
        tcp n:22 > r:40000 A -> deny vpc-isolated
    """, midstream="allow")  # fmt: skip
