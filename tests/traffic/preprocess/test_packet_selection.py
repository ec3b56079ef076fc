"""Packets are cut out before judging: the result is that of a capture that was cut beforehand, and the report says so
(SPEC 9.8).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from captures import enhanced, interface, option, pcap_head, pcap_record, section, tsresol
from command import CLIENT, POLICY, SERVER, SHOP, handshake, sgfast, valid, write_capture, write_policy
from frames import ethernet, ip, tcp, udp
from tunnels import vxlan

from sgfast import ReadOptions, replay
from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.capture import open_capture
from sgfast.traffic.packet_selection import (
    LOOK_EVERY,
    LOOKED_AT,
    MANY_COPIES,
    ONE_IN,
    PacketSelection,
    PacketsLeftOut,
    are_copies,
    both_left_out,
)

Capsys = pytest.CaptureFixture[str]
SECOND = 10**9


def frames_of(path: str | Path) -> list[tuple[int, bytes, int, int]]:
    found = []
    with open_capture(path) as reader:
        while (batch := reader.next_batch()) is not None:
            found += list(batch)
    return found


def write_pcapng(path: Path, frames: list[tuple[int, bytes, int, int]]) -> Path:
    """Any times and link types."""
    links = sorted({link for *_, link in frames}) or [1]
    head = b"".join(interface(link_type=link, options=tsresol(9) + option(0, b"")) for link in links)
    blocks = [enhanced(data, ticks=t, wire=wire, number=links.index(link)) for t, data, wire, link in frames]
    path.write_bytes(section() + head + b"".join(blocks))
    return path


def rows(capsys: Capsys, *arguments: object) -> tuple[list[str], dict[str, Any]]:
    """Verdict and connection rows, and the report, of a replay."""
    done = sgfast(capsys, "replay", *arguments, "--verdicts", "-", "--format", "json", "-q")
    assert done.status in (0, 1), done.err
    return done.out.splitlines(), valid("summary", json.loads(done.err))


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    # Without packets, the evidence says whether options left all of them out.
    others = {"left_out", "elapsed_seconds", "packets_per_second"} | ({"evidence"} if not a["packets"] else set())
    for name in a.keys() - others:
        assert a[name] == b[name], name


# As if the capture had been cut beforehand


SHOP_FRAMES = frames_of(SHOP[1])
FIRST_NS = SHOP_FRAMES[0][0]


def is_ipv4(frame: bytes, protocol: int) -> bool:
    return frame[12:14] == b"\x08\0" and frame[23] == protocol


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        (("--start", "1"), lambda t, *_: t >= FIRST_NS + SECOND),
        (("--end", "6.4"), lambda t, *_: t < FIRST_NS + 64 * SECOND // 10),
        (("--start", "0.5s", "--end", "0m6.5s"), lambda t, *_: SECOND // 2 <= t - FIRST_NS < 65 * SECOND // 10),
        (
            ("--start", "2026-11-25T00:32:06Z", "--end", "2026-11-25T01:32:12.5+01:00"),
            lambda t, *_: 1_795_566_726 * SECOND <= t < 1_795_566_732 * SECOND + SECOND // 2,
        ),
        (("--start", "0"), lambda *_: True),
        (("--start", "1d"), lambda *_: False),
        (("--filter", "ip and udp"), lambda _, data, *rest: is_ipv4(data, 17)),
        (("--filter", "ip and tcp", "--end", "6"), lambda t, data, *_: is_ipv4(data, 6) and t < FIRST_NS + 6 * SECOND),
    ],
)
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_the_rest_is_what_a_cut_capture_is(
    capsys: Capsys, tmp_path: Path, options: tuple[str, ...], keep: Callable[..., bool], engine: str
) -> None:
    rest = [frame for frame in SHOP_FRAMES if keep(*frame)]
    cut = write_pcapng(tmp_path / "cut.pcapng", rest)
    expected, whole = rows(capsys, SHOP[0], cut, "--engine", engine)
    found, report = rows(capsys, *SHOP, *options, "--engine", engine)
    assert found == expected
    same(report, whole)
    assert whole["left_out"] is None
    left_out = report["left_out"]
    assert sum(number or 0 for number in left_out.values()) == len(SHOP_FRAMES) - len(rest)
    given = {"before_start": "--start", "after_end": "--end", "filter": "--filter", "duplicates": "--dedup"}
    assert {name: number is not None for name, number in left_out.items()} == {
        name: option in options for name, option in given.items()
    }


def test_steps_come_in_order_and_count_apart(capsys: Capsys, tmp_path: Path) -> None:
    web = [ethernet(ip(CLIENT, SERVER, tcp(1000 + n, 80, "S"))) for n in range(5)]
    dns = ethernet(ip(CLIENT, SERVER, udp(53, 53)))
    frames = [(n * SECOND, frame, len(frame), 1) for n, frame in enumerate(web)]
    frames += [(2 * SECOND + n, dns, len(dns), 1) for n in range(3)] + [(2 * SECOND + 9, web[2], len(web[2]), 1)]
    frames.sort(key=lambda frame: frame[0])
    path = write_pcapng(tmp_path / "some.pcapng", frames)
    found, report = rows(
        capsys, write_policy(tmp_path), path, "--start", "1", "--end", "4", "--filter", "tcp", "--dedup"
    )
    assert [json.loads(line)["sport"] for line in found] == [1001, 1002, 1003]
    assert [json.loads(line)["packet"] for line in found] == [1, 2, 3]
    assert report["left_out"] == {"before_start": 1, "after_end": 1, "filter": 3, "duplicates": 1}
    assert report["packets"] == 3 and report["first_time"] == "1.000000000"


# Many batches


def test_batches_that_lose_all_their_packets_are_passed_over(capsys: Capsys, tmp_path: Path) -> None:
    count = 50_000
    frames = [
        pcap_record(ethernet(ip(CLIENT, SERVER, udp(n + 1, 53 if n % 20_000 == 7 else 54))), time=(n // 1000, 0))
        for n in range(count)
    ]
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap_head() + b"".join(frames))
    policy = parse_policy(POLICY)
    told = []
    result = replay(policy, path, reading=ReadOptions(filter="dst port 53"), progress=lambda *done: told.append(done))
    assert result.packets == 3 and result.left_out == PacketsLeftOut(filter=count - 3)
    # Who waits is told, and can interrupt, though nothing comes.
    assert len(told) >= count // 8192 and told[-1][0] == count
    result = replay(policy, path, reading=ReadOptions(start="20", end="20.5"), jobs=2)
    assert result.packets == 1000 and result.left_out == PacketsLeftOut(20_000, 29_000)


# Several captures, changes, going on


def test_seconds_count_from_the_first_packet_of_all_captures(capsys: Capsys, tmp_path: Path) -> None:
    first = write_capture(tmp_path, *handshake(1000, 80), name="a.pcap", first_second=1000)
    second = write_capture(tmp_path, *handshake(1001, 80), name="b.pcap", first_second=1010)
    found, report = rows(capsys, write_policy(tmp_path), first, second, "--start", "10")
    assert len(found) == 3 and report["left_out"]["before_start"] == 3
    # An earlier packet in the second: what is first is what came first.
    found, report = rows(capsys, write_policy(tmp_path), second, first, "--start", "0", "--end", "5")
    assert len(found) == 3 and report["left_out"] == {
        "before_start": 3, "after_end": 0, "filter": None, "duplicates": None
    }  # fmt: skip


def test_changes_count_from_the_first_packet_though_it_is_left_out(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    changes = tmp_path / "changes.yaml"
    changes.write_text(
        "changes:\n  - {at: 5, remove_rule: {group: web, rule: web/inbound/1}}\n"
        "  - {at: 0.5, add_rule: {group: web, rule: {direction: inbound, protocol: tcp, ports: 81}}}\n"
    )
    frames = [(n * SECOND, ethernet(ip(CLIENT, SERVER, tcp(1000 + n, 80, "S"))), 54, 1) for n in range(8)]
    path = write_pcapng(tmp_path / "some.pcapng", frames)
    found, report = rows(capsys, policy, path, "--changes", changes, "--start", "3")
    assert [json.loads(line)["verdict"] for line in found] == ["allow"] * 2 + ["deny"] * 3
    assert [change["time"] for change in report["changes"]] == ["0.500000000", "5.000000000"]
    # Where nothing is left the file must still be right, and what it says comes after the last packet.
    found, report = rows(capsys, policy, path, "--changes", changes, "--start", "9")
    assert found == [] and report["changes_left"] == 2


def mirrored(frames: Iterable[bytes]) -> list[bytes]:
    return [ethernet(ip("192.0.2.1", "192.0.2.2", vxlan(frame))) for frame in frames]


def test_replay_that_goes_on_counts_from_its_beginning_and_adds_up(capsys: Capsys, tmp_path: Path) -> None:
    policy, state = write_policy(tmp_path), tmp_path / "state"
    first = write_capture(tmp_path, *mirrored(handshake(1000, 80)), name="a.pcap", first_second=1000)
    later = mirrored([*handshake(1001, 80), *handshake(1002, 22)])
    second = write_capture(tmp_path, *later, name="b.pcap", first_second=1010)
    cut = ("--start", "10", "--end", "10.004", "--decap", "vxlan")
    whole, expected = rows(capsys, policy, first, second, *cut)
    before, _ = rows(capsys, policy, first, *cut, "--snapshot", state)
    after, report = rows(capsys, policy, second, *cut, "--resume", state)
    assert before + after == whole and len(whole) == 4
    same(report, expected)
    assert report["left_out"] == expected["left_out"] and report["left_out"]["before_start"] == 3
    assert report["decapsulated"] == {"vxlan": 9}
    done = sgfast(capsys, "replay", policy, second, "--json", "--resume", state)
    assert done.status == 2 and "that replay had --decap vxlan, not (none)" in done.one_line()
    # Who went on from a replay that left nothing out, or leaves nothing out any more.
    a, b = PacketsLeftOut(1, None, 3), PacketsLeftOut(10, 20)
    assert both_left_out(a, b) == PacketsLeftOut(11, 20, 3)
    assert both_left_out(None, b) == both_left_out(b, None) == b and both_left_out(None, None) is None


# Reports


def test_every_report_says_what_was_left_out_and_which_tunnels_were_taken_off(capsys: Capsys, tmp_path: Path) -> None:
    capture, page = tmp_path / "mirrored.pcapng", tmp_path / "page.html"
    outside = mirrored(data for _, data, *_ in SHOP_FRAMES)
    write_pcapng(capture, [(time, new, len(new), 1) for (time, *_), new in zip(SHOP_FRAMES, outside, strict=True)])
    cut = ("--start", "1", "--end", "12", "--filter", "not port 22", "--dedup", "--decap", "auto")
    report = rows(capsys, SHOP[0], capture, *cut)[1]
    expected, tunnels = report["left_out"], report["decapsulated"]
    assert expected == rows(capsys, *SHOP, *cut)[1]["left_out"] and tunnels["vxlan"] > 100
    words = (
        f"Left out: {expected['before_start']} before --start, {expected['after_end']} at --end or later, "
        f"{expected['filter']} by --filter"
    )
    taken_off = f"taken off packets: vxlan {tunnels['vxlan']}"
    assert min(expected["before_start"], expected["after_end"], expected["filter"]) > 0
    proposed = SHOP[0].replace("shop.yaml", "shop.proposed.yaml")
    diff = ("diff", SHOP[0], proposed, capture, *cut)
    check, suggest = ("check", SHOP[0], "--traffic", capture, *cut), ("suggest", capture, "--instances", SHOP[0], *cut)
    replay = ("replay", SHOP[0], capture, *cut, "--report", page)
    for command in (replay, diff, (*diff, "--format", "markdown")):
        done = sgfast(capsys, *command)
        assert words in done.out.replace("\n          ", " ") and taken_off in done.out
    assert words in page.read_text() and taken_off in page.read_text()
    found = valid("diff", json.loads(sgfast(capsys, *diff, "--json").out))
    assert (found["left_out"], found["decapsulated"]) == (expected, tunnels)
    found = valid("check", json.loads(sgfast(capsys, *check, "--json").out))
    assert found["traffic"]["left_out"] == expected
    assert words.replace("Left", "left") in " ".join(sgfast(capsys, *check).out.split())
    found = valid("suggestion", json.loads(sgfast(capsys, *suggest, "--json").out))
    assert found["packets_left_out"] == expected
    assert f"{expected['filter']} by --filter" in " ".join(sgfast(capsys, *suggest).out.split())


def test_nothing_is_said_where_nothing_was_to_be_left_out(capsys: Capsys, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = sgfast(capsys, "replay", *SHOP, "--report", page)
    assert "Left out" not in done.out and "Left out" not in page.read_text()
    for command, name, place in (
        (("diff", SHOP[0], SHOP[0], SHOP[1]), "diff", ("left_out",)),
        (("check", SHOP[0], "--traffic", SHOP[1]), "check", ("traffic", "left_out")),
        (("suggest", SHOP[1], "--instances", SHOP[0]), "suggestion", ("packets_left_out",)),
    ):
        found = valid(name, json.loads(sgfast(capsys, *command, "--json").out))
        for key in place:
            found = found[key]
        assert found is None
    done = sgfast(capsys, "replay", *SHOP, "--start", "0")
    assert "Left out: nothing" in done.out


def test_suggestion_is_for_what_is_left(capsys: Capsys, tmp_path: Path) -> None:
    made = tmp_path / "made.yaml"
    done = sgfast(capsys, "suggest", SHOP[1], "--instances", SHOP[0], "--filter", "tcp port 80", "-o", made)
    assert done.status == 0
    text = made.read_text()
    assert "ports: 80" in text and "6379" not in text and "icmp" not in text
    left_out = json.loads(sgfast(capsys, "replay", *SHOP, "--filter", "tcp port 80", "--json").out)["left_out"]
    assert f"# Not looked at: {left_out['filter']} packets" in text


# Copies nobody asked about


def doubled(folder: Path, packets: int, copies: int) -> Path:
    """Write a capture of ``packets`` different packets, of which the first ``copies`` appear twice."""
    frames = []
    for n in range(packets):
        frame = ethernet(ip(CLIENT, SERVER, udp(n % 65000 + 1, 53, n.to_bytes(4, "big"))))
        frames += [frame] * (2 if n < copies else 1)
    path = folder / "doubled.pcap"
    path.write_bytes(pcap_head() + b"".join(map(pcap_record, frames)))
    return path


@pytest.mark.parametrize(
    ("packets", "copies", "told"),
    [
        (MANY_COPIES, MANY_COPIES, True),
        (MANY_COPIES, MANY_COPIES - 1, False),
        (2000, LOOKED_AT // 2, True),
        (100_000, 0, False),
    ],
)
def test_capture_that_holds_packets_twice_is_told_of(
    capsys: Capsys, tmp_path: Path, packets: int, copies: int, told: bool
) -> None:
    policy, path = write_policy(tmp_path), doubled(tmp_path, packets, copies)
    for arguments in (("replay", policy, path), ("diff", policy, policy, path)):
        done = sgfast(capsys, *arguments)
        assert ("--dedup" in done.out) is told
    for form in ("json", "sarif"):
        done = sgfast(capsys, "check", policy, "--traffic", path, "--format", form)
        assert ("--dedup" in done.out) is told
    for arguments in (("replay", policy, path, "--dedup"), ("check", policy, "--traffic", path, "--dedup")):
        done = sgfast(capsys, *arguments)
        assert "warning" not in done.err and done.status == 0
    done = sgfast(capsys, "replay", policy, path, "--dedup")
    assert (f"{copies} duplicates" in done.out) is (copies > 0)


def test_bfd_is_not_told_of_as_packets_that_are_there_twice(capsys: Capsys, tmp_path: Path) -> None:
    frames = [ethernet(ip(*ends, udp(49152, 3784, bytes(24)))) for ends in ((CLIENT, SERVER), (SERVER, CLIENT))]
    path = tmp_path / "bfd.pcap"
    path.write_bytes(pcap_head() + b"".join(
        pcap_record(frame, time=(1000 + n // 20, n % 20 * 50_000)) for n in range(400) for frame in frames
    ))  # fmt: skip
    done = sgfast(capsys, "replay", write_policy(tmp_path), path)
    assert done.status == 0 and "--dedup" not in done.out


@pytest.mark.parametrize(("share", "told"), [(ONE_IN, True), (ONE_IN + 1, False)])
def test_few_copies_among_many_packets_are_not_told_of(share: int, told: bool) -> None:
    selection = PacketSelection(ReadOptions(), None)
    # Batches that are not looked at consist of copies only.
    copies = FrameBatch.from_frames([ethernet(ip(CLIENT, SERVER, udp(1, 53)))] * LOOKED_AT, [0] * LOOKED_AT)
    for n in range(MANY_COPIES * share // LOOKED_AT + 1):
        frames = []
        for k in range(LOOKED_AT):
            frame = ethernet(ip(CLIENT, SERVER, udp(1, 53, bytes([n, *divmod(k, 256)]))))
            frames.append(frames[-1] if k % share == share - 1 else frame)
        selection.apply(FrameBatch.from_frames(frames, [n * SECOND] * LOOKED_AT))
        for _ in range(LOOK_EVERY // LOOKED_AT - 1):
            selection.apply(copies)
    assert len(copies) == LOOKED_AT
    assert selection.copies_seen[0] == 2 * LOOKED_AT and selection.copies_seen[1] >= MANY_COPIES
    assert are_copies(*selection.copies_seen) is told and selection.left_out() is None


@pytest.mark.parametrize("size", [1, 100, 340, 6553, LOOK_EVERY + LOOKED_AT // 2])
def test_the_same_packets_are_checked_for_copies_whatever_a_batch_holds(size: int) -> None:
    """A batch has a window of the file: few large packets, or many small ones."""
    batch = FrameBatch.from_frames([ethernet(ip(CLIENT, SERVER, udp(1, 53)))] * size, [0] * size)
    selection = PacketSelection(ReadOptions(), None)
    batches = 3 * LOOK_EVERY // size if size > 1 else 1000
    for _ in range(batches):
        selection.apply(batch)
    whole, rest = divmod(batches * size, LOOK_EVERY)
    assert selection.copies_seen[0] == LOOKED_AT * whole + min(rest, LOOKED_AT)


# Errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--start", "soon"), "--start: must be a time after the first packet"),
        (("--start", "2026-11-25T00:33:00Z", "--end", "1"), "--end: must be after --start"),
        (("--filter", "port http"), "--filter: column 6: expected a port"),
        (("--filter", ""), "--filter: column 1"),
        (("--filter", "tcp\n\x1b"), "\\x1b"),
        (("--start",), "--start"),
    ],
)
def test_what_cannot_be_understood_is_one_line_and_nothing_is_written(
    capsys: Capsys, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = sgfast(capsys, "replay", *SHOP, "--verdicts", tmp_path / "verdicts", *options)
    assert done.status == 2 and done.out == "" and words in done.one_line()
    assert list(tmp_path.iterdir()) == []


def test_damage_is_told_though_the_packets_before_it_are_left_out(capsys: Capsys, tmp_path: Path) -> None:
    path = write_capture(tmp_path, *handshake(1000, 80))
    path.write_bytes(path.read_bytes()[:-5])
    done = sgfast(capsys, "replay", write_policy(tmp_path), path, "--start", "1h")
    assert done.status == 3 and "Left out: 2 before --start" in done.out and "packet 3" in done.err
