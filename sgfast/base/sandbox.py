"""Confine the process to its input files and to the outputs that it has opened (SPEC 11.4).

Landlock decides which files can be opened, made and removed. A seccomp filter decides about everything else: it is a
program that the kernel runs before each system call. The facts are those of landlock(7), of seccomp(2), of the kernel's
list of system calls and of its header ``linux/filter.h``.
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

from sgfast.base.errors import SandboxError

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULESET_VERSION = _PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8
#: Landlock cannot forbid truncating a file before version 3. An older version cannot protect inputs.
_LEAST_VERSION = 3
#: All rights to files of version 3; the right to control devices was added in version 5.
_FILE_RIGHTS, _CONTROL_DEVICES = (1 << 15) - 1, 1 << 15
#: The rights to bind and connect TCP ports were added in version 4. The scopes of abstract sockets and signals were
#: added in version 6.
_TCP_RIGHTS = _SCOPES = 0b11

#: Shared libraries, which Python's modules load when they are imported.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")


def confine(inputs: Iterable[str], searched: Iterable[str], output_folders: Iterable[int]) -> None:
    """Confine this process for the rest of its life.

    ``inputs`` are files that stay readable; a directory among them would open everything below it. ``searched``
    are directories whose lists of names stay readable.
    ``output_folders`` are descriptors of directories: files in and below them may be made, replaced and removed. No
    file can be opened for writing any more, so outputs must be open already. Modules can still be imported. Paths that
    do not exist are skipped. Raises SandboxError if the system cannot confine the process, which should then end.
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
    # Landlock confines the calling thread and the threads that it starts later.
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


def _lacking(problem: str) -> SandboxError:
    return SandboxError(
        f"the sandbox cannot start: {problem}; leave --sandbox out, or use Linux 6.2 or newer with Landlock and seccomp"
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
    # If standard output cannot be written, the program redirects it there before it ends.
    _allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
    for folder in output_folders:
        _allow_below(ruleset, folder, _READ_DIR | _MAKE_REG | _REMOVE_FILE)
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        _done(-ctypes.get_errno())
    _done(_syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _installation() -> list[str]:
    """List the folders from which Python imports modules and the loader takes their shared libraries."""
    # The first entry is skipped: the folder of the command, or the current folder, which may hold any files.
    import_paths = sys.path[0 if sys.flags.safe_path else 1 :]
    own_folder, library = os.path.dirname(os.path.dirname(__file__)), os.path.join(sys.base_prefix, "lib")
    return [*import_paths, own_folder, library, *_LIBRARIES]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return      # opening the file for reading will report the error
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= ~_READ_DIR
        if rights:
            _allow_below(ruleset, place, rights)
    finally:
        os.close(place)


def _allow_below(ruleset: int, place: int, rights: int) -> None:
    result = _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    # Pipes and sockets are in no directory, and Landlock does not restrict them.
    if result != -errno.EBADFD:
        _done(result)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call and return its result, or the negative number of the error."""
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc().syscall(ctypes.c_long(number), *values)
    return result if result >= 0 else -ctypes.get_errno()


def _done(result: int) -> int:
    """Return the result of a system call. Raises OSError if it failed."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


# The system calls that are refused ------------------------------------------------------------------------------------

#: By architecture: its number in the kernel's audit, and its column in the tables below.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

#: The refused calls: their numbers on x86_64 and on aarch64, None where there is no such call.
REFUSED: dict[str, tuple[int, int | None]] = {
    # The network, and sockets that were inherited.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "recvfrom": (45, 207), "recvmsg": (47, 212), "recvmmsg": (299, 243), "setsockopt": (54, 208),
    # Other programs and processes.
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "vhangup": (153, 58),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # Owners, permissions, times and attributes of files, which Landlock does not control.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11),
    "llistxattr": (195, 12), "flistxattr": (196, 13), "inotify_init": (253, None), "inotify_init1": (294, 26),
    # Ways to avoid the checks of Landlock and of this filter.
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "unshare": (272, 97), "setns": (308, 268),
    "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40), "umount2": (166, 39), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429),
    "open_tree": (428, 428), "mount_setattr": (442, 442), "personality": (135, 92),
    # Parts of the kernel in which faults are often found, or that change the machine.
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None), "swapon": (167, 224), "swapoff": (168, 225),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "acct": (163, 89), "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip

#: Calls that are allowed or refused depending on an argument.
CLONE, KILL, TGKILL, PRLIMIT, IOCTL, FCNTL = (56, 220), (62, 129), (234, 131), (302, 261), (16, 29), (72, 25)
SCHED_SETAFFINITY = (203, 122)
#: The flags of ``clone3`` are in memory, which the filter cannot read. The C library uses ``clone`` if there is no
#: ``clone3``.
CLONE3 = 435
#: System calls from this number on are newer than this table. They are reported as not implemented, as are the calls of
#: the x32 interface, whose numbers are higher.
FIRST_UNKNOWN = 463
_CLONE_THREAD, _CLONE_NAMESPACES = 0x00010000, 0x7E020000
_REFUSED_IOCTLS = (
    # TIOCSTI and TIOCLINUX put characters into the terminal as if they were typed.
    0x5412, 0x541C,
    # TIOCSCTTY, TIOCSPGRP, TIOCSWINSZ, TIOCNOTTY, TIOCVHANGUP and TIOCSIG signal the terminal's processes, or change
    # which processes get the signals of its keys and of its end.
    0x540E, 0x5410, 0x5414, 0x5422, 0x5437, 0x40045436,
    # FIOSETOWN, SIOCSPGRP and FIOASYNC do what is refused for ``fcntl`` below.
    0x8901, 0x8902, 0x5452,
)  # fmt: skip
#: F_SETOWN, F_SETSIG and F_SETOWN_EX set which process a file signals when it becomes ready, and with which signal.
#: Landlock confines these signals only since version 6.
_REFUSED_FCNTLS = (8, 10, 15)
#: A file with this flag sends signals. If no receiver is set, a terminal signals all processes in its foreground.
_F_SETFL, _O_ASYNC = 4, 0x2000

#: Code, instructions to skip if true, instructions to skip if false, operand.
_Instruction = tuple[int, int, int, int]
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_REFUSE = (_RETURN, 0, 0, _ERROR | errno.EPERM)
_MISSING = (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
_PASS = (_RETURN, 0, 0, _ALLOW)
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


def program(machine: str, process: int) -> list[_Instruction]:
    """Return the instructions of the filter for an architecture of ``MACHINES``.

    ``process`` is the number of this process, the only one to which it may send a signal.
    """
    architecture, column = MACHINES[machine]
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET), (_IF_EQUAL, 1, 0, architecture), _REFUSE,
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_IF_AT_LEAST, 0, 1, FIRST_UNKNOWN), _MISSING,
        (_IF_EQUAL, 0, 1, CLONE3), _MISSING,
    ]  # fmt: skip
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            instructions += [(_IF_EQUAL, 0, 1, number), _REFUSE]
    for call, mask, needed_value in (
        (CLONE, _CLONE_THREAD | _CLONE_NAMESPACES, _CLONE_THREAD),
        (KILL, 0xFFFFFFFF, process),
        (TGKILL, 0xFFFFFFFF, process),
        (PRLIMIT, 0xFFFFFFFF, 0),
        (SCHED_SETAFFINITY, 0xFFFFFFFF, 0),
    ):
        instructions += [
            (_IF_EQUAL, 0, 5, call[column]), (_LOAD, 0, 0, _ARGUMENTS_OFFSET), (_AND, 0, 0, mask),
            (_IF_EQUAL, 0, 1, needed_value), _PASS, _REFUSE,
        ]  # fmt: skip
    without_signals = [
        (_IF_EQUAL, 0, 3, _F_SETFL), (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 16), (_AND, 0, 0, _O_ASYNC),
        (_IF_EQUAL, 0, 1, 0),
    ]  # fmt: skip
    instructions += _by_request(IOCTL[column], _REFUSED_IOCTLS, [])
    instructions += _by_request(FCNTL[column], _REFUSED_FCNTLS, without_signals)
    return [*instructions, _PASS]


def _by_request(number: int, refused: tuple[int, ...], other_requests: list[_Instruction]) -> list[_Instruction]:
    """Refuse a call if its second argument is one of the requests. ``other_requests`` judges the others: the
    instruction after it allows the call, and the next one refuses it.
    """
    tail = [*other_requests, _PASS, _REFUSE]
    tests = [(_IF_EQUAL, len(refused) - 1 - n + len(tail) - 1, 0, request) for n, request in enumerate(refused)]
    looked_at = [(_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8), *tests, *tail]
    return [(_IF_EQUAL, 0, len(looked_at), number), *looked_at]


def refuse_calls(libc: ctypes.CDLL, machine: str) -> None:
    """Make the kernel refuse these calls to the calling thread, and to processes and threads that it starts.

    The thread must have ``no_new_privs``. Raises OSError.
    """
    instructions = program(machine, os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions))
    described = struct.pack("HP", len(instructions), ctypes.addressof(code))
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), described):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
