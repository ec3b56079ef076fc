"""A first expectations file says what worked in captures, and is true for the policy or marked (SPEC 10.23)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from command import SHOP, handshake, write_capture
from frames import ethernet, icmp, ip, udp

from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy.expectations import parse_expectations
from sgfast.policy.model import Policy
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.suggesting import first_expectations as module
from sgfast.questions.suggesting.first_expectations import FirstExpectations, first_expectations
from sgfast.rules.reaching.filters import CLIENT_PORT
from sgfast.rules.reaching.proving import Expectations

POLICY = parse_policy("""
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: "80,443", source: 0.0.0.0/0}
      - {direction: outbound, protocol: all}
      - {direction: outbound, ethertype: IPv6, protocol: all}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: web}
      - {direction: inbound, protocol: udp, source: web}
      - {direction: inbound, protocol: tcp, ports: 22, source: 10.0.0.5}
      - {direction: inbound, protocol: icmp, source: web}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}
  - {name: db-1, addresses: [10.0.1.9], security_groups: [db]}
""")


def first(folder: Path, *frames: bytes, policy: Policy = POLICY) -> tuple[list[str], FirstExpectations]:
    """The lines without comments, and the whole."""
    found = first_expectations(policy, [write_capture(folder, *frames)], ReplayOptions())
    lines = [line.split("  #")[0].strip() for line in found.text.splitlines() if line.lstrip()[0] == "-"]
    assert len(lines) == found.lines
    return lines, found


def test_what_worked_between_groups_is_one_line(tmp_path: Path) -> None:
    """Although only one of the web servers was seen, and the other may do the same."""
    lines, found = first(tmp_path, *handshake(1000, 5432, "10.0.0.5", "10.0.1.9"))
    assert lines == ["- {from: web, to: db, service: tcp/5432, verdict: allow}"] and found.denied == 0
    assert "# 1 connection\n" in found.text


def test_what_the_policy_denies_is_marked(tmp_path: Path) -> None:
    lines, found = first(tmp_path, *handshake(1000, 3306, "10.0.0.5", "10.0.1.9"))
    assert lines == ["- {from: web, to: db, service: tcp/3306, verdict: allow}"] and found.denied == 1
    assert "  # The policy denies this: tcp/3306 from 10.0.0.5 (web-1) to 10.0.1.9 (db-1) is denied: no " in found.text


def test_what_holds_for_one_member_alone_is_about_its_address(tmp_path: Path) -> None:
    frames = [*handshake(1000, 22, "10.0.0.5", "10.0.1.9"), *handshake(1001, 5432, "10.0.0.5", "10.0.1.9")]
    lines, found = first(tmp_path, *frames)
    assert lines == [
        "- {from: web, to: db, service: tcp/5432, verdict: allow}",
        "- {from: 10.0.0.5, to: 10.0.1.9, service: tcp/22, verdict: allow}",
    ] and found.denied == 0  # fmt: skip


def test_a_denied_port_does_not_take_the_allowed_ones_with_it(tmp_path: Path) -> None:
    frames = [frame for n, port in enumerate((80, 443, 8080)) for frame in handshake(1000 + n, port)]
    lines, found = first(tmp_path, *frames)
    assert lines == [
        '- {from: 198.51.100.7, to: web, service: "tcp/80,443", verdict: allow}',
        "- {from: 198.51.100.7, to: web, service: tcp/8080, verdict: allow}",
    ] and found.denied == 1  # fmt: skip


@pytest.mark.parametrize(("clients", "source"), [(3, "[1.2.3.1, 1.2.3.2, 1.2.3.3]"), (4, "internet")])
def test_many_public_addresses_are_the_internet(tmp_path: Path, clients: int, source: str) -> None:
    frames = [frame for n in range(clients) for frame in handshake(1000 + n, 80, f"1.2.3.{n + 1}", "10.0.0.5")]
    lines, _ = first(tmp_path, *frames)
    assert lines == [f"- {{from: {source}, to: web, service: tcp/80, verdict: allow}}"]


def test_what_did_not_work_is_counted_and_not_expected(tmp_path: Path) -> None:
    there, back = ("10.0.0.5", "10.0.1.9"), ("10.0.1.9", "10.0.0.5")
    frames = [
        *handshake(1000, 5432, *there)[:1],
        *[ethernet(ip(*there, udp(99, 53))), ethernet(ip(*back, udp(53, 99)))],
        *[ethernet(ip(*there, icmp(8, 0, 7))), ethernet(ip(*back, icmp(0, 0, 7)))],
    ]
    lines, found = first(tmp_path, *frames)
    assert lines == ['- {from: web, to: db, service: ["icmp echo-request", udp/53], verdict: allow}']
    assert "# Not in it: 1 connection, unanswered\n" in found.text


def test_each_connection_is_judged_as_if_it_were_the_only_one(tmp_path: Path) -> None:
    """Not as the reply to another one, if it goes back between the same ports."""
    web, db = "10.0.0.5", "10.0.1.9"
    frames = [
        ethernet(ip(*ends, udp(*ports)))
        for ends, ports in (((web, db), (99, CLIENT_PORT)), ((db, web), (CLIENT_PORT, 99)),
                            ((db, web), (98, CLIENT_PORT)), ((web, db), (CLIENT_PORT, 98)))
    ]  # fmt: skip
    lines, found = first(tmp_path, *frames)
    assert len(lines) == 2 and found.denied == 1 and f"udp/{CLIENT_PORT} from {db} (db-1) to {web}" in found.text


def test_a_name_that_means_several_things_is_written_with_its_kind(tmp_path: Path) -> None:
    policy = parse_policy("""
version: 1
security_groups:
  - {name: any, rules: [{direction: inbound, protocol: all}]}
  - {name: x, rules: [{direction: outbound, protocol: all}]}
instances:
  - {name: x, addresses: [10.0.0.5], security_groups: [x]}
  - {name: b, addresses: [10.0.1.9], security_groups: [any]}
""")
    lines, found = first(tmp_path, *handshake(1, 80, "10.0.0.5", "10.0.1.9"), policy=policy)
    assert lines == ['- {from: "group:x", to: "group:any", service: tcp/80, verdict: allow}'] and found.denied == 0


def test_many_ports_are_still_a_file_that_can_be_read(tmp_path: Path) -> None:
    frames = [frame for n in range(0, 400, 2) for frame in handshake(1000, 10_000 + n, "10.0.0.5", "10.0.1.9")]
    lines, found = first(tmp_path, *frames)
    assert len(lines) == 1 and len(parse_expectations(found.text).expectations[0].services) == 10


def test_a_file_has_a_limit_and_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINES", 2)
    frames = [frame for n in range(3) for frame in handshake(1000, 80 + n, "10.0.0.5", f"10.0.{n}.9")]
    frames += handshake(1001, 80, "10.0.0.5", "10.0.0.9")
    lines, found = first(tmp_path, *frames)
    assert len(lines) == 2 and "tcp/80" in lines[0]
    assert found.warnings[-1] == "the file has the 2 lines with most connections, and leaves out 1 line"


def test_the_recordings_file_is_true_line_by_line() -> None:
    policy = load_policy(SHOP[0])
    found = first_expectations(policy, [SHOP[1]], ReplayOptions())
    proof = Expectations(policy, parse_expectations(found.text)).prove()
    lines = pairwise(found.text.splitlines())
    marked = [before.startswith("  # ") for before, line in lines if line.startswith("  - ")]
    assert [outcome.word for outcome in proof.outcomes] == ["fails" if mark else "holds" for mark in marked]
    assert 5 < found.denied < found.lines < 25
