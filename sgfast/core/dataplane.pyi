from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.base.file_reads import FileReads
from sgfast.core.base.frames import FrameBatch
from sgfast.core.classify.classifier import Classifier

ENTRY_BYTES: int
FLOW_RECORD_BYTES: int
MAX_JOBS: int

class DataPlane:
    jobs: int
    def __init__(
        self,
        classifier: Classifier,
        *,
        causal: bool = False,
        midstream: int = 0,
        timeouts_ns: Sequence[int],
        max_connections: int = 4000000,
        infrastructure: int = 1,
        keep_flows: bool = False,
        reporting: bool = False,
        events: bool = False,
        secret: Sequence[int] | None = None,
        jobs: int = 1,
    ) -> None: ...
    @property
    def file_reads(self) -> FileReads | None: ...
    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int: ...
    def begin(self, time_ns: int) -> None: ...
    def advance(self, now_ns: int) -> None: ...
    def process_frames(
        self,
        batch: FrameBatch,
        results: NDArray[Any] | None = None,
        headers: NDArray[Any] | None = None,
        first: int = 0,
        number: int = -1,
        words: NDArray[np.uint16] | None = None,
        *,
        later: bool = False,
    ) -> None: ...
    def close_fast_path(self) -> None: ...
    def weigh(self) -> None: ...
    def process_headers(self, headers: NDArray[Any], results: NDArray[Any]) -> None: ...
    def ask(self, headers: NDArray[Any], results: NDArray[Any], replies: NDArray[np.int32]) -> None: ...
    def change(
        self,
        classifier: Classifier,
        cut_inbound: NDArray[np.uint8] | None,
        cut_unmatched: bool,
        forget: bool,
        now_ns: int,
    ) -> tuple[int, int]: ...
    def take_resolved(self, *, everything: bool = False) -> NDArray[np.void]: ...
