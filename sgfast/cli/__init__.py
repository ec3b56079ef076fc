"""The command line (SPEC 10), a module a command. ``__main__`` runs it as a process: signals, exit statuses, one line
for an error.

Whatever takes long to import is imported by the command that needs it, when it runs.
"""

from __future__ import annotations

import click

from sgfast.cli.check import check
from sgfast.cli.completion import completion
from sgfast.cli.diff import diff
from sgfast.cli.explain import explain
from sgfast.cli.flowlog import flowlog
from sgfast.cli.import_ import import_command
from sgfast.cli.replay import replay
from sgfast.cli.suggest import suggest
from sgfast.cli.template import template
from sgfast.version import __version__


@click.group("sgfast", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sgfast", message="%(prog)s %(version)s", help="Print the version.")
def main() -> None:
    """Security groups as a packet-matching engine: what would these rules do to this traffic?

    \b
    Exit status:
      0    done
      1    --fail-on matched; a suggested policy falls short
      2    wrong usage or policy, unreadable input, unwritable output
      3    a capture or log is damaged part way; the rest is reported
      130  interrupted
      141  whoever read the output went away; other signals: 128 + number

    SGFAST_DEBUG_TRACEBACK=1 shows where an internal error happened.
    """


for command in (
    replay, diff, check, explain, suggest, flowlog, import_command, template, completion,
):  # fmt: skip
    main.add_command(command)
