"""The policy and the changes that most tables of changes use (SPEC 6).

``web`` and ``twin`` are in group ``w``, ``db`` is in group ``d``, and strangers are outside. ``TOUCH`` changes the
rules of ``w`` without affecting any verdict in the tables.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from sgfast.policy.changes import AddRule, Change, RemoveRule
from sgfast.policy.model import Instance, Rule


def both(rule: str) -> str:
    """Return the rule for both IP versions."""
    return f"{{{rule}}}, {{{rule}, ethertype: IPv6}}"


HTTP = both("direction: inbound, protocol: tcp, ports: 80")
DNS = both("direction: inbound, protocol: udp, ports: 53")
PING = both("direction: inbound, protocol: icmp")
SQL = both("direction: inbound, protocol: tcp, ports: 5432, source: w")
OUT = both("direction: outbound, protocol: all")
SHOP = f"""
security_groups:
  - {{name: w, rules: [{HTTP}, {DNS}, {PING}, {OUT}]}}
  - {{name: d, rules: [{SQL}, {DNS}, {OUT}]}}
  - {{name: spare}}
instances:
  - {{name: web, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [w]}}
  - {{name: twin, addresses: [10.0.0.4, "2001:db8::4"], security_groups: [w]}}
  - {{name: db, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [d]}}
"""
TLS = Rule("", "inbound", 4, 6, ((4433, 4433),))
TOUCH = AddRule("w", TLS)
CHANGES: dict[str, Change | list[Change]] = {
    "touch": TOUCH,
    "no-http": [RemoveRule("w", "w/inbound/1"), RemoveRule("w", "w/inbound/2")],
    "no-dns": [RemoveRule("w", "w/inbound/3"), RemoveRule("w", "w/inbound/4")],
    "no-out": [RemoveRule("w", "w/outbound/1"), RemoveRule("w", "w/outbound/2")],
    "8080": [AddRule("w", replace(TLS, ethertype=family, ports=((8080, 8080),))) for family in (4, 6)],
}  # fmt: skip


def on_change(value: str) -> str:
    return f"settings: {{on_change: {value}}}\n"


def new(name: str, groups: str, *addresses: str, vpc: str = "default") -> Instance:
    return Instance(name, vpc, tuple(map(ip_network, addresses)), tuple(groups.split()))


WEB = new("web", "w", "10.0.0.5", "2001:db8::5")


def handshake(client: str = "client:40000", server: str = "web:80") -> str:
    return f"""
        @0 tcp {client} > {server} S  -> allow rule
        @0 tcp {server} > {client} SA -> allow established
        @0 tcp {client} > {server} A  -> allow established
    """


VPCS = f"""
vpcs: [{{name: red}}, {{name: blue}}, {{name: green}}]
peerings: [[red, blue]]
security_groups:
  - {{name: g, rules: [{both("direction: inbound, protocol: all, source: g")}, {OUT}]}}
instances:
  - {{name: r, vpc: red, addresses: [10.1.0.5, "2001:db8:1::5"], security_groups: [g]}}
  - {{name: b, vpc: blue, addresses: [10.2.0.5, "2001:db8:2::5"], security_groups: [g]}}
  - {{name: n, vpc: green, addresses: [10.3.0.5, "2001:db8:3::5"], security_groups: [g]}}
"""
