from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from sgfast.questions.replaying import Names

FORMATS: tuple[str, ...]
LONGEST_INTERVAL_SECONDS: int
MOST_RECORDS: int

class FlowLogLines:
    def __init__(
        self, write: Callable[[bytes], object], *, form: str = ..., interval_seconds: int = ..., most_records: int = ...
    ) -> None: ...
    def begin(self, names: Names) -> None: ...
    def write(self, headers: NDArray[Any], results: NDArray[Any]) -> None: ...
    def close(self) -> None: ...
