"""Kinds of traffic as lists of values with names and addresses, sorted by their counts."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal, cast

from sgfast.core.base.reasons import ReasonWord
from sgfast.engine import REASONS
from sgfast.policy.model import Direction
from sgfast.questions.replaying.kinds import Kinds


@dataclass(frozen=True, slots=True)
class Service:
    """A protocol and its port or ICMP type, at an instance.

    ``instance``: the name of the instance.
    ``protocol``: the IP protocol number.
    ``port``: the destination port; None if the protocol has no ports.
    ``icmp_type``: the ICMP type; None for other protocols.
    ``icmp_code``: the ICMP code; None for other protocols.
    """

    instance: str
    protocol: int
    port: int | None
    icmp_type: int | None
    icmp_code: int | None


@dataclass(frozen=True, slots=True)
class Denied:
    """Denied packets of one service, direction, peer and reason.

    ``service``: the protocol and port, and the instance that has it.
    ``direction``: the direction in which the connections are opened, as the instance sees them.
    ``peer``: the address or network at the other end.
    ``peer_name``: the name of the instance that owns the peer's address, or None.
    ``reason``: the reason of the denial.
    ``packets``: the number of denied packets.
    ``bytes``: the number of bytes on the wire.
    """

    service: Service
    direction: Direction
    peer: str
    peer_name: str | None
    reason: ReasonWord
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Broken:
    """Connections that would break: they were answered, but the security groups deny them.

    ``service``: the protocol and port, and the instance that has it.
    ``direction``: the direction in which the connections are opened, as the instance sees them.
    ``peer``: the address or network at the other end.
    ``peer_name``: the name of the instance that owns the peer's address, or None.
    ``reason``: the reason of the denial.
    ``connections``: the number of connections.
    """

    service: Service
    direction: Direction
    peer: str
    peer_name: str | None
    reason: ReasonWord
    connections: int


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Connections that the security groups allow, but that the instance refused or never answered (SPEC 10.4).

    ``service``: the protocol and port, and the instance that has it.
    ``answer``: ``refused`` or ``silent``.
    ``connections``: the number of connections.
    """

    service: Service
    answer: Literal["refused", "silent"]
    connections: int


def service_of(kinds: Kinds, row: Any) -> Service:
    """Return the service at the row's instance. If the instance is not known, its name is empty."""
    key = int(row["port_key"])
    icmp = bool(row["has_icmp"])
    return Service(
        kinds.instances[row["instance"]] if row["instance"] >= 0 else "",
        int(row["protocol"]),
        key if row["has_ports"] else None,
        key >> 8 if icmp else None,
        key & 255 if icmp else None,
    )


def peer_of(kinds: Kinds, row: Any) -> tuple[str, str | None]:
    """Return the peer's address and the name of the instance that owns it, or None."""
    packed = row["peer"][: 16 if row["family"] == 6 else 4].tobytes()
    owner = int(row["owner"])
    return str(ip_address(packed)), kinds.instances[owner] if owner >= 0 else None


def direction_of(row: Any) -> Direction:
    return "inbound" if row["inbound"] else "outbound"


def denied_of(kinds: Kinds, row: Any) -> Denied:
    """Convert a row whose instance and peer are known."""
    # Roll-ups also describe allowed traffic with this class. Such a row has no reason.
    reason = cast(ReasonWord, REASONS[row["reason"]] or "")
    counts = int(row["packets"]), int(row["bytes"])
    return Denied(service_of(kinds, row), direction_of(row), *peer_of(kinds, row), reason, *counts)


def listed_denials(kinds: Kinds) -> list[Denied]:
    rows = [Denied(*key, *total) for key, total in _totals(kinds, "packets", "bytes").items()]
    return sorted(rows, key=lambda row: (-row.packets, *_order(row.service, row.peer, row.direction, row.reason)))


def unlisted_denials(kinds: Kinds) -> int:
    """Return the number of packets of denied kinds whose peer is not known."""
    return int(kinds.rows["packets"][kinds.rows["family"] == 0].sum())


def listed_broken(kinds: Kinds) -> list[Broken]:
    rows = [Broken(*key, *total) for key, total in _totals(kinds, "broken").items()]
    return sorted(rows, key=lambda row: (-row.connections, *_order(row.service, row.peer, row.direction, row.reason)))


def listed_unanswered(kinds: Kinds) -> list[Unanswered]:
    totals: dict[tuple[Service, Literal["refused", "silent"]], int] = {}
    answers: tuple[Literal["refused", "silent"], ...] = ("refused", "silent")
    for answer in answers:
        for row in kinds.rows[(kinds.rows[answer] > 0) & (kinds.rows["instance"] >= 0)]:
            key = service_of(kinds, row), answer
            totals[key] = totals.get(key, 0) + int(row[answer])
    rows = [Unanswered(*key, total) for key, total in totals.items()]
    return sorted(rows, key=lambda row: (-row.connections, *_order(row.service, row.answer)))


def _totals(kinds: Kinds, *measures: str) -> dict[tuple[Any, ...], list[int]]:
    """Add up measures of denied kinds by service, direction, peer and reason, if the first measure is not 0."""
    totals: dict[tuple[Any, ...], list[int]] = {}
    for row in kinds.rows[kinds.rows[measures[0]] > 0]:
        # Skip rows whose instance or peer is unknown.
        if row["family"] > 0 and row["instance"] >= 0:
            key = (service_of(kinds, row), direction_of(row), *peer_of(kinds, row), REASONS[row["reason"]] or "")
            sums = totals.get(key, [0] * len(measures))
            totals[key] = [total + int(row[name]) for total, name in zip(sums, measures, strict=True)]
    return totals


def _order(service: Service, *words: str) -> tuple[Any, ...]:
    """Return a sort key, because rows from hash tables have no order."""
    numbers = (service.protocol, service.port, service.icmp_type, service.icmp_code)
    return service.instance, *(-1 if number is None else number for number in numbers), *words
