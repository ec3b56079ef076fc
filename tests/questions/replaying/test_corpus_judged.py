"""Every capture of the corpus judged by the engine, by its threads and by the reference: one mind, nothing left."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import DOCUMENT, MANIFEST, ROOT, is_readable, rows
from damage import judge, new_engine
from differential import counters_of, expected, spell
from effort import some

from sgfast.base.errors import CaptureError
from sgfast.clouds.loading import parse_policy
from sgfast.core.dtypes import RESULT_DTYPE
from sgfast.engine import Engine
from sgfast.reference.engine import ReferenceEngine
from sgfast.traffic.capture import open_capture

pytestmark = pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)")

#: Every file sees one of them.
RUNS = (("causal", "infer"), ("verbatim", "deny"), ("causal", "allow"), ("causal", "deny"), ("verbatim", "infer"))

#: Bytes by which memory in use may grow while everything is read and judged once more.
LEFT_AT_MOST = 1_000_000


def agree(path: Path, mode: Any, midstream: Any) -> int:
    """Have all engines judge a capture, check that they agree, and count its packets."""
    policy = parse_policy(DOCUMENT)
    options = {"mode": mode, "midstream": midstream}
    one, two, slow = Engine(policy, **options), Engine(policy, **options, jobs=2), Engine(policy, **options)
    slow.dataplane.close_fast_path()
    reference = ReferenceEngine(policy, **options)
    number = 0
    try:
        with open_capture(path) as reader:
            while (batch := reader.next_batch()) is not None:
                found = [np.zeros(len(batch), dtype=RESULT_DTYPE) for _ in range(2)]
                for engine, results in zip((one, two), found, strict=True):
                    engine.dataplane.process_frames(batch, results)
                assert (found[0] == found[1]).all(), f"{path}: two threads"
                assert (found[0] == slow.process(batch)).all(), f"{path}: without the fast path"
                for row, (time_ns, data, wire, link_type) in zip(found[0], batch, strict=True):
                    number += 1
                    verdict = reference.process_frame(time_ns, data, wire_length=wire, link_type=link_type)
                    assert spell(one, row) == expected(verdict), f"{path}: packet {number}, {data.hex()}"
    except CaptureError:
        pass        # a link type that is not read; how it is told is test_capture_corpus's
    assert counters_of(one) == counters_of(two) == counters_of(slow), path
    assert one.dataplane.counters["packets"] == number
    return number


def test_engine_threads_and_reference_agree_on_every_file_and_count_what_the_manifest_does() -> None:
    wrong = []
    judged = 0
    for n, row in enumerate(rows()[:: some(18, 1)]):
        number = agree(ROOT / row["file"], *RUNS[n % len(RUNS)])
        counted = row["packets_capinfos"] or row["packets_tcpdump"]
        if is_readable(row) and str(number) != counted:
            wrong.append(f"{row['file']}: {number} packets instead of {counted}")
        judged += number
    assert wrong == []
    assert judged > some(3_000, 60_000)


def bytes_in_use() -> int:
    """Count the bytes that the C library's allocator and Python's have given out."""

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )]  # fmt: skip

    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Info
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd) + 64 * sys.getallocatedblocks()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library does not tell what is in use")
def test_judging_every_file_again_leaves_nothing_behind() -> None:
    files = [ROOT / row["file"] for row in rows()[:: some(24, 1)]]
    used = []
    for _ in range(2):
        for path in files:
            judge(path, new_engine())
        used.append(bytes_in_use())
    assert used[1] - used[0] < LEFT_AT_MOST
