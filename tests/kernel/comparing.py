"""Engine against kernel, packet by packet, and the list of where Linux and SPEC differ on purpose (SPEC 5.10).

The reference model runs along and says which state a connection is in: a difference is allowed only for a packet, or
after a packet, that a predicate of ``DIFFERENCES`` names. Everything else fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from time import monotonic
from typing import Any

from changing import change_kernel
from conversations import Step, Turn
from oracle import Kernel
from oracle import Side as KernelSide

from sgfast.engine import Engine
from sgfast.policy.model import TCP, Policy
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.flows import flow_of, quoted_flow
from sgfast.reference.packets import Packet, parse_frame
from sgfast.reference.table import Case, Side
from sgfast.reference.tcp import FIN, RST
from sgfast.reference.verdicts import PacketVerdict, SideVerdict
from sgfast.rows.verdicts import Verdict

RAW = 101
SECOND = 10**9
START = 1_700_000_000 * SECOND


#: While packets are judged, real time passes, and connections in the kernel come closer to their end. After so many
#: seconds they get that time back. It is less than oracle.STEP_SECONDS, so no verdict depends on it.
REAL_SECONDS = 1


#: Steps of a side's TCP connection: state, packet, state.
Transition = tuple[str, str, str]


class Watched(ReferenceEngine):
    """Tells what it read in a frame, and what each side made of it; a verdict tells of the last connection only."""

    def process_frame(self, *args: Any, **options: Any) -> PacketVerdict:
        self.packet: Packet | None = None
        self.transitions: dict[str, Transition | None] = {}
        self.unanswered: set[str] = set()
        return super().process_frame(*args, **options)

    def _judge_packet(self, packet: Packet, now: int) -> PacketVerdict:
        self.packet = packet
        return super()._judge_packet(packet, now)

    def _judge_side(self, side: Side, case: Case) -> SideVerdict:
        connection = self._connection(side, case.flow, case.now)
        if connection and not connection.replied and case.flow.sender == connection.opener.initiator:
            self.unanswered.add(side.instance.name)
        verdict = super()._judge_side(side, case)
        self.transitions[side.instance.name] = case.transition
        return verdict


@dataclass
class History:
    """The history of a connection's key at one side that matters to Linux and not to SPEC."""

    #: SPEC's verdict on the packet that is being judged at this side, if it gets there.
    reason: str | None = None
    transition: Transition | None = None
    #: It goes the opener's way, and there was none the other way.
    unanswered: bool = False
    last_event: str = ""
    finished: bool = False
    half_open: bool = False
    #: FINs since the opener (to Linux one end's second one counts), and whether there was an RST; denied ones, too.
    fins: int = 0
    reset: bool = False
    #: The key's packets: number, whether the kernel let it pass, whose filter did not, what the reference says.
    told: list[tuple[int, bool, str | None, PacketVerdict]] = field(default_factory=list)
    #: Names of differences that had their cause earlier: from then on the two may disagree about this key.
    apart: set[str] = field(default_factory=set)
    #: A packet was judged differently, or one of the two may have begun a connection where the other one went on with
    #: an earlier one: whatever they make of the key from then on, it does not bring them together.
    parted: bool = False


@dataclass(frozen=True)
class Difference:
    """``here``: a packet that may be judged differently at a side; and where it ``parts`` the two, its key from now on.

    ``mend``: makes of the kernel's connection what SPEC made of it.
    """

    why: str
    here: Callable[[Packet, History], bool]
    parts: bool = True
    mend: Callable[[Packet, KernelSide], None] = lambda packet, side: None


# Predicates ----------------------------------------------------------------------------------------------------------


def _is_other_icmp(packet: Packet, past: History) -> bool:
    if not packet.is_icmp or packet.icmp_type is None:
        return False
    known = {4: {0, 8, 13, 14, 15, 16, 17, 18, 3, 4, 5, 11, 12}, 6: {128, 129, *range(128)}}
    return packet.icmp_type not in known[packet.version]


def _is_coded_query(packet: Packet, past: History) -> bool:
    queries = {4: {0, 8, 13, 14, 15, 16, 17, 18}, 6: {128, 129}}
    return packet.is_icmp and packet.icmp_type in queries[packet.version] and packet.icmp_code != 0


def _syn_after_reset(packet: Packet, past: History) -> bool:
    return (
        past.transition is not None
        and past.transition[:2] == ("CL", "original syn")
        and past.last_event != "original rst"
        and not past.finished
    )


def _challenge(packet: Packet, past: History) -> bool:
    return past.transition is not None and past.transition[:2] == ("LA", "original syn")


def _syn_again(packet: Packet, past: History) -> bool:
    again = past.transition in (("SS", "original syn", "SS"), ("SS", "reply syn", "S2"))
    return again and past.half_open


def _syn_when_cut(packet: Packet, past: History) -> bool:
    over = past.reset or past.fins > 1
    opens = packet.protocol == TCP and packet.can_open
    return opens and over and past.reason == "disconnected" and not past.apart


def _is_unanswered(packet: Packet, past: History) -> bool:
    return past.reason == "established" and past.unanswered


def _cut_again(packet: Packet, side: KernelSide) -> None:
    side.disconnect_successor((packet.src, packet.sport), (packet.dst, packet.dport))


DIFFERENCES = {
    "other ICMP": Difference(
        "SPEC 5.6: ICMP types that are neither query, reply nor error open a one-way connection; to Linux they are "
        "invalid", _is_other_icmp,
    ),
    "ICMP code of a query": Difference(
        "SPEC 5.1: no part of the key; in Linux it is. Real ones are all 0", _is_coded_query,
    ),
    "SYN after a reset": Difference(
        "SPEC 5.5: it is a new opener; to Linux only if there was a FIN, or if the initiator's reset was the last "
        "packet, otherwise it passes unjudged and the entry stays", _syn_after_reset,
    ),
    "challenge ACK": Difference(
        "SPEC 5.4: without remembered flags; Linux does not take the responder's ACK after an ignored SYN in LAST-ACK "
        "for the last one", _challenge,
    ),
    "SYN again after a half-open answer": Difference(
        "SPEC 5.4: a retransmitted SYN leaves the deadline, and so does the responder's first one; in Linux not after "
        "the responder sent an ACK that was ignored", _syn_again,
    ),
    "SYN on a cut connection that is over": Difference(
        "SPEC 4.2, 6.4: a disconnected connection denies its key until its deadline, whatever comes; Linux follows "
        "what its filter drops, forgets one that was reset or is in TIME-WAIT for a SYN, and the new one has no mark",
        _syn_when_cut, parts=False, mend=_cut_again,
    ),
    "unanswered, and its rule is gone": Difference(
        "SPEC 4.3, 6.5: the initiator's packets belong to their connection; Linux calls them new until there was a "
        "reply, so today's rules are asked. Its entry has seen the packet all the same", _is_unanswered, parts=False,
    ),
}  # fmt: skip


#: By difference: the transitions after which it makes none any more, unless it has shown.
TOGETHER_AGAIN = {
    "SYN again after a half-open answer": {("SS", "SR"), ("S2", "S2"), ("S2", "R2")},
}


@dataclass(frozen=True)
class Turned:
    """The number of connections that a change disconnected."""

    by_engine: int
    by_kernel: int


class Comparison:
    """Judges steps with engine and kernel. ``hits``: by name of difference how many packets it excused."""

    #: Differences that are none of the engine's faults.
    differences = DIFFERENCES

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.hits: Counter[str] = Counter()
        self.seen: Counter[Hashable] = Counter()
        self.packets = 0
        self._history: dict[tuple[Hashable, str], History] = {}

    def run(self, steps: Sequence[Step | Turn], kernel: Kernel) -> list[Verdict | Turned]:
        """Raises AssertionError at the first difference nobody allows. Begins with no connections on either side.

        Returns what the engine said, step by step.
        """
        kernel.flush()
        self._steps = steps
        self._times = times = [START + seconds * SECOND for seconds in accumulate(step.seconds for step in steps)]
        judged = self._by_engine(steps, times)
        reference = Watched(self.policy)
        self._history = {}
        aged = monotonic()
        for n, (step, now) in enumerate(zip(steps, times, strict=True)):
            if step.seconds or monotonic() - aged > REAL_SECONDS:
                kernel.age(step.seconds)
                aged = monotonic()
            if isinstance(step, Turn):
                judged[n] = self._turn(step, now, judged[n].by_engine, reference, kernel)
            else:
                self._step(n, judged[n], reference, kernel)
        return judged

    def _by_engine(self, steps: Sequence[Step | Turn], times: Sequence[int]) -> list[Verdict | Turned]:
        engine = Engine(self.policy)
        judged: list[Verdict | Turned] = []
        for kind, part in groupby(zip(steps, times, strict=True), key=lambda timed: type(timed[0])):
            if kind is Turn:
                judged += [Turned(engine.apply(step.changes, now).disconnected, 0) for step, now in part]
                continue
            packets, moments = zip(*((step.packet, now) for step, now in part), strict=True)
            judged += map(engine.verdict, engine.process_frames(packets, moments, link_type=RAW))
        return judged

    def _turn(self, turn: Turn, now: int, by_engine: int, reference: Watched, kernel: Kernel) -> Turned:
        openers = change_kernel(kernel, reference.policy, turn.changes)
        counted = reference.apply(turn.changes, now).disconnected
        assert by_engine == counted, f"{turn.changes}: engine disconnects {by_engine}, reference {counted}"
        # Where the two are apart the kernel may have more connections, or fewer.
        apart = {key for (key, _), past in self._history.items() if past.apart}
        by_kernel = {_key(_parsed(opener), opener) for opener in openers}
        sure = len(by_kernel - apart)
        assert sure <= by_engine <= sure + len(apart), f"{turn.changes}: engine disconnects {by_engine}, kernel {sure}"
        self.seen.update(("change", type(change).__name__) for change in turn.changes)
        self.seen["disconnected"] += sure
        return Turned(by_engine, len(by_kernel))

    def _step(self, n: int, judged: Verdict, reference: Watched, kernel: Kernel) -> None:
        frame = self._steps[n].packet
        wanted = reference.process_frame(self._times[n], frame, link_type=RAW)
        if judged.verdict not in ("allow", "deny"):
            return      # no filter sees it
        packet = reference.packet
        assert packet is not None, frame.hex()
        key = _key(packet, frame)
        path = kernel.path(frame)
        pasts = [self._history.setdefault((key, side.instance.name), History()) for side in path]
        passed, stopped_by = kernel.judge(frame)
        self.packets += 1
        self.seen[judged.verdict, judged.reason] += 1
        self.seen["both sides"] += judged.egress is not None and judged.ingress is not None
        stopper, denier = stopped_by.instance.name if stopped_by else None, _denier(judged)
        spoken = {side.instance: side.reason for side in (wanted.egress, wanted.ingress) if side is not None}
        excuses = []
        for side, past in zip(path, pasts, strict=True):
            name = side.instance.name
            past.told.append((n, passed, stopper, wanted))
            past.reason, past.transition = spoken.get(name), reference.transitions.get(name)
            past.unanswered = name in reference.unanswered
            excuses.append([name for name, d in self.differences.items() if d.here(packet, past)])
        agreed = len(path)
        if stopper != denier:
            agreed = next(n for n, side in enumerate(path) if side.instance.name in (stopper, denier))
            excuse = next(iter((*excuses[agreed], *sorted(pasts[agreed].apart))), None)
            if excuse is None:
                raise AssertionError(_account(self._steps, self._times, pasts[agreed], judged))
            self.hits[excuse] += 1
            # One that had its cause earlier has parted them.
            if excuse in excuses[agreed] and not DIFFERENCES[excuse].parts:
                DIFFERENCES[excuse].mend(packet, path[agreed])
                agreed += 1
            # One of the sides after it has seen the packet, the kernel's or the engine's.
            for past in pasts[agreed:]:
                past.apart.add(excuse)
                past.parted = True
        # The predicates went by what the reference says.
        assert _words(judged) == _words(wanted), _account(self._steps, self._times, pasts[0], judged)
        for past in pasts[:agreed]:
            _remember(past, packet)
        for past, names in zip(pasts, excuses, strict=True):
            past.apart.update(name for name in names if DIFFERENCES[name].parts)


def _parsed(frame: bytes) -> Packet:
    packet = parse_frame(frame, len(frame), RAW)
    assert isinstance(packet, Packet), frame.hex()
    return packet


def _key(packet: Packet, frame: bytes) -> Hashable:
    flow = flow_of(packet) or quoted_flow(packet)
    return flow.key if flow is not None else frame


def _denier(verdict: Verdict) -> str | None:
    """Whose filter denied the packet."""
    return next((s.instance for s in (verdict.egress, verdict.ingress) if s and s.verdict == "deny"), None)


def _words(verdict: Verdict | PacketVerdict) -> tuple[Any, ...]:
    sides = [s and (s.instance, s.verdict, s.reason, s.rule) for s in (verdict.egress, verdict.ingress)]
    return verdict.verdict, verdict.reason, *sides


def _account(steps: Sequence[Step | Turn], times: Sequence[int], past: History, verdict: Verdict) -> str:
    """The last packets of a key, and the changes between them, for a failure's message."""
    lines = [f"engine: {verdict}"]
    told = past.told[-20:]
    frames = {n: step.packet for n, step in enumerate(steps) if isinstance(step, Step)}
    changes = [(n, step.changes) for n, step in enumerate(steps) if isinstance(step, Turn)]
    for before, (n, passed, stopped_by, wanted) in zip((0, *(n for n, *_ in told)), told, strict=False):
        lines += [f"step {turn + 1:6} {changed}" for turn, changed in changes if before < turn < n]
        packet = _parsed(frames[n])
        lines.append(
            f"step {n + 1:6} {(times[n] - START) // SECOND:6} s {packet.src} > {packet.dst} proto {packet.protocol} "
            f"flags {packet.tcp_flags:02x} type {packet.icmp_type}: {wanted.verdict} {wanted.reason} "
            f"{wanted.tcp_transition}; kernel {'passed' if passed else f'stopped by {stopped_by}'}"
        )
    return "\n".join([*lines, frames[told[-1][0]].hex()])


def _remember(past: History, packet: Packet) -> None:
    if packet.protocol == TCP and (past.transition is not None or past.reason == "disconnected"):
        _remember_end(past, packet)
    if past.transition is None or past.reason not in ("rule", "established"):
        return
    before, event, after = past.transition
    if before != "SS" and after == "SS":
        past.finished = past.half_open = False
        # Linux may go on with the connection before, perhaps the other way round.
        past.parted = past.parted or bool(past.apart)
    if (before, event) == ("SS", "reply ack"):
        past.half_open = True
    if not past.parted:
        # Both in one state, with one deadline again.
        past.apart -= {name for name, moves in TOGETHER_AGAIN.items() if (before, after) in moves}
    if after == "FW":
        past.finished = True
    past.last_event = event


def _remember_end(past: History, packet: Packet) -> None:
    if packet.can_open and past.reason == "rule":
        past.fins, past.reset = 0, False
    past.fins += bool(packet.tcp_flags & FIN)
    past.reset = past.reset or bool(packet.tcp_flags & RST)
