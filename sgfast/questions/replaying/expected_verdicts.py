"""Compare a replay with an expectations file (SPEC 10.25)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import numpy as np

from sgfast.base.evidence import EvidenceReason
from sgfast.engine import REASONS
from sgfast.policy.matching import Address, End
from sgfast.policy.model import Policy
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.kinds import Kinds, joined
from sgfast.questions.replaying.listed_kinds import peer_of, service_of
from sgfast.questions.replaying.results import Contradicted, Expected
from sgfast.rules.reaching.proving import Expectations, Seen

#: Reasons for which the policy denies an opener. Expectations are not about denials for other reasons.
_BY_POLICY = [REASONS.index(reason) for reason in ("no-rule", "deny-rule", "vpc-isolated", "reply-denied")]


def hold_against(result: ReplayResult, expectations: Expectations) -> None:
    """Set ``result.expected``. Expected denials no longer count as connections that would break.

    A replay does not record which of its addresses an instance used. Therefore expectations about addresses are
    compared with the instance's first address of the connection's IP version.
    """
    policy, kinds = result.policy, result.kinds
    rows = joined(kinds).copy()
    allowed = (rows["packets"] == 0) & (rows["connections"] > 0)
    denied = np.isin(rows["reason"], _BY_POLICY) & (rows["connections"] > 0)
    chosen = np.flatnonzero((allowed | denied) & (rows["family"] > 0) & (rows["instance"] >= 0))
    connections = [(int(n), _seen_connections(policy, kinds, rows[n], is_denied=bool(denied[n]))) for n in chosen]
    readable_connections = [(n, connection) for n, connection in connections if connection is not None]
    contradicted: Counter[str] = Counter()
    covering = expectations.covering(connection for _, connection in readable_connections)
    for (n, connection), expectation in zip(readable_connections, covering, strict=True):
        if expectation is None:
            continue
        if expectation.verdict != connection.verdict:
            contradicted[expectation.place] += int(rows["connections"][n])
        elif connection.verdict == "deny":
            rows["meant"][n], rows["broken"][n], rows["unclear"][n] = rows["broken"][n], 0, 0
    result.kinds = replace(kinds, rows=rows)
    contradictions = tuple(
        Contradicted(expectation, contradicted[expectation.place])
        for expectation in expectations.all
        if expectation.place in contradicted
    )
    doubts = tuple(_about_nobody(expectations))
    result.expected = Expected(expectations.origin, int(rows["meant"].sum()), contradictions, doubts)


def _about_nobody(expectations: Expectations) -> Iterator[EvidenceReason]:
    nobody, total = len(expectations.about_nobody), len(expectations.all)
    if nobody:
        verb, covers = ("is", "it covers") if nobody == 1 else ("are", "they cover")
        sentence = f"{nobody:,} of {total:,} expectations {verb} about nobody in the policy, so {covers} no connection"
        command = "sgfast test POLICY EXPECTATIONS, which names them"
        yield EvidenceReason("about-nobody", "partly", nobody, nobody / total, sentence, command)


def _seen_connections(policy: Policy, kinds: Kinds, row: Any, *, is_denied: bool) -> Seen | None:
    """Return the connections of a row for the comparison; None if the instance has no address of the IP version now."""
    instance = policy.instance_by_name.get(kinds.instances[row["instance"]])
    own_networks = (
        [] if instance is None else [network for network in instance.addresses if network.version == row["family"]]
    )
    if instance is None or not own_networks:
        return None
    text, owner = peer_of(kinds, row)
    peer: Address = ip_address(text)
    instance_end, peer_end = (
        End(own_networks[0].network_address, instance),
        End(peer, policy.instance_by_name.get(owner or "")),
    )
    source, destination = (peer_end, instance_end) if row["inbound"] else (instance_end, peer_end)
    service = service_of(kinds, row)
    return Seen(
        source, destination, service.protocol, service.port, service.icmp_type, service.icmp_code,
        "deny" if is_denied else "allow",
    )  # fmt: skip
