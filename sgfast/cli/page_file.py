"""The web page of commands whose only file is ``--report``, and where these commands print (SPEC 10.10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from sgfast.cli.inputs import Inputs, open_outputs
from sgfast.cli.options import PAGE

if TYPE_CHECKING:
    from sgfast.base.output import Output


def report_option(shown: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option ``--report FILE.html``. ``shown``: the content of the page, for the help."""
    return click.option(
        "--report",
        type=PAGE,
        metavar="FILE.html",
        help=f"Write the report as a web page, in one file without other parts: {shown}.",
    )


@contextmanager
def page_file(path: str | None, inputs: Inputs, *, quiet: bool = False) -> Iterator[Output | None]:
    """Open the file if the option is given, and enter the sandbox. See ``open_outputs``."""
    if path is None:
        inputs.enter_sandbox()
        yield None
    else:
        with open_outputs([path], inputs, quiet=quiet) as (output,):
            yield output


def write_page(output: Output, page: str) -> None:
    output.write(page.encode())
    output.publish()


def takes_standard_output(path: str | None) -> bool:
    """Return whether the page is standard output, so that all other output must go to standard error."""
    from sgfast.base.output import is_standard_output

    return path is not None and is_standard_output(path)
