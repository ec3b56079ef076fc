"""Find rules and settings of a valid policy that are wrong, superfluous or dangerous, as findings with stable codes.

    codes         the kinds of findings: severity, title, advice
    policy_index  the instances by their sets of groups, and the addresses that each VPC sees
    coverage      shadowed and redundant rules, wide rules that make narrow ones useless
    exposure      management and database ports that are open to everyone
    unused        unused groups and address groups, rules for nobody, rules that no packet used
    blocked       instances that no connection can be opened to or from
    isolation     members of one group that cannot reach each other
    membership    instances whose prefixes make others members of their groups
    ip_versions   services that are open over one IP version only
    unmet         expectations that the policy contradicts
    table_sizes   the sizes of the compiled policy
    result        the result, with the findings
    usage         rules that are much wider than the traffic that used them in captures
    tables        the findings as a table for pandas, polars and DuckDB

All work is bounded. Checks that would take too long are skipped and reported (``CheckResult.left_out``), and so are
findings that the captures cannot carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sgfast.base.evidence import SOUND, Evidence, ended
from sgfast.policy.model import Instance, Policy
from sgfast.questions.checking.blocked import blocked_instances
from sgfast.questions.checking.codes import (
    CODES,
    INSTANCE_CODES,
    NEVER_HIT,
    REDUNDANT,
    SEVERITIES,
    SHADOWED,
    TRAFFIC_CODES,
    Code,
    Finding,
    FindingCode,
    Severity,
)
from sgfast.questions.checking.coverage import Coverage
from sgfast.questions.checking.exposure import exposed
from sgfast.questions.checking.ip_versions import one_version_only
from sgfast.questions.checking.isolation import separated_members
from sgfast.questions.checking.membership import wide_members
from sgfast.questions.checking.policy_index import PolicyIndex
from sgfast.questions.checking.result import CheckResult
from sgfast.questions.checking.table_sizes import TableSizes, compile_for_check
from sgfast.questions.checking.unused import empty_sources, never_hit, unused
from sgfast.traffic.flow_logs.unlogged import UnseenRule, said_of_unlogged, said_of_unseen

if TYPE_CHECKING:
    from sgfast.questions.checking.codes import RuleUse
    from sgfast.questions.checking.usage import Uses
    from sgfast.questions.replaying import ReplayResult
    from sgfast.rules.reaching.proving import ExpectationsResult

__all__ = [
    "CODES", "INSTANCE_CODES", "SEVERITIES", "CheckResult", "Code", "Finding", "FindingCode", "Severity", "TableSizes",
    "check_policy",
]  # fmt: skip


def check_policy(
    policy: Policy, traffic: ReplayResult | None = None, uses: Uses | None = None,
    proof: ExpectationsResult | None = None, *, vpc: str | None = None, assumed: tuple[Instance, ...] = (),
) -> CheckResult:
    """Run all checks. ``traffic``: a replay of captures through this policy, and ``uses``, its sink of connections.
    ``proof``: the result of proving the policy's expectations. ``vpc``: the VPC as which tables are compiled.
    ``assumed``: instances that the policy has only for this check.
    """
    sizes, warnings = compile_for_check(policy, vpc)
    warnings += [] if traffic is None else traffic.warnings
    warnings += [] if proof is None else proof.warnings
    index = PolicyIndex(policy)
    coverage = Coverage(index)
    findings = coverage.findings()
    findings += exposed(index)
    findings += unused(index)
    empty, rules_left = empty_sources(index)
    separated, groups_left = separated_members(index)
    shadowed = {(finding.group, finding.rule) for finding in findings if finding.code == SHADOWED}
    versions, versions_left = one_version_only(index, shadowed)
    wide, prefixes_left = wide_members(index)
    findings += empty + blocked_instances(index, coverage) + separated + versions + wide
    proof_evidence = traffic_evidence = SOUND
    if proof is not None:
        from sgfast.questions.checking.unmet import unmet

        findings += unmet(proof)
        # The other findings do not rest on the expectations.
        proof_evidence = Evidence(tuple(replace(reason, level="partly") for reason in proof.evidence.reasons))
    rules_unread, unseen, withheld = 0, list[UnseenRule](), list[str]()
    if traffic is not None:
        from sgfast.questions.replaying.removal import evidence_for_removal

        traffic_evidence = evidence_for_removal(traffic)
        if traffic_evidence.conclusive == "no":
            withheld.append(_withheld(traffic_evidence))
        else:
            of_traffic, unseen, rules_unread = _from_traffic(traffic, uses)
            is_certain = traffic_evidence.carries("verdicts", "absence")
            findings += [replace(finding, certain=is_certain) for finding in of_traffic]
            withheld += said_of_unlogged(policy, traffic.records)
    withheld += said_of_unseen(policy, unseen)
    too_long = [
        f"{count:,} {text}"
        for count, text in (
            (coverage.skipped, "sets of rules were not compared, because they were too large or too many."),
            (rules_left, "rules were not checked for reachable members of the group they name."),
            (groups_left, "groups were not checked for members that can reach each other."),
            (prefixes_left, "prefixes were not checked for wider ones of other instances."),
            (versions_left, "rules were not checked for services that are open over one IP version only."),
            (rules_unread, "rules were not compared with what used them, as that came in too many ways."),
        )
        if count
    ]
    unused_rules = {finding.rule for finding in findings if finding.code == NEVER_HIT}
    if unused_rules:
        # Advice to remove a rule that was used, and the unused one which allows the same, would break what used it.
        findings = [
            finding for finding in findings
            if finding.code not in (SHADOWED, REDUNDANT) or finding.rule in unused_rules
            or not coverage.may_need(finding.rule, unused_rules)
        ]  # fmt: skip
    used_rules = _rule_uses(traffic, uses)
    connections_of_rule = {use.rule.id: use.connections for use in used_rules}
    # Where flow logs cannot tell whether a rule was used, it is not among these.
    connections_of_rule |= dict.fromkeys(map(str, unused_rules), 0)
    findings = [_with_numbers(finding, index, connections_of_rule) for finding in findings]
    rank = {severity: n for n, severity in enumerate(SEVERITIES)}
    place = {group.name: n for n, group in enumerate(policy.security_groups)}
    findings.sort(key=lambda f: (rank[f.severity], f.code, place.get(f.group or "", len(place))))
    return CheckResult(
        policy, sizes, tuple(findings), (*withheld, *too_long), tuple(dict.fromkeys(warnings)), assumed, traffic,
        traffic_evidence, proof_evidence, used_rules,
    )


def _with_numbers(finding: Finding, index: PolicyIndex, connections_of_rule: Mapping[str, int]) -> Finding:
    """Add to a finding how many instances are in its group, and how many connections used its rule.
    ``connections_of_rule``: by the rule's id, as far as the captures can tell.
    """
    members = None if finding.group is None else len(index.members[finding.group])
    return replace(finding, members=members, used_connections=connections_of_rule.get(finding.rule or ""))


def _rule_uses(traffic: ReplayResult | None, uses: Uses | None) -> tuple[RuleUse, ...]:
    if traffic is None or uses is None:
        return ()
    from sgfast.questions.checking.usage import rule_uses

    return rule_uses(traffic, uses)


def _from_traffic(traffic: ReplayResult, uses: Uses | None) -> tuple[list[Finding], list[UnseenRule], int]:
    """Return the findings that rest on captures, the unused rules that flow logs may not show, and the number of rules
    that were used in too many ways.
    """
    findings, unseen = never_hit(traffic)
    if uses is None:
        return findings, unseen, 0
    from sgfast.questions.checking.usage import wider_than_used

    wider, unread = wider_than_used(traffic, uses)
    return findings + wider, unseen, unread


def _withheld(evidence: Evidence) -> str:
    codes = " and ".join(f"{name} ({CODES[name].name})" for name in sorted(TRAFFIC_CODES))
    reason = ended(evidence.open_reasons[0].sentence)
    return f"Findings {codes} were left out, because the captures cannot carry them: {reason}"
