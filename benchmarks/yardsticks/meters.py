"""Flow meters: programs that group a capture's packets into flows.

Each reports how many packets it read. Its time only counts if it read all packets, because a program that stops early
or skips packets would seem fast.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from measure import timed

from . import Missing

#: A configuration without rules, logs and statistics. Decoding, flows and TCP reassembly are as by default.
SURICATA_CONFIGURATION = """\
%YAML 1.1
---
stats: {enabled: no}
outputs: []
logging: {outputs: [{console: {enabled: yes, level: notice}}]}
pcap-file: {checksum-checks: no}
"""


class Meter(NamedTuple):
    """``run`` reads a capture and returns seconds and the number of packets read. ``slow``: use a short capture."""

    name: str
    title: str
    version: str
    slow: bool
    run: Callable[[Path], tuple[float, int]]

    def seconds(self, path: Path, packets: int) -> float:
        """Run the meter and return the seconds. Raises Missing if it fails or does not read all packets."""
        seconds, read = self.run(path)
        if read != packets:
            raise Missing(f"it read {read:,} of {packets:,} packets")
        return seconds


def nfpcapd(folder: Path) -> Meter:
    """Find nfpcapd of nfdump, which makes flows with timeouts and writes them to ``folder``. Raises Missing."""
    program = _found("nfpcapd", "nfdump")

    def run(path: Path) -> tuple[float, int]:
        with tempfile.TemporaryDirectory(dir=folder) as flows:
            return _whole([program, "-r", str(path), "-w", flows], r"Processed: (\d+), skipped: 0, short caplen: 0,")

    version = re.search(r"Version: ([\d.]+)", _output_of([program, "-V"]))
    return Meter("nfpcapd", "whole process", version[1] if version else "?", False, run)


def suricata(folder: Path) -> Meter:
    """Find Suricata, to run in one thread with SURICATA_CONFIGURATION. Raises Missing."""
    program = _found("suricata", "suricata")
    configuration = folder / "suricata.yaml"
    configuration.write_text(SURICATA_CONFIGURATION)
    command = [program, "-c", str(configuration), "-S", os.devnull, "-l", str(folder), "--runmode", "single", "-r"]

    def run(path: Path) -> tuple[float, int]:
        return _whole([*command, str(path)], r"read 1 file, (\d+) packets")

    version = re.search(r"version ([\d.]+)", _output_of([program, "-V"]))
    return Meter("suricata", "whole process", version[1] if version else "?", False, run)


def nfstream(folder: Path) -> Meter:
    """Find NFStream, with one metering and one collecting process, without payload dissection. Raises Missing."""
    del folder
    try:
        version = metadata.version("nfstream")
    except metadata.PackageNotFoundError:
        raise Missing("it is not installed") from None

    def run(path: Path) -> tuple[float, int]:
        # Use a new process, because NFStream's processes would otherwise be copies of this one with all its memory.
        command = [sys.executable, "-m", "yardsticks.meters", str(path.resolve())]
        seconds, read = json.loads(_output_of(command, folder=Path(__file__).parents[1]).splitlines()[-1])
        return seconds, read

    return Meter("nfstream", "without its start", version, True, run)


ALL: dict[str, Callable[[Path], Meter]] = {"nfpcapd": nfpcapd, "suricata": suricata, "nfstream": nfstream}


def _found(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Missing("it is not installed" if program == package else f"{package} is not installed")
    return found


def _whole(command: Sequence[str], count: str) -> tuple[float, int]:
    """Run a process. Return its seconds, and the number that the pattern ``count`` finds in its output."""
    output: list[str] = []
    seconds = timed(lambda: output.append(_output_of(command)))()
    found = re.search(count, output[0])
    if found is None:
        last = output[0].strip().splitlines()[-1:] or ["nothing"]
        raise Missing(f"it did not report that it read all packets, but: {last[0]}")
    return seconds, int(found[1])


def _output_of(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a command and return its standard output and error. Raises Missing if it fails."""
    ran = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        last = ran.stdout.strip().splitlines()[-1:] or ["nothing"]
        raise Missing(f"it ended with status {ran.returncode}: {last[0]}")
    return ran.stdout


def _count_with_nfstream(path: str) -> int:
    from nfstream import NFStreamer

    flows = NFStreamer(source=path, n_dissections=0, statistical_analysis=False, n_meters=1)
    return sum(flow.bidirectional_packets for flow in flows)


if __name__ == "__main__":
    counted: list[int] = []
    import nfstream as _imported_before  # noqa: F401 - so that the import is not measured

    print(json.dumps([timed(lambda: counted.append(_count_with_nfstream(sys.argv[1])))(), counted[0]]))
