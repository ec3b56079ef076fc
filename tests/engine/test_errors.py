"""What sgfast raises on purpose is an SgfastError, whichever public call a mistake is made in."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import SHOP

import sgfast
from sgfast.policy.changes import RemoveInstance
from sgfast.questions.explaining import explain
from sgfast.suggesting import Limits, suggest

POLICY = sgfast.load_policy(SHOP[0])
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
    "merge and follow": lambda: sgfast.Reading(merge=True, follow=True),
    "tunnel": lambda: replay(reading=sgfast.Reading(decap=("vlxan",))),
    "allowed_only without a policy": lambda: suggest([CAPTURE], allowed_only=True),
    "unanswered with what a policy allows": lambda: suggest([CAPTURE], policy=POLICY, unanswered=True),
    "capture that is read several times": lambda: suggest("-"),
    "growing capture that is read several times": lambda: suggest(CAPTURE, reading=sgfast.Reading(follow=True)),
    "whom rules are for": lambda: suggest(CAPTURE, per="grop"),  # type: ignore[arg-type]
    "prefix length": lambda: Limits((24, 129)),
    "number of public addresses": lambda: Limits(any_above=-1),
    "number of connections": lambda: Limits(min_connections=0),
    "protocol to explain": lambda: explain(POLICY, "198.51.100.7", "10.0.0.5", "http"),
    "port to explain": lambda: explain(POLICY, "198.51.100.7", "10.0.0.5", "tcp"),
    "protocol of a check": lambda: sgfast.Engine(POLICY).check("198.51.100.7", "10.0.0.5", "http"),
    "address of a check": lambda: sgfast.Engine(POLICY).check("198.51.100", "10.0.0.5", "tcp"),
    "flags of a check": lambda: sgfast.Engine(POLICY).check("198.51.100.7", "10.0.0.5", "tcp", flags="X"),
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
