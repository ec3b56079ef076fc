"""Engine = Neutron's firewall on random accounts and traffic.

As a program, as root: ``PYTHONPATH=tests/support:tests/kernel python tests/neutron/ovs_traffic.py PACKETS [SEED]``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from contextlib import nullcontext
from random import Random

from cloud_documents import Documents
from cloud_traffic import Traffic
from long_run import long_run
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
    with Cloud() if missing() is None else nullcontext() as cloud:
        long_run(
            "ovs_traffic.py", missing(),
            lambda left, seed, step: random_traffic(cloud, min(left, 100_000), seed, changing=step % 4 == 3),
        )  # fmt: skip


if __name__ == "__main__":
    main()
