"""Where outputs go: regular files that appear whole or not at all, everything else written through (SPEC 11).

    path --open_output--> regular or new:     .sgfast-xxxxxxxx.part, renamed over the file by publish()
                          device, pipe, "-":  the thing itself

Errors are OutputError, except that BrokenPipeError passes: whoever read has seen enough.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import select
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from sgfast.capture.names import printable
from sgfast.errors import OutputError

STANDARD_OUTPUT = "standard output"

_DESCRIPTOR = re.compile(r"/dev/(?:fd/|std)(in|out|err|[0-9]+)|/proc/self/fd/([0-9]+)")
_STANDARD_DESCRIPTORS = {"in": 0, "out": 1, "err": 2}
#: Attempts at a temporary name nobody has.
_NAME_ATTEMPTS = 100


class Output:
    """Bytes on their way to one place. ``close`` ends writing, ``publish`` makes a regular file appear; a context
    manager that leaves nothing behind unless ``publish`` was reached.
    """

    def __init__(self, name: str, stream: Any, *, owned: bool, target: str = "", temporary: str = "") -> None:
        self.name = name
        self._stream = stream
        self._owned = owned
        self._target = target
        self._temporary = temporary

    def write(self, data: bytes) -> None:
        """All of it. OutputError where it does not fit, BrokenPipeError where nobody reads any more."""
        view = memoryview(data)
        while view:
            try:
                written = self._stream.write(view)
            except BrokenPipeError:
                raise
            except (OSError, ValueError) as error:
                raise _cannot_be_written(self.name, error) from error
            if written is None:
                _wait_until_writable(self._stream)
            else:
                view = view[written:]

    def close(self) -> None:
        """Nothing more will be written; what the system noticed late is raised here."""
        stream, self._stream = self._stream, None
        try:
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
        """A regular file takes its name; whatever had it before is replaced."""
        self.close()
        if self._temporary:
            try:
                os.replace(self._temporary, self._target)
            except OSError as error:
                raise _cannot_be_written(self.name, error) from error
            self._temporary = ""

    def discard(self) -> None:
        """Ends without a trace, as far as that is still possible."""
        with suppress(OSError, OutputError):
            self.close()
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()


def open_output(path: str) -> Output:
    """An output at ``path``; ``-`` is standard output. OutputError if nothing can be written there."""
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
            # Without O_CREAT: should it vanish meanwhile, no regular file takes its place.
            return Output(name, open(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0), owned=True)
        return _open_regular(name, path, status)
    except (OSError, ValueError) as error:
        raise _cannot_be_written(name, error) from error


def standard_output() -> Output:
    """Standard output as it stands now, unbuffered. OutputError if it is closed."""
    if sys.stdout is None:
        raise OutputError(f"{STANDARD_OUTPUT}: is closed")
    flush(sys.stdout, STANDARD_OUTPUT)
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        raise OutputError(f"{STANDARD_OUTPUT}: takes no bytes")
    return Output(STANDARD_OUTPUT, getattr(stream, "raw", stream), owned=False)


def flush(stream: Any, name: str) -> None:
    """Raises as ``Output.write`` does."""
    try:
        stream.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise _cannot_be_written(name, error) from error


def is_standard_output(path: str) -> bool:
    """Whether an output named ``path`` would land among what standard output gets."""
    return path == "-" or descriptor_named(path) == 1 or (_place("-", 1) or "") == _place(path, 1)


def refuse_shared(outputs: Sequence[str], inputs: Sequence[str]) -> None:
    """OutputError where an output is one of the inputs, or two outputs are the same."""
    read = {place: path for path in inputs if (place := _place(path, 0)) is not None}
    # Standard output is always written to: the report, if nothing else.
    for path in (*outputs, "-"):
        place = _place(path, 1)
        if place in read:
            raise OutputError(f"{_shown(path)}: is an input too ({printable(read[place])}); write somewhere else")
    written: dict[object, str] = {}
    for path in outputs:
        place = "-" if is_standard_output(path) else _place(path, 1)
        if place in written:
            raise OutputError(f"{_shown(path)}: two outputs cannot go to one place; write one of them somewhere else")
        if place is not None:
            written[place] = path


# Regular files -------------------------------------------------------------------------------------------------------


def _open_regular(name: str, path: str, status: os.stat_result | None) -> Output:
    # A symbolic link stays one: what it leads to is replaced.
    target = os.path.realpath(path)
    if os.path.islink(target):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if status is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    folder, base = os.path.split(target)
    if not base or path.endswith("/"):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for _ in range(_NAME_ATTEMPTS):
        temporary = os.path.join(folder, f".sgfast-{secrets.token_hex(4)}.part")
        try:
            # A new file gets the permissions the umask leaves; an old one's are kept.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        break
    else:
        raise FileExistsError(errno.EEXIST, "no temporary name is free")
    try:
        if status is not None:
            with suppress(OSError):
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o777)
        return Output(name, open(descriptor, "wb", buffering=0), owned=True, target=target, temporary=temporary)
    except BaseException:
        os.unlink(temporary)
        raise


# What paths lead to --------------------------------------------------------------------------------------------------


def descriptor_named(path: str) -> int | None:
    """The descriptor of ours that a path like ``/dev/stdout`` or ``/dev/fd/63`` means."""
    match = _DESCRIPTOR.fullmatch(path)
    if match is None:
        return None
    word = match[1] or match[2]
    if path.startswith("/dev/std"):
        return _STANDARD_DESCRIPTORS.get(word)
    return int(word) if word.isdigit() and len(word) < 10 else None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _place(path: str, descriptor: int) -> object:
    """What two paths to one file have in common, None where sharing does no harm (terminals, sockets, /dev/null).
    ``descriptor`` is what ``-`` means.
    """
    try:
        status = os.fstat(descriptor) if path == "-" else os.stat(path)
    except (OSError, ValueError):
        return None if path == "-" else os.path.realpath(path.replace("\0", ""))
    return (status.st_dev, status.st_ino) if _is_exclusive(status) else None


def _is_exclusive(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)


def _shown(path: str) -> str:
    return STANDARD_OUTPUT if path == "-" else printable(path)


def _cannot_be_written(name: str, error: Exception) -> OutputError:
    if isinstance(error, FileNotFoundError):
        return OutputError(f"{name}: cannot be written: its directory does not exist")
    cause = printable(str(getattr(error, "strerror", None) or error) or type(error).__name__)
    return OutputError(f"{name}: cannot be written: {cause}")


def _wait_until_writable(stream: io.RawIOBase) -> None:
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    poll.poll(1000)
