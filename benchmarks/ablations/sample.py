"""Run one replay in this process, and print its processor time and its results as JSON.

    python sample.py CAPTURE WORKLOAD INSTANCES SEED [CORE]

``CAPTURE`` must be made by ``workload.make_capture`` with the same policy. ``sgfast`` and ``workload`` must be on the
path.
"""

from __future__ import annotations

import json
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from workload import WORKLOADS, make_policy

import sgfast.questions.replaying.run


def outcome(result: sgfast.ReplayResult) -> dict[str, Any]:
    """Return all results that an optimisation must not change."""
    return {
        "packets": result.packets,
        "bytes": result.bytes,
        "verdicts": result.verdicts,
        "reasons": result.reasons,
        "connections": result.connections,
        "rules": [[rule.connections, rule.packets, rule.bytes] for rule in result.rules],
        "warnings": [warning for warning in result.warnings if "--dedup" not in warning],
    }


def main(capture: str, name: str, instances: str, seed: str, core: str = "") -> None:
    if core:
        os.sched_setaffinity(0, {int(core)})
    workload = WORKLOADS[name]
    policy = workload.with_room(make_policy(instances=int(instances), family=workload.family, seed=int(seed)))
    # Measure processor time, which excludes the time that other processes use the core.
    sgfast.questions.replaying.run.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[attr-defined]
    result = sgfast.replay(policy, [capture], mode="verbatim", midstream="deny")
    found = {"package": sgfast.__file__, "seconds": result.elapsed_seconds, "outcome": outcome(result)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
