"""Logs that mislead: what they do not show is never reported as shown (SPEC 10.30, 10.31)."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import sgfast, valid
from flow_logs import CLIENT, DB, ONE_WEB, POLICY, WEB, record

from sgfast import ReadOptions, ReplayResult, replay
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS
from sgfast.clouds.loading import parse_policy
from sgfast.questions.checking.unused import never_hit
from sgfast.questions.replaying.removal import evidence_for_removal

#: Records that are surely within the log, and two-way.
OTHERS = [
    line for n in range(30)
    for line in (record(CLIENT, WEB, 51000 + n, 443, start=n), record(WEB, CLIENT, 443, 51000 + n, start=n))
]  # fmt: skip
DAY = 86400


def replayed(tmp_path: Path, *lines: str, policy: str = POLICY, name: str = "flow.log") -> ReplayResult:
    path = tmp_path / name
    path.write_text("\n".join((" ".join(DEFAULT_FIELDS), *lines)) + "\n")
    result = replay(parse_policy(policy), path)
    assert result.records is not None
    left = result.records
    assert left.read == left.judged + left.rejected + sum(left.undecided.values()) + sum(left.left_out.values())
    return result


def both_ways(port: int, start: int, *, server_first: bool, later: int = 1) -> list[str]:
    there = record(CLIENT, WEB, port, 51820, 17, start=start + server_first * later)
    back = record(WEB, CLIENT, 51820, port, 17, start=start + (not server_first) * later)
    return [there, back]


def test_what_was_rejected_before_a_rule_was_added_does_not_hide_what_was_accepted_later(tmp_path: Path) -> None:
    """SPEC 10.31."""
    refused = record(CLIENT, WEB, 50000, 514, 17, "REJECT", start=100)
    accepted = [record(CLIENT, WEB, 50000, 514, 17, start=160 + 60 * n) for n in range(20)]
    result = replayed(tmp_path, *OTHERS, refused, *accepted)
    assert result.records is not None
    assert (result.records.rejected, result.records.judged) == (1, len(OTHERS) + 20)
    assert result.connections["denied"] == 20        # the table forgets what is denied

    # At the receiver, after the sender accepted the same packets, it is one attempt.
    sent = record(WEB, DB, 50000, 514, 17, interface="web-1", start=160)
    stopped = record(WEB, DB, 50000, 514, 17, "REJECT", interface="db-1", start=160)
    result = replayed(tmp_path, *OTHERS, sent, stopped)
    assert result.records is not None
    assert (result.records.rejected, result.records.judged) == (1, len(OTHERS))


def test_after_a_gap_in_the_log_nobody_knows_which_connections_are_new(tmp_path: Path) -> None:
    """SPEC 10.30."""
    # All outbound traffic of web-1 is allowed, so that a connection of which it were the opener would be.
    later = both_ways(50000, 7 * DAY, server_first=True)
    result = replayed(tmp_path, *OTHERS, *later)
    assert result.records is not None
    assert result.records.undecided == {"readings-differ": 2}
    # Without a gap, times tell if they differ by more than what AWS's starts may.
    going = [
        line for n in range(0, 2000, 100)
        for line in (record(CLIENT, WEB, 52000, 443, start=n), record(WEB, CLIENT, 443, 52000, start=n))
    ]  # fmt: skip
    result = replayed(tmp_path, *OTHERS, *going, *both_ways(50000, 1950, server_first=False, later=61))
    assert result.records is not None
    assert result.records.undecided == {} and result.connections["denied"] > 0


def test_one_record_with_a_wrong_old_time_makes_no_connection_new(tmp_path: Path) -> None:
    """SPEC 10.30."""
    old = record(CLIENT, "198.51.100.9", 50000, 443, start=-8000)
    for lines in ([old], [old.replace(" web-1 ", " other ", 1)]):
        result = replayed(tmp_path, *lines, *OTHERS, *both_ways(50000, 20, server_first=True))
        assert result.records is not None
        assert result.records.undecided == {"readings-differ": 2}


def test_another_interface_goes_on_where_the_log_of_the_first_one_ends(tmp_path: Path) -> None:
    """SPEC 10.30."""
    lines = [
        line.replace(" -8000 ", " ")
        for n in range(60)
        for name in ("db-1", "web-1") if name == "web-1" or n < 10
        for line in (
            record(WEB, DB, 50000, 5432, interface=name, start=60 * n),
            record(DB, WEB, 5432, 50000, interface=name, start=60 * n),
        )
    ]  # fmt: skip
    result = replayed(tmp_path, *lines)
    assert result.records is not None and result.last_time_ns is not None
    # Two minutes of the other end's records, at the most, are not taken for a continuation.
    assert result.records.left_out == {"other-end": 2 * (10 + 2)}
    assert result.records.judged == 2 * (60 - 2)
    assert result.last_time_ns - (result.first_time_ns or 0) > 59 * 60 * 10**9


def undecided(port: int) -> list[str]:
    # At the log's start, with ports that tell nothing.
    return [line for n in range(2) for line in both_ways(port + n, 20, server_first=True)]


def test_many_records_of_one_connection_do_not_outweigh_the_undecided_ones_of_others(tmp_path: Path) -> None:
    """SPEC 10.27."""
    one = [
        line for n in range(0, 60000, 60)
        for line in (record(CLIENT, WEB, 51000, 443, start=n), record(WEB, CLIENT, 443, 51000, start=n))
    ]  # fmt: skip
    result = replayed(tmp_path, *one, *undecided(40000))
    assert [(reason.code, reason.packets) for reason in result.evidence.reasons] == [("unsure-openers", 4)]
    assert round(result.evidence.reasons[0].share, 2) == 0.67
    assert replayed(tmp_path, *one).evidence.reasons == ()


def test_a_gate_does_not_hold_where_the_cloud_lost_records(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """SPEC 10.27: a lost record may be that of a connection that would break."""
    policy, log = tmp_path / "policy.yaml", tmp_path / "flow.log"
    policy.write_text(POLICY)
    lost = f"2 123456789010 web-1 {'- ' * 7}1001 1060 - SKIPDATA"
    command = ("replay", policy, log, "--fail-on", "would-break", "-q")
    for lines, status in ((OTHERS, 0), ([*OTHERS, lost], 1)):
        log.write_text("\n".join((" ".join(DEFAULT_FIELDS), *lines)) + "\n")
        assert sgfast(capsys, *command).status == status
    assert sgfast(capsys, *command, "--accept-evidence", "records-lost").status == 0


def test_records_without_ports_are_missing_in_the_answer(tmp_path: Path) -> None:
    """SPEC 10.27."""
    fields = record(CLIENT, WEB, 0, 0, 17).split(" ")
    fields[5] = fields[6] = "-"
    result = replayed(tmp_path, *OTHERS, " ".join(fields))
    assert [(reason.code, reason.packets) for reason in result.evidence.reasons] == [("undecided", 1)]


def test_a_rule_that_an_undecided_record_may_need_is_not_called_unused(tmp_path: Path) -> None:
    """SPEC 10.12, 10.15."""
    policy = ONE_WEB.replace(
        "- {direction: outbound",
        "- {id: vpn, direction: inbound, protocol: udp, ports: 51000-52000}\n"
        "      - {id: other, direction: inbound, protocol: udp, ports: 53000}\n"
        "      - {direction: outbound", 1,
    )  # fmt: skip
    # The only member of its group.
    policy = policy.replace("  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}\n", "")
    result = replayed(tmp_path, *OTHERS, *undecided(40000), policy=policy)
    unused = {finding.rule for finding in never_hit(result)[0]}
    assert "other" in unused and "vpn" not in unused


def test_diffs_of_logs_are_valid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """SPEC 15.5."""
    old, new, log = tmp_path / "old.yaml", tmp_path / "new.yaml", tmp_path / "flow.log"
    old.write_text(POLICY)
    new.write_text(POLICY.replace("ports: 443", "ports: 8443"))
    log.write_text("\n".join((" ".join(DEFAULT_FIELDS), *OTHERS)) + "\n")
    found = valid("diff", json.loads(sgfast(capsys, "diff", old, new, log, "--json").out))
    assert [row["example"]["packet"] for row in found["newly_denied"]["rows"]] == [None]


def test_a_closed_port_that_is_tried_several_times_is_no_denial(tmp_path: Path) -> None:
    """SPEC 10.30."""
    header = " ".join((*DEFAULT_FIELDS, "tcp-flags"))
    lines = [
        line for n in range(5)
        for line in (record(CLIENT, WEB, 50000 + n, 443) + " 2", record(WEB, CLIENT, 443, 50000 + n) + " 4")
    ]  # fmt: skip
    log = tmp_path / "flow.log"
    log.write_text("\n".join((header, *lines)) + "\n")
    result = replay(parse_policy(POLICY), log)
    assert (result.verdicts["deny"], result.verdicts["allow"]) == (0, 30)
    assert [row.connections for row in result.unanswered] == [5]


def test_the_answer_says_why_no_record_was_judged(tmp_path: Path) -> None:
    """SPEC 10.27."""
    refused = record(CLIENT, WEB, 50000, 443, action="REJECT")
    for lines, word in (
        ([refused], "the cloud rejected"), (undecided(40000), "either end may have opened"),
        (["2 1 eni-1 - - - - - - - 1000 1010 - NODATA"], "NODATA"),
    ):  # fmt: skip
        (reason,) = [each for each in replayed(tmp_path, *lines).evidence.reasons if each.code == "no-packets"]
        assert word in reason.sentence
    log = tmp_path / "flow.log"
    log.write_text("\n".join((" ".join(DEFAULT_FIELDS), *OTHERS)) + "\n")
    result = replay(parse_policy(POLICY), log, reading=ReadOptions(start="2030-01-01T00:00:00Z"))
    (reason,) = result.evidence.reasons
    assert "--start" in reason.sentence and "--start" in reason.command


def test_a_rule_that_a_guessed_connection_may_need_is_not_called_unused(tmp_path: Path) -> None:
    """SPEC 10.12, 10.15."""
    policy = f"""
version: 1
security_groups:
  - name: web
    rules:
      - {{id: grpc, direction: inbound, protocol: tcp, ports: 50051}}
      - {{id: other, direction: inbound, protocol: tcp, ports: 50052}}
      - {{id: https, direction: inbound, protocol: tcp, ports: 443}}
instances:
  - {{name: web-1, addresses: [{WEB}], security_groups: [web]}}
"""
    # A client behind NAT may have a port below 32768, as services do. This one connects once in a month.
    once = [record(CLIENT, WEB, 20000, 50051), record(WEB, CLIENT, 50051, 20000)]
    result = replayed(tmp_path, *OTHERS, *once, policy=policy)
    assert result.records is not None and result.records.undecided == {"readings-differ": 2}
    found, unseen = never_hit(result)
    assert ([each.rule for each in found], [each.rule.id for each in unseen]) == (["other"], ["grpc"])
    assert unseen[0].use is not None and unseen[0].use.source == CLIENT
    # Many clients make the port a known service, as behind a load balancer, or that of a scanner of such ports.
    many = [
        line for port in range(20000, 20012)
        for line in (record(CLIENT, WEB, port, 50051), record(WEB, CLIENT, 50051, port))
    ]  # fmt: skip
    result = replayed(tmp_path, *OTHERS, *many, policy=policy)
    assert result.records is not None and result.records.undecided == {"readings-differ": 24}
    (found,) = result.openers.differing
    assert (found.likelier.rule, found.other.verdict, found.connections) == ("grpc", "deny", 12)


def test_a_client_that_goes_from_one_port_to_many_servers_makes_no_service_of_its_port(tmp_path: Path) -> None:
    """SPEC 10.30: tunnels and games have fixed ports at both ends."""
    lines = [
        record(*ends, 17) for server in range(2, 9)
        for ends in ((CLIENT, f"10.0.0.{server}", 13231, 51820), (f"10.0.0.{server}", CLIENT, 51820, 13231))
    ]  # fmt: skip
    result = replayed(tmp_path, *OTHERS, *lines)
    assert result.records is not None and result.records.unsure_connections + result.records.undecided_connections == 7


def two_ways(*ports: tuple[int, int], later: int = 0) -> list[str]:
    return [
        line for client, service in ports
        for line in (record(CLIENT, WEB, client, service), record(WEB, CLIENT, service, client, start=1000 + later))
    ]  # fmt: skip


@pytest.mark.parametrize(("lines", "unsure"), [
    # Passive FTP of a client behind NAT, or a service with few clients: nothing tells them apart.
    (two_ways((45000, 7777)), 1),
    (two_ways(*((2100, 50000 + n) for n in range(2))), 2),
    (two_ways(*((20000 + n, 50051) for n in range(12))), 12),
    (two_ways((20001, 8080), (20001, 5432)), 2),
    # Several clients make a known service. A usual port is a service's if clients have the other one.
    (two_ways(*((45000 + n, 7777) for n in range(4))), 0),
    (two_ways(*((20000 + n, 8080) for n in range(4))), 0),
    (two_ways((45000, 8080), (45001, 5432), (45000, 443), (20000, 22)), 0),
    (two_ways((45000, 7777), later=61), 0),
    # One way, the sender opened it.
    ([record(CLIENT, WEB, 45000, 7777)], 0),
    ([record(CLIENT, WEB, 45000, 8080), record(CLIENT, WEB, 45000, 514, 17), record(CLIENT, WEB, protocol=47)], 0),
])  # fmt: skip
def test_what_weak_signs_tell_is_not_certain(lines: list[str], unsure: int, tmp_path: Path) -> None:
    """SPEC 10.27."""
    between = record("192.0.2.9", WEB, 40000, 443, start=500)
    result = replayed(tmp_path, *OTHERS, between, *lines)
    assert result.records is not None
    records = result.records
    assert records.unsure_connections + records.undecided_connections == unsure
    # An unsure opener is a doubt only if the verdict depends on the opener.
    differing = sum(each.connections for each in result.openers.differing)
    assert ("unsure-openers" in [each.code for each in result.evidence.reasons]) == (differing > 0)


def test_rejections_before_and_after_do_not_hide_what_was_accepted_between(tmp_path: Path) -> None:
    """SPEC 10.31: one-way syslog, of which both ends are logged."""
    def records(interface: str, action: str, *minutes: int) -> list[str]:
        later = int(interface == "eni-2")
        return [
            record(WEB, DB, 40514, 514, 17, action, start=60 * at + later, interface=interface) for at in minutes
        ]  # fmt: skip

    lines = [*records("eni-1", "ACCEPT", *range(400)), *records("eni-2", "REJECT", 0, 399)]
    lines += records("eni-2", "ACCEPT", *range(1, 399))
    result = replayed(tmp_path, *OTHERS, *lines)
    assert result.records is not None
    # The other end's records are left out, and its rejections count for the minutes around them.
    assert 2 <= result.records.rejected <= 10 and result.records.judged >= 390


def test_the_answer_does_not_depend_on_how_a_log_is_cut_into_files(tmp_path: Path) -> None:
    seed = 20261201
    rng = np.random.default_rng(seed)
    lines = []
    for start in np.sort(rng.integers(0, 3 * DAY, 400)).tolist():
        client, port = f"192.0.2.{rng.integers(1, 4)}", int(rng.choice([700, 890, 2049, 20000, 40000, 50000]))
        service, protocol = int(rng.choice([443, 2049, 5060, 50051])), int(rng.choice([6, 17]))
        ends = [(client, WEB, port, service), (WEB, client, service, port)]
        for each in ends[: rng.integers(1, 3)] if rng.random() < 0.8 else ends[::-1]:
            action = "REJECT" if rng.random() < 0.1 else "ACCEPT"
            lines.append((start, record(*each, protocol, action, start=start, seconds=int(rng.integers(1, 50)))))
    # Both ends log these, which go on for some time with pauses near the timeouts.
    for start in rng.integers(0, 3 * DAY, 60).tolist():
        port, service = int(rng.choice([500, 20000])), int(rng.choice([500, 7000]))
        for _ in range(12):
            for way in ((WEB, DB, port, service), (DB, WEB, service, port)):
                for interface in ("web-1", "db-1"):
                    at = start + int(rng.integers(0, 2))
                    lines.append((at, record(
                        *way, 17, start=at, seconds=int(rng.integers(1, 50)), interface=interface
                    )))  # fmt: skip
            start += int(rng.choice([10, 60, 180, 230, 300]))
    # A service that becomes known by its third client, three hours after the first.
    for start, port in ((20_000, 45000), (31_000, 45001), (42_000, 45002)):
        for each in ((CLIENT, WEB, port, 7777), (WEB, CLIENT, 7777, port)):
            lines.append((start, record(*each, start=start, seconds=10)))
    lines.sort(key=lambda each: each[0])
    answers = []
    for name, part_of in (
        ("whole", lambda at, line: 0), ("days", lambda at, line: at // DAY), ("hours", lambda at, line: at // 3600),
        ("clients", lambda at, line: line.split()[3]), ("random", lambda at, line: int(rng.integers(5))),
        ("interfaces", lambda at, line: line.split()[2]), ("shuffled", lambda at, line: 0),
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        parts: dict[object, list[str]] = defaultdict(list)
        # No record is more than an hour later in its file than others of its time.
        for at, line in lines if name != "shuffled" else sorted(lines, key=lambda each: each[0] + 3500 * rng.random()):
            parts[part_of(at, line)].append(line)
        for number, part in enumerate(parts.values()):
            (folder / f"{number}.log").write_text("\n".join((" ".join(DEFAULT_FIELDS), *part, "")))
        result = replay(parse_policy(POLICY), folder)
        assert result.records is not None
        facts = replace(result.records, formats={})
        answers.append((facts, result.packets, result.verdicts, result.connections, result.rules, result.doubts))
    assert all(answer == answers[0] for answer in answers), f"seed {seed}"
    assert min(answers[0][0].undecided.values()) > 3 and answers[0][0].rejected > 3
    assert answers[0][0].unsure_connections > 3


@pytest.mark.parametrize(
    ("days", "silent_hours", "lasting"), [
        ([0, 1, 2, 3, 4, 5, 6, 7], 0, None),
        ([7, 1, 2, 3, 4, 5, 0, 6], 0, None),
        ([0, 7], 167, "last 60 min, without 6 d of which they have no record, and not 7 days"),
        ([0, 1, 2, 4, 5, 6, 7], 47, "last 5 d, without 47 h of which they have no record, and not 7 days"),
    ],
)  # fmt: skip
def test_days_without_any_record_do_not_count_as_a_time_in_which_a_rule_was_not_used(
    days: list[int], silent_hours: int, lasting: str | None, tmp_path: Path
) -> None:
    lines = [record("192.0.2.1", WEB, 50000 + day, 443, start=DAY * (1 + day), seconds=1) for day in days]
    result = replayed(tmp_path, *lines)
    assert result.records is not None and result.records.silent_hours == silent_hours
    short = [reason.sentence for reason in evidence_for_removal(result).reasons if reason.code == "short-window"]
    assert [lasting is not None and lasting in sentence for sentence in short] == ([] if lasting is None else [True])
