"""Connections that may be opened under only one of two policies, and the rules that decide (SPEC 12.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from sgfast.base.evidence import Evidence, EvidenceCode, EvidenceReason
from sgfast.base.notebook import html_doubts, html_text
from sgfast.policy.gaps import ComparedFilter, compared_filters
from sgfast.policy.matching import Address
from sgfast.policy.model import Direction, Policy, called
from sgfast.policy.other_vpcs import owners_elsewhere, owners_text
from sgfast.policy.ranges import lowest
from sgfast.policy.renamed_vpcs import with_vpc_names_of
from sgfast.rules.addresses import ADDRESS, NOBODY
from sgfast.rules.reaching.ends import ANY
from sgfast.rules.reaching.nodes import FOREIGN, OUTSIDE, Nodes, Numbers
from sgfast.rules.reaching.question import MAX_NOTES, Question, Scene
from sgfast.rules.reaching.relation import EMPTY
from sgfast.rules.reaching.rows import (
    Decider,
    Row,
    RowMaker,
    deciders,
    in_both_families,
    rank,
    rows_as_html,
    stateless_warnings,
    with_rules,
)
from sgfast.rules.reaching.services import named_service
from sgfast.rules.reaching.unknown_members import UnknownMembers
from sgfast.rules.services import Mask

OLD, NEW = 0, 1
#: The most filters that a reason to doubt the answer names.
LISTED_FILTERS = 3
#: The most groups that a reason to doubt the answer names.
LISTED_GROUPS = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """Comparison of two policies by their rules alone, for all packets (SPEC 12.6).

    ``old``: the old policy.
    ``new``: the new policy.
    ``opened``: connections that may only be opened under NEW, with NEW's names.
    ``closed``: connections that may only be opened under OLD, with OLD's names.
    ``not_compared``: a sentence that says why the policies were not compared; empty if they were.
    ``warnings``: full sentences about both policies.
    ``accepted_evidence``: codes of reasons in spite of which the user accepts the answer.
    """

    old: Policy
    new: Policy
    opened: tuple[Row, ...]
    closed: tuple[Row, ...]
    not_compared: str = ""
    warnings: tuple[str, ...] = ()
    accepted_evidence: tuple[EvidenceCode, ...] = ()

    @property
    def unread_filters(self) -> tuple[ComparedFilter, ...]:
        """The filters of both policies' exports that are not read. Those that change come first."""
        return compared_filters(self.old.gaps.filters, self.new.gaps.filters)

    @property
    def evidence(self) -> Evidence:
        """Reasons to doubt the answer, because of what the policies' exports do not hold (SPEC 12.7)."""
        return Evidence.of(_doubts(self)).accepting(self.accepted_evidence)

    def _repr_html_(self) -> str:
        if self.not_compared:
            return html_text(self.not_compared)
        rows = html_text("Opened:") + rows_as_html(self.opened) + html_text("Closed:") + rows_as_html(self.closed)
        return html_doubts(self.evidence) + rows


def difference(old: Policy, new: Policy) -> Difference:
    """Compare exactly what two policies allow (SPEC 12.6).

    Raises TooMuch if the answer would take too long, AmbiguousAddress if two peers of a VPC own an address.
    """
    renamed_new = with_vpc_names_of(new, old)
    unknown = UnknownMembers(renamed_new, new)
    question = Question(unknown.policies, ANY, ANY, named_service("all"))
    names = {old_vpc.name: here.name for here, old_vpc in zip(old.vpcs, renamed_new.vpcs, strict=True)}
    row_lists: list[list[Row]] = [[], []]
    notes: dict[str, None] = {}
    makers = {
        (family, policy): RowMaker(question, family, policy, simpler=False, vpcs=True)
        for family in (4, 6)
        for policy in (OLD, NEW)
    }
    for scene in question.scenes():
        for policy in (OLD, NEW):
            only = _Only(question, scene, policy)
            makers[scene.family, policy].add(scene, only.allowed, only.why)
            for address in islice(only.unpeered_addresses(), MAX_NOTES - len(notes)):
                here, vpc = (old, names[scene.vpc]) if policy == OLD else (new, scene.vpc)
                notes[_note(here, vpc, policy, address)] = None
    for (_, policy), maker in makers.items():
        row_lists[policy] += maker.rows()
    (closed, without), (opened, _) = (
        with_rules(question, sorted(in_both_families(rows), key=rank)) for rows in row_lists
    )
    warnings = dict.fromkeys((*notes, *stateless_warnings(old), *stateless_warnings(new), *without))
    closed = [_with_vpcs(row, lambda vpcs: tuple(names[vpc] for vpc in vpcs)) for row in closed]
    opened, closed = [unknown.marked(row, NEW) for row in opened], [unknown.marked(row, OLD) for row in closed]
    opened, closed = _telling_apart(opened, closed)
    return Difference(old, new, tuple(opened), tuple(closed), warnings=tuple(warnings))


def _doubts(difference: Difference) -> Iterator[EvidenceReason]:
    filters = difference.unread_filters
    changed = [unread_filter for unread_filter in filters if unread_filter.change != "same"]
    if not (difference.old.security_groups or difference.new.security_groups):
        sentence = "neither OLD nor NEW has a security group that is read, so nothing was compared"
        command = "exports or plans that hold security groups of AWS, OpenStack or OTC"
        yield EvidenceReason("no-group", "no", 0, 0.0, sentence, command)
    if changed:
        named = ", ".join(f"{unread_filter.name} {unread_filter.change}" for unread_filter in changed[:LISTED_FILTERS])
        unnamed = f" and {len(changed) - LISTED_FILTERS:,} more" if len(changed) > LISTED_FILTERS else ""
        verb = "is a filter" if len(changed) == 1 else f"are {len(changed):,} filters"
        sentence = f"among the changes {verb} that sgfast does not read, which may open or close more: {named}{unnamed}"
        command = "a look at these filters, and then --accept-evidence unread-filters"
        share = len(changed) / len(filters)
        yield EvidenceReason("unread-filters", "partly", len(changed), share, sentence, command)
    yield from _of_unknown(difference)


def _of_unknown(difference: Difference) -> Iterator[EvidenceReason]:
    rows = [row for row in (*difference.opened, *difference.closed) if row.has_unknown]
    if rows:
        parts = dict.fromkeys(
            part.name for row in rows for part in (*row.sources, *row.destinations) if part.is_unknown
        )
        names = ", ".join([*parts][:LISTED_GROUPS]) + (" and others" if len(parts) > LISTED_GROUPS else "")
        verb = "row is" if len(rows) == 1 else "rows are"
        sentence = f"{len(rows):,} {verb} about groups of which no file says who is in them: {names}"
        command = "exports that hold the members, --plan with --on EXPORT, or --unresolved GROUP=ADDRESSES"
        share = len(rows) / (len(difference.opened) + len(difference.closed))
        yield EvidenceReason("unknown-members", "partly", len(rows), share, sentence, command)


def _note(policy: Policy, vpc: str, number: int, address: Address) -> str:
    """Explain for whom the rows with an address hold that instances have in VPCs that are not peered with ``vpc``."""
    owners = owners_text(policy, owners_elsewhere(policy, vpc, address))
    word = ("closed", "opened")[number]
    return (
        f"no instance that VPC {called(policy.vpc_by_name[vpc])} sees under {('OLD', 'NEW')[number]} has {address}: it "
        f"is {owners}; what is {word} from or to this address is {word} only for another machine that has it"
    )


def _telling_apart(*lists: list[Row]) -> list[list[Row]]:
    """Return the rows. Only those keep the VPCs of their ends that would read the same without them."""
    plain = [[_with_vpcs(row, lambda _: ()) for row in rows] for rows in lists]
    times = Counter((row.sources, row.destinations, row.services) for rows in plain for row in rows)
    return [
        [
            row if times[short.sources, short.destinations, short.services] > 1 else short
            for row, short in zip(*pair, strict=True)
        ]
        for pair in zip(lists, plain, strict=True)
    ]


def _with_vpcs(row: Row, of: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Row:
    sources, destinations = (
        tuple(replace(part, vpcs=of(part.vpcs)) for part in parts) for parts in (row.sources, row.destinations)
    )
    return replace(row, sources=sources, destinations=destinations)


class _Only:
    """Connections in a scene that only one of two policies allows."""

    def __init__(self, question: Question, scene: Scene, policy: int) -> None:
        self._question, self._scene, self._policy = question, scene, policy
        self._relation, self._other_relation = scene.relations[policy], scene.relations[1 - policy]
        contexts = self._relation.contexts("inbound")
        vpc_contexts = question.accounts[policy].contexts
        #: Whether each receiver is an instance of a VPC that the other policy does not peer with the scene's.
        self._unpeered: Mask = np.isin(
            contexts,
            [n for n in np.unique(contexts).tolist() if n >= 0 and not self._peers(1 - policy, vpc_contexts[n][1])],
        )

    def allowed(self, direction: Direction, node: int) -> Numbers:
        relation, other_relation = self._relation, self._other_relation
        # If both ends are one instance under the other policy, they open no connections there. Nor do two instances
        # that it isolates: what it allows to the address of one is for an address that no instance owns.
        are_one = other_relation.is_local(direction, node) & ~relation.is_local(direction, node)
        are_isolated = self._unpeered if direction == "outbound" else self._unpeered[node]
        allowed = np.where(are_one | are_isolated, EMPTY, other_relation.allowed(direction, node))
        return self._question.sets.each_without(relation.allowed(direction, node), allowed)

    def why(self, senders: Mask, receivers: Mask, services: int) -> list[Decider]:
        """Return the rules that make the difference: allow rules in filters that the other policy keeps closed, and the
        deny rules that keep them closed. If there are none, because instances, peerings or VPCs make the difference,
        return all rules that allow these connections.
        """
        sides: tuple[tuple[Direction, Mask, Mask], ...] = (
            ("outbound", senders, receivers), ("inbound", receivers, senders),
        )  # fmt: skip
        deciders: list[Decider] = []
        allowing: list[Decider] = []
        for side in sides:
            allows = self._winners(self._policy, *side, services)
            allowing += allows
            if self._is_closed(*side, services):
                winners = self._winners(1 - self._policy, *side, services)
                denies = [decider for decider in winners if decider.rule.action == "deny"]
                # Where a deny rule makes the difference, an allow rule of both policies does not.
                news = [decider for decider in allows if not (denies and self._has(1 - self._policy, decider))]
                deciders += news + [decider for decider in denies if not (news and self._has(self._policy, decider))]
        return allowing if self._unpeered[receivers].any() else deciders or allowing

    def unpeered_addresses(self) -> Iterator[Address]:
        """Yield addresses in rows that no instance owns in the scene, but one elsewhere in this policy does. Under the
        other policy an instance of a VPC has them that this policy does not peer with the scene's.
        """
        scene, policy = self._scene, self._policy
        here, other_policy = (self._question.accounts[n].policy for n in (policy, 1 - policy))
        sides: tuple[tuple[Direction, Nodes], ...] = ("outbound", scene.senders), ("inbound", scene.receivers)
        for direction, nodes in sides:
            for node in np.flatnonzero(nodes.contexts[policy] == OUTSIDE).tolist():
                owner = nodes.parts[node][0].owners[1 - policy]  # All owners are in one VPC.
                if owner == NOBODY or self._peers(policy, other_policy.instances[owner - 1].vpc):
                    continue
                for piece in nodes.parts[node] if self.allowed(direction, node).any() else ():
                    first = lowest(here._owned_ranges[scene.family], piece.first, piece.last)
                    if first is not None and owners_elsewhere(here, scene.vpc, ADDRESS[scene.family](first)):
                        yield ADDRESS[scene.family](first)

    def _peers(self, policy: int, vpc: str) -> bool:
        return self._question.accounts[policy].policy.connected(self._scene.vpc, vpc)

    def _is_closed(self, direction: Direction, own_nodes: Mask, other_nodes: Mask, services: int) -> bool:
        """Return whether the other policy's rules, for at least one of these instances, do not allow all of the
        services."""
        contexts = self._other_relation.contexts(direction)
        return any(
            self._question.sets.without(services, number) != EMPTY
            for context in np.unique(contexts[own_nodes]).tolist() if context not in (OUTSIDE, FOREIGN)
            for number in np.unique(self._other_relation.table(context, direction).allowed[other_nodes]).tolist()
        )  # fmt: skip

    def _winners(
        self, policy: int, direction: Direction, own_nodes: Mask, other_nodes: Mask, services: int
    ) -> list[Decider]:
        return deciders(self._question, self._scene, policy, direction, own_nodes, other_nodes, services)

    def _has(self, policy: int, decider: Decider) -> bool:
        """Return whether the policy's group of that name has a rule with the same meaning."""
        group = self._question.accounts[policy].policy.group_by_name.get(decider.group)
        return group is not None and any(rule.without_words() == decider.rule.without_words() for rule in group.rules)
