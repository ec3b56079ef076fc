"""Programs that read a capture and decide about each packet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from . import Missing


class Tcpdump:
    """tcpdump, which writes the matching packets to /dev/null. Raises Missing."""

    def __init__(self) -> None:
        found = shutil.which("tcpdump")
        if found is None:
            raise Missing("tcpdump is not installed")
        # By default, tcpdump run by root switches to another user, who may not be able to read the capture.
        self._command = [found, "-n", *(["-Z", "root"] if os.geteuid() == 0 else [])]
        said = subprocess.run([found, "--version"], capture_output=True, text=True)
        self.version = (said.stdout + said.stderr).split("\n")[0].removeprefix("tcpdump version ").strip()

    def write(self, path: Path, expression: str) -> None:
        subprocess.run(
            [*self._command, "-r", path, "-w", "/dev/null", expression], check=True, stderr=subprocess.DEVNULL
        )

    def written(self, path: Path, expression: str) -> int:
        """The number of bytes that ``write`` writes: the size of the pcap file, if all packets match."""
        command = [*self._command, "-r", path, "-w", "-", expression]
        counted = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            while piece := process.stdout.read(1 << 20):
                counted += len(piece)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return counted
