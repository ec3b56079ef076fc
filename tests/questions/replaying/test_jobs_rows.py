"""With several threads, packets are written while later ones are judged. None is lost, none waits (SPEC 9.14)."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import enhanced, interface, section
from frames import ethernet, ip, pcap, udp
from test_jobs import PCAPS, in_process_of_its_own

from sgfast import Engine, replay
from sgfast.base.errors import CaptureError, OutputError
from sgfast.clouds.loading import load_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.report.lines import VerdictLines

POLICY = PCAPS / "shop.yaml"


def packets(number: int) -> list[bytes]:
    """Each of another connection. One in three is denied."""
    return [ip("198.51.100.7", "10.0.0.5" if n % 3 else "10.0.0.99", udp(n + 1, 53)) for n in range(number)]


def numbers_in(written: list[bytes]) -> list[int]:
    return [json.loads(line)["packet"] for line in b"".join(written).splitlines()]


def test_packets_are_written_as_they_are_while_others_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "many.pcap"
    path.write_bytes(pcap(packets(60_000)))
    found = set()
    for jobs in (1, 2, 3):
        written: list[bytes] = []
        replay(POLICY, path, jobs=jobs, packets=VerdictLines(written.append))
        found.add(b"".join(written))
    assert len(found) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_packets_before_an_error_are_written(tmp_path: Path, jobs: int) -> None:
    """The error is a packet that cannot be read, or a snapshot that cannot be written."""
    path = tmp_path / "many.pcapng"
    blocks = b"".join(enhanced(ethernet(each)) for each in packets(9000))
    whole = section() + interface() + interface(link_type=9999) + blocks
    last = enhanced(b"", number=1)
    for data, error, options in ((whole + last, CaptureError, {}), (whole, OutputError, {"snapshot": "/dev/full"})):
        path.write_bytes(data)
        written: list[bytes] = []
        with pytest.raises(error):
            replay(POLICY, path, jobs=jobs, packets=VerdictLines(written.append), **options)
        assert numbers_in(written) == list(range(1, 9001))


@pytest.mark.parametrize("jobs", [1, 2])
def test_packets_of_a_pipe_are_written_before_more_arrive(jobs: int) -> None:
    written: list[bytes] = []
    end, begin = os.pipe()
    reading = threading.Thread(
        target=replay, args=(POLICY, f"/dev/fd/{end}"), daemon=True,
        kwargs={"jobs": jobs, "packets": VerdictLines(written.append)},
    )  # fmt: skip
    reading.start()
    deadline = time.monotonic() + 30
    try:
        os.write(begin, pcap(packets(100)))
        while len(numbers_in(written)) < 100:
            assert time.monotonic() < deadline
    finally:
        os.close(begin)
        reading.join(60)
        os.close(end)
    assert not reading.is_alive() and numbers_in(written) == list(range(1, 101))


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_may_come_after_the_call_and_whoever_asked_may_be_gone(jobs: int) -> None:
    policy = load_policy(POLICY)
    batches = [FrameBatch.from_frames([ethernet(each) for each in packets(5000)], [n] * 5000) for n in range(6)]
    found = []
    for engine, later in ((Engine(policy), False), (Engine(policy, jobs=jobs), True)):
        plane = engine.dataplane
        rows = []
        for n, batch in enumerate(batches):
            headers, results = np.zeros(5000, HEADER_DTYPE), np.zeros(5000, RESULT_DTYPE)
            if n % 3 == 2:
                plane.process_frames(batch)     # no results are wanted
            else:
                plane.process_frames(batch, None if n == 4 else results, headers, later=later)
            if n % 2 == 0:
                plane.take_resolved()
                rows.append((headers.tobytes(), results.tobytes()))
            del headers, results
            gc.collect()
        plane.take_resolved()
        found.append((rows, plane.counters["packets"]))
    assert found[0] == found[1]


def collect_data_planes_with_packets(wanted: bool) -> None:
    # For so few packets no worker is woken up, so they are judged when the data plane goes away.
    policy = load_policy(POLICY)
    batch = FrameBatch.from_frames([ethernet(each) for each in packets(100)], [1] * 100)
    for _ in range(20):
        plane = Engine(policy, jobs=2).dataplane
        headers, results = np.zeros(100, HEADER_DTYPE), np.zeros(100, RESULT_DTYPE)
        rows = (results, headers) if wanted else ()
        plane.process_frames(batch, *rows, later=wanted)
        cycle: list[Any] = [plane]
        cycle.append(cycle)
        gone = weakref.ref(headers)
        del plane, cycle, headers, results, rows
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("wanted", [False, True], ids=["", "with results"])
def test_data_plane_in_a_cycle_goes_away_before_its_packets_are_judged(wanted: bool) -> None:
    in_process_of_its_own("test_jobs_rows", f"collect_data_planes_with_packets({wanted})")
