"""Tables of a replay, of a comparison and of an engine, as Python and other libraries see them (SPEC 14.9, 14.10)."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from captures import pcap_head, pcap_record
from tables import typed
from workshop import ROOT

import sgfast
from sgfast.base.errors import ArgumentError, TableError
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.expectations import parse_expectations
from sgfast.policy.protocols import protocol_name
from sgfast.questions.comparing import TrafficDiff, run_diff
from sgfast.questions.replaying import ReplayOptions
from sgfast.questions.replaying import tables as replay_tables
from sgfast.report.lines import ConnectionLines, VerdictLines
from sgfast.rows import BATCH_ROWS, Table
from sgfast.rows.row_schema import CONNECTION_ROWS, PACKET_ROWS, PARTS, TABLE_KINDS, TableKind
from sgfast.rules.reaching import tables as reaching_tables
from sgfast.rules.reaching.names import Part, PartKind
from sgfast.rules.reaching.rows import Row
from sgfast.traffic.capture import open_capture
from sgfast.traffic.preprocess.vpcs import Dealer

POLICY, CAPTURE = str(ROOT / "pcaps/shop.yaml"), str(ROOT / "pcaps/shop.pcap")
BOTH: tuple[Any, ...] = ("connections", "packets")


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: int(value) if isinstance(value, np.datetime64) else value for name, value in row.items()}


def replayed(**options: Any) -> sgfast.ReplayResult:
    options = {"tables": BOTH, **options}
    return sgfast.replay(options.pop("policy", POLICY), options.pop("captures", CAPTURE), **options)


def test_rows_say_what_json_lines_say(monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow", reason="no pyarrow here")
    lines: tuple[list[bytes], list[bytes]] = ([], [])
    monkeypatch.setattr(replay_tables, "BATCH_ROWS", 100)
    sinks = {"packets": VerdictLines(lines[0].append), "flows": ConnectionLines(lines[1].append)}
    result = replayed(captures=[CAPTURE] * 3, **sinks)
    for table, written, kind, more in (
        (result.tables.packets, lines[0], PACKET_ROWS, {"wire_length", "file", "file_packet"}),
        (result.tables.connections, lines[1], CONNECTION_ROWS, {"first_packet"}),
    ):
        expected = [typed(json.loads(line), kind.names) for line in b"".join(written).splitlines()]
        found = [plain(row) for row in table]
        assert len(table) == len(found) == len(expected) > 30
        for row, line in zip(found, expected, strict=True):
            assert row.keys() - {name.replace(".", "_") for name in line} == more
            assert {name: row[name.replace(".", "_")] for name in line} == line
    packets, connections = list(result.tables.packets), list(result.tables.connections)
    assert sum(row["wire_length"] for row in packets) == result.bytes
    assert {row["file"] for row in packets} == {CAPTURE}
    assert [row["packet"] for row in packets] == list(range(1, 3 * 261 + 1))
    assert [row["file_packet"] for row in packets] == [*range(1, 262)] * 3
    assert pa.table(result.tables.packets).column("packet").num_chunks == 3
    for row in connections:
        first = packets[row["first_packet"] - 1]
        assert (first["src"], first["dst"]) == (row["initiator"], row["responder"])


def kinds_of(table: Table) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for row in table:
        found[row["source"], row["destination"], row["protocol"], row["port"], row["reason"]] += row["connections"]
    return found


def test_kinds_add_up_to_the_lists_of_the_result() -> None:
    result = replayed()
    tables = result.tables
    assert sum(row["connections"] for row in tables.would_break) == sum(row.connections for row in result.broken) > 5
    assert sum(row["packets"] for row in tables.denied) == result.verdicts["deny"] > 5
    assert sum(row["connections"] for row in tables.denied) == result.connections["denied"]
    unanswered = Counter({row.answer: row.connections for row in result.unanswered})
    assert sum(row["connections"] for row in tables.unanswered) == sum(row.connections for row in result.unanswered)
    assert {row["answer"] for row in tables.unanswered} == set(unanswered)
    began = sum(row["connections"] for table in (tables.allowed, tables.unanswered) for row in table)
    assert began == result.connections["opened"] + result.connections["inferred"]
    for broken in result.broken:
        ends = broken.peer_name or broken.peer, broken.service.instance
        source, destination = ends if broken.direction == "inbound" else ends[::-1]
        assert kinds_of(tables.would_break)[
            source, destination, protocol_name(broken.service.protocol), broken.service.port, broken.reason
        ]
    assert [row["rule"] for row in tables.rules] == [hits.rule.id for hits in result.rules]
    assert [row["packets"] for row in tables.rules] == [hits.packets for hits in result.rules]
    first = list(result.tables.packets)[next(iter(tables.denied))["first_packet"] - 1]
    assert first["verdict"] == "deny"


def compared(new: str) -> TrafficDiff:
    return run_diff(POLICY, ROOT / "pcaps" / new, CAPTURE, ReplayOptions())


def test_a_comparison_says_what_changes() -> None:
    result = compared("shop.proposed.yaml")
    rows = list(result.tables.changed)
    for change in ("newly-denied", "newly-allowed"):
        own = [row for row in rows if row["change"] == change]
        total = result.total(change)  # type: ignore[arg-type]
        names = ("connections", "answered", "packets", "bytes")
        assert [sum(row[name] for row in own) for name in names] == [getattr(total, name) for name in names]
    assert len(rows) == len(result.tables.changed) > 2
    assert [row["rule"] for row in result.tables.rules] == [effect.rule for effect in result.rules]
    # Nothing changes, and nothing is there.
    same = compared("shop.yaml")
    assert list(same.tables.changed) == list(same.tables.rules) == []


ICMP = {"protocol": "icmp", "port": None, "icmp_type": 8, "icmp_code": 0}
TCP_80 = {"protocol": "tcp", "port": 80, "icmp_type": None, "icmp_code": None}
INBOUND = {"peer_address": "198.51.100.7", "direction": "inbound", "source": "198.51.100.7", "source_groups": None}
NO_HTTP = {
    **INBOUND, **TCP_80, "destination": "web-1", "destination_groups": "web", "reason": "deny-rule", "rule": "no-http",
}  # fmt: skip
#: By table: one of its rows. In all but `unanswered`, a rule denies what was allowed to the web server.
ROWS: dict[str, dict[str, Any]] = {
    "would_break": {
        **NO_HTTP, "connections": 3, "packets": 4, "bytes": 4 * 74, "first_time": 1795566725171944151,
        "last_time": 1795566728475404227, "first_packet": 6,
    },
    "denied": {
        **INBOUND, **ICMP, "destination": "db-1", "destination_groups": "db", "reason": "no-rule", "rule": None,
        "connections": 1, "packets": 2,
        "bytes": 196, "first_time": 1795566730058030319, "last_time": 1795566730258615518, "first_packet": 111,
    },
    "allowed": {
        "source": "db-1", "source_groups": "db", "destination": "198.51.100.53", "destination_groups": None,
        "peer_address": "198.51.100.53", "protocol": "udp",
        "port": 53, "icmp_type": None, "icmp_code": None, "direction": "outbound", "reason": "rule",
        "rule": "db/outbound/1", "answer": "answered", "connections": 1, "first_time": 1795566732727325783,
        "last_time": 1795566732727325783, "first_packet": 202,
    },
    "rules": {
        "rule": "no-http", "group": "web", "direction": "inbound", "action": "deny", "priority": 1,
        "connections": 0, "packets": 7, "bytes": 7 * 74,
    },
    "changed": {
        **NO_HTTP, "change": "newly-denied", "passing_rule": "web-http-4", "connections": 4, "answered": 4,
        "packets": 45, "bytes": 16822, "first_time": 1795566725171944151, "last_time": 1795566728475700282,
        "first_packet": 6,
    },
    "unanswered": {
        **INBOUND, **TCP_80, "destination": "web-2", "destination_groups": "web", "reason": "rule",
        "rule": "web-http-4", "answer": "silent", "connections": 1,
        "first_time": 1795566726391691040, "last_time": 1795566726391691040, "first_packet": 69,
    },
}  # fmt: skip


def test_a_row_of_each_table_is_right_in_every_column_and_most_connections_come_first() -> None:
    before = sgfast.load(POLICY)
    web, db = before.security_groups
    no_http = replace(web.rules[0], id="no-http", action="deny")
    after = replace(before, security_groups=(replace(web, rules=(no_http,)), db))
    tables, comparison = replayed(policy=after).tables, run_diff(before, after, CAPTURE, ReplayOptions()).tables
    names = ("would_break", "denied", "allowed", "rules")
    found = {name: [plain(row) for row in getattr(tables, name)] for name in names}
    found["changed"] = [plain(row) for row in comparison.changed]
    others = replayed(policy=before).tables
    found["unanswered"] = [plain(row) for row in others.unanswered]
    for name, row in ROWS.items():
        assert row in found[name], name
    found["allowed"] = [plain(row) for row in others.allowed]
    for name in ("would_break", "denied", "allowed", "unanswered", "changed"):
        counts = [row["packets" if name == "denied" else "connections"] for row in found[name]]
        assert len({*counts}) > 1 and counts == sorted(counts, reverse=True), name


def test_groups_of_ends_are_those_of_the_policy_that_blocks() -> None:
    before = sgfast.load(POLICY)
    web, db = before.security_groups
    first, *others = before.instances
    of_both = replace(first, security_groups=("web", "db"))
    after = replace(
        before, security_groups=(replace(web, rules=()), replace(db, rules=())), instances=(of_both, *others)
    )  # fmt: skip

    def groups(old: sgfast.Policy, new: sgfast.Policy) -> set[str]:
        rows = list(run_diff(old, new, CAPTURE, ReplayOptions()).tables.changed)
        return {row["destination_groups"] for row in rows if row["destination"] == "web-1"}

    # Names are those of NEW where it newly denies, and those of OLD where NEW newly allows.
    assert groups(before, after) == groups(after, before) == {"web, db"}
    # The names are those of the policy with which a replay began, or those that an instance was added with.
    added = {"name": "new-1", "addresses": ["10.0.0.5"], "security_groups": ["web"]}
    changes = [
        {"at": 3, "remove_instance": {"instance": "web-1"}}, {"at": 4, "add_instance": added}
    ]  # fmt: skip
    rows = list(sgfast.replay(before, CAPTURE, changes=changes).tables.denied)
    groups_of = {row["destination"]: row["destination_groups"] for row in rows}
    assert (groups_of["web-1"], groups_of["new-1"]) == ("web", "web")


def test_where_a_packet_is_in_its_capture_survives_filters_and_merging(tmp_path: Path) -> None:
    web, dns = ([(n, frame) for n, frame in enumerate(packets)] for packets in split())
    paths = []
    for name, packets in (("web.pcap", web), ("dns.pcap", dns)):
        paths.append(str(tmp_path / name))
        records = [pcap_record(frame, time=(2 * n, 0)) for n, frame in packets]
        Path(paths[-1]).write_bytes(b"".join([pcap_head(), *records]))
    for reading in (sgfast.ReadOptions(), sgfast.ReadOptions(merge=True), sgfast.ReadOptions(filter="tcp")):
        result = replayed(captures=paths, reading=reading, tables="packets")
        rows = list(result.tables.packets)
        assert {row["file"] for row in rows} == set(paths[: 1 if reading.filter else 2])
        assert [row["packet"] for row in rows] == list(range(1, len(rows) + 1))
        for row in rows:
            # The time says which one it is.
            assert row["time"].astype(np.int64) == 2 * (row["file_packet"] - 1) * 10**9
    folder = replayed(captures=str(tmp_path), tables="packets")
    assert {row["file"] for row in folder.tables.packets} == set(paths)


def test_positions_that_are_not_known_are_zero() -> None:
    batch = FrameBatch.from_frames([b"a", b"b", b"c"], [1, 2, 3])
    files, numbers = np.full((2, 2), 7, np.int64)
    batch.fill_positions(1, files, numbers)
    assert files.tolist() == numbers.tolist() == [0, 0]
    for first, places, others in ((2, 2, 2), (-1, 2, 2), (0, 2, 1), (4, 0, 0)):
        with pytest.raises(ValueError, match="no such frames"):
            batch.fill_positions(first, np.zeros(places, np.int64), np.zeros(others, np.int64))


def test_copies_and_parts_of_a_batch_are_where_it_is() -> None:
    with open_capture(CAPTURE) as reader:
        reader.number = 2
        batch = reader.next_batch()
        assert batch is not None
        ((_, part, _),) = Dealer(1).deal(batch, 5, 10)
        for each, first in ((batch.copied(5, 10), 2), (part, 2), (batch, 7)):
            captures, packets = np.zeros((2, 3), np.int64)
            each.fill_positions(first, captures, packets)
            assert captures.tolist() == [2, 2, 2] and packets.tolist() == [8, 9, 10]


def split() -> tuple[list[bytes], list[bytes]]:
    """Frames of shop.pcap that are TCP, and some others."""
    frames = []
    with open_capture(CAPTURE) as reader:
        while (batch := reader.next_batch()) is not None:
            frames += [data for _, data, _, _ in batch]
    tcp = [data for data in frames if data[12:14] == b"\x08\x00" and data[23] == 6]
    return tcp[:20], [data for data in frames if data[12:14] == b"\x08\x00" and data[23] != 6][:20]


def test_reference_model_and_engine_make_the_same_table() -> None:
    fast = [plain(row) for row in replayed(tables="packets").tables.packets]
    slow = [plain(row) for row in replayed(tables="packets", engine="reference").tables.packets]
    for row in fast:
        row["file"] = row["file_packet"] = None
    assert slow == fast


def test_names_of_what_a_change_takes_away_stay() -> None:
    changes = str(ROOT / "pcaps/shop.changes.yaml")
    plainly = Counter(row["verdict"] for row in replayed().tables.packets)
    result = replayed(changes=changes)
    assert Counter(row["verdict"] for row in result.tables.packets) == Counter(result.verdicts) - Counter()
    assert {row["egress_instance"] for row in result.tables.packets} >= {"web-1", "db-1"}
    assert plainly != Counter(result.verdicts)


def test_packets_of_several_vpcs_have_no_number_among_all() -> None:
    policy = sgfast.load(text="""
        version: 1
        vpcs: [{name: a, file: "*shop.pcap"}]
        security_groups: [{name: web, rules: [{direction: inbound, protocol: tcp}]}]
        instances: [{name: web-1, vpc: a, addresses: [10.0.0.5], security_groups: [web]}]
    """)
    tables = replayed(policy=policy).tables
    assert len(tables.connections) > 3 and {row["first_packet"] for row in tables.connections} == {None}
    assert {row["first_packet"] for row in tables.allowed} == {None}
    assert [row["file_packet"] for row in tables.packets] == list(range(1, 262))


def test_a_replay_that_goes_on_keeps_its_own_packets(tmp_path: Path) -> None:
    snapshot = tmp_path / "half.snap"
    replayed(snapshot=snapshot, tables=())
    result = replayed(resume=snapshot, tables="packets")
    assert [row["packet"] for row in result.tables.packets] == list(range(262, 523))
    assert [row["file_packet"] for row in result.tables.packets] == list(range(1, 262))


# Answers without traffic ---------------------------------------------------------------------------------------------

ANY = {"name": "any", "from": "any", "to": "any", "service": "tcp/1", "verdict": "deny", "why": "Nobody needs it."}
MEANT: list[dict[str, Any]] = [
    {"from": "web", "to": "db", "service": ["tcp/5432", "tcp/6379"], "verdict": "allow"}, ANY,
    {"from": ["internet", "192.0.2.1"], "to": "web", "service": "tcp/80", "verdict": "allow"},
    {"from": "192.0.2.1", "to": "192.0.2.2", "service": "all", "verdict": "deny"},
]  # fmt: skip
WIDE = """
version: 1
settings: {profile: aws}
security_groups:
- {name: out, rules: [{direction: outbound, protocol: all}]}
- {name: in, rules: [
    {id: high, direction: inbound, protocol: tcp, ports: "1-1000,2000-65535"},
    {id: gre, direction: inbound, protocol: gre}, {id: rest, direction: inbound, protocol: 200},
    {id: ping, direction: inbound, protocol: icmp, icmp_type: 8}]}
instances:
- {name: a, addresses: [10.0.0.1, "2001:db8::1"], security_groups: [out]}
- {name: b, addresses: [10.0.0.2, "2001:db8::2"], security_groups: [out, in]}
- {name: c, addresses: [10.0.0.3], security_groups: [in]}
"""


def combinations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table for rows of the JSON, without the parts of services."""
    found = []
    for n, row in enumerate(rows, 1):
        services = [f"all except {'; '.join(row['services'])}"] if row["all_services_except_these"] else row["services"]
        for source, destination, service in product(row["from"], row["to"], services):
            made = {"row": n, "ip_versions": ", ".join(map(str, row["ip_versions"])), "service": service}
            for name, part in (("source", source), ("destination", destination)):
                made |= {
                    name: part["name"] or part["kind"], f"{name}_kind": part["kind"],
                    f"{name}_addresses": ", ".join(part["addresses"] or ()) or None,
                    f"{name}_except": ", ".join(part["except"]) or None,
                    f"{name}_vpcs": ", ".join(part.get("vpcs", ())) or None,
                }  # fmt: skip
            if "rules" in row:
                for policy in ("old", "new"):
                    ids = [rule["rule"] for rule in row["rules"] if rule["policy"] == policy]
                    made[f"{policy}_rules"] = ", ".join(ids) or None
            found.append(made)
    return found


def same(table: Table, expected: list[dict[str, Any]], *more: str) -> None:
    rows = list(table)
    assert len(table) == len(rows) == len(expected)
    for row, each in zip(rows, expected, strict=True):
        assert row.keys() - each.keys() == {*more} and {name: row[name] for name in each} == each


def test_tables_of_answers_without_traffic_say_what_their_json_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching_tables, "BATCH_ROWS", 3)
    shop, proposed, wide = *map(sgfast.load, (POLICY, ROOT / "pcaps/shop.proposed.yaml")), sgfast.load(text=WIDE)
    for policy in (shop, wide):
        for found in (policy.reach(), policy.reach(destination="10.0.0.0/30", protocol="tcp"), policy.reach(port=9999)):
            same(found.tables.rows, combinations(found.to_dict()["rows"]), "protocol", "ports", "rules")
    for old, new in ((shop, proposed), (proposed, shop), (shop, wide)):
        changes = old.diff(new)
        answer, tables = changes.to_dict(), changes.tables
        same(tables.opened, combinations(answer["opened"]), "protocol", "ports")
        same(tables.closed, combinations(answer["closed"]), "protocol", "ports")
        assert len(tables.closed) > 0
    services = {(row["service"], row["protocol"], row["ports"]) for row in wide.reach(destination="b").tables.rows}
    assert {
        ("tcp/1-1000,2000-65535", "tcp", "1-1000,2000-65535"), ("gre", "gre", None), ("protocol 200", "200", None),
        ("icmp echo-request", "icmp", None),
    } <= services  # fmt: skip
    names = {rule.rule.id for row in wide.reach(rules=True).rows for rule in row.rules}
    found_rules = {name for row in wide.reach(rules=True).tables.rows for name in row["rules"].split(", ")}
    assert found_rules == names > {"high", "gre"}
    assert get_args(PartKind) == PARTS


def test_findings_and_outcomes_say_what_their_json_says() -> None:
    policy = sgfast.load(POLICY)
    checked, proof = policy.check(captures=CAPTURE, expect=MEANT), policy.test(MEANT)
    names = [column for column in checked.tables.findings.columns if column != "instances"]
    expected = [{name: finding[name] for name in names} for finding in checked.to_dict()["findings"]]
    same(checked.tables.findings, expected, "instances")
    assert {row["certain"] for row in checked.tables.findings} == {True, False}
    assert [row["instances"] for row in checked.tables.findings] == [
        ", ".join(each.instances) or None for each in checked.findings
    ]
    outcomes = [
        {
            **{name: each[name] for name in ("name", "verdict", "why", "outcome", "cause")},
            **{name: ", ".join(each[key]) for name, key in WORDS.items()},
            "nobody": ", ".join(each["nobody"]) or None,
        }
        for each in proof.to_dict()["results"]
    ]
    same(proof.tables.outcomes, outcomes, "line", "certain", "egress_rule", "ingress_rule")
    rows = list(proof.tables.outcomes)
    assert [row["outcome"] for row in rows] == ["fails", "fails", "holds", "empty"]
    decided = [("web-out-6", None), ("web-out-4", None), (None, None), (None, None)]
    assert [(row["egress_rule"], row["ingress_rule"]) for row in rows] == decided
    text = "expect:\n- {from: web, to: db, service: tcp/5432, verdict: allow}\n"
    assert [row["line"] for row in policy.test(parse_expectations(text)).tables.outcomes] == [2]


WORDS = {"source": "from", "destination": "to", "service": "service"}


def test_more_combinations_than_memory_holds_are_made_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching_tables, "BATCH_ROWS", 1000)
    parts = [tuple(Part("instance", f"{end}{n}") for n in range(20_000)) for end in "ab"]
    few = Row((Part("any"),), (Part("group", "g"),), (4, 6), "all")
    found = replace(sgfast.load(POLICY).reach(), rows=(few, Row(parts[0], parts[1], (4,), "tcp/1; tcp/2")))
    rows = iter(found.tables.rows)
    assert len(found.tables.rows) == 1 + 2 * 20_000**2
    first = [next(rows) for _ in range(4)]
    assert [(row["row"], row["source"], row["destination"], row["service"]) for row in first] == [
        (1, "any", "g", "all"), (2, "a0", "b0", "tcp/1"), (2, "a0", "b0", "tcp/2"), (2, "a0", "b1", "tcp/1"),
    ]  # fmt: skip


def test_a_comparison_that_was_not_made_has_no_empty_tables() -> None:
    changes = sgfast.load(POLICY).diff(ROOT / "pcaps/shop.proposed.yaml")
    assert repr(changes.tables) == "<Tables of a comparison: opened, closed>"
    for name in ("changed", "rules"):
        with pytest.raises(ArgumentError, match=r"^changed connections are those of captures: give some"):
            getattr(changes.tables, name)
    undone = replace(changes, by_rules=replace(changes.by_rules, opened=(), closed=(), not_compared="It is too much."))
    for name in ("opened", "closed"):
        with pytest.raises(TableError, match=r"^the rules were not compared: It is too much\.$"):
            getattr(undone.tables, name)


# Tables that are not there -------------------------------------------------------------------------------------------


def test_a_table_that_was_not_kept_says_how_to_keep_it() -> None:
    tables = replayed(tables=()).tables
    for name in BOTH:
        with pytest.raises(TableError, match=rf"^no {name} were kept: replay with tables=\('{name}',\)"):
            getattr(tables, name)
    always = "would_break, denied, unanswered, allowed, rules>"
    assert repr(tables) == f"<Tables of a replay: {always}"
    assert repr(replayed(tables="packets").tables) == f"<Tables of a replay: packets, {always}"
    assert repr(replayed().tables) == f"<Tables of a replay: connections, packets, {always}"
    for wrong in ("rules", ["packets", "flows"], [1]):
        with pytest.raises(ArgumentError, match="tables must be some of connections, packets"):
            replayed(tables=wrong)


def test_more_rows_than_memory_is_for_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_tables, "MOST_KEPT", 260)
    with pytest.raises(TableError, match=r"more than 260 packets, .* --verdicts FILE\.parquet$"):
        replayed(tables="packets")
    assert len(replayed(tables="connections").tables.connections) == 36
    monkeypatch.setattr(replay_tables, "MOST_KEPT", 35)
    with pytest.raises(TableError, match=r"more than 35 connections, .* --connections FILE\.parquet$"):
        replayed(tables="connections")


def test_libraries_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    table = replayed().tables.rules
    for name, method in (("pandas", table.to_pandas), ("polars", table.to_polars)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(TableError, match=f"^to_{name} needs {name}"):
            method()


def test_a_replay_without_packets_has_empty_tables(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(pcap_head())
    pa = pytest.importorskip("pyarrow", reason="no pyarrow here")
    tables = replayed(captures=str(empty)).tables
    for name in ("packets", "connections", "would_break", "denied", "unanswered", "allowed"):
        table = getattr(tables, name)
        assert len(table) == len(list(table)) == pa.table(table).num_rows == 0
        assert tuple(pa.table(table).column_names) == table.columns
        assert "more" not in table._repr_html_()


# Engines -------------------------------------------------------------------------------------------------------------


def test_what_an_engine_judged_is_a_table() -> None:
    engine = sgfast.Engine(POLICY)
    headers = np.concatenate([
        sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000 + n, dport=80 + n, time_ns=n, wire=60 + n)
        for n in range(3)
    ])
    results = engine.process(headers)
    rows = list(sgfast.table(headers, results, engine, first=11))
    assert [row["packet"] for row in rows] == [11, 12, 13]
    assert [(row["dport"], row["wire_length"]) for row in rows] == [(80, 60), (81, 61), (82, 62)]
    assert {row["file"] for row in rows} == {row["file_packet"] for row in rows} == {None}
    assert [row["verdict"] for row in rows] == [engine.verdict(result).verdict for result in results]
    assert rows[0]["ingress_instance"] == "web-1" and rows[0]["ingress_rule"] == "web-http-4"
    for wrong in ((results, results), (headers, headers), (headers[:2], results), (headers[0], results[0])):
        with pytest.raises(ArgumentError, match=r"headers|results"):
            sgfast.table(*wrong, engine)


# Other libraries -----------------------------------------------------------------------------------------------------


def many() -> Table:
    """More than one batch, with other words in each."""
    engine = sgfast.Engine(POLICY)
    headers = np.repeat(sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000, dport=80), BATCH_ROWS + 3)
    headers[BATCH_ROWS:] = sgfast.header("2001:db8:100::7", "2001:db8::5", "udp", sport=1, dport=2)
    return sgfast.table(headers, engine.process(headers), engine)


def lasted_in_pandas(table: Table) -> list[int]:
    frame = table.to_pandas()
    return [each.value for each in frame["last_time"] - frame["first_time"]]


def lasted_in_polars(table: Table) -> list[int]:
    frame = table.to_polars()
    return [*(frame["last_time"] - frame["first_time"]).dt.total_nanoseconds()]


def lasted_in_pyarrow(table: Table) -> list[int]:
    import pyarrow as pa
    from pyarrow import compute

    taken = pa.table(table)
    return [*compute.subtract(taken["last_time"], taken["first_time"]).cast(pa.int64()).to_pylist()]


def lasted_in_duckdb(table: Table) -> list[int]:
    import duckdb

    with duckdb.connect() as database:
        database.register("connections", table)
        # The times are UTC, wherever the program runs.
        database.sql("set timezone = 'America/New_York'")
        query = "select last_time - first_time, last_time, first_time, epoch_ns(last_time) - epoch_ns(first_time)"
        rows = database.sql(f"{query} from connections").fetchall()
    for difference, last, first, _ in rows:
        # An INTERVAL has microseconds.
        assert f"{first:%Y-%m-%d %H:%M}" == "2026-11-25 00:32"
        assert abs(difference - (last - first)) <= timedelta(microseconds=1)
    return [exact for *_, exact in rows]


@pytest.mark.parametrize(
    "lasted", [lasted_in_pandas, lasted_in_polars, lasted_in_pyarrow, lasted_in_duckdb],
    ids=["pandas", "polars", "pyarrow", "duckdb"],
)  # fmt: skip
def test_two_times_are_subtracted_and_mean_utc(
    lasted: Callable[[Table], list[int]], request: pytest.FixtureRequest
) -> None:
    """SPEC 14.9: DuckDB 2.0 cannot subtract times in nanoseconds that have a zone."""
    library = request.node.callspec.id
    pytest.importorskip(library, reason=f"no {library} here")
    table = replayed().tables.connections
    expected = [int(row["last_time"] - row["first_time"]) for row in table]
    assert lasted(table) == expected and max(expected) > 10**9 and any(each % 1000 for each in expected)


def test_what_is_shared_is_shared_and_the_rest_is_nobodys_to_change() -> None:
    """SPEC 14.9. Rows are not columns, so reading packets twice makes their columns twice."""
    pa = pytest.importorskip("pyarrow", reason="no pyarrow here")

    def address(table: Table, column: str) -> int:
        kept.append(pa.table(table))
        return int(kept[-1][column].chunk(0).buffers()[1].address)

    kept: list[Any] = []
    tables = replayed().tables
    denied = tables.denied
    for table, column, is_shared in (
        (denied, "bytes", True), (denied, "first_time", True), (tables.packets, "file_packet", True),
        (tables.packets, "wire_length", False), (tables.packets, "time", False),
    ):  # fmt: skip
        assert (address(table, column) == address(table, column)) is is_shared, column
    # One row of an array looks contiguous: it is copied all the same, as its owner goes on using it.
    engine = sgfast.Engine(POLICY)
    headers = sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000, dport=80, time_ns=7)
    table = sgfast.table(headers, engine.process(headers), engine)
    taken = pa.table(table)
    headers["dport"], headers["time_ns"] = 81, 8
    assert taken["dport"].to_pylist() == [80] and taken["time"].cast(pa.int64()).to_pylist() == [7]
    assert [(row["dport"], int(row["time"].astype(np.int64))) for row in table] == [(81, 8)]


def test_pyarrow_and_duckdb_take_several_batches() -> None:
    pa = pytest.importorskip("pyarrow", reason="no pyarrow here")
    duckdb = pytest.importorskip("duckdb", reason="no duckdb here")
    table = many()
    taken = pa.table(table)
    taken.validate(full=True)
    assert pa.schema(table) == taken.schema and taken.column("src").num_chunks == 2
    assert taken.num_rows == len(table) == BATCH_ROWS + 3
    database = duckdb.connect()
    database.register("packets", table)
    for _ in range(2):
        found = database.sql("select protocol, src, verdict, count(*) from packets group by all order by 4").fetchall()
        assert found == [
            ("udp", "2001:db8:100::7", "deny", 3), ("tcp", "198.51.100.7", "allow", BATCH_ROWS),
        ]  # fmt: skip
    last = taken.slice(BATCH_ROWS).to_pylist()
    assert [row["ingress_instance"] for row in last] == ["web-1"] * 3 and last[0]["icmp_type"] is None


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_pandas_and_polars_take_it(library: str) -> None:
    pytest.importorskip(library, reason=f"no {library} here")
    frame = getattr(many(), f"to_{library}")()
    counted = Counter(frame["protocol"].to_list())
    assert counted == {"tcp": BATCH_ROWS, "udp": 3}
    if library == "pandas":
        assert str(frame["sport"].dtype) == "UInt16" and str(frame["time"].dtype) == "datetime64[ns]"


# The columns ---------------------------------------------------------------------------------------------------------


def one_is_pending() -> Table:
    engine = sgfast.Engine(POLICY)
    headers = np.repeat(sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000, dport=80), 2)
    results = engine.process(headers)
    results[1]["verdict"], results[1]["reason"] = sgfast.PENDING, 0
    results[1]["egress"]["verdict"] = results[1]["ingress"]["verdict"] = sgfast.NO_SIDE
    return sgfast.table(headers, results, engine)


def one_is_remembered() -> Table:
    engine = sgfast.Engine(POLICY)
    engine.process(sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000, dport=80))
    return engine.connections()


@pytest.mark.parametrize("kind", TABLE_KINDS, ids=lambda kind: kind.names[0])
def test_values_are_null_or_words_only_where_the_schema_says(kind: TableKind) -> None:
    result = replayed(captures=[CAPTURE, CAPTURE])
    policy = sgfast.load(POLICY)
    homes = {
        "ReplayResult": result.tables, "TrafficDiff": compared("shop.proposed.yaml").tables,
        "DiffResult": policy.diff(ROOT / "pcaps/shop.proposed.yaml", CAPTURE).tables,
        "ReachResult": policy.reach(rules=True).tables, "CheckResult": policy.check(captures=CAPTURE).tables,
        "ExpectationsResult": policy.test(MEANT).tables,
    }  # fmt: skip
    for name in kind.names:
        if name == "sgfast.table()":
            table = one_is_pending()
        elif name == "Engine.connections()":
            table = one_is_remembered()
        else:
            home, _, attribute = name.partition(".tables.")
            table = getattr(homes[home], attribute)
        assert table.columns == tuple(column.name for column in kind.columns)
        assert all(name.isidentifier() for name in table.columns) and len({*table.columns}) == len(table.columns)
        rows = list(table)
        for column in kind.columns:
            values = {row[column.name] for row in rows}
            assert column.null or None not in values, column.name
            assert not column.words or values <= {*column.words, None}, column.name
