"""README is always true: its Python page runs, its commands print what it shows (SPEC 10.20)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgfast.policy.document import parse_policy

ROOT = Path(__file__).resolve().parents[2]
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
def test_commands_print_what_is_shown(block: str, tmp_path: Path) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "folder"
    programs.mkdir()
    folder.mkdir()
    (folder / "pcaps").symlink_to(ROOT / "pcaps")
    (programs / "sgfast").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m sgfast "$@"\n')
    (programs / "sgfast").chmod(0o755)
    env = {"COLUMNS": "80", "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    # A build with sanitizers does not start without them.
    env |= {name: os.environ[name] for name in ("LD_PRELOAD", "ASAN_OPTIONS") if name in os.environ}
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", block, flags=re.M)
    assert "".join(f"$ {command}{shown}" for command, shown in commands) == block
    for command, shown in commands:
        program = shlex.split(command)[0]
        assert program in ("sgfast", "tshark", "cut", "sed")
        if shutil.which(program, path=env["PATH"]) is None:
            pytest.skip(f"no {program} here")
        run = subprocess.run(
            ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False, env=env
        )
        assert run.returncode == 0, run.stderr
        assert steady(run.stdout) == steady(shown)


def test_its_first_two_blocks_are_one_command_each() -> None:
    first, second = blocks("sh")[:2]
    assert first.count("\n") == 1 and "sgfast replay" in first
    assert second.count("\n") == 1 and "pytest" in second
