"""The classic uses of security groups, from the pages the seed links to, as tables (how to read them: ``scenario``)."""

from __future__ import annotations

from scenario import openers, run


def one_server(*rules: str) -> str:
    """Instance ``a`` in group ``g``, which has these rules."""
    return (
        "security_groups:\n  - name: g\n    rules:\n"
        + "".join(f"      - {{{rule}}}\n" for rule in rules)
        + 'instances:\n  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}\n'
    )


def test_ssh_from_one_address_and_rdp_from_an_office_network() -> None:
    policy = one_server(
        "direction: inbound, protocol: tcp, ports: 22, source: 203.0.113.9",
        'direction: inbound, protocol: tcp, ports: 22, source: "2001:db8:ff::9"',
        "direction: inbound, protocol: tcp, ports: 3389, source: 198.51.100.0/24",
    )
    openers(policy, """
        tcp 203.0.113.9:40000 > a:22       -> allow rule g/inbound/1
        tcp 203.0.113.8:40000 > a:22       -> deny no-rule
        tcp 203.0.113.10:40000 > a:22      -> deny no-rule
        tcp 203.0.113.9:40000 > a:2222     -> deny no-rule
        # nothing lets a call anybody, not even the one who may log in
        tcp a:40000 > 203.0.113.9:22       -> deny no-rule
        tcp [2001:db8:ff::9]:40000 > a:22  -> allow rule g/inbound/2
        tcp [2001:db8:ff::8]:40000 > a:22  -> deny no-rule
        tcp 198.51.100.0:40000 > a:3389    -> allow rule g/inbound/3
        tcp 198.51.100.255:40000 > a:3389  -> allow rule g/inbound/3
        tcp 198.51.101.0:40000 > a:3389    -> deny no-rule
        tcp 198.51.99.255:40000 > a:3389   -> deny no-rule
        udp 198.51.100.7:40000 > a:3389    -> deny no-rule
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
        "direction: ingress, ethertype: IPv6, protocol: icmp, icmp_type: 128",
    )
    openers(policy, """
        icmp client > a 8/0    -> deny no-rule
        icmp client > a 13/0   -> allow rule g/inbound/1
        icmp client > a 13/9   -> allow rule g/inbound/1
        icmp client > a 13/255 -> allow rule g/inbound/1
        icmp client > a 9/16   -> allow rule g/inbound/2
        icmp client > a 9/0    -> deny no-rule
        icmpv6 2001:db8:ff::9 > a 128/0 -> allow rule g/inbound/3
        icmpv6 2001:db8:ff::9 > a 200/0 -> deny no-rule
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


def test_priority_first_then_deny_then_document_order() -> None:
    """SPEC 4.10."""
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
