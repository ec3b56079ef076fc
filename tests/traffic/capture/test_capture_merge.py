"""Captures merged by time, against sorting in Python; directories of captures (SPEC 9.7)."""

from __future__ import annotations

import gzip
import heapq
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from captures import (
    Packet,
    enhanced,
    interface,
    pcap_head,
    pcap_record,
    read,
    section,
    tsresol,
)
from command import CLIENT, SERVER, handshake, sgfast, shell, valid, write_capture, write_policy
from frames import ethernet, ip, udp

import sgfast as library
from sgfast.base.errors import CaptureError
from sgfast.traffic.capture.directories import first_time_ns, natural
from sgfast.traffic.capture.merge import MergedReader

Capsys = pytest.CaptureFixture[str]
SEED = 20261126


def write(path: Path, times: list[int], tag: int = 0) -> Path:
    """A packet for each time (seconds), of eight bytes: the tag, and its number."""
    records = [
        pcap_record(tag.to_bytes(4, "big") + n.to_bytes(4, "big"), time=(time, 0)) for n, time in enumerate(times)
    ]
    path.write_bytes(pcap_head() + b"".join(records))
    return path


def sources(paths: list[Path]) -> list[tuple[str, int | None]]:
    return [(str(path), first_time_ns(str(path))) for path in paths]


def merged(given: list[tuple[str, int | None]]) -> tuple[list[Packet], Any]:
    packets: list[Packet] = []
    with MergedReader(given) as reader:
        while (batch := reader.next_batch()) is not None:
            assert len(batch) > 0
            packets += [Packet(*frame) for frame in batch]
        assert reader.packets == len(packets)
        return packets, reader.damage


def expected(paths: list[Path]) -> list[Packet]:
    """The earliest of what comes next in each, of equals that of the first capture."""
    return list(heapq.merge(*(read(path.read_bytes()).packets for path in paths), key=lambda packet: packet.time_ns))


# Merging


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("captures", [1, 2, 3, 4, 7, 30])
def test_packets_come_by_time_and_equal_times_in_the_order_of_captures(
    captures: int, in_order: bool, tmp_path: Path
) -> None:
    """Packets keep the order of their capture, even where its timestamps run backwards."""
    print(f"seed {SEED}")
    draw = random.Random(SEED + captures)
    paths = []
    for n in range(captures):
        start, length = draw.randrange(500), draw.choice([0, 1, 10, 300, 9000, 30_000])
        times = [draw.randrange(start, start + draw.choice([1, 50, 1000])) for _ in range(length)]
        paths.append(write(tmp_path / f"{n}", sorted(times) if in_order else times, n))
    for given in (sources(paths), [(str(path), None) for path in paths]):
        assert merged(given) == (expected(paths), None)


def test_formats_resolutions_and_compressions_mix(tmp_path: Path) -> None:
    records = pcap_record(b"a", time=(1, 0)) + pcap_record(b"d", time=(4, 0))
    (tmp_path / "a").write_bytes(gzip.compress(pcap_head() + records))
    (tmp_path / "b").write_bytes(
        section(">")
        + interface(">", 101, options=tsresol(9, ">"))
        + enhanced(b"b", ">", 2 * 10**9)
        + enhanced(b"c", ">", 3 * 10**9)
    )
    packets, damage = merged(sources([tmp_path / "a", tmp_path / "b"]))
    assert [(packet.data, packet.link_type) for packet in packets] == [(b"a", 1), (b"b", 101), (b"c", 101), (b"d", 1)]
    assert damage is None


def test_a_batch_stays_good_until_the_next_and_readable_after_it(tmp_path: Path) -> None:
    # Buffers grow and captures end between batches.
    for n in range(4):
        sizes = [10, 2_000_000, 50, 900_000]
        records = [pcap_record(bytes([n]) * size, time=(n + 4 * m, 0)) for m, size in enumerate(sizes)]
        (tmp_path / f"{n}").write_bytes(pcap_head() + b"".join(records))
    iterators = []
    with MergedReader(sources(sorted(tmp_path.iterdir()))) as reader:
        sizes = []
        while (batch := reader.next_batch()) is not None:
            frames = iter(batch)
            sizes.append(len(next(frames)[1]))
            iterators.append(frames)
            sizes += [len(data) for _, data, _, _ in batch][1:]
    assert sizes == [10] * 4 + [2_000_000] * 4 + [50] * 4 + [900_000] * 4
    # Memory of old batches may hold other packets by now, but it is still there to be read.
    for frames in iterators:
        for _, data, _, _ in frames:
            assert len(data) in (10, 50, 900_000, 2_000_000)


def test_captures_that_do_not_overlap_are_open_one_at_a_time(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n:04}", [10 * n, 10 * n + 9], n) for n in range(700)]
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    most = 0
    with MergedReader(sources(paths)) as reader:
        while reader.next_batch() is not None:
            most = max(most, len(os.listdir("/proc/self/fd")) - before) if before else 1
        assert reader.packets == 1400 and reader.damage is None
    assert most <= 3


@pytest.mark.parametrize(("captures", "is_read"), [(511, True), (512, True), (513, False)])
def test_captures_that_overlap_at_below_and_above_the_limit(captures: int, is_read: bool, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n:04}", [n, 10_000], n) for n in range(captures)]
    if is_read:
        packets, damage = merged(sources(paths))
        assert damage is None and packets == expected(paths)
        return
    with pytest.raises(CaptureError, match=r"0512: more than 512 captures overlap in time here"):
        merged(sources(paths))


def test_the_first_damage_ends_it_and_everything_before_is_there(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", [1, 3, 5, 7]), write(tmp_path / "other", [2, 4, 6, 8], 1)
    one.write_bytes(one.read_bytes()[:-30])     # 5 is cut, 7 gone
    packets, damage = merged(sources([one, other]))
    assert [packet.time_ns // 10**9 for packet in packets] == [1, 2, 3]
    assert (damage.file, damage.packet) == (str(one), 3)
    one.write_bytes(pcap_head() + b"x")
    packets, damage = merged(sources([other, one]))
    assert packets == [] and damage.packet == 1


def test_a_link_type_that_is_not_supported_raises_once_its_packet_is_next(tmp_path: Path) -> None:
    one = write(tmp_path / "one", [1, 2, 3])
    other = tmp_path / "other"
    other.write_bytes(
        section()
        + interface()
        + interface(link_type=169)
        + enhanced(b"x", ticks=10**6)
        + enhanced(b"y", ticks=2 * 10**6, number=1)
    )
    with MergedReader(sources([one, other])) as reader, pytest.raises(CaptureError, match="GPRS_LLC"):
        while reader.next_batch() is not None:
            pass


def test_closed_and_empty_ones_hand_out_nothing(tmp_path: Path) -> None:
    assert merged([]) == ([], None)
    assert merged(sources([write(tmp_path / f"{n}", []) for n in range(3)])) == ([], None)
    reader = MergedReader(sources([write(tmp_path / "x", [1])]))
    batch = reader.next_batch()
    reader.close()
    assert reader.next_batch() is None and batch is not None and len(list(batch)) == 1
    reader.__init__([])     # type: ignore[misc]
    assert reader.next_batch() is None


# Directories


def directory(folder: Path) -> Path:
    """Three captures whose names sort otherwise than their times, and what else lies around."""
    folder.mkdir()
    client, server = (CLIENT, SERVER), (SERVER, CLIENT)
    for name, second, frame in (
        ("trace10", 1000, ethernet(ip(*client, udp(1, 80)))),
        ("trace9", 1002, ethernet(ip(*server, udp(80, 1)))),
        ("trace1.gz", 1004, ethernet(ip(*client, udp(2, 80)))),
    ):
        path = write_capture(folder, frame, name=name, first_second=second)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    (folder / ".hidden").write_text("x")
    return folder


def test_names_sort_as_people_count() -> None:
    names = ["", "1", "02", "a", "a1b2", "a1b10", "a9", "a10", "b1"]
    assert sorted(reversed(names), key=natural) == names
    assert natural("9" * 255) > natural("1")


def verdict_times(capsys: Capsys, *arguments: object) -> list[str]:
    outcome = sgfast(capsys, "replay", *arguments, "--verdicts", "-", "--quiet")
    assert outcome.status == 0
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert valid("verdict", lines[0]) and valid("verdict", lines[-1])
    return [line["time"].split(".")[0] for line in lines]


def test_a_directory_is_its_captures_in_the_order_of_time(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), directory(tmp_path / "captures")
    assert verdict_times(capsys, policy, folder) == ["1000", "1002", "1004"]
    # Overlapping captures are merged.
    write_capture(folder, *[ethernet(ip(CLIENT, SERVER, udp(3, 80)))] * 2500, name="long", first_second=1001)
    seconds = ["1000", *["1001"] * 1000, *["1002"] * 1001, *["1003"] * 500, "1004"]
    assert verdict_times(capsys, policy, folder) == seconds


def test_what_is_no_capture_in_a_directory_is_named_in_one_warning(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), directory(tmp_path / "captures")
    for name in ("notes10.txt", "notes9.txt", "new\nline", "log1", "log2"):
        (folder / name).write_text("just text\n")
    (folder / "log3.gz").write_bytes(gzip.compress(b"just text\n"))
    (folder / "empty").touch()
    (folder / "deeper").mkdir()
    (folder / "again").symlink_to(folder)
    (folder / "itself").symlink_to("itself")
    os.mkfifo(folder / "fifo")
    outcome = sgfast(capsys, "replay", policy, folder, "--format", "json")
    assert outcome.status == 0
    assert outcome.one_line() == (
        f"sgfast: warning: {folder}: left out, as they are not captures: again, deeper, empty, fifo, itself and 6 more"
    )
    found = valid("summary", json.loads(outcome.out))
    assert found["packets"] == 3 and len(found["warnings"]) == 1


def test_directories_without_captures_and_captures_that_cannot_be_used(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), tmp_path / "captures"
    folder.mkdir()
    for text in (None, "just text\n"):
        if text is not None:
            (folder / "notes").write_text(text)
        outcome = sgfast(capsys, "replay", policy, folder)
        assert outcome.status == 2 and "is a directory that holds no captures" in outcome.one_line()
    (folder / "wireless").write_bytes(pcap_head(link_type=169))
    outcome = sgfast(capsys, "replay", policy, folder)
    assert outcome.status == 2 and f"{folder}/wireless: link type" in outcome.one_line()


def test_damage_in_a_directory_is_3(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), directory(tmp_path / "captures")
    path = folder / "trace9"
    path.write_bytes(path.read_bytes()[:-1])
    outcome = sgfast(capsys, "replay", policy, folder)
    assert outcome.status == 3 and "\n  0 packets, " in outcome.out
    warning, damage = outcome.err.splitlines()
    assert warning.endswith(f"because a capture before is damaged: {folder}/trace10 and {folder}/trace1.gz")
    assert damage.startswith(f"sgfast: {path}: damaged at byte 24")


def test_outputs_do_not_become_inputs(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), directory(tmp_path / "captures")
    written = folder / "judged.pcapng"
    outcome = sgfast(capsys, "replay", policy, folder, "--write", written)
    assert outcome.status == 0 and outcome.err == "" and "\n  3 packets, " in outcome.out
    outcome = sgfast(capsys, "replay", policy, folder, "--write", written)
    assert outcome.status == 2 and "is also an input" in outcome.one_line()


def test_every_command_takes_directories(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), directory(tmp_path / "captures")
    assert json.loads(sgfast(capsys, "diff", policy, policy, folder, "--json").out)["packets"] == 3
    assert sgfast(capsys, "check", policy, "--traffic", folder).status == 0
    outcome = sgfast(capsys, "suggest", folder, "--instances", policy, "--from", "all", "--unanswered")
    assert outcome.status == 0 and "rule" in outcome.out


# --merge


def test_order_is_the_one_given_unless_merged(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    late = write_capture(tmp_path, *handshake(1000, 80)[1:], name="a", first_second=1001)
    early = write_capture(tmp_path, *handshake(1000, 80)[:1], name="b", first_second=1000)
    assert verdict_times(capsys, policy, late, early) == ["1001", "1001", "1000"]
    assert verdict_times(capsys, policy, late, early, "--merge") == ["1000", "1001", "1001"]
    result = library.replay(policy, [late, early], reading=library.ReadOptions(merge=True))
    assert result.reasons == {"rule": 1, "established": 2} and result.warnings == []
    reference = library.replay(policy, [late, early], reading=library.ReadOptions(merge=True), engine="reference")
    assert reference.reasons == result.reasons


def test_merging_several_files_and_directories_and_standard_input(tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), directory(tmp_path / "captures")
    frame = ethernet(ip(CLIENT, SERVER, udp(9, 80)))
    one = write_capture(tmp_path, frame, name="a", first_second=1005)
    other = write_capture(tmp_path, frame, name="b", first_second=1001)
    third = write_capture(tmp_path, frame, name="c", first_second=1003)
    outcome = shell(
        'cat "$third" | $sgfast replay "$policy" "$one" "$folder" - <(cat "$other") --merge --verdicts - --quiet',
        policy=policy, one=one, folder=folder, other=other, third=third,
    )  # fmt: skip
    assert outcome.status == 0
    assert [json.loads(line)["time"][:4] for line in outcome.out.splitlines()] == [
        "1000", "1001", "1002", "1003", "1004", "1005"
    ]  # fmt: skip


def test_merge_and_follow_do_not_go_together(capsys: Capsys) -> None:
    outcome = sgfast(capsys, "replay", "policy", "capture", "--merge", "--follow")
    assert outcome.status == 2 and "--merge and --follow" in outcome.one_line()
