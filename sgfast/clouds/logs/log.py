"""A flow log while it is read: its source, counts and complaints, the same for every format."""

from __future__ import annotations

import os
from calendar import monthrange
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import CaptureError, FlowLogError
from sgfast.base.names import printable
from sgfast.base.streams.binary_stream import STANDARD_INPUT, standard_input, wait_until_readable
from sgfast.base.streams.compression import MAGIC_LENGTH, compression_of
from sgfast.base.streams.decompressed import DecompressedStream
from sgfast.base.streams.urls import cause_of, is_url, modified_at, open_url
from sgfast.clouds.logs.columns import BATCH_ROWS, RECORD_DTYPE, RecordRow
from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.logs.tokenizer import WordNumbers
from sgfast.policy.yaml_nodes import UTF_16, UTF_16_MARKS

#: The bytes that decide the format.
HEAD = 1 << 16
#: Bytes read at a time.
BLOCK = 1 << 19
LONGEST_LINE = 1 << 16
#: The length from which a line counts as endless: the input is a device, or made to exhaust memory.
ENDLESS_LINE = 1 << 23
#: The number of lines from which on they must have this many bytes on average. Records have at least twice as many.
FIRST_LINES = 1 << 18
SHORTEST_LINE = 16
#: The limit for the broken lines that each get a message of their own.
LISTED_BROKEN = 10
#: The number of invalid lines, without any record, after which the file is refused as no flow log.
HOPELESS = 100
#: In so many years there is one with a February 29, whatever the century.
LEAP_YEARS = 9


class Log:
    """A flow log that can be read once. Iteration yields arrays of RECORD_DTYPE, each with at most ``BATCH_ROWS`` rows.

    ``path``: a path, a URL, or ``-``. ``format_of`` takes the first bytes. ``needs``: fields by AWS's names that every
    record must have. ``year``: the year of the first record, for logs whose times have none. Iterating raises
    FlowLogError if the file cannot be read or is not a flow log of a supported format. Other problems are in
    ``broken_lines``, ``complaints`` and ``damage``.
    """

    def __init__(
        self, path: str, format_of: Callable[[bytes], LogFormat], needs: Sequence[str] = (), year: int | None = None
    ) -> None:
        self.path = path
        self.name = STANDARD_INPUT if path == "-" else printable(path)
        self.needs = tuple(needs)
        self.year = year
        self._format_of = format_of
        #: The file's format; None before iteration.
        self.format: LogFormat | None = None
        #: The texts of interfaces, instances and rules, by number.
        self.words = WordNumbers()
        #: The numbers of records with traffic, of records without traffic, of records that the cloud lost, of broken
        #: lines, and of lines of other kinds, such as Zeek's other logs.
        self.records = 0
        self.nodata = 0
        self.skipdata = 0
        self.broken_lines = 0
        self.left_out = 0
        #: Messages about the first broken lines: file, line and cause.
        self.complaints: list[str] = []
        #: Place and cause if reading ended early.
        self.damage: str | None = None
        #: Sentences about what was assumed because the log does not say it.
        self.remarks: list[str] = []
        #: Bytes of the file read so far, before decompression.
        self.bytes_read = 0
        #: Whether it has no bytes at all.
        self.is_empty = False
        self._stream: Any = None
        self._head = b""
        self._line = 1

    @property
    def read(self) -> int:
        """Number of records read, of whatever status, broken ones included."""
        return self.records + self.nodata + self.skipdata + self.broken_lines

    @property
    def has_records(self) -> bool:
        """Whether any sound record was read, of whatever status."""
        return bool(self.records or self.nodata or self.skipdata)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        with ExitStack() as stack:
            self._open(stack)
            self.is_empty = not self._head
            self._head = self._head.removeprefix(BOM_UTF8)
            self.format = self._format_of(self._head)
            if not self.format.reader:
                raise unsupported(self.name, self.format)
            for name in self.needs:
                if name in self.format.lacks:
                    lack = self.format.lacks[name]
                    raise FlowLogError(f"{self.name}: is {self.format.name}: its records {lack}, which is needed here")
            yield from self.format.load_reader()(self)
        if self.broken_lines and not self.has_records:
            self._refuse()

    def year_of(self, month: int, day: int) -> int:
        """Return the year of the log's first record, which has this date. If nobody knows it, add a remark.

        It is then the last year in which the date was not after that of the file, as a log is written when things
        happen. Raises ValueError if there is no such date.
        """
        if self.year is not None:
            return self.year
        modified = self._modified()
        latest = modified or datetime.now(UTC)
        # The log's times may be those of another time zone.
        latest_day = (latest + timedelta(days=1)).replace(tzinfo=None)
        for year in range(latest_day.year, latest_day.year - LEAP_YEARS, -1):
            if _exists(year, month, day) and datetime(year, month, day) <= latest_day:
                year_source = "today is" if modified is None else "the file was last modified on"
                self.remarks.append(
                    f"{self.name}: its times have no year: its first record was taken for one of {year}, as "
                    f"{year_source} {latest:%Y-%m-%d}"
                )
                self.year = year
                return year
        raise ValueError(f"there is no day {day} in month {month}")

    def complain(self, line: int, cause: str, unit: str = "line") -> None:
        """Count a broken line. Raises FlowLogError if there were many and no record."""
        self.broken_lines += 1
        if len(self.complaints) < LISTED_BROKEN:
            self.complaints.append(f"{self.name}: {unit} {line}: {cause}")
        if self.broken_lines >= HOPELESS and not self.has_records:
            self._refuse()

    def blocks(self) -> Iterator[tuple[int, memoryview]]:
        """Yield whole lines: the number of the first one, and bytes that end with a line feed, valid until the next."""
        buffer = bytearray(BLOCK + 1)
        view = memoryview(buffer)
        held_bytes = skipped = length = 0
        while got := self._readinto(view[held_bytes:BLOCK]):
            end = held_bytes + got
            if skipped:
                held_bytes = buffer.find(b"\n", 0, end) + 1
                if not held_bytes:
                    skipped += end
                    if skipped > ENDLESS_LINE:
                        self.damage = f"{self.name}: line {self._line}: does not end within {ENDLESS_LINE >> 20} MiB"
                        return
                    continue
                self._line += 1
                skipped = 0
                buffer[: end - held_bytes] = buffer[held_bytes:end]
                end, held_bytes = end - held_bytes, 0
            last = buffer.rfind(b"\n", held_bytes, end) + 1
            if last:
                yield self._line, view[:last]
                self._line += int(np.count_nonzero(np.frombuffer(buffer, np.uint8, last) == ord("\n")))
                length += last
                if are_too_short(self._line, length):
                    self.damage = f"{self.name}: line {self._line}: so many lines in so few bytes are no flow log"
                    return
                buffer[: end - last] = buffer[last:end]
            held_bytes = end - last
            if held_bytes >= LONGEST_LINE:
                self.complain(self._line, TOO_LONG)
                held_bytes, skipped = 0, held_bytes
        # The last line before damage may be cut.
        if held_bytes and self.damage is None:
            buffer[held_bytes] = 10
            yield self._line, view[: held_bytes + 1]

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the number and text of each line that is not blank. Lines that are too long are broken."""
        for first, block in self.blocks():
            for number, line in enumerate(bytes(block).split(b"\n"), first):
                if len(line) >= LONGEST_LINE:
                    self.complain(number, TOO_LONG)
                elif line.strip():
                    yield number, line.decode("utf-8", "replace")

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes in pieces."""
        buffer = bytearray(BLOCK)
        while got := self._readinto(memoryview(buffer)):
            yield bytes(buffer[:got])

    def _refuse(self) -> None:
        raise FlowLogError(f"{self.complaints[0]}; this file contains no flow log record: is it a flow log?")

    def _open(self, stack: ExitStack) -> None:
        self._stream = self._source(stack)
        head = self._fill_head(HEAD)
        if head.startswith(UTF_16_MARKS):
            raise FlowLogError(f"{self.name}: {UTF_16}")
        compression = compression_of(head[:MAGIC_LENGTH])
        if compression is None:
            return
        try:
            self._stream = DecompressedStream(self._stream, compression, head, self.name)
        except CaptureError as error:
            raise FlowLogError(str(error)) from error
        stack.callback(self._stream.stop)
        self._head = b""
        inner_compression = compression_of(self._fill_head(HEAD)[:MAGIC_LENGTH])
        if inner_compression is not None:
            raise FlowLogError(
                f"{self.name}: is {inner_compression.name}-compressed, and {compression.name}-compressed once more: "
                f"decompress it first ({compression.command} FILE | sgfast ... -)"
            )

    def _source(self, stack: ExitStack) -> Any:
        if self.path == "-":
            stream = standard_input()
            if stream is None:
                raise FlowLogError(f"{self.name}: is closed or has no bytes; name a flow log instead of -")
            return stream
        try:
            if is_url(self.path):
                stream = open_url(self.path)
                stack.callback(stream.close)
                return stream
            return stack.enter_context(open(self.path, "rb", buffering=0))
        except CaptureError as error:
            raise FlowLogError(str(error)) from error
        except OSError as error:
            raise self._unreadable(error) from error
        except ValueError as error:
            raise FlowLogError(f"{self.name}: cannot be read: {error}") from error

    def _modified(self) -> datetime | None:
        if self.path == "-":
            return None
        if is_url(self.path):
            return modified_at(self.path)
        try:
            return datetime.fromtimestamp(os.stat(self.path).st_mtime, UTC)
        except (OSError, ValueError, OverflowError):
            return None

    def _fill_head(self, length: int) -> bytes:
        piece = bytearray(length)
        while len(self._head) < length and (got := self._read_stream(memoryview(piece)[: length - len(self._head)])):
            self._head += piece[:got]
        return self._head

    def _readinto(self, view: memoryview) -> int:
        if self._head:
            got = min(len(view), len(self._head))
            view[:got] = self._head[:got]
            self._head = self._head[got:]
            return got
        return self._read_stream(view)

    def _read_stream(self, view: memoryview) -> int:
        if self.damage is not None:
            return 0
        try:
            while (got := self._stream.readinto(view)) is None:
                wait_until_readable(self._stream)
            bytes_taken = getattr(self._stream, "bytes_taken", None)
            self.bytes_read = self.bytes_read + got if bytes_taken is None else bytes_taken
            return int(got)
        except OSError as error:
            if not self._head and not self.read:
                raise self._unreadable(error) from error
            self.damage = f"{self.name}: line {self._line}: reading failed: {cause_of(error, self.path)}"
        except ValueError as error:
            self.damage = f"{self.name}: line {self._line}: the compressed data is damaged: {error}"
        return 0

    def _unreadable(self, error: OSError) -> FlowLogError:
        return FlowLogError(f"{self.name}: cannot be read: {cause_of(error, self.path)}")


def unsupported(name: str, known: LogFormat) -> FlowLogError:
    """Return the error for a log of a format that is only recognised."""
    return FlowLogError(f"{name}: is {known.name}, which sgfast does not read yet")


def are_too_short(lines: int, length: int) -> bool:
    """Return whether lines that have ``length`` bytes together are no records. Their bytes take far longer to read."""
    return lines > FIRST_LINES + length // SHORTEST_LINE


def _exists(year: int, month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]


TOO_LONG = f"is longer than {LONGEST_LINE} bytes"


def empty_rows() -> NDArray[Any]:
    """Return memory for a batch of rows."""
    return np.empty(BATCH_ROWS, RECORD_DTYPE)


def batches(log: Log, rows: Iterable[RecordRow]) -> Iterator[NDArray[Any]]:
    """Count rows that Python made, and yield them as arrays."""
    batch = bytearray()
    for row in rows:
        log.records += 1
        batch += row.packed()
        if len(batch) == BATCH_ROWS * RECORD_DTYPE.itemsize:
            yield np.frombuffer(batch, RECORD_DTYPE)
            batch = bytearray()
    if batch:
        yield np.frombuffer(batch, RECORD_DTYPE)
