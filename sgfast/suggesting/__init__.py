"""The rules that traffic needs: captures to a policy that allows what was seen, and says what each rule rests on.

    captures --replay, all allowed, or a policy's--> observing.Observer --kinds of connections--> rules.suggest_rules
        --> document --parsed again, replayed over the same captures--> the check that it allows what it claims
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sgfast.capture import Damage
from sgfast.errors import ArgumentError
from sgfast.policy.document import parse_policy
from sgfast.policy.model import Policy, Quotas
from sgfast.replaying import ReplayResult, run_replay
from sgfast.replaying.cutting import PacketsLeftOut
from sgfast.replaying.options import Reading, ReplayOptions
from sgfast.replaying.results import Sinks, count
from sgfast.suggesting.document import document
from sgfast.suggesting.instances import (
    grouped_by_service,
    is_ungrouped,
    load_instances,
    one_group_each,
    opened,
    starter,
)
from sgfast.suggesting.observing import (
    Evidence,
    Filter,
    Kind,
    Observer,
    PrivateHosts,
    all_answered,
    allowed_ones,
)
from sgfast.suggesting.rules import Limits, SuggestedRule, suggest_rules

__all__ = ["Evidence", "Limits", "Suggestion", "load_instances", "suggest"]

Progress = Callable[[int, int], None]

#: Replays through what is suggested, each time without what turned out not to open any more.
MOST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Connections no rule is suggested for."""

    reason: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Check:
    """The captures replayed through the suggested policy."""

    #: Connections it was made for, and how many of them it allows.
    claimed: int
    allowed: int
    #: Connections that were left out and are allowed all the same: the rules cannot tell them from the others.
    also_allowed: int
    #: Of each kind as many are allowed as claimed.
    matches: bool


@dataclass(frozen=True, slots=True)
class Suggestion:
    policy: Policy
    #: The policy as YAML, with comments.
    text: str
    rules: tuple[SuggestedRule, ...]
    left_out: tuple[LeftOut, ...]
    check: Check
    #: Packets that belong to no connection of an instance, by verdict and reason.
    other_packets: dict[str, int]
    captures: tuple[str, ...]
    #: Packets of the captures that were not looked at; None: all of them were to be.
    packets_left_out: PacketsLeftOut | None
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)


def suggest(
    captures: Sequence[str | os.PathLike[str]],
    *,
    instances: Policy | None = None,
    policy: Policy | None = None,
    allowed_only: bool = False,
    unanswered: bool = False,
    per: Literal["group", "instance"] = "group",
    limits: Limits | None = None,
    vpc: str | None = None,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> Suggestion:
    """The policy that ``captures`` (files: they are read two or three times) ask for.

    ``instances``: whom it is for; only instances, VPCs, settings and the groups' names count. None: those of
    ``policy``, else the private addresses. ``policy`` with ``allowed_only``: only connections it allows; otherwise
    those that were answered, with ``unanswered`` also silent ones. ``per``: rules for the groups instances are in, or
    for groups of their own. ``limits``: how far rules may go beyond what was seen.

    Raises PolicyError, CaptureError and whatever ``replay`` does; SgfastError for too many private addresses;
    ArgumentError for ``allowed_only`` without a policy.
    """
    options = ReplayOptions(vpc=vpc, reading=reading or Reading())
    if allowed_only and policy is None:
        raise ArgumentError("allowed_only needs a policy")
    base = instances or policy
    if base is None:
        hosts = PrivateHosts()
        run_replay(Policy(), captures, replace(options, vpc=None), Sinks(packets=(hosts,)), progress)
        base = starter(hosts.addresses())
    why_not = allowed_ones if allowed_only else all_answered(unanswered)
    replayed = policy if allowed_only and policy is not None else opened(base)
    seen, result = _observe(replayed, captures, why_not, options, progress)
    if per == "instance":
        target = one_group_each(base)
    elif (instances is None and policy is None) or is_ungrouped(base):
        target = grouped_by_service(base, seen.wanted)
    else:
        target = base
    limits = limits or Limits()
    wanted = seen.wanted
    left_out = [LeftOut(reason, _total(kinds.values())) for reason, kinds in seen.left_out.items()]
    if seen.uncounted:
        left_out.append(LeftOut("too many kinds of connections", Evidence(connections=seen.uncounted)))
    too_few, following = Evidence(), Evidence()
    for _ in range(MOST_ROUNDS):
        suggested = suggest_rules(target, wanted, limits)
        too_few.add(_total(evidence for kind, evidence in wanted.items() if kind in suggested.too_few))
        claimed = {kind: evidence for kind, evidence in wanted.items() if kind not in suggested.too_few}
        warnings = list(result.warnings)
        quotas = _raised(target, max((len(group.rules) for group in suggested.groups), default=0), warnings)
        made = replace(target, security_groups=suggested.groups, address_groups=(), quotas=quotas)
        few = f"fewer than {limits.min_connections} of one service and peer"
        parts = (*left_out, LeftOut(few, too_few), LeftOut("would follow a connection that is left out", following))
        reasons = sorted(
            (part for part in parts if part.evidence.connections),
            key=lambda part: (-part.evidence.connections, part.reason),
        )
        text = document(made, suggested.rules, _comments(result, claimed, reasons))
        # What is checked is what people get: the text, not what it was made of.
        final = parse_policy(text, "the suggested policy")
        again, _ = _observe(final, captures, why_not, options, progress)
        check = _check(claimed, again)
        if check.matches:
            break
        # Between two ends that both open, what a denied connection left behind may keep the other end's from opening
        # (SPEC 9.2), or let it open more often. What is so cannot be claimed.
        wanted = {kind: again.wanted[kind] for kind in claimed if kind in again.wanted}
        for kind, evidence in claimed.items():
            following.add(_less(evidence, wanted.get(kind, Evidence())))
    return Suggestion(
        final, text, suggested.rules, tuple(reasons), check, _other_packets(result), result.captures, result.left_out,
        result.damaged, warnings,
    )  # fmt: skip


def _observe(
    policy: Policy, captures: Sequence[str | os.PathLike[str]], why_not: Filter, options: ReplayOptions,
    progress: Progress | None,
) -> tuple[Observer, ReplayResult]:  # fmt: skip
    observer = Observer(why_not)
    result = run_replay(policy, captures, options, Sinks(flows=(observer,)), progress)
    # Connections end in an order that is another every time.
    observer.wanted = _in_order(observer.wanted)
    observer.left_out = {reason: _in_order(kinds) for reason, kinds in sorted(observer.left_out.items())}
    return observer, result


def _in_order(kinds: dict[Kind, Evidence]) -> dict[Kind, Evidence]:
    """By the time they were first seen."""
    return dict(sorted(kinds.items(), key=lambda item: (item[1].first_ns or 0, item[0].initiator, item[0].responder,
                                                        item[0].protocol, item[0].port or 0)))  # fmt: skip


def _raised(policy: Policy, most_rules: int, warnings: list[str]) -> Quotas:
    quotas = policy.quotas
    if most_rules > quotas.rules_per_group:
        warnings.append(
            f"a group has {most_rules} rules: quotas.rules_per_group is raised from {quotas.rules_per_group}; "
            "--max-prefix and --any-above make fewer"
        )
        quotas = replace(quotas, rules_per_group=most_rules)
    groups = len(policy.security_groups)
    if groups > quotas.security_groups:
        warnings.append(f"there are {groups} groups: quotas.security_groups is raised from {quotas.security_groups}")
        quotas = replace(quotas, security_groups=groups)
    return quotas


def _total(parts: Iterable[Evidence]) -> Evidence:
    total = Evidence()
    for part in parts:
        total.add(part)
    return total


def _less(evidence: Evidence, other: Evidence) -> Evidence:
    """What ``evidence`` has more, if it has more connections."""
    if evidence.connections <= other.connections:
        return Evidence()
    return replace(
        evidence, connections=evidence.connections - other.connections,
        packets=max(0, evidence.packets - other.packets), bytes=max(0, evidence.bytes - other.bytes),
        examples=list(evidence.examples),
    )  # fmt: skip


def _comments(result: ReplayResult, claimed: dict[Kind, Evidence], left_out: list[LeftOut]) -> list[str]:
    allowed = sum(evidence.connections for evidence in claimed.values())
    comments = [
        f"Suggested by sgfast from {count(result.packets, 'packet')} of {', '.join(result.captures)}:",
        f"allows {count(allowed, 'connection')} that were seen. A capture shows what was used, not what is needed.",
    ]
    if result.left_out is not None:
        comments.append(f"Not looked at: {count(result.left_out.total, 'packet')} (--start, --end, --filter, --dedup)")
    comments += [f"Left out: {count(each.evidence.connections, 'connection')}, {each.reason}" for each in left_out]
    return comments


def _check(claimed: dict[Kind, Evidence], again: Observer) -> Check:
    """Connections are compared kind by kind."""
    found = {kind: evidence.connections for kind, evidence in again.wanted.items()}
    wanted = {kind: evidence.connections for kind, evidence in claimed.items()}
    allowed = sum(min(number, found.get(kind, 0)) for kind, number in wanted.items())
    also = sum(number - wanted.get(kind, 0) for kind, number in found.items() if number > wanted.get(kind, 0))
    for reason, kinds in again.left_out.items():
        if not reason.startswith("denied"):
            also += sum(evidence.connections for evidence in kinds.values())
    return Check(
        sum(wanted.values()), allowed, also, all(found.get(kind, 0) == number for kind, number in wanted.items())
    )


def _other_packets(result: ReplayResult) -> dict[str, int]:
    verdicts = {word: number for word, number in result.verdicts.items() if number and word not in ("allow", "deny")}
    broken = ("malformed", "truncated", "fragment", "invalid", "midstream")
    return verdicts | {word: result.reasons[word] for word in broken if word in result.reasons}
