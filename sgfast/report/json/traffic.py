"""Types of objects about captured traffic: rows of who reaches whom, damage, and packets that were not judged."""

from __future__ import annotations

from operator import itemgetter
from typing import Annotated, Any, get_args

from sgfast.base.json_types import Answer, Keywords, at, one_of
from sgfast.policy.model import Action, Policy
from sgfast.report.denial_reasons import Reasons
from sgfast.report.json.values import Byte, Count, File, JsonProtocol, Number, Port, Time
from sgfast.report.rollup import By, RollupRow
from sgfast.report.rollup.ends import EndKind
from sgfast.report.rollup.uncertain import UncertainRollup
from sgfast.traffic.flow_logs.unsure_openers import UnsureOpeners
from sgfast.traffic.preprocess import TunnelKind

#: Default limit of the rows of each list. ``--connections`` lists more.
MOST_ROWS = 1000
FOLDED_BY = "Key by which the rows of {} are folded (--by)."


class JsonLeftOut(Answer):
    before_start: Annotated[Count | None, "null: there was no --start."]
    after_end: Annotated[Count | None, "Packets at --end or later."]
    filter: Annotated[Count | None, "Packets that --filter does not match."]
    duplicates: Annotated[Count | None, "Copies of packets that --dedup found."]


LeftOutField = Annotated[
    JsonLeftOut | None,
    "Packets of the captures that were not judged, by option; null: no option leaves packets out.",
]
Decapsulated = Annotated[
    dict[str, Count],
    Keywords(propertyNames=one_of(get_args(TunnelKind))),
    "Packets taken out of tunnels (--decap), by kind of tunnel; only kinds that occurred. Absent without --decap.",
]


class JsonDamage(Answer):
    file: File
    offset: Annotated[Count, "Offset in the file in bytes, after decompression if the file is compressed."]
    packet: Annotated[Number, "1-based number, in this file, of the packet that could not be read."]
    cause: str


DamagedField = Annotated[JsonDamage | None, "Where and how a capture is damaged; everything before is reported."]


class JsonEnd(Answer):
    name: str = at("text")
    called: Annotated[str, "The name as texts write it, with the provider's words (SPEC 10.28)."]
    kind: Annotated[
        EndKind,
        "groups: the security groups of the instances, with commas; network: a CIDR that a rule "
        "names; any: the row is not about ends.",
    ]
    groups: Annotated[
        list[str],
        "The security groups of the instances at this end; empty for addresses.",
    ]
    ends: Annotated[Count, "Number of different instances or addresses at this end."]


class JsonExample(Answer):
    packet: Annotated[Number | None, "The number of the first packet among those of all captures."] = at(
        lambda example: example.packet or None
    )
    time: Time = at("time_ns")
    from_: str = at("source")
    to: str = at("destination")
    protocol: JsonProtocol = at("service.protocol")
    port: Port | None = at("service.port")
    icmp_type: Byte | None = at("service.icmp_type")
    icmp_code: Byte | None = at("service.icmp_code")


class JsonUse(Answer):
    """Source, destination and service of traffic, with the number of connections."""

    from_: JsonEnd = at(lambda row: JsonEnd.of(row.source, ends=row.sources))
    to: JsonEnd = at(lambda row: JsonEnd.of(row.destination, ends=row.destinations))
    service: Annotated[str, "tcp/5432; several with commas; tcp (412 ports) or 7 services if there are many."]
    connections: Count


class JsonTraffic(JsonUse):
    """Source, destination and service of traffic, with its amounts."""

    packets: Count
    bytes: Count
    first_time: Time | None = at("first_ns")
    last_time: Time | None = at("last_ns")
    example: JsonExample | None


class JsonNearest(Answer):
    rule: str = at(itemgetter(0))
    differs: list[str] = at(itemgetter(1))


def nearest(row: RollupRow, reasons: Reasons) -> list[Any]:
    """Return the nearest rules of a row, as values for a list of ``JsonNearest``."""
    return [] if row.kind is None else reasons.nearest_rules(row.kind)


class JsonLeft(Answer):
    """The sums of the rows beyond --top."""

    rows: Count = at("unlisted_rows")
    connections: Count = at("unlisted_connections")
    packets: Count = at("unlisted_packets")


class JsonReading(Answer):
    from_: JsonEnd = at(lambda reading: JsonEnd.of(reading.source, ends=reading.sources))
    to: JsonEnd = at(lambda reading: JsonEnd.of(reading.destination, ends=reading.destinations))
    service: str
    verdict: Action
    reason: Annotated[str, "The word of SPEC 10.3."]
    rule: Annotated[str | None, "The rule that decided, if only one rule did."]


ReadingsOfRow = Annotated[
    list[JsonReading],
    "The verdict if either end opened these connections. The likelier reading is first; it is that of the row.",
]


class JsonUncertain(JsonTraffic):
    readings: ReadingsOfRow


def uncertain_answer(policy: Policy, openers: UnsureOpeners | None, by: By, most: int) -> list[dict[str, Any]] | None:
    """Return the rows of connections that either end may have opened (SPEC 10.30); None for captures."""
    if openers is None:
        return None
    rollup = UncertainRollup(policy, openers.differing)
    folded = rollup.fold("cannot-tell", by=by, most=most)
    return [JsonUncertain.of(row, readings=rollup.readings(row)) for row in folded.rows]
