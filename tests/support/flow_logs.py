"""Flow log records for tests, and replays of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgfast import replay
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Policy, Rule
from sgfast.questions.replaying import ReplayResult
from sgfast.report.flow_log_lines import FlowLogLines
from sgfast.report.lines import ConnectionLines


def log_of(
    policy: Policy, capture: Path, path: Path, form: str = "aws", interval: int = 600, **options: Any
) -> tuple[Path, list[dict[str, Any]]]:
    """Return the flow log of a replay, and the replay's connections."""
    parts: list[bytes] = []
    flows: list[bytes] = []
    log = FlowLogLines(parts.append, form=form, interval_seconds=interval)
    replay(policy, capture, packets=log, flows=ConnectionLines(flows.append), **options)
    log.close()
    path.write_bytes(b"".join(parts))
    return path, [json.loads(line) for line in b"".join(flows).splitlines()]


def without(policy: Policy, rule: Rule) -> Policy:
    groups = [replace(group, rules=tuple(r for r in group.rules if r is not rule)) for group in policy.security_groups]
    return replace(policy, security_groups=tuple(groups))


POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0}
      - {direction: inbound, protocol: icmp, icmp_type: 8, source: 192.0.2.0/24}
      - {direction: outbound, protocol: all, destination: 0.0.0.0/0}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: web}
      - {direction: inbound, protocol: udp, ports: 60000}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}
  - {name: db-1, addresses: [10.0.1.9], security_groups: [db]}
"""


#: The same without the second member of `web`: no rule of a group is called unused if a member was not logged.
ONE_WEB = POLICY.replace("  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}\n", "")


def record(
    src: str, dst: str, sport: int = 0, dport: int = 0, protocol: int = 6, action: str = "ACCEPT", *,
    start: int = 1000, seconds: int = 10, interface: str = "eni-1",
) -> str:  # fmt: skip
    return f"2 1 {interface} {src} {dst} {sport} {dport} {protocol} 3 180 {start} {start + seconds} {action} OK"


CLIENT, WEB, DB = "198.51.100.7", "10.0.0.5", "10.0.1.9"


GOOD = record(CLIENT, WEB, 50000, 443)


# Records as traffic

#: A policy that allows everything of two instances, so that what opened a connection can be seen.
OPEN = """
version: 1
security_groups:
  - name: all
    rules: [{direction: inbound, protocol: all}, {direction: outbound, protocol: all}]
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [all]}
  - {name: b, addresses: [10.0.0.6], security_groups: [all]}
"""
FIELDS = (
    "interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action tcp-flags log-status "
    "pkt-srcaddr pkt-dstaddr"
)
NOON = 1_700_000_000


def flow(
    ends: str, start: int = 0, end: int | None = None, *, protocol: int = 17, flags: int | str = "-",
    action: str = "ACCEPT", packets: int = 2, octets: int = 120, eni: str = "eni-1", own: str = "- -",
) -> str:  # fmt: skip
    """Return a line of FIELDS. ``ends``: "address:port > address:port". Times are seconds after NOON."""
    src, dst = (each.rpartition(":") for each in ends.split(" > "))
    times = f"{NOON + start} {NOON + (start if end is None else end)}"
    return (
        f"{eni} {src[0]} {dst[0]} {src[2]} {dst[2]} {protocol} {packets} {octets} {times} {action} {flags} OK {own}"
    )


def refused(line: str) -> str:
    return line.replace(" ACCEPT ", " REJECT ")


#: So long ago that no later connection is older than the log.
BEFORE = flow("192.0.2.1:40000 > 192.0.2.2:443", -800, packets=1, octets=40)


class Told:
    """The answer of a replay of records: the connections as texts, in the order of their beginning, and the result.
    Attempts that the cloud rejected are not among them.
    """

    def __init__(self, result: ReplayResult, flows: list[dict[str, Any]]) -> None:
        self.result = result
        assert result.records is not None
        self.records = result.records
        self.connections = [
            f"{_end(row, 'initiator')} > {_end(row, 'responder')} {row['verdict']} {row['answer']} "
            f"{row['packets_from_initiator']}+{row['packets_from_responder']}"
            for row in sorted(flows, key=lambda row: str(row["first_time"])) if row["answer"] != "rejected"
        ]
        fates = self.records.judged + self.records.rejected
        assert self.records.read == fates + sum(self.records.undecided.values()) + sum(self.records.left_out.values())


def _end(row: dict[str, Any], name: str) -> str:
    port = row[f"{name}_port"]
    return str(row[name]) if port is None else f"{row[name]}:{port}"


def replayed(folder: Path, *lines: str, policy: str = OPEN, header: str = FIELDS, **options: Any) -> Told:
    path = folder / "flows.log"
    path.write_text("".join(f"{line}\n" for line in ((header, *lines) if header else lines)))
    return replayed_files(parse_policy(policy), [path], **options)


def replayed_files(policy: Policy, paths: Sequence[Path], **options: Any) -> Told:
    parts: list[bytes] = []
    result = replay(policy, paths, flows=ConnectionLines(parts.append), **options)
    return Told(result, [json.loads(line) for line in b"".join(parts).splitlines()])
