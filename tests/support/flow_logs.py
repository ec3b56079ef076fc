"""Flow log records for tests, and the findings of a check of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgfast import replay
from sgfast.flow_logs.checking import FlowLogCheck, check_logs
from sgfast.loading import parse_policy
from sgfast.policy.model import Policy, Rule
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


def assert_adds_up(checked: FlowLogCheck) -> None:
    outside = checked.out_of_scope.total()
    assert checked.records == checked.agreeing + checked.disagreeing + checked.undecided.total() + outside


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


def check(tmp_path: Path, *lines: str, policy: str = POLICY, header: str = "") -> FlowLogCheck:
    path = tmp_path / "some.log"
    path.write_text("".join(f"{line}\n" for line in ((header, *lines) if header else lines)))
    return check_logs(parse_policy(policy), [str(path)])


def record(
    src: str, dst: str, sport: int = 0, dport: int = 0, protocol: int = 6, action: str = "ACCEPT", *,
    start: int = 1000, seconds: int = 10, interface: str = "eni-1",
) -> str:  # fmt: skip
    return f"2 1 {interface} {src} {dst} {sport} {dport} {protocol} 3 180 {start} {start + seconds} {action} OK"


CLIENT, WEB, DB = "198.51.100.7", "10.0.0.5", "10.0.1.9"


def told(checked: FlowLogCheck) -> list[tuple[int, str, str]]:
    assert_adds_up(checked)
    return [(d.record.line, d.role, d.reason) for d in checked.disagreements]


GOOD = record(CLIENT, WEB, 50000, 443)
