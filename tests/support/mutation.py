"""Damage bytes at random, for tests of parsers. All draws come from one generator, so a seed determines the result."""

from __future__ import annotations

import random

#: Lengths and numbers at the bounds of fields, or at limits of parsers.
EDGES = (
    0, 1, 2, 3, 4, 7, 8, 11, 12, 15, 16, 19, 20, 24, 28, 39, 40, 127, 128, 255, 256, 65535, 65536, 0x3FFFF, 0x40000,
    0xFFFFFFF, 0x10000000, 0x10000001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF,
)  # fmt: skip


def mutated(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Return ``data`` with a few changes. Some insert pieces of ``other``, or of ``data`` if ``other`` is empty."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        _mutate(rng, changed, other or data)
    return bytes(changed)


def _mutate(rng: random.Random, data: bytearray, other: bytes) -> None:
    # Often damage the beginning, where the headers are that determine how the rest is parsed.
    reach = len(data) if rng.random() < 0.6 else min(len(data), 64)
    at = rng.randint(0, reach)
    kind = rng.randrange(8)
    if kind == 0:
        data[at : at + 1] = bytes([rng.randrange(256)])
    elif kind == 1 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        size = rng.choice((1, 2, 4, 4, 8))
        value = rng.choice(EDGES) & (1 << 8 * size) - 1
        data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
    elif kind == 3:
        del data[at : at + rng.choice((1, 2, 4, 16, 100))]
    elif kind == 4:
        data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
    elif kind == 5:
        start = rng.randint(0, len(other))
        data[at:at] = other[start : start + rng.choice((4, 16, 60, 200))]
    elif kind == 6:
        start = rng.randint(0, len(other))
        piece = other[start : start + rng.choice((2, 4, 8, 16))]
        data[at : at + len(piece)] = piece
    else:
        del data[at:]
