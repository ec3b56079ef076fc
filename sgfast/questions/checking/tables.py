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
        found = self._findings
        columns = [
            words_of([each.code for each in found]),
            words_of([CODES[each.code].name for each in found]),
            words_of([each.severity for each in found]),
            words_of([each.message for each in found]),
            flags([each.certain for each in found]),
            numbers_of([each.members for each in found]),
            numbers_of([each.used_connections for each in found]),
            flags([each.in_baseline for each in found]),
            words_of([None if each.acceptance is None else each.acceptance.reason for each in found]),
            words_of([each.group for each in found]),
            words_of([each.rule for each in found]),
            words_of([each.address_group for each in found]),
            words_of([", ".join(each.instances) or None for each in found]),
            numbers_of([each.instance_count for each in found]),
            numbers_of([each.connections for each in found]),
            numbers_of(self._lines),
        ]
        return Table(FINDING_TABLE.columns, len(found), lambda: [columns])

    def __repr__(self) -> str:
        return "<Tables of a check: findings>"
