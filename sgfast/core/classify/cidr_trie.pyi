from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

class CidrTrie:
    def __init__(
        self,
        ipv6: bool,
        prefixes: ArrayLike,
        lengths: ArrayLike,
        values: ArrayLike,
        background: int,
        earlier: CidrTrie | None = None,
        added: Iterable[int] = (),
    ) -> None: ...
    def find(self, address: bytes) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def __reduce__(self) -> Any: ...

def nest_prefixes(
    halves: ArrayLike, lengths: ArrayLike, owner: ArrayLike, number: ArrayLike, numbered: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
