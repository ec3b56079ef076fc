"""Turn signals that end the command into an exception, so that everything is cleaned up first.

An exception raised at an arbitrary point may get lost: Python prints and discards exceptions in callbacks, and some
imports convert them into errors of their own. The signal is therefore also recorded; long loops and the end of the
command check for it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

#: The message for each signal.
ENDINGS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

T = TypeVar("T")

_arrived: list[int] = []
_raising = False
_is_delayed = False
_completed = ""
#: Whether an interrupt is to stop the reading of captures only, whether it does so now, whether captures are being read
#: now, and whether an interrupt stopped this.
_is_to_stop = False
_may_stop = False
_reading = False
_stopped = False


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
    global _is_delayed
    _is_delayed = True
    try:
        yield
    finally:
        _is_delayed = False
    if _raising:
        raise_arrived()


@contextmanager
def interrupt_stops_reading() -> Iterator[None]:
    """Let an interrupt stop the reading of captures, so that the command reports what was judged before it ends.

    A second interrupt ends the process at once. Before the first packets and after the reading, interrupts end the
    command as usual.
    """
    global _is_to_stop
    _is_to_stop = True
    try:
        yield
    finally:
        _is_to_stop = False
        end_reading()


def begin_judging() -> None:
    """Note that there are packets, so that there is something to report from now on."""
    global _may_stop
    _may_stop = _is_to_stop


def unless_stopped(read: Callable[..., T], *arguments: Any) -> T | None:
    """Call a function that reads captures. Return None if an interrupt stops the reading, or has stopped it."""
    global _reading
    try:
        _reading = True
        result = None if _stopped else read(*arguments)
        _reading = False
        return result
    except BaseException as error:
        _reading = False
        if _stopped and isinstance(error, Signalled) and error.number == signal.SIGINT:
            return None
        raise


def end_reading() -> bool:
    """Note that the reading has ended. Return whether an interrupt stopped it."""
    global _may_stop
    _may_stop = False
    return _stopped


def is_stopped() -> bool:
    """Return whether an interrupt stopped the reading of captures."""
    return _stopped


def complete(work: str) -> None:
    """Note the work that was done in spite of an ending signal. The command's last message says so."""
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
    global _raising, _stopped
    before: dict[int, Any] = {}
    _arrived.clear()
    complete("")
    _raising, _stopped = True, False

    def end(number: int, frame: FrameType | None) -> None:
        global _stopped
        if _may_stop and number == signal.SIGINT:
            _stopped = True
            signal.signal(number, signal.SIG_DFL)
            if _reading:
                raise Signalled(number)
            return
        _arrived.append(number)
        if _is_delayed:
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
