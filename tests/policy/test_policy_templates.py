"""Templates, fast-add and the default group (SPEC 8.1, 8.3, 8.4)."""

from __future__ import annotations

import pytest

from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import GroupPeer, Rule, SecurityGroup
from sgfast.policy.templates import FAST_ADD, ITSELF, TEMPLATES, default_group, template_document


def group_of(section: str) -> SecurityGroup:
    (group,) = parse_policy("version: 1\n" + section).security_groups
    return group


def shape(rule: Rule) -> tuple[object, ...]:
    return rule.direction, rule.ethertype, rule.protocol, rule.ports, rule.peer


def tail(name: str) -> list[tuple[object, ...]]:
    """The rules every template ends with: all inbound from the group itself and all outbound, in both families."""
    itself = GroupPeer(name)
    return [
        ("inbound", 4, None, None, itself),
        ("inbound", 6, None, None, itself),
        ("outbound", 4, None, None, None),
        ("outbound", 6, None, None, None),
    ]


def test_general_purpose_web_server() -> None:
    group = group_of("security_groups: [{name: web, template: general-purpose-web-server}]")
    ports = [("inbound", 4, 6, ((port, port),), None) for port in (22, 3389, 80, 443)]
    assert [shape(rule) for rule in group.rules] == [*ports, ("inbound", 4, 1, None, None), *tail("web")]


def test_all_ports_open() -> None:
    group = group_of("security_groups: [{name: x, template: all-ports-open}]")
    assert [shape(rule) for rule in group.rules] == [("inbound", 4, None, None, None), *tail("x")]


def test_fast_add_template_and_default_group_open_nothing_to_the_outside() -> None:
    group = group_of("security_groups: [{name: x, template: fast-add}]")
    assert [shape(rule) for rule in group.rules] == tail("x")
    assert [shape(rule) for rule in default_group().rules] == tail("default")


def test_table_rules_have_no_id_and_no_group() -> None:
    for rules in [*TEMPLATES.values(), FAST_ADD.values()]:
        for rule in rules:
            assert rule.id == ""
            assert rule.peer in (None, ITSELF)


FAST_ADD_PORTS = {
    "ssh": (22, 22), "rdp": (3389, 3389), "ftp": (20, 21), "telnet": (23, 23), "icmp": None, "ping": None,
    "http": (80, 80), "https": (443, 443), "http-alt": (8080, 8080), "mysql": (3306, 3306), "mssql": (1433, 1433),
    "postgresql": (5432, 5432), "oracle": (1521, 1521), "redis": (6379, 6379), "mongodb": (27017, 27017),
}  # fmt: skip


@pytest.mark.parametrize("name", FAST_ADD)
def test_fast_add_opens_the_ports_of_a_service(name: str) -> None:
    ports = FAST_ADD_PORTS[name]
    rule = Rule("x/inbound/1", "inbound", 4, 6 if ports else 1, (ports,) if ports else None)
    assert group_of(f"security_groups: [{{name: x, fast_add: [{name}]}}]").rules == (rule,)


def test_template_then_fast_add_then_rules() -> None:
    group = group_of(
        "security_groups: [{name: x, rules: [{direction: inbound, protocol: gre}], fast_add: [http, ssh],"
        " template: fast-add}]"
    )
    assert [(rule.id, rule.protocol, rule.ports) for rule in group.rules] == [
        ("x/inbound/1", None, None),
        ("x/inbound/2", None, None),
        ("x/outbound/1", None, None),
        ("x/outbound/2", None, None),
        ("x/inbound/3", 6, ((80, 80),)),
        ("x/inbound/4", 6, ((22, 22),)),
        ("x/inbound/5", 47, None),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("template: web", "template: must be one of general-purpose-web-server, all-ports-open, fast-add, not"),
        ("template: default", "security_groups[0].template: must be one of"),
        ("template: fast_add", "not 'fast_add' (did you mean 'fast-add'?)"),
        ("template: [fast-add]", "security_groups[0].template: must be one of"),
        ("fast_add: ssh", "security_groups[0].fast_add: must be a list, not the text 'ssh'"),
        ("fast_add: [shs]", "security_groups[0].fast_add[0]: must be one of ssh, rdp, ftp"),
        ("fast_add: [22]", "security_groups[0].fast_add[0]: must be one of ssh, rdp, ftp"),
        ("fast_add: [ssh, ssh]", "security_groups[0].fast_add[1]: duplicate: 'ssh' is already in the list"),
        ("fast_add: [icmp, ping]", "security_groups[0].fast_add[1]: duplicate: 'ping' is already in the list"),
    ],
)
def test_unknown_and_duplicate_names(fields: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(f"version: 1\nsecurity_groups:\n- {{name: x, {fields}}}", "p.yaml")
    assert str(caught.value).startswith("p.yaml:3: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", TEMPLATES)
def test_printed_template_means_the_template(name: str) -> None:
    printed = group_of(template_document(name))
    assert "template" not in template_document(name), "the rules are spelled out"
    made = group_of(f"security_groups: [{{name: {name}, template: {name}}}]")
    assert printed == made
    assert [rule.wording for rule in printed.rules] == [rule.wording for rule in made.rules]


def test_printed_default_group_is_the_created_one() -> None:
    assert group_of(template_document("default")) == default_group()


@pytest.mark.parametrize("name", [*TEMPLATES, "default"])
def test_printed_template_can_be_renamed(name: str) -> None:
    group = group_of(template_document(name).replace(name, "mine"))
    assert group.name == "mine"
    assert {rule.peer for rule in group.rules} == {None, GroupPeer("mine")}


@pytest.mark.parametrize("name", ["web", "", "x" * 100_000, "a\nb\x1b"])
def test_unknown_template_lists_the_known(name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        template_document(name)
    assert "use one of general-purpose-web-server, all-ports-open, fast-add, default" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
