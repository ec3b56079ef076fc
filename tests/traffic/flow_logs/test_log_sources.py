"""Flow logs are found among other files, listed, and merged by time (SPEC 10.29)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from corpus import ROOT
from effort import some
from flow_logs import CLIENT, GOOD, WEB, record
from mutation import mutated

from sgfast.base.errors import FlowLogError
from sgfast.clouds.aws.flow_log_parquet import ROWS
from sgfast.clouds.logs.detection import open_log, recognised
from sgfast.clouds.zeek.provider import CONN_LOG_JSON, OTHER_LOG
from sgfast.traffic.capture import open_capture
from sgfast.traffic.capture.reader import begins_capture
from sgfast.traffic.flow_logs import merged, sources
from sgfast.traffic.flow_logs.merged import HANDED_OUT_NS, MergedLogs
from sgfast.traffic.flow_logs.sources import LogSources, is_flow_log, logs_in

LOGS = ROOT / "flow-logs"
PCAPS = next(folder for folder in Path(__file__).resolve().parents if (folder / "pcaps").exists()) / "pcaps"
SECOND = 10**9
PCAP = bytes.fromhex("d4c3b2a102000400000000000000000000000400 01000000")


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def found(*paths: Path | str, **period: int) -> LogSources:
    answer = logs_in([str(path) for path in paths], **period)
    assert answer is not None
    return answer


def log_at(path: Path, *starts: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{record(CLIENT, WEB, 1, 2, start=start)}\n" for start in starts))
    return path


def starts_of(logs: MergedLogs) -> list[tuple[str, int]]:
    """The name of the file and the second of the start of each record, in the order of the merge."""
    return [(Path(path).name, start // SECOND) for _, path, rows in logs for start in rows["start_ns"].tolist()]


# The kind of a file --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not LOGS.exists(), reason="no corpus here (set SGFAST_CORPUS)")
def test_every_log_of_the_corpus_is_a_log_and_every_capture_is_one(tmp_path: Path) -> None:
    files = [path for folder in sorted(LOGS.iterdir()) if folder.is_dir() for path in sorted(folder.iterdir())]
    assert len(files) > 60
    for path in files:
        assert is_flow_log(str(path)) is (not path.name.endswith(".pcap.gz")), path
        if path.suffix == ".log":
            # Logs that Windows' shell wrote are logs, which the reader refuses with a remedy.
            (tmp_path / "x.log").write_bytes(path.read_text().encode("utf-16"))
            assert is_flow_log(str(tmp_path / "x.log")), path
    for path in (LOGS / "README.md", LOGS / "MANIFEST.tsv"):
        assert is_flow_log(str(path)) is None
    captures = [path for path in sorted(ROOT.rglob("*")) if ".pcap" in path.name and path.is_file()]
    for path in captures[:200]:
        with path.open("rb") as file:
            if begins_capture(file.read(64)):
                assert is_flow_log(str(path)) is False, path


def test_all_files_of_the_example_are_what_they_are() -> None:
    kinds = {path.name: is_flow_log(str(path)) for path in PCAPS.rglob("*") if path.is_file()}
    assert {name for name, kind in kinds.items() if kind} == {"shop.aws.log", "shop.month.log.gz"}
    assert {name for name, kind in kinds.items() if kind is False} == {
        path.name for path in PCAPS.rglob("*.pcap*") if path.is_file()
    }


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (GOOD.encode(), True),
        (b"\xef\xbb\xbf" + GOOD.encode(), True),
        (b"broken\n" + GOOD.encode(), True),
        (b"broken\n" * 10 + GOOD.encode(), None),
        (b"version srcaddr dstaddr protocol\n", True),
        (b"${version} ${srcaddr} ${dstaddr}\n", True),
        (b"The fields srcaddr and dstaddr, and others.\n", None),
        (f'{{"message": "{GOOD}"}}'.encode(), True),
        (b'{"message": "user logged in", "logEvents": []}', None),
        (b'{"orig_h": "10.0.0.1"}', None),
        (b"PAR1 srcaddr dstaddr PAR1", True),
        (b"PAR1 city street PAR1", None),
        (b"PAR1 cut", True),
        (b"", None),
        (b"version: 1\nsecurity_groups: []\n", None),
        (PCAP, False),
        (b"\x0a\x0d\x0d\x0a" + bytes(60), False),
        (b"snoop\0\0\0" + bytes(16), False),
        (bytes(1000), None),
    ],
)
def test_only_the_content_decides_what_a_file_is(content: bytes, kind: bool | None, pack: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.pcap.log"
    if content.startswith(b"PAR1") and pack is not bytes:
        return      # Parquet is compressed within
    path.write_bytes(pack(content))
    assert is_flow_log(str(path)) is kind


def test_what_cannot_be_read_is_neither(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("none", tmp_path, tmp_path / "pipe", "\0", "memory://none/x.log", "none://x"):
        assert is_flow_log(str(path)) is None
    (tmp_path / "cut.gz").write_bytes(gzip.compress(GOOD.encode() * 9)[:15])
    assert is_flow_log(str(tmp_path / "cut.gz")) is None


def test_zeeks_other_logs_are_no_connections() -> None:
    line = '{"ts": 1.5, "id.orig_h": "10.0.0.1", "id.orig_p": 1, "id.resp_h": "10.0.0.2", "id.resp_p": 5, "proto": "x"'
    assert recognised(f'{line}, "query": "example.org"}}'.encode()) is OTHER_LOG
    assert recognised(f'{line}, "conn_state": "SF"}}'.encode()) is CONN_LOG_JSON
    assert recognised(f'{line}, "_path": "dns"}}'.encode()) is CONN_LOG_JSON
    # Kafka wraps lines of all logs. An object of the ends is no wrapper.
    assert recognised(f'{{"dns": {line}, "query": "example.org"}}}}'.encode()) is CONN_LOG_JSON
    ends = '{"id": {"orig_h": "10.0.0.1", "orig_p": 1, "resp_h": "10.0.0.2", "resp_p": 5}, "query": "example.org"}'
    assert recognised(ends.encode()) is OTHER_LOG


class Pipe(io.RawIOBase):
    """Standard input that hands out a few bytes at a time, and None in between."""

    def __init__(self, data: bytes, rng: random.Random) -> None:
        self._data, self._rng = data, rng

    def readinto(self, buffer: Any) -> int | None:
        if self._rng.random() < 0.01:
            return None
        got = min(len(buffer), len(self._data), self._rng.randrange(1, 5000))
        buffer[:got], self._data = self._data[:got], self._data[got:]
        return got


class Input:
    def __init__(self, raw: Any) -> None:
        self.buffer = raw


def test_nothing_of_a_pipe_is_lost_when_its_kind_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{record(CLIENT, WEB, 1, 2, start=start)}\n" for start in range(20_000)).encode()
    capture = (PCAPS / "shop.pcap").read_bytes()
    with open_capture(str(PCAPS / "shop.pcap")) as reader:
        packets = 0
        while (batch := reader.next_batch()) is not None:
            packets += len(batch)
    for seed in range(some(40, 400)):
        rng = random.Random(seed)
        pack = rng.choice([bytes, gzip.compress, lzma.compress])
        is_log = rng.random() < 0.5
        content = pack(text if is_log else capture)
        raw = Pipe(content, rng)
        if rng.random() < 0.2:
            raw = io.BytesIO(content)       # type: ignore[assignment]
        monkeypatch.setattr(sys, "stdin", Input(raw))
        for _ in range(rng.choice((0, 1, 2))):
            assert is_flow_log("-") is is_log, seed
        if is_log:
            found = [start for rows in open_log("-") for start in rows["start_ns"].tolist()]
            assert found == [start * SECOND for start in range(20_000)], seed
        else:
            with open_capture("-") as reader:
                while reader.next_batch() is not None:
                    pass
                assert reader.packets == packets and reader.damage is None, seed


def test_a_live_capture_is_known_by_its_first_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    into, out = os.pipe()
    try:
        # The pipe stays open, and nothing more is written to it. A reader that waits for more bytes waits forever.
        os.write(out, PCAP)
        with os.fdopen(into, "rb", buffering=0) as raw:
            monkeypatch.setattr(sys, "stdin", Input(raw))
            assert is_flow_log("-") is False
    finally:
        os.close(out)


def test_noise_is_never_misread_and_never_breaks_detection(tmp_path: Path) -> None:
    samples = [GOOD.encode() * 3, PCAP * 3, gzip.compress(GOOD.encode()), b'{"message": "' + GOOD.encode() + b'"}']
    samples += [path.read_bytes() for path in LOGS.glob("*/*") if path.stat().st_size < 100_000]
    path = tmp_path / "x"
    kinds: Counter[bool | None] = Counter()
    for seed in range(some(300, 30_000)):
        rng = random.Random(seed)
        data = rng.randbytes(rng.randrange(200)) if rng.random() < 0.2 else mutated(
            rng, rng.choice(samples), rng.choice(samples)
        )  # fmt: skip
        path.write_bytes(data)
        try:
            kind = is_flow_log(str(path))
            answer = logs_in([str(path)])
            assert (answer is not None) == bool(kind), seed
        except FlowLogError as error:
            assert kind and "does not read yet" in str(error), seed
        except BaseException:
            print("seed", seed)
            raise
        kinds[kind] += 1
        # A file that begins as a capture is one, so that nothing changes for it.
        assert not (begins_capture(data) and kind), seed
    assert min(kinds.values()) > some(3, 10) and len(kinds) == 3


# The files that paths mean -------------------------------------------------------------------------------------------


def test_logs_of_a_folder_are_found_at_any_depth_and_other_files_are_named(tmp_path: Path) -> None:
    first = log_at(tmp_path / "logs/2/deep/b.log", 2000)
    second = log_at(tmp_path / "logs/10/a.txt", 1000)
    (tmp_path / "logs/notes.md").write_text("hello")
    (tmp_path / "logs/10/part.pcap").write_bytes(PCAP)
    (tmp_path / "logs/dns.log").write_text("#separator \\x09\n#path\tdns\n#fields\tts\n")
    (tmp_path / "logs/.hidden").write_text(GOOD)
    (tmp_path / "logs/circle").symlink_to(tmp_path / "logs")
    os.mkfifo(tmp_path / "logs/pipe")
    expected = [(str(first), 2000 * SECOND), (str(second), 1000 * SECOND)]
    answer = found(tmp_path / "logs")
    assert answer.logs == expected
    (warning,) = answer.warnings
    assert warning.startswith(f"{tmp_path}/logs: left out, as they are no flow logs: ")
    assert all(name in warning for name in ("notes.md", "part.pcap", "dns.log", "pipe")) and ".hidden" not in warning
    # Once more, by a pattern and by its name: it is read once.
    (tmp_path / "logs/10/part.pcap").unlink()
    assert found(tmp_path / "logs/**", f"{tmp_path}/logs/10/../10/a.txt").logs == expected
    assert found(tmp_path / "logs/**/*.log").logs == expected[:1]


def test_a_folder_with_captures_stays_one_whatever_logs_are_in_it(tmp_path: Path) -> None:
    log_at(tmp_path / "day/a.log", 1000)
    log_at(tmp_path / "day/deep/a.log", 1000)
    (tmp_path / "day/z.pcap").write_bytes(PCAP)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    for path in ("day", "day/*", "day/z.pcap", "empty", "text.txt", "none", "none*"):
        assert logs_in([str(tmp_path / path)]) is None, path
    with pytest.raises(FlowLogError, match=r"day: has captures, but .*a\.log is a flow log: give only flow logs, or"):
        found(tmp_path / "day", tmp_path / "day/a.log")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("z.pcap", "z.pcap: is a capture, but"), ("text.txt", "text.txt: is no flow log, but"),
        ("none", "none: cannot be read: No such file"), ("empty", "empty: has no flow logs, but"),
    ],
)  # fmt: skip
def test_a_log_beside_what_is_none_is_an_error(other: str, said: str, tmp_path: Path) -> None:
    log = log_at(tmp_path / "a.log", 1000)
    (tmp_path / "z.pcap").write_bytes(PCAP)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    for paths in ((log, tmp_path / other), (tmp_path / other, log)):
        with pytest.raises(FlowLogError, match=said):
            found(*paths)


def test_a_log_that_is_only_recognised_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"records": [{"category": "NetworkSecurityGroupFlowEvent"}]}')
    for path in (tmp_path, tmp_path / "x.json"):
        with pytest.raises(FlowLogError, match=r"x\.json: is an Azure network security group .*does not read yet"):
            found(path)


def test_a_file_begins_with_its_earliest_record(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    # The earliest row is not among the first that would be read.
    number, starts = ROWS + 1, [2000] * ROWS + [1000]
    columns = {"srcaddr": ["10.0.0.1"] * number, "dstaddr": ["10.0.0.2"] * number, "protocol": [6] * number}
    parquet.write_table(pa.table({**columns, "start": starts}), tmp_path / "x.parquet")
    log_at(tmp_path / "x.log", 5000, 2000, 3000)
    message = f'{{"messageType": "DATA_MESSAGE", "logEvents": [{{"message": "{record(CLIENT, WEB, 1, 2)}"}},'
    (tmp_path / "x.json").write_text(message + " " * 100_000)
    (tmp_path / "x.txt").write_text("version srcaddr dstaddr protocol\n2 10.0.0.1 10.0.0.2 6\n")
    assert {Path(path).suffix: begins and begins // SECOND for path, begins in found(tmp_path).logs} == {
        ".parquet": 1000, ".log": 2000, ".json": 1000, ".txt": None,
    }  # fmt: skip


NAME = "1234_vpcflowlogs_eu-central-1_fl-0a1b_{}Z_5f2c.log.gz"
PLAIN = "AWSLogs/1234/vpcflowlogs/eu-central-1/2024/05/{:02}/"
HIVE = (
    "AWSLogs/aws-account-id=1234/aws-service=vpcflowlogs/aws-region=eu-central-1/year=2024/month=05/day={:02}/"
    "hour={:02}/"
)


def days(*, is_hive: bool) -> Iterable[tuple[str, str]]:
    """Folder and name of files of three days, one an hour."""
    for day in (1, 2, 3):
        for hour in range(24):
            yield HIVE.format(day, hour) if is_hive else PLAIN.format(day), NAME.format(f"202405{day:02}T{hour:02}00")


@pytest.fixture
def memory() -> Any:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.rm("/", recursive=True) if system.ls("/") else None
    yield system
    system.rm("/", recursive=True) if system.ls("/") else None


@pytest.mark.parametrize("is_hive", [False, True])
@pytest.mark.parametrize("is_url", [False, True])
def test_files_of_aws_are_not_opened_to_be_listed_nor_folders_of_other_days_looked_into(
    is_hive: bool, is_url: bool, tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = "memory://bucket/logs" if is_url else str(tmp_path)
    for folder, name in days(is_hive=is_hive):
        # These are no logs, which nobody notices who does not open them.
        if is_url:
            memory.pipe(f"/bucket/logs/{folder}{name}", b"junk")
        else:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(b"junk")
    seen: list[str] = []
    for lister in ("_entries", "_entries_of_url"):
        real = getattr(sources, lister)
        monkeypatch.setattr(sources, lister, lambda folder, real=real: (seen.append(folder), real(folder))[1])
    for path in (root, f"{root}/**"):
        answer = found(path)
        assert len(answer.logs) == 72 and answer.warnings == []
        assert answer.logs[1][1] == ns("2024-05-01T00:50:00")
    seen.clear()
    answer = found(root, start_ns=ns("2024-05-02T10:00:00"), end_ns=ns("2024-05-02T11:59:00"))
    # A record may be older than its file by 25 minutes, and the name be earlier than a record by 15.
    assert [Path(path).name for path, _ in answer.logs] == [NAME.format(f"20240502T{hour}00") for hour in (10, 11, 12)]
    looked = [folder for folder in seen if "day=" in folder or "/05/" in folder]
    others = [f"{form}{day}" for form in ("/05/", "day=") for day in ("01", "03")]
    assert looked and not any(other in folder for folder in looked for other in others)
    if is_hive:
        assert not any("hour=08" in folder or "hour=13" in folder for folder in looked)
    # Before and after all of them there is nothing, but they are flow logs.
    assert found(root, end_ns=ns("2023-01-01T00:00:00")).logs == []
    assert found(root, start_ns=ns("2025-07-01T00:00:00")).logs == []


def test_a_period_never_loses_a_file_that_may_have_its_records() -> None:
    for seed in range(some(2000, 50_000)):
        rng = random.Random(seed)
        written = ns("2024-02-29T00:00:00") + rng.randrange(400 * 86400) * SECOND
        moment = datetime.fromtimestamp(written // SECOND, UTC)
        folder = rng.choice(["logs/", f"{moment:year=%Y/month=%m/day=%d/hour=%H}/", f"{moment:year=%Y/month=%m}/",
                             f"{moment:vpcflowlogs/eu-1/%Y/%m/%d}/", f"{moment:a/vpcflowlogs/eu-1/%Y}/"])  # fmt: skip
        # A record starts up to 25 minutes before the time of its file.
        start = moment.timestamp() - rng.uniform(0, 25 * 60)
        begin, end = (int((start + rng.choice((-1, 1)) * rng.expovariate(1 / 3600)) * SECOND) for _ in range(2))
        first = begin if rng.random() < 0.7 else None
        last = end if rng.random() < 0.7 else None
        period = sources._Period(first, last)
        is_in = (first is None or start * SECOND >= first) and (last is None or start * SECOND <= last)
        path = folder + rng.choice((NAME.format(f"{moment:%Y%m%dT%H%M}"), "x.log"))
        left_out = [period.leaves_out(each) for each in (path, folder.rstrip("/"))]
        if is_in:
            assert left_out == [False, False], (seed, path)
    assert not sources._Period(0, 1).leaves_out("srv/1234/x.log")
    for odd in ("year=0001/", "year=9999/month=12/day=31/", "year=2024/month=13/", NAME.format("00010101T0000")):
        assert not sources._Period(0, 1).leaves_out(f"logs/{odd}"), odd


def test_logs_of_a_store_are_read_as_those_of_a_folder(tmp_path: Path, memory: Any) -> None:
    for n in range(3):
        log = log_at(tmp_path / f"{n}.log", *range(1000 + n, 2000, 3))
        memory.pipe(f"/bucket/logs/{n}/x{n}.log.gz", gzip.compress(log.read_bytes()))
    memory.pipe("/bucket/logs/readme.txt", b"hello")
    answer = found("memory://bucket/logs")
    assert [begins for _, begins in answer.logs] == [1000 * SECOND, 1001 * SECOND, 1002 * SECOND]
    assert "readme.txt" in answer.warnings[0]
    assert answer.total_bytes == sum(memory.size(f"/bucket/logs/{n}/x{n}.log.gz") for n in range(3))
    logs = MergedLogs(answer.logs)
    assert sorted(start for _, start in starts_of(logs)) == list(range(1000, 2000))
    assert logs.records == 1000 and logs.bytes_read > 0
    assert found("memory://bucket/logs/**/*.gz").logs == answer.logs
    with pytest.raises(FlowLogError, match=r"memory://bucket/none\.log: does not exist"):
        list(open_log("memory://bucket/none.log"))


def test_parquet_of_a_store_is_read(memory: Any) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    content = io.BytesIO()
    columns = {"srcaddr": ["10.0.0.1"] * 2, "dstaddr": ["10.0.0.2"] * 2, "protocol": [6, 6], "start": [2000, 1000]}
    parquet.write_table(pa.table(columns), content)
    memory.pipe("/bucket/x.parquet", content.getvalue())
    answer = found("memory://bucket/")
    assert [begins for _, begins in answer.logs] == [1000 * SECOND]
    assert [start for _, start in starts_of(MergedLogs(answer.logs))] == [1000, 2000]


def test_the_password_of_a_store_is_in_no_name(memory: Any) -> None:
    memory.pipe("/user:secret@host/x.log", GOOD.encode() + b"\nbroken\n")
    logs = MergedLogs([("memory://user:secret@host/x.log", None)])
    assert len(starts_of(logs)) == 1
    assert "secret" not in str((logs.files, logs.complaints)) and logs.complaints


# Merged by time ------------------------------------------------------------------------------------------------------


def test_records_of_all_files_come_once_and_in_the_order_of_time_but_for_a_turn(tmp_path: Path) -> None:
    for seed in range(some(30, 500)):
        rng = random.Random(seed)
        expected: Counter[tuple[str, int]] = Counter()
        given = []
        for n in range(rng.randrange(1, 12)):
            begin, length = rng.randrange(20_000), rng.choice((0, 1, 300, 20_000))
            starts = sorted(begin + rng.randrange(length + 1) for _ in range(rng.choice((0, 1, 50, 9000))))
            log = log_at(tmp_path / f"{seed}/{n}.log", *starts)
            expected.update((log.name, start) for start in starts)
            # The time of a source may be too early, as that in the name of a file of AWS is.
            says = min(starts, default=0) * SECOND - rng.choice((0, 0, 500 * SECOND))
            given.append((str(log), rng.choice((says, None))))
        logs = MergedLogs(given)
        merged_starts: list[tuple[str, int]] = []
        latest: dict[str, int] = {}
        for _, path, rows in logs:
            name, first = Path(path).name, int(rows["start_ns"][0])
            # Nothing comes before the earlier records of another file, but for a turn.
            assert all(first >= last - HANDED_OUT_NS for other, last in latest.items() if other != name), seed
            latest[name] = int(rows["start_ns"][-1])
            merged_starts += [(name, start // SECOND) for start in rows["start_ns"].tolist()]
        assert Counter(merged_starts) == expected, seed
        assert logs.records == expected.total(), seed
        assert logs.bytes_read == sum(os.stat(path).st_size for path, _ in given), seed
        assert sorted(logs.files) == sorted(path for path, _ in given), seed


def test_files_whose_records_are_not_in_order_are_read_in_large_pieces(tmp_path: Path) -> None:
    # AWS sorts the records of an interval by their ends at best.
    rng = random.Random(1)
    given = []
    for n in range(3):
        starts = [600 * (place // 5000) + rng.randrange(600) for place in range(40_000)]
        given.append((str(log_at(tmp_path / f"{n}.log", *starts)), 0))
    pieces = [len(rows) for *_, rows in MergedLogs(given)]
    assert sum(pieces) == 120_000 and len(pieces) < 100


def test_a_file_is_opened_when_the_merge_reaches_it_and_closed_at_its_end(tmp_path: Path) -> None:
    given = [(str(log_at(tmp_path / f"{n}.log", *range(n * 300, n * 300 + 300))), n * 300 * SECOND) for n in range(50)]
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    logs = MergedLogs(reversed(given))
    most = 0
    for *_, rows in logs:
        opened = len(logs._open)
        most = max(most, opened)
        if descriptors is not None:
            assert len(os.listdir("/proc/self/fd")) <= descriptors + opened + 1
        assert int(rows["start_ns"][0]) // SECOND // 300 <= len(logs.files)
    assert most <= 2 and logs.files == [path for path, _ in given]
    for _ in (iterated := iter(MergedLogs(given))):
        break
    iterated.close()        # type: ignore[attr-defined]
    assert descriptors is None or len(os.listdir("/proc/self/fd")) <= descriptors + 1


def test_more_overlapping_files_than_may_be_open_are_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged, "MOST_OPEN", 5)
    expected: Counter[tuple[str, int]] = Counter()
    given = []
    for n in range(40):
        starts = range(n * 100, n * 100 + 3000, 10)
        log = log_at(tmp_path / f"{n}.log", *starts)
        given.append((str(log), n * 100 * SECOND))
        expected.update((log.name, start) for start in starts)
    logs = MergedLogs(given)
    most, merged_starts = 0, []
    for _, path, rows in logs:
        most = max(most, len(logs._open))
        merged_starts += [(Path(path).name, start // SECOND) for start in rows["start_ns"].tolist()]
    assert Counter(merged_starts) == expected and most == 5
    # No record comes before those of another file that are older by more than a file is long.
    reached = 0
    for _, start in merged_starts:
        reached = max(reached, start)
        assert start > reached - 4000


def test_hundreds_of_files_are_merged_with_few_open(tmp_path: Path) -> None:
    given = []
    for n in range(600):
        path = tmp_path / f"{n}.log.gz"
        lines = [record(CLIENT, WEB, 1, 2, start=n % 7 + second) for second in range(5)]
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
        given.append((str(path), None))
    logs = MergedLogs(given)
    most = 0
    for _ in logs:
        most = max(most, len(logs._open))
    assert (logs.records, len(set(logs.files))) == (3000, 600) and most == merged.MOST_OPEN


def test_a_connection_of_hours_holds_up_its_own_record_only(tmp_path: Path) -> None:
    """Zeek writes connections when they end. Each file of an hour has one that began hours before the others."""
    begins = {hour: [10 * 3600 + 3600 * hour + 60 * n for n in range(60)] for hour in range(8)}
    for hour, starts in begins.items():
        starts.insert(50, 10 * 3600 + 600 * hour)
        log_at(tmp_path / f"conn.{hour}.log", *starts)
    logs = MergedLogs(found(tmp_path).logs)
    merged_starts = [start for _, start in starts_of(logs)]
    assert sorted(merged_starts) == sorted(chain.from_iterable(begins.values()))
    latest = 0
    for start in merged_starts:
        assert start * SECOND >= latest * SECOND - HANDED_OUT_NS
        latest = max(latest, start)


def test_records_without_a_start_are_not_lost(tmp_path: Path) -> None:
    header = "version srcaddr dstaddr protocol start\n"
    (tmp_path / "none.log").write_text("srcaddr dstaddr protocol\n" + "10.0.0.1 10.0.0.2 6\n" * 20_000)
    (tmp_path / "some.log").write_text(header + "2 10.0.0.1 10.0.0.2 6 -\n2 10.0.0.1 10.0.0.2 6 50\n" * 9000)
    log_at(tmp_path / "all.log", *range(100))
    logs = MergedLogs(found(tmp_path).logs)
    counts = Counter(name for name, _ in starts_of(logs))
    broken = logs.broken_lines
    assert counts["none.log"] == 20_000 and counts["all.log"] == 100 and counts["some.log"] + broken == 18_000


def test_one_bad_file_costs_nothing_of_the_others(tmp_path: Path) -> None:
    log_at(tmp_path / "1.log", *range(1000, 1100))
    whole = "\n".join([record(CLIENT, WEB, 1, 2, start=2000)] * 50_000).encode()
    (tmp_path / "2.log.gz").write_bytes(gzip.compress(whole)[:-2000])
    (tmp_path / "3.log").write_text("junk\n" * 200)
    (tmp_path / "4.json").write_text('{"records": [{"category": "NetworkSecurityGroupFlowEvent"}]}')
    log_at(tmp_path / "6.log", *range(6000, 6100))
    with (tmp_path / "6.log").open("a") as file:
        file.write("\n".join([*["broken"] * 30, "2 1 eni-1 - - - - - - - 1431280876 1431280934 - NODATA"]))
    names = ("1.log", "2.log.gz", "3.log", "4.json", "5.log", "6.log")
    given = [(str(tmp_path / name), (n + 1) * 1000 * SECOND) for n, name in enumerate(names)]
    logs = MergedLogs(given)
    counts = Counter(name for name, _ in starts_of(logs))
    assert counts["1.log"] == counts["6.log"] == 100 and 0 < counts["2.log.gz"] < 50_000
    assert (logs.damaged, len(logs.damage), logs.nodata, logs.broken_lines) == (4, 4, 1, 130)
    for place, (name, said) in enumerate([
        ("2.log.gz", "is damaged"), ("3.log", "no flow log record"), ("4.json", "Azure"), ("5.log", "No such file"),
    ]):  # fmt: skip
        assert name in logs.damage[place] and said in logs.damage[place]
    assert len(logs.complaints) == 10 and logs.formats["an AWS VPC flow log"] == 4
    # If the first file cannot be read, it is an error.
    for path, said in zip(given[2:5], ("no flow log record", "Azure", "No such file"), strict=True):
        with pytest.raises(FlowLogError, match=said):
            starts_of(MergedLogs([path, (given[0][0], 10**18)]))


def test_the_assumed_year_of_each_log_is_told(tmp_path: Path) -> None:
    line = (
        "Jan 2 00:00:01 action=DROP project_id=7 log_resource_ids=['log-1'] vm_port=port-1 ethernet(ethertype=2048), "
        "ipv4(dst='10.0.0.4',proto=6,src='172.24.4.10'), tcp(bits=2,dst_port=80,src_port=47825)"
    )
    for n in range(2):
        (tmp_path / f"{n}.log").write_text(line)
        os.utime(tmp_path / f"{n}.log", (ns("2025-03-01T00:00:00") // SECOND,) * 2)
    answer = found(tmp_path)
    assert {begins for _, begins in answer.logs} == {ns("2025-01-02T00:00:01")}
    logs = MergedLogs(answer.logs)
    assert {start for _, start in starts_of(logs)} == {ns("2025-01-02T00:00:01") // SECOND}
    assert len(logs.remarks) == 2 and "taken for one of 2025" in logs.remarks[0]
