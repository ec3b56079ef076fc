"""Turn signals that end the command into an exception, so that everything is cleaned up first.

An exception raised at an arbitrary point may get lost: Python prints and discards exceptions in callbacks, and some
imports convert them into errors of their own. The signal is therefore also recorded; long loops and the end of the
command check for it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

#: The message for each signal.
ENDINGS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

_arrived: list[int] = []
_raising = False
_held = False
_completed = ""


class Signalled(BaseException):
    """A signal that ends the process, raised as an exception so that everything is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def arrived() -> int | None:
    """Return the first ending signal that arrived after ``ending_signals`` was entered, or None."""
    return _arrived[0] if _arrived else None


def raise_arrived() -> None:
    """Raise Signalled again if a signal has arrived."""
    if _arrived:
        raise Signalled(_arrived[0])


@contextmanager
def held() -> Iterator[None]:
    """Delay ending signals until the end of the block, even repeated ones. The block should be short."""
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False
    if _raising:
        raise_arrived()


def complete(work: str) -> None:
    """Note that ending signals are now too late to stop this work. The command's last message says so."""
    global _completed
    _completed = work


def ending(number: int) -> str:
    """Return the message for a signal that ends the command."""
    return ENDINGS[number] + (f"; {_completed}" if _completed else "")


@contextmanager
def ending_signals(provisional: Any = None) -> Iterator[None]:
    """Make ending signals raise Signalled. A second signal of the same kind ends the process at once.

    ``provisional`` is an earlier handler that ends the process; it is replaced, too.
    """
    global _raising
    before: dict[int, Any] = {}
    _arrived.clear()
    complete("")
    _raising = True

    def end(number: int, frame: FrameType | None) -> None:
        _arrived.append(number)
        if _held:
            return
        signal.signal(number, signal.SIG_DFL)
        if _raising and len(_arrived) == 1:
            raise Signalled(number)

    # ValueError means that this is not the main thread. The signal handlers are then left alone.
    with suppress(ValueError):
        for number in ENDINGS:
            handler = signal.getsignal(number)
            # Ignored signals stay ignored (nohup, background jobs).
            if handler in (signal.SIG_DFL, signal.default_int_handler) or (handler and handler is provisional):
                before[number] = handler
                signal.signal(number, end)
    try:
        yield
    finally:
        stop_raising()
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_raising() -> None:
    """Only record signals from now on, because the command is already ending."""
    global _raising
    _raising = False
