import os
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Protocol, Self

from sgfast.base.streams.binary_stream import BinaryStream, Damage
from sgfast.core.base.file_reads import FileReads
from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.capture.interfaces import InterfaceMarks

class BatchObserver(Protocol):
    def look(self, batch: FrameBatch) -> None: ...

class CaptureReader:
    number: int
    sample: BatchObserver | None
    def __init__(
        self,
        stream: BinaryStream,
        name: str,
        *,
        owns_stream: bool = False,
        vpc: int = 0,
        interfaces: InterfaceMarks | None = None,
        lasting: bool = False,
        is_part: bool = False,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def format(self) -> Literal["pcap", "pcapng", "snoop"]: ...
    @property
    def packets(self) -> int: ...
    @property
    def found_ahead(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def preamble(self) -> tuple[tuple[int, int], ...] | None: ...
    @property
    def is_compressed(self) -> bool: ...
    @property
    def damage(self) -> Damage | None: ...
    @property
    def remarks(self) -> list[str]: ...
    def next_batch(self) -> FrameBatch | None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

def begins_capture(head: bytes) -> bool: ...
def open_capture(
    path: str | os.PathLike[str],
    *,
    until: Callable[[], bool] | None = None,
    vpc: int = 0,
    interfaces: InterfaceMarks | None = None,
    lasting: bool = False,
    reads: FileReads | None = None,
    prepares: bool = True,
) -> CaptureReader: ...
