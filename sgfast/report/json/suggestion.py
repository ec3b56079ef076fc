"""Suggested rules, and what they leave out (SPEC 10.15)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from sgfast.base.json_types import Answer, at
from sgfast.policy.model import Direction
from sgfast.policy.protocols import protocol_name
from sgfast.questions.suggesting import LeftOut, Suggestion
from sgfast.report.json.diff import JsonDifferenceRow
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.log_records import RecordsField, UnseenRulesField
from sgfast.report.json.traffic import (
    FOLDED_BY,
    MOST_ROWS,
    JsonExample,
    JsonLeft,
    JsonTraffic,
    LeftOutField,
)
from sgfast.report.json.values import Byte, Count, PortRange, Printable, ProviderId, Time
from sgfast.report.rollup import By
from sgfast.report.rollup.observed import ObservedRollup
from sgfast.report.suggestion import peer_name


class JsonTotals(Answer):
    connections: Count = at("evidence.connections")
    packets: Count = at("evidence.packets")
    bytes: Count = at("evidence.bytes")
    first_time: Time | None = at("evidence.first_time_ns")
    last_time: Time | None = at("evidence.last_time_ns")
    examples: list[str] = at("evidence.examples")


class _RuleHead(Answer):
    rule: str = at("rule.id")
    group: str
    group_id: ProviderId
    direction: Direction = at("rule.direction")
    ethertype: Literal["IPv4", "IPv6"] = at(lambda suggested: f"IPv{suggested.rule.ethertype}")
    protocol: str | int = at(lambda suggested: _protocol(suggested.rule.protocol))
    ports: Annotated[list[PortRange] | None, "Ranges, first and last port."] = at("rule.ports")
    icmp_type: Byte | None = at("rule.icmp_type")
    peer: Annotated[str, "A group's name, or a CIDR."] = at(lambda suggested: peer_name(suggested.rule))


def _protocol(number: int | None) -> str | int:
    return "all" if number is None else protocol_name(number) or number


class JsonSuggestedRule(JsonTotals, _RuleHead):
    note: Annotated[str | None, "Why the peer is an address, not a group; null if there is nothing to say."] = at(
        lambda suggested: suggested.note or None
    )
    denied_members: Annotated[
        list[str],
        "Instances in the rule's groups to which it allows what --policy denies, and what no connection needs.",
    ]


class JsonRemovedRule(_RuleHead):
    """A rule of the given policy that is taken away."""


class JsonSuggestedExample(JsonExample):
    packet: Annotated[None, "Not known for suggestions."]


class JsonObserved(JsonTraffic):
    """Source, destination and service of traffic, in the names of the suggested policy."""

    example: JsonSuggestedExample | None


class _LeftOutHead(Answer):
    reason: str


class JsonLeftOutTraffic(JsonTotals, _LeftOutHead):
    rows: Annotated[
        list[JsonObserved],
        "Rows with most connections first; empty if there was no room to count them separately.",
    ]
    not_listed: JsonLeft


class JsonReplayed(Answer):
    """The result of replaying the captures with the suggested policy."""

    claimed: Count
    allowed: Count
    also_allowed: Count
    matches: bool


class JsonSuggestion(Answer, published="suggestion", command="suggest"):
    captures: list[Printable]
    rules: Annotated[list[JsonSuggestedRule], "With --keep or --remove, the added rules alone."]
    kept: Annotated[Count | None, "With --keep or --remove, the number of rules of --policy that are still there."]
    removed: Annotated[list[JsonRemovedRule], "With --remove, the rules of --policy that no packet used."]
    groups: Count
    instances: Count
    by: Annotated[Literal["group", "instance", "address", "service"], FOLDED_BY.format("left_out")]
    left_out: Annotated[list[JsonLeftOutTraffic], "Connections for which no rule is suggested."]
    other_packets: Annotated[dict[str, Count], "Packets of no connection, by verdict or reason."]
    packets_left_out: LeftOutField
    check: JsonReplayed
    evidence: EvidenceField
    policy: Annotated[str, "The policy as YAML."] = at("text")
    damaged: Annotated[Printable | None, str]
    records: RecordsField
    unseen_rules: UnseenRulesField
    opened: Annotated[
        list[JsonDifferenceRow] | None,
        "With --policy: connections that may be opened under the suggested policy and not under --policy, by the rules "
        "alone, in the names of the suggested policy; null: without --policy, or if finding them would take too long.",
    ] = at(lambda suggestion: None if suggestion.difference is None else suggestion.difference.opened)
    warnings: list[str]


def suggestion_answer(suggestion: Suggestion, by: By = "group", top: int | None = None) -> dict[str, Any]:
    """Return the JSON object. ``by``: how left-out traffic is folded. ``top``: the most rows for a reason."""
    groups = suggestion.policy.group_by_name
    return JsonSuggestion.of(
        suggestion, by=by, groups=len(suggestion.policy.security_groups), instances=len(suggestion.policy.instances),
        rules=[JsonSuggestedRule.of(rule, group_id=groups[rule.group].id) for rule in suggestion.rules],
        removed=[JsonRemovedRule.of(rule, group_id=groups[rule.group].id) for rule in suggestion.removed],
        left_out=[_left_out_traffic(suggestion, excluded, by, top or MOST_ROWS) for excluded in suggestion.left_out],
    )  # fmt: skip


def _left_out_traffic(suggestion: Suggestion, excluded: LeftOut, by: By, most: int) -> dict[str, Any]:
    folded = ObservedRollup(suggestion.policy, excluded.kinds).fold("observed", by=by, most=most)
    return JsonLeftOutTraffic.of(excluded, rows=folded.rows, not_listed=folded)
