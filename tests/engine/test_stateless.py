"""Stateless groups: every packet meets the rules of its direction, and no filter of theirs remembers anything
(SPEC 2.8, 4.13).

How to read a table: ``scenario``. ``loose`` is in the stateless group ``s``, ``web`` in the stateful ``w``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from command import sgfast, write_policy
from frames import ethernet, icmp, ip, tcp, udp
from scenario import policy_of, run, run_both_families
from stories import write_changes, write_story

from sgfast import load_snapshot, replay, save_snapshot
from sgfast.base.errors import PolicyError
from sgfast.engine import MIDSTREAMS, Engine
from sgfast.policy.changes import AddInstance, AddRule, Change
from sgfast.policy.model import Instance, Rule
from sgfast.report.lines import ConnectionLines


def both(rule: str) -> str:
    """The rule in either family."""
    return f"{{{rule}}}, {{{rule}, ethertype: IPv6}}"


HTTP = both("direction: inbound, protocol: tcp, ports: 80")
DNS = both("direction: inbound, protocol: udp, ports: 53")
PING = "{direction: inbound, protocol: icmp, icmp_type: 8}, {direction: inbound, protocol: icmpv6, icmp_type: 128}"
PONG = "{direction: outbound, protocol: icmp, icmp_type: 0}, {direction: outbound, protocol: icmpv6, icmp_type: 129}"
TO_CLIENTS = both("direction: outbound, protocol: tcp, ports: 32768-65535")
OUT = both("direction: outbound, protocol: all")
TWO = f"""
security_groups:
  - {{name: s, stateful: false, rules: [{HTTP}, {DNS}, {PING}, {TO_CLIENTS}]}}
  - {{name: w, rules: [{HTTP}, {OUT}]}}
instances:
  - {{name: loose, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [s]}}
  - {{name: web, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [w]}}
"""
RED: Change = AddInstance(Instance("red", "default", (ip_network("10.0.0.9"),), ("s",)))


@pytest.mark.parametrize("midstream", MIDSTREAMS)
@pytest.mark.parametrize("mode", ["verbatim", "causal"])
def test_replies_need_a_rule_and_flags_and_order_play_no_role(mode: str, midstream: str) -> None:
    run_both_families(TWO, """
        @0 tcp loose:80 > client:40000 SA      -> allow rule; egress allow rule; ingress -
        @0 tcp loose:80 > client:1024 A        -> deny no-rule
        @0 tcp client:40000 > loose:80 A       -> allow rule
        @0 tcp client:40000 > loose:80 none    -> allow rule
        @0 tcp client:40000 > loose:80 SFR     -> allow rule
        @0 tcp client:40000 > loose:80 FA      -> allow rule
        @0 tcp client:40000 > loose:80 S       -> allow rule
        @0 tcp client:40000 > loose:81 A       -> deny no-rule
        @0 udp client:40000 > loose:53         -> allow rule
        @0 udp loose:53 > client:40000         -> deny reply-denied
        @0 udp client:40000 > loose:53         -> allow rule
    """, mode=mode, midstream=midstream)


def test_icmp_answers_and_errors_are_judged_by_their_own_types() -> None:
    policy = policy_of(TWO)
    run(policy, """
        icmp client > loose 8/0 id=7           -> allow rule s/inbound/5
        icmp loose > client 0/0 id=7           -> deny reply-denied
        icmp client > loose 0/0 id=9           -> deny no-rule
        error router > loose about tcp loose:80 > client:40000 A    -> deny no-rule
        error loose > client about udp client:40000 > loose:53      -> deny no-rule
    """)
    errors = [
        AddRule("s", Rule("err-in", "inbound", 4, 1, icmp_type=3, icmp_code=3)),
        AddRule("s", Rule("err-out", "outbound", 4, 1, icmp_type=3)),
        AddRule("s", Rule("pong", "outbound", 4, 1, icmp_type=0)),
        AddRule("s", Rule("no", "inbound", 4, 1, icmp_type=11, action="deny")),
    ]
    run(policy, """
        apply errors
        error router > loose about tcp loose:80 > client:40000 A    -> allow rule err-in
        error router > loose about tcp web:80 > client:40000 A      -> allow rule err-in
        error loose > client about udp client:40000 > loose:53      -> allow rule err-out
        icmp loose > client 0/0 id=7           -> allow rule pong
        icmp router > loose 11/0               -> deny deny-rule no
        icmp router > loose 3/4                -> deny no-rule
        error loose > web about udp web:40000 > loose:53            -> deny invalid; egress allow rule err-out
    """, changes={"errors": errors})


def test_between_a_stateful_and_a_stateless_instance_each_filter_keeps_to_its_own() -> None:
    run_both_families(TWO, """
        @0  tcp web:40000 > loose:80 S   -> allow rule; egress allow rule; ingress allow rule
        @0  tcp loose:80 > web:40000 SA  -> allow established; egress allow rule; ingress allow established
        @0  tcp web:40000 > loose:80 A   -> allow rule; egress allow established; ingress allow rule
        @1  tcp loose:80 > web:40000 A   -> allow established
        @1  tcp loose:80 > web:40001 A   -> deny midstream; egress allow rule
        @1  tcp loose:40000 > web:80 S   -> deny no-rule; egress deny no-rule; ingress -
        @2  udp web:40000 > loose:53     -> allow rule; egress allow rule; ingress allow rule
        @2  udp loose:53 > web:40000     -> deny reply-denied; egress deny reply-denied; ingress -
        @2  udp web:40000 > loose:53     -> allow rule; egress allow established
        @2  udp web:40000 > loose:54     -> deny no-rule; egress allow rule
        @2  udp web:40000 > loose:54     -> deny no-rule; egress allow established
    """)


def test_denied_syn_is_moot_and_any_other_denied_packet_is_not() -> None:
    run_both_families(TWO, """
        @0  tcp client:40000 > loose:81 S   -> deny no-rule
        @0  tcp loose:81 > client:40000 SA  -> moot
        @0  tcp client:40000 > loose:81 A   -> moot
        @1  tcp client:40000 > loose:81 S   -> deny no-rule
        # A denied answer does not undo the question, nor the next one.
        @2  udp client:40000 > loose:53     -> allow rule
        @2  udp loose:53 > client:40000     -> deny reply-denied
        @2  udp client:40000 > loose:53     -> allow rule
        @3  tcp client:40000 > loose:80 S   -> allow rule
        @3  tcp loose:80 > client:30000 SA  -> deny no-rule
        @3  tcp client:30000 > loose:80 A   -> allow rule
        # A connection that the stateful end denies is moot for both.
        @4  udp loose:53 > web:50           -> deny no-rule; egress deny no-rule
        @4  tcp loose:40000 > web:40001 S   -> deny no-rule; egress allow rule; ingress deny no-rule
        @4  tcp web:40001 > loose:40000 SA  -> moot
    """, mode="causal")


def test_reply_to_a_ping_that_stateless_rules_denied_is_moot() -> None:
    run_both_families(TWO.replace(PING, PONG), """
        @0  ping client > loose id=4        -> deny no-rule
        # the rules would let it out, but nobody would have sent it
        @0  pong loose > client id=4        -> moot opener-denied
        @0  ping loose > client id=4        -> deny no-rule
        @0  pong client > loose id=4        -> moot opener-denied
        @1  pong loose > client id=5        -> allow rule
        # nothing says which of these is the answer
        @2  udp loose:123 > client:123      -> deny no-rule
        @2  udp client:123 > loose:123      -> deny no-rule
        @2  gre client > loose              -> deny no-rule
        @2  gre loose > client              -> deny no-rule
    """, mode="causal")
    run_both_families(TWO.replace(TO_CLIENTS, OUT), """
        # where a stateful filter denied the call, the stateless one has a say about the answer
        @0  gre loose > web                 -> deny no-rule; egress allow rule; ingress deny no-rule
        @0  gre web > loose                 -> moot opener-denied; egress -; ingress -
        @0  gre loose > web                 -> deny no-rule; egress allow rule; ingress deny no-rule
        @0  udp loose:53 > web:53           -> deny no-rule; egress allow rule; ingress deny no-rule
        @0  udp web:53 > loose:53           -> moot opener-denied
        @2  udp web:53 > loose:53           -> allow rule; egress allow rule; ingress allow rule
        @2  udp loose:53 > web:53           -> allow established; egress allow rule; ingress allow established
    """, mode="causal")


def test_the_opener_at_a_stateless_end_was_seen_by_the_other_end_too() -> None:
    """SPEC 9.3: whoever saw the beginning of a connection does not infer one."""
    run_both_families(TWO, """
        @0  tcp loose:40000 > web:80 S     -> deny no-rule; egress deny no-rule; ingress -
        @1  tcp web:80 > loose:40000 A     -> deny midstream; egress deny midstream
        @1  tcp web:80 > loose:40001 A     -> deny no-rule; egress allow inferred; ingress deny no-rule
    """, midstream="infer")


def test_check_and_explain_know_no_connections_either() -> None:
    engine = Engine(policy_of(TWO))
    outside, loose = "203.0.113.9", "10.0.0.5"
    assert engine.check(loose, outside, "tcp", sport=80, dport=40000, flags="SA").reason == "rule"
    assert engine.check(outside, loose, "tcp", sport=40000, dport=81, flags="A").reason == "no-rule"
    assert engine.check(outside, loose, "icmp", icmp_type=3, icmp_code=3).reason == "no-rule"
    explained = engine.explain(loose, outside, "tcp", dport=40000)
    assert explained.egress is not None and explained.egress.winner is not None
    assert (explained.verdict, explained.egress.winner.rule.id) == ("allow", "s/outbound/1")
    assert engine.dataplane.counters["live_tuples"] == 0
    assert engine.dataplane.rule_counts["connections"].sum() == 0


def test_a_policy_of_a_program_with_groups_of_both_kinds_is_refused() -> None:
    policy = policy_of(TWO)
    mixed = replace(policy, instances=(*policy.instances, replace(policy.instances[0], name="m", addresses=(
        ip_network("10.0.0.9"),), security_groups=("w", "s"))))
    with pytest.raises(PolicyError, match=r"'m' cannot be in stateful groups \('w'\) and stateless groups \('s'\)$"):
        Engine(mixed)
    with pytest.raises(PolicyError, match="cannot be in stateful groups"):
        Engine(policy).apply([RED, replace(RED, instance=replace(RED.instance, name="n", addresses=(  # type: ignore[attr-defined]
            ip_network("10.0.0.10"),), security_groups=("w", "s")))], 0)


def test_a_snapshot_keeps_the_kind_of_groups(tmp_path: Path) -> None:
    engine = Engine(policy_of(TWO), mode="causal")
    engine.check("203.0.113.9", "10.0.0.5", "tcp", sport=40000, dport=81)
    save_snapshot(engine, tmp_path / "state")
    later = load_snapshot(tmp_path / "state")
    assert not later.policy.group_by_name["s"].stateful
    assert later.check("10.0.0.5", "203.0.113.9", "tcp", sport=81, dport=40000, flags="SA").verdict == "moot"
    assert later.check("10.0.0.5", "203.0.113.9", "tcp", sport=80, dport=40000, flags="SA").reason == "rule"


def test_the_report_counts_no_connections_and_tells_what_would_break(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, loose, web = "203.0.113.9", "10.0.0.5", "10.0.0.6"

    def frame(src: str, dst: str, layer: Any) -> bytes:
        return ethernet(ip(src, dst, layer))

    story = [
        (0.0, frame(client, loose, tcp(40000, 80, "S"))), (0.1, frame(loose, client, tcp(80, 40000, "SA"))),
        (0.2, frame(client, loose, tcp(40000, 81, "S"))), (0.3, frame(loose, client, tcp(81, 40000, "SA"))),
        (0.4, frame(client, loose, udp(40000, 54))), (0.5, frame(client, loose, udp(40000, 54))),
        (0.6, frame(loose, client, udp(54, 40000))), (0.7, frame(client, loose, icmp(8, 0, 1))),
        (0.8, frame(web, loose, tcp(41000, 80, "S"))), (0.9, frame(loose, web, tcp(80, 41000, "SA"))),
    ]  # fmt: skip
    policy = write_policy(tmp_path, "version: 1\n" + TWO.replace(TO_CLIENTS, OUT))
    capture, lines = write_story(tmp_path, story), tmp_path / "connections"
    told = json.loads(sgfast(capsys, "replay", policy, capture, "--format", "json", "--connections", lines).out)
    assert told["connections"] == {"opened": 1, "denied": 2, "disconnected": 0, "inferred": 0}
    assert {reason: n for reason, n in told["reasons"].items() if n} == {
        "rule": 5, "established": 1, "no-rule": 3, "opener-denied": 1,
    }  # fmt: skip
    hits = {rule["rule"]: (rule["connections"], rule["packets"]) for rule in told["rules"]}
    assert hits["s/inbound/1"] == (0, 2) and hits["s/outbound/1"] == (0, 3) and hits["w/outbound/1"] == (1, 2)
    by_port = {line["responder_port"]: line for line in map(json.loads, lines.read_text().splitlines())}
    assert {port: (line["initiator"], line["verdict"], line["answer"]) for port, line in by_port.items()} == {
        80: (web, "allow", "answered"), 81: (client, "deny", "answered"), 54: (client, "deny", "answered"),
    }  # fmt: skip
    assert by_port[80]["egress"]["instance"] == "web"
    broken = sgfast(capsys, "replay", policy, capture).out
    assert "tcp/81" in broken and "udp/54" in broken.split("Denied most")[0]


def test_an_attempt_that_is_over_is_told_as_it_was(tmp_path: Path) -> None:
    """The key is free of its mark then; who tried and what denied it are to be known all the same."""
    client, loose = "203.0.113.9", "10.0.0.5"
    no_81 = "{id: no-81, direction: inbound, protocol: tcp, ports: 81, action: deny}, "
    policy = write_policy(tmp_path, "version: 1\n" + TWO.replace("rules: [", f"rules: [{no_81}", 1))
    story = [
        (at, ethernet(ip(client, loose, tcp(40000, 81, "S")) if way else ip(loose, client, tcp(81, 40000, "SA"))))
        for at, way in ((0.0, 1), (0.1, 0), (2.0, 1), (2.1, 0), (2.2, 1))
    ]
    changes = write_changes(tmp_path, "{at: 1, modify_rule: {group: s, rule: no-81, set: {action: allow}}}")
    lines: list[bytes] = []
    result = replay(policy, write_story(tmp_path, story), changes=changes, flows=ConnectionLines(lines.append))
    assert (result.verdicts["deny"], result.verdicts["moot"], result.verdicts["allow"]) == (1, 1, 3)
    (row,) = map(json.loads, b"".join(lines).splitlines())
    assert (row["packets_from_initiator"], row["packets_from_responder"]) == (1, 1), "nothing that passed"
    assert [(b.service.instance, b.service.port, b.direction, b.peer, b.reason) for b in result.broken] == [
        ("loose", 81, "inbound", client, "deny-rule")
    ]
    assert result.connections == {"opened": 0, "denied": 1, "disconnected": 0, "inferred": 0}
