from collections.abc import Iterable

from sgfast.core.base.frames import FrameBatch
from sgfast.preprocess.vpcs import VpcMarks

KINDS: tuple[str, ...]
MOST_TUNNELS: int

class Decapsulation:
    def __init__(self, names: Iterable[str], marks: VpcMarks | None = None) -> None: ...
    @property
    def counts(self) -> dict[str, int]: ...
    @property
    def too_deep(self) -> int: ...
    def apply(self, batch: FrameBatch) -> None: ...
