"""``sgfast flowlog``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import (
    FILE,
    Choice,
    OutputForm,
    accept_option,
    exit_status,
    fail_on_causes,
    format_option,
    quiet_option,
    vpc_option,
)
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import print_report, say, tell_of_input
from sgfast.system.signals import raise_arrived

if TYPE_CHECKING:
    from sgfast.evidence import EvidenceCode

#: Where this command's question went.
HINT = "sgfast flowlog is replaced by sgfast replay --compare-actions and goes with the next release"


@click.command(short_help="Replaced by sgfast replay --compare-actions.")
@click.argument("policy", type=FILE)
@click.argument("logs", type=FILE, metavar="LOG...", nargs=-1, required=True)
@vpc_option
@format_option()
@click.option(
    "--fail-on",
    type=Choice(["disagreement"]),
    help="Exit with status 1 if any record disagrees, or if the records cannot tell, such as those of another network.",
)
@accept_option
@policy_options
@sandbox_option
@quiet_option
def flowlog(
    policy: str,
    logs: tuple[str, ...],
    vpc: str | None,
    policies: PolicyOptions,
    form: OutputForm,
    fail_on: str | None,
    accept_evidence: tuple[EvidenceCode, ...],
    quiet: bool,
) -> None:
    """Find flow log records whose ACCEPT or REJECT differs from what the policy says.

    This command is replaced by sgfast replay --compare-actions and goes with the next release.

    Reads VPC flow logs of AWS (the default format, or the fields that the first line names; text, the JSON of
    CloudWatch Logs and Firehose, Parquet), OTC and Huawei Cloud, and security group logs of Neutron, plain
    or compressed, in the order given; "-" is standard input. Lines that are not records are reported and counted; the
    others are still judged, and the exit status is 3.

    An interface belongs to the instance of the same name, or else to the instance with its address. A record does not
    say who opened the connection. If the verdict depends on this, the opener is inferred from the records of both
    directions, the ports and the times. A record with too little information counts as undecided: it may be about
    packets that no rule decides, such as ICMP errors, fragments, or TCP packets of an expired connection. With the log
    field tcp-flags, fewer records are undecided.

    \b
    Examples:
      sgfast flowlog policy.yaml monday.log.gz --fail-on disagreement
    """
    if [policy, *logs].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")

    from sgfast.flow_logs.checking import check_logs

    Inputs([policy], others=logs).enter_sandbox()
    found = check_logs(policies.load(policy), logs, vpc=vpc, accept_evidence=accept_evidence, progress=raise_arrived)
    raise_arrived()
    if not quiet:
        say(HINT)
    tell_of_input(form, found.policy.warnings, quiet=quiet)
    for complaint in found.complaints:
        say(complaint)
    if found.broken_lines > len(found.complaints):
        say(f"{found.broken_lines - len(found.complaints)} more lines are not flow log records")
    for damage in found.damage:
        say(damage)

    from sgfast.report.flow_log_check import flow_log_document
    from sgfast.report.json.flow_log import JsonFlowLog

    print_report(form, lambda: JsonFlowLog.of(found), lambda: flow_log_document(found))
    is_ruled_out = {"disagreement": found.evidence.carries("verdicts")}
    causes = fail_on_causes([fail_on] if fail_on else [], {"disagreement": found.disagreeing > 0}, is_ruled_out)
    exit_status(damaged=bool(found.broken_lines or found.damage), causes=causes)
