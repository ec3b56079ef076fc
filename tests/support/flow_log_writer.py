"""Write the flow logs that clouds would have made of captured packets, for tests. Independent of the engine.

Every writer takes packets as (time in ns, frame, link type) in the order of the capture, and the addresses or networks
of the monitored interfaces by name. A packet whose IP or transport header contradicts itself is in no log, and neither
is one between two addresses of one interface.

>>> write_aws(packets, {"web-1": ["10.0.0.5"]}, Logged(interval_s=600), fields=AWS_V5)
"""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from logged_packets import ACK, FIN, ICMP, RST, SCTP, SYN, TCP, UDP, Packet, RawPacket, parsed

SECOND = 10**9

#: Fields of AWS, by the version that they came with.
_SINCE = {
    name: version for version, names in (
        (2, "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action"),
        (2, "log-status"),
        (3, "vpc-id subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr"),
        (4, "region az-id sublocation-type sublocation-id"),
        (5, "pkt-src-aws-service pkt-dst-aws-service flow-direction traffic-path"),
    ) for name in names.split()
}  # fmt: skip
AWS_V5 = tuple(_SINCE)
#: The default format.
AWS_V2 = tuple(name for name, version in _SINCE.items() if version == 2)
_INT_32 = ("version", "srcport", "dstport", "protocol", "tcp-flags", "traffic-path")
_INT_64 = ("packets", "bytes", "start", "end")

Interfaces = Mapping[str, Collection[Any]]


# Clouds


def nothing(packet: Packet, interface: str, direction: str) -> bool:
    """Block nothing."""
    return False


@dataclass(frozen=True)
class Logged:
    """The way a cloud logs.

    ``sampled``: in records with counters, one in so many packets counts, and stands for so many. ``blocked`` tells
    whether an interface blocks a packet in a direction, ``ingress`` or ``egress``; each writer asks it in the packets'
    order.
    """

    interval_s: int = 60
    seed: int = 1
    sampled: int = 1
    blocked: Callable[[Packet, str, str], bool] = nothing


class Sighting(NamedTuple):
    packet: Packet
    interface: str
    direction: str
    accepted: bool


@dataclass
class Record:
    """A flow in an interval, as an interface sees it. Without ``packet``, the interval had no traffic."""

    interface: str
    window: tuple[int, int]
    direction: str = ""
    accepted: bool = True
    packet: Packet | None = None
    times: list[int] = field(default_factory=list)
    packets: int = 0
    bytes: int = 0
    flags: int = 0


def owners(interfaces: Interfaces) -> Callable[[str], str | None]:
    """Return the function that names the interface with an address. The longest prefix owns it."""
    networks = [(ip_network(str(address)), name) for name, addresses in interfaces.items() for address in addresses]
    networks.sort(key=lambda owned: -owned[0].prefixlen)

    @cache
    def owner(word: str) -> str | None:
        address = ip_address(word)
        if address.is_multicast or word == "255.255.255.255":
            return None
        return next((name for network, name in networks if address in network), None)

    return owner


def sightings(packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged) -> Iterator[Sighting]:
    """Yield each packet at each interface that sees it. What one end blocks, the other end never sees."""
    owner = owners(interfaces)
    for packet in parsed(packets):
        sender, receiver = owner(packet.src), owner(packet.dst)
        if sender == receiver:
            continue
        for interface, direction in ((sender, "egress"), (receiver, "ingress")):
            if interface is not None:
                accepted = not logged.blocked(packet, interface, direction)
                yield Sighting(packet, interface, direction, accepted)
                if not accepted:
                    break


def records(
    packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged,
    is_unlogged: Callable[[Packet], bool] = lambda packet: False,
) -> list[Record]:  # fmt: skip
    """Return the records in the order in which they appear, each up to a minute after its interval."""
    packets = list(packets)
    interval, draw = logged.interval_s * SECOND, random.Random(logged.seed)
    begin = {name: random.Random(f"{logged.seed} {name}").randrange(interval) for name in interfaces}
    flows: dict[tuple[Any, ...], Record] = {}

    def window(interface: str, time_ns: int) -> int:
        return (time_ns - begin[interface]) // interval

    def bounds(interface: str, number: int) -> tuple[int, int]:
        first = begin[interface] + number * interval
        return max(first, 0), first + interval

    busy, times = set(), [time_ns for time_ns, _, _ in packets]
    for p, interface, direction, accepted in sightings(packets, interfaces, logged):
        if is_unlogged(p) or draw.randrange(logged.sampled):
            continue
        number = window(interface, p.time_ns)
        key = (interface, number, direction, accepted, p.src, p.dst, p.sport, p.dport, p.protocol)
        if key not in flows:
            flows[key] = Record(interface, bounds(interface, number), direction, accepted, p)
        record = flows[key]
        record.times.append(p.time_ns)
        record.packets += logged.sampled
        record.bytes += logged.sampled * p.size
        record.flags |= p.flags & (FIN | SYN | RST | (ACK if p.flags & SYN else 0))
        busy.add((interface, number))
    idle = [
        Record(interface, bounds(interface, number))
        for interface in (interfaces if times else ())
        for number in range(window(interface, min(times)), window(interface, max(times)) + 1)
        if (interface, number) not in busy
    ]
    late = [(record.window[1] + draw.randrange(3 * SECOND, 60 * SECOND), n, record)
            for n, record in enumerate([*flows.values(), *idle])]  # fmt: skip
    return [record for _, _, record in sorted(late)]


# AWS


def _is_unlogged(packet: Packet, owner: Callable[[str], str | None]) -> bool:
    """Return whether AWS never logs it: DNS of its resolvers, DHCP, instance metadata and time."""
    ports = {packet.sport, packet.dport}
    if packet.protocol == UDP and (ports == {67, 68} or ports == {546, 547}):
        return True
    for address in (packet.src, packet.dst):
        if address in ("169.254.169.254", "fd00:ec2::254", "169.254.169.123", "fd00:ec2::123"):
            return True
        # AWS reserves the address with host number 2 in each subnet for its DNS server.
        is_reserved = address.endswith(".2") and not owner(address)
        if 53 in ports and (is_reserved or address in ("169.254.169.253", "fd00:ec2::253")):
            return True
    return False


def aws_values(
    packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged = Logged(), fields: Sequence[str] = AWS_V2
) -> list[list[str | int | None]]:
    """Return the values of each record. None stands for what the record does not tell."""
    owner = owners(interfaces)
    primary = {name: _primary(addresses) for name, addresses in interfaces.items()}
    found = records(packets, interfaces, logged, lambda packet: _is_unlogged(packet, owner))
    return [_aws(record, primary[record.interface], owner, fields) for record in found]


def _primary(addresses: Iterable[Any]) -> str | None:
    """Return the first IPv4 address; a router has the first one of its network."""
    networks = [ip_network(str(address)) for address in addresses]
    return next((str(n[0 if n.num_addresses == 1 else 1]) for n in networks if n.version == 4), None)


def _aws(
    record: Record, primary: str | None, owner: Callable[[str], str | None], fields: Sequence[str]
) -> list[str | int | None]:
    p, is_egress = record.packet, record.direction == "egress"
    values: dict[str, str | int | None] = {
        "version": max(_SINCE[name] for name in fields), "account-id": "123456789012",
        "interface-id": record.interface, "start": record.window[0] // SECOND, "end": record.window[1] // SECOND,
        "log-status": "NODATA",
    }  # fmt: skip
    if p is not None:
        # The interface's own side is always its primary address, whatever the packet says.
        own = primary if p.family == 4 else None
        values |= {
            "srcaddr": own if own and is_egress else p.src, "dstaddr": own if own and not is_egress else p.dst,
            "srcport": p.sport, "dstport": p.dport, "protocol": p.protocol, "packets": record.packets,
            "bytes": record.bytes, "start": min(record.times) // SECOND, "end": max(record.times) // SECOND,
            "action": "ACCEPT" if record.accepted else "REJECT", "log-status": "OK", "vpc-id": "vpc-1",
            "subnet-id": "subnet-1", "instance-id": f"i-{record.interface}", "tcp-flags": record.flags,
            "type": f"IPv{p.family}", "pkt-srcaddr": p.src, "pkt-dstaddr": p.dst, "region": "eu-west-1",
            "az-id": "euw1-az1", "flow-direction": record.direction,
            "traffic-path": (1 if owner(p.dst) else 8) if is_egress else None,
        }  # fmt: skip
    return [values.get(name) for name in fields]


def _lines(rows: Iterable[Iterable[str | int | None]]) -> list[str]:
    return [" ".join("-" if value is None else str(value) for value in row) for row in rows]


def write_aws(
    packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged = Logged(), *,
    fields: Sequence[str] = AWS_V2, header: bool = True,
) -> bytes:  # fmt: skip
    """Return the text that S3 gets, with a header line, or that CloudWatch Logs gets, without."""
    lines = _lines(aws_values(packets, interfaces, logged, fields))
    return "".join(f"{line}\n" for line in ([" ".join(fields), *lines] if header else lines)).encode()


def write_parquet(
    path: Path, packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged = Logged(),
    fields: Sequence[str] = AWS_V2,
) -> None:  # fmt: skip
    import pyarrow as pa
    from pyarrow.parquet import write_table

    kinds = [pa.int32() if name in _INT_32 else pa.int64() if name in _INT_64 else pa.string() for name in fields]
    schema = pa.schema([(name.replace("-", "_"), kind) for name, kind in zip(fields, kinds, strict=True)])
    rows = aws_values(packets, interfaces, logged, fields)
    write_table(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema), path,
                compression="gzip")  # fmt: skip


def write_cloudwatch(packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged = Logged()) -> bytes:
    """Return the messages of a subscription, each of one interface and in gzip, one behind the other."""
    head = {"owner": "123456789012", "logGroup": "flows", "subscriptionFilters": ["all"]}
    tested = {"id": "", "timestamp": 0, "message": "CWL CONTROL MESSAGE: Checking health of destination Firehose."}
    found = [head | {"messageType": "CONTROL_MESSAGE", "logStream": "", "logEvents": [tested]}]
    rows = aws_values(packets, interfaces, logged)
    for first in range(0, len(rows), 50):
        streams = defaultdict(list)
        for number, row in enumerate(rows[first : first + 50], first):
            event = {"id": f"{number:056}", "timestamp": int(row[10] or 0) * 1000, "message": _lines([row])[0]}
            streams[f"{row[2]}-all"].append(event)
        found += [head | {"messageType": "DATA_MESSAGE", "logStream": name, "logEvents": events}
                  for name, events in streams.items()]  # fmt: skip
    return b"".join(gzip.compress(json.dumps(message).encode(), mtime=0) for message in found)


def write_firehose(packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged = Logged()) -> bytes:
    """Return a line of JSON for each record."""
    lines = _lines(aws_values(packets, interfaces, logged))
    return "".join(json.dumps({"message": line}) + "\n" for line in lines).encode()


# OTC, Neutron

_QUERIES, _REPLIES = (8, 13, 15, 17, 128), (0, 14, 16, 18, 129)


def write_otc(packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged = Logged(600)) -> bytes:
    """Return a log of OTC, whose records have the bounds of the interval instead of the packets' times."""
    rows = []
    for record in records(packets, interfaces, logged):
        p, action = record.packet, "ACCEPT" if record.accepted else "REJECT"
        flow = [None] * 7 if p is None else [p.src, p.dst, p.sport, p.dport, p.protocol, record.packets, record.bytes]
        times = [time_ns // SECOND for time_ns in record.window]
        rows.append([1, "0" * 32, record.interface, *flow, *times, *((action, "OK") if p else (None, "NODATA"))])
    return "".join(f"{line}\n" for line in _lines(rows)).encode()


@dataclass
class _Session:
    last: Packet
    opener: str
    answered: bool = False
    closing: set[str] = field(default_factory=set)

    def is_over(self, p: Packet) -> bool:
        """Return whether conntrack (timeouts of Linux) takes a packet for the first one of a new session."""
        is_closed = len(self.closing) == 2
        if is_closed and p.flags & (SYN | ACK) == SYN:
            return True
        if p.protocol == TCP:
            patience = 432_000 if self.answered and not is_closed else 120
        else:
            patience = 120 if self.answered and p.icmp is None else 30
        return p.time_ns - self.last.time_ns >= patience * SECOND


def write_neutron(
    packets: Iterable[RawPacket], interfaces: Interfaces, logged: Logged = Logged(), *, dated: bool = True
) -> bytes:
    """Return a line for the first packet of each accepted session, at each end, and for each dropped packet. Not
    ``dated``: the times are those of syslog, without a year. What began before the capture has no line.
    """
    sessions: dict[tuple[Any, ...], _Session] = {}
    lines = []
    for p, interface, _, accepted in sightings(packets, interfaces, logged):
        begins = True
        if accepted:
            if p.is_later_fragment or (p.icmp and p.icmp[0] not in _QUERIES + _REPLIES):
                continue
            key = (interface, p.protocol, p.icmp and p.icmp[2], frozenset({(p.src, p.sport), (p.dst, p.dport)}))
            session = sessions.get(key)
            begins = session is None or session.is_over(p)
            if session is None or begins:
                session = sessions[key] = _Session(p, p.src)
                # Anything else continues a session that began before the capture.
                begins = p.icmp[0] in _QUERIES if p.icmp else p.protocol != TCP or p.flags & (SYN | ACK) == SYN
            session.last, session.answered = p, session.answered or p.src != session.opener
            session.closing |= {p.src, p.dst} if p.flags & RST else {p.src} if p.flags & FIN else set()
        if begins:
            lines.append(_neutron_line(p, interface, accepted, dated))
    return "".join(lines).encode()


def _neutron_line(p: Packet, port: str, accepted: bool, dated: bool) -> str:
    moment = datetime.fromtimestamp(p.time_ns // SECOND, UTC).replace(microsecond=p.time_ns % SECOND // 1000)
    time = moment.isoformat() if dated else f"{moment:%b} {moment.day:2} {moment:%H:%M:%S}"
    ethertype = 0x0800 if p.family == 4 else 0x86DD
    headers = [f"ethernet(dst='fa:16:3e:00:00:02',ethertype={ethertype},src='fa:16:3e:00:00:01')"]
    if p.family == 4:
        headers.append(
            f"ipv4(csum=0,dst='{p.dst}',flags=2,header_length=5,identification=7,offset={int(p.is_later_fragment)}, "
            f"option=None,proto={p.protocol},src='{p.src}',tos=0,total_length={p.size},ttl=64,version=4)"
        )
    else:
        headers.append(
            f"ipv6(dst='{p.dst}',ext_hdrs=[],flow_label=0,hop_limit=64,nxt={p.protocol},payload_length={p.size - 40},"
            f"src='{p.src}',traffic_class=0,version=6)"
        )
    ports = f"dst_port={p.dport},{{}}src_port={p.sport}"
    if p.icmp is not None:
        name, kind = ("icmp", "type") if p.protocol == ICMP else ("icmpv6", "type_")
        data = f"echo(data=b'type=9',id={p.icmp[2]},seq=1)"
        headers.append(f"{name}(code={p.icmp[1]},csum=0,data={data},{kind}={p.icmp[0]})")
    elif p.protocol == TCP and not p.is_later_fragment:
        middle = ports.format(f"offset=5,option=[],seq={p.seq},")
        headers.append(f"tcp(ack={p.ack},bits={p.flags},csum=0,{middle},urgent=0,window_size=64240)")
    elif p.protocol in (UDP, SCTP) and not p.is_later_fragment:
        headers.append(f"{'udp' if p.protocol == UDP else 'sctp'}(csum=0,{ports.format('')},total_length={p.payload})")
    action = "ACCEPT" if accepted else "DROP"
    log = "4522efdf-8d44-4e19-b237-64cafc49469b"
    return (
        f"{time} action={action} project_id={'0' * 32} log_resource_ids=['{log}'] vm_port={port} "
        f"{', '.join(headers)}\n"
    )
