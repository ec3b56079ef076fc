"""Arguments of the library that cannot be: an exception each, never a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgfast

POLICY = sgfast.load_policy(Path(__file__).parent.parent / "pcaps" / "shop.yaml")
FRAME = bytes(60)

WRONG: dict[str, Callable[[sgfast.Engine], Any]] = {
    "a short hash key": lambda engine: sgfast.Engine(POLICY, hash_key=[1, 2]),
    "a negative hash key": lambda engine: sgfast.Engine(POLICY, hash_key=[-1] * 8),
    "an unknown mode": lambda engine: sgfast.Engine(POLICY, mode="loose"),  # type: ignore[arg-type]
    "a negative wire length": lambda engine: engine.process_frames([FRAME], [0], wire_lengths=[-1]),
    "a wire length of a terabyte": lambda engine: engine.process_frames([FRAME], [0], wire_lengths=[1 << 40]),
    "a time beyond 64 bits": lambda engine: engine.process_frames([FRAME], [1 << 70]),
    "fewer times than frames": lambda engine: engine.process_frames([FRAME, FRAME], [0]),
    "a link type that is not read": lambda engine: engine.process_frames([FRAME], [0], link_type=127),
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


def test_odd_arrays_are_judged_as_what_they_hold() -> None:
    engine = sgfast.Engine(POLICY)
    rows = np.zeros(10, dtype=sgfast.HEADER_DTYPE)
    rows.flags.writeable = False
    assert engine.process(rows).shape == (10,)
    assert engine.process(rows[::2]).shape == (5,)
    assert engine.process(rows[:0]).shape == (0,)
    assert engine.verdict(engine.process_frames([b""], [0])[0]).reason == "malformed"


def test_one_capture_needs_no_list() -> None:
    shop = Path(__file__).parent.parent / "pcaps" / "shop.pcap"
    assert sgfast.replay(POLICY, shop).packets == sgfast.replay(POLICY, [str(shop)]).packets == 261
    assert sgfast.replay(POLICY, [bytes(shop)]).packets == 261      # type: ignore[list-item]
