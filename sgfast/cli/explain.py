"""``sgfast explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import (
    ENDS,
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

if TYPE_CHECKING:
    from sgfast.base.evidence import EvidenceCode


@click.command(short_help="Explain why a packet is allowed or denied: the winning rule, or the nearest misses.")
@click.argument("policy", type=FILE)
@click.option(
    "--from",
    "source",
    metavar="A",
    required=True,
    help=f"The sender: {ENDS}. group:A, instance:A and address-group:A name one of that kind.",
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
    help="Exit with status 1 if a packet is denied, or if nobody can tell.",
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
    accept_evidence: tuple[EvidenceCode, ...],
    policies: PolicyOptions,
    form: OutputForm,
    fail_on: str | None,
) -> None:
    """Explain why a packet that opens a connection is allowed or denied.

    If an end means several addresses, such as a group or internet, one packet stands for all: a denied one, if there is
    one. The answer says whether all of them get the same verdict.

    The report covers the sender's outbound rules and the receiver's inbound rules. If rules match, it shows the winning
    rule and those that lose to it. If none matches, it shows the allow rules that fail on the fewest fields, with what
    the rule wants and what the packet has. POLICY may be "-" for standard input.

    With --as-if-in, an end may be a machine that the policy does not have, such as one of a plan. GROUP alone is enough
    if only one of --from and --to is an address that no instance has.

    \b
    Examples:
      sgfast explain policy.yaml --from 198.51.100.7 --to web-1 --protocol tcp --port 443
      sgfast explain policy.yaml --from web-1 --to db-1 --protocol icmp
      sgfast explain policy.yaml --from internet --to db --protocol tcp --port 5432 --fail-on denied
      sgfast explain policy.yaml --as-if-in web --from 10.0.0.77 --to i-0123 --protocol tcp --port 5432
    """
    from sgfast.api import explain as explain_policy
    from sgfast.base.errors import ArgumentError
    from sgfast.policy.document_reader import Lines
    from sgfast.report.explain import explain_document
    from sgfast.report.json.explain import explain_answer
    from sgfast.rules.reaching.explaining import packet_service
    from sgfast.rules.reaching.services import single_service_text

    number = int(protocol) if protocol.isascii() and protocol.isdigit() and len(protocol) <= 3 else protocol
    Inputs([policy]).enter_sandbox()
    lines: Lines = {}
    loaded = policies.load(policy, lines)
    try:
        service = single_service_text(packet_service(number, port, sport, icmp_type, icmp_code))
        explained = explain_policy(
            loaded, source, destination, service, sport=sport, vpc=vpc, as_if_in=as_if_in,
            accept_evidence=accept_evidence,
        )  # fmt: skip
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
    warn(loaded.warnings)
    print_report(form, lambda: explain_answer(explained, lines), lambda: explain_document(explained, lines))
    is_ruled_out = {"denied": explained.evidence.conclusive == "yes"}
    causes = fail_on_causes([fail_on] if fail_on else [], {"denied": explained.verdict == "deny"}, is_ruled_out)
    exit_status(damaged=False, causes=causes)
