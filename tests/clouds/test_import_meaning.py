"""Random OpenStack exports: the engine's verdicts on the imported policy match a naive reading of the export's rules,
and the written policy means the same as the export.
"""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from exports import imported

from sgfast import Engine
from sgfast.clouds.loading import parse_policy

GROUPS = ["sg-0", "sg-1", "sg-2"]
HOSTS = {4: ["10.0.0.5", "10.0.0.6", "10.0.1.9"], 6: ["2001:db8::5", "2001:db8::6", "2001:db8:1::9"]}
OUTSIDE = {4: ["198.51.100.7", "203.0.113.3"], 6: ["2001:db8:ff::1"]}
PREFIXES = {
    4: ["10.0.0.0/24", "10.0.1.9/32", "203.0.113.3/25", "0.0.0.0/0"],
    6: ["2001:db8::/64", "::/0", "2001:db8:ff::1/128"],
}
#: The words for each protocol, ICMP by IP version.
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "1": 1, 1: 1, "ipv6-icmp": 58, "icmpv6": 58, 58: 58, "47": 47}
ICMP: dict[int, tuple[Any, ...]] = {4: ("icmp", "1", 1), 6: ("icmp", "ipv6-icmp", "icmpv6", 58)}


def random_rule(pick: random.Random, group: str, n: int) -> dict[str, Any]:
    family = pick.choice((4, 4, 6))
    protocol = pick.choice((None, "tcp", "udp", pick.choice(ICMP[family]), "47"))
    low = high = None
    if protocol in ("tcp", "udp") and pick.random() < 0.8:
        low = pick.choice((1, 22, 80, 443))
        high = pick.choice((low, low, 443, 65535))
        high = max(low, high)
    elif protocol in ICMP[family] and pick.random() < 0.6:
        low = pick.choice((0, 13, 8, 128))
        high = pick.choice((None, 0))
    peer = pick.choice(("none", "prefix", "group", "addresses"))
    return {
        "id": f"rule-{n}",
        "security_group_id": group,
        "direction": pick.choice(("ingress", "ingress", "egress")),
        "ethertype": f"IPv{family}",
        "protocol": protocol,
        "port_range_min": low,
        "port_range_max": high,
        "remote_ip_prefix": pick.choice(PREFIXES[family]) if peer == "prefix" else None,
        "remote_group_id": pick.choice(GROUPS) if peer == "group" else None,
        "remote_address_group_id": "ag" if peer == "addresses" else None,
        "revision_number": 1,
    }


def random_export(pick: random.Random) -> dict[str, Any]:
    rules = [random_rule(pick, pick.choice(GROUPS), n) for n in range(pick.randint(3, 25))]
    ports = [
        {
            "id": f"port-{n}",
            "name": "",
            "fixed_ips": [{"ip_address": HOSTS[4][n]}, {"ip_address": HOSTS[6][n]}],
            "security_groups": pick.sample(GROUPS, pick.randint(0, 2)),
        }
        for n in range(3)
    ]
    return {
        "security_groups": [
            {
                "id": group,
                "name": pick.choice(("same", group)),
                "security_group_rules": [each for each in rules if each["security_group_id"] == group],
            }
            for group in GROUPS
        ],
        "address_groups": [
            {"id": "ag", "name": "sg-0", "addresses": ["203.0.113.0/28", "10.0.0.6/32", "2001:db8:ff::/64"]}
        ],
        "ports": ports,
    }


def lets(
    export: dict[str, Any], host: str, direction: str, peer: str, protocol: int, port: int, icmp: tuple[int, int]
) -> bool:
    """Whether some rule of the port that owns ``host`` matches."""
    port_of = {fixed["ip_address"]: each for each in export["ports"] for fixed in each["fixed_ips"]}
    if host not in port_of:
        return True
    family = ip_address(host).version
    for group in export["security_groups"]:
        if group["id"] not in port_of[host]["security_groups"]:
            continue
        for rule in group["security_group_rules"]:
            if rule["direction"] != direction or rule["ethertype"] != f"IPv{family}":
                continue
            number = 58 if family == 6 and rule["protocol"] == "icmp" else NUMBERS.get(rule["protocol"])
            if number not in (None, protocol):
                continue
            low, high = rule["port_range_min"], rule["port_range_max"]
            if protocol in (6, 17) and low is not None and not low <= port <= high:
                continue
            if protocol in (1, 58) and low is not None and (icmp[0] != low or high not in (None, icmp[1])):
                continue
            if rule["remote_ip_prefix"]:
                networks = [ip_network(rule["remote_ip_prefix"], strict=False)]
            elif rule["remote_address_group_id"]:
                networks = [ip_network(text) for text in export["address_groups"][0]["addresses"]]
            elif rule["remote_group_id"]:
                if rule["remote_group_id"] not in port_of.get(peer, {"security_groups": []})["security_groups"]:
                    continue
                networks = [ip_network(peer)]
            else:
                networks = [ip_network("0.0.0.0/0" if family == 4 else "::/0")]
            if any(ip_address(peer) in network for network in networks):
                return True
    return False


@pytest.mark.parametrize("seed", range(40))
def test_the_imported_policy_says_what_the_export_says(seed: int) -> None:
    pick = random.Random(seed)
    export = random_export(pick)
    made = imported(export, form="neutron")
    settings = made.policy().settings
    assert (settings.profile, settings.on_change) == ("neutron", "forget-unmatched")
    engines = Engine(made.policy()), Engine(parse_policy(made.yaml([])))
    seen = set()
    for n in range(300):
        family = pick.choice((4, 4, 6))
        src, dst = pick.sample(HOSTS[family] + OUTSIDE[family], 2)
        if src in OUTSIDE[family] and dst in OUTSIDE[family]:
            continue
        name = pick.choice(("tcp", "tcp", "udp", "icmp" if family == 4 else "ipv6-icmp", "47"))
        protocol = NUMBERS[name]
        port = pick.choice((1, 22, 23, 80, 443, 444, 65535)) if protocol in (6, 17) else 0
        # Queries, so that each opens its own connection.
        icmp = (pick.choice((8, 13)) if family == 4 else 128, pick.choice((0, 1)))
        expected = lets(export, src, "egress", dst, protocol, port, icmp) and lets(
            export, dst, "ingress", src, protocol, port, icmp
        )
        more: dict[str, Any] = {"sport": 20000 + n, "dport": port} if port else {}
        if protocol in (1, 58):
            more = {"icmp_type": icmp[0], "icmp_code": icmp[1], "icmp_id": n}
        for engine in engines:
            # Far apart in time, so that earlier connections have expired.
            found = engine.check(src, dst, protocol, time_ns=n * 10**15, **more)
            assert (found.verdict == "allow") is expected, (src, dst, name, port, icmp, found)
        seen.add(expected)
    assert seen <= {True, False} and False in seen
