"""Make the header of one packet, as an engine judges it, from the values that a program gives (SPEC 10.20)."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from operator import index

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import ArgumentError, ArgumentTypeError
from sgfast.core.base.frames import nanoseconds
from sgfast.core.dtypes import HEADER_DTYPE
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, TCP
from sgfast.policy.protocols import ECHO_REQUEST, PROTOCOL_NUMBERS
from sgfast.policy.rule_text import check_packet_fields
from sgfast.policy.timestamps import MAX_TIME_NS

#: An IPv4 or IPv6 address.
Address = str | IPv4Address | IPv6Address
#: A point in time: nanoseconds since the Unix epoch, or a ``datetime`` with a time zone (SPEC 14.13).
Instant = int | datetime

TCP_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}


def header(
    src: Address,
    dst: Address,
    protocol: str | int,
    *,
    sport: int | None = None,
    dport: int | None = None,
    flags: str = "S",
    icmp_type: int | None = None,
    icmp_code: int | None = None,
    icmp_id: int = 0,
    time_ns: Instant = 0,
    wire: int = 64,
) -> NDArray[np.void]:
    """Return one packet as an array of ``HEADER_DTYPE`` (1,).

    ``src``, ``dst``: addresses of one IP version. ``wire``: the packet's length on the wire in bytes. The other
    arguments are those of ``Engine.check``. A port that is not given is 0 in the row.

    Raises ArgumentError for an impossible packet, TypeError for a value that is not a number, ArgumentTypeError for a
    time that is no instant (SPEC 14.13).

    For example:

        packet = sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000, dport=80)
        assert packet.shape == (1,) and packet["dport"][0] == 80
    """
    if dport is None and protocol_number(protocol) in PORT_PROTOCOLS:
        # Programs write the ports of many rows at once.
        dport = 0
    return header_row(
        src, dst, protocol, sport=sport, dport=dport, flags=flags, icmp_type=icmp_type, icmp_code=icmp_code,
        icmp_id=icmp_id, time_ns=time_ns, wire=wire,
    )  # fmt: skip


def header_row(
    src: Address,
    dst: Address,
    protocol: str | int,
    *,
    sport: int | None = None,
    dport: int | None = None,
    flags: str = "S",
    icmp_type: int | None = None,
    icmp_code: int | None = None,
    icmp_id: int = 0,
    time_ns: Instant = 0,
    wire: int = 64,
) -> NDArray[np.void]:
    """Return one packet as ``header`` does. Protocols with ports need ``dport``."""
    try:
        source, destination = ip_address(src), ip_address(dst)
    except ValueError as error:
        raise ArgumentError(str(error)) from None
    if source.version != destination.version:
        raise ArgumentError(f"{source} and {destination} are of different IP versions")
    number = protocol_number(protocol)
    if number is None or not 0 <= number <= 255:
        raise ArgumentError(f"unknown protocol {protocol!r}")
    if number == ICMP and source.version == 6 and isinstance(protocol, str):
        number = ICMPV6
    has_ports, has_icmp = number in PORT_PROTOCOLS, number == (ICMPV6 if source.version == 6 else ICMP)
    check_packet_fields(number, dport, sport, icmp_type, icmp_code)
    if icmp_type is None:
        icmp_type = ECHO_REQUEST[source.version]
    sport, dport, icmp_code = (0 if value is None else value for value in (sport, dport, icmp_code))
    for name, value, top in (
        ("sport", sport, 65535), ("dport", dport, 65535), ("icmp_type", icmp_type, 255),
        ("icmp_code", icmp_code, 255), ("icmp_id", icmp_id, 65535),
    ):  # fmt: skip
        if not 0 <= index(value) <= top:
            raise ArgumentError(f"{name} must be 0 to {top}, not {value}")
    unknown = set(flags.upper()) - set(TCP_FLAGS)
    if unknown:
        raise ArgumentError(f"TCP flags must be letters of {''.join(TCP_FLAGS)}, not {''.join(sorted(unknown))}")
    row = np.zeros(1, dtype=HEADER_DTYPE)
    row["time_ns"] = instant_ns_of(time_ns, "time_ns")
    row["wire"] = wire
    row["family"] = source.version
    width = 4 if source.version == 4 else 16
    row["src"][0, :width] = np.frombuffer(source.packed, dtype=np.uint8)
    row["dst"][0, :width] = np.frombuffer(destination.packed, dtype=np.uint8)
    row["protocol"] = number
    if has_ports:
        row["sport"], row["dport"], row["has_ports"] = sport, dport, 1
    if number == TCP:
        row["tcp_flags"] = sum(TCP_FLAGS[letter] for letter in set(flags.upper()))
    if has_icmp:
        row["icmp_type"], row["icmp_code"], row["icmp_id"], row["has_icmp"] = icmp_type, icmp_code, icmp_id, 1
    return row


def instant_ns_of(time: object, name: str) -> int:
    """Return an instant as nanoseconds since the epoch (SPEC 14.13). Raises ArgumentTypeError for a float or a datetime
    without a time zone, ArgumentError for a time beyond the clock's range.
    """
    try:
        instant = nanoseconds(time, name)
    except TypeError as error:
        raise ArgumentTypeError(str(error)) from None
    if not -MAX_TIME_NS <= instant <= MAX_TIME_NS:
        raise ArgumentError(f"{name} must be within 2**62 nanoseconds (146 years) of 1970, not {instant}")
    return instant


def protocol_number(protocol: str | int) -> int | None:
    """Return a protocol's number, or None for an unknown name. Raises TypeError for neither a name nor a number."""
    return PROTOCOL_NUMBERS.get(protocol.lower()) if isinstance(protocol, str) else index(protocol)
