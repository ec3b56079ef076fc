"""JSON rows of what would break, what was denied and what was not answered (SPEC 10.2, 10.7)."""

from __future__ import annotations

from typing import Any

from sgfast.policy.protocols import protocol_name
from sgfast.replaying import ReplayResult
from sgfast.replaying.results import Expected
from sgfast.report.amounts import time_text
from sgfast.report.rollup import By, Example, Folded, Part, Rollup, Row
from sgfast.report.rollup.ends import Name
from sgfast.report.why import Reasons

#: The fields of the summary, and the parts that they list.
LISTS: tuple[tuple[str, Part], ...] = (
    ("would_break", "would-break"), ("denied", "denied"), ("unanswered", "unanswered"), ("allowed", "allowed"),
)  # fmt: skip
#: Default limit of the rows of each list. More are for ``--connections``.
MOST_ROWS = 1000


def answers(result: ReplayResult, by: By, top: int | None) -> dict[str, Any]:
    """The lists, each folded ``by`` the same, and what they leave out. With the reference engine they are empty."""
    rollup, reasons = Rollup(result.policy, result.kinds), Reasons(result.policy)
    folded = {name: rollup.fold(part, by=by, most=top or MOST_ROWS, fitting=False) for name, part in LISTS}
    lists: dict[str, Any] = {name: [row_object(row, reasons) for row in each.rows] for name, each in folded.items()}
    return {"by": by, **lists, "not_listed": {name: left_object(each) for name, each in folded.items()}}


def expected_object(expected: Expected) -> dict[str, Any]:
    return {
        "file": expected.origin,
        "meant": expected.meant,
        "contradicted": [
            {
                "line": each.expectation.line,
                "name": each.expectation.name,
                "expectation": each.expectation.text,
                "verdict": each.expectation.verdict,
                "connections": each.connections,
            }
            for each in expected.contradicted
        ],
    }


def left_object(folded: Folded) -> dict[str, int]:
    return {
        "rows": folded.left_rows, "connections": folded.left_connections, "packets": folded.left_packets
    }  # fmt: skip


def row_object(row: Row, reasons: Reasons) -> dict[str, Any]:
    return {
        **counted_object(row),
        "reason": row.reason,
        "direction": row.direction,
        "rule": row.rule,
        "nearest": nearest_object(row, reasons),
    }


def nearest_object(row: Row, reasons: Reasons) -> list[dict[str, Any]]:
    near = reasons.nearest_rules(row.kind) if row.kind is not None else []
    return [{"rule": rule, "differs": differs} for rule, differs in near]


def counted_object(row: Row) -> dict[str, Any]:
    """Who reaches whom with which service, and how much it is."""
    return {
        "from": _end(row.source, row.sources),
        "to": _end(row.destination, row.destinations),
        "service": row.service,
        "connections": row.connections,
        "packets": row.packets,
        "bytes": row.bytes,
        "first_time": None if row.first_ns is None else time_text(row.first_ns),
        "last_time": None if row.last_ns is None else time_text(row.last_ns),
        "example": None if row.example is None else _example(row.example),
    }


def _end(name: Name, number: int) -> dict[str, Any]:
    return {"name": name.text, "kind": name.kind, "ends": number}


def _example(example: Example) -> dict[str, Any]:
    service = example.service
    return {
        "packet": example.packet or None,
        "time": time_text(example.time_ns),
        "from": example.source,
        "to": example.destination,
        "protocol": protocol_name(service.protocol) or service.protocol,
        "port": service.port,
        "icmp_type": service.icmp_type,
        "icmp_code": service.icmp_code,
    }
