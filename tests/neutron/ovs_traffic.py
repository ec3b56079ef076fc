"""Engine = Neutron's firewall on random accounts and traffic.

As a program, as root: ``PYTHONPATH=tests/support:tests/kernel python tests/neutron/ovs_traffic.py PACKETS [SEED]``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Hashable
from random import Random

from cloud_documents import Documents
from cloud_traffic import Traffic
from ovs_cloud import Cloud, missing
from ovs_comparing import Comparison

PER_ACCOUNT = 5000
BATCH = 200


def random_traffic(
    cloud: Cloud, packets: int, seed: int, *, changing: bool = False
) -> tuple[Counter[Hashable], Counter[str]]:
    """Compares about ``packets`` packets. Returns what was seen, and how many packets each difference excused.

    ``changing``: the account changes after every third batch, which takes as long as a thousand packets.
    """
    rng = Random(seed)
    documents = Documents(rng, changing=changing)
    seen: Counter[Hashable] = Counter()
    hits: Counter[str] = Counter()
    batches = 0
    while seen["packets"] < packets:
        account = documents.account()
        comparison = Comparison(cloud, account)
        traffic = Traffic(account, rng)
        while comparison.packets < min(PER_ACCOUNT, packets - seen["packets"]):
            batch = traffic.batch(BATCH)
            arrived = comparison.judge(batch)
            traffic.ended([sent for sent, came in zip(batch, arrived, strict=True) if not came])
            batches += 1
            if changing and batches % 3 == 0:
                account = documents.changed(account)
                comparison.change(account)
                traffic.move(account)
        seen["packets"] += comparison.packets
        seen["accounts"] += 1
        seen.update(comparison.seen)
        hits.update(comparison.hits)
    return seen, hits


def main() -> None:
    reason = missing()
    if reason is not None:
        sys.exit(f"ovs_traffic.py: {reason}")
    total = int(sys.argv[1])
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    seen: Counter[Hashable] = Counter()
    hits: Counter[str] = Counter()
    began, step = time.time(), 0
    with Cloud() as cloud:
        while seen["packets"] < total:
            more, excused = random_traffic(cloud, min(total, 100_000), first_seed + step, changing=step % 4 == 3)
            seen += more
            hits += excused
            step += 1
            print(
                f"seed {first_seed}+{step}: {seen['packets']:,} packets, {seen['accounts']} accounts, "
                f"{time.time() - began:.0f} s; excused {sum(hits.values())}: {dict(hits)}", flush=True,
            )  # fmt: skip
    for what, number in seen.most_common():
        print(f"{number:12,}  {what}")


if __name__ == "__main__":
    main()
