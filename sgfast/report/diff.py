"""A comparison of two policies as a JSON object, and the wording that its text reports share."""

from __future__ import annotations

from typing import Any

from sgfast.capture.names import printable
from sgfast.comparing import CHANGES, Change, Counts, DiffResult
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.policy.protocols import protocol_name
from sgfast.report.answers import MOST_ROWS, counted_object, left_object, nearest_object
from sgfast.report.left_out import left_out_object
from sgfast.report.page import grouped, plural
from sgfast.report.rollup import By, Passing, Row
from sgfast.report.rollup.changed import ChangedRollup, changed_rollups
from sgfast.report.time_text import time_text
from sgfast.report.why import Reasons

#: Maximum number of port ranges shown for a rule.
MAX_PORTS = 6


def diff_summary(result: DiffResult, by: By = "group", top: int | None = None) -> dict[str, Any]:
    """Return the JSON object; its schema is ``report.schema("diff")``. ``by``: how rows are folded. ``top``: how many
    rows of a kind it has.
    """
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
        "by": by,
        **{
            change.replace("-", "_"): _changed_object(result, change, rollup, by, top or MOST_ROWS)
            for change, rollup in changed_rollups(result).items()
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


def _changed_object(
    result: DiffResult, change: Change, rollup: ChangedRollup, by: By, most: int
) -> dict[str, Any]:
    folded = rollup.fold(change, by=by, most=most, fitting=False)
    total, reasons = result.total(change), Reasons(blocking(result, change))
    return {
        "connections": total.connections, "answered": total.answered, "packets": total.packets, "bytes": total.bytes,
        "rows": [_row(result, change, row, reasons) for row in folded.rows],
        "not_listed": {**left_object(folded), "answered": folded.left_answered},
    }  # fmt: skip


def _row(result: DiffResult, change: Change, row: Row, reasons: Reasons) -> dict[str, Any]:
    made = counted_object(row)
    for end in (made["from"], made["to"]):
        end["id"] = _instance_id(result, end["name"]) if end["kind"] == "instance" else None
    passing, near = passing_of(row), nearest_object(row, reasons)
    blocked = {"verdict": blocking_verdict(row), "reason": row.reason, "rule": row.rule, "rules": row.rules}
    passed = {"verdict": passing.verdict, "reason": None, "rule": passing.rule, "rules": passing.rules}
    old, new = (passed, blocked) if change == "newly-denied" else (blocked, passed)
    return {
        **made, "answered": row.answered, "direction": row.direction, "old": old, "new": new, "nearest": near,
    }  # fmt: skip


def _group_id(result: DiffResult, name: str) -> str | None:
    """The provider's id; that of the new policy where they differ."""
    groups = (policy.group_by_name.get(name) for policy in (result.new, result.old))
    return next((group.id for group in groups if group and group.id), None)


def _instance_id(result: DiffResult, name: str) -> str | None:
    """The provider's id; that of the new policy where they differ."""
    instances = (policy.instance_by_name.get(name) for policy in (result.new, result.old))
    return next((instance.id for instance in instances if instance and instance.id), None)


def passing_of(row: Row) -> Passing:
    assert row.passing is not None
    return row.passing


def blocking_verdict(row: Row) -> str:
    return "moot" if row.reason == "opener-denied" else "deny"


def blocking(result: DiffResult, change: Change) -> Policy:
    """The policy that blocks connections with this change."""
    return result.new if change == "newly-denied" else result.old


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


def answered(counts: Counts) -> str:
    if counts.answered == counts.connections:
        return "answered in the capture" if counts.connections == 1 else "all answered in the capture"
    return f"{grouped(counts.answered) if counts.answered else 'none'} answered in the capture"


def judgements(row: Row, change: Change) -> tuple[str, str]:
    """What OLD and NEW do, and why: ``allow: web/inbound/2``, ``deny: no-rule``, ``allow: 3 rules``."""
    passing = passing_of(row)
    by, through = _rules(row.rule, row.rules), _rules(passing.rule, passing.rules)
    blocked = f"{blocking_verdict(row)}: {row.reason}{by and f' {by}'}"
    passed = passing.verdict + (through and f": {through}")
    return (passed, blocked) if change == "newly-denied" else (blocked, passed)


def _rules(rule: str | None, rules: int) -> str:
    return printable(rule) if rule is not None else plural(rules, "rule") if rules else ""


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
