"""Targets of fuzzing: each takes any bytes, and raises if sgfast does anything with them that it must not.

A target remembers nothing from one input to the next that changes what it says of it, so that an input that made it
fail makes it fail again, alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from captures import Dribble, check, read
from differential import compare, expected, spell
from packed import Sizes, said
from policy_changes import Changer
from traffic import GROUPS, SECOND, Crowd, Traffic

from sgfast import Policy, replay
from sgfast.base.errors import FlowLogError, PolicyError, SgfastError
from sgfast.base.streams.compression import MAGIC_LENGTH, compression_of
from sgfast.clouds.loading import parse_policy
from sgfast.clouds.logs.detection import open_log
from sgfast.engine import LINK_TYPES, MIDSTREAMS, MODES, Engine
from sgfast.policy.change_file import parse_changes
from sgfast.policy.changed_policy import apply_changes
from sgfast.policy.expectations import parse_expectations
from sgfast.policy.model import AddressGroup, Instance, Rule, SecurityGroup, Settings, Timeouts, Vpc
from sgfast.reference.engine import ReferenceEngine
from sgfast.rules.reaching.proving import Expectations
from sgfast.traffic.flow_logs.sources import is_flow_log

#: Between the two documents of an input.
NEXT_DOCUMENT = b"\0"
#: Between the frames of an input.
NEXT_FRAME = b"\xfe\xed\xfa\xce"

# Two instances that own most addresses there are, so that almost any packet is judged; ports and peers that matter.
POLICY = """
version: 1
settings: {max_connections: 100, infrastructure: INFRASTRUCTURE}
security_groups:
  - name: servers
    stateful: STATEFUL
    rules:
      - {direction: inbound, protocol: tcp, ports: "22,80,443", source: 0.0.0.0/0}
      - {direction: inbound, protocol: udp, ports: "53,500-600", source: 0.0.0.0/0}
      - {direction: inbound, protocol: icmp, source: 0.0.0.0/0}
      - {direction: inbound, protocol: sctp, action: deny, priority: 2}
      - {direction: inbound, protocol: all, source: clients, priority: 3}
      - {direction: inbound, ethertype: IPv6, protocol: all}
      - {direction: outbound, protocol: udp, destination: 0.0.0.0/0}
  - name: clients
    stateful: STATEFUL
    rules:
      - {direction: outbound, protocol: all, destination: 0.0.0.0/0}
      - {direction: outbound, ethertype: IPv6, protocol: all}
instances:
  - {name: low, addresses: [0.0.0.0/1, "::/1"], security_groups: [servers]}
  - {name: private, addresses: [192.168.0.0/16, 172.16.0.0/12, "fe80::/10"], security_groups: [clients]}
"""

# Captures ------------------------------------------------------------------------------------------------------------


def is_sound(found: Any) -> bool:
    return found.damage is None and found.error is None


def captures(data: bytes) -> None:
    """A capture file, read at once and in pieces: what a plain reader makes of it, else one line that says why not.

    If it is compressed, several threads decompress it as one does.
    """
    slowly = Dribble(data, (1, 1, 2, 3, 7, 100, 1000))
    if compression_of(data[:MAGIC_LENGTH]) is None:
        whole, pieces = check(data), check(data, slowly)
        assert pieces.damage == whole.damage
    else:
        # The plain reader does not decompress.
        whole, pieces = read(data), read(slowly)
        for sizes in (Sizes(), Sizes(chunk=16, step=10, head=50)):
            assert said(data, 2, sizes) == said(data, 0, sizes)
    if compression_of(data[:MAGIC_LENGTH]) is None or is_sound(whole):
        assert pieces.packets == whole.packets
        assert (pieces.damage is None, pieces.error is None) == (whole.damage is None, whole.error is None)
    else:
        # A decompressor keeps to itself what it has made of a piece in which it finds damage.
        assert not is_sound(pieces)
        shorter, longer = sorted((pieces.packets, whole.packets), key=len)
        assert longer[: len(shorter)] == shorter
    by_link: dict[int, list[Any]] = {}
    for packet in whole.packets[:200]:
        by_link.setdefault(packet.link_type, []).append(packet)
    for link_type, packets in by_link.items():
        if link_type not in LINK_TYPES:
            continue        # without IP; pcapng may have them beside others
        both(True, False, True).judge([packet.data for packet in packets], link_type, [p.wire for p in packets])


# Frames --------------------------------------------------------------------------------------------------------------


class Both:
    """Engine and reference with one policy, which judge what no connection is left of from the time before."""

    #: Longer than anything is remembered.
    SILENCE_NS = 10_000 * SECOND
    LAST_NS = 1 << 61

    def __init__(self, causal: bool, exempt: bool, stateful: bool) -> None:
        text = POLICY.replace("INFRASTRUCTURE", "exempt" if exempt else "filtered")
        self._policy = parse_policy(text.replace("STATEFUL", "true" if stateful else "false"))
        self._mode = MODES[not causal]
        self._begin()

    def _begin(self) -> None:
        # With "infer", openers are remembered for longer than any silence.
        self._engine = Engine(self._policy, mode=self._mode, midstream="deny")
        self._reference = ReferenceEngine(self._policy, mode=self._mode, midstream="deny")
        self._now = 0

    def judge(self, frames: Sequence[bytes], link_type: int, wire_lengths: Sequence[int]) -> None:
        """Frames a millisecond apart. AssertionError where the two are not of one mind."""
        self._now += self.SILENCE_NS
        if self._now > self.LAST_NS:
            self._begin()
        times = [self._now + n * 1_000_000 for n in range(len(frames))]
        rows = self._engine.process_frames(frames, times, wire_lengths=wire_lengths, link_type=link_type)
        for n, (frame, wire, time_ns) in enumerate(zip(frames, wire_lengths, times, strict=True)):
            verdict = self._reference.process_frame(time_ns, frame, wire_length=wire, link_type=link_type)
            got, wanted = spell(self._engine, rows[n]), expected(verdict)
            assert got == wanted, (
                f"frame {n + 1}, link type {link_type}, {frame.hex()}, wire {wire}:\n  engine    {got}\n"
                f"  reference {wanted}"
            )


both = cache(Both)


def frames(data: bytes) -> None:
    """A few frames of one link type, judged by the engine as by the reference."""
    head, body = data[:4], data[4:]
    if len(head) < 4:
        return
    link_type = LINK_TYPES[head[0] % len(LINK_TYPES)]
    pieces = body.split(NEXT_FRAME)[:8]
    # Bytes of the last one that the capture left out.
    wires = [len(piece) for piece in pieces]
    wires[-1] += int.from_bytes(head[2:4], "big")
    both(bool(head[1] & 1), bool(head[1] & 2), bool(head[1] & 4)).judge(pieces, link_type, wires)


# Documents -----------------------------------------------------------------------------------------------------------

#: The least that changes can be about.
PLAIN_POLICY = parse_policy(POLICY.replace("INFRASTRUCTURE", "exempt").replace("STATEFUL", "true"))


def refused(error: SgfastError) -> None:
    message = str(error)
    assert all(line.isprintable() and len(line) < 2000 for line in message.split("\n")), message


def documents(data: bytes) -> None:
    """A policy, or an export of one, and a change file or an expectations file: an engine that takes the changes, a
    proof of what is expected, else one line that says why not.
    """
    text, _, change_text = data.partition(NEXT_DOCUMENT)
    policy = PLAIN_POLICY
    try:
        policy = parse_policy(text, "policy")
        assert all(warning.isprintable() for warning in policy.warnings)
    except PolicyError as error:
        refused(error)
    try:
        expectations = Expectations(policy, parse_expectations(change_text, "expectations"))
        if len(expectations.all) <= 3:
            assert len(expectations.prove().outcomes) == len(expectations.all)
    except PolicyError as error:
        refused(error)
    try:
        changes = parse_changes(change_text, "changes").resolve(policy, 1_700_000_000 * SECOND)
        assert [change.time_ns for change in changes] == sorted(change.time_ns for change in changes)
        engine = Engine(policy)
        for change in changes[:20]:
            engine.apply(change.change, change.time_ns)
            assert engine.policy == apply_changes(policy, [change.change]).policy
            policy = engine.policy
    except PolicyError as error:
        refused(error)


# Flow logs -----------------------------------------------------------------------------------------------------------


@cache
def folder() -> TemporaryDirectory[str]:
    """A folder that goes when the process ends."""
    return TemporaryDirectory(prefix="sgfast-fuzz-")


def logs(data: bytes) -> None:
    """A flow log: each of its records has a fate, which is the same each time; else one line that says why not."""
    path = Path(folder().name, "flow.log")
    path.write_bytes(data)
    # Some logs take their year from here.
    os.utime(path, (1_700_000_000, 1_700_000_000))
    log = open_log(str(path))
    rows = 0
    try:
        for batch in log:
            rows += len(batch)
            assert set(batch["family"]) <= {4, 6}
    except FlowLogError as error:
        refused(error)
    assert rows == log.records
    said = [*log.complaints, *log.remarks, *([] if log.damage is None else [log.damage])]
    assert all(text.isprintable() for text in said), said
    if is_flow_log(str(path)):
        assert fates(path) == fates(path)


def fates(path: Path) -> Any:
    """Replay a log. Return what became of its records, or None if it was refused."""
    try:
        result = replay(PLAIN_POLICY, path)
    except FlowLogError as error:
        refused(error)
        return None
    records = result.records
    assert records is not None
    undecided, left_out = sum(records.undecided.values()), sum(records.left_out.values())
    assert records.read == records.judged + records.rejected + undecided + left_out, records
    return records, result.connections, result.verdicts, result.bytes, result.rules, result.warnings


# Sequences -----------------------------------------------------------------------------------------------------------


class Source:
    """Bytes as a source of numbers, in place of a random generator; once they are used up, it is zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def below(self, n: int) -> int:
        size = max(1, ((n - 1).bit_length() + 7) // 8)
        piece = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(piece, "little") % n

    def integers(self, low: int, high: int | None = None) -> int:
        """As NumPy's generator has it."""
        return self.below(low) if high is None else low + self.below(high - low)

    def permutation(self, n: int) -> list[int]:
        left = list(range(n))
        return [left.pop(self.below(len(left))) for _ in range(n)]

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.below(len(items))]


class DecodedCrowd(Crowd):
    """A crowd whose every step the bytes decide."""

    def below(self, n: int) -> int:
        source: Any = self.rng
        return int(source.below(n))


def decoded_policy(source: Source) -> Policy:
    changer = Changer(source)  # type: ignore[arg-type]
    stateless = source.pick(((), (), (), ("gamma",), GROUPS))
    groups = []
    for name in GROUPS:
        rules = [Rule(f"{name}/open/{family}", "outbound", family) for family in (4, 6) if source.below(8)]  # type: ignore[arg-type]
        for n in range(source.below(6)):
            rule = changer.rule()
            rules.append(Rule(
                f"{name}/{rule.direction}/{n + 1}", rule.direction, rule.ethertype, rule.protocol, rule.ports,
                peer=rule.peer, action=rule.action, priority=rule.priority,
            ))  # fmt: skip
        groups.append(SecurityGroup(name, tuple(rules), stateful=name not in stateless))
    instances = []
    for n in range(1 + source.below(4)):
        addresses = (f"10.0.{n % 2}.{5 + n}/32", f"2001:db8:0:{n % 2}::{5 + n}/128")
        vpc, group = source.pick(("red", "red", "green")), source.pick(GROUPS)
        instances.append(Instance(f"i{n}", vpc, tuple(map(ip_network, addresses)), (group,)))
    seconds = source.pick(((600, 30, 30, 30, 180, 30), (20, 3, 2, 3, 8, 4), (0.001, 1, 1, 1, 1, 1)))
    return Policy(
        vpcs=(Vpc("red"), Vpc("green")),
        peerings=frozenset({frozenset(("red", "green"))} if source.below(2) else ()),
        address_groups=(AddressGroup("offices", (ip_network("198.51.100.0/25"), ip_network("2001:db8:9::/121"))),),
        security_groups=tuple(groups),
        instances=tuple(instances),
        settings=Settings(
            profile="aws",  # which has port 0
            timeouts=Timeouts(*seconds),
            max_connections=source.pick((1_000_000, 1_000_000, 40, 5, 1)),
            infrastructure=source.pick(("exempt", "by-role", "filtered")),
            on_change=source.pick(("cut-inbound", "cut-unmatched", "forget-unmatched", "keep")),
            group_members=source.pick(("by-owner", "by-address")),
        ),
    )


def sequences(data: bytes) -> None:
    """A policy, packets and changes between them, through the engine with and without results, and the reference."""
    source = Source(data)
    run = source.pick(MODES), source.pick(MIDSTREAMS), source.pick((None, None, None, "red"))
    batch = 1 + source.below(32)
    changing = source.below(2)
    policy = decoded_policy(source)
    crowd = DecodedCrowd(policy, source, fragments=True)  # type: ignore[arg-type]
    traffic = Traffic()
    while source and len(traffic.frames) < 200:
        drawn = crowd.draw(1)
        traffic.frames += drawn.frames
        traffic.times_ns += drawn.times_ns
        traffic.wire_lengths += drawn.wire_lengths
    if traffic.frames:
        # The changes are told by the bytes once more, from the end.
        changer = Changer(Source(data[::-1])) if changing else None  # type: ignore[arg-type]
        key = np.arange(8, dtype=np.uint64).tolist()
        compare(policy, traffic, run, batch, Counter(), hash_key=key, changer=changer)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "captures": captures, "frames": frames, "documents": documents, "logs": logs,
    "sequences": sequences,
}  # fmt: skip
