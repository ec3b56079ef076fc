"""The benchmarks, small: they run, say what they measured, and their captures are what they were built to be."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest
from effort import EXHAUSTIVE

import sgfast

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def workload() -> Any:
    """benchmarks/workload.py"""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import workload

        yield workload
        sys.modules.pop("workload")


NAMES = re.findall(r'^        Workload\("([^"]+)"', (BENCHMARKS / "workload.py").read_text(), re.M)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_verdicts_are_those_a_workload_was_built_for(name: str, engine: str, workload: Any, tmp_path: Path) -> None:
    kind = workload.WORKLOADS[name]
    packets = 3_000 if engine == "fast" else 300
    policy = workload.make_policy(100, 10, 40, family=kind.family, sets=kind.sets, members=kind.members)
    made = workload.make_capture(kind, policy, tmp_path, packets=packets)
    result = sgfast.replay(policy, [made.path], mode="verbatim", midstream="deny", engine=engine)
    assert result.packets == packets and result.damaged is None
    found = {verdict: n for verdict, n in result.verdicts.items() if n}
    if kind.traffic == "denied":
        assert found == {"deny": packets} and result.reasons == {"no-rule": packets}
        assert result.connections["opened"] == 0
    else:
        assert found == {"allow": packets}
        assert result.connections["opened"] == kind.flows_in(packets)
        sides = 2 if kind.two_sides else 1
        # Each side's judgement counts for its rule.
        assert sum(rule.packets for rule in result.rules) == packets * sides
        assert sum(rule.connections for rule in result.rules) == result.connections["opened"] * sides


def test_recorded_commands_name_no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    measure = importlib.import_module("measure")
    typed = ["--packets", "1e7", "--corpus", "/corpus", "--capture-dir=/captures", "--results", "out", "-k", "jobs"]
    assert measure.command_line("pytest benchmarks", typed) == "pytest benchmarks --packets 1e7 -k jobs"
    for name in ("RESULTS.md", "RESULTS-quiet.md", "ABLATIONS.md", "CURVES.md"):
        text = (BENCHMARKS / name).read_text()
        assert "--corpus" not in text and "--capture-dir" not in text


def test_one_seed_gives_one_capture(workload: Any, tmp_path: Path) -> None:
    policy = workload.make_policy(100, 10, 40)
    kind = workload.WORKLOADS["one-side-10k"]
    data = []
    for seed, folder in ((1, "a"), (1, "b"), (2, "c")):
        (tmp_path / folder).mkdir()
        made = workload.make_capture(kind, policy, tmp_path / folder, packets=500, seed=seed)
        data.append(made.path.read_bytes())
    assert data[0] == data[1] != data[2]


def frames_of(path: Path) -> list[tuple[float, bytes]]:
    with path.open("rb") as file:
        return list(dpkt.pcap.Reader(file))


def test_zipf_makes_few_flows_popular_wherever_they_are(workload: Any, tmp_path: Path) -> None:
    kind = workload.WORKLOADS["zipf-1m"]
    flows, packets = 1_000, 100_000
    flow, _, _ = workload._steps(kind, flows, np.arange(3 * flows, packets), np.random.default_rng(1))
    counts = np.bincount(flow, minlength=flows)
    ranked = np.sort(counts)[::-1] / counts.sum()
    harmonic = (1 / np.arange(1, flows + 1)).sum()
    assert ranked[:4] == pytest.approx(1 / np.arange(1, 5) / harmonic, rel=0.1)
    popular = np.argsort(counts)[::-1][:20]
    assert np.abs(np.diff(popular)).mean() > flows / 10


def test_the_last_packet_of_expiry_finds_every_connection_timed_out(workload: Any, tmp_path: Path) -> None:
    made = workload.make_capture(
        workload.WORKLOADS["expiry"], workload.make_policy(100, 10, 40), tmp_path, packets=1_000
    )
    times = [time for time, _ in frames_of(made.path)]
    timeouts = dataclasses.astuple(sgfast.Policy().settings.timeouts)
    assert times[-2] - times[0] < min(timeouts) and times[-1] - times[-2] > max(timeouts)


@pytest.mark.parametrize("kind", [{}, {"family": 6}, {"sets": 20}, {"members": 10}], ids=str)
def test_policy_text_is_the_policy(kind: dict[str, int], workload: Any) -> None:
    policy = workload.make_policy(500, 10, 40, **kind)
    read = sgfast.load(text=workload.policy_text(policy))
    assert read.security_groups == policy.security_groups and read.instances == policy.instances


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc").split()[0]) is None, reason="the yardsticks need a C compiler"
)


def run_benchmarks(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)]
    # A process of pytest-xdist measures nothing.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**alone, "COLUMNS": "100"})
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@needs_compiler
@pytest.mark.skipif(not EXHAUSTIVE, reason="building an earlier commit takes a minute")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there are no earlier commits")
def test_each_row_has_the_ratio_to_an_earlier_commit_that_runs_in_turns(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    said = run_benchmarks(
        BENCHMARKS / "test_jobs.py", "-k", "10k", "--packets", "1000", "--rounds", "2", "--instances", "200",
        "--before", "HEAD", "--results", tmp_path, f"--basetemp={tmp_path / 'run'}",
    )  # fmt: skip
    [section] = json.loads((tmp_path / "results.json").read_text())["sections"]
    assert [row["title"] for row in section["rows"]] == ["one-side-10k", "mix-10k", "large-10k"]
    for row in section["rows"]:
        # 1,000 packets take far less than a hundred times as long with one build as with the other.
        assert 0.01 < row["ratios"]["before"]["median"] < 100
        assert len(row["yardsticks"]["before"]["samples"]) == 2
    assert "sgfast/before" in said and "before: sgfast at" in (tmp_path / "RESULTS.md").read_text()


#: Some points of each curve: a large policy takes its time.
CURVES = [
    f"{BENCHMARKS / 'curves.py'}::{test}"
    for test in (
        "test_flows", "test_rules[connections-50]", "test_rules[openers-100]", "test_rules_of_the_stateless_match[50]",
        "test_rules_of_the_stateless_match[100]", "test_members[connections-10]", "test_members[openers-10000]",
        "test_frames[64]", "test_frames[1514]", "test_compiling_rules[50]", "test_compiling_members[10]",
    )
]  # fmt: skip

#: All replays differ in their captures alone: one workload that is measured in every setting, and one in the first.
REPLAYS = ("one-side-100", "one-side-10k-verbatim", "mix-10k")
#: Cases that run the same lines as others, with other data. Of the large rule sets, the missing one stays.
ALIKE = [
    *(
        f"test_classbench.py::test_classbench[{name}]"
        for name in ("acl1_10k-1", "fw1_1k-1", "fw1_10k-1", "ipc1_1k-1", "fw1_10k-10", "ipc1_10k-10")
    ),
    *(f"test_changes.py::test_change[{name} more]" for name in ("a rule", "a member", "an address", "an instance")),
    "test_changes.py::test_change[a rule's new ports]",
    "test_changes.py::test_established_path_with_a_change_to_come[one-side-1m]",
    *(f"test_diff.py::test_diff[one-side-10k-{policies}]" for policies in ("same", "changed")),
    *(f"test_diff.py::test_diff[one-side-200k-{policies}]" for policies in ("same", "changed")),
    "test_diff.py::test_diff[two-sides-10k-same]", "test_classify.py::test_classify[5000-rules]",
    "test_classify.py::test_classify[1000-rules]", "test_cluster.py::test_processor_time[one-side-1m-False]",
    "test_jobs.py::test_two_workers[one-side-1m]", "test_cluster.py::test_two_workers_of_a_cluster",
    "test_outputs.py::test_rows_in_a_file[verdicts.csv]",
    *(f"test_compressed.py::test_{time}_time_of_gzip[mix-10k]" for time in ("processor", "elapsed")),
]  # fmt: skip
CHOSEN = [] if EXHAUSTIVE else [
    "-k", " or ".join(("not test_replay", *REPLAYS)), *(f"--deselect=benchmarks/{case}" for case in ALIKE),
]  # fmt: skip

#: None can be expressed in a security group, or not all of it.
NOT_PLAIN = (
    "@10.0.0.0/8\t20.0.0.0/8\t53 : 53\t0 : 65535\t0x11/0xFF\t0x0000/0x0000\t",  # source ports
    "@10.0.0.0/8\t20.0.0.0/8\t0 : 65535\t1 : 9\t0x01/0xFF",  # ports of ICMP
    "@10.0.0.0/8\t20.0.0.0/8\t0 : 65535\t0 : 65535\t0x04/0x0F",  # half a protocol
)


def write_rule_sets(corpus: Path) -> Path:
    """As ClassBench's, small: prefixes within prefixes, every kind of rule. One file is not there."""
    rng = np.random.default_rng(1)
    folder = corpus / "rules" / "neurocuts" / "classbench"
    folder.mkdir(parents=True)
    for name in ("acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k"):
        lines = [*NOT_PLAIN]
        for _ in range(100):
            ends = []
            for base, shortest in ((10 << 24, 8), (20 << 24, 8)):
                length = int(rng.choice([0, shortest, 12, 16, 24, 32]))
                address = (base | int(rng.integers(1 << 24)) & 0xFF0F01) >> (32 - length) << (32 - length)
                ends.append(f"{ipaddress.IPv4Address(address)}/{length}")
            protocol, ports = [
                ("0x06/0xFF", "80 : 80"), ("0x06/0xFF", "1024 : 65535"), ("0x11/0xFF", "53 : 53"),
                ("0x01/0xFF", "0 : 65535"), ("0x2F/0xFF", "0 : 65535"), ("0x00/0x00", "0 : 65535"),
            ][rng.integers(6)]  # fmt: skip
            lines.append(f"@{ends[0]}\t{ends[1]}\t0 : 65535\t{ports}\t{protocol}\t0x1000/0x1000\t")
        (folder / name).write_text("\n".join(lines) + "\n")
    return corpus


@pytest.fixture
def classbench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/classbench.py"""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import classbench

    return classbench


def test_rule_sets_become_groups_of_nested_destinations_and_what_cannot_is_counted(
    classbench: Any, tmp_path: Path
) -> None:
    lines = [
        "@10.0.0.0/8\t20.1.2.0/24\t0 : 65535\t80 : 443\t0x06/0xFF\t0x1000/0x1000\t",
        "@0.0.0.0/0\t20.0.0.0/8\t0 : 65535\t0 : 65535\t0x11/0xFF",
        "@10.0.0.0/8\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x00/0x00\t0x0000/0x0000\t",
        "@10.0.0.0/8\t20.1.2.0/24\t0 : 65535\t80 : 443\t0x06/0xFF\t0x0000/0x0200\t",
        *NOT_PLAIN,
    ]
    (tmp_path / "rules").write_text("\n".join(lines))
    made = classbench.read(tmp_path / "rules")
    assert (made.lines, made.flags_ignored) == (7, 1)
    assert made.left_out == {"with source ports": 1, "inexpressible": 2, "duplicates": 1}
    said = sgfast.Engine(made.policy)

    def rule(source: str, destination: str, protocol: str, **more: int) -> str | None:
        verdict = said.check(source, destination, protocol, time_ns=0, **more)
        return verdict.ingress.rule if verdict.ingress else None

    assert rule("10.9.9.9", "20.1.2.3", "tcp", sport=1, dport=100) == "to-20.1.2.0-24/inbound/1"
    assert rule("11.9.9.9", "20.1.2.3", "udp", sport=1, dport=100) == "to-20.0.0.0-8/inbound/1"
    assert rule("10.9.9.9", "20.1.3.3", "tcp", sport=1, dport=444) == "to-0.0.0.0-0/inbound/1"
    assert rule("11.9.9.9", "20.1.2.3", "tcp", sport=1, dport=100) is None
    assert said.check("10.9.9.9", "30.1.2.3", "tcp", sport=1, dport=1, time_ns=0).verdict == "out-of-scope"


def test_a_line_that_is_no_rule_is_named(classbench: Any, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text(NOT_PLAIN[0] + "\nallow all\n")
    with pytest.raises(ValueError, match=r"rules:2: not a ClassBench rule"):
        classbench.read(tmp_path / "rules")


@needs_compiler
def test_all_benchmarks_run_and_report(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    figures, results = tmp_path / "figures.json", tmp_path / "results"
    said = run_benchmarks(
        *sorted(BENCHMARKS.glob("test_*.py")), *CURVES, *CHOSEN, "--packets", "1000", "--rounds", "1",
        "--instances", "200", f"--benchmark-json={figures}", f"--basetemp={tmp_path / 'run'}",
        "--results", results,
        "--corpus", write_rule_sets(tmp_path / "corpus"),
    )  # fmt: skip
    without_rules = re.findall(r"SKIPPED .*ipc1_10k does not exist: set SGFAST_CORPUS.*", said)
    without_server = re.findall(r"SKIPPED .*test_service.py.* could not import '.*", said)
    assert sorted(re.findall(r"SKIPPED .*", said)) == sorted([*without_rules, *without_server])
    assert f" {(2 if EXHAUSTIVE else 1) + len(without_server)} skipped" in said
    table = said[said.index("sgfast benchmarks") : said.index("short test summary")].splitlines()
    assert max(len(line) for line in table if not line.startswith("pytest ")) <= 100
    benchmarks = json.loads(figures.read_text())["benchmarks"]
    replays = sum("::test_replay[" in one["fullname"] for one in benchmarks)
    assert replays == (4 * len(NAMES) - 3 * 7 if EXHAUSTIVE else 4 + 1 + 1)
    for one in benchmarks:
        extra = one["extra_info"]
        unit, per = next(key for key in extra if "_per_" in key and not key.endswith("_second")).split("_per_")
        median = extra[f"{unit}_per_{per}"]["median"]
        assert set(extra["ratios"]) == set(extra["yardsticks"])
        # Whole commands are compared with other programs alone. `check_results` wants to be told which are missing.
        assert extra["ratios"] or ("::test_whole_command[" in one["fullname"] and not OPTIONAL["tcpdump"]())
        assert all(ratio["median"] > 0 for ratio in extra["ratios"].values())
        # pytest-benchmark was given the seconds that the table shows, and its own call beside them.
        assert one["stats"]["median"] / extra["items"] * {"ns": 1e9, "ms": 1e3, "s": 1e9}[unit] > median * 0.999
    assert not list((tmp_path / "run").rglob("*.pcap"))
    written = json.loads((results / "results.json").read_text())
    assert "no rules/neurocuts/classbench/ipc1_10k in the corpus" in written["missing"].pop("ClassBench ipc1_10k")
    if EXHAUSTIVE:
        del written["missing"]["ClassBench ipc1_10k, 10 times"]
    assert written["notes"]["ClassBench acl1_1k"].startswith("103 rules; left out: 1 with source ports, 2 inexpress")
    assert written["notes"]["ClassBench acl1_10k, 10 times"].startswith("1,030 rules; left out: 10 with source ports")
    curves = json.loads((results / "curves.json").read_text())["sections"]
    assert sum(len(curve["rows"]) for curve in curves) == 16
    written["sections"] += curves
    check_results(written, benchmarks)
    kept = [(results / name).read_text() for name in ("RESULTS.md", "CURVES.md")]
    assert all(any(line in text for text in kept) for line in table[1:] if line.startswith("  "))
    for name in ("results.svg", "curves.svg"):
        assert (results / name).exists() == (importlib.util.find_spec("matplotlib") is not None)


#: Yardsticks of the table by what they need. CI installs some.
OPTIONAL = {
    "rte_acl": lambda: has_package("libdpdk"),
    "rte_hash": lambda: has_package("libdpdk"),
    "tcpdump": lambda: shutil.which("tcpdump") is not None,
    "py-radix": lambda: importlib.util.find_spec("radix") is not None,
    "nfpcapd": lambda: shutil.which("nfpcapd") is not None,
    "suricata": lambda: shutil.which("suricata") is not None,
    "nfstream": lambda: importlib.util.find_spec("nfstream") is not None,
}


def has_package(name: str) -> bool:
    return shutil.which("pkg-config") is not None and not subprocess.run(["pkg-config", "--exists", name]).returncode


def check_results(written: dict[str, Any], benchmarks: list[Any]) -> None:
    """Each benchmark of pytest-benchmark is there, and each yardstick is measured or its absence is said."""
    rows = {row["test"]: row for section in written["sections"] for row in section["rows"]}
    assert set(rows) == {one["name"] for one in benchmarks}
    for one in benchmarks:
        assert set(rows[one["name"]]["ratios"]) == set(one["extra_info"]["ratios"])
    measured = {name for row in rows.values() for name in row["yardsticks"]}
    named = {name for names in written["missing"] for name in names.split(", ")}
    for name, there in OPTIONAL.items():
        assert (name in measured) == there() != (name in named), written["missing"]


def test_only_a_ratio_that_has_doubled_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import ratios

    before = {"kept": 8.0, "slower": 8.0, "doubled": 8.0, "gone": 8.0}
    now = {"kept": 8.0, "slower": 15.9, "doubled": 16.1, "new": 100.0}
    assert list(ratios.grown(before, now)) == ["doubled: 16.10 times the floor, 8.00 when recorded"]
    assert list(ratios.grown({}, now)) == []


@needs_compiler
def test_no_ratio_to_the_floor_has_doubled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import ratios

    record = ratios.recorded()
    before = record["ratios"] if EXHAUSTIVE else dict(list(record["ratios"].items())[::8])
    if not before:
        pytest.skip("no ratios are recorded in benchmarks/ratios.json")
    options = [f"--{name}={value}" for name, value in record["options"].items()]
    now: dict[str, float] = {}
    slower: list[str] = []
    for attempt in range(3):  # another process may have had the core
        file = tmp_path / f"{attempt}.json"
        tests = [f"{BENCHMARKS / 'test_replay.py'}::{name}" for name in before]
        run_benchmarks(*tests, *options, "--python-packets=1000", f"--record-ratios={file}")
        for name, ratio in ratios.recorded(file)["ratios"].items():
            now[name] = min(ratio, now.get(name, ratio))
        slower = list(ratios.grown(before, now))
        if not slower:
            return
    pytest.fail("\n".join(slower))
