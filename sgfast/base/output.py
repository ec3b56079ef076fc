"""Write outputs. A regular file appears complete or not at all; other outputs are written directly (SPEC 11).

    path --open_output--> regular or new:     a pending file, which appears with publish()
                          device, pipe, "-":  written directly

Errors raise OutputError. BrokenPipeError is passed on, because a reader may end when it has seen enough.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from sgfast.base import usable_processors
from sgfast.base.errors import OutputError
from sgfast.base.names import printable
from sgfast.base.pending_file import PendingFile, locate
from sgfast.base.signals import complete, held
from sgfast.base.write_behind import WriteBehind, wait_until_writable

STANDARD_OUTPUT = "standard output"

_DESCRIPTOR = re.compile(r"/dev/(?:fd/|std)(in|out|err|[0-9]+)|/proc/self/fd/([0-9]+)")
_STANDARD_DESCRIPTORS = {"in": 0, "out": 1, "err": 2}


#: Outputs of at least this many bytes are written in a thread of their own. For smaller ones, starting it costs more.
BEHIND_FROM = 4 << 20


class Output:
    """An output that takes bytes.

    ``close`` ends writing; ``publish`` makes a regular file appear. As a context manager, the output removes its file
    unless ``publish`` was called. Errors of a large output may be raised by a later call than the ``write`` they
    concern, but before the output is complete.
    """

    _behind: WriteBehind | None = None

    def __init__(self, name: str, stream: Any, *, owned: bool, file: PendingFile | None = None) -> None:
        self.name = name
        self._stream = stream
        self._owned = owned
        self._file = file
        # Bytes written since the start, until a thread of the output's own takes over.
        self._written = 0

    @property
    def warning(self) -> str:
        """A message to the user before the output is written; may be empty."""
        if self._file is None or not self._file.found_remains:
            return ""
        return f"{self.name}: an earlier run was killed before this output appeared; what it left was removed"

    @property
    def folder(self) -> int | None:
        """A descriptor of the directory in which a regular file will appear. None for other outputs."""
        return None if self._file is None else self._file.folder

    def write(self, data: bytes) -> None:
        """Write all of ``data``. Raises OutputError if that fails, BrokenPipeError if no reader is left."""
        try:
            if self._behind is not None:
                self._behind.write(data)
            else:
                self._write_now(data)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            raise _cannot_be_written(self.name, error) from error

    def _write_now(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._stream.write(view)
            if written is None:
                wait_until_writable(self._stream.fileno())
            else:
                view = view[written:]
        self._written += len(data)
        if self._written >= BEHIND_FROM and usable_processors() > 1:
            self._written = 0
            # The stream may have no descriptor, and the system may refuse a thread. Then this thread keeps writing.
            with suppress(OSError, RuntimeError):
                descriptor = self._stream.fileno()
                # For terminals and /dev/null a thread saves nothing.
                if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    self._behind = WriteBehind(descriptor)

    def close(self) -> None:
        """End writing. Raises errors that the system reports only at the end."""
        try:
            if self._behind is not None:
                # If ``finish`` fails, the next ``close`` fails again, so that no incomplete output is published.
                self._behind.finish()
                self._behind = None
            if self._file is not None:
                # The file stays open until it appears: a file without a name would be deleted.
                if self._stream is not None:
                    self._file.sync()
                return
            stream, self._stream = self._stream, None
            if stream is not None:
                if self._owned:
                    stream.close()
                else:
                    stream.flush()
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            raise _cannot_be_written(self.name, error) from error

    def publish(self) -> None:
        """Give a regular file its final name, replacing any previous file."""
        publish([self])

    def discard(self) -> None:
        """Abandon the output, and remove what can still be removed."""
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.abandon()
        file, self._file = self._file, None
        if file is not None:
            file.close()
        with suppress(OSError, OutputError):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()


def publish(outputs: Sequence[Output]) -> None:
    """Give all regular files their final names together; signals are held back meanwhile.

    Raises OutputError if that fails. Then no file has been replaced, or the message names the replaced files.
    """
    for output in outputs:
        output.close()
    pending = [(output, output._file) for output in outputs if output._file is not None]
    new_files: list[str] = []
    with held():
        for step in (
            PendingFile.give_name, PendingFile.refuse_changed_place, PendingFile.appear, PendingFile.sync_folder
        ):  # fmt: skip
            for output, file in pending:
                try:
                    step(file)
                except OSError as error:
                    raise _cannot_be_written(output.name, error, new_files) from error
                if step is PendingFile.appear:
                    new_files.append(output.name)
        if new_files:
            complete("the outputs are complete")
    for output, _ in pending:
        output.discard()


def open_output(path: str) -> Output:
    """Open an output at ``path``; ``-`` is standard output. Raises OutputError if it cannot be written."""
    if path == "-":
        return standard_output()
    name = printable(path)
    descriptor = descriptor_named(path)
    try:
        if descriptor is not None:
            return Output(name, open(os.dup(descriptor), "wb", buffering=0), owned=True)
        status = _status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise OutputError(f"{name}: is a directory; name a file in it")
        if status is not None and not stat.S_ISREG(status.st_mode):
            # O_CREAT is left out, so that no regular file is created if the device or pipe disappears meanwhile.
            return Output(name, open(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0), owned=True)
        file = PendingFile(name, path)
        return Output(name, open(file.descriptor, "wb", buffering=0), owned=True, file=file)
    except (OSError, ValueError) as error:
        raise _cannot_be_written(name, error) from error


def standard_output() -> Output:
    """Return standard output in its current state, unbuffered. Raises OutputError if it is closed."""
    if sys.stdout is None:
        raise OutputError(f"{STANDARD_OUTPUT}: is closed")
    flush(sys.stdout, STANDARD_OUTPUT)
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        raise OutputError(f"{STANDARD_OUTPUT}: does not accept bytes")
    return Output(STANDARD_OUTPUT, getattr(stream, "raw", stream), owned=False)


def flush(stream: Any, name: str) -> None:
    """Flush a stream. Raises the same errors as ``Output.write``."""
    try:
        stream.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise _cannot_be_written(name, error) from error


def is_standard_output(path: str) -> bool:
    """Return whether an output to ``path`` would be written to standard output."""
    return path == "-" or descriptor_named(path) == 1 or (_identity("-", 1) or "") == _identity(path, 1)


def refuse_shared(outputs: Sequence[str], inputs: Sequence[str]) -> None:
    """Raise OutputError if an output is also an input, or two outputs are the same."""
    read = {place: path for path in inputs if (place := _identity(path, 0)) is not None}
    # Standard output is always used, at least for the report.
    for path in (*outputs, "-"):
        place = _identity(path, 1)
        if place in read:
            raise OutputError(f"{_shown(path)}: is also an input ({printable(read[place])}); choose another output")
    written: dict[object, str] = {}
    for path in outputs:
        place = "-" if is_standard_output(path) else _identity(path, 1)
        if place in written:
            raise OutputError(f"{_shown(path)}: two outputs have the same destination; choose another for one of them")
        if place is not None:
            written[place] = path


# Files that paths refer to -------------------------------------------------------------------------------------------


def descriptor_named(path: str) -> int | None:
    """Return the file descriptor of this process that a path such as ``/dev/stdout`` or ``/dev/fd/63`` names."""
    match = _DESCRIPTOR.fullmatch(path)
    if match is None:
        return None
    word = match[1] or match[2]
    if path.startswith("/dev/std"):
        return _STANDARD_DESCRIPTORS.get(word)
    return int(word) if word.isdigit() and len(word) < 10 else None


def ending(path: str) -> str:
    """Return the ending of a path's name in lower case, such as ``.csv``, from which the format is chosen."""
    return os.path.splitext(path)[1].lower()


def is_nameless(path: str) -> bool:
    """Return whether a path is standard output, a device or a pipe, whose name does not show the format."""
    return path == "-" or descriptor_named(path) is not None or (os.path.exists(path) and not os.path.isfile(path))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _identity(path: str, descriptor: int) -> object:
    """Return a value that is equal for paths to the same file. None: sharing is harmless (terminals, /dev/null).

    ``descriptor``: the descriptor that ``-`` means.
    """
    try:
        status = os.fstat(descriptor) if path == "-" else os.stat(path)
    except (OSError, ValueError):
        return None if path == "-" else _place(path)
    return (status.st_dev, status.st_ino) if _is_exclusive(status) else None


def _place(path: str) -> object:
    """Return a value that is equal for paths at which the same file would be made; None if none can be made there."""
    try:
        folder, name = locate(path)
    except (OSError, ValueError):
        return None
    status = os.fstat(folder)
    os.close(folder)
    return status.st_dev, status.st_ino, name


def _is_exclusive(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)


def _shown(path: str) -> str:
    return STANDARD_OUTPUT if path == "-" else printable(path)


def _cannot_be_written(name: str, error: Exception, complete: Sequence[str] = ()) -> OutputError:
    cause = printable(str(getattr(error, "strerror", None) or error) or type(error).__name__)
    if isinstance(error, FileNotFoundError):
        cause = "its directory does not exist"
    replaced = f"; these are already complete: {', '.join(complete)}" if complete else ""
    return OutputError(f"{name}: cannot be written: {cause}{replaced}")
