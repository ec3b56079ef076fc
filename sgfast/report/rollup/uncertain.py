"""Fold connections of flow logs on which the verdict depends on who opened them (SPEC 10.30)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, Policy
from sgfast.questions.replaying import Service
from sgfast.questions.replaying.kinds import Kinds, Rows
from sgfast.report.names import protocol_word, service_name
from sgfast.report.rollup import By, Rollup, RollupRow, TrafficPart
from sgfast.report.rollup.ends import EndName
from sgfast.report.rollup.observed import kinds_of_connections
from sgfast.traffic.flow_logs.unsure_openers import Reading, UncertainConnections


@dataclass(frozen=True, slots=True)
class RowReading:
    """A row's traffic as one end opened it, and the verdict. The names are those of ``RollupRow``.

    ``rule``: the id of the rule that decided, if only one did.
    """

    source: EndName
    destination: EndName
    sources: int
    destinations: int
    service: str
    verdict: Literal["allow", "deny"]
    reason: str
    rule: str | None


class UncertainRollup(Rollup):
    """A roll-up with one part, "cannot-tell". Its rows are named by the likelier reading."""

    def __init__(self, policy: Policy, uncertain: Sequence[UncertainConnections]) -> None:
        self._uncertain = uncertain
        super().__init__(policy, kinds_of_connections([(counted.likelier.kind, counted) for counted in uncertain]))

    def _whole(self, kinds: Kinds) -> Rows:
        return kinds.rows

    def _counts(self, rows: Rows) -> dict[TrafficPart, dict[str, NDArray[np.int64]]]:
        return {"cannot-tell": {"readings-differ": rows["connections"].astype(np.int64)}}

    def _columns(self, rows: Rows, by: By) -> list[NDArray[Any]]:
        numbers: dict[tuple[str, ...], int] = {}
        readings = ((counted.likelier, counted.other.reason) for counted in self._uncertain)
        words = ((likelier.verdict, likelier.reason, other_reason) for likelier, other_reason in readings)
        return [np.array([numbers.setdefault(row_words, len(numbers)) for row_words in words], dtype=np.int64)]

    def readings(self, row: RollupRow) -> list[RowReading]:
        """Return both readings of a row, the likelier one first."""
        of_row = [self._uncertain[place] for place in row.places.tolist()]
        ports = {port for connections in of_row for port in connections.other_ports}
        service = _service_words({connections.other.protocol for connections in of_row}, ports)
        ends = row.source, row.destination, row.sources, row.destinations
        back = row.destination, row.source, row.destinations, row.sources
        return [
            RowReading(*ends, row.service, *_verdict([connections.likelier for connections in of_row])),
            RowReading(*back, service, *_verdict([connections.other for connections in of_row])),
        ]


def _verdict(readings: Sequence[Reading]) -> tuple[Literal["allow", "deny"], str, str | None]:
    rules = {reading.rule for reading in readings}
    return readings[0].verdict, readings[0].reason, rules.pop() if len(rules) == 1 else None


def _service_words(protocols: Iterable[int], ports: Iterable[int]) -> str:
    protocol, ports = next(iter(protocols)), [*ports]
    if protocol in PORT_PROTOCOLS:
        if len(ports) > 1:
            return f"{protocol_word(protocol)} ({len(ports):,} ports)"
        return service_name(Service("", protocol, ports[0], None, None))
    if protocol in (ICMP, ICMPV6):
        return service_name(Service("", protocol, None, ports[0] >> 8, ports[0] & 255))
    return protocol_word(protocol)
