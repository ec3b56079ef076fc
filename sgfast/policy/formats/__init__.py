"""Reads cloud exports, the output of a cloud's CLI or API, as policies.

    files --sources--> plain values --format detected and read--> Draft --> document, Policy

``FORMATS`` lists the formats. Several files may form one policy, such as groups in one file and ports in another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from yaml.nodes import Node

from sgfast.errors import PolicyError
from sgfast.policy.formats import aws, cloudformation, terraform
from sgfast.policy.formats.conversion import policy_of, yaml_of
from sgfast.policy.formats.draft import Draft
from sgfast.policy.formats.neutron import NeutronReader
from sgfast.policy.formats.otc import OtcReader
from sgfast.policy.formats.sources import Source, files_of, json_value, plain_source, read_source
from sgfast.policy.model import Policy

__all__ = ["FORMATS", "Format", "Imported", "export_in_json", "export_in_yaml", "import_sources", "load"]

_POLICY_SECTIONS = {"quotas", "settings", "vpcs", "peerings", "address_groups", "security_groups", "instances"}
#: How many items of a list are examined to detect a format.
_LOOKED_AT = 200


class Format(NamedTuple):
    name: str
    title: str
    #: Every file of this format has one of these keys at its top level; if the file is a list, its items do.
    sections: frozenset[str]
    #: Keys within the top three levels that no other format with the same sections has. "section.key" is a key of a
    #: section's objects.
    own: frozenset[str]
    read: Callable[[Sequence[Source]], Draft]


class Imported(NamedTuple):
    format: Format
    draft: Draft
    origin: str

    def policy(self) -> Policy:
        """Build the policy. PolicyError names the object that is not valid."""
        return policy_of(self.draft.made, self.origin)

    def yaml(self, head: Sequence[str]) -> str:
        """The policy document as YAML, with the lines of ``head`` as comments at its beginning."""
        return yaml_of(self.draft.made, head)

    def summary(self) -> str:
        """``2 security groups with 7 rules, 1 address group, 3 instances, 1 VPC``."""
        document = self.draft.document()
        rules = sum(len(group["rules"]) for group in document["security_groups"])
        parts = [f"{_number(len(document['security_groups']), 'security group')} with {_number(rules, 'rule')}"]
        if "address_groups" in document:
            parts.append(_number(len(document["address_groups"]), "address group"))
        parts += [_number(len(document["instances"]), "instance"), _number(len(document.get("vpcs", [None])), "VPC")]
        if "peerings" in document:
            parts.append(_number(len(document["peerings"]), "peering"))
        return ", ".join(parts)


FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        Format(
            "otc",
            "Open Telekom Cloud or Huawei Cloud VPC API",
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
            lambda sources: OtcReader().read(sources),
        ),
        Format(
            "neutron",
            "OpenStack Neutron",
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
            lambda sources: NeutronReader().read(sources),
        ),
        Format("aws", "aws ec2 describe-...", frozenset(aws.SECTIONS), frozenset(aws.SECTIONS), aws.read),
        Format(
            "terraform",
            "terraform show -json",
            frozenset(("format_version", "serial")),
            frozenset(("format_version", "lineage")),
            terraform.read,
        ),
        Format(
            "cloudformation",
            "AWS CloudFormation",
            cloudformation.SECTIONS,
            cloudformation.SECTIONS,
            cloudformation.read,
        ),
    )
}  # fmt: skip


def load(paths: Sequence[str | os.PathLike[str]], name: str = "auto") -> Imported:
    """Read files, and the files in directories, as one export. ``name`` is a format's name or "auto"."""
    files = [file for path in paths for file in files_of(path)]
    if files.count("-") > 1:
        raise PolicyError("standard input (-) can be read only once")
    origin = os.fsdecode(paths[0]) if len(paths) == 1 else ""
    return import_sources([read_source(file) for file in files], name, origin)


def import_sources(sources: Sequence[Source], name: str = "auto", origin: str = "") -> Imported:
    """Read one or more files as one export. Messages call the policy ``origin``.

    PolicyError names the file and the object that cannot be imported.
    """
    chosen = FORMATS[name] if name != "auto" else _detect_format(sources)
    all_files = sources[0].file + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    return Imported(chosen, chosen.read(sources), origin or all_files)


def export_in_json(data: bytes, origin: str) -> Imported | None:
    """The export in a text that starts like JSON; None if it is something else or broken."""
    try:
        value = json_value(data, origin)
    except (PolicyError, ValueError):
        return None
    return import_sources([Source(origin, value)]) if _is_export(value) else None


def export_in_yaml(root: Node, origin: str) -> Imported | None:
    """The export in a YAML document without the key ``version``; None if it is not an export."""
    source = plain_source(root, origin)
    return import_sources([source]) if _is_export(source.value) else None


def _is_export(value: object) -> bool:
    """Whether a document is or may be an export rather than a policy document (SPEC 2)."""
    if isinstance(value, dict) and "version" in value and "format_version" not in value:
        return False
    top, below = _keys(value)
    with_ids = any(f"{section}.id" in below for section in top)
    if top <= _POLICY_SECTIONS and not with_ids:
        return False  # a policy document that lacks its version
    return any(each.sections & top and (each.own & below or with_ids) for each in FORMATS.values())


def _detect_format(sources: Sequence[Source]) -> Format:
    possible = dict(FORMATS)
    sure: dict[str, Format] = {}
    for source in sources:
        top, below = _keys(source.value)
        fitting = {name: each for name, each in FORMATS.items() if each.sections & top}
        if not fitting:
            if isinstance(source.value, dict) and "version" in source.value:
                raise source.error("is already a policy document, not an export")
            raise source.error(f"not a known export; known are {_titles(FORMATS)}")
        sure |= {name: each for name, each in fitting.items() if each.own & below}
        possible = {name: each for name, each in possible.items() if name in fitting}
        if not possible:
            raise source.error("has another format than the files before it: import one cloud at a time")
    likely = {name: each for name, each in possible.items() if name in sure} or possible
    if len(likely) > 1:
        which = " or ".join(f"sgfast import {name}" for name in likely)
        raise sources[0].error(f"the format is ambiguous, {_titles(likely)}: choose one with {which}")
    return next(iter(likely.values()))


def _titles(formats: dict[str, Format]) -> str:
    return ", ".join(f"{name} ({each.title})" for name, each in formats.items())


def _keys(value: object) -> tuple[set[str], set[str]]:
    """The keys at the top level (of a list: its items' keys), and all keys down to two levels below."""
    levels: list[set[str]] = []
    found: list[object] = [value]
    for _ in range(3):
        mappings = [each for each in _flat(found) if isinstance(each, dict)]
        levels.append({key for each in mappings for key in each if isinstance(key, str)})
        found = [child for each in mappings for child in each.values()]
    sections = value.items() if isinstance(value, dict) else ()
    of_sections = {f"{section}.{key}" for section, items in sections for key in _keys_of_items(items)}
    return levels[0], of_sections.union(*levels)


def _keys_of_items(items: object) -> set[object]:
    return {key for each in _flat([items]) if isinstance(each, dict) for key in each}


def _flat(values: list[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, list):
            yield from islice(value, _LOOKED_AT)
        else:
            yield value


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
