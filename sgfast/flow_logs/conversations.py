"""The records of a flow log about one 5-tuple at one instance, and the opener that they indicate.

A *way* is a direction of the 5-tuple: 0 from the end with the lower address and port, 1 from the other end.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from sgfast.flow_logs.judging import OpenerVerdict
from sgfast.flow_logs.records import Record
from sgfast.policy.model import TCP

_FIRST_USUAL, _FIRST_EPHEMERAL = 1024, 32768
#: The port of the only service whose server opens connections to its clients.
_FTP_DATA = 20
FIN, SYN, RST, ACK = 1, 2, 4, 16

DISPUTED = "accepted: the ports show one end as the opener, and the times the other end"
UNKNOWN_ORDER = "accepted: neither ports nor times show which end was the opener"


class RecordPlace(NamedTuple):
    """The place of a record in the logs. If two records have the same ``run``, all records between them are sorted by
    their starts.
    """

    start: int
    number: int
    run: int


class Waiting:
    """An undecided record, with the verdicts for both readings: as an opener, and as a reply."""

    __slots__ = ("as_opener", "as_reply", "conversation", "deadline", "done", "inbound", "instance", "log", "place",
                 "record", "way")  # fmt: skip

    def __init__(
        self, place: RecordPlace, log: tuple[int, str], record: Record, instance: int, inbound: bool, way: int,
        conversation: Conversation, as_opener: OpenerVerdict, as_reply: OpenerVerdict, deadline: int,
    ) -> None:  # fmt: skip
        self.place, self.log, self.record, self.instance, self.inbound = place, log, record, instance, inbound
        self.way, self.conversation, self.as_opener, self.as_reply = way, conversation, as_opener, as_reply
        self.deadline = deadline
        self.done = False


class Conversation:
    """The records read so far about one 5-tuple, in both directions, at one instance."""

    __slots__ = ("accepted", "accepted_waiting", "doubt", "has_syn", "is_past", "key", "last_end", "opener",
                 "rejected", "rejected_waiting")  # fmt: skip

    def __init__(self, key: tuple[object, ...], is_past: bool) -> None:
        self.key = key
        #: The first accepted record of each way; None if there is none.
        self.accepted: list[RecordPlace | None] = [None, None]
        #: Whether there is a rejected record that the rules deny as an opener, by way.
        self.rejected = [False, False]
        #: The opener's way; None if unknown.
        self.opener: int | None = None
        #: Whether the flags of a SYN identify the opener.
        self.has_syn = False
        #: The reason why ``opener`` may be wrong, although both directions are known.
        self.doubt: str | None = None
        self.last_end = 0
        #: Whether an earlier connection with this tuple has expired.
        self.is_past = is_past
        #: Accepted and rejected records wait in separate queues, so that a new record does not have to search both.
        self.accepted_waiting: deque[Waiting] = deque()
        self.rejected_waiting: deque[Waiting] = deque()

    def take_accepted(self, record: Record, way: int, place: RecordPlace) -> None:
        """Update the opener from an accepted record."""
        if self.accepted[way] is None:
            self.accepted[way] = place
        self.last_end = max(self.last_end, record.end)
        if self.opener is not None or self.doubt is not None:
            return
        low, high = self.accepted
        if record.tcp_flags and record.tcp_flags & SYN:
            self.has_syn = True
            self.opener = 1 - way if record.tcp_flags & ACK else way
        elif low is not None and high is not None:
            self._compare(low, high, way_by_ports(record, way))

    def _compare(self, low: RecordPlace, high: RecordPlace, by_ports: int | None) -> None:
        first = None
        if low.start != high.start:
            first = int(high.start < low.start)
        elif low.run == high.run:
            first = int(high.number < low.number)
        self.opener = first if by_ports is None else by_ports
        if self.opener is None:
            self.doubt = UNKNOWN_ORDER
        elif self.rejected[self.opener] and not self.rejected[1 - self.opener]:
            # The cloud refused this end as an opener, so the other end opened.
            self.opener = 1 - self.opener
        elif first not in (None, self.opener):
            self.doubt = DISPUTED


def way_by_ports(record: Record, way: int) -> int | None:
    """Return the opener's way if only one of the ports is a service's and the other is ephemeral, else None."""
    if record.protocol == TCP and (record.sport == _FTP_DATA) != (record.dport == _FTP_DATA):
        return way if record.sport == _FTP_DATA else 1 - way
    for border in (_FIRST_USUAL, _FIRST_EPHEMERAL):
        sends_from_service, sends_to_service = record.sport < border, record.dport < border
        if sends_from_service != sends_to_service:
            return 1 - way if sends_from_service else way
    return None
