"""VPC flow logs of AWS (versions 2 to 11), and of OTC and Huawei Cloud (version 1), as text.

The default formats of all three clouds have the same fourteen fields in the same order. An AWS log may have other
fields, which its first line names. Exports from CloudWatch Logs have the time of the event before each record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import FlowLogError
from sgfast.base.names import printable
from sgfast.clouds.logs.columns import (
    ACTION_ACCEPTED,
    ACTION_REJECTED,
    ACTION_UNKNOWN,
    DIRECTION_EGRESS,
    DIRECTION_INGRESS,
    DIRECTION_UNKNOWN,
    LAST_SECOND,
    NS_PER_SECOND,
    RECORD_DTYPE,
    UNKNOWN,
    RecordRow,
)
from sgfast.clouds.logs.log import LONGEST_LINE, TOO_LONG, Log, empty_rows
from sgfast.clouds.logs.tokenizer import FULL, HANDLERS, LEFT, Tokenizer, WordNumbers
from sgfast.policy.model import PORT_PROTOCOLS

#: The fields of the default format of AWS, OTC and Huawei Cloud.
DEFAULT_FIELDS = (
    "version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets", "bytes",
    "start", "end", "action", "log-status",
)  # fmt: skip
#: The fields without which nothing is known about a connection.
NEEDED_FIELDS = ("srcaddr", "dstaddr", "protocol")
#: The fields of an export from CloudWatch Logs.
EXPORTED_FIELDS = ("timestamp", *DEFAULT_FIELDS)

_NUMBER = re.compile(r"[0-9]{1,19}")
_MOST = 2**63 - 1


class RecordFields:
    """The fields of a log's records, in order. A field that stands twice counts the last time."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = list(fields)
        self._places = {name: place for place, name in enumerate(fields)}
        # A transit gateway logs the direction as the gateway sees it, where ingress is what leaves a VPC.
        self.is_gateway = "tgw-attachment-id" in self._places
        handlers = {name: number for name, number in HANDLERS.items() if name in self._places}
        if self.is_gateway:
            handlers.pop("flow-direction", None)
            handlers["tgw-attachment-id"] = HANDLERS["interface-id"]
        self.handlers = [0] * len(fields)
        for name, number in handlers.items():
            self.handlers[self._places[name]] = number

    def values(self, words: Sequence[str]) -> dict[str, str]:
        """Return the words of a line by field. Raises ValueError if their number is wrong."""
        if len(words) != len(self.fields):
            raise ValueError(f"has {_count(len(words))}, not {len(self.fields)}")
        values = dict(zip(self.fields, words, strict=True))
        if self.is_gateway:
            values["interface-id"] = values["tgw-attachment-id"]
            values.pop("flow-direction", None)
        return values


class LineReader:
    """Reader of lines with fields, from a file or from messages. The tokenizer takes nearly all of them."""

    def __init__(self, log: Log, fields: Sequence[str], unit: str = "line") -> None:
        self._log = log
        self._unit = unit
        self._rows = empty_rows()
        self._filled = 0
        self._is_at_end = False
        self._set(fields)

    def take(self, first: int, block: bytes | memoryview) -> Iterator[NDArray[Any]]:
        """Read lines, of which the first has the number ``first``; ``block`` ends with a line feed."""
        position, number = 0, first
        while not self._is_at_end:
            tokenizer = self._tokenizer
            tokenizer.line = number
            answer = tokenizer.take(block, position, self._rows, self._filled)
            number = tokenizer.line
            self._count(tokenizer)
            if answer == LEFT:
                self._read_slowly(number, bytes(block[tokenizer.line_start : tokenizer.line_end]))
                position, number = tokenizer.line_end + 1, number + 1
            elif answer == FULL:
                position = tokenizer.line_end
                yield from self.rest()
            else:
                return

    def rest(self) -> Iterator[NDArray[Any]]:
        """Yield the rows that are left at the end."""
        if self._filled:
            yield self._rows[: self._filled]
            self._rows, self._filled = empty_rows(), 0

    def _set(self, fields: Sequence[str]) -> None:
        self._columns = RecordFields(fields)
        try:
            self._tokenizer = Tokenizer(self._columns.handlers, self._log.words)
        except ValueError as error:
            raise FlowLogError(f"{self._log.name}: {error}") from error
        self._nodata = self._skipdata = 0

    def _count(self, tokenizer: Tokenizer) -> None:
        log = self._log
        log.records += tokenizer.filled - self._filled
        log.nodata += tokenizer.nodata - self._nodata
        log.skipdata += tokenizer.skipdata - self._skipdata
        self._filled, self._nodata, self._skipdata = tokenizer.filled, tokenizer.nodata, tokenizer.skipdata

    def _read_slowly(self, number: int, line: bytes) -> None:
        log = self._log
        if len(line) >= LONGEST_LINE:
            log.complain(number, TOO_LONG, self._unit)
            return
        words = line.decode("utf-8", "replace").split()
        if not words:
            return
        if "srcaddr" in words:
            try:
                # In a format description of AWS, a name looks like ${srcaddr}.
                self._set(header(log, f"line {number}", [word.strip("${}").lower() for word in words]))
            except FlowLogError as error:
                if not log.has_records:
                    raise
                log.damage = str(error)
                self._is_at_end = True
            return
        try:
            row = record(log, number, self._columns.values(words))
        except ValueError as error:
            log.complain(number, str(error), self._unit)
            return
        if row is not None:
            self._rows[self._filled] = np.frombuffer(row.packed(), RECORD_DTYPE)[0]
            self._filled += 1
            log.records += 1


def read(log: Log, fields: Sequence[str] = DEFAULT_FIELDS) -> Iterator[NDArray[Any]]:
    """Read a log that is text, in the default format or with a header."""
    reader = LineReader(log, fields)
    for first, block in log.blocks():
        yield from reader.take(first, block)
    yield from reader.rest()


def read_export(log: Log) -> Iterator[NDArray[Any]]:
    """Read a log that CloudWatch Logs exported."""
    return read(log, EXPORTED_FIELDS)


def header(log: Log, place: str, fields: list[str]) -> list[str]:
    """Return the fields of a header. Raises FlowLogError if one that is needed is missing."""
    missing = [name for name in dict.fromkeys((*log.needs, *NEEDED_FIELDS)) if name not in fields]
    if missing:
        raise FlowLogError(
            f"{log.name}: {place}: the records have no field {' and no '.join(missing)}: add it to the flow "
            "log's format"
        )
    return fields


def record(log: Log, number: int, values: dict[str, str]) -> RecordRow | None:
    """Read a record by its fields, the slow way. Count it and return None if it has no traffic.

    Raises ValueError if it is invalid.
    """
    status = values.get("log-status", "OK")
    if status == "NODATA":
        log.nodata += 1
        if (interface := values.get("interface-id", "-")) != "-":
            log.words.note_idle(interface.encode("utf-8", "surrogateescape"))
        return None
    if status == "SKIPDATA":
        log.skipdata += 1
        return None
    if status != "OK":
        raise ValueError(f"log-status must be OK, NODATA or SKIPDATA, not {_shown(status)}")
    action = values.get("action")
    if action not in (None, "ACCEPT", "REJECT"):
        raise ValueError(f"action must be ACCEPT or REJECT, not {_shown(action)}")
    src, dst = (address(name, values[name]) for name in ("srcaddr", "dstaddr"))
    if len(src) != len(dst):
        raise ValueError("srcaddr and dstaddr are of different IP versions")
    start, end = (
        _number(name, values[name], LAST_SECOND) if name in values else UNKNOWN for name in ("start", "end")
    )
    if UNKNOWN < end < start:
        raise ValueError(f"its end, {end}, is before its start, {start}")
    # AWS writes "-" for fields that do not apply, such as ports of a protocol without ports.
    sport, dport = (_number(name, values.get(name, "-"), 65535, dash=0) for name in ("srcport", "dstport"))
    packets, nbytes = (_number(name, values.get(name, "-"), dash=UNKNOWN) for name in ("packets", "bytes"))
    protocol = _number("protocol", values["protocol"], 255)
    packet = [
        b"" if values.get(name, "-") == "-" else address(name, values[name]) for name in ("pkt-srcaddr", "pkt-dstaddr")
    ]
    if any(packet_address and len(packet_address) != len(src) for packet_address in packet):
        raise ValueError("srcaddr and the packet's own addresses are of different IP versions")
    directions = {"ingress": DIRECTION_INGRESS, "egress": DIRECTION_EGRESS}
    return RecordRow(
        number, src, dst, protocol, start_ns=_in_ns(start), end_ns=_in_ns(end), packets=packets, bytes=nbytes,
        pkt_src=packet[0], pkt_dst=packet[1], interface=_word(log.words, values.get("interface-id", "-")),
        instance=_word(log.words, values.get("instance-id", "-")),
        rule=_word(log.words, values.get("reject-reason", "-")), sport=sport, dport=dport,
        has_ports=protocol in PORT_PROTOCOLS and bool(sport or dport),
        tcp_flags=_number("tcp-flags", values.get("tcp-flags", "-"), 255, dash=UNKNOWN),
        direction=directions.get(values.get("flow-direction", ""), DIRECTION_UNKNOWN),
        action={None: ACTION_UNKNOWN, "ACCEPT": ACTION_ACCEPTED, "REJECT": ACTION_REJECTED}[action],
    )  # fmt: skip


def address(name: str, word: str) -> bytes:
    """Return an address as bytes. Raises ValueError if it is none."""
    packed = _address(word) if len(word) <= 45 and "%" not in word else None
    if packed is None:
        raise ValueError(f"{name} must be an address, not {_shown(word)}")
    return packed


@lru_cache(1 << 14)
def _address(word: str) -> bytes | None:
    with suppress(AddressValueError):
        return IPv6Address(word).packed if ":" in word else IPv4Address(word).packed
    return None


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"


def _shown(word: str) -> str:
    return printable(word[:40])


def _number(name: str, word: str, most: int = _MOST, dash: int | None = None) -> int:
    if word == "-" and dash is not None:
        return dash
    if not (_NUMBER.fullmatch(word) and int(word) <= most):
        raise ValueError(f"{name} must be a number{'' if most == _MOST else f' up to {most}'}, not {_shown(word)}")
    return int(word)


def _in_ns(second: int) -> int:
    return UNKNOWN if second == UNKNOWN else second * NS_PER_SECOND


def _word(words: WordNumbers, word: str) -> int:
    return UNKNOWN if word == "-" else words.number_of(word.encode("utf-8", "surrogateescape"))
