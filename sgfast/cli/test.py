"""``sgfast test``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sgfast.cli.inputs import Inputs, open_outputs, sandbox_option
from sgfast.cli.options import FILE, exit_status, format_option, is_damaged, quiet_option, replay_options
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import print_report, print_text, say, warn
from sgfast.cli.progress import progress_of

if TYPE_CHECKING:
    from sgfast.questions.replaying import ReplayOptions


@click.command(short_help="Prove for all packets that a policy does what it should.")
@click.argument("policy", type=FILE)
@click.argument("files", type=FILE, metavar="EXPECTATIONS|CAPTURE...", nargs=-1, required=True)
@click.option(
    "--init",
    is_flag=True,
    help="Write a first expectations file: give CAPTUREs in the place of EXPECTATIONS, and the file lists the "
    "connections that worked in them. The options for reading captures need --init.",
)
@click.option(
    "--output", "-o", type=FILE, metavar="FILE", help="With --init: write to FILE. Default: standard output."
)
@replay_options
@format_option("junit")
@policy_options
@sandbox_option
@quiet_option
def test(
    policy: str,
    files: tuple[str, ...],
    init: bool,
    output: str | None,
    options: ReplayOptions,
    policies: PolicyOptions,
    form: str,
    quiet: bool,
) -> None:
    """Prove for all packets that a policy allows and denies what is expected.

    EXPECTATIONS is a file, in YAML or JSON, that says what the policy should do:

    \b
      expect:
        - {from: web, to: db, service: tcp/5432, verdict: allow}
        - {from: internet, to: [db, 10.0.9.0/24], service: all, verdict: deny,
           why: Only web servers face the internet.}

    "from" and "to" are a security group, an instance, an address group, a CIDR, an address, "internet" or "any";
    "service" is tcp/443, udp/1000-2000, icmp, all or the like; lists mean each of them. An expectation holds if every
    packet that opens such a connection gets the verdict. If one does not, the report shows it, with the rules that
    decide, and the exit status is 1. It is also 1 if an expectation is about no packet, as it then proves nothing:
    --accept-evidence about-nobody accepts that. The format "junit" is for CI.

    With --init, captures are read instead, and a first file is written. It lists the connections that worked, in
    few lines. A comment marks connections that the policy denies.

    \b
    Examples:
      sgfast test policy.yaml expectations.yaml
      sgfast test policy.yaml expectations.yaml --format junit > junit.xml
      sgfast test --init policy.yaml monday.pcap -o expectations.yaml
    """
    if init:
        if form != "text":
            raise click.UsageError("--format is for the report of a test: leave it out with --init")
        _write_first(policy, files, output, options, policies, quiet)
        return
    if len(files) > 1:
        raise click.UsageError("name one EXPECTATIONS file; captures need --init")
    if output is not None:
        raise click.UsageError("--output needs --init")
    if not options.reading.is_plain or options.vpc is not None:
        raise click.UsageError("--vpc and the options for reading captures need --init")
    if (policy, *files).count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    from sgfast.policy.document_reader import Lines
    from sgfast.policy.expectations import load_expectations
    from sgfast.report.amounts import plural
    from sgfast.report.expectations import expectations_document, expectations_junit
    from sgfast.report.json.expectations import expectations_answer
    from sgfast.rules.reaching.proving import Expectations

    Inputs([policy], others=files).enter_sandbox()
    lines: Lines = {}
    loaded = policies.load(policy, lines)
    proof = Expectations(loaded, load_expectations(files[0])).prove(options.accept_evidence)
    warnings = [*loaded.warnings, *proof.warnings]
    if not quiet and form != "text":
        warn(warnings)
    if form == "junit":
        print_text(expectations_junit(proof))
    else:
        print_report(
            form, lambda: expectations_answer(proof, lines, warnings),
            lambda: expectations_document(proof, lines, warnings),
        )  # fmt: skip
    counts = (("that failed", len(proof.of("fails"))), ("about no packet", len(proof.of("empty"))))
    causes = [f"{plural(number, 'expectation')} {words}" for words, number in counts if number and not proof]
    exit_status(damaged=False, causes=causes)


def _write_first(
    policy: str, captures: tuple[str, ...], output: str | None, options: ReplayOptions, policies: PolicyOptions,
    quiet: bool,
) -> None:  # fmt: skip
    if [policy, *captures].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    from sgfast.questions.suggesting.first_expectations import first_expectations

    with open_outputs([output or "-"], Inputs([policy], captures), quiet=quiet) as (stream,):
        loaded = policies.load(policy)
        with progress_of(captures, shown=not quiet) as progress:
            first = first_expectations(loaded, captures, options, progress=progress)
        stream.write(first.text.encode())
        stream.publish()
    if not quiet:
        warn(first.warnings)
    if first.replay.damaged is not None:
        say(str(first.replay.damaged))
    exit_status(damaged=is_damaged(first.replay.damaged, first.replay.records))
