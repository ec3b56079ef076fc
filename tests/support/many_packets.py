"""Make many packets at once, and judge them with an engine."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traffic import Traffic

from sgfast.engine import HEADER_DTYPE, REASONS, Engine, FrameBatch

SEED = 20240611
OPEN = """
security_groups:
  - name: g
    rules:
      - {direction: inbound, protocol: all}
      - {direction: inbound, ethertype: IPv6, protocol: all}
instances:
  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}
"""


def judge(engine: Engine, traffic: Traffic, cuts: Iterable[int] = ()) -> NDArray[Any]:
    """Return the results of all the traffic, which is judged in batches that end at ``cuts``."""
    edges = [0, *cuts, len(traffic.frames)]
    parts = [
        engine.process(
            FrameBatch.from_frames(traffic.frames[a:b], traffic.times_ns[a:b], traffic.wire_lengths[a:b])
        )
        for a, b in pairwise(edges)
    ]
    return np.concatenate(parts)


def many(family: int, count: int, time_ns: int = 0, *, first: int = 0, protocol: int = 17, flags: int = 0) -> Any:
    """Make ``count`` packets, each from another stranger, to instance a, port 80. ``first`` numbers the first
    stranger."""
    rows = np.zeros(count, dtype=HEADER_DTYPE)
    number = np.arange(first, first + count, dtype=np.uint64)
    rows["time_ns"], rows["wire"], rows["family"], rows["protocol"] = time_ns, 64, family, protocol
    base = ip_address("198.18.0.0" if family == 4 else "2001:db8:5::")
    width = 4 if family == 4 else 16
    rows["src"][:, :width] = np.frombuffer(base.packed, dtype=np.uint8)
    hosts = number // 60_000
    rows["src"][:, width - 1] = hosts & 255
    rows["src"][:, width - 2] = hosts >> 8
    rows["dst"][:, :width] = np.frombuffer(
        ip_address("10.0.0.5" if family == 4 else "2001:db8::5").packed, dtype=np.uint8
    )
    rows["sport"], rows["dport"], rows["has_ports"] = 1000 + number % 60_000, 80, 1
    rows["tcp_flags"] = flags
    return rows


def answers(rows: NDArray[Any], *, flags: int = 0, time_ns: int | None = None) -> NDArray[Any]:
    back = rows.copy()
    back["src"], back["dst"], back["sport"], back["dport"] = rows["dst"], rows["src"], rows["dport"], rows["sport"]
    back["tcp_flags"] = flags
    if time_ns is not None:
        back["time_ns"] = time_ns
    return back


def reasons(results: NDArray[Any]) -> set[str | None]:
    return {REASONS[n] for n in np.unique(results["reason"])}
