"""Findings as SARIF 2.1.0, which code hosts and editors show beside the lines of a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sgfast.policy.document_reader import Lines
from sgfast.questions.checking import CODES, CheckResult, Finding, FindingCode
from sgfast.questions.checking.codes import NEVER_HIT, WIDER_THAN_USED
from sgfast.report.check import message_words, subject_called
from sgfast.report.check_traffic import window_text
from sgfast.report.json.evidence import JsonEvidence
from sgfast.version import __version__

VERSION = "2.1.0"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(checked: CheckResult, lines: Lines) -> dict[str, Any]:
    """Return a log with one run, ready for ``json.dumps``. Warnings and omissions become notifications."""
    numbers = {code: n for n, code in enumerate(CODES)}
    notifications = [_notification("warning", text) for text in (*checked.evidence.sentences, *checked.warnings)]
    notifications += [_notification("note", f"Left out: {text}") for text in checked.left_out]
    properties: dict[str, Any] = {"evidence": JsonEvidence.of(checked.evidence)}
    if checked.traffic is not None:
        from sgfast.report.json.check import JsonWindow

        properties["traffic"] = JsonWindow.of(checked.traffic)
        notifications.append(_notification("note", f"Captures: {window_text(checked.traffic)}."))
        if checked.traffic.damaged is not None:
            notifications.append(_notification("warning", str(checked.traffic.damaged)))
    return {
        "$schema": SCHEMA,
        "version": VERSION,
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "sgfast",
                        "version": __version__,
                        "rules": [
                            {
                                "id": name,
                                "name": "".join(word.capitalize() for word in code.name.split("-")),
                                "shortDescription": {"text": f"{code.title[0].upper()}{code.title[1:]}."},
                                "help": {"text": code.advice},
                                "defaultConfiguration": {"level": code.severity},
                            }
                            for name, code in CODES.items()
                        ],
                    }
                },
                "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notifications}],
                "results": [_result(finding, numbers, checked, lines) for finding in checked.findings],
                "properties": properties,
            }
        ],
    }


def _notification(level: str, text: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": _without_surrogates(text)}}


def _without_surrogates(text: str) -> str:
    """Escape lone surrogates, which mean undecodable bytes, because not every JSON reader accepts them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _result(
    finding: Finding, numbers: dict[FindingCode, int], checked: CheckResult, lines: Lines
) -> dict[str, Any]:
    subject = subject_called(checked.policy, finding)
    text = f"{'' if finding.certain else 'Perhaps: '}{subject}: {message_words(finding)}"
    if finding.code in (NEVER_HIT, WIDER_THAN_USED) and checked.traffic is not None:
        text += f" ({window_text(checked.traffic)})"
    states: dict[str, Any] = {}
    if checked.has_baseline:
        states["baselineState"] = "unchanged" if finding.in_baseline else "new"
    if finding.acceptance is not None and not finding.acceptance.is_over:
        justification = _without_surrogates(finding.acceptance.reason)
        states["suppressions"] = [{"kind": "external", "status": "accepted", "justification": justification}]
    return {
        "ruleId": finding.code,
        "ruleIndex": numbers[finding.code],
        "level": finding.severity,
        "message": {"text": f"{_without_surrogates(text)}."},
        "locations": [_location(finding, checked.policy.origin, lines)],
        "properties": {"certain": finding.certain},
        **states,
    }


def _location(finding: Finding, origin: str, lines: Lines) -> dict[str, Any]:
    subject = _without_surrogates(finding.subject)
    location: dict[str, Any] = {
        "logicalLocations": [{"name": subject, "fullyQualifiedName": f"{_kind(finding)}/{subject}", "kind": "member"}]
    }
    if origin != "-":
        physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(origin)}}
        line = finding.line(lines)
        if line is not None:
            physical["region"] = {"startLine": line}
        location["physicalLocation"] = physical
    return location


def _kind(finding: Finding) -> str:
    if finding.subject in finding.instances:
        return "instances"
    if finding.rule is not None:
        return f"security_groups/{_without_surrogates(finding.group or '')}/rules"
    return "address_groups" if finding.address_group is not None else "security_groups"


def _uri(path: str) -> str:
    if os.path.isabs(path):
        return Path(path).as_uri()
    return quote(os.fsencode(path))
