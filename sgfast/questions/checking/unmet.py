"""Find where the policy contradicts an expectations file (SPEC 10.23)."""

from __future__ import annotations

from sgfast.questions.checking.codes import UNMET, Finding
from sgfast.rules.reaching.explaining import Explanation, sentence
from sgfast.rules.reaching.proving import ExpectationsResult


def unmet(proof: ExpectationsResult) -> list[Finding]:
    """Return one finding for each expectation that fails."""
    findings = []
    for outcome in proof.of("fails"):
        expectation, counterexample = outcome.expectation, outcome.counterexample
        assert counterexample is not None
        expected_word = "allowed" if expectation.verdict == "allow" else "denied"
        message = f"{expectation.place}: {expectation.text} should be {expected_word}, but {sentence(counterexample)}"
        group, rule = _place(counterexample)
        findings.append(Finding(UNMET, message, group, rule))
    return findings


def _place(explained: Explanation) -> tuple[str | None, str | None]:
    """Return the group and the rule that decide; if no rule matches, the group that lacks one, and None."""
    # Ingress comes first, because an instance's owner looks there first.
    for side in (explained.ingress, explained.egress):
        if side is not None and side.verdict == explained.verdict:
            if side.winner is not None:
                return side.winner.group, side.winner.rule.id
            groups = [miss.group for miss in side.nearest] or list(side.instance.security_groups)
            return (groups[0] if groups else None), None
    return None, None
