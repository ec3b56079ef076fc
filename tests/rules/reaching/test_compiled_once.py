"""A policy is compiled once for all questions about packets, and nothing else can tell (SPEC 14.3)."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from command import SHOP

import sgfast
from sgfast.rules.compiler import Compiler
from sgfast.rules.reaching.filters import KEPT_VPCS

QUESTION = ("web-1", "db-1", "tcp/5432")


def shop() -> sgfast.Policy:
    """Load a policy that has compiled nothing yet."""
    return sgfast.load(SHOP[0])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Collect the VPCs for which a policy is compiled."""
    vpcs: list[str | None] = []
    compiling = Compiler.compile

    def counted(self: Compiler, *arguments: Any) -> Any:
        vpcs.append(self.vpc)
        return compiling(self, *arguments)

    monkeypatch.setattr(Compiler, "compile", counted)
    return vpcs


def test_questions_and_counterexamples_of_one_policy_compile_it_once(compiled: list[str | None]) -> None:
    policy = shop()
    first = policy.explain(*QUESTION)
    fails = [{"from": "web", "to": "db", "service": f"tcp/{port}", "verdict": "allow"} for port in range(1, 6)]
    assert len(policy.test(fails).of("fails")) == 5
    assert policy.explain(*QUESTION) == first and policy.explain("db-1", "web-1", "icmp").verdict == "deny"
    assert compiled == ["default"]


def test_an_answer_does_not_depend_on_the_questions_before_it() -> None:
    """An engine that remembered the first packet would call the second one its reply."""
    policy = shop()
    assert policy.explain("web-1", "198.51.100.53", "udp/49152", sport=53).allowed
    back = policy.explain("198.51.100.53", "web-1", "udp/53", sport=49152)
    assert (back.verdict, back.reason) == ("deny", "no-rule")


def test_numbers_of_numpy_and_pandas_are_numbers() -> None:
    """Filters for questions judge numbers of Python alone, and so does JSON."""
    policy, port, ping = shop(), np.int64(49152), np.uint8(8)
    assert policy.explain(*QUESTION, sport=port).to_json() == policy.explain(*QUESTION, sport=49152).to_json()  # type: ignore[arg-type]
    engine = sgfast.Engine(policy)
    for protocol, given in (("tcp", {"dport": port}), ("icmp", {"icmp_type": ping, "icmp_code": np.uint8(0)})):
        numbers = {name: int(number) for name, number in given.items()}
        explained = [engine.explain("192.0.2.1", "web-1", protocol, **each).to_json() for each in (given, numbers)]   # type: ignore[arg-type]
        assert explained[0] == explained[1]
    with pytest.raises(TypeError, match="float"):
        policy.explain(*QUESTION, sport=1.5)    # type: ignore[arg-type]


MAKERS: list[Callable[[sgfast.Policy], sgfast.Policy]] = [
    copy.copy, copy.deepcopy, replace, lambda policy: pickle.loads(pickle.dumps(policy)),
]  # fmt: skip


@pytest.mark.parametrize("made", MAKERS, ids=["copy", "deepcopy", "replace", "pickle"])
def test_copies_of_a_policy_have_nothing_compiled(
    made: Callable[[sgfast.Policy], sgfast.Policy], compiled: list[str | None]
) -> None:
    policy = shop()
    before = hash(policy)
    told = policy.explain(*QUESTION)
    other = made(policy)
    assert "_compiled" in vars(policy) and "_compiled" not in vars(other)
    assert policy == other == shop() and hash(other) == hash(policy) == before
    assert other.explain(*QUESTION) == told and len(compiled) == 2


def test_a_changed_policy_does_not_answer_for_the_old_one() -> None:
    policy = shop()
    assert policy.explain(*QUESTION).allowed
    closed = replace(policy, security_groups=tuple(replace(group, rules=()) for group in policy.security_groups))
    assert not closed.explain(*QUESTION).allowed and policy.explain(*QUESTION).allowed


def test_a_policy_keeps_what_was_compiled_for_a_few_vpcs(compiled: list[str | None]) -> None:
    names = [f"vpc-{n}" for n in range(KEPT_VPCS + 2)]
    policy = sgfast.load({
        "version": 1, "vpcs": [{"name": name} for name in names],
        "security_groups": [{"name": "g", "rules": []}],
        "instances": [
            {"name": f"i-{name}", "vpc": name, "addresses": ["10.0.0.5"], "security_groups": ["g"]} for name in names
        ],
    })  # fmt: skip
    told = {name: policy.explain("192.0.2.1", f"i-{name}", "tcp/1") for name in names}
    assert [*policy._compiled] == names[-KEPT_VPCS:] and compiled == names
    assert {name: policy.explain("192.0.2.1", f"i-{name}", "tcp/1") for name in names[::-1]} == told
    # The two that were forgotten are compiled again.
    assert len(compiled) == len(names) + 2 and len(policy._compiled) == KEPT_VPCS


def test_what_is_compiled_goes_with_its_policy_at_once() -> None:
    """A service that reloads a policy again and again must not wait for the garbage collector."""
    policy = shop()
    policy.explain(*QUESTION)
    (kept,) = policy._compiled.values()
    classifier, gone = weakref.ref(kept.compiler), weakref.ref(policy)
    gc.disable()
    try:
        del policy, kept
        assert gone() is None and classifier() is None
    finally:
        gc.enable()


def test_threads_that_ask_at_the_same_time_compile_once(compiled: list[str | None]) -> None:
    policy, start = shop(), Barrier(8)

    def asked(_: int) -> tuple[str, str | None]:
        start.wait()
        told = policy.explain(*QUESTION)
        return told.verdict, told.reason

    with ThreadPoolExecutor(8) as threads:
        assert {*threads.map(asked, range(8))} == {("allow", "rule")}
    assert compiled == ["default"]


def test_peers_with_one_address_answer_alike_every_time(compiled: list[str | None]) -> None:
    """The whole policy cannot be compiled for such a VPC. That is found out once."""
    peers = [{"name": name, "vpc": name, "addresses": ["10.1.0.5"], "security_groups": ["g"]} for name in ("a", "b")]
    policy = sgfast.load({
        "version": 1, "vpcs": [{"name": name} for name in "hab"], "peerings": [["h", "a"], ["h", "b"]],
        "security_groups": [{"name": "g", "rules": [{"direction": "inbound", "protocol": "tcp", "source": "g"}]}],
        "instances": [*peers, {"name": "h", "vpc": "h", "addresses": ["10.0.0.5"], "security_groups": ["g"]}],
    })  # fmt: skip
    first = policy.explain("h", "a", "tcp/1", vpc="h")
    assert (first.verdict, first.reason) == ("deny", "no-rule") and first.ingress is not None
    assert first.destination.instance == policy.instance_by_name["a"]
    before = len(compiled)
    assert policy.explain("h", "a", "tcp/1", vpc="h") == first
    with pytest.raises(sgfast.PolicyError, match=r"10\.1\.0\.5"):
        policy.explain("h", "10.1.0.5", "tcp/1", vpc="h")
    assert compiled[before:] == ["h"] * 2


def test_an_assumed_machine_is_compiled_on_top_of_the_policy() -> None:
    policy = shop()
    asked = ("203.0.113.9", "web-1", "tcp/22")
    assert not policy.explain("192.0.2.9", "db-1", "tcp/5432").allowed
    assumed = policy.explain("192.0.2.9", "db-1", "tcp/5432", as_if_in=["web"])
    assert assumed.allowed and assumed.source.instance is not None
    assert assumed.source.instance.addresses == (ip_network("192.0.2.9"),)
    assert not policy.explain("192.0.2.9", "db-1", "tcp/5432").allowed and policy.explain(*asked).allowed
