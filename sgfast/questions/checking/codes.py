"""The findings of ``sgfast check`` by code. A code never changes its meaning; new findings get new codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal

from sgfast.policy.matching import Kind
from sgfast.policy.model import Rule

#: The severity of a finding.
Severity = Literal["error", "warning", "note"]

#: The severities, most severe first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of finding: name, severity, title and advice."""

    name: str
    severity: Severity
    title: str
    advice: str


#: The code of a finding (SPEC 10.12).
FindingCode = Literal[
    "SG001", "SG002", "SG003", "SG004", "SG005", "SG006", "SG007", "SG008", "SG009", "SG010", "SG011", "SG012", "SG013",
    "SG014", "SG015", "SG016",
]  # fmt: skip

SHADOWED: Final = "SG001"
REDUNDANT: Final = "SG002"
WIDER: Final = "SG003"
EXPOSED: Final = "SG004"
UNUSED_GROUP: Final = "SG005"
UNUSED_ADDRESS_GROUP: Final = "SG006"
EMPTY_SOURCE: Final = "SG007"
NO_INBOUND: Final = "SG008"
NO_OUTBOUND: Final = "SG009"
NO_SELF_RULE: Final = "SG010"
ISOLATED_MEMBERS: Final = "SG011"
NEVER_HIT: Final = "SG012"
ONE_VERSION: Final = "SG013"
UNMET: Final = "SG014"
WIDER_THAN_USED: Final = "SG015"
WIDE_MEMBER: Final = "SG016"

CODES: dict[FindingCode, Code] = {
    SHADOWED: Code(
        "shadowed-rule", "warning", "a rule that never wins",
        "Remove it: without it, every packet has the same verdict. If it is meant to deny, it has to come before the "
        "rules that allow.",
    ),
    REDUNDANT: Code(
        "redundant-rule", "note", "a rule without which every verdict is the same",
        "Remove it, or make the other rules narrower. Of two equal rules, remove one and check again.",
    ),
    WIDER: Code(
        "wider-rule", "note", "a rule that makes narrower ones of the same purpose useless",
        "If the narrower rule is the intended one, remove the wider rule; otherwise remove the narrower one.",
    ),
    EXPOSED: Code(
        "open-to-everyone", "error", "management or database ports that are open to everyone",
        "As the source, name the networks, the address group or the security group that needs access.",
    ),
    UNUSED_GROUP: Code(
        "unused-group", "note", "a security group in which no instance is",
        "Remove it, or add the instances it is meant for.",
    ),
    UNUSED_ADDRESS_GROUP: Code(
        "unused-address-group", "note", "an address group that no rule names",
        "Remove it, or name it in the rules it is meant for.",
    ),
    EMPTY_SOURCE: Code(
        "empty-source", "warning", "a rule whose source or destination is nobody",
        "The rule matches nothing: name another group, or add members that the rule's instances can reach.",
    ),
    NO_INBOUND: Code(
        "no-inbound", "note", "instances that nobody can open a connection to",
        "This is fine for pure clients; otherwise add an inbound rule to one of their groups.",
    ),
    NO_OUTBOUND: Code(
        "no-outbound", "note", "instances that can open no connection",
        "Not even DNS, updates or NTP work: add an outbound rule to one of their groups if they should.",
    ),
    NO_SELF_RULE: Code(
        "no-self-rule", "note", "members of one group cannot reach each other: no inbound rule lets them in",
        "If they should, add an inbound rule whose source is the group itself.",
    ),
    ISOLATED_MEMBERS: Code(
        "isolated-members", "warning", "members of one group cannot reach each other: their VPCs are not peered",
        "Peer the VPCs, or use one group per VPC; between regions, name the other side's addresses as the source.",
    ),
    NEVER_HIT: Code(
        "never-hit", "note", "a rule that no packet of the captures used",
        "If the captures cover all that should work (backups, month ends, failovers), the rule may be superfluous. Of "
        "rules that overlap, the narrowest counts as used.",
    ),
    ONE_VERSION: Code(
        "one-ip-version", "note", "a service that is open over one IP version only, though the instances have both",
        "If it should work over both, add the same rule with the other ethertype: clients that try the version which "
        "is not open have to wait, or fail.",
    ),
    UNMET: Code(
        "unmet-expectation", "error", "what an expectations file contradicts",
        "Change the rule that decides, or the expectation if it is not what is meant.",
    ),
    WIDER_THAN_USED: Code(
        "wider-than-used", "note", "a rule that is much wider than all that used it in the captures",
        "Put the narrower rules in its place if nothing else should come this way. A capture shows only what happened "
        "while it ran: think of backups, month ends, failovers and other clients.",
    ),
    WIDE_MEMBER: Code(
        "wide-member", "warning", "an instance whose prefix makes other instances members of its groups",
        "Give it only the addresses that it needs, or put it into a group that no rule names.",
    ),
}  # fmt: skip

#: Codes about instances. In findings with other codes, ``instances`` are a group's members.
INSTANCE_CODES = frozenset((NO_INBOUND, NO_OUTBOUND, WIDE_MEMBER))
#: Codes of findings that rest on what did not occur in captures.
TRAFFIC_CODES: frozenset[FindingCode] = frozenset((NEVER_HIT, WIDER_THAN_USED))


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A user's decision to leave a finding as it is (SPEC 10.12).

    ``reason``: the user's reason.
    ``until``: the last day of the decision, in UTC; None: it has no end.
    ``is_over``: whether that day was over when the decision was read.
    """

    reason: str
    until: date | None
    is_over: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding and its location.

    ``code``: its code, which keeps its meaning.
    ``message``: one line without a full stop. Names in it are not escaped.
    ``group``: the name of the security group, if the finding is about one.
    ``rule``: the id of the rule, if the finding is about one.
    ``address_group``: the name of the address group, if the finding is about one.
    ``instances``: the first few of ``instance_count`` instances.
    ``instance_count``: the number of instances that the finding is about.
    ``connections``: the number of connections that the finding is based on; only with ``WIDER_THAN_USED``.
    ``instead``: rules that would allow these connections; only with ``WIDER_THAN_USED``.
    ``used``: the connections of the finding by kind, as far as there was room to count them separately.
    ``certain``: False: traffic that contradicts the finding may be missing in the captures (SPEC 10.27).
    ``members``: the number of instances in the group; None: the finding is about no group.
    ``used_connections``: the number of connections in the captures that used the rule; None: the finding is about no
    rule, or the captures cannot tell.
    ``in_baseline``: True: the baseline has the same finding.
    ``acceptance``: the decision of a user who accepts the finding; None: nobody does.
    """

    code: FindingCode
    message: str
    group: str | None = None
    rule: str | None = None
    address_group: str | None = None
    instances: tuple[str, ...] = ()
    instance_count: int = 0
    connections: int | None = None
    instead: tuple[Rule, ...] = ()
    used: Mapping[Kind, int] = field(default_factory=dict)
    certain: bool = True
    members: int | None = None
    used_connections: int | None = None
    in_baseline: bool = False
    acceptance: Acceptance | None = None

    @property
    def severity(self) -> Severity:
        """The severity of the code."""
        return CODES[self.code].severity

    @property
    def counts(self) -> bool:
        """True unless the baseline has the finding, too, or a user accepts it."""
        return not self.in_baseline and (self.acceptance is None or self.acceptance.is_over)

    @property
    def subject(self) -> str:
        """The name of the object that the finding is about."""
        if self.instances and self.code in INSTANCE_CODES:
            return self.instances[0]
        return self.rule or self.address_group or self.group or ""

    def line(self, lines: Mapping[tuple[str, str], int]) -> int | None:
        """Return the line of this object in the document, whose ``lines`` are by section and name; None: no line."""
        if self.rule is not None:
            section = "rules"
        elif self.address_group is not None:
            section = "address_groups"
        else:
            section = "instances" if self.instances and self.code in INSTANCE_CODES else "security_groups"
        return lines.get((section, self.subject))

    @property
    def sentence(self) -> str:
        """The message, which begins with ``Perhaps:`` if the finding is not certain."""
        return self.message if self.certain else f"Perhaps: {self.message}"


@dataclass(frozen=True, slots=True)
class RuleUse:
    """The use of a rule by the traffic of a check.

    ``rule``: the rule. Of two twins (SPEC 2.16), it is the first one.
    ``group``: the name of its security group.
    ``connections``: the number of connections that used the rule or its twin.
    ``last_time_ns``: the time of the last packet of these connections, in nanoseconds since the Unix epoch.
    ``kinds``: the number of these connections by kind, as far as there was room to count them separately.
    """

    rule: Rule
    group: str
    connections: int
    last_time_ns: int
    kinds: Mapping[Kind, int] = field(repr=False, default_factory=dict)
