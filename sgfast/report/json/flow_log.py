"""Flow log records compared with a policy (SPEC 10.16)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from sgfast.json_types import Answer, at
from sgfast.policy.model import Action, Direction
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.values import Count, JsonProtocol, Number, Port, Printable, TextOrNull

#: An address of 4 or 16 bytes.
_Address = Annotated[str, lambda packed: str(ip_address(packed))]


class JsonRecord(Answer):
    log: str = at("file")
    line: Number = at("record.line")
    interface: TextOrNull = at("record.interface")
    src: _Address = at("record.src")
    dst: _Address = at("record.dst")
    sport: Port = at("record.sport")
    dport: Port = at("record.dport")
    protocol: JsonProtocol = at("record.protocol")
    packets: Count = at("record.packets")
    bytes: Count = at("record.bytes")
    start: Count = at("record.start")
    end: Count = at("record.end")
    action: Literal["ACCEPT", "REJECT"] = at(lambda found: "ACCEPT" if found.record.accepted else "REJECT")
    instance: str
    direction: Direction
    role: Annotated[
        Literal["opener", "reply"], "Whether the record was judged as the opener of a connection or as replies."
    ]
    verdict: Annotated[Action, "The policy's verdict."]
    reason: Literal["rule", "no-rule", "deny-rule", "vpc-isolated", "infrastructure"]
    rule: str | None


class JsonFlowLog(Answer, published="flowlog"):
    logs: list[Printable]
    evidence: EvidenceField
    records: Count
    agreeing: Count
    disagreeing: Count
    disagreeing_packets: Count = at("packets")
    disagreeing_bytes: Count = at("bytes")
    undecided: Annotated[dict[str, Count], "Records with too little information, by the missing information."]
    out_of_scope: Annotated[dict[str, Count], "Records that no filter of the policy judges, by cause."]
    nodata: Count
    skipdata: Count
    broken_lines: Count
    damaged: list[str] = at("damage")
    first_time: Annotated[int | None, "Unix seconds."] = at("first_second")
    last_time: int | None = at("last_second")
    disagreements: Annotated[list[JsonRecord], "The first thousand disagreements."]
    warnings: list[str] = at("policy.warnings")
