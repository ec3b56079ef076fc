"""Tell new findings from those that a baseline policy has, too, and from those that a file accepts (SPEC 10.12)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from yaml.nodes import Node

from sgfast.checking.codes import CODES, INSTANCE_CODES, UNMET, Acceptance, Finding
from sgfast.errors import ArgumentTypeError
from sgfast.policy.fields import ACCEPTED_FINDING, ACCEPTED_FINDINGS
from sgfast.policy.model import Policy, called
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.plain_values import compose_values, path_in
from sgfast.policy.rule_text import rule_text
from sgfast.policy.yaml_nodes import compose, read_document, show
from sgfast.spelling import did_you_mean

#: Values that a program may pass as a file of accepted findings.
AcceptedSource = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class AcceptedFinding:
    """An entry of a file of accepted findings.

    ``code``: the code of the findings.
    ``objects``: the words for what the findings are about: by the name of a field of ``Finding``.
    ``acceptance``: why, and for how long.
    ``place``: its place in the file, for messages.
    """

    code: str
    objects: Mapping[str, str]
    acceptance: Acceptance
    place: str

    def is_about(self, policy: Policy, finding: Finding) -> bool:
        """Return whether the entry is about this finding of the policy."""
        names = _names(policy, finding)
        return finding.code == self.code and all(word in names[key] for key, word in self.objects.items())


def accepted_findings(source: AcceptedSource) -> tuple[AcceptedFinding, ...]:
    """Read a file of accepted findings, YAML or JSON, or its content as plain values. Raises PolicyError with a line
    for each error.
    """
    if (path := path_in(source)) is not None:
        return parse_accepted(*read_document(path))
    if not isinstance(source, Mapping | list | tuple):
        raise ArgumentTypeError(f"accepted findings must be a path, a mapping or a list, not {source!r:.80}")
    origin = "<accepted>"
    return _read(compose_values(source if isinstance(source, Mapping) else {"accepted": source}, origin), origin)


def parse_accepted(text: str | bytes, origin: str = "<accepted>") -> tuple[AcceptedFinding, ...]:
    """Parse the text of a file of accepted findings. ``origin``: its name in messages."""
    return _read(compose(text, origin), origin)


def with_known(
    policy: Policy, findings: Sequence[Finding], baseline: tuple[Policy, Sequence[Finding]] | None,
    accepted: Sequence[AcceptedFinding],
) -> tuple[list[Finding], list[str]]:
    """Mark the findings that the ``baseline``, a policy with its findings, has, too, and those that are ``accepted``.
    Return all findings, and warnings about entries that accept nothing any more.
    """
    known = Counter[Hashable]()
    if baseline is not None:
        known.update(_sameness(baseline[0], finding) for finding in baseline[1])
    marked: list[Finding] = []
    used: set[str] = set()
    for finding in findings:
        key = _sameness(policy, finding)
        in_baseline = known[key] > 0
        known[key] -= in_baseline
        entries = [entry for entry in accepted if entry.is_about(policy, finding)]
        used.update(entry.place for entry in entries)
        # If several entries are about it, the one that holds for longest decides.
        acceptances = [entry.acceptance for entry in entries]
        acceptance = max(acceptances, key=lambda each: each.until or date.max, default=None)
        marked.append(replace(finding, in_baseline=in_baseline, acceptance=acceptance))
    warnings = [f"{each.place}: accepts no finding: remove the entry" for each in accepted if each.place not in used]
    warnings += [
        f"{each.place}: {each.code} counts again, as it was accepted until {each.acceptance.until}"
        for each in accepted if each.place in used and each.acceptance.is_over
    ]  # fmt: skip
    return marked, warnings


def _sameness(policy: Policy, finding: Finding) -> Hashable:
    """Return a key that a finding has in another version of the policy, too: rules and instances may have other ids,
    and stand in other lines.
    """
    about: str | None = finding.message if finding.code == UNMET else None
    if finding.rule is not None:
        about = _rule_words(policy, finding)
    elif finding.code in INSTANCE_CODES:
        about = finding.subject
    return finding.code, finding.group, finding.address_group, about


def _rule_words(policy: Policy, finding: Finding) -> str:
    group = policy.group_by_name[finding.group or ""]
    return next(
        f"{rule.direction} {rule_text(rule, policy)}" for rule in group.rules if rule.id == finding.rule
    )


def _names(policy: Policy, finding: Finding) -> dict[str, set[str]]:
    """Return the words that each object of a finding goes by."""
    names: dict[str, set[str]] = {key: set() for key in _OBJECTS}
    if finding.rule is not None:
        names["rule"] = {finding.rule, _rule_words(policy, finding)}
    objects = (
        ("group", policy.group_by_name.get(finding.group or "")),
        ("address_group", policy.address_group_by_name.get(finding.address_group or "")),
        *(("instance", policy.instance_by_name[name]) for name in finding.instances),
    )
    for key, each in objects:
        if each is not None:
            names[key] |= {each.name, called(each), *filter(None, (each.id, each.label))}
    return names


_OBJECTS = tuple(key for key in ACCEPTED_FINDING.known if key not in ("code", "reason", "until"))


def _read(root: Node, origin: str) -> tuple[AcceptedFinding, ...]:
    reader = NodeReader(origin, keeps_errors=True)
    document = ACCEPTED_FINDINGS.read(reader, root, "")
    if "version" in document.nodes:
        with reader.errors:
            document.read("version")
    found = []
    for node, path in document.items("accepted"):
        with reader.errors:
            found.append(_entry(reader, node, path))
    reader.errors.raise_all()
    return tuple(found)


def _entry(reader: NodeReader, node: Node, path: str) -> AcceptedFinding:
    written = ACCEPTED_FINDING.read(reader, node, path)
    code, reason, until = (written.read(key) for key in ("code", "reason", "until"))
    if code not in CODES:
        raise written.error("code", f"unknown code {show(code)}{did_you_mean(code, CODES)}")
    objects = written.read_all(*_OBJECTS)
    if not objects:
        raise reader.error(node, path, f"names nothing that it is about: add one of {', '.join(_OBJECTS)}")
    return AcceptedFinding(code, objects, Acceptance(reason, until), reader.location(node, path))
