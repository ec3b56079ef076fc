"""The process whose instructions ``instructions.py`` counts: commands of sgfast, one after the other, under callgrind.

    valgrind --tool=callgrind --instr-atstart=no python counted.py counting.so commands.json

``commands.json``: arguments of commands, those that run ``first``, without being counted, and by their names those that
are ``counted``. This file imports of sgfast only what runs a command line, so that it can run earlier versions, too.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import sys
from pathlib import Path

# The keys of hashes are random, and so would be which keys share a bucket.
_BYTES = itertools.cycle(range(1, 252))
os.urandom = lambda size: bytes(itertools.islice(_BYTES, size))

from sgfast.__main__ import run  # noqa: E402


def main() -> int:
    library = ctypes.CDLL(sys.argv[1])
    commands = json.loads(Path(sys.argv[2]).read_text())
    # Imports and other work that is done only once must not be counted.
    for arguments in commands["first"]:
        if status := run(arguments):
            return status
    # A collection takes millions of instructions, and comes now in one command, now in another.
    gc.disable()
    library.begin_counting()
    for name, arguments in commands["counted"].items():
        library.zero_counts()
        if status := run(arguments):
            return status
        library.dump_counts(name.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
