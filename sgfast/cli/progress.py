"""Progress while a command reads captures or a live account: a bar on a terminal, and a check for signals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from sgfast.base.signals import interrupt_stops_reading, raise_arrived
from sgfast.cli.printing import is_terminal

if TYPE_CHECKING:
    from sgfast.report.progress import ProgressBar


class _BarAndSignals:
    def __init__(self, bar: ProgressBar | None) -> None:
        self._bar = bar

    def __call__(self, packets: int, nbytes: int) -> None:
        raise_arrived()
        if self._bar is not None:
            self._bar(packets, nbytes)

    def expect_records(self, total_bytes: int | None) -> None:
        if self._bar is not None:
            self._bar.expect_records(total_bytes)


@contextmanager
def progress_of(
    captures: Sequence[str], *, shown: bool = True, stops: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Yield the function to call with the number of packets (or records) and bytes read so far. A bar appears only if
    ``shown``.

    ``stops``: an interrupt only stops the reading (SPEC 10.5).
    """
    from sgfast.report.progress import ProgressBar

    with ExitStack() as stack:
        if stops:
            stack.enter_context(interrupt_stops_reading())
        bar = stack.enter_context(closing(ProgressBar(captures))) if shown and is_terminal(sys.stderr) else None
        yield _BarAndSignals(bar)


@contextmanager
def progress_of_account(*, shown: bool = True) -> Iterator[Callable[[str, int], None]]:
    """Yield the function to call with the name of a listing and the number of its objects read so far."""
    from sgfast.report.progress import Bar

    with ExitStack() as stack:
        bar = stack.enter_context(closing(Bar())) if shown and is_terminal(sys.stderr) else None

        def progress(listing: str, objects: int) -> None:
            raise_arrived()
            if bar is not None:
                bar.show(f"{objects:,} objects, {listing}")

        yield progress
