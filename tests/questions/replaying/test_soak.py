"""A short version of ``python tests/support/soak.py``: an endless capture, a policy that changes, an engine that is
saved.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from soak import POLICY, EndlessCapture, changes, soak

from sgfast.clouds.loading import parse_policy
from sgfast.policy.changed_policy import apply_changes
from sgfast.traffic.capture import CaptureReader

SEED = 2026


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_engine_from_a_snapshot_says_what_the_one_that_went_on_says(tmp_path: Path, jobs: int) -> None:
    print(f"seed {SEED}")
    soaked = soak(480_000, SEED, tmp_path, loop=15_000, stride=20_000, jobs=jobs)
    assert (soaked.rows[0] == soaked.rows[1]).all()
    assert soaked.changes == 23 and soaked.disconnected > 100
    verdicts, reasons = soaked.counters["verdicts"], soaked.counters["reasons"]
    assert sum(verdicts) == 480_000 and min(verdicts[:4]) > 500 and sum(n > 100 for n in reasons) >= 12


def test_the_capture_goes_on_later_each_time_round() -> None:
    stream = EndlessCapture(parse_policy(POLICY), 3000, SEED)
    reader = CaptureReader(stream, "endless")
    rows: list[tuple[int, bytes, int, int]] = []
    while len(rows) < 3 * stream.packets:
        batch = reader.next_batch()
        assert batch is not None
        rows += batch
    first, second, third = (rows[n * stream.packets : (n + 1) * stream.packets] for n in range(3))
    assert [row[1:] for row in first] == [row[1:] for row in second] == [row[1:] for row in third]
    assert {later[0] - row[0] for row, later in zip(first, second, strict=True)} == {stream.period_ns}
    assert {later[0] - row[0] for row, later in zip(first, third, strict=True)} == {2 * stream.period_ns}


def test_changes_come_round_to_the_policy_they_began_with() -> None:
    policy = parse_policy(POLICY)
    once = apply_changes(policy, list(islice(changes(), 8))).policy
    assert once.instances == policy.instances and once.address_groups == policy.address_groups
    assert [group.rules for group in once.security_groups] == [group.rules for group in policy.security_groups]
    assert apply_changes(once, list(islice(changes(), 8))).policy.instances == policy.instances
