"""Every capture of the corpus: the packet counts of MANIFEST.tsv, and what the plain reader makes of it."""

from __future__ import annotations

from collections import Counter

import pytest
from captures import check, drain
from corpus import MANIFEST, ROOT, is_readable, rows

from sgfast.base.errors import CaptureError
from sgfast.traffic.capture import open_capture

pytestmark = pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)")


def test_captures_have_the_packets_of_the_manifest_and_others_end_as_they_may() -> None:
    wrong: list[str] = []
    ends: Counter[str] = Counter()
    for row in rows():
        path, readable = ROOT / row["file"], is_readable(row)
        try:
            with open_capture(path) as reader:
                drain(reader)
        except CaptureError as error:
            assert str(error).startswith(f"{path}: ") and str(error).isprintable()
            wrong += [str(error)] if readable else []
            ends["error"] += 1
            continue
        if reader.damage is not None:
            assert str(reader.damage).isprintable()
            wrong += [str(reader.damage)] if readable else []
            ends["damage"] += 1
            continue
        # In every file that both programs read, their counts agree. tcpdump gives up at a second kind of interface,
        # capinfos at link types that it does not know.
        counted = row["packets_capinfos"] or row["packets_tcpdump"] or "0"
        if str(reader.packets) != counted:
            wrong.append(f"{path}: {reader.packets} packets instead of {counted}")
        ends["clean"] += 1
    assert wrong == []
    assert ends["clean"] > 2000 and ends["damage"] and ends["error"]


def test_every_file_is_what_the_plain_reader_makes_of_it() -> None:
    for row in rows():
        if not row["compression"]:
            check((ROOT / row["file"]).read_bytes())
