"""Memory for a document of the largest size is bounded (SPEC 11.6). SGFAST_EXHAUSTIVE=1 tests it: it takes minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from command import PCAPS
from effort import EXHAUSTIVE

pytestmark = pytest.mark.skipif(not EXHAUSTIVE, reason="takes minutes: SGFAST_EXHAUSTIVE=1 does it")

#: The bound of SPEC 11.6.
MOST_BYTES = 2 << 30

HEAD = "version: 1\nquotas: {rules_per_group: 1000000, security_groups: 1000000}\n"
GROUPS = "security_groups:\n" + "".join(
    f"  - {{name: {name}, rules: [{{direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}}]}}\n"
    for name in "gh"
)
ONE = "instances: [{name: a, addresses: [172.16.0.1], security_groups: [g]}]\n"

#: Runs a command and prints its status and the most memory it took, in bytes. A process of its own, because what is
#: asked for is the most of all children.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def address(n: int) -> str:
    return f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"


def write(path: Path, *parts: Iterable[str]) -> str:
    with open(path, "w") as file:
        for part in parts:
            file.writelines(part)
    return str(path)


def instances(folder: Path) -> list[str]:
    # The limit of values counts an instance's nine twice: once as text, once as it is read.
    lines = (f"  - {{name: i{n}, addresses: [{address(n)}], security_groups: [g]}}\n" for n in range(166_000))
    return ["check", write(folder / "policy.yaml", HEAD, GROUPS, "instances:\n", lines)]


def rules(folder: Path) -> list[str]:
    rule = "      - {direction: inbound, protocol: tcp, ports: 80, source: %s}\n"
    lines = (rule % address(n) for n in range(100_000))
    return ["check", write(folder / "policy.yaml", HEAD, ONE, "security_groups:\n  - name: g\n    rules:\n", lines)]


def export(folder: Path) -> list[str]:
    # Twelve values each, and 3,000,000 are the limit.
    groups = [
        {"id": f"{n}", "name": f"g{n}", "security_group_rules": [
            {"id": f"r{n}", "security_group_id": f"{n}", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
             "port_range_min": 80, "port_range_max": 80}
        ]} for n in range(249_000)
    ]  # fmt: skip
    return ["import", "neutron", write(folder / "export.json", json.dumps({"security_groups": groups}))]


def changes(folder: Path) -> list[str]:
    policy = write(folder / "policy.yaml", HEAD, GROUPS, ONE)
    lines = (
        f"  - {{at: 0, {('add', 'remove')[n % 2]}_member: {{group: h, instance: a}}}}\n" for n in range(160_000)
    )
    file = write(folder / "changes.yaml", "changes:\n", lines)
    return ["replay", policy, str(PCAPS / "shop.pcap"), "--changes", file]


def flow_log(folder: Path) -> list[str]:
    lines = (
        f"2 1 eni-{n} {address(n)} 10.0.0.5 {n % 60_000 + 1} 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n"
        for n in range(1_000_000)
    )
    return ["replay", str(PCAPS / "shop.yaml"), write(folder / "log", lines)]


@pytest.mark.parametrize("document", [instances, rules, export, changes, flow_log], ids=lambda made: made.__name__)
def test_a_document_of_the_largest_size_takes_a_stated_amount(
    document: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "sgfast", *document(tmp_path)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=True)
    status, took = map(int, done.stdout.split())
    print(f"{took >> 20:,} MiB, status {status}\n{done.stderr[-500:]}")
    assert status == 0
    assert took <= MOST_BYTES
