"""Check policies and changes that a program made instead of reading them from a document (SPEC 14.2, 14.6)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import is_dataclass
from ipaddress import IPv6Network
from math import isfinite
from numbers import Integral
from typing import Any, Literal, get_args, get_origin

from sgfast.base.errors import ArgumentError, ArgumentTypeError, PolicyError
from sgfast.policy.changed_policy import (
    check_addresses,
    check_known,
    check_not_mixed,
    check_peer,
    check_ports,
    known_group,
)
from sgfast.policy.field_kinds import Form
from sgfast.policy.fields import (
    ADDRESS_GROUP,
    INSTANCE,
    QUOTAS,
    RULE,
    RULE_ID,
    SECURITY_GROUP,
    SETTINGS,
    TIMEOUTS,
    VPC,
)
from sgfast.policy.loaded_policy import LoadedPolicy
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    AddressGroup,
    Instance,
    Network,
    Policy,
    Quotas,
    Rule,
    SecurityGroup,
    Settings,
    Timeouts,
    Vpc,
)
from sgfast.policy.ranges import LAST_PORT
from sgfast.policy.rules import NEEDS_A_TYPE, ONLY_OF_ICMP, no_ports
from sgfast.policy.serialization import field_types

#: For each class of values, the form of its mapping in a document.
_FIELDS: dict[type, Form] = {
    Rule: RULE, SecurityGroup: SECURITY_GROUP, AddressGroup: ADDRESS_GROUP, Vpc: VPC, Instance: INSTANCE,
    Settings: SETTINGS, Timeouts: TIMEOUTS, Quotas: QUOTAS,
}  # fmt: skip


def check_made_policy(policy: Policy) -> None:
    """Check a policy that a program made like a document, and mark it as checked.

    Raises PolicyError, which names the first invalid field.
    """
    try:
        check_fields(policy, "policy")
        _check_together(policy)
    except (ArgumentError, ArgumentTypeError) as error:
        raise PolicyError(str(error)) from None
    if isinstance(policy, LoadedPolicy):
        policy._is_checked = True


def _check_together(policy: Policy) -> None:
    """Check that names and ids are unique, that all referenced objects exist, and that quotas are not exceeded."""
    for section in ("vpcs", "address_groups", "security_groups", "instances"):
        items = getattr(policy, section)
        for word in ("name", "id"):
            _refuse_duplicates([value for item in items if (value := getattr(item, word))], f"policy.{section}")
    _refuse_duplicates([rule.id for group in policy.security_groups for rule in group.rules], "policy.security_groups")
    for place in ("vnis", "vlans", "interfaces", "files"):
        _refuse_duplicates([mark for vpc in policy.vpcs for mark in getattr(vpc, place)], f"policy.vpcs: {place}")
    if not policy.vpcs:
        raise PolicyError("policy.vpcs must have at least one VPC")
    _check_quota("policy.security_groups", policy.security_groups, "security_groups", policy.quotas)
    for pair in policy.peerings:
        with _errors_at("policy.peerings"):
            for vpc in pair:
                check_known(policy, "VPC", vpc)
        if len(pair) != 2:
            raise PolicyError(f"policy.peerings must be pairs of VPCs, not {sorted(pair)!r:.80}")
    for n, group in enumerate(policy.security_groups):
        path = f"policy.security_groups[{n}].rules"
        _check_quota(path, group.rules, "rules_per_group", policy.quotas)
        if group.vpc:
            with _errors_at(f"policy.security_groups[{n}].vpc"):
                check_known(policy, "VPC", group.vpc)
        for m, rule in enumerate(group.rules):
            if not rule.id:
                raise PolicyError(f"{path}[{m}].id must be {RULE_ID.requirement}, not ''")
            with _errors_at(f"{path}[{m}].peer"):
                check_peer(policy, rule, group.name)
            with _errors_at(f"{path}[{m}].ports"):
                check_ports(policy, rule)
    for n, instance in enumerate(policy.instances):
        path = f"policy.instances[{n}]"
        if not instance.security_groups:
            raise PolicyError(f"{path}.security_groups must list at least one security group")
        with _errors_at(path):
            check_known(policy, "VPC", instance.vpc)
            for name in instance.security_groups:
                known_group(policy, name)
            check_not_mixed(policy, instance)
            check_addresses(policy, instance, instance.addresses)


@contextmanager
def _errors_at(path: str) -> Iterator[None]:
    try:
        yield
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def _check_quota(path: str, listed: Sized, quota: str, quotas: Quotas) -> None:
    if len(listed) > getattr(quotas, quota):
        raise PolicyError(f"{path}: {len(listed)} exceed the quota of {getattr(quotas, quota)}: raise quotas.{quota}")


def check_fields(value: Any, path: str) -> None:
    """Check that the fields of a policy or a change, and of all objects in it, have the declared types and values that
    are valid in a document.

    Raises ArgumentTypeError, which names the field below ``path``; ArgumentError for an invalid value.
    """
    for name, kind in field_types(value.__class__).items():
        here, field = f"{path}.{name}", getattr(value, name)
        if not _fits(field, kind):
            if get_origin(kind) is Literal:
                raise ArgumentError(f"{here} must be {' or '.join(map(str, get_args(kind)))}, not {field!r:.80}")
            raise ArgumentTypeError(f"{here} must be of the type {_type_text(kind)}, not {field!r:.80}")
        several = isinstance(field, tuple)
        for n, item in enumerate(field if several else (field,)):
            place = f"{here}[{n}]" if several else here
            if is_dataclass(item):
                check_fields(item, place)
            elif isinstance(item, IPv6Network) and item.network_address.scope_id:
                raise ArgumentError(f"{place} must have no zone (%), not {item.network_address.scope_id!r:.80}")
    if value.__class__ in _FIELDS:
        _FIELDS[value.__class__].check(value, path)
    if isinstance(value, Rule):
        _check_rule(value, path)
    if isinstance(value, Instance):
        if not value.addresses:
            raise ArgumentError(f"{path}.addresses must list at least one address")
        _refuse_duplicates(value.addresses, f"{path}.addresses")
        _refuse_duplicates(value.security_groups, f"{path}.security_groups")


def _check_rule(rule: Rule, path: str) -> None:
    icmp, wrong_icmp = (ICMP, ICMPV6) if rule.ethertype == 4 else (ICMPV6, ICMP)
    if rule.protocol == wrong_icmp:
        raise ArgumentError(f"{path}.protocol must be {icmp} for ICMP in an IPv{rule.ethertype} rule, not {wrong_icmp}")
    if rule.ports is not None:
        if rule.protocol not in PORT_PROTOCOLS:
            raise ArgumentError(f"{path}.ports: {no_ports(rule.protocol)}")
        if not rule.ports or not all(0 <= first <= last <= LAST_PORT for first, last in rule.ports):
            raise ArgumentError(f"{path}.ports must be ranges from 0 to {LAST_PORT}, not {rule.ports!r:.80}")
    if rule.protocol != icmp:
        for name in ("icmp_type", "icmp_code"):
            if getattr(rule, name) is not None:
                raise ArgumentError(f"{path}.{name}: {ONLY_OF_ICMP}")
    if rule.icmp_code is not None and rule.icmp_type is None:
        raise ArgumentError(f"{path}.icmp_code: {NEEDS_A_TYPE}")
    if isinstance(rule.peer, Network) and rule.peer.version != rule.ethertype:
        raise ArgumentError(f"{path}.peer must be IPv{rule.ethertype} as the rule's ethertype is, not {rule.peer}")


def _refuse_duplicates(listed: Iterable[object], path: str) -> None:
    for item, count in Counter(listed).items():
        if count > 1:
            raise ArgumentError(f"{path} has {str(item)!r:.80} {count} times: list it once")


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value has a type. ``kind``: the type as annotations of the model write it."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return any(_fits(value, type(choice)) and value == choice for choice in inner)
    if get_origin(kind) is frozenset:
        return isinstance(value, frozenset) and all(_fits(choice, inner[0]) for choice in value)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if inner:
        return any(_fits(value, choice) for choice in inner)
    if kind is float and isinstance(value, float):
        return isfinite(value)
    if kind is int or kind is float:
        return isinstance(value, Integral) and not isinstance(value, bool)      # Integral includes NumPy's integers.
    return isinstance(value, kind)


def _type_text(kind: Any) -> str:
    """Write a type for messages: ``IPv4Network | IPv6Network``."""
    return kind.__name__ if isinstance(kind, type) else re.sub(r"[a-z_.]+\.(?=[A-Z])", "", str(kind))
