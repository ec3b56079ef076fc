"""Read many flow logs as one, merged by time.

A heap holds the files that are open, by the earliest start of a record that each has at hand. Its first file hands out
records up to the next file's earliest start, but at least those of a turn. A file is opened when the merge reaches its
beginning, and closed at its end, so that memory does not grow with the number of files.

So a record comes before all those of other files that start more than a turn later, with three exceptions. A file may
not be in the order of time: only the records of each of its batches are sorted. If a file begins earlier than its
source says, its first records come late. If more than MOST_OPEN files overlap in time, the one that was opened first is
read to its end, and its records come before those of the others. With files of five minutes, as AWS writes them, that
is early by a few minutes, and with files of a day by up to a day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import FlowLogError
from sgfast.base.names import printable, without_credentials
from sgfast.base.streams.binary_stream import STANDARD_INPUT
from sgfast.clouds.logs.columns import NS_PER_SECOND, UNKNOWN
from sgfast.clouds.logs.detection import open_log
from sgfast.clouds.logs.log import LISTED_BROKEN, Log
from sgfast.clouds.logs.log_format import UnloggedService
from sgfast.clouds.logs.tokenizer import WordNumbers

#: The most files that are open at a time. Each takes a descriptor and up to 2 MB.
MOST_OPEN = 200
#: Records of so much time are handed out at once, although other files may have earlier ones among them. Shorter turns
#: make arrays of few records. Whoever reads them lets each record wait for far longer (SPEC 10.30).
HANDED_OUT_NS = 600 * NS_PER_SECOND

_NEVER = 1 << 63

#: The names of a log's counts.
_COUNTS = ("records", "nodata", "skipdata", "broken_lines", "left_out", "bytes_read")


@dataclass(slots=True)
class _Open:
    log: Log
    #: The log's place in ``files``, from 1.
    number: int
    batches: Iterator[NDArray[Any]]
    #: The records at hand, never none, by their starts. Those whose start is unknown come first.
    rows: NDArray[Any]
    #: The earliest start among them, in ns, if it is known. Otherwise that of earlier records.
    earliest_ns: int

    def load(self) -> None:
        """Load the next records. Raises StopIteration at the end, and FlowLogError if the log cannot be read."""
        rows = next(self.batches)
        starts = rows["start_ns"]
        # Zeek writes a connection when it ends: one of hours stands among others that began later.
        self.rows = rows if (starts[1:] >= starts[:-1]).all() else rows[np.argsort(starts, kind="stable")]
        self.look()

    def look(self) -> None:
        starts = self.rows["start_ns"]
        known_starts = starts[starts != UNKNOWN]
        if len(known_starts):
            self.earliest_ns = int(known_starts[0])

    def take(self, until_ns: int) -> NDArray[Any]:
        """Take the records that start until then. Those whose start is unknown count as earlier."""
        count = int(np.searchsorted(self.rows["start_ns"], until_ns, side="right"))
        due_rows, self.rows = self.rows[:count], self.rows[count:]
        return due_rows


class MergedLogs:
    """Iterate over the records of several logs: the log's place in ``files``, from 1, its path, and an array of
    RECORD_DTYPE with some of its records. All logs number words alike.

    ``sources``: path and time of the first record of each log in ns, as ``logs_in`` finds them; None: unknown.
    ``needs``: as for ``open_log``, which ``opening`` may replace. Arrays stay valid. Iteration is possible once.

    Iterating raises FlowLogError if a log cannot be read, before it yields anything. Afterwards such a log is damage,
    and the others are read on.
    """

    def __init__(
        self, sources: Iterable[tuple[str, int | None]], *, needs: Sequence[str] = (),
        opening: Callable[..., Any] = open_log,
    ) -> None:  # fmt: skip
        self._needed_fields = tuple(needs)
        self._opening = opening
        #: The words of all logs by number: interfaces and others.
        self.words = WordNumbers()
        paths_and_times = list(sources)
        self._paths = [path for path, _ in paths_and_times]
        # The order is reversed, so that pop() returns the earliest log.
        self._waiting = sorted(
            ((-1 if begins_ns is None else begins_ns, place) for place, (_, begins_ns) in enumerate(paths_and_times)),
            reverse=True,
        )
        self._open: dict[int, _Open] = {}
        self._heap: list[tuple[int, int]] = []
        self._counts: Counter[str] = Counter()
        self._has_yielded = False
        #: The paths of the logs in the order in which they were opened. URLs are without credentials.
        self.files: list[str] = []
        #: The number of logs opened so far, by what they were taken for.
        self.formats: Counter[str] = Counter()
        #: Whether all logs opened so far show answers, and whether any of them should name interfaces.
        self.shows_answers = True
        self.names_interfaces = False
        #: The services that are never logged, each with a sentence about it and others.
        self.unlogged: dict[UnloggedService, str] = {}
        #: Whether a log has only TCP, UDP and ICMP.
        self.lacks_protocols = False
        #: The first messages about broken lines, about logs whose reading ended early, and about what was assumed.
        self.complaints: list[str] = []
        self.damage: list[str] = []
        self.remarks: list[str] = []
        #: The bytes read of each log whose reading ended early, by path. They may be more logs than ``damage`` lists.
        self.bytes_of_damaged: dict[str, int] = {}

    def __iter__(self) -> Iterator[tuple[int, str, NDArray[Any]]]:
        try:
            while True:
                yield from self._open_those_due()
                if not self._heap:
                    return
                _, place = heappop(self._heap)
                opened = self._open[place]
                rows = opened.take(max(opened.earliest_ns + HANDED_OUT_NS, self._next_ns()))
                if len(opened.rows):
                    opened.look()
                    self._push(place)
                yield self._handed_out(opened, rows)
                if not len(opened.rows) and self._load(place, opened):
                    self._push(place)
        finally:
            for place in list(self._open):
                self._close(place)

    @property
    def records(self) -> int:
        """Number of records with traffic."""
        return self._count("records")

    @property
    def nodata(self) -> int:
        """Number of records without traffic."""
        return self._count("nodata")

    @property
    def skipdata(self) -> int:
        """Number of records that the cloud lost."""
        return self._count("skipdata")

    @property
    def broken_lines(self) -> int:
        return self._count("broken_lines")

    @property
    def left_out(self) -> int:
        """Number of lines of other kinds."""
        return self._count("left_out")

    @property
    def read(self) -> int:
        """Number of records read, of whatever status, broken ones included."""
        return self.records + self.nodata + self.skipdata + self.broken_lines

    @property
    def damaged(self) -> int:
        """Number of logs whose reading ended early."""
        return len(self.bytes_of_damaged)

    @property
    def bytes_read(self) -> int:
        """Bytes of the files read so far, before decompression."""
        return self._count("bytes_read")

    def _count(self, name: str) -> int:
        here: int = sum(getattr(opened.log, name) for opened in self._open.values())
        return self._counts[name] + here

    def _next_ns(self) -> int:
        """Return the earliest time of the logs in the heap and of those that are not open."""
        return min(self._heap[0][0] if self._heap else _NEVER, self._waiting[-1][0] if self._waiting else _NEVER)

    def _push(self, place: int) -> None:
        heappush(self._heap, (self._open[place].earliest_ns, place))

    def _open_those_due(self) -> Iterator[tuple[int, str, NDArray[Any]]]:
        """Open the logs that may have the next record. If there are too many, yield all records of one before."""
        while self._waiting and (not self._heap or self._waiting[-1][0] <= self._heap[0][0]):
            if len(self._open) >= MOST_OPEN:
                yield from self._read_at_once(next(iter(self._open)))
            begins_ns, place = self._waiting.pop()
            path = self._paths[place]
            log = self._opening(path, needs=self._needed_fields)
            log.words = self.words
            self.files.append(STANDARD_INPUT if path == "-" else without_credentials(path))
            opened = _Open(log, len(self.files), iter(log), np.empty(0), begins_ns)
            self._open[place] = opened
            has_rows = self._load(place, opened)
            if log.format is not None:
                self.formats[log.format.name] += 1
                self.shows_answers &= log.format.shows_answers
                self.names_interfaces |= log.format.names_interfaces
                self.unlogged |= {service: log.format.unlogged_words for service in log.format.unlogged_services}
                self.lacks_protocols |= log.format.lacks_protocols
            if has_rows:
                self._push(place)

    def _read_at_once(self, place: int) -> Iterator[tuple[int, str, NDArray[Any]]]:
        self._heap = [entry for entry in self._heap if entry[1] != place]
        heapify(self._heap)
        opened = self._open[place]
        while True:
            yield self._handed_out(opened, opened.rows)
            if not self._load(place, opened):
                return

    def _handed_out(self, opened: _Open, rows: NDArray[Any]) -> tuple[int, str, NDArray[Any]]:
        self._has_yielded = True
        return opened.number, opened.log.path, rows

    def _load(self, place: int, opened: _Open) -> bool:
        """Load the next records of a log. At its end, close it and return False."""
        try:
            opened.load()
        except StopIteration:
            # A cloud writes no file without records.
            if opened.log.is_empty and opened.log.damage is None:
                opened.log.damage = f"{printable(opened.log.path)}: is empty"
            self._close(place)
            return False
        except FlowLogError as error:
            if not self._has_yielded:
                raise
            opened.log.damage = str(error)
            self._close(place)
            return False
        return True

    def _close(self, place: int) -> None:
        opened = self._open.pop(place)
        opened.batches.close()      # type: ignore[attr-defined]
        log = opened.log
        for name in _COUNTS:
            self._counts[name] += getattr(log, name)
        if log.damage is not None:
            self.bytes_of_damaged[log.path] = log.bytes_read if log.records else 0
            self.damage += [log.damage] if len(self.damage) < LISTED_BROKEN else []
        self.complaints += log.complaints[: LISTED_BROKEN - len(self.complaints)]
        self.remarks += log.remarks[: LISTED_BROKEN - len(self.remarks)]
