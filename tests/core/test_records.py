"""Records of a clustered replay, which come from files: whatever stands there is judged, or is no record."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address

import numpy as np
import pytest
from clusters import BASE, CLIENT, POLICY, WEB
from datagrams import Datagram
from effort import some
from frames import ethernet, icmp, icmp_error, ip, other, tcp, udp
from traffic import SECOND, Crowd

from sgfast import Engine
from sgfast.core.base.frames import FrameBatch
from sgfast.engine import INFRASTRUCTURES, REASONS
from sgfast.policy.model import Settings
from sgfast.questions.replaying.cluster.partition import Partitioner
from sgfast.questions.replaying.cluster.records import TOLD_DTYPE, RecordJudge, records_before

NEVER = (1 << 63) - 1
HOUR = 3600 * SECOND


#: The beginning of each record (records.pxd), and what follows it if it is a fragment.
RECORD = np.dtype([
    ("time_ns", "<i8"), ("now", "<i8"), ("addr", "<u8"), ("number", "<u4"), ("wire", "<u4"), ("vpc", "<u4"),
    ("ports", "<u4"), ("port_key", "<u2"), ("kind", "u1"), ("outcome", "u1"), ("step", "u1"), ("protocol", "u1"),
    ("tcp_flags", "u1"), ("flags", "u1"),
])  # fmt: skip
PIECE = np.dtype([("identification", "<u4"), ("at", "<u4"), ("end", "<u4"), ("last", "u1"), ("read", "u1")])


def records_of(
    frames: Sequence[bytes], times_ns: Sequence[int], wires: Sequence[int], seed: int, infrastructure: str = "exempt"
) -> bytes:
    partitioner = Partitioner(1, seed, infrastructure=INFRASTRUCTURES.index(infrastructure), full_bytes=1 << 20)
    assert partitioner.spread(FrameBatch.from_frames(frames, times_ns, wires, 1)) == []
    taken = partitioner.take(0, bytes)
    assert taken is not None and taken[1:] == (len(taken[0]), len(frames)) and partitioner.take(0, bytes) is None
    return taken[0]


def block_of(seed: int, number: int) -> tuple[bytes, int, int]:
    """Records of some ``number`` packets, how many there are, and the time of the first one."""
    traffic = Crowd(POLICY, np.random.default_rng(seed), fragments=True).draw(number)
    block = records_of(traffic.frames, traffic.times_ns, traffic.wire_lengths, seed)
    return block, len(traffic.frames), traffic.times_ns[0]


def engine_at(time_ns: int) -> Engine:
    engine = Engine(POLICY, _reporting=True)
    engine.dataplane.begin(time_ns)
    return engine


def judge(engine: Engine, block: bytes, *, rows: bool = False, turn: int = 0) -> int:
    """The number of records; ValueError for what are none. ``turn``: how often the engine had such a block."""
    end, count, *_ = records_before(block, 0, NEVER, 0)
    assert end == len(block)
    told = np.zeros(count, dtype=TOLD_DTYPE) if rows else None
    # The clock never goes back, and numbers grow.
    RecordJudge(engine.dataplane).judge(block, 0, end, 0, turn * HOUR, turn * 1000, told)
    return count


@pytest.mark.parametrize("rows", [False, True])
def test_a_block_that_is_cut_anywhere_is_told(rows: bool) -> None:
    block, count, first_ns = block_of(1, 60)
    engine, whole = engine_at(first_ns), set()
    for size in range(len(block) + 1):
        # In memory of its own: reading past its end is seen by whoever looks.
        with suppress(ValueError):
            whole.add(judge(engine, bytes(bytearray(block[:size])), rows=rows, turn=size))
    assert whole == set(range(count + 1))


TURNS = some(2000, 20_000)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_were_changed_are_judged_or_told(seed: int) -> None:
    print(f"seed {seed}")
    block, count, first_ns = block_of(seed, 300)
    rng, told = np.random.default_rng(seed), 0
    for turn in range(TURNS):
        if turn % 50 == 0:
            # The clock of the one before may have jumped to its end.
            engine = engine_at(first_ns)
            assert judge(engine, block) == count
        spoilt = bytearray(block)
        for _ in range(int(rng.integers(1, 4))):
            spoilt[int(rng.integers(len(block)))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
        try:
            judge(engine, bytes(spoilt), rows=bool(rng.integers(2)), turn=1 + turn % 50)
        except ValueError:
            told += 1
    assert 0 < told < TURNS


FRAMES = {
    "tcp": ip(CLIENT, WEB, tcp(4000, 80, "S")),
    "tcp6": ip("2001:db8::1", "2001:db8::2", tcp(4000, 80, "SA")),
    "udp": ip(WEB, CLIENT, udp(53, 4000)),
    "echo": ip(CLIENT, WEB, icmp(8, 0, 7)),
    "one-way": ip(CLIENT, WEB, icmp(42, 1)),
    "gre": ip(CLIENT, WEB, other(47, bytes(20))),
    "error": ip(CLIENT, WEB, icmp_error(3, 1, ip(WEB, CLIENT, tcp(80, 4000, "S")))),
    "malformed": ip(CLIENT, WEB, other(6, bytes(10))),
    "first": Datagram(CLIENT, WEB, udp(4000, 53, bytes(56))).piece("0-24+"),
    "later": Datagram(CLIENT, WEB, udp(4000, 53, bytes(56))).piece("24-64"),
    "not-ip": bytes(46),
}
LOW, HIGH = sorted(int(IPv4Address(address)) for address in (CLIENT, WEB))


def changed(block: bytes, values: dict[str, int], at: int = 0) -> bytes:
    """The block with other values of the record at ``at``, or of what follows a record."""
    dtype = RECORD if values.keys() <= set(RECORD.names or ()) else PIECE
    at += RECORD.itemsize if dtype is PIECE else 0
    row = np.frombuffer(block, dtype=dtype, count=1, offset=at).copy()
    for name, value in values.items():
        row[name] = value
    return block[:at] + row.tobytes() + block[at + dtype.itemsize :]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tcp", "kind outcome step flags protocol"), ("tcp6", "kind outcome step flags protocol"),
        ("udp", "kind outcome step flags"), ("echo", "kind outcome step flags protocol"),
        ("one-way", "kind outcome step flags protocol"), ("gre", "kind outcome step"), ("first", "kind outcome step"),
        ("error", "kind outcome protocol"), ("malformed", "kind"), ("later", "kind"), ("not-ip", "kind flags"),
    ],
)  # fmt: skip
def test_a_byte_that_contradicts_the_others_is_told(name: str, fields: str) -> None:
    block = records_of([ethernet(FRAMES[name], 0x0806 if name == "not-ip" else None)], [BASE], [100], 1)
    engine, turn = engine_at(BASE), 0
    for field in fields.split():
        judged = []
        for value in range(256):
            turn += 1
            with suppress(ValueError):
                judge(engine, changed(block, {field: value}), rows=bool(value & 1), turn=turn)
                judged.append(value)
        assert judged == [np.frombuffer(block, dtype=RECORD, count=1)[field][0]], field


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("tcp", "vpc", 1), ("tcp", "now", (1 << 62) + 1), ("tcp", "now", BASE - 1), ("tcp", "number", 0),
        ("tcp", "addr", HIGH << 32 | LOW), ("tcp", "addr", HIGH << 32 | HIGH), ("tcp", "port_key", 81),
        ("tcp", "tcp_flags", 0x12), ("tcp6", "addr", (1 << 64) - 1), ("echo", "port_key", 0), ("echo", "port_key", 768),
        ("echo", "ports", 7 << 16 | 5), ("one-way", "ports", 42 << 16 | 2), ("gre", "ports", 1), ("gre", "flags", 4),
        ("error", "port_key", 8 << 8), ("error", "flags", 0), ("malformed", "flags", 12), ("first", "ports", 1),
        ("first", "end", 23), ("first", "at", 24), ("later", "at", 25), ("later", "at", 64), ("later", "end", 1 << 16),
        ("later", "read", 0), ("later", "read", 8), ("later", "last", 0),
    ],
)  # fmt: skip
def test_a_value_that_no_packet_has_is_told(name: str, field: str, value: int) -> None:
    block = records_of([ethernet(FRAMES[name])], [BASE], [100], 1)
    assert judge(engine_at(BASE), block) == 1
    if field == "last":
        # The length of the last fragment is any.
        block = changed(block, {"end": 63})
        assert judge(engine_at(BASE), block) == 1
    with pytest.raises(ValueError):
        judge(engine_at(BASE), changed(block, {field: value}))


def test_times_and_numbers_that_go_back_are_told() -> None:
    frames = [ethernet(FRAMES["udp"])] * 3
    block = records_of(frames, [BASE, BASE + 5, BASE + 5], [100] * 3, 1)
    size = len(block) // 3
    assert judge(engine_at(BASE), block) == 3
    for values in ({"now": BASE + 4}, {"number": 2}, {"number": 1}):
        with pytest.raises(ValueError):
            judge(engine_at(BASE), changed(block, values, 2 * size))
    engine = engine_at(BASE)
    end = records_before(block, 0, BASE + 5, 0)[0]
    records = RecordJudge(engine.dataplane)
    records.judge(block, end, len(block), 0, 0, 0)
    for begin, shift_ns, before in ((0, 0, 3), (0, HOUR, 0), (end, -1, 3)):
        with pytest.raises(ValueError):
            records.judge(block, begin, len(block), 0, shift_ns, before)
    records.judge(block, 0, len(block), 0, 5, 3)


def test_who_may_send_infrastructure_is_known_from_a_record_and_from_that_of_a_first_fragment() -> None:
    """SPEC 3.11."""
    answer = Datagram(WEB, CLIENT, udp(67, 68, bytes(56)))
    packets = [ip(WEB, CLIENT, udp(67, 68)), ip(CLIENT, WEB, udp(67, 68)), ip(WEB, CLIENT, udp(68, 67))]
    frames = [ethernet(packet) for packet in packets] + [ethernet(answer.piece(at)) for at in ("0-24+", "24-64")]
    by_role = replace(POLICY, settings=Settings(infrastructure="by-role"))
    engine = Engine(by_role, _reporting=True)
    engine.dataplane.begin(BASE)
    block = records_of(frames, [BASE] * len(frames), [100] * len(frames), 1, "by-role")
    assert judge(engine, block) == len(frames)
    reasons = dict(zip(REASONS, engine.dataplane.counters["reasons"], strict=True))
    assert (reasons["infrastructure"], reasons[None]) == (3, 2)
