"""Recognise compressed data by its first bytes, and decompress it piece by piece.

    chunks --> members in sequence (of gzip, bzip2, xz; frames of zstd, lz4) --> pieces of one stream of bytes

``decompressed.py`` reads the chunks and hands out the stream. The decompressor's window bounds the memory use, and this
module limits the window. Output before damage is returned before the error. gzip loses no output before damage. Each
other format loses the output of the call that failed: at most its step.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from sgfast.base.errors import CaptureError, pip_install

#: Number of bytes that identify each format and the start of a member.
MAGIC_LENGTH = 4
#: Bytes decompressed at a time: large enough for cheap calls, small enough to lose little output to damage.
STEP = 16 * 1024
#: Bytes of zstd decompressed at a time. zstd is faster, so this number is larger.
ZSTD_STEP = 32 * 1024
#: Bytes of gzip decompressed at a time. gzip loses no output. Twice as many would not fit in the second-level cache.
GZIP_STEP = 128 * 1024
#: The largest window that a decompressor may use, in bytes. This is the default limit of zstd. A file made by ``xz -9``
#: needs half of it.
MOST_WINDOW = 128 * 1024 * 1024
#: The largest number of members without content in a row. Such members take time without any visible output.
MOST_EMPTY = 10_000
#: Maximum compression ratio. Real captures stay below a few hundred, because timestamps differ. A higher ratio suggests
#: a decompression bomb. Below FREE_BYTES of output any ratio is allowed, as generated test data may have a high one.
MOST_RATIO = 1000
FREE_BYTES = 4 * 1024**3


class Member(Protocol):
    """Decompressor of one member. After ``eof``, ``unused_data`` holds the bytes behind the member."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return some of the output of ``data`` and of earlier input."""


class _Gzip:
    """The decompressor of zlib or zlib-ng (``package``), adapted to return all output before damage."""

    def __init__(self, package: Any) -> None:
        self._inflating = package.decompressobj(wbits=31)
        self._error = package.error
        self._unread = b""
        self.needs_input = True
        #: The beginning of a member with reserved flags, until its header is complete. Then None.
        self._header: bytes | None = b""

    @property
    def eof(self) -> bool:
        return bool(self._inflating.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inflating.unused_data) + self._unread

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        data = data or self._unread
        if self._header is not None:
            data = self._header + data
            self._header = None
            if data[3] & _RESERVED_FLAGS:
                readable = _without_flags(data)
                if readable is None:
                    self._header = data
                    return b""
                data = readable
        length = len(data)
        while True:
            before = self._inflating.copy()
            try:
                output = bytes(self._inflating.decompress(data[:length], max_length))
                break
            except self._error:
                # The failed call lost its output. Repeat it with less input, and finally with a smaller output limit.
                self._inflating = before
                if length > 1:
                    length //= 2
                elif max_length > 1:
                    max_length //= 2
                else:
                    # The previous call may not have had room for all its output.
                    output = bytes(self._inflating.decompress(b"", 1))
                    if not output:
                        raise
                    length = 0
                    break
        # At the end of a member zlib puts the bytes behind it into unconsumed_tail, too. unused_data has them already.
        self._unread = (b"" if self.eof else self._inflating.unconsumed_tail) + data[length:]
        self.needs_input = not self._unread and len(output) < max_length
        return output


#: Flags in a gzip header (RFC 1952).
_CHECKED, _EXTRA, _TEXTS, _RESERVED_FLAGS = 0x02, 0x04, (0x08, 0x10), 0xE0
#: The largest header with reserved flags that is read, in bytes.
_MOST_HEADER = 4 * 1024 * 1024


def _without_flags(member: bytes) -> bytes | None:
    """Replace the header by one without flags, which zlib accepts. Return None if the header is not complete yet.

    Raises ValueError if the header is damaged.
    """
    flags, end = member[3], 10
    if flags & _EXTRA:
        end += 2 + int.from_bytes(member[end : end + 2], "little")
    for flag in _TEXTS:
        if flags & flag:
            end = member.find(b"\0", end) + 1
            if end == 0:
                end = len(member) + 1
    checked = end
    if flags & _CHECKED:
        end += 2
    if len(member) < end:
        if len(member) > _MOST_HEADER:
            raise ValueError("a header is too long")
        return None
    if flags & _CHECKED and int.from_bytes(member[checked:end], "little") != zlib.crc32(member[:checked]) & 0xFFFF:
        raise ValueError("header crc mismatch")
    return member[:3] + b"\0" + member[4:10] + member[end:]


class _Zstd:
    """Decompressor of one frame. The frame's header is passed in a call of its own.

    If libzstd got a small frame in one call, it would decompress the frame without a window, and would not compare the
    window size in the header with the limit. Then the size of the chunks would decide whether the frame is damage.
    """

    def __init__(self, frame: Member) -> None:
        self._frame = frame
        #: The beginning of the frame, until its header is complete.
        self._header: bytes | None = b""

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def needs_input(self) -> bool:
        return self._header is not None or self._frame.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if self._header is not None:
            data = self._header + data
            length = _zstd_header_length(data)
            if len(data) < length:
                self._header = data
                return b""
            self._header = None
            if length:
                self._frame.decompress(data[:length], max_length)
                data = data[length:]
        return self._frame.decompress(data, max_length)


def _zstd_header_length(begin: bytes) -> int:
    """Return the length of the header of the frame that starts with ``begin``, in bytes (RFC 8878).

    Return 0 for a frame that holds no data, and 5 if ``begin`` is too short to tell.
    """
    if _is_skippable(begin):
        return 0
    if len(begin) < 5:
        return 5
    has_one_segment = begin[4] >> 5 & 1
    window, dictionary = 1 - has_one_segment, (0, 1, 2, 4)[begin[4] & 3]
    return 5 + window + dictionary + (has_one_segment, 2, 4, 8)[begin[4] >> 6]


# The formats ---------------------------------------------------------------------------------------------------------

#: A factory of members, and the exceptions that they raise.
_Decompressor = tuple[Callable[[], Member], tuple[type[Exception], ...]]


def uses_zlib_ng() -> bool:
    # zlib-ng gives the same results as zlib in a third of the time. But it does not declare that it works without
    # Python's global lock, so importing it would turn that lock on in a Python that runs without it.
    is_locked: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return is_locked


def _gzip() -> _Decompressor:
    package: Any = import_module("zlib_ng.zlib_ng") if uses_zlib_ng() else zlib
    return lambda: _Gzip(package), (package.error,)


def _bzip2() -> _Decompressor:
    return bz2.BZ2Decompressor, (OSError, ValueError)


def _xz() -> _Decompressor:
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_WINDOW), (lzma.LZMAError,)


def _zstd() -> _Decompressor:
    # Python has this module from 3.14 on. For earlier versions the package has the same content.
    package: Any = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    options = {package.DecompressionParameter.window_log_max: MOST_WINDOW.bit_length() - 1}
    return lambda: _Zstd(package.ZstdDecompressor(options=options)), (package.ZstdError,)


def _lz4() -> _Decompressor:
    package = import_module("lz4.frame")
    return package.LZ4FrameDecompressor, (RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True)
class Compression:
    name: str
    #: Shell command that prints a file of this format decompressed.
    command: str
    #: Whether MAGIC_LENGTH bytes are the start of a member.
    begins: Callable[[bytes], bool]
    load: Callable[[], _Decompressor]
    #: The Python package that this format requires, if that package is an extra.
    package: str = ""
    #: Bytes decompressed at a time.
    step: int = STEP
    #: Whether zeros between and after members are ignored (tapes, xz's padding).
    padded: bool = False
    #: Whether other data after the last member is ignored, as the format's own command does.
    ignores_rest: bool = False


def _is_skippable(head: bytes) -> bool:
    """Return whether ``head`` starts a skippable frame of zstd or lz4, which holds no data."""
    return 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"


_COMPRESSIONS = (
    Compression(
        "gzip", "zcat", lambda head: head[:3] == b"\x1f\x8b\x08", _gzip, step=GZIP_STEP, padded=True,
        ignores_rest=True,
    ),
    Compression(
        "bzip2", "bzcat", lambda head: head[:3] == b"BZh" and head[3:4] in b"123456789", _bzip2, padded=True,
        ignores_rest=True,
    ),
    Compression("xz", "xzcat", lambda head: head[:4] == b"\xfd7zX", _xz, padded=True),
    Compression(
        "zstd", "zstdcat", lambda head: head[:4] == b"\x28\xb5\x2f\xfd" or _is_skippable(head), _zstd, "backports.zstd",
        step=ZSTD_STEP,
    ),
    Compression(
        "lz4", "lz4cat", lambda head: head[:4] == b"\x04\x22\x4d\x18" or _is_skippable(head), _lz4, "lz4"
    ),
)  # fmt: skip


def compression_of(head: bytes) -> Compression | None:
    """Return the compression of a file that begins with ``head``, or None."""
    if len(head) < MAGIC_LENGTH:
        return None
    return next((compression for compression in _COMPRESSIONS if compression.begins(head)), None)


# The members of one file ----------------------------------------------------------------------------------------------


def is_bomb(bytes_output: int, bytes_taken: int) -> bool:
    return bytes_output > FREE_BYTES and bytes_output > MOST_RATIO * bytes_taken


class Decompressor:
    """Decompressor of all members of one file. It reads no file: callers pass a chunk if ``needs_input`` is set.

    The constructor raises CaptureError if a Python package is missing; ``name`` is for its message.
    """

    def __init__(self, compression: Compression, name: str) -> None:
        try:
            self._make, errors = compression.load()
        except ImportError:
            raise CaptureError(
                f"{name}: is {compression.name}-compressed, which takes the Python package {compression.package}: "
                f"{pip_install('compressed')}, or decompress it first ({compression.command} FILE | sgfast ... -)"
            ) from None
        self._errors: tuple[type[Exception], ...] = (EOFError, ValueError, *errors)
        self._compression = compression
        self._pieces = self._decompress()
        next(self._pieces)
        #: Whether ``advance`` needs a chunk.
        self.needs_input = True
        self.bytes_output = 0
        #: Whether all output was returned: the input has ended or is damaged, or its rest is no compressed data.
        self.ended = False
        self.has_rest = False
        #: The error for damaged data, with the place of the damage.
        self.failure: Exception | None = None

    def advance(self, chunk: bytes | None, bytes_taken: int) -> bytes:
        """Return the next output, or b"" if there is none yet.

        ``chunk`` is the input if ``needs_input`` is set: b"" at the end of the input. ``bytes_taken``: the number of
        bytes of the file up to the end of the last chunk.
        """
        self.needs_input = False
        try:
            output = self._pieces.send(chunk)
        except StopIteration:
            self.ended = True
            return b""
        except self._errors as error:
            cause = "is cut short" if isinstance(error, EOFError) else f"cannot be decompressed: {error}"
            self._fail(f"{cause}, near byte {bytes_taken} of the file")
            return b""
        if output is None:
            self.needs_input = True
            return b""
        self.bytes_output += len(output)
        if is_bomb(self.bytes_output, bytes_taken):
            self._fail(
                f"becomes more than {MOST_RATIO} times as large, near byte {bytes_taken} of the file: if it is a "
                "capture all the same, decompress it first"
            )
        return output

    def _fail(self, problem: str) -> None:
        self.ended = True
        self.failure = ValueError(f"the {self._compression.name} data {problem}")

    def _decompress(self) -> Generator[bytes | None, bytes | None, None]:
        """Yield output, and None to request input; the caller sends b"" at the end of the input."""
        compression = self._compression
        data = b""
        empty = 0
        while True:
            # At this point another member begins, or the data after the last member.
            while True:
                if compression.padded:
                    data = data.lstrip(b"\0")
                if len(data) >= MAGIC_LENGTH:
                    break
                chunk = yield None
                if not chunk:
                    break
                data += chunk
            if not data:
                return
            if len(data) < MAGIC_LENGTH or not compression.begins(data):
                if not compression.ignores_rest:
                    raise ValueError("other data follows it")
                self.has_rest = True
                return
            member = self._make()
            before = self.bytes_output
            while not member.eof:
                if member.needs_input and not data:
                    data = (yield None) or b""
                    if not data:
                        raise EOFError
                output = member.decompress(data, compression.step)
                data = b""
                if output:
                    yield output
            data = member.unused_data or b""     # lz4 returns None
            empty = empty + 1 if self.bytes_output == before else 0
            if empty > MOST_EMPTY:
                raise ValueError(f"more than {MOST_EMPTY:,} empty members follow each other")
