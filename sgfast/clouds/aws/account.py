"""Read the output of ``aws ec2 describe-…``: groups, network interfaces, instances, VPCs, peerings, prefix lists.

The commands are ``describe-security-groups``, ``describe-security-group-rules``, ``describe-network-interfaces``,
``describe-instances``, ``describe-vpcs``, ``describe-subnets``, ``describe-vpc-peering-connections``,
``describe-managed-prefix-lists`` (or ``describe-prefix-lists``), ``get-managed-prefix-list-entries``, and the commands
for transit gateways (``aws_transit``). The outputs may be in separate files or combined in one.

- A permission lists many ranges, groups and prefix lists. Each becomes a rule, because AWS evaluates each on its own.
  ``describe-security-group-rules`` prints these rules one by one, with their ids.
- The entries of a prefix list do not name their list. The list's id is in the file name
  (``pl-0123456789abcdef0.json``) or in a ``PrefixListId`` next to the entries. ``Entries`` may also be added to a list
  in the output of ``describe-managed-prefix-lists``.
- Only private addresses belong to an interface. Packets within a VPC never have public addresses, and a group as a
  rule's peer means the private addresses of its members.
- An interface without groups, such as a NAT gateway's, is not filtered and is no instance.

Network ACLs, load balancers and NAT gateways only give warnings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sgfast.clouds.aws.documents import AwsDocuments, name_tag
from sgfast.clouds.aws.other_controls import nat_gateways, warn_of_others
from sgfast.clouds.aws.rules import INTERFACE_ADDRESSES, AwsAccount, meaning, parse_traffic, region_of
from sgfast.clouds.aws.transit import read_transit_gateways
from sgfast.clouds.importing.draft import Draft, DraftInstance, DraftRule, numbered
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.sources import Source
from sgfast.policy.model import Direction
from sgfast.policy.yaml_nodes import show

_DIRECTIONS: dict[str, Direction] = {"IpPermissions": "inbound", "IpPermissionsEgress": "outbound"}
_PEERS = ("IpRanges", "Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs")
_PERMISSION = ("IpProtocol", "FromPort", "ToPort", *_PEERS)
_RULE = ("SecurityGroupRuleId", "SecurityGroupRuleArn", "GroupId", "GroupOwnerId", "IsEgress", "Tags")
_NUMBERS = ("IpProtocol", "FromPort", "ToPort")
#: The peers of a rule in ``describe-security-group-rules``, the same in a permission, and for ``AwsAccount.rules``.
_RULE_PEERS = (
    ("CidrIpv4", "IpRanges", "CidrIp", "cidrs"),
    ("CidrIpv6", "Ipv6Ranges", "CidrIpv6", "cidrs6"),
    ("PrefixListId", "PrefixListIds", "PrefixListId", "lists"),
)


def read(sources: Sequence[Source]) -> Draft:
    """Read files into one draft."""
    return _AwsReader(sources).draft


class _AwsReader:
    def __init__(self, sources: Sequence[Source]) -> None:
        self.draft = Draft("aws")
        self._files = AwsDocuments(sources)
        self._account = AwsAccount(self.draft)
        self._vpcs = self._account.vpcs
        #: Values of the Name tag by instance id.
        self._instance_names: dict[str, str] = {}
        #: The ids of the network interfaces of NAT gateways.
        self._of_nat_gateways = {
            address.text("NetworkInterfaceId")
            for item in nat_gateways(self._files)
            for address in item.objects("NatGatewayAddresses")
        }
        self._read_vpcs()
        self._read_prefix_lists()
        self._read_groups()
        self._read_interfaces()
        self._read_peerings()
        warn_of_others(self._files, self.draft)
        self._vpcs.put_into(self.draft)

    # VPCs

    def _read_vpcs(self) -> None:
        for item in self._files.items("Vpcs", "VpcId"):
            self._vpcs.seen(item.location.file, item.location.id, item.location.name)
        for item in self._files.items("Subnets", "SubnetId"):
            zone = region_of(item.text("AvailabilityZone"))
            self._vpcs.seen(item.location.file, item.required("VpcId"), region=zone)

    def _read_peerings(self) -> None:
        """Read peerings and transit gateways. Call this after all VPCs are known."""
        inactive: dict[str, Location] = {}
        for item in self._files.items("VpcPeeringConnections", "VpcPeeringConnectionId"):
            status = item.nested("Status").required("Code")
            if status != "active":
                inactive.setdefault(item.location.id, item.location)
                continue
            sides = [item.nested(side) for side in ("RequesterVpcInfo", "AccepterVpcInfo")]
            ends = [side.required("VpcId") for side in sides]
            for side, vpc in zip(sides, ends, strict=True):
                if self._vpcs.knows(vpc):
                    self._vpcs.seen(item.location.file, vpc, region=side.text("Region"))
            self.draft.peering(item.location, *ends)
        for location in inactive.values():
            self.draft.note("Peers nothing because it is not active", location)
        read_transit_gateways(self._files, self.draft, self._vpcs)

    # Prefix lists

    def _read_prefix_lists(self) -> None:
        names: dict[str, Location] = {}
        entries: dict[str, tuple[Location, list[str]]] = {}

        def add(location: Location, addresses: list[str]) -> None:
            listed_first = entries.setdefault(location.id, (location, addresses))
            if set(listed_first[1]) != set(addresses):
                raise location.differs_from(listed_first[0])

        for item in self._files.items("PrefixLists", "PrefixListId"):
            location = Location(item.location.file, "prefix list", item.location.id, item.text("PrefixListName"))
            names.setdefault(location.id, location)
            if item.has("Entries"):
                add(location, [entry.required("Cidr") for entry in item.objects("Entries")])
            elif item.has("Cidrs"):
                add(location, item.texts("Cidrs"))
        for list_id, document, addresses in self._files.list_entries():
            add(names.get(list_id) or Location(document.location.file, "prefix list", list_id), addresses)
        for list_id, (location, addresses) in entries.items():
            self._account.prefix_list(names.get(list_id, location), addresses)

    # Groups

    def _read_groups(self) -> None:
        groups = []
        for item in self._files.items("SecurityGroups", "GroupId"):
            location = Location(item.location.file, "security group", item.location.id, item.text("GroupName"))
            vpc = item.text("VpcId")
            self.draft.group(location, item.text("Description"), vpc=vpc)
            if vpc:
                self._vpcs.seen(location.file, vpc, region=region_of(item.text("SecurityGroupArn")))
            groups.append(item.at(location))
        with_rules = {group.location.id for group in groups if group.has(*_DIRECTIONS)}
        listed = self._read_rule_list({group.location.id for group in groups}, with_rules)
        first_of_group: dict[str, JsonObject] = {}
        for group in groups:
            first_group = first_of_group.setdefault(group.location.id, group)
            if first_group is group:
                for key, direction in _DIRECTIONS.items():
                    for permission in group.objects(key):
                        for peer_rules in self._rules_of(direction, permission):
                            rule = listed.pop((group.location.id, meaning(peer_rules[0])), None)
                            self._add_rules(group.location.id, peer_rules, rule.id if rule else "")
            elif any(first_group.items(key) != group.items(key) for key in _DIRECTIONS):
                raise group.location.differs_from(first_group.location)
        for (group_id, _), location in listed.items():
            message = f"is not among the permissions of security group {show(group_id)}: export both at the same time"
            raise location.error(message)

    def _read_rule_list(self, described: set[str], with_rules: set[str]) -> dict[tuple[str, object], Location]:
        """Add the rules of ``describe-security-group-rules``, which are listed one by one.

        Groups in ``with_rules`` list their rules, too. Return the locations of such groups' rules by group and meaning,
        so that the caller can give the same ids to the rules that the groups list.
        """
        rule_locations: dict[tuple[str, object], Location] = {}
        items = self._files.items("SecurityGroupRules", "SecurityGroupRuleId")
        listed = [(item.required("GroupId"), item) for item in items]
        for group, item in listed:
            if group not in described:
                self.draft.group(Location(item.location.file, "security group", group))
        for group, item in listed:
            for peer_rules in self._rules_of("outbound" if _is_outbound(item) else "inbound", _as_permission(item)):
                known_location = rule_locations.setdefault((group, meaning(peer_rules[0])), item.location)
                if known_location is item.location:
                    self._add_rules(group, peer_rules, item.location.id)
        return {key: location for key, location in rule_locations.items() if key[0] in with_rules}

    def _add_rules(self, group: str, peer_rules: list[DraftRule], rule_id: str) -> None:
        for rule in numbered(peer_rules, rule_id):
            self.draft.rule(group, rule)

    def _rules_of(self, direction: Direction, permission: JsonObject) -> Iterator[list[DraftRule]]:
        """Yield the rules for each peer of a permission, except peers that give no rules."""
        return filter(None, self._rules_of_peers(direction, permission))

    def _rules_of_peers(self, direction: Direction, permission: JsonObject) -> Iterator[list[DraftRule]]:
        draft = self.draft
        permission.refuse_unread(_PERMISSION)
        traffic = parse_traffic(
            permission.location, permission.required("IpProtocol"), permission.number("FromPort"),
            permission.number("ToPort"),
        )  # fmt: skip

        if not any(permission.items(key) for key in _PEERS):
            self._account.rules(permission.location, direction, traffic)
        for _, section, key, kind in _RULE_PEERS:
            for item in permission.objects(section):
                peer = {kind: [item.required(key)]}
                yield self._account.rules(item.location, direction, traffic, item.text("Description"), **peer)
        for item in permission.objects("UserIdGroupPairs"):
            # The group of load balancers in EC2-Classic has only a name.
            peer_group = item.text("GroupId") or item.required("GroupName")
            if not draft.has_group(peer_group):
                status = item.text("PeeringStatus")
                if status and status != "active":
                    draft.note("Left out because the group it names is in a VPC no longer peered", item.location)
                    continue
                draft.foreign.setdefault(peer_group, _owner(item))
            yield self._account.rules(item.location, direction, traffic, item.text("Description"), groups=[peer_group])

    # Interfaces

    def _read_interfaces(self) -> None:
        attached: list[tuple[str, JsonObject]] = []
        for holder in (*self._files.documents, *self._files.items("Reservations", "")):
            for instance in holder.objects("Instances"):
                instance_id = instance.required("InstanceId")
                instance = instance.at(Location(instance.location.file, "instance", instance_id, name_tag(instance)))
                self._instance_names[instance_id] = instance.location.name
                interfaces = [*instance.objects("NetworkInterfaces")]
                for interface in interfaces:
                    attached.append((instance_id, interface))
                if not interfaces and instance.has("PrivateIpAddress"):
                    self._add(instance, instance.location, instance.objects("SecurityGroups"))
        for interface in self._files.items("NetworkInterfaces", "NetworkInterfaceId"):
            attached.append((interface.nested("Attachment").text("InstanceId"), interface))
        # The key of an interface is its instance's id with its own id, because hand-made samples reuse interface ids.
        pairs = {(instance_id, interface.required("NetworkInterfaceId")) for instance_id, interface in attached}
        holders = Counter(interface_id for _, interface_id in pairs)
        for instance_id, interface in attached:
            own_id = interface.required("NetworkInterfaceId")
            name = name_tag(interface)
            if not name and not interface.nested("Attachment").number("DeviceIndex"):
                name = self._instance_names.get(instance_id, "")
            unique = own_id if holders[own_id] == 1 else f"{own_id}-{instance_id or 'unattached'}"
            location = Location(interface.location.file, "network interface", unique, name)
            if unique != own_id:
                self.draft.made_up(unique)
            self._add(interface.at(location), location, interface.objects("Groups"), instance_id)

    def _add(self, interface: JsonObject, location: Location, groups: Iterable[JsonObject], device: str = "") -> None:
        vpc = interface.text("VpcId")
        if not vpc:
            self.draft.note("Left out because it is in no VPC (EC2-Classic), which a policy cannot express", location)
            return
        self._vpcs.seen(location.file, vpc, region=region_of(interface.text("AvailabilityZone")))
        group_ids = [group.required("GroupId") for group in groups]
        if not group_ids:
            if interface.text("NetworkInterfaceId") not in self._of_nat_gateways:
                self.draft.note("Not an instance because no security group filters it", location)
            return
        addresses = [item.required(key) for section, key in INTERFACE_ADDRESSES for item in interface.objects(section)]
        if interface.has("PrivateIpAddress"):
            addresses.append(interface.required("PrivateIpAddress"))
        # The interface of a load balancer, a database or a function belongs to no instance, and its description says
        # what it is for.
        description = "" if device else interface.text("Description")
        self.draft.instance(DraftInstance(
            location, vpc, list(dict.fromkeys(addresses)), group_ids, device=device, description=description
        ))  # fmt: skip


def _is_outbound(rule: JsonObject) -> bool:
    if not rule.has("IsEgress"):
        raise rule.location.error("IsEgress is missing")
    return rule.flag("IsEgress", False)


def _as_permission(rule: JsonObject) -> JsonObject:
    """Convert a rule of ``describe-security-group-rules`` into a permission with a single peer."""
    described = {"Description": rule.get("Description")}
    permission: dict[str, Any] = {key: rule.get(key) for key in _NUMBERS}
    for key, section, name, _ in _RULE_PEERS:
        if rule.has(key):
            permission[section] = [{name: rule.get(key)} | described]
    if rule.has("ReferencedGroupInfo"):
        permission["UserIdGroupPairs"] = [rule.mapping("ReferencedGroupInfo") | described]
    if len(permission) == len(_NUMBERS):
        raise rule.location.error("has no peer: no CIDR, no prefix list and no security group")
    rule.refuse_unread(_RULE)
    return JsonObject(permission, rule.location)


def _owner(pair: JsonObject) -> str:
    keys = (("GroupName", "name"), ("UserId", "account"), ("VpcId", "VPC"), ("VpcPeeringConnectionId", "peering"))
    return ", ".join(f"{word} {show(pair.text(key))}" for key, word in keys if pair.has(key))
