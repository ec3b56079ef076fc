from collections.abc import Callable
from typing import TypeVar

from sgfast.core.base.frames import FrameBatch

RECORD_FORMAT: int
MAX_PACKETS: int

Pair = tuple[int, int, int]
T = TypeVar("T")

class Partitioner:
    began_ns: int | None
    packets: int
    fragmented_quotes: int
    def __init__(
        self, shards: int, seed: int, *, infrastructure: int, full_bytes: int, began_ns: int | None = None
    ) -> None: ...
    def spread(self, batch: FrameBatch) -> list[int]: ...
    def take(self, shard: int, write: Callable[[memoryview], T]) -> tuple[T, int, int] | None: ...
    @property
    def busiest(self) -> list[tuple[int, int, Pair]]: ...
    @property
    def clock_state(self) -> tuple[int, int, int, int, int, int, int] | None: ...
