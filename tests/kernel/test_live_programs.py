"""The programs of ``pcaps/programs`` once more, behind the kernel's filter with a policy's rules.

What gets through must be what a replay of the recording without a filter says. Needs root, nftables, conntrack and the
programs; takes about a minute. ``SGFAST_LIVE_ALL=1`` runs every policy instead of one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from effort import EXHAUSTIVE
from nft import host_filter
from recordings import POLICIES, PROGRAMS, RECORD, Comparison, compare, connections, judged, scenarios

from sgfast.clouds.loading import load_policy

INSTANCES = ("client", "server")
#: One that blocks at both instances and both ways; and one with denies and priorities.
SOME = ["services", "priorities"] if EXHAUSTIVE else ["services"]
CHOSEN = POLICIES if os.environ.get("SGFAST_LIVE_ALL") == "1" else SOME

#: Mostly they wait, so two at once do not disturb each other.
AT_ONCE = 2
#: The recorder gives up before that.
LIMIT_SECONDS = 300
#: The recorder's exit status where it cannot run at all.
CANNOT = 2


def record(output: Path, filters: Mapping[str, Path]) -> Path:
    output.mkdir()
    options = [f"--filter={host}={path}" for host, path in filters.items()]
    # Programs of others, which do not all start under the sanitizers.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [sys.executable, str(RECORD), str(output), *options],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, env=environment,
    )  # fmt: skip
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return output


def behind_filter(output: Path, name: str) -> Path:
    policy = load_policy(PROGRAMS / f"{name}.yaml")
    filters = {}
    for instance in INSTANCES:
        filters[instance] = output.with_name(f"{name}-{instance}.nft")
        filters[instance].write_text(host_filter(policy, instance, device="eth0"))
    return record(output, filters)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recordings made just now: without a filter (``""``), and behind that of each chosen policy."""
    folder = tmp_path_factory.mktemp("live")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = {"": pool.submit(record, folder / "unfiltered", {})}
        made |= {name: pool.submit(behind_filter, folder / name, name) for name in CHOSEN}
        return {name: run.result() for name, run in made.items()}


def test_a_second_recording_gets_the_same_verdicts(runs: dict[str, Path]) -> None:
    assert [(s.name, s.outcome) for s in scenarios(runs[""])] == [(s.name, s.outcome) for s in scenarios(PROGRAMS)]
    for name in POLICIES:
        policy = load_policy(PROGRAMS / f"{name}.yaml")
        first, second = (
            {
                (scenario, key): packets.verdicts
                for scenario, lines in judged(policy, folder).items()
                for key, packets in connections(lines).items()
            }
            for folder in (PROGRAMS, runs[""])
        )
        assert first == second, name


def test_what_gets_through_is_what_the_replay_said(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    compared = [compare(name, load_policy(PROGRAMS / f"{name}.yaml"), runs[""], runs[name]) for name in runs if name]
    with capsys.disabled():
        print("\n" + table(compared))
    assert [difference for comparison in compared for difference in comparison.differences] == []
    # Every policy blocks something or nothing; together they must do both.
    assert 0 < sum(c.works for c in compared) < sum(c.scenarios for c in compared)


def table(compared: list[Comparison]) -> str:
    columns = ("scenarios", "works", "outcomes_compared", "connections", "blocked", "not_made", "differences")
    rows = [["policy", *(column.replace("_", " ") for column in columns)]]
    for comparison in compared:
        values = [getattr(comparison, column) for column in columns]
        rows.append([comparison.policy, *(str(value if isinstance(value, int) else len(value)) for value in values)])
    return "\n".join(f"{row[0]:<14}" + "".join(f"{cell:>19}" for cell in row[1:]) for row in rows)
