"""LibFuzzer's loop around one target, for ``run.py``: ``loop.py TARGET`` and libFuzzer's arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "support")]

name = sys.argv[1]
#: Packages that read in Python. C tells of its coverage itself.
READERS = {"documents": ["sgfast.policy"], "logs": ["sgfast.traffic.flow_logs"]}
if name in READERS:
    with atheris.instrument_imports(include=READERS[name]):
        from fuzz.targets import TARGETS
else:
    from fuzz.targets import TARGETS

atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[name])
atheris.Fuzz()
