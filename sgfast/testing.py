"""Assertions about a policy, for tests (SPEC 15.1).

    from sgfast.testing import assert_allows, assert_denies

    def test_only_web_servers_reach_the_database(sgfast_load):
        policy = sgfast_load("policy.yaml")
        assert_allows(policy, "web", "db", "tcp/5432")
        assert_denies(policy, "internet", "db", "all")

Each assertion is proved for all its packets, as ``sgfast test`` does. pytest has the fixture ``sgfast_load``.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import UnionType
from warnings import warn

from sgfast.base.errors import ArgumentError, ArgumentTypeError
from sgfast.clouds.loading import load
from sgfast.policy.expectations import Expectation, ExpectationsFile, Word
from sgfast.policy.fields import LINE
from sgfast.policy.model import Action, Policy
from sgfast.report.expectations import failure_text
from sgfast.rules.reaching.proving import Expectations

__all__ = ["assert_allows", "assert_denies"]

End = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network
"""One end of connections: a security group, an instance or an address group by its name or its provider's word for it;
an address or a network; ``internet`` or ``any`` (SPEC 12.2)."""


def assert_allows(
    policy: Policy, source: End | Iterable[End], destination: End | Iterable[End], service: str | Iterable[str]
) -> None:
    """Assert that the policy allows every connection from the source to the destination for the service (SPEC 15.1).

    Several sources, destinations or services mean each of them. A service is ``tcp/443``, ``udp/53``, ``icmp``, ``all``
    or the like (SPEC 12.3). Raises AssertionError with a packet that is denied and the nearest rules, or if there is no
    such packet at all. Raises PolicyError for a name that means nothing in the policy.

    For example:

        assert_allows(policy, "internet", "web", "tcp/80")
    """
    __tracebackhide__ = True
    _assert("allow", "assert_allows", policy, source, destination, service)


def assert_denies(
    policy: Policy, source: End | Iterable[End], destination: End | Iterable[End], service: str | Iterable[str]
) -> None:
    """Assert that the policy denies every connection from the source to the destination for the service (SPEC 15.1).

    The arguments are those of ``assert_allows``. Raises AssertionError with a packet that is allowed and its rules.

    For example:

        assert_denies(policy, "internet", "db", "all")
    """
    __tracebackhide__ = True
    _assert("deny", "assert_denies", policy, source, destination, service)


def _assert(
    verdict: Action, assertion: str, policy: Policy, source: End | Iterable[End], destination: End | Iterable[End],
    service: str | Iterable[str],
) -> None:  # fmt: skip
    __tracebackhide__ = True
    if not isinstance(policy, Policy):
        raise ArgumentTypeError(f"{assertion}: needs a policy, not {type(policy).__name__}: use sgfast.load(path)")
    end_wanted = "a name, an address or a network"
    sources = _words(f"{assertion}: source", source, End, end_wanted)
    destinations = _words(f"{assertion}: destination", destination, End, end_wanted)
    services = _words(f"{assertion}: service", service, str, "a text like tcp/443")
    expectation = Expectation(sources, destinations, services, verdict, "", "", 0, assertion)
    outcome = Expectations(load(policy), ExpectationsFile(assertion, (expectation,))).prove().outcomes[0]
    if outcome.counterexample is not None:
        raise AssertionError(failure_text(outcome, {}))
    # A test that passes because its names mean no addresses would hide a wrong name.
    if outcome.gaps:
        raise AssertionError("; ".join(outcome.gaps))
    for warning in outcome.warnings:
        warn(warning, stacklevel=3)


def _words(place: str, value: object, kinds: type | UnionType, expected: str) -> tuple[Word, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | IPv4Network | IPv6Network):
        several = [*value]
    else:
        several = [value]
    if not several:
        raise ArgumentError(f"{place}: is an empty list: name at least one")
    for word in several:
        if not isinstance(word, kinds):
            raise ArgumentTypeError(f"{place}: must be {expected}, not {type(word).__name__}")
        if not LINE.fits(str(word)):
            raise ArgumentError(f"{place}: must be {LINE.requirement}, not {str(word)[:80]!r}")
    return tuple([Word(str(word), place) for word in several])
