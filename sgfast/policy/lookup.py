"""Find an object of a policy by its name, or by the provider's id, machine id or label for it (SPEC 2.12)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sgfast.base.errors import PolicyError
from sgfast.base.spelling import did_you_mean
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import show, shown_origin

NamedKind = Literal["instance", "security group", "address group", "VPC"]

_LISTED_NAMES = 5


def find(policy: Policy, kind: NamedKind, word: str) -> str | None:
    """Return the name of the object of this kind that ``word`` means, or None if there is none.

    Raises PolicyError if the word means several objects.
    """
    if word in by_name(policy, kind):
        return word
    names = policy.also_called[kind].get(word, ())
    if len(names) > 1:
        listed = ", ".join(map(show, names[:_LISTED_NAMES]))
        and_more = f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else ""
        raise PolicyError(f"{show(word)} means {len(names)} {kind}s: write the name of one, {listed}{and_more}")
    return names[0] if names else None


def similar(policy: Policy, kind: NamedKind, word: str) -> str:
    """Return the hint `` (did you mean 'x'?)``, or "" if no word is similar."""
    return did_you_mean(word, names(policy, kind))


def names(policy: Policy, *kinds: NamedKind) -> Iterator[str]:
    """Yield all words that mean objects of these kinds."""
    for kind in kinds:
        yield from by_name(policy, kind)
        yield from policy.also_called[kind]


def vpc_name(policy: Policy, vpc: str | None) -> str | None:
    """Return the name of the VPC that the word ``vpc`` means. An unknown word is returned unchanged, so that the later
    look-up raises the error. Raises PolicyError if the word means several VPCs.
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
            return policy._instance_index
        case "security group":
            return policy.group_by_name
        case "address group":
            return policy.address_group_by_name
        case "VPC":
            return policy.vpc_by_name
