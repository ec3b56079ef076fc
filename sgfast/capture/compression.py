"""Compressed captures are recognised by their first bytes and decompressed while they are read.

    file --chunks--> members in sequence (of gzip, bzip2, xz; frames of zstd, lz4) --> one stream of bytes

Bytes are decompressed only on demand. Memory use is bounded by the decompressor's window, which is limited here.
Output that precedes damage is returned first. gzip loses none of it. The other formats lose what the failing call had
produced: at most ``STEP`` bytes, or with the package zstandard the output of ``INPUT_STEP`` bytes.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from sgfast.capture.streams import BinaryStream
from sgfast.errors import CaptureError

#: Number of bytes that identify each format and the start of a member.
MAGIC_LENGTH = 4
#: Bytes read at a time. It is small because the rest of a chunk is copied once for every member in it.
CHUNK = 32 * 1024
#: Bytes decompressed at a time: large enough for cheap calls, small enough to lose little output to damage.
STEP = 16 * 1024
#: Input bytes per call of the package zstandard, which has no limit on output. Four bytes can expand to 128 KiB, so a
#: call returns at most 16 MiB.
INPUT_STEP = 512
#: Maximum window of a decompressor, bytes: the default of zstd, and twice what files made by ``xz -9`` need.
MOST_WINDOW = 128 * 1024 * 1024
#: Members without content in a row. Each takes time, and nothing comes out that shows it.
MOST_EMPTY = 10_000
#: Maximum compression ratio. Real captures stay below a few hundred, because timestamps differ; a higher ratio suggests
#: a decompression bomb. Below FREE_BYTES of output it does no harm, and generated test data may be like that.
MOST_RATIO = 1000
FREE_BYTES = 4 * 1024**3


class Member(Protocol):
    """Decompresses one member. After ``eof``, ``unused_data`` holds the bytes behind it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return some of the output of ``data`` and of earlier input."""


class _Gzip:
    """zlib's decompressor, adapted to lose no output when it finds damage."""

    def __init__(self) -> None:
        self._inflating = zlib.decompressobj(wbits=31)
        self._rest = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflating.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflating.unused_data + self._rest

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        data = data or self._rest
        given = len(data)
        while True:
            before = self._inflating.copy()
            try:
                output = self._inflating.decompress(data[:given], max_length)
                break
            except zlib.error:
                # The failed call lost its output. Repeat it with less input, and finally with a smaller output limit.
                self._inflating = before
                if given > 1:
                    given //= 2
                elif max_length > 1:
                    max_length //= 2
                else:
                    raise
        # At the end of a member zlib also puts the bytes behind it into unconsumed_tail; unused_data has them already.
        self._rest = (b"" if self.eof else self._inflating.unconsumed_tail) + data[given:]
        self.needs_input = not self._rest and len(output) < max_length
        return output


class _Zstandard:
    """One frame, through the package ``zstandard``.

    The streams of that package either hide that a file is cut short or have no output limit.
    """

    def __init__(self, decompressor: Any) -> None:
        self._frame = decompressor.decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def needs_input(self) -> bool:
        return not self._rest

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data) + self._rest

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        data = data or self._rest
        self._rest = data[INPUT_STEP:]
        return bytes(self._frame.decompress(data[:INPUT_STEP]))


# The formats ---------------------------------------------------------------------------------------------------------

#: A factory of members, and the exceptions that they raise.
_Decompressor = tuple[Callable[[], Member], tuple[type[Exception], ...]]


def _gzip() -> _Decompressor:
    return _Gzip, (zlib.error,)


def _bzip2() -> _Decompressor:
    return bz2.BZ2Decompressor, (OSError, ValueError)


def _xz() -> _Decompressor:
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_WINDOW), (lzma.LZMAError,)


def _zstd() -> _Decompressor:
    try:
        package = import_module("compression.zstd")
    except ImportError:
        package = import_module("zstandard")
        # One for all frames of a file: to make it takes longer than a small frame.
        decompressor = package.ZstdDecompressor(max_window_size=MOST_WINDOW)
        return lambda: _Zstandard(decompressor), (package.ZstdError, MemoryError)
    options = {package.DecompressionParameter.window_log_max: MOST_WINDOW.bit_length() - 1}
    return lambda: package.ZstdDecompressor(options=options), (package.ZstdError,)


def _lz4() -> _Decompressor:
    package = import_module("lz4.frame")
    return package.LZ4FrameDecompressor, (RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True)
class Compression:
    name: str
    #: Shell command that prints such a file decompressed.
    command: str
    #: Whether these MAGIC_LENGTH bytes are the start of a member.
    begins: Callable[[bytes], bool]
    load: Callable[[], _Decompressor]
    #: The Python package that it requires, if any.
    package: str = ""
    #: Whether zeros between and after members are ignored (tapes, xz's padding).
    padded: bool = False
    #: Whether other data after the last member is ignored, as the format's own command does.
    ignores_rest: bool = False


def _is_skippable(head: bytes) -> bool:
    """Whether ``head`` starts a skippable frame of zstd or lz4, which holds no data."""
    return 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"


_COMPRESSIONS = (
    Compression(
        "gzip", "zcat", lambda head: head[:3] == b"\x1f\x8b\x08", _gzip, padded=True, ignores_rest=True
    ),
    Compression(
        "bzip2", "bzcat", lambda head: head[:3] == b"BZh" and head[3:4] in b"123456789", _bzip2, padded=True,
        ignores_rest=True,
    ),
    Compression("xz", "xzcat", lambda head: head[:4] == b"\xfd7zX", _xz, padded=True),
    Compression(
        "zstd", "zstdcat", lambda head: head[:4] == b"\x28\xb5\x2f\xfd" or _is_skippable(head), _zstd, "zstandard"
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


# Reading -------------------------------------------------------------------------------------------------------------


class DecompressedStream:
    """The decompressed bytes of ``head`` followed by ``source``.

    ``readinto`` raises ValueError for damaged data and says where the damage is. The constructor raises CaptureError if
    a Python package is missing; ``name`` is for its message.
    """

    def __init__(self, source: BinaryStream, compression: Compression, head: bytes, name: str) -> None:
        try:
            self._make, errors = compression.load()
        except ImportError:
            raise CaptureError(
                f"{name}: is {compression.name}-compressed, which takes the Python package {compression.package}: "
                f"pip install 'sgfast[compressed]', or decompress it first ({compression.command} FILE | sgfast ... -)"
            ) from None
        self._errors: tuple[type[Exception], ...] = (EOFError, ValueError, *errors)
        self.compression = compression
        #: Compressed bytes read so far.
        self.bytes_taken = len(head)
        self.bytes_output = 0
        #: Whether ignored data follows the last member.
        self.has_rest = False
        self._source = source
        self._head = memoryview(head)
        self._chunk = bytearray(CHUNK)
        self._output = memoryview(b"")
        self._outputs = self._decompress()
        self._needs_input = self._ended = False
        self._failure: Exception | None = None

    def readinto(self, buffer: memoryview, /) -> int | None:
        filled = 0
        while filled < len(buffer):
            if not self._output:
                if self._ended or self._failure is not None:
                    break
                chunk = None
                if self._needs_input:
                    # Return available output before waiting for input.
                    if filled:
                        break
                    chunk = self._read()
                    if chunk is None:
                        return None
                    if not chunk and getattr(self._source, "interrupted", False):
                        self._ended = True
                        break
                self._output = memoryview(self._advance(chunk))
            count = min(len(self._output), len(buffer) - filled)
            buffer[filled : filled + count] = self._output[:count]
            self._output = self._output[count:]
            filled += count
        if filled == 0 and self._failure is not None:
            raise self._failure
        return filled

    def fileno(self) -> int:
        """The source's descriptor, so that callers can wait for input."""
        number: int = self._source.fileno()  # type: ignore[attr-defined]
        return number

    def close(self) -> None:
        self._source.close()

    @property
    def interrupted(self) -> bool:
        return getattr(self._source, "interrupted", False)

    def _read(self) -> bytes | None:
        if self._head:
            chunk, self._head = bytes(self._head[:CHUNK]), self._head[CHUNK:]
            self._needs_input = False
            return chunk
        got = self._source.readinto(memoryview(self._chunk))
        if got is None:
            return None
        if not 0 <= got <= CHUNK:
            raise OSError(f"the stream claims {got} bytes for a buffer of {CHUNK}")
        self.bytes_taken += got
        self._needs_input = False
        return bytes(self._chunk[:got])

    def _advance(self, chunk: bytes | None) -> bytes:
        """Return the next output, or b"" if more input is needed. ``chunk`` is the requested input, b"" at its end."""
        try:
            output = self._outputs.send(chunk)
        except StopIteration:
            self._ended = True
            return b""
        except self._errors as error:
            cause = "is cut short" if isinstance(error, EOFError) else f"cannot be decompressed: {error}"
            self._failure = ValueError(
                f"the {self.compression.name} data {cause}, near byte {self.bytes_taken} of the file"
            )
            return b""
        except BaseException:
            # A signal handler raised. The generator is finished now, which must not look like the end of the data.
            self._failure = ValueError("decompressing was interrupted")
            raise
        if output is None:
            self._needs_input = True
            return b""
        self.bytes_output += len(output)
        if self.bytes_output > FREE_BYTES and self.bytes_output > MOST_RATIO * self.bytes_taken:
            self._failure = ValueError(
                f"the {self.compression.name} data becomes more than {MOST_RATIO} times as large, near byte "
                f"{self.bytes_taken} of the file: if it is a capture all the same, decompress it first"
            )
        return output

    def _decompress(self) -> Generator[bytes | None, bytes | None, None]:
        """Yields output, and None to request input; the caller sends b"" at the end of the input."""
        compression = self.compression
        data = b""
        empty = 0
        while True:
            # At this point another member begins, or the data after the last one.
            while True:
                if compression.padded:
                    data = data.lstrip(b"\0")
                if len(data) >= MAGIC_LENGTH:
                    break
                more = yield None
                if not more:
                    break
                data += more
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
                output = member.decompress(data, STEP)
                data = b""
                if output:
                    yield output
            data = member.unused_data or b""     # lz4 returns None
            empty = empty + 1 if self.bytes_output == before else 0
            if empty > MOST_EMPTY:
                raise ValueError(f"more than {MOST_EMPTY:,} empty members follow each other")
