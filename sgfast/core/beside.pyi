import numpy as np
from numpy.typing import NDArray

from sgfast.core.dataplane import DataPlane
from sgfast.core.frames import FrameBatch

def process_beside(
    plane: DataPlane, other: DataPlane, batch: FrameBatch, words: NDArray[np.uint16], other_words: NDArray[np.uint16]
) -> None: ...
