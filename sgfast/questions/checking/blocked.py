"""Find instances to which no connection can be opened, or that can open none."""

from __future__ import annotations

from sgfast.base.names import LISTED, listed
from sgfast.policy.model import Direction, called
from sgfast.questions.checking.codes import NO_INBOUND, NO_OUTBOUND, Finding, FindingCode
from sgfast.questions.checking.coverage import Coverage
from sgfast.questions.checking.policy_index import PolicyIndex

_CODES: tuple[tuple[Direction, FindingCode, str], ...] = (
    ("inbound", NO_INBOUND, "lets anything in"), ("outbound", NO_OUTBOUND, "lets anything out"),
)  # fmt: skip


def blocked_instances(index: PolicyIndex, coverage: Coverage) -> list[Finding]:
    """Return one finding for each set of groups, direction and VPC. Only an instance's own address families count."""
    instances = index.policy.instances
    findings = []
    for direction, code, effect in _CODES:
        for context in index.contexts:
            families = {n: {network.version for network in instances[n].addresses} for n in context.instances}
            ends = {
                family: coverage.allowed_ends(context, direction, family)
                for family in sorted(set[int]().union(*families.values()))
            }
            # An instance cannot be the other end of its own connections.
            names = [
                instances[n].name
                for n, own_families in families.items()
                if all(ends[family] <= {n} for family in own_families)
            ]
            if names:
                groups = [index.policy.security_groups[g].name for g in context.groups]
                noun = "group" if len(groups) == 1 else "groups"
                of_instances = [called(index.policy.instance_by_name[name]) for name in names]
                of_groups = [called(index.policy.group_by_name[name]) for name in groups]
                message = f"{listed(of_instances)}: no rule of the {noun} {listed(of_groups)} {effect}"
                findings.append(
                    Finding(
                        code, message, group=groups[0], instances=tuple(names[:LISTED]), instance_count=len(names)
                    )
                )
    return findings
