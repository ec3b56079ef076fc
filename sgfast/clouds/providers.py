"""All providers, and what they have together. A new provider is a folder and a line here."""

from __future__ import annotations

from sgfast.clouds.aws.provider import AWS
from sgfast.clouds.cloudformation.provider import CLOUDFORMATION
from sgfast.clouds.importing.formats import Format
from sgfast.clouds.openstack.provider import OPENSTACK
from sgfast.clouds.otc.provider import OTC
from sgfast.clouds.provider import Provider
from sgfast.clouds.terraform.provider import TERRAFORM
from sgfast.clouds.zeek.provider import ZEEK

#: In the order in which help lists them.
PROVIDERS: tuple[Provider, ...] = (OTC, OPENSTACK, AWS, TERRAFORM, CLOUDFORMATION, ZEEK)

#: The formats of exports, by name.
FORMATS: dict[str, Format] = {each.format.name: each.format for each in PROVIDERS if each.format is not None}

#: The modules that read accounts, by the name of the format that they read them in.
LIVE: dict[str, str] = {each.format.name: each.live for each in PROVIDERS if each.format is not None and each.live}

#: The modules of exports, by the word of ``--to``.
EXPORTS: dict[str, str] = {target: module for each in PROVIDERS for target, module in each.exports.items()}
