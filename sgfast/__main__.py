"""``sgfast`` as a process: every run ends with an exit status (SPEC 10.5). An error is one line on standard error. Only
a document may have several errors, which are shown with its lines (SPEC 11.8).

The imports here are few and cheap. All other modules are imported after interrupts are handled.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import NoReturn

EXIT_BAD = 2
EXIT_OF_SIGNAL = 128
TRACEBACK_VARIABLE = "SGFAST_DEBUG_TRACEBACK"


def main() -> NoReturn:
    """Run the ``sgfast`` command, and exit with its status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, _end_at_once)
    # NumPy starts threads for linear algebra. sgfast needs none, and starting them takes a third of a short run.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    status = run(sys.argv[1:])
    # Nothing is left to clean up, so an interrupt may end the process at once.
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End the process at an interrupt, as long as there is nothing to clean up."""
    with suppress(OSError):
        os.write(2, b"sgfast: interrupted\n")
    os._exit(EXIT_OF_SIGNAL + number)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit status; errors are printed."""
    from sgfast.base.signals import ending_signals, raise_arrived, stop_raising

    with ending_signals(_end_at_once):
        try:
            status = _invoke(list(arguments))
            raise_arrived()
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            stop_raising()
            return status
        except BaseException as error:
            stop_raising()
            status, message = _outcome(error)
            if message is not None:
                _say(message)
            _abandon_unwritable_streams()
            return status


def _invoke(arguments: list[str]) -> int:
    import click

    from sgfast.cli import main as group

    if "_SGFAST_COMPLETE" in os.environ:
        from sgfast.cli.completion import answer

        completed = answer(group)
        if completed is not None:
            return completed
    # group.main() would handle interrupts, closed pipes and exit statuses differently.
    try:
        with group.make_context("sgfast", arguments) as context:
            group.invoke(context)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        _say(error.format_message(), prefix="")
        return EXIT_BAD
    except click.ClickException as error:
        from sgfast.cli.usage import usage_error

        _say(_on_one_line(usage_error(error)))
        return EXIT_BAD
    return 0


def _outcome(error: BaseException) -> tuple[int, str | None]:
    """Return the exit status and the message for an error. The message has several lines if it shows a document."""
    from sgfast.base.signals import Signalled, arrived, ending

    if isinstance(error, KeyboardInterrupt):
        error = Signalled(signal.SIGINT)
    # A signal counts even if an import turned its exception into another one.
    number = error.number if isinstance(error, Signalled) else arrived()
    if number is not None:
        return EXIT_OF_SIGNAL + number, ending(number)
    if isinstance(error, BrokenPipeError):
        # The reader needs no more output. Programs that SIGPIPE ends print no message either.
        return EXIT_OF_SIGNAL + signal.SIGPIPE, None
    if isinstance(error, MemoryError):
        return EXIT_BAD, "out of memory"
    from sgfast.base.errors import PolicyError, SgfastError

    if isinstance(error, PolicyError):
        from sgfast.cli.excerpt import error_lines
        from sgfast.cli.printing import columns

        return EXIT_BAD, "\n".join(map(_on_one_line, error_lines(error, columns(sys.stderr))))
    if isinstance(error, SgfastError):
        return EXIT_BAD, _on_one_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else "standard output: "
        return EXIT_BAD, _on_one_line(f"{place}{error.strerror}")
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exception(error)
    cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return EXIT_BAD, _on_one_line(f"internal error: {cause} ({TRACEBACK_VARIABLE}=1 shows where)")


def _on_one_line(text: str) -> str:
    text = " ".join(text.split("\n"))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _say(message: str, prefix: str = "sgfast: ") -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(prefix + message, file=sys.stderr, flush=True)


def _abandon_unwritable_streams() -> None:
    """Redirect streams that cannot be flushed to the null device; otherwise Python reports the error again at exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


if __name__ == "__main__":
    main()
