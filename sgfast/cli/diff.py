"""``sgfast diff``."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import (
    EXIT_DAMAGED,
    EXIT_FAIL_ON,
    FILE,
    Form,
    format_option,
    jobs_option,
    midstream_option,
    mode_option,
    quiet_option,
    replay_options,
)
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import is_colourful, is_terminal, print_text, say, to_json, warn
from sgfast.cli.progress import progress_of
from sgfast.signals import raise_arrived

if TYPE_CHECKING:
    from sgfast.comparing import Change, DiffResult
    from sgfast.replaying import ReplayOptions

CHANGES: tuple[Change, ...] = ("newly-denied", "newly-allowed")


def _fail_on(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(word.strip() for words in given for word in words.split(","))
    for word in words:
        if word not in CHANGES:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(CHANGES)}.")
    return words


@click.command(short_help="Show what changes for real traffic if one policy replaces another.")
@click.argument("files", type=FILE, metavar="[OLD NEW] CAPTURE...", nargs=-1, required=True)
@click.option(
    "--plan",
    type=FILE,
    metavar="FILE",
    help="Take OLD and NEW from the output of `terraform show -json PLAN`: the state before the plan and after it.",
)
@replay_options
@mode_option
@midstream_option
@format_option("markdown")
@jobs_option
@click.option(
    "--fail-on",
    multiple=True,
    callback=_fail_on,
    metavar="WHAT",
    help="Exit with status 1 if there are such connections: newly-denied, newly-allowed, or both, separated by a "
    "comma. Repeatable.",
)
@click.option("--changes", hidden=True, metavar="FILE")
@policy_options
@sandbox_option
@quiet_option
@click.pass_context
def diff(
    context: click.Context,
    files: tuple[str, ...],
    plan: str | None,
    options: ReplayOptions,
    policies: PolicyOptions,
    form: Form,
    fail_on: tuple[Change, ...],
    quiet: bool,
) -> None:
    """Show what would change for this traffic if policy NEW replaced OLD.

    Both policies judge all captures from the first packet on. The report lists the connections that would be newly
    denied (those that were answered come first) and newly allowed, the rules that decide under each policy, and the
    rules that make the difference. OLD and NEW are policy documents, a cloud's exports, or directories of exports;
    "-" is standard input for one of the files. The format "markdown" is for pull requests.

    \b
    Examples:
      sgfast diff today.yaml proposed.yaml monday.pcap tuesday.pcap
      sgfast diff today.yaml proposed.yaml monday.pcap --start 2026-01-26T08:00:00Z --end 2026-01-26T18:00:00Z
      sgfast diff --plan plan.json monday.pcap --format markdown --fail-on newly-denied
    """
    if plan is None and len(files) < 3:
        raise click.UsageError(f"Missing argument '{('NEW', 'CAPTURE...')[len(files) - 1]}'.")
    captures = files if plan is not None else files[2:]
    if options.changes is not None:
        raise click.UsageError(
            "--changes does not work with diff, which compares two fixed policies; to see what a change does to open "
            "connections, use sgfast replay --changes"
        )
    if [plan, *files].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")

    from sgfast.comparing import run_diff
    from sgfast.policy.formats.terraform import load_plan

    Inputs(files[:2] if plan is None else (), captures, [plan]).enter_sandbox()
    old, new = load_plan(plan, policies.unresolved) if plan is not None else map(policies.load, files[:2])
    with progress_of(captures, shown=not quiet) as progress:
        result = run_diff(old, new, captures, options, progress)
    raise_arrived()
    _print_report(result, form, quiet)
    if result.damaged is not None:
        context.exit(EXIT_DAMAGED)
    if any(result.total(change).connections for change in fail_on):
        context.exit(EXIT_FAIL_ON)


def _print_report(result: DiffResult, form: Form, quiet: bool) -> None:
    if form == "json":
        from sgfast.report.diff import diff_summary

        text = to_json(diff_summary(result))
    elif form == "markdown":
        from sgfast.report.diff_markdown import diff_markdown

        text = diff_markdown(result)
    else:
        from sgfast.report.diff_text import diff_text

        width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 80
        text = diff_text(result, width=width, colour=is_colourful(sys.stdout))
    # The text report includes the warnings and the damage, so a terminal that shows both streams need not repeat them.
    if not (form == "text" and is_terminal(sys.stdout) and is_terminal(sys.stderr)):
        if not quiet:
            warn(result.warnings)
        if result.damaged is not None:
            say(str(result.damaged))
    print_text(text, sys.stdout, "standard output")
