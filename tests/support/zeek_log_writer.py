"""Write the conn.log that Zeek would have made of captured packets, for tests. Independent of the engine.

Written from what Zeek 7 does (its TCP states, timers and ``conn_state``), but simpler: it ignores checksums, logs only
TCP, UDP and ICMP, takes the first fragment for the datagram and leaves out the others, counts payload instead of
sequence numbers, and writes no letters for lost, repeated and damaged data in the history (``gtwc``).

>>> write_zeek_tsv([(time_ns, frame, 1), ...])
"""

from __future__ import annotations

import heapq
import json
import random
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from logged_packets import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, Packet, RawPacket, parsed

SECOND = 10**9
INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)
#: Seconds: an attempt without an answer, a connection after its end, without packets, and of interactive services.
ATTEMPT, LINGER, IDLE, IDLE_INTERACTIVE, IDLE_OTHER = 5, 5, 300, 3600, 60
INTERACTIVE = (21, 22, 23, 513)
#: Ports by which Zeek guesses the responder where the opener is missing: those of ``likely_server_ports`` that matter.
SERVERS = {
    TCP: {21, 22, 25, 53, 80, 81, 88, 110, 135, 139, 143, 389, 443, 445, 502, 563, 585, 587, 614, 631, 636, 989, 990,
          992, 993, 995, 1080, 1433, 1434, 3128, 3306, 3389, 5060, 5061, 5223, 5432, 6666, 6667, 6668, 6669, 8000, 8080,
          8888},
    UDP: {53, 67, 88, 123, 137, 161, 162, 443, 514, 1812, 2123, 2152, 3544, 4789, 5060, 5353, 5355, 6081},
}  # fmt: skip
#: The types of requests and answers, which are one connection. Any other type is a connection of one direction.
_PAIRS = {
    ICMP: ((8, 0), (13, 14), (15, 16), (10, 9), (17, 18)),
    ICMPV6: ((128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)),
}
COUNTERPARTS = {proto: dict(pairs) | {b: a for a, b in pairs} for proto, pairs in _PAIRS.items()}

FIELDS = (
    ("ts", "time"), ("uid", "string"), ("id.orig_h", "addr"), ("id.orig_p", "port"), ("id.resp_h", "addr"),
    ("id.resp_p", "port"), ("proto", "enum"), ("service", "string"), ("duration", "interval"), ("orig_bytes", "count"),
    ("resp_bytes", "count"), ("conn_state", "string"), ("local_orig", "bool"), ("local_resp", "bool"),
    ("missed_bytes", "count"), ("history", "string"), ("orig_pkts", "count"), ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"), ("resp_ip_bytes", "count"), ("tunnel_parents", "set[string]"),
)  # fmt: skip

Address = tuple[str, int]


@dataclass
class End:
    address: Address
    packets: int = 0
    ip_bytes: int = 0
    payload: int = 0
    state: int = INACTIVE
    previous: int = INACTIVE
    #: The sequence number of its SYN.
    first_seq: int | None = None
    did_close: bool = False
    #: The kinds of packets in the history, with their last sequence number.
    noted: dict[str, int] = field(default_factory=dict)

    def enter(self, state: int) -> None:
        if state != self.state:
            self.previous, self.state = self.state, state


class Connection:
    """A connection while Zeek remembers it."""

    def __init__(self, p: Packet, source: Address, destination: Address) -> None:
        self.protocol = p.protocol
        self.start_ns = self.last_ns = p.time_ns
        self.history = ""
        self.orig, self.resp = End(source), End(destination)
        #: When Zeek forgets it.
        self.deadline_ns = 0
        self._is_established = False
        self._attempt_ns: int | None = None
        self._closed_ns: int | None = None
        servers = SERVERS.get(p.protocol, set())
        from_server, to_server = source[1] in servers, destination[1] in servers
        flips = from_server and not to_server
        if p.protocol == TCP:
            flips |= from_server and not p.flags & SYN and source[1] < destination[1]
            flips &= p.flags & (SYN | ACK) != SYN
        if flips and destination[0] != "255.255.255.255":
            self._flip()

    def take(self, p: Packet, source: Address) -> None:
        is_orig = source == self.orig.address
        end = self.orig if is_orig else self.resp
        end.packets, end.ip_bytes, end.payload = end.packets + 1, end.ip_bytes + p.size, end.payload + p.payload
        if p.protocol == TCP:
            self._take_tcp(p, end, self.resp if is_orig else self.orig)
            self.deadline_ns = self._tcp_deadline()
        else:
            self.last_ns = p.time_ns
            self.deadline_ns = p.time_ns + IDLE_OTHER * SECOND
            if p.protocol == UDP:
                self._note(end, "D")

    def is_reused(self, p: Packet) -> bool:
        """Return whether a packet begins another connection with the same ends."""
        if self.protocol != TCP or not p.flags & SYN or (p.flags & ACK and self.orig.state != INACTIVE):
            return False
        if self.orig.did_close or self.resp.did_close:
            return True
        return p.seq != (self.resp if p.flags & ACK else self.orig).first_seq and not self._is_swapped_syn(p, self.resp)

    def row(self, uid: str) -> dict[str, Any]:
        lasted = self.last_ns // 1000 - self.start_ns // 1000
        orig, resp = self.orig, self.resp
        known = {"duration": _seconds(lasted), "orig_bytes": orig.payload, "resp_bytes": resp.payload}
        return {
            "ts": _seconds(self.start_ns // 1000), "uid": uid, "id.orig_h": orig.address[0],
            "id.orig_p": orig.address[1], "id.resp_h": resp.address[0], "id.resp_p": resp.address[1],
            "proto": {TCP: "tcp", UDP: "udp"}.get(self.protocol, "icmp"), **(known if lasted > 0 else {}),
            "conn_state": self.state(), "missed_bytes": 0, **({"history": self.history} if self.history else {}),
            "orig_pkts": orig.packets, "orig_ip_bytes": orig.ip_bytes, "resp_pkts": resp.packets,
            "resp_ip_bytes": resp.ip_bytes,
        }  # fmt: skip

    def state(self) -> str:
        orig, resp = self.orig, self.resp
        if self.protocol == UDP:
            return ("SF" if resp.packets else "S0") if orig.packets else "SHR"
        if self.protocol != TCP:
            return "OTH"
        no_orig, no_resp = (end.state in (INACTIVE, PARTIAL) for end in (orig, resp))
        if resp.state == RESET:
            is_empty = orig.state == RESET and not orig.payload + resp.payload
            is_refused = is_empty or orig.state in (SYN_SENT, SYN_ACK_SENT)
            return "REJ" if is_refused else "RSTRH" if no_orig else "RSTR"
        if orig.state == RESET:
            return "RSTO" if not no_resp else "RSTOS0" if re.match(r"\^?S[^HAFGIQ]*R", self.history) else "OTH"
        if orig.state == CLOSED:
            return "SF" if resp.state == CLOSED else "SH" if no_resp else "S2"
        if resp.state == CLOSED:
            return "SHR" if no_orig else "S3"
        return {(SYN_SENT, INACTIVE): "S0", (ESTABLISHED, ESTABLISHED): "S1"}.get((orig.state, resp.state), "OTH")

    def _flip(self) -> None:
        self.orig, self.resp = self.resp, self.orig
        self.history += "^"

    def _note(self, end: End, letter: str, seq: int = 0, kind: str = "") -> None:
        """Write a letter once for each kind and end, and those of SYN, FIN and RST for each new sequence number."""
        if end.noted.get(kind or letter) != seq:
            self.history += letter if end is self.orig else letter.lower()
        end.noted[kind or letter] = seq

    def _is_swapped_syn(self, p: Packet, end: End) -> bool:
        """Return whether it is the SYN of a SYN-ACK that was captured before it."""
        is_syn = p.flags & (SYN | ACK) == SYN and p.seq == end.first_seq
        return is_syn and self.orig.state == SYN_ACK_SENT and end is self.resp and end.state == INACTIVE

    def _take_tcp(self, p: Packet, end: End, peer: End) -> None:
        syn, fin, rst, ack = (bool(p.flags & flag) for flag in (SYN, FIN, RST, ACK))
        is_swapped = self._is_swapped_syn(p, end)
        if end.state == INACTIVE or (syn and end.state < CLOSED):
            end.first_seq = p.seq if syn else p.seq - 1
        seq = p.seq - (end.first_seq or 0)
        if syn + fin + rst > 1:
            self._note(end, "I" if fin and rst else "Q")
        elif syn:
            self._note(end, "H" if ack else "S", seq, "S")
        elif fin:
            self._note(end, "F", seq + p.payload)
        elif rst:
            self._note(end, "R", seq)
        elif p.payload or ack:
            self._note(end, "D" if p.payload else "A")
        if not (end.did_close and peer.did_close):
            self.last_ns = p.time_ns
        if ack and peer.state == INACTIVE:
            peer.first_seq = p.ack - 1
        if is_swapped:
            self._flip()
            peer.enter(ESTABLISHED)
        if self._step(end, peer, p, is_swapped) and not end.did_close:
            end.did_close = True
            if end.state == RESET or peer.did_close or peer.state == INACTIVE:
                self._closed_ns = self.last_ns

    def _step(self, end: End, peer: End, p: Packet, is_swapped: bool) -> bool:
        """Go to the next state of the end that sent a packet. Return whether the packet closes this end."""
        syn, fin, rst, ack = (bool(p.flags & flag) for flag in (SYN, FIN, RST, ACK))
        if end.state == CLOSED and rst and peer.state != CLOSED:
            end.enter(RESET)
            self._closed_ns = p.time_ns
        if end.state in (CLOSED, RESET):
            return False
        if end.state == INACTIVE and syn:
            if end is self.orig and not is_swapped:
                end.enter(SYN_ACK_SENT if ack else SYN_SENT)
                self._attempt_ns = p.time_ns
            else:
                if peer.state == SYN_SENT:
                    peer.enter(ESTABLISHED)
                end.enter(ESTABLISHED)
                self._is_established |= peer.state != PARTIAL
        elif end.state == INACTIVE and not (fin or rst):
            if ack and peer.state == ESTABLISHED:
                end.enter(ESTABLISHED)
            elif end is self.orig or p.payload or peer.state != SYN_SENT:
                end.enter(PARTIAL)
        elif end.state == PARTIAL and syn and not ack and peer.state == INACTIVE:
            end.enter(SYN_SENT)
        if rst:
            end.enter(RESET)
        elif fin:
            end.enter(CLOSED)
            if peer.state == RESET and peer.previous == CLOSED:
                peer.enter(CLOSED)
        return fin or rst

    def _tcp_deadline(self) -> int:
        if self._closed_ns is not None:
            return self._closed_ns + LINGER * SECOND
        if self._attempt_ns is not None and self.orig.state in (SYN_SENT, SYN_ACK_SENT) and self.resp.state == INACTIVE:
            return self._attempt_ns + ATTEMPT * SECOND
        is_interactive = self._is_established and self.resp.address[1] in INTERACTIVE
        return self.last_ns + (IDLE_INTERACTIVE if is_interactive else IDLE) * SECOND


def connections(packets: Iterable[RawPacket], seed: int = 1) -> Iterator[Connection]:
    """Yield connections as they end. Those that are open at the end of the capture come last, in no order."""
    live: dict[Any, Connection] = {}
    timers: list[tuple[int, int, Any, Connection]] = []
    numbers, now = count(), 0
    for p in parsed(packets):
        now = max(now, p.time_ns)
        while timers and timers[0][0] <= now:
            deadline, _, key, connection = heapq.heappop(timers)
            if connection.deadline_ns == deadline and live.get(key) is connection:
                yield live.pop(key)
        source, destination, key = (p.src, p.sport), (p.dst, p.dport), None
        if p.is_later_fragment or p.protocol not in (TCP, UDP, ICMP, ICMPV6):
            continue
        if p.icmp is not None:
            answer = COUNTERPARTS[p.protocol].get(p.icmp[0])
            source, destination = (p.src, p.icmp[0]), (p.dst, p.icmp[1] if answer is None else answer)
            key = (source, destination) if answer is None else None
        key = (p.protocol, key or frozenset((source, destination)))
        if key in live and live[key].is_reused(p):
            yield live.pop(key)
        if key not in live:
            live[key] = Connection(p, source, destination)
        live[key].take(p, source)
        heapq.heappush(timers, (live[key].deadline_ns, next(numbers), key, live[key]))
    rest = list(live.values())
    random.Random(seed).shuffle(rest)
    yield from rest


def _rows(packets: Iterable[RawPacket], seed: int) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    for connection in connections(packets, seed):
        yield connection.row("C" + "".join(draw.choices(string.ascii_letters + string.digits, k=17)))


def _seconds(microseconds: int) -> str:
    return f"{microseconds // 10**6}.{microseconds % 10**6:06}"


def write_zeek_tsv(packets: Iterable[RawPacket], seed: int = 1) -> bytes:
    head = ["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tconn",
            "#open\t2026-01-01-00-00-00", "\t".join(["#fields", *(name for name, _ in FIELDS)]),
            "\t".join(["#types", *(kind for _, kind in FIELDS)])]  # fmt: skip
    lines = ["\t".join(str(row.get(name, "-")) for name, _ in FIELDS) for row in _rows(packets, seed)]
    return "".join(f"{line}\n" for line in [*head, *lines, "#close\t2026-01-01-01-00-00"]).encode()


def write_zeek_json(packets: Iterable[RawPacket], seed: int = 1) -> bytes:
    """Return JSON lines, without the fields that are not set."""
    rows = ({name: float(value) if name in ("ts", "duration") else value for name, value in row.items()}
            for row in _rows(packets, seed))  # fmt: skip
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
