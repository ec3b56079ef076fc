"""What ``sgfast check`` may find, by code. A code keeps its meaning for ever; new findings get new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]

#: The worst first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of finding: what it is called, how bad it is, what to do."""

    name: str
    severity: Severity
    title: str
    advice: str


SHADOWED, REDUNDANT, WIDER, EXPOSED = "SG001", "SG002", "SG003", "SG004"
UNUSED_GROUP, UNUSED_ADDRESS_GROUP, EMPTY_SOURCE = "SG005", "SG006", "SG007"
NO_INBOUND, NO_OUTBOUND = "SG008", "SG009"
NO_SELF_RULE, ISOLATED_MEMBERS = "SG010", "SG011"
NEVER_HIT = "SG012"

CODES: dict[str, Code] = {
    SHADOWED: Code(
        "shadowed-rule", "warning", "a rule that never wins",
        "For every packet it matches another rule wins: remove it, or give it a priority before the others.",
    ),
    REDUNDANT: Code(
        "redundant-rule", "note", "a rule without which every verdict is the same",
        "Remove it, or make the other rules narrower. Of two rules that say the same, remove one, and check again.",
    ),
    WIDER: Code(
        "wider-rule", "note", "a rule that makes narrower ones of the same purpose useless",
        "If the narrower rule says what is meant, remove the wider one; otherwise remove the narrower.",
    ),
    EXPOSED: Code(
        "open-to-everyone", "error", "management or database ports that are open to everyone",
        "Name the networks, the address group or the security group that needs them as the source.",
    ),
    UNUSED_GROUP: Code(
        "unused-group", "note", "a security group in which no instance is",
        "Remove it, or add the instances it is for.",
    ),
    UNUSED_ADDRESS_GROUP: Code(
        "unused-address-group", "note", "an address group that no rule names",
        "Remove it, or name it in the rules it is for.",
    ),
    EMPTY_SOURCE: Code(
        "empty-source", "warning", "a rule whose source or destination is nobody",
        "The rule matches nothing: name another group, or give the group members that the rule's instances can reach.",
    ),
    NO_INBOUND: Code(
        "no-inbound", "note", "instances that nobody can open a connection to",
        "Right for a pure client; otherwise add an inbound rule to one of their groups.",
    ),
    NO_OUTBOUND: Code(
        "no-outbound", "note", "instances that can open no connection",
        "Not even DNS, updates or the time get out: add an outbound rule to one of their groups if they should.",
    ),
    NO_SELF_RULE: Code(
        "no-self-rule", "note", "members of one group cannot reach each other: no inbound rule lets them in",
        "If they should, add an inbound rule whose source is the group itself.",
    ),
    ISOLATED_MEMBERS: Code(
        "isolated-members", "warning", "members of one group cannot reach each other: their VPCs are apart",
        "Peer the VPCs, or use a group for each; between regions, name the other side's addresses as the source.",
    ),
    NEVER_HIT: Code(
        "never-hit", "note", "a rule that no packet of the captures used",
        "If the captures cover all that should work (backups, month ends, failovers), the rule may be superfluous.",
    ),
}  # fmt: skip

#: Those that are about instances; the others with instances are about a group's members.
INSTANCE_CODES = frozenset((NO_INBOUND, NO_OUTBOUND))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found, and where."""

    code: str
    #: One line, without a full stop; names in it are not escaped.
    message: str
    group: str | None = None
    rule: str | None = None
    address_group: str | None = None
    #: The first few of ``instance_count``.
    instances: tuple[str, ...] = ()
    instance_count: int = 0

    @property
    def severity(self) -> Severity:
        return CODES[self.code].severity


#: Names that a message lists one by one.
LISTED = 5


def listed(names: list[str] | tuple[str, ...]) -> str:
    """``a, b and c``, or ``a, b, c, d, e and 7 more``."""
    shown = list(names[:LISTED])
    if len(names) > LISTED:
        return f"{', '.join(shown)} and {len(names) - LISTED:,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)
