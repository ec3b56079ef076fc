"""Read a capture with Wireshark's programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark here")

needs_capinfos = pytest.mark.skipif(shutil.which("capinfos") is None, reason="no capinfos here")


def comment_of(line: dict[str, Any]) -> str:
    """Return the comment that a packet gets, made from its JSON line."""

    def outcome(row: dict[str, Any]) -> str:
        return row["verdict"] + (f" ({row['reason']})" if row["reason"] else "")

    text = outcome(line)
    for name in ("egress", "ingress"):
        if (side := line[name]) is not None:
            text += f"; {name} {side['instance']}: {outcome(side)}" + (f" by {side['rule']}" if side["rule"] else "")
    return text


def tshark(path: Path, *fields: str) -> list[list[str]]:
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *(word for name in fields for word in ("-e", name))]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in output.stdout.splitlines()]


def capinfos(path: Path) -> dict[str, str]:
    output = subprocess.run(["capinfos", "-T", "-S", "-M", str(path)], capture_output=True, text=True, check=True)
    head, row = (line.split("\t") for line in output.stdout.splitlines())
    return dict(zip(head, row, strict=True))
