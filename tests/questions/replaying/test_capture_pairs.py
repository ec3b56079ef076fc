"""Captures that do not go together: read one after another although their times overlap, of the same packets, or with
clocks that differ (SPEC 10.27).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import clusters
import pytest
from command import CLIENT, SERVER, SHOP, sgfast, write_policy
from frames import ethernet, ip, tcp, udp, wire_length

from sgfast import ReadOptions, replay
from sgfast.base.evidence import EvidenceReason
from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.capture import open_capture
from sgfast.traffic.preprocess.capture_sample import ROW_DTYPE, CaptureSample

SECOND = 10**9
MILLISECOND = 10**6

Frame = tuple[int, bytes]


def frames_of(path: str) -> list[Frame]:
    with open_capture(path) as reader:
        return [(time_ns, data) for batch in iter(reader.next_batch, None) for time_ns, data, *_ in batch]


SHOP_FRAMES = frames_of(SHOP[1])


def write(path: Path, frames: Sequence[Frame]) -> Path:
    return clusters.write(path, frames, wires=[wire_length(data) for _, data in frames])


def shifted(frames: Sequence[Frame], ns: int) -> list[Frame]:
    return [(time_ns + ns, data) for time_ns, data in frames]


def from_server(frame: Frame) -> bool:
    """Whether a packet of shop.pcap comes from a server's port."""
    data = frame[1]
    is_ipv6 = data[12:14] == b"\x86\xdd"
    transport = data[54:] if is_ipv6 else data[14 + 4 * (data[14] & 15) :]
    return data[20 if is_ipv6 else 23] in (6, 17) and transport[0:2] < transport[2:4]


ONE_WAY = [each for each in SHOP_FRAMES if from_server(each)]
OTHER_WAY = [each for each in SHOP_FRAMES if not from_server(each)]


def numbered(first: int, last: int, every_ns: int = MILLISECOND) -> list[Frame]:
    """Different TCP packets, by number."""
    return [
        (1000 * SECOND + n * every_ns, ethernet(ip(CLIENT, SERVER, tcp(n % 60000 + 1, 80, "A", n.to_bytes(4, "big")))))
        for n in range(first, last)
    ]


def reasons(captures: Sequence[Path], policy: str | Path = SHOP[0], **reading: Any) -> dict[str, EvidenceReason]:
    found = replay(str(policy), [str(path) for path in captures], reading=ReadOptions(**reading)).evidence.reasons
    return {each.code: each for each in found if each.code in ("overlap", "duplicates", "clocks")}


def test_captures_that_overlap_but_are_read_one_after_another_are_told_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    middle = SHOP_FRAMES[0][0] + 6 * SECOND
    early = write(tmp_path / "early.pcap", [each for each in SHOP_FRAMES if each[0] < middle or each[1][12] == 0x86])
    late = write(tmp_path / "late.pcap", [each for each in SHOP_FRAMES if each[0] >= middle and each[1][12] != 0x86])
    for command in (("replay", SHOP[0]), ("diff", SHOP[0], SHOP[0])):
        read = sgfast(capsys, *command, early, late, "--json", "-q")
        evidence = json.loads(read.out)["evidence"]
        (reason,) = evidence["reasons"]
        assert (evidence["conclusive"], reason["code"], reason["level"]) == ("partly", "overlap", "partly")
        assert "early.pcap" in reason["sentence"] and "late.pcap overlap by about" in reason["sentence"]
        assert reason["packets"] == len(frames_of(str(late))) and reason["command"] == "--merge"
        merged = sgfast(capsys, *command, early, late, "--merge", "--json", "-q")
        assert json.loads(merged.out)["evidence"] == {"conclusive": "yes", "reasons": []}
    assert not reasons([tmp_path])
    # The one that is read later may also have begun earlier.
    assert list(reasons([late, early])) == ["overlap"]
    other = write(tmp_path / "other.pcap", numbered(0, 100))
    assert list(reasons([early, other, late])) == ["overlap"]


def test_two_taps_of_the_same_packets_are_told_of_although_their_packets_are_far_apart_in_the_stream(
    tmp_path: Path
) -> None:
    policy = write_policy(tmp_path)
    folder = tmp_path / "taps"
    folder.mkdir()
    # Samples of 2,048 packets have to hold the same ones although the second tap begins later.
    taps = [write(folder / "a.pcap", numbered(0, 30_000)), write(folder / "b.pcap", numbered(4_000, 50_000))]
    read = reasons(taps, policy)
    assert set(read) == {"overlap", "duplicates"}
    assert read["duplicates"].command == "--merge --dedup" and "a.pcap and " in read["duplicates"].sentence
    assert 0.5 < read["duplicates"].share < 0.9
    for captures in ([folder], taps):
        merged = reasons(captures, policy, merge=True)
        assert list(merged) == ["duplicates"] and merged["duplicates"].command == "--dedup"
        assert not reasons(captures, policy, merge=True, dedup=True)
    assert set(reasons(taps, policy, dedup=True)) == {"overlap", "duplicates"}


@pytest.mark.parametrize("ahead_ns", [90 * SECOND, -90 * SECOND, 3600 * SECOND, 1500 * MILLISECOND])
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "more"),
    [
        (SHOP_FRAMES, SHOP_FRAMES, {"duplicates"}),
        (OTHER_WAY, ONE_WAY, set()),
        (ONE_WAY, OTHER_WAY, set()),
        # Few packets are in both captures.
        (SHOP_FRAMES[:150], SHOP_FRAMES[120:], set()),
    ],
    ids=["doubled", "each way", "the other way first", "few in common"],
)
def test_clocks_that_differ_are_told_of_with_the_command_that_sets_them(
    tmp_path: Path, first: list[Frame], second: list[Frame], more: set[str], merge: bool, ahead_ns: int
) -> None:
    a, b = write(tmp_path / "a.pcap", first), write(tmp_path / "b.pcap", shifted(second, ahead_ns))
    found = reasons([a, b], merge=merge)
    assert set(found) - {"overlap"} == {"clocks", *more}
    reason = found["clocks"]
    seconds = "1.5" if ahead_ns < 2 * SECOND and ahead_ns > 0 else f"{abs(ahead_ns) // SECOND:,}"
    assert f"differ by about {seconds} s" in reason.sentence and reason.level == "partly"
    *_, option, shift, path, target = reason.command.split()
    names = [str(a), str(b)]
    assert option == "-t" and path in names and target == f"{Path(path).stem}-shifted.pcap"
    mended = write(tmp_path / target, shifted(frames_of(path), round(float(shift) * 1e6) * 1000))
    left = reasons([mended if name == path else Path(name) for name in names], merge=True, dedup=True)
    assert not left


def test_syn_acks_that_come_before_their_syns_are_told_of_although_the_clocks_differ_by_less_than_a_second(
    tmp_path: Path
) -> None:
    captures = [write(tmp_path / "a.pcap", OTHER_WAY), write(tmp_path / "b.pcap", shifted(ONE_WAY, -200 * MILLISECOND))]
    assert "differ by about 0.2 s" in reasons(captures, merge=True)["clocks"].sentence
    # Half a second later they are answers like any others.
    assert not reasons([captures[0], write(tmp_path / "c.pcap", shifted(ONE_WAY, SECOND // 2))], merge=True)


def test_copies_that_the_network_delays_are_not_mended_by_a_clock(tmp_path: Path) -> None:
    frames = numbered(0, 1000)
    delayed = [(time_ns + (100 if n % 2 else -100) * MILLISECOND, data) for n, (time_ns, data) in enumerate(frames)]
    captures = [write(tmp_path / "a.pcap", frames), write(tmp_path / "b.pcap", sorted(delayed))]
    found = reasons(captures, write_policy(tmp_path), merge=True, dedup=True)
    assert list(found) == ["duplicates"] and "only one of these captures" in found["duplicates"].command


HELLO = ethernet(ip(CLIENT, SERVER, udp(5000, 5000, b"hello")))


def rotated() -> list[list[Frame]]:
    """Files of a minute each, which begin with hellos of several hosts that are always the same bytes."""
    hello = [ethernet(ip(f"198.51.100.{n}", SERVER, udp(5000, 5000, b"hello"))) for n in range(200)]
    return [
        [(n * 60 * SECOND + k * MILLISECOND, data) for k, data in enumerate(hello)]
        + shifted(numbered(n * 1000, n * 1000 + 1000), (n * 60 - 1000) * SECOND)
        for n in range(3)
    ]


def kept_alive() -> list[list[Frame]]:
    """Connections that are kept alive by the same bytes again and again."""
    frames = [ethernet(ip(f"198.51.100.{n}", SERVER, tcp(5000, 80, "A"))) for n in range(20)]
    return [[(n * SECOND, frames[n % 20]) for n in range(first, first + 200)] for first in (0, 200)]


def hosts() -> list[list[Frame]]:
    """Captures of two hosts that see the same times, and a few of each other's packets."""
    return [numbered(0, 2000)[::2] + numbered(2000, 2100), numbered(0, 2000)[1::2] + numbered(2000, 2100)]


def sent_again() -> list[list[Frame]]:
    """Packets that nobody answered, sent again byte by byte a second later, when the next capture has begun."""
    lost = numbered(0, 1000)
    return [lost, shifted(lost[-9:], 2 * SECOND) + shifted(numbered(2000, 4000), SECOND)]


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(
    "captures",
    [
        lambda: [SHOP_FRAMES[:100], SHOP_FRAMES[100:101], SHOP_FRAMES[101:]],
        rotated,
        kept_alive,
    ],
    ids=["rotated", "hellos", "kept alive"],
)
def test_captures_that_follow_each_other_are_sound(
    tmp_path: Path, captures: Callable[[], list[list[Frame]]], merge: bool
) -> None:
    files = [write(tmp_path / f"{n}.pcap", frames) for n, frames in enumerate(captures())]
    assert not reasons(files, merge=merge)


@pytest.mark.parametrize("captures", [lambda: [OTHER_WAY, ONE_WAY], hosts, sent_again])
def test_captures_of_the_same_time_with_equal_clocks_are_sound_once_they_are_merged(
    tmp_path: Path, captures: Callable[[], list[list[Frame]]]
) -> None:
    files = [write(tmp_path / f"{n}.pcap", frames) for n, frames in enumerate(captures())]
    assert not reasons(files, merge=True)


def test_a_sample_is_bounded_whatever_a_capture_holds() -> None:
    sample = CaptureSample(20_000)
    frames = [data for _, data in SHOP_FRAMES]
    cut = [frame[:length] for frame in frames[::10] for length in range(len(frame))]
    for data in (cut, [HELLO] * 5000, [data for _, data in numbered(0, 30_000)]):
        sample.look(FrameBatch.from_frames(data, [SECOND] * len(data)))
    for rows, _ in sample.rows:
        assert len(rows) <= 2048 * ROW_DTYPE.itemsize
    assert sample.packets == len(cut) + 35_000
