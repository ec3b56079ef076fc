from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.dataplane import DataPlane

TOLD_DTYPE: np.dtype[Any]

def records_before(
    block: bytes | memoryview, start: int, at_ns: int, vpc_count: int
) -> tuple[int, int, int, set[int]]: ...

class RecordJudge:
    def __init__(self, plane: DataPlane) -> None: ...
    def judge(
        self, block: bytes | memoryview, start: int, end: int, vpc: int, shift_ns: int, before: int,
        told: NDArray[Any] | None = None,
    ) -> None: ...
