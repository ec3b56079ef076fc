"""Write a suggested policy as a document (SPEC 2) for further editing: one rule per line, with its evidence above."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta

from sgfast.policy.model import (
    DEFAULT_VPC,
    WORDS,
    Instance,
    Named,
    Policy,
    Quotas,
    Settings,
    Vpc,
)
from sgfast.policy.rule_text import quoted, rule_in_document, short
from sgfast.questions.suggesting.observing import TrafficTotals
from sgfast.questions.suggesting.rules import SuggestedRule


def document(
    policy: Policy, rules: Sequence[SuggestedRule], comments: Iterable[str], *, with_ids: bool = False
) -> str:
    """Return the text of ``policy``. ``rules`` are its rules with evidence. ``comments`` are placed at the top.

    ``with_ids``: write the ids of all rules. Otherwise all rules must have the ids that readers make (SPEC 2.5).
    """
    lines = [f"# {_plain(comment)}" for comment in comments]
    lines.append("version: 1")
    if policy.quotas != Quotas():
        lines.append(f"quotas: {_mapping(policy.quotas)}")
    if policy.settings != Settings():
        lines.append(f"settings: {_mapping(policy.settings)}")
    if policy.vpcs != (Vpc(DEFAULT_VPC),):
        lines.append("vpcs:")
        for vpc in policy.vpcs:
            region = f", region: {quoted(vpc.region)}" if vpc.region else ""
            lines.append(f"  - {{name: {quoted(vpc.name)}{_words(vpc)}{region}{_marks(vpc)}}}")
    if policy.peerings:
        lines.append("peerings:")
        lines += [f"  - [{', '.join(map(quoted, pair))}]" for pair in sorted(map(sorted, policy.peerings))]
    if policy.address_groups:
        lines.append("address_groups:")
        for addresses in policy.address_groups:
            listed = ", ".join(quoted(short(network)) for network in addresses.addresses)
            lines.append(f"  - {{name: {quoted(addresses.name)}{_words(addresses)}, addresses: [{listed}]}}")
    lines.append("security_groups:" if policy.security_groups else "security_groups: []")
    by_id = {suggested.rule.id: suggested for suggested in rules}
    for group in policy.security_groups:
        lines.append(f"  - name: {quoted(group.name)}")
        lines += [f"    {key}: {quoted(word)}" for key, word in _written_words(group)]
        if group.description:
            lines.append(f"    description: {quoted(group.description)}")
        if group.vpc and len(policy.vpcs) > 1:
            lines.append(f"    vpc: {quoted(group.vpc)}")
        if not group.stateful:
            lines.append("    stateful: false")
        lines.append("    rules:" if group.rules else "    rules: []")
        for rule in group.rules:
            if (suggested := by_id.get(rule.id)) is not None:
                comments = [*in_words(suggested.evidence), *([suggested.note] if suggested.note else [])]
                lines += [f"      # {_plain(line)}" for line in comments]
            lines.append(f"      - {rule_in_document(rule, policy, with_id=with_ids)}")
    lines.append("instances:" if policy.instances else "instances: []")
    several = len(policy.vpcs) > 1
    lines += [f"  - {{{_instance(instance, several)}}}" for instance in policy.instances]
    return "\n".join(lines) + "\n"


def _marks(vpc: Vpc) -> str:
    interfaces = tuple(quoted(mark) if isinstance(mark, str) else mark for mark in vpc.interfaces)
    files = tuple(map(quoted, vpc.files))
    marks = (("vni", vpc.vnis), ("vlan", vpc.vlans), ("interface", interfaces), ("file", files))
    return "".join(f", {key}: [{', '.join(map(str, values))}]" for key, values in marks if values)


def in_words(evidence: TrafficTotals) -> list[str]:
    """Format evidence as a line of numbers and, if there are examples, a line of examples."""
    number = evidence.connections
    if not number:
        return ["No connection was seen. In AWS a rule whose peer is a group is for both IP versions."]
    lines = [
        f"{number:,} connection{'' if number == 1 else 's'}, {evidence.packets:,} packets, {evidence.bytes:,} bytes"
        + _times(evidence)
    ]
    if evidence.examples:
        lines.append("e.g. " + ", ".join(evidence.examples))
    return lines


def _times(evidence: TrafficTotals) -> str:
    if evidence.first_time_ns is None or evidence.last_time_ns is None:
        return ""
    first, last = (
        (datetime(1970, 1, 1) + timedelta(seconds=ns // 10**9)).isoformat(" ")
        for ns in (evidence.first_time_ns, evidence.last_time_ns)
    )
    return f", {first} UTC" if first == last else f", {first} to {last} UTC"


def _instance(instance: Instance, several_vpcs: bool) -> str:
    addresses = ", ".join(quoted(short(network)) for network in instance.addresses)
    vpc = f", vpc: {quoted(instance.vpc)}" if several_vpcs else ""
    groups = ", ".join(map(quoted, instance.security_groups))
    return (
        f"name: {quoted(instance.name)}{_words(instance)}{vpc}, addresses: [{addresses}], security_groups: [{groups}]"
    )


def _written_words(thing: Named) -> list[tuple[str, str]]:
    """Return the provider's words for an object of the policy (SPEC 2.12)."""
    return [(key, word) for key in WORDS if (word := getattr(thing, key, ""))]


def _words(thing: Named) -> str:
    return "".join(f", {key}: {quoted(word)}" for key, word in _written_words(thing))


def _mapping(value: object) -> str:
    parts = []
    for field in fields(value):  # type: ignore[arg-type]
        item = getattr(value, field.name)
        text = _mapping(item) if is_dataclass(item) else quoted(item) if isinstance(item, str) else json.dumps(item)
        parts.append(f"{field.name}: {text}")
    return "{" + ", ".join(parts) + "}"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
