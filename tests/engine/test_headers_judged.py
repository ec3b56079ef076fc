"""Headers, given as rows instead of frames, are judged as frames are (SPEC 10.20)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import frames as f
import numpy as np
import pytest
from differential import compare
from effort import some
from many_packets import OPEN, SEED, answers, many, reasons
from scenario import policy_of
from traffic import SECOND, Traffic

from sgfast.core.dataplane import ENTRY_BYTES, FLOW_RECORD_BYTES
from sgfast.engine import MIDSTREAMS, MODES, REASONS, Engine
from sgfast.policy.model import Settings, Timeouts


def test_an_entry_and_what_packets_count_in_are_a_cache_line_each() -> None:
    assert (ENTRY_BYTES, FLOW_RECORD_BYTES) == (64, 64)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("count", [32_768, 32_769, 131_073])
def test_table_grows_across_chunks(family: int, count: int) -> None:
    engine = Engine(policy_of(OPEN))
    opened = many(family, count)
    assert reasons(engine.process(opened)) == {"rule"}
    assert engine.dataplane.counters["live_tuples"] == count
    # every one of them is found again, from either end, in another order
    order = np.random.default_rng(SEED).permutation(count)
    assert reasons(engine.process(answers(opened, time_ns=SECOND)[order])) == {"established"}
    opened["time_ns"] = 2 * SECOND
    assert reasons(engine.process(opened[order[::-1]])) == {"established"}
    # all live to their last nanosecond, and not longer
    opened["time_ns"] = 182 * SECOND - 1
    half = count // 2
    assert reasons(engine.process(opened[:half])) == {"established"}
    opened["time_ns"] = 182 * SECOND
    assert reasons(engine.process(opened[half:])) == {"rule"}
    assert reasons(engine.process(opened[:half])) == {"established"}
    assert engine.dataplane.counters["live_tuples"] == count


def test_memory_of_a_full_table_is_64_bytes_an_entry_and_an_index() -> None:
    engine = Engine(policy_of(OPEN))
    count = 131_072
    engine.process(many(4, count))
    # An entry takes 64 bytes, and entries are allocated 32,768 at a time. An index line takes 64 bytes and holds 3 to 6
    # keys on average.
    assert engine.dataplane.counters["table_bytes"] <= count * (64 + 22) + 2**20


@pytest.mark.parametrize("midstream", MIDSTREAMS)
def test_a_million_short_connections_leave_nothing_behind(midstream: Any) -> None:
    engine = Engine(policy_of(OPEN), midstream=midstream)
    step = SECOND // 10
    total, batch = 1_000_000, 100_000
    largest, first_bytes = 0, 0
    for start in range(0, total, batch):
        rows = many(4, batch, first=start)
        rows["time_ns"] = np.arange(start, start + batch) * step
        assert reasons(engine.process(rows)) == {"rule"}
        counters = engine.dataplane.counters
        # 30 s at ten a second; one that ends right now may not have been swept yet
        assert counters["live_tuples"] in (300, 301)
        largest = max(largest, counters["entries"])
        first_bytes = first_bytes or counters["table_bytes"]
    assert largest <= 400
    assert engine.dataplane.counters["table_bytes"] == first_bytes


@pytest.mark.parametrize("midstream", ["deny", "infer"])
def test_churn_of_tcp_connections_is_bounded(midstream: Any) -> None:
    engine = Engine(policy_of(OPEN), midstream=midstream)
    flags = {"S": 2, "SA": 18, "A": 16, "FA": 17}
    count, packets = 20_000, 7
    for start in range(0, 200_000, count):
        opened = many(6, count, first=start, protocol=6, flags=flags["S"])
        opened["time_ns"] = np.arange(start, start + count) * (SECOND // 10)
        rows = np.repeat(opened, packets)
        script = [(0, "S"), (1, "SA"), (0, "A"), (0, "FA"), (1, "FA"), (0, "A"), (1, "A")]
        for n, (back, word) in enumerate(script):
            part = rows[n::packets]
            rows[n::packets] = answers(part, flags=flags[word]) if back else part
            rows["tcp_flags"][n::packets] = flags[word]
        results = engine.process(rows)
        assert reasons(results[0::packets]) == {"rule"}
        assert {REASONS[n] for k in range(1, packets) for n in np.unique(results["reason"][k::packets])} == {
            "established"
        }
        assert engine.dataplane.counters["live_tuples"] in (300, 301)
        if start * (SECOND // 10) >= 600 * SECOND:
            # the window of inference is over, so no opener needs to be remembered any more
            assert engine.dataplane.counters["entries"] <= 400


def test_a_reset_connection_is_given_back_in_its_own_time() -> None:
    engine = Engine(policy_of(OPEN))
    opened = many(4, 1, protocol=6, flags=2)
    talk = [(0, opened, 2), (0, answers(opened), 18), (0, opened, 16), (100, opened, 16), (100, opened, 4)]
    for seconds, rows, flags in talk:
        rows["time_ns"], rows["tcp_flags"] = seconds * SECOND, flags
        assert reasons(engine.process(rows)) <= {"rule", "established"}
    # 30 s after the reset, though it would have lived until 700 s
    engine.process(many(4, 1, 131 * SECOND, first=1))
    assert engine.dataplane.counters["live_tuples"] == 1


@pytest.mark.parametrize("start", [-(2**61), 1_700_000_000 * SECOND])
@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("buckets", [1, 128, 255])
def test_a_jump_past_everything_gives_everything_back(start: int, level: int, buckets: int) -> None:
    """Wherever in the timer wheel it waits: near the beginning, in the middle, in the last bucket of each level."""
    seconds = buckets * 2 ** (26 + 8 * level) / SECOND
    policy = replace(policy_of(OPEN), settings=Settings(timeouts=Timeouts(unidirectional=seconds)))
    engine = Engine(policy)
    for time_ns in (start, 2**61):
        engine.process(many(4, 1, time_ns, first=time_ns > start))
        assert engine.dataplane.counters["live_tuples"] == 1


def test_what_ends_and_what_goes_on_leave_their_bucket_of_the_wheel_apart() -> None:
    """All wait in one bucket, and some were prolonged since. Nothing is lost, and nothing ends twice."""
    engine = Engine(policy_of(OPEN), midstream="deny")
    opened = many(4, 1000)
    engine.process(opened)
    goes_on = np.random.default_rng(SEED).random(len(opened)) < 0.5
    for seconds in (20, 40, 60):        # unanswered, one lives for 30 s
        opened["time_ns"] = seconds * SECOND
        assert reasons(engine.process(opened[goes_on])) == {"established"}
        if seconds > 30:
            assert engine.dataplane.counters["entries"] == goes_on.sum()
    engine.process(many(4, 1, 100 * SECOND, first=5000))
    assert engine.dataplane.counters["entries"] == 1


def test_openers_remembered_for_inference_are_bounded() -> None:
    policy = policy_of(OPEN + "settings: {max_connections: 1000}\n")
    engine = Engine(policy, midstream="allow")
    bound, step = 1 << 20, 50_000       # a million, however small the table is
    last = -(-(bound + step) // step) * step
    for start in range(0, last, step):
        opened = many(4, step, 0, first=start, protocol=6, flags=2)
        refused = answers(opened, flags=20)
        rows = np.stack([opened, refused], axis=1).reshape(-1)
        assert reasons(engine.process(rows)) == {"rule", "established"}
        assert engine.dataplane.counters["live_tuples"] == 0
        assert engine.dataplane.counters["entries"] <= bound
    # the latest are known to have begun in sight, the one before them is not
    late = engine.process(many(4, 1001, 0, first=last - bound - 1, protocol=6, flags=16))
    assert [REASONS[n] for n in late["reason"]] == ["inferred"] + ["midstream"] * 1000


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_the_table_holds_no_more_than_it_may(limit: int) -> None:
    engine = Engine(policy_of(OPEN + f"settings: {{max_connections: {limit}}}\n"))
    rows = many(4, 20_000)
    assert reasons(engine.process(rows)) == {"rule"}
    counters = engine.dataplane.counters
    assert (counters["live_tuples"], counters["evicted"]) == (limit, 20_000 - limit)
    assert counters["entries"] == limit
    # the latest are there, the one before them is not
    assert reasons(engine.process(answers(rows[-limit:]))) == {"established"}
    assert reasons(engine.process(answers(rows[-limit - 1 : -limit]))) == {"no-rule"}
    # all answered: nobody else gets in, and nobody is thrown out
    assert reasons(engine.process(many(4, 5000, first=50_000))) == {"table-full"}
    assert reasons(engine.process(many(6, 5000))) == {"table-full"}
    assert reasons(engine.process(rows[-limit:])) == {"established"}
    assert engine.dataplane.counters["live_tuples"] == limit


@pytest.mark.parametrize(("limit", "mode"), list(product([12, 1, 5], MODES))[:: some(3, 1)])
def test_a_full_table_knows_to_the_nanosecond_what_ended(limit: int, mode: Any) -> None:
    # Everything happens within a few ticks of the timer wheel (67 ms each): deadlines move on, back, and past the tick.
    policy = policy_of(
        OPEN + f"settings: {{max_connections: {limit}, timeouts: {{tcp_established: 0.04, tcp_fin_wait: 0.002, "
        "tcp_other: 0.005, icmp: 0.004, bidirectional: 0.02, unidirectional: 0.003}}\n"
    )
    rng = np.random.default_rng(limit)
    traffic, now = Traffic(), 1_700_000_000 * SECOND
    for _ in range(20_000):
        now += int(rng.choice((1, 1000, 100_000, 1_000_000)) * rng.random())
        port = int(rng.integers(1000, 1030))
        ends = [("192.0.2.1", port), ("10.0.0.5", 80)]
        if rng.random() < 0.4:
            ends.reverse()
        (src, sport), (dst, dport) = ends
        if rng.random() < 0.5:
            payload = f.udp(sport, dport)
        else:
            payload = f.tcp(sport, dport, str(rng.choice(("S", "S", "SA", "A", "FA", "R"))))
        traffic.frames.append(f.ethernet(f.ip(src, dst, payload)))
        traffic.times_ns.append(now)
        traffic.wire_lengths.append(len(traffic.frames[-1]))
    seen: Counter[Any] = Counter()
    compare(policy, traffic, (mode, "deny", None), 500, seen)
    assert seen["reason", "table-full"] > 50 and seen["reason", "rule"] > 1000


def test_what_ends_within_a_tick_of_a_full_table_is_not_looked_for_again_and_again() -> None:
    # As many openers as the table holds, within one tick; each ends just before one of as many others comes.
    def seconds(count: int) -> float:
        engine = Engine(policy_of(OPEN + f"settings: {{max_connections: {count}}}\n"))
        rows = many(4, 2 * count)
        step = 2**26 // count
        rows["time_ns"] = np.arange(2 * count) % count * step + 2**26 * 1000
        rows["time_ns"][count:] += 30 * SECOND
        began = time.process_time()
        results = engine.process(rows)
        took = time.process_time() - began
        assert reasons(results) == {"rule"} and engine.dataplane.counters["evicted"] == 0
        return took

    few = min(seconds(10_000) for _ in range(3))
    assert seconds(80_000) < 25 * few       # 8 times the work; looking at all of them is 64 times


def test_threads_that_judge_and_collect_do_not_wait_for_each_other_forever() -> None:
    engine = Engine(policy_of(OPEN), mode="causal", _keep_flows=True, _reporting=True)
    rows = many(4, 3000)
    taken: list[int] = []

    def judge() -> None:
        for _ in range(30):
            engine.process(rows)

    def collect() -> None:
        for _ in range(60):
            taken.append(len(engine.dataplane.take_flows()))
            engine.dataplane.finish()

    threads = [threading.Thread(target=work, daemon=True) for work in (judge, collect) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert engine.dataplane.counters["packets"] == 4 * 30 * 3000 and sum(taken) > 0


@pytest.mark.parametrize("mode", MODES)
def test_denied_openers_take_no_more_than_the_table_either(mode: Any) -> None:
    policy = policy_of("""
security_groups: [{name: g}]
instances: [{name: a, addresses: [10.0.0.5], security_groups: [g]}]
settings: {max_connections: 1000}
""")  # fmt: skip
    engine = Engine(policy, mode=mode)
    assert reasons(engine.process(many(4, 50_000, protocol=6, flags=2))) == {"no-rule"}
    assert engine.dataplane.counters["live_tuples"] == (1000 if mode == "causal" else 0)
    assert engine.dataplane.counters["entries"] <= 1000
