"""Lines, tables and numbers as people read them: what reports have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from sgfast.policy.model import ICMP, ICMPV6
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import Service

NARROWEST, WIDEST = 80, 120

ICMP_NAMES = {
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


def grouped(number: int) -> str:
    return f"{number:,}"


def human_bytes(number: float) -> str:
    """With a decimal unit, three digits or so."""
    if number < 1000:
        return f"{number:.0f} B"
    units = ["kB", "MB", "GB", "TB", "PB", "EB"]
    number /= 1000
    while number >= 999.95 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.1f} {units[0]}"


def human_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02}:{rest:02} h"


def instant(time_ns: int) -> str:
    """To the microsecond, UTC."""
    return (datetime(1970, 1, 1) + timedelta(microseconds=time_ns // 1000)).isoformat(" ", "microseconds")


def plural(number: int, one: str, many: str = "") -> str:
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def service_name(service: Service) -> str:
    """``tcp/8080``, ``icmp echo-request``, ``icmp unreachable/3``, ``gre``, ``protocol 200``."""
    name = protocol_name(service.protocol) or f"protocol {service.protocol}"
    if service.port is not None:
        return f"{name}/{service.port}"
    if service.icmp_type is None:
        return name
    kind = ICMP_NAMES.get(service.protocol, {}).get(service.icmp_type, f"type {service.icmp_type}")
    return f"{name} {kind}" + (f"/{service.icmp_code}" if service.icmp_code else "")


_COLOURS = {"bold": "1", "red": "31", "yellow": "33"}


class Page:
    def __init__(self, width: int, colour: bool) -> None:
        self.width = min(max(width, NARROWEST), WIDEST)
        self._colour = colour
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def line(self, text: str = "", style: str = "") -> None:
        text = text.rstrip()
        self._lines.append(f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if style and self._colour and text else text)

    def heading(self, text: str) -> None:
        for line in _wrap(text, self.width):
            self.line(line, "bold")

    def wrapped(self, text: str, indent: str = "") -> None:
        self.hanging(indent, text)

    def hanging(self, start: str, text: str, style: str = "") -> None:
        """``start``, then ``text`` in as many lines as it takes, the later ones below the first."""
        pieces = _wrap(text, self.width - len(start)) or [""]
        for n, piece in enumerate(pieces):
            self.line((start if n == 0 else " " * len(start)) + piece, style)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The first column to the right, the others to the left. Where a row is too long its last cell goes below."""
        widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head) - 1)]
        # A few long names do not push everyone else's columns out.
        widths = [min(width, len(name) + 12) for width, name in zip(widths, head, strict=False)]
        self.line("  " + "  ".join(_cells(head, widths)))
        for row in rows:
            cells = list(_cells(row, widths))
            text = "  " + "  ".join(cells)
            if len(text) <= self.width:
                self.line(text)
            else:
                self.line("  " + "  ".join(cells[:-1]))
                self.hanging(" " * (4 + widths[0]), cells[-1])


def _cells(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for n, cell in enumerate(row):
        if n == 0:
            yield f"{cell:>{widths[0]}}"
        elif n < len(widths):
            yield f"{cell:{widths[n]}}"
        else:
            yield cell


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)
