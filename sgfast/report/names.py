"""Names of services and files in reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgfast.policy.protocols import ICMP_NAMES, protocol_name

if TYPE_CHECKING:
    from sgfast.questions.replaying import Service


def as_text(path: str) -> str:
    """Escape the bytes of a file name that cannot be decoded."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def protocol_word(number: int) -> str:
    """Return ``tcp``, or ``protocol 200`` if the protocol has no name."""
    return protocol_name(number) or f"protocol {number}"


def end_name(address: str, port: int | None) -> str:
    """Return ``10.0.0.1:80``, ``[2001:db8::1]:80``, or the address alone."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def service_name(service: Service) -> str:
    """Return ``tcp/8080``, ``icmp echo-request``, ``icmp unreachable/3``, ``gre``, ``protocol 200``."""
    name = protocol_word(service.protocol)
    if service.port is not None:
        return f"{name}/{service.port}"
    if service.icmp_type is None:
        return name
    kind = icmp_name(service.protocol, service.icmp_type)
    return f"{name} {kind}" + (f"/{service.icmp_code}" if service.icmp_code else "")


def icmp_name(protocol: int, icmp_type: int) -> str:
    """Return ``echo-request``, or ``type 200`` if the type has no name here."""
    return ICMP_NAMES.get(protocol, {}).get(icmp_type, f"type {icmp_type}")
