"""Write a first expectations file (SPEC 10.23) from captures: the connections that worked in them, in few lines.

    captures --replay, all allowed--> observing.Observer --kinds of connections--> rules.suggest_rules --> lines
        --proving.Expectations--> a line is kept if it holds for all packets, or if the policy denies all connections
            seen of it; any other line is divided into lines about the addresses that were seen
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address, ip_network
from textwrap import fill, indent
from typing import Literal

from sgfast.base.errors import PolicyError, SgfastError
from sgfast.base.names import count, printable
from sgfast.policy.expectations import Expectation, parse_expectations
from sgfast.policy.lookup import vpc_name
from sgfast.policy.matching import End, Kind
from sgfast.policy.model import ICMP, ICMPV6, AddressGroupPeer, Direction, GroupPeer, Policy, Rule
from sgfast.policy.protocols import ICMP_NAMES, protocol_name
from sgfast.policy.ranges import union
from sgfast.policy.rule_text import ports_text, quoted, short
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.suggesting.instances import opened
from sgfast.questions.suggesting.observing import Observer, TrafficTotals, all_answered, observe
from sgfast.questions.suggesting.rules import Limits, suggest_rules
from sgfast.rules.reaching.ends import named_end
from sgfast.rules.reaching.explaining import sentence
from sgfast.rules.reaching.filters import filters_about
from sgfast.rules.reaching.proving import Expectations, Seen
from sgfast.rules.reaching.services import SingleService

Progress = Callable[[int, int], None]

#: A service is expected of ``internet`` if more public addresses than this used it, and else of each of the addresses.
FEW_ADDRESSES = 3
#: The most lines of a file, and the most that are proved at a time. Nobody reads more, and each line takes a proof.
MOST_LINES = 1_000
_COMMENT_WIDTH = 100
#: The most ranges of ports in one text. Texts must stay shorter than the limit for reading them (SPEC 2.14).
_RANGES = 20
_UNQUOTED = re.compile(r"[a-z]+/[0-9-]+")


@dataclass(frozen=True, slots=True)
class FirstExpectations:
    """The result. ``text`` is the content of the file."""

    text: str
    #: The number of expectations, and of the expectations that the policy contradicts, which a comment marks.
    lines: int
    denied: int
    #: The replay that found them.
    replay: ReplayResult
    warnings: list[str] = field(default_factory=list)


#: A protocol, and a port or an ICMP type of it. None means every port or type.
_Service = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class _Line:
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    services: tuple[_Service, ...]

    def text(self, end: str = "") -> str:
        words = _service_words(self.services)
        fields = (("from", self.sources), ("to", self.destinations), ("service", words))
        values = (f"{key}: {_value(words)}" for key, words in fields)
        return f"  - {{{', '.join(values)}, verdict: allow}}{end}\n"


_Lines = dict[_Line, set[Kind]]
"""Lines, each with the kinds of connections that it is about."""


def first_expectations(
    policy: Policy,
    captures: Sequence[str | os.PathLike[str]],
    options: ReplayOptions,
    progress: Progress | None = None,
) -> FirstExpectations:
    """Write the connections that worked in the captures as expectations of the policy.

    Raises the errors of ``replay``, and SgfastError if no connection worked.
    """
    observer = Observer(all_answered(False), policy.settings)
    result = observe(opened(policy), captures, observer, options, progress)
    kinds = observer.wanted
    if not kinds:
        captured = ", ".join(map(printable, result.captures))
        raise SgfastError(f"{captured}: no connection of an instance was answered, so there is nothing to expect")
    allowed = _allowed(policy, options.vpc, kinds)
    lines = {
        line: sum(kinds[kind].connections for kind in covered)
        for line, covered in _lines(policy, kinds, allowed).items()
    }
    kept_lines = dict(sorted(lines.items(), key=lambda item: -item[1])[:MOST_LINES])
    warnings = list(result.warnings)
    if len(kept_lines) < len(lines):
        remaining = count(len(lines) - len(kept_lines), "line")
        warnings.append(f"the file has the {MOST_LINES:,} lines with most connections, and leaves out {remaining}")
    doubts = [] if result.evidence.carries("verdicts", "answers") else [*map(printable, result.evidence.sentences)]
    warnings += doubts
    text = "".join(f"# {comment}\n" for comment in (*doubts, *_comments(result, observer))) + "expect:\n"
    outcomes = _expectations(policy, kept_lines).prove().outcomes
    for (line, connections), outcome in zip(kept_lines.items(), outcomes, strict=True):
        if outcome.counterexample is not None:
            mark = f"The policy denies this: {sentence(outcome.counterexample)}."
            text += indent(fill(mark, _COMMENT_WIDTH), "  # ") + "\n"
        text += line.text(f"  # {count(connections, 'connection')}")
    denied = sum(outcome.counterexample is not None for outcome in outcomes)
    return FirstExpectations(text, len(kept_lines), denied, result, warnings)


def _comments(result: ReplayResult, observer: Observer) -> list[str]:
    left_out = [
        f"Not in it: {count(sum(totals.connections for totals in kinds.values()), 'connection')}, {reason}"
        for reason, kinds in observer.left_out.items()
    ]
    if observer.uncounted:
        left_out.append(f"Not in it: {count(observer.uncounted, 'connection')} of too many kinds")
    return [
        f"What worked in {count(result.packets, 'packet')} of {', '.join(map(printable, result.captures))}. A capture "
        "shows what was used,",
        "not what is meant. Remove what is not meant, and add what the policy must deny, such as",
        "  - {from: internet, to: db, service: all, verdict: deny, why: Only web servers face the internet.}",
        *left_out,
    ]


def _allowed(policy: Policy, vpc: str | None, kinds: Iterable[Kind]) -> set[Kind]:
    """Return the connections that the policy does not deny, each judged as the opener of a connection."""
    vpc, allowed_kinds = vpc_name(policy, vpc), set()
    for kind in kinds:
        source, destination = ip_address(kind.initiator), ip_address(kind.responder)
        port, icmp_type = (None, kind.port) if kind.protocol in (ICMP, ICMPV6) else (kind.port, None)
        service = SingleService(kind.protocol, port, icmp_type, None)
        verdict = filters_about(policy, vpc, (source, destination)).judge(source, destination, service)
        if verdict.verdict != "deny":
            allowed_kinds.add(kind)
    return allowed_kinds


def _lines(policy: Policy, kinds: Mapping[Kind, TrafficTotals], allowed: set[Kind]) -> _Lines:
    """Return lines that together cover all the kinds. The policy allows all packets of a line, or it denies all
    connections of the line that were seen.
    """
    confirmed: _Lines = {}
    contradicted: _Lines = {}
    remaining = set(kinds)
    tried = _about_groups(policy, kinds)[:MOST_LINES]
    while tried:
        divided: list[_Line] = []
        for line, covered, holds in _proved(policy, tried, remaining):
            if holds or not covered & allowed:
                (confirmed if holds else contradicted)[line] = covered
                remaining -= covered
            elif len(line.services) > 1:
                divided += [replace(line, services=(service,)) for service in line.services]
        tried = divided[:MOST_LINES]
    confirmed |= _about_addresses(remaining & allowed)
    contradicted |= _about_addresses(remaining - allowed)
    return _merged(confirmed) | _merged(contradicted)


def _proved(policy: Policy, lines: Sequence[_Line], kinds: Iterable[Kind]) -> Iterator[tuple[_Line, set[Kind], bool]]:
    """Yield each line that covers some kinds, the kinds, and whether the line holds. Each kind belongs to one line."""
    expectations = _expectations(policy, lines)
    covered: defaultdict[Expectation | None, set[Kind]] = defaultdict(set)
    kind_list = [*kinds]
    seen_connections = map(partial(_seen_connections, policy), kind_list)
    for kind, expectation in zip(kind_list, expectations.covering(seen_connections), strict=True):
        covered[expectation].add(kind)
    used = {
        line: covered[expectation]
        for line, expectation in zip(lines, expectations.all, strict=True)
        if expectation in covered
    }
    if used:
        for line, outcome in zip(used, _expectations(policy, used).prove().outcomes, strict=True):
            yield line, used[line], outcome.counterexample is None


def _merged(lines: _Lines) -> _Lines:
    """Return fewer lines with the same meaning: lines that differ in only one field become one."""
    for key in ("services", "sources", "destinations"):
        alike: defaultdict[_Line, list[_Line]] = defaultdict(list)
        for line in lines:
            alike[replace(line, **{key: ()})].append(line)
        lines = {
            replace(
                common_line, **{key: tuple(dict.fromkeys(word for line in mergeable for word in getattr(line, key)))}
            ): set().union(*(lines[line] for line in mergeable))
            for common_line, mergeable in alike.items()
        }  # fmt: skip
    return lines


def _expectations(policy: Policy, lines: Iterable[_Line]) -> Expectations:
    text = "expect:\n" + "".join(line.text() for line in lines)
    return Expectations(policy, parse_expectations(text, "the first expectations"))


def _seen_connections(policy: Policy, kind: Kind) -> Seen:
    source, destination = (
        End(ip_address(address), None if name is None else policy.instance_by_name[name])
        for address, name in ((kind.initiator, kind.egress), (kind.responder, kind.ingress))
    )
    is_icmp = kind.protocol in (ICMP, ICMPV6)
    return Seen(
        source, destination, kind.protocol, None if is_icmp else kind.port, kind.port if is_icmp else None,
        0 if is_icmp else None, "allow",
    )  # fmt: skip


# Lines about groups ---------------------------------------------------------------------------------------------------


def _about_groups(policy: Policy, kinds: Mapping[Kind, TrafficTotals]) -> list[_Line]:
    """Return lines about groups as far as possible. A few kinds may be in no line."""
    lines: dict[Direction, list[_Line]] = {"inbound": [], "outbound": []}
    for suggested in suggest_rules(policy, kinds, Limits(any_above=FEW_ADDRESSES)).rules:
        rule = suggested.rule
        ends = ((_peer(policy, rule),), (_spelled(policy, "group", suggested.group),))
        source, destination = ends if rule.direction == "inbound" else reversed(ends)
        lines[rule.direction].append(_Line(source, destination, _services(rule)))
    # Traffic to an instance is in both lists. Inbound lines come first, so outbound lines cover only traffic elsewhere.
    return [*dict.fromkeys(lines["inbound"] + lines["outbound"])]


def _peer(policy: Policy, rule: Rule) -> str:
    match rule.peer:
        case None:
            return "internet"
        case GroupPeer(name):
            return _spelled(policy, "group", name)
        case AddressGroupPeer(name):
            return _spelled(policy, "address-group", name)
        case network:
            return short(network)


def _spelled(policy: Policy, kind: Literal["group", "address-group", "instance"], name: str) -> str:
    """Return the name, with its kind in front if the name alone could mean something else."""
    try:
        is_unambiguous = named_end(policy, name).kind == kind
    except PolicyError:
        is_unambiguous = False
    return name if is_unambiguous else f"{kind}:{name}"


def _services(rule: Rule) -> tuple[_Service, ...]:
    assert rule.protocol is not None
    if rule.ports is None:
        return ((rule.protocol, rule.icmp_type),)
    return tuple([(rule.protocol, port) for first, last in rule.ports for port in range(first, last + 1)])


def _about_addresses(kinds: Iterable[Kind]) -> _Lines:
    """Return a line for each of the kinds, about this kind only."""
    lines: _Lines = {}
    for kind in sorted(kinds, key=lambda kind: (kind.initiator, kind.responder, kind.protocol, kind.port or 0)):
        source, destination = (short(ip_network(address)) for address in (kind.initiator, kind.responder))
        lines.setdefault(_Line((source,), (destination,), ((kind.protocol, kind.port),)), set()).add(kind)
    return lines


# Words ----------------------------------------------------------------------------------------------------------------


def _service_words(services: Iterable[_Service]) -> tuple[str, ...]:
    """Return the services as an expectations file writes them, with the ports of one protocol together."""
    words: dict[str, None] = {}
    ports: defaultdict[int, list[int]] = defaultdict(list)
    for protocol, number in services:
        name = protocol_name(protocol) or f"protocol {protocol}"
        if number is None:
            words[name] = None
        elif protocol in (ICMP, ICMPV6):
            type_name = ICMP_NAMES[protocol].get(number)
            words[f"{name} {type_name}" if type_name else f"{name}/{number}"] = None
        else:
            ports[protocol].append(number)
    for protocol, numbers in ports.items():
        ranges = union((port, port) for port in numbers)
        for n in range(0, len(ranges), _RANGES):
            words[f"{protocol_name(protocol)}/{ports_text(ranges[n : n + _RANGES], None)}"] = None
    return tuple(words)


def _value(words: tuple[str, ...]) -> str:
    texts = [text if _UNQUOTED.fullmatch(text) else quoted(text) for text in words]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
