"""A billion packets through one engine, the policy changing every million: memory stays, and so does what it says.

    python tests/support/soak.py                            a billion, some minutes
    python tests/support/soak.py --packets 50e6 --seed 7    fewer, of other traffic

A capture is drawn once (conversations that mostly behave, of every protocol, with silences around every timeout) and
read over and over, each time later: an endless stream through the capture reader. Resident memory is looked at after
every million packets; once all there is to be reserved was reserved it must stay within one percent. What grows by
design is left out: the list of connections that changes cut, which the report tells one by one (up to ``MAX_CUTS``).
Before the last million the engine's state is saved, and an engine that starts from it must say of them what the first
one says.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traffic import SECOND, Conversation, Crowd

from sgfast.capture import CaptureReader
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import RESULT_DTYPE
from sgfast.engine import Engine
from sgfast.loading import parse_policy
from sgfast.policy.changes import (
    AddAddress,
    AddMember,
    AddRule,
    Change,
    RemoveAddress,
    RemoveMember,
    RemoveRule,
    SetAddressGroup,
)
from sgfast.policy.model import Policy, Rule
from sgfast.snapshot import load_snapshot, save_snapshot

POLICY = """
version: 1
settings: {max_connections: 100000, timeouts: {tcp_established: 60, tcp_fin_wait: 10, bidirectional: 20}}
address_groups: [{name: offices, addresses: [198.51.100.0/25]}]
security_groups:
  - name: alpha
    rules:
      - {direction: outbound, protocol: all}
      - {direction: outbound, ethertype: IPv6, protocol: all}
      - {direction: inbound, protocol: tcp, ports: "22,80,443"}
      - {direction: inbound, protocol: all, source: beta}
      - {direction: inbound, ethertype: IPv6, protocol: all}
  - name: beta
    rules:
      - {direction: outbound, protocol: all}
      - {direction: inbound, protocol: udp, source: offices}
      - {direction: inbound, protocol: icmp}
  - {name: gamma, stateful: false, rules: [{direction: inbound, protocol: all}, {direction: outbound, protocol: tcp}]}
instances:
  - {name: a1, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [alpha]}
  - {name: a2, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [alpha, beta]}
  - {name: b1, addresses: [10.0.1.7, 10.1.0.0/16, "2001:db8:0:1::7"], security_groups: [beta]}
  - {name: g1, addresses: [10.0.1.9], security_groups: [gamma]}
"""

#: Packets of the capture that is read over and over.
LOOP = 200_000
#: Between changes.
STRIDE = 1_000_000
#: The pause between two rounds: nothing waits that long, but much is not over.
PAUSE_NS = SECOND
#: A pcap's seconds end with 32 bits.
LAST_SECOND = (1 << 32) - 1
#: Shares of the run: when memory should have settled, and what is averaged there and at the end.
SETTLED, AVERAGED = 0.25, 0.1
GROWTH_AT_MOST = 0.01


class Passers(Crowd):
    """A crowd in a hurry: many short talks, silences around the timeouts now and then, never a day without anyone."""

    def begin(self) -> Conversation:
        c = super().begin()
        (client, port), server = c.ends
        c.ends = (client, port if self.below(3) == 0 else 1024 + self.below(60_000)), server
        return c

    def _pass_time(self, c: Conversation) -> None:
        if self.below(25) == 0:
            self.conversations.remove(c)
        if self.below(2000) == 0:
            self.now = max(self.now, c.last_ns + self.pick(self.silences))
        else:
            self.now += self.below(100_000)


class EndlessCapture:
    """A stream of a pcap without an end: the same packets over and over, each time round later."""

    def __init__(self, policy: Policy, packets: int, seed: int) -> None:
        traffic = Passers(policy, np.random.default_rng(seed), fragments=True).draw(packets)
        times = np.array(traffic.times_ns)
        times -= times.min()
        #: Nanoseconds of one time round.
        self.period_ns = int(times.max()) + PAUSE_NS
        lengths = np.array([len(frame) for frame in traffic.frames])
        places = np.concatenate([[0], np.cumsum(lengths + 16)])
        self._records = np.zeros(places[-1], dtype=np.uint8)
        # The seconds of each record, wherever it begins.
        self._at = places[:-1, np.newaxis] + np.arange(4)
        self._seconds, nanoseconds = np.divmod(times, SECOND)
        self._nanoseconds = nanoseconds
        wires = np.maximum(lengths, traffic.wire_lengths)
        for at, frame, length, wire in zip(places, traffic.frames, lengths, wires, strict=False):
            head = np.array([0, 0, length, wire], dtype="<u4")
            self._records[at : at + 16] = head.view(np.uint8)
            self._records[at + 16 : at + 16 + length] = np.frombuffer(frame, dtype=np.uint8)
        self.packets = len(lengths)
        self._round = -1
        self._pending = memoryview(np.array([0xA1B23C4D, 2 | 4 << 16, 0, 0, 1 << 18, 1], dtype="<u4").tobytes())

    def readinto(self, buffer: memoryview) -> int:
        if not self._pending:
            self._round += 1
            times = self._seconds * SECOND + self._nanoseconds + self._round * self.period_ns
            seconds, nanoseconds = np.divmod(times, SECOND)
            for value, at in ((seconds, self._at), (nanoseconds, self._at + 4)):
                self._records[at] = value.astype("<u4").view(np.uint8).reshape(-1, 4)
            self._pending = memoryview(self._records)   # type: ignore[arg-type]
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def close(self) -> None:
        pass


def changes() -> Iterator[Change]:
    """Changes that are undone again, for ever."""
    some = ip_network("198.51.100.0/25"), ip_network("198.51.100.128/31")
    rule = Rule("", "inbound", 4, 6, ((8080, 8080),))
    while True:
        yield AddRule("beta", replace(rule, id="soak"))
        yield AddMember("beta", "a1")
        yield SetAddressGroup("offices", some)
        yield AddAddress("g1", ip_network("10.0.0.0/24"))
        yield RemoveRule("beta", "soak")
        yield RemoveAddress("g1", ip_network("10.0.0.0/24"))
        yield RemoveMember("beta", "a1")
        yield SetAddressGroup("offices", some[:1])


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Soaked:
    packets: int
    changes: int
    seconds: float
    #: After each million; without the list of cut connections.
    resident: list[int] = field(default_factory=list)
    #: The last million's, by the engine that judged them all, and by the one that started from its state.
    rows: list[NDArray[Any]] = field(default_factory=list)
    disconnected: int = 0
    counters: dict[str, Any] = field(default_factory=dict)

    @property
    def growth(self) -> float:
        """The growth of resident memory, from when it should have settled to the end."""
        n = len(self.resident)
        some = max(1, round(n * AVERAGED))
        settled = round(n * SETTLED)
        early, late = self.resident[settled : settled + some], self.resident[-some:]
        return float(np.mean(late) / np.mean(early)) - 1


def soak(
    packets: int, seed: int, folder: Path, *, loop: int = LOOP, stride: int = STRIDE, jobs: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Soaked:  # fmt: skip
    """``packets``: a multiple of ``stride``, at least two of them."""
    policy = parse_policy(POLICY)
    stream = EndlessCapture(policy, loop, seed)
    assert (packets / stream.packets + 1) * stream.period_ns < LAST_SECOND * SECOND, "a pcap's time ends before that"
    engine = Engine(policy, mode="causal", midstream="infer", reporting=True, jobs=jobs)
    reader = CaptureReader(stream, "soak")
    soaked = Soaked(packets, 0, 0.0)
    coming = changes()
    began = time.perf_counter()
    batch, at = _next(reader), 0
    for end in range(stride, packets - stride + 1, stride):
        left = stride
        while left:
            if at == len(batch):
                batch, at = _next(reader), 0
            number = min(left, len(batch) - at)
            engine.dataplane.process_frames(batch, first=at, number=number)
            at += number
            left -= number
        soaked.disconnected += engine.apply(next(coming), engine.dataplane.counters["clock_ns"]).disconnected
        soaked.changes += 1
        soaked.resident.append(resident_bytes() - engine.dataplane.cuts[0].nbytes)
        progress(end)
    save_snapshot(engine, folder / "soak.state")
    other = load_snapshot(folder / "soak.state", jobs=jobs)
    soaked.rows = [np.zeros(stride, dtype=RESULT_DTYPE) for _ in range(2)]
    done = 0
    while done < stride:
        if at == len(batch):
            batch, at = _next(reader), 0
        number = min(stride - done, len(batch) - at)
        for judge, rows in zip((engine, other), soaked.rows, strict=True):
            judge.dataplane.process_frames(batch, rows[done : done + number], first=at, number=number)
        at += number
        done += number
    for judge in (engine, other):
        judge.resolved(everything=True)         # fragments whose first one will not come
    soaked.counters = engine.dataplane.counters
    assert other.dataplane.counters["packets"] == soaked.counters["packets"] == packets
    soaked.seconds = time.perf_counter() - began
    return soaked


def _next(reader: CaptureReader) -> FrameBatch:
    batch = reader.next_batch()
    assert batch is not None and reader.damage is None
    return batch


def main() -> int:
    parser = argparse.ArgumentParser(description="Many packets through one engine: memory and verdicts stay.")
    parser.add_argument("--packets", type=lambda text: int(float(text)), default=1_000_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=1, help="threads that judge")
    options = parser.parse_args()
    if options.packets % STRIDE or options.packets < 40 * STRIDE:
        parser.error(f"--packets is a multiple of {STRIDE:,}, at least {40 * STRIDE:,}")
    print(f"seed {options.seed}", flush=True)
    began = time.perf_counter()

    def progress(done: int) -> None:
        if done % (50 * STRIDE) == 0:
            seconds = time.perf_counter() - began
            print(f"{done:,} packets, {seconds:.0f} s, {resident_bytes() / 1e6:.1f} MB", flush=True)

    with tempfile.TemporaryDirectory(prefix="sgfast-soak-") as folder:
        soaked = soak(options.packets, options.seed, Path(folder), jobs=options.jobs, progress=progress)
    same = bool((soaked.rows[0] == soaked.rows[1]).all())
    which = "those" if same else "NOT those"
    print(
        f"{soaked.packets:,} packets in {soaked.seconds:.0f} s ({soaked.seconds / soaked.packets * 1e9:.0f} ns each), "
        f"{soaked.changes} changes, {soaked.disconnected:,} connections cut; resident memory grew by "
        f"{soaked.growth:.2%}; the last {STRIDE:,} verdicts are {which} of an engine that started "
        "from a snapshot"
    )
    return 0 if same and soaked.growth <= GROWTH_AT_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
