"""Signals that end the command: raised as an exception, so that everything is put away first.

An exception that is raised wherever the program happens to be may get lost: Python prints and forgets those out of
callbacks, and some imports turn them into errors of their own. So the signal is remembered, too, and long loops and
the end of the command ask for it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

#: What is said of each.
ENDINGS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

_arrived: list[int] = []
_raising = False


class Signalled(BaseException):
    """A signal that ends the process, on its way through everything that has to be put away first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def arrived() -> int | None:
    """The first of these signals that has come since ``ending_signals`` was entered, or None."""
    return _arrived[0] if _arrived else None


def raise_arrived() -> None:
    """Raises Signalled once more, if one has come."""
    if _arrived:
        raise Signalled(_arrived[0])


@contextmanager
def ending_signals(provisional: Any = None) -> Iterator[None]:
    """Signals that end the process raise Signalled instead; a second one of a kind ends it at once.

    ``provisional``: a handler that was to end it until now.
    """
    global _raising
    before: dict[int, Any] = {}
    _arrived.clear()
    _raising = True

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        _arrived.append(number)
        if _raising and len(_arrived) == 1:
            raise Signalled(number)

    # ValueError: not in the main thread, where signals are someone else's business.
    with suppress(ValueError):
        for number in ENDINGS:
            handler = signal.getsignal(number)
            # One that is ignored (nohup, a background job) stays so.
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
    """From here on signals are only remembered: the end has begun, whatever it is."""
    global _raising
    _raising = False
