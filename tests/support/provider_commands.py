"""``aws`` and ``openstack`` for tests of scripts: the real programs, each started once and not for every call.

    python provider_commands.py serve SOCKET aws        runs commands that come through the socket, one by one
    python provider_commands.py call SOCKET WORD...     has a command run there, and ends as it did

Only modules of Python are imported here, because another interpreter may run it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

STARTS_WITHIN_SECONDS = 60


@contextlib.contextmanager
def provider_command(name: str, folder: Path, python: list[str], environment: Mapping[str, str]) -> Iterator[str]:
    """A PATH that has the command. ``python``: the interpreter that has the program."""
    path, bin = folder / "socket", folder / "bin"
    bin.mkdir()
    (bin / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" call "{path}" "$@"\n')
    (bin / name).chmod(0o755)
    server = subprocess.Popen(
        [*python, __file__, "serve", str(path), name], env=dict(environment), stdout=subprocess.PIPE,
        stdin=subprocess.PIPE, cwd=folder,
    )  # fmt: skip
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        yield f"{bin}:{os.environ['PATH']}"
    finally:
        server.kill()
        server.wait()


def executed(script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run an exported script."""
    (folder / "apply.sh").write_text(script)
    command = ["sh", str(folder / "apply.sh")]
    return subprocess.run(command, env=dict(environment), text=True, capture_output=True, timeout=300)


def _aws() -> Callable[[list[str]], int]:
    from awscli.clidriver import create_clidriver  # type: ignore[import-not-found]

    driver = create_clidriver()
    # This reads the description of EC2 once, and calls nothing.
    _run(driver.main, ["ec2", "describe-vpcs", "--generate-cli-skeleton"])
    return lambda words: driver.main(words)


def _openstack() -> Callable[[list[str]], int]:
    from openstackclient import shell  # type: ignore[import-not-found]

    return lambda words: shell.main(words)


def _run(run: Callable[[list[str]], int], words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run(words)
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else 1
    return status or 0, out.getvalue(), err.getvalue()


def serve(path: str, name: str) -> None:
    run = {"aws": _aws, "openstack": _openstack}[name]()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while True:
            # Each command runs in a copy of this process, because the programs keep things of earlier commands.
            with listening.accept()[0] as connection:
                if (child := os.fork()) == 0:
                    with connection.makefile("rwb") as stream:
                        words = json.loads(stream.readline())
                        stream.write(json.dumps(_run(run, words)).encode() + b"\n")
                    os._exit(0)
            os.waitpid(child, 0)


def call(path: str, words: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with connection.makefile("rwb") as stream:
            stream.write(json.dumps(words).encode() + b"\n")
            stream.flush()
            status, out, err = json.loads(stream.readline())
    sys.stdout.write(out)
    sys.stderr.write(err)
    return int(status)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        sys.exit(call(sys.argv[2], sys.argv[3:]))
