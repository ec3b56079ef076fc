"""OpenStack Neutron's security group log, as its agents write it to a file or to syslog.

A line is about one packet: the first one of a session that was accepted, or a packet that was dropped. So there are no
counts of packets, and ACCEPT says who opened the session. Two agents write a line for a session within the cloud.

The times of syslog have no year. ``Log.year_of`` finds the year of the first line, unless the caller knows it. Later
lines are of the next year if the month goes from December to January. Times without a zone count as UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from sgfast.clouds.aws.flow_log import address
from sgfast.clouds.logs.columns import (
    ACTION_ACCEPTED,
    ACTION_REJECTED,
    OPENER_SOURCE,
    OPENER_UNKNOWN,
    UNKNOWN,
    RecordRow,
    unix_ns,
)
from sgfast.clouds.logs.log import Log, batches
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, TCP

LINE = re.compile(r"\baction=(ACCEPT|DROP)\s+project_id=\S+\s+log_resource_ids=\[([^\]]*)\]\s+vm_port=(\S+)\s+(.*)")
_HEADER = re.compile(r"\b(ipv4|ipv6|tcp|udp|sctp|icmp|icmpv6|arp)\(")
_SYSLOG = re.compile(r"([A-Z][a-z]{2})\s+(\d{1,2}) (\d\d):(\d\d):(\d\d)\b")
_DATED = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


class Times:
    """The times of the lines of one log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._year: int | None = None
        self._month = 0

    def of(self, text: str) -> int:
        """Return the time in ns of a line that begins with ``text``, or UNKNOWN. Raises ValueError if it is none."""
        if dated := _DATED.search(text):
            moment = datetime.fromisoformat(dated[1].replace(",", "."))
            return unix_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        syslog_time = _SYSLOG.search(text)
        if syslog_time is None or syslog_time[1] not in _MONTHS:
            return UNKNOWN
        month = _MONTHS.index(syslog_time[1]) + 1
        day, hour, minute, second = (int(syslog_time[n]) for n in range(2, 6))
        if self._year is None:
            self._year = self._log.year_of(month, day)
        # Lines are in the order of time, but for some seconds.
        self._year += (month == 1 and self._month == 12) - (month == 12 and self._month == 1)
        self._month = month
        return unix_ns(datetime(self._year, month, day, hour, minute, min(second, 59), tzinfo=UTC))


def read(log: Log) -> Iterator[NDArray[Any]]:
    """Read the lines about packets. Other lines of the file, and packets that are not of IP, are left out."""
    return batches(log, _rows(log))


def _rows(log: Log) -> Iterator[RecordRow]:
    times = Times(log)
    for number, line in log.lines():
        log_line = LINE.search(line)
        if log_line is None:
            if "log_resource_ids=" in line:
                log.complain(number, "is no line of a security group log, or is cut")
            else:
                log.left_out += 1
            continue
        try:
            row = _row(log, number, times.of(line[: log_line.start()]), log_line)
        except (ValueError, KeyError) as error:
            log.complain(number, f"has no {error.args[0]}" if isinstance(error, KeyError) else str(error))
            continue
        if row is None:
            log.left_out += 1
        else:
            yield row


def _row(log: Log, number: int, time_ns: int, log_line: re.Match[str]) -> RecordRow | None:
    """Return a row, or None if the packet is not of IP.

    Raises ValueError if a field is wrong, and KeyError if it is missing.
    """
    headers: dict[str, str] = {}
    for header in _HEADER.finditer(log_line[4]):
        headers.setdefault(header[1], log_line[4][header.end() :])
    network = headers.get("ipv4", headers.get("ipv6"))
    if network is None:
        if "arp" in headers:
            return None
        raise KeyError("ipv4 or ipv6 header")
    src, dst = (address(name, _field(network, name)) for name in ("src", "dst"))
    if len(src) != len(dst) or (len(src) == 4) != ("ipv4" in headers):
        raise ValueError("src and dst are of different IP versions")
    protocol = _number(network, "proto" if "ipv4" in headers else "nxt", 255)
    transport = next((headers[name] for name in ("tcp", "udp", "sctp") if name in headers), None)
    sport = dport = 0
    if protocol in PORT_PROTOCOLS and transport is not None:
        sport, dport = _number(transport, "src_port", 65535), _number(transport, "dst_port", 65535)
    flags = UNKNOWN
    if protocol == TCP and "tcp" in headers:
        bits = _number(headers["tcp"], "bits", 511)
        flags = bits & (_FIN | _SYN | _RST | (_ACK if bits & _SYN else 0))
    icmp = headers.get("icmp" if "ipv4" in headers else "icmpv6") if protocol in (ICMP, ICMPV6) else None
    accepted = log_line[1] == "ACCEPT"
    logs = re.findall(r"'([^']+)'", log_line[2])
    return RecordRow(
        number, src, dst, protocol, start_ns=time_ns, end_ns=time_ns, tcp_flags=flags, sport=sport, dport=dport,
        has_ports=bool(sport or dport), interface=log.words.number_of(log_line[3].encode("utf-8", "replace")),
        rule=log.words.number_of(logs[0].encode("utf-8", "replace")) if logs else UNKNOWN,
        # The type stands behind the packet's data, in which anybody may write one.
        icmp_type=UNKNOWN if icmp is None else _number(icmp, "type_?", 255, is_last=True),
        icmp_code=UNKNOWN if icmp is None else _number(icmp, "code", 255),
        action=ACTION_ACCEPTED if accepted else ACTION_REJECTED,
        opener=OPENER_SOURCE if accepted else OPENER_UNKNOWN,
    )  # fmt: skip


def _field(header: str, name: str, *, is_last: bool = False) -> str:
    values = re.findall(rf"\b{name}=(?:'([^']*)'|([^,)\s]*))", header)
    if not values:
        raise KeyError(name.rstrip("_?"))
    quoted, plain = values[-1 if is_last else 0]
    return str(quoted or plain)


def _number(header: str, name: str, most: int, *, is_last: bool = False) -> int:
    word = _field(header, name, is_last=is_last)
    if not (word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= most):
        raise ValueError(f"{name.rstrip('_?')} must be a number up to {most}")
    return int(word)
