"""The page that ``--report`` of a command without other files names, and where the command then prints (SPEC 10.10)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from sgfast.cli.inputs import Inputs
from sgfast.cli.options import PAGE
from sgfast.cli.printing import warn

if TYPE_CHECKING:
    from sgfast.system.output import Output


def report_option(shown: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--report FILE.html``. ``shown``: what the page shows."""
    return click.option(
        "--report",
        type=PAGE,
        metavar="FILE.html",
        help=f"Write the report as a web page, in one file without other parts: {shown}.",
    )


class PageFile:
    """``stream``: where text goes, which is standard error if the page is standard output. ``name``: what messages call
    the stream.
    """

    def __init__(self, output: Output | None, to_standard_output: bool) -> None:
        self._output = output
        self.stream = sys.stderr if to_standard_output else sys.stdout
        self.name = "standard error" if to_standard_output else "standard output"

    def give_standard_output(self, option: str) -> None:
        """Another option writes to standard output, so text goes to standard error. Raises UsageError if the page is
        there already.
        """
        if self.stream is sys.stderr:
            raise click.UsageError(f"{option} and --report cannot both write to standard output")
        self.stream, self.name = sys.stderr, "standard error"

    @property
    def is_wanted(self) -> bool:
        return self._output is not None

    def publish(self, page: str) -> None:
        assert self._output is not None
        self._output.write(page.encode())
        self._output.publish()


@contextmanager
def page_file(path: str | None, inputs: Inputs, *, quiet: bool = False) -> Iterator[PageFile]:
    """Open the file before anything is read, so that one that cannot be written fails early, and enter the sandbox.
    Leaves nothing behind unless the page was published.

    Raises OutputError if it cannot be written or is one of the inputs.
    """
    from sgfast.system.output import is_standard_output, open_output, refuse_shared

    if path is not None:
        refuse_shared([path], inputs.files)
    with open_output(path) if path is not None else nullcontext() as output:
        if output is not None and output.warning and not quiet:
            warn([output.warning])
        inputs.enter_sandbox([output] if output is not None else [])
        yield PageFile(output, path is not None and is_standard_output(path))
