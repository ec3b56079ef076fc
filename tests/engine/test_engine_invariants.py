"""Verdicts do not depend on chance, and bounds hold whatever comes (SPEC 5.8, 4.10, 9.1, 11)."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import frames as f
import numpy as np
import pytest
from command import SHOP
from differential import counters_of, expected, spell
from effort import some
from many_packets import OPEN, SEED, answers, judge, many, reasons
from numpy.typing import NDArray
from scenario import policy_of
from traffic import OUTSIDE, PORTS, SECOND, Crowd, Traffic, drawn

import sgfast
from sgfast.clouds.loading import parse_policy
from sgfast.core.dtypes import RESULT_DTYPE
from sgfast.engine import MIDSTREAMS, MODES, REASONS, VERDICTS, Engine, FrameBatch
from sgfast.engine import header as header_row
from sgfast.policy.model import Policy, Settings, Timeouts
from sgfast.reference.engine import ReferenceEngine

ALLOW, DENY = VERDICTS.index("allow"), VERDICTS.index("deny")


def some_traffic(policy: Policy, case_seed: int, count: int = 1500) -> tuple[Traffic, dict[str, Any]]:
    """Packets, and the mode and midstream to judge them in."""
    rng = np.random.default_rng(case_seed)
    options = {"mode": MODES[rng.integers(2)], "midstream": MIDSTREAMS[rng.integers(3)]}
    return Crowd(policy, rng).draw(count), options


# --- What verdicts do not depend on


@drawn(SEED, some(3, 15))
def test_batch_size_decides_nothing(policy: Policy, case_seed: int) -> None:
    traffic, options = some_traffic(policy, case_seed)
    whole = judge(Engine(policy, **options), traffic)
    for size in (1, 2, 63, 64, 127, 128, 129, 1000):
        assert (judge(Engine(policy, **options), traffic, range(size, len(traffic.frames), size)) == whole).all(), size


@drawn(SEED, some(3, 15))
def test_where_captures_are_cut_decides_nothing(policy: Policy, case_seed: int) -> None:
    traffic, options = some_traffic(policy, case_seed)
    whole = judge(Engine(policy, **options), traffic)
    rng = np.random.default_rng(case_seed)
    for _ in range(5):
        # Empty batches too: a capture may hold nothing.
        cuts = sorted(rng.integers(0, len(traffic.frames) + 1, 40).tolist())
        assert (judge(Engine(policy, **options), traffic, cuts) == whole).all()


@drawn(SEED, some(4, 25))
def test_fast_path_and_wanted_results_decide_nothing(policy: Policy, case_seed: int) -> None:
    """Packets of established connections take the fast path (``core/pipeline/fast_path.pxd``), unless it is closed."""
    traffic, options = some_traffic(policy, case_seed)
    found = []
    results = {True: np.zeros(len(traffic.frames), RESULT_DTYPE), False: np.zeros(len(traffic.frames), RESULT_DTYPE)}
    for fast, wanted in ((True, True), (True, False), (False, True), (False, False)):
        engine = Engine(policy, _keep_flows=True, _reporting=True, **options)
        if not fast:
            engine.dataplane.close_fast_path()
        for a in range(0, len(traffic.frames), 100):
            part = slice(a, a + 100)
            batch = FrameBatch.from_frames(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part])
            engine.dataplane.process_frames(batch, results[fast][part] if wanted else None)
        engine.dataplane.finish()
        flows = sorted(row.tobytes() for row in engine.dataplane.take_flows())
        found.append((counters_of(engine), engine.dataplane.rule_counts.tolist(), flows))
    assert found == found[:1] * 4
    assert (results[True] == results[False]).all()
    counters, _, flows = found[0]
    assert len(flows) == counters["opened"] + counters["inferred"] + counters["denied"]


@drawn(SEED, some(3, 15))
def test_hash_key_decides_nothing(policy: Policy, case_seed: int) -> None:
    traffic, options = some_traffic(policy, case_seed)
    whole = judge(Engine(policy, **options), traffic)
    keys: list[Sequence[int]] = [[0] * 8, [2**64 - 1] * 8, range(8), [1 << 63] * 8, [0x0A00_0005_0A00_0006] * 8]
    for key in keys:
        assert (judge(Engine(policy, _hash_key=key, **options), traffic) == whole).all(), key
    assert (judge(Engine(policy, **options), traffic) == whole).all()


@drawn(SEED, some(4, 25))
def test_order_of_groups_rules_and_instances_decides_nothing(policy: Policy, case_seed: int) -> None:
    traffic, options = some_traffic(policy, case_seed)
    rng = np.random.default_rng(case_seed)

    def shuffled(items: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(items[n] for n in rng.permutation(len(items)))

    def said(policy: Policy) -> list[Any]:
        engine = Engine(policy, **options)
        # Order decides which of several equal rules is named (SPEC 4.10), and nothing else.
        return [
            (verdict, reason, *(side and side[:3] for side in sides))
            for verdict, reason, *sides in (spell(engine, row) for row in judge(engine, traffic))
        ]

    first = said(policy)
    for _ in range(3):
        other = replace(
            policy,
            vpcs=shuffled(policy.vpcs),
            security_groups=tuple(
                replace(group, rules=shuffled(group.rules)) for group in shuffled(policy.security_groups)
            ),
            instances=tuple(
                replace(i, addresses=shuffled(i.addresses), security_groups=shuffled(i.security_groups))
                for i in shuffled(policy.instances)
            ),
        )
        assert said(other) == first


@drawn(SEED, some(4, 25))
def test_headers_are_judged_as_frames_are(policy: Policy, case_seed: int) -> None:
    """Packets whose frames hold no surprises: whole, untagged, quoting nothing."""
    rng = np.random.default_rng(case_seed)
    crowd = Crowd(policy, rng)
    frames, rows = [], []
    now = 10**18
    for _ in range(1000):
        now += int(rng.choice((0, 1, 10**6, 10**9, 40 * 10**9), p=(0.3, 0.3, 0.3, 0.09, 0.01)))
        frame, row = plain_packet(crowd, rng, now)
        frames.append(frame)
        rows.append(row)
    times = [int(row["time_ns"][0]) for row in rows]
    options = {"mode": MODES[rng.integers(2)], "midstream": MIDSTREAMS[rng.integers(3)]}
    by_frame, by_header = Engine(policy, **options), Engine(policy, **options)
    ours = by_frame.process_frames(frames, times)
    theirs = by_header.process(np.concatenate(rows))
    assert (ours == theirs).all()
    assert counters_of(by_frame) == counters_of(by_header)
    # A row at a time, as Engine.check does it.
    single = Engine(policy, **options)
    assert (np.concatenate([single.process(row) for row in rows]) == ours).all()


def plain_packet(crowd: Crowd, rng: np.random.Generator, now: int) -> tuple[bytes, NDArray[Any]]:
    family = int(rng.choice((4, 6)))
    outside = OUTSIDE[family][:2]
    src, dst = two_ends(crowd.inside[family][:3] or outside, outside, rng)
    icmp = 1 if family == 4 else 58
    protocol = int(rng.choice((6, 6, 6, 17, 17, icmp, icmp, 132, 33, 136, 47, 50, 59 - icmp)))
    sport, dport = (int(port) for port in rng.choice((80, 80, 80, 443, 0), 2))
    flags = str(rng.choice(("S", "S", "SA", "A", "A", "FA", "R", "RA", "SF", "", "SPEC", "AU")))
    kind = int(rng.choice((8, 0, 13, 14, 3, 9) if family == 4 else (128, 129, 1, 133, 135, 144)))
    code, identifier = (int(n) for n in rng.integers(0, 2, 2))
    layer: f.Layer
    if protocol == 6:
        layer = f.tcp(sport, dport, flags)
    elif protocol in (17, 132, 33, 136):
        layer = {17: f.udp, 132: f.sctp, 33: f.dccp, 136: f.udplite}[protocol](sport, dport)
    elif protocol == icmp:
        layer = (f.icmp if family == 4 else f.icmpv6)(kind, code, identifier)
    else:
        layer = f.other(protocol)
    options = {"hop_limit": 255} if family == 6 else {}
    frame = f.ethernet(f.ip(src, dst, layer, **options))
    fields: dict[str, Any] = {"time_ns": now, "wire": len(frame)}
    if protocol in (6, 17, 132, 33, 136):
        fields |= {"sport": sport, "dport": dport}
    if protocol == 6:
        fields["flags"] = flags
    if protocol == icmp:
        fields |= {"icmp_type": kind, "icmp_code": code, "icmp_id": identifier}
    return frame, header_row(src, dst, protocol, **fields)


def two_ends(inside: Sequence[str], outside: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    """At least one of them is inside."""
    ends = [str(rng.choice(inside)), str(rng.choice([*inside, *outside]))]
    if rng.integers(2):
        ends.reverse()
    return ends[0], ends[1]


# --- Hash floods: somebody knows the key


def colliding_keys(family: int) -> list[Sequence[int]]:
    """Keys under which all connections of one pair of addresses have one hash, as multiplying by zero does it."""
    a, b = ip_address("10.0.0.5"), ip_address("198.18.0.0")
    if family == 4:
        pairs = [(int(b) << 32) | int(a), (int(a) << 32) | int(b)]
        return [[pair, 0, 0, 0, 0, 0, 0, 0] for pair in pairs] + [[0, 0, 0, 0, 0, 0, 0, 0]]
    low, high = (int(ip_address(text)) for text in ("2001:db8::5", "2001:db8:5::"))
    words = [low >> 64, low & (2**64 - 1), high >> 64, high & (2**64 - 1)]
    return [[0, 0, 0, 0, words[0], words[1], words[3], 0], [0, 0, 0, 0, words[2], words[3], words[1], 0]]


@pytest.mark.parametrize("family", [4, 6])
def test_flood_of_colliding_keys_is_judged_right(family: int) -> None:
    for key in colliding_keys(family):
        engine = Engine(policy_of(OPEN), _hash_key=key)
        rows = many(family, 4000)
        assert reasons(engine.process(rows)) == {"rule"}
        assert reasons(engine.process(rows[::-1].copy())) == {"established"}
        back = answers(rows, time_ns=SECOND)
        assert reasons(engine.process(back[::2].copy())) == {"established"}
        # half of them end, among the others; then come back
        rows["time_ns"] = 40 * SECOND
        assert reasons(engine.process(rows[::2].copy())) == {"established"}
        assert engine.dataplane.counters["live_tuples"] == 2000
        back["time_ns"] = 40 * SECOND
        assert reasons(engine.process(back[1::2].copy())) == {"no-rule"}
        assert reasons(engine.process(rows[1::2].copy())) == {"rule"}
        assert reasons(engine.process(back)) == {"established"}
        assert engine.dataplane.counters["live_tuples"] == 4000


# --- Threads


@pytest.mark.parametrize("family", [4, 6])
def test_threads_may_share_an_engine(family: int) -> None:
    """SPEC 10.20."""
    engine = Engine(policy_of(OPEN))
    threads, rounds, count = 6, 8, 2000
    wrong: list[Any] = []

    def work(number: int) -> None:
        for n in range(rounds):
            opened = many(family, count, first=(number * rounds + n) * count)
            for rows, reason in ((opened, "rule"), (answers(opened), "established"), (opened, "established")):
                got = reasons(engine.process(rows))
                if got != {reason}:
                    wrong.append((number, n, reason, got))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    counters = engine.dataplane.counters
    assert counters["packets"] == 3 * threads * rounds * count
    assert counters["opened"] == counters["live_tuples"] == threads * rounds * count
    assert counters["verdicts"][ALLOW] == sum(counters["verdicts"]) == counters["packets"]
    assert int(engine.dataplane.rule_counts["packets"].sum()) == counters["packets"]


def test_counters_may_be_read_while_packets_are_judged() -> None:
    engine = Engine(policy_of(OPEN), _reporting=True)
    done = threading.Event()
    seen = []

    def watch() -> None:
        while not done.is_set():
            seen.append(engine.dataplane.counters["packets"])
            engine.dataplane.take_flows()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for start in range(0, 60_000, 3000):
        engine.process(many(4, 3000, start * SECOND // 1000, first=start))
    done.set()
    watcher.join()
    assert seen == sorted(seen)
    assert engine.dataplane.counters["packets"] == 60_000


# --- Time


#: Where the timer wheel's levels begin, and years.
JUMPS = [0, 1, SECOND, 29 * SECOND, 30 * SECOND, 31 * SECOND, 1 << 26, 1 << 34, 1 << 42, 1 << 50, 1 << 54, 1 << 57]


@pytest.mark.parametrize(
    "timeouts",
    [Timeouts(), Timeouts(bidirectional=2**42 / SECOND, unidirectional=2**34 / SECOND),
     Timeouts(unidirectional=10**8, bidirectional=10**9), Timeouts(unidirectional=2**-26, bidirectional=1e-9)],
)  # fmt: skip
@pytest.mark.parametrize("start", [0, -1, 1_700_000_000 * SECOND, -(2**61)])
def test_time_may_jump_by_years(timeouts: Timeouts, start: int) -> None:
    policy = replace(policy_of(OPEN), settings=Settings(timeouts=timeouts))
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    engine, reference = Engine(policy), ReferenceEngine(policy)
    packets = [
        f.ethernet(f.ipv4(*ends, f.udp(*ports)))
        for port in range(4)
        for ends, ports in ((("192.0.2.1", "10.0.0.5"), (port, 80)), (("10.0.0.5", "192.0.2.1"), (80, port)))
    ]
    ns = [round(t * SECOND) for t in (timeouts.unidirectional, timeouts.bidirectional)]
    gaps = JUMPS + [g - 1 for g in JUMPS if g] + [g + 1 for g in JUMPS] + [n + d for n in ns for d in (-1, 0, 1)] * 4
    now = start
    frames, times = [], []
    for _ in range(1500):
        if rng.integers(3) == 0:
            gap = int(rng.choice(gaps))
            now = min(now + gap, 2**62 - 2)
        frames.append(packets[rng.integers(len(packets))])
        times.append(now)
    rows = engine.process_frames(frames, times)
    for n, (frame, time_ns) in enumerate(zip(frames, times, strict=True)):
        assert spell(engine, rows[n]) == expected(reference.process_frame(time_ns, frame)), (n, time_ns)
    assert len(np.unique(rows["reason"])) == 3      # rule, established, no-rule: it was about something


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("midstream", MIDSTREAMS)
def test_any_timestamp_is_survived(mode: Any, midstream: Any) -> None:
    """Up to the ends of int64, forwards and backwards: every packet gets a verdict, and the clock never goes back."""
    engine = Engine(policy_of(OPEN), mode=mode, midstream=midstream, _reporting=True, _keep_flows=True)
    ends = [-(2**63), -(2**63) + 1, -(2**62), -1, 0, 1, 2**62 - 1, 2**62, 2**63 - 1]
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    clock = None
    for _ in range(600):
        rows = many(4, 1, protocol=int(rng.choice((6, 17))), flags=int(rng.choice((2, 16, 17))),
                    first=int(rng.integers(5)))  # fmt: skip
        time_ns = int(rng.choice(ends)) + int(rng.choice((0, 1, -1, SECOND, -61 * SECOND)))
        rows["time_ns"] = max(-(2**63), min(time_ns, 2**63 - 1))
        (result,) = engine.process(rows if rng.integers(2) else answers(rows))
        assert result["verdict"] in (ALLOW, DENY, VERDICTS.index("moot"))
        now = engine.dataplane.counters["clock_ns"]
        assert clock is None or now >= clock
        clock = now
    engine.dataplane.finish()
    assert len(engine.dataplane.take_flows()) > 0


def test_times_before_1970_run_by_the_same_clock() -> None:
    engine = Engine(policy_of(OPEN))
    start = -(10**18)
    said = []
    for gap in (0, 30 * SECOND - 1, 60 * SECOND - 2, 90 * SECOND - 2, 10**18 - 1, 10**18, 10**18 + 30 * SECOND - 1):
        said.append(REASONS[engine.process(many(4, 1, start + gap))[0]["reason"]])
    assert said == ["rule", "established", "established", "rule", "rule", "established", "established"]


# --- explain and check


@drawn(SEED, some(15, 150))
def test_explain_says_what_check_does(policy: Policy, case_seed: int) -> None:
    rng = np.random.default_rng(case_seed)
    vpc = (None, None, "red", "green")[rng.integers(4)]
    engine = Engine(policy, vpc=vpc)
    crowd = Crowd(policy, rng)
    now = 0
    for _ in range(60):
        now += 10**13
        family = int(rng.choice((4, 6)))
        outside = [*OUTSIDE[family], *(("224.0.0.5", "255.255.255.255") if family == 4 else ("ff02::5",))]
        src, dst = two_ends(crowd.inside[family] or outside, outside, rng)
        icmp = 1 if family == 4 else 58
        protocol = int(rng.choice((6, 6, 17, icmp, icmp, 132, 33, 136, 47, 50, 200, 59 - icmp)))
        opener: dict[str, Any] = {}
        if protocol in (6, 17, 132, 33, 136):
            opener["dport"] = int(rng.choice(PORTS))
        if protocol == icmp:
            opener["icmp_type"] = int(rng.choice((8, 13, 9, 10) if family == 4 else (128, 144, 200)))
            opener["icmp_code"] = int(rng.integers(0, 2))
        explained = engine.explain(src, dst, protocol, **opener)
        checked = engine.check(src, dst, protocol, time_ns=now, **opener)
        told = (explained.verdict, explained.reason)
        if explained.verdict == "cannot-tell":  # The address is that of an instance that this VPC does not see.
            assert vpc is not None and explained.evidence.conclusive == "no"
            told = ("allow", checked.reason)
        assert told == (checked.verdict, checked.reason), (src, dst, protocol, opener)
        if explained.reason == "vpc-isolated":
            continue
        for side, judged in ((explained.egress, checked.egress), (explained.ingress, checked.ingress)):
            winner = None if side is None or side.winner is None else side.winner.rule.id
            assert (judged is not None) == (side is not None and side.reached)
            if side is not None and judged is not None:
                assert (side.instance.name, side.verdict, side.reason, winner) == (
                    judged.instance, judged.verdict, judged.reason, judged.rule
                )


def test_explain_changes_nothing() -> None:
    engine = Engine(policy_of(OPEN))
    for _ in range(3):
        assert engine.explain("203.0.113.9", "10.0.0.5", "udp", dport=80).verdict == "allow"
    assert engine.dataplane.counters["packets"] == engine.dataplane.counters["live_tuples"] == 0
    assert engine.check("10.0.0.5", "203.0.113.9", "udp", sport=80, dport=0).reason == "no-rule"


def test_explain_is_the_policys_answer_whatever_the_engine_has_seen() -> None:
    policy = sgfast.load(SHOP[0])
    engine = Engine(policy)
    asked = ("198.51.100.7", "10.0.0.5", "tcp")
    assert engine.explain(*asked, dport=22) == policy.explain(*asked[:2], "tcp/22")
    assert engine.explain(*asked[:2], "icmp", icmp_type=8) == policy.explain(*asked[:2], "icmp")
    assert engine.check(*asked, sport=5000, dport=80).allowed
    back = engine.explain("web-1", "198.51.100.7", "tcp", dport=5000)
    assert back.allowed and back.reason == "rule" and "is allowed by outbound all" in repr(back)
    engine.apply({"remove_rule": {"group": "web", "rule": "web-http-4"}}, 0)
    now = engine.explain(*asked, dport=80)
    assert not now.allowed and now == engine.policy.explain(*asked[:2], "tcp/80")
    assert str(now) == str(engine.policy.explain(*asked[:2], "tcp/80"))


def test_explain_knows_no_receiver_of_multicast() -> None:
    policy = sgfast.load(SHOP[0])
    router = sgfast.Instance("router", "default", (ip_network("0.0.0.0/0"),), ("db",))
    engine = Engine(replace(policy, instances=(*policy.instances, router)))
    assert engine.explain("10.0.0.5", "198.51.100.9", "udp", dport=5353).ingress is not None
    told = engine.explain("10.0.0.5", "224.0.0.251", "udp", dport=5353)
    assert told.allowed and told.ingress is None and told.destination.instance is None


def test_results_take_an_array_and_no_object_for_each_packet() -> None:
    engine = Engine(policy_of(OPEN))
    extra, blocks = [], []
    for count in (1_000, 100_000):
        rows = np.repeat(header_row("198.51.100.7", "10.0.0.5", "udp", sport=4000, dport=53), count)
        frame = f.ethernet(f.ip("198.51.100.7", "10.0.0.5", f.udp(4000, 53)))
        batch = FrameBatch.from_frames([frame] * count, [0] * count)
        for packets in (rows, batch):
            tracemalloc.start()
            before = sys.getallocatedblocks()
            results = engine.process(packets)
            blocks.append(sys.getallocatedblocks() - before)
            extra.append(tracemalloc.get_traced_memory()[1] - results.nbytes)
            tracemalloc.stop()
            assert len(results) == count and (results["verdict"] == ALLOW).all()
    assert max(blocks) < 100, blocks
    assert max(extra) < 10_000, extra


@pytest.mark.parametrize("flags", ["S", "A", None])
def test_a_malformed_packet_is_listed_as_itself_whatever_came_before_it(flags: str | None) -> None:
    """A packet's headers take the place of those of one before it."""
    engine = Engine(
        parse_policy("""
version: 1
security_groups: [{name: g, rules: []}]
instances: [{name: a, addresses: [10.0.0.5], security_groups: [g]}]
"""),
        _reporting=True,
    )
    if flags is not None:
        engine.process_frames([f.ethernet(f.ip("198.51.100.1", "198.51.100.2", f.tcp(1, 2, flags)))], [0])
    engine.process_frames([f.ethernet(f.ip("10.0.0.5", "198.51.100.9", f.tcp(80, 40000, "A", data_offset=4)))], [1])
    rows, others = engine.dataplane.tallies["denials"]
    assert [(int(row["port_key"]), bool(row["inbound"])) for row in rows] == [(80, False)] and others == 0
