"""Reports as the commands print them."""

from __future__ import annotations

from typing import Any

from sgfast.cli.printing import MARKDOWN_ROWS
from sgfast.policy.document_reader import Lines
from sgfast.questions.checking import CheckResult, TableSizes
from sgfast.questions.comparing import TrafficDiff
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.suggesting import Suggestion
from sgfast.report.check import check_document
from sgfast.report.diff import diff_document
from sgfast.report.difference import difference_document
from sgfast.report.document import TOP
from sgfast.report.markdown import to_markdown
from sgfast.report.replay import replay_document
from sgfast.report.rollup import By
from sgfast.report.suggestion import suggestion_document
from sgfast.report.text import to_text
from sgfast.rules.reaching.difference import Difference

SIZES = TableSizes(*[10**9] * 7)


def text_report(result: ReplayResult, *, by: By = "group", top: int = TOP, **layout: Any) -> str:
    return to_text(replay_document(result, by, top), **layout)


def diff_text(found: Difference, result: TrafficDiff, by: By = "group") -> str:
    return to_text([*difference_document(found), *diff_document(result, by)])


def replay_markdown(result: ReplayResult, by: By = "group", top: int | None = None) -> str:
    return to_markdown(replay_document(result, by, top or MARKDOWN_ROWS, timed=False))


def check_markdown(checked: CheckResult, lines: Lines, by: By = "group", top: int = MARKDOWN_ROWS) -> str:
    return to_markdown(check_document(checked, lines, by=by, findings=top, most=top, sized=False))


def suggestion_markdown(found: Suggestion, by: By = "group", top: int | None = None) -> str:
    most = top or MARKDOWN_ROWS
    return to_markdown(suggestion_document(found, by, most, most))
