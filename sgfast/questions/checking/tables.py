"""The table of the findings of a check (SPEC 14.21)."""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.questions.checking.codes import CODES, Finding
from sgfast.rows import Table
from sgfast.rows.columns import flags, numbers_of, words_of
from sgfast.rows.row_schema import FINDING_TABLE


class CheckTables:
    """The table of ``check``: ``findings``."""

    def __init__(self, findings: Sequence[Finding], lines: Sequence[int | None]) -> None:
        """``lines``: the line of each finding in the policy's document, or None."""
        self._findings, self._lines = findings, lines

    @property
    def findings(self) -> Table:
        """A row for each finding, most severe first."""
        findings = self._findings
        columns = [
            words_of([finding.code for finding in findings]),
            words_of([CODES[finding.code].name for finding in findings]),
            words_of([finding.severity for finding in findings]),
            words_of([finding.message for finding in findings]),
            flags([finding.certain for finding in findings]),
            numbers_of([finding.members for finding in findings]),
            numbers_of([finding.used_connections for finding in findings]),
            flags([finding.in_baseline for finding in findings]),
            words_of([None if finding.acceptance is None else finding.acceptance.reason for finding in findings]),
            words_of([finding.group for finding in findings]),
            words_of([finding.rule for finding in findings]),
            words_of([finding.address_group for finding in findings]),
            words_of([", ".join(finding.instances) or None for finding in findings]),
            numbers_of([finding.instance_count for finding in findings]),
            numbers_of([finding.connections for finding in findings]),
            numbers_of(self._lines),
        ]
        return Table(FINDING_TABLE.columns, len(findings), lambda: [columns])

    def __repr__(self) -> str:
        return "<Tables of a check: findings>"
