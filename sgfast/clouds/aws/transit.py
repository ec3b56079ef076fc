"""Find the VPCs that reach each other over transit gateways (SPEC 10.17).

- A VPC's packets follow the route table of the gateway with which the VPC's attachment is associated. The table has
  static routes, and the CIDR blocks of the attachments that propagate to it. The most specific route wins. Of two
  routes with the same destination, the static route wins.
- A VPC sends those packets to the gateway for which its own route tables have a route to it. A VPC whose route tables
  are in no file is assumed to send all packets.
- A gateway's route table that is in no file is assumed to lead to all VPCs of the gateway.

A policy knows only whole VPCs, so a route to a part of a VPC counts as a route to the VPC.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from typing import NamedTuple

from sgfast.clouds.aws.documents import AwsDocuments
from sgfast.clouds.aws.rules import Vpcs, region_of
from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.values import one_network
from sgfast.policy.model import Network
from sgfast.policy.networks import network_key, without_duplicates

#: The limit for the pairs of VPCs at all gateways together. One gateway with a thousand VPCs has this many pairs.
MOST_PAIRS = 500_000
#: The limits for the CIDR blocks of a VPC (AWS allows 55), and for the attachments of one route.
MOST_BLOCKS = MOST_ENDS = 100
_ATTACHMENT = "TransitGatewayAttachmentId"
_TABLE = "TransitGatewayRouteTableId"


class _Attachment(NamedTuple):
    location: Location
    gateway: str
    vpc: str


class _Route(NamedTuple):
    #: The destination. None: no file states its addresses.
    network: Network | None
    #: The ids of the attachments to which the route leads. A blackhole route has none.
    to: frozenset[str]
    is_static: bool


def read_transit_gateways(files: AwsDocuments, draft: Draft, vpcs: Vpcs) -> None:
    """Add a peering for each pair of VPCs that reach each other. Raises PolicyError for more than ``MOST_PAIRS``."""
    attachments = _vpc_attachments(files, draft)
    if not attachments:
        return
    gateways = [*files.items("TransitGateways", "TransitGatewayId")]
    regions = {item.location.id: region_of(item.text("TransitGatewayArn")) for item in gateways}
    by_gateway: dict[str, list[str]] = defaultdict(list)
    for attachment_id, attachment in attachments.items():
        vpcs.seen(attachment.location.file, attachment.vpc, region=regions.get(attachment.gateway, ""))
        by_gateway[attachment.gateway].append(attachment_id)
    pairs = sum(len(members) * (len(members) - 1) // 2 for members in by_gateway.values())
    if pairs > MOST_PAIRS:
        location = next(iter(attachments.values())).location
        raise location.error(f"the transit gateways join {pairs:,} pairs of VPCs, but at most {MOST_PAIRS:,} are read")
    blocks = _blocks_of_vpcs(files)
    table_of = _tables_of_attachments(files, attachments, gateways)
    routes = _routes_of_tables(files, draft, attachments, blocks)
    sent = _sent_to_gateways(files)
    for gateway, attached in by_gateway.items():
        reached = _reached_from(attached, table_of, routes, attachments, blocks)
        if any(reached[attachment] is None for attachment in attached) and len(attached) > 1:
            file = attachments[attached[0]].location.file
            draft.note(
                "The files lack routes of a transit gateway, so VPCs may count as reachable over it that are not",
                Location(file, "transit gateway", gateway),
            )
        for pair in combinations(attached, 2):
            ways = []
            for here, target in (pair, pair[::-1]):
                tables_lead, vpc, peer = reached[here], attachments[here].vpc, attachments[target].vpc
                sends = vpc not in sent or (gateway in sent[vpc] and _meet(sent[vpc][gateway], blocks.get(peer, ())))
                ways.append(sends and (tables_lead is None or target in tables_lead))
            _add_pair(draft, [attachments[attachment] for attachment in pair], ways)


def _add_pair(draft: Draft, ends: list[_Attachment], ways: list[bool]) -> None:
    a, b = (end.vpc for end in ends)
    if all(ways) and a != b:
        draft.peering(ends[0].location, a, b)
    elif any(ways) and a != b:
        draft.note(
            "Not peered over a transit gateway, because routes lead only one way and nothing could be answered",
            Location(ends[0].location.file, "VPCs", f"{a} and {b}"),
        )


# Contents of the files -----------------------------------------------------------------------------------------------


def _is_in_state(item: JsonObject, *states: str) -> bool:
    """Return whether an object is in one of these states, or has no state."""
    return item.text("State") in ("", *states)


def _vpc_attachments(files: AwsDocuments, draft: Draft) -> dict[str, _Attachment]:
    """Read the attachments of VPCs to gateways, by id."""
    attachments: dict[str, _Attachment] = {}
    for item in files.items("TransitGatewayVpcAttachments", _ATTACHMENT):
        if _is_in_state(item, "available", "modifying"):
            attachment = _Attachment(item.location, item.required("TransitGatewayId"), item.required("VpcId"))
            attachments.setdefault(item.location.id, attachment)
    for item in files.items("TransitGatewayAttachments", _ATTACHMENT):
        kind = item.text("ResourceType") if _is_in_state(item, "available", "modifying") else ""
        if kind == "vpc":
            attachment = _Attachment(item.location, item.required("TransitGatewayId"), item.required("ResourceId"))
            attachments.setdefault(item.location.id, attachment)
        elif kind == "peering":
            message = "VPCs behind another transit gateway count as not reachable, because its peering is not followed"
            draft.note(message, item.location)
    return attachments


def _tables_of_attachments(
    files: AwsDocuments, attachments: Mapping[str, _Attachment], gateways: Iterable[JsonObject]
) -> dict[str, str]:
    """Find the route table of each attachment; "" if it has none. The result lacks an attachment whose table is in no
    file.
    """
    tables: dict[str, str] = {}
    for item in files.items("TransitGatewayAttachments", _ATTACHMENT):
        association = item.nested("Association")
        tables[item.location.id] = association.text(_TABLE) if _is_in_state(association, "associated") else ""
    for table, document in files.of_owner("Associations", _TABLE, "tgw-rtb", _ATTACHMENT):
        for item in document.objects("Associations"):
            if _is_in_state(item, "associated"):
                tables[item.required(_ATTACHMENT)] = table
    defaults: dict[str, str] = {}
    for item in gateways:
        options = item.nested("Options")
        if options.text("DefaultRouteTableAssociation") == "enable":
            defaults[item.location.id] = options.text("AssociationDefaultRouteTableId")
    for item in files.items("TransitGatewayRouteTables", _TABLE):
        if item.flag("DefaultAssociationRouteTable", False):
            defaults[item.required("TransitGatewayId")] = item.location.id
    gateways_with_tables = {attachments[attachment].gateway for attachment in tables if attachment in attachments}
    for attachment_id, attachment in attachments.items():
        if attachment.gateway not in gateways_with_tables and defaults.get(attachment.gateway):
            tables[attachment_id] = defaults[attachment.gateway]
    return tables


def _routes_of_tables(
    files: AwsDocuments, draft: Draft, attachments: Mapping[str, _Attachment], blocks: Mapping[str, Sequence[Network]]
) -> dict[str, list[_Route]]:
    """Read the routes of each gateway's route table that the files contain."""
    routes: dict[str, list[_Route]] = defaultdict(list)
    section = "TransitGatewayRouteTablePropagations"
    propagations: dict[str, Location] = {}
    for table, document in files.of_owner(section, _TABLE, "tgw-rtb", _ATTACHMENT):
        propagations[table] = Location(document.location.file, "route table", table)
        for item in document.objects(section):
            attachment = attachments.get(item.required(_ATTACHMENT))
            if attachment is not None and _is_in_state(item, "enabled"):
                to = frozenset((item.required(_ATTACHMENT),))
                routes[table] += [_Route(block, to, False) for block in blocks.get(attachment.vpc, (None,))]
    searched: dict[str, Location] = {}
    onward: dict[str, Location] = {}
    for table, document in files.of_owner("Routes", _TABLE, "tgw-rtb", "TransitGatewayAttachments"):
        searched[table] = Location(document.location.file, "route table", table)
        if document.flag("AdditionalRoutesAvailable", False):
            raise document.error("AdditionalRoutesAvailable", "is true, so routes are missing: search for fewer")
        for item in document.objects("Routes"):
            if _is_in_state(item, "active", "blackhole"):
                ends = [target.required(_ATTACHMENT) for target in item.objects("TransitGatewayAttachments")]
                if len(ends) > MOST_ENDS:
                    raise item.location.error(f"leads to {len(ends):,} attachments, but at most {MOST_ENDS} are read")
                to = frozenset(ends) if item.text("State") != "blackhole" else frozenset()
                route = _Route(_destination(item), to, item.text("Type") != "propagated")
                routes[table].append(route)
                for vpc in _vpcs_on_the_way(route, attachments, blocks):
                    onward.setdefault(vpc, Location(document.location.file, "VPC", vpc))
    for location in onward.values():
        message = "A transit gateway sends a VPC more than its own addresses, and where that goes on to is not followed"
        draft.note(message, location)
    missing = "The {} of a transit gateway's route table are in none of the files and count as none"
    for table, location in propagations.items():
        if table not in searched:
            draft.note(missing.format("static routes"), location)
    for table, location in searched.items():
        if table not in propagations and all(route.is_static for route in routes[table]):
            draft.note(missing.format("propagated routes"), location)
    return {table: routes[table] for table in (*propagations, *searched)}


def _vpcs_on_the_way(
    route: _Route, attachments: Mapping[str, _Attachment], blocks: Mapping[str, Sequence[Network]]
) -> Iterator[str]:
    """Yield the VPCs to which a route sends addresses of others, such as a VPC of firewalls between all other VPCs."""
    if route.network is None:
        return
    first, last = _ends_of(route.network)
    for end in sorted(route.to & attachments.keys()):
        vpc = attachments[end].vpc
        ranges = [_ends_of(block) for block in blocks.get(vpc, ()) if block.version == route.network.version]
        if vpc in blocks and not any(low <= first and last <= high for low, high in ranges):
            yield vpc


def _destination(route: JsonObject) -> Network | None:
    for key in ("DestinationCidrBlock", "DestinationIpv6CidrBlock"):
        if route.has(key):
            return one_network(route.location, route.required(key))
    return None


def _blocks_of_vpcs(files: AwsDocuments) -> dict[str, tuple[Network, ...]]:
    """Read the CIDR blocks of each VPC. The result lacks VPCs without CIDR blocks in the files."""
    blocks_of_vpcs: dict[str, tuple[Network, ...]] = {}
    for item in files.items("Vpcs", "VpcId"):
        blocks = [item.text("CidrBlock")]
        for version in ("", "Ipv6"):
            for association in item.objects(f"{version}CidrBlockAssociationSet"):
                if association.nested(f"{version}CidrBlockState").text("State") in ("", "associated"):
                    blocks.append(association.text(f"{version}CidrBlock"))
        networks = without_duplicates(one_network(item.location, block) for block in blocks if block)
        if len(networks) > MOST_BLOCKS:
            raise item.location.error(f"has {len(networks):,} CIDR blocks, but at most {MOST_BLOCKS} are read")
        if networks:
            blocks_of_vpcs[item.location.id] = networks
    return blocks_of_vpcs


def _sent_to_gateways(files: AwsDocuments) -> dict[str, dict[str, _Ranges | None]]:
    """Find the addresses that each VPC sends to each gateway; None: possibly all. The result lacks VPCs whose route
    tables are in no file.
    """
    routes: dict[str, dict[str, list[Network | None]]] = {}
    for item in files.items("RouteTables", "RouteTableId"):
        of_vpc = routes.setdefault(item.required("VpcId"), {})
        for route in item.objects("Routes"):
            if route.has("TransitGatewayId") and _is_in_state(route, "active"):
                of_vpc.setdefault(route.required("TransitGatewayId"), []).append(_destination(route))
    return {
        vpc: {
            gateway: None if None in ranges else _Ranges([network for network in ranges if network is not None])
            for gateway, ranges in of_vpc.items()
        }
        for vpc, of_vpc in routes.items()
    }


# Reachable VPCs ------------------------------------------------------------------------------------------------------


def _reached_from(
    attached: Sequence[str],
    table_of: Mapping[str, str],
    routes: Mapping[str, list[_Route]],
    attachments: Mapping[str, _Attachment],
    blocks: Mapping[str, Sequence[Network]],
) -> dict[str, set[str] | None]:
    """Find the attachments to which each attachment's route table leads; None if the files do not contain the table."""
    blocks_of = {attachment: blocks.get(attachments[attachment].vpc, ()) for attachment in attached}
    tables = {table_of[attachment] for attachment in attached if attachment in table_of}
    of_table: dict[str, set[str] | None] = {
        table: _targets(routes[table], blocks_of) if table in routes else None for table in tables
    }
    of_table[""] = set()
    return {attachment: of_table[table_of[attachment]] if attachment in table_of else None for attachment in attached}


def _targets(routes: Iterable[_Route], blocks_of: Mapping[str, Sequence[Network]]) -> set[str]:
    """Find the attachments to which the winning route leads for at least one of their addresses (``blocks_of``)."""
    reached = {end for route in routes if route.network is None for end in route.to if end in blocks_of}
    ranges = {end: _Ranges(blocks) for end, blocks in blocks_of.items()}
    for version, first, last, to in _winners(routes):
        for end in [*to]:
            if not blocks_of.get(end) or ranges[end].meet(version, first, last):
                to.discard(end)  # The other ranges of the route share this set and need not test the attachment again.
                if end in blocks_of:
                    reached.add(end)
    return reached


class _Ranges:
    """The addresses of CIDR blocks. The time of a look-up grows with the logarithm of the number of blocks."""

    def __init__(self, blocks: Sequence[Network]) -> None:
        self._firsts: dict[int, list[int]] = {}
        #: For each block, in order of first addresses: the highest last address of this and all earlier blocks.
        self._lasts: dict[int, list[int]] = {}
        for version in (4, 6):
            ends = sorted(_ends_of(block) for block in blocks if block.version == version)
            self._firsts[version] = [first for first, _ in ends]
            self._lasts[version] = [*accumulate((last for _, last in ends), max)]

    def meet(self, version: int, first: int, last: int) -> bool:
        """Return whether a range, both ends included, overlaps any block."""
        begun = bisect_right(self._firsts[version], last)
        return begun > 0 and self._lasts[version][begun - 1] >= first


def _meet(sent: _Ranges | None, blocks: Sequence[Network]) -> bool:
    """Return whether any address of the blocks may be sent. Without known blocks or routes, the answer is True."""
    return sent is None or not blocks or any(sent.meet(block.version, *_ends_of(block)) for block in blocks)


def _winners(routes: Iterable[_Route]) -> Iterator[tuple[int, int, int, set[str]]]:
    """Yield ranges of addresses with the attachments to which the most specific route leads: IP version, first address,
    last address, attachments. All ranges of a route share one set of attachments.
    """
    best: dict[bytes, tuple[Network, bool, set[str]]] = {}
    for route in routes:
        if route.network is not None:
            key = network_key(route.network)
            if key not in best or (route.is_static and not best[key][1]):
                best[key] = route.network, route.is_static, set(route.to)
            elif not best[key][1]:
                best[key][2].update(route.to)
    for version in (4, 6):
        spans = [(*_ends_of(network), to) for network, _, to in best.values() if network.version == version]
        spans.sort(key=lambda span: (span[0], -span[1]))
        # The last address and the attachments of each route around the current address, from the outermost inwards.
        begun: list[tuple[int, set[str]]] = []
        at = 0
        for first, last, to in (*spans, (1 << 128, 0, set[str]())):
            while begun and begun[-1][0] < first:
                end, ended = begun.pop()
                if at <= end:
                    yield version, at, end, ended
                at = max(at, end + 1)
            if begun and at < first:
                yield version, at, first - 1, begun[-1][1]
            begun.append((last, to))
            at = first


def _ends_of(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)
