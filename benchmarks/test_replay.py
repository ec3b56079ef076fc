"""Benchmarks of whole replays on one core, from a capture in the page cache to verdicts and counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick, timed
from workload import WORKLOADS, Capture, Workload
from yardsticks import Loops, Missing
from yardsticks.dpdk import Dpdk
from yardsticks.meters import Meter
from yardsticks.programs import Tcpdump
from yardsticks.scripted import ScriptedFilter

from sgfast import Policy, ReplayResult, replay
from sgfast.report.lines import ConnectionLines, VerdictLines

#: The measured settings of sgfast, by name: arguments of ``replay``, and its sinks that write lines.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "verbatim": ({"mode": "verbatim", "midstream": "deny"}, {}),
    "causal": ({"mode": "causal", "midstream": "infer"}, {}),
    "connections": ({"mode": "verbatim", "midstream": "deny"}, {"flows": ConnectionLines}),
    "verdicts": ({"mode": "verbatim", "midstream": "deny"}, {"packets": VerdictLines}),
}
TITLES = {
    "verbatim": "verbatim, deny",
    "causal": "causal, infer",
    "connections": "verbatim, deny, --connections",
    "verdicts": "verbatim, deny, --verdicts",
}
#: The size in bytes at which a file of lines is overwritten from the start.
FILE_BYTES = 16 << 20


@dataclass
class Subject:
    """A capture with its policy and the yardsticks for it."""

    capture: Capture
    policy: Policy
    section: Section
    loops: dict[str, Yardstick] = field(default_factory=dict)
    #: Slow or less important yardsticks, which run only in the first setting.
    others: dict[str, Yardstick] = field(default_factory=dict)


#: Workloads that are measured only in the first setting, because further settings would show nothing new.
ONE_SETTING = ("one-side-5m", "large-10k", "mix-10k", "sets-10k", "source-10", "source-10k", "expiry")
CASES = [
    pytest.param(workload, setting, id=f"{workload}-{setting}")
    for workload in WORKLOADS
    for setting in SETTINGS
    if workload not in ONE_SETTING or setting == "verbatim"
]


#: Workloads for which rte_hash is also measured.
LOOKED_UP = ("one-side-10k", "one-side-1m")
#: The workload for which flow meters are also measured.
METERED = "one-side-10k"


@pytest.fixture(scope="module")
def subjects(
    maker: Maker,
    loops: Loops,
    dpdk: Dpdk | None,
    tcpdump: Tcpdump | None,
    flow_meters: list[Meter],
    results: Results,
) -> Iterator[Callable[[str], Subject]]:
    """Return a function that makes the subject of a workload, and reuses the last one for the workload's next settings.

    With a parametrized fixture, pytest 9 would make the subject again for each setting.
    """
    last: dict[str, Subject] = {}
    with ExitStack() as stack:

        def get(name: str) -> Subject:
            if name not in last:
                last.clear()
                stack.close()
                made = prepared(WORKLOADS[name], maker, loops, dpdk, tcpdump, flow_meters, results)
                last[name] = stack.enter_context(made)
            return last[name]

        yield get


@contextmanager
def prepared(
    workload: Workload,
    maker: Maker,
    loops: Loops,
    dpdk: Dpdk | None,
    tcpdump: Tcpdump | None,
    flow_meters: list[Meter],
    results: Results,
) -> Iterator[Subject]:
    packets = workload.packets_of(maker.option.packets)
    policy = maker.policy_for(workload)
    few = min(packets, maker.option.python_packets)
    with ExitStack() as stack:
        capture, sample = (stack.enter_context(maker.capture(workload, policy, n)) for n in (packets, few))
        # A shorter capture has fewer flows than intended. The title then shows both numbers.
        fewer = workload.flows and capture.flows != workload.flows
        flows = f" (here {capture.flows:,})" if fewer else ""
        size = f"{capture.frame_bytes}-byte packets" + (" on average" if workload.sizes else "")
        title = f"{workload.name}: {workload.title}{flows}; {size}"
        made = Subject(capture, policy, Section(title, "packet"))
        made.loops["walk"] = Yardstick("C, headers only", packets, timed(lambda: walk(loops, capture)))
        if workload.traffic != "openers":  # this table has no timeouts and would not fit into memory
            made.loops["hash"] = Yardstick("C, bare flow table", packets, timed(lambda: count(loops, capture)))
        made.others["Python"] = Yardstick("dpkt, pytricia, dict", few, lambda: script(policy, sample), faster=True)
        if tcpdump is not None:
            expression = f"tcp and net {network_of(policy)}"
            assert tcpdump.written(capture.path, expression) == capture.path.stat().st_size
            dump = timed(lambda: tcpdump.write(capture.path, expression))
            made.others["tcpdump"] = Yardstick("whole process", packets, dump, faster=True, column=False)
        if dpdk is not None and workload.name in LOOKED_UP:
            try:
                table = stack.enter_context(dpdk.flow_table(capture.path, capture.flows))
            except Missing as error:
                results.missing["rte_hash"] = str(error)
            else:
                made.others["rte_hash"] = Yardstick("look-ups alone", packets, table.look_up, column=False)
        for meter in flow_meters if workload.name == METERED else ():
            file = sample if meter.slow else capture
            try:
                meter.seconds(sample.path, sample.packets)
            except Missing as error:
                results.missing[meter.name] = str(error)
                continue
            results.versions[meter.name] = meter.version
            made.others[meter.name] = Yardstick(
                meter.title, file.packets, partial(meter.seconds, file.path, file.packets), faster=True, column=False
            )
        yield made


def network_of(policy: Policy) -> Any:
    """Return the smallest network with all instances, whose addresses are consecutive."""
    network: Any = policy.instances[0].addresses[0]
    while not policy.instances[-1].addresses[0].subnet_of(network):  # type: ignore[arg-type]
        network = network.supernet()
    return network


@pytest.mark.parametrize(("workload", "setting"), CASES)
def test_replay(
    benchmark: Any, workload: str, setting: str, subjects: Callable[[str], Subject], measure: Measure, tmp_path: Path
) -> None:
    subject = subjects(workload)
    capture = subject.capture
    arguments, sinks = SETTINGS[setting]
    judged: list[ReplayResult] = []
    lines: list[int] = []

    def run() -> float:
        with LinesFile(tmp_path / "lines") as file:
            writing = {name: sink(file.write) for name, sink in sinks.items()}
            judged.append(replay(subject.policy, [capture.path], **arguments, **writing))
        lines.append(file.lines)
        return judged[-1].elapsed_seconds - file.counting_seconds

    yardsticks = subject.loops | (subject.others if setting == "verbatim" else {})
    measure(subject.section, TITLES[setting], run, items=capture.packets, yardsticks=yardsticks)
    benchmark.extra_info.update(
        workload=capture.workload.name, setting=setting, flows=capture.flows, expected=capture.expected
    )
    for result in judged:
        check(result, capture)
    written = {"connections": capture.flows, "verdicts": capture.packets}.get(setting, 0)
    assert set(lines) == {written}


def check(result: ReplayResult, capture: Capture) -> None:
    found = {name: result.verdicts[name] for name in ("allow", "deny")} | {"opened": result.connections["opened"]}
    # Packets of one flow differ only in time, so sgfast may warn of copies.
    warnings = [warning for warning in result.warnings if "--dedup" not in warning]
    assert result.packets == capture.packets and not warnings
    assert found == capture.expected


class LinesFile:
    """A file in the page cache that counts its lines. After ``FILE_BYTES`` it is overwritten from the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._held = 0
        self.lines = 0
        #: The seconds spent on counting, which are not measured.
        self.counting_seconds = 0.0

    def write(self, data: bytes) -> None:
        if self._held > FILE_BYTES:
            self._file.seek(0)
            self._held = 0
        self._held += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        began = time.perf_counter()
        self.lines += data.count(b"\n")
        self.counting_seconds += time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._path.unlink()


# Yardsticks, with checks of their results


def walk(loops: Loops, capture: Capture) -> None:
    assert loops.walk(capture.path) == capture.packets


def count(loops: Loops, capture: Capture) -> None:
    assert loops.hash(capture.path, capture.flows) == (capture.packets, capture.flows)


def script(policy: Policy, capture: Capture) -> float:
    scripted = ScriptedFilter(policy, capture.workload.family)
    seconds = timed(lambda: scripted.replay(capture.path))()
    found = {"allow": scripted.allowed, "deny": scripted.denied, "opened": len(scripted.connections)}
    assert found == capture.expected
    return seconds
