"""Find the instances that a policy is suggested for: in a document, in a list, or by private addresses in captures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sgfast.policy.document_reader import DocumentReader
from sgfast.policy.loaded_policy import LoadedPolicy, having
from sgfast.policy.matching import Kind
from sgfast.policy.model import DEFAULT_GROUP, DEFAULT_VPC, TCP, Instance, Policy, Rule, SecurityGroup
from sgfast.policy.protocols import SERVICES, protocol_name
from sgfast.policy.templates import default_group
from sgfast.policy.yaml_nodes import MAP, SEQ, compose, garbage_collection_paused, plain, read_document

OPEN_GROUP = "open"
#: The maximum number of services in a group's name.
_NAMED_SERVICES = 3


def load_instances(path: str | os.PathLike[str]) -> Policy:
    """Load a policy document, or only the list under its ``instances``. Raises PolicyError as ``load_policy`` does."""
    data, origin = read_document(path)
    with garbage_collection_paused():
        root = compose(data, origin)
        if isinstance(root, SequenceNode):
            root = _document_of(root)
        return DocumentReader(root, origin).policy()


def _document_of(instances: SequenceNode) -> MappingNode:
    """Return a document with these instances and with the groups and VPCs that they name."""
    groups: dict[str, Node] = {}
    vpcs: dict[str, Node] = {}
    node_ids: set[int] = set()
    # Visit nodes only once that many instances share through a YAML alias.
    for instance in _distinct(instances.value):
        for key, value in instance.value if isinstance(instance, MappingNode) else ():
            if id(value) in node_ids:
                continue
            node_ids.add(id(value))
            if key.value == "vpc" and isinstance(value, ScalarNode):
                vpcs.setdefault(value.value, value)
            elif key.value == "security_groups" and isinstance(value, SequenceNode):
                groups.update((item.value, item) for item in value.value if isinstance(item, ScalarNode))
    parts: list[tuple[Node, Node]] = [(_key("version", instances), plain("1", instances))]
    for section, names in (("vpcs", vpcs), ("security_groups", groups)):
        if names:
            items = [MappingNode(MAP, [(_key("name", node), node)], node.start_mark) for node in names.values()]
            parts.append((_key(section, instances), SequenceNode(SEQ, items, instances.start_mark)))
    parts.append((_key("instances", instances), instances))
    return MappingNode(MAP, parts, instances.start_mark)


_key = partial(plain, quoted=True)


def _distinct(nodes: list[Node]) -> Iterable[Node]:
    return {id(node): node for node in nodes}.values()


def starter(addresses: Iterable[IPv4Address | IPv6Address]) -> Policy:
    """Return a policy with an instance for each address, in one VPC. Callers assign their groups later."""
    instances = (
        Instance("host-" + str(address).replace(":", "-"), DEFAULT_VPC, (ip_network(address),), (DEFAULT_GROUP,))
        for address in addresses
    )
    groups = (SecurityGroup(DEFAULT_GROUP),)
    return LoadedPolicy._read(security_groups=groups, instances=tuple(instances), origin="the captures")


def is_ungrouped(policy: Policy) -> bool:
    """Return whether the instances name no groups, so that the only group is ``default``, which was added for them."""
    named = {group for instance in policy.instances for group in instance.security_groups}
    return named == {DEFAULT_GROUP} and policy.group_by_name[DEFAULT_GROUP] == default_group()


def opened(policy: Policy) -> Policy:
    """Return a policy with the same instances that allows all traffic."""
    rules = tuple(
        Rule(f"{OPEN_GROUP}/{direction}/{family}", direction, family)
        for direction in ("inbound", "outbound") for family in (4, 6)
    )  # fmt: skip
    return having(
        policy,
        security_groups=(SecurityGroup(OPEN_GROUP, rules),),
        instances=tuple(replace(instance, security_groups=(OPEN_GROUP,)) for instance in policy.instances),
    )


def one_group_each(policy: Policy) -> Policy:
    """Return the policy with each instance in a group of its own, which has the instance's name."""
    return _regrouped(policy, {instance.name: instance.name for instance in policy.instances})


def grouped_by_service(policy: Policy, kinds: Iterable[Kind]) -> Policy:
    """Return the policy with a group for all instances that offer the same services, named after these services."""
    served: dict[str, set[tuple[int, int | None]]] = {instance.name: set() for instance in policy.instances}
    for kind in kinds:
        # A ping does not distinguish instances, because any instance may be pinged.
        if kind.ingress is not None and protocol_name(kind.protocol) not in ("icmp", "icmpv6"):
            served[kind.ingress].add((kind.protocol, kind.port))
    names: dict[frozenset[tuple[int, int | None]], str] = {}
    for services in map(frozenset, served.values()):
        if services not in names:
            name = service_name = _name_of(services)
            number = 1
            while name in names.values():
                number += 1
                name = f"{service_name}-{number}"
            names[services] = name
    return _regrouped(policy, {name: names[frozenset(services)] for name, services in served.items()})


def _name_of(services: frozenset[tuple[int, int | None]]) -> str:
    if not services:
        return "clients"
    words: dict[str, None] = {}
    for protocol, port in sorted(services, key=lambda service: (service[0], service[1] or 0)):
        name = "".join(c for c in protocol_name(protocol) or f"protocol-{protocol}" if c.isalnum() or c in "-.")
        if port is None:
            words[name] = None
        elif port in SERVICES:
            words[SERVICES[port]] = None
        else:
            words[f"{name}-{port}" if protocol != TCP else f"port-{port}"] = None
    listed = list(words)
    if len(listed) > _NAMED_SERVICES:
        listed[_NAMED_SERVICES:] = [f"and-{len(listed) - _NAMED_SERVICES}-more"]
    return "-".join(listed)[:56]


def _regrouped(policy: Policy, group_of: Mapping[str, str]) -> Policy:
    return having(
        policy,
        security_groups=tuple(SecurityGroup(name) for name in dict.fromkeys(group_of.values())),
        instances=tuple(replace(instance, security_groups=(group_of[instance.name],)) for instance in policy.instances),
    )
