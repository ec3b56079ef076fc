"""Several threads judge: what comes out is what one would have said, byte for byte (SPEC 9.14)."""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import Dribble
from command import SHOP, environment, sgfast
from differential import counters_of, runs
from effort import EXHAUSTIVE, some
from frames import ethernet, icmp, ip, tcp, udp
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from policy_changes import Changer
from recordings import recorded_replays
from stories import write_changes, write_story
from test_split_captures import found
from traffic import SECOND, Crowd, Traffic, pcap_of, policies

from sgfast import Engine, FrameBatch, header, load_snapshot, replay, save_snapshot
from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import load_policy
from sgfast.engine import REASONS
from sgfast.policy.model import Policy
from sgfast.questions.replaying.results import LISTED_CUTS
from sgfast.report.lines import ConnectionLines, VerdictLines
from sgfast.traffic.capture import CaptureReader, open_capture
from sgfast.traffic.read_options import ReadOptions

ROOT = Path(__file__).parents[3]
PCAPS = ROOT / "pcaps"
SEED = 5


def known(engine: Engine) -> dict[str, Any]:
    """Everything a plane tells, in an order that does not depend on where it was kept."""
    plane = engine.dataplane
    tallies = {name: (sorted(row.tobytes() for row in rows), lost) for name, (rows, lost) in plane.tallies.items()}
    cuts, untold = plane.cuts
    cuts["previous"] = 0
    return {
        "counters": counters_of(engine),
        "rules": plane.rule_counts.tobytes(),
        "cuts": sorted(row.tobytes() for row in cuts),
        "untold": untold,
        **tallies,
    }


def same(many: Engine, one: Engine) -> None:
    told, expected = known(many), known(one)
    for what, value in expected.items():
        if what in one.dataplane.tallies:
            assert (set(told[what][0]) - set(value[0]), set(value[0]) - set(told[what][0])) == (set(), set()), what
        assert told[what] == value, what


def roomy(policy: Policy) -> Policy:
    """Below the table's limit, which is where the promise ends."""
    return changed(policy, settings=changed(policy.settings, max_connections=100_000))


@pytest.mark.parametrize("keep_flows", [False, True])
@seed(SEED)
@settings(
    max_examples=some(5, 60), database=None, deadline=None, phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(policies(), runs, st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_any_number_of_workers_says_what_one_says(
    keep_flows: bool, policy: Policy, run: tuple[Any, ...], jobs: int, case_seed: int
) -> None:
    print(f"case seed {case_seed}, {jobs} jobs, {run}")
    rng = np.random.default_rng(case_seed)
    policy = roomy(policy)
    options = {"mode": run[0], "midstream": run[1], "vpc": run[2], "_keep_flows": keep_flows, "_reporting": True}
    one, many = Engine(policy, **options), Engine(policy, jobs=jobs, **options)
    traffic, changer = Crowd(policy, rng, fragments=bool(rng.integers(2))).draw(1500), Changer(rng)
    start = 0
    while start < len(traffic.frames):
        part = slice(start, start + int(rng.choice([1, 7, 100, 700])))
        start = part.stop
        batch = FrameBatch.from_frames(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part])
        if rng.random() < 0.5:
            assert many.process(batch).tobytes() == one.process(batch).tobytes()
        else:
            for engine in (one, many):
                engine.dataplane.process_frames(batch)
        if rng.random() < 0.3:
            changes = changer.changes(one.policy)
            now = one.dataplane.counters["clock_ns"] + int(rng.choice([0, 1, SECOND]))
            try:
                disconnected = one.apply(changes, now).disconnected
            except AmbiguousAddress:
                continue
            assert many.apply(changes, now).disconnected == disconnected
        if rng.random() < 0.5:
            same(many, one)
        if keep_flows:
            assert many.dataplane.take_flows().tobytes() == one.dataplane.take_flows().tobytes()
    done = False
    while not done:
        most = int(rng.choice([1, 10, 1000]))
        done = one.dataplane.finish(most=most)
        assert many.dataplane.finish(most=most) == done
        if keep_flows:
            assert many.dataplane.take_flows().tobytes() == one.dataplane.take_flows().tobytes()
    same(many, one)


def read_and_judge(engine: Engine, stream: Any, *, lasting: bool) -> str:
    """Returns what is damaged."""
    reader = CaptureReader(stream, "capture", lasting=lasting)
    while (batch := reader.next_batch()) is not None:
        engine.dataplane.process_frames(batch, number=0)        # as where a change comes before the first packet
        engine.dataplane.process_frames(batch)
    return str(reader.damage)


def crowd(count: int) -> tuple[Policy, Traffic]:
    """``count`` packets, and as many fragments, of which the later one often comes first. There are ICMP errors."""
    policy = roomy(load_policy(PCAPS / "shop.yaml"))
    drawn = Crowd(policy, np.random.default_rng(SEED), fragments=True).draw(count)
    frames, times = [], []
    for n, (frame, time_ns) in enumerate(zip(drawn.frames, drawn.times_ns, strict=True)):
        part = {"fragment_offset": n & 1, "more_fragments": not n & 1, "identification": (n ^ (n >> 1 & 1)) >> 1}
        piece = ip(f"198.51.100.{n // 2 % 50}", "10.10.1.11", udp(n // 2 % 60_000, 443), **part)
        frames += [frame, ethernet(piece)]
        times += [time_ns, time_ns]
    return policy, Traffic(frames, times, [len(frame) for frame in frames])


def test_a_capture_that_ends_or_arrives_in_parts_at_any_byte_is_judged_alike() -> None:
    policy, traffic = crowd(12)
    data = pcap_of(traffic)
    options: dict[str, Any] = {"mode": "causal", "midstream": "infer", "_reporting": True}
    engines = Engine(policy, **options), Engine(policy, jobs=3, **options)
    damages = set()
    for at in range(25, len(data), some(11, 1)):
        for stream in (lambda at=at: io.BytesIO(data[:at]), lambda at=at: Dribble(data, (at, 1 << 20))):
            one, many = (read_and_judge(engine, stream(), lasting=engine is engines[1]) for engine in engines)
            assert many == one
            damages.add(one)
        assert counters_of(engines[1]) == counters_of(engines[0]), at
    same(*engines)
    assert len(damages) > 20 and engines[0].dataplane.counters["packets"] > 100


@pytest.mark.parametrize("lasting", [True, False])
def test_the_next_windows_are_read_while_the_last_ones_are_judged(lasting: bool) -> None:
    # Some windows, as they come from a pipe; those of a reader whose batches do not last are filled again at once.
    policy, traffic = crowd(some(9_000, 50_000))
    data = pcap_of(traffic)
    one = Engine(policy, mode="causal", _reporting=True)
    read_and_judge(one, io.BytesIO(data), lasting=False)
    counters = one.dataplane.counters
    assert counters["reasons"][REASONS.index("related")] > 10
    assert 0 < counters["fragments_denied"] < counters["packets"] // 3
    for jobs in (2, 5):
        for sizes in ((1 << 20,), (70_000, 1, 200_000), (3_000,)):
            many = Engine(policy, mode="causal", _reporting=True, jobs=jobs)
            read_and_judge(many, Dribble(data, sizes), lasting=lasting)
            same(many, one)


def in_process_of_its_own(module: str, call: str, **variables: str) -> None:
    """Calls a function of a test module there."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import *; {call}"], env=environment(PYTHONPATH=path, **variables),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def padded(traffic: Traffic) -> Traffic:
    """As large as most data: captures of some thousand packets are read ahead then."""
    frames = [frame + bytes(1_500 - len(frame)) for frame in traffic.frames]
    return Traffic(frames, traffic.times_ns, [len(frame) for frame in frames])


@pytest.mark.parametrize("how", ["compressed", "merged", "one by one", "filtered", "large", "large and merged"])
def test_captures_however_they_are_read_give_the_same_report(tmp_path: Path, how: str) -> None:
    policy, traffic = crowd(some(3_000, 50_000))
    if how.startswith("large"):
        traffic = padded(traffic)
    paths = []
    for n in range(3):
        # In turn, or one after the other.
        third = len(traffic.frames) // 3
        part = slice(n, None, 3) if how.endswith("merged") else slice(n * third, (n + 1) * third)
        data = pcap_of(Traffic(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part]))
        paths.append(tmp_path / f"{n}.pcap")
        paths[-1].write_bytes(gzip.compress(data, 1) if how == "compressed" else data)
    reading = ReadOptions(merge=how.endswith("merged"), filter="udp or icmp" if how == "filtered" else None)
    told = [found(replay(policy, paths, jobs=jobs, reading=reading)) for jobs in (1, 2, 4)]
    assert told[0][0] > 2_000       # packets
    for each in told[1:]:
        assert each == told[0]


@pytest.mark.parametrize(("policy", "capture", "changes"), recorded_replays())
@pytest.mark.parametrize("mode", ["causal", "verbatim"])
def test_recordings_give_the_same_lines(
    policy: Path, capture: Path, changes: Path | None, mode: Any
) -> None:
    told = []
    for jobs in (1, 2, 3, 8) if EXHAUSTIVE else (1, 3):
        packets: list[bytes] = []
        flows: list[bytes] = []
        result = replay(
            policy, capture, mode=mode, changes=changes, jobs=jobs, packets=VerdictLines(packets.append),
            flows=ConnectionLines(flows.append),
        )  # fmt: skip
        told.append((found(result), result.changes, result.warnings, b"".join(packets), b"".join(flows)))
    assert told[0][3].count(b"\n") > 10 and told[0][4]
    for each in told[1:]:
        assert each == told[0]


BOTH_FAMILIES = """
version: 1
security_groups:
  - name: g
    rules: [{direction: inbound, protocol: all}, {direction: inbound, ethertype: IPv6, protocol: all}]
  - {name: closed, rules: []}
instances:
  - {name: a, addresses: [10.0.0.5, "a00:5::"], security_groups: [g, closed]}
"""


def test_cuts_of_which_equally_many_packets_come_are_told_in_the_same_order(tmp_path: Path) -> None:
    # Connections of the same ends: of many types of ICMP, without ports; and of both families, by addresses that begin
    # with the same bytes, and whose rest is zeros.
    ends = (("192.0.2.7", "10.0.0.5"), ("c000:207::", "a00:5::"))
    opened = [ethernet(ip(*ends[0], icmp(kind, code))) for kind in range(40, 60) for code in range(60)]
    opened += [ethernet(ip(*pair, tcp(port, 80, "S"))) for port in range(1000, 1040) for pair in ends]
    later = [
        ethernet(ip(*pair, tcp(port, 80, "A")))
        for port in range(1000, 1040) for pair in ends for _ in range(port % 3)
    ]  # fmt: skip
    order = np.random.default_rng(SEED).permutation(len(opened))
    story = [(n * 1e-3, opened[at]) for n, at in enumerate(order)]
    story += [(3 + n * 1e-3, frame) for n, frame in enumerate(later)]
    capture = write_story(tmp_path, story)
    changes = write_changes(tmp_path, "{at: 2, remove_member: {group: g, instance: a}}")
    policy = tmp_path / "policy.yaml"
    policy.write_text(BOTH_FAMILIES)
    told = [replay(policy, capture, changes=changes, jobs=jobs).changes for jobs in (1, 2, 3, 7)]
    [done] = told[0]
    assert done.disconnected == len(opened) > len(done.connections) == LISTED_CUTS
    after = Counter((cut.packets_after, cut.protocol) for cut in done.connections)
    assert after == {(2, 6): 26, (1, 6): 28, (0, 1): LISTED_CUTS - 54}
    for each in told[1:]:
        assert each == told[0]


OPEN = """
version: 1
security_groups: [{name: g, rules: [{direction: inbound, protocol: udp}]}]
instances: [{name: a, addresses: [10.0.0.0/8], security_groups: [g]}]
settings: {max_connections: %d}
"""


def pings(count: int, first: int = 0, time_ns: int = 0) -> Any:
    """UDP openers, each of a connection of its own."""
    rows = np.concatenate([header("198.51.100.1", "10.0.0.1", "udp", sport=1, dport=53)] * count)
    numbers = np.arange(first, first + count)
    rows["sport"], rows["dst"][:, 1] = numbers % 60_000 + 1024, numbers // 60_000
    rows["time_ns"] = time_ns + numbers
    return rows


def open_policy(tmp_path: Path, limit: int) -> Policy:
    path = tmp_path / "open.yaml"
    path.write_text(OPEN % limit)
    return load_policy(path)


@pytest.mark.parametrize("limit", [1, 2, 100, 5000])
def test_a_table_filled_to_its_last_place_is_still_exact(tmp_path: Path, limit: int) -> None:
    one, many = (Engine(open_policy(tmp_path, limit), jobs=jobs, _reporting=True) for jobs in (1, 3))
    # Full; full, and nothing new; all of it ended, and others come; some ended, and so on.
    parts = (pings(limit), pings(limit), pings(limit, limit, 10**12), pings(limit, 2 * limit, 2 * 10**12))
    for rows in parts:
        assert many.process(rows).tobytes() == one.process(rows).tobytes()
        assert known(many) == known(one)
        assert many.dataplane.counters["evicted"] == 0


def test_openers_that_were_seen_are_forgotten_at_the_same_tick_with_any_number_of_workers(tmp_path: Path) -> None:
    # For `infer` they are remembered until the window ends, which is in the middle of a tick (timer_wheel.pxd). In that
    # tick the table learns that their connections ended: one worker's by a packet, before the window ends; another's
    # only when it is asked, after that.
    path = tmp_path / "tcp.yaml"
    path.write_text(OPEN.replace("udp", "tcp").replace("%d", "1000, timeouts: {tcp_established: 60, tcp_other: 10}"))
    tick = 1 << 26
    window_ends = 10_000 * tick + tick // 2
    openers = pings(200)
    openers["protocol"], openers["tcp_flags"] = 6, 2
    openers["time_ns"] = window_ends - tick - 10 * SECOND
    openers["time_ns"][0] = window_ends - 60 * SECOND       # the first packet of all
    late = pings(2, 200)
    late["protocol"], late["tcp_flags"] = 6, 2
    late["time_ns"] = window_ends - 1000, window_ends + 1000
    over = pings(1, 202, window_ends + tick)        # of UDP, and denied
    one, many = (Engine(path, midstream="infer", jobs=jobs) for jobs in (1, 3))
    for rows, entries in ((openers, 200), (late, 202), (over, 2)):
        for engine in (one, many):
            engine.process(rows)
        same(many, one)
        assert one.dataplane.counters["entries"] == entries


def test_what_ends_in_time_makes_room_in_a_full_table(tmp_path: Path) -> None:
    # Full all the time: each new connection comes when exactly one, of some other worker perhaps, has just ended.
    one, many = (Engine(open_policy(tmp_path, 50), jobs=jobs, _reporting=True) for jobs in (1, 3))
    lasts = round(one.policy.settings.timeouts.unidirectional * 10**9)
    rows = pings(400)
    rows["time_ns"] = np.arange(400) * (lasts // 50)
    assert many.process(rows).tobytes() == one.process(rows).tobytes()
    same(many, one)
    assert one.dataplane.counters["evicted"] == 0 and one.dataplane.counters["opened"] == 400


@pytest.mark.parametrize("limit", [1, 10, 5000])
def test_a_full_table_stays_within_its_limit_with_any_number_of_workers(tmp_path: Path, limit: int) -> None:
    engine = Engine(open_policy(tmp_path, limit), jobs=4, _reporting=True)
    for start in range(0, 20_000, 1000):
        verdicts = engine.process(pings(1000, start))["verdict"]
        counters = engine.dataplane.counters
        assert counters["live_tuples"] <= limit
        assert counters["opened"] == counters["evicted"] + counters["live_tuples"]
        assert (verdicts == 0).sum() + (verdicts == 1).sum() == 1000
    # With fewer places than shards some shard has none, and what comes to it finds the table full.
    assert counters["opened"] > 0.9 * 20_000 or limit < 5000


def test_icmp_errors_go_with_the_connection_they_quote(tmp_path: Path) -> None:
    capture = PCAPS / "shop.pcap"
    told = [replay(PCAPS / "shop.yaml", capture, jobs=jobs) for jobs in (1, 5)]
    assert told[0].reasons["related"] == told[1].reasons["related"] > 0


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5), (4, 4)][: some(2, 4)])
def test_snapshot_goes_on_with_another_number_of_workers(tmp_path: Path, before: int, after: int) -> None:
    for case_seed in range(some(3, 6)):
        print(f"case seed {case_seed}")
        rng = np.random.default_rng(case_seed)
        policy = load_policy(PCAPS / "shop.yaml")
        options: dict[str, Any] = {"mode": "causal", "midstream": "infer", "_keep_flows": True, "_reporting": True}
        one, many = Engine(policy, **options), Engine(policy, jobs=before, **options)
        traffic, changer = Crowd(policy, rng).draw(3000), Changer(rng)
        for start in range(0, 3000, 500):
            part = slice(start, start + 500)
            batch = FrameBatch.from_frames(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part])
            assert many.process(batch).tobytes() == one.process(batch).tobytes()
            changes, now = changer.changes(one.policy), one.dataplane.counters["clock_ns"]
            assert many.apply(changes, now) == one.apply(changes, now)
            if start == 1500:
                save_snapshot(many, tmp_path / "state")
                many = load_snapshot(tmp_path / "state", jobs=after)
                assert many.dataplane.jobs == after
            assert many.dataplane.take_flows().tobytes() == one.dataplane.take_flows().tobytes()
            assert known(many) == known(one)


def test_threads_end_with_their_engine(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    engine = Engine(open_policy(tmp_path, 100_000), jobs=4)
    own = set(threading.enumerate()) - before
    assert len(own) == 3
    engine.process(pings(20_000))
    del engine
    gc.collect()
    deadline = time.monotonic() + 30
    while own & set(threading.enumerate()) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert not own & set(threading.enumerate())


def test_engine_that_goes_away_while_its_workers_are_busy_does_no_harm(tmp_path: Path) -> None:
    policy = open_policy(tmp_path, 1_000_000)
    frames = replay_frames(2000)
    for _ in range(20):
        engine = Engine(policy, jobs=3)
        for _ in range(20):
            engine.dataplane.process_frames(frames)
        del engine


def replay_frames(count: int, time_ns: int = 0) -> FrameBatch:
    data = [ethernet(ip("198.51.100.1", "10.0.0.1", udp(1024 + n, 53))) for n in range(count)]
    return FrameBatch.from_frames(data, [time_ns + n for n in range(count)])


def test_threads_that_share_an_engine_take_turns(tmp_path: Path) -> None:
    engine = Engine(open_policy(tmp_path, 1_000_000), jobs=2)
    parts = [pings(3000, n * 3000) for n in range(8)]
    verdicts: list[Any] = []
    threads = [
        threading.Thread(target=lambda rows=rows: verdicts.append(engine.process(rows)["verdict"])) for rows in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(verdicts) == 8 and not np.concatenate(verdicts).any()
    assert engine.dataplane.counters["opened"] == 8 * 3000


#: Number of batches that one thread judges while others ask.
ROUNDS = some(15, 60)


@pytest.mark.parametrize("jobs", [1, 3])
def test_asking_while_another_thread_judges_does_no_harm(tmp_path: Path, jobs: int) -> None:
    engine = Engine(open_policy(tmp_path, 1_000_000), jobs=jobs, _keep_flows=True, _reporting=True)
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            engine.dataplane.finish(most=1000)
            engine.dataplane.take_flows()
            known(engine)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(ROUNDS):
            engine.process(pings(2000, n * 2000))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert engine.dataplane.counters["opened"] == ROUNDS * 2000


def in_child(do: Callable[[], None]) -> None:
    """In a child of fork, which must come to its end the usual way."""
    pid = os.fork()
    if not pid:
        signal.alarm(60)        # hangs in C are over then, too
        do()
        sys.exit()              # with all that Python clears away
    assert os.waitpid(pid, 0)[1] == 0


def let_go_in_children(policy: str) -> None:
    engines = [Engine(policy, jobs=3, _reporting=True)]
    in_child(engines.clear)
    rows = pings(30_000)
    for n in range(some(2, 10)):
        # The workers are busy for a while, as all of that ends at once: a child has their work half done, and not them.
        engines[0].process(rows)
        engines[0].dataplane.process_frames(replay_frames(100, int(rows["time_ns"][-1]) + 10**12))
        in_child(engines.clear)
        assert engines[0].dataplane.counters["opened"] == (n + 1) * 30_100
        rows["time_ns"] += 10**13


def judge_in_children(policy: str) -> None:
    one, many = Engine(policy), Engine(policy, jobs=3)
    rows, more = pings(20_000), pings(20_000, 10_000)
    first, then = (one.process(each).tobytes() for each in (rows, more))
    copied = Engine(policy)
    for engine in (copied, many):
        assert engine.process(rows).tobytes() == first

    def judge() -> None:
        assert copied.process(more).tobytes() == then       # with one job, it may
        own = Engine(policy, jobs=2)
        assert [own.process(each).tobytes() for each in (rows, more)] == [first, then]

    for _ in range(3):
        in_child(judge)
    for engine in (copied, many):
        assert engine.process(more).tobytes() == then


def read_in_children(policy: str) -> None:
    path = Path(policy).with_name("capture")
    _, traffic = crowd(2_000)
    path.write_bytes(pcap_of(padded(traffic)))
    engine = Engine(policy, jobs=3)
    for _ in range(some(5, 50)):
        reader = open_capture(path, lasting=True, reads=engine.dataplane.file_reads)
        for _ in range(2):
            batch = reader.next_batch()
            assert batch is not None
            engine.dataplane.process_frames(batch)

        def read_on(reader: CaptureReader = reader) -> None:
            while reader.next_batch() is not None:
                pass
            assert reader.packets == len(traffic.frames)
            reader.close()

        in_child(read_on)
        reader.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("what", [let_go_in_children, judge_in_children, read_in_children])
def test_child_of_fork_neither_waits_for_threads_it_has_not_nor_crashes(
    tmp_path: Path, what: Callable[[str], None]
) -> None:
    open_policy(tmp_path, 1_000_000)
    # This process may have other threads.
    in_process_of_its_own("test_jobs", f"{what.__name__}({str(tmp_path / 'open.yaml')!r})")


@pytest.mark.parametrize("jobs", [0, -1, 65, True, 1.5, "2", None])
def test_number_of_workers_that_cannot_be(tmp_path: Path, jobs: Any) -> None:
    with pytest.raises(ValueError, match=r"^jobs must be 1 to 64, not"):
        Engine(open_policy(tmp_path, 10), jobs=jobs)


def test_command_has_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for jobs in ("1", "2"):
        done = sgfast(capsys, "replay", *SHOP, "--format", "json", "--jobs", jobs)
        assert done.status == 0
        told.append(json.loads(done.out))
        del told[-1]["elapsed_seconds"], told[-1]["packets_per_second"]
    assert told[0] == told[1]
    for wrong in (["--jobs", "0"], ["--jobs", "65"], ["--jobs", "x"], ["--jobs", "2", "--engine", "reference"]):
        done = sgfast(capsys, "replay", *SHOP, *wrong)
        assert (done.status, done.out) == (2, "") and "--jobs" in done.err
