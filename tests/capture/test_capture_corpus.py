"""Every capture of the corpus: the packet counts of MANIFEST.tsv, and never anything but the documented ends."""

from __future__ import annotations

import io
import struct

import dpkt
import pytest
from captures import check, drain
from corpus import MANIFEST, ROOT, is_readable, rows

from sgfast.capture import open_capture
from sgfast.errors import CaptureError

pytestmark = pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)")


def test_readable_captures_have_the_packets_of_the_manifest() -> None:
    wrong = []
    readable = [row for row in rows() if is_readable(row)]
    for row in readable:
        try:
            with open_capture(ROOT / row["file"]) as reader:
                drain(reader)
        except CaptureError as error:
            wrong.append(str(error))
            continue
        # Where both count, they agree in every one of these files.
        counted = row["packets_capinfos"] or row["packets_tcpdump"]
        if reader.damage is not None or str(reader.packets) != counted:
            wrong.append(f"{row['file']}: {reader.packets} packets instead of {counted}; {reader.damage}")
    assert len(readable) > 2000
    assert wrong == []


def test_all_others_end_in_an_error_damage_or_cleanly() -> None:
    ends = {"error": 0, "damage": 0, "clean": 0}
    for row in rows():
        if is_readable(row):
            continue
        try:
            with open_capture(ROOT / row["file"]) as reader:
                drain(reader)
        except CaptureError as error:
            assert str(error).startswith(f"{ROOT / row['file']}: ") and str(error).isprintable()
            ends["error"] += 1
            continue
        if reader.damage is not None:
            assert str(reader.damage).isprintable()
            ends["damage"] += 1
            continue
        # tcpdump gives up at a second kind of interface, capinfos at link types it does not know.
        counted = row["packets_capinfos"] or row["packets_tcpdump"] or 0
        assert reader.packets == int(counted), row["file"]
        ends["clean"] += 1
    assert all(ends.values())


#: In either byte order; the plain reader knows neither it nor snoop.
IXIA = (b"\x1c\0\1\xac", b"\x1c\0\1\xab", b"\xac\1\0\x1c", b"\xab\1\0\x1c")


def test_every_file_is_what_the_plain_reader_makes_of_it() -> None:
    for row in rows():
        data = (ROOT / row["file"]).read_bytes()
        if not row["compression"] and not data.startswith((b"snoop", *IXIA)):
            check(data)


def dpkt_reads(data: bytes) -> bool:
    """dpkt knows no simple packet blocks and takes every packet for one of the first interface."""
    if data[:4] != b"\n\r\r\n":
        return True
    order = "<" if data[8] == 0x4D else ">"
    at = interfaces = 0
    while at < len(data):
        kind, total = struct.unpack_from(order + "II", data, at)
        interfaces += kind == 1
        if kind == 3 or interfaces > 1:
            return False
        at += total
    return True


def test_times_and_bytes_are_those_dpkt_reads() -> None:
    compared = 0
    for row in [row for row in rows() if is_readable(row)][::5]:
        content = (ROOT / row["file"]).read_bytes()
        if not dpkt_reads(content):
            continue
        try:
            theirs = [(time, bytes(data)) for time, data in dpkt.pcap.UniversalReader(io.BytesIO(content))]
        except (ValueError, KeyError, dpkt.Error):
            continue
        with open_capture(ROOT / row["file"]) as reader:
            ours = drain(reader)
        assert [packet.data for packet in ours] == [data for _, data in theirs], row["file"]
        for packet, (time, data) in zip(ours, theirs, strict=True):
            # dpkt's times are floats.
            assert abs(packet.time_ns - int(time * 10**9)) < 2000, row["file"]
            assert packet.wire >= len(data)
        compared += 1
    assert compared > 300
