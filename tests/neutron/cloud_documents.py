"""Random documents of Neutron's API: groups, rules, address groups and ports; and small changes of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from random import Random
from typing import Any

from ovs_cloud import DEVICES

Document = dict[str, Any]

OUTSIDE = {
    4: ("198.51.100.7", "198.51.100.130", "203.0.113.9", "192.0.2.33", "10.0.9.9"),
    6: ("2001:db8:9::7", "2001:db8:9::82", "2001:db8:a::9", "2a00::1"),
}
#: Prefixes for rules (remote_ip_prefix) and address groups, by IP version. One has host bits, which Neutron clears.
PREFIXES = {
    4: ("0.0.0.0/0", "10.0.0.0/24", "10.0.0.8/29", "10.0.0.11/32", "198.51.100.0/24", "198.51.100.128/25",
        "192.0.2.33/27", "10.0.0.0/8", "203.0.113.9/32"),
    6: ("::/0", "2001:db8::/64", "2001:db8::8/125", "2001:db8::b/128", "2001:db8:9::/48", "2001:db8:a::9/64"),
}  # fmt: skip
#: Networks of address groups that change. None is within another one, and no port has an address in them.
APART = {4: ("198.51.100.0/25", "198.51.100.128/25", "203.0.113.9/32"), 6: ("2001:db8:9::/48", "2001:db8:a::/64")}
#: Networks of allowed address pairs: each is around addresses of others, which then are the port's.
WIDE = ("10.0.0.0/24", "10.0.0.64/26", "10.0.0.0/8", "198.51.100.0/24", "128.0.0.0/1", "2001:db8::/64",
        "2001:db8::/121", "2001:db8::/33", "2001:db8:9::/48")  # fmt: skip
PORTS = (22, 53, 80, 443, 5432, 8080)
RANGES = ((22, 22), (80, 80), (53, 53), (80, 443), (443, 443), (1, 65535), (5000, 6000), (5432, 8081), (1, 79))
PROTOCOLS = (
    None, None, "tcp", "tcp", "tcp", "tcp", "6", "udp", "udp", "17", "icmp", "icmp", "1", "ipv6-icmp", "icmpv6", "58",
    "sctp", "132", "dccp", "udplite", "gre", "47", "esp", "ah", "253",
)  # fmt: skip
WITH_PORTS = ("tcp", "6", "udp", "17", "sctp", "132", "dccp", "udplite")
ICMP = ("icmp", "1", "ipv6-icmp", "icmpv6", "58")
TYPES = {4: (8, 8, 0, 3, 13), 6: (128, 128, 129, 1)}


@dataclass
class Account:
    """The documents, and which device each port has."""

    documents: Document
    devices: dict[str, str]


class Documents:
    """Draws accounts and changes of them; only ``rng`` decides.

    Neutron's agent loses remote members over some changes, or keeps them (``test_ovs_firewall`` has the cases).
    Accounts that are to change avoid that: a rule with a remote group has a twin for the other IP version and says
    protocol, type and code, and prefixes of address groups and address pairs do not overlap.
    """

    def __init__(self, rng: Random, *, changing: bool = False) -> None:
        self.rng = rng
        self.changing = changing
        #: No id is ever given twice, not even in another account.
        self.made = 0

    def _new(self, kind: str) -> str:
        self.made += 1
        return f"{kind}-{self.made}"

    def account(self) -> Account:
        account = Account({"security_groups": [], "address_groups": [], "ports": []}, {})
        names = [self._new("group") for _ in range(self.rng.randint(2, 4))]
        for _ in range(2):
            prefixes = APART if self.changing else PREFIXES
            addresses = {self.rng.choice(prefixes[family]) for family in (4, 6) for _ in range(self.rng.randint(0, 2))}
            # An address group has networks without host bits, in Neutron too.
            addresses -= {"192.0.2.33/27", "2001:db8:a::9/64"}
            id = self._new("addresses")
            account.documents["address_groups"].append({"id": id, "name": id, "addresses": sorted(addresses)})
        for name in names:
            rules = [rule for _ in range(self.rng.randint(2, 9)) for rule in self._rules(account, name, names)]
            if self.rng.random() < 0.7:
                rules += [self._made(name, "egress", family, description=self._new("pair")) for family in (4, 6)]
            account.documents["security_groups"].append(
                {"id": name, "name": name, "description": "", "stateful": True, "security_group_rules": rules}
            )
        for device in DEVICES:
            self._add_port(account, device, names)
        return account

    def _add_port(self, account: Account, device: str, names: list[str]) -> None:
        id = self._new("port")
        host = 8 + self.made % 200
        others = account.documents["ports"]
        taken = {pair["ip_address"] for port in others for pair in port["allowed_address_pairs"]}
        # A port without security is no instance to sgfast, so its addresses may not be in another port's prefix.
        security = self.rng.random() > 0.08 or not taken.isdisjoint(WIDE)
        groups = self.rng.sample(names, self.rng.choice((1, 1, 1, 2, 2, 0))) if security else []
        pairs = []
        if security and self.rng.random() < 0.2:
            pairs = [f"10.0.1.{host}"]
        all_secured = security and all(port["port_security_enabled"] for port in others)
        if all_secured and not self.changing and self.rng.random() < 0.3:
            pairs += [wide for wide in self.rng.sample(WIDE, 2) if wide not in taken]
        others.append(
            {
                "id": id,
                "name": id,
                "network_id": "network",
                "device_owner": "compute:nova",
                "mac_address": DEVICES[device],
                "fixed_ips": [
                    {"subnet_id": "subnet", "ip_address": f"10.0.0.{host}"},
                    {"subnet_id": "subnet-6", "ip_address": f"2001:db8::{host:x}"},
                ],
                "security_groups": groups,
                "allowed_address_pairs": [{"ip_address": pair, "mac_address": DEVICES[device]} for pair in pairs],
                "port_security_enabled": security,
            }
        )
        account.devices[id] = device

    def _rules(self, account: Account, group: str, names: list[str]) -> list[Document]:
        """A rule, or two that differ in the IP version; their description is the same."""
        family = self.rng.choice((4, 4, 6))
        more: Document = {}
        match self.rng.choice(("any", "prefix", "prefix", "group", "group", "addresses")):
            case "prefix":
                more["remote_ip_prefix"] = self.rng.choice(PREFIXES[family])
            case "group":
                more["remote_group_id"] = self.rng.choice(names)
            case "addresses":
                more["remote_address_group_id"] = self.rng.choice(account.documents["address_groups"])["id"]
        protocol = self.rng.choice(PROTOCOLS)
        if (family == 4 and protocol in ("ipv6-icmp", "icmpv6", "58")) or (family == 6 and protocol == "1"):
            protocol = "icmp"
        more["protocol"] = protocol
        if protocol in WITH_PORTS and self.rng.random() < 0.8:
            more["port_range_min"], more["port_range_max"] = self.rng.choice(RANGES)
        elif protocol in ICMP and self.rng.random() < 0.6:
            more["port_range_min"] = self.rng.choice(TYPES[family])
            more["port_range_max"] = self.rng.choice((None, None, 0, 1))
        direction = self.rng.choice(("ingress", "ingress", "egress"))
        remote = "remote_group_id" in more or "remote_address_group_id" in more
        if remote and protocol in ("dccp", "udplite"):
            # Neutron loses such rules if another one has other ports (test_ovs_firewall).
            more |= {"port_range_min": None, "port_range_max": None}
        both = self.changing and remote
        if both and protocol in ICMP:
            more |= {"protocol": "icmp", "port_range_min": self.rng.choice(TYPES[family]), "port_range_max": 0}
        elif both and protocol is None:
            more["protocol"] = "tcp"
        more["description"] = self._new("pair")
        return [self._made(group, direction, each, **more) for each in ((4, 6) if both else (family,))]

    def _made(self, group: str, direction: str, family: int, **more: Any) -> Document:
        nothing = dict.fromkeys(
            ("protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id",
             "remote_address_group_id")
        )  # fmt: skip
        return {
            "id": self._new("rule"), "security_group_id": group, "direction": direction,
            "ethertype": f"IPv{family}", "revision_number": 1, **nothing, **more,
        }  # fmt: skip

    def changed(self, account: Account) -> Account:
        """The account after one to three small changes."""
        after = Account(copy.deepcopy(account.documents), dict(account.devices))
        for _ in range(self.rng.randint(1, 3)):
            self._change(after)
        return after

    def _change(self, account: Account) -> None:
        groups, ports = account.documents["security_groups"], account.documents["ports"]
        names = [group["id"] for group in groups]
        group = self.rng.choice(groups)
        rules = group["security_group_rules"]
        secured = [port for port in ports if port["port_security_enabled"]]
        match self.rng.choice(("add", "remove", "remove", "member", "member", "addresses", "delete", "create")):
            case "add":
                rules += self._rules(account, group["id"], names)
            case "remove" if rules:
                gone = self.rng.choice(rules)["description"]
                rules[:] = [rule for rule in rules if rule["description"] != gone]
            case "member" if secured:
                port = self.rng.choice(secured)
                port["security_groups"] = self.rng.sample(names, self.rng.randint(1, 2))
            case "addresses":
                chosen = self.rng.choice(account.documents["address_groups"])
                chosen["addresses"] = [self.rng.choice(APART[family]) for family in (4, 6)]
            case "delete" if len(ports) > 4:
                port = self.rng.choice(ports)
                ports.remove(port)
                del account.devices[port["id"]]
            case "create":
                free = sorted(set(DEVICES) - set(account.devices.values()))
                if free:
                    self._add_port(account, self.rng.choice(free), names)
