"""Act like a process that a hostile file has taken over: try forbidden operations, in a sandbox or free.

``python tests/support/break_out.py free|confined FOLDER`` prints, as JSON, the error number of each attempt. 0 means
success. FOLDER must be made by ``prepare``.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sgfast.base.sandbox import confine

_PTRACE_TRACEME, _CLONE_FILES = 0, 0x400
#: The numbers of the system calls ptrace, unshare and io_uring_setup.
_PTRACE, _UNSHARE = {"x86_64": (101, 272), "aarch64": (117, 97)}.get(os.uname().machine, (-1, -1))
_IO_URING_SETUP = 425
#: Linux's request numbers for fcntl and ioctl.
_F_SETSIG, _F_SETOWN_EX, _F_OWNER_PGRP = 10, 15, 2
_FIOSETOWN, _SIOCSPGRP, _FIOASYNC, _TIOCSWINSZ, _TIOCSIG = 0x8901, 0x8902, 0x5452, 0x5414, 0x40045436


def prepare(folder: Path) -> None:
    """Make two inputs, an output folder with another file in it, and a file that no command may read or write."""
    (folder / "inputs").mkdir()
    (folder / "outputs").mkdir()
    for name in ("input", "inputs/one", "inputs/two", "outputs/neighbour", "secret"):
        (folder / name).write_text("content")


def _system_call(*numbers: Any) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(*numbers)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def _open(path: str, flags: int = os.O_RDONLY) -> None:
    os.close(os.open(path, flags, 0o666))


def _fork() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def _run() -> None:
    os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", ""], {}), 0)


def _read_in_thread(path: str) -> None:
    failed: list[OSError] = []

    def read() -> None:
        try:
            _open(path)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _attempts(
    output: int, server: socket.socket, client: socket.socket, pipe: int, other_pipe: int, master: int, terminal: int
) -> dict[str, Callable[[], object]]:
    # The pipe whose signals are turned on has no owner, so a process outside a sandbox sends no signals.
    parent = os.getppid()
    group = struct.pack("ii", _F_OWNER_PGRP, os.getpgid(parent))
    return {
        "read an input": lambda: _open("input"),
        "read an input in a thread": lambda: _read_in_thread("input"),
        "read in an input directory": lambda: _open("inputs/one"),
        "list an input directory": lambda: os.listdir("inputs"),
        "import a module": lambda: importlib.import_module("wave"),
        "write to an open output": lambda: os.write(output, b"x"),
        "give an output its name": lambda: os.replace("outputs/new", "outputs/newer"),
        "write to the null device": lambda: _open(os.devnull, os.O_WRONLY),
        "signal itself": lambda: os.kill(os.getpid(), 0),
        "read another file": lambda: _open("secret"),
        "read another file in a thread": lambda: _read_in_thread("secret"),
        "read the users of the machine": lambda: _open("/etc/passwd"),
        "list another folder": lambda: os.listdir("."),
        "read the environment of a process": lambda: _open("/proc/self/environ"),
        "make a file beside an input": lambda: _open("beside", os.O_WRONLY | os.O_CREAT),
        "write into a file beside an output": lambda: _open("outputs/neighbour", os.O_WRONLY),
        "write into a new file beside an output": lambda: _open("outputs/more", os.O_WRONLY | os.O_CREAT),
        "make a link beside an output": lambda: os.symlink("secret", "outputs/link"),
        "write into an input": lambda: _open("input", os.O_WRONLY),
        "write into an input directory": lambda: _open("inputs/more", os.O_WRONLY | os.O_CREAT),
        "empty an input while it is opened for reading": lambda: _open("input", os.O_RDONLY | os.O_TRUNC),
        "empty an input": lambda: os.truncate("inputs/one", 0),
        "remove an input": lambda: os.unlink("inputs/two"),
        "change the permissions of an input": lambda: os.chmod("input", 0o600),
        "change the permissions of an open file": lambda: os.fchmod(output, 0o600),
        "change the times of an input": lambda: os.utime("input"),
        "connect over TCP": lambda: socket.create_connection(server.getsockname()).close(),
        "connect a socket that was there before": lambda: client.connect(server.getsockname()),
        "make a UDP socket": lambda: socket.socket(type=socket.SOCK_DGRAM).close(),
        "make a Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "fork": _fork,
        "run a program": _run,
        "signal another process": lambda: os.kill(os.getppid(), 0),
        "be traced": lambda: _system_call(_PTRACE, _PTRACE_TRACEME, 0, 0, 0),
        "leave what it shares with its threads": lambda: _system_call(_UNSHARE, _CLONE_FILES),
        "let a pipe signal another process": lambda: fcntl.fcntl(pipe, fcntl.F_SETOWN, parent),
        "let a pipe signal a group of processes": lambda: fcntl.fcntl(pipe, _F_SETOWN_EX, group),
        "choose the signal of a pipe": lambda: fcntl.fcntl(pipe, _F_SETSIG, signal.SIGTERM),
        "turn on the signals of a pipe": lambda: fcntl.fcntl(other_pipe, fcntl.F_SETFL, os.O_ASYNC),
        "turn on the signals of a terminal": lambda: fcntl.ioctl(terminal, _FIOASYNC, struct.pack("i", 1)),
        "let a socket signal another process": lambda: fcntl.ioctl(client, _FIOSETOWN, struct.pack("i", parent)),
        "let a socket signal a group of processes": lambda: fcntl.ioctl(client, _SIOCSPGRP, struct.pack("i", -parent)),
        "change the size of a terminal": lambda: fcntl.ioctl(terminal, _TIOCSWINSZ, struct.pack("HHHH", 5, 5, 0, 0)),
        "signal those at a terminal": lambda: fcntl.ioctl(master, _TIOCSIG, signal.SIGINT),
        "set up io_uring": lambda: os.close(_system_call(_IO_URING_SETUP, 1, ctypes.create_string_buffer(256))),
    }


def main() -> None:
    mode, folder = sys.argv[1:]
    os.chdir(folder)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        output = os.open("outputs/new", os.O_WRONLY | os.O_CREAT)
        (pipe, _), (other_pipe, _) = os.pipe(), os.pipe()
        master, terminal = os.openpty()
        if mode == "confined":
            confine(["input", "inputs"], [], [os.open("outputs", os.O_PATH)])
        found = {}
        for name, attempt in _attempts(output, server, client, pipe, other_pipe, master, terminal).items():
            try:
                attempt()
                found[name] = 0
            except OSError as error:
                found[name] = error.errno or -1
    print(json.dumps(found))


if __name__ == "__main__":
    main()
