"""Peers with equal ports: what comes back to a denied packet is an answer or a call (SPEC 9.2). How to read a table:
``scenario``.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from command import sgfast, write_policy
from frames import ethernet, ip, udp
from scenario import run_both_families
from stories import write_story

from sgfast import load_snapshot, replay, save_snapshot, suggest
from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.engine import VERDICTS, Engine
from sgfast.questions.replaying import ReplayResult
from sgfast.report.lines import ConnectionLines


def both(rule: str) -> str:
    """The rule in either family."""
    return f"{{{rule}}}, {{{rule}, ethertype: IPv6}}"


#: ``vm`` may be called by anybody, and call nobody.
POLICY = f"""
security_groups:
  - {{name: g, rules: [{both("direction: inbound, protocol: all")}]}}
instances:
  - {{name: vm, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}}
"""
#: ``LINK_RECORD`` of frames.pxd.
LINK_RECORD = 0x1FFFF
VM, PEER = "10.0.0.5", "203.0.113.9"


def test_first_packet_within_a_second_is_the_answer_and_any_other_one_is_a_call() -> None:
    run_both_families(POLICY, """
        @0         udp vm:123 > client:123      -> deny no-rule
        @0.01      udp client:123 > vm:123      -> moot opener-denied
        @64        udp vm:123 > client:123      -> deny no-rule
        @65        udp client:123 > vm:123      -> moot opener-denied
        # a second answer is a call, and so is one after more than a second
        @100       udp vm:4500 > client:4500    -> deny no-rule
        @100.1     udp client:4500 > vm:4500    -> moot opener-denied
        @100.2     udp client:4500 > vm:4500    -> allow rule
        @100.3     udp vm:4500 > client:4500    -> allow established
        @200       udp vm:500 > client:500      -> deny no-rule
        @201+1ns   udp client:500 > vm:500      -> allow rule
        # the time begins with the last denied packet, and so does the count
        @300       udp vm:51820 > client:51820  -> deny no-rule
        @300.9     udp vm:51820 > client:51820  -> deny no-rule
        @301.9     udp client:51820 > vm:51820  -> moot opener-denied
        @302       udp vm:51820 > client:51820  -> deny no-rule
        @302.1     udp client:51820 > vm:51820  -> moot opener-denied
        # ports that differ, and protocols without ports
        @400       udp vm:40000 > client:123    -> deny no-rule
        @405       udp client:123 > vm:40000    -> moot opener-denied
        @410       253 vm > client              -> deny no-rule
        @410.5     253 client > vm              -> moot opener-denied
        @410.6     253 client > vm              -> allow rule
    """, mode="causal")


@pytest.mark.parametrize("protocol", ["4", "41", "gre", "esp", "ah"])
def test_tunnels_answer_nothing(protocol: str) -> None:
    run_both_families(POLICY, f"""
        @0    {protocol} vm > client  -> deny no-rule
        @0.1  {protocol} client > vm  -> allow rule
        @0.2  {protocol} vm > client  -> allow established
    """, mode="causal")


def test_what_the_filters_deny_is_an_answer_whenever_it_comes() -> None:
    run_both_families(POLICY.replace("all", "tcp"), """
        @0    udp vm:123 > client:123  -> deny no-rule
        @5    udp client:123 > vm:123  -> moot opener-denied
        @6    udp client:123 > vm:123  -> moot opener-denied
        @7    esp vm > client          -> deny no-rule
        @7    esp client > vm          -> moot opener-denied
    """, mode="causal")


def replayed(folder: Path, *packets: tuple[float, int], port: int = 123, **options: object) -> ReplayResult:
    """Replay packets: when, and the way (0: from the instance)."""
    ends = (VM, PEER)
    story = [(at, ethernet(ip(ends[way], ends[1 - way], udp(port, port)))) for at, way in packets]
    # another pair, of which both ends were seen
    story += [(story[-1][0] + 1, ethernet(ip(*pair, udp(7000, 7000)))) for pair in ((PEER, VM), (VM, PEER))]
    return replay(parse_policy("version: 1\n" + POLICY), write_story(folder, story), **options)  # type: ignore[arg-type]


def told(result: ReplayResult) -> tuple[int, int, int]:
    """Return the connections that would break, the packets of which nobody can tell, and those that nobody answered."""
    found = json.loads(result.to_json())
    break_, unclear = (found[name] for name in ("would_break", "cannot_tell"))
    packets = sum(row["packets"] for row in found["denied"])
    answered = sum(row["packets"] for row in break_)
    perhaps = sum(row["packets"] for row in unclear)
    return sum(row["connections"] for row in break_), perhaps, packets - perhaps - answered


def test_thirty_polls_that_were_answered_would_break(tmp_path: Path) -> None:
    polls = [packet for n in range(30) for packet in ((64.0 * n, 0), (64.0 * n + 0.01, 1))]
    assert told(replayed(tmp_path, *polls)) == (30, 0, 0)


def test_a_peer_that_calls_by_itself_breaks_nothing_if_it_was_answered(tmp_path: Path) -> None:
    assert told(replayed(tmp_path, (0, 0), (5, 1), (5.1, 0), (5.2, 1))) == (0, 0, 1)
    assert told(replayed(tmp_path, (0, 0), (5, 1), (9, 1))) == (0, 1, 0), "perhaps a late answer"
    # the second call comes from the peer, and the first connection still breaks
    assert told(replayed(tmp_path, (0, 0), (0.1, 1), (0.2, 1), (0.3, 0))) == (1, 0, 0)
    assert told(replayed(tmp_path, (0, 0), (9, 0))) == (0, 0, 2)


def test_what_nobody_can_tell_is_in_every_form_and_no_page_is_green(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = [
        (at, ethernet(ip(*ends, udp(port, port))))
        for at, ends, port in ((0, (VM, PEER), 123), (5, (PEER, VM), 123), (6, (PEER, VM), 7), (6, (VM, PEER), 7))
    ]
    policy, capture = write_policy(tmp_path, "version: 1\n" + POLICY), write_story(tmp_path, story)
    page = tmp_path / "page.html"
    text = " ".join(sgfast(capsys, "replay", policy, capture, "--report", page).out.split())
    assert "cannot tell whether somebody answered 1 denied packet" in text and "nobody answered" not in text
    html = page.read_text()
    assert "Denied, perhaps answered" in html and '<h1 class="partly">' in html
    markdown = sgfast(capsys, "replay", policy, capture, "--format", "markdown").out
    assert "Cannot tell whether somebody answered" in markdown


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize(("rest", "expected"), [([(6.0, 1)], (0, 1, 0)), ([(6.0, 0)], (0, 0, 1))])
def test_a_replay_that_goes_on_knows_the_attempt(
    tmp_path: Path, rest: list[tuple[float, int]], expected: tuple[int, int, int], jobs: int
) -> None:
    state = tmp_path / "state"
    replayed(tmp_path, (0, 0), (5, 1), snapshot=state)
    result = replayed(tmp_path, *rest, resume=state, jobs=jobs)
    found = json.loads(result.to_json())
    assert (sum(row["packets"] for row in found["cannot_tell"]), found["would_break"]) == (expected[1], [])


def test_keep_adds_a_rule_only_where_it_would_break_and_at_one_end(tmp_path: Path) -> None:
    frames = []
    for at, way, port in (
        (0, 0, 123), (0.1, 1, 123), (64, 0, 123), (64.1, 1, 123), (70, 0, 500), (75, 1, 500), (76, 0, 500),
        (80, 0, 4500), (85, 1, 4500),
    ):  # fmt: skip
        ends = (VM, PEER)
        frames.append((at, ethernet(ip(ends[way], ends[1 - way], udp(port, port)))))
    found = suggest(write_story(tmp_path, frames), policy=parse_policy("version: 1\n" + POLICY), keep=True)
    assert [(each.rule.direction, each.rule.ports) for each in found.rules] == [("outbound", ((123, 123),))]
    two = POLICY + "  - {name: peer, addresses: [203.0.113.9], security_groups: [g]}\n"
    found = suggest(write_story(tmp_path, frames[:4]), policy=parse_policy("version: 1\n" + two), keep=True)
    assert [(each.rule.direction, each.rule.ports) for each in found.rules] == [("outbound", ((123, 123),))]


def test_engines_without_reports_judge_the_same(tmp_path: Path) -> None:
    engine = Engine(parse_policy("version: 1\n" + POLICY), mode="causal")
    engine.check(VM, PEER, "udp", sport=123, dport=123)
    save_snapshot(engine, tmp_path / "state")
    later = load_snapshot(tmp_path / "state")
    for each in (engine, later):
        assert each.check(PEER, VM, "udp", sport=123, dport=123).verdict == "moot"
        assert each.check(PEER, VM, "udp", sport=123, dport=123).verdict == "allow"


def test_records_tell_who_called() -> None:
    """Frames of flow logs have no times of single packets: what the filters let open opens."""
    engine = Engine(parse_policy("version: 1\n" + POLICY), mode="causal")
    engine.dataplane.weigh()
    frames = [
        struct.pack("<QII", 1, 60, 0) + ethernet(ip(*ends, udp(123, 123)))[14:] for ends in ((VM, PEER), (PEER, VM))
    ]
    rows = engine.process(FrameBatch.from_frames(frames, [0, 1000], [60, 60], LINK_RECORD))
    assert [VERDICTS[verdict] for verdict in rows["verdict"]] == ["deny", "allow"]


def test_a_call_that_is_refused_or_answered_later(tmp_path: Path) -> None:
    """Whether rows of connections are written makes no difference."""
    for answer, unclear in ((0, 0), (1, 1)):
        lines: list[bytes] = []
        packets = [(0.0, 0), (5.0, 1), (20.0, answer), (21.0, 1)]
        both_ways: tuple[dict[str, object], ...] = ({}, {"flows": ConnectionLines(lines.append)})
        found = [told(replayed(tmp_path, *packets, **options)) for options in both_ways]
        assert [each[1] for each in found] == [unclear, unclear]
        assert b'"verdict":"deny"' in b"".join(lines).replace(b" ", b"")
