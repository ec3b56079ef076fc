"""The roll-up of a replay's answers (SPEC 10.24): however rows are folded, nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import pcap_head, pcap_record
from command import SHOP, valid
from effort import some
from frames import ethernet, icmp, ip, tcp, udp
from kinds import kinds_of
from traffic import Crowd, as_capture, drawn

from sgfast import Engine, replay
from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Policy
from sgfast.questions.replaying import Broken, Denied, Service
from sgfast.questions.replaying.kinds import Kinds
from sgfast.questions.replaying.kinds import kinds_of as kinds_of_engine
from sgfast.report.json.replay import replay_answer
from sgfast.report.lines import ConnectionLines
from sgfast.report.rollup import BY, Rollup, RollupRow, TrafficPart

PARTS: tuple[TrafficPart, ...] = ("would-break", "unanswered", "allowed", "denied", "one-way")


def test_every_way_of_folding_adds_up_to_the_rows_of_packets_and_connections(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @drawn(20261127, some(6, 60))
    def check(policy: Policy, case_seed: int) -> None:
        capture = as_capture(tmp_path, Crowd(policy, np.random.default_rng(case_seed)).draw(1000))
        flows: list[bytes] = []
        result = replay(policy, capture, flows=ConnectionLines(flows.append))
        lines = [json.loads(line) for line in b"".join(flows).splitlines()]
        denied = [each for each in lines if each["verdict"] == "deny"]
        rollup = Rollup(policy, result.kinds)
        allowed = len(lines) - len(denied)
        assert rollup.total("would-break") == sum(each["answer"] == "answered" for each in denied)
        assert rollup.total("allowed") + rollup.total("unanswered") == allowed
        assert rollup.fold("denied", most=1).connections == len(denied) == result.connections["denied"]
        assert rollup.total("denied") <= result.verdicts["deny"]
        for part in PARTS:
            whole = rollup.fold(part, most=1)
            for by in BY:
                for most in (1, 3, 10**6):
                    folded = rollup.fold(part, by=by, most=most)
                    connections, packets = (
                        sum(getattr(row, name) for row in folded.rows) for name in ("connections", "packets")
                    )
                    assert len(folded.rows) <= most
                    assert connections + folded.unlisted_connections == folded.connections == whole.connections
                    assert packets + folded.unlisted_packets == folded.packets == whole.packets
                    assert (folded.unlisted_rows == 0) == (folded.unlisted_connections + folded.unlisted_packets == 0)
                    every = rollup.fold(part, by=by, most=folded.every)
                    assert every.unlisted_rows == 0 and every.rows[:most] == folded.rows
            seen[part] += whole.connections + whole.packets
        valid("summary", json.loads(json.dumps(replay_answer(result))))

    check()
    assert min(seen[part] for part in PARTS) > 50, seen


@pytest.mark.parametrize("with_connections", [False, True])
def test_a_query_that_nobody_answers_is_one_connection_whatever_its_code(
    with_connections: bool, tmp_path: Path
) -> None:
    policy = parse_policy("""version: 1
security_groups: [{name: g, rules: [{direction: inbound, protocol: icmp}]}]
instances: [{name: web, addresses: [10.0.0.5], security_groups: [g]}]
""")
    asked = [ethernet(ip("192.0.2.9", "10.0.0.5", icmp(13, code, number))) for number, code in enumerate((0, 1, 7))]
    flows = ConnectionLines(lambda text: None) if with_connections else None
    capture = tmp_path / "queries.pcap"
    capture.write_bytes(pcap_head() + b"".join(pcap_record(frame, time=(n, 0)) for n, frame in enumerate(asked)))
    result = replay(policy, capture, flows=flows)
    rollup = Rollup(policy, result.kinds)
    assert (rollup.total("unanswered"), rollup.total("allowed")) == (3, 0)


def test_what_finds_no_room_is_counted_without_its_address() -> None:
    policy = parse_policy(
        "{version: 1, security_groups: [{name: web}],"
        " instances: [{name: w, addresses: [10.0.0.5], security_groups: [web]}]}"
    )
    engine = Engine(policy, _reporting=True)
    number = (1 << 16) + 1000
    for start in range(0, number, 4096):
        frames = [
            ethernet(ip(f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", "10.0.0.5", udp(1000, 53)))
            for n in range(start, min(start + 4096, number))
        ]
        engine.process(FrameBatch.from_frames(frames, list(range(start, start + len(frames)))))
    kinds = kinds_of_engine(engine)
    unknown = kinds.rows[kinds.rows["family"] == 0]
    assert kinds.lost == 0 and len(unknown) == 1 and int(unknown["packets"][0]) == 1000
    folded = Rollup(policy, kinds).fold("denied", most=10)
    assert folded.packets == folded.connections == number
    assert {row.source.text for row in folded.rows} == {"private addresses", "other addresses"}
    assert folded.rows[0].source_text == "65,536 private addresses"


def peer(n: int) -> str:
    return f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"


def send(engine: Engine, *frames: bytes) -> None:
    engine.dataplane.process_frames(FrameBatch.from_frames(frames, [0] * len(frames)))


def server(protocol: str) -> Policy:
    """10.0.0.5 alone, which may be called with one protocol."""
    return parse_policy(
        f"{{version: 1, security_groups: [{{name: web, rules: [{{direction: inbound, protocol: {protocol}}}]}}],"
        " instances: [{name: w, addresses: [10.0.0.5], security_groups: [web]}]}"
    )


def without_room(policy: Policy, jobs: int = 1) -> Engine:
    """An engine that has counted UDP from as many addresses as there is room for."""
    engine = Engine(policy, _reporting=True, jobs=jobs)
    for start in range(0, 1 << 16, 4096):
        send(engine, *(ethernet(ip(peer(n), "10.0.0.5", udp(1000, 53))) for n in range(start, start + 4096)))
    return engine


@pytest.mark.parametrize("jobs", [1, 2])
def test_outcomes_keep_their_addresses_where_their_beginnings_found_no_room(jobs: int) -> None:
    engine = without_room(server("all"), jobs)
    silent, refused = (range((1 << 16) + first, (1 << 16) + first + 40) for first in (0, 100))
    send(engine, *(ethernet(ip(peer(n), "10.0.0.5", tcp(1000, 22, "S"))) for n in silent))
    # These are over before it is counted that they began.
    for n in refused:
        send(
            engine,
            ethernet(ip(peer(n), "10.0.0.5", tcp(1000, 22, "S"))),
            ethernet(ip("10.0.0.5", peer(n), tcp(22, 1000, "RA"))),
        )
    engine.dataplane.finish()
    rows = kinds_of_engine(engine).rows
    for name, expected in (("silent", silent), ("refused", refused)):
        found = rows[(rows[name] > 0) & (rows["port_key"] == 22)]
        assert sorted(str(ip_address(row["peer"][:4].tobytes())) for row in found) == sorted(map(peer, expected))
        assert (found[name] == 1).all() and (found["family"] == 4).all()
    assert int(rows["silent"].sum()) == (1 << 16) + 40 and int(rows["refused"].sum()) == 40


def test_which_outcomes_have_an_address_does_not_depend_on_how_packets_are_cut_into_batches() -> None:
    policy = server("all")
    call = ethernet(ip("1.2.3.4", "10.0.0.5", tcp(1000, 80, "S")))
    refusal = ethernet(ip("10.0.0.5", "1.2.3.4", tcp(80, 1000, "RA")))
    rng = np.random.default_rng(7)
    # More connections, and more refused ones, than a tally has places for addresses.
    frames: list[bytes] = []
    for n in range(120_000):
        address = (0x0B000000 + n).to_bytes(4, "big")
        frames.append(call[:26] + address + call[30:])
        if rng.random() < 0.7:
            frames.append(refusal[:30] + address + refusal[34:])
    found = []
    for size in (len(frames), 97, 5):
        engine = Engine(policy, _reporting=True)
        for start in range(0, len(frames), size):
            send(engine, *frames[start : start + size])
        engine.dataplane.finish()
        found.append(kinds_of_engine(engine).rows.tobytes())
    assert found[0] == found[1] == found[2]


def test_who_broke_a_connection_is_known_where_its_denial_found_no_room() -> None:
    engine = without_room(server("tcp"))
    calls = range(1 << 16, (1 << 16) + 40)
    send(engine, *(ethernet(ip("10.0.0.5", peer(n), tcp(1000, 22, "S"))) for n in calls))
    send(engine, *(ethernet(ip(peer(n), "10.0.0.5", tcp(22, 1000, "SA"))) for n in calls))
    engine.dataplane.finish()
    rows = kinds_of_engine(engine).rows
    found = rows[rows["broken"] > 0]
    assert sorted(str(ip_address(row["peer"][:4].tobytes())) for row in found) == sorted(map(peer, calls))
    assert (found["broken"] == 1).all() and not found["inbound"].any() and not found["instance"].any()


def test_kinds_that_find_no_room_without_an_address_keep_what_all_have_room_for() -> None:
    # More peers than there is room for, then more services, and then kinds that count without both.
    policy = parse_policy(
        "{version: 1, security_groups: [{name: web}],"
        " instances: [{name: w, addresses: [10.0.0.5], security_groups: [web]}]}"
    )
    engine = Engine(policy, _reporting=True)
    peers, services, others = 1 << 16, 1 << 15, 50

    def send_each(first: int, last: int, make: Callable[[int], bytes]) -> None:
        for start in range(first, last, 4096):
            frames = [make(n) for n in range(start, min(start + 4096, last))]
            engine.process(FrameBatch.from_frames(frames, [0] * len(frames)))

    send_each(0, peers, lambda n: ethernet(ip(peer(n), "10.0.0.5", udp(1000, 53))))
    send_each(0, services, lambda n: ethernet(ip(peer(peers + n), "10.0.0.5", udp(1000, 1000 + n))))
    send_each(0, others, lambda n: ethernet(ip(peer(2 * peers + n), "10.0.0.5", udp(1000, 50_000 + n))))
    send_each(0, others, lambda n: ethernet(ip(peer(2 * peers + n), "10.0.0.5", icmp(8, 0, n))))
    kinds = kinds_of_engine(engine)
    rows = kinds.rows
    assert kinds.lost == 0 and int(rows["packets"].sum()) == peers + services + 2 * others
    without_peer = rows[(rows["family"] == 0) & (rows["instance"] >= 0)]
    assert sorted(without_peer["port_key"].tolist()) == list(range(1000, 1000 + services))
    assert set(without_peer["has_ports"].tolist()) == {1} and not without_peer["peer"].any()
    coarsest = rows[rows["instance"] < 0]
    assert sorted(zip(coarsest["protocol"].tolist(), coarsest["packets"].tolist(), strict=True)) == [
        (1, others), (17, others)
    ]  # fmt: skip
    reason = int(without_peer["reason"][0])
    for row in coarsest:
        assert (int(row["reason"]), int(row["inbound"]), int(row["rule"])) == (reason, 1, -1)
        assert not any(int(row[name]) for name in ("family", "port_key", "has_ports", "has_icmp"))


@pytest.mark.parametrize(
    ("source", "group"),
    [("198.51.100.9", "offices"), ("198.51.100.200", "198.51.100.0/24"), ("10.9.9.9", "private addresses"),
     ("8.8.8.8", "public addresses"), ("192.0.2.1", "192.0.2.1"), ("10.0.0.6", "db, web")],
)  # fmt: skip
def test_an_end_is_called_what_the_rules_call_it(source: str, group: str) -> None:
    policy = parse_policy("""
version: 1
address_groups: [{name: offices, addresses: [198.51.100.0/28]}]
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 443, source: offices}
      - {direction: inbound, protocol: tcp, ports: 443, source: 198.51.100.0/24}
      - {direction: inbound, protocol: tcp, ports: 443, source: 192.0.2.1}
  - {name: db}
instances:
  - {name: w, addresses: [10.0.0.5], security_groups: [web]}
  - {name: d, addresses: [10.0.0.6], security_groups: [db, web]}
  - {name: e, addresses: [10.0.0.7], security_groups: [db, web]}
""")
    engine = Engine(policy, _reporting=True)
    # Two addresses are needed: one alone would be called by its own name.
    ends = (source, str(ip_address(source) + (group != source)))
    frames = [ethernet(ip(end, "10.0.0.5", udp(1, 53))) for end in ends]
    engine.process(FrameBatch.from_frames(frames, [0, 1]))
    rows = Rollup(policy, kinds_of_engine(engine)).fold("denied", most=10).rows
    assert group in {row.source.text for row in rows}


def test_the_rule_with_the_right_service_is_nearer_than_one_with_the_right_peer_and_ties_are_all_named() -> None:
    policy = parse_policy("""
version: 1
security_groups:
  - name: web
    rules:
      - {id: wrong-port, direction: inbound, protocol: tcp, ports: 80}
      - {id: wrong-source, direction: inbound, protocol: tcp, ports: 8080, source: 192.0.2.0/24}
      - {id: wrong-source-too, direction: inbound, protocol: tcp, ports: 8000-9000, source: 203.0.113.0/24}
instances:
  - {name: w, addresses: [10.0.0.5], security_groups: [web]}
""")
    service = Service("w", 6, 8080, None, None)
    kinds = kinds_of([Denied(service, "inbound", "198.51.100.7", None, "no-rule", 3, 180)],
                     [Broken(service, "inbound", "198.51.100.7", None, "no-rule", 2)])  # fmt: skip
    result = replay(policy, [SHOP[1]])
    result.kinds = kinds
    row = replay_answer(result)["would_break"][0]
    assert [near["rule"] for near in row["nearest"]] == ["wrong-source", "wrong-source-too"]
    assert row["nearest"][0]["differs"] == ["its source is 192.0.2.0/24"]
    assert (row["connections"], row["packets"], row["bytes"]) == (2, 3, 180)


def test_parts_with_other_numbers_for_the_same_names_add_up() -> None:
    from sgfast.questions.replaying.kinds import added_up

    def kinds(*names: str) -> Kinds:
        ssh = [Service(name, 6, 22, None, None) for name in names]
        return kinds_of(Denied(service, "inbound", "192.0.2.1", None, "no-rule", 2, 9) for service in ssh)

    total = added_up([kinds("a", "b"), kinds("b", "c"), kinds()])
    counted: dict[Any, int] = {total.instances[row["instance"]]: int(row["packets"]) for row in total.rows}
    assert counted == {"a": 2, "b": 4, "c": 2}


def test_rows_have_the_groups_of_both_ends_and_addresses_have_none() -> None:
    text = Path(SHOP[0]).read_text().replace("security_groups: [db]}", "security_groups: [db, web]}")
    result = replay(parse_policy(text), SHOP[1])
    answer = valid("summary", replay_answer(result))
    ends = [
        (end["name"], end["groups"])
        for name in ("would_break", "denied", "unanswered", "allowed") for row in answer[name]
        for end in (row["from"], row["to"])
    ]  # fmt: skip
    named = {name: groups for name, groups in ends if groups}
    assert named == {"web-1": ["web"], "web-2": ["web"], "db-1": ["db", "web"]}
    assert ("public addresses", []) in ends and ("198.51.100.53", []) in ends
    whole = [end for row in replay_answer(result, by="service")["denied"] for end in (row["from"], row["to"])]
    assert {len(end["groups"]) for end in whole if end["kind"] == "any"} == {0}

    def only_row(*instances: str) -> RollupRow:
        services = [Service(name, 6, 80, None, None) for name in instances]
        kinds = kinds_of([Denied(service, "inbound", "192.0.2.1", None, "no-rule", 1, 1) for service in services])
        (row,) = Rollup(parse_policy(text), kinds).fold("denied", most=9).rows
        return row

    several = only_row("web-1", "web-2")
    assert (several.destinations, several.destination.groups, several.source.groups) == (2, ("web",), ())


def test_instances_that_changes_add_or_remove_are_called_by_their_own_groups(tmp_path: Path) -> None:
    def syn(second: int, host: int) -> bytes:
        return pcap_record(ethernet(ip("198.51.100.7", f"10.0.0.{host}", tcp(1000, 9999, "S"))), time=(second, 0))

    capture = tmp_path / "syns.pcap"
    # Two instances, each twice: first those of the policy, then those that take their addresses.
    capture.write_bytes(pcap_head() + b"".join(syn(second, host) for second in (0, 9) for host in (5, 6)))
    changes: list[dict[str, Any]] = [
        {"at": 1, "add_group": {"name": "late", "label": "new machines", "rules": []}},
        *({"at": 2, "remove_instance": {"instance": name}} for name in ("web-1", "web-2")),
        *(
            {"at": 3, "add_instance": {"name": f"new-{n}", "addresses": [f"10.0.0.{n}"], "security_groups": groups}}
            for n, groups in ((5, ["late", "db"]), (6, ["late", "db"]))
        ),
        {"at": 4, "add_member": {"group": "web", "instance": "new-5"}},
        {"at": 10, "remove_instance": {"instance": "new-6"}},
    ]  # fmt: skip
    result = replay(SHOP[0], capture, changes=changes)
    answer = valid("summary", replay_answer(result))
    ends = {(row["to"]["name"], *row["to"]["groups"], row["to"]["ends"]) for row in answer["denied"]}
    assert ends == {("web", "web", 2), ("late, db", "late", "db", 2)}
    single = {(row["to"]["name"], *row["to"]["groups"]) for row in replay_answer(result, by="instance")["denied"]}
    assert single == {("web-1", "web"), ("web-2", "web"), ("new-5", "late", "db"), ("new-6", "late", "db")}
