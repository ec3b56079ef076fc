"""The fate of the records of flow logs (SPEC 10.31)."""

from __future__ import annotations

from typing import Annotated

from sgfast.base.json_types import Absent, Answer, Keywords, at, one_of
from sgfast.policy.model import PORT_PROTOCOLS
from sgfast.report.json.values import Count, JsonProtocol, Port, Printable, Time
from sgfast.traffic.flow_logs.log_records import NOT_TRAFFIC, NoticedRole
from sgfast.traffic.flow_logs.record_packets import LEFT_OUT, UNDECIDED
from sgfast.traffic.flow_logs.unlogged import UnseenWhy
from sgfast.traffic.flow_logs.unsure_openers import PossibleUse

_UNDECIDED = [cause for cause in UNDECIDED if cause is not None]


class JsonInterface(Answer):
    role: NoticedRole
    interface: Annotated[Printable, "As the log names it."]
    address: str
    instance: Annotated[Printable | None, "The instance that has the address; null: none has it."]
    left_out: Annotated[Count, "Records left out because of it."]
    doubtful: Annotated[Count, "Records judged, although their ends may be others."]


class JsonRecords(Answer):
    read: Annotated[Count, "Records read: the sum of all others here."]
    judged: Annotated[Count, "Records of connections that the policy judged."]
    rejected: Annotated[Count, "Records of attempts that the cloud rejected, judged apart."]
    undecided: Annotated[
        dict[str, Count], Keywords(propertyNames=one_of(_UNDECIDED)),
        "Records that do not tell who opened their connection, by cause.",
    ]  # fmt: skip
    undecided_connections: Annotated[Count, "The connections of undecided records."]
    left_out: Annotated[dict[str, Count], Keywords(propertyNames=one_of([*LEFT_OUT, *NOT_TRAFFIC])), "By cause."]
    late: Annotated[Count, "Judged records that came more than an hour of record time after others of their time."]
    in_changes: Annotated[Count, "Records during which the policy changed."]
    silent_hours: Annotated[
        Count, "Hours between the first and last record in which none begins. Only stretches of a day or more count."
    ]
    unlogged: Annotated[list[Printable], "Instances of whose own interfaces there is no record."]
    interfaces: Annotated[
        list[JsonInterface], "Interfaces that had an instance's address at another time, and NAT gateways."
    ]
    formats: Annotated[dict[str, Count], "Files by the format that they were taken for."]
    damaged: Annotated[list[str], "Where and why the reading of a log ended early."] = at("damage")


RecordsField = Annotated[JsonRecords | Absent, "With flow logs: what became of their records."]


class JsonPossibleUse(Answer):
    time: Time = at("time_ns")
    from_: Annotated[str, "The end that would have opened the connection."] = at("source")
    to: str = at("destination")
    protocol: JsonProtocol = at(lambda use: use.service[0])
    port: Port | None = at(lambda use: _port(use))


def _port(use: PossibleUse) -> int | None:
    protocol, key = use.service
    return key if protocol in PORT_PROTOCOLS else None


class JsonUnseenRule(Answer):
    group: str
    rule: str = at("rule.id")
    why: Annotated[
        UnseenWhy,
        "either-opener: nobody knows who opened these connections; icmp-type: nobody knows what this ICMP asked; "
        "not-logged-service and not-logged-protocol: the logs never have what the rule is for.",
    ]
    connections: Annotated[
        Count | None, "Connections that may have used the rule; null: the logs never have what it is for."
    ] = at(lambda unseen: unseen.use and unseen.use.connections)
    example: Annotated[JsonPossibleUse | None, "The first of these connections."] = at("use")


UnseenRulesField = Annotated[
    list[JsonUnseenRule] | Absent,
    "With flow logs, and for suggest with --remove: all rules that no record shows in use, and of which logs cannot "
    "tell whether they are unused.",
]
