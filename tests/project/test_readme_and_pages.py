"""README and the documentation are always true: their Python runs, their commands print what they show (SPEC 10.20)."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgfast.cli import main
from sgfast.clouds.loading import parse_policy

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

#: A terminal's output may be made with these, besides sgfast; a block is skipped where one of them is missing.
PROGRAMS = ("tshark", "cut", "sed")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def first_shown(language: str) -> dict[str, str]:
    """Every block of a language, each once, with the page that shows it first and its number there."""
    found: dict[str, str] = {}
    for page in PAGES:
        for number, block in enumerate(blocks(page, language), 1):
            found.setdefault(block, f"{page.relative_to(ROOT)}, block {number}")
    return found


CONSOLES = first_shown("console")


def steady(output: str) -> list[str]:
    """The lines of an output that do not depend on the machine and the version."""
    output = re.sub(r"\bsgfast \d+\.\d+\.\d+\S*", "sgfast VERSION", output)
    return [line.rstrip() for line in output.splitlines() if not line.startswith("Speed")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader is who follows a page: a folder with pcaps/ in it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "pcaps").symlink_to(ROOT / "pcaps")
    return folder


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{page.relative_to(ROOT)}, block {number}", "exec"), names)


def test_the_policies_shown_are_policies() -> None:
    documents = [block for block in first_shown("yaml") if re.search("^version:", block, re.M)]
    assert documents
    for document in documents:
        assert parse_policy(document).warnings == ()


@pytest.mark.parametrize("block", CONSOLES, ids=CONSOLES.values())
def test_commands_print_what_is_shown(block: str, folder: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sgfast").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m sgfast "$@"\n')
    (programs / "sgfast").chmod(0o755)
    env = {"COLUMNS": "80", "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    # A build with sanitizers does not start without them.
    env |= {name: os.environ[name] for name in ("LD_PRELOAD", "ASAN_OPTIONS") if name in os.environ}
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", block, flags=re.M)
    assert "".join(f"$ {command}{shown}" for command, shown in commands) == block
    for command, shown in commands:
        program = shlex.split(command)[0]
        assert program in ("sgfast", *PROGRAMS)
        if shutil.which(program, path=env["PATH"]) is None:
            pytest.skip(f"no {program} here")
        run = subprocess.run(
            ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False, env=env
        )
        assert run.returncode == 0, run.stderr
        assert steady(run.stdout) == steady(shown)


def test_options_that_are_shown_exist() -> None:
    """Also those of commands that are not run because they need a cloud, a cluster or a capture of the reader's."""
    shown = set()
    for page in PAGES:
        for name, rest in re.findall(r"sgfast ([a-z]+)( [^`|>\n]*)", page.read_text()):
            if name in main.commands:
                shown |= {(name, option) for option in re.findall(r"(?<=[ \[])--[a-z][a-z-]*", rest)}
    assert len(shown) > 50
    assert not {(name, option) for name, option in shown if option not in options_of(name)}


def options_of(command: str) -> set[str]:
    parameters = main.commands[command].params
    return {"--help"}.union(*((*parameter.opts, *parameter.secondary_opts) for parameter in parameters))


def test_the_first_two_blocks_of_readme_are_one_command_each() -> None:
    first, second = re.findall(r"^```(.*?)\n(.*?)^```", README.read_text(), flags=re.M | re.S)[:2]
    assert first[0] == second[0] == "sh"
    assert first[1].count("\n") == 1 and "sgfast replay" in first[1]
    assert second[1].count("\n") == 1 and "pytest" in second[1]


def test_the_terminal_in_the_picture_says_what_sgfast_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    maker = runpy.run_path(str(ROOT / "docs/pictures/make.py"))
    assert maker["terminal"]() == (ROOT / "docs/pictures/terminal.svg").read_text(), "run docs/pictures/make.py"


def test_the_drawings_are_those_of_their_texts() -> None:
    maker = runpy.run_path(str(ROOT / "docs/pictures/draw.py"))
    for name, (title, text) in maker["PICTURES"].items():
        drawn = (ROOT / f"docs/pictures/{name}.svg").read_text()
        assert drawn == maker["picture"](title, text), "run docs/pictures/draw.py"


def test_architecture_takes_ten_minutes() -> None:
    """Without the table of imports, which nobody reads from top to bottom."""
    text = (ROOT / "docs/architecture.md").read_text()
    assert len(re.sub(r"<!-- imports: begin.*imports: end -->", "", text, flags=re.S).split()) <= 2000


def test_readme_takes_three_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 250
    pictures = list((ROOT / "docs/pictures").glob("*.[ps][nv]g"))
    assert pictures and all(picture.stat().st_size <= 150_000 for picture in pictures)
