"""Directories of captures, such as ``tcpdump -C`` and ``-G`` write, and patterns such as ``day/**/*.pcap*``."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from glob import glob, has_magic

from sgfast.base.errors import CaptureError, NoCapture
from sgfast.base.names import listed, printable
from sgfast.base.streams.urls import is_url, is_url_directory, is_web_url, url_identity, urls_in
from sgfast.traffic.capture.reader import open_capture

#: Names of captures. ``tcpdump -C`` numbers them behind the ending.
_CAPTURE_NAME = re.compile(r"\.(?:pcap(?:ng)?|cap|snoop)\d*(?:\.(?:gz|bz2|xz|zst|lz4))?$", re.IGNORECASE)


def is_pattern(path: str) -> bool:
    """Return whether ``path`` is a glob pattern. Paths of existing files and URLs of web servers are not."""
    if path == "-" or not has_magic(path) or is_web_url(path):
        return False
    return is_url(path) or not os.path.lexists(path.replace("\0", ""))


def is_directory(path: str) -> bool:
    """Return whether ``path`` names several captures: a directory or a pattern."""
    if path == "-":
        return False
    if is_pattern(path):
        return True
    return is_url_directory(path) if is_url(path) else os.path.isdir(path.replace("\0", ""))


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Return a sort key that puts ``a9`` before ``a10``, the order in which tcpdump numbers files."""
    parts = re.split("([0-9]+)", name)
    return tuple((text, int(number or 0)) for text, number in zip(parts[::2], [*parts[1::2], ""], strict=True))


def files_in(path: str) -> tuple[list[str], list[str]]:
    """Return the regular files in a directory or matched by a pattern, and the names of other directory entries.

    Both lists are in natural order. Hidden entries are ignored. Raises CaptureError if a directory cannot be read, or a
    pattern leads into so many folders in each other that Python cannot follow.
    """
    files: list[str] = []
    other_files: list[str] = []
    if is_url(path):
        return sorted(urls_in(path, is_pattern=is_pattern(path)), key=natural), []
    if is_pattern(path):
        try:
            return sorted(filter(os.path.isfile, glob(path, recursive=True)), key=natural), []
        except RecursionError:
            cause = "is a pattern for too many folders in each other; write one that begins further down"
            raise CaptureError(f"{printable(path)}: {cause}") from None
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                (files if _is_file(entry) else other_files).append(entry.name)
    except OSError as error:
        raise CaptureError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    return [os.path.join(path, name) for name in sorted(files, key=natural)], sorted(other_files, key=natural)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        # A symbolic link to itself is treated like a dangling link.
        if error.errno == errno.ELOOP:
            return False
        raise


def size_of(path: str) -> int | None:
    """Return the size of a regular file or of the file at a URL, in bytes; None: it is unknown."""
    if is_url(path):
        return url_identity(path)[0]
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def with_files_in(paths: Sequence[str]) -> list[str]:
    """Return ``paths``, plus the files in the readable directories among them."""
    files = list(paths)
    for path in filter(is_directory, paths):
        try:
            files += files_in(path)[0]
        except CaptureError:
            continue        # reported when the directory is opened
    return files


def first_time_ns(path: str) -> int | None:
    """Return the time of the first packet; None without packets, damaged or not. Errors as in ``open_capture``."""
    with open_capture(path) as reader:
        batch = reader.next_batch()
        return None if batch is None else next(iter(batch))[0]


def captures_in(path: str) -> tuple[list[tuple[str, int | None]], list[str], str | None]:
    """Return the captures in a directory, other files that have a capture's name, and a warning about all other files,
    or None.

    Each capture has the time of its first packet. Captures are sorted by that time, then by name. Raises CaptureError
    if a capture cannot be used or there is no capture.
    """
    files, other_names = files_in(path)
    captures, unread_files = [], []
    for file in files:
        try:
            captures.append((file, first_time_ns(file)))
        except NoCapture:
            name = os.path.basename(file)
            other_names.append(name)
            if _CAPTURE_NAME.search(name):
                unread_files.append(file)
    if not captures:
        means = "is a pattern that matches" if is_pattern(path) else "is a directory that holds"
        cause = f"{means} no captures and no flow logs"
        raise CaptureError(f"{printable(path)}: {cause}; name one that does, or a file")
    # The sort is stable: captures with equal times stay in the order of their names.
    captures.sort(key=lambda capture: (capture[1] is not None, capture[1] or 0))
    if not other_names:
        return captures, unread_files, None
    warning = f"{printable(path)}: left out, as they are not captures: {listed(sorted(other_names, key=natural))}"
    return captures, unread_files, warning
