"""The change file (SPEC 9.5): its meaning, and its errors, which name file, line and change."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network

import pytest
from scenario import policy_of

from sgfast.base.errors import PolicyError
from sgfast.policy import yaml_nodes
from sgfast.policy.change_file import TimedChange, parse_changes
from sgfast.policy.changed_policy import apply_changes
from sgfast.policy.changes import AddRule, Change, ModifyRule, SetAddressGroup
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Instance, Rule

SECOND = 10**9
FIRST = 1_700_000_000 * SECOND
POLICY = policy_of("""
quotas: {rules_per_group: 6}
vpcs: [{name: vpc-1}, {name: vpc-2}]
address_groups: [{name: offices, addresses: [192.0.2.0/24]}]
security_groups:
  - name: sg-AB
    rules:
      - {direction: inbound, protocol: all, source: sg-AB}
      - {direction: inbound, protocol: tcp, ports: 22, source: 0.0.0.0/0, description: "log in"}
      - {direction: inbound, protocol: tcp, ports: "80,8000-8080", source: offices, priority: 7, action: deny}
  - {name: other, rules: [{direction: outbound, protocol: icmp, icmp_type: 8, icmp_code: 0}]}
instances:
  - {name: web-1, vpc: vpc-1, addresses: [10.0.0.5], security_groups: [sg-AB]}
  - {name: db-1, vpc: vpc-1, addresses: [10.0.0.6], security_groups: [other]}
""")


def resolved(text: str) -> list[TimedChange]:
    return parse_changes(text, "changes.yaml").resolve(POLICY, FIRST)


def changes(text: str) -> list[Change]:
    return [timed.change for timed in resolved(text)]


def test_the_example_of_the_specification() -> None:
    found = resolved("""
changes:
  - {at: 12.5, add_rule: {group: sg-AB, rule: {direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0}}}
  - {at: 20, remove_rule: {group: sg-AB, rule: sg-AB/inbound/2}}
  - {at: 25, modify_rule: {group: sg-AB, rule: sg-AB/inbound/3, set: {source: 10.0.0.0/8}}}
  - {at: 30, add_member: {group: sg-AB, instance: db-1}}
  - {at: 40, remove_member: {group: sg-AB, instance: db-1}}
""")
    assert [(timed.time_ns - FIRST) / SECOND for timed in found] == [12.5, 20, 25, 30, 40]
    assert [timed.text for timed in found] == [
        "add_rule sg-AB/inbound/4", "remove_rule sg-AB/inbound/2", "modify_rule sg-AB/inbound/3",
        "add_member sg-AB db-1", "remove_member sg-AB db-1",
    ]  # fmt: skip
    assert found[0].place == "changes.yaml:3: changes[0].add_rule"
    after = apply_changes(POLICY, [timed.change for timed in found]).policy
    assert [rule.id for rule in after.group_by_name["sg-AB"].rules] == [
        "sg-AB/inbound/1", "sg-AB/inbound/3", "sg-AB/inbound/4"
    ]  # fmt: skip


def test_every_other_operation() -> None:
    after = apply_changes(POLICY, changes("""
changes:
  - {at: 1, add_peering: [vpc-1, vpc-2]}
  - {at: 2, add_group: {name: new, template: all-ports-open, rules: [{direction: inbound, protocol: gre, source: new}]}}
  - {at: 3, add_instance: {name: vm, vpc: vpc-2, addresses: [10.1.0.0/24, "2001:db8::1"], security_groups: [new]}}
  - {at: 4, add_address: {instance: vm, address: 10.2.0.1}}
  - {at: 5, remove_address: {instance: vm, address: 10.1.0.0/24}}
  - {at: 6, set_address_group: {name: offices, addresses: [198.51.100.7]}}
""")).policy
    assert after.peerings == {frozenset(("vpc-1", "vpc-2"))}
    assert after.instance_by_name["vm"] == Instance(
        "vm", "vpc-2", (ip_network("2001:db8::1/128"), ip_network("10.2.0.1/32")), ("new",)
    )
    assert len(after.group_by_name["new"].rules) > 3
    assert after.address_group_by_name["offices"].addresses == (ip_network("198.51.100.7/32"),)
    undone = parse_changes("""
changes:
  - {at: 7, remove_instance: {instance: vm}}
  - {at: 8, remove_group: {group: new}}
  - {at: 9, remove_peering: [vpc-2, vpc-1]}
""").resolve(after, 0)
    after = apply_changes(after, [timed.change for timed in undone]).policy
    assert (after.instances, after.security_groups, after.peerings) == (
        POLICY.instances, POLICY.security_groups, POLICY.peerings
    )  # fmt: skip


def test_times_are_sorted_and_equal_ones_keep_their_order() -> None:
    found = resolved("""
changes:
  - {at: 2023-11-14T22:13:50Z, add_member: {group: other, instance: web-1}}
  - {at: 30.000000001, remove_member: {group: other, instance: web-1}}
  - {at: -1, add_member: {group: sg-AB, instance: db-1}}
  - {at: "2023-11-14 23:13:50.000000000+01:00", remove_member: {group: sg-AB, instance: db-1}}
""")
    assert [(timed.time_ns - FIRST, timed.text) for timed in found] == [
        (-SECOND, "add_member sg-AB db-1"),
        (30 * SECOND, "add_member other web-1"),
        (30 * SECOND, "remove_member sg-AB db-1"),
        (30 * SECOND + 1, "remove_member other web-1"),
    ]


# The fields written, and the resulting rule for sg-AB/inbound/3 (deny tcp 80,8000-8080 from offices, priority 7).
MODIFIED = {
    "{source: 10.0.0.0/8}": {"peer": ip_network("10.0.0.0/8")},
    "{source: {group: other}}": {"peer": GroupPeer("other")},
    "{source: null}": {"peer": None},
    "{ports: null}": {"ports": None},
    "{ports: 81}": {"ports": ((81, 81),)},
    "{ports: 0-80}": {"ports": ((1, 80),)},
    "{action: null, priority: null}": {"action": "allow", "priority": 1},
    "{protocol: udp}": {"protocol": 17},
    "{protocol: icmp, ports: null, icmp_type: 8}": {"protocol": 1, "ports": None, "icmp_type": 8},
    "{description: why}": {"description": "why"},
    "{ethertype: null, source: '2001:db8::/32'}": {"ethertype": 6, "peer": ip_network("2001:db8::/32")},
    "{}": {},
}


@pytest.mark.parametrize("text", MODIFIED)
def test_modify_merges_and_null_clears(text: str) -> None:
    [change] = changes(f"changes: [{{at: 1, modify_rule: {{group: sg-AB, rule: sg-AB/inbound/3, set: {text}}}}}]")
    assert isinstance(change, ModifyRule)
    old = {
        "direction": "inbound", "ethertype": 4, "protocol": 6, "ports": ((80, 80), (8000, 8080)),
        "peer": AddressGroupPeer("offices"), "action": "deny", "priority": 7,
    }  # fmt: skip
    assert change.new == Rule("", **(old | MODIFIED[text]))  # type: ignore[arg-type]


ANY4, ANY6, NET4, NET6 = "0.0.0.0/0", '"::/0"', "10.0.0.0/8", '"2001:db8::/32"'
# The rule as written, the changes to it, and the final ethertype, protocol and peer.
MERGED: dict[str, tuple[str, list[str], tuple[int, int | None, str | None]]] = {
    "IPv6 to anywhere follows its address": (f"ethertype: IPv6, source: {ANY6}", ["ethertype: null"], (6, None, None)),
    "anywhere in IPv6 taken away": (f"source: {ANY6}", ["source: null"], (4, None, None)),
    "anywhere in IPv4 becomes another address": (f"source: {ANY4}", [f"source: {NET6}"], (6, None, "2001:db8::/32")),
    "an address of the other family": (f"source: {NET4}", [f"source: {NET6}"], (6, None, "2001:db8::/32")),
    "back again": (f"source: {NET6}", [f"source: {NET4}", f"source: {NET6}"], (6, None, "2001:db8::/32")),
    "icmpv6 without an address": (f"protocol: icmpv6, source: {NET6}", ["source: null"], (6, 58, None)),
    "icmpv6 goes": (f"protocol: icmpv6, source: {NET6}", ["protocol: tcp, source: null"], (4, 6, None)),
    "icmp follows": (f"protocol: icmp, source: {NET6}", [f"source: {NET4}"], (4, 1, "10.0.0.0/8")),
    "icmp without an address": (f"protocol: icmp, source: {NET6}", ["source: null"], (4, 1, None)),
    "icmp in IPv6 stays": ("protocol: icmp, ethertype: IPv6", ["priority: 2"], (6, 58, None)),
    "IPv6 stays with a group": ("ethertype: IPv6, source: sg-AB", ["source: null"], (6, None, None)),
    "IPv6 goes": ("ethertype: IPv6, source: sg-AB", ["ethertype: null"], (4, None, "sg-AB")),
    "the same value in other words": (f"ethertype: IPv4, source: {ANY4}", ["ethertype: null", f"source: {NET6}"],
                                      (6, None, "2001:db8::/32")),
    "what others changed": (f"source: {ANY6}", ["description: x", "priority: 2", "ethertype: null"], (6, None, None)),
}  # fmt: skip


@pytest.mark.parametrize("case", MERGED)
def test_modify_merges_what_was_written(case: str) -> None:
    written, sets, expected = MERGED[case]
    protocol = "" if "protocol" in written else "protocol: all, "
    for source, direction in (("source", "inbound"), ("destination", "outbound")):
        rule = f"{{id: r, direction: {direction}, {protocol}{written}}}".replace("source", source)
        lines = [f"- {{at: 0, add_rule: {{group: other, rule: {rule}}}}}"]
        lines += [f"- {{at: 1, modify_rule: {{group: other, rule: r, set: {{{each}}}}}}}" for each in sets]
        found = resolved("\n".join(["changes:", *lines]).replace("source", source))
        after = apply_changes(POLICY, [timed.change for timed in found]).policy.group_by_name["other"].rules[-1]
        peer = after.peer.name if isinstance(after.peer, GroupPeer) else after.peer and str(after.peer)
        assert (after.ethertype, after.protocol, peer) == expected


def test_merging_nothing_leaves_every_rule_as_it_was_written() -> None:
    fields = ("", f"source: {ANY4}", f"source: {ANY6}", f"source: {NET6}", "source: offices", "source: sg-AB")
    rules = [
        f"{{direction: inbound, protocol: {protocol}, {ethertype} {peer}}}"
        for protocol in ("all", "icmp", "icmpv6", "58", "1", "250") for peer in fields
        for ethertype in ("", "ethertype: IPv4,", "ethertype: IPv6,")
    ]  # fmt: skip
    found = 0
    for rule in rules:
        with suppress(PolicyError):     # invalid combinations, such as icmpv6 in IPv4
            [added] = changes(f"changes: [{{at: 0, add_rule: {{group: other, rule: {rule}}}}}]")
            assert isinstance(added, AddRule)
            policy = apply_changes(POLICY, [added]).policy
            old = policy.group_by_name["other"].rules[-1]
            text = f"changes: [{{at: 0, modify_rule: {{group: other, rule: {old.id}, set: {{}}}}}}]"
            [timed] = parse_changes(text).resolve(policy, 0)
            assert isinstance(timed.change, ModifyRule)
            new = replace(timed.change.new, id=old.id)
            assert (new, new.wording) == (old, old.wording)
            found += 1
    assert found > 60


def test_ethertype_that_was_written_still_contradicts_an_address() -> None:
    with pytest.raises(PolicyError, match=r"modify_rule\.set\.ethertype: IPv4, but the rule's source is IPv6"):
        resolved(f"""
changes:
  - {{at: 0, add_rule: {{group: other, rule: {{id: r, direction: inbound, protocol: tcp, ethertype: IPv4}}}}}}
  - {{at: 1, modify_rule: {{group: other, rule: r, set: {{source: {NET6}}}}}}}
""")


def test_ports_that_stay_are_not_read_again() -> None:
    many = "&many [" + ", ".join(map(str, range(1, 65535, 2))) + "]"
    line = "- {at: 1, modify_rule: {group: sg-AB, rule: sg-AB/inbound/2, set: {%s}}}\n"
    found = changes("changes:\n" + line % f"ports: {many}" + line % "priority: 2" * 500)
    assert isinstance(found[0], ModifyRule)
    assert all(isinstance(change, ModifyRule) and change.new.ports is found[0].new.ports for change in found)


def test_a_change_sees_what_the_ones_before_it_did() -> None:
    found = changes("""
changes:
  - {at: 2, modify_rule: {group: sg-AB, rule: mine, set: {ports: 444}}}
  - {at: 1, add_rule: {group: sg-AB, rule: {direction: inbound, protocol: tcp, ports: 443, id: mine}}}
""")
    assert isinstance(found[0], AddRule) and isinstance(found[1], ModifyRule)
    assert found[1].new.ports == ((444, 444),) and found[1].new.protocol == 6


@pytest.mark.parametrize("text", ["changes: null", "changes:", "{version: 1, changes: []}"])
def test_null_is_an_empty_list_as_in_a_policy(text: str) -> None:
    assert changes(text) == []


WRONG = {
    "": ":1: the document is empty",
    "change: []": ":1: unknown key 'change' (did you mean 'changes'?)",
    "changes: [{add_member: {group: other, instance: web-1}}]": ":1: changes[0].at: is missing",
    "changes: [{at: 1}]": ":1: changes[0]: has 0 operations: write exactly one of add_rule, ",
    "changes: [{at: 1, remove_group: {group: other}, add_peering: [vpc-1, vpc-2]}]": ":1: changes[0]: has 2 operations",
    "changes:\n- {at: soon, remove_group: {group: other}}": ":2: changes[0].at: must be seconds from the first packet",
    "changes: [{at: .inf, remove_group: {group: other}}]": ":1: changes[0].at: must be seconds",
    "changes: [{at: 1e30, remove_group: {group: other}}]": ":1: changes[0].at: '1e30' is out of range: the clock",
    "changes: [{at: 1e999999999, remove_group: {group: other}}]": ":1: changes[0].at: '1e999999999' is out of range",
    "changes: [{at: 2026-02-30T00:00:00Z, remove_group: {group: other}}]": ":1: changes[0].at: '2026-02-30",
    "changes: [{at: 2026-01-01T00:00:00, remove_group: {group: other}}]": "say which zone, Z for UTC",
    "changes: [{at: 1, rename: {}}]": ":1: changes[0]: unknown key 'rename'",
    "changes: [{at: 1, add_member: {group: other}}]": ":1: changes[0].add_member.instance: is missing",
    "changes: [{at: 1, add_member: {group: other, instance: no}}]": ":1: changes[0].add_member.instance: unknown",
    "changes:\n- {at: 1, remove_rule: {group: sg-AB, rule: sg-AB/inbound/2}}\n"
    "- {at: 2, remove_rule: {group: sg-AB, rule: sg-AB/inbound/2}}":
        ":3: changes[1].remove_rule.rule: security group 'sg-AB' has no rule 'sg-AB/inbound/2'",
    "changes: [{at: 1, modify_rule: {group: sg-AB, rule: sg-AB/inbound/2, set: {id: x}}}]": "unknown key 'id'",
    "changes: [{at: 1, modify_rule: {group: sg-AB, rule: sg-AB/inbound/2, set: {ports: 99999}}}]":
        ":1: changes[0].modify_rule.set.ports: ",
    "changes: [{at: 1, modify_rule: {group: sg-AB, rule: sg-AB/inbound/2, set: {protocol: icmp}}}]":
        "changes[0].modify_rule.set.ports: icmp has no ports",
    "changes: [{at: 1, add_peering: [vpc-1]}]": ":1: changes[0].add_peering: must be a pair",
    "changes: [{at: 1, add_address: {instance: web-1, address: 10.0.0.6}}]":
        ":1: changes[0].add_address: 10.0.0.6/32 already belongs to instance 'db-1'",
    "changes: [{at: 1, add_instance: {name: x, addresses: [10.9.9.9]}}]": ":1: changes[0].add_instance.vpc: is missing",
    "changes: [{at: 1, remove_instance: {instance: db-1, name: web-1}}]":
        ":1: changes[0].remove_instance: has both instance and name, which mean the same: keep one of them",
    "changes: [{at: 1, remove_group: {name: other, group: sg-AB}}]":
        ":1: changes[0].remove_group: has both group and name",
    "changes: [{at: 1, set_address_group: {name: offices, address_group: offices, addresses: []}}]":
        ":1: changes[0].set_address_group: has both name and address_group, which mean the same",
    "changes:\n- {at: 1, add_group: {name: loose, stateful: false}}\n"
    "- {at: 2, add_instance: {name: vm, vpc: vpc-1, addresses: [10.0.0.9], security_groups: [loose, sg-AB]}}":
        ":3: changes[1].add_instance: instance 'vm' cannot be",
    "\n".join(["changes:", *["- {at: 1, add_rule: {group: sg-AB, rule: {direction: inbound, protocol: gre}}}"] * 4]):
        "raise quotas.rules_per_group",
    "changes: []\nversion: 2": ":2: version: must be 1, not the number 2",
    "{version: '1', changes: []}": ":1: version: must be 1, not the text '1'",
    "version: 1": ":1: changes: is missing",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_names_file_line_and_change(text: str) -> None:
    with pytest.raises(PolicyError) as refused:
        resolved(text)
    message = str(refused.value)
    print(message)
    assert message.startswith("changes.yaml:") and WRONG[text] in message and "\n" not in message


BOMBS = {
    "addresses": ("&big [" + ", ".join(f"10.0.{n >> 8}.{n & 255}" for n in range(2000)) + "]",
                  "set_address_group: {name: offices, addresses: %s}"),
    "ports in a list": ("&big [" + ", ".join(map(str, range(1, 4001, 2))) + "]",
                        "modify_rule: {group: sg-AB, rule: sg-AB/inbound/2, set: {ports: %s}}"),
    "ports in a text": ('&big "' + ",".join(map(str, range(1001, 5001, 2))) + '"',
                        "modify_rule: {group: sg-AB, rule: sg-AB/inbound/2, set: {ports: %s}}"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_alias_bomb_is_counted_over_the_whole_file(monkeypatch: pytest.MonkeyPatch, bomb: str) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", 100_000)
    big, change = BOMBS[bomb]
    lines = [f"- {{at: {n}, {change % ('*big' if n else big)}}}" for n in range(200)]
    with pytest.raises(PolicyError, match=r"^changes\.yaml:2: changes\[\d+\]\..*: more than 100,000 values with alias"):
        resolved("\n".join(["changes:", *lines]))
    assert len(resolved("\n".join(["changes:", *lines[:20]]))) == 20


ADDING = "{at: %d, add_rule: {group: other, rule: {direction: inbound, protocol: tcp, ports: %d}}}"


@pytest.mark.parametrize(("limit", "refused"), [(820, None), (819, None), (818, 2), (814, 1), (806, 0)])
def test_changes_may_be_as_much_work_as_the_limit_and_not_more(
    limit: int, refused: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 11.5. Four rules and three addresses make 269 steps, and each change adds a rule: 269 + 273 + 277.
    What is sure to be too much is refused at the first change, before any work.
    """
    text = "\n".join(["changes:", *(f"- {ADDING % (0, n + 1)}" for n in range(3))])
    monkeypatch.setattr("sgfast.policy.change_file.MAX_CHANGE_STEPS", limit)
    if refused is None:
        assert len(resolved(text)) == 3
        return
    with pytest.raises(PolicyError) as error:
        resolved(text)
    assert str(error.value) == (
        f"changes.yaml:{refused + 2}: changes[{refused}].add_rule: 3 changes of a policy with {4 + refused} rules and "
        "3 addresses are too much work: use fewer changes, or leave rules and instances out that the capture does not "
        "need"
    )


def test_aliases_of_many_addresses_share_their_values() -> None:
    big, change = BOMBS["addresses"]
    first, second = changes(f"changes: [{{at: 0, {change % big}}}, {{at: 1, {change % '*big'}}}]")
    assert isinstance(first, SetAddressGroup) and isinstance(second, SetAddressGroup)
    assert all(a is b for a, b in zip(first.addresses, second.addresses, strict=True))


OUT_OF_RANGE = (
    "9999-12-31T23:59:59Z", "2300-01-01T00:00Z", "0001-01-01T00:00:00Z", "2116-02-20T23:53:39Z", "1823-11-12T00:06:21Z",
    "2911686019", "-6311686019",
)  # fmt: skip


@pytest.mark.parametrize("at", OUT_OF_RANGE)
def test_time_beyond_the_clock_is_told_with_its_limits(at: str) -> None:
    with pytest.raises(PolicyError) as refused:
        resolved(f"changes:\n- {{at: 1, add_group: {{name: a}}}}\n- {{at: {at}, add_group: {{name: b}}}}")
    assert str(refused.value) == (
        f"changes.yaml:3: changes[1].at: {at!r} is out of range: the clock reaches from 1823-11-12T00:06:22Z to "
        "2116-02-20T23:53:38Z"
    )


@pytest.mark.parametrize(("at", "expected"), [
    ("0e999999999", FIRST), ("1e-999999999", FIRST),
    *((last, 4611686018 * SECOND) for last in ("2116-02-20T23:53:38Z", "2911686018")),
    *((first, -4611686018 * SECOND) for first in ("1823-11-12T00:06:22Z", "-6311686018")),
])  # fmt: skip
def test_no_time_at_all_and_the_ends_of_the_clock_are_times(at: str, expected: int) -> None:
    [timed] = resolved(f"changes: [{{at: {at}, add_group: {{name: a}}}}]")
    assert timed.time_ns == expected


def test_an_instance_without_groups_brings_the_default_group_that_later_changes_may_name() -> None:
    after = apply_changes(POLICY, changes("""
changes:
  - {at: 1, add_instance: {name: vm, vpc: vpc-1, addresses: [10.0.0.9]}}
  - {at: 2, add_rule: {group: default, rule: {direction: inbound, protocol: tcp, ports: 22, source: default}}}
""")).policy
    assert after.instance_by_name["vm"].security_groups == ("default",)
    assert after.group_by_name["default"].rules[-1].id == "default/inbound/3"
