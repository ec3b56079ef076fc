"""All providers, and what they have together. A new provider is a folder and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sgfast.clouds.aws.provider import AWS
from sgfast.clouds.cloudformation.provider import CLOUDFORMATION
from sgfast.clouds.importing.formats import Format
from sgfast.clouds.openstack.provider import OPENSTACK
from sgfast.clouds.otc.provider import OTC
from sgfast.clouds.provider import LiveReader, Provider
from sgfast.clouds.terraform.provider import TERRAFORM
from sgfast.clouds.zeek.provider import ZEEK

if TYPE_CHECKING:
    from sgfast.policy.profile_data import ProfileName

#: A target of exports (SPEC 13).
TargetName = Literal["terraform", "aws", "openstack", "otc", "nftables"]

#: In the order in which help lists them.
PROVIDERS: tuple[Provider, ...] = (OTC, OPENSTACK, AWS, TERRAFORM, CLOUDFORMATION, ZEEK)

#: The formats of exports, by name.
FORMATS: dict[str, Format] = {form.name: form for provider in PROVIDERS if (form := provider.format) is not None}

#: The functions that read accounts, by the name of the format that they read them in.
LIVE: dict[str, LiveReader] = {
    form.name: reader
    for provider in PROVIDERS
    if (form := provider.format) is not None and (reader := provider.live) is not None
}

#: The profile whose policies an export is for, by the word of ``--to``. Terraform's exports are for several.
PROFILE_OF_TARGET: dict[str, ProfileName] = {
    target: provider.profile for provider in PROVIDERS if provider.profile is not None for target in provider.exports
}

#: The modules of exports, by the word of ``--to``.
EXPORTS: dict[str, str] = {target: module for provider in PROVIDERS for target, module in provider.exports.items()}
