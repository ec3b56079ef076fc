"""Find rules that never win, rules that change nothing, and rules that make narrower ones useless.

Rules are compared by the packets they match, not by how they are written. For a set of groups that instances have (a
*context*), a direction and an ethertype, rules are boxes in a plane of address classes and service classes
(``rules.plane``). The rules are painted from the last in precedence to the first. Each cell then holds the rule that
wins there and, beneath it, the rule that would win without it:

    a rule that wins in no cell is *shadowed*
    a rule beneath which every cell has the same action is *redundant*

Only packets that can occur count (``_Seen``): an instance gets no packets from itself, and some ICMP types are judged
without rules.

A rule is reported if the claim holds in every context that has the rule. A claim that holds for the rule's group alone
need not be checked for every set of groups: more rules can only hide the rule further, and if all other rules allow,
the rule beneath an allow rule still allows. The first context already refutes most claims.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

from sgfast.base.names import LISTED, listed
from sgfast.policy.model import ICMP, ICMPV6, AddressGroupPeer, Direction, GroupPeer, Rule
from sgfast.policy.ranges import union
from sgfast.policy.rule_text import rule_name, rule_text
from sgfast.questions.checking.codes import REDUNDANT, SHADOWED, WIDER, Finding
from sgfast.questions.checking.policy_index import NOT_ONE, Budget, Context, PolicyIndex
from sgfast.rules.addresses import peer_key_of, span_of
from sgfast.rules.plane import Boxes, alike, joined
from sgfast.rules.services import KEYS, Mask, ServiceClasses, key_ranges, service_key, unasked_types

#: Steps for all comparisons together, roughly a nanosecond each, so that no policy keeps a check busy for long (SPEC
#: 11).
MAX_STEPS = 4_000_000_000
#: Steps for finding the rules that decide in place of shadowed and redundant ones.
MAX_STEPS_TO_EXPLAIN = 1_000_000_000
#: The most cells of one plane.
MAX_CELLS = 1 << 22
#: The most pairs of rules that are compared to leave out rules that cannot affect each other.
MAX_PAIRS = 1 << 22
#: The most bytes of masks, before indistinguishable classes are joined.
MAX_MASK_BYTES = 1 << 28
#: Steps for each painting, each rule, each port range and each painted cell.
PAINTING_STEPS, RULE_STEPS, RANGE_STEPS, CELL_STEPS = 500_000, 40_000, 1_000, 4
#: Steps to check whether a rule of a context is still undecided.
LOOK_STEPS = 500

#: The most deciding rules that are kept for the message about one rule.
_KEPT_DECIDERS = 20

RuleKey = tuple[int, int]
"""A rule: the position of its group, and its position in the group."""
FilterSide = tuple[Direction, int]
"""Direction and address family."""


@dataclass(slots=True)
class _Standing:
    """Claims about a rule that have not been refuted so far."""

    shadowed: bool = True
    redundant: bool = True
    #: Whether some context could not be examined.
    unknown: bool = False
    #: Whether the rule matches an address in some context.
    matches: bool = False
    deciders: dict[RuleKey, None] = field(default_factory=dict)
    #: Whether the deciding rules are known for every context.
    explained: bool = True
    #: Rules of the same action that match all its packets, in every context examined so far. None: no context yet.
    wider: set[RuleKey] | None = None

    @property
    def is_open(self) -> bool:
        return self.shadowed or self.redundant

    @property
    def is_useless(self) -> bool:
        return self.is_open and not self.unknown

    def note(self, painting: Painting, decided: _Seen, n: int, budget: Budget, wins: bool = True) -> None:
        """Record what one context shows about the rule, the ``n``-th of its painting.

        ``wins``: whether winning in this context counts. ``budget``: for finding which other rules decide.
        """
        matches = painting.matches(n, decided)
        self.matches |= matches
        self.shadowed &= not (wins and decided.wins[n])
        self.redundant &= not decided.needed[n]
        if self.is_open and matches:
            # Deciders are only for the message: if the budget is spent, the finding stands without them.
            if not budget.take(painting.steps_to_explain(n)):
                self.explained = False
                return
            if len(self.deciders) < _KEPT_DECIDERS:
                self.deciders.update(dict.fromkeys(painting.deciders(n, decided)[:_KEPT_DECIDERS]))
            wider = painting.wider(n)
            self.wider = wider if self.wider is None else self.wider & wider


@dataclass(frozen=True, slots=True)
class _Seen:
    """A painting's results for the packets that one instance can get or send."""

    #: The classes with addresses that are not the instance's own.
    far_classes: Mask
    #: By rule: whether it wins somewhere, and whether another action would follow without it.
    wins: Mask
    needed: Mask


class Painting:
    """The winning rule of each cell, among the rules of some groups in one direction and family."""

    def __init__(
        self, boxes: Boxes[RuleKey], peers: Mask, services: Mask, own: Sequence[bool], others: Mapping[int, Mask],
        evaluated: Mask, peer_class: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """``peers``, ``services``: masks by row. ``own``: the rules that name their own group. ``others``: by an
        instance's position, the classes with addresses that are not its own. ``evaluated``: the services that rules are
        evaluated for. ``peer_class``: for each class of the VPC's view, the class of this painting that contains it.
        """
        self.ranked = boxes.ranked
        self.peer_class = peer_class
        self._peers, self._services = peers, services
        self._peer_row, self._service_row = boxes.peer_row, boxes.service_row
        shape = peers.shape[1], services.shape[1]
        self._winner = np.full(shape, len(self.ranked), dtype=np.int32)
        self._beneath = self._winner.copy()
        for n, block in boxes.blocks(peers, services):
            self._beneath[block] = self._winner[block]
            self._winner[block] = n
        self._allows = boxes.allows
        self._is_own_group = np.array([*own, False], dtype=bool)
        self._far_classes = others
        self._evaluated = evaluated

    def seen(self, instance: int | None) -> _Seen:
        """Return results for the instance at a position; None: for several together, or for one without an address."""
        far_classes = np.ones(len(self._winner), dtype=bool) if instance is None else self._far_classes[instance]
        wins, needed = np.zeros((2, len(self.ranked) + 1), dtype=bool)
        can_come = self._evaluated & (far_classes[:, None] | self._is_own_group[self._winner])
        wins[self._winner[can_come]] = True
        needed[self._winner[can_come & (self._allows[self._winner] != self._allows[self._beneath])]] = True
        return _Seen(far_classes, wins, needed)

    def allowed(self) -> Mask:
        """Return the classes of addresses with which the rules allow some service."""
        allowed_blocks: Mask = (self._evaluated & self._allows[self._winner]).any(axis=1)
        return allowed_blocks

    def matches(self, n: int, seen: _Seen) -> bool:
        return bool((self._peers[self._peer_row[n]] & (seen.far_classes | self._is_own_group[n])).any())

    def steps_to_explain(self, n: int) -> int:
        cells = int(self._peers[self._peer_row[n]].sum()) * int(self._services[self._service_row[n]].sum())
        return RULE_STEPS + 20 * cells + self._peers.size + self._services.size + 200 * len(self.ranked)

    def deciders(self, n: int, decided: _Seen) -> list[RuleKey]:
        """Return the rules that win where rule ``n`` matches packets that can occur, or would win there without it."""
        peers = self._peers[self._peer_row[n]] & (decided.far_classes | self._is_own_group[n])
        block = np.ix_(peers.nonzero()[0], (self._services[self._service_row[n]] & self._evaluated).nonzero()[0])
        winner = self._winner[block]
        deciding_places = np.unique(np.where(winner == n, self._beneath[block], winner))
        return [self.ranked[place][0] for place in deciding_places.tolist() if place != len(self.ranked)]

    def wider(self, n: int) -> set[RuleKey]:
        """Return the other rules of the same action that match everything that rule ``n`` matches."""
        rule = self.ranked[n][1]
        peers = ~(self._peers[self._peer_row[n]] & ~self._peers).any(axis=1)
        services = ~(self._services[self._service_row[n]] & ~self._services).any(axis=1)
        return {
            key
            for m, (key, other_rule) in enumerate(self.ranked)
            if m != n
            and other_rule.action == rule.action
            and peers[self._peer_row[m]]
            and services[self._service_row[m]]
        }


class _Extents:
    """Rough bounds of the rules of one direction and family. Rules whose bounds do not overlap cannot affect each
    other.
    """

    def __init__(
        self, index: PolicyIndex, family: int, keys: Sequence[RuleKey], rule_of: Callable[[RuleKey], Rule]
    ) -> None:
        named = index.named(family)
        self._row = {key: n for n, key in enumerate(keys)}
        # Protocol (-1: all), first and last port or ICMP key, and the range of named networks within the peer.
        self._of = np.zeros((len(keys), 5), dtype=np.int64)
        for n, key in enumerate(keys):
            rule = rule_of(key)
            ranges = key_ranges(rule) or ((0, KEYS - 1),)
            first, end = 0, len(named.spans)
            if isinstance(rule.peer, IPv4Network | IPv6Network):
                first = named.number[span_of(rule.peer)]
                end = named.end[first]
            protocol = -1 if rule.protocol is None else rule.protocol
            self._of[n] = protocol, ranges[0][0], ranges[-1][1], first, max(end, first + 1)

    def meeting(self, keys: Sequence[RuleKey], focus: Collection[RuleKey]) -> list[RuleKey]:
        """Return the ``keys`` that may overlap with one of ``focus``, and ``focus`` themselves."""
        protocol, low, high, first, end = self._of[[self._row[key] for key in keys]].T[:, :, None]
        protocol_, low_, high_, first_, end_ = self._of[[self._row[key] for key in focus]].T[:, None, :]
        meets = (
            ((protocol == protocol_) | (protocol < 0) | (protocol_ < 0))
            & (low <= high_) & (low_ <= high) & (first < end_) & (first_ < end)
        ).any(axis=1)  # fmt: skip
        return [key for key, meeting in zip(keys, meets.tolist(), strict=True) if meeting]


class Coverage:
    """Examine all relevant contexts; ``findings`` returns the result."""

    def __init__(self, index: PolicyIndex) -> None:
        self.index = index
        self._groups = index.policy.security_groups
        self.standing: dict[RuleKey, _Standing] = {
            (g, r): _Standing() for g, group in enumerate(self._groups) for r in range(len(group.rules))
        }
        # The keys of each group's rules, by direction and family.
        self._rules: dict[FilterSide, dict[int, list[RuleKey]]] = defaultdict(dict)
        for g, r in self.standing:
            rule = self._groups[g].rules[r]
            self._rules[rule.direction, rule.ethertype].setdefault(g, []).append((g, r))
        self._extents = {
            side: _Extents(index, side[1], [key for keys in of_group.values() for key in keys], self.rule)
            for side, of_group in self._rules.items()
        }
        #: Number of contexts that were skipped because examining them takes too much work.
        self.skipped = 0
        self.budget = Budget(MAX_STEPS)
        self.explanation_budget = Budget(MAX_STEPS_TO_EXPLAIN)
        for side in sorted(self._rules):
            _SideExaminer(self, side, self._rules[side]).examine()

    def rule(self, key: RuleKey) -> Rule:
        return self._groups[key[0]].rules[key[1]]

    def give_up(self, keys: Collection[RuleKey]) -> None:
        self.skipped += 1
        for key in keys:
            self.standing[key].unknown = True

    def allowed_ends(self, context: Context, direction: Direction, family: int) -> Set[int]:
        """Return the positions of instances with which some rule allows packets. NOT_ONE is among them if a rule allows
        other addresses, or if the answer would take too much work.
        """
        of_group = self._rules.get((direction, family), {})
        relevant = [g for g in context.groups if g in of_group]
        rules = [self.rule(key) for g in relevant for key in of_group[g]]
        view = self.index.view(context.vpc, family)
        if all(rule.action == "allow" for rule in rules):
            ends: set[int] = set()
            for rule in rules:
                if rule.icmp_type in self._unasked_types(direction, family, relevant):
                    continue
                ends |= {NOT_ONE} if rule.peer is None or view is None else view.ends(rule)
                if NOT_ONE in ends:
                    break
            return ends
        painting = self.paint(relevant, context.vpc, direction, family)
        if painting is None or view is None:
            self.skipped += 1
            return {NOT_ONE}
        return view.instances(painting.allowed()[painting.peer_class])

    def _unasked_types(self, direction: Direction, family: int, groups: Sequence[int]) -> Set[int]:
        infrastructure = self.index.policy.settings.infrastructure
        stateful = self._groups[groups[0]].stateful
        return unasked_types(family, direction, infrastructure, stateful=stateful)

    def _unasked(self, direction: Direction, family: int, groups: Sequence[int]) -> list[Rule]:
        """Return a rule that matches all packets for which no rule is evaluated, in a list; empty: there are none."""
        types = self._unasked_types(direction, family, groups)
        # ICMP types and codes are encoded like ports.
        keys = union((256 * icmp_type, 256 * icmp_type + 255) for icmp_type in types)
        never = Rule("", direction, 4, ICMP, keys) if family == 4 else Rule("", direction, 6, ICMPV6, keys)
        return [never] if keys else []

    def paint(
        self, groups: Sequence[int], vpc: str, direction: Direction, family: int,
        focus: Collection[RuleKey] | None = None, instances: Collection[int] = (),
    ) -> Painting | None:  # fmt: skip
        """Paint the rules of some groups; None if that is too much work. Only results about the rules ``focus`` must be
        right. ``instances``: positions of the instances for which ``seen`` will be called.
        """
        of_group = self._rules[direction, family]
        keys = [key for g in groups for key in of_group.get(g, ())]
        view, budget = self.index.view(vpc, family), self.budget
        if view is None:
            return None
        if focus is not None and len(focus) < len(keys) and len(focus) * len(keys) <= MAX_PAIRS:
            keys = self._extents[direction, family].meeting(keys, focus)
        if not budget.take(PAINTING_STEPS + RULE_STEPS * len(keys)):
            return None
        boxes = Boxes((key, self.rule(key)) for key in keys)
        peers, services = boxes.peers, boxes.services
        prefixes = sum(
            len(self.index.policy.address_group_by_name[rule.peer.name].addresses)
            for rule in peers
            if isinstance(rule.peer, AddressGroupPeer)
        )
        ranges = sum(len(key_ranges(rule) or ()) for rule in services)
        masks = len(peers) * view.count + len(services) * (2 * ranges + 2)
        if masks > MAX_MASK_BYTES or not budget.take(4 * (masks + prefixes * view.count) + RANGE_STEPS * ranges):
            return None
        names_types = any(rule.icmp_type is not None for rule in services)
        never = self._unasked(direction, family, groups) if names_types else []
        of_service = ServiceClasses([*services, *never])
        all_peers = [*map(view.matching, peers), *map(view.others, instances)]
        keep, kind = alike(all_peers)
        peer_masks = np.array([mask[keep] for mask in all_peers], dtype=bool)
        service_masks = joined([*map(of_service.matching, (*services, *never))])
        if peer_masks.shape[1] * service_masks.shape[1] > MAX_CELLS:
            return None
        painted = int(
            (peer_masks.sum(axis=1)[boxes.peer_row] * service_masks.sum(axis=1)[boxes.service_row]).sum()
        )
        if not budget.take(CELL_STEPS * painted):
            return None
        is_own_group = [rule.peer == GroupPeer(self._groups[g].name) for (g, _), rule in boxes.ranked]
        blocks_of_instance = {place: peer_masks[len(peers) + n] for n, place in enumerate(instances)}
        unevaluated: Mask = np.logical_or.reduce(service_masks[len(services) :])
        return Painting(
            boxes, peer_masks[: len(peers)], service_masks[: len(services)], is_own_group, blocks_of_instance,
            ~unevaluated, kind,
        )  # fmt: skip

    # The result

    def findings(self) -> list[Finding]:
        findings: list[Finding] = []
        narrower: dict[RuleKey, list[RuleKey]] = defaultdict(list)
        for key, standing in self.standing.items():
            if not (standing.is_useless and standing.matches and self._speaks_for_twin(key)):
                continue
            if self._is_usual_egress(key):
                twice = {other_key[0] for other_key in standing.deciders if self._is_usual_egress(other_key)}
                if twice and key[0] not in twice:
                    continue
            findings.append(self._useless(key, standing))
            for wide in standing.wider or () if standing.explained else ():
                if wide in standing.deciders and self._is_wider(wide, key):
                    narrower[wide].append(key)
        for wide in sorted(narrower):
            group, rule = self._groups[wide[0]].name, self.rule(wide)
            narrower_rules = listed([self._called(key) for key in narrower[wide]])
            message = f"{rule_text(rule, self.index.policy)} makes the narrower {narrower_rules} useless"
            findings.append(Finding(WIDER, message, group=group, rule=rule.id))
        return findings

    def may_need(self, rule: str | None, others: Container[str | None]) -> bool:
        """Return whether a useless rule, by its id, may be useless only because there are some of ``others``."""
        standing, policy = self.standing[self._key_of[str(rule)]], self.index.policy
        if not standing.explained or len(standing.deciders) >= _KEPT_DECIDERS:
            return True
        return any(policy._first_twin(self.rule(key)).id in others for key in standing.deciders)

    def _is_usual_egress(self, key: RuleKey) -> bool:
        """Return whether a rule lets out everything, as clouds write it into each new group."""
        rule = self.rule(key)
        return (rule.direction, rule.action, rule.protocol) == ("outbound", "allow", None) and (
            rule.peer is None or (isinstance(rule.peer, IPv4Network | IPv6Network) and rule.peer.prefixlen == 0)
        )

    @cached_property
    def _key_of(self) -> dict[str, RuleKey]:
        return {self.rule(key).id: key for key in self.standing}

    def _speaks_for_twin(self, key: RuleKey) -> bool:
        """Return whether a useless rule is reported: it has no twin (SPEC 2.16), or its twin is useless as well, and is
        not the one that is reported.
        """
        twin = self.index.policy.twins.get(self.rule(key).id)
        if twin is None:
            return True
        standing, group = self.standing[self._key_of[twin.id]], self._groups[key[0]].name
        members, versions = self.index.members[group], self.index.members_by_family
        meets_nobody = bool(members) and not versions[group, twin.ethertype]
        is_reported = twin.ethertype == 4 and standing.is_useless and standing.matches
        return (standing.is_useless or meets_nobody) and not is_reported

    def _called(self, key: RuleKey) -> str:
        policy, rule = self.index.policy, self.rule(key)
        name = rule_name(policy, rule, self._groups[key[0]].name)
        # Any other name than the id has the rule's words in it.
        return f"{name} ({rule_text(rule, policy)})" if name == rule.id else name

    def _useless(self, key: RuleKey, standing: _Standing) -> Finding:
        group, rule = self._groups[key[0]].name, self.rule(key)
        text = rule_text(rule, self.index.policy)
        deciders = list(standing.deciders)
        names = listed([self._called(decider) for decider in deciders])
        verb = "decides" if len(deciders) == 1 else "decide"
        if not standing.explained and len(deciders) < LISTED:
            names, verb = "other rules", "decide"
        if standing.shadowed:
            message = f"{text} never wins: {names} {verb} everything it matches"
            if standing.explained and all(self.rule(rule_key).action == "allow" for rule_key in (key, *deciders)):
                # Where no rule denies, as in AWS, rules do not compete.
                verb = "allows" if verb == "decides" else "allow"
                message = f"{text} opens nothing more: {names} {verb} everything it matches"
            if standing.explained and not deciders:
                message = f"{text} never wins: no rule is asked about these packets"
            return Finding(SHADOWED, message, group=group, rule=rule.id)
        if deciders or not standing.explained:
            message = f"{text} changes no verdict: without it {names} {verb} the same"
        else:
            message = f"{text} changes no verdict: nothing else would allow what it denies"
        return Finding(REDUNDANT, message, group=group, rule=rule.id)

    def _is_wider(self, wide: RuleKey, narrow: RuleKey) -> bool:
        """Return whether the rule ``wide`` has the same purpose as ``narrow`` and is just wider, either in its peer or
        in its service.
        """
        wide_rule, narrow_rule = self.rule(wide), self.rule(narrow)
        if wide_rule.action == "deny":
            return False
        has_same_peer = peer_key_of(wide_rule) == peer_key_of(narrow_rule)
        has_same_service = service_key(wide_rule) == service_key(narrow_rule)
        return has_same_peer != has_same_service


class _SideExaminer:
    """Examine the contexts of one direction and family, only for rules that are still undecided."""

    def __init__(self, coverage: Coverage, side: FilterSide, of_group: dict[int, list[RuleKey]]) -> None:
        self._coverage = coverage
        self._direction, self._family = side
        self._of_group = of_group
        self._budget = coverage.explanation_budget
        #: Rules shadowed within their group, in a VPC: they need not be examined in other contexts there.
        self._hidden: set[tuple[RuleKey, str]] = set()
        #: Rules redundant in all contexts of a VPC.
        self._spare: set[tuple[RuleKey, str]] = set()

    def examine(self) -> None:
        denying = {
            g for g, keys in self._of_group.items() if any(self._coverage.rule(key).action == "deny" for key in keys)
        }
        # By groups and VPC: the instances that have just these groups, of the groups with rules on this side.
        having: dict[tuple[tuple[int, ...], str], list[int]] = {}
        beside_denies: set[tuple[int, str]] = set()
        single: dict[tuple[int, str], None] = {}
        for context in self._coverage.index.contexts:
            relevant = tuple([g for g in context.groups if g in self._of_group])
            if relevant:
                having.setdefault((relevant, context.vpc), []).extend(context.instances)
            denies = denying.intersection(relevant)
            for g in relevant:
                single[g, context.vpc] = None
                if denies - {g}:
                    beside_denies.add((g, context.vpc))
        for g, vpc in single:
            self._examine_group(g, vpc, having.get(((g,), vpc)), (g, vpc) not in beside_denies)
        for (groups, vpc), instances in having.items():
            if len(groups) > 1:
                self._examine_set(groups, vpc, instances[0] if len(instances) == 1 else None)

    def _paint(
        self, groups: Sequence[int], vpc: str, keys: Collection[RuleKey], *instances: int | None
    ) -> Painting | None:
        places = {place for place in instances if place is not None}
        painting = self._coverage.paint(groups, vpc, self._direction, self._family, keys, places)
        if painting is None:
            self._coverage.give_up(keys)
        return painting

    def _examine_group(
        self, place: int, vpc: str, lone_instances: Sequence[int] | None, only_allows_beside: bool
    ) -> None:
        """Examine the group number ``place``. ``lone_instances``: those with no other group; None: there are none."""
        member = self._coverage.index.only_member.get((place, vpc))
        only = lone_instances[0] if lone_instances is not None and len(lone_instances) == 1 else None
        painting = self._paint([place], vpc, self._of_group[place], member, only)
        if painting is None:
            return
        by_all = painting.seen(member)
        by_only = by_all if only == member else painting.seen(only)
        for n, (key, rule) in enumerate(painting.ranked):
            standing = self._coverage.standing[key]
            if not by_all.wins[n]:
                self._hidden.add((key, vpc))
                standing.note(painting, by_all, n, self._budget)
            elif not by_all.needed[n] and rule.action == "allow" and only_allows_beside:
                self._spare.add((key, vpc))
                standing.note(painting, by_only, n, self._budget, wins=lone_instances is not None)
            elif lone_instances is not None:
                standing.note(painting, by_only, n, self._budget)

    def _examine_set(self, groups: Sequence[int], vpc: str, only: int | None) -> None:
        """Examine a set of groups. ``only``: the only instance that has them, if there is just one."""
        keys = sum(len(self._of_group[g]) for g in groups)
        if not self._coverage.budget.take(LOOK_STEPS * keys):
            return self._coverage.give_up([key for g in groups for key in self._of_group[g] if self._is_open(key, vpc)])
        open_keys = {key for g in groups for key in self._of_group[g] if self._is_open(key, vpc)}
        painting = self._paint(groups, vpc, open_keys, only) if open_keys else None
        if painting is not None:
            decided = painting.seen(only)
            for n, (key, _) in enumerate(painting.ranked):
                if key in open_keys:
                    self._coverage.standing[key].note(painting, decided, n, self._budget)

    def _is_open(self, key: RuleKey, vpc: str) -> bool:
        standing = self._coverage.standing[key]
        if standing.unknown or (key, vpc) in self._hidden:
            return False
        return standing.shadowed or (standing.redundant and (key, vpc) not in self._spare)
