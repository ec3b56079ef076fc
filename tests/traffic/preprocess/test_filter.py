"""``--filter`` against tcpdump, which the words are from; and what is refused (SPEC 9.10)."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from captures import pcap_head, pcap_record, read
from frames import (
    dccp,
    ethernet,
    extension,
    fragment,
    icmp,
    icmpv6,
    ipv4,
    ipv6,
    mpls,
    other,
    sctp,
    tcp,
    udp,
    udplite,
    vlan,
)

from sgfast.base.errors import ReadingError
from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.preprocess.filter_text import MOST_CHARACTERS, MOST_DEPTH
from sgfast.traffic.preprocess.selection import Filter

FOUR = ("10.0.0.5", "10.0.0.6", "10.1.2.3", "192.168.1.7", "255.255.255.255", "0.0.0.0", "198.51.100.7")
SIX = ("2001:db8::5", "2001:db8::6", "2001:db8:1::9", "fe80::1", "ff02::fb", "::", "::1")
NETS = (
    "10.0.0.0/8", "10", "10.0", "10.0.0", "192.168", "10.0.0.4/31", "0.0.0.0/0", "128.0.0.0/1", "10.0.0.5/32",
    "2001:db8::/32", "2001:db8::4/126", "2001:db8::/64", "::/0", "fe80::/10", "8000::/1", "2001:db8:1::9/128",
)  # fmt: skip
PORTS = (0, 1, 22, 53, 80, 443, 8080, 65535)


def kept(text: str, frames: list[bytes], wire: list[int] | None = None) -> list[int]:
    """Return the numbers of the frames that a filter keeps."""
    batch = FrameBatch.from_frames(frames, list(range(len(frames))), wire)
    chosen = Filter(text)
    chosen.apply(batch)
    numbers = [time_ns for time_ns, *_ in batch]
    assert chosen.dropped == len(frames) - len(numbers)
    assert all(data == frames[number] for number, data, *_ in batch)
    return numbers


def matches(text: str, frame: bytes) -> bool:
    return kept(text, [frame]) == [0]


# Against tcpdump


def any_frame(chance: random.Random) -> bytes:
    """Make a frame that both read alike: a whole packet in Ethernet, no tags, extension headers of fragments only."""
    sport, dport = chance.choice(PORTS), chance.choice(PORTS)
    payload = chance.choice((
        tcp(sport, dport, "S"), tcp(sport, dport, "A", b"hello", data_offset=8), udp(sport, dport, b"hi"),
        sctp(sport, dport), dccp(sport, dport), udplite(sport, dport), icmp(8), icmp(3), icmpv6(128),
        other(47, b"12345678"), other(50, b"12345678"), other(51, b"12345678"), other(2, b"12345678"),
        other(chance.randrange(256), bytes(32)),
    ))  # fmt: skip
    if chance.random() < 0.04:
        return ethernet(b"\1" * 46, 0x88CC)
    if chance.random() < 0.5:
        options = bytes(chance.choice((0, 0, 4, 40)))
        offset, more = (chance.choice((0, 0, 185)), chance.random() < 0.5) if chance.random() < 0.2 else (0, False)
        ends = chance.choice(FOUR), chance.choice(FOUR)
        if more:
            # tcpdump shows ports of a fragment that cannot be, too.
            payload = other(payload.protocol, payload + bytes(-len(payload) % 8))
        packet = ipv4(*ends, payload, options=options, fragment_offset=offset, more_fragments=more)
    else:
        number = payload.protocol
        if number in (0, 43, 44, 60, 135, 139, 140):
            payload = other(59, bytes(payload))
        packet = ipv6(chance.choice(SIX), chance.choice(SIX), payload)
    return ethernet(packet, padding=chance.choice((0, 6)))


def any_expression(chance: random.Random, depth: int = 4) -> str:
    if depth == 0 or chance.random() < 0.35:
        return any_test(chance)
    left, right = (any_expression(chance, depth - 1) for _ in range(2))
    shape = chance.choice((
        "{0} and {1}", "{0} or {1}", "{0} && {1}", "{0} || {1}", "({0})", "not {0}", "!({0})", "not ( {0} or {1} )",
        "({0}) and ({1})", "({0} or {1}) and not {0}",
    ))  # fmt: skip
    return shape.format(left, right)


def any_test(chance: random.Random) -> str:
    way = chance.choice(("", "", "src ", "dst ", "src or dst ", "src and dst ", "dst or src "))
    kind = chance.choice(("host", "net", "port", "portrange", "word", "proto"))
    if kind == "word":
        return chance.choice(("tcp", "udp", "icmp", "icmp6", "sctp", "esp", "ah", "ip", "ip6"))
    if kind == "proto":
        family = chance.choice(("ip ", "ip6 "))
        return f"{family}proto {chance.choice((1, 6, 17, 47, 50, 58, 132, 255))}"
    if kind == "host":
        ends = [chance.choice(FOUR + SIX) for _ in range(chance.choice((1, 1, 2, 3)))]
    elif kind == "net":
        ends = [chance.choice(NETS) for _ in range(chance.choice((1, 1, 2)))]
    elif kind == "port":
        ends = [str(chance.choice(PORTS)) for _ in range(chance.choice((1, 1, 2, 3)))]
    else:
        ends = ["{}-{}".format(*sorted(chance.choices(PORTS, k=2)))]
    before = ""
    if kind in ("host", "net"):
        six = [":" in end for end in ends]
        before = chance.choice(("", "ip6 " if all(six) else "" if any(six) else "ip "))
    elif chance.random() < 0.5:
        before = chance.choice(("tcp ", "udp ", "sctp "))
    values = f" {chance.choice(('or', 'and'))} ".join(ends)
    if len(ends) > 1 and chance.random() < 0.5:
        values = f"({values})"
    if len(ends) > 1 and chance.random() < 0.2:
        values = values.replace("or ", "or not ", 1)
    word = "" if kind == "host" and way and chance.random() < 0.3 and not values.startswith("(") else f"{kind} "
    return f"{before}{way}{word}{values}"


def chosen_by_tcpdump(path: Path, text: str) -> list[bytes]:
    """Unoptimised: tcpdump's optimiser refuses what can match nothing."""
    run = subprocess.run(["tcpdump", "-O", "-r", str(path), "-w", "-", text], capture_output=True, check=False)
    assert run.returncode == 0, f"{text}: {run.stderr.decode()}"
    return [packet.data for packet in read(run.stdout).packets]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump here")
@pytest.mark.parametrize("seed", range(6))
def test_random_expressions_choose_what_tcpdump_chooses(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    frames = [any_frame(chance) + n.to_bytes(4, "big") for n in range(600)]
    path = tmp_path / "frames.pcap"
    path.write_bytes(pcap_head() + b"".join(map(pcap_record, frames)))
    some = 0
    for _ in range(60):
        text = any_expression(chance)
        ours, theirs = [frames[n] for n in kept(text, frames)], chosen_by_tcpdump(path, text)
        assert ours == theirs, f"seed {seed}: {text}"
        some += 0 < len(ours) < len(frames)
    assert some > 20


# Differences from tcpdump


def test_tags_and_extension_headers_are_looked_through() -> None:
    inner = ipv4("10.0.0.5", "10.0.0.6", tcp(1, 443))
    for frame in (ethernet(vlan(inner)), ethernet(vlan(vlan(inner), tpid=0x88A8)), ethernet(mpls(inner))):
        assert matches("tcp dst port 443 and src host 10.0.0.5", frame)
    six = ipv6("::1", "::2", udp(5, 53), extensions=[extension(0), extension(60, 16)])
    assert matches("udp port 53 and ip6", ethernet(six)) and not matches("proto 60", ethernet(six))


def test_later_fragment_has_a_protocol_and_no_port() -> None:
    first, later = (
        ethernet(ipv4("10.0.0.5", "10.0.0.6", udp(5, 53, bytes(16)), fragment_offset=offset, more_fragments=True))
        for offset in (0, 3)
    )
    six = ethernet(ipv6("::1", "::2", udp(5, 53, bytes(16)), extensions=[fragment(3)]))
    assert matches("port 53", first) and matches("udp", later) and matches("udp", six)
    for frame in (later, six):
        assert not matches("port 53", frame) and not matches("portrange 0-65535", frame)
        assert matches("not port 53", frame)


def test_what_cannot_be_read_matches_no_test() -> None:
    broken = (
        ethernet(b"\x45\0\0", 0x0800), ethernet(b"\x60" + bytes(30), 0x86DD), b"", b"\0" * 5,
        ethernet(b"\x65" + bytes(40), 0x0800), ethernet(bytes(46), 0x0806),
    )  # fmt: skip
    texts = ("ip", "ip6", "host 0.0.0.0", "net ::/0", "net 0.0.0.0/0", "proto 0", "port 0", "portrange 0-65535")
    for frame in broken:
        for text in texts:
            assert not matches(text, frame) and matches(f"not {text}", frame), (text, frame)


def test_packet_before_does_not_show_through() -> None:
    whole, cut = ethernet(ipv4("10.0.0.5", "10.0.0.6", tcp(1, 443))), ethernet(b"\x45\0\0", 0x0800)
    later = ethernet(ipv4("10.0.0.5", "10.0.0.6", tcp(1, 443), fragment_offset=3))
    frames = [whole, cut, later, whole, ethernet(bytes(46), 0x0806), later]
    assert kept("tcp port 443", frames) == [0, 3] and kept("tcp port 443 or ip", frames) == [0, 2, 3, 5]


def test_cut_off_header_has_the_ports_that_were_captured() -> None:
    packet = ethernet(ipv4("10.0.0.5", "10.0.0.6", tcp(1, 443)))
    for length in range(len(packet) + 1):
        found = kept("dst port 443", [packet[:length]], [len(packet)])
        assert found == ([0] if length >= 14 + 20 + 4 else []), length


def test_every_end_and_way() -> None:
    frame = ethernet(ipv4("10.0.0.5", "10.0.0.6", udp(80, 90)))
    for text, expected in (
        ("src 10.0.0.5", True), ("dst 10.0.0.5", False), ("src or dst 10.0.0.5", True), ("src and dst 10.0.0.5", False),
        ("src and dst net 10", True), ("src port 80", True), ("src port 90", False), ("src and dst port 80", False),
        ("src and dst portrange 80-90", True), ("host 10.0.0.5 and 10.0.0.6", True), ("host 10.0.0.5 and not 6", None),
        ("port 80 and not 90", False), ("port (80 and not 91)", True), ("not not udp", True),
        ("not not not udp", False),
        ("tcp or udp and icmp", False), ("icmp and tcp or udp", True), ("src host (10.0.0.6 or 10.0.0.5)", True),
        ("proto 17", True), ("proto udp", True), (r"ip proto \udp", True), ("ip6 proto udp", False), ("gre", False),
        ("ip or udp", True),
    ):  # fmt: skip
        if expected is None:
            with pytest.raises(ReadingError):
                matches(text, frame)
        else:
            assert matches(text, frame) is expected, text


# Refused


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "host"),
        ("   ", 4, "the end"),
        ("tcp port", 9, "a port"),
        ("tcp port http", 10, "names are not looked up"),
        ("port 65536", 6, "0 to 65535"),
        ("portrange 90-80", 11, "end before it begins"),
        ("port 80-90", 6, "portrange 80-90"),
        ("portrange 1-2-3", 11, "ports like"),
        ("host 10.0.0.0/8", 6, "net 10.0.0.0/8"),
        ("host example.com", 6, "names are not looked up"),
        ("host 10.0.0.256", 6, "address"),
        ("net 10.0.0.5/8", 5, "write 10.0.0.0/8"),
        ("net 10/4", 5, "write 0.0.0.0/4"),
        ("net 10.0.0.0/33", 5, "network"),
        ("net ::/129", 5, "network"),
        ("ip host ::1", 9, "IPv4"),
        ("ip6 net 10", 9, "IPv6"),
        ("tcp host 10.0.0.1", 5, "port, portrange"),
        ("tcp 80", 5, "tcp"),
        ("ip port 80", 4, "host, net, proto"),
        ("icmp port 80", 6, "alone"),
        ("src proto 6", 5, "no direction"),
        ("proto 256", 7, "0 to 255"),
        ("tcp (port 80)", 5, "after tcp"),
        ("host (10.0.0.1 or port 80)", 19, "address"),
        ("10.0.0.1", 1, "host"),
        ("tcp or 10.0.0.1", 8, "host"),
        ("port 80 10.0.0.1", 9, "and"),
        ("(tcp", 5, '")"'),
        ("tcp)", 4, "the end"),
        ("tcp and", 8, "the end"),
        ("and tcp", 1, "host"),
        ("not", 4, "host"),
        ("src or", 5, "address"),
        ("arp", 1, "host"),
        ("tcp[13] & 2 != 0", 4, '"["'),
        ("tcp & udp", 5, '"&"'),
        ("host fe80::1%eth0", 13, '"%"'),
        ("tcp\x1b[0m", 4, "\\x1b"),
        ("port \N{ARABIC-INDIC DIGIT FIVE}", 6, "is not valid here"),
        ("(" * (MOST_DEPTH + 1), MOST_DEPTH + 1, f"at most {MOST_DEPTH}"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_column(text: str, column: int, words: str) -> None:
    with pytest.raises(ReadingError) as refused:
        Filter(text)
    message = str(refused.value)
    assert message.startswith(f"--filter: column {column}: ") and words in message, message
    assert message.isprintable()


def test_depth_and_length_have_limits() -> None:
    frame = ethernet(ipv4("10.0.0.5", "10.0.0.6", udp(80, 90)))
    deepest = "tcp or (" * (MOST_DEPTH - 1) + "(udp" + ")" * MOST_DEPTH
    assert matches(deepest, frame)
    with pytest.raises(ReadingError, match="at most"):
        Filter(f"tcp or ({deepest})")
    longest = "port 90" + " or 1" * ((MOST_CHARACTERS - 7) // 5)
    longest += " " * (MOST_CHARACTERS - len(longest))
    assert matches(longest, frame)
    with pytest.raises(ReadingError, match="20001 characters"):
        Filter(longest + " ")
    assert matches("not " * 2000 + "udp", frame)


def test_random_text_is_a_program_or_one_line() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    words = [
        "tcp", "udp", "icmp6", "ip", "ip6", "host", "net", "port", "portrange", "proto", "src", "dst", "and", "or",
        "not", "(", ")", "!", "&&", "||", "10.0.0.5", "::1", "10", "80-90", "443", "10.0.0.0/8", "\\", "\\tcp", "é",
        "-",
    ]  # fmt: skip
    frame = ethernet(ipv4("10.0.0.5", "10.0.0.6", udp(80, 90)))
    programs = 0
    for _ in range(5000):
        text = " ".join(chance.choices(words, k=chance.randrange(1, 9)))
        try:
            matches(text, frame)
            programs += 1
        except ReadingError as error:
            message = str(error)
            assert message.startswith("--filter: column ") and message.isprintable(), f"seed {seed}: {text}"
    assert programs > 20, f"seed {seed}"


def test_random_bytes_are_filtered_without_surprise() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    frames = []
    for _ in range(2000):
        frame = bytearray(any_frame(chance))
        for _ in range(chance.randrange(4)):
            frame[chance.randrange(12, len(frame))] = chance.randrange(256)
        frames.append(bytes(frame[: chance.randrange(len(frame) + 1)]))
    for text in ("tcp port 80 or host 10.0.0.5", "ip6 and not udp", "net ::/0 or net 0.0.0.0/0"):
        yes, no = kept(text, frames), kept(f"not ({text})", frames)
        assert sorted(yes + no) == list(range(len(frames))), f"seed {seed}: {text}"
