from typing import Any

import numpy as np
from numpy.typing import NDArray

CLOCK_END_NS: int
LATE_LIMIT_NS: int

class ReplayClock:
    def advance(self, times_ns: NDArray[Any]) -> NDArray[np.int64]: ...
