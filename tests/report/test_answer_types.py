"""The JSON objects of answers, their types and their schemas are one thing (SPEC 10.1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from command import PCAPS, SHOP, sgfast, validator

from sgfast.base.json_types import Absent, Answer, Keywords, at, or_null
from sgfast.report import schema

Capsys = pytest.CaptureFixture[str]

POLICY, CAPTURE = SHOP
TRAFFIC = ["--start", "0", "--dedup", "--decap", "auto", "--quiet"]
#: Commands that fill as many fields of each output as those of the shop can.
COMMANDS = {
    "summary": ["replay", POLICY, CAPTURE, "--changes", "shop.changes.yaml", "--expect", "shop.expect.yaml", *TRAFFIC],
    "check": ["check", POLICY, "--traffic", CAPTURE, "--as-if-in", "web=10.0.0.99"],
    "diff": ["diff", POLICY, "shop.proposed.yaml", CAPTURE, *TRAFFIC],
    "explain": ["explain", POLICY, "--from", "web-1", "--to", "db-1", "--protocol", "tcp", "--port", "22"],
    "export": ["export", POLICY, "--to", "otc"],
    "reach": ["reach", POLICY],
    "suggestion": ["suggest", CAPTURE, "--policy", POLICY, "--quiet"],
    "test": ["test", POLICY, "shop.expect.yaml", "--quiet"],
}


class JsonPort(Answer):
    """A port."""

    number: Annotated[int, Keywords(minimum=0)]


class JsonHost(Answer, published="host", command="hosts"):
    from_: str = at("source.name")
    kind: Literal["real", "virtual"]
    label: Annotated[str | None, str.upper, "In capitals."]
    ports: list[JsonPort]
    first: JsonPort | None = at(lambda host: next(iter(host.ports), None))
    counts: dict[str, int] | Absent


def host(**values: Any) -> SimpleNamespace:
    ports = (SimpleNamespace(number=80), SimpleNamespace(number=443))
    source = SimpleNamespace(name="here")
    return SimpleNamespace(
        **{"source": source, "kind": "real", "label": "web", "ports": ports, "counts": None} | values
    )


def test_values_come_from_where_the_type_says() -> None:
    port = {"number": 80}
    expected = {"from": "here", "kind": "real", "label": "WEB", "ports": [port, {"number": 443}], "first": port}
    assert list(JsonHost.of(host()).items()) == list(expected.items())
    assert JsonHost.of(host(label=None, ports=())) == expected | {"label": None, "ports": [], "first": None}
    given = JsonHost.of(host(counts={"a": 1}), from_="there", ports=[{"number": 1}])
    assert given == expected | {"from": "there", "ports": [{"number": 1}], "counts": {"a": 1}}
    with pytest.raises(TypeError, match="JsonHost has no field colour"):
        JsonHost.of(host(), colour="red")


def test_a_schema_says_what_the_type_says() -> None:
    port = {"$ref": "#/$defs/JsonPort"}
    assert JsonHost.json_schema() == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:sgfast:schema:host",
        "title": "host",
        "description": "What sgfast hosts --format json prints.",
        "type": "object",
        "additionalProperties": False,
        "required": ["from", "kind", "label", "ports", "first"],
        "properties": {
            "from": {"type": "string"},
            "kind": {"enum": ["real", "virtual"]},
            "label": {"type": ["string", "null"], "description": "In capitals."},
            "ports": {"type": "array", "items": port},
            "first": {"anyOf": [port, {"type": "null"}]},
            "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "$defs": {
            "JsonPort": {
                "description": "A port.",
                "type": "object",
                "additionalProperties": False,
                "required": ["number"],
                "properties": {"number": {"type": "integer", "minimum": 0}},
            }
        },
    }


def test_null_goes_with_every_kind_of_schema() -> None:
    number, text = {"type": "integer", "minimum": 0}, {"type": "string"}
    assert or_null(number) == {"type": ["integer", "null"], "minimum": 0}
    assert or_null({"enum": ["a"]}) == {"enum": ["a", None]}
    assert or_null({**text, "enum": ["a"]}) == {"type": ["string", "null"], "enum": ["a", None]}
    assert or_null({"anyOf": [number, text]}) == {"anyOf": [number, text, {"type": "null"}]}
    assert or_null({}) == {"type": "null"}


def objects(value: Any, about: Any, root: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each object in ``value`` that has a type, with its schema."""
    reference = about.get("$ref", "")
    if reference.startswith("urn:"):
        root = about = schema(reference.split(":")[-1])
    elif reference:
        about = root["$defs"][reference.split("/")[-1]]
    for arm in about.get("anyOf", ()):
        yield from objects(value, arm, root)
    if isinstance(value, list) and "items" in about:
        for each in value:
            yield from objects(each, about["items"], root)
    properties = about.get("properties", {})
    if isinstance(value, dict) and properties and value.keys() <= properties.keys():
        yield value, about
        for name, each in value.items():
            yield from objects(each, properties[name], root)


@pytest.mark.parametrize("name", COMMANDS)
def test_objects_have_the_fields_of_their_schemas_in_order_and_no_others(
    name: str, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PCAPS)
    answer = json.loads(sgfast(capsys, *COMMANDS[name], "--format", "json").out)
    is_valid = validator(name).is_valid
    assert is_valid(answer)
    found = list(objects(answer, schema(name), schema(name)))
    assert found
    kinds = {}
    for value, about in found:
        assert [key for key in about["properties"] if key in value] == list(value)
        kinds[json.dumps(about), *value] = value, about
    # One object of each type and set of fields: each try reads the whole answer.
    for value, about in kinds.values():
        value["another"] = 1
        assert not is_valid(answer)
        del value["another"]
        for key in about["required"]:
            left = dict(value)
            del value[key]
            assert not is_valid(answer), key
            # In its place.
            value.clear()
            value.update(left)
