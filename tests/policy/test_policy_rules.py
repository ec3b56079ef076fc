"""The rules of a policy document: protocols, ports, ICMP, ethertypes, peers and ids (SPEC 2.1 to 2.5, 2.10)."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from policy_texts import error_of

from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import (
    AddressGroupPeer,
    GroupPeer,
    Rule,
)
from sgfast.policy.protocols import PROTOCOL_NUMBERS, protocol_name


def document_with_rule(rule: str) -> str:
    return (
        "version: 1\n"
        "address_groups: [{name: v4s, addresses: [192.0.2.0/24]}, {name: both, addresses: [192.0.2.1, '::1']}]\n"
        f"security_groups:\n  - name: g\n    rules:\n      - {rule}\n  - name: other\n"
    )


def rule_of(fields: str) -> Rule:
    (rule,) = parse_policy(document_with_rule("{" + fields + "}")).security_groups[0].rules
    return rule


def inbound(fields: str) -> Rule:
    return rule_of("direction: inbound, protocol: " + fields)


def inbound_error(fields: str) -> str:
    return error_of(document_with_rule("{direction: inbound, protocol: " + fields + "}"))


class TestProtocols:
    @pytest.mark.parametrize(
        ("written", "number"),
        [
            *(("all", None), ("ALL", None), ("tcp", 6), ("TCP", 6), ("udplite", 136), ("UDPLite", 136), ("gre", 47)),
            *(("esp", 50), ("ah", 51), ("sctp", 132), ("dccp", 33), ("0", 0), ("255", 255), ("'47'", 47), ("0x11", 17)),
            *(("ospfigp", 89), ("ospf", 89), ("L2TP", 115), ("vrrp", 112), ("3pc", 34), ("IPIP", 94), ("1", 1)),
        ],
    )
    def test_names_and_numbers(self, written: str, number: int | None) -> None:
        assert inbound(written).protocol == number

    @pytest.mark.parametrize("written", ["256", "-1", "1.5", "true", "", "tpc", "'-1'", "'1000'", "[tcp]", "9" * 99])
    def test_others_are_errors(self, written: str) -> None:
        assert inbound_error(written).startswith("p.yaml:6: security_groups[0].rules[0].protocol: ")

    def test_near_spelling(self) -> None:
        assert "unknown protocol 'tpc' (did you mean 'tcp'?)" in inbound_error("tpc")

    def test_missing(self) -> None:
        message = error_of(document_with_rule("{direction: inbound}"))
        assert message == "p.yaml:6: security_groups[0].rules[0].protocol: is missing: write all for every protocol"

    def test_table(self) -> None:
        assert len(PROTOCOL_NUMBERS) >= 145
        assert all(0 <= number <= 255 and name == name.lower() for name, number in PROTOCOL_NUMBERS.items())
        names = [protocol_name(number) for number in range(256)]
        assert [PROTOCOL_NUMBERS[name] for name in names if name] == [n for n in range(256) if names[n]]
        assert [protocol_name(n) for n in (1, 6, 17, 47, 50, 51, 58, 132)] == (
            ["icmp", "tcp", "udp", "gre", "esp", "ah", "icmpv6", "sctp"]
        )
        assert protocol_name(200) is None
        assert protocol_name(61) is None

    @pytest.mark.skipif(not Path("/etc/protocols").exists(), reason="no /etc/protocols")
    def test_table_agrees_with_the_system(self) -> None:
        for line in Path("/etc/protocols").read_text().splitlines():
            words = line.partition("#")[0].split()
            if len(words) >= 2 and words[0] in PROTOCOL_NUMBERS:
                assert PROTOCOL_NUMBERS[words[0]] == int(words[1])


class TestPorts:
    """SPEC 2.2."""

    @pytest.mark.parametrize(
        ("written", "ports"),
        [
            ("22", ((22, 22),)),
            ("22-30", ((22, 30),)),
            ('"22,80,8000-8080"', ((22, 22), (80, 80), (8000, 8080))),
            ("[22, 80, 8000-8080]", ((22, 22), (80, 80), (8000, 8080))),
            ('["22", "80"]', ((22, 22), (80, 80))),
            ('"80, 22"', ((22, 22), (80, 80))),
            ('"5 - 7"', ((5, 7),)),
            ('"1-10,5-20,3"', ((1, 20),)),
            ('"10,11,12-14,9"', ((9, 14),)),
            ('"1-65535,7"', ((1, 65535),)),
            ("010", ((10, 10),)),
            ("0x50", ((80, 80),)),
            ('"0-65535"', None),
            ('"101-65535,0-100"', None),
        ],
    )
    def test_normal_form(self, written: str, ports: tuple[tuple[int, int], ...] | None) -> None:
        assert inbound(f"tcp, ports: {written}").ports == ports

    def test_left_out(self) -> None:
        assert inbound("tcp").ports is None

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("65536", "'65536': ports range from 1 to 65535"),
            ("-5", "'-5': ports range from 1 to 65535"),
            ("30-22", "'30-22' is reversed: write 22-30"),
            ("1-70000", "'1-70000': ports range from 1 to 65535"),
            ("70000-1", "'70000-1': ports range from 1 to 65535"),
            ('"22,"', "'' is not a port"),
            ('""', "'' is not a port"),
            ("22:24", "'22:24' is not a port"),
            ("ssh", "'ssh' is not a port"),
            ("all", "leave ports out for all ports"),
            ("1.5", "not the number 1.5"),
            ("true", "not true"),
            ("", "not nothing (null)"),
            ("[]", "is an empty list: leave ports out for all ports"),
            ("{from: 1}", "not a mapping"),
            ('"' + "9" * 5000 + '"', "is not a port"),
            ('"٢٢"', "is not a port"),
        ],
    )
    def test_errors(self, written: str, message: str) -> None:
        found = inbound_error(f"tcp, ports: {written}")
        assert found.startswith("p.yaml:6: security_groups[0].rules[0].ports: ")
        assert message in found

    def test_list_items_are_named(self) -> None:
        assert "rules[0].ports[1]: '-1': ports range" in inbound_error("tcp, ports: [22, -1]")

    @pytest.mark.parametrize("written", ["22,80", "22, 80, source: 10.0.0.1", "22,8000-8080", "20-21,22,23", "22,22"])
    def test_unquoted_list_says_to_quote(self, written: str) -> None:
        found = inbound_error(f"tcp, ports: {written}")
        assert found.startswith("p.yaml:6: security_groups[0].rules[0].ports: inside {} a comma ends the value")
        assert 'quote the list: ports: "22,80"' in found

    def test_unquoted_list_in_block_style_is_fine(self) -> None:
        text = "direction: inbound\n        protocol: tcp\n        ports: 22,80"
        assert parse_policy(document_with_rule(text)).security_groups[0].rules[0].ports == ((22, 22), (80, 80))

    @pytest.mark.parametrize("protocol", ["tcp", "udp", "udplite", "sctp", "dccp", "6", "132"])
    def test_protocols_with_ports(self, protocol: str) -> None:
        assert inbound(f"{protocol}, ports: 7").ports == ((7, 7),)

    @pytest.mark.parametrize("protocol", ["all", "icmp", "icmpv6", "gre", "esp", "200"])
    def test_protocols_without_ports(self, protocol: str) -> None:
        assert "rules[0].ports: " in inbound_error(f"{protocol}, ports: 7")
        assert "has no ports; only tcp, udp, udplite, sctp and dccp do" in inbound_error(f"{protocol}, ports: 7")


class TestIcmp:
    def test_type_and_code(self) -> None:
        rule = inbound("icmp, icmp_type: 3, icmp_code: 255")
        assert (rule.icmp_type, rule.icmp_code) == (3, 255)
        assert (inbound("icmp").icmp_type, inbound("icmp").icmp_code) == (None, None)
        assert inbound("58, icmp_type: 0").icmp_type == 0

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("icmp, icmp_code: 0", "icmp_code: needs an icmp_type"),
            ("icmp, icmp_type: 256", "icmp_type: must be a whole number from 0 to 255, not 256"),
            ("icmp, icmp_type: -1", "icmp_type: must be"),
            ("icmp, icmp_type: echo", "icmp_type: must be"),
            ("tcp, icmp_type: 8", "icmp_type: only allowed in a rule for icmp or icmpv6"),
            ("all, icmp_type: 8", "icmp_type: only allowed in a rule for icmp or icmpv6"),
        ],
    )
    def test_errors(self, written: str, message: str) -> None:
        assert f"p.yaml:6: security_groups[0].rules[0].{message}" in inbound_error(written)


class TestEthertype:
    """SPEC 2.4."""

    @pytest.mark.parametrize(
        ("written", "ethertype", "protocol"),
        [
            ("tcp", 4, 6),
            ("tcp, source: 10.0.0.1", 4, 6),
            ("tcp, source: '2001:db8::1'", 6, 6),
            ("tcp, source: '::/0'", 6, 6),
            ("tcp, source: 0.0.0.0/0", 4, 6),
            ("tcp, source: other", 4, 6),
            ("tcp, source: both", 4, 6),
            ("icmpv6", 6, 58),
            ("icmpv6, source: other", 6, 58),
            ("58", 6, 58),
            ("ipv6-icmp", 6, 58),
            ("icmp", 4, 1),
            ("icmp, ethertype: IPv6", 6, 58),
            ("1, ethertype: IPv6", 6, 58),
            ("icmp, source: '::/0'", 6, 58),
            ("all, ethertype: IPv6, source: other", 6, None),
        ],
    )
    def test_follows_address_or_protocol(self, written: str, ethertype: int, protocol: int | None) -> None:
        rule = inbound(written)
        assert (rule.ethertype, rule.protocol) == (ethertype, protocol)

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("icmpv6, ethertype: IPv4", "protocol: icmpv6 in an IPv4 rule: use icmp"),
            ("58, ethertype: IPv4", "protocol: icmpv6 in an IPv4 rule: use icmp"),
            ("icmpv6, source: 10.0.0.1", "protocol: icmpv6 in an IPv4 rule: use icmp"),
            ("tcp, ethertype: IPv6, source: 10.0.0.1", "ethertype: IPv6, but the rule's source is IPv4"),
            ("tcp, ethertype: IPv4, source: '::/0'", "ethertype: IPv4, but the rule's source is IPv6"),
            ("tcp, ethertype: ipv4", "ethertype: must be one of IPv4, IPv6, not 'ipv4' (did you mean 'IPv4'?)"),
            ("tcp, ethertype: 4", "ethertype: must be one of IPv4, IPv6, not the number 4"),
        ],
    )
    def test_conflicts(self, written: str, message: str) -> None:
        assert f"p.yaml:6: security_groups[0].rules[0].{message}" in inbound_error(written)

    def test_address_group_without_the_family_is_a_warning(self) -> None:
        policy = parse_policy(document_with_rule("{direction: inbound, protocol: icmpv6, source: v4s}"), "p.yaml")
        assert policy.warnings == (
            "p.yaml:6: security_groups[0].rules[0]: the address group 'v4s' has no IPv6 address, "
            "so this rule matches nothing.",
        )
        assert policy.security_groups[0].rules[0].peer == AddressGroupPeer("v4s")
        both = parse_policy(document_with_rule("{direction: inbound, protocol: icmpv6, source: both}"))
        assert both.warnings == ()

    def test_warnings_are_bounded(self) -> None:
        text = "version: 1\nquotas: {rules_per_group: 1000}\naddress_groups: [{name: none, addresses: []}]\n"
        text += "security_groups:\n- name: g\n  rules:\n"
        text += "  - {direction: inbound, protocol: all, source: none}\n" * 300
        warnings = parse_policy(text).warnings
        assert len(warnings) == 101
        assert warnings[-1] == "200 more warnings about rules are not listed."


class TestPeers:
    """SPEC 2.3."""

    @pytest.mark.parametrize(
        ("written", "peer"),
        [
            ("10.0.0.1", ip_network("10.0.0.1/32")),
            ("10.0.0.0/8", ip_network("10.0.0.0/8")),
            ("'2001:db8::1'", ip_network("2001:db8::1/128")),
            ("{cidr: 10.0.0.0/8}", ip_network("10.0.0.0/8")),
            ("'::ffff:1.2.3.4'", ip_network("::ffff:1.2.3.4/128")),
            ("g", GroupPeer("g")),
            ("other", GroupPeer("other")),
            ("{group: other}", GroupPeer("other")),
            ("both", AddressGroupPeer("both")),
            ("{address_group: both}", AddressGroupPeer("both")),
            ("0.0.0.0/0", None),
            ("'::/0'", None),
        ],
    )
    def test_forms(self, written: str, peer: object) -> None:
        assert inbound(f"tcp, source: {written}").peer == peer

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("10.0.0.1/8", "'10.0.0.1/8': host bits are set: write 10.0.0.0/8 for the network or 10.0.0.1"),
            ("'2001:db8::1/32'", "host bits are set: write 2001:db8::/32 for the network"),
            ("10.0.0.0/33", "the prefix length must be a number from 0 to 32"),
            ("'::/129'", "the prefix length must be a number from 0 to 128"),
            ("10.0.0.0/255.0.0.0", "the prefix length must be a number"),
            ("10.0.0.0/", "the prefix length must be a number"),
            ("10.0.0", "'10.0.0': not an IPv4 address"),
            ("10.0.0.256", "not an IPv4 address"),
            ("010.0.0.1", "not an IPv4 address"),
            ("'fe80::1%eth0'", "an address with a zone (%) is not allowed"),
            ("'1::2::3'", "not an IPv6 address"),
            ("sg-x", "unknown security group 'sg-x': define it or use a CIDR"),
            ("othr", "unknown security group 'othr': define it or use a CIDR (did you mean 'other'?)"),
            ("any", "unknown security group 'any': leave source out for any address"),
            ("G", "unknown security group 'G': define it or use a CIDR (did you mean 'g'?)"),
            ("''", "unknown security group ''"),
            ("", "must be an address, a CIDR or a group's name (leave source out for any address), not nothing (null)"),
            ("10", "not the number 10: quote it"),
            ("[g]", "not a list"),
            ("{group: both}", "unknown security group 'both': define it"),
            ("{address_group: g}", "unknown address group 'g': define it"),
            ("{cidr: g}", "'g': not an IPv4 address"),
            ("{}", "must have exactly one of cidr, group, address_group"),
            ("{cidr: 10.0.0.0/8, group: g}", "must have exactly one of cidr, group, address_group"),
            ("{grp: g}", "unknown key 'grp' (did you mean 'group'?)"),
        ],
    )
    def test_errors(self, written: str, message: str) -> None:
        found = inbound_error(f"tcp, source: {written}")
        assert found.startswith("p.yaml:6: security_groups[0].rules[0].source")
        assert message in found

    def test_the_wrong_end(self) -> None:
        assert inbound_error("tcp, destination: g") == (
            "p.yaml:6: security_groups[0].rules[0].destination: "
            "an inbound rule has a source, not a destination: use source"
        )
        message = error_of(document_with_rule("{direction: egress, protocol: tcp, source: g, destination: g}"))
        assert message.endswith("source: an outbound rule has a destination, not a source: use destination")

    def test_a_name_of_two_kinds_needs_the_mapping_form(self) -> None:
        text = (
            "version: 1\naddress_groups: [{name: x, addresses: [10.0.0.1]}]\nsecurity_groups:\n"
            "- {name: x, rules: [{direction: inbound, protocol: all, source: %s}]}\n"
        )
        assert error_of(text % "x") == (
            "p.yaml:4: security_groups[0].rules[0].source: 'x' is ambiguous: "
            "write {group: x} or {address_group: x}"
        )
        assert parse_policy(text % "{group: x}").security_groups[0].rules[0].peer == GroupPeer("x")
        assert parse_policy(text % "{address_group: x}").security_groups[0].rules[0].peer == AddressGroupPeer("x")

    def test_a_group_named_like_an_address_needs_the_mapping_form(self) -> None:
        text = (
            "version: 1\nsecurity_groups:\n- {name: 10.0.0.1}\n- {name: 10.0}\n"
            "- {name: x, rules: [{direction: inbound, protocol: all, source: %s}]}\n"
        )
        assert "write {group: 10.0.0.1} or {cidr: 10.0.0.1}" in error_of(text.replace("10.0}", "'10.0'}") % "10.0.0.1")
        policy = parse_policy(text.replace("10.0}", "'10.0'}") % "'10.0'")
        assert policy.security_groups[2].rules[0].peer == GroupPeer("10.0")

    def test_address_group_twice_is_once(self) -> None:
        policy = parse_policy("version: 1\naddress_groups: [{name: x, addresses: [10.0.0.2, 10.0.0.1, 10.0.0.2/32]}]")
        assert policy.address_groups[0].addresses == (ip_network("10.0.0.2/32"), ip_network("10.0.0.1/32"))


class TestRuleFields:
    """SPEC 2.1."""

    def test_defaults_and_values(self) -> None:
        rule = rule_of('direction: egress, protocol: udp, action: deny, priority: 100, description: a b, id: my.rule-1')
        assert rule == Rule("my.rule-1", "outbound", 4, 17, action="deny", priority=100, description="a b")
        assert rule_of("direction: ingress, protocol: all") == Rule("g/inbound/1", "inbound", 4)

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("priority: 0", "priority: must be a whole number from 1 to 100, not 0"),
            ("priority: 101", "priority: must be a whole number from 1 to 100, not 101"),
            ("action: drop", "action: must be one of allow, deny, not 'drop'"),
            ("description: " + "x" * 256, "description: has 256 characters, but at most 255"),
            ("description: a<b", "description: must contain neither < nor >"),
            ("description: a>b", "description: must contain neither < nor >"),
            ("description: 5", "description: must be a string, not the number 5: quote it"),
            ("id: a b", "id: must be 1 to 100 letters"),
            ("id: 5", "id: must be 1 to 100 letters"),
            ("port: 22", "unknown key 'port' (did you mean 'ports'?)"),
        ],
    )
    def test_errors(self, written: str, message: str) -> None:
        assert message in inbound_error("tcp, " + written)

    def test_direction(self) -> None:
        assert "rules[0].direction: is missing" in error_of(document_with_rule("{protocol: tcp}"))
        assert "rules[0].direction: must be one of inbound, outbound, ingress, egress, not 'in'" in error_of(
            document_with_rule("{direction: in, protocol: tcp}")
        )

    def test_line_is_that_of_the_value(self) -> None:
        text = "direction: inbound\n        protocol: tcp\n        source:\n          sg-x"
        assert error_of(document_with_rule(text)).startswith("p.yaml:9: security_groups[0].rules[0].source: unknown")


class TestRuleIds:
    """SPEC 2.5."""
    TEXT = (
        "version: 1\nsecurity_groups:\n- name: g\n  fast_add: [ssh]\n  rules:\n"
        "  - {direction: inbound, protocol: tcp, id: %s}\n"
        "  - {direction: outbound, protocol: tcp}\n"
        "  - {direction: inbound, protocol: udp}\n"
        "- name: h\n  rules: [{direction: inbound, protocol: tcp, id: %s}]\n"
    )

    def test_rules_with_an_id_count_too(self) -> None:
        groups = parse_policy(self.TEXT % ("x", "y")).security_groups
        assert [rule.id for rule in groups[0].rules] == ["g/inbound/1", "x", "g/outbound/1", "g/inbound/3"]

    def test_unique_in_the_document(self) -> None:
        assert error_of(self.TEXT % ("x", "x")) == (
            "p.yaml:10: security_groups[1].rules[0].id: duplicate rule id 'x', already used by the rule at line 6"
        )

    def test_a_generated_id_steps_over_those_written_before_it(self) -> None:
        groups = parse_policy(self.TEXT % ("g/inbound/3", "y")).security_groups
        assert [rule.id for rule in groups[0].rules] == ["g/inbound/1", "g/inbound/3", "g/outbound/1", "g/inbound/4"]
        groups = parse_policy(self.TEXT % ("g/outbound/1", "y")).security_groups
        assert [rule.id for rule in groups[0].rules] == ["g/inbound/1", "g/outbound/1", "g/outbound/2", "g/inbound/3"]

    def test_a_written_id_may_be_a_generated_one_but_not_anothers(self) -> None:
        assert parse_policy(self.TEXT % ("g/inbound/2", "h/inbound/1")).security_groups[0].rules[1].id == "g/inbound/2"
        assert "p.yaml:6: security_groups[0].rules[0].id: duplicate rule id 'g/inbound/1'" in error_of(
            self.TEXT % ("g/inbound/1", "y")
        )
        assert "duplicate rule id 'default/inbound/1'" in error_of(
            self.TEXT % ("default/inbound/1", "y") + "instances: [{name: a, addresses: [10.0.0.1]}]"
        )
