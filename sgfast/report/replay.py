"""The report of a replay, most important first (SPEC 10.24)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from sgfast.base.names import printable
from sgfast.core.base.reasons import REASON_OF
from sgfast.policy.model import Policy, called
from sgfast.policy.rule_text import rule_name, rule_of_id
from sgfast.questions.replaying import ChangeDone, ClusterUsed, CutConnection, ReplayResult, RuleHits
from sgfast.questions.replaying.removal import unseen_rules
from sgfast.questions.replaying.results import Contradicted
from sgfast.report.amounts import grouped, human_bytes, human_seconds, instant, left_out_words, plural
from sgfast.report.answer_rows import answer_sections
from sgfast.report.cloud_actions import action_sections, rejected_sections, rejected_words
from sgfast.report.denial_reasons import Reasons
from sgfast.report.document import (
    TOP,
    Block,
    Document,
    Item,
    Items,
    Name,
    Paragraph,
    Section,
    TableBlock,
    Words,
    capture_names,
    damage_items,
    more,
    more_of,
    notes,
    warning_items,
)
from sgfast.report.evidence import evidence_blocks, headline_of
from sgfast.report.log_records import decimals, naming, record_blocks, reminder
from sgfast.report.names import end_name, icmp_name, protocol_word
from sgfast.report.rollup import NOT_SEEN, PERHAPS, By, Rollup, rollup_of
from sgfast.report.twins import hits_by_rule
from sgfast.report.uncertain_openers import uncertain_sections, uncertain_words
from sgfast.traffic.flow_logs.unlogged import said_of_unlogged, said_of_unseen, unlogged_groups

if TYPE_CHECKING:
    from sgfast.questions.comparing import TrafficDiff
    from sgfast.questions.replaying.results import ConnectionWord
    from sgfast.traffic.preprocess import TunnelKind

_NOTES = {
    "moot": "follow a denied opener: would not exist",
    "out-of-scope": "neither end is an instance",
    "local": "both ends are the same instance",
    "exempt": "DHCP, neighbour discovery: not filtered",
    "not-ip": "",
}
NO_DENIALS = "The reference engine keeps no list of what was denied."


def replay_document(
    result: ReplayResult, by: By = "group", most: int = TOP, *, timed: bool = True, with_rules: bool = False
) -> Document:
    """Return the report. ``by``: how rows are folded. ``most``: the most rows of a list. ``timed``: whether the report
    says how long the replay took. ``with_rules``: whether rows of what would break show the rules that they lack.
    """
    rollup, reasons = rollup_of(result), Reasons(result.policy)
    document = [_verdicts(result, rollup), *_changes(result, most)]
    rules = None
    if with_rules:
        from sgfast.report.row_rules import RuleFinder

        rules = RuleFinder(result.policy, rollup)
    document += answer_sections(rollup, reasons, "would-break", by, most, rules)
    document += uncertain_sections(result.policy, result.openers, reasons, by, most)
    document += [*_expected(result, most), *_denied(result, rollup, reasons, by, most)]
    document += [*rejected_sections(result, by, most), *action_sections(result)]
    document += answer_sections(rollup, reasons, "unanswered", by, most)
    if by != "group":
        document += answer_sections(rollup, reasons, "allowed", by, most)
    return [*document, _rules(result, by, most), *_connections(result), *closing(result, most, timed)]


# Sections ------------------------------------------------------------------------------------------------------------


def _verdicts(result: ReplayResult, rollup: Rollup) -> Section:
    blocks: list[Block] = [
        *evidence_blocks(result.evidence),
        Paragraph((
            f"{plural(result.packets, 'packet')}, {human_bytes(result.bytes)} of ", *capture_names(result.captures),
            " against ", Name(result.policy.origin), f"; {result.mode}, midstream {result.midstream}",
            *vpc_words(result.policy, result.vpc), "" if result.engine == "fast" else f", {result.engine} engine",
        )),
        *left_out_paragraphs(result), *record_blocks(result.records),
    ]  # fmt: skip
    verdicts = [
        (grouped(packets), f"{100 * packets / result.packets:.1f} %", verdict, verdict_note(result, verdict))
        for verdict, packets in result.verdicts.items()
        if result.packets and (packets or verdict in ("allow", "deny"))
    ]
    if not verdicts:
        return Section(_headline(result, rollup), blocks)
    styles = ["red" if verdict == "deny" and result.verdicts[verdict] else "" for *_, verdict, _ in verdicts]
    table = TableBlock(("packets", "share", "verdict", "why"), verdicts, 2, styles)  # type: ignore[arg-type]
    return Section(_headline(result, rollup), [*blocks, table])


def _headline(result: ReplayResult, rollup: Rollup) -> str:
    """Return the report's result in one sentence, without a full stop."""
    positive = ""
    if broken := rollup.total("would-break"):
        positive = f"{plural(broken, 'connection')} would break"
    return headline_of(result.evidence, _found(result, rollup), positive)


def _found(result: ReplayResult, rollup: Rollup) -> str:
    """Return the headline of what was found, whatever the evidence."""
    denied = result.verdicts["deny"]
    if result.engine == "reference":
        return f"{plural(denied, 'packet')} denied; the reference engine does not follow what would break"
    broken, one_way, unknown = (rollup.total(part) for part in ("would-break", "one-way", "cannot-tell"))
    silent = sum(int(counts.sum()) for word, counts in rollup.counts["unanswered"].items() if word != NOT_SEEN)
    perhaps = int(rollup.counts["one-way"][PERHAPS].sum())
    parts = [f"{plural(broken, 'connection')} would break" if broken else "No connection that was answered would break"]
    if cut := sum(change.disconnected for change in result.changes):
        parts.append(f"{plural(cut, 'connection')} cut by changes of the policy")
    if one_way:
        perhaps_more = f" (and perhaps {grouped(perhaps)} more)" if perhaps else ""
        parts.append(f"nobody answered {plural(one_way - perhaps, 'denied packet')}{perhaps_more}")
    if unknown:
        parts.append(f"cannot tell whether somebody answered {plural(unknown, 'denied packet')}")
    parts += uncertain_words(result.openers)
    if rejected := rejected_words(result):
        parts.append(rejected)
    if silent:
        parts.append(f"{plural(silent, 'allowed connection')} not served")
    return ", ".join(parts)


def verdict_note(result: ReplayResult, verdict: str) -> str:
    if verdict in _NOTES:
        return _NOTES[verdict]
    reasons = [
        (reason, n)
        for reason, n in result.reasons.items()
        if reason in REASON_OF and REASON_OF[reason].verdict == verdict
    ]
    return ", ".join(f"{reason} {grouped(n)}" for reason, n in sorted(reasons, key=lambda item: -item[1]))


def _changes(result: ReplayResult, most: int) -> list[Section]:
    if not result.changes and not result.changes_left:
        return []
    blocks: list[Block] = []
    cut = sum(change.disconnected for change in result.changes)
    digits = decimals(result.records)
    if result.changes:
        shown = _largest_changes(result, most)
        rows = [
            (grouped(change.disconnected), "?" if change.came_back is None else grouped(change.came_back),
             instant(change.time_ns, digits), Name(change.text))
            for change in shown
        ]  # fmt: skip
        unlisted = len(result.changes) - len(shown)
        cut_by_rest = cut - sum(change.disconnected for change in shown)
        blocks.append(TableBlock(("cut", "came back", "at (UTC)", "change"), rows, 3))
        words = f"{plural(unlisted, 'more change')} ({grouped(cut_by_rest)} cut)" if unlisted else ""
        blocks += more(words, len(result.changes))
    followed = [(change, connection) for change in result.changes for connection in change.connections]
    if followed:
        connections = [
            (instant(change.time_ns, digits), _cut_words(connection), _cut_end(result.policy, connection, digits))
            for change, connection in followed[:most]
        ]
        blocks.append(TableBlock(("cut at (UTC)", "connection", "what became of it"), connections))
        blocks += more_of(len(followed), most, "connection")
    if (unlisted := cut - len(followed)) > 0:
        blocks.append(Paragraph(f"Of {plural(unlisted, 'cut connection')} no more is known"))
    if after := packets_after(result):
        blocks.append(Paragraph(_after_words(after)))
    if result.changes_left:
        blocks.append(Paragraph(f"{plural(result.changes_left, 'change')} would come after the last packet"))
    finished = sum(change.finished or 0 for change in result.changes)
    of_these = f", {grouped(finished)} of which had finished before" if finished else ""
    return [Section(f"Changes of the policy: {plural(cut, 'connection')} cut{of_these}", blocks)]


def _expected(result: ReplayResult, most: int) -> list[Section]:
    expected = result.expected
    if expected is None or not (expected.meant or expected.contradicted):
        return []
    blocks: list[Block] = []
    if expected.meant:
        words = f"{plural(expected.meant, 'connection')} denied as meant, though answered in the capture"
        blocks.append(Paragraph(words))
    if expected.contradicted:
        contradicted = expected.contradicted[:most]
        blocks.append(Items([Item("", _contradiction_words(line), "yellow") for line in contradicted]))
        blocks += more_of(len(expected.contradicted), most, "line")
    return [Section(("Compared with the expectations in ", Name(expected.origin)), blocks)]


def _contradiction_words(contradicted: Contradicted) -> Words:
    expectation = contradicted.expectation
    expected, got = ("allowed", "denied") if expectation.verdict == "allow" else ("denied", "allowed")
    were = f"{plural(contradicted.connections, 'connection')} {'was' if contradicted.connections == 1 else 'were'}"
    return (f"{were} {got}, though line {expectation.line} says: ", Name(expectation.text), f" should be {expected}")


def _denied(result: ReplayResult, rollup: Rollup, reasons: Reasons, by: By, most: int) -> list[Section]:
    denied = result.verdicts["deny"]
    if not result.packets:
        return []
    if denied == packets_after(result):
        of_these = "" if result.rejected is None else " that the cloud accepted"
        return [Section(f"Nothing{' else' if denied else ''}{of_these} was denied")]
    if result.engine == "reference":
        return [Section("", [Paragraph(NO_DENIALS)])]
    sections = answer_sections(rollup, reasons, "cannot-tell", by, most)
    sections += answer_sections(rollup, reasons, "one-way", by, most)
    if (number := unreadable(result, rollup)) > 0:
        words = f"{plural(number, 'denied packet')} without readable addresses (malformed)"
        sections.append(Section("", [Paragraph(words)]))
    return sections


def unreadable(result: ReplayResult, rollup: Rollup) -> int:
    """Count the denied packets without readable addresses, which are in no row."""
    return result.verdicts["deny"] - packets_after(result) - rollup.total("denied") - result.kinds.lost


def _rules(result: ReplayResult, by: By, most: int) -> Section:
    """Return the section of rules, those with most connections first; if ``by`` is "rule", group by group."""
    rules = hits_by_rule(result)
    used = sorted((hits for hits in rules if hits.packets), key=lambda hits: -hits.connections)

    def called(hits: RuleHits) -> Name:
        return Name(rule_name(result.policy, hits.rule, hits.group))

    heading = f"Rules: {grouped(len(used))} of {grouped(len(rules))} were hit"
    if by == "rule":
        used = _by_group(used)
    rows = [
        (grouped(hits.connections), grouped(hits.packets), human_bytes(hits.bytes), called(hits))
        for hits in used[:most]
    ]
    blocks: list[Block] = [TableBlock(("connections", "packets", "bytes", "rule"), rows, 3)] if rows else []
    blocks += more_of(len(used), most, "rule")
    unseen = unseen_rules(result)
    untold, unlogged = {rule_use.rule.id for rule_use in unseen}, unlogged_groups(result.policy, result.records)
    idle = [
        hits for hits in rules
        if not hits.packets and hits.rule.id not in untold and hits.group not in unlogged
    ]  # fmt: skip
    sentences = [*said_of_unlogged(result.policy, result.records), *said_of_unseen(result.policy, unseen)]
    blocks += [Paragraph(printable(words)) for words in naming(sentences, result.policy, result.records, unseen, most)]
    if idle:
        unlisted = len(idle) - most
        hint = (f" and {plural(unlisted, 'more rule')}: ", Name(f"--top {len(idle)}"), " lists all")
        never = "Never hit: " if result.evidence.carries("absence") else "Never hit by what could be judged: "
        named = [word for hits in idle[:most] for word in (", ", called(hits))]
        blocks.append(Paragraph((never, *named[1:], *(hint if unlisted > 0 else ()))))
    return Section(heading, blocks)


def _by_group(rules: Sequence[RuleHits]) -> list[RuleHits]:
    in_order = sorted(rules, key=lambda hits: hits.group)
    groups = [list(group) for _, group in groupby(in_order, key=lambda hits: hits.group)]
    groups.sort(key=lambda group: -sum(hits.connections for hits in group))
    return [hits for group in groups for hits in group]


def _connections(result: ReplayResult) -> list[Section]:
    if not result.packets:
        return []
    counts = result.connections
    words = [", ".join(connection_counts(counts))]
    if counts["inferred"]:
        words.append(
            f"{plural(counts['inferred'], 'connection')} began before the capture: who opened "
            f"{'it' if counts['inferred'] == 1 else 'them'} was inferred, and the rules allowed it"
        )
    if midstream := result.reasons.get("midstream", 0):
        packets = plural(midstream, "denied packet")
        words.append(f"{packets} belonged to TCP connections that the filter does not know (midstream)")
    sentences = [*filter(None, words)] or ["none"]
    return [Section("Connections", [Paragraph(sentence) for sentence in sentences])]


def connection_counts(counts: Mapping[ConnectionWord, int]) -> list[str]:
    """Return the counts of SPEC 10.2 that are not 0 in words, without inferred connections."""
    named: dict[ConnectionWord, str] = {
        "opened": "opened", "denied": "denied", "disconnected": "cut by changes",
    }  # fmt: skip
    return [f"{grouped(counts[word])} {words}" for word, words in named.items() if counts.get(word)]


# Changes of the policy -----------------------------------------------------------------------------------------------

def packets_after(result: ReplayResult) -> int:
    """Count the packets of cut connections that came after the cut."""
    return sum(change.packets_after or 0 for change in result.changes)


def _after_words(number: int) -> str:
    return (
        f"{plural(number, 'packet')} of cut connections came after the cut. After a real change such packets could "
        "only be retransmissions, so they are not among the denied packets below."
    )


def _largest_changes(result: ReplayResult, most: int) -> list[ChangeDone]:
    """Return the changes that cut most connections, in the order in which they took effect."""
    order = sorted(range(len(result.changes)), key=lambda n: -result.changes[n].disconnected)
    return [result.changes[n] for n in sorted(order[:most])]


def cut_name(cut: CutConnection) -> tuple[str, str, str]:
    """Return the protocol and both ends of a cut connection."""
    protocol = protocol_word(cut.protocol)
    if cut.icmp_type is not None:
        protocol += f" {icmp_name(cut.protocol, cut.icmp_type)}"
    return protocol, end_name(cut.initiator, cut.initiator_port), end_name(cut.responder, cut.responder_port)


def _cut_words(cut: CutConnection) -> Words:
    protocol, initiator, responder = cut_name(cut)
    return Name(f"{protocol} {initiator} > {responder}")


def _cut_end(policy: Policy, cut: CutConnection, digits: int) -> str:
    parts = ["had finished"] if cut.finished else []
    if cut.packets_after:
        parts.append(f"{plural(cut.packets_after, 'packet')} came after that")
    if cut.opener_time_ns is None:
        parts.append("not opened again")
        return "; ".join(parts)
    at = f"{instant(cut.opener_time_ns, digits)} UTC"
    if cut.outcome == "denied":
        parts.append(f"tried again at {at}, denied")
    else:
        named = [rule_of_id(policy, rule) for rule in (cut.egress_rule, cut.ingress_rule) if rule is not None]
        rules = printable(" and ".join(named))
        turned = " opened by the other end," if cut.turned else ""
        parts.append(f"came back at {at},{turned} under {rules}")
    return "; ".join(parts)


# Parts of replay and diff ------------------------------------------------------------------------------------------


def vpc_words(policy: Policy, vpc: str | None) -> Words:
    return () if vpc is None else (", VPC ", Name(vpc_called(policy, vpc)))


def vpc_called(policy: Policy, vpc: str) -> str:
    """Return how reports name a VPC. One of two compared policies need not have it."""
    return called(policy.vpc_by_name[vpc]) if vpc in policy.vpc_by_name else vpc


def left_out_paragraphs(result: ReplayResult | TrafficDiff) -> list[Paragraph]:
    return [] if result.left_out is None else [Paragraph(f"Left out: {left_out_words(result.left_out)}")]


def time_items(result: ReplayResult | TrafficDiff) -> list[Item]:
    """Return the times of the first and last packet."""
    if result.first_time_ns is None or result.last_time_ns is None:
        return []
    duration = human_seconds((result.last_time_ns - result.first_time_ns) / 1e9)
    return [
        Item("First packet", f"{instant(result.first_time_ns)} UTC"),
        Item("Last packet", f"{instant(result.last_time_ns)} UTC, {duration} later"),
    ]


def tunnel_items(decapsulated: Mapping[TunnelKind, int] | None) -> list[Item]:
    """Return the number of packets that left each kind of tunnel, in words: ``vxlan 1,200, gre 3``."""
    if decapsulated is None:
        return []
    kinds = sorted(decapsulated.items(), key=lambda item: -item[1])
    words = ", ".join(f"{kind} {grouped(n)}" for kind, n in kinds) or "none were found"
    return [Item("Tunnels", f"taken off packets: {words}")]


def speed_item(result: ReplayResult | TrafficDiff) -> Item:
    rate = grouped(round(result.packets_per_second))
    return Item("Speed", f"{rate} packets/s ({human_seconds(result.elapsed_seconds)}, without start-up)")


def closing(result: ReplayResult | TrafficDiff, most: int, timed: bool) -> list[Section]:
    """Return times, at most ``most`` warnings, damage and speed."""
    items = [
        *time_items(result), *tunnel_items(result.decapsulated), *warning_items(result.warnings, most),
        *damage_items(result.damaged), Item("Remember", reminder(result.records)),
    ]  # fmt: skip
    if result.packets and timed:
        items.append(speed_item(result))
        used = getattr(result, "cluster", None)
        items += [] if used is None else [Item("Cluster", _cluster_text(used))]
    return notes(items)


def _cluster_text(used: ClusterUsed) -> str:
    """Return ``tcp://10.0.0.1:8786, 8 workers, 16 shards: read 12 s (48 tasks), judge 4 s (16 tasks), ...``."""
    stages = [
        f"{stage.name} {human_seconds(stage.elapsed_seconds)}"
        + (f" ({plural(stage.tasks, 'task')})" if stage.name != "gather" else "")
        for stage in used.stages
    ]
    earlier_segments = f"; {plural(used.segments_found, 'segment')} had been read before" if used.segments_found else ""
    cluster = f"{used.scheduler}, {plural(used.workers, 'worker')}, {plural(used.shards, 'shard')}"
    return f"{cluster}: {', '.join(stages)}{earlier_segments}"
