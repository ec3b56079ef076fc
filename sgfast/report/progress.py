"""A progress bar for long commands. It is written to standard error, and only if standard error is a terminal."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgfast.base.streams.urls import is_url, url_identity
from sgfast.traffic.capture.directories import is_directory, with_files_in

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: The bar appears only if a command takes longer than this.
PATIENCE_SECONDS = 1.0
REFRESH_SECONDS = 0.1


class Bar:
    """A line that appears if a command takes long. ``close`` removes the line."""

    def __init__(self, total_bytes: int | None = None) -> None:
        """Show the share of ``total_bytes``. None: the bar shows only that the command is working."""
        self._total = total_bytes
        self._next = time.monotonic() + PATIENCE_SECONDS
        self._before = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def show(self, text: str, nbytes: int | None = None) -> None:
        """Show a text, and if ``nbytes`` is given, how many bytes were read and how fast."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + REFRESH_SECONDS
        is_again, self._before = (nbytes or 0) < self._before, nbytes or 0
        if self._bar is None or self._task is None:
            self._start(nbytes, text)
        else:
            if is_again:
                self._bar.reset(self._task)
            self._bar.update(self._task, completed=nbytes, text=text)
            self._bar.refresh()

    def _start(self, nbytes: int | None, text: str) -> None:
        # Imported here because it takes 0.1 s; short commands do not need it.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        self._bar = Progress(
            TextColumn("{task.fields[text]}"),
            BarColumn(),
            *(() if nbytes is None else (TransferSpeedColumn(), TimeRemainingColumn())),
            console=Console(file=sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=self._total, completed=nbytes or 0, text=text)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ProgressBar(Bar):
    """The callback for ``replay(progress=...)``, which draws a bar.

    The bar starts again from 0 if the captures are read a second time.
    """

    def __init__(self, captures: Sequence[str]) -> None:
        super().__init__(total_bytes(captures))
        self._noun = "packets"

    def expect_records(self, total_bytes: int | None) -> None:
        """Take the size of the flow logs that the captures turn out to be."""
        self._total, self._noun = total_bytes, "records"

    def __call__(self, packets: int, nbytes: int) -> None:
        self.show(f"{packets:,} {self._noun}", nbytes)


def total_bytes(captures: Sequence[str]) -> int | None:
    """Return the total size of the captures, including the files in directories; None if one size is unknown."""
    total = 0
    for path in with_files_in(captures):
        if is_directory(path):
            continue
        if is_url(path):
            size, _ = url_identity(path)
            if size is None:
                return None
            total += size
            continue
        try:
            status = os.fstat(0) if path == "-" else os.stat(path)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        total += status.st_size
    return total
