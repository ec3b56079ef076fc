"""The classic uses of security groups, from the pages the seed links to, as tables (how to read them: ``scenario``)."""

from __future__ import annotations

from scenario import openers, run, run_both_families


def one_server(*rules: str) -> str:
    """Instance ``a`` in group ``g``, which has these rules."""
    return (
        "security_groups:\n  - name: g\n    rules:\n"
        + "".join(f"      - {{{rule}}}\n" for rule in rules)
        + 'instances:\n  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}\n'
    )


def test_ssh_from_one_address() -> None:
    policy = one_server("direction: inbound, protocol: tcp, ports: 22, source: 203.0.113.9")
    run(policy, """
        @0 tcp 203.0.113.9:40000 > a:22 S     -> allow rule g/inbound/1
        @0 tcp a:22 > 203.0.113.9:40000 SA    -> allow established g/inbound/1
        @0 tcp 203.0.113.9:40000 > a:22 A     -> allow established g/inbound/1
        @1 tcp 203.0.113.8:40000 > a:22 S     -> deny no-rule
        @1 tcp 203.0.113.10:40000 > a:22 S    -> deny no-rule
        @1 tcp 203.0.113.9:40000 > a:2222 S   -> deny no-rule
        # nothing lets a call anybody, not even the one who may log in
        @1 tcp a:40000 > 203.0.113.9:22 S     -> deny no-rule
        # keys typed now and then; a pause of ten minutes, and the login hangs
        @599.9  tcp 203.0.113.9:40000 > a:22 PA -> allow established
        @1199.8 tcp a:22 > 203.0.113.9:40000 PA -> allow established
        @1799.8 tcp 203.0.113.9:40000 > a:22 PA -> deny midstream
    """)  # fmt: skip


def test_ssh_from_one_ipv6_address() -> None:
    openers(one_server('direction: inbound, protocol: tcp, ports: 22, source: "2001:db8:ff::9"'), """
        tcp [2001:db8:ff::9]:40000 > a:22 -> allow rule g/inbound/1
        tcp [2001:db8:ff::8]:40000 > a:22 -> deny no-rule
        tcp 203.0.113.9:40000 > a:22      -> deny no-rule
    """)  # fmt: skip


def test_rdp_from_an_office_network() -> None:
    openers(one_server("direction: inbound, protocol: tcp, ports: 3389, source: 198.51.100.0/24"), """
        tcp 198.51.100.0:40000 > a:3389   -> allow rule g/inbound/1
        tcp 198.51.100.255:40000 > a:3389 -> allow rule g/inbound/1
        tcp 198.51.101.0:40000 > a:3389   -> deny no-rule
        tcp 198.51.99.255:40000 > a:3389  -> deny no-rule
        udp 198.51.100.7:40000 > a:3389   -> deny no-rule
    """)  # fmt: skip


def test_ftp_active_needs_an_outbound_rule_and_passive_its_ports() -> None:
    closed = one_server("direction: inbound, protocol: tcp, ports: 20-21")
    opened = one_server(
        "direction: inbound, protocol: tcp, ports: 20-21",
        'direction: inbound, protocol: tcp, ports: "50000-50010"',
        "direction: outbound, protocol: tcp",
    )
    control = """
        tcp client:40000 > a:21 S        -> allow rule g/inbound/1
        tcp a:21 > client:40000 SA       -> allow established
        tcp client:40000 > a:21 A        -> allow established
    """
    run(closed, control + """
        # active: the server calls back from port 20; that is a connection of its own
        tcp a:20 > client:40001 S        -> deny no-rule
        # passive: the client calls again
        tcp client:40002 > a:50000 S     -> deny no-rule
    """)  # fmt: skip
    run(opened, control + """
        tcp a:20 > client:40001 S        -> allow rule g/outbound/1
        tcp client:40001 > a:20 SA       -> allow established g/outbound/1
        tcp client:40002 > a:50000 S     -> allow rule g/inbound/2
        tcp client:40002 > a:50010 S     -> allow rule g/inbound/2
        tcp client:40002 > a:50011 S     -> deny no-rule
    """)  # fmt: skip


def test_web_server_conversation_from_syn_to_time_wait() -> None:
    policy = one_server(
        'direction: inbound, protocol: tcp, ports: "80,443"',
        'direction: inbound, protocol: tcp, ports: "80,443", source: "::/0"',
    )
    run_both_families(policy, """
        @0   tcp client:40000 > a:443 S   -> allow rule
        @0   tcp a:443 > client:40000 SA  -> allow established
        @0   tcp client:40000 > a:443 A   -> allow established
        @0   tcp client:40000 > a:443 PA  -> allow established
        @1   tcp a:443 > client:40000 PA  -> allow established
        @2   tcp a:443 > client:40000 FA  -> allow established
        @2   tcp client:40000 > a:443 A   -> allow established
        @3   tcp client:40000 > a:443 FA  -> allow established
        @4   tcp a:443 > client:40000 A   -> allow established
        # TIME-WAIT: a straggler, then the port is used again
        @5   tcp a:443 > client:40000 A   -> allow established
        @6   tcp client:40000 > a:443 S   -> allow rule
        # another client while all that goes on, and one that is refused
        @6   tcp other:40000 > a:80 S     -> allow rule
        @6   tcp a:80 > other:40000 RA    -> allow established
        @6   tcp other:40000 > a:80 S     -> allow rule
        @6   tcp other:40000 > a:81 S     -> deny no-rule
        @6   tcp a:40000 > other:80 S     -> deny no-rule
    """)  # fmt: skip


def test_ping_is_allowed_one_way() -> None:
    only_in = one_server(
        "direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0",
        "direction: inbound, protocol: icmpv6, icmp_type: 128, icmp_code: 0",
    )
    run_both_families(only_in, """
        @0  ping client > a id=7   -> allow rule
        @1  pong a > client id=7   -> allow established
        @2  ping client > a id=7   -> allow established
        # an answer to nobody's question, and one to another's
        @3  pong a > client id=8   -> deny invalid
        @3  pong client > a id=7   -> deny invalid
        # a itself may not ask, not even with the identifier it was asked with
        @4  ping a > client id=7   -> deny no-rule
        # 30 s after the last packet: a new question
        @32-1ns pong a > client id=7 -> allow established
        @62-1ns pong a > client id=7 -> deny invalid
        @62-1ns ping client > a id=7 -> allow rule
    """)  # fmt: skip


def test_ping_both_ways_with_one_identifier() -> None:
    both = one_server(
        "direction: inbound, protocol: icmp",
        "direction: inbound, protocol: icmpv6",
        "direction: outbound, protocol: icmp",
        "direction: outbound, protocol: icmpv6",
    )
    run_both_families(both, """
        @0  ping client > a id=7  -> allow rule
        @0  ping a > client id=7  -> allow rule
        @0  pong a > client id=7  -> allow established
        @0  pong client > a id=7  -> allow established
        # two connections: one lives on, the other does not
        @20 ping client > a id=7  -> allow established
        @30 pong client > a id=7  -> deny invalid
        @30 pong a > client id=7  -> allow established
    """)  # fmt: skip


def test_port_0_is_a_port_like_any_other() -> None:
    """SPEC 2.2."""
    policy = "settings: {profile: aws}\n" + one_server(
        "direction: inbound, protocol: tcp, ports: 0",
        "direction: inbound, protocol: udp, ports: 0-100",
        "direction: outbound, protocol: tcp, ports: 1-65535",
        "direction: outbound, protocol: udp",
    )
    openers(policy, """
        tcp client:40000 > a:0     -> allow rule g/inbound/1
        tcp client:0 > a:1         -> deny no-rule
        tcp client:0 > a:65535     -> deny no-rule
        udp client:40000 > a:0     -> allow rule g/inbound/2
        udp client:40000 > a:100   -> allow rule g/inbound/2
        udp client:40000 > a:101   -> deny no-rule
        sctp client:40000 > a:0    -> deny no-rule
        tcp a:40000 > client:0     -> deny no-rule
        tcp a:0 > client:1         -> allow rule g/outbound/1
        udp a:40000 > client:0     -> allow rule g/outbound/2
    """)  # fmt: skip


def test_icmp_rule_of_another_type_or_code_does_not_match() -> None:
    policy = one_server(
        "direction: inbound, protocol: icmp, icmp_type: 13",
        "direction: inbound, protocol: icmp, icmp_type: 9, icmp_code: 16",
    )
    openers(policy, """
        icmp client > a 8/0    -> deny no-rule
        icmp client > a 13/0   -> allow rule g/inbound/1
        icmp client > a 13/9   -> allow rule g/inbound/1
        icmp client > a 13/255 -> allow rule g/inbound/1
        icmp client > a 9/16   -> allow rule g/inbound/2
        icmp client > a 9/0    -> deny no-rule
    """)  # fmt: skip


TIERS = """
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: "80,443"}
      - {direction: outbound, protocol: tcp, ports: 5432, destination: db}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: web}
  - {name: jump, rules: [{direction: outbound, protocol: all}]}
instances:
  - {name: web-1, addresses: [10.0.1.5, 10.0.1.6], security_groups: [web]}
  - {name: web-2, addresses: [10.0.1.7], security_groups: [web, jump]}
  - {name: db-1, addresses: [10.0.2.5], security_groups: [db]}
  - {name: db-2, addresses: [10.0.2.6], security_groups: [db]}
  - {name: jump-1, addresses: [10.0.3.5], security_groups: [jump]}
"""


def test_database_behind_the_web_group() -> None:
    openers(TIERS, """
        tcp client:40000 > web-1:443      -> allow rule web/inbound/1
        tcp web-1:40000 > db-1:5432       -> allow rule db/inbound/1; egress allow rule web/outbound/1
        # every address of a member is one
        tcp 10.0.1.6:40000 > db-2:5432    -> allow rule db/inbound/1
        # no one else, and nothing else
        tcp client:40000 > db-1:5432      -> deny no-rule; egress -; ingress deny no-rule
        tcp 10.0.1.8:40000 > db-1:5432    -> deny no-rule
        tcp jump-1:40000 > db-1:5432      -> deny no-rule; egress allow rule jump/outbound/1; ingress deny no-rule
        tcp db-1:40000 > db-2:5432        -> deny no-rule; egress deny no-rule; ingress -
        tcp web-1:40000 > db-1:22         -> deny no-rule; egress deny no-rule; ingress -
        # web-2 may say more, but db-1 does not listen to it
        tcp web-2:40000 > db-1:22         -> deny no-rule; egress allow rule jump/outbound/1; ingress deny no-rule
        # the group of the destination lies outside: web-1 may call no one else
        tcp web-1:40000 > client:5432     -> deny no-rule
    """)  # fmt: skip


def test_database_conversation_between_two_filters() -> None:
    run(TIERS, """
        @0 tcp web-1:40000 > db-1:5432 S   -> allow rule db/inbound/1; egress allow rule web/outbound/1
        @0 tcp db-1:5432 > web-1:40000 SA  -> allow established web/outbound/1; egress allow established db/inbound/1
        @0 tcp web-1:40000 > db-1:5432 A   -> allow established db/inbound/1; egress allow established web/outbound/1
        # what db-1 filters away leaves web-1's side open: it has seen its packet
        @1 udp web-2:4000 > db-1:514 -> deny no-rule; egress allow rule jump/outbound/1; ingress deny no-rule
        @2 udp web-2:4000 > db-1:514 -> deny no-rule; egress allow established jump/outbound/1; ingress deny no-rule
    """)  # fmt: skip


def test_outbound_whitelist() -> None:
    policy = one_server(
        "direction: outbound, protocol: udp, ports: 53, destination: 192.0.2.53",
        'direction: outbound, protocol: tcp, ports: "80,443", destination: 198.51.100.0/24',
        'direction: outbound, protocol: tcp, ports: 443, destination: "2001:db8:ff::/48"',
    )
    run(policy, """
        udp a:5353 > 192.0.2.53:53           -> allow rule g/outbound/1
        udp 192.0.2.53:53 > a:5353           -> allow established g/outbound/1
        udp a:5353 > 192.0.2.54:53           -> deny no-rule
        tcp a:5353 > 192.0.2.53:53           -> deny no-rule
        tcp a:40000 > 198.51.100.7:443 S     -> allow rule g/outbound/2
        tcp 198.51.100.7:443 > a:40000 SA    -> allow established g/outbound/2
        tcp a:40000 > 198.51.100.7:22 S      -> deny no-rule
        tcp a:40000 > 203.0.113.9:443 S      -> deny no-rule
        tcp a:40000 > [2001:db8:ff::9]:443 S -> allow rule g/outbound/3
        tcp a:40000 > [2001:db8:ff::9]:80 S  -> deny no-rule
        icmp a > 198.51.100.7 8/0            -> deny no-rule
        # a whitelist of what may be called says nothing of callers
        tcp 198.51.100.7:40000 > a:443 S     -> deny no-rule
    """)  # fmt: skip


# --- Several groups on one instance (SPEC 1, 4.10)


def test_several_groups_are_a_union() -> None:
    openers("""
security_groups:
  - {name: ssh, fast_add: [ssh]}
  - {name: http, fast_add: [http, ssh]}
instances:
  - {name: both, addresses: [10.0.0.5], security_groups: [http, ssh]}
  - {name: one, addresses: [10.0.0.6], security_groups: [http]}
""", """
        tcp client:40000 > both:80 -> allow rule http/inbound/1
        # the first in document order, whatever the order on the instance
        tcp client:40000 > both:22 -> allow rule ssh/inbound/1
        tcp client:40000 > one:22  -> allow rule http/inbound/2
        tcp client:40000 > both:23 -> deny no-rule
    """)  # fmt: skip


def test_priority_first_then_deny_then_document_order() -> None:
    policy = """
security_groups:
  - name: open
    rules:
      - {direction: inbound, protocol: tcp, ports: 1-1000, priority: 2}
      - {direction: inbound, protocol: tcp, ports: 22, source: 203.0.113.9, priority: 1}
      - {direction: inbound, protocol: tcp, ports: 443, priority: 3}
      - {direction: inbound, protocol: tcp, ports: 444, priority: 3}
  - name: shut
    rules:
      - {direction: inbound, protocol: tcp, ports: 22, action: deny, priority: 2}
      - {direction: inbound, protocol: tcp, ports: 23, action: deny, priority: 3}
      - {direction: inbound, protocol: tcp, ports: 80, action: deny, priority: 1, source: 198.51.100.0/24}
      - {direction: inbound, protocol: all, action: deny, priority: 100}
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [open, shut]}
  - {name: b, addresses: [10.0.0.6], security_groups: [open]}
"""
    openers(policy, """
        # a better priority wins over deny
        tcp 203.0.113.9:40000 > a:22   -> allow rule open/inbound/2
        # at the same one deny wins
        tcp 203.0.113.8:40000 > a:22   -> deny deny-rule shut/inbound/1
        tcp 203.0.113.8:40000 > b:22   -> allow rule open/inbound/1
        # a worse one does not
        tcp 203.0.113.8:40000 > a:23   -> allow rule open/inbound/1
        tcp 198.51.100.7:40000 > a:80  -> deny deny-rule shut/inbound/3
        tcp 203.0.113.8:40000 > a:80   -> allow rule open/inbound/1
        tcp 203.0.113.8:40000 > a:443  -> allow rule open/inbound/1
        # what no allow rule matches, the last deny rule does
        tcp 203.0.113.8:40000 > a:1001 -> deny deny-rule shut/inbound/4
        tcp 203.0.113.8:40000 > b:1001 -> deny no-rule
        udp 203.0.113.8:40000 > a:22   -> deny deny-rule shut/inbound/4
    """)  # fmt: skip


# --- Address groups and names


def test_address_group_is_its_addresses_of_the_rules_family() -> None:
    openers("""
address_groups:
  - {name: offices, addresses: [192.0.2.0/24, 198.51.100.7, "2001:db8:1::/48"]}
  - {name: nobody, addresses: []}
security_groups:
  - name: g
    rules:
      - {direction: inbound, protocol: tcp, ports: 22, source: offices}
      - {direction: inbound, ethertype: IPv6, protocol: tcp, ports: 22, source: offices}
      - {direction: outbound, protocol: udp, destination: {address_group: offices}}
      - {direction: inbound, protocol: tcp, ports: 80, source: nobody}
instances:
  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}
""", """
        tcp 192.0.2.255:40000 > a:22        -> allow rule g/inbound/1
        tcp 198.51.100.7:40000 > a:22       -> allow rule g/inbound/1
        tcp 198.51.100.8:40000 > a:22       -> deny no-rule
        tcp [2001:db8:1::9]:40000 > a:22    -> allow rule g/inbound/2
        tcp [2001:db8:2::9]:40000 > a:22    -> deny no-rule
        udp a:40000 > 192.0.2.1:514         -> allow rule g/outbound/1
        udp a:40000 > 192.0.3.1:514         -> deny no-rule
        udp a:40000 > [2001:db8:1::9]:514   -> deny no-rule
        tcp 192.0.2.1:40000 > a:80          -> deny no-rule
    """)  # fmt: skip


def test_address_group_and_security_group_of_one_name() -> None:
    openers("""
address_groups:
  - {name: x, addresses: [192.0.2.0/24]}
security_groups:
  - name: x
    rules:
      - {direction: inbound, protocol: tcp, ports: 22, source: {group: x}}
      - {direction: inbound, protocol: tcp, ports: 80, source: {address_group: x}}
      - {direction: outbound, protocol: all, destination: {cidr: 10.0.0.0/8}}
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [x]}
  - {name: b, addresses: [10.0.0.6], security_groups: [x]}
""", """
        tcp a:40000 > b:22         -> allow rule x/inbound/1
        tcp a:40000 > b:80         -> deny no-rule
        tcp 192.0.2.1:40000 > a:80 -> allow rule x/inbound/2
        tcp 192.0.2.1:40000 > a:22 -> deny no-rule
    """)  # fmt: skip


# --- Routers and pods: an instance that owns a network (SPEC 2.6)

ROUTED = """
security_groups:
  - {name: pods, rules: [{direction: inbound, protocol: tcp, ports: 8080}, {direction: outbound, protocol: all}]}
  - {name: nat, rules: [{direction: inbound, protocol: all, source: pods}, {direction: outbound, protocol: all}]}
  - {name: own, rules: [{direction: inbound, protocol: udp}]}
instances:
  - {name: router, addresses: [10.0.0.0/8, "2001:db8::/32"], security_groups: [nat]}
  - {name: node, addresses: [10.1.0.0/16], security_groups: [pods]}
  - {name: pod, addresses: [10.1.2.3], security_groups: [own]}
  - {name: edge, addresses: [10.1.2.0/31], security_groups: [own]}
"""


def test_longest_prefix_owns_the_address() -> None:
    openers(ROUTED, """
        tcp client:40000 > 10.1.2.2:8080  -> allow rule pods/inbound/1
        tcp client:40000 > 10.1.2.3:8080  -> deny no-rule
        udp client:40000 > 10.1.2.3:53    -> allow rule own/inbound/1
        tcp client:40000 > 10.1.2.4:8080  -> allow rule pods/inbound/1
        udp client:40000 > 10.1.2.0:53    -> allow rule own/inbound/1
        udp client:40000 > 10.1.2.1:53    -> allow rule own/inbound/1
        udp client:40000 > 10.1.2.2:53    -> deny no-rule
        tcp client:40000 > 10.2.0.1:8080  -> deny no-rule
        # from pod to router: a member of pods is whoever owns the address
        tcp 10.1.9.9:40000 > 10.2.0.1:53  -> allow rule nat/inbound/1; egress allow rule pods/outbound/1
        tcp 10.1.2.3:40000 > 10.2.0.1:53  -> deny no-rule; egress deny no-rule; ingress -
        # two pods of one node do not leave it, nor do two addresses of the router
        tcp 10.1.9.9:40000 > 10.1.9.10:80 -> local; egress -; ingress -
        tcp 10.1.1.255:4000 > 10.1.3.0:80 -> local
        tcp 10.0.0.1:4000 > 10.255.0.0:80 -> local
        tcp client:40000 > 11.0.0.0:80    -> out-of-scope; egress -; ingress -
        udp 9.255.255.255:1 > client:53   -> out-of-scope
        tcp [2001:db8:ff::9]:1 > [2001:db8::1]:80 -> local
        tcp [2001:db9::1]:1 > [2001:db8::1]:80    -> deny no-rule
    """)  # fmt: skip


def test_multicast_and_broadcast_belong_to_no_instance() -> None:
    openers("""
security_groups:
  - {name: g, rules: [{direction: outbound, protocol: udp}, {direction: outbound, ethertype: IPv6, protocol: udp}]}
instances:
  - {name: world, addresses: [0.0.0.0/0, "::/0"], security_groups: [g]}
  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}
""", """
        udp a:40000 > 224.0.0.251:5353     -> allow rule g/outbound/1; ingress -
        udp a:40000 > 239.255.255.255:5353 -> allow rule g/outbound/1; ingress -
        udp a:40000 > 255.255.255.255:9    -> allow rule g/outbound/1; ingress -
        udp a:40000 > 240.0.0.1:9          -> deny no-rule; egress allow rule g/outbound/1; ingress deny no-rule
        udp a:40000 > 223.255.255.255:9    -> deny no-rule; egress allow rule g/outbound/1; ingress deny no-rule
        udp a:40000 > 255.255.255.254:9    -> deny no-rule; ingress deny no-rule
        udp a:40000 > [ff02::fb]:5353      -> allow rule g/outbound/2; ingress -
        udp a:40000 > [fe80::1]:5353       -> deny no-rule; ingress deny no-rule
    """)  # fmt: skip


# --- Protocols by name and number


def test_protocols_without_ports_are_known_by_name_and_number() -> None:
    policy = one_server(
        "direction: inbound, protocol: gre",
        "direction: inbound, protocol: 50",
        "direction: inbound, protocol: sctp, ports: 3868",
        "direction: inbound, protocol: udplite",
        "direction: inbound, protocol: dccp, ports: 5004",
        "direction: inbound, protocol: ospf",
        "direction: inbound, protocol: 0",
    )
    run(policy, """
        gre client > a            -> allow rule g/inbound/1
        esp client > a            -> allow rule g/inbound/2
        ah client > a             -> deny no-rule
        sctp client:4000 > a:3868 -> allow rule g/inbound/3
        sctp client:4000 > a:3869 -> deny no-rule
        udplite client:40 > a:999 -> allow rule g/inbound/4
        dccp client:4000 > a:5004 -> allow rule g/inbound/5
        89 client > a             -> allow rule g/inbound/6
        0 client > a              -> allow rule g/inbound/7
        icmp client > a 8/0       -> deny no-rule
        # tunnels speak both ways through one connection
        gre a > client            -> allow established g/inbound/1
        esp a > client            -> allow established g/inbound/2
        gre a > other             -> deny no-rule
    """)  # fmt: skip


def test_directions_and_icmp_go_by_either_name() -> None:
    policy = one_server(
        "direction: ingress, ethertype: IPv6, protocol: icmp",
        "direction: egress, ethertype: IPv6, protocol: icmpv6, icmp_type: 128",
    )
    openers(policy, """
        icmpv6 client > a 128/0 -> allow rule g/inbound/1
        icmpv6 client > a 200/0 -> allow rule g/inbound/1
        icmpv6 a > client 128/0 -> allow rule g/outbound/1
        icmpv6 a > client 200/0 -> deny no-rule
    """, family=6)  # fmt: skip
