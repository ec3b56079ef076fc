"""Limits on the contents of any document: below, at and beyond each of them (SPEC 11.1)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing import sources
from sgfast.policy import export_files, yaml_nodes
from sgfast.policy.yaml_nodes import compose


def yaml(text: str) -> None:
    compose(text, "some.yaml")


def json_text(text: str) -> None:
    sources.json_value(text.encode(), "some.json")


def padded(n: int) -> str:
    return "[1]" + " " * (n - 3)


def nested(n: int) -> str:
    # The innermost value is a level, too.
    return "[" * (n - 1) + "1" + "]" * (n - 1)


def values(n: int) -> str:
    # The list is a value, too.
    return json.dumps([1] * (n - 1))


def tags(n: int) -> str:
    return "".join(f"%TAG !a{i}! x\n" for i in range(n)) + "---\nversion: 1\n"


@pytest.mark.parametrize(
    ("module", "limit", "value", "made", "read", "error"),
    [
        (yaml_nodes, "MAX_BYTES", 1 << 20, padded, yaml, "some.yaml: larger than 1 MiB"),
        (sources, "MAX_BYTES", 1 << 20, padded, json_text, "some.json: larger than 1 MiB"),
        (yaml_nodes, "MAX_DEPTH", 50, nested, yaml, "nested more than 50 levels deep"),
        (sources, "MAX_DEPTH", 50, nested, json_text, "some.json: nested more than 50 levels deep"),
        (yaml_nodes, "MAX_NODES", 1000, values, yaml, "too large: more than 1,000 values"),
        (sources, "MAX_NODES", 1000, values, json_text, "some.json: too large: more than 1,000 values"),
        (yaml_nodes, "MAX_TAG_DIRECTIVES", 100, tags, yaml, "some.yaml: more than 100 %TAG directives"),
    ],
)
def test_a_document_may_be_as_large_as_the_limit_and_no_larger(
    module: object, limit: str, value: int, made: Callable[[int], str], read: Callable[[str], None], error: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, limit, value)
    read(made(value - 1))
    read(made(value))
    with pytest.raises(PolicyError) as refused:
        read(made(value + 1))
    assert error in str(refused.value) and "\n" not in str(refused.value)


def test_a_directory_may_hold_as_many_files_as_the_limit_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "MAX_FILES", 3)
    for n in range(4):
        if n:
            assert len(export_files.files_of(tmp_path)) == n
        (tmp_path / f"{n}.json").write_text("{}")
    with pytest.raises(PolicyError, match=r"more than 3 files: "):
        export_files.files_of(tmp_path)
