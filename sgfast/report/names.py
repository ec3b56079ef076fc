"""Names of services in reports."""

from __future__ import annotations

from sgfast.policy.model import ICMP, ICMPV6
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import Service

_ICMP_NAMES = {
    ICMP: {
        0: "echo-reply", 3: "unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request", 9: "router-advert",
        10: "router-solicit", 11: "time-exceeded", 12: "parameter-problem", 13: "timestamp-request",
        14: "timestamp-reply", 15: "information-request", 16: "information-reply", 17: "mask-request",
        18: "mask-reply",
    },
    ICMPV6: {
        1: "unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request",
        129: "echo-reply", 130: "mld-query", 131: "mld-report", 132: "mld-done", 133: "router-solicit",
        134: "router-advert", 135: "neighbour-solicit", 136: "neighbour-advert", 137: "redirect",
        143: "mld2-report",
    },
}  # fmt: skip


def service_name(service: Service) -> str:
    """``tcp/8080``, ``icmp echo-request``, ``icmp unreachable/3``, ``gre``, ``protocol 200``."""
    name = protocol_name(service.protocol) or f"protocol {service.protocol}"
    if service.port is not None:
        return f"{name}/{service.port}"
    if service.icmp_type is None:
        return name
    kind = icmp_name(service.protocol, service.icmp_type)
    return f"{name} {kind}" + (f"/{service.icmp_code}" if service.icmp_code else "")


def icmp_name(protocol: int, icmp_type: int) -> str:
    """``echo-request``, or ``type 200`` if the type has no name here."""
    return _ICMP_NAMES.get(protocol, {}).get(icmp_type, f"type {icmp_type}")
