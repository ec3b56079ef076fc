"""Options and fixtures of the benchmarks, and the table at the end of a run."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import ratios
import report
from before import ANSWERING, Before
from measure import Results, Row, clock, command_line, load_average, machine, python_packages, software, table
from workload import Capture, Family, Workload, make_capture, make_policy
from yardsticks import Loops, Missing, meters
from yardsticks.dpdk import Dpdk
from yardsticks.programs import Tcpdump, Tshark

from sgfast import Policy

_RESULTS = pytest.StashKey[Results]()
_BEGAN = pytest.StashKey[tuple[float, float]]()

DEFAULT_PACKETS = 10_000_000


def _amount(text: str) -> int:
    """Read a number like ``10_000_000`` or ``10e6``."""
    value = int(float(text.replace("_", "")))
    if value < 1:
        raise ValueError(f"{text} is less than 1")
    return value


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sgfast benchmarks")
    group.addoption(
        "--packets",
        type=_amount,
        default=_amount(os.environ.get("SGFAST_BENCH_PACKETS", str(DEFAULT_PACKETS))),
        help="packets in a capture; a capture with fewer than 10 for each flow gets fewer flows "
        "(default: SGFAST_BENCH_PACKETS or 10,000,000)",
    )
    group.addoption(
        "--python-packets", type=_amount, default=100_000, help="packets for the Python yardstick, at most --packets"
    )
    group.addoption("--lookups", type=_amount, default=1_000_000, help="rows for stateless matching, at most --packets")
    group.addoption(
        "--instances",
        type=_amount,
        default=10_000,
        help="instances in a policy; 100 groups need at least 200 (default: 10,000)",
    )
    group.addoption("--rounds", type=_amount, default=5, help="rounds of all yardsticks and sgfast (default: 5)")
    group.addoption("--seed", type=int, default=1, help="seed for policies and captures (default: 1)")
    group.addoption(
        "--capture-dir",
        type=Path,
        help="keep captures here (about 29 GB) and reuse them (default: delete each after its use)",
    )
    group.addoption(
        "--corpus",
        type=Path,
        default=Path(os.environ.get("SGFAST_CORPUS") or Path(__file__).parents[1] / ".." / "shared" / "corpus"),
        help="folder with rules/, ClassBench's rule sets (default: SGFAST_CORPUS or ../shared/corpus)",
    )
    group.addoption("--results", type=Path, metavar="DIR", help="write RESULTS.md, results.json and a plot to DIR")
    group.addoption(
        "--before", metavar="COMMIT", help="run the same with this commit, in turns, and give the ratio of each row"
    )
    group.addoption(
        "--record-ratios",
        type=Path,
        nargs="?",
        const=ratios.FILE,
        metavar="FILE",
        help="record ratios to the floor loop for the tests to compare with (default: benchmarks/ratios.json)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = Results()
    config.stash[_BEGAN] = (time.monotonic(), load_average())
    config.option.benchmark_quiet = True  # hides pytest-benchmark's own table; --benchmark-verbose shows it


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Iterator[Results]:
    made = pytestconfig.stash[_RESULTS]
    if pytestconfig.option.before is not None and ANSWERING not in os.environ:
        made.earlier = Before(pytestconfig.option.before, pytestconfig.invocation_params.args)
    yield made
    if made.earlier is not None:
        made.earlier.close()


#: The type of ``Results.measure``, bound to the running benchmark.
Measure = Callable[..., Row]


@pytest.fixture
def measure(benchmark: Any, results: Results, pytestconfig: pytest.Config) -> Measure:
    return partial(results.measure, benchmark, rounds=pytestconfig.option.rounds)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=clock))


@pytest.fixture(scope="session")
def corpus(pytestconfig: pytest.Config) -> Path:
    value: Path = pytestconfig.option.corpus
    return value


@pytest.fixture(scope="session")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Loops:
    try:
        return Loops(tmp_path_factory.mktemp("yardsticks"))
    except Missing as error:
        pytest.skip(f"the C yardsticks are missing, and figures without them mean little: {error}")


@pytest.fixture(scope="session")
def dpdk(tmp_path_factory: pytest.TempPathFactory, results: Results) -> Dpdk | None:
    try:
        made = Dpdk(tmp_path_factory.mktemp("dpdk"))
    except Missing as error:
        results.missing["rte_acl, rte_hash"] = str(error)
        return None
    results.versions["DPDK"] = made.version
    return made


Program = TypeVar("Program", Tcpdump, Tshark)


def _installed(make: Callable[[], Program], name: str, results: Results) -> Program | None:
    try:
        made = make()
    except Missing as error:
        results.missing[name] = str(error)
        return None
    results.versions[name] = made.version
    return made


@pytest.fixture(scope="session")
def tcpdump(results: Results) -> Tcpdump | None:
    return _installed(Tcpdump, "tcpdump", results)


@pytest.fixture(scope="session")
def tshark(results: Results) -> Tshark | None:
    return _installed(Tshark, "tshark", results)


@pytest.fixture(scope="session")
def flow_meters(results: Results, tmp_path_factory: pytest.TempPathFactory) -> list[meters.Meter]:
    folder = tmp_path_factory.mktemp("meters")
    installed = []
    for name, find in meters.ALL.items():
        try:
            installed.append(find(folder))
        except Missing as error:
            results.missing[name] = str(error)
    return installed


class Maker:
    """Make policies and captures according to the options."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self.option = config.option
        self.folder: Path = config.option.capture_dir or folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._policies: dict[tuple[int, ...], Policy] = {}

    def policy(
        self, rules: int = 1_000, groups: int = 100, family: Family = 4, *, sets: int = 0, members: int = 0
    ) -> Policy:
        key = rules, groups, family, sets, members
        if key not in self._policies:
            self._policies[key] = make_policy(
                rules, groups, self.option.instances, family=family, sets=sets, members=members, seed=self.option.seed
            )
        return self._policies[key]

    def policy_for(self, workload: Workload, rules: int = 1_000, groups: int = 100) -> Policy:
        made = self.policy(rules, groups, workload.family, sets=workload.sets, members=workload.members)
        return workload.with_room(made)

    @contextmanager
    def capture(self, workload: Workload, policy: Policy, packets: int) -> Iterator[Capture]:
        """Yield a capture that is in the page cache. It is deleted afterwards unless --capture-dir keeps it."""
        made = make_capture(workload, policy, self.folder, packets=packets, seed=self.option.seed)
        with made.path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 20)
            while file.readinto(buffer):
                pass
        try:
            yield made
        finally:
            if self.option.capture_dir is None:
                made.path.unlink(missing_ok=True)  # a short capture is its own sample and may be deleted already


@pytest.fixture(scope="session")
def maker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(pytestconfig, tmp_path_factory.mktemp("captures"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[_RESULTS]
    lines = list(table(results))
    if not lines:
        return
    option = config.option
    began, load = config.stash[_BEGAN]
    options = {name: getattr(option, name) for name in ("packets", "instances", "rounds", "seed")}
    versions = {**python_packages(), **results.versions}
    facts = {
        "machine": machine(),
        "software": {"sgfast": software(), **versions},
        "load_average": [load, load_average()],
        "seconds": time.monotonic() - began,
        "command": command_line("pytest", config.invocation_params.args),
        "options": options,
    }
    head = [
        facts["machine"],
        f"{software()}; load average {load:.1f} before, {load_average():.1f} after; {facts['seconds']:.0f} s",
        *textwrap.wrap(", ".join(f"{name} {version}" for name, version in versions.items()), 96),
        facts["command"],
        f"{option.packets:,} packets, {option.instances:,} instances, seed {option.seed}; "
        f"median, lowest and highest of {option.rounds} rounds",
        "a/b: a's time over b's, median of the same rounds, ± half of their range",
    ]
    terminalreporter.section("sgfast benchmarks")
    for line in (*head, *lines):
        terminalreporter.line(line)
    if option.results is not None:
        report.write(results, option.results, head, facts)
    if option.record_ratios is not None:
        ratios.record(results, options, option.record_ratios)
