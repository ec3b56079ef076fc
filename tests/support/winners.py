"""Find the rule that decides about one opener at one instance, by the reference model."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from sgfast.policy.model import Instance, Policy
from sgfast.reference.rules import winning_rule
from sgfast.reference.table import GroupRule, Opener, Side

Address = IPv4Address | IPv6Address
#: A service: protocol, destination port, ICMP type and code.
Service = tuple[int, int | None, int | None, int | None]


def winner(
    policy: Policy, here: Instance, outbound: bool, peer: Address, there: Instance | None, service: Service
) -> GroupRule | None:
    """Return the winning rule. ``there`` is the instance that owns the peer's address, if any."""
    protocol, port, kind, code = service
    own = here.addresses[0].network_address
    ends = ((own, 40000), (peer, port)) if outbound else ((peer, 40000), (own, port))
    opener = Opener(peer.version, protocol, *ends, outbound, kind, code, "", False)
    return winning_rule(policy, Side(here, outbound, peer, there), opener)
