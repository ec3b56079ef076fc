"""``sgfast suggest``: replayed, the suggested policy allows what it claims, and without any port of any rule it would
not (SPEC 10.15)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import CLIENT, PCAPS, SERVER, SHOP, handshake, sgfast, valid, write_capture
from effort import some
from frames import ethernet, icmp, icmpv6, ip, other, tcp, udp
from policy_changes import without_one_port
from traffic import Crowd, as_capture, drawn, stateful

from sgfast import Policy, replay
from sgfast.base.errors import SgfastError
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy.matching import Kind
from sgfast.policy.model import Instance, SecurityGroup, Settings, Vpc
from sgfast.questions.suggesting import Check, Limits, Suggestion, _check, load_instances, observing, rules, suggest
from sgfast.questions.suggesting.document import document
from sgfast.questions.suggesting.instances import opened
from sgfast.questions.suggesting.observing import Observer, PrivateHosts, TrafficTotals, all_answered
from sgfast.questions.suggesting.rules import suggest_rules
from sgfast.report.lines import ConnectionLines

PROGRAMS = PCAPS / "programs"
RECORDINGS = [
    (PCAPS / "shop.pcap", PCAPS / "shop.yaml"),
    (PCAPS / "changes" / "network.pcap", PCAPS / "changes" / "policy.yaml"),
    (PROGRAMS / "network.pcap", PROGRAMS / "open.yaml"),
]


def connections(policy: Policy, capture: Path) -> list[dict[str, Any]]:
    parts: list[bytes] = []
    replay(policy, capture, flows=ConnectionLines(parts.append))
    return [json.loads(line) for line in b"".join(parts).splitlines()]


def names(found: list[dict[str, Any]], *answers: str) -> Counter[tuple[object, ...]]:
    keys = ("protocol", "initiator", "initiator_port", "responder", "responder_port", "icmp_type", "first_time")
    return Counter(
        tuple(c[key] for key in keys) for c in found
        if c["verdict"] == "allow" and (not answers or c["answer"] in answers)
    )  # fmt: skip


def nameable(found: Counter[tuple[object, ...]]) -> Counter[tuple[object, ...]]:
    """Without connections to port 0, which no rule of these policies can name."""
    return Counter({connection: count for connection, count in found.items() if connection[4] != 0})


def assert_allows_what_it_claims(found: Suggestion, capture: Path, wanted: Counter[tuple[object, ...]]) -> None:
    """By the engine's own list of connections, which suggesting does not look at."""
    assert found.check.matches or any(each.denied_members for each in found.rules)
    allowed = names(connections(found.policy, capture))
    assert wanted <= allowed
    assert found.check.claimed == found.check.allowed == wanted.total()
    assert found.check.also_allowed == allowed.total() - wanted.total()
    assert parse_policy(found.text).security_groups == found.policy.security_groups


@pytest.mark.parametrize("start", ["addresses", "instances", "each instance"])
@pytest.mark.parametrize(("capture", "policy"), RECORDINGS, ids=lambda path: path.parent.name + path.stem)
def test_the_suggested_policy_allows_what_was_answered_and_has_nothing_to_spare(
    capture: Path, policy: Path, start: str
) -> None:
    base = None if start == "addresses" else load_policy(policy)
    found = suggest([capture], instances=base, per="instance" if start == "each instance" else "group")
    everything = connections(opened(base or found.policy), capture)
    wanted = nameable(names(everything, "answered"))
    assert wanted.total() > 10
    assert_allows_what_it_claims(found, capture, wanted)
    for what, less in without_one_port(found.policy):
        assert not wanted <= names(connections(less, capture)), what
    left_out = {left.reason: left.evidence.connections for left in found.left_out}
    for answer, reason in (("silent", "unanswered"), ("refused", "refused (RST or ICMP unreachable)")):
        assert left_out.get(reason, 0) == names(everything, answer).total()


@pytest.mark.parametrize("policy", sorted(PROGRAMS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_a_policy_allows_can_be_all_there_is(policy: Path) -> None:
    loaded, capture = load_policy(policy), PROGRAMS / "network.pcap"
    found = suggest([capture], policy=loaded, allowed_only=True)
    wanted = nameable(names(connections(loaded, capture)))
    assert_allows_what_it_claims(found, capture, wanted)
    for what, less in without_one_port(found.policy):
        assert not wanted <= names(connections(less, capture)), what


def test_a_warning_counts_what_the_policy_denies_and_the_suggested_one_allows(tmp_path: Path) -> None:
    """A rule for a group is for all addresses of its members, and here the policy tells them apart."""
    text = """
version: 1
security_groups:
  - {name: web, rules: [{direction: inbound, protocol: tcp, ports: 443, source: 10.9.0.0/16}]}
  - {name: lb, rules: [{direction: outbound, protocol: all}]}
instances:
  - {name: w, addresses: [10.0.0.5], security_groups: [web]}
  - {name: l, addresses: [10.9.0.1, 10.8.0.1], security_groups: [lb]}
"""
    for denied in (0, 3):
        senders = ["10.9.0.1"] * 2 + ["10.8.0.1"] * denied
        frames = [ethernet(ip(sender, "10.0.0.5", tcp(4000 + n, 443, "S"))) for n, sender in enumerate(senders)]
        capture = write_capture(tmp_path, *frames)
        found = suggest([capture], policy=parse_policy(text), allowed_only=True)
        assert found.check == Check(claimed=2, allowed=2, also_allowed=denied, matches=not denied)
        counts = [warning.partition(" as ")[0] for warning in found.warnings if "denies" in warning]
        assert counts == ["the suggested policy also allows 3 connections that the policy denies,"] * (denied > 0)


def test_random_policies_and_traffic(tmp_path: Path) -> None:
    claimed: Counter[str] = Counter(exactly=0)

    @drawn(20261125, some(3, 10))
    def check(policy: Policy, case_seed: int) -> None:
        # Where connections are forgotten for want of room, a stricter policy forgets others.
        policy = replace(stateful(policy), settings=replace(policy.settings, max_connections=1_000_000))
        rng = np.random.default_rng(case_seed)
        capture = as_capture(tmp_path, Crowd(policy, rng).draw(1500))
        for per in ("group", "instance"):
            for limits in (Limits(), Limits((16, 48), 1), Limits((0, 0)), Limits(min_connections=3)):
                found = suggest([capture], instances=policy, per=per, unanswered=True, limits=limits)  # type: ignore[arg-type]
                claimed["all"] += found.check.allowed
                assert found.check.matches, (per, limits, found.text)
            found = suggest([capture], policy=policy, allowed_only=True, per=per)  # type: ignore[arg-type]
            claimed["allowed"] += found.check.allowed
            # A group may have members whom the policy denies what others need.
            assert found.check.matches or any(each.denied_members for each in found.rules), found.text
            told = connections(policy, capture)
            wanted = _nameable(told)
            followers = [left for left in found.left_out if left.reason.startswith("would follow")]
            if followers:
                claimed["with followers"] += found.check.allowed
                assert names(connections(found.policy, capture)).total() >= found.check.claimed > 0
            else:
                claimed["exactly"] += found.check.allowed
                assert_allows_what_it_claims(found, capture, wanted)
        suggest([capture], unanswered=True)

    check()
    assert min(claimed.values()) > some(150, 500)


def _nameable(found: list[dict[str, Any]]) -> Counter[tuple[object, ...]]:
    """Without those that only a rule for all protocols allows."""
    return names([c for c in found if c["protocol"] != ("icmp" if ":" in c["initiator"] else "icmpv6")])


# Limits


WHOM = "- {name: web-1, addresses: [10.0.0.5], security_groups: [web]}\n"


def visits(folder: Path, *clients: str, port: int = 443) -> Path:
    frames = [frame for n, client in enumerate(clients) for frame in handshake(40000 + n, port, client)]
    return write_capture(folder, *frames)


def suggested(folder: Path, capture: Path, *limits: Any, **options: Any) -> Suggestion:
    path = folder / "instances.yaml"
    path.write_text(WHOM)
    found = suggest([capture], instances=load_instances(path), limits=Limits(*limits), **options)
    assert found.check.matches
    return found


def peers(found: Suggestion) -> list[str]:
    return [str(each.rule.peer) for each in found.rules]


def test_addresses_become_prefixes_no_wider_than_is_said_and_no_wider_than_needed(tmp_path: Path) -> None:
    capture = visits(tmp_path, "198.51.100.4", "198.51.100.7", "198.51.100.200", "203.0.113.1")
    assert len(peers(suggested(tmp_path, capture))) == 4
    assert peers(suggested(tmp_path, capture, (25, 128))) == ["198.51.100.4/30", "198.51.100.200/32", "203.0.113.1/32"]
    assert peers(suggested(tmp_path, capture, (24, 128))) == ["198.51.100.0/24", "203.0.113.1/32"]
    assert peers(suggested(tmp_path, capture, (0, 0))) == ["192.0.0.0/4"]
    assert peers(suggested(tmp_path, visits(tmp_path, "1.1.1.1", "198.51.100.4"), (0, 0))) == ["None"]


def test_many_public_peers_become_any_only_when_told(tmp_path: Path) -> None:
    capture = visits(tmp_path, "8.8.8.8", "9.9.9.9", "1.1.1.1", "192.168.1.1")
    assert len(peers(suggested(tmp_path, capture))) == 4
    assert len(peers(suggested(tmp_path, capture, (32, 128), 3))) == 4
    # The private one is in it.
    assert peers(suggested(tmp_path, capture, (32, 128), 2)) == ["None"]


def test_what_is_seen_too_rarely_is_left_out_whole(tmp_path: Path) -> None:
    capture = visits(tmp_path, CLIENT, CLIENT, CLIENT, "203.0.113.9")
    found = suggested(tmp_path, capture, (32, 128), None, 2)
    assert peers(found) == [f"{CLIENT}/32"]
    assert [(left.reason, left.evidence.connections) for left in found.left_out] == [
        ("fewer than 2 of one service and peer", 1)
    ]
    assert found.check == Check(3, 3, 0, True)
    # Under one prefix they are many.
    assert suggested(tmp_path, capture, (0, 0), None, 4).check.claimed == 4


def test_silence_refusal_and_icmp_of_the_other_family_are_left_out(tmp_path: Path) -> None:
    there, back = (CLIENT, SERVER), (SERVER, CLIENT)
    capture = write_capture(
        tmp_path,
        ethernet(ip(*there, udp(1000, 514))),
        ethernet(ip(*there, tcp(1000, 81, "S"))), ethernet(ip(*back, tcp(81, 1000, "RA"))),
        ethernet(ip(*there, udp(1000, 0))), ethernet(ip(*back, udp(0, 1000))),
        ethernet(ip(*there, icmp(8, 0, 7))), ethernet(ip(*back, icmp(0, 0, 7))),
        ethernet(ip(*there, icmpv6(128, 0, 7))), ethernet(ip(*back, icmpv6(129, 0, 7))),
        ethernet(ip(*there, other(47, bytes(8)))), ethernet(ip(*back, other(47, bytes(8)))),
    )  # fmt: skip
    found = suggested(tmp_path, capture)
    assert [(r.rule.protocol, r.rule.ports, r.rule.icmp_type) for r in found.rules] == [
        (1, None, 8), (47, None, None),
    ]  # fmt: skip
    assert {left.reason: left.evidence.connections for left in found.left_out} == {
        "unanswered": 1, "refused (RST or ICMP unreachable)": 1,
        "ICMP of the other IP version, which no rule can name": 1, "port 0, which no rule can name": 1,
    }  # fmt: skip
    found = suggested(tmp_path, capture, unanswered=True)
    assert [r.rule.protocol for r in found.rules] == [1, 17, 47]


def test_what_a_client_of_dhcp_sends_needs_no_rule_where_the_role_counts(tmp_path: Path) -> None:
    """SPEC 3.11: only the receiver's filter is asked."""
    document = """
version: 1
settings: {infrastructure: by-role}
security_groups: [{name: c, rules: []}, {name: w, rules: []}]
instances:
  - {name: client, addresses: [10.0.0.5], security_groups: [c]}
  - {name: server, addresses: [10.0.0.6], security_groups: [w]}
"""
    request = ethernet(ip("10.0.0.5", "10.0.0.6", udp(68, 67)))
    other = ethernet(ip("10.0.0.5", "10.0.0.6", udp(69, 67)))
    for frames, groups in (([request], ["w"]), ([other], ["c", "w"])):
        capture = write_capture(tmp_path, *frames)
        found = suggest([capture], instances=parse_policy(document), unanswered=True)
        assert [group.name for group in found.policy.security_groups if group.rules] == groups


def test_more_rules_than_a_quota_raise_it(tmp_path: Path) -> None:
    found = suggested(tmp_path, visits(tmp_path, *(f"198.51.100.{n}" for n in range(60))))
    assert found.policy.quotas.rules_per_group == 60
    assert any("quotas.rules_per_group is raised from 50" in warning for warning in found.warnings)


def test_a_group_of_far_too_many_rules_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(rules, "MOST_RULES", 3)
    capture = visits(tmp_path, *(f"198.51.100.{n}" for n in range(4)))
    outcome = sgfast(capsys, "suggest", capture, "--instances", SHOP[0])
    assert outcome.status == 2 and "would need 4 rules, more than 3: merge addresses" in outcome.one_line()
    assert sgfast(capsys, "suggest", capture, "--instances", SHOP[0], "--max-prefix", "24").status == 0


def test_thousands_of_instances_with_a_group_each_take_no_longer_than_that(tmp_path: Path) -> None:
    names = [f"i{n}" for n in range(4000)]
    instances = tuple(Instance(name, "default", (ip_network((10 << 24) + n),), (name,)) for n, name in enumerate(names))
    policy = Policy(security_groups=tuple(map(SecurityGroup, names)), instances=instances)
    packed = [instance.addresses[0].network_address.packed for instance in instances]
    kinds = {Kind(packed[n], packed[0], names[n], names[0], 17, 53): TrafficTotals(1) for n in range(1, 4000)}
    found = suggest_rules(policy, kinds, Limits())
    assert Counter(each.group == "i0" for each in found.rules) == {True: 3999, False: 3999}


# Whom for


def test_private_addresses_become_instances_named_after_what_they_serve(tmp_path: Path) -> None:
    capture = write_capture(
        tmp_path,
        *handshake(40000, 443, "198.51.100.7", "10.0.0.5"), *handshake(40001, 443, "10.0.0.9", "172.31.0.5"),
        *handshake(40002, 5432, "10.0.0.5", "192.168.0.1"), *handshake(40003, 9999, "fd00::2", "fd00::1"),
        *handshake(40004, 80, "172.32.0.1", "100.64.0.1"),
    )  # fmt: skip
    found = suggest([capture])
    assert [(i.name, i.security_groups[0]) for i in found.policy.instances] == [
        ("host-10.0.0.5", "https"), ("host-10.0.0.9", "clients"), ("host-172.31.0.5", "https"),
        ("host-192.168.0.1", "postgresql"), ("host-fd00--1", "port-9999"), ("host-fd00--2", "clients"),
    ]  # fmt: skip
    assert found.check == Check(4, 4, 0, True)
    assert found.other_packets == {"out-of-scope": 3}


def test_too_many_private_addresses_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "MOST_HOSTS", 3)
    with pytest.raises(SgfastError, match="more than 3 private addresses"):
        replay(Policy(), SHOP[1], packets=PrivateHosts())


def test_kinds_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(observing, "MOST_KINDS", 3)
    found = suggested(tmp_path, visits(tmp_path, *(f"198.51.100.{n}" for n in range(5))))
    assert found.check.claimed == 3
    left_out = [(left.reason, left.evidence.connections) for left in found.left_out]
    assert left_out == [("too many kinds of connections", 2)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("- {name: a, addresses: [10.0.0.1]}\n- {name: a, addresses: [10.0.0.2]}", "2: instances[1].name: duplicate"),
        ("- {name: a, addresses: [10.0.0.300]}", "1: instances[0].addresses[0]"),
        ("- {name: a}", "1: instances[0]"),
        ("- 7", "1: instances[0]: must be a mapping"),
        ("- {name: a, addresses: [10.0.0.1], security_groups: [x y]}", "1: security_groups[0].name"),
        ("- {[a]: b, name: a, addresses: [10.0.0.1]}", "1: instances[0]: keys must be plain words"),
        ("just words", "must be a mapping"),
    ],
)
def test_a_list_of_instances_is_checked_like_a_document(
    text: str, error: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "instances.yaml"
    path.write_text(text)
    outcome = sgfast(capsys, "suggest", SHOP[1], "--instances", path)
    assert outcome.status == 2 and error in outcome.one_line()


def test_instances_may_be_json_with_vpcs_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps([
        {"name": "a", "addresses": ["10.0.0.5"], "vpc": "one", "security_groups": ["x", "y"]},
        {"name": "b", "addresses": ["10.0.0.5", "2001:db8::/64"], "vpc": "two", "security_groups": ["y"]},
    ]))  # fmt: skip
    loaded = load_instances(path)
    assert [vpc.name for vpc in loaded.vpcs] == ["one", "two"]
    assert [group.name for group in loaded.security_groups] == ["x", "y"]
    found = suggest([visits(tmp_path, CLIENT)], instances=loaded, vpc="one")
    assert found.policy.vpcs == loaded.vpcs and found.policy.instances == loaded.instances
    assert [each.group for each in found.rules] == ["x"]


TWINS = """
version: 1
vpcs: [{name: one}, {name: two}, {name: three}]
peerings: [[one, three]]
security_groups: [{name: web}, {name: db}]
instances:
  - {name: web-one, vpc: one, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-two, vpc: two, addresses: [10.0.0.5], security_groups: [web]}
  - {name: db-two, vpc: two, addresses: [10.0.0.9], security_groups: [db]}
  - {name: db-three, vpc: three, addresses: [10.3.0.9], security_groups: [db]}
"""


def test_vpcs_that_use_the_same_addresses_are_told_apart_by_vpc(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whom = tmp_path / "instances.yaml"
    whom.write_text(TWINS)
    capture = write_capture(
        tmp_path,
        *handshake(40000, 443, CLIENT, "10.0.0.5"),
        *handshake(40001, 5432, "10.0.0.5", "10.0.0.9"),
        *handshake(40002, 5432, "10.0.0.5", "10.3.0.9"),
    )
    for source in ("--instances", "--policy"):
        outcome = sgfast(capsys, "suggest", capture, source, whom)
        assert outcome.status == 2 and "overlap: name the VPC" in outcome.one_line()
    for vpc, group, address in (("one", "10.3.0.9", "10.0.0.9"), ("two", "10.0.0.9", "10.3.0.9")):
        found = suggest([capture], instances=load_instances(whom), vpc=vpc)
        # The database that this VPC sees is in a group; the other one is an address like any outside.
        assert found.check == Check(3, 3, 0, True)
        assert [(each.group, each.rule.direction, str(each.rule.peer)) for each in found.rules] == [
            ("web", "inbound", f"{CLIENT}/32"), ("web", "outbound", "GroupPeer(name='db')"),
            ("web", "outbound", f"{address}/32"), ("db", "inbound", "GroupPeer(name='web')"),
        ], (vpc, group)  # fmt: skip
    outcome = sgfast(capsys, "suggest", capture, "--vpc", "one")
    assert outcome.status == 2 and "unknown VPC 'one'" in outcome.one_line()


# The document


def test_whatever_names_there_are_the_document_is_read_as_what_was_meant() -> None:
    odd = ["null", "true", "1e5", "0x10", "-x", "10.0.0.1", "10.0.0.0", "any", "~", "No", "a-b_c.d", "123", ".5", "-"]
    odd = [name for name in odd if name != "~"]
    instances = tuple(
        Instance(name, f"v{n % 2}", (ip_network(f"10.9.0.{n}"), ip_network("2001:db8::/64"))[: 1 + (n < 2)], (name,))
        for n, name in enumerate(odd)
    )
    text = "tab\t \"quotes\" 'n # all: {of} [it] \\ é \x85 \x7f \u2028 \U0001f600"
    policy = Policy(
        vpcs=(Vpc("v0", "yes"), Vpc("v1", '"region"')), peerings=frozenset((frozenset(("v0", "v1")),)),
        security_groups=tuple(SecurityGroup(name, (), text) for name in odd), instances=instances,
    )  # fmt: skip
    kinds = {
        Kind(a.addresses[0].network_address.packed, b.addresses[0].network_address.packed, a.name, b.name, 6, 80):
        TrafficTotals(1, examples=["\n- {evil: yes}"])
        for a in instances for b in instances if a is not b
    }  # fmt: skip
    for regions in (policy.vpcs, (Vpc("v0"), Vpc("v1"))):
        policy = replace(policy, vpcs=regions)
        found = suggest_rules(policy, kinds, Limits())
        made = replace(policy, security_groups=found.groups)
        read = parse_policy(document(made, found.rules, ["\n- evil"]))
        for part in ("vpcs", "peerings", "instances", "settings"):
            assert getattr(read, part) == getattr(made, part), part
        assert read.security_groups == made.security_groups


def test_settings_that_differ_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("""
version: 1
quotas: {security_groups: 7}
settings: {timeouts: {tcp_established: 60.5}, on_change: keep, infrastructure: filtered}
security_groups: [{name: web}]
instances: [{name: web-1, addresses: [10.0.0.5], security_groups: [web]}]
""")
    loaded = load_policy(path)
    found = suggest([visits(tmp_path, CLIENT)], instances=loaded)
    assert (found.policy.settings, found.policy.quotas) == (loaded.settings, loaded.quotas)


def test_a_policy_that_falls_short_is_told() -> None:
    kind = Kind(b"\x0a\0\0\1", b"\x0a\0\0\2", "a", "b", 6, 80)
    other_kind = kind._replace(port=81)
    again = Observer(all_answered(False), Settings())
    again.wanted = {kind: TrafficTotals(2), other_kind: TrafficTotals(4)}
    denied = "denied whatever the rules: no-rule"
    again.left_out = {"unanswered": {kind: TrafficTotals(1)}, denied: {kind: TrafficTotals(9)}}
    assert _check({kind: TrafficTotals(3)}, again) == Check(3, 2, 5, False)
    assert _check({kind: TrafficTotals(2), other_kind: TrafficTotals(4)}, again) == Check(6, 6, 1, True)


# The command


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    outcome = sgfast(capsys, "suggest", SHOP[1], "--instances", SHOP[0], "-o", policy)
    assert outcome.status == 0 and "allows 27 of 27 connections" in " ".join(outcome.out.split())
    assert sgfast(capsys, "check", policy).status == 0
    assert "27 connections that were seen" in policy.read_text()
    outcome = sgfast(capsys, "suggest", SHOP[1], "--instances", SHOP[0], "-o", "-", "--max-prefix", "24,64")
    assert parse_policy(outcome.out).instances and "Replayed" in outcome.err
    outcome = sgfast(capsys, "suggest", SHOP[1], "--policy", SHOP[0], "--json")
    found = valid("suggestion", json.loads(outcome.out))
    assert found["check"] == {"claimed": 23, "allowed": 23, "also_allowed": 0, "matches": True}
    assert len(found["rules"]) == sum(len(g.rules) for g in parse_policy(found["policy"]).security_groups)


def test_the_same_captures_give_the_same_words_every_time(capsys: pytest.CaptureFixture[str]) -> None:
    texts = {sgfast(capsys, "suggest", PROGRAMS / "network.pcap", "--json").out for _ in range(4)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("-",), "captures are read several times"),
        (("/dev/null",), "captures are read several times"),
        ((SHOP[1], "--policy", SHOP[0], "--instances", SHOP[0]), "leave out --instances"),
        ((SHOP[1], "--from", "allowed"), "needs --policy"),
        ((SHOP[1], "--policy", SHOP[0], "--unanswered"), "--from all"),
        ((SHOP[1], "--max-prefix", "33"), "not a prefix length"),
        ((SHOP[1], "--max-prefix", "24,64,1"), "not a prefix length"),
        ((SHOP[1], "-o", SHOP[1]), "is also an input"),
        (("/nowhere.pcap",), "does not exist"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = sgfast(capsys, "suggest", *arguments)
    assert outcome.status == 2 and cause in outcome.one_line()


def test_a_damaged_capture_is_used_as_far_as_it_goes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capture = visits(tmp_path, CLIENT, CLIENT)
    capture.write_bytes(capture.read_bytes()[:-10])
    outcome = sgfast(capsys, "suggest", capture, "--json")
    assert outcome.status == 3
    assert valid("suggestion", json.loads(outcome.out))["check"]["claimed"] == 2
    empty = write_capture(tmp_path, name="empty.pcap")
    outcome = sgfast(capsys, "suggest", empty, "-o", tmp_path / "x.yaml")
    assert outcome.status == 1 and "no private address" in outcome.messages()[0]
    assert sgfast(capsys, "check", tmp_path / "x.yaml").status == 0
