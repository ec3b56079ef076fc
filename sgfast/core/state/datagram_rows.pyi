from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.dataplane import DataPlane

DATAGRAM_DTYPE: np.dtype[Any]

def save_datagrams(plane: DataPlane) -> NDArray[Any]: ...
def check_datagrams(rows: NDArray[Any], instances: int, rules: int, clock_ns: int) -> str | None: ...
def load_datagrams(plane: DataPlane, rows: NDArray[Any]) -> None: ...
