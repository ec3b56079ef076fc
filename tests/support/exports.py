"""Helpers for tests of cloud exports: build exports, judge packets by them, and mutate them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from effort import some

from sgfast import Engine
from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.reading import Imported, import_sources
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import PORT_PROTOCOLS, Policy
from sgfast.policy.protocols import PROTOCOL_NUMBERS
from sgfast.rules.reaching.difference import difference

OUTSIDE = "198.51.100.7"

#: Expected results: source, destination, protocol, destination port or (ICMP type, code), and the verdict's reason.
Meaning = Sequence[tuple[str, str, str, int | tuple[int, int], str | None]]

#: Odd values that replace valid ones.
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1.5, float("inf"), "", "x", "\x1b\n\ud800", "1" * 5000, "ä" * 100_000, "::1/200",
    "0.0.0.0-255.255.255.255", "::-ffff::", [], [None], [[]], {}, {"a": None}, {"": 1},
)  # fmt: skip


def imported_files(*files: tuple[str, Any], form: str = "auto") -> Imported:
    """Import files with these names and values as one export."""
    return import_sources([Source(*file) for file in files], form)


def imported(*documents: object, form: str = "auto") -> Imported:
    """Import documents as files a.json, b.json, …"""
    return imported_files(*((f"{chr(97 + n)}.json", document) for n, document in enumerate(documents)), form=form)


def policy_of(*documents: object, form: str = "auto") -> Policy:
    """Import documents, check that the policy survives a round trip through YAML, and return it."""
    made = imported(*documents, form=form)
    policy = made.policy()
    again = parse_policy(made.yaml(["Of a test"]), policy.origin)
    assert replace(again, warnings=policy.warnings) == policy
    assert again.warnings == policy.warnings[len(made.draft.made.notes) :] or len(again.warnings) == len(
        policy.warnings
    ) - len(made.draft.made.notes)
    return policy


def warnings_of(policy: Policy) -> tuple[str, ...]:
    """Return an import's warnings, except those about empty parts, because most exports in tests are incomplete."""
    empty = ("Has no rules,", "No file holds ")
    return tuple(warning for warning in policy.warnings if not warning.startswith(empty))


def error_of(*documents: object, form: str = "auto") -> str:
    with pytest.raises(PolicyError) as caught:
        imported(*documents, form=form).policy()
    message = str(caught.value)
    assert message.isprintable(), message
    return message


def allowed(policy: Policy, src: str, dst: str, protocol: str | int, dport: int | None = None, **more: Any) -> bool:
    """Return whether the packet may open a connection, without earlier packets."""
    verdict = Engine(policy).check(src, dst, protocol, sport=40000 if dport else None, dport=dport, **more)
    assert verdict.verdict in ("allow", "deny"), verdict
    return bool(verdict.verdict == "allow")


def same_meaning(first: Policy, second: Policy) -> None:
    """Check that the rules of two policies allow the same connections."""
    change = difference(first, second)
    assert not change.opened and not change.closed


def reasons_of(engine: Engine, meaning: Meaning) -> list[str | None]:
    """Return the verdict reasons of openers. Before each of them, all earlier connections expire."""
    reasons = []
    for n, (source, destination, protocol, port, _) in enumerate(meaning):
        if isinstance(port, tuple):
            fields: dict[str, Any] = {"icmp_type": port[0], "icmp_code": port[1]}
        else:
            fields = {"sport": 40000 + n, "dport": port} if PROTOCOL_NUMBERS.get(protocol) in PORT_PROTOCOLS else {}
        verdict = engine.check(source, destination, protocol, time_ns=n * 10**15, **fields)
        reasons.append(verdict.reason)
    return reasons


def means(export: Imported, meaning: Meaning) -> None:
    """Check that the export, and the document written from it, give the verdicts of ``meaning``."""
    wanted = [reason for *_, reason in meaning]
    assert reasons_of(Engine(export.policy()), meaning) == wanted
    assert reasons_of(Engine(parse_policy(export.yaml(["made by a test"]), "again.yaml")), meaning) == wanted


def mutations(document: Any) -> Iterator[Any]:
    """Yield copies of the document, each with one value deleted, or replaced by one (usually: each 25th) odd value."""
    tried = 0
    for path in paths_of(document):
        for odd in (_DELETED, *ODD):
            tried += 1
            if tried % some(25, 1) == 0:
                yield changed(document, path, odd)


_DELETED = object()


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of keys to each value within ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from paths_of(each, (*path, key))


def changed(document: Any, path: tuple[Any, ...], to: Any) -> Any:
    """Return a copy of the document with the value at the end of a path replaced or deleted."""
    made = copy.deepcopy(document)
    place = made
    for key in path[:-1]:
        place = place[key]
    if to is _DELETED:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(to)
    return made
