"""Read Terraform's resources of the OpenStack-based clouds: openstack, opentelekomcloud, huaweicloud.

A cloud creates some rules with each new group. Terraform's state does not have these rules, unless the group lists its
``rules`` (an existing group on Huawei Cloud). If ``delete_default_rules`` is not set, this module adds them as the
cloud's API creates them: all outbound traffic, and on Huawei Cloud all inbound traffic from the group itself.

The providers write 0 for a port or ICMP type that is not set, and most of them cannot send a real 0:

- In protocols with ports, 0 and 0 mean all ports.
- Of openstack and huaweicloud, ICMP 0 and 0 mean all types; a type and 0 mean all codes of the type. A rule created
  elsewhere, or by a later version that sends 0, may still mean type 0, code 0. A note says so, unless a plan shows that
  the configuration does not set the type.
- Of opentelekomcloud, ICMP 0 and 255 mean all types; all other values are a type and a code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal, NamedTuple, TypeVar

from sgfast.clouds.importing.draft import BOTH_VERSIONS, Draft, DraftInstance, DraftRule
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location, one_line
from sgfast.clouds.terraform.stack import Stack, StackResource
from sgfast.policy.model import DEFAULT_GROUP, ICMP, ICMPV6, PORT_PROTOCOLS, Action, Direction
from sgfast.policy.protocols import PROTOCOL_NUMBERS
from sgfast.policy.yaml_nodes import show

#: Groups that use Nova's API, which passes them on to Neutron. They contain their rules, all of which are inbound.
_NOVA_GROUPS = frozenset(("openstack_compute_secgroup_v2", "opentelekomcloud_compute_secgroup_v2"))
GROUPS = _NOVA_GROUPS | {
    "openstack_networking_secgroup_v2", "opentelekomcloud_networking_secgroup_v2", "huaweicloud_networking_secgroup",
    "huaweicloud_networking_secgroup_v2", "opentelekomcloud_vpc_secgroup_v3",
}  # fmt: skip
_RULES = frozenset((
    "openstack_networking_secgroup_rule_v2", "opentelekomcloud_networking_secgroup_rule_v2",
    "huaweicloud_networking_secgroup_rule", "huaweicloud_networking_secgroup_rule_v2",
    "opentelekomcloud_vpc_secgroup_rule_v3",
))  # fmt: skip
_ADDRESS_GROUPS = frozenset((
    "openstack_networking_address_group_v2", "huaweicloud_vpc_address_group", "opentelekomcloud_vpc_address_group_v3",
))  # fmt: skip
_PORTS = frozenset((
    "openstack_networking_port_v2", "opentelekomcloud_networking_port_v2", "huaweicloud_networking_port_v2",
))  # fmt: skip
_SERVERS = frozenset((
    "openstack_compute_instance_v2", "opentelekomcloud_compute_instance_v2", "huaweicloud_compute_instance",
    "opentelekomcloud_ecs_instance_v1",
))  # fmt: skip
_SUBNETS = frozenset(("opentelekomcloud_vpc_subnet_v1", "huaweicloud_vpc_subnet"))
_NETWORKS = _SUBNETS | {
    "openstack_networking_network_v2", "opentelekomcloud_networking_network_v2", "huaweicloud_networking_network_v2",
}  # fmt: skip
_VPCS = frozenset(("opentelekomcloud_vpc_v1", "huaweicloud_vpc"))
_PEERINGS = frozenset(("opentelekomcloud_vpc_peering_connection_v2", "huaweicloud_vpc_peering_connection"))

#: Resources that add groups to a port. If the attribute named here is true, they replace the port's own groups.
_ASSOCIATIONS = {
    "openstack_networking_port_secgroup_associate_v2": "enforce",
    "opentelekomcloud_networking_port_secgroup_associate_v2": "force",
}
_ATTACHMENTS = frozenset(("openstack_compute_interface_attach_v2", "huaweicloud_compute_interface_attach"))

#: The types of all resources that are read because they concern groups.
TYPES = GROUPS | _RULES | _ADDRESS_GROUPS | _PORTS | _SERVERS | _ASSOCIATIONS.keys()

_IDS = "security_group_ids"

_RULE_FIELDS = frozenset((
    "action", "created_at", "description", "direction", "ether_type", "ethertype", "id", "multi_port", "multiport",
    "port_range_max", "port_range_min", "ports", "priority", "project_id", "protocol", "region",
    "remote_address_group_id", "remote_group_id", "remote_ip_prefix", "security_group_id", "tenant_id", "timeouts",
    "updated_at",
))  # fmt: skip
_RULE_TRAFFIC = (
    "direction", "ethertype", "ether_type", "protocol", "remote_ip_prefix", "ports", "multi_port", "action", "priority",
    "port_range_min", "port_range_max",
)  # fmt: skip
_DIRECTIONS: dict[str, Direction] = {"ingress": "inbound", "egress": "outbound"}
_ETHERTYPES: dict[str, Literal[4, 6]] = {"ipv4": 4, "ipv6": 6, "": 4}
_ACTIONS: dict[str, Action] = {"allow": "allow", "deny": "deny", "": "allow"}
#: Neutron's protocol names that IANA does not list or uses for another protocol.
_PROTOCOLS = {"ip": 0, "ipv6-encap": 41, "ipip": 4, "any": None, "all": None, "": None}
_ANY_ADDRESS = ("0.0.0.0/0", "::/0")
#: Nova's number for all ICMP types or codes.
_ANY_ICMP = -1
#: The lowest priority. Huawei's API gives it to the rules that it creates itself, so that users' rules win.
_LAST_PRIORITY = 100


T = TypeVar("T")


class _Nic(NamedTuple):
    """A network interface of a server, as the server's resource describes it."""

    #: The name of the attribute that has the network's id.
    network: str
    port: str
    addresses: list[str]


class _Account:
    """VPCs and group names that all stacks of one account share."""

    def __init__(self) -> None:
        #: The VPC of each network id.
        self.vpc_of: dict[str, str] = {}
        #: The ids of the groups with each name.
        self.named: dict[str, list[str]] = {}


def add(stacks: Sequence[Stack], draft: Draft) -> None:
    """Add the groups and instances in the stacks of one account to the draft."""
    account = _Account()
    readers = [_Neutron(stack, draft, account) for stack in stacks]
    for reader in readers:
        reader.add_groups()
    for reader in readers:
        reader.add_instances()


class _Neutron:
    def __init__(self, stack: Stack, draft: Draft, account: _Account) -> None:
        self._stack = stack
        self._draft = draft
        self._vpc_of = account.vpc_of
        self._named = account.named
        self._associations = self._read_associations(stack)
        self._earlier_associations = self._read_associations(stack.prior) if stack.prior else {}

    def add_groups(self) -> None:
        self._add_vpcs()
        for resource in self._stack.of_types(*_ADDRESS_GROUPS, data=True):
            self._add_address_group(resource)
        for resource in self._stack.of_types(*GROUPS):
            self._add_group(resource)
        for resource in self._stack.of_types(*_RULES):
            self._add_rule(resource)

    # VPCs

    def _add_vpcs(self) -> None:
        stack = self._stack
        for resource in stack.of_types(*_VPCS, data=True):
            self._draft.vpc(resource.called("VPC", resource.text("name")))
        for resource in stack.of_types(*_SUBNETS, data=True):
            vpc = resource.id_of("vpc_id", _VPCS)
            for network in (resource.identity, resource.text("network_id")):
                self._vpc_of[network] = vpc
        for resource in stack.of_types(*_PEERINGS):
            location = resource.called("VPC peering connection", resource.text("name"))
            if resource.text("status") not in ("", "ACTIVE"):
                self._draft.note("Peers nothing because it is not active", location)
                continue
            ends = [resource.id_of(end, _VPCS) for end in ("vpc_id", "peer_vpc_id")]
            self._draft.peering(location, *ends)

    def _vpc(self, location: Location, resource: StackResource, attribute: str) -> str | None:
        """Find the VPC of the network that an attribute refers to. Return "", the only VPC, if the files name no VPCs.

        If a plan does not show the network, add a note and return None.
        """
        if not self._vpc_of:
            return ""
        networks = resource.possible_ids(attribute, _NETWORKS)
        vpcs = {self._vpc_of.get(network) for network in networks}
        if len(vpcs) == 1 and None not in vpcs:
            return vpcs.pop()
        if resource.is_unknown(attribute):
            self._draft.note("Left out because its network is known only after apply", location)
            return None
        network = networks[0] if networks else ""
        raise location.error(f"its network {show(network)} is in no VPC of the file: add its subnet as a data source")

    # Groups

    def _add_address_group(self, resource: StackResource) -> None:
        for attribute in ("addresses", "ip_extra_set"):
            if resource.has_unknown(attribute):
                raise resource.error(attribute, "is known only after apply")
        addresses = resource.texts("addresses") + [item.required("ip") for item in resource.objects("ip_extra_set")]
        location = resource.called("address group", resource.text("name"))
        self._draft.address_group(location, dict.fromkeys(addresses))

    def _add_group(self, resource: StackResource) -> None:
        location = resource.called("security group", resource.text("name"))
        self._draft.group(location, resource.text("description"), stateful=resource.flag("stateful", True))
        self._named.setdefault(location.name or location.id, []).append(location.id)
        if resource.type in _NOVA_GROUPS:
            self._add_nova_rules(resource, location)
        if resource.has("rules"):
            self._add_listed_rules(resource.at(location))
            return
        if resource.flag("delete_default_rules", False):
            return
        self._draft.note(
            "Added the rules that the cloud creates with each new group, because Terraform does not know them "
            "(delete_default_rules is not set)", location,
        )  # fmt: skip
        default_rule = location.part("default rules")
        huawei = resource.type.startswith("huaweicloud")
        for version in BOTH_VERSIONS:
            outbound = DraftRule(default_rule, "outbound", version, priority=_LAST_PRIORITY if huawei else 1)
            self._draft.rule(location.id, outbound)
            if huawei:
                inbound = DraftRule(default_rule, "inbound", version, group=location.id, priority=_LAST_PRIORITY)
                self._draft.rule(location.id, inbound)

    # Rules

    def _add_listed_rules(self, group: JsonObject) -> None:
        """Add the rules that a group lists (Huawei Cloud), except rules that are or were resources of their own."""
        managed = set()
        for stack in (self._stack, self._stack.prior):
            managed |= {resource.identity for resource in stack.of_types(*_RULES)} if stack else set()
        for item in group.objects("rules"):
            item.refuse_unread(_RULE_FIELDS)
            if item.text("id") in managed:
                continue
            rule = _read_rule(item)
            self._set_ports(rule, None, item)
            rule.group, rule.address_group = item.text("remote_group_id"), item.text("remote_address_group_id")
            self._draft.rule(group.location.id, _one_peer(rule))

    def _add_nova_rules(self, resource: StackResource, group: Location) -> None:
        for n, item in enumerate(resource.at(group).objects("rule")):
            for key in ("from_group_id", "cidr", "from_port", "to_port", "ip_protocol"):
                if resource.has_marked(f"rule.{n}.{key}"):  # The provider chooses no value for these attributes.
                    message = f"{key} is known only after apply: define the rule as a resource of its own"
                    raise item.location.error(message)
            cidr = item.text("cidr")
            protocol = _protocol(item, "ip_protocol")
            rule = DraftRule(item.location, "inbound", 6 if ":" in cidr else 4, protocol, cidr=cidr)
            rule.group = group.id if item.flag("self", False) else item.text("from_group_id")
            first, last = item.number("from_port"), item.number("to_port")
            if rule.protocol not in (ICMP, ICMPV6):
                rule.ports = [(first or 0, last or 0)]
            elif first != _ANY_ICMP:
                rule.icmp_type, rule.icmp_code = first, None if last == _ANY_ICMP else last
            item.refuse_unread(("id",))
            self._draft.rule(group.id, rule)

    def _add_rule(self, resource: StackResource) -> None:
        location = Location(self._stack.file, "security group rule", resource.address)
        fields = resource.at(location)
        fields.refuse_unread(_RULE_FIELDS)
        for attribute in _RULE_TRAFFIC:
            if resource.is_unknown(attribute):
                raise location.error(f"{attribute} is known only after apply")
        rule = _read_rule(fields)
        self._set_ports(rule, resource, fields)
        # A rule has only one peer. If it has an address, its group is not set, even if the plan marks it as unknown.
        if not (rule.cidr and resource.is_unknown("remote_group_id")):
            rule.group = resource.id_of("remote_group_id", GROUPS)
        if not (rule.cidr and resource.is_unknown("remote_address_group_id")):
            rule.address_group = resource.id_of("remote_address_group_id", _ADDRESS_GROUPS)
        group = resource.id_of("security_group_id", GROUPS)
        if not group:
            raise fields.error("security_group_id", "is missing")
        self._draft.rule(group, _one_peer(rule))

    def _set_ports(self, rule: DraftRule, resource: StackResource | None, fields: JsonObject) -> None:
        listed = fields.text("ports") or fields.text("multi_port") or fields.text("multiport")
        if listed:
            rule.ports = _port_ranges(rule.location, listed)
            return
        first, last = fields.number("port_range_min"), fields.number("port_range_max")
        if rule.protocol in (ICMP, ICMPV6):
            self._set_icmp(rule, resource, first, last)
        elif rule.protocol in PORT_PROTOCOLS:
            if (first or 0, last or 0) != (0, 0):
                rule.ports = [(first or 0, last or 0)]
        elif first or last:
            rule.ports = [(first or 0, last or 0)]  # The draft raises the error that the protocol has no ports.

    def _set_icmp(self, rule: DraftRule, resource: StackResource | None, kind: int | None, code: int | None) -> None:
        if resource is not None and resource.type == "opentelekomcloud_networking_secgroup_rule_v2":
            if rule.ethertype == 6 and (kind or 0, code or 0) == (0, 0):
                return  # The provider distinguishes "no type" from type 0 only for ICMP of IPv4.
            if resource.is_chosen_later("port_range_min"):
                message = "Without a type the provider creates a rule for ICMP type 0, code 0"
                self._draft.note(message, rule.location)
                kind, code = 0, 0
            if (kind, code) not in ((0, 255), (None, None)):
                rule.icmp_type, rule.icmp_code = kind or 0, code or 0
        elif kind or code:
            rule.icmp_type, rule.icmp_code = kind or 0, code or None
        elif kind == 0 and rule.ethertype == 4 and not (  # ICMPv6 has no type 0.
            resource is not None and resource.is_left_out("port_range_min")
        ):
            self._draft.note(
                "Imported as all ICMP types, which Terraform writes like type 0, code 0 (echo replies)", rule.location
            )

    # Instances

    def add_instances(self) -> None:
        stack = self._stack
        ports = {resource.identity: resource for resource in stack.of_types(*_PORTS)}
        for resource in stack.of_types(*_PORTS, data=True):
            if resource.identity in self._associations:  # Terraform did not make this port, but changes its groups.
                ports.setdefault(resource.identity, resource)
        names: dict[str, str] = {}
        devices: dict[str, str] = {}
        for resource in stack.of_types(*_SERVERS):
            name = resource.text("name")
            groups: list[str] | None = None
            for n, nic in enumerate(self._nics(resource)):
                if nic.port in ports:
                    names.setdefault(nic.port, name)
                    devices.setdefault(nic.port, resource.identity)
                    continue
                own_id = nic.port or f"{resource.identity}{f'-{n + 1}' if n else ''}"
                if n and not nic.port:
                    self._draft.made_up(own_id)
                location = Location(stack.file, "instance", own_id, f"{name}-{n + 1}" if n and name else name)
                location = location.part(one_line(resource.address))
                associations = self._associations.pop(nic.port, [])
                if self._is_known(location, nic.addresses):
                    groups = self._server_groups(resource) if groups is None else groups
                    own_groups = self._with_associations(groups, associations)
                    instance = DraftInstance(location, "", nic.addresses, own_groups, device=resource.identity)
                    self._add_instance(resource, nic.network, instance)
        for identity, resource in ports.items():
            associations = self._associations.pop(identity, [])
            self._add_port(resource, names.get(identity, ""), devices.get(identity, ""), associations)
        for association in chain.from_iterable(self._associations.values()):
            self._draft.note("Not applied because its port is not in the file", association.location)
        for resource in stack.of_types(*_ATTACHMENTS):
            if not any(port in ports for port in resource.possible_ids("port_id", _PORTS)):
                self._draft.note("Left out because the port that it attaches is not in the file", resource.location)

    def _is_known(self, location: Location, addresses: Sequence[str]) -> bool:
        if not addresses:
            self._draft.note("Left out because its address is known only after apply", location)
        return bool(addresses)

    def _add_instance(self, resource: StackResource, network: str, instance: DraftInstance) -> None:
        """Set the instance's VPC and add it to the draft. ``network``: the attribute that has its network's id."""
        vpc = self._vpc(instance.location, resource, network)
        if vpc is not None:
            instance.vpc = vpc
            self._draft.instance(instance)

    def _read_associations(self, stack: Stack) -> dict[str, list[StackResource]]:
        """Find the resources that add groups to ports, by port."""
        associations: dict[str, list[StackResource]] = {}
        for resource in stack.of_types(*_ASSOCIATIONS):
            associations.setdefault(resource.id_of("port_id", _PORTS), []).append(resource)
        return associations

    def _with_associations(self, groups: list[str], associations: Sequence[StackResource]) -> list[str]:
        """Apply a port's associations to its groups. An association adds its groups, or replaces all earlier groups."""
        for resource in associations:
            associated = resource.ids_of(_IDS, GROUPS)
            replaces = resource.flag(_ASSOCIATIONS[resource.type], False)
            groups = associated if replaces else [*groups, *associated]
        return list(dict.fromkeys(groups))

    def _nics(self, resource: StackResource) -> Iterator[_Nic]:
        for block, network, address_keys in (
            ("network", "uuid", ("fixed_ip_v4", "fixed_ip_v6")), ("nics", "network_id", ("ip_address",)),
        ):  # fmt: skip
            for n, item in enumerate(resource.objects(block)):
                port_key = "port" if block == "network" else "port_id"
                # A port that the cloud creates for the server gets an id, but is no resource of Terraform.
                ports = resource.possible_ids(f"{block}.{n}.{port_key}", _PORTS)
                port = ports[0] if len(ports) == 1 else ""
                addresses = [text.strip("[]") for key in address_keys if (text := item.text(key))]
                yield _Nic(f"{block}.{n}.{network}", port, addresses)

    def _server_groups(self, resource: StackResource) -> list[str]:
        """Return the ids of a server's groups. A resource without ids has names, which are looked up."""
        for attribute in ("security_group_ids", "security_groups"):
            by_name = attribute == "security_groups" and resource.type != "opentelekomcloud_ecs_instance_v1"
            values = resource.ids_of(attribute, GROUPS)
            if values:
                return [self._group_named(resource, value) for value in values] if by_name else values
        return [self._group_named(resource, DEFAULT_GROUP)]

    def _group_named(self, fields: JsonObject, name: str) -> str:
        """Find a group by its name, or by its identity if its name is not known yet."""
        if self._draft.has_group(name):
            return name
        ids = self._named.get(name, [])
        if len(ids) > 1:
            raise fields.location.error(f"is in the security group {show(name)}, but several groups have this name")
        if ids:
            return ids[0]
        return name if name != DEFAULT_GROUP else self._default_group()

    def _default_group(self) -> str:
        """Add a project's default group as clouds create it (SPEC 8.1), because Terraform does not manage it."""
        location = Location(self._stack.file, "security group", DEFAULT_GROUP, DEFAULT_GROUP)
        self._draft.note("The default group is not in the file: added with the rules that clouds create it with")
        self._draft.group(location, "The project's default group, with the rules it is created with")
        self._named[DEFAULT_GROUP] = [location.id]
        for version in BOTH_VERSIONS:
            self._draft.rule(location.id, DraftRule(location, "inbound", version, group=location.id))
            self._draft.rule(location.id, DraftRule(location, "outbound", version))
        return location.id

    def _add_port(
        self, resource: StackResource, server: str, device: str, associations: Sequence[StackResource]
    ) -> None:
        location = resource.called("port", server or resource.text("name"))
        if not resource.flag("port_security_enabled", True):
            self._draft.note("Not an instance because no security group filters it (port security is off)", location)
            return
        addresses = resource.known_texts("all_fixed_ips")
        if not addresses and not resource.is_data:
            addresses = [text for item in resource.objects("fixed_ip") if (text := item.text("ip_address"))]
        if self._is_known(location, addresses):
            shared = [item.required("ip_address") for item in resource.objects("allowed_address_pairs")]
            groups = self._with_associations(self._port_groups(resource), associations)
            device = device or resource.text("device_id")
            instance = DraftInstance(location, "", addresses, groups, shared, device)
            self._add_instance(resource, "network_id", instance)

    def _port_groups(self, resource: StackResource) -> list[str]:
        if resource.flag("no_security_groups", False):
            return []
        if not resource.is_data and (groups := resource.ids_of(_IDS, GROUPS)):
            return groups
        # The configuration names no groups. The state lists the groups that the cloud chose, and those of associations.
        if not (listed := resource.known_texts("all_security_group_ids")):
            return [self._group_named(resource, DEFAULT_GROUP)]
        earlier = self._earlier_associations.get(resource.identity, ())
        stale = {group for earlier_resource in earlier for group in earlier_resource.at(resource.location).texts(_IDS)}
        return [group for group in listed if group not in stale]


def _chosen(resource: JsonObject, key: str, table: dict[str, T]) -> T:
    word = resource.text(key).lower()
    if word not in table:
        raise resource.error(key, f"must be one of {', '.join(filter(None, table))}, not {show(resource.text(key))}")
    return table[word]


def _read_rule(resource: JsonObject) -> DraftRule:
    """Read a rule except its ports and the groups that it refers to."""
    direction = _chosen(resource, "direction", _DIRECTIONS)
    ethertype = _chosen(resource, "ethertype" if resource.has("ethertype") else "ether_type", _ETHERTYPES)
    rule = DraftRule(resource.location, direction, ethertype, _protocol(resource), id=resource.text("id"))
    rule.action = _chosen(resource, "action", _ACTIONS)
    rule.priority = resource.number("priority") or 1
    rule.description = resource.text("description")
    rule.cidr = resource.text("remote_ip_prefix")
    return rule


def _one_peer(rule: DraftRule) -> DraftRule:
    """Remove the CIDR for any address if the rule also has a group: a rule has only one peer."""
    if rule.cidr in _ANY_ADDRESS and (rule.group or rule.address_group):
        rule.cidr = ""
    return rule


def _protocol(resource: JsonObject, key: str = "protocol") -> int | None:
    word = resource.text(key).lower()
    if word in _PROTOCOLS:
        return _PROTOCOLS[word]
    if word in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[word]
    if re.fullmatch("[0-9]{1,3}", word) and int(word) <= 255:
        return int(word)
    raise resource.error(key, f"is unknown: {show(word)}")


def _port_ranges(location: Location, text: str) -> list[tuple[int, int]]:
    """Parse a list of ports such as ``22,3389,8000-8080``."""
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", part)
        if match is None:
            raise location.error(f"{show(text)} is not a list of ports like 22,3389,8000-8080")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return ranges
