"""Answers of an engine: verdicts, explanations, and the effects of a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sgfast.core.base.reasons import ReasonWord
from sgfast.notebook import AsJson, html_table, html_text
from sgfast.policy.matching import RuleField
from sgfast.policy.model import Action

#: The verdict on a packet (SPEC 10.2). ``pending``: a fragment waits for its datagram's first one (SPEC 9.4).
VerdictWord = Literal["allow", "deny", "moot", "out-of-scope", "local", "exempt", "not-ip", "pending"]


@dataclass(frozen=True, slots=True)
class Side(AsJson):
    """The verdict of one instance's filter on a packet (SPEC 10.3).

    ``instance``: the instance's name.
    ``verdict``: the filter's verdict.
    ``reason``: the filter's reason.
    ``rule``: the id of the rule that decided; None if no rule did.
    """

    instance: str
    verdict: Action
    reason: ReasonWord
    rule: str | None


@dataclass(frozen=True, slots=True)
class Verdict(AsJson):
    """The verdict on a packet (SPEC 10.3).

    ``verdict``: the verdict on the packet.
    ``reason``: its reason; None if no filter judged the packet.
    ``egress``: the judgement of the sender's filter; None if there is none or it did not judge the packet.
    ``ingress``: the judgement of the receiver's filter, or None.
    """

    verdict: VerdictWord
    reason: ReasonWord | None
    egress: Side | None = None
    ingress: Side | None = None

    @property
    def allowed(self) -> bool:
        """Whether the verdict is ``allow``."""
        return self.verdict == "allow"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One rule compared with an opener, for :meth:`Engine.explain`.

    ``rule``: the id of the rule.
    ``group``: the name of the security group.
    ``action``: ``allow`` or ``deny``.
    ``priority``: its priority. The lowest number is evaluated first.
    ``matches``: whether it matches the opener.
    ``differs``: the fields that do not match, with the words of ``sgfast explain``; empty if the rule matches.
    """

    rule: str
    group: str
    action: str
    priority: int
    matches: bool
    differs: tuple[RuleField, ...] = ()


@dataclass(frozen=True, slots=True)
class SideExplanation:
    """The judgement of an opener by one side's rules.

    ``instance``: the name of the instance.
    ``direction``: ``outbound`` for the sender's filter, ``inbound`` for the receiver's.
    ``groups``: the names of the instance's security groups.
    ``verdict``: the verdict of this filter.
    ``reason``: its reason.
    ``winner``: the id of the rule that decides; None if no rule matches: a denial (SPEC 4.8).
    ``candidates``: the rules in the order in which they are evaluated.
    """

    instance: str
    direction: str
    groups: tuple[str, ...]
    verdict: str
    reason: str
    winner: str | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The judgement of an opener by a policy, without regard to existing connections.

    ``verdict``: the verdict on the opener.
    ``reason``: its reason; None if no filter judges the opener.
    ``sides``: the judgement of each filter.
    """

    verdict: str
    reason: str | None
    sides: tuple[SideExplanation, ...]

    def __str__(self) -> str:
        lines = [self.verdict + (f" ({self.reason})" if self.reason else "")]
        for side in self.sides:
            lines.append(
                f"  {side.instance}, {side.direction}, groups {', '.join(side.groups)}: "
                f"{side.verdict} ({side.reason})" + (f" by {side.winner}" if side.winner else "")
            )
            for candidate in side.candidates:
                note = "matches" if candidate.matches else "other " + ", ".join(candidate.differs)
                lines.append(f"    {candidate.rule} [{candidate.action}, priority {candidate.priority}]: {note}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [(side.instance, side.direction, side.verdict, side.reason, side.winner) for side in self.sides]
        verdict = self.verdict + (f" ({self.reason})" if self.reason else "")
        return html_text(verdict) + html_table(("instance", "direction", "verdict", "reason", "rule"), rows)


@dataclass(frozen=True, slots=True)
class ApplyResult(AsJson):
    """The effect of a change (SPEC 6).

    ``disconnected``: the number of live connections that the change cut on at least one side: it disconnected them, or
    made the side forget them (SPEC 6.7). Connections between two instances count once.
    ``finished``: the number of these that had ended before, and were only remembered until their timeout (SPEC 6.12).
    ``rule_tables``: the number of rule tables in the new policy.
    ``rule_tables_built``: the number of these that had to be built.
    """

    disconnected: int
    finished: int
    rule_tables: int
    rule_tables_built: int
