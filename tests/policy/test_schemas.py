"""JSON Schemas of the documents that people write: an editor must not underline what the reader accepts, and must not
stay silent where it could have known (SPEC 15.5). ``conftest`` holds the documents of other tests against them, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command import sgfast
from effort import some
from exports import mutations
from policy_texts import SPEC_EXAMPLE
from schemas import disagreements, validator, value_of
from yaml.nodes import Node

from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy.change_file import _OPERATIONS, load_changes, parse_changes
from sgfast.policy.expectations import load_expectations, parse_expectations
from sgfast.policy.fields import CHANGE, QUOTAS, SETTINGS, TIMEOUTS, written_schemas
from sgfast.policy.model import Quotas, Settings, Timeouts
from sgfast.policy.yaml_nodes import compose
from sgfast.questions.checking.known_findings import accepted_findings_of, parse_accepted_findings
from sgfast.report import SCHEMAS, schema

ROOT = Path(__file__).resolve().parents[2]
PCAPS = ROOT / "pcaps"
#: With every key.
POLICY: dict[str, Any] = {
    "version": 1,
    "quotas": {"security_groups": 9, "rules_per_group": 30},
    "settings": {
        "profile": "aws", "timeouts": {"icmp": 0.5, "tcp_other": 7}, "on_change": "keep", "max_connections": 10,
        "infrastructure": "by-role", "group_members": "by-owner",
    },
    "vpcs": [
        {"name": "a", "id": "vpc-1", "label": "A b", "region": "eu", "vni": 5, "vlan": [1, 2], "interface": ["e0", 3]},
        {"name": "b", "file": ["b-*.pcap"], "interface": "x"},
    ],
    "peerings": [["a", "b"]],
    "address_groups": [{"name": "offices", "id": "pl-1", "label": "o", "addresses": ["192.0.2.0/24", "2001:db8::1"]}],
    "security_groups": [
        {
            "name": "web", "id": "sg-1", "label": "Web", "description": "x", "stateful": True, "template": "fast-add",
            "fast_add": ["ssh"],
            "rules": [
                {
                    "direction": "inbound", "ethertype": "IPv4", "protocol": "tcp", "ports": [22, "80,8000-8080"],
                    "source": "offices", "action": "deny", "priority": 7, "description": "d", "id": "r/1",
                },
                {"direction": "egress", "protocol": 58, "icmp_type": 1, "icmp_code": 0, "destination": {"cidr": "::1"}},
            ],
        },
    ],
    "instances": [
        {"name": "i", "id": "eni-1", "device": "i-1", "label": "I", "vpc": "a", "addresses": ["10.0.0.5"],
         "security_groups": ["web"]},
    ],
}  # fmt: skip
#: With every operation.
CHANGES: dict[str, Any] = {
    "version": 1,
    "changes": [
        {"at": 1, "add_rule": {"group": "web", "rule": {"direction": "inbound", "protocol": "all", "id": "n"}}},
        {"at": 2.5, "modify_rule": {"group": "Web", "rule": "n", "set": {"protocol": 6, "ports": 5, "source": None}}},
        {"at": 3, "remove_rule": {"group": "sg-1", "rule": "n"}},
        {"at": 4, "add_group": {"name": "new", "rules": [{"direction": "inbound", "protocol": "udp"}]}},
        {"at": 5, "add_member": {"group": "new", "instance": "i"}},
        {"at": 6, "remove_member": {"group": "new", "instance": "i-1"}},
        {"at": 7, "remove_group": {"name": "new"}},
        {"at": 8, "add_instance": {"name": "j", "vpc": "b", "addresses": ["10.0.0.6"], "security_groups": ["web"]}},
        {"at": 9, "add_address": {"instance": "j", "address": "10.0.0.7"}},
        {"at": 10, "remove_address": {"instance": "j", "address": "10.0.0.7"}},
        {"at": 11, "remove_instance": {"instance": "j"}},
        {"at": 12, "remove_peering": ["a", "b"]},
        {"at": 13, "add_peering": ["a", "b"]},
        {"at": "2026-01-31T12:00:00.5+01:00", "set_address_group": {"name": "offices", "addresses": ["192.0.2.1"]}},
    ],
}
EXPECTATIONS: dict[str, Any] = {
    "version": 1,
    "expect": [
        {"from": "web", "to": ["any", "10.0.0.1"], "service": ["tcp/80"], "verdict": "deny", "name": "n", "why": "w"}
    ],
}
ACCEPTED: dict[str, Any] = {
    "version": 1,
    "accepted": [
        {"code": "SG004", "group": "web", "rule": "web/inbound/1", "reason": "For the VPN.", "until": "2026-05-31"},
        {"code": "SG006", "address_group": "offices", "instance": "web-1", "reason": "r"},
    ],
}
KNOWN = parse_policy(json.dumps(POLICY))
READERS: dict[str, tuple[Any, Callable[[str], object]]] = {
    "policy": (POLICY, parse_policy),
    "changes": (CHANGES, lambda text: parse_changes(text).resolve(KNOWN, 0)),
    "expectations": (EXPECTATIONS, parse_expectations),
    "accepted": (ACCEPTED, parse_accepted_findings),
}


def accepts(name: str, root: Node) -> bool:
    return bool(validator(name).is_valid(value_of(root)))


@pytest.mark.parametrize("name", READERS)
def test_a_document_with_every_key_is_accepted_by_both(name: str) -> None:
    document, read = READERS[name]
    read(json.dumps(document))
    validator(name).validate(document)


@pytest.mark.parametrize("name", READERS)
def test_reader_and_schema_agree_on_what_is_broken(name: str) -> None:
    document, read = READERS[name]
    refused, found = 0, []
    for changed in (*mutations(document), *with_unknown_keys(document)):
        # Half of a surrogate pair is not text, so that no document can hold it.
        text = json.dumps(changed).replace("\\ud800", "")
        error = None
        try:
            read(text)
        except PolicyError as caught:
            error = caught
            refused += 1
        found += disagreements(name, compose(text, "d"), error)
    assert not found, "\n".join(found)
    assert refused > some(5, 20)


def with_unknown_keys(document: Any) -> Iterator[Any]:
    """Copies with one more key in a mapping."""
    text = json.dumps(document)
    for brace in re.finditer(r"\{(?=\")", text):
        yield json.loads(f'{text[: brace.end()]}"unknown": 1, {text[brace.end() :]}')


def test_what_is_known_only_within_the_document_is_left_to_the_reader() -> None:
    """And what could be known without it is not."""
    rule = "version: 1\nsecurity_groups: [{{name: g, rules: [{{direction: {}}}]}}]"
    for words, is_left in (
        ("inbound, protocol: all, source: nobody", True),
        ("inbound, protocol: TCP, ports: 80", True),
        ("inbound, protocol: TPC", True),
        ("inbound, protocol: tpc", False),
        ("inbound, protocol: icmp, ports: 80", False),
        ("inbound, protocol: all, ports: 80", False),
        ("inbound, protocol: 200, ports: 80", False),
        ("inbound, protocol: tcp, icmp_type: 8", False),
        ("inbound, protocol: icmp, icmp_code: 8", False),
        ("inbound, protocol: all, destination: 10.0.0.0/8", False),
        ("egress, protocol: all, source: 10.0.0.0/8", False),
        ("inbound, protocol: tcp, ports: 80;443", False),
        ("inbound, protocol: tcp, ports: []", False),
        ("inbound, protocol: all, source: {cidr: 10.0.0.0/8, group: g}", False),
        ("inbound, protocol: all, source: {}", False),
    ):
        assert accepts("policy", compose(rule.format(words), "d")) == is_left, words
    for words in (
        "instances: [{name: i, addresses: [10.0.0.1, 10.0.0.1]}]",
        "instances: [{name: i, addresses: [10.0.0.1], security_groups: [g, g]}]",
        "instances: [{name: i, addresses: []}]",
        "security_groups: [{name: g, fast_add: [ssh, ssh]}]",
        "security_groups: [{name: a b}]",
        "peerings: [[a, a]]",
    ):
        assert not accepts("policy", compose(f"version: 1\n{words}", "d")), words


def test_every_example_of_the_repository_is_accepted() -> None:
    assert accepts("policy", compose(SPEC_EXAMPLE, "SPEC"))
    seen = set()
    for path in PCAPS.rglob("*.yaml"):
        root = compose(path.read_bytes(), str(path))
        name = next(name for name in ("accepted", "changes", "expect", "version") if name in value_of(root))
        name = {"expect": "expectations", "version": "policy"}.get(name, name)
        readers = {
            "accepted": accepted_findings_of, "changes": load_changes, "expectations": load_expectations,
            "policy": load_policy,
        }  # fmt: skip
        readers[name](path)
        assert accepts(name, root), path
        seen.add(name)
    assert seen == written_schemas().keys()


def test_the_keys_are_those_of_the_model() -> None:
    for keys, cls in ((QUOTAS, Quotas), (SETTINGS, Settings), (TIMEOUTS, Timeouts)):
        assert [*keys.by_key] == [field.name for field in fields(cls)]
    assert [*CHANGE.by_key] == ["at", *_OPERATIONS]


@pytest.mark.parametrize("name", written_schemas())
def test_every_key_is_described(name: str) -> None:
    def described(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            if value.get("additionalProperties") is False:
                yield from value["properties"].items()
            for each in value.values():
                yield from described(each)
        elif isinstance(value, list):
            for each in value:
                yield from described(each)

    texts = {(key, each["description"]) for key, each in described(written_schemas()[name])}
    assert len(texts) > 5
    assert all(text[-1] == "." and text.isprintable() for _, text in texts)


def test_the_command_prints_each_schema_and_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    listed = sgfast(capsys, "schema")
    assert listed.out.split() == [*written_schemas(), *SCHEMAS]
    for name in listed.out.split():
        printed = json.loads(sgfast(capsys, "schema", name).out)
        assert printed == (written_schemas()[name] if name in written_schemas() else schema(name))
        assert printed["$id"] == f"urn:sgfast:schema:{name}"
    refused = sgfast(capsys, "schema", "polcy")
    assert refused.status == 2 and "no schema 'polcy' (did you mean 'policy'?)" in refused.one_line()
