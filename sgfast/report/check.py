"""What a policy compiled to, for ``sgfast check``: one JSON object."""

from __future__ import annotations

from typing import Any

from sgfast.compiler import CompiledPolicy


def check_summary(compiled: CompiledPolicy) -> dict[str, Any]:
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
        "warnings": list(policy.warnings),
    }
