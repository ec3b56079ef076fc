"""``aws`` and ``openstack`` for tests of scripts: the real programs, each started only once instead of for each call.

    python provider_commands.py aws FOLDER    runs the commands that arrive through the folder's pipes, one by one

This file imports only Python's own modules, because another interpreter may run it.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

#: The command is a shell script, because a shell starts much faster than Python.
_COMMAND = """#!/bin/sh
cd "{folder}" || exit
printf '%s\\0' "$@" >requests
read -r status <answers
cat out
cat err >&2
exit "$status"
"""


@contextlib.contextmanager
def provider_command(name: str, folder: Path, python: list[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a PATH that contains the command. ``python`` is the interpreter that has the program."""
    bin = folder / "bin"
    bin.mkdir()
    (bin / name).write_text(_COMMAND.format(folder=folder))
    (bin / name).chmod(0o755)
    for pipe in ("requests", "answers"):
        os.mkfifo(folder / pipe)
    server = subprocess.Popen(
        [*python, __file__, name, folder], env=dict(environment), stdout=subprocess.PIPE, stdin=subprocess.PIPE,
        cwd=folder,
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
    # This loads the description of EC2 and makes a client once, without calling the server.
    _run(driver.main, ["ec2", "describe-vpcs", "--generate-cli-skeleton"])
    driver.session.create_client("ec2")
    return lambda words: driver.main(words)


def _openstack() -> Callable[[list[str]], int]:
    from openstackclient import shell  # type: ignore[import-not-found]

    # This finds and imports all of the client's modules once, without calling the server.
    _run(shell.main, ["security", "group", "create", "--help"])
    return lambda words: shell.main(words)


def _run(run: Callable[[list[str]], int], words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run(words)
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else 1
    return status or 0, out.getvalue(), err.getvalue()


def serve(name: str, folder: Path) -> None:
    run = {"aws": _aws, "openstack": _openstack}[name]()
    print("ready", flush=True)
    while True:
        words = (folder / "requests").read_text().split("\0")[:-1]
        # Each command runs in a copy of this process, because the programs keep state of earlier commands.
        if (child := os.fork()) == 0:
            status, out, err = _run(run, words)
            for file, text in (("out", out), ("err", err), ("answers", f"{status}\n")):
                (folder / file).write_text(text)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
