"""Records of flow logs as objects, for ``checking``. ``formats`` reads the logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from sgfast.flow_logs.formats.columns import (
    ACTION_ACCEPTED,
    DIRECTION_EGRESS,
    DIRECTION_INGRESS,
    NS_PER_SECOND,
    UNKNOWN,
)
from sgfast.flow_logs.formats.detection import open_log
from sgfast.flow_logs.formats.log import Log
from sgfast.flow_logs.formats.tokenizer import WordNumbers

#: The fields without which a record cannot be checked.
NEEDED_FIELDS = ("srcaddr", "dstaddr", "srcport", "dstport", "protocol", "start", "end", "action")

_DIRECTIONS: dict[int, Literal["ingress", "egress"]] = {DIRECTION_INGRESS: "ingress", DIRECTION_EGRESS: "egress"}


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
    """A log that can be read once. Iteration yields its records. Compression is detected; ``-`` is standard input.

    Iterating raises FlowLogError if the file cannot be read, is not a flow log, or does not say what a check needs.
    Other problems are in ``broken_lines``, ``complaints`` and ``damage`` afterwards.
    """

    def __init__(self, path: str) -> None:
        self._log: Log = open_log(path, needs=NEEDED_FIELDS)
        self.name = self._log.name

    @property
    def nodata(self) -> int:
        """Number of records without traffic."""
        return self._log.nodata

    @property
    def skipdata(self) -> int:
        """Number of records that the cloud lost."""
        return self._log.skipdata

    @property
    def broken_lines(self) -> int:
        return self._log.broken_lines

    @property
    def complaints(self) -> list[str]:
        """Messages about the first broken lines: file, line and cause."""
        return self._log.complaints

    @property
    def damage(self) -> str | None:
        """Place and cause if reading ended early."""
        return self._log.damage

    def __iter__(self) -> Iterator[Record]:
        for rows in self._log:
            yield from _records(rows, self._log.words)


def _records(rows: NDArray[Any], words: WordNumbers) -> Iterator[Record]:
    names = {number: "" if number == UNKNOWN else words[number] for number in set(rows["interface"].tolist())}
    src, dst = rows["src"].tobytes(), rows["dst"].tobytes()
    columns = [rows[name].tolist() for name in (
        "family", "line", "interface", "sport", "dport", "protocol", "packets", "bytes", "start_ns", "end_ns", "action",
        "tcp_flags", "direction",
    )]  # fmt: skip
    for n, (
        family, line, interface, sport, dport, protocol, packets, nbytes, start, end, action, flags, direction,
    ) in enumerate(zip(*columns, strict=True)):  # fmt: skip
        at, length = 16 * n, 4 if family == 4 else 16
        yield Record(
            line, names[interface], src[at : at + length], dst[at : at + length], sport, dport, protocol,
            max(packets, 0), max(nbytes, 0), start // NS_PER_SECOND, end // NS_PER_SECOND, action == ACTION_ACCEPTED,
            None if flags == UNKNOWN else flags, _DIRECTIONS.get(direction),
        )  # fmt: skip
