"""The effect of ``settings.profile`` on the same traffic (SPEC 6.7, 6.8): timeouts, and what a change cuts."""

from __future__ import annotations

import pytest
from scenario import run

from sgfast.policy.changes import AddMember, AddRule, ModifyRule, RemoveRule
from sgfast.policy.model import Rule
from sgfast.policy.profiles import PROFILES

SHOP = """
security_groups:
  - name: w
    rules:
      - {direction: inbound, protocol: tcp, ports: 80}
      - {direction: inbound, protocol: udp, ports: 53}
      - {direction: inbound, protocol: icmp}
      - {direction: outbound, protocol: tcp}
  - {name: spare}
instances: [{name: web, addresses: [10.0.0.5], security_groups: [w]}]
"""
TOUCH = AddRule("w", Rule("", "inbound", 4, 6, ((4433, 4433),)))
#: Four connections: inbound TCP and UDP, outbound TCP, a ping.
OPEN = """
    @0   tcp client:40000 > web:80 S   -> allow rule
    @0   tcp web:80 > client:40000 SA  -> allow established
    @0   tcp client:40000 > web:80 A   -> allow established
    @0   udp client:40000 > web:53     -> allow rule
    @0   udp web:53 > client:40000     -> allow established
    @0   tcp web:1000 > client:443 S   -> allow rule
    @0   tcp client:443 > web:1000 SA  -> allow established
    @0   tcp web:1000 > client:443 A   -> allow established
    @0   ping client > web id=7        -> allow rule
"""


def under(profile: str) -> str:
    return f"settings: {{profile: {profile}}}\n" + SHOP


# fmt: off
AFTER = {
    # Any change of the group cuts all inbound connections and no outbound ones.
    ("otc", "touch"): "3 disconnected", ("otc", "no-dns"): "3 disconnected", ("otc", "no-out"): "3 disconnected",
    ("otc", "joins"): "3 disconnected", ("otc", "narrower"): "3 disconnected",
    # Cuts what the current rules would not allow to open, in either direction.
    ("neutron", "touch"): "0 disconnected", ("neutron", "no-dns"): "1 disconnected",
    ("neutron", "no-out"): "1 disconnected", ("neutron", "joins"): "0 disconnected",
    ("neutron", "narrower"): "1 disconnected",
    ("aws", "touch"): "0 disconnected", ("aws", "no-dns"): "0 disconnected", ("aws", "no-out"): "0 disconnected",
    ("aws", "joins"): "0 disconnected", ("aws", "narrower"): "0 disconnected",
}
# fmt: on


@pytest.mark.parametrize(("profile", "change"), AFTER)
def test_what_a_change_cuts_is_up_to_the_profile(profile: str, change: str) -> None:
    changes = {
        "touch": TOUCH, "no-dns": RemoveRule("w", "w/inbound/2"), "no-out": RemoveRule("w", "w/outbound/1"),
        "joins": AddMember("spare", "web"),
        "narrower": ModifyRule("w", "w/inbound/1", Rule("", "inbound", 4, 6, ((81, 81),))),
    }  # fmt: skip
    cut = AFTER[profile, change]
    fate = {
        "http": profile == "otc" or (profile, change) == ("neutron", "narrower"),
        "dns": profile == "otc" or (profile, change) == ("neutron", "no-dns"),
        "out": (profile, change) == ("neutron", "no-out"),
    }
    # Neutron forgets connections that it cuts, so that the rules judge their next packets.
    denied = {"http": "midstream", "dns": "no-rule", "out": "midstream"} if profile == "neutron" else {}
    said = {
        what: f"deny {denied.get(what, 'disconnected')}" if is_cut else "allow established"
        for what, is_cut in fate.items()
    }
    run(under(profile), f"""{OPEN}
        @1   apply {change} -> {cut}
        @1   tcp client:40000 > web:80 A   -> {said["http"]}
        @1   tcp web:80 > client:40000 A   -> {said["http"]}
        @1   udp client:40000 > web:53     -> {said["dns"]}
        @1   udp web:53 > client:40000     -> {said["dns"]}
        @1   tcp web:1000 > client:443 A   -> {said["out"]}
        @1   tcp client:443 > web:1000 A   -> {said["out"]}
        # New ones meet the new rules, whatever becomes of the old ones.
        @1   tcp client:40001 > web:80 S   -> {"deny no-rule" if change == "narrower" else "allow rule"}
        @1   udp client:40001 > web:53     -> {"deny no-rule" if change == "no-dns" else "allow rule"}
    """, changes=changes)


@pytest.mark.parametrize("profile", PROFILES)
def test_connections_live_as_long_as_the_profile_says(profile: str) -> None:
    seconds = PROFILES[profile].settings.timeouts
    run(under(profile), f"""{OPEN}
        @{seconds.icmp}-1ns          pong web > client id=7            -> allow established
        @{seconds.bidirectional}-1ns udp web:53 > client:40000         -> allow established
        @{seconds.tcp_established}-1ns tcp client:40000 > web:80 A     -> allow established
        @{seconds.tcp_established}   tcp client:443 > web:1000 A       -> deny midstream
    """)
    run(under(profile), f"""
        @0   tcp client:40000 > web:80 S   -> allow rule
        @0   tcp web:80 > client:40000 SA  -> allow established
        @0   tcp client:40001 > web:80 S   -> allow rule
        @{seconds.tcp_other}-1ns    tcp client:40000 > web:80 FA  -> allow established
        @{seconds.tcp_other}        tcp web:80 > client:40001 SA  -> deny midstream
        @{seconds.tcp_other + seconds.tcp_fin_wait}    tcp web:80 > client:40000 A   -> deny midstream
    """)
    run(under(profile), f"""
        @0   udp client:40000 > web:53     -> allow rule
        @0   udp client:40001 > web:53     -> allow rule
        @0   udp web:53 > client:40001     -> allow established
        @{seconds.unidirectional}   udp web:53 > client:40000     -> deny no-rule
        @{seconds.bidirectional}    udp web:53 > client:40001     -> deny no-rule
    """)
