"""Warn about parts of AWS other than security groups that pass or deny traffic, or change its addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sgfast.clouds.aws.documents import AwsDocuments
from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location

_ACLS = "Network ACLs ({}) are not applied, so traffic that is reported as allowed may be denied by one"
_BALANCERS = (
    "Load balancers ({}) count as their network interfaces, and what they pass on usually comes from the addresses of "
    "these"
)
_GATEWAYS = "NAT gateways ({}) have no security groups and are no instances"


def warn_of_others(files: AwsDocuments, draft: Draft) -> None:
    """Add a note about each network ACL, load balancer and NAT gateway of an account, with their number."""
    _note(draft, _ACLS, (item.location for item in _filtering_acls(files)))
    for item in _filtering_acls(files):
        draft.unread_filter("network ACL", item.location, {key: item.items(key) for key in ("Entries", "Associations")})
    _note(draft, _BALANCERS, _load_balancers(files))
    _note(draft, _GATEWAYS, (item.location for item in nat_gateways(files)))


def _note(draft: Draft, message: str, locations: Iterable[Location]) -> None:
    location_by_id = {location.id: location for location in locations}
    for location in location_by_id.values():
        draft.note(message.format(f"{len(location_by_id):,}"), location)


def nat_gateways(files: AwsDocuments) -> Iterator[JsonObject]:
    """Yield the NAT gateways that exist. AWS lists deleted NAT gateways for another hour."""
    for item in files.items("NatGateways", "NatGatewayId"):
        if item.text("State") not in ("deleted", "failed"):
            yield item


def _load_balancers(files: AwsDocuments) -> Iterator[Location]:
    """Yield the load balancers of their own listings. Without such listings, yield their network interfaces."""
    balancers = [
        Location(item.location.file, item.location.kind, item.location.id)
        for section in ("LoadBalancers", "LoadBalancerDescriptions")
        for item in files.items(section, "LoadBalancerName")
    ]
    yield from balancers
    for item in () if balancers else files.items("NetworkInterfaces", "NetworkInterfaceId"):
        if item.text("InterfaceType").endswith("load_balancer") or item.text("Description").startswith("ELB "):
            yield replace(item.location, name=item.text("Description"))


def _filtering_acls(files: AwsDocuments) -> Iterator[JsonObject]:
    """Yield the network ACLs of subnets that deny some traffic."""
    for item in files.items("NetworkAcls", "NetworkAclId"):
        entries = [*item.objects("Entries")]
        is_used = bool(item.items("Associations")) or not item.has("Associations")
        if is_used and not all(_lets_all_pass(entries, is_egress) for is_egress in (False, True)):
            yield item


def _lets_all_pass(entries: Iterable[JsonObject], is_egress: bool) -> bool:
    """Return whether a network ACL allows all IPv4 traffic of a direction, and all IPv6 traffic if it has such entries.
    """
    of_way = [entry for entry in entries if entry.flag("Egress", False) == is_egress]
    of_way.sort(key=lambda entry: entry.number("RuleNumber") or 0)
    firsts = [next((entry for entry in of_way if entry.has(key)), None) for key in ("CidrBlock", "Ipv6CidrBlock")]
    return firsts[0] is not None and all(
        first is None
        or (
            first.text("RuleAction") == "allow"
            and first.text("Protocol") in ("-1", "all")
            and (first.text("CidrBlock") or first.text("Ipv6CidrBlock")) in ("0.0.0.0/0", "::/0")
        )
        for first in firsts
    )
