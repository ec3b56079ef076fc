"""Compressed captures, told by their first bytes and decompressed as they are read.

    file --chunks--> members (of gzip, bzip2, xz; frames of zstd, lz4), one after the other --> one stream of bytes

Nothing is unpacked before it is wanted, so memory is bounded by what a decompressor must remember, which is bounded
here. What comes out before damage is handed out first: of gzip all of it; others keep to themselves what they made in
the call that finds the damage, at most ``STEP`` bytes (zstandard: what ``PIECE`` bytes become).
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

#: Bytes that tell every format, and where one of its members begins.
MAGIC_LENGTH = 4
#: Bytes read at a time. What follows a member is copied once for each one in the chunk, so it is not large.
CHUNK = 32 * 1024
#: Bytes decompressed at a time: enough that calls cost little, and what damage takes along is little.
STEP = 16 * 1024
#: Bytes zstandard gets at a time. Four of them can become 128 KiB, and it knows no other bound: at most 16 MiB.
PIECE = 512
#: Bytes a decompressor may remember: zstd's own default, and twice what ``xz -9`` makes it need.
MOST_WINDOW = 128 * 1024 * 1024
#: A capture is at most some hundred times as large as it is compressed, as no two packets have one time. More than
#: MOST_RATIO is made to keep us busy; below FREE_BYTES nobody minds, and what tests generate may be like that.
MOST_RATIO = 1000
FREE_BYTES = 4 * 1024**3


class Member(Protocol):
    """What decompresses one member; after ``eof`` the bytes behind it are in ``unused_data``."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Some of what data, and what came before, becomes."""


class _Gzip:
    """zlib's decompressor, which loses nothing where it finds damage."""

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
                made = self._inflating.decompress(data[:given], max_length)
                break
            except zlib.error:
                # What it made is lost with the call, so it is given less, and then asked for less.
                self._inflating = before
                if given > 1:
                    given //= 2
                elif max_length > 1:
                    max_length //= 2
                else:
                    raise
        # zlib tells what is behind the member in both.
        self._rest = (b"" if self.eof else self._inflating.unconsumed_tail) + data[given:]
        self.needs_input = not self._rest and len(made) < max_length
        return made


class _Zstandard:
    """One frame by the package ``zstandard``, whose streams either hide that a file is cut short or have no bound."""

    def __init__(self, package: Any) -> None:
        self._frame = package.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj()
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
        self._rest = data[PIECE:]
        return bytes(self._frame.decompress(data[:PIECE]))


# The formats ---------------------------------------------------------------------------------------------------------

#: What makes a member, and the errors it raises.
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
        return lambda: _Zstandard(package), (package.ZstdError, MemoryError)
    options = {package.DecompressionParameter.window_log_max: MOST_WINDOW.bit_length() - 1}
    return lambda: package.ZstdDecompressor(options=options), (package.ZstdError,)


def _lz4() -> _Decompressor:
    package = import_module("lz4.frame")
    return package.LZ4FrameDecompressor, (RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True)
class Compression:
    name: str
    #: What prints such a file decompressed.
    command: str
    #: Whether a member begins with these bytes, MAGIC_LENGTH of them.
    begins: Callable[[bytes], bool]
    load: Callable[[], _Decompressor]
    #: The Python package it takes.
    package: str = ""
    #: Zeros between members and after the last mean nothing (tapes, xz's padding).
    padded: bool = False
    #: What follows the last member is left alone, as the format's own command does.
    ignores_rest: bool = False


def _is_skippable(head: bytes) -> bool:
    """A frame that holds nothing to decompress, of zstd or lz4."""
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
    """What a file that begins with ``head`` is compressed with, or None."""
    if len(head) < MAGIC_LENGTH:
        return None
    return next((compression for compression in _COMPRESSIONS if compression.begins(head)), None)


# Reading -------------------------------------------------------------------------------------------------------------


class DecompressedStream:
    """What the compressed bytes ``head`` and those that follow in ``source`` become. ValueError says where and how they
    are damaged; CaptureError for a package that is not installed. ``name`` is for that.
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
        #: Bytes read from the source.
        self.bytes_taken = len(head)
        self.bytes_made = 0
        #: Bytes follow the last member that are none, and were left alone.
        self.has_rest = False
        self._source = source
        self._ahead = memoryview(head)
        self._chunk = bytearray(CHUNK)
        self._made = memoryview(b"")
        self._pieces = self._decompress()
        self._hungry = self._ended = False
        self._failure: Exception | None = None

    def readinto(self, buffer: memoryview, /) -> int | None:
        filled = 0
        while filled < len(buffer):
            if not self._made:
                if self._ended or self._failure is not None:
                    break
                chunk = None
                if self._hungry:
                    # What was made goes out before anything is waited for.
                    if filled:
                        break
                    chunk = self._read()
                    if chunk is None:
                        return None
                    if not chunk and getattr(self._source, "interrupted", False):
                        self._ended = True
                        break
                self._made = memoryview(self._go_on(chunk))
            count = min(len(self._made), len(buffer) - filled)
            buffer[filled : filled + count] = self._made[:count]
            self._made = self._made[count:]
            filled += count
        if filled == 0 and self._failure is not None:
            raise self._failure
        return filled

    def fileno(self) -> int:
        """For whoever waits until there is something to read."""
        number: int = self._source.fileno()  # type: ignore[attr-defined]
        return number

    def close(self) -> None:
        self._source.close()

    @property
    def interrupted(self) -> bool:
        return getattr(self._source, "interrupted", False)

    def _read(self) -> bytes | None:
        if self._ahead:
            chunk, self._ahead = bytes(self._ahead[:CHUNK]), self._ahead[CHUNK:]
            self._hungry = False
            return chunk
        got = self._source.readinto(memoryview(self._chunk))
        if got is None:
            return None
        if not 0 <= got <= CHUNK:
            raise OSError(f"the stream claims {got} bytes for a buffer of {CHUNK}")
        self.bytes_taken += got
        self._hungry = False
        return bytes(self._chunk[:got])

    def _go_on(self, chunk: bytes | None) -> bytes:
        """What comes next, b"" where that takes more input; ``chunk`` is what was wanted, b"" at the end."""
        try:
            made = self._pieces.send(chunk)
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
            # A signal in the middle of it: there is no going on from here, which must not look like the end.
            self._failure = ValueError("decompressing was interrupted")
            raise
        if made is None:
            self._hungry = True
            return b""
        self.bytes_made += len(made)
        if self.bytes_made > FREE_BYTES and self.bytes_made > MOST_RATIO * self.bytes_taken:
            self._failure = ValueError(
                f"the {self.compression.name} data becomes more than {MOST_RATIO} times as large, near byte "
                f"{self.bytes_taken} of the file: if it is a capture all the same, decompress it first"
            )
        return made

    def _decompress(self) -> Generator[bytes | None, bytes | None, None]:
        """Yields what comes out, and None where it wants to be sent more, b"" for the end."""
        compression = self.compression
        data = b""
        while True:
            # Here a member begins, or what follows the last one.
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
                    raise ValueError("something else follows")
                self.has_rest = True
                return
            member = self._make()
            while not member.eof:
                if member.needs_input and not data:
                    data = (yield None) or b""
                    if not data:
                        raise EOFError
                made = member.decompress(data, STEP)
                data = b""
                if made:
                    yield made
            data = member.unused_data or b""     # lz4 says None
