from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

class Field(NamedTuple):
    name: str
    format: bytes
    encoded: bool

class Array(NamedTuple):
    length: int
    buffers: Sequence[Any]
    dictionary: Array | None = None

def schema_capsule(fields: Sequence[Field]) -> object: ...
def stream_capsule(fields: Sequence[Field], batches: Iterable[Sequence[Array]]) -> object: ...
