"""Exports of clouds for tests: made by hand, as mappings, and asked as policies."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from sgfast import Engine, parse_policy
from sgfast.errors import PolicyError
from sgfast.policy.formats import Imported, import_sources
from sgfast.policy.formats.sources import Source
from sgfast.policy.model import Policy

OUTSIDE = "198.51.100.7"


def imported(*documents: object, form: str = "auto") -> Imported:
    """Of files a.json, b.json, …"""
    sources = [Source(f"{chr(97 + n)}.json", document) for n, document in enumerate(documents)]
    return import_sources(sources, form)


def policy_of(*documents: object, form: str = "auto") -> Policy:
    """The policy, after the round trip through YAML gave the same."""
    made = imported(*documents, form=form)
    policy = made.policy()
    again = parse_policy(made.yaml(["Of a test"]), policy.origin)
    assert replace(again, warnings=policy.warnings) == policy
    assert again.warnings == policy.warnings[len(made.draft.made.notes) :] or len(again.warnings) == len(
        policy.warnings
    ) - len(made.draft.made.notes)
    return policy


def error_of(*documents: object, form: str = "auto") -> str:
    with pytest.raises(PolicyError) as caught:
        imported(*documents, form=form).policy()
    message = str(caught.value)
    assert message.isprintable(), message
    return message


def allowed(policy: Policy, src: str, dst: str, protocol: str | int, dport: int = 0, **more: Any) -> bool:
    """Whether this packet may open a connection, with nothing before it."""
    verdict = Engine(policy).check(src, dst, protocol, sport=40000 if dport else 0, dport=dport, **more)
    assert verdict.verdict in ("allow", "deny"), verdict
    return bool(verdict.verdict == "allow")


def same_verdicts(first: Policy, second: Policy, seed: int, packets: int = 500) -> None:
    """Random packets among the policies' addresses and outside meet the same fate."""
    print("seed", seed)
    pick = random.Random(seed)
    hosts = [str(a.network_address) for instance in first.instances for a in instance.addresses]
    fours = [host for host in hosts if ":" not in host] + [OUTSIDE, "10.0.0.200", "192.0.2.9"]
    sixes = [host for host in hosts if ":" in host] + ["2001:db8:ffff::1"]
    engines = Engine(first), Engine(second)
    for n in range(packets):
        family = pick.choice((fours, fours, sixes))
        src, dst = pick.choice(family), pick.choice(family)
        protocol = pick.choice(("tcp", "tcp", "udp", "icmp" if family is fours else "icmpv6", "gre"))
        ports = {"sport": 40000 + n, "dport": pick.choice((22, 53, 80, 443, 5432, 8001))}
        more: dict[str, Any] = ports if protocol in ("tcp", "udp") else {}
        if protocol.startswith("icmp"):
            more = {"icmp_type": pick.choice((0, 3, 8, 128)), "icmp_code": pick.choice((0, 1)), "icmp_id": n}
        one, two = (engine.check(src, dst, protocol, time=float(n) * 1000, **more) for engine in engines)
        assert (one.verdict, one.reason) == (two.verdict, two.reason), (src, dst, protocol, more)
