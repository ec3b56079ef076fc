"""``--start`` and ``--end``: how times are written, and which packets are in between (SPEC 9.9)."""

from __future__ import annotations

import random

import pytest
from frames import ethernet, ipv4, udp

from sgfast.base.errors import ReadingError
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.timestamps import MAX_SECONDS
from sgfast.traffic.preprocess.selection import Window
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.time_window import Moment, parse_moment

SECOND = 10**9


def kept(times_ns: list[int], start_ns: int | None, end_ns: int | None) -> tuple[list[int], int, int]:
    frames = [ethernet(ipv4("10.0.0.5", "10.0.0.6", udp(n % 65536, 1))) for n in range(len(times_ns))]
    batch = FrameBatch.from_frames(frames, times_ns)
    window = Window(start_ns, end_ns)
    window.apply(batch)
    assert [frames.index(data) for _, data, *_ in batch] == sorted(frames.index(data) for _, data, *_ in batch)
    return [time_ns for time_ns, *_ in batch], window.before_start, window.after_end


def test_start_is_in_and_end_is_not() -> None:
    assert kept([9, 10, 11, 19, 20, 21], 10, 20) == ([10, 11, 19], 1, 2)
    assert kept([9, 10, 11], 10, None) == ([10, 11], 1, 0)
    assert kept([9, 10, 11], None, 10) == ([9], 0, 2)
    assert kept([9, 10], None, None) == ([9, 10], 0, 0)


def test_limits_beyond_what_a_timestamp_holds_leave_nothing_out() -> None:
    times = [-(1 << 63), -1, 0, (1 << 62)]
    assert kept(times, -(1 << 70), 1 << 70) == (times, 0, 0)
    assert kept(times, 1 << 70, None) == ([], 4, 0)
    assert kept(times, None, -(1 << 70)) == ([], 0, 4)


def test_random_times_against_a_loop() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(200):
        times = [chance.randrange(-50, 50) for _ in range(chance.randrange(60))]
        start, end = (chance.choice((None, chance.randrange(-60, 60))) for _ in range(2))
        before = [t for t in times if start is not None and t < start]
        after = [t for t in times if t not in before and end is not None and t >= end]
        rest = [t for t in times if t not in before and t not in after]
        assert kept(times, start, end) == (rest, len(before), len(after)), f"seed {seed}"


@pytest.mark.parametrize(
    ("text", "ns", "is_relative"),
    [
        ("0", 0, True),
        ("12.5", 12_500_000_000, True),
        ("12.5s", 12_500_000_000, True),
        ("+90", 90 * SECOND, True),
        (".25", SECOND // 4, True),
        ("7.", 7 * SECOND, True),
        ("0.000000001", 1, True),
        ("2m", 120 * SECOND, True),
        ("1h30m", 5400 * SECOND, True),
        ("+1d2h3m4.5s", (86400 + 7200 + 180) * SECOND + 4_500_000_000, True),
        ("1h5", 3605 * SECOND, True),
        (str(MAX_SECONDS), MAX_SECONDS * SECOND, True),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000, False),
        ("2026-01-31 12:00+02:00", 1_769_853_600 * SECOND, False),
        ("1969-12-31T23:59:59Z", -SECOND, False),
    ],
)
def test_times_as_people_write_them(text: str, ns: int, is_relative: bool) -> None:
    assert parse_moment(text, "--start") == Moment(ns, is_relative)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be"),
        ("+", "must be"),
        ("-5", "must be"),
        ("1e9", "must be"),
        ("nan", "must be"),
        ("5m1h", "must be"),
        ("5 m", "must be"),
        ("\N{ARABIC-INDIC DIGIT FIVE}", "must be"),
        ("9" * 30, "must be"),
        ("1\n", "must be"),
        ("soon\x1b", "soon\\x1b"),
        (str(MAX_SECONDS + 1), "out of range"),
        ("999999999999d", "out of range"),
        ("2026-01-31T12:00:00", "say which zone"),
        ("2026-02-30T12:00:00Z", "not a valid time"),
        ("2200-01-01T00:00:00Z", "out of range"),
        ("1000-01-01T00:00:00Z", "out of range"),
        ("x" * 100_000, "must be"),
    ],
)
def test_other_times_are_refused_on_one_line(text: str, words: str) -> None:
    with pytest.raises(ReadingError) as refused:
        ReadOptions(end=text)
    message = str(refused.value)
    assert message.startswith("--end: ") and words in message and message.isprintable() and len(message) < 300


def test_end_that_is_not_after_start_is_refused_before_anything_is_read() -> None:
    for start, end in (("5", "5"), ("1m", "59"), ("2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00")):
        with pytest.raises(ReadingError, match="must be after --start"):
            ReadOptions(start=start, end=end)
    # A date and a number of seconds can be compared only when the first packet's time is known.
    ReadOptions(start="2026-01-31T12:00:00Z", end="5")
