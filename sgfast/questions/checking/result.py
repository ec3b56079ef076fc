"""The result of a check."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sgfast.base.errors import ArgumentError
from sgfast.base.evidence import SOUND, Evidence
from sgfast.base.notebook import SHOWN_ROWS, Shown, html_doubts, html_table
from sgfast.policy.loaded_policy import lines_of
from sgfast.policy.model import Instance, Policy
from sgfast.questions import replaying
from sgfast.questions.checking.codes import CODES, SEVERITIES, TRAFFIC_CODES, UNMET, Finding, FindingCode, RuleUse
from sgfast.questions.checking.table_sizes import TableSizes
from sgfast.questions.checking.tables import CheckTables


@dataclass(frozen=True, slots=True)
class CheckResult(Shown):
    """Findings of ``sgfast check``.

    ``policy``: the policy that the answer is about.
    ``table_sizes``: sizes of the tables that the policy compiles to.
    ``findings``: the findings, most severe first.
    ``left_out``: full sentences on checks that were left out, because they would have taken too long or the captures
    cannot carry their findings.
    ``warnings``: full sentences about what the user should know.
    ``assumed``: instances that the policy has only for this check.
    ``traffic``: the replay of the captures; None if there were no captures.
    ``has_baseline``: whether there is an earlier policy whose findings are marked (``Finding.in_baseline``).
    ``rule_uses``: the use of each rule that connections of the captures used, in the order of the document.
    ``traffic_evidence``: reasons to doubt the findings that rest on the captures.
    ``proof_evidence``: reasons to doubt the proof of the expectations.
    """

    policy: Policy
    table_sizes: TableSizes
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    assumed: tuple[Instance, ...] = ()
    traffic: replaying.ReplayResult | None = None
    traffic_evidence: Evidence = SOUND
    proof_evidence: Evidence = SOUND
    rule_uses: tuple[RuleUse, ...] = ()
    has_baseline: bool = False

    @property
    def evidence(self) -> Evidence:
        """Reasons to doubt the findings that rest on captures or expectations (SPEC 10.27)."""
        return Evidence.of([*self.traffic_evidence.reasons, *self.proof_evidence.reasons])

    @property
    def tables(self) -> CheckTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.21)."""
        lines = lines_of(self.policy)
        return CheckTables(self.findings, [finding.line(lines) for finding in self.findings])

    def matching(self, wanted: str) -> list[Finding]:
        """Return the findings with a code, or with at least a severity: ``error``, ``warning`` or ``note``. Raises
        ArgumentError for another word.
        """
        codes = _codes(wanted)
        return [finding for finding in self.findings if finding.code in codes]

    def fails(self, wanted: str) -> bool:
        """Return whether ``--fail-on`` with this word gives status 1: a finding that counts matches, or one may be
        missing because of bad evidence. Raises ArgumentError as ``matching`` does.
        """
        return bool(self.cause_of_failure(wanted))

    def cause_of_failure(self, wanted: str) -> str:
        """Return why ``--fail-on`` with this word gives status 1, in words; empty: it does not."""
        codes = _codes(wanted)
        counts = Counter(finding.code for finding in self.matching(wanted) if finding.counts)
        if counts:
            return ", ".join(f"{number} {code} ({CODES[code].name})" for code, number in sorted(counts.items()))
        # The evidence of the traffic lacks "short-window". More time would only take such findings away.
        is_blind = self.traffic is not None and not self.traffic.evidence.carries("verdicts", "absence")
        is_unproved = not self.proof_evidence.carries("verdicts", "absence")
        missing = sorted(codes & ((TRAFFIC_CODES if is_blind else set()) | ({UNMET} if is_unproved else set())))
        return f"findings {', '.join(missing)} may be missing, as the evidence does not carry them" if missing else ""

    def __repr__(self) -> str:
        codes = ", ".join(sorted({finding.code for finding in self.findings}))
        number = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        return f"<CheckResult of {self.policy!r}: {number}{codes and ': '}{codes}>"

    def _repr_html_(self) -> str:
        rows = [
            (finding.code, finding.severity, finding.subject, finding.sentence)
            for finding in self.findings[:SHOWN_ROWS]
        ]
        table = html_table(("code", "severity", "about", "finding"), rows, len(self.findings))
        return html_doubts(self.evidence) + table


def _codes(code_or_severity: str) -> set[FindingCode]:
    """Return the codes that a code or a severity stands for."""
    if code_or_severity in CODES:
        return {code_or_severity}
    if code_or_severity not in SEVERITIES:
        expected_words = f"a severity ({', '.join(SEVERITIES)}) nor a code ({', '.join(CODES)})"
        raise ArgumentError(f"{code_or_severity!r:.80} is neither {expected_words}")
    worst = SEVERITIES[: SEVERITIES.index(code_or_severity) + 1]
    return {name for name, code in CODES.items() if code.severity in worst}
