"""The engine: a policy, compiled, with a connection table. The library's centre."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from operator import index
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.compiler import CompiledPolicy, Compiler
from sgfast.core.accounting import AccountingPlane
from sgfast.core.base.frames import FrameBatch
from sgfast.core.check_one import SingleChecks
from sgfast.core.dataplane import MAX_JOBS
from sgfast.core.dtypes import HEADER_DTYPE, RESOLVED_DTYPE, RESULT_DTYPE
from sgfast.core.wire.link import LINK_TYPES
from sgfast.errors import ArgumentError, ArgumentTypeError
from sgfast.policy.changes import Change, RemoveInstance, apply_changes
from sgfast.policy.document import load_policy
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, Instance, Policy, Rule, Timeouts
from sgfast.policy.protocols import PROTOCOL_NUMBERS
from sgfast.policy.timestamps import MAX_TIME_NS

Mode = Literal["causal", "verbatim"]
Midstream = Literal["infer", "deny", "allow"]
Address = str | IPv4Address | IPv6Address

#: By number in a result: SPEC 10.2, 10.3.
VERDICTS = ("allow", "deny", "moot", "out-of-scope", "local", "exempt", "not-ip", "pending")
REASONS = (
    None, "rule", "established", "related", "inferred", "no-rule", "deny-rule", "invalid", "midstream",
    "disconnected", "table-full", "vpc-isolated", "malformed", "truncated", "fragment", "opener-denied",
)  # fmt: skip
#: The verdict of a fragment that came before its datagram's first one: ``Engine.resolved`` tells later (SPEC 9.4).
PENDING = VERDICTS.index("pending")
#: A side's verdict where there is no such side, or the packet never reached it.
NO_SIDE = 255

MODES: tuple[Mode, ...] = ("causal", "verbatim")
MIDSTREAMS: tuple[Midstream, ...] = ("deny", "infer", "allow")

_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}


@dataclass(frozen=True, slots=True)
class Side:
    """What one instance's filter said of a packet (SPEC 10.3)."""

    instance: str
    verdict: str
    reason: str
    rule: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a packet (SPEC 10.3). ``egress`` or ``ingress`` is None where no filter judged it."""

    verdict: str
    reason: str | None
    egress: Side | None = None
    ingress: Side | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict == "allow"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One rule's view of an opener, for :meth:`Engine.explain`."""

    rule: str
    group: str
    action: str
    priority: int
    matches: bool
    #: Why not, in words: ``protocol``, ``port``, ``peer``; empty where it matches.
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SideExplanation:
    """How one side's rules judge an opener. ``winner`` is None where none matches, which denies (SPEC 4.8)."""

    instance: str
    direction: str
    groups: tuple[str, ...]
    verdict: str
    reason: str
    winner: str | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a policy judges an opener, without any connection."""

    verdict: str
    reason: str | None
    sides: tuple[SideExplanation, ...]

    def __str__(self) -> str:
        lines = [self.verdict + (f" ({self.reason})" if self.reason else "")]
        for side in self.sides:
            lines.append(
                f"  {side.instance}, {side.direction}, groups {', '.join(side.groups)}: "
                f"{side.verdict} ({side.reason})" + (f" by {side.winner}" if side.winner else "")
            )
            for candidate in side.candidates:
                note = "matches" if candidate.matches else "other " + ", ".join(candidate.differs)
                lines.append(f"    {candidate.rule} [{candidate.action}, priority {candidate.priority}]: {note}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a change did (SPEC 6)."""

    #: Connections of which some side was live and is disconnected now; one between two instances counts once.
    disconnected: int
    #: Rule tables the new policy has, and how many of them had to be made.
    rule_tables: int
    rule_tables_built: int


def timeouts_ns(timeouts: Timeouts) -> tuple[int, ...]:
    """SPEC 5.2's timeouts in nanoseconds, at least one, in the order of their fields, as the data plane takes them."""
    return tuple(max(1, round(seconds * 10**9)) for seconds in astuple(timeouts))


def check_modes(mode: Mode, midstream: Midstream) -> None:
    """ArgumentError for a mode or a treatment of midstream packets that does not exist."""
    if mode not in MODES:
        raise ArgumentError(f"mode is {' or '.join(MODES)}, not {mode!r}")
    if midstream not in MIDSTREAMS:
        raise ArgumentError(f"midstream is {', '.join(MIDSTREAMS)}, not {midstream!r}")


def check_jobs(jobs: int) -> None:
    """ArgumentError for a number of threads that cannot be."""
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= MAX_JOBS:
        raise ArgumentError(f"jobs is 1 to {MAX_JOBS}, not {jobs!r:.80}")


class Engine:
    """Judges packets by a policy, remembering connections.

    ``policy``: a :class:`Policy`, or the path of a document. ``mode``: ``"verbatim"`` judges every packet as given,
    ``"causal"`` also knows what could not have followed a denied opener (SPEC 9.2). ``midstream``: what becomes of TCP
    packets of unknown connections (SPEC 9.3). ``vpc``: the VPC whose addresses the packets carry; None sees all of
    them (SPEC 7.1). ``jobs``: how many threads judge, 1 to 64; results are the same for any number,
    unless the connection table is full (or one of the report's: a million denied attempts or connections that were cut,
    65,536 lines of a list): which are forgotten for want of room then differs. With more than one, ``process`` and
    whatever asks for results waits for all of them. ``keep_flows`` and ``reporting`` are for replays,
    ``compiler`` has compiled, or numbered, for the same VPC before.

    Raises PolicyError for a policy that cannot be used, ArgumentError for an unknown option. One engine may be shared
    by threads: calls take turns, and nobody waits with the GIL. A child of ``fork`` may use its copy only if no thread
    was in a call at that moment, and with one job. MemoryError if there is no room for tables or threads.
    """

    def __init__(
        self,
        policy: Policy | str | os.PathLike[str],
        *,
        mode: Mode = "verbatim",
        midstream: Midstream = "deny",
        vpc: str | None = None,
        keep_flows: bool = False,
        reporting: bool = False,
        hash_key: Sequence[int] | None = None,
        compiler: Compiler | None = None,
        jobs: int = 1,
    ) -> None:
        check_modes(mode, midstream)
        check_jobs(jobs)
        self.policy = policy if isinstance(policy, Policy) else load_policy(policy)
        self.vpc = vpc
        self._compiler = Compiler(vpc) if compiler is None else compiler
        self.compiled: CompiledPolicy = self._compiler.compile(self.policy)
        self._changing = threading.Lock()
        self.mode: Mode = mode
        self.midstream: Midstream = midstream
        self.keep_flows = keep_flows
        self.reporting = reporting
        self.dataplane = AccountingPlane(
            self.compiled.classifier,
            causal=mode == "causal",
            midstream=MIDSTREAMS.index(midstream),
            timeouts_ns=timeouts_ns(self.policy.settings.timeouts),
            max_connections=self.policy.settings.max_connections,
            exempt=self.policy.settings.infrastructure == "exempt",
            keep_flows=keep_flows,
            reporting=reporting,
            secret=hash_key,
            jobs=jobs,
        )
        self._single = SingleChecks(self.dataplane, PROTOCOL_NUMBERS, _FLAGS)

    @property
    def rules(self) -> list[Rule]:
        """The rules by the number results carry."""
        return self.compiled.rules

    @property
    def instances(self) -> list[Instance]:
        """The instances by the number results carry."""
        return self.compiled.instances

    def process(self, packets: NDArray[Any] | FrameBatch) -> NDArray[Any]:
        """Judges packets in order, the earlier first.

        ``packets``: an array of ``HEADER_DTYPE`` (n,), or a ``FrameBatch`` of raw frames. Returns an array of
        ``RESULT_DTYPE`` (n,): ``verdict`` and ``reason`` are indices into ``VERDICTS`` and ``REASONS``; ``egress`` and
        ``ingress`` hold ``instance`` and ``rule`` (indices into ``Engine.instances`` and ``Engine.rules``, -1: none),
        ``verdict`` (``NO_SIDE``: no such side, or not reached) and ``reason``. Times are nanoseconds since the Unix
        epoch (SPEC 9.1), 146 years either way; later ones are taken as the last. Rows carry no hop limit (it is taken
        as 255) and no quotes: ICMP errors are judged as frames. A fragment whose datagram's first one has not come is
        ``PENDING``, without sides; :meth:`resolved` tells what became of it. Raises ValueError for another dtype.
        """
        if not isinstance(packets, FrameBatch) and np.ndim(packets) != 1:
            raise ArgumentError("packets are an array of one dimension, one row a packet")
        results = np.zeros(len(packets), dtype=RESULT_DTYPE)
        if isinstance(packets, FrameBatch):
            self.dataplane.process_frames(packets, results)
        else:
            self.dataplane.process_headers(np.ascontiguousarray(packets), results)
        return results

    def process_frames(
        self,
        frames: Sequence[bytes],
        times_ns: Sequence[int],
        *,
        wire_lengths: Sequence[int] | None = None,
        link_type: int = 1,
    ) -> NDArray[Any]:
        """Judges raw frames. Returns as :meth:`process` does.

        ``link_type``: a LINKTYPE_ number (1: Ethernet); ArgumentError for one that is not read (SPEC 3.1).
        """
        if link_type not in LINK_TYPES:
            raise ArgumentError(f"link type {link_type} is not read; those in sgfast.core.wire.link.LINK_TYPES are")
        return self.process(FrameBatch.from_frames(frames, times_ns, wire_lengths, link_type))

    def resolved(self, *, everything: bool = False) -> NDArray[Any]:
        """What became of ``PENDING`` packets since the last call (SPEC 9.4), by number.

        Returns an array of ``RESOLVED_DTYPE`` (n,): ``number``, of the packet, the engine's first being 1, and
        ``result``, a row as of :meth:`process`. A packet waits for 30 seconds at most, or 65,536 packets;
        ``everything``: none will come, so nothing waits any more. Of results that nobody asks for, the first 1,048,576
        are kept.
        """
        return self.dataplane.take_resolved(everything=everything)

    def apply(self, changes: Change | Iterable[Change], now_ns: int) -> Applied:
        """Changes the policy between two packets (SPEC 6); several changes are applied as one.

        ``now_ns``: when, on the packets' clock: connections whose time is up by then do not count as cut. Raises
        PolicyError for a change that is refused (SPEC 6.1), ArgumentError for a time that the clock does not reach;
        then nothing has changed. Packets that other threads judge meanwhile see the old policy or the new one, never a
        mixture.
        """
        changes = list(changes) if isinstance(changes, Iterable) else [changes]
        for change in changes:
            if not isinstance(change, Change):
                raise ArgumentTypeError(f"a change is one of the values in sgfast.policy.changes, not {change!r:.80}")
        try:
            now_ns = index(now_ns)
        except TypeError:
            raise ArgumentTypeError(f"now_ns is a whole number of nanoseconds, not {now_ns!r:.80}") from None
        if not -MAX_TIME_NS <= now_ns <= MAX_TIME_NS:
            raise ArgumentError(f"now_ns is within 146 years of 1970 (2**62 nanoseconds either way), not {now_ns}")
        with self._changing:
            changed = apply_changes(self.policy, changes)
            if changed.policy is self.policy:
                return Applied(0, self.compiled.rule_tables, 0)
            removed = [change.instance for change in changes if isinstance(change, RemoveInstance)]
            compiled = self._compiler.compile(changed.policy, removed)
            on_change = changed.policy.settings.on_change
            cut = np.zeros(len(compiled.instances), dtype=np.uint8)
            if on_change == "cut-inbound":
                # Whose number is gone, its connections are forgotten (SPEC 6.6).
                cut[compiled.members(changed.groups)] = 1
                cut[compiled.numbering.of_names(changed.movers)] = 1
            unmatched = on_change == "cut-unmatched" and not changed.only_words
            before = self.policy, self.compiled
            # First the names: what other threads judge from then on may have numbers that are new.
            self.policy, self.compiled = changed.policy, compiled
            try:
                disconnected = self.dataplane.change(compiled.classifier, cut, unmatched, now_ns)
            except MemoryError:
                self.policy, self.compiled = before
                raise
            return Applied(disconnected, compiled.rule_tables, compiled.rule_tables_built)

    def verdict(self, row: Any) -> Verdict:
        """One row of :meth:`process`'s result in words."""
        return Verdict(
            VERDICTS[row["verdict"]], REASONS[row["reason"]], self._side(row["egress"]), self._side(row["ingress"])
        )

    def _side(self, row: Any) -> Side | None:
        if row["verdict"] == NO_SIDE:
            return None
        reason = REASONS[row["reason"]]
        assert reason is not None
        return Side(
            self.instances[row["instance"]].name,
            VERDICTS[row["verdict"]],
            reason,
            self.rules[row["rule"]].id if row["rule"] >= 0 else None,
        )

    def check(
        self,
        src: Address,
        dst: Address,
        protocol: str | int,
        *,
        sport: int = 0,
        dport: int = 0,
        flags: str = "S",
        icmp_type: int = 0,
        icmp_code: int = 0,
        icmp_id: int = 0,
        time: float = 0.0,
    ) -> Verdict:
        """Judges one packet, and remembers the connection it opens or belongs to.

        ``protocol``: a name or number; ``flags``: of TCP, letters of ``FSRPAUEC``; ``time``: seconds on the clock that
        timeouts run by. An ICMP error quotes nothing here, so to stateful groups it is ``invalid``: give it as a frame.
        Raises ArgumentError for a packet that cannot be, TypeError for a number that is none.
        """
        found = self._single.check(src, dst, protocol, sport, dport, flags, icmp_type, icmp_code, icmp_id, time)
        if type(found) is Verdict:
            return found
        if found is not None:
            # A verdict that was kept stays right when the policy changes: so do the numbers in a row (Numbering).
            verdict = self.verdict(np.frombuffer(found, dtype=RESULT_DTYPE)[0])
            self._single.keep(found, verdict)
            return verdict
        # What is rare or wrong.
        if not abs(time) <= 2**33:
            raise ArgumentError(f"time is in seconds since the epoch, not {time}")
        row = header(
            src, dst, protocol, sport=sport, dport=dport, flags=flags, icmp_type=icmp_type, icmp_code=icmp_code,
            icmp_id=icmp_id, time_ns=round(time * 10**9),
        )  # fmt: skip
        return self.verdict(self.process(row)[0])

    def explain(
        self,
        src: Address,
        dst: Address,
        protocol: str | int,
        *,
        dport: int = 0,
        icmp_type: int = 0,
        icmp_code: int = 0,
    ) -> Explanation:
        """How the rules judge an opener, rule by rule, without touching any connection (SPEC 3.3, 3.6, 3.7, 4.8)."""
        row = header(src, dst, protocol, dport=dport, icmp_type=icmp_type, icmp_code=icmp_code)[0]
        number, version = int(row["protocol"]), int(row["family"])
        source, destination = ip_address(src), ip_address(dst)
        classifier = self.compiled.classifier
        sender = classifier.owner_of(source.packed)
        receiver = -1 if is_multicast(destination) else classifier.owner_of(destination.packed)
        if sender < 0 and receiver < 0:
            return Explanation("out-of-scope", None, ())
        if sender == receiver:
            return Explanation("local", None, ())
        instances = self.instances
        if min(sender, receiver) >= 0 and not self.policy.connected(instances[sender].vpc, instances[receiver].vpc):
            return Explanation("deny", "vpc-isolated", ())
        is_icmp = number == (ICMPV6 if version == 6 else ICMP)
        port_key = (icmp_type << 8 | icmp_code) if is_icmp else dport
        sides = []
        for instance, inbound, peer in ((sender, False, destination), (receiver, True, source)):
            if instance < 0:
                continue
            side = self._explain_side(instance, inbound, peer, number, port_key)
            sides.append(side)
            if side.verdict == "deny":
                break
        return Explanation(sides[-1].verdict, sides[-1].reason, tuple(sides))

    def _explain_side(
        self, instance: int, inbound: bool, peer: IPv4Address | IPv6Address, protocol: int, port_key: int
    ) -> SideExplanation:
        here = self.instances[instance]
        direction = "inbound" if inbound else "outbound"
        winner = self.compiled.classifier.rule_for(instance, inbound, peer.packed, protocol, port_key)
        candidates = []
        for group in self.policy.security_groups:
            if group.name not in here.security_groups:
                continue
            for rule in group.rules:
                if rule.direction == direction and rule.ethertype == peer.version:
                    differs = self.compiled.differences(rule, instance, peer, protocol, port_key)
                    candidates.append(
                        Candidate(rule.id, group.name, rule.action, rule.priority, not differs, tuple(differs))
                    )
        won = self.rules[winner] if winner >= 0 else None
        return SideExplanation(
            here.name,
            direction,
            here.security_groups,
            "allow" if won and won.action == "allow" else "deny",
            "no-rule" if won is None else "rule" if won.action == "allow" else "deny-rule",
            won.id if won else None,
            tuple(candidates),
        )


def is_multicast(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address can be no instance's, as a destination (SPEC 3.3)."""
    return address.is_multicast or address == ip_address("255.255.255.255")


def header(
    src: Address,
    dst: Address,
    protocol: str | int,
    *,
    sport: int = 0,
    dport: int = 0,
    flags: str = "S",
    icmp_type: int = 0,
    icmp_code: int = 0,
    icmp_id: int = 0,
    time_ns: int = 0,
    wire: int = 64,
) -> NDArray[Any]:
    """One packet as an array of ``HEADER_DTYPE`` (1,). Raises ArgumentError for a packet that cannot be, TypeError
    for a number that is none."""
    try:
        source, destination = ip_address(src), ip_address(dst)
    except ValueError as error:
        raise ArgumentError(str(error)) from None
    if source.version != destination.version:
        raise ArgumentError(f"{source} and {destination} are of different IP versions")
    number = PROTOCOL_NUMBERS.get(protocol.lower()) if isinstance(protocol, str) else index(protocol)
    if number is None or not 0 <= number <= 255:
        raise ArgumentError(f"no protocol {protocol!r}")
    if number == ICMP and source.version == 6 and isinstance(protocol, str):
        number = ICMPV6
    for name, value, top in (
        ("sport", sport, 65535), ("dport", dport, 65535), ("icmp_type", icmp_type, 255),
        ("icmp_code", icmp_code, 255), ("icmp_id", icmp_id, 65535),
    ):  # fmt: skip
        if not 0 <= index(value) <= top:
            raise ArgumentError(f"{name} is 0 to {top}, not {value}")
    unknown = set(flags.upper()) - set(_FLAGS)
    if unknown:
        raise ArgumentError(f"TCP flags are letters of {''.join(_FLAGS)}, not {''.join(sorted(unknown))}")
    row = np.zeros(1, dtype=HEADER_DTYPE)
    row["time_ns"] = time_ns
    row["wire"] = wire
    row["family"] = source.version
    width = 4 if source.version == 4 else 16
    row["src"][0, :width] = np.frombuffer(source.packed, dtype=np.uint8)
    row["dst"][0, :width] = np.frombuffer(destination.packed, dtype=np.uint8)
    row["protocol"] = number
    if number in PORT_PROTOCOLS:
        row["sport"], row["dport"], row["has_ports"] = sport, dport, 1
    if number == TCP:
        row["tcp_flags"] = sum(_FLAGS[letter] for letter in set(flags.upper()))
    if number == (ICMPV6 if source.version == 6 else ICMP):
        row["icmp_type"], row["icmp_code"], row["icmp_id"], row["has_icmp"] = icmp_type, icmp_code, icmp_id, 1
    return row


__all__ = [
    "HEADER_DTYPE", "NO_SIDE", "PENDING", "REASONS", "RESOLVED_DTYPE", "RESULT_DTYPE", "VERDICTS", "Engine",
    "Explanation", "FrameBatch", "Side", "Verdict", "header",
]  # fmt: skip
