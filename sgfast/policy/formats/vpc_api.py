"""What the APIs of Neutron, Open Telekom Cloud and Huawei Cloud have in common: groups, rules, ports, servers.

They were one API once, and still call most things the same. ``neutron`` and ``otc`` say where each goes its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from sgfast.policy.formats.draft import Draft, DraftInstance, DraftRule, Location
from sgfast.policy.formats.fields import Fields
from sgfast.policy.formats.sources import Source
from sgfast.policy.model import Action, Direction
from sgfast.policy.yaml_nodes import show

_DIRECTIONS: dict[str, Direction] = {"ingress": "inbound", "egress": "outbound"}
_ETHERTYPES: dict[str, Literal[4, 6]] = {"ipv4": 4, "ipv6": 6}
ICMP_WORDS = frozenset(("icmp", "icmpv6", "icmp6", "ipv6-icmp", "1", "58"))
_ANY_WORDS = frozenset(("", "any", "all", "-1"))

#: Keys that say nothing about what a filter does.
BOOKKEEPING = frozenset(
    (
        "id", "name", "description", "tenant_id", "project_id", "enterprise_project_id", "domain_id", "created_at",
        "updated_at", "revision_number", "tags", "sys_tags", "status", "links", "location", "standard_attr_id",
        "revisio[n_number",  # so a sample in Neutron's own documentation
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
#: Of a listing's top level.
_PAGING = frozenset(("page_info", "request_id", "count", "total_count"))


class Interface(NamedTuple):
    """A port, before it is known in which VPC it is."""

    location: Location
    fields: Fields
    network: str
    owner: str
    device: str
    addresses: list[str]
    groups: list[str]
    pairs: list[str]


class Server(NamedTuple):
    location: Location
    network: str
    #: By the port that has them ("" where the listing does not say).
    addresses: dict[str, list[str]]
    groups: list[str]


class ApiReader:
    """Reads the documents of one API into a draft. A subclass sets ``profile`` and says what differs."""

    profile: Literal["otc", "neutron"]

    def __init__(self) -> None:
        self.draft = Draft(self.profile)
        self.interfaces: dict[str, Interface] = {}
        self.servers: list[Server] = []
        self._group_ids: dict[str, list[str]] = {}
        self._groups_of_rules: dict[str, Location] = {}
        self._port_addresses: set[str] = set()
        #: What reads the objects of a listing, by its key; a single object stands under the key without "s".
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
            raise source.error(f"a {self.profile} export is a mapping with {self._known_sections()}")
        for key, value in source.value.items():
            if key in _PAGING or key.endswith("_links"):
                if key.endswith("_links") and _has_next(value):
                    raise source.error(f"{key} says that there are more pages: export them all")
                continue
            if key in self.sections:
                if not isinstance(value, list):
                    raise source.error(f"{key} must be a list")
                for item in value:
                    self.sections[key](source, item)
            elif f"{key}s" in self.sections:
                self.sections[f"{key}s"](source, value)
            else:
                raise source.error(f"unknown key {show(str(key))}: known here are {self._known_sections()}")

    def _known_sections(self) -> str:
        return ", ".join(self.sections)

    # Groups and rules

    def group(self, source: Source, value: object) -> None:
        fields = Fields(value, source.location("security group", ""))
        location = source.location("security group", fields.required("id"), fields.text("name"))
        fields.location = location
        self.draft.group(location, fields.text("description"), stateful=fields.flag("stateful", True))
        self._group_ids.setdefault(location.name, []).append(location.id)
        for rule in fields.items("security_group_rules", "rules"):
            self.rule(source, rule, location)
        self.unread(fields, _GROUP_IGNORED)

    def rule(self, source: Source, value: object, group: Location | None = None) -> None:
        """A rule, in its group or on its own."""
        fields = Fields(value, group or source.location("security group rule", ""))
        rule_id = fields.text("id")
        group_id = fields.text("security_group_id")
        if group is None:
            if not group_id:
                raise source.location("security group rule", rule_id).error("security_group_id is missing")
            group = source.location("security group", group_id)
            self._groups_of_rules.setdefault(group_id, group)
        elif group_id and group_id != group.id:
            raise group.part(f"rule {rule_id}").error(f"says that it belongs to another group, {show(group_id)}")
        fields.location = location = group.part(f"rule {show(rule_id)[1:-1]}" if rule_id else "a rule without id")
        if not self.is_enabled(fields):
            return
        ethertype = fields.choice("ether_type" if fields.has("ether_type") else "ethertype", _ETHERTYPES, 4)
        rule = DraftRule(location, fields.choice("direction", _DIRECTIONS), ethertype, self.protocol(fields), id=rule_id)
        self.ports_and_types(fields, rule)
        rule.cidr = fields.text("remote_ip_prefix")
        rule.group = fields.text("remote_group_id")
        rule.address_group = fields.text("remote_address_group_id")
        rule.action, rule.priority = self.action_and_priority(fields)
        rule.description = fields.text("description")
        fields.refuse_unread(_RULE_IGNORED)
        self.draft.rule(group.id, rule)

    def is_enabled(self, fields: Fields) -> bool:
        return True

    def action_and_priority(self, fields: Fields) -> tuple[Action, int]:
        return "allow", 1

    def protocol(self, fields: Fields) -> str | None:
        value = fields.get("protocol")
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(fields.number("protocol")) if abs(value) < 1000 else "above 255"
        else:
            value = fields.text("protocol")
        return None if value.lower() in _ANY_WORDS else value.lower()

    def ports_and_types(self, fields: Fields, rule: DraftRule) -> None:
        """Ports, or for ICMP type and code, which these APIs keep in the same two fields."""
        low, high = fields.number("port_range_min"), fields.number("port_range_max")
        if rule.protocol in ICMP_WORDS:
            rule.icmp_type, rule.icmp_code = low, high
        elif low is not None or high is not None:
            # One end alone is one port.
            first, last = (high if low is None else low), (low if high is None else high)
            assert first is not None and last is not None
            rule.ports = [(first, last)]

    # Ports

    def port(self, source: Source, value: object) -> None:
        fields = Fields(value, source.location("port", ""))
        location = source.location("port", fields.required("id"), fields.text("name"))
        fields.location = location
        interface = Interface(
            location,
            fields,
            self.network_of(fields),
            fields.text("device_owner"),
            fields.text("device_id"),
            self.addresses_of(fields),
            fields.texts("security_groups", "security_group_ids"),
            [
                Fields(pair, location.part("allowed_address_pairs")).required("ip_address")
                for pair in fields.items("allowed_address_pairs")
            ],
        )
        self._port_addresses.update(interface.addresses)
        if not fields.flag("port_security_enabled", True) or not fields.flag("is_port_security_enabled", True):
            if interface.groups:
                raise location.error("port_security_enabled is false, yet it is in security groups: one of them is wrong")
            self.draft.note("No instance, as its port security is off and nothing filters it", location)
        elif interface.owner.startswith("network:"):
            self.draft.note("No instance, as the network's own ports are not filtered", location)
        else:
            known = self.interfaces.setdefault(location.id, interface)
            if known[2:] != interface[2:]:
                raise location.error("differs from what another listing says of it: export both at one time")
        self.unread(fields, _PORT_IGNORED)

    def network_of(self, fields: Fields) -> str:
        return fields.text("network_id")

    def addresses_of(self, fields: Fields) -> list[str]:
        location = fields.location.part("fixed_ips")
        return [Fields(each, location).required("ip_address") for each in fields.items("fixed_ips")]

    def unread(self, fields: Fields, ignored: frozenset[str]) -> None:
        """Keys nobody knows: of groups and ports there are many, and clouds add more; they are told of."""
        for key in fields.unread(ignored):
            self.draft.note(f"The key {show(key)} is not known here and was not looked at", fields.location)

    # Servers

    def server(self, source: Source, value: object) -> None:
        fields = Fields(value, source.location("server", ""))
        location = source.location("server", fields.required("id"), fields.text("name"))
        fields.location = location
        networks = fields.get("addresses") or {}
        if not isinstance(networks, dict):
            raise location.error("addresses must be a mapping")
        addresses: dict[str, list[str]] = {}
        for entries in networks.values():
            if not isinstance(entries, list):
                raise location.error("addresses must have lists")
            for each in entries:
                entry = Fields(each, location.part("addresses"))
                if entry.text("OS-EXT-IPS:type") != "floating":
                    addresses.setdefault(entry.text("OS-EXT-IPS:port_id"), []).append(entry.required("addr"))
        groups = []
        for each in fields.items("security_groups"):
            entry = Fields(each, location.part("security_groups"))
            groups.append(entry.text("id") or entry.required("name"))
        self.servers.append(Server(location, next(iter(networks), "") if len(networks) == 1 else "", addresses, groups))

    # The end

    def finish(self) -> None:
        """Everything is read: ports and servers become instances."""
        if not self._group_ids:  # a listing of rules alone
            for group in self._groups_of_rules.values():
                self.draft.group(group)
                self.draft.note("Known by its rules only: no file lists the groups", group)
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
                    location, self.vpc_of(interface), interface.addresses, interface.groups, shared.get(location.id, ())
                )
            )
        for server in self.servers:
            if not self._port_addresses:
                self._server_instances(server)
                continue
            for address in (each for addresses in server.addresses.values() for each in addresses):
                if address not in self._port_addresses:
                    raise server.location.error(f"has the address {show(address)}, which no port in the files has")

    def is_filtered(self, interface: Interface) -> bool:
        return True

    def vpc_of(self, interface: Interface) -> str:
        return ""

    def vpc_of_server(self, server: Server) -> str:
        return ""

    def shared_addresses(self) -> dict[str, list[str]]:
        """By port, the addresses it may have besides its own."""
        return {id: interface.pairs for id, interface in self.interfaces.items()}

    def _names_by_device(self) -> dict[str, str]:
        """By id, the name of each server with one port, for ports without a name."""
        ports: dict[str, int] = {}
        for interface in self.interfaces.values():
            ports[interface.device] = ports.get(interface.device, 0) + 1
        return {s.location.id: s.location.name for s in self.servers if ports.get(s.location.id) == 1 and s.location.name}

    def _server_instances(self, server: Server) -> None:
        """A server's interfaces, where no listing of ports says what they are."""
        groups = [self._group_id(server, group) for group in server.groups]
        if len(server.addresses) > 1 and len(set(groups)) > 1:
            raise server.location.error(
                f"has {len(server.addresses)} ports and {len(set(groups))} security groups, "
                "and only the listing of ports says which has which: add it"
            )
        for port, addresses in server.addresses.items():
            location = server.location
            if len(server.addresses) > 1:
                location = Location(location.file, location.kind, port, f"{location.name}-{addresses[0]}".replace(":", "-"))
            self.draft.instance(DraftInstance(location, self.vpc_of_server(server), addresses, groups))
        if not server.addresses:
            self.draft.note("Left out, as it has no address of its own", server.location)

    def _group_id(self, server: Server, group: str) -> str:
        if self.draft.has_group(group):
            return group
        ids = self._group_ids.get(group, [])
        if len(set(ids)) > 1:
            message = f"is in the security group {show(group)}, and several have this name: add its ports"
            raise server.location.error(message)
        return ids[0] if ids else group


def _has_next(links: object) -> bool:
    return isinstance(links, list) and any(isinstance(link, dict) and link.get("rel") == "next" for link in links)
