"""Benchmarks of flow logs: a replay of AWS's text, compressed, compared with others that only read it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from conftest import Maker, Measure
from measure import Section, Yardstick, timed
from zlib_ng import gzip_ng

from sgfast import Policy, load, replay
from sgfast.traffic.flow_logs.merged import MergedLogs
from sgfast.traffic.flow_logs.sources import logs_in

#: Records of a file, all of one interval of five minutes.
RECORDS_OF_FILE = 100_000
SERVICES = (443, 80, 5432, 53, 8080)
INSTANCES = 2000
POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: "80,443"}
      - {direction: inbound, protocol: udp, ports: 53}
      - {direction: outbound, protocol: all}
instances:
"""


def policy_of_logs() -> Policy:
    instances = "".join(
        f"  - {{name: i{n}, addresses: [10.0.{n >> 8}.{n & 255}], security_groups: [web]}}\n" for n in range(INSTANCES)
    )
    return load(text=POLICY + instances)


def write_logs(folder: Path, records: int, seed: int) -> None:
    """Write files of connections between an instance and another address, each with a record of either direction."""
    for number in range(-(-records // RECORDS_OF_FILE)):
        rng = np.random.default_rng((seed, number))
        count = min(RECORDS_OF_FILE, records - number * RECORDS_OF_FILE) // 2
        starts = 1_790_000_000 + 300 * number + np.sort(rng.integers(0, 300, count))
        columns = (
            starts, rng.integers(0, 60, count), rng.integers(0, INSTANCES, count), rng.integers(0, 1 << 16, count),
            rng.integers(32768, 61000, count), rng.choice(SERVICES, count), rng.integers(1, 40, count),
        )  # fmt: skip
        lines = []
        rows = zip(*(each.tolist() for each in columns), strict=True)
        for start, length, here, there, port, service, packets in rows:
            a, b = f"10.0.{here >> 8}.{here & 255}", f"172.16.{there >> 8}.{there & 255}"
            protocol, rest = 17 if service == 53 else 6, f"{start} {start + length} ACCEPT OK\n"
            who = f"2 123456789012 eni-{here:012x}"
            lines.append(f"{who} {b} {a} {port} {service} {protocol} {packets} {packets * 90} {rest}")
            lines.append(f"{who} {a} {b} {service} {port} {protocol} {packets} {packets * 700} {rest}")
        with gzip_ng.open(folder / f"{number:05}.log.gz", "wb", compresslevel=6) as file:
            file.write("".join(lines).encode())


@contextmanager
def logs(maker: Maker, tmp_path: Path) -> Iterator[int]:
    records = max(2, maker.option.packets // 2 * 2)
    write_logs(tmp_path, records, maker.option.seed)
    yield records
    for path in tmp_path.iterdir():
        path.unlink()


def test_replay_of_flow_logs(maker: Maker, measure: Measure, tmp_path: Path) -> None:
    """Compare with reading alone, with ``zcat | wc -l``, and with DuckDB, which adds up the packets by address."""
    policy = policy_of_logs()
    with logs(maker, tmp_path) as records:
        def judged() -> float:
            result = replay(policy, tmp_path)
            assert result.records is not None and result.records.judged == records
            return result.elapsed_seconds

        def read() -> None:
            sources = logs_in([str(tmp_path)])
            assert sources is not None and sum(len(rows) for *_, rows in MergedLogs(sources.logs)) == records

        yardsticks = {
            "read": Yardstick("read by sgfast, not judged", records, timed(read)),
            "wc": Yardstick("zcat | wc -l", records, timed(lambda: count_lines(tmp_path))),
        }
        if add_up := duckdb_sums(tmp_path):
            yardsticks["duckdb"] = Yardstick("DuckDB: packets by address", records, timed(add_up))
        measure(
            Section("flow logs: elapsed time", "record"), "AWS, text, gzip", judged, items=records,
            yardsticks=yardsticks,
        )  # fmt: skip


def count_lines(folder: Path) -> None:
    command = f"zcat {folder}/*.log.gz | wc -l"
    subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})


def duckdb_sums(folder: Path) -> Callable[[], None] | None:
    """Return a function that lets DuckDB read the columns that sgfast needs; None if it is not here."""
    try:
        import duckdb
    except ImportError:
        return None
    names = [
        "version", "account", "interface", "src", "dst", "sport", "dport", "protocol", "packets", "bytes", "first",
        "last", "action", "status",
    ]  # fmt: skip
    query = (
        f"SELECT src, dst, dport, protocol, sum(packets), sum(bytes), min(first), max(last) FROM read_csv("
        f"'{folder}/*.log.gz', delim=' ', header=false, names={names}) GROUP BY ALL ORDER BY 5 DESC LIMIT 10"
    )

    def add_up() -> None:
        with closing(duckdb.connect()) as connection:
            assert connection.execute(query).fetchall()

    return add_up
