"""Directories of captures, as ``tcpdump -C`` and ``-G`` leave them behind; and patterns, such as ``day/**/*.pcap*``."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from glob import glob, has_magic

from sgfast.capture.names import printable
from sgfast.capture.reader import open_capture
from sgfast.capture.urls import is_url, is_url_directory, urls_in
from sgfast.errors import CaptureError, NoCapture

#: Files of a list that are named.
MOST_NAMED = 5


def is_pattern(path: str) -> bool:
    """Whether it stands for the files it matches: what there is a file of that name for is a name."""
    if path == "-" or not has_magic(path):
        return False
    return is_url(path) or not os.path.lexists(path.replace("\0", ""))


def is_directory(path: str) -> bool:
    """Whether it stands for several captures: a directory, or a pattern."""
    if path == "-":
        return False
    if is_pattern(path):
        return True
    return is_url_directory(path) if is_url(path) else os.path.isdir(path.replace("\0", ""))


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts ``a9`` before ``a10``, as people and tcpdump count."""
    parts = re.split("([0-9]+)", name)
    return tuple((text, int(number or 0)) for text, number in zip(parts[::2], [*parts[1::2], ""], strict=True))


def files_in(path: str) -> tuple[list[str], list[str]]:
    """The regular files in a directory, or that a pattern matches, and names of what else is there; both in natural
    order, hidden ones apart.
    """
    files: list[str] = []
    others: list[str] = []
    if is_url(path):
        return sorted(urls_in(path, is_pattern=is_pattern(path)), key=natural), []
    if is_pattern(path):
        return sorted(filter(os.path.isfile, glob(path, recursive=True)), key=natural), []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                (files if _is_file(entry) else others).append(entry.name)
    except OSError as error:
        raise CaptureError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    return [os.path.join(path, name) for name in sorted(files, key=natural)], sorted(others, key=natural)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        # A link to itself leads nowhere, like one to nothing.
        if error.errno == errno.ELOOP:
            return False
        raise


def with_files_in(paths: Sequence[str]) -> list[str]:
    """``paths``, and the files in those that are directories that can be read."""
    found = list(paths)
    for path in filter(is_directory, paths):
        try:
            found += files_in(path)[0]
        except CaptureError:
            continue        # which is told when it is opened
    return found


def first_time_ns(path: str) -> int | None:
    """Of the first packet; None where there is none, damage or not. CaptureError as ``open_capture``."""
    with open_capture(path) as reader:
        batch = reader.next_batch()
        return None if batch is None else next(iter(batch))[0]


def captures_in(path: str) -> tuple[list[tuple[str, int | None]], str | None]:
    """The captures in a directory with the times of their first packets, in the order of these, then of names; and a
    warning of what is none. CaptureError for captures that cannot be used, or if there are none.
    """
    files, others = files_in(path)
    found = []
    for file in files:
        try:
            found.append((file, first_time_ns(file)))
        except NoCapture:
            others.append(os.path.basename(file))
    if not found:
        what = "is a pattern that matches no captures" if is_pattern(path) else "is a directory that holds no captures"
        raise CaptureError(f"{printable(path)}: {what}; name one that does, or a file")
    # Sorting keeps the order of names among equal times.
    found.sort(key=lambda capture: (capture[1] is not None, capture[1] or 0))
    if not others:
        return found, None
    return found, f"{printable(path)}: left out, as they are no captures: {listed(sorted(others, key=natural))}"


def listed(names: Sequence[str]) -> str:
    """``MOST_NAMED`` of them, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(printable, names[:MOST_NAMED])) + more
