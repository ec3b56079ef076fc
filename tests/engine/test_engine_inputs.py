"""Arguments of the library that cannot be: an exception each, never a crash (SPEC 10.20)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgfast
from sgfast.policy.changes import RemoveRule

POLICY = sgfast.load_policy(Path(__file__).parents[2] / "pcaps" / "shop.yaml")
FRAME = bytes(60)

WRONG: dict[str, Callable[[sgfast.Engine], Any]] = {
    "a short hash key": lambda engine: sgfast.Engine(POLICY, hash_key=[1, 2]),
    "a negative hash key": lambda engine: sgfast.Engine(POLICY, hash_key=[-1] * 8),
    "an unknown mode": lambda engine: sgfast.Engine(POLICY, mode="loose"),  # type: ignore[arg-type]
    "a negative wire length": lambda engine: engine.process_frames([FRAME], [0], wire_lengths=[-1]),
    "a wire length of a terabyte": lambda engine: engine.process_frames([FRAME], [0], wire_lengths=[1 << 40]),
    "a time beyond 64 bits": lambda engine: engine.process_frames([FRAME], [1 << 70]),
    "fewer times than frames": lambda engine: engine.process_frames([FRAME, FRAME], [0]),
    "a link type that is not read": lambda engine: engine.process_frames([FRAME], [0], link_type=169),
    "an array of floats": lambda engine: engine.process(np.zeros(3)),
    "endless time": lambda engine: engine.check("1.1.1.1", "10.0.0.5", "tcp", time=float("inf")),
    "no time": lambda engine: engine.check("1.1.1.1", "10.0.0.5", "tcp", time=float("nan")),
    "two families": lambda engine: engine.check("1.1.1.1", "::1", "tcp"),
    "an unknown protocol": lambda engine: engine.check("1.1.1.1", "10.0.0.5", "tpc"),
    "a negative port": lambda engine: engine.check("1.1.1.1", "10.0.0.5", "tcp", dport=-1),
    "a protocol beyond a byte": lambda engine: engine.check("1.1.1.1", "10.0.0.5", 256),
    "an unknown flag": lambda engine: engine.check("1.1.1.1", "10.0.0.5", "tcp", flags="SX"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_a_value_error(case: str) -> None:
    with pytest.raises(ValueError):
        WRONG[case](sgfast.Engine(POLICY))


@pytest.mark.parametrize("frame", ["abc", 5])
def test_frames_are_bytes(frame: Any) -> None:
    with pytest.raises(TypeError):
        sgfast.Engine(POLICY).process_frames([frame], [0])


@pytest.mark.parametrize("number", [80.5, "80", None])
def test_numbers_are_whole(number: Any) -> None:
    with pytest.raises(TypeError):
        sgfast.Engine(POLICY).check("1.1.1.1", "10.0.0.5", 6, dport=number)
    if not isinstance(number, str):
        with pytest.raises(TypeError):
            sgfast.Engine(POLICY).check("1.1.1.1", "10.0.0.5", number)


def test_numbers_may_be_numpys() -> None:
    engine = sgfast.Engine(POLICY)
    got = engine.check("1.1.1.1", "10.0.0.5", np.uint8(6), dport=np.int64(443))  # type: ignore[arg-type]
    assert got == sgfast.Engine(POLICY).check("1.1.1.1", "10.0.0.5", "tcp", dport=443)


REMOVE = RemoveRule("db", POLICY.group_by_name["db"].rules[0].id)


@pytest.mark.parametrize("now_ns", [2**62 + 1, -(2**62) - 1, 1 << 64, -(1 << 200)])
def test_change_at_a_time_the_clock_does_not_reach(now_ns: int) -> None:
    engine = sgfast.Engine(POLICY)
    with pytest.raises(ValueError, match=r"^now_ns must be within 2\*\*62 nanoseconds \(146 years\) of 1970"):
        engine.apply(REMOVE, now_ns)
    assert engine.policy is POLICY
    for end in (2**62, -(2**62)):
        sgfast.Engine(POLICY).apply(REMOVE, end)


@pytest.mark.parametrize("now_ns", [1.5, "1", None])
def test_time_of_a_change_is_whole(now_ns: Any) -> None:
    with pytest.raises(TypeError, match=r"^now_ns must be a whole number of nanoseconds, not"):
        sgfast.Engine(POLICY).apply(REMOVE, now_ns)
    sgfast.Engine(POLICY).apply(REMOVE, np.int64(5))    # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [None, ["x"], "x", 5, [REMOVE, None], RemoveRule])
def test_what_is_no_change_is_a_type_error(changes: Any) -> None:
    engine = sgfast.Engine(POLICY)
    with pytest.raises(TypeError, match=r"^a change must be a mapping or a value of sgfast\.policy\.changes, not"):
        engine.apply(changes, 0)
    assert engine.policy is POLICY


@pytest.mark.parametrize("changes", [5, {5}, object])
def test_what_is_no_change_file_is_a_type_error(changes: Any) -> None:
    shop = Path(__file__).parents[2] / "pcaps" / "shop.pcap"
    with pytest.raises(TypeError, match=r"^changes must be a change file, its path, its text or a list, not"):
        sgfast.replay(POLICY, shop, changes=changes)


def test_odd_arrays_are_judged_as_what_they_hold() -> None:
    engine = sgfast.Engine(POLICY)
    rows = np.zeros(10, dtype=sgfast.HEADER_DTYPE)
    rows.flags.writeable = False
    assert engine.process(rows).shape == (10,)
    assert engine.process(rows[::2]).shape == (5,)
    assert engine.process(rows[:0]).shape == (0,)
    assert engine.verdict(engine.process_frames([b""], [0])[0]).reason == "malformed"


def test_one_capture_needs_no_list() -> None:
    shop = Path(__file__).parents[2] / "pcaps" / "shop.pcap"
    assert sgfast.replay(POLICY, shop).packets == sgfast.replay(POLICY, [str(shop)]).packets == 261
    assert sgfast.replay(POLICY, [bytes(shop)]).packets == 261      # type: ignore[list-item]
