"""A flow log record decides some questions about its connection, and leaves others open (SPEC 10.16)."""

from __future__ import annotations

from pathlib import Path

import pytest
from flow_logs import CLIENT, DB, POLICY, WEB, check, record, told

from sgfast.flow_logs.checking import EXPIRED, OLDER
from sgfast.flow_logs.conversations import DISPUTED, UNKNOWN_ORDER
from sgfast.flow_logs.formats.aws import DEFAULT_FIELDS


@pytest.mark.parametrize("turn", [False, True])
def test_a_reply_needs_its_opener_in_the_log(turn: bool, tmp_path: Path) -> None:
    # 8443 is closed but all outbound traffic is allowed, so a record read as an opener from web-1 would agree.
    there, back = record(CLIENT, WEB, 50000, 8443), record(WEB, CLIENT, 8443, 50000, start=1000 + turn)
    between = record("198.51.100.9", WEB, 50000, 443, start=999)
    checked = check(tmp_path, *((back, between, there) if turn else (there, back)))
    assert [reason for _, _, reason in told(checked)] == ["no-rule", "no-rule"]
    there, back = record(CLIENT, WEB, 50000, 443), record(WEB, CLIENT, 443, 50000)
    assert told(check(tmp_path, *((back, there) if turn else (there, back)))) == []


def test_a_server_that_speaks_first_is_not_taken_for_its_client(tmp_path: Path) -> None:
    there, back = record(CLIENT, WEB, 50000, 8443, 17), record(WEB, CLIENT, 8443, 50000, 17)
    for lines in ((back, there), (back, there.replace(" 1000 1010 ", " 1001 1010 "))):
        assert check(tmp_path, *lines).undecided == {DISPUTED: 2}
    # The client was refused, so it was the server.
    refused = record(CLIENT, WEB, 50000, 8443, 17, "REJECT", start=999)
    assert check(tmp_path, refused, back, there).agreeing == 3
    # Records of one second that are not in order do not show who was first: then the ports do.
    between = record("198.51.100.9", WEB, 50000, 443, start=999)
    assert [reason for _, _, reason in told(check(tmp_path, back, between, there))] == ["no-rule", "no-rule"]
    there, back = record(CLIENT, WEB, 500, 500, 17), record(WEB, CLIENT, 500, 500, 17)
    assert check(tmp_path, back, between, there).undecided == {UNKNOWN_ORDER: 2}


def test_a_reply_after_the_timeout_is_an_opener(tmp_path: Path) -> None:
    # db-1 may be connected to, but may not connect to anyone.
    ask, answer = record(CLIENT, DB, 50000, 60000, 17), record(DB, CLIENT, 60000, 50000, 17, start=1100)
    assert told(check(tmp_path, ask, answer)) == []
    late = record(DB, CLIENT, 60000, 50000, 17, start=1010 + 182)
    assert told(check(tmp_path, ask, late)) == [(2, "opener", "no-rule")]


def test_a_log_that_begins_in_the_middle_goes_by_ports(tmp_path: Path) -> None:
    reply = record(DB, WEB, 5432, 40000, interface="db-1")
    assert told(check(tmp_path, reply)) == []
    other = record(CLIENT, WEB, 50000, 443)
    later = record(DB, WEB, 5432, 40000, interface="db-1", start=5000)
    assert told(check(tmp_path, other, later)) == [(2, "opener", "no-rule")]


SYSLOG = POLICY.replace("protocol: tcp, ports: 443", "protocol: udp, ports: 514")


def test_rejections_that_no_rule_was_asked_about(tmp_path: Path) -> None:
    # Without flags it may be any packet of an expired connection.
    wanted = record(CLIENT, WEB, 50000, 443, action="REJECT")
    assert check(tmp_path, *[wanted] * 5).undecided.total() == 5
    # Next to accepted packets, it is one.
    assert check(tmp_path, wanted, record(CLIENT, WEB, 50000, 443)).agreeing == 2
    late = record(WEB, CLIENT, 443, 50000, action="REJECT")
    assert check(tmp_path, late).undecided.total() == 1
    # A rejected packet would not have been answered.
    asked = record(CLIENT, WEB, 50000, 40000, action="REJECT")
    assert told(check(tmp_path, record(WEB, CLIENT, 40000, 50000, action="REJECT"), asked)) == []
    assert check(tmp_path, record(CLIENT, WEB, 0, 0, action="REJECT")).undecided.total() == 0
    assert check(tmp_path, record(WEB, CLIENT, 0, 0, action="REJECT")).undecided.total() == 1


def test_a_service_that_rejects_again_and_again_is_closed(tmp_path: Path) -> None:
    # Three packets each. A few may be malformed, but not all of so many.
    lines = [record(CLIENT, WEB, 50000 + n, 514, 17, "REJECT") for n in range(4)]
    assert check(tmp_path, *lines[:2], policy=SYSLOG).undecided.total() == 2
    assert told(check(tmp_path, *lines, policy=SYSLOG)) == [(n, "opener", "rule") for n in range(1, 5)]
    elsewhere = [line.replace(CLIENT, f"198.51.100.{n}") for n, line in enumerate(lines)]
    assert check(tmp_path, *elsewhere, policy=SYSLOG).undecided.total() == 4
    for place in (0, 2):
        others = [*lines[:place], record(CLIENT, WEB, 49999, 514, 17), *lines[place:]]
        checked = check(tmp_path, *others, policy=SYSLOG)
        assert (checked.agreeing, checked.undecided.total()) == (1, 4)
    # A table without room rejects everything.
    full = SYSLOG + "settings: {max_connections: 2}\n"
    assert check(tmp_path, *lines, policy=full).undecided.total() == 4


def test_tcp_flags_tell_openers_from_packets_of_expired_connections(tmp_path: Path) -> None:
    header = "srcaddr dstaddr srcport dstport protocol packets action start end tcp-flags"
    for flags, disagreeing in ((2, 1), (3, 0), (6, 0), (18, 0), (16, 0), (0, 0)):
        line = f"{CLIENT} {WEB} 50000 443 6 9 REJECT 1000 1010 {flags}"
        checked = check(tmp_path, line, header=header)
        assert (checked.disagreeing, checked.undecided.total()) == (disagreeing, 1 - disagreeing)


def test_a_connection_that_may_be_older_than_the_log_needs_ports_or_a_syn(tmp_path: Path) -> None:
    # Both ports are ephemeral, so a capture's first packet does not show who opened the connection.
    there, back = record(CLIENT, WEB, 50000, 40000), record(WEB, CLIENT, 40000, 50000)
    assert check(tmp_path, there, back).undecided == {OLDER: 2}
    header = " ".join((*DEFAULT_FIELDS, "tcp-flags"))
    flagged = [f"{line} {flags}" for line, flags in ((there, 2), (back, 18))]
    assert [reason for _, _, reason in told(check(tmp_path, *flagged, header=header))] == ["no-rule", "no-rule"]
    first = record(CLIENT, WEB, 50000, 443, start=100)
    assert [line for line, _, _ in told(check(tmp_path, first, there, back))] == [2, 3]


def test_enough_connections_rejected_without_flags_are_the_rules_doing(tmp_path: Path) -> None:
    lines = [record(CLIENT, WEB, 50000 + n, 443, action="REJECT") for n in range(8)]
    assert [reason for _, _, reason in told(check(tmp_path, *lines))] == ["rule"] * 8
    # The same source port is the same connection. An accepted connection shows that the service is open.
    for few in (lines[:7], [*lines[:7], *lines[:7]], [*lines, record(CLIENT, WEB, 51000, 443)]):
        rejected = sum("REJECT" in line for line in few)
        assert check(tmp_path, *few).undecided == {EXPIRED: rejected}


def test_a_connection_that_was_there_once_explains_no_later_refusal_of_openers(tmp_path: Path) -> None:
    ntp = SYSLOG.replace("514", "123")
    first = record(CLIENT, WEB, 123, 123, 17)
    later = [record(CLIENT, WEB, 123, 123, 17, "REJECT", start=9000 + 60 * n) for n in range(9)]
    checked = check(tmp_path, first, *later, policy=ntp)
    assert (checked.agreeing, checked.undecided.total()) == (1, 9)
    # Nor does one packet that came the other way, and that the rules refused.
    stray = record(DB, CLIENT, 123, 123, 17, "REJECT")
    back = [line.replace(WEB, DB).replace(" web-1 ", " db-1 ") for line in later]
    ntp = POLICY.replace("protocol: udp, ports: 60000", "protocol: udp, ports: 123")
    assert len(told(check(tmp_path, stray, *back, policy=ntp))) == 9


def test_a_client_with_a_low_port_is_no_service(tmp_path: Path) -> None:
    header = "srcaddr dstaddr srcport dstport protocol packets action start end tcp-flags"
    lines = [f"{CLIENT} {WEB} {700 + n} 2049 6 9 REJECT 1000 1010 2" for n in range(3)]
    nfs = POLICY.replace("ports: 443", "ports: 2049")
    assert [reason for _, _, reason in told(check(tmp_path, *lines, header=header, policy=nfs))] == ["rule"] * 3


def test_records_that_a_service_holds_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgfast.flow_logs.checking.MOST_WAITING", 5)
    lines = [record(CLIENT, WEB, 50000 + n % 2, 443, action="REJECT", start=1000 + n) for n in range(40)]
    checked = check(tmp_path, *lines)
    assert checked.undecided == {EXPIRED: 40} and not checked.disagreements


def test_later_fragments_have_no_ports(tmp_path: Path) -> None:
    # web-1's datagram may be let in, but a record of its later fragments has port 0.
    later = record(CLIENT, DB, 0, 0, 17)
    assert check(tmp_path, later).undecided.total() == 1
    assert told(check(tmp_path, record(CLIENT, DB, 50000, 60001, 17))) == [(1, "opener", "no-rule")]


def test_a_stateless_filter_lets_no_reply_in(tmp_path: Path) -> None:
    stateless = POLICY.replace("  - name: db\n", "  - name: db\n    stateful: false\n")
    ask, answer = record(CLIENT, DB, 50000, 60000, 17), record(DB, CLIENT, 60000, 50000, 17)
    assert told(check(tmp_path, ask, answer)) == []
    assert told(check(tmp_path, ask, answer, policy=stateless)) == [(2, "opener", "no-rule")]
    # An ICMP error needs a rule, too.
    error = record(CLIENT, DB, protocol=1)
    assert check(tmp_path, ask, error).undecided.total() == 1
    assert told(check(tmp_path, ask, error, policy=stateless)) == [(2, "opener", "no-rule")]
    unreachable = "ports: 60000}\n      - {direction: inbound, protocol: icmp, icmp_type: 3}"
    assert check(tmp_path, ask, error, policy=stateless.replace("ports: 60000}", unreachable)).agreeing == 2


def test_a_ping_after_an_icmp_error_is_no_reply_to_it(tmp_path: Path) -> None:
    # UDP leaves, an ICMP unreachable comes back; later a ping leaves, and its reply comes.
    outward = record("10.0.0.6", CLIENT, 40000, 33434, 17)
    pings = record(CLIENT, "10.0.0.6", protocol=1), record("10.0.0.6", CLIENT, protocol=1, start=1009)
    checked = check(tmp_path, outward, *pings)
    assert (checked.agreeing, checked.disagreeing, checked.undecided.total()) == (1, 0, 2)
    # The error may be about a ping to somebody else, but not about one that comes later.
    other = record("10.0.0.6", "203.0.113.1", protocol=1)
    assert check(tmp_path, other, *pings).undecided.total() == 2
    assert [line for line, _, _ in told(check(tmp_path, *pings))] == [1, 2]


def test_icmp_has_no_types_in_a_record(tmp_path: Path) -> None:
    ping, pong = record("192.0.2.1", WEB, protocol=1), record(WEB, "192.0.2.1", protocol=1)
    assert told(check(tmp_path, ping, pong)) == []
    stranger = record(CLIENT, WEB, protocol=1), record(WEB, CLIENT, protocol=1)
    assert told(check(tmp_path, *stranger)) == [(1, "opener", "no-rule"), (2, "reply", "no-rule")]
    # One-way ICMP may be an error if there is a connection; without one, it cannot be.
    assert check(tmp_path, record(CLIENT, WEB, 50000, 443), stranger[0]).undecided.total() == 1
    assert told(check(tmp_path, stranger[0])) == [(1, "opener", "no-rule")]
    assert check(tmp_path, record("192.0.2.1", WEB, protocol=1, action="REJECT")).undecided.total() == 1


def test_a_header_names_other_fields_and_flags_tell_who_opened(tmp_path: Path) -> None:
    header = "tcp-flags dstport srcport action end start dstaddr srcaddr protocol flow-direction"
    # Both ports look like service ports: without flags, the earlier record would count as the opener's.
    back = f"19 9000 443 ACCEPT 1010 1000 {CLIENT} {WEB} 6 egress"
    there = f"3 443 9000 ACCEPT 1010 1000 {WEB} {CLIENT} 6 ingress"
    closed = POLICY.replace("ports: 443", "ports: 444")
    assert told(check(tmp_path, back, there, header=header)) == []
    assert told(check(tmp_path, back, there, header=header, policy=closed)) == [
        (2, "reply", "no-rule"), (3, "opener", "no-rule")
    ]  # fmt: skip
    # The direction field tells whose interface recorded traffic between two instances.
    between = f"2 22 40000 ACCEPT 1010 1000 {DB} {WEB} 6 "
    assert told(check(tmp_path, between + "egress", header=header)) == []
    assert told(check(tmp_path, between + "ingress", header=header)) == [(2, "opener", "no-rule")]
    # A packet without a SYN cannot open a connection.
    assert check(tmp_path, f"4 443 9000 REJECT 1010 1000 {WEB} {CLIENT} 6 ingress", header=header).undecided
