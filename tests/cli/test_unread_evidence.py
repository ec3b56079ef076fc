"""Unread input lowers the evidence of every answer: broken lines, damaged files, and files that seem to be logs or
captures (SPEC 10.27).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import POLICY as WEB_POLICY
from command import handshake, sgfast, valid, write_capture
from flow_logs import CLIENT, NOON, ONE_WEB, POLICY, WEB, record

from sgfast import replay
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS
from sgfast.clouds.loading import parse_policy

Capsys = pytest.CaptureFixture[str]

#: Connections that work, and later ones that would break.
WORKS = [
    line for n in range(30)
    for line in (
        record(CLIENT, WEB, 51000 + n, 443, start=NOON + 60 * n),
        record(WEB, CLIENT, 443, 51000 + n, start=NOON + 60 * n),
    )
]  # fmt: skip
BREAKS = [
    line for n in range(20)
    for line in (
        record(CLIENT, WEB, 51000 + n, 8443, start=NOON + 4000 + n),
        record(WEB, CLIENT, 8443, 51000 + n, start=NOON + 4000 + n),
    )
]  # fmt: skip
HEADER = " ".join(DEFAULT_FIELDS)
NAMED = "1234_vpcflowlogs_eu-central-1_fl-0a1b_20240501T0000Z_5f2c.log.gz"


def text(*lines: str) -> bytes:
    return "\n".join((HEADER, *lines, "")).encode()


def in_milliseconds(line: str) -> str:
    fields = line.split(" ")
    return " ".join((*fields[:10], f"{fields[10]}000", f"{fields[11]}000", *fields[12:]))


def incompressible(lines: list[str]) -> list[str]:
    """The records with different accounts, so that they are not compressed to a few bytes."""
    return [line.replace(" 1 ", f" {hash((n, line)) % 10**12:012} ", 1) for n, line in enumerate(lines)]


def broken_lines(folder: Path) -> Path:
    (folder / "flow.log").write_bytes(text(*WORKS, *(in_milliseconds(line) for line in BREAKS)))
    return folder / "flow.log"


def cut_gzip(folder: Path) -> Path:
    """A log that is cut before everything that breaks."""
    whole = gzip.compress(text(*incompressible([*WORKS, *BREAKS])), mtime=0)
    only = gzip.compress(text(*incompressible(WORKS)), mtime=0)
    (folder / "flow.log.gz").write_bytes(whole[: len(only) * 9 // 10])
    return folder / "flow.log.gz"


def cut_capture(folder: Path) -> Path:
    frames = [frame for n in range(20) for frame in handshake(1000 + n, 80)]
    whole = write_capture(folder, *frames, *handshake(3000, 8080))
    whole.write_bytes(whole.read_bytes()[: write_capture(folder, *frames, name="part.pcap").stat().st_size + 5])
    return whole


def folder_with_a_damaged_log(folder: Path) -> Path:
    logs = folder / "logs"
    logs.mkdir()
    (logs / "a.log").write_bytes(text(*WORKS))
    (logs / "b.log.gz").write_bytes(gzip.compress(text(*BREAKS))[:8])
    return logs


Damaged = Callable[[Path], Path]
DAMAGED: dict[str, tuple[Damaged, str, int]] = {
    "broken lines": (broken_lines, ONE_WEB, 3),
    "gzip cut": (cut_gzip, ONE_WEB, 3),
    "capture cut": (cut_capture, WEB_POLICY, 3),
    "damaged log beside others": (folder_with_a_damaged_log, ONE_WEB, 1),
}


def reason_of(evidence: dict[str, Any]) -> dict[str, Any]:
    (reason,) = [each for each in evidence["reasons"] if each["code"] == "unread"]
    assert isinstance(reason, dict)
    return reason


@pytest.mark.parametrize("name", DAMAGED)
def test_what_could_not_be_read_makes_no_answer_green(capsys: Capsys, tmp_path: Path, name: str) -> None:
    made, policy_text, status = DAMAGED[name]
    policy, path, page = tmp_path / "policy.yaml", made(tmp_path), tmp_path / "page.html"
    policy.write_text(policy_text)
    given = ("replay", policy, path, "-q", "--fail-on", "would-break")
    done = sgfast(capsys, *given, "--json", "--report", page)
    found = valid("summary", json.loads(done.out))
    assert done.status == status and found["evidence"]["conclusive"] == "partly"
    reason = reason_of(found["evidence"])
    assert 0 <= reason["share"] < 0.5 and reason["level"] == "partly"
    assert 'class="good"' not in page.read_text() and reason["sentence"] in page.read_text()
    for form in ("text", "markdown"):
        told = " ".join(sgfast(capsys, *given, "--format", form).out.replace("\\", "").split())
        assert "Of what could be read: n" in told and reason["sentence"][:30] in told
    accepted = sgfast(capsys, *given, "--json", "--accept-evidence", "unread")
    assert json.loads(accepted.out)["evidence"]["conclusive"] == "yes" and accepted.status == (3 if status == 3 else 0)

    done = sgfast(capsys, "diff", policy, policy, path, "--json", "--fail-on", "newly-denied")
    assert done.status == status and reason_of(json.loads(done.out)["evidence"]) == reason
    done = sgfast(capsys, "suggest", path, "--policy", policy, "--json")
    assert reason_of(json.loads(done.out)["evidence"]) == reason
    done = sgfast(capsys, "check", policy, "--traffic", path, "--json")
    found = json.loads(done.out)
    assert reason_of(found["evidence"]) == reason
    unused = [each["certain"] for each in found["findings"] if each["code"] == "SG012"]
    assert unused and not any(unused)
    done = sgfast(capsys, "test", "--init", policy, path, "-q")
    assert done.status == (3 if status == 3 else 0)
    assert reason["sentence"] in " ".join(done.out.replace("#", "").split())


def test_where_most_could_not_be_read_nobody_can_tell(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 10.27: 49 and 50 % of the lines, and of the bytes."""
    policy, log = tmp_path / "policy.yaml", tmp_path / "flow.log"
    policy.write_text(POLICY)
    for broken, conclusive in ((29, "partly"), (30, "no"), (58, "no")):
        lines = [in_milliseconds(line) for line in WORKS[:broken]] + WORKS[broken:]
        log.write_bytes(text(*lines))
        done = sgfast(capsys, "replay", policy, log, "--json")
        evidence = json.loads(done.out)["evidence"]
        reason = reason_of(evidence)
        assert (done.status, evidence["conclusive"], reason["packets"]) == (3, conclusive, broken)
        assert reason["share"] == pytest.approx(broken / 60)
    assert sgfast(capsys, "replay", policy, log).out.startswith("Cannot tell: 58 lines (97 %) could not be read as")


def captures(folder: Path, *cut: int | None) -> list[str]:
    """Captures, each cut to so many bytes."""
    made = []
    for n, end in enumerate(cut):
        frames = [frame for port in range(20) for frame in handshake(1000 + 20 * n + port, 80)]
        path = write_capture(folder, *frames, name=f"{n}.pcap", first_second=1000 + 100 * n)
        path.write_bytes(path.read_bytes()[:end])
        made.append(str(path))
    return made


def unread(result: Any) -> tuple[str, float, str]:
    (reason,) = [each for each in result.evidence.reasons if each.code == "unread"]
    return reason.level, round(reason.share, 2), reason.sentence


@pytest.mark.parametrize("is_folder", [False, True])
def test_captures_behind_a_damaged_one_count_as_missing(is_folder: bool, tmp_path: Path) -> None:
    """SPEC 9.6, 10.27."""
    paths = captures(tmp_path, None, 1000, None, None)
    size = Path(paths[0]).stat().st_size
    given = [tmp_path] if is_folder else paths
    level, share, sentence = unread(replay(parse_policy(WEB_POLICY), given))
    assert level == "no" and share == pytest.approx((2 * size) / (3 * size + 1000), abs=0.02)
    assert sentence.startswith("1 capture could be read only in part and 2 captures could not be read at all: 6")
    level, share, sentence = unread(replay(parse_policy(WEB_POLICY), paths[:2]))
    assert (level, sentence) == ("partly", "1 capture could be read only in part: 1 % of the bytes are missing")


def test_a_cluster_reads_other_captures_on_and_says_what_is_missing(client: Any, tmp_path: Path) -> None:
    """SPEC 9.15."""
    paths = captures(tmp_path, None, 1000, None)
    (tmp_path / "3.pcap").write_bytes(b"")
    result = replay(parse_policy(WEB_POLICY), tmp_path, client=client)
    level, _, sentence = unread(result)
    assert level == "partly"
    assert sentence == (
        "1 capture could be read only in part and 1 capture could not be read at all: 1 % of the bytes are missing"
    )
    assert unread(replay(parse_policy(WEB_POLICY), paths[1], client=client))[0] == "partly"
    assert replay(parse_policy(WEB_POLICY), paths[0], client=client).evidence.conclusive == "yes"


def test_a_replay_that_goes_on_remembers_what_could_not_be_read(tmp_path: Path) -> None:
    """SPEC 9.13."""
    first, second = captures(tmp_path, 1000, None)
    policy, state = parse_policy(WEB_POLICY), tmp_path / "state"
    before = unread(replay(policy, first, snapshot=state))
    assert unread(replay(policy, second, resume=state)) == before


def test_workers_find_the_same_logs_unread(client: Any, tmp_path: Path) -> None:
    logs = folder_with_a_damaged_log(tmp_path)
    (logs / "c.log").write_bytes(text(*BREAKS, *map(in_milliseconds, BREAKS)))
    (logs / NAMED).write_bytes(gzip.compress(b""))
    policy = parse_policy(POLICY)
    one, many = replay(policy, logs), replay(policy, logs, client=client)
    assert one.evidence == many.evidence and one.records == many.records
    assert sorted(each.packets for each in one.evidence.reasons if each.code == "unread") == [0, 40]


# Files that were not recognised ---------------------------------------------------------------------------------------

COMPRESSED = gzip.compress(text(*BREAKS), mtime=0)
CUSTOM = ["10.0.0.5 198.51.100.7 443 51000 6 10 4000 1000 1060 ACCEPT"] * 20
#: Files that may have what the answer lacks, by their names.
SEEM_LOGS = {
    "custom.log": "\n".join(CUSTOM).encode(),
    "custom.log.gz": gzip.compress("\n".join(CUSTOM).encode()),
    "NODATA.log": "\n".join(["eni-1 - - - - - - 1000 1060 NODATA"] * 50 + CUSTOM[:3]).encode(),
    "commas.csv": text(*BREAKS).replace(b" ", b","),
    "quoted.csv": text(*BREAKS).replace(b" ", b'","'),
    "lines.json": b'{"src": "2001:db8::1", "dst": "2001:db8::2", "sp": 1, "dp": 2, "pkts": 3, "octets": 4}\n' * 9,
    "short.log.gz": COMPRESSED[:30],
    "shorter.log.gz": COMPRESSED[:3],
    "empty.log.gz": b"",
    "junk.gz": b"\0" * 400,
    "cut.log.bz2": b"BZh91AY&SY",
    NAMED: b"",
    NAMED.replace("2024", "2023"): gzip.compress(b""),
    NAMED.replace("0501T", "1301T"): gzip.compress(b"hello"),
}
PLAIN = {
    "README": b"Flow logs of 10.0.0.5 and 10.0.0.6, from 2024 to 2026.\n",
    "README.md.gz": gzip.compress(b"hello"),
    "_SUCCESS": b"",
    "manifest.json": b'{"files": [{"key": "a.log", "size": 4711, "md5": "d41d8cd98f00b204e9800998ecf8427e"}]}',
    "hosts": b"10.0.0.5 web-1\n10.0.0.6 web-2\n",
    "routes.txt": b"10.0.0.0/16 via 10.0.0.1 dev eth0 src 10.0.0.5 metric 100\n" * 5,
    "access.log": b'198.51.100.7 - - [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 612 "-" "curl"\n' * 9,
    "dns.log": b"#separator \\x09\n#path\tdns\n#fields\tts\tid.orig_h\n1.5\t10.0.0.5\n",
    "image.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
}


def folder_with(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.log").write_bytes(text(*WORKS))
    (tmp_path / "logs" / name).write_bytes(content)
    return tmp_path / "logs"


@pytest.mark.parametrize("is_pattern", [False, True])
@pytest.mark.parametrize("name", SEEM_LOGS)
def test_a_file_that_seems_to_be_a_log_is_missing_in_the_answer(name: str, is_pattern: bool, tmp_path: Path) -> None:
    logs = folder_with(tmp_path, name, SEEM_LOGS[name])
    result = replay(parse_policy(POLICY), logs / "*" if is_pattern else logs)
    assert result.evidence.conclusive != "yes"
    level, share, sentence = unread(result)
    size, all_bytes = len(SEEM_LOGS[name]), len(SEEM_LOGS[name]) + len(text(*WORKS))
    assert (share, level) == (round(size / all_bytes, 2), "no" if 2 * size >= all_bytes else "partly")
    assert sentence.startswith("1 log could not be read at all")


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_file_beside_logs_is_missed_by_nobody(name: str, tmp_path: Path) -> None:
    assert replay(parse_policy(POLICY), folder_with(tmp_path, name, PLAIN[name])).evidence.conclusive == "yes"


def test_a_file_with_the_name_of_a_capture_is_missing_in_a_folder_of_captures(tmp_path: Path) -> None:
    captures(tmp_path, None, None)
    for name, is_missing in (("README", False), ("2.pcap", True), ("x.pcapng.gz", True), ("x.cap12", True)):
        (tmp_path / name).write_bytes(b"hello" * 50)
        result = replay(parse_policy(WEB_POLICY), tmp_path)
        assert [each.code for each in result.evidence.reasons] == ["unread"] * is_missing
        (tmp_path / name).unlink()
    (tmp_path / "2.pcap").write_bytes(b"")
    assert unread(replay(parse_policy(WEB_POLICY), tmp_path)) == ("partly", 0, "1 capture could not be read at all")
