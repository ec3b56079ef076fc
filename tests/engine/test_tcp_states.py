"""TCP's table of states, resets, TIME-WAIT, simultaneous open (SPEC 5.4, 5.5). ``scenario`` explains the tables."""

from __future__ import annotations

from itertools import islice, product

import pytest
from effort import some
from peers_and_filter import (
    FILTER,
    PEERS,
    tcp,
)
from scenario import (
    run,
    run_both_families,
)

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
    for port, follow in enumerate(islice(product(packets, packets, packets), 0, None, some(5, 1)), start=20000):
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


@pytest.mark.parametrize("flags", ["none", "F", "P", "U", "E", "SF", "SR", "SFA", "SRA", "FR", "FRA", "SAU", "RU",
                                   "RAU", "FPU", "FU", "FSRPAUEC"])  # fmt: skip
@pytest.mark.parametrize("midstream", ["deny", "infer", "allow"])
def test_flags_that_linux_calls_invalid(flags: str, midstream: str) -> None:
    """SPEC 4.5, 4.7."""
    run_both_families(FILTER, tcp(f"> {flags} -> deny invalid", f"< {flags} -> deny invalid"), midstream=midstream)
