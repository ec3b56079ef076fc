"""What every recording script does: tcpdump in a lab, and being a program that ends whatever happens."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import services
from lab import Lab, LabError, NoLabError

#: Enough for every header, that of a packet quoted in an ICMPv6 error too.
SNAP_LENGTH = 112


def start_dump(lab: Lab, host: str, device: str, output: Path, *expression: str) -> subprocess.Popen[bytes]:
    """tcpdump, listening. ``expression``: which packets; all of them without."""
    dump = lab.start(
        host, "tcpdump", "-i", device, "-w", str(output), "-s", str(SNAP_LENGTH), "-Z", "root",
        "--time-stamp-precision=nano", "--immediate-mode", "-U", *expression,
    )  # fmt: skip
    lab.wait_for(lambda: "listening on" in lab.log(host, "tcpdump"), f"tcpdump on {host}")
    return dump


def complain_about_losses(lab: Lab, host: str, capture: str) -> None:
    said = lab.log(host, "tcpdump")
    if not re.search(r"(?m)^0 packets dropped by kernel", said):
        raise LabError(f"{capture}.pcap is not complete: {said}")


def check(parser: argparse.ArgumentParser, output: Path, programs: Mapping[str, str]) -> None:
    """Ends the script if it cannot record here."""
    if not output.is_dir():
        parser.error(f"no such directory: {output}")
    if os.geteuid() != 0:
        parser.error("needs root, for network namespaces")
    if absent := services.missing(programs):
        names, packages = ", ".join(absent), " ".join(sorted(set(absent.values())))
        parser.error(f"not installed: {names} (Debian: apt-get install {packages})")


def run(parser: argparse.ArgumentParser, limit_seconds: int, record: Callable[[], None]) -> None:
    """Records, for so long at most; everything is taken down, whatever happens."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _end)
    signal.alarm(limit_seconds)
    try:
        record()
    except NoLabError as error:
        parser.error(str(error))
    except LabError as error:
        sys.exit(f"record.py: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _end(number: int, frame: FrameType | None) -> None:
    """A signal to end becomes an exception, so that everything is taken down."""
    sys.exit("record.py: took too long" if number == signal.SIGALRM else 128 + number)
