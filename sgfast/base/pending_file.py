"""A regular file that is written under a temporary name, and gets its own name when it is complete (SPEC 11).

    no name (O_TMPFILE), or .NAME.sgfast-xxxxxxxx.part  --give_name-->  that name  --appear-->  NAME

All paths are resolved as the kernel resolves them, relative to an open folder: ``nope/../file`` is no file if there is
no ``nope``. A process holds a lock on the file that it writes. The lock distinguishes a file that is being written
from the remains of a killed run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress

from sgfast.base.errors import OutputError

#: The number of temporary names to try.
_NAME_ATTEMPTS = 100
#: The most symbolic links to follow, as in Linux.
_MAX_LINKS = 40
#: The most characters of the file's name in a temporary name: each takes up to 4 bytes, and names up to 255 bytes.
_SHOWN_CHARACTERS = 50
#: The errors of a file system that cannot sync, lock or make nameless files.
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EISDIR, errno.ENOLCK)
_MEANWHILE = "another file appeared there meanwhile; it was not replaced"
#: Opens a folder only as a base for paths, which also works if the folder may not be listed.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_TMPFILE = getattr(os, "O_TMPFILE", None)


def locate(path: str) -> tuple[int, str]:
    """Return an open descriptor of the folder that ``path`` leads to, and the name in it. Symbolic links are followed,
    even to a file that does not exist. Raises OSError.
    """
    folder: int | None = None
    for _ in range(_MAX_LINKS):
        head, name = os.path.split(path)
        outer = folder
        try:
            folder = os.open(head or ".", _FOLDER, dir_fd=outer)
        finally:
            if outer is not None:
                os.close(outer)
        try:
            if name in ("", ".", ".."):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            path = os.readlink(name, dir_fd=folder)
        except OSError as error:
            # The name is no symbolic link, or does not exist.
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return folder, name
            os.close(folder)
            raise
    assert folder is not None
    os.close(folder)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


class PendingFile:
    """A file that is being written. Its ``descriptor`` is valid until the file appears or is discarded."""

    def __init__(self, shown: str, path: str) -> None:
        """``shown``: the file's name in messages. Raises OSError, or OutputError if a file must not be replaced."""
        self._shown = shown
        self._temporary: str | None = None
        self._folder, self._name = locate(path)
        try:
            self._old_status = self._status()
            if self._old_status is not None:
                self._refuse_irreplaceable(self._old_status)
            #: Whether a killed run had left remains of this file, which were removed.
            self.found_remains: bool = self._remove_remains()
            self.descriptor: int = self._create()
        except BaseException:
            os.close(self._folder)
            raise
        try:
            self._take_over()
        except BaseException:
            os.close(self.descriptor)
            self.close()
            raise

    @property
    def folder(self) -> int:
        """A descriptor of the directory in which the file will appear."""
        return self._folder

    def sync(self) -> None:
        """Write the content from memory to the disk."""
        _sync(self.descriptor)

    def give_name(self) -> None:
        """Give a nameless file a temporary name in its folder."""
        while self._temporary is None:
            name = self._temporary_name()
            with suppress(FileExistsError):
                # With a dir_fd, Python calls linkat(), which follows the link to the open file.
                os.link(
                    f"/proc/self/fd/{self.descriptor}", name, src_dir_fd=self._folder, dst_dir_fd=self._folder,
                    follow_symlinks=True,
                )  # fmt: skip
                self._temporary = name

    def refuse_changed_place(self) -> None:
        """Raise OutputError if the file at the path is another one than when writing began."""
        now = self._status()
        if now is not None and (self._old_status is None or _identity(now) != _identity(self._old_status)):
            raise OutputError(f"{self._shown}: {_MEANWHILE}")

    def appear(self) -> None:
        assert self._temporary is not None
        os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._temporary = None

    def sync_folder(self) -> None:
        """Write the folder's entries from memory to the disk."""
        with suppress(PermissionError):
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                _sync(folder)
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Remove the file, unless it has appeared."""
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
            self._temporary = None

    def close(self) -> None:
        """Discard the file, and close the folder. The owner of the descriptor must close the descriptor."""
        self.discard()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _status(self) -> os.stat_result | None:
        try:
            return os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _refuse_irreplaceable(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise OutputError(f"{self._shown}: {_MEANWHILE}")
            # Root may write every file, but a file without any write permission is not to be replaced.
        anyone = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
        if not status.st_mode & anyone or not os.access(self._name, os.W_OK, dir_fd=self._folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _temporary_name(self) -> str:
        return f".{self._name[:_SHOWN_CHARACTERS]}.sgfast-{os.urandom(4).hex()}.part"

    def _create(self) -> int:
        # The umask limits the permissions of a new file.
        if _TMPFILE is not None and os.path.exists("/proc/self/fd"):
            try:
                descriptor = os.open(".", _TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=self._folder)
                _lock(descriptor)
                return descriptor
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
        for _ in range(_NAME_ATTEMPTS):
            name = self._temporary_name()
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                descriptor = os.open(name, flags, 0o666, dir_fd=self._folder)
            except FileExistsError:
                continue
            # Another run may have removed the file as remains before it was locked.
            if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
                self._temporary = name
                return descriptor
            os.close(descriptor)
        raise FileExistsError(errno.EEXIST, "no temporary name is free")

    def _take_over(self) -> None:
        """Copy owner and permissions from the file that will be replaced."""
        if self._old_status is None:
            return
        old_status, new_status = self._old_status, os.fstat(self.descriptor)
        if (old_status.st_uid, old_status.st_gid) != (new_status.st_uid, new_status.st_gid):
            try:
                os.fchown(self.descriptor, old_status.st_uid, old_status.st_gid)
            except PermissionError:
                raise OutputError(
                    f"{self._shown}: has another owner or group, which cannot be kept; name another file, or remove it"
                ) from None
        os.fchmod(self.descriptor, stat.S_IMODE(old_status.st_mode))

    def _remove_remains(self) -> bool:
        pattern = re.compile(re.escape(f".{self._name[:_SHOWN_CHARACTERS]}.sgfast-") + r"[0-9a-f]{8}\.part")
        try:
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        except PermissionError:
            return False
        try:
            names = [name for name in os.listdir(folder) if pattern.fullmatch(name)]
        finally:
            os.close(folder)
        return any([self._remove_if_abandoned(name) for name in names])

    def _remove_if_abandoned(self, name: str) -> bool:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return False
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _lock(descriptor):
                return False
            os.unlink(name, dir_fd=self._folder)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _lock(descriptor: int) -> bool | None:
    """Lock a file, and return whether that worked. False: another process has the lock; None: no lock is possible."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
