import numpy as np
from numpy.typing import NDArray

from sgfast.core.dataplane import DataPlane
from sgfast.core.frames import FrameBatch

class Beside:
    def __init__(self, plane: DataPlane, other: DataPlane, *, together_from: int | None = None) -> None: ...
    def process(self, batch: FrameBatch, words: NDArray[np.uint16], other_words: NDArray[np.uint16]) -> None: ...
    def close(self) -> None: ...
