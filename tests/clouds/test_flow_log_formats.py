"""Flow logs of each format are read into the same columns, and recognised by their content (SPEC 10.29)."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import re
import sys
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import sgfast, write_policy
from corpus import ROOT
from effort import some
from flow_logs import CLIENT, DB, GOOD, POLICY, WEB, record
from mutation import mutated

from sgfast.base.errors import FlowLogError
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS, RecordFields
from sgfast.clouds.aws.flow_log import record as read_slowly
from sgfast.clouds.logs import columns as c
from sgfast.clouds.logs.columns import RECORD_DTYPE
from sgfast.clouds.logs.detection import open_log
from sgfast.clouds.logs.log import Log
from sgfast.clouds.logs.tokenizer import LEFT, Tokenizer, WordNumbers
from sgfast.clouds.zeek.conn_log import CONN_STATES

LOGS = ROOT / "flow-logs"
NODATA = "2 1 eni-1 - - - - - - - 1431280876 1431280934 - NODATA"


def manifest() -> list[dict[str, str]]:
    if not (LOGS / "MANIFEST.tsv").exists():
        return []
    with (LOGS / "MANIFEST.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


#: The formats that are read, by the manifest's kinds, and a word of what sgfast calls each of the others.
READ = {
    "aws-vpc": "AWS VPC flow log", "aws-cloudwatch": "CloudWatch", "aws-parquet": "Parquet",
    "aws-tgw": "transit gateway", "otc-vpc": "OTC", "neutron-sg-log": "Neutron", "zeek": "Zeek",
}  # fmt: skip
REFUSED = {
    "antrea": "Antrea", "azure-nsg": "Azure network security group", "azure-vnet": "Azure virtual network",
    "gcp-firewall": "firewall rules log of Google", "gcp-vpc": "VPC flow log of Google", "hubble": "Hubble",
    "ibm-vpc": "IBM", "ovn-acl": "OVN", "suricata": "Suricata",
}  # fmt: skip
FILES = [row for row in manifest() if not row["file"].endswith(".pcap.gz")]


def rows_of(log: Log) -> np.ndarray[Any, Any]:
    return np.concatenate([np.empty(0, RECORD_DTYPE), *(rows.copy() for rows in log)])


def read(path: Path, text: str | bytes, **options: Any) -> tuple[Log, np.ndarray[Any, Any]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    log = open_log(str(path), **options)
    return log, rows_of(log)


def ends(rows: np.ndarray[Any, Any]) -> list[tuple[str, int, str, int]]:
    found = []
    for row in rows:
        length = 4 if row["family"] == 4 else 16
        src, dst = (str(ip_address(row[name].tobytes()[:length])) for name in ("src", "dst"))
        found.append((src, int(row["sport"]), dst, int(row["dport"])))
    return found


@pytest.mark.skipif(not FILES, reason="no corpus here (set SGFAST_CORPUS)")
def test_every_file_of_the_corpus_has_as_many_records_as_its_manifest_says(tmp_path: Path) -> None:
    checked = 0
    for row in FILES:
        if row["kind"] not in READ:
            continue
        path = LOGS / row["file"]
        if "masked" in row["version"]:
            # Zeek's own tests write a row of the letter X in the place of each time. That is no time, so the files
            # are refused as they are.
            with pytest.raises(FlowLogError, match="ts must be a time"):
                rows_of(open_log(str(path)))
            masked = path.read_bytes()
            path = tmp_path / "unmasked.log"
            path.write_bytes(masked.replace(b"X" * 10 + b"." + b"X" * 6, b"1540889767.459844"))
        log = open_log(str(path))
        if "broken" in row["version"]:
            with pytest.raises(FlowLogError, match="has 13 fields, not 14"):
                rows_of(log)
        else:
            assert len(rows_of(log)) == log.records and not log.broken_lines and log.damage is None, row["file"]
        assert log.read == int(row["records"]), row["file"]
        assert log.format is not None and READ[row["kind"]] in log.format.name, row["file"]
        checked += 1
    assert checked >= 30


@pytest.mark.skipif(not FILES, reason="no corpus here (set SGFAST_CORPUS)")
def test_every_other_kind_of_the_corpus_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = write_policy(tmp_path, POLICY)
    others = [row for row in FILES if row["kind"] not in READ]
    assert {row["kind"] for row in others} == set(REFUSED) | {"netflow"}
    for row in others:
        outcome = sgfast(capsys, "replay", policy, LOGS / row["file"])
        assert outcome.status == 2 and "which sgfast does not read yet" in outcome.one_line(), row["file"]
        name = REFUSED.get(row["kind"], "")
        assert name in outcome.one_line(), row["file"]
        # Cilium, Oracle and others use words of each other's, such as "verdict".
        assert not any(other in outcome.one_line() for other in REFUSED.values() if other != name), row["file"]


V5 = (
    "version srcaddr dstaddr srcport dstport protocol start end type packets bytes account-id vpc-id instance-id "
    "interface-id action tcp-flags pkt-srcaddr pkt-dstaddr flow-direction reject-reason log-status"
)
V5_RECORD = (
    "8 10.0.0.71 52.95.128.179 34210 80 6 1616729292 1616729349 IPv4 7 471 123456789012 vpc-1 i-7 eni-7 REJECT 3 "
    "10.0.0.72 52.95.128.180 egress BPA OK"
)


def test_all_that_an_aws_record_tells_is_in_its_row(tmp_path: Path) -> None:
    log, rows = read(tmp_path / "x.log", f"{V5}\n{V5_RECORD}\n")
    (row,) = rows
    assert ends(rows) == [("10.0.0.71", 34210, "52.95.128.179", 80)]
    assert (row["start_ns"], row["end_ns"]) == (1616729292 * 10**9, 1616729349 * 10**9)
    assert (row["packets"], row["bytes"], row["packets_back"], row["tcp_flags"]) == (7, 471, c.UNKNOWN, 3)
    assert (row["direction"], row["action"], row["opener"]) == (
        c.DIRECTION_EGRESS, c.ACTION_REJECTED, c.OPENER_UNKNOWN,
    )  # fmt: skip
    assert [log.words[row[name]] for name in ("interface", "instance", "rule")] == ["eni-7", "i-7", "BPA"]
    assert row["has_pkt"] == c.PKT_SRC | c.PKT_DST and row["pkt_src"].tobytes()[:4] == ip_address("10.0.0.72").packed
    assert (row["icmp_type"], row["conn_state"], row["has_ports"]) == (c.UNKNOWN, c.UNKNOWN, 1)


def test_what_an_aws_record_does_not_tell_is_unknown(tmp_path: Path) -> None:
    _, rows = read(tmp_path / "x.log", "srcaddr dstaddr protocol tcp-flags pkt-srcaddr\n10.0.0.1 10.0.0.2 6 - -\n")
    (row,) = rows
    for name in ("start_ns", "end_ns", "packets", "bytes", "tcp_flags", "interface", "instance", "rule"):
        assert row[name] == c.UNKNOWN, name
    assert (row["action"], row["direction"], row["has_ports"], row["has_pkt"]) == (0, 0, 0, 0)


def test_ports_that_end_in_a_zero_byte_are_ports(tmp_path: Path) -> None:
    _, rows = read(tmp_path / "x.log", record(CLIENT, WEB, 256, 512) + "\n" + record(CLIENT, WEB, 0, 0))
    assert rows["has_ports"].tolist() == [1, 0]


def test_ingress_of_a_transit_gateway_is_not_ingress_of_an_instance(tmp_path: Path) -> None:
    log, rows = read(
        tmp_path / "x.log",
        "version tgw-id tgw-attachment-id srcaddr dstaddr srcport dstport protocol start end flow-direction\n"
        "6 tgw-1 tgw-attach-1 10.0.0.1 10.0.1.1 12345 443 6 1700000000 1700000060 ingress\n",
    )
    assert rows["direction"].tolist() == [c.DIRECTION_UNKNOWN] and log.words[rows["interface"][0]] == "tgw-attach-1"


def test_envelopes_of_cloudwatch_and_firehose(tmp_path: Path) -> None:
    lines = [GOOD, NODATA, "2 1 eni"]
    events = [{"id": str(n), "timestamp": 0, "message": line} for n, line in enumerate(lines)]
    data = json.dumps({"messageType": "DATA_MESSAGE", "logEvents": events}, indent=1)
    control = json.dumps({"messageType": "CONTROL_MESSAGE", "logEvents": [{"message": "CWL CONTROL MESSAGE"}]})
    forms = {
        # Firehose puts object behind object, without a line feed.
        "cloudwatch": gzip.compress((control + data + data).encode()),
        "firehose": "".join(json.dumps({"message": line}) + "\n" for line in lines * 2).encode(),
        "export": "".join(f"2024-01-01T00:00:00.000Z {line}\n" for line in lines * 2).encode(),
    }
    for form, content in forms.items():
        log, rows = read(tmp_path / form, content)
        counts = (len(rows), log.nodata, log.broken_lines, log.damage)
        assert counts == (2, 2, 2, None) and "AWS" in str(log.format), form
        assert ends(rows)[1] == (CLIENT, 50000, WEB, 443)
        assert f"{'line' if form == 'export' else 'event'} 6: has " in log.complaints[1]
    log, rows = read(tmp_path / "cut", forms["firehose"][:-5])
    assert (len(rows), log.nodata) == (2, 2) and "JSON value 6: cannot be read" in str(log.damage)


def test_an_array_that_is_cut_or_has_a_bracket_too_many_is_damage(tmp_path: Path) -> None:
    message = json.dumps({"message": GOOD})
    for text, cause in (
        (f"{message}\n[[[[", "JSON value 2: the file ends within an array"),
        (f"[{message}, {message},", "JSON value 3: the file ends within an array"),
        (f"[{message}]]", "JSON value 2: an array ends that did not begin"),
        (f"[{message}] [{message},[]]", None), (f"[[{message}],[{message}]]", None),
    ):
        log, rows = read(tmp_path / "x.json", text)
        assert len(rows) == text.count(message), text
        assert log.damage == (cause and f"{tmp_path}/x.json: {cause}")


def test_parquet_is_read_as_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = [V5_RECORD, V5_RECORD.replace("52.95.128.179", "::1"), V5_RECORD.replace(" 6 ", " 17 ")]
    empty = "2 - - - - - 1616729292 1616729349 - - - 1 - - eni-7 - - - - - - NODATA"
    text, from_text = read(tmp_path / "x.log", "\n".join([V5, *lines, empty]))
    numbers = {"version", "srcport", "dstport", "protocol", "start", "end", "packets", "bytes", "tcp-flags"}
    table = {}
    for name, *words in zip(V5.split(), *(line.split() for line in [*lines, empty]), strict=True):
        values = [None if word == "-" else int(word) if name in numbers else word for word in words]
        table[name.replace("-", "_")] = values
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")
    log = open_log(str(tmp_path / "x.parquet"))
    from_parquet = rows_of(log)
    assert (log.records, log.nodata, log.broken_lines) == (text.records, text.nodata, text.broken_lines) == (2, 1, 1)
    assert "row 2: srcaddr and dstaddr are of different IP versions" in log.complaints[0]
    from_text["line"] -= 1
    assert from_parquet.tobytes() == from_text.tobytes()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FlowLogError, match="is Parquet, which takes the Python package pyarrow: pip install"):
        rows_of(open_log(str(tmp_path / "x.parquet")))


MINIMAL = {"srcaddr": CLIENT, "dstaddr": WEB, "protocol": 6}


def write_parquet(path: Path, rows: int, **columns: Any) -> None:
    """Write rows that are alike but for ``columns``, as small as they can be written."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({name: pa.repeat(value, rows) for name, value in MINIMAL.items()} | columns)
    parquet.write_table(table, path, compression="zstd", store_schema=False)


def test_a_long_text_in_many_rows_of_parquet_is_never_in_memory_for_each(tmp_path: Path) -> None:
    """SPEC 11.1. As text, the first two files have gigabytes."""
    pa = pytest.importorskip("pyarrow")
    rows, path = 40_000, tmp_path / "x.parquet"

    def column(numbers: Any, *words: str) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(words))

    thirds, rare = np.arange(rows) * 3 // rows, np.arange(rows) % 4000 == 0
    for words, long in (
        (column(thirds, "eni-1", "x" * 150_000, "eni-2"), rows // 3), (column(thirds * 0, "x" * 60_000), 0),
        # Ten rows have a long text, but pyarrow reserves half of it for each.
        (column(rare, "eni-1", "x" * 60_000), 0), (column(thirds * 0, "x" * 65_534), rows),
    ):  # fmt: skip
        write_parquet(path, rows, interface_id=words, instance_id=column(thirds, "i-1", "i-2", "i-3"))
        assert path.stat().st_size < 10_000
        before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
        pa.set_memory_pool(pool)
        try:
            log = open_log(str(path))
            if long == rows:
                with pytest.raises(FlowLogError, match="row 1: is longer than 65536 bytes"):
                    rows_of(log)
            else:
                read_rows = rows_of(log)
                assert (len(read_rows), log.broken_lines, log.damage) == (rows - long, long, None)
                # A row has its own number, whatever is wrong with those before.
                assert read_rows["line"].tolist() == [n + 1 for n in range(rows) if not long or thirds[n] != 1]
        finally:
            pa.set_memory_pool(before)
        assert pool.max_memory() < 1 << 26


def test_a_column_of_lists_or_of_one_width_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    for column in (pa.array([["eni-1"]] * 3), pa.array([b"eni-1"] * 3, pa.binary(5))):
        write_parquet(tmp_path / "x.parquet", 3, interface_id=column)
        with pytest.raises(FlowLogError, match="its column interface_id has neither numbers nor texts"):
            rows_of(open_log(str(tmp_path / "x.parquet")))


def test_a_parquet_file_that_says_it_has_no_rows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(path, 10)
    data = path.read_bytes()
    # The number of rows stands between the columns and the row groups, which are a list.
    says = b"\x16\x14\x19\x1c"
    assert data.count(says) == 1
    path.write_bytes(data.replace(says, b"\x16\x00\x19\x1c"))
    log = open_log(str(path))
    assert len(rows_of(log)) == 10 and log.damage is None and log.bytes_read == path.stat().st_size


NEUTRON = (
    "{time} action={action} project_id=7 log_resource_ids=['log-1', 'log-2'] vm_port=port-1 "
    "ethernet(dst='fa:16:3e:ec:36:32',ethertype=2048,src='fa:16:3e:50:aa:b5'), ipv4(csum=1,dst='10.0.0.4',flags=2,"
    "offset=0, option=None,proto={proto},src='172.24.4.10',tos=0,total_length=60,ttl=63,version=4), {rest}"
)
TCP = "tcp(ack=0,bits={bits},csum=15097,dst_port=80,offset=10,option=[],seq=3284890090,src_port=47825,urgent=0)"
PING = "icmp(code=0,csum=1,data=echo(data=b'x',id=1,seq=1),type=8)"


def neutron(time: str) -> str:
    return NEUTRON.format(time=time, action="DROP", proto=6, rest=TCP.format(bits=2))


def times_of(rows: np.ndarray[Any, Any]) -> list[str]:
    return [f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}" for ns in rows["start_ns"].tolist()]


@pytest.mark.parametrize(
    ("first", "modified", "year"),
    [
        ("Mar 5", "2026-03-05", 2026), ("Mar 6", "2026-03-05", 2026), ("Mar 9", "2026-03-05", 2025),
        ("Dec 31", "2026-03-05", 2025), ("Jan 1", "2025-12-31", 2026), ("Feb 29", "2026-03-05", 2024),
        ("Feb 29", "1903-01-01", 1896),
    ],
)  # fmt: skip
def test_times_without_a_year_are_of_the_last_year_before_the_file_was_written(
    first: str, modified: str, year: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.log"
    path.write_text(neutron(f"{first} 12:00:00") + "\n" + neutron("Jan 1 00:00:01"))
    second = datetime.fromisoformat(f"{modified}T12:00:00Z").timestamp()
    os.utime(path, (second, second))
    log = open_log(str(path))
    times = times_of(rows_of(log))
    assert times[0].startswith(f"{year}-")
    assert times[1].startswith(f"{year + first.startswith('Dec')}-01-01")
    assert log.remarks == [
        f"{path}: its times have no year: its first record was taken for one of {year}, as the file was last modified "
        f"on {modified}"
    ]


@pytest.mark.parametrize("first", [GOOD, json.dumps({"message": GOOD}), neutron("Jan 1 00:00:01")],
                         ids=["aws", "json", "neutron"])  # fmt: skip
def test_reading_ends_at_lines_that_have_hardly_any_bytes(first: str, tmp_path: Path) -> None:
    """SPEC 11.1. A few kilobytes decompress to millions of them."""
    line, kind = (" {}\n", "JSON value") if first.startswith("{") else ("\n", "line")
    for lines, number in ((200_000, 2), (800_000, 1)):
        content = gzip.compress(f"{first}\n{line * lines}{first}\n".encode())
        log, rows = read(tmp_path / "x.log.gz", content)
        assert len(rows) == number and (log.damage is None) == (number == 2)
    place = re.fullmatch(rf".*: {kind} ([0-9]+): so many {kind.split()[-1]}s in so few bytes .*", str(log.damage))
    assert place is not None and int(place[1]) < lines


def test_no_year_is_assumed_that_the_log_or_the_caller_tells(tmp_path: Path) -> None:
    log, rows = read(tmp_path / "x.log", neutron("Jan 1 00:00:01"), year=2020)
    assert times_of(rows) == ["2020-01-01T00:00:01"] and log.remarks == []
    log, rows = read(tmp_path / "x.log", neutron("2021-01-01T00:00:01"))
    assert times_of(rows) == ["2021-01-01T00:00:01"] and log.remarks == []
    log, _ = read(tmp_path / "x.log", neutron("Feb 30 00:00:01") + "\n" + neutron("Feb 28 00:00:01"))
    assert "line 1: there is no day 30 in month 2" in log.complaints[0] and len(log.remarks) == 1


def test_neutrons_log_that_begins_in_december_ends_in_the_next_year(tmp_path: Path) -> None:
    text = "\n".join([
        NEUTRON.format(time="Dec 31 23:59:59", action="ACCEPT", proto=6, rest=TCP.format(bits=18)),
        "Dec 31 23:59:59 host neutron[1]: something else",
        NEUTRON.format(time="Jan 1 00:00:01", action="DROP", proto=1, rest=PING),
        NEUTRON.format(time="Jan 1 00:00:02", action="DROP", proto=6, rest="tcp(ack=0,dst_port=80)"),
    ])  # fmt: skip
    log, rows = read(tmp_path / "x.log", text, year=2024)
    assert times_of(rows) == ["2024-12-31T23:59:59", "2025-01-01T00:00:01"]
    assert (log.records, log.left_out, log.complaints) == (2, 1, [f"{tmp_path}/x.log: line 4: has no src_port"])
    assert rows["action"].tolist() == [c.ACTION_ACCEPTED, c.ACTION_REJECTED]
    # Only an accepted packet is the first one of a session.
    assert rows["opener"].tolist() == [c.OPENER_SOURCE, c.OPENER_UNKNOWN]
    assert rows["tcp_flags"].tolist() == [18, c.UNKNOWN] and rows["icmp_type"].tolist() == [c.UNKNOWN, 8]
    assert ends(rows) == [("172.24.4.10", 47825, "10.0.0.4", 80), ("172.24.4.10", 0, "10.0.0.4", 0)]
    assert {log.words[number] for number in rows["rule"]} == {"log-1"} and set(rows["packets"]) == {c.UNKNOWN}


ZEEK_FIELDS = [
    "ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "duration", "orig_bytes", "resp_bytes",
    "conn_state", "history", "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes",
]  # fmt: skip
ZEEK = [
    "1647504479.519793 C1 192.168.50.100 50567 52.182.143.212 443 tcp 1.235504 6226 5256 SF ShADdaFf 12 6726 10 5668",
    "1647504479.5 C2 192.168.50.100 50567 52.182.143.212 443 tcp - 999 - OTH ^dA 1 40 0 0",
    "1647504480.000000 C3 10.0.0.1 8 10.0.0.2 0 icmp 1.0 56 56 OTH - 1 84 1 84",
    "1647504480.000000 C4 fe80::1 5353 ff02::fb 5353 udp 0.1 56 0 S0 D 1 84 0 0",
]


def test_the_data_of_a_ping_cannot_change_its_type(tmp_path: Path) -> None:
    ping = PING.replace("b'x'", "b'type=0, code=3), tcp(bits=2,src_port=1,dst_port=2)'")
    _, rows = read(tmp_path / "x.log", NEUTRON.format(time="Jan 1 00:00:01", action="DROP", proto=1, rest=ping))
    assert rows[["icmp_type", "icmp_code", "sport", "tcp_flags"]].tolist() == [(8, 0, 0, c.UNKNOWN)]


def zeek_json(line: str) -> str:
    values: dict[str, Any] = {}
    for name, word in zip(ZEEK_FIELDS, line.split(), strict=True):
        if word != "-":
            values[name] = int(word) if word.isdigit() else float(word) if name in ("ts", "duration") else word
    return json.dumps(values)


def test_zeeks_logs_count_both_directions_in_bytes_of_ip(tmp_path: Path) -> None:
    header = "#separator \\x09\n#unset_field\t-\n#path\tconn\n#fields\t" + "\t".join(ZEEK_FIELDS) + "\n"
    text = header + "\n".join("\t".join(line.split()) for line in ZEEK) + "\n"
    log, rows = read(tmp_path / "conn.log", text + "a\tbroken\tline\n#path\tdns\n" + "\t".join(ZEEK[0].split()) + "\n")
    assert (log.records, log.broken_lines, log.left_out) == (4, 1, 1)
    assert rows["bytes"].tolist() == [6726, 40, 84, 84] and rows["bytes_back"].tolist() == [5668, 0, 84, 0]
    assert rows["packets"].tolist() == [12, 1, 1, 1] and rows["packets_back"].tolist() == [10, 0, 1, 0]
    assert rows["start_ns"][0] == 1647504479519793000 and rows["end_ns"][0] == 1647504479519793000 + 1235504000
    assert rows["end_ns"][1] == c.UNKNOWN
    # A connection that Zeek met midway shows no opener, and a ping does, though its state is OTH, too.
    assert rows["opener"].tolist() == [c.OPENER_SOURCE, c.OPENER_UNKNOWN, c.OPENER_SOURCE, c.OPENER_SOURCE]
    assert [CONN_STATES[state] for state in rows["conn_state"]] == ["SF", "OTH", "OTH", "S0"]
    assert ends(rows)[2] == ("10.0.0.1", 0, "10.0.0.2", 0) and (rows["icmp_type"][2], rows["icmp_code"][2]) == (8, 0)
    assert set(rows["action"]) == {c.ACTION_UNKNOWN}
    as_json = "\n".join([*map(zeek_json, ZEEK), '{"_path": "dns", "ts": 1}', "{"])
    log, from_json = read(tmp_path / "conn.json", as_json)
    assert (log.records, log.broken_lines, log.left_out) == (4, 1, 1)
    rows["line"] = from_json["line"]
    assert from_json.tobytes() == rows.tobytes()
    wrapped = [f'{{"conn": {zeek_json(line)}}}' for line in ZEEK]
    log, from_kafka = read(tmp_path / "topic", "\n".join([*wrapped, '{"dns": {"ts": 1}}', '{"conn": {"ts": 1}}']))
    assert (log.records, log.broken_lines, log.left_out) == (4, 1, 1)
    assert from_kafka.tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"#path\tconn\n#fields\t{chr(9).join(ZEEK_FIELDS)}\n", "is a conn.log of Zeek: its records do not say what"),
        (zeek_json(ZEEK[0]), "is a conn.log of Zeek as JSON: its records do not say what was accepted"),
        ("#separator \\x09\n#path\tdns\n#fields\tts\n", "is a log of Zeek other than conn.log, which sgfast does not"),
        ("srcaddr dstaddr srcport dstport protocol start end action" + " x" * 5000, "the records have 5008 fields"),
        ("srcaddr dstaddr srcport dstport protocol start end\n", "the records have no field action: add it to"),
    ],
)
def test_a_comparison_with_actions_says_in_one_line_what_a_format_lacks(
    content: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "x.log"
    log.write_text(content)
    outcome = sgfast(capsys, "replay", write_policy(tmp_path, POLICY), log, "--compare-actions")
    assert outcome.status == 2 and said in outcome.one_line()


def test_a_record_at_any_place_of_a_block_is_read(tmp_path: Path) -> None:
    # Blocks, batches and members of gzip end in the middle of lines; some lines are read slowly, also the last one.
    slow = GOOD.replace(" OK", "\u2003OK")
    lines = [GOOD, slow, NODATA, record("2001:db8::1", DB, 1, 2)] * 20_000 + [slow]
    text = "\n".join(lines).encode()
    for content in (text, gzip.compress(text[:999_999], 1) + gzip.compress(text[999_999:], 1)):
        log, rows = read(tmp_path / "x.log", content)
        assert (log.records, log.nodata, log.broken_lines) == (40_001, 20_000, 20_000)
        assert rows["line"].tolist() == [n for n, line in enumerate(lines, 1) if line in (GOOD, slow)]
        assert set(ends(rows)) == {(CLIENT, 50000, WEB, 443)}


def random_line(rng: random.Random) -> str:
    v6 = rng.random() < 0.3
    src, dst = (str(ip_address(rng.getrandbits(rng.choice((16, 128)) if v6 else 32).to_bytes(16 if v6 else 4, "big")))
                for _ in range(2))  # fmt: skip
    start = rng.randrange(1 << 33)
    values = {
        "srcaddr": src, "dstaddr": dst, "srcport": rng.randrange(65536), "dstport": rng.choice((0, 80, 256, "-")),
        "protocol": rng.choice((1, 6, 17, 58, 255)), "start": start, "end": start + rng.choice((0, 60)),
        "packets": rng.choice((0, 5, 10**18 - 1, 2**63 - 1, "-")), "bytes": rng.randrange(10**rng.randrange(1, 18)),
        "interface-id": rng.choice(("-", "eni-1", f"eni-{rng.getrandbits(40):x}")), "instance-id": rng.choice("-i"),
        "action": rng.choice(("ACCEPT", "REJECT")), "tcp-flags": rng.choice((0, 2, 18, 255, "-")),
        "pkt-srcaddr": rng.choice((src, "-")), "pkt-dstaddr": rng.choice((dst, "-")), "reject-reason": "-",
        "flow-direction": rng.choice(("ingress", "egress", "-")), "log-status": rng.choice(("OK",) * 9 + ("NODATA",)),
    }  # fmt: skip
    return " ".join(str(values.get(name, "x")) for name in V5.split())


def test_the_tokenizer_takes_a_line_as_the_slow_reading_does_or_leaves_it(tmp_path: Path) -> None:
    fields = RecordFields(V5.split())
    left = taken = 0
    for seed in range(some(20_000, 1_000_000)):
        rng = random.Random(seed)
        line = random_line(rng).encode()
        is_sound = rng.random() < 0.3
        if not is_sound:
            line = mutated(rng, line, random_line(rng).encode()).replace(b"\n", b" ")
        log = Log("x", lambda head: None)   # type: ignore[arg-type,return-value]
        words = log.words
        tokenizer = Tokenizer(fields.handlers, words)
        rows = np.zeros(1, RECORD_DTYPE)
        answer = tokenizer.take(line + b"\n", 0, rows, 0)
        try:
            expected = read_slowly(log, 0, fields.values(line.decode("utf-8", "replace").split()))
        except ValueError:
            assert answer == LEFT or not line.strip(), (seed, line)
            continue
        if answer == LEFT:
            # 19 digits are left to Python; of sound lines nothing else is.
            left += is_sound and str(2**63 - 1).encode() not in line
            continue
        taken += 1
        assert tokenizer.nodata == log.nodata and tokenizer.skipdata == log.skipdata, (seed, line)
        assert tokenizer.filled == (expected is not None), (seed, line)
        if expected is not None:
            told = np.frombuffer(expected.packed(), RECORD_DTYPE)
            assert told.tobytes() == rows.tobytes(), (seed, line, told, rows)
    assert left == 0 and taken > 1000


def test_times_for_which_rows_have_no_room_break_a_line_and_not_the_file(tmp_path: Path) -> None:
    zeek = json.loads(zeek_json(ZEEK[0]))
    late = [
        json.dumps(zeek | times) for times in (
            {"ts": 8e9, "duration": 8e9}, {"ts": "9999-12-31T00:00:00Z"}, {"ts": 9e9}, {"ts": "1969-12-31T00:00:00Z"},
        )
    ]  # fmt: skip
    far = [neutron(f"{year}-12-31T00:00:00") for year in (1500, 9999)]
    for sound, broken in ((json.dumps(zeek), late), (neutron("2024-01-01T00:00:00"), far)):
        log, rows = read(tmp_path / "x.log", "\n".join([sound, *broken, sound]))
        assert (len(rows), log.broken_lines) == (2, len(broken)), log.complaints


def test_records_before_a_header_that_lacks_fields_are_not_lost(tmp_path: Path) -> None:
    for lacking in ("version srcaddr start", "srcaddr " * 100):
        log, rows = read(tmp_path / "x.log", f"{GOOD}\n{lacking}\n{GOOD}\n")
        assert len(rows) == log.records == 1 and "line 2: the records have no field" in str(log.damage)
        with pytest.raises(FlowLogError, match="line 1: the records have no field"):
            read(tmp_path / "x.log", f"{lacking}\n{GOOD}\n")


def test_words_keep_their_numbers_while_their_table_grows() -> None:
    words = WordNumbers()
    numbers = [words.number_of(b"eni-%d" % n) for n in range(20_000)]
    assert numbers == list(range(20_000)) == [words.number_of(b"eni-%d" % n) for n in range(20_000)]
    assert len(words) == 20_000 and words[19_999] == "eni-19999"
    assert words.number_of(b"x" * 2000) == c.UNKNOWN
    with pytest.raises(IndexError):
        words[20_000]


def test_names_chosen_to_share_a_slot_take_no_longer_than_others() -> None:
    """SPEC 11. The last bits of their FNV-1a hashes, which anybody can compute, are the same."""
    rng = np.random.default_rng(20261202)
    letters = rng.integers(97, 123, (1 << 23, 10), np.uint8)
    mark = np.full(len(letters), 14695981039346656037, np.uint64)
    for place in range(letters.shape[1]):
        mark = (mark ^ letters[:, place]) * np.uint64(1099511628211)
    mark ^= mark >> np.uint64(32)
    chosen = [row.tobytes() for row in letters[mark & np.uint64(4095) == 7]]
    others = [row.tobytes() for row in letters[: len(chosen)]]
    assert len(set(chosen)) > 1900

    def seconds(names: list[bytes]) -> float:
        words = WordNumbers()
        began = time.perf_counter()
        for name in names:
            words.number_of(name)
        return time.perf_counter() - began

    taken, yardstick = (min(seconds(names) for _ in range(5)) for names in (chosen, others))
    assert taken < 4 * yardstick, f"{taken / yardstick:.1f} times as long"


def test_the_tokenizer_reads_nothing_beyond_its_block() -> None:
    tokenizer = Tokenizer(RecordFields(DEFAULT_FIELDS).handlers, WordNumbers())
    rows = np.zeros(2, RECORD_DTYPE)
    with pytest.raises(ValueError, match="line feed"):
        tokenizer.take(GOOD.encode(), 0, rows, 0)
    with pytest.raises(ValueError, match="outside"):
        tokenizer.take(GOOD.encode() + b"\n", 999, rows, 0)
    with pytest.raises(ValueError, match="outside"):
        tokenizer.take(GOOD.encode() + b"\n", 0, rows, 3)
    with pytest.raises(ValueError, match="no records"):
        tokenizer.take(GOOD.encode() + b"\n", 0, np.zeros(2), 0)
