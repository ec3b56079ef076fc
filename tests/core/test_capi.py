"""The C interface for other Cython code: built outside the package, as a user would (SPEC 10.21)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sgfast

ROOT = Path(sgfast.__file__).parent.parent
PCAPS = Path(__file__).parents[2] / "pcaps"

PAGE = (Path(__file__).parents[2] / "docs/how-to/cython.md").read_text()
#: The programs of the page: the module, what builds it, and what uses it.
(MODULE,), (SETUP, EXAMPLE) = (
    re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.M | re.S) for kind in ("cython", "py")
)
USE = f"""
import numpy as np, sgfast, user_module
from frames import ethernet, ip, tcp
policy = sgfast.load({str(PCAPS / "shop.yaml")!r})
rows = np.concatenate([
    sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=port, dport=dport, time_ns=port)
    for port in range(1000, 1300) for dport in (80, 22)
])
mine = np.zeros(len(rows), dtype=sgfast.RESULT_DTYPE)
user_module.judge_headers(sgfast.Engine(policy), rows.view(np.uint8), mine.view(np.uint8), len(rows))
assert (mine == sgfast.Engine(policy).process(rows)).all()
assert set(mine["verdict"].tolist()) == {{0, 1}}
engine = sgfast.Engine(policy)
user_module.judge_headers(engine, rows.view(np.uint8), np.zeros(0, dtype=np.uint8), len(rows))
assert engine.dataplane.counters["packets"] == len(rows)
watched = sgfast.Engine(policy, events=True)
user_module.judge_headers(watched, rows.view(np.uint8), np.zeros(0, dtype=np.uint8), len(rows))
kinds = [event.kind for event in watched.events()]
assert (kinds.count("opened"), kinds.count("denied")) == (300, 300)
user_module.judge_headers(engine, rows.view(np.uint8), np.zeros(0, dtype=np.uint8), -1)
assert engine.dataplane.counters["packets"] == len(rows)
frame = ethernet(ip("198.51.100.7", "10.0.0.5", tcp(1, 80, "S")))
got = user_module.verdicts_of_frames(sgfast.Engine(policy), frame, 8)
assert got == [
    (row["verdict"], row["reason"], row["ingress"]["instance"])
    for row in sgfast.Engine(policy).process_frames([frame] * 8, range(8))
], got
try:
    user_module.judge_headers(policy, rows.view(np.uint8), mine.view(np.uint8), 1)
except TypeError as error:
    print(error)
"""


def build(folder: Path, module: str) -> None:
    (folder / "user_module.pyx").write_text(module)
    (folder / "setup.py").write_text(SETUP)
    done = run(folder, "setup.py")
    assert done.returncode == 0, done.stderr


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, folder, ROOT / "tests" / "support")))
    environment = {**os.environ, "PYTHONPATH": path, "CFLAGS": "-O0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_other_cython_code_judges_as_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    build(tmp_path, MODULE)
    done = run(tmp_path, "-c", USE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "an sgfast.Engine is wanted, not Policy\n"
    done = run(tmp_path, "-c", EXAMPLE.replace("pcaps/", f"{PCAPS}/"))
    assert done.returncode == 0, done.stderr


def test_a_module_built_for_another_version_is_refused_when_it_is_imported(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    build(tmp_path, "from sgfast.core cimport capi\n\ncapi.check_version(capi.CAPI_VERSION - 1)\n")
    done = run(tmp_path, "-c", "import user_module")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "ImportError: built for version 0 of sgfast's C interface, but this sgfast has version 1: build it again"
    )
