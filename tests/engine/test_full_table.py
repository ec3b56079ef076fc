"""A connection table without room (SPEC 5.8). ``scenario`` says how to read a table."""

from __future__ import annotations

from peers_and_filter import (
    FILTER,
    INSTANCES,
    OPEN_IN,
    OPEN_OUT,
    PEERS,
    room_for,
)
from scenario import (
    policy_of,
    run,
    run_both_families,
)

from sgfast.engine import Engine


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


def test_syn_that_one_side_denies_leaves_the_reply_of_the_other_sides_connection() -> None:
    """The SYN takes the place of a finished connection (SPEC 4.4) at the side that denies it, and of no other."""
    policy = f"""
security_groups:
  - {{name: w, rules: [{OPEN_IN}]}}
  - {{name: d, rules: [{OPEN_IN}, {OPEN_OUT}]}}
{INSTANCES}"""
    run_both_families(policy + room_for(1), """
        @0 tcp db:5353 > web:5353 SA  -> deny no-rule; egress allow inferred; ingress deny no-rule
        @0 tcp db:5353 > web:5353 FA  -> allow inferred
        @0 tcp web:5353 > db:5353 FA  -> allow established
        @0 tcp db:5353 > web:5353 A   -> allow established
        # web's filter forgets its connection and denies; db's still has one that was answered
        @0 tcp web:5353 > db:5353 S   -> deny no-rule; egress deny no-rule; ingress -
        @0 tcp db:5353 > web:5353 SA  -> deny midstream; egress allow established; ingress deny midstream
        @0 udp db:1 > client:443      -> deny table-full
    """, midstream="infer")  # fmt: skip
    run_both_families(PEERS + room_for(1), """
        @0 tcp db:1 > web:80 S        -> allow rule
        @0 tcp web:80 > db:1 SA       -> allow established
        @0 tcp db:1 > web:80 A        -> allow established
        @0 tcp db:1 > web:80 FA       -> allow established
        @0 tcp web:80 > db:1 FA       -> allow established
        @0 tcp db:1 > web:80 A        -> allow established
        @1 tcp web:80 > db:1 S        -> deny no-rule; egress deny no-rule; ingress -
        @1 udp db:2 > client:443      -> deny table-full
        # until the connection ends
        @30-1ns udp db:2 > client:443 -> deny table-full
        @30 udp db:2 > client:443     -> allow rule
    """)  # fmt: skip


def test_syn_that_both_sides_let_reopen_is_not_protected_by_the_old_reply() -> None:
    run_both_families(PEERS + room_for(1), """
        @0 tcp db:1 > web:80 S        -> allow rule
        @0 tcp web:80 > db:1 S        -> allow established
        @0 tcp db:1 > web:80 R        -> allow established
        @1 udp db:2 > client:443      -> deny table-full
        @1 tcp db:1 > web:80 S        -> allow rule
        @1 udp db:2 > client:443      -> allow rule
        @1 tcp web:80 > db:1 SA       -> deny midstream
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


def test_denied_pings_and_peers_take_no_more_room_than_there_is() -> None:
    engine = run(FILTER + room_for(3), """
        @0 ping client > web id=1        -> deny no-rule
        @1 ping client > web id=2        -> deny no-rule
        @2 gre client > web              -> deny no-rule
        @3 udp client:123 > web:123      -> deny no-rule
        # the oldest made room, so nothing says any more that its query was denied
        @4 pong web > client id=1        -> deny invalid
        @4 pong web > client id=2        -> moot opener-denied
        @5 udp web:123 > client:123      -> moot opener-denied
        @5 udp client:3 > web:80         -> allow rule
        @6 pong web > client id=2        -> deny invalid
        @6 gre web > client              -> moot opener-denied
    """, mode="causal")
    assert engine.dataplane.counters["live_tuples"] == 3


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
