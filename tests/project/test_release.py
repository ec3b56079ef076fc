"""Releases: nothing is published but for a tag, and wheels are for what the project says it runs on."""

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


def test_a_tag_or_a_branch_that_is_moved_changes_no_workflow() -> None:
    files = (ROOT / ".github" / "workflows").glob("*.yml")
    found = re.findall(r"\buses: ([^.\s]\S*) *(.*)$", "\n".join(path.read_text() for path in files), re.M)
    jobs = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
    used = [each["uses"] for job in jobs for each in (job, *job["steps"]) if "uses" in each]
    assert sorted(name for name, _ in found) == sorted(used) and len(used) > 8
    assert not any("uses" in step for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"])
    for name, comment in found:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", name), f"{name}: name the commit"
        assert re.fullmatch(r"# v\d+\.\d+\.\d+", comment), f"{name}: say in a comment which version it is"
    assert len(set(found)) == len({name.partition("@")[0] for name, _ in found}), "an action has two versions"


def test_a_package_that_is_replaced_gets_into_no_workflow() -> None:
    installed = set()
    for workflow in WORKFLOWS.values():
        for job in workflow["jobs"].values():
            for line in uses(job).splitlines():
                assert not re.search(r"\b(pipx|uvx|easy_install|uv (pip|tool|run))\b", line), line
                if re.search(r"\bpip\S* +(install|download|wheel)\b", line):
                    given = re.fullmatch(r"pip install --require-hashes -r (\S+)", line.strip())
                    assert given is not None, f"{line}: install what a file with hashes lists"
                    installed.add(given[1])
    assert installed == {"requirements-release.lock"}
    listed = (ROOT / "requirements-release.lock").read_text().replace("\\\n", "")
    lines = [line for line in listed.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==\S+( ;[^#]*?)?( +--hash=sha256:[0-9a-f]{64})+ *", line) for line in lines)
    versions = {line.partition("==")[0] for line in lines}
    assert {re.split("[><=]", wanted)[0] for wanted in PROJECT["dependency-groups"]["release"]} <= versions


def test_ci_runs_what_ci_is_here() -> None:
    (job,) = WORKFLOWS["ci"]["jobs"].values()
    assert job["steps"][-1]["run"] == "bash .ci/run"


def test_every_folder_of_tests_is_run_by_the_test_command_or_by_ci() -> None:
    folders = {"/".join(path.relative_to(ROOT).parts[:2]) for path in (ROOT / "tests").glob("*/**/test_*.py")}
    command = PROJECT["tool"]["pytest"]["ini_options"]["testpaths"]
    others = re.findall(r"(?<= )tests/\w+(?=[ \n])", (ROOT / ".ci" / "run").read_text())
    assert sorted(folders) == sorted({*command, *others})


def test_wheels_are_for_every_python_from_the_least_one_on() -> None:
    built = PROJECT["tool"]["cibuildwheel"]["build"].split()
    least = int(PROJECT["project"]["requires-python"].removeprefix(">=3."))
    assert built == [*(f"cp3{minor}-*" for minor in range(least, 15)), "cp314t-*"]
    named = re.findall(r"Python :: 3\.(\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert [*map(int, named)] == [*range(least, 15)]
    words = PROJECT["tool"]["cibuildwheel"]["test-command"].split()
    assert all((ROOT / word).is_dir() for word in words if word.startswith("tests/"))


def test_all_has_every_extra_and_no_extra_is_for_work_on_sgfast() -> None:
    """Users see extras on the index page. What only contributors need is a dependency group."""
    extras = PROJECT["project"]["optional-dependencies"]
    (every,) = extras.pop("all")
    assert every == f"sgfast[{','.join(sorted(extras))}]"
    assert PROJECT["dependency-groups"].keys() == {"test", "lint", "docs", "release"}
    assert not PROJECT["dependency-groups"].keys() & extras.keys()


def test_the_commands_of_readme_work_with_the_pip_of_an_old_python() -> None:
    """pip before 25.1 knows no ``--group``, and Python 3.11 brings an older one."""
    first, second = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)[:2]
    assert "--group test" in second and "venv --upgrade-deps .venv" in first
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for line in re.findall(r"^.*-m venv .*$", page.read_text(), re.M):
            assert "--upgrade-deps" in line, f"{page.name}: {line}"
    groups = [*re.findall(r"--group (\w+)", (ROOT / "CONTRIBUTING.md").read_text())]
    assert {*groups} <= PROJECT["dependency-groups"].keys() and "docs" in groups


def test_wheels_are_tested_with_all_that_their_tests_read() -> None:
    """The tests run where nothing else of the project is, not even its package (`test-sources`)."""
    options = PROJECT["tool"]["cibuildwheel"]
    folders = [ROOT / word for word in options["test-command"].split() if word.startswith("tests/")]
    text = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    named = set(re.findall(r'(?:ROOT|parents\[\d\]\)?) / "(\w+)', text))
    assert {"docs", "pcaps"} <= {name for name in named if (ROOT / name).exists()} <= {*options["test-sources"]}
