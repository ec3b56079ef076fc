"""What a policy compiled to, for ``sgfast check``: one JSON object."""

from __future__ import annotations

from typing import Any

from sgfast.compiler import CompiledPolicy, compile_policy
from sgfast.errors import AmbiguousAddress
from sgfast.policy.model import Policy


def compile_for_check(policy: Policy, vpc: str | None) -> tuple[CompiledPolicy, list[str]]:
    """The compiled policy and what to warn of.

    VPCs that use the same addresses are no error of a document, only of a replay that does not say which VPC it sees
    (SPEC 7.1): then the largest of the views is what gets compiled.
    """
    warnings = list(policy.warnings)
    try:
        return compile_policy(policy, vpc), warnings
    except AmbiguousAddress as ambiguous:
        views = [] if vpc is not None else [view for v in policy.vpcs if (view := _view(policy, v.name)) is not None]
        if not views:
            raise
        warnings.append(f"{str(ambiguous).removeprefix(policy.origin + ': ')}; compiled as its largest VPC sees it")
        return max(views, key=lambda view: view.nbytes), warnings


def _view(policy: Policy, vpc: str) -> CompiledPolicy | None:
    try:
        return compile_policy(policy, vpc)
    except AmbiguousAddress:
        return None


def check_summary(compiled: CompiledPolicy, warnings: list[str]) -> dict[str, Any]:
    """Ready for ``json.dumps``; the schema is ``report.schema("check")``. ``bytes`` is the tables' memory."""
    policy = compiled.policy
    return {
        "groups": len(policy.security_groups),
        "rules": len(compiled.rules),
        "instances": len(compiled.instances),
        "vpcs": len(policy.vpcs),
        "address_classes": compiled.address_classes,
        "port_classes": compiled.port_classes,
        "rule_tables": compiled.rule_tables,
        "bit_vector_tables": compiled.bit_vector_tables,
        "bytes": compiled.nbytes,
        "warnings": warnings,
    }
