"""A process that loads policies again and again, as a service does, does not grow (SPEC 14.41)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from effort import some

ROOT = Path(__file__).resolve().parents[2]

#: Loads a policy, asks it, judges by it and drops it. Prints the resident memory in bytes after each load. Each policy
#: differs from those before it, so that none is found again in what was kept of them.
PROGRAM = """
import json, sys
import sgfast

rules, times = map(int, sys.argv[1:])
rule = "      - {direction: inbound, protocol: tcp, ports: %d, source: 10.%d.0.0/16}\\n"
head = "version: 1\\nquotas: {rules_per_group: 2000}\\ninstances: [{name: a, addresses: [192.0.2.1], security_groups: [g]}]\\n"
resident = []
for number in range(times):
    chosen = "".join(rule % (1 + (number + n) % 60000, n % 250) for n in range(rules))
    policy = sgfast.load(text=head + "security_groups:\\n  - name: g\\n    rules:\\n" + chosen)
    assert policy.explain("10.0.0.1", "a", f"tcp/{1 + number}").allowed
    engine = sgfast.Engine(policy)
    assert engine.check("10.0.0.1", "a", "tcp", sport=1, dport=1 + number).allowed
    with open("/proc/self/statm") as file:
        resident.append(int(file.read().split()[1]) * 4096)
print(json.dumps(resident))
"""  # noqa: E501


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="says how much memory a process has only on Linux")
@pytest.mark.parametrize(
    ("rules", "times"), [(5, some(600, 10_000)), (2_000, some(20, 300))], ids=["small", "2000 rules"]
)
def test_a_process_that_loads_policies_again_and_again_does_not_grow(rules: int, times: int) -> None:
    """SGFAST_EXHAUSTIVE=1 loads 10,000 small policies and 300 large ones, which takes two minutes."""
    command = [sys.executable, "-c", PROGRAM, str(rules), str(times)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resident = json.loads(done.stdout)
    warm, end = max(resident[: times // 2]), max(resident[times // 2 :])
    print(f"{warm >> 10:,} KiB at most in the first half, {end >> 10:,} KiB in the second")
    # One policy of 2,000 rules that stayed would take more than a megabyte, and ten of them stay in the second half.
    assert end - warm <= (4 if rules > 5 else 1) << 20
