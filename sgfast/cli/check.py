"""``sgfast check``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sgfast.base.spelling import did_you_mean
from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import (
    FILE,
    as_if_in_option,
    by_option,
    exit_status,
    format_option,
    is_damaged,
    replay_options,
)
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import list_lengths, print_report, print_text, tell_of_input, to_json
from sgfast.cli.progress import progress_of

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines
    from sgfast.questions.checking import CheckResult
    from sgfast.questions.replaying import ReplayOptions
    from sgfast.report.rollup import By


def _severities_and_codes(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Accept severities and codes, which are imported only if the option is given."""
    if values:
        from sgfast.questions.checking.codes import CODES, SEVERITIES

        for value in values:
            if value not in SEVERITIES and value not in CODES:
                choices = f"{', '.join(SEVERITIES)} or a code ({min(CODES)} to {max(CODES)})"
                hint = did_you_mean(value, (*SEVERITIES, *CODES))
                raise click.BadParameter(f"{value[:40]!r} is not one of {choices}{hint}")
    return values


@click.command(short_help="Validate a policy, and report its compiled size and its problems.")
@click.argument("policy", type=FILE)
@click.option(
    "--traffic",
    "captures",
    type=FILE,
    metavar="CAPTURE",
    multiple=True,
    help="Also find the rules that no packet of this capture, or of these flow logs, used, and rules much wider than "
    "the traffic they allow. Repeatable: all form one replay.",
)
@click.option(
    "--expect", "expectations", type=FILE, metavar="FILE", help="Also find what this expectations file contradicts."
)
@replay_options
@as_if_in_option
@format_option("sarif", "markdown")
@by_option(of="With --traffic, rows of connections that used a rule")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="List N findings, and N rows of the connections that used a rule. Default: 100 findings and 3 rows; 20 of "
    "both as Markdown; all findings and 1,000 rows with --json.",
)
@click.option(
    "--fail-on",
    metavar="SEVERITY|CODE",
    multiple=True,
    callback=_severities_and_codes,
    help="Exit with status 1 if a finding has this severity or a worse one (error, warning, note), or this code. "
    "Repeatable.",
)
@click.option(
    "--baseline",
    type=FILE,
    metavar="POLICY",
    help="Compare with the findings of this earlier policy: --fail-on only counts new ones, and the report lists "
    "these. Of a Terraform plan, it is the state before the plan.",
)
@click.option(
    "--accepted",
    type=FILE,
    metavar="FILE",
    help="Do not count the findings that this file accepts, each with a reason and perhaps a last day (YAML).",
)
@policy_options
@sandbox_option
@click.pass_context
def check(
    context: click.Context,
    policy: str,
    captures: tuple[str, ...],
    expectations: str | None,
    options: ReplayOptions,
    as_if_in: tuple[str, ...],
    policies: PolicyOptions,
    form: str,
    by: By,
    top: int | None,
    fail_on: tuple[str, ...],
    baseline: str | None,
    accepted: str | None,
) -> None:
    """Validate and compile a policy, and report its compiled size and its redundant, useless or dangerous parts.

    POLICY is a policy document, a cloud's export, or a directory of exports; "-" is standard input. If it cannot be
    used, the error names the file and the line or object, and the exit status is 2. Each finding has a stable code
    (SG001, ...), a severity, advice, and a line number where one is known. The format "sarif" is for code hosts and
    editors, "markdown" for pull requests. With --as-if-in GROUP=ADDRESS, the policy is checked as if it had one more
    instance.

    \b
    Examples:
      sgfast check policy.yaml --fail-on error
      sgfast check policy.yaml --traffic monday.pcap --traffic tuesday.pcap
      sgfast check policy.yaml --traffic monday.pcap --by instance --top 20
      sgfast check policy.yaml --traffic flow-logs/
      sgfast check policy.yaml --baseline before/policy.yaml --accepted accepted.yaml --fail-on error
      sgfast check policy.yaml --traffic monday.pcap --filter "not host 10.0.0.99"
    """
    if [policy, *captures, expectations, baseline, accepted].count("-") > 1 or (baseline and "-" in captures):
        raise click.UsageError("standard input (-) can be read only once")
    if not captures and not options.reading.is_plain:
        raise click.UsageError("options for reading captures (--start, --filter, --decap, ...) need --traffic")
    if not captures and context.get_parameter_source("by") is not ParameterSource.DEFAULT:
        raise click.UsageError("--by needs --traffic: it says how the connections that used a rule are folded")
    from sgfast.api import check as find
    from sgfast.base.errors import ArgumentError
    from sgfast.report.check import TOP, USED_ROWS, check_document

    Inputs([policy, baseline], captures, [expectations, accepted]).enter_sandbox()
    lines: Lines = {}
    loaded = policies.load(policy, lines)
    before = None if baseline is None else policies.load_baseline(baseline)
    with ExitStack() as stack:
        progress = stack.enter_context(progress_of(captures, stops=not options.reading.follow)) if captures else None
        try:
            checked = find(
                loaded, expect=None if expectations is None else Path(expectations), captures=captures,
                vpc=options.vpc, reading=options.reading, accept_evidence=options.accept_evidence, as_if_in=as_if_in,
                baseline=before, accepted=None if accepted is None else Path(accepted), progress=progress,
            )  # fmt: skip
        except ArgumentError as error:
            raise click.UsageError(str(error)) from None
    traffic = checked.traffic
    damaged = None if traffic is None else traffic.damaged
    tell_of_input(form, [*checked.warnings], damaged)
    if form == "sarif":
        from sgfast.report.sarif import sarif

        print_text(to_json(sarif(checked, lines)))
    else:
        findings, most = list_lengths(form, top, TOP, USED_ROWS)
        print_report(
            form, lambda: _answer(checked, lines, by, top),
            lambda: check_document(checked, lines, by=by, findings=findings, most=most, sized=form == "text"),
        )  # fmt: skip
    was_cut = traffic is not None and is_damaged(traffic.damaged, traffic.records)
    causes = [f"--fail-on {word}: {cause}" for word in fail_on if (cause := checked.cause_of_failure(word))]
    exit_status(damaged=was_cut, causes=causes)


def _answer(checked: CheckResult, lines: Lines, by: By, top: int | None) -> dict[str, Any]:
    # The import is only for JSON, because it loads the modules for replays.
    from sgfast.report.json.check import check_answer

    return check_answer(checked, lines, by=by, top=top)
