"""The fate of the records of flow logs that were read as traffic, and the doubts that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sgfast.base.evidence import EvidenceReason, UnreadFiles, level_of
from sgfast.clouds.logs.log_format import UnloggedService

#: Share of records from which a cause makes a part of the answer uncertain.
SOME = 0.01

#: The cause for which records do not tell enough about their connection to be judged.
UndecidedCause = Literal["readings-differ", "icmp-type"]
#: The cause for which records are left out.
LeftOutCause = Literal[
    "other-end", "copy", "time-window", "no-time", "no-ports", "no-protocol", "icmp-error", "no-room", "no-packets",
    "no-opener", "other-owner", "nat-gateway", "no-data", "lost", "broken", "other-lines",
]  # fmt: skip

#: Sentences about undecided records and records that are left out, by cause.
CAUSES: dict[UndecidedCause | LeftOutCause, str] = {
    "readings-differ": "either end may have opened the connection, and the policy's verdict depends on which one did",
    "icmp-type": "ICMP without its type, and with packets one way only",
    "no-opener": "rejected, but perhaps no openers: the cloud also rejects packets of connections that it forgot",
    "other-end": "the other end's records of packets that are counted already",
    "copy": "the same record again",
    "time-window": "outside --start and --end",
    "no-time": "without a time",
    "no-ports": "without ports, such as later fragments",
    "no-protocol": "without a known protocol",
    "icmp-error": "ICMP errors, which belong to other connections",
    "no-room": "of more connections at a time than there is room for, or of such long and large ones",
    "no-packets": "without any packet",
    "other-owner": "of an address that an instance has now, and another interface had at the time",
    "nat-gateway": "a NAT gateway's records of connections that their clients' interfaces show",
    "no-data": "NODATA: an interval without traffic",
    "lost": "SKIPDATA: the cloud recorded nothing, whatever there was",
    "broken": "lines that are no records",
    "other-lines": "lines of other kinds, such as Zeek's other logs",
}

#: The remedy where nobody can tell who opened a connection. Of UDP, no log tells it.
OPENERS_TOLD_BY = "a capture; for TCP, flow logs that have the field tcp-flags and begin earlier are enough"
#: Causes for which records are left out although they are traffic that nothing else shows.
UNJUDGED: tuple[LeftOutCause, ...] = ("no-time", "no-ports", "no-protocol", "no-room")
#: Causes for which records are left out that are no traffic at all.
NOT_TRAFFIC: tuple[LeftOutCause, ...] = ("no-data", "lost", "broken", "other-lines")


@dataclass(frozen=True, slots=True)
class ComparedActions:
    """Comparison of the cloud's actions with the policy's verdicts, in connections and attempts.

    ``accepted_allowed``: the number of connections that the cloud accepted and the policy allows.
    ``accepted_denied``: the number of those that the policy denies.
    ``rejected_denied``: the number of attempts that the cloud rejected and the policy denies.
    ``rejected_allowed``: the number of those that the policy allows.
    """

    accepted_allowed: int
    accepted_denied: int
    rejected_denied: int
    rejected_allowed: int

    @property
    def agreeing(self) -> int:
        """The number of connections and attempts on which cloud and policy agree."""
        return self.accepted_allowed + self.rejected_denied

    @property
    def disagreeing(self) -> int:
        """The number of connections and attempts on which they disagree."""
        return self.accepted_denied + self.rejected_allowed


#: The notice of an interface: it had an instance's address at another time, surely or perhaps; or it is that of a
#: NAT gateway.
NoticedRole = Literal["other-owner", "perhaps-other-owner", "nat-gateway"]

#: Most names in a sentence.
MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class NoticedInterface:
    """A network interface whose records are not those of an instance that has their address.

    ``role``: ``other-owner`` if the interface had an instance's address at another time, ``perhaps-other-owner`` if its
    records do not tell whether it had, and ``nat-gateway``.
    ``interface``: the interface, as the log names it.
    ``address``: the address.
    ``instance``: the name of the instance that has the address; None: no instance has it.
    ``left_out``: the number of records that are left out because of it.
    ``doubtful``: the number of records that were judged although their ends may be others.
    """

    role: NoticedRole
    interface: str
    address: str
    instance: str | None
    left_out: int
    doubtful: int


@dataclass(frozen=True, slots=True)
class LogRecords:
    """The fate of the records of flow logs: each is judged, rejected, undecided or left out.

    ``read``: the number of records read.
    ``judged``: the number of records of connections that the policy judged.
    ``rejected``: the number of records of attempts that the cloud rejected, which the policy judged apart.
    ``undecided``: the number of records that do not tell enough about their connection to be judged, by cause.
    ``undecided_connections``: the number of their connections.
    ``left_out``: the number of other records, by cause.
    ``late``: the number of judged records that came more than an hour of record time after others of their time.
    ``in_changes``: the number of records during which the policy changed.
    ``formats``: the number of files by their format, in words.
    ``shows_answers``: whether the records show that the other end answered.
    ``unlogged_services``: the services that the clouds of these logs never log.
    ``lacks_protocols``: whether some of the logs, such as Zeek's, have only TCP, UDP and ICMP.
    ``unsure_connections``: the number of judged connections that either end may have opened, with one verdict.
    ``damage``: where and why the reading of a log ended early.
    ``decided_connections``: the number of connections, and of attempts that the cloud rejected, that the policy judged.
    ``without_interface``: the number of judged records of AWS that do not name their interface.
    ``overlapping``: the number of accepted records that overlap in time with an earlier one of the same interface,
    connection and direction. A single flow log has none.
    ``unread``: logs that could not be read, or not to their end.
    ``has_actions``: whether each record says what the cloud did.
    ``silent_hours``: the number of hours between the first and the last record in which no record begins. Only
    stretches of a day or more count.
    ``undecided_answered``: the number of answered connections on which the verdict depends on who opened them.
    ``two_way``: the number of connections with accepted records of both directions.
    ``one_way``: the number of answered connections with those of only one direction.
    ``unlogged``: the names of the instances of whose own interfaces there is no record, in the order of the policy.
    ``interfaces``: interfaces that had an instance's address at another time, and NAT gateways.
    """

    read: int = 0
    judged: int = 0
    rejected: int = 0
    undecided: dict[UndecidedCause, int] = field(default_factory=dict)
    undecided_connections: int = 0
    left_out: dict[LeftOutCause, int] = field(default_factory=dict)
    late: int = 0
    in_changes: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    shows_answers: bool = True
    unlogged_services: tuple[UnloggedService, ...] = ()
    lacks_protocols: bool = False
    unsure_connections: int = 0
    damage: tuple[str, ...] = ()
    decided_connections: int = 0
    without_interface: int = 0
    overlapping: int = 0
    silent_hours: int = 0
    undecided_answered: int = 0
    two_way: int = 0
    one_way: int = 0
    unread: UnreadFiles = field(default_factory=UnreadFiles)
    has_actions: bool = False
    unlogged: tuple[str, ...] = ()
    interfaces: tuple[NoticedInterface, ...] = ()

    @property
    def is_damaged(self) -> bool:
        """Whether a log has broken lines, or could not be read to its end."""
        return bool(self.damage or self.left_out.get("broken"))

    def reasons(self) -> list[EvidenceReason]:
        """Return the reasons that they give to doubt an answer (SPEC 10.27)."""
        untyped = self.undecided.get("icmp-type", 0)
        unjudged = sum(self.left_out.get(cause, 0) for cause in UNJUDGED)
        reasons = self.unread.reasons("log")
        if broken := self.left_out.get("broken", 0):
            share = broken / (self.read - self.left_out.get("other-lines", 0))
            lines = "1 line" if broken == 1 else f"{broken:,} lines"
            sentence = f"{lines} ({100 * share:.0f} %) could not be read as records"
            asked_for = "logs as the cloud wrote them; the warnings name the first lines"
            reasons.append(EvidenceReason("unread", level_of(share), broken, share, sentence, asked_for))
        undecided = untyped + unjudged
        decidable = self.judged + self.rejected + sum(self.undecided.values()) + unjudged
        if (share := _share(undecided, decidable)) >= SOME:
            sentence = f"{some_records(undecided)} ({100 * share:.0f} %) could not be judged"
            needed_input = "flow logs with times and ports, of a shorter time"
            if untyped > unjudged:
                needed_input = "a capture, as these logs do not have the types of ICMP"
            reasons.append(EvidenceReason(
                "undecided", "partly" if undecided < decidable else "no", undecided, share, sentence, needed_input
            ))  # fmt: skip
        if self.undecided_answered:
            differing = self.undecided["readings-differ"]
            noun = "connection" if self.undecided_answered == 1 else "connections"
            sentence = (
                f"either end may have opened {self.undecided_answered:,} answered {noun}, and the verdict depends on it"
            )
            share = _share(self.undecided_answered, self.decided_connections + self.undecided_connections)
            reasons.append(EvidenceReason(
                "unsure-openers", "partly", differing, share, sentence, OPENERS_TOLD_BY
            ))  # fmt: skip
        reasons += self._interface_reasons()
        if lost := self.left_out.get("lost", 0):
            sentence = f"the cloud lost records {lost:,} times (SKIPDATA): nobody knows what was in them"
            reasons.append(EvidenceReason(
                "records-lost", "partly", lost, lost / self.read, sentence, "the same logs of another time"
            ))  # fmt: skip
        if not self.shows_answers:
            sentence = "a security group log does not say whether the other end answered"
            reasons.append(EvidenceReason(
                "unseen-answers", "partly", self.judged, 1.0, sentence, "a capture, or flow logs with both directions"
            ))  # fmt: skip
        if self.without_interface:
            without = self.without_interface
            sentence = (
                f"{some_records(without)} {_do(without)} not name the interface: if both ends were logged, packets and "
                "bytes count twice"
            )
            reasons.append(EvidenceReason(
                "duplicates", "partly", self.without_interface, self.without_interface / self.read, sentence,
                "flow logs with the field interface-id",
            ))  # fmt: skip
        if (share := _share(self.overlapping, self.judged)) >= SOME:
            sentence = (
                f"{some_records(self.overlapping)} and others of the same interface and connection overlap in time: if "
                "the interface has two flow logs, packets and bytes count twice"
            )
            reasons.append(EvidenceReason(
                "duplicates", "partly", self.overlapping, share, sentence, "one flow log of each interface"
            ))  # fmt: skip
        if self.late:
            sentence = f"{some_records(self.late)} came an hour or more too late: connections may count twice"
            reasons.append(EvidenceReason(
                "records-late", "partly", self.late, self.late / self.read, sentence,
                "all the logs of this time in one command",
            ))  # fmt: skip
        if self.in_changes:
            changing = some_records(self.in_changes)
            sentence = f"the policy changed during {changing}: nobody knows which packets came before"
            reasons.append(EvidenceReason(
                "change-in-record", "partly", self.in_changes, self.in_changes / self.read, sentence,
                "a capture of the time of the changes",
            ))  # fmt: skip
        return reasons

    def _interface_reasons(self) -> list[EvidenceReason]:
        reasons = []
        doubtful = [interface for interface in self.interfaces if interface.doubtful]
        not_gateways = [interface for interface in doubtful if interface.role != "nat-gateway"]
        gateways = [interface for interface in doubtful if interface.role == "nat-gateway"]
        if not_gateways:
            records, named = sum(interface.doubtful for interface in not_gateways), some_names([
                f"{interface.address} of {interface.instance} at {interface.interface}" for interface in not_gateways
            ])  # fmt: skip
            sentence = f"{some_records(records)} may be of others that had an instance's address before: {named}"
            reasons.append(EvidenceReason(
                "other-owner", "partly", records, _share(records, self.read), sentence,
                "flow logs with the field flow-direction, or of all interfaces",
            ))  # fmt: skip
        if gateways:
            records = sum(gateway.doubtful for gateway in gateways)
            named = some_names([f"{gateway.interface} ({gateway.address})" for gateway in gateways])
            sentence = (
                f"{some_records(records)} of NAT gateways {_do(records)} not name both ends of the connection: {named}"
            )
            reasons.append(EvidenceReason(
                "nat-gateway", "partly", records, _share(records, self.read), sentence,
                "flow logs with the fields pkt-srcaddr and pkt-dstaddr",
            ))  # fmt: skip
        return reasons


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def some_names(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return the first names, and how many there are besides."""
    rest_text = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{rest_text}"


def some_records(records: int) -> str:
    """Return a number of records, in words that a sentence can go on from."""
    return "1 record" if records == 1 else f"{records:,} records"


def _do(records: int) -> str:
    return "does" if records == 1 else "do"
