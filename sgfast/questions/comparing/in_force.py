"""Find out whether OLD was in force when flow logs were written: it allows what the cloud accepted then (SPEC 10.14).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sgfast.base.evidence import EvidenceReason
from sgfast.base.names import count
from sgfast.questions.comparing.pair import Pair
from sgfast.traffic.flow_logs.log_records import ComparedActions

#: Share of the accepted connections from which OLD cannot have been in force. A few may be of a time when the policy
#: was another one, or may have another opener than their records tell.
SOME = 0.01


def compared_actions(accepted: Sequence[Pair], rejected: Sequence[Pair]) -> ComparedActions:
    """Compare the cloud's actions with the verdicts of OLD. ``accepted``, ``rejected``: what the cloud did."""
    counted = [Counter[str](), Counter[str]()]
    for total, pairs in zip(counted, (accepted, rejected), strict=True):
        for pair in pairs:
            counters = pair.engines[0].dataplane.counters
            total["allowed"] += counters["opened"] + counters["inferred"]
            total["denied"] += counters["denied"]
    return ComparedActions(counted[0]["allowed"], counted[0]["denied"], counted[1]["denied"], counted[1]["allowed"])


def in_force_doubts(actions: ComparedActions) -> tuple[EvidenceReason, ...]:
    """Return the reason to doubt the comparison if OLD denies too much of what the cloud accepted."""
    denied, share = actions.accepted_denied, _share(actions)
    if share < SOME:
        return ()
    sentence = f"{_denies(actions)}: it was not in force when these logs were written"
    command = (
        "as OLD the policy of the time of the logs, with all members of its groups (--on FILE, --unresolved "
        "GROUP=ADDRESSES); sgfast replay OLD LOGS lists what OLD denies"
    )
    return (EvidenceReason("old-not-in-force", "partly", denied, share, sentence, command),)


def in_force_warnings(actions: ComparedActions) -> list[str]:
    """Return the warning if OLD denies a little of what the cloud accepted."""
    return [_denies(actions)] if 0 < _share(actions) < SOME else []


def _denies(actions: ComparedActions) -> str:
    accepted = count(actions.accepted_allowed + actions.accepted_denied, "connection")
    share = 100 * _share(actions)
    percent = f"{share:.2g} %" if share < 10 else f"{share:.0f} %"
    return f"OLD denies {actions.accepted_denied:,} of {accepted} that the cloud accepted ({percent})"


def _share(actions: ComparedActions) -> float:
    accepted = actions.accepted_allowed + actions.accepted_denied
    return actions.accepted_denied / accepted if accepted else 0.0
