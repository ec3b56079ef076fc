"""Findings of a check, and the size of the compiled policy (SPEC 10.12)."""

from __future__ import annotations

from typing import Annotated, Any

from sgfast.base.json_types import Answer, Keywords, at
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Policy
from sgfast.policy.rule_text import peer_text, protocol_text, rule_text
from sgfast.questions.checking import CODES, CheckResult, Finding, Severity
from sgfast.questions.checking.codes import RuleUse
from sgfast.questions.replaying.removal import unseen_rules
from sgfast.report.check_traffic import folded_uses, used
from sgfast.report.json.evidence import JsonEvidence
from sgfast.report.json.log_records import RecordsField, UnseenRulesField
from sgfast.report.json.traffic import FOLDED_BY, MOST_ROWS, JsonDamage, JsonUse, LeftOutField
from sgfast.report.json.values import Byte, Count, File, Number, PortRange, ProviderId, TextOrNull, Time
from sgfast.report.rollup import By


class JsonAssumed(Answer):
    instance: str = at("name")
    address: str = at(lambda instance: str(instance.addresses[0].network_address))
    vpc: str
    groups: list[str] = at("security_groups")


class JsonWindow(Answer):
    captures: list[File]
    packets: Count
    left_out: LeftOutField
    first_time: Time | None = at("first_time_ns")
    last_time: Time | None = at("last_time_ns")
    damaged: JsonDamage | None
    records: RecordsField


class JsonNarrower(Answer):
    text: Annotated[str, "The rule as messages write it."] = at(rule_text)
    protocol: Annotated[str, "A protocol's name or number, or all."] = at(lambda rule: protocol_text(rule.protocol))
    ports: Annotated[list[PortRange] | None, "Inclusive ranges; null: all ports, or the protocol has none."]
    icmp_type: Byte | None
    icmp_code: Byte | None
    peer: Annotated[str, "A CIDR, group NAME or address group NAME."] = at(peer_text)


class JsonUsesLeft(Answer):
    """The sums of all other uses, including uses that there was no room to count separately."""

    rows: Count
    connections: Count


class JsonUses(Answer):
    rows: Annotated[list[JsonUse], "Up to 1,000 rows, or as many as --top says; rows with most connections first."]
    not_listed: JsonUsesLeft


class JsonRuleUse(Answer):
    group: str
    rule: str = at("rule.id")
    connections: Annotated[Count, "Connections that used the rule or its twin."]
    last_time: Annotated[Time, "The last packet of these connections."] = at("last_time_ns")
    used: Annotated[JsonUses, "Who used it, and for which service."]


class JsonCheckedTraffic(JsonWindow):
    rules: Annotated[list[JsonRuleUse], "The use of each rule that connections used, in document order."]
    by: Annotated[By, FOLDED_BY.format("who used a rule")]
    unseen_rules: UnseenRulesField


class JsonAcceptance(Answer):
    reason: str
    until: Annotated[str | None, "The last day, in UTC; null: no end."] = at(
        lambda acceptance: acceptance.until and acceptance.until.isoformat()
    )
    is_over: bool


class JsonFinding(Answer):
    code: Annotated[str, Keywords(pattern="^SG[0-9]{3}$"), "A code never changes its meaning."]
    name: Annotated[str, Keywords(pattern="^[a-z]+(-[a-z]+)*$")] = at(lambda finding: CODES[finding.code].name)
    severity: Severity
    message: str
    certain: Annotated[bool, "false: traffic that contradicts it may be missing in the captures, as evidence says."]
    group: str | None
    group_id: ProviderId
    rule: str | None
    address_group: str | None
    members: Annotated[Count | None, "Instances in the group; null: it is about no group."]
    used_connections: Annotated[
        Count | None, "Connections of the captures that used the rule; null: it is about no rule, or they cannot tell."
    ]
    in_baseline: Annotated[bool, "The baseline has the same finding, so that it does not count."]
    accepted: Annotated[
        JsonAcceptance | None, "Why the file of --accepted accepts it, so that it does not count until the day is over."
    ] = at("acceptance")
    instances: Annotated[list[str], "The first few."]
    instance_ids: Annotated[
        list[TextOrNull],
        "The provider's ids of these instances, as far as the policy has them beside the names.",
    ]
    instance_count: Count
    connections: Annotated[
        Number | None,
        "Number of connections that the finding is based on; null if it is not about allowed traffic.",
    ]
    instead: Annotated[
        list[JsonNarrower],
        "The rules that would allow these connections, with the direction and ethertype of the rule.",
    ]
    used: Annotated[JsonUses | None, "For SG015: the connections that used the rule; null for other findings."]
    file: File
    line: Number | None
    advice: Annotated[str, "What to do."] = at(lambda finding: CODES[finding.code].advice)


class JsonCheck(Answer, published="check"):
    groups: Count
    rules: Count
    instances: Count
    vpcs: Count
    address_classes: Annotated[Count, "Sets of addresses that no rule distinguishes."]
    port_classes: Annotated[Count, "Sets of protocols and ports that no rule distinguishes."]
    rule_tables: Count
    bit_vector_tables: Annotated[
        Count, "Rule tables that are stored as bit vectors, because they would be too large otherwise."
    ]
    bytes: Annotated[Count, "Memory of the compiled policy."] = at("nbytes")
    assumed: Annotated[list[JsonAssumed], "Instances that the policy has only because of --as-if-in."]
    warnings: list[str]
    findings: Annotated[list[JsonFinding], "The most severe first."]
    left_out: Annotated[
        list[str],
        "Checks that were skipped, because they would have taken too long or the captures cannot carry their findings.",
    ]
    evidence: Annotated[JsonEvidence, "How far captures and expectations can carry the findings that rest on them."]
    traffic: Annotated[
        JsonCheckedTraffic | None, "The captures of --traffic: the observation window of rules that were never hit."
    ]


def check_answer(checked: CheckResult, lines: Lines, *, by: By = "group", top: int | None = None) -> dict[str, Any]:
    """Return the JSON object. ``by``: how the connections that used a rule are folded. ``top``: the most rows of these
    connections in a finding.
    """
    policy = checked.policy
    return JsonCheck.of(
        checked.table_sizes, groups=len(policy.security_groups), vpcs=len(policy.vpcs), assumed=checked.assumed,
        warnings=checked.warnings, findings=[_finding(finding, policy, lines, by, top) for finding in checked.findings],
        left_out=checked.left_out, evidence=checked.evidence,
        traffic=None if checked.traffic is None else JsonCheckedTraffic.of(
            checked.traffic, by=by, rules=[_rule_use(policy, use, by, top) for use in checked.rule_uses],
            unseen_rules=None if checked.traffic.records is None else unseen_rules(checked.traffic),
        ),
    )  # fmt: skip


def _finding(finding: Finding, policy: Policy, lines: Lines, by: By, top: int | None) -> dict[str, Any]:
    group = policy.group_by_name.get(finding.group or "")
    return JsonFinding.of(
        finding, group_id=group and group.id, file=policy.origin, line=finding.line(lines),
        instance_ids=[policy.instance_by_name[name].id for name in finding.instances],
        used=_uses(policy, finding, by, top),
    )  # fmt: skip


def _rule_use(policy: Policy, use: RuleUse, by: By, top: int | None) -> dict[str, Any]:
    folded = folded_uses(policy, use.kinds, by, top or MOST_ROWS)
    unlisted_connections = use.connections - sum(row.connections for row in folded.rows)
    unlisted = JsonUsesLeft.of(None, rows=folded.unlisted_rows, connections=unlisted_connections)
    return JsonRuleUse.of(use, used=JsonUses.of(folded, not_listed=unlisted))


def _uses(policy: Policy, finding: Finding, by: By, top: int | None) -> dict[str, Any] | None:
    if finding.connections is None:
        return None
    folded = used(policy, finding, by, top or MOST_ROWS)
    unlisted_connections = finding.connections - sum(row.connections for row in folded.rows)
    unlisted = JsonUsesLeft.of(None, rows=folded.unlisted_rows, connections=unlisted_connections)
    return JsonUses.of(folded, not_listed=unlisted)
