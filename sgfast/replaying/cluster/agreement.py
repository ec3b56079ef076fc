"""What replays that share a folder must have in common: what segments in it were made with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from sgfast.errors import ClusterError
from sgfast.policy.serialization import to_plain
from sgfast.replaying.cluster.plan import Run
from sgfast.replaying.cluster.storage import Folder

PLAN = "plan.json"
#: What differs, in words.
_SETTLED = {
    "version": "version of sgfast", "reading": "choice of packets (--start, --end, --filter, --dedup, --decap)",
    "first_ns": "first capture", "infrastructure": "settings.infrastructure", "marks": "mapping of VPCs",
}  # fmt: skip


def agreed(storage: Folder, run: Run, shards: int | None) -> Run:
    """The run with what an earlier one in the folder has settled. ClusterError if that was another kind of run."""
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
    except (ValueError, KeyError, TypeError):
        raise ClusterError(f"{storage.place}/{PLAN}: is not what was written there; give another folder") from None
    for key, value in settled.items():
        if plan.get(key) != json.loads(json.dumps(value)):
            raise ClusterError(
                f"{storage.place}: was made by a replay with another {_SETTLED[key]}; give another folder (--resume)"
            )
    if shards is not None and shards != known[0]:
        raise ClusterError(
            f"{storage.place}: was made by a replay with {known[0]} shards, not {shards}; give another folder"
        )
    return replace(run, shards=known[0], seed=known[1])
