"""Terraform, whose plans and states name resources of several clouds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sgfast.clouds.importing.formats import Format
from sgfast.clouds.provider import Provider as KnownProvider

if TYPE_CHECKING:
    from sgfast.policy.profile_data import ProfileName

#: A provider of Terraform.
Provider = Literal["aws", "openstack", "opentelekomcloud"]
#: The profile of policies for each provider.
PROFILE_OF_PROVIDER: dict[Provider, ProfileName] = {
    "aws": "aws", "openstack": "neutron", "opentelekomcloud": "otc",
}  # fmt: skip

#: Top-level keys of Terraform's documents. Each document has at least one of them: the output of ``show``, a state file
#: (an old one has no "terraform_version"; one that only names a backend has no "serial"), an encrypted file.
DOCUMENT_KEYS = frozenset(("format_version", "serial", "terraform_version", "encrypted_data"))

TERRAFORM = KnownProvider(
    format=Format(
        "terraform",
        "terraform.plan",
        "terraform show -json or a state file",
        "terraform show -json (a plan: what it makes); state files",
        DOCUMENT_KEYS,
        DOCUMENT_KEYS,
        takes_entries=True,
    ),
    exports={"terraform": "terraform.export"},
)
