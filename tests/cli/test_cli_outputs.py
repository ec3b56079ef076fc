"""The files ``sgfast replay`` writes beside its report: each says the same, and appears whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
from importlib.util import find_spec
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from captures import FURTHEST_NS, Packet, drain, enhanced, interface, option, section, simple, tsresol
from command import (
    PCAPS,
    SHOP,
    environment,
    handshake,
    has_written,
    mixture,
    process,
    sgfast,
    shell,
    start,
    wait_for,
    write_capture,
    write_policy,
)
from effort import some
from frames import ethernet, ip, sll, sll2, udp
from tables import flattened, rows_of, texts, typed
from wireshark import capinfos, comment_of, needs_capinfos, needs_tshark, tshark

from sgfast.base.errors import pip_install
from sgfast.rows.row_schema import CONNECTION_ROWS, PACKET_ROWS
from sgfast.traffic.capture import open_capture

Capsys = pytest.CaptureFixture[str]
HAS_PYARROW = find_spec("pyarrow") is not None

#: Name -> policy, captures and options: the recordings, and a capture of several kinds of links made by hand.
REPLAYS = {
    "shop": SHOP,
    "shop, verbatim": (*SHOP, "--mode", "verbatim"),
    "shop, changes": (*SHOP, "--changes", str(PCAPS / "shop.changes.yaml")),
    "changes": tuple(str(PCAPS / "changes" / name) for name in ("policy.yaml", "network.pcap")),
    "changes, changed": (
        *(str(PCAPS / "changes" / name) for name in ("policy.yaml", "network.pcap")),
        "--changes", str(PCAPS / "changes" / "changes.yaml"), "--jobs", "2",
    ),
    "programs": tuple(
        str(PCAPS / "programs" / name) for name in ("services.yaml", "network.pcap", "client.pcap", "server.pcap")
    ),
    "mixed": (),
}  # fmt: skip


def several_links(folder: Path) -> Path:
    """Two sections; Ethernet, cooked and raw frames; times of four resolutions, of before 1970 too; cut packets."""
    frames = mixture()
    offset = option(14, (-2 * 10**9).to_bytes(8, "big", signed=True), ">")
    first = ip("198.51.100.7", "10.0.0.5", udp(9, 80, bytes(100)))
    path = folder / "several.pcapng"
    path.write_bytes(
        section(options=option(4, b"other") + option(0, b""))
        + interface(options=option(2, b"eth0") + tsresol(9) + option(0, b""))
        + interface(link_type=101, snaplen=40, options=tsresol(6))
        + interface(link_type=276, options=tsresol(0x8A))
        + b"".join(
            enhanced(frame, ticks=10**18 + n, options=option(1, b"an old comment") + option(0, b""))
            for n, frame in enumerate(frames)
        )
        + enhanced(first[:40], ticks=10**15 + 1, wire=len(first), number=1)
        + enhanced(first, ticks=10**15 + 2, number=1)
        + enhanced(sll2(first), ticks=(10**9 << 10) + 7, number=2)
        + section(">")
        + interface(">", link_type=113, options=tsresol(3, ">") + offset)
        + enhanced(sll(first), ">", ticks=10**12)
        + enhanced(sll(first), ">", ticks=3 * 10**12 + 123)
        + simple(sll(first), ">")
        + enhanced(sll(first), ">", ticks=2**64 - 1, wire=9000)
    )
    return path


def arguments(name: str, folder: Path) -> tuple[str, ...]:
    return REPLAYS[name] or (str(write_policy(folder)), str(several_links(folder)))


def captures_in(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word.endswith((".pcap", ".pcapng"))]


def packets_in(*paths: str | Path) -> list[Packet]:
    packets: list[Packet] = []
    for path in paths:
        with open_capture(str(path)) as reader:
            packets += drain(reader)
            assert reader.damage is None
    return packets


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


# Agreement


@pytest.mark.parametrize("name", REPLAYS)
def test_tables_say_what_the_lines_say(capsys: Capsys, tmp_path: Path, name: str) -> None:
    words = arguments(name, tmp_path)
    for ending in ("jsonl", "csv", "CSV", *["parquet"] * HAS_PYARROW):
        outcome = sgfast(
            capsys, "replay", *words, "-q", "--verdicts", tmp_path / f"v.{ending}",
            "--connections", tmp_path / f"c.{ending}",
        )  # fmt: skip
        assert outcome.status == 0 and outcome.err == ""
    packets, flows = objects(tmp_path / "v.jsonl"), objects(tmp_path / "c.jsonl")
    assert len(packets) == len(packets_in(*captures_in(words)))
    for table, lines, fields in (("v", packets, PACKET_ROWS.names), ("c", flows, CONNECTION_ROWS.names)):
        tables: list[tuple[list[Any], list[Any]]] = []
        tables.append((csv_rows(tmp_path / f"{table}.csv"), [texts(flattened(line, fields)) for line in lines]))
        if HAS_PYARROW:
            tables.append((rows_of(tmp_path / f"{table}.parquet"), [typed(line, fields) for line in lines]))
        for found, expected in tables:
            if table == "c":        # those that live at the end come in no order
                found, expected = sorted(found, key=str), sorted(expected, key=str)
            assert found == expected
    assert (tmp_path / "v.csv").read_bytes() == (tmp_path / "v.CSV").read_bytes()


@pytest.mark.parametrize(("name", "ending"), [*((name, "pcapng") for name in REPLAYS), ("shop", "pcap")])
def test_split_captures_hold_every_packet_but_moot_ones(capsys: Capsys, tmp_path: Path, name: str, ending: str) -> None:
    words = arguments(name, tmp_path)
    lines, whole = tmp_path / "lines", tmp_path / "whole.pcapng"
    denied, allowed = tmp_path / f"denied.{ending}", tmp_path / f"allowed.{ending.upper()}"
    outcome = sgfast(
        capsys, "replay", *words, "-q", "--verdicts", lines, "--write", whole, "--write-denied", denied,
        "--write-allowed", allowed,
    )  # fmt: skip
    assert outcome.status == 0 and outcome.err == ""
    given, verdicts = packets_in(*captures_in(words)), [line["verdict"] for line in objects(lines)]
    assert packets_in(whole) == given
    by_verdict: dict[str, list[Packet]] = {}
    for packet, verdict in zip(given, verdicts, strict=True):
        by_verdict.setdefault(verdict if verdict in ("deny", "moot") else "rest", []).append(packet)
    assert packets_in(denied) == by_verdict.get("deny", [])
    assert packets_in(allowed) == by_verdict.get("rest", [])
    if "verbatim" in words:
        assert "moot" not in by_verdict
        both = sorted(packets_in(denied) + packets_in(allowed))
        assert both == sorted(given)


@pytest.mark.parametrize("name", REPLAYS)
def test_an_annotated_capture_is_judged_as_the_first_was(capsys: Capsys, tmp_path: Path, name: str) -> None:
    words = arguments(name, tmp_path)
    first, second, whole, again = (tmp_path / n for n in ("first", "second", "whole.pcapng", "again.pcapng"))
    sgfast(capsys, "replay", *words, "-q", "--verdicts", first, "--write", whole)
    others = [word for word in words if word not in captures_in(words)]
    sgfast(capsys, "replay", others[0], whole, *others[1:], "-q", "--verdicts", second, "--write", again)
    assert first.read_bytes() == second.read_bytes()
    # An interface a kind of link, old comments gone: written again, nothing changes.
    assert whole.read_bytes() == again.read_bytes()


def test_the_reference_engine_writes_the_same(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *mixture())
    digests = []
    for engine in ("fast", "reference"):
        files = [tmp_path / f"{engine}-{n}" for n in ("whole.pcapng", "denied.pcap", "allowed.pcap")]
        options = zip(("--write", "--write-denied", "--write-allowed"), files, strict=True)
        words = [word for pair in options for word in pair]
        assert sgfast(capsys, "replay", policy, capture, "--engine", engine, *words).status == 0
        digests.append([path.read_bytes() for path in files])
    assert digests[0] == digests[1]


@needs_tshark
@pytest.mark.parametrize("name", REPLAYS)
def test_tshark_shows_the_verdict_lines(capsys: Capsys, tmp_path: Path, name: str) -> None:
    words = arguments(name, tmp_path)
    lines, whole = tmp_path / "lines", tmp_path / "whole.pcapng"
    sgfast(capsys, "replay", *words, "-q", "--verdicts", lines, "--write", whole)
    rows = tshark(whole, "frame.number", "frame.time_epoch", "frame.len", "frame.cap_len", "frame.comment")
    expected = [
        [str(line["packet"]), line["time"], str(packet.wire), str(len(packet.data)), comment_of(line)]
        for line, packet in zip(objects(lines), packets_in(*captures_in(words)), strict=True)
    ]
    assert rows == expected


@needs_capinfos
@pytest.mark.parametrize("name", [name for name in REPLAYS if "," not in name])
def test_capinfos_agrees_on_what_is_written(capsys: Capsys, tmp_path: Path, name: str) -> None:
    words = arguments(name, tmp_path)
    denied, allowed = tmp_path / "denied.pcapng", tmp_path / "allowed.pcapng"
    sgfast(capsys, "replay", *words, "-q", "--write-denied", denied, "--write-allowed", allowed)
    encapsulations = {1: "ether", 101: "rawip", 113: "linux-sll", 276: "linux-sll2"}
    for path in (denied, allowed):
        packets, told = packets_in(path), capinfos(path)
        assert int(told["Number of packets"]) == len(packets)
        assert int(told["Data size (bytes)"]) == sum(packet.wire for packet in packets)
        links = {packet.link_type for packet in packets}
        kind = "none" if not links else encapsulations[links.pop()] if len(links) == 1 else "per-packet"
        assert told["File encapsulation"] == kind
        assert not packets or told["File time precision"] == "nanoseconds"
        times = [packet.time_ns for packet in packets]
        if times and min(times) >= 0:       # capinfos, unlike tshark, mistakes what is older than 1970
            for word, time_ns in (("Start time", min(times)), ("End time", max(times))):
                assert told[word] == f"{time_ns // 10**9}.{time_ns % 10**9:09d}"


def test_the_hand_made_capture_has_what_it_promises(tmp_path: Path) -> None:
    packets = packets_in(several_links(tmp_path))
    assert {packet.link_type for packet in packets} == {1, 101, 113, 276}
    assert any(packet.wire > len(packet.data) for packet in packets)
    times = [packet.time_ns for packet in packets]
    assert min(times) < 0 and max(times) == FURTHEST_NS - 2 * 10**18 and any(time % 1000 for time in times)


# Files without rows, and damage


def test_a_capture_without_packets_leaves_files_that_are_some(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path)
    made = [tmp_path / name for name in ("v.csv", "c.csv", "whole.pcapng", "denied.pcap", "allowed.pcapng")]
    outcome = sgfast(
        capsys, "replay", policy, capture, "--verdicts", made[0], "--connections", made[1], "--write", made[2],
        "--write-denied", made[3], "--write-allowed", made[4],
    )  # fmt: skip
    assert outcome.status == 0
    assert made[0].read_text().count("\n") == made[1].read_text().count("\n") == 1
    assert [packets_in(path) for path in made[2:]] == [[], [], []]


def test_damage_part_way_leaves_all_that_came_before(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 8080))
    capture.write_bytes(capture.read_bytes()[:-5])
    whole, rows = tmp_path / "whole.pcapng", tmp_path / "v.csv"
    assert sgfast(capsys, "replay", policy, capture, "--write", whole, "--verdicts", rows).status == 3
    assert len(packets_in(whole)) == len(csv_rows(rows)) == 2


# Names


def test_endings_that_do_not_go_with_an_option(capsys: Capsys, tmp_path: Path) -> None:
    for option_name, name, words in (
        ("--write", "x.pcap", "cannot hold comments"),
        ("--write", "x.txt", ".pcapng"),
        ("--write", "x", ".pcapng"),
        ("--write", ".pcapng", ".pcapng"),
        ("--write-denied", "x.cap", ".pcapng or .pcap"),
        ("--write-allowed", "x\ny", "x\\ny"),
    ):
        outcome = sgfast(capsys, "replay", *SHOP, option_name, tmp_path / name)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == ""
        assert option_name in outcome.one_line()
    assert list(tmp_path.iterdir()) == []


def test_a_pcap_that_would_need_two_link_types(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), several_links(tmp_path)
    outcome = sgfast(capsys, "replay", policy, capture, "-q", "--write-denied", tmp_path / "x.pcap")
    said = r"/x\.pcap: .*ETHERNET \(1\), and that of packet 14 is LINKTYPE_RAW .* ends in \.pcapng$"
    assert outcome.status == 2 and re.search(said, outcome.one_line()), outcome.err
    assert not (tmp_path / "x.pcap").exists() and not list(tmp_path.glob(".*"))
    # The allowed ones are all of one.
    assert sgfast(capsys, "replay", policy, capture, "-q", "--write-allowed", tmp_path / "x.pcap").status == 0


TERMINAL = list(product(["-", "/dev/stdout"], ["--write", "--write-denied", "--snapshot"]))


@pytest.mark.parametrize(("path", "option_name"), TERMINAL[:: some(2, 1)])
def test_a_terminal_gets_no_bytes_it_cannot_show(path: str, option_name: str) -> None:
    leader, terminal = os.openpty()
    try:
        outcome = process("replay", *SHOP, option_name, path, stdout=terminal)
    finally:
        os.close(terminal)
        os.close(leader)
    assert outcome.status == 2 and f"{option_name}: standard output is a terminal" in outcome.one_line()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ImportError('libarrow.so: cannot map it')", "pyarrow cannot be loaded: libarrow.so: cannot map it"),
        ("ModuleNotFoundError('not here')", f"x.parquet: Parquet needs pyarrow: {pip_install('arrow')}, or"),
    ],
)
def test_without_pyarrow_one_line_says_what_is_wrong_and_nobody_else_needs_it(
    tmp_path: Path, error: str, said: str
) -> None:
    (tmp_path / "pyarrow.py").write_text(f"raise {error}\n")
    env = environment(PYTHONPATH=f"{tmp_path}:{environment()['PYTHONPATH']}")
    out = tmp_path / "out"
    out.mkdir()
    for option_name in ("--verdicts", "--connections"):
        outcome = process("replay", *SHOP, option_name, out / "x.parquet", env=env)
        assert outcome.status == 2 and outcome.out == "" and said in outcome.one_line()
        assert list(out.iterdir()) == []
    assert process("replay", *SHOP, "--verdicts", out / "x.csv", "--write", out / "x.pcapng", env=env).status == 0


# Where nothing can be written

OPTIONS = (
    ("--verdicts", ".csv"), ("--connections", ".csv"), ("--verdicts", ".parquet"), ("--connections", ".parquet"),
    ("--write", ".pcapng"), ("--write-denied", ".pcapng"), ("--write-denied", ".pcap"), ("--write-allowed", ".pcap"),
)  # fmt: skip


def skip_without_pyarrow(ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="no pyarrow here")


@pytest.mark.parametrize(("option_name", "ending"), OPTIONS)
def test_outputs_that_cannot_be_written(capsys: Capsys, tmp_path: Path, option_name: str, ending: str) -> None:
    skip_without_pyarrow(ending)
    folder, loop, full = (tmp_path / f"{name}{ending}" for name in ("folder", "loop", "full"))
    folder.mkdir()
    loop.symlink_to(loop)
    full.symlink_to("/dev/full")
    for path, words in (
        (tmp_path / "missing" / f"file{ending}", "directory does not exist"),
        (folder, "is a directory"),
        (Path(SHOP[1]) / f"file{ending}", "Not a directory"),
        (loop, "symbolic links"),
        (full, "No space left"),
    ):
        outcome = sgfast(capsys, "replay", *SHOP, option_name, path)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == "", path
    assert sorted(tmp_path.iterdir()) == sorted([folder, full, loop])


def large(folder: Path) -> tuple[Path, Path]:
    """A policy, and a capture of which much is denied and much allowed. As Parquet packs well, ports differ."""
    frames = [ethernet(ip("198.51.100.7", "10.0.0.5", udp(n, n * 7919 % 65521 + 1))) for n in range(1, 8000)]
    allowed = [frame for n in range(1500) for frame in handshake(1000 + n, 80)]
    return write_policy(folder), write_capture(folder, *frames, *allowed)


@pytest.mark.parametrize(("option_name", "ending"), OPTIONS)
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, option_name: str, ending: str) -> None:
    skip_without_pyarrow(ending)
    policy, capture = large(tmp_path)
    target = tmp_path / f"target{ending}"
    target.write_text("old")
    # A limit on file sizes stands for the disk.
    outcome = shell(
        'ulimit -f 8; trap "" XFSZ; $sgfast replay "$policy" "$capture" -q $option "$target"',
        policy=policy, capture=capture, target=target, option=option_name,
    )  # fmt: skip
    assert outcome.status == 2 and "File too large" in outcome.one_line()
    assert target.read_text() == "old" and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("option_name", "ending"), OPTIONS)
def test_a_closed_pipe_is_quiet(tmp_path: Path, option_name: str, ending: str) -> None:
    skip_without_pyarrow(ending)
    policy, capture = large(tmp_path)
    fifo, kept = tmp_path / f"fifo{ending}", tmp_path / "kept.pcapng"
    outcome = shell(
        'mkfifo "$fifo"; head -c 3 "$fifo" >/dev/null & '
        '$sgfast replay "$policy" "$capture" -q $option "$fifo" $other "$kept" >/dev/null; exit $?',
        policy=policy, capture=capture, fifo=fifo, kept=kept, option=option_name,
        other="--write-denied" if option_name == "--write" else "--write",
    )  # fmt: skip
    assert outcome.status == 141 and outcome.err == ""
    assert not kept.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("option_name", ["--write", "--write-denied", "--write-allowed"][: some(1, 3)])
def test_standard_output_holds_nothing_but_the_capture(tmp_path: Path, option_name: str) -> None:
    path = tmp_path / "x.pcapng"
    with path.open("wb") as out:
        outcome = process("replay", *SHOP, option_name, "-", stdout=out)
    assert outcome.status == 0 and "261 packets" in outcome.err
    other = tmp_path / "y.pcapng"
    assert process("replay", *SHOP, option_name, other).status == 0
    assert path.read_bytes() == other.read_bytes()


def test_a_capture_in_a_pipe_to_another_replay(tmp_path: Path) -> None:
    policy, capture = SHOP
    outcome = shell(
        '$sgfast replay "$policy" "$capture" --write - 2>/dev/null | $sgfast replay "$policy" - --json; '
        '$sgfast replay "$policy" "$capture" --write-denied >(cat >"$out") >/dev/null; wait $!',
        policy=policy, capture=capture, out=tmp_path / "denied",
    )  # fmt: skip
    assert json.loads(outcome.out)["packets"] == 261 and outcome.err == ""


def test_captures_that_are_written_neither_share_a_place_nor_overwrite_inputs(capsys: Capsys, tmp_path: Path) -> None:
    capture = several_links(tmp_path)
    policy, before = write_policy(tmp_path), capture.read_bytes()
    for one, other in combinations(("--write", "--write-denied", "--write-allowed"), 2):
        for option_name in (one, other):
            outcome = sgfast(capsys, "replay", policy, capture, option_name, capture)
            assert outcome.status == 2 and "is also an input" in outcome.one_line()
        outcome = sgfast(capsys, "replay", policy, capture, one, "-", other, "-")
        assert outcome.status == 2 and "two outputs" in outcome.one_line() and outcome.out == ""
    assert capture.read_bytes() == before


def test_an_error_of_one_output_leaves_none(capsys: Capsys, tmp_path: Path) -> None:
    # The last to be opened; and one that fails when everything else is written.
    for options in (
        ("--write-allowed", tmp_path / "missing" / "x.pcapng"),
        ("--write-denied", "/dev/full"),
    ):
        outcome = sgfast(
            capsys, "replay", *SHOP, "--verdicts", tmp_path / "v.csv", "--connections", tmp_path / "c",
            "--write", tmp_path / "whole.pcapng", "--snapshot", tmp_path / "state", *options,
        )  # fmt: skip
        assert outcome.status == 2 and outcome.out == ""
        outcome.one_line()
        assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_of_any(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="no pyarrow here")
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    folder = tmp_path / "out"
    folder.mkdir()
    files = ("--write", folder / "w.pcapng", "--verdicts", folder / "v.parquet", "--connections", folder / "c.csv")
    with start("replay", policy, "-", *files, stdin=subprocess.PIPE, text=False) as child:
        child.stdin.write(capture.read_bytes())
        child.stdin.flush()
        # It has begun to write, and waits for the rest of the capture.
        wait_for(lambda: has_written(child, folder))
        child.send_signal(signal.SIGTERM)
        err = child.stderr.read().decode()
        assert child.wait() == 128 + signal.SIGTERM
    assert err == "sgfast: terminated\n" and list(folder.iterdir()) == []


def test_everything_at_once_with_a_replay_that_goes_on(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    first = write_capture(tmp_path, *handshake(1000, 80)[:2], name="a.pcap")
    second = write_capture(tmp_path, *handshake(1000, 80)[2:], name="b.pcap", first_second=1001)
    state = tmp_path / "state"
    for capture, options in ((first, ("--snapshot", state)), (second, ("--resume", state))):
        outcome = sgfast(
            capsys, "replay", policy, capture, *options, "--verdicts", tmp_path / f"{capture.name}.csv",
            "--connections", tmp_path / f"{capture.name}.c.csv", "--write", tmp_path / f"{capture.name}.pcapng",
        )  # fmt: skip
        assert outcome.status == 0
    rows = [row for name in ("a", "b") for row in csv_rows(tmp_path / f"{name}.pcap.csv")]
    assert [(row["packet"], row["reason"]) for row in rows] == [
        ("1", "rule"), ("2", "established"), ("3", "established")
    ]  # fmt: skip
    assert len(packets_in(tmp_path / "b.pcap.pcapng")) == 1
    assert csv_rows(tmp_path / "a.pcap.c.csv") == []
    (flow,) = csv_rows(tmp_path / "b.pcap.c.csv")
    assert flow["packets_from_initiator"] == "2"
