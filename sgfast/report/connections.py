"""``--connections``: one JSON object per connection and denied attempt, as they end (SPEC 10.4)."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.engine import REASONS, VERDICTS
from sgfast.policy.model import ICMP, ICMPV6
from sgfast.replaying import Names
from sgfast.report.fragments import PROTOCOLS, Fragments, address_json, time_texts

#: By number in a row; the order of ``core/conntrack.pxd``'s SideEnd.
ENDS = (None, "open", "closed", "reset", "timeout", "evicted", "reopened", "denied", "disconnected",
        "removed")
ANSWERS = ("silent", "answered", "refused")

CHUNK_ROWS = 4096


class ConnectionLines:
    """A ``FlowSink`` that writes lines."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._names = Names((), (), 0)
        self._addresses: Fragments[bytes] = Fragments(address_json)
        self._sides: Fragments[tuple[int, int, int]] = Fragments(self._side)
        self._outcomes = Fragments(self._outcome)

    def begin(self, names: Names) -> None:
        self._names = names

    def write(self, flows: NDArray[Any]) -> None:
        # At the end of a replay all that is left comes at once, millions perhaps.
        for start in range(0, len(flows), CHUNK_ROWS):
            self._write(self._lines(flows[start : start + CHUNK_ROWS]))

    def _lines(self, flows: NDArray[Any]) -> bytes:
        for cache in (self._addresses, self._sides, self._outcomes):
            cache.shrink()
        four = flows["family"] == 4
        icmp = np.where(four, ICMP, ICMPV6) == flows["protocol"]
        columns = (
            [PROTOCOLS[number] for number in flows["protocol"].tolist()],
            _addresses(flows["initiator"], four),
            _addresses(flows["responder"], four),
            *(_where(flows["has_ports"], flows["ports"] >> shift & 0xFFFF) for shift in (16, 0)),
            *(_where(icmp, flows["icmp"] >> shift & 0xFF) for shift in (8, 0)),
            time_texts(flows["first_ns"]),
            time_texts(flows["last_ns"]),
            *(
                flows[name][:, end].tolist()
                for name in ("packets", "bytes", "instance", "rule", "side_end")
                for end in (0, 1)
            ),
            (flows["verdict"].astype(int) << 16 | flows["reason"].astype(int) << 8 | flows["answer"]).tolist(),
        )
        addresses, sides, outcomes = self._addresses, self._sides, self._outcomes
        lines = [
            f'{{"protocol": {protocol}, "initiator": {addresses[initiator]}, "initiator_port": {initiator_port}, '
            f'"responder": {addresses[responder]}, "responder_port": {responder_port}, '
            f'"icmp_type": {icmp_type}, "icmp_code": {icmp_code}, "first_time": "{first}", "last_time": "{last}", '
            f'"packets_from_initiator": {packets_there}, "packets_from_responder": {packets_back}, '
            f'"bytes_from_initiator": {bytes_there}, "bytes_from_responder": {bytes_back}, {outcomes[outcome]}, '
            f'"egress": {sides[egress, egress_rule, egress_end] if egress_end else "null"}, '
            f'"ingress": {sides[ingress, ingress_rule, ingress_end] if ingress_end else "null"}}}\n'
            for (
                protocol, initiator, responder, initiator_port, responder_port, icmp_type, icmp_code, first, last,
                packets_there, packets_back, bytes_there, bytes_back, egress, ingress, egress_rule, ingress_rule,
                egress_end, ingress_end, outcome,
            ) in zip(*columns, strict=True)
        ]  # fmt: skip
        return "".join(lines).encode("ascii")

    def _side(self, side: tuple[int, int, int]) -> str:
        number, rule, ended = side
        instance = dumps(self._names.instances[number]) if number >= 0 else "null"
        rule_id = dumps(self._names.rules[rule]) if rule >= 0 else "null"
        return f'{{"instance": {instance}, "rule": {rule_id}, "ended": "{ENDS[ended]}"}}'

    def _outcome(self, outcome: int) -> str:
        verdict, reason, answer = outcome >> 16, outcome >> 8 & 0xFF, outcome & 0xFF
        return f'"verdict": "{VERDICTS[verdict]}", "reason": "{REASONS[reason]}", "answer": "{ANSWERS[answer]}"'


def _addresses(field: NDArray[Any], four: NDArray[Any]) -> list[bytes]:
    """Each row's 16 bytes as the address's own 4 or 16."""
    packed: list[bytes] = field.copy().view("V16").reshape(-1).tolist()
    return [address[:4] if short else address for address, short in zip(packed, four.tolist(), strict=True)]


def _where(condition: NDArray[Any], values: NDArray[Any]) -> list[object]:
    """The values, ``null`` where the condition does not hold."""
    return [value if holds else "null" for value, holds in zip(values.tolist(), condition.tolist(), strict=True)]
