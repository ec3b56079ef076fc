"""Find flow logs: tell them from captures by their content, and list those in folders and stores.

A day of a company is 100,000 objects in folders by date. So a name as a provider gives it (``LogPaths``) is believed:
such a file is not opened here, and the time in its name says when its records begin. Other files are opened, and closed
again after their first bytes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from typing import Any, NamedTuple

from sgfast.base.errors import FlowLogError, SgfastError
from sgfast.base.names import listed, printable
from sgfast.base.streams.binary_stream import STANDARD_INPUT, peek_standard_input
from sgfast.base.streams.compression import MAGIC_LENGTH, Decompressor, compression_of
from sgfast.base.streams.urls import cause_of, filesystem_of, is_url, is_web_url, open_url
from sgfast.clouds.logs.detection import recognised, start_in_head
from sgfast.clouds.logs.log import HEAD, unsupported
from sgfast.clouds.logs.log_format import LogFormat, load_function
from sgfast.clouds.providers import PROVIDERS
from sgfast.traffic.capture.directories import files_in, is_directory, is_pattern, natural
from sgfast.traffic.capture.reader import begins_capture

#: Bytes of a file of bzip2 that are read to have its first block.
BZIP2_BLOCK = 1 << 20
#: Patterns that mean everything in a folder.
_EVERYTHING = re.compile(r"(?:(.*)/)?\*\*(?:/\*)?")
#: Names of compressed files.
_COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|zst|lz4)$")
#: The most files of a directory that are opened to find out what it holds.
_FILES_LOOKED_AT = 100
#: The lines that show whether a file is one of records, and what these have at least. Headers have fewer numbers.
_LINES_LOOKED_AT = 100
FEWEST_ADDRESSES, FEWEST_NUMBERS = 2, 4
_BETWEEN_WORDS = re.compile(r"[\s,;|=\"'()\[\]{}]+")

#: The names of logs and folders, for each provider whose names have times.
_LOG_PATHS = [provider.log_paths for provider in PROVIDERS if provider.log_paths is not None]


class LogSource(NamedTuple):
    path: str
    #: Unix time in ns at which the records begin, as far as it is known; None: unknown.
    begins_ns: int | None


class LogSources(NamedTuple):
    logs: list[LogSource]
    warnings: list[str]
    #: The sizes of the logs as they are stored, by path; None: it is unknown.
    sizes: dict[str, int | None]
    #: Files that seem to be logs, and cannot be read, with their sizes.
    unread: dict[str, int | None]

    @property
    def total_bytes(self) -> int | None:
        """The total size of the logs. None if the size of one log is unknown."""
        known_sizes = [size for size in self.sizes.values() if size is not None]
        return sum(known_sizes) if len(known_sizes) == len(self.sizes) else None


class _Entry(NamedTuple):
    path: str
    is_regular: bool
    size: int | None = None


def is_flow_log(path: str) -> bool | None:
    """Return True for a flow log and False for a capture; None: it is neither, or cannot be read.

    The content decides. Nothing is lost of standard input, whose first bytes are read again by whoever opens it next.
    A pipe with a name is not opened, as its bytes would be lost.
    """
    try:
        look = _look(path)
    except (SgfastError, OSError, ValueError):
        return None
    return False if look.is_capture else None if look.format is None else True


def kind_of_traffic(path: str) -> str | None:
    """Return ``captures`` or ``flow logs`` if a file, or one of the first files of a directory, is one; else None. URLs
    and standard input are not read.
    """
    if path == "-" or is_url(path):
        return None
    paths = [path]
    try:
        if is_directory(path):
            with os.scandir(path) as entries:
                paths = [entry.path for entry in islice(entries, _FILES_LOOKED_AT) if entry.is_file()]
    except OSError:
        return None
    kinds = [is_flow_log(path) for path in paths]
    return "flow logs" if True in kinds else "captures" if False in kinds else None


def logs_in(paths: Sequence[str], start_ns: int | None = None, end_ns: int | None = None) -> LogSources | None:
    """Return the flow logs that ``paths`` mean, each once, or None if ``paths`` mean no flow logs.

    A path is a file, a URL, ``-``, a directory with all directories in it, or a pattern. A directory that holds a
    capture, or a pattern that matches one, means captures. Files whose paths say that no record is between ``start_ns``
    and ``end_ns`` are left out. Raises FlowLogError for files that cannot be read, for logs of formats that are only
    recognised, and if only some of ``paths`` mean flow logs.
    """
    finding = _Finding(start_ns, end_ns)
    for path in paths:
        if is_directory(path):
            finding.add_directory(path)
        else:
            finding.add_file(path)
    return finding.result()


class _Finding:
    def __init__(self, start_ns: int | None, end_ns: int | None) -> None:
        self._period = _Period(start_ns, end_ns)
        self._logs: list[LogSource] = []
        self._sizes: dict[str, int | None] = {}
        self._warnings: list[str] = []
        self._unread: list[str] = []
        #: Some path that means flow logs, what the paths are that mean none, and those that cannot be read.
        self._example = ""
        self._other_files: list[str] = []
        self._unreadable: list[str] = []

    def add_file(self, path: str) -> None:
        name = STANDARD_INPUT if path == "-" else printable(path)
        self._sizes[path] = _size_of(path)
        if self._add_named(path, self._logs):
            return
        try:
            look = _look(path)
        except (SgfastError, OSError, ValueError) as error:
            self._unreadable.append(str(error) if isinstance(error, SgfastError) else _unreadable(path, error))
            return
        if look.is_capture:
            self._other_files.append(f"{name}: is a capture")
        elif look.format is None:
            self._other_files.append(f"{name}: is no flow log")
        else:
            self._example = self._example or name
            if not self._period.leaves_out(path):
                self._logs.append(_source(path, look.format, look.head))

    def add_directory(self, path: str) -> None:
        logs: list[LogSource] = []
        other_files: list[str] = []
        unread: list[str] = []
        before = self._example
        self._period.is_narrowing = False
        matches_all = is_pattern(path)
        for (file, is_regular, size), is_direct in _files(path, self._period):
            self._sizes[file] = size
            if is_regular and self._add_named(file, logs):
                continue
            try:
                look = _look(file) if is_regular else _NO_LOG
            except (OSError, ValueError) as error:
                raise FlowLogError(_unreadable(file, error)) from error
            if look.is_capture and (is_direct or matches_all):
                self._example = before
                self._other_files.append(f"{printable(path)}: has captures")
                return
            # Zeek writes its other logs beside conn.log.
            if look.format is None or look.format.has_no_flows:
                other_files.append(file)
                is_named_log = any(log_paths.file_name.search(file) for log_paths in _LOG_PATHS)
                unread += [file] if look.seems_log or is_named_log else []
            else:
                logs.append(_source(file, look.format, look.head))
        if logs or self._period.is_narrowing:
            self._example = self._example or printable(logs[0].path if logs else path)
        else:
            self._other_files.append(f"{printable(path)}: has no flow logs")
        self._logs += logs
        self._unread += unread
        if logs and other_files:
            self._warnings.append(f"{printable(path)}: left out, as they are no flow logs: {listed(other_files)}")

    def result(self) -> LogSources | None:
        if not self._example:
            return None
        if self._unreadable:
            raise FlowLogError(self._unreadable[0])
        if self._other_files:
            raise FlowLogError(
                f"{self._other_files[0]}, but {self._example} is a flow log: give only flow logs, or only captures"
            )
        once: dict[str, LogSource] = {}
        real_folder = lru_cache(1 << 10)(os.path.realpath)
        for log in self._logs:
            identity = log.path
            if log.path != "-" and not is_url(log.path):
                folder, name = os.path.split(log.path)
                is_link = os.path.islink(log.path)
                identity = os.path.realpath(log.path) if is_link else os.path.join(real_folder(folder), name)
            once.setdefault(identity, log)
        sizes, unread = ({path: self._sizes[path] for path in paths} for paths in (
            [log.path for log in once.values()], self._unread
        ))  # fmt: skip
        return LogSources(list(once.values()), self._warnings, sizes, unread)

    def _add_named(self, path: str, logs: list[LogSource]) -> bool:
        """Add a file whose name says that it is a flow log and of which time. Return False if it does not."""
        start = next((start for log_paths in _LOG_PATHS if (start := log_paths.first_start(path))), None)
        if start is None:
            return False
        self._example = self._example or printable(path)
        if not self._period.leaves_out(path):
            logs.append(LogSource(path, _in_ns(start)))
        return True


# The content of files ------------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    is_capture: bool
    #: None: the file is no flow log.
    format: LogFormat | None
    #: The first bytes, decompressed.
    head: bytes
    #: Whether it is neither, but damaged, or of lines like records.
    seems_log: bool = False


#: A file that is certainly no log.
_NO_LOG = _Look(False, None, b"")


def _look(path: str) -> _Look:
    """Look at the first bytes. Raises OSError, ValueError or CaptureError if they cannot be read."""
    if path == "-":
        def is_enough(raw: bytes) -> bool:
            look = _look_at(_decompressed(raw, STANDARD_INPUT)[0])
            return look.is_capture or look.format is not None

        return _look_at(_decompressed(peek_standard_input(HEAD, is_enough), STANDARD_INPUT)[0])
    with ExitStack() as stack:
        if is_url(path):
            file: Any = open_url(path, at_any_place=not is_web_url(path))
            stack.callback(file.close)
        else:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return _NO_LOG
            file = stack.enter_context(open(path, "rb", buffering=0))
        raw = _read(file, HEAD)
        compression = compression_of(raw[:MAGIC_LENGTH])
        if compression is not None and compression.name == "bzip2" and len(raw) == HEAD:
            raw += _read(file, BZIP2_BLOCK - HEAD)
        head, is_damaged = _decompressed(raw, path)
        look = _look_at(head)
        file_check = look.format.file_check if look.format is not None else ""
        if file_check and not is_web_url(path) and not load_function(file_check)(file):
            return _NO_LOG
        if look.is_capture or (look.format is not None and not look.format.has_no_flows):
            return look
        is_damaged |= compression is None and _COMPRESSED.search(path) is not None
        return look._replace(seems_log=is_damaged or _are_like_records(head))


def _look_at(head: bytes) -> _Look:
    return _Look(True, None, head) if begins_capture(head) else _Look(False, recognised(head), head)


def _read(file: Any, length: int) -> bytes:
    data = b""
    piece = memoryview(bytearray(length))
    while len(data) < length and (got := file.readinto(piece[: length - len(data)])):
        data += piece[:got]
    return data


def _are_like_records(head: bytes) -> bool:
    """Return whether half of the first lines have two addresses and four numbers, as records of any format do."""
    lines = [line.decode("utf-8", "replace") for line in head.split(b"\n", _LINES_LOOKED_AT)[:_LINES_LOOKED_AT]]
    lines = [line for line in lines if line.strip() and not line.startswith("#") and "NODATA" not in line]
    alike = 0
    for line in lines:
        words = [word for word in _BETWEEN_WORDS.split(line) if word]
        addresses = sum(map(_is_address, words))
        alike += addresses >= FEWEST_ADDRESSES and sum(map(_is_number, words)) >= FEWEST_NUMBERS
    return 2 * alike >= max(len(lines), 1)


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _is_number(word: str) -> bool:
    return word.isascii() and word.replace(".", "", 1).isdigit()


def _decompressed(raw: bytes, name: str) -> tuple[bytes, bool]:
    """Return the first bytes of a file, decompressed as far as they are sound, and whether there is damage in them."""
    compression = compression_of(raw[:MAGIC_LENGTH])
    if compression is None:
        return raw, False
    decompressor = Decompressor(compression, name)
    head = decompressor.advance(raw, len(raw))
    while not (decompressor.ended or decompressor.needs_input) and len(head) < HEAD:
        head += decompressor.advance(None, len(raw))
    if decompressor.needs_input and len(raw) < HEAD:
        decompressor.advance(b"", len(raw))
    return head[:HEAD], decompressor.failure is not None


def _source(path: str, log_format: LogFormat, head: bytes) -> LogSource:
    """Return a log with its time. Raises FlowLogError if its format is only recognised."""
    if not log_format.reader:
        raise unsupported(STANDARD_INPUT if path == "-" else printable(path), log_format)
    if log_format.start_finder:
        return LogSource(path, load_function(log_format.start_finder)(path, head))
    return LogSource(path, start_in_head(path, log_format, head))


# Folders, and the times in paths -------------------------------------------------------------------------------------


class _Period:
    """The time of which records are wanted."""

    def __init__(self, start_ns: int | None, end_ns: int | None) -> None:
        self._start_ns, self._end_ns = start_ns, end_ns
        #: Whether a path was left out.
        self.is_narrowing = False

    def leaves_out(self, path: str) -> bool:
        """Return whether a file, or all files of a folder, have no record of this time, as their path says."""
        if self._start_ns is None and self._end_ns is None:
            return False
        times = next((times for log_paths in _LOG_PATHS if (times := log_paths.start_range(path))), None)
        if times is None:
            return False
        first, last = times
        is_outside = (self._start_ns is not None and _in_ns(last) < self._start_ns) or (
            self._end_ns is not None and _in_ns(first) > self._end_ns
        )
        self.is_narrowing |= is_outside
        return is_outside


def _in_ns(moment: datetime) -> int:
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000


def _files(path: str, period: _Period) -> Iterator[tuple[_Entry, bool]]:
    """Yield the files in a directory and in all directories in it, or those that a pattern matches, in natural order.

    With each, whether it is directly in the directory. Hidden entries are ignored, and folders that have no records of
    the time.
    """
    everything = _EVERYTHING.fullmatch(path) if is_pattern(path) else None
    root = "" if everything is None else everything[1] or ""
    if everything is not None and not is_pattern(root or ".") and is_url(root) == is_url(path):
        path = root
    elif everything is not None or is_pattern(path):
        yield from ((_Entry(file, True, _size_of(file)), False) for file in files_in(path)[0])
        return
    folders = [path]
    while folders:
        folder = folders.pop()
        files, inner = _entries_of_url(folder) if is_url(folder) else _entries(folder)
        yield from ((file, folder == path) for file in sorted(files, key=_by_name))
        folders += reversed(sorted((folder for folder in inner if not period.leaves_out(folder)), key=natural))


def _by_name(file: _Entry) -> tuple[tuple[str, int], ...]:
    return natural(file.path)


def _entries(folder: str) -> tuple[list[_Entry], list[str]]:
    """Return the files in a folder and the folders in it."""
    files, folders = [], []
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if entry.name.startswith("."):
                    continue
                # Links to folders are not followed: they may lead in circles.
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif not os.path.isdir(path):
                    files.append(_local(path))
    except OSError as error:
        raise FlowLogError(_unreadable(folder or ".", error)) from error
    return files, folders


def _entries_of_url(folder: str) -> tuple[list[_Entry], list[str]]:
    system, inner = filesystem_of(folder)
    try:
        entries = system.ls(inner, detail=True)
    except FileNotFoundError:
        return [], []
    except Exception as error:
        raise FlowLogError(_unreadable(folder, error)) from error
    files, folders = [], []
    for entry in entries:
        name = str(entry["name"]).rstrip("/")
        # Stores may have an object of the folder's name, which marks it.
        if name == inner.rstrip("/") or name.rpartition("/")[2].startswith("."):
            continue
        if entry["type"] == "directory":
            folders.append(system.unstrip_protocol(name))
        else:
            size = entry.get("size")
            files.append(_Entry(system.unstrip_protocol(name), True, size if isinstance(size, int) else None))
    return files, folders


def _local(path: str) -> _Entry:
    size = _size_of(path)
    return _Entry(path, size is not None, size)


def _size_of(path: str) -> int | None:
    """Return the size of a regular local file, and None for all else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _unreadable(path: str, error: Exception) -> str:
    return f"{printable(path)}: cannot be read: {cause_of(error, path)}"
