"""Convert the output of AWS tools into one form: objects in sections, as ``aws ec2 describe-…`` prints them.

- ``--query SecurityGroups`` prints only a list of groups, and ``--query 'Reservations[].Instances'`` a list of lists.
  The keys of an object without its section determine the section.
- Ansible's ``…_info`` modules write the same keys in snake case, tags as a mapping, and ``changed`` next to the
  section. A loop has several results under ``results``, and a file of registered variables has a result for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

#: By section, which is a top-level key: the name of its objects in messages, and keys that together occur only in these
#: objects. If there are such keys, the objects may lack their section. The first section that fits is used.
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
#: The keys under which a loop of Ansible, or an SQL tool, has the list of its results.
_LISTS = ("result", "results", "rows")


def documents(value: object) -> list[dict[str, Any]]:
    """Return the documents with ``SECTIONS`` in a file's value. Empty if it is not the output of an AWS tool."""
    return [*_documents(value)]


def in_sections(value: object) -> object:
    """Return the ``documents`` of a value, or the value itself if it has none."""
    return documents(value) or value


def _documents(value: object) -> Iterator[dict[str, Any]]:
    """Yield the documents in a value. The recursion is limited because the nesting of a file is limited (SPEC 11)."""
    if isinstance(value, list):
        objects = [_in_pascal_case(item) for item in value]
        section = next((item_section for item in objects if (item_section := _section_of(item))), "")
        if section:
            document: dict[str, list[Any]] = {}
            for item in objects:  # The reader raises the error for an object that lacks its section's keys.
                document.setdefault(_section_of(item) or section, []).append(item)
            yield document
        else:
            # A list may have other objects of AWS with a key that is named like a section. They are no documents.
            of_documents = any(map(_is_document, value))
            for item in value:
                if of_documents or not isinstance(item, dict) or SECTIONS.keys().isdisjoint(item):
                    yield from _documents(item)
    elif isinstance(value, dict):
        single_object = _in_pascal_case(value)
        if section := _section_of(single_object):
            yield {section: [single_object]}
        elif SECTIONS.keys() & value.keys():
            yield value
        elif sections := _snake_case_sections(value):
            yield sections
        elif value.get("failed") is True and "changed" in value:
            yield value  # The reader refuses a failed result.
        else:
            for key, item in value.items():
                if key in _LISTS or (isinstance(item, dict) and "changed" in item):
                    yield from _documents(item)


def _is_document(value: object) -> bool:
    """Return whether a value has a section that is empty or contains an object of that section."""
    if not isinstance(value, dict):
        return False
    sections = [(section, value[section]) for section in SECTIONS if isinstance(value.get(section), list)]
    return any(
        not items or section not in _OBJECTS or any(_section_of(item) == section for item in items)
        for section, items in sections
    )


def _section_of(value: object) -> str:
    """Return the section whose objects have the keys of this value, or "" if there is none."""
    if not isinstance(value, dict):
        return ""
    return next((section for section, keys in _OBJECTS.items() if all(key in value for key in keys)), "")


def _in_pascal_case(value: object) -> object:
    """Rename the keys of a section's object as AWS itself writes them. Return any other value as it is."""
    if not isinstance(value, dict) or _SNAKE_CASE_KEYS.isdisjoint(value):
        return value
    renamed = _renamed(value)
    return renamed if _section_of(renamed) else value


def _snake_case_sections(value: dict[str, Any]) -> dict[str, Any]:
    """Return the sections in a result of Ansible, with the names and keys that AWS itself writes."""
    document = {}
    for section, key in _SNAKE_CASE_SECTIONS.items():
        items = value.get(key)
        # Other clouds have sections of the same names, but the id of their objects has another key.
        own_id = _snake_case(_OBJECTS[section][0])
        if isinstance(items, list) and any(isinstance(item, dict) and own_id in item for item in items):
            document[section] = _renamed(items)
    return document


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    in_pascal_case: dict[str, Any] = {}
    for key, item in value.items():
        name = "".join(word[:1].upper() + word[1:] for word in str(key).split("_"))
        if name in _TAGS and isinstance(item, dict):
            in_pascal_case[name] = [{"Key": tag, "Value": text} for tag, text in item.items()]
        else:
            in_pascal_case[name] = _renamed(item)
    return in_pascal_case


def _snake_case(key: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()


_SNAKE_CASE_SECTIONS = {section: _snake_case(section) for section in _OBJECTS}
_SNAKE_CASE_KEYS = {_snake_case(keys[0]) for keys in _OBJECTS.values()}
