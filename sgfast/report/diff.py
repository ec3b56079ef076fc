"""A comparison of two policies as a JSON object, and the wording that its text reports share."""

from __future__ import annotations

from typing import Any

from sgfast.capture.names import printable
from sgfast.comparing import CHANGES, ChangedGroup, DiffResult, Example, Judgement, Others
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Rule
from sgfast.policy.protocols import protocol_name
from sgfast.report.left_out import left_out_object
from sgfast.report.page import grouped, plural
from sgfast.report.time_text import time_text

#: Maximum number of port ranges shown for a rule.
MAX_PORTS = 6


def diff_summary(result: DiffResult) -> dict[str, Any]:
    """Return the JSON object; its schema is ``report.schema("diff")``."""
    damage = result.damaged
    return {
        "old": _text(result.old.origin),
        "new": _text(result.new.origin),
        "captures": [_text(path) for path in result.captures],
        "mode": result.mode,
        "midstream": result.midstream,
        "vpc": result.vpc,
        "packets": result.packets,
        "bytes": result.bytes,
        "left_out": left_out_object(result.left_out),
        "verdicts": [
            {"old": old, "new": new, "packets": packets} for (old, new), packets in sorted(result.verdicts.items())
        ],
        **{
            change.replace("-", "_"): {
                **_counts(result.total(change)),
                "groups": [_group(result, group) for group in result.of(change)],
                "not_listed": _counts(result.others.get(change, Others(0, 0, 0, 0))),
            }
            for change in CHANGES
        },
        "rules": [
            {
                "rule": effect.rule, "group": effect.group, "group_id": _group_id(result, effect.group),
                "status": effect.status,
                "old": effect.old and rule_words(effect.old), "new": effect.new and rule_words(effect.new),
                "newly_denied": effect.newly_denied, "newly_allowed": effect.newly_allowed,
            }
            for effect in result.rules
        ],
        "moved": [
            {
                "old_rule": move.old_rule, "old_group": move.old_group, "new_rule": move.new_rule,
                "new_group": move.new_group, "connections": move.connections,
            }
            for move in result.moved
        ],
        "moved_not_listed": result.moved_others,
        "first_time": None if result.first_time_ns is None else time_text(result.first_time_ns),
        "last_time": None if result.last_time_ns is None else time_text(result.last_time_ns),
        "elapsed_seconds": result.elapsed_seconds,
        "packets_per_second": result.packets_per_second,
        "damaged": damage
        and {"file": _text(damage.file), "offset": damage.offset, "packet": damage.packet, "cause": damage.cause},
        "warnings": list(result.warnings),
        **({} if result.decapsulated is None else {"decapsulated": dict(result.decapsulated)}),
    }  # fmt: skip


def _text(name: str) -> str:
    """Escape the bytes of a file name that cannot be decoded."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _counts(row: ChangedGroup | Others) -> dict[str, int]:
    return {
        "connections": row.connections, "answered": row.answered, "packets": row.packets, "bytes": row.bytes,
    }  # fmt: skip


def _group_id(result: DiffResult, name: str) -> str | None:
    """The provider's id; that of the new policy where they differ."""
    groups = (policy.group_by_name.get(name) for policy in (result.new, result.old))
    return next((group.id for group in groups if group and group.id), None)


def _instance_id(result: DiffResult, name: str) -> str | None:
    """The provider's id; that of the new policy where they differ."""
    instances = (policy.instance_by_name.get(name) for policy in (result.new, result.old))
    return next((instance.id for instance in instances if instance and instance.id), None)


def _group(result: DiffResult, group: ChangedGroup) -> dict[str, Any]:
    service = group.service
    return {
        **_counts(group),
        "instance": service.instance,
        "instance_id": _instance_id(result, service.instance),
        "direction": group.direction,
        "protocol": protocol_name(service.protocol) or service.protocol,
        "port": service.port,
        "icmp_type": service.icmp_type,
        "icmp_code": service.icmp_code,
        "peer_groups": list(group.peer_groups),
        "peers": list(group.peers),
        "peer_count": group.peer_count,
        "old": _judgement(group.old, group.old_rule),
        "new": _judgement(group.new, group.new_rule),
        "first_time": time_text(group.first_time_ns),
        "last_time": time_text(group.last_time_ns),
        "examples": [
            {
                "packet": example.packet, "time": time_text(example.time_ns), "initiator": example.initiator,
                "initiator_port": example.initiator_port, "responder": example.responder,
                "responder_port": example.responder_port,
            }
            for example in group.examples
        ],
    }  # fmt: skip


def _judgement(judgement: Judgement, deciding: str | None) -> dict[str, Any]:
    return {
        "verdict": judgement.verdict, "reason": judgement.reason, "rule": deciding,
        "egress_rule": judgement.egress_rule, "ingress_rule": judgement.ingress_rule,
    }  # fmt: skip


# Wording -------------------------------------------------------------------------------------------------------------


def headline(result: DiffResult) -> str:
    """Summarise the result in one sentence, without a full stop."""
    denied, allowed = (result.total(change) for change in CHANGES)
    if not denied.connections and not allowed.connections:
        return "Nothing changes for this traffic" if result.packets else "No packets: nothing to compare"
    parts = []
    if denied.connections:
        parts.append(f"{plural(denied.connections, 'connection')} newly denied ({answered(denied)})")
    if allowed.connections:
        parts.append(f"{plural(allowed.connections, 'connection')} newly allowed ({answered(allowed)})")
    return ", ".join(parts)


def answered(counts: Others) -> str:
    if counts.answered == counts.connections:
        return "answered in the capture" if counts.connections == 1 else "all answered in the capture"
    return f"{grouped(counts.answered) if counts.answered else 'none'} answered in the capture"


def why(judgement: Judgement, rule: str | None) -> str:
    """Name what decided: ``web/inbound/2``, ``no-rule`` or ``out-of-scope``."""
    if rule is not None:
        name = printable(rule)
        return name if judgement.reason in ("rule", "deny-rule") else f"{name} ({judgement.reason})"
    return judgement.reason or judgement.verdict


def peers(group: ChangedGroup) -> str:
    """``from web (web-1, web-2)``, ``to 198.51.100.7``, ``from 1,234 addresses (...)``."""
    way = "from" if group.direction == "inbound" else "to"
    names = [printable(name) for name in group.peers]
    listed = ", ".join(names) + (", ..." if group.peer_count > len(names) else "")
    if group.peer_groups:
        return f"{way} {'+'.join(map(printable, group.peer_groups))} ({listed})"
    if group.peer_count == 1:
        return f"{way} {listed}"
    return f"{way} {grouped(group.peer_count)} addresses ({listed})"


def example_words(example: Example) -> str:
    ends = (example.initiator, example.initiator_port), (example.responder, example.responder_port)
    return f"packet {grouped(example.packet)}: " + " > ".join(
        address if port is None else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        for address, port in ends
    )


def rule_words(rule: Rule) -> str:
    """Describe a rule in one line: ``allow inbound IPv4 tcp 22,80-81 from 0.0.0.0/0, priority 2``."""
    parts: list[str] = [rule.action, rule.direction, f"IPv{rule.ethertype}"]
    protocol = rule.protocol
    parts.append("all" if protocol is None else protocol_name(protocol) or str(protocol))
    if rule.ports is not None:
        ports = [str(first) if first == last else f"{first}-{last}" for first, last in rule.ports]
        parts.append(",".join(ports[:MAX_PORTS]) + (",..." if len(ports) > MAX_PORTS else ""))
    if rule.icmp_type is not None:
        parts.append(f"type {rule.icmp_type}" + ("" if rule.icmp_code is None else f" code {rule.icmp_code}"))
    match rule.peer:
        case None:
            peer = "anywhere"
        case GroupPeer(name):
            peer = f"group {printable(name)}"
        case AddressGroupPeer(name):
            peer = f"address group {printable(name)}"
        case network:
            peer = str(network)
    text = f"{' '.join(parts)} {'from' if rule.direction == 'inbound' else 'to'} {peer}"
    return text if rule.priority == 1 else f"{text}, priority {rule.priority}"
