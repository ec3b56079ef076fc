"""Prove a policy against expectations (SPEC 10.23): show for each expectation that all packets satisfy it, or find one
packet that contradicts it. Also find the expectation that is about an observed connection.

``contradiction`` finds the packet. Before the packet is reported, the engine judges it, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial, reduce
from itertools import product
from operator import or_
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sgfast.base.errors import ArgumentError, PolicyError, TooMuch
from sgfast.base.evidence import Evidence, EvidenceCode, EvidenceReason, known_codes
from sgfast.base.notebook import SHOWN_ROWS, Shown, html_table
from sgfast.base.spelling import Suggestions
from sgfast.policy.expectations import Expectation, ExpectationsFile, Word
from sgfast.policy.matching import Address, End
from sgfast.policy.model import Action, Policy, count_addresses, count_rules
from sgfast.policy.node_reader import DocumentErrors
from sgfast.policy.ranges import difference, lowest, union
from sgfast.policy.yaml_nodes import shown_origin
from sgfast.rules.addresses import addresses_of, range_of
from sgfast.rules.reaching.contradiction import Opener, contradiction
from sgfast.rules.reaching.ends import NamedEnd, named_end
from sgfast.rules.reaching.explaining import Explanation, explain_opener, sentence
from sgfast.rules.reaching.filters import filters_about
from sgfast.rules.reaching.question import SharedGround, Views
from sgfast.rules.reaching.services import ServiceSet, named_service
from sgfast.rules.services import KEYS

if TYPE_CHECKING:
    from sgfast.rules.reaching.tables import ExpectationsTables
else:
    # At run time this name means anything: importing its module would delay every command.
    ExpectationsTables = Any

#: The maximum number of steps of a file, both for looking up its names and for proving all of it (SPEC 11.7). Files at
#: the limit take minutes.
MAX_STEPS = 200_000_000

#: The verbs for one expectation and for several.
_WORDS: dict[Literal["holds", "fails", "empty"], tuple[str, str]] = {
    "holds": ("holds", "hold"), "fails": ("fails", "fail"), "empty": ("is about no packet", "are about no packet"),
}  # fmt: skip
_OPPOSITE: dict[Action, Action] = {"allow": "deny", "deny": "allow"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one expectation.

    ``expectation``: the expectation.
    ``counterexample``: a packet whose verdict, given by the engine, is not the expected one; None: there is no such
    packet.
    ``is_about_something``: whether a filter judges at least one of the packets that the expectation is about.
    ``nobody``: the sources and destinations in the expectation that contain neither instances nor addresses.
    ``elsewhere``: sentences about addresses that belong to instances of VPCs that are not peered (SPEC 12.1).
    """

    expectation: Expectation
    counterexample: Explanation | None
    is_about_something: bool
    nobody: tuple[Word, ...]
    elsewhere: tuple[str, ...] = ()

    @property
    def word(self) -> Literal["holds", "fails", "empty"]:
        """``fails`` if there is a counterexample, ``empty`` if the expectation is about no packet, else ``holds``."""
        if self.counterexample is not None:
            return "fails"
        return "holds" if self.is_about_something else "empty"

    @property
    def is_uncertain(self) -> bool:
        """Whether packets that should be allowed are denied if an instance of another VPC has their address."""
        return self.word == "holds" and self.expectation.verdict == "allow" and bool(self.elsewhere)

    @property
    def warnings(self) -> list[str]:
        """Reasons why the expectation may prove less, or something else, than its author intended."""
        return [*self.gaps, *(f"{self.expectation.place}: {reason}" for reason in self.elsewhere)]

    @property
    def gaps(self) -> list[str]:
        """Warnings about parts of the expectation for which nothing was proved."""
        warnings = [
            f"{word.place}: no instance or address is in {word.text}, so nothing is proved about it"
            for word in self.nobody
        ]
        if not self.is_about_something and not self.nobody:
            expectation = self.expectation
            warnings.append(f"{expectation.place}: no filter judges any packet from {expectation.text}")
        return warnings


@dataclass(frozen=True, slots=True)
class ExpectationsResult(Shown):
    """Outcomes of all expectations of a file, in its order. It is true if ``holds`` is.

    ``policy``: the policy that the answer is about.
    ``origin``: the name of the expectations file, for messages.
    ``outcomes``: the outcome of each expectation.
    ``accepted_evidence``: codes of reasons in spite of which the user accepts the answer.
    """

    policy: Policy
    origin: str
    outcomes: tuple[Outcome, ...]
    accepted_evidence: tuple[EvidenceCode, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether all expectations hold, on conclusive evidence."""
        return not self.of("fails") and self.evidence.conclusive == "yes"

    def __bool__(self) -> bool:
        return self.holds

    @property
    def tables(self) -> ExpectationsTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.21)."""
        from sgfast.rules.reaching.tables import ExpectationsTables

        return ExpectationsTables([
            (outcome.expectation, outcome.word, not outcome.is_uncertain, outcome.nobody, outcome.counterexample)
            for outcome in self.outcomes
        ])

    @property
    def uncertain(self) -> list[Outcome]:
        """Outcomes that hold only if an address is not that of an instance of another VPC (SPEC 12.1)."""
        return [outcome for outcome in self.outcomes if outcome.is_uncertain]

    @property
    def evidence(self) -> Evidence:
        """Reasons to doubt that the proof covers what is meant (SPEC 10.27)."""
        return Evidence.of([*self._about_nobody(), *self._elsewhere()]).accepting(self.accepted_evidence)

    def _about_nobody(self) -> Iterator[EvidenceReason]:
        empty, total = len(self.of("empty")), len(self.outcomes)
        if empty:
            verb, so = _WORDS["empty"][empty != 1], "they prove nothing" if empty != 1 else "it proves nothing"
            sentence = f"{empty:,} of {total:,} expectations {verb}, so {so}"
            yield EvidenceReason(
                "about-nobody", "no" if empty == total else "partly", empty, empty / total, sentence,
                "sgfast test POLICY EXPECTATIONS with groups that have instances, or other names in from and to",
            )  # fmt: skip

    def _elsewhere(self) -> Iterator[EvidenceReason]:
        uncertain = self.uncertain
        if uncertain:
            yield EvidenceReason(
                "other-vpc", "partly", len(uncertain), len(uncertain) / len(self.outcomes), uncertain[0].elsewhere[0],
                "write the instance's name, or --accept-evidence other-vpc if that machine is outside",
            )  # fmt: skip

    def _repr_html_(self) -> str:
        rows = [
            (
                outcome.expectation.place, outcome.expectation.text, outcome.word,
                None if outcome.counterexample is None else sentence(outcome.counterexample),
            )
            for outcome in self.outcomes[:SHOWN_ROWS]
        ]  # fmt: skip
        return html_table(("expectation", "meant", "result", "counterexample"), rows, len(self.outcomes))

    def of(self, word: Literal["holds", "fails", "empty"]) -> list[Outcome]:
        """Return the outcomes with this word."""
        return [outcome for outcome in self.outcomes if outcome.word == word]

    def __repr__(self) -> str:
        numbers = {word: len(self.of(word)) for word in _WORDS}
        counts = ", ".join(f"{number} {_WORDS[word][number != 1]}" for word, number in numbers.items())
        return f"<ExpectationsResult of {self.origin}: {counts}>"

    @property
    def warnings(self) -> list[str]:
        """Full sentences about what the user should know."""
        return [warning for outcome in self.outcomes for warning in outcome.warnings]


class Seen(NamedTuple):
    """An observed connection or attempt, described by its opener. Fields that its protocol does not have are None."""

    source: End
    destination: End
    protocol: int
    port: int | None
    icmp_type: int | None
    icmp_code: int | None
    verdict: Action


class Expectations:
    """The expectations of a file, with the names in it looked up in a policy.

    Raises PolicyError, with file, line and field, for a name that the policy does not have or that is ambiguous. Also
    raises it if looking up all names would take too long (SPEC 11.1).
    """

    def __init__(self, policy: Policy, file: ExpectationsFile) -> None:
        self.policy = policy
        self.origin = file.origin
        self._ends: dict[str, NamedEnd] = {}
        self._services: dict[str, ServiceSet] = {}
        self._suggest = Suggestions().did_you_mean
        words = {
            word.text for expectation in file.expectations
            for named in (expectation.sources, expectation.destinations, expectation.services) for word in named
        }  # fmt: skip
        self._refuse(len(words) * (250 + len(policy.instances)), len(file.expectations))
        self._resolved = []
        errors = DocumentErrors(file.origin)
        for expectation in file.expectations:
            with errors:
                self._resolved.append(self._looked_up(expectation))
        errors.raise_all()

    def _looked_up(self, expectation: Expectation) -> _Resolved:
        sources, destinations = (
            {word.text: self._end(word) for word in words} for words in (expectation.sources, expectation.destinations)
        )
        nobody = [
            word for word in (*expectation.sources, *expectation.destinations) if _is_nobody(self._ends[word.text])
        ]
        return _Resolved(
            expectation, _joined(sources.values()), _joined(destinations.values()),
            _together({word.text: self._service(word) for word in expectation.services}.values()), tuple(nobody),
        )  # fmt: skip

    def _end(self, word: Word) -> NamedEnd:
        if word.text not in self._ends:
            try:
                self._ends[word.text] = named_end(self.policy, word.text, self._suggest)
            except PolicyError as error:
                cause = str(error).removeprefix(f"{shown_origin(self.policy.origin)}: ")
                raise PolicyError(f"{word.place}: {cause}", word.position) from None
        return self._ends[word.text]

    def _service(self, word: Word) -> ServiceSet:
        if word.text not in self._services:
            try:
                self._services[word.text] = named_service(word.text)
            except ArgumentError as error:
                raise PolicyError(f"{word.place}: {error}", word.position) from None
        return self._services[word.text]

    @cached_property
    def _shared(self) -> SharedGround:
        return SharedGround(self.policy)

    @property
    def all(self) -> list[Expectation]:
        """The expectations in the order of the file."""
        return [resolved.expectation for resolved in self._resolved]

    @property
    def about_nobody(self) -> list[Expectation]:
        """Expectations of which one end is nobody, or no end is or has the address of an instance. ``prove`` also finds
        expectations that are about no packet for other reasons, and takes longer.
        """
        touching = {text for text, end in self._ends.items() if self._touches_instance(end)}
        return [
            resolved.expectation
            for resolved in self._resolved
            if any(all(map(_is_nobody, ends)) for ends in (resolved.sources, resolved.destinations))
            or touching.isdisjoint(
                word.text for word in (*resolved.expectation.sources, *resolved.expectation.destinations)
            )
        ]

    def _touches_instance(self, end: NamedEnd) -> bool:
        ranges = {family: addresses_of(end.networks, family) for family in (4, 6)}
        owned = (network for instance in self.policy.instances for network in instance.addresses if end.owned)
        return bool(end.instances) or any(
            lowest(ranges[network.version], *range_of(network)) is not None for network in owned
        )

    def prove(self, accept_evidence: Sequence[EvidenceCode] = ()) -> ExpectationsResult:
        """Hold each expectation against all packets that it is about. ``accept_evidence``: codes of reasons to doubt
        the answer that do not count for its ``evidence``.

        Raises PolicyError if that would take too long (SPEC 11.1).
        """
        accepted = known_codes(accept_evidence)
        self._refuse(self._all_steps(), len(self._resolved))
        outcomes = tuple([self._outcome(resolved, accepted) for resolved in self._resolved])
        return ExpectationsResult(self.policy, self.origin, outcomes, accepted)

    def _refuse(self, steps: int, expectations: int) -> None:
        if steps > MAX_STEPS:
            raise PolicyError(
                f"{shown_origin(self.origin)}: {expectations:,} expectations of a policy with "
                f"{count_rules(self.policy):,} rules, {count_addresses(self.policy):,} addresses and "
                f"{len(self.policy.vpcs):,} VPCs are too much work: divide the file"
            )

    def _all_steps(self) -> int:
        """Estimate the steps of all proofs. Once the estimate exceeds the limit, the result is just some number above
        it."""
        views, steps = Views(self.policy), 0
        for resolved in self._resolved:
            steps += self._steps(resolved)
            for sources, destinations in product(resolved.sources, resolved.destinations):
                if steps > MAX_STEPS:
                    return steps
                for family in (4, 6):
                    vpc_steps = [in_vpc for _, in_vpc in views.vpcs_to_search(family, sources, destinations)]
                    # ``_steps`` already counts the first VPC.
                    steps += 2 * sum(in_vpc + views.networks[family] for in_vpc in vpc_steps[1:])
        return steps

    def _steps(self, resolved: _Resolved) -> int:
        """Estimate the steps of one proof in one VPC. Each pair of ends is searched for both verdicts, and each search
        visits everything that the policy and the ends name. Each network of an end is also compared with the other end,
        which takes longest.
        """
        ends = (*resolved.sources, *resolved.destinations)
        named = sum(50 * len(end.networks) + len(end.instances) for end in ends)
        policy = 10 * count_rules(self.policy) + count_addresses(self.policy)
        return 2 * len(resolved.sources) * len(resolved.destinations) * (250 + policy + named)

    def _outcome(self, resolved: _Resolved, accepted: Sequence[EvidenceCode]) -> Outcome:
        expected_verdict = resolved.expectation.verdict
        notes: list[str] = []
        opener, about_something = self._contradiction(resolved, expected_verdict, notes)
        return Outcome(
            resolved.expectation, None if opener is None else self._explained(opener, expected_verdict, accepted),
            about_something, resolved.nobody, tuple(notes),
        )  # fmt: skip

    def _contradiction(
        self, resolved: _Resolved, expected_verdict: Action, notes: list[str]
    ) -> tuple[Opener | None, bool]:
        """Return a packet that contradicts the expectation, and whether a filter judges any packet."""
        about_something = False
        for sources, destinations in product(resolved.sources, resolved.destinations):
            try:
                opener, is_judged = contradiction(
                    self.policy, sources, destinations, resolved.services, expected_verdict, notes, self._shared
                )
            except TooMuch as error:
                raise PolicyError(f"{resolved.expectation.place}: {error}") from None
            about_something |= is_judged
            if opener is not None:
                return opener, True
        return None, about_something

    def _explained(self, opener: Opener, expected_verdict: Action, accepted: Sequence[EvidenceCode]) -> Explanation:
        """Explain a packet that contradicts an expectation. ``accepted``: codes of evidence that somebody accepts."""
        vpc = opener.vpc
        if vpc is None:
            assert opener.source.instance is not None
            vpc = opener.source.instance.vpc
        ends = [end.instance or end.address for end in (opener.source, opener.destination)]
        filters = filters_about(self.policy, vpc, ends)
        explained = explain_opener(
            self.policy, filters, opener.source, opener.destination, opener.service, accepted=accepted
        )
        if (explained.verdict == "deny") != (expected_verdict == "allow"):
            raise AssertionError(f"the engine says otherwise: {sentence(explained)}")
        return explained

    def covering(self, rows: Iterable[Seen]) -> list[Expectation | None]:
        """Find an expectation for each row: the first that is about it and contradicts its verdict, else the first that
        is about it, else None."""
        index = _Index(self._resolved, self._ends, self._services)
        return [None if (n := index.first(row)) is None else self._resolved[n].expectation for row in rows]


@dataclass(frozen=True, slots=True)
class _Resolved:
    """An expectation with its names looked up."""

    expectation: Expectation
    sources: list[NamedEnd]
    destinations: list[NamedEnd]
    services: ServiceSet
    nobody: tuple[Word, ...]


def _is_nobody(end: NamedEnd) -> bool:
    return not (end.instances or end.networks)


def _joined(ends: Iterable[NamedEnd]) -> list[NamedEnd]:
    """Merge ends into fewer ends with the same addresses and instances, because each pair of ends is a separate
    query."""
    all_ends = [*ends]
    plain = [end for end in all_ends if end.owned and not end.without]
    special_ends = [end for end in all_ends if not end.owned or end.without]
    if len(plain) < 2:
        return all_ends
    instances = frozenset().union(*(end.instances for end in plain))
    networks = tuple(network for end in plain for network in end.networks)
    kind: Literal["any", "network"] = "any" if any(end.kind == "any" for end in plain) else "network"
    return [NamedEnd(kind, "several", instances, networks), *special_ends]


def _together(services: Iterable[ServiceSet]) -> ServiceSet:
    service_sets = [*services]
    four, six = (union(ports for service_set in service_sets for ports in service_set.of(family)) for family in (4, 6))
    return ServiceSet(four, six)


class _Index:
    """Index of expectations by connection. A set of expectations is an integer whose bit n represents expectation n."""

    def __init__(
        self, resolved: Sequence[_Resolved], ends: Mapping[str, NamedEnd], services: Mapping[str, ServiceSet]
    ) -> None:
        sets: list[defaultdict[str, int]] = [defaultdict(int) for _ in range(3)]
        self._expecting: dict[Action, int] = {"allow": 0, "deny": 0}
        for n, expectation in enumerate(answer.expectation for answer in resolved):
            self._expecting[expectation.verdict] |= 1 << n
            words = (expectation.sources, expectation.destinations, expectation.services)
            for numbers_by_word, named in zip(sets, words, strict=True):
                for word in named:
                    numbers_by_word[word.text] |= 1 << n
        members = {text: _Members(end) for text, end in ends.items()}
        self._sources = [(members[text], expecting) for text, expecting in sets[0].items()]
        self._destinations = [(members[text], expecting) for text, expecting in sets[1].items()]
        self._services = [(services[text], expecting) for text, expecting in sets[2].items()]
        # Many rows have the same ends or the same service.
        self._from = cache(partial(_about_end, self._sources))
        self._to = cache(partial(_about_end, self._destinations))
        self._for = cache(self._about_service)

    def first(self, row: Seen) -> int | None:
        ends = self._from(*_key(row.source)) & self._to(*_key(row.destination))
        about = ends and ends & self._for(row.source.address.version, row.protocol, _port_key(row))
        chosen = about & self._expecting[_OPPOSITE[row.verdict]] or about
        return (chosen & -chosen).bit_length() - 1 if chosen else None

    def _about_service(self, family: int, protocol: int, key: int) -> int:
        number = protocol * KEYS + key
        return _union(
            expecting for services, expecting in self._services
            if lowest(services.of(family), number, number) is not None
        )


def _key(end: End) -> tuple[Address, str | None]:
    return end.address, None if end.instance is None else end.instance.name


def _port_key(row: Seen) -> int:
    return row.port if row.port is not None else (row.icmp_type or 0) * 256 + (row.icmp_code or 0)


def _about_end(members_expecting: Sequence[tuple[_Members, int]], address: Address, owner: str | None) -> int:
    return _union(expecting for members, expecting in members_expecting if members.contain(address, owner))


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)


class _Members:
    """The addresses of an end."""

    def __init__(self, end: NamedEnd) -> None:
        self._end = end
        self._ranges = {
            family: difference(addresses_of(end.networks, family), addresses_of(end.without, family))
            for family in (4, 6)
        }

    def contain(self, address: Address, owner: str | None) -> bool:
        """Return whether the end contains the address. ``owner`` is the name of the instance that owns it, if any."""
        if owner is not None and (owner in self._end.instances or not self._end.owned):
            return owner in self._end.instances
        return lowest(self._ranges[address.version], int(address), int(address)) is not None
