"""Printing: data goes to standard output, everything else to standard error (SPEC 10.1)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sgfast.base.errors import OutputError
from sgfast.base.names import printable

if TYPE_CHECKING:
    from sgfast.report.document import Document
    from sgfast.traffic.capture import Damage

#: The number of rows of a list in Markdown without ``--top``.
MARKDOWN_ROWS = 20


def to_json(value: dict[str, Any]) -> str:
    from sgfast.base.json_types import json_text

    return json_text(value) + "\n"


def list_lengths(form: str, top: int | None, *of_text: int) -> list[int]:
    """Return the most rows of each list of a report: ``top``, or a default for the format. ``of_text``: the defaults
    for text.
    """
    return [top or (MARKDOWN_ROWS if form == "markdown" else rows) for rows in of_text]


def print_report(
    form: str, as_object: Callable[[], dict[str, Any]], as_document: Callable[[], Document], *, to_error: bool = False
) -> None:
    """Print a result in the format "text", "json" or "markdown", on standard error if ``to_error``."""
    if form == "json":
        text = to_json(as_object())
    elif form == "markdown":
        from sgfast.report.markdown import to_markdown

        text = to_markdown(as_document())
    else:
        from sgfast.report.text import to_text

        stream = sys.stderr if to_error else sys.stdout
        text = to_text(as_document(), width=columns(stream), colour=is_colourful(stream))
    print_text(text, to_error=to_error)


def print_text(text: str, *, to_error: bool = False) -> None:
    """Print on standard output, or on standard error. Raises OutputError if the text cannot be written, BrokenPipeError
    if no reader is left.
    """
    name, stream = ("standard error", sys.stderr) if to_error else ("standard output", sys.stdout)
    if stream is None:
        raise OutputError(f"{name}: is closed")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError:
        print_text(text.encode("ascii", "backslashreplace").decode("ascii"), to_error=to_error)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise OutputError(f"{name}: cannot be written: {cause}") from error


def say(message: str) -> None:
    """Print one line on standard error, if that is possible."""
    if sys.stderr is not None:
        try:
            print(f"sgfast: {printable(message)}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return


def warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


def tell_of_input(
    form: str, warnings: Iterable[str], damaged: Damage | None = None, *, quiet: bool = False, to_error: bool = False
) -> None:
    """Print warnings, unless ``quiet``, and a capture's damage, on standard error. The text report has them, too, so
    they are not printed if a terminal shows both streams.
    """
    if form == "text" and is_terminal(sys.stderr if to_error else sys.stdout) and is_terminal(sys.stderr):
        return
    if not quiet:
        warn(warnings)
    if damaged is not None:
        say(str(damaged))


def is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


def columns(stream: Any) -> int:
    """Return the width for text: the terminal's, or 80 columns if the stream is no terminal."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else 80


def is_colourful(stream: Any) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
