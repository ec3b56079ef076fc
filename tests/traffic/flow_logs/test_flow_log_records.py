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
from flow_logs import CLIENT, DB, GOOD, POLICY, WEB, record

from sgfast import replay
from sgfast.base.errors import SgfastError
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS
from sgfast.clouds.loading import parse_policy


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
    outcome = sgfast(capsys, "replay", policy, log, "--json", "-q")
    assert outcome.status == 3
    assert of_records(outcome.out) == (3, {"copy": 1, "broken": 1})
    said = json.loads(outcome.out)["warnings"][0]
    assert said.startswith(f"{log}: line 2: ") and cause in said and said.isprintable()


def of_records(out: str) -> tuple[int, dict[str, int]]:
    """The number of records that a replay read, and of those that it left out, by cause."""
    records = valid("summary", json.loads(out))["records"]
    return records["read"], records["left_out"]


def damage_of(out: str) -> list[str]:
    damaged: list[str] = json.loads(out)["records"]["damaged"]
    return damaged


def test_compressed_logs_and_standard_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, plain = write_policy(tmp_path, POLICY), tmp_path / "plain.log"
    nothing = "2 1 eni-1 - - - - - - - 1431280876 1431280934 - NODATA\n"
    header = " ".join(DEFAULT_FIELDS) + "\n"
    text = header + GOOD + "\n" + nothing + nothing.replace("NODATA", "SKIPDATA")
    plain.write_text(text)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(text.encode()) + gzip.compress(text.encode()))
    outcome = sgfast(capsys, "replay", policy, plain, packed, "--json", "-q")
    assert (outcome.status, of_records(outcome.out)) == (0, (9, {"copy": 2, "no-data": 3, "lost": 3}))
    outcome = process("replay", policy, "-", "--json", "-q", input=text)
    assert (outcome.status, of_records(outcome.out)) == (0, (3, {"no-data": 1, "lost": 1}))
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-20])
    outcome = sgfast(capsys, "replay", policy, packed, plain, "--json", "-q")
    assert outcome.status == 3 and of_records(outcome.out)[0] >= 6
    assert "the compressed data is damaged" in damage_of(outcome.out)[0]


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
    outcome = sgfast(capsys, "replay", policy, log, "--json")
    assert outcome.status == 0 and of_records(outcome.out)[0] == 5000
    log.write_bytes(bz2.compress(compress(GOOD.encode())))
    outcome = sgfast(capsys, "replay", policy, log)
    assert outcome.status == 2 and "and bzip2-compressed once more: decompress it first" in outcome.one_line()


def test_a_compression_whose_package_is_missing_is_named_with_what_undoes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(zstd(GOOD.encode()))
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    outcome = sgfast(capsys, "replay", write_policy(tmp_path, POLICY), log)
    assert outcome.status == 2 and "takes the Python package backports.zstd: pip install" in outcome.one_line()


def test_a_line_without_an_end_ends_reading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path, POLICY), tmp_path / "x.log"
    # A long line is skipped, and reading continues after it.
    line = b"x" * (1 << 20)
    log.write_bytes(GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode() + b"\n")
    outcome = sgfast(capsys, "replay", policy, log, "--json")
    assert outcome.status == 3 and of_records(outcome.out) == (3, {"copy": 1, "broken": 1})
    log.write_bytes(GOOD.encode() + b"\n" + line * 10 + b"\n" + GOOD.encode() + b"\n")
    outcome = sgfast(capsys, "replay", policy, log, "--json")
    assert outcome.status == 3 and of_records(outcome.out) == (2, {"broken": 1})
    assert f"{log}: line 2: does not end" in damage_of(outcome.out)[-1]


def test_noise_never_breaks_the_reader(tmp_path: Path) -> None:
    rng = random.Random(20261125)
    lines = [GOOD, record(WEB, DB, 1, 2, 17, "REJECT"), record("2001:db8::1", "2001:db8::2", 1, 2)] * 5
    whole = "\n".join(lines).encode()
    path, policy = tmp_path / "noise.log", parse_policy(POLICY)
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
            replay(policy, path)
        except SgfastError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused < some(166, 500)
