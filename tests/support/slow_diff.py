"""A slow and obvious implementation of ``sgfast diff``: two replays whose results are compared record by record.

Keys are the reference model's, so no code is shared with the tested one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from diffs import traffic_diff as diff

from sgfast import replay
from sgfast.base.errors import CaptureError
from sgfast.engine import NO_SIDE, REASONS, VERDICTS
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, Policy
from sgfast.questions import comparing
from sgfast.questions.comparing import TrafficDiff
from sgfast.reference.flows import flow_of, quoted_flow
from sgfast.reference.packets import ICMP_REPLY_TO, parse_frame
from sgfast.traffic.capture import open_capture

BLOCKED = ("deny", "moot")
CHANGES = ("newly-denied", "newly-allowed")


class Collected:
    """The rows of a replay: of every packet, and of every record of the connection report."""

    def __init__(self, policy: Policy, paths: Sequence[Path], options: dict[str, Any]) -> None:
        self.headers: list[Any] = []
        self.results: list[Any] = []
        self.flows: list[Any] = []
        rows = self

        class Packets:
            def begin(self, names: Any) -> None:
                rows.names = names

            def write(self, headers: Any, results: Any) -> None:
                rows.headers += [row for row in headers.copy()]
                rows.results += [row for row in results.copy()]

        class Flows:
            def begin(self, names: Any) -> None: ...

            def write(self, flows: Any) -> None:
                rows.flows += [row for row in flows.copy()]

        self.result = replay(policy, paths, packets=Packets(), flows=Flows(), **options)
        self.of_key: dict[Hashable, list[Any]] = defaultdict(list)
        for row in sorted(self.flows, key=lambda row: row["number"]):
            self.of_key[key_of_row(row)].append(row)

    def record(self, key: Hashable, packet: int) -> tuple[int, Any]:
        """Return the number of the key's latest record that began by then, and its row; (0, None) if there is none."""
        rows = self.of_key.get(key, [])
        n = bisect_right([int(row["number"]) for row in rows], packet)
        return n, rows[n - 1] if n else None

    def judgement(self, packet: int) -> tuple[str, str | None]:
        row = self.results[packet - 1]
        return VERDICTS[row["verdict"]], REASONS[row["reason"]]


def address(row: Any, end: str) -> Any:
    return ip_address(row[end][: 16 if row["family"] == 6 else 4].tobytes())


def key_of_row(row: Any) -> Hashable:
    ends = [address(row, end) for end in ("initiator", "responder")]
    protocol, ports = int(row["protocol"]), int(row["ports"])
    if protocol == (ICMPV6 if row["family"] == 6 else ICMP):
        kind = int(row["icmp"]) >> 8
        if kind in ICMP_REPLY_TO[int(row["family"])]:
            return "query", *ends, ports >> 16, kind
        return "one-way", *ends, kind, int(row["icmp"]) & 255
    named = (ports >> 16, ports & 0xFFFF) if protocol in PORT_PROTOCOLS else (None, None)
    return "two-way", protocol, frozenset(zip(ends, named, strict=True))


def key_of_frame(data: bytes, wire: int, link_type: int) -> Hashable | None:
    packet = parse_frame(data, wire, link_type)
    if isinstance(packet, str):
        return None
    flow = None
    if packet.problem is None:
        flow = flow_of(packet) or quoted_flow(packet)
    return ("nothing", packet.protocol, frozenset((packet.src, packet.dst))) if flow is None else flow.key


def is_later_fragment(data: bytes, wire: int, link_type: int) -> bool:
    packet = parse_frame(data, wire, link_type)
    return not isinstance(packet, str) and packet.is_later_fragment


@dataclass
class Expected:
    """A changed connection."""

    change: str
    key: Hashable
    first: int
    old: tuple[str, str | None]
    new: tuple[str, str | None]
    #: Initiator and responder, if there is a record.
    ends: tuple[Any, Any] | None
    answered: bool
    first_ns: int
    last_ns: int
    #: Whether the initiator is certain. If both ends have a filter, each may take another end for the initiator (SPEC
    #: 3.7).
    initiator_is_known: bool
    packets: int = 0
    bytes: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether an allowing engine keeps a record. Without one, ``answered`` is unreliable after the connection's
        end."""
        return "allow" in (self.old[0], self.new[0])


def frames_of(paths: Sequence[Path]) -> list[tuple[int, bytes, int, int]]:
    frames = []
    for path in paths:
        with suppress(CaptureError), open_capture(path) as reader:
            while (batch := reader.next_batch()) is not None:
                frames += list(batch)
    return frames


def compared(old: Collected, new: Collected, frames: Sequence[tuple[int, bytes, int, int]]) -> list[Expected]:
    assert len(frames) == len(old.results) == len(new.results)
    units: list[Expected] = []
    latest: dict[Hashable, tuple[Hashable, Expected]] = {}
    for packet, (time_ns, data, wire, link_type) in enumerate(frames, 1):
        before, after = old.judgement(packet), new.judgement(packet)
        if (before[0] in BLOCKED) == (after[0] in BLOCKED):
            continue
        change = CHANGES[before[0] in BLOCKED]
        passes, blocks = (old, new) if change == "newly-denied" else (new, old)
        if is_later_fragment(data, wire, link_type):
            continue
        key = key_of_frame(data, wire, link_type)
        keeper = passes if passes.judgement(packet)[0] == "allow" else blocks
        number, record = keeper.record(key, packet)
        name = (keeper is passes, number)
        unit = latest.get((change, key), (None, None))[1]
        if unit is None or latest[change, key][0] != name:
            ends = None if record is None else (address(record, "initiator"), address(record, "responder"))
            answered = record is not None and record["answer"] == 1
            sides = [passes.results[packet - 1][way]["verdict"] for way in ("egress", "ingress")]
            reason = passes.judgement(packet)[1]
            begins = reason in ("rule", "inferred") or (reason == "established" and NO_SIDE in sides)
            known = keeper is passes and ends is not None and begins
            unit = Expected(change, key, packet, before, after, ends, answered, time_ns, time_ns, known)
            latest[change, key] = name, unit
            units.append(unit)
        unit.packets += 1
        unit.bytes += max(wire, len(data))
        unit.first_ns, unit.last_ns = min(unit.first_ns, time_ns), max(unit.last_ns, time_ns)
    return units


def moved(old: Collected, new: Collected, policies: tuple[Policy, Policy]) -> Counter[tuple[str, str]] | None:
    """Count, by pair of rules, connections that one packet begins under both policies and that two different rules
    allow.

    Return None if a filter already had a connection with the key: then that connection's rule decides, not the
    opener's.
    """
    meanings = [
        {rule.id: (group.name, rule.direction, rule.ethertype, rule.protocol, rule.ports, rule.icmp_type,
                   rule.icmp_code, rule.peer, rule.action, rule.priority)
         for group in policy.security_groups for rule in group.rules}
        for policy in policies
    ]  # fmt: skip
    by_number = {int(row["number"]): row for row in new.flows if VERDICTS[row["verdict"]] == "allow"}
    counts: Counter[tuple[str, str]] = Counter()
    for row in old.flows:
        other = by_number.get(int(row["number"]))
        if other is None or VERDICTS[row["verdict"]] != "allow":
            continue
        first = int(row["number"]) - 1
        sides = [replayed.results[first][way] for replayed in (old, new) for way in ("egress", "ingress")]
        if any(side["verdict"] != NO_SIDE and REASONS[side["reason"]] == "established" for side in sides):
            return None
        for side in range(2):
            if min(row["rule"][side], other["rule"][side]) >= 0:
                a, b = old.names.rules[row["rule"][side]], new.names.rules[other["rule"][side]]
                if meanings[0][a] != meanings[1][b] and a != b:
                    counts[a, b] += 1
    return counts


def check(old: Policy, new: Policy, paths: Sequence[Path], *, jobs: int = 1, **options: Any) -> Counter[str]:
    """Raise AssertionError if ``diff`` differs from two replays. Return the numbers of compared packets and
    connections."""
    result, rows = core_rows(old, new, paths, jobs=jobs, **options)
    replays = [Collected(policy, paths, options) for policy in (old, new)]
    frames = frames_of(paths)
    units = compared(*replays, frames)
    assert (result.packets, result.bytes) == (len(frames), replays[0].result.bytes)
    pairs = Counter((replays[0].judgement(n)[0], replays[1].judgement(n)[0]) for n in range(1, len(frames) + 1))
    assert result.verdicts == dict(pairs), (options, jobs)

    # Compare the counts of each kind.
    expected: dict[Hashable, list[Expected]] = defaultdict(list)
    for unit in units:
        expected[unit.change, unit.old, unit.new, protocol_of(unit), addresses_of(unit)].append(unit)
    found: dict[Hashable, list[Any]] = defaultdict(list)
    for row in rows:
        words = [(VERDICTS[row[name] & 7], REASONS[row[name] >> 3]) for name in ("old", "new")]
        change = CHANGES[words[0][0] in BLOCKED]
        found[change, *words, int(row["protocol"]), frozenset(address(row, e) for e in ("initiator", "responder"))] += [
            row
        ]
    assert set(found) == set(expected)
    for kind, own in expected.items():
        got = found[kind]
        assert sum(int(row["connections"]) for row in got) == len(own), kind
        assert sum(int(row["packets"]) for row in got) == sum(unit.packets for unit in own), kind
        assert sum(int(row["bytes"]) for row in got) == sum(unit.bytes for unit in own), kind
        assert min(int(row["first_ns"]) for row in got) == min(unit.first_ns for unit in own), kind
        assert max(int(row["last_ns"]) for row in got) == max(unit.last_ns for unit in own), kind
        if own[0].is_kept:
            assert sum(int(row["answered"]) for row in got) == sum(unit.answered for unit in own), (got, own)
        if all(unit.initiator_is_known for unit in own):
            ends: Counter[Any] = Counter()
            for row in got:
                ends[address(row, "initiator"), address(row, "responder")] += int(row["connections"])
            assert ends == Counter(unit.ends for unit in own), kind

    # Compare the report: its totals, and each example with the rows of its packet.
    starts = {unit.first: unit for unit in units}
    for change in CHANGES:
        total = result.total(change)  # type: ignore[arg-type]
        own = [unit for unit in units if unit.change == change]
        assert (total.connections, total.packets, total.bytes) == (
            len(own), sum(unit.packets for unit in own), sum(unit.bytes for unit in own)
        )  # fmt: skip
    for group in result.groups:
        assert group.examples
        for example in group.examples:
            check_example(group, starts[example.packet], example, replays)
    assert sum(group.connections for group in result.groups) == len(units)
    moves = moved(*replays, (old, new))
    if moves is not None:
        assert Counter({(move.old_rule, move.new_rule): move.connections for move in result.moved}) == moves
    return Counter(
        packets=len(frames), connections=len(units), answered=sum(unit.answered for unit in units),
        moved=sum(move.connections for move in result.moved), **Counter(unit.change for unit in units),
        part_way=sum("established" in (*unit.old, *unit.new) for unit in units),
        unfiltered=sum(not {unit.old[0], unit.new[0]} <= {"allow", *BLOCKED} for unit in units),
    )  # fmt: skip


def check_example(group: Any, unit: Expected, example: Any, replays: Sequence[Collected]) -> None:
    """Compare a group's report with the row of its example packet, at which a connection begins to differ."""
    assert example.time_ns == unit.first_ns or unit.packets > 1
    blocker = replays[group.change == "newly-denied"]
    for judgement, collected in ((group.old, replays[0]), (group.new, replays[1])):
        assert (judgement.verdict, judgement.reason) == collected.judgement(unit.first)
        if judgement.reason not in ("rule", "inferred", "no-rule", "deny-rule"):
            continue
        row = collected.results[unit.first - 1]
        sides = {"egress": row["egress"], "ingress": row["ingress"]}
        swapped = False
        record = collected.record(unit.key, unit.first)[1]
        header = collected.headers[unit.first - 1]
        guessed = header["protocol"] == 6 and header["tcp_flags"] & 0x17 != 0x02
        if guessed and record is not None and address(record, "initiator") != address(header, "src"):
            # The connection was inferred from a packet of the responder, so egress and ingress are swapped.
            sides = {"egress": row["ingress"], "ingress": row["egress"]}
            swapped = True
        for way, side in sides.items():
            rule = getattr(judgement, f"{way}_rule")
            if side["verdict"] == NO_SIDE:
                assert rule is None or swapped, (group, unit, row)
            elif REASONS[side["reason"]] in ("rule", "inferred", "deny-rule"):
                assert rule == collected.names.rules[side["rule"]], (group, unit, row)
            if collected is blocker and side["verdict"] != NO_SIDE and VERDICTS[side["verdict"]] == "deny":
                assert group.service.instance == collected.names.instances[side["instance"]], (group, unit, row)
                assert group.direction == {"egress": "outbound", "ingress": "inbound"}[way], (group, unit, row)


def core_rows(
    old: Policy, new: Policy, paths: Sequence[Path], **options: Any
) -> tuple[TrafficDiff, Any]:
    """Return the result of a diff, and the rows from which its groups were made."""
    kept = []

    def keep(changed: Any, *engines: Any) -> Any:
        kept.append(changed.rows)
        return comparing.groups.changed_groups(changed, *engines)

    with mock.patch.object(comparing, "changed_groups", keep):
        result = diff(old, new, paths, **options)
    return result, kept[0]


def protocol_of(unit: Expected) -> int:
    key: Any = unit.key
    if key[0] in ("two-way", "nothing"):
        return int(key[1])
    return ICMP if key[1].version == 4 else ICMPV6


def addresses_of(unit: Expected) -> frozenset[Any]:
    key: Any = unit.key
    if key[0] == "nothing":
        return frozenset(key[2])
    if key[0] == "two-way":
        return frozenset(end for end, _ in key[2])
    return frozenset(key[1:3])


def write_pcap(path: Path, traffic: Any) -> Path:
    """Write a pcap of Ethernet frames with nanosecond timestamps."""
    head = np.array([0xA1B23C4D, 2 | 4 << 16, 0, 0, 1 << 18, 1], dtype="<u4").tobytes()
    with path.open("wb") as file:
        file.write(head)
        for frame, time_ns, wire in zip(traffic.frames, traffic.times_ns, traffic.wire_lengths, strict=True):
            seconds, ns = divmod(time_ns, 10**9)
            file.write(np.array([seconds, ns, len(frame), max(wire, len(frame))], dtype="<u4").tobytes() + frame)
    return path
