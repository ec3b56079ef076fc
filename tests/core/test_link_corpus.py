"""Real frames of many link types: the outermost addresses the engine reads are those tshark and tcpdump read."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from captures import Packet, drain, enhanced, interface, section
from corpus import MANIFEST, ROOT, rows
from test_link_types import by_engine

from sgfast.base.errors import CaptureError
from sgfast.traffic.capture import open_capture

pytestmark = [
    pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)"),
    pytest.mark.skipif(not shutil.which("tshark"), reason="no tshark here"),
]

# Most of the corpus is Ethernet: some of it will do.
ETHERNET = 1
ETHERNET_AT_MOST = 30_000
SWITCH_TAGS = {281, 282, 284, 285}
MULTILINK_FRAME_RELAY = 182
UNKNOWN_TO_TSHARK = {*SWITCH_TAGS, MULTILINK_FRAME_RELAY}

Ends = tuple[str, str]


def all_packets() -> list[Packet]:
    """Packets of every file that can be read, as far as it can; files of odd link types first and whole."""
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


def ends_by_tshark(packets: list[Packet], folder: Path) -> list[tuple[Ends | None, list[str]]]:
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
    said: list[tuple[Ends | None, list[str]]] = []
    for line in run.stdout.splitlines():
        protocols, src4, dst4, src6, dst6 = line.split("\t")
        layers = protocols.split(":")
        # Behind MPLS, IP is not among the protocols.
        version = next((layer for layer in layers if layer in ("ip", "ipv6")), "ip" if src4 else "ipv6")
        src, dst = (src4, dst4) if version == "ip" else (src6, dst6)
        said.append(((src, dst) if src and dst else None, layers))
    assert len(said) == len(packets)
    return said


#: Headers that SPEC 3.1 does not name: FabricPath, Cisco metadata, backbone bridges, MACsec, VN-tag, Arista's, NSH.
OTHER_TAGS = {"cfp", "cmd", "ieee8021ah", "macsec", "vntag", "avsp", "nsh"}


def explained(packet: Packet, ours: Ends | None, theirs: Ends | None, layers: list[str]) -> str | None:
    """Why the two differ, if they may."""
    if ours is None and OTHER_TAGS & set(layers):
        return "below another tag"
    if packet.link_type == 0 and ours is None and packet.data[2:4] == b"\x08\x00":
        return "Cisco HDLC that calls itself loopback"
    if packet.link_type == 8 and layers == ["data"]:
        return "tshark knows no SLIP"
    if theirs is None and layers[-1] == "mpls":
        return "tshark guesses what stands below a label, and did not guess IP"
    if theirs is None and layers[-1] == "ip":
        return "tshark shows no addresses of a header with too few words"
    if ours and theirs and ours[0] == theirs[0] and "." in ours[0]:
        return "tshark shows where a source route ends"
    return None


#: Packets with addresses that there must be to compare, by link type.
LEAST = {
    0: 900, 1: 20_000, 9: 150, 10: 11, 101: 400, 104: 10, 105: 3, 107: 150, 113: 1000, 127: 25, 129: 60, 178: 1, 192: 9,
    226: 20, 228: 200, 229: 30, 239: 25, 242: 25, 258: 1, 276: 10,
}  # fmt: skip


def test_addresses_are_those_tshark_reads(tmp_path: Path) -> None:
    packets = [packet for packet in all_packets() if packet.link_type not in UNKNOWN_TO_TSHARK]
    equal: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    wrong = []
    both = zip(packets, ends_by_engine(packets), ends_by_tshark(packets, tmp_path), strict=True)
    for packet, ours, (theirs, layers) in both:
        if ours == theirs:
            equal[packet.link_type] += ours is not None
            continue
        reason = explained(packet, ours, theirs, layers)
        if reason is None:
            wrong.append((packet.link_type, ours, theirs, layers, packet.data[:80].hex()))
        else:
            reasons[reason] += 1
    assert wrong == []
    assert sum(reasons.values()) <= 100, reasons
    assert {link_type: equal[link_type] for link_type, least in LEAST.items() if equal[link_type] < least} == {}


_PRINTED = re.compile(r"IP6? ([0-9a-f.:]+) > ([0-9a-f.:]+):")


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
    """As tcpdump prints it: a port may follow behind a dot."""
    return str(ipaddress.ip_address(printed.split(".")[0] if ":" in printed else ".".join(printed.split(".")[:4])))


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump here")
def test_addresses_behind_switch_tags_are_those_tcpdump_reads() -> None:
    compared = 0
    for name in ("brcm-tag", "brcm-tag-prepend", "dsa", "dsa-high-vid", "edsa", "edsa-high-vid"):
        path = ROOT / "pcaps" / "tcpdump" / f"{name}.pcap"
        with open_capture(path) as reader:
            packets = drain(reader)
        assert {packet.link_type for packet in packets} <= SWITCH_TAGS
        ours, theirs = ends_by_engine(packets), ends_by_tcpdump(path)
        assert ours == theirs, name
        compared += len(packets) - ours.count(None)
    assert compared > 10
