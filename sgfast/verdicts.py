"""Answers of an engine: verdicts, explanations, and the effects of a change."""

from __future__ import annotations

from dataclasses import dataclass

from sgfast.core.base.reasons import REASON_TABLE
from sgfast.notebook import html_table, html_text
from sgfast.policy.matching import RuleField

#: The words of verdicts and reasons, indexed by the numbers in results (SPEC 10.2, 10.3).
VERDICTS = ("allow", "deny", "moot", "out-of-scope", "local", "exempt", "not-ip", "pending")
REASONS = (None, *(reason.word for reason in REASON_TABLE))
#: The verdict of a fragment that came before its datagram's first fragment. ``Engine.resolved`` replaces it (SPEC 9.4).
PENDING = VERDICTS.index("pending")
#: A side's verdict if the side does not exist or the packet never reached it.
NO_SIDE = 255


@dataclass(frozen=True, slots=True)
class Side:
    """The verdict of one instance's filter on a packet (SPEC 10.3)."""

    instance: str
    verdict: str
    reason: str
    rule: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a packet (SPEC 10.3). ``egress`` or ``ingress`` is None if no filter on that side judged it."""

    verdict: str
    reason: str | None
    egress: Side | None = None
    ingress: Side | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict == "allow"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One rule compared with an opener, for :meth:`Engine.explain`."""

    rule: str
    group: str
    action: str
    priority: int
    matches: bool
    #: The fields that do not match, with the words of ``sgfast explain``; empty if the rule matches.
    differs: tuple[RuleField, ...] = ()


@dataclass(frozen=True, slots=True)
class SideExplanation:
    """The judgement of an opener by one side's rules. ``winner`` is None if no rule matches: a denial (SPEC 4.8)."""

    instance: str
    direction: str
    groups: tuple[str, ...]
    verdict: str
    reason: str
    winner: str | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The judgement of an opener by a policy, without regard to existing connections."""

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
class Applied:
    """The effect of a change (SPEC 6)."""

    #: The number of live connections that the change cut on at least one side: it disconnected them, or made the side
    #: forget them (SPEC 6.7). Connections between two instances count once.
    disconnected: int
    #: The number of these that had ended before, and were only remembered until their timeout (SPEC 6.12).
    finished: int
    #: The number of rule tables in the new policy, and how many of them had to be built.
    rule_tables: int
    rule_tables_built: int
