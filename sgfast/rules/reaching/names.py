"""Name sets of nodes by groups, instances, address groups and CIDRs (SPEC 12.5)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import Named, called
from sgfast.policy.ranges import union
from sgfast.rules.addresses import ADDRESS, NOBODY, Span, addresses_of, networks_of, span_of
from sgfast.rules.reaching.ends import NamedEnd
from sgfast.rules.reaching.nodes import OUTSIDE, Nodes, Piece
from sgfast.rules.reaching.question import Question, Scene

#: The node of a network that contains no node's addresses.
_NO_NODE = -1

Region = tuple[tuple[Span, tuple[Span, ...]], ...]
"""A region: networks, each with the networks within it that do not belong to the region."""

#: The kind of a part of an end.
PartKind = Literal["any", "internet", "instances", "group", "instance", "address-group", "network"]


@dataclass(frozen=True, slots=True)
class Part:
    """A named part of a row's ends. The kinds ``any``, ``internet`` and ``instances`` (all instances) have no name.

    ``kind``: the kind of the part.
    ``name``: its name.
    ``without``: excluded networks within a network or the internet; or groups and instances excluded from all
    instances.
    ``addresses``: the included addresses of an instance, or the included network of the internet. Empty: all addresses.
    ``words``: ``name`` and ``without`` as reports write them, with the provider's words (SPEC 10.28), if there are any.
    ``without_words``: the texts in ``without`` as reports write them.
    ``vpcs``: the VPCs of the instances, where two rows would read the same without them (SPEC 12.6), or where others of
    the same name are in VPCs that the question is not about (SPEC 12.5).
    ``is_unknown``: whether no file says who is in the group (SPEC 12.8).
    """

    kind: PartKind
    name: str = ""
    without: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    words: str = ""
    without_words: tuple[str, ...] = ()
    vpcs: tuple[str, ...] = ()
    is_unknown: bool = False

    @property
    def called(self) -> str:
        """The name as reports write it."""
        return (self.words or self.name) + (" (members unknown)" if self.is_unknown else "")

    @property
    def exceptions(self) -> tuple[str, ...]:
        """The excluded parts as reports write them."""
        return self.without_words or self.without

    @property
    def where(self) -> str:
        """The VPCs in words, such as `` in VPC prod``."""
        return f" in VPC{'s' * (len(self.vpcs) > 1)} {', '.join(self.vpcs)}" if self.vpcs else ""

    @property
    def text(self) -> str:
        """The full text. Reports use shorter texts."""
        name = self.called or ("all instances" if self.kind == "instances" else self.kind)
        if self.addresses:
            name += f" ({', '.join(self.addresses)})"
        return name + (f" except {', '.join(self.exceptions)}" if self.without else "") + self.where


#: The order of the parts of a row.
ORDER: Sequence[PartKind] = ("any", "internet", "network", "address-group", "instances", "group", "instance")

#: The kinds of parts that have instances.
WITH_INSTANCES = frozenset[PartKind](("any", "instances", "group", "instance"))


def _part(kind: PartKind, item: Named, addresses: tuple[str, ...] = ()) -> Part:
    return Part(kind, item.name, addresses=addresses, words=called(item) if item.label else "")


def in_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: (ORDER.index(part.kind), ":" in part.name, part.name)))


class NodeNames:
    """The senders, or the receivers, of all scenes of one family. Each node of instances has a number n, and a set of
    such nodes is an integer whose bit n says whether node n is in the set."""

    def __init__(self, question: Question, family: int, end: NamedEnd, policy: int) -> None:
        """``policy`` is the position of the policy whose names are used."""
        self._policy = policy
        self._account = question.accounts[policy]
        self._family = family
        self._end = end
        self._number: dict[tuple[object, ...], int] = {}
        self._parts: list[list[Piece]] = []
        #: Sets of nodes of instances seen from their own VPC: all such nodes, those by group, and those by owner.
        self._own_nodes = 0
        self._of_group: dict[int, int] = {}
        self._of_owner: dict[int, int] = {}
        #: Sets of all nodes of instances, by VPC.
        self._of_vpc: dict[str, int] = {}
        #: The VPCs of the scenes. The question is not about instances of other VPCs.
        self._searched: set[str] = set()
        #: Owners of addresses that the question excludes, and the groups of these owners.
        self._cut_owners: set[int] = set()
        self._cut_groups: set[int] = set()
        #: For the scene added last: the number of each node of instances, and the regions of the other nodes.
        self._numbers = np.zeros(0, dtype=np.int64)
        self._regions: _Regions | None = None
        #: Regions that contain every queried address that no instance owns.
        self._whole_regions: set[Region] = set()
        self._parts_by_instances: dict[int, tuple[Part, ...]] = {}
        self._special = [span_of(network) for network in end.without if network.version == family]
        self._address_groups = [
            (group, _outermost(span_of(network) for network in group.addresses if network.version == family))
            for group in self._account.policy.address_groups
        ]

    def add(self, scene: Scene, nodes: Nodes) -> None:
        """Number the nodes of a scene."""
        self._searched.add(scene.vpc)
        contexts = nodes.contexts[self._policy].tolist()
        numbers = np.full(nodes.count, -1, dtype=np.int64)
        owner_pieces: dict[int, int] = {}
        for n, context in enumerate(contexts):
            if context < 0:
                continue
            parts = nodes.parts[n]
            owned = ((piece.first, piece.last, piece.owners[self._policy]) for piece in parts)
            key: tuple[object, ...] = (context, tuple(owned))
            number = self._number.setdefault(key, len(self._parts))
            if number == len(self._parts):
                self._parts.append(parts)
            numbers[n] = number
            groups, vpc = self._account.contexts[context]
            self._of_vpc[vpc] = self._of_vpc.get(vpc, 0) | 1 << number
            if vpc == scene.vpc:
                self._own_nodes |= 1 << number
                for group in groups:
                    self._of_group[group] = self._of_group.get(group, 0) | 1 << number
                for piece in parts:
                    owner = piece.owners[self._policy]
                    owner_pieces[owner] = owner_pieces.get(owner, 0) + 1
                    self._of_owner[owner] = self._of_owner.get(owner, 0) | 1 << number
        for owner, count in nodes.pieces_of[self._policy].items():
            context = int(self._account.context_of[owner - 1]) if owner != NOBODY else -1
            if context >= 0 and self._account.contexts[context][1] == scene.vpc and owner_pieces.get(owner, 0) < count:
                self._cut_owners.add(owner)
                self._cut_groups.update(self._account.contexts[context][0])
        self._numbers = numbers
        self._regions = _Regions(scene, nodes, self._policy, self._end)
        self._whole_regions.add(self._regions.of(np.ones(nodes.count, dtype=bool)))

    def bit(self, node: int) -> int:
        """Return the set that contains only one node, a node of instances in the scene added last."""
        return 1 << int(self._numbers[node])

    def of(self, nodes: NDArray[np.bool_]) -> tuple[int, Region]:
        """Return the set of instance nodes and the region among some nodes of the scene added last."""
        assert self._regions is not None
        chosen = np.zeros(len(self._parts), dtype=bool)
        chosen[self._numbers[nodes & (self._numbers >= 0)]] = True
        return int.from_bytes(np.packbits(chosen, bitorder="little").tobytes(), "little"), self._regions.of(nodes)

    # Names

    def named(self, instances: int, region: Region) -> tuple[Part, ...]:
        """Return the names of a set of instances and of a region. All scenes must have been added."""
        if region and region in self._whole_regions:
            if self._end.kind == "internet":
                return (Part("internet"),)
            if self._end.kind == "any" and self._is_all(instances) and not self._elsewhere:
                return (Part("any"),)
        return in_order((*self._networks(region), *self._instances(instances)))

    def vpcs_of(self, instances: int) -> tuple[str, ...]:
        """Return the VPCs of a set of instances."""
        return tuple([vpc for vpc, nodes in self._of_vpc.items() if nodes & instances])

    def _is_all(self, instances: int) -> bool:
        return not self._own_nodes & ~instances

    def _networks(self, region: Region) -> Iterator[Part]:
        whole = {span for span, without in region if not without}
        for group, spans in self._address_groups:
            if spans and spans <= whole:
                whole -= spans
                yield _part("address-group", group)
        for span, without in region:
            if without or span in whole:
                hole_texts = tuple(_text(hole, self._family) for hole in without)
                yield self._network(span, hole_texts)

    def _network(self, span: Span, without: tuple[str, ...]) -> Part:
        text = _text(span, self._family)
        if self._end.kind == "internet":
            if any(span_of(network) == span for network in self._end.networks):
                return Part("internet", without=without)
            # Only a part of the internet was queried.
            if any(span[0] <= special_span[0] and special_span[1] >= span[1] for special_span in self._special):
                return Part("internet", without=without, addresses=(text,))
        return Part("network", text, without)

    def _instances(self, instances: int) -> tuple[Part, ...]:
        if instances not in self._parts_by_instances:
            covering_parts = tuple(self._covering(instances))
            if len(covering_parts) > 1 and self._end.kind == "any" and not instances & ~self._own_nodes:
                missing_parts = tuple(self._covering(self._own_nodes & ~instances))
                if len(missing_parts) < len(covering_parts) - 1 and all(map(self._is_plain, missing_parts)):
                    has_words = any(part.words for part in missing_parts)
                    words = tuple(part.called for part in missing_parts) if has_words else ()
                    names = tuple(part.name for part in missing_parts)
                    vpcs = self.vpcs_of(self._own_nodes) if self._elsewhere else ()
                    covering_parts = (Part("instances", without=names, without_words=words, vpcs=vpcs),)
            self._parts_by_instances[instances] = covering_parts
        return self._parts_by_instances[instances]

    def _is_plain(self, part: Part) -> bool:
        """Return whether the name alone identifies the instances."""
        policy = self._account.policy
        is_one = (part.name in policy.group_by_name) != (part.name in policy.instance_by_name)
        return is_one and not (part.addresses or part.vpcs)

    @cached_property
    def _elsewhere(self) -> list[tuple[int, ...]]:
        """The sets of groups of the instances in VPCs that the question is not about."""
        account = self._account

        def has_address(place: int) -> bool:
            return any(network.version == self._family for network in account.policy.instances[place].addresses)

        return [
            groups for (groups, vpc), places in zip(account.contexts, account.instances, strict=True)
            if vpc not in self._searched and any(map(has_address, places))
        ]  # fmt: skip

    @cached_property
    def _largest_groups(self) -> list[tuple[int, int]]:
        """Groups all of whose addresses are queried, with their nodes; those with most nodes first, and behind them
        those with members in VPCs that the question is not about.
        """
        whole = [(group, nodes) for group, nodes in self._of_group.items() if group not in self._cut_groups]
        return sorted(whole, key=lambda entry: (entry[0] in self._groups_elsewhere, -entry[1].bit_count()))

    @cached_property
    def _groups_elsewhere(self) -> set[int]:
        return set(chain.from_iterable(self._elsewhere))

    def _covering(self, instances: int) -> Iterator[Part]:
        """Yield the groups whose members are all in the set, largest first, then the instances not yet covered."""
        uncovered = instances
        for group, nodes in self._largest_groups if self._end.kind != "instance" else ():
            if nodes & uncovered and not nodes & ~instances:
                uncovered &= ~nodes
                part = _part("group", self._account.policy.security_groups[group])
                yield replace(part, vpcs=self.vpcs_of(nodes)) if group in self._groups_elsewhere else part
        pieces: dict[int, list[Piece]] = {}
        for number in _bits(uncovered):
            for piece in self._parts[number]:
                pieces.setdefault(piece.owners[self._policy], []).append(piece)
        for owner in sorted(pieces):
            instance = self._account.policy.instances[owner - 1]
            nodes = self._of_owner.get(owner, 0)
            if nodes and not nodes & ~instances and owner not in self._cut_owners:
                yield _part("instance", instance)
            else:
                ranges = union((piece.first, piece.last) for piece in pieces[owner])
                is_whole = ranges == addresses_of(instance.addresses, self._family)
                cut = () if is_whole else tuple(map(str, networks_of(self._family, ranges)))
                yield _part("instance", instance, cut)


class _Regions:
    """The addresses of a scene that no instance owns: nested networks, each with its node.

    A queried network has no node if networks within it cover it.
    """

    def __init__(self, scene: Scene, nodes: Nodes, policy: int, end: NamedEnd) -> None:
        family = scene.family
        node_spans: list[tuple[Span, int]] = []
        outside = np.ones(nodes.count, dtype=bool)
        for contexts in nodes.contexts:
            outside &= contexts == OUTSIDE
        for n in np.flatnonzero(nodes.contexts[policy] == OUTSIDE).tolist():
            if outside[n]:
                node_spans.append((scene.ground.named.spans[int(nodes.inside[n])], n))
            else:  # the other policy has an instance at these addresses
                ranges = ((piece.first, piece.last) for piece in nodes.parts[n])
                node_spans += [(span_of(network), n) for network in networks_of(family, ranges)]
        node_spans.sort()
        node_spans += [(span, _NO_NODE) for span in _covered(end, family, [span for span, _ in node_spans])]
        node_spans.sort()
        self._spans = [span for span, _ in node_spans]
        self._nodes = np.array([n for _, n in node_spans], dtype=np.int64)
        stack: list[int] = []
        self._parent = np.zeros(len(node_spans), dtype=np.int64)
        for n, (first, _) in enumerate(self._spans):
            while stack and -self._spans[stack[-1]][1] < first:
                stack.pop()
            self._parent[n] = stack[-1] if stack else len(node_spans)
            stack.append(n)
        self._has_node = self._nodes != _NO_NODE
        #: The networks without a node, outer ones first, each with the networks nested directly in it.
        self._inside: dict[int, list[int]] = {n: [] for n in np.flatnonzero(~self._has_node).tolist()}
        for n, parent in enumerate(self._parent.tolist()):
            if parent in self._inside:
                self._inside[parent].append(n)
        self._region_by_nodes: dict[bytes, Region] = {}

    def of(self, nodes: NDArray[np.bool_]) -> Region:
        """Return the region of some nodes."""
        chosen = np.zeros(len(self._nodes) + 1, dtype=bool)
        chosen[:-1][self._has_node] = nodes[self._nodes[self._has_node]]
        self._choose_covered(chosen)
        key = chosen.tobytes()
        if key not in self._region_by_nodes:
            network_holes: dict[int, list[Span]] = {}
            changes = np.flatnonzero(chosen[:-1] != chosen[self._parent]).tolist()
            changed = set(changes)
            for n in changes:
                if chosen[n]:
                    network_holes[n] = []
                    continue
                around = int(self._parent[n])
                while around not in changed:
                    around = int(self._parent[around])
                network_holes[around].append(self._spans[n])
            self._region_by_nodes[key] = tuple((self._spans[n], tuple(without)) for n, without in network_holes.items())
        return self._region_by_nodes[key]


    def _choose_covered(self, chosen: NDArray[np.bool_]) -> None:
        """Choose a network without a node if all networks nested in it are chosen. If only some of them are, choose it
        if the network around it is chosen."""
        mixed = []
        for n, inside in reversed(self._inside.items()):
            chosen[n] = chosen[inside].all()
            if not chosen[n] and chosen[inside].any():
                mixed.append(n)
        for n in reversed(mixed):
            chosen[n] = chosen[self._parent[n]]


def _covered(end: NamedEnd, family: int, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the networks of an end that are not in ``spans`` but contain one of them. ``spans`` are sorted."""
    for span in {span_of(network) for network in end.networks if network.version == family}.difference(spans):
        n = bisect_right(spans, span)
        if n < len(spans) and spans[n][0] <= -span[1]:
            yield span


def _outermost(spans: Iterable[Span]) -> set[Span]:
    """Return the spans that no other span contains."""
    outermost_spans: list[Span] = []
    for span in sorted(spans):
        if not outermost_spans or -outermost_spans[-1][1] < span[0]:
            outermost_spans.append(span)
    return {*outermost_spans}


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _text(span: Span, family: int) -> str:
    first, minus_last = span
    length = (32 if family == 4 else 128) - (-minus_last - first).bit_length()
    return f"{ADDRESS[family](first)}/{length}"
