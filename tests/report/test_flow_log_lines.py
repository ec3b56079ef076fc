"""``--flow-log``: the records are those a plain dictionary of the same rows adds up to, in either format
(SPEC 10.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import pcap_head, pcap_record
from command import SHOP, Outcome, sgfast, write_capture, write_policy
from effort import some
from frames import ethernet, icmp, ip, udp
from traffic import Crowd, as_capture, drawn

from sgfast import replay
from sgfast.clouds.loading import parse_policy
from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import NO_SIDE
from sgfast.policy.model import Policy
from sgfast.questions.replaying import Names
from sgfast.report.flow_log_lines import FORMATS, FlowLogLines

SECOND = 10**9


class Plain:
    """The same, slow and obvious; a ``PacketSink`` too."""

    def __init__(self, form: str, interval: int) -> None:
        self.form, self.interval = form, interval
        self.names: Sequence[str] = ()
        self.present: Sequence[int] = ()
        #: By window: the instances that were there as it began.
        self.expected: dict[tuple[int, int], Sequence[int]] = {}
        self.now: int | None = None
        self.window, self.windows = 0, 0
        self.records: dict[tuple[Any, ...], list[int]] = {}

    def begin(self, names: Names) -> None:
        self.names, self.present = names.instances, names.present

    def write(self, headers: Any, results: Any) -> None:
        for header, result in zip(headers, results, strict=True):
            if result["verdict"] > 1:
                continue
            time_ns = int(header["time_ns"])
            if self.now is None or not self.now - 60 * SECOND <= time_ns < self.now:
                self.now = time_ns
            second = self.now // SECOND
            if second // self.interval * self.interval != self.window:
                # One that comes again, because time went back, is another.
                self.window, self.windows = second // self.interval * self.interval, self.windows + 1
            self.expected.setdefault((self.window, self.windows), self.present)
            length = 4 if header["family"] == 4 else 16
            ends = [str(ip_address(header[name][:length].tobytes())) for name in ("src", "dst")]
            ports = [int(header[name]) if header["has_ports"] else 0 for name in ("sport", "dport")]
            for name in ("egress", "ingress"):
                side = result[name]
                if side["verdict"] == NO_SIDE:
                    continue
                action = ("ACCEPT", "REJECT")[side["verdict"]]
                key = (self.window, self.windows, side["instance"], *ends, *ports, int(header["protocol"]), action)
                record = self.records.setdefault(key, [0, 0, second, second])
                record[0] += 1
                record[1] += int(header["wire"])
                record[2:] = min(second, record[2]), max(second, record[3])

    def lines(self) -> list[str]:
        found = []
        for (window, _, instance, *key, action), (packets, nbytes, first, last) in self.records.items():
            times = (first, last) if self.form == "aws" else (window, window + self.interval)
            version = "2" if self.form == "aws" else "1"
            fields = [version, "-", self.names[instance], *key, packets, nbytes, *times, action, "OK"]
            found.append(" ".join(map(str, fields)))
        busy = {key[:3] for key in self.records}
        for (window, number), instances in self.expected.items():
            for instance in instances:
                if (window, number, instance) not in busy:
                    head = f"{'2' if self.form == 'aws' else '1'} - {self.names[instance]}"
                    found.append(f"{head} - - - - - - - {window} {window + self.interval} - NODATA")
        return found


def written(log: FlowLogLines, parts: list[bytes]) -> list[str]:
    log.close()
    return b"".join(parts).decode("ascii").splitlines()


@pytest.mark.parametrize("form", FORMATS)
def test_records_are_those_of_a_plain_dictionary(form: str, tmp_path: Path) -> None:
    seen = idle = 0

    @drawn(20261125, some(6, 12))
    def check(policy: Policy, case_seed: int) -> None:
        nonlocal seen, idle
        rng = np.random.default_rng(case_seed)
        capture = as_capture(tmp_path, Crowd(policy, rng).draw(1500))
        for interval in (1, 7, 600):
            parts: list[bytes] = []
            log, plain = FlowLogLines(parts.append, form=form, interval_seconds=interval), Plain(form, interval)
            replay(policy, capture, packets=[log, plain])
            lines = written(log, parts)
            assert sorted(lines) == sorted(plain.lines())
            seen += len(plain.records)
            idle += len(lines) - len(plain.records)

    check()
    assert seen > some(2500, 5000) and idle > some(10, 20)


def rows(n: int, **fields: Any) -> tuple[Any, Any]:
    headers, results = np.zeros(n, HEADER_DTYPE), np.zeros(n, RESULT_DTYPE)
    headers["family"], headers["protocol"], headers["has_ports"], headers["wire"] = 4, 6, 1, 100
    results["egress"]["verdict"] = results["ingress"]["verdict"] = NO_SIDE
    results["ingress"]["verdict"] = 0
    for name, values in fields.items():
        headers[name] = values
    return headers, results


def fed(headers: Any, results: Any, **options: Any) -> list[list[str]]:
    parts: list[bytes] = []
    log = FlowLogLines(parts.append, **options)
    log.begin(Names(["web-1"], [], 0))
    log.write(headers, results)
    return [line.split() for line in written(log, parts)]


def test_more_records_than_are_kept_add_up_to_the_same() -> None:
    n = 9000
    headers, results = rows(n, sport=np.arange(n) % 3000, time_ns=np.arange(n) * 1000)
    sums: dict[str, int] = {}
    records = fed(headers, results, most_records=1000)
    assert len(records) == n
    for record in records:
        sums[record[5]] = sums.get(record[5], 0) + int(record[8])
    assert sums == {str(port): 3 for port in range(3000)}
    # Room for all of them: as many as there are ports, the table having grown.
    records = fed(headers, results)
    assert [record[5] for record in records] == list(map(str, range(3000)))
    assert {record[8] for record in records} == {"3"}


def test_a_late_packet_counts_now_and_an_earlier_time_begins_an_interval() -> None:
    seconds = np.array([100, 119, 121, 118, 30, 31])
    headers, results = rows(6, time_ns=seconds * SECOND)
    times = [(record[8], record[10], record[11]) for record in fed(headers, results, interval_seconds=60)]
    assert times == [("2", "100", "119"), ("2", "121", "121"), ("2", "30", "31")]


def test_a_record_does_not_end_before_it_begins_where_time_goes_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy, capture, log = write_policy(tmp_path), tmp_path / "back.pcap", tmp_path / "flow.log"
    frame = ethernet(ip("198.51.100.7", "10.0.0.5", udp(1, 80)))
    capture.write_bytes(pcap_head() + b"".join(pcap_record(frame, time=(1_700_000_400 - n * 70, 0)) for n in range(5)))
    assert sgfast(capsys, "replay", policy, capture, "--flow-log", log).status == 0
    words = [line.split() for line in log.read_text().splitlines()]
    assert [line[10:12] for line in words if line[-1] == "OK"] == [["1700000400"] * 2, ["1700000120", "1700000330"]]
    outcome = sgfast(capsys, "replay", policy, log)
    assert outcome.status == 0 and "2 read (" in outcome.out


def test_times_before_1970_are_rounded_down() -> None:
    headers, results = rows(2, time_ns=[-1, -60 * SECOND - 1])
    record, = fed(headers[:1], results[:1], interval_seconds=60)
    assert record[10:12] == ["-1", "-1"]
    record, = fed(headers[1:], results[1:], interval_seconds=60, form="otc")
    assert record[10:12] == ["-120", "-60"]


def test_what_is_no_array_of_rows_or_no_option_is_refused() -> None:
    headers, results = rows(3)
    log = FlowLogLines(print)
    with pytest.raises(ValueError, match="one row per header"):
        log.write(headers, results[:2])
    with pytest.raises(ValueError, match="array of dtype"):
        log.write(results, results)
    for options in ({"form": "gcp"}, {"interval_seconds": 0}, {"interval_seconds": 86401}, {"most_records": 0}):
        with pytest.raises(ValueError):
            FlowLogLines(print, **options)


def logged(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> tuple[Outcome, list[list[str]]]:
    log = tmp_path / "flow.log"
    outcome = sgfast(capsys, "replay", *arguments, "--flow-log", log)
    return outcome, [line.split() for line in log.read_text().splitlines()]


def test_each_end_has_its_record_and_a_denial_stands_where_it_was_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = write_policy(
        tmp_path,
        """
version: 1
security_groups:
  - name: silent
  - name: talks
    rules: [{direction: outbound, protocol: all}]
instances:
  - {name: a, addresses: [10.0.0.1], security_groups: [talks]}
  - {name: b, addresses: [10.0.0.2], security_groups: [silent]}
""",
    )
    capture = write_capture(
        tmp_path,
        ethernet(ip("10.0.0.1", "10.0.0.2", udp(1000, 53))),        # leaves a, is denied at b
        ethernet(ip("10.0.0.2", "10.0.0.1", udp(53, 1000))),        # moot: would not exist
        ethernet(ip("10.0.0.2", "192.0.2.1", udp(1000, 53))),       # denied as it leaves b
        ethernet(ip("10.0.0.1", "192.0.2.1", icmp(8, 0, 7))),
    )
    outcome, records = logged(capsys, tmp_path, policy, capture)
    assert outcome.status == 0
    assert [(r[2], *r[3:9], r[12]) for r in records] == [
        ("a", "10.0.0.1", "10.0.0.2", "1000", "53", "17", "1", "ACCEPT"),
        ("b", "10.0.0.1", "10.0.0.2", "1000", "53", "17", "1", "REJECT"),
        ("b", "10.0.0.2", "192.0.2.1", "1000", "53", "17", "1", "REJECT"),
        ("a", "10.0.0.1", "192.0.2.1", "0", "0", "1", "1", "ACCEPT"),
    ]
    assert {(len(r), r[0], r[1], r[13]) for r in records} == {(14, "2", "-", "OK")}


QUIET = """
version: 1
vpcs: [{name: near}, {name: far}]
security_groups: [{name: g, rules: [{direction: inbound, protocol: all}]}]
instances:
  - {name: a, vpc: near, addresses: [10.0.0.1], security_groups: [g]}
  - {name: b, vpc: near, addresses: [10.0.0.2], security_groups: [g]}
  - {name: c, vpc: far, addresses: [10.9.0.1], security_groups: [g]}
"""


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("most_records", [1, 1000])
def test_an_instance_without_packets_in_an_interval_has_no_data(form: str, most_records: int, tmp_path: Path) -> None:
    # By the second: a twice, b; a quiet minute; packets that no filter judges; b.
    packets = [(60, "10.0.0.1", 1), (61, "10.0.0.1", 2), (62, "10.0.0.2", 1), (185, "203.0.113.9", 1),
               (245, "10.0.0.2", 2)]  # fmt: skip
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap_head() + b"".join(
        pcap_record(ethernet(ip("192.0.2.1", server, udp(port, 53))), time=(second, 0))
        for second, server, port in packets
    ))  # fmt: skip
    for vpc, others in ((None, ["c"]), ("near", [])):
        parts: list[bytes] = []
        log = FlowLogLines(parts.append, form=form, interval_seconds=60, most_records=most_records)
        replay(parse_policy(QUIET), path, packets=[log], vpc=vpc)
        records = [line.split() for line in written(log, parts)]
        assert [(r[2], r[13]) for r in records] == [
            ("a", "OK"), ("a", "OK"), ("b", "OK"), *((other, "NODATA") for other in others),
            ("b", "OK"), ("a", "NODATA"), *((other, "NODATA") for other in others),
        ]  # fmt: skip
        idle = [r for r in records if r[13] == "NODATA"]
        assert {(len(r), *r[3:10], r[12]) for r in idle} == {(14, *"-------", "-")}
        assert [(r[10], r[11]) for r in idle] == [("60", "120")] * len(others) + [("240", "300")] * (len(others) + 1)


def test_an_instance_is_expected_from_the_next_interval_until_it_is_gone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    changes = tmp_path / "changes.yaml"
    changes.write_text("""
changes:
  - {at: 1, add_instance: {name: new, vpc: near, addresses: [10.0.0.3], security_groups: [g]}}
  - {at: 61, remove_instance: {instance: b}}
""")
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap_head() + b"".join(
        pcap_record(ethernet(ip("192.0.2.1", "10.0.0.1", udp(7, 53))), time=(60 * n, 0)) for n in (1, 2, 3)
    ))  # fmt: skip
    policy = write_policy(tmp_path, QUIET)
    options = ("--changes", changes, "--vpc", "near", "--flow-log-interval", 60)
    for engine in ("fast", "reference"):
        _, records = logged(capsys, tmp_path, policy, path, *options, "--engine", engine)
        idle = [(r[2], r[10]) for r in records if r[13] == "NODATA"]
        assert idle == [("b", "60"), ("b", "120"), ("new", "120"), ("new", "180")]


@pytest.mark.parametrize("option", [("--flow-log-format", "otc"), ("--flow-log-interval", "60")])
def test_how_to_write_a_log_without_a_log_is_refused(
    capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    outcome = sgfast(capsys, "replay", *SHOP, *option)
    assert outcome.status == 2 and f"{option[0]} needs --flow-log" in outcome.one_line()
