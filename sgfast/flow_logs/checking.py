"""Compare flow logs with a policy: find records whose ACCEPT or REJECT differs from the policy's verdict.

A record does not say which end opened the connection, nor, in the default formats, at whose interface it was recorded.

*Interface.* An interface belongs to the instance of that name or id. Otherwise it belongs to the one instance that is
an end of all records of the interface so far, or to the record's only end that is an instance.

*Opener.* A record is either in the opener's direction, or a reply that passed a stateful filter (SPEC 4.12) and is
judged by the rules for the packet it replies to. If both readings give the same verdict, that is the verdict. Otherwise
the record waits for an accepted record of the other direction within the connection's timeout (SPEC 5.2), and
``conversations`` finds which end both records show as the opener. If no such record arrives, the sender is taken as the
opener, except for a sender that the rules deny near the beginning of the log: then the ports decide, if they can, as
SPEC 9.3 does for captures.

*Undecided.* A record may count packets for which no rule was evaluated: ICMP errors, later fragments, malformed packets
and packets of an expired connection. A record is ``undecided``, with a cause, where such packets could explain its
ACCEPT or REJECT (SPEC 10.16).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sgfast.errors import AmbiguousAddress
from sgfast.evidence import Evidence, EvidenceCode, known_codes
from sgfast.flow_logs.conversations import ACK, FIN, RST, SYN, Conversation, RecordPlace, Waiting, way_by_ports
from sgfast.flow_logs.evidence import evidence_of_records, largest_networks
from sgfast.flow_logs.judging import Judge, OpenerVerdict
from sgfast.flow_logs.record_vpcs import MOST_INTERFACES, RecordVpcs
from sgfast.flow_logs.records import FlowLog, Record
from sgfast.policy.lookup import vpc_name
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, UDP, Action, Direction, Policy

#: The time that a record waits for records of the other direction, in log seconds: twice the clouds' longest interval.
PATIENCE_SECONDS = 1200
#: Memory limits: the maximum number of remembered connections; of waiting records, and of rejected records that
#: services hold; of services; of networks.
MOST_CONVERSATIONS = 1 << 17
MOST_WAITING = 1 << 16
MOST_SERVICES = 1 << 16
MOST_NETWORKS = 1 << 16
#: The number of packets from one peer to one service that must be rejected, with none accepted, before the rules count
#: as the cause. Malformed packets and fragments of incomplete datagrams are rejected too.
ENOUGH_PACKETS = 8
#: The number of connections that must be rejected as well, if the log has no TCP flags. Without flags, an opener cannot
#: be told from a packet of an expired connection.
ENOUGH_CONNECTIONS = 8
#: The maximum number of disagreements listed one by one.
LISTED = 1000

#: The DHCP ports of client and server, by address length. DHCP does not use them over the other IP version.
_DHCP = {4: (68, 67), 16: (546, 547)}

EXEMPT = "exempt: DHCP"

FRAGMENTS = "accepted without ports: may be later fragments of an allowed datagram"
OLDER = "accepted near the beginning of the log: may be of an older connection"
EXPIRED = "rejected TCP without flags: may be of an expired connection (log the field tcp-flags)"
SOLICITATION = "ICMPv6 that an instance sent: may be a router solicitation"
OTHER_VPC = "an instance in a VPC without a peering has the peer's address: in its own VPC it may be anybody's"
SEVERAL_VPCS = "instances of several VPCs have its addresses: neither the other end nor the interface tells (--vpc)"
ICMP_ERROR = "ICMP that no rule allows: may be an error about a connection"


@dataclass(frozen=True, slots=True)
class Disagreement:
    file: str
    record: Record
    instance: str
    direction: Direction
    #: Whether the record was judged as sent in the opener's direction or as a reply.
    role: Literal["opener", "reply"]
    #: The policy's verdict and reason; ``rule`` is the winning rule, if any.
    verdict: Action
    reason: str
    rule: str | None


@dataclass
class FlowLogCheck:
    """Result of checking flow logs. Counts are of records; ``packets`` and ``bytes`` are those of disagreeing
    records."""

    policy: Policy
    logs: tuple[str, ...]
    records: int = 0
    agreeing: int = 0
    disagreeing: int = 0
    #: The number of undecided records, by cause; ``out_of_scope`` has the same form.
    undecided: Counter[str] = field(default_factory=Counter)
    out_of_scope: Counter[str] = field(default_factory=Counter)
    nodata: int = 0
    skipdata: int = 0
    broken_lines: int = 0
    complaints: list[str] = field(default_factory=list)
    #: Descriptions of where and why the reading of a log ended early.
    damage: list[str] = field(default_factory=list)
    packets: int = 0
    bytes: int = 0
    #: The disagreements in the order of logs and lines; at most ``LISTED``.
    disagreements: list[Disagreement] = field(default_factory=list)
    first_second: int | None = None
    last_second: int | None = None
    #: Networks with most packets between addresses that no instance has, and these packets.
    networks: tuple[tuple[str, int], ...] = ()
    #: Codes of reasons in spite of which the user accepts the answer.
    accepted_evidence: tuple[EvidenceCode, ...] = ()

    @property
    def evidence(self) -> Evidence:
        """Reasons to doubt an answer from these records (SPEC 10.27)."""
        outside = self.out_of_scope.total() - self.out_of_scope[EXEMPT]
        return evidence_of_records(
            self.records, self.agreeing + self.disagreeing, self.undecided.total(), outside, self.networks
        ).accepting(self.accepted_evidence)


def check_logs(
    policy: Policy, logs: Iterable[str], *, vpc: str | None = None, accept_evidence: Sequence[EvidenceCode] = (),
    progress: Callable[[], None] | None = None,
) -> FlowLogCheck:  # fmt: skip
    """Check ``logs`` (paths; ``-`` is standard input), read once and in order. ``accept_evidence``: codes of reasons to
    doubt the answer that do not count for its ``evidence``. Raises PolicyError and FlowLogError.
    """
    paths = tuple(logs)
    checker = _Checker(policy, paths, vpc)
    checker.result.accepted_evidence = known_codes(accept_evidence)
    for number, path in enumerate(paths):
        log = FlowLog(path)
        for record in log:
            checker.take((number, log.name), record)
            if progress is not None and not checker.result.records & 1023:
                progress()
        checker.end_log(log)
    return checker.finish()


class _Service:
    """Observations of one peer's packets to one port of one end."""

    __slots__ = ("has_accepted", "packets", "ports", "rejected")

    def __init__(self) -> None:
        self.has_accepted = False
        #: The number of rejected packets, the peer's ports, and the rejected records that are still held.
        self.packets = 0
        self.ports: set[int] = set()
        self.rejected: list[Waiting] = []


class _Checker:
    def __init__(self, policy: Policy, logs: tuple[str, ...], vpc: str | None = None) -> None:
        self.result = FlowLogCheck(policy, logs)
        self._policy = policy
        self._vpc = vpc_name(policy, vpc)
        self._judge = Judge(policy, self._vpc)
        instances = self._judge.instances
        #: Instance numbers by the names that a log may use for their interfaces: the instance's id or name.
        self._numbers = {instance.id: n for n, instance in enumerate(instances) if instance.id}
        self._numbers |= {instance.name: n for n, instance in enumerate(instances)}
        #: The instances that each interface may belong to, for interfaces without an instance's name or id.
        self._interfaces: dict[str, frozenset[int]] = {}
        #: Packets of records between addresses that no instance has, by the first bytes of each address: 3 (/24), or 8
        #: (/64) of IPv6.
        self._networks: Counter[bytes] = Counter()
        self._vpcs = RecordVpcs(policy)
        self._conversations: OrderedDict[tuple[object, ...], Conversation] = OrderedDict()
        self._services: OrderedDict[tuple[object, ...], _Service] = OrderedDict()
        #: The number of rejected records that the services hold.
        self._held = 0
        self._waiting: deque[Waiting] = deque()
        #: The key of each instance's only accepted conversation; None if the instance has had several.
        self._accepted: dict[int, tuple[object, ...] | None] = {}
        #: The number of ICMP packets, each of which may have had a connection of its own.
        self._icmp_packets = 0
        self._last_start, self._run = 0, 0
        self._found: list[tuple[int, int, Disagreement]] = []
        timeouts = policy.settings.timeouts
        # Records have times in whole seconds, so a time difference may be up to one second too large.
        self._tcp_lifetime = max(timeouts.tcp_established, timeouts.tcp_fin_wait, timeouts.tcp_other) + 1
        self._icmp_lifetime = timeouts.icmp + 1
        self._other_lifetime = max(timeouts.bidirectional, timeouts.unidirectional) + 1

    def take(self, log: tuple[int, str], record: Record) -> None:
        result = self.result
        result.records += 1
        result.first_second = record.start if result.first_second is None else min(result.first_second, record.start)
        result.last_second = record.end if result.last_second is None else max(result.last_second, record.end)
        self._run += record.start < self._last_start
        self._last_start = record.start
        self._stop_waiting(record.start)
        infrastructure = self._policy.settings.infrastructure
        ports = (record.sport, record.dport)
        to_server = _DHCP[len(record.src)]
        is_dhcp = record.protocol == UDP and ports in (to_server, to_server[::-1])
        if is_dhcp and infrastructure == "exempt":
            result.out_of_scope[EXEMPT] += 1
            return
        found = self._whose(record)
        if found is None:
            return
        instance, inbound = found
        by_role = infrastructure == "by-role"
        from_server = is_dhcp and ports != to_server
        if is_dhcp and by_role and inbound == from_server:
            result.out_of_scope[EXEMPT] += 1
            return
        peer = record.src if inbound else record.dst
        as_opener = self._judge.opener(instance, inbound, peer, record.protocol, record.dport)
        as_reply = as_opener
        if self._judge.is_stateful[instance]:
            as_reply = self._judge.opener(instance, not inbound, peer, record.protocol, record.sport)
        way = int((record.src, record.sport) > (record.dst, record.dport))
        item = Waiting(
            RecordPlace(record.start, result.records, self._run), log, record, instance, inbound, way,
            self._conversation(record, instance, way), as_opener, as_reply, record.end + PATIENCE_SECONDS,
        )  # fmt: skip
        if _is_icmp(record):
            self._icmp_packets += record.packets
        if from_server and by_role:
            # Packets that an instance sends as a DHCP server are denied before its rules are evaluated (SPEC 3.11).
            if record.accepted:
                self._disagree(item, "opener", OpenerVerdict(False, "infrastructure", None))
            else:
                self._agree()
        elif (
            by_role and record.accepted and record.protocol == ICMPV6 and not inbound
            and not (as_opener.allowed or as_reply.allowed)
        ):  # fmt: skip
            self._undecided(SOLICITATION)
        elif as_opener.reason == "vpc-isolated" and self._policy.is_mapped:
            # In the VPC where the packets were sent, the address may belong to no instance (SPEC 7.4).
            if record.accepted:
                self._note_accepted(item)
            self._undecided(OTHER_VPC)
        elif not record.accepted and as_opener.allowed and self._is_elsewhere(instance, peer):
            self._undecided(OTHER_VPC)
        elif record.accepted:
            self._take_accepted(item)
        else:
            self._take_rejected(item)

    # The record's instance

    def _whose(self, record: Record) -> tuple[int, bool] | None:
        """Return the number of the record's instance, and whether the record is inbound to it. Returns None after
        counting the record as out of scope or undecided."""
        vpc = self._vpc if not self._judge.needs_vpc else self._vpcs.vpc_of(record, self._numbers.get(record.interface))
        if vpc is None and self._judge.needs_vpc:
            self.result.undecided[SEVERAL_VPCS] += 1
            return None
        owner = self._judge.compiled(vpc).classifier.owner_of
        sender, receiver = owner(record.src), owner(record.dst)
        named = self._numbers.get(record.interface)
        if record.direction is not None and named is None:
            named = receiver if record.direction == "ingress" else sender
        outside = ""
        if sender < 0 and receiver < 0:
            outside = "neither end is an instance"
            self._count_networks(record)
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

    def _count_networks(self, record: Record) -> None:
        networks, length = self._networks, 3 if len(record.src) == 4 else 8
        for prefix in {record.src[:length], record.dst[:length]}:
            if prefix in networks or len(networks) < MOST_NETWORKS:
                networks[prefix] += record.packets

    def _is_elsewhere(self, instance: int, peer: bytes) -> bool:
        """Whether only instances of VPCs own the peer's address that the instance's VPC does not see."""
        vpc = self._judge.instances[instance].vpc if self._judge.needs_vpc else self._vpc
        return self._judge.compiled(vpc).classifier.owner_of(peer) < 0 and bool(self._vpcs.with_address(peer))

    def _narrow(self, interface: str, ends: frozenset[int]) -> frozenset[int]:
        before = self._interfaces.get(interface)
        if before is None and len(self._interfaces) >= MOST_INTERFACES:
            return frozenset()
        after = self._interfaces[interface] = ends if before is None else before & ends
        return after

    # The conversation

    def _conversation(self, record: Record, instance: int, way: int) -> Conversation:
        low, high = (record.src, record.sport), (record.dst, record.dport)
        key = instance, record.protocol, *((high, low) if way else (low, high))
        known = self._conversations.get(key)
        is_past = False
        if known is not None and any(known.accepted) and record.start > known.last_end + self._timeout(record):
            self._settle_all(known)
            known, is_past = None, True
        if known is None:
            known = self._conversations[key] = Conversation(key, is_past)
            if len(self._conversations) > MOST_CONVERSATIONS:
                _, oldest = self._conversations.popitem(last=False)
                self._settle_all(oldest)
        self._conversations.move_to_end(key)
        return known

    def _timeout(self, record: Record) -> float:
        if record.protocol == TCP:
            return self._tcp_lifetime
        return self._icmp_lifetime if _is_icmp(record) else self._other_lifetime

    def _note_accepted(self, item: Waiting) -> None:
        key = item.conversation.key
        if self._accepted.setdefault(item.instance, key) != key:
            self._accepted[item.instance] = None

    def _take_accepted(self, item: Waiting) -> None:
        record, conversation = item.record, item.conversation
        self._note_accepted(item)
        self._accept_service(item)
        conversation.take_accepted(record, item.way, item.place)
        if item.as_opener.allowed and item.as_reply.allowed:
            self._agree()
        elif _is_icmp(record):
            # The record may be of an ICMP error. In an unordered log, records of its connection may be later ones.
            self._wait(item)
        elif conversation.opener is not None or not (item.as_opener.allowed or item.as_reply.allowed):
            self._settle(item)
        else:
            self._wait(item)
        if conversation.rejected_waiting or (conversation.opener is not None and not _is_icmp(record)):
            self._settle_all(conversation, decided_only=conversation.opener is None or _is_icmp(record))

    def _take_rejected(self, item: Waiting) -> None:
        conversation = item.conversation
        if not item.as_opener.allowed:
            conversation.rejected[item.way] = True
            self._agree()
            self._settle_all(conversation, decided_only=True)
        elif self._is_explained(item):
            self._agree()
        else:
            self._wait(item)

    def _is_explained(self, item: Waiting) -> bool:
        """Return whether a cause other than the rules explains a REJECT: the packet's connection has expired or does
        not accept the packet, or the packet answers a refused one."""
        record, conversation = item.record, item.conversation
        if _is_opener(record):
            # If the opener was denied, its replies are moot, and no rule judges them. Between equal ports, and without
            # ports, a reply that the rules allow counts as a new opener (SPEC 9.2).
            may_be_moot = record.protocol in PORT_PROTOCOLS and record.sport != record.dport
            return conversation.rejected[1 - item.way] and may_be_moot and record.protocol != TCP
        return conversation.is_past or any(conversation.accepted) or conversation.rejected[1 - item.way]

    # Deciding

    def _wait(self, item: Waiting) -> None:
        self._waiting_like(item).append(item)
        self._waiting.append(item)

    def _waiting_like(self, item: Waiting) -> deque[Waiting]:
        """Return the waiting records with the item's conversation and action, in order."""
        conversation = item.conversation
        return conversation.accepted_waiting if item.record.accepted else conversation.rejected_waiting

    def _stop_waiting(self, now: int) -> None:
        while self._waiting and (
            self._waiting[0].done or self._waiting[0].deadline < now or len(self._waiting) > MOST_WAITING
        ):
            item = self._waiting.popleft()
            if not item.done:
                # Both queues are in order of arrival, so this record is also first in its conversation's queue.
                self._waiting_like(item).popleft()
                self._settle(item)

    def _settle_all(self, conversation: Conversation, *, decided_only: bool = False) -> None:
        """Settle the conversation's waiting records; with ``decided_only``, only rejected records that are now
        explained."""
        rejected = conversation.rejected_waiting
        if decided_only:
            settled = [item for item in rejected if self._is_explained(item)]
            conversation.rejected_waiting = deque(item for item in rejected if not self._is_explained(item))
        else:
            settled = sorted((*conversation.accepted_waiting, *rejected), key=lambda item: item.place.number)
            conversation.accepted_waiting.clear()
            rejected.clear()
        for item in settled:
            self._settle(item)

    def _settle(self, item: Waiting) -> None:
        """Decide a record with the information available now."""
        item.done = True
        if item.record.accepted:
            self._settle_accepted(item)
        elif self._is_explained(item):
            self._agree()
        else:
            self._settle_rejected(item)

    def _settle_accepted(self, item: Waiting) -> None:
        conversation = item.conversation
        if conversation.opener is None and conversation.doubt is None:
            conversation.opener = self._only_sender(item)
        is_opener = conversation.opener == item.way or not self._judge.is_stateful[item.instance]
        judged = item.as_opener if is_opener else item.as_reply
        if judged.allowed and (is_opener or conversation.opener is not None):
            self._agree()
        elif (doubt := self._doubt(item)) is not None:
            self._undecided(doubt)
        else:
            self._disagree(item, "opener" if is_opener else "reply", judged)

    def _doubt(self, item: Waiting) -> str | None:
        """Return why an accepted record may be right although the rules deny its apparent opener, or None."""
        record, conversation = item.record, item.conversation
        if _has_no_ports(record):
            return FRAGMENTS
        if _is_icmp(record) and self._may_be_an_error(item):
            return ICMP_ERROR
        if not (item.as_opener.allowed or item.as_reply.allowed):
            return None
        may_be_older = record.protocol == TCP and not conversation.has_syn and self._is_early(record)
        if may_be_older and way_by_ports(record, item.way) != conversation.opener:
            return OLDER
        return conversation.doubt

    def _only_sender(self, item: Waiting) -> int:
        """Return the opener's direction if packets of only the item's direction were accepted."""
        if item.as_opener.allowed or not self._is_early(item.record):
            return item.way
        by_ports = way_by_ports(item.record, item.way)
        return item.way if by_ports is None else by_ports

    def _is_early(self, record: Record) -> bool:
        """Return whether the record's connection may be older than the log."""
        return record.start < (self.result.first_second or 0) + self._timeout(record)

    def _may_be_an_error(self, item: Waiting) -> bool:
        """Return whether the instance has another connection, which an ICMP error may be about (SPEC 4.6)."""
        return (
            self._judge.is_stateful[item.instance] and item.as_opener.reason != "vpc-isolated"
            and self._accepted[item.instance] != item.conversation.key
        )  # fmt: skip

    def _settle_rejected(self, item: Waiting) -> None:
        record = item.record
        is_stateful = self._judge.is_stateful[item.instance]
        if _is_icmp(record):
            # Records have no ICMP type: the record may be of a reply without a query or an error without a connection.
            self._undecided("rejected ICMP: may be a reply or an error without a connection")
        elif _has_no_ports(record):
            self._undecided("rejected without ports: later fragments, or malformed packets")
        elif is_stateful and _is_no_syn(record):
            self._undecided("rejected TCP that is no plain SYN: may be of an expired connection")
        elif is_stateful and not _is_syn(record) and way_by_ports(record, item.way) == 1 - item.way:
            self._undecided("rejected, from a service's port: may be of an expired connection")
        elif self._policy.settings.max_connections <= len(self._conversations) + self._icmp_packets:
            self._undecided("rejected when there may have been max_connections connections")
        else:
            self._reject_service(item)

    # Services

    def _service(self, item: Waiting) -> _Service:
        record = item.record
        key = item.instance, record.src, record.dst, record.protocol, record.dport
        known = self._services.get(key)
        if known is None:
            known = self._services[key] = _Service()
            if len(self._services) > MOST_SERVICES:
                _, oldest = self._services.popitem(last=False)
                self._leave_service(oldest)
        self._services.move_to_end(key)
        return known

    def _accept_service(self, item: Waiting) -> None:
        service = self._service(item)
        service.has_accepted = True
        self._leave_service(service)

    def _reject_service(self, item: Waiting) -> None:
        service = self._service(item)
        service.packets += max(1, item.record.packets)
        service.rejected.append(item)
        self._held += 1
        while self._held > MOST_WAITING:
            _, oldest = self._services.popitem(last=False)
            self._leave_service(oldest)
        if len(service.ports) < ENOUGH_CONNECTIONS:
            service.ports.add(item.record.sport)
        if service.has_accepted:
            self._leave_service(service)
        elif service.packets >= ENOUGH_PACKETS and (
            len(service.ports) >= ENOUGH_CONNECTIONS or not self._may_be_expired(item)
        ):
            for rejected in service.rejected:
                self._disagree(rejected, "opener", rejected.as_opener)
            self._held -= len(service.rejected)
            service.rejected.clear()

    def _leave_service(self, service: _Service) -> None:
        for item in service.rejected:
            if self._may_be_expired(item):
                self._undecided(EXPIRED)
            else:
                self._undecided(
                    f"rejected: fewer than {ENOUGH_PACKETS} packets from this peer to this port, or others were "
                    "accepted: may be malformed packets"
                )
        self._held -= len(service.rejected)
        service.rejected.clear()

    def _may_be_expired(self, item: Waiting) -> bool:
        record = item.record
        return record.protocol == TCP and record.tcp_flags is None and self._judge.is_stateful[item.instance]

    # Counting

    def _agree(self) -> None:
        self.result.agreeing += 1

    def _undecided(self, why: str) -> None:
        self.result.undecided[why] += 1

    def _disagree(self, item: Waiting, role: Literal["opener", "reply"], judged: OpenerVerdict) -> None:
        record, result = item.record, self.result
        result.disagreeing += 1
        result.packets += record.packets
        result.bytes += record.bytes
        number, name = item.log
        if len(self._found) >= 2 * LISTED:
            self._found = sorted(self._found, key=lambda found: found[:2])[:LISTED]
        self._found.append((number, record.line, Disagreement(
            name, record, self._judge.instances[item.instance].name, "inbound" if item.inbound else "outbound", role,
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

    def finish(self) -> FlowLogCheck:
        for conversation in self._conversations.values():
            self._settle_all(conversation)
        while self._waiting:
            item = self._waiting.popleft()
            if not item.done:
                self._settle(item)
        for service in self._services.values():
            self._leave_service(service)
        result = self.result
        several = result.undecided[SEVERAL_VPCS]
        if several and several == result.undecided.total() + result.agreeing + result.disagreeing:
            raise AmbiguousAddress(
                f"{self._policy.origin}: instances of several VPCs have the addresses of the records: name the VPC "
                "that the logs are of (--vpc)"
            )
        self._found.sort(key=lambda found: found[:2])
        self.result.networks = largest_networks(self._networks)
        self.result.disagreements = [disagreement for _, _, disagreement in self._found[:LISTED]]
        return self.result


def _is_syn(record: Record) -> bool:
    """Return whether the record's flags show only TCP openers."""
    if record.protocol != TCP or record.tcp_flags is None:
        return False
    return record.tcp_flags & (FIN | SYN | RST | ACK) == SYN


def _is_no_syn(record: Record) -> bool:
    """Return whether the record's flags show TCP packets other than openers."""
    return record.protocol == TCP and record.tcp_flags is not None and not _is_syn(record)


def _is_opener(record: Record) -> bool:
    """Return whether each of the record's packets can open a connection (SPEC 4.7)."""
    return _is_syn(record) if record.protocol == TCP else not _is_icmp(record)


def _is_icmp(record: Record) -> bool:
    return record.protocol == (ICMP if len(record.src) == 4 else ICMPV6)


def _has_no_ports(record: Record) -> bool:
    return record.protocol in PORT_PROTOCOLS and not (record.sport or record.dport)
