"""The order of the lists in a report.

Rows with equal counts need a fixed order, too, because the hash tables that they come from have none.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from sgfast.replaying.results import Broken, CutConnection, Denied, Service, Unanswered


def denied_key(row: Denied) -> tuple[Any, ...]:
    return -row.packets, *_service_key(row.service, row.peer, row.direction, row.reason)


def broken_key(row: Broken) -> tuple[Any, ...]:
    return -row.connections, *_service_key(row.service, row.peer, row.direction, row.reason)


def unanswered_key(row: Unanswered) -> tuple[Any, ...]:
    return -row.connections, *_service_key(row.service, row.answer)


def _service_key(service: Service, *words: str) -> tuple[Any, ...]:
    numbers = (service.protocol, service.port, service.icmp_type, service.icmp_code)
    return service.instance, *(-1 if number is None else number for number in numbers), *words


def cut_key(cut: CutConnection) -> tuple[Any, ...]:
    """Those with most packets first, then unfinished ones, then those with lower addresses."""
    ends = [ip_address(end) for end in (cut.initiator, cut.responder)]
    ports = (cut.initiator_port or 0) << 16 | (cut.responder_port or 0)
    icmp = (cut.icmp_type or 0) << 8 | (cut.icmp_code or 0)
    return (
        -cut.packets_after, cut.finished, *(end.packed.ljust(16, b"\0") for end in ends), ends[0].version, cut.protocol,
        ports, icmp,
    )  # fmt: skip
