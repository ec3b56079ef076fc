"""A policy, changes and expectations given as plain values mean what their documents mean (SPEC 14.2, 14.4, 14.6)."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yaml
from command import PCAPS, SHOP

import sgfast
from sgfast.policy.change_file import changes_of
from sgfast.policy.expectations import expectations_of
from sgfast.policy.yaml_nodes import MAX_DEPTH
from sgfast.questions.replaying.expected_verdicts import hold_against
from sgfast.rules.reaching.proving import Expectations
from sgfast.traffic.time_window import parse_window

WEB = {"name": "web", "rules": [{"direction": "inbound", "protocol": "tcp", "ports": 80, "source": "0.0.0.0/0"}]}
SMALL = {
    "version": 1,
    "security_groups": [WEB],
    "instances": [{"name": "web-1", "addresses": ["10.0.0.5"], "security_groups": ["web"]}],
}


def changed(**sections: Any) -> dict[str, Any]:
    return {**SMALL, **sections}


POLICIES = [path for path in sorted(PCAPS.rglob("*.yaml")) if "\ninstances:" in path.read_text()]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_a_document_means_the_same_as_path_text_and_plain_values(path: Path) -> None:
    policy = sgfast.load(path)
    text = path.read_text()
    for source in (str(path), yaml.safe_load(text), policy):
        assert sgfast.load(source) == policy     # wherever it comes from
    in_one_line = json.dumps(yaml.safe_load(text))
    for words in (text, text.encode(), in_one_line):
        assert sgfast.load(text=words) == policy
    assert policy.lines and sgfast.load(text=text).lines == policy.lines


def test_an_export_may_be_plain_values() -> None:
    pages = [json.loads(path.read_text()) for path in sorted((PCAPS / "export").glob("*.json"))]
    wanted = sgfast.load(PCAPS / "export")
    for options in ({}, {"format": "neutron"}):
        found = sgfast.load(pages, **options)
        assert (found.security_groups, found.instances) == (wanted.security_groups, wanted.instances)
    assert sgfast.load(text=json.dumps(pages), format="neutron").instances == wanted.instances


def test_what_an_export_does_not_hold_may_be_nobody_in_plain_values_too() -> None:
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": "sg-9"}]}
    exported = {"SecurityGroups": [{"GroupId": "sg-1", "GroupName": "web", "IpPermissions": [rule]}]}
    for name in ("auto", "aws"):
        with pytest.raises(sgfast.PolicyError, match="security group 'sg-9'"):
            sgfast.load(exported, format=name)
        policy = sgfast.load(exported, format=name, unresolved="empty")
        assert policy.security_groups[0].rules[0].peer == sgfast.GroupPeer("sg-9")


def test_values_of_the_standard_library_stand_for_their_texts() -> None:
    rule = {"direction": "inbound", "protocol": "all", "source": ip_network("192.0.2.0/24")}
    instance = {"name": "web-1", "addresses": (ip_address("2001:db8::5"),), "security_groups": ["web"]}
    policy = sgfast.load(changed(security_groups=[{"name": "web", "rules": [rule]}], instances=[instance]))
    assert policy.security_groups[0].rules[0].peer == ip_network("192.0.2.0/24")
    assert policy.instances[0].addresses == (ip_network("2001:db8::5/128"),)
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    (change,) = changes_of([(at, sgfast.RemoveInstance("web-1"))]).resolve(policy, 0)
    assert change.time_ns == int(at.timestamp()) * 10**9


def test_a_zone_with_seconds_is_taken_wherever_a_datetime_is() -> None:
    """Zones of the database have such offsets before the time of railways."""
    at = datetime(1890, 6, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert at.isoformat().endswith("+00:53:28")
    (change,) = changes_of([(at, sgfast.RemoveInstance("web-1"))]).resolve(sgfast.load(changed()), 0)
    start, _ = parse_window(sgfast.ReadOptions(start=at).start, None)
    assert start is not None and change.time_ns == start.ns == int(at.timestamp()) * 10**9


DEEP: dict[str, Any] = {}
DEEP["version"] = DEEP


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (changed(instances=5), "<policy>: instances: must be a list, not the number 5"),
        (changed(instances=[{"name": "a"}]), "<policy>: instances[0].addresses: is missing"),
        (changed(security_groups=[WEB, WEB]), "<policy>: security_groups[1].name: duplicate name 'web'"),
        (changed(security_groups=[{"name": "\ud800"}]), "<policy>: security_groups[0].name: '\\ud800' is no text"),
        (changed(version=float("nan")), "<policy>: version: must be 1"),
        (changed(version={1}), "<policy>: version: a document cannot hold a value of the type set"),
        (changed(version={1: 2}), "<policy>: version: the key 1 must be a text"),
        (DEEP, f"<policy>: version{'.version' * 24}"[:60]),
        ([], "<policy>: "),
        ({}, "<policy>: version: is missing"),
    ],
)  # fmt: skip
def test_an_error_in_plain_values_names_the_field_and_no_line(source: Any, message: str) -> None:
    with pytest.raises(sgfast.PolicyError) as raised:
        sgfast.load(source)
    text = str(raised.value)
    assert text.isprintable()
    if source is DEEP:
        assert f"nested more than {MAX_DEPTH} levels deep" in text
    else:
        assert text.startswith(message)


@pytest.mark.parametrize("source", [5, object(), {1, 2}])
def test_what_is_no_source_is_an_error_of_its_type(source: Any) -> None:
    for call in (sgfast.load, expectations_of, changes_of):
        with pytest.raises(sgfast.ArgumentTypeError, match=r"^[^\n]* must be (a|the) .*path"):
            call(source)
    with pytest.raises(sgfast.ArgumentTypeError, match=r"^text must be a str or bytes, not"):
        sgfast.load(text=source)
    for arguments in ({}, {"source": "shop.yaml", "text": "version: 1"}):
        with pytest.raises(sgfast.ArgumentTypeError, match=r"^a policy needs either a source or text=$"):
            sgfast.load(**arguments)    # type: ignore[arg-type]


def test_an_unknown_format_is_an_error_that_lists_them() -> None:
    for given in ({"source": PCAPS / "export"}, {"text": "version: 1"}, {"source": {}}):
        with pytest.raises(sgfast.ArgumentError, match=r"^format must be one of auto, otc, .*, not 'foo'$"):
            sgfast.load(**given, format="foo")


def test_a_text_in_the_place_of_a_path_is_told_how_to_be_given(tmp_path: Path) -> None:
    line = "expect: [{from: web, to: db, service: tcp/5432, verdict: allow}]"
    remedies = {sgfast.load: "as text= to sgfast.load", expectations_of: "yaml.safe_load", changes_of: "yaml.safe_load"}
    for call, remedy in remedies.items():
        for text in (line, f"{line}\n", json.dumps(SMALL), line.encode()):
            with pytest.raises(sgfast.ArgumentError, match=rf"^[^\n]* is a text, and not a path: give .*{remedy}"):
                call(text)      # type: ignore[arg-type]
    odd = tmp_path / "a: b"
    odd.write_text(line)
    assert expectations_of(str(odd))


def test_a_text_of_a_client_opens_no_file() -> None:
    """A service would show its client whether there is such a file, and what is in it (SPEC 14.2)."""
    for text in (str(SHOP[0]), "-", "/etc/passwd"):
        with pytest.raises(sgfast.PolicyError, match=r"^<policy>:1: "):
            sgfast.load(text=text)


def test_a_policy_stays_one_value_whoever_made_it() -> None:
    policy = sgfast.load(SHOP[0])
    engine = sgfast.Engine(policy)
    engine.apply({"remove_rule": {"group": "web", "rule": "web-ssh"}}, 0)
    for each in (policy, engine.policy, replace(policy, origin="x"), pickle.loads(pickle.dumps(policy))):
        assert isinstance(each, sgfast.Policy)
        assert each.explain("web-1", "db-1", "tcp/5432").allowed
        assert pickle.loads(pickle.dumps(each)) == each
    assert pickle.loads(pickle.dumps(policy)) == policy != engine.policy
    assert not engine.policy.lines


@pytest.mark.parametrize("name", ["group_by_name", "address_group_by_name", "vpc_by_name", "instance_by_name"])
def test_what_a_policy_keeps_by_name_cannot_be_changed(name: str) -> None:
    """SPEC 14.3. Who keeps it would otherwise change every later answer of the policy, and of its engines."""
    policy = sgfast.load(SHOP[0])
    kept = getattr(policy, name)
    with pytest.raises(TypeError, match="does not support item assignment"):
        kept["new"] = None
    assert "new" not in kept and getattr(policy, name) is kept
    for again in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy), copy.copy(policy)):
        assert again == policy and getattr(again, name) == kept


# Changes --------------------------------------------------------------------------------------------------------------

CHANGES: list[tuple[dict[str, Any], sgfast.Change]] = [
    ({"remove_rule": {"group": "web", "rule": "web-ssh"}}, sgfast.RemoveRule("web", "web-ssh")),
    (
        {"add_address": {"instance": "web-1", "address": "10.0.0.77"}},
        sgfast.AddAddress("web-1", ip_network("10.0.0.77/32")),
    ),
    ({"remove_instance": {"instance": "web-2"}}, sgfast.RemoveInstance("web-2")),
    ({"add_member": {"group": "db", "instance": "web-1"}}, sgfast.AddMember("db", "web-1")),
    ({"add_group": {"name": "new"}}, sgfast.AddGroup(sgfast.SecurityGroup("new"))),
    ({"add_member": {"group": "new", "instance": "web-1"}}, sgfast.AddMember("new", "web-1")),
]


def test_a_mapping_changes_an_engine_as_its_class_does() -> None:
    policy = sgfast.load(SHOP[0])
    by_mapping, by_class = sgfast.Engine(policy), sgfast.Engine(policy)
    for mapping, change in CHANGES:
        by_mapping.apply(mapping, 0)
        by_class.apply(change, 0)
        assert by_mapping.policy == by_class.policy
    # The last one names a group that the one before it makes.
    for first in range(2):
        together = sgfast.Engine(policy)
        together.apply([pair[(n + first) % 2] for n, pair in enumerate(CHANGES)], 0)
        assert together.policy == by_class.policy


def test_each_of_many_mappings_is_read_for_itself() -> None:
    """Readers know nodes by their place in memory, which the next mapping's may have."""
    engine = sgfast.Engine(SMALL)
    engine.apply([{"add_address": {"instance": "web-1", "address": f"10.7.0.{n}"}} for n in range(200)], 0)
    assert len(engine.policy.instances[0].addresses) == 201


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"remove_rule": {"group": "wbe", "rule": "x"}}, "<changes>: changes[0].remove_rule.group: unknown security"),
        ({}, "<changes>: changes[0]: has 0 operations: write exactly one of add_rule,"),
        ({"remove_rules": {}}, "<changes>: changes[0]: unknown key 'remove_rules' (did you mean 'remove_rule'?)"),
        ({"at": 5, **CHANGES[0][0]}, "<changes>: changes[0].at: now_ns says when: leave it out"),
        (
            {"add_address": {"instance": "web-1", "address": "10.0.1.9"}},
            "<changes>: changes[0].add_address: 10.0.1.9/32 already belongs to instance 'db-1'",
        ),
        (sgfast.RemoveInstance("nobody"), "<changes>: changes[0].remove_instance: unknown instance 'nobody'"),
    ],
)
def test_what_is_no_change_is_refused_with_its_number_and_nothing_changes(change: Any, message: str) -> None:
    policy = sgfast.load(SHOP[0])
    engine = sgfast.Engine(policy)
    for given in ([change, CHANGES[0][1]], [CHANGES[0][1], change]):
        with pytest.raises(sgfast.PolicyError) as raised:
            engine.apply(given, 0)
        assert str(raised.value).startswith(message.replace("[0]", f"[{given.index(change)}]"))
        assert engine.policy is policy


@pytest.mark.parametrize(
    ("mapping", "change", "message"),
    [
        ({"remove_rule": {"group": "web", "rule": "web/inbound/2"}}, sgfast.RemoveRule("web", "web/inbound/2"),
         "security group 'web' has no rule 'web/inbound/2' (did you mean 'web/inbound/1'?)"),
        ({"remove_group": {"group": "wbe"}}, sgfast.RemoveGroup("wbe"),
         "unknown security group 'wbe' (did you mean 'web'?)"),
        ({"remove_instance": {"instance": "web-9"}}, sgfast.RemoveInstance("web-9"),
         "unknown instance 'web-9' (did you mean 'web-1'?)"),
        ({"add_peering": ["defualt", "b"]}, sgfast.AddPeering("defualt", "b"),
         "unknown VPC 'defualt' (did you mean 'default'?)"),
        ({"set_address_group": {"name": "some", "addresses": []}}, sgfast.SetAddressGroup("some", ()),
         "unknown address group 'some'"),
    ],
)  # fmt: skip
def test_what_a_change_names_and_nobody_has_is_told_alike_and_not_to_be_defined(
    mapping: dict[str, Any], change: sgfast.Change, message: str
) -> None:
    for given in (mapping, change):
        with pytest.raises(sgfast.PolicyError) as raised:
            sgfast.Engine(SMALL).apply(given, 0)
        assert str(raised.value).endswith(f": {message}")


NETWORK = ip_network("10.0.9.9/32")


def rule(**fields: Any) -> sgfast.Change:
    return sgfast.AddRule("web", replace(sgfast.Rule("", "inbound", 4, protocol=6), **fields))


def group(name: str = "new", **fields: Any) -> sgfast.Change:
    return sgfast.AddGroup(sgfast.SecurityGroup(name, **fields))


def instance(**fields: Any) -> sgfast.Change:
    return sgfast.AddInstance(replace(sgfast.Instance("new", "default", (NETWORK,), ("web",)), **fields))


EVIL = "x\ntouch made\n#"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sgfast.AddAddress("web-1", "10.0.0.7"), "add_address.address must be of the type IPv4Network | IPv6Network,"),  # type: ignore[arg-type]
        (sgfast.RemoveInstance(5), "remove_instance.instance must be of the type str, not 5"),  # type: ignore[arg-type]
        (
            sgfast.AddInstance(sgfast.Instance("a", "default", (NETWORK,), "web")),  # type: ignore[arg-type]
            "add_instance.instance.security_groups must be of the type tuple[str, ...], not 'web'",
        ),
        (
            sgfast.AddGroup(sgfast.SecurityGroup("g", (sgfast.Rule("", "inbnd", 4),))),  # type: ignore[arg-type]
            "add_group.group.rules[0].direction must be inbound or outbound, not 'inbnd'",
        ),
        (rule(ports=(22,)), "add_rule.rule.ports must be of the type tuple[tuple[int, int], ...] | None, not (22,)"),
        (rule(ports=((0, 65536),)), "add_rule.rule.ports must be ranges from 0 to 65535, not ((0, 65536),)"),
        (rule(ports=()), "add_rule.rule.ports must be ranges from 0 to 65535, not ()"),
        (rule(protocol=256), "add_rule.rule.protocol must be 0 to 255, not 256"),
        (rule(priority=0), "add_rule.rule.priority must be 1 to 100, not 0"),
        (rule(wording=frozenset({"x"})), "add_rule.rule.wording must be of the type frozenset[Literal["),
        (rule(peer="0.0.0.0/0"), "add_rule.rule.peer must be of the type IPv4Network | IPv6Network | GroupPeer | "),
        (rule(peer=ip_network("::/0")), "add_rule.rule.peer must be IPv4 as the rule's ethertype is, not ::/0"),
        # A combination that no document can have, and that the engine and the reference would read in two ways.
        (rule(protocol=None, ports=((22, 22),)), "add_rule.rule.ports: all protocols has no ports; only tcp, udp, "),
        (rule(protocol=1, ports=((22, 22),)), "add_rule.rule.ports: icmp has no ports; only tcp, udp, udplite, sctp "),
        (rule(protocol=None, icmp_type=8), "add_rule.rule.icmp_type: only allowed in a rule for icmp or icmpv6"),
        (rule(icmp_code=0), "add_rule.rule.icmp_code: only allowed in a rule for icmp or icmpv6"),
        (rule(protocol=1, icmp_code=3), "add_rule.rule.icmp_code: needs an icmp_type"),
        (rule(protocol=58), "add_rule.rule.protocol must be 1 for ICMP in an IPv4 rule, not 58"),
        (rule(ethertype=6, protocol=1), "add_rule.rule.protocol must be 58 for ICMP in an IPv6 rule, not 1"),
        (rule(protocol=True), "add_rule.rule.protocol must be of the type int | None, not True"),
        (rule(ethertype=4.0), "add_rule.rule.ethertype must be 4 or 6, not 4.0"),
        (instance(addresses=()), "add_instance.instance.addresses must list at least one address"),
        (instance(addresses=(NETWORK, NETWORK)), "add_instance.instance.addresses has '10.0.9.9/32' 2 times: list it"),
        (instance(security_groups=("web", "web")), "add_instance.instance.security_groups has 'web' 2 times: list it"),
        # A text that would go on behind its place in a script or a report.
        (group(EVIL), "add_group.group.name must be a name of 1 to 64 letters, digits and _ - ., not 'x\\n"),
        (group(""), "add_group.group.name must be a name of 1 to 64 letters, digits and _ - ., not ''"),
        (group(label=EVIL), "add_group.group.label must be a printable text of 1 to 255 characters, not 'x\\n"),
        (group(description="x" * 256), "add_group.group.description has 256 characters, but at most 255 are allowed"),
        (rule(id=EVIL), "add_rule.rule.id must be 1 to 100 letters, digits and _ - . / (a string), not 'x\\n"),
        (rule(description="<b>"), "add_rule.rule.description must contain neither < nor >"),
        (instance(name=EVIL), "add_instance.instance.name must be a name of 1 to 64 letters, digits and _ - ., not "),
        (instance(device=EVIL), "add_instance.instance.device must be a printable text of 1 to 255 characters, not 'x"),
        (instance(addresses=(ip_network("fe80::1%a"),)), "add_instance.instance.addresses[0] must have no zone (%), "),
        (sgfast.AddAddress("web-1", ip_network("fe80::1%a")), "add_address.address must have no zone (%), not 'a'"),
    ],
)
def test_a_class_with_a_value_that_it_cannot_hold_is_refused_before_anything_changes(
    change: sgfast.Change, message: str
) -> None:
    engine = sgfast.Engine(SMALL)
    policy = engine.policy
    for call in (lambda: engine.apply(change, 0), lambda: changes_of([(0, change)])):
        with pytest.raises((sgfast.ArgumentError, sgfast.ArgumentTypeError)) as raised:
            call()
        assert str(raised.value).startswith(f"changes[0].{message}") and str(raised.value).isprintable()
    assert engine.policy is policy


def test_numbers_of_numpy_and_what_a_document_makes_are_values_that_a_class_can_hold() -> None:
    engine = sgfast.Engine(SMALL)
    port = np.uint16(22)
    engine.apply(rule(ports=((port, port),), peer=sgfast.GroupPeer("web"), wording=frozenset({"icmp"})), 0)
    assert not engine.check("198.51.100.7", "10.0.0.5", "tcp", dport=22).allowed
    engine.apply(rule(ports=((port, port),)), 0)
    assert engine.check("198.51.100.7", "10.0.0.5", "tcp", dport=22).allowed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([sgfast.RemoveInstance("web-1")], "changes[0]: write a pair (at, change), or a mapping with its time, not R"),
        ((1, sgfast.RemoveInstance("web-1")), "changes[0]: write a pair (at, change), or a mapping with its time, no"),
        ([(1, 2, CHANGES[0][1])], "changes[0]: write a pair (at, change), or a mapping with its time, not (1, 2"),
        ([CHANGES[0][0]], "<changes>: changes[0].at: is missing"),
        ([(1, {"at": 2, **CHANGES[0][0]})], "<changes>: changes[0].at: the pair says when: leave it out"),
    ],
)
def test_changes_without_their_times_are_refused_and_told_how_to_be_written(changes: Any, message: str) -> None:
    with pytest.raises(sgfast.SgfastError) as raised:
        changes_of(changes)
    assert str(raised.value).startswith(message) and str(raised.value).isprintable()


def test_a_replay_takes_changes_as_file_values_and_classes(tmp_path: Path) -> None:
    timed = [{"at": n, **mapping} for n, (mapping, _) in enumerate(CHANGES)]
    text = yaml.safe_dump({"changes": timed})
    file = tmp_path / "changes.yaml"
    file.write_text(text)
    pairs = (
        [(n, change) for n, (_, change) in enumerate(CHANGES)],
        [[n, mapping] for n, (mapping, _) in enumerate(CHANGES)],
    )
    found = []
    for changes in (file, {"changes": timed}, timed, *pairs):
        result = sgfast.replay(SHOP[0], SHOP[1], changes=changes)
        found.append((result.verdicts, [(change.time_ns, change.text) for change in result.changes]))
    assert len(found[0][1]) == len(CHANGES) and found == [found[0]] * len(found)
    # A class that cannot be applied is named by its number and its operation, before any packet is judged.
    with pytest.raises(sgfast.PolicyError, match=r"^<changes>: changes\[1\]\.remove_instance: "):
        sgfast.replay(SHOP[0], SHOP[1], changes=[timed[0], (2, sgfast.RemoveInstance("nobody"))])


def test_expectations_may_be_a_list_and_those_of_one_place_are_told_apart() -> None:
    expectation = {"from": "web", "to": "db", "service": "tcp/5432", "verdict": "allow"}
    assert expectations_of([expectation]) == expectations_of({"expect": [expectation]})
    with pytest.raises(sgfast.PolicyError, match=r"^<expectations>: expect\[1\]\.name: duplicate name 'a'$"):
        expectations_of([{**expectation, "name": "a"}] * 2)
    with pytest.raises(sgfast.PolicyError, match=r"^<expectations>: expect\[0\]\.from: 'wbe' is no instance"):
        sgfast.load(SHOP[0]).test([{**expectation, "from": "wbe"}])
    # Nothing has a line here, and each one is counted for itself.
    policy = sgfast.load(SHOP[0])
    result = policy.replay(SHOP[1])
    meant = [
        {**expectation, "verdict": "deny"},
        {"from": "any", "to": "web", "service": "tcp/8080", "verdict": "allow"},
    ]
    hold_against(result, Expectations(policy, expectations_of(meant)))
    assert result.expected is not None
    assert [each.expectation.verdict for each in result.expected.contradicted] == ["deny", "allow"]
