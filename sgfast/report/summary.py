"""The totals of a replay as a JSON object (SPEC 10.2)."""

from __future__ import annotations

from typing import Any

from sgfast.capture import Damage
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import ClusterUsed, ReplayResult
from sgfast.report.amounts import time_text
from sgfast.report.answers import answers, expected_object
from sgfast.report.left_out import left_out_object
from sgfast.report.names import as_text
from sgfast.report.rollup import By


def damage_object(damage: Damage) -> dict[str, Any]:
    return {
        "file": as_text(damage.file),
        "offset": damage.offset,
        "packet": damage.packet,
        "cause": damage.cause,
    }


def _cluster_object(used: ClusterUsed) -> dict[str, Any]:
    return {
        "scheduler": used.scheduler,
        "workers": used.workers,
        "shards": used.shards,
        "segments_found": used.segments_found,
        "stages": [
            {
                "stage": stage.name,
                "tasks": stage.tasks,
                "elapsed_seconds": stage.elapsed_seconds,
                "task_seconds": stage.task_seconds,
                "packets": stage.packets,
                "bytes_moved": stage.bytes_moved,
            }
            for stage in used.stages
        ],
    }


def summary(result: ReplayResult, *, by: By = "group", top: int | None = None) -> dict[str, Any]:
    """Return the JSON object; its schema is ``report.schema("summary")``. ``by``, ``top``: how the lists of what would
    break, was denied or not answered are folded, and how many rows they have.
    """
    return {
        "packets": result.packets,
        "bytes": result.bytes,
        "left_out": left_out_object(result.left_out),
        "verdicts": dict(result.verdicts),
        "reasons": dict(result.reasons),
        "connections": dict(result.connections),
        "rules": [
            {
                "rule": hits.rule.id,
                "group": hits.group,
                "connections": hits.connections,
                "packets": hits.packets,
                "bytes": hits.bytes,
            }
            for hits in result.rules
        ],
        **answers(result, by, top),
        "first_time": None if result.first_time_ns is None else time_text(result.first_time_ns),
        "last_time": None if result.last_time_ns is None else time_text(result.last_time_ns),
        "elapsed_seconds": result.elapsed_seconds,
        "packets_per_second": result.packets_per_second,
        "damaged": None if result.damaged is None else damage_object(result.damaged),
        "warnings": list(result.warnings),
        "changes": [
            {
                "time": time_text(change.at_ns),
                "change": change.text,
                "disconnected": change.disconnected,
                "came_back": change.came_back,
                "denied_again": change.denied_again,
                "packets_after": change.packets_after,
                "finished": change.finished,
                "connections": [
                    {
                        "protocol": protocol_name(cut.protocol) or cut.protocol,
                        "initiator": cut.initiator,
                        "initiator_port": cut.initiator_port,
                        "responder": cut.responder,
                        "responder_port": cut.responder_port,
                        "icmp_type": cut.icmp_type,
                        "icmp_code": cut.icmp_code,
                        "finished": cut.finished,
                        "packets_after": cut.packets_after,
                        "outcome": cut.outcome,
                        "time": None if cut.again_ns is None else time_text(cut.again_ns),
                        "turned": cut.turned,
                        "egress_rule": cut.egress_rule,
                        "ingress_rule": cut.ingress_rule,
                    }
                    for cut in change.connections
                ],
            }
            for change in result.changes
        ],
        "changes_left": result.changes_left,
        **({} if result.expected is None else {"expected": expected_object(result.expected)}),
        **({} if result.cluster is None else {"cluster": _cluster_object(result.cluster)}),
        **({} if result.decapsulated is None else {"decapsulated": dict(result.decapsulated)}),
    }
