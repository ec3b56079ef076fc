"""Events of connections while an engine judges (SPEC 14.15): rows of the data plane in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sgfast.base.notebook import AsJson
from sgfast.core.base.reasons import ReasonWord
from sgfast.policy.protocols import protocol_name
from sgfast.rows.columns import is_icmp
from sgfast.rows.row_schema import ENDS
from sgfast.rows.text_columns import address_texts
from sgfast.rows.verdicts import REASONS

#: The kind of an event of a connection (SPEC 14.15).
EventKind = Literal["opened", "denied", "ended", "cut"]
#: The cause of an end (the first five) or of a cut (SPEC 14.15).
EventCause = Literal["closed", "reset", "timeout", "evicted", "removed", "disconnected", "forgotten"]

#: The order of EventKind in ``core/conntrack/table.pxd``.
_KINDS: tuple[EventKind, ...] = get_args(EventKind)
#: Events are put into words so many at a time.
_TOGETHER = 4096


@dataclass(frozen=True, slots=True)
class ConnectionSide(AsJson):
    """The filter of one end of a connection.

    ``instance``: the name of the instance.
    ``rule``: the id of the rule that let the connection begin there, or that denied it; None if no rule matched.
    """

    instance: str
    rule: str | None


@dataclass(frozen=True, slots=True)
class ConnectionEvent(AsJson):
    """An event in the life of a connection (SPEC 14.15).

    ``kind``: what happened.
    ``time_ns``: the time on the engine's clock, in nanoseconds since the Unix epoch.
    ``reason``: the reason of the verdict on the connection's first packet.
    ``cause``: the cause of the end or cut; None for "opened" and "denied".
    ``protocol``: the protocol above IP, by name, or its number if it has none.
    ``initiator``: the address that opened the connection.
    ``initiator_port``: its port; None if the protocol has no ports.
    ``responder``: the address at the other end.
    ``responder_port``: its port; None if the protocol has no ports.
    ``icmp_type``: the type of the first ICMP message; None for other protocols.
    ``icmp_code``: the code of this message; None for other protocols.
    ``egress``: the filter of the initiator's instance; None if there is none.
    ``ingress``: the filter of the responder's instance; None if there is none, or if the egress filter denied the
    connection. Stateless filters have no connections, so they are None, too, unless they denied it.
    ``first_packet``: the number of the connection's first packet, with 1 for the engine's first, which no other
    connection has.
    ``first_time_ns``: the timestamp of this packet, in nanoseconds since the Unix epoch.
    ``packets_from_initiator``: the packets up to the event; None for "opened" and "denied".
    ``packets_from_responder``: the same for the other end.
    ``bytes_from_initiator``: the bytes of these packets on the wire; None for "opened" and "denied".
    ``bytes_from_responder``: the same for the other end.
    """

    kind: EventKind
    time_ns: int
    reason: ReasonWord
    cause: EventCause | None
    protocol: str
    initiator: str
    initiator_port: int | None
    responder: str
    responder_port: int | None
    icmp_type: int | None
    icmp_code: int | None
    egress: ConnectionSide | None
    ingress: ConnectionSide | None
    first_packet: int
    first_time_ns: int
    packets_from_initiator: int | None
    packets_from_responder: int | None
    bytes_from_initiator: int | None
    bytes_from_responder: int | None


def in_words(rows: NDArray[Any], instances: Sequence[str], rules: Sequence[str]) -> Iterator[ConnectionEvent]:
    """Yield the event of each row (EVENT_DTYPE). ``instances``, ``rules``: names by number."""
    for at in range(0, len(rows), _TOGETHER):
        some = rows[at : at + _TOGETHER]
        columns = [
            some[name].tolist()
            for name in ("kind", "time_ns", "reason", "how", "protocol", "has_ports", "ports", "icmp", "number",
                         "first_ns", "side_end", "instance", "rule", "packets", "bytes")
        ]  # fmt: skip
        ends = zip(_addresses(some, "initiator"), _addresses(some, "responder"), is_icmp(some).tolist(), strict=True)
        for (initiator, responder, icmp), row in zip(ends, zip(*columns, strict=True), strict=True):
            kind, time_ns, reason, how, protocol, has_ports, ports, code, number, first_ns, *end_fields = row
            egress, ingress = (
                ConnectionSide(instances[owner], rules[rule] if rule >= 0 else None) if has_side else None
                for has_side, owner, rule in zip(*end_fields[:3], strict=True)
            )
            cause = REASONS[reason]
            assert cause is not None
            over = _KINDS[kind] in ("ended", "cut")
            word: Any = ENDS[how]
            yield ConnectionEvent(
                _KINDS[kind], time_ns, cause, word if over else None,
                protocol_name(protocol) or str(protocol),
                initiator, ports >> 16 if has_ports else None, responder, ports & 0xFFFF if has_ports else None,
                code >> 8 if icmp else None, code & 0xFF if icmp else None, egress, ingress, number, first_ns,
                *(end_fields[3] + end_fields[4] if over else (None,) * 4),
            )  # fmt: skip


def _addresses(rows: NDArray[Any], end: str) -> list[str]:
    offsets, text = address_texts(np.ascontiguousarray(rows[end]), np.ascontiguousarray(rows["family"]))
    letters, ends = text.tobytes().decode(), offsets.tolist()
    return [letters[start:stop] for start, stop in pairwise(ends)]
