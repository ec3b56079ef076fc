"""Compile a policy into the flat tables that the data plane reads.

    policy.instances  --addresses-->  address trie: address number -> owner, address class
    policy rules      --ports------>  port map: protocol, port -> port class
                      --tables----->  a rule table for each group and direction

Two addresses are in one *address class* if no rule of any group distinguishes them. Two ports are in one *port class*
under the same condition. All groups share these classes. The rule table of a group joins the classes that its own rules
do not distinguish, and has the winning rule for each pair (see the drawing in ``core/classify/classifier.pxd``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import PolicyError
from sgfast.core.classify.classifier import Classifier
from sgfast.policy.loaded_policy import moved_instances
from sgfast.policy.model import (
    Direction,
    GroupPeer,
    Instance,
    Network,
    Policy,
    Rule,
    SecurityGroup,
    mixed_groups,
    new_rules,
)
from sgfast.rules.addresses import named_networks, owned_prefixes, visible_instances
from sgfast.rules.compiler.address_classes import AddressClasses, Context, Moved, moved_prefixes
from sgfast.rules.compiler.numbering import Numbering
from sgfast.rules.compiler.ports import PortClasses
from sgfast.rules.compiler.tables import RuleTables, TableCache, rule_tables

#: The limit for refinements, that is for successive policies whose classes extend the earlier ones. The next policy is
#: compiled from scratch.
MAX_REFINEMENTS = 250

__all__ = ["CompiledPolicy", "Compiler", "Numbering", "compile_policy", "visible_instances"]


@dataclass(frozen=True, slots=True)
class InstanceGroups:
    """The groups of all instances. They are only rebuilt when instances change."""

    #: The number of each instance, by position in the policy.
    numbers: NDArray[np.int64]
    #: The number of instances with each context. A context's number is its position.
    contexts: dict[Context, int]
    #: The context number of each instance, by position in the policy.
    context_number: NDArray[np.int64]
    #: The VPC of each instance, removed ones included, by instance number.
    vpc: NDArray[np.int32]


@dataclass
class CompiledPolicy:
    """A compiled policy with the numbering of its rules and instances."""

    policy: Policy
    classifier: Classifier
    numbering: Numbering
    address_classes: int
    port_classes: int
    rule_tables: int
    #: The number of rule tables that were built for this policy. A ``Compiler`` reuses tables of the policy before it.
    rule_tables_built: int
    #: The number of rule tables that are stored as bit vectors because a plain table would have been too large.
    bit_vector_tables: int
    instance_groups: InstanceGroups

    @property
    def rules(self) -> list[Rule]:
        """Rules by rule number."""
        return self.numbering.rules

    @property
    def instances(self) -> list[Instance]:
        """Instances by instance number."""
        return self.numbering.instances

    @property
    def nbytes(self) -> int:
        """The memory that the classifier takes, in bytes."""
        return self.classifier.nbytes

    def members(self, groups: Iterable[str]) -> NDArray[np.int64]:
        """Return the numbers of the instances that are in any of these groups, without duplicates."""
        of_groups = {n for n, group in enumerate(self.policy.security_groups) if group.name in groups}
        contexts = self.instance_groups.contexts
        affected = np.array([not of_groups.isdisjoint(in_groups) for in_groups, _ in contexts], dtype=bool)
        numbers: NDArray[np.int64] = self.instance_groups.numbers[affected[self.instance_groups.context_number]]
        return numbers


def compile_policy(policy: Policy, vpc: str | None = None) -> CompiledPolicy:
    """Compile ``policy`` as seen from ``vpc``, or from all VPCs at once. Raises the errors of ``Compiler.compile``."""
    return Compiler(vpc).compile(policy)


@dataclass(frozen=True, slots=True)
class _GroupRules:
    """The numbers and peers of a group's rules. The group itself is kept, too, so that no later object gets its id."""

    group: SecurityGroup
    numbers: NDArray[np.int64]
    by_direction: dict[Direction, NDArray[np.int64]]
    #: The groups that the rules name as peers.
    named: frozenset[str]


@dataclass(frozen=True, slots=True)
class _RuleBook:
    """The rules of all groups. If groups change, only the data of changed groups is rebuilt."""

    groups: list[_GroupRules]
    #: Rules that are new since the last policy: its groups of the same names do not have them.
    added_rules: list[Rule]
    #: All groups that rules name as peers.
    named: frozenset[str]
    #: The precedence of each rule, removed ones included, by rule number (``_precedence``).
    precedence: NDArray[np.int64]
    #: The rank of each rule, by rule number: its position in the order of precedence, then of the document. The lowest
    #: rank wins.
    rank: NDArray[np.int32]
    #: Whether the action of each rule is deny, by rule number.
    denies: NDArray[np.uint8]

    @property
    def rules(self) -> list[Rule]:
        return [rule for rules_of_group in self.groups for rule in rules_of_group.group.rules]


class Compiler:
    """Compiles a policy and its later versions. Reuses classes and tables that a change does not affect (SPEC 6)."""

    def __init__(self, vpc: str | None = None, numbering: Numbering | None = None) -> None:
        self.vpc = vpc
        self._first_numbering = Numbering() if numbering is None else numbering
        self._last: CompiledPolicy | None = None
        self._instance_groups: InstanceGroups | None = None
        self._book: _RuleBook | None = None
        self._addresses: AddressClasses | None = None
        self._named: frozenset[str] = frozenset()
        self._ports: PortClasses | None = None
        self._tables = TableCache()
        self._refinements = 0

    def copy(self) -> Compiler:
        """Return an independent compiler that continues from the current state."""
        later_compiler = copy(self)
        later_compiler._tables = self._tables.copy()
        return later_compiler

    def compile(self, policy: Policy, renewed: Iterable[str] = ()) -> CompiledPolicy:
        """Compile a policy. ``renewed``: names of instances deleted since the last policy, even if added again.

        Raises AmbiguousAddress if two visible VPCs own the same address (SPEC 7.1), and PolicyError if the tables would
        take too much memory. An error leaves the compiler unchanged.
        """
        try:
            return self._compile(policy, list(renewed))
        except MemoryError as error:
            raise PolicyError(f"{policy.origin}: not enough memory for the tables of this policy") from error

    def _compile(self, policy: Policy, renewed: Sequence[str]) -> CompiledPolicy:
        old = self._last
        # The positions of the instances that differ from those of the last policy.
        moved = None if old is None else moved_instances(old.policy, policy)
        numbering = (self._first_numbering if old is None else old.numbering).after(policy, renewed, moved)
        book = self._book
        if book is None or old is None or old.policy.security_groups is not policy.security_groups:
            book = _rule_book(policy, numbering, None if old is None else old.policy, book)
        named = book.named
        same_groups = old is not None and (
            old.policy.security_groups is policy.security_groups
            or [g.name for g in old.policy.security_groups] == [g.name for g in policy.security_groups]
        )
        same_network = same_groups and old is not None and (
            old.policy.vpcs is policy.vpcs
            and old.policy.peerings is policy.peerings
            and old.policy.address_groups is policy.address_groups
            and old.policy.settings.group_members == policy.settings.group_members
        )

        instance_groups = self._instance_groups
        # An instance that was deleted and added again has a new number, even if it is equal to the deleted one.
        same_numbers = same_groups and not any(name in policy._instance_index for name in renewed)
        if instance_groups is None or not same_numbers or old is None or old.policy.vpcs is not policy.vpcs:
            instance_groups = _instance_groups(policy, numbering)
        elif old.policy.instances is not policy.instances:
            updated = _membership_after(instance_groups, old.policy, policy, numbering, moved or ())
            instance_groups = updated or _instance_groups(policy, numbering)
        added_rules = () if book is self._book else book.added_rules
        before, tables, ports = self._addresses, self._tables, self._ports
        # Each refinement keeps prefixes that no rule names any more and classes that no rule distinguishes any more, so
        # the number of refinements is limited.
        whole = not same_network or not named <= self._named or self._refinements >= MAX_REFINEMENTS
        addresses = None
        if before is None or whole:
            addresses = _address_classes(policy, self.vpc, instance_groups, book.rules, named, None, None)
        else:
            named = self._named
            if before.knows(added_rules):
                addresses = self._with_instances(policy, numbering, renewed, moved or ())
            if addresses is None:
                owners = None if old is None else moved_prefixes(old.policy, policy, moved or ())
                addresses = _address_classes(policy, self.vpc, instance_groups, added_rules, named, before, owners)
        ports = PortClasses(book.rules) if ports is None or whole else ports.extended(added_rules)
        # Work on a copy of the tables: if the policy is refused, the compiler must not keep tables of its classes.
        tables = tables.copy() if addresses.is_finer else TableCache()
        is_same = before is not None and addresses.is_finer and ports is self._ports and (
            (addresses.count, len(addresses.owner)) == (before.count, len(before.owner))
        )  # fmt: skip
        refinements = 0 if whole else self._refinements + (not is_same)

        numbers_of = [group_rules.by_direction for group_rules in book.groups]
        group_tables = rule_tables(
            policy, numbering.rules, numbers_of, instance_groups.contexts, addresses, ports, book.rank, tables
        )
        # A pair of uint32 for each instance, as one number: NumPy picks numbers much faster than rows.
        choice = np.zeros(len(numbering.instances), dtype=np.uint64)
        if len(instance_groups.numbers):
            choice[instance_groups.numbers] = group_tables.chosen.view(np.uint64)[instance_groups.context_number, 0]
        stateless = _stateless(policy, numbering, instance_groups)
        classifier = _classifier(
            policy, addresses, ports, choice.view(np.uint32), group_tables, book, instance_groups, stateless
        )
        compiled = CompiledPolicy(
            policy=policy,
            classifier=classifier,
            numbering=numbering,
            address_classes=addresses.count,
            port_classes=ports.count,
            rule_tables=len(group_tables.tables),
            rule_tables_built=group_tables.built,
            bit_vector_tables=group_tables.bit_vectors,
            instance_groups=instance_groups,
        )
        self._last, self._instance_groups, self._addresses, self._named = compiled, instance_groups, addresses, named
        self._ports, self._tables, self._book, self._refinements = ports, tables, book, refinements
        return compiled

    def _with_instances(
        self, policy: Policy, numbering: Numbering, renewed: Sequence[str], moved: Iterable[int]
    ) -> AddressClasses | None:
        """Return the last address classes, updated for instances that changed only their groups. Return None if
        instances changed otherwise, or if the change needs new classes.
        """
        assert self._last is not None and self._addresses is not None
        before, after = self._last.policy.instances, policy.instances
        if before is after:
            return self._addresses.with_members(policy, {})
        if renewed or len(before) != len(after):
            return None
        changed = [(before[n], after[n]) for n in moved]
        if any((old.name, old.vpc, old.addresses) != (new.name, new.vpc, new.addresses) for old, new in changed):
            return None
        group_number = {group.name: n for n, group in enumerate(policy.security_groups)}
        vpc_number = {v.name: n for n, v in enumerate(policy.vpcs)}
        return self._addresses.with_members(
            policy,
            {numbering.of_instance(new): _membership(new, self._named, group_number, vpc_number) for _, new in changed},
        )


def _instance_groups(policy: Policy, numbering: Numbering) -> InstanceGroups:
    group_number = {group.name: n for n, group in enumerate(policy.security_groups)}
    vpc_number = {v.name: n for n, v in enumerate(policy.vpcs)}
    place: dict[Context, int] = {}
    contexts: dict[Context, int] = {}
    context_number = np.zeros(len(policy.instances), dtype=np.int64)
    context_by_names: dict[tuple[tuple[str, ...], str], Context] = {}
    for n, instance in enumerate(policy.instances):
        context = context_by_names.get((instance.security_groups, instance.vpc))
        if context is None:
            groups = tuple(sorted({group_number[name] for name in instance.security_groups}))
            context = context_by_names[instance.security_groups, instance.vpc] = (groups, vpc_number[instance.vpc])
        context_number[n] = place.setdefault(context, len(place))
        contexts[context] = contexts.get(context, 0) + 1
    return InstanceGroups(
        np.array([numbering.of_instance(instance) for instance in policy.instances], dtype=np.int64),
        contexts,
        context_number,
        np.array([vpc_number[instance.vpc] for instance in numbering.instances], dtype=np.int32),
    )


def _membership_after(
    instance_groups: InstanceGroups, before: Policy, after: Policy, numbering: Numbering, moved: Iterable[int]
) -> InstanceGroups | None:
    """Update ``instance_groups`` for a later policy with changed groups of instances, or with added instances.

    Return None if instances differ otherwise, or if most contexts would have no instances.
    """
    earlier_count = len(before.instances)
    if len(after.instances) < earlier_count:
        return None
    group_number = {group.name: n for n, group in enumerate(after.security_groups)}
    vpc_number = {v.name: n for n, v in enumerate(after.vpcs)}
    place = {context: n for n, context in enumerate(instance_groups.contexts)}
    contexts = instance_groups.contexts.copy()
    names = list(instance_groups.contexts)
    added = range(earlier_count, len(after.instances))
    numbers, vpc = instance_groups.numbers, instance_groups.vpc
    context_number = np.append(instance_groups.context_number, np.zeros(len(added), dtype=np.int64))
    if added:
        new_numbers = [numbering.of_instance(after.instances[n]) for n in added]
        numbers = np.append(numbers, np.array(new_numbers, dtype=np.int64))
        vpc = np.append(vpc, np.zeros(len(numbering.instances) - len(vpc), dtype=np.int32))
        vpc[new_numbers] = [vpc_number[after.instances[n].vpc] for n in added]
    for n in (*moved, *added):
        new = after.instances[n]
        if n < earlier_count:
            if numbers[n] != numbering.of_instance(new) or before.instances[n].vpc != new.vpc:
                return None
            contexts[names[context_number[n]]] -= 1
        context = (tuple(sorted({group_number[name] for name in new.security_groups})), vpc_number[new.vpc])
        contexts[context] = contexts.get(context, 0) + 1
        context_number[n] = place.setdefault(context, len(place))
    # A context stays listed after its last instance has left it. Once most listed contexts have no instances, the
    # caller makes the list anew.
    if 2 * sum([count > 0 for count in contexts.values()]) < len(contexts):
        return None
    return InstanceGroups(numbers, contexts, context_number, vpc)


def _rule_book(policy: Policy, numbering: Numbering, before: Policy | None, last: _RuleBook | None) -> _RuleBook:
    earlier_groups = {} if last is None else {id(group_rules.group): group_rules for group_rules in last.groups}
    groups = [earlier_groups.get(id(group)) or _group_rules(group, numbering) for group in policy.security_groups]
    rules, first = numbering.rules, 0 if last is None else len(last.precedence)
    changed = [group_rules for group_rules in groups if id(group_rules.group) not in earlier_groups]
    changed_numbers = [*range(first, len(rules)), *(n for group_rules in changed for n in group_rules.numbers.tolist())]
    precedence, denies = np.zeros(len(rules), dtype=np.int64), np.zeros(len(rules), dtype=np.uint8)
    if last is not None:
        precedence[:first], denies[:first] = last.precedence, last.denies
    precedence[changed_numbers] = [_precedence(rules[n]) for n in changed_numbers]
    denies[changed_numbers] = [rules[n].action == "deny" for n in changed_numbers]
    in_order = np.concatenate([np.zeros(0, dtype=np.int64), *(group_rules.numbers for group_rules in groups)])
    rank = np.zeros(len(rules), dtype=np.int32)
    # The sort is stable, so rules of equal precedence stay in document order.
    rank[in_order[np.argsort(precedence[in_order], kind="stable")]] = np.arange(len(in_order), dtype=np.int32)
    return _RuleBook(
        groups,
        [rule for group_rules in changed for rule in new_rules(before, group_rules.group)],
        frozenset().union(*(group_rules.named for group_rules in groups)),
        precedence,
        rank,
        denies,
    )


def _precedence(rule: Rule) -> int:
    """Return the precedence of a rule: of all rules that match a packet, the lowest number wins (SPEC 4.10)."""
    return 2 * rule.priority + (rule.action != "deny")


def _group_rules(group: SecurityGroup, numbering: Numbering) -> _GroupRules:
    numbers = np.array(numbering.of_group(group), dtype=np.int64)
    inbound = np.array([rule.direction == "inbound" for rule in group.rules], dtype=bool)
    return _GroupRules(
        group,
        numbers,
        {"inbound": numbers[inbound], "outbound": numbers[~inbound]},
        frozenset([rule.peer.name for rule in group.rules if type(rule.peer) is GroupPeer]),
    )


def _membership(
    instance: Instance, named: frozenset[str], group_number: Mapping[str, int], vpc_number: Mapping[str, int]
) -> Context:
    return tuple(sorted({group_number[g] for g in instance.security_groups if g in named})), vpc_number[instance.vpc]


def _address_classes(
    policy: Policy,
    vpc: str | None,
    instance_groups: InstanceGroups,
    rules: Sequence[Rule],
    named: frozenset[str],
    earlier: AddressClasses | None,
    moved: Mapping[int, Moved] | None,
) -> AddressClasses:
    """Build address classes. ``rules``: the rules whose networks ``earlier`` may not distinguish. ``moved``: the
    changes of owners since ``earlier``, or None if they are too many or unknown.
    """
    is_named = {n for n, group in enumerate(policy.security_groups) if group.name in named}.__contains__
    memberships = [(tuple(filter(is_named, in_groups)), own_vpc) for in_groups, own_vpc in instance_groups.contexts]
    networks: dict[int, list[Network]] = {4: [], 6: []}
    for rule in rules:
        networks[rule.ethertype].extend(named_networks(policy, rule))
    return AddressClasses(
        policy, moved or owned_prefixes(policy, vpc), networks, instance_groups.numbers, memberships,
        instance_groups.context_number, earlier,
    )  # fmt: skip


def _classifier(
    policy: Policy,
    addresses: AddressClasses,
    ports: PortClasses,
    choice: NDArray[np.uint32],
    group_tables: RuleTables,
    book: _RuleBook,
    instance_groups: InstanceGroups,
    stateless: NDArray[np.uint8] | None,
) -> Classifier:
    vpc_number = {v.name: n for n, v in enumerate(policy.vpcs)}
    peers = [
        sorted(vpc_number[peer] for pair in policy.peerings if name in pair for peer in pair if peer != name)
        for name in vpc_number
    ]
    return Classifier(
        addresses.tries[4],
        addresses.tries[6],
        addresses.owner,
        addresses.class_of_address,
        addresses.origin,
        ports.whole,
        ports.by_port,
        ports.origin,
        choice,
        group_tables.lists,
        group_tables.tables,
        book.rank,
        book.denies,
        instance_groups.vpc,
        np.cumsum([0] + [len(p) for p in peers]),
        np.array([peer for p in peers for peer in p], dtype=np.int32),
        stateless,
    )


def _stateless(policy: Policy, numbering: Numbering, instance_groups: InstanceGroups) -> NDArray[np.uint8] | None:
    """Return a flag for each instance number: whether the instance's groups are stateless. None: no group is stateless.

    Raises PolicyError if an instance has both stateful and stateless groups. The readers of documents and changes
    refuse such instances earlier, so only a policy that a program made can get here with one.
    """
    groups = policy.security_groups
    if all(group.stateful for group in groups):
        return None
    of_context = []
    for n, (in_groups, _) in enumerate(instance_groups.contexts):
        kinds = {groups[group].stateful for group in in_groups}
        if len(kinds) == 2:
            places = np.flatnonzero(instance_groups.context_number == n)
            if len(places):     # empty if no instance has the context any more
                raise PolicyError(f"{policy.origin}: {mixed_groups(policy.instances[places[0]], policy.group_by_name)}")
        of_context.append(False in kinds)
    flags = np.zeros(len(numbering.instances), dtype=np.uint8)
    if of_context:
        flags[instance_groups.numbers] = np.array(of_context)[instance_groups.context_number]
    return flags
