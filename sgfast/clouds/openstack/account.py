"""Read OpenStack Neutron v2: documents of its API, and the output of ``openstack … -f json``.

The lists that are read: ``security_groups``, ``security_group_rules``, ``ports``, ``address_groups``, and for names and
networks ``servers``, ``networks``, ``subnets`` and ``routers``.

Without ``routers``, all networks form one VPC, because a list of ports does not show which networks routers join. With
``routers``, the networks with an interface of the same router (ports owned by ``network:router_interface…``) form one
VPC, and a network without a router is a VPC of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.openstack.cli_output import is_printed, is_row, rows_as_documents, shown_as_document
from sgfast.clouds.openstack.neutron_objects import BOOKKEEPING, ApiReader, Interface, Server

#: Neutron's protocol names that IANA does not list or uses for another protocol: IANA's IPIP is protocol 94.
_PROTOCOLS = {"ip": "0", "ipip": "4", "ipv6-encap": "41"}


def read(sources: Sequence[Source]) -> Draft:
    """Read files into one draft."""
    return NeutronReader().read(sources)


class NeutronReader(ApiReader):
    profile = "neutron"

    def __init__(self) -> None:
        super().__init__()
        self._routers: set[str] = set()
        self._has_routers = False
        #: Union-find structure of networks that share a VPC: the parent of each network. The id of a VPC is its root.
        self._joined: dict[str, str] = {}
        self._first_of_router: dict[str, str] = {}
        self._network_names: dict[str, str] = {}
        self.sections |= {
            "address_groups": self.address_group,
            "networks": self.network,
            "subnets": self.subnet,
            "routers": self.router,
        }

    def document(self, source: Source) -> None:
        value = source.value
        if isinstance(value, list) and value and all(map(is_printed, value)):
            # A list may have both rows of list commands and objects of show commands.
            rows = [item for item in value if is_row(item)]
            value, notes = rows_as_documents(source._replace(value=rows))
            for note in notes:
                self.draft.note(note)
            for item in source.value:  # type: ignore[attr-defined]  # This value is a list.
                if not is_row(item):
                    super().document(source._replace(value=shown_as_document(source._replace(value=item))))
        elif is_printed(value):
            value = shown_as_document(source)
        elif isinstance(value, dict) and any(key.startswith("default_security_group_rule") for key in value):
            raise source.error("default rules only apply to new groups and are no policy: export the security groups")
        super().document(source._replace(value=value))

    def address_group(self, source: Source, value: object) -> None:
        fields = source.identified("address group", value)
        self.draft.address_group(fields.location, fields.texts("addresses"))
        self.unread(fields, BOOKKEEPING | {"shared", "is_shared"})

    def protocol(self, fields: JsonObject) -> str | None:
        name = super().protocol(fields)
        return _PROTOCOLS.get(name, name) if name is not None else None

    # Networks

    def network(self, source: Source, value: object) -> None:
        network = source.identified("network", value).location
        self._network_names[network.id] = network.name

    def subnet(self, source: Source, value: object) -> None:
        """Check that a subnet has an id. Its other fields are not needed, because ports name their network."""
        JsonObject(value, source.location("subnet", "")).required("id")

    def router(self, source: Source, value: object) -> None:
        self._has_routers = True
        self._routers.add(JsonObject(value, source.location("router", "")).required("id"))

    def port(self, source: Source, value: object) -> None:
        super().port(source, value)
        if isinstance(value, dict) and str(value.get("device_owner")).startswith("network:router_interface"):
            fields = JsonObject(value, source.location("port", str(value.get("id"))))
            network, router = fields.text("network_id"), fields.text("device_id")
            if network and router:
                self._join(network, self._first_of_router.setdefault(router, network))

    def _join(self, network_a: str, network_b: str) -> None:
        network_a, network_b = self._vpc_of_network(network_a), self._vpc_of_network(network_b)
        self._joined[network_a] = network_b

    def _vpc_of_network(self, network: str) -> str:
        networks = []
        while (parent := self._joined.get(network, network)) != network:
            networks.append(network)
            network = parent
        for passed in networks:
            self._joined[passed] = network
        return network

    def vpc_of(self, interface: Interface) -> str:
        if not self._has_routers:
            return ""
        if not interface.network:
            raise interface.location.error("network_id is missing, but is required because the files list routers")
        vpc = self._vpc_of_network(interface.network)
        self.draft.vpc(Location(interface.location.file, "VPC", vpc, self._network_names.get(vpc, "")))
        return vpc

    def vpc_of_server(self, server: Server) -> str:
        if self._has_routers:
            raise server.location.error("ports are required because the files list routers: add the list of ports")
        return ""
