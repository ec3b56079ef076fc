"""Engine against kernel, packet by packet, and the list of where Linux and SPEC differ on purpose.

The reference model runs along and says which state a connection is in: a difference is allowed only for a packet, or
after a packet, that a predicate of ``DIFFERENCES`` names. Everything else fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from conversations import Step
from oracle import Kernel

from sgfast.engine import VERDICTS, Engine, Verdict
from sgfast.policy.model import Policy
from sgfast.reference import Packet, PacketVerdict, ReferenceEngine, flow_of, parse_frame, quoted_flow

RAW = 101
SECOND = 10**9
START = 1_700_000_000 * SECOND


@dataclass
class History:
    """What happened to a connection's key that matters to Linux and not to SPEC."""

    last_event: str = ""
    finished: bool = False
    both_opened: bool = False
    half_open: bool = False
    #: The key's packets: number, whether the kernel let it pass, whose filter did not, what the reference says.
    told: list[tuple[int, bool, str | None, PacketVerdict]] = field(default_factory=list)
    #: Names of differences that had their cause earlier: from then on the two may disagree about this key.
    apart: set[str] = field(default_factory=set)
    #: A packet was judged differently: whatever the two make of the key from then on, it does not bring them together.
    parted: bool = False


@dataclass(frozen=True)
class Difference:
    """``here``: the packet itself may be judged differently. ``from_here``: and its key from now on."""

    why: str
    here: Callable[[Packet, PacketVerdict, History], bool]
    from_here: bool


# Predicates ----------------------------------------------------------------------------------------------------------


def _is_other_icmp(packet: Packet, verdict: PacketVerdict, history: History) -> bool:
    if not packet.is_icmp or packet.icmp_type is None:
        return False
    known = {4: {0, 8, 13, 14, 15, 16, 17, 18, 3, 4, 5, 11, 12}, 6: {128, 129, *range(128)}}
    return packet.icmp_type not in known[packet.version]


def _is_coded_query(packet: Packet, verdict: PacketVerdict, history: History) -> bool:
    queries = {4: {0, 8, 13, 14, 15, 16, 17, 18}, 6: {128, 129}}
    return packet.is_icmp and packet.icmp_type in queries[packet.version] and packet.icmp_code != 0


def _syn_after_reset(packet: Packet, verdict: PacketVerdict, history: History) -> bool:
    return (
        verdict.tcp_transition is not None
        and verdict.tcp_transition[:2] == ("CL", "original syn")
        and history.last_event != "original rst"
        and not history.finished
    )


def _challenge(packet: Packet, verdict: PacketVerdict, history: History) -> bool:
    return verdict.tcp_transition is not None and verdict.tcp_transition[:2] == ("LA", "original syn")


def _simultaneous(packet: Packet, verdict: PacketVerdict, history: History) -> bool:
    return (
        verdict.tcp_transition is not None
        and verdict.tcp_transition[:2] == ("SR", "reply ack")
        and history.both_opened
    )


def _is_syn_sent2(packet: Packet, verdict: PacketVerdict, history: History) -> bool:
    return verdict.tcp_transition is not None and verdict.tcp_transition[2] == "S2"


def _syn_again(packet: Packet, verdict: PacketVerdict, history: History) -> bool:
    return verdict.tcp_transition == ("SS", "original syn", "SS") and history.half_open


DIFFERENCES = {
    "other ICMP": Difference(
        "SPEC 5.6: ICMP types that are neither query, reply nor error open a one-way connection; to Linux they are "
        "invalid", _is_other_icmp, True,
    ),
    "ICMP code of a query": Difference(
        "SPEC 5.1: no part of the key; in Linux it is. Real ones are all 0", _is_coded_query, True,
    ),
    "SYN after a reset": Difference(
        "SPEC 5.5: it is a new opener; to Linux only if there was a FIN, or if the initiator's reset was the last "
        "packet, otherwise it passes unjudged and the entry stays", _syn_after_reset, True,
    ),
    "challenge ACK": Difference(
        "SPEC 5.4: without remembered flags; Linux does not take the responder's ACK after an ignored SYN in LAST-ACK "
        "for the last one", _challenge, True,
    ),
    "simultaneous open": Difference(
        "SPEC 5.4: without remembered flags; where both ends sent a SYN, the responder's ACK establishes in Linux, in "
        "SPEC only the initiator's does", _simultaneous, True,
    ),
    "how long two SYNs last": Difference(
        "SPEC 4.3, 5.4: the responder's SYN sets the deadline and no retransmitted SYN does; in Linux it is the other "
        "way round, and the time is not the configurable one", _is_syn_sent2, True,
    ),
    "SYN again after a half-open answer": Difference(
        "SPEC 5.4: a retransmitted SYN leaves the deadline; in Linux not after the responder sent an ACK that was "
        "ignored", _syn_again, True,
    ),
}  # fmt: skip


#: By difference: the transition after which it makes none any more, unless it has shown.
TOGETHER_AGAIN = {
    "SYN again after a half-open answer": ("SS", ("SR",)),
    "how long two SYNs last": ("S2", ("SR",)),
    "simultaneous open": ("SR", ("ES", "FW")),
}


class Comparison:
    """Judges steps with engine and kernel. ``hits``: by name of difference how many packets it excused."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.hits: Counter[str] = Counter()
        self.seen: Counter[Hashable] = Counter()
        self.packets = 0

    def run(self, steps: Sequence[Step], kernel: Kernel) -> None:
        """Raises AssertionError at the first difference nobody allows. Begins with no connections on either side."""
        kernel.flush()
        times = [START + seconds * SECOND for seconds in accumulate(step.seconds for step in steps)]
        engine = Engine(self.policy)
        rows = engine.process_frames([step.packet for step in steps], times, link_type=RAW)
        verdicts = rows["verdict"].tolist()
        reference = ReferenceEngine(self.policy)
        history: dict[Hashable, History] = {}
        for n, (step, now) in enumerate(zip(steps, times, strict=True)):
            if step.seconds:
                kernel.age(step.seconds)
            frame = step.packet
            wanted = reference.process_frame(now, frame, link_type=RAW)
            verdict = VERDICTS[verdicts[n]]
            if verdict not in ("allow", "deny"):
                continue        # no filter sees it
            packet = parse_frame(frame, len(frame), RAW)
            assert isinstance(packet, Packet), frame.hex()
            flow = flow_of(packet) or quoted_flow(packet)
            past = history.setdefault(flow.key if flow is not None else frame, History())
            passed, stopped_by = kernel.judge(frame)
            self.packets += 1
            self.seen[verdict, wanted.reason] += 1
            self.seen["both sides"] += wanted.egress is not None and wanted.ingress is not None
            stopper = stopped_by.instance.name if stopped_by else None
            past.told.append((n, passed, stopper, wanted))
            excuses = [name for name, d in DIFFERENCES.items() if d.here(packet, wanted, past)]
            if passed != (verdict == "allow") or stopper != _denier(wanted):
                excuse = next(iter((*excuses, *sorted(past.apart))), None)
                if excuse is None:
                    raise AssertionError(_account(steps, times, past, engine.verdict(rows[n])))
                self.hits[excuse] += 1
                past.apart.add(excuse)
                past.parted = True
            else:
                _remember(past, packet, wanted)
            past.apart.update(name for name in excuses if DIFFERENCES[name].from_here)


def _denier(verdict: PacketVerdict) -> str | None:
    """Whose filter denied the packet."""
    return next((s.instance for s in (verdict.egress, verdict.ingress) if s and s.verdict == "deny"), None)


def _account(steps: Sequence[Step], times: Sequence[int], past: History, verdict: Verdict) -> str:
    """The last packets of a key, for a failure's message."""
    lines = [f"engine: {verdict}"]
    for n, passed, stopped_by, wanted in past.told[-20:]:
        packet = parse_frame(steps[n].packet, len(steps[n].packet), RAW)
        assert isinstance(packet, Packet)
        lines.append(
            f"packet {n + 1:6} {(times[n] - START) // SECOND:6} s {packet.src} > {packet.dst} proto {packet.protocol} "
            f"flags {packet.tcp_flags:02x} type {packet.icmp_type}: {wanted.verdict} {wanted.reason} "
            f"{wanted.tcp_transition}; kernel {'passed' if passed else f'stopped by {stopped_by}'}"
        )
    return "\n".join([*lines, steps[past.told[-1][0]].packet.hex()])


def _remember(past: History, packet: Packet, verdict: PacketVerdict) -> None:
    if verdict.tcp_transition is None or verdict.verdict != "allow":
        return
    before, event, after = verdict.tcp_transition
    if before != "SS" and after == "SS":
        past.finished = past.both_opened = past.half_open = False
    if after == "S2":
        past.both_opened = True
    if (before, event) == ("SS", "reply ack"):
        past.half_open = True
    if not past.parted:
        # Both in one state, with one deadline again.
        past.apart -= {name for name, (state, to) in TOGETHER_AGAIN.items() if before == state and after in to}
    if after == "FW":
        past.finished = True
    past.last_event = event
