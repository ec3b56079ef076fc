"""Build documents of OpenStack's network API for the tests of imports."""

from __future__ import annotations

from typing import Any

WEB, DB, OFFICES = "sg-web", "sg-db", "ag-offices"


def rule(group: str, direction: str = "ingress", ethertype: str = "IPv4", **more: Any) -> dict[str, Any]:
    rule.count += 1  # type: ignore[attr-defined]
    return {
        "id": f"rule-{rule.count}",  # type: ignore[attr-defined]
        "security_group_id": group,
        "direction": direction,
        "ethertype": ethertype,
        "protocol": None,
        "port_range_min": None,
        "port_range_max": None,
        "remote_ip_prefix": None,
        "remote_group_id": None,
        "revision_number": 1,
    } | more


rule.count = 0  # type: ignore[attr-defined]


def tcp(low: int, high: int | None = None) -> dict[str, Any]:
    return {"protocol": "tcp", "port_range_min": low, "port_range_max": low if high is None else high}


def group(id: str, name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": id, "name": name, "description": "", "stateful": True, "security_group_rules": list(rules)} | more


def port(id: str, name: str, *addresses: str, groups: tuple[str, ...] = (WEB,), **more: Any) -> dict[str, Any]:
    fixed = [{"subnet_id": "s", "ip_address": address} for address in addresses]
    return {
        "id": id,
        "name": name,
        "network_id": "net-1",
        "device_owner": "compute:nova",
        "fixed_ips": fixed,
        "security_groups": list(groups),
        "allowed_address_pairs": [],
        "port_security_enabled": True,
    } | more


def groups(*made: dict[str, Any]) -> dict[str, Any]:
    return {"security_groups": list(made)}


def ports(*made: dict[str, Any]) -> dict[str, Any]:
    return {"ports": list(made)}


def pair(*addresses: str) -> dict[str, Any]:
    return {
        "allowed_address_pairs": [{"ip_address": address, "mac_address": "fa:16:3e:00:00:01"} for address in addresses]
    }


WEB_1, DB_1 = port("p1", "web-1", "10.0.0.5"), port("p2", "db-1", "10.0.1.9", groups=(DB,))
