"""Rules that no packet of some captures used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgfast.checking.codes import NEVER_HIT, Finding
from sgfast.policy.rule_text import rule_text

if TYPE_CHECKING:
    from sgfast.replaying import ReplayResult


def never_hit(result: ReplayResult) -> list[Finding]:
    """Rules that a causal replay never used: packets after a denied opener use none (SPEC 9.2)."""
    packets = f"{result.packets:,} packet{'' if result.packets == 1 else 's'}"
    used = {(hits.group, hits.rule.id) for hits in result.rules if hits.packets or hits.connections}
    return [
        Finding(NEVER_HIT, f"{rule_text(rule)}: none of {packets} used it", group=group.name, rule=rule.id)
        for group in result.policy.security_groups
        for rule in group.rules
        if (group.name, rule.id) not in used
    ]
