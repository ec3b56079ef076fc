"""Checks the fields of changes that a program made, which no document was read for (SPEC 14.6)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from functools import cache
from ipaddress import IPv6Network
from numbers import Integral
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sgfast.errors import ArgumentError, ArgumentTypeError
from sgfast.policy.document_reader import NAME, NAME_WANTED, WORD_WANTED, is_line
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, WORDS, Instance, Network, Rule, SecurityGroup
from sgfast.policy.rules import NEEDS_A_TYPE, ONLY_OF_ICMP, RULE_ID, RULE_ID_WANTED, no_ports, wrong_description

_Text = tuple[Callable[[str], object], str]

_NAME: _Text = NAME.fullmatch, NAME_WANTED
_WORDS: dict[str, _Text] = {word: (is_line, WORD_WANTED) for word in WORDS}
#: The texts that a document has to write in a certain way. All but names may be empty: then there is none.
_TEXTS: dict[type, dict[str, _Text]] = {
    Rule: {"id": (RULE_ID.fullmatch, RULE_ID_WANTED)},
    SecurityGroup: {"name": _NAME, **_WORDS},
    Instance: {"name": _NAME, **_WORDS},
}


def check_fields(value: Any, path: str) -> None:
    """Check that a change, and what it holds, has fields of the types that it declares, with values that a document
    could have.

    Raises ArgumentTypeError, naming the field below ``path``; ArgumentError for a value that a document is refused for.
    """
    for name, kind in _field_types(value.__class__).items():
        here, field = f"{path}.{name}", getattr(value, name)
        if not _fits(field, kind):
            if get_origin(kind) is Literal:
                raise ArgumentError(f"{here} must be {' or '.join(map(str, get_args(kind)))}, not {field!r:.80}")
            raise ArgumentTypeError(f"{here} must be of the type {_type_text(kind)}, not {field!r:.80}")
        several = isinstance(field, tuple)
        for n, each in enumerate(field if several else (field,)):
            place = f"{here}[{n}]" if several else here
            if is_dataclass(each):
                check_fields(each, place)
            elif isinstance(each, IPv6Network) and each.network_address.scope_id:
                raise ArgumentError(f"{place} must have no zone (%), not {each.network_address.scope_id!r:.80}")
    _check_texts(value, path)
    if isinstance(value, Rule):
        _check_rule(value, path)
    if isinstance(value, Instance):
        if not value.addresses:
            raise ArgumentError(f"{path}.addresses must list at least one address")
        _refuse_duplicates(value.addresses, f"{path}.addresses")
        _refuse_duplicates(value.security_groups, f"{path}.security_groups")


def _check_texts(value: Any, path: str) -> None:
    for name, (fits, wanted) in _TEXTS.get(value.__class__, {}).items():
        text = getattr(value, name, "")
        if (text or name == "name") and not fits(text):
            raise ArgumentError(f"{path}.{name} must be {wanted}, not {text!r:.80}")
    if wrong := wrong_description(getattr(value, "description", "")):
        raise ArgumentError(f"{path}.description {wrong}")


def _check_rule(rule: Rule, path: str) -> None:
    for name, least, most in (("protocol", 0, 255), ("icmp_type", 0, 255), ("icmp_code", 0, 255), ("priority", 1, 100)):
        number = getattr(rule, name)
        if number is not None and not least <= number <= most:
            raise ArgumentError(f"{path}.{name} must be {least} to {most}, not {number}")
    icmp, other = (ICMP, ICMPV6) if rule.ethertype == 4 else (ICMPV6, ICMP)
    if rule.protocol == other:
        raise ArgumentError(f"{path}.protocol must be {icmp} for ICMP in an IPv{rule.ethertype} rule, not {other}")
    if rule.ports is not None:
        if rule.protocol not in PORT_PROTOCOLS:
            raise ArgumentError(f"{path}.ports: {no_ports(rule.protocol)}")
        bounds = [bound for each in rule.ports for bound in each]
        if not bounds or bounds != sorted(bounds) or bounds[0] < 0 or bounds[-1] > 65535:
            raise ArgumentError(f"{path}.ports must be ranges from 0 to 65535 in their order, not {rule.ports!r:.80}")
    if rule.protocol != icmp:
        for name in ("icmp_type", "icmp_code"):
            if getattr(rule, name) is not None:
                raise ArgumentError(f"{path}.{name}: {ONLY_OF_ICMP}")
    if rule.icmp_code is not None and rule.icmp_type is None:
        raise ArgumentError(f"{path}.icmp_code: {NEEDS_A_TYPE}")
    if isinstance(rule.peer, Network) and rule.peer.version != rule.ethertype:
        raise ArgumentError(f"{path}.peer must be IPv{rule.ethertype} as the rule's ethertype is, not {rule.peer}")


def _refuse_duplicates(listed: Iterable[object], path: str) -> None:
    for each, count in Counter(listed).items():
        if count > 1:
            raise ArgumentError(f"{path} has {str(each)!r:.80} {count} times: list it once")


@cache
def _field_types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, kind: Any) -> bool:
    """``kind``: a type as an annotation of the model has it."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return any(_fits(value, type(each)) and value == each for each in inner)
    if get_origin(kind) is frozenset:
        return isinstance(value, frozenset) and all(_fits(each, inner[0]) for each in value)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if inner:
        return any(_fits(value, each) for each in inner)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)      # NumPy's integers, too
    return isinstance(value, kind)


def _type_text(kind: Any) -> str:
    """``IPv4Network | IPv6Network``."""
    return kind.__name__ if isinstance(kind, type) else re.sub(r"[a-z_.]+\.(?=[A-Z])", "", str(kind))
