"""Kinds of traffic as columns, which the page's script filters, sorts and folds by groups.

    kinds, ends (``report.rollup``) -> Columns -> JSON, gzip, base64 -> page.js

If the text is too long, the smallest kinds are added up. No count is lost.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.engine import REASONS
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import WORDS, Instance, Policy, Rule, called
from sgfast.policy.rule_text import rule_name
from sgfast.questions.replaying.kinds import NEVER, Kinds, coded
from sgfast.questions.replaying.listed_kinds import denied_of, service_of
from sgfast.report.denial_reasons import Cause, Reasons, peer_words, port_words, protocol_words
from sgfast.report.html.markup import plain
from sgfast.report.names import protocol_word, service_name
from sgfast.report.rollup import Rollup
from sgfast.report.rollup.ends import EndName

Numbers = NDArray[np.int64]

_MILLISECOND = 1_000_000

#: Columns that are neither counts nor part of a kind's identity.
_BESIDE = ("cause", "first", "lasted", "number", "lacks")

#: The share of the largest kinds that stays unfolded, and how the rest is folded; tried in this order. The last step
#: is small for all captures: it has a row for each protocol, reason and rule.
_STEPS: tuple[tuple[float, Literal["group", "any"]], ...] = (
    (1, "group"), (0.7, "group"), (0.5, "group"), (0.25, "group"), (0.1, "group"), (0, "group"), (0, "any"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """``kinds``: by column, an array with a number for each kind. Ends, services and rules are indices of the lists."""

    ends: list[str]
    #: The provider's words for instances (SPEC 2.12), by end.
    titles: dict[int, str]
    #: The addresses of each end that is an instance, as text. The page's filter searches this text.
    addresses: dict[int, str]
    #: Group index of each end.
    group: Numbers
    groups: list[str]
    #: By group: ``instances`` or ``addresses``, as its ends are.
    nouns: list[str]
    services: list[str]
    #: The protocol of each service.
    protocols: list[str]
    rules: list[str]
    kinds: dict[str, Numbers]
    #: The columns of ``kinds`` that are counts.
    counted: tuple[str, ...]
    #: The reasons for which kinds are denied.
    causes: list[Cause]
    #: Ends from this index on are several ends folded into one.
    exact: int
    #: The time of the first packet in milliseconds, from which ``first`` counts.
    start: int
    #: Number of decimals of a second that times are shown with.
    decimals: int

    def __len__(self) -> int:
        return len(self.kinds["source"])


def columns_of(
    rollup: Rollup, policy: Policy, reasons: Reasons, rules: Mapping[str, str], start_ns: int, decimals: int,
    counted: Mapping[str, Numbers], more: Mapping[str, Numbers],
) -> Columns:
    """Return the kinds of a roll-up, whose instances and rules are those of ``policy``.

    ``rules``: a line of text about each rule, by its id. ``counted``, ``more``: further columns, of counts and of
    other values.
    """  # fmt: skip
    rows, ends = rollup.kinds.rows, rollup.ends
    used, places = np.unique(np.concatenate([ends.sources, ends.destinations]), return_inverse=True)
    codes, group = np.unique(ends.codes("group")[used], return_inverse=True)
    names = [ends.fine_name(end) for end in used.tolist()]
    groups = [ends.name("group", code) for code in codes.tolist()]
    services = rollup.services.exact
    first = rows[np.unique(services, return_index=True)[1]]
    cause, causes = _causes(rollup.kinds, reasons)
    rule, rule_lines = rules_of(rows["rule"], rollup.kinds.rules, rules)
    start = start_ns // _MILLISECOND
    first_ms = _since(rows, "first_ns", start)
    kinds = {
        "source": places[: len(rows)], "destination": places[len(rows) :], "service": services,
        "reason": rows["reason"], "rule": rule, "inbound": rows["inbound"], **more, **counted, "cause": cause,
        "first": first_ms, "lasted": _since(rows, "last_ns", start) - first_ms,
        "number": np.where(_is_timed(rows), rows["number"], 0),
    }  # fmt: skip
    # In the order of groups, the columns become shorter when they are packed.
    order = np.lexsort((services, group[kinds["destination"]], group[kinds["source"]]))
    return Columns(
        [plain(name.called) for name in names], _titles(policy, names), _addresses(policy, names),
        group.astype(np.int64), labels(groups),
        ["instances" if name.kind == "groups" else "addresses" for name in groups],
        [service_name(service_of(rollup.kinds, row)) for row in first],
        [*map(protocol_word, first["protocol"].tolist())], rule_lines,
        {name: column[order].astype(np.int64) for name, column in kinds.items()}, tuple(counted), causes, len(names),
        start, decimals,
    )  # fmt: skip


def rules_of(numbers: NDArray[Any], ids: Sequence[str], lines: Mapping[str, str]) -> tuple[Numbers, list[str]]:
    """Return by kind the index of its rule in a list (-1: none), and this list, with a line of text for each rule."""
    rule_numbers, place = np.unique(numbers, return_inverse=True)
    named = (ids[n] for n in rule_numbers.tolist() if n >= 0)
    return place - int((rule_numbers < 0).sum()), [lines.get(rule, plain(rule)) for rule in named]


def _causes(kinds: Kinds, reasons: Reasons) -> tuple[Numbers, list[Cause]]:
    """Return by kind the index of its cause (-1: none), and the causes. Large kinds come first, because of a limit."""
    rows = kinds.rows
    numbers: dict[int, int] = {}
    causes: list[Cause] = []
    of_kind = np.full(len(rows), -1)
    is_denied = (rows["packets"] > 0) & (rows["family"] > 0) & (rows["instance"] >= 0)
    if "turned" in (rows.dtype.names or ()):
        # If a kind is turned around, the denied packet has another service.
        is_denied &= rows["turned"] == 0
    denied = np.flatnonzero(is_denied)
    for place in denied[np.argsort(-rows["packets"][denied].astype(np.int64), kind="stable")].tolist():
        cause = reasons.cause(denied_of(kinds, rows[place]))
        number = of_kind[place] = numbers.setdefault(id(cause), len(causes))
        if number == len(causes):
            causes.append(cause)
    return of_kind, causes


def _is_timed(rows: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(rows["first_ns"] != NEVER[0])


def _since(rows: NDArray[Any], name: str, start: int) -> Numbers:
    """Return milliseconds since ``start``; -1: not known."""
    return np.where(_is_timed(rows), np.maximum(rows[name] // _MILLISECOND - start, 0), -1)


def labels(names: Sequence[EndName]) -> list[str]:
    """Return the groups' names, made unique because the page's address names groups by them."""
    labels: dict[str, None] = {}
    for name in names:
        label = plain(name.called)
        if label in labels:
            label = f"{label} ({name.kind})"
        labels[label if label not in labels else f"{label} {len(labels)}"] = None
    return [*labels]


def _titles(policy: Policy, names: Sequence[EndName]) -> dict[int, str]:
    titles = {n: title_of(policy, name.text) for n, name in enumerate(names) if name.kind == "instance"}
    return {n: plain(title) for n, title in titles.items() if title}


def _addresses(policy: Policy, names: Sequence[EndName]) -> dict[int, str]:
    instances = policy.instance_by_name
    return {
        n: plain(addresses_text(instances[name.text]))
        for n, name in enumerate(names) if name.kind == "instance" and name.text in instances
    }  # fmt: skip


def addresses_text(instance: Instance) -> str:
    """Return the addresses of an instance, single ones without the length of their prefix."""
    return " ".join(str(address).removesuffix(f"/{address.max_prefixlen}") for address in instance.addresses)


def title_of(policy: Policy, name: str) -> str:
    """Return the provider's words for an instance (SPEC 2.12)."""
    instance = policy.instance_by_name.get(name)
    return ", ".join(word for key in WORDS if (word := getattr(instance, key, "")))


def rule_line(policy: Policy, rule: Rule, group_name: str, lines: Lines) -> str:
    """Return a rule as one line of text. ``lines``: the line numbers of the document's rules. The name that kinds.js
    shows in cells stands before `` (group ``.
    """
    name = rule_name(policy, rule, group_name)
    group = policy.group_by_name.get(group_name)
    place = f"{name} (group {called(group) if group else group_name}{line_words(rule, lines)}): {rule.action}"
    priority = f", priority {rule.priority}" if rule.priority != 1 else ""
    if name != rule.id:     # The name has the rule's words in it.
        return plain(f"{place}{priority}")
    ports, end = port_words(rule), "from" if rule.direction == "inbound" else "to"
    matched = f"{rule.direction} {protocol_words(rule)}{' ' if ports else ''}{ports} {end} {peer_words(rule, policy)}"
    described = f" · {rule.description}" if rule.description else ""
    return plain(f"{place} {matched}{priority}{described}")


def line_words(rule: Rule, lines: Lines) -> str:
    """Return ``, line 12``; nothing if the rule has no line of its own, such as a rule of a template or an export."""
    line = lines.get(("rules", rule.id))
    return "" if line is None else f", line {line}"


# As text -------------------------------------------------------------------------------------------------------------


def packed(columns: Columns, most: int, more: Mapping[str, object]) -> tuple[str, int]:
    """Return the page's data as a text of at most ``most`` characters, and the number of kinds that are not folded.
    ``more``: further data for the page.
    """
    text, kept_kinds, room = "", len(columns), 1.0
    for share, level in _STEPS:
        # Skip a step that is too long even if the folded kinds need no room.
        if share > room:
            continue
        kept_kinds = int(share * len(columns))
        text = _text(columns if share == 1 else folded(columns, kept_kinds, level), more)
        if len(text) <= most:
            break
        room = share * most / len(text)
    return text, kept_kinds


def _text(columns: Columns, further_data: Mapping[str, object]) -> str:
    names = ("ends", "titles", "addresses", "groups", "nouns", "services", "rules", "exact", "start", "decimals")
    fields = {name: getattr(columns, name) for name in names}
    kinds = {name: column.tolist() for name, column in columns.kinds.items()}
    reasons = [reason or "" for reason in REASONS]
    whole = {**fields, "group": columns.group.tolist(), "reasons": reasons, "kinds": kinds}
    return packed_text({**whole, **further_data})


def packed_text(data: object) -> str:
    """Return data as a text that page.js can read."""
    document = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(gzip.compress(document.encode(), 6, mtime=0)).decode()


def folded(columns: Columns, kept: int, level: Literal["group", "any"]) -> Columns:
    """Keep the largest kinds, first of all those that would break, and add up the rest by protocol and group, or by
    protocol alone.
    """
    kinds = columns.kinds
    breaks = kinds["breaks" if "breaks" in kinds else "answered"]
    size = sum((kinds[name] for name in columns.counted if name != "bytes"), np.zeros(len(columns), dtype=np.int64))
    order = np.lexsort((-size, breaks == 0))
    largest, rest_places = np.sort(order[:kept]), order[kept:]
    groups, nouns = columns.groups, columns.nouns
    if level == "group":
        end_names = [plain(f"other {noun} of {group}") for group, noun in zip(groups, nouns, strict=True)]
        group = np.arange(len(groups))
        coarse = {end: len(columns.ends) + columns.group[kinds[end][rest_places]] for end in ("source", "destination")}
    else:
        end_names, group = ["others"], np.array([len(groups)])
        groups, nouns = [*groups, "others"], [*nouns, "addresses"]
        coarse = {end: np.full(len(rest_places), len(columns.ends)) for end in ("source", "destination")}
    protocols, protocol = np.unique(np.array(columns.protocols), return_inverse=True)
    coarse["service"] = len(columns.services) + protocol[kinds["service"][rest_places]]
    added = _added_up({name: coarse.get(name, column[rest_places]) for name, column in kinds.items()}, columns.counted)
    return replace(
        columns, ends=columns.ends + end_names, group=np.concatenate([columns.group, group]), groups=groups,
        nouns=nouns, services=columns.services + [f"{name}, several" for name in protocols.tolist()],
        kinds={name: np.concatenate([column[largest], added[name]]) for name, column in kinds.items()},
    )  # fmt: skip


def _added_up(kinds: Mapping[str, Numbers], counted: Sequence[str]) -> dict[str, Numbers]:
    """Add up equal kinds, so that each occurs once. Times, packet numbers and causes are left out: they are about
    single kinds.
    """
    key = [name for name in kinds if name not in (*counted, *_BESIDE)]
    codes = coded(*(kinds[name] for name in key))
    _, first = np.unique(codes, return_index=True)
    added_columns = {name: kinds[name][first] for name in key}
    for name in counted:
        added_columns[name] = np.zeros(len(first), dtype=np.int64)
        np.add.at(added_columns[name], codes, kinds[name])
    nothing, zero = np.full(len(first), -1), np.zeros(len(first), dtype=np.int64)
    beside = {"cause": nothing, "first": nothing, "lasted": zero, "number": zero, "lacks": nothing}
    return {**added_columns, **{name: column for name, column in beside.items() if name in kinds}}


def sums(codes: Numbers, counts: Numbers, number: int) -> Numbers:
    """Return for each code below ``number`` the sum of its counts."""
    total = np.zeros(number, dtype=np.int64)
    np.add.at(total, codes, counts)
    return total


def largest(names: Iterable[str], counts: Numbers) -> list[tuple[str, int]]:
    """Return the names with counts other than 0, largest first."""
    pairs = [(name, count) for name, count in zip(names, counts.tolist(), strict=True) if count]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
