"""``sgfast replay`` (SPEC 10)."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sgfast.base.signals import is_stopped, raise_arrived
from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import (
    FILE,
    PAGE,
    Choice,
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
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import is_terminal, list_lengths, print_report, tell_of_input, warn
from sgfast.cli.progress import progress_of

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines
    from sgfast.policy.model import Policy
    from sgfast.questions.replaying import ReplayOptions
    from sgfast.report.rollup import By
    from sgfast.rules.reaching.proving import Expectations


#: The files that a replay writes: option, metavar, help.
_FILES = (
    (
        "--verdicts", "FILE",
        "Write a row for each packet: CSV or Parquet if FILE ends in .csv or .parquet, otherwise JSON Lines.",
    ),
    ("--connections", "FILE", "Write a row for each connection when it ends, in the same formats."),
    ("--write", "FILE.pcapng", "Write the capture with each packet's verdict and rules in a comment."),
    ("--write-denied", "FILE", "Write the denied packets unchanged to a .pcapng file, or .pcap (one link type only)."),
    (
        "--write-allowed", "FILE",
        "Write the packets that would still be on the wire (neither denied nor moot), in the same formats.",
    ),
    (
        "--report", "FILE.html",
        "Write the report as a web page with tables and charts, in one file without other parts.",
    ),
    ("--flow-log", "FILE", "Write the VPC flow log records that the cloud would write with these groups."),
)  # fmt: skip


def _file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of ``_FILES``. The command gets ``paths``: the file names by option, for the options given."""

    @functools.wraps(command)
    def run(*arguments: Any, **given: Any) -> Any:
        named = {option: given.pop(option[2:].replace("-", "_")) for option, *_ in _FILES}
        paths = {option: path for option, path in named.items() if path is not None}
        return command(*arguments, paths=paths, **given)

    for option, metavar, text in reversed(_FILES):
        run = click.option(option, type=PAGE if option == "--report" else FILE, metavar=metavar, help=text)(run)
    return run


@click.command(short_help="Judge captured traffic by a policy.")
@click.argument("policy", type=FILE)
@click.argument("captures", type=FILE, metavar="CAPTURE...", nargs=-1, required=True)
@replay_options
@vni_option
@mode_option
@midstream_option
@click.option("--changes", type=FILE, metavar="FILE", help="Change the policy during the replay, as FILE says.")
@click.option(
    "--snapshot",
    "snapshot_file",
    type=FILE,
    metavar="FILE",
    help="Save the state after the last packet, for --resume. Connections that are still open are then left out of "
    "--connections, and reported by the replay that resumes.",
)
@click.option(
    "--resume",
    type=FILE,
    metavar="FILE",
    help="Continue where a replay with --snapshot FILE stopped, with the same policy, options and changes. With "
    "--dask: a folder that all workers can access, a path or URL. They keep what they read there, and the replay "
    "reuses it if it is run again.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Read and judge on a Dask cluster: a scheduler's address, tcp://HOST:PORT, or local[:N] for N processes on "
    "this machine.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="With --dask: the number of parts into which packets are divided. Default: by the size of the captures.",
)
@_file_options
@click.option(
    "--flow-log-format",
    type=Choice(["aws", "otc"]),
    default="aws",
    show_default=True,
    help="aws: AWS, version 2. otc: OTC and Huawei Cloud, version 1.",
)
@click.option(
    "--flow-log-interval",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    default=600,
    show_default=True,
    help="The time that one record covers.",
)
@format_option("markdown")
@jobs_option
@click.option(
    "--expect",
    "expectations",
    type=FILE,
    metavar="FILE",
    help="Expectations, as for sgfast test: connections that FILE expects to be denied do not count as breaking, and "
    "the report names traffic that contradicts FILE.",
)
@by_option()
@top_option
@click.option(
    "--show-rules",
    is_flag=True,
    help="Show with each row of what would break the rules that would let it through, as lines of a policy document.",
)
@click.option(
    "--compare-actions",
    is_flag=True,
    help="Of flow logs: say how many connections the cloud accepted or rejected otherwise than the policy does.",
)
@click.option(
    "--fail-on",
    type=Choice(["denied", "would-break", "disagreement"]),
    help="Exit with status 1 if any packet was denied (moot ones do not count), if a connection that worked would "
    "break, or if cloud and policy disagree (--compare-actions).",
)
@click.option(
    "--engine",
    type=Choice(["fast", "reference"]),
    default="fast",
    show_default=True,
    help="reference: the slow and simple reference model, for comparison.",
)
@policy_options
@sandbox_option
@quiet_option
@click.pass_context
def replay(
    context: click.Context,
    policy: str,
    captures: tuple[str, ...],
    options: ReplayOptions,
    vnis: tuple[str, ...],
    snapshot_file: str | None,
    dask: str | None,
    paths: dict[str, str],
    flow_log_format: str,
    flow_log_interval: int,
    policies: PolicyOptions,
    form: OutputForm,
    expectations: str | None,
    by: By,
    top: int | None,
    show_rules: bool,
    fail_on: str | None,
    quiet: bool,
) -> None:
    """Judge captured traffic by a policy: what would its security groups do to it?

    POLICY is a policy document, a cloud's export, or a directory of exports. Several captures (pcap, pcapng or snoop,
    plain or compressed) form one replay, in the order given; a directory stands for the captures in it, in the order of
    time. In their place, CAPTURE may be flow logs of AWS, OTC, Huawei Cloud or Neutron, or Zeek's conn.log: files,
    directories, patterns and URLs, whose records are merged by time. "-" is standard input for POLICY, --changes or one
    CAPTURE, and standard output for a file to be written. The report then goes to standard error, so that standard
    output holds nothing but that file. Regular files appear when they are complete, or not at all. The format
    "markdown" is for pull requests.

    \b
    Examples:
      sgfast replay policy.yaml monday.pcap tuesday.pcap
      sgfast replay policy.yaml monday.pcap --report monday.html --write judged.pcapng
      sgfast replay policy.yaml any.pcap --dedup --start 1m --end 5m --filter "tcp port 80 or 443"
      sgfast replay policy.yaml mirror.pcap --decap vxlan
      sgfast replay policy.yaml monday.pcap --format markdown --fail-on would-break
      sgfast replay policy.yaml flow-logs/ --compare-actions
      tcpdump -U -w - | sgfast replay policy.yaml - --verdicts verdicts.csv
    """
    if [policy, options.changes, expectations, *captures].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    if options.engine == "reference":
        if "--connections" in paths:
            raise click.UsageError("--connections needs --engine fast: the reference model does not list connections")
        if snapshot_file is not None or options.resume is not None:
            raise click.UsageError("--snapshot and --resume need --engine fast: the reference model has no snapshots")
        if options.jobs != 1:
            raise click.UsageError("--jobs needs --engine fast: the reference model uses one thread")
        if expectations is not None:
            raise click.UsageError("--expect needs --engine fast: the reference model does not follow what would break")
        if fail_on == "would-break":
            raise click.UsageError("--fail-on would-break needs --engine fast: the reference model does not follow it")
    for name in ("flow_log_format", "flow_log_interval"):
        if "--flow-log" not in paths and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --flow-log")
    if dask is not None:
        _refuse_on_cluster(dask, captures, options, snapshot_file)
    elif options.shards is not None:
        raise click.UsageError("--shards needs --dask: without it, one process judges everything (see --jobs)")
    if fail_on == "disagreement" and not options.compare_actions:
        raise click.UsageError("--fail-on disagreement needs --compare-actions")
    refuse_vpc_and_vnis(options.vpc, vnis)
    if options.resume == "-":
        raise click.UsageError("--resume needs a file: a snapshot cannot be read from standard input")

    from sgfast.base.output import refuse_shared
    from sgfast.cli.outputs import Outputs
    from sgfast.questions.replaying import run_replay

    if snapshot_file is not None:
        paths["--snapshot"] = snapshot_file
    saved = options.resume if dask is None else None
    inputs = Inputs([policy], captures, [str(path) for path in (options.changes, saved, expectations) if path])
    refuse_shared([*paths.values()], inputs.files)
    outputs = Outputs(paths, flow_log_format, flow_log_interval)
    to_error = outputs.take_standard_output
    # On a terminal to which rows are written, a progress bar would be drawn over the rows.
    lines_on_screen = to_error and is_terminal(sys.stdout)
    with ExitStack() as stack:
        stack.enter_context(outputs)
        if not quiet:
            warn(outputs.warnings)
        inputs.enter_sandbox(outputs.opened)
        client = stack.enter_context(_client_at(dask)) if dask is not None else None
        options = replace(options, client=client, snapshot=outputs.snapshot)
        lines: Lines = {}
        loaded = mapped(policies.load(policy, lines), vnis)
        expected = _looked_up(loaded, expectations) if expectations is not None else None
        stops = client is None and not options.reading.follow
        with progress_of(captures, shown=not (quiet or lines_on_screen), stops=stops) as progress:
            result = run_replay(loaded, captures, options, outputs.sinks, progress)
        raise_arrived()
        if expected is not None:
            from sgfast.questions.replaying.expected_verdicts import hold_against

            hold_against(result, expected)
        if not is_stopped():
            outputs.publish(result, lines)

    from sgfast.report.document import TOP
    from sgfast.report.json.replay import replay_answer
    from sgfast.report.replay import replay_document

    if not to_error:
        tell_of_input(form, result.warnings, result.damaged, quiet=quiet)
    (most,) = list_lengths(form, top, TOP)
    print_report(
        form, lambda: replay_answer(result, by=by, top=top, with_rules=show_rules),
        lambda: replay_document(result, by, most, timed=form == "text", with_rules=show_rules), to_error=to_error,
    )  # fmt: skip
    carries = result.evidence.carries
    matches = {
        "denied": result.verdicts["deny"] > 0,
        "would-break": bool(result.kinds.rows["broken"].any()),
        "disagreement": result.actions is not None and result.actions.disagreeing > 0,
    }
    is_ruled_out = dict.fromkeys(matches, carries("verdicts")) | {"would-break": carries("verdicts", "answers")}
    causes = fail_on_causes([fail_on] if fail_on else [], matches, is_ruled_out)
    exit_status(damaged=is_damaged(result.damaged, result.records), causes=causes, files=bool(paths))


def _looked_up(policy: Policy, path: str) -> Expectations:
    from sgfast.policy.expectations import load_expectations
    from sgfast.rules.reaching.proving import Expectations

    return Expectations(policy, load_expectations(path))


def _refuse_on_cluster(
    dask: str, captures: tuple[str, ...], options: ReplayOptions, snapshot_file: str | None
) -> None:
    """Raise click.UsageError for options that cannot be combined with ``--dask``."""
    if options.engine == "reference":
        raise click.UsageError("--dask needs --engine fast: the reference model runs in one process")
    if snapshot_file is not None:
        raise click.UsageError("--snapshot and --dask cannot be combined: no single place has the state to be saved")
    if options.jobs != 1:
        raise click.UsageError("--jobs and --dask cannot be combined: give workers more threads, or start more workers")
    if options.reading.follow or "-" in captures:
        raise click.UsageError("--dask needs complete captures: neither standard input nor --follow")
    if options.resume is None and not (dask == "local" or dask.startswith("local:")):
        raise click.UsageError(
            "--dask ADDRESS needs --resume FOLDER, a path or URL that all workers can access, for what they read"
        )


def _client_at(dask: str) -> AbstractContextManager[Any]:
    from sgfast.questions.replaying.cluster.scheduler import client_at

    return client_at(dask)
