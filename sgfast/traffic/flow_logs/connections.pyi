from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.clouds.logs.tokenizer import WordNumbers
from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.flow_logs.interface_owners import InterfaceOwners
from sgfast.traffic.flow_logs.interfaces import Interfaces
from sgfast.traffic.flow_logs.record_packets import RecordPackets

TURN_NS: int
QUESTION_DTYPE: np.dtype[Any]
SAME_VERDICT: int
OTHER_VERDICT: int
IS_LIKELIER: int
IS_OTHER: int

class Connections:
    def __init__(
        self, shortest: object, longest: object, from_ns: int | None = None, until_ns: int | None = None, *,
        is_one_stream: bool = False, words: Sequence[str] | WordNumbers = (),
        ask: Callable[[NDArray[Any]], NDArray[np.uint8]] | None = None,
        owners: InterfaceOwners | None = None,
    ) -> None: ...
    @property
    def interfaces(self) -> Interfaces: ...
    @property
    def packets(self) -> RecordPackets: ...
    def add(self, rows: NDArray[Any], number: int, vpc: int = 0) -> None: ...
    def turn_to(self, time_ns: int) -> None: ...
    @property
    def is_due(self) -> bool: ...
    def end(self) -> None: ...
    def release(self) -> None: ...
    def next_batch(self) -> tuple[FrameBatch, bool] | None: ...
    @property
    def late(self) -> int: ...
    @property
    def forgotten(self) -> int: ...
    @property
    def silent_hours(self) -> int: ...
    @property
    def without_packets(self) -> int: ...
    @property
    def without_bytes(self) -> int: ...
