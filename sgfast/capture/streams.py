"""Open capture streams, wait for data on non-blocking ones, and describe damage."""

import errno
import os
import select
import sys
import time
from dataclasses import dataclass
from typing import Protocol

from sgfast.capture.urls import is_url, open_url
from sgfast.errors import CaptureError
from sgfast.system.names import printable

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


def open_stream(path: str | os.PathLike[str]) -> tuple[BinaryStream, str, bool]:
    """Open a path or URL ("-" is standard input). Return the stream, its name for messages, and whether to close it."""
    path = os.fspath(path)
    if path == "-":
        buffer = getattr(sys.stdin, "buffer", None)
        if buffer is None:
            raise CaptureError(f"{STANDARD_INPUT}: is closed or holds no bytes; name a capture file instead of -")
        return getattr(buffer, "raw", buffer), STANDARD_INPUT, False
    if is_url(path):
        return open_url(path), path, True
    try:
        return open(path, "rb", buffering=0), path, True
    except IsADirectoryError:
        cause = "is a directory; name a capture file in it"
    except FileNotFoundError:
        cause = "does not exist; check the path"
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
        where = f"byte {self.offset} once decompressed" if self.decompressed else f"byte {self.offset}"
        return f"{printable(self.file)}: damaged at {where}, packet {self.packet}: {self.cause}"
