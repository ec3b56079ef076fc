"""Idle threads read the next windows of a capture, and nothing goes away that they read into (SPEC 9.14)."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import enhanced, interface, section
from command import process
from effort import some
from frames import ethernet, ip, other, pcap, udp
from test_jobs import PCAPS, SEED, crowd, in_process_of_its_own, padded, roomy, same
from test_split_captures import found
from traffic import SECOND, Crowd, Traffic, pcap_of

from sgfast import Engine, FrameBatch, ReadOptions, replay
from sgfast.base.errors import CaptureError
from sgfast.clouds.loading import load_policy
from sgfast.questions.replaying.schedule import CONNECTIONS_EVERY
from sgfast.report.lines import ConnectionLines, VerdictLines
from sgfast.traffic.capture import open_capture


def bytes_read_by(thread: threading.Thread) -> int:
    lines = Path(f"/proc/self/task/{thread.native_id}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


TELLS_WHAT_A_THREAD_READS = pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="the system does not tell what a thread reads"
)


@TELLS_WHAT_A_THREAD_READS
def test_idle_threads_read_the_next_windows_of_a_file(tmp_path: Path) -> None:
    policy, traffic = crowd(3_000)
    path = tmp_path / "capture"
    path.write_bytes(pcap_of(padded(traffic)))
    before = set(threading.enumerate())
    engine = Engine(policy, mode="causal", jobs=3)
    begun = set(threading.enumerate()) - before
    deadline = time.monotonic() + 60
    while sum(map(bytes_read_by, begun)) < 1 << 20:
        assert time.monotonic() < deadline
        with open_capture(path, lasting=True, reads=engine.dataplane.file_reads) as reader:
            while (batch := reader.next_batch()) is not None:
                engine.dataplane.process_frames(batch)
            assert reader.packets == len(traffic.frames)


#: Takes the place of the C library's function. ``reading`` returns how many threads are in it. It is slow; with
#: ``others_only`` it is very slow in all threads but the main one, which reads all of a capture meanwhile.
SLOW_PREAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>
static int count;
int others_only;
int reading(void) { return __atomic_load_n(&count, __ATOMIC_SEQ_CST); }
ssize_t pread(int file, void *to, size_t size, off_t at) {
    ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (!others_only) usleep(2000);
    else if (gettid() != getpid()) usleep(2000000);
    ssize_t got = real(file, to, size, at);
    __atomic_sub_fetch(&count, 1, __ATOMIC_SEQ_CST);
    return got;
}
ssize_t pread64(int file, void *to, size_t size, off_t at) { return pread(file, to, size, at); }
"""


def let_go_while_threads_read(folder: Path) -> None:
    reading = ctypes.CDLL(str(folder / "slow.so")).reading
    policy, traffic = crowd(2_000)
    path = folder / "capture"
    path.write_bytes(pcap_of(padded(traffic)))
    engine = Engine(policy, mode="causal", jobs=3)
    seen = 0
    for n in range(some(30, 300)):
        reader = open_capture(path, lasting=True, reads=engine.dataplane.file_reads)
        for _ in range(1 + n % 5):
            batch = reader.next_batch()
            assert batch is not None
            engine.dataplane.process_frames(batch)
        seen += reading() > 0
        own = bytes_read_by(threading.current_thread())
        if n % 4 == 0:
            reader.close()
        elif n % 4 == 1:
            closing = [threading.Thread(target=reader.close) for _ in range(2)]
            for thread in closing:
                thread.start()
            for thread in closing:
                thread.join()
        elif n % 4 == 2:
            del reader
        else:
            cycle: list[Any] = [reader]
            cycle.append(cycle)
            del reader, cycle
            gc.collect()
        assert reading() == 0
        assert bytes_read_by(threading.current_thread()) < own + 100_000    # it has begun no read
    assert seen > 3
    with open_capture(path, lasting=True, reads=engine.dataplane.file_reads) as reader:
        assert reader.next_batch() is not None
        del engine
        while reader.next_batch() is not None:
            pass
        assert reader.packets == len(traffic.frames)


def read_what_other_threads_have_not_read_in_time(folder: Path) -> None:
    slow = ctypes.CDLL(str(folder / "slow.so"))
    ctypes.c_int.in_dll(slow, "others_only").value = 1
    policy, traffic = crowd(3_000)
    path = folder / "capture"
    path.write_bytes(pcap_of(padded(traffic)))
    expected = Engine(policy, mode="causal", _reporting=True)
    with open_capture(path) as plain:
        while (batch := plain.next_batch()) is not None:
            expected.dataplane.process_frames(batch)
    for jobs in (2, 3) * some(1, 10):
        engine = Engine(policy, mode="causal", _reporting=True, jobs=jobs)
        own = bytes_read_by(threading.current_thread())
        with open_capture(path, lasting=True, reads=engine.dataplane.file_reads) as reader:
            for _ in range(2):
                batch = reader.next_batch()
                assert batch is not None
                engine.dataplane.process_frames(batch)
            deadline = time.monotonic() + 60
            while not slow.reading():
                assert time.monotonic() < deadline
                engine.dataplane.process_frames(batch, number=0)
            while (batch := reader.next_batch()) is not None:
                engine.dataplane.process_frames(batch)
            assert bytes_read_by(threading.current_thread()) - own >= path.stat().st_size
        assert slow.reading() == 0
        same(engine, expected)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@TELLS_WHAT_A_THREAD_READS
@pytest.mark.parametrize("what", ["let_go_while_threads_read", "read_what_other_threads_have_not_read_in_time"])
def test_nothing_is_let_go_into_which_threads_still_read(tmp_path: Path, what: str) -> None:
    (tmp_path / "slow.c").write_text(SLOW_PREAD)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "slow.so", "slow.c", "-ldl"], cwd=tmp_path, check=True)
    preloaded = " ".join([*os.environ.get("LD_PRELOAD", "").split(), str(tmp_path / "slow.so")])
    in_process_of_its_own("test_jobs_reading", f"{what}(Path({str(tmp_path)!r}))", LD_PRELOAD=preloaded)


#: Options that leave packets out, or change them, before they are judged.
READINGS = (
    ReadOptions(), ReadOptions(), ReadOptions(filter="not udp"), ReadOptions(dedup=True),
    ReadOptions(start=1, end="1h"), ReadOptions(decap=("gre", "ipip", "vxlan")),
)  # fmt: skip


@pytest.mark.parametrize("case_seed", range(SEED, SEED + some(12, 2_000)))
def test_packets_whose_headers_another_thread_reads_are_judged_alike(tmp_path: Path, case_seed: int) -> None:
    draw = np.random.default_rng(case_seed)
    policy = roomy(load_policy(PCAPS / "shop.yaml"))
    traffic = Crowd(policy, draw, fragments=bool(draw.integers(2))).draw(1_500)
    # Several windows, with several blocks each. Some tunnels have what is in no other packet.
    frames = [ethernet(ip("10.0.0.5", "192.0.2.9", other(4, frame[14:]))) if not draw.integers(9) else frame
              for frame in traffic.frames]
    copies = 1 + 2_000_000 // sum(len(frame) + 16 for frame in frames)
    times = np.concatenate([np.array(traffic.times_ns) + n * 5 * SECOND for n in range(copies)])
    if draw.integers(2):
        # Some packets are late, some begin the clock anew.
        late = draw.random(len(times)) < draw.choice([0.0005, 0.01])
        times[late] -= draw.choice([1, SECOND, 59 * SECOND, 90 * SECOND], late.sum())
    elif draw.integers(2):
        # Only where a block begins, as they lie in the windows (ahead.pxd).
        behind = 24 + np.cumsum(np.tile([len(frame) + 16 for frame in frames], copies))
        for window in range(384 << 10, int(behind[-1]), 256 << 10):
            for block in range(np.searchsorted(behind, window, "right"), len(times), 1024):
                times[block:] -= 1000
    reading, jobs = READINGS[draw.integers(len(READINGS))], int(draw.integers(2, 5))
    print(f"case seed {case_seed}, {jobs} jobs, {reading}, {len(times)} packets")
    file = tmp_path / "capture.pcap"
    file.write_bytes(pcap_of(Traffic(frames * copies, times.tolist(), [len(frame) for frame in frames] * copies)))
    with_rows = bool(draw.integers(2))
    told = []
    for each in (1, jobs):
        rows: list[bytes] = []
        result = replay(
            policy, file, jobs=each, reading=reading, mode=("verbatim", "causal")[case_seed & 1],
            packets=VerdictLines(rows.append) if with_rows else None,
        )  # fmt: skip
        told.append((found(result), result.oddities, b"".join(rows)))
    file.unlink()
    assert told[1] == told[0]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one core")
def test_a_thread_that_shares_a_core_moves_to_another_one_and_may_use_all_of_them_again() -> None:
    policy, traffic = crowd(500)
    batch = FrameBatch.from_frames(traffic.frames, traffic.times_ns, traffic.wire_lengths)
    cores = os.sched_getaffinity(0)
    before = set(threading.enumerate())
    engine = Engine(policy, mode="causal", jobs=2)
    [thread] = set(threading.enumerate()) - before
    assert thread.native_id is not None
    shared = min(cores)
    try:
        os.sched_setaffinity(0, {shared})
        os.sched_setaffinity(thread.native_id, {shared})
        engine.dataplane.process_frames(batch)
        os.sched_setaffinity(thread.native_id, cores)
        deadline = time.monotonic() + 60
        while core_of(thread.native_id) == shared or os.sched_getaffinity(thread.native_id) != cores:
            assert time.monotonic() < deadline
            engine.process(batch)
        assert os.sched_getaffinity(0) == {shared}
    finally:
        os.sched_setaffinity(0, cores)


def core_of(thread_id: int) -> int:
    return int(Path(f"/proc/self/task/{thread_id}/stat").read_text().rpartition(")")[2].split()[36])


def many_connections(number: int) -> tuple[list[bytes], list[int]]:
    """Packets that a web server sends, and their times. Many connections time out meanwhile."""
    draw = random.Random(SEED)
    sent = [udp(1024 + draw.randrange(60_000), 53, bytes(draw.randrange(900))) for _ in range(number)]
    return [ip("10.0.0.5", "198.51.100.7", each) for each in sent], [n * SECOND // 100 for n in range(number)]


def test_connections_come_in_the_same_order_however_the_file_is_read(tmp_path: Path) -> None:
    packets, times = many_connections(3 * CONNECTIONS_EVERY // 2)
    path = tmp_path / "many.pcap"
    path.write_bytes(pcap(packets, times_ns=times))
    policy = load_policy(PCAPS / "shop.yaml")
    written_as = set()
    for jobs, merge in ((1, False), (2, False), (3, True)):
        written: list[bytes] = []
        replay(policy, path, jobs=jobs, reading=ReadOptions(merge=merge), flows=ConnectionLines(written.append))
        assert len(written) > 1
        written_as.add(b"".join(written))
    for count in (1, 2):
        with path.open("rb") as file:
            options = ("--connections", "-", "--jobs", count, "--mode", "causal")
            written_as.add(process("replay", PCAPS / "shop.yaml", "-", *options, stdin=file).out.encode())
    assert len(written_as) == 1


def test_connections_that_ended_before_a_packet_that_cannot_be_read_are_written(tmp_path: Path) -> None:
    packets, times = many_connections(9000)
    path = tmp_path / "many.pcapng"
    blocks = [enhanced(ethernet(each), ticks=time // 1000) for each, time in zip(packets, times, strict=True)]
    path.write_bytes(section() + interface() + interface(link_type=9999) + b"".join(blocks) + enhanced(b"", number=1))
    written: list[bytes] = []
    with pytest.raises(CaptureError, match="9999"):
        replay(PCAPS / "shop.yaml", path, flows=ConnectionLines(written.append))
    assert b"".join(written).count(b"\n") > 1000


def test_connections_that_end_by_a_change_come_after_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "two.pcap"
    rows: list[bytes] = []
    packets = [ip("10.0.0.5", "198.51.100.7", udp(1002 if n == 1 else 1001, 53)) for n in range(62)]
    path.write_bytes(pcap(packets, times_ns=[n * 10 * SECOND for n in range(62)]))
    changes = [{"at": 605, "remove_instance": {"instance": "web-1"}}]
    replay(PCAPS / "shop.yaml", path, changes=changes, flows=ConnectionLines(rows.append))
    ends = [json.loads(row) for row in b"".join(rows).splitlines()]
    assert [(row["initiator_port"], row["egress"]["ended"]) for row in ends] == [(1002, "timeout"), (1001, "removed")]
