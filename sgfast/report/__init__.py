"""Write results: text reports, JSON with its schemas, and files. Each output has a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines
    from sgfast.questions.replaying import ReplayResult
    from sgfast.report.html import Timeline

#: The JSON outputs that have a schema (SPEC 10.1), each with the type that defines the schema.
SCHEMAS = {
    "summary": "report.json.replay:JsonReplay",
    "verdict": "rows.row_schema:PACKET_ROWS",
    "connection": "rows.row_schema:CONNECTION_ROWS",
    "check": "report.json.check:JsonCheck",
    "diff": "report.json.diff:JsonDiff",
    "explain": "report.json.explain:JsonExplain",
    "export": "clouds.exporting.calls:JsonCalls",
    "reach": "report.json.reach:JsonReach",
    "suggestion": "report.json.suggestion:JsonSuggestion",
    "test": "report.json.expectations:JsonTest",
}


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema named ``name``, which is one of ``SCHEMAS``. Raises KeyError for another name.

    The schema describes the JSON object of a command, or one line of ``--verdicts`` or ``--connections``.
    """
    from pkgutil import resolve_name

    if name not in SCHEMAS:
        raise KeyError(f"no schema {name!r}: there are {', '.join(SCHEMAS)}")
    json_schema: dict[str, Any] = resolve_name(f"sgfast.{SCHEMAS[name]}").json_schema()
    return json_schema


def html_report(result: ReplayResult, timeline: Timeline | None = None, lines: Lines | None = None) -> str:
    """Return a replay as one HTML page. ``timeline``: the ``sgfast.report.html.Timeline`` that got its packets.
    ``lines``: line numbers of the policy document's rules, which ``load_policy(path, lines)`` fills in.
    """
    from sgfast.report.html import html_report

    return html_report(result, timeline, lines)
