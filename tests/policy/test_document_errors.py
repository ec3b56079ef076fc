"""All errors of a document at once (SPEC 11.8)."""

from __future__ import annotations

import pickle

import pytest

from sgfast.base import spelling
from sgfast.base.errors import Place, PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.policy import yaml_nodes
from sgfast.policy.expectations import parse_expectations
from sgfast.policy.node_reader import MAX_ERRORS
from sgfast.policy.profiles import PROFILES
from sgfast.rules.reaching.proving import Expectations

MANY = """\
version: 1
quotas: {security_groups: 0}
vpcs:
  - {name: main, vlan: 9999}
  - {name: other}
peerings: [[main, main], [other, elsewhere]]
address_groups:
  - name: office
    addresses: [10.0.0.1/8]
security_groups:
  - name: web
    rules:
      - {direction: inbund, protocol: tcp, ports: 80}
      - {direction: inbound, protocol: tcp, ports: 80, source: office}
      - {direction: inbound, protocol: tcp, ports: 99999}
  - {name: db, stateful: maybe}
instances:
  - {name: web-1, vpc: main, addresses: [10.0.0.5], security_groups: [wbe]}
  - {name: web-2, vpc: main, addresses: [10.0.0.5], security_groups: [web, db]}
  - {name: web-3, vpc: main, addresses: [10.0.0.5], security_groups: web}
  - {name: web-4, vpc: main, addresses: []}
"""


MOST_RULES = PROFILES["otc"].quotas.rules_per_group
OVER_QUOTA = [f"{{direction: inbound, protocol: tcp, ports: {port}}}" for port in range(1, MOST_RULES + 2)]


def errors_of(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "p.yaml")
    return caught.value


def test_every_independent_error_is_told_once_in_the_order_of_lines() -> None:
    error = errors_of(MANY)
    lines = str(error).split("\n")
    assert [line.split(":")[1] for line in lines] == ["2", "4", "6", "6", "9", "13", "15", "16", "18", "19", "20", "21"]
    assert [str(each) for each in error.errors] == lines and error.place is None
    assert lines[8].endswith("unknown security group 'wbe': define it (did you mean 'web'?)")
    # The column is that of the value, or where the thing begins in which something is missing.
    assert error.errors[5].place == Place("p.yaml", 13, 21, 27)
    assert str(pickle.loads(pickle.dumps(error))) == str(error), "workers send errors"
    assert pickle.loads(pickle.dumps(error)).errors[0].place == error.errors[0].place


def test_each_error_has_its_field_and_its_message_apart_from_file_and_line() -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(MANY, "policy.yaml")
    assert raised.value.field is None and raised.value.message == str(raised.value), "several errors have no field"
    told = raised.value.errors
    assert len(told) > 5
    for error in (*told, pickle.loads(pickle.dumps(told[0]))):
        assert error.place is not None
        assert str(error) == f"policy.yaml:{error.place.line}: {error.field}: {error.message}"
    assert {"vpcs[0].vlan", "address_groups[0].addresses[0]"} <= {error.field for error in told}
    with pytest.raises(PolicyError) as raised:
        parse_policy("a: b: c", "policy.yaml")
    assert raised.value.field is None and raised.value.message == str(raised.value), "not YAML: no field"


@pytest.mark.parametrize(
    ("text", "only"),
    [
        # A name that cannot be read makes what refers to it unknown.
        ("security_groups: [{name: we b}]\ninstances: [{name: a, addresses: [10.0.0.1], security_groups: [web]}]",
         "security_groups[0].name"),
        ("security_group: [{name: web}]\ninstances: [{name: a, addresses: [10.0.0.1], security_groups: [web]}]",
         "unknown key 'security_group'"),
        ("security_groups: {name: web}\ninstances: [{name: a, addresses: [10.0.0.1], security_groups: [web]}]",
         "security_groups: must be a list"),
        ("vpcs: [{nam: a}]\npeerings: [[a, b]]", "unknown key 'nam'"),
        ("vpcs: [{name: a, regoin: r}]\ninstances: [{name: i, vpc: a, addresses: [10.0.0.1]}]", "'regoin'"),
        ("address_groups: [{name: a, addresses: [10.0.0.1], lable: x}]\n"
         "security_groups: [{name: g, rules: [{direction: inbound, protocol: all, source: a}]}]", "'lable'"),
        # The quotas that are meant are not known.
        (f"quotas: {{rules_per_group: 0}}\nsecurity_groups: [{{name: g, rules: [{', '.join(OVER_QUOTA)}]}}]",
         "rules_per_group: must be"),
        # A misspelled key is not also missing.
        ("security_groups: [{name: g, rules: [{direcion: inbound, protocol: tcp}]}]", "unknown key 'direcion'"),
        ("security_groups: [{name: g, rules: [{direction: inbound, protocol: tcp, source: {grup: g}}]}]", "'grup'"),
    ],
)  # fmt: skip
def test_what_follows_from_an_error_is_no_error_of_its_own(text: str, only: str) -> None:
    error = errors_of(f"version: 1\n{text}")
    assert error.errors == (error,) and "\n" not in str(error) and only in str(error)


@pytest.mark.parametrize(
    ("text", "other", "unknown"),
    [
        # Its name can be read, whatever is wrong with the rest of it.
        ("security_groups: [{name: db, desription: x}, {name: g, rules: [{direction: inbound, protocol: all, "
         "source: nosuch}]}]", "desription", "nosuch"),
        ("security_groups: [{name: db}]\n"
         "instances: [{name: i, addresses: [10.0.0.1], security_groups: [bd]}, {name: i, addresses: [10.0.0.2]}]",
         "duplicate name", "bd"),
        # Names of another section.
        ("instances: [{}]\npeerings: [[default, nowhere]]", "name: is missing", "nowhere"),
        ("note: hello\nsecurity_groups: [{name: g, rules: [{direction: inbound, protocol: all, source: nosuch}]}]",
         "'note'", "nosuch"),
        ("[a]: {b: c}\nnotes: {a: b}\nvpcs: []\npeerings: [[default, nowhere]]", "'notes'", "nowhere"),
    ],
)  # fmt: skip
def test_an_error_hides_no_unknown_name_that_does_not_follow_from_it(text: str, other: str, unknown: str) -> None:
    found = str(errors_of(f"version: 1\n{text}"))
    assert other in found and f"{unknown!r}: define it" in found


def test_carets_of_a_duplicate_rule_id_are_under_the_id_if_it_is_written() -> None:
    rule = "{direction: inbound, protocol: all%s}"
    line = f"- {{name: g, rules: [{rule % ', id: x'}, {rule % ', id: h/inbound/1'}, {rule % ', id: x'}]}}"
    column = line.rindex("x}") + 1
    error = errors_of(f"version: 1\nsecurity_groups:\n{line}")
    assert error.place == Place("p.yaml", 3, column, column + 1)
    other = f"- {{name: h, id: x, rules: [{rule % ''}]}}"
    error = errors_of(f"version: 1\nsecurity_groups:\n{line.replace('id: x', 'id: y', 1)}\n{other}")
    column = other.index("{dir") + 1
    assert error.place == Place("p.yaml", 4, column, column + len(rule % ""))


def test_misspelled_version_is_not_also_missing_but_a_missing_one_does_not_hide_the_rest() -> None:
    assert len(errors_of("verson: 1\ninstances: [{}]").errors) == 2
    assert len(errors_of("version: 2\ninstances: [{}]").errors) == 2
    assert "version: is missing" in str(errors_of("instances: [{}]"))


def test_members_of_stateful_and_stateless_groups_are_all_named() -> None:
    groups = "security_groups: [{name: a}, {name: b, stateful: false}]\n"
    instance = "  - {name: %s, addresses: [10.0.0.%d], security_groups: [a, b]}\n"
    error = errors_of(f"version: 1\n{groups}instances:\n" + instance % ("x", 1) + instance % ("y", 2))
    assert [each.place.line for each in error.errors if each.place] == [4, 5]


def test_more_errors_than_are_listed_are_counted_without_looking_for_similar_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = "      - {direction: inbound, protocol: tcp, source: grup}\n"
    groups = "".join(f"  - {{name: group-{n}}}\n" for n in range(2000))
    quotas = "quotas: {security_groups: 9999, rules_per_group: 9999}"
    compared: list[str] = []
    monkeypatch.setattr(spelling, "did_you_mean", lambda word, known: compared.extend(known) or "")
    error = errors_of(f"version: 1\n{quotas}\nsecurity_groups:\n{groups}  - name: last\n    rules:\n{rule * 300}")
    assert len(error.errors) == MAX_ERRORS == 20 and len(compared) == 20_000
    assert str(error).split("\n")[-1] == "p.yaml: and 280 more errors"
    assert [each.place.line for each in error.errors if each.place] == [*range(2006, 2026)]

    compared.clear()
    policy = parse_policy(f"version: 1\n{quotas}\nsecurity_groups:\n{groups}")
    wrong = "  - {from: %s, to: any, service: all, verdict: allow}\n"
    file = parse_expectations(f"expect:\n{''.join(wrong % f'grup-{n}' for n in range(300))}", "e.yaml")
    with pytest.raises(PolicyError) as caught:
        Expectations(policy, file)
    assert len(caught.value.errors) == MAX_ERRORS and len(compared) == 20_000
    assert str(caught.value).split("\n")[-1] == "e.yaml: and 280 more errors"


def test_document_that_is_too_large_is_not_read_any_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", 2000)
    # Each instance has an error of its own, and 100 addresses that all share.
    addresses = f"address_groups: [{{name: g, addresses: &a [{', '.join(['10.0.0.1'] * 100)}]}}]"
    instances = "".join(f"  - {{name: a-{n}, addresses: *a}}\n" for n in range(40))
    error = errors_of(f"version: 1\n{addresses}\ninstances:\n{instances}")
    assert len(error.errors) == 1 and "too large: more than 2,000 values" in str(error)


def test_all_errors_of_expectations() -> None:
    text = (
        "expect:\n"
        "  - {from: any, to: web, service: tcp/80}\n"
        "  - {from: any, to: web, service: tcp/80, verdict: alow}\n"
        "  - {from: any, to: web, service: tcp/80, verdict: allow}\n"
        "  - {from: [], to: web, service: tcp/80, verdict: allow}\n"
    )
    with pytest.raises(PolicyError) as caught:
        parse_expectations(text, "e.yaml")
    assert [each.place.line for each in caught.value.errors if each.place] == [2, 3, 5]

    wrong = [("wbe", "tcp/80"), ("any", "tcp/80"), ("any", "tpc/80"), *[(f"x{n}", "all") for n in range(30)]]
    names = "expect:\n" + "".join(
        f"  - {{from: {source}, to: web, service: {service}, verdict: allow}}\n" for source, service in wrong
    )
    policy = parse_policy("version: 1\nsecurity_groups: [{name: web}]")
    with pytest.raises(PolicyError) as caught:
        Expectations(policy, parse_expectations(names, "e.yaml"))
    assert [each.place.line for each in caught.value.errors if each.place] == [2, 4, *range(5, 23)]
    assert "e.yaml:2: expect[0].from: 'wbe' is no" in str(caught.value)
