"""Run sgfast commands for tests: in this process if possible, or in a process of their own if necessary."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from captures import pcap_head, pcap_record
from frames import ethernet, icmp, ip, tcp, udp

import sgfast as package
from sgfast.__main__ import run
from sgfast.report import SCHEMAS, schema

PCAPS = Path(__file__).parents[2] / "pcaps"
SHOP = (str(PCAPS / "shop.yaml"), str(PCAPS / "shop.pcap"))
COMMAND = (sys.executable, "-m", "sgfast")

#: The time limit for a condition that must become true. A test that waits longer has failed.
DEADLINE_SECONDS = 60.0

POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}
      - {direction: inbound, protocol: tcp, ports: 22, source: 192.0.2.0/24}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
"""

CLIENT, SERVER, STRANGER = "198.51.100.7", "10.0.0.5", "203.0.113.9"


class Outcome:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def one_line(self) -> str:
        """Return the only message on standard error."""
        (message,) = self.messages()
        return message

    def messages(self) -> list[str]:
        """Return the messages on standard error. Each may have two lines that show a place in a document (SPEC
        11.8)."""
        assert self.err.endswith("\n") and "Traceback" not in self.err, self.err
        assert re.fullmatch(r"(sgfast: .*\n(  [0-9]+ \|.*\n +\| *\^+\n)?)+", self.err), self.err
        lines = self.err[:-1].split("\n")
        assert all(map(str.isprintable, lines)), self.err
        return [line for line in lines if line.startswith("sgfast: ")]


def sgfast(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run a command in this process."""
    capsys.readouterr()
    status = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Outcome(status, captured.out, captured.err)


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which processes import the tested package, which is not beside the tests in a wheel."""
    return {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1]), **more}


# A background job starts with interrupts ignored, and would pass that on to the commands it starts, which would then
# rightly ignore interrupts, too.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def start(*arguments: object, **options: Any) -> Any:
    """Start a command as a process, for which the caller must wait."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()} | options
    popen: Any = subprocess.Popen
    return popen([*COMMAND, *map(str, arguments)], **options)


def process(*arguments: object, **options: Any) -> Outcome:
    """Run a command as a process and wait for its end."""
    given = options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    with start(*arguments, **options) as child:
        out, err = child.communicate(given, timeout=DEADLINE_SECONDS)
    return Outcome(child.returncode, out or "", err or "")


def shell(script: str, **variables: object) -> Outcome:
    """Run a bash script, in which ``$sgfast`` is the command."""
    variables["sgfast"] = " ".join(COMMAND)
    with subprocess.Popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**{name: str(value) for name, value in variables.items()}),
    ) as child:  # fmt: skip
        out, err = child.communicate(timeout=DEADLINE_SECONDS)
    return Outcome(child.returncode, out, err)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.002)


def has_written(child: Any, folder: Path) -> bool:
    """Return whether the process has written to a file of the folder, either an unnamed or a pending one."""
    paths = list(folder.glob(".*.part"))
    with suppress(OSError):     # the process has ended
        paths += Path(f"/proc/{child.pid}/fd").iterdir()
    for path in paths:
        with suppress(OSError):
            inside = path.parent == folder or os.readlink(path).startswith(f"{folder}/#")
            if inside and path.stat().st_size:
                return True
    return False


def is_asleep(child: Any) -> bool:
    """Return whether the process is asleep according to the system (proc_pid_stat(5))."""
    return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def write_policy(folder: Path, text: str = POLICY) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def write_capture(folder: Path, *frames: bytes, name: str = "some.pcap", first_second: int = 1000) -> Path:
    """Write a capture with one frame per millisecond."""
    path = folder / name
    records = [pcap_record(f, time=(first_second + n // 1000, n % 1000 * 1000)) for n, f in enumerate(frames)]
    path.write_bytes(pcap_head() + b"".join(records))
    return path


def handshake(sport: int, dport: int, client: str = CLIENT, server: str = SERVER) -> list[bytes]:
    there, back = (client, server), (server, client)
    return [
        ethernet(ip(*ends, tcp(*ports, flags)))
        for ends, ports, flags in (
            (there, (sport, dport), "S"),
            (back, (dport, sport), "SA"),
            (there, (sport, dport), "A"),
        )
    ]


def mixture() -> list[bytes]:
    """Return packets of all kinds that lines can show: allowed, denied, moot, out of scope, local, no IP, ICMP,
    broken."""
    return [
        *handshake(1000, 80),
        *handshake(1001, 8080),
        ethernet(ip(CLIENT, SERVER, udp(53, 53))),
        ethernet(ip(CLIENT, SERVER, icmp(8, 0, 7))),
        ethernet(ip(CLIENT, STRANGER, udp(1, 2))),
        ethernet(ip(SERVER, SERVER, udp(1, 2))),
        ethernet(b"\0" * 28, 0x0806),
        ethernet(b"\x45\0\0", 0x0800),
        ethernet(ip("2001:db8::1", "2001:db8::2", udp(546, 547))),
    ]


@cache
def validator(name: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    registry: Any = Registry().with_resources(
        (published["$id"], Resource.from_contents(published)) for published in map(schema, SCHEMAS)
    )
    return Draft202012Validator(schema(name), registry=registry)


def valid(name: str, value: Any) -> Any:
    """Return ``value`` after checking it against the published schema."""
    errors = list(validator(name).iter_errors(value))
    assert not errors, errors[0]
    return value
