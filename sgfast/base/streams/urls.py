"""Captures at URLs, such as ``s3://bucket/monday.pcap.gz``, through fsspec (the extra ``dask``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sgfast.base.errors import CaptureError, pip_install
from sgfast.base.names import is_host_doubtful, printable

#: Bytes per request. The number is large because a request takes tens of milliseconds, whatever its size.
READ_AHEAD = 8 * 1024 * 1024

#: Seconds without a byte after which a web server counts as unreachable.
SILENCE = 300

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB_URL = re.compile(r"https?://", re.IGNORECASE)


def is_url(path: str) -> bool:
    return _URL.match(path) is not None


def is_web_url(path: str) -> bool:
    """Return whether a web server has the file. Web servers list no files, and are asked only for whole files."""
    return _WEB_URL.match(path) is not None


def filesystem_of(path: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL and the path in it. Raises CaptureError if there is no such file system."""
    name = printable(path)
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise CaptureError(f"{name}: a URL needs fsspec: {pip_install('dask')}, or give a path") from None
    try:
        system, inner = url_to_fs(path)
    except ImportError as error:
        # The error names the missing package: "Install s3fs to access S3".
        raise CaptureError(f"{name}: cannot be reached: {cause_of(error, path)}") from error
    except Exception as error:
        raise CaptureError(f"{name}: cannot be opened: {cause_of(error, path)}") from error
    return system, inner


def cause_of(error: BaseException, url: str = "") -> str:
    """Return the cause of an exception about a URL on one line, shortened: cloud libraries may raise long messages."""
    if is_host_doubtful(url):
        return "write / ? # and @ in its user name and password as %2F %3F %23 %40"
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return printable(text.splitlines()[0])[:300]


class UrlStream:
    """An fsspec file as a capture stream. Exceptions of the underlying library become OSError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readinto(self, buffer: memoryview) -> int:
        return int(self._call(self._file.readinto, buffer))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._call(self._file.seek, offset, whence))

    def read(self, length: int = -1) -> bytes:
        return bytes(self._call(self._file.read, length))

    def tell(self) -> int:
        return int(self._call(self._file.tell))

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except (OSError, ValueError):
            raise
        except Exception as error:
            raise OSError(cause_of(error)) from error

    def close(self) -> None:
        self._file.close()


def open_url(path: str, *, at_any_place: bool = False) -> UrlStream:
    """Open the file at a URL without decompressing it. Raises CaptureError if it cannot be opened.

    ``at_any_place``: only some parts of the file are read, each with one request of its size.
    """
    system, inner = filesystem_of(path)
    try:
        if at_any_place:
            return UrlStream(system.open(inner, "rb", cache_type="none"))
        if is_web_url(path):
            return UrlStream(_open_at_web_server(system, inner))
        if system.isdir(inner):
            raise IsADirectoryError
        return UrlStream(system.open(inner, "rb", block_size=READ_AHEAD, cache_type="readahead"))
    except FileNotFoundError:
        cause = "does not exist; check the URL"
        if is_web_url(path):
            cause += ", and name each capture, as patterns do not work with web servers"
    except IsADirectoryError:
        cause = "is a directory; name a capture file in it"
    except PermissionError as error:
        cause = f"may not be read; check its permissions and your credentials ({cause_of(error, path)})"
    except Exception as error:
        cause = f"cannot be opened: {cause_of(error, path)}"
    raise CaptureError(f"{printable(path)}: {cause}")


def _open_at_web_server(system: Any, url: str) -> Any:
    # Request one response and read it while it arrives. All other ways read whole responses into memory: `isdir` reads
    # the file itself, to look for links in it, and fsspec's read-ahead file reads the complete answer to each request.
    from aiohttp import ClientTimeout

    # If a size is given, fsspec does not request it first; a stream does not use the size.
    return system.open(url, "rb", block_size=0, size=1, timeout=ClientTimeout(total=None, sock_read=SILENCE))


def modified_at(path: str) -> datetime | None:
    """Return when the file at a URL was last modified, in UTC; None if the store does not say."""
    try:
        system, inner = filesystem_of(path)
        modified: datetime = system.modified(inner)
        return modified.astimezone(UTC) if modified.tzinfo else modified.replace(tzinfo=UTC)
    except Exception:
        return None


def is_url_directory(path: str) -> bool:
    if is_web_url(path):
        return False
    system, inner = filesystem_of(path)
    try:
        return bool(system.isdir(inner))
    except Exception as error:
        raise CaptureError(f"{printable(path)}: cannot be read: {cause_of(error, path)}") from error


def urls_in(path: str, *, is_pattern: bool) -> list[str]:
    """Return the URLs of the files in a directory or matched by a pattern."""
    system, inner = filesystem_of(path)
    try:
        entries = system.glob(inner) if is_pattern else system.ls(inner, detail=False)
        return [system.unstrip_protocol(file) for file in entries if system.isfile(file)]
    except FileNotFoundError:
        return []
    except Exception as error:
        raise CaptureError(f"{printable(path)}: cannot be read: {cause_of(error, path)}") from error


def url_identity(path: str) -> tuple[int | None, str]:
    """Return size and version of the file at a URL. An unknown size is None, an unknown version is empty.

    The version is a text that changes when the file changes.
    """
    try:
        system, inner = filesystem_of(path)
        info = system.info(inner)
    except Exception:
        return None, ""     # reported when the file is opened
    size = info.get("size")
    return size if isinstance(size, int) else None, str(info.get("ETag") or info.get("mtime") or info.get("etag") or "")
