"""Export to Terraform: a configuration for the provider aws, openstack or opentelekomcloud (SPEC 13.7)."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sgfast.base.errors import ExportError
from sgfast.clouds.aws import export as aws
from sgfast.clouds.exporting.calls import head, id_of_rule, refuse_several_regions, single_address
from sgfast.clouds.exporting.delta import Membership, PolicyDelta
from sgfast.clouds.exporting.expressible import Target
from sgfast.clouds.openstack import export as openstack
from sgfast.clouds.otc.export import OTC_V3
from sgfast.clouds.terraform.provider import PROFILE_OF_PROVIDER, Provider
from sgfast.policy.model import (
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    SecurityGroup,
)
from sgfast.policy.profile_data import ProfileName
from sgfast.policy.rule_text import peer_text, ports_text, rule_text, service_text
from sgfast.policy.yaml_nodes import shown_origin

#: The provider for each profile.
PROVIDERS: dict[ProfileName, Provider] = {
    profile: provider for provider, profile in PROFILE_OF_PROVIDER.items()
}

_TARGETS: dict[Provider, Target] = {
    "aws": aws.TARGET, "openstack": openstack.OPENSTACK, "opentelekomcloud": OTC_V3,
}  # fmt: skip
#: The limit for the readable part of a rule's name. The hash after it makes the name unique.
_NAME_CHARACTERS = 60
#: Escapes of JSON that Terraform does not know, with the escapes that Terraform uses instead.
_OTHER_ESCAPES = {r"\b": r"\u0008", r"\f": r"\u000c"}
_OF_A_WHOLE = "What has an id of the provider is imported. Other rules that the account has stay as they are."
_OF_A_CHANGE = (
    "Each block here takes the place of the one with its name in the configuration that was made from the old policy.",
    "Take out of that configuration what the removed blocks name.",
)
_OF_INTERFACES = "An interface stays in all other groups that it is in: this provider only adds groups to it."


class _Reference(str):
    """An expression, such as ``aws_security_group.web.id``."""


@dataclass(frozen=True, slots=True)
class _Block:
    #: The type of the block and its labels.
    words: tuple[str, ...]
    #: The attributes. A value that is a mapping is a nested block.
    body: Mapping[str, Any]

    @property
    def address(self) -> str:
        return ".".join(self.words if self.words[0] == "data" else self.words[1:])


def export(old: Policy | None, new: Policy, provider: Provider, version: str) -> str:
    """Return the configuration, or with ``old`` the blocks that change. Raises ExportError if Terraform cannot express
    it exactly.
    """
    if provider == "aws":
        delta = aws.aws_delta(old, new)
        refuse_several_regions(new, "Terraform")
    else:
        delta = openstack.openstack_delta(old, new, _TARGETS[provider])
        if problems := [*_icmp_errors(delta, provider)]:
            raise ExportError(shown_origin(new.origin), *problems)
    comments = [*head(delta, f"Terraform, provider {provider}", version)]
    comments += [_OF_A_WHOLE] if old is None else _OF_A_CHANGE
    if provider == "aws":
        comments.append(_OF_INTERFACES)
    configuration = _Aws(delta) if provider == "aws" else _OpenStack(delta, provider)
    blocks = [_text(block) for block in configuration.blocks()]
    return "\n\n".join(["\n".join(f"# {line}" for line in comments), *blocks]) + "\n"


def _icmp_errors(delta: PolicyDelta, provider: Provider) -> Iterator[str]:
    """Yield an error for each rule with an ICMP type or code that the provider cannot send."""
    for group_rule in delta.rules:
        kind, code = group_rule.rule.icmp_type, group_rule.rule.icmp_code
        if kind is None or (provider == "openstack" and kind and code != 0):
            continue
        reason = "takes type 0 and code 0 for all" if provider == "openstack" else "has no types of ICMP"
        yield (
            f"security group {group_rule.group!r}, rule {group_rule.rule.id} ({rule_text(group_rule.rule)}): "
            f"Terraform's provider {provider} {reason}"
        )


class _Configuration(ABC):
    """A configuration. Subclasses have the parts that depend on the provider."""

    group_type: str

    def __init__(self, delta: PolicyDelta) -> None:
        self.delta = delta
        #: Blocks of variables and data sources by address, in order.
        self.lookups: dict[str, _Block] = {}
        self._made_groups = {group.name for group in delta.groups}

    def blocks(self) -> Iterator[_Block]:
        delta = self.delta
        blocks: list[_Block] = []
        for group in delta.groups:
            blocks += self._with_import(self.group(group), self.group_id(group))
        for group_rule in delta.rules:
            blocks += self._with_import(self.rule(group_rule.group, group_rule.rule), self.rule_id(group_rule.rule))
        for member in delta.members:
            blocks += self.memberships(member)
        blocks = [*self.address_groups(), *blocks]
        yield from self.lookups.values()
        yield from blocks
        for address in dict.fromkeys(self._removed()) if delta.old is not None else ():
            yield _Block(("removed",), {"from": _Reference(address), "lifecycle": {"destroy": True}})

    def _with_import(self, block: _Block, id: str) -> list[_Block]:
        if not id or self.delta.old is not None:
            return [block]
        return [_Block(("import",), {"to": _Reference(block.address), "id": id}), block]

    def _removed(self) -> Iterator[str]:
        """Yield the addresses of resources that are in the old policy's configuration but not in the new one's."""
        delta = self.delta
        for group_rule in delta.rules_taken:
            yield self.rule(self._old_name(group_rule.group), self._in_old_names(group_rule.rule)).address
        for group in delta.groups_deleted:
            yield from (self.rule(group.name, rule).address for rule in group.rules)
            yield self.group(group).address
        yield from self.memberships_removed()

    def _old_name(self, group: str) -> str:
        kept_group = self.delta.kept_groups.get(group)
        return group if kept_group is None else kept_group.name

    def _in_old_names(self, rule: Rule) -> Rule:
        match rule.peer:
            case GroupPeer(name):
                return replace(rule, peer=GroupPeer(self._old_name(name)))
            case AddressGroupPeer(name) if name in self.delta.kept_address_groups:
                return replace(rule, peer=AddressGroupPeer(self.delta.kept_address_groups[name].name))
        return rule

    def id_of_group(self, name: str) -> str:
        group = self.delta.new.group_by_name.get(name)
        known_id = self.group_id(group) if group is not None and name not in self._made_groups else ""
        return known_id or _Reference(f"{self.group_type}.{_name(name)}.id")

    def look_up(self, block: _Block, attribute: str = ".id") -> _Reference:
        self.lookups[block.address] = block
        address = f"var.{block.words[1]}" if block.words[0] == "variable" else block.address
        return _Reference(address + attribute)

    @abstractmethod
    def group(self, group: SecurityGroup) -> _Block:
        """Return the resource of a group."""

    @abstractmethod
    def group_id(self, group: SecurityGroup) -> str:
        """Return the provider's id of a group, or "" if it is unknown."""

    @abstractmethod
    def rule(self, group: str, rule: Rule) -> _Block:
        """Return the resource of a rule. ``group``: the name of the rule's group."""

    @abstractmethod
    def rule_id(self, rule: Rule) -> str:
        """Return the provider's id of a rule, or "" if it is unknown."""

    def address_groups(self) -> list[_Block]:
        """Return the resources of address groups that are new or have changed."""
        return []

    @abstractmethod
    def memberships(self, member: Membership) -> list[_Block]:
        """Return the resources that put an instance into its groups."""

    def memberships_removed(self) -> Iterator[str]:
        """Yield the addresses of resources that put instances into groups that they leave."""
        yield from ()


class _Aws(_Configuration):
    group_type = "aws_security_group"

    def __init__(self, found: PolicyDelta) -> None:
        super().__init__(found)
        self._vpcs = aws.vpcs_of_groups(found.new)

    def group(self, group: SecurityGroup) -> _Block:
        body = {"name": group.name, "description": aws.described(group.description) or group.name}
        for vpc in self._vpcs.get(group.name, ()):
            body["vpc_id"] = self._vpc_id(vpc)
        return _Block(("resource", self.group_type, _name(group.name)), body)

    def _vpc_id(self, name: str) -> str:
        vpc = self.delta.new.vpc_by_name[name]
        variable = _Block(
            ("variable", _name(f"vpc_{name}")),
            {"type": _Reference("string"), "description": f"The id of the VPC {name}"},
        )
        return aws.provider_id("vpc", vpc) or self.look_up(variable, "")

    def group_id(self, group: SecurityGroup) -> str:
        return aws.provider_id("sg", group)

    def rule(self, group: str, rule: Rule) -> _Block:
        kind = f"aws_vpc_security_group_{_direction(rule)}_rule"
        body: dict[str, Any] = {"security_group_id": self.id_of_group(group)}
        match rule.peer:
            case GroupPeer(name):
                body["referenced_security_group_id"] = self.id_of_group(name)
            case AddressGroupPeer():
                body["prefix_list_id"] = aws.prefix_list(self.delta, rule.peer)
            case _:
                body[f"cidr_ipv{rule.ethertype}"] = _cidr(rule)
        body["ip_protocol"] = aws.protocol(rule)
        if (ends := aws.first_and_last(rule)) is not None:
            body["from_port"], body["to_port"] = ends
        return _Block(("resource", kind, _rule_name(group, rule)), _described(body, aws.described(rule.description)))

    def rule_id(self, rule: Rule) -> str:
        return id_of_rule(aws.IDS["sgr"], rule)

    def memberships(self, member: Membership) -> list[_Block]:
        added = [name for name in member.instance.security_groups if name not in member.had]
        interface = self._interface(member.instance) if added else ""
        return [
            _Block(
                self._attachment(member.old_name, name),
                {"network_interface_id": interface, "security_group_id": self.id_of_group(name)},
            )
            for name in added
        ]

    def memberships_removed(self) -> Iterator[str]:
        delta = self.delta
        for member in delta.members:
            for name in member.had:
                if name not in member.instance.security_groups:
                    yield ".".join(self._attachment(member.old_name, self._old_name(name))[1:])

    @staticmethod
    def _attachment(instance: str, group: str) -> tuple[str, ...]:
        return ("resource", "aws_network_interface_sg_attachment", _name(f"{instance} in {group}"))

    def _interface(self, instance: Instance) -> str:
        if interface_id := aws.provider_id("eni", instance):
            return interface_id
        filters = aws.filters_of(instance) | {"vpc-id": self._vpc_id(instance.vpc)}
        filter_blocks = [{"name": name, "values": [value]} for name, value in filters.items()]
        return self.look_up(_Block(("data", "aws_network_interface", _name(instance.name)), {"filter": filter_blocks}))


class _OpenStack(_Configuration):
    """A configuration for openstack, or for opentelekomcloud, whose rules have actions and priorities."""

    def __init__(self, found: PolicyDelta, provider: Provider) -> None:
        super().__init__(found)
        self._provider = provider
        self._is_otc = provider == "opentelekomcloud"
        self.group_type = f"{provider}_vpc_secgroup_v3" if self._is_otc else f"{provider}_networking_secgroup_v2"

    def group(self, group: SecurityGroup) -> _Block:
        body: dict[str, Any] = {"name": group.name}
        if group.description:
            body["description"] = group.description
        body["delete_default_rules"] = True
        if not group.stateful:
            body["stateful"] = False
        # The attribute delete_default_rules only matters when a group is made. If it differed from the state of an
        # imported group, the provider would replace the group.
        body["lifecycle"] = {"ignore_changes": [_Reference("delete_default_rules")]}
        return _Block(("resource", self.group_type, _name(group.name)), body)

    def group_id(self, group: SecurityGroup) -> str:
        return openstack.provider_id(group)

    def rule(self, group: str, rule: Rule) -> _Block:
        body: dict[str, Any] = {
            "security_group_id": self.id_of_group(group),
            "direction": _direction(rule),
            "ether_type" if self._is_otc else "ethertype": f"IPv{rule.ethertype}",
        }
        if rule.protocol is not None:
            body["protocol"] = openstack.protocol(rule, is_otc=self._is_otc)
        if self._is_otc:
            if rule.ports is not None:
                body["multi_port"] = ports_text(rule.ports, listed=None)
            body |= {"action": rule.action, "priority": rule.priority}
        elif rule.ports is not None:
            body["port_range_min"], body["port_range_max"] = rule.ports[0]
        elif rule.icmp_type is not None:
            body["port_range_min"], body["port_range_max"] = rule.icmp_type, rule.icmp_code or 0
        match rule.peer:
            case GroupPeer(name):
                body["remote_group_id"] = self.id_of_group(name)
            case AddressGroupPeer(name):
                body["remote_address_group_id"] = self._id_of_addresses(name)
            case _:
                body["remote_ip_prefix"] = _cidr(rule)
        kind = f"{self._provider}_{'vpc_secgroup_rule_v3' if self._is_otc else 'networking_secgroup_rule_v2'}"
        return _Block(("resource", kind, _rule_name(group, rule)), _described(body, rule.description))

    def rule_id(self, rule: Rule) -> str:
        return openstack.rule_id(rule)

    def address_groups(self) -> list[_Block]:
        delta = self.delta
        changed = {group.name for group in (*delta.address_groups, *delta.addresses, *delta.addresses_taken)}
        blocks: list[_Block] = []
        for group in delta.new.address_groups:
            if group.name in changed:
                body = {"name": group.name, "addresses": [str(address) for address in group.addresses]}
                blocks += self._with_import(_Block(self._addresses(group), body), openstack.provider_id(group))
        return blocks

    @staticmethod
    def _addresses(group: AddressGroup) -> tuple[str, ...]:
        return ("resource", "openstack_networking_address_group_v2", _name(group.name))

    def _id_of_addresses(self, name: str) -> str:
        group = self.delta.new.address_group_by_name.get(name) or AddressGroup(name)
        known_id = openstack.provider_id(group) if name in self.delta.kept_address_groups else ""
        return known_id or _Reference(".".join(self._addresses(group)[1:]) + ".id")

    def _removed(self) -> Iterator[str]:
        yield from super()._removed()
        yield from (".".join(self._addresses(group)[1:]) for group in self.delta.address_groups_deleted)

    def memberships(self, member: Membership) -> list[_Block]:
        body = {
            "port_id": self._port(member.instance),
            "security_group_ids": [self.id_of_group(name) for name in member.instance.security_groups],
            "force" if self._is_otc else "enforce": True,
        }
        kind = f"{self._provider}_networking_port_secgroup_associate_v2"
        return [_Block(("resource", kind, _name(member.old_name)), body)]

    def _port(self, instance: Instance) -> str:
        address = single_address(instance)
        if (port_id := openstack.provider_id(instance)) or address is None:
            return port_id
        kind = f"{self._provider}_networking_port_v2"
        return self.look_up(_Block(("data", kind, _name(instance.name)), {"fixed_ip": str(address.network_address)}))


def _direction(rule: Rule) -> str:
    return "ingress" if rule.direction == "inbound" else "egress"


def _cidr(rule: Rule) -> str:
    return str(rule.peer or ("0.0.0.0/0" if rule.ethertype == 4 else "::/0"))


def _described(body: dict[str, Any], description: str) -> dict[str, Any]:
    return body | ({"description": description} if description else {})


def _name(text: str) -> str:
    """Return a valid name of Terraform for a text. Different texts have different names, and a text always the same.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    if not re.match(r"[A-Za-z_]", plain):
        plain = f"_{plain}"
    return plain if plain == text else f"{plain}_{_hash(text)}"


def _rule_name(group: str, rule: Rule) -> str:
    words = f"{group}_{rule.direction}_{service_text(rule)}_{peer_text(rule)}"
    plain = re.sub(r"[^A-Za-z0-9]+", "_", words)[:_NAME_CHARACTERS].strip("_")
    # The hash covers all fields that distinguish rules, so that later exports give the same name to an equal rule.
    ports = "" if rule.ports is None else ports_text(rule.ports, listed=None)
    parts = (words, rule.ethertype, ports, rule.action, rule.priority)
    return f"{'' if plain[:1].isalpha() else '_'}{plain}_{_hash(' '.join(map(str, parts)))}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _text(block: _Block) -> str:
    return "\n".join([" ".join((block.words[0], *map(_quoted, block.words[1:]))) + " {", *_lines(block.body), "}"])


def _lines(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a block's body: the attributes, aligned as Terraform formats them, then the nested blocks."""
    blocks = {name: value for name, value in body.items() if _is_block(value)}
    width = max((len(name) for name in body if name not in blocks), default=0)
    for name, value in body.items():
        if name not in blocks:
            yield f"  {name:{width}} = {_expression(value)}"
    for name, value in blocks.items():
        for item in value if isinstance(value, list) else [value]:
            yield f"  {name} {{"
            yield from (f"  {line}" for line in _lines(item))
            yield "  }"


def _is_block(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _expression(value: Any) -> str:
    if isinstance(value, _Reference):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_expression, value))}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
    return re.sub(r"\\.", lambda match: _OTHER_ESCAPES.get(match[0], match[0]), quoted)
