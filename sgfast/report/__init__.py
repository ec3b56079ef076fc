"""What a replay found, written down: text, JSON with its schemas, files. One module a thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgfast.replaying import ReplayResult
    from sgfast.report.html import Timeline

#: The JSON outputs that have a schema (SPEC 10.1).
SCHEMAS = ("summary", "verdict", "connection", "check", "diff", "explain", "flowlog", "suggestion")


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of one of ``SCHEMAS``: a command's object, or one line of ``--verdicts`` or
    ``--connections``. KeyError for another name.
    """
    import json
    from importlib.resources import files

    if name not in SCHEMAS:
        raise KeyError(f"no schema {name!r}: there are {', '.join(SCHEMAS)}")
    text = files(__name__).joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def html_report(result: ReplayResult, timeline: Timeline | None = None) -> str:
    """A replay as one HTML page; ``timeline``: the ``sgfast.report.html.Timeline`` that took its packets, or None."""
    from sgfast.report.html import html_report

    return html_report(result, timeline)
