"""The columns of the rows that ``--verdicts`` and ``--connections`` write (SPEC 10.3, 10.4, 10.8), and of tables in
memory (SPEC 14.9).

The column names of CSV, the types of Parquet and Arrow and the JSON Schemas of a line are taken from here.
``row_documents`` generates ``docs/rows.md`` and the columns in ``docs/tables.md`` from them. The text writers hard-code
the order of these columns; a test compares them with this file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sgfast.base.json_types import Schema, document, object_schema, or_null
from sgfast.rows.verdicts import PENDING, REASONS, VERDICTS

#: The ends of a connection, indexed by the numbers in rows; the order of SideEnd in ``core/conntrack/table.pxd``.
ENDS = (
    None, "open", "closed", "reset", "timeout", "evicted", "reopened", "denied", "disconnected", "removed", "forgotten",
)
#: The other end of an allowed connection does one of these.
ALLOWED_ANSWERS = ("silent", "answered", "refused")
#: By the number in rows. The cloud rejected the last one's attempt, as a flow log tells; no data plane writes it.
ANSWERS = (*ALLOWED_ANSWERS, "rejected")
#: The states of a connection at a filter, in the order of State in ``core/conntrack/states.pxd`` (SPEC 5.2, 5.9).
STATES = (
    None, "syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "closed",
    "both-syn-sent", "both-syn-received", "icmp", "one-way", "both-ways",
)
#: The order of Status in ``core/conntrack/table.pxd``.
STATUSES = (None, "open", "ended", "disconnected", "denied")

#: The kinds of sources and destinations in answers about all packets (``PartKind`` of ``sgfast.rules.reaching``).
PARTS = ("any", "internet", "instances", "group", "instance", "address-group", "network")

#: The filters that a packet passes. Each filter is an object of its own in JSON, or null.
SIDES = ("egress", "ingress")


@dataclass(frozen=True, eq=False)
class Type:
    """The type of a column's values.

    ``name``: its name.
    ``meaning``: the form of the values.
    ``json``: the JSON Schema of a value that is not null. For type WORD, each column adds its own ``enum``.
    ``parquet``: the type in Parquet and Arrow.
    """

    name: str
    meaning: str
    json: Schema
    parquet: str


def _integer(name: str, meaning: str, minimum: int, maximum: int | None, parquet: str) -> Type:
    limits = {"minimum": minimum} if maximum is None else {"minimum": minimum, "maximum": maximum}
    return Type(name, meaning, {"type": "integer", **limits}, parquet)


TIME = Type(
    "time",
    "seconds since the Unix epoch with nine decimals; a string in JSON",
    {"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{9}$"},
    # DuckDB 2.0 has no difference of two times in nanoseconds with a zone.
    "timestamp, nanoseconds, without a zone: always UTC",
)
ADDRESS = Type("address", "an IPv4 address, or an IPv6 address as in RFC 5952", {"type": "string"}, "string")
PROTOCOL = Type(
    "protocol",
    "the IANA keyword in lower case, or the number if there is none; the number is an integer in JSON",
    {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0, "maximum": 255}]},
    "string, dictionary encoded",
)
WORD = Type("word", "one of the words listed for the column", {}, "string, dictionary encoded")
NAME = Type("name", "an instance's name", {"type": "string", "minLength": 1}, "string, dictionary encoded")
RULE = Type("rule", "a rule's id", {"type": "string"}, "string, dictionary encoded")
PORT = _integer("port", "an integer from 0 to 65535", 0, 65535, "uint16")
BYTE = _integer("byte", "an integer from 0 to 255", 0, 255, "uint8")
NUMBER = _integer("number", "an integer, 1 or more", 1, None, "int64")
COUNT = _integer("count", "an integer, 0 or more", 0, None, "int64")
TEXT = Type("text", "text", {"type": "string"}, "string, dictionary encoded")
TYPES = (TIME, ADDRESS, PROTOCOL, WORD, NAME, RULE, PORT, BYTE, NUMBER, COUNT, TEXT)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    ``name``: its name.
    ``type``: the type of its values.
    ``meaning``: the meaning of a value.
    ``null``: the case in which the value is null; empty: never.
    ``words``: the values of a column of words.
    """

    name: str
    type: Type
    meaning: str
    null: str = ""
    words: tuple[str, ...] = ()

    def json_schema(self) -> Schema:
        """Return the JSON Schema of the column's values."""
        meaning, allowed = self.meaning, {"enum": [*self.words]}
        if not self.words:
            allowed = self.type.json
            meaning += f" {self.type.meaning[0].upper()}{self.type.meaning[1:]}."
        return {"description": _described(meaning, self.null), **(or_null(allowed) if self.null else allowed)}


def _described(meaning: str, null: str) -> str:
    return f"{meaning} Null where {null}." if null else meaning


def groups_text(groups: Iterable[str]) -> str | None:
    """Return the security groups of an instance as columns have them; None if there are none."""
    return ", ".join(dict.fromkeys(groups)) or None


def _object(columns: Iterable[Column], **more: Schema) -> Schema:
    return object_schema({column.name: column.json_schema() for column in columns} | more)


@dataclass(frozen=True)
class RowKind:
    """A kind of row. It has ``columns``, then those of ``side`` for each side. ``schema`` names the schema of a
    JSON line."""

    schema: str
    option: str
    meaning: str
    columns: tuple[Column, ...]
    side: tuple[Column, ...]
    side_meaning: str
    side_null: str

    @property
    def flat(self) -> tuple[Column, ...]:
        """All columns as in CSV and Parquet. A side's columns are ``SIDE.COLUMN``, and null if the side is null."""
        return (*self.columns, *(_column_of_side(side, column) for side in SIDES for column in self.side))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.flat)

    def json_schema(self) -> Schema:
        """Return the published schema of a line in JSON."""
        description = f"One line of sgfast replay {self.option}: {self.meaning}."
        sides: dict[str, Schema] = {name: {"$ref": "#/$defs/side"} for name in SIDES}
        side = {
            "description": _described(f"A side is {self.side_meaning}.", self.side_null),
            "anyOf": [{"type": "null"}, _object(self.side)],
        }
        return document(self.schema, description, _object(self.columns, **sides), {"side": side})


def _column_of_side(side: str, column: Column) -> Column:
    null = f"the side is, or {column.null}" if column.null else "the side is"
    return replace(column, name=f"{side}.{column.name}", null=null)


_PASSED_OR_NOT = ("allow", "deny")
_REASONS = tuple(reason for reason in REASONS if reason is not None)
# No filter judges a packet as moot, because this verdict follows from the verdict on another packet.
_SIDE_REASONS = tuple(reason for reason in _REASONS if reason != "opener-denied")
_NO_PORTS = "the packet has no ports, or they were not captured"
_NO_ICMP = "the packet has no ICMP header, or it was not captured"

PACKET_ROWS = RowKind(
    schema="verdict",
    option="--verdicts",
    meaning="a packet",
    columns=(
        Column("packet", NUMBER, "The packet's number, from 1 on across all captures."),
        Column("time", TIME, "The packet's own timestamp."),
        Column("src", ADDRESS, "The address it comes from.", "the packet has no addresses"),
        Column("dst", ADDRESS, "The address it goes to.", "the packet has no addresses"),
        Column("protocol", PROTOCOL, "The protocol above IP.", "the packet has no addresses"),
        Column("sport", PORT, "The source port.", _NO_PORTS),
        Column("dport", PORT, "The destination port.", _NO_PORTS),
        Column("icmp_type", BYTE, "The type of an ICMP or ICMPv6 message.", _NO_ICMP),
        Column("icmp_code", BYTE, "The code of an ICMP or ICMPv6 message.", _NO_ICMP),
        Column("verdict", WORD, "What became of the packet.", words=VERDICTS[:PENDING]),
        Column(
            "reason",
            WORD,
            "Why: the reason of the side that decided.",
            "no side judged the packet, and it is neither moot nor malformed",
            _REASONS,
        ),
    ),
    side=(
        Column("instance", NAME, "The instance whose filter judged the packet."),
        Column("verdict", WORD, "The verdict of this filter.", words=_PASSED_OR_NOT),
        Column("reason", WORD, "The reason of that verdict.", words=_SIDE_REASONS),
        Column("rule", RULE, "The rule that the reason is about.", "the reason is about no rule"),
    ),
    side_meaning="the filter of the sending instance (egress) or of the receiving one (ingress)",
    side_null="there is no such filter, or the packet did not reach it",
)

CONNECTION_ROWS = RowKind(
    schema="connection",
    option="--connections",
    meaning="a connection or a denied attempt",
    columns=(
        Column("protocol", PROTOCOL, "The protocol above IP."),
        Column("initiator", ADDRESS, "The address that opened the connection, or tried to."),
        Column("initiator_port", PORT, "The initiator's port.", "the protocol has no ports"),
        Column("responder", ADDRESS, "The address at the other end."),
        Column("responder_port", PORT, "The responder's port.", "the protocol has no ports"),
        Column("icmp_type", BYTE, "The type of the ICMP or ICMPv6 message that began it.", "it is not ICMP"),
        Column("icmp_code", BYTE, "The code of the ICMP or ICMPv6 message that began it.", "it is not ICMP"),
        Column("first_time", TIME, "The time of its first packet."),
        Column("last_time", TIME, "The time of its last packet."),
        Column("packets_from_initiator", COUNT, "Packets that the initiator sent."),
        Column("packets_from_responder", COUNT, "Packets that the responder sent."),
        Column("bytes_from_initiator", COUNT, "Bytes of the initiator's packets, by their length on the wire."),
        Column("bytes_from_responder", COUNT, "Bytes of the responder's packets, by their length on the wire."),
        Column("verdict", WORD, "The verdict on the packet that began it.", words=_PASSED_OR_NOT),
        Column("reason", WORD, "The reason of that verdict.", words=_SIDE_REASONS),
        Column(
            "answer",
            WORD,
            "What the other end did; refused: it sent an RST or an ICMP unreachable; rejected: nothing, as the cloud "
            "rejected the attempt, which flow logs tell (SPEC 10.31).",
            words=tuple(sorted(ANSWERS)),
        ),
    ),
    side=(
        Column("instance", NAME, "The instance whose filter judged it.", "it was not recorded"),
        Column(
            "groups",
            TEXT,
            "The security groups of the instance, with commas: those when the replay began, or when a change added it.",
            "the instance was not recorded",
        ),
        Column("rule", RULE, "The rule that the reason is about.", "the reason is about no rule"),
        Column(
            "ended",
            WORD,
            "How it ended on this side; open: it still existed when the captures ended.",
            words=tuple(end for end in ENDS if end is not None),
        ),
    ),
    side_meaning="the filter of the initiator's instance (egress) or of the responder's (ingress)",
    side_null="there is no such filter, or the connection did not reach it",
)

ROW_KINDS = (PACKET_ROWS, CONNECTION_ROWS)

# Tables in memory ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableKind:
    """A table for Python (``sgfast.rows``). ``names``: the attributes and functions that have it."""

    names: tuple[str, ...]
    meaning: str
    columns: tuple[Column, ...]


def _flat(kind: RowKind) -> tuple[Column, ...]:
    """Return the columns of rows, named so that they need no quotes in SQL and Python: ``egress_rule``."""
    return tuple(replace(column, name=column.name.replace(".", "_")) for column in kind.flat)


def _with_pending(verdict: Column) -> Column:
    """Return a column of verdicts that may not be known yet, for packets that an engine judged (SPEC 14.10)."""
    only = "Only `sgfast.table` has `pending`, for a fragment that came before its datagram's first one."
    return replace(verdict, meaning=f"{verdict.meaning} {only}", words=VERDICTS)


BOOLEAN = Type("boolean", "true or false", {"type": "boolean"}, "boolean")
FILE = Type("file", "a capture's path or URL", {"type": "string"}, "string, dictionary encoded")

_UNPLACED = "the packet was read on a cluster, by the reference model, or by `sgfast.table`"
_UNKNOWN_END = "there was no room to count the two ends"
_NO_GROUPS = "the end is no instance"
_ALL_SERVICES = "the service is all, or all except some"
_NO_RULES = "there are none, or too many to find"
_NO_DECIDER = "there is no such packet, filter or rule"
_NOT_TIMED = "its beginning was not counted, for lack of room"
_FIRST_PACKET = (
    "several VPCs are told apart, each of which numbers its own packets, or the cloud rejected the attempt"
)

PACKET_TABLE = TableKind(
    ("ReplayResult.tables.packets", "sgfast.table()"),
    "a packet",
    (
        *(_with_pending(column) if column.name == "verdict" else column for column in _flat(PACKET_ROWS)),
        Column("wire_length", COUNT, "The packet's length on the wire, in bytes."),
        Column("file", FILE, "The capture that it is in.", _UNPLACED),
        Column("file_packet", NUMBER, "Its number in that capture, from 1 on, as Wireshark counts.", _UNPLACED),
    ),
)
CONNECTION_TABLE = TableKind(
    ("ReplayResult.tables.connections",),
    "a connection or a denied attempt",
    (
        *_flat(CONNECTION_ROWS),
        Column("first_packet", NUMBER, "The number of its first packet, as in `packets`.", _FIRST_PACKET),
    ),
)
_NOT_RECORDED = "the engine was made without `events`"
_NO_MEMORY_OF_IT = "that instance's filter does not remember it, or there is none"

REMEMBERED_TABLE = TableKind(
    ("Engine.connections()",),
    "a connection that a filter remembers",
    (
        *CONNECTION_ROWS.columns[:6],
        replace(CONNECTION_ROWS.columns[6], null=f"it is not ICMP, or {_NOT_RECORDED}"),
        Column(
            "status", WORD,
            "Whether it is open; ended: a filter has seen its end and remembers it until its deadline; disconnected: a "
            "change of the policy cut it, and its packets are denied until the deadline; denied: the second of two "
            "filters denied its opener, and the first one remembers it.",
            words=tuple(status for status in STATUSES if status),
        ),
        Column(
            "verdict", WORD,
            "The verdict on the packet that began it; deny: `status` is denied.",
            words=_PASSED_OR_NOT,
        ),
        Column("first_packet", NUMBER, "The number of its first packet; the engine's first is 1.", _NOT_RECORDED),
        *(
            replace(column, null=_NOT_RECORDED)
            for column in (CONNECTION_ROWS.columns[7], *CONNECTION_ROWS.columns[9:13])
        ),
        *(
            column
            for side, whose in (("egress", "initiator"), ("ingress", "responder"))
            for column in (
                Column(f"{side}_instance", NAME, f"The {whose}'s instance.", _NO_MEMORY_OF_IT),
                Column(f"{side}_rule", RULE, "The rule that let it begin there.", _NO_MEMORY_OF_IT),
                Column(
                    f"{side}_state", WORD, "What that filter knows of it.", _NO_MEMORY_OF_IT,
                    tuple(state for state in STATES if state),
                ),
                Column(f"{side}_deadline", TIME, "When that filter forgets it if no packet comes.", _NO_MEMORY_OF_IT),
            )
        ),
    ),
)  # fmt: skip

_ENDS_AND_SERVICE = (
    Column("source", NAME, "The instance that opens the connection; the address if none has it.", _UNKNOWN_END),
    Column("destination", NAME, "The instance at the other end; the address if none has it.", _UNKNOWN_END),
    Column("source_groups", TEXT, "The security groups of the source, with commas.", _NO_GROUPS),
    Column("destination_groups", TEXT, "The security groups of the destination, with commas.", _NO_GROUPS),
    Column("peer_address", ADDRESS, "The address at the other end of the filter that judged.", _UNKNOWN_END),
    Column("protocol", PROTOCOL, "The protocol above IP."),
    Column("port", PORT, "The destination port.", "the protocol has no ports, or there was no room to count it"),
    Column("icmp_type", BYTE, "The type of the ICMP or ICMPv6 message that begins it.", "it is not ICMP"),
    Column("icmp_code", BYTE, "The code of the ICMP or ICMPv6 message that begins it.", "it is not ICMP"),
    Column(
        "direction", WORD, "Which filter judged: that of the destination (inbound) or of the source (outbound).",
        words=("inbound", "outbound"),
    ),
)  # fmt: skip
_WHEN = (
    Column("first_time", TIME, "The time of the first packet.", _NOT_TIMED),
    Column("last_time", TIME, "The time of the last packet that is counted here.", _NOT_TIMED),
    Column("first_packet", NUMBER, "The number of the first packet.", f"{_NOT_TIMED}, or {_FIRST_PACKET}"),
)
_WHY = (
    Column("reason", WORD, "Why, in the words of `packets`.", words=_SIDE_REASONS),
    Column("rule", RULE, "The rule that decided.", "no rule did, or an outcome could not be traced to one"),
)
_PACKETS_AND_BYTES = (
    Column("packets", COUNT, "Denied packets, or those that change."),
    Column("bytes", COUNT, "The bytes of these on the wire."),
)

DENIED_TABLE = TableKind(
    ("ReplayResult.tables.would_break", "ReplayResult.tables.denied"),
    "traffic of one kind: the same ends, service, reason and rule",
    (
        *_ENDS_AND_SERVICE, *_WHY,
        Column("connections", COUNT, "In `would_break`, connections that were answered; else attempts."),
        *_PACKETS_AND_BYTES, *_WHEN,
    ),
)  # fmt: skip
ALLOWED_TABLE = TableKind(
    ("ReplayResult.tables.allowed", "ReplayResult.tables.unanswered"),
    "traffic of one kind: the same ends, service, reason, rule and answer",
    (
        *_ENDS_AND_SERVICE, *_WHY,
        Column(
            "answer", WORD, "What the other end did; refused: it sent an RST or an ICMP unreachable.",
            words=tuple(sorted(ALLOWED_ANSWERS)),
        ),
        Column("connections", COUNT, "Connections that were allowed."),
        *_WHEN,
    ),
)  # fmt: skip
RULE_TABLE = TableKind(
    ("ReplayResult.tables.rules",),
    "a rule, with what it allowed or denied",
    (
        Column("rule", RULE, "The rule's id."),
        Column("group", TEXT, "Its security group."),
        Column("direction", WORD, "The packets that it is about.", words=("inbound", "outbound")),
        Column("action", WORD, "What it does.", words=_PASSED_OR_NOT),
        Column("priority", NUMBER, "Its priority; 1 is looked at first."),
        Column("connections", COUNT, "Connections that it began."),
        Column("packets", COUNT, "Packets of these, with replies, or packets that it denied."),
        Column("bytes", COUNT, "The bytes of these on the wire."),
    ),
)
CHANGED_TABLE = TableKind(
    ("DiffResult.tables.changed", "TrafficDiff.tables.changed"),
    "traffic of one kind that one policy blocks and the other lets pass",
    (
        Column("change", WORD, "Whether the new policy denies or allows it.", words=("newly-denied", "newly-allowed")),
        *_ENDS_AND_SERVICE, *_WHY,
        Column("passing_rule", RULE, "The rule of the policy that lets it pass, at the same filter.", "no rule did"),
        Column("connections", COUNT, "Connections that change."),
        Column("answered", COUNT, "Those among them that were answered."),
        *_PACKETS_AND_BYTES, *_WHEN,
    ),
)  # fmt: skip
RULE_EFFECT_TABLE = TableKind(
    ("DiffResult.tables.rules", "TrafficDiff.tables.rules"),
    "a rule that was added, removed or changed, and that decides about a connection whose verdict changes",
    (
        Column("rule", RULE, "The rule's id."),
        Column("group", TEXT, "Its security group."),
        Column("status", WORD, "How it differs.", words=("removed", "added", "changed")),
        Column("newly_denied", COUNT, "Connections that it newly denies, or no longer allows."),
        Column("newly_allowed", COUNT, "Connections that it newly allows, or no longer denies."),
    ),
)


def _part(end: str, end_word: str) -> tuple[Column, ...]:
    """Return the columns of a source or a destination. ``end_word``: "from" or "to"."""
    kinds = "`instances`: all instances; `network` and the like: only its addresses that no instance has."
    return (
        Column(end, TEXT, f"What connections may be opened {end_word}: a name, a CIDR, or the word of its kind."),
        Column(f"{end}_kind", WORD, f"What that is. {kinds}", words=PARTS),
        Column(
            f"{end}_addresses", TEXT, "The addresses of an instance, or the network of the internet, that count.",
            "all of them do",
        ),
        Column(f"{end}_except", TEXT, "Networks, groups or instances within it that do not count.", "there are none"),
        Column(f"{end}_vpcs", TEXT, "The VPCs whose instances count.", "those of all its instances do"),
    )  # fmt: skip


_MAY_BE_OPENED = (
    Column("row", NUMBER, "The answer's row that this is a combination of, from 1 on."),
    *_part("source", "from"),
    *_part("destination", "to"),
    Column("ip_versions", WORD, "IP versions, of which a network has only its own.", words=("4", "6", "4, 6")),
    Column("service", TEXT, "The service as `sgfast reach` writes it: `all`, `tcp/80,443`, `icmp echo-request`."),
    Column("protocol", TEXT, "The service's protocol, by its keyword or number, or several: `2-5`.", _ALL_SERVICES),
    Column("ports", TEXT, "The service's destination ports: `80,8000-8080`.", "it has all ports, or none"),
)  # fmt: skip

REACH_TABLE = TableKind(
    ("ReachResult.tables.rows",),
    "a source, a destination and a service of a row of the answer",
    (
        *_MAY_BE_OPENED,
        Column(
            "rules", TEXT, "The ids of the rules that allow it.", "`rules=True` was not given, or there were too many"
        ),
    ),
)
DIFFERENCE_TABLE = TableKind(
    ("DiffResult.tables.opened", "DiffResult.tables.closed"),
    "a source, a destination and a service that only one policy allows: the new one (`opened`) or the old (`closed`)",
    (
        *_MAY_BE_OPENED,
        Column("old_rules", TEXT, "The ids of the old policy's rules that make the difference.", _NO_RULES),
        Column("new_rules", TEXT, "The ids of the new policy's rules that make the difference.", _NO_RULES),
    ),
)
FINDING_TABLE = TableKind(
    ("CheckResult.tables.findings",),
    "a finding",
    (
        Column("code", TEXT, "The stable code: `SG001`."),
        Column("name", TEXT, "The code in words: `shadowed-rule`."),
        Column("severity", WORD, "How bad it is.", words=("error", "warning", "note")),
        Column("message", TEXT, "What was found."),
        Column("certain", BOOLEAN, "False: traffic that contradicts it may be missing in the captures."),
        Column("members", COUNT, "Instances in the group.", "it is about no group"),
        Column("used_connections", COUNT, "Connections that used the rule.", "nobody can tell, or it is about no rule"),
        Column("in_baseline", BOOLEAN, "True: the baseline has the same finding."),
        Column("accepted", TEXT, "The reason why a file accepts it.", "no file accepts it"),
        Column("group", TEXT, "The security group that it is about.", "it is about none"),
        Column("rule", RULE, "The rule that it is about.", "it is about none"),
        Column("address_group", TEXT, "The address group that it is about.", "it is about none"),
        Column("instances", TEXT, "The first few instances that it is about.", "it is about none"),
        Column("instance_count", COUNT, "The number of these instances."),
        Column("connections", COUNT, "Connections that it is based on.", "it is not about allowed traffic"),
        Column("line", NUMBER, "The line of the policy's document.", "it is not known"),
    ),
)
OUTCOME_TABLE = TableKind(
    ("ExpectationsResult.tables.outcomes",),
    "an expectation, in the order of the file",
    (
        Column("name", TEXT, "Its name.", "it has none"),
        Column("line", NUMBER, "Its line in the file.", "it was not read from a text"),
        Column("source", TEXT, "The words of `from`."),
        Column("destination", TEXT, "The words of `to`."),
        Column("service", TEXT, "The words of `service`."),
        Column("verdict", WORD, "The expected verdict.", words=_PASSED_OR_NOT),
        Column("why", TEXT, "Its reason.", "it has none"),
        Column("outcome", WORD, "Whether it holds; `empty`: it is about no packet.", words=("holds", "fails", "empty")),
        Column("certain", BOOLEAN, "False: an instance of a VPC that is not peered may have one of the addresses."),
        Column("nobody", TEXT, "Words of `from` and `to` that mean no address.", "there are none"),
        Column("cause", TEXT, "A packet that gets another verdict, in one sentence.", "there is none"),
        Column("egress_rule", RULE, "The rule that decides about that packet at its sender.", _NO_DECIDER),
        Column("ingress_rule", RULE, "The rule that decides about that packet at its receiver.", _NO_DECIDER),
    ),
)
TABLE_KINDS = (
    PACKET_TABLE, CONNECTION_TABLE, REMEMBERED_TABLE, DENIED_TABLE, ALLOWED_TABLE, RULE_TABLE, CHANGED_TABLE,
    RULE_EFFECT_TABLE, REACH_TABLE, DIFFERENCE_TABLE, FINDING_TABLE, OUTCOME_TABLE,
)  # fmt: skip
