"""A short capture, frame by frame, and changes while it is replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from captures import pcap_head, pcap_record
from command import SERVER, write_policy
from frames import ethernet, ip, tcp, udp

from sgfast import replay
from sgfast.questions.replaying import ReplayResult
from sgfast.report.lines import ConnectionLines, VerdictLines

CLIENT = "198.51.100.7"


def to_web(flags: str, port: int = 4000) -> bytes:
    return ethernet(ip(CLIENT, SERVER, tcp(port, 80, flags)))


def from_web(flags: str, port: int = 4000) -> bytes:
    return ethernet(ip(SERVER, CLIENT, tcp(80, port, flags)))

#: Pairs (seconds after the first packet, frame): a connection that is open at 1 s, packets at 2, 3 and 4 s, a new one.
STORY = [
    (0.0, to_web("S")), (0.1, from_web("SA")), (0.2, to_web("A")), (1.0, to_web("PA")),
    (2.0, to_web("PA")), (3.0, from_web("PA")), (4.0, ethernet(ip(SERVER, CLIENT, udp(5000, 53)))),
    (11.5, to_web("S")), (11.6, from_web("SA")), (11.7, to_web("A")),
]  # fmt: skip

BASE = 1_000_000


def write_story(folder: Path, story: list[tuple[float, bytes]] = STORY) -> Path:
    path = folder / "story.pcap"
    records = [
        pcap_record(frame, time=(BASE + int(at), round(at % 1 * 1_000_000))) for at, frame in story
    ]
    path.write_bytes(pcap_head() + b"".join(records))
    return path


def write_changes(folder: Path, *changes: str) -> Path:
    path = folder / "changes.yaml"
    path.write_text("changes:\n" + "".join(f"  - {change}\n" for change in changes))
    return path


def replayed(
    folder: Path, policy: str, story: list[tuple[float, bytes]], *changes: str, engine: Any = "fast", **options: Any
) -> tuple[ReplayResult, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the result, the rows of packets, and the rows of connections, which the reference model does not have."""
    packets: list[bytes] = []
    connections: list[bytes] = []
    result = replay(
        write_policy(folder, policy), write_story(folder, story), changes=write_changes(folder, *changes),
        packets=VerdictLines(packets.append), flows=ConnectionLines(connections.append) if engine == "fast" else None,
        engine=engine, **options,
    )  # fmt: skip
    return result, *([json.loads(line) for line in b"".join(some).splitlines()] for some in (packets, connections))
