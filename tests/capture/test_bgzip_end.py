"""bgzip files that end between two blocks, without the empty block that bgzip writes last (SPEC 9.6)."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from captures import Dribble, pcap_head, pcap_record
from command import process, sgfast, write_capture, write_policy
from parted import bgzip_file, bgzip_member, noise

from sgfast.capture import CaptureReader, decompressed, gzip_files, open_capture, parallel

Capsys = pytest.CaptureFixture[str]

SEED = 20261204
END = bgzip_member(b"")
WORDS = "the bgzip data ends without its end marker: the file was cut between two blocks"
DRAW = random.Random(SEED)
PLAIN = pcap_head() + b"".join(pcap_record(noise(DRAW, 400), time=(n, 0)) for n in range(1, 7_000))
#: The smaller ones are not read by several threads, and those of small blocks by zlib-ng's reader.
BLOCKS = {
    "small": [PLAIN[:24], PLAIN[24 : 24 + 416 * 50]],
    "parts": [PLAIN[at : at + 65_280] for at in range(0, len(PLAIN), 65_280)],
    "small blocks": [PLAIN[at : at + 5_000] for at in range(0, len(PLAIN), 5_000)],
}
of_each_size = pytest.mark.parametrize("size", BLOCKS)


def packets_and_remarks(reader: CaptureReader) -> tuple[int, list[str]]:
    with reader:
        while reader.next_batch() is not None:
            pass
        assert reader.damage is None
        return reader.packets, reader.remarks


def all_ways(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    path.write_bytes(data)
    found = []
    for threads in (0, 1, 2):
        monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(threads))
        for sizes in ((1 << 20,), (100, 1, 9000)):
            found.append(packets_and_remarks(CaptureReader(Dribble(data, sizes), str(path))))
        found.append(packets_and_remarks(open_capture(path)))
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE, bufsize=0) as child:
            assert isinstance(child.stdout, io.FileIO)
            found.append(packets_and_remarks(CaptureReader(child.stdout, str(path))))
    return found


@of_each_size
def test_a_file_without_its_end_is_told_however_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    path = tmp_path / "capture.gz"
    ways: set[str] = set()
    for kind in (parallel.ParallelParts, gzip_files.InflatedFile):
        original = kind.take

        def take(self: object, *, wait: bool, original: Callable[..., object] = original) -> object:
            ways.add(type(self).__name__)
            return original(self, wait=wait)

        monkeypatch.setattr(kind, "take", take)
    members = [bgzip_member(block) for block in BLOCKS[size]]
    packets = (sum(map(len, BLOCKS[size])) - 24) // 416
    whole = all_ways(path, b"".join(members) + END, monkeypatch)
    assert whole == [(packets, [])] * len(whole)
    lacking = all_ways(path, b"".join(members), monkeypatch)
    assert lacking == [(packets, [f"{path}: {WORDS}; copy it again"])] * len(lacking)
    assert ways == {"small": set(), "parts": {"ParallelParts"}, "small blocks": {"InflatedFile"}}[size]


def test_other_gzip_files_are_not_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "capture.gz"
    for blocks in BLOCKS.values():
        plain = b"".join(blocks)
        head, rest = plain[:24], plain[24:]
        for data in (
            gzip.compress(plain), gzip.compress(head) + gzip.compress(rest),
            # bgzip may begin or end such a file.
            bgzip_file([head]) + gzip.compress(rest), bgzip_member(head) + gzip.compress(rest),
            gzip.compress(plain) + bgzip_file([]),
        ):
            for _, remarks in all_ways(path, data, monkeypatch):
                assert remarks == []


def test_what_looks_like_a_block_does_not_count_unless_it_ends_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "capture.gz"
    # A block that is stored as it is, in the last one.
    stored = gzip.compress(pcap_head() + pcap_record(bgzip_member(b"some")), 0)
    assert all(remarks == [] for _, remarks in all_ways(path, stored, monkeypatch))
    data = bgzip_member(pcap_head()) + b"other"
    for _, remarks in all_ways(path, data, monkeypatch):
        assert remarks == [f"{path}: other data follows the gzip data and is ignored"]


@pytest.mark.skipif(shutil.which("bgzip") is None, reason="no bgzip here")
def test_what_bgzip_writes(tmp_path: Path) -> None:
    packed = subprocess.run(["bgzip", "-c"], input=PLAIN, capture_output=True, check=True).stdout
    assert packed.endswith(END)
    for data, lacks in ((packed, False), (packed[: -len(END)], True)):
        _, remarks = packets_and_remarks(CaptureReader(io.BytesIO(data), "name"))
        assert bool(remarks) == lacks


@pytest.mark.parametrize("options", [[], ["--jobs", "2"], ["--merge"]], ids=str)
def test_a_replay_warns_and_its_status_is_that_of_its_packets(
    capsys: Capsys, tmp_path: Path, options: list[str]
) -> None:
    policy, plain = write_policy(tmp_path), write_capture(tmp_path, *(noise(DRAW, 60) for _ in range(9)))
    path = tmp_path / "capture.gz"
    path.write_bytes(bgzip_member(plain.read_bytes()))
    outcome = sgfast(capsys, "replay", policy, path, "--format", "json", *options)
    assert outcome.status == 0 and f"warning: {path}: {WORDS}" in outcome.err
    assert json.loads(outcome.out)["packets"] == 9
    with open(path) as given:
        outcome = process("replay", policy, "-", *options, stdin=given)
    assert outcome.status == 0 and f"warning: standard input: {WORDS}" in outcome.err


def test_a_file_that_is_cut_in_a_packet_is_damaged_and_told(capsys: Capsys, tmp_path: Path) -> None:
    policy, path = write_policy(tmp_path), tmp_path / "capture.gz"
    path.write_bytes(bgzip_member(pcap_head() + pcap_record(b"some")[:-1]))
    outcome = sgfast(capsys, "replay", policy, path)
    assert outcome.status == 3 and WORDS in outcome.err and "in the middle of a record" in outcome.err
