"""Policies, settings and dialogues for the tables in ``tests/engine``.

``web`` and ``db`` are instances; ``client``, ``other`` and ``router`` are outside. Most tables use the policy ``PEERS``
or ``FILTER``.
"""

from __future__ import annotations

import pytest

OPEN_IN = "{direction: inbound, protocol: all}, {direction: inbound, ethertype: IPv6, protocol: all}"
OPEN_OUT = "{direction: outbound, protocol: all}, {direction: outbound, ethertype: IPv6, protocol: all}"
INSTANCES = """
instances:
  - {name: web, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [w]}
  - {name: db, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [d]}
"""
# Both accept all inbound traffic; db may open outbound connections, web may not.
PEERS = f"""
security_groups:
  - {{name: w, rules: [{OPEN_IN}]}}
  - {{name: d, rules: [{OPEN_IN}, {OPEN_OUT}]}}
{INSTANCES}"""
# web accepts TCP and UDP to ports 80 and 443 and may open nothing; db accepts nothing and may open anything.
FILTER = f"""
security_groups:
  - name: w
    rules:
      - {{direction: inbound, protocol: tcp, ports: "80,443"}}
      - {{direction: inbound, protocol: udp, ports: "80,443"}}
      - {{direction: inbound, ethertype: IPv6, protocol: tcp, ports: "80,443"}}
      - {{direction: inbound, ethertype: IPv6, protocol: udp, ports: "80,443"}}
  - {{name: d, rules: [{OPEN_OUT}]}}
{INSTANCES}"""


def timeouts(**seconds: float) -> str:
    return f"settings: {{timeouts: {{{', '.join(f'{name}: {value}' for name, value in seconds.items())}}}}}\n"


def room_for(connections: int) -> str:
    return f"settings: {{max_connections: {connections}}}\n"


def tcp(*steps: str, port: int = 40000) -> str:
    """Return lines of a dialogue with web's port 80: ``> S`` is the client's packet, ``< SA`` web's. The rest is
    copied."""
    lines = []
    for step in steps:
        time, arrow, rest = ("", *step.split(" ", 1)) if step[0] in "<>" else step.split(" ", 2)
        ends = f"client:{port} > web:80" if arrow == ">" else f"web:80 > client:{port}"
        if "->" not in rest:
            rest += " -> allow"
        lines.append(f"{time} tcp {ends} {rest}")
    return "\n".join(lines)


DEFAULTS = {
    "tcp_established": 600, "tcp_fin_wait": 30, "tcp_other": 30, "icmp": 30, "bidirectional": 180, "unidirectional": 30,
}  # fmt: skip
SHORT = {
    "tcp_established": 7, "tcp_fin_wait": 3, "tcp_other": 2.5, "icmp": 0.25, "bidirectional": 11, "unidirectional": 5,
}  # fmt: skip
either_setting = pytest.mark.parametrize("seconds", [DEFAULTS, SHORT], ids=["defaults", "short"])
RED, BLUE, GREEN = "10.1.0.5", "10.2.0.5", "10.3.0.5"


def vpcs(red: str = RED, blue: str = BLUE, green: str = GREEN, peerings: str = "[[red, blue], [blue, green]]") -> str:
    return f"""
vpcs: [{{name: red}}, {{name: blue}}, {{name: green}}]
peerings: {peerings}
security_groups:
  - {{name: g, rules: [{OPEN_IN}, {OPEN_OUT}]}}
instances:
  - {{name: r, vpc: red, addresses: [{red}], security_groups: [g]}}
  - {{name: b, vpc: blue, addresses: [{blue}], security_groups: [g]}}
  - {{name: n, vpc: green, addresses: [{green}], security_groups: [g]}}
"""
