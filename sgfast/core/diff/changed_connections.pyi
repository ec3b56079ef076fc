from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.base.frames import FrameBatch
from sgfast.core.dataplane import DataPlane

CHANGED_DTYPE: np.dtype[np.void]

class ChangedConnections:
    def __init__(self, old: DataPlane) -> None: ...
    def compare(
        self,
        batch: FrameBatch,
        old: NDArray[np.uint16],
        new: NDArray[np.uint16],
        openers: NDArray[Any],
        numbers: NDArray[np.uint64] | None = None,
    ) -> int: ...
    def resolve(self, old: NDArray[Any], new: NDArray[Any]) -> None: ...
    def finish(self) -> None: ...
    @property
    def rows(self) -> NDArray[Any]: ...
    @property
    def counters(self) -> dict[str, Any]: ...
