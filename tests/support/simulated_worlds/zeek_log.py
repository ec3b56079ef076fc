"""The ``conn.log`` files that Zeek would write of a world: a row for each connection, in the file of its end."""

from __future__ import annotations

import heapq
import json
import random
from itertools import count
from pathlib import Path

from logged_packets import Packet
from zeek_log_writer import COUNTERPARTS, FIELDS
from zeek_log_writer import Connection as Tracked

from simulated_worlds.account import ICMP, TCP
from simulated_worlds.connections import ACK, SYN, Connection, Sent
from simulated_worlds.worlds import World

SECOND = 10**9
BEFORE = 7200.0


def write_zeek(world: World, folder: Path) -> None:
    """Write a file for each hour or so. Zeek ran before the log begins, or began with it."""
    rng = random.Random(f"zeek {world.seed}")
    began, hours = rng.choice((0.0, -BEFORE)), max(3600.0, world.length / 100)
    files: dict[int, list[dict[str, object]]] = {}
    for ended, tracked in _tracked(world, began):
        if ended >= 0:
            row = tracked.row(f"C{rng.getrandbits(60):x}")
            files.setdefault(int(min(ended, world.length) // hours), []).append(row)
    is_json = rng.random() < 0.5
    for n, rows in files.items():
        (folder / f"conn.{n:03}.log").write_text(_json(rows) if is_json else _table(rows))


def _json(rows: list[dict[str, object]]) -> str:
    typed = ({k: float(str(v)) if k in ("ts", "duration") else v for k, v in row.items()} for row in rows)
    return "".join(json.dumps(row) + "\n" for row in typed)


def _table(rows: list[dict[str, object]]) -> str:
    head = ["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tconn",
            "\t".join(["#fields", *(name for name, _ in FIELDS)]),
            "\t".join(["#types", *(kind for _, kind in FIELDS)])]  # fmt: skip
    lines = ["\t".join(str(row.get(name, "-")) for name, _ in FIELDS) for row in rows]
    return "".join(line + "\n" for line in [*head, *lines])


def _tracked(world: World, began: float) -> list[tuple[float, Tracked]]:
    """Return what Zeek tracks, each with the time when it writes it."""
    packets: list[tuple[float, int, int, Connection, Sent]] = []
    numbers = count()
    for seq, connection in enumerate(world.connections):
        if not world.is_logged(connection):
            continue
        for sent in connection.sent:
            if began <= sent.time < world.length and connection.unseen != ("opener" if sent.by_opener else "responder"):
                packets.append((sent.time, next(numbers), seq, connection, sent))
    packets.sort(key=lambda packet: packet[:2])
    live: dict[object, Tracked] = {}
    timers: list[tuple[int, int, object, Tracked]] = []
    ended: list[tuple[float, Tracked]] = []
    for time, _, seq, connection, sent in packets:
        now = _ns(world, time)
        while timers and timers[0][0] <= now:
            deadline, _, due, tracked = heapq.heappop(timers)
            if tracked.deadline_ns == deadline and live.get(due) is tracked:
                ended.append((deadline / SECOND - world.begin, live.pop(due)))
        packet, source, target = _packet(connection, sent, now, 2 * seq)
        key = (packet.protocol, frozenset((source, target)))
        if key in live and live[key].is_reused(packet):
            ended.append((time, live.pop(key)))
        if key not in live:
            live[key] = Tracked(packet, source, target)
        tracked = live[key]
        tracked.take(packet, source)
        end = tracked.orig if source == tracked.orig.address else tracked.resp
        end.packets += sent.packets - 1
        end.ip_bytes += sent.bytes - packet.size
        end.payload += max(0, sent.bytes - packet.size - 40 * (sent.packets - 1))
        heapq.heappush(timers, (tracked.deadline_ns, next(numbers), key, tracked))
    return ended + [(world.length, tracked) for tracked in live.values()]


def _packet(c: Connection, sent: Sent, now: int, seq: int) -> tuple[Packet, tuple[str, int], tuple[str, int]]:
    """Return the first of some packets, and its ends as Zeek has them: those of ICMP have types for ports."""
    source, target = (c.opener, c.opener_port), (c.responder, c.port)
    if not sent.by_opener:
        source, target = target, source
    size = max(28, sent.bytes // sent.packets)
    payload = max(0, size - 40) if c.protocol == TCP and sent.flags == ACK and size > 52 else 0
    icmp = (8 if sent.by_opener else 0, 0, 1) if c.protocol == ICMP else None
    seq += sent.flags != SYN
    packet = Packet(now, source[0], target[0], c.protocol, size, payload if c.protocol == TCP else size - 28, source[1],
                    target[1], sent.flags, seq, seq, icmp)  # fmt: skip
    if icmp:
        source, target = (source[0], icmp[0]), (target[0], COUNTERPARTS[ICMP][icmp[0]])
    return packet, source, target


def _ns(world: World, time: float) -> int:
    return int((world.begin + time) * SECOND)
