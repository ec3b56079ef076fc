"""``SG015``: rules that are much wider than all that used them in captures (SPEC 10.12)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from effort import some
from frames import Layer, ethernet, ip, tcp, udp
from slow_diff import write_pcap
from traffic import Crowd, Traffic, drawn, routed

from sgfast.base import evidence
from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import GroupPeer, Policy
from sgfast.policy.rule_text import rule_text
from sgfast.questions.checking import CheckResult, check_policy, usage
from sgfast.questions.checking.usage import Uses
from sgfast.questions.replaying import Names, ReplayOptions, Sinks, run_replay
from sgfast.rules.reaching.difference import difference

SECOND = 10**9
POLICY = """
version: 1
address_groups: [{name: lists, addresses: [10.0.0.0/8]}]
security_groups:
  - {name: web, STATErules: [{id: r, RULE}]}
  - {name: lb, rules: [{direction: outbound, protocol: all}]}
instances:
  - {name: w, addresses: [10.0.0.5], security_groups: [web]}
  - {name: lb-1, addresses: [10.9.0.1], security_groups: [lb]}
  - {name: lb-2, addresses: [10.9.3.1], security_groups: [lb]}
"""
ANYONE = "direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0"
#: Enough clients of one network, and of none.
OFFICE = [(f"10.1.2.{n}", 443) for n in range(1, 17)]


class Verdicts:
    """A ``PacketSink`` that keeps what became of each packet."""

    def __init__(self) -> None:
        self.all: list[int] = []

    def begin(self, names: Names) -> None:
        pass

    def write(self, headers: Any, results: Any) -> None:
        self.all += results["verdict"].tolist()


def replayed(policy: Policy, capture: Path) -> tuple[CheckResult, list[int]]:
    uses, verdicts = Uses(policy), Verdicts()
    options = ReplayOptions(accept_evidence=tuple(evidence.CODES))    # a test is about openers alone
    result = run_replay(policy, [capture], options, Sinks(packets=(verdicts, uses.openers), flows=(uses,)))
    return check_policy(policy, result, uses), verdicts.all


def openers(clients: list[tuple[str, int]], outbound: bool) -> Traffic:
    """A packet to or from ``w`` for each address and port: TCP, or UDP for negative ports."""
    frames = []
    for n, (address, port) in enumerate(clients):
        ends = ("10.0.0.5", address) if outbound else (address, "10.0.0.5")
        payload = tcp(40000 + n, port, "S") if port >= 0 else udp(40000 + n, -port)
        frames.append(ethernet(ip(*ends, payload)))
    return Traffic(frames, [n * SECOND // 1000 for n in range(len(frames))], [len(frame) for frame in frames])


def found(
    tmp_path: Path, clients: list[tuple[str, int]], rule: str = ANYONE, *, outbound: bool = False, state: str = ""
) -> str | None:
    """The message about the rule, without its own text."""
    text = POLICY.replace("RULE", rule).replace("STATE", state)
    capture = write_pcap(tmp_path / "x.pcap", openers(clients, outbound))
    checked, _ = replayed(parse_policy(text), capture)
    said = [each for each in checked.findings if each.code == "SG015" and each.group == "web"]
    assert all((each.rule, each.severity) == ("r", "note") for each in said)
    assert all(each.connections == len(clients) and len(each.instead) <= 4 for each in said)
    assert all(len(each.used) == len(set(clients)) and sum(each.used.values()) == len(clients) for each in said)
    return said[0].message.partition(": ")[2] if said else None


def test_a_rule_for_everyone_that_one_network_used_is_told_with_what_it_rests_on(tmp_path: Path) -> None:
    assert found(tmp_path, OFFICE) == "16 connections used it, for which tcp/443 from 10.1.2.0/27 would do"
    # Nine connections say too little.
    assert found(tmp_path, OFFICE[:9]) is None and found(tmp_path, OFFICE[:10]) is not None


def test_a_rule_for_all_ports_that_one_port_used_is_told_whoever_the_peers_are(tmp_path: Path) -> None:
    clients = [(f"8.8.{n}.8", 443) for n in range(16)]
    ports = ANYONE.replace("443", "1-65535")
    assert found(tmp_path, clients, ports) == "16 connections used it, for which tcp/443 from 0.0.0.0/0 would do"
    from_list = ports.replace("0.0.0.0/0", "lists")
    said = "16 connections used it, for which tcp/443 from address group lists, IPv4 would do"
    assert found(tmp_path, OFFICE, from_list) == said


@pytest.mark.parametrize(
    ("clients", "rule"),
    [
        # The public uses it, of which a capture shows a part.
        ([*OFFICE, ("8.8.8.8", 443)], ANYONE),
        # It is only a hundred times as wide.
        (OFFICE, ANYONE.replace("0.0.0.0/0", "10.1.0.0/20")),
        (OFFICE, ANYONE.replace("443", "400-499").replace("0.0.0.0/0", "lists")),
        # Somebody chose the list.
        (OFFICE, ANYONE.replace("0.0.0.0/0", "lists")),
        # Clients everywhere need everything.
        ([(f"10.{n}.0.1", 443) for n in range(16)], ANYONE.replace("0.0.0.0/0", "10.0.0.0/8")),
        (OFFICE, ANYONE.replace("direction", "action: deny, direction")),
    ],
)
def test_a_rule_that_is_not_clearly_wider_or_meant_as_it_is_is_not_told(
    tmp_path: Path, clients: list[tuple[str, int]], rule: str
) -> None:
    assert found(tmp_path, clients, rule) is None


def test_blocks_of_addresses_grow_until_the_rules_are_few(tmp_path: Path) -> None:
    rule = ANYONE.replace("0.0.0.0/0", "10.0.0.0/8")
    nets = [(f"10.1.{net}.{host}", 443) for net in (0, 2, 4, 6, 7) for host in (1, 2, 3)]
    assert found(tmp_path, nets, rule) == "15 connections used it, for which tcp/443 from 10.1.0.0/21 would do"
    apart = [(f"10.{net}.0.{host}", 443) for net in (1, 200) for host in range(8)]
    assert found(tmp_path, apart, rule) == (
        "16 connections used it, for which these would do: tcp/443 from 10.1.0.0/29; tcp/443 from 10.200.0.0/29"
    )


def test_instances_become_a_group_and_protocols_and_services_are_listed(tmp_path: Path) -> None:
    rule = "direction: inbound, protocol: all, source: 0.0.0.0/0"
    clients = [("10.9.0.1", 443), ("10.9.3.1", 8443), ("10.9.3.1", -53)] * 4
    assert found(tmp_path, clients, rule) == (
        "12 connections used it, for which these would do: tcp/443,8443 from group lb, IPv4; udp/53 from group lb, IPv4"
    )


def test_protocols_without_ports_are_named_and_icmp_of_the_other_version_cannot_be(tmp_path: Path) -> None:
    policy = parse_policy(
        POLICY.replace("STATE", "").replace("RULE", "direction: inbound, protocol: all, source: 0.0.0.0/0")
    )
    for protocol, said in ((47, ["gre from 10.1.2.0/27"]), (58, [])):
        frames = [ethernet(ip(client, "10.0.0.5", Layer(bytes(8), protocol))) for client, _ in OFFICE]
        traffic = Traffic(frames, [n * SECOND for n in range(len(frames))], [len(frame) for frame in frames])
        checked, _ = replayed(policy, write_pcap(tmp_path / "x.pcap", traffic))
        assert [rule_text(rule) for each in checked.findings for rule in each.instead] == said
        assert run_replay(policy, [tmp_path / "x.pcap"], ReplayOptions()).rules[0].connections == 16


def test_many_ports_become_one_range_within_those_of_the_rule(tmp_path: Path) -> None:
    clients = [("10.1.2.1", port) for port in (1005, *range(30000, 30040, 2))]
    rule = ANYONE.replace("443", "'1000-1010,20000-40000'")
    said = "21 connections used it, for which tcp/1005-1010,20000-30038 from 10.1.2.1/32 would do"
    assert found(tmp_path, clients, rule) == said


def test_an_outbound_rule_is_told_by_where_its_connections_went(tmp_path: Path) -> None:
    rule = "direction: outbound, protocol: all, destination: 0.0.0.0/0"
    assert found(tmp_path, OFFICE, rule, outbound=True) == (
        "16 connections used it, for which tcp/443 to 10.1.2.0/27 would do"
    )


def test_a_group_with_addresses_beyond_the_rule_is_no_peer_of_the_narrower_ones(tmp_path: Path) -> None:
    """With the group as the source, the rule would open what it does not open now."""
    rule = ANYONE.replace("0.0.0.0/0", "10.9.0.0/16")
    text = POLICY.replace("STATE", "").replace("RULE", rule)
    for more, peer in (("", "group lb, IPv4"), (", 10.9.200.1", "group lb, IPv4"), (", 10.8.0.1", "10.9.0.1/32")):
        policy = parse_policy(text.replace("[10.9.0.1]", f"[10.9.0.1{more}]"))
        clients = [("10.9.0.1", 443)] * 12 + [("10.8.0.1", 443)]
        checked, verdicts = replayed(policy, write_pcap(tmp_path / "x.pcap", openers(clients, False)))
        said = [rule_text(each) for found in checked.findings if found.group == "web" for each in found.instead]
        assert said == [f"tcp/443 from {peer}"]
        assert replayed(narrowed(policy, checked), tmp_path / "x.pcap")[1] == verdicts


def test_what_is_sent_to_a_multicast_address_that_an_instance_owns_needs_a_rule_with_that_address(
    tmp_path: Path,
) -> None:
    rule = "direction: outbound, protocol: all, destination: 0.0.0.0/0"
    text = POLICY.replace("STATE", "").replace("RULE", rule).replace("[10.9.3.1]", "[10.9.3.1, 240.0.0.0/4]")
    policy = parse_policy(text)
    traffic = openers([("255.255.255.255", -5353)] * 12, True)
    traffic.frames.append(ethernet(ip("255.255.255.255", "10.0.0.5", udp(5353, 40011))))
    traffic.times_ns.append(SECOND)
    traffic.wire_lengths.append(len(traffic.frames[-1]))
    checked, verdicts = replayed(policy, write_pcap(tmp_path / "x.pcap", traffic))
    said = [rule_text(each) for found in checked.findings if found.group == "web" for each in found.instead]
    assert said == ["udp/5353 to 255.255.255.255/32"]
    assert replayed(narrowed(policy, checked), tmp_path / "x.pcap")[1] == verdicts


def test_connections_that_are_older_than_the_capture_used_the_rule_for_their_opener(tmp_path: Path) -> None:
    """Also where the first packet that is seen goes the other way."""
    policy = parse_policy(POLICY.replace("STATE", "").replace("RULE", ANYONE.replace("443", "1-65535")))
    frames = [ethernet(ip("10.0.0.5", client, tcp(443, 50000 + n, "A"))) for n, (client, _) in enumerate(OFFICE)]
    traffic = Traffic(frames, [n * SECOND // 1000 for n in range(len(frames))], [len(frame) for frame in frames])
    checked, verdicts = replayed(policy, write_pcap(tmp_path / "x.pcap", traffic))
    assert [rule_text(rule) for each in checked.findings for rule in each.instead] == ["tcp/443 from 10.1.2.0/27"]
    assert replayed(narrowed(policy, checked), tmp_path / "x.pcap")[1] == verdicts == [0] * 16


def test_a_stateless_group_also_needs_rules_for_replies(tmp_path: Path) -> None:
    assert found(tmp_path, OFFICE, state="stateful: false, ") is None


def test_what_is_kept_is_bounded_and_the_largest_rule_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MOST_USES", 20)
    text = POLICY.replace("STATE", "").replace("RULE", ANYONE)
    text = text.replace("ports: 443, source: 0.0.0.0/0}", "ports: 443, source: 0.0.0.0/0}, {id: s, PLACE}")
    policy = parse_policy(text.replace("PLACE", ANYONE.replace("443", "80")))
    clients = [*OFFICE, *[(f"10.1.3.{n}", 443) for n in range(8)], *[(f"10.1.9.{n}", 80) for n in range(16)]]
    checked, _ = replayed(policy, write_pcap(tmp_path / "x.pcap", openers(clients, False)))
    assert [each.rule for each in checked.findings if each.code == "SG015"] == ["s"]
    assert checked.left_out == ("1 rules were not compared with what used them, as that came in too many ways.",)


def narrowed(policy: Policy, checked: CheckResult) -> Policy:
    """The policy with the narrower rules in the place of the wider ones."""
    instead = {(each.group, each.rule): each.instead for each in checked.findings if each.code == "SG015"}
    groups = []
    for group in policy.security_groups:
        rules = []
        for rule in group.rules:
            made = instead.get((group.name, rule.id), (rule,))
            rules += [replace(each, id=f"{rule.id}-{n}" if n else rule.id) for n, each in enumerate(made)]
        groups.append(replace(group, rules=tuple(rules)))
    return replace(policy, security_groups=tuple(groups))


def with_second_addresses(policy: Policy, rng: np.random.Generator) -> Policy:
    """The policy with more addresses of its instances, in networks that its rules tell from those of the first ones."""
    networks = ("10.0.0.{}", "10.0.1.{}", "198.51.100.{}", "203.0.113.{}", "2001:db8:0:1::{}", "2001:db8:9::{}")
    instances = []
    for n, each in enumerate(policy.instances):
        more = [ip_network(networks[k].format(20 + n)) for k in rng.choice(len(networks), 2, replace=False)]
        instances.append(replace(each, vpc="red", addresses=(*each.addresses, *more)))
    return replace(policy, instances=tuple(instances))


def test_no_packet_of_the_captures_has_another_verdict_with_the_narrower_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "FEWEST_CONNECTIONS", 1)
    seen: Counter[str] = Counter()

    @drawn(20261127, examples=some(24, 1200))
    def check(policy: Policy, case_seed: int) -> None:
        # Where connections are forgotten for want of room, a stricter policy forgets others.
        policy = replace(policy, settings=replace(policy.settings, max_connections=1_000_000))
        rng = np.random.default_rng(case_seed)
        policy = (policy, with_second_addresses(policy, rng), routed(policy, rng))[int(rng.integers(3))]
        monkeypatch.setattr(usage, "TIMES_NARROWER", int(rng.choice((1, 2, 1000))))
        monkeypatch.setattr(usage, "MOST_INSTEAD", int(rng.choice((4, 20))))
        monkeypatch.setattr(usage, "MOST_RANGES", int(rng.choice((1, 8))))
        path = write_pcap(tmp_path / "drawn.pcap", Crowd(policy, rng).draw(1000))
        try:
            checked, before = replayed(policy, path)
        except AmbiguousAddress:
            return
        less = narrowed(policy, checked)
        wide = [each for each in checked.findings if each.code == "SG015"]
        assert all(sum(each.used.values()) == each.connections for each in wide)
        seen["rules"] += len(wide)
        seen["groups"] += sum(isinstance(rule.peer, GroupPeer) for each in wide for rule in each.instead)
        assert replayed(less, path)[1] == before
        seen["packets"] += len(before)

    check()
    print(seen)
    assert seen["rules"] > some(60, 2000) and seen["packets"] > some(10_000, 200_000)
    assert seen["groups"] > some(20, 500)


#: A policy in which all instances are in the group `base`, and the group db denies web.
EVERYBODY = """
version: 1
security_groups:
  - {name: base, rules: [{direction: outbound, protocol: all, destination: 0.0.0.0/0}]}
  - {name: app, rules: []}
  - {name: worker, rules: []}
  - {name: web, rules: []}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: web, action: deny, priority: 5}
      - {id: r, direction: inbound, protocol: tcp, ports: 5432, source: 0.0.0.0/0, priority: 10}
instances:
  - {name: app-1, addresses: [10.0.0.1], security_groups: [base, app]}
  - {name: worker-1, addresses: [10.0.1.2], security_groups: [base, worker]}
  - {name: web-1, addresses: [10.0.2.3], security_groups: [base, web]}
  - {name: db-1, addresses: [10.0.0.5], security_groups: [base, db]}
"""


def test_the_narrower_rules_name_exact_groups_and_none_that_everybody_is_in(tmp_path: Path) -> None:
    policy = parse_policy(EVERYBODY)
    capture = write_pcap(tmp_path / "x.pcap", openers([("10.0.0.1", 5432), ("10.0.1.2", 5432)] * 8, outbound=False))
    checked, _ = replayed(policy, capture)
    (wide,) = (each for each in checked.findings if (each.code, each.group) == ("SG015", "db"))
    assert [rule.peer for rule in wide.instead] == [GroupPeer("app"), GroupPeer("worker")]


def test_the_narrower_rules_open_nothing_that_a_rule_before_them_denies(tmp_path: Path) -> None:
    """They are for any address, as public clients used the rule, so only their priority keeps web out."""
    policy = parse_policy(EVERYBODY.replace("5432, source: 0.0.0.0/0", "1-65535, source: 0.0.0.0/0"))
    capture = write_pcap(tmp_path / "x.pcap", openers([(f"8.8.{n}.8", 5432) for n in range(16)], outbound=False))
    checked, _ = replayed(policy, capture)
    (wide,) = (each for each in checked.findings if (each.code, each.group) == ("SG015", "db"))
    assert [(rule.peer, rule.ports) for rule in wide.instead] == [(None, ((5432, 5432),))]
    assert difference(policy, narrowed(policy, checked)).opened == ()
