from typing import Any

import numpy as np
from numpy.typing import NDArray

def address_texts(
    addresses: NDArray[np.uint8], families: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[Any]]: ...
def dictionary_codes(
    numbers: NDArray[np.int32], there: NDArray[Any], words: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int32]]: ...
