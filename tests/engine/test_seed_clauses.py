"""The seed document, clause by clause: what SPEC takes from it, shown with its own examples and numbers.

``test_6_3_...`` is about SPEC 6.3, ``test_1_...`` about section 1. The seed is "Security Groups and Security Group
Rules"; what stands in quotation marks is its text. How to read a table: ``scenario``.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from frames import ethernet, ip, tcp
from scenario import Changes, openers, policy_of, run
from stories import replayed

from sgfast.base.errors import PolicyError
from sgfast.policy.changes import (
    AddInstance,
    AddMember,
    AddPeering,
    AddRule,
    ModifyRule,
    RemoveMember,
    RemovePeering,
    RemoveRule,
)
from sgfast.policy.model import Instance, Rule

# Table 2 of the seed, word by word.
SG_AB = """
security_groups:
  - name: sg-AB
    rules:
      - {direction: inbound,  ethertype: IPv4, protocol: all, source: sg-AB}
      - {direction: inbound,  ethertype: IPv4, protocol: tcp, ports: 22,   source: 0.0.0.0/0}
      - {direction: inbound,  ethertype: IPv4, protocol: tcp, ports: 3389, source: 0.0.0.0/0}
      - {direction: inbound,  ethertype: IPv4, protocol: tcp, ports: 80,   source: 10.5.6.30/32}
      - {direction: outbound, ethertype: IPv4, protocol: all, destination: 0.0.0.0/0}
      - {direction: outbound, ethertype: IPv6, protocol: all, destination: "::/0"}
instances:
  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [sg-AB]}
  - {name: b, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [sg-AB]}
"""

#: The number of statements of each clause that are the seed's. The default values of clause 2 are those of 5.2 and 8.5.
STATEMENTS = {
    "1": 3, "2": 1, "2.1": 1, "2.2": 1, "3.6": 1, "4.8": 1, "4.9": 1, "4.11": 2, "4.12": 1, "5.2": 1, "6.2": 1,
    "6.3": 1, "6.4": 2, "6.5": 1, "6.7": 1, "7.2": 3, "8.1": 1, "8.3": 1, "8.5": 1, "10.4": 1,
}  # fmt: skip


def test_every_statement_of_the_seed_has_a_test_here() -> None:
    clauses = (re.match(r"test_(\d+)(?:_(\d+))?_[a-z]", name) for name in globals())
    tested = Counter(".".join(filter(None, clause.groups())) for clause in clauses if clause)
    assert {clause: n for clause, n in STATEMENTS.items() if tested[clause] < n} == {}
    assert set(tested) == set(STATEMENTS), "a clause that is not the seed's"


def refused(text: str) -> str:
    with pytest.raises(PolicyError) as error:
        policy_of(text)
    return str(error.value)


ALL_OUT = "{direction: outbound, protocol: all, destination: 0.0.0.0/0}"


def one_instance(*rules: str) -> str:
    return f"""
security_groups: [{{name: g, rules: [{", ".join(rules)}]}}]
instances: [{{name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}}]
"""


# --- 1 "Security group": who is in it, and whose rules apply

TWO_GROUPS = """
security_groups:
  - {name: ssh, rules: [{direction: inbound, protocol: tcp, ports: 22, source: 0.0.0.0/0}]}
  - {name: web, rules: [{direction: inbound, protocol: tcp, ports: "80,22", source: 0.0.0.0/0}]}
instances:
  - {name: one, addresses: [10.0.0.5], security_groups: [ssh]}
  - {name: two, addresses: [10.0.0.6], security_groups: [web, ssh]}
"""


def test_1_an_instance_is_in_one_or_more_groups() -> None:
    policy = policy_of(TWO_GROUPS)
    assert [instance.security_groups for instance in policy.instances] == [("ssh",), ("web", "ssh")]
    run(policy, """
        tcp client:1 > one:80    -> deny no-rule
        # "If one security group cannot meet your requirements, you can add an instance to multiple security groups."
        apply second-group       -> 0 disconnected
        tcp client:1 > one:80    -> allow rule web/inbound/1
        # but there is no instance without a group
        apply leave-both         -> refused
        tcp client:2 > one:80    -> allow rule web/inbound/1
    """, changes={
        "second-group": AddMember("web", "one"), "leave-both": [RemoveMember("web", "one"), RemoveMember("ssh", "one")],
    })  # fmt: skip


def test_1_rules_apply_to_every_instance_added_to_the_group() -> None:
    late = Instance("late", "default", (ip_network("10.0.0.9/32"),), ("ssh",))
    run(TWO_GROUPS, """
        tcp client:1 > one:22  -> allow rule ssh/inbound/1
        tcp client:1 > two:22  -> allow rule ssh/inbound/1
        tcp client:1 > late:22 -> out-of-scope
        apply added
        tcp client:1 > late:22 -> allow rule ssh/inbound/1
        tcp client:1 > late:80 -> deny no-rule
    """, changes={"added": AddInstance(late)})  # fmt: skip


def test_1_an_instance_in_several_groups_has_the_union_of_their_rules() -> None:
    openers(TWO_GROUPS, """
        tcp client:1 > one:22 -> allow rule ssh/inbound/1
        tcp client:1 > one:80 -> deny no-rule
        # the first in document order, whatever the order on the instance
        tcp client:1 > two:22 -> allow rule ssh/inbound/1
        tcp client:1 > two:80 -> allow rule web/inbound/1
        tcp client:1 > two:81 -> deny no-rule
    """)  # fmt: skip


# --- 2 The document


def test_2_one_document_describes_one_account() -> None:
    """"You can select another security group in the same region under the current account as the source.\""""
    rule = "{direction: inbound, protocol: all, source: others}"
    message = refused("security_groups: [{name: mine, rules: [" + rule + "]}]")
    assert "security_groups[0].rules[0].source" in message and "'others'" in message
    # Another account may well have a group of that name: the document knows only its own.
    openers("security_groups: [{name: mine, rules: [" + rule + "]}, {name: others}]" + """
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [mine]}
  - {name: theirs, addresses: [10.0.0.6], security_groups: [others]}
""", """
        tcp 10.0.0.7:1 > a:22 -> deny no-rule
        tcp theirs:1 > a:22   -> deny no-rule; egress deny no-rule; ingress -
    """)  # fmt: skip


def test_2_1_protocol_is_all_tcp_udp_gre_icmp_or_more() -> None:
    packets = {
        "tcp": "tcp client:1 > a:2", "udp": "udp client:1 > a:2", "gre": "gre client > a",
        "icmp": "icmp client > a 8/0", "sctp": "sctp client:1 > a:2", "dccp": "dccp client:1 > a:2",
        "udplite": "udplite client:1 > a:2", "esp": "esp client > a", "ospf": "89 client > a", "0": "0 client > a",
        "253": "253 client > a",
    }  # fmt: skip
    for protocol in ("all", *packets):
        openers(one_instance(f"{{direction: inbound, protocol: {protocol}, source: 0.0.0.0/0}}"), "\n".join(
            packet + (" -> allow rule g/inbound/1" if protocol in ("all", name) else " -> deny no-rule")
            for name, packet in packets.items()
        ))  # fmt: skip


def test_2_2_port_is_from_1_to_65535() -> None:
    def with_ports(ports: object, protocol: str = "tcp") -> str:
        return one_instance(
            f"{{direction: inbound, protocol: {protocol}, ports: {ports}, source: 0.0.0.0/0}}",
            f"{{direction: outbound, protocol: {protocol}, ports: {ports}, destination: 0.0.0.0/0}}",
        )

    for protocol in ("tcp", "udp", "udplite", "sctp", "dccp"):
        for port, another in ((1, 0), (65535, 65534)):
            openers(with_ports(port, protocol), f"""
                {protocol} client:9 > a:{port}    -> allow rule g/inbound/1
                {protocol} client:9 > a:{another} -> deny no-rule
                {protocol} a:9 > client:{port}    -> allow rule g/outbound/1
                {protocol} a:9 > client:{another} -> deny no-rule
            """)  # fmt: skip
    openers(with_ports("1-65535"), """
        tcp client:9 > a:1     -> allow rule g/inbound/1
        tcp client:9 > a:65535 -> allow rule g/inbound/1
    """)  # fmt: skip
    for port in (-1, 0, 65536):
        assert "security_groups[0].rules[0].ports" in refused(with_ports(port))


# --- 3.6, 4 The judgement


def two_vpcs(rules: str, *, peered: bool = False, region: str = "") -> str:
    return f"""
vpcs: [{{name: vpc-1}}, {{name: vpc-2{region}}}]
peerings: [{"[vpc-1, vpc-2]" if peered else ""}]
security_groups:
  - {{name: g, rules: [{rules}]}}
instances:
  - {{name: a, vpc: vpc-1, addresses: [10.1.0.5], security_groups: [g]}}
  - {{name: b, vpc: vpc-2, addresses: [10.2.0.5], security_groups: [g]}}
  - {{name: c, vpc: vpc-1, addresses: [10.1.0.6], security_groups: [g]}}
"""


ALL_IN = "{direction: inbound, protocol: all, source: 0.0.0.0/0}"
EACH_OTHER = "{direction: inbound, protocol: all, source: g}"


def test_3_6_different_vpcs_cannot_communicate_whatever_the_rules() -> None:
    """"Different VPCs cannot communicate with each other.\""""
    for rules in (f"{ALL_IN}, {ALL_OUT}", f"{EACH_OTHER}, {ALL_OUT}", ""):
        openers(two_vpcs(rules), """
            tcp a:1 > b:22  -> deny vpc-isolated; egress deny vpc-isolated; ingress -
            udp b:1 > a:53  -> deny vpc-isolated; egress deny vpc-isolated; ingress -
            icmp a > b 8/0  -> deny vpc-isolated
        """)  # fmt: skip


def test_4_8_rules_are_whitelists() -> None:
    """"... the request is allowed and other requests are denied.\""""
    openers(SG_AB, """
        tcp client:40000    > a:22    -> allow rule sg-AB/inbound/2; egress -
        tcp client:40000    > a:3389  -> allow rule sg-AB/inbound/3
        tcp 10.5.6.30:40000 > a:80    -> allow rule sg-AB/inbound/4
        tcp 10.5.6.29:40000 > a:80    -> deny no-rule
        tcp 10.5.6.31:40000 > a:80    -> deny no-rule
        tcp client:40000    > a:21    -> deny no-rule
        tcp client:40000    > a:23    -> deny no-rule
        tcp client:22       > a:40000 -> deny no-rule
        udp client:40000    > a:22    -> deny no-rule
        # between members; of two rules that allow it the first is named
        tcp a:40000 > b:22   -> allow rule sg-AB/inbound/1; egress allow rule sg-AB/outbound/1
        icmp b > a 8/0       -> allow rule sg-AB/inbound/1; egress allow rule sg-AB/outbound/1
        # "If the destination of an outbound security group rule is 0.0.0.0/0, all outbound requests are allowed."
        tcp a:40000 > 10.5.6.30:81 -> allow rule sg-AB/outbound/1; ingress -
        esp a > client             -> allow rule sg-AB/outbound/1
        # "::/0 represents all IPv6 addresses."
        tcp a:40000 > [2001:db8:ff::9]:81 -> allow rule sg-AB/outbound/2
        # no inbound rule is one for IPv6, not even for members
        tcp [2001:db8:ff::9]:40000 > a:22 -> deny no-rule
        tcp [2001:db8::5]:40000 > b:22    -> deny no-rule; egress allow rule sg-AB/outbound/2; ingress deny no-rule
    """)  # fmt: skip
    openers(one_instance(), """
        tcp client:40000 > a:22 -> deny no-rule
        tcp a:40000 > client:22 -> deny no-rule
    """)  # fmt: skip


def test_4_9_port_is_the_destination_port_in_both_directions() -> None:
    """"Destination port used to match traffic in a security group rule.\""""
    openers(one_instance(
        "{direction: inbound, protocol: tcp, ports: 22, source: 0.0.0.0/0}",
        "{direction: outbound, protocol: tcp, ports: 443, destination: 0.0.0.0/0}",
    ), """
        # "over specific ports to instances": the instance's port
        tcp client:40000 > a:22  -> allow rule g/inbound/1
        tcp client:22 > a:40000  -> deny no-rule
        # "over specific ports from instances": the other end's port
        tcp a:40000 > client:443 -> allow rule g/outbound/1
        tcp a:443 > client:40000 -> deny no-rule
    """)  # fmt: skip


def test_4_11_source_and_destination_groups_are_of_the_same_region() -> None:
    """"You can select another security group in the same region.\""""
    # Security group A with source B, then with destination B: "access from instance B is allowed to instance A",
    # "access from instance A is allowed to instance B".
    groups = """
security_groups:
  - {name: A, rules: [{direction: inbound, protocol: all, source: B}, {direction: outbound, protocol: all,
     destination: B}, {direction: inbound, protocol: tcp, ports: 443, source: 10.2.0.0/16}]}
  - {name: B, rules: [{direction: inbound, protocol: all}, {direction: outbound, protocol: all}]}
"""
    for region, one_way, other_way in (
        ("", "allow rule A/inbound/1", "allow rule; egress allow rule A/outbound/1"),
        (", region: eu-nl", "deny no-rule; egress allow rule; ingress deny no-rule", "deny no-rule; ingress -"),
    ):
        openers(groups + f"""
vpcs: [{{name: vpc-1}}, {{name: vpc-2{region}}}]
peerings: [[vpc-1, vpc-2]]
instances:
  - {{name: a, vpc: vpc-1, addresses: [10.1.0.5], security_groups: [A]}}
  - {{name: b, vpc: vpc-2, addresses: [10.2.0.5], security_groups: [B]}}
""", f"""
            tcp b:1 > a:22      -> {one_way}
            tcp b:1 > a:443     -> allow rule
            tcp a:1 > b:22      -> {other_way}
            tcp client:1 > a:22 -> deny no-rule
            tcp a:1 > client:22 -> deny no-rule
        """)  # fmt: skip


def test_4_11_source_group_reaches_no_further_than_vpc_and_peers() -> None:
    for peered, across in ((False, "deny vpc-isolated"), (True, "allow rule g/inbound/1")):
        openers(two_vpcs(f"{EACH_OTHER}, {ALL_OUT}", peered=peered), f"""
            tcp a:1 > c:22 -> allow rule g/inbound/1
            tcp a:1 > b:22 -> {across}
        """)  # fmt: skip


def test_4_12_responses_need_no_rule_in_either_direction() -> None:
    """"Security groups are stateful.\""""
    run(one_instance(ALL_OUT), """
        # "... the response traffic for that request is allowed to flow in regardless of inbound ... rules"
        tcp client:1 > a:22 S  -> deny no-rule
        tcp a:1 > client:80 S  -> allow rule
        tcp client:80 > a:1 SA -> allow established
        udp a:1 > client:53    -> allow rule
        udp client:53 > a:1    -> allow established
        ping a > client        -> allow rule
        pong client > a        -> allow established
    """)  # fmt: skip
    run(one_instance(ALL_IN), """
        # "... responses to allowed inbound traffic are allowed to flow out, regardless of outbound rules"
        tcp a:1 > client:22 S  -> deny no-rule
        tcp client:1 > a:80 S  -> allow rule
        tcp a:80 > client:1 SA -> allow established
        udp client:1 > a:53    -> allow rule
        udp a:53 > client:1    -> allow established
        ping client > a        -> allow rule
        pong a > client        -> allow established
    """)  # fmt: skip


# --- 5.2 "The timeout period of connection tracking varies by protocol"

#: The packets of a connection at 0 s, the packet that asks whether it is there, and what it gets if it is not.
TIMEOUTS = {
    "tcp established": (600, ["tcp client:1 > a:22 S", "tcp a:22 > client:1 SA", "tcp client:1 > a:22 A"],
                        "tcp client:1 > a:22 PA", "deny midstream"),
    "tcp fin-wait": (30, ["tcp client:1 > a:22 S", "tcp a:22 > client:1 SA", "tcp client:1 > a:22 A",
                          "tcp client:1 > a:22 FA"], "tcp a:22 > client:1 FA", "deny midstream"),
    "tcp otherwise": (30, ["tcp client:1 > a:22 S"], "tcp a:22 > client:1 SA", "deny midstream"),
    "icmp": (30, ["ping client > a"], "pong a > client", "deny invalid"),
    "icmp answered": (30, ["ping client > a", "pong a > client"], "pong a > client", "deny invalid"),
    "udp both ways": (180, ["udp client:1 > a:53", "udp a:53 > client:1"], "udp a:53 > client:1", "deny no-rule"),
    "udp one way": (30, ["udp client:1 > a:53", "udp client:1 > a:53"], "udp a:53 > client:1", "deny no-rule"),
    "gre both ways": (180, ["gre client > a", "gre a > client"], "gre a > client", "deny no-rule"),
    "gre one way": (30, ["gre client > a", "gre client > a"], "gre a > client", "deny no-rule"),
}  # fmt: skip


@pytest.mark.parametrize("case", TIMEOUTS)
def test_5_2_timeout_is_600_s_180_s_or_30_s_by_protocol_and_status(case: str) -> None:
    seconds, packets, question, gone = TIMEOUTS[case]
    began = "\n".join(f"@0 {packet} -> allow" for packet in packets)
    for at, answer in ((f"{seconds}-1ns", "allow established"), (f"{seconds}", gone)):
        run(one_instance(ALL_IN), f"{began}\n@{at} {question} -> {answer}")


# --- 6 "If you add, modify, or delete a security group rule, or add or remove an instance ..."

#: By each of the rules of SG_AB that let something in.
INBOUND = """
    @0 tcp client:40000 > a:22 S    -> allow rule sg-AB/inbound/2
    @0 tcp a:22 > client:40000 SA   -> allow established
    @0 tcp client:40000 > a:22 A    -> allow established
    @0 tcp other:40001 > b:3389 S   -> allow rule sg-AB/inbound/3
    @0 tcp 10.5.6.30:40002 > b:80 S -> allow rule sg-AB/inbound/4
    @0 icmp b > a 8/0               -> allow rule sg-AB/inbound/1
"""
INBOUND_CUT = """
    @2 tcp client:40000 > a:22 PA   -> deny disconnected sg-AB/inbound/2
    @2 tcp a:22 > client:40000 PA   -> deny disconnected
    @2 tcp b:3389 > other:40001 SA  -> deny disconnected
    @2 tcp 10.5.6.30:40002 > b:80 S -> deny disconnected
    @2 icmp b > a 8/0               -> deny disconnected; egress allow established; ingress deny disconnected
    @2 icmp a > b 0/0               -> deny disconnected; egress deny disconnected; ingress -
"""
OUTBOUND = """
    @0 tcp a:50000 > client:443 S   -> allow rule sg-AB/outbound/1
    @0 tcp client:443 > a:50000 SA  -> allow established
    @0 tcp a:50000 > client:443 A   -> allow established
    @0 udp b:50001 > other:53       -> allow rule sg-AB/outbound/1
"""
OUTBOUND_KEPT = """
    @2 tcp client:443 > a:50000 PA  -> allow established sg-AB/outbound/1
    @2 tcp a:50000 > client:443 PA  -> allow established sg-AB/outbound/1
    @2 udp other:53 > b:50001       -> allow established sg-AB/outbound/1
"""
TLS = Rule("", "inbound", 4, 6, ((443, 443),))
FROM_30 = policy_of(SG_AB).group_by_name["sg-AB"].rules[3]
assert str(FROM_30.peer) == "10.5.6.30/32"

#: The seed's list. Whether the rules still allow what came in makes no difference.
RULE_CHANGES: Changes = {
    "add inbound": AddRule("sg-AB", TLS),
    "add outbound": AddRule("sg-AB", replace(TLS, direction="outbound")),
    "modify inbound": ModifyRule("sg-AB", "sg-AB/inbound/4", replace(FROM_30, peer=ip_network("10.5.6.0/24"))),
    "modify outbound": ModifyRule("sg-AB", "sg-AB/outbound/2", Rule("", "outbound", 6, 6)),
    "delete inbound": RemoveRule("sg-AB", "sg-AB/inbound/3"),
    "delete outbound": RemoveRule("sg-AB", "sg-AB/outbound/1"),
}


def test_6_2_new_connections_match_the_new_rules_at_once_in_both_directions() -> None:
    """"All the new connections will match the new rules.\""""
    run(SG_AB, """
        @1 tcp client:1 > a:443    -> deny no-rule
        @1 tcp client:1 > a:22     -> allow rule sg-AB/inbound/2
        @1 tcp 10.5.6.30:1 > a:80  -> allow rule sg-AB/inbound/4
        @1 tcp a:1 > client:25     -> allow rule sg-AB/outbound/1
        @1 apply changes
        @1 tcp client:2 > a:443    -> allow rule sg-AB/inbound/5
        @1 tcp client:2 > a:22     -> deny no-rule
        @1 tcp 10.5.6.30:2 > a:80  -> deny no-rule
        @1 tcp 10.5.6.31:2 > a:80  -> allow rule sg-AB/inbound/4
        @1 tcp a:2 > client:25     -> deny no-rule
    """, changes={"changes": [
        AddRule("sg-AB", TLS), RemoveRule("sg-AB", "sg-AB/inbound/2"), RemoveRule("sg-AB", "sg-AB/outbound/1"),
        ModifyRule("sg-AB", "sg-AB/inbound/4", replace(FROM_30, peer=ip_network("10.5.6.31/32"))),
    ]})  # fmt: skip


@pytest.mark.parametrize("kind", RULE_CHANGES)
def test_6_3_a_rule_change_cuts_all_inbound_connections_of_the_group(kind: str) -> None:
    """"The inbound connections of all instances in the security group will be automatically cleared.\""""
    run(SG_AB, INBOUND + f"@1 apply change -> 4 disconnected\n{INBOUND_CUT}", changes={"change": RULE_CHANGES[kind]})


@pytest.mark.parametrize("case", TIMEOUTS)
def test_6_4_a_new_connection_is_not_established_until_the_timeout_expires(case: str) -> None:
    """"... new connections will not be established immediately until the timeout period ... expires.\""""
    seconds, packets, _, _ = TIMEOUTS[case]
    opener = packets[0]
    # The last packet is at 100 s, the cut a nanosecond later.
    began = "\n".join(f"@100 {packet} -> allow" for packet in packets)
    for change, then in (("harmless", "allow rule"), ("closing", "deny no-rule")):
        run(one_instance(ALL_IN, ALL_OUT), f"""
            {began}
            @100+1ns apply {change}        -> 1 disconnected
            @100+1ns {opener}              -> deny disconnected
            # the opener tries on and on, which prolongs nothing
            @{99 + seconds} {opener}       -> deny disconnected
            @{100 + seconds}-1ns {opener}  -> deny disconnected
            @{100 + seconds} {opener}      -> {then}
        """, changes={"harmless": AddRule("g", TLS), "closing": RemoveRule("g", "g/inbound/1")})  # fmt: skip


def test_6_4_an_icmp_connection_cut_right_after_its_last_packet_is_free_30_s_after_it() -> None:
    """"After an ICMP persistent connection is disconnected, a new connection will be established and a new rule will
    be applied when the timeout period (30s) expires.\""""
    ping = "{direction: inbound, protocol: icmp, source: 0.0.0.0/0}"
    run(one_instance(ping), """
        @0       ping client > a id=7 -> allow rule g/inbound/1
        @1       pong a > client id=7 -> allow established
        @1+1ns   apply modified       -> 1 disconnected
        @2       ping client > a id=7 -> deny disconnected g/inbound/1
        @2       pong a > client id=7 -> deny disconnected g/inbound/1
        @30      ping client > a id=7 -> deny disconnected
        @31-1ns  ping client > a id=7 -> deny disconnected
        @31      ping client > a id=7 -> allow rule g/inbound/2
        @31      pong a > client id=7 -> allow established g/inbound/2
    """, changes={"modified": [RemoveRule("g", "g/inbound/1"), AddRule("g", Rule("", "inbound", 4, 1))]})  # fmt: skip


@pytest.mark.parametrize("kind", RULE_CHANGES)
def test_6_5_outbound_connections_persist_under_their_original_rule(kind: str) -> None:
    """"The existing outbound persistent connections will not be disconnected, and the original rule will still be
    applied.\""""
    run(SG_AB, OUTBOUND + f"@1 apply change -> 0 disconnected\n{OUTBOUND_KEPT}" + f"""
        # 600 s and 180 s from their last packets, as if nothing had happened
        @182-1ns udp b:50001 > other:53      -> allow established sg-AB/outbound/1
        @362-2ns udp b:50001 > other:53      -> allow established sg-AB/outbound/1
        @602-1ns tcp a:50000 > client:443 PA -> allow established sg-AB/outbound/1
        # "All the new connections will match the new rules."
        @602 udp b:50001 > other:53          -> {"deny no-rule" if kind == "delete outbound" else "allow rule"}
    """, changes={"change": RULE_CHANGES[kind]})  # fmt: skip


def test_6_7_what_the_seed_says_is_the_setting_cut_inbound_and_the_default() -> None:
    change = {"change": RULE_CHANGES["add inbound"]}
    for setting in ("", "settings: {on_change: cut-inbound}", "settings: {profile: otc}"):
        run(SG_AB + setting, INBOUND + OUTBOUND + "@1 apply change -> 4 disconnected" + INBOUND_CUT + OUTBOUND_KEPT,
            changes=change)  # fmt: skip
    for setting in ("cut-unmatched", "keep"):
        run(SG_AB + f"settings: {{on_change: {setting}}}", INBOUND + OUTBOUND + """
            @1 apply change               -> 0 disconnected
            @2 tcp client:40000 > a:22 PA -> allow established
        """ + OUTBOUND_KEPT, changes=change)  # fmt: skip


# --- 7.2 "If instances in the same security group cannot communicate with each other, the possible causes are ..."


def test_7_2_peering_is_symmetric_and_not_transitive() -> None:
    openers("""
vpcs: [{name: vpc-1}, {name: vpc-2}, {name: vpc-3}]
peerings: [[vpc-1, vpc-2], [vpc-3, vpc-2]]
security_groups: [{name: g, template: all-ports-open}]
instances:
  - {name: a, vpc: vpc-1, addresses: [10.1.0.5], security_groups: [g]}
  - {name: b, vpc: vpc-2, addresses: [10.2.0.5], security_groups: [g]}
  - {name: c, vpc: vpc-3, addresses: [10.3.0.5], security_groups: [g]}
""", """
        tcp a:1 > b:22 -> allow rule
        tcp b:1 > a:22 -> allow rule
        tcp b:1 > c:22 -> allow rule
        tcp c:1 > b:22 -> allow rule
        tcp a:1 > c:22 -> deny vpc-isolated
        tcp c:1 > a:22 -> deny vpc-isolated
    """)  # fmt: skip


@pytest.mark.parametrize("region", ["", ", region: eu-nl"])
def test_7_2_peering_connects_vpcs_of_one_region_and_of_different_ones(region: str) -> None:
    """"You can use VPC peering connections to connect VPCs in different regions.\""""
    run(two_vpcs(f"{ALL_IN}, {ALL_OUT}", region=region), """
        tcp a:1 > b:22 -> deny vpc-isolated
        apply peering
        tcp a:1 > b:22 -> allow rule
        tcp b:1 > a:22 -> allow rule
        apply none
        tcp a:2 > b:22 -> deny vpc-isolated
    """, changes={"peering": AddPeering("vpc-2", "vpc-1"), "none": RemovePeering("vpc-1", "vpc-2")})  # fmt: skip


def test_7_2_instances_of_one_group_in_unpeered_vpcs_cannot_communicate() -> None:
    rules = f"{EACH_OTHER}, {ALL_OUT}"
    # "The inbound rule for communication between instances in the same security group is deleted."
    run(two_vpcs(rules), """
        tcp a:1 > c:22 -> allow rule g/inbound/1
        apply deleted
        tcp a:2 > c:22 -> deny no-rule; egress allow rule; ingress deny no-rule
    """, changes={"deleted": RemoveRule("g", "g/inbound/1")})  # fmt: skip
    # "The instances belong to the same security group but different VPCs."
    openers(two_vpcs(rules), "tcp b:1 > c:22 -> deny vpc-isolated")


# --- 8 Default group, templates, quotas


def test_8_1_without_any_group_a_default_group_is_created_for_the_instance() -> None:
    """"... the system automatically creates a default security group ... and associates it with the instance.\""""
    policy = policy_of("""
instances:
  - {name: a, addresses: [10.0.0.5]}
  - {name: b, addresses: [10.0.0.6]}
""")
    assert [group.name for group in policy.security_groups] == ["default"]
    assert [instance.security_groups for instance in policy.instances] == [("default",), ("default",)]
    late = Instance("c", "default", (ip_network("10.0.0.7/32"),), ())
    run(policy, """
        tcp a:1 > b:22      -> allow rule default/inbound/1; egress allow rule default/outbound/1
        # the linked page's prose, not its table: nothing from outside
        tcp client:1 > a:22 -> deny no-rule
        icmp client > a 8/0 -> deny no-rule
        # "When you create an instance, the system automatically adds the instance to a security group."
        apply created
        tcp a:1 > c:22      -> allow rule default/inbound/1; egress allow rule default/outbound/1
        tcp client:1 > c:22 -> deny no-rule
    """, changes={"created": AddInstance(late)})  # fmt: skip
    # A group of that name is used as it is written, and with other groups nobody is meant to join it by omission.
    written = "security_groups: [{name: default, fast_add: [ssh]}, {name: web, fast_add: [http]}]\n" + """
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [web]}
  - {name: forgotten, addresses: [10.0.0.6]}
"""
    (warning,) = policy_of(written).warnings
    assert "forgotten" in warning and "default" in warning
    openers(written, """
        tcp client:1 > forgotten:22 -> allow rule default/inbound/1
        tcp client:1 > forgotten:80 -> deny no-rule
        tcp forgotten:1 > a:80      -> deny no-rule; egress deny no-rule; ingress -
    """)  # fmt: skip


def test_8_3_templates_contain_preset_rules() -> None:
    """"... you can select a template, such General-purpose web server or All ports open.\""""
    def by_template(template: str) -> str:
        return f"""
security_groups: [{{name: g, template: {template}}}, {{name: other, template: {template}}}]
instances:
  - {{name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}}
  - {{name: b, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [g]}}
  - {{name: c, addresses: [10.0.0.7], security_groups: [other]}}
"""

    # Each trusts its own members in both families, and those of another group of the same template no more than others.
    own = """
        gre a > b                            -> allow rule
        tcp [2001:db8::5]:1 > b:3306         -> allow rule; egress allow rule; ingress allow rule
        tcp [2001:db8:ff::9]:1 > a:22        -> deny no-rule
        icmpv6 a > 2001:db8:ff::9 128/0      -> allow rule
        tcp a:1 > client:25                  -> allow rule
    """
    openers(by_template("general-purpose-web-server"), own + """
        tcp client:1 > a:22   -> allow rule g/inbound/1
        tcp client:1 > a:3389 -> allow rule g/inbound/2
        tcp client:1 > a:80   -> allow rule g/inbound/3
        tcp client:1 > a:443  -> allow rule g/inbound/4
        icmp client > a 13/0  -> allow rule g/inbound/5
        tcp client:1 > a:3306 -> deny no-rule
        udp client:1 > a:443  -> deny no-rule
        tcp a:1 > c:3306      -> deny no-rule; egress allow rule; ingress deny no-rule
    """)  # fmt: skip
    openers(by_template("all-ports-open"), own + """
        tcp client:1 > a:1     -> allow rule
        udp client:1 > a:0     -> allow rule
        tcp client:1 > a:65535 -> allow rule
        253 client > a         -> allow rule
    """)  # fmt: skip
    openers(by_template("fast-add"), own + """
        tcp client:1 > a:22    -> deny no-rule
        icmp client > a 8/0    -> deny no-rule
    """)  # fmt: skip
    # "... you can add new rules to the security group or modify original rules."
    old = policy_of(by_template("general-purpose-web-server")).group_by_name["g"].rules[0]
    run(by_template("general-purpose-web-server"), """
        apply own
        tcp client:1 > a:22    -> deny no-rule
        tcp 10.5.6.30:1 > a:22 -> allow rule g/inbound/1
        tcp client:1 > a:8443  -> allow rule
    """, changes={"own": [
        ModifyRule("g", "g/inbound/1", replace(old, peer=ip_network("10.5.6.30/32"))),
        AddRule("g", replace(TLS, ports=((8443, 8443),))),
    ]})  # fmt: skip


def test_8_5_quotas_are_100_groups_and_50_rules_per_group() -> None:
    """"By default, you can create a maximum of 100 security groups", "add up to 50 security group rules".\""""
    def account(groups: int, rules: int) -> str:
        rule = "{direction: inbound, protocol: tcp, source: 192.168.10.10/32}"
        named = [f"{{name: g{n}}}" for n in range(1, groups)]
        return f"security_groups: [{{name: g, rules: [{', '.join([rule] * rules)}]}}, {', '.join(named)}]\n"

    full = policy_of(account(100, 50))
    assert (len(full.security_groups), len(full.security_groups[0].rules)) == (100, 50)
    for over, quota, number in (
        (account(101, 50), "quotas.security_groups", "100"), (account(100, 51), "quotas.rules_per_group", "50"),
    ):  # fmt: skip
        assert quota in refused(over) and f"quota of {number}" in refused(over)
    policy_of(account(101, 51) + "quotas: {security_groups: 101, rules_per_group: 51}")


# --- 10.4 "After a port is enabled in a security group rule, ensure that the port in the instance is also enabled"


def test_10_4_a_port_open_in_the_group_may_be_closed_on_the_instance(tmp_path: Path) -> None:
    there, back = ("203.0.113.9", "10.0.0.5"), ("10.0.0.5", "203.0.113.9")
    frames = [
        ethernet(ip(*there, tcp(40000, 22, "S"))), ethernet(ip(*back, tcp(22, 40000, "SA"))),
        # RDP is allowed and nobody listens; with a firewall of its own the instance does not even say so.
        ethernet(ip(*there, tcp(40001, 3389, "S"))), ethernet(ip(*back, tcp(3389, 40001, "RA"))),
        ethernet(ip(*there, tcp(40002, 3389, "S"))), ethernet(ip(*there, tcp(40002, 3389, "S"))),
        ethernet(ip(*there, tcp(40003, 80, "S"))),
    ]  # fmt: skip
    _, _, rows = replayed(tmp_path, "version: 1\n" + SG_AB, [(float(n), frame) for n, frame in enumerate(frames)])
    assert sorted((row["initiator_port"], row["verdict"], row["answer"]) for row in rows) == [
        (40000, "allow", "answered"), (40001, "allow", "refused"), (40002, "allow", "silent"),
        (40003, "deny", "silent"),
    ]  # fmt: skip
