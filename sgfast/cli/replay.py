"""``sgfast replay`` (SPEC 10)."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Literal

import click

from sgfast.cli.options import (
    EXIT_DAMAGED,
    EXIT_FAIL_ON,
    Form,
    format_option,
    jobs_option,
    midstream_option,
    mode_option,
    quiet_option,
    vpc_option,
)
from sgfast.cli.printing import is_colourful, is_terminal, print_text, say, to_json, warn
from sgfast.signals import raise_arrived

if TYPE_CHECKING:
    from sgfast.engine import Midstream, Mode
    from sgfast.output import Output
    from sgfast.replaying import ReplayResult


@click.command(short_help="Hold captures against a policy.")
@click.argument("policy")
@click.argument("captures", metavar="CAPTURE...", nargs=-1, required=True)
@vpc_option
@mode_option
@midstream_option
@click.option("--changes", metavar="FILE", help="Change the policy while traffic flows, as FILE says.")
@click.option(
    "--snapshot",
    metavar="FILE",
    help="Save the state after the last packet, for --resume; --connections leaves open ones to that replay.",
)
@click.option(
    "--resume", metavar="FILE", help="Go on where a replay with --snapshot FILE stopped; same policy, options, changes."
)
@click.option("--verdicts", metavar="FILE", help="Write one JSON object a line for each packet.")
@click.option("--connections", metavar="FILE", help="Write one JSON object a line for each connection, as it ends.")
@format_option()
@jobs_option
@click.option(
    "--fail-on", type=click.Choice(["denied"]), help="Exit with 1 if some packet was denied (moot ones do not count)."
)
@click.option(
    "--engine",
    type=click.Choice(["fast", "reference"]),
    default="fast",
    show_default=True,
    help="reference: the slow, obvious model, for comparison.",
)
@quiet_option
@click.pass_context
def replay(
    context: click.Context,
    policy: str,
    captures: tuple[str, ...],
    changes: str | None,
    snapshot: str | None,
    resume: str | None,
    vpc: str | None,
    mode: Mode,
    midstream: Midstream,
    verdicts: str | None,
    connections: str | None,
    form: Form,
    jobs: int,
    fail_on: str | None,
    engine: Literal["fast", "reference"],
    quiet: bool,
) -> None:
    """Hold captures against a policy: what would its security groups do to this traffic?

    Several captures (pcap, pcapng) are one replay, in the order given. "-" is standard input for POLICY, --changes or
    one CAPTURE, and standard output for the other files; then the report goes to standard error, whatever its format,
    so that standard output holds nothing but lines. Regular files appear when everything is written, or not at all.
    """
    if [policy, changes, *captures].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    if engine == "reference" and connections is not None:
        raise click.UsageError("--connections needs --engine fast: the reference model keeps no such list")

    if engine == "reference" and (snapshot is not None or resume is not None):
        raise click.UsageError("--snapshot and --resume need --engine fast: the reference model has no snapshots")
    if engine == "reference" and jobs != 1:
        raise click.UsageError("--jobs needs --engine fast: the reference model judges alone")
    if resume == "-":
        raise click.UsageError("--resume needs a file: a snapshot is not read from standard input")

    from sgfast.output import is_standard_output, open_output, refuse_shared

    paths = [path for path in (verdicts, connections, snapshot) if path is not None]
    refuse_shared(paths, (policy, *captures, *(path for path in (changes, resume) if path is not None)))
    report_name = "standard error" if any(map(is_standard_output, paths)) else "standard output"

    with ExitStack() as stack:
        # Before anything long: an output that cannot be written is known at once.
        packet_output = None if verdicts is None else stack.enter_context(open_output(verdicts))
        flow_output = None if connections is None else stack.enter_context(open_output(connections))
        state_output = None if snapshot is None else stack.enter_context(open_output(snapshot))
        result = _replay(
            policy, captures, changes, resume, state_output, packet_output, flow_output, report_name, mode, midstream,
            vpc, engine, jobs, quiet,
        )  # fmt: skip
        raise_arrived()
        outputs = [output for output in (packet_output, flow_output, state_output) if output is not None]
        for output in outputs:
            output.close()
        for output in outputs:
            output.publish()

    _print_report(result, form, report_name, quiet)
    if result.damaged is not None:
        context.exit(EXIT_DAMAGED)
    if fail_on == "denied" and result.verdicts["deny"]:
        context.exit(EXIT_FAIL_ON)


def _replay(
    policy: str,
    captures: tuple[str, ...],
    changes: str | None,
    resume: str | None,
    state_output: Output | None,
    packet_output: Output | None,
    flow_output: Output | None,
    report_name: str,
    mode: Mode,
    midstream: Midstream,
    vpc: str | None,
    engine: Literal["fast", "reference"],
    jobs: int,
    quiet: bool,
) -> ReplayResult:
    from sgfast.replaying import replay as run_replay
    from sgfast.report.lines import ConnectionLines, VerdictLines
    from sgfast.report.progress import ProgressBar

    # Lines that scroll by on a terminal, and a bar that is drawn over them, do not go together.
    lines_on_screen = report_name == "standard error" and is_terminal(sys.stdout)
    with ExitStack() as stack:
        bar = None
        if is_terminal(sys.stderr) and not lines_on_screen and not quiet:
            bar = stack.enter_context(closing(ProgressBar(captures)))

        def progress(packets: int, nbytes: int) -> None:
            raise_arrived()
            if bar is not None:
                bar(packets, nbytes)

        return run_replay(
            policy,
            captures,
            mode=mode,
            midstream=midstream,
            vpc=vpc,
            engine=engine,
            packets=None if packet_output is None else VerdictLines(packet_output.write),
            flows=None if flow_output is None else ConnectionLines(flow_output.write),
            progress=progress,
            changes=changes,
            resume=resume,
            snapshot=state_output,
            jobs=jobs,
        )


def _print_report(result: ReplayResult, form: Form, name: str, quiet: bool) -> None:
    stream = sys.stderr if name == "standard error" else sys.stdout
    if form == "json":
        from sgfast.report.summary import summary

        text = to_json(summary(result))
    else:
        from sgfast.report.text import text_report

        width = shutil.get_terminal_size().columns if is_terminal(stream) else 80
        text = text_report(result, width=width, colour=is_colourful(stream))
    # The report tells of warnings and damage: on one screen once is enough.
    if stream is not sys.stderr and not (form == "text" and is_terminal(stream) and is_terminal(sys.stderr)):
        if not quiet:
            warn(result.warnings)
        if result.damaged is not None:
            say(str(result.damaged))
    print_text(text, stream, name)
