"""A comparison of two policies by captures, as a report (SPEC 10.14)."""

from __future__ import annotations

from sgfast.base.names import printable
from sgfast.policy.model import Policy, Rule, called
from sgfast.policy.protocols import protocol_name
from sgfast.policy.rule_text import peer_text, rule_of_id
from sgfast.questions.comparing import NEW_VERDICTS, Counts, NewVerdict, TrafficDiff
from sgfast.report.amounts import grouped, human_bytes, plural
from sgfast.report.answer_rows import left_rows, nearest_text
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
    Style,
    TableBlock,
    Traffic,
    TrafficRow,
    capture_names,
    more,
)
from sgfast.report.evidence import evidence_blocks, headline_of
from sgfast.report.log_records import record_blocks
from sgfast.report.replay import closing, left_out_paragraphs, vpc_words
from sgfast.report.rollup import By, Folded, Passing, RollupRow
from sgfast.report.rollup.changed import changed_rollups
from sgfast.report.twins import effects_by_rule, moves_by_rule
from sgfast.report.uncertain_openers import uncertain_sections

#: Maximum number of port ranges shown for a rule.
MAX_PORTS = 6


def passing_of(row: RollupRow) -> Passing:
    assert row.passing is not None
    return row.passing


def blocking_verdict(row: RollupRow) -> str:
    return "moot" if row.reason == "opener-denied" else "deny"


def blocking(result: TrafficDiff, verdict: NewVerdict) -> Policy:
    """Return the policy that blocks connections with this new verdict."""
    return result.new if verdict == "newly-denied" else result.old


TITLES: dict[NewVerdict, str] = {"newly-denied": "Newly denied", "newly-allowed": "Newly allowed"}


def diff_document(result: TrafficDiff, by: By = "group", most: int = TOP, *, timed: bool = True) -> Document:
    """Return the report about captures. ``by``: how rows are folded. ``most``: the most rows of a list. ``timed``:
    whether the report says how long the comparison took.
    """
    totals = Paragraph((
        f"{plural(result.packets, 'packet')}, {human_bytes(result.bytes)} of ", *capture_names(result.captures),
        "; OLD is ", Name(result.old.origin), ", NEW is ", Name(result.new.origin),
        f"; {result.mode}, midstream {result.midstream}", *vpc_words(result.new, result.vpc),
    ))  # fmt: skip
    return [
        Section(
            headline(result), [
                *evidence_blocks(result.evidence), totals, *left_out_paragraphs(result),
                *record_blocks(result.records),
            ],
            is_headline=True,
        ),
        *_changed(result, by, most),
        *uncertain_sections(result.new, result.openers, Reasons(result.new), by, most),
        *_rules_that_differ(result, most), *_moved(result, most),
        *closing(result, most, timed),
    ]  # fmt: skip


def _changed(result: TrafficDiff, by: By, most: int) -> list[Section]:
    sections, reasons = [], Reasons(result.new)
    for verdict, rollup in changed_rollups(result).items():
        total = result.total(verdict)
        if not total.connections:
            continue
        folded = rollup.fold(verdict, by=by, most=most)
        rows = []
        for row in folded.rows:
            old, new = _judgements(result, row, verdict)
            counts = f"{grouped(row.answered)} answered; {plural(row.packets, 'packet')}, {human_bytes(row.bytes)}"
            first = 0 if row.example is None else row.example.packet
            example = f", first is packet {grouped(first)}" if first else ""
            near = [nearest_text(row, reasons)] if verdict == "newly-denied" else []
            style: Style = "red" if verdict == "newly-denied" and row.answered else "bold"
            rows.append(TrafficRow(row, row.connections, (counts + example, f"OLD {old}; NEW {new}", *near), style))
        heading = (
            f"{TITLES[verdict]}: {plural(total.connections, 'connection')}, {answered(total)}; "
            f"{plural(total.packets, 'packet')}, {human_bytes(total.bytes)}"
        )
        unlisted = more(_left_words(folded), folded.every)
        heads = ("counts", "OLD and NEW", *(["nearest rule"] if verdict == "newly-denied" else []))
        traffic = Traffic("connections", rows, heads)
        sections.append(Section(heading, [traffic, *unlisted]))
    return sections


def _left_words(folded: Folded) -> str:
    """Return ``12 more pairs (3,000 connections, 0 answered; 9,000 packets)``; "" if all rows are listed."""
    if not folded.unlisted_rows:
        return ""
    counts = f"{plural(folded.unlisted_connections, 'connection')}, {grouped(folded.unlisted_answered)} answered"
    return f"{left_rows(folded)} ({counts}; {plural(folded.unlisted_packets, 'packet')})"


def _rules_that_differ(result: TrafficDiff, most: int) -> list[Section]:
    effects = effects_by_rule(result)
    if not effects:
        return []
    items = []
    for effect in effects[:most]:
        parts = [
            f"{grouped(number)} newly {word}"
            for number, word in ((effect.newly_denied, "denied"), (effect.newly_allowed, "allowed"))
            if number
        ]
        group = (result.old if effect.new is None else result.new).group_by_name[effect.group]
        words = (Name(effect.rule), " in ", Name(called(group)), f", {effect.status}: {', '.join(parts)}")
        policies = (("OLD", result.old, effect.old), ("NEW", result.new, effect.new))
        below = [Item("", f"{policy} {rule_words(rule, of)}") for policy, of, rule in policies if rule is not None]
        items.append(Item("", words, "", below))
    unlisted = effects[most:]
    denied, allowed = (sum(getattr(effect, name) for effect in unlisted) for name in ("newly_denied", "newly_allowed"))
    counts = f"{plural(len(unlisted), 'more rule')} ({grouped(denied)} newly denied, {grouped(allowed)} newly allowed)"
    return [Section("Rules that make the difference", [Items(items), *more(counts if unlisted else "", len(effects))])]


def _moved(result: TrafficDiff, most: int) -> list[Section]:
    moves = moves_by_rule(result)
    if not moves:
        return []
    rows = [
        (grouped(move.connections), Name(rule_of_id(result.old, move.old_rule)),
         Name(rule_of_id(result.new, move.new_rule)))
        for move in moves[:most]
    ]  # fmt: skip
    unlisted = moves[most:]
    connections = plural(sum(move.connections for move in unlisted), "connection")
    counts = f"{plural(len(unlisted), 'more pair')} ({connections})"
    table = TableBlock(("connections", "OLD", "NEW"), rows)
    blocks: list[Block] = [table, *more(counts if unlisted else "", len(moves))]
    if result.moved_others:
        words = f"Pairs that were not counted apart have {plural(result.moved_others, 'connection')}"
        blocks.append(Paragraph(words))
    return [Section("Allowed by both, but by another rule", blocks)]


def headline(result: TrafficDiff) -> str:
    """Summarise the result in one sentence, without a full stop."""
    changes = _changes(result)
    return headline_of(result.evidence, changes or "Nothing changes for this traffic", changes)


def _changes(result: TrafficDiff) -> str:
    """Summarise the connections that change; "" for none."""
    denied, allowed = (result.total(verdict) for verdict in NEW_VERDICTS)
    parts = []
    if denied.connections:
        parts.append(f"{plural(denied.connections, 'connection')} newly denied ({answered(denied)})")
    if allowed.connections:
        parts.append(f"{plural(allowed.connections, 'connection')} newly allowed ({answered(allowed)})")
    return ", ".join(parts)


def answered(counts: Counts) -> str:
    if counts.answered == counts.connections:
        return "answered in the capture" if counts.connections == 1 else "all answered in the capture"
    return f"{grouped(counts.answered) if counts.answered else 'none'} answered in the capture"


def _judgements(result: TrafficDiff, row: RollupRow, verdict: NewVerdict) -> tuple[str, str]:
    """Return the judgements of OLD and NEW: ``allow: web/inbound/2``, ``deny: no-rule``, ``allow: 3 rules``."""
    passing = passing_of(row)
    lets_pass = result.old if verdict == "newly-denied" else result.new
    by = _rules(blocking(result, verdict), row.rule, row.rules)
    passing_rules = _rules(lets_pass, passing.rule, passing.rules)
    blocked = f"{blocking_verdict(row)}: {row.reason}{by and f' {by}'}"
    passed = passing.verdict + (passing_rules and f": {passing_rules}")
    return (passed, blocked) if verdict == "newly-denied" else (blocked, passed)


def _rules(policy: Policy, rule: str | None, rules: int) -> str:
    return printable(rule_of_id(policy, rule)) if rule is not None else plural(rules, "rule") if rules else ""


def rule_words(rule: Rule, policy: Policy | None = None) -> str:
    """Describe a rule in one line: ``allow inbound IPv4 tcp 22,80-81 from 0.0.0.0/0, priority 2``. ``policy``: to call
    groups as reports do, and to leave out the version of a rule that is for both (SPEC 2.16).
    """
    parts: list[str] = [rule.action, rule.direction]
    if policy is None or rule.id not in policy.twins:
        parts.append(f"IPv{rule.ethertype}")
    protocol = rule.protocol
    parts.append("all" if protocol is None else protocol_name(protocol) or str(protocol))
    if rule.ports is not None:
        ports = [str(first) if first == last else f"{first}-{last}" for first, last in rule.ports]
        parts.append(",".join(ports[:MAX_PORTS]) + (",..." if len(ports) > MAX_PORTS else ""))
    if rule.icmp_type is not None:
        parts.append(f"type {rule.icmp_type}" + ("" if rule.icmp_code is None else f" code {rule.icmp_code}"))
    match rule.peer:
        case None:
            peer = "anywhere"
        case _:
            peer = printable(peer_text(rule, policy))
    text = f"{' '.join(parts)} {'from' if rule.direction == 'inbound' else 'to'} {peer}"
    return text if rule.priority == 1 else f"{text}, priority {rule.priority}"
