"""Run a billion packets through one engine with a policy change every million, to check that memory use is constant.

    python tests/support/soak.py                            a billion packets, some minutes
    python tests/support/soak.py --packets 50e6 --seed 7    fewer packets, of other traffic

A capture is drawn once (mostly valid conversations of every protocol, with silences around every timeout) and read
over and over with increasing times: an endless stream through the capture reader. Resident memory is measured after
every million packets. Once the engine has reserved all its memory, it must stay within one percent. The list of cut
connections is not counted, because it grows by design: the report lists each (up to ``MAX_CUTS``). Before the last
million packets the engine's state is saved, and an engine that starts from it must give the same results for them.
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

from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import RESULT_DTYPE
from sgfast.engine import Engine
from sgfast.engine.snapshot import load_snapshot, save_snapshot
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
from sgfast.traffic.capture import CaptureReader

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

#: The number of packets in the repeated capture.
LOOP = 200_000
#: The number of packets between changes.
STRIDE = 1_000_000
#: The pause between two rounds. It is longer than any wait for fragments, but shorter than most timeouts.
PAUSE_NS = SECOND
#: The last second that a pcap can record, in 32 bits.
LAST_SECOND = (1 << 32) - 1
#: Shares of the run: the part after which memory should be constant, and the part averaged there and at the end.
SETTLED, AVERAGED = 0.25, 0.1
GROWTH_AT_MOST = 0.01


class Passers(Crowd):
    """A crowd with many short conversations, few silences around the timeouts, and no silence of a day."""

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
    """An endless pcap stream: the same packets over and over, in each round with later times."""

    def __init__(self, policy: Policy, packets: int, seed: int) -> None:
        traffic = Passers(policy, np.random.default_rng(seed), fragments=True).draw(packets)
        times = np.array(traffic.times_ns)
        times -= times.min()
        #: The nanoseconds of one round.
        self.period_ns = int(times.max()) + PAUSE_NS
        lengths = np.array([len(frame) for frame in traffic.frames])
        places = np.concatenate([[0], np.cumsum(lengths + 16)])
        self._records = np.zeros(places[-1], dtype=np.uint8)
        # The places of the bytes of each record's seconds.
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
    """Yield changes and their reversals without end."""
    networks = ip_network("198.51.100.0/25"), ip_network("198.51.100.128/31")
    rule = Rule("", "inbound", 4, 6, ((8080, 8080),))
    while True:
        yield AddRule("beta", replace(rule, id="soak"))
        yield AddMember("beta", "a1")
        yield SetAddressGroup("offices", networks)
        yield AddAddress("g1", ip_network("10.0.0.0/24"))
        yield RemoveRule("beta", "soak")
        yield RemoveAddress("g1", ip_network("10.0.0.0/24"))
        yield RemoveMember("beta", "a1")
        yield SetAddressGroup("offices", networks[:1])


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Soaked:
    packets: int
    changes: int
    seconds: float
    #: Resident bytes after each million packets, without the list of cut connections.
    resident: list[int] = field(default_factory=list)
    #: The results of the last million packets, by the engine that judged all packets and by the one from the snapshot.
    rows: list[NDArray[Any]] = field(default_factory=list)
    disconnected: int = 0
    counters: dict[str, Any] = field(default_factory=dict)

    @property
    def growth(self) -> float:
        """The relative growth of resident memory, from the time when it should be constant to the end."""
        n = len(self.resident)
        averaged = max(1, round(n * AVERAGED))
        settled = round(n * SETTLED)
        early, late = self.resident[settled : settled + averaged], self.resident[-averaged:]
        return float(np.mean(late) / np.mean(early)) - 1


def soak(
    packets: int, seed: int, folder: Path, *, loop: int = LOOP, stride: int = STRIDE, jobs: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Soaked:  # fmt: skip
    """Run ``packets`` packets, a multiple of ``stride`` and at least twice ``stride``."""
    policy = parse_policy(POLICY)
    stream = EndlessCapture(policy, loop, seed)
    assert (packets / stream.packets + 1) * stream.period_ns < LAST_SECOND * SECOND, "a pcap's time ends before that"
    engine = Engine(policy, mode="causal", midstream="infer", _reporting=True, jobs=jobs)
    reader = CaptureReader(stream, "soak")
    soaked = Soaked(packets, 0, 0.0)
    coming = changes()
    began = time.perf_counter()
    batch, at = _next(reader), 0
    for end in range(stride, packets - stride + 1, stride):
        remaining = stride
        while remaining:
            if at == len(batch):
                batch, at = _next(reader), 0
            number = min(remaining, len(batch) - at)
            engine.dataplane.process_frames(batch, first=at, number=number)
            at += number
            remaining -= number
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
        judge.resolved(everything=True)         # deny fragments whose first fragment is missing
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
