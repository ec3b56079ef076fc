"""Describe where and how a capture is damaged."""

from dataclasses import dataclass

from sgfast.system.names import printable


@dataclass(frozen=True)
class Damage:
    """The first record or block of ``file`` that could not be read. Everything before it was read."""

    file: str
    offset: int  # byte offset of the record or block
    packet: int  # 1-based number of the packet that could not be read
    cause: str
    decompressed: bool = False  # the offset counts decompressed bytes

    def __str__(self) -> str:
        where = f"byte {self.offset} once decompressed" if self.decompressed else f"byte {self.offset}"
        return f"{printable(self.file)}: damaged at {where}, packet {self.packet}: {self.cause}"
