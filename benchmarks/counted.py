"""The process whose instructions ``instructions.py`` counts: commands of sgfast, one after the other, under callgrind.

    valgrind --tool=callgrind --instr-atstart=no python counted.py counting.so commands.json

``commands.json`` has the arguments of commands: ``first`` lists commands that run uncounted, ``counted`` maps names to
commands that are counted. This file imports only the command line of sgfast, so that it can run earlier versions, too.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import sys
from pathlib import Path

# Hash keys are normally random, and with them the buckets that keys share. Make them the same in each run.
_BYTES = itertools.cycle(range(1, 252))
os.urandom = lambda size: bytes(itertools.islice(_BYTES, size))

from sgfast.__main__ import run  # noqa: E402


def main() -> int:
    library = ctypes.CDLL(sys.argv[1])
    commands = json.loads(Path(sys.argv[2]).read_text())
    # Run these first, so that imports and other one-time work are not counted.
    for arguments in commands["first"]:
        if status := run(arguments):
            return status
    # Garbage collection takes millions of instructions and would run at varying times.
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
