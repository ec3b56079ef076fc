"""While a command reads captures: a progress bar for those who wait at a terminal, and an ear for signals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from sgfast.cli.printing import is_terminal
from sgfast.signals import raise_arrived


@contextmanager
def progress_of(captures: Sequence[str], *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """What reads captures calls with the packets and bytes so far. The bar is drawn only if ``shown``."""
    from sgfast.report.progress import ProgressBar

    with ExitStack() as stack:
        bar = stack.enter_context(closing(ProgressBar(captures))) if shown and is_terminal(sys.stderr) else None

        def progress(packets: int, nbytes: int) -> None:
            raise_arrived()
            if bar is not None:
                bar(packets, nbytes)

        yield progress
