"""Traffic that flow logs do not show: services that the cloud never logs, instances that were not logged, and records
that nobody could decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

import numpy as np

from sgfast.clouds.logs.log_format import UnloggedService
from sgfast.policy.model import ICMP, ICMPV6, TCP, UDP, Policy, Rule, called
from sgfast.policy.rule_text import rule_name
from sgfast.traffic.flow_logs.log_records import MOST_NAMED, LogRecords, some_names
from sgfast.traffic.flow_logs.unsure_openers import PossibleUse, UnsureOpeners

#: Why logs cannot tell whether a rule is unused: nobody knows who opened connections, or what ICMP asked; or the logs
#: never have the services, or the protocols, that it is for.
UnseenWhy = Literal["either-opener", "icmp-type", "not-logged-service", "not-logged-protocol"]


@dataclass(frozen=True, slots=True)
class UnseenRule:
    """A rule that no record shows in use, and of which nobody knows that it is unused.

    ``group``: the name of the rule's group.
    ``rule``: the rule.
    ``why``: the reason.
    ``use``: connections that may have used it; None: the logs never have what it is for.
    """

    group: str
    rule: Rule
    why: UnseenWhy
    use: PossibleUse | None


def unseen_rule(
    group: str, rule: Rule, records: LogRecords | None, openers: UnsureOpeners | None
) -> UnseenRule | None:
    """Return the rule if traffic that the logs do not show may use it. Rules of groups that were not wholly logged are
    another matter (``unlogged_groups``).
    """
    if records is None or openers is None:
        return None
    if (use := openers.possible_uses.get(rule.id)) is not None:
        return UnseenRule(group, rule, "either-opener", use)
    if rule.protocol in (None, ICMP, ICMPV6) and (use := openers.icmp_groups.get(group)) is not None:
        return UnseenRule(group, rule, "icmp-type", use)
    if rule.direction == "outbound" and any(_allows(rule, service) for service in records.unlogged_services):
        return UnseenRule(group, rule, "not-logged-service", None)
    if records.lacks_protocols and rule.protocol not in (TCP, UDP, ICMP, ICMPV6):
        return UnseenRule(group, rule, "not-logged-protocol", None)
    return None


def said_of_unseen(policy: Policy, rules: Sequence[UnseenRule], most: int = MOST_NAMED) -> list[str]:
    """Return a sentence about the unused rules about which the logs cannot tell; none if there are none."""
    if not rules:
        return []
    names = some_names([_unseen_words(policy, rule) for rule in rules], most)
    return [f"These logs cannot tell whether a rule is unused that no record shows in use: {names}."]


def unlogged_groups(policy: Policy, records: LogRecords | None) -> frozenset[str]:
    """Return the groups with a member that was not logged: nobody knows what used their rules."""
    unlogged = set(() if records is None else records.unlogged)
    return frozenset(
        group for instance in policy.instances if instance.name in unlogged for group in instance.security_groups
    )


def said_of_unlogged(policy: Policy, records: LogRecords | None, most: int = MOST_NAMED) -> list[str]:
    """Return a sentence about the instances that were not logged; none if all were."""
    return _said_of_unlogged("No rule of the groups of these instances is called unused", policy, records, most)


def said_of_lacking(policy: Policy, records: LogRecords | None) -> list[str]:
    """Return a sentence about the instances for which a suggested policy has rules by their peers' records at most;
    none if all were logged.
    """
    return _said_of_unlogged("The suggested policy may lack rules that these instances need", policy, records)


def _said_of_unlogged(
    consequence: str, policy: Policy, records: LogRecords | None, most: int = MOST_NAMED
) -> list[str]:
    if records is None or not records.unlogged:
        return []
    names = [called(policy.instance_by_name[name]) for name in records.unlogged]
    return [f"{consequence}, as the logs have no record of their own interfaces: {some_names(names, most)}."]


def _unseen_words(policy: Policy, unseen: UnseenRule) -> str:
    """Return the name of a rule, and the record to blame."""
    name, use = rule_name(policy, unseen.rule, unseen.group), unseen.use
    if use is None:
        return name
    at = np.datetime64(use.time_ns // 10**9, "s")
    return f"{name} (perhaps used by {use.source} -> {use.destination} at {at}Z)"


def _allows(rule: Rule, service: UnloggedService) -> bool:
    if rule.protocol not in (None, service.protocol):
        return False
    if rule.ports is not None and not any(first <= service.port <= last for first, last in rule.ports):
        return False
    if service.address is None or rule.peer is None:
        return True
    return isinstance(rule.peer, IPv4Network) and service.address in rule.peer
