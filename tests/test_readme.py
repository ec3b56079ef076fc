"""README is always true: its Python page runs, its commands print what it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sgfast.policy.document import parse_policy

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def steady(output: str) -> list[str]:
    """The lines of an output that do not depend on the machine."""
    return [line.rstrip() for line in output.splitlines() if not line.startswith("Speed")]


def test_the_embedding_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pages = blocks("python")
    assert pages
    for page in pages:
        exec(compile(page, "README.md", "exec"), {})


def test_the_policy_shown_is_one() -> None:
    (document,) = blocks("yaml")
    policy = parse_policy(document)
    assert [group.name for group in policy.security_groups] == ["web", "db"]
    assert policy.warnings == ()


@pytest.mark.parametrize("block", blocks("console"))
def test_commands_print_what_is_shown(block: str) -> None:
    command, shown = block.split("\n", 1)
    words = shlex.split(command.removeprefix("$ "))
    assert words[0] == "sgfast"
    run = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False, env={"COLUMNS": "80"}
    )
    assert run.returncode == 0, run.stderr
    assert steady(run.stdout) == steady(shown)


def test_its_first_two_blocks_are_one_command_each() -> None:
    first, second = blocks("sh")[:2]
    assert first.count("\n") == 1 and "sgfast replay" in first
    assert second.count("\n") == 1 and "pytest" in second
