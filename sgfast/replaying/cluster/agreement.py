"""Checks that replays that share a folder agree on everything that segments depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from sgfast.errors import ClusterError
from sgfast.policy.serialization import to_plain
from sgfast.replaying.cluster.plan import Run
from sgfast.replaying.cluster.storage import Folder
from sgfast.replaying.options import MOST_SHARDS

PLAN = "plan.json"
#: For messages: what differs, in words.
_SETTLED = {
    "version": "version of sgfast", "reading": "choice of packets (--start, --end, --filter, --dedup, --decap)",
    "first_ns": "first capture", "infrastructure": "settings.infrastructure", "marks": "mapping of VPCs",
}  # fmt: skip


def agreed(storage: Folder, run: Run, shards: int | None) -> Run:
    """The run with the shards and seed of an earlier run in the folder. Raises ClusterError if the runs disagree."""
    marks = [(vpc.name, vpc.vnis, vpc.vlans, vpc.interfaces, vpc.files) for vpc in run.policy.vpcs if run.is_mapped]
    settled = {
        "version": run.version,
        "reading": to_plain(replace(run.options.reading, merge=False, follow=False)),
        "first_ns": run.first_ns,
        "infrastructure": run.policy.settings.infrastructure,
        "marks": hashlib.sha256(repr(marks).encode()).hexdigest()[:16] if run.is_mapped else None,
    }
    if PLAN not in storage.names():
        plan = {**settled, "shards": run.shards, "seed": run.seed}
        storage.write(PLAN, json.dumps(plan, indent=1).encode())
    try:
        plan = json.loads(storage.read(PLAN))
        known = int(plan["shards"]), int(plan["seed"])
        is_sound = 1 <= known[0] <= MOST_SHARDS and 0 <= known[1] < 1 << 64
    except (ValueError, KeyError, TypeError, OverflowError):
        is_sound = False
    if not is_sound:
        raise ClusterError(f"{storage.shown(PLAN)}: is damaged; use another folder")
    for key, value in settled.items():
        if plan.get(key) != json.loads(json.dumps(value)):
            raise ClusterError(
                f"{storage.shown()}: was made by a replay with another {_SETTLED[key]}; use another folder (--resume)"
            )
    if shards is not None and shards != known[0]:
        raise ClusterError(
            f"{storage.shown()}: was made by a replay with {known[0]} shards, not {shards}; use another folder"
        )
    return replace(run, shards=known[0], seed=known[1])
