"""The formats of clouds' exports: how they are told apart. Every command needs their names, so this imports little."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from sgfast.importing.aws_output_formats import SECTIONS

if TYPE_CHECKING:
    from sgfast.importing.draft import Draft
    from sgfast.importing.sources import Source

#: Keys beside the lists in a page of OpenStack's and OTC's APIs.
API_PAGING = frozenset(("page_info", "request_id", "count", "total_count"))
#: Keys at the top level of a document of Terraform, which has one of them: the output of ``show``, a state file (old
#: ones have no "terraform_version", those that only name a backend no "serial"), an encrypted file.
TERRAFORM = frozenset(("format_version", "serial", "terraform_version", "encrypted_data"))
#: Top-level keys of a template, of the two AWS CLI commands' outputs, and of a parameter in a list of them.
_CLOUDFORMATION = frozenset(("Resources", "TemplateBody", "Stacks", "ParameterKey"))


class Format(NamedTuple):
    #: The module of this name reads it.
    name: str
    title: str
    #: The line of ``sgfast import --help`` about it.
    help: str
    #: Every file of this format has one of these keys at its top level; if the file is a list, its items do.
    sections: frozenset[str]
    #: Keys within the top three levels that no other format with the same sections has. "section.key" is a key of a
    #: section's objects.
    own: frozenset[str]
    #: Keys beside the sections of a page of a listing.
    paging: frozenset[str] = frozenset()

    def read(self, sources: Sequence[Source]) -> Draft:
        """Read files into one draft. Only now the module is imported: it is as large as all that a document needs."""
        draft: Draft = import_module(f"sgfast.importing.{self.name}").read(sources)
        return draft


FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        Format(
            "otc",
            "Open Telekom Cloud or Huawei Cloud VPC API",
            "Open Telekom Cloud, Huawei Cloud: VPC API v3 and v1, servers",
            frozenset(
                f"{section}{plural}"
                for plural in ("", "s")
                for section in (
                    "security_group", "security_group_rule", "port", "server", "address_group", "vpc", "subnet",
                    "virsubnet", "peering", "sub_network_interface",
                )
            ),
            frozenset(
                (
                    "multiport", "action", "priority", "enterprise_project_id", "page_info", "request_id", "vpcs",
                    "virsubnets", "peerings", "sub_network_interfaces", "ip_set", "vpc_id", "private_ips",
                    "OS-EXT-IPS:port_id",
                )
            ),
            API_PAGING,
        ),
        Format(
            "neutron",
            "OpenStack Neutron",
            "OpenStack: Neutron's API, openstack ... list or show -f json",
            frozenset(
                f"{section}{plural}"
                for plural in ("", "s")
                for section in (
                    "security_group", "security_group_rule", "port", "server", "address_group", "network", "subnet",
                    "router", "default_security_group_rule",
                )
            )
            | {"ID", "fixed_ips", "direction", "rules", "addresses"},
            frozenset(
                (
                    "ID", "stateful", "revision_number", "port_security_enabled", "security_group_ids", "ether_type",
                    "networks", "routers", "default_security_group_rules", "default_security_group_rule",
                    "address_groups.addresses", "address_group.addresses",
                )
            ),
            API_PAGING,
        ),
        Format(
            "aws",
            "aws ec2 describe-...",
            "aws ec2 describe-security-groups, ...-network-interfaces, ...",
            frozenset(SECTIONS),
            frozenset(SECTIONS),
            frozenset(("NextToken", "ResponseMetadata")),
        ),
        Format(
            "terraform",
            "terraform show -json or a state file",
            "terraform show -json (a plan: what it makes); state files",
            TERRAFORM,
            TERRAFORM,
        ),
        Format(
            "cloudformation",
            "AWS CloudFormation",
            "AWS CloudFormation: templates, and files of parameters",
            _CLOUDFORMATION,
            _CLOUDFORMATION,
        ),
    )
}  # fmt: skip
