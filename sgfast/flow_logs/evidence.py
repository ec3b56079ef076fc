"""Find out how far flow logs can carry a comparison with a policy: the thresholds of SPEC 10.27, counted in records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from sgfast.evidence import LISTED_NETWORKS, MOSTLY, Evidence, EvidenceReason

Networks = tuple[tuple[str, int], ...]


def evidence_of_records(records: int, decided: int, undecided: int, out_of_scope: int, networks: Networks) -> Evidence:
    """Return the evidence. ``decided``: records that agree or disagree. ``undecided``: the other records about
    instances. ``networks``: as ``largest_networks`` returns them.
    """
    if not records:
        sentence = "the logs have no record of any packet"
        return Evidence((EvidenceReason("no-packets", "no", 0, 0.0, sentence, "flow logs of a time with traffic"),))
    judged = decided + undecided
    return Evidence.of([*_scope(judged, out_of_scope, out_of_scope / records, networks), *_undecided(decided, judged)])


def _scope(judged: int, out_of_scope: int, share: float, networks: Networks) -> Iterator[EvidenceReason]:
    command = "sgfast flowlog POLICY LOG with the policy of these networks, or with --vpc"
    if not judged:
        sentence = "no record is about an instance of the policy: is this the right policy, and the right --vpc?"
        yield EvidenceReason("no-instance", "no", out_of_scope, share, sentence, command, networks)
    elif share >= MOSTLY:
        sentence = f"{100 * share:.0f} % of the records are about no instance of the policy"
        yield EvidenceReason("out-of-scope", "partly", out_of_scope, share, sentence, command, networks)


def _undecided(decided: int, judged: int) -> Iterator[EvidenceReason]:
    undecided = judged - decided
    if judged and undecided / judged >= MOSTLY:
        share = undecided / judged
        sentence = f"{100 * share:.0f} % of the records about instances do not tell enough to be compared"
        command = "flow logs that begin earlier and have the fields interface-id and tcp-flags"
        yield EvidenceReason("undecided", "partly" if decided else "no", undecided, share, sentence, command)


def largest_networks(packets: Mapping[bytes, int]) -> Networks:
    """Return the networks with most packets, with these, from packets by the first 3 bytes of an address (/24), or the
    first 8 of IPv6 (/64).
    """
    largest = sorted(packets.items(), key=lambda each: -each[1])[:LISTED_NETWORKS]
    return tuple((_network(prefix), number) for prefix, number in largest)


def _network(prefix: bytes) -> str:
    return str(ip_network((prefix.ljust(4 if len(prefix) == 3 else 16, b"\0"), 8 * len(prefix))))
