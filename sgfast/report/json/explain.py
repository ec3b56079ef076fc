"""Why a packet is allowed or denied (SPEC 10.13)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from sgfast.base.json_types import Answer, Keywords, at
from sgfast.policy.document_reader import Lines
from sgfast.policy.matching import End, RuleField, RuleInGroup
from sgfast.policy.model import Action, Direction
from sgfast.policy.rule_text import rule_text
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.values import Byte, File, JsonProtocol, Number, Port, ProviderId, TextOrNull
from sgfast.rules.reaching.explaining import ExplainedSide, Explanation, NearMiss


class JsonExplainedEnd(Answer):
    address: Annotated[str, str]
    instance: Annotated[str | None, "The instance that owns the address."] = at(lambda end: _owner(end, "name"))
    vpc: str | None = at(lambda end: _owner(end, "vpc"))
    id: ProviderId = at(lambda end: _owner(end, "id"))
    device: Annotated[TextOrNull, "The provider's id of the machine."] = at(lambda end: _owner(end, "device"))
    label: Annotated[TextOrNull, "The provider's name, if it is not the instance's name."] = at(
        lambda end: _owner(end, "label")
    )
    assumed: Annotated[bool, "The policy does not have the instance: --as-if-in assumes it."]


def _owner(end: End, field: str) -> Any:
    return None if end.instance is None else getattr(end.instance, field)


class JsonRule(Answer):
    rule: str = at("rule.id")
    group: str
    group_id: ProviderId
    action: Action = at("rule.action")
    priority: Annotated[int, Keywords(minimum=1, maximum=100)] = at("rule.priority")
    text: Annotated[str, "The rule in words."] = at(lambda group_rule: rule_text(group_rule.rule))
    line: Annotated[Number | None, "The rule's line in the policy's document."]


class JsonMisfit(Answer):
    field: RuleField
    wanted: str
    has: str
    why: TextOrNull


class JsonNearMiss(JsonRule):
    action: Literal["allow"] = at("rule.action")
    misfits: Annotated[list[JsonMisfit], Keywords(minItems=1)]


class JsonSide(Answer):
    """One instance's rules and their verdict; null if the end is no instance, or if no filter judges the packet."""

    instance: str = at("instance.name")
    direction: Direction
    groups: list[str] = at("instance.security_groups")
    reached: Annotated[
        bool, "Whether this filter judged the packet. If not, the other fields are the judgement it would have made."
    ]
    verdict: Action
    reason: Literal["rule", "no-rule", "deny-rule", "invalid", "infrastructure"]
    winner: JsonRule | None
    also_match: Annotated[list[JsonRule], "Other rules that match, in the order in which they would win."]
    nearest: Annotated[
        list[JsonNearMiss],
        "If no rule matches: the allow rules that fail on the fewest fields, in document order.",
    ]


class JsonExplain(Answer, published="explain"):
    policy: File = at("policy.origin")
    vpc: Annotated[str, "The VPC in which the addresses were looked up."]
    from_: JsonExplainedEnd
    to: JsonExplainedEnd
    protocol: JsonProtocol
    port: Annotated[Port | None, "The destination port."]
    sport: Annotated[Port | None, "The source port, if the question had one; no rule matches by it."]
    icmp_type: Byte | None
    icmp_code: Byte | None
    verdict: Annotated[
        Literal["allow", "deny", "out-of-scope", "local", "exempt", "cannot-tell"],
        "cannot-tell: the packet is allowed, unless an instance of a VPC that is not peered has the address of an end.",
    ]
    reason: Literal["rule", "no-rule", "deny-rule", "invalid", "vpc-isolated", "infrastructure"] | None
    note: Annotated[TextOrNull, "More details on the reason, as a sentence."]
    choices: Annotated[
        list[str],
        "Whether all packets get the same verdict if an end means several addresses, which addresses were taken where "
        "there was a choice, what was assumed, by which instance an end is in a group, and which instances of VPCs "
        "that are not peered have an end's address.",
    ]
    evidence: EvidenceField
    egress: JsonSide | None
    ingress: JsonSide | None


def explain_answer(explained: Explanation, lines: Lines) -> dict[str, Any]:
    """Return the JSON object. ``lines``: the line numbers of the document's rules, as far as they are known."""

    def end(explained_end: End) -> dict[str, Any]:
        return JsonExplainedEnd.of(explained_end, assumed=explained_end.instance in explained.assumed)

    def rule(explained_rule: RuleInGroup | NearMiss, kind: type[JsonRule] = JsonRule) -> dict[str, Any]:
        group = explained.policy.group_by_name[explained_rule.group]
        return kind.of(explained_rule, group_id=group.id, line=lines.get(("rules", explained_rule.rule.id)))

    def side(explained_side: ExplainedSide | None) -> dict[str, Any] | None:
        if explained_side is None:
            return None
        return JsonSide.of(
            explained_side,
            winner=None if explained_side.winner is None else rule(explained_side.winner),
            also_match=map(rule, explained_side.also_match),
            nearest=[rule(miss, JsonNearMiss) for miss in explained_side.nearest],
        )

    return JsonExplain.of(
        explained, from_=end(explained.source), to=end(explained.destination), egress=side(explained.egress),
        ingress=side(explained.ingress),
    )  # fmt: skip
