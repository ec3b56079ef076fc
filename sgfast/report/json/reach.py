"""Who may open connections to whom, by the rules alone (SPEC 12.3)."""

from __future__ import annotations

from typing import Annotated, Literal

from sgfast.base.json_types import Absent, Answer, Keywords, at
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.values import File, Text, TextOrNull
from sgfast.rules.reaching.names import PartKind

_ALL_EXCEPT = "all except "


class JsonPart(Answer):
    kind: Annotated[
        PartKind,
        "any: all addresses. instances: all instances. address-group, network and internet: only its addresses "
        "that no instance owns.",
    ]
    name: Annotated[TextOrNull, "The name of the group or instance, or the CIDR."]
    except_: Annotated[
        list[str],
        "For a network and the internet: the CIDRs within it that do not count. For instances: the groups and "
        "instances that do not count.",
    ] = at("without")
    addresses: Annotated[
        list[str] | None,
        "For an instance: its CIDRs that count. For the internet: the CIDR whose public addresses count. null: "
        "all.",
    ] = at(lambda part: part.addresses or None)
    vpcs: Annotated[
        list[str] | Absent,
        "The VPCs of the instances that count, if others of the same name are in other VPCs. In a comparison: their "
        "VPCs, if rows differ in nothing else.",
    ] = at(lambda part: part.vpcs or None)
    members: Annotated[
        Literal["unknown"] | Absent, "In a comparison: of a group, if no file says who is in it."
    ] = at(lambda part: "unknown" if part.is_unknown else None)


Parts = Annotated[list[JsonPart], Keywords(minItems=1)]


class JsonReachRow(Answer):
    """Each of the sources may open connections to each of the destinations, for all of the services."""

    from_: Parts = at("sources")
    to: Parts = at("destinations")
    ip_versions: Annotated[list[Literal[4, 6]], Keywords(minItems=1)] = at("families")
    services: Annotated[
        list[Text],
        Keywords(minItems=1),
        "all, tcp, tcp/80,8000-8080, icmp echo-request, icmp/9-10, protocols 2-5, ...",
    ] = at(lambda row: row.services.removeprefix(_ALL_EXCEPT).split("; "))
    all_services_except_these: Annotated[bool, "The row is for all other services."] = at(
        lambda row: row.services.startswith(_ALL_EXCEPT)
    )


class JsonReach(Answer, published="reach"):
    policy: File = at("policy.origin")
    from_: Annotated[str, "The sources that were asked for: a name, a network, internet or any."] = at("sources.name")
    to: Annotated[str, "The destinations that were asked for."] = at("destinations.name")
    services: Annotated[str, "The services that were asked for."] = at("asked")
    rows: Annotated[
        list[JsonReachRow],
        "Together, the rows are exactly the connections that may be opened. A combination may be in several rows.",
    ]
    evidence: EvidenceField
    warnings: list[str]
