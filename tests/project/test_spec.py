"""The contract, docs/spec.md: every clause that is cited exists, and every clause is cited by a test."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from sgfast.policy.profiles import PROFILES
from sgfast.reference.tcp import TCP_TABLE_TEXT

ROOT = Path(__file__).resolve().parents[2]
SPEC = (ROOT / "docs/spec.md").read_text()
CLAUSES = re.findall(r"^\*\*(\d+\.\d+)\*\*", SPEC, re.M)
SECTIONS = re.findall(r"^## (\d+) ", SPEC, re.M)

#: Files that may cite the contract: everything that is written by hand.
CITING = [
    path
    for folder in ("sgfast", "tests", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".md", ".toml", ".json")
] + [ROOT / "README.md"]

# "SPEC 5.4", and lists and ranges: "SPEC 3.6, 4.8", "SPEC 5.4 and 5.5", "SPEC 9.1 to 9.3", "SPEC 3-5".
_NUMBER = r"\d+(?:\.\d+)?"
_CITATION = re.compile(rf"\bSPEC\s+({_NUMBER}(?:(?:,\s+and\s+|,\s*|;\s+|\s+and\s+|\s+or\s+|\s+to\s+|-){_NUMBER})*)")
_RANGE = re.compile(rf"({_NUMBER})(?:\s+to\s+|-)({_NUMBER})")


def numbers(citation: str) -> set[str]:
    """The clauses that a citation names, those between the ends of its ranges included."""
    found = set(re.findall(_NUMBER, citation))
    for first, last in _RANGE.findall(citation):
        for known in (CLAUSES, SECTIONS):
            if first in known and last in known:
                found |= set(known[known.index(first) : known.index(last) + 1])
    return found


@cache
def cited(path: Path) -> set[str]:
    text = path.read_text()
    found = set().union(*(numbers(citation) for citation in _CITATION.findall(text)))
    if path.name == "mutants.toml":
        found |= {number for mutant in tomllib.loads(text)["mutant"] for number in numbers(mutant["clause"])}
    return found


def test_lists_and_ranges_are_read_as_all_their_clauses() -> None:
    assert numbers("3.6, 4.8") == {"3.6", "4.8"}
    assert numbers("9.1 to 9.3") == numbers("9.1-9.3") == {"9.1", "9.2", "9.3"}
    assert numbers("3-5, 7") == {"3", "4", "5", "7"}


def test_no_clause_has_the_number_of_another() -> None:
    assert len(set(CLAUSES)) == len(CLAUSES) > 100
    assert [int(section) for section in SECTIONS] == list(range(1, len(SECTIONS) + 1))
    assert {clause.partition(".")[0] for clause in CLAUSES} == set(SECTIONS)


def test_clauses_refer_to_clauses_that_exist() -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", SPEC, flags=re.S)
    referred = re.findall(r"\((\d+\.\d+)\)|\bby (\d+\.\d+)\b|[Cc]lause (\d+\.\d+)", text)
    assert {number for groups in referred for number in groups if number} <= set(CLAUSES)


def test_every_clause_that_is_cited_exists() -> None:
    known = {*CLAUSES, *SECTIONS}
    unknown = {str(path.relative_to(ROOT)): sorted(numbers) for path in CITING if (numbers := cited(path) - known)}
    assert unknown == {}


@pytest.mark.parametrize("clause", CLAUSES)
def test_a_test_cites_the_clause(clause: str) -> None:
    tests = [path for path in CITING if path.is_relative_to(ROOT / "tests") and path != Path(__file__).resolve()]
    assert any(clause in cited(path) for path in tests), f"no test says that it is about SPEC {clause}"


def test_the_tcp_table_is_the_contracts() -> None:
    """SPEC 5.9."""
    block = SPEC.partition("**5.9**")[2].split("```")[1]
    states = block.split("\n")[1].split()[:10]
    rows = [line.split()[:12] for line in block.splitlines() if line.startswith(("original", "reply"))]
    table = [states, *([row[0], row[1].lower().replace("/", ""), *row[2:]] for row in rows)]
    assert table == [line.split() for line in TCP_TABLE_TEXT.strip().splitlines()]


def test_the_profiles_are_the_contracts() -> None:
    """SPEC 6.8."""
    lines = SPEC.partition("**6.8**")[2].partition("**6.9**")[0].splitlines()
    head, _, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|")
    for number, name in enumerate(head[1:], 1):
        settings, quotas, _, first_port, _ = PROFILES[name]
        values = {
            **{key: f"{value:g}" for key, value in asdict(settings.timeouts).items()},
            "on_change": settings.on_change,
            "infrastructure": settings.infrastructure,
            "group_members": settings.group_members,
            **{f"quota `{key}": str(value) for key, value in asdict(quotas).items()},
            "the first port of a rule (2.15)": str(first_port),
        }
        assert {row[0]: row[number] for row in rows} == values
