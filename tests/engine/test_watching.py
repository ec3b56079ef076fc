"""Connections of an engine as a table, its events, and its copies (SPEC 14.14 to 14.16)."""

from __future__ import annotations

import copy as copying
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datagrams import Datagram
from differential import ON_CHANGE, counters_of
from effort import some
from frames import ethernet, ip, tcp, udp
from policy_changes import Changer
from traffic import SECOND, Crowd, drawn, routed

import sgfast
from sgfast import ArgumentError, ConnectionEvent, Engine, FrameBatch, Policy
from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import parse_policy
from sgfast.engine import MIDSTREAMS, MODES
from sgfast.policy.changes import AddRule, Change, RemoveRule
from sgfast.policy.model import Rule
from sgfast.questions.replaying.kinds import kinds_of
from sgfast.reference.engine import ReferenceEngine

STATES = {
    "SS": "syn-sent", "SR": "syn-received", "ES": "established", "FW": "fin-wait", "CW": "close-wait", "LA": "last-ack",
    "TW": "time-wait", "CL": "closed", "S2": "both-syn-sent", "R2": "both-syn-received",
}  # fmt: skip
PAIR = """
version: 1
security_groups:
  - {name: a, rules: [{direction: outbound, protocol: tcp}, {direction: outbound, protocol: udp}]}
  - {name: b, rules: [{id: in, direction: inbound, protocol: tcp, ports: 80}]}
instances:
  - {name: left, addresses: [10.0.0.1], security_groups: [a]}
  - {name: right, addresses: [10.0.0.2], security_groups: [b]}
"""


def ns(time: np.datetime64 | None) -> int | None:
    return None if time is None else int(time.astype("datetime64[ns]").astype(np.int64))


def remembered(engine: Engine) -> set[tuple[Any, ...]]:
    """List each connection as the engine sees it, with the address of each filter that remembers it."""
    found = set()
    for row in engine.connections():
        ends = frozenset(((row["initiator"], row["initiator_port"]), (row["responder"], row["responder_port"])))
        sides = frozenset(
            (row[end], row[f"{side}_instance"], row[f"{side}_rule"], row[f"{side}_state"], ns(row[f"{side}_deadline"]))
            for side, end in (("egress", "initiator"), ("ingress", "responder"))
            if row[f"{side}_state"] is not None
        )
        found.add((row["protocol"], ends, row["icmp_type"], row["status"], sides))
    assert len(found) == len(engine.connections())
    return found


def as_the_reference(reference: ReferenceEngine) -> set[tuple[Any, ...]]:
    found = set()
    now = reference.clock.now or 0
    for entry in reference._entries.values():
        live = entry.live_sides(now)
        if not live:
            continue
        opener = live[0].opener
        ended = any(each.has_ended for each in live)
        status = "disconnected" if any(each.disconnected for each in live) else "ended" if ended else "open"
        status = "denied" if entry.began_denied else status
        sides = frozenset(
            (str(own), name, each.rule.rule.id, STATES.get(each.state, each.state), each.deadline)
            for (name, own), each in entry.sides.items() if now < each.deadline
        )  # fmt: skip
        ends = frozenset((str(address), port) for address, port in (opener.initiator, opener.responder))
        protocol = sgfast.policy.protocols.protocol_name(opener.protocol) or str(opener.protocol)
        found.add((protocol, ends, opener.icmp_type, status, sides))
    return found


class Watcher:
    """Follow an engine's events and check each against the connections before and after it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.events: list[ConnectionEvent] = []
        #: By the number of the first packet: connections without an end so far.
        self.begun: dict[int, ConnectionEvent] = {}
        self.over: set[int] = set()
        self.again = 0
        self.changed_ns = 0
        self.last: dict[int, dict[str, Any]] = {}

    def look(self) -> list[ConnectionEvent]:
        rows = {row["first_packet"]: row for row in self.engine.connections()}
        events = list(self.engine.events())
        now = self.engine.dataplane.counters["clock_ns"]
        assert [e.time_ns for e in events] == sorted(e.time_ns for e in events)
        for event in events:
            n = event.first_packet
            assert (event.cause is None) == (event.kind in ("opened", "denied")) == (event.bytes_from_initiator is None)
            if event.kind == "opened":
                assert n not in self.begun and event.reason in ("rule", "inferred", "established")
                if n in self.over:      # one filter forgot it, and lets it begin again
                    assert set(deadlines(self.last[n])) and event.first_time_ns < event.time_ns
                    self.over.remove(n)
                    self.again += 1
                self.begun[n] = event
            elif event.kind != "denied":
                begun = self.begun.pop(n)
                self.over.add(n)
                assert begun.time_ns <= event.time_ns
                assert (begun.initiator, begun.responder_port) == (event.initiator, event.responder_port)
                before, after = self.last.get(n), rows.get(n)
                if event.cause == "timeout":
                    # A change may be later than the clock. It then also ends connections that have timed out at its
                    # own time.
                    assert after is None or after["status"] == "disconnected"
                    assert event.time_ns <= max(now, self.changed_ns)
                    assert before is None or event.time_ns in map(ns, deadlines(before))
                elif event.cause in ("closed", "reset") and after is not None:
                    assert after["status"] == "ended" and event.time_ns == now
                elif event.cause == "disconnected":
                    assert after is None or after["status"] == "disconnected"
                elif event.cause in ("evicted", "removed"):
                    assert after is None
        for n, row in rows.items():
            assert (row["verdict"] == "deny") == (row["status"] == "denied")
            if row["status"] == "denied":
                assert n not in self.begun and n not in self.over
            elif row["status"] == "open":
                # Only one of two filters remembers a connection that is open although its end was told.
                assert (n in self.begun) != (n in self.over and None in (row["egress_state"], row["ingress_state"]))
            else:
                assert n in self.over
        if self.engine.mode == "verbatim":
            assert self.begun.keys() <= rows.keys()
        assert sum(row["status"] == "open" for row in rows.values()) == self.engine.open_connections
        self.last = rows
        self.events += events
        return events


def deadlines(row: dict[str, Any]) -> Iterator[Any]:
    return (row[name] for name in ("egress_deadline", "ingress_deadline") if row[name] is not None)


def draw_run(
    policy: Policy, rng: np.random.Generator, count: int, *, full: bool = False
) -> tuple[Policy, dict[str, Any], Any]:
    if rng.integers(2):
        policy = routed(policy, rng)
    room = int((2, 5, 40)[rng.integers(3)]) if full else 1_000_000
    settings = replace(policy.settings, max_connections=room, on_change=ON_CHANGE[rng.integers(len(ON_CHANGE))])
    policy = replace(policy, settings=settings)
    options = {"mode": MODES[rng.integers(len(MODES))], "midstream": MIDSTREAMS[rng.integers(len(MIDSTREAMS))]}
    return policy, options, Crowd(policy, rng, fragments=True).draw(count)


def batches(traffic: Any, size: int) -> Iterator[FrameBatch]:
    for start in range(0, len(traffic.frames), size):
        part = slice(start, start + size)
        yield FrameBatch.from_frames(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part])


def draw_changes(changer: Changer, engine: Engine) -> tuple[list[Change], int]:
    now = engine.dataplane.counters["clock_ns"] + int(changer.pick((0, 1, SECOND, -SECOND, 45 * SECOND)))
    return changer.changes(engine.policy), now


def test_connections_and_events_are_those_of_the_reference_packet_by_packet() -> None:
    seen: Counter[Any] = Counter()

    @drawn(4949, some(12, 200))
    def run(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        policy, options, traffic = draw_run(policy, rng, 300, full=bool(rng.integers(2)))
        engine, plain = Engine(policy, events=True, **options), Engine(policy, **options)
        reference, watcher, changer = ReferenceEngine(policy, **options), Watcher(engine), Changer(rng)
        began: list[tuple[int, str]] = []
        for n, frames in enumerate(batches(traffic, 1)):
            if n and not rng.integers(25):
                changes, now_ns = draw_changes(changer, engine)
                denied = {k for k, row in watcher.last.items() if row["verdict"] == "deny"}
                with suppress(AmbiguousAddress):
                    done = engine.apply(changes, now_ns)
                    assert plain.apply(changes, now_ns) == done
                    reference.apply(changes, now_ns)
                    watcher.changed_ns = now_ns
                    cut = sum(event.kind == "cut" for event in watcher.look())
                    counted = done.disconnected - done.finished
                    # A connection that only one of two filters forgets is still open.
                    forgets = engine.policy.settings.on_change == "forget-unmatched"
                    assert (0 if forgets else counted - len(denied)) <= cut <= counted
                    seen["cut"] += cut
            assert (engine.process(frames) == plain.process(frames)).all(), "events change no verdict"
            verdict = reference.process_frame(
                traffic.times_ns[n], traffic.frames[n], wire_length=traffic.wire_lengths[n]
            )
            if verdict.began and verdict.reason != "reply-denied":
                began.append((n + 1, "denied" if verdict.began == "denied" else "opened"))
            watcher.look()
            if not n % 10:
                assert remembered(engine) == remembered(plain) == as_the_reference(reference)
        # The first packet of an attempt whose reply was denied is its opener (SPEC 4.13).
        told = [
            (event.first_packet, event.kind) for event in watcher.events
            if event.kind in ("opened", "denied") and event.reason != "reply-denied"
        ]  # fmt: skip
        assert len(told) - len(set(told)) == watcher.again
        told = list(dict.fromkeys(told))
        if policy.settings.max_connections == 1_000_000:
            assert told == began
        counters = engine.dataplane.counters
        kinds = Counter(event.kind for event in watcher.events)
        assert kinds["denied"] == counters["denied"]
        assert kinds["opened"] == counters["opened"] + counters["inferred"] + watcher.again
        assert engine.lost_events == 0
        seen.update(event.cause or event.kind for event in watcher.events)

    run()
    print(seen)
    for cause in ("opened", "denied", "closed", "reset", "timeout", "evicted", "disconnected"):
        assert seen[cause], cause


def test_several_jobs_tell_the_same_and_a_copy_goes_on_as_the_original() -> None:
    @drawn(4950, some(4, 100))
    def run(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        policy, options, traffic = draw_run(policy, rng, 900)
        one, several = (Engine(policy, events=True, jobs=jobs, **options) for jobs in (1, 3))
        engines, changer, copied = [one, several], Changer(rng), int(rng.integers(1, 20))
        for n, frames in enumerate(batches(traffic, 40)):
            if n and not n % 3:
                changes, now_ns = draw_changes(changer, one)
                try:
                    one.apply(changes, now_ns)
                except AmbiguousAddress:
                    continue
                for engine in engines[1:]:
                    engine.apply(changes, now_ns)
            if n == copied:
                engines += [one.copy(), several.copy()]
                assert list(one.events()) == list(several.events())
            results = [engine.process(frames) for engine in engines]
            assert all((result == results[0]).all() for result in results)
        told = [list(engine.events()) for engine in engines]
        tables = [list(engine.connections()) for engine in engines]
        waited = [engine.resolved(everything=True).tolist() for engine in engines]
        counters = [counters_of(engine) for engine in engines]
        for found in (told, tables, waited):
            assert all(each == found[0] for each in found)
        for counted in counters:
            assert {**counted, "entries": 0} == {**counters[0], "entries": 0}

    run()


def opened(engine: Engine, sport: int = 1000, time_ns: int = SECOND) -> Engine:
    for src, flags, ports in (("10.0.0.1", "S", (sport, 80)), ("10.0.0.2", "SA", (80, sport))):
        dst = "10.0.0.2" if src == "10.0.0.1" else "10.0.0.1"
        assert engine.check(src, dst, "tcp", sport=ports[0], dport=ports[1], flags=flags, time_ns=time_ns).allowed
    return engine


def told(engine: Engine) -> list[tuple[str, str | None, int]]:
    return [(event.kind, event.cause, event.time_ns) for event in engine.events()]


def test_a_change_of_a_copy_does_not_reach_the_original() -> None:
    engine = opened(Engine(parse_policy(PAIR), events=True))
    copy = engine.copy()
    copy.apply({"remove_instance": {"instance": "right"}}, now_ns=2 * SECOND)
    opened(engine, sport=1001)
    assert len(engine.policy.instances) == 2 and engine.open_connections == 2
    assert len(copy.policy.instances) == 1 and copy.open_connections == 1
    assert told(engine) == [("opened", None, SECOND)] * 2
    assert told(copy) == []     # only the responder's filter is gone: the initiator's still remembers it
    for each, number in ((engine, 0), (copy, 1)):
        rule = {"group": "a", "rule": {"direction": "outbound", "protocol": "icmp", "id": f"new-{number}"}}
        each.apply({"add_rule": rule}, now_ns=3 * SECOND)
    assert [each.rules[-1].id for each in (engine, copy)] == ["new-0", "new-1"]
    assert len(engine.rules) == len(copy.rules)


def copies(engine: Engine, tmp_path: Path) -> list[Engine]:
    """Return a copy of the engine, and what a snapshot of it becomes."""
    sgfast.save_snapshot(engine, tmp_path / "state")
    return [engine.copy(), sgfast.load_snapshot(tmp_path / "state", jobs=engine.dataplane.jobs)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_copy_tells_of_no_timeout_that_came_before_it_was_made(jobs: int, tmp_path: Path) -> None:
    """Neither long before the copy nor at its own time. A later timeout is told by all."""
    engine = opened(Engine(parse_policy(PAIR), events=True, jobs=jobs))
    opened(engine, sport=1001, time_ns=70 * SECOND)
    opened(engine, sport=1002, time_ns=71 * SECOND)
    assert not engine.check("10.0.0.1", "10.0.0.2", "tcp", sport=1, dport=1, time_ns=100 * SECOND).allowed
    engines = [engine, *copies(engine, tmp_path)]
    for each in engines:
        assert not each.check("10.0.0.1", "10.0.0.2", "tcp", sport=1, dport=1, time_ns=102 * SECOND).allowed
    original, *others = map(told, engines)
    timeouts = [event for event in original if event[1] == "timeout"]
    assert timeouts == [("ended", "timeout", at * SECOND) for at in (31, 100, 101)]
    assert others == [timeouts[2:]] * 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_copy_tells_of_no_earlier_timeout_once_a_key_is_no_longer_moot(jobs: int, tmp_path: Path) -> None:
    policy = PAIR.replace("version: 1", "version: 1\nsettings: {on_change: forget-unmatched}").replace("tcp", "udp")
    engine = Engine(parse_policy(policy), mode="causal", events=True, jobs=jobs)

    def send(src: str, dst: str, ports: tuple[int, int], at: int, *, engine: Engine = engine) -> str:
        return engine.check(src, dst, "udp", sport=ports[0], dport=ports[1], time_ns=at * SECOND).verdict

    assert send("10.0.0.1", "10.0.0.2", (1000, 80), 1) == "allow"
    engine.apply({"remove_rule": {"group": "b", "rule": "in"}}, now_ns=2 * SECOND)
    assert send("10.0.0.1", "10.0.0.2", (1000, 80), 3) == "deny"        # the sender's filter remembers it until 33
    assert [send("10.0.0.2", "10.0.0.1", (80, 1000), at) for at in (20, 40)] == ["moot", "moot"]
    engines = [engine, *copies(engine, tmp_path)]
    for each in engines:
        assert send("10.0.0.1", "10.0.0.9", (1, 1), 80, engine=each) == "allow"
    original, *others = map(told, engines)
    assert ("ended", "timeout", 33 * SECOND) in original
    assert others == [[("opened", None, 80 * SECOND)]] * 2


@pytest.mark.parametrize("made", [copying.copy, copying.deepcopy])
def test_what_python_calls_a_copy_shares_no_connection(made: Callable[[Engine], Engine]) -> None:
    engine = opened(Engine(parse_policy(PAIR)))
    copy = made(engine)
    copy.apply([{"remove_instance": {"instance": name}} for name in ("left", "right")], now_ns=2 * SECOND)
    assert (engine.open_connections, copy.open_connections) == (1, 0)


def test_a_fragment_that_waits_when_an_engine_is_copied_is_judged_in_both() -> None:
    datagram = Datagram("10.0.0.1", "10.0.0.2", udp(1000, 53, bytes(40)))
    first, second = (ethernet(piece) for piece in datagram.pieces("0-24+ 24-48"))
    for jobs in (1, 2):
        engine = Engine(parse_policy(PAIR), events=True, jobs=jobs)
        assert engine.process_frames([second], [SECOND])["verdict"][0] == sgfast.PENDING
        copy = engine.copy()
        assert len(engine.resolved()) == len(copy.resolved()) == 0
        copy.process_frames([first], [SECOND + 1])
        (late,) = copy.resolved()
        assert (late["number"], sgfast.REASONS[late["result"]["reason"]]) == (1, "no-rule")
        assert len(engine.resolved()) == 0
        (late,) = engine.resolved(everything=True)
        assert (late["number"], sgfast.REASONS[late["result"]["reason"]]) == (1, "fragment")


def test_both_ends_of_a_denied_connection_name_the_rule_that_denied() -> None:
    no = "{id: no, direction: inbound, protocol: tcp, action: deny}"
    policy = PAIR.replace("rules: [{id: in,", f"rules: [{no}, {{id: in,")
    engine = Engine(parse_policy(policy), events=True)
    assert not engine.check("10.0.0.1", "10.0.0.2", "tcp", sport=1, dport=80, time_ns=SECOND).allowed
    assert not engine.check("10.0.0.1", "10.0.0.2", "tcp", sport=1, dport=80, time_ns=2 * SECOND).allowed    # a retry
    (event,) = engine.events()
    assert (event.kind, event.reason, event.first_packet) == ("denied", "deny-rule", 1)
    assert event.egress is not None and event.ingress is not None
    assert (event.egress.instance, event.ingress.instance, event.ingress.rule) == ("left", "right", "no")


def test_opened_is_established_where_the_receiver_knows_its_own_opener_that_the_other_end_denied() -> None:
    """It counts as opened, and as a kind of traffic of its own."""
    policy = PAIR.replace("{id: in,", "{id: out, direction: outbound, protocol: udp}, {id: in,")
    engine = Engine(parse_policy(policy), events=True, _reporting=True)
    assert not engine.check("10.0.0.2", "10.0.0.1", "udp", sport=7, dport=9, time_ns=SECOND).allowed
    assert engine.check("10.0.0.1", "10.0.0.2", "udp", sport=9, dport=7, time_ns=2 * SECOND).reason == "established"
    assert engine.check("10.0.0.1", "10.0.0.2", "udp", sport=9, dport=8, time_ns=3 * SECOND).reason == "no-rule"
    denied, begun, _ = engine.events()
    assert [(event.kind, event.reason, event.initiator) for event in (denied, begun)] == [
        ("denied", "no-rule", "10.0.0.2"), ("opened", "established", "10.0.0.1")
    ]
    assert begun.egress is not None and begun.ingress is not None
    assert (begun.egress.rule, begun.ingress.rule) == ("a/outbound/2", "out")
    counters, kinds = engine.dataplane.counters, kinds_of(engine).rows
    assert (counters["opened"], counters["denied"]) == (1, 2)
    established = kinds[kinds["reason"] == sgfast.REASONS.index("established")]
    assert established["connections"].tolist() == [1]


def test_a_denied_attempt_is_not_open_although_the_first_filter_remembers_it() -> None:
    """It stays denied when a change cuts it. It is open once a retry of its opener is allowed."""
    cuts = PAIR.replace("version: 1", "version: 1\nsettings: {on_change: cut-unmatched}")
    policy = cuts.replace("ports: 80", "ports: 81")
    for jobs in (1, 2):
        engine = Engine(parse_policy(policy), jobs=jobs)

        def status(engine: Engine = engine) -> str:
            (row,) = engine.connections()
            assert row["verdict"] == ("deny" if row["status"] == "denied" else "allow")
            assert engine.open_connections == (row["status"] == "open")
            return str(row["status"])

        def opens(engine: Engine = engine) -> bool:
            return engine.check("10.0.0.1", "10.0.0.2", "tcp", sport=1, dport=80).allowed

        cut = {"remove_rule": {"group": "a", "rule": "a/outbound/1"}}
        assert not opens() and status() == "denied"
        copy = engine.copy()
        copy.apply(cut, 0)
        assert status(copy) == "denied"
        engine.apply({"add_rule": {"group": "b", "rule": {"direction": "inbound", "protocol": "tcp", "ports": 80}}}, 0)
        assert opens() and status() == "open"
        engine.apply(cut, 0)
        assert status() == "disconnected"


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(
    ("mode", "source", "begun"),
    [("verbatim", "10.0.0.1", [0, 31, 63]), ("causal", "10.0.0.1", [0]), ("verbatim", "10.0.0.9", [0])],
)
def test_a_syn_begins_another_attempt_once_the_first_of_two_filters_has_forgotten_the_denied_one(
    mode: Any, source: str, begun: list[int], reference: bool
) -> None:
    """It does so in verbatim mode only, and not if it meets one filter. SPEC 10.2."""
    policy, found = parse_policy(PAIR), []
    engine, model = Engine(policy, mode=mode, events=True), ReferenceEngine(policy, mode=mode)
    for seconds in (0, 1, 3, 7, 15, 31, 63):
        if reference:
            verdict = model.process_frame(seconds * SECOND, ethernet(ip(source, "10.0.0.2", tcp(1000, 81, "S"))))
            found += [seconds] if verdict.began == "denied" else []
        else:
            engine.check(source, "10.0.0.2", "tcp", sport=1000, dport=81, time_ns=seconds * SECOND)
            found += [event.time_ns // SECOND for event in engine.events() if event.kind == "denied"]
    assert found == begun


@pytest.mark.parametrize("reference", [False, True])
def test_what_the_second_filter_denies_is_another_attempt_than_what_the_first_one_denied(reference: bool) -> None:
    """Later openers that the first filter denies again are retries of its own attempt. SPEC 10.2."""
    policy, found = parse_policy(PAIR), []
    engine, model = Engine(policy, events=True), ReferenceEngine(policy)
    no = Rule("no", "outbound", 4, 6, action="deny", priority=1)
    for seconds, change in ((0, AddRule("a", no)), (10, RemoveRule("a", "no")), (50, AddRule("a", no))):
        if reference:
            model.apply(change, seconds * SECOND)
            frame = ethernet(ip("10.0.0.1", "10.0.0.2", tcp(1000, 81, "S")))
            found += [seconds] if model.process_frame(seconds * SECOND, frame).began == "denied" else []
        else:
            engine.apply(change, seconds * SECOND)
            engine.check("10.0.0.1", "10.0.0.2", "tcp", sport=1000, dport=81, time_ns=seconds * SECOND)
            found += [event.time_ns // SECOND for event in engine.events() if event.kind == "denied"]
    assert found == [0, 10]


@pytest.mark.parametrize(("left", "right"), [("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")])
def test_counters_are_those_of_the_end_that_sent(left: str, right: str) -> None:
    policy = PAIR.replace("10.0.0.1", "X").replace("10.0.0.2", right).replace("X", left)
    engine = Engine(parse_policy(policy), events=True)
    names = ("packets_from_initiator", "packets_from_responder", "bytes_from_initiator", "bytes_from_responder")
    for flags, time_ns in (("S", SECOND), ("A", 2 * SECOND)):
        engine.check(left, right, "tcp", sport=1000, dport=80, flags=flags, time_ns=time_ns)
        engine.check(right, left, "tcp", sport=80, dport=1000, flags="SA", time_ns=time_ns)
    engine.check(left, right, "tcp", sport=1000, dport=80, flags="A", time_ns=3 * SECOND)
    (row,) = engine.connections()
    assert [row[name] for name in names] == [3, 2, 192, 128]
    engine.check(left, right, "tcp", sport=1000, dport=80, flags="R", time_ns=4 * SECOND)
    begun, ended = engine.events()
    assert [getattr(begun, name) for name in names] == [None] * 4
    assert [getattr(ended, name) for name in names] == [4, 2, 256, 128]


def test_without_events_nothing_is_said_that_is_not_known() -> None:
    engine = opened(Engine(parse_policy(PAIR)))
    with pytest.raises(ArgumentError, match="events=True"):
        engine.events()
    (row,) = engine.connections()
    assert (row["egress_state"], row["ingress_rule"], row["status"]) == ("syn-received", "in", "open")
    unknown = {name for name, value in row.items() if value is None}
    assert unknown == {
        "icmp_type", "icmp_code", "first_packet", "first_time", "packets_from_initiator", "packets_from_responder",
        "bytes_from_initiator", "bytes_from_responder",
    }  # fmt: skip


@pytest.mark.parametrize("jobs", [1, 2])
def test_other_threads_see_the_engine_between_two_calls_and_never_within_one(jobs: int) -> None:
    """SPEC 14.17."""
    number, calls = 20_000, 6
    rows = np.repeat(sgfast.header("10.0.0.1", "10.9.0.0", "udp", sport=1, dport=1, time_ns=SECOND), number)
    rows["dst"][:, 2:4] = np.arange(number, dtype=">u2").view(np.uint8).reshape(-1, 2)
    engine = Engine(parse_policy(PAIR), events=True, jobs=jobs)

    def judge() -> None:
        for port in range(calls):
            rows["sport"] = port
            engine.process(rows)

    thread = threading.Thread(target=judge)
    thread.start()
    taken: list[int] = []
    while thread.is_alive() or sum(taken) < calls * number:
        taken.append(sum(1 for _ in engine.events()))
        assert taken[-1] % number == len(engine.connections()) % number == engine.copy().open_connections % number == 0
    thread.join()
    assert sum(taken) == calls * number and engine.lost_events == 0


def test_a_snapshot_keeps_that_events_are_wanted_and_which_connections_had_theirs(tmp_path: Path) -> None:
    engine = opened(Engine(parse_policy(PAIR), events=True))
    assert told(engine) == [("opened", None, SECOND)]
    sgfast.save_snapshot(engine, tmp_path / "state")
    later = sgfast.load_snapshot(tmp_path / "state", jobs=2)
    assert not later.check("10.0.0.1", "10.0.0.2", "tcp", sport=1, dport=1, time_ns=100 * SECOND).allowed
    assert told(later) == [("ended", "timeout", 31 * SECOND), ("denied", None, 100 * SECOND)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_events_that_nobody_takes_are_counted_and_take_no_more_memory(jobs: int) -> None:
    number = (1 << 20) + 1000
    rows = np.repeat(sgfast.header("10.1.0.0", "10.0.0.2", "udp", sport=1, dport=1, time_ns=SECOND), number)
    rows["src"][:, 1:4] = np.arange(1 << 21, (1 << 21) + number, dtype=">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    engine = Engine(parse_policy(PAIR), events=True, jobs=jobs)
    for at in range(0, number, 1 << 18):
        engine.process(rows[at : at + (1 << 18)])
    lost = engine.lost_events
    assert lost >= 1000
    assert sum(1 for _ in engine.dataplane.take_events()) == number - lost <= 1 << 20
    opened(engine, time_ns=2 * SECOND)
    assert told(engine) == [("opened", None, 2 * SECOND)]
