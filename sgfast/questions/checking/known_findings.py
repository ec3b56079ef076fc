"""Mark the findings that an earlier policy has, too, and those that a file accepts (SPEC 10.12)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from yaml.nodes import Node

from sgfast.base.spelling import did_you_mean
from sgfast.policy.fields import ACCEPTED_FINDING, ACCEPTED_FINDINGS
from sgfast.policy.model import Policy, called
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.rule_text import rule_text
from sgfast.policy.written_lists import compose_source, compose_text, read_items
from sgfast.policy.yaml_nodes import show
from sgfast.questions.checking.codes import CODES, INSTANCE_CODES, UNMET, Acceptance, Finding
from sgfast.questions.checking.result import CheckResult

#: Values that a program may pass as a file of accepted findings.
AcceptedSource = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]

#: The fields of an entry that name an object which a finding is about.
_OBJECT_FIELDS = tuple(key for key in ACCEPTED_FINDING.by_key if key not in ("code", "reason", "until"))


@dataclass(frozen=True, slots=True)
class AcceptedFinding:
    """An entry of a file of accepted findings.

    ``code``: the code of the findings.
    ``object_names``: the name of each object that a finding must be about, by field: ``group``, ``rule``, ...
    ``acceptance``: the reason, and the last day.
    ``place``: the place of the entry in the file, for messages.
    """

    code: str
    object_names: Mapping[str, str]
    acceptance: Acceptance
    place: str

    def is_about(self, finding: Finding, policy: Policy) -> bool:
        """Return whether the entry is about this finding of the policy."""
        if finding.code != self.code:
            return False
        names = _object_names(finding, policy)
        return all(name in names[field] for field, name in self.object_names.items())


def accepted_findings_of(source: AcceptedSource) -> tuple[AcceptedFinding, ...]:
    """Read a file of accepted findings, YAML or JSON, or its content as plain values. Raises PolicyError with a line
    for each error, ArgumentTypeError for other values.
    """
    return _read(*compose_source(source, "accepted", "accepted findings"))


def parse_accepted_findings(text: str | bytes, origin: str = "<accepted findings>") -> tuple[AcceptedFinding, ...]:
    """Parse the text of a file of accepted findings. ``origin``: its name in messages."""
    return _read(*compose_text(text, origin))


def mark_known_findings(
    result: CheckResult, baseline: CheckResult | None, accepted: Sequence[AcceptedFinding]
) -> CheckResult:
    """Return the result, in which the findings are marked that ``baseline`` also has, and those that an entry accepts.
    Warnings name the entries that accept no finding, and those whose last day is over.
    """
    policy, baseline_keys, used_entries = result.policy, Counter[Hashable](), set[str]()
    if baseline is not None:
        baseline_keys.update(_finding_key(finding, baseline.policy) for finding in baseline.findings)
    marked_findings = []
    for finding in result.findings:
        key = _finding_key(finding, policy)
        in_baseline = baseline_keys[key] > 0
        baseline_keys[key] -= in_baseline
        entries = [entry for entry in accepted if entry.is_about(finding, policy)]
        used_entries.update(entry.place for entry in entries)
        # If several entries are about the finding, the one with the latest last day decides.
        acceptance = max(
            (entry.acceptance for entry in entries), key=lambda acceptance: acceptance.until or date.max, default=None
        )
        marked_findings.append(replace(finding, in_baseline=in_baseline, acceptance=acceptance))
    warnings = [
        f"{entry.place}: accepts no finding: remove the entry" for entry in accepted if entry.place not in used_entries
    ]
    warnings += [
        f"{entry.place}: {entry.code} counts again, as it was accepted until {entry.acceptance.until}"
        for entry in accepted if entry.place in used_entries and entry.acceptance.is_over
    ]  # fmt: skip
    return replace(
        result, findings=tuple(marked_findings), warnings=(*result.warnings, *warnings),
        has_baseline=baseline is not None,
    )  # fmt: skip


def _finding_key(finding: Finding, policy: Policy) -> Hashable:
    """Return a key that the same finding has in another version of the policy, where rules may have other ids and other
    lines.
    """
    subject: str | None = None
    if finding.rule is not None:
        subject = _rule_words(finding, policy)
    elif finding.code in INSTANCE_CODES:
        subject = finding.subject
    elif finding.code == UNMET:
        subject = finding.message
    return finding.code, finding.group, finding.address_group, subject


def _rule_words(finding: Finding, policy: Policy) -> str:
    rules = policy.group_by_name[finding.group or ""].rules
    return next(f"{rule.direction} {rule_text(rule, policy)}" for rule in rules if rule.id == finding.rule)


def _object_names(finding: Finding, policy: Policy) -> dict[str, set[str]]:
    """Return all names of the objects that a finding is about, by field."""
    names: dict[str, set[str]] = {field: set() for field in _OBJECT_FIELDS}
    if finding.rule is not None:
        names["rule"] = {finding.rule, _rule_words(finding, policy)}
    objects = (
        ("group", policy.group_by_name.get(finding.group or "")),
        ("address_group", policy.address_group_by_name.get(finding.address_group or "")),
        *(("instance", policy.instance_by_name[name]) for name in finding.instances),
    )
    for field, named in objects:
        if named is not None:
            names[field] |= {named.name, called(named), *filter(None, (named.id, named.label))}
    return names


def _read(root: Node, origin: str) -> tuple[AcceptedFinding, ...]:
    return read_items(root, origin, ACCEPTED_FINDINGS, "accepted", _accepted_finding)


def _accepted_finding(reader: NodeReader, node: Node, path: str) -> AcceptedFinding:
    written = ACCEPTED_FINDING.read(reader, node, path)
    code, reason, end_date = (written.read(field) for field in ("code", "reason", "until"))
    if code not in CODES:
        raise written.error("code", f"unknown code {show(code)}{did_you_mean(code, CODES)}")
    object_names = written.read_all(*_OBJECT_FIELDS)
    if not object_names:
        raise reader.error(node, path, f"names nothing that it is about: add one of {', '.join(_OBJECT_FIELDS)}")
    is_over = end_date is not None and datetime.now(UTC).date() > end_date
    return AcceptedFinding(code, object_names, Acceptance(reason, end_date, is_over), reader.location(node, path))
