"""The command line (SPEC 10), with a module for each command. The two commands of ``authoring`` share one.

``__main__`` runs the command line as a process: it handles signals and exit statuses, and prints errors. Modules that
are slow to import are imported by the command that needs them, when it runs.
"""

from __future__ import annotations

import click

from sgfast.cli.authoring import schema, template
from sgfast.cli.check import check
from sgfast.cli.completion import completion
from sgfast.cli.diff import diff
from sgfast.cli.explain import explain
from sgfast.cli.export import export
from sgfast.cli.import_ import import_command
from sgfast.cli.reach import reach
from sgfast.cli.replay import replay
from sgfast.cli.suggest import suggest
from sgfast.cli.test import test
from sgfast.cli.usage import Commands
from sgfast.version import __version__


@click.group("sgfast", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sgfast", message="%(prog)s %(version)s", help="Print the version.")
def main() -> None:
    """Cloud security groups as a packet-matching engine: what would these rules do to this traffic?

    \b
    Exit status:
      0    done
      1    --fail-on matched, an expectation fails, or a suggested policy falls short
      2    wrong usage, invalid policy, unreadable input or unwritable output
      3    a capture or log is damaged; what could be read was reported
      130  interrupted; replay, diff and check report what was judged so far
      141  the reader of the output closed it
      128 + N  ended by another signal N

    Set SGFAST_DEBUG_TRACEBACK=1 to see where an internal error happened.
    """


for command in (
    replay, diff, check, explain, reach, test, suggest, import_command, export, template, schema, completion,
):  # fmt: skip
    main.add_command(command)
