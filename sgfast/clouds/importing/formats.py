"""The formats of exports, and the keys by which they are detected.

Every command needs the formats' names, so this module imports little.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from sgfast.clouds.aws.output_formats import SECTIONS

if TYPE_CHECKING:
    from sgfast.clouds.importing.draft import Draft
    from sgfast.clouds.importing.sources import Source

#: The keys next to the list in a page of OpenStack's and OTC's APIs.
API_PAGING = frozenset(("page_info", "request_id", "count", "total_count"))
#: Top-level keys of Terraform's documents. Each document has at least one of them: the output of ``show``, a state file
#: (an old one has no "terraform_version"; one that only names a backend has no "serial"), an encrypted file.
TERRAFORM = frozenset(("format_version", "serial", "terraform_version", "encrypted_data"))
#: Top-level keys of a template, of the outputs of the two AWS CLI commands, and of an item in a list of parameters.
_CLOUDFORMATION = frozenset(("Resources", "TemplateBody", "Stacks", "ParameterKey"))


class Format(NamedTuple):
    """A format of exports."""

    name: str
    #: The module of ``sgfast.clouds`` that reads the format.
    module: str
    title: str
    #: The format's line in ``sgfast import --help``.
    help: str
    #: Top-level keys. Every file of this format, or every item of a file that is a list, has at least one of them.
    sections: frozenset[str]
    #: Keys within the top three levels that no other format with the same sections has. "section.key" means a key of
    #: the objects in a section.
    own: frozenset[str]
    #: Keys that a page of a listing may have next to its sections.
    paging: frozenset[str] = frozenset()
    #: The commands or lists that have the security groups and their rules, for an export that lacks them.
    lists_groups: str = ""
    #: Whether the output of ``aws ec2 get-managed-prefix-list-entries`` may be among the files.
    takes_entries: bool = False

    def read(self, sources: Sequence[Source]) -> Draft:
        """Read files into one draft. The format's module is imported only here, because it is large."""
        draft: Draft = import_module(f"sgfast.clouds.{self.module}").read(sources)
        return draft


FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        Format(
            "otc",
            "otc.account",
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
            "the VPC API's lists of security groups and of their rules",
        ),
        Format(
            "neutron",
            "openstack.account",
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
            "openstack security group list -f json and openstack security group rule list --long -f json",
        ),
        Format(
            "aws",
            "aws.account",
            "aws ec2 describe-...",
            "aws ec2 describe-security-groups, ...-network-interfaces, ...",
            frozenset(SECTIONS),
            frozenset(SECTIONS),
            frozenset(("NextToken", "ResponseMetadata")),
            "aws ec2 describe-security-groups",
        ),
        Format(
            "terraform",
            "terraform.plan",
            "terraform show -json or a state file",
            "terraform show -json (a plan: what it makes); state files",
            TERRAFORM,
            TERRAFORM,
            takes_entries=True,
        ),
        Format(
            "cloudformation",
            "cloudformation.template",
            "AWS CloudFormation",
            "AWS CloudFormation: templates, and files of parameters",
            _CLOUDFORMATION,
            _CLOUDFORMATION,
            takes_entries=True,
        ),
    )
}  # fmt: skip
