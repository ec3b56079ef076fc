"""Add up the connections of a replay by initiator, responder and service, separately for answered ones and others."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import SgfastError
from sgfast.engine import REASONS, VERDICTS
from sgfast.policy.matching import Kind
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, UDP, Policy, Settings
from sgfast.policy.profiles import PROFILES
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.narrowest_rules import replay_narrowest_first
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.results import Names, Rows, Sinks
from sgfast.traffic.flow_logs.unsure_openers import UncertainConnections, UnsureOpeners

Progress = Callable[[int, int], None]

#: The maximum number of kinds of connections kept; connections of further kinds are only counted.
MOST_KINDS = 200_000
#: The maximum number of private addresses that may become instances.
MOST_HOSTS = 1 << 16
EXAMPLES = 3

#: A reason for which no rule is added: the ports of replies are those of clients, and rules for them are wide.
REPLY_DENIED = "a stateless group denies the reply, and no rules for replies are suggested"
#: Reasons for leaving out a connection without an answer. The second one: an answer might not be in the captures.
UNANSWERED, PERHAPS_ANSWERED = "unanswered", "perhaps answered, as an answer might not be in the captures"
REFUSED = "refused (RST or ICMP unreachable)"
#: Reasons for leaving out connections that either end may have opened (SPEC 10.30): both readings are listed.
EITHER_END = "nobody can tell who opened them: as ports, uses and times suggest"
OR_OTHER_END = "nobody can tell who opened them: the same, if the other end did"

_DENY = VERDICTS.index("deny")
_SILENT, _ANSWERED = 0, 1
#: The ICMPv6 type of router solicitations.
_SOLICITATION = 133

#: The columns by which rows are grouped.
_KIND_DTYPE = np.dtype([
    ("initiator", "u1", (16,)), ("responder", "u1", (16,)), ("instance", "<i4", (2,)), ("port", "<i4"),
    ("family", "u1"), ("protocol", "u1"), ("verdict", "u1"), ("reason", "u1"), ("answer", "u1"), ("is_free", "u1"),
    ("code", "u1"), ("spare", "u1"),
])  # fmt: skip


@dataclass(slots=True)
class TrafficTotals:
    """Observed traffic. Times are nanoseconds since the epoch; bytes are counted on the wire, in both directions.

    ``connections``: the number of connections.
    ``packets``: the number of packets.
    ``bytes``: the number of bytes on the wire.
    ``first_time_ns``: the time of the first packet.
    ``last_time_ns``: the time of the last packet.
    ``examples``: descriptions of a few of the connections.
    """

    connections: int = 0
    packets: int = 0
    bytes: int = 0
    first_time_ns: int | None = None
    last_time_ns: int | None = None
    examples: list[str] = field(default_factory=list)

    def add(self, other: TrafficTotals) -> None:
        """Add other traffic to this."""
        self.connections += other.connections
        self.packets += other.packets
        self.bytes += other.bytes
        firsts = [ns for ns in (self.first_time_ns, other.first_time_ns) if ns is not None]
        lasts = [ns for ns in (self.last_time_ns, other.last_time_ns) if ns is not None]
        self.first_time_ns, self.last_time_ns = min(firsts, default=None), max(lasts, default=None)
        self.examples += [text for text in other.examples if text not in self.examples]
        del self.examples[EXAMPLES:]


#: A function from a connection's verdict, reason and answer to the reason for leaving it out; None: must be allowed.
KindFilter = Callable[[int, int, int], str | None]


def all_answered(unanswered: bool) -> KindFilter:
    """Select answered connections in a replay that allows everything; with ``unanswered`` also unanswered ones."""

    def why_not(verdict: int, reason: int, answer: int) -> str | None:
        if verdict == _DENY:
            return f"denied whatever the rules: {REASONS[reason]}"
        if answer == _ANSWERED or (answer == _SILENT and unanswered):
            return None
        return UNANSWERED if answer == _SILENT else REFUSED

    return why_not


def would_break(unanswered: bool) -> KindFilter:
    """Select, of denied connections, those that were answered and that a rule may let through; with ``unanswered`` also
    those that nobody answered."""

    def why_not(verdict: int, reason: int, answer: int) -> str | None:
        if answer != _ANSWERED and not (answer == _SILENT and unanswered):
            return UNANSWERED if answer == _SILENT else REFUSED
        if REASONS[reason] == "reply-denied":
            return REPLY_DENIED
        return None if REASONS[reason] in ("no-rule", "deny-rule") else f"denied whatever the rules: {REASONS[reason]}"

    return why_not


def allowed_ones(verdict: int, reason: int, answer: int) -> str | None:
    """Select the connections that the replay's policy allows."""
    return f"denied by the policy: {REASONS[reason]}" if verdict == _DENY else None


def cannot_be_named(kind: Kind, first_port: int) -> str | None:
    """Return why only a rule for all protocols or ports would match; None if a narrower rule would."""
    if kind.protocol == (ICMPV6 if kind.family == 4 else ICMP):
        return "ICMP of the other IP version, which no rule can name"
    if kind.protocol in PORT_PROTOCOLS and kind.port is not None and kind.port < first_port:
        return f"port {kind.port}, which no rule can name"
    return None


def ports_or_types(flows: Rows) -> NDArray[np.int64]:
    """Return destination ports or ICMP types of FLOW_DTYPE rows; -1 for protocols without either."""
    # The ports are unsigned, and NumPy 2.5 refuses to combine unsigned numbers with -1.
    ports = np.where(flows["has_ports"] != 0, (flows["ports"] & 0xFFFF).astype(np.int64), -1)
    return np.where(_is_icmp(flows), flows["icmp"] >> 8, ports)


def _is_icmp(flows: Rows) -> NDArray[np.bool_]:
    """Return which rows are about ICMP of their IP version."""
    is_icmp: NDArray[np.bool_] = flows["protocol"] == np.where(flows["family"] == 6, ICMPV6, ICMP)
    return is_icmp


def ends_of(flows: Rows, dtype: np.dtype[Any]) -> Rows:
    """Return the ends and services of FLOW_DTYPE rows, as rows of a type with at least these fields."""
    ends = np.zeros(len(flows), dtype=dtype)
    for name in ("initiator", "responder", "instance", "family", "protocol"):
        ends[name] = flows[name]
    ends["port"] = ports_or_types(flows)
    return ends


def kind_of(row: Any, names: Sequence[str]) -> Kind:
    """Return the kind of a row of ``ends_of``. ``names`` are the names of instances by number."""
    length = 4 if row["family"] == 4 else 16
    initiator, responder = (row[end][:length].tobytes() for end in ("initiator", "responder"))
    egress, ingress = (names[number] if number >= 0 else None for number in row["instance"].tolist())
    port = int(row["port"])
    return Kind(initiator, responder, egress, ingress, int(row["protocol"]), None if port < 0 else port)


class Observer:
    """A ``FlowSink`` that adds up the connections to be allowed and those to be left out."""

    def __init__(self, why_not: KindFilter, settings: Settings) -> None:
        self.wanted: dict[Kind, TrafficTotals] = {}
        #: The connections left out, by reason and kind.
        self.left_out: dict[str, dict[Kind, TrafficTotals]] = {}
        #: The number of connections of kinds beyond ``MOST_KINDS``.
        self.uncounted = 0
        self._why_not = why_not
        #: Whether packets that instances send as clients of infrastructure need no rule at the sender (SPEC 3.11).
        self._by_role = settings.infrastructure == "by-role"
        self._first_port = PROFILES[settings.profile].first_port
        self._names: Sequence[str] = ()
        self._kinds = 0

    def begin(self, names: Names) -> None:
        self._names = names.instances

    def write(self, flows: Rows) -> None:
        if not len(flows):
            return
        keys = self._keys_of(flows)
        # Equal rows are added up. The first of them gives the kind.
        _, firsts, group_of = np.unique(keys.view(f"V{_KIND_DTYPE.itemsize}"), return_index=True, return_inverse=True)
        group_of = group_of.reshape(-1)
        counts = np.bincount(group_of, minlength=len(firsts))
        sums = np.zeros((2, len(firsts)), dtype=np.uint64)
        for n, name in enumerate(("packets", "bytes")):
            np.add.at(sums[n], group_of, flows[name].sum(axis=1))
        first_ns = np.full(len(firsts), np.iinfo(np.int64).max)
        last_ns = np.full(len(firsts), np.iinfo(np.int64).min)
        np.minimum.at(first_ns, group_of, flows["first_ns"])
        np.maximum.at(last_ns, group_of, flows["last_ns"])
        for n in np.argsort(firsts, kind="stable").tolist():
            evidence = TrafficTotals(
                int(counts[n]), int(sums[0, n]), int(sums[1, n]), int(first_ns[n]), int(last_ns[n])
            )
            self._take(keys[firsts[n]], evidence)

    def _keys_of(self, flows: Rows) -> Rows:
        """Return the columns by which rows are grouped."""
        keys = ends_of(flows, _KIND_DTYPE)
        for name in ("verdict", "reason", "answer"):
            keys[name] = flows[name]
        if self._by_role:
            is_six = flows["family"] == 6
            is_dhcp = (flows["protocol"] == UDP) & (flows["ports"] == np.where(is_six, 546 << 16 | 547, 68 << 16 | 67))
            keys["is_free"] = is_dhcp | ((flows["protocol"] == ICMPV6) & is_six & (keys["port"] == _SOLICITATION))
        return keys

    def _kind_of(self, row: Any) -> Kind:
        return kind_of(row, self._names)._replace(is_free=bool(row["is_free"]))

    def _take(self, row: Any, evidence: TrafficTotals) -> None:
        kind = self._kind_of(row)
        why = self._why_not(int(row["verdict"]), int(row["reason"]), int(row["answer"]))
        why = why or cannot_be_named(kind, self._first_port)
        kinds = self.wanted if why is None else self.left_out.setdefault(why, {})
        totals = kinds.get(kind)
        if totals is not None:
            totals.add(evidence)
        elif self._kinds < MOST_KINDS:
            self._kinds += 1
            evidence.examples.append(kind.text())
            kinds[kind] = evidence
        else:
            self.uncounted += evidence.connections


class BreakObserver(Observer):
    """An ``Observer`` of denied connections, with their ICMP codes. It only notes the kinds of allowed connections, if
    these kinds are ``watched`` and would break if they were denied."""

    def __init__(self, unanswered: bool, settings: Settings, watched: Container[Kind]) -> None:
        super().__init__(would_break(unanswered), settings)
        self._answers = (_ANSWERED, _SILENT) if unanswered else (_ANSWERED,)
        self._watched = watched
        self.allowed: set[Kind] = set()

    def write(self, flows: Rows) -> None:
        is_needed = (flows["verdict"] == _DENY) | np.isin(flows["answer"], self._answers)
        super().write(flows[is_needed])

    def _keys_of(self, flows: Rows) -> Rows:
        keys = super()._keys_of(flows)
        keys["code"] = np.where(_is_icmp(flows), flows["icmp"] & 0xFF, 0)
        return keys

    def _kind_of(self, row: Any) -> Kind:
        kind = super()._kind_of(row)
        is_icmp = kind.protocol == (ICMP if kind.family == 4 else ICMPV6)
        return kind._replace(code=int(row["code"])) if is_icmp else kind

    def _take(self, row: Any, evidence: TrafficTotals) -> None:
        if row["verdict"] == _DENY:
            super()._take(row, evidence)
        elif (kind := self._kind_of(row)) in self._watched:
            self.allowed.add(kind)


def observe(
    policy: Policy, captures: Sequence[str | os.PathLike[str]], observer: Observer, options: ReplayOptions,
    progress: Progress | None,
) -> ReplayResult:  # fmt: skip
    """Replay captures. The observer has their connections by kind, in order of time."""
    result = replay_narrowest_first(policy, captures, options, Sinks(flows=(observer,)), progress)
    if result.openers is not None:
        _leave_out_unknown(observer, result.openers)
    # The order in which connections end differs from process to process, so they are sorted here.
    observer.wanted = _in_order(observer.wanted)
    if UNANSWERED in observer.left_out and not result.evidence.carries("answers"):
        observer.left_out[PERHAPS_ANSWERED] = observer.left_out.pop(UNANSWERED)
    observer.left_out = {reason: _in_order(kinds) for reason, kinds in sorted(observer.left_out.items())}
    return result


def _leave_out_unknown(observer: Observer, openers: UnsureOpeners) -> None:
    """Leave out the connections of which nobody knows who opened them, and list both readings."""
    likelier: dict[Kind, TrafficTotals] = {}
    less_likely: dict[Kind, TrafficTotals] = {}
    unsure_totals = [(unsure, _totals(unsure)) for unsure in openers.differing if unsure.answered]
    for unsure in openers.same.values():
        kind = unsure.likelier.kind
        # Most kinds of the observer have no ICMP code.
        known_kinds = [kind, kind._replace(code=None)]
        unsure_totals += [
            (unsure, observer.wanted.pop(known_kind)) for known_kind in known_kinds
            if known_kind in observer.wanted and 0 < observer.wanted[known_kind].connections <= unsure.connections
        ]
    for unsure, totals in unsure_totals:
        likelier.setdefault(unsure.likelier.kind, TrafficTotals()).add(totals)
        less_likely.setdefault(unsure.other.kind, TrafficTotals()).add(totals)
    if unsure_totals:
        observer.left_out |= {EITHER_END: likelier, OR_OTHER_END: less_likely}


def _totals(unsure: UncertainConnections) -> TrafficTotals:
    return TrafficTotals(unsure.connections, unsure.packets, unsure.bytes, unsure.first_time_ns, unsure.last_time_ns)


def _in_order(kinds: dict[Kind, TrafficTotals]) -> dict[Kind, TrafficTotals]:
    """Sort kinds by the time when they were first seen."""
    return dict(sorted(kinds.items(), key=lambda item: (
        item[1].first_time_ns or 0, item[0].initiator, item[0].responder, item[0].protocol, item[0].port or 0
    )))  # fmt: skip


class PrivateHosts:
    """A ``PacketSink`` that collects the private addresses (RFC 1918, RFC 4193) that send packets.

    Raises SgfastError for more than ``MOST_HOSTS`` of them.
    """

    #: Packets that stand for several do not matter.
    takes_records = True

    def __init__(self) -> None:
        self._seen_keys: set[bytes] = set()

    def begin(self, names: Names) -> None:
        pass

    def write(self, headers: Rows, results: Rows) -> None:
        source = headers["src"]
        first, second = source[:, 0], source[:, 1]
        is_private = (first == 10) | ((first == 172) & (second >> 4 == 1)) | ((first == 192) & (second == 168))
        four = source[(headers["family"] == 4) & is_private, :4]
        six = source[(headers["family"] == 6) & (first & 0xFE == 0xFC)]
        for rows in (four, six):
            if len(rows):
                unique = np.unique(np.ascontiguousarray(rows).view(f"V{rows.shape[1]}"))
                self._seen_keys.update(address.tobytes() for address in unique)
        if len(self._seen_keys) > MOST_HOSTS:
            raise SgfastError(
                f"the captures have more than {MOST_HOSTS} private addresses; name the instances with --instances"
            )

    def addresses(self) -> list[IPv4Address | IPv6Address]:
        """Return the addresses in order, IPv4 first."""
        return [ip_address(packed) for packed in sorted(self._seen_keys, key=lambda packed: (len(packed), packed))]
