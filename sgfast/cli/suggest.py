"""``sgfast suggest``."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import click

from sgfast.cli.options import (
    EXIT_DAMAGED,
    EXIT_FAIL_ON,
    FILE,
    Form,
    format_option,
    quiet_option,
    replay_options,
)
from sgfast.cli.printing import is_colourful, is_terminal, print_text, say, to_json, warn
from sgfast.cli.progress import progress_of
from sgfast.signals import raise_arrived

if TYPE_CHECKING:
    from sgfast.replaying import ReplayOptions


class _Prefixes(click.ParamType):  # type: ignore[type-arg]
    """``24``, or ``24,64``: of IPv4, and of IPv6."""

    name = "prefixes"

    def convert(
        self, value: str | tuple[int, int], parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        parts = value.split(",")
        if len(parts) <= 2 and all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
            four, six = int(parts[0]), int(parts[1]) if len(parts) == 2 else 128
            if four <= 32 and six <= 128:
                return four, six
        self.fail(f"{value!r} is no prefix length: write 24, or 24,64 for IPv4 and IPv6", parameter, context)


@click.command(short_help="Suggest the rules that captured traffic needs.")
@click.argument("captures", type=FILE, metavar="CAPTURE...", nargs=-1, required=True)
@click.option(
    "--instances",
    "instance_file",
    type=FILE,
    metavar="FILE",
    help="Whom for: a policy document, whose rules do not count, or only its list of instances. Default: those of "
    "--policy, or one for each private address that sends something.",
)
@click.option("--policy", metavar="POLICY", help="A policy to start from.")
@click.option(
    "--from",
    "source",
    type=click.Choice(["allowed", "all"]),
    help="allowed: the connections that --policy allows (the default with one); all: those that were answered.",
)
@click.option(
    "--unanswered", is_flag=True, help="With all: silent connections, too, such as syslog, that only goes one way."
)
@click.option(
    "-o", "--output", type=FILE, metavar="FILE", help="Write the suggested policy there, with what each rule rests on."
)
@click.option(
    "--per",
    type=click.Choice(["group", "instance"]),
    default="group",
    show_default=True,
    help="Rules for the groups instances are in (where nobody says, one for all that serve the same), or for each "
    "instance alone.",
)
@click.option(
    "--max-prefix",
    type=_Prefixes(),
    metavar="N[,N6]",
    default=(32, 128),
    help="Addresses may become a CIDR as wide as /N, IPv6 ones as /N6. Default: 32,128, the addresses alone.",
)
@click.option(
    "--any-above",
    type=click.IntRange(0),
    metavar="N",
    help="Open a service that more than N public addresses use to any address. Default: never.",
)
@click.option(
    "--min-connections",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Leave out what fewer than N connections to one port, under one source or destination, would need.",
)
@replay_options
@format_option()
@quiet_option
@click.pass_context
def suggest(
    context: click.Context,
    captures: tuple[str, ...],
    instance_file: str | None,
    policy: str | None,
    source: Literal["allowed", "all"] | None,
    unanswered: bool,
    output: str | None,
    per: Literal["group", "instance"],
    max_prefix: tuple[int, int],
    any_above: int | None,
    min_connections: int,
    options: ReplayOptions,
    form: Form,
    quiet: bool,
) -> None:
    """Suggest the fewest rules that would have allowed the connections in captures.

    Peers that are instances become groups; other addresses stay addresses, unless --max-prefix or --any-above let them
    become more. The captures are then replayed through the suggested policy: the report says whether it allows what it
    was made for, and if not, the exit status is 1. Captures are read several times, so they must be files. With
    "-o -" the policy goes to standard output, and the report to standard error.

    \b
    Examples:
      sgfast suggest monday.pcap --instances instances.yaml -o suggested.yaml
      sgfast suggest monday.pcap --policy today.yaml --from all --filter "not net 10.0.99.0/24"
    """
    for path in captures:
        if path == "-" or _is_stream(path):
            raise click.UsageError(f"{path}: captures are read several times, and must be files: save it to one first")
    if options.reading.follow:
        raise click.UsageError("captures are read several times, and cannot be followed: leave --follow out")
    if instance_file is not None and policy is not None:
        raise click.UsageError("--policy has instances already: leave --instances out")
    if source == "allowed" and policy is None:
        raise click.UsageError("--from allowed needs --policy, which says what is allowed")
    allowed_only = policy is not None and source != "all"
    if unanswered and allowed_only:
        raise click.UsageError("--unanswered goes with --from all: what a policy allows may be unanswered anyway")

    from sgfast.capture.directories import with_files_in
    from sgfast.output import is_standard_output, open_output, refuse_shared
    from sgfast.policy.document import load_policy
    from sgfast.suggesting import Limits, load_instances
    from sgfast.suggesting import suggest as run_suggest

    outputs = [output] if output is not None else []
    refuse_shared(outputs, [*with_files_in(captures), *(path for path in (instance_file, policy) if path is not None)])
    stream = sys.stderr if any(map(is_standard_output, outputs)) else sys.stdout
    with ExitStack() as stack:
        file = None if output is None else stack.enter_context(open_output(output))
        progress = stack.enter_context(progress_of(captures, shown=not quiet))
        found = run_suggest(
            captures,
            instances=None if instance_file is None else load_instances(instance_file),
            policy=None if policy is None else load_policy(policy),
            allowed_only=allowed_only,
            unanswered=unanswered,
            per=per,
            limits=Limits(max_prefix, any_above, min_connections),
            vpc=options.vpc,
            reading=options.reading,
            progress=progress,
        )
        raise_arrived()
        if file is not None:
            file.write(found.text.encode())
            file.publish()

    from sgfast.report.suggestion import suggestion_object, suggestion_text

    if not quiet:
        # The report tells of them, too: on one screen once is enough.
        if not (form == "text" and is_terminal(stream) and is_terminal(sys.stderr)):
            warn(found.warnings)
        if not found.policy.instances:
            say("warning: no private address sends anything here: say with --instances which addresses are instances")
    if found.damaged is not None:
        say(str(found.damaged))
    if form == "json":
        text = to_json(suggestion_object(found))
    else:
        width = shutil.get_terminal_size().columns if is_terminal(stream) else 80
        text = suggestion_text(found, width=width, colour=is_colourful(stream))
    print_text(text, stream, "standard error" if stream is sys.stderr else "standard output")
    if found.damaged is not None:
        context.exit(EXIT_DAMAGED)
    if not found.check.matches:
        say("the suggested policy does not allow exactly what it was made for")
        context.exit(EXIT_FAIL_ON)


def _is_stream(path: str) -> bool:
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return False  # which is told when it is opened
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))
