"""The documents that these tests read, the first few of each, are also held against their JSON Schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from effort import some
from schemas import disagreements
from yaml.nodes import Node

from sgfast.base.errors import PolicyError
from sgfast.policy.change_file import ChangeFile
from sgfast.policy.document_reader import DocumentReader
from sgfast.policy.expectations import ExpectationsFile, parse_expectations
from sgfast.policy.yaml_nodes import compose

T = TypeVar("T")

#: Without those of limits, whose documents are huge.
HELD = (
    "test_policy_document", "test_policy_rules", "test_policy_text", "test_policy_templates", "test_change_file",
    "test_expectations_file",
)  # fmt: skip


@pytest.fixture(autouse=True)
def schemas_agree(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SPEC 15.5."""
    if request.module.__name__ not in HELD:
        yield
        return
    found: list[str] = []
    left = iter(range(some(4, 10_000)))
    roots: dict[ChangeFile, Node] = {}

    def held(name: str, root: Node, read: Callable[[], T], *, to_the_end: bool = True) -> T:
        if next(left, None) is None:
            return read()
        try:
            result = read()
        except PolicyError as error:
            found.extend(disagreements(name, root, error))
            raise
        if to_the_end:
            found.extend(disagreements(name, root, None))
        return result

    policy, begin, resolve = DocumentReader.policy, ChangeFile.__init__, ChangeFile.resolve

    def begun(file: ChangeFile, root: Node, origin: str) -> None:
        roots[file] = root
        held("changes", root, lambda: begin(file, root, origin), to_the_end=False)

    def parsed(text: str | bytes, origin: str = "<expectations>") -> ExpectationsFile:
        return held("expectations", compose(text, origin), lambda: parse_expectations(text, origin))

    monkeypatch.setattr(DocumentReader, "policy", lambda it: held("policy", it._root, lambda: policy(it)))
    monkeypatch.setattr(ChangeFile, "__init__", begun)
    monkeypatch.setattr(
        ChangeFile, "resolve", lambda it, *given: held("changes", roots[it], lambda: resolve(it, *given))
    )
    if hasattr(request.module, "parse_expectations"):
        monkeypatch.setattr(request.module, "parse_expectations", parsed)
    yield
    assert not found, "\n".join(found)
