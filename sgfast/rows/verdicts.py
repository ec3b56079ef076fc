"""Answers of an engine: verdicts, and the effects of a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from sgfast.base.notebook import AsJson
from sgfast.core.base.reasons import REASON_TABLE, ReasonWord
from sgfast.policy.model import Action, Infrastructure, Instance, Rule

#: The verdict on a packet (SPEC 10.2). ``pending``: a fragment waits for its datagram's first one (SPEC 9.4).
VerdictWord = Literal["allow", "deny", "moot", "out-of-scope", "local", "exempt", "not-ip", "pending"]

#: The words of verdicts, indexed by the numbers in results (SPEC 10.2).
VERDICTS: tuple[VerdictWord, ...] = get_args(VerdictWord)
#: The words of reasons, indexed by the numbers in results (SPEC 10.3).
REASONS: tuple[ReasonWord | None, ...] = (None, *(reason.word for reason in REASON_TABLE))
#: The verdict of a fragment that came before its datagram's first fragment. ``Engine.resolved`` replaces it (SPEC 9.4).
PENDING = VERDICTS.index("pending")
#: A side's verdict if the side does not exist or the packet never reached it.
NO_SIDE = 255
#: The values of ``settings.infrastructure``, indexed by the data plane's numbers for them.
INFRASTRUCTURES: tuple[Infrastructure, ...] = ("filtered", "exempt", "by-role")
#: True for mypy, and for no other type checker.
MYPY = False


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

    if not MYPY:
        # Because of this return type, pyright refuses a verdict as a condition. mypy would not, and would check nothing
        # after it: without the method, its check truthy-bool refuses the condition.
        def __bool__(self) -> NoReturn:
            """Raise TypeError: a denial would count as true, too."""
            advice = f"ask for .allowed, or for .verdict ({self.verdict!r})"
            raise TypeError(f"a Verdict is neither true nor false: {advice}")


@dataclass(frozen=True, slots=True)
class ApplyResult(AsJson):
    """The effect of a change (SPEC 6).

    ``disconnected``: the number of live connections that the change cut on at least one side: it disconnected them, or
    made the side forget them (SPEC 6.7). Connections between two instances count once. Connections of instances and
    addresses that a change removes are forgotten without being counted (SPEC 6.6); :meth:`Engine.events` tells of them.
    ``finished``: the number of these that had ended before, and were only remembered until their timeout (SPEC 6.12).
    ``rule_tables``: the number of rule tables in the new policy.
    ``rule_tables_built``: the number of these that had to be built.
    """

    disconnected: int
    finished: int
    rule_tables: int
    rule_tables_built: int


def verdict_of(row: Any, rules: Sequence[Rule], instances: Sequence[Instance]) -> Verdict:
    """Return a row of ``RESULT_DTYPE`` with words instead of numbers. ``rules``, ``instances``: by number."""

    def side(side_row: Any) -> Side | None:
        if side_row["verdict"] == NO_SIDE:
            return None
        reason = REASONS[side_row["reason"]]
        assert reason is not None
        rule = rules[side_row["rule"]].id if side_row["rule"] >= 0 else None
        return Side(instances[side_row["instance"]].name, VERDICTS[side_row["verdict"]], reason, rule)

    return Verdict(VERDICTS[row["verdict"]], REASONS[row["reason"]], side(row["egress"]), side(row["ingress"]))
