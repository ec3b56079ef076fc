from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from sgfast.replaying import Names

ENDS: tuple[str | None, ...]
ANSWERS: tuple[str, ...]
ROOM_FOR_A_LINE: int

class VerdictLines:
    def __init__(self, write: Callable[[bytes], object]) -> None: ...
    def begin(self, names: Names) -> None: ...
    def write(self, headers: NDArray[Any], results: NDArray[Any]) -> None: ...

class ConnectionLines:
    def __init__(self, write: Callable[[bytes], object]) -> None: ...
    def begin(self, names: Names) -> None: ...
    def write(self, flows: NDArray[Any]) -> None: ...
