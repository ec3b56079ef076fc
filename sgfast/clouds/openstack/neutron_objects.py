"""The common part of the APIs of Neutron, Open Telekom Cloud and Huawei Cloud: groups, rules, ports, servers.

The three APIs have a common origin and mostly use the same names. ``neutron`` and ``otc`` handle the differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from sgfast.clouds.importing.draft import Draft, DraftInstance, DraftRule, Location
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.formats import API_PAGING
from sgfast.clouds.importing.sources import Source
from sgfast.policy.model import Action, Direction
from sgfast.policy.yaml_nodes import show

_DIRECTIONS: dict[str, Direction] = {"ingress": "inbound", "egress": "outbound"}
_ETHERTYPES: dict[str, Literal[4, 6]] = {"ipv4": 4, "ipv6": 6}
ICMP_WORDS = frozenset(("icmp", "icmpv6", "icmp6", "ipv6-icmp", "1", "58"))
_ANY_WORDS = frozenset(("", "any", "all", "-1"))

#: Keys that have no effect on filtering.
BOOKKEEPING = frozenset(
    (
        "id", "name", "description", "tenant_id", "project_id", "enterprise_project_id", "domain_id", "created_at",
        "updated_at", "revision_number", "tags", "sys_tags", "status", "links", "location", "standard_attr_id",
        "revisio[n_number",  # as in a sample in Neutron's own documentation
    )
)  # fmt: skip
_RULE_IGNORED = BOOKKEEPING | {"belongs_to_default_sg", "normalized_cidr"}
_GROUP_IGNORED = BOOKKEEPING | {"shared", "is_shared", "belongs_to_default_sg", "vpc_id", "is_default"}
_PORT_IGNORED = BOOKKEEPING | {
    "admin_state_up", "is_admin_state_up", "mac_address", "subnet_id", "device_profile", "dns_assignment", "dns_domain",
    "dns_name", "extra_dhcp_opts", "hardware_offload_type", "hints", "ip_allocation", "numa_affinity_policy",
    "network_id", "propagate_uplink_status", "qos_network_policy_id", "qos_policy_id", "resource_request", "trunk",
    "trunk_details", "trusted", "binding:", "binding_host_id", "binding_profile", "binding_vif_details",
    "binding_vif_type", "binding_vnic_type", "data_plane_status", "instance_id", "instance_type", "zone_id",
    "enable_efi", "ipv6_bandwidth_id", "ecs_flavor", "port_id", "availability_zone", "tenancy", "scope", "mac_learning",
    "is_mac_learning_enabled", "uplink_status_propagation",
}  # fmt: skip


class Interface(NamedTuple):
    """A port whose VPC is not known yet."""

    location: Location
    fields: JsonObject
    network: str
    owner: str
    device: str
    addresses: list[str]
    groups: list[str]
    pairs: list[str]


class Server(NamedTuple):
    location: Location
    network: str
    #: Addresses by the id of their port, which is "" if the list does not have it.
    addresses: dict[str, list[str]]
    groups: list[str]


class ApiReader:
    """Reads the documents of one API into a draft. A subclass sets ``profile`` and implements the differences."""

    profile: Literal["otc", "neutron"]

    def __init__(self) -> None:
        self.draft = Draft(self.profile)
        self.interfaces: dict[str, Interface] = {}
        self.servers: list[Server] = []
        self._group_ids: dict[str, list[str]] = {}
        self._groups_of_rules: dict[str, Location] = {}
        self._port_addresses: set[str] = set()
        #: By the key of a list in a document: the method that reads one object. A single object's key has no final "s".
        self.sections: dict[str, Callable[[Source, object], None]] = {
            "security_groups": self.group,
            "security_group_rules": self.rule,
            "ports": self.port,
            "servers": self.server,
        }

    def read(self, sources: Sequence[Source]) -> Draft:
        for source in sources:
            self.document(source)
        self.finish()
        return self.draft

    def document(self, source: Source) -> None:
        if not isinstance(source.value, dict):
            raise source.error(f"a {self.profile} export must be a mapping with {self._known_sections()}")
        for key, value in source.value.items():
            if key in API_PAGING or key.endswith("_links"):
                if key.endswith("_links") and _has_next(value) and not source.is_continued:
                    raise source.error(f"{key} shows that there are more pages: export all of them")
                continue
            if key in self.sections:
                if not isinstance(value, list):
                    raise source.error(f"{key} must be a list")
                for item in value:
                    self.sections[key](source, item)
            elif f"{key}s" in self.sections:
                self.sections[f"{key}s"](source, value)
            else:
                raise source.error(f"unknown key {show(str(key))}: allowed here are {self._known_sections()}")

    def _known_sections(self) -> str:
        return ", ".join(self.sections)

    # Groups and rules

    def group(self, source: Source, value: object) -> None:
        fields = source.identified("security group", value)
        location = fields.location
        self.draft.group(location, fields.text("description"), stateful=fields.flag("stateful", True))
        self._group_ids.setdefault(location.name, []).append(location.id)
        for rule in fields.items("security_group_rules", "rules"):
            self.rule(source, rule, location)
        self.unread(fields, _GROUP_IGNORED)

    def rule(self, source: Source, value: object, group: Location | None = None) -> None:
        """Read a rule. ``group``: the group that lists the rule, or None if the rule is in a list of rules."""
        fields = JsonObject(value, group or source.location("security group rule", ""))
        rule_id = fields.text("id")
        group_id = fields.text("security_group_id")
        if group is None:
            if not group_id:
                raise source.location("security group rule", rule_id).error("security_group_id is missing")
            group = source.location("security group", group_id)
            self._groups_of_rules.setdefault(group_id, group)
        elif group_id and group_id != group.id:
            raise group.part(f"rule {rule_id}").error(f"belongs to another group, {show(group_id)}")
        fields.location = location = group.part(f"rule {show(rule_id)[1:-1]}" if rule_id else "a rule without id")
        if not self.is_enabled(fields):
            return
        ethertype = fields.choice("ether_type" if fields.has("ether_type") else "ethertype", _ETHERTYPES, 4)
        direction = fields.choice("direction", _DIRECTIONS)
        rule = DraftRule(location, direction, ethertype, self.protocol(fields), id=rule_id)
        self.ports_and_types(fields, rule)
        rule.cidr = fields.text("remote_ip_prefix")
        rule.group = fields.text("remote_group_id")
        rule.address_group = fields.text("remote_address_group_id")
        rule.action, rule.priority = self.action_and_priority(fields)
        rule.description = fields.text("description")
        fields.refuse_unread(_RULE_IGNORED)
        self.draft.rule(group.id, rule)

    def is_enabled(self, fields: JsonObject) -> bool:
        return True

    def action_and_priority(self, fields: JsonObject) -> tuple[Action, int]:
        return "allow", 1

    def protocol(self, fields: JsonObject) -> str | None:
        value = fields.get("protocol")
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(fields.number("protocol")) if abs(value) < 1000 else "above 255"
        else:
            value = fields.text("protocol")
        return None if value.lower() in _ANY_WORDS else value.lower()

    def ports_and_types(self, fields: JsonObject, rule: DraftRule) -> None:
        """Read a rule's ports. For ICMP, read type and code, which these APIs have in the same two fields."""
        low, high = fields.number("port_range_min"), fields.number("port_range_max")
        if rule.protocol in ICMP_WORDS:
            rule.icmp_type, rule.icmp_code = low, high
        elif low is not None or high is not None:
            # If only one end of the range is given, the rule is for a single port.
            first, last = (high if low is None else low), (low if high is None else high)
            assert first is not None and last is not None
            rule.ports = [(first, last)]

    # Ports

    def port(self, source: Source, value: object) -> None:
        fields = source.identified("port", value)
        location = fields.location
        interface = Interface(
            location,
            fields,
            self.network_of(fields),
            fields.text("device_owner"),
            fields.text("device_id"),
            self.addresses_of(fields),
            fields.texts("security_groups", "security_group_ids"),
            fields.texts_in("allowed_address_pairs", "ip_address"),
        )
        self._port_addresses.update(interface.addresses)
        if not fields.flag("port_security_enabled", True) or not fields.flag("is_port_security_enabled", True):
            if interface.groups:
                raise location.error("port_security_enabled is false, but it has security groups: correct one of them")
            self.draft.note("Not an instance because its port security is off and nothing filters it", location)
        elif interface.owner.startswith("network:"):
            self.draft.note("Not an instance because the network's own ports are not filtered", location)
        else:
            first_interface = self.interfaces.setdefault(location.id, interface)
            if first_interface[2:] != interface[2:]:
                raise location.error("differs from its entry in another list: export both at the same time")
        self.unread(fields, _PORT_IGNORED)

    def network_of(self, fields: JsonObject) -> str:
        return fields.text("network_id")

    def addresses_of(self, fields: JsonObject) -> list[str]:
        return fields.texts_in("fixed_ips", "ip_address")

    def unread(self, fields: JsonObject, ignored: frozenset[str]) -> None:
        """Add a note about each unknown key. It is no error, because clouds often add keys to groups and ports."""
        for key in fields.unread(ignored):
            self.draft.note(f"The unknown key {show(key)} was ignored", fields.location)

    # Servers

    def server(self, source: Source, value: object) -> None:
        fields = source.identified("server", value)
        location = fields.location
        networks = fields.get("addresses") or {}
        if not isinstance(networks, dict):
            raise location.error("addresses must be a mapping")
        addresses: dict[str, list[str]] = {}
        for entries in networks.values():
            if not isinstance(entries, list):
                raise location.error("addresses must have lists")
            for item in entries:
                entry = JsonObject(item, location.part("addresses"))
                if entry.text("OS-EXT-IPS:type") != "floating":
                    addresses.setdefault(entry.text("OS-EXT-IPS:port_id"), []).append(entry.required("addr"))
        groups = []
        for item in fields.items("security_groups"):
            entry = JsonObject(item, location.part("security_groups"))
            groups.append(entry.text("id") or entry.required("name"))
        self.servers.append(Server(location, next(iter(networks), "") if len(networks) == 1 else "", addresses, groups))

    # Instances
    def finish(self) -> None:
        """Convert ports and servers into instances, after all documents are read."""
        if not self._group_ids:  # The files list rules, but no groups.
            for group in self._groups_of_rules.values():
                self.draft.group(group)
                self.draft.note("Known only from its rules, because no file lists the groups", group)
        shared = self.shared_addresses()
        names = self._names_by_device()
        for interface in self.interfaces.values():
            if not self.is_filtered(interface):
                continue
            location = interface.location
            if not location.name and interface.device in names:
                location = replace(location, name=names[interface.device])
            self.draft.instance(
                DraftInstance(
                    location,
                    self.vpc_of(interface),
                    interface.addresses,
                    interface.groups,
                    shared.get(location.id, ()),
                    interface.device,
                )
            )
        for server in self.servers:
            if not self._port_addresses:
                self._server_instances(server)
                continue
            for address in (address_entry for addresses in server.addresses.values() for address_entry in addresses):
                if address not in self._port_addresses:
                    message = f"has the address {show(address)}, which belongs to no port in the files"
                    raise server.location.error(message)

    def is_filtered(self, interface: Interface) -> bool:
        return True

    def vpc_of(self, interface: Interface) -> str:
        return ""

    def vpc_of_server(self, server: Server) -> str:
        return ""

    def shared_addresses(self) -> dict[str, list[str]]:
        """Return the additional addresses that each port may use, by the port's id."""
        return {id: interface.pairs for id, interface in self.interfaces.items()}

    def _names_by_device(self) -> dict[str, str]:
        """Return the names of servers with only one port, by server id, as names for ports without a name."""
        ports: dict[str, int] = {}
        for interface in self.interfaces.values():
            ports[interface.device] = ports.get(interface.device, 0) + 1
        locations = (server.location for server in self.servers)
        return {location.id: location.name for location in locations if ports.get(location.id) == 1 and location.name}

    def _server_instances(self, server: Server) -> None:
        """Add an instance for each port of a server. Used if there is no list of ports."""
        groups = [self._group_id(server, group) for group in server.groups]
        if len(server.addresses) > 1 and len(set(groups)) > 1:
            raise server.location.error(
                f"has {len(server.addresses)} ports and {len(set(groups))} security groups, "
                "and only the list of ports says which port has which: add it"
            )
        for port, addresses in server.addresses.items():
            location = server.location
            if len(server.addresses) > 1:
                name = f"{location.name}-{addresses[0]}".replace(":", "-")
                location = Location(location.file, location.kind, port, name)
            self.draft.instance(
                DraftInstance(location, self.vpc_of_server(server), addresses, groups, device=server.location.id)
            )
        if not server.addresses:
            self.draft.note("Left out because it has no address of its own", server.location)

    def _group_id(self, server: Server, group: str) -> str:
        if self.draft.has_group(group):
            return group
        ids = self._group_ids.get(group, [])
        if len(set(ids)) > 1:
            message = f"is in the security group {show(group)}, but several groups have this name: add its ports"
            raise server.location.error(message)
        return ids[0] if ids else group


def _has_next(links: object) -> bool:
    return isinstance(links, list) and any(isinstance(link, dict) and link.get("rel") == "next" for link in links)
