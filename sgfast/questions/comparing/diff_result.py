"""The comparison of two policies as a program gets it: by the rules alone, and for captured traffic."""

from __future__ import annotations

from dataclasses import dataclass

from sgfast.base.evidence import Evidence
from sgfast.base.notebook import Shown
from sgfast.questions.comparing.results import ChangedGroup, TrafficDiff
from sgfast.questions.comparing.tables import DiffTables
from sgfast.rules.reaching.difference import Difference
from sgfast.rules.reaching.rows import Row


@dataclass(frozen=True, slots=True)
class DiffResult(Shown):
    """A comparison of two policies: by the rules alone, and for captured traffic.

    ``by_rules``: the comparison by the rules alone, for all packets.
    ``traffic``: the comparison for the traffic of captures; None if there were no captures.
    """

    by_rules: Difference
    traffic: TrafficDiff | None = None

    @property
    def opened(self) -> tuple[Row, ...]:
        """Rows that the new policy allows and the old one does not."""
        return self.by_rules.opened

    @property
    def closed(self) -> tuple[Row, ...]:
        """Rows that the old policy allows and the new one does not."""
        return self.by_rules.closed

    @property
    def newly_denied(self) -> list[ChangedGroup] | None:
        """Connections of the captures that only the old policy allows, answered ones first; None if there were no
        captures.
        """
        return None if self.traffic is None else self.traffic.of("newly-denied")

    @property
    def newly_allowed(self) -> list[ChangedGroup] | None:
        """Connections of the captures that only the new policy allows; None if there were no captures."""
        return None if self.traffic is None else self.traffic.of("newly-allowed")

    @property
    def evidence(self) -> Evidence:
        """Reasons to doubt the answer (SPEC 10.27, 12.7)."""
        return self.by_rules.evidence if self.traffic is None else self.traffic.evidence

    @property
    def tables(self) -> DiffTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.21)."""
        by_rules, traffic = self.by_rules, self.traffic
        return DiffTables(by_rules.opened, by_rules.closed, by_rules.not_compared, traffic.tables if traffic else None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Full sentences about what the user should know."""
        of_policies = (*self.by_rules.old.warnings, *self.by_rules.new.warnings)
        of_input = of_policies if self.traffic is None else self.traffic.warnings
        return tuple(dict.fromkeys((*self.by_rules.warnings, *of_input)))

    def __repr__(self) -> str:
        opened = len(self.opened)
        words = f"{opened} row{'s' * (opened != 1)} opened, {len(self.closed)} closed"
        if self.by_rules.evidence.conclusive != "yes":
            words += f" (conclusive: {self.by_rules.evidence.conclusive})"
        return f"<DiffResult: {words}{'' if self.traffic is None else f', {self.traffic!r}'}>"

    def _repr_html_(self) -> str:
        return self.by_rules._repr_html_() + ("" if self.traffic is None else self.traffic._repr_html_())
