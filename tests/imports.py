"""What the tests of imports share: verdicts in short, the way through YAML, and documents with anything anywhere."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from sgfast.engine import Engine
from sgfast.policy.document import parse_policy
from sgfast.policy.formats import Imported, import_sources
from sgfast.policy.formats.sources import Source

#: Source, destination, protocol, destination port or (ICMP type, code), the reason of the verdict.
Meaning = Sequence[tuple[str, str, str, int | tuple[int, int], str | None]]

#: What may stand where something else is wanted.
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, float("inf"), "", "\x1b\n\ud800", "::1/200", [], [None], [[]], {}, {"a": None},
)  # fmt: skip


def allowed(engine: Engine, meaning: Meaning) -> list[str | None]:
    """The reasons for which openers pass or do not, each at a time when nothing is remembered of the others."""
    reasons = []
    for n, (source, destination, protocol, port, _) in enumerate(meaning):
        kind, code = port if isinstance(port, tuple) else (0, 0)
        dport = 0 if isinstance(port, tuple) else port
        verdict = engine.check(
            source, destination, protocol, sport=40000 + n, dport=dport, icmp_type=kind, icmp_code=code, time=n * 1e6
        )
        reasons.append(verdict.reason)
    return reasons


def imported(*files: tuple[str, Any]) -> Imported:
    """What files of these names that hold these values are together."""
    return import_sources([Source(*file) for file in files])


def means(export: Imported, meaning: Meaning) -> None:
    """The export judges as is written down, and so does the document made of it once it was written and read again."""
    wanted = [reason for *_, reason in meaning]
    assert allowed(Engine(export.policy()), meaning) == wanted
    assert allowed(Engine(parse_policy(export.yaml(["made by a test"]), "again.yaml")), meaning) == wanted


def mutations(document: Any) -> Iterator[Any]:
    """The document with every value in turn gone, and replaced by each odd one."""
    for path in _paths(document, ()):
        changed = copy.deepcopy(document)
        del _holder(changed, path)[path[-1]]
        yield changed
        for odd in ODD:
            changed = copy.deepcopy(document)
            _holder(changed, path)[path[-1]] = copy.deepcopy(odd)
            yield changed


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from _paths(each, (*path, key))


def _holder(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document
