"""DPDK's packet classifier and its hash table, in a separate process (``dpdk.c``)."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgfast import HEADER_DTYPE
from sgfast.policy.model import Policy

from . import Missing, compiled, inbound_rules

SOURCE = Path(__file__).with_name("dpdk.c")
FLAGS = ("-O3", "-std=gnu11", "-Wall", "-Wextra")


class Classifier(NamedTuple):
    """Process that runs rte_acl, in all variants that DPDK has for this CPU."""

    process: _Process
    winners_file: Path

    @property
    def variants(self) -> Sequence[str]:
        return self.process.measures

    def match(self, variant: str) -> float:
        return self.process.seconds(variant)

    def winners(self) -> NDArray[np.int32]:
        """Return the winning rules of the last ``match``: numbers, -1 for none, -2 if the receiver is no instance."""
        return np.fromfile(self.winners_file, dtype=np.int32)


class FlowTable(NamedTuple):
    """Process that runs rte_hash, filled with the flows of a capture."""

    process: _Process

    def look_up(self) -> float:
        """Look up each packet's flow. The process fails if a result differs from the value it stored."""
        return self.process.seconds("lookup")


class Dpdk:
    """The program ``dpdk.c``, built in ``folder``. Raises Missing if it cannot be built."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("pkg-config") is None:
            raise Missing("pkg-config is not installed")
        self.version = _pkg_config("--modversion")[0]
        self._folder = folder
        before, after = [*FLAGS, *_pkg_config("--cflags")], _pkg_config("--libs")
        self._program = compiled(SOURCE, folder / "yardstick", before, after)

    @contextmanager
    def classifier(self, policy: Policy, headers: NDArray[Any]) -> Iterator[Classifier]:
        """Start a classifier for a policy made by ``workload.make_policy``, and openers from outside."""
        assert headers.dtype == HEADER_DTYPE
        groups = {group.name: number for number, group in enumerate(policy.security_groups)}
        owners = [(int(i.addresses[0].network_address), groups[i.security_groups[0]]) for i in policy.instances]
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            rules, owned, rows, winners = (Path(name) / part for part in ("rules", "owners", "headers", "winners"))
            inbound_rules(policy)[0].tofile(rules)
            np.array(owners, dtype="<u4").tofile(owned)
            headers.tofile(rows)
            with self._process("acl", rules, owned, rows, winners) as process:
                yield Classifier(process, winners)

    @contextmanager
    def prefix_classifier(self, rules: NDArray[Any], headers: NDArray[Any]) -> Iterator[Classifier]:
        """Start a classifier for rules with destinations instead of groups (``classbench.PREFIX_RULE``)."""
        assert headers.dtype == HEADER_DTYPE
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            written, rows, winners = (Path(name) / part for part in ("rules", "headers", "winners"))
            rules.tofile(written)
            headers.tofile(rows)
            with self._process("prefixes", written, rows, winners) as process:
                yield Classifier(process, winners)

    @contextmanager
    def flow_table(self, capture: Path, flows: int) -> Iterator[FlowTable]:
        """Start a flow table for an IPv4 capture. ``flows`` is the number of flows in it."""
        with self._process("hash", capture, str(flows)) as process:
            yield FlowTable(process)

    @contextmanager
    def _process(self, *arguments: str | Path) -> Iterator[_Process]:
        process = _Process([self._program, *arguments], self._folder)
        try:
            yield process
        finally:
            process.close()


#: The exit status of dpdk.c for a wrong result. Any other failure means that the yardstick is not available.
_WRONG = 2


class _Ended(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Process:
    """A process of ``dpdk.c``. It waits for commands, and is idle while other programs are measured."""

    def __init__(self, command: Sequence[str | Path], folder: Path) -> None:
        # Without this variable, EAL leaves files in the system's run-time directory.
        environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder)}
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )
        try:
            ready, *self.measures = self._answer().split()
        except _Ended as error:
            self.close()
            if error.status == _WRONG:
                raise
            raise Missing(str(error)) from None
        assert ready == "ready"

    def seconds(self, measure: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(measure + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            messages = self._errors.read().decode(errors="replace").strip()
            raise _Ended(status, f"DPDK's process ended with status {status}: {messages or 'no message'}")
        return line

    def close(self) -> None:
        with self._process:  # closes the process's input and waits for its end
            pass
        self._errors.close()


def _pkg_config(option: str) -> list[str]:
    answer = subprocess.run(["pkg-config", option, "libdpdk"], capture_output=True, text=True)
    if answer.returncode:
        raise Missing("libdpdk-dev is not installed")
    return shlex.split(answer.stdout)
