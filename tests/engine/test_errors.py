"""Arguments of the library that cannot be: an exception each, never a crash, and one of sgfast where a person may have
made the mistake (SPEC 10.20).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SHOP
from frames import ethernet, ipv4, tcp

import sgfast
from sgfast.policy.changes import RemoveInstance, RemoveRule
from sgfast.questions.suggesting import Limits, suggest
from sgfast.rules.reaching.explaining import explain

POLICY = sgfast.load(SHOP[0])
CAPTURE = SHOP[1]


def replay(**options: Any) -> object:
    return sgfast.replay(POLICY, CAPTURE, **options)


#: Arguments with a value that does not exist or does not fit the others. ``except ValueError`` catches them, too.
WRONG_VALUES: dict[str, Callable[[], object]] = {
    "mode of an engine": lambda: sgfast.Engine(POLICY, mode="loose"),  # type: ignore[arg-type]
    "mode of a replay": lambda: replay(mode="loose"),
    "mode of a replay through the reference": lambda: replay(mode="loose", engine="reference"),
    "mode of a diff": lambda: sgfast.diff(POLICY, POLICY, CAPTURE, mode="loose"),  # type: ignore[arg-type]
    "midstream of an engine": lambda: sgfast.Engine(POLICY, midstream="guess"),  # type: ignore[arg-type]
    "midstream of a replay": lambda: replay(midstream="guess"),
    "engine": lambda: replay(engine="faster"),
    "jobs": lambda: replay(jobs=0),
    "jobs with the reference": lambda: replay(jobs=2, engine="reference"),
    "connections with the reference": lambda: replay(flows=object(), engine="reference"),
    "snapshot with the reference": lambda: replay(snapshot="state", engine="reference"),
    "jobs with a cluster": lambda: replay(jobs=2, client=object()),
    "standard input with a cluster": lambda: sgfast.replay(POLICY, "-", client=object()),
    "shards": lambda: replay(shards=0, client=object()),
    "merge and follow": lambda: sgfast.ReadOptions(merge=True, follow=True),
    "tunnel": lambda: replay(reading=sgfast.ReadOptions(decap=("vlxan",))),
    "allowed_only without a policy": lambda: suggest([CAPTURE], allowed_only=True),
    "unanswered with what a policy allows": lambda: suggest([CAPTURE], policy=POLICY, unanswered=True),
    "capture that is read several times": lambda: suggest("-"),
    "growing capture that is read several times": lambda: suggest(CAPTURE, reading=sgfast.ReadOptions(follow=True)),
    "whom rules are for": lambda: suggest(CAPTURE, per="grop"),  # type: ignore[arg-type]
    "prefix length": lambda: Limits((24, 129)),
    "number of public addresses": lambda: Limits(any_above=-1),
    "number of connections": lambda: Limits(min_connections=0),
    "protocol to explain": lambda: explain(POLICY, "198.51.100.7", "10.0.0.5", "http"),
    "port to explain": lambda: explain(POLICY, "198.51.100.7", "10.0.0.5", "tcp"),
    "protocol of a check": lambda: sgfast.Engine(POLICY).check("198.51.100.7", "10.0.0.5", "http"),
    "address of a check": lambda: sgfast.Engine(POLICY).check("198.51.100", "10.0.0.5", "tcp"),
    "flags of a check": lambda: sgfast.Engine(POLICY).check("198.51.100.7", "10.0.0.5", "tcp", dport=80, flags="X"),
    "time of a change": lambda: sgfast.Engine(POLICY).apply(RemoveInstance("web-1"), 1 << 63),
    "link type": lambda: sgfast.Engine(POLICY).process_frames([b""], [0], link_type=169),
}

#: Arguments of the wrong type. ``except TypeError`` catches them, too.
WRONG_TYPES: dict[str, Callable[[], object]] = {
    "changes of a replay": lambda: replay(changes=5),
    "change of an engine": lambda: sgfast.Engine(POLICY).apply("stop", 0),  # type: ignore[arg-type]
    "time of a change": lambda: sgfast.Engine(POLICY).apply(RemoveInstance("web-1"), 0.5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_a_wrong_value_is_an_error_of_sgfast_and_a_value_error(case: str) -> None:
    with pytest.raises(sgfast.SgfastError, match=r"^[^\n]+$") as raised:
        WRONG_VALUES[case]()
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_a_wrong_type_is_an_error_of_sgfast_and_a_type_error(case: str) -> None:
    with pytest.raises(sgfast.SgfastError, match=r"^[^\n]+$") as raised:
        WRONG_TYPES[case]()
    assert isinstance(raised.value, TypeError)


def test_an_error_that_goes_to_another_process_keeps_its_text() -> None:
    parts = [sgfast.PolicyError("a"), sgfast.PolicyError("b")]
    error = pickle.loads(pickle.dumps(sgfast.PolicyError("a; b", errors=parts)))
    assert str(error) == "a; b" and [str(each) for each in error.errors] == ["a", "b"]
    error = pickle.loads(pickle.dumps(sgfast.ExportError("f", "one", "two")))
    assert str(error) == "f: one; f: two" and error.problems == ["f: one", "f: two"]


def test_a_mistake_is_found_before_a_capture_is_opened(tmp_path: Path) -> None:
    with pytest.raises(sgfast.SgfastError, match=r"^mode must be causal or verbatim, not 'loose'$"):
        sgfast.replay(POLICY, tmp_path / "no such capture", mode="loose")  # type: ignore[arg-type]


def frames(count: int, times_ns: Sequence[int] = (0,), **options: Any) -> object:
    return sgfast.Engine(POLICY).process_frames([bytes(60)] * count, list(times_ns), **options)


#: Refused where arrays are read.
WRONG_ARRAYS: dict[str, Callable[[], object]] = {
    "a short hash key": lambda: sgfast.Engine(POLICY, _hash_key=[1, 2]),
    "a negative hash key": lambda: sgfast.Engine(POLICY, _hash_key=[-1] * 8),
    "a negative wire length": lambda: frames(1, wire_lengths=[-1]),
    "a wire length of a terabyte": lambda: frames(1, wire_lengths=[1 << 40]),
    "a time beyond 64 bits": lambda: frames(1, [1 << 70]),
    "fewer times than frames": lambda: frames(2),
    "an array of floats": lambda: sgfast.Engine(POLICY).process(np.zeros(3)),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_an_array_that_cannot_be_is_a_value_error(case: str) -> None:
    with pytest.raises(ValueError):
        WRONG_ARRAYS[case]()


@pytest.mark.parametrize("frame", ["abc", 5])
def test_frames_are_bytes(frame: Any) -> None:
    with pytest.raises(TypeError):
        sgfast.Engine(POLICY).process_frames([frame], [0])


@pytest.mark.parametrize("number", [80.5, "80"])
def test_numbers_are_whole(number: Any) -> None:
    with pytest.raises(TypeError):
        sgfast.Engine(POLICY).check("1.1.1.1", "10.0.0.5", 6, dport=number)


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
    with pytest.raises(TypeError, match=r"^now_ns must be a whole number of nanoseconds or a datetime, not"):
        sgfast.Engine(POLICY).apply(REMOVE, now_ns)
    sgfast.Engine(POLICY).apply(REMOVE, np.int64(5))    # type: ignore[arg-type]


@pytest.mark.parametrize("time", [1700000000.5, np.float64(1.0), "1", None])
def test_seconds_of_dpkt_and_scapy_are_refused_and_not_cut_to_nanoseconds(time: Any) -> None:
    """Cut, two packets of a connection 9,000 s apart seemed to be 9,000 ns apart (SPEC 14.13)."""
    frame = ethernet(ipv4("198.51.100.7", "10.0.0.5", tcp(40000, 443, "S")))
    for judge in (
        lambda: sgfast.Engine(POLICY).process_frames([frame], [time]),
        lambda: sgfast.FrameBatch.from_frames([frame], [time]),
        lambda: sgfast.header("198.51.100.7", "10.0.0.5", "tcp", time_ns=time),
    ):
        with pytest.raises(TypeError, match=r"or a datetime, not .*round\(seconds \* 10\*\*9\)"):
            judge()
    assert len(sgfast.Engine(POLICY).process_frames([frame], np.array([5]))) == 1


def test_programs_cannot_change_what_numbers_of_results_mean() -> None:
    engine = sgfast.Engine(POLICY)
    rules, instances = engine.rules, engine.instances
    assert isinstance(rules, tuple) and isinstance(instances, tuple) and rules is engine.rules
    engine.apply(REMOVE, 0)
    assert [rule.id for rule in rules] == [rule.id for rule in engine.rules]    # numbers keep their meaning


@pytest.mark.parametrize("changes", [None, ["x"], "x", 5, [REMOVE, None], RemoveRule])
def test_what_is_no_change_is_a_type_error(changes: Any) -> None:
    engine = sgfast.Engine(POLICY)
    with pytest.raises(TypeError, match=r"^a change must be a mapping or a value of sgfast\.policy\.changes, not"):
        engine.apply(changes, 0)
    assert engine.policy is POLICY


@pytest.mark.parametrize("changes", [5, {5}, object])
def test_what_is_no_change_file_is_a_type_error(changes: Any) -> None:
    with pytest.raises(TypeError, match=r"^changes must be the path of a change file, a mapping or a list, not"):
        replay(changes=changes)


def test_odd_arrays_are_judged_as_what_they_hold() -> None:
    engine = sgfast.Engine(POLICY)
    rows = np.zeros(10, dtype=sgfast.HEADER_DTYPE)
    rows.flags.writeable = False
    assert engine.process(rows).shape == (10,)
    assert engine.process(rows[::2]).shape == (5,)
    assert engine.process(rows[:0]).shape == (0,)
    assert engine.verdict(engine.process_frames([b""], [0])[0]).reason == "malformed"


def test_one_capture_needs_no_list() -> None:
    shop = Path(CAPTURE)
    assert sgfast.replay(POLICY, shop).packets == sgfast.replay(POLICY, [str(shop)]).packets == 261
    assert sgfast.replay(POLICY, [bytes(shop)]).packets == 261      # type: ignore[list-item]
