"""Options of the test suite."""

from __future__ import annotations

import compileall
import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import sgfast
from sgfast.engine import Engine
from sgfast.policy.model import Policy

#: A table this small forgets connections when it is full. Only for one thread is it promised which ones
#: (docs/how-to/more-cores-and-machines.md).
SMALL_TABLE = 1000

#: Files that take longest come first, or one of them would be at it alone at the end.
LONGEST = (
    "test_exported_rules", "test_ovs_traffic", "test_export_openstack", "test_live_programs", "test_cluster_hosts",
    "test_jobs", "test_differential", "test_benchmarks", "test_grids", "test_diff", "test_corpus_judged",
    "test_cluster", "test_random_traffic", "test_replay_corpus", "test_changing", "test_ablations",
    "test_cluster_ranges", "test_report_page", "test_capi", "test_explain", "test_neutron_api", "test_export_aws",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--workers", type=int, default=1, metavar="N",
        help="give every engine that a test makes in this process N threads, small tables apart (every_path.py)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_thread: what is asserted is promised of one thread only")
    _compile_for_children(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Shells let background jobs ignore Ctrl-C, and commands that tests start and interrupt would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config.option, "loadscopereorder"):
        # pytest-xdist would begin with the files that have most tests.
        config.option.loadscopereorder = False
    workers: int = config.getoption("workers")
    if workers == 1:
        return
    alone = Engine.__init__

    def together(self: Engine, policy: Any, **options: Any) -> None:
        small = isinstance(policy, Policy) and policy.settings.max_connections <= SMALL_TABLE
        if options.get("jobs", 1) == 1 and not small:
            options["jobs"] = workers
        alone(self, policy, **options)

    Engine.__init__ = together  # type: ignore[method-assign]


def _compile_for_children(config: pytest.Config) -> None:
    """The commands that tests start find the package compiled, and compile nothing themselves: a process that is killed
    or has no room for a file would leave half of it to all others.
    """
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(os.path.dirname(sgfast.__file__), quiet=2)
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are processors: some tests mostly wait for programs."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    if config.getoption("workers") > 1:
        items[:] = [item for item in items if item.get_closest_marker("one_thread") is None]


def pytest_collection_finish() -> None:
    # Thousands of collected tests live to the end. The garbage collector would look through them again and again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Start a Dask cluster in this process, so that its tasks see what a test has changed. It has two workers unless a
    test asks for another number.
    """
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(n_workers=getattr(request, "param", 2), **options) as cluster,
        # There may be others.
        distributed.Client(cluster, set_as_default=False) as made,
    ):
        yield made
