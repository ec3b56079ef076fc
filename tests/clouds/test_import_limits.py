"""Limits on the contents of an export: at each limit, and beyond it (SPEC 11.1)."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing import draft, sources
from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.object_location import Location

SEED = 1


def count(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, children))


def made_up(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.4:
        return rng.choice([1, "a,b", '[{"\\', None, True, "\\", ""])
    if kind < 0.7:
        return [made_up(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {f'{i},"{{': made_up(rng, depth - 1) for i in range(rng.randrange(4))}


def test_values_of_json_are_counted_without_reading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    for _ in range(500):
        value = made_up(rng, 5)
        data = json.dumps(value, indent=rng.choice([None, 2])).encode()
        number = count(value)
        assert sources.json_values(data) == number
        monkeypatch.setattr(sources, "MAX_NODES", number)
        assert sources.json_value(data, "some.json") == value
        monkeypatch.setattr(sources, "MAX_NODES", number - 1)
        with pytest.raises(PolicyError, match=rf"^some\.json: too large: more than {number - 1:,} values$"):
            sources.json_value(data, "some.json")


@pytest.mark.parametrize("data", [b'"', b'"\\', b'["', b'[,"\\"', b'{"a": [1, 2', b"]["])
def test_what_is_no_json_is_still_told_as_that(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_NODES", 4)
    with pytest.raises(json.JSONDecodeError):
        sources.json_value(data, "some.json")


def test_ranges_may_need_as_many_prefixes_as_the_limit_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each range needs four prefixes: a /32, a /31, a /31 and a /32.
    ranges = ["10.0.0.1-10.0.0.6", "10.1.0.1-10.1.0.6"]
    monkeypatch.setattr(draft, "MAX_PREFIXES", 8)
    made = Draft("otc")
    made.address_group(Location("export", "address group", "a"), ranges[:1])
    made.address_group(Location("export", "address group", "b"), ranges[1:])
    with pytest.raises(PolicyError, match="the address groups need more than 8 prefixes, to which ranges of addresses"):
        made.address_group(Location("export", "address group", "c"), ["10.9.9.9"])
