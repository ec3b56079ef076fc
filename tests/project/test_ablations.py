"""The code that ``benchmarks/ablations`` takes away is still there, and measuring it works; figures are for it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ablations.run import HERE, Ablation, Measured, load_ablations, run
from effort import EXHAUSTIVE
from workload import WORKLOADS
from workshop import ROOT, Edit, Failure, all_applied

ABLATIONS = load_ablations()
by_name = pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda ablation: ablation.name)

#: Each measurement starts from these.
needs_modules = pytest.mark.skipif(
    not any((ROOT / "sgfast" / "core").glob("*.so")), reason="sgfast was not built where its sources are"
)
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc").split()[0]) is None, reason="without a C compiler nothing can be built"
)


@by_name
def test_it_applies(ablation: Ablation) -> None:
    for file in all_applied(ablation.edits):
        assert file.startswith("sgfast/") or file == "setup.py"


@by_name
def test_its_captures_exist(ablation: Ablation) -> None:
    assert ablation.captures and set(ablation.captures) <= set(WORKLOADS)
    assert len(set(ablation.captures)) == len(ablation.captures)


def test_no_two_have_one_name_or_do_the_same() -> None:
    assert len({ablation.name for ablation in ABLATIONS}) == len(ABLATIONS)
    assert len({json.dumps(all_applied(ablation.edits)) for ablation in ABLATIONS}) == len(ABLATIONS)


@pytest.mark.parametrize("old", ["cdef", "no such text"])
def test_text_that_does_not_stand_there_once_is_told(old: str) -> None:
    with pytest.raises(Failure, match=rf"sgfast/core/conntrack/storage\.pxd: '{old}' occurs \d+ times, not once"):
        all_applied([Edit("sgfast/core/conntrack/storage.pxd", old, "")])


def test_edits_of_one_file_come_one_after_the_other() -> None:
    edits = [Edit("setup.py", '"-O3" if', '"-O9" if'), Edit("setup.py", '"-O9" if', '"-O1" if')]
    text = all_applied(edits)["setup.py"]
    assert '"-O1" if' in text and '"-O3" if' not in text and '"-O9" if' not in text


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ([11, 12, 13], "pays"),
        ([9, 8, 7], "costs"),
        ([9, 12, 13], "no difference"),  # one round says otherwise
        ([10.1, 10.1, 10.1], "no difference"),  # next to nothing
    ],
)
def test_it_pays_if_every_round_says_so(without: list[float], says: str) -> None:
    assert Measured(ABLATIONS[0], "openers", 1000, 1000, [10.0, 10.0, 10.0], list(without)).says == says


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, HERE / "run.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_unknown_ablation_is_told_in_a_line() -> None:
    done = run_script("no-such-thing")
    assert done.returncode == 2
    assert done.stderr == "run.py: no such ablation: no-such-thing; see --list\n"


@pytest.mark.skipif(not EXHAUSTIVE, reason="takes 15 s: SGFAST_EXHAUSTIVE=1 does it")
@needs_modules
@needs_compiler
def test_one_is_built_measured_and_reported(tmp_path: Path) -> None:
    (ablation,) = (each for each in ABLATIONS if each.name == "window")  # in a single, small module
    done = run_script(
        ablation.name, "--as-built", "--packets=2000", "--instances=200", "--rounds=1", "--jobs=1",
        "--results", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "ablations.json").read_text())
    assert [(row["ablation"], row["capture"]) for row in written["rows"]] == [
        (ablation.name, capture) for capture in ablation.captures
    ]
    for row in written["rows"]:
        assert row["packets"] == WORKLOADS[row["capture"]].packets_of(2000)
        assert len(row["base_ns"]) == len(row["without_ns"]) == 1 and min(row["base_ns"] + row["without_ns"]) > 0
        assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    for said in (done.stdout, (tmp_path / "ABLATIONS.md").read_text()):
        assert ablation.without in said
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


def measure(ablations: Sequence[Ablation], folder: Path) -> bool:
    options = argparse.Namespace(
        packets=1000, instances=200, rounds=1, seed=1, core=-1, jobs=1, as_built=True, results=None, capture_dir=folder
    )
    return run(ablations, options)


@needs_modules
def test_one_that_changes_results_is_none_and_the_next_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = 'result.bytes = sum(counters["verdicts"]), counters["bytes"]'
    runner = "sgfast/questions/replaying/engine_runner.py"
    wrong, right = (
        Ablation(name, name, ("denied",), (Edit(runner, counted, counted + more),))
        for name, more in (("wrong", " + 1"), ("right", " + 0"))
    )
    assert not measure([wrong, right], tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert "wrong: NOT MEASURED: it changes the results of denied: bytes 64001, not 64000" in lines
    assert lines[-2] == "right: right" and lines[-1].startswith("  denied ")
