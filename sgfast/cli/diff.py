"""``sgfast diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sgfast.base.signals import is_stopped, raise_arrived
from sgfast.base.spelling import did_you_mean
from sgfast.cli.export import Export, export_options
from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import (
    FILE,
    OutputForm,
    by_option,
    exit_status,
    fail_on_causes,
    format_option,
    is_damaged,
    jobs_option,
    mapped,
    midstream_option,
    mode_option,
    quiet_option,
    refuse_vpc_and_vnis,
    replay_options,
    top_option,
    vni_option,
)
from sgfast.cli.page_file import page_file, report_option, takes_standard_output, write_page
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import list_lengths, print_report, print_text, tell_of_input
from sgfast.cli.progress import progress_of

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines
    from sgfast.questions.comparing import NewVerdict, TrafficDiff
    from sgfast.questions.replaying import ReplayOptions
    from sgfast.report.document import Document
    from sgfast.report.rollup import By
    from sgfast.rules.reaching.difference import Difference

#: Words of ``--fail-on``: first for traffic, then for the rules alone.
NEW_VERDICTS: tuple[NewVerdict, ...] = ("newly-denied", "newly-allowed")
BY_RULES = ("opened", "closed")


def _fail_on(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(word.strip() for words in values for word in words.split(","))
    for word in words:
        if word not in (*NEW_VERDICTS, *BY_RULES):
            hint = did_you_mean(word, (*NEW_VERDICTS, *BY_RULES))
            raise click.BadParameter(f"{word!r} is not one of {', '.join((*NEW_VERDICTS, *BY_RULES))}{hint}")
    return words


@click.command(short_help="Show what changes if one policy replaces another: by the rules, and for real traffic.")
@click.argument("files", type=FILE, metavar="[OLD NEW] [CAPTURE]...", nargs=-1)
@click.option(
    "--plan",
    type=FILE,
    metavar="FILE",
    help="Take OLD and NEW from the output of `terraform show -json PLAN`: the state before the plan and after it.",
)
@click.option(
    "--on",
    "account_file",
    type=FILE,
    metavar="FILE",
    help="With --plan: a policy or an export of the account as it is today, with the groups, lists and instances that "
    "the plan does not manage.",
)
@replay_options
@vni_option
@mode_option
@midstream_option
@format_option("markdown")
@jobs_option
@by_option()
@top_option
@click.option(
    "--fail-on",
    multiple=True,
    callback=_fail_on,
    metavar="WHAT",
    help="Exit with status 1 if there are such connections in the captures (newly-denied, newly-allowed), or if NEW "
    "allows more or less by its rules (opened, closed). Several are separated by commas. Repeatable.",
)
@export_options("--to-format", writes_files=False)
@report_option("what NEW opens and closes, and what that changes for the captured traffic")
@click.option("--changes", hidden=True, metavar="FILE")
@policy_options
@sandbox_option
@quiet_option
def diff(
    files: tuple[str, ...],
    plan: str | None,
    account_file: str | None,
    options: ReplayOptions,
    vnis: tuple[str, ...],
    policies: PolicyOptions,
    form: OutputForm,
    by: By,
    top: int | None,
    fail_on: tuple[str, ...],
    export: Export | None,
    report: str | None,
    quiet: bool,
) -> None:
    """Show what would change if policy NEW replaced OLD.

    First, for all packets that open a connection: what NEW opens and closes, and which rules do it. This part needs no
    traffic, and is exact. Then, if there are captures: both policies judge all of them from the first packet on, and
    the report says which connections would be newly denied (those that were answered come first) and newly allowed, the
    rules that decide under each policy, and the rules that make the difference.

    OLD and NEW are policy documents, a cloud's exports, or directories of exports; CAPTURE may be flow logs, as for
    sgfast replay; "-" is standard input for one of the files. The format "markdown" is for pull requests. With --to,
    standard output gets the changes from OLD to NEW, and the report goes to standard error.

    \b
    Examples:
      sgfast diff today.yaml proposed.yaml --fail-on opened
      sgfast diff today.yaml proposed.yaml monday.pcap tuesday.pcap
      sgfast diff today.yaml proposed.yaml monday.pcap --start 2026-01-26T08:00:00Z --end 2026-01-26T18:00:00Z
      sgfast diff today.yaml proposed.yaml monday.pcap --report diff.html
      sgfast diff today.yaml proposed.yaml flow-logs/ --fail-on newly-denied
      sgfast diff --plan plan.json monday.pcap --format markdown --fail-on newly-denied
      sgfast diff --plan plan.json --on today/ --fail-on opened,closed
    """
    if plan is None and len(files) < 2:
        raise click.UsageError(f"Missing argument '{('OLD', 'NEW')[len(files)]}'.")
    if account_file is not None and plan is None:
        raise click.UsageError("--on is for --plan, which holds only a part of the account")
    captures = files if plan is not None else files[2:]
    if not captures and (options.vpc is not None or vnis or not options.reading.is_plain):
        raise click.UsageError("options for reading captures (--vpc, --start, --filter, --decap, ...) need a CAPTURE")
    refuse_vpc_and_vnis(options.vpc, vnis)
    if not captures and set(fail_on) & set(NEW_VERDICTS):
        raise click.UsageError(f"--fail-on {' and '.join(NEW_VERDICTS)} need a CAPTURE")
    if options.changes is not None:
        raise click.UsageError(
            "--changes does not work with diff, which compares two fixed policies; to see what a change does to open "
            "connections, use sgfast replay --changes"
        )
    if export is not None and len(export.instances) > 1:
        raise click.UsageError("diff takes one --instance; sgfast export writes a file for each of several")
    if [plan, account_file, *files].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")

    from sgfast.api import by_rules

    parts = [] if export is None else export.parts("-", is_change=True)
    inputs = Inputs(files[:2] if plan is None else (account_file,), captures, [plan])
    with page_file(report, inputs, quiet=quiet) as page:
        to_error = takes_standard_output(report)
        if to_error and export is not None:
            raise click.UsageError("--to and --report cannot both write to standard output")
        lines: dict[str, Lines] = {"old": {}, "new": {}}
        if plan is not None:
            from sgfast.clouds.terraform.plan import load_plan

            account = None if account_file is None else policies.load(account_file)
            old, new = load_plan(plan, policies.unresolved, account)
        else:
            old, new = policies.load(files[0], lines["old"]), policies.load(files[1], lines["new"])
        old, new = mapped(old, vnis), mapped(new, vnis)
        must = not captures or bool(set(fail_on) & set(BY_RULES))
        difference = by_rules(old, new, must=must, accept_evidence=options.accept_evidence)
        result = None
        if captures:
            from sgfast.questions.comparing import run_diff

            with progress_of(captures, shown=not quiet, stops=not options.reading.follow) as progress:
                result = run_diff(old, new, captures, options, progress, difference.evidence.reasons)
            raise_arrived()
        of_input = result.warnings if result is not None else (*old.warnings, *new.warnings)
        warnings = list(dict.fromkeys((*difference.warnings, *of_input)))
        if page is not None and not is_stopped():
            from sgfast.report.html.diff import diff_html

            write_page(page, diff_html(difference, result, warnings, lines))
    if export is not None:
        if not is_stopped():
            print_text(export.text(parts[0], old, new, files[0] if plan is None else None))
        to_error = True
    damaged = None if result is None else result.damaged
    tell_of_input(form, warnings, damaged, quiet=quiet, to_error=to_error)
    print_report(
        form, lambda: _answer(difference, result, warnings, by, top),
        lambda: _document(difference, result, form, by, top), to_error=to_error,
    )  # fmt: skip
    # Rows about unknown members are there, so the answer on the rules says that something is opened or closed.
    matches: dict[str, bool] = {"opened": bool(difference.opened), "closed": bool(difference.closed)}
    is_ruled_out = dict.fromkeys(matches, difference.evidence.without("unknown-members").carries("verdicts"))
    if result is not None:
        for verdict, rows in zip(NEW_VERDICTS, (difference.closed, difference.opened), strict=True):
            matches[verdict] = result.total(verdict).connections > 0
            has_unknown = any(row.has_unknown for row in rows)
            evidence = result.evidence if has_unknown else result.evidence.without("unknown-members")
            is_ruled_out[verdict] = evidence.carries("verdicts")
    causes = fail_on_causes(fail_on, matches, is_ruled_out)
    if any(reason.code == "unread-filters" for reason in difference.evidence.open_reasons):
        causes.append("changes of filters that are not read")
    exit_status(
        damaged=result is not None and is_damaged(damaged, result.records), causes=causes,
        files=report is not None or export is not None,
    )  # fmt: skip


def _answer(
    difference: Difference, result: TrafficDiff | None, warnings: list[str], by: By, top: int | None
) -> dict[str, Any]:
    from sgfast.report.json.diff import diff_answer

    return diff_answer(difference, result, warnings, by, top)


def _document(
    difference: Difference, result: TrafficDiff | None, form: OutputForm, by: By, top: int | None
) -> Document:
    from sgfast.report.difference import difference_document
    from sgfast.report.document import TOP

    (most,) = list_lengths(form, top, TOP)
    document = difference_document(difference, most, doubts=result is None)
    if result is None:
        return document
    from sgfast.report.diff import diff_document

    return [*document, *diff_document(result, by, most, timed=form == "text")]
