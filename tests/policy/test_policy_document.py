"""The policy document (SPEC 2, 8.1, 8.5, 11): its meaning, and the one-line errors."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from policy_texts import SPEC_EXAMPLE, error_of

from sgfast import Policy
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import AddressGroup, GroupPeer, Instance, Quotas, Rule, Settings, Timeouts, Vpc


def document_with_instances(*instances: str, before: str = "") -> str:
    lines = "".join(f"  - {{{instance}}}\n" for instance in instances)
    return f"version: 1\n{before}security_groups: [{{name: g}}, {{name: h}}]\ninstances:\n{lines}"


class TestExample:
    def test_spec_example(self) -> None:
        policy = parse_policy(SPEC_EXAMPLE)
        assert policy.vpcs == (Vpc("vpc-1"), Vpc("vpc-2", "eu-nl"))
        assert policy.peerings == {frozenset(("vpc-1", "vpc-2"))}
        assert policy.address_groups == (
            AddressGroup("offices", (ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/48"))),
        )
        assert policy.settings == Settings()
        assert policy.quotas == Quotas()
        assert policy.instances == (
            Instance("web-1", "vpc-1", (ip_network("10.0.0.5/32"), ip_network("2001:db8::5/128")), ("sg-AB",)),
        )
        assert policy.warnings == ()
        (group,) = policy.security_groups
        assert group.description == "The example group of the seed's Table 2"
        assert len(group.rules) == 9 + 2 + 6
        assert [rule.id for rule in group.rules] == [
            *(f"sg-AB/inbound/{n}" for n in range(1, 8)),
            *("sg-AB/outbound/1", "sg-AB/outbound/2"),
            *(f"sg-AB/inbound/{n}" for n in range(8, 14)),
            *("sg-AB/outbound/3", "sg-AB/outbound/4"),
        ]
        assert group.rules[11:] == (
            Rule("sg-AB/inbound/10", "inbound", 4, None, None, peer=GroupPeer("sg-AB")),
            Rule("sg-AB/inbound/11", "inbound", 4, 6, ((22, 22),)),
            Rule("sg-AB/inbound/12", "inbound", 4, 6, ((3389, 3389),)),
            Rule("sg-AB/inbound/13", "inbound", 4, 6, ((80, 80),), peer=ip_network("10.5.6.30/32")),
            Rule("sg-AB/outbound/3", "outbound", 4),
            Rule("sg-AB/outbound/4", "outbound", 6),
        )

    def test_smallest_document(self) -> None:
        assert parse_policy("version: 1") == Policy()

    @pytest.mark.parametrize("section", ["vpcs", "peerings", "address_groups", "security_groups", "instances"])
    @pytest.mark.parametrize("empty", ["", "[]", "null"])
    def test_empty_section_is_a_section_left_out(self, section: str, empty: str) -> None:
        assert parse_policy(f"version: 1\n{section}: {empty}\n") == Policy()


class TestSettings:
    """SPEC 2.10, 6.8."""

    def test_values(self) -> None:
        policy = parse_policy(
            "version: 1\nquotas: {rules_per_group: 7}\nsettings: {profile: otc, timeouts: {icmp: 0.5, tcp_other: 7},"
            " on_change: keep, max_connections: 10, infrastructure: filtered}"
        )
        assert policy.quotas == Quotas(100, 7)
        assert policy.settings == Settings("otc", Timeouts(icmp=0.5, tcp_other=7), "keep", 10, "filtered")

    @pytest.mark.parametrize(
        ("profile", "timeouts", "words", "quotas"),
        [
            ("otc", Timeouts(600, 30, 30, 30, 180, 30), ("cut-inbound", "exempt", "by-owner"), Quotas(100, 50)),
            ("neutron", Timeouts(432_000, 120, 120, 30, 120, 30), ("forget-unmatched", "by-role", "by-address"),
             Quotas(10, 100)),
            ("aws", Timeouts(432_000, 30, 30, 30, 180, 30), ("keep", "exempt", "by-owner"), Quotas(2500, 240)),
        ],
    )  # fmt: skip
    def test_profile_is_where_the_other_defaults_come_from(
        self, profile: str, timeouts: Timeouts, words: tuple[Any, Any, Any], quotas: Quotas
    ) -> None:
        policy = parse_policy(f"version: 1\nsettings: {{profile: {profile}}}")
        on_change, infrastructure, group_members = words
        assert policy.settings == Settings(profile, timeouts, on_change, 4_000_000, infrastructure, group_members)
        assert policy.quotas == quotas
        written = parse_policy(
            f"version: 1\nquotas: {{security_groups: 7}}\nsettings: {{timeouts: {{icmp: 5}}, profile: {profile},"
            " on_change: keep, infrastructure: filtered, max_connections: 9, group_members: by-owner}"
        )
        assert written.settings == Settings(profile, replace(timeouts, icmp=5), "keep", 9, "filtered", "by-owner")
        assert written.quotas == replace(quotas, security_groups=7)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("profile: gcp", "settings.profile: must be one of otc, neutron, aws, not 'gcp'"),
            (
                "on_change: cut",
                "settings.on_change: must be one of cut-inbound, cut-unmatched, forget-unmatched, keep, not 'cut'",
            ),
            ("infrastructure: true", "settings.infrastructure: must be one of exempt, by-role, filtered, not true"),
            ("group_members: owner", "settings.group_members: must be one of by-owner, by-address, not 'owner'"),
            ("max_connections: 0", "settings.max_connections: must be a whole number from 1 to 2147483647, not 0"),
            ("max_connections: 2147483648", "not 2147483648"),
            ("max_connections: 1.5", "not the number 1.5"),
            ("max_connections: true", "not true"),
            ("max_connections: '5'", "not the text '5'"),
            ("timeouts: {icmp: 0}", "settings.timeouts.icmp: must be a number above 0, at most 1e+09, not 0"),
            ("timeouts: {icmp: -1}", "settings.timeouts.icmp: must be a number above 0"),
            ("timeouts: {icmp: .nan}", "settings.timeouts.icmp: must be a number above 0"),
            ("timeouts: {icmp: .inf}", "settings.timeouts.icmp: must be a number above 0"),
            ("timeouts: {icmp: 1e999}", "settings.timeouts.icmp: must be a number above 0"),
            ("timeouts: {icmp: true}", "settings.timeouts.icmp: must be a number above 0"),
            ("timeouts: {icmp: 30s}", "settings.timeouts.icmp: must be a number above 0"),
            ("timeouts: {icmpv6: 30}", "settings.timeouts: unknown key 'icmpv6' (did you mean 'icmp'?)"),
            ("timeouts: 30", "settings.timeouts: must be a mapping, not the number 30"),
        ],
    )
    def test_out_of_range(self, setting: str, message: str) -> None:
        found = error_of(f"version: 1\nsettings:\n  {{{setting}}}")
        assert found.startswith("p.yaml:3: settings")
        assert message in found


class TestVpcs:
    @pytest.mark.parametrize(
        ("peerings", "message"),
        [
            ("[[a, c]]", "peerings[0][1]: unknown VPC 'c': define it"),
            ("[[a, a]]", "peerings[0]: the VPC 'a' cannot be peered with itself"),
            ("[[a, b], [b, a]]", "peerings[1]: 'b' and 'a' are already peered at line 3"),
            ("[[a]]", "peerings[0]: must be a pair of VPC names, not a list of 1"),
            ("[[a, b, a]]", "peerings[0]: must be a pair of VPC names, not a list of 3"),
            ("[a, [a, b]]", "peerings[0]: must be a list, not the text 'a'"),
        ],
    )
    def test_peerings(self, peerings: str, message: str) -> None:
        assert error_of(f"version: 1\nvpcs: [{{name: a}}, {{name: b}}]\npeerings: {peerings}") == "p.yaml:3: " + message

    def test_region_is_a_word(self) -> None:
        assert parse_policy("version: 1\nvpcs: [{name: a, region: ostschweiz/ä}]").vpcs[0].region == "ostschweiz/ä"
        assert "vpcs[0].region: must be a word" in error_of("version: 1\nvpcs: [{name: a, region: ''}]")
        assert "vpcs[0].region: must be a word" in error_of("version: 1\nvpcs: [{name: a, region: a b}]")


class TestInstances:
    """SPEC 2.6, 2.10."""

    def test_cidrs_and_overlap_of_different_length(self) -> None:
        policy = parse_policy(
            document_with_instances(
                "name: a, addresses: [10.0.0.0/24, 10.0.0.7], security_groups: [g, h]",
                "name: b, addresses: [10.0.0.0/25, 10.0.0.8], security_groups: [h]",
            )
        )
        assert policy.instances == (
            Instance("a", "default", (ip_network("10.0.0.0/24"), ip_network("10.0.0.7")), ("g", "h")),
            Instance("b", "default", (ip_network("10.0.0.0/25"), ip_network("10.0.0.8")), ("h",)),
        )

    def test_same_prefix_in_one_vpc(self) -> None:
        text = document_with_instances(
            "name: a, addresses: [10.0.0.1], security_groups: [g]",
            "name: b, addresses: [10.0.0.2, 10.0.0.1/32], security_groups: [g]",
        )
        assert error_of(text) == (
            "p.yaml:5: instances[1].addresses[1]: 10.0.0.1/32 of 'b' already belongs to 'a' at line 4, "
            "in the same VPC 'default'"
        )

    def test_same_prefix_in_two_vpcs(self) -> None:
        policy = parse_policy(
            document_with_instances(
                "name: a, vpc: v, addresses: [10.0.0.1], security_groups: [g]",
                "name: b, vpc: w, addresses: [10.0.0.1], security_groups: [g]",
                before="vpcs: [{name: v}, {name: w}]\n",
            )
        )
        assert [instance.vpc for instance in policy.instances] == ["v", "w"]

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("name: a, addresses: [10.0.0.1, 10.0.0.1/32]", "addresses[1]: duplicate: 10.0.0.1/32 is already in"),
            ("name: a, addresses: []", "addresses: must list at least one address"),
            ("name: a", "addresses: is missing"),
            ("name: a, addresses: 10.0.0.1", "addresses: must be a list, not the text '10.0.0.1'"),
            ("name: a, addresses: [10.0.0.5/24]", "addresses[0]: '10.0.0.5/24': host bits are set: write 10.0.0.0/24"),
            ("name: a, addresses: [1.5]", "addresses[0]: must be an address or CIDR (a string), not the number 1.5"),
            ("name: a, addresses: [x]", "addresses[0]: 'x': not an IPv4 address"),
            ("name: a, addresses: [1.1.1.1], vpc: x", "vpc: unknown VPC 'x': define it"),
            ("name: a, addresses: [1.1.1.1], security_groups: [gg]", "security_groups[0]: unknown security group 'gg'"),
            ("name: a, addresses: [1.1.1.1], security_groups: [g, g]", "security_groups[1]: duplicate: 'g' is"),
            ("name: a, addresses: [1.1.1.1], security_groups: g", "security_groups: must be a list, not the text 'g'"),
            ("name: a, addresses: [1.1.1.1], security_groups: [default]", "[0]: unknown security group 'default'"),
        ],
    )
    def test_errors(self, written: str, message: str) -> None:
        found = error_of(document_with_instances(written))
        assert found.startswith("p.yaml:4: instances[0].")
        assert message in found

    def test_vpc_left_out(self) -> None:
        text = document_with_instances("name: a, addresses: [10.0.0.1]", before="vpcs: [{name: v}]\n")
        assert parse_policy(text).instances[0].vpc == "v"
        text = text.replace("{name: v}", "{name: v}, {name: w}")
        assert error_of(text) == "p.yaml:5: instances[0].vpc: is missing, but there are 2 VPCs: name one of them"


class TestDefaultGroup:
    """SPEC 8.1."""
    RULES = tuple(
        Rule(f"default/{direction}/{n}", direction, family, peer=peer)
        for direction, peer in (("inbound", GroupPeer("default")), ("outbound", None))
        for n, family in ((1, 4), (2, 6))
    )

    @pytest.mark.parametrize("groups", ["", ", security_groups: []", ", security_groups: null"])
    def test_created_for_an_instance_without_groups(self, groups: str) -> None:
        policy = parse_policy(f"version: 1\ninstances: [{{name: a, addresses: [10.0.0.1]{groups}}}]")
        (group,) = policy.security_groups
        assert (group.name, group.rules) == ("default", self.RULES)
        assert policy.instances[0].security_groups == ("default",)
        assert policy.warnings == ()

    def test_created_last_and_only_when_needed(self) -> None:
        text = document_with_instances("name: a, addresses: [10.0.0.1], security_groups: [g]")
        assert [group.name for group in parse_policy(text).security_groups] == ["g", "h"]
        policy = parse_policy(text + "  - {name: b, addresses: [10.0.0.2]}\n", "p.yaml")
        assert [group.name for group in policy.security_groups] == ["g", "h", "default"]
        assert policy.warnings == (
            "p.yaml:5: instances[1]: the instance 'b' names no security group and so joins 'default'.",
        )

    def test_created_one_may_be_named(self) -> None:
        policy = parse_policy(
            "version: 1\nsecurity_groups: [{name: g, rules: [{direction: inbound, protocol: all, source: default}]}]\n"
            "instances:\n- {name: a, addresses: [10.0.0.1], security_groups: [default, g]}\n"
            "- {name: b, addresses: [10.0.0.2]}"
        )
        assert policy.security_groups[0].rules[0].peer == GroupPeer("default")
        assert policy.instances[0].security_groups == ("default", "g")

    def test_the_documents_own_is_used(self) -> None:
        policy = parse_policy(
            "version: 1\nsecurity_groups: [{name: default}]\ninstances: [{name: a, addresses: [10.0.0.1]}]"
        )
        assert policy.group_by_name["default"].rules == ()
        assert len(policy.warnings) == 1

    def test_many_joining_are_one_warning(self) -> None:
        text = document_with_instances(*(f"name: i{n}, addresses: [10.0.0.{n}]" for n in range(9)))
        (warning,) = parse_policy(text).warnings
        assert "the instances 'i0', 'i1', 'i2', 'i3', 'i4' and 4 more name no security group" in warning


class TestQuotas:
    """SPEC 8.5."""

    def test_groups(self) -> None:
        text = "version: 1\nsecurity_groups:\n" + "".join(f"- name: g{n}\n" for n in range(101))
        assert error_of(text) == (
            "p.yaml:103: security_groups[100]: 101 security groups exceed the quota of 100: "
            "raise quotas.security_groups"
        )
        assert len(parse_policy(text + "quotas: {security_groups: 101}").security_groups) == 101
        hundred = text.replace("- name: g100\n", "")
        assert len(parse_policy(hundred).security_groups) == 100
        message = error_of(hundred + "instances: [{name: a, addresses: [10.0.0.1]}]")
        assert "including the created default group, 101 security groups exceed the quota of 100" in message

    def test_rules(self) -> None:
        text = "version: 1\nsecurity_groups:\n- name: g\n  template: fast-add\n  fast_add: [ssh]\n  rules:\n"
        text += "  - {direction: inbound, protocol: all}\n" * 45
        assert len(parse_policy(text).security_groups[0].rules) == 50
        text += "  - {direction: inbound, protocol: all}\n"
        assert error_of(text) == (
            "p.yaml:3: security_groups[0].rules: the group 'g' has 51 rules (including template and fast_add), "
            "over the quota of 50: raise quotas.rules_per_group"
        )
        assert len(parse_policy(text + "quotas: {rules_per_group: 51}").security_groups[0].rules) == 51

    def test_rules_of_the_created_default_group(self) -> None:
        text = "version: 1\nquotas: {rules_per_group: 3}\ninstances: [{name: a, addresses: [10.0.0.1]}]"
        assert "the created default group has 4 rules" in error_of(text)

    @pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "''", "1000001"])
    def test_quota_values(self, value: str) -> None:
        message = error_of(f"version: 1\nquotas: {{rules_per_group: {value}}}")
        assert message.startswith("p.yaml:2: quotas.rules_per_group: must be a whole number from 1 to 1000000")


class TestStateless:
    """SPEC 2.8."""
    GROUPS = "version: 1\nsecurity_groups:\n- {name: a}\n- {name: b, stateful: true}\n- {name: c, stateful: false}\n"

    def test_groups_are_stateful_unless_they_say_otherwise(self) -> None:
        policy = parse_policy(self.GROUPS)
        assert [group.stateful for group in policy.security_groups] == [True, True, False]

    @pytest.mark.parametrize("value", ["1", "'false'", "null", "[]", "stateless"])
    def test_only_true_and_false_will_do(self, value: str) -> None:
        message = error_of(f"version: 1\nsecurity_groups:\n- name: c\n  stateful: {value}")
        assert message.startswith("p.yaml:4: security_groups[0].stateful: must be true or false, not ")

    def test_an_instance_in_groups_of_both_kinds_is_refused(self) -> None:
        members = "instances:\n- {name: i, addresses: [10.0.0.1], security_groups: [a, b]}\n- name: j\n"
        message = error_of(self.GROUPS + members + "  addresses: [10.0.0.2]\n  security_groups: [c, b, a]\n")
        assert message == (
            "p.yaml:10: instances[1].security_groups: instance 'j' cannot be in stateful groups ('a', 'b') and "
            "stateless groups ('c')"
        )

    def test_the_default_group_may_be_stateless_for_those_who_join_it_by_omission(self) -> None:
        policy = parse_policy(
            "version: 1\nsecurity_groups: [{name: default, stateful: false}]\n"
            "instances: [{name: i, addresses: [10.0.0.1]}]"
        )
        assert policy.instances[0].security_groups == ("default",)
        assert not policy.group_by_name["default"].stateful
