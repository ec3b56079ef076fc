"""What is released: nothing is published but for a tag, and wheels are for what the project says it runs on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def uses(job: dict[str, Any]) -> str:
    return "\n".join(step.get("uses", step.get("run", "")) for step in job["steps"])


def test_only_a_tag_publishes_and_only_that_job_may_sign() -> None:
    jobs = WORKFLOWS["release"]["jobs"]
    publishing = [name for name, job in jobs.items() if re.search("pypi-publish|twine upload", uses(job))]
    assert publishing == ["publish"]
    assert jobs["publish"]["if"] == "github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')"
    assert jobs["publish"]["needs"] == "check" and set(jobs["check"]["needs"]) == {"wheels", "sdist"}
    assert "attest-build-provenance" in uses(jobs["publish"]) and jobs["publish"]["environment"] == "pypi"
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert ("permissions" in job) == (name == "publish")
            assert "secrets." not in str(job)


def test_ci_runs_what_ci_is_here() -> None:
    (job,) = WORKFLOWS["ci"]["jobs"].values()
    assert job["steps"][-1]["run"] == "bash .ci/run"


def test_every_folder_of_tests_is_run_by_the_test_command_or_by_ci() -> None:
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    command = PROJECT["tool"]["pytest"]["ini_options"]["testpaths"]
    others = re.findall(r"(?<= )tests/\w+(?=[ \n])", (ROOT / ".ci" / "run").read_text())
    assert sorted(folders) == sorted({*command, *others})


def test_wheels_are_for_every_python_from_the_least_one_on() -> None:
    built = PROJECT["tool"]["cibuildwheel"]["build"].split()
    least = int(PROJECT["project"]["requires-python"].removeprefix(">=3."))
    assert built == [*(f"cp3{minor}-*" for minor in range(least, 15)), "cp314t-*"]
    words = PROJECT["tool"]["cibuildwheel"]["test-command"].split()
    assert all((ROOT / word).is_dir() for word in words if word.startswith("tests/"))


def test_wheels_are_tested_with_all_that_their_tests_read() -> None:
    """The tests run where nothing else of the project is, not even its package (`test-sources`)."""
    options = PROJECT["tool"]["cibuildwheel"]
    folders = [ROOT / word for word in options["test-command"].split() if word.startswith("tests/")]
    text = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    named = set(re.findall(r'(?:ROOT|parents\[\d\]\)?) / "(\w+)', text))
    assert {"docs", "pcaps"} <= {name for name in named if (ROOT / name).exists()} <= {*options["test-sources"]}
