"""``sgfast replay`` (SPEC 10)."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

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
from sgfast.cli.printing import is_colourful, is_terminal, print_text, say, to_json, warn
from sgfast.cli.progress import progress_of
from sgfast.signals import raise_arrived

if TYPE_CHECKING:
    from sgfast.replaying import ReplayOptions, ReplayResult


#: Files a replay writes: option, what names them, help.
_FILES = (
    (
        "--verdicts", "FILE",
        "Write a row for each packet: CSV or Parquet if FILE ends in .csv or .parquet, else JSON, one object a line.",
    ),
    ("--connections", "FILE", "Write a row for each connection, as it ends; formats likewise."),
    ("--write", "FILE.pcapng", "Write the capture, each packet's verdict and rules in its comment."),
    ("--write-denied", "FILE", "Write the denied packets as they came: .pcapng, or .pcap (one link type)."),
    (
        "--write-allowed", "FILE",
        "Write the packets that would be seen on the wire, likewise: all but denied and moot ones.",
    ),
    (
        "--report", "FILE.html",
        "Write a page with tables and packets over time: one file, to be opened in a browser or sent on.",
    ),
    ("--flow-log", "FILE", "Write VPC flow log records, as the cloud would with these groups."),
)  # fmt: skip


def _file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The files a replay writes: the command gets ``paths``, by option, those that were given."""

    @functools.wraps(command)
    def run(*arguments: Any, **given: Any) -> Any:
        named = {option: given.pop(option[2:].replace("-", "_")) for option, *_ in _FILES}
        paths = {option: path for option, path in named.items() if path is not None}
        return command(*arguments, paths=paths, **given)

    for option, metavar, text in reversed(_FILES):
        run = click.option(option, type=FILE, metavar=metavar, help=text)(run)
    return run


@click.command(short_help="Hold captures against a policy.")
@click.argument("policy", type=FILE)
@click.argument("captures", type=FILE, metavar="CAPTURE...", nargs=-1, required=True)
@replay_options
@mode_option
@midstream_option
@click.option("--changes", type=FILE, metavar="FILE", help="Change the policy while traffic flows, as FILE says.")
@click.option(
    "--snapshot",
    "snapshot_file",
    type=FILE,
    metavar="FILE",
    help="Save the state after the last packet, for --resume; --connections leaves open ones to that replay.",
)
@click.option(
    "--resume",
    type=FILE,
    metavar="FILE",
    help="Go on where a replay with --snapshot FILE stopped; same policy, options, changes. With --dask a folder, path "
    "or URL, that all workers see: what they read is kept there, and found again if the replay is run once more.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Read and judge on a Dask cluster: tcp://HOST:PORT, a scheduler's address, or local[:N], N processes here.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="With --dask: into how many parts packets are dealt out; otherwise that follows from the captures' sizes.",
)
@_file_options
@click.option(
    "--flow-log-format",
    type=click.Choice(["aws", "otc"]),
    default="aws",
    show_default=True,
    help="aws: version 2; otc: version 1, Huawei Cloud's, too.",
)
@click.option(
    "--flow-log-interval",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    default=600,
    show_default=True,
    help="How long packets add up to one record.",
)
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
    options: ReplayOptions,
    snapshot_file: str | None,
    dask: str | None,
    paths: dict[str, str],
    flow_log_format: str,
    flow_log_interval: int,
    form: Form,
    fail_on: str | None,
    quiet: bool,
) -> None:
    """Hold captures against a policy: what would its security groups do to this traffic?

    Several captures (pcap, pcapng, snoop; also compressed) are one replay, in the order given; a directory is the
    captures in it, by time. "-" is standard input for POLICY, --changes or one CAPTURE, and standard output for the
    other files; then the report goes to standard error, whatever its format, so that standard output holds nothing but
    rows. Regular files appear when everything is written, or not at all.
    POLICY is a policy document, a cloud's export, or a directory of exports.

    \b
    Examples:
      sgfast replay policy.yaml monday.pcap tuesday.pcap
      sgfast replay policy.yaml monday.pcap --report monday.html --write judged.pcapng
      sgfast replay policy.yaml any.pcap --dedup --start 1m --end 5m --filter "tcp port 80 or 443"
      sgfast replay policy.yaml mirror.pcap --decap vxlan
      tcpdump -U -w - | sgfast replay policy.yaml - --verdicts verdicts.csv
    """
    if [policy, options.changes, *captures].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    if options.engine == "reference":
        if "--connections" in paths:
            raise click.UsageError("--connections needs --engine fast: the reference model keeps no such list")
        if snapshot_file is not None or options.resume is not None:
            raise click.UsageError("--snapshot and --resume need --engine fast: the reference model has no snapshots")
        if options.jobs != 1:
            raise click.UsageError("--jobs needs --engine fast: the reference model judges alone")
    for name in ("flow_log_format", "flow_log_interval"):
        if "--flow-log" not in paths and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --flow-log: it says how to write that")
    if dask is not None:
        _refuse_on_cluster(dask, captures, options, snapshot_file)
    elif options.shards is not None:
        raise click.UsageError("--shards needs --dask: otherwise one process judges, or --jobs threads of it")
    if options.resume == "-":
        raise click.UsageError("--resume needs a file: a snapshot is not read from standard input")

    from sgfast.capture.directories import with_files_in
    from sgfast.cli.outputs import Outputs
    from sgfast.output import refuse_shared
    from sgfast.policy.formats.sources import files_of
    from sgfast.replaying import run_replay

    if snapshot_file is not None:
        paths["--snapshot"] = snapshot_file
    saved = options.resume if dask is None else None
    inputs = (*files_of(policy), *with_files_in(captures), *(str(path) for path in (options.changes, saved) if path))
    refuse_shared([*paths.values()], inputs)
    outputs = Outputs(paths, flow_log_format, flow_log_interval)
    report_name = "standard error" if outputs.take_standard_output else "standard output"
    # Lines that scroll by on a terminal, and a bar that is drawn over them, do not go together.
    lines_on_screen = report_name == "standard error" and is_terminal(sys.stdout)
    with ExitStack() as stack:
        stack.enter_context(outputs)
        client = stack.enter_context(_client_at(dask)) if dask is not None else None
        options = replace(options, client=client, snapshot=outputs.snapshot)
        with progress_of(captures, shown=not (quiet or lines_on_screen)) as progress:
            result = run_replay(policy, captures, options, outputs.sinks, progress)
        raise_arrived()
        outputs.publish(result)

    _print_report(result, form, report_name, quiet)
    if result.damaged is not None:
        context.exit(EXIT_DAMAGED)
    if fail_on == "denied" and result.verdicts["deny"]:
        context.exit(EXIT_FAIL_ON)


def _refuse_on_cluster(
    dask: str, captures: tuple[str, ...], options: ReplayOptions, snapshot_file: str | None
) -> None:
    """click.UsageError for what does not go with ``--dask``."""
    if options.engine == "reference":
        raise click.UsageError("--dask needs --engine fast: the reference model judges alone")
    if snapshot_file is not None:
        raise click.UsageError("--snapshot and --dask do not go together: no one place has the state to be saved")
    if options.jobs != 1:
        raise click.UsageError("--jobs and --dask do not go together: give workers more threads, or start more of them")
    if options.reading.follow or "-" in captures:
        raise click.UsageError("--dask needs captures that are there: neither standard input nor --follow")
    if options.resume is None and not (dask == "local" or dask.startswith("local:")):
        raise click.UsageError(
            "--dask ADDRESS needs --resume FOLDER, a path or URL that all workers see: what they read goes there"
        )


def _client_at(dask: str) -> AbstractContextManager[Any]:
    from sgfast.replaying.cluster.scheduler import client_at

    return client_at(dask)


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
