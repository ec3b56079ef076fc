"""Finds rules that never win, rules that change nothing, and rules that make narrower ones useless.

What counts is what rules match, not how they are written. For a set of groups that instances have (a *context*), a
direction and an ethertype, rules are boxes in a plane of address classes and service classes (``space``). The rules are
painted from the last in precedence to the first. Each cell then holds the rule that wins there and, beneath it, the
rule that would win without it:

    a rule that wins in no cell is *shadowed*
    a rule beneath which every cell has the same action is *redundant*

A rule is reported if this holds in every context it is in. What holds for its group alone need not be checked for every
set of groups: more rules can only hide it further, and if all other rules allow, what is beneath an allow rule still
allows. The first context already refutes most rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

from sgfast.checking.codes import LISTED, REDUNDANT, SHADOWED, WIDER, Finding, listed
from sgfast.checking.policy_index import Budget, Context, PolicyIndex
from sgfast.compiler.ports import KEYS, key_ranges
from sgfast.policy.model import AddressGroupPeer, Direction, Rule
from sgfast.policy.rule_text import rule_text
from sgfast.space import Services, joined, peer_key_of, service_key

#: Steps for all comparisons together, roughly a nanosecond each, so that no policy keeps a check busy for long (SPEC
#: 11).
MAX_STEPS = 4_000_000_000
#: Steps for finding which rules decide instead.
MAX_STEPS_TO_EXPLAIN = 1_000_000_000
#: The most cells of one plane.
MAX_CELLS = 1 << 22
#: The most pairs of rules compared to find those that matter.
MAX_PAIRS = 1 << 22
#: The most bytes of masks, before indistinguishable classes are joined.
MAX_MASK_BYTES = 1 << 28
#: Steps for each painting, each rule, each port range and each painted cell.
PAINTING_STEPS, RULE_STEPS, RANGE_STEPS, CELL_STEPS = 500_000, 40_000, 1_000, 4
#: Steps to check whether a rule of a context is still undecided.
LOOK_STEPS = 500

#: How many rules that decide instead are kept for messages.
_KEPT_DECIDERS = 20

Key = tuple[int, int]
"""A rule: the position of its group, and its position in the group."""
Side = tuple[Direction, int]
"""Direction and address family."""


@dataclass(slots=True)
class _Standing:
    """What has not been refuted about a rule so far."""

    shadowed: bool = True
    redundant: bool = True
    #: Some context could not be examined.
    unknown: bool = False
    #: In some context there is an address it matches.
    matches: bool = False
    deciders: dict[Key, None] = field(default_factory=dict)
    #: The deciding rules are known for every context.
    explained: bool = True
    #: Rules of the same action that match all it matches in every context examined so far. None: no context yet.
    wider: set[Key] | None = None

    @property
    def is_open(self) -> bool:
        return self.shadowed or self.redundant

    def note(self, painting: Painting, n: int, budget: Budget, wins: bool = True) -> None:
        """Record what one context shows about the rule, the ``n``-th of its painting.

        ``wins``: whether winning there counts. ``budget``: for finding which other rules decide.
        """
        matches = painting.matches(n)
        self.matches |= matches
        self.shadowed &= not (wins and painting.wins[n])
        self.redundant &= not painting.needed[n]
        if self.is_open and matches:
            # Only for the message: if the budget is spent, the finding stands without it.
            if not budget.take(painting.steps_to_explain(n)):
                self.explained = False
                return
            if len(self.deciders) < _KEPT_DECIDERS:
                self.deciders.update(dict.fromkeys(painting.deciders(n)[:_KEPT_DECIDERS]))
            wider = painting.wider(n)
            self.wider = wider if self.wider is None else self.wider & wider


class Painting:
    """Which rule wins in which cell, among the rules of some groups in one direction and family."""

    def __init__(self, ranked: Sequence[tuple[Key, Rule]], peers: NDArray[np.bool_], services: NDArray[np.bool_],
                 peer_row: Sequence[int], service_row: Sequence[int]) -> None:  # fmt: skip
        """``ranked``: rules by precedence, winners first. ``peers``, ``services``: masks by ``peer_row``,
        ``service_row``.
        """
        self.ranked = ranked
        self._peers, self._services = peers, services
        self._peer_row, self._service_row = peer_row, service_row
        nobody = len(ranked)
        shape = peers.shape[1], services.shape[1]
        self._winner = np.full(shape, nobody, dtype=np.int32)
        self._beneath = np.full(shape, nobody, dtype=np.int32)
        for n in range(nobody - 1, -1, -1):
            block = self._block(n)
            self._beneath[block] = self._winner[block]
            self._winner[block] = n
        allows = np.array([rule.action == "allow" for _, rule in ranked] + [False], dtype=bool)
        self.wins = np.zeros(nobody + 1, dtype=bool)
        self.wins[self._winner.reshape(-1)] = True
        self.needed = np.zeros(nobody + 1, dtype=bool)
        self.needed[self._winner[allows[self._winner] != allows[self._beneath]]] = True

    def _block(self, n: int) -> tuple[NDArray[np.int64], ...]:
        return np.ix_(self._peers[self._peer_row[n]].nonzero()[0], self._services[self._service_row[n]].nonzero()[0])

    def matches(self, n: int) -> bool:
        return bool(self._peers[self._peer_row[n]].any())

    def steps_to_explain(self, n: int) -> int:
        cells = int(self._peers[self._peer_row[n]].sum()) * int(self._services[self._service_row[n]].sum())
        return RULE_STEPS + 20 * cells + self._peers.size + self._services.size + 200 * len(self.ranked)

    def deciders(self, n: int) -> list[Key]:
        """The rules that win where rule ``n`` matches, or would win there without it."""
        block = self._block(n)
        winner = self._winner[block]
        others = np.unique(np.where(winner == n, self._beneath[block], winner))
        return [self.ranked[other][0] for other in others.tolist() if other != len(self.ranked)]

    def wider(self, n: int) -> set[Key]:
        """Other rules of the same action that match everything that rule ``n`` matches."""
        rule = self.ranked[n][1]
        peers = ~(self._peers[self._peer_row[n]] & ~self._peers).any(axis=1)
        services = ~(self._services[self._service_row[n]] & ~self._services).any(axis=1)
        return {
            key
            for m, (key, other) in enumerate(self.ranked)
            if m != n and other.action == rule.action and peers[self._peer_row[m]] and services[self._service_row[m]]
        }


class _Extents:
    """Rough bounds of the rules of one direction and family. Rules whose bounds do not overlap cannot affect each
    other.
    """

    def __init__(self, index: PolicyIndex, family: int, keys: Sequence[Key], rule_of: Callable[[Key], Rule]) -> None:
        named = index.named(family)
        self._row = {key: n for n, key in enumerate(keys)}
        # Protocol (-1: all), first and last port or ICMP key, and the range of named networks within the peer.
        self._of = np.zeros((len(keys), 5), dtype=np.int64)
        for n, key in enumerate(keys):
            rule = rule_of(key)
            ranges = key_ranges(rule) or ((0, KEYS - 1),)
            first, end = 0, len(named.spans)
            if isinstance(rule.peer, IPv4Network | IPv6Network):
                first = named.number[int(rule.peer.network_address), -int(rule.peer.broadcast_address)]
                end = named.end[first]
            protocol = -1 if rule.protocol is None else rule.protocol
            self._of[n] = protocol, ranges[0][0], ranges[-1][1], first, max(end, first + 1)

    def meeting(self, keys: Sequence[Key], asked: Collection[Key]) -> list[Key]:
        """Those of ``keys`` that may overlap with one of ``asked``, including ``asked`` themselves."""
        protocol, low, high, first, end = self._of[[self._row[key] for key in keys]].T[:, :, None]
        protocol_, low_, high_, first_, end_ = self._of[[self._row[key] for key in asked]].T[:, None, :]
        meets = (
            ((protocol == protocol_) | (protocol < 0) | (protocol_ < 0))
            & (low <= high_) & (low_ <= high) & (first < end_) & (first_ < end)
        ).any(axis=1)  # fmt: skip
        return [key for key, meeting in zip(keys, meets.tolist(), strict=True) if meeting]


class Coverage:
    """Examines all relevant contexts; ``findings`` returns the result."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index
        self._groups = index.policy.security_groups
        self._standing: dict[Key, _Standing] = {
            (g, r): _Standing() for g, group in enumerate(self._groups) for r in range(len(group.rules))
        }
        # The keys of each group's rules, by direction and family.
        self._rules: dict[Side, dict[int, list[Key]]] = defaultdict(dict)
        for g, r in self._standing:
            rule = self._groups[g].rules[r]
            self._rules[rule.direction, rule.ethertype].setdefault(g, []).append((g, r))
        self._extents = {
            side: _Extents(index, side[1], [key for keys in of_group.values() for key in keys], self.rule)
            for side, of_group in self._rules.items()
        }
        #: How many contexts were skipped as too much work.
        self.skipped = 0
        self._budget = Budget(MAX_STEPS)
        self.explanation_budget = Budget(MAX_STEPS_TO_EXPLAIN)
        for side in sorted(self._rules):
            _SideExaminer(self, side, self._rules[side]).examine()

    def rule(self, key: Key) -> Rule:
        return self._groups[key[0]].rules[key[1]]

    def standing(self, key: Key) -> _Standing:
        return self._standing[key]

    @property
    def contexts(self) -> list[Context]:
        return self._index.contexts

    def take(self, steps: int) -> bool:
        return self._budget.take(steps)

    def give_up(self, keys: Collection[Key]) -> None:
        self.skipped += 1
        for key in keys:
            self._standing[key].unknown = True

    def allows_anything(self, context: Context, direction: Direction, family: int) -> bool | None:
        """Whether some allow rule wins somewhere; None if that was too much work."""
        of_group = self._rules.get((direction, family), {})
        relevant = [g for g in context.groups if g in of_group]
        rules = [self.rule(key) for g in relevant for key in of_group[g]]
        if all(rule.action == "allow" for rule in rules):
            unknown = False
            for rule in rules:
                nobody = self._index.is_nobody(rule, context.vpc)
                if nobody is False:
                    return True
                unknown = unknown or nobody is None
            return None if unknown else False
        painting = self.paint(relevant, context.vpc, direction, family)
        if painting is None:
            self.skipped += 1
            return None
        return any(painting.wins[n] and rule.action == "allow" for n, (_, rule) in enumerate(painting.ranked))

    def paint(
        self, groups: Sequence[int], vpc: str, direction: Direction, family: int, asked: Collection[Key] | None = None
    ) -> Painting | None:
        """Paint the rules of some groups; None if that is too much work. Only results about the rules ``asked`` must be
        right.
        """
        of_group = self._rules[direction, family]
        keys = [key for g in groups for key in of_group.get(g, ())]
        view, budget = self._index.view(vpc, family), self._budget
        if view is None:
            return None
        if asked is not None and len(asked) < len(keys) and len(asked) * len(keys) <= MAX_PAIRS:
            keys = self._extents[direction, family].meeting(keys, asked)
        if not budget.take(PAINTING_STEPS + RULE_STEPS * len(keys)):
            return None
        ranked = [(key, self.rule(key)) for key in keys]
        # Precedence by SPEC 4.10; among equals, the first in the document wins.
        ranked.sort(key=lambda each: (each[1].priority, each[1].action != "deny"))
        peers = {peer_key_of(rule): rule for _, rule in ranked}
        services = {service_key(rule): rule for _, rule in ranked}
        prefixes = sum(
            len(self._index.policy.address_group_by_name[rule.peer.name].addresses)
            for rule in peers.values()
            if isinstance(rule.peer, AddressGroupPeer)
        )
        ranges = sum(len(key_ranges(rule) or ()) for rule in services.values())
        masks = len(peers) * view.count + len(services) * (2 * ranges + 2)
        if masks > MAX_MASK_BYTES or not budget.take(4 * (masks + prefixes * view.count) + RANGE_STEPS * ranges):
            return None
        of_service = Services(services.values())
        peer_masks = joined([view.matching(rule) for rule in peers.values()])
        service_masks = joined([of_service.matching(rule) for rule in services.values()])
        if peer_masks.shape[1] * service_masks.shape[1] > MAX_CELLS:
            return None
        peer_row = {key: n for n, key in enumerate(peers)}
        service_row = {key: n for n, key in enumerate(services)}
        rows = (
            [peer_row[peer_key_of(rule)] for _, rule in ranked], [service_row[service_key(rule)] for _, rule in ranked]
        )  # fmt: skip
        painted = int((peer_masks.sum(axis=1)[rows[0]] * service_masks.sum(axis=1)[rows[1]]).sum())
        if not budget.take(CELL_STEPS * painted):
            return None
        return Painting(ranked, peer_masks, service_masks, *rows)

    # The result

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        narrower: dict[Key, list[Key]] = defaultdict(list)
        for key, standing in self._standing.items():
            if standing.unknown or not standing.is_open or not standing.matches:
                continue
            found.append(self._useless(key, standing))
            for wide in standing.wider or () if standing.explained else ():
                if wide in standing.deciders and self._is_wider(wide, key):
                    narrower[wide].append(key)
        for wide in sorted(narrower):
            group, rule = self._groups[wide[0]].name, self.rule(wide)
            what = listed([f"{self.rule(key).id} ({rule_text(self.rule(key))})" for key in narrower[wide]])
            message = f"{rule_text(rule)} makes the narrower {what} useless"
            found.append(Finding(WIDER, message, group=group, rule=rule.id))
        return found

    def _useless(self, key: Key, standing: _Standing) -> Finding:
        group, rule = self._groups[key[0]].name, self.rule(key)
        deciders = list(standing.deciders)
        names = listed([f"{self.rule(decider).id} ({rule_text(self.rule(decider))})" for decider in deciders])
        verb = "decides" if len(deciders) == 1 else "decide"
        if not standing.explained and len(deciders) < LISTED:
            names, verb = "other rules", "decide"
        if standing.shadowed:
            message = f"{rule_text(rule)} never wins: {names} {verb} everything it matches"
            return Finding(SHADOWED, message, group=group, rule=rule.id)
        if deciders or not standing.explained:
            message = f"{rule_text(rule)} changes no verdict: without it {names} {verb} the same"
        else:
            message = f"{rule_text(rule)} changes no verdict: nothing else would allow what it denies"
        return Finding(REDUNDANT, message, group=group, rule=rule.id)

    def _is_wider(self, wide: Key, narrow: Key) -> bool:
        """Whether the first rule has the same purpose as the second and is just wider, either in its peer or in its
        service.
        """
        one, other = self.rule(wide), self.rule(narrow)
        if one.action == "deny":
            return False
        same_peer, same_service = peer_key_of(one) == peer_key_of(other), service_key(one) == service_key(other)
        return same_peer != same_service


class _SideExaminer:
    """Examines the contexts of one direction and family, only for rules that are still undecided."""

    def __init__(self, coverage: Coverage, side: Side, of_group: dict[int, list[Key]]) -> None:
        self._coverage = coverage
        self._direction, self._family = side
        self._of_group = of_group
        self._budget = coverage.explanation_budget
        #: Rules shadowed within their group, in a VPC: no other context there needs to be examined for them.
        self._hidden: set[tuple[Key, str]] = set()
        #: Rules redundant in all contexts of a VPC.
        self._spare: set[tuple[Key, str]] = set()

    def examine(self) -> None:
        denying = {
            g for g, keys in self._of_group.items() if any(self._coverage.rule(key).action == "deny" for key in keys)
        }
        # Whether some instance has the group alone, as far as this side goes, by group and VPC.
        alone: dict[tuple[int, str], bool] = {}
        beside_denies: set[tuple[int, str]] = set()
        several: list[tuple[list[int], str]] = []
        asked: set[tuple[tuple[int, ...], str]] = set()
        for context in self._coverage.contexts:
            relevant = [g for g in context.groups if g in self._of_group]
            if len(relevant) > 1 and (tuple(relevant), context.vpc) not in asked:
                asked.add((tuple(relevant), context.vpc))
                several.append((relevant, context.vpc))
            denies = denying.intersection(relevant)
            for g in relevant:
                alone[g, context.vpc] = alone.get((g, context.vpc), False) or len(relevant) == 1
                if denies - {g}:
                    beside_denies.add((g, context.vpc))
        for (g, vpc), is_real in alone.items():
            self._examine_group(g, vpc, is_real, (g, vpc) not in beside_denies)
        for relevant, vpc in several:
            self._examine_set(relevant, vpc)

    def _paint(self, groups: Sequence[int], vpc: str, keys: Collection[Key]) -> Painting | None:
        painting = self._coverage.paint(groups, vpc, self._direction, self._family, keys)
        if painting is None:
            self._coverage.give_up(keys)
        return painting

    def _examine_group(self, g: int, vpc: str, is_real: bool, only_allows_beside: bool) -> None:
        painting = self._paint([g], vpc, self._of_group[g])
        if painting is None:
            return
        for n, (key, rule) in enumerate(painting.ranked):
            standing = self._coverage.standing(key)
            if not painting.wins[n]:
                self._hidden.add((key, vpc))
                standing.note(painting, n, self._budget)
            elif not painting.needed[n] and rule.action == "allow" and only_allows_beside:
                self._spare.add((key, vpc))
                standing.note(painting, n, self._budget, wins=is_real)
            elif is_real:
                standing.note(painting, n, self._budget)

    def _examine_set(self, groups: Sequence[int], vpc: str) -> None:
        keys = sum(len(self._of_group[g]) for g in groups)
        if not self._coverage.take(LOOK_STEPS * keys):
            return self._coverage.give_up([key for g in groups for key in self._of_group[g] if self._is_open(key, vpc)])
        asked = {key for g in groups for key in self._of_group[g] if self._is_open(key, vpc)}
        painting = self._paint(groups, vpc, asked) if asked else None
        if painting is not None:
            for n, (key, _) in enumerate(painting.ranked):
                if key in asked:
                    self._coverage.standing(key).note(painting, n, self._budget)

    def _is_open(self, key: Key, vpc: str) -> bool:
        standing = self._coverage.standing(key)
        if standing.unknown or (key, vpc) in self._hidden:
            return False
        return standing.shadowed or (standing.redundant and (key, vpc) not in self._spare)
