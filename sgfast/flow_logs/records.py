"""Read flow log records from text (AWS version 2 and later, OTC and Huawei Cloud version 1), line by line.

The default formats of all three clouds have the same fourteen fields in the same order. An AWS log may have other
fields, which its first line names. An invalid line is counted and reported, and reading continues with the next line.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Literal, cast

from sgfast.capture.compression import MAGIC_LENGTH, compression_of
from sgfast.errors import FlowLogError
from sgfast.policy.yaml_nodes import UTF_16, UTF_16_MARKS
from sgfast.system.names import printable

STANDARD_INPUT = "standard input"

#: The fields of the default format of AWS, OTC and Huawei Cloud.
DEFAULT_FIELDS = (
    "version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets", "bytes",
    "start", "end", "action", "log-status",
)  # fmt: skip
#: The fields without which a record cannot be checked.
NEEDED_FIELDS = ("srcaddr", "dstaddr", "srcport", "dstport", "protocol", "start", "end", "action")

LONGEST_LINE = 1 << 16
#: The length from which a line counts as endless: the input is a device, or made to exhaust memory.
ENDLESS_LINE = 1 << 23
#: The maximum number of broken lines reported one by one.
LISTED_BROKEN = 10
#: The number of invalid lines, without any record, after which the file is refused as no flow log.
HOPELESS = 100

_NUMBER = re.compile(r"[0-9]{1,19}")
_LAST_SECOND = 1 << 33


@dataclass(frozen=True, slots=True)
class Record:
    """A record with status OK. Addresses are 4 or 16 bytes, of the same family; times are Unix seconds."""

    line: int
    #: The id of the network interface; empty if the log does not contain it.
    interface: str
    src: bytes
    dst: bytes
    sport: int
    dport: int
    protocol: int
    packets: int
    bytes: int
    start: int
    end: int
    accepted: bool
    #: The flags of all packets combined, in AWS's encoding (ACK only together with SYN); None if the log has no flags.
    tcp_flags: int | None = None
    direction: Literal["ingress", "egress"] | None = None


class FlowLog:
    """A log that can be read once. Iteration yields its records. Gzip is detected; ``-`` is standard input.

    Iterating raises FlowLogError if the file cannot be read or is not a flow log. Other problems are in
    ``broken_lines``, ``complaints`` and ``damage`` afterwards.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = STANDARD_INPUT if path == "-" else printable(path)
        #: The numbers of records without traffic, and of records that the cloud lost.
        self.nodata = 0
        self.skipdata = 0
        self.broken_lines = 0
        #: Messages about the first broken lines: file, line and cause.
        self.complaints: list[str] = []
        #: Place and cause if reading ended early.
        self.damage: str | None = None

    def __iter__(self) -> Iterator[Record]:
        fields: Sequence[str] = DEFAULT_FIELDS
        found = number = 0
        try:
            with ExitStack() as stack:
                stream = self._open(stack)
                while line := stream.readline(LONGEST_LINE):
                    number += 1
                    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                        self._complain(number, f"is longer than {LONGEST_LINE} bytes")
                        if _skip_line(stream):
                            continue
                        self.damage = f"{self.name}: line {number}: does not end within {ENDLESS_LINE >> 20} MiB"
                        break
                    words = line.decode("utf-8", "replace").split()
                    if not words:
                        continue
                    if "srcaddr" in words:
                        fields = self._header(number, words)
                        continue
                    try:
                        record = self._record(number, fields, words)
                    except ValueError as error:
                        self._complain(number, str(error))
                        if self.broken_lines >= HOPELESS and not found:
                            break
                        continue
                    found += 1
                    if record is not None:
                        yield record
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage = f"{self.name}: line {number + 1}: the compressed data is damaged: {error}"
        except OSError as error:
            if not number:
                raise FlowLogError(f"{self.name}: cannot be read: {error.strerror or error}") from error
            self.damage = f"{self.name}: line {number + 1}: reading failed: {error.strerror or error}"
        if self.broken_lines and not found:
            raise FlowLogError(f"{self.complaints[0]}; this file contains no flow log record: is it a flow log?")

    def _open(self, stack: ExitStack) -> io.BufferedIOBase:
        stream: Any
        if self.path == "-":
            stream = getattr(sys.stdin, "buffer", None)
            if stream is None:
                raise FlowLogError(f"{self.name}: is closed or has no bytes; name a flow log instead of -")
        else:
            try:
                stream = stack.enter_context(open(self.path, "rb"))  # noqa: SIM115
            except ValueError as error:
                raise FlowLogError(f"{self.name}: cannot be read: {error}") from error
        if not hasattr(stream, "peek"):
            stream = io.BufferedReader(stream)
        if stream.peek(2).startswith(UTF_16_MARKS):
            raise FlowLogError(f"{self.name}: {UTF_16}")
        compression = compression_of(stream.peek(MAGIC_LENGTH)[:MAGIC_LENGTH])
        if compression is not None and compression.name != "gzip":
            raise FlowLogError(
                f"{self.name}: is {compression.name}-compressed, but flow logs may only use gzip: decompress it "
                f"first ({compression.command} FILE | sgfast flowlog POLICY -)"
            )
        if compression is not None:
            return stack.enter_context(gzip.GzipFile(fileobj=stream))
        return cast(io.BufferedIOBase, stream)

    def _complain(self, number: int, cause: str) -> None:
        self.broken_lines += 1
        if len(self.complaints) < LISTED_BROKEN:
            self.complaints.append(f"{self.name}: line {number}: {cause}")

    def _header(self, number: int, words: list[str]) -> list[str]:
        # AWS writes the names as ${srcaddr} when it describes a format.
        fields = [word.strip("${}").lower() for word in words]
        missing = [name for name in NEEDED_FIELDS if name not in fields]
        if missing:
            raise FlowLogError(
                f"{self.name}: line {number}: the records have no field {' and no '.join(missing)}: add it to the flow "
                "log's format"
            )
        return fields

    def _record(self, number: int, fields: Sequence[str], words: list[str]) -> Record | None:
        """Parse a record. Return None if it has no traffic. Raises ValueError if it is invalid."""
        if len(words) != len(fields):
            raise ValueError(f"has {_count(len(words))}, not {len(fields)}")
        values = dict(zip(fields, words, strict=True))
        status = values.get("log-status", "OK")
        if status == "NODATA":
            self.nodata += 1
            return None
        if status == "SKIPDATA":
            self.skipdata += 1
            return None
        if status != "OK":
            raise ValueError(f"log-status must be OK, NODATA or SKIPDATA, not {_shown(status)}")
        if values["action"] not in ("ACCEPT", "REJECT"):
            raise ValueError(f"action must be ACCEPT or REJECT, not {_shown(values['action'])}")
        src, dst = (_address(name, values[name]) for name in ("srcaddr", "dstaddr"))
        if len(src) != len(dst):
            raise ValueError("srcaddr and dstaddr are of different IP versions")
        start, end = (_number(name, values[name], _LAST_SECOND) for name in ("start", "end"))
        if end < start:
            raise ValueError(f"its end, {end}, is before its start, {start}")
        # AWS writes "-" for fields that do not apply, such as ports of a protocol without ports.
        sport, dport = (_number(name, values[name], 65535, dash=0) for name in ("srcport", "dstport"))
        packets, nbytes = (_number(name, values.get(name, "-"), dash=0) for name in ("packets", "bytes"))
        flags = values.get("tcp-flags", "-")
        direction = values.get("flow-direction")
        interface = values.get("interface-id", "-")
        return Record(
            number, "" if interface == "-" else interface, src, dst, sport, dport,
            _number("protocol", values["protocol"], 255), packets, nbytes, start, end, values["action"] == "ACCEPT",
            None if flags == "-" else _number("tcp-flags", flags, 255),
            "ingress" if direction == "ingress" else "egress" if direction == "egress" else None,
        )  # fmt: skip


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"


def _shown(word: str) -> str:
    return printable(word[:40])


def _number(name: str, word: str, most: int = 2**63, dash: int | None = None) -> int:
    if word == "-" and dash is not None:
        return dash
    if not (_NUMBER.fullmatch(word) and int(word) <= most):
        raise ValueError(f"{name} must be a number{'' if most == 2**63 else f' up to {most}'}, not {_shown(word)}")
    return int(word)


def _address(name: str, word: str) -> bytes:
    with suppress(AddressValueError):
        if len(word) <= 45 and "%" not in word:
            return IPv6Address(word).packed if ":" in word else IPv4Address(word).packed
    raise ValueError(f"{name} must be an address, not {_shown(word)}")


def _skip_line(stream: io.BufferedIOBase) -> bool:
    """Skip to the next line. Return False if the current line seems endless."""
    for _ in range(ENDLESS_LINE // LONGEST_LINE):
        line = stream.readline(LONGEST_LINE)
        if not line or line.endswith(b"\n"):
            return True
    return False
