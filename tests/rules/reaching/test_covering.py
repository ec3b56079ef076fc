"""The expectation that is about a connection which was seen (SPEC 2.14, 10.23)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

import pytest
from checked_policies import policies, views_exist
from effort import some
from expected import files, is_about, packets
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from sgfast.clouds.loading import parse_policy
from sgfast.policy.expectations import parse_expectations
from sgfast.policy.matching import End
from sgfast.rules.reaching.proving import Expectations, Seen

POLICY = parse_policy("""
version: 1
address_groups:
  - {name: offices, addresses: [192.0.2.0/24]}
security_groups: [{name: web}, {name: db}]
instances:
  - {name: web-1, addresses: [10.0.0.5, 8.8.8.8], security_groups: [web]}
  - {name: db-1, addresses: [10.0.1.0/24], security_groups: [db]}
""")
FILE = """
expect:
  - {from: internet, to: web, service: "tcp/80,443", verdict: allow}
  - {from: any, to: db, service: all, verdict: deny, name: everybody}
  - {from: web, to: db, service: [tcp/5432, icmp/8], verdict: allow, name: web}
  - {from: [offices, 10.0.0.0/16], to: db-1, service: tcp/22, verdict: allow, name: admins}
"""


def seen(
    source: str, destination: str, port: int | None, verdict: Literal["allow", "deny"] = "allow", icmp: int = 0
) -> Seen:
    ends = []
    for text in (source, destination):
        address = ip_address(text)
        owners = [one for one in POLICY.instances if any(address in network for network in one.addresses)]
        ends.append(End(address, owners[0] if owners else None))
    if port is None:
        return Seen(ends[0], ends[1], 1, None, icmp, 0, verdict)
    return Seen(ends[0], ends[1], 6, port, None, None, verdict)


@pytest.mark.parametrize(
    ("row", "covering"),
    [
        (seen("1.1.1.1", "10.0.0.5", 80), "internet to web: tcp/80,443"),
        (seen("1.1.1.1", "10.0.0.5", 81), None),
        (seen("192.0.2.9", "10.0.0.5", 80), None),                    # not public
        (seen("8.8.8.8", "10.0.0.5", 80), None),                      # public, but an instance's
        (seen("1.1.1.1", "10.0.1.77", 5432, "deny"), "any to db: all"),
        # Expectations of the other verdict are reported first.
        (seen("8.8.8.8", "10.0.1.77", 5432, "deny"), "web to db: tcp/5432, icmp/8"),
        (seen("8.8.8.8", "10.0.1.77", 5432, "allow"), "any to db: all"),
        (seen("10.0.0.5", "10.0.1.7", None, "deny", 8), "web to db: tcp/5432, icmp/8"),
        (seen("10.0.0.5", "10.0.1.7", None, "deny", 13), "any to db: all"),
        (seen("192.0.2.255", "10.0.1.0", 22, "deny"), "offices, 10.0.0.0/16 to db-1: tcp/22"),
        (seen("192.0.3.0", "10.0.1.0", 22, "deny"), "any to db: all"),
        (seen("10.0.0.5", "8.8.4.4", 22, "deny"), None),
    ],
)
def test_a_connection_is_covered_by_what_is_about_it(row: Seen, covering: str | None) -> None:
    (found,) = Expectations(POLICY, parse_expectations(FILE)).covering([row])
    assert (None if found is None else found.text) == covering


@seed(21)
@given(data=st.data())
@settings(
    max_examples=some(4, 1_000), database=None, deadline=None, phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_coverage_agrees_with_what_each_word_means(data: st.DataObject) -> None:
    policy = data.draw(policies())
    assume(views_exist(policy))
    meant = Expectations(policy, parse_expectations(data.draw(files(policy))))
    rows = [*packets(policy)]
    for row, found in zip(rows, meant.covering(rows), strict=True):
        about = [each for each in meant.all if is_about(policy, each, row)]
        otherwise = [each for each in about if each.verdict != row.verdict]
        assert found == next(iter(otherwise or about), None)
