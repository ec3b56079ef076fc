"""Damaged captures of every kind, read in pieces of every size, against the plain reader."""

from __future__ import annotations

import struct

from captures import (
    KUZNETZOV,
    MICRO,
    NANO,
    Dribble,
    block,
    check,
    enhanced,
    interface,
    obsolete,
    option,
    pcap_head,
    pcap_record,
    section,
    simple,
    tsresol,
)
from effort import some
from hypothesis import given, settings
from hypothesis import strategies as st

ORDER = st.sampled_from("<>")
DATA = st.binary(max_size=40)
EDGES = st.sampled_from([0, 1, 3, 4, 11, 12, 13, 16, 28, 32, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF])
WORD = EDGES | st.integers(0, 2**32 - 1)
SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=5)


@st.composite
def pcap_files(draw: st.DrawFn) -> bytes:
    order = draw(ORDER)
    magic = draw(st.sampled_from([MICRO, NANO, KUZNETZOV]))
    version = draw(st.sampled_from([(2, 4), (2, 4), (2, 3), (2, 2), (543, 0)]))
    data = pcap_head(order, magic, draw(st.sampled_from([1, 0, 101, 276, 12, 189])), version)
    for frame in draw(st.lists(DATA, max_size=8)):
        data += pcap_record(frame, order, (draw(WORD), draw(WORD)), draw(st.none() | WORD))
    return data


@st.composite
def pcapng_files(draw: st.DrawFn) -> bytes:
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        order = draw(ORDER)
        data += section(order)
        for _ in range(draw(st.integers(0, 3))):
            options = draw(st.sampled_from([b"", tsresol(9, order), tsresol(0x8A, order), tsresol(12, order)]))
            offset = option(14, struct.pack(order + "q", -5), order)
            options += draw(st.sampled_from([b"", offset, option(0, b"", order)]))
            link_type = draw(st.sampled_from([1, 1, 1, 101, 189, 227, 147]))
            data += interface(order, link_type, draw(st.integers(0, 50)), options)
        for frame in draw(st.lists(DATA, max_size=6)):
            ticks = draw(st.integers(0, 2**64 - 1))
            number = draw(st.integers(0, 3))
            data += draw(
                st.sampled_from(
                    [
                        enhanced(frame, order, ticks, number=number),
                        obsolete(frame, order, ticks, number=number),
                        simple(frame, order, wire=ticks & 0x3F),
                        block(ticks & 0xFF, frame, order),
                    ]
                )
            )
    return data


FILES = pcap_files() | pcapng_files()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(FILES))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["word", "byte", "cut", "insert", "delete", "copy"])):
            case "word":
                at &= ~3
                data[at : at + 4] = struct.pack(draw(ORDER) + "I", draw(WORD))
            case "byte":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = draw(st.binary(max_size=16))
            case "delete":
                del data[at : at + draw(st.integers(1, 16))]
            case "copy":
                data += data[at : at + 60]
    return bytes(data)


@settings(max_examples=300, deadline=None)
@given(data=FILES, sizes=SIZES)
def test_valid_files_in_pieces(data: bytes, sizes: list[int]) -> None:
    assert check(data) == check(data, Dribble(data, sizes))


@settings(max_examples=some(150, 1500), deadline=None)
@given(data=mutated(), sizes=SIZES)
def test_mutated_files_in_pieces(data: bytes, sizes: list[int]) -> None:
    whole = check(data)
    pieces = check(data, Dribble(data, sizes))
    assert (pieces.packets, pieces.damage) == (whole.packets, whole.damage)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=100), head=st.sampled_from([b"", pcap_head(), section(), section() + interface()]))
def test_noise(data: bytes, head: bytes) -> None:
    check(head + data)
