"""The command line (SPEC 10). ``__main__`` runs it as a process: signals, exit statuses, one line for an error.

Whatever takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Literal

import click

from sgfast import __version__
from sgfast.capture.names import printable
from sgfast.errors import OutputError
from sgfast.signals import raise_arrived

if TYPE_CHECKING:
    from sgfast.engine import Midstream, Mode
    from sgfast.output import Output
    from sgfast.replaying import ReplayResult

EXIT_FAIL_ON = 1
EXIT_BAD = 2
EXIT_DAMAGED = 3

_vpc_option = click.option(
    "--vpc",
    metavar="NAME",
    help="The VPC the packets' addresses belong to; its peers are seen, too. Default: all VPCs at once.",
)
_format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the report: for people or for programs.",
)


@click.group("sgfast", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sgfast", message="%(prog)s %(version)s", help="Print the version.")
def main() -> None:
    """Security groups as a packet-matching engine: what would these rules do to this traffic?

    \b
    Exit status:
      0    done
      1    --fail-on matched
      2    wrong usage or policy, unreadable input, unwritable output
      3    a capture is damaged part way; what came before is reported
      130  interrupted
      141  whoever read the output went away; other signals: 128 + number

    SGFAST_DEBUG_TRACEBACK=1 shows where an internal error happened.
    """


@main.command(short_help="Hold captures against a policy.")
@click.argument("policy")
@click.argument("captures", metavar="CAPTURE...", nargs=-1, required=True)
@_vpc_option
@click.option(
    "--mode",
    type=click.Choice(["causal", "verbatim"]),
    default="causal",
    show_default=True,
    help="causal: what followed a denied opener is moot. verbatim: every packet is judged as it came.",
)
@click.option(
    "--midstream",
    type=click.Choice(["infer", "deny", "allow"]),
    default="infer",
    show_default=True,
    help="TCP connections that began before the capture: judge who must have opened them (infer: within the first "
    "minutes; allow: at any time), or deny their packets.",
)
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
@_format_option
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="Threads that judge, 1 to 64; results are the same. It pays with many connections (hundred thousands).",
)
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
    form: Literal["text", "json"],
    jobs: int,
    fail_on: str | None,
    engine: Literal["fast", "reference"],
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
            vpc, engine, jobs,
        )  # fmt: skip
        raise_arrived()
        outputs = [output for output in (packet_output, flow_output, state_output) if output is not None]
        for output in outputs:
            output.close()
        for output in outputs:
            output.publish()

    _print_report(result, form, report_name)
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
) -> ReplayResult:
    from sgfast.replaying import replay as run_replay
    from sgfast.report.lines import ConnectionLines, VerdictLines
    from sgfast.report.progress import ProgressBar

    # Lines that scroll by on a terminal, and a bar that is drawn over them, do not go together.
    lines_on_screen = report_name == "standard error" and _is_terminal(sys.stdout)
    with ExitStack() as stack:
        bar = None
        if _is_terminal(sys.stderr) and not lines_on_screen:
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


def _print_report(result: ReplayResult, form: Literal["text", "json"], name: str) -> None:
    stream = sys.stderr if name == "standard error" else sys.stdout
    if form == "json":
        from sgfast.report.summary import summary

        text = _json(summary(result))
    else:
        from sgfast.report.text import text_report

        width = shutil.get_terminal_size().columns if _is_terminal(stream) else 80
        text = text_report(result, width=width, colour=_is_colourful(stream))
    # The report tells of warnings and damage: on one screen once is enough.
    if stream is not sys.stderr and not (form == "text" and _is_terminal(stream) and _is_terminal(sys.stderr)):
        _warn(result.warnings)
        if result.damaged is not None:
            _say(str(result.damaged))
    _print(text, stream, name)


@main.command(short_help="Validate a policy and say what it compiles to.")
@click.argument("policy")
@_vpc_option
@_format_option
def check(policy: str, vpc: str | None, form: Literal["text", "json"]) -> None:
    """Validate and compile a policy, and say what it compiled to.

    POLICY may be "-", standard input. What is wrong with it is said with file and line, and the exit status is 2.
    """
    from sgfast.policy.document import load_policy
    from sgfast.report.check import check_summary, compile_for_check

    loaded = load_policy(policy)
    compiled, warnings = compile_for_check(loaded, vpc)
    found = check_summary(compiled, warnings)
    _warn(warnings)
    if form == "json":
        text = _json(found)
    else:
        from sgfast.report.text import check_text

        text = check_text(loaded.origin, found, colour=_is_colourful(sys.stdout))
    _print(text, sys.stdout, "standard output")


@main.command(short_help="Print a template's rules as YAML, or the templates' names.")
@click.argument("name", required=False)
@click.option("--list", "list_names", is_flag=True, help="Print the templates' names.")
def template(name: str | None, list_names: bool) -> None:
    """Print a template's rules as YAML, or without NAME what templates there are."""
    from sgfast.policy.model import DEFAULT_GROUP
    from sgfast.policy.templates import TEMPLATES, template_document

    if name is None or list_names:
        text = "".join(f"{known}\n" for known in (*TEMPLATES, DEFAULT_GROUP))
    else:
        text = template_document(name)
    _print(text, sys.stdout, "standard output")


# Printing ------------------------------------------------------------------------------------------------------------


def _json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value, indent=2) + "\n"


def _print(text: str, stream: Any, name: str) -> None:
    """OutputError if it cannot be written, BrokenPipeError if nobody reads it."""
    if stream is None:
        raise OutputError(f"{name}: is closed")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError:
        _print(text.encode("ascii", "backslashreplace").decode("ascii"), stream, name)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise OutputError(f"{name}: cannot be written: {cause}") from error


def _say(message: str) -> None:
    """One line on standard error; that it cannot be written is no error."""
    if sys.stderr is not None:
        try:
            print(f"sgfast: {printable(message)}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return


def _warn(warnings: list[str] | tuple[str, ...]) -> None:
    for warning in warnings:
        _say(f"warning: {warning}")


def _is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


def _is_colourful(stream: Any) -> bool:
    return _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
