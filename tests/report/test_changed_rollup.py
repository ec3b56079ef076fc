"""Lists of ``sgfast diff`` about captures are folded, and nothing is lost (SPEC 10.14, 10.24)."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from command import valid, write_capture
from diffs import traffic_diff as diff
from effort import some
from frames import ethernet, ip, tcp
from policy_changes import another
from reports import diff_text
from slow_diff import CHANGES, Collected, Expected, addresses_of, compared, frames_of, write_pcap
from traffic import Crowd, drawn, stateful

from sgfast import Engine
from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Policy
from sgfast.questions.comparing.pair import Pair
from sgfast.report.json.diff import capture_diff
from sgfast.report.rollup import BY
from sgfast.report.rollup.changed import ChangedRollup, changed_rollups
from sgfast.rules.reaching.difference import difference

COUNTS = ("connections", "answered", "packets")

#: The fields of the comparison by the rules alone, of which these tests say nothing.
WITHOUT_RULES = {"opened": [], "closed": [], "not_compared": None, "unread_filters": []}


def test_every_way_of_folding_adds_up_to_what_two_replays_say(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @drawn(20261128, some(6, 60))
    def check(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        policy = stateful(policy)
        other = stateful(another(policy, rng))
        path = write_pcap(tmp_path / "drawn.pcap", Crowd(policy, rng).draw(1000))
        try:
            replays = [Collected(each, [path], {}) for each in (policy, other)]
            results = diff(policy, other, path), diff(other, policy, path)
        except AmbiguousAddress:
            return
        for result, both in zip(results, (replays, replays[::-1]), strict=True):
            units = compared(*both, frames_of([path]))
            for change, rollup in changed_rollups(result).items():
                own = [unit for unit in units if unit.change == change]
                seen[change] += len(own)
                _adds_up(rollup, change, own)
                _is_between_the_right_ends(rollup, change, own, result.new if change == "newly-denied" else result.old)
            told = json.loads(json.dumps(capture_diff(result, "address", 2)))
            valid("diff", {**told, **WITHOUT_RULES})

    check()
    print(seen)
    assert min(seen[change] for change in CHANGES) > 100, seen


def _adds_up(rollup: ChangedRollup, change: Any, own: list[Expected]) -> None:
    for by, most in product(BY, (1, 3, 10**6)):
        folded = rollup.fold(change, by=by, most=most)
        sums = [sum(getattr(row, name) for row in folded.rows) + getattr(folded, f"unlisted_{name}") for name in COUNTS]
        assert (sums[0], sums[2]) == (len(own), sum(unit.packets for unit in own)), (by, most)
        if all(unit.is_kept for unit in own):
            assert sums[1] == sum(unit.answered for unit in own), (by, most)
        assert len(folded.rows) <= most and (folded.unlisted_rows == 0) == (folded.unlisted_connections == 0)
        if not folded.unlisted_rows:
            assert sum(row.bytes for row in folded.rows) == sum(unit.bytes for unit in own)
            outcomes: Counter[Any] = Counter()
            for row in folded.rows:
                assert row.passing is not None
                outcomes[row.passing.verdict, row.reason] += row.connections
            ways = [(unit.old, unit.new) if change == "newly-denied" else (unit.new, unit.old) for unit in own]
            assert outcomes == Counter((passes[0], blocks[1]) for passes, blocks in ways)
            assert min((row.first_ns for row in folded.rows), default=0) == min((u.first_ns for u in own), default=0)


def _is_between_the_right_ends(rollup: ChangedRollup, change: Any, own: list[Expected], blocking: Policy) -> None:
    """Where two replays tell who opened every connection between two addresses."""
    owners = {network: instance.name for instance in blocking.instances for network in instance.addresses}

    def name(address: Any) -> str:
        owning = [network for network in owners if network.version == address.version and address in network]
        return owners[max(owning, key=lambda network: network.prefixlen)] if owning else str(address)

    wanted: Counter[tuple[str, str]] = Counter()
    guessed = set()
    for unit in own:
        if unit.ends is None or not unit.initiator_is_known:
            ends = [*map(name, addresses_of(unit))]
            guessed.add(frozenset(ends))
            if not any(end in blocking.instance_by_name for end in ends):
                # An ICMP error to an instance may quote a packet between two addresses that are no instances.
                guessed |= {frozenset({end, "other instances"}) for end in ends}
        else:
            wanted[name(unit.ends[0]), name(unit.ends[1])] += 1
    found: Counter[tuple[str, str]] = Counter()
    for row in rollup.fold(change, by="address", most=10**6).rows:
        found[row.source.text, row.destination.text] += row.connections
    for told in (wanted, found):
        for ends in [ends for ends in told if frozenset(ends) in guessed]:
            del told[ends]
    assert found == wanted


OLD = parse_policy("""
version: 1
security_groups: [{name: web, rules: [{id: open, direction: inbound, protocol: all}]}]
instances: [{name: w, addresses: [10.0.0.5], security_groups: [web]}]
""")
NEW = replace(OLD, security_groups=(replace(OLD.security_groups[0], rules=()),))
#: Room in ``ChangedConnections``: kinds with addresses, and kinds without.
KINDS, MORE_KINDS = 1 << 16, 1 << 15


def openers(number: int, *, ports: int = 0) -> list[bytes]:
    """Make packets that open connections: ``number`` clients to one port, and one more client to ``ports`` others."""
    frame = ethernet(ip("192.0.2.1", "10.0.0.5", tcp(7, 443, "S")))
    return [frame[:26] + struct.pack(">I", 0xAC100000 + n) + frame[30:] for n in range(number)] + [
        frame[:36] + struct.pack(">H", 1000 + n) + frame[38:] for n in range(ports)
    ]


def test_connections_that_find_no_room_keep_their_service(tmp_path: Path) -> None:
    result = diff(OLD, NEW, write_capture(tmp_path, *openers(KINDS + 50)))
    folded = changed_rollups(result)["newly-denied"].fold("newly-denied", most=10)
    assert [(row.source_text, row.destination_text, row.service, row.connections) for row in folded.rows] == [
        ("65,536 private addresses", "w", "tcp/443", KINDS),
        ("other addresses", "other addresses", "tcp/443", 50),
    ]
    assert result.total("newly-denied").connections == folded.connections == folded.packets == KINDS + 50
    (warning,) = result.warnings
    assert "50 connections are counted without addresses and rules" in warning
    told = capture_diff(result)["newly_denied"]
    valid("diff", {**json.loads(json.dumps(capture_diff(result))), **WITHOUT_RULES})
    assert [row["from"]["kind"] for row in told["rows"]] == ["private", "unknown"]


def test_if_there_is_no_room_for_services_either_the_protocol_is_left() -> None:
    pair = Pair(*(Engine(policy, midstream="infer") for policy in (OLD, NEW)))
    frames = openers(KINDS, ports=MORE_KINDS + 50)
    for start in range(0, len(frames), 4096):
        batch = frames[start : start + 4096]
        pair.process(FrameBatch.from_frames(batch, [start + n for n in range(len(batch))]))
    pair.finish()
    rows = pair.changed.rows
    unknown = rows[rows["family"] == 0]
    assert len(rows) == KINDS + MORE_KINDS + 1 and int(rows["connections"].sum()) == len(frames)
    assert {*unknown["protocol"].tolist()} == {6} and not unknown["initiator"].any() and not unknown["responder"].any()
    assert unknown["connections"][unknown["has_ports"] == 0].tolist() == [50]
    first = np.sort(unknown["number"][unknown["has_ports"] == 1])
    assert first.tolist() == list(range(KINDS + 1, KINDS + MORE_KINDS + 1))


GROUPS, MEMBERS = 30, 4


def many_groups() -> tuple[str, str, list[bytes]]:
    """OLD lets everybody in, NEW nobody. Most of the traffic is between a few pairs of groups, each with a port of its
    own. Half of all connections are answered.
    """
    names = [f"a-rather-long-name-of-a-group-{n:02}" for n in range(GROUPS)]
    hosts = [(f"instance-{n}", f"10.0.{n // 200}.{n % 200 + 1}", names[n % GROUPS]) for n in range(GROUPS * MEMBERS)]
    instances = "".join(f"  - {{name: {a}, addresses: [{b}], security_groups: [{c}]}}\n" for a, b, c in hosts)
    rules = "{direction: outbound, protocol: all}"
    texts = [
        "version: 1\nsecurity_groups:\n" + "".join(
            f"  - name: {name}\n    rules:\n      - {rules}\n"
            + ("      - {direction: inbound, protocol: tcp, ports: 5000-6000}\n" if is_open else "")
            for name in names
        ) + "instances:\n" + instances
        for is_open in (True, False)
    ]  # fmt: skip
    rng = np.random.default_rng(20261129)
    frames = []
    for n in range(3000):
        if rng.random() < 0.93:
            pair = int(rng.integers(8))
            a, b = (hosts[group + GROUPS * int(rng.integers(MEMBERS))][1] for group in (pair, pair + 1))
            port = 5000 + pair
        else:
            a, b = (hosts[k][1] for k in rng.choice(len(hosts), 2, replace=False).tolist())
            port = int(rng.integers(5000, 5050))
        frames.append(ethernet(ip(a, b, tcp(10000 + n, port, "S"))))
        if n % 2:
            frames.append(ethernet(ip(b, a, tcp(port, 10000 + n, "SA"))))
    return texts[0], texts[1], frames


def test_the_text_counts_what_it_leaves_out(tmp_path: Path) -> None:
    *texts, frames = many_groups()
    open_one, closed = map(parse_policy, texts)
    capture = write_capture(tmp_path, *frames)
    for way, title in (((open_one, closed), "Newly denied"), ((closed, open_one), "Newly allowed")):
        found, result = difference(*way), diff(*way, capture)
        for by in BY:
            text = diff_text(found, result, by)
            print(text)
            section = text[text.index(f"{title}: ") :]
            section = section[: section.index("\n\n")]
            connections = re.findall(r"^ +([\d,]+)  \S", section, re.M)
            section = re.sub(r"\s+", " ", section)
            (total,), rows, left = (re.findall(pattern, section) for pattern in (
                r"([\d,]+) connections, ([\d,]+) answered in the capture; ([\d,]+) packets",
                r"\(([\d,]+) answered; ([\d,]+) packets?, ",
                r"and [\d,]+ more (?:pair|row)s? \(([\d,]+) connections?, ([\d,]+) answered; ([\d,]+) packets?\): --",
            ))  # fmt: skip
            assert len(rows) > 2 and len(left) == 1, section
            columns = zip(*((n, *row) for n, row in zip(connections, rows, strict=True)), *left, strict=True)
            sums = [sum(int(number.replace(",", "")) for number in column) for column in columns]
            assert sums == [int(number.replace(",", "")) for number in total], section
