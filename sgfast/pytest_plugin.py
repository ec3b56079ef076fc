"""The pytest plugin: the fixture ``sgfast_load``, and expectations files as tests (SPEC 15.2, 15.3).

Every pytest on the machine imports this module, so it imports no other part of sgfast before a test needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sgfast.base.errors import PolicyError
    from sgfast.policy.document_reader import Lines
    from sgfast.policy.expectations import Expectation
    from sgfast.policy.model import Policy

_OPTION = "sgfast_policy"
_ACCEPT_OPTION = "sgfast_accept_evidence"
_ENDINGS = (".expect.yaml", ".expect.yml", ".expect.json")
#: By path: the loaded policy with the line numbers of its rules, or the error that loading raised.
_LOADED: pytest.StashKey[dict[Path, tuple[Policy, Lines] | PolicyError]] = pytest.StashKey()


# A plain name such as "policy" could conflict with fixtures of a project.
@pytest.fixture(scope="module")
def sgfast_load(request: pytest.FixtureRequest) -> Callable[..., Policy]:
    """Load a policy, or a cloud's export, from a path relative to the test's file: ``sgfast_load("policy.yaml")``.

    Other arguments are those of ``sgfast.load``.
    """
    folder = request.path.parent

    def load_beside(path: str | os.PathLike[str], **options: Any) -> Policy:
        from sgfast.api import load

        return load(folder / path, **options)

    return load_beside


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        _OPTION,
        f"The policies that expectations files (*{', *'.join(_ENDINGS)}) are held against. If it is set, each "
        "expectation is a test.",
        type="paths",
        default=[],
    )
    parser.addini(
        _ACCEPT_OPTION,
        "Codes of reasons to doubt an answer that do not count. With about-nobody, expectations that are about no "
        "packet are skipped instead of failing.",
        type="args",
        default=[],
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name.endswith(_ENDINGS) and parent.config.getini(_OPTION):
        return _File.from_parent(parent, path=file_path)
    return None


def _shown(path: Path, config: pytest.Config) -> str:
    """Return the path as pytest's report names paths."""
    folder = config.invocation_params.dir
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _loaded(path: Path, config: pytest.Config) -> tuple[Policy, Lines]:
    """Load each policy once, and only when a test runs: a policy with an error then fails only its own tests."""
    from sgfast.base.errors import PolicyError
    from sgfast.clouds.loading import load_policy

    loaded = config.stash.setdefault(_LOADED, {})
    if path not in loaded:
        lines: Lines = {}
        try:
            loaded[path] = replace(load_policy(path, lines), origin=_shown(path, config)), lines
        except PolicyError as error:
            loaded[path] = error
    policy_or_error = loaded[path]
    if isinstance(policy_or_error, PolicyError):
        raise policy_or_error.with_traceback(None)
    return policy_or_error


class _File(pytest.File):
    """An expectations file. It has one test for each expectation and policy."""

    def collect(self) -> Iterable[pytest.Item]:
        from sgfast.base.errors import ArgumentError, PolicyError
        from sgfast.base.evidence import known_codes
        from sgfast.policy.expectations import parse_expectations
        from sgfast.policy.yaml_nodes import read_document

        policies: list[Path] = self.config.getini(_OPTION)
        files = [policy.name for policy in policies]
        try:
            known_codes(self.config.getini(_ACCEPT_OPTION))
        except ArgumentError as error:
            raise self.CollectError(f"{_ACCEPT_OPTION}: {error}") from None
        try:
            data, _ = read_document(self.path)
            expectations = parse_expectations(data, _shown(self.path, self.config)).expectations
        except PolicyError as error:
            raise self.CollectError(str(error)) from None
        names: set[str] = set()
        for expectation in expectations:
            text = expectation.name or f"{expectation.text} {expectation.verdict}"
            text = f"{text} (line {expectation.line})" if text in names else text
            names.add(text)
            for policy in policies:
                policy_name = policy.name if files.count(policy.name) == 1 else _shown(policy, self.config)
                name = f"{text} [{policy_name}]" if len(policies) > 1 else text
                yield _Item.from_parent(self, name=name, expectation=expectation, policy=policy)


class _Item(pytest.Item):
    """An expectation, to be proved for a policy."""

    def __init__(self, *, expectation: Expectation, policy: Path, **given: Any) -> None:
        super().__init__(**given)
        self._expectation = expectation
        self._policy = policy

    def runtest(self) -> None:
        from sgfast.policy.expectations import ExpectationsFile
        from sgfast.report.expectations import failure_text
        from sgfast.rules.reaching.proving import Expectations

        policy, lines = _loaded(self._policy, self.config)
        # The expectation is proved alone, so that a wrong name in one line does not fail the others.
        one_expectation = ExpectationsFile(self._expectation.place, (self._expectation,))
        proof = Expectations(policy, one_expectation).prove(self.config.getini(_ACCEPT_OPTION))
        (outcome,) = proof.outcomes
        if outcome.counterexample is not None:
            raise _Fails(f"{self._expectation.place}: {failure_text(outcome, lines)}")
        if outcome.word == "empty":
            about_nobody = "; ".join(outcome.warnings)
            if not proof:
                raise _Fails(about_nobody)
            pytest.skip(about_nobody)
        for warning in outcome.warnings:
            self.warn(pytest.PytestWarning(warning))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from sgfast.base.errors import SgfastError

        if isinstance(excinfo.value, _Fails | SgfastError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self._expectation.line - 1, self.name


class _Fails(Exception):
    """The error of an expectation that fails, or proves nothing. The message says why."""
