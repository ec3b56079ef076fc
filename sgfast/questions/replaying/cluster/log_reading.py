"""Read flow logs on a cluster: workers read files, and this machine makes traffic of the records and judges it.

So the records arrive as they do when one process reads the logs, and the answer is the same. Only files of usual size
are sent to workers: a worker answers with all records of a file at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import ClusterError, FlowLogError
from sgfast.base.streams.urls import is_url
from sgfast.clouds.logs.columns import UNKNOWN
from sgfast.clouds.logs.detection import open_log
from sgfast.clouds.logs.log import Log
from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.logs.tokenizer import WordNumbers
from sgfast.questions.replaying.cluster.scheduler import Cluster
from sgfast.traffic.flow_logs.sources import LogSource
from sgfast.version import __version__

#: Bytes of a file from which on this machine reads it. AWS writes files of up to 75 MB.
MOST_BYTES = 100 << 20
#: Files that are read ahead for each thread of the cluster.
AHEAD = 2

#: The columns of words.
_WORDS = ("interface", "instance", "rule")


@dataclass(slots=True)
class FetchedLog:
    """A log that a worker read, for ``MergedLogs``. Attributes are those of ``Log``."""

    path: str
    format: LogFormat | None
    #: The records in the batches in which the log yields them: what is decided together depends on these.
    batches: list[NDArray[Any]]
    texts: list[str]
    idle: list[str]
    records: int
    nodata: int
    skipdata: int
    broken_lines: int
    left_out: int
    bytes_read: int
    is_empty: bool
    complaints: list[str]
    remarks: list[str]
    damage: str | None
    #: The message of the error that reading raised; None if it raised none.
    error: str | None
    #: Numbers of words, which ``MergedLogs`` shares among all logs.
    words: WordNumbers | None = None

    def __iter__(self) -> Iterator[NDArray[Any]]:
        if self.error is not None:
            raise FlowLogError(self.error)
        if self.words is None:
            return
        numbers = [self.words.number_of(text.encode("utf-8", "surrogateescape")) for text in self.texts]
        renumbered = np.array([*numbers, UNKNOWN], dtype=np.int32)      # UNKNOWN is the last one's index, too
        for text in self.idle:
            self.words.note_idle(text.encode("utf-8", "surrogateescape"))
        for rows in self.batches:
            for name in _WORDS:
                rows[name] = np.take(renumbered, rows[name])
            yield rows


def fetch(path: str, needs: tuple[str, ...], version: str) -> FetchedLog:
    """Read a log, as a task."""
    if version != __version__:
        raise ClusterError(f"a worker has another version of sgfast, {__version__}: install the same")
    log = open_log(path, needs=needs)
    batches, error = [], None
    try:
        batches = [batch.copy() for batch in log]
    except FlowLogError as raised:
        error = str(raised)
    return FetchedLog(
        path, log.format, batches, [log.words[n] for n in range(len(log.words))], log.words.idle,
        log.records, log.nodata, log.skipdata, log.broken_lines, log.left_out, log.bytes_read, log.is_empty,
        log.complaints, log.remarks, log.damage, error,
    )  # fmt: skip


class ClusterLogs:
    """Open logs in the order of ``sources`` sorted by time, as ``MergedLogs`` does, of which workers read most."""

    def __init__(self, cluster: Cluster, sources: Sequence[LogSource]) -> None:
        self._cluster = cluster
        # MergedLogs opens them in this order.
        self._paths = [
            path for path, begins_ns in sorted(sources, key=lambda source: -1 if source[1] is None else source[1])
            if _is_sent(path)
        ]  # fmt: skip
        self._fetched: Iterator[FetchedLog] | None = None

    def open(self, path: str, *, needs: Sequence[str] = ()) -> Log | FetchedLog:
        """Return a log that can be read once."""
        if not _is_sent(path):
            return open_log(path, needs=needs)
        if self._fetched is None:
            calls = ((os.path.basename(path), (path, tuple(needs), __version__)) for path in self._paths)
            self._fetched = self._cluster.in_order("read", fetch, calls, AHEAD * self._cluster.threads)
        log = next(self._fetched)
        assert log.path == path
        return log


def _is_sent(path: str) -> bool:
    """Return whether workers read a file: standard input and large files are read here."""
    if path == "-":
        return False
    try:
        return is_url(path) or os.stat(path).st_size <= MOST_BYTES
    except (OSError, ValueError):
        return True
