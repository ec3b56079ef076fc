"""Confine the process to the files that it is to read and to the outputs that it has opened (SPEC 11.4).

Landlock decides which files can be opened, made and removed, ``seccomp.py`` about everything else. The facts are those
of landlock(7) and of the man pages of its system calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable

from sgfast.errors import SandboxError
from sgfast.seccomp import MACHINES, refuse_calls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULESET_VERSION = _PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8
#: Only since version 3 can Landlock forbid truncating a file. An older version cannot protect inputs.
_LEAST_VERSION = 3
#: All rights to files of version 3; the right to control devices came with version 5.
_FILE_RIGHTS, _CONTROL_DEVICES = (1 << 15) - 1, 1 << 15
#: The rights to bind and connect TCP ports came with version 4. The scopes of abstract sockets and signals came with
#: version 6.
_TCP_RIGHTS = _SCOPES = 0b11

#: Shared libraries, which Python's modules load when they are imported.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")


def confine(inputs: Iterable[str], searched: Iterable[str], output_folders: Iterable[int]) -> None:
    """Confine this process for the rest of its life.

    ``inputs`` are files that stay readable; of a directory, everything below it would. ``searched`` are directories
    whose list of names stays readable.
    ``output_folders`` are descriptors of directories: files in and below them may be made, replaced and removed. No
    file can be opened for writing any more, so outputs must be open already. Modules can still be imported. What does
    not exist is left out. Raises SandboxError if the system cannot do it; the process should then end.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES or sys.maxsize < 2**32:
        raise _lacking(f"it needs Linux and a 64-bit Python on {' or '.join(MACHINES)}")
    _refuse_threads()
    version = _syscall(_CREATE_RULESET, None, 0, _RULESET_VERSION)
    if version < 0:
        raise _lacking(f"this kernel has no Landlock ({os.strerror(-version)})")
    if version < _LEAST_VERSION:
        raise _lacking(f"this kernel has version {version} of Landlock, and {_LEAST_VERSION} is the least")
    try:
        _begin_landlock(version, inputs, searched, output_folders)
    except OSError as error:
        raise _lacking(f"this kernel refuses Landlock ({error.strerror})") from error
    try:
        refuse_calls(_libc(), machine)
    except OSError as error:
        raise _lacking(f"this kernel refuses a seccomp filter ({error.strerror})") from error


def _refuse_threads() -> None:
    # Landlock confines the calling thread and those that it starts later.
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError as error:
        raise SandboxError(
            f"the sandbox cannot start: /proc/self/task: {error.strerror}; mount /proc, or leave --sandbox out"
        ) from error
    if threads > 1:
        raise SandboxError(
            "the sandbox cannot start: a library has started threads, which would stay outside; find out which "
            "environment variable prevents that, or leave --sandbox out"
        )


def _lacking(what: str) -> SandboxError:
    return SandboxError(
        f"the sandbox cannot start: {what}; leave --sandbox out, or use Linux 6.2 or newer with Landlock and seccomp"
    )


def _begin_landlock(
    version: int, inputs: Iterable[str], searched: Iterable[str], output_folders: Iterable[int]
) -> None:
    handled = struct.pack(
        "=QQQ",
        _FILE_RIGHTS | (_CONTROL_DEVICES if version >= 5 else 0),
        _TCP_RIGHTS if version >= 4 else 0,
        _SCOPES if version >= 6 else 0,
    )
    ruleset = _done(_syscall(_CREATE_RULESET, handled, len(handled), 0))
    for path in (*inputs, *_installation()):
        _allow(ruleset, path, _READ_FILE | _READ_DIR)
    for path in searched:
        _allow(ruleset, path, _READ_DIR)
    # When standard output cannot be written, the end of the program redirects it there.
    _allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
    for folder in output_folders:
        _allow_below(ruleset, folder, _READ_DIR | _MAKE_REG | _REMOVE_FILE)
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        _done(-ctypes.get_errno())
    _done(_syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _installation() -> list[str]:
    """Folders where Python finds modules, and these find shared libraries."""
    # The first entry is the folder of the command, or the current one, which may hold anything.
    found = sys.path[0 if sys.flags.safe_path else 1 :]
    return [*found, os.path.dirname(__file__), os.path.join(sys.base_prefix, "lib"), *_LIBRARIES]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return      # whoever reads it gets the error
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= ~_READ_DIR
        if rights:
            _allow_below(ruleset, place, rights)
    finally:
        os.close(place)


def _allow_below(ruleset: int, place: int, rights: int) -> None:
    result = _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    # Pipes and sockets are in no directory, and Landlock leaves them alone.
    if result != -errno.EBADFD:
        _done(result)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """The result, or the negative number of the error."""
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc().syscall(ctypes.c_long(number), *given)
    return result if result >= 0 else -ctypes.get_errno()


def _done(result: int) -> int:
    """The result of a system call. Raises OSError if it failed."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
