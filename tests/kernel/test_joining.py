"""Fragments: what the kernel joins and delivers = the datagrams all of whose fragments are allowed (SPEC 9.4).

Linux says nothing of a fragment until its datagram is whole, then the filter judges the datagram and what passes goes
on in fragments of Linux's own making. So datagrams are compared, not packets: which ones can be put together again from
what comes out of the kernel, and which ones from the fragments that are allowed. No time passes in either.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import frames as f
import numpy as np
import pytest
from comparing import RAW, START
from datagrams import HAZARDS, Datagram, Extensions, cut
from effort import some
from oracle import Kernel, missing
from talks import INSTANCE, STRANGER, open_policy

from sgfast.engine import PENDING, Engine
from sgfast.policy.model import Policy, Rule, SecurityGroup

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"kernel oracle: {REASON}")

DATAGRAMS = int(os.environ.get("SGFAST_KERNEL_DATAGRAMS") or some(2_000, 6_000))
SEED = int(os.environ.get("SGFAST_KERNEL_SEED", "2"))


both_families = pytest.mark.parametrize("family", [4, 6])


def by_engine(policy: Policy, packets: Sequence[bytes]) -> list[str]:
    """The verdict of each packet in the end."""
    engine = Engine(policy)
    rows = engine.process_frames(list(packets), [START] * len(packets), link_type=RAW)
    late = engine.resolved(everything=True)
    assert (rows["verdict"][late["number"] - 1] == PENDING).all()
    rows[late["number"] - 1] = late["result"]
    return [engine.verdict(row).verdict for row in rows]


# Putting together again ----------------------------------------------------------------------------------------------


def whole_of(packet: bytes) -> bytes:
    """The parts of a packet that forwarding and cutting leave alone: addresses, protocol and everything behind."""
    if packet[0] >> 4 == 4:
        return packet[12:20] + packet[9:10] + packet[(packet[0] & 15) * 4 :]
    return packet[8:40] + packet[6:7] + packet[40:]


def take_apart(packet: bytes) -> tuple[bytes, int, bool, bytes, bytes]:
    """The datagram, the place, whether more is to come, what stands before all parts, the part."""
    if packet[0] >> 4 == 4:
        bits = int.from_bytes(packet[6:8], "big")
        part = packet[(packet[0] & 15) * 4 :]
        ends = packet[12:20] + packet[9:10]
        return ends + packet[4:6], (bits & 0x1FFF) * 8, bool(bits & 0x2000), ends, part
    announced_at, at = 6, 40
    while packet[announced_at] in (f.HOP_BY_HOP, f.ROUTING, f.DESTINATION):
        announced_at, at = at, at + (packet[at + 1] + 1) * 8
    if packet[announced_at] != f.FRAGMENT:
        return b"", 0, False, whole_of(packet), b""
    bits = int.from_bytes(packet[at + 2 : at + 4], "big")
    head = bytearray(packet[:at])
    head[announced_at] = packet[at]
    name = packet[8:40] + packet[at + 4 : at + 8]
    return name, bits & 0xFFF8, bool(bits & 1), whole_of(bytes(head)), packet[at + 8 :]


def put_together(packets: Iterable[bytes]) -> Counter[bytes]:
    """Datagrams that a receiver gets of packets that all reach it, as ``whole_of`` words them: how often each."""
    got: Counter[bytes] = Counter()
    parts: dict[bytes, dict[int, tuple[bool, bytes, bytes]]] = {}
    for packet in packets:
        name, place, more, before, part = take_apart(packet)
        if place == 0 and not more:
            got[before + part] += 1
            continue
        known = parts.setdefault(name, {})
        known[place] = more, before, part
        joined, missing_more = b"", True
        while missing_more and known.get(len(joined), (True, b"", b""))[2]:
            missing_more, _, next_part = known[len(joined)]
            joined += next_part
        if not missing_more:
            got[known[0][1] + joined] += 1
            del parts[name]
    return got


# Where Linux and SPEC differ on purpose -----------------------------------------------------------------------------

@dataclass(frozen=True)
class Difference:
    """``kernel``, ``judge``: who may deliver something that the other does not."""

    why: str
    kernel: bool = True
    judge: bool = False


DIFFERENCES = {
    "inside": Difference(
        "SPEC 9.4: only an exact duplicate is no overlap; Linux takes any part for one that lies within what came in "
        "one go, and ignores it"
    ),
    "anew": Difference(
        "SPEC 9.4: fragments that overlap deny their datagram for as long as it is remembered; Linux forgets it, and "
        "what comes later begins anew"
    ),
    "end": Difference(
        "SPEC 9.4: so do two ends, or a fragment behind the end; Linux over IPv6 ignores the one that came later"
    ),
    "odd": Difference(
        "SPEC 9.4: a fragment of odd length with more to come is malformed and no part of anything; Linux shortens it "
        "(IPv4) or forgets the datagram (IPv6)", judge=True,
    ),
    "empty": Difference(
        "SPEC 9.4: an empty fragment is malformed and no part of anything; Linux over IPv4 forgets the datagram, over "
        "IPv6 it takes an empty last one for the end", judge=True,
    ),
    "length": Difference(
        "SPEC 9.4: the first fragment's verdict is the others'; Linux holds its UDP length against the whole",
        kernel=False, judge=True,
    ),
    "short": Difference(
        "SPEC 3.4: a first fragment without all of the transport header is malformed; Linux over IPv4 judges what it "
        "has joined"
    ),
    "atomic": Difference(
        "SPEC 3.10: a fragment that is the first and the last one is a whole packet; Linux over IPv6 takes it for a "
        "part of the datagram whose number it has", judge=True,
    ),
}  # fmt: skip


def what_differs(datagram: Datagram, spelled: Sequence[str], header: int) -> set[str]:
    """The differences that pieces, in this order, of a datagram may show. ``header``: bytes that are judged."""
    found: set[str] = set()
    came: set[tuple[int, int, bool]] = set()
    for word in spelled:
        first, end = map(int, word.rstrip("+").split("-"))
        piece = first, end, word.endswith("+")
        if not piece[2] and end < len(datagram.content) and datagram.layer.protocol == 17:
            found.add("length")
        if first == end:
            found.add("empty")
            continue
        if first == 0 and not piece[2]:
            found |= {"atomic"} if datagram.family == 6 else set()
            continue
        if piece[2] and end % 8:
            found.add("odd")
            continue
        if first == 0 and end < header:
            found.add("short")
        if piece in came:
            continue
        if any(first < other_end and other < end for other, other_end, _ in came):
            covered = {unit for other, other_end, _ in came for unit in range(other, other_end)}
            found.add("inside" if covered.issuperset(range(first, end)) else "anew")
        elif any(
            (not piece[2] and other_end > end) or (not more and end > other_end) for _, other_end, more in came
        ):
            found.add("end" if datagram.family == 6 else "anew")
        came.add(piece)
        if not found and any(not more for *_, more in came):
            size = next(other_end for _, other_end, more in came if not more)
            if sum(other_end - other for other, other_end, _ in came) == size:
                came.clear()
    return found


# Comparing -----------------------------------------------------------------------------------------------------------


@dataclass
class Sent:
    """A datagram and what is sent of it, in this order."""

    datagram: Datagram
    spelled: list[str]
    #: Bytes of its header without which it is not judged.
    header: int = 8
    differs: set[str] = field(default_factory=set)


class Comparison:
    """Sends pieces through the kernel and past the engine, then compares datagram by datagram."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        #: By all headers and the first bytes behind them; no two are alike in these.
        self.sent: dict[bytes, Sent] = {}
        self.packets: list[bytes] = []
        self.hits: Counter[str] = Counter()
        self.delivered = self.lost = 0

    def add(self, *several: Sent, order: Sequence[int] | None = None) -> None:
        """``order``: whose next piece comes; without it one datagram comes after the other."""
        queues = []
        for sent in several:
            sent.differs = what_differs(sent.datagram, sent.spelled, sent.header)
            whole = whole_of(sent.datagram.whole())
            name = whole[: len(whole) - len(sent.datagram.layer) + 8]
            assert name not in self.sent, "two datagrams are alike"
            self.sent[name] = sent
            queues.append([f.with_checksum(packet) for packet in sent.datagram.pieces(" ".join(sent.spelled))])
        if order is None:
            order = [n for n, queue in enumerate(queues) for _ in queue]
        for n in order:
            self.packets.append(queues[n].pop(0))
        assert not any(queues)

    def run(self) -> None:
        with Kernel(self.policy) as kernel:
            by_kernel = self._by_name(put_together(through(kernel, self.packets)))
        verdicts = by_engine(self.policy, self.packets)
        assert set(verdicts) <= {"allow", "deny"}
        allowed = (packet for packet, verdict in zip(self.packets, verdicts, strict=True) if verdict == "allow")
        by_judge = self._by_name(put_together(allowed))
        for name, sent in self.sent.items():
            there, here = by_kernel[name], by_judge[name]
            self.delivered += there.total()
            self.lost += not there
            if there != here:
                excuses = [DIFFERENCES[name] for name in sent.differs]
                excused = (there <= here or any(excuse.kernel for excuse in excuses)) and (
                    here <= there or any(excuse.judge for excuse in excuses)
                )
                assert excused, f"kernel delivers {there}, judge {here}: {sent}"
                self.hits[", ".join(sorted(sent.differs))] += 1

    def _by_name(self, got: Counter[bytes]) -> dict[bytes, Counter[bytes]]:
        """The parts of each datagram sent that were delivered, and nothing else."""
        found: dict[bytes, Counter[bytes]] = {name: Counter() for name in self.sent}
        lengths = {len(name) for name in self.sent}
        for whole, times in got.items():
            name = next(whole[:length] for length in lengths if whole[:length] in found)
            found[name][whole] = times
        return found


def through(kernel: Kernel, packets: Iterable[bytes]) -> list[bytes]:
    """Packets behind the last filter. The kernel has packets of its own: listener reports, errors."""
    out: list[bytes] = []
    for packet in packets:
        source, destination = f.ends_of(packet)
        passing = [packet]
        for side, leaving in ((kernel.owner(source), True), (kernel.owner(destination), False)):
            if side is not None:
                seen = [each for packet in passing for each in side.forward(packet, leaving)]
                passing = [each for each in seen if f.ends_of(each)[0] == source]
        out += passing
    return out


def numbered(n: int, size: int, dport: int = 80, protocol: int = 17) -> f.Layer:
    """``size`` bytes to that port, or a ping, like no other."""
    content = np.random.default_rng(n).bytes(size)
    if protocol == 17:
        return f.udp(1024 + n % 60000, dport, content[8:])
    if protocol == 6:
        return f.tcp(1024 + n % 60000, dport, "S", content[20:])
    return f.Layer((f.icmp if protocol == 1 else f.icmpv6)(dport, 0, n % 65536, content[8:]), protocol)


# Tests ---------------------------------------------------------------------------------------------------------------


@both_families
def test_every_hazard(family: int) -> None:
    comparison = Comparison(open_policy())
    for n, (spelled, *_) in enumerate(HAZARDS.values()):
        there = STRANGER[family], INSTANCE[family]
        comparison.add(Sent(Datagram(*there, numbered(n, 64), identification=n), spelled.split()))
    comparison.run()
    print(f"{comparison.delivered} delivered, {comparison.lost} not; excused: {dict(comparison.hits)}")
    assert comparison.delivered >= 15 and comparison.lost >= 10


@both_families
@pytest.mark.parametrize("inbound", [True, False], ids=["inbound", "outbound"])
def test_every_order(family: int, inbound: bool) -> None:
    """Four pieces in all orders, all there or one missing, and each of them twice."""
    comparison = Comparison(open_policy())
    ends = (STRANGER[family], INSTANCE[family]) if inbound else (INSTANCE[family], STRANGER[family])
    pieces = cut(100, 24, 40, 72)
    spellings = [list(order) for size in (3, 4) for order in permutations(pieces, size)]
    spellings += [[word for word in order for _ in range(2)] for order in permutations(pieces)]
    for n, spelled in enumerate(spellings):
        comparison.add(Sent(Datagram(*ends, numbered(n, 100), identification=n), spelled))
    comparison.run()
    assert comparison.delivered == 48 and comparison.lost == 24 and not comparison.hits


@pytest.mark.parametrize(
    "before", [(), (f.extension(0),), (f.extension(43, 16),), (f.extension(0), f.extension(60, 24))]
)
@pytest.mark.parametrize("behind", [(), (f.extension(60),), (f.extension(60, 16), f.extension(60, 8))])
def test_ipv6_extension_headers(before: Extensions, behind: Extensions) -> None:
    comparison = Comparison(open_policy())
    for n, places in enumerate(((40,), (40, 48), (32, 56, 72), (48, 80))):
        datagram = Datagram(
            STRANGER[6], INSTANCE[6], numbered(n, 100), identification=n, before=before, behind=behind
        )  # fmt: skip
        pieces = cut(len(datagram.content), *places)
        for k, spelled in enumerate((pieces, pieces[::-1], pieces[1:], pieces[:-1], pieces + pieces)):
            number = n * 5 + k
            comparison.add(Sent(replace(datagram, layer=numbered(number, 100), identification=number), spelled))
    comparison.run()
    assert comparison.delivered == 4 * 4 and comparison.lost == 2 * 4 and not comparison.hits


@both_families
def test_first_fragments_that_end_within_headers(family: int) -> None:
    """Behind an extension header, too, where there are any."""
    comparison = Comparison(open_policy())
    n = 0
    ping = (1, 8, 8) if family == 4 else (58, 8, 128)
    for behind in ((), (f.extension(60, 16),)) if family == 6 else ((),):
        for protocol, needed, dport in ((17, 8, 80), (6, 20, 80), ping):
            for first in (8, 16, 24, 32, 40, 48):
                n += 1
                layer = numbered(n, 100, dport, protocol)
                datagram = Datagram(STRANGER[family], INSTANCE[family], layer, identification=n, behind=behind)
                header = needed + sum(len(extension) for _, extension in behind)
                comparison.add(Sent(datagram, cut(len(datagram.content), first)[::-1], header))
    comparison.run()
    print(f"{comparison.delivered} delivered, {comparison.lost} not; excused: {dict(comparison.hits)}")
    assert comparison.delivered >= 12
    assert set(comparison.hits) == ({"short"} if family == 4 else set())


@both_families
def test_the_longest_datagrams(family: int) -> None:
    comparison = Comparison(open_policy())
    most = 65535 - (20 if family == 4 else 0)
    for n, size in enumerate((most - 8, most - 1, most)):
        datagram = Datagram(STRANGER[family], INSTANCE[family], numbered(n, size), identification=n)
        pieces = cut(size, *range(1224, size, 1224))
        comparison.add(Sent(datagram, pieces[n % 2 :] + pieces[: n % 2]))
    comparison.run()
    assert comparison.delivered == 3 and not comparison.hits


@both_families
def test_fragment_that_ends_beyond_the_longest_datagram(family: int) -> None:
    """It is delivered by nobody; the rest of it is no datagram."""
    comparison = Comparison(open_policy())
    most = 65535 - (20 if family == 4 else 0)
    for n, size in enumerate((most + 1, 65536)):
        datagram = Datagram(STRANGER[family], INSTANCE[family], f.udp(n, 80, length=65000), identification=n)
        comparison.add(Sent(datagram, cut(size, *range(1224, size, 1224))))
    comparison.run()
    assert comparison.delivered == 0 and not comparison.hits


@both_families
def test_the_filter_judges_the_datagram_by_its_first_fragment(family: int) -> None:
    """A query goes out, its answer may come in, in pieces both; what nobody asked for may not."""
    policy = open_policy("outbound")
    comparison = Comparison(policy)
    here, there = INSTANCE[family], STRANGER[family]
    ask, answer = (8, 0) if family == 4 else (128, 129)
    ping = 1 if family == 4 else 58
    size, pieces = 100, cut(100, 24, 48)
    for n, order in enumerate(permutations(pieces), 1):
        for asked in (True, False):
            number = 4 * n + 2 * asked
            if asked:
                query = numbered(number, size, ask, ping)
                comparison.add(Sent(Datagram(here, there, query, identification=number), list(order)))
            layer = numbered(number, size, answer, ping)
            comparison.add(Sent(Datagram(there, here, layer, identification=number + 1), list(order)))
    comparison.run()
    assert comparison.delivered == 12 and comparison.lost == 6 and not comparison.hits


def several_ports() -> Policy:
    """Port 80 and pings may come in, port 53 may go out."""
    rules = []
    for family in (4, 6):
        ping, kind = (1, 8) if family == 4 else (58, 128)
        rules += [
            Rule(f"http/{family}", "inbound", family, 17, ((80, 80),)),
            Rule(f"ping/{family}", "inbound", family, ping, None, icmp_type=kind),
            Rule(f"dns/{family}", "outbound", family, 17, ((53, 53),)),
        ]  # fmt: skip
    return replace(open_policy(), security_groups=(SecurityGroup("open", tuple(rules)),))


class Drawn:
    """Draws datagrams, how they are cut, and what happens to the pieces on their way."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def chance(self, percent: int) -> bool:
        return bool(self.rng.integers(100) < percent)

    def pick(self, things: Sequence[Any]) -> Any:
        return things[self.rng.integers(len(things))]

    def sent(self, n: int) -> Sent:
        family = self.pick((4, 6))
        ends = STRANGER[family], INSTANCE[family]
        size = int(self.rng.integers(32, 400))
        roll = self.rng.integers(8)
        if roll < 3:
            layer = numbered(n, size, 80)
        elif roll < 4:
            layer = numbered(n, size, 81)
        elif roll < 5:
            layer = numbered(n, size, self.pick((8, 0) if family == 4 else (128, 129)), 1 if family == 4 else 58)
        else:
            ends, layer = ends[::-1], numbered(n, size, self.pick((53, 53, 54)))
        before = [f.extension(43, 8)] if family == 6 and self.chance(20) else []
        behind = [f.extension(60, 16)] if family == 6 and self.chance(20) else []
        datagram = Datagram(*ends, layer, identification=n, before=before, behind=behind)
        size = len(datagram.content)
        least = 8 if self.chance(10) else 24
        places = [int(8 * self.rng.integers(1, (size + 7) // 8)) for _ in range(self.rng.integers(1, 6))]
        pieces = cut(size, *(place for place in places if least <= place < size))
        if len(pieces) == 1:
            pieces = cut(size, 24)
        return Sent(datagram, self.on_their_way(pieces, size), header=8 + 16 * len(behind))

    def on_their_way(self, pieces: list[str], size: int) -> list[str]:
        spelled = list(pieces)
        if self.chance(15):
            spelled.remove(self.pick(spelled))
        if self.chance(15):
            spelled += [self.pick(pieces)]
        if self.chance(12):
            first = int(8 * self.rng.integers(0, size // 8))
            end = int(min(size, first + 8 * self.rng.integers(1, 6)))
            spelled += [f"{first}-{end}{'+' if end < size or self.chance(10) else ''}"]
        if self.chance(2):
            spelled += [f"0-{size}"]
        if self.chance(3):
            spelled += [self.pick(("16-27+", "24-24+", "24-24", "16-24"))]
        if self.chance(30):
            spelled.reverse()
        elif self.chance(50):
            self.rng.shuffle(spelled)
        if self.chance(10):
            spelled += pieces       # sent again
        return spelled


def test_random_datagrams() -> None:
    print(f"seed {SEED}, {DATAGRAMS} datagrams")
    rng = np.random.default_rng(SEED)
    draw, comparison = Drawn(rng), Comparison(several_ports())
    # Identifications and ports do not come again: Linux and the judge forget at different times.
    assert DATAGRAMS <= 60_000
    for n in range(0, DATAGRAMS, 8):
        several = [draw.sent(n + k) for k in range(8)]
        order = [k for k, sent in enumerate(several) for _ in sent.spelled]
        rng.shuffle(order)
        comparison.add(*several, order=order)
    comparison.run()
    excused = sum(comparison.hits.values())
    print(
        f"{len(comparison.packets)} fragments, {comparison.delivered} datagrams delivered, {comparison.lost} not; "
        f"excused: {dict(comparison.hits)}"
    )
    differing = Counter(name for sent in comparison.sent.values() for name in sent.differs)
    print(f"might differ: {dict(differing)}")
    assert comparison.delivered > 0.4 * DATAGRAMS and comparison.lost > 0.2 * DATAGRAMS
    assert excused < 0.1 * DATAGRAMS
    assert set(DIFFERENCES) == set(differing)


@both_families
def test_fragments_past_two_filters(family: int) -> None:
    """Datagrams that the first filter lets through come to the second in fragments again."""
    policy = open_policy()
    web = policy.instances[0]
    rules = (Rule("in", "inbound", family, 17, ((80, 80),)),)
    other = replace(web, name="other", addresses=(type(web.addresses[0 if family == 4 else 1])(STRANGER[family]),),
                    security_groups=("narrow",))  # fmt: skip
    policy = replace(
        policy, security_groups=(*policy.security_groups, SecurityGroup("narrow", rules)), instances=(web, other)
    )
    comparison = Comparison(policy)
    for n, order in enumerate(permutations(cut(100, 24, 48))):
        for dport in (80, 81):
            number = 2 * n + dport - 80
            layer = numbered(number, 100, dport)
            comparison.add(
                Sent(Datagram(INSTANCE[family], STRANGER[family], layer, identification=number), list(order))
            )
    comparison.run()
    assert comparison.delivered == 6 and comparison.lost == 6 and not comparison.hits
