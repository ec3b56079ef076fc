"""Kinds of traffic for tests of reports, in the rows that a data plane would have counted."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

import numpy as np

from sgfast.engine import REASONS
from sgfast.questions.replaying import Broken, Denied, Service, Unanswered
from sgfast.questions.replaying.kinds import KIND_DTYPE, Kinds


def kinds_of(
    denied: Iterable[Denied] = (), broken: Iterable[Broken] = (), unanswered: Iterable[Unanswered] = (), others: int = 0
) -> Kinds:
    """Make kinds from rows. ``others`` is the number of denied packets whose peer is not known."""
    names: dict[str, int] = {}
    rows = []

    def row(service: Service, reason: str, direction: str, peer: str, owner: str | None) -> np.ndarray:
        made = np.zeros(1, dtype=KIND_DTYPE)[0]
        packed = ip_address(peer).packed
        made["peer"][: len(packed)] = list(packed)
        made["family"] = 4 if len(packed) == 4 else 6
        made["instance"] = names.setdefault(service.instance, len(names))
        made["owner"] = -1 if owner is None else names.setdefault(owner, len(names))
        made["protocol"], made["reason"] = service.protocol, REASONS.index(reason)
        made["inbound"], made["rule"] = direction == "inbound", -1
        if service.port is not None:
            made["has_ports"], made["port_key"] = 1, service.port
        if service.icmp_type is not None:
            made["has_icmp"], made["port_key"] = 1, service.icmp_type << 8 | (service.icmp_code or 0)
        made["first_ns"] = made["last_ns"] = 1
        rows.append(made)
        return made

    for kind in denied:
        made = row(kind.service, kind.reason, kind.direction, kind.peer, kind.peer_name)
        made["packets"], made["bytes"] = kind.packets, kind.bytes
    for lost in broken:
        row(lost.service, lost.reason, lost.direction, lost.peer, lost.peer_name)["broken"] = lost.connections
    for silence in unanswered:
        made = row(silence.service, "rule", "inbound", "192.0.2.1", None)
        made[silence.answer] = made["connections"] = silence.connections
    if others:
        made = np.zeros(1, dtype=KIND_DTYPE)[0]
        made["instance"], made["owner"], made["rule"], made["packets"] = -1, -1, -1, others
        made["reason"] = REASONS.index("no-rule")
        rows.append(made)
    table = np.array(rows, dtype=KIND_DTYPE) if rows else np.zeros(0, dtype=KIND_DTYPE)
    return Kinds(table, [*names])
