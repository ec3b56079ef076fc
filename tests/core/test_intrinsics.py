"""The plain C for processors without SSE2 does what the vector instructions do."""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import sgfast

INTRINSICS = Path(sgfast.__file__).parent / "core/base/intrinsics.pxd"
COMPILER = os.environ.get("CC", "cc").split()
SEED = 20261202


@pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="no C compiler here")
def test_both_ways_find_the_same_tags(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    (text,) = re.findall(r'"""\n(.*?)"""', INTRINSICS.read_text(), flags=re.S)
    assert len(re.findall("SGFAST_PORTABLE", text)) == 2, "something else depends on it: compare that, too"
    source = tmp_path / "both.c"
    source.write_text(text + "uint32_t found(const uint8_t *p, uint8_t tag) { return sg_match12(p, tag); }\n")
    ways = []
    for name, flags in (("vector", ()), ("plain", ("-DSGFAST_PORTABLE",))):
        library = tmp_path / f"{name}.so"
        subprocess.run([*COMPILER, "-O2", "-shared", "-fPIC", *flags, "-o", library, source], check=True)
        ways.append(ctypes.CDLL(str(library)).found)
    draw = random.Random(SEED)
    # Aligned as the table's groups are.
    memory = ctypes.create_string_buffer(32)
    start = -ctypes.addressof(memory) % 16
    group = (ctypes.c_uint8 * 16).from_buffer(memory, start)
    for tags in (draw.randbytes(16), bytes(16), b"\xff" * 16, bytes(draw.choices((0, 1, 127, 128, 255), k=16))):
        for at, tag in enumerate(tags):
            group[at] = tag
        for tag in range(256):
            expected = sum(1 << at for at in range(12) if tags[at] == tag)
            assert [way(group, tag) for way in ways] == [expected, expected], (tags, tag)
