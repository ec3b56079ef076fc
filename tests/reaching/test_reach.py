"""Rows that say who may open what to whom: all of it, and nothing else (SPEC 12.5)."""

from __future__ import annotations

from all_openers import ASKED, ENDS, Truth, says
from checked_policies import policies, views_exist
from effort import some
from hypothesis import HealthCheck, Phase, assume, given, note, seed, settings
from hypothesis import strategies as st

from sgfast.errors import SgfastError
from sgfast.policy.model import Policy
from sgfast.reaching import named_end, named_service, reach


@seed(2021)
@settings(max_examples=some(25, 10_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(policies(), st.sampled_from(ENDS), st.sampled_from(ENDS), st.sampled_from(ASKED))
def test_rows_say_exactly_what_the_reference_allows(
    policy: Policy, source: str, destination: str, service: str
) -> None:
    assume(views_exist(policy))
    note(f"{source} to {destination}: {service}")
    try:
        ends = named_end(policy, source), named_end(policy, destination)
    except SgfastError:
        assume(False)
    services = named_service(service)
    truth = Truth(policy)
    allowed = {p for p in truth.allowed if p.asks_for(services) and truth.is_between(p, *ends)}
    asked = [p for p in truth.verdicts if p.asks_for(services) and truth.is_between(p, *ends)]
    rows = reach(policy, *ends, service).rows
    said = {packet for row in rows for packet in asked if says(row, packet, truth)}
    assert said == allowed
    for row in rows:
        assert any(says(row, packet, truth) for packet in allowed), row
    assert len(set(rows)) == len(rows)
