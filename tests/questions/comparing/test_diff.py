"""``sgfast diff`` says what two replays say, compared record by record (``slow_diff``; SPEC 10.14)."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import DOCUMENT, MANIFEST, ROOT, is_readable, rows
from diffs import traffic_diff as diff
from effort import some
from frames import ethernet, ip, tcp, udp
from policy_changes import another
from slow_diff import Collected, check, write_pcap
from traffic import Crowd, Traffic, drawn, stateful

from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy.model import Policy
from sgfast.questions import comparing
from sgfast.questions.comparing import TrafficDiff
from sgfast.questions.comparing.pair import Pair
from sgfast.traffic.read_options import ReadOptions

PCAPS = Path(__file__).parents[3] / "pcaps"
PROGRAMS = PCAPS / "programs"
WAYS: list[dict[str, Any]] = [
    {"mode": mode, "midstream": midstream}
    for mode in ("causal", "verbatim") for midstream in ("infer", "deny", "allow")
]  # fmt: skip


def test_policies_drawn_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    # Both by one thread, and at the same time by two, from the first packet on or once there are some connections.
    processors = itertools.cycle((1, 2, 2))
    monkeypatch.setattr(comparing, "usable_processors", lambda: next(processors))
    connections = itertools.cycle((0, 20))
    monkeypatch.setattr(comparing, "Pair", lambda *engines, together_from: Pair(
        *engines, together_from=together_from and next(connections)
    ))  # fmt: skip

    @drawn(20261125, examples=some(7, 60))
    def compare(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        policy = stateful(policy)
        for n in range(3):
            path = write_pcap(tmp_path / "drawn.pcap", Crowd(policy, rng).draw(1200))
            way = WAYS[int(rng.integers(len(WAYS)))]
            other = stateful(another(policy, rng))
            # Whom a full table forgets depends on the number of jobs.
            small = min(p.settings.max_connections for p in (policy, other)) < 1_000_000
            try:
                vpc = (None, None, "red")[n]
                seen.update(check(policy, other, [path], **way, vpc=vpc, jobs=1 if small else 1 + 2 * (n % 2)))
            except AmbiguousAddress:
                continue

    compare()
    print(seen)
    assert seen["packets"] > some(10_000, 100_000)
    for what, least in (
        ("newly-denied", 500), ("newly-allowed", 1000), ("answered", 300), ("moved", 100), ("part_way", 100),
        ("unfiltered", 500),
    ):  # fmt: skip
        assert seen[what] >= least / some(11, 1), seen


def test_stateless_groups_are_compared_by_packets_and_warned_of(tmp_path: Path) -> None:
    @drawn(20261126, examples=some(3, 20))
    def compare(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        path = write_pcap(tmp_path / "drawn.pcap", Crowd(policy, rng).draw(600))
        other = another(policy, rng)
        try:
            result = diff(policy, other, [path])
            replays = [Collected(each, [path], {}) for each in (policy, other)]
        except AmbiguousAddress:
            return
        pairs = Counter(
            (replays[0].judgement(n)[0], replays[1].judgement(n)[0]) for n in range(1, result.packets + 1)
        )
        assert result.verdicts == dict(pairs)
        warned = any("stateless groups" in warning for warning in result.warnings)
        assert warned == any(not group.stateful for each in (policy, other) for group in each.security_groups)

    compare()


def test_the_same_policy_twice_makes_no_difference(tmp_path: Path) -> None:
    @drawn(7, examples=some(2, 10))
    def compare(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        path = write_pcap(tmp_path / "drawn.pcap", Crowd(policy, rng).draw(2000))
        for way in WAYS:
            try:
                same(diff(policy, policy, path, **way))
                same(diff(policy, renumbered(policy), path, **way, jobs=3))
            except AmbiguousAddress:
                return

    compare()


def test_several_threads_say_what_one_says_batch_after_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches, some of which are left out altogether, and captures one after the other."""
    batches = 0

    def said(processors: int, connections: int, jobs: int, reading: ReadOptions, *case: Any) -> TrafficDiff:
        monkeypatch.setattr(comparing, "usable_processors", lambda: processors)
        monkeypatch.setattr(comparing, "TOGETHER_FROM", connections)
        return replace(diff(*case, reading=reading, jobs=jobs), elapsed_seconds=0.0)

    @drawn(20261127, examples=some(2, 6))
    def compare(policy: Policy, case_seed: int) -> None:
        nonlocal batches
        rng = np.random.default_rng(case_seed)
        other = another(policy, rng)
        once = Crowd(policy, rng, fragments=True).draw(3000)
        times, last = np.array(once.times_ns), max(once.times_ns)
        rounds = 10
        many = Traffic(
            once.frames * rounds, [int(t) for n in range(rounds) for t in times + n * (last - int(times.min()))],
            once.wire_lengths * rounds,
        )  # fmt: skip
        paths = [write_pcap(tmp_path / name, many) for name in ("one.pcap", "two.pcap")]
        # Whom a full table forgets depends on the number of jobs.
        small = min(p.settings.max_connections for p in (policy, other)) < 1_000_000
        jobs = [] if small else [(1, 0, 3), (2, 0, 4)]
        # In the middle nothing is judged for several batches.
        rare = ReadOptions(filter="tcp port 22 and src portrange 40000-40001")
        try:
            late = ReadOptions(start="1", end=str(last // 10**9))
            for reading in (ReadOptions(), ReadOptions(filter="not udp"), rare, late):
                one, *several = (
                    said(*how, reading, policy, other, paths)
                    for how in [(1, 0, 1), (2, 1 << 30, 2), (2, 30, 1), (2, 1 << 30, 1), *jobs]
                )
                assert several == [one] * len(several), reading
                batches += one.packets // 8192
        except AmbiguousAddress:
            return

    compare()
    assert batches > some(25, 50)


def test_two_jobs_are_a_thread_for_each_policy_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """If both engines had two jobs, there would be four threads."""
    made = []
    monkeypatch.setattr(comparing, "usable_processors", lambda: 2)
    monkeypatch.setattr(comparing, "Pair", lambda *engines, **how: made.append((engines, how)) or Pair(*engines, **how))
    shop = load_policy(PCAPS / "shop.yaml")
    for jobs in (1, 2, 3):
        diff(shop, shop, PCAPS / "shop.pcap", jobs=jobs)
    assert [[engine.dataplane.jobs for engine in engines] for engines, _ in made] == [[1, 1], [1, 1], [3, 3]]
    assert [how["together_from"] for _, how in made] == [comparing.TOGETHER_FROM, 0, None]


@pytest.mark.parametrize("processors", [1, 2])
def test_more_openers_than_are_looked_at_at_once_are_all_counted(
    processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "usable_processors", lambda: processors)
    monkeypatch.setattr(comparing, "TOGETHER_FROM", 0)
    number = 30_000
    frames = [ethernet(ip("198.51.100.7", "10.0.0.5", udp(10_000 + n, 53))) for n in range(number)]
    path = write_pcap(tmp_path / "many.pcap", Traffic(frames, list(range(number)), [0] * number))
    text = """
        version: 1
        security_groups: [{name: dns, rules: [{id: one, direction: inbound, protocol: udp, ports: 53}]}]
        instances: [{name: a, addresses: [10.0.0.5], security_groups: [dns]}]
    """
    old, new = parse_policy(text), parse_policy(text.replace("one", "other").replace("53", "50-60"))
    assert sum(moved.connections for moved in diff(old, new, path).moved) == number


def test_thread_of_the_second_policy_ends_with_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "usable_processors", lambda: 2)
    began = []
    monkeypatch.setattr(comparing, "TOGETHER_FROM", 0)
    monkeypatch.setattr(comparing, "Pair", lambda *engines, **how: began.append(how) or Pair(*engines, **how))
    shop = load_policy(PCAPS / "shop.yaml")
    assert diff(shop, shop, PCAPS / "shop.pcap").packets == 261
    with pytest.raises(KeyboardInterrupt):
        diff(shop, shop, PCAPS / "shop.pcap", progress=interrupt)
    assert began == [{"together_from": 0}] * 2
    assert not [thread for thread in threading.enumerate() if thread.name == "sgfast-paired"]


def test_without_a_second_thread_the_first_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(comparing, "usable_processors", lambda: 2)
    monkeypatch.setattr(comparing, "TOGETHER_FROM", 0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    shop, proposed = (load_policy(PCAPS / f"shop{name}.yaml") for name in ("", ".proposed"))
    result = diff(shop, proposed, [PCAPS / "shop.pcap"] * 3)
    assert result.packets == 3 * 261 and result.groups


def same(result: TrafficDiff) -> None:
    assert (result.groups, result.rules, result.moved) == ([], [], [])
    assert not any(len(kinds.rows) for kinds in result.kinds.values())
    assert all(old == new for old, new in result.verdicts)


def renumbered(policy: Policy) -> Policy:
    """The same rules by other ids, otherwise described."""
    return replace(
        policy,
        security_groups=tuple(
            replace(
                group, rules=tuple(replace(rule, id=f"{group.name}/{n}", description="x") for n, rule in
                                   enumerate(group.rules))
            )
            for group in policy.security_groups
        ),
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS[:: some(3, 1)], ids=lambda way: "-".join(way.values()))
def test_recordings(way: dict[str, Any]) -> None:
    seen: Counter[str] = Counter()
    shop, proposed = (load_policy(PCAPS / f"shop{name}.yaml") for name in ("", ".proposed"))
    seen.update(check(shop, proposed, [PCAPS / "shop.pcap"], **way))
    seen.update(check(proposed, shop, [PCAPS / "shop.pcap", PCAPS / "shop.pcap"], **way))
    programs = [load_policy(path) for path in sorted(PROGRAMS.glob("*.yaml"))]
    for old, new in itertools.pairwise([*programs, programs[0]]):
        for capture in ("network", "client", "server"):
            seen.update(check(old, new, [PROGRAMS / f"{capture}.pcap"], **way))
    print(seen)
    assert seen["newly-denied"] > 200 and seen["newly-allowed"] > 200 and seen["answered"] > 200


@pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)")
def test_corpus() -> None:
    old = parse_policy(DOCUMENT)
    new = parse_policy(
        DOCUMENT.replace("22,80,443,8080-8090", "22,443,1-79,5000-65535")
        .replace("53,123,500", "1-52,123,500-60000")
        .replace("protocol: icmp, source", "protocol: icmp, icmp_type: 8, source")
        .replace("{direction: outbound, protocol: all, destination", "{direction: outbound, protocol: tcp, destination")
        .replace("max_connections: 1000", "max_connections: 1000, infrastructure: filtered")
    )
    seen: Counter[str] = Counter()
    step = some(40, 3)
    for n, row in enumerate(rows()):
        path = ROOT / row["file"]
        if not is_readable(row) or path.stat().st_size > 300_000 or n % step:
            continue
        seen.update(check(old, new, [path], **WAYS[n // step % len(WAYS)]))
        same(diff(old, old, path))
    print(seen)
    assert seen["newly-denied"] > some(5, 100) and seen["newly-allowed"] > some(1, 20)
    assert seen["packets"] > some(250, 5_000)


def test_what_one_policy_sees_as_two_connections_is_one_difference_or_none(tmp_path: Path) -> None:
    old = parse_policy(DOCUMENT.replace("max_connections: 1000", "timeouts: {unidirectional: 5, bidirectional: 5}"))
    new = parse_policy(DOCUMENT)
    ask = ethernet(ip("192.0.2.1", "100.64.0.1", udp(4000, 53)))
    answer = ethernet(ip("100.64.0.1", "192.0.2.1", udp(53, 4000)))
    # OLD forgets it in the silences: three connections for it, one for NEW.
    times = [second * 10**9 for second in (1, 2, 12, 13, 23, 24)]
    path = write_pcap(tmp_path / "silences.pcap", Traffic([ask, answer] * 3, times, [60] * 6))
    same(diff(old, new, path))
    same(diff(new, old, path))
    # Denied by one of them: what a connection is, is up to the one that lets it pass.
    closed = parse_policy(DOCUMENT.replace("53,123,500", "123"))
    for policy, connections in ((old, 3), (new, 1)):
        assert diff(policy, closed, path).total("newly-denied").connections == connections
        assert diff(closed, policy, path).total("newly-allowed").connections == connections
        check(policy, closed, [path])


def test_connections_that_passed_for_different_reasons_are_one_row_of_the_table(tmp_path: Path) -> None:
    """SPEC 14.9. One opens in the capture, which a rule allows. The other is older, and is inferred."""
    ends = "198.51.100.7", "10.0.0.1"
    opened = [
        ethernet(ip(*ends, tcp(1000, 80, "S"))),
        ethernet(ip(*reversed(ends), tcp(80, 1000, "SA"))),
        ethernet(ip(*ends, tcp(1000, 80, "A"))),
    ]
    older = [ethernet(ip(*ends, tcp(2000, 80, "A"))), ethernet(ip(*reversed(ends), tcp(80, 2000, "A")))]
    path = write_pcap(tmp_path / "both.pcap", Traffic([*opened, *older], [n * 10**9 for n in range(1, 6)], [60] * 5))
    (row,) = diff(parse_policy(DOCUMENT), parse_policy(DOCUMENT.replace("22,80", "22")), path).tables.changed
    assert (row["change"], row["port"], row["passing_rule"]) == ("newly-denied", 80, "servers/inbound/1")
    assert (row["connections"], row["answered"], row["packets"], row["first_packet"]) == (2, 2, 5, 1)
    assert (row["last_time"] - row["first_time"]).astype(int) == 4 * 10**9
