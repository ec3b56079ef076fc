"""``sgfast reach``: rows as text and JSON, what is asked for, errors (SPEC 12.5)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import SHOP, sgfast, valid

Capsys = pytest.CaptureFixture[str]

MANY = """version: 1
address_groups:
  - {name: offices, addresses: [192.0.2.0/25, 198.51.100.0/24]}
security_groups:
  - name: first
    rules:
      - {direction: inbound, protocol: tcp, ports: 22, source: 10.0.0.0/8}
      - {direction: inbound, protocol: tcp, ports: 22, source: 10.1.0.0/16, action: deny}
      - {direction: inbound, protocol: tcp, ports: 80, source: offices}
      - {direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0, source: 10.0.0.0/8}
  - name: second
    rules:
      - {direction: outbound, protocol: all, destination: first}
      - {direction: inbound, protocol: all, source: second}
  - name: third
    stateful: false
    rules:
      - {direction: inbound, protocol: tcp, ports: "PORTS"}
instances:
  - {name: router, addresses: [10.1.0.0/24, 10.2.0.0/24], security_groups: [second]}
  - {name: i-1, addresses: [10.0.0.1], security_groups: [first]}
  - {name: i-2, addresses: [10.0.0.2], security_groups: [first]}
  - {name: i-3, addresses: [10.0.0.3], security_groups: [third]}
""".replace("PORTS", ",".join(map(str, range(1, 56, 2))))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(MANY)
    return path


def test_rows_name_groups_networks_without_others_and_parts_of_an_instance(capsys: Capsys, policy: Path) -> None:
    outcome = sgfast(capsys, "reach", policy, "--to", "first", "--protocol", "tcp")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "Who may open connections from any to first (tcp): 2 rows",
        "",
        "  from                                                 to     services",
        "  10.0.0.0/8 except 10.1.0.0/16, router (10.2.0.0/24)  first  tcp/22",
        "  offices                                              first  tcp/80 (IPv4)",
        "Warning: 1 instance is in stateless groups: replies are judged by rules, too,",
        "         and are not part of this answer",
    ]


def test_json_follows_its_schema_and_says_what_the_text_says(capsys: Capsys, policy: Path) -> None:
    found = json.loads(sgfast(capsys, "reach", policy, "--to", "first", "--protocol", "tcp", "--json").out)
    valid("reach", found)
    network, router = found["rows"][0]["from"]
    assert network == {"kind": "network", "name": "10.0.0.0/8", "except": ["10.1.0.0/16"], "addresses": None}
    assert router == {"kind": "instance", "name": "router", "except": [], "addresses": ["10.2.0.0/24"]}
    assert found["rows"][1]["to"] == [{"kind": "group", "name": "first", "except": [], "addresses": None}]
    assert found["rows"][1]["services"] == ["tcp/80"]
    for question in ((), ("--from", "internet"), ("--from", "i-3", "--to", "i-1"), ("--port", "1-65535")):
        valid("reach", json.loads(sgfast(capsys, "reach", policy, *question, "--json").out))


def test_the_text_says_how_many_rows_it_does_not_show(capsys: Capsys, policy: Path) -> None:
    shown = sgfast(capsys, "reach", policy, "--top", "1").out
    assert "Who may open connections from any to any (all): 4 rows" in shown
    assert "and 3 more rows: --top N shows more" in shown
    assert sgfast(capsys, "reach", policy, "--top", "0").status == 2


def test_a_narrow_terminal_breaks_no_number_and_no_name(capsys: Capsys, policy: Path) -> None:
    shown = sgfast(capsys, "reach", policy, "--to", "third").out
    assert all(len(line) <= 80 for line in shown.splitlines())
    ports = shown[shown.index("tcp/") + 4 : shown.index("...")].split(",")
    assert [int(port) for port in ports if port.strip()] == list(range(1, 49, 2))
    assert "(and 4 more)" in shown


def test_what_nobody_may_is_said_in_words(capsys: Capsys) -> None:
    shown = sgfast(capsys, "reach", SHOP[0], "--from", "internet", "--to", "db-1").out
    assert shown == "Nobody may open a connection from internet to db-1 (all)\n"


def test_ports_are_those_of_the_protocol_or_of_tcp_and_udp(capsys: Capsys) -> None:
    def rows(*question: str) -> list[list[str]]:
        found = json.loads(sgfast(capsys, "reach", SHOP[0], "--to", "db-1", *question, "--json").out)
        return [row["services"] for row in found["rows"]]

    assert rows("--port", "5000-6000") == rows("--protocol", "TCP", "--port", "5432") == [["tcp/5432"]]
    assert rows("--protocol", "tcp/6379,22") == [["tcp/6379"]]
    assert rows("--protocol", "udp", "--port", "5432") == []


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (("--from", "wbe"), "shop.yaml: 'wbe' is no instance, security group or address group of the policy"),
        (("--to", "10.0.0.1/8"), "host bits are set: write 10.0.0.0/8"),
        (("--protocol", "tpc"), "'tpc' is no service: write tcp/443"),
        (("--protocol", "gre", "--port", "1"), "'gre' is not one protocol with ports, such as tcp"),
        (("--port", "http"), "is no service: write tcp/443"),
    ],
)
def test_a_wrong_question_is_one_line_that_says_what_to_write(
    question: tuple[str, ...], says: str, capsys: Capsys
) -> None:
    outcome = sgfast(capsys, "reach", SHOP[0], *question)
    assert (outcome.status, outcome.out) == (2, "")
    assert says in outcome.err
    assert "Traceback" not in outcome.err


def test_nothing_that_may_reach_stays_nameless(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 12.5: up to ``--top`` names stand in a cell, and the text says how many hide all others."""
    names = [f"g-{n:02}" for n in range(45)]
    sources = [f"{{direction: inbound, protocol: tcp, ports: 5432, source: {name}}}" for name in names]
    groups = [*names, *(f"other-{n}" for n in range(46))]
    senders = [f"  - {{name: {name}, rules: [{{direction: outbound, protocol: tcp}}]}}\n" for name in groups]
    members = [
        f"  - {{name: i-{name}, addresses: [10.0.0.{n}], security_groups: [{name}]}}\n"
        for n, name in enumerate(groups)
    ]
    path, closed = tmp_path / "policy.yaml", tmp_path / "closed.yaml"
    for file, rules in ((path, sources), (closed, [])):
        file.write_text(
            f"version: 1\nsecurity_groups:\n{''.join(senders)}  - {{name: db, rules: [{', '.join(rules)}]}}\n"
            f"instances:\n{''.join(members)}  - {{name: db-1, addresses: [10.0.1.1], security_groups: [db]}}\n"
        )
    question = ("reach", path, "--from", "10.0.0.0/24", "--to", "db")
    shown = " ".join(sgfast(capsys, *question).out.split())
    assert "g-38, g-39 and 5 more" in shown and "g-40" not in shown
    assert "Some cells do not show all names: --top 45 shows them, --json has all" in shown
    shown = " ".join(sgfast(capsys, *question, "--top", "45").out.split())
    assert all(f"{name}," in shown for name in names[:-1]) and "g-44" in shown and "more" not in shown
    shown = " ".join(sgfast(capsys, "diff", path, closed).out.split())
    assert "to g-00, g-01" in shown and "and more names: --top 45 lists all" in shown
    shown = " ".join(sgfast(capsys, "diff", path, closed, "--top", "45").out.split())
    assert all(name in shown for name in names) and "more names" not in shown


def test_all_instances_are_all_without_an_exception(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("""
version: 1
vpcs: [{name: dev}, {name: prod}]
security_groups:
  - {name: app, rules: [{direction: outbound, protocol: all}]}
  - {name: ops, rules: [{direction: outbound, protocol: all}]}
instances:
  - {name: dev-1, vpc: dev, addresses: [10.0.0.5], security_groups: [app]}
  - {name: prod-1, vpc: prod, addresses: [10.1.0.5], security_groups: [ops]}
""")
    assert "  all instances  0.0.0.0/0  all\n" in sgfast(capsys, "reach", path).out
