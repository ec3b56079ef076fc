"""Services that a policy's rules allow from each node to each node (SPEC 12.1).

For one context and direction, nodes at the other end that the rules do not tell apart form a *kind*. For each kind,
the rules are painted onto a line of services, from the lowest precedence to the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import TooMuch
from sgfast.policy.model import Direction, GroupPeer, Rule
from sgfast.policy.ranges import Ranges, difference, intersection
from sgfast.rules.addresses import NOBODY, named_networks
from sgfast.rules.plane import Boxes, alike, lying_in
from sgfast.rules.reaching.nodes import FOREIGN, OUTSIDE, Ground, Nodes, Numbers
from sgfast.rules.services import KEYS, ServiceClasses

#: The maximum number of steps to compute the views of all VPCs together (``Views``): about ten seconds.
MAX_VIEWED = 3_000_000
#: The maximum bytes of masks, and the maximum number of cells of kinds by services, of one context and direction.
MAX_MASK_BYTES, MAX_CELLS = 1 << 28, 1 << 25
#: The maximum number of cells that rules paint, for one question: about ten seconds.
MAX_PAINTED = 10_000_000_000
#: The maximum number of sender-receiver pairs, for one question: a few seconds, and 1 GiB of tables.
MAX_PAIRS = 20_000_000

#: The maximum number of parts into which services are divided by who may open them, summed over all receivers and
#: senders: about ten seconds.
MAX_PARTS = 200_000
#: The maximum cost of searching for deciding rules, in nodes, for one question: about ten seconds. Rows beyond it have
#: no rules. Each search costs ``SEARCH`` nodes more than it visits.
MAX_SEARCHED, SEARCH = 500_000_000, 1000

EMPTY = 0
OTHER: dict[Direction, Direction] = {"inbound": "outbound", "outbound": "inbound"}

#: The maximum number of nodes for which Python is faster than numpy, and for which tables are cached for other VPCs.
_FEW = 16
#: The maximum number of cells in cached tables: 64 MiB.
_KEPT_CELLS = 1 << 24


class WorkLimits:
    """Limits on the work of one question. Each method refuses work before it is done (SPEC 11.1)."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._viewed = MAX_VIEWED
        self._pairs = MAX_PAIRS
        self._painted = MAX_PAINTED
        self._parts = MAX_PARTS
        self._searched = MAX_SEARCHED
        #: Whether the search for the deciding rules has ended early, because it took too many steps.
        self.is_searched_out = False

    def views(self, steps: int, vpcs: int) -> None:
        self._viewed -= steps
        if self._viewed < 0:
            raise self._refusal(f"its {vpcs:,} VPCs see too many addresses and sets of groups of each other")

    def pairs(self, senders: int, receivers: int) -> None:
        self._pairs -= senders * receivers
        if self._pairs < 0:
            raise self._refusal(f"{senders:,} kinds of senders and {receivers:,} kinds of receivers are too many pairs")

    def masks(self, masks: int, classes: int) -> None:
        if masks * classes > MAX_MASK_BYTES:
            raise self._refusal(f"{masks:,} different sources or services of one set of groups are too many")

    def cells(self, kinds: int, services: int) -> None:
        if kinds * services > MAX_CELLS:
            raise self._refusal(f"{kinds:,} kinds of peers with {services:,} kinds of services are too many")

    def paint(self, cells: int) -> None:
        self._painted -= cells
        if self._painted < 0:
            raise self._refusal("its rules overlap in too many ways")

    def parts(self, parts: int) -> None:
        self._parts -= parts
        if self._parts < 0:
            raise self._refusal("too many services are open to different senders")

    def search(self, nodes: int) -> bool:
        """Return whether deciding rules may be searched for among this many nodes, and count the search."""
        self._searched -= SEARCH + nodes
        self.is_searched_out |= self._searched < 0
        return not self.is_searched_out

    def _refusal(self, why: str) -> TooMuch:
        return TooMuch(
            f"{self._origin}: an answer about all packets would take too long: {why}; ask about less (sgfast reach "
            "--from, --to, --protocol)"
        )


class Sets:
    """Numbered sets of services; equal sets have one number. ``EMPTY`` is the empty set."""

    def __init__(self) -> None:
        self.ranges: list[Ranges] = [()]
        self._number: dict[Ranges, int] = {(): EMPTY}
        self._intersections: dict[tuple[int, int], int] = {}
        self._without: dict[tuple[int, int], int] = {}

    def number(self, ranges: Ranges) -> int:
        n = self._number.setdefault(ranges, len(self.ranges))
        if n == len(self.ranges):
            self.ranges.append(ranges)
        return n

    def both(self, one: int, other: int) -> int:
        """Return the intersection of two sets."""
        if one == other or EMPTY in (one, other):
            return min(one, other)
        pair = (one, other) if one < other else (other, one)
        if pair not in self._intersections:
            self._intersections[pair] = self.number(intersection(self.ranges[one], self.ranges[other]))
        return self._intersections[pair]

    def without(self, one: int, other: int) -> int:
        """Return the set of the services in ``one`` that are not in ``other``."""
        if one == other or EMPTY in (one, other):
            return EMPTY if one == other else one
        if (one, other) not in self._without:
            self._without[one, other] = self.number(difference(self.ranges[one], self.ranges[other]))
        return self._without[one, other]

    def each_both(self, one: Numbers, other: Numbers) -> Numbers:
        """Return the elementwise intersection of two arrays of sets."""
        return _sets_of_pairs(self.both, one, other)

    def each_without(self, one: Numbers, other: Numbers) -> Numbers:
        """Return the elementwise difference of two arrays of sets: services in ``one`` that are not in ``other``."""
        return _sets_of_pairs(self.without, one, other)


def _sets_of_pairs(of_pair: Callable[[int, int], int], left_sets: Numbers, right_sets: Numbers) -> Numbers:
    if len(left_sets) <= _FEW:  # numpy would take longer
        return np.array(
            [of_pair(*pair) for pair in zip(left_sets.tolist(), right_sets.tolist(), strict=True)], dtype=np.int64
        )
    pairs, place = np.unique(left_sets.astype(np.int64) << 32 | right_sets, return_inverse=True)
    set_of_pair = [of_pair(pair >> 32, pair & 0xFFFFFFFF) for pair in pairs.tolist()]
    sets: Numbers = np.array(set_of_pair, dtype=np.int64)[place.reshape(-1)]
    return sets


@dataclass(frozen=True, slots=True)
class RuleTable:
    """Decisions of one context's rules in one direction."""

    #: The kind of each node at the other end.
    kind: Numbers
    #: The set of allowed services of each node at the other end.
    allowed: Numbers
    #: The rules in order of precedence, each with the position of its group.
    rules: Sequence[tuple[int, Rule]]
    #: The position in ``rules`` of the winning rule, or -1, for each kind and each stretch of services.
    winner: NDArray[np.int32]
    #: The first service of each stretch.
    starts: Numbers

    def winners(self, nodes: NDArray[np.bool_], services: Ranges) -> set[int]:
        """Return the positions of the rules that win for at least one of the nodes and services."""
        rows = self.winner[np.unique(self.kind[nodes])]
        winner_rows: set[int] = set()
        for first, last in services:
            start = int(np.searchsorted(self.starts, first, "right")) - 1
            end = int(np.searchsorted(self.starts, last, "right"))
            winner_rows.update(np.unique(rows[:, start:end]).tolist())
        return winner_rows - {-1}


class KeptTables:
    """Cache of one policy's and family's tables, shared by VPCs that see the same nodes, as peers of one VPC often
    do."""

    def __init__(self) -> None:
        self._tables: dict[tuple[object, ...], RuleTable] = {}
        self._cells = _KEPT_CELLS
        self._number: dict[tuple[int, frozenset[int]], int] = {}

    def numbers(self, inside: Numbers, groups: Iterable[frozenset[int]]) -> tuple[int, ...]:
        """Return one number for each node. Nodes that the rules of a VPC distinguish get different numbers."""
        nodes = zip(inside.tolist(), groups, strict=True)
        return tuple([self._number.setdefault(node, len(self._number)) for node in nodes])

    def get(self, key: tuple[object, ...], make: Callable[[], RuleTable]) -> RuleTable:
        table = self._tables.get(key)
        if table is None:
            table = make()
            self._cells -= table.winner.size
            if self._cells >= 0:
                self._tables[key] = table
        return table


class Relation:
    """Sets of services that one policy allows between the nodes that one VPC sees.

    Each method is about one node and all nodes at the other end. With direction ``inbound`` the node is a receiver and
    the result covers the services that each sender may open to it. With ``outbound`` the node is a sender and the
    result covers the services that it may open to each receiver.
    """

    def __init__(
        self, ground: Ground, policy: int, vpc: str, senders: Nodes, receivers: Nodes, base: Ranges, sets: Sets,
        budget: WorkLimits, kept: KeptTables,
    ) -> None:  # fmt: skip
        """``policy`` is its position, ``base`` the queried services, ``kept`` the cache shared by all VPCs."""
        self._ground, self._policy = ground, policy
        self._account = ground.accounts[policy]
        self._nodes: dict[Direction, Nodes] = {"outbound": senders, "inbound": receivers}
        self._base, self._sets, self._budget = base, sets, budget
        self._everything = sets.number(base)
        self._tables: dict[tuple[int, Direction], RuleTable] = {}
        self._kept_tables = kept
        self._alike: dict[tuple[str, Direction], tuple[int, ...]] = {}
        self._rows: dict[Direction, tuple[Numbers, Numbers]] = {}
        self._winners: dict[tuple[int, Direction, bytes, int], list[tuple[int, Rule]]] = {}
        #: Whether each receiver is one of the VPC's own instances.
        self._is_own = self._account.is_own(receivers.contexts[policy], vpc)

    def contexts(self, direction: Direction) -> Numbers:
        """Return the context of each node whose filter judges the direction."""
        return self._nodes[direction].contexts[self._policy]

    def judged(self, direction: Direction, node: int) -> NDArray[np.bool_]:
        """Return a mask of the nodes at the other end for which filters judge packets to or from the node in this VPC.
        Filters judge unless neither end is an instance, or the only instance is a receiver in another VPC.
        """
        context, far_contexts = int(self.contexts(direction)[node]), self.contexts(OTHER[direction])
        if context == FOREIGN:
            return np.zeros(len(far_contexts), dtype=bool)
        if direction == "inbound":
            judged: NDArray[np.bool_] = (far_contexts >= 0) | ((far_contexts == OUTSIDE) & self._is_own[node])
            return judged
        return self._is_own if context == OUTSIDE else far_contexts != FOREIGN

    def allowed(self, direction: Direction, node: int) -> Numbers:
        """Return the set of services allowed between a node and each node at the other end."""
        context = int(self.contexts(direction)[node])
        rows, row = self._allowed_by_others(direction)
        allowed = rows[row, node] * self.judged(direction, node)
        return self._sets.each_both(allowed, self.table(context, direction).allowed) if context >= 0 else allowed

    def _allowed_by_others(self, direction: Direction) -> tuple[Numbers, Numbers]:
        """Return the services that pass the filters at the other end: a row for each context there with a set for each
        node, and the row number of each node at the other end.
        """
        if direction not in self._rows:
            far_side = OTHER[direction]
            far_contexts, row = np.unique(self.contexts(far_side), return_inverse=True)
            rows = np.zeros((len(far_contexts), self._nodes[direction].count), dtype=np.int32)
            for n, context in enumerate(far_contexts.tolist()):
                if context == OUTSIDE:
                    rows[n] = self._everything
                elif context != FOREIGN:
                    rows[n] = self.table(context, far_side).allowed
            self._rows[direction] = rows, row.reshape(-1)
        return self._rows[direction]

    def is_local(self, direction: Direction, node: int) -> NDArray[np.bool_]:
        """Return a mask of the nodes at the other end that are the same instance as the node (SPEC 3.3)."""
        near_instance = self._nodes[direction].only[self._policy][node]
        far_instances = self._nodes[OTHER[direction]].only[self._policy]
        local: NDArray[np.bool_] = (far_instances == near_instance) & (far_instances > NOBODY)
        return local

    def table(self, context: int, direction: Direction) -> RuleTable:
        """Return the table of a context's rules: about senders for inbound, about receivers for outbound."""
        key = (context, direction)
        if key not in self._tables:
            make_table = partial(self._rule_table, context, direction)
            few = self._nodes[OTHER[direction]].count <= _FEW
            self._tables[key] = (
                self._kept_tables.get((*key, self._numbers(context, direction)), make_table) if few else make_table()
            )
        return self._tables[key]

    def _numbers(self, context: int, direction: Direction) -> tuple[int, ...]:
        """Number the nodes at the other end. Nodes that the context's rules may tell apart get different numbers."""
        vpc = self._account.contexts[context][1]
        if (vpc, direction) not in self._alike:
            nodes = self._nodes[OTHER[direction]]
            groups = [self._account.groups_seen(n, vpc) for n in nodes.memberships[self._policy].tolist()]
            self._alike[vpc, direction] = self._kept_tables.numbers(nodes.inside, groups)
        return self._alike[vpc, direction]

    def winners(
        self, context: int, direction: Direction, nodes: NDArray[np.bool_], services: int
    ) -> Sequence[tuple[int, Rule]]:
        """Return the rules of a context, each with the position of its group, that win for at least one of the nodes at
        the other end and one of the services. Returns no rules once the search limit is reached."""
        if self._budget.is_searched_out:
            return ()
        key = (context, direction, np.packbits(nodes).tobytes(), services)
        if key not in self._winners:
            if not self._budget.search(len(nodes)):
                return ()
            table = self.table(context, direction)
            deciding_rows = sorted(table.winners(nodes, self._sets.ranges[services]))
            self._winners[key] = [table.rules[n] for n in deciding_rows]
        return self._winners[key]

    def _rule_table(self, context: int, direction: Direction) -> RuleTable:
        groups, vpc = self._account.contexts[context]
        nodes = self._nodes[OTHER[direction]]
        boxes = Boxes(
            (g, rule) for g in groups for rule in self._account.policy.security_groups[g].rules
            if rule.direction == direction and rule.ethertype == self._ground.family
        )  # fmt: skip
        self._budget.masks(len(boxes.peers), nodes.count)
        # Without rules all nodes are of one kind. Without nodes there is no kind.
        kind = np.zeros(nodes.count, dtype=np.int64)
        keep = np.zeros(min(nodes.count, 1), dtype=np.int64)
        masks = [self._matching(rule, vpc, nodes) for rule in boxes.peers]
        if masks and nodes.count:
            keep, kind = alike(masks)
        of_service = ServiceClasses(boxes.services)
        starts, classes = of_service.line
        self._budget.masks(len(boxes.services), of_service.count)
        self._budget.cells(len(keep), len(starts))
        winner = np.full((len(keep), of_service.count), -1, dtype=np.int32)
        peers, services = [mask[keep] for mask in masks], [*map(of_service.matching, boxes.services)]
        for n, block in boxes.blocks(peers, services) if nodes.count else ():
            self._budget.paint(block[0].size * block[1].size + KEYS)
            winner[block] = n
        winner = winner[:, classes]
        of_kind = [self._sets.number(self._ranges(boxes.allows[row], starts)) for row in winner]
        allowed = np.array(of_kind, dtype=np.int32)[kind]
        return RuleTable(kind.astype(np.int32), allowed, boxes.ranked, winner, starts)

    def _ranges(self, allowed: NDArray[np.bool_], starts: Numbers) -> Ranges:
        """Return the queried services in the stretches that are allowed."""
        change = np.flatnonzero(np.diff(np.concatenate(([False], allowed, [False]))))
        bounds = np.append(starts, 256 * KEYS)[change].tolist()
        stretches = tuple((first, end - 1) for first, end in zip(bounds[::2], bounds[1::2], strict=True))
        return intersection(stretches, self._base)

    def _matching(self, rule: Rule, vpc: str, nodes: Nodes) -> NDArray[np.bool_]:
        """Return a mask of the nodes that the rule's peer matches, for an instance of a VPC."""
        if isinstance(rule.peer, GroupPeer):
            return self._account.members(rule.peer.name, vpc, nodes.memberships[self._policy])
        return lying_in(self._ground.named.within(named_networks(self._account.policy, rule)), nodes.inside)
