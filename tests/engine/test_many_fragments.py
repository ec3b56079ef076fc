"""Fragments in bulk (SPEC 9.4): what the engine counts and how much it remembers, and drawn ones against the reference
model.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import frames as f
import numpy as np
import pytest
from datagrams import Datagram, cut
from differential import expected, spell
from effort import some
from peers_and_filter import INSTANCES, OPEN_OUT
from scenario import START_NS, STRANGERS, policy_of
from traffic import SECOND

from sgfast.core.base.frames import FrameBatch
from sgfast.engine import PENDING, REASONS, VERDICTS, Engine
from sgfast.engine.snapshot import load_snapshot, save_snapshot
from sgfast.reference import fragments as reference_fragments
from sgfast.reference.engine import ReferenceEngine

CLIENT, WEB, DB = STRANGERS["client"][0], "10.0.0.5", "10.0.0.6"
#: 64 bytes of UDP to a port that is open, and to one that is not.
OPEN, SHUT = f.udp(4000, 80, bytes(56)), f.udp(4000, 81, bytes(56))
MADE = policy_of(f"""
security_groups:
  - {{name: w, rules: [{{id: in, direction: inbound, protocol: udp, ports: 80}}]}}
  - {{name: d, rules: [{OPEN_OUT}]}}
{INSTANCES}""")


def datagram(layer: f.Layer = OPEN, identification: int = 7, src: str = CLIENT, dst: str = WEB) -> Datagram:
    return Datagram(src, dst, layer, identification)


def batch(packets: list[f.Layer], at: float = 0) -> FrameBatch:
    times = [START_NS + round(at * SECOND)] * len(packets)
    return FrameBatch.from_frames([f.ethernet(packet) for packet in packets], times)


class Told:
    """An engine's verdicts, late or not."""

    def __init__(self, **options: Any) -> None:
        self.engine = Engine(MADE, **options)
        self.rows = self.engine.process(batch([]))

    def give(self, packets: list[f.Layer], at: float = 0) -> list[str]:
        self.rows = np.concatenate((self.rows, self.engine.process(batch(packets, at))))
        return self.words()

    def words(self, *, everything: bool = False) -> list[str]:
        resolved = self.engine.resolved(everything=everything)
        assert (self.rows["verdict"][resolved["number"] - 1] == PENDING).all()
        self.rows[resolved["number"] - 1] = resolved["result"]
        return [self.engine.verdict(row).verdict for row in self.rows]


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("layer, verdict", [(OPEN, "allow"), (SHUT, "deny")])
def test_all_fragments_count_for_the_rule_and_the_list_of_denials(layer, verdict, jobs):
    engine = Engine(MADE, _reporting=True, _keep_flows=True, jobs=jobs)
    pieces = datagram(layer).pieces("48-64 0-24+ 24-48+")
    engine.process(batch(pieces))
    counters = engine.dataplane.counters
    assert dict(zip(VERDICTS, counters["verdicts"], strict=True))[verdict] == 3
    nbytes = sum(len(f.ethernet(piece)) for piece in pieces)
    engine.dataplane.finish()
    flow, = engine.dataplane.take_flows()
    assert (flow["packets"].tolist(), flow["bytes"].tolist()) == ([3, 0], [nbytes, 0])
    if verdict == "allow":
        count, *_ = engine.dataplane.rule_counts
        assert count.tolist() == (1, 3, nbytes)
    else:
        rows, others = engine.dataplane.tallies["denials"]
        assert [(row["port_key"], row["packets"], row["bytes"]) for row in rows] == [(81, 3, nbytes)]
        assert others == 0


def test_what_is_resolved_last_is_in_the_list_of_denials():
    engine = Engine(MADE, _reporting=True)
    engine.process(batch(datagram().pieces("24-48+")))
    assert len(engine.dataplane.tallies["denials"][0]) == 0
    assert len(engine.resolved(everything=True)) == 1
    assert [row["packets"] for row in engine.dataplane.tallies["denials"][0]] == [1]


def test_offset_of_a_fragment_has_thirteen_bits():
    told = Told()
    assert told.give([datagram().piece("0-24+"), datagram().piece("32768-32776+")]) == ["allow", "allow"]
    assert told.give([datagram().piece("0-24+"), datagram().piece("32768-32776+")])[2:] == ["allow", "allow"]


@pytest.mark.parametrize("more, word", [(-1, "allow"), (0, "allow"), (1, "deny")])
def test_nothing_waits_for_more_than_so_many_packets(more, word):
    engine = Engine(MADE)
    engine.process(batch(datagram().pieces("24-48+")))
    between = reference_fragments.FRAGMENT_PACKETS - 1 + more
    stranger = f.ipv4(CLIENT, "198.51.100.1", f.udp(1, 2))
    engine.process(batch([stranger] * between))
    engine.process(batch(datagram().pieces("0-24+")))
    told = engine.resolved(everything=True)
    assert (told["number"].tolist(), VERDICTS[told["result"]["verdict"][0]]) == ([1], word)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_oldest_datagram_goes_when_there_are_too_many(over):
    told = Told()
    number = reference_fragments.FRAGMENT_DATAGRAMS + over
    told.give([datagram(identification=n).piece("24-64") for n in range(number)])
    told.give([datagram(identification=n).piece("0-24+") for n in range(number - 1, max(over, 0) - 1, -1)])
    assert told.words(everything=True).count("deny") == max(over, 0)


@pytest.mark.parametrize("over", [-1, 0])
def test_oldest_datagram_goes_when_there_are_too_many_fragments(over):
    # The first fragment of one that waits would be one too many: then that one goes, and another begins.
    number = reference_fragments.FRAGMENT_RANGES // 1024
    whole = [datagram(f.udp(4000, 80, bytes(8 * 2048)), n) for n in range(number)]
    pieces = [
        each.piece(f"{8 * at}-{8 * at + 8}+")
        for n, each in enumerate(whole) for at in range(1, 1025 + (over if n == 0 else 0))
    ]  # fmt: skip
    told = Told()
    told.give([*pieces, whole[0].piece("0-8+")])
    assert told.words(everything=True)[0] == ("allow" if over < 0 else "deny")


def test_memory_of_what_nobody_takes_is_bounded_and_spoiled_datagrams_hold_nothing():
    engine = Engine(MADE)
    overlapping = [datagram(identification=n).piece(piece) for n in range(2_000) for piece in ("24-48+", "32-64")]
    for _ in range(100):
        engine.process(batch(overlapping))
    counters = engine.dataplane.counters
    assert counters["packets"] == 400_000
    assert dict(zip(REASONS, counters["reasons"], strict=True))["fragment"] == 400_000


def drawn(seed: int, number: int) -> list[f.Layer]:
    """Packets of many datagrams at once, in any order, some twice, some not at all, some overlapping."""
    rng = np.random.default_rng(seed)
    packets: list[f.Layer] = []
    for n in range(number):
        ends = f"203.0.113.{rng.integers(1, 9)}", (WEB, WEB, "10.9.9.9")[rng.integers(3)]
        whole = datagram((OPEN, SHUT)[rng.integers(2)], n, *ends)
        words = cut(64, *(8 * int(place) for place in rng.integers(1, 8, rng.integers(1, 4))))
        words += [word for word in words if rng.random() < 0.1]
        words = [word for word in words if rng.random() < 0.95]
        if rng.random() < 0.1:
            words.append("8-32+")
        packets += [whole.piece(word) for word in words]
    order = np.argsort(np.arange(len(packets)) + rng.normal(0, 6, len(packets)))
    return [packets[n] for n in order]


@pytest.mark.parametrize("seed", range(40))
def test_drawn_fragments_against_the_reference_with_any_number_of_workers_and_any_batches(seed):
    print("seed", seed)
    packets = drawn(1000 + seed, 150)
    rng = np.random.default_rng(seed)
    told, reference = Told(jobs=(1, 2, 5)[seed % 3], _reporting=True), ReferenceEngine(MADE)
    for start, end in pairwise(sorted({0, len(packets), *rng.integers(0, len(packets), 9).tolist()})):
        told.give(packets[start:end])
    told.words(everything=True)
    verdicts = [reference.process_frame(START_NS, f.ethernet(packet)) for packet in packets]
    reference.finish()
    for number, verdict in reference.resolved():
        verdicts[number - 1] = verdict
    for row, verdict in zip(told.rows, verdicts, strict=True):
        assert spell(told.engine, row) == expected(verdict)


def test_first_fragment_of_an_icmp_error_is_judged_by_its_quote_once():
    told = Told()
    query = f.ipv4(DB, CLIENT, f.udp(4000, 80, bytes(600)))
    error = Datagram(CLIENT, DB, f.icmp_error(3, 3, query, quoted_bytes=600))
    assert told.give([query, error.piece("400-608"), error.piece("0-400+")]) == ["allow"] * 3
    assert REASONS[told.rows["reason"][1]] == "related"


#: Ends of fragments around those of the words and pages of a set of blocks.
EDGES = sorted({8 * (at + more) for at in (1, 63, 64, 128, 4095, 4096, 4160, 8127, 8188) for more in (-1, 0, 1)})


def piece_of_long_datagram(number: int, first: int, end: int, more: bool) -> tuple[bytes, int]:
    """A frame that holds the first bytes of a fragment, and its length on the wire."""
    packet = f.ipv4(
        CLIENT, WEB, f.udp(4000, 80, bytes(8)), total_length=20 + end - first, fragment_offset=first // 8,
        more_fragments=more, identification=number,
    )  # fmt: skip
    return f.ethernet(packet)[: 14 + 20 + min(16, end - first)], 14 + 20 + end - first


def drawn_of_long_datagrams(rng: np.random.Generator, number: int) -> list[tuple[bytes, int]]:
    """Fragments of datagrams up to the longest one, in any order. Some come twice, some contradict others."""
    frames = []
    for n in range(number):
        end = EDGES[rng.integers(2, len(EDGES))] - int(rng.integers(0, 8))
        places = [place for place in rng.choice(EDGES, rng.integers(0, 12)).tolist() if 0 < place < end]
        pieces = list(pairwise(sorted({0, end, *places})))
        pieces += [piece for piece in pieces if rng.random() < 0.1]
        pieces = [piece for piece in pieces if rng.random() < 0.97]
        if rng.random() < 0.4:
            first, last = sorted(rng.choice(EDGES, 2, replace=False).tolist())
            pieces.append((first, last))
        frames += [piece_of_long_datagram(n, *piece, piece[1] != end) for piece in pieces]
    order = np.argsort(np.arange(len(frames)) + rng.normal(0, 6, len(frames)))
    return [frames[n] for n in order]


@pytest.mark.parametrize("seed", range(some(4, 60)))
def test_fragments_of_long_datagrams_against_the_reference_and_through_a_snapshot(seed, tmp_path):
    print("seed", seed)
    packets = drawn_of_long_datagrams(np.random.default_rng(seed), 60)
    reference, engine, rows = ReferenceEngine(MADE), Engine(MADE), []
    verdicts = []
    for start in range(0, len(packets), 100):
        frames, wires = zip(*packets[start : start + 100], strict=True)
        rows.append(engine.process(FrameBatch.from_frames(frames, [START_NS] * len(frames), wires)))
        verdicts += [
            reference.process_frame(START_NS, frame, wire_length=wire)
            for frame, wire in zip(frames, wires, strict=True)
        ]
        # No fragment waits in a snapshot.
        reference.finish()
        resolved = reference.resolved()
        for number, verdict in resolved:
            verdicts[number - 1] = verdict
        late = engine.resolved(everything=True)
        assert sorted(late["number"].tolist()) == [number for number, _ in resolved]
        for number, row in late.tolist():
            rows[(number - 1) // 100][(number - 1) % 100] = row
        save_snapshot(engine, tmp_path / "state")
        engine = load_snapshot(tmp_path / "state")
    for row, verdict in zip(np.concatenate(rows), verdicts, strict=True):
        assert spell(engine, row) == expected(verdict)
    told = Counter(verdict.reason for verdict in verdicts)
    assert told["established"] > 80 and told["fragment"] > 30, told
