"""``--changes``: when a change takes effect in a replay, what the outputs say of it (SPEC 6, 9.1, 9.5)."""

from __future__ import annotations

import random
import threading
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from captures import pcap_head
from command import SERVER, sgfast, write_policy
from datagrams import Datagram
from frames import ethernet, ip, tcp, udp
from stories import CLIENT, STORY, from_web, replayed, to_web, write_changes, write_story

from sgfast import Policy, replay
from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import load_policy
from sgfast.engine import VERDICTS, Engine, header
from sgfast.policy.change_file import TimedChange
from sgfast.policy.changes import AddAddress, AddRule, RemoveInstance, RemoveRule
from sgfast.policy.model import Instance, Rule, SecurityGroup, Vpc
from sgfast.report.lines import ConnectionLines, VerdictLines

Capsys = pytest.CaptureFixture[str]
POLICY = """
version: 1
settings: {timeouts: {tcp_established: 10}}
security_groups:
  - name: web
    rules:
      - {id: http, direction: inbound, protocol: tcp, ports: 80}
      - {id: out, direction: outbound, protocol: all}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}
"""


#: The policy, in which web-1 has two addresses.
TWO_ADDRESSES = POLICY.replace("[10.0.0.5]", '[10.0.0.5, "10.0.0.8"]')
ADDRESS_LEAVES = ("remove_address: {instance: web-1, address: 10.0.0.5}", "remove_instance: {instance: web-1}")
REMOVE = "{at: %s, remove_rule: {group: web, rule: http}}"
MOVED = (
    "{at: 1, remove_instance: {instance: web-1}}", "{at: 1, add_address: {instance: web-2, address: 10.0.0.5}}",
)  # fmt: skip


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("at", ["2", "2.000000", "1970-01-12T13:46:42Z", "1970-01-12T14:46:42.000000000+01:00"])
def test_at_equal_times_the_change_comes_first(tmp_path: Path, engine: Any, at: str) -> None:
    for when, expected in ((at, ["established", "disconnected"]), ("2.000000001", ["established", "established"])):
        _, packets, _ = replayed(tmp_path, POLICY, STORY, REMOVE % when, engine=engine)
        assert [row["reason"] for row in packets[3:6]] == [*expected, "disconnected"]


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_changes_before_the_first_and_after_the_last_packet(tmp_path: Path, engine: Any) -> None:
    told, *_ = replayed(tmp_path, POLICY, STORY, REMOVE % -5, engine=engine)
    assert [change.text for change in told.changes] == ["remove_rule http"] and told.changes_left == 0
    assert told.verdicts["allow"] == 1 and told.connections["disconnected"] == 0
    told, *_ = replayed(tmp_path, POLICY, STORY, REMOVE % 12, engine=engine)
    assert (told.changes, told.changes_left, told.verdicts["deny"]) == ([], 1, 0)


@pytest.mark.parametrize("at, ended", [("29.9", "removed"), ("30", "timeout"), ("31", "timeout"), ("99", "timeout")])
def test_a_connection_whose_time_was_up_is_not_removed_by_a_later_change(tmp_path: Path, at: str, ended: str) -> None:
    """Whether or not some other packet came in between."""
    for between in ([], [(30.5, ethernet(ip(CLIENT, "192.0.2.1", udp(1, 2))))]):
        story = [(0.0, to_web("S")), *between, (100.0, to_web("S", 9))]
        change = f"{{at: {at}, remove_instance: {{instance: web-1}}}}"
        _, _, [connection] = replayed(tmp_path, POLICY, story, change)
        assert connection["ingress"] == {"instance": "web-1", "groups": "web", "rule": "http", "ended": ended}


def test_connection_bears_the_name_of_whose_filter_judged_it_whoever_has_the_address_now(tmp_path: Path) -> None:
    ssh, http = ethernet(ip(CLIENT, SERVER, tcp(4000, 22, "S"))), ethernet(ip("10.0.0.6", SERVER, tcp(4000, 80, "S")))
    frames = [(0.0, to_web("S", 9)), (0.1, ssh), (0.2, http), (5.0, ssh)]
    _, _, connections = replayed(tmp_path, POLICY, frames, *MOVED)
    told = {(row["initiator"], row["responder_port"]): (row["egress"], row["ingress"]) for row in connections}
    assert told[CLIENT, 22][1] == {"instance": "web-1", "groups": "web", "rule": None, "ended": "denied"}
    egress, ingress = told["10.0.0.6", 80]
    assert egress["instance"] == "web-2"
    assert ingress == {"instance": "web-1", "groups": "web", "rule": "http", "ended": "removed"}


def test_rows_of_connections_have_the_groups_that_an_instance_began_with(tmp_path: Path) -> None:
    policy = POLICY.replace("instances:", "  - {name: db}\ninstances:").replace(
        "addresses: [10.0.0.6], security_groups: [web]", "addresses: [10.0.0.6], security_groups: [db, web]"
    )
    frames = [
        (at, ethernet(ip("10.0.0.6", SERVER, tcp(4000 + int(at), 80, "S")))) for at in (0.0, 2.0, 4.0, 6.0)
    ] + [(7.0, to_web("S"))]  # fmt: skip
    _, _, rows = replayed(
        tmp_path, policy, frames,
        "{at: 1, add_member: {group: db, instance: web-1}}",
        "{at: 3, remove_instance: {instance: web-1}}",
        "{at: 3, add_instance: {name: new, addresses: [10.0.0.5], security_groups: [db]}}",
        "{at: 5, add_member: {group: web, instance: new}}",
    )  # fmt: skip
    told = [[row[side] and (row[side]["instance"], row[side]["groups"]) for side in ("egress", "ingress")]
            for row in sorted(rows, key=lambda row: float(row["first_time"]))]  # fmt: skip
    peer = ("web-2", "db, web")
    assert told == [[peer, ("web-1", "web")]] * 2 + [[peer, ("new", "db")]] * 2 + [[None, ("new", "db")]]


def test_broken_connection_of_an_instance_that_is_gone_later_is_still_that_instances(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, POLICY)
    story = [(0.0, to_web("S")), (0.1, from_web("SA")), (0.5, to_web("A", 5000)), (3.0, to_web("A", 5000))]
    capture = write_story(tmp_path, story)
    for changes in ([REMOVE % 0], [REMOVE % 0, *MOVED]):
        told = replay(policy, capture, changes=write_changes(tmp_path, *changes))
        assert [(broken.service.instance, broken.connections) for broken in told.broken] == [("web-1", 1)]


@pytest.mark.parametrize("leaving", ADDRESS_LEAVES)
@pytest.mark.parametrize("source", [CLIENT, "10.0.0.6"], ids=["from a stranger", "from an instance"])
def test_connection_without_an_answer_is_not_answered_when_its_address_goes(
    tmp_path: Path, source: str, leaving: str
) -> None:
    policy = write_policy(tmp_path, TWO_ADDRESSES)
    story = [(0.0, ethernet(ip(source, "10.0.0.5", tcp(4000, 80, "S")))), (2.0, to_web("A", 5000))]
    for flows in (None, ConnectionLines(lambda _: None)):
        changes = write_changes(tmp_path, f"{{at: 1, {leaving}}}")
        told = replay(policy, write_story(tmp_path, story), changes=changes, flows=flows)
        assert [(each.service.instance, each.answer, each.connections) for each in told.unanswered] == [
            ("web-1", "silent", 1)
        ]
        assert len(told.tables.allowed) == 0


@pytest.mark.parametrize("leaving", ADDRESS_LEAVES)
@pytest.mark.parametrize("source", [CLIENT, "10.0.0.6"], ids=["from a stranger", "from an instance"])
def test_a_denied_fragment_counts_for_the_instance_whose_address_went_after_the_first_one(
    tmp_path: Path, source: str, leaving: str
) -> None:
    """SPEC 10.24: no denied packet is lost."""
    policy = write_policy(tmp_path, TWO_ADDRESSES)
    first, later = map(ethernet, Datagram(source, SERVER, udp(4000, 53, bytes(40))).pieces("0-24+ 24-48"))
    changes = write_changes(tmp_path, f"{{at: 1, {leaving}}}")
    told = replay(policy, write_story(tmp_path, [(0.0, first), (2.0, later)]), changes=changes)
    assert told.verdicts["deny"] == 2
    assert [(each.service.instance, each.reason, each.packets) for each in told.denied] == [("web-1", "no-rule", 2)]


def test_a_change_that_is_wrong_is_told_before_any_packet(tmp_path: Path, capsys: Capsys) -> None:
    policy, capture = write_policy(tmp_path, POLICY), write_story(tmp_path)
    changes = write_changes(tmp_path, REMOVE % 1, REMOVE % 2)
    target = tmp_path / "verdicts"
    outcome = sgfast(capsys, "replay", policy, capture, "--changes", changes, "--verdicts", target)
    assert outcome.status == 2 and not target.exists()
    where = f"sgfast: {changes}:3: changes[1].remove_rule.rule"
    assert outcome.one_line() == f"{where}: security group 'web' has no rule 'http'"
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(pcap_head())
    assert sgfast(capsys, "replay", policy, empty, "--changes", changes).status == 2
    assert sgfast(capsys, "replay", policy, capture, "--changes", tmp_path / "none").status == 2
    assert sgfast(capsys, "replay", "-", capture, "--changes", "-").status == 2


VPCS = """
version: 1
vpcs: [{name: hub}, {name: red}, {name: blue}, {name: green}]
peerings: [[hub, red], [hub, blue]]
security_groups: [{name: web, rules: [{direction: inbound, protocol: tcp, ports: 80}]}]
instances:
  - {name: h1, vpc: hub, addresses: [10.0.0.1, 10.9.0.0/16], security_groups: [web]}
  - {name: r1, vpc: red, addresses: [10.0.0.5, 10.9.1.1], security_groups: [web]}
  - {name: b1, vpc: blue, addresses: [10.0.0.6], security_groups: [web]}
  - {name: g1, vpc: green, addresses: [10.0.0.7], security_groups: [web]}
"""
R1, R9 = "10.0.0.5/32 of instance 'r1' (VPC 'red')", "10.9.1.1/32 of instance 'r1' (VPC 'red')"
H1 = "10.0.0.1/32 of instance 'h1' (VPC 'hub')"
NAME_ONE = "name the VPC the capture was taken in (--vpc)"
TWO_PEERS = "from VPC 'hub' these two peers cannot be distinguished"
# The VPC, what comes first, the change, what is ambiguous then; "" is nothing.
AMBIGUOUS = {
    "an instance": (None, "", "add_instance: {name: x, vpc: green, addresses: [10.0.0.0/24], security_groups: [web]}",
                    f"{H1} and 10.0.0.0/24 of instance 'x' (VPC 'green') overlap: {NAME_ONE}"),
    "an address": (None, "", "add_address: {instance: b1, address: 10.0.0.5}",
                   f"10.0.0.5/32 of instance 'b1' (VPC 'blue') and {R1} overlap: {NAME_ONE}"),
    "an address of its own VPC": (None, "", "add_address: {instance: r1, address: 10.0.0.0/24}", "ambiguous"),
    "an address that moved": (None, "remove_address: {instance: r1, address: 10.0.0.5}",
                              "add_address: {instance: b1, address: 10.0.0.5}", ""),
    "out of sight": ("red", "", "add_address: {instance: b1, address: 10.0.0.5}", ""),
    "of two peers": ("hub", "", "add_address: {instance: b1, address: 10.0.0.5}",
                     f"10.0.0.5/32 of instance 'b1' (VPC 'blue') and {R1} overlap: {TWO_PEERS}"),
    "of two peers, behind its own": ("hub", "", "add_address: {instance: b1, address: 10.9.1.1}", ""),
    "uncovered": ("hub", "add_address: {instance: b1, address: 10.9.1.1}", "remove_instance: {instance: h1}",
                  f"10.9.1.1/32 of instance 'b1' (VPC 'blue') and {R9} overlap: {TWO_PEERS}"),
    "uncovered in part": ("hub", "add_address: {instance: b1, address: 10.9.1.1}",
                          "remove_address: {instance: h1, address: 10.9.0.0/16}", "ambiguous"),
    "a peer more": ("hub", "add_address: {instance: g1, address: 10.0.0.5}", "add_peering: [green, hub]", "ambiguous"),
    "a peer more that was no longer one": (
        "hub", "add_address: {instance: g1, address: 10.0.0.5}}\n  - {at: 1.5, remove_peering: [hub, red]",
        "add_peering: [green, hub]", "",
    ),
    "a second peer": (
        "green", "add_address: {instance: b1, address: 10.0.0.5}}\n  - {at: 1.5, add_peering: [red, green]",
        "add_peering: [green, blue]", "ambiguous",
    ),
}  # fmt: skip


@pytest.mark.parametrize("at", [1.7, 99])
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("case", AMBIGUOUS)
def test_change_that_makes_an_address_ambiguous_is_told_before_any_packet(
    tmp_path: Path, capsys: Capsys, case: str, many: bool, at: float
) -> None:
    vpc, first, change, why = AMBIGUOUS[case]
    policy = write_policy(tmp_path, VPCS if vpc == "hub" else VPCS.replace(", 10.9.0.0/16", ""))
    capture = write_story(tmp_path)
    others = [
        f"{{at: 0.{n}, add_address: {{instance: r1, address: 10.77.0.{n}}}}}" for n in range(10, 50 if many else 10)
    ]  # fmt: skip
    before = [f"{{at: 1.2, {first}}}"] if first else []
    changes = write_changes(tmp_path, *before, *others, f"{{at: {at}, {change}}}")
    line = changes.read_text().count("\n")
    place = f"{changes}:{line}: changes[{len(before) + len(others) + first.count('{at')}].{change.partition(':')[0]}: "
    told = []
    for engine in ("fast", "reference"):
        target = tmp_path / "verdicts"
        options = ["--vpc", vpc] if vpc else []
        outcome = sgfast(
            capsys, "replay", policy, capture, "--changes", changes, "--engine", engine, "--verdicts", target, *options
        )
        assert (outcome.status, target.exists()) == ((2, False) if why else (0, True))
        told.append(outcome.one_line() if why else "")
        target.unlink(missing_ok=True)
    assert told[0] == told[1]
    if why == "ambiguous":
        assert told[0].startswith(f"sgfast: {place}") and "overlap: " in told[0]
    else:
        assert told[0] == (f"sgfast: {place}{why}" if why else "")


def test_looking_for_ambiguous_addresses_is_not_done_change_by_change(tmp_path: Path) -> None:
    # A thousand, among them ten addresses that move from one VPC to the other.
    from sgfast.questions.replaying import overlaps

    vpcs = (Vpc("red"), Vpc("blue"))
    instances = tuple(
        Instance(f"i{n}", vpcs[n % 2].name, (ip_network(0x0A000000 + n),), ("web",)) for n in range(1100)
    )
    policy = Policy(vpcs=vpcs, security_groups=(SecurityGroup("web"),), instances=instances)
    changes: list[TimedChange] = []
    for n in range(1000):
        changes.append(TimedChange(n, AddAddress("i1", ip_network(0x0B000000 + n)), "", f"f:{n}"))
        if n % 100 == 0:
            changes.append(TimedChange(n, RemoveInstance(f"i{n + 4}"), "", f"f:{n}"))
            changes.append(TimedChange(n, AddAddress("i3", ip_network(0x0A000000 + n + 4)), "", f"f:{n}"))
    looked = 0
    look = overlaps._check

    def counted(*arguments: Any) -> None:
        nonlocal looked
        looked += 1
        look(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "_check", counted)
        overlaps.refuse_ambiguous(policy, changes, None)
        assert 10 < looked < 300
        looked = 0
        last = TimedChange(9999, AddAddress("i0", ip_network(0x0A000001)), "", "last")
        with pytest.raises(AmbiguousAddress, match=r"^last: 10\.0\.0\.1/32 of instance 'i1'"):
            overlaps.refuse_ambiguous(policy, [*changes, last], None)
        looked = 0
        overlaps.refuse_ambiguous(policy, changes, "red")
        assert looked == 0


def test_changes_fall_between_packets_wherever_batches_end(tmp_path: Path) -> None:
    # More packets than a batch holds, a change before many of them, each seen by exactly the packets after it.
    frames = [(n / 1000, ethernet(ip(CLIENT, SERVER, udp(1024 + n % 60000, 53)))) for n in range(20_000)]
    changes = []
    for n in range(0, 20_000, 500):
        kind = "{group: web, rule: {id: dns, direction: inbound, protocol: udp, ports: 53}}"
        what = f"add_rule: {kind}" if n // 500 % 2 == 0 else "remove_rule: {group: web, rule: dns}"
        changes.append(f"{{at: {n / 1000}, {what}}}")
    told, packets, _ = replayed(tmp_path, POLICY, frames, *changes)
    assert [row["reason"] for row in packets] == ["rule" if n // 500 % 2 == 0 else "no-rule" for n in range(20_000)]
    assert len(told.changes) == 40 and told.connections["disconnected"] == 20 * 500


def test_changes_fall_between_packets_however_the_clock_goes(tmp_path: Path) -> None:
    # Late packets, clocks set back and times at the very instant of a change: both engines see the same policy at each.
    for seed in range(40):
        print(f"seed {seed}")
        draw = random.Random(seed)
        now, frames = 0.0, []
        for n in range(60):
            ahead = (0, 1, draw.randrange(30), draw.randrange(30), *((-59.5, -60, -61) if draw.random() < 0.3 else ()))
            back = (-61, -200) if n % 6 == 0 else ()
            now = max(0.0, now + draw.choice((*ahead, *back)))
            frames.append((now, ethernet(ip(CLIENT, SERVER, udp(1024 + n, 53)))))
        whats = ("add_rule: {group: web, rule: {id: dns, direction: inbound, protocol: udp, ports: 53}}",
                 "remove_rule: {group: web, rule: dns}")  # fmt: skip
        times = sorted(draw.sample(range(400), 12))
        changes = [f"{{at: {at}, {whats[n % 2]}}}" for n, at in enumerate(times)]
        policy, captures = write_policy(tmp_path, POLICY), []
        for n in range(0, 60, 6):       # each a batch of its own
            (tmp_path / str(n)).mkdir(exist_ok=True)
            captures.append(write_story(tmp_path / str(n), frames[n : n + 6]))
        told = []
        engines: tuple[Any, ...] = ("fast", "reference")
        for engine in engines:
            lines: list[bytes] = []
            result = replay(
                policy, captures, changes=write_changes(tmp_path, *changes), packets=VerdictLines(lines.append),
                engine=engine,
            )  # fmt: skip
            told.append((b"".join(lines), result.changes_left))
        assert told[0] == told[1]


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_id_of_a_rule_that_is_gone_may_be_that_of_another_group(tmp_path: Path, engine: Any) -> None:
    # A connection that the removed rule allowed still counts for that rule.
    policy = POLICY.replace("settings: {", "settings: {on_change: keep, ").replace(
        "instances:", "  - {name: db, rules: [{id: in, direction: inbound, protocol: tcp, ports: 81}]}\ninstances:"
    ).replace("addresses: [10.0.0.6], security_groups: [web]", "addresses: [10.0.0.6], security_groups: [db]")
    rule = "{id: http, direction: inbound, protocol: tcp, ports: 80}"
    story = [*STORY[:7], (4.1, ethernet(ip(CLIENT, "10.0.0.6", tcp(4000, 80, "S"))))]
    told, packets, _ = replayed(
        tmp_path, policy, story, REMOVE % 1.5, f"{{at: 1.5, add_rule: {{group: db, rule: {rule}}}}}", engine=engine
    )
    assert [(hits.rule.id, hits.group, hits.connections, hits.packets) for hits in told.rules] == [
        ("http", "web", 1, 6), ("out", "web", 1, 1), ("in", "db", 0, 0), ("http", "db", 1, 1)
    ]  # fmt: skip
    sides = [row["ingress"] or row["egress"] for row in packets]
    assert [(side["instance"], side["rule"]) for side in sides][-4:] == [
        ("web-1", "http"), ("web-1", "http"), ("web-1", "out"), ("web-2", "http")
    ]  # fmt: skip


def udp_rule(name: str, port: int) -> Rule:
    return Rule(name, "inbound", 4, 17, ((port, port),))


def test_packets_of_other_threads_see_the_old_policy_or_the_new_one(tmp_path: Path) -> None:
    # Two rules are swapped as one change, so that exactly one of them holds at any time.
    policy = load_policy(write_policy(tmp_path, POLICY))
    engine = Engine(policy)
    rows = header(CLIENT, SERVER, "udp", sport=1, dport=53).repeat(2000)
    rows["sport"] = range(2000)
    rows["dport"] = [53, 54] * 1000
    stop = threading.Event()

    def swap() -> None:
        engine.apply(AddRule("web", udp_rule("even", 53)), 0)
        for _ in range(60):
            engine.apply([RemoveRule("web", "even"), AddRule("web", udp_rule("odd", 54))], 0)
            engine.apply([RemoveRule("web", "odd"), AddRule("web", udp_rule("even", 53))], 0)
        stop.set()

    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    batches, time_ns = 0, 0
    while not stop.is_set():
        time_ns += 10**12       # everything before is over
        rows["time_ns"] = time_ns
        verdicts = engine.process(rows)["verdict"].reshape(-1, 2)
        allowed = (verdicts == VERDICTS.index("allow")).sum(axis=0).tolist()
        assert allowed in ([1000, 0], [0, 1000], [0, 0]), allowed
        batches += 1
    thread.join(timeout=60)
    assert batches > 10
    engine.apply(RemoveInstance("web-1"), time_ns)
    assert engine.verdict(engine.process(rows[:1])[0]).verdict == "out-of-scope"


@pytest.mark.parametrize("mode", ["causal", "verbatim"])
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_denied_attempt_whose_key_opens_after_all_is_an_attempt_and_a_connection(
    tmp_path: Path, mode: Any, engine: Any
) -> None:
    # One filter, and two of which the second denies: there a connection of the first lives through the attempt.
    closed = POLICY.replace("ports: 80", "ports: 81")
    opened = "{at: 1, add_rule: {group: web, rule: {id: http, direction: inbound, protocol: tcp, ports: 80}}}"
    for client in (CLIENT, "10.0.0.6"):
        frames = [(0.1, "S", True), (0.2, "RA", False), (0.9, "S", True), (1.1, "S", True), (1.2, "SA", False)]
        there = {flags: ip(client, SERVER, tcp(4000, 80, flags)) for flags in ("S",)}
        back = {flags: ip(SERVER, client, tcp(80, 4000, flags)) for flags in ("SA", "RA")}
        story = [(0.0, to_web("A", 9)), *((at, ethernet((there if out else back)[flags])) for at, flags, out in frames)]
        told, _, connections = replayed(
            tmp_path, closed, story, REMOVE % 0, opened, mode=mode, engine=engine, midstream="deny"
        )
        assert (told.connections["opened"], told.connections["denied"]) == (1, 1)
        if engine == "fast":
            attempt, connection = connections
            assert (attempt["verdict"], attempt["reason"], attempt["answer"]) == ("deny", "no-rule", "refused")
            assert attempt["ingress"] == {"instance": "web-1", "groups": "web", "rule": None, "ended": "denied"}
            assert attempt["last_time"] < connection["first_time"] == "1000001.100000000"
            assert (connection["verdict"], connection["answer"]) == ("allow", "answered")
            assert connection["ingress"] == {"instance": "web-1", "groups": "web", "rule": "http", "ended": "open"}
            assert (connection["packets_from_initiator"], connection["packets_from_responder"]) == (1, 1)
