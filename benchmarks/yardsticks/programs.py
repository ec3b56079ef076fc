"""Programs that read a capture and filter its packets."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from . import Missing


class Tcpdump:
    """tcpdump, which writes the matching packets to /dev/null. Raises Missing if it is not installed."""

    def __init__(self) -> None:
        found = shutil.which("tcpdump")
        if found is None:
            raise Missing("tcpdump is not installed")
        # By default, tcpdump run by root switches to another user, who may not be able to read the capture.
        self._command = [found, "-n", *(["-Z", "root"] if os.geteuid() == 0 else [])]
        answer = subprocess.run([found, "--version"], capture_output=True, text=True)
        self.version = (answer.stdout + answer.stderr).split("\n")[0].removeprefix("tcpdump version ").strip()

    def write(self, path: Path, expression: str) -> None:
        """Run tcpdump on a capture. If the capture's name ends in .gz, tcpdump reads it from ``gzip -dc``."""
        if path.suffix != ".gz":
            self._write(path, expression)
            return
        with subprocess.Popen(["gzip", "-dc", path], stdout=subprocess.PIPE) as unpacking:
            self._write("-", expression, stdin=unpacking.stdout)
        if unpacking.returncode:
            raise subprocess.CalledProcessError(unpacking.returncode, unpacking.args)

    def _write(self, path: Path | str, expression: str, **options: Any) -> None:
        command = [*self._command, "-r", path, "-w", "/dev/null", expression]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, **options)

    def written(self, path: Path, expression: str) -> int:
        """Return the number of bytes that ``write`` writes: the size of the pcap file, if all packets match."""
        command = [*self._command, "-r", path, "-w", "-", expression]
        counted = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            while piece := process.stdout.read(1 << 20):
                counted += len(piece)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return counted


class Tshark:
    """tshark, which writes the matching packets to /dev/null. Raises Missing if it is not installed."""

    def __init__(self) -> None:
        found = shutil.which("tshark")
        if found is None:
            raise Missing("tshark is not installed")
        self._command = found
        answer = subprocess.run([found, "--version"], capture_output=True, text=True)
        self.version = answer.stdout.split("\n")[0].removeprefix("TShark (Wireshark) ").strip(" .")

    def write(self, path: Path, expression: str, packets: int) -> None:
        """Run tshark on the first ``packets`` packets of a capture."""
        command = [self._command, "-n", "-r", path, "-c", str(packets), "-Y", expression, "-w", "/dev/null"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
