"""The seed document's examples, its templates and its default group, as tables (how to read them: ``scenario``)."""

from __future__ import annotations

import pytest
from scenario import openers, policy_of, run

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


def test_table_2_from_outside() -> None:
    openers(SG_AB, """
        tcp 203.0.113.9:40000 > a:22    -> allow rule sg-AB/inbound/2; egress -
        tcp 203.0.113.9:40000 > a:3389  -> allow rule sg-AB/inbound/3
        tcp 10.5.6.30:40000   > a:80    -> allow rule sg-AB/inbound/4
        tcp 10.5.6.29:40000   > a:80    -> deny no-rule
        tcp 10.5.6.31:40000   > a:80    -> deny no-rule
        tcp 203.0.113.9:40000 > a:80    -> deny no-rule
        tcp 10.5.6.30:40000   > a:443   -> deny no-rule
        tcp 203.0.113.9:40000 > a:21    -> deny no-rule
        tcp 203.0.113.9:40000 > a:23    -> deny no-rule
        # the rules speak of destination ports
        tcp 203.0.113.9:22    > a:40000 -> deny no-rule
        # and of TCP
        udp 203.0.113.9:40000 > a:22    -> deny no-rule
        sctp 203.0.113.9:4000 > a:22    -> deny no-rule
        icmp 203.0.113.9      > a 8/0   -> deny no-rule
        gre 203.0.113.9       > a       -> deny no-rule
    """)  # fmt: skip


def test_table_2_between_members() -> None:
    openers(SG_AB, """
        tcp a:40000 > b:5432 -> allow rule sg-AB/inbound/1; egress allow rule sg-AB/outbound/1
        udp a:40000 > b:53   -> allow rule sg-AB/inbound/1; egress allow rule sg-AB/outbound/1
        icmp b > a 8/0       -> allow rule sg-AB/inbound/1; egress allow rule sg-AB/outbound/1
        gre a > b            -> allow rule sg-AB/inbound/1
        # two rules allow it: the first is named
        tcp a:40000 > b:22   -> allow rule sg-AB/inbound/1
    """)  # fmt: skip


def test_table_2_outbound_and_ipv6() -> None:
    openers(SG_AB, """
        tcp a:40000 > 203.0.113.9:25 -> allow rule sg-AB/outbound/1; ingress -
        udp a:40000 > 8.8.8.8:53     -> allow rule sg-AB/outbound/1
        icmp a > 203.0.113.9 8/0     -> allow rule sg-AB/outbound/1
        esp a > 203.0.113.9          -> allow rule sg-AB/outbound/1

        tcp a:40000 > [2001:db8:ff::9]:443  -> allow rule sg-AB/outbound/2; ingress -
        icmpv6 a > 2001:db8:ff::9 128/0     -> allow rule sg-AB/outbound/2
        # no inbound rule is one for IPv6, not even for members
        tcp [2001:db8:ff::9]:40000 > a:22   -> deny no-rule
        icmpv6 2001:db8:ff::9 > a 128/0     -> deny no-rule
        tcp [2001:db8::5]:40000 > b:22      -> deny no-rule; egress allow rule sg-AB/outbound/2; ingress deny no-rule
    """)  # fmt: skip


def test_table_2_is_stateful() -> None:
    run(SG_AB, """
        # somebody logs in; the answers need no rule
        @0    tcp 203.0.113.9:40000 > a:22 S    -> allow rule sg-AB/inbound/2
        @0.1  tcp a:22 > 203.0.113.9:40000 SA   -> allow established sg-AB/inbound/2
        @0.2  tcp 203.0.113.9:40000 > a:22 A    -> allow established sg-AB/inbound/2
        @0.3  tcp a:22 > 203.0.113.9:40000 PA   -> allow established sg-AB/inbound/2
        # a calls out; the answers need no rule either
        @1    tcp a:50000 > 203.0.113.9:443 S   -> allow rule sg-AB/outbound/1
        @1.1  tcp 203.0.113.9:443 > a:50000 SA  -> allow established sg-AB/outbound/1
        @1.2  udp a:50000 > 8.8.8.8:53          -> allow rule sg-AB/outbound/1
        @1.3  udp 8.8.8.8:53 > a:50000          -> allow established sg-AB/outbound/1
        @1.4  icmp a > 203.0.113.9 8/0          -> allow rule sg-AB/outbound/1
        @1.5  icmp 203.0.113.9 > a 0/0          -> allow established sg-AB/outbound/1
        # but only answers
        @2    udp 8.8.8.8:53 > a:50001          -> deny no-rule
        @2    tcp 203.0.113.9:443 > a:50001 SA  -> deny midstream
        @2    tcp 203.0.113.9:443 > a:50001 S   -> deny no-rule
        @2    icmp 203.0.113.9 > a 0/0 id=9     -> deny invalid
        # 600 s without a packet: over
        @600.3-1ns tcp a:22 > 203.0.113.9:40000 PA -> allow established
        @1200.3-1ns tcp a:22 > 203.0.113.9:40000 PA -> deny midstream
    """)  # fmt: skip


# --- Templates


def template(name: str) -> str:
    return f"""
security_groups:
  - {{name: web, template: {name}}}
instances:
  - {{name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [web]}}
  - {{name: b, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [web]}}
"""


def test_template_general_purpose_web_server() -> None:
    openers(template("general-purpose-web-server"), """
        tcp client:40000 > a:22   -> allow rule web/inbound/1
        tcp client:40000 > a:3389 -> allow rule web/inbound/2
        tcp client:40000 > a:80   -> allow rule web/inbound/3
        tcp client:40000 > a:443  -> allow rule web/inbound/4
        icmp client > a 8/0       -> allow rule web/inbound/5
        icmp client > a 13/0      -> allow rule web/inbound/5
        icmp client > a 9/0       -> allow rule web/inbound/5
        tcp client:40000 > a:8080 -> deny no-rule
        tcp client:40000 > a:21   -> deny no-rule
        udp client:40000 > a:443  -> deny no-rule
        tcp a:40000 > b:5432      -> allow rule web/inbound/6; egress allow rule web/outbound/1
        gre a > b                 -> allow rule web/inbound/6; egress allow rule web/outbound/1
        tcp a:40000 > client:25   -> allow rule web/outbound/1
    """)  # fmt: skip
    openers(template("general-purpose-web-server"), """
        # from anywhere is IPv4, from itself both
        tcp client:40000 > a:22   -> deny no-rule
        icmpv6 client > a 128/0   -> deny no-rule
        tcp a:40000 > b:5432      -> allow rule web/inbound/7; egress allow rule web/outbound/2
        icmpv6 a > b 128/0        -> allow rule web/inbound/7; egress allow rule web/outbound/2
        tcp a:40000 > client:25   -> allow rule web/outbound/2
    """, family=6)  # fmt: skip


def test_template_all_ports_open() -> None:
    openers(template("all-ports-open"), """
        tcp client:40000 > a:22    -> allow rule web/inbound/1
        tcp client:40000 > a:65535 -> allow rule web/inbound/1
        udp client:40000 > a:1     -> allow rule web/inbound/1
        udp client:40000 > a:0     -> allow rule web/inbound/1
        icmp client > a 8/0        -> allow rule web/inbound/1
        gre client > a             -> allow rule web/inbound/1
        253 client > a             -> allow rule web/inbound/1
        tcp a:40000 > b:5432       -> allow rule web/inbound/1; egress allow rule web/outbound/1
        tcp a:40000 > client:25    -> allow rule web/outbound/1
    """)  # fmt: skip
    openers(template("all-ports-open"), """
        tcp client:40000 > a:22    -> deny no-rule
        tcp a:40000 > b:5432       -> allow rule web/inbound/3; egress allow rule web/outbound/2
        tcp a:40000 > client:25    -> allow rule web/outbound/2
    """, family=6)  # fmt: skip


def test_template_fast_add() -> None:
    openers(template("fast-add"), """
        tcp client:40000 > a:22    -> deny no-rule
        icmp client > a 8/0        -> deny no-rule
        tcp a:40000 > b:5432       -> allow rule web/inbound/1; egress allow rule web/outbound/1
        udp a:40000 > client:53    -> allow rule web/outbound/1
    """)  # fmt: skip
    openers(template("fast-add"), """
        tcp client:40000 > a:22    -> deny no-rule
        tcp a:40000 > b:5432       -> allow rule web/inbound/2; egress allow rule web/outbound/2
        udp a:40000 > client:53    -> allow rule web/outbound/2
    """, family=6)  # fmt: skip


def test_template_then_fast_add_then_own_rules_are_numbered_in_that_order() -> None:
    openers("""
security_groups:
  - name: web
    template: general-purpose-web-server
    fast_add: [redis, http-alt]
    rules:
      - {direction: inbound, protocol: udp, ports: 53}
      - {direction: outbound, protocol: tcp, ports: 25, action: deny}
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [web]}
""", """
        tcp client:40000 > a:443   -> allow rule web/inbound/4
        tcp client:40000 > a:6379  -> allow rule web/inbound/8
        tcp client:40000 > a:8080  -> allow rule web/inbound/9
        udp client:40000 > a:53    -> allow rule web/inbound/10
        tcp a:40000 > client:26    -> allow rule web/outbound/1
        tcp a:40000 > client:25    -> deny deny-rule web/outbound/3
    """)  # fmt: skip


def test_two_groups_of_one_template_do_not_trust_each_other() -> None:
    openers("""
security_groups:
  - {name: one, template: fast-add}
  - {name: two, template: fast-add}
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [one]}
  - {name: b, addresses: [10.0.0.6], security_groups: [two]}
  - {name: c, addresses: [10.0.0.7], security_groups: [two, one]}
""", """
        tcp a:40000 > b:22 -> deny no-rule; egress allow rule one/outbound/1; ingress deny no-rule
        tcp a:40000 > c:22 -> allow rule one/inbound/1; egress allow rule one/outbound/1
        tcp c:40000 > b:22 -> allow rule two/inbound/1; egress allow rule one/outbound/1
    """)  # fmt: skip


FAST_ADD = {
    "ssh": (22, 22),
    "rdp": (3389, 3389),
    "ftp": (20, 21),
    "telnet": (23, 23),
    "http": (80, 80),
    "https": (443, 443),
    "http-alt": (8080, 8080),
    "mysql": (3306, 3306),
    "mssql": (1433, 1433),
    "postgresql": (5432, 5432),
    "oracle": (1521, 1521),
    "redis": (6379, 6379),
    "mongodb": (27017, 27017),
}


def fast_add(name: str) -> str:
    return f"""
security_groups:
  - {{name: g, fast_add: [{name}]}}
instances:
  - {{name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}}
"""


@pytest.mark.parametrize("name", FAST_ADD)
def test_fast_add_opens_its_ports_and_no_other(name: str) -> None:
    first, last = FAST_ADD[name]
    openers(fast_add(name), f"""
        tcp client:40000 > a:{first - 1}     -> deny no-rule
        tcp client:40000 > a:{first}         -> allow rule g/inbound/1
        tcp client:40000 > a:{last}          -> allow rule g/inbound/1
        tcp client:40000 > a:{last + 1}      -> deny no-rule
        udp client:40000 > a:{first}         -> deny no-rule
        icmp client > a 8/0                  -> deny no-rule
        tcp [2001:db8:ff::9]:40000 > a:{first} -> deny no-rule
        tcp a:40000 > client:{first}         -> deny no-rule
    """)  # fmt: skip


def test_fast_add_icmp_opens_icmp_and_nothing_else() -> None:
    openers(fast_add("icmp"), """
        icmp client > a 8/0             -> allow rule g/inbound/1
        icmp client > a 17/0            -> allow rule g/inbound/1
        icmpv6 2001:db8:ff::9 > a 128/0 -> deny no-rule
        tcp client:40000 > a:22         -> deny no-rule
        icmp a > client 8/0             -> deny no-rule
    """)  # fmt: skip


# --- The default group (SPEC 8.1)

DEFAULTS = """
instances:
  - {name: a, addresses: [10.0.0.5, "2001:db8::5"]}
  - {name: b, addresses: [10.0.0.6, "2001:db8::6"]}
"""


def test_default_group_is_created_where_there_is_none() -> None:
    policy = policy_of(DEFAULTS)
    assert [group.name for group in policy.security_groups] == ["default"]
    assert policy.warnings == ()
    openers(DEFAULTS, """
        # the linked page's prose, not its table: nothing from outside
        tcp client:40000 > a:22    -> deny no-rule
        tcp client:40000 > a:3389  -> deny no-rule
        tcp client:40000 > a:80    -> deny no-rule
        tcp client:40000 > a:443   -> deny no-rule
        icmp client > a 8/0        -> deny no-rule
        tcp a:40000 > b:22         -> allow rule default/inbound/1; egress allow rule default/outbound/1
        tcp a:40000 > client:25    -> allow rule default/outbound/1
    """)  # fmt: skip
    openers(DEFAULTS, """
        tcp client:40000 > a:22    -> deny no-rule
        icmpv6 client > a 128/0    -> deny no-rule
        tcp a:40000 > b:22         -> allow rule default/inbound/2; egress allow rule default/outbound/2
        tcp a:40000 > client:25    -> allow rule default/outbound/2
    """, family=6)  # fmt: skip


def test_joining_the_default_group_by_omission_is_a_warning_where_there_are_groups() -> None:
    text = """
security_groups:
  - {name: web, fast_add: [http]}
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [web]}
  - {name: forgotten, addresses: [10.0.0.6]}
"""
    (warning,) = policy_of(text).warnings
    assert "forgotten" in warning and "default" in warning
    openers(text, """
        tcp a:40000 > forgotten:22  -> deny no-rule; egress deny no-rule; ingress -
        tcp client:4000 > forgotten:80 -> deny no-rule
        tcp forgotten:40000 > a:80  -> allow rule web/inbound/1; egress allow rule default/outbound/1
    """)  # fmt: skip


def test_default_group_of_the_document_is_used_as_it_is_written() -> None:
    openers("""
security_groups:
  - name: default
    rules:
      - {direction: inbound, protocol: tcp, ports: 22}
instances:
  - {name: a, addresses: [10.0.0.5]}
  - {name: b, addresses: [10.0.0.6]}
""", """
        tcp client:40000 > a:22 -> allow rule default/inbound/1
        tcp client:40000 > a:80 -> deny no-rule
        tcp a:40000 > b:22      -> deny no-rule; egress deny no-rule; ingress -
    """)  # fmt: skip


def test_group_without_rules_allows_nothing() -> None:
    openers("""
security_groups:
  - {name: closed}
  - {name: empty, rules: []}
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [closed, empty]}
""", """
        tcp client:40000 > a:22 -> deny no-rule
        tcp a:40000 > client:22 -> deny no-rule
        icmp client > a 8/0     -> deny no-rule
    """)  # fmt: skip


# --- "Different VPCs cannot communicate with each other"


def in_two_vpcs(more: str) -> str:
    return f"""
vpcs:
  - name: vpc-1
  - {{name: vpc-2{more}}}
security_groups:
  - name: g
    rules:
      - {{direction: inbound, protocol: all, source: g}}
      - {{direction: inbound, protocol: tcp, ports: 443, source: 10.0.0.0/8}}
      - {{direction: outbound, protocol: all}}
instances:
  - {{name: a, vpc: vpc-1, addresses: [10.1.0.5], security_groups: [g]}}
  - {{name: b, vpc: vpc-2, addresses: [10.2.0.5], security_groups: [g]}}
"""


def test_one_group_in_two_vpcs_that_are_not_peered() -> None:
    openers(in_two_vpcs(""), """
        tcp a:40000 > b:22  -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        tcp a:40000 > b:443 -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        tcp b:40000 > a:443 -> deny vpc-isolated; egress deny vpc-isolated; ingress -
    """)  # fmt: skip


def test_one_group_in_two_vpcs_that_are_peered() -> None:
    openers(in_two_vpcs("") + "peerings: [[vpc-2, vpc-1]]\n", """
        tcp a:40000 > b:22  -> allow rule g/inbound/1; egress allow rule g/outbound/1
        tcp a:40000 > b:443 -> allow rule g/inbound/1
        tcp b:40000 > a:22  -> allow rule g/inbound/1
    """)  # fmt: skip


def test_one_group_in_two_peered_vpcs_of_different_regions() -> None:
    openers(in_two_vpcs(", region: eu-nl") + "peerings: [[vpc-1, vpc-2]]\n", """
        # a group reaches no further than its region; addresses do
        tcp a:40000 > b:22  -> deny no-rule; egress allow rule g/outbound/1; ingress deny no-rule
        tcp a:40000 > b:443 -> allow rule g/inbound/2; egress allow rule g/outbound/1
        tcp b:40000 > a:22  -> deny no-rule
    """)  # fmt: skip


def test_peering_is_not_transitive() -> None:
    openers("""
vpcs: [{name: left}, {name: middle}, {name: right}]
peerings: [[left, middle], [middle, right]]
security_groups:
  - {name: g, template: all-ports-open}
instances:
  - {name: l, vpc: left, addresses: [10.1.0.5], security_groups: [g]}
  - {name: m, vpc: middle, addresses: [10.2.0.5], security_groups: [g]}
  - {name: r, vpc: right, addresses: [10.3.0.5], security_groups: [g]}
""", """
        tcp l:40000 > m:22 -> allow rule g/inbound/1
        tcp m:40000 > r:22 -> allow rule g/inbound/1
        tcp r:40000 > m:22 -> allow rule g/inbound/1
        tcp l:40000 > r:22 -> deny vpc-isolated
        tcp r:40000 > l:22 -> deny vpc-isolated
    """)  # fmt: skip
