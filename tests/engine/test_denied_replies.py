"""Replies that stateless filters deny, although they let the opener pass (SPEC 4.13). To read a table: ``scenario``.

``loose`` and ``bare`` are in stateless groups that have no rule for replies, ``web`` is in a stateful group.
"""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from command import sgfast, write_policy
from frames import ethernet, icmp, ip, tcp, udp
from scenario import run_both_families
from stories import write_changes, write_story

from sgfast import diff, load_snapshot, replay, save_snapshot, suggest
from sgfast.clouds.loading import parse_policy
from sgfast.engine import Engine
from sgfast.policy.changes import AddAddress, AddRule, Change, RemoveAddress, RemoveInstance
from sgfast.policy.model import Rule
from sgfast.questions.suggesting.observing import REPLY_DENIED
from sgfast.report.lines import ConnectionLines


def both(rule: str) -> str:
    """The rule in either family."""
    return f"{{{rule}}}, {{{rule}, ethertype: IPv6}}"


IN = ", ".join(both(f"direction: inbound, protocol: {rest}") for rest in ("tcp, ports: 443", "udp, ports: '53,123'"))
PING = "{direction: inbound, protocol: icmp, icmp_type: 8}, {direction: inbound, protocol: icmpv6, icmp_type: 128}"
GRE = both("direction: inbound, protocol: 47")
OUT = both("direction: outbound, protocol: all")
ALL = both("direction: inbound, protocol: all")
POLICY = f"""
security_groups:
  - {{name: s, stateful: false, rules: [{IN}, {PING}, {GRE}]}}
  - {{name: b, stateful: false, rules: [{OUT}]}}
  - {{name: w, rules: [{ALL}, {OUT}]}}
instances:
  - {{name: loose, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [s]}}
  - {{name: web, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [w]}}
  - {{name: bare, addresses: [10.0.0.7, "2001:db8::7"], security_groups: [b]}}
"""
REPLIES: Change = [  # type: ignore[assignment]
    AddRule("s", Rule(f"out-{family}", "outbound", family)) for family in (4, 6)
]  # fmt: skip


def test_tcp_connection_breaks_with_its_denied_reply_and_the_rest_of_it_is_moot() -> None:
    run_both_families(POLICY, """
        @0   tcp client:40000 > loose:443 S   -> allow rule
        @0.1 tcp loose:443 > client:40000 SA  -> deny reply-denied; egress deny reply-denied
        @0.2 tcp client:40000 > loose:443 A   -> moot opener-denied
        @0.3 tcp client:40000 > loose:443 PA  -> moot opener-denied
        @0.4 tcp loose:443 > client:40000 FA  -> moot opener-denied
        @0.4 error router > loose about tcp loose:443 > client:40000 A -> moot opener-denied
        # the client tries again
        @9   tcp client:40000 > loose:443 S   -> allow rule
        @9.1 tcp loose:443 > client:40000 SA  -> deny reply-denied
        @9.2 tcp client:40000 > loose:443 A   -> moot
        # what has no opener has no reply
        @10  tcp loose:443 > client:40001 SA  -> deny no-rule
        # a SYN is none
        @11  tcp client:40002 > loose:443 S   -> allow rule
        @11  tcp loose:443 > client:40002 S   -> deny no-rule
        @11  tcp client:40002 > loose:443 A   -> moot opener-denied
    """, mode="causal")


def test_every_packet_is_judged_as_it_came_in_verbatim_mode() -> None:
    run_both_families(POLICY, """
        @0   tcp client:40000 > loose:443 S   -> allow rule
        @0.1 tcp loose:443 > client:40000 SA  -> deny reply-denied
        @0.2 tcp client:40000 > loose:443 A   -> allow rule
        @0.3 tcp loose:443 > client:40000 PA  -> deny reply-denied
    """)


def test_what_comes_back_to_a_question_is_no_question() -> None:
    run_both_families(POLICY, """
        @0    udp client:40000 > loose:53   -> allow rule
        @0.1  udp loose:53 > client:40000   -> deny reply-denied
        @0.2  udp loose:53 > client:40000   -> deny reply-denied
        @0.3  udp client:40000 > loose:53   -> allow rule
        @0.4  udp loose:53 > client:40000   -> deny reply-denied
        # after the time of an unanswered connection, it is one
        @30.3 udp loose:53 > client:40000   -> deny reply-denied
        @61   udp loose:53 > client:40000   -> deny no-rule
        @62   udp client:123 > loose:123    -> allow rule
        @63   udp loose:123 > client:123    -> deny reply-denied
        @64   ping client > loose id=7      -> allow rule
        @64   pong loose > client id=7      -> deny reply-denied
        @64   pong loose > client id=7      -> moot opener-denied
        @65   ping client > loose id=7      -> allow rule
        # GRE has no answers
        @66   gre client > loose            -> allow rule
        @66   gre loose > client            -> deny no-rule
    """.replace("@30.3", "@30"), mode="causal")


def test_either_end_and_a_stateful_filter_between_make_no_difference() -> None:
    run_both_families(POLICY, """
        # the server's filter denies the reply; the client's has the connection
        @0 tcp web:40000 > loose:443 S    -> allow rule; egress allow rule; ingress allow rule
        @0 tcp loose:443 > web:40000 SA   -> deny reply-denied; egress deny reply-denied; ingress -
        @0 tcp web:40000 > loose:443 A    -> moot opener-denied
        # the client's filter denies it; the server's has the connection
        @1 tcp bare:40000 > web:443 S     -> allow rule; egress allow rule; ingress allow rule
        @1 tcp web:443 > bare:40000 SA    -> deny reply-denied; egress allow established; ingress deny reply-denied
        @1 tcp bare:40000 > web:443 A     -> moot opener-denied
        # both are stateless
        @2 udp bare:40000 > loose:53      -> allow rule; egress allow rule; ingress allow rule
        @2 udp loose:53 > bare:40000      -> deny reply-denied; egress deny reply-denied; ingress -
    """, mode="causal")


def test_a_connection_that_worked_does_not_break_and_a_denied_opener_has_no_reply() -> None:
    taken: list[Any] = [AddRule("s", Rule(f"no-{family}", "outbound", family, action="deny")) for family in (4, 6)]
    closed: list[Any] = [AddRule("s", Rule(f"shut-{family}", "inbound", family, action="deny")) for family in (4, 6)]
    run_both_families(POLICY, """
        @0 tcp client:40000 > loose:443 S   -> allow rule
        @0 udp client:40000 > loose:53      -> allow rule
        apply replies
        @1 tcp loose:443 > client:40000 SA  -> allow rule
        @1 udp loose:53 > client:40000      -> allow rule
        apply taken
        @2 tcp loose:443 > client:40000 A   -> deny deny-rule
        @2 udp loose:53 > client:40000      -> deny deny-rule
        @2 tcp client:40000 > loose:443 A   -> allow rule
        # the next connection has the same ports
        @3 tcp client:40000 > loose:443 S   -> allow rule
        @3 tcp loose:443 > client:40000 SA  -> deny reply-denied
        @4 tcp client:40001 > loose:443 S   -> allow rule
        @4 udp client:40001 > loose:53      -> allow rule
        apply closed
        @5 tcp client:40001 > loose:443 S   -> deny deny-rule
        @5 udp client:40001 > loose:53      -> deny deny-rule
        @6 tcp loose:443 > client:40001 SA  -> moot opener-denied
        @6 udp loose:53 > client:40001      -> deny deny-rule
    """, mode="causal", changes={"replies": REPLIES, "taken": taken, "closed": closed})  # type: ignore[dict-item]


def test_the_connection_of_a_filter_that_is_left_is_judged_when_the_other_filter_is_gone() -> None:
    gone: Any = [RemoveInstance("loose")]
    run_both_families(POLICY, """
        @0 tcp web:40000 > loose:443 S            -> allow rule
        @0 tcp loose:443 > web:40000 SA           -> deny reply-denied
        @0 tcp web:40000 > loose:443 A            -> moot opener-denied
        apply gone
        @1 tcp loose:443 > web:40000 SA           -> allow established
        @1 tcp web:40000 > loose:443 A            -> allow established
    """, mode="causal", changes={"gone": gone})


def test_what_connections_let_pass_tells_nothing_of_a_reply_that_was_denied() -> None:
    hosts = [ip_network(host) for host in ("10.0.0.5/32", "2001:db8::5/128")]
    there, back = (
        [change for host in hosts for change in (AddAddress(to, host), RemoveAddress(owner, host))][::-1]
        for owner, to in (("loose", "other"), ("other", "loose"))
    )
    # An instance keeps at least one address.
    policy = POLICY.replace('"2001:db8::5"]', '"2001:db8::5", 10.0.0.15]')
    policy += "  - {name: other, addresses: [10.0.0.16], security_groups: [w]}\n"
    run_both_families(policy, """
        @0   udp web:40000 > loose:53 -> allow rule
        @0.1 udp loose:53 > web:40000 -> deny reply-denied
        apply there -> 0 disconnected
        @0.2 udp web:40000 > loose:53 -> allow
        @0.3 udp loose:53 > web:40000 -> allow established
        apply back -> 0 disconnected
        @0.4 udp loose:53 > web:40000 -> deny reply-denied
    """, mode="verbatim", changes={"there": there, "back": back})


CLIENT, LOOSE, WEB, BARE = "203.0.113.9", "10.0.0.5", "10.0.0.6", "10.0.0.7"


def conversation(at: float, client: str, server: str, sport: int, dport: int = 443) -> list[tuple[float, bytes]]:
    """A whole TCP connection."""
    flags = ("S", "SA", "A", "PA", "PA", "FA", "FA", "A")
    return [
        (at + n / 100, ethernet(
            ip(server, client, tcp(dport, sport, word)) if n in (1, 4, 6)
            else ip(client, server, tcp(sport, dport, word))
        ))
        for n, word in enumerate(flags)
    ]  # fmt: skip


def questions(at: float, client: str, server: str, sport: int, replies: int = 1) -> list[tuple[float, bytes]]:
    return [(at, ethernet(ip(client, server, udp(sport, 53))))] + [
        (at + 0.1 + n / 100, ethernet(ip(server, client, udp(53, sport)))) for n in range(replies)
    ]


def test_what_breaks_is_told_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """20 whole connections, of which nobody said that they would break, and 20 questions of the client that were 20
    unanswered attempts of the server."""
    story = [packet for n in range(20) for packet in conversation(n, CLIENT, LOOSE, 40000 + n)]
    story += [packet for n in range(20) for packet in questions(30 + n, CLIENT, LOOSE, 50000 + n, 2)]
    story += [(60, ethernet(ip(CLIENT, LOOSE, icmp(8, 0, 7)))), (60.1, ethernet(ip(LOOSE, CLIENT, icmp(0, 0, 7))))]
    policy, capture = write_policy(tmp_path, "version: 1\n" + POLICY), write_story(tmp_path, story)
    lines, page = tmp_path / "connections", tmp_path / "page.html"
    ran = sgfast(
        capsys, "replay", policy, capture, "--format", "json", "--connections", lines, "--report", page,
        "--fail-on", "would-break", "--show-rules",
    )  # fmt: skip
    told = json.loads(ran.out)
    assert ran.status == 1
    assert told["connections"] == {"opened": 0, "denied": 41, "disconnected": 0, "inferred": 0}
    assert told["verdicts"]["moot"] == 20 * 6 and told["reasons"]["reply-denied"] == 20 + 40 + 1
    rows = {row["service"]: row for row in told["would_break"]}
    assert {
        service: (row["from"]["name"], row["to"]["name"], *map(row.get, ("reason", "direction", "rule", "connections")))
        for service, row in rows.items()
    } == {
        "tcp/443": (CLIENT, "loose", "reply-denied", "inbound", None, 20),
        "udp/53": (CLIENT, "loose", "reply-denied", "inbound", None, 20),
        "icmp echo-request": (CLIENT, "loose", "reply-denied", "inbound", None, 1),
    }  # fmt: skip
    assert rows["tcp/443"]["rules"] == {"added": [], "left_out": [REPLY_DENIED]}
    assert sum(row["packets"] for row in told["denied"]) == told["verdicts"]["deny"]
    assert not told["unanswered"] and not told["cannot_tell"] and {row["service"] for row in told["denied"]} == {*rows}
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(written) == 41
    first = written[0]
    assert (first["initiator"], first["initiator_port"], first["responder_port"]) == (CLIENT, 40000, 443)
    assert (first["verdict"], first["reason"], first["answer"]) == ("deny", "reply-denied", "answered")
    assert (first["packets_from_initiator"], first["packets_from_responder"]) == (5, 3)
    assert first["first_time"] == "1000000.000000000"
    ingress = {"instance": "loose", "groups": "s", "rule": None, "ended": "denied"}
    assert (first["egress"], first["ingress"]) == (None, ingress)
    text = sgfast(capsys, "replay", policy, capture).out
    assert "41 connections would break" in text and "reply-denied" in text
    html = page.read_text()
    assert "41 connections that worked would break" in html and "A stateless filter denies the reply" in html
    assert "reply-denied" in sgfast(capsys, "replay", policy, capture, "--format", "markdown").out
    result = replay(policy, capture)
    again = replay(policy, capture, engine="reference")
    assert (again.connections, again.verdicts, again.reasons) == (result.connections, result.verdicts, result.reasons)


def test_the_rule_of_the_reply_is_named_and_a_refusal_breaks_nothing(tmp_path: Path) -> None:
    no = "{id: no, direction: outbound, protocol: tcp, action: deny}, "
    policy = parse_policy("version: 1\n" + POLICY.replace("false, rules: [", "false, rules: [" + no, 1))
    story = conversation(0, CLIENT, LOOSE, 40000)
    story += [
        (1, ethernet(ip(CLIENT, LOOSE, tcp(40001, 443, "S")))),
        (1.1, ethernet(ip(LOOSE, CLIENT, tcp(443, 40001, "RA")))),
    ]
    result = replay(policy, write_story(tmp_path, story))
    (row,) = result.to_dict()["would_break"]
    assert (row["reason"], row["rule"], row["connections"]) == ("reply-denied", "no", 1)
    assert result.connections["denied"] == 2


def test_a_connection_of_a_stateful_filter_is_answered_and_breaks(tmp_path: Path) -> None:
    policy = parse_policy("version: 1\n" + POLICY)
    story = conversation(0, WEB, LOOSE, 40000) + conversation(1, BARE, WEB, 41000) + questions(2, WEB, LOOSE, 42000, 3)
    lines: list[bytes] = []
    result = replay(policy, write_story(tmp_path, story), flows=ConnectionLines(lines.append))
    assert result.connections == {"opened": 3, "denied": 3, "disconnected": 0, "inferred": 0}
    assert not result.unanswered
    assert sorted(
        (row.service.instance, row.service.port, row.direction, row.peer, row.connections) for row in result.broken
    ) == [("bare", 443, "outbound", WEB, 1), ("loose", 53, "inbound", WEB, 1), ("loose", 443, "inbound", WEB, 1)]
    told = [json.loads(line) for line in b"".join(lines).splitlines()]
    assert sorted((row["verdict"], row["answer"]) for row in told) == [
        *[("allow", "answered")] * 3, *[("deny", "answered")] * 3
    ]


@pytest.mark.parametrize("stateful", [True, False], ids=["stateful-old", "stateless-old"])
def test_diff_names_the_connections_that_were_answered(tmp_path: Path, stateful: bool) -> None:
    old = POLICY.replace("name: s, stateful: false", "name: s") if stateful else POLICY.replace(GRE, f"{GRE}, {OUT}")
    story = [packet for n in range(20) for packet in conversation(n, CLIENT, LOOSE, 40000 + n)]
    story += [packet for n in range(5) for packet in questions(30 + n, CLIENT, LOOSE, 50000 + n)]
    policies = (parse_policy("version: 1\n" + each) for each in (old, POLICY))
    found = diff(*policies, write_story(tmp_path, story))
    assert found.traffic is not None
    assert [
        (group.change, group.service.instance, group.service.protocol, group.service.port, group.direction, group.peers,
         group.connections, group.answered, group.new.reason)
        for group in found.traffic.groups
    ] == [
        ("newly-denied", "loose", 6, 443, "inbound", (CLIENT,), 20, 20, "reply-denied"),
        ("newly-denied", "loose", 17, 53, "inbound", (CLIENT,), 5, 5, "reply-denied"),
    ]  # fmt: skip


def test_keep_says_that_it_cannot_mend_a_denied_reply(tmp_path: Path) -> None:
    story = [packet for n in range(3) for packet in conversation(n, CLIENT, LOOSE, 40000 + n)]
    found = suggest(write_story(tmp_path, story), policy=parse_policy("version: 1\n" + POLICY), keep=True)
    assert not found.rules
    assert [(each.reason, each.evidence.connections) for each in found.left_out] == [(REPLY_DENIED, 3)]
    # nor where the opener is denied, too: a rule for it would not suffice
    closed = parse_policy("version: 1\n" + POLICY.replace("ports: 443", "ports: 444"))
    found = suggest(write_story(tmp_path, story), policy=closed, keep=True)
    assert not found.rules
    assert [(each.reason, each.evidence.connections) for each in found.left_out] == [(REPLY_DENIED, 3)]


def test_a_snapshot_knows_whose_reply_is_awaited(tmp_path: Path) -> None:
    engine = Engine(parse_policy("version: 1\n" + POLICY), mode="causal")
    for port in (40000, 40001):
        engine.check(CLIENT, LOOSE, "tcp", sport=port, dport=443)
    engine.check(LOOSE, CLIENT, "tcp", sport=443, dport=40001, flags="SA")
    save_snapshot(engine, tmp_path / "state")
    later = load_snapshot(tmp_path / "state")
    assert later.check(CLIENT, LOOSE, "tcp", sport=40001, dport=443, flags="A").verdict == "moot"
    assert later.check(LOOSE, CLIENT, "tcp", sport=443, dport=40000, flags="SA").reason == "reply-denied"


def test_an_attempt_tried_again_counts_once_and_changes_are_obeyed(tmp_path: Path) -> None:
    story = [
        (at + n / 10, ethernet(
            ip(LOOSE, CLIENT, tcp(443, 40000, "SA")) if n else ip(CLIENT, LOOSE, tcp(40000, 443, "S"))
        ))
        for at in (0, 3, 6) for n in (0, 1)
    ]  # fmt: skip
    changes = write_changes(
        tmp_path, "{at: 5, add_rule: {group: s, rule: {direction: outbound, protocol: tcp}}}"
    )
    result = replay(parse_policy("version: 1\n" + POLICY), write_story(tmp_path, story), changes=changes)
    assert (result.verdicts["allow"], result.verdicts["deny"], result.connections["denied"]) == (4, 2, 1)
    assert [row.connections for row in result.broken] == [1]


def test_flow_logs_tell_it_as_captures_do(tmp_path: Path) -> None:
    """20 connections and 20 questions, both ways, that the cloud accepted."""
    policy = parse_policy("version: 1\n" + POLICY)
    lines = [
        "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action "
        "log-status"
    ]
    for n in range(20):
        for protocol, port in ((6, 443), (17, 53)):
            ends = [(CLIENT, LOOSE, 40000 + n, port), (LOOSE, CLIENT, port, 40000 + n)]
            lines += [
                f"2 1 eni-1 {src} {dst} {sport} {dport} {protocol} 5 500 {1_700_000_000 + n} {1_700_000_010 + n} "
                "ACCEPT OK"
                for src, dst, sport, dport in ends
            ]
    (tmp_path / "log").write_text("\n".join(lines) + "\n")
    result = replay(policy, tmp_path / "log")
    assert sorted((row.service.port, row.reason, row.direction, row.connections) for row in result.broken) == [
        (53, "reply-denied", "inbound", 20), (443, "reply-denied", "inbound", 20),
    ]  # fmt: skip
    assert result.connections["opened"] == 0 and result.connections["denied"] == 40
