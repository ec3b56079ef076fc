"""Find what a word means in a policy: a thing's name, or the provider's id, machine id or name for it (SPEC 2.12)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sgfast.errors import PolicyError
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import show, shown_origin
from sgfast.spelling import did_you_mean

NamedKind = Literal["instance", "security group", "address group", "VPC"]

_LISTED_NAMES = 5


def find(policy: Policy, kind: NamedKind, word: str) -> str | None:
    """The name of the thing of this kind that ``word`` means; None: there is none. PolicyError if it means several."""
    if word in by_name(policy, kind):
        return word
    names = policy.also_called[kind].get(word, ())
    if len(names) > 1:
        listed = ", ".join(map(show, names[:_LISTED_NAMES]))
        more = f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else ""
        raise PolicyError(f"{show(word)} means {len(names)} {kind}s: write the name of one, {listed}{more}")
    return names[0] if names else None


def similar(policy: Policy, kind: NamedKind, word: str) -> str:
    """The hint `` (did you mean 'x'?)``; empty if no word is similar."""
    return did_you_mean(word, names(policy, kind))


def names(policy: Policy, *kinds: NamedKind) -> Iterator[str]:
    """All words that mean things of these kinds."""
    for kind in kinds:
        yield from by_name(policy, kind)
        yield from policy.also_called[kind]


def vpc_name(policy: Policy, vpc: str | None) -> str | None:
    """The name of the VPC that the caller means. A word that means none is returned as it is: whoever looks the VPC up
    reports it. PolicyError if it means several.
    """
    if vpc is None:
        return None
    try:
        return find(policy, "VPC", vpc) or vpc
    except PolicyError as error:
        raise PolicyError(f"{shown_origin(policy.origin)}: {error}") from None


def by_name(policy: Policy, kind: NamedKind) -> Mapping[str, Any]:
    match kind:
        case "instance":
            return policy.instance_index
        case "security group":
            return policy.group_by_name
        case "address group":
            return policy.address_group_by_name
        case "VPC":
            return policy.vpc_by_name
