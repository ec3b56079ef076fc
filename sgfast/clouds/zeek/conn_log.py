"""Zeek's conn.log, as tab-separated text with its header lines, and as JSON with an object on each line, also as Kafka
wraps it: ``{"conn": {…}}``.

A record is a connection, and counts both directions: source is the originator. Bytes are those of IP, never those of
the payload, which Zeek takes from TCP's sequence numbers. Zeek writes no verdict, and a connection only when it ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from sgfast.base.names import printable
from sgfast.clouds.aws.flow_log import address
from sgfast.clouds.logs.columns import (
    LAST_SECOND,
    NS_PER_SECOND,
    OPENER_SOURCE,
    OPENER_UNKNOWN,
    UNKNOWN,
    RecordRow,
    unix_ns,
)
from sgfast.clouds.logs.log import Log, batches
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, UDP

#: The states of connections; ``conn_state`` is an index.
CONN_STATES = ("S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH")
#: The letters of ``history``: the originator's (capital) have the bit of their index, the responder's that index + 16,
#: and ``^``, after which Zeek exchanged both ends, has bit 31.
HISTORY_LETTERS = "shadfrcgtwiqx"
HISTORY_FLIPPED = 1 << 31

_PROTOCOLS = {"tcp": TCP, "udp": UDP}
_SECONDS = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9})[0-9]*)?")
_HISTORY = {letter.upper(): 1 << bit for bit, letter in enumerate(HISTORY_LETTERS)}
_HISTORY |= {letter: 1 << 16 + bit for bit, letter in enumerate(HISTORY_LETTERS)}
_HISTORY["^"] = HISTORY_FLIPPED
_STATES = {state: number for number, state in enumerate(CONN_STATES)}
_NEEDED = ("ts", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto")
#: Types of ICMP and ICMPv6 by those of their answers. Zeek writes the answer's type in place of the code, which is 0.
_ANSWERS = {8: 0, 13: 14, 15: 16, 17: 18, 10: 9, 128: 129, 130: 131, 133: 134, 135: 136}
#: Types of ICMP and ICMPv6 that ask: echo, timestamp, information, address mask.
_QUERIES = (8, 13, 15, 17, 128)
_MOST = 2**63 - 1


def read_tsv(log: Log) -> Iterator[NDArray[Any]]:
    """Read text with header lines. Lines of Zeek's other logs are left out."""
    return batches(log, _tsv_rows(log))


def read_json(log: Log) -> Iterator[NDArray[Any]]:
    """Read JSON lines. Lines of Zeek's other logs are left out."""
    return batches(log, _json_rows(log))


def _tsv_rows(log: Log) -> Iterator[RecordRow]:
    separator, unset, path = "\t", "-", "conn"
    fields: list[str] = []
    for number, line in log.lines():
        line = line.rstrip("\r")
        if line.startswith("#"):
            name, _, value = line[1:].partition(" " if line.startswith("#separator") else separator)
            if name == "separator":
                separator = re.sub(r"\\x([0-9a-fA-F]{2})", lambda code: chr(int(code[1], 16)), value) or "\t"
            elif name == "unset_field":
                unset = value
            elif name == "path":
                path = value
            elif name == "fields":
                fields = [field.replace("id_", "id.", 1) for field in value.split(separator)]
            continue
        if path != "conn":
            log.left_out += 1
            continue
        words = line.split(separator)
        try:
            if len(words) != len(fields):
                raise ValueError(f"has {len(words)} columns, not {len(fields)}")
            row = _row(log, number, {name: word for name, word in zip(fields, words, strict=True) if word != unset})
        except ValueError as error:
            log.complain(number, str(error))
            continue
        yield row


def _json_rows(log: Log) -> Iterator[RecordRow]:
    for number, line in log.lines():
        try:
            # Numbers stay text, so that times keep all of their digits.
            value = json.loads(line, parse_float=str, parse_int=str)
            if not isinstance(value, dict):
                raise ValueError("is no JSON object")
            if len(value) == 1 and isinstance(inner := next(iter(value.values())), dict):
                value = {"_path": next(iter(value)), **inner}
            if value.get("_path", "conn") != "conn":
                log.left_out += 1
                continue
            nested = value.pop("id", {})
            if isinstance(nested, dict):
                value |= {f"id.{name}": word for name, word in nested.items()}
            row = _row(log, number, {
                name.replace("id_", "id.", 1): word for name, word in value.items() if isinstance(word, str)
            })  # fmt: skip
        except (ValueError, RecursionError) as error:
            cause = f"is no JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            log.complain(number, cause)
            continue
        yield row


def _row(log: Log, number: int, values: Mapping[str, str]) -> RecordRow:
    """Return a row. ``values`` has only what is set. Raises ValueError if the record is invalid."""
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        raise ValueError(f"has no {' and no '.join(missing)}")
    src, dst = (address(name, values[name]) for name in ("id.orig_h", "id.resp_h"))
    if len(src) != len(dst):
        raise ValueError("id.orig_h and id.resp_h are of different IP versions")
    icmp = ICMP if len(src) == 4 else ICMPV6
    protocol = icmp if values["proto"] == "icmp" else _PROTOCOLS.get(values["proto"], UNKNOWN)
    if "ip_proto" in values:
        protocol = _count(values, "ip_proto", 255)
    ports = [_count(values, name, 65535) for name in ("id.orig_p", "id.resp_p")]
    is_icmp, has_ports = protocol == icmp, protocol in PORT_PROTOCOLS
    if is_icmp and max(ports) > 255:
        raise ValueError(f"its ICMP type and code must be numbers up to 255, not {ports[0]} and {ports[1]}")
    start = _time(values["ts"])
    end = start + _in_ns("duration", values["duration"]) if "duration" in values else UNKNOWN
    if end > LAST_SECOND * NS_PER_SECOND:
        raise ValueError(f"duration must end before the year 2242, not {_shown(values['duration'])}")
    state = values.get("conn_state", "")
    history = 0
    for letter in values.get("history", ""):
        history |= _HISTORY.get(letter, 0)
    return RecordRow(
        number, src, dst, protocol, start_ns=start, end_ns=end,
        packets=_count(values, "orig_pkts"), bytes=_count(values, "orig_ip_bytes"),
        packets_back=_count(values, "resp_pkts"), bytes_back=_count(values, "resp_ip_bytes"),
        history=history, conn_state=_STATES.get(state, UNKNOWN),
        sport=ports[0] if has_ports else 0, dport=ports[1] if has_ports else 0, has_ports=has_ports,
        icmp_type=ports[0] if is_icmp else UNKNOWN,
        icmp_code=UNKNOWN if not is_icmp else 0 if _ANSWERS.get(ports[0]) == ports[1] else ports[1],
        opener=OPENER_SOURCE if _saw_opener(values, protocol, ports[0]) else OPENER_UNKNOWN,
    )  # fmt: skip


def _saw_opener(values: Mapping[str, str], protocol: int, icmp_type: int) -> bool:
    """Return whether the originator opened the connection for sure, and is no guess of Zeek from the ports."""
    state, history = values.get("conn_state"), values.get("history", "")
    if protocol in (ICMP, ICMPV6):
        return icmp_type in _QUERIES
    if protocol == TCP:
        # Otherwise the sender of the first packet that Zeek met is the originator. It may have answered.
        return "S" in history or "h" in history if history else state != "OTH"
    return state not in ("OTH", "SHR") and "^" not in history


def _count(values: Mapping[str, str], name: str, most: int = _MOST) -> int:
    word = values.get(name)
    if word is None:
        return UNKNOWN
    # Tools that write JSON from tables make floating-point numbers of whole ones.
    digits = word.removesuffix(".0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19 and int(digits) <= most):
        raise ValueError(f"{name} must be a number{'' if most == _MOST else f' up to {most}'}, not {_shown(word)}")
    return int(digits)


def _in_ns(name: str, word: str) -> int:
    seconds = _SECONDS.fullmatch(word)
    if seconds is None or int(seconds[1]) > LAST_SECOND:
        raise ValueError(f"{name} must be a time, not {_shown(word)}")
    return int(seconds[1]) * NS_PER_SECOND + int((seconds[2] or "").ljust(9, "0"))


def _time(word: str) -> int:
    if "T" not in word:
        return _in_ns("ts", word)
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise ValueError(f"ts must be a time, not {_shown(word)}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if (time_ns := unix_ns(moment)) < 0:
        raise ValueError(f"ts must be a time since 1970, not {_shown(word)}")
    return time_ns


def _shown(word: str) -> str:
    return printable(word[:40])
