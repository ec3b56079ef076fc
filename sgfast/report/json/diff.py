"""A comparison of two policies, by captures and by the rules alone (SPEC 10.14, 12.6)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from sgfast.base.json_types import Absent, Answer, Schema, at, one_of
from sgfast.core.base.reasons import REASON_TABLE
from sgfast.engine import PENDING, VERDICTS, Midstream, Mode
from sgfast.policy.gaps import FilterChange
from sgfast.policy.model import Action, Direction
from sgfast.policy.rule_text import rule_text
from sgfast.questions.comparing import NewVerdict, TrafficDiff
from sgfast.report.denial_reasons import Reasons
from sgfast.report.diff import blocking, blocking_verdict, passing_of, rule_words
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.log_records import RecordsField
from sgfast.report.json.reach import JsonReachRow
from sgfast.report.json.traffic import (
    FOLDED_BY,
    MOST_ROWS,
    DamagedField,
    Decapsulated,
    JsonEnd,
    JsonExample,
    JsonLeft,
    JsonNearest,
    JsonTraffic,
    JsonUncertain,
    LeftOutField,
    nearest,
    uncertain_answer,
)
from sgfast.report.json.values import Count, File, JsonSeconds, Number, ProviderId, Time
from sgfast.report.rollup import By, RollupRow
from sgfast.report.rollup.changed import ChangedRollup, changed_rollups
from sgfast.rules.reaching.difference import Difference

VerdictField = Annotated[str, one_of(VERDICTS[:PENDING])]
BlockingReason = Annotated[str, one_of(reason.word for reason in REASON_TABLE if reason.verdict != "allow")]


class JsonDecider(Answer):
    policy: Annotated[Literal["old", "new"], "The policy that has the rule."]
    group: str
    rule: str = at("rule.id")
    action: Action = at("rule.action")
    text: str = at(lambda decider: rule_text(decider.rule))


class JsonDifferenceRow(JsonReachRow):
    """Each of the sources may open connections to each of the destinations, for all of the services."""

    rules: Annotated[list[JsonDecider], "The rules that cause the difference."]


class JsonVerdicts(Answer):
    old: VerdictField
    new: VerdictField
    packets: Count


class JsonChangedEnd(JsonEnd):
    id: Annotated[ProviderId, "The provider's id of an instance, if the policy has it beside the name."]


class JsonChangedExample(JsonExample):
    packet: Annotated[
        Number | None, "Number of the first changed packet, from 1 across all captures; null: of flow logs."
    ]


class JsonJudgement(Answer):
    """A policy's judgement, by the filter that blocks under one of the policies."""

    verdict: VerdictField
    reason: Annotated[BlockingReason | None, "The reason for blocking; null: this policy does not block."]
    rule: Annotated[str | None, "The rule that decides, if only one rule does."]
    rules: Annotated[Count, "How many different rules decide."]


class JsonChangedRow(JsonTraffic):
    """Source, destination and service, and both policies' judgements. Names are those of the policy that blocks."""

    from_: JsonChangedEnd
    to: JsonChangedEnd
    first_time: Time
    last_time: Time
    example: Annotated[JsonChangedExample | None, "null: there was no room for addresses."]
    answered: Count
    direction: Annotated[Direction, "The filter that blocks: inbound, the destination's; outbound, the source's."]
    old: JsonJudgement
    new: JsonJudgement
    nearest: Annotated[
        list[JsonNearest],
        "For no-rule: the blocking policy's rules that came nearest to allowing the row's largest kind of "
        "traffic; all of them are equally near.",
    ]


class JsonChangedLeft(JsonLeft):
    """The sums of the rows beyond --top."""

    answered: Count = at("unlisted_answered")


class JsonChanged(Answer):
    connections: Count
    answered: Annotated[Count, "Number of these that were answered."]
    packets: Annotated[Count, "Packets of these connections that one policy blocks and the other lets pass."]
    bytes: Count
    rows: Annotated[
        list[JsonChangedRow], "Rows with most answered connections come first, then rows with most connections."
    ]
    not_listed: JsonChangedLeft


class JsonRuleEffect(Answer):
    rule: str
    group: str
    group_id: ProviderId
    status: Literal["removed", "added", "changed"]
    old: Annotated[str | None, rule_words, "The rule in words."]
    new: Annotated[str | None, rule_words]
    newly_denied: Count
    newly_allowed: Count


class JsonMoved(Answer):
    old_rule: str
    old_group: str
    new_rule: str
    new_group: str
    connections: Count


class JsonCaptureDiff(Answer):
    """A comparison by captures."""

    old: Annotated[File, "The file of the policy."] = at("old.origin")
    new: File = at("new.origin")
    captures: Annotated[list[File], "If empty, there are no fields about traffic."]
    mode: Mode
    midstream: Midstream
    vpc: str | None
    packets: Count
    bytes: Annotated[Count, "Original lengths on the wire."]
    left_out: LeftOutField
    verdicts: Annotated[list[JsonVerdicts], "Packets by both policies' verdicts."]
    by: Annotated[By, FOLDED_BY.format("the next two")]
    newly_denied: Annotated[
        JsonChanged,
        "Connections that pass under OLD (allowed, or judged by no filter) and are blocked by NEW (denied or moot).",
    ]
    newly_allowed: Annotated[JsonChanged, "Connections that are blocked by OLD and pass under NEW."]
    rules: Annotated[
        list[JsonRuleEffect], "Rules that differ between the policies and decided on such connections."
    ]
    moved: Annotated[list[JsonMoved], "Connections that both policies allow, but by different rules."]
    moved_not_listed: Count = at("moved_others")
    first_time: Time | None = at("first_time_ns")
    last_time: Time | None = at("last_time_ns")
    evidence: EvidenceField
    elapsed_seconds: JsonSeconds
    packets_per_second: JsonSeconds
    damaged: DamagedField
    warnings: list[str]
    decapsulated: Decapsulated | Absent
    records: RecordsField
    cannot_tell: Annotated[
        list[JsonUncertain] | Absent,
        "With flow logs: connections of which nobody can tell who opened them, and NEW's verdict depends on it. They "
        "are in no other list.",
    ]


class JsonUnreadFilter(Answer):
    """A filter in an export that sgfast does not read."""

    kind: Annotated[str, "Its type, as the export calls it."]
    name: str
    change: Annotated[FilterChange, "What becomes of it from OLD to NEW."]


class JsonDifference(Answer):
    """A comparison by the rules alone."""

    old: Annotated[File, "The file of the policy."] = at("old.origin")
    new: File = at("new.origin")
    opened: Annotated[
        list[JsonDifferenceRow],
        "Connections that may be opened under NEW and not under OLD, by the rules alone, in the names of NEW.",
    ]
    closed: Annotated[
        list[JsonDifferenceRow],
        "Connections that may be opened under OLD and not under NEW, by the rules alone, in the names of OLD.",
    ]
    not_compared: Annotated[
        str | None, "Why the rules were not compared, so that opened and closed are empty; null: they were compared."
    ] = at(lambda diff: diff.not_compared or None)
    unread_filters: Annotated[
        list[JsonUnreadFilter],
        "Filters of the exports that are not read, so that opened and closed do not count them. Those that change "
        "come first.",
    ]
    evidence: EvidenceField


class JsonDiff(JsonDifference, JsonCaptureDiff, published="diff"):
    @classmethod
    def _object_schema(cls, definitions: dict[str, Schema]) -> Schema:
        """Return the schema, which requires fields about traffic only if there are captures."""
        schema = super()._object_schema(definitions)
        of_rules = JsonDifference._object_schema({})["required"]
        always = [name for name in schema["required"] if name in (*of_rules, "captures", "warnings")]
        of_traffic = [name for name in schema["required"] if name not in always]
        has_captures = {"properties": {"captures": {"minItems": 1}}}
        return {**schema, "required": always, "if": has_captures, "then": {"required": of_traffic}}


def diff_answer(
    found: Difference, result: TrafficDiff | None, warnings: list[str], by: By = "group", top: int | None = None
) -> dict[str, Any]:
    """Return the JSON object. ``result``: the comparison by captures, if there are any. ``by``: how its rows are
    folded. ``top``: the most rows of a kind.
    """
    traffic = {"captures": []} if result is None else capture_diff(result, by, top)
    # The evidence of the traffic has the reasons of the rules, too.
    evidence = {"evidence": traffic["evidence"]} if result is not None else {}
    return {**traffic, **JsonDifference.of(found), **evidence, "warnings": warnings}


def capture_diff(result: TrafficDiff, by: By = "group", top: int | None = None) -> dict[str, Any]:
    """Return the fields of the JSON object that are about captures."""
    pairs = sorted(result.verdicts.items())
    changed = {
        verdict.replace("-", "_"): _changed(result, verdict, rollup, by, top or MOST_ROWS)
        for verdict, rollup in changed_rollups(result).items()
    }
    return JsonCaptureDiff.of(
        result, by=by, **changed, cannot_tell=uncertain_answer(result.new, result.openers, by, top or MOST_ROWS),
        verdicts=[JsonVerdicts.of(None, old=old, new=new, packets=packets) for (old, new), packets in pairs],
        rules=[JsonRuleEffect.of(effect, group_id=_group_id(result, effect.group)) for effect in result.rules],
    )  # fmt: skip


def _changed(result: TrafficDiff, verdict: NewVerdict, rollup: ChangedRollup, by: By, most: int) -> dict[str, Any]:
    folded, reasons = rollup.fold(verdict, by=by, most=most), Reasons(blocking(result, verdict))
    rows = [_row(result, verdict, row, reasons) for row in folded.rows]
    return JsonChanged.of(result.total(verdict), rows=rows, not_listed=folded)


def _row(result: TrafficDiff, verdict: NewVerdict, row: RollupRow, reasons: Reasons) -> dict[str, Any]:
    ends = [
        JsonChangedEnd.of(end, ends=number, id=_instance_id(result, end.text) if end.kind == "instance" else None)
        for end, number in ((row.source, row.sources), (row.destination, row.destinations))
    ]
    blocked = JsonJudgement.of(row, verdict=blocking_verdict(row))
    passed = JsonJudgement.of(passing_of(row), reason=None)
    old, new = (passed, blocked) if verdict == "newly-denied" else (blocked, passed)
    return JsonChangedRow.of(row, from_=ends[0], to=ends[1], old=old, new=new, nearest=nearest(row, reasons))


def _group_id(result: TrafficDiff, name: str) -> str | None:
    """Return the provider's id of a group; if the policies differ, the new policy's."""
    groups = (policy.group_by_name.get(name) for policy in (result.new, result.old))
    return next((group.id for group in groups if group and group.id), None)


def _instance_id(result: TrafficDiff, name: str) -> str | None:
    """Return the provider's id of an instance; if the policies differ, the new policy's."""
    instances = (policy.instance_by_name.get(name) for policy in (result.new, result.old))
    return next((instance.id for instance in instances if instance and instance.id), None)
