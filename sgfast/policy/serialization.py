"""Convert the model's frozen values to JSON values and back, for files that only sgfast itself reads.

A dataclass becomes an object with its class name under ``is``. Tuples and sets become arrays, and prefixes strings. The
expected type determines how a value is read, so a file can only produce values of the model. Callers must check that
the values are consistent with each other. People write policies in the format of ``document_reader``.
"""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_NETWORKS = (IPv4Network, IPv6Network)


def to_plain(value: Any) -> Any:
    if isinstance(value, _NETWORKS):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": _called(type(value)), **{f.name: to_plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, frozenset):
        return sorted((to_plain(item) for item in value), key=repr)
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(value_type: Any, plain: Any) -> Any:
    """Convert a JSON value into a value of the type ``value_type``. Raises ValueError if ``plain`` does not fit."""
    kind, choices = get_origin(value_type), get_args(value_type)
    if kind in (Union, types.UnionType):
        return from_plain(_choose(choices, plain), plain)
    if kind is Literal:
        if plain in choices and type(plain) in map(type, choices):
            return plain
    elif kind is tuple and isinstance(plain, list):
        if choices[-1] is ...:
            return tuple(from_plain(choices[0], item) for item in plain)
        if len(plain) == len(choices):
            return tuple(from_plain(choice, item) for choice, item in zip(choices, plain, strict=True))
    elif kind is frozenset and isinstance(plain, list):
        return frozenset(from_plain(choices[0], item) for item in plain)
    elif value_type in _NETWORKS and isinstance(plain, str):
        return ip_network(plain)
    elif is_dataclass(value_type) and isinstance(value_type, type) and isinstance(plain, dict):
        hints = field_types(value_type)
        if plain.get("is") == _called(value_type) and plain.keys() == {"is", *hints}:
            return value_type(**{name: from_plain(hint, plain[name]) for name, hint in hints.items()})
    elif type(plain) is value_type or (value_type is float and type(plain) is int):
        return plain
    raise ValueError(f"{str(plain)[:40]!r} is not a {getattr(value_type, '__name__', value_type)}")


def _choose(choices: tuple[Any, ...], plain: Any) -> Any:
    if plain is None and types.NoneType in choices:
        return types.NoneType
    if isinstance(plain, dict):
        return next((choice for choice in choices if getattr(choice, "__name__", "") == plain.get("is")), choices[0])
    if isinstance(plain, str) and IPv6Network in choices:
        return IPv6Network if ":" in plain else IPv4Network
    if type(plain) in choices:
        return type(plain)
    return next((choice for choice in choices if choice is not types.NoneType), choices[0])


@cache
def _called(cls: type) -> str:
    """Return the name of the dataclass from which ``cls`` inherits its fields: itself, or its nearest dataclass."""
    return next(base.__name__ for base in cls.__mro__ if "__dataclass_fields__" in vars(base))


@cache
def field_types(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields, by name."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}
