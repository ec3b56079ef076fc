"""Read Terraform's AWS resources as groups, rules and interfaces.

A group's ``ingress`` and ``egress`` attributes list the rules that AWS returned at Terraform's last refresh. They
include rules that are resources of their own. A group's planned rules are therefore the listed rules, minus the rules
of earlier rule resources, plus the rules of planned rule resources. A rule resource that the plan deletes is left out
even though its group still lists the rule. The same applies to the groups of an interface with
``aws_network_interface_sg_attachment``, and to the entries of a prefix list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sgfast.clouds.aws.rules import AwsAccount, group_id, meaning, parse_traffic, region_of
from sgfast.clouds.importing.draft import Draft, DraftInstance, DraftRule, numbered
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location, one_line
from sgfast.clouds.terraform.stack import Stack, StackResource
from sgfast.policy.model import DEFAULT_VPC, Direction
from sgfast.policy.yaml_nodes import show

_GROUPS = frozenset(("aws_security_group", "aws_default_security_group"))
_VPCS = frozenset(("aws_vpc", "aws_default_vpc"))
_SUBNETS = frozenset(("aws_subnet", "aws_default_subnet"))
_LISTS = frozenset(("aws_ec2_managed_prefix_list",))
_INTERFACES = frozenset(("aws_network_interface", "aws_instance"))
_RULE_DIRECTIONS: dict[str, Direction] = {
    "aws_vpc_security_group_ingress_rule": "inbound",
    "aws_vpc_security_group_egress_rule": "outbound",
}
_DIRECTIONS: dict[str, Direction] = {"ingress": "inbound", "egress": "outbound"}

#: The types of all resources that concern groups and are read.
TYPES = frozenset((
    *_GROUPS, "aws_security_group_rule", *_RULE_DIRECTIONS, "aws_network_interface", "aws_instance", *_LISTS,
    "aws_ec2_managed_prefix_list_entry", "aws_network_interface_sg_attachment", "aws_vpc_peering_connection",
))  # fmt: skip
#: Types of resources about the groups of objects that are no instances of a policy, or about the VPCs of a group.
UNRELATED = frozenset((
    "aws_db_security_group", "aws_elasticache_security_group", "aws_redshift_security_group",
    "aws_vpc_endpoint_security_group_association", "aws_vpc_security_group_vpc_association",
))  # fmt: skip

_INLINE = (
    "cidr_blocks", "description", "from_port", "ipv6_cidr_blocks", "prefix_list_ids", "protocol", "security_groups",
    "self", "to_port",
)  # fmt: skip
_NUMBERS = ("from_port", "to_port")
_ADDRESSES = (
    "private_ips", "private_ip_list", "secondary_private_ips", "ipv6_addresses", "ipv6_address_list", "ipv4_prefixes",
    "ipv6_prefixes",
)  # fmt: skip
_RULE = (
    *_INLINE[:5], "protocol", "self", "to_port", "type", "source_security_group_id", "security_group_id", "id",
    "security_group_rule_id", "timeouts", "region",
)  # fmt: skip
_SINGLE_RULE = (
    "arn", "cidr_ipv4", "cidr_ipv6", "description", "from_port", "id", "ip_protocol", "prefix_list_id",
    "referenced_security_group_id", "region", "security_group_id", "security_group_rule_id", "tags", "tags_all",
    "to_port",
)  # fmt: skip


def add(stacks: Sequence[Stack], draft: Draft) -> None:
    """Add the groups and interfaces in the stacks of one account to the draft."""
    account = AwsAccount(draft)
    readers = [_Aws(stack, account) for stack in stacks]
    for reader in readers:
        reader.add_locations()
    for reader in readers:
        reader.add_rules()
        reader.add_instances()
    account.vpcs.put_into(draft)


_Attached = set[tuple[str, str]]
"""Pairs of an interface's identity and the id of a group attached to it."""


class _Aws:
    def __init__(self, stack: Stack, account: AwsAccount) -> None:
        self._stack = stack
        self._account = account
        self._draft = account.draft
        self._vpcs = account.vpcs
        self._vpc_of = account.vpc_of
        #: The subnets whose VPC is unknown, by identity. The VPC is only looked up when it is needed.
        self._unplaced: dict[str, StackResource] = {}

    def add_locations(self) -> None:
        """Add the objects to which rules and interfaces refer: VPCs, subnets, prefix lists, groups."""
        self._add_vpcs()
        self._add_lists()
        for resource in self._stack.of_types(*_GROUPS):
            self._add_group(resource)

    def add_rules(self) -> None:
        for group, rule in self._all_rules():
            self._draft.rule(group, rule)

    # VPCs

    def _add_vpcs(self) -> None:
        stack = self._stack
        for resource in stack.of_types(*_VPCS, data=True):
            region = resource.text("region") or region_of(resource.text("arn"))
            self._vpcs.seen(stack.file, resource.identity, _name_tag(resource), region)
        for resource in stack.of_types("aws_security_group", "aws_network_interface", data=True):
            if vpc := resource.text("vpc_id"):
                self._vpc_of[resource.identity] = vpc
        for resource in stack.of_types(*_SUBNETS, data=True):
            if resource.is_unknown("vpc_id"):
                self._unplaced[resource.identity] = resource
                continue
            self._vpc_of[resource.identity] = vpc = self._own_vpc(resource)
            self._vpcs.seen(stack.file, vpc, region=region_of(resource.text("availability_zone")))
        accepted = {
            resource.id_of("vpc_peering_connection_id", frozenset(("aws_vpc_peering_connection",)))
            for resource in stack.of_types("aws_vpc_peering_connection_accepter")
            if resource.flag("auto_accept", False)
        }
        for resource in stack.of_types("aws_vpc_peering_connection"):
            location = resource.called("VPC peering connection")
            ends = [resource.id_of(end, _VPCS) for end in ("vpc_id", "peer_vpc_id")]
            status = resource.text("accept_status")
            pending = status in ("", "pending-acceptance", "provisioning")
            if status == "active" or (pending and (resource.flag("auto_accept", False) or location.id in accepted)):
                self._draft.peering(location, *ends)
            else:
                self._draft.note("Peers nothing because it has not been accepted", location)

    # Prefix lists

    def _add_lists(self) -> None:
        stack = self._stack
        entries = self._list_entries(stack)
        stale = self._list_entries(stack.prior) if stack.prior else {}
        for resource in stack.of_types(*_LISTS, "aws_prefix_list", data=True):
            location = resource.called("prefix list", resource.text("name"))
            if resource.has_unknown("entry"):
                raise resource.location.error("its entries are known only after apply")
            cidrs = [item.required("cidr") for key in ("entry", "entries") for item in resource.objects(key)]
            if resource.type == "aws_prefix_list":
                cidrs = resource.texts("cidr_blocks")
            stale_cidrs = stale.get(location.id, set())
            cidrs = [cidr for cidr in cidrs if cidr not in stale_cidrs]
            addresses = dict.fromkeys((*cidrs, *sorted(entries.get(location.id, ()))))
            self._account.prefix_list(location, addresses)

    @staticmethod
    def _list_entries(stack: Stack) -> dict[str, set[str]]:
        """Return the prefix list entries that are resources of their own, by list."""
        entries: dict[str, set[str]] = {}
        for resource in stack.of_types("aws_ec2_managed_prefix_list_entry"):
            entries.setdefault(resource.id_of("prefix_list_id", _LISTS), set()).add(resource.required("cidr"))
        return entries

    # Groups and rules

    def _add_group(self, resource: StackResource) -> None:
        default = resource.type == "aws_default_security_group"
        location = resource.called("security group", resource.text("name") or ("default" if default else ""))
        self._vpc_of[location.id] = vpc = self._own_vpc(resource)
        self._draft.group(location, resource.text("description"), vpc=vpc)
        self._vpcs.seen(self._stack.file, vpc, region=resource.text("region") or region_of(resource.text("arn")))

    def _own_vpc(self, resource: StackResource) -> str:
        """Return the VPC of a group or subnet. If it is not set, return the region's default VPC."""
        if vpc := resource.id_of("vpc_id", _VPCS):
            return vpc
        default_vpcs = [default_vpc.identity for default_vpc in self._stack.of_types("aws_default_vpc", data=True)]
        return default_vpcs[0] if len(default_vpcs) == 1 else DEFAULT_VPC

    def _all_rules(self) -> Iterator[tuple[str, DraftRule]]:
        """Yield every rule once, with its group."""
        stack = self._stack
        stale: set[tuple[str, object]] = set()
        if stack.prior is not None:
            before = _Aws(stack.prior, AwsAccount(Draft("aws")))
            before._add_lists()
            stale = {(group, meaning(rule)) for group, rule in before._own_rules()}
        rules: dict[tuple[str, object], DraftRule] = {}
        for group, rule in self._inline_rules():
            if (group, meaning(rule)) not in stale:
                rules.setdefault((group, meaning(rule)), rule)
        for group, rule in self._own_rules():
            first_rule = rules.setdefault((group, meaning(rule)), rule)
            first_rule.id = first_rule.id or rule.id
        for (group, _), rule in rules.items():
            yield group, rule

    def _inline_rules(self) -> Iterator[tuple[str, DraftRule]]:
        """Yield the rules in the attributes of groups, each with its group."""
        for resource in self._stack.of_types(*_GROUPS):
            identity = resource.identity
            for attribute, direction in _DIRECTIONS.items():
                # A plan does not show dynamic blocks. They may be unknown even if all values that it shows are known.
                is_mentioned = resource.is_marked(attribute) and not resource.is_left_out(attribute)
                if is_mentioned or resource.is_unknown(attribute):
                    raise resource.error(attribute, "is known only after apply: define its rules as separate resources")
                items = [*resource.objects(attribute)]
                self._check_known(resource, attribute, len(items))
                listed = [
                    self._with_unknown(resource, f"{attribute}.{n}.security_groups", item.items("security_groups"))
                    for n, item in enumerate(items)
                ]
                groups = resource.filled(attribute, listed, _GROUPS)
                for n, item in enumerate(items):
                    item.refuse_unread(_INLINE)
                    location = resource.called("security group").part(f"{attribute}[{n}]")
                    peers = [*map(group_id, groups[n]), *([identity] if item.flag("self", False) else [])]
                    for rule in self._rules(location, direction, item, peers, item.texts("prefix_list_ids")):
                        yield identity, rule

    def _check_known(self, resource: StackResource, attribute: str, count: int) -> None:
        for n in range(count):
            for key in (*_INLINE[:6], "self", "to_port"):  # The provider chooses no value for these attributes.
                if key != "description" and resource.has_marked(f"{attribute}.{n}.{key}"):
                    raise resource.error(f"{attribute}[{n}].{key}", "is known only after apply")

    def _with_unknown(self, resource: StackResource, path: str, values: list[Any]) -> list[Any]:
        return [None] if resource.is_marked(path) else values

    def _own_rules(self) -> Iterator[tuple[str, DraftRule]]:
        """Yield the rules that are resources of their own, each with its group."""
        stack = self._stack
        for resource in stack.of_types("aws_security_group_rule", *_RULE_DIRECTIONS):
            group = group_id(resource.id_of("security_group_id", _GROUPS))
            if not group:
                raise resource.error("security_group_id", "is missing")
            location = Location(stack.file, "security group rule", resource.address)
            if resource.type in _RULE_DIRECTIONS:
                yield from ((group, rule) for rule in self._single_rule(resource, location))
                continue
            resource.refuse_unread(_RULE)
            self._check_rule_known(resource, ("cidr_blocks", "ipv6_cidr_blocks", *_NUMBERS, "protocol", "self"))
            if resource.text("type") not in _DIRECTIONS:
                raise resource.error("type", "must be ingress or egress")
            peers = [group] if resource.flag("self", False) else []
            # The provider refuses a source group next to addresses or "self". If there are such, it is not set.
            has_other = bool(peers or resource.items("cidr_blocks") or resource.items("ipv6_cidr_blocks"))
            if not (has_other and resource.is_unknown("source_security_group_id")):
                peer_group = group_id(resource.id_of("source_security_group_id", _GROUPS))
                peers += [peer_group] if peer_group else []
            lists = resource.ids_of("prefix_list_ids", _LISTS)
            direction = _DIRECTIONS[resource.text("type")]
            rules = self._rules(location, direction, resource, list(dict.fromkeys(peers)), lists)
            for rule in numbered(rules, resource.text("security_group_rule_id")):
                yield group, rule

    def _check_rule_known(self, resource: StackResource, attributes: tuple[str, ...]) -> None:
        for attribute in attributes:
            if resource.has_unknown(attribute):
                raise resource.error(attribute, "is known only after apply")

    def _single_rule(self, resource: StackResource, location: Location) -> Iterator[DraftRule]:
        """Convert an ``aws_vpc_security_group_ingress_rule`` or ``…_egress_rule``, which has only one peer."""
        resource.refuse_unread(_SINGLE_RULE)
        self._check_rule_known(resource, ("cidr_ipv4", "cidr_ipv6", *_NUMBERS, "ip_protocol"))
        traffic = parse_traffic(
            location, resource.required("ip_protocol"), resource.number("from_port"), resource.number("to_port")
        )
        peer_group = group_id(resource.id_of("referenced_security_group_id", _GROUPS))
        prefix_list = resource.id_of("prefix_list_id", _LISTS)
        description = resource.text("description")
        peers = {
            "cidrs": resource.text("cidr_ipv4"), "cidrs6": resource.text("cidr_ipv6"), "groups": peer_group,
            "lists": prefix_list,
        }  # fmt: skip
        named = {kind: [peer] for kind, peer in peers.items() if peer}
        rules = self._account.rules(location, _RULE_DIRECTIONS[resource.type], traffic, description, **named)
        yield from numbered(rules, resource.text("security_group_rule_id"))

    def _rules(
        self, location: Location, direction: Direction, fields: JsonObject, groups: list[str], lists: list[str]
    ) -> list[DraftRule]:
        """Convert an inline rule or an ``aws_security_group_rule``."""
        traffic = parse_traffic(
            location, fields.required("protocol"), fields.number("from_port"), fields.number("to_port")
        )
        return self._account.rules(
            location, direction, traffic, fields.text("description"), cidrs=fields.texts("cidr_blocks"),
            cidrs6=fields.texts("ipv6_cidr_blocks"), groups=groups, lists=lists,
        )  # fmt: skip

    # Interfaces

    def add_instances(self) -> None:
        stack = self._stack
        attached: dict[str, list[str]] = {}
        for interface, group in sorted(self._attachments(stack)):
            attached.setdefault(interface, []).append(group)
        stale: _Attached = self._attachments(stack.prior) if stack.prior else set()
        own_interfaces = {resource.identity for resource in stack.of_types("aws_network_interface")}
        names: dict[str, str] = {}
        devices: dict[str, str] = {}
        for resource in stack.of_types("aws_instance"):
            name = _name_tag(resource)
            interface = self._primary(resource)
            if interface in own_interfaces:
                names[interface] = name
                devices[interface] = resource.identity
            else:
                location = Location(stack.file, "instance", interface, name).part(one_line(resource.address))
                device = resource.identity
                self._add_interface(resource, location, "vpc_security_group_ids", attached, stale, device)
        for resource in stack.of_types("aws_network_interface"):
            identity = resource.identity
            name = _name_tag(resource) or names.get(identity, "")
            location = resource.called("network interface", name)
            device = devices.get(identity, "")
            self._add_interface(resource, location, "security_groups", attached, stale, device)

    def _primary(self, resource: StackResource) -> str:
        """Return the identity of an instance's primary interface, which is created with it or assigned to it."""
        interface_types = frozenset(("aws_network_interface",))
        for block in ("network_interface", "primary_network_interface"):
            for n, item in enumerate(resource.objects(block)):
                if not item.number("device_index"):
                    interfaces = resource.possible_ids(f"{block}.{n}.network_interface_id", interface_types)
                    if len(interfaces) == 1:
                        return interfaces[0]
        return resource.text("primary_network_interface_id") or resource.identity

    def _attachments(self, stack: Stack) -> _Attached:
        """Return the attachments of groups to interfaces that are resources of their own."""
        attachments: _Attached = set()
        for resource in stack.of_types("aws_network_interface_sg_attachment"):
            group = resource.id_of("security_group_id", _GROUPS)
            if resource.is_unknown("network_interface_id"):
                sources = resource.sources("network_interface_id", _INTERFACES)
                if len(sources) > 1:
                    raise resource.error("network_interface_id", "is known only after apply")
                is_instance = sources[0].type == "aws_instance"
                interface = self._primary(sources[0]) if is_instance else sources[0].identity
            else:
                interface = resource.required("network_interface_id")
            attachments.add((interface, group))
        return attachments

    def _add_interface(
        self, resource: StackResource, location: Location, attribute: str, attached: dict[str, list[str]],
        stale: _Attached, device: str,
    ) -> None:  # fmt: skip
        addresses = [text for text in (resource.text("private_ip"),) if text]
        for key in _ADDRESSES:
            addresses += resource.known_texts(key)
        if not addresses:
            self._draft.note("Left out because its address is known only after apply", location)
            return
        if resource.has(attribute) or resource.is_unknown(attribute):
            named = resource.ids_of(attribute, _GROUPS)
            groups = [group for group in named if (location.id, group) not in stale]
        else:
            groups = self._named_groups(resource) or self._default_group(resource)
            if not groups:
                message = "Left out because it is in the default security group of its VPC, which is not in the file"
                self._draft.note(message, location)
                return
        groups += attached.get(location.id, ())
        vpc = next((self._vpc_of[name] for name in (*groups, location.id) if name in self._vpc_of), "")
        vpc = vpc or self._subnet_vpc(resource)
        if not vpc and resource.is_unknown("subnet_id"):
            self._draft.note("Left out because its subnet is known only after apply", location)
            return
        if vpc:
            self._vpcs.seen(self._stack.file, vpc)
        else:
            message = f'In the VPC "{DEFAULT_VPC}" because neither its security groups nor its subnet are in the file'
            self._draft.note(message, location)
        own_groups = list(dict.fromkeys(groups))
        unique = list(dict.fromkeys(addresses))
        self._draft.instance(DraftInstance(location, vpc or DEFAULT_VPC, unique, own_groups, device=device))

    def _subnet_vpc(self, resource: StackResource) -> str:
        """Return the VPC of a resource's subnet, or "" if it is unknown. Several possible subnets must share a VPC."""
        vpcs = {self._vpc_of_subnet(subnet) for subnet in resource.possible_ids("subnet_id", _SUBNETS)}
        return vpcs.pop() if len(vpcs) == 1 else ""

    def _vpc_of_subnet(self, subnet: str) -> str:
        if subnet not in self._vpc_of and subnet in self._unplaced:
            self._vpc_of[subnet] = self._unplaced[subnet].id_of("vpc_id", _VPCS)
        return self._vpc_of.get(subnet, "")

    def _named_groups(self, resource: StackResource) -> list[str]:
        """Return the groups of an instance in a default VPC, which may list groups by name instead of by id."""
        if resource.type != "aws_instance":
            return []
        named_groups = []
        for name in resource.ids_of("security_groups", _GROUPS):
            named = [
                group.identity for group in self._stack.of_types(*_GROUPS)
                if name in (group.identity, group.text("name"))
            ]
            if len(named) != 1:
                raise resource.location.error(f"the name {show(name)} fits {len(named)} security groups in the file")
            named_groups += named
        return named_groups

    def _default_group(self, resource: StackResource) -> list[str]:
        """Return the VPC's default group, which AWS assigns if no group is named. Empty if it is not in the file."""
        vpc = self._subnet_vpc(resource)
        groups = (default_group.identity for default_group in self._stack.of_types("aws_default_security_group"))
        return [group for group in groups if vpc and self._vpc_of[group] == vpc][:1]


def _name_tag(fields: JsonObject) -> str:
    return fields.nested("tags").text("Name")
