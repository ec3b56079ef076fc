"""Flow logs are read whatever is in them (SPEC 10.29)."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import process, sgfast, valid, write_policy
from effort import some
from flow_logs import CLIENT, DB, GOOD, POLICY, WEB, assert_adds_up, record

from sgfast.errors import FlowLogError
from sgfast.flow_logs.checking import check_logs
from sgfast.flow_logs.formats.aws import DEFAULT_FIELDS
from sgfast.loading import parse_policy


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("2 1 eni", "has 3 fields, not 14"),
        (GOOD + " more", "has 15 fields, not 14"),
        (GOOD.replace("ACCEPT", "DROP"), "action must be ACCEPT or REJECT, not DROP"),
        (GOOD.replace("OK", "FINE"), "log-status must be OK, NODATA or SKIPDATA, not FINE"),
        (GOOD.replace(" 443 ", " 65536 "), "dstport must be a number up to 65535, not 65536"),
        (GOOD.replace(" 443 ", " ٤٤٣ "), "dstport must be a number"),
        (GOOD.replace(CLIENT, "198.51.100.256"), "srcaddr must be an address"),
        (GOOD.replace(CLIENT, "fe80::1%eth0"), "srcaddr must be an address"),
        (GOOD.replace(CLIENT, "2001:db8::1"), "different IP versions"),
        (GOOD.replace(" 6 ", " 256 "), "protocol must be a number up to 255"),
        (GOOD.replace(" 6 ", " - "), "protocol must be a number up to 255"),
        (GOOD.replace(" 1000 1010 ", " 1000 999 "), "its end, 999, is before its start, 1000"),
        (GOOD.replace(" 3 ", f" {'9' * 5000} "), "packets must be a number"),
        ("\x1b[31m" + GOOD + " x\x00y", "has 15 fields"),
        ("x" * 200_000, "is longer than 65536 bytes"),
    ],
)
def test_a_broken_line_is_told_and_the_rest_is_read(
    line: str, cause: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log, policy = tmp_path / "some.log", write_policy(tmp_path, POLICY)
    log.write_text(f"{GOOD}\n{line}\n\n{GOOD}", encoding="utf-8")
    outcome = sgfast(capsys, "flowlog", policy, log, "--json", "-q")
    assert outcome.status == 3
    assert cause in outcome.one_line() and f"{log}: line 2: " in outcome.err
    found = valid("flowlog", json.loads(outcome.out))
    assert (found["records"], found["agreeing"], found["broken_lines"]) == (2, 2, 1)


def test_compressed_logs_and_standard_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, plain = write_policy(tmp_path, POLICY), tmp_path / "plain.log"
    nothing = "2 1 eni-1 - - - - - - - 1431280876 1431280934 - NODATA\n"
    header = " ".join(DEFAULT_FIELDS) + "\n"
    text = header + GOOD + "\n" + nothing + nothing.replace("NODATA", "SKIPDATA")
    plain.write_text(text)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(text.encode()) + gzip.compress(text.encode()))
    outcome = sgfast(capsys, "flowlog", policy, plain, packed, "--json", "-q")
    found = json.loads(outcome.out)
    assert (outcome.status, found["records"], found["nodata"], found["skipdata"]) == (0, 3, 3, 3)
    outcome = process("flowlog", policy, "-", "--json", "-q", input=text)
    assert (outcome.status, json.loads(outcome.out)["records"]) == (0, 1)
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-20])
    outcome = sgfast(capsys, "flowlog", policy, packed, plain, "--json", "-q")
    assert outcome.status == 3 and "the compressed data is damaged" in outcome.one_line()
    assert json.loads(outcome.out)["records"] >= 2


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "is it a flow log?"),
        (b"version: 1\nsecurity_groups: []\n", "is it a flow log?"),
        (b"junk\n" * 100_000, "is it a flow log?"),
        (bytes(10_000_000), "is it a flow log?"),
        (b"srcaddr dstaddr action start end protocol\n", "no field srcport and no dstport"),
        (None, "No such file"),
    ],
)
def test_what_is_no_flow_log_is_refused(
    content: bytes | None, cause: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "x.log"
    if content is not None:
        log.write_bytes(content)
    outcome = sgfast(capsys, "flowlog", write_policy(tmp_path, POLICY), log)
    assert outcome.status == 2 and cause in outcome.one_line()


def zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("backports.zstd").compress(data))


def lz4(data: bytes) -> bytes:
    return bytes(pytest.importorskip("lz4.frame").compress(data))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd, lz4])
def test_a_log_may_use_each_compression_that_a_capture_may(
    compress: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log, policy = tmp_path / "x.log", write_policy(tmp_path, POLICY)
    log.write_bytes(compress("\n".join([GOOD] * 5000).encode()))
    outcome = sgfast(capsys, "flowlog", policy, log, "--json")
    assert outcome.status == 0 and json.loads(outcome.out)["records"] == 5000
    log.write_bytes(bz2.compress(compress(GOOD.encode())))
    outcome = sgfast(capsys, "flowlog", policy, log)
    assert outcome.status == 2 and "and bzip2-compressed once more: decompress it first" in outcome.one_line()


def test_a_compression_whose_package_is_missing_is_named_with_what_undoes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(zstd(GOOD.encode()))
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    outcome = sgfast(capsys, "flowlog", write_policy(tmp_path, POLICY), log)
    assert outcome.status == 2 and "takes the Python package backports.zstd: pip install" in outcome.one_line()


def test_a_line_without_an_end_ends_reading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path, POLICY), tmp_path / "x.log"
    assert "is it a flow log?" in sgfast(capsys, "flowlog", policy, "/dev/zero").one_line()
    # A long line is skipped, and reading continues after it.
    line = b"x" * (1 << 20)
    log.write_bytes(GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode() + b"\n")
    outcome = sgfast(capsys, "flowlog", policy, log, "--json")
    assert outcome.status == 3 and json.loads(outcome.out)["records"] == 2
    log.write_bytes(GOOD.encode() + b"\n" + line * 10 + b"\n" + GOOD.encode() + b"\n")
    outcome = sgfast(capsys, "flowlog", policy, log, "--json")
    assert outcome.status == 3 and json.loads(outcome.out)["records"] == 1
    assert f"{log}: line 2: does not end" in json.loads(outcome.out)["damaged"][-1]


def test_noise_never_breaks_the_reader(tmp_path: Path) -> None:
    rng = random.Random(20261125)
    lines = [GOOD, record(WEB, DB, 1, 2, 17, "REJECT"), record("2001:db8::1", "2001:db8::2", 1, 2)] * 5
    whole = "\n".join(lines).encode()
    path = tmp_path / "noise.log"
    refused = 0
    changes: list[Callable[[bytearray], None]] = [
        lambda data: data.__setitem__(rng.randrange(len(data)), rng.randrange(256)),
        lambda data: data.__delitem__(slice(rng.randrange(len(data)), None)),
        lambda data: data.extend(rng.randbytes(rng.randrange(40))),
    ]
    for n in range(some(200, 600)):
        data = bytearray(gzip.compress(whole) if n % 3 == 0 else whole)
        for _ in range(rng.randrange(1, 5)):
            if data:
                rng.choice(changes)(data)
        path.write_bytes(bytes(data))
        try:
            assert_adds_up(check_logs(parse_policy(POLICY), [str(path)]))
        except FlowLogError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused < some(166, 500)
