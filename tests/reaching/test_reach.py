"""Rows that say who may open what to whom: all of it, and nothing else (SPEC 12.5)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from all_openers import ASKED, ENDS, Packet, Truth
from checked_policies import policies, views_exist
from effort import some
from hypothesis import HealthCheck, assume, given, note, seed, settings
from hypothesis import strategies as st

from sgfast.errors import SgfastError
from sgfast.policy.model import Policy
from sgfast.reaching import Part, Row, named_end, named_service, reach


def says(row: Row, packet: Packet, truth: Truth) -> bool:
    """Whether a row says that the packet is allowed."""
    negated = row.services.startswith("all except ")
    asks = packet.asks_for(named_service(row.services.removeprefix("all except ")))
    return (
        packet.source.version in row.families
        and asks != negated
        and any(_is_meant(part, packet, truth, False) for part in row.sources)
        and any(_is_meant(part, packet, truth, True) for part in row.destinations)
    )


def _is_meant(part: Part, packet: Packet, truth: Truth, is_destination: bool) -> bool:
    address = packet.destination if is_destination else packet.source
    owner = truth.owner(packet.vpc, address, is_destination)

    def is_in(networks: Iterable[str]) -> bool:
        return any(address in ip_network(network) for network in networks)

    match part.kind:
        case "any":
            return True
        case "internet":
            return owner is None and address in named_end(truth.policy, "internet").networks[address.version == 6]
        case "instances":
            return owner is not None
        case "group":
            return owner is not None and part.name in owner.security_groups
        case "instance":
            return owner is not None and owner.name == part.name and (not part.addresses or is_in(part.addresses))
        case "address-group":
            networks = truth.policy.address_group_by_name[part.name].addresses
            return owner is None and is_in(map(str, networks))
        case "network":
            return owner is None and is_in([part.name]) and not is_in(part.without)


@seed(2021)
@settings(max_examples=some(25, 10_000), deadline=None, database=None, suppress_health_check=list(HealthCheck))
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
