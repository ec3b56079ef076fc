"""Printing: data goes to standard output, everything else to standard error (SPEC 10.1)."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from sgfast.errors import OutputError
from sgfast.system.names import printable

if TYPE_CHECKING:
    from sgfast.report.document import Document

#: The number of rows of a list in Markdown without ``--top``.
MARKDOWN_ROWS = 20


def to_json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value, indent=2) + "\n"


def written(document: Document, form: str, stream: Any) -> str:
    """Return a report in the format "markdown", or as text for the stream."""
    if form == "markdown":
        from sgfast.report.markdown import to_markdown

        return to_markdown(document)
    from sgfast.report.text import to_text

    return to_text(document, width=columns(stream), colour=is_colourful(stream))


def print_text(text: str, stream: Any, name: str) -> None:
    """Raise OutputError if the text cannot be written, BrokenPipeError if nobody reads it."""
    if stream is None:
        raise OutputError(f"{name}: is closed")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError:
        print_text(text.encode("ascii", "backslashreplace").decode("ascii"), stream, name)
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


def warn(warnings: list[str] | tuple[str, ...]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


def is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


def columns(stream: Any) -> int:
    """Return the width of a text: that of the terminal, and elsewhere 80 columns."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else 80


def is_colourful(stream: Any) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
