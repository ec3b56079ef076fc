"""Real frames of many link types: the outermost addresses the engine reads are those tshark and tcpdump read."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from test_capture_corpus import MANIFEST, ROOT, rows
from test_capture_writers import Packet, drain, enhanced, interface, section
from test_link_types import by_engine

from sgfast.capture import open_capture
from sgfast.errors import CaptureError

pytestmark = [
    pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)"),
    pytest.mark.skipif(not shutil.which("tshark"), reason="no tshark here"),
]

# Most of the corpus is Ethernet: some of it will do. tshark does not know the last four, tcpdump does.
ETHERNET = 1
ETHERNET_AT_MOST = 30_000
SWITCH_TAGS = (281, 282, 284, 285)

Ends = tuple[str, str]


def all_packets() -> list[Packet]:
    """Of every file that can be read, as far as it can; files of odd link types first and whole."""
    found: list[Packet] = []
    ethernet: list[Packet] = []
    for row in rows():
        path = ROOT / row["file"]
        if path.stat().st_size > 1_000_000:
            continue
        try:
            with open_capture(path) as reader:
                packets = drain(reader)
        except CaptureError:
            continue
        for packet in packets:
            (ethernet if packet.link_type == ETHERNET else found).append(packet)
    step = max(1, len(ethernet) // ETHERNET_AT_MOST)
    return found + ethernet[::step]


def ends_by_engine(packets: list[Packet]) -> list[Ends | None]:
    ends: list[Ends | None] = [None] * len(packets)
    for link_type in {packet.link_type for packet in packets}:
        numbers = [n for n, packet in enumerate(packets) if packet.link_type == link_type]
        read = by_engine([packets[n].data for n in numbers], link_type, [packets[n].wire for n in numbers])
        for n, (_, _, src, dst, *_) in zip(numbers, read, strict=True):
            ends[n] = (src, dst) if src else None
    return ends


def ends_by_tshark(packets: list[Packet], folder: Path) -> list[tuple[Ends | None, str]]:
    """The outermost addresses, and the protocols tshark saw."""
    link_types = sorted({packet.link_type for packet in packets})
    path = folder / "all.pcapng"
    with path.open("wb") as file:
        file.write(section() + b"".join(interface(link_type=link_type) for link_type in link_types))
        for packet in packets:
            file.write(enhanced(packet.data, wire=packet.wire, number=link_types.index(packet.link_type)))
    fields = ["frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst"]
    run = subprocess.run(
        ["tshark", "-r", path, "-n", "-o", "ip.defragment:FALSE", "-T", "fields", "-E", "occurrence=f",
         *[word for field in fields for word in ("-e", field)]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said: list[tuple[Ends | None, str]] = []
    for line in run.stdout.splitlines():
        protocols, src4, dst4, src6, dst6 = line.split("\t")
        layers = protocols.split(":")
        first = next((layer for layer in layers if layer in ("ip", "ipv6")), None)
        src, dst = (src4, dst4) if first == "ip" else (src6, dst6)
        said.append(((src, dst) if first and src and dst else None, protocols))
    assert len(said) == len(packets)
    return said


def explained(packet: Packet, ours: Ends | None, theirs: Ends | None, protocols: str) -> str | None:
    """Why the two differ, if they may."""
    return None


def test_addresses_are_those_tshark_reads(tmp_path: Path) -> None:
    packets = [packet for packet in all_packets() if packet.link_type not in SWITCH_TAGS and packet.link_type != 182]
    ours = ends_by_engine(packets)
    equal: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    wrong = []
    for packet, mine, (theirs, protocols) in zip(packets, ours, ends_by_tshark(packets, tmp_path), strict=True):
        if mine == theirs:
            equal[packet.link_type] += mine is not None
            continue
        reason = explained(packet, mine, theirs, protocols)
        if reason is None:
            wrong.append((packet.link_type, mine, theirs, protocols, packet.data[:80].hex()))
        else:
            reasons[reason] += 1
    print(dict(equal), dict(reasons))
    assert wrong == []


_PRINTED = re.compile(r"IP6? ([0-9a-f.:]+?)(?:\.\d+)? > ([0-9a-f.:]+?)(?:\.\d+)?:")


def ends_by_tcpdump(path: Path) -> list[Ends | None]:
    run = subprocess.run(["tcpdump", "-nn", "-t", "-r", path], capture_output=True, text=True, check=True)
    ends: list[Ends | None] = []
    for line in run.stdout.splitlines():
        if line.startswith(("\t", " ")):
            continue
        found = _PRINTED.search(line)
        ends.append((address(found[1]), address(found[2])) if found else None)
    return ends


def address(printed: str) -> str:
    """IPv4 ports look like a fifth number."""
    if ":" not in printed:
        printed = ".".join(printed.split(".")[:4])
    return str(ipaddress.ip_address(printed))


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump here")
def test_addresses_behind_switch_tags_are_those_tcpdump_reads() -> None:
    compared = 0
    for name in ("brcm-tag", "brcm-tag-prepend", "dsa", "dsa-high-vid", "edsa", "edsa-high-vid"):
        path = ROOT / "pcaps" / "tcpdump" / f"{name}.pcap"
        with open_capture(path) as reader:
            packets = drain(reader)
        assert {packet.link_type for packet in packets} <= set(SWITCH_TAGS)
        ours, theirs = ends_by_engine(packets), ends_by_tcpdump(path)
        assert ours == theirs, name
        compared += len(packets) - ours.count(None)
    assert compared > 10
