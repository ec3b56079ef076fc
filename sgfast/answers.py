"""Answers that combine the results of several packages, and the text and the JSON of every answer, as its command
prints them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sgfast import types
from sgfast.errors import ArgumentError
from sgfast.notebook import Shown
from sgfast.policy.loaded_policy import lines_of

#: The most rows in the text of a ``ReachResult``, the same as the command's default.
_REACH_ROWS = 40


@dataclass(frozen=True, slots=True)
class DiffResult(Shown):
    """A comparison of two policies: by the rules alone, and for captured traffic.

    ``by_rules``: the comparison by the rules alone, for all packets.
    ``traffic``: the comparison for the traffic of captures; None if there were no captures.
    """

    by_rules: types.Difference
    traffic: types.TrafficDiff | None = None

    @property
    def opened(self) -> tuple[types.Row, ...]:
        """Rows that the new policy allows and the old one does not."""
        return self.by_rules.opened

    @property
    def closed(self) -> tuple[types.Row, ...]:
        """Rows that the old policy allows and the new one does not."""
        return self.by_rules.closed

    @property
    def newly_denied(self) -> list[types.ChangedGroup]:
        """Connections of the captures that only the old policy allows, answered ones first. Raises ArgumentError if
        there were no captures.
        """
        return self._of_traffic("newly-denied").of("newly-denied")

    @property
    def newly_allowed(self) -> list[types.ChangedGroup]:
        """Connections of the captures that only the new policy allows. Errors as in ``newly_denied``."""
        return self._of_traffic("newly-allowed").of("newly-allowed")

    @property
    def tables(self) -> types.DiffTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.21)."""
        found, traffic = self.by_rules, self.traffic
        return types.DiffTables(found.opened, found.closed, found.not_compared, traffic.tables if traffic else None)

    def _of_traffic(self, wanted: str) -> types.TrafficDiff:
        if self.traffic is None:
            raise ArgumentError(f"{wanted} connections are those of captures: give some, or see opened and closed")
        return self.traffic

    @property
    def warnings(self) -> tuple[str, ...]:
        """Full sentences about what the user should know."""
        of_policies = (*self.by_rules.old.warnings, *self.by_rules.new.warnings)
        of_input = of_policies if self.traffic is None else self.traffic.warnings
        return tuple(dict.fromkeys((*self.by_rules.warnings, *of_input)))

    def __repr__(self) -> str:
        opened = len(self.opened)
        words = f"{opened} row{'s' * (opened != 1)} opened, {len(self.closed)} closed"
        return f"<DiffResult: {words}{'' if self.traffic is None else f', {self.traffic!r}'}>"

    def _repr_html_(self) -> str:
        return self.by_rules._repr_html_() + ("" if self.traffic is None else self.traffic._repr_html_())


def text_of(result: Any) -> str:
    """Return the text that the command for an answer prints, without the last line break."""
    from sgfast.report.text import to_text

    as_document, _ = _forms(result)
    return to_text(as_document()).removesuffix("\n")


def dict_of(result: Any) -> dict[str, Any]:
    """Return the JSON object that the command for an answer prints."""
    _, as_object = _forms(result)
    return as_object()


def _forms(result: Any) -> tuple[Callable[[], Any], Callable[[], dict[str, Any]]]:
    """Return functions that make the report and the JSON object, as ``print_report`` of the commands takes them."""
    # Classes are compared by name, because importing all of them takes long. The answer may be of a derived class.
    match next(kind.__name__ for kind in type(result).__mro__ if Shown in kind.__bases__):
        case "Explanation":
            from sgfast.report.explain import explain_document
            from sgfast.report.json.explain import explain_answer

            asked = result, lines_of(result.policy)
            return lambda: explain_document(*asked), lambda: explain_answer(*asked)
        case "ReachResult":
            from sgfast.report.json.reach import JsonReach
            from sgfast.report.reach import reach_document

            return lambda: reach_document(result, _REACH_ROWS), lambda: JsonReach.of(result)
        case "ExpectationsResult":
            from sgfast.expectations.output import expectations_document
            from sgfast.report.json.expectations import expectations_answer

            proved = result, lines_of(result.policy), [*result.policy.warnings, *result.warnings]
            return lambda: expectations_document(*proved), lambda: expectations_answer(*proved)
        case "CheckResult":
            from sgfast.report.check import check_document
            from sgfast.report.json.check import check_answer

            checked = result, lines_of(result.policy)
            return lambda: check_document(*checked), lambda: check_answer(*checked)
        case "DiffResult":
            from sgfast.report.diff import diff_document
            from sgfast.report.difference import difference_document
            from sgfast.report.json.diff import diff_answer

            rules, traffic = result.by_rules, result.traffic
            return (
                lambda: [*difference_document(rules), *([] if traffic is None else diff_document(traffic))],
                lambda: diff_answer(rules, traffic, [*result.warnings]),
            )
        case "ReplayResult":
            from sgfast.report.json.replay import replay_answer
            from sgfast.report.replay import replay_document

            return lambda: replay_document(result), lambda: replay_answer(result)
        case "Suggestion":
            from sgfast.report.json.suggestion import suggestion_answer
            from sgfast.report.suggestion import suggestion_document

            return lambda: suggestion_document(result), lambda: suggestion_answer(result)
        case name:
            raise AssertionError(f"no command prints a {name}")


Shown._text_of, Shown._dict_of = staticmethod(text_of), staticmethod(dict_of)
