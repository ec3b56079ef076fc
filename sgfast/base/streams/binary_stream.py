"""Open capture streams, wait for data on non-blocking ones, and describe damage."""

import errno
import os
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sgfast.base.errors import CaptureError
from sgfast.base.names import printable
from sgfast.base.spelling import missing_path_hint
from sgfast.base.streams.compression import MAGIC_LENGTH
from sgfast.base.streams.urls import is_url, open_url

STANDARD_INPUT = "standard input"

#: Poll interval for streams that cannot be waited for, such as a growing file. New data is noticed at most this much
#: later. Polling at this rate costs hardly any time.
POLL_SECONDS = 0.05


class BinaryStream(Protocol):
    """The source of a capture. A source is unbuffered, so that bytes are available as soon as they arrive."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read some bytes into `buffer` and return their number: 0 at the end, None if no bytes have arrived yet."""

    def close(self) -> None: ...


def wait_until_readable(stream: object) -> None:
    """Wait until a non-blocking stream has data, but not longer than a second."""
    try:
        descriptor: int = stream.fileno()  # type: ignore[attr-defined]
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
    except (AttributeError, OSError, ValueError):
        time.sleep(POLL_SECONDS)
        return
    poll.poll(1000)


class _Peeked:
    """Standard input, of which ``head`` was read and is still to be handed out."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.head = b""

    def readinto(self, buffer: memoryview, /) -> int | None:
        if not self.head:
            got: int | None = self.source.readinto(buffer)
            return got
        count = min(len(buffer), len(self.head))
        buffer[:count] = self.head[:count]
        self.head = self.head[count:]
        return count

    def fileno(self) -> int:
        number: int = self.source.fileno()
        return number

    def close(self) -> None:
        self.source.close()


_peeked: _Peeked | None = None


def standard_input() -> BinaryStream | None:
    """Return standard input, from the first byte that nobody took. None: it is closed, or has no bytes."""
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:
        return None
    source: BinaryStream = getattr(buffer, "raw", buffer)
    return _peeked if _peeked is not None and _peeked.source is source else source


def peek_standard_input(most: int, is_enough: Callable[[bytes], bool]) -> bytes:
    """Return the first bytes of standard input, which ``standard_input`` hands out all the same.

    At most ``most`` bytes are read, or fewer at the end or if they are enough. Raises OSError and ValueError if they
    cannot be read.
    """
    global _peeked
    stream: Any = standard_input()
    if stream is None:
        return b""
    seekable = getattr(stream, "seekable", None)
    begin = stream.tell() if seekable is not None and seekable() else None
    head = stream.head if isinstance(stream, _Peeked) else b""
    try:
        while len(head) < most and not is_enough(head):
            # A capture shows in its first bytes. All others of a live one are left to its reader.
            piece = bytearray((most if head else MAGIC_LENGTH) - len(head))
            source = stream.source if isinstance(stream, _Peeked) else stream
            if (got := source.readinto(memoryview(piece))) is None:
                wait_until_readable(source)
                continue
            if not got:
                break
            head += piece[:got]
    finally:
        # A file stays what it is, so that it can be followed. Bytes of a pipe are kept, also those before an error.
        if begin is not None:
            stream.seek(begin)
        elif head:
            _peeked = stream if isinstance(stream, _Peeked) else _Peeked(stream)
            _peeked.head = head
    return head


def open_stream(path: str | os.PathLike[str]) -> tuple[BinaryStream, str, bool]:
    """Open a path or URL ("-" is standard input). Return the stream, its name for messages, and whether to close it."""
    path = os.fspath(path)
    if path == "-":
        stream = standard_input()
        if stream is None:
            raise CaptureError(f"{STANDARD_INPUT}: is closed or holds no bytes; name a capture file instead of -")
        return stream, STANDARD_INPUT, False
    if is_url(path):
        return open_url(path), path, True
    try:
        return open(path, "rb", buffering=0), path, True
    except IsADirectoryError:
        cause = "is a directory; name a capture file in it"
    except FileNotFoundError:
        cause = f"does not exist; check the path{missing_path_hint(path)}"
    except PermissionError:
        cause = "may not be read; check its permissions"
    except OSError as error:
        cause = f"cannot be opened: {error.strerror or error}"
        if error.errno == errno.EMFILE:
            cause += "; allow more (ulimit -n 1024), or give fewer captures at a time"
    except ValueError as error:
        cause = f"cannot be opened: {error}"
    raise CaptureError(f"{printable(path)}: {cause}")


@dataclass(frozen=True)
class Damage:
    """The first record or block of ``file`` that could not be read. All earlier records were read.

    ``file``: the name of the capture.
    ``offset``: the position of the record or block in the file, in bytes.
    ``packet``: the number of the packet that could not be read, from 1.
    ``cause``: the fault.
    ``decompressed``: whether ``offset`` counts decompressed bytes.
    """

    file: str
    offset: int
    packet: int
    cause: str
    decompressed: bool = False

    def __str__(self) -> str:
        position = f"byte {self.offset} once decompressed" if self.decompressed else f"byte {self.offset}"
        return f"{printable(self.file)}: damaged at {position}, packet {self.packet}: {self.cause}"
