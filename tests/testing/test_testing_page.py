"""docs/testing.md and docs/ci.md are always true: their tests run, and their settings name what exists (SPEC 15).
``test_live_aws`` has a server in the place of AWS, and runs the test of an application there.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from schemas import validator
from terraform import LATER, block, plan, refs, resource

from sgfast.clouds.loading import parse_policy
from sgfast.policy.expectations import parse_expectations

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
TESTING, CI = ((ROOT / "docs" / name).read_text() for name in ("testing.md", "ci.md"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.M | re.S)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with all files that the page names."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (pytester.path / "pcaps").symlink_to(ROOT / "pcaps")
    for text in (each for language in ("python", "yaml", "toml") for each in blocks(TESTING, language)):
        (pytester.path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    return pytester


def test_the_page_on_testing_runs_as_it_is_written(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("-p", "sgfast.pytest_plugin", "test_network.py", "network.expect.yaml", "-rA")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["PASSED network.expect.yaml::databases open no connections"])
    (shown,) = blocks(TESTING, "text")
    fails = project.runpytest_inprocess("-p", "sgfast.pytest_plugin", "test_that_fails.py")
    fails.assert_outcomes(failed=1)
    assert shown in fails.stdout.str()


def test_the_test_of_a_terraform_plan_holds_and_fails_with_the_plan(project: pytest.Pytester) -> None:
    """Nothing exists yet: groups are found through the references of the configuration."""
    everyone = {"from_port": 443, "to_port": 443, "protocol": "tcp", "cidr_blocks": ["0.0.0.0/0"]}
    from_web = {"from_port": 5432, "to_port": 5432, "protocol": "tcp", "security_groups": LATER}
    mistaken = from_web | {"from_port": 5433, "to_port": 5433}
    for source, outcomes in ((from_web, {"passed": 1}), (mistaken, {"failed": 1})):
        made = [
            resource("aws_security_group.web", id=LATER, name="web", ingress=[everyone], egress=[{
                "from_port": 0, "to_port": 0, "protocol": "-1", "cidr_blocks": ["0.0.0.0/0"],
            }]),
            resource("aws_security_group.db", id=LATER, name="db", ingress=[source], egress=[]),
            resource("aws_instance.web", id=LATER, private_ip="10.8.0.5", vpc_security_group_ids=LATER),
            resource("aws_instance.db", id=LATER, private_ip="10.8.0.6", vpc_security_group_ids=LATER),
        ]  # fmt: skip
        configuration = [
            block("aws_security_group.db", ingress=refs("aws_security_group.web.id")),
            block("aws_instance.web", vpc_security_group_ids=refs("aws_security_group.web.id")),
            block("aws_instance.db", vpc_security_group_ids=refs("aws_security_group.db.id")),
        ]
        (project.path / "plan.json").write_text(json.dumps(plan([], made, *configuration)))
        result = project.runpytest_inprocess("-p", "sgfast.pytest_plugin", "test_plan.py")
        result.assert_outcomes(**outcomes)
        if "failed" in outcomes:
            result.stdout.fnmatch_lines(["*web to db: tcp/5432 should be allowed*"])


def test_the_page_on_ci_names_inputs_hooks_and_schemas_that_exist() -> None:
    workflow, hooks, document = blocks(CI, "yaml")
    action: Any = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = yaml.safe_load(workflow)["jobs"]["network"]["steps"]
    (step,) = (step for step in steps if step["uses"].startswith("OWNER/sgfast@"))
    assert step["with"].keys() <= action["inputs"].keys()
    assert set(re.findall(r"steps\.sgfast\.outputs\.(\w+)", workflow)) <= action["outputs"].keys()
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", CI, flags=re.M)
    assert re.findall(r"[a-z-]+", " ".join(rows)) == [*action["inputs"]]
    known = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    assert {hook["id"] for hook in yaml.safe_load(hooks)["repos"][0]["hooks"]} == known
    assert document.startswith("# yaml-language-server: $schema=policy.schema.json\n")
    assert parse_policy(document).warnings == ()
    validator("policy").validate(yaml.safe_load(document))
    validator("expectations").validate(yaml.safe_load(blocks(TESTING, "yaml")[0]))
    assert len(parse_expectations(blocks(TESTING, "yaml")[0]).expectations) == 3
    assert tomllib.loads(blocks(TESTING, "toml")[0])
