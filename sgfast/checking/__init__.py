"""What is wrong, superfluous or dangerous in a policy that can be used: findings with stable codes.

    codes       what may be found, how bad it is, what to do
    index       the instances as rules see them: sets of groups, VPCs
    space       what rules can tell apart, as classes of addresses and services
    coverage    shadowed and redundant rules, wide ones that make narrow ones useless
    exposure    management and database ports that are open to everyone
    unused      groups and address groups nobody uses, rules about nobody
    silence     instances that nothing gets into, or out of
    together    members of one group that cannot talk to each other
    traffic     rules that no packet of some captures used

Everything is bounded: what would take too long is left out, and that is told (``Checked.left_out``).
"""

from __future__ import annotations

from dataclasses import dataclass

from sgfast.checking.blocked import blocked_instances
from sgfast.checking.codes import CODES, INSTANCE_CODES, SEVERITIES, Code, Finding, Severity
from sgfast.checking.coverage import Coverage
from sgfast.checking.exposure import exposed
from sgfast.checking.isolation import separated_members
from sgfast.checking.policy_index import PolicyIndex
from sgfast.checking.traffic import never_hit
from sgfast.checking.unused import empty_sources, unused
from sgfast.policy.model import Policy
from sgfast.replaying import ReplayResult

__all__ = [
    "CODES", "INSTANCE_CODES", "SEVERITIES", "Checked", "Code", "Finding", "Severity", "check_policy",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, the worst first."""

    findings: tuple[Finding, ...]
    #: What was not looked at because it would have taken too long; whole sentences.
    left_out: tuple[str, ...]
    traffic: ReplayResult | None = None

    def matching(self, wanted: str) -> list[Finding]:
        """The findings of a code, or of a severity or a worse one."""
        if wanted in CODES:
            return [finding for finding in self.findings if finding.code == wanted]
        worst = SEVERITIES[: SEVERITIES.index(wanted) + 1]
        return [finding for finding in self.findings if finding.severity in worst]


def check_policy(policy: Policy, traffic: ReplayResult | None = None) -> Checked:
    """Looks for everything there is a code for. ``traffic``: a replay of captures through this policy."""
    index = PolicyIndex(policy)
    coverage = Coverage(index)
    found = coverage.findings()
    found += exposed(index)
    found += unused(index)
    empty, rules_left = empty_sources(index)
    together, groups_left = separated_members(index)
    found += empty + blocked_instances(index, coverage) + together
    if traffic is not None:
        found += never_hit(traffic)
    left_out = tuple(
        f"{count:,} {text}"
        for count, text in (
            (coverage.skipped, "sets of rules were too large, or too many, to be compared with each other."),
            (rules_left, "rules were not asked whether their group has members that can be seen."),
            (groups_left, "groups were not asked whether their members can reach each other."),
        )
        if count
    )
    rank = {severity: n for n, severity in enumerate(SEVERITIES)}
    place = {group.name: n for n, group in enumerate(policy.security_groups)}
    found.sort(key=lambda f: (rank[f.severity], f.code, place.get(f.group or "", len(place))))
    return Checked(tuple(found), left_out, traffic)
