"""The text and the JSON of every answer, as its command prints them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sgfast.base.notebook import Shown
from sgfast.policy.loaded_policy import lines_of

#: The most rows in the text of a ``ReachResult``, the same as the command's default.
_REACH_ROWS = 40


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

            explanation = result, lines_of(result.policy)
            return lambda: explain_document(*explanation), lambda: explain_answer(*explanation)
        case "ReachResult":
            from sgfast.report.json.reach import JsonReach
            from sgfast.report.reach import reach_document

            return lambda: reach_document(result, _REACH_ROWS), lambda: JsonReach.of(result)
        case "ExpectationsResult":
            from sgfast.report.expectations import expectations_document
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
                lambda: [
                    *difference_document(rules, doubts=traffic is None),
                    *([] if traffic is None else diff_document(traffic)),
                ],
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

