"""Read state files of Terraform and OpenTofu, and the output of ``show -json`` for a state or a plan.

A plan contains the current state (``prior_state``) and the state after the plan is applied (``planned_values``). The
policy of a plan is its planned state; ``read(…, planned=False)`` reads the current state. Types of resources that are
not supported are ignored, with a note if they may concern security groups or firewalls.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.conversion import policy_of
from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.sources import Source, json_value, read_sources
from sgfast.clouds.importing.unresolved import resolve
from sgfast.clouds.terraform import aws as terraform_aws
from sgfast.clouds.terraform import openstack as terraform_neutron
from sgfast.clouds.terraform.account_beside_plan import add_account
from sgfast.clouds.terraform.stack import Stack, StackResource, resources_of_state, resources_of_values
from sgfast.policy.export_files import Unresolved
from sgfast.policy.model import Policy
from sgfast.policy.profile_data import ProfileName
from sgfast.policy.yaml_nodes import read_document, show

_PROVIDERS: dict[str, ProfileName] = {
    "aws": "aws",
    "huaweicloud": "otc",
    "opentelekomcloud": "otc",
    "openstack": "neutron",
}
_STATE_VERSION = 4
_KNOWN = terraform_aws.TYPES | terraform_aws.UNRELATED | terraform_neutron.TYPES
#: Types of the resources, other than security groups, that filter traffic.
_FILTERS = re.compile(
    "_network_acl|_networkfirewall_(firewall|rule_group)|_fw_|_cfw_(firewall|acl_rule|protection_rule|black_white_list)"
)
_GATEWAY = "aws_ec2_transit_gateway_vpc_attachment"
#: Types of resources that may concern groups.
_ABOUT_GROUPS = re.compile("secgroup|security_group")
#: Types of resources that may concern groups, of providers that are not read. They have various terms for groups, rules
#: and lists of rules.
_ABOUT_FILTERS = re.compile(
    "secgroup|security_?group|security_rule|security_list|security_policy|admin_rule|firewall|network_acl|vpc_acl|"
    "network_policy"
)
#: The type of Azure's resources of any type, which is in an attribute.
_ANY_OF_AZURE = "azapi_resource"


def load_plan(
    path: str | os.PathLike[str], unresolved: Unresolved = "error", account: Policy | None = None
) -> tuple[Policy, Policy]:
    """Read the policies before and after a plan is applied. ``account``: a policy of the account as it is today,
    which has what is not in the plan. Raises PolicyError also if the file is not a plan.
    """
    source, *more_sources = read_sources(path)
    if more_sources or not isinstance(source.value, dict) or "planned_values" not in source.value:
        raise source.error("is not a plan: give the output of terraform show -json PLANFILE")
    old, new = (read([source], planned=planned) for planned in (False, True))
    if account is not None:
        add_account((old, new), account)
    for draft in (old, new):
        resolve(draft, {}, unresolved, source.file, takes_files=False)
    return policy_of(old.made, source.file), policy_of(new.made, source.file)


def is_plan(path: str | os.PathLike[str]) -> bool:
    """Return whether a file, which is not standard input, is a plan."""
    if os.fsdecode(path) == "-" or os.path.isdir(path):
        return False
    try:
        value = json_value(*read_document(path))
    except (PolicyError, ValueError):
        return False
    return isinstance(value, dict) and "planned_values" in value


def read(sources: Sequence[Source], *, planned: bool = True) -> Draft:
    """Read files into one draft. ``planned``: read the states after plans are applied, rather than before."""
    pairs = [_stacks(source) for source in sources]
    # The states before and after a plan belong to the same cloud, even if one of them is empty.
    draft = Draft(_profile([stack for pair in pairs for stack in pair]))
    draft.is_partial = True
    stacks = [new if planned else old for old, new in pairs]
    # A resource that does not exist yet has its address as a made-up id.
    draft.made_up(*(resource.address for stack in stacks for resource in stack.resources))
    terraform_aws.add(stacks, draft)
    terraform_neutron.add(stacks, draft)
    _note_unread(stacks, draft)
    for stack in stacks:
        stack.note_guesses(draft)
    return draft


def _stacks(source: Source) -> tuple[Stack, Stack]:
    """Return the state before and after a plan. For a state, return the same stack twice."""
    file, document = source.file, source.value
    fields = JsonObject(document, Location(file, "Terraform", "output"))
    if fields.has("encrypted_data"):
        message = "is encrypted by OpenTofu: give the output of tofu show -json (for a plan: tofu show -json PLANFILE)"
        raise source.error(message)
    if not fields.has("format_version"):
        if (number := fields.number("version")) != _STATE_VERSION:
            state_version = "no version" if number is None else f"version {number}"
            message = f"is a state file of {state_version}, but only version {_STATE_VERSION} is supported"
            advice = "run terraform apply -refresh-only && terraform show -json > state.json, and give state.json"
            raise source.error(f"{message}: {advice}")
        stack = Stack(file, resources_of_state(fields))
        return stack, stack
    version = fields.text("format_version")
    if not re.fullmatch(r"[01]\.[0-9]{1,9}", version):
        raise fields.error("format_version", f"is {show(version)}, but only 0.x and 1.x are supported")
    if not fields.has("planned_values"):
        stack = Stack(file, resources_of_values(file, fields.mapping("values")))
        return stack, stack
    if fields.flag("errored", False):
        raise fields.error("errored", "is true: the plan is incomplete")
    prior = Stack(file, resources_of_values(file, fields.nested("prior_state").mapping("values")))
    planned = resources_of_values(file, fields.mapping("planned_values"), document)
    return prior, Stack(file, planned, fields.get("configuration"), prior)


def _profile(stacks: list[Stack]) -> ProfileName:
    """Return the profile of the cloud to which all supported resources belong."""
    first: StackResource | None = None
    for stack in stacks:
        for resource in stack.resources:
            if resource.is_data or resource.type not in terraform_aws.TYPES | terraform_neutron.TYPES:
                continue
            first = first or resource
            if _cloud(resource) != _cloud(first):
                message = f"is in another cloud than {show(first.address)}: import each cloud separately"
                raise resource.location.error(message)
    return _cloud(first) if first else "otc"


def _cloud(resource: StackResource) -> ProfileName:
    return _PROVIDERS[resource.type.partition("_")[0]]


def _note_unread(stacks: list[Stack], draft: Draft) -> None:
    """Add notes about resources that may concern groups, but are not supported."""
    unread: Counter[str] = Counter()
    for stack in stacks:
        for resource in stack.resources:
            provider = resource.type.partition("_")[0]
            if resource.is_data or resource.type in _KNOWN:
                continue
            kind = str(resource.get("type")).lower() if resource.type == _ANY_OF_AZURE else resource.type
            is_filter = (_ABOUT_FILTERS if provider not in _PROVIDERS else _FILTERS).search(kind) is not None
            is_about_groups = provider in _PROVIDERS and _ABOUT_GROUPS.search(kind) is not None
            if is_filter or is_about_groups:
                draft.unread_filter(resource.type, resource.location, resource.content())
            if provider not in _PROVIDERS:
                unread[provider] += is_filter
            elif is_filter:
                draft.note("Not in the policy, although it filters traffic, too", resource.location)
            elif resource.type == _GATEWAY:
                message = "Not read: VPCs behind a transit gateway do not reach each other in the policy"
                draft.note(message, resource.location)
            elif is_about_groups:
                message = "Left out because it is not supported, although its name is about security groups"
                draft.note(message, resource.location)
    for provider, count in unread.items():
        if count:
            number = f"{count} resource{'' if count == 1 else 's'} about security groups or firewalls"
            draft.note(f"Left out {number} because resources of the provider {provider} are not read")
