"""Connections that a change cuts come back, are denied again, or neither; their packets count apart (SPEC 6.12)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace as replace_in
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SERVER, sgfast, valid, write_policy
from datagrams import Datagram
from frames import ethernet, icmp, ip, other, tcp, udp
from reports import text_report
from stories import CLIENT, from_web, replayed, to_web, write_changes, write_story
from test_replay_changes import REMOVE
from traffic import SECOND

from sgfast import replay
from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.engine import MIDSTREAMS, MODES, REASONS, VERDICTS, Engine
from sgfast.policy.changes import ModifyRule
from sgfast.questions.replaying import ChangeDone, CutConnection, ReplayResult
from sgfast.report import html_report

POLICY = """
version: 1
settings: {timeouts: {tcp_established: 10, tcp_fin_wait: 3, tcp_other: 3, icmp: 3, unidirectional: 3, bidirectional: 4}}
security_groups:
  - name: web
    rules:
      - {id: http, direction: inbound, protocol: tcp, ports: 80}
      - {id: dns, direction: inbound, protocol: udp, ports: 53}
      - {id: ping, direction: inbound, protocol: icmp}
      - {id: gre, direction: inbound, protocol: gre}
      - {id: out, direction: outbound, protocol: all}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}
"""
OPEN = [(0.0, to_web("S")), (0.1, from_web("SA")), (0.2, to_web("A"))]


def ask(port: int = 4000) -> bytes:
    return ethernet(ip(CLIENT, SERVER, udp(port, 53)))


def answer(port: int = 4000) -> bytes:
    return ethernet(ip(SERVER, CLIENT, udp(53, port)))


NO_DNS = "{at: 0.5, remove_rule: {group: web, rule: dns}}"
FORGETTING = POLICY.replace("settings: {", "settings: {on_change: forget-unmatched, ")


def told(
    folder: Path, story: list[tuple[float, bytes]], *changes: str, policy: str = POLICY, **options: Any
) -> ReplayResult:
    """Without rows of packets and connections, which take other ways through the engine."""
    path = write_changes(folder, *changes)
    return replay(write_policy(folder, policy), write_story(folder, story), changes=path, **options)


def only(result: ReplayResult) -> tuple[ChangeDone, CutConnection]:
    [done] = [change for change in result.changes if change.disconnected]
    [cut] = done.connections
    return done, cut


def denials(result: ReplayResult) -> dict[str, int]:
    return {denied.reason: denied.packets for denied in result.denied}


#: Each case has packets, changes, options, the report on the connection that is cut, and the reasons of other denials.
FOLLOWED: dict[str, tuple[list[tuple[float, bytes]], list[str], dict[str, Any], dict[str, Any], dict[str, int]]] = {
    # 10 s after its last allowed packet its key is free, and nobody there.
    "TCP goes on past the deadline": (
        [*OPEN, *((1.0 + n, to_web("PA")) for n in range(20)), (21.0, from_web("R"))], [REMOVE % 0.5], {},
        {"packets_after": 21, "outcome": "never", "opener_time_ns": None, "finished": False}, {},
    ),
    "an opener that the new rules deny is a denial, and so is what comes then": (
        [*OPEN, (1.0, to_web("PA")), (11.0, to_web("S")), (12.0, to_web("PA")), (13.0, to_web("S"))], [REMOVE % 0.5],
        {"mode": "verbatim"}, {"packets_after": 1, "outcome": "denied", "opener_time_ns": 1_000_011 * SECOND},
        {"no-rule": 2, "midstream": 1},
    ),
    # 4 s after the answer the key is free; the query at 5 s is denied by the rules, the one at 6 s is not.
    "UDP comes back under the rule of the day": (
        [(0.0, ask()), (0.1, answer()), (1.0, ask()), (2.0, answer()), (5.0, ask()), (6.0, ask()), (6.1, answer())],
        [NO_DNS, "{at: 5.5, add_rule: {group: web, rule: {id: new, direction: inbound, protocol: udp, ports: 53}}}"],
        {}, {"packets_after": 2, "outcome": "back", "opener_time_ns": 1_000_006 * SECOND, "turned": False,
             "ingress_rule": "new", "egress_rule": None}, {"no-rule": 1},
    ),
    "back in the other direction, under an outbound rule": (
        [(0.0, ask()), (0.1, answer()), (1.0, answer()), (4.2, answer()), (4.3, ask())], [NO_DNS], {},
        {"outcome": "back", "turned": True, "egress_rule": "out", "ingress_rule": None, "initiator": CLIENT,
         "initiator_port": 4000, "responder": SERVER, "responder_port": 53}, {},
    ),
    # It asks again whether or not it was answered: from the deadline on each query meets the rules.
    "a ping that goes on is denied on its own account": (
        [(float(n), ethernet(ip(CLIENT, SERVER, icmp(8, 0, 7)))) for n in range(8)],
        ["{at: 2.5, remove_rule: {group: web, rule: ping}}"], {},
        {"icmp_type": 8, "initiator_port": None, "packets_after": 2, "outcome": "denied"}, {"no-rule": 3},
    ),
    "a protocol without ports": (
        [(at, ethernet(ip(CLIENT, SERVER, other(47, bytes(8))))) for at in (0.0, 1.0, 4.0)], [REMOVE % 0.5], {},
        {"protocol": 47, "responder_port": None, "packets_after": 1, "outcome": "back", "ingress_rule": "gre"}, {},
    ),
    "an error about it is one of its packets": (
        [*OPEN, (1.0, from_web("PA")),
         (1.1, ethernet(ip(CLIENT, SERVER, icmp(3, 3, 0, ip(SERVER, CLIENT, tcp(80, 4000, "PA"))))))],
        [REMOVE % 0.5], {}, {"packets_after": 2}, {},
    ),
    # SPEC 6.12: they are counted apart, as they are where the opener was seen.
    "packets of one that was inferred and forgotten open nothing": (
        [(0.0, to_web("PA")), (1.0, to_web("PA")), (2.0, to_web("PA")), (3.0, to_web("S"))], [REMOVE % 0.5],
        {"policy": FORGETTING}, {"outcome": "denied", "packets_after": 2, "opener_time_ns": 1_000_003 * SECOND},
        {"no-rule": 1},
    ),
    # SPEC 6.13: the next packet meets the rules, and the outbound ones let the server's answer open it.
    "a forgotten one comes back at once from its other end": (
        [(0.0, ask()), (0.1, answer()), (1.0, answer()), (1.1, ask())], [NO_DNS], {"policy": FORGETTING},
        {"outcome": "back", "turned": True, "packets_after": 0, "egress_rule": "out", "ingress_rule": None}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_cut_connection_is_followed_to_its_return_or_its_denial(tmp_path: Path, name: str) -> None:
    story, changes, options, fields, denied = FOLLOWED[name]
    result = told(tmp_path, story, *changes, **options)
    done, cut = only(result)
    assert {field: getattr(cut, field) for field in fields} == fields
    outcomes = (cut.outcome == "back", cut.outcome == "denied")
    assert (done.came_back, done.denied_again, done.packets_after) == (*outcomes, cut.packets_after)
    assert denials(result) == denied


@pytest.mark.parametrize("first", [0, 1, 2], ids=["first", "second", "last"])
def test_all_fragments_of_a_datagram_follow_the_cut(tmp_path: Path, first: int) -> None:
    """Whichever place among the datagram's three fragments the first one has in the capture."""
    whole = udp(4000, 53, bytes(2400))
    pieces = [
        ethernet(ip(CLIENT, SERVER, other(17, whole[at : at + 800]), fragment_offset=at // 8, more_fragments=at < 1600))
        for at in (0, 800, 1600)
    ]
    ordered = [*pieces[1:][:first], pieces[0], *pieces[1:][first:]]
    story = [(0.0, ask()), (0.1, answer()), *((1.0 + n, piece) for n, piece in enumerate(ordered))]
    result = told(tmp_path, story, NO_DNS)
    done, cut = only(result)
    assert (result.reasons["disconnected"], cut.packets_after, done.packets_after) == (3, 3, 3)
    assert result.denied == []


def test_reports_count_all_that_had_finished_however_few_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgfast.questions.replaying.engine_runner.LISTED_CUTS", 1)
    alive = [(0.0, to_web("S", 4001)), (0.1, from_web("SA", 4001))]
    closed = [(0.3, to_web("FA")), (0.4, from_web("FA")), (0.5, to_web("A"))]
    reset = [(0.0, to_web("S", 4002)), (0.1, from_web("SA", 4002)), (0.2, from_web("R", 4002))]
    story = sorted([*OPEN, *alive, *closed, *reset, (2.0, from_web("A", 5000))], key=lambda packet: packet[0])
    result = told(tmp_path, story, REMOVE % 1, REMOVE.replace("http", "dns") % 1.5)
    assert [(done.disconnected, done.finished) for done in result.changes] == [(3, 2), (0, 0)]
    assert "Changes of the policy: 3 connections cut, 2 of which had finished before\n" in text_report(result)
    assert "cut 3 connections; none came back, 2 had finished before" in html_report(result)


def test_forgotten_connection_is_followed_like_a_disconnected_one(tmp_path: Path) -> None:
    """SPEC 6.13."""
    story = [*OPEN, (1.0, to_web("PA")), (1.1, from_web("PA")), (2.0, to_web("S")), (2.1, to_web("A"))]
    result, _, connections = replayed(tmp_path, FORGETTING, story, REMOVE % 0.5)
    done, cut = only(result)
    assert result.connections["disconnected"] == 1 and (done.came_back, done.denied_again) == (0, 1)
    assert (cut.outcome, cut.packets_after, cut.finished) == ("denied", 2, False)
    # The opener that the new rules deny is a denial of its own; the two packets before it are not.
    assert denials(result) == {"no-rule": 1} and result.reasons["midstream"] == 2
    opened, denied = (valid("connection", row) for row in connections)
    assert opened["ingress"] == {"instance": "web-1", "groups": "web", "rule": "http", "ended": "forgotten"}
    assert opened["packets_from_initiator"] + opened["packets_from_responder"] == 3
    assert denied["verdict"] == "deny" and denied["ingress"]["ended"] == "denied"


def test_one_that_only_one_end_forgets_goes_on_as_one_connection(tmp_path: Path) -> None:
    """SPEC 6.13: the sender's side is not asked, and keeps what it has."""
    there = ethernet(ip("10.0.0.6", SERVER, udp(4000, 53)))
    dns = "{id: new, direction: inbound, protocol: udp, ports: 50-60}"
    result, _, connections = replayed(
        tmp_path, FORGETTING, [(0.0, there), (1.0, there), (2.0, there)], NO_DNS,
        f"{{at: 1.5, add_rule: {{group: web, rule: {dns}}}}}", mode="verbatim",
    )  # fmt: skip
    _, cut = only(result)
    assert (cut.outcome, cut.egress_rule, cut.ingress_rule) == ("back", "out", "new")
    [row] = (valid("connection", row) for row in connections)
    assert row["egress"] == {"instance": "web-2", "groups": "web", "rule": "out", "ended": "open"}
    assert row["ingress"] == {"instance": "web-1", "groups": "web", "rule": "new", "ended": "open"}
    assert row["packets_from_initiator"] == 3 and denials(result) == {"no-rule": 1}


#: Before the VPCs are peered, the client's address belongs to no instance. Afterwards it is that of db-1, which has no
#: rules, and whose filter judges the client's packets, too.
APART = POLICY.replace("security_groups:", "vpcs: [{name: red}, {name: green}]\nsecurity_groups:", 1).replace(
    "instances:", f"""  - {{name: db, rules: []}}
instances:
  - {{name: db-1, vpc: green, addresses: [{CLIENT}], security_groups: [db]}}"""
).replace("{name: web", "{vpc: red, name: web")  # fmt: skip


def test_what_a_cut_connection_denies_counts_after_the_cut_even_if_another_filter_denied_an_opener(
    tmp_path: Path,
) -> None:
    """SPEC 10.24: no denied packet is lost."""
    pieces = map(ethernet, Datagram(SERVER, CLIENT, udp(53, 4000, bytes(40))).pieces("0-24+ 24-48"))
    story = [
        (0.0, ask()), (0.1, answer()), (1.0, answer()), (2.0, ask()), (2.1, answer()), (2.2, ask()),
        *((2.3 + n / 10, piece) for n, piece in enumerate(pieces)),
    ]  # fmt: skip
    peered = "{at: 1.5, add_peering: [red, green]}"
    result = told(tmp_path, story, NO_DNS, peered, policy=APART, mode="verbatim", vpc="red")
    done, cut = only(result)
    assert (result.verdicts["deny"], result.reasons["disconnected"], result.reasons["no-rule"]) == (6, 4, 2)
    assert (cut.outcome, cut.packets_after, done.packets_after) == ("denied", 4, 4)
    assert denials(result) == {"no-rule": 2}


def test_cut_twice_before_it_comes_back_comes_back_for_both(tmp_path: Path) -> None:
    # Between two instances: first the receiver's side is cut, then, by a change of the other group, the sender's.
    two = parse_policy("""
version: 1
settings: {timeouts: {unidirectional: 3, bidirectional: 4}}
security_groups:
  - {name: a, rules: [{id: a-in, direction: inbound, protocol: all}, {id: a-out, direction: outbound, protocol: all}]}
  - {name: b, rules: [{id: b-in, direction: inbound, protocol: all}, {id: b-out, direction: outbound, protocol: all}]}
  - {name: c, rules: []}
instances:
  - {name: one, addresses: [10.0.0.5], security_groups: [a]}
  - {name: two, addresses: [10.0.0.6], security_groups: [b]}
""")
    there = ethernet(ip("10.0.0.5", "10.0.0.6", udp(4000, 53)))
    story = [(0.0, there), (1.0, there), (9.0, there)]
    member = "{group: c, instance: two}"
    changes = write_changes(tmp_path, f"{{at: 0.5, add_member: {member}}}", f"{{at: 0.6, remove_member: {member}}}")
    result = replay(two, write_story(tmp_path, story), changes=changes)
    # A connection that is cut already is not cut again.
    assert [(c.disconnected, c.came_back, c.packets_after) for c in result.changes] == [(1, 1, 1), (0, 0, 0)]
    [cut] = result.changes[0].connections
    assert (cut.egress_rule, cut.ingress_rule) == ("a-out", "b-in")


def test_reports_tell_of_changes_and_of_what_they_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SPEC 10.7."""
    later = [(1.0, to_web("PA")), (2.0, to_web("PA"))]
    policy, capture = write_policy(tmp_path, POLICY), write_story(tmp_path, OPEN + later)
    changes = write_changes(
        tmp_path, REMOVE % 0.5, "{at: 0.5, add_member: {group: web, instance: web-1}}",
        "{at: 99, remove_instance: {instance: web-2}}",
    )  # fmt: skip
    connections = tmp_path / "connections"
    replaying = ("replay", policy, capture, "--changes", changes, "--connections", connections)
    summary = valid("summary", json.loads(sgfast(capsys, *replaying, "--format", "json").out))
    cut, nothing = summary["changes"]
    assert cut == {
        "time": "1000000.500000000", "change": "remove_rule http", "disconnected": 1, "came_back": 0,
        "denied_again": 0, "packets_after": 2, "finished": 0,
        "connections": [
            {
                "protocol": "tcp", "initiator": CLIENT, "initiator_port": 4000, "responder": SERVER,
                "responder_port": 80, "icmp_type": None, "icmp_code": None, "finished": False, "packets_after": 2,
                "outcome": "never", "time": None, "turned": False, "egress_rule": None, "ingress_rule": None,
            }
        ],
    }  # fmt: skip
    assert (nothing["time"], nothing["change"]) == (cut["time"], "add_member web web-1") and not nothing["disconnected"]
    assert (summary["changes_left"], summary["denied"]) == (1, [])
    assert summary["connections"]["disconnected"] == 1 and summary["reasons"]["disconnected"] == 2
    [line] = [valid("connection", json.loads(line)) for line in connections.read_text().splitlines()]
    assert line["ingress"] == {"instance": "web-1", "groups": "web", "rule": "http", "ended": "disconnected"}
    text = sgfast(capsys, *replaying).out
    assert "Changes of the policy: 1 connection cut" in text and "1 cut by changes" in text
    assert "1970-01-12 13:46:40.500  remove_rule http" in text and "1 change would come after the last packet" in text
    words = f"1970-01-12 13:46:40.500 tcp {CLIENT}:4000 > {SERVER}:80 2 packets came after that; not opened again"
    assert words in " ".join(text.split())
    assert "2 packets of cut connections came after the cut" in text and "Nothing else was denied" in text
    outcome = sgfast(capsys, *replaying[:-2], "--format", "json", "--engine", "reference")
    told = valid("summary", json.loads(outcome.out))["changes"]
    fields = ("disconnected", "came_back", "finished", "connections")
    assert [[change[field] for field in fields] for change in told] == [[1, None, None, []], [0, None, None, []]]


@pytest.mark.parametrize("seed", range(4))
def test_of_random_traffic_each_cut_connection_is_followed(seed: int) -> None:
    # Each row of the list, against the verdicts of its key's packets from the cut on.
    rng = np.random.default_rng(seed)
    engine = Engine(parse_policy(POLICY), mode=MODES[seed % 2], midstream=MIDSTREAMS[seed % 3], _reporting=True)
    disconnected = 0
    seen: dict[tuple[int, int], list[tuple[int, bool, str, str | None]]] = {}
    for step in range(60):
        batch = []
        for _ in range(100):
            port, kind = int(rng.integers(1, 30)), int(rng.integers(6))
            frame = (ask(port), answer(port), to_web("S", port), from_web("SA", port), to_web("A", port),
                     from_web("PA", port))[kind]  # fmt: skip
            batch.append((17 if kind < 2 else 6, port, kind < 3, frame))
        times = [(step * 1000 + n) * SECOND // 200 for n in range(100)]
        results = engine.process(FrameBatch.from_frames([frame for *_, frame in batch], times))
        for (protocol, port, can_open, _), time_ns, row in zip(batch, times, results, strict=True):
            words = VERDICTS[row["verdict"]], REASONS[row["reason"]]
            seen.setdefault((protocol, port), []).append((time_ns, can_open, *words))
        number = int(rng.integers(2))
        rule = engine.policy.group_by_name["web"].rules[number]
        new = replace_in(rule, ports=((53, 53 + step),) if number else ((80 - step % 2, 80 - step % 2),))
        disconnected += engine.apply(ModifyRule("web", rule.id, new), times[-1] + 1).disconnected
    rows, untold = engine.dataplane.cuts
    assert len(rows) == disconnected > 200 and untold == 0
    tally: Counter[str] = Counter()
    for row in rows:
        outcome, again, packets = "never", 0, 0
        for time_ns, can_open, verdict, reason in seen[row["protocol"], int(row["ports"]) >> 16]:
            if time_ns < row["cut_ns"]:
                continue
            if verdict == "allow" and reason in ("rule", "inferred"):
                outcome, again = "back", time_ns
                break
            if outcome == "never" and can_open and reason in ("no-rule", "deny-rule"):
                outcome, again = "denied", time_ns
            elif outcome == "never" and verdict == "deny":
                packets += 1
        told = ("never", "back", "denied")[row["fate"]], row["again_ns"], row["packets"]
        assert told == (outcome, again, packets), (seed, row)
        tally[outcome] += 1
        tally["after"] += packets
    assert tally["back"] > 50 and tally["after"] > 50 and tally["never"] and tally["denied"], tally
