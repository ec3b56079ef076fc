"""Read Open Telekom Cloud and Huawei Cloud: the VPC API v3 and v1, and the list of servers (ECS).

The lists that are read: ``security_groups`` and ``security_group_rules`` (v3: multiport, action, priority; v1:
port_range_min and port_range_max), ``address_groups``, ``ports`` (v1 and v3), ``sub_network_interfaces``, ``servers``,
``vpcs``, ``subnets`` or ``virsubnets``, and ``peerings``. A port is in the VPC of its subnet. Without a list of
subnets, there is only one VPC.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sgfast.clouds.importing.draft import Draft, DraftRule, Location
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.openstack.neutron_objects import BOOKKEEPING, ICMP_WORDS, ApiReader, Interface, Server
from sgfast.policy.model import Action
from sgfast.policy.yaml_nodes import show

_ADDRESS_GROUP_IGNORED = BOOKKEEPING | {"ip_version", "max_capacity", "status_message"}
_ACTIONS: dict[str, Action] = {"allow": "allow", "deny": "deny"}
_RANGE = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?")
_TYPE_AND_CODE = re.compile(r"([0-9]{1,3})(?:[-/]([0-9]{1,3}))?")
#: The device owner of a virtual IP address. Its address pairs are the addresses of the ports to which it is bound.
_VIRTUAL = "neutron:VIP_PORT"


def read(sources: Sequence[Source]) -> Draft:
    """Read files into one draft."""
    return OtcReader().read(sources)


class OtcReader(ApiReader):
    profile = "otc"

    def __init__(self) -> None:
        super().__init__()
        self._vpc_of_subnet: dict[str, str] = {}
        self._has_subnets = False
        #: The ids of all VPCs that the files name, in order.
        self._vpcs: dict[str, None] = {}
        self.sections |= {
            "address_groups": self.address_group,
            "vpcs": self.vpc,
            "subnets": self.subnet,
            "virsubnets": self.subnet,
            "peerings": self.peering,
            "sub_network_interfaces": self.port,
        }

    # Rules

    def is_enabled(self, fields: JsonObject) -> bool:
        enabled = fields.flag("enabled", True)
        if not enabled:
            self.draft.note("Left out because it is not enabled", fields.location)
        return enabled

    def action_and_priority(self, fields: JsonObject) -> tuple[Action, int]:
        priority = fields.number("priority")
        return fields.choice("action", _ACTIONS, "allow"), 1 if priority is None else priority

    def ports_and_types(self, fields: JsonObject, rule: DraftRule) -> None:
        """Read a rule's ports. In v3, ``multiport`` has ports and ranges, or for ICMP a type with an optional code."""
        multiport = fields.get("multiport")
        if multiport is None or multiport == "":
            super().ports_and_types(fields, rule)
            return
        if fields.has("port_range_min", "port_range_max"):
            raise rule.location.error("has both multiport and port_range_min or port_range_max")
        text = str(fields.number("multiport")) if isinstance(multiport, int) else fields.text("multiport")
        if rule.protocol in ICMP_WORDS:
            type_and_code = _TYPE_AND_CODE.fullmatch(text)
            if type_and_code is None:
                message = f"multiport {show(text)}: for ICMP it must be a type, or a type and a code like 8-0"
                raise rule.location.error(message)
            rule.icmp_type = int(type_and_code[1])
            rule.icmp_code = int(type_and_code[2]) if type_and_code[2] else None
            return
        ranges: list[tuple[int, int]] = []
        for part in text.split(","):
            match = _RANGE.fullmatch(part)
            if match is None:
                raise rule.location.error(f"multiport {show(text)}: {show(part)} is neither a port nor a range")
            ranges.append((int(match[1]), int(match[2] or match[1])))
        rule.ports = ranges

    def address_group(self, source: Source, value: object) -> None:
        fields = source.identified("address group", value)
        # The list ip_extra_set has the same addresses again, with descriptions.
        addresses = fields.texts("ip_set") + fields.texts_in("ip_extra_set", "ip")
        self.draft.address_group(fields.location, addresses)
        self.unread(fields, _ADDRESS_GROUP_IGNORED)

    # VPCs

    def vpc(self, source: Source, value: object) -> None:
        location = source.identified("VPC", value).location
        self.draft.vpc(location)
        self._vpcs[location.id] = None

    def subnet(self, source: Source, value: object) -> None:
        fields = source.identified("subnet", value)
        vpc = fields.required("vpc_id")
        self._has_subnets = True
        self._vpcs.setdefault(vpc)
        for subnet in (fields.text("id"), fields.text("neutron_network_id")):
            if subnet and self._vpc_of_subnet.setdefault(subnet, vpc) != vpc:
                raise fields.location.error("is in two VPCs")

    def peering(self, source: Source, value: object) -> None:
        fields = source.identified("VPC peering", value)
        location = fields.location
        a, b = (
            JsonObject(fields.get(end), location.part(end)).required("vpc_id")
            for end in ("request_vpc_info", "accept_vpc_info")
        )
        if fields.text("status") in ("ACTIVE", ""):
            self.draft.peering(location, a, b)
        else:
            self.draft.note("Left out because it is not active", location)

    # Ports

    def network_of(self, fields: JsonObject) -> str:
        vpc, subnet = fields.text("vpc_id"), fields.text("network_id", "virsubnet_id")
        if vpc:
            self._vpcs[vpc] = None
            self._vpc_of_subnet.setdefault(subnet, vpc)
        return subnet

    def addresses_of(self, fields: JsonObject) -> list[str]:
        private = fields.texts_in("private_ips", "ip_address", "addresses")
        single = [text for key in ("private_ip_address", "ipv6_ip_address") if (text := fields.text(key))]
        return super().addresses_of(fields) + private + single

    def vpc_of(self, interface: Interface) -> str:
        if vpc := interface.fields.text("vpc_id"):
            if self._vpc_of_subnet.get(interface.network, vpc) != vpc:
                raise interface.location.error(f"is in the VPC {show(vpc)}, but its subnet is in another")
            return vpc
        if self._has_subnets and interface.network not in self._vpc_of_subnet:
            raise interface.location.error(f"is in the subnet {show(interface.network)}, which is in none of the files")
        return self._vpc_of_subnet.get(interface.network) or self._only_vpc(interface.location)

    def vpc_of_server(self, server: Server) -> str:
        # A server lists its addresses by VPC, so the name of its "network" is the VPC's id.
        return server.network or self._only_vpc(server.location)

    def _only_vpc(self, location: Location) -> str:
        if len(self._vpcs) > 1:
            raise location.error(f"there are {len(self._vpcs)} VPCs, and none is given for it: add the subnets")
        return next(iter(self._vpcs), "")

    def is_filtered(self, interface: Interface) -> bool:
        return interface.owner != _VIRTUAL

    def shared_addresses(self) -> dict[str, list[str]]:
        shared: dict[str, list[str]] = {}
        by_address: dict[tuple[str, str], str] = {}
        for id, interface in self.interfaces.items():
            if interface.owner == _VIRTUAL:
                continue
            by_address |= {(interface.network, address): id for address in interface.addresses}
            for pair in interface.pairs:
                if pair.endswith("/0"):
                    reason = "Its source check is off, so it may forward for unknown other addresses"
                    self.draft.note(reason, interface.location)
                else:
                    shared.setdefault(id, []).append(pair)
        for virtual in self.interfaces.values():
            if virtual.owner == _VIRTUAL:
                bound = [by_address.get((virtual.network, pair.removesuffix("/32"))) for pair in virtual.pairs]
                if None in bound:
                    pair = virtual.pairs[bound.index(None)]
                    raise virtual.location.error(f"is bound to {show(pair)}, which is not the address of any port")
                for port in bound:
                    shared.setdefault(str(port), []).extend(virtual.addresses)
                if not bound:
                    self.draft.note("Not an instance because the virtual address is bound to no port", virtual.location)
        return shared
