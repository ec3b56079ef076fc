"""The totals of a replay (SPEC 10.2, 10.7)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from sgfast.base.json_types import Absent, Answer, Keywords, at, one_of
from sgfast.core.base.reasons import REASON_TABLE
from sgfast.engine import PENDING, VERDICTS
from sgfast.policy.model import Action, Direction
from sgfast.policy.rule_text import rule_text
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.results import LISTED_CUTS, ConnectionWord
from sgfast.report.denial_reasons import Reasons
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.log_records import RecordsField
from sgfast.report.json.traffic import (
    FOLDED_BY,
    MOST_ROWS,
    DamagedField,
    Decapsulated,
    JsonLeft,
    JsonNearest,
    JsonReading,
    JsonTraffic,
    LeftOutField,
    nearest,
)
from sgfast.report.json.values import Byte, Count, JsonProtocol, JsonSeconds, Number, Port, Text, Time
from sgfast.report.rollup import NOT_SEEN, By, TrafficPart, rollup_of
from sgfast.report.rollup.uncertain import UncertainRollup

#: By field of the summary: the part whose rows it lists.
LISTS: tuple[tuple[str, TrafficPart], ...] = (
    ("would_break", "would-break"), ("denied", "denied"), ("cannot_tell", "cannot-tell"),
    ("unanswered", "unanswered"), ("allowed", "allowed"),
)  # fmt: skip
_VERDICTS = [*VERDICTS[:PENDING]]
_CONNECTIONS = [*get_args(ConnectionWord)]
# Denials after a cut are in no list.
_ROW_REASONS = [
    "rule", "established", "inferred", "refused", "silent", NOT_SEEN, "readings-differ",
    *(reason.word for reason in REASON_TABLE if reason.verdict == "deny" and reason.word != "disconnected"),
]  # fmt: skip


class JsonRow(JsonTraffic):
    connections: Annotated[Count, "In denied: the number of attempts that these packets began."]
    packets: Annotated[Count, "Number of denied packets; 0 for allowed traffic."]
    reason: Annotated[
        str, one_of(_ROW_REASONS),
        "The word of SPEC 10.3; established: another side knew the connection already. refused, silent: what the "
        "instance did, in unanswered; not-seen: an answer might not be in the captures; readings-differ: see readings.",
    ]  # fmt: skip
    direction: Annotated[Direction, "The filter that judged: inbound, the destination's; outbound, the source's."]
    rule: Annotated[str | None, "The rule that decided, if only one rule did."]
    nearest: Annotated[
        list[JsonNearest],
        "For no-rule: the rules that came nearest to allowing the row's largest kind of traffic; all equally near.",
    ]
    opener: Annotated[
        Literal["unknown"] | Absent,
        "With flow logs: either end may have opened all of these connections, with the same verdict. The row is the "
        "likelier reading.",
    ]


class JsonUncertainRow(JsonRow):
    readings: Annotated[
        list[JsonReading] | Absent,
        "With flow logs: either end may have opened these connections, and the verdict depends on it. The likelier "
        "reading is first; it is that of the row. They are in no other list.",
    ]


class JsonAddedRule(Answer):
    group: str
    rule: Annotated[str, "As a line of the group's rules in a policy document."]


class JsonRowRules(Answer):
    added: Annotated[list[JsonAddedRule], "The fewest rules that let the row through; empty if none does."]
    left_out: Annotated[list[str], "Why no rule lets a part of the row through."]


class JsonBrokenRow(JsonRow):
    rules: Annotated[JsonRowRules | Absent, "With --show-rules: the rules that would let the row through."]


class JsonNotListed(Answer):
    would_break: JsonLeft
    denied: JsonLeft
    cannot_tell: JsonLeft
    unanswered: JsonLeft
    allowed: JsonLeft


class JsonRuleHits(Answer):
    rule: Text = at("rule.id")
    group: Text
    text: Annotated[str, "The rule in words."] = at(lambda hits: rule_text(hits.rule))
    description: str = at("rule.description")
    connections: Count
    packets: Count
    bytes: Count


class JsonCut(Answer):
    protocol: JsonProtocol
    initiator: str
    initiator_port: Port | None
    responder: str
    responder_port: Port | None
    icmp_type: Byte | None
    icmp_code: Byte | None
    finished: Annotated[bool, "Whether it was already closed or reset when it was cut, but not yet forgotten."]
    packets_after: Count
    outcome: Annotated[
        Literal["back", "denied", "never"], "Whether the same addresses and ports were opened again, and allowed."
    ]
    time: Annotated[Time | None, "The time of the allowed opener, or else of the first denied one."] = at(
        "opener_time_ns"
    )
    turned: Annotated[bool, "Whether the other end opened it again."]
    egress_rule: Annotated[str | None, "The rule that allowed it again, on the sender's side."]
    ingress_rule: str | None


class JsonChange(Answer):
    time: Time = at("time_ns")
    change: Annotated[str, "The operation, and the object that it changes."] = at("text")
    disconnected: Count
    came_back: Annotated[
        Count | None,
        "Number of cut connections that an allowed packet opened again. Null: the reference engine does not follow "
        "them.",
    ]
    denied_again: Annotated[
        Count | None, "Number of cut connections whose openers were denied again, and that never came back."
    ]
    packets_after: Annotated[
        Count | None,
        "Packets of cut connections after the cut that open nothing. In reality they could only be retransmissions.",
    ]
    finished: Annotated[
        Count | None, "Number of cut connections that were closed or reset already, so that nothing was lost."
    ]
    connections: Annotated[
        list[JsonCut],
        Keywords(maxItems=LISTED_CUTS),
        f"The outcome of each cut connection, most packets after the cut first; at most {LISTED_CUTS} a change.",
    ]


class JsonContradicted(Answer):
    line: Number = at("expectation.line")
    name: str = at("expectation.name")
    expectation: str = at("expectation.text")
    verdict: Action = at("expectation.verdict")
    connections: Count


class JsonExpected(Answer):
    file: str = at("origin")
    meant: Annotated[Count, "Number of answered connections that are denied as expected (--expect)."]
    contradicted: Annotated[
        list[JsonContradicted], "Expectations, each with the number of connections that got another verdict."
    ]


class JsonStage(Answer):
    stage: Literal["index", "read", "judge", "gather"] = at("name")
    tasks: Count
    elapsed_seconds: Annotated[JsonSeconds, "Time from the stage's beginning to its end."]
    task_seconds: Annotated[JsonSeconds, "The sum of the times of the stage's tasks."]
    packets: Count
    bytes_moved: Annotated[Count, "Bytes written to the run's folder, or read from it."]


class JsonCluster(Answer):
    scheduler: Annotated[str, "The scheduler's address, or: local cluster."]
    workers: Count
    shards: Number
    segments_found: Annotated[
        Count, "Captures, or ranges of one, that an earlier replay with the same --resume had read."
    ]
    stages: list[JsonStage]


class JsonRejectedLeft(Answer):
    would_open: JsonLeft
    also_denied: JsonLeft


class JsonRejected(Answer):
    attempts: Annotated[Count, "Number of attempts. Retries are no new ones."]
    allowed: Annotated[Count, "Attempts that the policy allows: they would open."]
    denied: Annotated[Count, "Attempts that the policy denies, too."]
    would_open: Annotated[list[JsonRow], "The allowed ones, most first, folded as the lists above."]
    also_denied: Annotated[list[JsonRow], "The denied ones, most first."]
    not_listed: Annotated[JsonRejectedLeft, "The sums of the rows beyond --top, by list."]


class JsonActions(Answer):
    agreeing: Annotated[Count, "Connections and attempts on which cloud and policy agree."]
    disagreeing: Count
    accepted_allowed: Annotated[Count, "Connections that the cloud accepted and the policy allows."]
    accepted_denied: Count
    rejected_denied: Annotated[Count, "Attempts that the cloud rejected and the policy denies."]
    rejected_allowed: Count


class JsonReplay(Answer, published="summary", command="replay"):
    packets: Count
    bytes: Annotated[Count, "Original lengths on the wire."]
    left_out: LeftOutField
    verdicts: Annotated[dict[str, Count], Keywords(propertyNames=one_of(_VERDICTS), required=_VERDICTS)]
    reasons: Annotated[
        dict[str, Count],
        Keywords(propertyNames=one_of(reason.word for reason in REASON_TABLE)),
        "Packets by reason; only reasons that occurred.",
    ]
    connections: Annotated[
        dict[str, Count],
        Keywords(propertyNames=one_of(_CONNECTIONS), required=_CONNECTIONS),
        "Numbers of connections. A connection between two instances counts once.",
    ]
    rules: Annotated[list[JsonRuleHits], "Every rule, in document order; packets and bytes include replies."]
    by: Annotated[By, FOLDED_BY.format("the next five lists")]
    would_break: Annotated[list[JsonBrokenRow], "Denied connections that were answered, most first."]
    denied: Annotated[list[JsonRow], "Denied packets, most first, including those of would_break."]
    cannot_tell: Annotated[
        list[JsonUncertainRow],
        "Denied packets of which the captures cannot tell whether they were answered, and connections of which flow "
        "logs cannot tell who opened them.",
    ]
    unanswered: Annotated[
        list[JsonRow], "Connections that the groups allow and the instance refused, or never answered."
    ]
    allowed: Annotated[list[JsonRow], "Connections that the groups allow, without those of unanswered."]
    not_listed: Annotated[JsonNotListed, "The sums of the rows beyond --top, by list."]
    first_time: Time | None = at("first_time_ns")
    last_time: Time | None = at("last_time_ns")
    evidence: EvidenceField
    elapsed_seconds: Annotated[JsonSeconds, "Reading and judging, without start-up."]
    packets_per_second: JsonSeconds
    damaged: DamagedField
    warnings: list[str]
    changes: Annotated[
        list[JsonChange],
        "Changes of the policy (--changes) in the order they took effect; those after the last packet are not here.",
    ]
    changes_left: Annotated[Count, "Changes that would come after the last packet, and so took no effect."]
    expected: Annotated[JsonExpected | Absent, "With --expect: the connections compared with the expectations."]
    cluster: Annotated[JsonCluster | Absent, "Cluster that ran the replay (--dask), and the time of each stage."]
    decapsulated: Decapsulated | Absent
    records: RecordsField
    actions: Annotated[
        JsonActions | Absent, "With --compare-actions: the cloud's actions compared with the policy's verdicts."
    ]
    rejected: Annotated[
        JsonRejected | Absent, "With flow logs: attempts that the cloud rejected. Absent if there are none."
    ]


def replay_answer(
    result: ReplayResult, *, by: By = "group", top: int | None = None, with_rules: bool = False
) -> dict[str, Any]:
    """Return the JSON object. ``by``: how rows of the lists are folded. ``top``: the most rows of a list.
    ``with_rules``: whether rows of what would break have the rules that they lack. With the reference engine the lists
    are empty.
    """
    rollup, reasons = rollup_of(result), Reasons(result.policy)
    folded = {name: rollup.fold(part, by=by, most=top or MOST_ROWS) for name, part in LISTS}
    lists = {
        name: [JsonRow.of(row, nearest=nearest(row, reasons)) for row in rows.rows] for name, rows in folded.items()
    }
    if result.openers is not None and result.openers.differing:
        uncertain = UncertainRollup(result.policy, result.openers.differing)
        rows = uncertain.fold("cannot-tell", by=by, most=top or MOST_ROWS)
        lists["cannot_tell"] = [
            *(JsonUncertainRow.of(row, nearest=[], readings=uncertain.readings(row)) for row in rows.rows),
            *lists["cannot_tell"],
        ]
        folded["cannot_tell"] = rows.and_rows_of(folded["cannot_tell"])
    if with_rules:
        from sgfast.report.row_rules import RuleFinder

        finder = RuleFinder(result.policy, rollup)
        for row, answer in zip(folded["would_break"].rows, lists["would_break"], strict=True):
            row_rules = finder.of(row)
            added = [{"group": group, "rule": line} for group, line in row_rules.added]
            answer["rules"] = {"added": added, "left_out": [*row_rules.left_out]}
    return JsonReplay.of(
        result, by=by, **lists, not_listed=JsonNotListed.of(None, **folded), rejected=_rejected(result, by, top)
    )


def _rejected(result: ReplayResult, by: By, top: int | None) -> Any:
    if result.rejected is None:
        return None
    rollup, reasons = rollup_of(result.rejected), Reasons(result.rejected.policy)
    parts: dict[str, TrafficPart] = {"would_open": "allowed", "also_denied": "attempts"}
    folded = {name: rollup.fold(part, by=by, most=top or MOST_ROWS) for name, part in parts.items()}
    lists = {
        name: [JsonRow.of(row, nearest=nearest(row, reasons)) for row in rows.rows] for name, rows in folded.items()
    }
    allowed, denied = (result.rejected.connections[word] for word in ("opened", "denied"))
    return JsonRejected.of(
        result.rejected, attempts=allowed + denied, allowed=allowed, denied=denied, **lists,
        not_listed=JsonRejectedLeft.of(None, **folded),
    )  # fmt: skip
