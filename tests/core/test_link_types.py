"""IP below every link header (SPEC 3.1, 3.9): what the engine reads is what the reference model reads, and what was
built.

Frames are built by ``links``; cut, mutated and random ones go to both readers. Headers inside IP come after that.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import frames as f
import links
import numpy as np
import pytest
from captures import SUPPORTED, WITHOUT_IP, enhanced, interface, section
from links import LINKS, LINKS_OF_ONE_VERSION
from mutation import mutated

from sgfast import replay
from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.core.wire.link import LINK_TYPE_NAMES, LINK_TYPES, LINK_TYPES_WITHOUT_IP, MIN_HEADER_LENGTHS
from sgfast.engine import REASONS, VERDICTS, Engine
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.link import LINKS as REFERENCE_LINKS
from sgfast.reference.verdicts import PacketVerdict

POLICY = parse_policy("""
version: 1
security_groups:
  - name: all
    rules: [{direction: inbound, protocol: all}, {direction: inbound, ethertype: IPv6, protocol: all}]
instances:
  - {name: web, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [all]}
""")
ENDS = {4: ("192.0.2.9", "10.0.0.5"), 6: ("2001:db8:ff::9", "2001:db8::5")}
SYN = {version: f.ip(*ends, f.tcp(40000, 80, "S")) for version, ends in ENDS.items()}
#: In front of IP, the outermost included (link.pyx says why so many).
MOST_HEADERS = 40

WAYS = [
    *(
        pytest.param(link_type, wrap, version, id=f"{name}, IPv{version}")
        for name, (link_type, wrap) in LINKS.items() for version in (4, 6)
    ),
    *(
        pytest.param(link_type, wrap, version, id=name)
        for name, (link_type, wrap, version) in LINKS_OF_ONE_VERSION.items()
    ),
]  # fmt: skip

Read = tuple[Any, ...]


def by_engine(frames: list[bytes], link_type: int, wires: list[int] | None = None) -> list[Read]:
    """Verdict, reason, addresses, protocol, ports, ICMP type and code of each, all at one time."""
    batch = FrameBatch.from_frames(frames, [0] * len(frames), wires, link_type)
    results, headers = np.zeros(len(frames), RESULT_DTYPE), np.zeros(len(frames), HEADER_DTYPE)
    Engine(POLICY).dataplane.process_frames(batch, results, headers)
    read: list[Read] = []
    for result, header in zip(results, headers, strict=True):
        size = {0: 0, 4: 4, 6: 16}[int(header["family"])]
        ends = [str(ip_address(bytes(header[name][:size]))) if size else None for name in ("src", "dst")]
        ports = [int(header[name]) if header["has_ports"] else None for name in ("sport", "dport")]
        kinds = [int(header[name]) if header["has_icmp"] else None for name in ("icmp_type", "icmp_code")]
        protocol = int(header["protocol"]) if size else None
        read.append((VERDICTS[result["verdict"]], REASONS[result["reason"]], *ends, protocol, *ports, *kinds))
    return read


def by_reference(frames: list[bytes], link_type: int, wires: list[int] | None = None) -> list[Read]:
    reference = ReferenceEngine(POLICY)
    said: list[PacketVerdict] = [
        reference.process_frame(0, frame, wire_length=wire, link_type=link_type)
        for frame, wire in zip(frames, wires or [len(frame) for frame in frames], strict=True)
    ]
    return [
        (v.verdict, v.reason, v.src, v.dst, v.protocol, v.sport, v.dport, v.icmp_type, v.icmp_code) for v in said
    ]  # fmt: skip


def both(frames: list[bytes], link_type: int, wires: list[int] | None = None) -> list[Read]:
    engine, reference = by_engine(frames, link_type, wires), by_reference(frames, link_type, wires)
    for n, frame in enumerate(frames):
        assert engine[n] == reference[n], (link_type, n, frame.hex(), wires and wires[n])
    return engine


def found(frame: bytes, link_type: int) -> str:
    """The verdict on a SYN in a frame, or why there is none."""
    verdict, reason, src, dst, *_ = both([frame], link_type)[0]
    if src is None:
        assert dst is None
        return str(reason or verdict)
    assert (src, dst) in ENDS.values()
    return f"{verdict} {reason}"


# --- What is in a frame


@pytest.mark.parametrize("link_type, wrap, version", WAYS)
def test_ip_is_found_below_every_link_header(link_type: int, wrap: links.Wrap, version: int) -> None:
    read = both([wrap(SYN[version])], link_type)
    assert read == [("allow", "rule", *ENDS[version], 6, 40000, 80, None, None)]


@pytest.mark.parametrize("link_type, wrap, version", WAYS)
def test_a_link_header_cut_at_any_byte_is_malformed(link_type: int, wrap: links.Wrap, version: int) -> None:
    frame = wrap(SYN[version])
    header = frame.index(SYN[version])
    read = both([frame[:length] for length in range(len(frame))], link_type)
    assert {line[:2] for line in read[: header + (20 if version == 4 else 40)]} <= {
        ("deny", "malformed"),
        ("not-ip", None),  # a shorter header than the whole frame's: NFLOG's attributes, say
    }
    assert read[0][:2] == ("deny", "malformed")


@pytest.mark.parametrize("link_type", LINK_TYPES)
def test_a_header_of_less_bytes_than_its_reader_takes_for_granted_is_malformed(link_type: int) -> None:
    least = MIN_HEADER_LENGTHS[link_type]
    draw = random.Random(link_type)
    fills = [bytes(64), b"\xff" * 64, *(draw.randbytes(64) for _ in range(30))]
    fills += [wrap(SYN[4]) for number, wrap in LINKS.values() if number == link_type]
    read = both([fill[:length] for fill in fills for length in range(least)], link_type)
    assert {line[:2] for line in read} <= {("deny", "malformed")}
    # Nor does it take more for granted than the reference needs.
    both([fill[:length] for fill in fills for length in range(least, 64)], link_type)


NOT_IP: dict[str, tuple[bytes, int]] = {
    "Ethernet, 802.3, spanning tree": (links.ieee8023(b"\x42\x42\x03" + bytes(35)), 1),
    "Ethernet, 802.3, IPX without LLC": (links.ieee8023(b"\xff\xff\x00\x22" + bytes(30)), 1),
    "Ethernet, 802.3, an XID frame": (links.ieee8023(b"\xaa\xaa\xbf" + links.snap(SYN[4])[3:]), 1),
    "Ethernet, 802.3, two SAPs": (links.ieee8023(b"\xaa\x06\x03" + SYN[4]), 1),
    "Ethernet, 802.3, CDP": (links.ieee8023(b"\xaa\xaa\x03\x00\x00\x0c\x08\x00" + SYN[4]), 1),
    "Ethernet, between lengths and ethertypes": (f.ethernet(links.snap(SYN[4]), 1501), 1),
    "Ethernet, ISL, token ring": (links.isl(f.ethernet(SYN[4]), kind=1), 1),
    "Ethernet, no ISL: an ethertype": (b"\x01\x00\x0c\x00\x00\x00" + f.ethernet(bytes(60), 0x0806)[6:], 1),
    "loopback, another family": (f.null(SYN[4], 7), 0),
    "OpenBSD loopback, little-endian": (f.null(SYN[4], 2), 108),
    "cooked, Novell": (f.sll(SYN[4], 1), 113),
    "cooked, netlink": (links.cooked_hardware(links.snap(SYN[4]), 824, 4), 113),
    "cooked, version 2, CAN": (f.sll2(SYN[4], 12), 276),
    "PPP, LCP": (b"\xff\x03\xc0\x21" + bytes(10), 9),
    "PPP, compressed headers": (b"\x00\x2d" + SYN[4], 9),
    "Cisco HDLC, SLARP": (b"\x8f\0\x80\x35" + bytes(18), 104),
    "frame relay, LMI": (b"\x00\x01\x03\x08" + SYN[4], 107),
    "frame relay, an address without end": (b"\x04\x10\x00\x00\x03\xcc" + SYN[4], 107),
    "frame relay, multilink, control": (b"\xe0\x01" + links.frame_relay(b"\x03" + links.nlpid(SYN[4])), 182),
    "frame relay, multilink, second fragment": (b"\x40\x02" + SYN[4], 182),
    "ATM, Sun, signalling": (b"\x06\0\0\5" + links.snap(SYN[4]), 123),
    "ATM, Sun, LAN emulation control": (b"\x01\0\0\x20\xff\x00" + f.ethernet(SYN[4]), 123),
    "802.11, beacon": (links.ieee80211(links.snap(SYN[4]), kind=0x80), 105),
    "802.11, control": (b"\xd4\0" + bytes(8), 105),
    "802.11, no data": (links.ieee80211(links.snap(SYN[4]), kind=0x48), 105),
    "802.11, QoS, no data": (links.ieee80211(links.snap(SYN[4]), kind=0xC8), 105),
    "802.11, encrypted": (links.ieee80211(links.snap(SYN[4]), flags=0x42), 105),
    "802.11, later fragment": (links.ieee80211(links.snap(SYN[4]), fragment=1), 105),
    "802.11, another version": (links.ieee80211(links.snap(SYN[4]), kind=0x09), 105),
    "radiotap, encrypted": (links.radiotap(links.ieee80211(links.snap(SYN[4]), flags=0x41), flags=0), 127),
    "radiotap, padded, but not said so": (
        links.radiotap(links.ieee80211(links.snap(SYN[4]), quality=0, padded=True), flags=0), 127,
    ),
    "PPI, USB": (links.ppi(SYN[4], 189), 192),
    "PPI, a number too large": (links.ppi(f.ethernet(SYN[4]), 0x10001), 192),
    "PKTAP, no packet": (links.pktap(f.ethernet(SYN[4]), 1, record=0), 258),
    "token ring, MAC frame": (b"\x10\x00" + bytes(12) + links.snap(SYN[4]), 6),
    "FDDI, SMT": (b"\x41" + bytes(12) + links.snap(SYN[4]), 10),
    "ARCNET, ARP": (b"\1\2\xd5\0\0\1" + SYN[4], 7),
    "ARCNET, second fragment": (b"\1\2\xd4\2\0\1" + SYN[4], 7),
    "nflog, ARP": (links.nflog(SYN[4], family=3), 239),
    "nflog, no payload": (bytes(4) + b"\x08\0\x01\0" + bytes(4), 239),
    "pflog, another family": (b"\x3d\x07" + bytes(62) + SYN[4], 117),
    "ipnet, another family": (b"\x01\x03" + bytes(22) + SYN[4], 226),
    "ERF, ATM": (links.erf(SYN[4], 3), 197),
    "DOCSIS, management": (b"\xc2" + links.docsis(f.ethernet(SYN[4]))[1:], 143),
    "DOCSIS, encrypted": (links.docsis(f.ethernet(SYN[4]), b"\x24\x10\x80\x01\x00"), 143),
    "Juniper, no Ethernet, no IP": (links.juniper(2, bytes(44)), 178),
    "MPLS, pseudowire": (f.mpls(bytes(40)), 219),
    "DSA tag, ARP": (bytes(16) + b"\x08\x06" + bytes(28), 284),
}  # fmt: skip
MALFORMED: dict[str, tuple[bytes, int]] = {
    "SLIP, neither version": (bytes(16) + b"\x70" + SYN[4][1:], 8),
    "token ring, an impossible route": (links.token_ring(links.snap(SYN[4]), b"\x01\x00"), 6),
    "token ring, a route beyond the frame": (links.token_ring(b"\x1f\x00\xaa\xaa\x03", b"\x1f\x00"), 6),
    "radiotap, shorter than its own head": (b"\0\0\x07\0" + bytes(4) + links.ieee80211(links.snap(SYN[4])), 127),
    "radiotap, longer than the frame": (b"\0\0\xff\xff" + bytes(60), 127),
    "radiotap, fields without end": (b"\0\0\x10\0" + b"\xff" * 12 + links.ieee80211(links.snap(SYN[4])), 127),
    "radiotap, flags beyond its end": (b"\0\0\x08\0\x02\0\0\0" + links.ieee80211(links.snap(SYN[4])), 127),
    "AVS, shorter than its own head": (b"\x80\x21\x10\x01\0\0\0\x07" + bytes(60), 163),
    "AVS, of 4 GiB": (b"\x80\x21\x10\x01\xff\xff\xff\xff" + bytes(60), 163),
    "PPI, shorter than its own head": (b"\0\0\x04\0\x01\0\0\0" + f.ethernet(SYN[4]), 192),
    "PPI, longer than the frame": (b"\0\0\xff\xff\x01\0\0\0" + f.ethernet(SYN[4]), 192),
    "PKTAP, of 4 GiB": (b"\xff\xff\xff\xff\1\0\0\0\1\0\0\0" + f.ethernet(SYN[4]), 258),
    "PKTAP, shorter than its own head": (b"\x0b\0\0\0\1\0\0\0\1\0\0\0" + f.ethernet(SYN[4]), 258),
    "ERF, headers without end": (links.erf(b"\x80" * 64, 2, 1)[:16] + b"\x80" * 64, 197),
    "nflog, an attribute of no length": (b"\2\0\0\0\0\0\x01\0" + SYN[4], 239),
    "nflog, an attribute beyond the frame": (b"\2\0\0\0\xff\x7f\x01\0" + SYN[4], 239),
    "pflog, no length": (b"\0\2" + bytes(62) + SYN[4], 117),
    "DOCSIS, a header beyond the frame": (b"\1\xff\0\0" + b"\x30" * 60, 143),
    "Juniper, no magic": (b"MGD\1" + f.ethernet(SYN[4]), 178),
    "Juniper, an extension beyond the frame": (b"MGC\x81\xff\xff" + f.ethernet(SYN[4]), 178),
    "PPI in PPI in PPI": (links.ppi(b"", 192) * MOST_HEADERS + f.ethernet(SYN[4]), 192),
    "Ethernet, wrong version behind LLC": (links.ieee8023(b"\x06\x06\x03" + SYN[6]), 1),
    "frame relay, wrong version": (b"\x04\x11\x03\x8e" + SYN[4], 107),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_IP)
def test_frames_without_readable_ip_are_not_filtered(name: str) -> None:
    assert found(*NOT_IP[name]) == "not-ip"


@pytest.mark.parametrize("name", MALFORMED)
def test_link_headers_that_cannot_be_true_are_malformed(name: str) -> None:
    assert found(*MALFORMED[name]) == "malformed"


def test_an_aggregate_is_judged_by_its_first_packet() -> None:
    second = f.ip("198.51.100.1", "198.51.100.2", f.udp(1, 2))
    frame = links.ieee80211(links.aggregate(links.snap(SYN[4]), links.snap(second)), quality=0x80)
    assert found(frame, 105) == "allow rule"


# --- How many tags


def nested(tags: int, innermost: f.Layer) -> bytes:
    for n in range(tags):
        innermost = f.vlan(innermost, tpid=(0x8100, 0x88A8, 0x9100, 0x9200)[n % 4])
    return f.ethernet(innermost)


@pytest.mark.parametrize("below", [2, 1, 0, -1, -2])
@pytest.mark.parametrize("kind", ["VLAN", "MPLS", "bridge"])
def test_more_tags_than_anyone_needs_are_malformed(kind: str, below: int) -> None:
    """Not let through: whoever wraps packets often enough would get past the filter."""
    tags = MOST_HEADERS - 1 - below     # Ethernet's own header counts
    frame, link_type = {
        "VLAN": (nested(tags, SYN[4]), 1),
        "MPLS": (f.ethernet(f.mpls(SYN[4], tags)), 1),
        "bridge": (links.ppi(b"", 192) * (tags - 1) + links.ppi(f.ethernet(SYN[4]), 1), 192),
    }[kind]  # fmt: skip
    assert found(frame, link_type) == ("malformed" if below < 0 else "allow rule")


def test_tags_to_the_end_of_a_long_frame_are_given_up_early() -> None:
    for ethertype, tag in ((0x8100, b"\0\5\x81\0"), (0x8847, bytes(4))):
        frame = f.ethernet(tag * 250_000, ethertype)
        assert by_engine([frame] * 200, 1) == [("deny", "malformed", *[None] * 7)] * 200


# --- Everything else that can be in a frame


@pytest.mark.parametrize("link_type", sorted({*LINK_TYPES, 2, 147, 189, 65535}))
def test_mutated_and_random_frames_are_read_alike(link_type: int) -> None:
    seed = 3000 + link_type
    print(f"seed {seed}")
    draw = random.Random(seed)
    payloads = [
        *SYN.values(),
        f.ip(*ENDS[6], f.udp(1, 2, b"abc"), extensions=[f.extension(0), f.extension(43, 24)]),
        f.ip(*ENDS[4], f.icmp(8), options=bytes(8)),
    ]
    ways = [wrap for number, wrap in LINKS.values() if number == link_type]
    ways += [wrap for number, wrap, _ in LINKS_OF_ONE_VERSION.values() if number == link_type]
    every = [wrap for _, wrap in LINKS.values()]
    frames = [mutated(draw, draw.choice(ways or every)(draw.choice(payloads))) for _ in range(800)]
    # Another link type's frame, or nothing at all.
    frames += [mutated(draw, draw.choice(every)(draw.choice(payloads))) for _ in range(100)]
    frames += [draw.randbytes(draw.randrange(90)) for _ in range(100)]
    wires = [draw.choice((len(frame), len(frame) + 9)) for frame in frames]
    seen = Counter(line[0] for line in both(frames, link_type, wires))
    if link_type in LINK_TYPES:
        assert seen["allow"] >= 50, seen
        assert seen["deny"] >= 50, seen
    else:
        assert set(seen) == {"not-ip"}


def test_frames_in_exactly_as_much_memory_as_they_have() -> None:
    """Every cut of every frame, each in memory of its own: for builds that watch what is read."""
    dataplane = Engine(POLICY).dataplane
    for link_type, wrap in LINKS.values():
        frame = wrap(SYN[6])
        for length in range(len(frame)):
            dataplane.process_frames(FrameBatch.from_frames([bytes(bytearray(frame[:length]))], [0], None, link_type))


# --- Which link types there are


def test_all_parts_agree_on_the_link_types() -> None:
    assert set(LINK_TYPES) == set(REFERENCE_LINKS)
    assert set(LINK_TYPES) == {number for number, *_ in [*LINKS.values(), *LINKS_OF_ONE_VERSION.values()]}
    assert set(LINK_TYPES_WITHOUT_IP) == WITHOUT_IP
    assert {*SUPPORTED, *WITHOUT_IP} <= set(LINK_TYPE_NAMES)


def test_the_documentation_lists_the_link_types_that_are_read() -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/captures.md").read_text()
    section = text.split("\n## Link types\n")[1].split("\n#")[0]
    table = "".join(line for line in section.splitlines() if line.startswith("|"))
    assert {int(number) for number in re.findall(r"\((\d+)\)", table)} == SUPPORTED


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_packets_of_interfaces_without_ip_are_not_ip(engine: Literal["fast", "reference"], tmp_path: Path) -> None:
    path = tmp_path / "mixed.pcapng"
    usb, can, radio = (interface(link_type=number) for number in (189, 227, 127))
    frame = LINKS["radiotap"][1](SYN[4])
    packets = enhanced(b"\x45" * 60) + enhanced(b"\x60" * 60, number=1) + enhanced(frame, number=2)
    path.write_bytes(section() + usb + can + radio + packets)
    result = replay(POLICY, [path], engine=engine)
    assert {verdict: n for verdict, n in result.verdicts.items() if n} == {"allow": 1, "not-ip": 2}


# --- Inside IP (SPEC 3.4)


def six(payload: bytes, **options: Any) -> bytes:
    return f.ipv6(*ENDS[6], payload, **options)


def four(payload: bytes, **options: Any) -> bytes:
    return f.ipv4(*ENDS[4], payload, **options)


#: Beside those of ``engine/test_frames_judged.py``: IP packet, verdict, protocol, destination port.
INSIDE: dict[str, tuple[bytes, str, int, int | None]] = {
    "every extension header": (
        six(f.udp(1, 2), extensions=[f.extension(number) for number in (0, 60, 43, 135, 139, 140, 60)]),
        "allow rule", 17, 2,
    ),
    "extension headers as many as a payload holds": (
        six(f.udp(1, 2), extensions=[f.extension(60)] * 8190), "allow rule", 17, 2,
    ),
    "AH is not walked over": (six(b"\x06\4" + bytes(22) + f.tcp(1, 2, "S"), protocol=51), "allow rule", 51, None),
    "ESP is not walked over": (six(f.tcp(1, 2, "S"), protocol=50), "allow rule", 50, None),
    "AH behind options": (
        six(bytes(24), protocol=51, extensions=[f.extension(60)]), "allow rule", 51, None,
    ),
    "no next header": (six(b"", protocol=59), "allow rule", 59, None),
    "IPv4, experimental protocol": (four(bytes(4), protocol=253), "allow rule", 253, None),
    "IPv4 options, cut header": (four(f.tcp(1, 2, "S"), header_words=15)[:44], "deny malformed", 6, None),
    "IPv4, AH": (four(b"\x06\4" + bytes(22) + f.tcp(1, 2, "S"), protocol=51), "allow rule", 51, None),
    "IPv4, ESP": (four(bytes(30), protocol=50), "allow rule", 50, None),
    "TCP options": (four(f.tcp(1, 2, "S", data_offset=15)), "allow rule", 6, 2),
    "UDP-Lite": (four(f.udplite(1, 2)), "allow rule", 136, 2),
    "UDP-Lite, cut": (four(f.udplite(1, 2)[:7], protocol=136), "deny malformed", 136, 2),
    "SCTP": (six(f.sctp(1, 2)), "allow rule", 132, 2),
    "SCTP, cut": (six(f.sctp(1, 2)[:11], protocol=132), "deny malformed", 132, 2),
    "DCCP": (six(f.dccp(1, 2)), "allow rule", 33, 2),
    "DCCP, cut": (six(f.dccp(1, 2)[:11], protocol=33), "deny malformed", 33, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_headers_inside_ip(name: str) -> None:
    """SPEC 3.10."""
    ip, words, protocol, dport = INSIDE[name]
    verdict, reason, src, dst, *rest = both([ip], 101)[0]
    assert (f"{verdict} {reason}", rest[0], rest[2]) == (words, protocol, dport)
    assert (src, dst) in ENDS.values()


MORE = b"\1\6" + bytes(6) + b"\5\2\0\0\0\0"
FITS, LONGEST_UDP = f.tcp(1, 2, "S"), f.udp(1, 2, length=65_535)
#: Payload, extension headers, payload length; in a frame with room for 70,000 bytes below the IPv6 header (RFC 2675).
JUMBOGRAMS: dict[str, tuple[bytes, list[tuple[int, bytes]], int, str]] = {
    "the shortest": (FITS, [f.jumbo(65_536)], 0, "allow rule"),
    "as long as the frame": (FITS, [f.jumbo(70_000)], 0, "allow rule"),
    "longer than the frame": (FITS, [f.jumbo(70_001)], 0, "deny malformed"),
    "the longest": (FITS, [f.jumbo(0xFFFFFFFF)], 0, "deny malformed"),
    "too short to be one": (FITS, [f.jumbo(65_535)], 0, "deny malformed"),
    "of no length": (FITS, [f.jumbo(0)], 0, "deny malformed"),
    "two lengths": (FITS, [f.jumbo(70_000)], 28, "deny malformed"),
    "padding is no payload": (LONGEST_UDP, [f.jumbo(65_542)], 0, "deny malformed"),
    "its payload is": (LONGEST_UDP, [f.jumbo(65_543)], 0, "allow rule"),
    "an option of 3 bytes": (FITS, [f.jumbo(70_000, size=3)], 0, "deny malformed"),
    "an option of 5 bytes": (FITS, [f.jumbo(70_000, size=5)], 0, "deny malformed"),
    "an option cut by its header's end": (FITS, [(0, b"\0\0\1\0\xc2\4\0\1")], 0, "deny malformed"),
    "only an option's type": (FITS, [(0, bytes(7) + b"\xc2")], 0, "deny malformed"),
    "behind other options": (FITS, [f.jumbo(70_000, before=MORE)], 0, "allow rule"),
    "wrong behind other options": (FITS, [f.jumbo(65_535, before=MORE)], 0, "deny malformed"),
    "inside another option": (FITS, [(0, b"\0\0\1\4\xc2\4\0\0")], 0, "allow rule"),
    "inside an option that is cut": (FITS, [(0, b"\0\0\1\5\xc2\4\0\0")], 0, "allow rule"),
    "an option cut after its type": (FITS, [(0, bytes(7) + b"\1")], 0, "allow rule"),
    "destination options": (FITS, [(60, f.jumbo(65_535)[1])], 0, "allow rule"),
    "hop-by-hop options that do not come first": (FITS, [f.extension(60), f.jumbo(65_535)], 0, "allow rule"),
    "an atomic fragment": (FITS, [f.jumbo(70_000), f.fragment()], 0, "deny malformed"),
    "a first fragment": (FITS, [f.jumbo(65_536), f.fragment(0, True)], 0, "deny malformed"),
    "a later fragment": (FITS, [f.jumbo(65_536), f.fragment(1)], 0, "deny malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", JUMBOGRAMS)
def test_length_of_a_jumbogram_is_in_its_options(name: str) -> None:
    """SPEC 3.10."""
    payload, extensions, payload_length, words = JUMBOGRAMS[name]
    packet = six(payload, extensions=extensions, payload_length=payload_length)
    verdict, reason, *_ = both([packet], 101, [40 + 70_000])[0]
    assert f"{verdict} {reason}" == words


def test_hop_by_hop_options_that_the_capture_cut_tell_no_length() -> None:
    packet = six(FITS, extensions=[f.jumbo(65_535, before=MORE)], payload_length=0)
    read = both([packet[:kept] for kept in range(40, 65)], 101, [40 + 70_000] * 25)
    assert [line[1] for line in read] == ["truncated"] * 24 + ["malformed"]


@pytest.mark.parametrize("kind", ["udplite", "sctp", "dccp"])
def test_transport_header_that_the_capture_cut_off_is_truncated(kind: str) -> None:
    need = {"udplite": 8, "sctp": 12, "dccp": 12}[kind]
    packet = four(getattr(f, kind)(1, 2, bytes(20)))
    frames = [packet[: 20 + length] for length in range(need + 1)]
    read = both(frames, 101, [len(packet)] * len(frames))
    assert [line[1] for line in read] == ["truncated"] * need + ["rule"]


def test_chains_of_random_extension_headers_are_read_alike() -> None:
    seed = 24
    print(f"seed {seed}")
    draw = random.Random(seed)
    frames, wires = [], []
    for _ in range(3000):
        chain = [
            f.extension(draw.choice((0, 43, 60, 135, 139, 140)), draw.choice((8, 8, 16, 40)))
            for _ in range(draw.randrange(6))
        ]
        is_jumbogram = draw.random() < 0.2
        if is_jumbogram:
            options = b"".join(draw.choice((b"\0", b"\1\0", b"\1\3abc", b"\5\2\0\0")) for _ in range(draw.randrange(5)))
            chain.insert(0, f.jumbo(0x10000 + draw.randrange(-2, 90), before=options))
        payload = draw.choice((f.udp(1, 2), f.tcp(1, 2, "S"), f.icmpv6(128), f.other(51, bytes(24)), f.sctp(1, 2)))
        claimed = draw.choice((0, 0, 0, None) if is_jumbogram else (None, None, None, 0, 20))
        packet = six(payload, extensions=chain, payload_length=claimed)
        frames.append(mutated(draw, packet) if draw.random() < 0.7 else packet)
        wires.append(max(len(frames[-1]), len(packet)) + (0x10000 if is_jumbogram else 0))
    seen = Counter(line[1] for line in both(frames, 101, wires))
    assert min(seen["rule"], seen["malformed"], seen["truncated"]) >= 50, seen
