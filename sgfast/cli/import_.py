"""``sgfast import``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sgfast.cli.inputs import Inputs, open_outputs, sandbox_option
from sgfast.cli.options import FILE, Choice, quiet_option
from sgfast.cli.policies import FORMATS, SYNONYMS, unresolved_option
from sgfast.cli.printing import warn
from sgfast.cli.progress import progress_of_account
from sgfast.clouds.providers import FORMATS as KNOWN_FORMATS
from sgfast.clouds.providers import LIVE

if TYPE_CHECKING:
    from sgfast.policy.export_files import Unresolved


_LINES = "\n".join(f"  {name:14}  {form.help}" for name, form in KNOWN_FORMATS.items())
_HELP = f"""\
Turn a cloud's export into a policy.

\b
FORMAT is one of
  auto            detect the format from the files
{_LINES}

FILE is JSON or YAML, or "-" for standard input; a directory stands for all such files in it and below it. All
files together make one policy. Anything that a policy cannot express is an error that names the object.

With --live there is no FILE: aws, openstack (the same as neutron) and otc are then read from the account itself,
with the credentials that the cloud's own command line uses. Nothing in the account is changed. Needs
sgfast[aws] or sgfast[openstack].

\b
Examples:
  sgfast import otc security-groups.json ports.json -o policy.yaml
  sgfast import auto exports/
  sgfast import aws --live --region eu-central-1 --region eu-west-1 -o policy.yaml
  sgfast import openstack --live --os-cloud mycloud -o policy.yaml
"""


@click.command("import", help=_HELP, short_help="Turn a cloud's export into a policy.")
@click.argument("form", metavar="FORMAT", type=Choice((*FORMATS, *SYNONYMS)))
@click.argument("files", type=FILE, metavar="[FILE...]", nargs=-1)
@click.option("--live", is_flag=True, help="Read the account through the cloud's API, and no files.")
@click.option("--aws-profile", metavar="NAME", help="The profile of the AWS configuration. Default: as aws ec2 does.")
@click.option(
    "--region", "regions", metavar="NAME", multiple=True,
    help="A region of AWS to read. Several make one policy. Default: the region that is configured.",
)
@click.option(
    "--os-cloud", metavar="NAME",
    help="The cloud of clouds.yaml. Default: OS_CLOUD, or the other variables that openstack reads.",
)
@click.option(
    "--output", "-o", type=FILE, metavar="FILE", default="-", help="Write the policy to FILE. Default: standard output."
)
@unresolved_option
@sandbox_option
@quiet_option
def import_command(
    form: str,
    files: tuple[str, ...],
    live: bool,
    aws_profile: str | None,
    regions: tuple[str, ...],
    os_cloud: str | None,
    output: str,
    unresolved: Unresolved,
    quiet: bool,
) -> None:
    """Turn a cloud's export into a policy."""
    form = SYNONYMS.get(form, form)
    account_options = {"--aws-profile": aws_profile, "--region": regions, "--os-cloud": os_cloud}
    _check_live(form, files, live, [option for option, value in account_options.items() if value])
    from sgfast.clouds.importing.reading import import_sources, load
    from sgfast.policy.yaml_nodes import shown_origin
    from sgfast.version import __version__

    inputs = Inputs(files)
    with open_outputs([output], inputs, quiet=quiet) as (stream,):
        if live:
            reader = LIVE[form]
            with progress_of_account(shown=not quiet) as progress:
                account = reader.load()(*(account_options[option] for option in reader.options), progress)
            places = [account.called]
            imported = import_sources(account.sources, form, account.called, unresolved, takes_files=False)
        else:
            places = inputs.files
            imported = load(files, form, unresolved)
        policy = imported.policy()
        head = [
            f"{imported.summary()}, imported by sgfast {__version__}",
            f"from {', '.join(map(shown_origin, places))} ({imported.format.title})",
        ]
        stream.write(imported.yaml(head).encode())
        stream.publish()
    if not quiet:
        warn(policy.warnings)


def _check_live(form: str, files: Sequence[str], live: bool, account_options: Sequence[str]) -> None:
    """Raise UsageError for arguments that do not go together. ``account_options``: those with a value."""
    if not live:
        if account_options:
            raise click.UsageError("--aws-profile, --region and --os-cloud need --live")
        if not files:
            raise click.UsageError("name the FILEs of an export, or read the account itself with --live")
    elif files:
        raise click.UsageError("--live and FILEs cannot be combined: an account is read as a whole")
    elif form not in LIVE:
        *names, last = sorted(map(_word, LIVE))
        raise click.UsageError(f"--live cannot read {form}: choose {', '.join(names)} or {last}")
    else:
        own_options = LIVE[form].options
        for option in account_options:
            if option not in own_options:
                foreign = next(reader.options for reader in LIVE.values() if option in reader.options)
                verb = "are" if len(foreign) > 1 else "is"
                raise click.UsageError(f"{' and '.join(foreign)} {verb} for {_accounts(foreign)[0]}; "
                                       f"{' '.join(_accounts(own_options))} {' and '.join(own_options)}")


def _accounts(options: tuple[str, ...]) -> tuple[str, str]:
    """Return the words of the accounts that options choose, and the verb for them."""
    words = sorted(_word(form) for form, reader in LIVE.items() if reader.options == options)
    return " and ".join(words), "have" if len(words) > 1 else "has"


def _word(form: str) -> str:
    """Return the word for a format that its users know."""
    return next((word for word, name in SYNONYMS.items() if name == form), form)
