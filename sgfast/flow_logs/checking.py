"""Compares flow logs with a policy: which records' ACCEPT or REJECT differs from the policy's verdict.

A record says neither who opened the connection nor, in the default formats, at which end's interface it was recorded.

*Interface.* An interface belongs to the instance of that name. Otherwise it belongs to the one instance that all
records of the interface so far have in common, or to the only instance among the record's two addresses.

*Opener.* A record is either in the opener's direction, or it is a reply under a stateful filter (SPEC 4.12) and judged
by the rules for the packet it replies to. If both readings give the same verdict, that is the verdict. Otherwise the
record waits for an accepted record of the other direction within the connection's timeout (SPEC 5.2). The opener is
then, in this order: the end that sent the SYN according to AWS's tcp-flags; the end with the ephemeral port, if only
one end has one; the end whose record starts earlier; the end whose record comes first in the log. If no such record
arrives, the sender is the opener. The exception is a sender that the rules deny near the beginning of the log: then the
ports decide, if they can, as SPEC 9.3 does for captures.

*Undecided.* Records have no ICMP types and, by default, no TCP flags. They also REJECT packets that no rule applies to:
packets of an expired connection, later fragments. Such records are ``undecided``, each with its cause.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sgfast.compiler import CompiledPolicy, compile_policy
from sgfast.flow_logs.records import FlowLog, Record
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, UDP, Policy

#: How long a record waits for records of the other direction, in log seconds: twice the clouds' longest interval.
PATIENCE_SECONDS = 1200
#: Memory limits: remembered connections, waiting records, cached verdicts, interfaces.
MOST_CONVERSATIONS = 1 << 17
MOST_WAITING = 1 << 16
MOST_VERDICTS = 1 << 17
MOST_INTERFACES = 1 << 16
#: How many disagreements are listed one by one.
LISTED = 1000

_FIRST_USUAL, _FIRST_EPHEMERAL = 1024, 32768
#: The only service whose server opens connections to its clients.
_FTP_DATA = 20
_SYN, _ACK = 2, 16

#: ICMP types that cannot open a connection: errors (SPEC 4.6) and replies (SPEC 5.6).
_ICMP_NO_OPENERS = {4: {3, 4, 5, 11, 12, 0, 14, 16, 18}, 6: {*range(128), 129}}
_DHCP = {(68, 67), (67, 68), (546, 547), (547, 546)}


class Judgement(NamedTuple):
    """The rules' verdict on an opener. ``sure`` is false if an ICMP verdict depends on the type, which records lack."""

    allowed: bool
    reason: str
    rule: str | None
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Disagreement:
    file: str
    record: Record
    instance: str
    direction: Literal["inbound", "outbound"]
    #: Whether the record was taken as the opener's direction or as the reply.
    role: Literal["opener", "reply"]
    #: The policy's verdict and reason; ``rule`` is the winning rule, if any.
    verdict: Literal["allow", "deny"]
    reason: str
    rule: str | None


@dataclass
class Checked:
    """The result. Counts are of records; ``packets`` and ``bytes`` are those of disagreeing records."""

    policy: Policy
    logs: tuple[str, ...]
    records: int = 0
    agreeing: int = 0
    disagreeing: int = 0
    #: Number of records by cause.
    undecided: Counter[str] = field(default_factory=Counter)
    out_of_scope: Counter[str] = field(default_factory=Counter)
    nodata: int = 0
    skipdata: int = 0
    broken_lines: int = 0
    complaints: list[str] = field(default_factory=list)
    #: Where reading of a log ended early.
    damage: list[str] = field(default_factory=list)
    packets: int = 0
    bytes: int = 0
    #: In the order of logs and lines; at most ``LISTED``.
    disagreements: list[Disagreement] = field(default_factory=list)
    first_second: int | None = None
    last_second: int | None = None


class _Conversation:
    """What the log has said so far about one 5-tuple, in both directions, at one instance."""

    __slots__ = ("accepted", "accepted_waiting", "initiator", "is_past", "last_end", "rejected", "rejected_waiting")

    def __init__(self, is_past: bool) -> None:
        #: By way (0: from the lower end), the start and number of the first accepted record.
        self.accepted: list[tuple[int, int] | None] = [None, None]
        self.rejected = [False, False]
        self.initiator: int | None = None
        self.last_end = 0
        #: An earlier connection with this tuple has expired.
        self.is_past = is_past
        #: Apart, or every further record of a conversation would go through all that wait.
        self.accepted_waiting: deque[_Waiting] = deque()
        self.rejected_waiting: deque[_Waiting] = deque()


class _Waiting:
    __slots__ = ("as_opener", "as_reply", "conversation", "deadline", "done", "inbound", "instance", "number", "place",
                 "record", "way")  # fmt: skip

    def __init__(
        self, number: int, place: tuple[int, str], record: Record, instance: int, inbound: bool, way: int,
        conversation: _Conversation, as_opener: Judgement, as_reply: Judgement,
    ) -> None:  # fmt: skip
        #: Of the record, among all records read.
        self.number = number
        self.place, self.record, self.instance, self.inbound, self.way = place, record, instance, inbound, way
        self.conversation, self.as_opener, self.as_reply = conversation, as_opener, as_reply
        self.deadline = record.end + PATIENCE_SECONDS
        self.done = False


def check_logs(
    policy: Policy, logs: Iterable[str], *, vpc: str | None = None, progress: Callable[[], None] | None = None
) -> Checked:
    """Check ``logs`` (paths; ``-`` is standard input), read once and in order. Raises PolicyError and FlowLogError."""
    paths = tuple(logs)
    checker = _Checker(policy, compile_policy(policy, vpc), paths)
    for number, path in enumerate(paths):
        log = FlowLog(path)
        for record in log:
            checker.take((number, log.name), record)
            if progress is not None and not checker.result.records & 1023:
                progress()
        checker.end_log(log)
    return checker.finish()


class _Checker:
    def __init__(self, policy: Policy, compiled: CompiledPolicy, logs: tuple[str, ...]) -> None:
        self.result = Checked(policy, logs)
        self._policy = policy
        self._compiled = compiled
        self._classifier = compiled.classifier
        self._numbers = {instance.name: n for n, instance in enumerate(compiled.instances)}
        #: For interfaces not named after an instance: the instances they may belong to.
        self._interfaces: dict[str, frozenset[int]] = {}
        self._verdicts: dict[tuple[object, ...], Judgement] = {}
        self._conversations: OrderedDict[tuple[object, ...], _Conversation] = OrderedDict()
        self._waiting: deque[_Waiting] = deque()
        self._icmp_keys = {4: _icmp_keys(policy, 4), 6: _icmp_keys(policy, 6)}
        #: Instances with a connection other than ICMP, which ICMP errors may be about.
        self._busy: set[int] = set()
        self._found: list[tuple[int, int, Disagreement]] = []
        timeouts = policy.settings.timeouts
        # Times are in whole seconds, so a difference of one may be less than a second.
        self._lifetime = {TCP: timeouts.tcp_established + 1, ICMP: timeouts.icmp + 1, ICMPV6: timeouts.icmp + 1}
        self._other_lifetime = timeouts.bidirectional + 1

    def take(self, place: tuple[int, str], record: Record) -> None:
        result = self.result
        result.records += 1
        result.first_second = record.start if result.first_second is None else min(result.first_second, record.start)
        result.last_second = record.end if result.last_second is None else max(result.last_second, record.end)
        self._stop_waiting(record.start)
        if (
            record.protocol == UDP and (record.sport, record.dport) in _DHCP
            and self._policy.settings.infrastructure == "exempt"
        ):  # fmt: skip
            result.out_of_scope["exempt: DHCP"] += 1
            return
        found = self._whose(record)
        if found is None:
            return
        instance, inbound = found
        peer = record.src if inbound else record.dst
        as_opener = self._judge(instance, inbound, peer, record.protocol, record.dport)
        as_reply = self._judge(instance, not inbound, peer, record.protocol, record.sport)
        way = int((record.src, record.sport) > (record.dst, record.dport))
        conversation = self._conversation(record, instance, way)
        item = _Waiting(result.records, place, record, instance, inbound, way, conversation, as_opener, as_reply)
        if record.accepted:
            self._take_accepted(item)
        else:
            self._take_rejected(item)

    # The record's instance

    def _whose(self, record: Record) -> tuple[int, bool] | None:
        """The number of the record's instance, and whether the record is inbound to it; None if it was counted as
        something else.
        """
        owner = self._classifier.owner_of
        sender, receiver = owner(record.src), owner(record.dst)
        named = self._numbers.get(record.interface)
        if record.direction is not None and named is None:
            named = receiver if record.direction == "ingress" else sender
        outside = ""
        if sender < 0 and receiver < 0:
            outside = "neither end is an instance"
        elif sender == receiver:
            outside = "both ends are the same instance"
        elif named is not None:
            if named >= 0 and named in (sender, receiver):
                return named, named == receiver
            outside = "neither end is the interface's instance"
        if outside:
            self.result.out_of_scope[outside] += 1
            return None
        if sender < 0 or receiver < 0:
            if record.interface:
                self._narrow(record.interface, frozenset((max(sender, receiver),)))
            return max(sender, receiver), receiver >= 0
        mine = self._narrow(record.interface, frozenset((sender, receiver))) if record.interface else frozenset()
        if len(mine) != 1 or not mine <= {sender, receiver}:
            self.result.undecided["both ends are instances, and it is unknown whose interface this is"] += 1
            return None
        (instance,) = mine
        return instance, instance == receiver

    def _narrow(self, interface: str, ends: frozenset[int]) -> frozenset[int]:
        before = self._interfaces.get(interface)
        if before is None and len(self._interfaces) >= MOST_INTERFACES:
            return frozenset()
        after = self._interfaces[interface] = ends if before is None else before & ends
        return after

    # The rules' verdict

    def _judge(self, instance: int, inbound: bool, peer: bytes, protocol: int, port: int) -> Judgement:
        """Judge an opener that enters or leaves the instance."""
        key = instance, inbound, peer, protocol, port
        found = self._verdicts.get(key)
        if found is None:
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            found = self._verdicts[key] = self._judge_anew(instance, inbound, peer, protocol, port)
        return found

    def _judge_anew(self, instance: int, inbound: bool, peer: bytes, protocol: int, port: int) -> Judgement:
        other = self._classifier.owner_of(peer)
        here = self._compiled.instances[instance]
        if other >= 0 and not self._policy.connected(here.vpc, self._compiled.instances[other].vpc):
            return Judgement(False, "vpc-isolated", None)
        family = 4 if len(peer) == 4 else 6
        if protocol != (ICMP if family == 4 else ICMPV6):
            return self._by_rule(self._classifier.rule_for(instance, inbound, peer, protocol, port))
        kinds = {self._classifier.rule_for(instance, inbound, peer, protocol, key) for key in self._icmp_keys[family]}
        found = sorted(map(self._by_rule, kinds), key=lambda judgement: not judgement.allowed)
        return found[0]._replace(sure=found[0].allowed == found[-1].allowed)

    def _by_rule(self, number: int) -> Judgement:
        if number < 0:
            return Judgement(False, "no-rule", None)
        rule = self._compiled.rules[number]
        return Judgement(rule.action == "allow", "rule" if rule.action == "allow" else "deny-rule", rule.id)

    # The opener

    def _conversation(self, record: Record, instance: int, way: int) -> _Conversation:
        low, high = (record.src, record.sport), (record.dst, record.dport)
        key = instance, record.protocol, *((high, low) if way else (low, high))
        known = self._conversations.get(key)
        is_past = False
        if known is not None and any(known.accepted) and record.start > known.last_end + self._timeout(record):
            self._settle_all(known)
            known, is_past = None, True
        if known is None:
            known = self._conversations[key] = _Conversation(is_past)
            if len(self._conversations) > MOST_CONVERSATIONS:
                _, oldest = self._conversations.popitem(last=False)
                self._settle_all(oldest)
        self._conversations.move_to_end(key)
        return known

    def _timeout(self, record: Record) -> float:
        return self._lifetime.get(record.protocol, self._other_lifetime)

    def _take_accepted(self, item: _Waiting) -> None:
        record, conversation = item.record, item.conversation
        if conversation.accepted[item.way] is None:
            conversation.accepted[item.way] = record.start, self.result.records
        conversation.last_end = max(conversation.last_end, record.end)
        if conversation.initiator is None:
            conversation.initiator = self._initiator(item)
        if item.as_opener.allowed and item.as_reply.allowed:
            self._agree(item)
        elif conversation.initiator is not None or not (_is_icmp(record) or item.as_opener.allowed
                                                        or item.as_reply.allowed):  # fmt: skip
            self._settle(item)
        else:
            self._wait(item)
        if conversation.initiator is not None or conversation.rejected_waiting:
            self._settle_all(conversation, decided_only=conversation.initiator is None)

    def _initiator(self, item: _Waiting) -> int | None:
        """The opener's way, if known by now."""
        record, (low, high) = item.record, item.conversation.accepted
        if record.tcp_flags and record.tcp_flags & _SYN:
            return 1 - item.way if record.tcp_flags & _ACK else item.way
        if low is None or high is None:
            return None
        by_ports = _by_ports(record, item.way)
        if by_ports is not None:
            return by_ports
        return int(high < low)

    def _take_rejected(self, item: _Waiting) -> None:
        conversation = item.conversation
        if not item.as_opener.allowed:
            conversation.rejected[item.way] = True
            self._agree(item)
            self._settle_all(conversation, decided_only=True)
        elif self._is_explained(item):
            self._agree(item)
        else:
            self._wait(item)

    def _is_explained(self, item: _Waiting) -> bool:
        """Whether a REJECT that the rules do not explain has another cause: a connection existed, or none could open.
        """
        conversation = item.conversation
        return conversation.is_past or any(conversation.accepted) or conversation.rejected[1 - item.way]

    # Deciding

    def _wait(self, item: _Waiting) -> None:
        self._waiting_like(item).append(item)
        self._waiting.append(item)

    def _waiting_like(self, item: _Waiting) -> deque[_Waiting]:
        """Those of the item's conversation and action, in order."""
        conversation = item.conversation
        return conversation.accepted_waiting if item.record.accepted else conversation.rejected_waiting

    def _stop_waiting(self, now: int) -> None:
        while self._waiting and (
            self._waiting[0].done or self._waiting[0].deadline < now or len(self._waiting) > MOST_WAITING
        ):
            item = self._waiting.popleft()
            if not item.done:
                # Records wait in order, so this is the first one of its queue.
                self._waiting_like(item).popleft()
                self._settle(item)

    def _settle_all(self, conversation: _Conversation, *, decided_only: bool = False) -> None:
        """Settle the waiting records; with ``decided_only``, only rejected records that are now explained."""
        rejected = conversation.rejected_waiting
        if decided_only:
            settled = [item for item in rejected if self._is_explained(item)]
            conversation.rejected_waiting = deque(item for item in rejected if not self._is_explained(item))
        else:
            settled = sorted((*conversation.accepted_waiting, *rejected), key=lambda item: item.number)
            conversation.accepted_waiting.clear()
            rejected.clear()
        for item in settled:
            self._settle(item)

    def _settle(self, item: _Waiting) -> None:
        """Decide with what is known by now."""
        item.done = True
        if item.record.accepted:
            self._settle_accepted(item)
        elif self._is_explained(item):
            self._agree(item)
        else:
            self._settle_rejected(item)

    def _settle_accepted(self, item: _Waiting) -> None:
        record, conversation = item.record, item.conversation
        both_ways = None not in conversation.accepted
        if _is_icmp(record) and not both_ways and not item.as_opener.allowed and item.instance in self._busy:
            self._undecided("ICMP that no rule allows: may be an error about a connection")
            return
        initiator = conversation.initiator
        if initiator is None:
            initiator = item.way
            first = self.result.first_second or 0
            if not item.as_opener.allowed and record.start < first + self._timeout(record):
                by_ports = _by_ports(record, item.way)
                initiator = item.way if by_ports is None else by_ports
            conversation.initiator = initiator
        judged = item.as_opener if initiator == item.way else item.as_reply
        if judged.allowed:
            self._agree(item)
        else:
            self._disagree(item, "opener" if initiator == item.way else "reply", judged)

    def _settle_rejected(self, item: _Waiting) -> None:
        record = item.record
        if _is_icmp(record):
            # Records have no ICMP type: it may be a reply without a query or an error without a connection.
            self._undecided("rejected ICMP: may be of a type that no rule applies to")
        elif record.protocol in PORT_PROTOCOLS and not (record.sport or record.dport):
            self._undecided("rejected without ports: later fragments, or malformed packets")
        elif record.tcp_flags is not None and record.protocol == TCP and not record.tcp_flags & _SYN:
            self._undecided("rejected TCP without a SYN: packets of an expired connection")
        elif _by_ports(record, item.way) == 1 - item.way:
            if item.as_reply.allowed:
                self._undecided("rejected, from a service's port: may be of an expired connection")
            else:
                self._agree(item)
        else:
            self._disagree(item, "opener", item.as_opener)

    def _agree(self, item: _Waiting) -> None:
        self.result.agreeing += 1
        if item.record.accepted and not _is_icmp(item.record):
            self._busy.add(item.instance)

    def _undecided(self, why: str) -> None:
        self.result.undecided[why] += 1

    def _disagree(self, item: _Waiting, role: Literal["opener", "reply"], judged: Judgement) -> None:
        record, result = item.record, self.result
        result.disagreeing += 1
        result.packets += record.packets
        result.bytes += record.bytes
        number, name = item.place
        if len(self._found) >= 2 * LISTED:
            self._found = sorted(self._found, key=lambda found: found[:2])[:LISTED]
        self._found.append((number, record.line, Disagreement(
            name, record, self._compiled.instances[item.instance].name, "inbound" if item.inbound else "outbound", role,
            "allow" if judged.allowed else "deny", judged.reason, judged.rule,
        )))  # fmt: skip

    # The end

    def end_log(self, log: FlowLog) -> None:
        result = self.result
        result.nodata += log.nodata
        result.skipdata += log.skipdata
        result.broken_lines += log.broken_lines
        result.complaints += log.complaints
        if log.damage is not None:
            result.damage.append(log.damage)

    def finish(self) -> Checked:
        for conversation in self._conversations.values():
            self._settle_all(conversation)
        while self._waiting:
            item = self._waiting.popleft()
            if not item.done:
                self._settle(item)
        self._found.sort(key=lambda found: found[:2])
        self.result.disagreements = [disagreement for _, _, disagreement in self._found[:LISTED]]
        return self.result


def _by_ports(record: Record, way: int) -> int | None:
    """The opener's way, if the ports distinguish the service from an ephemeral port."""
    if record.protocol == TCP and (record.sport == _FTP_DATA) != (record.dport == _FTP_DATA):
        return way if record.sport == _FTP_DATA else 1 - way
    for border in (_FIRST_USUAL, _FIRST_EPHEMERAL):
        sends_from_service, sends_to_service = record.sport < border, record.dport < border
        if sends_from_service != sends_to_service:
            return 1 - way if sends_from_service else way
    return None


def _is_icmp(record: Record) -> bool:
    return record.protocol == (ICMP if len(record.src) == 4 else ICMPV6)


def _icmp_keys(policy: Policy, family: Literal[4, 6]) -> list[int]:
    """Keys (as in rule tables) of ICMP types and codes that can open a connection, one for each kind that rules
    distinguish.
    """
    protocol = ICMP if family == 4 else ICMPV6
    named = {8 if family == 4 else 128: {0}}
    for group in policy.security_groups:
        for rule in group.rules:
            if rule.ethertype == family and rule.protocol == protocol and rule.icmp_type is not None:
                named.setdefault(rule.icmp_type, {0}).add(rule.icmp_code or 0)
    keys = []
    for kind, codes in named.items():
        if kind not in _ICMP_NO_OPENERS[family]:
            # A code that no rule names.
            codes.add(next(code for code in (255, 254, *range(256)) if code not in codes or len(codes) == 256))
            keys += [kind << 8 | code for code in codes]
    other = next((kind for kind in range(255, -1, -1) if kind not in named
                  and kind not in _ICMP_NO_OPENERS[family]), None)  # fmt: skip
    return keys if other is None else [*keys, other << 8]
