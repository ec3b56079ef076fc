"""Longest-prefix look-ups with pytricia and py-radix, one address per call from Python."""

from __future__ import annotations

import importlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from . import Missing

#: Prefixes with their values.
Prefixes = Sequence[tuple[Any, int]]


class Lookups:
    """A look-up function. ``find`` takes a packed address; ``value`` converts its result to the prefix's value."""

    def __init__(self, find: Callable[[bytes], Any], value: Callable[[Any], int | None]) -> None:
        self._find, self._value = find, value

    def run(self, addresses: Sequence[bytes]) -> None:
        deque(map(self._find, addresses), maxlen=0)  # runs without bytecode between calls, and keeps no results

    def values(self, addresses: Sequence[bytes]) -> list[int | None]:
        return [self._value(self._find(address)) for address in addresses]


def pytricia(prefixes: Prefixes, family: int) -> Lookups:
    module = _module("pytricia", "pytricia")
    made = module.PyTricia(32, socket.AF_INET) if family == 4 else module.PyTricia(128, socket.AF_INET6)
    for prefix, value in prefixes:
        made[str(prefix)] = value
    return Lookups(made.get, lambda value: value)


def radix(prefixes: Prefixes, family: int) -> Lookups:
    """Make a py-radix tree, which takes prefixes of either IP version."""
    made = _module("radix", "py-radix").Radix()
    for prefix, value in prefixes:
        made.add(str(prefix)).data["value"] = value
    search = made.search_best

    def find(address: bytes) -> Any:
        return search(packed=address)

    return Lookups(find, lambda node: None if node is None else node.data["value"])


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(f"{package} is not installed") from None
