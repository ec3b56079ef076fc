"""Parts that the readers of AWS, Terraform and CloudFormation share: permissions, VPCs, prefix lists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from sgfast.clouds.importing.draft import BOTH_VERSIONS, Draft, DraftRule
from sgfast.clouds.importing.object_location import Location
from sgfast.policy.model import ICMP, ICMPV6, TCP, UDP, Direction
from sgfast.policy.networks import network_key, parse_network
from sgfast.policy.protocols import PROTOCOL_NUMBERS
from sgfast.policy.ranges import LAST_PORT
from sgfast.policy.yaml_nodes import show

#: The lists of an interface's addresses, and the key of each address in them.
INTERFACE_ADDRESSES = (
    ("PrivateIpAddresses", "PrivateIpAddress"),
    ("Ipv6Addresses", "Ipv6Address"),
    ("Ipv4Prefixes", "Ipv4Prefix"),
    ("Ipv6Prefixes", "Ipv6Prefix"),
)
_ALL = -1
_REGION = re.compile(r"[a-z]{2,3}(?:-[a-z]+)+-\d{1,2}")


@dataclass(frozen=True, slots=True)
class PermissionTraffic:
    """A permission's protocol and ports, or its ICMP type and code. None means all."""

    protocol: int | None
    ports: tuple[tuple[int, int], ...] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


def parse_traffic(location: Location, protocol: str, first: int | None, last: int | None) -> PermissionTraffic:
    """Interpret ``IpProtocol``, ``FromPort`` and ``ToPort``; -1 means all.

    For tcp and udp, the numbers are ports. For icmp and icmpv6, they are type and code. For any other protocol, AWS
    ignores the numbers and allows the whole protocol.
    """
    word = protocol.lower()
    if word in ("-1", "all"):
        return PermissionTraffic(None)
    number = PROTOCOL_NUMBERS.get(word)
    if number is None:
        if not re.fullmatch(r"[0-9]{1,3}", word) or int(word) > 255:
            raise location.error(f"unknown protocol {show(protocol)}")
        number = int(word)
    if number in (ICMP, ICMPV6):
        kind, code = (None if value in (None, _ALL) else value for value in (first, last))
        for name, value in (("type", kind), ("code", code)):
            if value is not None and not 0 <= value <= 255:
                raise location.error(f"{value} is not an ICMP {name}: use -1 for all, or 0 to 255")
        if kind is None and code is not None:
            raise location.error(f"has an ICMP code ({code}) without a type")
        return PermissionTraffic(number, None, kind, code)
    if number not in (TCP, UDP):
        return PermissionTraffic(number)
    if (first, last) in ((None, None), (_ALL, _ALL), (0, LAST_PORT)):
        return PermissionTraffic(number)
    if first is None or last is None or not 0 <= first <= last <= LAST_PORT:
        ends = ["nothing" if end is None else str(end) for end in (first, last)]
        raise location.error(f"{' to '.join(ends)} is not a range of ports")
    return PermissionTraffic(number, ((first, last),))


def meaning(rule: DraftRule) -> tuple[object, ...]:
    """Return a key that is equal for rules with the same meaning. In AWS, no group has two such rules."""
    cidr: object = rule.cidr
    with suppress(ValueError):  # The draft raises the error for an invalid CIDR.
        cidr = network_key(parse_network(rule.cidr, host_bits=True))
    return (
        rule.direction, rule.ethertype, rule.protocol, rule.ports, rule.icmp_type, rule.icmp_code, cidr, rule.group,
        rule.address_group,
    )  # fmt: skip


def group_id(text: str) -> str:
    """Return the group id in ``sg-…`` or in ``ACCOUNT/sg-…``, Terraform's form for a group of another account."""
    return text.rpartition("/")[2]


def region_of(text: str) -> str:
    """Return the region in an ARN, or of an availability or local zone; "" if there is none."""
    if text.startswith("arn:"):
        text = text.split(":")[3] if text.count(":") >= 3 else ""
    match = _REGION.match(text)
    return match[0] if match else ""


class Vpcs:
    """The VPCs of an account and their regions (SPEC 4.11, 7)."""

    def __init__(self) -> None:
        self._locations: dict[str, Location] = {}
        self._regions: dict[str, str] = {}

    def seen(self, file: str, vpc: str, name: str = "", region: str = "") -> None:
        """Record a VPC by its id. ``name``, ``region``: empty if not known from this object."""
        location = self._locations.setdefault(vpc, Location(file, "VPC", vpc, name))
        if name and not location.name:
            self._locations[vpc] = replace(location, name=name)
        elif name and name != location.name:
            raise location.error(f"is also called {show(name)}")
        if region:
            known_region = self._regions.setdefault(vpc, region)
            if known_region != region:
                raise location.error(f"is in two regions, {show(known_region)} and {show(region)}")

    def knows(self, vpc: str) -> bool:
        return vpc in self._locations

    def put_into(self, draft: Draft) -> None:
        """Add the VPCs to the draft. Their regions only matter if they differ, because a group as a rule's peer only
        means members in the same region.
        """
        several = len(set(self._regions.values())) > 1
        for vpc, location in self._locations.items():
            if several and vpc not in self._regions:
                raise location.error("its region is unknown, but the VPCs are in several regions: add its subnets")
            draft.vpc(location, self._regions[vpc] if several else "")


class AwsAccount:
    """The VPCs and prefix lists of an account, and the conversion of its permissions to rules."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.vpcs = Vpcs()
        #: The VPC of each group and subnet.
        self.vpc_of: dict[str, str] = {}
        #: The IP versions of each prefix list's entries.
        self._versions: dict[str, list[Literal[4, 6]]] = {}

    def prefix_list(self, location: Location, addresses: Iterable[str]) -> None:
        addresses = [*addresses]
        self.draft.address_group(location, addresses)
        versions = set()
        for text in addresses:
            with suppress(ValueError):  # A range of addresses is not parsed here.
                versions.add(parse_network(text, host_bits=True).version)
        self._versions[location.id] = [version for version in BOTH_VERSIONS if version in versions] or [4]

    def rules(
        self,
        location: Location,
        direction: Direction,
        traffic: PermissionTraffic,
        description: str = "",
        *,
        cidrs: Iterable[str] = (),
        cidrs6: Iterable[str] = (),
        groups: Iterable[str] = (),
        lists: Iterable[str] = (),
    ) -> list[DraftRule]:
        """Make the rules of a permission, at least one for each peer, because AWS evaluates each peer on its own.

        A group means all addresses of its members, so it becomes one rule for IPv4 and one for IPv6. A prefix list
        whose entries are unknown becomes two rules, too.
        """
        peers: list[tuple[Literal[4, 6], str, str, str]] = [
            *((4, cidr, "", "") for cidr in cidrs),
            *((6, cidr, "", "") for cidr in cidrs6),
            *((version, "", group, "") for group in groups for version in BOTH_VERSIONS),
            *((version, "", "", name) for name in lists for version in self._versions.get(name, BOTH_VERSIONS)),
        ]
        if not peers:
            self.draft.note("Left out because it names no addresses and no group", location)
        peer_rules: list[DraftRule] = []
        for version, cidr, group, prefix_list in peers:
            if {ICMP: 4, ICMPV6: 6}.get(traffic.protocol or 0, version) == version:
                peer_rules.append(DraftRule(
                    location, direction, version, traffic.protocol, traffic.ports, traffic.icmp_type,
                    traffic.icmp_code, cidr, group, prefix_list, description=description,
                ))  # fmt: skip
            elif cidr:
                message = "Left out because it matches no packet (its ICMP is of the other IP version)"
                self.draft.note(message, location)
        return peer_rules
