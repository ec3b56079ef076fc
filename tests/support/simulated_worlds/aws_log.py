"""The VPC flow logs that AWS would write of a world: versions 2, 3 and 5.

A record has the packets of one flow, direction and action at one interface in one interval. Its times may be up to 60 s
late. The interface's own side of a record is the interface's own address, also where a NAT gateway passes packets on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flow_log_writer import AWS_V2, AWS_V5

from simulated_worlds.connections import ACK, FIN, RST, SYN, Connection, Sent
from simulated_worlds.worlds import EARLIER, GATEWAY, World

FIELDS = {"v2": AWS_V2, "v3": AWS_V5[: AWS_V5.index("pkt-dstaddr") + 1], "v5": AWS_V5}


class Flow(NamedTuple):
    interface: str
    is_egress: bool
    src: str
    sport: int
    dst: str
    dport: int
    protocol: int
    pkt_src: str
    pkt_dst: str
    accepted: bool


@dataclass
class Record:
    first: float
    last: float
    packets: int = 0
    bytes: int = 0
    flags: int = 0


def write_aws(world: World, folder: Path) -> None:
    rng = random.Random(f"aws {world.seed}")
    found: dict[tuple[int, Flow], Record] = {}
    phases: dict[str, float] = {}
    for connection in world.connections:
        translated = rng.randint(1024, 65535)
        for sent in connection.sent:
            if not 0 <= sent.time < world.length:
                continue
            for flow in _flows(world, connection, sent, translated):
                phase = phases.setdefault(flow.interface, rng.uniform(0, world.interval))
                key = int((sent.time + phase) // world.interval), flow
                record = found.setdefault(key, Record(sent.time, sent.time))
                record.first, record.last = min(record.first, sent.time), max(record.last, sent.time)
                record.packets += sent.packets
                record.bytes += sent.bytes
                record.flags |= sent.flags & (FIN | SYN | RST | (ACK if sent.flags & SYN else 0))
    lines = []
    told: dict[Flow, float] = {}
    for (window, flow), record in sorted(found.items(), key=lambda item: item[0][0]):
        lag = rng.uniform(0, 60) if rng.random() < world.off else rng.uniform(0, 1.5)
        # Records of one flow do not overlap, however late their times are.
        record.first = max(record.first + lag, told.get(flow, 0))
        record.last = told[flow] = max(record.last + lag, record.first)
        delivered = (window + 1) * world.interval + rng.uniform(5, 400)
        if rng.random() < world.late:
            delivered += rng.uniform(2, 8) * 3600
        lines.append((delivered, _line(world, flow, record)))
    lines += _idle(world, rng, set(phases))
    lines.sort()
    files = rng.choice((1, 1, 3, 8))
    head = " ".join(FIELDS[world.version])
    for n in range(files):
        part = [line for _, line in lines[n * len(lines) // files : (n + 1) * len(lines) // files]]
        (folder / f"flow-{n:02}.log").write_text("\n".join([head, *part]) + "\n")


def _flows(world: World, c: Connection, sent: Sent, translated: int) -> Iterator[Flow]:
    """Yield the flow of packets at each interface that logs them."""
    opener, responder = (c.opener, c.opener_port), (c.responder, c.port)
    source, target = (opener, responder) if sent.by_opener else (responder, opener)
    if c.unseen == ("opener" if sent.by_opener else "responder"):
        return
    for is_egress, end in ((True, source), (False, target)):
        interface, accepted = world.interface(c, end[0]), c.rejected_by != end[0]
        if interface:
            yield Flow(interface, is_egress, *source, *target, c.protocol, source[0], target[0], accepted)
        if not accepted:
            return
    if c.gateway and GATEWAY in world.logged:
        # Between the client and the gateway, and between the gateway and the peer.
        inner, outer = (c.gateway, c.port), (c.gateway, translated)
        if sent.by_opener:
            yield Flow(GATEWAY, False, *opener, *inner, c.protocol, c.opener, c.responder, True)
            yield Flow(GATEWAY, True, *outer, *responder, c.protocol, c.gateway, c.responder, True)
        else:
            yield Flow(GATEWAY, False, *responder, *outer, c.protocol, c.responder, c.gateway, True)
            yield Flow(GATEWAY, True, *inner, *opener, c.protocol, c.responder, c.opener, True)


def _line(world: World, flow: Flow, record: Record) -> str:
    start, end = (int(world.begin + time) for time in (record.first, record.last))
    instance = "-" if flow.interface in (GATEWAY, EARLIER) else "i-" + flow.interface[4:]
    is_inside = flow.dst.startswith("10.")
    values = {
        "version": world.version[1], "account-id": "123456789012", "interface-id": flow.interface,
        "srcaddr": flow.src, "dstaddr": flow.dst, "srcport": flow.sport, "dstport": flow.dport,
        "protocol": flow.protocol, "packets": record.packets, "bytes": record.bytes, "start": start, "end": end,
        "action": "ACCEPT" if flow.accepted else "REJECT", "log-status": "OK", "vpc-id": "vpc-1",
        "subnet-id": "subnet-1", "instance-id": instance,
        "tcp-flags": record.flags, "type": "IPv4", "pkt-srcaddr": flow.pkt_src, "pkt-dstaddr": flow.pkt_dst,
        "region": "eu-west-1", "az-id": "euw1-az1", "flow-direction": "egress" if flow.is_egress else "ingress",
        "traffic-path": ("1" if is_inside else "8") if flow.is_egress else "-",
    }  # fmt: skip
    return " ".join(str(values.get(name, "-")) for name in FIELDS[world.version])


def _idle(world: World, rng: random.Random, busy: set[str]) -> Iterator[tuple[float, str]]:
    """Yield records of logged interfaces without any traffic."""
    values = {"version": world.version[1], "account-id": "123456789012", "log-status": "NODATA"}
    for interface in sorted(world.logged - busy - {GATEWAY}):
        start = rng.uniform(0, world.interval)
        while start + world.interval < world.length:
            times = {"start": int(world.begin + start), "end": int(world.begin + start) + world.interval}
            row = values | {"interface-id": interface} | times
            yield start + 2 * world.interval, " ".join(str(row.get(name, "-")) for name in FIELDS[world.version])
            start += max(6 * 3600, world.interval)
