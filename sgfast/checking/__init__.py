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
    usage         rules that are much wider than the traffic that used them in captures

All work is bounded. Checks that would take too long are skipped and reported (``Checked.left_out``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgfast.checking.blocked import blocked_instances
from sgfast.checking.codes import CODES, INSTANCE_CODES, SEVERITIES, SHADOWED, Code, Finding, Severity
from sgfast.checking.coverage import Coverage
from sgfast.checking.exposure import exposed
from sgfast.checking.ip_versions import one_version_only
from sgfast.checking.isolation import separated_members
from sgfast.checking.membership import wide_members
from sgfast.checking.policy_index import PolicyIndex
from sgfast.checking.unused import empty_sources, never_hit, unused
from sgfast.errors import ArgumentError
from sgfast.policy.model import Policy

if TYPE_CHECKING:
    from sgfast.checking.usage import Uses
    from sgfast.reaching.proving import Proof
    from sgfast.replaying import ReplayResult

__all__ = ["CODES", "INSTANCE_CODES", "SEVERITIES", "Checked", "Code", "Finding", "Severity", "check_policy"]


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings, most severe first."""

    findings: tuple[Finding, ...]
    #: Checks that were skipped because they would have taken too long, as full sentences.
    left_out: tuple[str, ...]
    traffic: ReplayResult | None = None

    def matching(self, wanted: str) -> list[Finding]:
        """Return the findings with a code, or with at least a severity. Raises ArgumentError for another word."""
        if wanted in CODES:
            return [finding for finding in self.findings if finding.code == wanted]
        if wanted not in SEVERITIES:
            known = f"a severity ({', '.join(SEVERITIES)}) nor a code ({', '.join(CODES)})"
            raise ArgumentError(f"{wanted!r:.80} is neither {known}")
        worst = SEVERITIES[: SEVERITIES.index(wanted) + 1]
        return [finding for finding in self.findings if finding.severity in worst]


def check_policy(
    policy: Policy, traffic: ReplayResult | None = None, uses: Uses | None = None, proof: Proof | None = None
) -> Checked:
    """Run all checks. ``traffic``: a replay of captures through this policy, and ``uses``, its sink of connections.
    ``proof``: the result of proving the policy's expectations.
    """
    index = PolicyIndex(policy)
    coverage = Coverage(index)
    found = coverage.findings()
    found += exposed(index)
    found += unused(index)
    empty, rules_left = empty_sources(index)
    together, groups_left = separated_members(index)
    shadowed = {(finding.group, finding.rule) for finding in found if finding.code == SHADOWED}
    versions, versions_left = one_version_only(index, shadowed)
    wide, prefixes_left = wide_members(index)
    found += empty + blocked_instances(index, coverage) + together + versions + wide
    if traffic is not None:
        found += never_hit(traffic)
    if proof is not None:
        from sgfast.checking.unmet import unmet

        found += unmet(proof)
    rules_unread = 0
    if traffic is not None and uses is not None:
        from sgfast.checking.usage import wider_than_used

        wider, rules_unread = wider_than_used(traffic, uses)
        found += wider
    left_out = tuple(
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
    )
    rank = {severity: n for n, severity in enumerate(SEVERITIES)}
    place = {group.name: n for n, group in enumerate(policy.security_groups)}
    found.sort(key=lambda f: (rank[f.severity], f.code, place.get(f.group or "", len(place))))
    return Checked(tuple(found), left_out, traffic)
