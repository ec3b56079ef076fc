"""The work that a document causes grows no faster than the document: twice as much of anything takes at most 2.5 times
the work (SPEC 11). Work is counted in calls, not in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command import PCAPS, handshake, write_capture
from growth import operations

from sgfast import Engine, replay
from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.reading import import_sources
from sgfast.clouds.importing.sources import source_of
from sgfast.clouds.loading import parse_policy
from sgfast.policy.change_file import parse_changes
from sgfast.policy.changes import RemoveRule
from sgfast.policy.expectations import parse_expectations
from sgfast.questions.checking import check_policy
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.suggesting import load_instances, suggest
from sgfast.questions.suggesting.first_expectations import first_expectations
from sgfast.rules.reaching.explaining import explain
from sgfast.rules.reaching.proving import Expectations

SMALL = 150

HEAD = "version: 1\nquotas: {rules_per_group: 1000000, security_groups: 1000000}\n"
WEB = "security_groups:\n  - {name: g, rules: [{direction: inbound, protocol: tcp, ports: 80, source: g}]}\n"
ONE = "instances: [{name: a, addresses: [10.0.0.1], security_groups: [g]}]\n"


def address(n: int) -> str:
    return f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"


def colliding(n: int) -> str:
    """An IPv6 address that is equal to all others of these modulo 2**61 - 1, of which Python makes a network's hash."""
    value = (0x20010DB8 << 96) // (2**61 - 1) * (2**61 - 1) + n * (2**61 - 1)
    return ":".join(f"{value >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))


def rules(lines: list[str]) -> str:
    return HEAD + "security_groups:\n  - name: g\n    rules:\n" + "".join(f"      - {line}\n" for line in lines) + ONE


def instances(lines: list[str], groups: str = WEB) -> str:
    return HEAD + groups + "instances:\n" + "".join(f"  - {line}\n" for line in lines)


def groups(n: int) -> str:
    lines = [
        f"  - {{name: g{i}, rules: [{{direction: inbound, protocol: tcp, ports: {i + 1}, source: 10.0.0.0/8}}]}}\n"
        for i in range(n)
    ]
    return instances(
        [f"{{name: i{i}, addresses: [{address(i)}], security_groups: [g{i}]}}" for i in range(n)],
        "security_groups:\n" + "".join(lines),
    )


def members(n: int) -> str:
    return instances([f"{{name: i{i}, addresses: [{address(i)}], security_groups: [g]}}" for i in range(n)])


def members_with_words(n: int) -> str:
    return instances([
        f"{{name: i{i}, id: eni-{i}, device: vm-{i}, label: web {i}, addresses: [{address(i)}], security_groups: [g]}}"
        for i in range(n)
    ])  # fmt: skip


def addresses_with_equal_hashes(n: int) -> str:
    return instances([f'{{name: i{i}, addresses: ["{colliding(i)}"], security_groups: [g]}}' for i in range(n)])


def addresses_of_one_instance(n: int) -> str:
    return instances([f"{{name: a, addresses: [{', '.join(map(address, range(n)))}], security_groups: [g]}}"])


def vpcs_that_share_a_group(n: int) -> str:
    names = ", ".join(f"{{name: v{i}}}" for i in range(n))
    return f"vpcs: [{names}]\n".join(("", instances(
        [f"{{name: i{i}, vpc: v{i}, addresses: [{address(i)}], security_groups: [g]}}" for i in range(n)]
    )))  # fmt: skip


def peerings(n: int) -> str:
    pairs = ", ".join(f"[v0, v{i}]" for i in range(1, n))
    return f"peerings: [{pairs}]\n" + vpcs_that_share_a_group(n)


def rules_with_ports(n: int) -> str:
    return rules([f"{{direction: inbound, protocol: tcp, ports: {i + 1}, source: 0.0.0.0/0}}" for i in range(n)])


def rules_with_cidrs(n: int) -> str:
    return rules([f"{{direction: inbound, protocol: tcp, ports: 80, source: {address(i)}}}" for i in range(n)])


def port_ranges(n: int) -> str:
    listed = ",".join(str(2 * i + 1) for i in range(n))
    return rules([f'{{direction: inbound, protocol: tcp, ports: "{listed}", source: 0.0.0.0/0}}'])


def address_group(n: int) -> str:
    listed = ", ".join(map(address, range(n)))
    return f"address_groups: [{{name: many, addresses: [{listed}]}}]\n" + rules(
        ["{direction: inbound, protocol: tcp, ports: 80, source: many}"]
    )


POLICIES: list[Callable[[int], str]] = [
    groups, members, members_with_words, addresses_with_equal_hashes, addresses_of_one_instance,
    vpcs_that_share_a_group, peerings, rules_with_ports, rules_with_cidrs, port_ranges, address_group,
]  # fmt: skip


def assert_near_linear(work: Callable[[int], Any], small: int = SMALL) -> None:
    # Once without counting: what is imported or cached now is not counted for either.
    work(2)
    one, two = (operations(lambda n=n: work(n)) for n in (small, 2 * small))
    print(f"{one:,} calls for {small}, {two:,} for {2 * small}")
    assert one > small
    assert two <= 2.5 * one


@pytest.mark.parametrize("document", POLICIES, ids=lambda document: document.__name__)
@pytest.mark.parametrize("used", [lambda policy: Engine(policy, vpc="v0" if len(policy.vpcs) > 1 else None),
                                  check_policy], ids=["engine", "check"])  # fmt: skip
def test_policies(used: Callable[[Any], Any], document: Callable[[int], str]) -> None:
    assert_near_linear(lambda n: used(parse_policy(document(n))))


@pytest.mark.parametrize("action", ["ACCEPT", "REJECT"])
def test_one_line_of_a_flow_log_again_and_again(action: str, tmp_path: Path) -> None:
    policy = parse_policy((PCAPS / "shop.yaml").read_text())
    log = tmp_path / "log"

    def check(n: int) -> None:
        log.write_text(f"2 1 eni-1 198.51.100.7 10.0.0.5 20641 22 6 20 4249 1418530010 1418530070 {action} OK\n" * n)
        records = replay(policy, log).records
        assert records is not None and records.read == n

    assert_near_linear(check)


def test_changes_of_groups_that_change_once_each(tmp_path: Path) -> None:
    changes = tmp_path / "changes.yaml"

    def apply(n: int) -> None:
        rule = "{direction: inbound, protocol: tcp, ports: 99, source: 0.0.0.0/0}"
        changes.write_text("changes:\n" + "".join(
            f"  - {{at: 0, add_rule: {{group: g{i}, rule: {rule}}}}}\n" for i in range(n)
        ))  # fmt: skip
        replay(parse_policy(groups(SMALL)), PCAPS / "shop.pcap", changes=changes)

    assert_near_linear(apply, 40)


def added_rules(n: int) -> list[str]:
    return [
        f"{{at: {i}, add_rule: {{group: g, rule: {{direction: inbound, protocol: tcp, ports: {i % 60000 + 1}, "
        f"source: {address(2**17 + i)}}}}}}}" for i in range(n)
    ]  # fmt: skip


def removed_rules(n: int) -> list[str]:
    return [f"{{at: {i}, remove_rule: {{group: g, rule: g/inbound/{i + 1}}}}}" for i in range(n)]


def modified_rules(n: int) -> list[str]:
    return [
        f"{{at: {i}, modify_rule: {{group: g, rule: g/inbound/{i + 1}, set: {{priority: 2, ports: {i + 9000}}}}}}}"
        for i in range(n)
    ]


def changed_members(n: int) -> list[str]:
    return [f"{{at: {i}, {kind}: {{group: h, instance: a}}}}" for i, kind in zip(range(n), n * MEMBER, strict=False)]


def added_addresses(n: int) -> list[str]:
    return [f"{{at: {i}, add_address: {{instance: a, address: {address(2**17 + i)}}}}}" for i in range(n)]


MEMBER = ["add_member", "remove_member"]


@pytest.mark.parametrize("changes", [added_rules, removed_rules, modified_rules, changed_members, added_addresses],
                         ids=lambda changes: changes.__name__)  # fmt: skip
def test_as_many_changes_as_a_group_has_rules(changes: Callable[[int], list[str]]) -> None:
    def apply(n: int) -> None:
        before = parse_policy(rules_with_cidrs(n).replace("instances:", "  - {name: h, rules: []}\ninstances:"))
        file = parse_changes("changes:\n" + "".join(f"  - {line}\n" for line in changes(n)))
        engine = Engine(before)
        for timed in file.resolve(before, 0):
            engine.apply(timed.change, timed.time_ns)

    assert_near_linear(apply, 50)


def test_changes_of_instances_that_are_named_by_other_words() -> None:
    """SPEC 2.12."""

    def resolve(n: int) -> None:
        before = parse_policy(members_with_words(n).replace("instances:", "  - {name: h, rules: []}\ninstances:"))
        words = [("eni-%d", "vm-%d", "web %d")[i % 3] % i for i in range(n)]
        changes = "".join(f"  - {{at: 0, add_member: {{group: h, instance: {word}}}}}\n" for word in words)
        assert len(parse_changes("changes:\n" + changes).resolve(before, 0)) == n

    assert_near_linear(resolve, 50)


@pytest.mark.parametrize("word", ["vm-1", "web 1", "vm_1"])
def test_an_instance_is_looked_for_by_every_word_or_assumed(word: str) -> None:
    """SPEC 2.12 and 10.13."""

    def ask(n: int) -> None:
        policy = parse_policy(members_with_words(n))
        with suppress(PolicyError):
            explain(policy, word, "192.0.2.1", "tcp", port=80, as_if_in=["g"])

    assert_near_linear(ask)


def test_removing_a_rule_that_overlaps_all_others() -> None:
    def removed(n: int) -> int:
        wide = "{direction: inbound, protocol: tcp, ports: 1-60000, source: 10.0.0.0/8}"
        narrow = [f"{{direction: inbound, protocol: tcp, ports: {i + 1}, source: {address(i)}}}" for i in range(n)]
        engine = Engine(parse_policy(rules([wide, *narrow])))
        return operations(lambda: engine.apply(RemoveRule("g", "g/inbound/1"), 0))

    assert removed(600) <= 2.5 * removed(300)


def test_different_lines_of_a_flow_log(tmp_path: Path) -> None:
    policy = parse_policy((PCAPS / "shop.yaml").read_text())
    log = tmp_path / "log"

    def check(n: int) -> None:
        log.write_text("".join(
            f"2 1 eni-{i} {address(i)} 10.0.0.5 {i + 1} 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n"
            for i in range(n)
        ))  # fmt: skip
        records = replay(policy, log).records
        assert records is not None and records.read == n

    assert_near_linear(check)


def test_ranges_of_an_address_group() -> None:
    def read(n: int) -> None:
        # Each range needs four prefixes.
        ranges = [f"10.{i >> 8}.{i & 255}.1-10.{i >> 8}.{i & 255}.6" for i in range(n)]
        Draft("otc").address_group(Location("export", "address group", "a"), ranges)

    assert_near_linear(read)


@pytest.mark.parametrize("rule", ["{direction: inbound, protocol: tcp, ports: %d, source: 0.0.0.0/0}",
                                  "{direction: inbound, protocol: tcp, ports: %d, source: 10.0.0.0/8, priority: 2}"],
                         ids=["open", "redundant"])  # fmt: skip
def test_findings_of_a_check(rule: str) -> None:
    def check(n: int) -> None:
        found = check_policy(parse_policy(rules(2 * [rule % (i + 1) for i in range(n)])))
        assert len(found.findings) >= n

    assert_near_linear(check, 60)


def test_pairs_of_addresses_in_a_suggestion(tmp_path: Path) -> None:
    instances = tmp_path / "instances.yaml"
    instances.write_text("version: 1\ninstances: [{name: web, addresses: [10.0.0.5], security_groups: [web]}]\n"
                         "security_groups: [{name: web, rules: []}]\n")  # fmt: skip

    def find(n: int) -> None:
        frames = [
            frame for i in range(n)
            for frame in handshake(4000 + i, 443, f"198.51.{i >> 8}.{i & 255}", "10.0.0.5")
        ]  # fmt: skip
        suggest([write_capture(tmp_path, *frames)], instances=load_instances(instances))

    assert_near_linear(find, 60)


def test_values_of_an_export() -> None:
    def read(n: int) -> None:
        export = {"security_groups": [
            {"id": f"{i}", "name": f"g{i}", "security_group_rules": [
                {"id": f"r{i}", "security_group_id": f"{i}", "direction": "ingress", "ethertype": "IPv4",
                 "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
            ]} for i in range(n)
        ]}  # fmt: skip
        import_sources([source_of(json.dumps(export).encode(), "export")], "neutron").policy()

    assert_near_linear(read, 100)


def test_routes_of_a_transit_gateway() -> None:
    """Many routes to parts of a block that several VPCs have."""
    ends = [f"att-{n}" for n in range(10)]
    attached = [
        {"TransitGatewayAttachmentId": end, "TransitGatewayId": "tgw-1", "VpcId": f"v{end}"} for end in ends
    ]  # fmt: skip
    table = "TransitGatewayRouteTableId"
    known = {
        "TransitGatewayVpcAttachments": attached,
        "Vpcs": [{"VpcId": f"v{end}", "CidrBlock": "10.0.0.0/8"} for end in ends],
        "Associations": [{"TransitGatewayAttachmentId": end} for end in ends],
        "TransitGatewayRouteTablePropagations": [{"TransitGatewayAttachmentId": end} for end in ends],
        table: "tgw-rtb-1",
    }

    def read(n: int) -> None:
        to = [{"TransitGatewayAttachmentId": "att-0"}]
        routes = [{"DestinationCidrBlock": f"{address(i)}/32", "TransitGatewayAttachments": to} for i in range(n)]
        text = json.dumps(known | {"Routes": routes})
        assert len(import_sources([source_of(text.encode(), "export")], "aws").policy().peerings) == 45

    assert_near_linear(read, 100)


def test_expectations_of_one_policy() -> None:
    policy = parse_policy((PCAPS / "shop.yaml").read_text())

    def prove(n: int) -> None:
        lines = [f"{{from: any, to: web, service: tcp/{i + 1}, verdict: deny}}" for i in range(n)]
        outcomes = Expectations(policy, parse_expectations(f"expect: [{', '.join(lines)}]")).prove().outcomes
        assert len(outcomes) == n

    assert_near_linear(prove, 4)


def test_sources_of_an_expectation() -> None:
    policy = parse_policy((PCAPS / "shop.yaml").read_text())

    def prove(n: int) -> None:
        sources = ", ".join(f"192.0.{i >> 8}.{i & 255}" for i in range(n))
        text = f"expect: [{{from: [{sources}], to: db, service: all, verdict: deny}}]"
        assert Expectations(policy, parse_expectations(text)).prove().outcomes[0].word == "holds"

    assert_near_linear(prove)


def test_pairs_of_addresses_in_a_first_expectations_file(tmp_path: Path) -> None:
    policy = parse_policy((PCAPS / "shop.yaml").read_text())

    def write(n: int) -> None:
        frames = [
            frame for i in range(n)
            for frame in handshake(4000 + i, 80, f"10.9.0.{i}", "10.0.0.5")
        ]  # fmt: skip
        found = first_expectations(policy, [write_capture(tmp_path, *frames)], ReplayOptions())
        assert found.text.count("10.9.0.") == n

    assert_near_linear(write, 10)
