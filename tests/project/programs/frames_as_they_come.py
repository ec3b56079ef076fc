"""Judge frames as they come from a source that grows: here a pipe, into which a capture is written bit by bit."""

import os
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

import sgfast

SHOP = Path(sys.argv[1] if len(sys.argv) > 1 else "pcaps")


def write_slowly(capture: Path, end: int) -> None:
    with open(end, "wb", buffering=0) as pipe:
        data = capture.read_bytes()
        for start in range(0, len(data), 999):
            pipe.write(data[start : start + 999])


def records(source: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    """Yield the time, the bytes and the length on the wire of each record of a pcap file with nanoseconds."""
    assert source.read(24)[:4] == bytes.fromhex("4d3cb2a1")
    while header := source.read(16):
        seconds, nanoseconds, captured, wire = struct.unpack("<IIII", header)
        yield seconds * 10**9 + nanoseconds, source.read(captured), wire


def main() -> None:
    reading, writing = os.pipe()
    writer = threading.Thread(target=write_slowly, args=[SHOP / "shop.pcap", writing])
    writer.start()
    engine = sgfast.Engine.for_captures(SHOP / "shop.yaml")
    verdicts: Counter[str] = Counter()

    def count(results: NDArray[Any]) -> None:
        verdicts.update(engine.verdict(row).verdict for row in results)

    with open(reading, "rb") as source:
        for time_ns, frame, wire in records(source):
            count(engine.process_frames([frame], [time_ns], wire_lengths=[wire]))
            count(engine.resolved()["result"])
    count(engine.resolved(everything=True)["result"])
    writer.join()

    del verdicts["pending"]     # all of these have been counted again since
    expected = sgfast.replay(SHOP / "shop.yaml", SHOP / "shop.pcap").verdicts
    assert verdicts == {word: number for word, number in expected.items() if number}
    print(dict(verdicts))


main()
