"""Opening captures, and waiting for streams that do not block."""

import errno
import os
import select
import sys
import time
from typing import Protocol

from sgfast.capture.names import printable
from sgfast.capture.urls import is_url, open_url
from sgfast.errors import CaptureError

STANDARD_INPUT = "standard input"

#: How often a stream is asked that has nothing yet and nothing to wait for, such as a file that grows: what arrives
#: there is seen that late, and asking costs nothing to speak of.
POLL_SECONDS = 0.05


class BinaryStream(Protocol):
    """What a capture is read from: unbuffered, so that bytes are handed out as soon as they arrive."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Put some bytes into buffer and say how many: 0 at the end, None where there are none yet."""

    def close(self) -> None: ...


def wait_until_readable(stream: object) -> None:
    """Wait until a non-blocking stream has something to read; at most for a second."""
    try:
        descriptor: int = stream.fileno()  # type: ignore[attr-defined]
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
    except (AttributeError, OSError, ValueError):
        time.sleep(POLL_SECONDS)
        return
    poll.poll(1000)


def open_stream(path: str | os.PathLike[str]) -> tuple[BinaryStream, str, bool]:
    """The stream at a path or URL ("-" is standard input), its name for messages, and whether it is ours to close."""
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
