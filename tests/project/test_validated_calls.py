"""pydantic reads the types of every public function, and lets ordinary arguments through unchanged (SPEC 14.40)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgfast
from sgfast.report.lines import VerdictCsv

pydantic = pytest.importorskip("pydantic")

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
SHOP, PROPOSED, CAPTURE = (PCAPS / name for name in ("shop.yaml", "shop.proposed.yaml", "shop.pcap"))
EXPECTATION = {"from": "web", "to": "db", "service": "udp/53", "verdict": "deny"}
ENDS = "198.51.100.7", ip_address("10.0.0.5"), "tcp"


def given(*arguments: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return arguments, named


def packets() -> Any:
    return sgfast.header(*ENDS, dport=80, time_ns=datetime(2026, 1, 1, tzinfo=UTC))


#: Ordinary arguments, by the name of the function. Functions that can do without arguments get none.
CALLS: dict[str, Callable[[Path], Any]] = {
    "load": lambda folder: given(SHOP, format="auto"),
    "header": lambda folder: given(*ENDS, sport=1, dport=80, time_ns=datetime(2026, 1, 1, tzinfo=UTC)),
    "load_snapshot": lambda folder: given(folder / "state"),
    "save_snapshot": lambda folder: given(sgfast.Engine(SHOP), folder / "saved"),
    "table": lambda folder: given(packets(), sgfast.Engine(SHOP).process(packets()), sgfast.Engine(SHOP)),
    "suggest": lambda folder: given([str(CAPTURE)], policy=SHOP),
    "replay": lambda folder: given(sgfast.load(SHOP), CAPTURE, jobs=1, reading=sgfast.ReadOptions(filter="tcp")),
    "diff": lambda folder: given(SHOP, str(PROPOSED)),
    "export": lambda folder: given({"version": 1}, "otc"),
    "Policy.explain": lambda folder: given("web-1", ip_network("10.0.1.9/32"), "tcp/5432"),
    "Policy.reach": lambda folder: given(source="web", port="80,443", rules=True),
    "Policy.test": lambda folder: given([EXPECTATION]),
    "Policy.check": lambda folder: given(expect={"expect": [EXPECTATION]}, captures=[CAPTURE]),
    "Policy.diff": lambda folder: given(PROPOSED, [CAPTURE], mode="verbatim"),
    "Policy.replay": lambda folder: given(
        CAPTURE, changes=[(5.0, sgfast.RemoveRule("web", "web-ssh"))], packets=VerdictCsv(lambda rows: None),
        tables="packets",
    ),
    "Policy.export": lambda folder: given("otc"),
    "Policy.connected": lambda folder: given("default", "default"),
    "Engine.check": lambda folder: given(*ENDS, sport=1, dport=80, flags="S", time_ns=1),
    "Engine.explain": lambda folder: given("web-1", "db-1", "tcp", dport=22),
    "Engine.process": lambda folder: given(packets()),
    "Engine.process_frames": lambda folder: given([b"\0" * 60], [datetime(2026, 1, 1, tzinfo=UTC)], link_type=1),
    "Engine.verdict": lambda folder: given(sgfast.Engine(SHOP).process(packets())[0]),
    "Engine.apply": lambda folder: given([{"remove_rule": {"group": "web", "rule": "web-ssh"}}], now_ns=1),
    "Engine.for_captures": lambda folder: given(SHOP, jobs=1),
}  # fmt: skip


def public() -> dict[str, Callable[..., Any]]:
    """Return all functions of the library, and the methods of a policy and an engine, by name."""
    owners = {"": sgfast, "Policy.": sgfast.load(SHOP), "Engine.": sgfast.Engine(SHOP, events=True)}
    return {
        prefix + name: getattr(owner, name)
        for prefix, owner in owners.items()
        for name in dir(owner)
        if not name.startswith("_") and inspect.isroutine(getattr(owner, name))
    }


def validated(function: Callable[..., Any]) -> Callable[..., Any]:
    # An engine and a NumPy array are checked by their class alone.
    wrapped: Callable[..., Any] = pydantic.validate_call(function, config={"arbitrary_types_allowed": True})
    return wrapped


def plain(answer: Any) -> Any:
    """Return what two equal answers have in common: without times, and of objects that differ only their class."""
    if hasattr(answer, "to_dict"):
        return {key: value for key, value in answer.to_dict().items() if "second" not in key}
    if isinstance(answer, np.ndarray):
        return answer.dtype, answer.tobytes()
    return answer if isinstance(answer, str | tuple | sgfast.Policy) else type(answer)


@pytest.mark.parametrize("name", public())
def test_a_function_with_validated_arguments_answers_as_without(name: str, tmp_path: Path) -> None:
    sgfast.save_snapshot(sgfast.Engine(SHOP), tmp_path / "state")
    arguments, named = CALLS[name](tmp_path) if name in CALLS else given()
    checked, unchecked = validated(public()[name]), public()[name]
    if name == "policy_from_boto3":
        return      # would need an account
    assert plain(checked(*arguments, **named)) == plain(unchecked(*arguments, **named))


def test_validation_refuses_what_the_types_refuse() -> None:
    for function, arguments in (
        (sgfast.header, given(3.5, "10.0.0.5", "tcp")),
        (sgfast.load(SHOP).export, given("clouds")),
        (sgfast.load(SHOP).replay, given(CAPTURE, packets=print)),
        (sgfast.Engine(SHOP).process, given([1, 2])),
    ):
        with pytest.raises(pydantic.ValidationError):
            validated(function)(*arguments[0], **arguments[1])
