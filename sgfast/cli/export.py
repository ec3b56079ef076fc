"""``sgfast export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import EXIT_BAD, FILE, quiet_option
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import say, to_json, warn

if TYPE_CHECKING:
    from sgfast.exporting.terraform import Provider
    from sgfast.policy.model import Policy

TARGETS = ("terraform", "aws", "openstack", "otc")

Form = Literal["script", "json"]

#: The most causes that are printed one by one.
_LISTED_PROBLEMS = 20

to_option = click.option(
    "--to", "target", type=click.Choice(TARGETS), metavar="TARGET",
    help="Write what this target has to be told, as sgfast export does: terraform, aws, openstack or otc.",
)
provider_option = click.option(
    "--provider", type=click.Choice(["aws", "openstack", "opentelekomcloud"]),
    help="Of --to terraform: the provider. Default: the one of the profile of the policy, aws, neutron or otc.",
)


@click.command("export", short_help="Write what a cloud has to be told so that a policy holds there.")
@click.argument("path", metavar="POLICY", type=FILE)
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="What the policy is exported to.")
@click.option("--since", type=FILE, metavar="OLD", help="What is there already: export only what differs from OLD.")
@click.option(
    "--format", "form", type=click.Choice(["script", "json"]), default="script", show_default=True,
    help="script: for the command line of the provider; json: the calls of its API, in order.",
)
@provider_option
@click.option(
    "--output", "-o", type=FILE, metavar="FILE", default="-", help="Write to FILE. Default: standard output."
)
@policy_options
@sandbox_option
@quiet_option
def export(
    path: str,
    target: str,
    since: str | None,
    form: Form,
    provider: Provider | None,
    output: str,
    policies: PolicyOptions,
    quiet: bool,
) -> None:
    """Write what a cloud has to be told so that a policy holds there.

    \b
    --to is one of
      terraform  a configuration for Terraform or OpenTofu
      aws        AWS: a script of aws ec2, or the calls of EC2's API
      openstack  OpenStack: a script of openstack, or the calls of Neutron's API
      otc        Open Telekom Cloud: a script of openstack, or the calls of its
                 VPC API v3, which has deny rules

    What is exported means exactly what POLICY means. A rule that the target cannot have is written in other rules that
    mean the same; where there are none, it is an error that names the rule. Nothing is run, and no cloud is asked.

    Without --since nothing is there but VPCs and instances. With --since it is what OLD says, for example the account
    as sgfast import --live has read it. What is new comes before what is taken away.

    \b
    Examples:
      sgfast export policy.yaml --to aws -o apply.sh
      sgfast export edited.yaml --since today.yaml --to aws --format json
      sgfast export policy.yaml --to terraform --provider openstack -o groups.tf
    """
    if path == since == "-":
        raise click.UsageError("standard input (-) can be read only once")
    if target == "terraform" and form == "json":
        raise click.UsageError("--format json is for the calls of an API; --to terraform has none")
    if target != "terraform" and provider is not None:
        raise click.UsageError("--provider is for --to terraform")
    from sgfast.output import open_output, refuse_shared

    inputs = Inputs([path, since])
    refuse_shared([] if output == "-" else [output], inputs.files)
    with open_output(output) as stream:
        if stream.warning and not quiet:
            warn([stream.warning])
        inputs.enter_sandbox([stream])
        old = None if since is None else policies.load(since)
        new = policies.load(path)
        stream.write(exported(old, new, target, form, provider).encode())
        stream.publish()
    if not quiet:
        warn(new.warnings)


def exported(
    old: Policy | None, new: Policy, target: str, form: Form = "script", provider: Provider | None = None
) -> str:
    """The text of an export. An error that has several causes is printed cause by cause, and ends the command."""
    from sgfast.errors import ExportError

    try:
        return _text(old, new, target, form, provider)
    except ExportError as error:
        if len(error.problems) == 1:
            raise
        for problem in error.problems[:_LISTED_PROBLEMS]:
            say(problem)
        if (more := len(error.problems) - _LISTED_PROBLEMS) > 0:
            say(f"and {more:,} more that {target} cannot have")
        click.get_current_context().exit(EXIT_BAD)


def _text(old: Policy | None, new: Policy, target: str, form: Form, provider: Provider | None) -> str:
    from sgfast.exporting import aws, openstack, terraform
    from sgfast.version import __version__

    if target == "terraform":
        return terraform.export(old, new, provider or terraform.PROVIDERS[new.settings.profile], __version__)
    if target == "aws":
        calls, functions = aws.export(old, new), aws.FUNCTIONS
    else:
        calls = openstack.export(old, new, "otc" if target == "otc" else "openstack", form)
        functions = openstack.FUNCTIONS
    if form == "json":
        return to_json(calls.document(__version__))
    return calls.script(__version__, functions)
