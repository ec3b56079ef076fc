"""``--verdicts``: one JSON object per packet, in order (SPEC 10.3)."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from operator import itemgetter
from typing import Any

from numpy.typing import NDArray

from sgfast.engine import HEADER_DTYPE, NO_SIDE, REASONS, RESULT_DTYPE, VERDICTS
from sgfast.replaying import Names
from sgfast.report.fragments import PROTOCOLS, Fragments, address_bytes, address_json, row_bytes, time_texts, unpacker

#: What of a header a line does not show; packets that differ in nothing else share a fragment.
_NOT_SHOWN = ("time_ns", "wire", "tcp_flags", "icmp_id")

_unpack_header = unpacker(HEADER_DTYPE).unpack
_unpack_result = unpacker(RESULT_DTYPE).unpack
_header_fields = itemgetter(
    *(
        (HEADER_DTYPE.names or ()).index(name)
        for name in (
            "family", "src", "dst", "protocol", "has_ports", "sport", "dport", "has_icmp", "icmp_type", "icmp_code"
        )
    )
)  # fmt: skip


class VerdictLines:
    """A ``PacketSink`` that writes lines. A line is three pieces: number and time, what the packet's headers say, what
    became of it; the latter two repeat from packet to packet.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._packets = 0
        self._names = Names((), (), 0)
        self._addresses: Fragments[bytes] = Fragments(address_json)
        self._headers = Fragments(self._header)
        self._results = Fragments(self._result)
        self._sides: Fragments[tuple[int, int, int, int, int]] = Fragments(self._side)

    def begin(self, names: Names) -> None:
        self._names = names
        self._packets = names.packets
        self._results.clear()
        self._sides.clear()

    def write(self, headers: NDArray[Any], results: NDArray[Any]) -> None:
        for cache in (self._addresses, self._headers, self._results, self._sides):
            cache.shrink()
        shown = headers.copy()
        for field in _NOT_SHOWN:
            shown[field] = 0
        of_headers, of_results = self._headers, self._results
        lines = [
            f'{{"packet": {number}, "time": "{time}", {of_headers[header]}{of_results[result]}'
            for number, (time, header, result) in enumerate(
                zip(time_texts(headers["time_ns"]), row_bytes(shown), row_bytes(results), strict=True),
                self._packets + 1,
            )
        ]
        self._packets += len(lines)
        self._write("".join(lines).encode("ascii"))

    def _header(self, row: bytes) -> str:
        family, src, dst, number, has_ports, sport, dport, has_icmp, icmp_type, icmp_code = _header_fields(
            _unpack_header(row)
        )
        source = destination = protocol = "null"
        if family:
            source = self._addresses[address_bytes(src, family)]
            destination = self._addresses[address_bytes(dst, family)]
            protocol = PROTOCOLS[number]
        if not has_ports:
            sport = dport = "null"
        if not has_icmp:
            icmp_type = icmp_code = "null"
        return (
            f'"src": {source}, "dst": {destination}, "protocol": {protocol}, "sport": {sport}, "dport": {dport}, '
            f'"icmp_type": {icmp_type}, "icmp_code": {icmp_code}, '
        )

    def _result(self, row: bytes) -> str:
        verdict, reason, _, *sides = _unpack_result(row)
        return (
            f'"verdict": "{VERDICTS[verdict]}", "reason": {dumps(REASONS[reason])}, '
            f'"egress": {self._sides[*sides[:5]]}, "ingress": {self._sides[*sides[5:]]}}}\n'
        )

    def _side(self, row: tuple[int, int, int, int, int]) -> str:
        instance, rule, verdict, reason, _ = row
        if verdict == NO_SIDE:
            return "null"
        return dumps(
            {
                "instance": self._names.instances[instance],
                "verdict": VERDICTS[verdict],
                "reason": REASONS[reason],
                "rule": self._names.rules[rule] if rule >= 0 else None,
            }
        )
