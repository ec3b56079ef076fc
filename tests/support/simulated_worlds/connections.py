"""True connections: who opened them, what was sent when, and whether the other end answered."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from simulated_worlds.account import TCP, UDP

FIN, SYN, RST, ACK = 1, 2, 4, 16
#: Timeouts in seconds of protocols without states, after packets of both ends and of one end (SPEC 5.2).
BOTH_ENDS, ONE_END = 180, 30
LINUX, WINDOWS, BEHIND_NAT = (32768, 60999), (49152, 65535), (1024, 65535)


class Sent(NamedTuple):
    """Packets that an end sent at a time, in seconds since the log's beginning."""

    time: float
    by_opener: bool
    packets: int
    bytes: int
    flags: int = 0


@dataclass
class Connection:
    kind: str
    protocol: int
    opener: str
    opener_port: int
    responder: str
    port: int
    sent: list[Sent]
    answered: bool = True
    #: The address whose filter in the cloud rejected the opener.
    rejected_by: str = ""
    #: The end whose packets are in no record: "opener" or "responder".
    unseen: str = ""
    #: The NAT gateway on its way.
    gateway: str = ""
    #: The address that another interface had when the connection lived.
    earlier_owner: str = ""
    #: Each end opened it by itself, too.
    both_called: bool = False
    #: Whether its first packet can open a connection. That of a scan without SYN cannot.
    is_opened: bool = True

    def ends(self) -> tuple[int, frozenset[tuple[str, int]]]:
        return self.protocol, frozenset({(self.opener, self.opener_port), (self.responder, self.port)})


def tcp(
    rng: random.Random, kind: str, at: float, opener: str, opener_port: int, responder: str, port: int, *,
    lasts: float = 0.0, gap: float = 30.0, ends: str = "fin",
) -> Connection:  # fmt: skip
    """Return an answered connection with data, that lasts some seconds, with packets every ``gap`` seconds."""
    trip = rng.choice((0.0005, 0.002, 0.02, 0.15)) * rng.uniform(0.8, 1.5)
    lasts = max(lasts, rng.choice((0.05, 0.5, 3.0, 20.0)) * rng.uniform(0.5, 2) + 3 * trip)
    sent = [Sent(at, True, 1, 60, SYN), Sent(at + trip, False, 1, 60, SYN | ACK),
            Sent(at + 1.1 * trip, True, 1, 52, ACK)]  # fmt: skip
    time, end = at + 1.2 * trip, at + lasts
    while True:
        asked, told = rng.randint(1, 8), rng.randint(1, 12)
        sent.append(Sent(time, True, asked, asked * rng.randint(70, 500), ACK))
        sent.append(Sent(time + trip, False, told, told * rng.randint(80, 1400), ACK))
        time += gap * rng.uniform(0.5, 1.0)
        if time > end - 3 * trip:
            break
    end = max(end, sent[-1].time + trip)
    if ends == "fin":
        sent += [Sent(end, True, 1, 52, FIN | ACK), Sent(end + trip, False, 1, 52, FIN | ACK),
                 Sent(end + 1.1 * trip, True, 1, 52, ACK)]  # fmt: skip
    elif ends == "rst":
        sent.append(Sent(end, rng.random() < 0.5, 1, 40, RST | ACK))
    return Connection(kind, TCP, opener, opener_port, responder, port, sent)


def query(
    rng: random.Random, kind: str, at: float, opener: str, opener_port: int, responder: str, port: int, *,
    protocol: int = UDP, times: int = 1, gap: float = 5.0, answered: bool = True,
) -> Connection:  # fmt: skip
    """Return questions and their answers, in a protocol without states."""
    trip, sent = rng.choice((0.001, 0.01, 0.1)), []
    for n in range(times):
        time = at + n * gap * rng.uniform(0.9, 1.0)
        sent.append(Sent(time, True, 1, rng.randint(60, 200)))
        if answered:
            sent.append(Sent(time + trip, False, 1, rng.randint(80, 600)))
    return Connection(kind, protocol, opener, opener_port, responder, port, sorted(sent), answered=answered)


def attempt(
    rng: random.Random, kind: str, at: float, opener: str, opener_port: int, responder: str, port: int, *,
    outcome: str, flags: int = SYN,
) -> Connection:  # fmt: skip
    """Return a TCP attempt that comes to nothing: ``refused``, ``silent`` or ``rejected``; or a half-open one."""
    size = 44 if flags == SYN else 40
    sent = [Sent(at, True, 1, size, flags)]
    if outcome == "refused":
        sent.append(Sent(at + 0.01, False, 1, 40, RST | ACK))
    elif outcome == "half-open":
        sent += [Sent(at + 0.01, False, 1, 44, SYN | ACK), Sent(at + 0.02, True, 1, 40, RST)]
    elif flags == SYN:
        sent += [Sent(at + 1.0 * (2**n - 1), True, 1, size, flags) for n in range(1, rng.randint(1, 4))]
    return Connection(kind, TCP, opener, opener_port, responder, port, sent, answered=outcome == "half-open",
                      rejected_by=responder if outcome == "rejected" else "", is_opened=flags == SYN)  # fmt: skip


def tracked(connections: Iterable[Connection]) -> Iterator[Connection]:
    """Yield the connections as a filter tracks them.

    In protocols without states, packets of the same ends belong to one connection until it was silent for its timeout,
    whoever sent them.
    """
    stateless: dict[object, list[Connection]] = defaultdict(list)
    for connection in connections:
        if connection.protocol in (1, TCP) or connection.rejected_by:
            yield connection
        else:
            stateless[connection.ends(), connection.earlier_owner].append(connection)
    for same in stateless.values():
        packets = sorted((sent.time, n, sent) for n, connection in enumerate(same) for sent in connection.sent)
        piece: list[tuple[Connection, Sent]] = []
        for _, n, sent in packets:
            senders = {_sender(connection, other) for connection, other in piece}
            if piece and sent.time - piece[-1][1].time > (BOTH_ENDS if len(senders) == 2 else ONE_END):
                yield _piece(piece)
                piece = []
            piece.append((same[n], sent))
        if piece:
            yield _piece(piece)


def _sender(connection: Connection, sent: Sent) -> tuple[str, int]:
    if sent.by_opener:
        return connection.opener, connection.opener_port
    return connection.responder, connection.port


def _piece(packets: list[tuple[Connection, Sent]]) -> Connection:
    first, opening = packets[0]
    opener = _sender(first, opening)
    responder = _sender(first, opening._replace(by_opener=not opening.by_opener))
    sent = [packet._replace(by_opener=_sender(connection, packet) == opener) for connection, packet in packets]
    callers = {(connection.opener, connection.opener_port) for connection, _ in packets}
    return replace(first, opener=opener[0], opener_port=opener[1], responder=responder[0], port=responder[1], sent=sent,
                   answered=len({packet.by_opener for packet in sent}) == 2, both_called=len(callers) == 2)  # fmt: skip
