"""The folder where a clustered replay keeps its files: a path or URL that all workers can access."""

from __future__ import annotations

import io
import json
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from sgfast.base.errors import ClusterError
from sgfast.base.names import printable
from sgfast.base.streams.urls import cause_of, filesystem_of, is_url
from sgfast.questions.replaying.cluster.plan import version_here


class Damaged(ClusterError):
    """Raised for a file whose content is not what was written."""


class OtherVersion(ClusterError):
    """Raised for a file that another version of sgfast has written."""


class Folder:
    """A folder of files. A file appears only once it is complete. Raises ClusterError for errors of the storage."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.is_local = not is_url(place)
        self._system, self._inner = filesystem_of(place if not self.is_local else "file://" + os.path.abspath(place))

    def path(self, name: str) -> str:
        return f"{self._inner.rstrip('/')}/{name}"

    def make(self) -> None:
        with self.errors("", "cannot be made"):
            self._system.makedirs(self._inner, exist_ok=True)

    def names(self) -> set[str]:
        """Return the names of the folder's files."""
        with self.errors("", "cannot be listed"), suppress(FileNotFoundError):
            self._system.invalidate_cache()
            return {os.path.basename(path.rstrip("/")) for path in self._system.ls(self._inner, detail=False)}
        return set()

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """Read a file, or a part of it."""
        with self.errors(name, "cannot be read"):
            end = None if size is None else start + size
            data: bytes = self._system.cat_file(self.path(name), start=start or None, end=end)
        if size is not None and len(data) != size:
            raise self.cut_short(name, len(data), size)
        return data

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""
        size = None
        with self.errors(name, "cannot be read"), suppress(FileNotFoundError):
            size = self._system.info(self.path(name)).get("size")
        return size if isinstance(size, int) else None

    def writer(self, name: str) -> Writer:
        return Writer(self, self._system, name)

    def write_document(self, name: str, content: Any) -> None:
        """Write a JSON value with the version of sgfast and a checksum."""
        document = {"version": version_here(), "content": content}
        with self.writer(name) as writer:
            writer.write(json.dumps({**document, "checksum": _document_checksum(document)}).encode())

    def read_document(self, name: str) -> Any:
        """Read the value that ``write_document`` wrote. Raises Damaged or OtherVersion."""
        try:
            document = json.loads(self.read(name))
            written = document.pop("checksum", None)
            # Earlier versions wrote no checksum.
            is_old = written is None and document["version"] != version_here()
            if not is_old and (
                document.keys() != {"version", "content"} or written != _document_checksum(document)
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self.damaged(name) from None
        if document["version"] != version_here():
            version = printable(str(document["version"]))[:40].split("/")[0]
            raise OtherVersion(f"{self.shown(name)}: was written by sgfast {version}")
        return document["content"]

    def remove(self, name: str) -> None:
        with suppress(Exception):
            self._system.rm_file(self.path(name))

    def rename(self, name: str, other: str) -> None:
        """Rename a file. An existing file ``other`` is replaced."""
        with self.errors(name, "cannot be renamed"):
            self._system.mv(self.path(name), self.path(other))

    def damaged(self, name: str) -> Damaged:
        return Damaged(f"{self.shown(name)}: is damaged")

    def cut_short(self, name: str, size: int, written: int) -> ClusterError:
        return ClusterError(f"{self.shown(name)}: has {size} bytes where {written} were written; run the replay again")

    @contextmanager
    def errors(self, name: str, task: str) -> Iterator[None]:
        """Turn all exceptions into ClusterError, because the libraries behind fsspec raise their own."""
        try:
            yield
        except Exception as error:
            raise ClusterError(f"{self.shown(name)}: {task}: {cause_of(error, self.place)}") from error

    def shown(self, name: str = "") -> str:
        """Format the name of a file, or of the folder, for messages."""
        return printable(f"{self.place.rstrip('/')}/{name}" if name else self.place)


def is_whole(value: Any, least: int, most: int) -> bool:
    """Return whether a value of a document is a whole number from ``least`` to ``most``."""
    return type(value) is int and least <= value <= most


def checksum(data: Any) -> int:
    """Return the checksum of bytes. It detects damage, but not forgery."""
    return zlib.crc32(data)


def _document_checksum(document: dict[str, Any]) -> int:
    return checksum(json.dumps(document, sort_keys=True).encode())


class Reader:
    """Read parts of files. The last file stays open, because the next part is usually in it. A context manager."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._name = ""
        self._file: io.FileIO | None = None
        self._memory = bytearray()

    def read(self, name: str, start: int, size: int) -> bytes | memoryview:
        """Read a part of a file. The result is valid until the next call."""
        if not self._folder.is_local:
            return self._folder.read(name, start, size)
        with self._folder.errors(name, "cannot be read"):
            if self._name != name or self._file is None:
                self.close()
                self._file, self._name = io.FileIO(self._folder.path(name)), name
            if len(self._memory) < size:
                self._memory = bytearray(size)
            buffer = memoryview(self._memory)[:size]
            self._file.seek(start)
            at = 0
            while at < size and (count := self._file.readinto(buffer[at:])):
                at += count
        if at < size:
            raise self._folder.cut_short(name, at, size)
        return buffer

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Writer:
    """Write a file, which appears if the context ends without an error."""

    def __init__(self, folder: Folder, system: Any, name: str) -> None:
        self._folder, self._system, self._name = folder, system, name
        # Object storage shows only complete uploads. A file system shows incomplete files, so write under another name.
        self._part = f".{name}.{secrets.token_hex(4)}.part" if folder.is_local else name
        self.size = 0

    def __enter__(self) -> Writer:
        with self._errors():
            self._file = self._system.open(self._folder.path(self._part), "wb")
        return self

    def write(self, data: Any) -> int:
        """Write ``data`` and return its position in the file."""
        began = self.size
        with self._errors():
            self._file.write(data)
        self.size += len(data)
        return began

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is not None:
            self.discard()
        else:
            self.publish()

    def discard(self) -> None:
        with suppress(Exception):
            if self._folder.is_local:
                self._file.close()
            else:
                self._file.discard()
        if self._folder.is_local:
            self._folder.remove(self._part)

    def publish(self) -> None:
        with self._errors():
            try:
                self._file.close()
                if self._folder.is_local:
                    os.replace(self._folder.path(self._part), self._folder.path(self._name))
            except Exception:
                if self._folder.is_local:
                    self._folder.remove(self._part)
                raise

    def _errors(self) -> AbstractContextManager[None]:
        return self._folder.errors(self._name, "cannot be written")
