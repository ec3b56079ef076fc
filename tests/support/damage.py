"""Cut or damage captures, and check that reading them ends in a way that SPEC 10.5 permits.

    python tests/support/damage.py                  each capture of the corpus: cut at 1,000 places, damaged 350 times
    python tests/support/damage.py --files 500:1000 only these captures, for example to continue an interrupted run
    python tests/support/damage.py --seed 7 --mutations 0 FILE...

SGFAST_CORPUS names the corpus. Every damaged file is read and judged in this process. A crash, a hang of ten seconds or
an unexpected outcome ends the process, and the last line printed names the damaged file.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import DOCUMENT, MANIFEST, ROOT, rows
from mutation import mutated

from sgfast.base.errors import CaptureError
from sgfast.clouds.loading import parse_policy
from sgfast.engine import Engine
from sgfast.traffic.capture import open_capture

SECONDS_AT_MOST = 10
#: The bytes of memory permitted in addition to those for undamaged files.
BYTES_AT_MOST = 512 * 1024 * 1024
TRUNCATIONS, MUTATIONS = 1000, 350
#: The number of bytes at the beginning of a file where it is cut at every byte, whatever its size.
BYTES_OF_HEADERS = 200

POLICY = parse_policy(DOCUMENT)


@dataclass(frozen=True)
class Outcome:
    packets: int
    #: The outcome of reading: ``clean``, ``damaged`` (exit status 3) or ``refused`` (2).
    end: str


def new_engine(jobs: int = 1) -> Engine:
    return Engine(POLICY, mode="causal", midstream="infer", jobs=jobs)


def judge(path: Path, engine: Engine) -> Outcome:
    """Read and judge a capture. Raises AssertionError if it ends in a way that is not permitted."""
    faulthandler.dump_traceback_later(SECONDS_AT_MOST, exit=True, file=sys.__stderr__)
    before = engine.dataplane.counters["packets"]
    try:
        with open_capture(path) as reader:
            while (batch := reader.next_batch()) is not None:
                assert len(batch)
                engine.dataplane.process_frames(batch)
            packets, damage = reader.packets, reader.damage
    except CaptureError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 1000, message
        return Outcome(engine.dataplane.counters["packets"] - before, "refused")
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert engine.dataplane.counters["packets"] - before == packets
    if damage is None:
        return Outcome(packets, "clean")
    assert damage.file == str(path) and damage.packet == packets + 1 and damage.offset >= 0
    assert str(damage).isprintable() and len(str(damage)) < 1000, damage
    return Outcome(packets, "damaged")


def places(size: int, most: int) -> list[int]:
    """Return where to cut a file: at every byte if it is small, else at every byte of its headers and evenly after
    them."""
    if size <= most:
        return list(range(size))
    heads = min(BYTES_OF_HEADERS, most // 2)
    return [*range(heads), *(heads + (size - heads) * n // (most - heads) for n in range(most - heads))]


def cut(path: Path, copy: Path, truncations: int) -> Iterator[Outcome]:
    """Yield the outcomes of a file cut shorter and shorter. A shorter file never has more packets than a longer one."""
    copy.write_bytes(path.read_bytes())
    engine = new_engine()
    longer = judge(copy, engine)
    for size in reversed(places(path.stat().st_size, truncations)):
        os.truncate(copy, size)
        outcome = judge(copy, engine)
        assert outcome.packets <= longer.packets, f"{path}: cut at {size}"
        assert size or outcome.end == "refused"
        longer = outcome
        yield outcome


def damaged(path: Path, copy: Path, mutations: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of copies of ``path`` with a few changes each."""
    content = path.read_bytes()
    rng = random.Random(f"{seed} {path.name} {len(content)}")
    engine = new_engine()
    for _ in range(mutations):
        copy.write_bytes(mutated(rng, content))
        yield judge(copy, engine)


def folder_in_memory() -> str | None:
    """Return a folder in memory, where writing is fast, or None."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def run(files: Sequence[Path], first: int, seed: int, truncations: int, mutations: int) -> int:
    ends: Counter[str] = Counter()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sgfast-damage-", dir=folder_in_memory()) as folder:
        copy = Path(folder) / "damaged"
        for number, path in enumerate(files, first):
            print(f"\r{number} {path.name[:60]:60} (damaged: {copy})", end="", file=sys.stderr, flush=True)
            whole = judge(path, new_engine())
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                for kind, outcomes in (
                    ("cut", cut(path, copy, truncations)), ("mutated", damaged(path, copy, mutations, seed)),
                ):  # fmt: skip
                    ends.update(f"{kind}, {outcome.end}" for outcome in outcomes)
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"sgfast-damaged-{path.name}"
                kept.write_bytes(copy.read_bytes())
                print(f"\n{path}: {whole.packets} packets; what was damaged is in {kept}", file=sys.stderr)
                raise
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
            assert more < BYTES_AT_MOST, f"{path}: damaged, it takes {more} bytes of memory more"
    seconds = time.perf_counter() - began
    total, last = sum(ends.values()), first + len(files)
    print(f"\rseed {seed}, files {first}:{last}: {total:,} damaged captures, {seconds:.0f} s")
    for end, count in sorted(ends.items()):
        print(f"{count:>12,}  {end}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Captures cut short and damaged: what comes of them.")
    parser.add_argument("captures", nargs="*", type=Path, metavar="FILE", help="instead of the corpus")
    parser.add_argument("--files", default=":", metavar="FIRST:END", help="which of them, by number")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--truncations", type=int, default=TRUNCATIONS, help="places where each is cut")
    parser.add_argument("--mutations", type=int, default=MUTATIONS, help="damaged versions of each")
    options = parser.parse_args()
    if not options.captures and not MANIFEST.exists():
        parser.error("there is no corpus (set SGFAST_CORPUS): name captures")
    files = options.captures or [ROOT / row["file"] for row in rows()]
    first, _, end = options.files.partition(":")
    chosen = slice(int(first or 0), int(end) if end else None)
    faulthandler.enable()
    return run(files[chosen], chosen.start, options.seed, options.truncations, options.mutations)


if __name__ == "__main__":
    sys.exit(main())
