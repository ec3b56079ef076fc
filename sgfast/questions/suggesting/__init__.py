"""Suggest a policy that allows the connections in captures, with evidence for each rule.

    captures --replay, allowing all or by a policy--> observing.Observer --kinds of connections--> rules.suggest_rules
        --> document --parsed again, replayed over the same captures--> check that it allows the stated connections
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from sgfast.base.errors import AmbiguousAddress, ArgumentError, TooMuch
from sgfast.base.evidence import SOUND, Evidence, EvidenceCode, EvidenceReason
from sgfast.base.names import count, listed
from sgfast.base.notebook import SHOWN_ROWS, Shown, html_doubts, html_table
from sgfast.clouds.loading import PolicySource, load, parse_policy
from sgfast.core.base.reasons import REASON_TABLE, ReasonWord
from sgfast.policy.matching import Kind, RuleInGroup
from sgfast.policy.model import Policy, Quotas
from sgfast.policy.profiles import PROFILES
from sgfast.policy.rule_text import rule_text
from sgfast.policy.yaml_nodes import shown_origin
from sgfast.questions.replaying import ReplayResult, run_replay
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.removal import evidence_for_removal
from sgfast.questions.replaying.results import Sinks
from sgfast.questions.suggesting.denials import Denials
from sgfast.questions.suggesting.document import document
from sgfast.questions.suggesting.instances import (
    grouped_by_service,
    is_ungrouped,
    load_instances,
    one_group_each,
    opened,
    starter,
)
from sgfast.questions.suggesting.keeping import keep as keep_all
from sgfast.questions.suggesting.keeping import without_unused
from sgfast.questions.suggesting.observing import (
    Observer,
    PrivateHosts,
    Progress,
    TrafficTotals,
    all_answered,
    allowed_ones,
    observe,
)
from sgfast.questions.suggesting.rules import Limits, SuggestedRule, suggest_rules
from sgfast.rows.verdicts import VerdictWord
from sgfast.traffic.capture import Damage
from sgfast.traffic.flow_logs.log_records import OPENERS_TOLD_BY, LogRecords
from sgfast.traffic.flow_logs.unlogged import UnseenRule, said_of_lacking, said_of_unlogged, said_of_unseen
from sgfast.traffic.packet_selection import PacketsLeftOut
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.time_window import parse_duration

if TYPE_CHECKING:
    from sgfast.rules.reaching.difference import Difference
else:
    # Only a suggestion with a policy needs it.
    Difference = Any

__all__ = ["LeftOut", "Limits", "Suggestion", "TrafficTotals", "load_instances", "suggest"]

ONLY_FILES = "{}: captures are read several times; save this one to a file first"
#: The maximum number of replays with a suggested policy. Each round drops connections that do not open under it.
MOST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Connections for which no rule is suggested.

    ``reason``: the reason why there is no rule.
    ``evidence``: the traffic of these connections.
    ``kinds``: the parts that ``evidence`` adds up; empty if there was no room to count them separately.
    """

    reason: str
    evidence: TrafficTotals
    kinds: dict[Kind, TrafficTotals] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """Result of a replay of the captures with the suggested policy.

    ``claimed``: the number of connections that the policy was made for.
    ``allowed``: the number of these that the policy allows.
    ``also_allowed``: the number of other connections that are allowed because the rules cannot distinguish them from
    the claimed ones.
    ``matches``: whether exactly the claimed connections of each kind are allowed, and none that the given policy
    denies or that the cloud rejected; and whether no rule is for members of groups whom the given policy denies it.
    """

    claimed: int
    allowed: int
    also_allowed: int
    matches: bool


@dataclass(frozen=True, slots=True)
class Suggestion(Shown):
    """A policy that allows the connections in captures, with the reason for each of its rules.

    ``policy``: the suggested policy.
    ``text``: the policy as YAML, with comments.
    ``rules``: the suggested rules; with ``keep`` only those that were added.
    ``left_out``: connections for which no rule is suggested.
    ``check``: the replay of the captures with the suggested policy.
    ``other_packets``: the number of packets that belong to no connection of an instance, by verdict or reason.
    ``captures``: the captures as the caller named them.
    ``packets_left_out``: the packets of the captures that were skipped; None: no option skips packets.
    ``records``: what became of the records of flow logs; None if the captures were packets.
    ``damaged``: the place at which a capture is damaged; None: no capture is.
    ``warnings``: full sentences about what the user should know.
    ``evidence``: reasons to doubt that the captures show all that the policy must allow (SPEC 10.27).
    ``kept``: the number of rules that the suggested policy has from the given one; None without ``keep`` and
    ``remove``.
    ``removed``: the rules of the given policy that ``remove`` took away. Of two twins (SPEC 2.16), only the first one
    is here.
    ``unseen_rules``: the rules of the given policy that ``remove`` kept although no record shows them in use, as flow
    logs cannot tell whether they are unused; None without ``remove``, or if the captures were packets.
    ``difference``: the comparison of the given policy with the suggested one by the rules alone (SPEC 12.6); None
    without a given policy, or if it would take too long.
    """

    policy: Policy
    text: str
    rules: tuple[SuggestedRule, ...]
    left_out: tuple[LeftOut, ...]
    check: Check
    other_packets: dict[VerdictWord | ReasonWord, int]
    captures: tuple[str, ...]
    packets_left_out: PacketsLeftOut | None
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = SOUND
    kept: int | None = None
    removed: tuple[RuleInGroup, ...] = ()
    records: LogRecords | None = None
    unseen_rules: tuple[UnseenRule, ...] | None = None
    difference: Difference | None = None

    @property
    def is_reliable(self) -> bool:
        """Whether the policy allows what it was made for, and the captures can carry it."""
        return self.check.matches and self.evidence.conclusive != "no"

    @property
    def cautions(self) -> list[str]:
        """Comments at the top of the policy on what the captures lack."""
        damage = [f"{self.damaged}: what follows was not read"] if self.damaged is not None else []
        lacking = said_of_lacking(self.policy, self.records) if self.kept is None else []
        return [*damage, *_cautions(self.evidence), *lacking]

    def __repr__(self) -> str:
        return f"<Suggestion from {', '.join(self.captures)}: {count(len(self.rules), 'rule')}, {self.policy!r}>"

    def _repr_html_(self) -> str:
        rows = [
            (suggested.group, rule_text(suggested.rule), suggested.evidence.connections)
            for suggested in self.rules[:SHOWN_ROWS]
        ]
        table = html_table(("security group", "rule", "connections"), rows, len(self.rules))
        return html_doubts(self.evidence) + table


def suggest(
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    instances: Policy | str | os.PathLike[str] | None = None,
    policy: PolicySource | None = None,
    allowed_only: bool | None = None,
    unanswered: bool = False,
    keep: bool = False,
    remove: str | None = None,
    per: Literal["group", "instance"] = "group",
    limits: Limits | None = None,
    vpc: str | None = None,
    reading: ReadOptions | None = None,
    accept_evidence: Sequence[EvidenceCode] = (),
    progress: Progress | None = None,
) -> Suggestion:
    """Suggest a policy that allows the connections in ``captures``, which must be files: they are read several times.

    ``captures``: captures, or flow logs, as for ``replay``.
    ``instances``: the instances to suggest rules for, as a policy or the path of a list of instances. Of a policy, only
    instances, VPCs, settings and names of groups are used. None: the instances of ``policy``, or else one instance for
    each private address.
    ``policy``: a ``Policy``, or anything that ``sgfast.load`` takes.
    ``allowed_only``: allow the connections that ``policy`` allows. This is the default if there is a policy. Otherwise
    allow the connections that were answered, and with ``unanswered`` also those that were not.
    ``keep``: suggest ``policy``, whole and unchanged, with the fewest further rules that let through what it breaks:
    denied connections that were answered, and with ``unanswered`` also those that nobody answered.
    ``remove``: like ``keep``, and take away the rules of ``policy`` that no packet used. The value is the time, such as
    ``"30d"``, that captures must last for that; ``evidence`` says so if they are shorter.
    ``per``: make rules for the groups that the instances are in, or give each instance a group of its own.
    ``limits``: how far rules may exceed the observed connections.
    ``accept_evidence``: codes of reasons to doubt the answer that do not count for its ``evidence`` (SPEC 10.27).

    Raises PolicyError, CaptureError and the other errors of ``replay``, SgfastError for too many private addresses, and
    ArgumentError for ``allowed_only`` without a policy, or with ``unanswered``, and for ``keep`` or ``remove`` without
    a policy, or with ``instances``, ``allowed_only`` or ``per="instance"``.

    For example:

        suggestion = sgfast.suggest("pcaps/shop.pcap", instances=policy)
        print(suggestion.text)          # a policy document
    """
    options = ReplayOptions(vpc=vpc, reading=reading or ReadOptions(), accept_evidence=accept_evidence)
    if per not in ("group", "instance"):
        raise ArgumentError(f"per must be group or instance, not {per!r:.80}")
    if options.reading.follow:
        raise ArgumentError("captures are read several times and cannot be followed; leave out follow")
    captures = [captures] if isinstance(captures, str | os.PathLike) else captures
    if (stream := first_stream(captures)) is not None:
        raise ArgumentError(ONLY_FILES.format(stream))
    if keep or remove is not None:
        if policy is None or instances is not None or allowed_only is not None or per != "group":
            raise ArgumentError("keep and remove need a policy, and go without instances, allowed_only and per")
        needed = None if remove is None else parse_duration(remove, "remove")
        return _kept(load(policy), captures, limits or Limits(), unanswered, needed, options, progress)
    if allowed_only is None:
        allowed_only = policy is not None
    if allowed_only and policy is None:
        raise ArgumentError("allowed_only needs a policy")
    if allowed_only and unanswered:
        raise ArgumentError("unanswered needs allowed_only=False: what policy allows counts whether answered or not")
    policy = None if policy is None else load(policy)
    if isinstance(instances, Policy):
        base: Policy | None = load(instances)
    else:
        base = policy if instances is None else load_instances(instances)
    if base is None:
        hosts = PrivateHosts()
        run_replay(starter(()), captures, replace(options, vpc=None), Sinks(packets=(hosts,)), progress)
        base = starter(hosts.addresses())
    why_not = allowed_ones if allowed_only else all_answered(unanswered)
    replayed = policy if allowed_only and policy is not None else opened(base)
    observer = Observer(why_not, replayed.settings)
    result = observe(replayed, captures, observer, options, progress)
    if per == "instance":
        target = one_group_each(base)
    elif (instances is None and policy is None) or is_ungrouped(base):
        target = grouped_by_service(base, observer.wanted)
    else:
        target = base
    limits = limits or Limits()
    policy_in_force = policy if instances is None else None
    denials = None if policy_in_force is None else Denials(policy_in_force)
    if PROFILES[target.settings.profile].unites_versions:
        limits = replace(limits, both_versions=True)
    kinds_to_allow, evidence = observer.wanted, evidence_for_removal(result)
    left_out = [_left_out_for(reason, kinds) for reason, kinds in observer.left_out.items()]
    if observer.uncounted:
        left_out.append(LeftOut("too many kinds of connections", TrafficTotals(connections=observer.uncounted)))
    too_few: dict[Kind, TrafficTotals] = {}
    following: dict[Kind, TrafficTotals] = {}
    for _ in range(MOST_ROUNDS):
        suggested = suggest_rules(target, kinds_to_allow, limits, denials=denials)
        too_few |= {kind: evidence for kind, evidence in kinds_to_allow.items() if kind in suggested.too_few}
        claimed = {kind: evidence for kind, evidence in kinds_to_allow.items() if kind not in suggested.too_few}
        warnings = [*result.warnings, *said_of_lacking(target, result.records)]
        quotas = _raised(target, max((len(group.rules) for group in suggested.groups), default=0), warnings)
        suggested_policy = replace(target, security_groups=suggested.groups, address_groups=(), quotas=quotas)
        parts = (
            *left_out, _left_out_for(limits.too_few, too_few),
            _left_out_for("would follow a connection that is left out", following),
        )  # fmt: skip
        reasons = sorted(
            (part for part in parts if part.evidence.connections),
            key=lambda part: (-part.evidence.connections, part.reason),
        )
        text = document(suggested_policy, suggested.rules, _comments(result, evidence, claimed, reasons))
        # Check the text that users get: parse it again instead of using the policy it was made from.
        final = parse_policy(text, "the suggested policy")
        repeated = Observer(why_not, final.settings)
        replayed_again = observe(final, captures, repeated, options, progress)
        if (doubt := _denied_readings(replayed_again)) is not None:
            doubtful = Evidence.of([
                *(reason for reason in evidence.reasons if reason.code != doubt.code), doubt
            ]).accepting(options.accept_evidence)  # fmt: skip
            text = document(suggested_policy, suggested.rules, _comments(result, doubtful, claimed, reasons))
        check = _check(claimed, repeated)
        if check.matches:
            break
        # If both ends open connections to each other, a connection that is now denied may prevent the other end's
        # connection from opening (SPEC 9.2), or make it open more often. Such connections cannot be claimed.
        kinds_to_allow = {kind: repeated.wanted[kind] for kind in claimed if kind in repeated.wanted}
        for kind, totals in claimed.items():
            if (excess := _excess(totals, kinds_to_allow.get(kind, TrafficTotals()))).connections:
                following.setdefault(kind, TrafficTotals()).add(excess)
    if doubt is not None:
        evidence = doubtful
    if allowed_only and (denied := _denied_before(observer, claimed, repeated)):
        check = replace(check, matches=False)
        warnings.append(
            f"the suggested policy also allows {count(denied, 'connection')} that the policy denies, as a rule for a "
            "group is for all addresses of all its members; sgfast diff with these captures lists them"
        )
    compared: Difference | None = None
    if policy_in_force is not None:
        denial_warnings = _of_denied_members(suggested.rules)
        warnings += denial_warnings
        check = replace(check, matches=check.matches and not denial_warnings)
        compared = _difference(policy_in_force, final, warnings)
    if newly_open := _rejected_before(result if allowed_only else None, replayed_again, warnings):
        check = replace(check, also_allowed=check.also_allowed + newly_open, matches=False)
    return Suggestion(
        final, text, suggested.rules, tuple(reasons), check, _other_packets(result), result.captures, result.left_out,
        result.damaged, warnings, evidence, records=result.records, difference=compared,
    )  # fmt: skip


def _denied_readings(result: ReplayResult) -> EvidenceReason | None:
    """Return the doubt about connections that either end may have opened, and that a suggested policy does not allow in
    both readings; None if there are none.
    """
    openers = result.openers
    if openers is None:
        return None
    unsure = [
        *openers.differing,
        *(unsure_opener for unsure_opener in openers.same.values() if unsure_opener.likelier.verdict == "deny"),
    ]
    connections = sum(
        unsure_opener.connections
        for unsure_opener in unsure
        if unsure_opener.answered or unsure_opener.likelier.verdict == "deny"
    )
    if not connections:
        return None
    noun = "connection" if connections == 1 else "connections"
    sentence = (
        f"either end may have opened {connections:,} {noun}, and the suggested policy does not allow both readings"
    )
    total = sum(result.connections[word] for word in ("opened", "denied", "inferred"))
    share = min(connections / max(total, connections), 1.0)
    return EvidenceReason("unsure-openers", "partly", connections, share, sentence, OPENERS_TOLD_BY)


def _kept(
    policy: Policy, captures: Sequence[str | os.PathLike[str]], limits: Limits, unanswered: bool, needed: float | None,
    options: ReplayOptions, progress: Progress | None,
) -> Suggestion:  # fmt: skip
    """Suggest the policy with the rules that it lacks. ``needed``: also take away unused rules, and expect captures of
    so many seconds.
    """
    kept_policy = keep_all(policy, captures, limits, unanswered, options, progress)
    result, rules = kept_policy.result, kept_policy.missing.rules
    removed: tuple[RuleInGroup, ...] = ()
    unseen: list[UnseenRule] = []
    evidence = result.evidence
    if needed is not None:
        evidence = evidence_for_removal(result, needed)
        kept_policy, removed, unseen = without_unused(policy, kept_policy, captures, options, progress)
    warnings = [*result.warnings, *said_of_unseen(policy, unseen)]
    if needed is not None:
        warnings += said_of_unlogged(policy, result.records)
    most_rules = max((len(group.rules) for group in kept_policy.policy.security_groups), default=0)
    raised_policy = replace(kept_policy.policy, quotas=_raised(policy, most_rules, warnings))
    left_out = [_left_out_for(reason, kinds) for reason, kinds in kept_policy.left_out.items()]
    if kept_policy.after.uncounted:
        left_out.append(
            LeftOut("too many kinds of connections", TrafficTotals(connections=kept_policy.after.uncounted))
        )
    left_out.sort(key=lambda part: (-part.evidence.connections, part.reason))
    kept_rules = sum(len(group.rules) for group in policy.security_groups) - len(removed)
    less = f" without {count(len(removed), 'rule')} that no packet used" if removed else ", whole"
    allowed = sum(totals.connections for totals in kept_policy.claimed.values())
    comments = [
        *_cautions(evidence),
        f"{shown_origin(policy.origin)}{less}, and {count(len(rules), 'rule')} that sgfast added, with comments.",
        f"They let through {count(allowed, 'connection')} that would break, of {count(result.packets, 'packet')} of "
        f"{', '.join(result.captures)}.",
        *_comments_on_the_rest(result, left_out),
    ]
    text = document(raised_policy, rules, comments, with_ids=True)
    newly_open = _rejected_before(result, kept_policy.last, warnings)
    is_done = kept_policy.is_done and not newly_open
    check = Check(allowed, max(0, allowed - kept_policy.still_broken), kept_policy.also_allowed + newly_open, is_done)
    final = parse_policy(text, "the suggested policy")
    return Suggestion(
        final, text, rules, tuple(left_out), check, _other_packets(result),
        result.captures, result.left_out, result.damaged, warnings, evidence, kept_rules,
        tuple(part for part in removed if policy._first_twin(part.rule) is part.rule), result.records,
        None if needed is None or result.records is None else tuple(unseen), _difference(policy, final, warnings),
    )  # fmt: skip


def _difference(policy: Policy, suggested: Policy, warnings: list[str]) -> Difference | None:
    """Compare the suggested policy with the given one by the rules alone. Return None if that would take too long, or
    if one VPC sees the same address in two others."""
    from sgfast.rules.reaching.difference import difference

    try:
        return difference(policy, suggested)
    except (AmbiguousAddress, TooMuch) as error:
        warnings.append(f"what the suggested policy opens by the rules alone is not listed: {error}")
        return None


def _rejected_before(before: ReplayResult | None, after: ReplayResult, warnings: list[str]) -> int:
    """Count the attempts that the cloud rejected, as flow logs tell, and that only the suggested policy allows. Add a
    warning about them. ``before``: the replay under the given policy, if there is one."""
    opened_before, opened_after = (
        0 if result is None or result.rejected is None else result.rejected.connections["opened"]
        for result in (before, after)
    )
    if opened_after <= opened_before:
        return 0
    newly_open = opened_after - opened_before
    warnings.append(
        f"the suggested policy also allows {count(newly_open, 'attempt')} that the cloud rejected; sgfast diff with "
        "these logs lists them"
    )
    return newly_open


def _of_denied_members(rules: Sequence[SuggestedRule]) -> list[str]:
    """Return a warning for each rule that is for members of groups to whom the given policy denies this."""
    return [
        f"the suggested rule {rule_text(suggested.rule)} of the group {suggested.group} is also for "
        f"{listed(suggested.denied_members)}, although the given policy denies this and no connection needs it"
        for suggested in rules if suggested.denied_members
    ]  # fmt: skip


def first_stream(captures: Sequence[str | os.PathLike[str]]) -> str | None:
    """Return the first capture that can only be read once (standard input, a pipe or a device), or None."""
    for capture in [os.fspath(capture_path) for capture_path in captures]:
        try:
            kind = os.stat(capture).st_mode
        except (OSError, ValueError):
            kind = stat.S_IFREG     # the error is raised when the capture is opened
        if capture == "-" or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            return capture
    return None


def _raised(policy: Policy, most_rules: int, warnings: list[str]) -> Quotas:
    quotas = policy.quotas
    if most_rules > quotas.rules_per_group:
        warnings.append(
            f"a group has {most_rules} rules, so quotas.rules_per_group is raised from {quotas.rules_per_group}; "
            "use --max-prefix and --any-above for fewer rules"
        )
        quotas = replace(quotas, rules_per_group=most_rules)
    groups = len(policy.security_groups)
    if groups > quotas.security_groups:
        warnings.append(f"there are {groups} groups, so quotas.security_groups is raised from {quotas.security_groups}")
        quotas = replace(quotas, security_groups=groups)
    return quotas


def _left_out_for(reason: str, kinds: dict[Kind, TrafficTotals]) -> LeftOut:
    total = TrafficTotals()
    for evidence in kinds.values():
        total.add(evidence)
    return LeftOut(reason, total, kinds)


def _excess(evidence: TrafficTotals, subtracted: TrafficTotals) -> TrafficTotals:
    """Return the part of ``evidence`` beyond ``subtracted``. It is empty unless ``evidence`` has more connections."""
    if evidence.connections <= subtracted.connections:
        return TrafficTotals()
    return replace(
        evidence, connections=evidence.connections - subtracted.connections,
        packets=max(0, evidence.packets - subtracted.packets), bytes=max(0, evidence.bytes - subtracted.bytes),
        examples=list(evidence.examples),
    )  # fmt: skip


def _comments(
    result: ReplayResult, evidence: Evidence, claimed: dict[Kind, TrafficTotals], left_out: list[LeftOut]
) -> list[str]:
    allowed = sum(totals.connections for totals in claimed.values())
    comments = [
        *_cautions(evidence), *said_of_lacking(result.policy, result.records),
        f"Suggested by sgfast from {count(result.packets, 'packet')} of {', '.join(result.captures)}:",
        f"allows {count(allowed, 'connection')} that were seen. A capture shows what was used, not what is needed.",
    ]
    return comments + _comments_on_the_rest(result, left_out)


def _comments_on_the_rest(result: ReplayResult, left_out: list[LeftOut]) -> list[str]:
    comments = []
    if result.left_out is not None:
        comments.append(f"Not looked at: {count(result.left_out.total, 'packet')} (--start, --end, --filter, --dedup)")
    return comments + [
        f"Left out: {count(part_left_out.evidence.connections, 'connection')}, {part_left_out.reason}"
        for part_left_out in left_out
    ]


def _cautions(evidence: Evidence) -> list[str]:
    warning = "Nobody can rely on this policy: it may deny what is needed."
    return [*([warning] if evidence.conclusive == "no" else []), *evidence.sentences]


def _check(claimed: dict[Kind, TrafficTotals], repeated: Observer) -> Check:
    """Compare the claimed and the allowed connections kind by kind."""
    counts_after = {kind: evidence.connections for kind, evidence in repeated.wanted.items()}
    counts_before = {kind: evidence.connections for kind, evidence in claimed.items()}
    allowed = sum(min(number, counts_after.get(kind, 0)) for kind, number in counts_before.items())
    also = sum(
        number - counts_before.get(kind, 0)
        for kind, number in counts_after.items()
        if number > counts_before.get(kind, 0)
    )
    for reason, kinds in repeated.left_out.items():
        if not reason.startswith("denied"):
            also += sum(evidence.connections for evidence in kinds.values())
    return Check(
        sum(counts_before.values()),
        allowed,
        also,
        all(counts_after.get(kind, 0) == number for kind, number in counts_before.items()),
    )


def _denied_before(observer: Observer, claimed: dict[Kind, TrafficTotals], repeated: Observer) -> int:
    """Count the connections that the given policy denies and the suggested policy allows."""
    added = {
        kind: _excess(totals, claimed.get(kind, TrafficTotals())).connections
        for kind, totals in repeated.wanted.items()
    }
    return sum(
        min(evidence.connections, added.get(kind, 0))
        for reason, kinds in observer.left_out.items() if reason.startswith("denied")
        for kind, evidence in kinds.items()
    )  # fmt: skip


def _other_packets(result: ReplayResult) -> dict[VerdictWord | ReasonWord, int]:
    verdicts = {word: number for word, number in result.verdicts.items() if number and word not in ("allow", "deny")}
    own_reasons = [reason.word for reason in REASON_TABLE if reason.verdict == "deny" and not reason.by_policy]
    return verdicts | {word: result.reasons[word] for word in own_reasons if word in result.reasons}
