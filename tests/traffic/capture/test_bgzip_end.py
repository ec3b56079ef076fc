"""bgzip files that end between two blocks, without the empty block that bgzip writes last (SPEC 9.6)."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from captures import Dribble, count, pcap_head, pcap_record
from command import process, sgfast, write_capture, write_policy
from packed import Seen, bgzip_file, bgzip_member, noise

from sgfast.base.streams import decompressed
from sgfast.traffic.capture import CaptureReader, open_capture

Capsys = pytest.CaptureFixture[str]

SEED = 20261204
END = bgzip_member(b"")
WORDS = "the bgzip data ends without its end marker: the file was cut between two blocks"
DRAW = random.Random(SEED)
PLAIN = pcap_head() + b"".join(pcap_record(noise(DRAW, 400), time=(n, 0)) for n in range(1, 7_000))
#: The large one is read by zlib-ng's reader.
BLOCKS = {
    "small": [PLAIN[:24], PLAIN[24 : 24 + 416 * 50]],
    "large": [PLAIN[at : at + 65_280] for at in range(0, len(PLAIN), 65_280)],
}
of_each_size = pytest.mark.parametrize("size", BLOCKS)


def packets_and_remarks(reader: CaptureReader) -> tuple[int, list[str]]:
    with reader:
        count(reader)
        assert reader.damage is None
        return reader.packets, reader.remarks


def all_ways(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    path.write_bytes(data)
    found = []
    for threads in (0, 1, 2):
        monkeypatch.setattr(decompressed._Thread, "available", threading.Semaphore(threads))
        for sizes in ((1 << 20,), (100, 1, 9000)):
            found.append(packets_and_remarks(CaptureReader(Dribble(data, sizes), str(path))))
        found.append(packets_and_remarks(open_capture(path)))
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE, bufsize=0) as child:
            assert isinstance(child.stdout, io.FileIO)
            found.append(packets_and_remarks(CaptureReader(child.stdout, str(path))))
    return found


@of_each_size
def test_a_file_without_its_end_is_told_however_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str, seen: Seen
) -> None:
    path = tmp_path / "capture.gz"
    data = b"".join(map(bgzip_member, BLOCKS[size]))
    packets = (sum(map(len, BLOCKS[size])) - 24) // 416
    whole = all_ways(path, data + END, monkeypatch)
    assert whole == [(packets, [])] * len(whole)
    lacking = all_ways(path, data, monkeypatch)
    assert lacking == [(packets, [f"{path}: {WORDS}; copy it again"])] * len(lacking)
    assert (seen.begun > 0) == (size == "large")


@of_each_size
def test_other_gzip_files_are_not_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    head, *blocks = BLOCKS[size]
    rest = b"".join(blocks)
    for data in (
        gzip.compress(head + rest, 1),
        # bgzip may begin or end such a file.
        bgzip_file([head]) + gzip.compress(rest, 1), bgzip_member(head) + gzip.compress(rest, 1),
        gzip.compress(head + rest, 1) + bgzip_file([]),
        # A block that is stored as it is, in the last one.
        gzip.compress(pcap_head() + pcap_record(bgzip_member(b"some")), 0),
    ):  # fmt: skip
        assert not any(remarks for _, remarks in all_ways(tmp_path / "capture.gz", data, monkeypatch))
    for _, remarks in all_ways(tmp_path / "capture.gz", bgzip_member(pcap_head()) + b"other", monkeypatch):
        assert [remark.partition(": ")[2] for remark in remarks] == ["other data follows the gzip data and is ignored"]


@pytest.mark.skipif(shutil.which("bgzip") is None, reason="no bgzip here")
def test_what_bgzip_writes(tmp_path: Path) -> None:
    packed = subprocess.run(["bgzip", "-c"], input=PLAIN, capture_output=True, check=True).stdout
    assert packed.endswith(END)
    for data, lacks in ((packed, False), (packed[: -len(END)], True)):
        _, remarks = packets_and_remarks(CaptureReader(io.BytesIO(data), "name"))
        assert bool(remarks) == lacks


def test_a_replay_warns_and_its_status_is_that_of_its_packets(capsys: Capsys, tmp_path: Path) -> None:
    policy, plain = write_policy(tmp_path), write_capture(tmp_path, *(noise(DRAW, 60) for _ in range(9)))
    path = tmp_path / "capture.gz"
    path.write_bytes(bgzip_member(plain.read_bytes()))
    for options in ((), ("--jobs", "2"), ("--merge",)):
        outcome = sgfast(capsys, "replay", policy, path, "--format", "json", *options)
        assert outcome.status == 0 and f"warning: {path}: {WORDS}" in outcome.err
        assert json.loads(outcome.out)["packets"] == 9
    with open(path) as given:
        outcome = process("replay", policy, "-", stdin=given)
    assert outcome.status == 0 and f"warning: standard input: {WORDS}" in outcome.err
    # A file that is cut in a packet is damaged, too.
    path.write_bytes(bgzip_member(pcap_head() + pcap_record(b"some")[:-1]))
    outcome = sgfast(capsys, "replay", policy, path)
    assert outcome.status == 3 and WORDS in outcome.err and "in the middle of a record" in outcome.err
