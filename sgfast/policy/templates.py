"""The rules of the default group, the templates and fast-add (SPEC 8.1, 8.3, 8.4).

Rules in these tables have no id. They get their ids when they are added to a group (SPEC 2.5).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from typing import Literal

from sgfast.base.errors import PolicyError
from sgfast.base.spelling import did_you_mean
from sgfast.policy.model import (
    DEFAULT_GROUP,
    ICMP,
    TCP,
    Direction,
    GroupPeer,
    Policy,
    Rule,
    SecurityGroup,
    Wording,
)
from sgfast.policy.rule_text import rule_in_document

#: The placeholder for the group to which a template's rules are added. No group can have this name (SPEC 2.7).
ITSELF = GroupPeer("")
#: The wording of rules for any address, which are printed with 0.0.0.0/0 or ::/0.
_ANYWHERE: frozenset[Wording] = frozenset(("any-address",))


def _from_anywhere(protocol: int | None, first_port: int | None = None, last_port: int | None = None) -> Rule:
    ports = None if first_port is None else ((first_port, last_port or first_port),)
    return Rule(id="", direction="inbound", ethertype=4, protocol=protocol, ports=ports, wording=_ANYWHERE)


def _both_families(direction: Direction, peer: GroupPeer | None) -> tuple[Rule, Rule]:
    families: tuple[Literal[4], Literal[6]] = (4, 6)
    wording = _ANYWHERE if peer is None else frozenset[Wording]()
    four, six = (Rule("", direction, family, peer=peer, wording=wording) for family in families)
    return four, six


_INBOUND_FROM_ITSELF = _both_families("inbound", ITSELF)
_OUTBOUND_ALL = _both_families("outbound", None)

#: The rules of each ``template:`` (SPEC 8.3).
TEMPLATES: dict[str, tuple[Rule, ...]] = {
    "general-purpose-web-server": (
        _from_anywhere(TCP, 22),
        _from_anywhere(TCP, 3389),
        _from_anywhere(TCP, 80),
        _from_anywhere(TCP, 443),
        _from_anywhere(ICMP),
        *_INBOUND_FROM_ITSELF,
        *_OUTBOUND_ALL,
    ),
    "all-ports-open": (_from_anywhere(None), *_INBOUND_FROM_ITSELF, *_OUTBOUND_ALL),
    "fast-add": (*_INBOUND_FROM_ITSELF, *_OUTBOUND_ALL),
}

_DEFAULT_RULES = (*_INBOUND_FROM_ITSELF, *_OUTBOUND_ALL)

#: For each word of ``fast_add:``, the rule that it adds (SPEC 8.4).
FAST_ADD: dict[str, Rule] = {
    "ssh": _from_anywhere(TCP, 22),
    "rdp": _from_anywhere(TCP, 3389),
    "ftp": _from_anywhere(TCP, 20, 21),
    "telnet": _from_anywhere(TCP, 23),
    "icmp": _from_anywhere(ICMP),
    "ping": _from_anywhere(ICMP),
    "http": _from_anywhere(TCP, 80),
    "https": _from_anywhere(TCP, 443),
    "http-alt": _from_anywhere(TCP, 8080),
    "mysql": _from_anywhere(TCP, 3306),
    "mssql": _from_anywhere(TCP, 1433),
    "postgresql": _from_anywhere(TCP, 5432),
    "oracle": _from_anywhere(TCP, 1521),
    "redis": _from_anywhere(TCP, 6379),
    "mongodb": _from_anywhere(TCP, 27017),
}


class RuleNumbers:
    """Generates the ids of the rules of one group, in order (SPEC 2.5)."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._used: dict[Direction, int] = {"inbound": 0, "outbound": 0}
        self._written: set[str] = set()

    def id_of(self, direction: Direction, written: str = "") -> str:
        """Return the id of the group's next rule in this direction: the ``written`` id, or if that is empty, an id with
        the next unused number.
        """
        self._used[direction] += 1
        if written:
            self._written.add(written)
            return written
        while (generated := f"{self._group}/{direction}/{self._used[direction]}") in self._written:
            self._used[direction] += 1
        return generated


def next_rule_id(
    group: SecurityGroup, direction: Direction, numbers: dict[Direction, int], owners: Container[str]
) -> str:
    """Return the next id that no rule ever had (SPEC 2.5), and count it in ``numbers``, which begin as those of the
    group. ``owners``: the ids of all rules of the policy."""
    numbers[direction] += 1
    while (rule_id := f"{group.name}/{direction}/{numbers[direction]}") in owners or rule_id in group.gone:
        numbers[direction] += 1
    return rule_id


def rules_in_group(rules: Iterable[Rule], group: str, numbers: RuleNumbers) -> list[Rule]:
    """Convert rules of the tables into rules of ``group``: set their ids, and replace the placeholder ITSELF."""
    itself = GroupPeer(group)
    return [
        replace(rule, id=numbers.id_of(rule.direction), peer=itself if rule.peer == ITSELF else rule.peer)
        for rule in rules
    ]


def default_group() -> SecurityGroup:
    """Make the default group, which is created if an instance has no group and the document has no default group (SPEC
    8.1).
    """
    rules = rules_in_group(_DEFAULT_RULES, DEFAULT_GROUP, RuleNumbers(DEFAULT_GROUP))
    return SecurityGroup(DEFAULT_GROUP, tuple(rules))


def template_document(name: str) -> str:
    """Write a template, or ``default``, as the ``security_groups`` section of a document (SPEC 2), with all rules.

    The group has the template's name. In a document, it has the same effect as a group of that name with
    ``template: NAME``.
    """
    groups = {**TEMPLATES, DEFAULT_GROUP: _DEFAULT_RULES}
    if name not in groups:
        raise PolicyError(f"unknown template {name[:64]!r}: use one of {', '.join(groups)}{did_you_mean(name, groups)}")
    lines = ["security_groups:", f"  - name: {name}   # rename it here and in the rules below", "    rules:"]
    rules = rules_in_group(groups[name], name, RuleNumbers(name))
    lines += [f"      - {rule_in_document(rule, Policy())}" for rule in rules]
    return "\n".join(lines) + "\n"
