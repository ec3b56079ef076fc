"""``sgfast reach``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sgfast.cli.inputs import Inputs, sandbox_option
from sgfast.cli.options import ENDS, FILE, OutputForm, format_option
from sgfast.cli.page_file import page_file, report_option, takes_standard_output, write_page
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import print_report, warn

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines


@click.command(short_help="List who may open which connections to whom, by the rules alone.")
@click.argument("policy", type=FILE)
@click.option(
    "--from",
    "source",
    metavar="X",
    default="any",
    help=f"Only connections from X: {ENDS} (the default). group:X, instance:X and address-group:X name one of that "
    "kind.",
)
@click.option("--to", "destination", metavar="Y", default="any", help="Only connections to Y, named in the same ways.")
@click.option(
    "--protocol",
    metavar="P",
    help='Only for these services: tcp, gre, tcp/443, "icmp echo-request", icmp/8/0, protocol 200, or all (the '
    "default).",
)
@click.option(
    "--port", metavar="N", help="Only to these destination ports: 443, or 80,8000-8080. Default protocols: tcp and udp."
)
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="N",
    default=40,
    show_default=True,
    help="The most rows in the text, and the most names in a cell, if more than 8. JSON has all.",
)
@report_option("a matrix of who may reach whom, and all rows with the rules that allow them")
@format_option()
@policy_options
@sandbox_option
def reach(
    policy: str,
    source: str,
    destination: str,
    protocol: str | None,
    port: str | None,
    top: int,
    report: str | None,
    policies: PolicyOptions,
    form: OutputForm,
) -> None:
    """List who may open which connections to whom, by the rules alone.

    No traffic is needed: the answer is exact for all packets that open a connection. It combines the outbound rules of
    senders and the inbound rules of receivers, VPCs and their peerings. A row says that each of its senders may open
    connections to each of its receivers for all of its services. A CIDR or an address group in a row means only those
    of its addresses that no instance has. POLICY may be "-" for standard input.

    \b
    Examples:
      sgfast reach policy.yaml --to db-1
      sgfast reach policy.yaml --from internet --port 22,3389
      sgfast reach policy.yaml --from web --to db --json
      sgfast reach policy.yaml --report reach.html
    """
    from sgfast.api import reach as reach_rows
    from sgfast.base.errors import ArgumentError
    from sgfast.report.json.reach import JsonReach
    from sgfast.report.reach import reach_document

    inputs = Inputs([policy])
    with page_file(report, inputs) as page:
        lines: Lines = {}
        loaded = policies.load(policy, lines)
        try:
            reached = reach_rows(
                loaded, source=source, destination=destination, protocol=protocol, port=port, rules=page is not None
            )
        except ArgumentError as error:
            raise click.UsageError(str(error)) from None
        if page is not None:
            from sgfast.report.html.reach import reach_html

            write_page(page, reach_html(reached, lines))
    warn(loaded.warnings)
    to_error = takes_standard_output(report)
    print_report(form, lambda: JsonReach.of(reached), lambda: reach_document(reached, top), to_error=to_error)
