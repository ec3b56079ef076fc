"""Answers to a shell that asks for completions (SPEC 10.18)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command import sgfast


def told(words: str, number: int, shell: str = "bash") -> list[str]:
    environment = {
        **os.environ, "_SGFAST_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(number),
    }  # fmt: skip
    run = subprocess.run([sys.executable, "-m", "sgfast"], env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.split()


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("sgfast repl", 1, ["plain,replay"]),
        ("sgfast completion z", 2, ["plain,zsh"]),
        ("sgfast replay --midstr", 2, ["plain,--midstream"]),
        ("sgfast suggest --sand", 2, ["plain,--sandbox"]),
        ("sgfast replay --mode v", 3, ["plain,verbatim"]),
        ("sgfast replay shop", 2, ["file,shop"]),
        ("sgfast replay shop.yaml sh", 3, ["file,sh"]),
        ("sgfast nothing", 1, []),
    ],
)
def test_commands_options_values_and_files_are_completed(words: str, number: int, expected: list[str]) -> None:
    assert told(words, number) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_asks_the_way_that_is_answered(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    done = sgfast(capsys, "completion", shell)
    assert done.status == 0 and f"_SGFAST_COMPLETE={shell}_complete" in done.out


def test_shell_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    done = sgfast(capsys, "completion", "tcsh")
    assert done.status == 2 and "tcsh" in done.one_line()
