"""Traffic that flow logs do not show: services that AWS never logs, instances that were not logged, and records that
nobody could decide.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from sgfast.flow_logs.log_records import MOST_NAMED, LogRecords, some_names
from sgfast.policy.model import ICMP, ICMPV6, TCP, UDP, Policy, Rule, called


class _Service(NamedTuple):
    protocol: int
    port: int
    #: The service's address; None: it has an address of the VPC, or it may be any.
    address: IPv4Address | None


_METADATA, _TIME = IPv4Address("169.254.169.254"), IPv4Address("169.254.169.123")
#: DNS, instance metadata, the time service, and the activation of Windows. Nobody filters DHCP.
_SERVICES = (
    _Service(UDP, 53, None), _Service(TCP, 53, None), _Service(TCP, 80, _METADATA), _Service(UDP, 123, _TIME),
    _Service(TCP, 1688, None),
)  # fmt: skip

def may_be_unseen(rule: Rule, records: LogRecords | None) -> bool:
    """Return whether traffic that the logs do not show may use a rule: then it is not known to be unused."""
    if records is None:
        return False
    if records.undecided_icmp and rule.protocol in (ICMP, ICMPV6):
        return True
    if any(_has_port(rule, protocol, ports) for protocol, ports in records.unsure_ports.items()):
        return True
    return records.has_aws and rule.direction == "outbound" and any(_allows(rule, service) for service in _SERVICES)


def said_of_unseen(rules: Sequence[Rule]) -> str:
    """Return a sentence about the unused rules about which the logs cannot tell, without a full stop."""
    names = some_names([rule.id for rule in rules])
    return f"These logs cannot tell whether a rule is unused that no record shows in use: {names}"


def unlogged_groups(policy: Policy, records: LogRecords | None) -> frozenset[str]:
    """Return the groups with a member that was not logged: nobody knows what used their rules."""
    unlogged = set(() if records is None else records.unlogged)
    return frozenset(
        group for instance in policy.instances if instance.name in unlogged for group in instance.security_groups
    )


def said_of_unlogged(policy: Policy, records: LogRecords | None, most: int = MOST_NAMED) -> list[str]:
    """Return a sentence about the instances that were not logged; none if all were."""
    if records is None or not records.unlogged:
        return []
    names = [called(policy.instance_by_name[name]) for name in records.unlogged]
    return [
        "No rule of the groups of these instances is called unused, as the logs have no record of their own "
        f"interfaces: {some_names(names, most)}."
    ]


def _has_port(rule: Rule, protocol: int, ports: Sequence[int]) -> bool:
    if rule.protocol not in (None, protocol):
        return False
    if rule.ports is None:
        return True
    # `ports` is in order.
    return any(bisect_left(ports, first) < bisect_right(ports, last) for first, last in rule.ports)


def _allows(rule: Rule, service: _Service) -> bool:
    if rule.protocol not in (None, service.protocol):
        return False
    if rule.ports is not None and not any(first <= service.port <= last for first, last in rule.ports):
        return False
    if service.address is None or rule.peer is None:
        return True
    return isinstance(rule.peer, IPv4Network) and service.address in rule.peer
