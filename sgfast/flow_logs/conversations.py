"""The records of a flow log about one 5-tuple at one instance, and the end that they show as the opener.

A *way* is a direction of the 5-tuple: 0 from the end with the lower address and port, 1 from the other one.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from sgfast.flow_logs.judging import OpenerVerdict
from sgfast.flow_logs.records import Record
from sgfast.policy.model import TCP

_FIRST_USUAL, _FIRST_EPHEMERAL = 1024, 32768
#: The only service whose server opens connections to its clients.
_FTP_DATA = 20
FIN, SYN, RST, ACK = 1, 2, 4, 16

DISPUTED = "accepted: the ports show one end as the opener, and the times the other end"
UNKNOWN_ORDER = "accepted: neither ports nor times show which end was the opener"


class RecordPlace(NamedTuple):
    """Place of a record in the logs. Two records with one ``run`` have only records between them that are in order of
    their starts.
    """

    start: int
    number: int
    run: int


class Waiting:
    """A record that is not decided yet, with both readings: as an opener, and as a reply."""

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
    """The records so far about one 5-tuple, in both directions, at one instance."""

    __slots__ = ("accepted", "accepted_waiting", "doubt", "has_syn", "is_past", "key", "last_end", "opener",
                 "rejected", "rejected_waiting")  # fmt: skip

    def __init__(self, key: tuple[object, ...], is_past: bool) -> None:
        self.key = key
        #: The first accepted record of each way.
        self.accepted: list[RecordPlace | None] = [None, None]
        #: Whether the log has a rejected opener that the rules deny, too, by way.
        self.rejected = [False, False]
        #: The opener's way, if known by now.
        self.opener: int | None = None
        #: Whether the flags of a SYN identify the opener.
        self.has_syn = False
        #: The reason why ``opener`` may be wrong, although both directions are known.
        self.doubt: str | None = None
        self.last_end = 0
        #: An earlier connection with this tuple has expired.
        self.is_past = is_past
        #: Apart, or every further record of a conversation would go through all that wait.
        self.accepted_waiting: deque[Waiting] = deque()
        self.rejected_waiting: deque[Waiting] = deque()

    def take_accepted(self, record: Record, way: int, place: RecordPlace) -> None:
        """Learn from an accepted record who the opener was."""
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
            # The cloud refused this end as an opener, so it was the other one.
            self.opener = 1 - self.opener
        elif first not in (None, self.opener):
            self.doubt = DISPUTED


def way_by_ports(record: Record, way: int) -> int | None:
    """The opener's way, if the ports distinguish the service from an ephemeral port."""
    if record.protocol == TCP and (record.sport == _FTP_DATA) != (record.dport == _FTP_DATA):
        return way if record.sport == _FTP_DATA else 1 - way
    for border in (_FIRST_USUAL, _FIRST_EPHEMERAL):
        sends_from_service, sends_to_service = record.sport < border, record.dport < border
        if sends_from_service != sends_to_service:
            return 1 - way if sends_from_service else way
    return None
