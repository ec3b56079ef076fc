"""``sgfast import``."""

from __future__ import annotations

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import FILE, quiet_option
from sgfast.cli.printing import warn

_FORMATS = ("auto", "otc", "neutron", "aws", "terraform", "cloudformation")


@click.command("import", short_help="Turn a cloud's export into a policy.")
@click.argument("form", metavar="FORMAT", type=click.Choice(_FORMATS))
@click.argument("files", type=FILE, metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--output", "-o", type=FILE, metavar="FILE", default="-", help="Write the policy to FILE. Default: standard output."
)
@sandbox_option
@quiet_option
def import_command(form: str, files: tuple[str, ...], output: str, quiet: bool) -> None:
    """Turn a cloud's export into a policy.

    \b
    FORMAT is one of
      auto            detect the format from the files
      otc             Open Telekom Cloud, Huawei Cloud: VPC API v3 and v1, servers
      neutron         OpenStack: Neutron's API, openstack ... list or show -f json
      aws             aws ec2 describe-security-groups, ...-network-interfaces, ...
      terraform       terraform show -json of a state or of a plan (what it makes)
      cloudformation  AWS CloudFormation: templates, and files of parameters

    FILE is JSON or YAML, or "-" for standard input; a directory stands for all JSON and YAML files in it. All files
    together make one policy. Anything that a policy cannot express is an error that names the object.

    \b
    Examples:
      sgfast import otc security-groups.json ports.json -o policy.yaml
      sgfast import auto exports/
    """
    from sgfast.output import open_output, refuse_shared
    from sgfast.policy.formats import load
    from sgfast.policy.yaml_nodes import shown_origin
    from sgfast.version import __version__

    inputs = Inputs(files)
    refuse_shared([] if output == "-" else [output], inputs.files)
    with open_output(output) as stream:
        if stream.warning and not quiet:
            warn([stream.warning])
        inputs.enter_sandbox([stream])
        imported = load(files, form)
        policy = imported.policy()
        head = [
            f"{imported.summary()}, imported by sgfast {__version__}",
            f"from {', '.join(map(shown_origin, inputs.files))} ({imported.format.title})",
        ]
        stream.write(imported.yaml(head).encode())
        stream.publish()
    if not quiet:
        warn(policy.warnings)
