from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.accounting import AccountingPlane
from sgfast.core.dataplane import DataPlane

TUPLE_DTYPE: np.dtype[Any]
RECORD_DTYPE: np.dtype[Any]

def save_plane(
    plane: AccountingPlane, *, ends_waiting: bool = False
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None: ...
def copy_plane(plane: AccountingPlane, made: DataPlane) -> None: ...
def load_plane(plane: DataPlane, numbers: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None: ...
