"""Bring what AWS tools print into one shape: objects of sections, as ``aws ec2 describe-…`` prints them.

- ``--query SecurityGroups`` leaves a list of groups, ``--query 'Reservations[].Instances'`` a list of lists. What an
  object without its section is follows from its keys.
- Ansible's ``…_info`` modules write the same keys in snake case, tags as a mapping, and ``changed`` beside the section.
  A loop puts several results under ``results``, and a file of registered variables has one for each variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

#: Top-level keys, what messages call their items, and keys that together only these items have. If there are such keys,
#: the items may lack the section above them; the first section that fits counts.
_SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "SecurityGroupRules": ("security group rule", ("SecurityGroupRuleId", "GroupId")),
    "SecurityGroups": ("security group", ("GroupId", "IpPermissions")),
    "Instances": ("instance", ("InstanceId", "ImageId")),
    "NetworkInterfaces": ("network interface", ("NetworkInterfaceId", "PrivateIpAddresses")),
    "VpcPeeringConnections": ("VPC peering connection", ("VpcPeeringConnectionId", "AccepterVpcInfo")),
    "Subnets": ("subnet", ("SubnetId", "CidrBlock")),
    "Vpcs": ("VPC", ("VpcId", "CidrBlock")),
    "PrefixLists": ("prefix list", ("PrefixListId", "PrefixListName")),
    "TransitGateways": ("transit gateway", ("TransitGatewayId", "TransitGatewayArn")),
    "TransitGatewayAttachments": (
        "transit gateway attachment", ("TransitGatewayAttachmentId", "TransitGatewayId", "ResourceType"),
    ),
    "TransitGatewayVpcAttachments": (
        "transit gateway attachment", ("TransitGatewayAttachmentId", "TransitGatewayId", "VpcId"),
    ),
    "TransitGatewayRouteTables": ("transit gateway route table", ("TransitGatewayRouteTableId", "TransitGatewayId")),
    "Routes": ("transit gateway route", ("DestinationCidrBlock", "TransitGatewayAttachments")),
    "RouteTables": ("route table", ("RouteTableId", "Routes")),
    "NetworkAcls": ("network ACL", ("NetworkAclId", "Entries")),
    "LoadBalancers": ("load balancer", ("LoadBalancerArn", "LoadBalancerName")),
    "LoadBalancerDescriptions": ("load balancer", ("LoadBalancerName", "ListenerDescriptions")),
    "NatGateways": ("NAT gateway", ("NatGatewayId", "VpcId")),
    "Reservations": ("reservation", ()),
    "Entries": ("prefix list entry", ()),
    "TransitGatewayRouteTablePropagations": ("transit gateway route table propagation", ()),
    "Associations": ("transit gateway route table association", ()),
}  # fmt: skip
SECTIONS = {section: word for section, (word, _) in _SECTIONS.items()}
_OBJECTS = {section: keys for section, (_, keys) in _SECTIONS.items() if keys}
_TAGS = ("Tags", "TagSet")
#: A loop of Ansible, or an SQL tool, keeps its results in a list under one of these keys.
_LISTS = ("result", "results", "rows")


def documents(value: object) -> list[dict[str, Any]]:
    """The objects of ``SECTIONS`` that a file holds; none if it is not the output of an AWS tool."""
    return [*_documents(value)]


def in_sections(value: object) -> object:
    """The ``documents`` of a value; the value itself if it has none."""
    return documents(value) or value


def _documents(value: object) -> Iterator[dict[str, Any]]:
    """Lists in lists end somewhere, as a file's values are nested only so deep (SPEC 11)."""
    if isinstance(value, list):
        objects = [_in_pascal_case(each) for each in value]
        section = next((found for each in objects if (found := _section_of(each))), "")
        if section:
            made: dict[str, list[Any]] = {}
            for each in objects:  # the reader says what is wrong with an object that has not even its section's keys
                made.setdefault(_section_of(each) or section, []).append(each)
            yield made
        else:
            # Other objects of AWS have keys like those of the sections.
            of_documents = any(map(_is_document, value))
            for each in value:
                if of_documents or not isinstance(each, dict) or SECTIONS.keys().isdisjoint(each):
                    yield from _documents(each)
    elif isinstance(value, dict):
        alone = _in_pascal_case(value)
        if section := _section_of(alone):
            yield {section: [alone]}
        elif SECTIONS.keys() & value.keys():
            yield value
        elif sections := _snake_case_sections(value):
            yield sections
        elif value.get("failed") is True and "changed" in value:
            yield value  # the reader refuses it
        else:
            for key, each in value.items():
                if key in _LISTS or (isinstance(each, dict) and "changed" in each):
                    yield from _documents(each)


def _is_document(value: object) -> bool:
    """Whether a value has a section that is empty or has an object of that section."""
    if not isinstance(value, dict):
        return False
    found = [(section, value[section]) for section in SECTIONS if isinstance(value.get(section), list)]
    return any(
        not items or section not in _OBJECTS or any(_section_of(each) == section for each in items)
        for section, items in found
    )


def _section_of(value: object) -> str:
    """The section whose object a value is; empty if there is none."""
    if not isinstance(value, dict):
        return ""
    return next((section for section, keys in _OBJECTS.items() if all(key in value for key in keys)), "")


def _in_pascal_case(value: object) -> object:
    """An object of a section with the keys that AWS itself writes; any other value as it is."""
    if not isinstance(value, dict) or _SNAKE_CASE_KEYS.isdisjoint(value):
        return value
    renamed = _renamed(value)
    return renamed if _section_of(renamed) else value


def _snake_case_sections(value: dict[str, Any]) -> dict[str, Any]:
    """The sections of AWS in a result of Ansible; empty if there is none."""
    made = {}
    for section, key in _SNAKE_CASE_SECTIONS.items():
        items = value.get(key)
        # Other clouds have sections of the same names, but their objects have other ids.
        own_id = _snake_case(_OBJECTS[section][0])
        if isinstance(items, list) and any(isinstance(each, dict) and own_id in each for each in items):
            made[section] = _renamed(items)
    return made


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for key, each in value.items():
        name = "".join(word[:1].upper() + word[1:] for word in str(key).split("_"))
        if name in _TAGS and isinstance(each, dict):
            made[name] = [{"Key": tag, "Value": text} for tag, text in each.items()]
        else:
            made[name] = _renamed(each)
    return made


def _snake_case(key: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()


_SNAKE_CASE_SECTIONS = {section: _snake_case(section) for section in _OBJECTS}
_SNAKE_CASE_KEYS = {_snake_case(keys[0]) for keys in _OBJECTS.values()}
