"""``sgfast explain``."""

from __future__ import annotations

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import (
    FILE,
    Choice,
    OutputForm,
    accept_option,
    as_if_in_option,
    exit_status,
    fail_on_causes,
    format_option,
)
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import print_report, warn


@click.command(short_help="Explain why a packet is allowed or denied: the winning rule, or the nearest misses.")
@click.argument("policy", type=FILE)
@click.option(
    "--from",
    "source",
    metavar="A",
    required=True,
    help="The sender: an address, or an instance by its name, id or label or by its machine's id.",
)
@click.option("--to", "destination", metavar="B", required=True, help="The receiver, named in the same ways.")
@click.option("--protocol", metavar="NAME", required=True, help="tcp, udp, icmp, another IANA name, or 0 to 255.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="The destination port, for tcp, udp, ...")
@click.option(
    "--sport",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="The source port. Rules ignore it, but DHCP, which is exempt, is recognised by it (68 to 67, 546 to 547).",
)
@click.option(
    "--icmp-type", type=click.IntRange(0, 255), metavar="N", help="For icmp and icmpv6. Default: an echo request."
)
@click.option("--icmp-code", type=click.IntRange(0, 255), metavar="N", help="With --icmp-type. Default: 0.")
@click.option(
    "--vpc",
    metavar="NAME",
    help="The VPC in which addresses are looked up, and its peers, by its name, id or label. Default: that of the "
    "sender's instance, or else of the receiver's.",
)
@as_if_in_option
@accept_option
@format_option()
@click.option(
    "--fail-on",
    type=Choice(["denied"]),
    help="Exit with status 1 if the packet is denied, or if nobody can tell.",
)
@policy_options
@sandbox_option
def explain(
    policy: str,
    source: str,
    destination: str,
    protocol: str,
    port: int | None,
    sport: int | None,
    icmp_type: int | None,
    icmp_code: int | None,
    vpc: str | None,
    as_if_in: tuple[str, ...],
    accept_evidence: tuple[str, ...],
    policies: PolicyOptions,
    form: OutputForm,
    fail_on: str | None,
) -> None:
    """Explain why a packet that opens a connection is allowed or denied.

    The report covers the sender's outbound rules and the receiver's inbound rules. If rules match, it shows the winning
    rule and those that lose to it. If none matches, it shows the allow rules that fail on the fewest fields, with what
    the rule wants and what the packet has. POLICY may be "-" for standard input.

    With --as-if-in, an end may be a machine that the policy does not have, such as one of a plan. GROUP alone is enough
    if only one of --from and --to is an address that no instance has.

    \b
    Examples:
      sgfast explain policy.yaml --from 198.51.100.7 --to web-1 --protocol tcp --port 443
      sgfast explain policy.yaml --from web-1 --to db-1 --protocol icmp
      sgfast explain policy.yaml --as-if-in web --from 10.0.0.77 --to i-0123 --protocol tcp --port 5432
    """
    from sgfast.errors import ArgumentError
    from sgfast.policy.document_reader import Lines
    from sgfast.reaching.explaining import explain as explain_packet
    from sgfast.report.explain import explain_document
    from sgfast.report.json.explain import explain_answer

    number = int(protocol) if protocol.isascii() and protocol.isdigit() and len(protocol) <= 3 else protocol
    Inputs([policy]).enter_sandbox()
    lines: Lines = {}
    loaded = policies.load(policy, lines)
    try:
        explained = explain_packet(
            loaded, source, destination, number, port=port, sport=sport, icmp_type=icmp_type, icmp_code=icmp_code,
            vpc=vpc, as_if_in=as_if_in, accept_evidence=accept_evidence,
        )  # fmt: skip
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
    warn(loaded.warnings)
    print_report(form, lambda: explain_answer(explained, lines), lambda: explain_document(explained, lines))
    is_ruled_out = {"denied": explained.verdict != "cannot-tell"}
    causes = fail_on_causes([fail_on] if fail_on else [], {"denied": explained.verdict == "deny"}, is_ruled_out)
    exit_status(damaged=False, causes=causes)
