"""A policy becomes the flat tables the data plane reads.

    policy.instances  --addresses-->  address trie: number -> owner, address class
    policy rules      --ports------>  port map: protocol, port -> port class
                      --tables----->  for each group and direction a rule table

Two addresses are of one *address class* when no rule of any group tells them apart; two ports of one *port class* are
told apart by none, either. What is different for each group is only which classes its own rules tell apart, and which
rule wins where (``core/classifier.pxd`` draws it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import numpy as np
from numpy.typing import NDArray

from sgfast.compiler.addresses import AddressClasses, Addresses, Profile, add_owners, named_networks, visible_instances
from sgfast.compiler.numbering import Numbering
from sgfast.compiler.ports import PortClasses, key_ranges
from sgfast.compiler.tables import precedence, rule_tables
from sgfast.core.classifier import LIST_FLAG, Classifier
from sgfast.errors import PolicyError
from sgfast.policy.model import GroupPeer, Instance, Policy, Rule

__all__ = ["CompiledPolicy", "Numbering", "compile_policy", "visible_instances"]


@dataclass
class CompiledPolicy:
    """What a policy compiled to, and what the numbers in it mean."""

    policy: Policy
    classifier: Classifier
    numbering: Numbering
    address_classes: int
    port_classes: int
    rule_tables: int
    #: How many rule tables are bit vectors because the table would have been too large.
    bit_vector_tables: int
    nbytes: int

    @property
    def rules(self) -> list[Rule]:
        """By rule number."""
        return self.numbering.rules

    @property
    def instances(self) -> list[Instance]:
        """By instance number."""
        return self.numbering.instances

    def differences(
        self, rule: Rule, instance: int, peer: IPv4Address | IPv6Address, protocol: int, port_key: int
    ) -> list[str]:
        """What keeps a rule of the peer's ethertype from matching an opener, in words; empty where it matches."""
        differs = []
        if rule.protocol not in (None, protocol):
            differs.append("protocol")
        else:
            ranges = key_ranges(rule)
            if ranges is not None and not any(first <= port_key <= last for first, last in ranges):
                differs.append("port" if rule.ports else "icmp type")
        if not self._peer_matches(rule, self.instances[instance], peer):
            differs.append("peer")
        return differs

    def _peer_matches(self, rule: Rule, here: Instance, peer: IPv4Address | IPv6Address) -> bool:
        if not isinstance(rule.peer, GroupPeer):
            return any(peer in network for network in named_networks(self.policy, rule))
        owner = self.classifier.owner_of(peer.packed)
        if owner < 0 or rule.peer.name not in self.instances[owner].security_groups:
            return False
        there = self.instances[owner].vpc
        regions = self.policy.vpc_by_name
        return self.policy.connected(here.vpc, there) and regions[here.vpc].region == regions[there].region


def compile_policy(policy: Policy, vpc: str | None = None, numbering: Numbering | None = None) -> CompiledPolicy:
    """Compiles ``policy`` as seen from ``vpc``, or from every VPC. ``numbering``: its own, unless it is a later policy.

    Raises AmbiguousAddress when an address is owned in two of the VPCs seen (SPEC 7.1), PolicyError when the tables
    would take too much memory.
    """
    try:
        return _compile(policy, vpc, numbering or Numbering().after(policy))
    except MemoryError as error:
        raise PolicyError(f"{policy.origin}: there is not enough memory for the tables of this policy") from error


def _compile(policy: Policy, vpc: str | None, numbering: Numbering) -> CompiledPolicy:
    rules_of_group = [[numbering.of_rule(group.name, rule) for rule in group.rules] for group in policy.security_groups]
    in_order = [number for numbers in rules_of_group for number in numbers]
    rules = [numbering.rules[number] for number in in_order]
    numbers = [numbering.of_instance(instance) for instance in policy.instances]
    group_number = {group.name: n for n, group in enumerate(policy.security_groups)}
    vpc_number = {v.name: n for n, v in enumerate(policy.vpcs)}

    # How many instances are of each profile; its number is its place.
    profiles: dict[Profile, int] = {}
    profile_of_instance: list[Profile] = []
    for instance in policy.instances:
        groups = tuple(sorted({group_number[name] for name in instance.security_groups}))
        profile_of_instance.append((groups, vpc_number[instance.vpc]))
        profiles[profile_of_instance[-1]] = profiles.get(profile_of_instance[-1], 0) + 1

    named = {group_number[rule.peer.name] for rule in rules if isinstance(rule.peer, GroupPeer)}
    memberships: dict[Profile, int] = {}
    membership_of_instance = []
    for instance in policy.instances:
        groups = tuple(sorted({group_number[name] for name in instance.security_groups} & named))
        key = (groups, vpc_number[instance.vpc])
        membership_of_instance.append(memberships.setdefault(key, len(memberships)) if groups else -1)

    families = {family: Addresses(family) for family in (4, 6)}
    add_owners(policy, vpc, families)
    for addresses in families.values():
        addresses.owner = {network: numbers[n] for network, n in addresses.owner.items()}
    for rule in rules:
        for network in named_networks(policy, rule):
            families[rule.ethertype].named.add(network)

    membership = dict(zip(numbers, membership_of_instance, strict=True))
    address_classes = AddressClasses(policy, list(memberships), families, membership)
    port_classes = PortClasses(rules)
    rank = precedence(numbering.rules, in_order)
    tables = rule_tables(policy, numbering.rules, rules_of_group, profiles, address_classes, port_classes, rank)
    chosen, lists = _choices(tables.of_profile)
    first = {profile: 2 * n for n, profile in enumerate(profiles)}
    choice = np.zeros((len(numbering.instances), 2), dtype=np.uint32)
    for number, profile in zip(numbers, profile_of_instance, strict=True):
        choice[number] = chosen[first[profile] : first[profile] + 2]

    peers = [
        sorted(vpc_number[other] for pair in policy.peerings if name in pair for other in pair if other != name)
        for name in vpc_number
    ]
    classifier = Classifier(
        address_classes.tries[4],
        address_classes.tries[6],
        address_classes.owner,
        address_classes.class_of_address,
        port_classes.whole,
        port_classes.by_port,
        choice,
        lists,
        tables.tables,
        rank,
        np.array([rule.action == "deny" for rule in numbering.rules], dtype=np.uint8),
        np.array([vpc_number[instance.vpc] for instance in numbering.instances], dtype=np.int32),
        np.cumsum([0] + [len(p) for p in peers]),
        np.array([peer for p in peers for peer in p], dtype=np.int32),
    )
    return CompiledPolicy(
        policy=policy,
        classifier=classifier,
        numbering=numbering,
        address_classes=address_classes.count,
        port_classes=port_classes.count,
        rule_tables=len(tables.tables),
        bit_vector_tables=tables.bit_vectors,
        nbytes=classifier.nbytes,
    )


def _choices(of_profile: Sequence[tuple[int, ...]]) -> tuple[list[int], NDArray[np.uint32]]:
    """For each set of tables what ``Classifier`` takes: the only one's number, or where a list of them begins."""
    lists: list[int] = []
    begins: dict[tuple[int, ...], int] = {}
    chosen = []
    for numbers in of_profile:
        if len(numbers) == 1:
            chosen.append(numbers[0])
            continue
        if numbers not in begins:
            begins[numbers] = len(lists)
            lists += [len(numbers), *numbers]
        chosen.append(LIST_FLAG | begins[numbers])
    return chosen, np.array(lists, dtype=np.uint32)
