"""Fold connections that were seen: those for which ``sgfast suggest`` makes no rule (SPEC 10.15), and those that used a
rule much wider than its use (SPEC 10.12).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.matching import Kind
from sgfast.policy.model import ICMP, ICMPV6, Policy
from sgfast.questions.replaying.kinds import KIND_DTYPE, NEVER, Kinds, Rows
from sgfast.report.rollup import By, Rollup, TrafficPart

if TYPE_CHECKING:
    from sgfast.questions.suggesting import TrafficTotals
    from sgfast.traffic.flow_logs.unsure_openers import UncertainConnections


class ObservedRollup(Rollup):
    """A roll-up with one part, "observed". Ends are named as in ``policy``."""

    def __init__(self, policy: Policy, kinds: Mapping[Kind, TrafficTotals]) -> None:
        super().__init__(policy, kinds_of_connections([*kinds.items()]))

    def _whole(self, kinds: Kinds) -> Rows:
        return kinds.rows

    def _counts(self, rows: Rows) -> dict[TrafficPart, dict[str, NDArray[np.int64]]]:
        return {"observed": {"": rows["connections"].astype(np.int64)}}

    def _columns(self, rows: Rows, by: By) -> list[NDArray[Any]]:
        return []


def kinds_of_connections(found: Sequence[tuple[Kind, TrafficTotals | UncertainConnections]]) -> Kinds:
    """Return a row for each kind of connection, in the same order."""
    rows = np.zeros(len(found), dtype=KIND_DTYPE)
    names: dict[str, int] = {}
    for row, (kind, evidence) in zip(rows, found, strict=True):
        inbound = kind.ingress is not None
        here, owner = (kind.ingress, kind.egress) if inbound else (kind.egress, None)
        row["instance"], row["owner"] = (
            -1 if name is None else names.setdefault(name, len(names)) for name in (here, owner)
        )
        peer = kind.initiator if inbound else kind.responder
        row["peer"][: len(peer)] = np.frombuffer(peer, dtype=np.uint8)
        row["inbound"], row["family"], row["protocol"], row["rule"] = inbound, kind.family, kind.protocol, -1
        if kind.port is not None:
            is_icmp = kind.protocol in (ICMP, ICMPV6)
            row["has_icmp"], row["has_ports"] = is_icmp, not is_icmp
            row["port_key"] = kind.port << 8 | (kind.code or 0) if is_icmp else kind.port
        for name in ("connections", "packets", "bytes"):
            row[name] = getattr(evidence, name)
        row["first_ns"] = NEVER[0] if evidence.first_time_ns is None else evidence.first_time_ns
        row["last_ns"] = NEVER[1] if evidence.last_time_ns is None else evidence.last_time_ns
    return Kinds(rows, [*names])
