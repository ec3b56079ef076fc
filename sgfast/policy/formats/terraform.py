"""What ``terraform show -json`` prints of a state or a plan.

A state is what there is. A plan holds what there was (``prior_state``) and what there will be (``planned_values``): as
a policy the latter is meant, and ``read(…, planned=False)`` gives the former. Resources that are about groups but are
not known here are an error; all others say nothing about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from sgfast.policy.formats import terraform_aws, terraform_neutron
from sgfast.policy.formats.draft import Draft
from sgfast.policy.formats.objects import JsonObject
from sgfast.policy.formats.place import Place
from sgfast.policy.formats.terraform_references import Resource
from sgfast.policy.formats.terraform_stack import Stack
from sgfast.policy.yaml_nodes import show

_PROVIDERS: dict[str, Literal["otc", "neutron", "aws"]] = {
    "aws": "aws",
    "huaweicloud": "otc",
    "opentelekomcloud": "otc",
    "openstack": "neutron",
}
_ABOUT_GROUPS = re.compile(r"(aws|huaweicloud|opentelekomcloud|openstack)_\w*?(secgroup|security_group)")


def recognises(document: Any) -> bool:
    return isinstance(document, dict) and ("format_version" in document or _is_raw_state(document))


def is_plan(document: Any) -> bool:
    return isinstance(document, dict) and "planned_values" in document


def read(documents: Iterable[tuple[str, Any]], *, planned: bool = True) -> Draft:
    """The draft that some files and what is in them make. ``planned``: what plans will make, else what was before."""
    stacks = [_stack(file, document, planned) for file, document in documents]
    draft = Draft(_profile(stacks))
    terraform_aws.add(stacks, draft)
    terraform_neutron.add(stacks, draft)
    return draft


def _stack(file: str, document: Any, planned: bool) -> Stack:
    place = Place(file, "Terraform", "output")
    fields = JsonObject(document, place)
    if _is_raw_state(document):
        raise place.error("this is the state file itself: give what terraform show -json prints")
    version = fields.text("format_version")
    if not re.fullmatch(r"[01]\.[0-9]{1,9}", version):
        raise fields.error("format_version", f"is {show(version)}, which is not supported: 0.x and 1.x are")
    if not is_plan(document):
        return Stack(file, fields.mapping("values"))
    if fields.flag("errored"):
        raise fields.error("errored", "is true: the plan is not complete")
    prior = Stack(file, fields.object("prior_state").mapping("values"))
    return Stack(file, fields.mapping("planned_values"), document, prior) if planned else prior


def _is_raw_state(document: dict[str, Any]) -> bool:
    return "serial" in document and "lineage" in document


def _profile(stacks: list[Stack]) -> Literal["otc", "neutron", "aws"]:
    """The cloud that everything about groups belongs to."""
    first: Resource | None = None
    for stack in stacks:
        for resource in stack.resources:
            if resource.is_data or resource.type in terraform_aws.IGNORED:
                continue
            if resource.type not in terraform_aws.TYPES | terraform_neutron.TYPES:
                if _ABOUT_GROUPS.match(resource.type):
                    raise stack.error(resource, f"{resource.type[:80]} is about security groups, but not supported")
                continue
            first = first or resource
            if _cloud(resource) != _cloud(first):
                raise stack.error(resource, f"is in another cloud than {show(first.address)}: give them apart")
    return _cloud(first) if first else "otc"


def _cloud(resource: Resource) -> Literal["otc", "neutron", "aws"]:
    return _PROVIDERS[resource.type.partition("_")[0]]
