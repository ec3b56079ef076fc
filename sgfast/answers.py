"""Answers that combine the results of several packages, and the text of every answer, as its command prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sgfast.errors import ArgumentError
from sgfast.notebook import SHOWN_ROWS, Shown, html_doubts, html_table
from sgfast.policy.loaded_policy import lines_of
from sgfast.policy.model import Instance, Policy

# Modules are imported when an answer needs them: importing all of them takes half a second.
if TYPE_CHECKING:
    from sgfast.checking import Checked, Finding
    from sgfast.comparing import ChangedGroup, DiffResult, NewVerdict
    from sgfast.evidence import Evidence
    from sgfast.reaching.difference import Difference
    from sgfast.reaching.rows import Row
    from sgfast.replaying import ReplayResult
    from sgfast.report.check import TableSizes

#: The most rows in the text of a ``Reach``, the same as the command's default.
_REACH_ROWS = 40


@dataclass(frozen=True, slots=True)
class CheckResult(Shown):
    """Findings of ``sgfast check``."""

    policy: Policy
    checked: Checked
    #: Sizes of the tables that the policy compiles to.
    tables: TableSizes
    warnings: tuple[str, ...] = ()
    #: Instances that the policy has only for this check.
    assumed: tuple[Instance, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, most severe first."""
        return self.checked.findings

    @property
    def left_out(self) -> tuple[str, ...]:
        """Full sentences on checks that were left out, because they would have taken too long or the captures cannot
        carry their findings.
        """
        return self.checked.left_out

    @property
    def evidence(self) -> Evidence:
        """Reasons to doubt the findings that rest on captures or expectations (SPEC 10.27)."""
        return self.checked.evidence

    @property
    def traffic(self) -> ReplayResult | None:
        """The replay of the captures; None if there were no captures."""
        return self.checked.traffic

    def matching(self, wanted: str) -> list[Finding]:
        """Return the findings with a code, or with at least a severity: ``error``, ``warning`` or ``note``. Raises
        ArgumentError for another word.
        """
        return self.checked.matching(wanted)

    def fails(self, wanted: str) -> bool:
        """Return whether ``--fail-on`` with this word gives status 1: a finding matches, or one may be missing because
        of bad evidence. Raises ArgumentError as ``matching`` does.
        """
        return self.checked.fails(wanted)

    def __repr__(self) -> str:
        codes = ", ".join(sorted({finding.code for finding in self.findings}))
        number = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        return f"<CheckResult of {self.policy!r}: {number}{codes and ': '}{codes}>"

    def _repr_html_(self) -> str:
        from sgfast.report.check import perhaps, subject_of

        rows = [
            (each.code, each.severity, subject_of(each), perhaps(each) + each.message)
            for each in self.findings[:SHOWN_ROWS]
        ]
        table = html_table(("code", "severity", "about", "finding"), rows, len(self.findings))
        return html_doubts(self.evidence) + table


@dataclass(frozen=True, slots=True)
class PolicyDiff(Shown):
    """A comparison of two policies: by the rules alone, and for captured traffic."""

    #: The comparison by the rules alone, for all packets.
    by_rules: Difference
    #: The comparison for the traffic of captures; None if there were no captures.
    traffic: DiffResult | None = None

    @property
    def opened(self) -> tuple[Row, ...]:
        """Rows that the new policy allows and the old one does not."""
        return self.by_rules.opened

    @property
    def closed(self) -> tuple[Row, ...]:
        """Rows that the old policy allows and the new one does not."""
        return self.by_rules.closed

    @property
    def newly_denied(self) -> list[ChangedGroup]:
        """Connections of the captures that only the old policy allows, answered ones first. Raises ArgumentError if
        there were no captures.
        """
        return self._changed("newly-denied")

    @property
    def newly_allowed(self) -> list[ChangedGroup]:
        """Connections of the captures that only the new policy allows. Errors as in ``newly_denied``."""
        return self._changed("newly-allowed")

    # `diff` once returned a DiffResult. For programs of that time, its attributes are still attributes of the answer.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            from sgfast.comparing import DiffResult

            if name.startswith("_") or not (name in DiffResult.__annotations__ or hasattr(DiffResult, name)):
                raise AttributeError(f"'PolicyDiff' object has no attribute {name!r}", name=name, obj=self)
            if self.traffic is None:
                raise AttributeError(f"a PolicyDiff has no {name!r} because there were no captures")
            return getattr(self.traffic, name)

    def _changed(self, verdict: NewVerdict) -> list[ChangedGroup]:
        if self.traffic is None:
            raise ArgumentError(f"{verdict} connections are those of captures: give some, or see opened and closed")
        return self.traffic.of(verdict)

    @property
    def warnings(self) -> tuple[str, ...]:
        of_policies = (*self.by_rules.old.warnings, *self.by_rules.new.warnings)
        of_input = of_policies if self.traffic is None else self.traffic.warnings
        return tuple(dict.fromkeys((*self.by_rules.warnings, *of_input)))

    def __repr__(self) -> str:
        opened = len(self.opened)
        words = f"{opened} row{'s' * (opened != 1)} opened, {len(self.closed)} closed"
        return f"<PolicyDiff: {words}{'' if self.traffic is None else f', {self.traffic!r}'}>"

    def _repr_html_(self) -> str:
        return self.by_rules._repr_html_() + ("" if self.traffic is None else self.traffic._repr_html_())


def text_of(result: Any) -> str:
    """Return the text that the command for an answer prints, without the last line break."""
    from sgfast.report.text import to_text

    # Classes are compared by name, because importing all of them takes long. The answer may be of a derived class.
    match next(kind.__name__ for kind in type(result).__mro__ if Shown in kind.__bases__):
        case "Explanation":
            from sgfast.report.explain import explain_document

            text = to_text(explain_document(result, lines_of(result.policy)))
        case "Reach":
            from sgfast.report.reach import reach_document

            text = to_text(reach_document(result, _REACH_ROWS))
        case "Proof":
            from sgfast.expectations.output import expectations_document

            warnings = [*result.policy.warnings, *result.warnings]
            text = to_text(expectations_document(result, lines_of(result.policy), warnings))
        case "CheckResult":
            from sgfast.report.check import check_document

            document = check_document(
                result.policy, result.tables, result.warnings, result.checked, lines_of(result.policy), result.assumed
            )
            text = to_text(document)
        case "PolicyDiff":
            from sgfast.report.diff import diff_document
            from sgfast.report.difference import difference_document

            traffic = [] if result.traffic is None else diff_document(result.traffic)
            text = to_text([*difference_document(result.by_rules), *traffic])
        case "ReplayResult":
            from sgfast.report.replay import replay_document

            text = to_text(replay_document(result))
        case "Suggestion":
            from sgfast.report.suggestion import suggestion_document

            text = to_text(suggestion_document(result))
        case name:
            raise AssertionError(f"no command prints a {name}")
    return text.removesuffix("\n")


Shown.text_of = staticmethod(text_of)
