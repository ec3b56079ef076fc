"""OpenStack, whose networks are Neutron's."""

from __future__ import annotations

from sgfast.clouds.importing.formats import API_PAGING, Format, singular_and_plural
from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.provider import LiveReader, Provider

OPENSTACK = Provider(
    profile="neutron",
    format=Format(
        "neutron",
        "openstack.account",
        "OpenStack Neutron",
        "OpenStack: Neutron's API, openstack ... list or show -f json",
        singular_and_plural(
            "security_group", "security_group_rule", "port", "server", "address_group", "network", "subnet", "router",
            "default_security_group_rule",
        ) | {"ID", "fixed_ips", "direction", "rules", "addresses"},
        frozenset((
            "ID", "stateful", "revision_number", "port_security_enabled", "security_group_ids", "ether_type",
            "networks", "routers", "default_security_group_rules", "default_security_group_rule",
            "address_groups.addresses", "address_group.addresses",
        )),
        API_PAGING,
        "openstack security group list -f json and openstack security group rule list --long -f json",
    ),
    live=LiveReader("openstack.live", "read_neutron", ("--os-cloud",)),
    exports={"openstack": "openstack.export"},
    log_formats=(
        LogFormat(
            "a security group log of OpenStack Neutron", "openstack.flow_log:read",
            text_pattern=rb"\blog_resource_ids=", shows_answers=False,
        ),
    ),
)  # fmt: skip
