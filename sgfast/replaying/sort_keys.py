"""The order of cut connections in a report: the hash tables that they come from have none."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from sgfast.replaying.results import CutConnection


def cut_key(cut: CutConnection) -> tuple[Any, ...]:
    """Sort key: most packets first, then unfinished connections, then lower addresses."""
    ends = [ip_address(end) for end in (cut.initiator, cut.responder)]
    ports = (cut.initiator_port or 0) << 16 | (cut.responder_port or 0)
    icmp = (cut.icmp_type or 0) << 8 | (cut.icmp_code or 0)
    return (
        -cut.packets_after, cut.finished, *(end.packed.ljust(16, b"\0") for end in ends), ends[0].version, cut.protocol,
        ports, icmp,
    )  # fmt: skip
