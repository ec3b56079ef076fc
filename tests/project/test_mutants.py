"""The list of wrong engines fits the sources and the tests; ``mutants/run.py`` tries them, which takes minutes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from mutants.run import Mutant, load_mutants
from workshop import ROOT, all_applied

MUTANTS = load_mutants()
by_name = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@cache
def functions(path: Path) -> set[str]:
    """The tests in a file, as pytest names them below it."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 40


def test_no_two_have_one_name_or_do_the_same() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({all_applied([mutant])[mutant.file] for mutant in MUTANTS}) == len(MUTANTS)


@by_name
def test_it_applies(mutant: Mutant) -> None:
    assert mutant.file.startswith("sgfast/")
    assert mutant.old != mutant.new
    all_applied([mutant])


@by_name
def test_the_test_that_catches_it_exists(mutant: Mutant) -> None:
    path, _, name = mutant.test.partition("::")
    assert path.startswith("tests/") and Path(path).name.startswith("test_")
    assert name in functions(ROOT / path)
