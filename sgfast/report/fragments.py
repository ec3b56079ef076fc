"""Pieces of JSON lines that come up again and again, made once. Lines are what ``json.dumps`` of their dict would give.

Caches are emptied between batches when they have grown large: a capture may hold any number of addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from ipaddress import IPv6Address
from json import dumps
from socket import AF_INET, inet_ntop
from struct import Struct
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.protocols import protocol_name

Key = TypeVar("Key", bound=Hashable)

#: Fragments a cache may hold when a batch begins; some hundred bytes each.
MAX_FRAGMENTS = 1 << 16

NS_PER_SECOND = 10**9


class Fragments(dict[Key, str]):
    """A cache that makes what it lacks."""

    def __init__(self, make: Callable[[Key], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> str:
        fragment = self[key] = self._make(key)
        return fragment

    def shrink(self) -> None:
        if len(self) > MAX_FRAGMENTS:
            self.clear()


def address_json(packed: bytes) -> str:
    """4 or 16 bytes as people write them, in quotes."""
    return f'"{inet_ntop(AF_INET, packed) if len(packed) == 4 else IPv6Address(packed)}"'


def address_bytes(sixteen: bytes, family: int) -> bytes:
    """A row's address field as the address's own bytes."""
    return sixteen if family == 6 else sixteen[:4]


def protocol_json(number: int) -> str:
    """SPEC 10.3: the name, else the number."""
    name = protocol_name(number)
    return str(number) if name is None else dumps(name)


PROTOCOLS = tuple(protocol_json(number) for number in range(256))


def time_text(time_ns: int) -> str:
    """SPEC 10.3: seconds with nine decimals."""
    seconds, nanoseconds = divmod(abs(time_ns), NS_PER_SECOND)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{nanoseconds:09d}"


def time_texts(times_ns: NDArray[Any]) -> list[str]:
    """``time_text`` of a column."""
    if len(times_ns) and int(times_ns.min()) < 0:
        return [time_text(time_ns) for time_ns in times_ns.tolist()]
    seconds, nanoseconds = np.divmod(times_ns, NS_PER_SECOND)
    return [f"{s}.{n:09d}" for s, n in zip(seconds.tolist(), nanoseconds.tolist(), strict=True)]


def row_bytes(rows: NDArray[Any]) -> list[bytes]:
    """Each row of a contiguous structured array as bytes."""
    found: list[bytes] = rows.view(f"V{rows.dtype.itemsize}").tolist()
    return found




def unpacker(dtype: np.dtype[Any]) -> Struct:
    """What takes ``row_bytes`` apart again: field after field, those of a nested field in its place."""
    layout = Struct("<" + _codes(dtype))
    assert layout.size == dtype.itemsize
    return layout


def _codes(dtype: np.dtype[Any]) -> str:
    if dtype.fields is not None:
        return "".join(_codes(dtype.fields[name][0]) for name in dtype.names or ())
    if dtype.subdtype is not None:
        return f"{dtype.itemsize}s"
    return {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i4": "i", "i8": "q"}[dtype.str[1:]]
