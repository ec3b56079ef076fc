"""Find management and database ports that are open to everyone."""

from __future__ import annotations

from collections.abc import Iterable

from sgfast.policy.model import TCP, UDP, AddressGroupPeer, Policy, Rule, SecurityGroup
from sgfast.policy.protocols import protocol_name
from sgfast.policy.rule_text import rule_text
from sgfast.questions.checking.codes import EXPOSED, Finding
from sgfast.questions.checking.policy_index import PolicyIndex
from sgfast.rules.addresses import ANYWHERE, addresses_of

#: Management and database services, by protocol and port.
SENSITIVE: dict[tuple[int, int], str] = {
    (TCP, 22): "ssh", (TCP, 23): "telnet", (TCP, 135): "rpc", (TCP, 445): "smb", (TCP, 1433): "mssql",
    (TCP, 1521): "oracle", (TCP, 2375): "docker", (TCP, 2379): "etcd", (TCP, 3306): "mysql", (TCP, 3389): "rdp",
    (UDP, 3389): "rdp", (TCP, 5432): "postgresql", (TCP, 5900): "vnc", (TCP, 5984): "couchdb", (TCP, 5985): "winrm",
    (TCP, 5986): "winrm", (TCP, 6379): "redis", (TCP, 6443): "kubernetes", (TCP, 7001): "cassandra",
    (TCP, 9042): "cassandra", (TCP, 9200): "elasticsearch", (TCP, 9300): "elasticsearch", (TCP, 10250): "kubelet",
    (TCP, 11211): "memcached", (UDP, 161): "snmp", (UDP, 623): "ipmi", (UDP, 1434): "mssql", (UDP, 11211): "memcached",
    (TCP, 27017): "mongodb", (TCP, 50000): "db2",
}  # fmt: skip

#: The most ports that a message names.
_LISTED_PORTS = 6


def exposed(index: PolicyIndex) -> list[Finding]:
    """Return findings for inbound rules that open such ports to everyone, unless deny rules always prevent it."""
    everyone = {
        (group.name, family): addresses_of(group.addresses, family) == addresses_of((ANYWHERE[family],), family)
        for group in index.policy.address_groups
        for family in (4, 6)
    }

    def is_everyone(rule: Rule) -> bool:
        if isinstance(rule.peer, AddressGroupPeer):
            return everyone[rule.peer.name, rule.ethertype]
        return rule.peer is None

    # By group: the inbound rules for everyone, and the deny rules among them.
    wide = [
        [rule for rule in group.rules if rule.direction == "inbound" and is_everyone(rule)]
        for group in index.policy.security_groups
    ]
    denying = [[rule for rule in rules if rule.action == "deny"] for rules in wide]
    beside = _denying_beside(index, denying)
    findings = []
    for n, (group, rules) in enumerate(zip(index.policy.security_groups, wide, strict=True)):
        for rule in rules:
            if rule.action == "allow":
                findings += _exposed_by(index.policy, group, rule, denying[n], [denying[place] for place in beside[n]])
    return findings


def _denying_beside(index: PolicyIndex, denying: list[list[Rule]]) -> list[list[int]]:
    """Return for each group: the other groups with such deny rules that all instances of the group are in, too."""
    beside: list[set[int] | None] = [None] * len(denying)
    for context in index.contexts:
        denying_groups = {g for g in context.groups if denying[g]}
        for g in context.groups:
            before = beside[g]
            beside[g] = denying_groups - {g} if before is None else before & denying_groups
    return [sorted(groups or ()) for groups in beside]


def _exposed_by(
    policy: Policy, group: SecurityGroup, rule: Rule, denying: list[Rule], beside: Iterable[list[Rule]]
) -> list[Finding]:
    before = [
        rule_before for rules in (denying, *beside) for rule_before in rules
        if rule_before.ethertype == rule.ethertype and rule_before.priority <= rule.priority
    ]  # fmt: skip
    ports = [
        (protocol, port)
        for protocol, port in SENSITIVE
        if _covers(rule, protocol, port) and not any(_covers(rule_before, protocol, port) for rule_before in before)
    ]
    if not ports:
        return []
    names = [f"{protocol_name(protocol)}/{port} ({SENSITIVE[protocol, port]})" for protocol, port in ports]
    more_ports = f" and {len(names) - _LISTED_PORTS} more such ports" if len(names) > _LISTED_PORTS else ""
    message = f"{rule_text(rule, policy)} opens {', '.join(names[:_LISTED_PORTS])}{more_ports} to everyone"
    return [Finding(EXPOSED, message, group=group.name, rule=rule.id)]


def _covers(rule: Rule, protocol: int, port: int) -> bool:
    """Return whether the rule's protocol and ports include a protocol and port."""
    if rule.protocol not in (None, protocol):
        return False
    return rule.ports is None or any(first <= port <= last for first, last in rule.ports)
