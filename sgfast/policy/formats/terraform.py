"""Reads the output of ``terraform show -json`` for a state or a plan.

A plan contains the current state (``prior_state``) and the state after it is applied (``planned_values``). As a policy
it means the latter; ``read(…, planned=False)`` gives the former. Unsupported resources that concern security groups are
an error; all other resources are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal

from sgfast.policy.formats import terraform_aws, terraform_neutron
from sgfast.policy.formats.conversion import policy_of
from sgfast.policy.formats.draft import Draft
from sgfast.policy.formats.location import Location
from sgfast.policy.formats.objects import JsonObject
from sgfast.policy.formats.sources import Source, read_source
from sgfast.policy.formats.terraform_references import Resource
from sgfast.policy.formats.terraform_stack import Stack
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import show

_PROVIDERS: dict[str, Literal["otc", "neutron", "aws"]] = {
    "aws": "aws",
    "huaweicloud": "otc",
    "opentelekomcloud": "otc",
    "openstack": "neutron",
}
_ABOUT_GROUPS = re.compile(r"(aws|huaweicloud|opentelekomcloud|openstack)_\w*?(secgroup|security_group)")


def load_plan(path: str | os.PathLike[str]) -> tuple[Policy, Policy]:
    """The policies before and after a plan is applied. Raises PolicyError also if the file is not a plan."""
    source = read_source(os.fsdecode(path))
    if not isinstance(source.value, dict) or "planned_values" not in source.value:
        raise source.error("is not a plan: give the output of terraform show -json PLANFILE")
    old, new = (read([source], planned=planned) for planned in (False, True))
    return policy_of(old.made, source.file), policy_of(new.made, source.file)


def read(sources: Sequence[Source], *, planned: bool = True) -> Draft:
    """Read files into one draft. ``planned`` selects the state after plans are applied, else the state before."""
    pairs = [_stacks(source) for source in sources]
    # Before and after belong to the same cloud, even if one of them is empty.
    draft = Draft(_profile([stack for pair in pairs for stack in pair]))
    stacks = [new if planned else old for old, new in pairs]
    # The address of a resource stands for its id until it exists.
    draft.made_up(*(resource.address for stack in stacks for resource in stack.resources))
    terraform_aws.add(stacks, draft)
    terraform_neutron.add(stacks, draft)
    for stack in stacks:
        stack.note_guesses(draft)
    return draft


def _stacks(source: Source) -> tuple[Stack, Stack]:
    """The state before and after a plan; for a state file, the same state twice."""
    file, document = source
    fields = JsonObject(document, Location(file, "Terraform", "output"))
    if fields.has("serial") and fields.has("lineage"):
        raise source.error("this is the state file itself: give the output of terraform show -json")
    version = fields.text("format_version")
    if not re.fullmatch(r"[01]\.[0-9]{1,9}", version):
        raise fields.error("format_version", f"is {show(version)}, but only 0.x and 1.x are supported")
    if not fields.has("planned_values"):
        stack = Stack(file, fields.mapping("values"))
        return stack, stack
    if fields.flag("errored", False):
        raise fields.error("errored", "is true: the plan is incomplete")
    prior = Stack(file, fields.object("prior_state").mapping("values"))
    return prior, Stack(file, fields.mapping("planned_values"), document, prior)


def _profile(stacks: list[Stack]) -> Literal["otc", "neutron", "aws"]:
    """The cloud of all resources that concern groups."""
    first: Resource | None = None
    for stack in stacks:
        for resource in stack.resources:
            if resource.is_data or resource.type in terraform_aws.IGNORED:
                continue
            if resource.type not in terraform_aws.TYPES | terraform_neutron.TYPES:
                if _ABOUT_GROUPS.match(resource.type):
                    raise stack.error(resource, f"{show(resource.type)} concerns security groups, but is not supported")
                continue
            first = first or resource
            if _cloud(resource) != _cloud(first):
                message = f"is in another cloud than {show(first.address)}: import each cloud separately"
                raise stack.error(resource, message)
    return _cloud(first) if first else "otc"


def _cloud(resource: Resource) -> Literal["otc", "neutron", "aws"]:
    return _PROVIDERS[resource.type.partition("_")[0]]
