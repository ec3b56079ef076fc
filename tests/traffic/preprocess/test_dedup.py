"""``--dedup``: what is a copy of a packet, and what only looks like one (SPEC 9.11)."""

from __future__ import annotations

import random

import pytest
from frames import ethernet, ipv4, ipv6, sll, sll2, tcp, udp, vlan

from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.preprocess.selection import Dedup

MS = 10**6
APART = 50 * MS
REMEMBERED = 4096
RETRY = 200 * MS


def numbered(number: int, payload: bytes = b"some", ttl: int = 64) -> bytes:
    """An IPv4 packet with an identification of its own."""
    packet = bytearray(ipv4("10.0.0.5", "10.0.0.6", udp(80, 90, payload), ttl=ttl))
    packet[4:6] = (number & 0xFFFF).to_bytes(2, "big")
    packet[10:12] = (ttl * 257 & 0xFFFF).to_bytes(2, "big")     # a checksum that goes with the TTL
    packet[26:28] = (number >> 16).to_bytes(2, "big")
    return bytes(packet)


def kept(*frames: tuple[int, bytes], dedup: Dedup | None = None, link_type: int = 1) -> list[int]:
    """Return the numbers of the frames, given as (time, frame), that are kept."""
    dedup = dedup or Dedup()
    before = dedup.dropped
    batch = FrameBatch.from_frames(
        [frame for _, frame in frames], [time_ns for time_ns, _ in frames], link_type=link_type
    )
    had = list(batch)
    dedup.apply(batch)
    rest = list(batch)
    assert dedup.dropped - before == len(had) - len(rest)
    numbers, at = [], 0
    for frame in rest:      # in order, and untouched
        at = had.index(frame, at)
        numbers.append(at)
        at += 1
    return numbers


def test_link_headers_tags_and_padding_do_not_tell_copies_apart() -> None:
    packet = numbered(7)
    other = bytes(range(12)) + b"\x08\0" + packet
    assert kept((0, ethernet(packet)), (1, other), (2, ethernet(packet, padding=9))) == [0]
    assert kept((0, ethernet(packet, 0x0800)), (1, ethernet(vlan(packet, 0x0800)))) == [0]
    dedup = Dedup()
    assert kept((0, sll(packet, 0x0800)), dedup=dedup, link_type=113) == [0]
    assert kept((1, sll2(packet, 0x0800)), dedup=dedup, link_type=276) == []
    assert kept((2, packet), dedup=dedup, link_type=101) == []


def test_what_a_router_changes_does_not_tell_copies_apart() -> None:
    assert kept((0, ethernet(numbered(1, ttl=64))), (1, ethernet(numbered(1, ttl=63)))) == [0]
    six = [ethernet(ipv6("::1", "::2", udp(1, 2, b"x"), hop_limit=limit)) for limit in (64, 63)]
    assert kept((0, six[0]), (1, six[1])) == [0]


@pytest.mark.parametrize("version", [4, 6])
def test_every_other_byte_tells_packets_apart(version: int) -> None:
    payload = udp(1, 2, bytes(range(40)))
    packet = ipv4("10.0.0.5", "10.0.0.6", payload) if version == 4 else ipv6("::1", "::2", payload)
    alike = {8, 10, 11} if version == 4 else {7}
    # The version and the lengths: what is no IP then, or is another length.
    for at in range(len(packet)):
        for bit in range(8):
            changed = bytearray(packet)
            changed[at] ^= 1 << bit
            found = kept((0, ethernet(packet, packet.protocol)), (1, ethernet(bytes(changed), packet.protocol)))
            assert found == ([0] if at in alike else [0, 1]), (at, bit)


def test_copies_further_apart_than_the_window_are_two_packets() -> None:
    a = ethernet(numbered(1))
    for apart, found in ((APART - 1, [0]), (APART, [0]), (APART + 1, [0, 1]), (RETRY, [0, 1])):
        assert kept((0, a), (apart, a)) == found
        # The order that packets of several interfaces come in is not that of their times.
        assert kept((apart, a), (0, a)) == found


def test_times_at_the_ends_of_the_clock_are_far_apart() -> None:
    a = ethernet(numbered(1))
    assert kept((-(1 << 63), a), ((1 << 63) - 1, a)) == [0, 1]


@pytest.mark.parametrize(("between", "found"), [(REMEMBERED - 2, 1), (REMEMBERED - 1, 1), (REMEMBERED, 2)])
def test_so_many_packets_back_is_looked_and_no_further(between: int, found: int) -> None:
    a = ethernet(numbered(0))
    others = [(n, ethernet(numbered(n))) for n in range(1, between + 1)]
    numbers = kept((0, a), *others, (between + 1, a))
    assert len(numbers) == between + found


def test_what_is_no_ip_is_never_a_copy() -> None:
    for frame in (
        ethernet(bytes(46), 0x0806), ethernet(b"\x45" + bytes(10), 0x0800), ethernet(b"\x60" + bytes(38), 0x86DD), b"",
        bytes(5), ethernet(b"\x65" + bytes(45), 0x0800),
    ):  # fmt: skip
        assert kept((0, frame), (1, frame), (2, frame)) == [0, 1, 2]


def test_packets_cut_alike_are_copies_and_tcp_sent_again_with_a_new_number_is_none() -> None:
    packet = ethernet(numbered(1, bytes(500)))
    assert kept((0, packet[:96]), (1, packet[:96])) == [0]
    again = [ethernet(ipv4("10.0.0.5", "10.0.0.6", tcp(1, 2, "A", b"x"))) for _ in range(2)]
    again[1] = again[1][:19] + b"\x08" + again[1][20:]      # the identification
    assert kept((0, again[0]), (1, again[1])) == [0, 1]


def test_what_was_cut_to_another_length_may_be_the_beginning_of_another_packet() -> None:
    # IPv6 has no packet numbers, and checksums that an interface was to fill in are no help.
    one, other = (ethernet(ipv6("::1", "::2", udp(1, 2, bytes(40) + end))) for end in (b"a", b"b"))
    assert one[:96] == other[:96] and one != other
    for order in ((one, other[:96]), (other[:96], one), (one, one[:96]), (one[:80], one[:96])):
        assert kept(*enumerate(order)) == [0, 1]
    # Cut alike, which is the way to have copies recognised, they pass for one.
    assert kept((0, one[:96]), (1, other[:96])) == [0]


def test_random_streams_against_a_loop() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    dedup = Dedup()
    known: list[tuple[int, bytes]] = []
    now = dropped = 0
    for _ in range(40):
        stream = []
        for _ in range(chance.randrange(400)):
            now += chance.choice((0, 0, 10_000, 1 * MS, 30 * MS)) if chance.random() < 0.2 else 100
            packet = numbered(chance.randrange(200), bytes(chance.randrange(5)), ttl=chance.randrange(1, 65))
            stream.append((now + chance.randrange(-2 * MS, 2 * MS), ethernet(packet)))
        expected = []
        for number, (time_ns, frame) in enumerate(stream):
            bare = bytearray(frame[14:])
            bare[8] = bare[10] = bare[11] = 0
            before = next((t for t, other in reversed(known[-REMEMBERED:]) if other == bare), None)
            if before is not None and abs(time_ns - before) <= APART:
                dropped += 1
                continue
            known.append((time_ns, bytes(bare)))
            expected.append(number)
        assert kept(*stream, dedup=dedup) == expected, f"seed {seed}"
    assert dedup.dropped == dropped > 100


def test_looking_leaves_everything_in_place() -> None:
    a, arp = ethernet(numbered(1)), ethernet(bytes(46), 0x0806)
    batch = FrameBatch.from_frames([a, arp, a, ethernet(numbered(2)), a], [0] * 5)
    had = list(batch)
    dedup = Dedup()
    assert dedup.look(batch, 0, 3) == (2, 1) and dedup.dropped == 0
    assert dedup.look(batch, 0, len(batch)) == (4, 3) and list(batch) == had
    assert Dedup().look(batch, 2, 2) == (2, 0)
    for first, number in ((0, 6), (-1, 2), (5, 1), (3, -1)):
        with pytest.raises(ValueError, match="no such packets"):
            dedup.look(batch, first, number)


def copies_among(times: list[int]) -> tuple[int, int]:
    """Return how many packets with equal bytes are checked for copies, and how many are found."""
    batch = FrameBatch.from_frames([ethernet(numbered(1))] * len(times), times)
    return Dedup().look(batch, 0, len(batch))


@pytest.mark.parametrize("interval", [4 * MS, 10 * MS, 50 * MS])
def test_equal_packets_that_are_sent_steadily_are_no_copies(interval: int) -> None:
    """As BFD's, whose senders leave out up to a quarter of the interval, and of which some are lost. Two packets do
    not show yet that more will follow.
    """
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    now, sent = 0, []
    for _ in range(500):
        now += int(interval * chance.uniform(0.75, 1)) * (2 if chance.random() < 0.02 else 1)
        sent.append(now)
    looked_at, copies = copies_among(sent)
    assert looked_at == 500 and copies <= 1


@pytest.mark.parametrize("interval", [10 * MS, 45 * MS, 100 * MS])
@pytest.mark.parametrize("lag", [0, 1000, MS])
@pytest.mark.parametrize("interfaces", [2, 3])
def test_packets_that_are_sent_steadily_and_captured_twice_are_copies(interval: int, lag: int, interfaces: int) -> None:
    """As equal packets, of which the one after 50 ms is never a copy, and each with bytes of its own."""
    sent = [n * interval for n in range(300)]
    captured = [time_ns + n * lag for time_ns in sent for n in range(interfaces)]
    looked_at, copies = copies_among(captured)
    assert looked_at == len(captured) and len(sent) * 9 // 10 <= copies <= len(sent) * (interfaces - 1) + 1
    frames = [ethernet(numbered(n)) for n in range(300) for _ in range(interfaces)]
    batch = FrameBatch.from_frames(frames, captured)
    _, copies = Dedup().look(batch, 0, len(batch))
    assert copies >= len(sent)
