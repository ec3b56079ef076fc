"""Reading an expectations file (SPEC 2.14): what it means, and an error of one line for everything else (SPEC 11)."""

from __future__ import annotations

import json

import pytest

from sgfast.base.errors import PolicyError
from sgfast.policy import yaml_nodes
from sgfast.policy.expectations import ExpectationsFile, parse_expectations

TWO = """
version: 1
expect:
  - {from: web, to: db, service: tcp/5432, verdict: allow}
  - from: internet
    to:
      - db
      - "10.0.1.0/24"
    service: [tcp/22, icmp]
    verdict: deny
    name: closed
    why: Only web servers face the internet.
"""


def read(text: str) -> ExpectationsFile:
    return parse_expectations(text, "e.yaml")


def error_of(text: str) -> str:
    with pytest.raises(PolicyError) as refused:
        read(text)
    message = str(refused.value)
    assert "\n" not in message
    return message


def changed(old: str, new: str) -> str:
    assert old in TWO
    return TWO.replace(old, new, 1)


def test_one_value_and_a_list_are_read_with_the_line_of_each() -> None:
    first, second = read(TWO).expectations
    assert first.text == "web to db: tcp/5432" and (first.verdict, first.name, first.why) == ("allow", "", "")
    assert second.text == "internet to db, 10.0.1.0/24: tcp/22, icmp"
    assert (second.verdict, second.name, second.line) == ("deny", "closed", 5)
    assert second.why == "Only web servers face the internet."
    assert [word.place for word in second.destinations] == ["e.yaml:7: expect[1].to[0]", "e.yaml:8: expect[1].to[1]"]


def test_json_is_read_like_yaml() -> None:
    value = {"expect": [{"from": "any", "to": ["a", "b"], "service": "all", "verdict": "deny", "why": "so"}]}
    (found,) = read(json.dumps(value)).expectations
    assert found.text == "any to a, b: all" and found.why == "so"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("expect:", "expected:"), "e.yaml:3: unknown key 'expected' (did you mean 'expect'?)"),
        (changed("service: tcp/5432", "servise: tcp/5432"), "e.yaml:4: expect[0]: unknown key 'servise' (did you mean"),
        (changed("verdict: allow", "verdict: alow"), "e.yaml:4: expect[0].verdict: must be one of allow, deny, not"),
        (changed("from: web, ", ""), "e.yaml:4: expect[0].from: is missing: write any for all addresses"),
        (changed("service: tcp/5432, ", ""), "e.yaml:4: expect[0].service: is missing: write all for every service"),
        (changed(", verdict: allow", ""), "e.yaml:4: expect[0].verdict: is missing"),
        (changed("to: db,", "to: [],"), "e.yaml:4: expect[0].to: is an empty list: must be a group, an instance"),
        (changed("to: db,", "to: 5,"), "e.yaml:4: expect[0].to: must be a group, an instance"),
        (changed("to: db,", "to: {group: db},"), "e.yaml:4: expect[0].to: must be a group, an instance"),
        (changed("[tcp/22, icmp]", "[tcp/22, [icmp]]"), "e.yaml:9: expect[1].service[1]: must be a service like"),
        (changed("why: Only", "why: \"a\\nb\" #"), "expect[1].why: must be a printable text of 1 to 255 characters"),
        (changed("version: 1", "version: 2"), "e.yaml:2: version: must be 1"),
        (changed("service: tcp/5432", "service: tcp/80,443"),
         "e.yaml:4: expect[0].service: inside {} a comma ends the value, so '443' is read as the next key: quote the"),
        (TWO + "  - {from: a, to: b, service: all, verdict: deny, name: closed}\n",
         "e.yaml:13: expect[2].name: duplicate name 'closed', first used at line 5"),
        ("expect: []\n", "e.yaml:1: expect: is empty: write what"),
        ("version: 1\n", "e.yaml:1: expect: is missing"),
        ("- 1\n", "e.yaml:1: must be a mapping, not a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line_and_field(text: str, message: str) -> None:
    """SPEC 2.14."""
    assert message in error_of(text)


def test_names_on_one_line_are_compared_too() -> None:
    item = "{from: a, to: b, service: all, verdict: deny, name: x}"
    assert "duplicate name 'x', first used at line 1" in error_of(f"expect: [{item}, {item}]")


def test_aliases_cannot_make_a_small_file_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", 30_000)
    nest = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9) if n else 'a, a'}]\n" for n in range(9))
    assert "unknown key" in error_of(nest + TWO)
    items = ", ".join(["{from: *a, to: *a, service: *a, verdict: deny}"] * 110)
    assert "too large: more than 30,000 values" in error_of(
        f"expect: [{{from: &a [{', '.join(['web'] * 100)}], to: db, service: all, verdict: deny}}, {items}]"
    )
