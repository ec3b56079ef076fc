"""JSON lines as the rows of a table (SPEC 10.8)."""

from __future__ import annotations

from typing import Any


def flattened(line: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """A JSON line's object as the columns of a table: None for what is null, or in a side that is."""
    flat: dict[str, Any] = {}
    for name in fields:
        outer, _, inner = name.partition(".")
        value = line[outer]
        flat[name] = value[inner] if inner and value is not None else value
    assert {name.partition(".")[0] for name in fields} == set(line)
    return flat


def texts(flat: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in flat.items()}
