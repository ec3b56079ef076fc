"""``sgfast export``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import EXIT_BAD, FILE, quiet_option
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import say, warn

if TYPE_CHECKING:
    from sgfast.exporting.terraform import Provider
    from sgfast.exporting.texts import Target
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
@click.option(
    "--to", "target", type=click.Choice((*TARGETS, "nftables")), required=True, help="What the policy is exported to."
)
@click.option("--since", type=FILE, metavar="OLD", help="What is there already: export only what differs from OLD.")
@click.option(
    "--format", "form", type=click.Choice(["script", "json"]), default="script", show_default=True,
    help="script: for the command line of the provider; json: the calls of its API, in order.",
)
@provider_option
@click.option(
    "--output", "-o", type=FILE, metavar="FILE", default="-", help="Write to FILE. Default: standard output."
)
@click.option("--instance", metavar="NAME", help="Of --to nftables: the instance that the machine itself is.")
@click.option(
    "--interface", "interfaces", metavar="NAME=DEVICE", multiple=True,
    help="Of --to nftables, for a host: the interface that an instance is behind. Once for each instance.",
)
@click.option(
    "--connections", type=FILE, metavar="FILE",
    help="Of --to nftables, with --since: write what becomes of the connections in FILE, as conntrack -L -o extended "
    "lists them.",
)
@policy_options
@sandbox_option
@quiet_option
def export(
    path: str,
    target: Target,
    since: str | None,
    form: Form,
    provider: Provider | None,
    output: str,
    instance: str | None,
    interfaces: tuple[str, ...],
    connections: str | None,
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
      nftables   Linux: a file for nft -f, for one machine (--instance), or for
                 a host of several instances (--interface)

    What is exported means exactly what POLICY means. A rule that the target cannot have is written in other rules that
    mean the same; where there are none, it is an error that names the rule. Nothing is run, and no cloud is asked.

    Without --since nothing is there but VPCs and instances. With --since it is what OLD says, for example the account
    as sgfast import --live has read it. What is new comes before what is taken away.

    \b
    Examples:
      sgfast export policy.yaml --to aws -o apply.sh
      sgfast export edited.yaml --since today.yaml --to aws --format json
      sgfast export policy.yaml --to terraform --provider openstack -o groups.tf
      sgfast export policy.yaml --to nftables --interface web-1=tap0 -o filter.nft
    """
    if [path, since, connections].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    if target == "terraform" and form == "json":
        raise click.UsageError("--format json is for the calls of an API; --to terraform has none")
    if target != "terraform" and provider is not None:
        raise click.UsageError("--provider is for --to terraform")
    _check_nftables(target, form, since, instance, interfaces, connections)
    from sgfast.errors import ArgumentError
    from sgfast.exporting.texts import export as write
    from sgfast.output import open_output, refuse_shared

    inputs = Inputs([path, since, connections])
    refuse_shared([] if output == "-" else [output], inputs.files)
    with open_output(output) as stream:
        if stream.warning and not quiet:
            warn([stream.warning])
        inputs.enter_sandbox([stream])
        old = None if since is None else policies.load(since)
        new = policies.load(path)
        if target == "nftables":
            pairs = [(word, device) for word, _, device in (given.partition("=") for given in interfaces)]
            host: dict[str, Any] = {"instance": instance, "interfaces": pairs or None, "connections": connections}
            try:
                text = _listing_problems(target, lambda: write(new, target, since=old, **host))
            except ArgumentError as error:
                raise click.UsageError(str(error)) from None
        else:
            text = exported(old, new, target, form, provider)
        stream.write(text.encode())
        stream.publish()
    if not quiet:
        warn(new.warnings)


def _check_nftables(
    target: Target, form: str, since: str | None, instance: str | None, interfaces: tuple[str, ...],
    connections: str | None,
) -> None:  # fmt: skip
    """Refuse what does not go together."""
    if target != "nftables":
        if instance is not None or interfaces or connections is not None:
            raise click.UsageError("--instance, --interface and --connections are for --to nftables")
        return
    if form == "json":
        raise click.UsageError("--to nftables has no --format json: nft -f reads the text")
    if (instance is None) == (not interfaces):
        raise click.UsageError("--to nftables needs --instance NAME, or --interface NAME=DEVICE for each instance")
    for given in interfaces:
        if not all(given.partition("=")[::2]):
            raise click.UsageError(f"--interface {given!r}: write NAME=DEVICE, such as web-1=tap0")
    if connections is not None and since is None:
        raise click.UsageError("--connections needs --since: what becomes of connections depends on what changed")


def exported(
    old: Policy | None, new: Policy, target: Target, form: Form = "script", provider: Provider | None = None
) -> str:
    """The text of an export. An error that has several causes is printed cause by cause, and ends the command."""
    from sgfast.exporting.texts import export as write

    return _listing_problems(target, lambda: write(new, target, since=old, form=form, provider=provider))


def _listing_problems(target: str, make: Callable[[], str]) -> str:
    from sgfast.errors import ExportError

    try:
        return make()
    except ExportError as error:
        if len(error.problems) == 1:
            raise
        for problem in error.problems[:_LISTED_PROBLEMS]:
            say(problem)
        if (more := len(error.problems) - _LISTED_PROBLEMS) > 0:
            say(f"and {more:,} more that {target} cannot have")
        click.get_current_context().exit(EXIT_BAD)
