"""Programs that a stranger writes from the documents: they run, and type checkers have nothing to say (SPEC 14.8).

``test_programs`` has a simulator, analyses and a notebook, ``test_service`` the web service, ``tests/core/test_capi`` a
Cython module, and ``tests/testing/test_testing_page`` tests of a policy and of a Terraform plan.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(Path(__file__).with_name("programs").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_runs(program: Path) -> None:
    if program.stem == "arrow":
        pytest.importorskip("pyarrow")
    command = [sys.executable, str(program), "pcaps"]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_type_checkers_have_nothing_to_say_of_them(tmp_path: Path) -> None:
    for package in ("mypy", "fastapi", "prometheus_client"):
        pytest.importorskip(package)
    # Elsewhere, so that the checker sees the package as it is installed. pyarrow has no types.
    for program in (*PROGRAMS, ROOT / "docs" / "how-to" / "service.py"):
        shutil.copy2(program, tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--disable-error-code=import-untyped", "."]
    command += ["--cache-dir", str(ROOT / "build" / "mypy")]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
