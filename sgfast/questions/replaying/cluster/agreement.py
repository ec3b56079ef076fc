"""Check that replays that share a folder agree on all settings that affect segments."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from sgfast.base.errors import ClusterError
from sgfast.policy.serialization import to_plain
from sgfast.questions.replaying.cluster.plan import Run
from sgfast.questions.replaying.cluster.reading import SEGMENT
from sgfast.questions.replaying.cluster.storage import Damaged, Folder, OtherVersion, is_whole
from sgfast.questions.replaying.options import MOST_SHARDS

PLAN = "plan.json"
DAMAGED_PLAN = "damaged-plan.json"
#: Names, for messages, of the settings that may differ.
_SETTLED = {
    "reading": "choice of packets (--start, --end, --filter, --dedup, --decap)",
    "first_ns": "first capture", "infrastructure": "settings.infrastructure", "marks": "mapping of VPCs",
}  # fmt: skip


def agreed(storage: Folder, run: Run, shards: int | None, warnings: list[str]) -> Run:
    """Return the run with the shards and seed of an earlier run in the folder. Raises ClusterError if the runs
    disagree.

    Segments can only be found with the folder's plan, so a damaged plan is replaced, with a warning.
    """
    marks: list[object] = [(vpc.name, vpc.vnis, vpc.vlans, vpc.interfaces, vpc.files) for vpc in run.policy.vpcs]
    if run.policy._shares_addresses:  # addresses map packets, too
        marks += sorted(
            (instance.vpc, str(network)) for instance in run.policy.instances for network in instance.addresses
        )
        marks += sorted(map(sorted, run.policy.peerings))
    settled = {
        "reading": to_plain(replace(run.options.reading, merge=False, follow=False)),
        "first_ns": run.first_ns,
        "infrastructure": run.policy.settings.infrastructure,
        "marks": hashlib.sha256(repr(marks).encode()).hexdigest()[:16] if run.is_mapped else None,
    }
    new_plan = {**settled, "shards": run.shards, "seed": run.seed}
    names = storage.names()
    if PLAN not in names:
        storage.write_document(PLAN, new_plan)
    try:
        plan = _plan(storage)
    except OtherVersion as error:
        raise ClusterError(f"{error}; another version needs another folder (--resume)") from None
    except Damaged as error:
        if not any(name.endswith(SEGMENT) for name in names):
            # The file may belong to another program.
            raise ClusterError(f"{error}, or no plan of sgfast; use another folder") from None
        storage.rename(PLAN, DAMAGED_PLAN)
        storage.write_document(PLAN, new_plan)
        plan = _plan(storage)
        warnings.append(f"{error}; it is {DAMAGED_PLAN} now, and the captures are read again")
    shards_and_seed = plan["shards"], plan["seed"]
    for key, value in settled.items():
        if plan.get(key) != json.loads(json.dumps(value)):
            raise ClusterError(
                f"{storage.shown()}: was made by a replay with another {_SETTLED[key]}; use another folder (--resume)"
            )
    if shards is not None and shards != shards_and_seed[0]:
        raise ClusterError(
            f"{storage.shown()}: was made by a replay with {shards_and_seed[0]} shards, not {shards}; "
            "use another folder"
        )
    return replace(run, shards=shards_and_seed[0], seed=shards_and_seed[1])


def _plan(storage: Folder) -> dict[str, Any]:
    """Read the plan in the folder. Raises Damaged if the file cannot be a plan."""
    plan = storage.read_document(PLAN)
    if (
        not isinstance(plan, dict) or not is_whole(plan.get("shards"), 1, MOST_SHARDS)
        or not is_whole(plan.get("seed"), 0, (1 << 64) - 1)
    ):  # fmt: skip
        raise storage.damaged(PLAN)
    return plan
